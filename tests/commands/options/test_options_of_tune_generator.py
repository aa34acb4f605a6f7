"""Every option of tune_generator.py is obeyed."""

import json
from typing import Any

from option_rows import image_weights, names, num_lines, obeyed, outcome, rows, statistic
from option_workshop import Run

TUNE = (
    '--data={coded}', '--outdir={out}', '--dest={folder}/x.pkl', '--steps=2', '--tick=2', '--batch=4', '--locality-batch=4',
    '--perceptual=none', '--device=cpu', '--lr=0.0002', '--warmup=0', '--identity=no',
)  # fmt: skip
PERCEPTUAL = ('--perceptual=alex',)


def identity(run: Run) -> Any:
    """The distance of faces after tuning."""
    (path,) = run.folder.rglob('tuning.json')
    return json.loads(path.read_text())['quality']['after']['learned'].get('identity')


TABLE = rows(
    'tune_generator',
    TUNE,
    ('--data', '{coded}', '{data}', outcome),
    ('--outdir', '{out}', '{folder}/elsewhere', names),
    ('--network', None, '{other}', outcome),
    ('--source', None, '{frames}', outcome),
    ('--dest', '{folder}/x.pkl', '{folder}/y.pkl', names),
    ('--steps', 2, 3, image_weights),
    ('--held-out', 0.2, 0.5, image_weights),
    (
        '--patience',
        ('--lr=1e-12', '--tick=1', '--steps=6'),
        ('--lr=1e-12', '--tick=1', '--steps=6', '--patience=2'),
        num_lines('stats.jsonl'),
    ),
    ('--seed', 0, 1, image_weights),
    ('--device', 'cpu', 'nowhere', outcome),
    ('--lambda-locality', 1, 0, image_weights),
    ('--locality-batch', 4, 8, image_weights),
    ('--keep', None, '{second}', image_weights),
    ('--spread', 1, 0, image_weights),
    ('--batch', 4, 8, image_weights),
    ('--lr', 0.0002, 0.0001, image_weights),
    ('--warmup', 0, 5, image_weights),
    ('--ema', 25, 0.1, image_weights),
    ('--perceptual', 'none', 'alex', image_weights),
    ('--lpips-weights', PERCEPTUAL, (*PERCEPTUAL, '--lpips-weights={generator}'), outcome),
    ('--lambda-lpips', PERCEPTUAL, (*PERCEPTUAL, '--lambda-lpips=0'), image_weights),
    ('--lambda-pixel', PERCEPTUAL, (*PERCEPTUAL, '--lambda-pixel=0'), image_weights),
    ('--micro-batch', None, 1, lambda run: len(run.rendered)),
    ('--memory', '70%', 'nothing', outcome),  # what it does: tests/commands/test_tune_generator.py
    ('--save-memory', None, True, lambda run: run.recomputed > 0),
    ('--frame-memory', ('--data={long}',), ('--data={long}', '--frame-memory=1'), lambda run: '2th one' in run.stdout),
    ('--fp32', None, True, lambda run: '"fp32": true' in run.stdout),  # recorded only: without a GPU there is no half precision
    ('--identity', 'no', 'yes', identity),
    ('--identity-model', ('--identity=yes',), ('--identity=yes', '--identity-model={generator}'), identity),
    ('--tick', 2, 1, num_lines('stats.jsonl')),
    ('--evaluate', 64, 1, statistic('Quality/held_out/psnr')),
    ('--overwrite', ('&&', '{again}', '--seed=1'), ('&&', '{again}', '--seed=1', '--overwrite'), outcome),
    ('--force-network', ('--network={other}',), ('--network={other}', '--force-network'), outcome),
    ('--desc', None, 'word', names),
    ('--fresh', ('!', '&&', '{again}'), ('!', '&&', '{again}', '--fresh'), names),
    ('--dry-run', None, True, names),
)
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
