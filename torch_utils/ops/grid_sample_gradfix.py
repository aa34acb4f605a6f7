"""Bilinear sampling that can be differentiated twice with respect to the picture.

`torch.nn.functional.grid_sample` has only first gradients in older versions of PyTorch. The picture's gradient is
linear in the gradient that arrives, so its own gradient is the sampling itself; that is all a gradient penalty on
augmented images needs. Second gradients that involve the positions are refused rather than returned wrong.
"""

from __future__ import annotations

from typing import Any

import torch

enabled = False  # Kept for scripts that set it; both values mean the same.


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample images [N, C, H, W] at positions [N, H', W', 2] -> [N, C, H', W'].

    Positions are (x, y) with -1 and 1 at the outer edges of the border pixels (align_corners=False); bilinear, zero
    outside.
    """
    if torch.is_grad_enabled() and (input.requires_grad or grid.requires_grad):
        return _GridSample.apply(input, grid)
    return _sample(input, grid)


def _sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.grid_sample(input, grid, mode='bilinear', padding_mode='zeros', align_corners=False)


class _GridSample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:  # type: ignore[override,unused-ignore]
        ctx.save_for_backward(input, grid)
        return _sample(input, grid)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override,unused-ignore]
        input, grid = ctx.saved_tensors
        return _GridSampleGradient.apply(dy, input, grid, list(ctx.needs_input_grad))


class _GridSampleGradient(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override,unused-ignore]
        ctx: Any, dy: torch.Tensor, input: torch.Tensor, grid: torch.Tensor, wanted: list[bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        ctx.save_for_backward(grid)
        bilinear, zeros = 0, 0  # numbers of the modes in PyTorch's GridSamplerUtils.h
        dx, dgrid = torch.ops.aten.grid_sampler_2d_backward(dy, input, grid, bilinear, zeros, False, wanted)
        return dx if wanted[0] else None, dgrid if wanted[1] else None

    @staticmethod
    def backward(ctx: Any, ddx: Any, ddgrid: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override,unused-ignore]
        if ctx.needs_input_grad[2] or ddgrid is not None:
            raise NotImplementedError('grid_sample: second gradients that involve the positions are not available')
        (grid,) = ctx.saved_tensors
        ddy = grid_sample(ddx, grid) if ctx.needs_input_grad[0] else None
        return ddy, None, None, None
