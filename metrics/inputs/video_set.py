"""What a set of videos is, wherever its frames come from: recorded, rendered from codes, or generated.

A set has clips of frames, uint8 RGB, and says what it is, so that a result can name it. Nothing goes through an encoder:
the frames that are measured are the frames that the file or the network gives.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from networks.errors import DamagedVideo

RATE_TOLERANCE = 0.005  # relative; 29.97 and 30 are one rate


def same_rate(first: float, second: float) -> bool:
    """Whether two rates in frames per second are one, but for what containers round."""
    return abs(first - second) <= RATE_TOLERANCE * max(first, second)


class VideoSet(abc.ABC):
    """Videos by index, of one rate and size but for what compares pairs of them.

    Attributes:
        names: One name a video, in the order of the indices.
        fps: Frames per second; of most of them, where `mixed_rates` says that they differ.
        mixed_rates: What is wrong with their rates and what to do about it, or nothing.
        fps_is_known: Whether the rate was told by the files; images and arrays have none, theirs is assumed.
        num_frames: Length of each video in frames; None where it has no end.
        endless: Whether indices beyond the last name give further videos (generated ones, by seed).
        left_out: Name -> reason of the videos that were found damaged and left out.
        description: What the set is, for the protocol of a result; JSON types only.
    """

    names: Sequence[str]
    fps: float
    fps_is_known: bool = True
    mixed_rates: str = ''
    num_frames: Sequence[int | None]
    endless: bool = False
    left_out: dict[str, str]
    description: dict[str, Any]

    def __len__(self) -> int:
        return len(self.names)

    @property
    @abc.abstractmethod
    def resolution(self) -> tuple[int, int]:
        """(H, W) of every frame."""

    @property
    @abc.abstractmethod
    def sha256(self) -> str:
        """Digest of what the frames are: equal for equal content, wherever it lies and whatever it is called."""

    @abc.abstractmethod
    def frames(self, index: int, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames of one video by their numbers, which ascend; stops where the video ends.

        Yields:
            uint8 `[H, W, 3]` RGB.

        Raises:
            DamagedVideo: The video cannot be read that far.
        """

    def frames_of_any_size(self, index: int, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        """The same where videos may differ in size from each other: only each pair has to agree."""
        return self.frames(index, wanted)

    def rate(self, index: int) -> float | None:
        """Frames per second of one video; None where nobody told it."""
        return self.fps if self.fps_is_known else None

    def close(self) -> None:
        """Close the files; a set without any has nothing to do."""
        return

    def __enter__(self) -> VideoSet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def stream(self, index: int, start: int = 0) -> Iterator[np.ndarray]:
        """All frames of one video from `start` on, uint8 `[H, W, 3]`, one at a time."""
        return self.frames(index, itertools.count(start))

    def clip(self, index: int, start: int, num_frames: int, stride: int = 1) -> np.ndarray:
        """Frames start, start + stride, ... of one video, uint8 `[num_frames, H, W, 3]`.

        Raises:
            DamagedVideo: The video ends before the last one of them, or cannot be read.
        """
        return next(self.clips(index, [start], num_frames, stride))

    def clips(self, index: int, starts: Sequence[int], num_frames: int, stride: int = 1) -> Iterator[np.ndarray]:
        """The same for several ascending starts, in one pass over the video; memory: the frames of the longest overlap."""
        if num_frames < 1 or stride < 1 or any(start < 0 for start in starts) or list(starts) != sorted(starts):
            raise ValueError(f'no clips of {num_frames} frames, stride {stride}, can begin at {list(starts)[:5]}')
        wanted = sorted({start + offset * stride for start in starts for offset in range(num_frames)})
        numbered = zip(wanted, self.frames(index, wanted), strict=False)
        kept: dict[int, np.ndarray] = {}
        for start in starts:
            last = start + (num_frames - 1) * stride
            kept = {number: frame for number, frame in kept.items() if number >= start}
            while last not in kept:
                number, frame = next(numbered, (None, None))
                if number is None or frame is None:
                    raise DamagedVideo(
                        f'{self._name(index)} ends before frame {last}, and its description promised '
                        f'{self.num_frames[index]} frames; it is damaged or has changed'
                    )
                kept[number] = frame
            yield np.stack([kept[start + offset * stride] for offset in range(num_frames)])

    def _name(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else f'video {index}'
