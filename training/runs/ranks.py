"""Several processes (ranks) that share one work, as torchrun starts them; a plain command is rank 0 of 1.

Every long command is the same under torchrun as alone. Ranks take their share of independent pieces (`share`), tell each other
results (`gather`) and mistakes (`together`), and watch each other (training/runs/heartbeat.py).
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import datetime
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from networks.errors import AgreedError, InputError, RankLost
from stylevideogan import layout
from training.commands import command_line, stop_signals

if TYPE_CHECKING:
    import torch

Piece = TypeVar('Piece')
Value = TypeVar('Value')

LOST_WORDS = (
    'connection closed by peer', 'connection reset by peer', 'connection was likely closed', 'broken pipe', 'socket',
    'connection refused', 'timed out connecting',
)  # fmt: skip
KILLED = [getattr(signal, name) for name in ('SIGKILL', 'SIGSEGV', 'SIGBUS') if hasattr(signal, name)]


_joined: list[bool] = []  # filled when this process has joined others
_lost: list[bool] = []  # filled when one of them was lost


def have_joined() -> bool:
    """Tell whether this process has joined other ranks, or has tried to."""
    return bool(_joined)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process among those that share a work.

    Attributes:
        rank: Its number, from 0.
        num_ranks: How many there are.
        device: Where it computes.
    """

    rank: int
    num_ranks: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what there is one of, and speaks for all."""
        return self.rank == 0

    def share(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return every num_ranks-th piece, beginning with the rank-th."""
        return list(pieces[self.rank :: self.num_ranks])

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, in order; all ranks call it together."""
        if self.num_ranks == 1:
            return [value]
        import torch

        values: list[Any] = [None] * self.num_ranks
        torch.distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """Return the value of rank 0; all ranks call it together."""
        if self.num_ranks == 1:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def agree(self, *asked: bool) -> list[bool]:
        """Return which of these any rank wants, the same on all; all ranks call it together."""
        if self.num_ranks == 1:
            return list(asked)
        import torch

        flags = torch.tensor(asked, dtype=torch.float32, device=self.device)
        torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        return [bool(flag) for flag in flags.tolist()]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.gather(None)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Do a share of the work in the block; when a rank cannot, all raise its error at the end of their own shares.

        Raises:
            AgreedError: What was wrong, with the rank that found it where there are several.
        """
        mistake: str | None = None
        try:
            yield
        except command_line.UserMistake as error:
            mistake = error.format_message()
        except InputError as error:
            if self.num_ranks == 1 or isinstance(error, (RankLost, AgreedError)):
                raise
            mistake = str(error)
        except OSError as error:
            mistake = command_line.describe_os_error(error)
        mistakes = [text for text in self.gather(mistake) if text is not None]
        if mistakes:
            raise AgreedError(mistakes[0])


def launched() -> bool:
    """Tell whether torchrun (or another launcher that sets RANK and WORLD_SIZE) has started this process."""
    return bool(os.environ.get('RANK')) and bool(os.environ.get('WORLD_SIZE'))  # empty ones are left by env files


def number_of_ranks() -> int:
    """How many ranks there are, before they are joined."""
    return int(os.environ['WORLD_SIZE']) if launched() else 1


def settle_number(gpus: int | None) -> int:
    """The number of ranks of a command with --gpus: what torchrun started, which has to agree with it where both are given.

    Raises:
        UserMistake: They differ.
    """
    if not launched():
        return gpus or 1
    if gpus is not None and gpus != number_of_ranks():
        raise command_line.UserMistake(
            f'torchrun started {number_of_ranks()} processes, but --gpus={gpus}; leave --gpus out, or set it to the same number'
        )
    return number_of_ranks()


def start_unless_launched(gpus: int | None, command: str) -> int:
    """Return the number of ranks that this process is one of; with --gpus above 1 it becomes the launcher of them instead.

    Args:
        gpus: As --gpus gives it, or None.
        command: Name of the command ('train_video').

    Raises:
        UserMistake: --gpus disagrees with what torchrun started, or a rank was killed.
        Exit, Stopped: See `start`.
    """
    number = settle_number(gpus)
    if number > 1 and not launched():
        start(number, command)
    return number


@contextlib.contextmanager
def joined(device_name: str) -> Iterator[Ranks]:
    """Connect to the other ranks, by NCCL on GPUs and by gloo on a CPU, and let go of them at the end.

    Args:
        device_name: As --device gives it; of 'auto' and 'cuda', each rank of a machine takes its own GPU.

    Raises:
        RankLost: Another rank died while the block ran.
    """
    if number_of_ranks() == 1:
        yield Ranks(0, 1, command_line.choose_device(device_name))
        return
    import torch
    from torch.distributed.rendezvous import rendezvous

    from training.runs import heartbeat
    from training.runs.heartbeat import Heartbeat, connect_store, meet

    if device_name in ('auto', 'cuda'):
        device_name = f'cuda:{os.environ.get("LOCAL_RANK", "0")}' if torch.cuda.is_available() else 'cpu'
    device = command_line.choose_device(device_name)
    if not _joined:
        atexit.register(_leave_at_once)
    _joined.append(True)
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    # A rank can rightly wait for days while another one computes; that the other is alive, its heartbeat says.
    patience, heart = datetime.timedelta(days=7), None
    number = int(os.environ['RANK'])
    try:
        store, _, num_ranks = next(rendezvous('env://', timeout=datetime.timedelta(seconds=heartbeat.MEETING_SECONDS)))
    except (RuntimeError, ValueError, OSError) as error:
        raise command_line.UserMistake(
            f'rank {number} of {number_of_ranks()} has not met the other processes at {os.environ.get("MASTER_ADDR")}, port '
            f'{os.environ.get("MASTER_PORT")}; start all of them with torchrun, or unset RANK and WORLD_SIZE, if another program '
            'has left them'
        ) from error
    try:
        store.set_timeout(patience)
        word = meet(number, num_ranks, store)
        torch.distributed.init_process_group(
            'nccl' if device.type == 'cuda' else 'gloo',
            store=torch.distributed.PrefixStore(word, store),  # type: ignore[attr-defined,unused-ignore]
            rank=number,
            world_size=num_ranks,
            timeout=patience,
        )
        heart = Heartbeat(number, num_ranks, connect_store(word))
        yield Ranks(number, num_ranks, device)
        heart.stop()
        torch.distributed.destroy_process_group()
    except RuntimeError as error:
        if not _means_lost(error):
            raise
        asked = stop_signals.asked()
        if asked is not None:  # all ranks were asked to stop, and this one waited for another that has left
            raise stop_signals.Stopped(asked) from error
        # The launcher ends this rank because another one has died; that is the cause, not somebody's wish to stop.
        _lost.append(True)
        raise RankLost(
            f'rank {number} of {number_of_ranks()} has lost its connection to another rank, whose process has ended; '
            'the same command goes on from what was saved last'
        ) from error
    finally:
        if heart is not None:
            heart.stop()


def _leave_at_once() -> None:
    """End a process that has lost another rank, without the destructors of what connected them: they can abort (SIGABRT)."""
    if _lost:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(command_line.EXIT_MISTAKE)


def _means_lost(error: BaseException) -> bool:
    import torch

    if isinstance(error, torch.distributed.DistNetworkError):
        return True
    text = str(error).lower()
    return (
        isinstance(error, RuntimeError)
        and any(word in text for word in LOST_WORDS)
        and ('gloo' in text or 'nccl' in text or 'peer' in text)
    )


def launcher_arguments(num_ranks: int, script: Sequence[str]) -> list[str]:
    """What torchrun is given to start `script`, which is as of `layout.start_again`.

    Behind '--', because torchrun takes an option that two of its own begin with (`--start`, `--run`) for theirs, and stops.
    """
    module = ['-m'] if script[0] == '-m' else []
    return ['--standalone', f'--nproc-per-node={num_ranks}', *module, '--', *script[len(module) :]]


def start(num_ranks: int, command: str) -> None:
    """Be torchrun for `num_ranks` ranks of this very command on this machine, and leave as they do; returns never.

    Raises:
        Stopped: A signal came; the ranks got it as well, and have ended.
        Exit: A rank has ended with an error, which it has told itself.
        UserMistake: A rank was killed, or torchrun cannot start them.
    """
    import click
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    command_line.report(f'Starting {num_ranks} processes')
    variables = ', '.join(sorted(name for name in os.environ if name.startswith('PET_')))
    script = layout.start_again(command_line.__name__, command, sys.argv)
    arguments = launcher_arguments(num_ranks, script)
    os.environ['STYLEVIDEOGAN_LAUNCHED'] = '1'  # this process says how to go on, not rank 0 as well
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, (os.cpu_count() or 1) // num_ranks)))
    hangup = getattr(signal, 'SIGHUP', None)
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_IGN:  # nohup's; the ranks inherit it
        os.environ.setdefault('PET_SIGNALS_TO_HANDLE', 'SIGTERM,SIGINT,SIGQUIT')
    came: list[int] = []

    def told(number: int) -> None:
        came.append(number)
        if len(came) == 2:  # torchrun would wait for the ranks, a minute at worst
            _end_descendants()
            os._exit(128 + number)

    try:
        with stop_signals.left_alone(told), _quiet_log():
            torchrun.main(arguments)
    except SignalException as stop:
        raise stop_signals.Stopped(stop.sigval) from stop
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode - 128 in stop_signals.SIGNALS:  # somebody has asked one rank, and all have stopped
            raise stop_signals.Stopped(failure.exitcode - 128) from error
        # A rank that was killed is the cause, also where one that lost it has ended within the same second.
        killed = [number for number, other in error.failures.items() if -other.exitcode in KILLED]
        if killed:
            rank, failure = killed[0], error.failures[killed[0]]
        if failure.exitcode >= 0:  # it has told its error
            raise click.exceptions.Exit(failure.exitcode) from error
        name = signal.Signals(-failure.exitcode).name
        raise command_line.UserMistake(
            f'the process of rank {rank} was ended by {name}{" (out of memory?)" if name == "SIGKILL" else ""}; '
            'the same command goes on from what was saved last'
        ) from error
    except (OSError, ValueError, RuntimeError, RendezvousError) as error:  # of torchrun itself: no port, no folder for logs
        reason = ' '.join(str(error).split())[:200]
        hint = f'; {variables} of the environment are options of torchrun' if variables else ''
        raise command_line.UserMistake(
            f'torchrun, which is to start {num_ranks} processes, has failed ({reason or type(error).__name__}){hint}'
        ) from error
    raise click.exceptions.Exit(0)


def _end_descendants() -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Without torchrun's lines about signals and ranks that ended, of which this process tells itself; LOGLEVEL shows them."""
    before = logging.root.manager.disable
    if 'LOGLEVEL' not in os.environ:
        logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
