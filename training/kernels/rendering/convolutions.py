"""Convolutions of fixed weights, brought into the order that the convolution wants once, not for every picture."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

STRIP_SIZES = 3  # the first strip of a map, those inside, the last one


class Convolution:
    """A convolution with fixed weights, zeros around, of maps `[N, I, H, W]` in channels-last order.

    Args:
        make_weight: Returns them, `[O, I, k, k]` as for a correlation, in the type of the maps.
        transposed: The transposed convolution with stride 2 instead, without padding: `[N, O, 2 H + 1, 2 W + 1]` for k = 3.
        padding: Zeros on each side of the maps where it is not transposed; None: as many as keep their size.
    """

    def __init__(self, make_weight: Callable[[], torch.Tensor], *, transposed: bool = False, padding: int | None = None) -> None:
        self.make_weight, self.transposed, self.padding = make_weight, transposed, padding
        self._ready: dict[Any, torch.Tensor] = {}  # the weights in their final order, for maps of these sizes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._of(x, None, sizes=1)

    def strip(self, x: torch.Tensor, begin: int, end: int) -> tuple[torch.Tensor, int]:
        """What rows begin to end (less one) of a layer need of the result, for kernels of 3x3, out of some rows of x.

        Args:
            x: One map `[1, I, H, W]`.
            begin, end: Rows of the layer: those of the result, but if `transposed` even numbers between 0 and 2 H, where the
                filter behind the convolution wants rows begin - 1 to end + 1 of the result, as far as it has them.

        Returns:
            Some rows of the result, these among them, and the number of the first. Those that are not asked for may be wrong.
        """
        height = x.shape[2]
        if self.transposed:
            first = max(begin // 2 - 1, 0)
            return self._of(x[:, :, first : end // 2 + 1], 0, sizes=STRIP_SIZES), 2 * first
        first = max(begin - 1, 0)
        inside = begin > 0 and end < height  # else zeros are needed above or below, and make one row too many at the other side
        found = self._of(x[:, :, first : end + 1], 0 if inside else 1, sizes=STRIP_SIZES)
        return found, begin if inside else first

    def _of(self, x: torch.Tensor, rows_around: int | None, sizes: int) -> torch.Tensor:
        """The result with so many rows of zeros above and below, None: as many as columns; keeps weights for so many sizes."""
        packs = x.device.type == 'cpu' and _packs_weights()
        key = (*x.shape, rows_around) if packs else ()
        weight = self._ready.get(key)
        if weight is None:
            weight = self.make_weight()
            weight = weight.transpose(0, 1) if self.transposed else weight
            weight = weight.contiguous(memory_format=map_layout(x))
            if self.padding is None:
                self.padding = weight.shape[2] // 2
            weight = _pack(weight, x.shape, self.transposed, self._around(rows_around)) if packs else weight
            if len(self._ready) >= sizes:
                self._ready.clear()
            self._ready[key] = weight
        if self.transposed:
            return _transposed_packed(x, weight) if packs else F.conv_transpose2d(x, weight, stride=2)
        around = self._around(rows_around)
        return _packed(x, weight, around) if packs else F.conv2d(x, weight, padding=around)

    def _around(self, rows: int | None) -> list[int]:
        assert self.padding is not None
        return [self.padding if rows is None else rows, self.padding]


# PyTorch's compiler keeps the weights of frozen networks in oneDNN's own order; these are the operations that it calls for that.
def _pack(weight: torch.Tensor, size: Sequence[int], transposed: bool, around: list[int]) -> torch.Tensor:
    ops = torch.ops.mkldnn
    if transposed:
        return ops._reorder_convolution_transpose_weight(weight, [0, 0], [0, 0], [2, 2], [1, 1], 1, list(size))
    return ops._reorder_convolution_weight(weight, around, [1, 1], [1, 1], 1, list(size))


def _packed(x: torch.Tensor, weight: torch.Tensor, around: list[int]) -> torch.Tensor:
    return torch.ops.mkldnn._convolution_pointwise(x, weight, None, around, [1, 1], [1, 1], 1, 'none', [], '')


def _transposed_packed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    stride, none = [2, 2], [0, 0]
    return torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, None, none, none, stride, [1, 1], 1, 'none', [], '')


@functools.cache
def _packs_weights() -> bool:
    """Whether this version of PyTorch has the operations above, and they do what they are taken for."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator) for shape in ([1, 16, 6, 6], [24, 16, 3, 3]))
    x, turned = x.to(memory_format=torch.channels_last), weight.transpose(0, 1).contiguous()
    try:
        pairs = [
            (_packed(x, _pack(weight, x.shape, False, [1, 2]), [1, 2]), F.conv2d(x, weight, padding=[1, 2])),
            (_transposed_packed(x, _pack(turned, x.shape, True, [0, 0])), F.conv_transpose2d(x, turned, stride=2)),
        ]
        return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs)
    except (AttributeError, RuntimeError, TypeError):
        return False


def map_layout(x: torch.Tensor) -> torch.memory_format:
    """Channels last; but for full precision on a GPU, where its convolutions are faster one plane after the other."""
    return torch.contiguous_format if x.device.type == 'cuda' and x.dtype == torch.float32 else torch.channels_last


def upsampling_kernels(weight: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Kernels of the four phases of an upsampling convolution, `[4 O, I, 3, 3]`, phases (row, column) outermost.

    The transposed convolution gives t_j = sum_m w_m x_(j-m)/2, the filter y_o = sum_k taps_k t_(o+k-1); together, along each
    axis, y_o = sum_i g_(o-2i) x_i with g_p = sum_k taps_k w_(p+k-1), of which an even o meets g_2, g_0, g_-2 and an odd one
    g_3, g_1, g_-1.

    Args:
        weight: `[O, I, 3, 3]` of the transposed convolution.
        taps: `[4]`, the filter along one axis.
    """
    mix = torch.zeros(2, 3, 3, dtype=torch.float64)  # [phase, place in the kernel, tap of w]
    for phase in range(2):
        for place in range(3):
            p = phase + 2 - 2 * place
            for k in range(4):
                if 0 <= p + k - 1 <= 2:
                    mix[phase, place, p + k - 1] += float(taps[k])
    kernels = torch.einsum('oimn,ypm,xqn->yxoipq', weight.double(), mix.to(weight.device), mix.to(weight.device))
    return kernels.flatten(0, 2).to(weight.dtype)
