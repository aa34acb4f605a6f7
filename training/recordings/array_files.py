"""Videos in array files: `.npy` and `.npz` of uint8 `[N, T, H, W, 3]` or `[T, H, W, 3]`."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import zipfile
from collections.abc import Iterable, Iterator

import numpy as np

from networks.checkpoints import zip_entries
from networks.errors import DAMAGED_FILE, DamagedVideo, InputError
from training.recordings.recording import Recording

ARRAY_ENDINGS = ('.npy', '.npz')


class ArrayVideo(Recording):
    """uint8 `[T, H, W, 3]`, often a part of a mapped file."""

    def __init__(self, name: str, path: str, array: np.ndarray) -> None:
        super().__init__(name, path, [path])
        self.array = array
        self.expected = len(array)

    def stream(self, first: int = 0) -> Iterator[np.ndarray]:
        return self.frames(itertools.count(first))

    def count_frames(self) -> int:
        return len(self.array)

    def frames(self, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        for number in wanted:
            if number >= len(self.array):
                return
            yield np.array(self.array[number])

    def digest(self) -> str:
        total = hashlib.sha256(json.dumps(self.array.shape).encode())
        for frame in self.array:
            total.update(np.ascontiguousarray(frame).tobytes())
        return total.hexdigest()


def find_in_array(path: str, name: str) -> list[Recording]:
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False) if path.lower().endswith('.npy') else _map_npz(path)
    except (*DAMAGED_FILE, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DamagedVideo(f'{path} is not an array file, or it was cut off: {error}.') from error
    if array.dtype != np.uint8 or array.ndim not in (4, 5) or array.shape[-1] != 3:
        hint = '; move the channels to the end' if array.ndim in (4, 5) and array.shape[-3] == 3 else ''
        raise InputError(
            f'{path} holds {array.dtype} of shape {list(array.shape)}, and videos are uint8 (0 to 255) of shape '
            f'[N, T, H, W, 3] or [T, H, W, 3]{hint}.'
        )
    if 0 in array.shape:
        raise InputError(f'{path} is empty: its shape is {list(array.shape)}.')
    if array.ndim == 4:
        return [ArrayVideo(name, path, array)]
    return [ArrayVideo(f'{name}/{index:05d}', path, video) for index, video in enumerate(array)]


def _map_npz(path: str) -> np.ndarray:
    """Return the only array of an .npz file, mapped where it is not compressed."""
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith('.npy')]
        if len(members) != 1:
            raise ValueError(f'it holds {len(members)} arrays, and one is needed')
        info = members[0]
        if info.compress_type != zipfile.ZIP_STORED:
            with archive.open(info) as file:
                return np.load(io.BytesIO(file.read()), allow_pickle=False)
    with open(path, 'rb') as raw:
        raw.seek(info.header_offset)
        raw.seek(zip_entries.first_byte(raw.read(zip_entries.LOCAL_HEADER_BYTES), info.header_offset))
        version = np.lib.format.read_magic(raw)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(raw)
        if dtype.hasobject:
            raise ValueError('it holds Python objects')
        return np.memmap(raw, dtype=dtype, mode='r', offset=raw.tell(), shape=shape, order='F' if fortran else 'C')
