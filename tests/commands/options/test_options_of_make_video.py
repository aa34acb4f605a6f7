"""Every option of make_video.py is obeyed."""

import json
from typing import Any

from option_rows import names, obeyed, outcome, rows, said
from option_workshop import Run

ENCODED = ('--encoder={encoder}',)


def source_of_making(run: Run) -> Any:
    return json.loads((run.folder / 'out' / 'make.json').read_text())['options']['source']


TABLE = [
    *rows(
        'make_video',
        ('--source={frames}', '--network={generator}', '--outdir={out}', '--device=cpu', '--align=center', '--dry-run'),
        ('--source', '{frames}', '{video}', source_of_making),
        ('--network', '{generator}', '{generator}x', outcome),
        ('--outdir', '{out}', '{folder}/elsewhere', names),
        ('--start', None, 0.2, said),
        ('--end', None, 0.5, said),
        ('--align', 'center', 'ffhq', said),
        ('--encoder', None, '{encoder}', said),
        ('--refine', ENCODED, (*ENCODED, '--refine'), said),
        ('--tune', None, True, said),
        ('--preset', 'default', 'paper', said),
        ('--kimg', None, 5, said),
        ('--videos', 2, 3, said),
        ('--seconds', 20, 30, said),
        ('--paste', None, True, said),
        ('--force-data', None, True, said),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--trust-pickle', ('--network={refused}',), ('--network={refused}', '--trust-pickle'), outcome),
    ),
    *rows(
        'make_video',
        ('--source={frames}', '--network={generator}', '--outdir={out}', '--device=cpu', '--align=center', '--encoder={codes}'),
        ('--dry-run', None, True, outcome),
    ),
]
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
