"""Sets of videos that metrics compare: recorded ones here, rendered and generated ones in training.videos.rendered_videos.

Metrics construct them from keyword arguments with `class_name='training.videos.recorded_videos.RecordedVideos'` and so on.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

import dnnlib
from metrics.inputs.video_set import VideoSet, same_rate
from networks.checkpoints.durable_files import replacing
from networks.errors import DAMAGED_FILE, DamagedVideo, InputError, option
from training.commands import command_line
from training.footage.clips import DEFAULT_FPS, fit, say_notes
from training.latents.dataset import is_latent_dataset
from training.recordings.finding import Found, find_recordings
from training.recordings.recording import Recording, listing
from training.videos.rendered_videos import EmbeddedVideos, GeneratedVideos

__all__ = [
    'DamagedVideo',
    'EmbeddedVideos',
    'GeneratedVideos',
    'RecordedVideos',
    'VideoSet',
    'open_shared',
    'open_video_set',
    'source_kwargs',
]

SETTLED_SECONDS = 2.0  # a file changed later than this ago could change again within one tick of its time stamp
SURVEY_VERSION = 2
MOST_NAMED = 5  # names in one sentence

_PLAIN = (str, int, float, bool, type(None), os.PathLike)
_shared: dict[Any, tuple[VideoSet, dict[str, Any]]] = {}


def open_video_set(source: Any) -> VideoSet:
    """A set from its keyword arguments (`class_name` and more), or the set itself."""
    return source if isinstance(source, VideoSet) else dnnlib.util.construct_class_by_name(**source)


def open_shared(kind: str, **kwargs: Any) -> VideoSet:
    """A set of videos, opened once for equal arguments, so that several metrics share it.

    Args:
        kind: Class in this module.
        kwargs: Of its constructor.
    """
    key = (kind, *sorted((name, repr(value) if isinstance(value, _PLAIN) else id(value)) for name, value in kwargs.items()))
    if key not in _shared:
        _shared[key] = globals()[kind](**kwargs), kwargs  # kept, so that no other object gets the identity of one of them
    return _shared[key][0]


def source_kwargs(path: str, *, recorded: dict[str, Any], rendered: dict[str, Any]) -> dict[str, Any]:
    """Arguments for open_shared of what a path holds: a latent data set is rendered, anything else is recorded video.

    Args:
        path: File or folder.
        recorded: Further arguments of RecordedVideos.
        rendered: Further arguments of EmbeddedVideos.
    """
    if is_latent_dataset(path):
        return {'kind': 'EmbeddedVideos', 'path': path, **rendered}
    return {'kind': 'RecordedVideos', 'path': path, **recorded}


class RecordedVideos(VideoSet):
    """Videos on the disk: files, folders and zips of frames, arrays; see training.recordings.finding.find_recordings.

    Opening looks through everything once: lengths are counted by decoding, and the digest is taken. What was found is
    kept in the cache folder, under the names, sizes and times of the files, so that the next opening is quick.

    Args:
        path: File, folder or zip, or several of these, which keep their order.
        fps: Rate in frames per second. Video files are resampled to it, and images and arrays are said to have it.
            None: what the files have, 25 for images and arrays.
        resolution: Every frame is cut to its central square and brought to this size (training.footage.clips.fit).
            None: frames stay as they are.
        damaged: 'stop' at a video that cannot be read, 'skip' it, or 'keep' what can be read of it.
        cache: Keep what was found, and use what was kept.

    Raises:
        InputError: Nothing is there, videos differ in rate, or (with 'stop') one of them is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        fps: float | None = None,
        resolution: int | None = None,
        damaged: str = 'stop',
        cache: bool = True,
    ) -> None:
        if damaged not in ('stop', 'skip', 'keep'):
            raise InputError(f'{option("damaged", damaged)} is none of stop, skip and keep')
        paths = [os.fspath(each) for each in ([path] if isinstance(path, (str, os.PathLike)) else path)]
        self.path = paths[0] if len(paths) == 1 else f'{paths[0]} and {len(paths) - 1} others'
        self._fit = resolution
        found = Found()
        for each in paths:
            part = find_recordings(each, fps, arrays=True, keep_damaged=damaged == 'keep')
            found.recordings += part.recordings
            found.broken |= {name if name not in found.broken else each: reason for name, reason in part.broken.items()}
            found.left_out.counts += part.left_out.counts
        recordings, self.left_out = found.recordings, found.broken
        self._stop_at_damage(damaged)
        lengths, content = _survey(recordings, fps, cache, damaged)
        self._recordings: list[Recording] = []
        self.num_frames = []
        for recording, (length, reason) in zip(recordings, lengths, strict=True):
            if reason:
                self.left_out[recording.file_name] = reason
            else:
                self._recordings.append(recording)
                self.num_frames.append(length)
        self._stop_at_damage(damaged)
        if not self._recordings:
            raise InputError(
                f'{self.path}: every one of its {len(self.left_out)} videos is damaged; the first: '
                f'{next(iter(self.left_out.values()))}'
            )
        say_notes(self.path, self._recordings, found.left_out.sentence(self.path), command_line.report)
        self.names = [recording.file_name for recording in self._recordings]
        self.fps, self.fps_is_known = self._common_rate(fps)
        self._sha256 = hashlib.sha256(json.dumps([content, fps, resolution]).encode()).hexdigest()
        self._resolution: tuple[int, int] | None = None
        self.description = {
            'kind': 'recorded',
            'path': self.path,
            'videos': len(self),
            'damaged_videos': len(self.left_out),
            'frames': int(sum(length or 0 for length in self.num_frames)),
            'fit': None if resolution is None else f'central square to {resolution}x{resolution}',
        }

    def _stop_at_damage(self, damaged: str) -> None:
        if self.left_out and damaged == 'stop':
            count = len(self.left_out)
            more = f' ({count} videos of {self.path} are damaged)' if count > 1 else ''
            raise DamagedVideo(
                f'{next(iter(self.left_out.values())).rstrip(".")}{more}; repair or remove it, or leave damaged '
                f'videos out with {option("damaged", "skip")}'
            )

    def _common_rate(self, asked: float | None) -> tuple[float, bool]:
        rates = collections.Counter(recording.fps for recording in self._recordings if recording.fps is not None)
        if asked is not None or not rates:
            return asked or DEFAULT_FPS, asked is not None
        most = rates.most_common(1)[0][0]
        assert most is not None
        other = next(
            (recording for recording in self._recordings if recording.fps is not None and not same_rate(recording.fps, most)),
            None,
        )
        if other is not None:
            self.mixed_rates = (
                f'{self.path}: {other.file_name} has {other.fps:g} frames per second and most others have {most:g}; '
                f'resample all to one rate with {option("fps", f"{most:g}")}'
            )
        return most, True

    def rate(self, index: int) -> float | None:
        return self._recordings[index].fps if self.mixed_rates else super().rate(index)

    @property
    def resolution(self) -> tuple[int, int]:
        if self._resolution is None:
            if self._fit is not None:
                self._resolution = self._fit, self._fit
            else:
                frame = next(iter(self._recordings[0].frames([0])), None)
                if frame is None:
                    raise DamagedVideo(f'{self.names[0]} has no frames')
                self._resolution = frame.shape[0], frame.shape[1]
        return self._resolution

    @property
    def sha256(self) -> str:
        return self._sha256

    def frames(self, index: int, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        for frame in self.frames_of_any_size(index, wanted):
            if self._fit is None and frame.shape[:2] != self.resolution:
                (height, width), (first_height, first_width) = frame.shape[:2], self.resolution
                raise InputError(
                    f'{self.path}: {self.names[index]} has {width}x{height} pixels, and the first video '
                    f'{first_width}x{first_height}; bring all to one size with '
                    f'{option("resolution", str(min(height, width, first_height, first_width)))}'
                )
            yield frame

    def frames_of_any_size(self, index: int, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        for frame in self._recordings[index].frames(wanted):
            yield frame if self._fit is None else fit(frame, self._fit)

    def damage(self) -> str | None:
        """One sentence about the videos that were left out, or None."""
        if not self.left_out:
            return None
        named = ', '.join(list(self.left_out)[:MOST_NAMED]) + (', ...' if len(self.left_out) > MOST_NAMED else '')
        return f'{self.path}: {len(self.left_out)} damaged videos are left out: {named}'


# ----------------------------------------------------------------------------
# Looking through all files once.


def _survey(recordings: Sequence[Recording], fps: float | None, cache: bool, damaged: str) -> tuple[list[tuple[int, str]], str]:
    """(length, '') or (0, reason of the damage) of each recording, and the digest of all. Tells the recordings their rates."""
    files = listing(recordings)
    names = [[recording.file_name, type(recording).__name__] for recording in recordings]
    key = json.dumps([SURVEY_VERSION, fps, damaged, names, files]).encode()
    path = dnnlib.make_cache_dir_path('video-surveys', f'{hashlib.blake2b(key, digest_size=16).hexdigest()}.json')
    found = _read_json(path, len(recordings)) if cache else None
    if found is None:
        found = _look_at_all(recordings, every_image=damaged != 'stop')
        youngest = max((max(row[2], row[3]) for row in files), default=0)  # type: ignore[call-overload]
        if cache and time.time() - youngest / 1e9 > SETTLED_SECONDS:
            _write_json(path, found)
    digest = hashlib.sha256()
    lengths = []
    for recording, (length, reason, content, rate, expected, notes) in zip(recordings, found, strict=True):
        recording.fps, recording.expected, recording.notes = rate, expected, notes
        lengths.append((length, reason))
        digest.update(f'{length} {content}\n'.encode())
    return lengths, digest.hexdigest()


def _look_at_all(recordings: Sequence[Recording], *, every_image: bool) -> list[Any]:
    is_slow = every_image or any(recording.is_slow for recording in recordings)
    workers = min(os.cpu_count() or 1, 8) if is_slow else 1  # each waits for an ffmpeg of its own
    look_at = functools.partial(_look_at, every_image=every_image)
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        command_line.progress(total=len(recordings), description='Looking through the videos', unit='video') as bar,
    ):
        found = []
        try:
            for row in pool.map(look_at, recordings):
                found.append(row)
                bar.update(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _look_at(recording: Recording, *, every_image: bool) -> tuple[int, str, str, float | None, int | None, list[str]]:
    """Length, reason of the damage or '', digest, rate, length that the header promises, notes.

    Images are decoded only with `every_image`: otherwise a damaged one is met when its frame is asked for.
    """
    try:
        recording.describe()
        length = sum(1 for _ in recording.stream()) if every_image and not recording.is_slow else recording.count_frames()
        notes = list(recording.notes)
        if recording.complaints():
            notes.append(f'its decoder complained {recording.complaints()} times; what it could decode is kept')
        if recording.expected is not None and not recording.is_slow and length < recording.expected:
            notes.append(f'{length} of {recording.expected} frames are kept, those before the damage')
        return length, '', recording.digest(), recording.fps, recording.expected, notes
    except DamagedVideo as error:
        return 0, str(error), 'damaged', None, None, []


def _read_json(path: str, length: int) -> list[Any] | None:
    with contextlib.suppress(OSError, *DAMAGED_FILE), open(path, encoding='utf-8') as file:
        content = json.load(file)
        if len(content) == length and all(len(row) == 6 for row in content):
            return content
    return None


def _write_json(path: str, content: object) -> None:
    """A cache that cannot be written costs time, not the result."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            json.dump(content, file)
