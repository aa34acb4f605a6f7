"""Multiply and add in one step."""

from __future__ import annotations

from typing import Any

import torch


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return a * b + c for tensors of shapes that broadcast; differentiable any number of times."""
    return _Fma.apply(a, b, c)


class _Fma(torch.autograd.Function):
    """addcmul with gradients that are reduced to the shapes of the inputs and skipped where nobody asks for them."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:  # type: ignore[override,unused-ignore]
        ctx.save_for_backward(a, b)
        ctx.c_shape = c.shape
        return torch.addcmul(c, a, b)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override,unused-ignore]
        a, b = ctx.saved_tensors
        wanted_a, wanted_b, wanted_c = ctx.needs_input_grad
        return (
            (dy * b).sum_to_size(a.shape) if wanted_a else None,
            (dy * a).sum_to_size(b.shape) if wanted_b else None,
            dy.sum_to_size(ctx.c_shape) if wanted_c else None,
        )
