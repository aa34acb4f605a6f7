"""Resampling of images: zeros between the samples, padding, a finite filter, and every n-th sample kept."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from . import cuda_plugins, upfirdn2d_cuda

# ----------------------------------------------------------------------------
# Arguments.


def _parse_scaling(scaling: int | Sequence[int]) -> tuple[int, int]:
    """Return (x, y) of a factor or of a pair of factors."""
    pair = tuple(map(operator.index, scaling if isinstance(scaling, (list, tuple)) else [scaling] * 2))
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f'upfirdn2d: {scaling!r} is not a positive whole factor, nor a pair [x, y] of them')
    return pair[0], pair[1]


def _parse_padding(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
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
    f: Any,  # Filter [height, width] or [taps] (separable), a number, or None.
    device: torch.device | str = 'cpu',  # Where to put the result.
    normalize: bool = True,  # Scale to a sum of 1: constant images keep their value.
    flip_filter: bool = False,  # Turn the filter by 180 degrees.
    gain: float = 1,  # Factor on images that the filter is applied to.
    separable: bool | None = None,  # Keep [taps] separable; None = if that is faster (8 taps and more).
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


# ----------------------------------------------------------------------------
# The operation.


def upfirdn2d(
    x: torch.Tensor,  # Images [N, C, H, W].
    f: torch.Tensor | None,  # Filter [height, width] or [taps] (separable), float32; None = one tap of 1.
    up: int | Sequence[int] = 1,  # Upsampling factor, or [x, y].
    down: int | Sequence[int] = 1,  # Downsampling factor, or [x, y].
    padding: int | Sequence[int] = 0,  # Zeros around the upsampled image: one number, [x, y] or [x0, x1, y0, y1].
    flip_filter: bool = False,  # False = convolution, True = correlation.
    gain: float = 1,  # Factor on the result.
    impl: str = 'cuda',  # 'cuda' = the CUDA form where possible, 'ref' = the plain form.
) -> torch.Tensor:
    """Upsample by inserting zeros, pad or crop, filter, and keep every `down`-th sample. Differentiable twice.

    Each sample is followed by up-1 zeros; negative padding crops. With W the width of x the result has the width
    (W * up + x0 + x1 - filter width) // down + 1, likewise the height. Raises ValueError where that is less than 1.
    """
    if not isinstance(x, torch.Tensor) or x.ndim != 4:
        raise ValueError('upfirdn2d: the images must be a tensor [N, C, H, W]')
    up, down, padding = _parse_scaling(up), _parse_scaling(down), _parse_padding(padding)
    filter_size = _get_filter_size(f)
    for axis, name in enumerate(('width', 'height')):
        size = x.shape[3 - axis] * up[axis] + padding[2 * axis] + padding[2 * axis + 1]
        if size < filter_size[axis]:
            raise ValueError(f'upfirdn2d: the padded {name} {size} is smaller than the filter ({filter_size[axis]})')
    if f is None:
        f = torch.ones([1, 1], dtype=torch.float32, device=x.device)
    resampling = _Resampling(up, down, padding, bool(flip_filter), float(gain))
    plugin = cuda_plugins.plugin_for('upfirdn2d', x, impl, _probe)
    if torch.is_grad_enabled() and f.requires_grad:
        return _insert_zeros_and_filter(x, f, resampling)
    return _differentiable(x, f, resampling, plugin)


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = 'cuda',
) -> torch.Tensor:
    """Filter images [N, C, H, W]; the size stays, but for `padding` more."""
    return _resample(x, f, 1, 1, padding, flip_filter, gain, impl)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = 'cuda',
) -> torch.Tensor:
    """Upsample images [N, C, H, W] by `up`, keeping their brightness; `padding` counts in pixels of the result."""
    return _resample(x, f, up, 1, padding, flip_filter, gain, impl)


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = 'cuda',
) -> torch.Tensor:
    """Downsample images [N, C, H, W] by `down`; `padding` counts in pixels of x."""
    return _resample(x, f, 1, down, padding, flip_filter, gain, impl)


def _resample(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: int | Sequence[int],
    down: int | Sequence[int],
    padding: int | Sequence[int],
    flip_filter: bool,
    gain: float,
    impl: str,
) -> torch.Tensor:
    """Center the filter: the padding makes up for its width, less what the factors shift."""
    up_xy, down_xy, sides = _parse_scaling(up), _parse_scaling(down), list(_parse_padding(padding))
    for axis, (taps, u, d) in enumerate(zip(_get_filter_size(f), up_xy, down_xy, strict=True)):
        sides[2 * axis] += (taps + u - d) // 2
        sides[2 * axis + 1] += (taps - u - d + 1) // 2
    return upfirdn2d(x, f, list(up_xy), list(down_xy), sides, flip_filter, gain * up_xy[0] * up_xy[1], impl)


# ----------------------------------------------------------------------------
# Gradient.


class _Resampling(NamedTuple):
    """Arguments of one upfirdn2d, checked and complete."""

    up: tuple[int, int]  # x, y
    down: tuple[int, int]  # x, y
    padding: tuple[int, int, int, int]  # x0, x1, y0, y1
    flip_filter: bool
    gain: float


def _differentiable(x: torch.Tensor, f: torch.Tensor, resampling: _Resampling, plugin: ModuleType) -> torch.Tensor:
    if torch.is_grad_enabled() and x.requires_grad:
        return _Upfirdn2d.apply(x, f, resampling, plugin)
    return _run(x, f, resampling, plugin)


def _probe(plugin: ModuleType, x: torch.Tensor) -> torch.Tensor:
    return upfirdn2d_cuda.run(plugin, x, x[0, 0], _Resampling((1, 1), (1, 1), (0, 0, 0, 0), False, 1.0))


def _run(x: torch.Tensor, f: torch.Tensor, resampling: _Resampling, plugin: ModuleType) -> torch.Tensor:
    return _plain(x, f, resampling) if plugin is None else upfirdn2d_cuda.run(plugin, x, f, resampling)


class _Upfirdn2d(torch.autograd.Function):
    """The operation is linear in x, and its transpose is one of its kind: `up` and `down` trade places."""

    @staticmethod
    def forward(  # type: ignore[override,unused-ignore]
        ctx: Any, x: torch.Tensor, f: torch.Tensor, resampling: _Resampling, plugin: ModuleType
    ) -> torch.Tensor:
        ctx.save_for_backward(f)
        ctx.resampling, ctx.plugin = resampling, plugin
        ctx.in_size = x.shape[3], x.shape[2]
        return _run(x, f, resampling, plugin)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override,unused-ignore]
        (f,) = ctx.saved_tensors
        up, down, padding, flip_filter, gain = ctx.resampling
        sides = []
        for axis, taps in enumerate(_get_filter_size(f)):
            first = taps - 1 - padding[2 * axis]
            # as many samples as x has, once the transpose has kept every up-th
            last = (ctx.in_size[axis] - 1) * up[axis] + taps - first - dy.shape[3 - axis] * down[axis]
            sides += [first, last]
        transposed = _Resampling(down, up, (sides[0], sides[1], sides[2], sides[3]), not flip_filter, gain)
        return _differentiable(dy, f, transposed, ctx.plugin), None, None, None


# ----------------------------------------------------------------------------
# Plain form.


def _plain(x: torch.Tensor, f: torch.Tensor, resampling: _Resampling) -> torch.Tensor:
    """Filter with the depthwise convolution that suits the device."""
    if x.shape[0] * x.shape[1] == 0:  # a convolution wants at least one plane
        size = [(x.shape[3 - axis] * resampling.up[axis] + sum(resampling.padding[2 * axis : 2 * axis + 2])
                 - _get_filter_size(f)[axis]) // resampling.down[axis] + 1 for axis in (1, 0)]  # fmt: skip
        return x.new_empty([*x.shape[:2], *size])
    # CPU: transposed convolutions skip the zeros in between. Elsewhere their grouped form is no faster than the zeros.
    return (_transpose_and_filter if x.device.type == 'cpu' else _insert_zeros_and_filter)(x, f, resampling)


def _passes(x: torch.Tensor, f: torch.Tensor, resampling: _Resampling) -> Iterator[tuple[torch.Tensor, _Resampling]]:
    """Yield the correlation kernel [h, w] and the arguments of one pass, or for a separable filter of two."""
    up, down, padding, flip_filter, gain = resampling
    kernel = (f if flip_filter else f.flip(tuple(range(f.ndim)))).to(x.dtype)
    if f.ndim == 2:
        yield kernel * gain if gain != 1 else kernel, resampling
    else:
        yield kernel[None, :], _Resampling((up[0], 1), (down[0], 1), (*padding[:2], 0, 0), True, 1)
        yield kernel[:, None] * gain, _Resampling((1, up[1]), (1, down[1]), (0, 0, *padding[2:]), True, 1)


def _insert_zeros_and_filter(x: torch.Tensor, f: torch.Tensor, resampling: _Resampling) -> torch.Tensor:
    """The definition step by step; f may require a gradient."""
    batch, channels = x.shape[:2]
    x = x.reshape(1, batch * channels, *x.shape[2:])
    for kernel, (up, down, padding, _, _) in _passes(x, f, resampling):
        _, planes, height, width = x.shape
        if up != (1, 1):
            x = F.pad(x.reshape(1, planes, height, 1, width, 1), [0, up[0] - 1, 0, 0, 0, up[1] - 1])
        x = F.pad(x.reshape(1, planes, height * up[1], width * up[0]), padding)
        weight = kernel.expand(planes, 1, -1, -1).contiguous()
        x = F.conv2d(x, weight, stride=(down[1], down[0]), groups=planes)
    return _unfold(x, batch, channels)


def _transpose_and_filter(x: torch.Tensor, f: torch.Tensor, resampling: _Resampling) -> torch.Tensor:
    """The same without multiplications by zero."""
    batch, channels = x.shape[:2]
    x = x.reshape(1, batch * channels, *x.shape[2:])
    planes = x.shape[1]
    for kernel, (up, down, padding, _, _) in _passes(x, f, resampling):
        taps_y, taps_x = kernel.shape
        if up == (1, 1):
            centered = padding[0] == padding[1] >= 0 and padding[2] == padding[3] >= 0
            own_padding = (padding[2], padding[0]) if centered else (0, 0)
            x = x if centered else F.pad(x, padding)
            weight = kernel.expand(planes, 1, -1, -1).contiguous()
            x = F.conv2d(x, weight, stride=(down[1], down[0]), padding=own_padding, groups=planes)
        else:
            # The transposed convolution has all that is not zero; cut off, or fill up, what the padding asks for.
            crop = [taps_x - 1 - padding[0], taps_x - up[0] - padding[1], taps_y - 1 - padding[2], taps_y - up[1] - padding[3]]
            own_crop = max(min(crop[2:]), 0), max(min(crop[:2]), 0)
            weight = kernel.flip([0, 1]).expand(planes, 1, -1, -1).contiguous()
            x = F.conv_transpose2d(x, weight, stride=(up[1], up[0]), padding=own_crop, groups=planes)
            rest = [own_crop[1 - index // 2] - cut for index, cut in enumerate(crop)]
            x = F.pad(x, rest) if any(rest) else x
            if down != (1, 1):
                x = x[:, :, :: down[1], :: down[0]].contiguous()
    return _unfold(x, batch, channels)


def _unfold(x: torch.Tensor, batch: int, channels: int) -> torch.Tensor:
    """Return x [1, batch * channels, H, W] as [batch, channels, H, W]; not as a view, so that `add_` on it works."""
    return torch.ops.aten._unsafe_view(x.contiguous(), [batch, channels, *x.shape[2:]])
