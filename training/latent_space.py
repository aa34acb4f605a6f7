"""The space in which the temporal GAN works: coordinates of the codes of one subject.

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
