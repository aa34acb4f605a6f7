"""The Frechet distance of two sets of videos in the features of a detector: what the plugins of FVD and frame FID share."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

import numpy as np
import torch

from metrics.clip_choice import ClipChoice
from metrics.clip_features import clip_features
from metrics.detectors import load_detector
from metrics.frechet import expected_bias, frechet_distance, mean_and_covariance
from metrics.frechet_interval import NORMAL_95, distance_deviation
from metrics.kernel_distance import kernel_distance
from metrics.video_comparison import VideoPair
from networks.errors import InputError

LARGEST_BOOTSTRAP = 512  # Dimensions; beyond, one resample takes longer than a minute.
GPU_BATCH = 8
DIGITS = 10  # Of results.


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a name like fvd2048_16f stands for."""

    detector: str  # As of metrics.detectors.
    count: int  # N, clips of each set.
    num_frames: int  # T, frames of a clip.
    stride: int = 1
    start: int = 0  # First frame of the fake clips.


def clip_distance(opts: Any, metric: str, protocol: Protocol) -> dict[str, float | None]:
    """Results of one metric; `metric` holds the distance, `metric`_... what belongs to it.

    The distance itself is None where the covariance of a set cannot have full rank: where there are not more features than
    dimensions. It then stands under `metric`_rank_deficient, to be read beside `metric`_expected_bias.

    Raises:
        InputError: The sets cannot be compared, or there are no weights.
    """
    pair = VideoPair(opts, metric)
    options = pair.options
    detector = load_detector(protocol.detector, options.detectors, opts.device)
    if protocol.num_frames < detector.smallest_num_frames:
        raise InputError(f'{metric}: {detector.description["name"]} needs clips of {detector.smallest_num_frames} frames or more')
    real, fake = pair.choose(protocol.count, protocol.num_frames, protocol.stride, protocol.start)
    batch = options.batch or (GPU_BATCH if torch.device(opts.device).type == 'cuda' else 1)

    def features(videos: Any, choice: ClipChoice, name: str) -> Any:
        return clip_features(videos, choice, detector, opts, tag=f'{metric} {name} clips', batch=batch, damaged=options.damaged)

    real_features, fake_features = features(pair.real, real, 'real'), features(pair.fake, fake, 'fake')
    pair.record(
        **pair.describe(real, fake, detector),
        batch=batch,
        covariance='divided by N - 1',
        precision='features float32, statistics float64',
        kernels={'torch': str(torch.__version__), 'machine': platform.machine()},
        cached={'real': real_features.cached, 'fake': fake_features.cached},
        damaged={**real_features.damaged, **fake_features.damaged},
    )
    if opts.rank != 0:  # the values of rank 0 count
        return {metric: None}
    return _compare(pair, metric, real, fake, real_features, fake_features)


def _compare(
    pair: VideoPair, metric: str, real: ClipChoice, fake: ClipChoice, real_features: Any, fake_features: Any
) -> dict[str, float | None]:
    a, b = (features.values.reshape(-1, features.values.shape[-1]) for features in (real_features, fake_features))
    if min(len(a), len(b)) < 2:
        raise InputError(
            f'{metric} needs at least two clips of each set, and of the real ones {len(a)} can be read, of the fake ones {len(b)}'
        )
    num_features = a.shape[1]
    mean, covariance = mean_and_covariance(a)
    distance = frechet_distance(mean, covariance, *mean_and_covariance(b))
    per_clip = real_features.values.shape[1]
    independent = [
        min(choice.side_by_side, len(features.values)) * per_clip
        for choice, features in ((real, real_features), (fake, fake_features))
    ]
    full_rank = min(len(a), len(b)) > num_features
    results: dict[str, float | None] = {metric: distance if full_rank else None}
    if not full_rank:
        results[f'{metric}_rank_deficient'] = distance
    if pair.options.bootstrap > 1 and num_features <= LARGEST_BOOTSTRAP:
        deviation = distance_deviation(
            a, b, block_a=real.overlap, block_b=fake.overlap, resamples=pair.options.bootstrap, seed=pair.options.seed
        )
        results |= {
            f'{metric}_deviation': deviation,
            f'{metric}_low': max(distance - NORMAL_95 * deviation, 0.0),
            f'{metric}_high': distance + NORMAL_95 * deviation,
        }
    bias = expected_bias(covariance, *independent)
    results |= {
        f'{metric}_expected_bias': bias,
        f'{metric}_kernel_distance': _kernel(real_features.values, fake_features.values),
        f'{metric}_clips_real': len(real_features.values),
        f'{metric}_clips_fake': len(fake_features.values),
        f'{metric}_clips_real_side_by_side': real.side_by_side,
        f'{metric}_clips_fake_side_by_side': fake.side_by_side,
        f'{metric}_frames': real.num_frames,
        f'{metric}_stride': real.stride,
        f'{metric}_dimension': num_features,
        f'{metric}_videos_too_short': len(real.too_short) + len(fake.too_short),
        f'{metric}_videos_damaged': len(
            {**pair.real.left_out, **pair.fake.left_out, **real_features.damaged, **fake_features.damaged}
        ),
    }
    _warn(pair, num_features, len(a), len(b), independent, bias, real_features.damaged | fake_features.damaged)
    # The last digits of a matrix product depend on how many threads share it, and so on the machine.
    return {key: float(f'{value:.{DIGITS}g}') if isinstance(value, float) else value for key, value in results.items()}


def _kernel(real: np.ndarray, fake: np.ndarray) -> float:
    """Of clips: of several features a clip the mean, so that samples are independent."""
    return kernel_distance(real.mean(axis=1), fake.mean(axis=1))


def _warn(
    pair: VideoPair, num_features: int, num_real: int, num_fake: int, independent: list[int], bias: float, damaged: dict[str, str]
) -> None:
    if damaged:
        pair.warn(f'{len(damaged)} damaged videos are left out: {", ".join(list(damaged)[:5])}')
    if min(num_real, num_fake) <= num_features:
        pair.warn(
            f'{num_real} real and {num_fake} fake samples are too few for {num_features} dimensions: a covariance cannot '
            f'have full rank, so there is no number. Equal distributions would be expected at about {bias:.4g}; look at '
            f'the kernel distance, or give more than {num_features} clips (--fake-clips=spread cuts more of them from long '
            'videos)'
        )
    elif min(independent) <= num_features:
        pair.warn(
            f'the clips overlap: they tell little more than {independent[0]} real and {independent[1]} fake ones side by '
            f'side would; equal distributions would be expected at about {bias:.4g}'
        )
