"""What independent jobs (`generate_video.py --shard=K/N`) have made, checked and put together: no file is missing, cut off, or of
another command.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from networks.checkpoints.durable_files import append_line, remove_leftovers, sync_file, sync_folder
from networks.errors import InputError, option
from training.commands import command_line
from training.generation.outputs import Output, Records
from training.runs.locks import Lock

MOST_NAMED = 4  # shares, files or options in a sentence


def file_size(path: str) -> int:
    """Bytes of a file; of a folder of frames, how many there are."""
    return len(glob.glob(os.path.join(glob.escape(path), 'frame*.png'))) if os.path.isdir(path) else os.path.getsize(path)


def sizes(outdir: str, names: Sequence[str]) -> dict[str, int]:
    """`file_size` of each, by name, for the record of a finished file."""
    return {name: file_size(os.path.join(outdir, name)) for name in names}


def merge_shares(
    folders: Sequence[str], outdir: str, outputs: Sequence[Output], settings: dict[str, Any], unsaid: dict[str, Any],
    names: Callable[[Output], Sequence[str]],
) -> None:  # fmt: skip
    """Check that the shares of all jobs are there, and put their files together.

    Files are linked where both folders are on one disk, and copied elsewhere; the folders of the jobs stay as they are. A merge
    that was interrupted goes on.

    Args:
        folders: Where the jobs wrote; may be `outdir` itself.
        outdir: Where the files go.
        outputs: All files of the command.
        settings: What decides their content, as of `Records.add`.
        unsaid: As of `Records.has`.
        names: Files of the codes of an output.

    Raises:
        InputError: a job is still at work, or a file is missing, cut off, or was made with other options.
    """
    settings = {
        name: value for name, value in settings.items() if name != 'device'
    }  # of a job may be another than that of the merge
    places = list(dict.fromkeys([os.path.abspath(outdir), *map(os.path.abspath, folders)]))
    for place in places:
        if not os.path.isdir(place):
            raise InputError(f'{option("merge")}: there is no folder {place!r}')
    with contextlib.ExitStack() as stack:
        for place in places:
            for path in {
                os.path.join(place, '.generation.lock'),
                *glob.glob(os.path.join(glob.escape(place), '.generation-*.lock')),
            }:
                if place == places[0] or os.path.exists(path):
                    stack.enter_context(Lock(path, f'{option("merge")}: {place}'))
        records = [Records(place) for place in places]
        lines = [record.last() for record in records]
        found: dict[str, tuple[int, dict[str, Any]]] = {}
        wrong: dict[str, str] = {}
        for output in outputs:
            parts = [output.name, *names(output)]
            why = 'missing'
            for index, place in enumerate(places):
                line = lines[index].get(output.name)
                if line is None or not all(os.path.exists(os.path.join(place, name)) for name in parts):
                    continue
                others = records[index].differences(line, output, settings, unsaid)
                if others:
                    why = f'made with another {", ".join(others[:MOST_NAMED])}'
                elif (cut := _cut_off(place, parts, line, int(settings.get('frames') or 1))) is not None:
                    why = f'{cut} is not whole'
                else:
                    found[output.name] = (index, line)
                    break
            if output.name not in found:
                wrong[output.name] = why
        if wrong:
            raise InputError(_in_words(outputs, wrong, lines))
        done = lines[0]
        for output in outputs:
            index, line = found[output.name]
            if index == 0:
                continue
            for name in [output.name, *names(output)]:
                _bring(os.path.join(places[index], name), os.path.join(outdir, name))
            if done.get(output.name) != line:
                append_line(records[0].path, json.dumps(line))
        remove_leftovers(outdir)
        for path in glob.glob(os.path.join(glob.escape(outdir), '.generation-*-of-*.unfinished')):
            with contextlib.suppress(OSError):  # of a share that was killed, whose files others have made since
                os.unlink(path)
        devices = sorted({str(line.get('device')) for _, line in found.values()})
        if len(devices) > 1:
            command_line.report(f'Note: these files were made on {" and ".join(devices)}, which round differently')
        command_line.report(f'All {len(outputs)} files are in {outdir}')


def _cut_off(place: str, parts: Sequence[str], line: dict[str, Any], frames: int) -> str | None:
    """The first of some files that has another size than its record says; None: all are whole."""
    known = line.get('sizes')
    for name in parts:
        path = os.path.join(place, name)
        expected = known.get(name) if isinstance(known, dict) else (frames if os.path.isdir(path) else None)
        if expected is not None and file_size(path) != expected:
            return name
    return None


def _in_words(outputs: Sequence[Output], wrong: dict[str, str], lines: Sequence[dict[str, dict[str, Any]]]) -> str:
    """What is wrong, by the shares that have to be made again where the records say how many there are."""
    counts = [
        int(match[1])
        for found in lines
        for line in found.values()
        if (match := re.fullmatch(r'\d{1,6}-of-(\d{1,6})', str(line.get('shard'))))
    ]
    count = max(set(counts), key=counts.count) if counts else 0
    if count < 1:
        return f'{len(wrong)} of {len(outputs)} files cannot be used: {_some(wrong)}'
    shares: dict[int, dict[str, str]] = {}
    for index, output in enumerate(outputs):  # as Shard.of deals them out
        if output.name in wrong:
            shares.setdefault(index % count + 1, {})[output.name] = wrong[output.name]
    shown = '; '.join(f'{number}/{count} ({_some(files)})' for number, files in sorted(shares.items())[:MOST_NAMED])
    more = f'; and {len(shares) - MOST_NAMED} more' if len(shares) > MOST_NAMED else ''
    return f'of {count} shares {len(shares)} are not complete: {shown}{more}; give their commands with {option("shard")} again'


def _some(files: dict[str, str]) -> str:
    shown = ', '.join(name if why == 'missing' else f'{name}: {why}' for name, why in list(files.items())[:MOST_NAMED])
    return shown + (f', and {len(files) - MOST_NAMED} more' if len(files) > MOST_NAMED else '')


def _bring(source: str, dest: str) -> None:
    """Make a file or a folder of frames be at `dest` as well, whole or not at all."""
    if os.path.isdir(source):
        _bring_folder(source, dest)
        return
    with contextlib.suppress(OSError):
        if os.path.samefile(source, dest):
            return
    folder, name = os.path.split(os.path.abspath(dest))
    remove_leftovers(folder, name)
    temporary = tempfile.mktemp(prefix=f'.{name}.', suffix='.tmp', dir=folder)  # of the kind that the next run removes
    try:
        _link_or_copy(source, temporary)
        os.replace(temporary, dest)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(folder)


def _bring_folder(source: str, dest: str) -> None:
    growing = f'{dest}.partial'
    if os.path.isdir(dest) and sorted(os.listdir(dest)) == sorted(os.listdir(source)):
        return
    shutil.rmtree(growing, ignore_errors=True)
    os.makedirs(growing)
    for name in sorted(os.listdir(source)):
        _link_or_copy(os.path.join(source, name), os.path.join(growing, name))
    sync_folder(growing)
    shutil.rmtree(dest, ignore_errors=True)
    os.replace(growing, dest)
    sync_folder(os.path.dirname(os.path.abspath(dest)))


def _link_or_copy(source: str, dest: str) -> None:
    """A file at a path that is free, on the disk."""
    try:
        os.link(source, dest)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        shutil.copyfile(source, dest)  # another disk, or one without links
        sync_file(dest)
