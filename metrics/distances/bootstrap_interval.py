"""Confidence intervals over videos, by the bootstrap of Efron (1979): videos are drawn again with replacement."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95


def resampled_indices(count: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Indices [resamples, count] of videos drawn with replacement; always the same ones for the same count."""
    return np.random.RandomState(0).randint(count, size=(resamples, count))


def bootstrap_interval(values: np.ndarray, statistic: Callable[[np.ndarray], float] | None = None) -> tuple[float, float]:
    """The central 95 % interval of a statistic of videos.

    Args:
        values: One row a video, [N] or [N, ...].
        statistic: What is computed of the rows; None for the mean of numbers.

    Returns:
        Lower and upper end; both NaN for a single video, of which nothing is known about others.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float('nan'), float('nan')
    indices = resampled_indices(len(values))
    found = values[indices].mean(axis=1) if statistic is None else [statistic(values[row]) for row in indices]
    low, high = np.quantile(np.asarray(found), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
