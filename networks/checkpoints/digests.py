"""SHA-256 of files; nothing heavy is imported, so that every room can use it."""

import hashlib
import os
import time
from typing import BinaryIO


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, 'rb') as file:
        return sha256_of(file)


_known: dict[tuple[int, ...], str] = {}


def sha256_of_unchanged(file: BinaryIO) -> str:
    """`sha256_of`, and what it gave before for the same file if neither its size nor its times have changed since."""
    before = _identity(file)
    if before is None:
        return sha256_of(file)
    if before not in _known:
        digest = sha256_of(file)
        if _identity(file) != before:
            return digest
        _known[before] = digest
    return _known[before]


def _identity(file: BinaryIO) -> tuple[int, ...] | None:
    """What is another one after the file was written to; None where that is not known."""
    try:
        found = os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None
    age = time.time() - found.st_mtime
    # A file that has just been written may be written to again within the tick of its clock.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if found.st_ino and age > 2 else None


def sha256_of(file: BinaryIO) -> str:
    """Hexadecimal SHA-256 of an open file, from its beginning; a file of any size takes one MiB of memory."""
    file.seek(0)
    if hasattr(hashlib, 'file_digest'):
        return hashlib.file_digest(file, 'sha256').hexdigest()
    state = hashlib.sha256()  # Python 3.10
    while piece := file.read(1 << 20):
        state.update(piece)
    return state.hexdigest()
