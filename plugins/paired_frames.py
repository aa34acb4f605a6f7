"""Metrics of pairs of videos, frame by frame: for reconstruction, prediction and compression, where each video has a target.

psnr         peak signal-to-noise ratio in decibel, higher is better
ssim         structural similarity (Wang et al. 2004), higher is better
lpips_alex   learned perceptual distance v0.1 (Zhang et al. 2018) by AlexNet, the usual one in tables; lower is better
lpips_vgg    by VGG16, as training losses use it; its values are about twice as large, and the two cannot be compared

psnr_16f and so on compare the first 16 frames of each video; any other number goes by the same pattern.
docs/measuring/scores.md has the equations, and how other programs differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from metrics.distances import pair_scores
from metrics.distances.pair_comparison import Measure, compare_pairs
from metrics.families import Metric, register_family
from metrics.inputs.video_comparison import video_options
from metrics.metric_utils import MetricOptions

NAMES = ('psnr', 'ssim', 'lpips_alex', 'lpips_vgg')
PATTERN = r'(psnr|ssim|lpips_alex|lpips_vgg)(?:_([1-9]\d{0,6})f)?'
GPU_BATCH = 8

_lpips: dict[tuple[str, str | None, str], Any] = {}


def measure_of(name: str, device: torch.device | str = 'cpu', weights: str | None = None) -> Measure:
    """The function of frames and their targets, levels [n, H, W, C], that one of NAMES stands for.

    Raises:
        InputError: The weights of LPIPS are not there.
    """
    if name.startswith('lpips'):
        return _lpips_measure(name.removeprefix('lpips_'), device, weights)
    single = pair_scores.psnr if name == 'psnr' else pair_scores.ssim
    return lambda frames, targets: [single(*both) for both in zip(frames, targets, strict=True)]


def detector_of(name: str, device: torch.device | str = 'cpu', weights: str | None = None) -> dict[str, Any] | None:
    """What a protocol says of the network behind one of NAMES; None where there is none."""
    return _load_lpips(name.removeprefix('lpips_'), device, weights).description if name.startswith('lpips') else None


def _load_lpips(network: str, device: torch.device | str, weights: str | None) -> Any:
    from networks.checkpoints.detectors import load_lpips

    key = (network, weights, str(torch.device(device)))
    if key not in _lpips:
        _lpips[key] = load_lpips(network, weights).to(device)
    return _lpips[key]


def _lpips_measure(network: str, device: torch.device | str, weights: str | None) -> Measure:
    module = _load_lpips(network, device, weights)

    def images(levels: np.ndarray) -> torch.Tensor:
        scaled = torch.from_numpy(np.ascontiguousarray(levels)).to(device).permute(0, 3, 1, 2).double() / 127.5 - 1
        return scaled.float()

    def measure(frames: np.ndarray, targets: np.ndarray) -> Sequence[float]:
        with torch.inference_mode():
            return [float(value) for value in module(images(frames), images(targets)).double().cpu()]

    return measure


def _make(match: re.Match[str]) -> Metric:
    name = match[0]
    kind, length = match[1], int(match[2]) if match[2] else None

    def metric(opts: MetricOptions) -> dict[str, Any]:
        options = video_options(opts)
        batch = options.batch or (GPU_BATCH if torch.device(opts.device).type == 'cuda' else 1)
        network = opts.device, options.lpips_weights
        return compare_pairs(opts, name, measure_of(kind, *network), length, batch, detector=detector_of(kind, *network))

    metric.__doc__ = f'{kind} of pairs of videos, {f"of their first {length} frames" if length else "of all frames"}.'
    return metric


register_family(PATTERN, _make, NAMES, best=lambda match: 'higher' if match[1] in ('psnr', 'ssim') else 'lower')
