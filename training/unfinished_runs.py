"""Runs that were interrupted, found again by the same command."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence

from networks.errors import InputError
from training.best_snapshot import read_values
from training.commands import command_line
from training.runs.locks import InUse, Lock
from training.temporal_snapshot import load_training_state, training_states

LOCK_FILE = '.lock'
WAIT_SECONDS = 40.0  # a cluster gives a process half a minute to end


def run_folders(outdir: str, name: str) -> Iterator[str]:
    """Run folders of a name (`00003-NAME`) in a folder, the newest first."""
    found = []
    if os.path.isdir(outdir):
        for entry in os.scandir(outdir):
            if (match := re.fullmatch(rf'(\d+)-{re.escape(name)}', entry.name)) and entry.is_dir():
                found.append((int(match[1]), entry.path))
    for _, path in sorted(found, reverse=True):
        yield path


def lock_run(run_dir: str) -> Lock:
    """Take a run folder for this process.

    Raises:
        InUse: Another process works on it.
    """
    return Lock(os.path.join(run_dir, LOCK_FILE), f'the run folder {run_dir}')


def wait_for_run(run_dir: str, seconds: float | None = None) -> Lock:
    """As `lock_run`, but a process that works on it is given some time (WAIT_SECONDS) to end.

    Raises:
        InUse: It still works on it.
    """
    end, said = time.monotonic() + (WAIT_SECONDS if seconds is None else seconds), False
    while True:
        try:
            return lock_run(run_dir)
        except InUse as error:
            if time.monotonic() >= end:
                raise
            if not said:
                command_line.report(f'{str(error).split(";")[0]}; waiting for it to end, at most {end - time.monotonic():.0f} s')
                said = True
        time.sleep(0.5)


def last_good_state(run_dir: str) -> str | None:
    """The newest training state that can be read; one that a disk error has damaged is passed over."""
    states = training_states(run_dir)
    for path in states:
        try:
            load_training_state(path)
            return path
        except InputError:
            continue
    return states[0] if states else None  # its error says what is wrong


def is_finished(run_dir: str, total_kimg: float, metrics: Sequence[str]) -> bool:
    """Whether a training has come to its end, and its last snapshot was measured."""
    states = training_states(run_dir)
    if not states:
        return False
    try:
        shown = load_training_state(states[0])['tick_start_frames']
    except (InputError, KeyError):
        return False
    if not isinstance(shown, int) or shown < total_kimg * 1000:
        return False
    snapshot = f'network-snapshot-{shown // 1000:06d}.pkl'
    return all(snapshot in read_values(run_dir, metric, all=True) for metric in metrics)
