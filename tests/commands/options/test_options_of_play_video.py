"""Every option of play_video.py is obeyed."""

import importlib.util
from typing import Any

import pytest
from option_rows import address, content, evening, names, obeyed, outcome, rows
from option_workshop import Run

NOISY = ('--image-network={noisy}', '--force-image-network')
LIVE = content('*.jpg')
pytestmark = pytest.mark.skipif(importlib.util.find_spec('aiohttp') is None, reason='the live view needs aiohttp')


def at_port_1(run: Run) -> Any:
    """Which most users may not open; another one could be taken already."""
    return run.exit_code or address('port')(run) == [1]


TABLE = rows(
    'play_video',
    ('--network={snapshot}', '--outdir={out}', '--port=0', '--directions=0', '--device=cpu'),
    ('--network', '{snapshot}', '{early}', LIVE),
    ('--outdir', '{out}', '{folder}/elsewhere', names),
    ('--seed', 0, 4, LIVE),
    ('--continue', None, '{live_state}', LIVE),
    ('--subject', None, '{still}', LIVE),
    ('--transfer', ('--subject={still}',), ('--subject={still}', '--transfer=offset'), LIVE),
    (
        '--transfer-data',
        ('--subject={still}', '--transfer=regression', '--transfer-data={second}'),
        ('--subject={still}', '--transfer=regression', '--transfer-data={slow}'),
        LIVE,
    ),
    ('--encoder', ('--subject={picture}', '--encoder={encoder}'), ('--subject={picture}', '--encoder={generator}'), outcome),
    (
        '--align',
        ('--subject={picture}', '--encoder={encoder}'),
        ('--subject={picture}', '--encoder={encoder}', '--align=ffhq'),
        LIVE,
    ),
    ('--edit', None, '{direction}:2', LIVE),
    ('--directions', 0, 1, evening('choices')),
    ('--motion-scale', 1, 0.5, LIVE),
    ('--trunc', 1, 0.5, LIVE),
    ('--trunc-center', ('--trunc=0.5',), ('--trunc=0.5', '--trunc-center=generator'), LIVE),
    ('--speed', 1, 2, LIVE),
    ('--fps', None, 50, LIVE),
    ('--quality', 90, 20, LIVE),
    ('--noise-mode', NOISY, (*NOISY, '--noise-mode=none'), LIVE),
    ('--burn-in', 0, 3, LIVE),
    ('--host', '127.0.0.1', 'localhost', address('hostname')),
    ('--port', 0, 1, at_port_1),
    ('--token', None, '0123456789abcdef', address('query')),
    ('--allow-host', None, 'mine.example', evening('by another name')),
    ('--max-viewers', 16, 1, evening('second')),
    ('--idle-minutes', 0, 0.001, evening('ended by itself')),
    ('--open', None, True, lambda run: 'opened' in run.stdout),
    ('--image-network', None, '{other}', outcome),
    ('--force-image-network', ('--image-network={other}',), ('--image-network={other}', '--force-image-network'), outcome),
    (
        '--trust-pickle',
        ('--image-network={refused}', '--force-image-network'),
        ('--image-network={refused}', '--force-image-network', '--trust-pickle'),
        outcome,
    ),
    ('--device', 'cpu', 'nowhere', outcome),
)
test_option_is_obeyed, test_equal_commands_give_equal_results = obeyed(TABLE)
