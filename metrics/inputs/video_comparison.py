"""Two sets of videos and how they are compared: what every metric of video takes out of MetricOptions.

`opts.G_kwargs['comparison']` is a VideoComparison. A program may give its parts instead: 'real_videos' and 'fake_videos'
(sets, or keyword arguments of their classes), 'video_options' (fields of VideoOptions) and 'protocol' (a dict).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, cast

import torch

import dnnlib
from metrics.inputs.clip_choice import RULES, ClipChoice, choose_clips
from metrics.inputs.feature_parts import FeatureParts
from metrics.inputs.video_set import VideoSet, same_rate
from metrics.metric_utils import MetricOptions
from networks.errors import InputError, option

MOST_NAMED = 5

VideoSource = VideoSet | Callable[[], VideoSet] | dict[str, Any]


@dataclasses.dataclass
class VideoOptions:
    """How videos are compared."""

    detectors: tuple[str, ...] = ()  # Files of weights, each for the network that it belongs to.
    seed: int = 0  # Which clips, and the draws of the bootstrap.
    real_clips: str = 'auto'  # A rule of metrics.inputs.clip_choice.
    fake_clips: str = 'first'
    damaged: str = 'stop'  # Or 'skip'.
    batch: int | None = None  # Clips per call of the detector; None: 1 on a CPU, 8 on a GPU.
    memory: int | None = None  # Bytes for the clips that are measured at a time on a CPU; None: no limit.
    bootstrap: int = 50  # Resamples; 0 for no interval.
    reference: str = 'footage'  # What the real videos are: 'footage' or 'embedding'.
    pairs: str = 'name'  # Which videos belong together, for metrics of pairs: a rule of metrics.distances.pair_comparison.
    lpips_weights: str | None = None  # File of weights of LPIPS; None: the installed ones.
    parts: FeatureParts | None = None  # Where independent jobs write their shares of the features, or collect them.

    def __post_init__(self) -> None:
        for rule in (self.real_clips, self.fake_clips):
            if rule not in RULES:
                raise InputError(f'{rule!r} is no rule for choosing clips; there are {", ".join(RULES)}')


class VideoComparison:
    """Two sets of videos, how they are compared, and what a metric tells of how it did.

    Args:
        real, fake: A set, a function that opens it, or keyword arguments of its class (dnnlib.util.construct_class_by_name);
            None where there is none. It is opened when it is first asked for, and once.
        options: How they are compared.

    Attributes:
        protocol: What the metric writes here stands in the line of its result; JSON types only.
    """

    def __init__(
        self,
        real: VideoSource | None = None,
        fake: VideoSource | None = None,
        options: VideoOptions | None = None,
        protocol: dict[str, Any] | None = None,
    ) -> None:
        self._sources = {'real': real, 'fake': fake}
        self._told: set[str] = set()  # sets whose damaged videos were named
        self.options = options or VideoOptions()
        self.protocol = {} if protocol is None else protocol

    def has(self, name: str) -> bool:
        """Whether there is a set of this name, 'real' or 'fake'."""
        return self._sources[name] is not None

    @property
    def real(self) -> VideoSet:
        """The videos to compare with."""
        return self._open('real')

    @property
    def fake(self) -> VideoSet:
        """The videos to measure."""
        return self._open('fake')

    def _open(self, name: str) -> VideoSet:
        source = self._sources[name]
        if source is None:
            raise InputError(f'there are no {name} videos')
        if isinstance(source, dict):
            source = dnnlib.util.construct_class_by_name(**source)
        elif callable(source):
            source = source()
        self._sources[name] = source
        return cast(VideoSet, source)

    def first_mention(self, name: str) -> bool:
        """Whether damaged videos of this set are to be named now: once."""
        is_first = name not in self._told
        self._told.add(name)
        return is_first


def comparison_of(opts: MetricOptions) -> VideoComparison:
    """What a metric of video has to compare."""
    found = opts.G_kwargs.get('comparison')
    if found is None:
        given = opts.G_kwargs
        found = VideoComparison(
            given.get('real_videos'), given.get('fake_videos'), video_options(opts), protocol=given.get('protocol')
        )
    return found


def video_options(opts: MetricOptions) -> VideoOptions:
    """The options of a metric of video."""
    if opts.G_kwargs.get('comparison') is not None:
        return opts.G_kwargs['comparison'].options
    given = opts.G_kwargs.get('video_options') or {}
    return given if isinstance(given, VideoOptions) else VideoOptions(**given)


class VideoPair:
    """The real and the fake set of one metric, which fit together.

    Args:
        opts: MetricOptions.
        metric: Its name, for what is said.
        same_size: Whether frames have to have one size.
        one_rate: Whether all videos have to have one rate.
        instead: What the user could do where one of the sets is missing; a part of a sentence.

    Raises:
        InputError: One of them is missing, or they differ in rate or size.
    """

    def __init__(
        self, opts: MetricOptions, metric: str, *, same_size: bool = True, one_rate: bool = True, instead: str = ''
    ) -> None:
        self.opts, self.metric, self.comparison = opts, metric, comparison_of(opts)
        self.options = self.comparison.options
        for name in ('real', 'fake'):
            if not self.comparison.has(name):
                raise InputError(
                    f'{metric} compares two sets of videos, and there are no {name} ones; give them '
                    f'with {option(name)}' + (f', or {instead}' if instead else '')
                )
        if opts.num_gpus > 1 and opts.rank > 0:
            torch.distributed.barrier()  # rank 0 looks through the files, the others take what it found
        self.real, self.fake = self.comparison.real, self.comparison.fake
        if opts.num_gpus > 1 and opts.rank == 0:
            torch.distributed.barrier()
        for name, videos in (('real', self.real), ('fake', self.fake)):
            damaged = getattr(videos, 'left_out', {})
            if damaged and self.comparison.first_mention(name):
                self.warn(f'{len(damaged)} damaged videos are left out: {", ".join(list(damaged)[:MOST_NAMED])}')
        if one_rate:
            self._require_one_rate()
        if same_size:
            self._require_one_size()

    def _require_one_rate(self) -> None:
        real, fake = self.real, self.fake
        for videos in (real, fake):
            if getattr(videos, 'mixed_rates', ''):
                raise InputError(videos.mixed_rates)
        known = all(getattr(videos, 'fps_is_known', True) for videos in (real, fake))
        if known and not same_rate(real.fps, fake.fps):
            raise InputError(
                f'the real videos have {real.fps:g} frames per second and the fake ones {fake.fps:g}, so '
                f'the same motion has two speeds; resample both to one rate with {option("fps")}'
            )

    def _require_one_size(self) -> None:
        if tuple(self.real.resolution) != tuple(self.fake.resolution):
            (height, width), (fake_height, fake_width) = self.real.resolution, self.fake.resolution
            raise InputError(
                f'the real videos have {width}x{height} pixels and the fake ones {fake_width}x{fake_height}, so '
                f'sharpness would be compared with its absence; bring both to one size with '
                f'{option("resolution", str(min(height, width, fake_height, fake_width)))}'
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

    def warn_of_short_videos(self, name: str, videos: VideoSet, choice: ClipChoice) -> None:
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
        """Write into the protocol of the result line."""
        self.comparison.protocol.update(entries)

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
