"""What a handful of trainings tells of all trainings: mean, deviation, interval, and whether two models differ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy.stats  # quantiles and tests of Student's t, which are not worth writing again


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of the values of n trainings; the deviation (divided by n - 1) and the 95 % interval of the mean are None for one."""

    count: int
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None


def summarize(values: Sequence[float]) -> Summary:
    """The interval is mean +- t_{0.975, n - 1} deviation / sqrt(n): it is about further trainings, not about further videos."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Summary(len(values), mean, None, None)
    deviation = float(np.std(values, ddof=1)) if np.ptp(values) > 0 else 0.0  # not rounding
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Summary(len(values), mean, deviation, (mean - half, mean + half))


def p_value(ours: Sequence[float], theirs: Sequence[float], *, fitted: bool = False) -> float | None:
    """Two-sided p of equal means.

    Args:
        ours, theirs: Values of trainings, one each.
        fitted: `theirs` is one value of a model that has no randomness of training, and counts as a constant (one-sample t test).

    Returns:
        p of Welch's test, which asks for no equal variances; None where a side has too few trainings or nothing varies.
    """
    if len(ours) < 2 or (not fitted and len(theirs) < 2) or not theirs:
        return None
    a, b = summarize(ours), summarize(theirs)
    if not a.deviation and (fitted or not b.deviation):
        return None
    if fitted:
        return float(scipy.stats.ttest_1samp(ours, theirs[0]).pvalue)
    sides = [(side.mean, side.deviation, side.count) for side in (a, b)]
    return float(scipy.stats.ttest_ind_from_stats(*sides[0], *sides[1], equal_var=False).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for their number (Holm, Scandinavian Journal of Statistics 1979); None stays and does not count.

    Sorted ascending, the k-th of m (from 0) is multiplied by m - k, no value is below the one before it, and none above 1.
    """
    tests = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(tests):
        largest = max(largest, min(1.0, p * (len(tests) - rank)))
        adjusted[place] = largest
    return adjusted
