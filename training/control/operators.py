"""What changes codes on their way from a source to the image generator; every operator works frame by frame.

An operator is called with codes [n, num_ws, w_dim] and the number of the first of them, and returns codes of that shape. It
remembers nothing, so the state of a `Pipeline` is that of its source and a position.

    pipeline = Pipeline(ModelSource(generator, seed=3), [MotionScale(center, parse_keyframes('1@0,0.3@100'))])
    codes = pipeline.read(8)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from training.control.keyframes import Keyframes
from training.videos.code_sources import CodeSource
from training.videos.synthesis import truncate_codes


class CodeOperator(Protocol):
    """A map of codes that depends on the number of the frame and on nothing else."""

    def __call__(self, codes: torch.Tensor, first: int) -> torch.Tensor:
        """Codes [n, num_ws, w_dim] of the frames first, first + 1, ... -> changed ones."""
        ...


class Pipeline:
    """A source and what its codes go through; a source itself.

    Args:
        source: Where the codes come from.
        operators: Applied in this order.
    """

    def __init__(self, source: CodeSource, operators: Sequence[CodeOperator] = ()) -> None:
        self.source = source
        self.operators = list(operators)
        self._position = 0

    def read(self, count: int) -> torch.Tensor:
        """The next codes [count, num_ws, w_dim]."""
        codes = self.source.read(count)
        for operator in self.operators:
            codes = operator(codes, self._position)
        self._position += count
        return codes

    def state(self) -> dict[str, Any]:
        return {'source': self.source.state(), 'position': self._position}

    def restore(self, state: dict[str, Any]) -> None:
        self.source.restore(state['source'])
        self._position = state['position']


def _column(values: np.ndarray, codes: torch.Tensor) -> torch.Tensor:
    """Values [n] of frames, so that they multiply codes [n, num_ws, w_dim]."""
    return torch.as_tensor(values, dtype=codes.dtype, device=codes.device)[:, None, None]


@dataclasses.dataclass(frozen=True)
class Truncation:
    """w = center + psi (w - center), with psi from keyframes; center [num_ws, w_dim]."""

    center: torch.Tensor
    psi: Keyframes

    def __call__(self, codes: torch.Tensor, first: int) -> torch.Tensor:
        if self.psi.is_constant:
            return truncate_codes(codes, self.center, self.psi.values[0])
        return torch.lerp(self.center.to(codes).expand_as(codes), codes, _column(self.psi.at(first, len(codes)), codes))


@dataclasses.dataclass(frozen=True)
class MotionScale:
    """w = center + scale (w - center): larger or calmer movements about the subject's mean code.

    Args:
        center: Mean code [num_ws, w_dim] of the subject that moves.
        scale: Keyframes, 1 changes nothing.
        envelope: Factor of the scale for the frames first, first + 1, ..., called with (first, count); None: 1.
    """

    center: torch.Tensor
    scale: Keyframes
    envelope: Callable[[int, int], np.ndarray] | None = None

    def __call__(self, codes: torch.Tensor, first: int) -> torch.Tensor:
        scale = self.scale.at(first, len(codes))
        if self.envelope is not None:
            scale = scale * self.envelope(first, len(codes))
        return torch.lerp(self.center.to(codes).expand_as(codes), codes, _column(scale, codes))


@dataclasses.dataclass(frozen=True)
class Edit:
    """w = w + strength * direction, in the layers where `direction` [num_ws, w_dim] is not zero."""

    direction: torch.Tensor
    strength: Keyframes

    def __call__(self, codes: torch.Tensor, first: int) -> torch.Tensor:
        return codes + _column(self.strength.at(first, len(codes)), codes) * self.direction.to(codes)


@dataclasses.dataclass(frozen=True)
class FadingOffset:
    """w = w + offset (1 + cos(pi k / frames)) / 2 in frame k, nothing from frame `frames` on.

    It takes a video smoothly from a code that the model cannot make to those that it makes.
    """

    offset: torch.Tensor
    frames: int

    def __call__(self, codes: torch.Tensor, first: int) -> torch.Tensor:
        if first >= self.frames:
            return codes
        phase = np.minimum((first + np.arange(len(codes))) / self.frames, 1)
        return codes + _column((1 + np.cos(np.pi * phase)) / 2, codes) * self.offset.to(codes)


class Mixture:
    """One source goes over into another: w = center + cos(a) (w_1 - center) + sin(a) (w_2 - center).

    The angle a rises from 0 in frame `begin` to pi / 2 in frame `end`. Squares of the weights add up to 1, so that the
    motion of two independent videos keeps its size on the way, which the mean of the two would not.

    Args:
        first, second: Sources; both run all the time.
        center: Mean code [num_ws, w_dim].
        begin, end: Frames, begin < end.
    """

    def __init__(self, first: CodeSource, second: CodeSource, center: torch.Tensor, begin: int, end: int) -> None:
        self._sources = (first, second)
        self._center = center
        self._begin, self._end = begin, end
        self._position = 0

    def read(self, count: int) -> torch.Tensor:
        """The next codes [count, num_ws, w_dim]."""
        first, second = (source.read(count) for source in self._sources)
        frames = self._position + np.arange(count)
        self._position += count
        phase = np.clip((frames - self._begin) / (self._end - self._begin), 0, 1)
        angle = (1 - np.cos(np.pi * phase)) / 2 * (np.pi / 2)  # sets in and ends gently
        center = self._center.to(first)
        mixed = center + _column(np.cos(angle), first) * (first - center) + _column(np.sin(angle), first) * (second - center)
        # Exactly the one or the other outside of the transition.
        mixed = torch.where(_column(phase, first) <= 0, first, mixed)
        return torch.where(_column(phase, first) >= 1, second, mixed)

    def state(self) -> dict[str, Any]:
        return {'sources': [source.state() for source in self._sources], 'position': self._position}

    def restore(self, state: dict[str, Any]) -> None:
        for source, part in zip(self._sources, state['sources'], strict=True):
            source.restore(part)
        self._position = state['position']
