"""What state a run of train_video.py is in: whether it has come to its end, and from where it goes on."""

from __future__ import annotations

import os
from collections.abc import Sequence

from networks.errors import InputError
from training.best_snapshot import is_marked, read_values
from training.runs import states
from training.temporal_snapshot import load_training_state, training_states


def last_good_state(run_dir: str) -> str | None:
    """The newest training state that can be read; one that a disk error has damaged is passed over."""
    return states.last_good_state(training_states(run_dir), load_training_state)


def is_finished(run_dir: str, total_kimg: float, metrics: Sequence[str]) -> bool:
    """Whether a training has come to its end, its last snapshot is there and was measured, and the best one is marked."""
    found = training_states(run_dir)
    if not found:
        return False
    try:
        shown = load_training_state(found[0])['tick_start_frames']
    except (InputError, KeyError):
        return False
    if not isinstance(shown, int) or shown < total_kimg * 1000:
        return False
    snapshot = f'network-snapshot-{shown // 1000:06d}.pkl'
    return os.path.isfile(os.path.join(run_dir, snapshot)) and all(
        snapshot in read_values(run_dir, metric, all=True) and is_marked(run_dir, metric) for metric in metrics
    )
