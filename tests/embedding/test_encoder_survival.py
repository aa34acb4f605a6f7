"""Trainings of encoders that are killed, stopped, refused by disks, diverge, or are shared by ranks."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner, Result

import train_encoder
from networks.checkpoints import load_encoder, load_generator
from networks.errors import InputError
from networks.w_encoder import WEncoder
from training.commands import option_tree
from training.embedding import encoder_training
from training.embedding.encoder_loss import EncoderLoss
from training.embedding.encoder_options import EncoderTrainingOptions
from training.runs import claims, saving, states

SMALL = (
    '--kimg=0.096', '--batch=8', '--tick=0.024', '--snap=2', '--warmup=0.01', '--perceptual=none', '--cbase=64', '--cmax=8',
    '--hidden=8', '--device=cpu',
)  # fmt: skip
TICKS = [0.024, 0.048, 0.072, 0.096]


class Killed(BaseException):
    """Stands for kill -9: nobody catches it."""


def kill(*_: object, **__: object) -> None:
    raise Killed


@pytest.fixture(scope='module')
def frames(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp('footage') / 'frames'
    folder.mkdir()
    random = np.random.RandomState(0)
    for index in range(6):
        PIL.Image.fromarray(random.randint(0, 255, [16, 16, 3], np.uint8)).save(folder / f'{index}.png')
    return folder


@pytest.fixture
def train(tiny_generator: pathlib.Path, frames: pathlib.Path, tmp_path: pathlib.Path) -> Callable[..., Result]:
    def run(*options: str, outdir: pathlib.Path = tmp_path) -> Result:
        arguments = [f'--network={tiny_generator}', f'--data={frames}', *SMALL, f'--outdir={outdir}', *options]
        return CliRunner().invoke(train_encoder.main, arguments, catch_exceptions=False)

    return run


@pytest.fixture(scope='module')
def straight(
    tmp_path_factory: pytest.TempPathFactory, tiny_generator: pathlib.Path, frames: pathlib.Path
) -> dict[str, torch.Tensor]:
    outdir = tmp_path_factory.mktemp('straight')
    arguments = [f'--network={tiny_generator}', f'--data={frames}', *SMALL, f'--outdir={outdir}']
    result = CliRunner().invoke(train_encoder.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return weights(outdir)


def weights(outdir: pathlib.Path) -> dict[str, torch.Tensor]:
    (run,) = outdir.glob('0*')
    return load_encoder(str(sorted(run.glob('encoder-*.pkl'))[-1])).state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(a[key], b[key]) for key in a)


def ticks(outdir: pathlib.Path) -> list[float]:
    (path,) = outdir.glob('0*/stats.jsonl')
    return [round(json.loads(line)['Progress/kimg']['mean'], 3) for line in path.read_text().splitlines()]


def at_step(monkeypatch: pytest.MonkeyPatch, wanted: int, action: Callable[[], object]) -> None:
    """Do something in the middle of a step, once."""
    real, done = EncoderLoss.__call__, []
    steps = []

    def loss(self: EncoderLoss, *arguments: Any) -> torch.Tensor:
        value = real(self, *arguments)
        steps.append(True)
        if len(steps) == wanted and not done:
            done.append(True)
            action()
        return value

    monkeypatch.setattr(EncoderLoss, '__call__', loss)


def test_the_same_command_goes_on_after_kills(tmp_path, train, straight, monkeypatch):
    """Killed before the first state, in a step, in the pictures of a snapshot: one run, equal to one that was never killed."""
    monkeypatch.setattr(saving.Clock, 'is_due', lambda self: True)  # a state after every step
    for module, name in ((states, 'write_state'), (EncoderLoss, 'evaluate'), (encoder_training, 'save_module_pickle')):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, kill)
            with pytest.raises(Killed):
                train()
    with monkeypatch.context() as patch:
        at_step(patch, 3, kill)
        with pytest.raises(Killed):
            train()
    (run,) = tmp_path.iterdir()
    (run / '.training-state-000001.pt.abcdefgh.tmp').write_text('of a killed run')
    result = train()
    assert result.exit_code == 0, result.output
    assert 'Resuming at 0.064 kimg' in result.output
    assert [run] == list(tmp_path.iterdir())
    assert_same(straight, weights(tmp_path))
    assert ticks(tmp_path) == TICKS
    assert not [path for path in run.iterdir() if path.name.startswith('.')]
    assert 'is a finished run with these options' in train().output
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        at_step(patch, 2, kill)
        with pytest.raises(Killed):
            train('--fresh')
    assert 'other options (--kimg=0.096, --lr=0.001); this command begins another run' in train('--lr=0.01', '--kimg=0.02').output
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_a_step_saves_what_was_before_it(tmp_path, train, straight, monkeypatch, number):
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), number))
        result = train()
    assert result.exit_code == 128 + number
    assert 'the same command goes on' in result.output
    (run,) = tmp_path.iterdir()
    assert encoder_training.load_training_state(encoder_training.training_states(str(run))[0])['cur_nimg'] == 32
    assert train().exit_code == 0
    assert_same(straight, weights(tmp_path))
    assert ticks(tmp_path) == TICKS


def test_a_stop_on_a_full_disk_promises_nothing(train, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(states, 'write_state', full)
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    result = train()
    assert result.exit_code == 143
    assert 'the last state could not be written' in result.output
    assert 'everything is saved' not in result.output


def test_a_full_disk_costs_a_state_and_is_told(tmp_path, train, straight, monkeypatch):
    real, calls = torch.save, []

    def full(obj: object, path: str, *rest: Any, **more: Any) -> None:
        calls.append(path)
        if 2 <= len(calls) <= 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        real(obj, path, *rest, **more)

    monkeypatch.setattr(torch, 'save', full)
    result = train()
    assert result.exit_code == 0, result.output
    assert 'the training state could not be written, and the training goes on: no space is left' in result.output
    assert_same(straight, weights(tmp_path))


def test_an_encoder_that_the_disk_does_not_take_is_written_by_the_same_command(tmp_path, train, straight, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'x')

    with monkeypatch.context() as patch:
        patch.setattr(encoder_training, 'save_module_pickle', full)
        assert train('--on-full=stop').exit_code == 2
        result = train()
    assert result.exit_code == 2
    assert 'encoder-000000.pkl could not be written; free some space and give the same command again' in result.output
    assert train().exit_code == 0
    assert_same(straight, weights(tmp_path))


def spoil(monkeypatch: pytest.MonkeyPatch, wanted: int) -> None:
    real, steps = EncoderLoss.__call__, []

    def loss(self: EncoderLoss, *arguments: Any) -> torch.Tensor:
        steps.append(True)
        return real(self, *arguments) * (float('nan') if len(steps) == wanted else 1)

    monkeypatch.setattr(EncoderLoss, '__call__', loss)


def test_numbers_that_are_none_are_named_and_never_saved(tmp_path, train, monkeypatch):
    with monkeypatch.context() as patch:
        spoil(patch, 5)
        result = train()
    assert result.exit_code == 2
    assert 'the training has diverged: at step 4 (0.032 kimg) the gradient of encoder.' in result.output
    (run,) = tmp_path.iterdir()
    state = encoder_training.load_training_state(encoder_training.training_states(str(run))[0])
    assert state['cur_nimg'] == 24
    with monkeypatch.context() as patch:
        spoil(patch, 2)
        result = train('--on-nan=rollback')
    assert result.exit_code == 0, result.output
    assert 'going back to 0.024 kimg' in result.output
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_a_run_in_use_is_refused(tmp_path, train, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 5, kill)
        with pytest.raises(Killed):
            train()
    (run,) = tmp_path.iterdir()
    monkeypatch.setattr(claims, 'WAIT_SECONDS', 0.1)
    with claims.lock_run(str(run)):
        result = train('--kimg=0.096')
    assert result.exit_code == 2
    assert 'is in use by' in result.output
    assert list(tmp_path.iterdir()) == [run]


def test_a_state_of_an_older_version_and_damaged_ones(tmp_path, train, straight, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 8, kill)
        with pytest.raises(Killed):
            train('--keep-states=1')
    (run,) = tmp_path.iterdir()
    (newest,) = run.glob('training-state-*.pt')
    state = torch.load(newest)
    torch.save({key: state[key] for key in ('encoder', 'average', 'optimizer', 'cur_nimg')}, run / 'training-state.pt')
    newest.write_bytes(newest.read_bytes()[:2000])
    assert train().exit_code == 0
    assert_same(straight, weights(tmp_path))
    assert [path.name for path in run.glob('training-state*')] == ['training-state-000000.pt']
    for content in (b'PK hello', b''):
        newest.write_bytes(content)
        with pytest.raises(InputError, match='is not a training state, or it was cut off'):
            encoder_training.load_training_state(str(newest))
    torch.save({**state, 'optimizer': {}, 'tick': 4}, newest)
    result = train('--kimg=0.096', '--snap=3')
    assert result.exit_code == 0  # another run
    assert train().exit_code == 2


def test_a_training_whose_folder_is_gone_ends(tmp_path, train, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: [shutil.rmtree(run) for run in tmp_path.iterdir()])
        result = train()
    assert result.exit_code == 2
    assert 'was deleted or moved away, so nothing of this run can be saved' in result.output
    assert list(tmp_path.iterdir()) == []


def test_options_that_a_run_did_not_know_stay_as_they_were(tmp_path, train, monkeypatch):
    """As if an option had come since, --damaged, and runs before it had kept what can be decoded."""
    with monkeypatch.context() as patch:
        at_step(patch, 8, kill)
        with pytest.raises(Killed):
            train()
    (run,) = tmp_path.iterdir()
    assert 'damaged' not in json.loads((run / 'training_options.json').read_text())
    (declared,) = (leaf.declared for leaf in option_tree.leaves(EncoderTrainingOptions) if leaf.path == 'damaged')
    before = declared.absent
    object.__setattr__(declared, 'absent', 'keep')
    try:
        seen = []
        real = encoder_training.EncoderTraining.run
        monkeypatch.setattr(encoder_training.EncoderTraining, 'run', lambda self: seen.append(self.options.damaged) or real(self))
        result = train()
        assert result.exit_code == 0, result.output
        assert f'an older version of this program began {run}, which goes on as it was: --damaged=keep; --fresh' in result.output
        assert seen == ['keep']
        assert list(tmp_path.iterdir()) == [run]
        (next(run.glob('encoder-000000.pkl'))).unlink()  # unfinished again
        result = train('--damaged=skip')
        assert 'was begun with other options (--damaged=keep)' in result.output
        assert len(list(tmp_path.iterdir())) == 2
    finally:
        object.__setattr__(declared, 'absent', before)


def test_parts_of_ranks_add_up_to_the_loss(tiny_generator):
    G: Any = load_generator(str(tiny_generator))
    torch.manual_seed(0)
    encoder = WEncoder(num_ws=6, w_dim=8, img_resolution=16, channel_base=64, channel_max=8, hidden_features=8)
    samples = G.mapping(torch.randn(5, 8), None)
    frames = torch.rand(3, 3, 16, 16) * 2 - 1

    def gradient(rank: int, num_ranks: int) -> torch.Tensor:
        value = EncoderLoss(G, encoder, None, image_fraction=0.4, rank=rank, num_ranks=num_ranks)(samples, frames)
        return torch.cat([value[None], *(part.flatten() for part in torch.autograd.grad(value, list(encoder.parameters())))])

    whole = gradient(0, 1)
    for num_ranks in (2, 4, 8):  # of eight, some have own samples alone
        parts = torch.stack([gradient(rank, num_ranks) for rank in range(num_ranks)]).sum(dim=0)
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_two_ranks_train_the_same_encoder(root, tiny_generator, frames, straight, tmp_path):
    command = [sys.executable, 'train_encoder.py', f'--network={tiny_generator}', f'--data={frames}', *SMALL]
    result = subprocess.run([*command, f'--outdir={tmp_path}', '--gpus=2'], capture_output=True, text=True, cwd=root)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('tick 4') == 1
    two = weights(tmp_path)
    for key, value in straight.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5)
    (line, *_) = (json.loads(text) for text in next(tmp_path.glob('0*/stats.jsonl')).read_text().splitlines())
    assert line['Loss/encoder/w']['num'] == 3 * 4  # those of both ranks: half of a batch are frames
