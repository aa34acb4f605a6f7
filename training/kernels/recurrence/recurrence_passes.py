"""The passes of the generator's recurrence that `fast_rollout` differentiates: one interface, in C++ and in CUDA.

Shapes: N samples, K steps, C cells of D units. All tensors are contiguous.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import torch

Tensors = tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Rolled:
    """What `forward` got and saved, and the gradients of what it gave.

    Attributes:
        inputs: Noise `[N, K, D]`, first memories `[C, N, D]`, weights for input and memory `[C, 3 D, D]`, biases `[C, 3 D]`.
        memories: `[K + 1, C, N, D]`.
        saved: r, z, n, W_hn h + b_hn `[K, C, N, 4 D]`.
        g_l: Gradient of l, the memories of the last cell, `[N, K + 1, D]`; None: zero.
        g_memories: Gradient of the memories; None: zero.
    """

    inputs: Sequence[torch.Tensor]
    memories: torch.Tensor
    saved: torch.Tensor
    g_l: torch.Tensor | None
    g_memories: torch.Tensor | None


class RecurrencePasses(abc.ABC):
    """Values, first and second derivatives of a stack of GRU cells over all time steps."""

    @abc.abstractmethod
    def forward(self, inputs: Sequence[torch.Tensor], save: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Inputs as in `Rolled` -> l `[N, K + 1, D]`, memories `[K + 1, C, N, D]`, and what `saved` holds (None: do not save)."""

    @abc.abstractmethod
    def backward(self, rolled: Rolled, weights_wanted: bool) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the inputs for those of l and memories; of weights and biases only if wanted, else None."""

    @abc.abstractmethod
    def second(self, rolled: Rolled, v_noise: torch.Tensor, v_first: torch.Tensor) -> Tensors:
        """Derivatives of <v_noise, d_noise> + <v_first, d_first>, d what `backward` finds, for g_l, g_memories, all inputs."""
