"""A kernel distance between windows of trajectories, one coordinate at a time: it sees what means and covariances cannot.

A linear filter that is driven by Gaussian noise can have every mean and every covariance of a moving subject, and so a Frechet
distance near zero, without a single blink. What gives it away is the shape of the motion: rest, sudden movement, rest. This
distance compares that shape. For each coordinate c, let x be windows of n steps of it, in units of the real footage; then

    MMD_c^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y),    k(x, y) = 1/2 sum_b exp(-|x - y|^2 / (2 b m_c)),   b = 0.1, 1

(maximum mean discrepancy, Gretton et al., "A kernel two-sample test", JMLR 2012, eq. 3), m_c the median squared distance of real
windows, and the distance is the mean over coordinates times 1000. One coordinate at a time, because in a joint kernel of hundreds
of numbers all windows are about equally far from each other, and the shape of a blink drowns in the position of the head.

Windows of one recording overlap, and neighbours are alike. A mean over all pairs would take that for a property of the subject.
So real pairs count only where they are at least `gap` frames apart, which makes each mean an unbiased estimate for a stationary
recording. How large the distance between two halves of the footage is, dealt out in blocks, is the scale to read it on
(`null_*`): a recording of a minute differs from the next minute.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

BANDWIDTHS = (0.1, 1.0)  # times the median squared distance of real windows
SCALE = 1000.0
RESAMPLES = 200
SPLITS = 20


class RealWindows:
    """Windows of real trajectories, with the block that each belongs to.

    Args:
        tracks: Trajectories, each [T, C] float.
        length: Steps of a window.
        max_windows: Windows to take at most, evenly spread.
        gap: Frames between the beginnings of two windows from which on they count as a pair.
        block: Frames that are resampled, and dealt out to halves, together.

    Raises:
        ValueError: Fewer than two windows that are `gap` frames apart.
    """

    def __init__(
        self, tracks: Sequence[torch.Tensor], length: int, *, max_windows: int = 1024, gap: int = 25, block: int = 100
    ) -> None:
        places = [(clip, begin) for clip, track in enumerate(tracks) for begin in range(len(track) - length + 1)]
        chosen = (
            [places[index] for index in np.unique(np.linspace(0, len(places) - 1, max_windows).round().astype(int))]
            if places
            else []
        )
        self.windows = (
            torch.stack([tracks[clip][begin : begin + length] for clip, begin in chosen]).double() if chosen else torch.zeros(0)
        )
        clips = torch.tensor([clip for clip, _ in chosen])
        begins = torch.tensor([begin for _, begin in chosen])
        self.apart = (clips.unsqueeze(1) != clips) | ((begins.unsqueeze(1) - begins).abs() >= gap)
        if not self.apart.any():
            raise ValueError(f'the footage holds no two windows of {length} steps that are {gap} frames apart')
        _, self.blocks = torch.unique(
            clips * (max(len(track) for track in tracks) // block + 1) + begins // block, return_inverse=True
        )
        self.num_blocks = int(self.blocks.max()) + 1


def _squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.square().sum(dim=1).unsqueeze(1) + y.square().sum(dim=1) - 2 * x @ y.t()).clamp_(min=0)


def _kernel(squares: torch.Tensor, median: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.exp(-squares / (2 * width * median)) for width in BANDWIDTHS]).mean(dim=0)


def window_kernel_distance(real: RealWindows, fake: torch.Tensor, *, seed: int = 0) -> dict[str, float]:
    """Compare windows of generated trajectories with real ones.

    Args:
        real: Real windows.
        fake: Windows [N, length, C] of N videos, one of each, so that they are independent.
        seed: Of the resampling and of the halves.

    Returns:
        `distance`; `low` and `high`, the 95 % interval of a bootstrap over blocks of footage and over videos; `null_median` and
        `null_high`, median and 95 % quantile of the distance between two halves of the footage (absent with fewer than 4 blocks).

    Raises:
        ValueError: Fewer than two windows, or another length or number of coordinates.
    """
    if fake.shape[1:] != real.windows.shape[1:] or len(fake) < 2:
        raise ValueError(f'need at least two windows of {list(real.windows.shape[1:])}, not {list(fake.shape)}')
    fake = fake.double().cpu()
    random = np.random.RandomState(seed)
    block_of = torch.nn.functional.one_hot(real.blocks, real.num_blocks).double()  # [windows, blocks]
    within, between, inside, halves = [], [], [], []
    weights_real = torch.from_numpy(
        random.multinomial(real.num_blocks, [1 / real.num_blocks] * real.num_blocks, RESAMPLES).T.astype(float)
    )
    weights_fake = torch.from_numpy(random.multinomial(len(fake), [1 / len(fake)] * len(fake), RESAMPLES).T.astype(float))
    weights_real = torch.cat(
        [torch.ones(real.num_blocks, 1), weights_real], dim=1
    ).double()  # the first column is the estimate itself
    weights_fake = torch.cat([torch.ones(len(fake), 1), weights_fake], dim=1).double()
    pairs = block_of.t() @ real.apart.double() @ block_of  # counted pairs, by block
    for c in range(fake.shape[2]):
        x, y = real.windows[..., c], fake[..., c]
        squares = _squared_distances(x, x)
        median = squares[real.apart].median().clamp(min=1e-12)
        k_real = block_of.t() @ (_kernel(squares, median) * real.apart) @ block_of  # sums by block, [blocks, blocks]
        k_fake = _kernel(_squared_distances(y, y), median)
        k_fake.fill_diagonal_(0)
        k_between = block_of.t() @ _kernel(_squared_distances(x, y), median)  # [blocks, N]
        within.append(_quadratic(weights_real, k_real) / _quadratic(weights_real, pairs))
        between.append(
            (weights_real * (k_between @ weights_fake)).sum(dim=0)
            / (weights_real * (block_of.sum(dim=0).unsqueeze(1) * weights_fake.sum(dim=0))).sum(dim=0)
        )
        ones = 1 - torch.eye(len(fake), dtype=torch.float64)
        inside.append(_quadratic(weights_fake, k_fake) / _quadratic(weights_fake, ones))
        halves.append(k_real)
    values = SCALE * (torch.stack(within) + torch.stack(inside) - 2 * torch.stack(between)).mean(dim=0)
    low, high = np.quantile(values[1:].numpy(), (0.025, 0.975))
    # A resample holds copies of a block, whose pairs are not left out: the interval is moved to where the estimate is.
    offset = float(values[0] - values[1:].median())
    result = {'distance': float(values[0]), 'low': float(low + offset), 'high': float(high + offset)}
    if real.num_blocks >= 4:
        null = _halves(torch.stack(halves), pairs, random)
        result |= {'null_median': float(np.median(null)), 'null_high': float(np.quantile(null, 0.95))}
    return result


def _quadratic(weights: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """w^T M w for each column of weights."""
    return (weights * (matrix @ weights)).sum(dim=0)


def _halves(kernels: torch.Tensor, pairs: torch.Tensor, random: np.random.RandomState) -> list[float]:
    """The distance between random halves of the blocks; kernels [C, blocks, blocks] are sums over pairs."""
    values = []
    for _ in range(SPLITS):
        chosen = torch.zeros(len(pairs), dtype=torch.float64)
        chosen[random.permutation(len(pairs))[: len(pairs) // 2]] = 1
        sides = (chosen, 1 - chosen)

        def mean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.einsum('i,cij,j->c', a, kernels, b) / (a @ pairs @ b).clamp(min=1)

        a, b = sides
        values.append(SCALE * float((mean(a, a) + mean(b, b) - 2 * mean(a, b)).mean()))
    return values
