"""Protocols that others have used, by name: which metrics, which clips, and what still differs from their programs.

A preset sets options that the user has not set; what was given on the command line stands. Differences are named
in the result, because no number of another program can be expected to the last digit; docs/measuring/fvd.md measures how much
each matters. What a preset says of another program was read in that program's public source; those whose evaluation is not
public (MoCoGAN-HD) have none.
"""

from __future__ import annotations

import dataclasses
from typing import Any

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
    options: dict[str, Any]
    differences: tuple[str, ...]


# What several programs do that this one does not.
UNSEEDED = 'its real clips begin at random without a seed, so its number changes from run to run'
HALF_PIXEL = 'its network resizes with half-pixel centres and has an epsilon of 1e-5, here both are those of the original'
BY_N = 'it divides the covariance by N, here it is N - 1 (0.05 % of the distance at N = 2048)'
SHORT = 'it drops videos that are too short in silence, here they are counted'

PRESETS = {
    'stylegan-v': Preset(
        'unconditional generation as StyleGAN-V evaluates it: 2048 clips of 16 frames, and 16 of 128 frames',
        ('fvd2048_16f', 'fvd2048_128f', 'fvd2048_128f_subsample8f', 'frame_fid2048_16f'),
        {'real_clips': 'random', 'fake_clips': 'first'},
        (
            'it takes the first 2048 real videos by name where there are more, here they are drawn by the seed',
            UNSEEDED,
            BY_N,
            SHORT,
        ),
    ),
    'styleinv': Preset(
        "StyleInV's: those of StyleGAN-V, and 128 of 512 frames for long video",
        ('fvd2048_16f', 'fvd2048_128f', 'fvd2048_128f_subsample8f', 'fvd2048_512f_subsample4f'),
        {'real_clips': 'random', 'fake_clips': 'first'},
        (
            'it takes the first 2048 real videos by name where there are more, here they are drawn by the seed',
            UNSEEDED,
            BY_N,
            SHORT,
        ),
    ),
    'long-video-gan': Preset(
        "LongVideoGAN's: 2048 clips of 16 and of 128 frames, the generated ones from anywhere in their videos",
        ('fvd2048_16f', 'fvd2048_128f', 'fvd2048_128f_subsample8f'),
        {'real_clips': 'random', 'fake_clips': 'random'},
        (
            'its clips begin at random, anew in each run, and its tables are means of several runs',
            'a generated video there is as long as the range that its network was trained on, here it is as long as you made it',
            BY_N,
        ),
    ),
    'digan': Preset(
        "DIGAN's: FVD and KVD of 2048 clips of 16 frames of 128 x 128",
        ('fvd2048_16f', 'kvd2048_16f'),
        {'real_clips': 'random', 'fake_clips': 'first', 'resolution': 128},
        ('it gives mean and deviation of ten draws of the clips; here one draw has an interval', HALF_PIXEL),
    ),
    'tats': Preset(
        "TATS's: FVD and KVD of 2048 clips of 16 frames of 128 x 128, the real ones of the training set",
        ('fvd2048_16f', 'kvd2048_16f'),
        {'real_clips': 'random', 'fake_clips': 'first', 'resolution': 128},
        (
            'it takes the real clips in the order of a shuffled loader; --real has to be the training set, as there',
            HALF_PIXEL,
            'it adds up in float32',
        ),
    ),
    'cd-fvd': Preset(
        'content-debiased FVD (Ge et al. 2024): VideoMAE, 16 frames of 256 x 256 from anywhere in each video',
        ('fvd_videomae_2048_16f',),
        {'real_clips': 'random', 'fake_clips': 'random', 'resolution': 256, 'detectors': ('videomae-g-ssv2',)},
        (
            'it takes all real videos, here 2048 at most (fvd_videomae_100000_16f takes more)',
            'it reduces frames with an antialiased bilinear filter, or Lanczos for folders of images',
            BY_N,
        ),
    ),
    'jedi': Preset(
        'JEDi (Luo et al. 2025): V-JEPA features of up to 5000 clips of 16 frames at their own size',
        ('jedi_vjepa_5000_16f',),
        {'real_clips': 'random', 'fake_clips': 'first', 'detectors': ('vjepa-h', 'vjepa-h-ssv2')},
        (
            'it takes clips as the caller hands them over; its own tests hand over 32 frames of 240 x 320 (jedi_vjepa_5000_32f)',
            'it computes the kernel in float32',
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
