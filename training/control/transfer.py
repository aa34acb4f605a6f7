"""Another subject, the same motion: what is added to the codes of the subject that moves.

The codes of the moving subject are w_t = m + (w_t - m), m their mean. Another subject is known by a code c (the mean, if there
are several), and d = c - m is what separates the two. Every method here gives w_t + shift:

* `offset`: shift = d. The subject is met, but c was taken with some pose and expression, which d carries into every frame: a
  picture with its eyes half closed makes a video in which they never open.
* `orthogonal`: shift = d - V^T V d. The rows of V are the principal directions of the moving subject's codes, the first few that
  hold `MOTION_SHARE` of their variance. Along these directions the subject moves, so what d says there is taken for pose and
  expression and left out; the pose is then the moving subject's own in every frame. Identity along V is lost, so V must not
  hold more directions than motion has.
* `layers`: the same for each style layer on its own, shift_j = d_j - V_j^T V_j d_j, with directions V_j of layer j alone.
* `shrinkage`: how much of d is pose is weighed, not decided. Along a principal direction v_k of the motion, with variance
  lambda_k, a difference is the sum of a pose, of variance lambda_k, and of identity, of variance tau, which is alike in all
  directions. Its identity part is estimated as tau / (tau + lambda_k) of it (Wiener's filter), so
  shift = d - sum_k lambda_k / (tau + lambda_k) v_k v_k^T d. tau is the fixed point of expectation maximisation: the mean square
  of identity over all directions, given tau. Directions that hardly move, such as noise of an embedding, cost no identity then.
* `regression`: shift = d - (f(c) - f(m)), where the linear f predicts the motion part of a code. It is learned from recordings of
  several subjects, where the motion part is known: a code minus the mean of its subject. With X the codes minus their common
  mean and Y their motion parts, f is ridge regression, B = (X X^T + ridge tr(X X^T) / n I)^-1 Y, f(x) = (x - mean) X^T B.

docs/subjects.md has the measurements behind the default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from networks.errors import InputError
from training.control.keyframes import Keyframes
from training.control.option_types import TRANSFERS

MOTION_SHARE = 0.99
MAX_DIRECTIONS = 64
LAYER_SHARE = 0.95
RIDGE = 0.1
ITERATIONS = 50  # of tau
MAX_FRAMES = 4096  # evenly spread, of which the directions are computed


@dataclasses.dataclass(frozen=True)
class Motion:
    """How a subject moves: its mean code and the principal directions of its codes.

    Attributes:
        mean: [F], F = num_ws * w_dim, float64.
        directions: [K, F], orthonormal, the largest variance first.
        variances: [K], of the codes along each of them.
        total: Variance of the codes in all directions.
    """

    mean: torch.Tensor
    directions: torch.Tensor
    variances: torch.Tensor
    total: float

    def leading(self, share: float) -> torch.Tensor:
        """The first directions that hold this share of the variance, [k, F]."""
        held = self.variances.cumsum(0) / max(self.total, 1e-30)
        count = min(int((held < share).sum()) + 1, len(self.directions))
        return self.directions[:count]


def motion_of(codes: torch.Tensor | np.ndarray, max_directions: int = MAX_DIRECTIONS) -> Motion:
    """Mean and principal directions of codes [T, num_ws, w_dim] of one subject.

    Raises:
        InputError: fewer than two codes, or all the same: there is no motion.
    """
    frames = torch.as_tensor(codes).flatten(1)
    frames = frames[:: max(1, -(-len(frames) // MAX_FRAMES))].double().cpu()
    mean = frames.mean(dim=0)
    centred = frames - mean
    total = float(centred.square().sum() / len(frames))
    if len(frames) < 2 or total <= 1e-12 * max(1.0, float(mean.square().sum())):
        raise InputError('the codes of the subject that moves are all the same, so there is no motion to take over')
    tall = centred.shape[0] >= centred.shape[1]  # the smaller of the two Gram matrices
    values, vectors = torch.linalg.eigh(centred.t() @ centred if tall else centred @ centred.t())
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    count = min(int((values > values[0] * 1e-10).sum()), max_directions)
    values, vectors = values[:count], vectors[:, :count]
    directions = vectors if tall else centred.t() @ vectors / values.sqrt()
    return Motion(mean, directions.t().contiguous(), values / len(frames), total)


def subject_shift(
    method: str,
    motion_codes: torch.Tensor | np.ndarray,
    subject_codes: torch.Tensor | np.ndarray,
    several: Sequence[np.ndarray] | None = None,
) -> torch.Tensor:
    """What is added to the codes of the subject that moves, so that another subject moves like it.

    Args:
        method: One of `TRANSFERS`, see the module's description.
        motion_codes: Codes [T, num_ws, w_dim] of the subject that moves, from recordings or from the temporal model.
        subject_codes: Codes [N, num_ws, w_dim] of the other subject; one is enough.
        several: Codes [T, num_ws, w_dim] of recordings, one subject each, for `regression`.

    Returns:
        [num_ws, w_dim] float32.

    Raises:
        InputError: shapes differ, there is no motion, or `regression` has fewer than three subjects to learn from.
    """
    num_ws, w_dim = motion_codes.shape[1:]
    if tuple(subject_codes.shape[1:]) != (num_ws, w_dim):
        raise InputError(
            f'the codes of the subject are {list(subject_codes.shape[1:])} a frame, and the image generator takes '
            f'[{num_ws}, {w_dim}]; they were made for another one'
        )
    subject = torch.as_tensor(subject_codes).double().cpu().mean(dim=0).flatten()
    if method == 'layers':
        codes = torch.as_tensor(motion_codes)
        parts = []
        for layer, part in enumerate(subject.unflatten(0, (num_ws, w_dim))):
            still = bool((codes[:, layer] == codes[:1, layer]).all())
            parts.append(
                part - codes[0, layer].double().cpu() if still else _orthogonal(codes[:, layer, None], part, LAYER_SHARE)
            )
        return torch.stack(parts).float()
    if method == 'orthogonal':
        shift = _orthogonal(motion_codes, subject, MOTION_SHARE)
    elif method == 'shrinkage':
        shift = _shrinkage(motion_codes, subject)
    elif method == 'offset':
        shift = subject - motion_of(motion_codes, 1).mean
    elif method == 'regression':
        shift = _regression(motion_codes, subject, several or [])
    else:
        raise ValueError(f'{method!r} is none of {", ".join(TRANSFERS)}')
    return shift.unflatten(0, (num_ws, w_dim)).float()


def _orthogonal(motion_codes: torch.Tensor | np.ndarray, subject: torch.Tensor, share: float) -> torch.Tensor:
    motion = motion_of(motion_codes)
    difference = subject - motion.mean
    directions = motion.leading(share)
    return difference - directions.t() @ (directions @ difference)


def _shrinkage(motion_codes: torch.Tensor | np.ndarray, subject: torch.Tensor) -> torch.Tensor:
    motion = motion_of(motion_codes)
    difference = subject - motion.mean
    along = motion.directions @ difference
    across = float(difference.square().sum() - along.square().sum())
    tau = float(difference.square().mean())
    if tau == 0:  # the subject that moves itself
        return difference
    for _ in range(ITERATIONS):
        kept = tau / (tau + motion.variances)
        tau = (across + float(((kept * along).square() + tau * (1 - kept)).sum())) / len(difference)
    return difference - motion.directions.t() @ (along * motion.variances / (tau + motion.variances))


def _regression(motion_codes: torch.Tensor | np.ndarray, subject: torch.Tensor, several: Sequence[np.ndarray]) -> torch.Tensor:
    if len(several) < 3:
        raise InputError(
            f'--transfer=regression learns from recordings of several subjects, at least three, and has {len(several)}; '
            'give a data set of them with --transfer-data, or use --transfer=layers'
        )
    per_subject = max(1, MAX_FRAMES // len(several))
    clips = [torch.as_tensor(np.ascontiguousarray(clip[:: max(1, -(-len(clip) // per_subject))])).flatten(1).double()
             for clip in several]  # fmt: skip
    common = torch.stack([clip.mean(dim=0) for clip in clips]).mean(dim=0)
    inputs = torch.cat([clip - common for clip in clips])
    wanted = torch.cat([clip - clip.mean(dim=0) for clip in clips])
    products = inputs @ inputs.t()
    products.diagonal().add_(RIDGE * float(products.diagonal().mean()))
    weights = torch.linalg.solve(products, wanted)  # [n, F]
    mean = motion_of(motion_codes, 1).mean
    difference = subject - mean
    return difference - (inputs @ difference) @ weights


@dataclasses.dataclass(frozen=True)
class SubjectTransfer:
    """w = w + shift of the subject; over keyframes from one subject to the next.

    Args:
        shifts: [num_ws, w_dim] of each subject.
        frames: Frame in which each of them is met, rising; between two the shift goes over in a straight line.
    """

    shifts: tuple[torch.Tensor, ...]
    frames: tuple[float, ...] = (0.0,)

    def __call__(self, codes: torch.Tensor, first: int) -> torch.Tensor:
        if len(self.shifts) == 1:
            return codes + self.shifts[0].to(codes)
        for index, shift in enumerate(self.shifts):
            weight = Keyframes(self.frames, tuple(float(other == index) for other in range(len(self.shifts))))
            values = torch.as_tensor(weight.at(first, len(codes)), dtype=codes.dtype, device=codes.device)
            codes = codes + values[:, None, None] * shift.to(codes)
        return codes
