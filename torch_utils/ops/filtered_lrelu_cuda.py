"""CUDA form of filtered_lrelu: one launch, in which the upsampled image exists in a block's shared memory only.

    y = D f(U (x + b))        U: zeros between the samples, padding, filter, factor up^2     f(u) = clamp(gain lrelu(u))
                              D: filter, every down-th sample

f is piecewise linear. With the slopes s = f'(U (x + b)) computed anew from x, rather than kept,

    first gradient     dx = U^T (s * D^T dy)          of it, for dy        ddy = D (s * U ddx)

are of the same kind: resampling, a product with s, resampling. Transposed resampling swaps `up` and `down` and turns the filter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .cuda_plugins import ELEMENT_TYPES, current_stream

FORMS: tuple[tuple[int, int], ...] = ((2, 2), (4, 2))  # up and down that were compiled
MOST_TAPS = 64


class Options(NamedTuple):
    """Arguments of one filtered_lrelu, checked and complete, and the compiled module."""

    plugin: Any
    up: int
    down: int
    padding: tuple[int, int, int, int]  # x0, x1, y0, y1
    gain: float
    slope: float
    clamp: float  # negative = none
    flip_filter: bool


class _Resampling(NamedTuple):
    """Correlation with `taps`; place p meets (p - pad + t) / up, or is made of p * down - pad + t."""

    taps: torch.Tensor
    factor: int
    pad: tuple[int, int]


def is_possible(fu: torch.Tensor, fd: torch.Tensor, up: int, down: int) -> bool:
    """Whether there is a kernel for these factors and filters."""
    if (up, down) not in FORMS or any(f.requires_grad or f.shape[0] != f.shape[-1] for f in (fu, fd)):
        return False
    return max(fu.shape[0], fd.shape[0]) <= MOST_TAPS


def run(x: torch.Tensor, fu: torch.Tensor, fd: torch.Tensor, b: torch.Tensor | None, options: Options) -> torch.Tensor:
    """Return filtered_lrelu of a CUDA tensor, differentiable twice."""
    up_filter, down_filter = (f if options.flip_filter else f.flip(tuple(range(f.ndim))) for f in (fu, fd))
    return _FilteredLrelu.apply(x, b, up_filter.contiguous(), down_filter.contiguous(), options)


def _fine_size(x: torch.Tensor, taps: torch.Tensor, options: Options) -> tuple[int, int]:
    x0, x1, y0, y1 = options.padding
    more = 1 - taps.shape[0]
    return x.shape[3] * options.up + x0 + x1 + more, x.shape[2] * options.up + y0 + y1 + more


def _launch(
    x: torch.Tensor,
    b: torch.Tensor | None,
    z: torch.Tensor | None,
    fu: torch.Tensor,
    fd: torch.Tensor,
    options: Options,
    transposed: bool,
) -> torch.Tensor:
    """The function itself of x (no z), or its slopes at x applied to z: ddx, or, transposed, dy."""
    fine = _fine_size(x, fu, options)
    up = _Resampling(fu, options.up, (options.padding[0], options.padding[2]))
    down = _Resampling(fd, options.down, (0, 0))
    size = tuple((extent - fd.shape[0]) // options.down + 1 for extent in fine)
    scale, up_scale = 1.0, float(options.up**2)
    into, out = up, down
    if transposed:
        into, out, size, scale = _transposed(down), _transposed(up), (x.shape[3], x.shape[2]), up_scale
    elif z is not None:
        scale = up_scale
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    y = torch.empty((x.shape[0], x.shape[1], size[1], size[0]), dtype=x.dtype, device=x.device, memory_format=layout)
    with torch.cuda.device(x.device):
        options.plugin.filtered_lrelu(
            _images(x),
            (0, 0, 0, 0, 0, 0, 0) if z is None else _images(z),
            _images(y),
            0 if b is None else b.data_ptr(),
            *(_taps(resampling.taps) for resampling in (up, into, out)),
            (up.factor, into.factor, out.factor),
            up.pad,
            into.pad,
            out.pad,
            fine,
            (x.shape[0], x.shape[1]),
            (up_scale, scale),
            (options.gain, options.slope, options.clamp),
            ELEMENT_TYPES[x.dtype],
            current_stream(x),
        )
    return y


def _transposed(resampling: _Resampling) -> _Resampling:
    """Upsampling as downsampling, or the other way round, so that the matrix is transposed."""
    taps, factor, pad = resampling
    x, y = (taps.shape[0] - 1 - each for each in pad)
    return _Resampling(taps.flip(tuple(range(taps.ndim))).contiguous(), factor, (x, y))


def _images(x: torch.Tensor) -> tuple[int, ...]:
    return x.data_ptr(), x.shape[2], x.shape[3], *x.stride()


def _taps(f: torch.Tensor) -> tuple[int, int, int]:
    return f.data_ptr(), f.shape[0], int(f.ndim == 1)


class _FilteredLrelu(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, b: torch.Tensor | None, fu: torch.Tensor, fd: torch.Tensor, options: Options
    ) -> torch.Tensor:
        ctx.save_for_backward(x, b, fu, fd)
        ctx.options = options
        return _launch(x, b, None, fu, fd, options, transposed=False)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, b, fu, fd = ctx.saved_tensors
        dx = _Slopes.apply(dy, x, b, fu, fd, ctx.options, True)
        return dx, dx.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[1] else None, None, None, None


class _Slopes(torch.autograd.Function):
    """The slopes at x + b, constant almost everywhere, applied to z."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        z: torch.Tensor,
        x: torch.Tensor,
        b: torch.Tensor | None,
        fu: torch.Tensor,
        fd: torch.Tensor,
        options: Options,
        transposed: bool,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, b, fu, fd)
        ctx.options, ctx.transposed = options, transposed
        return _launch(x, b, z, fu, fd, options, transposed)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        return _Slopes.apply(g, *ctx.saved_tensors, ctx.options, not ctx.transposed), None, None, None, None, None, None
