"""Videos far from their beginning: how long a fresh one takes to forget it, and what its frames are like from then on.

The generator is a Markov chain on its memories. A video that begins at i ~ N(0, 1) is not yet what it becomes: the memories that
H(i) and i itself fill have another distribution than those that the recurrence makes, and slow units take hundreds of frames to
forget them. From some frame on the distribution of frames no longer changes. That frame is the **burn-in** of a model; generation
leaves out what comes before it, unless it is asked for.

Averages of training move the weights, and so the distribution that the frames end up with, by a little that nothing in the
training corrects. `calibrate` does: an affine map of each coordinate, folded into the last affine maps A_j, gives the frames far
into videos the mean and the variance of the footage, as the paper's A_j could have learned to.
"""

from __future__ import annotations

import dataclasses

import torch

from networks.latent_generator import LatentGenerator
from training.kernels.recurrence.fast_rollout import rollout

NUM_VIDEOS = 512
LONGEST_BURN_IN = 2000  # frames; a model that takes longer is told so
REFERENCE_FRAMES = 1000  # frames after that, which say what the distribution ends up as
BLOCK = 25  # frames that are looked at together
EVERY = 5  # frame of them
LARGEST_CORRECTION = 3.0  # factor by which a deviation is corrected at most
SETTLED = 0.01  # squared distance to the end, as a share of the variance; less than a third of it is the noise of the measurement
MARGIN = 2  # what decays to SETTLED in n frames is down to its square in twice as many


@dataclasses.dataclass(frozen=True)
class LongRun:
    """Moments of the coordinates of generated frames, by age.

    Attributes:
        means, deviations: Of the blocks of `BLOCK` frames up to LONGEST_BURN_IN, [blocks, K].
        mean, deviation: Of the frames after that, [K].
    """

    means: torch.Tensor
    deviations: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    @property
    def unsettled(self) -> torch.Tensor:
        """Squared distance of every block to the end, [blocks]:  sum_c (m_c - m*_c)^2 + (s_c - s*_c)^2  over  sum_c s*_c^2."""
        squares = (self.means - self.mean).square() + (self.deviations - self.deviation).square()
        return squares.sum(dim=1) / self.deviation.square().sum().clamp(min=1e-12)

    @property
    def burn_in(self) -> int:
        """MARGIN times the frames after which no block is further than SETTLED from the end, LONGEST_BURN_IN at most."""
        late = (self.unsettled > SETTLED).nonzero()
        return 0 if len(late) == 0 else min(MARGIN * int(late[-1] + 1) * BLOCK, LONGEST_BURN_IN)

    @property
    def settles(self) -> bool:
        """Whether the burn-in was seen to end."""
        return bool(self.unsettled[-1] <= SETTLED)


@torch.no_grad()
def observe(G: LatentGenerator, *, seed: int = 0, num_videos: int = NUM_VIDEOS) -> LongRun:
    """Let `num_videos` videos run from fresh i for LONGEST_BURN_IN + REFERENCE_FRAMES frames, and take their moments.

    Memory does not grow with the frames. The same seed gives the same numbers on one device.
    """
    device = next(G.parameters()).device
    random = torch.Generator(device).manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, device=device)

    state = G.initial_state(noise(num_videos, G.latent_dim))
    blocks = []
    for _ in range((LONGEST_BURN_IN + REFERENCE_FRAMES) // BLOCK):
        l, states = rollout(G, noise(num_videos, BLOCK, G.noise_dim), state)
        state = tuple(h.clone() for h in states[BLOCK])
        y = G.coordinates(l[:, :BLOCK:EVERY]).flatten(0, 1).double()
        blocks.append((y.mean(dim=0), y.square().mean(dim=0)))
    means, squares = (torch.stack(column) for column in zip(*blocks, strict=True))
    first = LONGEST_BURN_IN // BLOCK

    def deviation(mean: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
        return (square - mean.square()).clamp(min=0).sqrt()

    mean, square = means[first:].mean(dim=0), squares[first:].mean(dim=0)
    return LongRun(means[:first], deviation(means[:first], squares[:first]), mean, deviation(mean, square))


@torch.no_grad()
def calibrate(G: LatentGenerator, run: LongRun, real: torch.Tensor) -> None:
    """Give the frames of G far into videos the mean and the deviation of the real frames, coordinate by coordinate.

    Args:
        G: Latent generator; its maps A_j change.
        run: What was observed of it.
        real: Coordinates of real frames, [frames, K].
    """
    # A coordinate that has all but stopped is left alone: to stretch it would blow up noise.
    scale = real.double().std(dim=0, correction=0) / run.deviation.clamp(min=1e-6)
    scale = torch.where((scale > 1 / LARGEST_CORRECTION) & (scale < LARGEST_CORRECTION), scale, 1.0)
    shift = real.double().mean(dim=0) - scale * run.mean
    weight, bias = G.A.weight, G.A.bias
    weight.copy_((weight.double() * scale.unsqueeze(1)).to(weight.dtype))
    bias.copy_((bias.double() * scale + shift).to(bias.dtype))
