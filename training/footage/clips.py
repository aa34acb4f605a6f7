"""Clips of footage, read as a stream.

A source is one of

* a video file, of any format that ffmpeg decodes,
* an image, or an animation,
* a folder of images (one clip), a folder of such folders (StyleGAN-V's layout), a folder of videos, or any mixture,
* a zip of images in the same layouts.

Sound is ignored. Frames come one at a time, so hours of footage need no more memory than one frame.
"""

import concurrent.futures
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image

from networks.errors import InputError
from training.commands import file_names
from training.commands.progress import report
from training.recordings.finding import find_recordings
from training.recordings.recording import Recording
from training.recordings.source_files import VIDEO_ENDINGS, natural_sort
from training.recordings.still_images import IMAGE_ENDINGS
from training.recordings.video_timing import DEFAULT_RATE

__all__ = [
    'DEFAULT_FPS', 'IMAGE_ENDINGS', 'VIDEO_ENDINGS', 'FootageClip', 'fit', 'natural_sort', 'open_footage', 'with_unique_names',
]  # fmt: skip

DEFAULT_FPS = DEFAULT_RATE  # of images, which do not tell a rate
MOST_WORKERS = 8  # processes of ffmpeg that look at the files of a folder
MOST_NOTES = 8  # sentences about the recordings of a source


@dataclasses.dataclass(frozen=True)
class FootageClip:
    """Frames of one recording, in order."""

    name: str  # unique among the clips that were opened together
    fps: float  # frames per second of what frames() returns
    num_frames: int | None  # exact for images, None for videos
    source: str  # the file or folder
    expected_frames: int | None  # for progress: exact for images, from the time stamps for videos, None if unknown
    open_frames: Callable[[int], Iterator[np.ndarray]] = dataclasses.field(repr=False)  # from a frame number on
    first_frame: int = 0  # where the clip begins in its source, in frames of this rate
    identity: str = ''  # changes when the files do
    cuts: dict[int, str] = dataclasses.field(default_factory=dict, compare=False)  # frames before which something is missing
    notes: tuple[str, ...] = ()  # what a user has to know, without a subject
    complaints: Callable[[], int] = dataclasses.field(default=lambda: 0, repr=False, compare=False)  # of the decoder so far
    # What training.footage.preparation adds: corners of what was cut out, float32 [T, 4, 2], or [1, 4, 2] for all frames,
    # in pixels of the upright frame, whose (width, height) is source_size.
    quads: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)
    source_size: tuple[int, int] | None = None
    look: dict[str, Any] | None = dataclasses.field(default=None, repr=False, compare=False)  # Analysis.look of its frames
    thumbnails: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)  # uint8 [T, 8, 8], of the frames

    def frames(self, first: int = 0) -> Generator[np.ndarray, None, None]:
        """Yield the frames from number `first` on, uint8 `[H, W, 3]` RGB.

        Every call gives the same frames. Their size changes where that of the recording does.

        Raises:
            InputError: A frame cannot be decoded.
        """
        yield from self.open_frames(first)

    def between(self, start: float | None, end: float | None) -> 'FootageClip':
        """Return the part from `start` to `end`, seconds from the beginning; None: its own beginning or end.

        Raises:
            InputError: The part is empty as far as the length is known; otherwise `frames` says so.
        """
        first = 0 if start is None else max(math.ceil(start * self.fps - 1e-6), 0)
        stop = None if end is None else math.ceil(end * self.fps - 1e-6)
        length = self.num_frames if self.num_frames is not None else self.expected_frames
        # A video can have a few frames more than its header promises.
        known_end = None if length is None else length if self.num_frames is not None else length + 2
        if (stop is not None and stop <= first) or (known_end is not None and first >= known_end):
            raise InputError(
                f'{self.source}: no frame lies between {_seconds(start or 0)} and '
                f'{"its end" if end is None else _seconds(end)}'
                f'{"" if length is None else f"; it is {_seconds(length / self.fps)} long"}.'
            )
        count = None if stop is None else stop - first
        if self.num_frames is not None:
            count = min(self.num_frames - first, count if count is not None else self.num_frames)
        expected = None if length is None else max(length - first, 1)
        if count is not None:
            expected = count if expected is None else min(count, expected)
        whole = self.open_frames

        def open_part(begin: int) -> Iterator[np.ndarray]:
            remaining = None if count is None else max(count - begin, 0)
            frame = None
            for frame in itertools.islice(whole(first + begin), remaining):
                yield frame
            if frame is None and begin == 0:
                raise InputError(f'{self.source} ends before {_seconds(first / self.fps)}, so there is no frame to take.')

        return dataclasses.replace(
            self,
            num_frames=count if self.num_frames is not None else None,
            expected_frames=expected,
            open_frames=open_part,
            first_frame=self.first_frame + first,
            cuts={frame - first: reason for frame, reason in self.cuts.items() if frame > first},
            identity=f'{self.identity} {first} {count}',
        )


def open_footage(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    fps: float | None = None,
    keep_damaged: bool = False,
    skip_damaged: bool = False,
    start: float | None = None,
    end: float | None = None,
    say: Callable[[str], None] = report,
) -> list[FootageClip]:
    """Find the clips of one or several sources.

    Args:
        source: Path of a source as in the module's description, or several.
        fps: Videos: frames per second to resample to (None: their own rate, made constant where it varies).
            Images: the rate that they have (None: 25).
        keep_damaged: Take the frames before the damage of a recording that cannot be decoded to its end, and those that a
            decoder has filled up.
        skip_damaged: Leave out recordings that cannot be opened.
        start, end: Take this part of every clip, seconds; None: from its beginning, to its end.
        say: Gets a line for each thing that a user has to know: what was left out, what is special about a recording.

    Returns:
        Clips sorted by name within each source, with unique names. Videos are described, not yet decoded.

    Raises:
        InputError: A source does not exist, holds no frames, or is no image, video, folder or zip of such.
    """
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    clips: list[FootageClip] = []
    for path in sources:
        clips += _open_source(os.fspath(path), fps, keep_damaged, skip_damaged, say)
    if start is not None or end is not None:
        clips = [clip.between(start, end) for clip in clips]
    return with_unique_names(clips)


def _open_source(
    path: str, fps: float | None, keep_damaged: bool, skip_damaged: bool, say: Callable[[str], None]
) -> list[FootageClip]:
    found = find_recordings(path, fps, keep_damaged=keep_damaged)
    broken = dict(found.broken)
    recordings = []
    for recording, reason in zip(found.recordings, describe_all(found.recordings), strict=True):
        if reason is None:
            recordings.append(recording)
        else:
            broken[recording.name] = reason
    if broken:
        first = next(iter(broken.values()))
        if not skip_damaged:
            raise InputError(first)
        if not recordings:
            raise InputError(
                f'{file_names.printable(path)}: none of its {len(broken)} recordings can be opened; the first: {first}'
            )
        for reason in broken.values():
            say(f'Left out: {reason}')
    say_notes(path, recordings, found.left_out.sentence(path), say)
    return [_clip_of(recording, fps) for recording in recordings]


def describe_all(recordings: Sequence[Recording]) -> list[str | None]:
    """Let recordings find out what they are, several at a time; returns why it fails for each, None where it does not."""

    def describe(recording: Recording) -> str | None:
        try:
            recording.describe()
        except InputError as error:
            return str(error)
        return None

    if sum(recording.is_slow for recording in recordings) < 2:
        return [describe(recording) for recording in recordings]
    with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_WORKERS)) as pool:
        return list(pool.map(describe, recordings))


def say_notes(path: str, recordings: Sequence[Recording], left_out: str | None, say: Callable[[str], None]) -> None:
    """Say what is special about recordings, equal sentences once, and what was left out of a source."""
    sources: dict[str, list[str]] = {}
    for recording in recordings:
        for note in recording.notes:
            sources.setdefault(note, []).append(recording.source)
    for note, names in list(sources.items())[:MOST_NOTES]:
        more = f' (and {len(names) - 1} more)' if len(names) > 1 else ''
        say(f'Note: {names[0]}{more}: {note}.')
    if len(sources) > MOST_NOTES:
        say(f'Note: {len(sources) - MOST_NOTES} more notes are in the report.')
    if left_out:
        say(f'Note: {left_out}.')


def _clip_of(recording: Recording, fps: float | None) -> FootageClip:
    return FootageClip(
        name=recording.name,
        fps=recording.fps or fps or DEFAULT_FPS,
        num_frames=None if recording.is_slow or recording.keep_damaged else recording.expected,
        source=recording.source,
        expected_frames=recording.expected,
        open_frames=recording.stream,
        identity=f'{recording.identity()} {recording.fps or fps or DEFAULT_FPS}',
        cuts=recording.cuts(),
        notes=tuple(recording.notes),
        complaints=recording.complaints,
    )


def fit(frame: np.ndarray, resolution: int) -> np.ndarray:
    """Make a frame square: cut out the centre, then resize.

    A side that is a whole multiple of `resolution` is averaged over k x k pixels (area, rounded once); any other
    size goes through Pillow's Lanczos filter, which is widened with the reduction and so does not alias.

    Args:
        frame: uint8 `[H, W, 3]`.
        resolution: Pixels of the result's side.

    Returns:
        uint8 `[resolution, resolution, 3]`.
    """
    height, width, channels = frame.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frame[top : top + side, left : left + side]
    if side == resolution:
        return np.ascontiguousarray(square)
    if side % resolution == 0:
        factor = side // resolution
        blocks = square.reshape(resolution, factor, resolution, factor, channels)
        return np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    image = PIL.Image.fromarray(np.ascontiguousarray(square))
    return np.asarray(image.resize((resolution, resolution), PIL.Image.Resampling.LANCZOS))


def resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a frame uint8 `[H, W, 3]` to another (width, height)."""
    if (frame.shape[1], frame.shape[0]) == size:
        return frame
    return np.asarray(PIL.Image.fromarray(frame).resize(size, PIL.Image.Resampling.LANCZOS))


def _seconds(time: float) -> str:
    return f'{time:g} s' if time < 60 else f'{int(time // 3600)}:{int(time // 60 % 60):02d}:{time % 60:06.3f}'


def with_unique_names(clips: Iterable[FootageClip]) -> list[FootageClip]:
    """Number names that occur more than once."""
    clips = list(clips)
    names = file_names.unique_names(clip.name for clip in clips)
    return [dataclasses.replace(clip, name=name) for clip, name in zip(clips, names, strict=True)]
