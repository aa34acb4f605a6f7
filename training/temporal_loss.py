"""The losses of the temporal GAN.

    L = L_WGAN + lambda_GP * L_GP + lambda_GAP * L_GAP + lambda_DIV * L_DIV

    L_WGAN:  the critic minimises  E[C(fake)] - E[C(real)],  the generator  -E[C(fake)]
    L_GP   := E[(||dC(x)/dx|| - 1)^2],  x on straight lines between real and fake windows     (Gulrajani et al. 2017, eq. 3)
    L_GAP  := (max(0, pi/4 - phi))^2,   phi := arctan(||[dd/ds_0, .., dd/ds_{t-2}]|| / ||dd/di||),   d = ||l_{t-1} - l_0||

A video that loops hardly depends on its noise s, so phi is near 0 and L_GAP grows. phi is taken for each sample.

Ours, not the paper's (docs/choices.md): a diversity penalty in the sense of Yang et al. ("Diversity-Sensitive Conditional
Generative Adversarial Networks", ICLR 2019), for which the condition is the past. Two rollouts y, y' begin with the same memories
and get different noise. At their ends they have to be apart,

    L_DIV := (max(0, 1 - e / e*))^2,      e^2 := mean_k ||y_k - y'_k||^2 / E||unrelated frames||^2,   k in their last third

phi is a gradient: a limit cycle can respond to every s_k locally and still repeat. e is a difference, and there it is 0. How far
two futures may be apart is asked of the footage, see `divergence`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VANISHED = 1e-12  # norms below have squares that float32 no longer tells from zero
STANDING = 1e-6  # d below is rounding of l, whose values are about 1; its second derivative, 1/d, would be all there is


def gradient_angle(d: torch.Tensor, first: Sequence[torch.Tensor], s: torch.Tensor) -> torch.Tensor:
    """Return phi [N] in [0, pi/2], differentiable.

    Args:
        d: distances [N]; row n may depend on row n of `first` and `s` only.
        first: what the window begins with, each [N, ..]: i in the paper. All of their gradients make one norm.
        s: noise [N, t-1, noise_dim].
    """
    gradient_s, *gradients_first = torch.autograd.grad(d.sum(), (s, *first), create_graph=True)
    norm_s = gradient_s.flatten(1).norm(dim=1)
    norm_first = torch.cat([gradient.flatten(1) for gradient in gradients_first], dim=1).norm(dim=1)
    # Where both vanish there is no angle, and its gradient would not be a number: such a window counts as one that loops
    # (phi = 0), without a gradient.
    vanished = (norm_s < VANISHED) & (norm_first < VANISHED)
    norm_s, norm_first = norm_s.masked_fill(vanished, 0), norm_first.masked_fill(vanished, 1)
    # atan2 equals arctan of the ratio and stays finite where dd/di = 0.
    return torch.atan2(norm_s, norm_first)


def distance(l: torch.Tensor) -> torch.Tensor:
    """Return d = ||l_{t-1} - l_0|| [N] of l [N, t, latent_dim]; 0 and no gradient where the window stands still.

    A norm has no second derivative at 0, and one that is not a number would reach all parameters.
    """
    squares = (l[:, -1] - l[:, 0]).square().sum(dim=1)
    moves = squares > STANDING**2
    return torch.where(moves, squares, 1).sqrt() * moves


def gradient_angle_penalty(l: torch.Tensor, first: Sequence[torch.Tensor], s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (L_GAP [N] before the mean, phi [N]) for a rollout l [N, t, latent_dim] that depends on `first` and `s`.

    With `first = (i,)` this is the paper's. A window that continues an earlier one begins with memories instead of i; with these
    as `first` the same angle says whether the noise still matters there (ours).
    """
    phi = gradient_angle(distance(l), first, s)
    return (math.pi / 4 - phi).clamp(min=0).square(), phi.detach()


def divergence(step: float) -> float:
    """How far two futures of one present come apart, 0 to 1, in squared distances of which 1 is that of unrelated frames.

    `step` is E||y_{k+n} - y_k||^2 after n frames in the same unit, so rho := 1 - step is the correlation that is left. Two
    frames that keep rho of one and the same past, and are independent in the rest, are 1 - rho^2 apart.
    """
    rho = min(max(1 - step, 0.0), 1.0)
    return 1 - rho**2


def first_of_ends(num_frames: int) -> int:
    """Frame at which the last third of futures of so many frames begins."""
    return 2 * num_frames // 3


def plain_gram(a: torch.Tensor) -> torch.Tensor:
    """A^T A `[F, F]` for a `[K, F]`."""
    return a.t() @ a


def diversity_penalty(
    y: torch.Tensor,
    other: torch.Tensor,
    wanted: float,
    only_ends: bool = False,
    maps: torch.Tensor | None = None,
    gram: Callable[[torch.Tensor], torch.Tensor] = plain_gram,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (L_DIV [N] before the mean, e^2 [N]) of pairs of futures.

    Args:
        y, other: rollouts [N, frames, K] that begin alike, in coordinates whose mean square is 1 (`LatentSpace`), so that
            unrelated frames are 2 K apart.
        wanted: e*^2, above 0.
        only_ends: Whether y and other are no more than the last thirds.
        maps: A [K, r] where y and other are t and t' [N, frames, r], which stand for t A^T + b; then (t - t')^T A^T A (t - t')
            takes the place of the square, and nothing is as wide as K.
        gram: Computes A^T A.
    """
    ends = slice(0 if only_ends else first_of_ends(y.shape[1]), None)
    difference = y[:, ends] - other[:, ends]
    if maps is None:
        apart = difference.square().mean(dim=(1, 2)) / 2
    else:
        apart = ((difference @ gram(maps)) * difference).sum(dim=2).mean(dim=1).clamp(min=0) / (2 * len(maps))
    # The small number keeps the gradient of the root finite where both are the same.
    return (1 - (apart / wanted + 1e-6).sqrt()).clamp(min=0).square(), apart.detach()


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor], real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """Return L_GP [N] before the mean; real, fake [N, t, C], mix [N] in [0, 1] places each sample on its line."""
    x = torch.lerp(real, fake, mix.view(-1, 1, 1)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square()
