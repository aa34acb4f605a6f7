"""Recordings as they lie on the disk: video files, folders and zips of images, animations, arrays.

This is the one reader of all commands.
A recording gives its frames from any number on, its length, the digest of its bytes, and says what is wrong with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from networks.checkpoints import zip_entries
from networks.checkpoints.digests import sha256_of_file
from networks.errors import DamagedVideo, InputError, option
from training.commands import file_names
from training.recordings import ffmpeg_input, source_files, still_images
from training.recordings.source_files import LeftOut, natural_key, natural_sort
from training.recordings.video_timing import DEFAULT_RATE, Timing, exact_rate, measure_timing, resample

__all__ = [
    'ARRAY_ENDINGS', 'AnimatedImage', 'ArrayVideo', 'Found', 'ImageSequence', 'Recording', 'VideoFile', 'find_recordings',
    'listing', 'natural_sort',
]  # fmt: skip

ARRAY_ENDINGS = ('.npy', '.npz')
SHORT_GAP = 3  # missing frame numbers up to here are a jump within a clip, more end it

# ----------------------------------------------------------------------------------------------------------------------


class Recording:
    """One recording.

    Attributes:
        name: What it is called within its set, without the ending of its file.
        file_name: The same with the ending.
        source: The file or folder, as messages call it.
        files: Paths that hold it.
        fps: Frames per second of what it gives; None where the files do not tell.
        expected: Frames that it promises to have, None where that is not known.
        notes: What a user has to know, one sentence each, without a subject.
        keep_damaged: Give the frames before a damage, and those that a decoder has filled up, without an error.
    """

    is_slow: ClassVar[bool] = False  # whether its length needs decoding

    def __init__(self, name: str, source: str, files: Sequence[str], fps: float | None = None) -> None:
        self.name = self.file_name = file_names.printable(name)
        self.source = file_names.printable(source)
        self.files, self.fps = files, fps
        self.expected: int | None = None
        self.notes: list[str] = []
        self.keep_damaged = False

    def describe(self) -> None:
        """Find out rate, expected length and notes. Raises DamagedVideo."""

    def stream(self, first: int = 0) -> Iterator[np.ndarray]:
        """Yield the frames from number `first` on, uint8 `[H, W, 3]`. Raises DamagedVideo."""
        raise NotImplementedError

    def count_frames(self) -> int:
        """Return the exact length in frames. Raises DamagedVideo."""
        raise NotImplementedError

    def cuts(self) -> dict[int, str]:
        """Return the frames before which something is missing, with a sentence on each."""
        return {}

    def complaints(self) -> int:
        """Return how often the decoder has complained so far."""
        return 0

    def frames(self, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        """Yield frames of ascending numbers, to the end at most. Raises DamagedVideo."""
        numbers = iter(wanted)
        number = next(numbers, None)
        if number is None:
            return
        for position, frame in enumerate(self.stream()):
            if position == number:
                yield frame
                number = next(numbers, None)
                if number is None:  # without this the next frame would be decoded, and perhaps be the damaged one
                    return

    def digest(self) -> str:
        """Return the SHA-256 digest of the bytes that the frames come from, in their order."""
        total = hashlib.sha256()
        for path in self.files:
            total.update(bytes.fromhex(sha256_of_file(path)))
        return total.hexdigest()

    def identity(self) -> str:
        """Return what changes when the files do."""
        digest = hashlib.sha256()
        for path in self.files:
            status = os.stat(path)
            about = f'{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}\n'
            digest.update(about.encode('utf-8', 'surrogateescape'))
        return f'{digest.hexdigest()} {self.file_name} {self.fps}'


class VideoFile(Recording):
    """A file that ffmpeg decodes.

    Args:
        fps: Frames per second to resample to; None keeps those of the file, which `describe` finds out.
    """

    is_slow = True

    def __init__(self, name: str, path: str, fps: float | None = None) -> None:
        super().__init__(name, path, [path], fps)
        self.path = path
        self._asked = fps
        self._heard = ffmpeg_input.Complaints()

    def describe(self) -> None:
        about = self._about()
        self.fps = float(exact_rate(about.fps if self._asked is None else self._asked))
        self.expected = about.timing.num_frames(self.fps)
        self.notes = [*about.notes, *about.timing.notes(self._asked)]

    def stream(self, first: int = 0) -> Iterator[np.ndarray]:
        if self.fps is None:
            self.describe()
        self._heard = ffmpeg_input.Complaints()
        try:
            yield from ffmpeg_input.decode_video(
                self.path, fps=self.fps, first_frame=first, keep_damaged=self.keep_damaged, complaints=self._heard
            )
        except InputError as error:
            raise DamagedVideo(file_names.printable(str(error))) from error

    def count_frames(self) -> int:
        self.describe()
        return sum(1 for _ in self.stream())

    def cuts(self) -> dict[int, str]:
        return self._about().timing.cuts(self.fps or DEFAULT_RATE)

    def complaints(self) -> int:
        return self._heard.lines

    def _about(self) -> ffmpeg_input.VideoDescription:
        try:
            return ffmpeg_input.describe_video(self.path)
        except InputError as error:
            raise DamagedVideo(file_names.printable(str(error))) from error


class ImageSequence(Recording):
    """Images, one a frame.

    Args:
        files: Files on the disk that hold the images.
        images: (name for errors, function that reads the bytes) of each frame.
    """

    def __init__(self, name: str, source: str, files: Sequence[str], images: Sequence[tuple[str, _Bytes]]) -> None:
        super().__init__(name, source, files)
        self.images = images
        self.expected = len(images)
        gaps = source_files.number_gaps([where for where, _ in images])
        self._cuts = {gap.position: f'frames {gap.first} to {gap.last} are missing' for gap in gaps if gap.missing > SHORT_GAP}
        if gaps:
            missing = sum(gap.missing for gap in gaps)
            self.notes.append(
                f'{missing} numbers are missing among its frames, the first is {gaps[0].first}'
                + ('; clips end at gaps' if self._cuts else '')
            )

    def describe(self) -> None:
        where, read = self.images[0]
        try:
            self.notes += [
                note for note in still_images.image_notes(io.BytesIO(_read_bytes(read, where))) if note not in self.notes
            ]
        except DamagedVideo:
            return  # it is met again when the frame is read

    def stream(self, first: int = 0) -> Iterator[np.ndarray]:
        return self.frames(itertools.count(first))

    def count_frames(self) -> int:
        return len(self.images)

    def cuts(self) -> dict[int, str]:
        return self._cuts

    def frames(self, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        for number in wanted:
            if number >= len(self.images):
                return
            where, read = self.images[number]
            try:
                frame = still_images.decode_image(io.BytesIO(_read_bytes(read, where)), where)
            except DamagedVideo:
                if self.keep_damaged and number > 0:
                    return
                raise
            yield frame

    def digest(self) -> str:
        total = hashlib.sha256()
        for where, read in self.images:
            try:
                data = _read_bytes(read, where)
            except DamagedVideo:
                if self.keep_damaged:
                    break
                raise
            total.update(hashlib.sha256(data).digest())
        return total.hexdigest()


class AnimatedImage(Recording):
    """An image file with several pictures: animated WebP, PNG or AVIF, TIFF of several pages.

    Args:
        read: Function that reads the bytes.
        times: Time stamps of the pictures in seconds, None where the file tells none.
        count: Number of pictures.
        last_seconds: How long the last picture is shown.
        fps: Rate to resample to, None: its own.
    """

    def __init__(
        self,
        name: str,
        source: str,
        path: str,
        read: _Bytes,
        *,
        count: int,
        times: list[float] | None,
        last_seconds: float,
        fps: float | None,
    ) -> None:
        super().__init__(name, source, [path])
        self._read, self._count = read, count
        self._timing: Timing | None = None
        self.expected = count
        if times is not None:
            self._timing = measure_timing(times, last_seconds=last_seconds)
            self.fps = float(exact_rate(fps or self._timing.fps))
            self.expected = self._timing.num_frames(self.fps)
            self.notes = self._timing.notes(fps)

    def stream(self, first: int = 0) -> Iterator[np.ndarray]:
        data = io.BytesIO(_read_bytes(self._read, self.source))
        pictures = still_images.decode_animation(data, self.source)
        if self.keep_damaged:
            pictures = _up_to_damage(pictures)
        if self._timing is None:
            return (picture for number, (_, picture) in enumerate(pictures) if number >= first)
        assert self.fps is not None
        return resample(pictures, self._timing, self.fps, first)

    def count_frames(self) -> int:
        return sum(1 for _ in self.stream())

    def cuts(self) -> dict[int, str]:
        return self._timing.cuts(self.fps) if self._timing is not None and self.fps is not None else {}

    def digest(self) -> str:
        return hashlib.sha256(_read_bytes(self._read, self.source)).hexdigest()


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


def _up_to_damage(pictures: Iterator[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
    count = 0
    try:
        for picture in pictures:
            count += 1
            yield picture
    except DamagedVideo:
        if count == 0:
            raise


# ----------------------------------------------------------------------------------------------------------------------
# Finding


@dataclasses.dataclass
class Found:
    """What a source holds.

    Attributes:
        recordings: Sorted by name, so that numbers count as numbers.
        broken: Name -> reason of recordings that cannot be opened.
        left_out: Files that are none.
    """

    recordings: list[Recording] = dataclasses.field(default_factory=list)
    broken: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: LeftOut = dataclasses.field(default_factory=LeftOut)


def find_recordings(path: str, fps: float | None = None, *, arrays: bool = False, keep_damaged: bool = False) -> Found:
    """Find the recordings of a file, folder or zip.

    A folder with images is one recording, a folder of such folders (or a zip of them) one each; video files, animations and
    arrays are found at any depth. Hidden and system folders are left alone, and links are followed, to every folder once.

    Args:
        path: What the user gave.
        fps: Rate that videos and animations are resampled to, None: their own.
        arrays: Whether `.npy` and `.npz` files of `[N, T, H, W, 3]` or `[T, H, W, 3]` are videos; else they are left out.
        keep_damaged: As of `Recording`.

    Raises:
        InputError: Nothing of this kind is there.
    """
    if fps is not None and not (math.isfinite(fps) and 0 < fps <= 1000):
        raise InputError(f'{fps} frames per second is not a rate; give a number above 0 and up to 1000.')
    if re.match(r'^[a-z][a-z0-9+.-]+://', path, re.IGNORECASE):
        raise InputError(f'{path} is an address; download the recording first and give the file.')
    if not os.path.exists(path):
        if os.path.islink(path):
            raise InputError(f'{path} is a link to {os.readlink(path)!r}, which is not there.')
        raise InputError(f'{path}: there is no such file or folder.')
    found = _Finder(fps, arrays).find(path)
    for recording in found.recordings:
        recording.keep_damaged = keep_damaged
    return found


class _Finder:
    def __init__(self, fps: float | None, arrays: bool) -> None:
        self.fps, self.arrays = fps, arrays
        self.found = Found()

    def find(self, path: str) -> Found:
        if os.path.isdir(path):
            self._folder(path)
            what = f'neither images nor videos{" nor arrays (.npy, .npz)" if self.arrays else ""} are in this folder'
        else:
            self._file(path, file_names.stem(path))
            what = 'no images are in this zip'
        found = self.found
        if not found.recordings and not found.broken:
            left_out = found.left_out.sentence(path)
            raise InputError(
                f'{file_names.printable(path)}: {what}, so there {"is nothing to compare" if self.arrays else "are no frames"}'
                f'{" (" + left_out.split(": ", 1)[1] + ")" if left_out else ""}.'
            )
        found.recordings.sort(key=lambda recording: natural_key(recording.name))
        return found

    def _folder(self, path: str) -> None:
        for folder, relative, names in source_files.walk(path, self.found.left_out):
            videos = [name for name in names if source_files.is_video(name)]
            covers = {file_names.stem(name) for name in videos}
            images = []
            for name in names:
                if source_files.is_image(name):
                    if file_names.stem(name) in covers:
                        self.found.left_out.add(name, 'the cover of a video')
                    else:
                        images.append(name)
                elif name not in videos and not self._is_array(name) and not _is_ours(name):
                    self.found.left_out.add(name, source_files.why_left_out(name))
            name = relative or os.path.basename(os.path.abspath(path))
            self._images(
                name, folder, [(os.path.join(folder, image), _FileBytes(os.path.join(folder, image))) for image in images]
            )
            for file in names:
                if file in videos:
                    self._file(os.path.join(folder, file), *self._names(relative, file))
                elif self._is_array(file) and not _is_ours(file):
                    try:
                        self._file(os.path.join(folder, file), *self._names(relative, file))
                    except InputError:
                        self.found.left_out.add(file, 'no videos, which are uint8 [N, T, H, W, 3] or [T, H, W, 3]')

    def _is_array(self, name: str) -> bool:
        return self.arrays and name.lower().endswith(ARRAY_ENDINGS)

    def _names(self, relative: str, file: str) -> tuple[str, str]:
        """Name of a file below a folder without its ending, and with it."""
        name = f'{relative}/{file}' if relative else file
        return os.path.splitext(name)[0], name

    def _file(self, path: str, inner: str, name: str | None = None) -> None:
        name = name or inner
        ending = os.path.splitext(path)[1].lower()
        if ending == '.zip' or (not source_files.is_video(path) and ending not in ARRAY_ENDINGS and zipfile.is_zipfile(path)):
            self._zip(path)
        elif source_files.is_image(path):
            self._images(inner, path, [(path, _FileBytes(path))], file_name=name)
        elif self._is_array(path):
            try:
                self.found.recordings += _find_in_array(path, name)
            except DamagedVideo as error:
                self.found.broken[file_names.printable(name)] = str(error)
        elif source_files.why_left_out(path):
            raise InputError(f'{file_names.printable(path)} cannot be read: {source_files.why_left_out(path)}.')
        else:
            video = VideoFile(inner, path, self.fps)
            video.file_name = file_names.printable(name)
            self.found.recordings.append(video)

    def _zip(self, path: str) -> None:
        with source_files.open_zip(path) as archive:
            members = source_files.zip_members(archive)
        if any(os.path.basename(name) == 'dataset.json' for name in members) and any(name.endswith('.npy') for name in members):
            raise InputError(
                f'{path} is a latent data set, not videos; '
                + (
                    f'{option("reference", "embedding")} compares with what it renders to.'
                    if self.arrays
                    else 'it needs no embedding.'
                )
            )
        folders: dict[str, list[str]] = {}
        others = []
        for name in natural_sort(members):
            if source_files.is_image(name):
                folders.setdefault(os.path.dirname(name), []).append(name)
            elif source_files.is_video(name) or self._is_array(name):
                others.append(name)
            else:
                self.found.left_out.add(name, source_files.why_left_out(name))
        if others and not folders:
            raise InputError(
                f'{path}: this zip holds {"video files or arrays" if self.arrays else "videos"}; unpack it and give the folder.'
            )
        for name in others:
            self.found.left_out.add(name, 'in a zip; unpack it')
        container = _OpenZip(path)
        for folder in natural_sort(folders):
            images = [(f'{path}/{name}', _MemberBytes(container, members[name])) for name in folders[folder]]
            self._images(folder or file_names.stem(path), f'{path}/{folder}' if folder else path, images, files=[path])

    def _images(
        self,
        name: str,
        source: str,
        images: Sequence[tuple[str, _Bytes]],
        *,
        files: Sequence[str] | None = None,
        file_name: str | None = None,
    ) -> None:
        """Add a sequence of images, and the animations among them."""
        doubles = source_files.same_frames([where for where, _ in images])
        stills = []
        for where, read in images:
            if where in doubles:
                kept = os.path.splitext(doubles[where])[1]
                self.found.left_out.add(where, f'the same frames as {kept}')
                continue
            animation = self._animation(name, where, read, files, alone=len(images) == 1)
            if animation is not None:
                self.found.recordings.append(animation)
            else:
                stills.append((where, read))
        if stills:
            sequence = ImageSequence(name, source, files or [where for where, _ in stills], stills)
            sequence.file_name = file_names.printable(file_name or name)
            self.found.recordings.append(sequence)

    def _animation(
        self, name: str, where: str, read: _Bytes, files: Sequence[str] | None, *, alone: bool
    ) -> AnimatedImage | None:
        if not where.lower().endswith(still_images.ANIMATED_ENDINGS):
            return None
        try:
            if not still_images.may_be_animated(where, _read_bytes(lambda: read.head(still_images.HEAD_BYTES), where)):
                return None
            count, times, last = still_images.animation_times(io.BytesIO(_read_bytes(read, where)), where)
        except DamagedVideo:
            return None  # it is met again when the frame is read
        if count < 2:
            return None
        stem = file_names.stem(where)
        inner = stem if alone else f'{name}/{stem}'
        return AnimatedImage(
            inner, where, files[0] if files else where, read, count=count, times=times, last_seconds=last, fps=self.fps
        )


def _is_ours(name: str) -> bool:
    """Whether align_video.py has written this file beside its clips."""
    return name == 'quads.npy' or name.endswith('.quads.npy') or name == 'preparation.json'


def _find_in_array(path: str, name: str) -> list[Recording]:
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False) if path.lower().endswith('.npy') else _map_npz(path)
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


# ----------------------------------------------------------------------------------------------------------------------
# Bytes


class _Bytes:
    """What holds one image, to be read when it is asked for."""

    def head(self, count: int) -> bytes:
        """Return the first bytes."""
        raise NotImplementedError

    def __call__(self) -> bytes:
        raise NotImplementedError


class _FileBytes(_Bytes):
    def __init__(self, path: str) -> None:
        self.path = path

    def head(self, count: int) -> bytes:
        with open(self.path, 'rb') as file:
            return file.read(count)

    def __call__(self) -> bytes:
        with open(self.path, 'rb') as file:
            return file.read()


class _OpenZip:
    """A zip that stays open once something was read from it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None

    def archive(self) -> zipfile.ZipFile:
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
        return self._archive


class _MemberBytes(_Bytes):
    def __init__(self, container: _OpenZip, info: zipfile.ZipInfo) -> None:
        self.container, self.info = container, info

    def head(self, count: int) -> bytes:
        with self.container.archive().open(self.info) as file:
            return file.read(count)

    def __call__(self) -> bytes:
        return self.container.archive().read(self.info)


def _read_bytes(read: Callable[[], bytes], where: str) -> bytes:
    try:
        data = read()
    except (zipfile.BadZipFile, RuntimeError, EOFError, NotImplementedError, zlib.error) as error:  # RuntimeError: a password
        raise DamagedVideo(f'{where} cannot be read from the zip: {error}.') from error
    if data.startswith(b'version https://git-lfs'):
        raise DamagedVideo(f'{where} is a pointer of Git LFS, not the image itself; fetch it with "git lfs pull".')
    return data


def listing(recordings: Iterable[Recording]) -> list[list[object]]:
    """Return path, size, times and inode of every file once: what tells that nothing was touched since."""
    paths = dict.fromkeys(itertools.chain.from_iterable(recording.files for recording in recordings))
    rows: list[list[object]] = []
    for path in paths:
        status = os.stat(path)
        rows.append([os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])
    return rows
