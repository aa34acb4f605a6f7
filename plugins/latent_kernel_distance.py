"""Metrics: a kernel distance between windows of real and of generated latents. It sees what lfd cannot: the shape of motion.

lkd1024            windows that begin at frame 0 of 1024 videos
lkd1024_at1000     the same from frame 1000 on; any other frame can be named as well

NAME is the distance of the motion, in windows of 8 steps from frame to frame; NAME_codes that of the codes, in windows of 25
frames. Both are 1000 MMD^2 of one coordinate at a time (distances/window_kernel_distance.py), in the whitened principal
components of real codes. Beside them stand the 95 % interval (_low, _high) and the distance between two halves of the footage
(_null_median, _null_high), the scale to read them on: a value below _null_high is as near as two halves of this footage are to
each other.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from metrics.distances.window_kernel_distance import RealWindows, window_kernel_distance
from metrics.families import register_starts
from metrics.inputs.code_inputs import open_codes
from metrics.inputs.latent_windows import CodeSpace, generate_windows
from metrics.metric_utils import MetricOptions
from networks.errors import InputError
from networks.latent_generator import LatentGenerator

CODES_WINDOW = 25  # frames
MOTION_WINDOW = 8  # steps
MOTION_BEGIN = 8  # first step of the generated window that is taken
VIDEOS = 1024
VIDEOS_AT_ONCE = 512


class LatentKernelDistance:
    """The real side, fitted once, then compared with any number of generated sets.

    Args:
        real_clips: Real codes, each float32 [T, num_ws, w_dim]; a sequence that loads them when asked is fine.

    Raises:
        InputError: too little footage.
    """

    def __init__(self, real_clips: Sequence[np.ndarray]) -> None:
        self.space = CodeSpace(real_clips)
        tracks = [self._components(self.space.project(real_clips[index])) for index in range(len(real_clips))]
        tracks = [track for track in tracks if len(track) >= CODES_WINDOW]
        try:
            self._codes = RealWindows(tracks, CODES_WINDOW)
            steps = [torch.diff(track, dim=0) for track in tracks]
            self.motion_unit = torch.cat(steps).square().mean(dim=0).sqrt().clamp(min=1e-6)
            self._motion = RealWindows([step / self.motion_unit for step in steps], MOTION_WINDOW)
        except (ValueError, RuntimeError) as error:
            raise InputError('the footage is too short for a kernel distance; use at least two seconds of it') from error

    def _components(self, coordinates: torch.Tensor) -> torch.Tensor:
        return coordinates[..., : self.space.num_components]  # without the length of what is left over

    def compare(self, coordinates: torch.Tensor) -> dict[str, float]:
        """Measure generated windows [N, 25, C + 1] of coordinates of `space`: `distance` of the motion, `codes_distance`, ..."""
        if not torch.isfinite(coordinates).all():
            raise InputError('some generated windows hold numbers that are not finite; take an earlier snapshot')
        windows = self._components(coordinates)
        steps = torch.diff(windows, dim=1)[:, MOTION_BEGIN : MOTION_BEGIN + MOTION_WINDOW] / self.motion_unit
        motion = window_kernel_distance(self._motion, steps)
        codes = window_kernel_distance(self._codes, windows)
        return {**motion, **{f'codes_{key}': value for key, value in codes.items()}, 'windows_fake': len(windows)}

    def compare_generator(
        self, generator: LatentGenerator, *, start: int = 0, first_seed: int = 0, num_videos: int = VIDEOS
    ) -> dict[str, float]:
        """Measure frames `start` to `start` + 24 of the videos of seeds from `first_seed` on."""
        parts: list[torch.Tensor] = []
        for begin in range(0, num_videos, VIDEOS_AT_ONCE):
            seeds = range(first_seed + begin, first_seed + min(begin + VIDEOS_AT_ONCE, num_videos))
            parts.extend(generate_windows(generator, self.space, seeds, [(start, CODES_WINDOW)]))
        return {**self.compare(torch.cat(parts)), 'start_frame': start, 'first_seed': first_seed}


def _measure(opts: MetricOptions, name: str, start: int) -> dict[str, float]:
    """Kernel distance of latent windows."""
    what = f'{name} compares the codes of a snapshot with those that it was trained on'
    with open_codes(opts, what, instead='kvd2048_16f') as dataset:
        real = LatentKernelDistance([np.array(dataset.load_clip(index)) for index in range(len(dataset.clips))])
    generator = copy.deepcopy(opts.G).eval().requires_grad_(False).to(opts.device)
    results = real.compare_generator(generator, start=start)
    return {name: results.pop('distance'), **{f'{name}_{key}': value for key, value in results.items()}}


register_starts(r'lkd1024(?:_at(0|[1-9][0-9]{0,5}))?', ('lkd1024', 'lkd1024_at1000'), _measure, best='lower')
