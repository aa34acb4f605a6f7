"""Going on from codes that exist: the memories that explain them, and from there the model's own steps.

The last K codes of a recording (K = 1: a picture) are compared with windows of the model's own videos. The nearest windows are
starting points: their memories before the window and the noise of its steps. Both are changed together,

    minimise over h_0, s_0, .., s_{K-2}:   mean of |w(l_k) - w_k|^2 / variance
                                           +  `NOISE_WEIGHT` * mean square of the change of s
                                           +  `MEMORY_WEIGHT` * mean square of the change of h_0

where a picture, which says nothing of motion, counts a second time as the frame that follows it, with the weight `HOLD_WEIGHT`
and without noise: else the memories may arrive at it in full swing, and leave it with a jerk. The best of them goes on with new
noise. The rest e = w_{K-1} - w(l_{K-1}), what the model cannot say with any memories, is added to the codes that follow and fades
slowly, so that the step over the seam is one of the model's and the fading a small part of a step.

A video of the model's own that generation.jsonl tells the seed of needs none of that: its seed goes on, to the same numbers.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from networks.errors import InputError
from networks.latent_generator import EventLatentGenerator, LatentGenerator, State, first_frame
from networks.seeded_noise import SeededNoise
from training.control.operators import FadingOffset

WINDOW = 25  # codes of a recording that are explained
SHORTEST_WINDOW = 3
LEAD = 8  # steps before a single picture, so that its memories are on their way
VIDEOS = 32
FRAMES = 192
STARTS = 6  # of the nearest windows
ITERATIONS = 60
NOISE_WEIGHT = 0.01
MEMORY_WEIGHT = 0.01
HOLD_WEIGHT = 0.3
FADING_PART = 0.2  # of a usual step that fading takes at most
LONGEST_FADE = 250
SHORTEST_FADE = 25


@dataclasses.dataclass(frozen=True)
class Continuation:
    """Where the model takes over.

    Attributes:
        beginning: Memories and l [1, latent_dim] of the last known frame; a `ModelSource` begins with them. Of an
            `EventLatentGenerator` they are those behind its filter.
        rest: e, [num_ws, w_dim].
        fade: Frames over which e fades.
        error: Root mean square of w(l_k) - w_k as a part of the deviation of the model's codes: 0 is exact, 1 as far as
            unrelated frames.
    """

    beginning: tuple[State, torch.Tensor]
    rest: torch.Tensor
    fade: int
    error: float

    def operator(self) -> FadingOffset:
        """What is added to the codes that follow, the last known frame being frame 0."""
        return FadingOffset(self.rest, self.fade)


@torch.no_grad()
def _own_videos(generator: LatentGenerator, burn_in: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, list[State]]:
    """Codes [frames, videos, F], noise [videos, frames, noise_dim] and memories of each frame of videos of the model's own."""
    device = next(generator.parameters()).device
    noise = SeededNoise([seed + index for index in range(VIDEOS)], generator.latent_dim, generator.noise_dim, device)
    memories, l = first_frame(generator, noise.first())
    for _ in range(burn_in):
        memories, l = generator.step(noise.steps(1)[:, 0], memories)
    steps = noise.steps(FRAMES)
    latents, states = [], []
    for s in steps.unbind(1):
        latents.append(l)
        states.append(memories)
        memories, l = generator.step(s, memories)
    return generator.codes(torch.stack(latents)).flatten(2), steps, states


def explain(generator: LatentGenerator, codes: torch.Tensor, *, burn_in: int = 0, seed: int = 0) -> Continuation:
    """Memories that explain the last codes of a recording, or one code.

    Args:
        generator: Latent generator.
        codes: [T, num_ws, w_dim]; the last `WINDOW` count. T is 1 or at least `SHORTEST_WINDOW`.
        burn_in: Of the model's own videos that are compared.
        seed: Of those videos.

    Raises:
        InputError: two codes, which are no motion and no picture.
    """
    if isinstance(generator, EventLatentGenerator):  # which is two seconds behind; sizes of events are not what has to be found
        generator = generator.behind_filter()
    device = next(generator.parameters()).device
    codes = codes[-WINDOW:].to(device).float()
    if 1 < len(codes) < SHORTEST_WINDOW:
        raise InputError(
            f'the clip has {len(codes)} frames, too short to continue from; give at least {SHORTEST_WINDOW}, '
            'or a single frame with --first-frame'
        )
    known = len(codes)
    length = (known if known > 1 else LEAD + 1) + generator.frames_behind  # behind which memories of the past do not count
    own, noise, states = _own_videos(generator, burn_in, seed)
    frames, videos, _ = own.shape
    variance = own.flatten(0, 1).var(dim=0).mean().clamp(min=1e-12)
    steps = own.diff(dim=0).square().mean(dim=2)
    usual = float(steps.mean().sqrt())
    target = codes.flatten(1)
    # Distances of all windows, frame after frame: no array of windows.
    distances = torch.zeros(frames - length + 1, videos, device=device)
    for k in range(known):
        shift = length - known + k
        distances += (own[shift : shift + len(distances)] - target[k]).square().mean(dim=2) / known
    nearest = distances.flatten().argsort()[:STARTS]
    pairs = list(zip((nearest // videos).tolist(), (nearest % videos).tolist(), strict=True))
    start = [torch.stack([states[begin][cell][video] for begin, video in pairs]) for cell in range(len(states[0]))]
    usual_noise = torch.stack([noise[video, begin : begin + length - 1] for begin, video in pairs])
    h = [memory.clone().requires_grad_(True) for memory in start]
    s = usual_noise.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([*h, s], max_iter=ITERATIONS, history_size=20, line_search_fn='strong_wolfe')

    def missed() -> torch.Tensor:  # [STARTS]
        l, _ = generator.rollout(s, tuple(h))
        said = generator.codes(l[:, -known:]).flatten(2)
        return (said - target).square().mean(dim=(1, 2)) / variance

    def jerk() -> torch.Tensor:  # of the step that follows a single picture
        if known > 1:
            return torch.zeros([], device=device)
        still = torch.cat([s, torch.zeros_like(s[:, :1])], dim=1)
        l, _ = generator.rollout(still, tuple(h))
        return (generator.codes(l[:, -1]).flatten(1) - target).square().mean(dim=1).sum() / variance

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        change = sum((memory - first).square().mean() for memory, first in zip(h, start, strict=True))
        value = (
            missed().sum()
            + HOLD_WEIGHT * jerk()
            + len(s) * (NOISE_WEIGHT * (s - usual_noise).square().mean() + MEMORY_WEIGHT * change / len(h))
        )
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    with torch.no_grad():
        errors = missed()
        best = int(errors.argmin())
        l, memories = generator.rollout(s[best : best + 1], tuple(memory[best : best + 1] for memory in h))
        rest = codes[-1] - generator.codes(l[:, -1])[0]
        size = float(rest.square().mean().sqrt())
        # The steepest step of a half cosine of n frames is pi / 2n of its height.
        fade = math.ceil(size * math.pi / 2 / max(FADING_PART * usual, 1e-12))
        fade = min(max(fade, SHORTEST_FADE), LONGEST_FADE)
        beginning = tuple(memory.clone() for memory in memories[-1]), l[:, -1].clone()
        return Continuation(beginning, rest, fade, float(errors[best].sqrt()))
