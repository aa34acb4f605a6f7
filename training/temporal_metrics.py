"""Metrics at the snapshots of a training, through the same interface as calc_metrics_video.py, and the best snapshot so far."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import dnnlib
from metrics import metric_main, metric_utils
from metrics.discovery import discover_metrics, find_metric, load_metric_file
from metrics.features.detectors import detector_of
from metrics.inputs.video_comparison import VideoComparison, VideoOptions
from networks import checkpoints
from networks.errors import InputError, option
from training.best_snapshot import mark_best
from training.runs import saving
from training.temporal_snapshot import versions
from training.videos.recorded_videos import EmbeddedVideos, GeneratedVideos


def prepare_metrics(
    names: Sequence[str], plugins: Sequence[str], data: str, detectors: Sequence[str] = ()
) -> Callable[..., dict[str, float]] | None:
    """Find the metrics before the training begins.

    Args:
        names: Metrics to compute.
        plugins: Files with metrics of the user's own.
        data: Path of the latent data set that they compare with.
        detectors: Files of weights of I3D or InceptionV3, tried before the usual places.

    Returns:
        A function that measures one snapshot with one metric, appends the result with its protocol to metric-NAME.jsonl of the
        run, marks the best snapshot in best-NAME.json, and returns the values; None where no metric is asked for. A metric
        that cannot be had of this data says so in one sentence, and the training goes on without it; where the disk does not
        take a result, it goes on as well, unless `stop` is asked for.

    Raises:
        InputError: There is no such metric, or a file holds no such weights.
    """
    if not names:
        return None
    known, broken = discover_metrics()
    available = {**known, **{name: path for path in plugins for name in load_metric_file(path)}}
    available |= {name: path for name in names if name not in available and (path := find_metric(name)) is not None}
    unknown = [name for name in names if name not in available]
    if unknown:
        hint = ''.join(f'; {path} could not be imported: {error}' for path, error in broken.items())
        raise InputError(f'{option("metrics")}: there is no {", ".join(unknown)}; there are {", ".join(sorted(available))}{hint}')

    for path in detectors:
        detector_of(path)

    def calculate(
        *,
        metric: str,
        G: Any,
        image_generator: Any,
        description: dict[str, Any],
        run_dir: str,
        snapshot: str,
        rank: int,
        num_ranks: int,
        device: Any,
        stop: bool,
    ) -> dict[str, float]:
        # Rendered codes are the reference: what a model of these codes can reach, and always at hand.
        real_videos = EmbeddedVideos(data, image_generator)
        comparison = VideoComparison(
            real_videos,
            GeneratedVideos(G, image_generator, fps=description['fps']),
            VideoOptions(reference='embedding', detectors=tuple(detectors)),
        )
        try:
            with contextlib.redirect_stdout(sys.stderr):
                result = metric_main.calc_metric(
                    metric=metric,
                    G=G,
                    G_kwargs={'comparison': comparison},
                    num_gpus=num_ranks,
                    rank=rank,
                    device=device,
                    progress=metric_utils.ProgressMonitor(verbose=rank == 0),
                    dataset_kwargs=dnnlib.EasyDict(class_name='training.latents.dataset.LatentDataset', path=data),
                )
        except InputError as error:
            if rank == 0:
                print(f'{metric} has no value, and the training goes on: {error}')
            return {}
        finally:
            real_videos.close()
        if rank == 0:
            path = os.path.join(run_dir, snapshot)
            protocol = {
                'data': data,
                'data_sha256': description['sha256'],
                'data_clips': description['num_clips'],
                'data_frames': description['num_frames'],
                'fps': description['fps'],
                'network_sha256': checkpoints.file_sha256(path),
                'metric_file': available[metric],
                'metric_file_sha256': checkpoints.file_sha256(available[metric]),
                'device': str(device),
                'num_ranks': num_ranks,
                'versions': versions(),
                **comparison.protocol,
            }
            best = None
            with saving.tolerating(print, f'the result of {metric}', stop=stop):
                metric_main.report_metric(dnnlib.EasyDict(result, protocol=protocol), run_dir=run_dir, snapshot_pkl=path)
                best = mark_best(run_dir, metric)
            if best is not None:
                print(f'Best {metric} so far: {best["value"]:.4g}, {best["snapshot_pkl"]}')
        # A metric may have no number, such as a Frechet distance of too few clips; curves have none there either.
        return {
            name: float(value)
            for name, value in result['results'].items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }

    return calculate
