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

import weakref
from collections.abc import Sequence
from typing import Any

import torch

from training.kernels import native_code
from training.kernels.critic.critic_layers import CriticLayers, layers_of
from training.kernels.critic.critic_native import NativePasses, native_passes, native_wide_passes
from training.kernels.critic.critic_passes import Between, WideWorkspace, Workspace
from training.kernels.critic.frame_sums import first_layer
from training.kernels.critic.wide_products import times, transposed_times
from training.kernels.critic.wide_windows import Factored, Frames, Joined, Windows, WithMotion, as_tensor, as_windows
from training.temporal_loss import gradient_penalty


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
    layers = layers_of(C)
    if layers is None or not all(p.requires_grad for p in C.parameters()):
        return _by_autograd(C, as_tensor(real), as_tensor(fake), mix, lambda_gp)
    with torch.no_grad():
        passes = _passes(C, layers, 3 * real.shape[0], mix, real.shape)
        if isinstance(passes, WideWorkspace):
            return passes.update(as_windows(real), as_windows(fake), mix, lambda_gp)
        return passes.update(as_tensor(real), as_tensor(fake), mix, lambda_gp)


def critic_scores_and_input_gradient(C: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """X [N, frames, num_features] -> (scores [N], gradient of each sample's score [N, frames, num_features]), without graph."""
    layers = layers_of(C)
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
    """Scores of t A^T + b, with frames before them and their motion if there are any; gradients for t, A and b."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        t: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        before: Frames | None,
        unit: torch.Tensor | None,
        wide: WideWorkspace,
    ) -> torch.Tensor:
        factored = Factored(t, weight, bias)
        y = factored if before is None else Joined(before, factored)
        x = y if unit is None else WithMotion(y, unit)
        compiled = first_layer(wide.first.weight, x)
        if compiled is not None:
            # A copy, because the critic may have moved on before the backward pass.
            compiled.weight = compiled.weight.clone()
            _, inner, common = compiled.products(factored, gram=False)
            scores, d = wide.scores_and_d(compiled.sums(x, inner, common))
            ctx.compiled, ctx.entered = compiled, before is not None
            ctx.save_for_backward(t, d, inner)
            return scores
        first = wide.first.weight.detach()
        first = first.clone() if unit is None else WithMotion(factored, unit).both(first)
        product = times(first, weight)
        sums = factored.sums_through(product, first)
        if before is not None:
            sums = torch.cat([before.sums(first), sums], dim=1)
        scores, d = wide.scores_and_d(sums if unit is None else WithMotion.joined(sums))
        ctx.save_for_backward(t, d, first, product)
        ctx.compiled, ctx.motion = None, unit is not None
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_scores: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if ctx.compiled is not None:
            t, d, inner = ctx.saved_tensors
            d = d[:, d.shape[1] - t.shape[1] :] * of_scores.view(-1, 1, 1)
            return *ctx.compiled.back_to_factors(d, t, inner, ctx.entered), None, None, None
        t, d, first, product = ctx.saved_tensors
        d = d * of_scores.view(-1, 1, 1)
        if ctx.motion:
            d = WithMotion.spread(d)
        flat = d[:, d.shape[1] - t.shape[1] :].flatten(0, 1)
        of_t = times(flat, product).view_as(t)
        of_weight = transposed_times(first, transposed_times(flat, t.flatten(0, 1)))
        return of_t, of_weight, first.t() @ flat.sum(dim=0), None, None, None


def critic_scores(C: torch.nn.Module, x: torch.Tensor | Windows) -> torch.Tensor:
    """C(x) with a first derivative for x only: what the generator's update needs. x [N, frames, num_features] -> [N].

    Where x is made of factors, these get the derivatives.
    """
    y = x.y if isinstance(x, WithMotion) else x
    before = y.before if isinstance(y, Joined) else None
    y = y.after if isinstance(y, Joined) else y
    if isinstance(y, Factored):
        layers = layers_of(C)
        passes = None if layers is None else _passes(C, layers, y.shape[0], y.t, x.shape)
        if isinstance(passes, WideWorkspace):
            unit = x.unit if isinstance(x, WithMotion) else None
            return _ScoresOfFactors.apply(y.t, y.weight, y.bias, before, unit, passes)
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


# Which form.

WIDE = 1024  # features from which on the first layer is most of the work


def _passes(
    C: torch.nn.Module, layers: CriticLayers, count: int, like: torch.Tensor, shape: Sequence[int]
) -> NativePasses | Workspace | WideWorkspace:
    """The form for windows of this shape, of which there are `count` in all, with numbers such as those of `like`."""
    tail = CriticLayers(layers.embedding[1:], layers.convolutions, layers.last)
    wide = shape[2] >= WIDE and len(layers.embedding) > 0 and len(tail.modules) > 1
    native = None if wide else native_passes(C, layers, like, shape)
    if native is not None:
        return native
    known = _workspaces.setdefault(C, {})
    key = (count, shape[1], like.dtype, like.device, wide, native_code.enabled, *map(id, layers.modules))
    if key not in known:
        while len(known) >= 2:
            del known[next(iter(known))]
        if wide:
            between = native_wide_passes(layers, shape[1], like) or Between(*layers.embedding[0], tail, count, shape[1], like)
            known[key] = WideWorkspace(layers.embedding[0][0], between)
        else:
            known[key] = Workspace(layers, count, shape[1], like)
    return known[key]


_workspaces: weakref.WeakKeyDictionary[torch.nn.Module, dict[tuple[Any, ...], Workspace | WideWorkspace]] = (
    weakref.WeakKeyDictionary()
)


def workspaces(C: torch.nn.Module) -> list[object]:
    """The buffers that the passes of a critic use, for those who have to keep them."""
    return list(_workspaces.get(C, {}).values())
