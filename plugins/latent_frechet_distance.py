"""Metrics: the Frechet distance between windows of real and of generated latents. Needs no detector and no download.

lfd2048_25f         the first 25 frames of 2048 videos, seeds 0 to 2047 as in generate_video.py
lfd2048_25f_at225   frames 225 to 249 of the same videos: has it gone on, or frozen, or drifted away?
lfd2048_25f_at1000  the same from frame 1000 on; any other frame can be named as well

Each gives a distance of the codes (NAME) and one of their motion (NAME_motion_distance).

The real side is up to 2048 windows of 25 frames, evenly spread over the footage. docs/measuring/metrics.md has the definition,
and says how to read what stands beside the value.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from metrics.distances.frechet import expected_bias, frechet_distance, mean_and_covariance
from metrics.families import register_starts
from metrics.inputs.code_inputs import DatasetClips, open_codes
from metrics.inputs.latent_windows import (
    CodeSpace,
    WindowSpace,
    alternating_blocks,
    cut_windows,
    generate_coordinates,
    window_starts,
)
from metrics.metric_utils import MetricOptions, ProgressMonitor
from networks.errors import InputError
from networks.latent_generator import LatentGenerator

MAX_COMPONENTS = 32  # of a code
MAX_DIMENSION = 64  # of a window
MIN_SEPARATE_WINDOWS = 8
VIDEOS_AT_ONCE = 512
BLOCK_WINDOWS = 4  # length of the blocks of the split halves, in windows


class _View:
    """Real windows seen in one way, with their statistics: mean and covariance of features, floor, constant.

    Args:
        windows: Coordinates [N, t, C + 1] of real windows.
        halves: The same of the two halves of the footage.
        still: One window [1, t, C + 1] that stands still at the mean code.
        dimension: Components to keep.
    """

    def __init__(self, windows: torch.Tensor, halves: Sequence[torch.Tensor], still: torch.Tensor, dimension: int) -> None:
        self.space = WindowSpace(windows, dimension)
        self.real = mean_and_covariance(self.space.features(windows))
        self.constant = frechet_distance(*self.real, self.space.features(still)[0], np.zeros_like(self.real[1]))
        self.floor = None
        if min(len(half) for half in halves) > 1:
            statistics = [mean_and_covariance(self.space.features(half)) for half in halves]
            self.floor = frechet_distance(*statistics[0], *statistics[1])

    def compare(self, windows: torch.Tensor) -> dict[str, float]:
        fake = mean_and_covariance(self.space.features(windows))
        floor = {} if self.floor is None else {'floor': self.floor}
        return {'distance': frechet_distance(*self.real, *fake), **floor, 'constant': self.constant}


class LatentFrechetDistance:
    """The real side of the distance, fitted once, then compared with any number of generated sets.

    It looks at the windows twice: at the codes themselves, and at their motion, which is the difference of neighbouring
    frames, scaled so that every coordinate of the real motion has unit variance. The first sees what is shown and how
    it is spread, and is ruled by slow changes; the second sees how it moves, and a frozen video fails it completely.

    Args:
        real_clips: Real codes, each float32 [T, num_ws, w_dim]; a sequence that loads them when asked is fine. Clips
            shorter than the window are left out and counted.
        window: Frames of a window.
        max_windows: Real windows to take at most, evenly spread.
        dimension: Components of a window to keep, d. None takes 64, or one less than the number of windows that fit
            into the footage side by side where that is smaller: windows that overlap tell little more, and a covariance
            of more dimensions than samples is singular.

    Attributes:
        protocol: What was measured and how: numbers only, for the results.

    Raises:
        InputError: too little footage for the dimension, or codes that are not finite.
    """

    def __init__(
        self, real_clips: Sequence[np.ndarray], *, window: int = 25, max_windows: int = 2048, dimension: int | None = None
    ) -> None:
        if window < 2:
            raise ValueError('a window has at least two frames, or there is no motion in it')
        lengths = [len(real_clips[index]) for index in range(len(real_clips))]
        separate = sum(length // window for length in lengths)
        needed = MIN_SEPARATE_WINDOWS if dimension is None else max(dimension + 1, MIN_SEPARATE_WINDOWS)
        if separate < needed:
            raise InputError(
                f'the footage holds {separate} windows of {window} frames side by side, and a Frechet '
                f'distance in {needed - 1} dimensions needs at least {needed}; use more or longer clips'
            )
        self.window = window
        self.space = CodeSpace(real_clips, MAX_COMPONENTS)
        coordinates = [self.space.project(real_clips[index]) for index in range(len(real_clips))]
        windows = cut_windows(coordinates, window_starts(lengths, window, max_windows), window)
        halves = [
            cut_windows(clips, window_starts([len(clip) for clip in clips], window, max_windows), window)
            for clips in alternating_blocks(coordinates, BLOCK_WINDOWS * window)
        ]
        dimension = min(separate - 1, MAX_DIMENSION) if dimension is None else dimension
        # Coordinates count from the mean code, so a video that stands still there is zero everywhere.
        still = torch.zeros(1, window, self.space.num_components + 1)
        self._motion_unit = torch.diff(windows, dim=1).square().mean(dim=(0, 1)).sqrt().clamp(min=1e-6)
        self.views = {
            '': _View(windows, halves, still, dimension),
            'motion_': _View(self._motion(windows), [self._motion(half) for half in halves], self._motion(still), dimension),
        }
        self.protocol = {
            'window_frames': window,
            'windows_real': len(windows),
            'windows_real_side_by_side': separate,
            'clips_too_short': sum(length < window for length in lengths),
            'components': self.space.num_components,
            'dimension': self.views[''].space.dimension,
        }

    def _motion(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows of coordinates [N, t, C + 1] -> scaled differences of neighbouring frames [N, t - 1, C + 1]."""
        return torch.diff(windows, dim=1) / self._motion_unit

    def compare(self, coordinates: torch.Tensor) -> dict[str, float]:
        """Measure generated windows, given as coordinates [N, window, C + 1] of `space`.

        Returns:
            `distance`, the squared Frechet distance, and to read it by: `floor`, the distance between two halves of the
            footage, dealt out in blocks (absent when it is too short to be halved); `constant`, what a video gets that
            stands still at the mean code; `expected_bias`, what independent windows of one Gaussian of these sizes get.
            `motion_distance`, `motion_floor`, `motion_constant`: the same for the motion. Then `protocol`.

        Raises:
            InputError: too few windows for the dimension, or codes that are not finite.
        """
        if coordinates.ndim != 3 or coordinates.shape[1:] != (self.window, self.space.num_components + 1):
            raise ValueError(f'need windows [N, {self.window}, {self.space.num_components + 1}], not {list(coordinates.shape)}')
        finite = torch.isfinite(coordinates).flatten(1).all(dim=1)
        if not finite.all():
            raise InputError(
                f'{int((~finite).sum())} of {len(finite)} generated windows hold numbers that are not '
                'finite (NaN or infinity); this snapshot is broken, take an earlier one'
            )
        dimension = self.protocol['dimension']
        if len(coordinates) <= dimension + 1:
            raise InputError(
                f'{len(coordinates)} generated windows are too few for {dimension} dimensions; make at least {dimension + 2}'
            )
        seen = {'': coordinates, 'motion_': self._motion(coordinates)}
        results = {
            prefix + key: value for prefix, view in self.views.items() for key, value in view.compare(seen[prefix]).items()
        }
        results['expected_bias'] = expected_bias(
            self.views[''].real[1], self.protocol['windows_real_side_by_side'], len(coordinates)
        )
        return {**results, 'windows_fake': len(coordinates), **self.protocol}

    def compare_codes(self, windows: np.ndarray | torch.Tensor) -> dict[str, float]:
        """Measure generated windows of codes [N, window, num_ws, w_dim], an array or a tensor; see `compare`."""
        windows = torch.as_tensor(windows)
        return self.compare(self.space.project(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]))

    def compare_generator(
        self,
        generator: LatentGenerator,
        *,
        num_videos: int = 2048,
        start: int = 0,
        first_seed: int = 0,
        progress: ProgressMonitor | None = None,
    ) -> dict[str, float]:
        """Measure frames `start` to `start + window - 1` of the videos of seeds `first_seed` ... of a latent generator.

        Args:
            generator: networks.latent_generator.LatentGenerator, or one with its methods.
            num_videos: How many seeds.
            start: First frame of the window.
            first_seed: First seed.
            progress: metric_utils.ProgressMonitor, or None.
        """
        seeds = range(first_seed, first_seed + num_videos)
        parts = []
        for begin in range(0, num_videos, VIDEOS_AT_ONCE):
            batch = seeds[begin : begin + VIDEOS_AT_ONCE]
            parts.append(generate_coordinates(generator, self.space, batch, start, self.window))
            if progress is not None:
                progress.update(min(begin + VIDEOS_AT_ONCE, num_videos))
        return {**self.compare(torch.cat(parts)), 'start_frame': start, 'first_seed': first_seed}


def latent_frechet_distance(
    real_clips: Sequence[np.ndarray],
    fake_windows: np.ndarray | torch.Tensor,
    *,
    max_windows: int = 2048,
    dimension: int | None = None,
) -> dict[str, float]:
    """The distance between real clips, each [T, num_ws, w_dim], and generated windows [N, t, num_ws, w_dim].

    For one comparison; LatentFrechetDistance fits the real side once for many. Returns what its `compare` returns.
    """
    real = LatentFrechetDistance(real_clips, window=fake_windows.shape[1], max_windows=max_windows, dimension=dimension)
    return real.compare_codes(fake_windows)


# ----------------------------------------------------------------------------
# The metrics


def _measure(opts: MetricOptions, name: str, start: int) -> dict[str, float]:
    """Frechet distance of latent windows."""
    what = f'{name} compares the codes of a snapshot with those that it was trained on'
    with open_codes(opts, what, instead='fvd2048_25f') as dataset:
        real = LatentFrechetDistance(DatasetClips(dataset))
    progress = opts.progress.sub(tag=f'{name} videos', num_items=2048)
    generator = copy.deepcopy(opts.G).eval().requires_grad_(False).to(opts.device)
    results = real.compare_generator(generator, start=start, progress=progress)
    distance = results.pop('distance')
    return {name: distance, **{f'{name}_{key}': value for key, value in results.items()}}


register_starts(
    r'lfd2048_25f(?:_at([1-9][0-9]{0,5}))?', ('lfd2048_25f', 'lfd2048_25f_at225', 'lfd2048_25f_at1000'), _measure, best='lower'
)
