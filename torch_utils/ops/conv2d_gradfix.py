"""Convolutions under the names that the networks call.

Older versions of PyTorch could not differentiate `conv2d` twice, which is what these names once repaired. Today's can,
so the calls go straight through. What remains is the context `no_weight_gradients`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

enabled = False  # Kept for scripts that set it; both values mean the same.
weight_gradients_disabled = False  # True within no_weight_gradients().


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Gradients computed within this context do not reach the weights of convolutions called through this module."""
    global weight_gradients_disabled  # noqa: PLW0603  scripts read this name
    before = weight_gradients_disabled
    weight_gradients_disabled = before or disable
    try:
        yield
    finally:
        weight_gradients_disabled = before


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """Return `torch.nn.functional.conv2d` of the same arguments."""
    return torch.nn.functional.conv2d(input, _gate(weight), bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    output_padding: int | tuple[int, int] = 0,
    groups: int = 1,
    dilation: int | tuple[int, int] = 1,
) -> torch.Tensor:
    """Return `torch.nn.functional.conv_transpose2d` of the same arguments."""
    return torch.nn.functional.conv_transpose2d(input, _gate(weight), bias, stride, padding, output_padding, groups, dilation)


def _gate(weight: torch.Tensor) -> torch.Tensor:
    return _WeightGate.apply(weight) if weight.requires_grad and torch.is_grad_enabled() else weight


class _WeightGate(torch.autograd.Function):
    """Identity that asks, at the time of the backward pass, whether gradients may go through."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:  # type: ignore[override,unused-ignore]
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, dw: torch.Tensor) -> torch.Tensor | None:  # type: ignore[override,unused-ignore]
        return None if weight_gradients_disabled else dw
