"""Which value of a metric is best, for marking the best snapshot of a training."""

import math

_best: dict[str, str | float] = {}  # metric -> 'lower', 'higher', or the value that is best


def set_best(metric: str, best: str | float) -> None:
    """Say which value of a metric is best; without a word it is the lowest.

    Args:
        metric: Its name.
        best: 'lower', 'higher', or a number: the nearer to it, by ratio if it is not zero, the better.

    Raises:
        ValueError: Something else.
    """
    if best not in ('lower', 'higher') and not (isinstance(best, (int, float)) and math.isfinite(best) and best >= 0):
        raise ValueError(f'{metric}: best is lower, higher, or a number, not {best!r}')
    _best[metric] = best


def best_of(metric: str) -> str | float:
    """What `set_best` said of a metric: 'lower', 'higher', or a number."""
    return _best.get(metric, 'lower')


def badness(value: float, best: str | float) -> float:
    """How far a value is from the best: the smaller the better; infinite for NaN."""
    if math.isnan(value):
        return math.inf
    if isinstance(best, str):
        return value if best == 'lower' else -value
    if best == 0:
        return abs(value)
    return abs(math.log(value / best)) if value > 0 else math.inf  # half as much is as bad as twice as much
