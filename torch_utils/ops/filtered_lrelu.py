"""Leaky ReLU at a raised sampling rate, between an upsampling and a downsampling filter (StyleGAN3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType

import torch

from . import cuda_plugins, filtered_lrelu_cuda
from .bias_act import bias_act
from .upfirdn2d import _get_filter_size, _parse_padding, upfirdn2d


def filtered_lrelu(
    x: torch.Tensor,  # Activations [N, C, H, W].
    fu: torch.Tensor | None = None,  # Upsampling filter from setup_filter(); None = one tap of 1.
    fd: torch.Tensor | None = None,  # Downsampling filter from setup_filter(); None = one tap of 1.
    b: torch.Tensor | None = None,  # Bias [C]; None = no bias.
    up: int = 1,  # Upsampling factor.
    down: int = 1,  # Downsampling factor.
    padding: int | Sequence[int] = 0,  # Pixels of the upsampled image: a number, [x, y] or [x0, x1, y0, y1].
    gain: float = math.sqrt(2),  # Factor behind the leaky ReLU.
    slope: float = 0.2,  # Its slope for negative inputs.
    clamp: float | None = None,  # Limit the activations to [-clamp, clamp]; None = no limit.
    flip_filter: bool = False,  # False = convolution, True = correlation.
    impl: str = 'cuda',  # 'cuda' = CUDA forms where possible, 'ref' = the plain form.
) -> torch.Tensor:
    """Return the images after bias, upsampling, gain * leaky ReLU, clamping and downsampling; differentiable twice.

    With W the width of x the result has the width (W * up + x0 + x1 - fu width + 1 - fd width) // down + 1, likewise
    the height. It is the composition of `bias_act` and two `upfirdn2d`; what lies between is rounded to the dtype of x, or, where
    the CUDA form does all of it at once (the factors of StyleGAN3), to float32.
    """
    if x.ndim != 4:
        raise ValueError('filtered_lrelu: the activations must be a tensor [N, C, H, W]')
    if b is not None and b.dtype != x.dtype:
        raise ValueError(f'filtered_lrelu: the bias is {b.dtype}, the activations are {x.dtype}')
    for f in (fu, fd):
        _get_filter_size(f)
    sides = _parse_padding(padding)
    if fu is not None and fd is not None and filtered_lrelu_cuda.is_possible(fu, fd, up, down):
        plugin = cuda_plugins.plugin_for('filtered_lrelu', x, impl, _probe)
        fine = x.shape[3] * up + sides[0] + sides[1], x.shape[2] * up + sides[2] + sides[3]
        if plugin is not None and gain > 0 and min(fine) >= fu.shape[0] + fd.shape[0] - 1:
            limit = -1.0 if clamp is None else float(clamp)
            options = filtered_lrelu_cuda.Options(plugin, up, down, sides, float(gain), float(slope), limit, bool(flip_filter))
            return filtered_lrelu_cuda.run(x, fu, fd, b, options)
    if b is not None:
        x = bias_act(x, b, impl=impl)
    x = upfirdn2d(x, fu, up=up, padding=list(sides), gain=up**2, flip_filter=flip_filter, impl=impl)
    x = bias_act(x, act='lrelu', alpha=slope, gain=gain, clamp=clamp, impl=impl)
    return upfirdn2d(x, fd, down=down, flip_filter=flip_filter, impl=impl)


def _probe(plugin: ModuleType, x: torch.Tensor) -> torch.Tensor:
    options = filtered_lrelu_cuda.Options(plugin, 2, 2, (1, 1, 1, 1), 1.0, 0.2, -1.0, False)
    one = torch.ones([1], device=x.device)
    return filtered_lrelu_cuda.run(x, one, one, None, options)
