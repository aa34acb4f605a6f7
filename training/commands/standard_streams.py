"""Standard output and error whose reader may leave, or that were closed from the start: that ends nothing.

Python raises at the next print when the terminal behind it was closed (EIO) or when nobody reads the pipe any more (EPIPE). A
training that runs for days must not end for that; it goes on without anybody to tell.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)


class _PatientText(io.TextIOWrapper):
    """Text for a file descriptor: when its reader is gone, the null device stands in its place.

    The layers below are Python's own: a signal that raises in the middle of a write finds their buffers consistent.
    """

    def write(self, text: str) -> int:
        """Write text; returns its length whether or not somebody reads it."""
        try:
            written = super().write(text)
            if self.write_through:  # python -u: the buffer below would hold it
                super().flush()
            return written
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # child processes write there as well
            os.close(null)
        if error.errno not in READER_GONE:
            raise error  # once: a full disk is told, and Python need not complain again when it flushes at exit


def be_patient() -> None:
    """Make `sys.stdout` and `sys.stderr` of this process patient; streams that somebody put in their place are left alone."""
    _open_what_was_closed()
    for name, descriptor in (('stdout', 1), ('stderr', 2)):
        stream = getattr(sys, name)
        if type(stream) is not io.TextIOWrapper:
            continue
        with contextlib.suppress(OSError, ValueError):  # no descriptor: a stream in memory
            if stream.fileno() != descriptor:
                continue
            stream.flush()
            patient = _PatientText(
                io.BufferedWriter(io.FileIO(descriptor, 'w', closefd=False)),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering or name == 'stderr',
                write_through=stream.write_through,
            )
            setattr(sys, name, patient)


def _open_what_was_closed() -> None:
    """The null device in the place of streams that were closed before the start, or a file of a result would get their number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(io.FileIO(os.devnull, 'w')), encoding='utf-8'))
