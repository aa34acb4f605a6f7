"""Values that change along a video: a number, or numbers at frames with straight lines between them."""

from __future__ import annotations

import dataclasses

import numpy as np

from training.control.option_types import parse_keyframe_pairs


@dataclasses.dataclass(frozen=True)
class Keyframes:
    """A piecewise linear function of the frame number, constant before its first and after its last keyframe.

    Attributes:
        frames: Frame numbers, rising; the first frame of a video is 0.
        values: One value for each of them.
    """

    frames: tuple[float, ...]
    values: tuple[float, ...]

    @classmethod
    def constant(cls, value: float) -> Keyframes:
        return cls((0.0,), (float(value),))

    @property
    def is_constant(self) -> bool:
        return len(set(self.values)) == 1

    def at(self, first: float, count: int) -> np.ndarray:
        """Values [count] float64 of the frames first, first + 1, ..."""
        return np.interp(first + np.arange(count), self.frames, self.values)

    def plain(self) -> float | str:
        """The number if it never changes, else the text that `parse_keyframes` reads."""
        if self.is_constant:
            return self.values[0]
        return ','.join(f'{value:g}@{frame:g}' for frame, value in zip(self.frames, self.values, strict=True))


def parse_keyframes(text: str) -> Keyframes:
    """Read '0.7' or '1@0,0.5@100': a value, or VALUE@FRAME separated by commas.

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    pairs = parse_keyframe_pairs(text)
    return Keyframes(tuple(frame for frame, _ in pairs), tuple(value for _, value in pairs))
