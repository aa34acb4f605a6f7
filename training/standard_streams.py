"""Standard output and error whose reader may leave: a closed terminal or pipe ends nothing.

Python raises at the next print when the terminal behind it was closed (EIO) or when nobody reads the pipe any more (EPIPE). A
training that runs for days must not end for that; it goes on without anybody to tell.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)


class _PatientFile(io.RawIOBase):
    """A file descriptor that takes everything: when its reader is gone, the null device stands in its place."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._descriptor)  # child processes write there as well
                os.close(null)
            if error.errno not in READER_GONE:
                raise  # once: a full disk is told, and Python need not complain again when it flushes at exit
        return len(data)


def be_patient() -> None:
    """Make `sys.stdout` and `sys.stderr` of this process patient; streams that somebody put in their place are left alone."""
    for name, descriptor in (('stdout', 1), ('stderr', 2)):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper) or isinstance(getattr(stream.buffer, 'raw', None), _PatientFile):
            continue
        with contextlib.suppress(OSError, ValueError):  # no descriptor: a stream in memory
            if stream.fileno() != descriptor:
                continue
            stream.flush()
            patient = io.TextIOWrapper(
                io.BufferedWriter(_PatientFile(descriptor)),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering or name == 'stderr',
                write_through=stream.write_through,
            )
            setattr(sys, name, patient)
