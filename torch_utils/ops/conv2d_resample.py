"""Convolution with upsampling before or downsampling after it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import conv2d_gradfix
from .upfirdn2d import _get_filter_size, _parse_padding, upfirdn2d


def conv2d_resample(
    x: torch.Tensor,  # Images [N, C_in, H, W].
    w: torch.Tensor,  # Kernels [C_out, C_in / groups, kh, kw].
    f: torch.Tensor | None = None,  # Resampling filter from setup_filter(); None = one tap of 1.
    up: int = 1,  # Upsampling factor.
    down: int = 1,  # Downsampling factor.
    padding: int | Sequence[int] = 0,  # Pixels of the upsampled image: one number, [x, y] or [x0, x1, y0, y1].
    groups: int = 1,  # Groups of channels.
    flip_weight: bool = True,  # True = correlation as torch.nn.functional.conv2d, False = convolution.
    flip_filter: bool = False,  # Turn the resampling filter by 180 degrees.
) -> torch.Tensor:
    """Upsample x by `up`, convolve with w, downsample by `down` -> [N, C_out, H', W'].

    The resampling filter is centered; `padding` is what the convolution needs beyond it, counted once, between the two.
    Equals an upfirdn2d with `up` (gain up^2), a convolution, and an upfirdn2d with `down`; the order of the parts is
    changed where that saves work without changing the result.
    """
    if x.ndim != 4 or w.ndim != 4 or w.dtype != x.dtype:
        raise ValueError('conv2d_resample: images and kernels must have four dimensions and the same dtype')
    if f is not None and (f.ndim not in (1, 2) or f.dtype != torch.float32):
        raise ValueError('conv2d_resample: the filter must be one from upfirdn2d.setup_filter')
    filter_size = _get_filter_size(f)
    sides = list(_parse_padding(padding))
    for axis, taps in enumerate(filter_size):
        sides[2 * axis] += (taps + up - 1) // 2 * (up > 1) + (taps - down + 1) // 2 * (down > 1)
        sides[2 * axis + 1] += (taps - up) // 2 * (up > 1) + (taps - down) // 2 * (down > 1)
    symmetric = sides[0] == sides[1] >= 0 and sides[2] == sides[3] >= 0
    kernel_height, kernel_width = w.shape[2:]

    if up == 1 and down == 1:
        if not symmetric:
            x, sides = upfirdn2d(x, None, padding=sides), [0, 0, 0, 0]
        return _convolve(x, w, padding=(sides[2], sides[0]), groups=groups, flip_weight=flip_weight)

    if kernel_height == kernel_width == 1:  # commutes with the filter: convolve where the image is smaller
        if up == 1:
            x = upfirdn2d(x, f, down=down, padding=sides, flip_filter=flip_filter)
            return _convolve(x, w, groups=groups, flip_weight=flip_weight)
        if down == 1:
            x = _convolve(x, w, groups=groups, flip_weight=flip_weight)
            return upfirdn2d(x, f, up=up, padding=sides, gain=up**2, flip_filter=flip_filter)

    if up == 1:
        x = upfirdn2d(x, f, padding=sides, flip_filter=flip_filter)
        return _convolve(x, w, stride=down, groups=groups, flip_weight=flip_weight)

    # Upsampling: the transposed convolution does not multiply the inserted zeros. It yields what a full convolution of
    # the upsampled image would (kernel size - 1 pixels on each side), but for up-1 zeros at the end.
    x = _convolve_transposed(x, w, stride=up, groups=groups, flip_weight=flip_weight)
    sides = [
        sides[0] - (kernel_width - 1),
        sides[1] - (kernel_width - up),
        sides[2] - (kernel_height - 1),
        sides[3] - (kernel_height - up),
    ]
    x = upfirdn2d(x, f, padding=sides, gain=up**2, flip_filter=flip_filter)
    return upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x


def _convolve(
    x: torch.Tensor, w: torch.Tensor, *, groups: int, flip_weight: bool, stride: int = 1, padding: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    if not flip_weight and max(w.shape[2:]) > 1:
        w = w.flip([2, 3])
    return conv2d_gradfix.conv2d(x, w, stride=stride, padding=padding, groups=groups)


def _convolve_transposed(x: torch.Tensor, w: torch.Tensor, *, stride: int, groups: int, flip_weight: bool) -> torch.Tensor:
    if flip_weight:  # a transposed convolution turns the kernel once more
        w = w.flip([2, 3])
    out_channels, in_channels, height, width = w.shape
    w = w.reshape(groups, out_channels // groups, in_channels, height, width).transpose(1, 2)
    w = w.reshape(groups * in_channels, out_channels // groups, height, width)
    return conv2d_gradfix.conv_transpose2d(x, w, stride=stride, groups=groups)
