"""Which run folder a command works in: an unfinished one of the same command, taken for this process alone, or a new one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence

from networks.errors import InputError, readable
from training.commands import command_line
from training.runs.locks import InUse, Lock

LOCK_FILE = '.lock'
WAIT_SECONDS = 120.0  # a cluster gives a process half a minute to end; one that has lost its shell may be nearly done
LONGEST_NAMED = 60  # letters of an option in a sentence
MOST_NAMED = 5  # options that differ from those of an unfinished run


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


@dataclasses.dataclass(frozen=True)
class Claim:
    """A run that was found.

    Attributes:
        folder: Of the run.
        lock: The right to work in it; None: it has come to its end.
    """

    folder: str
    lock: Lock | None


def claim_run(
    outdir: str, name: str, differences: Callable[[str], Sequence[str]], is_finished: Callable[[str], bool]
) -> Claim | None:
    """The newest run in `outdir` with the options of this command that nobody works on.

    A process that is just ending, such as one that a cluster has asked to stop, is waited for. One that began to work on the run
    after this command was started is none to wait for: the two were started at one moment, and each gets its own run. When the
    newest run is an unfinished one with other options, they are named.

    Args:
        outdir: Folder of run folders.
        name: Theirs without the number.
        differences: Options of the run in a folder that are others than those wanted, as one would write them; raises
            InputError where the folder is none of such a run.
        is_finished: Whether the run in a folder has come to its end.

    Returns:
        None where there is no such run.

    Raises:
        InUse: Another process works on it, and goes on doing so.
    """
    for number, folder in enumerate(run_folders(outdir, name)):
        try:
            others = differences(folder)
            if others and number == 0 and not is_finished(folder):
                name_differences(folder, others)
        except InputError:  # no run of this program, or a damaged one
            continue
        if others:
            continue
        try:
            lock = _take(folder)
        except InUse as error:
            raise InUse(f'{error}; --fresh begins another run beside it') from error
        if lock is None:
            continue
        with contextlib.suppress(InputError):
            if not is_finished(folder):
                return Claim(folder, lock)
            lock.release()
            return Claim(folder, None)
        lock.release()
    return None


def _take(folder: str) -> Lock | None:
    """The lock of a run folder; None where another process took it after this command was started."""
    try:
        return lock_run(folder)
    except InUse as error:
        if error.since is None or error.since < command_line.started():
            return wait_for_run(folder)
        who = str(error).split(';')[0]
        command_line.report(f'Note: {who}; it was started when this command was, so each has a run of its own')
        return None


def name_differences(folder: str, others: Sequence[str]) -> None:
    """Say in what an unfinished run differs from what is wanted, unless a process works on it.

    Args:
        folder: Of the run.
        others: Its options that are others, as one would write them.
    """
    with contextlib.suppress(OSError, InUse), lock_run(folder):
        command_line.report(
            f'Note: {folder} is unfinished and was begun with other options ({_named(others)}); this command begins another run'
        )


def note_kept(folder: str, kept: Sequence[str]) -> None:
    """Say which options of a run that an earlier version began are others than those of today; none: say nothing."""
    if kept:
        command_line.report(
            f'Note: an older version of this program began {folder}, which goes on as it was: {_named(kept)}; --fresh begins '
            'another run'
        )


def _named(options: Sequence[str]) -> str:
    """Some options in a sentence; a damaged file may say anything of them."""
    more = f' and {len(options) - MOST_NAMED} more' if len(options) > MOST_NAMED else ''
    texts = [text if len(text) <= LONGEST_NAMED else f'{text[: LONGEST_NAMED - 4]} ...' for text in options[:MOST_NAMED]]
    return readable(', '.join(texts)) + more
