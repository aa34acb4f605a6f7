"""Numbers for the page of a run: how alive and how real videos are far from their beginning, and whether they copy.

Everything is measured on codes, in principal components of those of the footage, so no picture has to be rendered. Two passes of
the latent generator are enough: one of many videos, windows of which are kept at every depth, and one of few, kept for a minute.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from metrics.inputs.latent_windows import generate_windows
from networks.errors import InputError
from plugins.latent_kernel_distance import LatentKernelDistance
from plugins.latent_stationarity import Stationarity, autocorrelation

WINDOW = 25  # frames
VIDEOS = 1024  # a variance of fewer is not known to better than a tenth
LONG_VIDEOS = 64
FIRST_SEED = 10_000  # other seeds than those that people look at first
MINUTE = 60.0  # seconds
LAGS = 10.0  # seconds
NEAREST_VIDEOS = 256
NEAREST_REAL = 4000  # windows of the footage that are searched, evenly spread
APART = 10.0  # seconds, from which on two moments of the footage are different moments
PAIRS = 4
COMPONENTS = 3


@dataclasses.dataclass(frozen=True)
class Depth:
    """What videos are like from one frame on.

    Attributes:
        frame: Counted from the end of the burn-in.
        motion_distance, codes_distance: Kernel distances to the footage, see plugins/latent_kernel_distance.py.
        speed: Root mean square of the steps from frame to frame, as a part of the footage's.
        variances: Of the leading components, as parts of the footage's.
    """

    frame: int
    motion_distance: float
    codes_distance: float
    speed: float
    variances: list[float]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A generated moment and the moment of the footage that is nearest to it.

    Attributes:
        seed, frame: Of the middle of the generated window.
        clip, real_frame: Of the middle of the real one.
        distance: Of the two, in units of the median distance of real windows to their own nearest ones.
    """

    seed: int
    frame: int
    clip: int
    real_frame: int
    distance: float


@dataclasses.dataclass(frozen=True)
class Nearness:
    """Whether the model copies.

    Attributes:
        ratio: Median distance of generated windows to the nearest real ones over that of real windows to the nearest real ones
            that are another moment; below 1 they are nearer to the footage than it is to itself.
        nearer_than_real: Share of generated windows that are nearer to the footage than all but one percent of real ones.
        pairs: The generated windows that are nearest.
        apart_seconds: What counts as another moment.
        frame: Where the generated windows begin.
    """

    ratio: float
    nearer_than_real: float
    pairs: list[Pair]
    apart_seconds: float
    frame: int


@dataclasses.dataclass(frozen=True)
class Measures:
    """All of it.

    Attributes:
        fps: Frames per second.
        depths: In order.
        floor: Kernel distances of motion and of codes between two halves of the footage, which 95 % of the splits stay below.
        lags: Seconds, [n].
        autocorrelations: By name of the curve, [n] each; NaN where the footage is too short to tell.
        real_tracks: Leading components of the longest clips, each [T, COMPONENTS].
        tracks: Of generated videos, each [T, COMPONENTS], a minute long.
        nearness: Whether it copies.
        videos: How many were measured.
    """

    fps: float
    depths: list[Depth]
    floor: tuple[float, float]
    lags: np.ndarray
    autocorrelations: dict[str, np.ndarray]
    real_tracks: list[np.ndarray]
    tracks: list[np.ndarray]
    nearness: Nearness
    videos: int


class _TwoSpaces:
    """Coordinates of the kernel distance and components of the stationarity, side by side, for one pass."""

    def __init__(self, first: Any, second: Any) -> None:
        self._spaces = (first, second)

    def projection_of(self, generator: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function l [N, latent_dim] -> [N, both]."""
        projections = [space.projection_of(generator) for space in self._spaces]
        return lambda l: torch.cat([projection(l).float() for projection in projections], dim=1)


def measure(
    generator: Any,
    clips: Sequence[np.ndarray],
    fps: float,
    depths: Sequence[int],
    *,
    videos: int = VIDEOS,
    advance: Callable[[str], None] = lambda what: None,
    keep: Callable[[str, Callable[[], list[torch.Tensor]]], list[torch.Tensor]] = lambda name, make: make(),
) -> Measures:
    """Measure the videos of a latent generator.

    Args:
        generator: Latent generator, on the CPU.
        clips: Codes that it was trained on, each [T, num_ws, w_dim].
        fps: Frames per second.
        depths: Frames at which to look, rising.
        videos: How many.
        advance: Told what comes next.
        keep: Called with a name and a function that makes tensors, which an interrupted run may have left.

    Raises:
        InputError: too little footage, or depths that lie less than a window apart.
    """
    for before, after in itertools.pairwise(depths):
        if after - before < WINDOW:
            raise InputError(f'--depths: {before} and {after} lie less than {WINDOW} frames apart')
    advance('the footage')
    kernel = LatentKernelDistance(clips)
    alive = Stationarity(clips, fps)
    size = kernel.space.num_components + 1
    real = [alive.components.project(clip) for clip in clips]
    step = _rms_step(real)
    advance(f'{videos} videos at {len(depths)} depths')
    space = _TwoSpaces(kernel.space, alive.components)
    places = [(depth, WINDOW) for depth in depths]
    passes = []
    for first in range(FIRST_SEED, FIRST_SEED + videos, VIDEOS):
        seeds = range(first, min(first + VIDEOS, FIRST_SEED + videos))
        make = functools.partial(_all_windows, generator, space, seeds, places)
        passes.append(keep(f'videos-{first}-{len(seeds)}', make))
    found, near = [], torch.zeros(0)
    moment = max((depth for depth in depths if depth <= 1000), default=depths[0])
    result: dict[str, float] = {}
    for depth, parts in zip(depths, zip(*passes, strict=True), strict=True):
        windows = torch.cat(parts)
        result = kernel.compare(windows[..., :size])
        own = windows[..., size:]
        found.append(
            Depth(depth, result['distance'], result['codes_distance'], _rms_step(list(own)) / step, alive.variance_ratios(own))
        )
        near = own[:NEAREST_VIDEOS] if depth == moment else near
    advance('a minute of some videos')
    minute = round(MINUTE * fps)
    late = max(depths[-1], minute)
    seeds = range(FIRST_SEED, FIRST_SEED + LONG_VIDEOS)
    make = functools.partial(_all_windows, generator, alive.components, seeds, [(0, minute), (late, minute)])
    first_minute, last_minute = keep(f'minutes-{len(seeds)}', make)
    longest = max(real, key=len)
    frames = np.unique(np.linspace(1, round(LAGS * fps), 50).round().astype(int))
    curves = {
        'footage': np.array([_real_autocorrelation(longest, int(lag)) for lag in frames]),
        'first minute': np.array([autocorrelation(first_minute.double(), int(lag)) for lag in frames]),
        f'minute from frame {late} on': np.array([autocorrelation(last_minute.double(), int(lag)) for lag in frames]),
    }
    advance('the nearest moments of the footage')
    return Measures(
        fps=fps,
        depths=found,
        floor=(result.get('null_high', math.nan), result.get('codes_null_high', math.nan)),
        lags=frames / fps,
        autocorrelations=curves,
        real_tracks=[track[:minute, :COMPONENTS].numpy() for track in sorted(real, key=len, reverse=True)[:3]],
        tracks=[track[:, :COMPONENTS].numpy() for track in first_minute[:3]],
        nearness=nearest_moments(near, real, fps, moment),
        videos=videos,
    )


def _all_windows(generator: Any, space: Any, seeds: Sequence[int], places: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    return list(generate_windows(generator, space, seeds, places))


def _rms_step(tracks: Sequence[torch.Tensor]) -> float:
    squares = [torch.diff(track.double(), dim=0).square().sum(dim=1) for track in tracks]
    return float(torch.cat(squares).mean().sqrt())


def _real_autocorrelation(track: torch.Tensor, lag: int) -> float:
    return autocorrelation(track[None].double(), lag) if lag <= len(track) / 2 else math.nan


def nearest_moments(windows: torch.Tensor, real: Sequence[torch.Tensor], fps: float, frame: int) -> Nearness:
    """Compare generated windows with the footage.

    Args:
        windows: Components [N, WINDOW, C] of generated windows; window k is that of seed FIRST_SEED + k.
        real: Components [T, C] of each clip.
        fps: Frames per second.
        frame: Where the generated windows begin.

    Raises:
        InputError: no clip is as long as a window.
    """
    places = [(clip, begin) for clip, track in enumerate(real) for begin in range(len(track) - WINDOW + 1)]
    if not places:
        raise InputError(f'no clip of the footage has {WINDOW} frames, so there is nothing to compare with')
    chosen = [places[index] for index in np.unique(np.linspace(0, len(places) - 1, NEAREST_REAL).round().astype(int))]
    cut = torch.stack([real[clip][begin : begin + WINDOW] for clip, begin in chosen]).flatten(1).double()
    # A recording of half a minute has no moments ten seconds apart to spare.
    apart = min(APART, max(len(track) for track in real) / fps / 4)
    which = torch.tensor([place[0] for place in chosen])
    when = torch.tensor([place[1] for place in chosen])
    some = torch.from_numpy(np.unique(np.linspace(0, len(cut) - 1, NEAREST_VIDEOS).round().astype(int)))
    among = torch.cdist(cut[some], cut)
    same = (which[some][:, None] == which) & ((when[some][:, None] - when).abs() < apart * fps)
    own = among.masked_fill(same, math.inf).min(dim=1).values
    own = own[own.isfinite()]
    usual = float(own.median()) if len(own) else math.nan
    distances, indices = torch.cdist(windows.flatten(1).double(), cut).min(dim=1)
    closest = distances.argsort()[:PAIRS].tolist()
    pairs = [
        Pair(
            FIRST_SEED + k, frame + WINDOW // 2, chosen[int(indices[k])][0], chosen[int(indices[k])][1] + WINDOW // 2,
            float(distances[k]) / usual,
        )
        for k in closest
    ]  # fmt: skip
    limit = float(own.quantile(0.01)) if len(own) else math.nan
    return Nearness(
        ratio=float(distances.median()) / usual,
        nearer_than_real=float((distances < limit).double().mean()),
        pairs=pairs,
        apart_seconds=apart,
        frame=frame,
    )
