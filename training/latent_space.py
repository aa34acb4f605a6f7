"""The space in which the temporal GAN works, and the windows of real footage in it.

A W+ code is num_ws * w_dim numbers (9216 at 1024x1024), but the codes of one subject lie near a small subspace: a few dozen
principal components hold 99 % of their variance. Training therefore sees coordinates

    y = (w - mean) basis^+,      w = mean + y basis,      basis = diag(scale) V,      scale_k ~ (lambda_k)^(whitening / 2)

with V the leading principal directions and lambda_k their variances. whitening = 1 gives every component the same variance,
whitening = 0 keeps their proportions. This is a choice of ours: docs/choices.md has what it costs. Without a basis
(`num_components=0`) the coordinates are the standardised codes themselves, as in the paper's equations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from networks.errors import InputError, option
from training.latents.dataset import LatentDataset
from training.temporal_options import LatentSpaceOptions

SHORT_FOOTAGE = 60.0  # seconds
MARGIN_OF_VIEWS = 4 / 3  # times the span: how long a clip has to be for a view of that span
LEAST_SHARE_OF_VIEWS = 0.9  # of the frames have to be in such clips
STEPS_AT_ONCE = 1024  # frames
MAX_FRAMES_FOR_BASIS = 4096  # evenly spread over the data set; their Gram matrix is what is decomposed


@dataclasses.dataclass(frozen=True)
class LatentSpace:
    """Coordinates of W+ codes; F = num_ws * w_dim, K = number of coordinates.

    Attributes:
        mean: [F].
        basis: [K, F] from coordinates to codes, or None.
        projection: [F, K] from codes to coordinates, or None.
        scale: unit of the coordinates where there is no basis.
        explained: share of the codes' variance that the coordinates keep, 0 to 1.
    """

    mean: torch.Tensor
    basis: torch.Tensor | None
    projection: torch.Tensor | None
    scale: float
    explained: float

    @property
    def num_coordinates(self) -> int:
        return len(self.mean) if self.basis is None else len(self.basis)

    def encode(self, codes: np.ndarray) -> torch.Tensor:
        """Codes [T, num_ws, w_dim] -> coordinates [T, K] float32."""
        flat = torch.as_tensor(np.ascontiguousarray(codes)).flatten(1).float() - self.mean
        return flat / self.scale if self.projection is None else flat @ self.projection


def fit_latent_space(dataset: LatentDataset, options: LatentSpaceOptions | None = None) -> LatentSpace:
    """Find mean, principal directions and scales of a data set's codes.

    Args:
        dataset: Latent data set.
        options: How many components, and how they are scaled; None takes the defaults.

    Raises:
        InputError: All codes are the same, so that there is no motion to learn.
    """
    options = LatentSpaceOptions() if options is None else options
    num_frames = sum(clip.num_frames for clip in dataset.clips)
    stride = max(1, -(-num_frames // MAX_FRAMES_FOR_BASIS))
    count = sum(-(-clip.num_frames // stride) for clip in dataset.clips)
    centred = torch.empty(count, dataset.num_ws * dataset.w_dim, dtype=torch.float64)  # the only large thing here
    begin = 0
    for index in range(len(dataset.clips)):
        for piece in dataset.pieces(index, stride):
            centred[begin : begin + len(piece)] = torch.from_numpy(piece).flatten(1)
            begin += len(piece)
    mean = centred.mean(dim=0)
    centred -= mean
    # Principal directions from the smaller of the two matrices, in float64: X^T X v = lambda v or X X^T u = lambda u.
    tall = centred.shape[0] >= centred.shape[1]
    values, vectors = torch.linalg.eigh(centred.t() @ centred if tall else centred @ centred.t())
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    total = float(values.sum())
    if not total > 1e-12 * max(1.0, float(mean.square().sum())) * len(centred):
        raise InputError(
            f'{dataset.path}: all codes are the same, so there is no motion to learn; use footage in which the subject moves'
        )
    if options.full:
        scale = (total / len(centred) / len(mean)) ** 0.5
        return LatentSpace(mean.float(), None, None, scale, 1.0)
    held = values.cumsum(0) / total
    rank = int((values > values[0] * 1e-10).sum())
    count = min(int((held < options.variance).sum()) + 1, options.max_components, rank)
    variances = values[:count] / len(centred)
    directions = vectors[:, :count] if tall else centred.t() @ vectors[:, :count] / values[:count].sqrt()
    scales = variances ** (options.whitening / 2)
    scales = scales * ((variances / scales.square()).mean().sqrt())  # mean square of a coordinate: 1
    return LatentSpace(
        mean=mean.float(),
        basis=(directions * scales).t().float().contiguous(),
        projection=(directions / scales).float().contiguous(),
        scale=1.0,
        explained=float(held[count - 1]),
    )


def default_reversal(dataset: LatentDataset) -> float:
    """Share of real windows to show backwards: half of them where footage is short, see `Windows.sample`."""
    return 0.5 if dataset.num_frames / dataset.fps < SHORT_FOOTAGE else 0.0


class Windows:
    """Real footage as coordinates in memory, and the windows of it that the critics see.

    A critic of one second cannot tell a subject that turns its head every four seconds from one that never does. So there is one
    for each of several spacings, which looks at `num_frames` frames that far apart; all end at the same frame. 25 frames at the
    spacings 1 and 4 show one second in full and the last four in part. The longest of them, the span, is what `sample` draws.

    Args:
        dataset: Latent data set.
        space: Coordinates.
        num_frames: Length t of a window.
        strides: Spacings, in frames. Those whose span hardly any footage reaches are left out, see `affordable_strides`.
        device: Where the coordinates are kept.

    Attributes:
        strides: The spacings that are in use, smallest first.
        span: Frames from the first to the last of the longest view.
        past_frames: Frames that a generated window of `num_frames` needs before it, span - num_frames.
        default_reversal: See there, of this data set.
        short_clips: Names of clips that are shorter than the span; they are left out.
        motion_units: For each spacing n the root mean square of y_{k+n} - y_k, [K].

    Raises:
        InputError: Every clip is shorter than a window.
    """

    def __init__(
        self,
        dataset: LatentDataset,
        space: LatentSpace,
        num_frames: int,
        device: torch.device | str = 'cpu',
        strides: Sequence[int] = (1,),
    ) -> None:
        self.num_frames = num_frames
        self.default_reversal = default_reversal(dataset)
        lengths = [clip.num_frames for clip in dataset.clips]
        if max(lengths) < num_frames:
            longest = max(dataset.clips, key=lambda clip: clip.num_frames)
            raise InputError(
                f'{dataset.path}: the longest clip, {longest.name!r}, has {longest.num_frames} frames, fewer than '
                f'the window of {num_frames}; embed longer footage or choose a smaller {option("window")}'
            )
        self.strides = affordable_strides(lengths, num_frames, strides)
        self.span = (num_frames - 1) * self.strides[-1] + 1
        self.past_frames = self.span - num_frames
        self.short_clips = [clip.name for clip in dataset.clips if clip.num_frames < self.span]
        self.coordinates, self.clips = _encoded(dataset, space, self.span, device)
        self.motion_units = [_mean_square_step(self.clips, stride).sqrt().clamp(min=1e-6) for stride in self.strides]
        begins = np.cumsum([0, *(len(clip) for clip in self.clips)])
        self.starts = torch.cat(
            [torch.arange(begin, begin + len(clip) - self.span + 1) for begin, clip in zip(begins, self.clips, strict=False)]
        ).to(device)

    def __len__(self) -> int:
        return len(self.starts)

    def squared_step(self, num_frames: int) -> float:
        """E||y_{k+n} - y_k||^2 / 2K of real frames, n = `num_frames`; 1 is what unrelated frames have, whatever the whitening.

        Clips shorter than that do not count; where all are, n is as large as the longest clip allows.
        """
        lag = min(num_frames, max(len(clip) for clip in self.clips) - 1)
        return float(_mean_square_step(self.clips, lag).mean()) / 2

    def num_features(self, motion_weight: float) -> int:
        """Size of one time step of a view."""
        return self.coordinates.shape[1] * (1 if motion_weight == 0 else 2)

    def views(self, y: torch.Tensor, motion_weight: float) -> list[torch.Tensor]:
        """What the critics see of y [N, span or more, K], up to its last frame: [N, t, num_features] for each spacing.

        For the spacing n these are the t last frames that are n apart, and beside each of them its motion (y_k - y_{k-n}) / unit,
        weighted; the motion of the first one is zero. A linear map of the footage, and a choice of ours. Neighbouring frames
        differ little, so the gradient penalty, which measures distances between windows in the critic's input, lets a critic say
        little about motion unless it is seen on its own. motion_weight = 0 leaves the motion out.
        """
        views = []
        for stride, unit in zip(self.strides, self.motion_units, strict=True):
            frames = y[:, y.shape[1] - 1 - (self.num_frames - 1) * stride :: stride]
            if motion_weight > 0:
                motion = torch.diff(frames, dim=1) * (motion_weight / unit)
                frames = torch.cat([frames, torch.nn.functional.pad(motion, (0, 0, 1, 0))], dim=2)
            views.append(frames)
        return views

    def sample(self, count: int, generator: torch.Generator, reversal: float = 0.0) -> torch.Tensor:
        """Draw stretches of `span` frames with replacement, each equally likely, a share `reversal` backwards: [count, span, K].

        Short footage is one path: at its end the model has never seen a way on, and goes round in circles there. Played
        backwards as well, every frame has a way back.
        """
        device = self.starts.device
        chosen = torch.randint(len(self.starts), (count,), generator=generator, device=device)
        offsets = torch.arange(self.span, device=device).expand(count, -1)
        if reversal > 0:
            backwards = torch.rand(count, 1, generator=generator, device=device) < reversal
            offsets = torch.where(backwards, self.span - 1 - offsets, offsets)
        return self.coordinates[self.starts[chosen].unsqueeze(1) + offsets]


def affordable_strides(lengths: Sequence[int], num_frames: int, strides: Sequence[int]) -> list[int]:
    """Return the spacings, smallest first, of which the footage shows enough; at least the smallest.

    A spacing needs a span of (num_frames - 1) * stride + 1 frames. It stays if clips that are a third longer than that, so that
    there is something to choose from, hold nine tenths of the frames of all clips that hold a window.
    """
    usable = [length for length in lengths if length >= num_frames]

    def enough(stride: int) -> bool:
        needed = ((num_frames - 1) * stride + 1) * MARGIN_OF_VIEWS
        return sum(length for length in usable if length >= needed) >= LEAST_SHARE_OF_VIEWS * sum(usable)

    ordered = sorted(set(strides))
    kept = [stride for stride in ordered if enough(stride)]
    return kept or [1]


def _encoded(
    dataset: LatentDataset, space: LatentSpace, least: int, device: torch.device | str
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Coordinates [T, K] of all clips of `least` frames or more, one after the other, and the same for each clip; one copy."""
    used = [index for index, clip in enumerate(dataset.clips) if clip.num_frames >= least]
    lengths = [dataset.clips[index].num_frames for index in used]
    coordinates = torch.empty(sum(lengths), space.num_coordinates, device=device)
    begin = 0
    for index in used:
        for piece in dataset.pieces(index):
            coordinates[begin : begin + len(piece)] = space.encode(piece)
            begin += len(piece)
    return coordinates, list(coordinates.split(lengths))


def _mean_square_step(clips: list[torch.Tensor], lag: int) -> torch.Tensor:
    """Mean square of y_{k+n} - y_k for n = `lag` over all clips longer than that, [K], without a copy of the clips."""
    total, count = torch.zeros_like(clips[0][0], dtype=torch.float64), 0
    for clip in clips:
        for first in range(0, len(clip) - lag, STEPS_AT_ONCE):
            end = min(first + STEPS_AT_ONCE, len(clip) - lag)
            total += (clip[first + lag : end + lag] - clip[first:end]).square().sum(dim=0, dtype=torch.float64)
            count += end - first
    return (total / count).float()
