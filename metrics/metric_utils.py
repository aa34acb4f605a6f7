"""What metrics share: their options, feature detectors, statistics of features, progress."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pathlib
import pickle
import sys
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

import dnnlib

from .feature_stats import FeatureStats

__all__ = [
    'FeatureStats',
    'MetricOptions',
    'ProgressMonitor',
    'compute_feature_stats_for_dataset',
    'compute_feature_stats_for_generator',
    'get_feature_detector',
    'get_feature_detector_name',
    'iterate_random_labels',
]

_detectors: dict[tuple[str, str], Any] = {}  # (url, device) -> detector

# ----------------------------------------------------------------------------
# Options.


class MetricOptions:
    """What a metric is to measure, and with what."""

    G_kwargs: dnnlib.EasyDict
    dataset_kwargs: dnnlib.EasyDict

    def __init__(
        self,
        G: torch.nn.Module | None = None,  # Generator.
        G_kwargs: dict[str, Any] | None = None,  # Keyword arguments of its calls.
        dataset_kwargs: dict[str, Any] | None = None,  # Data set: class_name and the arguments of the constructor.
        num_gpus: int = 1,  # Number of ranks that compute together.
        rank: int = 0,  # This rank.
        device: torch.device | str | None = None,  # Where to compute; None = the rank's GPU if there is one.
        progress: ProgressMonitor | None = None,  # Where to report progress, rank 0 only.
        cache: bool = True,  # Keep statistics of data sets, and use kept ones.
    ) -> None:
        if rank not in range(num_gpus):
            raise ValueError(f'MetricOptions: rank {rank} of {num_gpus} does not exist')
        has_gpu = torch.cuda.is_available()
        self.device = torch.device(device if device is not None else f'cuda:{rank}' if has_gpu else 'cpu')
        self.num_gpus, self.rank = num_gpus, rank
        reports = progress is not None and rank == 0
        self.progress = progress.sub() if reports else ProgressMonitor()  # type: ignore[union-attr]
        self.cache = cache
        self.G: Any = G  # whatever the metric measures
        for name, options in {'G_kwargs': G_kwargs, 'dataset_kwargs': dataset_kwargs}.items():
            setattr(self, name, dnnlib.EasyDict(options or {}))


# ----------------------------------------------------------------------------
# Feature detectors.


def get_feature_detector_name(url: str) -> str:
    """Return the last part of the address without its ending."""
    return pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).stem


def get_feature_detector(
    url: str, device: torch.device | str = 'cpu', num_gpus: int = 1, rank: int = 0, verbose: bool = False
) -> Any:
    """Return the network at `url`, loaded once for each device.

    Files that end in `.pkl` are unpickled, which runs what they hold; all others are TorchScript. With several ranks,
    rank 0 downloads the file and the others wait for it.
    """
    key = (url, str(torch.device(device)))
    if key not in _detectors:
        if num_gpus > 1 and rank > 0:
            torch.distributed.barrier()
        with dnnlib.util.open_url(url, verbose=verbose and rank == 0) as file:
            if urllib.parse.urlsplit(url).path.lower().endswith('.pkl'):
                detector = pickle.load(file).to(device)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore', DeprecationWarning)  # TorchScript is on its way out, such files stay
                    detector = torch.jit.load(io.BytesIO(file.read()), map_location=torch.device(device))
        _detectors[key] = detector.eval()
        if num_gpus > 1 and rank == 0:
            torch.distributed.barrier()
    return _detectors[key]


# ----------------------------------------------------------------------------
# Progress.


class ProgressMonitor:
    """Reports how far a computation is: a line on standard error, or a call of `progress_fn(position, total)`."""

    def __init__(
        self,
        tag: str | None = None,  # Name of the computation.
        num_items: int | None = None,  # How many items there will be, if known.
        flush_interval: int = 1000,  # Report every so many items.
        verbose: bool = False,  # Print lines.
        progress_fn: Callable[[float, float], Any] | None = None,
        pfn_lo: float = 0,  # Position of the first item,
        pfn_hi: float = 1000,  # of the last item,
        pfn_total: float = 1000,  # and of the end.
    ) -> None:
        self.tag, self.num_items, self.flush_interval = tag, num_items, flush_interval
        self.verbose, self.progress_fn = verbose, progress_fn
        self.pfn_lo, self.pfn_hi, self.pfn_total = pfn_lo, pfn_hi, pfn_total
        self.start_time = self.batch_time = time.time()
        self.batch_items = 0
        if progress_fn is not None:
            progress_fn(pfn_lo, pfn_total)

    def update(self, cur_items: int) -> None:
        """Say that `cur_items` items are done."""
        is_last = self.num_items is not None and cur_items >= self.num_items
        if cur_items < self.batch_items + self.flush_interval and not is_last:
            return
        now = time.time()
        if self.verbose and self.tag is not None:
            per_item = (now - self.batch_time) / max(cur_items - self.batch_items, 1)
            text = f'{self.tag:<19s} items {cur_items:<7d} time {dnnlib.util.format_time(now - self.start_time):<12s}'
            text += f' ms/item {per_item * 1e3:<8.2f}'
            if self.num_items is not None and cur_items:
                left = (now - self.start_time) / cur_items * max(self.num_items - cur_items, 0)
                text += f' left {dnnlib.util.format_time(left)}'
            print(text, file=sys.stderr, flush=True)
        self.batch_time, self.batch_items = now, cur_items
        if self.progress_fn is not None and self.num_items:
            share = min(cur_items / self.num_items, 1)
            self.progress_fn(self.pfn_lo + (self.pfn_hi - self.pfn_lo) * share, self.pfn_total)

    def sub(
        self,
        tag: str | None = None,
        num_items: int | None = None,
        flush_interval: int = 1000,
        rel_lo: float = 0,
        rel_hi: float = 1,
    ) -> ProgressMonitor:
        """Return the monitor of a part that takes the share from `rel_lo` to `rel_hi` of this one."""
        span = self.pfn_hi - self.pfn_lo
        return ProgressMonitor(
            tag,
            num_items,
            flush_interval,
            self.verbose,
            self.progress_fn,
            self.pfn_lo + span * rel_lo,
            self.pfn_lo + span * rel_hi,
            self.pfn_total,
        )


# ----------------------------------------------------------------------------
# Features of a data set.


def compute_feature_stats_for_dataset(
    opts: MetricOptions,
    detector_url: str,  # Network that turns images into features.
    detector_kwargs: dict[str, Any],  # Keyword arguments of its calls.
    rel_lo: float = 0,  # Share of the progress at the beginning,
    rel_hi: float = 1,  # and at the end.
    batch_size: int = 64,  # Images per call, on each rank.
    data_loader_kwargs: dict[str, Any] | None = None,  # Of torch.utils.data.DataLoader; None = 3 workers.
    max_items: int | None = None,  # Use the first so many images only; None = use all.
    **stats_kwargs: Any,  # Of FeatureStats.
) -> FeatureStats:
    """Return the statistics of the features of the images of the data set that `opts` names.

    Kept statistics are used again only if the data (names, sizes and times of its files), the arguments of the data set,
    the detector and all other arguments are the same.
    """
    dataset = dnnlib.util.construct_class_by_name(**opts.dataset_kwargs)
    num_items = len(dataset) if max_items is None else min(len(dataset), max_items)
    cache_file = _cache_path(dataset, opts.dataset_kwargs, detector_url, detector_kwargs, num_items, stats_kwargs)
    if opts.cache and _agree_with_rank_0(os.path.isfile(cache_file), opts):
        return FeatureStats.load(cache_file)

    progress = opts.progress.sub(tag='dataset features', num_items=num_items, rel_lo=rel_lo, rel_hi=rel_hi)
    detector = get_feature_detector(detector_url, opts.device, opts.num_gpus, opts.rank, verbose=progress.verbose)
    stats = FeatureStats(max_items=num_items, **stats_kwargs)
    if data_loader_kwargs is None:
        data_loader_kwargs = {'num_workers': 3, 'prefetch_factor': 2, 'pin_memory': opts.device.type == 'cuda'}
    # every rank takes as many images; beyond the last one they start over, and FeatureStats ignores the surplus
    rounds = -(-num_items // opts.num_gpus)
    subset = [(index * opts.num_gpus + opts.rank) % num_items for index in range(rounds)]
    loader: Any = torch.utils.data.DataLoader(dataset, sampler=subset, batch_size=batch_size, **data_loader_kwargs)
    _collect((images for images, _ in loader), detector, detector_kwargs, stats, opts, progress)
    if opts.cache and opts.rank == 0:
        stats.save(cache_file)
    return stats


@torch.no_grad()
def _collect(
    batches: Iterable[torch.Tensor],
    detector: Any,
    detector_kwargs: dict[str, Any],
    stats: FeatureStats,
    opts: MetricOptions,
    progress: ProgressMonitor,
) -> None:
    """Put the features of images, uint8 [N, C, H, W] with C = 3 or 1, into the statistics until those are full."""
    for images in batches:
        images = images.to(opts.device)
        features = detector(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images, **detector_kwargs)
        stats.append_torch(features, opts.num_gpus, opts.rank)
        progress.update(stats.num_items)
        if stats.is_full():
            break


def _cache_path(dataset: Any, *parts: Any) -> str:
    """Return the name of the file for statistics that depend on `parts`; the second one is the detector's URL."""
    strings = [
        value for part in parts for value in (part.values() if isinstance(part, dict) else [part]) if isinstance(value, str)
    ]
    files = [_fingerprint(value) for value in strings if os.path.exists(value)]
    key = json.dumps([parts, files], sort_keys=True, default=str).encode('utf-8')
    name = f'{getattr(dataset, "name", type(dataset).__name__)}-{get_feature_detector_name(parts[1])}'
    return dnnlib.make_cache_dir_path('gan-metrics', f'{name}-{hashlib.blake2b(key, digest_size=16).hexdigest()}.pkl')


def _fingerprint(path: str) -> str:
    """Return a digest of the names, sizes and times of change of a file, or of all files of a folder."""
    names = [path]
    if os.path.isdir(path):
        names = sorted(found for found, _ in dnnlib.util.list_dir_recursively_with_ignore(path))
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        status = os.stat(name)
        digest.update(f'{os.path.relpath(name, path)} {status.st_size} {status.st_mtime_ns}\n'.encode())
    return digest.hexdigest()


def _agree_with_rank_0(value: bool, opts: MetricOptions) -> bool:
    if opts.num_gpus == 1:
        return value
    flag = torch.tensor(float(value), device=opts.device)
    torch.distributed.broadcast(flag, src=0)
    return bool(flag.item())


# ----------------------------------------------------------------------------
# Features of a generator.


def iterate_random_labels(opts: MetricOptions, batch_size: int) -> Iterator[torch.Tensor]:
    """Yield labels [batch_size, c_dim]: of random images of the data set, or empty ones for an unconditional G."""
    c_dim = getattr(opts.G, 'c_dim', 0)
    if c_dim == 0:
        empty = torch.zeros([batch_size, 0], device=opts.device)
        while True:
            yield empty
    dataset = dnnlib.util.construct_class_by_name(**opts.dataset_kwargs)
    while True:
        labels = np.stack([dataset.get_label(np.random.randint(len(dataset))) for _ in range(batch_size)])
        yield torch.from_numpy(labels).to(opts.device)


def compute_feature_stats_for_generator(
    opts: MetricOptions,
    detector_url: str,  # Network that turns images into features.
    detector_kwargs: dict[str, Any],  # Keyword arguments of its calls.
    rel_lo: float = 0,  # Share of the progress at the beginning,
    rel_hi: float = 1,  # and at the end.
    batch_size: int = 64,  # Images per call of the detector, on each rank.
    batch_gen: int | None = None,  # Images per call of the generator; None = 4 at the most.
    jit: bool = False,  # Trace the generator once instead of running its Python code each time.
    **stats_kwargs: Any,  # Of FeatureStats; needs max_items.
) -> FeatureStats:
    """Return the statistics of the features of images of random z (and random labels) from a copy of `opts.G`.

    Images in [-1, 1] become uint8 as everywhere: clamp(127.5 x + 128, 0, 255).
    """
    if opts.G is None:
        raise ValueError('compute_feature_stats_for_generator: the options name no generator')
    batch_gen = min(batch_size, 4) if batch_gen is None else batch_gen
    if batch_size % batch_gen:
        raise ValueError(f'batch_size {batch_size} is no multiple of batch_gen {batch_gen}')
    stats = FeatureStats(**stats_kwargs)
    if stats.max_items is None:
        raise ValueError('compute_feature_stats_for_generator: say how many images with max_items=')
    G = copy.deepcopy(opts.G).eval().requires_grad_(False).to(opts.device)
    z_dim: int = G.z_dim  # type: ignore[assignment]
    labels = iterate_random_labels(opts, batch_gen)

    def generate(z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return torch.clamp(G(z, c, **opts.G_kwargs) * 127.5 + 128, 0, 255).byte()

    run: Callable[..., torch.Tensor] = generate
    if jit:
        run = torch.jit.trace(generate, (torch.zeros([batch_gen, z_dim], device=opts.device), next(labels)), check_trace=False)
    progress = opts.progress.sub(tag='generator features', num_items=stats.max_items, rel_lo=rel_lo, rel_hi=rel_hi)
    detector = get_feature_detector(detector_url, opts.device, opts.num_gpus, opts.rank, verbose=progress.verbose)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            parts = [
                run(torch.randn([batch_gen, z_dim], device=opts.device), next(labels)) for _ in range(batch_size // batch_gen)
            ]
            yield torch.cat(parts)

    with torch.no_grad():
        _collect(batches(), detector, detector_kwargs, stats, opts, progress)
    return stats
