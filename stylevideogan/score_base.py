"""What all scores share: the number that comes back, the sets that people mean, and any metric of the command by name."""

from __future__ import annotations

import functools
import math
import numbers
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from metrics import metric_main, metric_utils
from metrics.discovery import find_metric
from metrics.inputs.array_videos import ArrayVideos
from metrics.inputs.frame_layouts import ValueRange, split_videos
from metrics.inputs.video_comparison import VideoOptions
from metrics.inputs.video_set import VideoSet
from networks.errors import InputError, option
from training.temporal_snapshot import versions
from training.videos import recorded_videos

# ----------------------------------------------------------------------------
# What comes back


class Score(float):
    """A number that knows how it was made.

    Attributes:
        name: Of the metric, as calc_metrics_video.py calls it.
        interval: (low, high), 95 %, or None where there is none.
        results: Everything that belongs to the number, by name.
        protocol: What decides it: both sets, clips, seed, network with sha256, versions.
    """

    name: str
    interval: tuple[float, float] | None
    results: dict[str, Any]
    protocol: dict[str, Any]

    def __new__(cls, name: str, results: dict[str, Any], protocol: dict[str, Any]) -> Score:
        value = results.get(name)
        if value is None:
            value = results.get(f'{name}_rank_deficient')
        if value is None:
            value = float('inf') if results.get(f'{name}_equal_frames') else float('nan')
        score = super().__new__(cls, value)
        low, high = results.get(f'{name}_low'), results.get(f'{name}_high')
        score.name, score.results, score.protocol = name, results, protocol
        score.interval = (low, high) if low is not None and high is not None else None
        return score

    def __reduce__(self) -> Any:
        return Score, (self.name, self.results, self.protocol)


# ----------------------------------------------------------------------------
# Sets of videos

# What every score takes for a set, see stylevideogan.scores: a path, an array or a tensor, several of these, or a set of videos.
Videos = str | os.PathLike[str] | np.ndarray | torch.Tensor | Iterable[Any] | VideoSet


def measure(
    name: str,
    real: Videos,
    fake: Videos,
    options: VideoOptions,
    *,
    layout: str | None = None,
    value_range: ValueRange | None = None,
    fps: float | None = None,
    resolution: int | None = None,
    device: str | torch.device = 'auto',
    cache: bool = True,
    progress: bool = False,
    images: bool = False,
    alone: bool = False,
) -> Score:
    """Any metric of two sets of videos, by its name in calc_metrics_video.py.

    Args:
        name: For example 'fvd500_16f' or 'drift_200f'.
        real: A set, see above.
        fake: The other one.
        options: How they are compared.
        layout: Axes of arrays, one of metrics.inputs.frame_layouts.LAYOUTS.
        value_range: Black and white of arrays in floating point.
        fps: Rate in frames per second that video files are resampled to, and that arrays are said to have.
        resolution: Frames of files are cut to their central square and brought to this size.
        device: Where networks run; 'auto' takes a GPU if there is one.
        cache: Keep features of files on the disk, and use kept ones.
        progress: Report on standard error.
        images: Arrays may be images.
        alone: This rank computes by itself, whatever others there are.

    Raises:
        InputError: The sets cannot be read or compared.
    """
    if find_metric(name) is None:
        raise InputError(f'there is no metric {name!r}')
    rank, num_ranks = (0, 1) if alone else ranks_of_functions()
    where = choose_device(device)
    opened = functools.partial(
        open_set, layout=layout, value_range=value_range, fps=fps, resolution=resolution, damaged=options.damaged, cache=cache,
        images=images, device=where,
    )  # fmt: skip
    protocol: dict[str, Any] = {'metric': name, 'versions': versions()}
    found = metric_main.calc_metric(
        metric=name, num_gpus=num_ranks, rank=rank, device=where, cache=cache,
        progress=metric_utils.ProgressMonitor(verbose=progress),
        G_kwargs={'real_videos': opened(real, name='real'), 'fake_videos': opened(fake, name='fake'), 'video_options': options,
                  'protocol': protocol, 'tell': tell},
    )  # fmt: skip
    return Score(name, dict(found.results), {**protocol, 'device': str(where), 'num_ranks': num_ranks})


def ranks_of_functions() -> tuple[int, int]:
    """This rank and how many there are: those of torch.distributed, where it is initialised."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def tell(sentence: str) -> None:
    """Pass on what a reader of a result has to know, as Python's warnings do."""
    warnings.warn(sentence, stacklevel=2)


def open_set(
    source: Any,
    *,
    name: str,
    layout: str | None,
    value_range: ValueRange | None,
    fps: float | None,
    resolution: int | None,
    damaged: str,
    cache: bool,
    images: bool,
    device: str | torch.device,
) -> VideoSet:
    """The set of videos that somebody means by a path, an array, or a list of paths or of arrays.

    Raises:
        InputError: It is none.
    """
    if isinstance(source, VideoSet):
        return source
    if isinstance(source, Mapping):
        raise InputError(f'{name}: a {type(source).__name__} is no set of videos; give a list of its values')
    if resolution is not None:
        whole_number('resolution', resolution)
    recorded: dict[str, Any] = {'fps': fps, 'resolution': resolution, 'damaged': damaged, 'cache': cache}
    if isinstance(source, (list, tuple)) and any(isinstance(item, (str, os.PathLike)) for item in source):
        if not all(isinstance(item, (str, os.PathLike)) for item in source):
            raise InputError(f'{name}: paths and arrays are mixed in one list; give paths only, or arrays only')
        return recorded_videos.RecordedVideos(source, **recorded)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        rendered = {
            'resolution': resolution,
            'device': str(choose_device(device)),
            'trust_pickle': False,
            'image_generator': None,
        }
        kwargs = recorded_videos.source_kwargs(path, recorded=recorded, rendered=rendered)
        return getattr(recorded_videos, kwargs.pop('kind'))(**kwargs)
    if resolution is not None:
        raise InputError('resolution= is for files; bring arrays to one size before')
    if fps is not None and not (isinstance(fps, numbers.Real) and math.isfinite(fps) and fps > 0):
        raise InputError(f'fps={fps!r} is no rate; give frames per second, a number above 0')
    return ArrayVideos(split_videos(source, layout, value_range, images=images), value_range, fps=fps, name=name)


def choose_device(name: str | torch.device) -> torch.device:
    """The device of that name; 'auto' is a GPU if there is one.

    Raises:
        InputError: There is none of that name on this machine.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch has several for a missing back end
        reason = ' '.join(str(error).split())[:200]
        raise InputError(f'device={name!r} cannot be used on this machine ({reason}); try {option("device", "cpu")}') from error
    return device


def whole_number(name: str, value: object, least: int = 1) -> int:
    """`value`, if it is a whole number of at least `least`.

    Raises:
        InputError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f'{name}={value!r}: a whole number of at least {least} is needed')
    return int(value)
