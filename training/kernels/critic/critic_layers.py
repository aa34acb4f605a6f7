"""What a temporal critic is made of, where it is the plain one that the passes know."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from networks.temporal_critic import TemporalCritic

KERNEL, STRIDE, PADDING = 5, 2, 2


@dataclasses.dataclass(frozen=True)
class CriticLayers:
    """Layers of a critic, in order.

    Attributes:
        embedding: Linear layers that see one frame, with the slopes of what follows.
        convolutions: Over time, likewise.
        last: The linear layer to the score.
    """

    embedding: list[tuple[torch.nn.Linear, float]]
    convolutions: list[tuple[torch.nn.Conv1d, float]]
    last: torch.nn.Linear

    @property
    def modules(self) -> list[Any]:
        """All layers that have weights."""
        return [*(layer for layer, _ in [*self.embedding, *self.convolutions]), self.last]


def layers_of(C: torch.nn.Module) -> CriticLayers | None:
    """The layers of a plain TemporalCritic; None for everything else."""
    if type(C) is not TemporalCritic or 'forward' in vars(C):
        return None
    leaves = [*C.E, *C.TConv]
    if len(C._modules) != 2 or any(each._modules for each in leaves) or any(map(_has_hooks, (C, C.E, C.TConv, *leaves))):
        return None
    *convolutions, flatten, last = C.TConv
    embedding, temporal = _pairs(list(C.E)), _pairs(convolutions)
    if embedding is None or temporal is None or not embedding + temporal:
        return None
    if type(flatten) is not torch.nn.Flatten or type(last) is not torch.nn.Linear or last.out_features != 1:
        return None
    if any(type(layer) is not torch.nn.Linear for layer, _ in embedding) or not all(_is_ours(layer) for layer, _ in temporal):
        return None
    if any(
        parameter is None
        for layer in [*(layer for layer, _ in embedding + temporal), last]
        for parameter in (layer.weight, layer.bias)
    ):
        return None
    return CriticLayers(embedding, temporal, last)


def _pairs(modules: list[torch.nn.Module]) -> list[tuple[Any, float]] | None:
    """[(layer, slope), ..] of a list layer, leaky ReLU, layer, ..; None where it is not one."""
    layers, activations = modules[::2], modules[1::2]
    if len(layers) != len(activations):
        return None
    slopes = [each.negative_slope for each in activations if type(each) is torch.nn.LeakyReLU and each.negative_slope >= 0]
    return list(zip(layers, slopes, strict=True)) if len(slopes) == len(layers) else None


def _is_ours(layer: torch.nn.Module) -> bool:
    return (
        type(layer) is torch.nn.Conv1d
        and layer.padding_mode == 'zeros'
        and layer.groups == 1
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((KERNEL,), (STRIDE,), (PADDING,), (1,))
    )


def _has_hooks(module: torch.nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


def gradient_of(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter's gradient, to be written over."""
    if parameter.grad is None or not parameter.grad.is_contiguous():
        parameter.grad = torch.empty_like(parameter, memory_format=torch.contiguous_format)
    return parameter.grad
