"""Features of chosen clips: computed by all ranks together, in an order that does not depend on how many there are, and kept.

A detector is a module with
    num_features          D
    description           dict of JSON types, with `weights_sha256`
    resize_rule           how frames come to the network's size, in words
    smallest_num_frames   of a clip
    features(frames)      uint8 [N, T, H, W, 3] -> float32 [N, F, D]: F features a clip, 1 or one a frame
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

import dnnlib
from metrics.inputs.clip_choice import ClipChoice
from metrics.inputs.feature_parts import FeatureParts
from metrics.inputs.video_set import VideoSet
from metrics.metric_utils import MetricOptions
from networks.checkpoints.durable_files import replacing
from networks.errors import DAMAGED_FILE, DamagedVideo, InputError, option

CACHE_VERSION = 1
CACHE_FOLDER = 'video-features'
# What a batch that is measured takes: its frames as bytes and as numbers, at first in their own size, and the maps of a
# network for pictures of 224x224. Tensors of I3D: 65 MiB for 16 frames of 256x256, 318 MiB for 16 of 1024x1024.
BYTES_A_VALUE, BYTES_A_FRAME = 8, 8 << 20


class ClipFeatures:
    """Features of the clips of one set.

    Attributes:
        values: float32 [n, F, D], one row a clip, in the order of the choice; clips of damaged videos are missing.
        damaged: Name of the video -> what is wrong with it.
        cached: Whether they were kept from an earlier run.
    """

    def __init__(self, values: np.ndarray, damaged: dict[str, str], cached: bool = False) -> None:
        self.values, self.damaged, self.cached = values, damaged, cached


def clip_features(
    videos: VideoSet,
    choice: ClipChoice,
    detector: Any,
    opts: MetricOptions,
    *,
    tag: str,
    batch: int = 1,
    damaged: str = 'stop',
    memory: int | None = None,
    parts: FeatureParts | None = None,
) -> ClipFeatures:
    """Features of all chosen clips; all ranks call this together and all get all features.

    Neighbouring clips are computed `batch` at a time, the last batch is filled up, and whole batches are dealt out to the
    ranks: so every feature comes out of the same computation whatever the number of ranks is.

    Args:
        videos: A set of videos (metrics.inputs.video_set.VideoSet).
        choice: Its clips.
        detector: See above.
        opts: MetricOptions: num_gpus, rank, device, progress, cache.
        tag: What the progress says.
        batch: Clips per call of the detector.
        damaged: 'stop' at a video that cannot be read, or 'skip' its clips.
        memory: Bytes for the batches that are measured at a time on a CPU; None: as many as there are threads.
        parts: Where a share of the features goes, which are then the only ones that are returned, or where they all come from.

    Raises:
        InputError: A video is damaged, the detector returns numbers that are not finite, or shares are missing.
    """
    if parts is not None and parts.share is None:
        return ClipFeatures(*parts.collect(_key(videos, choice, detector, opts, batch, damaged), tag))
    if parts is not None:
        return _share(parts, videos, choice, detector, opts, tag=tag, batch=batch, damaged=damaged, memory=memory)
    path = None if videos.endless or not opts.cache else _cache_path(videos, choice, detector, opts, batch, damaged)
    kept = _load(path) if path is not None and opts.rank == 0 else None
    if opts.num_gpus > 1:
        kept = _broadcast(kept, opts)
    if kept is not None:
        return kept

    units = _units(choice, batch)
    begin, end = (len(units) * rank // opts.num_gpus for rank in (opts.rank, opts.rank + 1))
    progress = opts.progress.sub(tag=tag, num_items=sum(map(len, units[begin:end])), flush_interval=max(len(units) // 50, 1))
    error: str | None = None
    found = np.zeros([0, 1, detector.num_features], np.float32)
    broken: dict[str, str] = {}
    try:
        found, broken = _compute(videos, units[begin:end], choice, detector, opts, progress, batch, damaged, memory)
    except InputError as raised:
        if opts.num_gpus == 1:
            raise
        error = str(raised)  # the other ranks wait for this one: all of them have to hear of it
    if opts.num_gpus > 1:
        of_ranks: list[Any] = [None] * opts.num_gpus
        torch.distributed.all_gather_object(of_ranks, (found, broken, error))
        for _, _, problem in of_ranks:
            if problem is not None:
                raise InputError(problem)
        found = np.concatenate([values for values, _, _ in of_ranks])
        broken = {name: reason for _, names, _ in of_ranks for name, reason in names.items()}
    result = ClipFeatures(found, broken)
    if path is not None and opts.rank == 0:
        _save(path, result)
    return result


def _units(choice: ClipChoice, batch: int) -> list[Sequence[tuple[int, int]]]:
    """Clips that go through the detector together."""
    return [choice.clips[begin : begin + batch] for begin in range(0, len(choice.clips), batch)]


def _share(
    parts: FeatureParts,
    videos: VideoSet,
    choice: ClipChoice,
    detector: Any,
    opts: MetricOptions,
    *,
    tag: str,
    batch: int,
    damaged: str,
    memory: int | None,
) -> ClipFeatures:
    """The features of this job's share of the clips, which are written down as well; none where that was done before."""
    key = _key(videos, choice, detector, opts, batch, damaged)
    units = _units(choice, batch)
    begin, end = parts.bounds(len(units))
    if parts.written(key):
        return ClipFeatures(np.zeros([0, 1, detector.num_features], np.float32), {}, cached=True)
    progress = opts.progress.sub(tag=tag, num_items=sum(map(len, units[begin:end])), flush_interval=max(len(units) // 50, 1))
    found, broken = _compute(videos, units[begin:end], choice, detector, opts, progress, batch, damaged, memory)
    parts.write(key, found, broken)
    return ClipFeatures(found, broken)


def _compute(
    videos: VideoSet,
    units: Sequence[Sequence[tuple[int, int]]],
    choice: ClipChoice,
    detector: Any,
    opts: MetricOptions,
    progress: Any,
    batch: int,
    damaged: str,
    memory: int | None,
) -> tuple[np.ndarray, dict[str, str]]:
    broken: dict[str, str] = {}

    def read(wanted: Sequence[tuple[int, int]]) -> Iterator[np.ndarray | None]:
        return _read_clips(videos, wanted, choice, broken, damaged)

    def work(unit: Sequence[tuple[int, int]], clips: Sequence[np.ndarray | None] | None) -> np.ndarray:
        with torch.inference_mode():
            return _detect(videos, unit, list(read(unit)) if clips is None else clips, detector, opts, batch)

    rows: list[np.ndarray] = []
    clips = read(list(itertools.chain.from_iterable(units)))
    # Clips of one recording are read in one pass; generated videos have nothing in common, so each worker makes its own.
    tasks = ((unit, None if videos.endless else list(itertools.islice(clips, len(unit)))) for unit in units)
    one = batch * choice.num_frames * (BYTES_A_FRAME + BYTES_A_VALUE * 3 * math.prod(videos.resolution))
    most = None if memory is None else max(memory // one, 1)
    with contextlib.closing(in_parallel(work, tasks, opts.device, most)) as results:
        for features in results:
            rows.append(features)
            progress.update(min(len(rows) * batch, sum(map(len, units))))
    rows = [features for features in rows if len(features)]
    return (np.concatenate(rows) if rows else np.zeros([0, 1, detector.num_features], np.float32)), broken


def in_parallel(
    work: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], device: torch.device | str, most: int | None = None
) -> Generator[np.ndarray, None, None]:
    """Results of `work(*task)` in the order of the tasks.

    On a CPU every task runs on one thread, and as many run at a time as torch has threads, or `most`. That is faster than to
    share one clip among threads, and it makes the result the same for any number of them: sums are never split. Few tasks are
    taken ahead of those that are done, so memory does not grow with their number.
    """
    threads = torch.get_num_threads()
    workers = threads if most is None else min(threads, most)
    if torch.device(device).type != 'cpu':
        for task in tasks:
            yield work(*task)
        return
    torch.set_num_threads(1)
    try:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            waiting: collections.deque[concurrent.futures.Future[np.ndarray]] = collections.deque()
            try:
                for task in tasks:
                    waiting.append(pool.submit(work, *task))
                    if len(waiting) > workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
    finally:
        torch.set_num_threads(threads)


def _detect(
    videos: VideoSet,
    unit: Sequence[tuple[int, int]],
    clips: Sequence[np.ndarray | None],
    detector: Any,
    opts: MetricOptions,
    batch: int,
) -> np.ndarray:
    """Features [n, F, D] of the clips that could be read."""
    good = [place for place, clip in enumerate(clips) if clip is not None]
    if not good:
        return np.zeros([0, 1, detector.num_features], np.float32)
    filled = [clip for clip in clips if clip is not None]
    filled += [filled[-1]] * (batch - len(filled))
    found = detector.features(torch.from_numpy(np.stack(filled)).to(opts.device))[: len(good)].float().cpu()
    features = np.ascontiguousarray(found.numpy())  # later sums depend on the layout, which a way to another process changes
    for place, values in zip(good, features, strict=True):
        if not np.isfinite(values).all():
            video, start = unit[place]
            raise InputError(
                f'the features of {_name(videos, video)}, frames from {start} on, are not finite (NaN or infinity); '
                'the weights of the detector are damaged, or its device computes wrongly'
            )
    return features


def _read_clips(
    videos: VideoSet, wanted: Sequence[tuple[int, int]], choice: ClipChoice, broken: dict[str, str], damaged: str
) -> Iterator[np.ndarray | None]:
    """Clips uint8 [T, H, W, 3] in order, one pass over each video; None for those of a damaged one."""
    for video, group in itertools.groupby(wanted, key=lambda clip: clip[0]):
        starts = [start for _, start in group]
        done = 0
        try:
            for clip in videos.clips(video, starts, choice.num_frames, choice.stride):
                yield clip
                done += 1
        except DamagedVideo as error:
            if damaged != 'skip':
                raise DamagedVideo(
                    f'{error}; repair or remove it, or leave damaged videos out with {option("damaged", "skip")}'
                ) from error
            broken[_name(videos, video)] = str(error)
            yield from itertools.repeat(None, len(starts) - done)


def _name(videos: VideoSet, index: int) -> str:
    return videos.names[index] if index < len(videos.names) else f'video {index}'


# ----------------------------------------------------------------------------
# Keeping.


def _cache_path(videos: VideoSet, choice: ClipChoice, detector: Any, opts: MetricOptions, batch: int, damaged: str) -> str:
    return dnnlib.make_cache_dir_path(CACHE_FOLDER, _key(videos, choice, detector, opts, batch, damaged) + '.npz')


def _key(videos: VideoSet, choice: ClipChoice, detector: Any, opts: MetricOptions, batch: int, damaged: str) -> str:
    """Name of the features of these clips: another one for whatever could change a number."""
    content = {
        'version': CACHE_VERSION,
        'videos': videos.sha256,
        'detector': detector.description['weights_sha256'],
        'resize': detector.resize_rule,
        'clips': hashlib.sha256(json.dumps(choice.clips).encode()).hexdigest(),
        'frames': choice.num_frames,
        'stride': choice.stride,
        'batch': batch,
        'damaged': damaged,
        'torch': str(torch.__version__),
        'device': torch.device(opts.device).type,
        'resolution': list(videos.resolution),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f'{detector.description["name"].lower()}-{digest[:32]}'


def _load(path: str) -> ClipFeatures | None:
    try:
        with np.load(path, allow_pickle=False) as content:
            values, damaged, digest = content['values'], str(content['damaged']), str(content['sha256'])
        if digest == _digest(values, damaged):
            return ClipFeatures(values, json.loads(damaged), cached=True)
    except (*DAMAGED_FILE, OSError):
        pass  # not there, or damaged: it is computed again
    return None


def _save(path: str, features: ClipFeatures) -> None:
    """A cache that cannot be written costs time, not the result."""
    damaged = json.dumps(features.damaged)
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        digest = _digest(features.values, damaged)
        with replacing(path) as temporary, open(temporary, 'wb') as file:
            np.savez(file, values=features.values, damaged=np.array(damaged), sha256=np.array(digest))


def _digest(values: np.ndarray, damaged: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes() + damaged.encode()).hexdigest()


def _broadcast(value: Any, opts: MetricOptions) -> Any:
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0, device=opts.device)
    return values[0]
