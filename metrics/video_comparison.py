"""Two sets of videos and how they are to be compared: what every metric of video takes out of MetricOptions.

opts.G_kwargs['real_videos'], ['fake_videos']   sets, or keyword arguments of their classes
opts.G_kwargs['video_options']                  fields of VideoOptions, as far as they are not the defaults
opts.G_kwargs['protocol']                       a dict that a metric writes what it did into; it stands in the result line
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import torch

import dnnlib
from metrics.clip_choice import RULES, ClipChoice, choose_clips
from networks.errors import InputError

RATE_TOLERANCE = 0.005  # relative; 29.97 and 30 are one rate
MOST_NAMED = 5

_told: list[Any] = []  # sets whose damaged videos were named


@dataclasses.dataclass
class VideoOptions:
    """How videos are compared."""

    detectors: tuple[str, ...] = ()  # Files of weights, each for the network that it belongs to.
    seed: int = 0  # Which clips, and the draws of the bootstrap.
    real_clips: str = 'auto'  # A rule of metrics.clip_choice.
    fake_clips: str = 'first'
    damaged: str = 'stop'  # Or 'skip'.
    batch: int | None = None  # Clips per call of the detector; None: 1 on a CPU, 8 on a GPU.
    bootstrap: int = 50  # Resamples; 0 for no interval.
    reference: str = 'footage'  # What the real videos are: 'footage' or 'embedding'.
    pairs: str = 'name'  # Which videos belong together, for metrics of pairs: a rule of metrics.pair_comparison.
    lpips_weights: str | None = None  # File of weights of LPIPS; None: the installed ones.

    def __post_init__(self) -> None:
        for rule in (self.real_clips, self.fake_clips):
            if rule not in RULES:
                raise InputError(f'{rule!r} is no rule for choosing clips; there are {", ".join(RULES)}')


def video_options(opts: Any) -> VideoOptions:
    """The options of a metric of video."""
    given = opts.G_kwargs.get('video_options') or {}
    return given if isinstance(given, VideoOptions) else VideoOptions(**given)


def open_videos(source: Any) -> Any:
    """A set of videos: from its keyword arguments, or as it is."""
    return dnnlib.util.construct_class_by_name(**source) if isinstance(source, dict) else source


class VideoPair:
    """The real and the fake set, which fit together.

    Raises:
        InputError: One of them is missing, or they differ in rate or size.
    """

    def __init__(self, opts: Any, metric: str) -> None:
        for name in ('real', 'fake'):
            if opts.G_kwargs.get(f'{name}_videos') is None:
                raise InputError(
                    f'{metric} compares two sets of videos, and there are no {name} ones; give them to '
                    f'calc_metrics_video.py with --{name}'
                )
        self.opts, self.metric, self.options = opts, metric, video_options(opts)
        if opts.num_gpus > 1 and opts.rank > 0:
            torch.distributed.barrier()  # rank 0 looks through the files, the others take what it found
        self.real, self.fake = (open_videos(opts.G_kwargs[f'{name}_videos']) for name in ('real', 'fake'))
        if opts.num_gpus > 1 and opts.rank == 0:
            torch.distributed.barrier()
        for videos in (self.real, self.fake):
            if videos.left_out and videos not in _told:
                _told.append(videos)
                self.warn(f'{len(videos.left_out)} damaged videos are left out: {", ".join(list(videos.left_out)[:MOST_NAMED])}')
        real, fake = self.real, self.fake
        if real.fps_is_known and fake.fps_is_known and abs(real.fps / fake.fps - 1) > RATE_TOLERANCE:
            raise InputError(
                f'the real videos have {real.fps:g} frames per second and the fake ones {fake.fps:g}, so '
                'the same motion has two speeds; bring both to one rate with --fps'
            )
        if tuple(real.resolution) != tuple(fake.resolution):
            (height, width), (fake_height, fake_width) = real.resolution, fake.resolution
            raise InputError(
                f'the real videos have {width}x{height} pixels and the fake ones {fake_width}x{fake_height}, so '
                'sharpness would be compared with its absence; bring both to one size with --resolution='
                f'{min(height, width, fake_height, fake_width)}'
            )

    def choose(self, count: int, num_frames: int, stride: int, start: int) -> tuple[ClipChoice, ClipChoice]:
        """Clips of both sets. The real ones come from anywhere, the fake ones (rule 'first') from `start` on.

        Raises:
            InputError: One of the sets has no video that is long enough.
        """
        options = self.options
        choices = []
        for name, videos, rule in (('real', self.real, options.real_clips), ('fake', self.fake, options.fake_clips)):
            choice = choose_clips(
                videos.num_frames,
                count,
                num_frames,
                stride=stride,
                start=start if name == 'fake' else 0,
                rule=rule,
                seed=options.seed,
                endless=videos.endless,
            )
            if not choice.clips:
                longest = max((length for length in videos.num_frames if length is not None), default=0)
                after = f' after frame {start}' if choice.rule == 'first' and start else ''
                spaced = f', {stride} apart,' if stride > 1 else ''
                raise InputError(
                    f'{self.metric} needs {num_frames} frames{spaced} of a video{after}, and the longest of these '
                    f'{len(videos.names)} {name} ones has {longest}; choose a metric of shorter clips'
                )
            self.warn_of_short_videos(name, videos, choice)
            choices.append(choice)
        return choices[0], choices[1]

    def warn_of_short_videos(self, name: str, videos: Any, choice: ClipChoice) -> None:
        """Say which videos are left out because they cannot hold a clip."""
        if choice.too_short:
            names = [videos.names[index] for index in choice.too_short]
            shown = ', '.join(names[:MOST_NAMED]) + (', ...' if len(names) > MOST_NAMED else '')
            self.warn(f'{len(names)} of {len(videos.names)} {name} videos are too short and left out: {shown}')

    def warn(self, sentence: str) -> None:
        """Say something on standard error, once."""
        if self.opts.rank == 0:
            tell = self.opts.G_kwargs.get('tell')  # a program that wants to pass it on in its own way
            if tell is not None:
                tell(f'{self.metric}: {sentence}')
            else:
                print(f'{self.metric}: {sentence}', file=sys.stderr, flush=True)

    def record(self, **entries: Any) -> None:
        """Write into the protocol of the result line, where there is one."""
        protocol = self.opts.G_kwargs.get('protocol')
        if isinstance(protocol, dict):
            protocol.update(entries)

    def describe(self, real: ClipChoice, fake: ClipChoice, detector: Any) -> dict[str, Any]:
        """The protocol: both sets, how their clips were chosen, and the detector."""
        sets = {
            name: {
                **videos.description,
                'sha256': videos.sha256,
                'fps': videos.fps,
                'fps_is_known': videos.fps_is_known,
                'resolution': list(videos.resolution),
                'clips': len(choice.clips),
                'clip_rule': choice.rule,
                'clips_side_by_side': choice.side_by_side,
                'first_frame': choice.clips[0][1] if choice.rule == 'first' else None,
                'videos_too_short': len(choice.too_short),
            }
            for name, videos, choice in (('real', self.real, real), ('fake', self.fake, fake))
        }
        return {
            **sets,
            'reference': self.options.reference,
            'frames': real.num_frames,
            'stride': real.stride,
            'seed': self.options.seed,
            'detector': detector.description,
            'resize': detector.resize_rule,
        }
