"""The interpolation video of an image generator alone: from code to code along a curve, with no temporal model."""

from __future__ import annotations

import fractions
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from networks.image_generator import ImageGenerator
from training.control.option_types import EASINGS


class InterpolationSource:
    """Codes on a curve through keyframes.

    Args:
        keyframes: [K, num_ws, w_dim].
        frames: From one keyframe to the next.
        easing: 'cubic' goes through the keyframes with the mean velocity of their neighbours, 'linear' at constant velocity with
            corners, 'smooth' stops at each of them, t^2 (3 - 2 t).
        loop: Go on from the last keyframe to the first, without end; otherwise the curve stands still at its end.
    """

    def __init__(self, keyframes: torch.Tensor, frames: int, *, easing: str = 'cubic', loop: bool = False) -> None:
        if easing not in EASINGS:
            raise ValueError(f'{easing!r} is none of {", ".join(EASINGS)}')
        self._keyframes = keyframes
        self._frames = frames
        self._easing = easing
        self._loop = loop
        self._position = 0

    def read(self, count: int) -> torch.Tensor:
        """The next codes [count, num_ws, w_dim]."""
        return torch.stack([self._next() for _ in range(count)])

    def _key(self, index: int) -> torch.Tensor:
        last = len(self._keyframes) - 1
        return self._keyframes[index % (last + 1) if self._loop else min(max(index, 0), last)]

    def _next(self) -> torch.Tensor:
        position = fractions.Fraction(self._position, self._frames)
        self._position += 1
        whole = position.numerator // position.denominator
        if not self._loop and whole >= len(self._keyframes) - 1:
            return self._key(len(self._keyframes) - 1)
        t = float(position - whole)
        first, second = self._key(whole), self._key(whole + 1)
        if self._easing != 'cubic':
            return torch.lerp(first, second, t * t * (3 - 2 * t) if self._easing == 'smooth' else t)
        into, out = (second - self._key(whole - 1)) / 2, (self._key(whole + 2) - first) / 2  # velocities at both ends
        square, cube = t * t, t * t * t
        return (
            (2 * cube - 3 * square + 1) * first + (cube - 2 * square + t) * into
            + (3 * square - 2 * cube) * second + (cube - square) * out
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        return {'position': self._position}

    def restore(self, state: dict[str, Any]) -> None:
        self._position = state['position']


def codes_of_seeds(
    image_generator: ImageGenerator, seeds: Sequence[int], psi: float = 1.0, class_index: int | None = None
) -> torch.Tensor:
    """Codes [N, num_ws, w_dim] of seeds, as NVIDIA's scripts draw them: z = np.random.RandomState(seed).randn(1, z_dim)."""
    device = next(image_generator.parameters()).device
    c = torch.zeros([len(seeds), int(image_generator.c_dim)], device=device)
    if class_index is not None:
        c[:, class_index] = 1
    z = np.concatenate([np.random.RandomState(seed).randn(1, int(image_generator.z_dim)) for seed in seeds]).astype(np.float32)
    with torch.no_grad():
        return image_generator.mapping(torch.from_numpy(z).to(device), c, truncation_psi=psi).float()
