"""Metrics: the Frechet inception distance (Heusel et al. 2017) of the frames of two sets of videos.

frame_fid2048_16f           the 16 frames of each of 2048 clips, 32768 frames a set
frame_fid2048_25f           of 25 frames: the beginning of generated videos
frame_fid2048_25f_at225     frames 225 to 249 of generated videos

The frames are those of the FVD of the same name, so both say something of the same clips. It sees single frames only. Other
numbers go by the same pattern. docs/measuring/fvd.md has the protocol.
"""

import re
from typing import Any

from metrics.distances.frechet_of_clips import Protocol, clip_distance
from metrics.families import Metric, register_family
from metrics.metric_utils import MetricOptions

NAMES = ('frame_fid2048_16f', 'frame_fid2048_25f', 'frame_fid2048_25f_at225')
PATTERN = r'frame_fid([1-9]\d*)_([1-9]\d*)f(?:_at(\d+))?'


def _make(match: re.Match[str]) -> Metric:
    protocol = Protocol('inception', int(match[1]), int(match[2]), 1, int(match[3] or 0))

    def metric(opts: MetricOptions) -> dict[str, Any]:
        return clip_distance(opts, match[0], protocol)

    metric.__doc__ = f'The frames of {protocol.count} clips of {protocol.num_frames} frames, from {protocol.start} on.'
    return metric


register_family(PATTERN, _make, NAMES, best='lower')
