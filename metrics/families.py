"""Metrics that are named by a pattern, such as fvd500_16f: one family is one call of `register_family`."""

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from metrics import metric_main
from metrics.best_value import set_best
from metrics.metric_utils import MetricOptions

# A metric takes MetricOptions and returns values by name; None where there is no number.
Metric = Callable[[Any], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Family:
    """Metrics of one pattern.

    Attributes:
        pattern: What a whole name has to match.
        make: The match of a name -> its metric.
        best: Which value is best: 'lower', 'higher', or a number; or the match of a name -> that.
        module: Name of the module that registered it.
    """

    pattern: re.Pattern[str]
    make: Callable[[re.Match[str]], Metric]
    best: str | float | Callable[[re.Match[str]], str | float]
    module: str


_families: list[Family] = []
_modules: dict[str, str] = {}  # metric of a family -> module


def register_family(
    pattern: str,
    make: Callable[[re.Match[str]], Metric],
    names: Sequence[str],
    *,
    best: str | float | Callable[[re.Match[str]], str | float] = 'lower',
) -> None:
    """Register metrics whose names follow a pattern: some at once, all others when they are asked for.

    Args:
        pattern: Regular expression that the whole of a name matches.
        make: Called with the match of a name; returns the metric, a function of MetricOptions.
        names: Those that are listed.
        best: Which value is best, as metrics.best_value.set_best takes it, or a function of the match.

    Raises:
        ValueError: One of `names` does not follow the pattern.
    """
    family = Family(re.compile(pattern, re.ASCII), make, best, make.__module__)
    _families.append(family)
    for name in names:
        match = family.pattern.fullmatch(name)
        if match is None:
            raise ValueError(f'{name} does not follow the pattern {pattern} of its own family')
        _register(family, match)


def register_lengths(
    name: str, lengths: Sequence[int], measure: Callable[[Any, str, int], dict[str, float]], *, best: str | float
) -> None:
    """Register the family NAME_LENGTHf.

    Args:
        name: Part of the names before the length.
        lengths: Those that are listed, in frames.
        measure: Called with MetricOptions, the name of the metric, and the length.
        best: Which value is best.
    """

    def make(match: re.Match[str]) -> Metric:
        def metric(opts: MetricOptions) -> dict[str, float]:
            return measure(opts, match[0], int(match[1]))

        metric.__doc__ = f'{(measure.__doc__ or name).rstrip(".")}, in videos of {match[1]} frames.'
        return metric

    make.__module__ = measure.__module__
    register_family(rf'{re.escape(name)}_([1-9]\d{{0,6}})f', make, [f'{name}_{length}f' for length in lengths], best=best)


def register_starts(
    pattern: str, names: Sequence[str], measure: Callable[[Any, str, int], dict[str, float]], *, best: str | float
) -> None:
    """Register a family of metrics of windows that begin at some frame, NAME and NAME_atFRAME.

    Args:
        pattern: Of the whole name; its first group is the frame, absent for 0.
        names: Those that are listed.
        measure: Called with MetricOptions, the name of the metric, and the frame. Its docstring ends in 'windows'.
        best: Which value is best.
    """

    def make(match: re.Match[str]) -> Metric:
        start = int(match[1] or 0)

        def metric(opts: MetricOptions) -> dict[str, float]:
            return measure(opts, match[0], start)

        metric.__doc__ = f'{(measure.__doc__ or "Windows").rstrip(".")} that begin at frame {start}.'
        return metric

    make.__module__ = measure.__module__
    register_family(pattern, make, names, best=best)


def make_metric(name: str) -> bool:
    """Register the metric of this name if a family has it; whether one has."""
    for family in _families:
        match = family.pattern.fullmatch(name)
        if match is not None:
            _register(family, match)
            return True
    return False


def names_of_module(module: str) -> set[str]:
    """Metrics of the families that a module has registered, as far as they are made."""
    return {name for name, owner in _modules.items() if owner == module}


def file_of_metric(name: str) -> str | None:
    """File of the module whose family has this metric, if it is made."""
    module = sys.modules.get(_modules.get(name, ''))
    return getattr(module, '__file__', None)


def _register(family: Family, match: re.Match[str]) -> None:
    name = match[0]
    if _modules.get(name) == family.module and metric_main.is_valid_metric(name):
        return
    metric = family.make(match)
    metric.__name__ = metric.__qualname__ = name
    set_best(name, family.best(match) if callable(family.best) else family.best)
    metric_main.register_metric(metric)
    _modules[name] = family.module


def named(metric: str, results: dict[str, float]) -> dict[str, float]:
    """Results with the first one under the metric's name and the others behind it; what is not a number is left out."""
    (_, value), *others = results.items()
    return {metric: value, **{f'{metric}_{key}': number for key, number in others if math.isfinite(number)}}
