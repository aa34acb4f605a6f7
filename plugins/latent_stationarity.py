"""Metrics: is a video the same kind of video at minute ten as at second one? On codes; needs no detector and no download.

stationarity_latent     frames 0, 225, 1000, 2500 and 10,000 of 1024 videos, and 1500 frames of 64 of them from frame 1000 on

The leading coordinates of the codes (principal components that hold 90 % of the variance, one by one) have at each depth

    variance ratio   = variance over frames and videos / variance of the footage
    autocorrelation  = sum_c E[z_c(k) z_c(k + n)] / sum_c E[z_c(k)^2],  z centred, n = 1, 3 and 10 seconds, all coordinates
    kurtosis         = E[v^4] / E[v^2]^2 of the speed v_c of each coordinate; 3 is Gaussian, a subject that rests and moves has
    more
    outside          = share of frames that lie farther from the mean of the footage than any frame of it, and `farthest`, how
    far the farthest of them lies, as a multiple of that; variances tell nothing of the few frames that smear

and the value of the metric is the largest |ln(variance ratio)| of all leading coordinates and depths: 0 is as alive as the
footage everywhere, ln 2 = 0.69 is twice or half its variance somewhere, and a coordinate that stands still has no bound. Each
value stands beside that of the footage; the autocorrelation of footage is told up to lags of half of its longest clip, and is
little worth beyond a tenth of it.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import dnnlib
from metrics import metric_main
from metrics.inputs.latent_windows import CodeSpace, generate_windows
from metrics.metric_utils import MetricOptions
from networks.errors import InputError, option
from networks.latent_generator import LatentGenerator

DEPTHS = (0, 225, 1000, 2500, 10000)  # frames
WINDOW = 25
VIDEOS = 1024  # a variance of fewer is not known to better than a tenth
LONG_VIDEOS, LONG_FRAMES, LONG_START = 64, 1500, 1025
SECONDS = (1, 3, 10)
LEADING = 0.9  # of the variance


def autocorrelation(tracks: torch.Tensor, lag: int) -> float:
    """Sum over coordinates of E[z(k) z(k + lag)] over that of E[z^2]; tracks [N, T, C] with one mean over all."""
    centred = tracks - tracks.mean(dim=(0, 1))
    return float((centred[:, :-lag] * centred[:, lag:]).mean(dim=(0, 1)).sum() / centred.square().mean(dim=(0, 1)).sum())


def kurtosis_of_speed(tracks: Sequence[torch.Tensor]) -> torch.Tensor:
    """E[v^4] / E[v^2]^2 [C] of the differences v of neighbouring frames of tracks [T, C]."""
    speed = torch.cat([torch.diff(track, dim=0) for track in tracks]).double()
    return speed.pow(4).mean(dim=0) / speed.square().mean(dim=0).square().clamp(min=1e-24)


class Stationarity:
    """The real side, fitted once.

    Args:
        real_clips: Real codes, each float32 [T, num_ws, w_dim]; a sequence that loads them when asked is fine.
        fps: Frames per second.
    """

    def __init__(self, real_clips: Sequence[np.ndarray], fps: float) -> None:
        self.space = CodeSpace(real_clips)
        self.lags = [round(second * fps) for second in SECONDS]
        self.components = Components(self.space)
        tracks = [self.components.project(real_clips[index]) for index in range(len(real_clips))]
        together = torch.cat(tracks).double()
        self.variance = together.var(dim=0)
        held = (self.variance.cumsum(0) / self.variance.sum()).tolist()
        self.leading = next(index for index, share in enumerate(held) if share >= LEADING) + 1
        self.center = together.mean(dim=0)
        self.farthest = max(float(torch.linalg.vector_norm(together - self.center, dim=1).max()), 1e-12)
        self.kurtosis = kurtosis_of_speed(tracks)[: self.leading]
        longest = max(tracks, key=len)
        self.autocorrelation = [
            autocorrelation(longest[None], lag) if 0 < lag <= len(longest) / 2 else math.nan for lag in self.lags
        ]

    def compare_generator(
        self, generator: LatentGenerator, *, first_seed: int = 0, depths: Sequence[int] = DEPTHS
    ) -> dict[str, float]:
        """Measure the videos of seeds from `first_seed` on; see the top of this file for what the results mean."""
        seeds = range(first_seed, first_seed + VIDEOS)
        stretches = generate_windows(generator, self.components, seeds, [(depth, WINDOW) for depth in depths])
        ratios = {depth: self.variance_ratios(windows) for depth, windows in zip(depths, stretches, strict=True)}
        return {
            **self.summarize(ratios),
            **self.watch(generator, first_seed=first_seed),
            'videos': VIDEOS,
            'first_seed': first_seed,
        }

    def variance_ratios(self, windows: torch.Tensor) -> list[float]:
        """Variance over that of the footage of each leading component; windows [N, t, C] of `components`."""
        return (windows.flatten(0, 1).double().var(dim=0) / self.variance)[: self.leading].tolist()

    def summarize(self, ratios: dict[int, list[float]]) -> dict[str, float]:
        """`worst` and the ratios by name, of {depth: variance ratios}."""
        worst = max(abs(math.log(max(ratio, 1e-12))) for values in ratios.values() for ratio in values)
        named = {f'variance_at{depth}_{c}': ratio for depth, values in ratios.items() for c, ratio in enumerate(values, 1)}
        return {'worst': worst, **named, 'leading_coordinates': self.leading}

    def watch(self, generator: LatentGenerator, *, first_seed: int = 0) -> dict[str, float]:
        """Autocorrelation and kurtosis of some long stretches, and how far outside of the footage they go."""
        results: dict[str, float] = {}
        seeds = range(first_seed, first_seed + LONG_VIDEOS)
        (long,) = generate_windows(generator, self.components, seeds, [(LONG_START, LONG_FRAMES)])
        for second, lag, real in zip(SECONDS, self.lags, self.autocorrelation, strict=True):
            results[f'autocorrelation_{second}s'] = autocorrelation(long.double(), max(lag, 1))
            if not math.isnan(real):
                results[f'autocorrelation_{second}s_real'] = real
        for c, (fake, real) in enumerate(zip(kurtosis_of_speed(list(long))[: self.leading], self.kurtosis, strict=True)):
            results |= {f'kurtosis_{c + 1}': float(fake), f'kurtosis_{c + 1}_real': float(real)}
        distances = torch.linalg.vector_norm(long.double() - self.center, dim=2) / self.farthest
        return {**results, 'outside': float((distances > 1).double().mean()), 'farthest': float(distances.max())}


class Components:
    """Principal components of codes with their own variances, without the tail: a space for `generate_windows`."""

    def __init__(self, space: CodeSpace) -> None:
        self.mean = space.mean
        self.directions = space.directions

    def project(self, codes: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Codes [N, num_ws, w_dim] -> components [N, C]."""
        return (torch.as_tensor(codes).flatten(1).float() - self.mean) @ self.directions

    def projection_of(self, generator: LatentGenerator) -> Any:
        """A function l [N, latent_dim] -> components [N, C]."""
        size = getattr(generator, 'num_components', 0)
        if not size or not hasattr(generator, 'decode'):
            return lambda l: torch.cat([self.project(generator.codes(part).cpu()) for part in l.split(1024)])
        origin = generator.decode(torch.zeros(1, size)).flatten() - self.mean
        axes = generator.decode(torch.eye(size)).flatten(1) - generator.decode(torch.zeros(1, size)).flatten()
        matrix, offset = axes @ self.directions, origin @ self.directions
        return lambda l: generator.coordinates(l) @ matrix + offset


@metric_main.register_metric
def stationarity_latent(opts: MetricOptions) -> dict[str, float]:
    """The largest |ln| of variance ratios of the leading coordinates at five depths, and what belongs to it."""
    if opts.G is None or not opts.dataset_kwargs:
        raise InputError(
            'stationarity_latent compares the codes of a snapshot with those that it was trained on, and here are none; '
            f'give them with {option("network")} and {option("data")}'
        )
    dataset = dnnlib.util.construct_class_by_name(**opts.dataset_kwargs)
    try:
        real = Stationarity([np.array(dataset.load_clip(index)) for index in range(len(dataset.clips))], dataset.fps)
    finally:
        dataset.close()
    generator = copy.deepcopy(opts.G).eval().requires_grad_(False).cpu()
    results = real.compare_generator(generator)
    return {
        'stationarity_latent': results.pop('worst'),
        **{f'stationarity_latent_{key}': value for key, value in results.items()},
    }
