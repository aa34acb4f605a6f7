"""The passes of a critic update out of PyTorch's operations, in buffers that are kept from step to step.

`critic_gradients` says what the passes are.
"""

from __future__ import annotations

from typing import Protocol

import torch

from training.kernels.critic.critic_layers import KERNEL, PADDING, STRIDE, CriticLayers, gradient_of
from training.kernels.critic.frame_sums import FirstLayer, factors_of, first_layer
from training.kernels.critic.wide_products import times, times_transposed, transposed_times
from training.kernels.critic.wide_windows import Frames, Windows, weight_gradient


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
        self.length = (length - 1) // STRIDE + 1
        self.inputs, self.outputs = layer.in_channels, layer.out_channels
        self.columns = like.new_empty(count, self.length, KERNEL * self.inputs)
        self.z = like.new_empty(count * self.length, self.outputs)
        self.padded_delta = like.new_zeros(count, self.length + 2, self.outputs)  # one output that is not there at each end
        self.delta = self.padded_delta[:, 1:-1]
        self.rows = like.new_empty(count, self.length, 3 * self.outputs)
        self.back = like.new_empty(count * self.length, 2 * self.inputs)
        self.forward_weight = like.new_empty(KERNEL * self.inputs, self.outputs)
        self.backward_weight = like.new_zeros(3, self.outputs, 2, self.inputs)

    def prepare(self) -> None:
        """Take over the weight [outputs, inputs, 5] in the orders of the two products."""
        weight = self.layer.weight
        self.forward_weight.view(KERNEL, self.inputs, self.outputs).copy_(weight.permute(2, 1, 0))
        # Frames 2 p and 2 p + 1 are taps 4, - of output p - 1, taps 2, 3 of output p, taps 0, 1 of output p + 1.
        taps = weight.permute(0, 2, 1)
        self.backward_weight[0, :, 0].copy_(taps[:, 4])
        self.backward_weight[1].copy_(taps[:, 2:4])
        self.backward_weight[2].copy_(taps[:, 0:2])

    def product(self, x: torch.Tensor, samples: slice, bias: bool) -> torch.Tensor:
        """W x (+ b) of these samples [samples, length, outputs]; x is padded, `input_buffer`."""
        padded = x[samples]
        columns = self.columns[samples]
        columns.copy_(padded.as_strided(columns.shape, (padded.stride(0), STRIDE * self.inputs, 1), padded.storage_offset()))
        z, flat = self.z[samples.start * self.length : samples.stop * self.length], columns.view(-1, KERNEL * self.inputs)
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
        return x[:, PADDING : PADDING + self.input_length]

    def weight_gradient(self, x: torch.Tensor, out: torch.Tensor) -> None:
        columns = self.columns.view(-1, KERNEL * self.inputs)
        gradient = torch.mm(self.delta.reshape(-1, self.outputs).t(), columns)
        out.copy_(gradient.view(self.outputs, KERNEL, self.inputs).permute(0, 2, 1))


class Workspace:
    """All buffers for `count` windows of `length` frames, and the passes that fill them."""

    def __init__(self, layers: CriticLayers, count: int, length: int, like: torch.Tensor) -> None:
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
            layer.weight_gradient(a, gradient_of(layer.layer.weight))
            torch.sum(layer.delta[:biased], dim=(0, 1), out=gradient_of(_there(layer.layer.bias)))
        top = torch.mv(self.top.view(self.count, -1).t(), weights)
        gradient_of(self.last.weight).view(self.channels, self.length).copy_(top.view(self.length, self.channels).t())
        gradient_of(self.last.bias).copy_(weights[:biased].sum())


class WideWorkspace:
    """The passes where the first layer has thousands of inputs, whole codes for instance, and nearly all of the work is there.

    The interpolates x = real + mix (fake - real) have first sums z = W_1 x + b_1 on the line between those of real and fake. The
    gradient of a frame is r_0 = W_1^T d, d := m_1 * r_1, so that ||r_0||^2 = d^T K d with K := W_1 W_1^T, W_1 u_0 = factor * K d,
    and the penalty's part of dL/dW_1 is (sum of factor * d d^T) W_1. Nothing of the interpolates is ever as wide as a code.
    """

    def __init__(self, first: torch.nn.Linear, between: WidePasses) -> None:
        self.first, self.between = first, between

    def scores_and_d(self, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores out of the first layer's sums `[N, T, O]` without bias, and the gradient of each for its sums."""
        return self.between.scores_and_d(sums)

    def scores_and_input_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See critic_scores_and_input_gradient()."""
        scores, d = self.scores_and_d(Frames(x).sums(self.first.weight))
        return scores, times(d.flatten(0, 1), self.first.weight).view_as(x)

    def update(
        self, real: Windows, fake: Windows, mix: torch.Tensor, lambda_gp: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See critic_gradients()."""
        weight = self.first.weight
        compiled = first_layer(weight, real, fake)
        if compiled is not None:
            return self._update(compiled, real, fake, mix, lambda_gp)
        gram = times_transposed(weight, weight)
        results = self.between.update(real.sums(weight), fake.sums(weight), gram, mix, lambda_gp)
        scores_real, scores_fake, penalty, of_real, of_fake, outer = results
        gradient = gradient_of(weight)
        weight_gradient([(real, of_real), (fake, of_fake)], gradient)
        transposed_times(outer.t(), weight, onto=gradient)
        return scores_real, scores_fake, penalty

    def _update(
        self, first: FirstLayer, real: Windows, fake: Windows, mix: torch.Tensor, lambda_gp: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        gram, inner, common = first.products(factors_of(fake), gram=True)
        assert gram is not None
        sums_real, sums_fake = first.sums(real, None, None), first.sums(fake, inner, common)
        scores_real, scores_fake, penalty, *rest = self.between.update(sums_real, sums_fake, gram, mix, lambda_gp)
        of_real, of_fake, outer = rest
        first.gradient(real, of_real, fake, of_fake, outer, gradient_of(self.first.weight))
        return scores_real, scores_fake, penalty


class WidePasses(Protocol):
    """What lies between the first layer's sums and their gradients."""

    def scores_and_d(self, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See WideWorkspace."""

    def update(
        self, real: torch.Tensor, fake: torch.Tensor, gram: torch.Tensor, mix: torch.Tensor, lambda_gp: float
    ) -> tuple[torch.Tensor, ...]:
        """Put the gradients of all parameters but the first weight into `.grad`.

        Args:
            real, fake: Sums `[N, T, O]` without bias.
            gram: K, `[O, O]`.
            mix, lambda_gp: See critic_gradients().

        Returns:
            Scores of real and of fake windows and L_GP `[N]`, gradients `[N, T, O]` for both sums, and the sum of factor * d d^T
            `[O, O]`.
        """


class Between:
    """These passes out of PyTorch's operations."""

    def __init__(
        self, first: torch.nn.Linear, slope: float, tail: CriticLayers, count: int, length: int, like: torch.Tensor
    ) -> None:
        self.first, self.slope, self.count = first, slope, count
        self.z = like.new_empty(count, length, first.out_features)
        self.tail = Workspace(tail, count, length, self.z)

    def _scores(self) -> torch.Tensor:
        torch._C._nn.leaky_relu(self.z, self.slope, out=self.tail.input)
        return self.tail.forward(self.tail.input)

    def _d(self, weights: torch.Tensor) -> torch.Tensor:
        """Return d of all samples for the loss sum_n weights_n C(x_n)."""
        self.tail.backward(weights)
        back = self.tail.layers[0].transposed(slice(0, self.count))
        return torch.ops.aten.leaky_relu_backward(back, self.tail.input, self.slope, True)

    def scores_and_d(self, sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See WideWorkspace."""
        torch.add(sums, _there(self.first.bias), out=self.z)
        return self._scores(), self._d(self.z.new_ones(self.count))

    def update(
        self, real: torch.Tensor, fake: torch.Tensor, gram: torch.Tensor, mix: torch.Tensor, lambda_gp: float
    ) -> tuple[torch.Tensor, ...]:
        """See WidePasses."""
        batch = len(mix)
        mixed = slice(2 * batch, 3 * batch)
        bias = _there(self.first.bias)
        torch.add(real, bias, out=self.z[:batch])
        torch.add(fake, bias, out=self.z[batch : 2 * batch])
        torch.lerp(self.z[:batch], self.z[batch : 2 * batch], mix.view(-1, 1, 1), out=self.z[mixed])
        scores = self._scores()
        weights = _weights(batch, self.z)
        d = self._d(weights)
        of_real, of_fake, of_mixed = d.split(batch)
        products = of_mixed @ gram
        norm = (of_mixed * products).sum(dim=(1, 2)).clamp(min=0).sqrt()
        factor = _factor(norm, lambda_gp).view(-1, 1, 1)
        u = self.tail.input[mixed]
        u.copy_(torch.ops.aten.leaky_relu_backward(products * factor, u, self.slope, True))
        self.tail.linearised(mixed)
        self.tail.fill_gradients(weights, 2 * batch)
        outer = of_mixed.flatten(0, 1).t() @ (of_mixed * factor).flatten(0, 1)
        torch.sum(d[: 2 * batch], dim=(0, 1), out=gradient_of(bias))
        return scores[:batch], scores[batch : 2 * batch], (norm - 1).square(), of_real, of_fake, outer


def _weights(batch: int, like: torch.Tensor) -> torch.Tensor:
    """What the scores of real, fake and interpolated windows count in the loss; 1 for the last gives r_l itself."""
    return torch.cat([like.new_full((batch,), value) for value in (-1 / batch, 1 / batch, 1.0)])


def _factor(norm: torch.Tensor, lambda_gp: float) -> torch.Tensor:
    """The factor in v / N = factor * r_0, lambda included; a gradient that vanishes has none of its own."""
    return torch.where(norm > 0, (2 * lambda_gp / len(norm)) * (1 - 1 / norm), 0)


def _there(bias: torch.Tensor | None) -> torch.Tensor:
    assert bias is not None  # layers_of() has looked
    return bias
