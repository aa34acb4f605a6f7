"""Metrics: the kernel video distance, KVD (Unterthiner et al. 2018): MMD^2 of clips in the features of I3D.

kvd2048_16f    2048 clips of 16 frames; the names go on as those of the Frechet video distance, whose clips and features it shares

The kernel is (x . y / 400 + 1)^3 (Binkowski et al. 2018), the estimate is unbiased, so it does not shift with the number of
clips and can be a little below 0. Programs that multiply it by 1000, or take means over subsets, print other numbers.
"""

import re
from typing import Any

from metrics.distances.frechet_of_clips import Protocol, kernel_results, measure_clips
from metrics.families import Metric, register_family
from metrics.metric_utils import MetricOptions

NAMES = ('kvd2048_16f',)
PATTERN = r'kvd([1-9]\d*)_([1-9]\d*)f(?:_subsample([1-9]\d*)f)?(?:_at(\d+))?'


def _make(match: re.Match[str]) -> Metric:
    name = match[0]
    count, length, stride, start = (int(text or default) for text, default in zip(match.groups(), (0, 0, 1, 0), strict=True))
    protocol = Protocol('i3d', count, -(-length // stride), stride, start)

    def metric(opts: MetricOptions) -> dict[str, Any]:
        return measure_clips(opts, name, protocol, kernel_results)

    metric.__doc__ = f'{protocol.count} clips of {protocol.num_frames} frames, {protocol.stride} apart, from {protocol.start} on.'
    return metric


register_family(PATTERN, _make, NAMES, best='lower')
