"""CUDA form of bias_act, with first and second gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .cuda_plugins import ELEMENT_TYPES, current_stream


class Options(NamedTuple):
    """Arguments of one bias_act, checked and complete, and the compiled module."""

    plugin: Any
    spec: Any  # entry of activation_funcs
    dim: int  # not negative
    alpha: float
    gain: float  # not 0
    clamp: float  # negative = none


def run(x: torch.Tensor, b: torch.Tensor | None, options: Options) -> torch.Tensor:
    """Return clamp(act(x + b) * gain) for a CUDA tensor, differentiable twice."""
    return _BiasAct.apply(x, b, options)


def _call(grad: int, options: Options, reference: torch.Tensor, **tensors: torch.Tensor | None) -> torch.Tensor:
    """Launch the kernel; the result and all tensors but b get the memory layout of `reference`, which is dense."""
    b = tensors.pop('b', None)
    dense = {name: _like(tensor, reference) for name, tensor in tensors.items() if tensor is not None}
    y = torch.empty_like(reference)
    if b is not None:
        dense['b'] = b.to(y.dtype).contiguous()
    addresses = [dense[name].data_ptr() if name in dense else 0 for name in ('x', 'b', 'xref', 'yref', 'dy')]
    with torch.cuda.device(y.device):
        options.plugin.bias_act(
            *addresses,
            y.data_ptr(),
            y.numel(),
            1 if b is None else b.numel(),
            max(y.stride(options.dim), 1),
            grad,
            options.spec.cuda_idx,
            options.alpha,
            options.gain,
            options.clamp,
            ELEMENT_TYPES[y.dtype],
            current_stream(y),
        )
    return y


def _dense(x: torch.Tensor) -> torch.Tensor:
    """Return x with memory that has neither gaps nor overlaps; a channels-last tensor stays one."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def _like(x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return x with the memory layout of a dense tensor."""
    return x if x.stride() == reference.stride() else torch.empty_like(reference).copy_(x)


def _sum_to_bias(dx: torch.Tensor, options: Options) -> torch.Tensor:
    return dx.sum([axis for axis in range(dx.ndim) if axis != options.dim])


class _BiasAct(torch.autograd.Function):
    """y = clamp(gain act(x + b))."""

    @staticmethod
    def forward(  # type: ignore[override,unused-ignore]
        ctx: Any, x: torch.Tensor, b: torch.Tensor | None, options: Options
    ) -> torch.Tensor:
        y = _call(0, options, _dense(x), x=x, b=b)
        needs_y = options.spec.ref == 'y'
        # second gradients of curved functions lead to x and b; what was clamped must be known, without y as well
        needs_x = options.spec.has_2nd_grad or (options.clamp >= 0 and not needs_y)
        ctx.save_for_backward(x if needs_x else None, b if needs_x else None, y if needs_y else None)
        ctx.options = options
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override,unused-ignore]
        x, b, y = ctx.saved_tensors
        dx = _BiasActGradient.apply(dy, x, b, y, ctx.options)
        return dx, _sum_to_bias(dx, ctx.options) if ctx.needs_input_grad[1] else None, None


class _BiasActGradient(torch.autograd.Function):
    """dx = dy gain act'(x + b), 0 where y was clamped; y is taken for its values only, being a function of x and b."""

    @staticmethod
    def forward(  # type: ignore[override,unused-ignore]
        ctx: Any, dy: torch.Tensor, x: torch.Tensor | None, b: torch.Tensor | None, y: torch.Tensor | None, options: Options
    ) -> torch.Tensor:
        ctx.save_for_backward(dy, x, b, y)
        ctx.options = options
        reference = _dense(dy if x is None else x) if y is None else y
        return _call(1, options, reference, x=dy, b=b, xref=x, yref=y)

    @staticmethod
    def backward(ctx: Any, ddx: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override,unused-ignore]
        dy, x, b, y = ctx.saved_tensors
        options = ctx.options
        ddy = _BiasActGradient.apply(ddx, x, b, y, options) if ctx.needs_input_grad[0] else None
        dx = db = None
        if options.spec.has_2nd_grad and any(ctx.needs_input_grad[1:3]):
            reference = _dense(x) if y is None else y
            dx = _call(2, options, reference, x=ddx, b=b, xref=x, yref=y, dy=dy)
            db = _sum_to_bias(dx, options) if ctx.needs_input_grad[2] else None
        return ddy, dx, db, None, None
