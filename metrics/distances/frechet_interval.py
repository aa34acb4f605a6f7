"""How sure a Frechet distance is: the spread that drawing the clips anew would give, by the block bootstrap.

The clips of both sets are drawn again with replacement and the distance is computed again; the standard deviation s of those
values gives the interval d^2 +- 1.96 s. The quantiles of the drawn values would not do: a drawn set has fewer different clips
than the set itself, so all of its distances are too large, by about as much as the set's own is (expected_bias in frechet.py).
The spread is free of that shift. Clips that overlap are drawn in blocks of neighbours (Kuensch, Annals of Statistics 1989).
"""

from __future__ import annotations

import numpy as np

from metrics.distances.frechet import frechet_distance

RESAMPLES = 50  # the standard deviation is then known to 10 %
NORMAL_95 = 1.96


def distance_deviation(
    features_a: np.ndarray,
    features_b: np.ndarray,
    *,
    block_a: int = 1,
    block_b: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Standard deviation of the Frechet distance of two sets of features [N, d], if their clips were drawn anew.

    Args:
        block_a, block_b: Neighbouring rows that are drawn together.
        resamples: How often; at least 2.
        seed: Of the draws.
    """
    random = np.random.RandomState(seed)
    values = []
    for _ in range(resamples):
        drawn = [
            weighted_moments(features, _draw_weights(len(features), block, random))
            for features, block in ((features_a, block_a), (features_b, block_b))
        ]
        values.append(frechet_distance(*drawn[0], *drawn[1]))
    return float(np.std(values, ddof=1))


def weighted_moments(features: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and covariance [d, d] of rows that count `weights` [N] times; divided by the sum of weights less 1."""
    features = np.asarray(features, dtype=np.float64)
    used = weights > 0
    features, weights = features[used], weights[used, np.newaxis].astype(np.float64)
    total = weights.sum()
    mean = (features * weights).sum(axis=0) / total
    centered = (features - mean) * np.sqrt(weights)
    return mean, centered.T @ centered / max(total - 1, 1)


def _draw_weights(count: int, block: int, random: np.random.RandomState) -> np.ndarray:
    """How often each of `count` rows is drawn, in blocks that begin anywhere and go round at the end."""
    starts = random.randint(count, size=-(-count // block))
    rows = (starts[:, np.newaxis] + np.arange(block)).reshape(-1)[:count] % count
    return np.bincount(rows, minlength=count)
