"""Signals to what has started the ranks: `--gpus` and torchrun pass them on, all is saved, and nobody is left over."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
from tiny_training import TINY_TRAINING

slow = pytest.mark.skipif('SLOW_TESTS' not in os.environ, reason='slow: SLOW_TESTS=1 runs it')

PROGRAM = textwrap.dedent("""
    import os, pathlib, sys, time
    import click
    from training.commands import command_line, stop_signals
    from training.runs import ranks
    @command_line.command(shares_work=True)
    @click.option('--gpus', type=int)
    @click.option('--folder', type=pathlib.Path)
    @click.option('--seconds', type=float)
    @command_line.clear_errors(interrupted='the same command goes on')
    def main(gpus, folder, seconds):
        if ranks.settle_number(gpus) > 1 and not ranks.launched():
            ranks.start(gpus, 'train_video')
        with ranks.joined('cpu') as r, stop_signals.held():
            (folder / f'ready{r.rank}').touch()
            while not r.agree(stop_signals.asked() is not None)[0]:
                time.sleep(0.1)
            time.sleep(seconds)
            (folder / f'saved{r.rank}').touch()
            raise stop_signals.Stopped(stop_signals.asked() or 15)
    main()
""")
TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '--']


def wait_for(folder: pathlib.Path, pattern: str, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 600
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)


def start(
    root: pathlib.Path, folder: pathlib.Path, words: list[str], *options: str, nohup: bool = False
) -> subprocess.Popen[str]:
    program = folder / 'program.py'
    program.write_text(f'import sys; sys.path.insert(0, {str(root)!r})\n{PROGRAM}')
    line = [sys.executable, *(word.replace('PROGRAM', str(program)) for word in words), f'--folder={folder}', *options]
    process = subprocess.Popen([*(['nohup'] if nohup else []), *line], stderr=subprocess.PIPE, text=True, cwd=root)
    wait_for(folder, 'ready*', 2, process)
    return process


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=5)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ('number', 'to'),
    [
        (signal.SIGHUP, 'launcher'),
        (signal.SIGTERM, 'all'),  # of systemd and containers, which ask every process
        pytest.param(signal.SIGINT, 'launcher', marks=slow),
        pytest.param(signal.SIGTERM, 'launcher', marks=slow),
        pytest.param(signal.SIGTERM, 'rank', marks=slow),
    ],
)
def test_a_signal_to_the_launcher_saves_all(root: pathlib.Path, tmp_path: pathlib.Path, number: int, to: str) -> None:
    process = start(root, tmp_path, ['PROGRAM', '--gpus=2'], '--seconds=1')
    ranks = descendants(process)
    assert len(ranks) == 2
    pids = [process.pid, *(rank.pid for rank in ranks)]
    for pid in {'launcher': pids[:1], 'all': pids, 'rank': pids[2:]}[to]:
        os.kill(pid, number)
    _, words = process.communicate(timeout=600)
    assert sorted(path.name for path in tmp_path.glob('saved*')) == ['saved0', 'saved1']
    assert [line for line in words.splitlines() if line] == [
        'Starting 2 processes',
        'the same command goes on',
        f'  python {tmp_path}/program.py --gpus=2 --folder={tmp_path} --seconds=1',
    ]
    assert process.returncode == 128 + number
    assert living(ranks) == []


def test_a_second_signal_to_the_launcher_waits_for_nothing(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    process = start(root, tmp_path, ['PROGRAM', '--gpus=2'], '--seconds=600')
    ranks = descendants(process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=600)
    assert time.monotonic() - begin < 20
    assert process.returncode == 130
    assert living(ranks) == []
    assert not list(tmp_path.glob('saved*'))


@slow
def test_nohup_holds_for_launcher_and_ranks(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    process = start(root, tmp_path, ['PROGRAM', '--gpus=2'], '--seconds=0', nohup=True)
    for pid in (process.pid, *(rank.pid for rank in descendants(process))):
        os.kill(pid, signal.SIGHUP)
    time.sleep(3)
    assert process.poll() is None
    assert not list(tmp_path.glob('saved*'))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    assert process.returncode == 143
    assert len(list(tmp_path.glob('saved*'))) == 2


@slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_signal_to_torchrun_saves_all(root: pathlib.Path, tmp_path: pathlib.Path, number: int) -> None:
    process = start(root, tmp_path, [*TORCHRUN, 'PROGRAM'], '--seconds=1')
    ranks = descendants(process)
    process.send_signal(number)
    _, words = process.communicate(timeout=600)
    assert len(list(tmp_path.glob('saved*'))) == 2
    assert words.count('the same command goes on') == 1  # what else stands there is torchrun's, and so is its exit code
    assert process.returncode != 0
    assert living(ranks) == []


@slow
def test_ranks_end_by_themselves_when_the_launcher_is_killed(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    process = start(root, tmp_path, ['PROGRAM', '--gpus=2'], '--seconds=0')
    ranks = descendants(process)
    process.kill()
    assert psutil.wait_procs(ranks, timeout=60)[1] == []
    _, words = process.communicate(timeout=600)
    told = [line for line in words.splitlines() if line and not line.startswith('Starting')]
    assert 1 <= len(told) <= 2, words  # one a rank, if not one of them was ended by the other's end
    assert all(line.startswith('Error: ') and 'goes on from what was saved last' in line for line in told)


@slow
@pytest.mark.parametrize('words', [['train_video.py', '--gpus=2'], [*TORCHRUN, 'train_video.py']], ids=['gpus', 'torchrun'])
def test_a_training_of_two_ranks_goes_on(
    root: pathlib.Path, tmp_path: pathlib.Path, tiny_latents: pathlib.Path, words: list[str]
) -> None:
    """Stopped by each of the three signals, and ended by the same command: what a training without stops comes to."""

    def line(outdir: str) -> list[str]:
        options = [
            *TINY_TRAINING,
            f'--data={tiny_latents}',
            '--preview-frames=0',
            '--tick=1',
            '--kimg=30',
            '--checkpoint-minutes=1000',
        ]
        return [sys.executable, *words, f'--outdir={tmp_path / outdir}', *options]

    def ticks(outdir: str) -> list[float]:
        (path,) = (tmp_path / outdir).glob('0*/stats.jsonl')
        return [round(json.loads(text)['Progress/kimg']['mean'], 3) for text in path.read_text().splitlines()]

    assert subprocess.run(line('straight'), cwd=root, check=False, capture_output=True).returncode == 0
    for count, number in enumerate((signal.SIGINT, signal.SIGHUP, signal.SIGTERM), start=1):
        process = subprocess.Popen(line('stopped'), cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        for text in process.stdout:
            if text.startswith('tick ') and int(text.split()[1]) >= 5 * count:
                break
        begin = time.monotonic()
        process.send_signal(number)
        rest = process.communicate(timeout=600)[0]
        assert time.monotonic() - begin < 20
        assert 'everything is saved' in rest
        assert process.returncode == (128 + number if words[0] == 'train_video.py' else 1)
    assert subprocess.run(line('stopped'), cwd=root, check=False, capture_output=True).returncode == 0
    assert ticks('stopped') == ticks('straight')

    import torch

    from networks import checkpoints

    found = []
    for outdir in ('straight', 'stopped'):
        (run,) = (tmp_path / outdir).iterdir()
        found.append(checkpoints.load_snapshot(str(sorted(run.glob('network-snapshot-*.pkl'))[-1]))['G_ema'].state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
