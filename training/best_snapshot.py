"""The best snapshot of a run, by each metric: `best-METRIC.json`, made anew from `metric-METRIC.jsonl` at every snapshot.

Because it is made from the results on the disk, it is right after an interruption, after a resume that repeats snapshots (the
later result of a snapshot counts), and after snapshots were removed (what is gone cannot be the best).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from typing import Any

from metrics.best_value import badness, best_of
from networks.checkpoints import replacing
from networks.errors import DAMAGED_FILE, InputError


def read_values(run_dir: str, metric: str, *, all: bool = False) -> dict[str, float]:
    """Snapshot -> value of a metric, from metric-METRIC.jsonl; only snapshots that are there, and values that are numbers.

    With `all`, also those that have no number (NaN): they were computed.
    """
    values: dict[str, float] = {}
    with (
        contextlib.suppress(FileNotFoundError),
        open(os.path.join(run_dir, f'metric-{metric}.jsonl'), encoding='utf-8', errors='replace') as file,
    ):
        for text in file:
            # A line that a power cut left half-written, or another damage.
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
                line = json.loads(text)
                snapshot, value = os.path.basename(line['snapshot_pkl']), float(line['results'][metric])
                if os.path.isfile(os.path.join(run_dir, snapshot)):
                    values[snapshot] = value
    return {snapshot: value for snapshot, value in values.items() if all or math.isfinite(value)}


def mark_best(run_dir: str, metric: str) -> dict[str, Any] | None:
    """Write `best-METRIC.json`; returns what it says, or None where there is no result yet."""
    values = read_values(run_dir, metric)
    snapshot = _best(metric, values)
    if snapshot is None:
        return None
    record = {
        'metric': metric,
        'snapshot_pkl': snapshot,
        'value': values[snapshot],
        'best_is': best_of(metric),
        'snapshots_measured': len(values),
    }
    path = os.path.join(run_dir, f'best-{metric}.json')
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.write(json.dumps(record, indent=2) + '\n')
    return record


def is_marked(run_dir: str, metric: str) -> bool:
    """Whether `best-METRIC.json` names the best of the snapshots that were measured, or there is none to name."""
    best = _best(metric, read_values(run_dir, metric))
    with (
        contextlib.suppress(OSError, *DAMAGED_FILE),
        open(os.path.join(run_dir, f'best-{metric}.json'), encoding='utf-8') as file,
    ):
        return bool(json.load(file)['snapshot_pkl'] == best)
    return best is None


def _best(metric: str, values: dict[str, float]) -> str | None:
    best = best_of(metric)
    return min(sorted(values), key=lambda name: badness(values[name], best), default=None)


def find_snapshot(network: str) -> tuple[str, str]:
    """The snapshot that is meant by a path: a file or an address as it is, of a run folder the best one.

    The best one is that of the first of the run's --metrics that has results; the last one, where there are none.

    Returns:
        Path of the snapshot, and why it was chosen ('' for a file).

    Raises:
        InputError: The folder holds no snapshot.
    """
    if not os.path.isdir(network):
        return network, ''
    asked: list[str] = []
    with (
        contextlib.suppress(OSError, *DAMAGED_FILE),
        open(os.path.join(network, 'training_options.json'), encoding='utf-8') as file,
    ):
        asked = [str(name) for name in json.load(file).get('metrics') or []]
    measured = sorted(match[1] for name in os.listdir(network) if (match := re.fullmatch(r'best-(.+)\.json', name)))
    for metric in dict.fromkeys([*asked, *measured]):
        with (
            contextlib.suppress(OSError, *DAMAGED_FILE),
            open(os.path.join(network, f'best-{metric}.json'), encoding='utf-8') as file,
        ):
            record = json.load(file)
            path = os.path.join(network, os.path.basename(record['snapshot_pkl']))
            if os.path.isfile(path):
                return path, f'best of {record["snapshots_measured"]} by {metric}, {record["value"]:.4g}'
    snapshots = sorted(
        (int(match[1]), name) for name in os.listdir(network) if (match := re.fullmatch(r'network-snapshot-(\d+)\.pkl', name))
    )
    if not snapshots:
        raise InputError(f'{network} holds no network-snapshot-*.pkl; give a snapshot or the folder of a training run')
    return os.path.join(network, snapshots[-1][1]), 'the last one; no metrics were computed in this run'
