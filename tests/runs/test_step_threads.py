"""How many threads a step takes: by a clock of the test's own, and that a training is the same whether it was measured or not."""

import pathlib
import re

import pytest
import torch
from click.testing import CliRunner
from tiny_training import TINY_TRAINING

import train_video
from training import temporal_snapshot
from training.runs import step_threads


@pytest.fixture
def eight_threads(monkeypatch):
    for name in step_threads.SAID_BY_USER:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


class Steps:
    """Steps that take what `costs` says; `rounding`: whether their result depends on the threads."""

    def __init__(self, monkeypatch, costs, rounding=False):
        self.costs, self.rounding, self.now, self.taken = costs, rounding, 0.0, []
        self.value = torch.zeros(3)
        monkeypatch.setattr(step_threads.time, 'perf_counter', lambda: self.now)

    def step(self):
        self.now += self.costs[torch.get_num_threads()]
        self.taken.append(torch.get_num_threads())
        self.value += torch.get_num_threads() if self.rounding else 1

    def choose(self):
        choice = step_threads.choose(self.step, self.value.zero_, lambda: [self.value])
        assert torch.equal(self.value, torch.zeros(3))  # where it was
        assert torch.get_num_threads() == 8
        return choice


@pytest.mark.parametrize(('costs', 'wanted'), [((10, 20, 130), 1), ((10, 6, 8), 2), ((10, 9.5, 3), 8), ((10, 9.5, 9.4), 1)])
def test_the_fastest_is_taken(eight_threads, monkeypatch, costs, wanted):
    steps = Steps(monkeypatch, dict(zip((1, 2, 8), costs, strict=True)))
    assert steps.choose().threads == wanted
    if costs[2] == 130:
        assert steps.taken == [1, 2, 8, 1, 1, 1, 1, 2, 2, 2, 2, 8]  # given up after one


def test_no_choice_where_the_result_depends_on_it(eight_threads, monkeypatch):
    steps = Steps(monkeypatch, {1: 1, 2: 10, 8: 100}, rounding=True)
    assert steps.choose() == step_threads.Choice(8, 'the result depends on their number')
    assert steps.taken == [1, 2]


def test_the_user_has_decided(eight_threads, monkeypatch):
    assert step_threads.is_open()
    monkeypatch.setenv('OMP_NUM_THREADS', '8')
    assert not step_threads.is_open()


def test_a_measured_training_is_the_same(eight_threads, monkeypatch, tiny_latents: pathlib.Path, tmp_path: pathlib.Path):
    """Bit by bit, with what it says, and its number is kept by a resumed run."""

    def train(name, *more):
        words = [f'--outdir={tmp_path / name}', f'--data={tiny_latents}', *TINY_TRAINING, '--preview-frames=0', '--snap=0',
                 '--carry=0.5', '--chains=16', '--burn-in=4', '--strides=1', *more]  # fmt: skip
        done = CliRunner().invoke(train_video.main, words, catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        state = temporal_snapshot.load_training_state(str(next(tmp_path.glob(f'{name}/*/training-state-*.pt'))))
        return done.stdout, state

    monkeypatch.setattr(step_threads, 'HOPELESS', 0.0)  # of the others one step each
    said, measured = train('measured', '--kimg=0.9')
    line = re.search(r'Threads: +(\d+) for a step, of 8: (a step takes \d+ ms with 1|the result depends)', said)
    assert line is not None, said
    assert measured['threads'] == int(line[1])
    monkeypatch.setattr(step_threads, 'choose', None)
    with monkeypatch.context() as patch:
        patch.setattr(step_threads, 'is_open', lambda: False)
        torch.set_num_threads(measured['threads'])
        said, plain = train('plain', '--kimg=0.9')
        torch.set_num_threads(8)
    assert 'Threads:' not in said
    for kind in ('G', 'G_ema'):
        for name, tensor in plain['trainer'][kind].items():
            assert torch.equal(tensor, measured['trainer'][kind][name]), name
    run = next((tmp_path / 'measured').iterdir())
    said, resumed = train('measured', f'--resume={run}', '--kimg=1.8')
    assert resumed['threads'] == measured['threads']
