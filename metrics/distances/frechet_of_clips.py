"""The Frechet distance of two sets of videos in the features of a detector: what the plugins of FVD and frame FID share."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from metrics.distances.frechet import expected_bias, frechet_distance, mean_and_covariance
from metrics.distances.frechet_interval import NORMAL_95, distance_deviation
from metrics.distances.kernel_distance import kernel_deviation, kernel_distance, polynomial_distance
from metrics.features.clip_features import clip_features
from metrics.features.detectors import load_detector
from metrics.inputs.clip_choice import ClipChoice
from metrics.inputs.video_comparison import VideoPair
from metrics.inputs.video_set import VideoSet
from metrics.metric_utils import MetricOptions
from networks.errors import InputError, option

LARGEST_BOOTSTRAP = 512  # Dimensions; beyond, one resample takes longer than a minute.
GPU_BATCH = 8
DIGITS = 10  # Of results.


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a name like fvd2048_16f stands for."""

    detector: str  # As of metrics.features.detectors.
    count: int  # N, clips of each set.
    num_frames: int  # T, frames of a clip.
    stride: int = 1
    start: int = 0  # First frame of the fake clips.


@dataclasses.dataclass(frozen=True)
class Sample:
    """The features of one set, and what is known of its clips.

    Attributes:
        values: float32 [n, F, D], one row a clip.
        side_by_side: How many of the clips are free of overlap at most.
        overlap: How many neighbouring clips share frames.
    """

    values: np.ndarray
    side_by_side: int
    overlap: int = 1


# Results of two samples under the name of the metric; called with the name, real, fake, resamples and seed.
Comparison = Callable[[str, Sample, Sample, int, int], dict[str, Any]]


def clip_distance(opts: MetricOptions, metric: str, protocol: Protocol) -> dict[str, Any]:
    """Results of one metric of clips by the Frechet distance; `metric` holds the distance, `metric`_... what belongs to it.

    The distance itself is None where the covariance of a set cannot have full rank: where there are not more features than
    dimensions. It then stands under `metric`_rank_deficient, to be read beside `metric`_expected_bias.

    Raises:
        InputError: The sets cannot be compared, or there are no weights.
    """
    return measure_clips(opts, metric, protocol, frechet_results)


def measure_clips(opts: MetricOptions, metric: str, protocol: Protocol, compare: Comparison) -> dict[str, Any]:
    """Results of one metric of clips, by whatever compares their features.

    Raises:
        InputError: The sets cannot be compared, or there are no weights.
    """
    pair = VideoPair(opts, metric)
    options = pair.options
    detector = load_detector(protocol.detector, options.detectors, opts.device)
    if protocol.num_frames < detector.smallest_num_frames:
        raise InputError(f'{metric}: {detector.description["name"]} needs clips of {detector.smallest_num_frames} frames or more')
    real, fake = pair.choose(protocol.count, protocol.num_frames, protocol.stride, protocol.start)
    _check_number(pair, metric, detector, real, fake, needs_rank=compare is frechet_results)
    batch = options.batch or (GPU_BATCH if torch.device(opts.device).type == 'cuda' else 1)

    def features(videos: VideoSet, choice: ClipChoice, name: str) -> Any:
        return clip_features(
            videos,
            choice,
            detector,
            opts,
            tag=f'{metric} {name} clips',
            batch=batch,
            memory=options.memory,
            damaged=options.damaged,
            parts=options.parts,
        )

    real_features, fake_features = features(pair.real, real, 'real'), features(pair.fake, fake, 'fake')
    damaged = {**real_features.damaged, **fake_features.damaged}
    pair.record(
        **pair.describe(real, fake, detector),
        batch=batch,
        covariance='divided by N - 1',
        precision='features float32, statistics float64',
        kernels={'torch': str(torch.__version__), 'machine': platform.machine()},
        cached={'real': real_features.cached, 'fake': fake_features.cached},
        damaged=damaged,
    )
    if opts.rank != 0 or (options.parts is not None and options.parts.share is not None):
        return {metric: None}  # the values of rank 0 count, and a share of the features has none
    samples = [
        Sample(found.values, min(choice.side_by_side, len(found.values)), choice.overlap)
        for choice, found in ((real, real_features), (fake, fake_features))
    ]
    results = compare(metric, samples[0], samples[1], options.bootstrap, options.seed)
    results |= {
        f'{metric}_clips_real_side_by_side': real.side_by_side,
        f'{metric}_clips_fake_side_by_side': fake.side_by_side,
        f'{metric}_frames': real.num_frames,
        f'{metric}_stride': real.stride,
        f'{metric}_videos_too_short': len(real.too_short) + len(fake.too_short),
        f'{metric}_videos_damaged': len({**pair.real.left_out, **pair.fake.left_out, **damaged}),
    }
    if damaged:
        pair.warn(f'{len(damaged)} damaged videos are left out: {", ".join(list(damaged)[:5])}')
    for sentence in warnings_of(metric, results, *samples):
        pair.warn(sentence)
    return results


def in_canonical_order(rows: np.ndarray) -> np.ndarray:
    """The rows [N, d] in an order that depends on nothing but themselves.

    So sums over them come out the same to the last digit, whichever process computed which row, and when.
    """
    rows = np.ascontiguousarray(rows)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    return rows[np.argsort(keys, kind='stable')]


def frechet_results(metric: str, real: Sample, fake: Sample, resamples: int, seed: int) -> dict[str, Any]:
    """The Frechet distance of two samples and what belongs to it; see clip_distance.

    Raises:
        InputError: A sample has fewer than two clips.
    """
    a, b = (sample.values.reshape(-1, sample.values.shape[-1]) for sample in (real, fake))
    require_two(metric, a, b)
    num_features, per_clip = a.shape[1], real.values.shape[1]
    mean, covariance = mean_and_covariance(in_canonical_order(a))
    distance = frechet_distance(mean, covariance, *mean_and_covariance(in_canonical_order(b)))
    full_rank = min(len(a), len(b)) > num_features
    results: dict[str, Any] = {metric: distance if full_rank else None}
    if not full_rank:
        results[f'{metric}_rank_deficient'] = distance
    if resamples > 1 and num_features <= LARGEST_BOOTSTRAP:
        deviation = distance_deviation(a, b, block_a=real.overlap, block_b=fake.overlap, resamples=resamples, seed=seed)
        results |= {
            f'{metric}_deviation': deviation,
            f'{metric}_low': max(distance - NORMAL_95 * deviation, 0.0),
            f'{metric}_high': distance + NORMAL_95 * deviation,
        }
    results |= {
        f'{metric}_expected_bias': expected_bias(covariance, real.side_by_side * per_clip, fake.side_by_side * per_clip),
        f'{metric}_kernel_distance': kernel_distance(*map(_clip_means, (real, fake))),
        f'{metric}_clips_real': len(real.values),
        f'{metric}_clips_fake': len(fake.values),
        f'{metric}_dimension': num_features,
    }
    return rounded(results)


def kernel_results(metric: str, real: Sample, fake: Sample, resamples: int, seed: int) -> dict[str, Any]:
    """The kernel distance of two samples, its deviation and interval.

    Raises:
        InputError: A sample has fewer than two clips.
    """
    require_two(metric, real.values, fake.values)
    a, b = map(_clip_means, (real, fake))
    distance = kernel_distance(a, b)
    results: dict[str, Any] = {metric: distance}
    if resamples > 1:
        deviation = kernel_deviation(a, b, resamples=resamples, seed=seed)
        results |= {
            f'{metric}_deviation': deviation,
            f'{metric}_low': distance - NORMAL_95 * deviation,
            f'{metric}_high': distance + NORMAL_95 * deviation,
        }
    results |= {
        f'{metric}_clips_real': len(real.values),
        f'{metric}_clips_fake': len(fake.values),
        f'{metric}_dimension': a.shape[1],
    }
    return rounded(results)


def jedi_results(metric: str, real: Sample, fake: Sample, resamples: int, seed: int) -> dict[str, Any]:
    """The distance of JEDi (Luo et al. 2025) as its authors compute it: 100 MMD^2, kernel (x . y / D)^2, biased estimate.

    Raises:
        InputError: A sample has fewer than two clips.
    """
    require_two(metric, real.values, fake.values)
    a, b = map(_clip_means, (real, fake))
    return rounded({
        metric: 100 * polynomial_distance(a, b),
        f'{metric}_clips_real': len(real.values),
        f'{metric}_clips_fake': len(fake.values),
        f'{metric}_dimension': a.shape[1],
    })  # fmt: skip


def require_two(metric: str, real: np.ndarray, fake: np.ndarray) -> None:
    """Raise InputError where a set has fewer than two samples."""
    if min(len(real), len(fake)) < 2:
        raise InputError(
            f'{metric} needs at least two clips of each set, and of the real ones {len(real)} can be read, of the fake '
            f'ones {len(fake)}'
        )


def rounded(results: dict[str, Any]) -> dict[str, Any]:
    """Results to ten digits: the last ones of a matrix product depend on how many threads share it, and so on the machine."""
    return {key: float(f'{value:.{DIGITS}g}') if isinstance(value, float) else value for key, value in results.items()}


def _clip_means(sample: Sample) -> np.ndarray:
    """One row a clip: of several features a clip the mean, so that samples are independent."""
    return in_canonical_order(sample.values.mean(axis=1))


def warnings_of(metric: str, results: dict[str, Any], real: Sample, fake: Sample) -> list[str]:
    """Sentences on what a reader of a Frechet distance has to know; none for another kind of result."""
    bias = results.get(f'{metric}_expected_bias')
    if bias is None:
        return []
    num_features, per_clip = results[f'{metric}_dimension'], real.values.shape[1]
    num_real, num_fake = len(real.values) * per_clip, len(fake.values) * per_clip
    independent = [sample.side_by_side * per_clip for sample in (real, fake)]
    if min(num_real, num_fake) <= num_features:
        return [
            f'{num_real} real and {num_fake} fake samples are too few for {num_features} dimensions: a covariance cannot '
            f'have full rank, so there is no number. Equal distributions would be expected at about {bias:.4g}; look at '
            f'the kernel distance, or give more than {num_features} clips ({option("fake_clips", "spread")} '
            f'cuts more of them from long '
            'videos)'
        ]
    if min(independent) <= num_features:
        return [
            f'the clips overlap: they tell little more than {independent[0]} real and {independent[1]} fake ones side by '
            f'side would; equal distributions would be expected at about {bias:.4g}'
        ]
    return []


def _check_number(pair: VideoPair, metric: str, detector: Any, real: ClipChoice, fake: ClipChoice, *, needs_rank: bool) -> None:
    """Notice before the hours of work that there are too few clips.

    Raises:
        InputError: Fewer than two samples of a set.
    """
    # A network of images gives a sample for each frame, one of videos for each clip.
    per_clip = real.num_frames if detector.smallest_num_frames == 1 else 1
    num_real, num_fake = len(real.clips) * per_clip, len(fake.clips) * per_clip
    if min(num_real, num_fake) < 2:
        raise InputError(
            f'{metric} needs at least two clips of each set, and there are {num_real} real and {num_fake} fake ones; give '
            f'more, or longer, videos ({option("real_clips", "spread")} and {option("fake_clips", "spread")} '
            f'cut several out of one)'
        )
    if needs_rank and pair.opts.rank == 0 and min(num_real, num_fake) <= getattr(detector, 'num_features', 0):
        pair.warn(f'there will be no distance, only the kernel distance: {num_real} real and {num_fake} fake samples are too few')
