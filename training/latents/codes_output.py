"""Generated W+ codes into a file, as they are made."""

import contextlib
import os
import zipfile
from types import TracebackType

import numpy as np

from networks.checkpoints.durable_files import replacing


class CodesWriter:
    """A .npz with `w` float32 [T, num_ws, w_dim] (the key of NVIDIA's projector) and `fps`, written row by row.

    The number of frames is said beforehand, because an .npy file begins with its shape. The file appears at `close`; an
    error or Ctrl-C inside the `with` block leaves none, and an older file as it was.

    Args:
        path: Ends in .npz; its folder exists.
        shape: (T, num_ws, w_dim).
        fps: Frames per second.
    """

    def __init__(self, path: str | os.PathLike[str], shape: tuple[int, int, int], *, fps: float) -> None:
        self.path = os.fspath(path)
        self.shape = shape
        self.num_frames = 0
        self._place = contextlib.ExitStack()  # what moves the file to its place in the end, or drops it
        temporary = self._place.enter_context(replacing(self.path))
        try:
            self._file = open(temporary, 'wb')  # noqa: SIM115
            self._zip = zipfile.ZipFile(self._file, 'w')
            with self._zip.open('fps.npy', 'w') as member:
                np.lib.format.write_array(member, np.asarray(fps, np.float64))
            self._member = self._zip.open('w.npy', 'w', force_zip64=True)
            header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
            np.lib.format.write_array_header_1_0(self._member, header)
        except BaseException:
            self.abort()
            raise

    def write(self, code: np.ndarray) -> None:
        """Add one frame's code [num_ws, w_dim]."""
        if code.shape != self.shape[1:] or self.num_frames == self.shape[0]:
            raise ValueError(f'code {self.num_frames} {code.shape} does not fit into {self.shape}')
        self._member.write(np.ascontiguousarray(code, '<f4').tobytes())
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file and put it in its place."""
        if self.num_frames != self.shape[0]:
            raise ValueError(f'{self.num_frames} of {self.shape[0]} codes were written')
        self._member.close()
        self._zip.close()
        self._file.close()
        self._place.close()

    def abort(self) -> None:
        """Drop what was written."""
        for part in ('_member', '_zip', '_file'):  # as far as they were opened
            with contextlib.suppress(AttributeError, OSError, ValueError):  # a full disk fails here again
                getattr(self, part).close()
        dropped = InterruptedError()
        self._place.__exit__(type(dropped), dropped, None)

    def __enter__(self) -> 'CodesWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise
