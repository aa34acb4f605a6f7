"""Moving averages of earlier steps, for trainings whose last one does not settle.

A few trainings (3 of 70 at the defaults, docs/choices.md) end with weights whose videos wander off over thousands of frames: into
moods that a chain of the training enters so seldom that the critics hardly see them. It comes up late in a training, while the
learning rates fall, so an earlier moving average is without it, and nearly as good otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from networks.latent_generator import LatentGenerator
from training.stationarity import SETTLED, wandering

SHARES = (0.7, 0.8, 0.9)  # of the training, after which the moving average is kept
SHORTEST = 500  # steps; a shorter training is a trial, and looking at old videos would take as long


class KeptAverages:
    """Moving averages of a training that is `total_steps` long.

    Attributes:
        taken: Step of the moving average that `settled` took last.
        distance: How far its videos wander (`training.stationarity.wandering`); 0 before the first average was kept.
    """

    def __init__(self, total_steps: float) -> None:
        self._steps = [round(share * total_steps) for share in SHARES] if total_steps >= SHORTEST else []
        self._kept: list[tuple[int, dict[str, torch.Tensor]]] = []
        self.taken = 0
        self.distance = 0.0

    def keep(self, step: int, G_ema: LatentGenerator) -> None:
        """Keep the moving average, if this is a step after which it is kept."""
        if step in self._steps:
            self._kept.append((step, copy.deepcopy(G_ema.state_dict())))

    def settled(
        self, step: int, G_ema: LatentGenerator, build: Callable[[], LatentGenerator], deadline: float | None = None
    ) -> LatentGenerator:
        """The newest moving average whose videos stay as they are; if there is none, the one whose videos wander least.

        Args:
            step: Of `G_ema`, the newest one.
            G_ema: Moving average.
            build: Makes a latent generator of the same sizes, on the same device.
            deadline: A time of `time.monotonic`.

        Raises:
            TimeoutError: It is later than `deadline`.
        """
        best, self.taken, self.distance = G_ema, step, 0.0
        if self._kept:
            self.distance = wandering(G_ema, deadline=deadline)
        for earlier, state in reversed(self._kept):
            if self.distance <= SETTLED:
                break
            G = build()
            G.load_state_dict(state)
            distance = wandering(G, deadline=deadline)
            if distance < self.distance:
                best, self.taken, self.distance = G, earlier, distance
        return best

    @property
    def wanders(self) -> bool:
        """Whether videos of what was taken do not stay as they are."""
        return self.distance > SETTLED

    def state_dict(self) -> list[tuple[int, dict[str, torch.Tensor]]]:
        """The moving averages with their steps, the oldest first."""
        return self._kept

    def load_state_dict(self, state: list[Any]) -> None:
        """Take over a state_dict(); an empty list is that of a run of version 0.3 or before."""
        self._kept = [(int(step), weights) for step, weights in state]
