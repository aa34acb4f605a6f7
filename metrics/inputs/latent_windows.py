"""Features of windows of W+ codes, in a space that is fitted to real footage.

A code w (num_ws * w_dim values) becomes C + 1 coordinates:

    z = (E V^T (w - mean) ) / sqrt(v)          whitened principal components: unit variance over the real frames
    r = |w - mean - V V^T (w - mean)| / rms    the tail: how far the code is off the components, 1 = as real ones

and a window of t codes the t (C + 1) values (z, r) / sqrt(t), of which the d principal components of the real windows
are kept, again with the length of what is left over as one value more. Nothing that a code or a window can do stays
unseen: what leaves the kept directions shows in the lengths.

Squared distances in this space are per frame, in units of the variance of one component of the real codes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from networks.errors import InputError
from networks.latent_generator import LatentGenerator, first_frame
from networks.seeded_noise import SeededNoise

MAX_BASIS_FRAMES = 1024  # frames that the components are fitted to, evenly spread; their number sets the cost
MIN_TAIL = 1e-3  # of the total spread: below it the tail of the real codes is rounding, not a unit
EXPLAINED = 0.99  # share of the variance that the components must reach
STEPS_AT_ONCE = 256  # whose noise is drawn together
PASSED_AT_ONCE = 1024  # the same, of frames that nobody looks at
CODES_AT_ONCE = 4096  # memory: 144 MiB of codes of 18 x 512
NOT_FINITE = 'the real codes hold numbers that are not finite (NaN or infinity); embed the footage again'


class CodeSpace:
    """Whitened principal components of real codes, and the tail.

    Args:
        clips: Real codes, each float32 [T, num_ws, w_dim]; asked for one by one, so a sequence may load them.
        max_components: C is the number of components that explain 99 % of the variance, or this if they are more.

    Attributes:
        num_components: C.
        num_frames: Number of real frames.

    Raises:
        InputError: fewer than two frames, frames that are all the same, or numbers that are not finite.
    """

    def __init__(self, clips: Sequence[np.ndarray], max_components: int = 32) -> None:
        lengths = [len(clips[index]) for index in range(len(clips))]
        self.num_frames = sum(lengths)
        if self.num_frames < 2:
            raise InputError(f'the real codes have {self.num_frames} frames in all; components need more')
        sample = self._sample(clips, lengths)
        if not np.isfinite(sample).all():
            raise InputError(NOT_FINITE)
        mean = sample.mean(axis=0)
        directions, explained, total = _principal_directions(sample - mean)
        if total <= 0:
            raise InputError('all frames of the real codes are the same, so there is no motion to compare with')
        enough = int(np.searchsorted(np.cumsum(explained) / total, EXPLAINED)) + 1
        self.num_components = min(enough, max_components, len(explained))
        self.mean = torch.from_numpy(mean).float()
        self.directions = torch.from_numpy(directions[:, : self.num_components].copy()).float()  # V [L * D, C]

        # Whitening and the unit of the tail come from all frames, not only from those that the directions came from.
        self.whitening = torch.eye(self.num_components, dtype=torch.float64)
        self.offset = torch.zeros(self.num_components, dtype=torch.float64)
        self.tail_unit = 1.0
        raw = torch.cat([self.project(clips[index]) for index in range(len(clips))]).double()
        if not torch.isfinite(raw).all():
            raise InputError(NOT_FINITE)
        self.offset = raw[:, :-1].mean(dim=0)
        values, vectors = torch.linalg.eigh(torch.cov(raw[:, :-1].T).reshape(self.num_components, self.num_components))
        self.whitening = vectors / values.clamp(min=float(values[-1]) * 1e-9).sqrt()
        self.tail_unit = max(float(raw[:, -1].square().mean().sqrt()), MIN_TAIL * float(np.sqrt(total)))

    @staticmethod
    def _sample(clips: Sequence[np.ndarray], lengths: Sequence[int]) -> np.ndarray:
        """Up to MAX_BASIS_FRAMES frames [n, L * D] float64, evenly spread over all clips."""
        total = sum(lengths)
        chosen = np.unique(np.linspace(0, total - 1, min(total, MAX_BASIS_FRAMES)).round().astype(np.int64))
        parts, begin = [], 0
        for index, length in enumerate(lengths):
            inside = chosen[(chosen >= begin) & (chosen < begin + length)] - begin
            if len(inside):
                parts.append(np.asarray(clips[index][inside], dtype=np.float64).reshape(len(inside), -1))
            begin += length
        return np.concatenate(parts)

    def _finish(self, components: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
        """Raw components [N, C] and squared lengths [N] of centred codes -> coordinates [N, C + 1]."""
        tail = (square.double() - components.double().square().sum(dim=1)).clamp(min=0).sqrt() / self.tail_unit
        white = (components.double() - self.offset.to(components.device)) @ self.whitening.to(components.device)
        return torch.cat([white, tail.unsqueeze(1)], dim=1).float()

    def project(self, codes: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Codes [N, num_ws, w_dim], an array or a tensor -> coordinates [N, C + 1] float32 on the codes' device."""
        codes = torch.as_tensor(codes)
        parts = []
        for begin in range(0, len(codes), CODES_AT_ONCE):
            centred = codes[begin : begin + CODES_AT_ONCE].flatten(1).float() - self.mean.to(codes.device)
            parts.append(self._finish(centred @ self.directions.to(codes.device), centred.square().sum(dim=1)))
        return torch.cat(parts)

    def projection_of(self, generator: LatentGenerator) -> Any:
        """A function l [N, latent_dim] -> coordinates [N, C + 1] of the codes that a latent generator makes of l.

        A generator whose codes are affine in few coordinates (`coordinates` and `decode`, as ours with a basis) never
        has to write the codes out: the product of the two affine maps, and the length as a quadratic form, do.
        """
        size = getattr(generator, 'num_components', 0)
        if not size or size >= len(self.mean) or not hasattr(generator, 'decode'):
            return lambda l: torch.cat([self.project(generator.codes(part)) for part in l.split(CODES_AT_ONCE)])
        device = next(generator.parameters()).device
        origin = generator.decode(torch.zeros(1, size, device=device)).flatten().double()
        axes = generator.decode(torch.eye(size, device=device)).flatten(1).double() - origin  # [K, L * D]
        origin = origin - self.mean.to(device).double()
        directions = self.directions.to(device).double()
        to_components, start = axes @ directions, origin @ directions
        gram, cross, square = axes @ axes.T, axes @ origin, origin.square().sum()

        def project(l: torch.Tensor) -> torch.Tensor:
            k = generator.coordinates(l).double()
            return self._finish(k @ to_components + start, ((k @ gram) * k).sum(dim=1) + 2 * (k @ cross) + square)

        return project


def generate_coordinates(generator: LatentGenerator, space: Any, seeds: Sequence[int], start: int, window: int) -> torch.Tensor:
    """Coordinates [N, window, C + 1] of frames start ... start + window - 1 of the videos of N seeds, after their burn-in.

    `space` is a CodeSpace, or anything else with a `projection_of`. Memory does not grow with `start`.
    """
    return next(iter(generate_windows(generator, space, seeds, [(start, window)])))


@torch.no_grad()
def generate_windows(
    generator: LatentGenerator, space: Any, seeds: Sequence[int], places: Sequence[tuple[int, int]], every: int = 1
) -> Iterator[torch.Tensor]:
    """Several stretches of the videos of N seeds in one pass, counted from the end of their burn-in.

    Args:
        generator: Latent generator, or anything with its methods.
        space: A CodeSpace, or anything else with a `projection_of`.
        seeds: As in generate_video.py.
        places: (first frame, number of frames) of each stretch, in order and without overlap.
        every: Only every so-manieth frame of a stretch.

    Yields:
        Coordinates [N, frames, C + 1] of each stretch, on the CPU.
    """
    noise = SeededNoise(seeds, generator.latent_dim, generator.noise_dim, next(generator.parameters()).device)
    project = space.projection_of(generator)
    state, l = first_frame(generator, noise.first())
    pass_by = getattr(generator, 'pass_by', None)
    frame = -int(getattr(generator, 'burn_in', 0))
    for start, length in places:
        if start < frame:
            raise ValueError('stretches of a video come in order, and do not overlap')
        while pass_by is not None and start - frame > 1:
            noises = noise.steps(min(PASSED_AT_ONCE, start - frame))
            state, l = pass_by(noises, state)
            frame += noises.shape[1]
        latents = []
        while frame < start + length:
            for s in noise.steps(min(STEPS_AT_ONCE, start + length - frame)).unbind(1):
                if frame >= start and (frame - start) % every == 0:
                    latents.append(l)
                state, l = generator.step(s, state)
                frame += 1
        yield project(torch.cat(latents)).unflatten(0, (len(latents), len(seeds))).transpose(0, 1).cpu()


def _principal_directions(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Principal components of centred rows [n, features], from the smaller of the two products of rows and features.

    Returns:
        Directions [features, k], their variances [k], largest first, and the total variance.
    """
    num_rows, num_features = centred.shape
    if num_rows < num_features:
        values, vectors = np.linalg.eigh(centred @ centred.T)
    else:
        values, vectors = np.linalg.eigh(centred.T @ centred)
    total = float(values.clip(min=0).sum())
    keep = np.flatnonzero(values > max(values[-1], 0) * 1e-10)[::-1]  # the rest is rounding
    values, vectors = values[keep], vectors[:, keep]
    directions = centred.T @ (vectors / np.sqrt(values)) if num_rows < num_features else vectors
    return directions, values / max(num_rows - 1, 1), total / max(num_rows - 1, 1)


def window_starts(lengths: Sequence[int], window: int, max_windows: int) -> list[tuple[int, int]]:
    """Up to `max_windows` windows (clip, first frame), evenly spread over all that the clips hold; no randomness."""
    counts = [max(length - window + 1, 0) for length in lengths]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if counts else 0
    chosen = np.unique(np.linspace(0, max(total - 1, 0), min(total, max_windows)).round().astype(np.int64))
    clips = np.searchsorted(ends, chosen, side='right')
    return [(int(clip), int(index - (ends[clip] - counts[clip]))) for clip, index in zip(clips, chosen, strict=True)]


class WindowSpace:
    """Features of windows of coordinates, fitted to the real windows.

    Args:
        windows: Real windows of coordinates [N, t, C + 1], from CodeSpace.project.
        dimension: Principal components to keep, d; fewer if the windows span fewer.

    Attributes:
        dimension: d, without the one value for what is left over.
    """

    def __init__(self, windows: torch.Tensor, dimension: int) -> None:
        flat = self._flatten(windows)
        self.mean = flat.mean(axis=0)
        directions, _, _ = _principal_directions(flat - self.mean)
        self.directions = directions[:, :dimension]
        self.dimension = self.directions.shape[1]

    @staticmethod
    def _flatten(windows: torch.Tensor) -> np.ndarray:
        return windows.flatten(1).double().cpu().numpy() / np.sqrt(windows.shape[1])

    def features(self, windows: torch.Tensor) -> np.ndarray:
        """Windows of coordinates [N, t, C + 1] -> features [N, d + 1] float64."""
        centred = self._flatten(windows) - self.mean
        kept = centred @ self.directions
        rest = np.sqrt((np.square(centred).sum(axis=1) - np.square(kept).sum(axis=1)).clip(min=0))
        return np.concatenate([kept, rest[:, np.newaxis]], axis=1)


def cut_windows(coordinates: Sequence[torch.Tensor], starts: Sequence[tuple[int, int]], window: int) -> torch.Tensor:
    """The windows [N, window, C + 1] at (clip, first frame) out of the clips' coordinates [T, C + 1]."""
    return torch.stack([coordinates[clip][begin : begin + window] for clip, begin in starts])


def alternating_blocks(coordinates: Sequence[torch.Tensor], length: int) -> Iterator[list[torch.Tensor]]:
    """Two halves of the footage: its blocks of `length` frames, dealt out in turn; no window spans two blocks."""
    blocks = [clip[begin : begin + length] for clip in coordinates for begin in range(0, len(clip), length)]
    yield blocks[0::2]
    yield blocks[1::2]
