"""Folders of training runs: numbers, log, statistics. Both trainings keep theirs in the same way."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any

from networks.checkpoints import replacing

STATS_FILE = 'stats.jsonl'
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
        self._file.close()

    def write(self, text: str) -> int:
        self._file.write(text)
        return self._screen.write(text)

    def flush(self) -> None:
        self._file.flush()
        self._screen.flush()

    def isatty(self) -> bool:
        return self._screen.isatty()


class RunLog:
    """`stats.jsonl` and TensorBoard of one run folder.

    Args:
        run_dir: The folder.
        resumed_at: Step from which on curves of an interrupted run are repeated, and so disappear; None for a new run.
    """

    def __init__(self, run_dir: str, resumed_at: int | None) -> None:
        self.run_dir = run_dir
        self._file = open(os.path.join(run_dir, STATS_FILE), 'a', encoding='utf-8')  # noqa: SIM115 - open for the run
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board: Any = SummaryWriter(run_dir, purge_step=resumed_at)
        except ImportError as error:
            print(f'Skipping tfevents export: {error}')
            self.board = None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, statistics: dict[str, Any], step: int, metrics: dict[str, float] | None = None) -> None:
        """One line of statistics and one point in every curve.

        Args:
            statistics: As `training_stats.Collector.as_dict` gives them: name -> num, mean, std.
            step: Place of the points, thousands of what was shown.
            metrics: Values of metrics by name.
        """
        timestamp = time.time()
        self._file.write(json.dumps({**statistics, 'timestamp': timestamp}) + '\n')
        self._file.flush()
        if self.board is None:
            return
        for name, value in statistics.items():
            self.board.add_scalar(name, value['mean'], global_step=step, walltime=timestamp)
        for name, number in (metrics or {}).items():
            self.board.add_scalar(f'Metrics/{name}', number, global_step=step, walltime=timestamp)
        self.board.flush()

    def picture(self, name: str, picture: Any, step: int) -> None:
        """One picture uint8 `[H, W, 3]` in TensorBoard."""
        if self.board is not None:
            self.board.add_image(name, picture, global_step=step, dataformats='HWC')

    def close(self) -> None:
        self._file.close()
        if self.board is not None:
            self.board.close()


def forget_statistics_after(run_dir: str, kimg: float) -> None:
    """Drop the lines of ticks that come after the saved state, and what a kill has cut off: a resumed run writes them again."""
    path = os.path.join(run_dir, STATS_FILE)
    if not os.path.isfile(path):
        return
    with open(path, encoding='utf-8') as file:
        lines = [line for line in file if line.endswith('\n')]
    kept = [line for line in lines if json.loads(line)['Progress/kimg']['mean'] <= kimg + 1e-9]
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.writelines(kept)
