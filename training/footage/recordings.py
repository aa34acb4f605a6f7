"""Recorded videos as they lie on the disk: video files, folders and zips of images, arrays.

A recording gives its frames by number, its length, and the digest of its bytes. Images and arrays are read where they
are asked for; a video file is decoded from its beginning.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import PIL.Image

from networks.errors import DamagedVideo, InputError
from training.footage.clips import IMAGE_ENDINGS, VIDEO_ENDINGS, natural_sort
from training.footage.ffmpeg_input import decode_video, describe_video

ARRAY_ENDINGS = ('.npy', '.npz')


class Recording:
    """One video.

    Attributes:
        name: What it is called within its set.
        fps: Frames per second; None where the files do not tell.
        expected: Frames that a video file's header promises, where it does.
        files: Paths that hold it.
    """

    expected: int | None = None

    def __init__(self, name: str, files: Sequence[str], fps: float | None = None) -> None:
        self.name, self.files, self.fps = name, files, fps

    def count_frames(self) -> int:
        """Exact length in frames. Raises DamagedVideo."""
        raise NotImplementedError

    def frames(self, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames uint8 [H, W, 3] of ascending numbers, to the end of the video at most. Raises DamagedVideo."""
        raise NotImplementedError

    def digest(self) -> str:
        """SHA-256 of the bytes that the frames come from, in their order."""
        total = hashlib.sha256()
        for path in self.files:
            total.update(_file_digest(path))
        return total.hexdigest()


class VideoFile(Recording):
    """A file that ffmpeg decodes.

    Args:
        fps: Frames per second to resample to; None keeps those of the file, which count_frames() finds out.
    """

    def __init__(self, name: str, path: str, fps: float | None = None) -> None:
        super().__init__(name, [path], fps)
        self.path = path

    def _decode(self) -> Iterator[np.ndarray]:
        try:
            if self.fps is None or self.expected is None:
                description = describe_video(self.path)
                self.fps = self.fps or description.fps
                expected = description.expected_frames
                self.expected = None if expected is None else max(round(expected * self.fps / description.fps), 1)
            yield from decode_video(self.path, fps=self.fps, expected_frames=self.expected)
        except InputError as error:
            raise DamagedVideo(str(error).replace(', or keep the frames that can be decoded (--damaged=keep)', '')) from error

    def count_frames(self) -> int:
        return sum(1 for _ in self._decode())

    def frames(self, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        numbers = iter(wanted)
        number = next(numbers, None)
        for position, frame in enumerate(self._decode()):
            if number is None:
                return
            if position == number:
                yield frame
                number = next(numbers, None)
                if number is None:  # without this the next frame would be decoded, and perhaps be the damaged one
                    return


class ImageSequence(Recording):
    """Images, one a frame.

    Args:
        files: Files on the disk that hold the images.
        images: (name for errors, function that reads the bytes) of each frame.
    """

    def __init__(self, name: str, files: Sequence[str], images: Sequence[tuple[str, Callable[[], bytes]]]) -> None:
        super().__init__(name, files)
        self.images = images

    def count_frames(self) -> int:
        return len(self.images)

    def frames(self, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        for number in wanted:
            if number >= len(self.images):
                return
            where, read = self.images[number]
            yield decode_image(read, where)

    def digest(self) -> str:
        total = hashlib.sha256()
        for where, read in self.images:
            total.update(hashlib.sha256(_read_bytes(read, where)).digest())
        return total.hexdigest()


class ArrayVideo(Recording):
    """uint8 [T, H, W, 3], often a part of a mapped file."""

    def __init__(self, name: str, path: str, array: np.ndarray) -> None:
        super().__init__(name, [path])
        self.array = array

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


# ----------------------------------------------------------------------------
# Finding.


def find_recordings(path: str, fps: float | None = None) -> tuple[list[Recording], dict[str, str]]:
    """The videos of a file, folder or zip, sorted by name so that numbers count as numbers.

    A folder with images is one video, a folder of such folders (or a zip of them) one video each; video files and
    arrays are found at any depth. An array is [N, T, H, W, 3] or [T, H, W, 3].

    Args:
        path: What the user gave.
        fps: Rate that video files are resampled to.

    Returns:
        The videos, and name -> reason for those that cannot be opened.

    Raises:
        InputError: Nothing of this kind is there.
    """
    if not os.path.exists(path):
        raise InputError(f'{path}: there is no such file or folder.')
    if os.path.isdir(path):
        found, broken = _find_in_folder(path, fps)
    else:
        found, broken = _find_in_file(path, _stem(path), fps)
    if not found and not broken:
        raise InputError(f'{path}: neither videos nor images nor arrays (.npy, .npz) are in it, so there is nothing to compare.')
    return found, broken


def _find_in_folder(path: str, fps: float | None) -> tuple[list[Recording], dict[str, str]]:
    found: list[Recording] = []
    broken: dict[str, str] = {}
    for folder, subfolders, files in os.walk(path, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith('.')]
        files = natural_sort(name for name in files if not name.startswith('.'))
        relative = os.path.relpath(folder, path).replace(os.sep, '/')
        images = [os.path.join(folder, name) for name in files if name.lower().endswith(IMAGE_ENDINGS)]
        if images:
            name = os.path.basename(os.path.abspath(path)) if relative == '.' else relative
            found.append(ImageSequence(name, images, [(image, _FileBytes(image)) for image in images]))
        for file in files:
            if file.lower().endswith(VIDEO_ENDINGS + ARRAY_ENDINGS):
                more, damaged = _find_in_file(os.path.join(folder, file), file if relative == '.' else f'{relative}/{file}', fps)
                found += more
                broken |= damaged
    order = {name: place for place, name in enumerate(natural_sort(recording.name for recording in found))}
    return sorted(found, key=lambda recording: order[recording.name]), broken


def _find_in_file(path: str, name: str, fps: float | None) -> tuple[list[Recording], dict[str, str]]:
    ending = os.path.splitext(path)[1].lower()
    if ending == '.zip':
        return _find_in_zip(path), {}
    if ending in IMAGE_ENDINGS:
        return [ImageSequence(name, [path], [(path, _FileBytes(path))])], {}
    if ending not in ARRAY_ENDINGS:
        return [VideoFile(name, path, fps)], {}
    try:
        return _find_in_array(path, name), {}
    except DamagedVideo as error:
        return [], {name: str(error)}


def _find_in_zip(path: str) -> list[Recording]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not os.path.basename(name).startswith('.')]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f'{path} is not a zip file, or it was cut off: {error}.') from error
    if 'dataset.json' in names and any(name.endswith('.npy') for name in names):
        raise InputError(f'{path} is a latent data set, not videos; --reference=embedding compares with what it renders to.')
    folders: dict[str, list[str]] = {}
    for name in natural_sort(names):
        if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith('__MACOSX/'):
            folders.setdefault(os.path.dirname(name), []).append(name)
    if not folders and any(name.lower().endswith(VIDEO_ENDINGS + ARRAY_ENDINGS) for name in names):
        raise InputError(f'{path}: this zip holds video files or arrays; unpack it and give the folder.')
    archive_bytes = _ZipBytes(path)
    return [
        ImageSequence(folder or _stem(path), [path], [(f'{path}/{name}', archive_bytes.of(name)) for name in folders[folder]])
        for folder in natural_sort(folders)
    ]


def _find_in_array(path: str, name: str) -> list[Recording]:
    try:
        array = _map_npz(path) if path.lower().endswith('.npz') else np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, struct.error) as error:
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
    """The only array of an .npz file, mapped where it is not compressed."""
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith('.npy')]
        if len(members) != 1:
            raise ValueError(f'it holds {len(members)} arrays, and one is needed')
        info = members[0]
        if info.compress_type != zipfile.ZIP_STORED:
            with archive.open(info) as file:
                return np.load(io.BytesIO(file.read()), allow_pickle=False)
    with open(path, 'rb') as raw:
        raw.seek(info.header_offset)  # APPNOTE.TXT 4.3.7: 30 bytes, the name, an extra field
        name_length, extra_length = struct.unpack('<HH', raw.read(30)[26:30])
        raw.seek(info.header_offset + 30 + name_length + extra_length)
        version = np.lib.format.read_magic(raw)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(raw)
        if dtype.hasobject:
            raise ValueError('it holds Python objects')
        return np.memmap(raw, dtype=dtype, mode='r', offset=raw.tell(), shape=shape, order='F' if fortran else 'C')


# ----------------------------------------------------------------------------
# Bytes and images.


class _FileBytes:
    """Reads one file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self) -> bytes:
        with open(self.path, 'rb') as file:
            return file.read()


class _ZipBytes:
    """Reads members of one zip, which stays open."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.archive: zipfile.ZipFile | None = None

    def of(self, name: str) -> Callable[[], bytes]:
        def read() -> bytes:
            if self.archive is None:
                self.archive = zipfile.ZipFile(self.path)
            return self.archive.read(name)

        return read


def _read_bytes(read: Callable[[], bytes], where: str) -> bytes:
    try:
        return read()
    except (zipfile.BadZipFile, RuntimeError, EOFError, NotImplementedError) as error:  # RuntimeError: a password
        raise DamagedVideo(f'{where} cannot be read from the zip: {error}.') from error


def decode_image(read: Callable[[], bytes], where: str) -> np.ndarray:
    """An image as uint8 [H, W, 3]; `where` names it in errors. Raises DamagedVideo."""
    try:
        with PIL.Image.open(io.BytesIO(_read_bytes(read, where))) as image:
            if image.mode in ('I;16', 'I;16B', 'I', 'F'):  # 16 bit grey: Pillow would clip it at 255
                grey = np.rint(np.clip(np.asarray(image, dtype=np.float32) / 257, 0, 255)).astype(np.uint8)
                return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
            return np.asarray(image.convert('RGB'))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DamagedVideo(f'{where} is not an image that can be decoded, or it is cut off: {error}.') from error


def _file_digest(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.digest()


def listing(recordings: Iterable[Recording]) -> list[list[object]]:
    """Path, size, times and inode of every file once: what tells that nothing was touched since."""
    paths = dict.fromkeys(itertools.chain.from_iterable(recording.files for recording in recordings))
    rows: list[list[object]] = []
    for path in paths:
        status = os.stat(path)
        rows.append([os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])
    return rows


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]
