"""Metrics: how far long videos go away from their own beginning, beside how far real footage does.

drift_latent_1000f   whitened codes of 64 videos: who it is, pose and expression on the average over a second
drift_1000f          pictures, of any two sets of videos; drift_1000f_colour: mean and spread of the colours only

1: as real footage; above: goes away; 0: nothing changes. docs/measuring/companion_metrics.md says how to read it.
Also for 200 and 4000 frames.

Drift: how far a video goes away from its own beginning, beside how far real footage does.

A person moves, but who it is, the light, the colours and the background stay. Averages over time take the motion out:

    m_b = mean of y_k over block b of n frames                     y_k: the point of frame k, metrics/inputs/frame_points.py
    d(tau)^2 = mean of |m_a - m_b|^2 over blocks tau or more frames apart, in one video

The drift is the ratio of the two sides at the greatest distances in time that each has,

    drift = d_fake(T / 2) / d_real(T_real / 2)                     1 = as real footage, above 1 = goes away, 0 = nothing changes

with T_real the length of the real clips, cut at T. Whatever wanders off without an end grows with T: a random walk by the root of
T, a steady change of colour in proportion. A stationary video does not. Real footage that is much shorter than the videos has not
yet been everywhere it goes, so the ratio of a faultless video may be above 1: `real_lag_frames` beside `lag_frames` tells.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from metrics.distances.bootstrap_interval import bootstrap_interval
from metrics.families import register_lengths
from metrics.inputs.code_inputs import CodeInputs
from metrics.inputs.frame_points import colour_statistics, stretches
from metrics.inputs.picture_inputs import PictureInputs
from metrics.metric_utils import MetricOptions
from networks.errors import InputError


def block_means(sequence: torch.Tensor, block: int) -> torch.Tensor:
    """Points [T, C] -> m_b [T // n, C] float64; frames that fill no block at the end are left out."""
    count = len(sequence) // block
    return sequence[: count * block].double().unflatten(0, (count, block)).mean(dim=1)


def mean_square_by_lag(sequence: torch.Tensor, block: int) -> np.ndarray:
    """Mean of |m_a - m_b|^2 over pairs of blocks, for each lag of 0, 1, 2, ... blocks, [B]."""
    means = block_means(sequence, block)
    return np.array([0.0] + [float((means[lag:] - means[:-lag]).square().sum(dim=1).mean()) for lag in range(1, len(means))])


def far_square(by_lag: np.ndarray) -> float:
    """d^2 of a video: the mean over all pairs of blocks that are half of the video or more apart."""
    count = len(by_lag)
    far = np.arange(count) >= count / 2
    return float(np.average(by_lag[far], weights=count - np.arange(count)[far]))


class Drift:
    """The real side of the drift, then any number of videos.

    Args:
        real: Points [T, C] of real clips; those of fewer than 4 blocks are left out and counted, longer ones than `num_frames`
            are cut.
        num_frames: Length of the videos to come, T.
        block: Frames of a block, n.

    Raises:
        InputError: no real clip is long enough, or nothing moves in them.
    """

    def __init__(self, real: Sequence[torch.Tensor], num_frames: int, block: int = 25) -> None:
        if num_frames < 4 * block:
            raise InputError(
                f'drift in {num_frames} frames cannot be measured with blocks of {block}: a video needs at least '
                f'{4 * block} frames'
            )
        usable = [stretch for sequence in real if len(sequence) >= 4 * block for stretch in stretches(sequence, num_frames)]
        if not usable:
            raise InputError(
                f'no real clip has {4 * block} frames, so there is no telling how far real footage goes from its '
                'beginning; give longer clips'
            )
        self.block, self.num_frames = block, num_frames
        lengths = [len(stretch) for stretch in usable]
        self.real_square = float(
            np.average([far_square(mean_square_by_lag(stretch, block)) for stretch in usable], weights=lengths)
        )
        if not self.real_square > 0:
            raise InputError('the real footage stands still, so drift has no unit; give other footage')
        self.protocol = {
            'frames': num_frames,
            'block_frames': block,
            'lag_frames': num_frames // 2,
            'real_lag_frames': float(np.average(lengths, weights=lengths)) / 2,
            'real_stretches': len(usable),
            'real_clips_too_short': sum(len(sequence) < 4 * block for sequence in real),
        }

    def compare(self, videos: Iterable[torch.Tensor]) -> dict[str, float]:
        """Measure videos, points [T, C] each.

        Returns:
            `drift` with `low` and `high` of its 95 % interval (bootstrap over videos); `distance` and `real_distance`, the two
            sides, in the unit of the points; `growth`, the distance at lags of half of the video or more over that at a tenth
            of it or less: how much it still grows (`real_distance` has no such number where clips are short); the protocol.

        Raises:
            InputError: Points that are not finite.
        """
        far, near = [], []
        for video in videos:
            if not torch.isfinite(video).all():
                raise InputError(
                    'a video holds numbers that are not finite (NaN or infinity); this snapshot is broken, take an earlier one'
                )
            by_lag = mean_square_by_lag(video, self.block)
            far.append(far_square(by_lag))
            near.append(by_lag[1 : max(len(by_lag) // 10, 1) + 1].mean())

        def ratio(squares: np.ndarray) -> float:
            return float(np.sqrt(squares.mean() / self.real_square))

        low, high = bootstrap_interval(np.array(far), ratio)
        return {
            'drift': ratio(np.array(far)),
            'low': low,
            'high': high,
            'distance': float(np.sqrt(np.mean(far))),
            'real_distance': float(np.sqrt(self.real_square)),
            'growth': float(np.sqrt(np.mean(far) / np.mean(near))) if np.mean(near) > 0 else 1.0,
            'videos': len(far),
            **self.protocol,
        }


# ----------------------------------------------------------------------------
# The metrics.

LENGTHS = (200, 1000, 4000)


def _latent(opts: MetricOptions, metric: str, num_frames: int) -> dict[str, float]:
    """Drift of codes, 1 as real footage."""
    inputs = CodeInputs(opts, metric)
    real = Drift(inputs.points.real_coordinates, num_frames)
    return inputs.results(real.compare(inputs.coordinates(num_frames)))


def _pictures(opts: MetricOptions, metric: str, num_frames: int) -> dict[str, float]:
    """Drift of pictures and colours, 1 as real footage."""
    inputs = PictureInputs(opts, metric)
    real = inputs.real(num_frames)
    videos = inputs.videos(num_frames)
    results = Drift(real, num_frames).compare(videos)
    colour = Drift([colour_statistics(points) for points in real], num_frames)
    found = colour.compare(colour_statistics(points) for points in videos)
    return inputs.results(
        {
            **results,
            'colour': found['drift'],
            'colour_low': found['low'],
            'colour_high': found['high'],
            'colour_distance': found['distance'],
            'colour_real_distance': found['real_distance'],
        }
    )


register_lengths('drift_latent', LENGTHS, _latent, best=1.0)
register_lengths('drift', LENGTHS, _pictures, best=1.0)
