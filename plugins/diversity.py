"""Metrics: do videos of different seeds differ from each other as moments of real footage do?

diversity_latent_200f   codes of 64 videos, at their first, middle and last second
diversity_200f          pictures, of any two sets of videos

1: as real footage; near 0: all the same. metrics/diversity.py has the definition, docs/companion_metrics.md says how to read it.
Also for 1000 frames.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from metrics.companion_inputs import CodeInputs, PictureInputs, add_lengths
from metrics.diversity import Diversity

LENGTHS = (200, 1000)
WINDOW = 25


def _windows(videos: Sequence[torch.Tensor], num_frames: int) -> Iterator[torch.Tensor]:
    """Windows [N, 25, C] of all videos at their beginning, in the middle and at the end."""
    for start in (0, (num_frames - WINDOW) // 2, num_frames - WINDOW):
        yield torch.stack([video[start : start + WINDOW] for video in videos])


def _latent(opts: Any, metric: str, num_frames: int) -> dict[str, float]:
    """Diversity of the codes of different seeds, 1 as real footage."""
    inputs = CodeInputs(opts, metric)
    videos = list(inputs.videos(num_frames))
    real = Diversity(inputs.points.real, len(videos), WINDOW)
    return inputs.results(real.compare(_windows(videos, num_frames)))


def _pictures(opts: Any, metric: str, num_frames: int) -> dict[str, float]:
    """Diversity of the pictures of different videos, 1 as real footage."""
    inputs = PictureInputs(opts, metric)
    real, videos = inputs.real(num_frames), inputs.videos(num_frames)
    return inputs.results(Diversity(real, len(videos), WINDOW).compare(_windows(videos, num_frames)))


# Register with metrics.metric_main.register_metric, one a length.
add_lengths(globals(), 'diversity_latent', LENGTHS, _latent, best=1.0)
add_lengths(globals(), 'diversity', LENGTHS, _pictures, best=1.0)
