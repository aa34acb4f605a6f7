"""Every option of train_encoder.py is obeyed."""

from option_rows import names, num_lines, obeyed, outcome, rows, weights

ENCODE = (
    '--network={generator}', '--outdir={out}', '--kimg=0.032', '--batch=8', '--perceptual=none', '--cbase=64', '--cmax=8',
    '--hidden=8', '--device=cpu', '--warmup=0.016', '--tick=0.016', '--snap=100',
)  # fmt: skip
TICKS = ('--kimg=2', '--tick=1', '--batch=500')  # states and snapshots have thousands of images in their names
MANY_IMAGES = ('--batch=64', '--image-fraction=1')
FRAMES = ('--data={frames}',)
MANY_FRAMES = FRAMES * 60  # more than a megabyte
E = weights('encoder')
TABLE = [
    *rows(
        'train_encoder',
        ENCODE,
        ('--network', '{generator}', '{other}', E),
        ('--memory', MANY_IMAGES, (*MANY_IMAGES, '--memory=1M'), lambda run: len(run.rendered)),
        ('--outdir', '{out}', '{folder}/elsewhere', names),
        ('--data', None, '{frames}', E),
        ('--init', None, '{encoder}', outcome),
        ('--damaged', ('--data={damaged}',), ('--data={damaged}', '--damaged=skip'), outcome),
        ('--kimg', 0.032, 0.048, E),
        ('--batch', 8, 4, E),
        ('--seed', 0, 1, E),
        ('--gpus', ('--batch=9', '--dry-run'), ('--batch=9', '--dry-run', '--gpus=2'), outcome),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--checkpoint-minutes', (*TICKS, '--keep-states=3'), (*TICKS, '--keep-states=3', '--checkpoint-minutes=1e-6'), names),
        ('--keep-states', TICKS, (*TICKS, '--keep-states=1'), names),
        ('--on-full', 'go-on', 'nowhere', outcome),  # what they do: tests/embedding/test_encoder_survival.py
        ('--on-nan', 'stop', 'nowhere', outcome),
        ('--lr', 1e-3, 1e-2, E),
        ('--warmup', 0.016, 0, E),
        ('--ema', 5, 0.001, E),
        ('--frame-fraction', FRAMES, (*FRAMES, '--frame-fraction=0.25'), E),
        ('--image-fraction', 0.25, 1, E),
        ('--perceptual', 'none', 'alex', E),
        ('--lpips-weights', ('--perceptual=alex',), ('--perceptual=alex', '--lpips-weights={generator}'), outcome),
        ('--lambda-w', 0.2, 2, E),
        ('--lambda-pixel', 1, 9, E),
        ('--lambda-lpips', ('--perceptual=alex',), ('--perceptual=alex', '--lambda-lpips=0'), E),
        ('--lambda-average', FRAMES, (*FRAMES, '--lambda-average=10'), E),
        ('--spread', 1, 0, E),
        ('--cbase', 64, 32, E),
        ('--cmax', 8, 4, E),
        ('--hidden', 8, 4, E),
        ('--frame-memory', MANY_FRAMES, (*MANY_FRAMES, '--frame-memory=1'), lambda run: '2th one kept' in run.stdout),
        ('--tick', 0.016, 0.032, num_lines('stats.jsonl')),
        ('--snap', TICKS, (*TICKS, '--snap=1'), names),
        ('--desc', None, 'word', names),
        ('--fresh', ('!', '&&', '{again}'), ('!', '&&', '{again}', '--fresh'), names),
        ('--trust-pickle', ('--network={refused}',), ('--network={refused}', '--trust-pickle'), outcome),
        ('--dry-run', None, True, names),
    )
]
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
