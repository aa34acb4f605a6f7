"""The passes of a critic update in C++, where there is a compiler."""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from networks.temporal_critic import TemporalCritic
from training.kernels import native_code
from training.kernels.critic.critic_layers import CriticLayers, gradient_of, layers_of
from training.kernels.critic.critic_passes import Between, Workspace
from training.kernels.critic.wide_products import wide_kernels

_natives: weakref.WeakKeyDictionary[torch.nn.Module, tuple[tuple[Any, ...], NativePasses]] = weakref.WeakKeyDictionary()


def native_passes(C: torch.nn.Module, layers: CriticLayers, like: torch.Tensor, shape: Sequence[int]) -> NativePasses | None:
    """The compiled form for this critic, kept as long as the critic lives; None where it cannot be had."""
    name = native_code.suffix(like)
    if name is None or like.dtype != layers.last.weight.dtype or shape[0] == 0:
        return None
    if tuple(shape[1:]) != (C.num_frames, C.num_features):  # type: ignore[comparison-overlap,unused-ignore]
        return None
    library = native_code.load('temporal_kernels')
    if library is None or not _agrees(library, like.dtype):
        return None
    key = (name, *map(id, layers.modules))
    if C not in _natives or _natives[C][0] != key:
        _natives[C] = (key, NativePasses(library, str(name), layers, shape[1], shape[2]))
    return _natives[C][1]


@functools.cache
def _agrees(library: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Whether the compiled form finds what PyTorch's operations find, on a small critic; a compiler may be wrong."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        C = TemporalCritic(5, num_frames=10, narrowing_widths=[18], temporal_channels=[7, 33]).to(dtype)
        layers = layers_of(C)
        real, fake, mix = torch.randn(11, 10, 5, dtype=dtype), torch.randn(11, 10, 5, dtype=dtype), torch.rand(11, dtype=dtype)
    assert layers is not None
    native = NativePasses(library, str(native_code.suffix(real)), layers, 10, 5)
    results = []
    for form in (native, Workspace(layers, 33, 10, real)):
        values = form.update(real, fake, mix, 10.0)
        results.append([value.clone() for value in [*values, *(gradient_of(parameter) for parameter in C.parameters())]])
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(*results, strict=True))


def native_wide_passes(layers: CriticLayers, length: int, like: torch.Tensor) -> NativeWidePasses | None:
    """The compiled form behind a wide first layer; None where it cannot be had."""
    name = native_code.suffix(like)
    if name is None or like.dtype != layers.last.weight.dtype:
        return None
    library = wide_kernels(like.dtype)
    if library is None or not _wide_agrees(library, like.dtype):
        return None
    return NativeWidePasses(library, name, layers, length)


@functools.cache
def _wide_agrees(library: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """The same of the form behind a wide first layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        C = TemporalCritic(40, num_frames=10, narrowing_widths=[18, 9], temporal_channels=[7, 33]).to(dtype)
        real, fake, mix = torch.randn(11, 10, 18, dtype=dtype), torch.randn(11, 10, 18, dtype=dtype), torch.rand(11, dtype=dtype)
    layers = layers_of(C)
    assert layers is not None
    first = layers.embedding[0]
    tail = CriticLayers(layers.embedding[1:], layers.convolutions, layers.last)
    results = []
    with torch.no_grad():
        gram = first[0].weight @ first[0].weight.t()
        native = NativeWidePasses(library, str(native_code.suffix(real)), layers, 10)
        for form, count in (
            (native, 11),
            (Between(*first, tail, 11, 10, real), 11),
            (native, 33),
            (Between(*first, tail, 33, 10, real), 33),
        ):
            if count == 11:
                results.append(list(form.scores_and_d(real)))
                continue
            values = form.update(real, fake, gram, mix, 10.0)
            rest = [gradient_of(parameter) for parameter in list(C.parameters())[1:]]
            results.append([value.clone() for value in [*values, *rest]])
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    pairs = [*zip(results[0], results[1], strict=True), *zip(results[2], results[3], strict=True)]
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


def create(owner: object, library: ctypes.CDLL, kind: str, name: str, layers: CriticLayers, *sizes: int) -> ctypes.c_void_p:
    """Passes of a kind for these layers in C++, which end with their owner; `sizes` are what the kind wants first."""
    slopes = [slope for _, slope in [*layers.embedding, *layers.convolutions]]
    widths = [layer.weight.shape[0] for layer in layers.modules[:-1]]
    make = getattr(library, f'{kind}_create_{name}')
    make.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(
        make(
            *sizes,
            len(layers.embedding),
            len(widths),
            (ctypes.c_int * len(widths))(*widths),
            (ctypes.c_double * len(slopes))(*slopes),
        )
    )
    weakref.finalize(owner, getattr(library, f'{kind}_destroy_{name}'), handle)
    return handle


class NativePasses:
    """The passes of `Workspace` in blocks of samples that stay in the cache."""

    def __init__(self, library: ctypes.CDLL, name: str, layers: CriticLayers, length: int, features: int) -> None:
        self.layers = layers.modules  # kept, so that no other layer can have the same identity
        self.handle = create(self, library, 'critic', name, layers, features, length)
        self._update = getattr(library, f'critic_update_{name}')
        self._input_gradient = getattr(library, f'critic_input_gradient_{name}')

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter.contiguous() for layer in self.layers for parameter in (layer.weight, layer.bias)]

    def update(
        self, real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor, lambda_gp: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See critic_gradients()."""
        batch = len(real)
        real, fake, mix = real.contiguous(), fake.contiguous(), mix.contiguous()
        parameters = self._parameters()
        gradients = [gradient_of(parameter) for layer in self.layers for parameter in (layer.weight, layer.bias)]
        scores, penalty = real.new_empty(2, batch), real.new_empty(batch)
        self._update(
            self.handle,
            native_code.pointers(parameters),
            native_code.pointers(gradients),
            native_code.pointer(real),
            native_code.pointer(fake),
            native_code.pointer(mix),
            batch,
            ctypes.c_double(lambda_gp),
            native_code.pointer(scores),
            native_code.pointer(penalty),
        )
        return scores[0], scores[1], penalty

    def scores_and_input_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See critic_scores_and_input_gradient()."""
        x = x.contiguous()
        parameters = self._parameters()
        scores, gradient = x.new_empty(len(x)), torch.empty_like(x)
        self._input_gradient(
            self.handle,
            native_code.pointers(parameters),
            native_code.pointer(x),
            len(x),
            native_code.pointer(scores),
            native_code.pointer(gradient),
        )
        return scores, gradient


class NativeWidePasses:
    """The passes behind a first layer with thousands of inputs, see `critic_passes.WidePasses`."""

    def __init__(self, library: ctypes.CDLL, name: str, layers: CriticLayers, length: int) -> None:
        self.layers = layers.modules
        self.handle = create(self, library, 'wide', name, layers, length)
        self._scores = getattr(library, f'wide_scores_{name}')
        self._update = getattr(library, f'wide_update_{name}')

    def _parameters(self) -> list[torch.Tensor]:
        """All but the first weight."""
        return [parameter for layer in self.layers for parameter in (layer.weight, layer.bias)][1:]

    def scores_and_d(self, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See WideWorkspace."""
        sums = sums.contiguous()
        parameters = [parameter.contiguous() for parameter in self._parameters()]
        scores, d = sums.new_empty(len(sums)), torch.empty_like(sums)
        self._scores(
            self.handle,
            native_code.pointers(parameters),
            native_code.pointer(sums),
            len(sums),
            native_code.pointer(scores),
            native_code.pointer(d),
        )
        return scores, d

    def update(
        self, real: torch.Tensor, fake: torch.Tensor, gram: torch.Tensor, mix: torch.Tensor, lambda_gp: float
    ) -> tuple[torch.Tensor, ...]:
        """See WidePasses."""
        batch = len(mix)
        real, fake, gram, mix = real.contiguous(), fake.contiguous(), gram.contiguous(), mix.contiguous()
        parameters = [parameter.contiguous() for parameter in self._parameters()]
        gradients = [gradient_of(parameter) for parameter in self._parameters()]
        scores, penalty, d = real.new_empty(2, batch), real.new_empty(batch), real.new_empty(2, *real.shape)
        outer = torch.empty_like(gram)
        self._update(
            self.handle,
            native_code.pointers(parameters),
            native_code.pointers(gradients),
            native_code.pointer(real),
            native_code.pointer(fake),
            native_code.pointer(gram),
            native_code.pointer(mix),
            batch,
            ctypes.c_double(lambda_gp),
            native_code.pointer(scores),
            native_code.pointer(penalty),
            native_code.pointer(d),
            native_code.pointer(outer),
        )
        return scores[0], scores[1], penalty, d[0], d[1], outer
