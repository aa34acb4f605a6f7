"""CUDA form of upfirdn2d."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from .cuda_plugins import ELEMENT_TYPES, current_stream


def run(plugin: ModuleType, x: torch.Tensor, f: torch.Tensor, resampling: Any) -> torch.Tensor:
    """Return what upfirdn2d._plain returns for the same arguments, without a gradient.

    The sums are in float32 (float64 for float64 images); a result of channels-last images is channels-last.
    """
    up, down, padding, flip_filter, gain = resampling
    f = f.to(device=x.device, dtype=torch.float32).contiguous()
    if f.ndim == 1:
        row = resampling._replace(up=(up[0], 1), down=(down[0], 1), padding=(*padding[:2], 0, 0), gain=1.0)
        column = resampling._replace(up=(1, up[1]), down=(1, down[1]), padding=(0, 0, *padding[2:]))
        return run(plugin, run(plugin, x, f[None, :], row), f[:, None], column)

    size = [
        (x.shape[3 - axis] * up[axis] + padding[2 * axis] + padding[2 * axis + 1] - f.shape[1 - axis]) // down[axis] + 1
        for axis in (0, 1)
    ]
    interleaved = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    y = torch.empty(
        [*x.shape[:2], size[1], size[0]],
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if interleaved else torch.contiguous_format,
    )
    with torch.cuda.device(x.device):
        plugin.upfirdn2d(
            x.data_ptr(),
            f.data_ptr(),
            y.data_ptr(),
            up,
            down,
            (padding[0], padding[2]),
            int(flip_filter),
            gain,
            tuple(x.shape),
            tuple(y.shape[2:]),
            tuple(f.shape),
            x.stride(),
            y.stride(),
            ELEMENT_TYPES[x.dtype],
            current_stream(x),
        )
    return y
