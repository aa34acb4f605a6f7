"""Two sets of videos frame by frame, where each video has a target of its own: reconstruction, prediction, compression.

A pair is two videos of one name (without its ending), or of one place in the order (`pairs='order'`). Every frame is
compared with the frame of the same number. A video's value is the mean over its frames, the result is the
mean over videos, so a long video counts as much as a short one.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from metrics.distances.bootstrap_interval import bootstrap_interval
from metrics.features.clip_features import in_parallel
from metrics.inputs.array_videos import ArrayVideos
from metrics.inputs.video_comparison import VideoPair
from metrics.inputs.video_set import VideoSet, same_rate
from metrics.metric_utils import MetricOptions
from networks.errors import DamagedVideo, InputError, option

PAIRS = ('name', 'order')

# Levels [n, H, W, C] of frames and of their targets, 0 to 255 -> n values.
Measure = Callable[[np.ndarray, np.ndarray], Sequence[float]]

# ----------------------------------------------------------------------------------------------------------------------


def match_videos(real: VideoSet, fake: VideoSet, rule: str = 'name') -> list[tuple[int, int]]:
    """Indices (real, fake) of the videos that belong together, in the order of the real ones.

    Args:
        real, fake: Sets of videos.
        rule: One of PAIRS. Videos in memory have no names and always go by their order, and so do two single videos.

    Raises:
        InputError: A video has no partner, or two have one name.
    """
    if rule not in PAIRS:
        raise InputError(f'{rule!r} is no rule for pairs of videos; there are {", ".join(PAIRS)}')
    nameless = isinstance(real, ArrayVideos) or isinstance(fake, ArrayVideos) or len(real) == len(fake) == 1
    if rule == 'order' or nameless:
        if len(real) != len(fake):
            raise InputError(f'there are {len(real)} real videos and {len(fake)} fake ones, so they are no pairs')
        return [(index, index) for index in range(len(real))]
    stems = [[os.path.splitext(name)[0] for name in videos.names] for videos in (real, fake)]
    for side, names in zip(('real', 'fake'), stems, strict=True):
        doubled = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if doubled is not None:
            raise InputError(f'two of the {side} videos are called {doubled!r}, so pairs cannot go by names; rename one of them')
    places = {name: index for index, name in enumerate(stems[1])}
    alone_real = [name for name in stems[0] if name not in places]
    alone_fake = [name for name in stems[1] if name not in set(stems[0])]
    if alone_real or alone_fake:
        raise InputError(
            f'{len(alone_real)} of the {len(stems[0])} real videos and {len(alone_fake)} of the {len(stems[1])} fake ones have '
            f'no partner of the same name, for example {(alone_real + alone_fake)[0]!r}; give both of a pair one name, or '
            f'compare them in their order ({option("pairs", "order")})'
        )
    return [(index, places[name]) for index, name in enumerate(stems[0])]


def match_lengths(
    real: VideoSet, fake: VideoSet, metric: str, num_frames: int | None, rule: str = 'name'
) -> list[tuple[int, int, int]]:
    """Indices (real, fake) of the videos that belong together, and how many of their frames are compared.

    Args:
        real, fake, rule: As of `match_videos`.
        metric: What compares them, for errors.
        num_frames: Frames from the first one on; None: all, and both have as many.

    Raises:
        InputError: As of `match_videos`, or a pair has two rates, two lengths, or fewer frames than that.
    """
    found = []
    for first, second in match_videos(real, fake, rule):
        _require_one_rate(real, fake, first, second)
        found.append((first, second, _length(real, fake, metric, first, second, num_frames)))
    return found


def compare_pairs(
    opts: MetricOptions, metric: str, measure: Measure, num_frames: int | None, batch: int, detector: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Results of a metric of pairs; `metric` has the mean over videos.

    Args:
        opts: MetricOptions, with both sets of videos.
        metric: Name of the metric.
        measure: What is measured.
        num_frames: Frames of each video, from the first one on; None: all, and both videos of a pair have as many.
        batch: Frames per call of `measure`; the last call of a video is filled up with its last frame.
        detector: What the protocol says of the network behind `measure`.

    Raises:
        InputError: The videos are no pairs, or have no equal lengths.
    """
    pair = VideoPair(opts, metric, same_size=False, one_rate=False)  # each pair has to agree, and no other
    matched = match_lengths(pair.real, pair.fake, metric, num_frames, pair.options.pairs)
    progress = opts.progress.sub(tag=metric, num_items=len(matched), flush_interval=max(len(matched) // 50, 1))
    mine: dict[int, list[float]] = {}
    sizes: set[tuple[int, int]] = set()
    error: str | None = None
    try:
        for place, (real, fake, length) in enumerate(matched):
            if place % opts.num_gpus == opts.rank:
                tasks = _noting(batches_of(pair.real, pair.fake, real, fake, length, batch), sizes)
                values = [float(value) for part in in_parallel(measure, tasks, opts.device) for value in part]
                mine[place] = values[:length]
                progress.update(place + 1)
    except InputError as raised:
        if opts.num_gpus == 1:
            raise
        error = str(raised)  # the other ranks wait for this one
    if opts.num_gpus > 1:
        parts: list[Any] = [None] * opts.num_gpus
        torch.distributed.all_gather_object(parts, (mine, error, sizes))
        for _, problem, _ in parts:
            if problem is not None:
                raise InputError(problem)
        mine = {place: values for part, _, _ in parts for place, values in part.items()}
        sizes = set().union(*(seen for _, _, seen in parts))
    pair.record(
        **{
            name: {
                **videos.description,
                'sha256': videos.sha256,
                'fps': None if videos.mixed_rates else videos.fps,
                'resolution': [list(size) for size in sorted(sizes)] if len(sizes) > 1 else list(videos.resolution),
            }
            for name, videos in (('real', pair.real), ('fake', pair.fake))
        },
        pairs=pair.options.pairs,
        frames=num_frames,
        batch=batch,
        mean='over the frames of a video, then over videos',
        **({} if detector is None else {'detector': detector}),
    )
    return summarise(metric, [mine[place] for place in range(len(matched))])


def summarise(metric: str, frames_of_videos: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Results of values by video and frame. What is not finite (PSNR of equal frames) is None, and counted."""
    videos = np.array([np.mean(values) for values in frames_of_videos])
    value = math.fsum(videos) / len(videos)  # rounded once: the same for any order
    results: dict[str, Any] = {metric: value if np.isfinite(value) else None}
    if np.isfinite(value) and len(videos) > 1:
        low, high = bootstrap_interval(np.sort(videos))
        results |= {f'{metric}_low': low, f'{metric}_high': high, f'{metric}_deviation': float(videos.std(ddof=1))}
    infinite = sum(int(np.isinf(values).sum()) for values in frames_of_videos)
    if infinite:
        results[f'{metric}_equal_frames'] = infinite
    return results | {f'{metric}_videos': len(videos), f'{metric}_frames': sum(map(len, frames_of_videos))}


def _require_one_rate(real_set: VideoSet, fake_set: VideoSet, real: int, fake: int) -> None:
    first, second = real_set.rate(real), fake_set.rate(fake)
    if first is not None and second is not None and not same_rate(first, second):
        raise InputError(
            f'{real_set.names[real]} has {first:g} frames per second and its partner {second:g}, so their frames do not belong '
            f'together; resample all to one rate with {option("fps")}'
        )


def _noting(
    batches: Iterator[tuple[np.ndarray, np.ndarray]], sizes: set[tuple[int, int]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for frames, targets in batches:
        sizes.add((frames.shape[1], frames.shape[2]))
        yield frames, targets


def _length(real_set: VideoSet, fake_set: VideoSet, metric: str, real: int, fake: int, num_frames: int | None) -> int:
    found = [videos.num_frames[index] for videos, index in ((real_set, real), (fake_set, fake))]
    name = real_set.names[real]
    if num_frames is None:
        first, second = found
        if first is None or second is None:
            raise InputError(f'{metric} compares pairs of videos, and these have no end; name a length, such as {metric}_16f')
        if first != second:
            shorter = min(first, second)
            raise InputError(
                f'{name} has {first} frames and its partner {second}; cut them to one length, or compare the first ones only, '
                f'for example by {metric}_{shorter}f (from Python: num_frames={shorter})'
            )
        return int(first)
    shortest = min((length for length in found if length is not None), default=num_frames)
    if shortest < num_frames:
        raise InputError(f'{metric} compares {num_frames} frames, and {name} or its partner has {shortest}; choose fewer')
    return num_frames


def batches_of(
    real_set: Any, fake_set: Any, real: int, fake: int, length: int, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of a fake video and of the real one as levels [batch, H, W, C] each; decoded one after the other.

    Raises:
        DamagedVideo: One of them ends before `length` frames.
    """
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(contextlib.closing(_levels(videos, index, length)))
            for videos, index in ((fake_set, fake), (real_set, real))
        ]
        for begin in range(0, length, batch):
            frames = [list(itertools.islice(stream, min(batch, length - begin))) for stream in streams]
            if min(map(len, frames)) < min(batch, length - begin):
                raise DamagedVideo(
                    f'{real_set.names[real]} or its partner ends before frame {length}; it is damaged or has changed'
                )
            (height, width), (other_height, other_width) = (side[0].shape[:2] for side in frames)
            if (height, width) != (other_height, other_width):
                smallest = option('resolution', str(min(height, width, other_height, other_width)))
                in_memory = isinstance(real_set, ArrayVideos) or isinstance(fake_set, ArrayVideos)
                raise InputError(
                    f'{real_set.names[real]} has {other_width}x{other_height} pixels and its partner {width}x{height}; bring '
                    f'both to one size {"before" if in_memory else f"with {smallest}"}'
                )
            first, second = (np.stack(side + [side[-1]] * (batch - len(side))) for side in frames)
            if first.shape != second.shape:  # grey beside colours: three equal colours
                first, second = (np.broadcast_to(levels, (*levels.shape[:3], 3)) for levels in (first, second))
            yield first, second


def _levels(videos: VideoSet, index: int, length: int) -> Any:
    return (videos.levels if isinstance(videos, ArrayVideos) else videos.frames_of_any_size)(index, range(length))
