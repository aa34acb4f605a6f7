"""Scores and gradients of the temporal critic without autograd: one forward pass, one backward pass, one linearised one.

The critic is piecewise linear. With a_l = m_l * (W_l a_{l-1} + b_l), m_l the slope of the leaky ReLU at each number (1 or
`slope`), everything that a critic update needs follows from the masks m_l of one forward pass:

    backward    r_{l-1} = W_l^T (m_l * r_l)                          r_0 = dC/dx
    penalty     P = (||r_0|| - 1)^2,    v = dP/dr_0 = 2 (1 - 1 / ||r_0||) r_0
    linearised  u_0 = v,    u_l = m_l * (W_l u_{l-1})                the same r_l again give  dP/dW_l = (m_l * r_l) u_{l-1}^T

The masks do not change with the weights but on a set of measure zero, so this is the derivative that double backward through
autograd finds, to rounding. The biases have no part in r, so that P has no gradient for them. Real, fake and interpolated windows
share one forward and one backward pass, and one product a layer gives the weights' gradients of scores and penalty together.

A convolution of kernel 5, stride 2 and padding 2 is a product on pairs of frames: with activations as [N, frames, channels],
output t sees 5 neighbouring frames (one run of memory), and a pair of input frames is seen by 3 neighbouring outputs.

Anything but a plain `TemporalCritic` goes through autograd, with the same results.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from networks.temporal_critic import TemporalCritic
from training.kernels import native_code
from training.kernels.critic.wide_windows import Factored, Frames, Windows, WithMotion, as_tensor, as_windows
from training.temporal_loss import gradient_penalty

_KERNEL, _STRIDE, _PADDING = 5, 2, 2


def critic_gradients(
    C: torch.nn.Module, real: torch.Tensor | Windows, fake: torch.Tensor | Windows, mix: torch.Tensor, lambda_gp: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put the gradients of  E[C(fake)] - E[C(real)] + lambda_gp E[L_GP]  into `.grad` of C's parameters, in the place of others.

    Args:
        C: Critic.
        real, fake: Windows [N, frames, num_features] each, or what they are made of; no gradient goes to them.
        mix: Place of each sample on the line from real to fake, [N] in [0, 1].
        lambda_gp: Weight of the gradient penalty.

    Returns:
        Scores of real and of fake windows and L_GP before the mean, [N] each, without graph.
    """
    layers = _layers(C)
    if layers is None or not all(p.requires_grad for p in C.parameters()):
        return _by_autograd(C, as_tensor(real), as_tensor(fake), mix, lambda_gp)
    with torch.no_grad():
        passes = _passes(C, layers, 3 * real.shape[0], mix, real.shape)
        if isinstance(passes, _Wide):
            return passes.update(as_windows(real), as_windows(fake), mix, lambda_gp)
        return passes.update(as_tensor(real), as_tensor(fake), mix, lambda_gp)


def critic_scores_and_input_gradient(C: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """X [N, frames, num_features] -> (scores [N], gradient of each sample's score [N, frames, num_features]), without graph."""
    layers = _layers(C)
    if layers is None:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            scores = C(x)
            (gradient,) = torch.autograd.grad(scores.sum(), x)
        return scores.detach(), gradient
    with torch.no_grad():
        return _passes(C, layers, len(x), x, x.shape).scores_and_input_gradient(x)


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, C: torch.nn.Module) -> torch.Tensor:  # type: ignore[override, no-untyped-def]
        scores, gradient = critic_scores_and_input_gradient(C, x)
        ctx.save_for_backward(gradient)
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, weight: torch.Tensor):  # type: ignore[override, no-untyped-def]
        (gradient,) = ctx.saved_tensors
        return gradient * weight.view(-1, 1, 1), None


class _ScoresOfFactors(torch.autograd.Function):
    """Scores of t A^T + b, with their motion if there is a unit for it; gradients for t, A and b."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, t: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, unit: torch.Tensor | None, wide: _Wide
    ) -> torch.Tensor:
        factored = Factored(t, weight, bias)
        x = factored if unit is None else WithMotion(factored, unit)
        scores, d = wide.scores_and_d(x)
        first = wide.first.weight.detach().clone()  # the critic may have moved on before the backward pass
        ctx.save_for_backward(t, weight, d, first if not isinstance(x, WithMotion) else x.both(first))
        ctx.motion = unit is not None
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_scores: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        t, weight, d, first = ctx.saved_tensors
        d = d * of_scores.view(-1, 1, 1)
        flat = (WithMotion.spread(d) if ctx.motion else d).reshape(-1, len(first))
        of_t = (flat @ (first @ weight)).view_as(t)
        return of_t, first.t() @ (flat.t() @ t.reshape(len(flat), -1)), first.t() @ flat.sum(dim=0), None, None


def critic_scores(C: torch.nn.Module, x: torch.Tensor | Windows) -> torch.Tensor:
    """C(x) with a first derivative for x only: what the generator's update needs. x [N, frames, num_features] -> [N].

    Where x is made of factors, these get the derivatives.
    """
    y = x.y if isinstance(x, WithMotion) else x
    if isinstance(y, Factored):
        layers = _layers(C)
        passes = None if layers is None else _passes(C, layers, y.shape[0], y.t, x.shape)
        if isinstance(passes, _Wide):
            unit = x.unit if isinstance(x, WithMotion) else None
            return _ScoresOfFactors.apply(y.t, y.weight, y.bias, unit, passes)
    return _Scores.apply(as_tensor(x), C)


def _by_autograd(
    C: torch.nn.Module, real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor, lambda_gp: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with torch.enable_grad():
        real, fake = real.detach(), fake.detach()
        scores_real, scores_fake = C(torch.cat([real, fake])).split(len(real))
        penalty = gradient_penalty(C, real, fake, mix)
        loss = scores_fake.mean() - scores_real.mean() + lambda_gp * penalty.mean()
        for parameter in C.parameters():
            parameter.grad = None
        loss.backward()
    return scores_real.detach(), scores_fake.detach(), penalty.detach()


# What a critic is made of.


@dataclasses.dataclass(frozen=True)
class _Layers:
    embedding: list[tuple[torch.nn.Linear, float]]  # with the slopes of what follows
    convolutions: list[tuple[torch.nn.Conv1d, float]]
    last: torch.nn.Linear

    @property
    def modules(self) -> list[Any]:
        return [*(layer for layer, _ in [*self.embedding, *self.convolutions]), self.last]


def _layers(C: torch.nn.Module) -> _Layers | None:
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
    return _Layers(embedding, temporal, last)


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
        and (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == ((_KERNEL,), (_STRIDE,), (_PADDING,), (1,))
    )


def _has_hooks(module: torch.nn.Module) -> bool:
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


# Which form.

WIDE = 1024  # features from which on the first layer is most of the work


def _passes(
    C: torch.nn.Module, layers: _Layers, count: int, like: torch.Tensor, shape: Sequence[int]
) -> _Native | _Workspace | _Wide:
    """The form for windows of this shape, of which there are `count` in all, with numbers such as those of `like`."""
    tail = _Layers(layers.embedding[1:], layers.convolutions, layers.last)
    wide = shape[2] >= WIDE and len(layers.embedding) > 0 and len(tail.modules) > 1
    native = None if wide else _native(C, layers, like, shape)
    if native is not None:
        return native
    known = _workspaces.setdefault(C, {})
    key = (count, shape[1], like.dtype, like.device, wide, *map(id, layers.modules))
    if key not in known:
        while len(known) >= 2:
            del known[next(iter(known))]
        if wide:
            known[key] = _Wide(*layers.embedding[0], tail, count, shape[1], like)
        else:
            known[key] = _Workspace(layers, count, shape[1], like)
    return known[key]


# The passes in C++.

_natives: weakref.WeakKeyDictionary[torch.nn.Module, tuple[tuple[Any, ...], _Native]] = weakref.WeakKeyDictionary()


def _native(C: torch.nn.Module, layers: _Layers, like: torch.Tensor, shape: Sequence[int]) -> _Native | None:
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
        _natives[C] = (key, _Native(library, str(name), layers, shape[1], shape[2]))
    return _natives[C][1]


@functools.cache
def _agrees(library: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Whether the compiled form finds what PyTorch's operations find, on a small critic; a compiler may be wrong."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        C = TemporalCritic(5, num_frames=10, narrowing_widths=[18], temporal_channels=[7, 33]).to(dtype)
        layers = _layers(C)
        real, fake, mix = torch.randn(11, 10, 5, dtype=dtype), torch.randn(11, 10, 5, dtype=dtype), torch.rand(11, dtype=dtype)
    assert layers is not None
    native = _Native(library, str(native_code.suffix(real)), layers, 10, 5)
    results = []
    for form in (native, _Workspace(layers, 33, 10, real)):
        values = form.update(real, fake, mix, 10.0)
        results.append([value.clone() for value in [*values, *(_gradient(parameter) for parameter in C.parameters())]])
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(*results, strict=True))


class _Native:
    """The passes of `_Workspace` in blocks of samples that stay in the cache."""

    def __init__(self, library: ctypes.CDLL, name: str, layers: _Layers, length: int, features: int) -> None:
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
        gradients = [_gradient(parameter) for layer in self.layers for parameter in (layer.weight, layer.bias)]
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


# The passes out of PyTorch's operations.

_workspaces: weakref.WeakKeyDictionary[torch.nn.Module, dict[tuple[Any, ...], _Workspace | _Wide]] = weakref.WeakKeyDictionary()


def workspaces(C: torch.nn.Module) -> list[object]:
    """The buffers that the passes of a critic use, for those who have to keep them."""
    return list(_workspaces.get(C, {}).values())


class _Frames:
    """Buffers of one layer that works on every frame for itself."""

    def __init__(self, layer: torch.nn.Linear, slope: float, count: int, length: int, like: torch.Tensor) -> None:
        self.layer, self.slope, self.count, self.length = layer, slope, count, length
        self.inputs, self.outputs = layer.in_features, layer.out_features
        self.z = like.new_empty(count * length, self.outputs)
        self.delta = like.new_empty(count, length, self.outputs)  # m_l * r_l
        self.back = like.new_empty(count * length, self.inputs)  # r_{l-1}

    def weight(self) -> torch.Tensor:
        return self.layer.weight

    def product(self, x: torch.Tensor, samples: slice, bias: bool) -> torch.Tensor:
        """W x (+ b) of these samples, [samples, length, outputs]."""
        rows = slice(samples.start * self.length, samples.stop * self.length)
        z, flat = self.z[rows], x[samples].view(-1, self.inputs)
        if bias:
            torch.addmm(self.layer.bias, flat, self.layer.weight.t(), out=z)
        else:
            torch.mm(flat, self.layer.weight.t(), out=z)
        return z.view(-1, self.length, self.outputs)

    def transposed(self, samples: slice) -> torch.Tensor:
        """W^T delta of these samples, [samples, length, inputs]."""
        back = self.back[samples.start * self.length : samples.stop * self.length]
        torch.mm(self.delta[samples].view(-1, self.outputs), self.layer.weight, out=back)
        return back.view(-1, self.length, self.inputs)

    def input_buffer(self) -> torch.Tensor:
        return self.z.new_empty(self.count, self.length, self.inputs)

    def input_view(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def weight_gradient(self, x: torch.Tensor, out: torch.Tensor) -> None:
        torch.mm(self.delta.view(-1, self.outputs).t(), x.view(-1, self.inputs), out=out)


class _Convolution:
    """Buffers of one temporal convolution: `length` frames in, half of them (rounded up) out."""

    def __init__(self, layer: torch.nn.Conv1d, slope: float, count: int, length: int, like: torch.Tensor) -> None:
        self.layer, self.slope, self.count, self.input_length = layer, slope, count, length
        self.length = (length - 1) // _STRIDE + 1
        self.inputs, self.outputs = layer.in_channels, layer.out_channels
        self.columns = like.new_empty(count, self.length, _KERNEL * self.inputs)
        self.z = like.new_empty(count * self.length, self.outputs)
        self.padded_delta = like.new_zeros(count, self.length + 2, self.outputs)  # one output that is not there at each end
        self.delta = self.padded_delta[:, 1:-1]
        self.rows = like.new_empty(count, self.length, 3 * self.outputs)
        self.back = like.new_empty(count * self.length, 2 * self.inputs)
        self.forward_weight = like.new_empty(_KERNEL * self.inputs, self.outputs)
        self.backward_weight = like.new_zeros(3, self.outputs, 2, self.inputs)

    def prepare(self) -> None:
        """Take over the weight [outputs, inputs, 5] in the orders of the two products."""
        weight = self.layer.weight
        self.forward_weight.view(_KERNEL, self.inputs, self.outputs).copy_(weight.permute(2, 1, 0))
        # Frames 2 p and 2 p + 1 are taps 4, - of output p - 1, taps 2, 3 of output p, taps 0, 1 of output p + 1.
        taps = weight.permute(0, 2, 1)
        self.backward_weight[0, :, 0].copy_(taps[:, 4])
        self.backward_weight[1].copy_(taps[:, 2:4])
        self.backward_weight[2].copy_(taps[:, 0:2])

    def product(self, x: torch.Tensor, samples: slice, bias: bool) -> torch.Tensor:
        """W x (+ b) of these samples [samples, length, outputs]; x is padded, `input_buffer`."""
        padded = x[samples]
        columns = self.columns[samples]
        columns.copy_(padded.as_strided(columns.shape, (padded.stride(0), _STRIDE * self.inputs, 1), padded.storage_offset()))
        z, flat = self.z[samples.start * self.length : samples.stop * self.length], columns.view(-1, _KERNEL * self.inputs)
        if bias:
            torch.addmm(_there(self.layer.bias), flat, self.forward_weight, out=z)
        else:
            torch.mm(flat, self.forward_weight, out=z)
        return z.view(-1, self.length, self.outputs)

    def transposed(self, samples: slice) -> torch.Tensor:
        """W^T delta of these samples, [samples, input_length, inputs]."""
        delta, rows = self.padded_delta[samples], self.rows[samples]
        rows.copy_(delta.as_strided(rows.shape, (delta.stride(0), self.outputs, 1), delta.storage_offset()))
        back = self.back[samples.start * self.length : samples.stop * self.length]
        torch.mm(rows.view(-1, 3 * self.outputs), self.backward_weight.view(3 * self.outputs, -1), out=back)
        return back.view(-1, 2 * self.length, self.inputs)[:, : self.input_length]

    def input_buffer(self) -> torch.Tensor:
        return self.z.new_zeros(self.count, 2 * self.length + 3, self.inputs)

    def input_view(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, _PADDING : _PADDING + self.input_length]

    def weight_gradient(self, x: torch.Tensor, out: torch.Tensor) -> None:
        columns = self.columns.view(-1, _KERNEL * self.inputs)
        gradient = torch.mm(self.delta.reshape(-1, self.outputs).t(), columns)
        out.copy_(gradient.view(self.outputs, _KERNEL, self.inputs).permute(0, 2, 1))


class _Workspace:
    """All buffers for `count` windows of `length` frames, and the passes that fill them."""

    def __init__(self, layers: _Layers, count: int, length: int, like: torch.Tensor) -> None:
        self.count = count
        self.last = layers.last
        self.layers: list[_Frames | _Convolution] = []
        for linear, slope in layers.embedding:
            self.layers.append(_Frames(linear, slope, count, length, like))
        for convolution, slope in layers.convolutions:
            self.layers.append(_Convolution(convolution, slope, count, length, like))
            length = self.layers[-1].length
        self.inputs = [layer.input_buffer() for layer in self.layers]  # a_{l-1}, padded where a convolution follows
        self.length = length
        self.channels = layers.last.in_features // length
        self.top = like.new_empty(count, length, self.channels)  # a of the last but one layer
        views = [layer.input_view(x) for layer, x in zip(self.layers, self.inputs, strict=True)]
        self.input = views[0]
        self.views = [*views[1:], self.top]  # a_l without padding, for each layer
        self.top_weight = like.new_empty(length, self.channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Windows [count, length, features] -> scores [count]; the activations stay in the buffers."""
        if x is not self.input:
            self.input.copy_(x)
        for layer in self.layers:
            if isinstance(layer, _Convolution):
                layer.prepare()
        self.top_weight.copy_(self.last.weight.view(self.channels, self.length).t())  # Flatten has the channels first
        everything = slice(0, self.count)
        for layer, a, view in zip(self.layers, self.inputs, self.views, strict=True):
            torch._C._nn.leaky_relu(layer.product(a, everything, bias=True), layer.slope, out=view)
        return torch.addmv(self.last.bias, self.top.view(self.count, -1), self.top_weight.view(-1))

    def backward(self, weights: torch.Tensor) -> None:
        """delta_l of all layers for the loss sum_n weights_n C(x_n)."""
        back = weights.view(-1, 1, 1) * self.top_weight
        everything = slice(0, self.count)
        for layer, view in zip(reversed(self.layers), reversed(self.views), strict=True):
            torch.ops.aten.leaky_relu_backward(back, view, layer.slope, True, grad_input=layer.delta)
            if layer is not self.layers[0]:
                back = layer.transposed(everything)

    def scores_and_input_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See critic_scores_and_input_gradient()."""
        scores = self.forward(x)
        self.backward(self.top.new_ones(self.count))
        return scores, self.layers[0].transposed(slice(0, self.count)).clone()

    def update(
        self, real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor, lambda_gp: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See critic_gradients()."""
        batch = len(real)
        mixed = slice(2 * batch, 3 * batch)
        self.input[:batch].copy_(real)
        self.input[batch : 2 * batch].copy_(fake)
        torch.lerp(real, fake, mix.view(-1, 1, 1), out=self.input[mixed])
        scores = self.forward(self.input)
        weights = _weights(batch, self.top)
        self.backward(weights)
        gradient = self.layers[0].transposed(mixed)
        norm = torch.linalg.vector_norm(gradient, dim=(1, 2))
        factor = _factor(norm, lambda_gp)
        # u_l takes the place of a_l: the rows of interpolates are of no other use.
        torch.mul(gradient, factor.view(-1, 1, 1), out=self.input[mixed])
        self.linearised(mixed)
        self.fill_gradients(weights, 2 * batch)
        return scores[:batch], scores[batch : 2 * batch], (norm - 1).square()

    def linearised(self, mixed: slice) -> None:
        """u_l in the place of a_l for the interpolates, after u_0 has been put there."""
        for layer, a, view in zip(self.layers, self.inputs, self.views, strict=True):
            u = layer.product(a, mixed, bias=False)
            torch.ops.aten.leaky_relu_backward(u, view[mixed], layer.slope, True, grad_input=view[mixed])

    def fill_gradients(self, weights: torch.Tensor, biased: int) -> None:
        """Weight gradients out of delta and the activations; the first `biased` samples have a part in those of the biases."""
        for layer, a in zip(self.layers, self.inputs, strict=True):
            layer.weight_gradient(a, _gradient(layer.layer.weight))
            torch.sum(layer.delta[:biased], dim=(0, 1), out=_gradient(_there(layer.layer.bias)))
        top = torch.mv(self.top.view(self.count, -1).t(), weights)
        _gradient(self.last.weight).view(self.channels, self.length).copy_(top.view(self.length, self.channels).t())
        _gradient(self.last.bias).copy_(weights[:biased].sum())


class _Wide:
    """The passes where the first layer has thousands of inputs, whole codes for instance, and nearly all of the work is there.

    The interpolates x = real + mix (fake - real) have first sums z = W_1 x + b_1 on the line between those of real and fake. The
    gradient of a frame is r_0 = W_1^T d, d := m_1 * r_1, so that ||r_0||^2 = d^T K d with K := W_1 W_1^T, W_1 u_0 = factor * K d,
    and the penalty's part of dL/dW_1 is (sum of factor * d d^T) W_1. Nothing of the interpolates is ever as wide as a code.
    """

    def __init__(self, first: torch.nn.Linear, slope: float, tail: _Layers, count: int, length: int, like: torch.Tensor) -> None:
        self.first, self.slope, self.count = first, slope, count
        self.z = like.new_empty(count, length, first.out_features)
        self.tail = _Workspace(tail, count, length, self.z)

    def _sums(self, x: Windows, out: torch.Tensor) -> None:
        torch.add(x.sums(self.first.weight), _there(self.first.bias), out=out)

    def _scores(self) -> torch.Tensor:
        torch._C._nn.leaky_relu(self.z, self.slope, out=self.tail.input)
        return self.tail.forward(self.tail.input)

    def _d(self, weights: torch.Tensor) -> torch.Tensor:
        """Return d of all samples for the loss sum_n weights_n C(x_n)."""
        self.tail.backward(weights)
        back = self.tail.layers[0].transposed(slice(0, self.count))
        return torch.ops.aten.leaky_relu_backward(back, self.tail.input, self.slope, True)

    def scores_and_d(self, x: Windows) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores, and the gradients `[N, T, O]` of each for the first layer's sums."""
        self._sums(x, self.z)
        return self._scores(), self._d(self.z.new_ones(self.count))

    def scores_and_input_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See critic_scores_and_input_gradient()."""
        scores, d = self.scores_and_d(Frames(x))
        return scores, d @ self.first.weight

    def update(
        self, real: Windows, fake: Windows, mix: torch.Tensor, lambda_gp: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See critic_gradients()."""
        batch, weight = len(mix), self.first.weight
        mixed = slice(2 * batch, 3 * batch)
        self._sums(real, self.z[:batch])
        self._sums(fake, self.z[batch : 2 * batch])
        torch.lerp(self.z[:batch], self.z[batch : 2 * batch], mix.view(-1, 1, 1), out=self.z[mixed])
        scores = self._scores()
        weights = _weights(batch, self.z)
        d = self._d(weights)
        products = d[mixed] @ (weight @ weight.t())
        norm = (d[mixed] * products).sum(dim=(1, 2)).clamp(min=0).sqrt()
        factor = _factor(norm, lambda_gp).view(-1, 1, 1)
        u = self.tail.input[mixed]
        u.copy_(torch.ops.aten.leaky_relu_backward(products * factor, u, self.slope, True))
        self.tail.linearised(mixed)
        self.tail.fill_gradients(weights, 2 * batch)
        of_real, of_fake, of_mixed = d.split(batch)
        gradient = _gradient(weight)
        outer = of_mixed.flatten(0, 1).t() @ (of_mixed * factor).flatten(0, 1)
        torch.addmm(real.weight_gradient(of_real), outer, weight, out=gradient)
        gradient += fake.weight_gradient(of_fake)
        torch.sum(d[: 2 * batch], dim=(0, 1), out=_gradient(_there(self.first.bias)))
        return scores[:batch], scores[batch : 2 * batch], (norm - 1).square()


def _weights(batch: int, like: torch.Tensor) -> torch.Tensor:
    """What the scores of real, fake and interpolated windows count in the loss; 1 for the last gives r_l itself."""
    return torch.cat([like.new_full((batch,), value) for value in (-1 / batch, 1 / batch, 1.0)])


def _factor(norm: torch.Tensor, lambda_gp: float) -> torch.Tensor:
    """The factor in v / N = factor * r_0, lambda included; a gradient that vanishes has none of its own."""
    return torch.where(norm > 0, (2 * lambda_gp / len(norm)) * (1 - 1 / norm), 0)


def _there(bias: torch.Tensor | None) -> torch.Tensor:
    assert bias is not None  # _layers() has looked
    return bias


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter's gradient, to be written over."""
    if parameter.grad is None or not parameter.grad.is_contiguous():
        parameter.grad = torch.empty_like(parameter, memory_format=torch.contiguous_format)
    return parameter.grad
