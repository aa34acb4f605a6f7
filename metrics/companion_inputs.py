"""What the companions of the Frechet distances (repetition, drift, motion, diversity) are computed of, as MetricOptions name it.

Codes: `opts.G`, a latent generator, against `opts.dataset_kwargs`, a latent data set.
Pictures: `opts.G_kwargs['fake_videos']` against `opts.G_kwargs['real_videos']`, sets of videos (ready ones, or their keyword
arguments for dnnlib.util.construct_class_by_name), which are made points by metrics.frame_points.
"""

import collections
import copy
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

import dnnlib
from metrics import metric_main
from metrics.best_value import set_best
from metrics.frame_points import LatentPoints, stream_points
from metrics.latent_windows import generate_coordinates
from networks.errors import InputError

GENERATED_CODES = 64  # videos of a latent generator, seeds from 0 on,
GENERATED_CODES_LONG = 16  # or this many where they are longer than LONG
LONG = 1000
RENDERED = 16  # videos of an endless set, from its first one on
RECORDED = 64  # videos of a recorded set, evenly spread over it
REAL_FRAMES = 32768  # of a real set of videos, all together; 384 MiB
CACHE_BYTES = 1 << 30
RATE_TOLERANCE = 0.01

Metric = Callable[[Any], dict[str, float]]

# ----------------------------------------------------------------------------
# Names


def add_lengths(
    place: dict[str, Any],
    name: str,
    lengths: Sequence[int],
    measure: Callable[[Any, str, int], dict[str, float]],
    best: str | float,
) -> None:
    """Register the metrics NAME_LENGTHf, one a length, as functions of the module whose `globals()` are `place`.

    The module also gets the function `metric_of_name` (metrics.discovery), which makes those of all other lengths.

    Args:
        place: Where the functions go.
        name: Part of the names before the length.
        lengths: In frames.
        measure: Called with MetricOptions, the name of the metric, and the length.
        best: Which value is best, as metrics.best_value.set_best takes it.
    """

    def of_length(length: int) -> Metric:
        def metric(opts: Any) -> dict[str, float]:
            return measure(opts, metric.__name__, length)

        metric.__name__ = metric.__qualname__ = f'{name}_{length}f'
        metric.__module__ = place['__name__']
        metric.__doc__ = f'{(measure.__doc__ or name).rstrip(".")}, in videos of {length} frames.'
        set_best(metric.__name__, best)
        place[metric.__name__] = metric_main.register_metric(metric)
        return metric

    others = place.get('metric_of_name')  # of another group of names of the same module

    def metric_of_name(wanted: str) -> Metric | None:
        match = re.fullmatch(rf'{re.escape(name)}_([1-9]\d{{0,6}})f', wanted)
        if match is not None:
            return of_length(int(match[1]))
        return others(wanted) if others is not None else None

    for length in lengths:
        of_length(length)
    place['metric_of_name'] = metric_of_name


def named(metric: str, results: dict[str, float]) -> dict[str, float]:
    """Results with the first one under the metric's name and the others behind it; what is not a number is left out."""
    (_, value), *others = results.items()
    return {metric: value, **{f'{metric}_{key}': number for key, number in others if math.isfinite(number)}}


# ----------------------------------------------------------------------------
# Codes


class _Clips(Sequence):
    """The clips of a latent data set, loaded when asked for."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.clips)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset.load_clip(index)


class CodeInputs:
    """Real clips and generated videos as points, or in whitened coordinates.

    Attributes:
        points: LatentPoints, fitted to the data set.
        fps: Of the data set.

    Raises:
        InputError: There is no latent generator or data set, or they do not belong together.
    """

    def __init__(self, opts: Any, metric: str) -> None:
        if opts.G is None or not opts.dataset_kwargs:
            raise InputError(
                f'{metric} measures the codes of a latent generator, and here are none; give a snapshot with '
                f'--network, or take {metric.replace("_latent", "")}, which compares any two sets of videos'
            )
        dataset = dnnlib.util.construct_class_by_name(**opts.dataset_kwargs)
        try:
            if (dataset.num_ws, dataset.w_dim) != (opts.G.num_ws, opts.G.w_dim):
                raise InputError(
                    f'the data set has codes of {dataset.num_ws} x {dataset.w_dim}, and the snapshot makes '
                    f'{opts.G.num_ws} x {opts.G.w_dim}; measure against the data that it was trained on'
                )
            self.points = LatentPoints(_Clips(dataset))
            self.fps = float(getattr(dataset, 'fps', 25))
        finally:
            dataset.close()
        self.metric = metric
        self._generator = copy.deepcopy(opts.G).eval().requires_grad_(False).to(opts.device)
        self._progress = opts.progress.sub(tag=f'{metric} videos')

    def coordinates(self, num_frames: int) -> Iterator[torch.Tensor]:
        """Whitened coordinates [T, C + 1] of videos of the first seeds."""
        return self._generate(self.points.space, num_frames)

    def videos(self, num_frames: int) -> Iterator[torch.Tensor]:
        """Points [T, C + 32] of videos of the first seeds."""
        return self._generate(self.points, num_frames)

    def results(self, results: dict[str, float]) -> dict[str, float]:
        """Named results, with what all of these metrics say of their inputs."""
        return named(self.metric, {**results, 'first_seed': 0, 'real_clips': len(self.points.real)})

    def _generate(self, space: Any, num_frames: int) -> Iterator[torch.Tensor]:
        count = GENERATED_CODES if num_frames <= LONG else GENERATED_CODES_LONG
        self._progress.num_items = count
        for index, video in enumerate(generate_coordinates(self._generator, space, range(count), 0, num_frames)):
            yield video
            self._progress.update(index + 1)


# ----------------------------------------------------------------------------
# Pictures


class PointsCache:
    """Points of videos, so that several metrics of one set decode or render it once; the oldest go first."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._kept: collections.OrderedDict[tuple[str, int], torch.Tensor] = collections.OrderedDict()

    def get(self, key: tuple[str, int], num_frames: int, length: int | None) -> torch.Tensor | None:
        """The first `num_frames` frames of the video `key`, which has `length` in all; None if they are not kept."""
        points = self._kept.get(key)
        wanted = num_frames if length is None else min(num_frames, length)
        return points[:wanted] if points is not None and len(points) >= wanted else None

    def put(self, key: tuple[str, int], points: torch.Tensor) -> None:
        self._kept[key] = points
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self.max_bytes:
            self._kept.popitem(last=False)


_cache = PointsCache()


class PictureInputs:
    """Real and fake videos as points. All ranks share the work, and all get all points.

    Raises:
        InputError: There are no two sets of videos, or their rates differ.
    """

    def __init__(self, opts: Any, metric: str) -> None:
        missing = [name for name in ('real', 'fake') if opts.G_kwargs.get(f'{name}_videos') is None]
        if missing:
            raise InputError(
                f'{metric} compares two sets of videos, and there are no {missing[0]} ones; give them to '
                f'calc_metrics_video.py with --{missing[0]}, or take {metric.replace("_", "_latent_", 1)}, which '
                'needs codes only'
            )
        self.opts, self.metric = opts, metric
        self.real_set, self.fake_set = (_open(opts.G_kwargs[f'{name}_videos']) for name in ('real', 'fake'))
        self.fps = float(self.real_set.fps)
        known = all(getattr(videos, 'fps_is_known', True) for videos in (self.real_set, self.fake_set))
        if known and abs(self.fake_set.fps / self.fps - 1) > RATE_TOLERANCE:
            raise InputError(
                f'the real videos have {self.fps:g} frames per second and the others {self.fake_set.fps:g}, so the '
                'same motion has two speeds; bring both to one rate with --fps'
            )

    def real(self, num_frames: int) -> list[torch.Tensor]:
        """Points of real videos, evenly spread over the set; of each at least `num_frames` frames where it has them."""
        indices = _evenly(range(len(self.real_set)), RECORDED)
        return self._points(self.real_set, indices, max(num_frames, REAL_FRAMES // len(indices)), 'real videos')

    def videos(self, num_frames: int) -> list[torch.Tensor]:
        """Points [T, C] of fake videos; those that are too short are left out, and `too_short` says how many there were.

        Raises:
            InputError: None is long enough.
        """
        lengths = self.fake_set.num_frames
        enough = [index for index, length in enumerate(lengths) if length is None or length >= num_frames]
        self.too_short = len(lengths) - len(enough)
        if not enough:
            longest = max(length for length in lengths if length is not None)
            raise InputError(
                f'{self.metric} needs videos of {num_frames} frames, and the longest of these {len(lengths)} has '
                f'{longest}; choose a metric of a smaller length'
            )
        endless = lengths[enough[0]] is None
        indices = enough[:RENDERED] if endless else _evenly(enough, RECORDED)
        return self._points(self.fake_set, indices, num_frames, 'videos')

    def _points(self, video_set: Any, indices: Sequence[int], num_frames: int, what: str) -> list[torch.Tensor]:
        opts, digest = self.opts, video_set.sha256
        progress = opts.progress.sub(tag=f'{self.metric} {what}', num_items=len(indices))
        mine: dict[int, torch.Tensor] = {}
        for position, index in enumerate(indices):
            if position % opts.num_gpus != opts.rank:
                continue
            length = video_set.num_frames[index]
            points = _cache.get((digest, index), num_frames, length) if opts.cache else None
            if points is None:
                ready = getattr(video_set, 'points', None)  # a set that kept the points and not the frames
                points = ready(index)[:num_frames] if ready else stream_points(video_set, index, num_frames)
                if opts.cache:
                    _cache.put((digest, index), points)
            mine[position] = points
            progress.update(position + 1)
        if opts.num_gpus > 1:
            parts: list[Any] = [None] * opts.num_gpus
            torch.distributed.all_gather_object(parts, {position: points.numpy() for position, points in mine.items()})
            mine = {position: torch.from_numpy(points) for part in parts for position, points in part.items()}
        return [mine[position] for position in range(len(indices))]

    def results(self, results: dict[str, float]) -> dict[str, float]:
        """Named results, with what all of these metrics say of their inputs; the sets themselves go into the protocol."""
        protocol = self.opts.G_kwargs.get('protocol')
        if isinstance(protocol, dict):
            for side, videos in (('real', self.real_set), ('fake', self.fake_set)):
                protocol[side] = {**getattr(videos, 'description', {}), 'sha256': videos.sha256, 'fps': videos.fps}
        return named(self.metric, {**results, 'videos_too_short': self.too_short, 'real_videos': len(self.real_set)})


def _open(source: Any) -> Any:
    return dnnlib.util.construct_class_by_name(**source) if isinstance(source, dict) else source


def _evenly(items: Iterable[int], count: int) -> list[int]:
    items = list(items)
    return [items[place] for place in np.unique(np.linspace(0, len(items) - 1, min(len(items), count)).round().astype(int))]
