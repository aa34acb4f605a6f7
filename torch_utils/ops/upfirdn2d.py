"""Resampling of images: zeros between the samples, padding, a finite filter, and every n-th sample kept."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F

#----------------------------------------------------------------------------
# Arguments.


def _parse_scaling(scaling: Any) -> tuple[int, int]:
    """Return (x, y) of a factor or of a pair of factors."""
    pair = tuple(map(operator.index, scaling if isinstance(scaling, (list, tuple)) else [scaling] * 2))
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f'upfirdn2d: {scaling!r} is not a positive whole factor, nor a pair [x, y] of them')
    return pair[0], pair[1]


def _parse_padding(padding: Any) -> tuple[int, int, int, int]:
    """Return (x0, x1, y0, y1) of one padding, of [x, y], or of all four; negative numbers crop."""
    sides = list(map(operator.index, padding if isinstance(padding, (list, tuple)) else [padding] * 4))
    if len(sides) == 2:
        sides = [sides[0], sides[0], sides[1], sides[1]]
    if len(sides) != 4:
        raise ValueError(f'upfirdn2d: {padding!r} is not a whole number, nor a list [x, y] or [x0, x1, y0, y1]')
    return sides[0], sides[1], sides[2], sides[3]


def _get_filter_size(f: torch.Tensor | None) -> tuple[int, int]:
    """Return (width, height) of a filter [h, w], of a separable filter [taps], or of no filter."""
    if f is None:
        return 1, 1
    if not isinstance(f, torch.Tensor) or f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError('upfirdn2d: the filter must be a tensor [taps] or [height, width]; setup_filter makes one')
    return int(f.shape[-1]), int(f.shape[0])


def setup_filter(
    f:           Any,                              # Filter [height, width] or [taps] (separable), a number, or None.
    device:      torch.device | str = 'cpu',       # Where to put the result.
    normalize:   bool = True,                      # Scale to a sum of 1: constant images keep their value.
    flip_filter: bool = False,                     # Turn the filter by 180 degrees.
    gain:        float = 1,                        # Factor on images that the filter is applied to.
    separable:   bool | None = None,               # Keep [taps] separable; None = if that is faster (8 taps and more).
) -> torch.Tensor:
    """Return the filter as upfirdn2d wants it: float32, [height, width] or [taps] (separable).

    A separable filter is applied along both dimensions, so each of its passes carries the square root of the gain.
    """
    taps = torch.as_tensor(1 if f is None else f, dtype=torch.float32)
    if taps.ndim > 2 or taps.numel() == 0:
        raise ValueError(f'setup_filter: the filter has shape {list(taps.shape)}, it must be [taps] or [height, width]')
    taps = taps.reshape(1) if taps.ndim == 0 else taps
    if taps.ndim == 1 and not (taps.numel() >= 8 if separable is None else separable):
        taps = torch.outer(taps, taps)
    if separable and taps.ndim != 1:
        raise ValueError('setup_filter: a filter [height, width] cannot be made separable')
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(tuple(range(taps.ndim)))
    return (taps * gain ** (taps.ndim / 2)).to(device=device)


#----------------------------------------------------------------------------
# The operation.


def upfirdn2d(
    x:           torch.Tensor,         # Images [N, C, H, W].
    f:           torch.Tensor | None,  # Filter [height, width] or [taps] (separable), float32; None = one tap of 1.
    up:          Any = 1,              # Upsampling factor, or [x, y].
    down:        Any = 1,              # Downsampling factor, or [x, y].
    padding:     Any = 0,              # Zeros around the upsampled image: one number, [x, y] or [x0, x1, y0, y1].
    flip_filter: bool = False,         # False = convolution, True = correlation.
    gain:        float = 1,            # Factor on the result.
    impl:        str = 'cuda',         # 'cuda' = the CUDA form where possible, 'ref' = the plain form.
) -> torch.Tensor:
    """Upsample by inserting zeros, pad or crop, filter, and keep every `down`-th sample. Differentiable twice.

    Each sample is followed by up-1 zeros; negative padding crops. With W the width of x the result has the width
    (W * up + x0 + x1 - filter width) // down + 1, likewise the height. Raises ValueError where that is less than 1.
    """
    if impl not in ('ref', 'cuda'):
        raise ValueError(f"upfirdn2d: impl is {impl!r}, it must be 'ref' or 'cuda'")
    if not isinstance(x, torch.Tensor) or x.ndim != 4:
        raise ValueError('upfirdn2d: the images must be a tensor [N, C, H, W]')
    up, down, padding = _parse_scaling(up), _parse_scaling(down), _parse_padding(padding)
    filter_size = _get_filter_size(f)
    for axis, name in enumerate(('width', 'height')):
        size = x.shape[3 - axis] * up[axis] + padding[2 * axis] + padding[2 * axis + 1]
        if size < filter_size[axis]:
            raise ValueError(f'upfirdn2d: the padded {name} {size} is smaller than the filter ({filter_size[axis]})')
    return _upfirdn2d_plain(x, f, up, down, padding, flip_filter, gain)


def filter2d(
    x: torch.Tensor, f: torch.Tensor | None, padding: Any = 0, flip_filter: bool = False, gain: float = 1,
    impl: str = 'cuda',
) -> torch.Tensor:
    """Filter images [N, C, H, W]; the size stays, but for `padding` more."""
    return _resample(x, f, 1, 1, padding, flip_filter, gain, impl)


def upsample2d(
    x: torch.Tensor, f: torch.Tensor | None, up: Any = 2, padding: Any = 0, flip_filter: bool = False,
    gain: float = 1, impl: str = 'cuda',
) -> torch.Tensor:
    """Upsample images [N, C, H, W] by `up`, keeping their brightness; `padding` counts in pixels of the result."""
    return _resample(x, f, up, 1, padding, flip_filter, gain, impl)


def downsample2d(
    x: torch.Tensor, f: torch.Tensor | None, down: Any = 2, padding: Any = 0, flip_filter: bool = False,
    gain: float = 1, impl: str = 'cuda',
) -> torch.Tensor:
    """Downsample images [N, C, H, W] by `down`; `padding` counts in pixels of x."""
    return _resample(x, f, 1, down, padding, flip_filter, gain, impl)


def _resample(
    x: torch.Tensor, f: torch.Tensor | None, up: Any, down: Any, padding: Any, flip_filter: bool, gain: float, impl: str
) -> torch.Tensor:
    """Center the filter: the padding makes up for its width, less what the factors shift."""
    up_xy, down_xy, sides = _parse_scaling(up), _parse_scaling(down), list(_parse_padding(padding))
    for axis, (taps, u, d) in enumerate(zip(_get_filter_size(f), up_xy, down_xy, strict=True)):
        sides[2 * axis] += (taps + u - d) // 2
        sides[2 * axis + 1] += (taps - u - d + 1) // 2
    return upfirdn2d(x, f, list(up_xy), list(down_xy), sides, flip_filter, gain * up_xy[0] * up_xy[1], impl)


#----------------------------------------------------------------------------
# Plain form.


def _upfirdn2d_plain(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> torch.Tensor:
    batch, channels, height, width = x.shape
    if f is None:
        f = torch.ones([1, 1], dtype=torch.float32, device=x.device)
    x = x.reshape(batch * channels, 1, height, 1, width, 1)
    x = F.pad(x, [0, up[0] - 1, 0, 0, 0, up[1] - 1])
    x = F.pad(x.reshape(batch * channels, 1, height * up[1], width * up[0]), padding)
    kernel = f.to(x.dtype) * (gain ** (f.ndim / 2))
    if not flip_filter:
        kernel = kernel.flip(tuple(range(f.ndim)))
    if kernel.ndim == 2:
        x = F.conv2d(x, kernel[None, None], stride=(down[1], down[0]))
    else:
        x = F.conv2d(x, kernel[None, None, None, :], stride=(1, down[0]))
        x = F.conv2d(x, kernel[None, None, :, None], stride=(down[1], 1))
    return x.reshape(batch, channels, *x.shape[2:])
