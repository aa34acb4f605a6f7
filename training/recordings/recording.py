"""Recordings as they lie on the disk: video files, sequences of images, animations.

This is the one reader of all commands. `training.recordings.finding` says which recordings a file or folder holds.
A recording gives its frames from any number on, its length, the digest of its bytes, and says what is wrong with it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from networks.checkpoints.digests import sha256_of_file
from networks.errors import DamagedVideo, InputError
from training.commands import file_names
from training.recordings import source_files, still_images
from training.recordings.ffmpeg_input import decode_video
from training.recordings.ffmpeg_process import Complaints
from training.recordings.image_bytes import ImageBytes, read_image
from training.recordings.video_description import VideoDescription, describe_video
from training.recordings.video_timing import DEFAULT_RATE, Timing, exact_rate, measure_timing, resample

SHORT_GAP = 3  # missing frame numbers up to here are a jump within a clip, more end it


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
        self._heard = Complaints()

    def describe(self) -> None:
        about = self._about()
        self.fps = float(exact_rate(about.fps if self._asked is None else self._asked))
        self.expected = about.timing.num_frames(self.fps)
        self.notes = [*about.notes, *about.timing.notes(self._asked)]

    def stream(self, first: int = 0) -> Iterator[np.ndarray]:
        if self.fps is None:
            self.describe()
        self._heard = Complaints()
        try:
            yield from decode_video(
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

    def _about(self) -> VideoDescription:
        try:
            return describe_video(self.path)
        except InputError as error:
            raise DamagedVideo(file_names.printable(str(error))) from error


class ImageSequence(Recording):
    """Images, one a frame.

    Args:
        files: Files on the disk that hold the images.
        images: (name for errors, function that reads the bytes) of each frame.
    """

    def __init__(self, name: str, source: str, files: Sequence[str], images: Sequence[tuple[str, ImageBytes]]) -> None:
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
                note for note in still_images.image_notes(io.BytesIO(read_image(read, where))) if note not in self.notes
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
                frame = still_images.decode_image(io.BytesIO(read_image(read, where)), where)
            except DamagedVideo:
                if self.keep_damaged and number > 0:
                    return
                raise
            yield frame

    def digest(self) -> str:
        total = hashlib.sha256()
        for where, read in self.images:
            try:
                data = read_image(read, where)
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
        read: ImageBytes,
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
        data = io.BytesIO(read_image(self._read, self.source))
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
        return hashlib.sha256(read_image(self._read, self.source)).hexdigest()


def _up_to_damage(pictures: Iterator[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
    count = 0
    try:
        for picture in pictures:
            count += 1
            yield picture
    except DamagedVideo:
        if count == 0:
            raise


def listing(recordings: Iterable[Recording]) -> list[list[object]]:
    """Return path, size, times and inode of every file once: what tells that nothing was touched since."""
    paths = dict.fromkeys(itertools.chain.from_iterable(recording.files for recording in recordings))
    rows: list[list[object]] = []
    for path in paths:
        status = os.stat(path)
        rows.append([os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])
    return rows
