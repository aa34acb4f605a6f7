"""Metrics at the snapshots of a training, through the same interface as calc_metrics_video.py."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import dnnlib
from metrics import metric_main
from metrics.discovery import discover_metrics, load_metric_file
from networks.errors import InputError


def prepare_metrics(names: Sequence[str], plugins: Sequence[str], data: str) -> Callable[..., dict[str, float]] | None:
    """Find the metrics before the training begins.

    Args:
        names: Metrics to compute.
        plugins: Files with metrics of the user's own.
        data: Path of the latent data set that they compare with.

    Returns:
        A function that measures one snapshot with one metric, appends the result to metric-NAME.jsonl of the run, and returns
        the values; None where no metric is asked for.

    Raises:
        InputError: There is no such metric.
    """
    if not names:
        return None
    known, broken = discover_metrics()
    available = {*known, *(name for path in plugins for name in load_metric_file(path))}
    unknown = [name for name in names if name not in available]
    if unknown:
        hint = ''.join(f'; {path} could not be imported: {error}' for path, error in broken.items())
        raise InputError(f'--metrics: there is no {", ".join(unknown)}; there are {", ".join(sorted(available))}{hint}')

    def calculate(*, metric: str, G: Any, run_dir: str, snapshot: str, rank: int, num_ranks: int,
                  device: Any) -> dict[str, float]:
        with contextlib.redirect_stdout(sys.stderr):
            result = metric_main.calc_metric(
                metric=metric, G=G, num_gpus=num_ranks, rank=rank, device=device,
                dataset_kwargs=dnnlib.EasyDict(class_name='training.latent_dataset.LatentDataset', path=data))
        if rank == 0:
            metric_main.report_metric(result, run_dir=run_dir, snapshot_pkl=os.path.join(run_dir, snapshot))
        return dict(result['results'])

    return calculate
