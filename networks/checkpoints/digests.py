"""SHA-256 of files; nothing heavy is imported, so that every room can use it."""

import hashlib
import os
from typing import BinaryIO


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, 'rb') as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """Hexadecimal SHA-256 of an open file, from its beginning; a file of any size takes one MiB of memory."""
    file.seek(0)
    if hasattr(hashlib, 'file_digest'):
        return hashlib.file_digest(file, 'sha256').hexdigest()
    state = hashlib.sha256()  # Python 3.10
    while piece := file.read(1 << 20):
        state.update(piece)
    return state.hexdigest()
