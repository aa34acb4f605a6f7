"""Run folders: numbers, the log, statistics of an interrupted run, the average of weights."""

import errno
import json
import os
import pathlib
import sys

import pytest
import torch

from networks.errors import InputError
from training.runs.run_folder import Log, Presence, RunLog, forget_statistics_after, make_run_dir, next_run_dir
from training.runs.weight_average import decay_of, update_average


def test_numbers_go_on_after_the_highest(tmp_path: pathlib.Path) -> None:
    for name in ('00007-a', '3-b', 'notes', '00002'):
        (tmp_path / name).mkdir()
    assert next_run_dir(str(tmp_path), 'x') == str(tmp_path / '00008-x')
    assert make_run_dir(str(tmp_path), 'x') == str(tmp_path / '00008-x')
    assert make_run_dir(str(tmp_path), 'x') == str(tmp_path / '00009-x')
    assert make_run_dir(str(tmp_path / 'new' / 'folder'), 'x').endswith('00000-x')


def test_a_run_that_starts_at_the_same_moment_gets_another_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.runs import run_folder

    (tmp_path / '00000-x').mkdir()
    seen = iter([{}, {'00000-x': 0}])  # at the first look the other run has not made its folder yet
    monkeypatch.setattr(run_folder, 'run_numbers', lambda outdir: next(seen))
    assert make_run_dir(str(tmp_path), 'x') == str(tmp_path / '00001-x')


def test_presence_tells_a_deleted_folder_from_a_disk_that_is_away(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / 'runs' / '00000-x'
    run.mkdir(parents=True)
    presence = Presence(str(run))
    presence.require()
    run.rename(tmp_path / 'other')
    assert presence.is_gone()
    (tmp_path / 'other').rename(run)
    assert not presence.is_gone()
    run.rmdir()
    assert presence.is_gone()
    run.mkdir()  # of the next run
    assert presence.is_gone()
    run.rmdir()
    run.parent.rmdir()
    with pytest.raises(InputError, match='00000-x was deleted or moved away'):
        presence.require()
    real = os.stat

    def away(path: str) -> os.stat_result:
        """The place where the disk was is a folder of another one now."""
        status = list(real(path))
        return os.stat_result([*status[:2], status[2] + 1, *status[3:]])

    monkeypatch.setattr(os, 'stat', away)
    assert not presence.is_gone()

    def failing(path: str) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, 'stat', failing)
    assert not presence.is_gone()


def test_log_goes_to_screen_and_file(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    screen = sys.stdout
    for word in ('first', 'second'):
        log = Log(str(tmp_path))
        log.__enter__()
        print(word)
        log.__exit__(None, None, None)
        assert sys.stdout is screen
    assert capsys.readouterr().out == 'first\nsecond\n'
    assert (tmp_path / 'log.txt').read_text() == 'first\nsecond\n'


def test_statistics_of_what_is_repeated_disappear(tmp_path: pathlib.Path) -> None:
    with RunLog(str(tmp_path), None) as log:
        for kimg in (1.0, 2.0, 3.0):
            log.write({'Progress/kimg': {'num': 1, 'mean': kimg, 'std': 0}}, int(kimg))
    path = tmp_path / 'stats.jsonl'
    path.write_text(path.read_text() + '{"Progress/kimg": {"me')  # a kill
    forget_statistics_after(str(tmp_path), 2.0)
    assert [json.loads(line)['Progress/kimg']['mean'] for line in path.read_text().splitlines()] == [1.0, 2.0]
    forget_statistics_after(str(tmp_path / 'nothing'), 2.0)


def test_average_has_its_half_life() -> None:
    average, module = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(average.weight)
    torch.nn.init.ones_(module.weight)
    for _ in range(10):
        update_average(average, module, decay_of(half_life=5, step=1))
    assert average.weight.item() == pytest.approx(0.75)  # two half-lives
    assert decay_of(half_life=0, step=1) == 0  # at the very beginning the average is the network


def test_a_very_long_run_is_thinned_out(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded statistics with the newest ticks whole; curves that grow with the logarithm; the same after a resume."""
    from training.runs import run_folder

    monkeypatch.setattr(run_folder, 'MOST_LINES', 40)
    monkeypatch.setattr(run_folder, 'NEWEST_LINES', 10)
    monkeypatch.setattr(run_folder, 'FULL_TICKS', 8)
    shown: list[int] = []

    def write(ticks: range, resumed_at: float | None) -> None:
        with RunLog(str(tmp_path), resumed_at) as log:
            monkeypatch.setattr(log, '_points', lambda values, step, timestamp: shown.append(step))
            for tick in ticks:
                log.write(
                    {'Progress/kimg': {'num': 1, 'mean': tick, 'std': 0}, 'Progress/tick': {'num': 1, 'mean': tick, 'std': 0}},
                    tick,
                )

    write(range(300), None)
    write(range(300, 600), 299.0)
    kept = [json.loads(line)['Progress/kimg']['mean'] for line in (tmp_path / 'stats.jsonl').read_text().splitlines()]
    assert len(kept) <= 40
    assert kept[-10:] == list(range(590, 600))
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert shown[:10] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]
    assert [step for step in shown if 256 <= step < 512] == list(range(256, 512, 64))
    assert len(shown) < 8 + 4 * 7 + 4


def test_a_disk_without_room_for_curves_stops_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch.utils.tensorboard

    def full(*_: object, **__: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch.utils.tensorboard, 'SummaryWriter', full)
    with RunLog(str(tmp_path), None) as log:
        log.write({'Progress/kimg': {'num': 1, 'mean': 1.0, 'std': 0}}, 1)
    assert 'Warning: no TensorBoard curves' in capsys.readouterr().out
    assert len((tmp_path / 'stats.jsonl').read_text().splitlines()) == 1
