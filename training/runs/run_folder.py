"""Folders of training runs: numbers, log, statistics. Both trainings keep theirs in the same way."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import threading
import time
from typing import Any

from networks.checkpoints import replacing
from networks.checkpoints.durable_files import append_line
from networks.errors import InputError

STATS_FILE = 'stats.jsonl'
MOST_LINES, NEWEST_LINES = 10_000, 1_000  # of statistics: beyond the first number, every second of all but the newest goes
FULL_TICKS, FULL_PICTURES = 5_000, 200  # ticks and pictures in TensorBoard before they are thinned out
LOG_FILE = 'log.txt'

# ----------------------------------------------------------------------------
# Numbers.


def run_numbers(outdir: str) -> dict[str, int]:
    """Name of each run folder in `outdir` -> its number."""
    names = os.listdir(outdir) if os.path.isdir(outdir) else []
    return {name: int(match[0]) for name in names if (match := re.match(r'\d+', name))}


def next_run_dir(outdir: str, description: str) -> str:
    """`OUTDIR/00003-DESCRIPTION`, numbered after the highest that is there; it is not made."""
    return os.path.join(outdir, f'{max(run_numbers(outdir).values(), default=-1) + 1:05d}-{description}')


def make_run_dir(outdir: str, description: str) -> str:
    """Make the next run folder; a run that starts at the same moment gets another one."""
    while True:
        run_dir = next_run_dir(outdir, description)
        try:
            os.makedirs(run_dir)
            return run_dir
        except FileExistsError:
            continue


def remove_if_empty(run_dir: str) -> None:
    """Remove a run folder in which nothing could be written."""
    with contextlib.suppress(OSError):
        os.rmdir(run_dir)


def remove_unless_begun(run_dir: str, options_file: str) -> None:
    """Remove a run folder that holds nothing but the options of the run and its log."""
    files = {options_file, LOG_FILE}
    with contextlib.suppress(OSError):
        if set(os.listdir(run_dir)) <= files:
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(run_dir, name))
            os.rmdir(run_dir)


class Presence:
    """Tells when a run folder is no longer there, because somebody has deleted or moved it.

    A disk that is away for a while takes its folders with it, and brings them back: that is none of these.

    Args:
        run_dir: The folder, which exists.
    """

    def __init__(self, run_dir: str) -> None:
        self._run_dir = os.path.abspath(run_dir)
        self._disk = os.stat(self._run_dir).st_dev
        self._handle: int | None = None
        with contextlib.suppress(OSError):  # Windows opens no folder, and deletes none that is in use
            self._handle = os.open(self._run_dir, os.O_RDONLY)

    def __del__(self) -> None:
        if getattr(self, '_handle', None) is not None:
            os.close(self._handle)  # type: ignore[arg-type]

    def is_gone(self) -> bool:
        """Whether nothing that is written there now is part of the run any more."""
        try:
            os.stat(self._run_dir)
            # Another run may have got its name. Numbers of folders would tell as well, but some network disks change them.
            return self._handle is not None and os.fstat(self._handle).st_nlink == 0
        except (FileNotFoundError, NotADirectoryError):
            return self._disk_is_there()
        except OSError:
            return False

    def _disk_is_there(self) -> bool:
        folder = os.path.dirname(self._run_dir)
        while True:
            try:
                return os.stat(folder).st_dev == self._disk
            except (FileNotFoundError, NotADirectoryError):
                folder = os.path.dirname(folder)
            except OSError:
                return False

    def require(self) -> None:
        """Raise InputError where it is gone."""
        if self.is_gone():
            raise InputError(
                f'the run folder {self._run_dir} was deleted or moved away, so nothing of this run can be saved any more; give '
                'the same command again to begin another one, or to go on where the folder is back'
            )


# ----------------------------------------------------------------------------
# Log and statistics.


class Log:
    """While it is open, standard output goes to the screen and to the end of `log.txt` of a run folder."""

    def __init__(self, run_dir: str) -> None:
        self._file = open(os.path.join(run_dir, LOG_FILE), 'a', encoding='utf-8')  # noqa: SIM115 - open as long as the run
        self._screen = sys.stdout

    def __enter__(self) -> Log:
        sys.stdout = self  # type: ignore[assignment]
        return self

    def __exit__(self, *exception: object) -> None:
        sys.stdout = self._screen
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):  # a full disk: the log has a gap, and the training goes on
            self._file.write(text)
        return self._screen.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()
        self._screen.flush()

    def isatty(self) -> bool:
        return self._screen.isatty()


class RunLog:
    """`stats.jsonl` and TensorBoard of one run folder.

    Args:
        run_dir: The folder.
        resumed_at: Where the run goes on, kimg; what an interrupted run has written of later ticks disappears, as it is about
            to be repeated; None for a new run.
    """

    def __init__(self, run_dir: str, resumed_at: float | None) -> None:
        self.run_dir = run_dir
        self._pending: list[str] = []  # lines that a full disk did not take
        self._num_lines = forget_statistics_after(run_dir, 0 if resumed_at is None else resumed_at)
        self._tick = 0
        self._pictures: dict[str, int] = {}  # how many there were of each name
        self._hook_before, threading.excepthook = threading.excepthook, self._hook  # its thread may fail before it is made
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board: Any = SummaryWriter(run_dir, purge_step=None if resumed_at is None else int(resumed_at) + 1)
        except ImportError as error:
            print(f'Skipping tfevents export: {error}')
            self.board = None
        except OSError as error:
            print(f'Warning: no TensorBoard curves of this run ({error}); stats.jsonl has all values')
            self.board = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, statistics: dict[str, Any], step: int) -> None:
        """One line of statistics and one point in every curve.

        A disk that takes nothing gets the line later, with the next one. Of a very long run, older lines are thinned out, and
        curves get every second tick from FULL_TICKS on, every fourth from twice as many on, ...: the file of lines stays bounded,
        and the curves grow with the logarithm of the ticks.

        Args:
            statistics: As `training_stats.Collector.as_dict` gives them: name -> num, mean, std.
            step: Place of the points, thousands of what was shown.
        """
        timestamp = time.time()
        self._pending.append(json.dumps({**statistics, 'timestamp': timestamp}))
        with contextlib.suppress(OSError):
            while self._pending:
                append_line(os.path.join(self.run_dir, STATS_FILE), self._pending[0])
                del self._pending[0]
                self._num_lines += 1
            if self._num_lines > MOST_LINES:
                self._num_lines = thin_out(os.path.join(self.run_dir, STATS_FILE))
        tick = statistics.get('Progress/tick', {}).get('mean')
        self._tick = self._tick + 1 if tick is None or not math.isfinite(tick) else round(tick)
        if self._tick % interval_at(self._tick, FULL_TICKS) == 0:
            self._points({name: value['mean'] for name, value in statistics.items()}, step, timestamp)

    def write_metrics(self, metrics: dict[str, float], step: int) -> None:
        """One point in the curve of each metric."""
        self._points({f'Metrics/{name}': number for name, number in metrics.items()}, step, time.time())

    def _points(self, values: dict[str, float], step: int, timestamp: float) -> None:
        if self.board is None or not values:
            return
        try:
            for name, value in values.items():
                self.board.add_scalar(name, value, global_step=step, walltime=timestamp)
            self.board.flush()
        except OSError as error:
            self.board = None
            print(f'Warning: the TensorBoard curves end here ({error}); stats.jsonl goes on')

    def picture(self, name: str, picture: Any, step: int) -> None:
        """One picture uint8 `[H, W, 3]` in TensorBoard; of many with one name, later ones are thinned out."""
        number = self._pictures[name] = self._pictures.get(name, -1) + 1
        if self.board is not None and number % interval_at(number, FULL_PICTURES) == 0:
            self.board.add_image(name, picture, global_step=step, dataformats='HWC')

    def _hook(self, arguments: Any) -> None:
        """TensorBoard writes in a thread of its own, whose full disk the next point is told; a traceback says no more."""
        thread = type(arguments.thread).__module__
        if not (isinstance(arguments.exc_value, OSError) and thread.startswith('tensorboard')):
            self._hook_before(arguments)

    def close(self) -> None:
        threading.excepthook = self._hook_before
        if self.board is not None:
            with contextlib.suppress(OSError):
                self.board.close()
            self.board = None


def interval_at(number: int, full: int) -> int:
    """1 for the first `full` things, 2 until twice as many, then 4, ...: half of `full` of them are left of each doubling."""
    return 1 << (number // full).bit_length()


def thin_out(path: str) -> int:
    """Keep every second line of a file but for the newest; returns how many are left."""
    with open(path, encoding='utf-8', errors='replace') as file:
        lines = file.readlines()
    kept = lines[:-NEWEST_LINES:2] + lines[-NEWEST_LINES:]
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.writelines(kept)
    return len(kept)


def forget_statistics_after(run_dir: str, kimg: float) -> int:
    """Drop the lines of ticks that come after the saved state, and what a kill has cut off: a resumed run writes them again.

    Returns:
        How many are left.
    """
    path = os.path.join(run_dir, STATS_FILE)
    if not os.path.isfile(path):
        return 0
    with open(path, encoding='utf-8', errors='replace') as file:
        lines = file.readlines()
    kept = [line for line in lines if line.endswith('\n') and _kimg_of(line) <= kimg + 1e-9]
    if kept != lines:
        with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            file.writelines(kept)
    return len(kept)


def _kimg_of(line: str) -> float:
    """Where a line of statistics was written; infinity where that cannot be read, so that it is dropped."""
    try:
        return float(json.loads(line)['Progress/kimg']['mean'])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float('inf')
