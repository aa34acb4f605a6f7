"""Gradients of several ranks, added up in one message."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def sum_gradients(parameters: Iterable[torch.nn.Parameter], num_ranks: int, *, divisor: int = 1, flag: bool = False) -> bool:
    """Replace the gradients of these parameters by their sums over the ranks; all ranks call it together.

    Args:
        parameters: The same on every rank; those without a gradient have none on any rank.
        num_ranks: 1: nothing happens.
        divisor: Of the sums; the number of ranks makes them means.
        flag: What this rank says along.

    Returns:
        Whether any rank has said its flag.
    """
    if num_ranks == 1:
        return flag
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    said = gradients[0].new_full([1], float(flag))
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), said])
    torch.distributed.all_reduce(flat)
    if divisor != 1:
        flat /= divisor
    *sums, said = flat.split([*(gradient.numel() for gradient in gradients), 1])
    for gradient, total in zip(gradients, sums, strict=True):
        gradient.copy_(total.view_as(gradient))
    return bool(said > 0)
