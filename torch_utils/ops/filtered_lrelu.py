"""Leaky ReLU at a raised sampling rate, between an upsampling and a downsampling filter (StyleGAN3)."""

from __future__ import annotations

import math
from typing import Any

import torch

from .bias_act import bias_act
from .upfirdn2d import _get_filter_size, _parse_padding, upfirdn2d


def filtered_lrelu(
    x: torch.Tensor,  # Activations [N, C, H, W].
    fu: torch.Tensor | None = None,  # Upsampling filter from setup_filter(); None = one tap of 1.
    fd: torch.Tensor | None = None,  # Downsampling filter from setup_filter(); None = one tap of 1.
    b: torch.Tensor | None = None,  # Bias [C]; None = no bias.
    up: int = 1,  # Upsampling factor.
    down: int = 1,  # Downsampling factor.
    padding: Any = 0,  # Pixels of the upsampled image: a number, [x, y] or [x0, x1, y0, y1].
    gain: float = math.sqrt(2),  # Factor behind the leaky ReLU.
    slope: float = 0.2,  # Its slope for negative inputs.
    clamp: float | None = None,  # Limit the activations to [-clamp, clamp]; None = no limit.
    flip_filter: bool = False,  # False = convolution, True = correlation.
    impl: str = 'cuda',  # 'cuda' = CUDA forms where possible, 'ref' = the plain form.
) -> torch.Tensor:
    """Return the images after bias, upsampling, gain * leaky ReLU, clamping and downsampling; differentiable twice.

    With W the width of x the result has the width (W * up + x0 + x1 - fu width + 1 - fd width) // down + 1, likewise
    the height. It is the composition of `bias_act` and two `upfirdn2d`, with all that lies between in the dtype of x.
    """
    if x.ndim != 4:
        raise ValueError('filtered_lrelu: the activations must be a tensor [N, C, H, W]')
    if b is not None and b.dtype != x.dtype:
        raise ValueError(f'filtered_lrelu: the bias is {b.dtype}, the activations are {x.dtype}')
    for f in (fu, fd):
        _get_filter_size(f)
    if b is not None:
        x = bias_act(x, b, impl=impl)
    x = upfirdn2d(x, fu, up=up, padding=list(_parse_padding(padding)), gain=up**2, flip_filter=flip_filter, impl=impl)
    x = bias_act(x, act='lrelu', alpha=slope, gain=gain, clamp=clamp, impl=impl)
    return upfirdn2d(x, fd, down=down, flip_filter=flip_filter, impl=impl)
