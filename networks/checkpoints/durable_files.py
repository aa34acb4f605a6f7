"""Files that appear whole or not at all, and that neither a kill nor a power cut takes back once they are there.

A file is written under a hidden temporary name beside its place, `.NAME.RANDOM.tmp`, brought to the disk (fsync), renamed, and
the folder that now holds the name is brought to the disk as well. While it is written, the temporary file is locked (flock):
the kernel ends a lock with its process, so a temporary file that nobody locks was left by a run that was killed, and whoever
writes the same file next removes it.
"""

import contextlib
import errno
import glob
import os
import re
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(r'\..+\.[a-z0-9_]{8}\.(tmp|partial)')  # of tempfile.mkstemp; .partial: by version 0.2.0
ABANDONED_SECONDS = 24 * 3600.0  # where locks cannot be had, a temporary file of this age belongs to nobody


def has_locks() -> bool:
    """Whether this system has locks that end with their process; Windows has not, and moves and removes no file that is open."""
    return fcntl is not None


def lock_file(file: IO[Any] | int) -> bool | None:
    """Lock an open file for this process, without waiting: True, False where another process has it, None without locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:  # a network disk without locks
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        return None


def sync_file(path: str | os.PathLike[str]) -> None:
    """Bring a closed file to the disk."""
    handle = os.open(path, os.O_RDONLY if has_locks() else os.O_RDWR)  # Windows syncs what may be written to
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Bring the names in a folder to the disk, where the system can (some network disks cannot open or sync a folder)."""
    with contextlib.suppress(OSError):
        sync_file(folder or '.')


def ordinary_mode(path: str | os.PathLike[str]) -> None:
    """Give a private temporary file the permissions of an ordinary new one."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


@contextlib.contextmanager
def temporary_beside(path: str | os.PathLike[str]) -> Iterator[str]:
    """A locked temporary file in the folder of `path`, removed at the end unless it was moved away.

    The block may open it as often as it likes, but has to leave it in its place. What earlier, killed runs left of the same file
    is removed first.
    """
    folder, name = os.path.split(os.path.abspath(path))
    remove_leftovers(folder, name)
    handle, temporary = tempfile.mkstemp(prefix=f'.{name}.', suffix='.tmp', dir=folder)
    if not has_locks():
        os.close(handle)
    try:
        if has_locks():
            lock_file(handle)
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if has_locks():
            os.close(handle)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A temporary file beside `path`, moved there at the end and on the disk then; after an error `path` is as before."""
    with temporary_beside(path) as temporary:
        yield temporary
        sync_file(temporary)
        ordinary_mode(temporary)
        os.replace(temporary, path)
        sync_folder(os.path.dirname(os.path.abspath(path)))


def remove_leftovers(folder: str | os.PathLike[str], name: str | None = None) -> list[str]:
    """Remove temporary files in a folder that no running process writes any more.

    Args:
        folder: Where to look, not below it.
        name: Only those of this file; None: of any.

    Returns:
        Paths of what was removed; what cannot be removed stays, without an error.
    """
    pattern = '.*' if name is None else f'.{glob.escape(name)}.*'
    removed = []
    for path in glob.glob(os.path.join(glob.escape(os.fspath(folder)), pattern)):
        if TEMPORARY.fullmatch(os.path.basename(path)) and os.path.isfile(path) and _is_abandoned(path):
            with contextlib.suppress(OSError):
                os.unlink(path)
                removed.append(path)
    return removed


def _is_abandoned(path: str) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        free = lock_file(handle)
        if free is None:
            return time.time() - os.fstat(handle).st_mtime > ABANDONED_SECONDS
        return free
    finally:
        os.close(handle)


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add one line to a file of lines: it is there as a whole and on the disk, or the file is as before.

    A last line that a kill left half-written is ended first, so that it does not swallow this one. Several processes may
    append to one file.

    Args:
        path: File, made where it is missing.
        line: Text without a line break.

    Raises:
        OSError: The disk is full, ...
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, 'O_BINARY', 0), 0o666)
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)  # others append in microseconds
        size = os.fstat(handle).st_size
        os.lseek(handle, max(size - 1, 0), os.SEEK_SET)
        torn = size > 0 and os.read(handle, 1) != b'\n'
        rest = memoryview(('\n' * torn + line + '\n').encode())
        try:
            while rest:  # a nearly full disk takes less than it was given
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
