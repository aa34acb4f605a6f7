"""Bias, activation function, gain and clamping in one step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

import dnnlib

#----------------------------------------------------------------------------
# Activation functions.


def _activation(
    func:         Callable[..., torch.Tensor],  # Maps (x, alpha) to the activations.
    def_alpha:    float,                        # Default of the shape parameter alpha.
    def_gain:     float,                        # Default gain: about keeps the variance.
    cuda_idx:     int,                          # Number of the function in the CUDA form.
    ref:          str,                          # What its gradient is computed from: input 'x', output 'y', nothing ''.
    has_2nd_grad: bool,                         # Whether the second derivative is not zero.
) -> dnnlib.EasyDict:
    return dnnlib.EasyDict(func=func, def_alpha=def_alpha, def_gain=def_gain, cuda_idx=cuda_idx, ref=ref,
                           has_2nd_grad=has_2nd_grad)


activation_funcs: dict[str, Any] = {
    'linear':   _activation(lambda x, alpha=0, **_: x,                          0,   1,            1, '',  False),
    'relu':     _activation(lambda x, alpha=0, **_: F.relu(x),                  0,   math.sqrt(2), 2, 'y', False),
    'lrelu':    _activation(lambda x, alpha=0.2, **_: F.leaky_relu(x, alpha),   0.2, math.sqrt(2), 3, 'y', False),
    'tanh':     _activation(lambda x, alpha=0, **_: torch.tanh(x),              0,   1,            4, 'y', True),
    'sigmoid':  _activation(lambda x, alpha=0, **_: torch.sigmoid(x),           0,   1,            5, 'y', True),
    'elu':      _activation(lambda x, alpha=0, **_: F.elu(x),                   0,   1,            6, 'y', True),
    'selu':     _activation(lambda x, alpha=0, **_: F.selu(x),                  0,   1,            7, 'y', True),
    'softplus': _activation(lambda x, alpha=0, **_: F.softplus(x),              0,   1,            8, 'y', True),
    'swish':    _activation(lambda x, alpha=0, **_: F.silu(x),                  0,   math.sqrt(2), 9, 'x', True),
}

#----------------------------------------------------------------------------
# The operation.


def bias_act(
    x:     torch.Tensor,                # Activations of any shape.
    b:     torch.Tensor | None = None,  # Bias [x.shape[dim]], same dtype as x; None = no bias.
    dim:   int = 1,                     # Dimension of x that the bias belongs to.
    act:   str = 'linear',              # Key of `activation_funcs`.
    alpha: float | None = None,         # Shape parameter of the activation function; None = its default.
    gain:  float | None = None,         # Factor behind the activation function; None = its default.
    clamp: float | None = None,         # Limit the result to [-clamp, clamp]; None or negative = no limit.
    impl:  str = 'cuda',                # 'cuda' = the CUDA form where possible, 'ref' = the plain form.
) -> torch.Tensor:
    """Return clamp(act(x + b) * gain), of the shape and dtype of x; differentiable twice."""
    if impl not in ('ref', 'cuda'):
        raise ValueError(f"bias_act: impl is {impl!r}, it must be 'ref' or 'cuda'")
    spec = activation_funcs[act]
    alpha = float(spec.def_alpha if alpha is None else alpha)
    gain = float(spec.def_gain if gain is None else gain)
    limit = -1.0 if clamp is None else float(clamp)
    if b is not None and (b.ndim != 1 or not -x.ndim <= dim < x.ndim or b.shape[0] != x.shape[dim]):
        raise ValueError(f'bias_act: bias {list(b.shape)} does not fit dimension {dim} of {list(x.shape)}')
    return _bias_act_plain(x, b, dim, act, alpha, gain, limit)


def _bias_act_plain(
    x: torch.Tensor, b: torch.Tensor | None, dim: int, act: str, alpha: float, gain: float, limit: float
) -> torch.Tensor:
    if b is not None:
        shape = [1] * x.ndim
        shape[dim] = -1
        x = x + b.reshape(shape)
    x = activation_funcs[act].func(x, alpha=alpha)
    if gain != 1:
        x = x * gain
    return x.clamp(-limit, limit) if limit >= 0 else x
