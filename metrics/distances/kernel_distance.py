"""The kernel distance: unbiased for any number of samples, so the number to look at where clips are few.

Maximum mean discrepancy with k(x, y) = (x . y / d + 1)^3, as in Binkowski et al., "Demystifying MMD GANs" (ICLR 2018):

    MMD^2 = sum_{i != j} k(x_i, x_j) / (m (m - 1)) + sum_{i != j} k(y_i, y_j) / (n (n - 1)) - 2 sum_ij k(x_i, y_j) / (m n)
"""

import numpy as np


def kernel_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """MMD^2 of features [m, d] and [n, d]; 0 is expected for equal distributions, so it can be a little below 0.

    Raises:
        ValueError: Fewer than two rows.
    """
    a, b = (np.asarray(features, dtype=np.float64) for features in (features_a, features_b))
    if len(a) < 2 or len(b) < 2:
        raise ValueError('the kernel distance needs at least two samples on both sides')

    def within(x: np.ndarray) -> float:
        kernel = (x @ x.T / x.shape[1] + 1) ** 3
        return float(kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))

    return within(a) + within(b) - 2 * float(((a @ b.T / a.shape[1] + 1) ** 3).mean())


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
    kernels = [(x @ y.T / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    for kernel in kernels[:2]:
        np.fill_diagonal(kernel, 0)
    random = np.random.RandomState(seed)
    values = []
    for _ in range(resamples):
        weights = [
            np.bincount(random.randint(count, size=count), minlength=count).astype(np.float64) for count in (len(a), len(b))
        ]
        within = [
            weight @ kernel @ weight / max(weight.sum() ** 2 - np.square(weight).sum(), 1)
            for weight, kernel in zip(weights, kernels[:2], strict=True)
        ]
        values.append(sum(within) - 2 * (weights[0] @ kernels[2] @ weights[1]) / (len(a) * len(b)))
    return float(np.std(values, ddof=1))


def polynomial_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """MMD^2 of features [m, d] and [n, d] with the kernel (x . y / d)^2, pairs of a row with itself included.

    So it is the squared distance of two second moment matrices over d^2, never negative, and too large by about 1/m + 1/n.
    """
    a, b = (np.asarray(features, dtype=np.float64) for features in (features_a, features_b))
    return float(sum(np.square(x @ y.T / a.shape[1]).mean() * weight for x, y, weight in ((a, a, 1), (b, b, 1), (a, b, -2))))
