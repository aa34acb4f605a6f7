"""Bias, activation function, gain and clamping in one step."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

import dnnlib

from . import bias_act_cuda, cuda_plugins

# ----------------------------------------------------------------------------
# Activation functions.


def _activation(
    func: Callable[..., torch.Tensor],  # Maps (x, alpha) to the activations.
    def_alpha: float,  # Default of the shape parameter alpha.
    def_gain: float,  # Default gain: about keeps the variance.
    cuda_idx: int,  # Number of the function in the CUDA form.
    ref: str,  # What its gradient is computed from: input 'x', output 'y', nothing ''.
    has_2nd_grad: bool,  # Whether the second derivative is not zero.
) -> dnnlib.EasyDict:
    return dnnlib.EasyDict(
        func=func, def_alpha=def_alpha, def_gain=def_gain, cuda_idx=cuda_idx, ref=ref, has_2nd_grad=has_2nd_grad
    )


activation_funcs: dict[str, Any] = {
    'linear': _activation(lambda x, alpha=0, **_: x, 0, 1, 1, '', False),
    'relu': _activation(lambda x, alpha=0, **_: F.relu(x), 0, math.sqrt(2), 2, 'y', False),
    'lrelu': _activation(lambda x, alpha=0.2, **_: F.leaky_relu(x, alpha), 0.2, math.sqrt(2), 3, 'y', False),
    'tanh': _activation(lambda x, alpha=0, **_: torch.tanh(x), 0, 1, 4, 'y', True),
    'sigmoid': _activation(lambda x, alpha=0, **_: torch.sigmoid(x), 0, 1, 5, 'y', True),
    'elu': _activation(lambda x, alpha=0, **_: F.elu(x), 0, 1, 6, 'y', True),
    'selu': _activation(lambda x, alpha=0, **_: F.selu(x), 0, 1, 7, 'y', True),
    'softplus': _activation(lambda x, alpha=0, **_: F.softplus(x), 0, 1, 8, 'y', True),
    'swish': _activation(lambda x, alpha=0, **_: F.silu(x), 0, math.sqrt(2), 9, 'x', True),
}

# ----------------------------------------------------------------------------
# The operation.


def bias_act(
    x: torch.Tensor,  # Activations of any shape.
    b: torch.Tensor | None = None,  # Bias [x.shape[dim]], same dtype as x; None = no bias.
    dim: int = 1,  # Dimension of x that the bias belongs to.
    act: str = 'linear',  # Key of `activation_funcs`.
    alpha: float | None = None,  # Shape parameter of the activation function; None = its default.
    gain: float | None = None,  # Factor behind the activation function; None = its default.
    clamp: float | None = None,  # Limit the result to [-clamp, clamp]; None or negative = no limit.
    impl: str = 'cuda',  # 'cuda' = the CUDA form where possible, 'ref' = the plain form.
) -> torch.Tensor:
    """Return clamp(act(x + b) * gain), of the shape and dtype of x; differentiable twice."""
    plugin = cuda_plugins.plugin_for('bias_act', x, impl, _probe)
    spec = activation_funcs[act]
    alpha = float(spec.def_alpha if alpha is None else alpha)
    gain = float(spec.def_gain if gain is None else gain)
    limit = -1.0 if clamp is None else float(clamp)
    if b is not None and (b.ndim != 1 or not -x.ndim <= dim < x.ndim or b.shape[0] != x.shape[dim]):
        raise ValueError(f'bias_act: bias {list(b.shape)} does not fit dimension {dim} of {list(x.shape)}')
    if plugin is not None and gain != 0 and x.ndim > 0:
        return bias_act_cuda.run(x, b, bias_act_cuda.Options(plugin, spec, dim % x.ndim, alpha, gain, limit))
    # What the piecewise form keeps for its gradient is the result; after a linear one, networks go on in place.
    if not spec.has_2nd_grad and alpha >= 0 and gain > 0 and not (act == 'linear' and limit >= 0):
        slope = 1.0 if act == 'linear' else alpha if act == 'lrelu' else 0.0
        if torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad)):
            return _PiecewiseLinear.apply(x, b, dim % x.ndim, slope, gain, limit)
        return _piecewise_linear(x, b, dim, slope, gain, limit)
    return _plain(x, b, dim, act, alpha, gain, limit)


def _probe(plugin: ModuleType, x: torch.Tensor) -> torch.Tensor:
    return bias_act_cuda.run(x, None, bias_act_cuda.Options(plugin, activation_funcs['linear'], 1, 0.0, 1.0, -1.0))


def _along(b: torch.Tensor, dim: int, ndim: int) -> torch.Tensor:
    """Return the bias with ones around it, so that it broadcasts along its dimension."""
    return b.reshape([-1 if axis == dim % ndim else 1 for axis in range(ndim)])


# ----------------------------------------------------------------------------
# Plain form.


def _plain(x: torch.Tensor, b: torch.Tensor | None, dim: int, act: str, alpha: float, gain: float, limit: float) -> torch.Tensor:
    """The definition step by step."""
    if b is not None:
        x = x + _along(b, dim, x.ndim)
    y = activation_funcs[act].func(x, alpha=alpha) * gain
    return y.clamp(-limit, limit) if limit >= 0 else y


def _piecewise_linear(x: torch.Tensor, b: torch.Tensor | None, dim: int, slope: float, gain: float, limit: float) -> torch.Tensor:
    """Return clamp(gain * u), where u = x + b if that is positive, else slope * (x + b).

    Takes two passes over the memory where the definition takes five: a positive gain can go into the sum.
    """
    y = x * gain if b is None else torch.add(_along(b * gain, dim, x.ndim), x, alpha=gain)
    if slope != 1:
        F.leaky_relu_(y, slope)
    return y.clamp_(-limit, limit) if limit >= 0 else y


class _PiecewiseLinear(torch.autograd.Function):
    """All that its gradient needs to know is the sign of y and whether it was clamped."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, b: torch.Tensor | None, dim: int, slope: float, gain: float, limit: float
    ) -> torch.Tensor:
        y = _piecewise_linear(x, b, dim, slope, gain, limit)
        ctx.save_for_backward(y if slope != 1 else None)
        ctx.dim, ctx.slope, ctx.gain, ctx.limit = dim, slope, gain, limit
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        dx = _PiecewiseSlope.apply(dy, y, ctx.slope, ctx.gain, ctx.limit)
        db = dx.sum([axis for axis in range(dx.ndim) if axis != ctx.dim]) if ctx.needs_input_grad[1] else None
        return dx, db, None, None, None, None


class _PiecewiseSlope(torch.autograd.Function):
    """dx = dy times the slope at y, which is constant almost everywhere: no second derivative towards y."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, dy: torch.Tensor, y: torch.Tensor | None, slope: float, gain: float, limit: float
    ) -> torch.Tensor:
        ctx.save_for_backward(y)
        ctx.slope, ctx.gain, ctx.limit = slope, gain, limit
        if y is None:
            return dy * gain
        dx = dy
        if slope != 1:
            dx = torch.ops.aten.leaky_relu_backward(dx, y, slope, True)
        if limit >= 0:
            dx = torch.ops.aten.hardtanh_backward(dx, y, -limit, limit)
        return dx if gain == 1 else dx.mul_(gain)

    @staticmethod
    def backward(ctx: Any, ddx: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return _PiecewiseSlope.apply(ddx, y, ctx.slope, ctx.gain, ctx.limit), None, None, None, None
