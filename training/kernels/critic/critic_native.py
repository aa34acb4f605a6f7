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
from training.kernels.critic.critic_passes import Workspace

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


class NativePasses:
    """The passes of `Workspace` in blocks of samples that stay in the cache."""

    def __init__(self, library: ctypes.CDLL, name: str, layers: CriticLayers, length: int, features: int) -> None:
        self.layers = layers.modules  # kept, so that no other layer can have the same identity
        slopes = [slope for _, slope in [*layers.embedding, *layers.convolutions]]
        widths = [layer.weight.shape[0] for layer in layers.modules[:-1]]
        create = getattr(library, f'critic_create_{name}')
        create.restype = ctypes.c_void_p
        handle = create(
            features,
            length,
            len(layers.embedding),
            len(widths),
            (ctypes.c_int * len(widths))(*widths),
            (ctypes.c_double * len(slopes))(*slopes),
        )
        self.handle = ctypes.c_void_p(handle)
        weakref.finalize(self, getattr(library, f'critic_destroy_{name}'), self.handle)
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
