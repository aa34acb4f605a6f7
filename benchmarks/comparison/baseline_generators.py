"""Latent generators that a user would write in an hour, with the methods of ours: what the temporal GAN has to be worth more
than.

`LinearAutoregression` has every mean and covariance of the footage up to its order, and no shape; `WindowSplicing` (video
textures, Schoedl et al., SIGGRAPH 2000) shows the footage itself and jumps between similar moments; `GaussianRandomWalk` is the
null. The one that is trained, MoCoGAN-HD's idea, is in residual_generator.py.

Each has `latent_dim`, `noise_dim`, `num_ws`, `w_dim`, `num_components`, `parameters()`, `initial_state(i)`, `step(s, state)`,
`coordinates(l)`, `decode(y)` and `codes(l)`, so that every metric of latents takes it in the place of a LatentGenerator. Videos
begin at moments of the footage, which i chooses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from training.latent_space import LatentSpace

State = tuple[torch.Tensor, ...]


class Baseline(torch.nn.Module):
    """What they have in common: coordinates of a latent space are l itself.

    Args:
        clips: Coordinates of real clips, each [T, K].
        space: Latent space with a basis.
        num_ws, w_dim: Of the image generator.
    """

    def __init__(self, clips: Sequence[torch.Tensor], space: LatentSpace, num_ws: int, w_dim: int) -> None:
        super().__init__()
        if space.basis is None:
            raise ValueError('baselines work on components')
        self.device_of = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.num_ws, self.w_dim = num_ws, w_dim
        self.burn_in = 1  # the first l is i, which is no frame here
        self.num_components = self.noise_dim = self.latent_dim = space.num_coordinates
        self.clips = [clip.float() for clip in clips]
        self.mean, self.basis = space.mean, space.basis

    def coordinates(self, l: torch.Tensor) -> torch.Tensor:
        """L [..., latent_dim] -> coordinates [..., K]."""
        return l[..., : self.num_components]

    def decode(self, y: torch.Tensor) -> torch.Tensor:
        """Coordinates [..., K] -> codes [..., num_ws, w_dim]."""
        return (self.mean + y @ self.basis).unflatten(-1, (self.num_ws, self.w_dim))

    def codes(self, l: torch.Tensor) -> torch.Tensor:
        """L [..., latent_dim] -> codes [..., num_ws, w_dim]."""
        return self.decode(self.coordinates(l))


def moment(i: torch.Tensor, count: int) -> torch.Tensor:
    """I [N, ..] ~ N(0, 1) -> one of `count` moments, each equally likely, [N]; the first number of i decides."""
    return (_uniform(i[:, 0]) * count).long().clamp(max=count - 1)


def _uniform(normal: torch.Tensor) -> torch.Tensor:
    """N(0, 1) -> U(0, 1)."""
    return 0.5 * (1 + torch.erf(normal / math.sqrt(2)))


class LinearAutoregression(Baseline):
    """y_{k+1} = A_0 y_k + .. + A_{p-1} y_{k-p+1} + b + L e_k,  e_k ~ N(0, 1): least squares, L L^T the covariance of what is
    left.
    """

    def __init__(self, clips: Sequence[torch.Tensor], space: LatentSpace, num_ws: int, w_dim: int, *, order: int) -> None:
        super().__init__(clips, space, num_ws, w_dim)
        K, self.order = self.num_components, order
        self.starts = torch.cat([self._past(clip) for clip in self.clips])
        past = torch.cat([self._past(clip)[:-1] for clip in self.clips]).double()
        target = torch.cat([clip[order:] for clip in self.clips]).double()
        design = torch.cat([past, torch.ones(len(past), 1)], dim=1)
        self.matrix = torch.linalg.lstsq(design, target).solution
        left = target - design @ self.matrix
        self.noise = torch.linalg.cholesky(torch.cov(left.T).reshape(K, K) + 1e-9 * torch.eye(K)).float()
        self.matrix = self.matrix.float()

    def _past(self, clip: torch.Tensor) -> torch.Tensor:
        """Rows (y_k, y_{k-1}, ..) of a clip [T, K], [T - order + 1, order * K]."""
        return torch.cat([clip[self.order - 1 - lag : len(clip) - lag] for lag in range(self.order)], dim=1)

    def initial_state(self, i: torch.Tensor) -> State:
        """I [N, K] -> the past at a moment of the footage."""
        return (self.starts[moment(i, len(self.starts))],)

    def step(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """One frame: s [N, K] and the past -> the past one later, and l = y [N, K]."""
        (past,) = state
        y = past @ self.matrix[:-1] + self.matrix[-1] + s @ self.noise.T
        return (torch.cat([y, past[:, : -self.num_components]], dim=1),), y


class WindowSplicing(Baseline):
    """The footage, with jumps between similar moments.

    After frame j comes frame k + 1 with a probability that falls with the distance of the `length` frames up to j + 1 from those
    up to k + 1:  P(j -> k + 1) ~ exp(-D(j + 1, k + 1) / sigma), sigma a twentieth of the mean distance.
    """

    def __init__(self, clips: Sequence[torch.Tensor], space: LatentSpace, num_ws: int, w_dim: int, *, length: int = 4) -> None:
        super().__init__(clips, space, num_ws, w_dim)
        self.frames = torch.cat(self.clips)
        windows, owners = [], []
        first = 0
        for clip in self.clips:
            windows.append(clip.unfold(0, length, 1).flatten(1))
            owners.append(torch.arange(first + length - 1, first + len(clip)))
            first += len(clip)
        flat, self.owner = torch.cat(windows), torch.cat(owners)
        distances = torch.cdist(flat, flat)
        follows = torch.zeros(len(self.owner), dtype=torch.bool)
        follows[:-1] = self.owner[1:] == self.owner[:-1] + 1
        here = torch.arange(len(self.owner)).clamp(max=len(self.owner) - 1)
        following = torch.where(follows, here + 1, here)  # the end of a clip looks for a place like itself
        weights = torch.exp(-distances[following] / (distances.mean() / 20))
        self.cumulative = weights.div(weights.sum(dim=1, keepdim=True)).cumsum(dim=1)

    def initial_state(self, i: torch.Tensor) -> State:
        """I [N, K] -> place in the footage [N]."""
        return (moment(i, len(self.owner)),)

    def step(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """One frame: s [N, K] and the place -> the next place, and l = y [N, K] there."""
        (place,) = state
        chance = _uniform(s[:, :1])
        place = torch.searchsorted(self.cumulative[place], chance).squeeze(1).clamp(max=len(self.owner) - 1)
        return (place,), self.frames[self.owner[place]]


class GaussianRandomWalk(Baseline):
    """y_{k+1} = y_k + L e_k with the covariance of the steps of the footage."""

    def __init__(self, clips: Sequence[torch.Tensor], space: LatentSpace, num_ws: int, w_dim: int) -> None:
        super().__init__(clips, space, num_ws, w_dim)
        K = self.num_components
        steps = torch.cat([torch.diff(clip, dim=0) for clip in self.clips]).double()
        self.noise = torch.linalg.cholesky(torch.cov(steps.T).reshape(K, K) + 1e-9 * torch.eye(K)).float()
        self.starts = torch.cat(self.clips)

    def initial_state(self, i: torch.Tensor) -> State:
        """I [N, K] -> coordinates at a moment of the footage."""
        return (self.starts[moment(i, len(self.starts))],)

    def step(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """One frame: s [N, K] and the coordinates -> the next ones, twice."""
        y = state[0] + s @ self.noise.T
        return (y,), y
