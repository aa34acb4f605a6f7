"""Metrics: the Frechet video distance (Unterthiner et al. 2018) of two sets of videos, in the features of I3D.

fvd2048_16f                 2048 clips of 16 frames
fvd2048_25f                 of 25 frames, as long as a window of the training: the beginning of generated videos
fvd2048_25f_at225           frames 225 to 249 of generated videos, ten times as far as a window reaches
fvd2048_128f                of 128 frames
fvd2048_128f_subsample8f    of 16 frames, 8 apart

Other numbers of clips, lengths, steps and beginnings go by the same pattern: fvd500_16f, fvd2048_20f_subsample2f_at1000. The
protocol is that of StyleGAN-V without its flaws; docs/measuring/fvd.md has it, and each difference.
"""

import re
from typing import Any

from metrics.distances.frechet_of_clips import Protocol, clip_distance
from metrics.families import Metric, register_family
from metrics.metric_utils import MetricOptions

NAMES = ('fvd2048_16f', 'fvd2048_25f', 'fvd2048_25f_at225', 'fvd2048_128f', 'fvd2048_128f_subsample8f')
PATTERN = r'fvd([1-9]\d*)_([1-9]\d*)f(?:_subsample([1-9]\d*)f)?(?:_at(\d+))?'


def _make(match: re.Match[str]) -> Metric:
    count, length, stride, start = (int(text or default) for text, default in zip(match.groups(), (0, 0, 1, 0), strict=True))
    # fvd2048_128f_subsample8f: 128 frames of video, of which every eighth is taken.
    protocol = Protocol('i3d', count, -(-length // stride), stride, start)

    def metric(opts: MetricOptions) -> dict[str, Any]:
        return clip_distance(opts, match[0], protocol)

    metric.__doc__ = f'{protocol.count} clips of {protocol.num_frames} frames, {protocol.stride} apart, from {protocol.start} on.'
    return metric


register_family(PATTERN, _make, NAMES, best='lower')
