"""Where the members of a latent data set lie on the disk: in a folder, or in a zip; and arrays in them."""

from __future__ import annotations

import lzma
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from typing import IO

import numpy as np

from networks.checkpoints import zip_entries
from networks.errors import InputError, readable
from training.latents.layout import FORMAT_NAME
from training.recordings.source_files import is_image, is_video

# What reading of a damaged member may end in: zipfile, zlib and numpy each have their own.
READING_ERRORS = (
    ValueError, EOFError, OSError, OverflowError, NotImplementedError, RuntimeError, KeyError, IndexError, MemoryError,
    struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip

# The same of numpy's reader of headers, which parses them as Python.
HEADER_ERRORS = (SyntaxError, TypeError, KeyError, AttributeError, IndexError, tokenize.TokenError, MemoryError, RecursionError)


class Folder:
    """Members that are files of a folder."""

    def __init__(self, path: str) -> None:
        self.path = path
        if not os.path.isfile(os.path.join(path, 'dataset.json')):  # unpacked into a folder of its own
            inner = [name for name in sorted(os.listdir(path)) if not name.startswith(('.', '__MACOSX'))]
            inside = [name for name in inner if os.path.isfile(os.path.join(path, name, 'dataset.json'))]
            if len(inside) == 1:
                self.path = os.path.join(path, inside[0])

    def _file(self, name: str) -> str:
        return os.path.join(self.path, *name.split('/'))

    def has(self, name: str) -> bool:
        parts = name.split('/')
        inside = not os.path.isabs(name) and '..' not in parts and '\\' not in name and name.isprintable()
        return inside and os.path.isfile(self._file(name))

    def read(self, name: str) -> bytes:
        with open(self._file(name), 'rb') as file:
            return file.read()

    def size_of(self, name: str) -> int:
        return os.path.getsize(self._file(name))

    def locate(self, name: str) -> tuple[str, int, int, bool]:
        """The file, the first byte and the number of bytes of a member, and whether it is stored plainly."""
        path = self._file(name)
        return path, 0, os.path.getsize(path), True

    def open(self, name: str) -> IO[bytes]:
        return open(self._file(name), 'rb')

    def close(self) -> None:
        pass


class Zip:
    """Members of a zip, below the folder that it was packed with, if any."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.archive = zipfile.ZipFile(path)
        members = {info.filename.replace('\\', '/'): info for info in self.archive.infolist()}  # Windows may write backslashes
        self.members = members
        self.size = os.path.getsize(path)
        if 'dataset.json' not in members:  # packed again together with its folder
            folders = [
                name.removesuffix('dataset.json') for name in members if name.count('/') == 1 and name.endswith('/dataset.json')
            ]
            folders = [folder for folder in folders if not folder.startswith(('.', '__MACOSX'))]
            if len(folders) == 1:
                start = folders[0]
                self.members = {name.removeprefix(start): info for name, info in members.items() if name.startswith(start)}

    def has(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str) -> bytes:
        return self.archive.read(self.members[name])

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(self.members[name])

    def size_of(self, name: str) -> int:
        return self.members[name].file_size

    def locate(self, name: str) -> tuple[str, int, int, bool]:
        """The file, the first byte and the number of bytes of a member, and whether it is stored plainly."""
        info = self.members[name]
        if info.flag_bits & 1:
            raise ValueError('it is encrypted; pack the data set without a password')
        if info.compress_type != zipfile.ZIP_STORED:
            if info.file_size > 100 * info.compress_size + (1 << 20):
                raise ValueError('it unpacks to far more than it holds')
            return self.path, 0, info.file_size, False
        with open(self.path, 'rb') as file:
            file.seek(info.header_offset)
            start = zip_entries.first_byte(file.read(zip_entries.LOCAL_HEADER_BYTES), info.header_offset)
        if start + info.file_size > self.size:
            raise ValueError('the zip is cut off')
        return self.path, start, info.file_size, True

    def close(self) -> None:
        self.archive.close()


def is_latent_dataset(path: str) -> bool:
    """Tell whether a zip or folder is a latent data set, also one that was packed again together with its folder."""
    if not os.path.isdir(path) and not zipfile.is_zipfile(path):
        return False
    try:
        container = open_container(path)
    except InputError:
        return False
    try:
        return container.has('dataset.json') and FORMAT_NAME.encode() in container.read('dataset.json')[: 1 << 16]
    except (OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False
    finally:
        container.close()


def open_container(path: str) -> Folder | Zip:
    if os.path.isdir(path):
        return Folder(path)
    if not os.path.exists(path):
        hint = ''
        if os.path.isdir(path + '.partial'):
            hint = f' (an interrupted run left {path}.partial; run the same command again to finish it)'
        raise InputError(f'{path}: there is no such file or folder{hint}.')
    try:
        return Zip(path)
    except READING_ERRORS as error:
        if is_image(path) or is_video(path):
            raise InputError(f'{path} is footage, not a latent data set; embed_video.py turns it into one.') from error
        if path.lower().endswith(('.pkl', '.pt', '.pth', '.safetensors')):
            raise InputError(
                f'{path} is a file of weights or codes, not a latent data set, which is a zip or a folder.'
            ) from error
        raise InputError(readable(f'{path} is not a zip file, or it was cut off: {error or type(error).__name__}.')) from error


class ArrayFile:
    """Header of one `.npy` array that lies somewhere in a file (numpy.lib.format describes it)."""

    def __init__(self, container: Folder | Zip, name: str) -> None:
        self.path, start, size, plain = container.locate(name)
        with open(self.path, 'rb') if plain else container.open(name) as file:
            if plain:
                file.seek(start)
            self.shape, self.dtype, fortran_order, header_size = _read_npy_header(file)
        if self.dtype.kind != 'f':
            raise ValueError(f'its values are {self.dtype}, not float32')
        self.offset = start + header_size
        if header_size + math.prod(self.shape) * self.dtype.itemsize > size:
            raise ValueError(f'it is cut off: {size} bytes are too few for the shape {list(self.shape)}')
        self.mappable = plain and self.dtype == np.dtype('<f4') and not fortran_order and self.offset % 4 == 0

    def map(self) -> np.ndarray:
        # Mode c: the caller may write to the array (torch wants that), the file never changes.
        return np.asarray(np.memmap(self.path, dtype='<f4', mode='c', offset=self.offset, shape=self.shape))

    def read(self, indices: range) -> np.ndarray:
        """Some of the entries of the first axis, for arrays that are mappable."""
        size = math.prod(self.shape[1:])
        result = np.empty((len(indices), *self.shape[1:]), np.float32)
        at_once = len(indices) if indices.step == 1 else 1
        with open(self.path, 'rb') as file:
            for place in range(0, len(indices), at_once):
                file.seek(self.offset + indices[place] * size * 4)
                values = np.fromfile(file, '<f4', at_once * size)
                result[place : place + at_once] = values.reshape(at_once, *self.shape[1:])
        return result


def _read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    start = file.tell()
    version = np.lib.format.read_magic(file)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # numpy's on headers of Python 2
        try:
            shape, dtype, fortran_order = _parse_npy_header(file, version)
        except HEADER_ERRORS as error:
            raise ValueError('its header is damaged') from error
    if not all(isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in shape):
        raise ValueError(f'its shape is {shape!r}')
    return shape, dtype, fortran_order, file.tell() - start


def _parse_npy_header(file: IO[bytes], version: tuple[int, int]) -> tuple[tuple[int, ...], np.dtype, bool]:
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f'its .npy version {version} is not known')
    return shape, dtype, fortran_order
