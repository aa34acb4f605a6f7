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

import numpy as np
import torch

from networks.errors import InputError
from training.latents.dataset import LatentDataset
from training.temporal_options import LatentSpaceOptions

SHORT_FOOTAGE = 60.0  # seconds
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
    frames = torch.cat(
        [
            torch.as_tensor(np.ascontiguousarray(dataset.load_clip(index)[::stride])).flatten(1).double()
            for index in range(len(dataset.clips))
        ]
    )
    mean = frames.mean(dim=0)
    centred = frames - mean
    # Principal directions from the smaller of the two matrices, in float64: X^T X v = lambda v or X X^T u = lambda u.
    tall = centred.shape[0] >= centred.shape[1]
    values, vectors = torch.linalg.eigh(centred.t() @ centred if tall else centred @ centred.t())
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    total = float(values.sum())
    if not total > 1e-12 * max(1.0, float(mean.square().sum())) * len(frames):
        raise InputError(
            f'{dataset.path}: all codes are the same, so there is no motion to learn; use footage in which the subject moves'
        )
    if options.full:
        scale = (total / len(frames) / len(mean)) ** 0.5
        return LatentSpace(mean.float(), None, None, scale, 1.0)
    held = values.cumsum(0) / total
    rank = int((values > values[0] * 1e-10).sum())
    count = min(int((held < options.variance).sum()) + 1, options.max_components, rank)
    variances = values[:count] / len(frames)
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
    """All windows of `num_frames` neighbouring frames, as coordinates in memory.

    Args:
        dataset: Latent data set.
        space: Coordinates.
        num_frames: Length t of a window.
        device: Where the coordinates are kept.

    Attributes:
        short_clips: Names of clips that are shorter than a window; they are left out.
        motion_unit: Root mean square of y_{k+1} - y_k, [K].
        default_reversal: See there, of this data set.

    Raises:
        InputError: Every clip is shorter than a window.
    """

    def __init__(self, dataset: LatentDataset, space: LatentSpace, num_frames: int, device: torch.device | str = 'cpu') -> None:
        self.num_frames = num_frames
        self.default_reversal = default_reversal(dataset)
        self.short_clips = [clip.name for clip in dataset.clips if clip.num_frames < num_frames]
        if len(self.short_clips) == len(dataset.clips):
            longest = max(dataset.clips, key=lambda clip: clip.num_frames)
            raise InputError(
                f'{dataset.path}: the longest clip, {longest.name!r}, has {longest.num_frames} frames, fewer than '
                f'the window of {num_frames}; embed longer footage or choose a smaller --window'
            )
        self.clips = [
            space.encode(dataset.load_clip(index)).to(device)
            for index, clip in enumerate(dataset.clips)
            if clip.num_frames >= num_frames
        ]
        self.coordinates = torch.cat(self.clips)
        steps = torch.cat([torch.diff(clip, dim=0) for clip in self.clips])
        self.motion_unit = steps.square().mean(dim=0).sqrt().clamp(min=1e-6)  # [K]
        begins = np.cumsum([0, *(len(clip) for clip in self.clips)])
        self.starts = torch.cat(
            [torch.arange(begin, begin + len(clip) - num_frames + 1) for begin, clip in zip(begins, self.clips, strict=False)]
        ).to(device)

    def __len__(self) -> int:
        return len(self.starts)

    def squared_step(self, num_frames: int) -> float:
        """E||y_{k+n} - y_k||^2 / 2K of real frames, n = `num_frames`; 1 is what unrelated frames have, whatever the whitening.

        Clips shorter than that do not count; where all are, n is as large as the longest clip allows.
        """
        lag = min(num_frames, max(len(clip) for clip in self.clips) - 1)
        steps = torch.cat([clip[lag:] - clip[:-lag] for clip in self.clips if len(clip) > lag])
        return float(steps.square().mean()) / 2

    def critic_view(self, y: torch.Tensor, motion_weight: float) -> torch.Tensor:
        """What the critic sees of windows [N, t, K]: with each y_k its motion (y_k - y_{k-1}) / motion_unit, weighted.

        A linear map of the window, and a choice of ours. Neighbouring frames differ little, so the gradient penalty, which
        measures distances between windows in the critic's input, lets the critic say little about motion unless it is seen
        on its own. motion_weight = 0 leaves it out; otherwise [N, t, 2 K], the motion of the first frame being zero.
        """
        if motion_weight == 0:
            return y
        motion = torch.diff(y, dim=1) * (motion_weight / self.motion_unit)
        return torch.cat([y, torch.nn.functional.pad(motion, (0, 0, 1, 0))], dim=2)

    def sample(self, count: int, generator: torch.Generator, reversal: float = 0.0) -> torch.Tensor:
        """Draw windows with replacement, each equally likely, a share `reversal` of them backwards: [count, num_frames, K].

        Short footage is one path: at its end the model has never seen a way on, and goes round in circles there. Played
        backwards as well, every frame has a way back.
        """
        device = self.starts.device
        chosen = torch.randint(len(self.starts), (count,), generator=generator, device=device)
        offsets = torch.arange(self.num_frames, device=device).expand(count, -1)
        if reversal > 0:
            backwards = torch.rand(count, 1, generator=generator, device=device) < reversal
            offsets = torch.where(backwards, self.num_frames - 1 - offsets, offsets)
        return self.coordinates[self.starts[chosen].unsqueeze(1) + offsets]
