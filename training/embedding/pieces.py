"""How many pictures go through an image generator at a time when a gradient is wanted.

Every map of the way stays in memory until the gradient has come back: 3 GB for one picture of 1024x1024. A sum over pictures has
the sum of their gradients, so pictures may go one after the other, with the same result to rounding; what one of them keeps is
measured once, by one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from training.commands.memory import Budget, how_many

# Keeps the peak low on a processor, whose cores one picture of this size keeps busy.
LARGEST_PIECE_ON_CPU = 1 << 30
PASSING = 2.0  # of what is kept: with the gradients of maps on the way back, as measured at 512x512 and 1024x1024


def kept_bytes(function: Callable[[], torch.Tensor]) -> int:
    """Bytes that a computation keeps for its gradient, weights left out.

    Args:
        function: Returns a tensor with a gradient.
    """
    sizes: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # addresses are used again when a tensor goes

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(sizes.values())


def piece_size(function: Callable[[], torch.Tensor], device: torch.device, budget: Budget, most: int) -> int:
    """How many pictures at a time.

    Args:
        function: The computation for one of them.
        device: Where.
        budget: Memory.
        most: Never more than this.
    """
    limit: Any = budget.on(device)
    one = kept_bytes(function) * PASSING
    return how_many(one, limit if device.type != 'cpu' else min(limit, LARGEST_PIECE_ON_CPU), most)


def pieces(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `count`."""
    for begin in range(0, count, size):
        yield slice(begin, begin + size)
