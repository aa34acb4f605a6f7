"""The data that a training step sees: windows of real footage, in the coordinates of the latent space."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from networks.errors import InputError, option
from training.latent_space import LatentSpace
from training.latents.dataset import LatentDataset

SHORT_FOOTAGE = 60.0  # seconds
MARGIN_OF_VIEWS = 4 / 3  # times the span: how long a clip has to be for a view of that span
LEAST_SHARE_OF_VIEWS = 0.9  # of the frames have to be in such clips
STEPS_AT_ONCE = 1024  # frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuitedSettings:
    """Settings that depend on the footage, where a training does not say (temporal_options.Settings; docs/choices.md says why).

    Attributes:
        reversal: Share of real windows shown backwards, see `Windows.sample`.
        distortion: Size of the maps through which the critics see windows, see `Distortion`.
        critic_steps: Critic updates per generator update.
        strides: Spacings of the views.
        stride_power: How the critics are weighed, see temporal_trainer.critic_weights.
        motion_weight: What motion counts in what the critics see, see `Windows.views`.
    """

    reversal: float
    distortion: float
    critic_steps: int
    strides: tuple[int, ...]
    stride_power: float
    motion_weight: float


# Seconds of footage hold a handful of independent windows of the large spacings, which strong critics learn by heart.
SUITED_TO_SHORT_FOOTAGE = SuitedSettings(
    reversal=0.5, distortion=0.3, critic_steps=2, strides=(1, 4, 16), stride_power=0.0, motion_weight=1.0
)
SUITED_TO_LONG_FOOTAGE = SuitedSettings(
    reversal=0.0, distortion=0.0, critic_steps=1, strides=(1, 2, 4, 16), stride_power=1.25, motion_weight=2.0
)


def suited_settings(dataset: LatentDataset, *, components: bool = True) -> SuitedSettings:
    """What suits the footage: it is short where all clips together are below SHORT_FOOTAGE.

    Whole codes (without `components`) are not distorted: maps of thousands of coordinates cost too much. Motion counts once in
    them: nobody has looked whether more is better there.
    """
    short = dataset.num_frames / dataset.fps < SHORT_FOOTAGE
    suited = SUITED_TO_SHORT_FOOTAGE if short else SUITED_TO_LONG_FOOTAGE
    return suited if components else dataclasses.replace(suited, distortion=0.0, motion_weight=1.0)


class Windows:
    """Real footage as coordinates in memory, and the windows of it that the critics see.

    A critic of one second cannot tell a subject that turns its head every four seconds from one that never does. So there is one
    for each of several spacings, which looks at `num_frames` frames that far apart; all end at the same frame. 25 frames at the
    spacings 1 and 4 show one second in full and the last four in part. The longest of them, the span, is what `sample` draws.

    Args:
        dataset: Latent data set.
        space: Coordinates.
        num_frames: Length t of a window.
        strides: Spacings, in frames; None: those that suit the footage. Those whose span hardly any footage reaches are left out,
            see `affordable_strides`.
        device: Where the coordinates are kept.

    Attributes:
        strides: The spacings that are in use, smallest first.
        span: Frames from the first to the last of the longest view.
        past_frames: Frames that a generated window of `num_frames` needs before it, span - num_frames.
        suited: Settings that suit the footage.
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
        strides: Sequence[int] | None = (1,),
    ) -> None:
        self.num_frames = num_frames
        self.suited = suited_settings(dataset, components=space.basis is not None)
        lengths = [clip.num_frames for clip in dataset.clips]
        if max(lengths) < num_frames:
            longest = max(dataset.clips, key=lambda clip: clip.num_frames)
            raise InputError(
                f'{dataset.path}: the longest clip, {longest.name!r}, has {longest.num_frames} frames, fewer than '
                f'the window of {num_frames}; embed longer footage or choose a smaller {option("window")}'
            )
        self.strides = affordable_strides(lengths, num_frames, self.suited.strides if strides is None else strides)
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
        return self.coordinates[self.sample_frames(count, generator, reversal)]

    def sample_frames(self, count: int, generator: torch.Generator, reversal: float = 0.0) -> torch.Tensor:
        """Which frames `sample` shows, as rows of `coordinates`: [count, span]."""
        device = self.starts.device
        chosen = torch.randint(len(self.starts), (count,), generator=generator, device=device)
        offsets = torch.arange(self.span, device=device).expand(count, -1)
        if reversal > 0:
            backwards = torch.rand(count, 1, generator=generator, device=device) < reversal
            offsets = torch.where(backwards, self.span - 1 - offsets, offsets)
        return self.starts[chosen].unsqueeze(1) + offsets


class Distortion:
    """Random affine maps of windows: one for each window, the same for all of its frames.

        y -> m + (y - m) D^(-1) (1 + c N / sqrt(K)) D + c n D,       N [K, K] and n [K] ~ N(0, 1), c the size

    with the mean m and the deviations D of the footage. Critics that see all windows through such maps, real ones and generated
    ones alike, cannot learn seconds of footage by heart; and a generator gains nothing from being distorted itself, because equal
    distributions stay equal (Karras et al., "Training generative adversarial networks with limited data", NeurIPS 2020; Zhao et
    al., "Differentiable augmentation for data-efficient GAN training", NeurIPS 2020).

    Args:
        coordinates: Of all real frames, [frames, K].
        size: 0: nothing is distorted, and nothing drawn.
    """

    def __init__(self, coordinates: torch.Tensor, size: float) -> None:
        self.size = size
        self.mean = coordinates.mean(dim=0)
        self.deviation = coordinates.std(dim=0, correction=0).clamp(min=1e-6)
        self.unit = torch.eye(len(self.mean), device=coordinates.device)

    def __call__(self, y: torch.Tensor, count: int, part: slice, generator: torch.Generator) -> torch.Tensor:
        """Distort the windows y [n, frames, K], rows `part` of `count` for which random numbers are drawn."""
        if self.size == 0:
            return y
        size = y.shape[2]
        mixing = torch.randn(count, size, size, generator=generator, device=y.device)[part] * (self.size / size**0.5)
        offset = torch.randn(count, 1, size, generator=generator, device=y.device)[part] * self.size
        scaled = (y - self.mean) / self.deviation
        return torch.baddbmm(offset, scaled, self.unit + mixing) * self.deviation + self.mean


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
