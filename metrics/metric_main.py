"""Registry of metrics, and how they are called and reported."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import torch

import dnnlib
from networks.checkpoints.durable_files import append_line

from . import metric_utils

_metrics: dict[str, Callable[[metric_utils.MetricOptions], dict[str, Any]]] = {}

# ----------------------------------------------------------------------------
# Registry.


def register_metric(fn: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """Decorator: makes the function a metric under its own name.

    It takes MetricOptions and returns {name of a result: value}; with several ranks, the values of rank 0 count.
    """
    if not callable(fn):
        raise TypeError(f'register_metric: {fn!r} is not a function')
    _metrics[fn.__name__] = fn
    return fn


def is_valid_metric(metric: str) -> bool:
    """Tell whether a metric of this name is registered."""
    return metric in _metrics


def list_valid_metrics() -> list[str]:
    """Return the names of all registered metrics, in the order of registration."""
    return list(_metrics)


# ----------------------------------------------------------------------------
# Calculation and report.


def calc_metric(metric: str, **kwargs: Any) -> dnnlib.EasyDict:
    """Compute a metric; the other arguments are those of MetricOptions. All ranks call this together.

    Returns results {name: value}, metric, total_time in seconds, total_time_str and num_gpus (number of ranks).
    Raises ValueError for a name that is not registered.
    """
    if not is_valid_metric(metric):
        raise ValueError(f'there is no metric {metric!r}; known are: {", ".join(list_valid_metrics()) or "none"}')
    options = metric_utils.MetricOptions(**kwargs)
    begin = time.time()
    results = [dict(_metrics[metric](options))]
    seconds = time.time() - begin
    if options.num_gpus > 1:
        torch.distributed.broadcast_object_list(results, src=0, device=options.device)
    return dnnlib.EasyDict(
        results=dnnlib.EasyDict(results[0]),
        metric=metric,
        total_time=seconds,
        total_time_str=dnnlib.util.format_time(seconds),
        num_gpus=options.num_gpus,
    )


def report_metric(result_dict: dict[str, Any], run_dir: str | None = None, snapshot_pkl: str | None = None) -> None:
    """Print what `calc_metric` returned as one line of JSON, and append it to `metric-<name>.jsonl` in `run_dir`.

    The line says when it was written and which snapshot it is about, relative to `run_dir` if both are given.
    """
    if run_dir is not None and snapshot_pkl is not None:
        snapshot_pkl = os.path.relpath(snapshot_pkl, run_dir)
    line = json.dumps({**result_dict, 'snapshot_pkl': snapshot_pkl, 'timestamp': time.time()})
    print(line, flush=True)
    if run_dir is not None and os.path.isdir(run_dir):
        append_line(os.path.join(run_dir, f'metric-{result_dict["metric"]}.jsonl'), line)
