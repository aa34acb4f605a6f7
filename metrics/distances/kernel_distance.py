"""The kernel distance: unbiased for any number of samples, so the number to look at where clips are few.

Maximum mean discrepancy with k(x, y) = (x . y / d + 1)^3, as in Binkowski et al., "Demystifying MMD GANs" (ICLR 2018):

    MMD^2 = sum_{i != j} k(x_i, x_j) / (m (m - 1)) + sum_{i != j} k(y_i, y_j) / (n (n - 1)) - 2 sum_ij k(x_i, y_j) / (m n)
"""

from collections.abc import Iterator

import numpy as np

BLOCK = 2048  # Rows of a kernel that are in memory at once, however many samples there are.


def _blocks(x: np.ndarray, y: np.ndarray, degree: int, offset: float) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of the kernel (x . y / d + offset)^degree between samples [m, d] and [n, d], some at a time: which ones, [b, n]."""
    for begin in range(0, len(x), BLOCK):
        rows = slice(begin, min(begin + BLOCK, len(x)))
        yield rows, (x[rows] @ y.T / x.shape[1] + offset) ** degree


def kernel_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """MMD^2 of features [m, d] and [n, d]; 0 is expected for equal distributions, so it can be a little below 0.

    Raises:
        ValueError: Fewer than two rows.
    """
    a, b = (np.asarray(features, dtype=np.float64) for features in (features_a, features_b))
    if len(a) < 2 or len(b) < 2:
        raise ValueError('the kernel distance needs at least two samples on both sides')

    def within(x: np.ndarray) -> float:
        pairs = sum(float(kernel.sum() - np.trace(kernel[:, rows])) for rows, kernel in _blocks(x, x, 3, 1))
        return pairs / (len(x) * (len(x) - 1))

    between = sum(float(kernel.sum()) for _, kernel in _blocks(a, b, 3, 1)) / (len(a) * len(b))
    return within(a) + within(b) - 2 * between


def kernel_deviation(features_a: np.ndarray, features_b: np.ndarray, *, resamples: int = 50, seed: int = 0) -> float:
    """Standard deviation of the kernel distance, if the samples were drawn anew (bootstrap of Efron 1979).

    A row that is drawn several times makes no pair with itself: with weights w, the sums run over i != j and are divided by
    (sum w)^2 - sum w^2.

    Args:
        features_a: One row a sample, [m, d]; features_b likewise, [n, d].
        resamples: How often; at least 2.
        seed: Of the draws.
    """
    a, b = (np.asarray(features, dtype=np.float64) for features in (features_a, features_b))
    random = np.random.RandomState(seed)
    draws = [
        [np.bincount(random.randint(count, size=count), minlength=count) for count in (len(a), len(b))] for _ in range(resamples)
    ]
    weights_a, weights_b = (np.array(each, dtype=np.float64) for each in zip(*draws, strict=True))  # [resamples, m], [.., n]

    def within(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        total = np.zeros(resamples)
        for rows, kernel in _blocks(x, x, 3, 1):
            np.fill_diagonal(kernel[:, rows], 0)
            total += ((weights[:, rows] @ kernel) * weights).sum(axis=1)
        return total / np.maximum(weights.sum(axis=1) ** 2 - np.square(weights).sum(axis=1), 1)

    between = sum(((weights_a[:, rows] @ kernel) * weights_b).sum(axis=1) for rows, kernel in _blocks(a, b, 3, 1))
    values = within(a, weights_a) + within(b, weights_b) - 2 * between / (len(a) * len(b))
    return float(np.std(values, ddof=1))


def polynomial_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """MMD^2 of features [m, d] and [n, d] with the kernel (x . y / d)^2, pairs of a row with itself included.

    So it is the squared distance of two second moment matrices over d^2, never negative, and too large by about 1/m + 1/n.
    """
    a, b = (np.asarray(features, dtype=np.float64) for features in (features_a, features_b))
    total = 0.0
    for x, y, weight in ((a, a, 1), (b, b, 1), (a, b, -2)):
        total += weight * sum(float(kernel.sum()) for _, kernel in _blocks(x, y, 2, 0)) / (len(x) * len(y))
    return total
