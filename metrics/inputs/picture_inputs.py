"""What metrics of pictures are computed of: two sets of videos (video_comparison.py), as points of frame_points.py."""

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from metrics.families import named
from metrics.inputs.frame_points import stream_points
from metrics.inputs.video_comparison import VideoPair
from metrics.inputs.video_set import VideoSet
from metrics.metric_utils import MetricOptions
from networks.errors import InputError

RENDERED = 16  # videos of an endless set, from its first one on
RECORDED = 64  # videos of a recorded set, evenly spread over it
REAL_FRAMES = 32768  # of a real set of videos, all together; 384 MiB
CACHE_BYTES = 1 << 30


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

    def __init__(self, opts: MetricOptions, metric: str) -> None:
        pair = VideoPair(
            opts, metric, same_size=False, instead=f'take {metric.replace("_", "_latent_", 1)}, which needs codes only'
        )
        self.opts, self.metric, self._pair = opts, metric, pair
        self.real_set, self.fake_set = pair.real, pair.fake
        self.fps = float(self.real_set.fps)

    def real(self, num_frames: int) -> list[torch.Tensor]:
        """Points of real videos, evenly spread over the set; of each at least `num_frames` frames where it has them."""
        indices = _evenly(range(len(self.real_set)), RECORDED)
        return self._points(self.real_set, indices, max(num_frames, REAL_FRAMES // len(indices)), 'real videos')

    def require(self, num_frames: int, count: int) -> None:
        """Refuse fewer than `count` videos of `num_frames` frames, before any of them is decoded.

        Raises:
            InputError: There are too few.
        """
        lengths = self.fake_set.num_frames
        enough = sum(length is None or length >= num_frames for length in lengths)
        if enough < count:
            raise InputError(
                f'{self.metric} needs {count} videos of {num_frames} frames, and {enough} of these {len(lengths)} have as many'
            )

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

    def _points(self, video_set: VideoSet, indices: Sequence[int], num_frames: int, what: str) -> list[torch.Tensor]:
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
        sides = (('real', self.real_set), ('fake', self.fake_set))
        self._pair.record(
            **{side: {**getattr(videos, 'description', {}), 'sha256': videos.sha256, 'fps': videos.fps} for side, videos in sides}
        )
        return named(self.metric, {**results, 'videos_too_short': self.too_short, 'real_videos': len(self.real_set)})


def _evenly(items: Iterable[int], count: int) -> list[int]:
    items = list(items)
    return [items[place] for place in np.unique(np.linspace(0, len(items) - 1, min(len(items), count)).round().astype(int))]
