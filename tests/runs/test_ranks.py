"""Ranks share work and mistakes, and notice when one of them is gone."""

import signal
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousConnectionError

from networks.errors import RankLost
from training.commands.command_line import UserMistake
from training.runs import heartbeat, ranks
from training.runs.heartbeat import Heartbeat, meet
from training.runs.ranks import Ranks, launcher_arguments, settle_number

PROGRAM = textwrap.dedent("""
    import os, sys
    from networks.errors import InputError
    from training.commands import command_line
    from training.runs import ranks
    import click
    @command_line.command(shares_work=True)
    @click.option('--gpus', type=int)
    @click.option('--how')
    @command_line.clear_errors(interrupted='stopped')
    def main(gpus, how):
        if ranks.settle_number(gpus) > 1 and not ranks.launched():
            ranks.start(gpus, 'train_video')
        with ranks.joined('cpu') as r:
            assert r.gather(r.rank * 10) == [0, 10]
            assert r.from_first(['of', r.rank]) == ['of', 0]
            sys.stdout.write('share ' + ''.join(r.share('abcde')) + '\\n')  # in one piece: the ranks share the terminal
            sys.stdout.flush()
            if how == 'mistake':
                with r.together():
                    if r.rank == 1:
                        raise InputError('clip 3 is damaged')
            os.kill(os.getpid(), 9) if r.rank == 1 else r.barrier()
    main()
""")


@pytest.mark.parametrize(
    ('how', 'code', 'words'),
    [
        ('mistake', 2, ['clip 3 is damaged']),
        ('die', 2, ['rank 0 of 2 has lost its connection', 'the process of rank 1 was ended by SIGKILL']),
    ],
)
def test_two_ranks(root, tmp_path, how, code, words):
    program = tmp_path / 'program.py'
    program.write_text(f'import sys; sys.path.insert(0, {str(root)!r})\n{PROGRAM}')
    result = subprocess.run([sys.executable, str(program), '--gpus=2', f'--how={how}'], capture_output=True, text=True, cwd=root)
    assert sorted(result.stdout.splitlines()) == ['share ace', 'share bd']
    errors = [line for line in result.stderr.splitlines() if line.startswith('Error')]
    # The sentence about the end stands last; before it, that of the other rank, if it was not stopped before it could tell.
    assert words[-1] in (errors or [''])[-1], result.stderr
    assert len(errors) == 1 or [words[0] in error for error in errors] == [True, False], result.stderr
    assert 'Traceback (most' not in result.stderr
    assert result.returncode == code


RESTARTED = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from training.runs import ranks
attempt, rank = int(os.environ['TORCHELASTIC_RESTART_COUNT']), int(os.environ['RANK'])
time.sleep(1.5 * attempt * rank)  # so rank 0 could find what the first rank 1 has left behind
with ranks.joined('cpu') as ours:
    assert ours.gather((attempt, rank)) == [(attempt, 0), (attempt, 1)]
    if attempt == 0 and rank == 1:
        os.kill(os.getpid(), 9)
    ours.barrier()
    with open(os.path.join(sys.argv[2], f'rank{rank}'), 'a') as file:  # not on the terminal, where lines of ranks mix
        file.write(f'attempt {attempt}')
"""


def test_torchrun_starts_ranks_again(root, tmp_path):
    program = tmp_path / 'program.py'
    program.write_text(RESTARTED)
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '--max-restarts=1']
    done = tmp_path / 'done'
    done.mkdir()
    result = subprocess.run([*torchrun, str(program), str(root), str(done)], capture_output=True, text=True, cwd=root)
    assert {path.name: path.read_text() for path in done.iterdir()} == {'rank0': 'attempt 1', 'rank1': 'attempt 1'}, result.stderr
    assert result.returncode == 0


def test_a_rank_that_is_alone_says_so(monkeypatch):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    for name, value in {'RANK': '0', 'WORLD_SIZE': '2', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(heartbeat, 'MEETING_SECONDS', 1.0)
    words = rf'rank 0 of 2 has not met the other processes at localhost, port {port}'
    with pytest.raises(UserMistake, match=words), ranks.joined('cpu'):
        pass


def test_one_rank_needs_nobody():
    alone = Ranks(0, 1, torch.device('cpu'))
    assert (alone.share([1, 2, 3]), alone.gather('x'), alone.from_first('y')) == ([1, 2, 3], ['x'], 'y')


@pytest.mark.parametrize(
    ('started', 'gpus', 'number'), [(None, None, 1), (None, 3, 3), ('4', None, 4), ('4', 4, 4), ('4', 2, None)]
)
def test_gpus_and_torchrun_agree(monkeypatch, started, gpus, number):
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.setenv(name, '0')
        monkeypatch.delenv(name)
    if started:
        monkeypatch.setenv('RANK', '0')
        monkeypatch.setenv('WORLD_SIZE', started)
    if number is None:
        with pytest.raises(UserMistake, match='torchrun started 4 processes, but --gpus=2'):
            settle_number(gpus)
    else:
        assert settle_number(gpus) == number


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (RuntimeError('Failed to init uv loop'), 'Failed to init uv loop'),
        (RendezvousConnectionError('no store\nat 29500'), 'no store at 29500'),
        (FileNotFoundError('No usable temporary directory'), 'No usable temporary directory'),
        (ValueError(), 'ValueError'),
    ],
)
def test_a_torchrun_that_fails_by_itself_is_a_sentence(monkeypatch, error, reason):
    """A rank's error is told by the rank, and a traceback of torchrun's by nobody."""

    def failing(arguments: list[str]) -> None:
        raise error

    for name in ('STYLEVIDEOGAN_LAUNCHED', 'OMP_NUM_THREADS', 'PET_SIGNALS_TO_HANDLE', 'PET_NNODES'):
        monkeypatch.setenv(name, '1')
    monkeypatch.setattr('torch.distributed.run.main', failing)
    with pytest.raises(UserMistake) as told:
        ranks.start(2, 'train_video')
    assert told.value.format_message() == (
        f'torchrun, which is to start 2 processes, has failed ({reason}); PET_NNODES, PET_SIGNALS_TO_HANDLE of the environment '
        'are options of torchrun'
    )


@pytest.mark.parametrize('other', [2, -signal.SIGABRT], ids=['told its loss', 'aborted'])
def test_the_rank_that_was_killed_is_the_cause(monkeypatch, other):
    """Torchrun sees both ends in one look, and would name the lower rank."""

    def failing(arguments: list[str]) -> None:
        raise ChildFailedError(
            '', {rank: ProcessFailure(rank, 1, code, '') for rank, code in enumerate((other, -signal.SIGKILL))}
        )

    for name in ('STYLEVIDEOGAN_LAUNCHED', 'OMP_NUM_THREADS', 'PET_SIGNALS_TO_HANDLE'):
        monkeypatch.setenv(name, '1')
    monkeypatch.setattr('torch.distributed.run.main', failing)
    with pytest.raises(UserMistake, match='the process of rank 1 was ended by SIGKILL'):
        ranks.start(2, 'train_video')


@pytest.mark.parametrize('module', [False, True])
def test_torchrun_takes_no_option_of_a_command_for_its_own(module):
    from torch.distributed.run import get_args_parser

    script = [*(['-m'] if module else []), 'embed_video', '--start=2', '--run=runs', '--standalone', '--source', '-m', '--', 'x']
    read = get_args_parser().parse_args(launcher_arguments(2, script))
    assert read.standalone
    assert (read.nproc_per_node, read.module) == ('2', module)
    assert [read.training_script, *read.training_script_args] == script[module:]


def hearts(count: int, limit: float = 0.6) -> tuple[torch.distributed.Store, list[Heartbeat], list[str]]:
    store, lost = torch.distributed.HashStore(), []
    return store, [Heartbeat(rank, 3, store, limit=limit, interval=0.02, lost=lost.append) for rank in range(count)], lost


def test_a_rank_that_stands_still_is_named():
    _, beats, lost = hearts(2)  # rank 2 never begins
    end = time.monotonic() + 600
    while len(lost) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    for beat in beats:
        beat.stop()
    assert len(lost) == 2
    assert all('rank 2 of 3 has not answered' in sentence for sentence in lost)


def test_ranks_that_are_done_are_not_missed():
    _, beats, lost = hearts(3, limit=3.0)
    beats[1].stop()
    beats[2].stop()
    time.sleep(3.5)
    beats[0].stop()
    assert lost == []


def test_a_store_that_is_gone_is_told():
    class Gone:
        def set(self, key, value):
            raise torch.distributed.DistNetworkError('no route')

    lost = []
    beat = Heartbeat(0, 2, Gone(), limit=0.3, interval=0.02, lost=lost.append)  # type: ignore[arg-type]
    end = time.monotonic() + 600
    while not lost and time.monotonic() < end:
        time.sleep(0.02)
    beat.stop()
    assert 'does not answer any more (no route)' in lost[0]


def test_ranks_of_one_start_agree_on_a_word_that_no_earlier_start_had():
    store, words = torch.distributed.HashStore(), []
    with ThreadPoolExecutor(3) as pool:
        # A start whose ranks all came, one whose rank 0 died before it answered, and a whole one again.
        for ranks in ([0, 1, 2], [1], [0, 1, 2]):
            tasks = [pool.submit(meet, rank, 3, store, 0.3 if ranks == [1] else 60.0) for rank in ranks]
            if ranks == [1]:
                with pytest.raises(RankLost, match='rank 0 of 3 has not started'):
                    tasks[0].result()
            else:
                words.append({task.result() for task in tasks})
    assert len(words[0]) == len(words[1]) == 1
    assert words[0] != words[1]
    with pytest.raises(RankLost, match='of 3 ranks, these have not started within 0 seconds: 1, 2'):
        meet(0, 3, store, 0.2)
