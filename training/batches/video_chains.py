"""Videos that a training keeps going: every generated window continues one of them, so that the critic sees all ages of a video.

A chain is a set of memories of the latent generator, and the coordinates of the frames that led to them. A training step draws
some chains, rolls them on for a window, and stores where they are then. The past is what long views of the critic look back on;
it was made by earlier states of the generator and carries no gradient.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from networks.latent_generator import LatentGenerator, State
from training.kernels.recurrence.fast_rollout import rollout


class VideoChains:
    """Chains of one rank; nothing in it has a gradient.

    Args:
        G: Latent generator that the chains start with.
        num_chains: Number of chains.
        past_frames: Frames of the past that are kept, 0 or more.
        burn_in: Frames of a fresh video that are left out: neither shown nor kept.
        random: Source of i and s.
        static: Whether no number may be fetched from the device, and all sizes are known beforehand (kernels/step_graphs.py).

    Attributes:
        memories: Memories of every chain, [num_chains, size] for each cell; the last is l of the frame that comes next.
        past: Coordinates of the frames before that one, [num_chains, past_frames, K], oldest first.
    """

    def __init__(
        self, G: LatentGenerator, num_chains: int, past_frames: int, burn_in: int, random: torch.Generator, static: bool = False
    ) -> None:
        self.num_chains = num_chains
        self.past_frames = past_frames
        self.burn_in = burn_in
        self._random = random
        self._static = static
        self.memories, self.past = self._fresh(G, num_chains)

    def _randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self._random, device=self._random.device)

    @torch.no_grad()
    def _fresh(self, G: LatentGenerator, count: int) -> tuple[State, torch.Tensor]:
        """Memories and past of `count` videos that began at a fresh i, burn_in + past_frames frames ago."""
        memories = G.initial_state(self._randn(count, G.latent_dim))
        frames = self.burn_in + self.past_frames
        if frames == 0:
            return memories, torch.zeros(count, 0, G.A.out_features, device=memories[0].device)
        l, states = rollout(G, self._randn(count, frames, G.noise_dim), memories)
        return tuple(h.clone() for h in states[frames]), G.coordinates(l[:, self.burn_in : frames])

    def draw(self, count: int) -> torch.Tensor:
        """Indices of `count` chains, each at most once as long as there are enough."""
        rounds = -(-count // self.num_chains)
        drawn = [permutation(self.num_chains, self._random, self._static) for _ in range(rounds)]
        return torch.cat(drawn)[:count]

    def states(self, chosen: torch.Tensor) -> State:
        """The memories of these chains."""
        return tuple(h[chosen] for h in self.memories)

    def with_past(self, chosen: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Windows y [N, t, K] that continue these chains, behind their past: [N, past_frames + t, K]."""
        return torch.cat([self.past[chosen], y], dim=1)

    def advance(self, chosen: torch.Tensor, state: State, y: torch.Tensor) -> None:
        """Move these chains on by the frames y [N, n, K], to the memories that follow them."""
        for kept, h in zip(self.memories, state, strict=True):
            kept[chosen] = h
        if self.past_frames > 0:
            self.past[chosen] = self.with_past(chosen, y)[:, -self.past_frames :]

    def restart(self, G: LatentGenerator, chosen: torch.Tensor) -> None:
        """Begin these chains again, each at a fresh i."""
        memories, past = self._fresh(G, len(chosen))
        for kept, h in zip(self.memories, memories, strict=True):
            kept[chosen] = h
        self.past[chosen] = past

    def advance_and_restart(
        self, G: LatentGenerator, chosen: torch.Tensor, states: State, y: torch.Tensor, time: torch.Tensor, restart: float
    ) -> None:
        """The same as advance() and, for a share of the chains, restart(), with all sizes known beforehand.

        Args:
            G: What fresh videos come from.
            chosen: The chains [N], each at most once.
            states: Memories at the times that `time` can be, [times, N, size] for each cell.
            y: Past and window of these chains, [N, past_frames + t, K].
            time: Index into `states`, and the frame after the past that the new past begins at, [2] on the device.
            restart: Probability of a chain to start over. One in a million steps has more of them than fresh videos are made
                for; the chains that are left over go on as they are.
        """
        index, first = time[:1], time[1:]
        memories = [h.index_select(0, index).squeeze(0) for h in states]
        past = y.index_select(1, first + torch.arange(self.past_frames, device=y.device))
        most = likely_maximum(len(chosen), restart)
        if most > 0:
            lucky = torch.rand(len(chosen), generator=self._random, device=self._random.device) < restart
            number = lucky.cumsum(0) - 1
            lucky, number = (lucky & (number < most)).unsqueeze(1), number.clamp(0, most - 1)
            fresh, fresh_past = self._fresh(G, most)
            memories = [torch.where(lucky, new[number], h) for new, h in zip(fresh, memories, strict=True)]
            past = torch.where(lucky.unsqueeze(2), fresh_past[number], past)
        for kept, h in zip(self.memories, memories, strict=True):
            kept[chosen] = h
        self.past[chosen] = past

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs, as tensors."""
        return {'memories': list(self.memories), 'past': self.past}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state_dict(); shapes have to agree."""
        device = self.past.device
        for kept, h in zip([*self.memories, self.past], [*state['memories'], state['past']], strict=True):
            if kept.shape != h.shape:
                raise ValueError(f'chains of shape {tuple(h.shape)} where {tuple(kept.shape)} belong')
        self.memories = tuple(h.to(device) for h in state['memories'])
        self.past = state['past'].to(device)


def permutation(count: int, random: torch.Generator, static: bool) -> torch.Tensor:
    """0 .. count - 1 in random order; `static` as in VideoChains."""
    if static:
        return torch.rand(count, generator=random, device=random.device).argsort()
    return torch.randperm(count, generator=random, device=random.device)


@functools.cache
def likely_maximum(count: int, probability: float) -> int:
    """The number that `count` throws of this probability exceed less than once in a million times."""
    if probability >= 1:
        return count
    hits, exactly = 0, (1 - probability) ** count
    within = exactly
    while within < 1 - 1e-6 and hits < count:
        exactly *= (count - hits) / (hits + 1) * probability / (1 - probability)
        hits += 1
        within += exactly
    return hits
