"""Training states, options and records that were damaged: a readable sentence or harmless, never a traceback."""

import json
import pathlib
import random
import warnings
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from networks.errors import InputError
from train_video import OPTIONS_FILE, main, read_options
from training.best_snapshot import read_values
from training.commands import option_tree
from training.temporal_options import TrainingOptions
from training.temporal_snapshot import STATE_FORMAT, load_training_state
from training.unfinished_runs import is_finished

MUTATIONS = 2000
STRANGE: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 10**30, 10**400, -1.5, 1e308, float('nan'), float('inf'), '', 'x', '\x00', 'a' * 5000,
    '\ud800', '\u202e\x1b[2J', '../../etc/passwd', [], {}, [[]], [None], {'a': {}}, [1, 2, 3], [['x' * 5000]],
]  # fmt: skip


def flip(draw: random.Random, content: bytes) -> bytes:
    kind = draw.random()
    if kind < 0.2:
        return content[: draw.randrange(len(content))]
    data = bytearray(content)
    for _ in range(draw.choice((1, 2, 16))):
        place = draw.randrange(len(data))
        if kind < 0.7:
            data[place] ^= 1 << draw.randrange(8)
        elif kind < 0.85:
            data[place : place + draw.randrange(1, 64)] = bytes(draw.randrange(256) for _ in range(draw.randrange(64)))
        else:
            data[place : place + 4] = draw.choice((b'\xff\xff\xff\xff', b'\x00\x00\x00\x00', b'\xff\xff\xff\x7f'))
    return bytes(data)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in items:
        found += spots(member, (*path, key))
    return found


def replace_values(draw: random.Random, content: Any) -> Any:
    content = json.loads(json.dumps(content))
    path = draw.choice(spots(content))
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    if draw.random() < 0.8:
        parent[path[-1]] = draw.choice(STRANGE)
    elif isinstance(parent, dict):
        del parent[path[-1]]
        parent[draw.choice(['\x00', 'a' * 5000, 'settings'])] = 1
    return content


def refused(act) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            act()
    except InputError:
        return True
    return False


def test_what_a_file_says_is_shown_short_and_printable(tmp_path):
    path = tmp_path / OPTIONS_FILE
    path.write_text(json.dumps({'seed': '\x1b[2J\u202e' + 'a' * 5000, 'data': 'x'}))
    result = CliRunner().invoke(main, [f'--resume={tmp_path}'])
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith('Error: ')
    assert sentence.isprintable()
    assert len(sentence) <= 600 + len('Error: ')
    assert OPTIONS_FILE in sentence


def test_training_states(tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        'format': STATE_FORMAT, 'format_version': 1, 'ranks': [{'random': torch.Generator().get_state()[:64], 'pool': None}],
        'trainer': {'G': module.state_dict(), 'G_optimizer': optimizer.state_dict(), 'num_steps': 7},
        'data_sha256': 'a' * 64, 'tick': 1, 'tick_start_frames': 1008, 'seconds': 1.5}  # fmt: skip
    path = tmp_path / 'training-state-000001.pt'
    torch.save(content, path)
    whole = path.read_bytes()

    def read() -> None:
        state = load_training_state(str(path))
        other = torch.nn.Linear(3, 2)
        try:
            other.load_state_dict(state['trainer']['G'])
            torch.optim.Adam(other.parameters()).load_state_dict(state['trainer']['G_optimizer'])
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError):  # as TemporalTraining does
            raise InputError('of another shape') from None

    read()
    count = 0
    for seed in range(MUTATIONS):
        path.write_bytes(flip(random.Random(seed), whole))
        count += refused(read)
    assert count > MUTATIONS / 3
    for key in content:
        for value in STRANGE:
            torch.save({**content, key: value}, path)
            refused(lambda: load_training_state(str(path)))
            is_finished(str(tmp_path), 0.5, [])


def test_training_options(tmp_path, tiny_latents):
    options = option_tree.to_dict(option_tree.build(TrainingOptions, {'data': str(tiny_latents)}))
    path = tmp_path / OPTIONS_FILE
    whole = json.dumps(options, indent=2).encode()
    count = 0
    for seed in range(MUTATIONS):
        draw = random.Random(seed)
        path.write_bytes(flip(draw, whole) if seed % 4 == 0 else json.dumps(replace_values(draw, options)).encode())
        count += refused(lambda: read_options(str(path)))
    assert count > MUTATIONS / 3
    for deep in ('[' * 100000, '{"a":' * 100000, '[' * 100000 + ']' * 100000):
        path.write_text(deep)
        assert refused(lambda: read_options(str(path)))


def test_results_of_metrics(tmp_path):
    (tmp_path / 'network-snapshot-000001.pkl').touch()
    line = {'results': {'m': 1.5}, 'metric': 'm', 'snapshot_pkl': 'network-snapshot-000001.pkl', 'timestamp': 1.0}
    path = tmp_path / 'metric-m.jsonl'
    for seed in range(MUTATIONS):
        draw = random.Random(seed)
        lines = [
            flip(draw, json.dumps(line).encode()) if draw.random() < 0.5 else json.dumps(replace_values(draw, line)).encode()
        ]
        path.write_bytes(b'\n'.join([*lines, json.dumps(line).encode(), b'']))
        assert read_values(str(tmp_path), 'm')['network-snapshot-000001.pkl'] == 1.5
    path.write_text('[' * 100000 + '\n')
    assert read_values(str(tmp_path), 'm') == {}


@pytest.mark.parametrize('seed', range(20))
def test_no_path_of_a_file_leads_out_of_the_run(tmp_path: pathlib.Path, seed):
    line = {'results': {'m': 1.5}, 'snapshot_pkl': '../' * seed + 'etc/passwd'}
    (tmp_path / 'metric-m.jsonl').write_text(json.dumps(line) + '\n')
    assert read_values(str(tmp_path), 'm') == {}
