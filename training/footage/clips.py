"""Footage: recordings as clips of frames, read as a stream.

A source is one of

* a video file, of any format that ffmpeg decodes,
* a folder of images (one clip), a folder of such folders (StyleGAN-V's layout), a folder of videos, or any mixture,
* a zip of images in the same layouts.

Sound is ignored. Frames come one at a time, so hours of footage need no more memory than one frame.
"""

import dataclasses
import hashlib
import io
import itertools
import math
import os
import re
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import numpy as np
import PIL.Image

from networks.errors import InputError
from training.footage.ffmpeg_input import decode_video, describe_video

IMAGE_ENDINGS = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff', '.ppm')
VIDEO_ENDINGS = (
    '.mp4',
    '.mov',
    '.m4v',
    '.mkv',
    '.webm',
    '.avi',
    '.mpg',
    '.mpeg',
    '.ts',
    '.mts',
    '.m2ts',
    '.wmv',
    '.flv',
    '.ogv',
    '.3gp',
    '.gif',
    '.h264',
    '.264',
    '.hevc',
    '.h265',
    '.y4m',
    '.mxf',
    '.vob',
)
DEFAULT_FPS = 25.0  # of images, which do not tell a rate


@dataclasses.dataclass(frozen=True)
class FootageClip:
    """Frames of one recording, in order."""

    name: str  # unique among the clips that were opened together
    fps: float  # frames per second of what frames() returns
    num_frames: int | None  # exact for images, None for videos
    source: str  # the file or folder
    expected_frames: int | None  # for progress: exact for images, duration times rate for videos, None if unknown
    open_frames: Callable[[int], Iterator[np.ndarray]] = dataclasses.field(repr=False)  # from a frame number on
    first_frame: int = 0  # where the clip begins in its source, in frames of this rate
    identity: str = ''  # changes when the files do
    # What training.footage.preparation adds: corners of what was cut out, float32 [T, 4, 2], or [1, 4, 2] for all frames,
    # in pixels of the upright frame, whose (width, height) is source_size.
    quads: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)
    source_size: tuple[int, int] | None = None

    def frames(self, first: int = 0) -> Generator[np.ndarray, None, None]:
        """Yield the frames from number `first` on, uint8 `[H, W, 3]` RGB, all of one size.

        Every call gives the same frames.

        Raises:
            InputError: A frame cannot be decoded, or has another size than the first one.
        """
        size = None
        for index, frame in enumerate(self.open_frames(first), start=first):
            if size is not None and frame.shape != size:
                raise InputError(
                    f'{self.source}: frame {index} has {frame.shape[1]}x{frame.shape[0]} pixels, the first one '
                    f'{size[1]}x{size[0]}; frames of one clip must have one size.'
                )
            size = frame.shape
            yield frame

    def between(self, start: float | None, end: float | None) -> 'FootageClip':
        """The part from `start` to `end`, seconds from the beginning; None: its own beginning or end.

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
                f'{self.source}: no frame lies between {_seconds(start or 0)} and {"its end" if end is None else _seconds(end)}'
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
            identity=f'{self.identity} {first} {count}',
        )


def open_footage(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    fps: float | None = None,
    keep_damaged: bool = False,
    start: float | None = None,
    end: float | None = None,
) -> list[FootageClip]:
    """Find the clips of one or several sources.

    Args:
        source: Path of a source as in the module's description, or several.
        fps: Videos: frames per second to resample to (None: their own rate, made constant where it varies).
            Images: the rate that they have (None: 25).
        keep_damaged: Take the frames before the damage of a video that cannot be decoded to its end.
        start, end: Take this part of every clip, seconds; None: from its beginning, to its end.

    Returns:
        Clips sorted by name within each source, with unique names. Videos are described, not yet decoded.

    Raises:
        InputError: A source does not exist, holds no frames, or is no image, video, folder or zip of such.
    """
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if fps is not None and not (np.isfinite(fps) and 0 < fps <= 1000):
        raise InputError(f'{fps} frames per second is not a rate; give a number above 0 and up to 1000.')
    clips: list[FootageClip] = []
    for path in sources:
        clips += _open_source(os.fspath(path), fps, keep_damaged)
    if start is not None or end is not None:
        clips = [clip.between(start, end) for clip in clips]
    return with_unique_names(clips)


def fit(frame: np.ndarray, resolution: int) -> np.ndarray:
    """Make a frame square: cuts out the centre, then resizes.

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


# ----------------------------------------------------------------------------
# Sources.


def _open_source(path: str, fps: float | None, keep_damaged: bool) -> list[FootageClip]:
    if re.match(r'^[a-z][a-z0-9+.-]+://', path, re.IGNORECASE):
        raise InputError(f'{path} is an address; download the recording first and give the file.')
    if os.path.isdir(path):
        return _open_folder(path, fps, keep_damaged)
    if not os.path.exists(path):
        raise InputError(f'{path}: there is no such file or folder.')
    ending = os.path.splitext(path)[1].lower()
    if ending == '.zip':
        return _open_zip(path, fps)
    if ending in IMAGE_ENDINGS:
        return [_image_clip(_stem(path), path, [path], fps)]
    return [_video_clip(_stem(path), path, fps, keep_damaged)]


def _open_folder(path: str, fps: float | None, keep_damaged: bool) -> list[FootageClip]:
    clips = []
    for folder, subfolders, files in os.walk(path, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith('.'))
        files = natural_sort(name for name in files if not name.startswith('.'))
        relative = os.path.relpath(folder, path).replace(os.sep, '/')
        images = [os.path.join(folder, name) for name in files if name.lower().endswith(IMAGE_ENDINGS)]
        if images:
            name = os.path.basename(os.path.abspath(path)) if relative == '.' else relative
            clips.append(_image_clip(name, folder, images, fps))
        for file in files:
            if file.lower().endswith(VIDEO_ENDINGS):
                name = _stem(file) if relative == '.' else f'{relative}/{_stem(file)}'
                clips.append(_video_clip(name, os.path.join(folder, file), fps, keep_damaged))
    if not clips:
        raise InputError(f'{path}: neither images nor videos are in this folder, so there are no frames.')
    return sorted(clips, key=lambda clip: _natural_key(clip.name))


def _open_zip(path: str, fps: float | None) -> list[FootageClip]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not os.path.basename(name).startswith('.')]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f'{path} is not a zip file, or it was cut off: {error}.') from error
    folders: dict[str, list[str]] = {}
    for name in natural_sort(names):
        if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith('__MACOSX/'):
            folders.setdefault(os.path.dirname(name), []).append(name)
    if not folders:
        if any(name.lower().endswith(VIDEO_ENDINGS) for name in names):
            raise InputError(f'{path}: this zip holds videos; unpack it and give the folder.')
        if 'dataset.json' in names and any(name.endswith('.npy') for name in names):
            raise InputError(f'{path} is a latent data set already; it needs no embedding.')
        raise InputError(f'{path}: no images are in this zip, so there are no frames.')

    clips = []
    for folder in natural_sort(folders):
        members = folders[folder]
        clips.append(
            FootageClip(
                name=folder or _stem(path),
                fps=fps or DEFAULT_FPS,
                num_frames=len(members),
                expected_frames=len(members),
                source=f'{path}/{folder}' if folder else path,
                open_frames=_ZipFrames(path, members),
                identity=f'{_file_identity([path])} {fps or DEFAULT_FPS}',
            )
        )
    return clips


def _image_clip(name: str, source: str, files: Sequence[str], fps: float | None) -> FootageClip:
    return FootageClip(
        name=name,
        fps=fps or DEFAULT_FPS,
        num_frames=len(files),
        source=source,
        expected_frames=len(files),
        open_frames=lambda first: map(_read_image_file, files[first:]),
        identity=f'{_file_identity(files)} {fps or DEFAULT_FPS}',
    )


def _video_clip(name: str, path: str, fps: float | None, keep_damaged: bool) -> FootageClip:
    description = describe_video(path)
    rate = fps or description.fps
    expected = description.expected_frames
    if expected is not None:
        expected = max(round(expected * rate / description.fps), 1)
    return FootageClip(
        name=name,
        fps=rate,
        num_frames=None,
        source=path,
        expected_frames=expected,
        open_frames=lambda first: decode_video(
            path, fps=rate, first_frame=first, expected_frames=expected, keep_damaged=keep_damaged
        ),
        identity=f'{_file_identity([path])} {rate}',
    )


class _ZipFrames:
    """Opens the zip for one pass over some of its images."""

    def __init__(self, path: str, members: Sequence[str]) -> None:
        self.path, self.members = path, members

    def __call__(self, first: int) -> Iterator[np.ndarray]:
        with zipfile.ZipFile(self.path) as archive:
            for name in self.members[first:]:
                where = f'{self.path}/{name}'
                try:
                    data = archive.read(name)
                except (zipfile.BadZipFile, RuntimeError, EOFError) as error:  # RuntimeError: it asks for a password
                    raise InputError(f'{where} cannot be read from the zip: {error}.') from error
                yield _decode_image(io.BytesIO(data), where)


# ----------------------------------------------------------------------------
# Images and names.


def _read_image_file(path: str) -> np.ndarray:
    return _decode_image(path, path)


def _decode_image(file: str | io.BytesIO, where: str) -> np.ndarray:
    try:
        with PIL.Image.open(file) as image:
            if image.mode in ('I;16', 'I;16B', 'I', 'F'):  # 16 bit grey: Pillow would clip it at 255
                values = np.asarray(image, dtype=np.float32)
                grey = np.rint(np.clip(values / 257, 0, 255)).astype(np.uint8)
                return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
            return np.asarray(image.convert('RGB'))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InputError(f'{where} is not an image that can be decoded, or it is cut off: {error}.') from error


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    # frame2 comes before frame10.
    return [(0, int(part), '') if part.isdigit() else (1, 0, part) for part in re.split(r'(\d+)', name) if part]


def natural_sort(names: Iterable[str]) -> list[str]:
    """Sort names so that numbers in them count as numbers."""
    return sorted(names, key=lambda name: (_natural_key(name), name))


def _file_identity(files: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for path in files:
        status = os.stat(path)
        digest.update(f'{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}\n'.encode())
    return digest.hexdigest()


def _seconds(time: float) -> str:
    return f'{time:g} s' if time < 60 else f'{int(time // 3600)}:{int(time // 60 % 60):02d}:{time % 60:06.3f}'


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def with_unique_names(clips: Iterable[FootageClip]) -> list[FootageClip]:
    """Number names that occur more than once."""
    taken: set[str] = set()
    result = []
    for clip in clips:
        name, number = clip.name, 2
        while name in taken:
            name, number = f'{clip.name}-{number}', number + 1
        taken.add(name)
        result.append(dataclasses.replace(clip, name=name))
    return result
