"""Scores as objects with `update` and `compute`, for data that comes in batches or is spread over ranks.

    fvd = FVD(layout='NTCHW', value_range=(-1, 1))
    for batch in loader:
        fvd.update(batch, real=True)
        fvd.update(generator(...), real=False)
    print(fvd.compute())                    # a tensor; fvd.score() is a stylevideogan.scores.Score

Where the package torchmetrics is installed they are `torchmetrics.Metric`s, which synchronises and resets them; without it
they have the same methods, and `compute` gathers the ranks of torch.distributed by itself. Frames are never kept: of a clip its
features (I3D 1.6 KB), of a frame 8 KB for FID, 8 bytes for a pair, 12 KB for the long-video scores.

Every sum is taken in an order that depends on the values alone, so a result is the same to the last bit for any number of
ranks and any order of the updates. (Diversity compares groups of videos, so its object, which puts them into an order of its
own, and its function differ within their intervals.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from metrics import metric_utils
from metrics.distances import frechet_of_clips
from metrics.distances.pair_comparison import batches_of, match_lengths, summarise
from metrics.features.clip_features import clip_features, in_parallel
from metrics.features.detectors import MAKERS, load_detector
from metrics.inputs.clip_choice import choose_clips
from metrics.inputs.frame_layouts import ValueRange
from metrics.inputs.frame_points import stream_points
from metrics.inputs.video_comparison import VideoOptions
from metrics.inputs.video_set import VideoSet
from networks.errors import InputError
from networks.feature_networks.lpips import NETWORKS
from plugins.paired_frames import detector_of, measure_of
from stylevideogan import score_base
from training.temporal_snapshot import versions

__all__ = ['FID', 'FVD', 'KVD', 'LPIPS', 'PSNR', 'SSIM', 'LongVideo', 'pair_object']

GPU_BATCH = 8


class _PlainMetric(torch.nn.Module):
    """What is used of torchmetrics.Metric, for environments without it: states that are lists, gathered over ranks."""

    def __init__(self) -> None:
        super().__init__()
        self._states: list[str] = []

    def add_state(self, name: str, default: list[Any], dist_reduce_fx: str) -> None:
        assert default == []
        assert dist_reduce_fx == 'cat'
        self._states.append(name)
        setattr(self, name, [])

    def reset(self) -> None:
        """Forget everything."""
        for name in self._states:
            setattr(self, name, [])

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Take in a batch; what a batch alone would score is not computed."""
        self.update(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    def _gathered(self, name: str) -> list[torch.Tensor]:
        mine = [tensor.cpu() for tensor in getattr(self, name)]
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return mine
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, mine)
        return [tensor for part in parts for tensor in part]


def _base() -> Any:
    try:
        import torchmetrics
    except ImportError:
        return _PlainMetric
    return torchmetrics.Metric


_Base: Any = _base()
HAS_TORCHMETRICS = _Base is not _PlainMetric


class _Score(_Base):  # type: ignore[misc,unused-ignore]
    """What all of these share.

    Args:
        layout: Axes of the arrays, as metrics.inputs.frame_layouts has them.
        value_range: Black and white of floating point.
        fps: Rate in frames per second: of arrays, and what files are resampled to.
        resolution: Frames of files are cut to their central square and brought to this size.
        device: Where networks run; 'auto' takes a GPU if there is one.
    """

    is_differentiable = False
    higher_is_better: bool | None = False
    full_state_update = False

    def __init__(
        self,
        *,
        layout: str | None = None,
        value_range: ValueRange | None = None,
        fps: float | None = None,
        resolution: int | None = None,
        device: str | torch.device = 'auto',
        **ignored: Any,
    ) -> None:
        super().__init__()
        unknown = set(ignored) - {'cache', 'progress'}  # of the functions; there is nothing to keep or to show here
        if unknown:
            raise TypeError(f'{type(self).__name__} has no argument {", ".join(sorted(unknown))}')
        self.layout, self.value_range, self.fps, self.resolution = layout, value_range, fps, resolution
        self._size: tuple[int, int] | None = None  # of the frames that have come in
        self._where = score_base.choose_device(device)
        self.batch = GPU_BATCH if self._where.type == 'cuda' else 1

    def _videos(self, source: Any, images: bool = False) -> VideoSet:
        return score_base.open_set(
            source, name='video', layout=self.layout, value_range=self.value_range, fps=self.fps, resolution=self.resolution,
            damaged='stop', cache=True, images=images, device=self._where,
        )  # fmt: skip

    def _videos_of_one_size(self, source: Any, images: bool = False) -> VideoSet:
        opened = self._videos(source, images)
        size = tuple(opened.resolution)
        if self._size is not None and size != self._size:
            (height, width), (known_height, known_width) = size, self._size
            raise InputError(
                f'{opened.names[0]} has {width}x{height} pixels, and videos before had {known_width}x{known_height}, so '
                'sharpness would be compared with its absence; bring all to one size before'
            )
        self._size = (size[0], size[1])
        return opened

    def reset(self) -> None:
        """Forget everything that has come in."""
        super().reset()
        self._size = None

    def _rows(self, name: str) -> torch.Tensor | None:
        """All rows of a state, of all ranks; None if there are none."""
        state = getattr(self, name) if HAS_TORCHMETRICS else self._gathered(name)
        if isinstance(state, torch.Tensor):
            return state if len(state) else None
        return torch.cat(list(state)) if len(state) else None

    def compute(self) -> torch.Tensor:
        """The score as a tensor, float64."""
        return torch.tensor(float(self._score()), dtype=torch.float64)

    def score(self) -> score_base.Score:
        """The score with interval and protocol, of all ranks together."""
        if not HAS_TORCHMETRICS:
            return self._score()
        with self.sync_context(should_sync=self._to_sync, should_unsync=self._should_unsync):
            return self._score()

    def _score(self) -> score_base.Score:
        raise NotImplementedError

    def _protocol(self, name: str, **entries: Any) -> dict[str, Any]:
        return {'metric': name, 'device': str(self._where), 'batch': self.batch, 'versions': versions(), **entries}


# ----------------------------------------------------------------------------
# Two sets


def require_known_features(name: str) -> None:
    """Raise InputError if there is no feature network of that name."""
    if name not in MAKERS:
        raise InputError(f'features={name!r} is no network that is known here; there are {", ".join(MAKERS)}')


class FVD(_Score):
    """Frechet video distance of the clips that come in: of each video `num_frames` frames from `start` on.

    Args:
        num_frames: Of a clip.
        stride: From one frame of a clip to the next.
        start: First frame.
        features: As stylevideogan.scores.fvd takes it.
        detector: File of weights.
        seed: Of the bootstrap.
        bootstrap: Resamples; 0 for no interval.
        batch: Clips per call of the network.
        how: layout, value_range, fps, device.
    """

    kind = 'fvd'
    _compare = staticmethod(frechet_of_clips.frechet_results)
    _images = False

    def __init__(
        self,
        *,
        num_frames: int = 16,
        stride: int = 1,
        start: int = 0,
        features: str = 'i3d',
        detector: str | Sequence[Any] | None = None,
        seed: int = 0,
        bootstrap: int = 50,
        batch: int | None = None,
        **how: Any,
    ) -> None:
        super().__init__(**how)
        for name, value, least in (('num_frames', num_frames, 1), ('stride', stride, 1), ('start', start, 0)):
            score_base.whole_number(name, value, least)
        for name, value in (('seed', seed), ('bootstrap', bootstrap)):
            score_base.whole_number(name, value, 0)
        self.num_frames, self.stride, self.start, self.seed, self.bootstrap = num_frames, stride, start, seed, bootstrap
        self.batch = self.batch if batch is None else score_base.whole_number('batch', batch)
        require_known_features(features)
        files = () if detector is None else (detector,) if not isinstance(detector, (list, tuple)) else tuple(detector)
        self._detector = [load_detector(features, files, self._where)]  # in a list, so that it is no submodule
        if num_frames < self._detector[0].smallest_num_frames:
            raise InputError(f'this network needs clips of {self._detector[0].smallest_num_frames} frames or more')
        self.add_state('real_features', default=[], dist_reduce_fx='cat')
        self.add_state('fake_features', default=[], dist_reduce_fx='cat')

    def update(self, videos: Any, real: bool) -> None:
        """Take in videos: an array or tensor, a list of them, or a path.

        Raises:
            InputError: They cannot be read, or are too short.
        """
        opened = self._videos_of_one_size(videos, self._images)
        rule = 'spread' if self._images else 'first'
        count = sum(length or 0 for length in opened.num_frames) if self._images else len(opened)
        choice = choose_clips(opened.num_frames, count, self.num_frames, stride=self.stride, start=self.start, rule=rule)
        if choice.too_short:
            span = self.start + (self.num_frames - 1) * self.stride + 1
            short = choice.too_short[0]
            raise InputError(f'{opened.names[short]} has {opened.num_frames[short]} frames, and {span} are needed')
        options = metric_utils.MetricOptions(device=self._where, cache=False)
        found = clip_features(opened, choice, self._detector[0], options, tag=self.kind, batch=self.batch)
        state = self.real_features if real else self.fake_features
        state.append(torch.from_numpy(found.values))

    def _score(self) -> score_base.Score:
        name = f'{self.kind}_{self.num_frames * self.stride}f'
        samples = []
        for side in ('real', 'fake'):
            rows = self._rows(f'{side}_features')
            if rows is None:
                raise InputError(f'{name}: no {side} videos have come in; call update(videos, real={side == "real"})')
            values = rows.cpu().numpy()
            order = frechet_of_clips.in_canonical_order(values.reshape(len(values), -1)).reshape(values.shape)
            samples.append(frechet_of_clips.Sample(order, len(order)))
        results = self._compare(name, samples[0], samples[1], self.bootstrap, self.seed)
        protocol = self._protocol(
            name, frames=self.num_frames, stride=self.stride, first_frame=self.start, seed=self.seed,
            detector=self._detector[0].description, resize=self._detector[0].resize_rule, covariance='divided by N - 1',
        )  # fmt: skip
        for sentence in frechet_of_clips.warnings_of(name, results, *samples):
            score_base.tell(f'{name}: {sentence}')
        return score_base.Score(name, results, protocol)


class KVD(FVD):
    """Kernel video distance; arguments as FVD."""

    kind = 'kvd'
    _compare = staticmethod(frechet_of_clips.kernel_results)


class FID(FVD):
    """Frechet inception distance of the images, or of all frames of the videos, that come in.

    Args:
        detector: File of InceptionV3's weights.
        batch: Frames per call of the network.
        how: layout ('NHWC', 'NCHW', or one of videos), value_range, device.
    """

    kind = 'frame_fid'
    _images = True

    def __init__(self, *, detector: str | Sequence[Any] | None = None, batch: int | None = None, **how: Any) -> None:
        super().__init__(num_frames=1, features='inception', detector=detector, bootstrap=0, batch=batch, **how)


# ----------------------------------------------------------------------------
# Pairs


class _Pair(_Score):
    """A measure of pairs, frame by frame.

    Args:
        num_frames: Only the first ones of each video; None: all.
        batch: Frames per call of a network.
        weights: File of weights of LPIPS.
        how: layout, value_range, device.
    """

    kind = 'psnr'

    def __init__(
        self, *, num_frames: int | None = None, batch: int | None = None, weights: str | None = None, **how: Any
    ) -> None:
        super().__init__(**how)
        for name, value in (('num_frames', num_frames), ('batch', batch)):
            if value is not None:
                score_base.whole_number(name, value)
        self.num_frames, self.batch = num_frames, batch or self.batch
        self.weights = weights
        measure_of(self.kind, self._where, weights)  # what is missing is said now, not at the first batch
        self.add_state('values', default=[], dist_reduce_fx='cat')  # of every frame
        self.add_state('lengths', default=[], dist_reduce_fx='cat')  # of every video

    def update(self, preds: Any, target: Any) -> None:
        """Take in videos or images and what they should be: of one number, length and size.

        Raises:
            InputError: They do not fit together.
        """
        sets = [self._videos(source, images=True) for source in (preds, target)]
        found = []
        for real, fake, length in match_lengths(sets[1], sets[0], self.kind, self.num_frames):
            tasks = batches_of(sets[1], sets[0], real, fake, length, self.batch)
            found.append([value for part in in_parallel(self._work, tasks, self._where) for value in part][:length])
        for values in found:  # all of them or none, where one of the videos cannot be read
            self.values.append(torch.tensor(values, dtype=torch.float64))
            self.lengths.append(torch.tensor([len(values)]))

    def _work(self, frames: np.ndarray, targets: np.ndarray) -> Any:
        return measure_of(self.kind, self._where, self.weights)(frames, targets)

    def _score(self) -> score_base.Score:
        values, lengths = self._rows('values'), self._rows('lengths')
        if values is None or lengths is None:
            raise InputError(f'{self.kind}: nothing has come in; call update(videos, targets)')
        videos = [part.tolist() for part in values.cpu().split(lengths.cpu().tolist())]
        protocol = self._protocol(self.kind, frames=self.num_frames)
        detector = detector_of(self.kind, self._where, self.weights)
        return score_base.Score(self.kind, summarise(self.kind, videos), protocol | ({'detector': detector} if detector else {}))


class PSNR(_Pair):
    """Peak signal-to-noise ratio in decibel; see stylevideogan.scores.psnr."""

    higher_is_better = True


class SSIM(_Pair):
    """Structural similarity; see stylevideogan.scores.ssim."""

    kind = 'ssim'
    higher_is_better = True


class LPIPS(_Pair):
    """Learned perceptual distance by AlexNet (`network='alex'`) or VGG16 ('vgg'); see stylevideogan.scores.lpips."""

    def __init__(self, *, network: str = 'alex', **how: Any) -> None:
        if network not in NETWORKS:
            raise InputError(f'network={network!r}: LPIPS has the networks {" and ".join(NETWORKS)} here')
        self.kind = f'lpips_{network}'
        super().__init__(**how)


def pair_object(kind: str, weights: str | None, **how: Any) -> Any:
    """The object for a kind of pairs: 'psnr', 'ssim', 'lpips_alex' or 'lpips_vgg'."""
    if kind.startswith('lpips'):
        return LPIPS(network=kind.removeprefix('lpips_'), weights=weights, **how)
    return {'psnr': PSNR, 'ssim': SSIM}[kind](**how)


# ----------------------------------------------------------------------------
# Long video


class _PointVideos(VideoSet):
    """Videos of which only the small pictures were kept, for metrics that need no more."""

    def __init__(self, videos: Sequence[torch.Tensor], fps: float | None, name: str) -> None:
        self._videos = list(videos)
        self.names = [f'{name} {index}' for index in range(len(self._videos))]
        self.fps, self.fps_is_known = fps or 25.0, fps is not None
        self.num_frames = [len(video) for video in self._videos]
        self.left_out, self.description = {}, {'kind': 'array', 'videos': len(self._videos)}

    @property
    def resolution(self) -> tuple[int, int]:
        return 32, 32

    @property
    def sha256(self) -> str:
        return hashlib.sha256(b''.join(hashlib.sha256(video.numpy().tobytes()).digest() for video in self._videos)).hexdigest()

    def frames(self, index: int, wanted: Any) -> Any:
        raise NotImplementedError('frames were not kept')

    def points(self, index: int) -> torch.Tensor:
        """Points [T, 3072] of a video; metrics.inputs.picture_inputs asks for them."""
        return self._videos[index]


class LongVideo(_Score):
    """One of the long-video scores: 'repetition', 'drift', 'motion' or 'diversity'.

    Args:
        kind: Which one.
        num_frames: Of each fake video, from its beginning.
        how: layout, value_range, fps.
    """

    def __init__(self, kind: str, *, num_frames: int = 200, **how: Any) -> None:
        super().__init__(**how)
        score_base.whole_number('num_frames', num_frames)
        if kind not in ('repetition', 'drift', 'motion', 'diversity'):
            raise InputError(f'{kind!r} is no score of long video; there are repetition, drift, motion, diversity')
        self.kind, self.num_frames = kind, num_frames
        for side in ('real', 'fake'):
            self.add_state(f'{side}_points', default=[], dist_reduce_fx='cat')
            self.add_state(f'{side}_lengths', default=[], dist_reduce_fx='cat')

    def update(self, videos: Any, real: bool) -> None:
        """Take in videos, whole: a recording that comes in pieces counts as so many recordings."""
        opened = self._videos_of_one_size(videos)
        for index, length in enumerate(opened.num_frames):
            known = self.num_frames if length is None else length
            points = stream_points(opened, index, known if real else min(known, self.num_frames))
            getattr(self, 'real_points' if real else 'fake_points').append(points)
            getattr(self, 'real_lengths' if real else 'fake_lengths').append(torch.tensor([len(points)]))

    def _score(self) -> score_base.Score:
        sides = {}
        for side in ('real', 'fake'):
            points, lengths = self._rows(f'{side}_points'), self._rows(f'{side}_lengths')
            if points is None or lengths is None:
                raise InputError(f'{self.kind}: no {side} videos have come in; call update(videos, real={side == "real"})')
            videos = sorted(points.cpu().split(lengths.cpu().tolist()), key=lambda video: video.numpy().tobytes())
            sides[side] = _PointVideos(videos, self.fps, side)
        # One rank computes by itself what all of them would share: the videos are small by now.
        return score_base.measure(
            f'{self.kind}_{self.num_frames}f', sides['real'], sides['fake'], VideoOptions(), cache=False, alone=True
        )
