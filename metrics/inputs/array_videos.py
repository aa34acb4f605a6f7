"""Videos in arrays and tensors as a set of videos, so that they are measured as files of the same frames are."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from metrics.inputs.frame_layouts import ValueRange, as_bytes, as_grey_levels
from metrics.inputs.video_set import VideoSet
from networks.errors import InputError


class ArrayVideos(VideoSet):
    """Videos in memory.

    Args:
        videos: Arrays [T, H, W, C], C = 1 or 3, uint8 or floating point; converted frame by frame when they are asked for.
        value_range: Black and white of floating point.
        fps: Rate in frames per second; None: not known, and said to be 25.
        name: What the set is called in the protocol of a result.
    """

    def __init__(
        self,
        videos: Sequence[np.ndarray],
        value_range: ValueRange | None = None,
        *,
        fps: float | None = None,
        name: str = 'array',
    ) -> None:
        self._videos, self._range = list(videos), value_range
        self.names = [f'{name} {index}' for index in range(len(self._videos))]
        self.fps, self.fps_is_known = fps or 25.0, fps is not None
        self.num_frames = [len(video) for video in self._videos]
        self.left_out = {}
        self.description = {
            'kind': 'array',
            'videos': len(self._videos),
            'frames': sum(map(len, self._videos)),
            'type': str(self._videos[0].dtype),
            'value_range': list(value_range) if value_range else None,
        }

    @property
    def resolution(self) -> tuple[int, int]:
        return self._videos[0].shape[1], self._videos[0].shape[2]

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for video in self._videos:
            digest.update(f'{video.shape}\n'.encode())
            for frame in video:
                digest.update(as_bytes(frame, self._range).tobytes())
        return digest.hexdigest()

    @property
    def sha256(self) -> str:
        return self._digest

    def frames(self, index: int, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        video = self._videos[index]
        if video.shape[1:3] != self.resolution:
            (height, width), (first_height, first_width) = video.shape[1:3], self.resolution
            raise InputError(
                f'{self.names[index]} has {width}x{height} pixels and the first one {first_width}x{first_height}; bring all to '
                'one size before'
            )
        for number in wanted:
            if number >= len(video):
                return
            yield as_bytes(video[number], self._range)

    def levels(self, index: int, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        """The same frames as levels 0 to 255, [H, W, C]: uint8 as they are, floating point as float64 and not rounded."""
        video = self._videos[index]
        for number in wanted:
            if number >= len(video):
                return
            yield video[number] if video.dtype == np.uint8 else as_grey_levels(video[number], self._range)
