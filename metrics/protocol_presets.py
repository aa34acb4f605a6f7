"""Protocols that others have used, by name: which metrics, which clips, and what still differs from their programs.

A preset sets options that the user has not set; what was given on the command line stands. Differences are named
in the result, because no number of another program can be expected to the last digit; docs/measuring/fvd.md measures how much
each matters.
"""

from __future__ import annotations

import dataclasses

from networks.errors import InputError


@dataclasses.dataclass(frozen=True)
class Preset:
    """A protocol.

    Attributes:
        about: What it is, in one sentence.
        metrics: Names of the metrics.
        options: Of calc_metrics_video.py, without the dashes in front.
        differences: Sentences on what their program does otherwise.
    """

    about: str
    metrics: tuple[str, ...]
    options: dict[str, str]
    differences: tuple[str, ...]


PRESETS = {
    'stylegan-v': Preset(
        'unconditional generation as StyleGAN-V evaluates it: 2048 clips of 16 frames, and 16 of 128 frames',
        ('fvd2048_16f', 'fvd2048_128f', 'fvd2048_128f_subsample8f', 'frame_fid2048_16f'),
        {'real_clips': 'random', 'fake_clips': 'first'},
        (
            'it takes the first 2048 real videos by name where there are more, here they are drawn by the seed',
            'its real clips begin at random without a seed, so its number changes from run to run',
            'it divides the covariance by N, here it is N - 1 (0.05 % of the distance at N = 2048)',
            'it drops videos that are too short in silence, here they are counted',
        ),
    ),
    'common-metrics': Preset(
        'pairs of videos as common_metrics_on_video_quality evaluates them: FVD of the first 16 frames, PSNR, SSIM and LPIPS '
        'of all frames',
        ('psnr', 'ssim', 'lpips_alex', 'fvd2048_16f'),
        {'real_clips': 'first', 'fake_clips': 'first'},
        (
            'it gives FVD also for every length from 10 frames on; name these lengths, such as fvd2048_10f',
            'its network resizes with half-pixel centres and a central square (2.6 % of the distance in a measured case), and '
            'its videogpt variant has an epsilon of 1e-5',
            'it gives equal frames 100 dB, here they are infinite and counted',
        ),
    ),
    'long-video': Preset(
        "this project's own for endless video: the beginning, ten windows later, and what FVD does not see",
        ('fvd2048_25f', 'fvd2048_25f_at225', 'repetition_200f', 'drift_200f', 'motion_200f', 'diversity_200f'),
        {},
        (),
    ),
}


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        InputError: There is none.
    """
    if name not in PRESETS:
        raise InputError(f'there is no protocol {name!r}; there are {", ".join(PRESETS)}')
    return PRESETS[name]
