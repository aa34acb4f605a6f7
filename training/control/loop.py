"""Loops: a moment that nearly returns, and noise that leads exactly back to it.

A loop of N frames begins at a frame k of an endless video, where frame k + N looks and moves nearly like frame k. Among
`CANDIDATES` frames k of `VARIANTS` noise sequences of the seed the best is taken. Then the noise of the last B steps is changed
so that the video arrives where it began. With w_n the codes, n = 0 the first frame of the loop and J = `MATCHED`,

    minimise over s_{N-B}, .., s_{N+J-2}:   sum_{j < J} |w_{N+j} - w_j|^2 / variance of w  +  `NOISE_WEIGHT` * mean square
                                     of the change of s

Matching J frames matches velocity and acceleration as well as place, so that the movement goes on through the seam. What is left,
e = w_0 - w_N, is spread over the bridge as e (1 - cos(pi b / B)) / 2 in its frame b = 0 .. B, far less than a usual step in
each frame. Nothing is cross-faded: each frame has one code.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch

from networks.errors import InputError
from networks.latent_generator import LatentGenerator, State, first_frame
from networks.seeded_noise import SeededNoise
from training.videos.code_sources import ModelSource

VARIANTS = 8
CANDIDATES = 400
TRIED = 3  # of the best candidates, until one closes
BRIDGES = (50, 25)
SHORTEST_LOOP = 16
MATCHED = 3
ITERATIONS = 60
NOISE_WEIGHT = 0.02
SETTLED = 50  # steps after which the memories are those that the model makes, not those that H began with


@dataclasses.dataclass(frozen=True)
class Bridge:
    """How a loop closes.

    Attributes:
        seed: Of the noise before the bridge.
        burn_in: Frames before the loop.
        noise: s of the last steps, [B, noise_dim]; the last of them is not used, as frame N is frame 0 again.
        rest: e, [num_ws, w_dim].
        seam: Largest step of the bridge, the one to frame 0 among them, as a part of the largest step that the model makes.
        noise_rms: Root mean square of `noise`; 1 for ordinary noise.
    """

    seed: int
    burn_in: int
    noise: torch.Tensor
    rest: torch.Tensor
    seam: float
    noise_rms: float


def _variant_seed(seed: int, variant: int) -> int:
    return seed if variant == 0 else int(np.random.SeedSequence([seed, variant]).generate_state(1)[0])


@dataclasses.dataclass(frozen=True)
class _Returns:
    """Where a loop can begin, and what the model's codes are like.

    Attributes:
        candidates: (distance, index of the seed, k), the best first.
        variance: Mean variance of the codes.
        largest: Largest step, root mean square of the change of a code.
    """

    candidates: list[tuple[float, int, int]]
    variance: float
    largest: float


@torch.no_grad()
def _near_returns(generator: LatentGenerator, seeds: list[int], num_frames: int, burn_in: int) -> _Returns:
    """Moments k that nearly return N frames later, in the videos of some seeds.

    The distance is that of codes w and of velocities, frame k against frame k + N, in units of the variance of each.
    """
    device = next(generator.parameters()).device
    noise = SeededNoise(seeds, generator.latent_dim, generator.noise_dim, device)
    memories, l = first_frame(generator, noise.first())
    kept: dict[int, torch.Tensor] = {}
    last = burn_in + CANDIDATES
    early = range(burn_in - 1, last + 1)
    late = range(burn_in - 1 + num_frames, last + 1 + num_frames)
    for frame in range(late.stop):
        if frame in early or frame in late:
            kept[frame] = l
        memories, l = generator.step(noise.steps(1)[:, 0], memories)

    def series(frames: range) -> torch.Tensor:  # [frames, seeds, F]
        return generator.codes(torch.stack([kept[frame] for frame in frames])).flatten(2)

    first, second = series(early), series(late)
    variance = first.var(dim=0).mean().clamp(min=1e-12)
    first_steps, second_steps = first.diff(dim=0), second.diff(dim=0)
    motion = first_steps.square().mean().clamp(min=1e-12)
    distances = (first - second)[1:].square().mean(dim=2) / variance
    distances = distances + 0.25 * (first_steps - second_steps).square().mean(dim=2) / motion
    order = distances.flatten().argsort()
    count = len(seeds)
    largest = float(first_steps.square().mean(dim=2).max()) ** 0.5
    candidates = [
        (float(distances.flatten()[index]), int(index) % count, burn_in + int(index) // count) for index in order[:TRIED]
    ]
    return _Returns(candidates, float(variance), largest)


class _Walk:
    """From frame k of a seed up to the bridge, remembering no more than the bridge needs."""

    def __init__(self, generator: LatentGenerator, seed: int, begin: int, num_frames: int, length: int) -> None:
        source = ModelSource(generator, seed, burn_in=begin)
        first: list[torch.Tensor] = []
        before = None
        remaining = num_frames - length
        while remaining:
            part = source.read(min(remaining, 64))
            remaining -= len(part)
            before = part[-1:]
            if len(first) < MATCHED:
                first += list(part[: MATCHED - len(first)])
        state = source.state()
        if len(first) < MATCHED:
            first += list(source.read(MATCHED - len(first)))
            source.restore(state)
        self.first = torch.stack(first)
        self.before = before
        self.memories, self.l = source.position()
        device = self.l.device
        noise = SeededNoise([seed], generator.latent_dim, generator.noise_dim, device)
        noise.restore(state['noise'])
        self.noise = noise.steps(length + MATCHED - 1)


def _close(generator: LatentGenerator, seed: int, begin: int, num_frames: int, length: int, returns: _Returns) -> Bridge:
    walk = _Walk(generator, seed, begin, num_frames, length)
    s = walk.noise.clone().requires_grad_(True)

    def arrive() -> torch.Tensor:
        l = [walk.l]
        memories: State = walk.memories
        for step in s.unbind(1):
            memories, latest = generator.step(step, memories)
            l.append(latest)
        return generator.codes(torch.cat(l))

    optimizer = torch.optim.LBFGS([s], max_iter=ITERATIONS, history_size=20, line_search_fn='strong_wolfe')

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        missed = (arrive()[-MATCHED:] - walk.first).square().mean(dim=(1, 2)).sum() / returns.variance
        value = missed + NOISE_WEIGHT * (s - walk.noise).square().mean()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    with torch.no_grad():
        codes = arrive()[: length + 1]  # frames N - B .. N
        rest = walk.first[0] - codes[-1]
        codes = codes + _ramp(np.arange(length + 1), length, codes) * rest
        series = codes if walk.before is None else torch.cat([walk.before, codes])
        steps = series.diff(dim=0).square().mean(dim=(1, 2)).sqrt()
        largest = float(steps.max())
    noise = s.detach()[0, :length]
    return Bridge(seed, begin, noise, rest, largest / max(returns.largest, 1e-12), float(noise.square().mean().sqrt()))


def _ramp(frames: np.ndarray, length: int, like: torch.Tensor) -> torch.Tensor:
    weights = (1 - np.cos(math.pi * frames / length)) / 2
    return torch.as_tensor(weights, dtype=like.dtype, device=like.device)[:, None, None]


def find_bridge(generator: LatentGenerator, seed: int, num_frames: int, *, burn_in: int = 0) -> Bridge:
    """The beginning and the bridge of a loop.

    Args:
        generator: Latent generator.
        seed: Random seed of the motion.
        num_frames: N.
        burn_in: Frames at least before the loop; not fewer than `SETTLED`, because the model does not come back to the
            memories that it begins with.

    Raises:
        InputError: the model finds no way back.
    """
    ahead = (
        generator.frames_behind // 2
    )  # steps that the recurrence is ahead of what is shown: it has to be led that much earlier
    if num_frames < SHORTEST_LOOP + ahead:
        raise InputError(
            f'a loop of {num_frames} frames is shorter than the model can close; choose at least {SHORTEST_LOOP + ahead} frames'
        )
    seeds = [_variant_seed(seed, variant) for variant in range(VARIANTS)]
    returns = _near_returns(generator, seeds, num_frames, max(burn_in, SETTLED))
    best: Bridge | None = None
    for _, index, begin in returns.candidates:
        for length in sorted({min(length + ahead, num_frames - 4) for length in BRIDGES}, reverse=True):
            bridge = _close(generator, seeds[index], begin, num_frames, length, returns)
            if bridge.seam <= 1:
                return bridge
            best = bridge if best is None or bridge.seam < best.seam else best
    assert best is not None
    raise InputError(
        f'the loop of {num_frames} frames of seed {seed} does not close: the way back has a step {best.seam:.2f} times as large '
        'as the largest that the model makes; choose more frames or another seed'
    )


class LoopSource:
    """N frames of one seed, over and over, without a seam; see the module's description.

    Args:
        generator: Latent generator.
        bridge: Of `find_bridge`.
        num_frames: N.
    """

    def __init__(self, generator: LatentGenerator, bridge: Bridge, num_frames: int) -> None:
        self.bridge = bridge
        self.num_frames = num_frames
        self._source = ModelSource(generator, bridge.seed, burn_in=bridge.burn_in)
        self._generator = generator
        self._begin = self._source.state()
        self._frame = 0

    def read(self, count: int) -> torch.Tensor:
        """The next codes [count, num_ws, w_dim]."""
        parts: list[torch.Tensor] = []
        while count:
            if self._frame == self.num_frames:
                self._frame = 0
                self._source.restore(self._begin)
            length = len(self.bridge.noise)
            bridge_begin = self.num_frames - length
            if self._frame < bridge_begin:
                part = self._source.read(min(count, bridge_begin - self._frame))
            else:
                done = self._frame - bridge_begin
                part = self._source.read_with(self.bridge.noise[None, done : done + count])
                part = part + _ramp(done + np.arange(len(part)), length, part) * self.bridge.rest
            self._frame += len(part)
            count -= len(part)
            parts.append(part)
        return torch.cat(parts)

    def state(self) -> dict[str, Any]:
        return {'source': self._source.state(), 'frame': self._frame}

    def restore(self, state: dict[str, Any]) -> None:
        self._source.restore(state['source'])
        self._frame = state['frame']
