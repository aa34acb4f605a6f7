"""Trainings that are killed, stopped, refused by disks or diverge: nothing is lost, and the same command goes on."""

import errno
import json
import math
import os
import pathlib
import shutil
import signal

import pytest
import torch
from click.testing import CliRunner, Result
from tiny_training import TINY_TRAINING

from metrics import metric_main
from networks import checkpoints
from train_video import main
from training import temporal_snapshot, temporal_training_loop
from training.commands import command_line, stop_signals
from training.runs import claims, saving
from training.temporal_trainer import TemporalTrainer

SMALL = [*TINY_TRAINING, '--preview-frames=0', '--tick=1', '--kimg=4']  # 144 frames a step, 7 steps a tick, 28 steps


class Killed(BaseException):
    """Stands for kill -9: nobody catches it."""


def train(folder: pathlib.Path, data: pathlib.Path, *options: str) -> Result:
    return CliRunner().invoke(main, [f'--outdir={folder}', f'--data={data}', *SMALL, *options], catch_exceptions=False)


def weights(run: pathlib.Path) -> dict[str, torch.Tensor]:
    snapshot = checkpoints.load_snapshot(str(sorted(run.glob('network-snapshot-*.pkl'))[-1]))
    return {f'{name}.{key}': value for name in ('G', 'G_ema', 'C') for key, value in snapshot[name].state_dict().items()}


def assert_same(a: pathlib.Path, b: pathlib.Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def ticks(run: pathlib.Path) -> list[float]:
    return [round(json.loads(line)['Progress/kimg']['mean'], 3) for line in (run / 'stats.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module')
def straight(tmp_path_factory, tiny_latents):
    folder = tmp_path_factory.mktemp('straight')
    result = train(folder, tiny_latents)
    assert result.exit_code == 0, result.output
    (run,) = folder.iterdir()
    return run


def at_step(monkeypatch: pytest.MonkeyPatch, wanted: int, action) -> None:
    """Do something once, when the training has made so many steps."""
    real, done = TemporalTrainer.step, []

    def step(self: TemporalTrainer) -> None:
        real(self)
        if self.num_steps == wanted and not done:
            done.append(True)
            action(self)

    monkeypatch.setattr(TemporalTrainer, 'step', step)


def kill(*_: object, **__: object) -> None:
    raise Killed


def test_the_same_command_goes_on_after_kills(tmp_path, tiny_latents, straight, monkeypatch):
    """Killed before the first state, then between two of them, then finished: one folder, equal to a run without kills."""
    monkeypatch.setattr(saving.Clock, 'is_due', lambda self: True)  # a state after every step
    real_save = temporal_snapshot.save_training_state
    monkeypatch.setattr(temporal_snapshot, 'save_training_state', kill)
    with pytest.raises(Killed):
        train(tmp_path, tiny_latents)
    monkeypatch.setattr(temporal_snapshot, 'save_training_state', real_save)
    for step in (4, 12):
        with monkeypatch.context() as patch:
            at_step(patch, step, kill)
            with pytest.raises(Killed):
                train(tmp_path, tiny_latents)
    (run,) = tmp_path.iterdir()
    (run / '.training-state-000001.pt.abcdefgh.tmp').write_text('of a killed run')
    result = train(tmp_path, tiny_latents)
    assert result.exit_code == 0, result.output
    assert 'Resuming from' in result.output
    assert [run] == list(tmp_path.iterdir())
    assert_same(run, straight)
    assert ticks(run) == ticks(straight)
    assert not [path for path in run.iterdir() if path.name.startswith('.')]
    # A finished one needs nothing; other options are another run, and --fresh insists.
    result = train(tmp_path, tiny_latents)
    assert result.exit_code == 0
    assert 'is finished; --fresh trains another one' in result.output
    for number, options in enumerate([('--fresh',), ('--seed=2',)], start=1):
        with monkeypatch.context() as patch:
            at_step(patch, 2, kill)
            with pytest.raises(Killed):
                train(tmp_path, tiny_latents, *options)
        assert len(list(tmp_path.iterdir())) == number + 1


def test_options_that_differ_are_named_and_those_that_a_run_did_not_know_stay(tmp_path, tiny_latents, monkeypatch):
    """The run is stripped of options, as an older version would have begun it; it goes on without what they stand for."""
    with monkeypatch.context() as patch:
        at_step(patch, 8, kill)
        with pytest.raises(Killed):
            train(tmp_path, tiny_latents)
    (run,) = tmp_path.iterdir()
    assert [path.name for path in run.glob('training-state*')] == ['training-state-000001.pt']  # of the end of the first tick
    path = run / 'training_options.json'
    options = json.loads(path.read_text())
    removed = {name: options['settings'].pop(name) for name in ('distortion', 'unfiltered')}
    assert removed['distortion'] > 0  # today's default
    assert not removed['unfiltered']
    path.write_text(json.dumps(options, indent=2))
    seen = []
    real = temporal_training_loop.TemporalTraining.run

    def look(self):
        seen.append(self.options.settings)
        return real(self)

    monkeypatch.setattr(temporal_training_loop.TemporalTraining, 'run', look)
    for step in (12, 16, None):  # again and again: the file still says that the run did not know them
        with monkeypatch.context() as patch:
            if step is not None:
                at_step(patch, step, lambda _: os.kill(os.getpid(), signal.SIGTERM))
            result = train(tmp_path, tiny_latents)
        assert result.exit_code == (0 if step is None else 143), result.output
        assert (
            f'an older version of this program began {run}, which goes on as it was: --unfiltered, --distortion=0'
            in result.output
        )
        assert (seen[-1].distortion, seen[-1].unfiltered) == (0.0, True)
        assert json.loads(path.read_text()) == options
        assert list(tmp_path.iterdir()) == [run]
    # It is finished, and no run of today's defaults.
    with monkeypatch.context() as patch:
        at_step(patch, 2, kill)
        with pytest.raises(Killed):
            train(tmp_path, tiny_latents)
    assert len(list(tmp_path.iterdir())) == 2
    # What the user has chosen is another run, and says in what the unfinished one differs.
    result = train(tmp_path, tiny_latents, '--distortion=0.1', '--seed=3')
    assert result.exit_code == 0
    assert 'was begun with other options (--seed=0, --distortion=0.3)' in result.output
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize('what', ['deleted', 'moved', 'replaced'])
def test_a_run_whose_folder_is_gone_ends(tmp_path, tiny_latents, monkeypatch, what):
    """Within the tick, although it could go on until its end without a word."""
    steps = []

    def act(trainer: TemporalTrainer) -> None:
        (run,) = (tmp_path / 'runs').iterdir()
        if what == 'moved':
            run.rename(tmp_path / 'elsewhere')
        else:
            shutil.rmtree(tmp_path / 'runs')
        if what == 'replaced':
            run.mkdir(parents=True)
            (run / '.lock').write_text('of another run')

    with monkeypatch.context() as patch:
        at_step(patch, 10, act)
        real = TemporalTrainer.step
        patch.setattr(TemporalTrainer, 'step', lambda self: steps.append(self.num_steps) or real(self))
        result = train(tmp_path / 'runs', tiny_latents)
    assert result.exit_code == 2
    (line,) = (line for line in result.output.splitlines() if line.startswith('Error'))
    assert 'was deleted or moved away, so nothing of this run can be saved any more' in line
    assert len(steps) == 10
    left = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / 'runs').rglob('*'))
    assert [path for path in left if 'network-snapshot' in path or 'training-state' in path] == []
    assert any(path.endswith('.lock') for path in left) == (what == 'replaced')
    if what == 'moved':  # and back: it goes on
        run = tmp_path / 'runs' / '00000-tiny-latents-gpus1-batch16'
        (tmp_path / 'elsewhere').rename(tmp_path / 'runs' / run.name)
        assert train(tmp_path / 'runs', tiny_latents).exit_code == 0


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_finish_the_step_and_save(tmp_path, tiny_latents, straight, monkeypatch, number):
    with monkeypatch.context() as patch:
        at_step(patch, 10, lambda _: os.kill(os.getpid(), number))
        result = train(tmp_path, tiny_latents)
    assert result.exit_code == 128 + number
    assert 'the same command goes on' in result.output
    (run,) = tmp_path.iterdir()
    assert temporal_snapshot.load_training_state(str(run / 'training-state-000001.pt'))['trainer']['num_steps'] == 10
    assert train(tmp_path, tiny_latents).exit_code == 0
    assert_same(run, straight)
    assert ticks(run) == ticks(straight)


def test_a_stop_inside_of_metrics_and_what_was_missing_after_it(tmp_path, tiny_latents, straight, monkeypatch):
    calls = []

    def first(opts):
        return {'first_survival': float(len(calls))}

    def stopped(opts):
        calls.append(1)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return {'stopped_survival': 2.0}

    first.__name__, stopped.__name__ = 'first_survival', 'stopped_survival'
    known = {metric_main.register_metric(function).__name__: __file__ for function in (first, stopped)}
    from training import temporal_metrics

    monkeypatch.setattr(temporal_metrics, 'discover_metrics', lambda: (known, {}))
    options = ['--snap=2', '--metrics=first_survival,stopped_survival']
    result = train(tmp_path, tiny_latents, *options)
    assert result.exit_code == 143
    (run,) = tmp_path.iterdir()
    assert not (run / 'metric-stopped_survival.jsonl').exists()
    result = train(tmp_path, tiny_latents, *options)
    assert result.exit_code == 0, result.output
    for name in ('first_survival', 'stopped_survival'):
        lines = [json.loads(line)['snapshot_pkl'] for line in (run / f'metric-{name}.jsonl').read_text().splitlines()]
        assert lines == ['network-snapshot-000002.pkl', 'network-snapshot-000004.pkl']
    assert_same(run, straight)


def fail_second_state(monkeypatch: pytest.MonkeyPatch, error) -> None:
    """Let torch.save fail once, when the second training state is written; it also serves inside of pickles."""
    real, states = torch.save, []

    def save(content: object, file: object, *args: object, **kwargs: object) -> None:
        if 'training-state' in str(file):
            states.append(file)
            if len(states) == 2:
                raise error
        real(content, file, *args, **kwargs)

    monkeypatch.setattr(torch, 'save', save)


@pytest.mark.parametrize(
    'error',
    [
        *(OSError(getattr(errno, name), os.strerror(getattr(errno, name))) for name in ('ENOSPC', 'EIO', 'EROFS', 'EDQUOT')),
        RuntimeError(
            '[enforce fail at inline_container.cc:626] . PytorchStreamWriter failed writing file data/7: file write failed'
        ),
    ],
)
def test_a_disk_that_takes_nothing_costs_a_state_and_not_the_training(tmp_path, tiny_latents, straight, monkeypatch, error):
    fail_second_state(monkeypatch, error)
    result = train(tmp_path, tiny_latents, '--snap=1')
    assert result.exit_code == 0, result.output
    assert result.output.count('Warning: the training state could not be written, and the training goes on') == 1
    (run,) = tmp_path.iterdir()
    assert_same(run, straight)
    assert [path.name for path in run.glob('*training-state*')] == ['training-state-000004.pt']


def test_a_stop_on_a_full_disk_promises_nothing(tmp_path, tiny_latents, straight, monkeypatch):
    with monkeypatch.context() as patch:
        fail_second_state(patch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        at_step(patch, 10, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        result = train(tmp_path, tiny_latents)
    assert result.exit_code == 143
    assert 'the last state could not be written, so the same command goes on from the one before it' in result.output
    assert 'everything' not in result.output
    (run,) = tmp_path.iterdir()
    assert train(tmp_path, tiny_latents).exit_code == 0
    assert_same(run, straight)


def test_the_last_snapshot_is_made_by_the_same_command(tmp_path, tiny_latents, straight, monkeypatch):
    """A full disk took it, then a signal came while the model was looked at: no run is finished without its result."""
    real, looks = TemporalTrainer.finished, []

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def signalled(self: TemporalTrainer, deadline: float | None = None) -> object:
        looks.append(deadline)
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, deadline)

    with monkeypatch.context() as patch:
        patch.setattr(temporal_snapshot, 'save_snapshot', full)
        result = train(tmp_path, tiny_latents)
    assert result.exit_code == 2
    assert 'network-snapshot-000004.pkl could not be written; free some space' in result.output
    (run,) = tmp_path.iterdir()
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(TemporalTrainer, 'finished', signalled)
            assert train(tmp_path, tiny_latents).exit_code == 143
        assert not list(run.glob('network-snapshot*'))
        for state in run.glob('training-state*'):  # the second time, the look is that of the training itself
            state.unlink()
    assert train(tmp_path, tiny_latents).exit_code == 0
    assert_same(run, straight)


@pytest.mark.parametrize('what', ['the line', 'the mark'])
def test_a_result_of_a_metric_that_the_disk_does_not_take(tmp_path, tiny_latents, straight, monkeypatch, what):
    """It does not end the training, but for the last one; that one is computed, or marked as the best, by the same command."""

    def measured(opts):
        return {'disk_survival': 1.0}

    measured.__name__ = 'disk_survival'
    known = {metric_main.register_metric(measured).__name__: __file__}
    from training import temporal_metrics

    monkeypatch.setattr(temporal_metrics, 'discover_metrics', lambda: (known, {}))
    options = ['--snap=2', '--metrics=disk_survival']

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        module, name = {'the line': (metric_main, 'append_line'), 'the mark': (temporal_metrics, 'mark_best')}[what]
        patch.setattr(module, name, full)
        result = train(tmp_path, tiny_latents, *options)
    assert result.exit_code == 2, result.output
    assert result.output.count('Warning: the result of disk_survival could not be written, and the training goes on') == 1
    assert 'Error: the result of disk_survival could not be written: no space is left on the disk' in result.output
    (run,) = tmp_path.iterdir()
    assert not (run / 'best-disk_survival.json').exists()
    result = train(tmp_path, tiny_latents, *options)
    assert result.exit_code == 0, result.output
    assert json.loads((run / 'best-disk_survival.json').read_text())['value'] == 1.0
    lines = [json.loads(line)['snapshot_pkl'] for line in (run / 'metric-disk_survival.jsonl').read_text().splitlines()]
    assert lines == (['network-snapshot-000002.pkl'] if what == 'the mark' else []) + ['network-snapshot-000004.pkl']
    assert_same(run, straight)
    assert 'is finished' in train(tmp_path, tiny_latents, *options).output


def test_a_stop_waits_for_no_long_look_at_the_model(tmp_path, tiny_latents, straight, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(temporal_training_loop, 'HURRY_SECONDS', -1.0)
        at_step(patch, 10, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        result = train(tmp_path, tiny_latents)
    assert result.exit_code == 143
    assert 'No snapshot was written' in result.output
    (run,) = tmp_path.iterdir()
    assert {path.name for path in run.glob('*0000*')} == {'training-state-000001.pt'}
    assert train(tmp_path, tiny_latents).exit_code == 0
    assert_same(run, straight)


def test_on_full_stop(tmp_path, tiny_latents, monkeypatch):
    fail_second_state(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    result = train(tmp_path, tiny_latents, '--snap=1', '--on-full=stop')
    assert result.exit_code == 2
    assert 'the training state could not be written: no space is left on the disk' in result.output
    (run,) = tmp_path.iterdir()
    assert temporal_snapshot.load_training_state(temporal_snapshot.latest_training_state(str(run)))['tick'] == 1


def test_states_that_are_kept(tmp_path, tiny_latents):
    assert train(tmp_path, tiny_latents, '--snap=1', '--keep-states=2').exit_code == 0
    (run,) = tmp_path.iterdir()
    assert sorted(path.name for path in run.glob('training-state*')) == [
        'training-state-000001.pt',
        'training-state-000003.pt',
        'training-state-000004.pt',
    ]


def spoil(trainer: TemporalTrainer) -> None:
    with torch.no_grad():
        next(iter(trainer.critics.parameters())).view(-1)[0] = math.nan


def test_numbers_that_are_none_are_named_and_never_saved(tmp_path, tiny_latents, monkeypatch):
    at_step(monkeypatch, 10, spoil)
    result = train(tmp_path, tiny_latents, '--snap=1')
    assert result.exit_code == 2
    assert 'the training has diverged: after step 10 (1.4 kimg) the weight C.' in result.output
    assert 'is nan' in result.output
    (run,) = tmp_path.iterdir()
    state = temporal_snapshot.load_training_state(temporal_snapshot.latest_training_state(str(run)))
    assert state['trainer']['num_steps'] == 7
    assert all(torch.isfinite(value).all() for critic in state['trainer']['C'] for value in critic.values())


def test_rollback(tmp_path, tiny_latents, monkeypatch):
    at_step(monkeypatch, 10, spoil)
    result = train(tmp_path, tiny_latents, '--snap=1', '--on-nan=rollback')
    assert result.exit_code == 0, result.output
    assert 'going back to 1.0 kimg' in result.output
    (run,) = tmp_path.iterdir()
    assert all(torch.isfinite(value).all() for value in weights(run).values())
    assert ticks(run) == [1.008, 2.016, 3.024, 4.032]


def test_start_from_the_weights_of_a_snapshot(tmp_path, tiny_latents, straight, monkeypatch):
    snapshot = next(straight.glob('network-snapshot-*.pkl'))
    before = {}
    real = temporal_training_loop.TemporalTraining.run

    def run(self):
        before.update({f'G.{key}': value.clone() for key, value in self.trainer.G.state_dict().items()})
        return real(self)

    monkeypatch.setattr(temporal_training_loop.TemporalTraining, 'run', run)
    assert train(tmp_path, tiny_latents, f'--resume={snapshot}', '--kimg=1').exit_code == 0
    assert all(torch.equal(value, weights(straight)[key]) for key, value in before.items())
    (run_dir,) = tmp_path.iterdir()
    assert json.loads((run_dir / 'training_options.json').read_text())['resume_pkl'] == str(snapshot)
    result = train(tmp_path, tiny_latents, f'--resume={snapshot}', '--latent-dim=9')
    assert result.exit_code == 2
    assert 'has another shape' in result.output


def test_a_run_in_use_is_waited_for_and_refused_by_name(tmp_path, tiny_latents, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 8, kill)
        with pytest.raises(Killed):
            train(tmp_path, tiny_latents, '--snap=1')
    (run,) = tmp_path.iterdir()
    from training.runs.claims import lock_run

    monkeypatch.setattr(claims, 'WAIT_SECONDS', 1.0)
    with lock_run(str(run)):
        for arguments in ([f'--resume={run}'], ['--snap=1']):
            result = train(tmp_path, tiny_latents, *arguments)
            assert result.exit_code == 2
            assert 'waiting for it to end, at most 1 s' in result.output
            assert f'process {os.getpid()}' in result.output.splitlines()[-1]
        assert '--fresh' in result.output.splitlines()[-1]
        assert list(tmp_path.iterdir()) == [run]
        # A run that another process began to work on after this command was started has begun at one moment with it.
        monkeypatch.setattr(command_line, 'started', lambda: 0.0)
        result = train(tmp_path, tiny_latents, '--snap=1')
    assert result.exit_code == 0
    assert 'each has a run of its own' in result.output
    assert len(list(tmp_path.iterdir())) == 2
    assert stop_signals.asked() is None
