"""Codes at another frame rate or speed: a cubic curve through the codes, so that nothing is blended in pixels.

Frame n of the result is at the position p = n * step of the source, step = (rate of the source) * speed / (rate of the result).
Between the codes w_1 and w_2, with w_0 before and w_3 behind and t the fraction of the way,

    w(t) = w_1 + t/2 (w_2 - w_0) + t^2 (w_0 - 5/2 w_1 + 2 w_2 - w_3 / 2) + t^3 (3/2 (w_1 - w_2) + (w_3 - w_0) / 2)

(the cubic of Catmull and Rom: it goes through every code, with the mean velocity of its two neighbours).
"""

from __future__ import annotations

import fractions
from collections.abc import Sequence
from typing import Any

import torch

from training.videos.code_sources import CodeSource


def resampling_step(source_fps: float, fps: float, speed: float = 1.0) -> fractions.Fraction:
    """Frames of the source for one of the result; a fraction, so that hours of video do not drift."""
    rates = [fractions.Fraction(rate).limit_denominator(100_000) for rate in (source_fps, fps)]
    return rates[0] / rates[1] * fractions.Fraction(speed).limit_denominator(1000)


def between(codes: Sequence[torch.Tensor] | torch.Tensor, t: float) -> torch.Tensor:
    """The code w(t) between the middle two of four; exactly the second at t = 0."""
    w0, w1, w2, w3 = codes
    if t == 0:
        return w1
    square, cube = t * t, t * t * t
    return (
        (-t / 2 + square - cube / 2) * w0
        + (1 - 2.5 * square + 1.5 * cube) * w1
        + (t / 2 + 2 * square - 1.5 * cube) * w2
        + (cube - square) / 2 * w3
    )


class Resampled:
    """A source at another rate.

    Args:
        source: Codes at their own rate, read `chunk` at a time.
        step: Positive; a step of 1 gives the codes themselves.
        chunk: Frames that are read at a time; it decides the rounding of the source, not what is returned at a time.
        leads: The first code that is read is the one before the first frame, as a loop can give it. Otherwise the curve begins as
            if the first step were made twice.
    """

    def __init__(self, source: CodeSource, step: fractions.Fraction, *, chunk: int, leads: bool = False) -> None:
        if step <= 0:
            raise ValueError(f'the step must be positive, got {step}')
        self.source = source
        self.step = step
        self._chunk = chunk
        self._frame = 0
        self._codes = source.read(max(chunk, 3))
        if not leads:
            self._codes = torch.cat([2 * self._codes[:1] - self._codes[1:2], self._codes])
        self._begin = -1  # position in the source of the first of `_codes`

    def read(self, count: int) -> torch.Tensor:
        """The next codes [count, num_ws, w_dim]."""
        return torch.stack([self._next() for _ in range(count)])

    def _next(self) -> torch.Tensor:
        position = self._frame * self.step
        whole = position.numerator // position.denominator
        self._frame += 1
        while whole + 2 >= self._begin + len(self._codes):
            keep = min(max(whole - 1 - self._begin, 0), len(self._codes))
            self._codes = torch.cat([self._codes[keep:], self.source.read(self._chunk)])
            self._begin += keep
        first = whole - 1 - self._begin
        return between(self._codes[first : first + 4], float(position - whole))

    def state(self) -> dict[str, Any]:
        return {'source': self.source.state(), 'frame': self._frame, 'codes': self._codes, 'begin': self._begin}

    def restore(self, state: dict[str, Any]) -> None:
        self.source.restore(state['source'])
        self._frame, self._codes, self._begin = state['frame'], state['codes'], state['begin']
