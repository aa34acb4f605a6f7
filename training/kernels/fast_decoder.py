"""The widening network T and the maps A of the generator as one operation in C++, where that can be had.

`coordinates(G, l)` gives what `G.coordinates(l)` gives, to rounding, with first derivatives only. Blocks of frames go through all
layers together, so that the wide activations are written once and read once.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch

from networks.latent_generator import LatentGenerator
from training.kernels import native_code

WIDE = 2048  # coordinates from which on PyTorch's products, made for large matrices, are faster


def coordinates(G: LatentGenerator, l: torch.Tensor) -> torch.Tensor:
    """Coordinates `[..., C]` of memories of the last cell `[..., latent_dim]`; C is what `G.coordinates` says."""
    layers = _layers(G)
    library = None if layers is None or G.A.out_features >= WIDE else _library(layers, l)
    return G.coordinates(l) if layers is None or library is None else _through(library, layers, l)


def widened(G: LatentGenerator, l: torch.Tensor) -> torch.Tensor:
    """T(l), what the maps A_j see, `[..., R]`."""
    layers = (_layers(G) or [])[:-1]
    library = _library(layers, l) if layers else None
    return G.T(l) if library is None else _through(library, layers, l)


def _library(layers: list[tuple[Any, float]], l: torch.Tensor) -> ctypes.CDLL | None:
    if (
        native_code.suffix(l) is None
        or l.numel() == 0
        or any(p.dtype != l.dtype for layer, _ in layers for p in layer.parameters())
    ):
        return None
    library = native_code.load('temporal_kernels')
    return library if library is not None and _agrees(library, l.dtype) else None


def _through(library: ctypes.CDLL, layers: list[tuple[Any, float]], l: torch.Tensor) -> torch.Tensor:
    parameters = [parameter for layer, _ in layers for parameter in (layer.weight, layer.bias)]
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (l, *parameters))
    flat = _Stack.apply(library, keep, tuple(slope for _, slope in layers), l.reshape(-1, l.shape[-1]), *parameters)
    return flat.view(*l.shape[:-1], flat.shape[1])


def _layers(G: LatentGenerator) -> list[tuple[Any, float]] | None:
    """[(linear map, slope of the leaky ReLU after it), ..]; None for anything but a plain generator."""
    if type(G) is not LatentGenerator:
        return None
    modules = [*G.T, G.A]
    if any(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in [G.T, *modules]):
        return None
    linear, activations = modules[::2], modules[1::2]
    if any(type(each) is not torch.nn.Linear or each.bias is None for each in linear):
        return None
    slopes = [each.negative_slope for each in activations if type(each) is torch.nn.LeakyReLU and each.negative_slope >= 0]
    return list(zip(linear, [*slopes, 1.0], strict=True)) if len(slopes) == len(activations) else None


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, library: ctypes.CDLL, keep: bool, slopes: Sequence[float], x: torch.Tensor, *parameters: torch.Tensor
    ) -> torch.Tensor:
        x = x.contiguous()
        parameters = tuple(parameter.contiguous() for parameter in parameters)
        widths = [x.shape[1], *(weight.shape[0] for weight in parameters[::2])]
        kept = []
        if keep:
            lanes = getattr(library, f'lanes_{native_code.suffix(x)}')()
            kept = [x.new_empty(len(x), -(-width // lanes) * lanes) for width in widths[1:-1]]
        out = x.new_empty(len(x), widths[-1])
        ctx.call = (library, widths, slopes)
        _call('forward', ctx.call, parameters, [x, kept if kept else None, out])
        ctx.save_for_backward(x, *parameters, *kept, *([] if slopes[-1] == 1 else [out]))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        x, *rest = ctx.saved_tensors
        num_parameters = 2 * len(ctx.call[2])
        parameters, kept = rest[:num_parameters], rest[num_parameters : num_parameters + len(ctx.call[2]) - 1]
        if ctx.call[2][-1] != 1:  # the stack ends with a leaky ReLU, which the compiled pass does not know
            g_out = torch.ops.aten.leaky_relu_backward(g_out, rest[-1], ctx.call[2][-1], True)
        g_x = torch.empty_like(x) if ctx.needs_input_grad[3] else None
        gradients = [torch.empty_like(parameter) for parameter in parameters]
        _call('backward', ctx.call, parameters, [x, kept, g_out.contiguous(), g_x, gradients])
        return None, None, None, g_x, *gradients


def _call(name: str, call: tuple[Any, ...], parameters: Sequence[torch.Tensor], arguments: Sequence[Any]) -> None:
    """Call a function of temporal_kernels.cpp; lists become arrays of addresses, tensors addresses."""
    library, widths, slopes = call
    function = getattr(library, f'stack_{name}_{native_code.suffix(arguments[0])}')
    function(
        len(arguments[0]),
        len(slopes),
        (ctypes.c_int * len(widths))(*widths),
        (ctypes.c_double * len(slopes))(*slopes),
        native_code.pointers(parameters),
        *[
            None if each is None else native_code.pointers(each) if isinstance(each, list) else native_code.pointer(each)
            for each in arguments
        ],
    )


@functools.cache
def _agrees(library: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Whether values and gradients are those of PyTorch's operations, on a small generator."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        G = LatentGenerator(2, 5, widening_widths=[19, 34], num_components=3).to(dtype)
        l = torch.randn(131, G.latent_dim, dtype=dtype).requires_grad_(True)
        layers = _layers(G)
        assert layers is not None
        parameters = [parameter for layer, _ in layers for parameter in (layer.weight, layer.bias)]
        results = []
        for y in (_through(library, layers, l), G.coordinates(l)):
            results.append([y, *torch.autograd.grad(y.sin().sum(), [l, *parameters])])
        for y in (_through(library, layers[:-1], l), G.T(l)):
            results.append([y, *torch.autograd.grad(y.sin().sum(), [l, *parameters[:-2]])])
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    pairs = [pair for both in (results[:2], results[2:]) for pair in zip(*both, strict=True)]
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)
