"""How much memory a computation takes at its peak: asked of a GPU, counted from the tensors on a processor."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """Bytes that a computation has allocated at most, above what was there before; its result counts.

    On a processor what its tensors hold is counted, so the same computation gives the same number each time; what libraries
    keep for themselves meanwhile is not in it.

    Args:
        function: The computation, which is run once.
        device: Where it runs.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = function()
        torch.cuda.synchronize(device)
        del result
        return int(torch.cuda.max_memory_allocated(device)) - before
    with _Allocated() as allocated:
        function()
    return allocated.peak


class _Allocated(TorchDispatchMode):
    """Bytes of the storages that operations have made, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_key(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and (key := _key(value)) not in given and key not in self._sizes:
                storage = value.untyped_storage()
                self._sizes[key] = storage.nbytes()
                weakref.finalize(storage, self._gone, key).atexit = False
                self.now += self._sizes[key]
                self.peak = max(self.peak, self.now)
        return result

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
