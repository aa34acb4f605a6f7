"""Metrics: distances in the features of VideoMAE, V-JEPA, V-JEPA 2 and DINOv2; --detector names the weights.

fvd_videomae_2048_16f        Frechet distance; with the weights that CD-FVD (Ge et al., CVPR 2024) takes, that number
jedi_vjepa_5000_16f          JEDi (Luo et al., ICLR 2025): 100 MMD^2 with the kernel (x . y / D)^2, pairs of a clip with itself
                             included, in the features of V-JEPA and its attentive pooler
kvd_vjepa2_2048_16f          kernel distance as kvd2048_16f, in the features of V-JEPA 2
frame_fd_dinov2_2048_16f     Frechet distance of the single frames (FD-DINOv2, Stein et al., NeurIPS 2023)

Any kind goes with any of the four networks, any number and length by the pattern, `_subsampleSf` and `_atK` as for FVD.
docs/measuring/feature_networks.md says which published number to reproduce first.
"""

import re
from typing import Any

from metrics.distances.frechet_of_clips import Protocol, frechet_results, jedi_results, kernel_results, measure_clips
from metrics.families import Metric, register_family
from metrics.metric_utils import MetricOptions

NAMES = ('fvd_videomae_2048_16f', 'jedi_vjepa_5000_16f', 'frame_fd_dinov2_2048_16f')
PATTERN = r'(fvd|kvd|jedi|frame_fd)_(videomae|vjepa2?|dinov2)_([1-9]\d*)_([1-9]\d*)f(?:_subsample([1-9]\d*)f)?(?:_at(\d+))?'
COMPARISONS = {'fvd': frechet_results, 'kvd': kernel_results, 'jedi': jedi_results, 'frame_fd': frechet_results}


def _make(match: re.Match[str]) -> Metric:
    name = match[0]
    kind, network = match[1], match[2]
    count, length, stride, start = int(match[3]), int(match[4]), int(match[5] or 1), int(match[6] or 0)
    protocol = Protocol(network, count, -(-length // stride), stride, start)

    def metric(opts: MetricOptions) -> dict[str, Any]:
        return measure_clips(opts, name, protocol, COMPARISONS[kind])

    metric.__doc__ = f'{kind} of {count} clips of {protocol.num_frames} frames in the features of {network}.'
    return metric


register_family(PATTERN, _make, NAMES, best='lower')
