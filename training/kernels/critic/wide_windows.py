"""Windows of whole codes for the critic, as what they are made of: thousands of numbers a frame that are never written down.

The critic's first layer is linear, and so is all that lies before it: the maps A_j of the generator (x = t A^T + b, with t as
wide as the last layer of T), and the motion beside the frames ([y_k, (y_k - y_{k-1}) u], the first motion zero). Its sums W x and
its gradients g^T x are then products with small matrices,

    W x = t (W A)^T + W b            g^T x = (g^T t) A^T + (sum of g) b^T
    W [y, motion] = [W_1; W_2 u] y, the second half as differences over time

exactly, but for rounding. Real windows have no such factors. They overlap: a frame that several of them show goes through the
products once, and none is copied.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch

from training.kernels.critic.wide_products import times, times_transposed, transposed_times


@dataclasses.dataclass(frozen=True)
class Factored:
    """Windows t A^T + b: t `[N, T, r]`, A `[F, r]`, b `[F]`."""

    t: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, samples: Any) -> Factored:
        return dataclasses.replace(self, t=self.t[samples])

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.t.shape[:2], len(self.weight))  # type: ignore[return-value]

    def dense(self) -> torch.Tensor:
        if torch.is_grad_enabled():
            return self.t @ self.weight.t() + self.bias
        return times_transposed(self.t.flatten(0, 1), self.weight).add_(self.bias).view(self.shape)

    def sums(self, weight: torch.Tensor) -> torch.Tensor:
        """W x of every frame, `[N, T, O]`, for W `[O, F]`."""
        return self.sums_through(times(weight, self.weight), weight)

    def sums_through(self, product: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The same where W A `[O, r]` is known."""
        return (times_transposed(self.t.flatten(0, 1), product) + weight @ self.bias).view(*self.t.shape[:2], -1)

    def weight_gradient(self, g: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """g^T x, `[O, F]`, for gradients g `[N, T, O]` of the sums; added to what is in `onto`, if that is given."""
        flat = g.flatten(0, 1)
        total = times_transposed(transposed_times(flat, self.t.flatten(0, 1)), self.weight, onto=onto)
        return total.addr_(flat.sum(dim=0), self.bias)


@dataclasses.dataclass(frozen=True)
class Frames:
    """Windows that are there: x `[N, T, F]`."""

    x: torch.Tensor

    def __getitem__(self, samples: Any) -> Frames:
        return Frames(self.x[samples])

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.x.shape  # type: ignore[return-value]

    def dense(self) -> torch.Tensor:
        return self.x

    def sums(self, weight: torch.Tensor) -> torch.Tensor:
        """See Factored."""
        return times_transposed(self.x.flatten(0, 1), weight).view(*self.x.shape[:2], -1)

    def weight_gradient(self, g: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """See Factored."""
        return transposed_times(g.flatten(0, 1), self.x.flatten(0, 1), onto=onto)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Windows y[index] out of all frames: y `[frames, F]`, index `[N, T]`."""

    y: torch.Tensor
    index: torch.Tensor

    def __getitem__(self, samples: Any) -> Chosen:
        return Chosen(self.y, self.index[samples])

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.index.shape, self.y.shape[1])  # type: ignore[return-value]

    def dense(self) -> torch.Tensor:
        return self.y[self.index]

    @functools.cached_property
    def _distinct(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The frames that are shown, each once, and the place of every one of `[N T]` among them."""
        distinct, place = torch.unique(self.index, return_inverse=True)
        return distinct, place.flatten()

    @property
    def _fixed(self) -> bool:
        """Whether the number of frames may not depend on what they are, as on GPUs (training/kernels/step_graphs.py)."""
        return self.y.device.type != 'cpu'

    def sums(self, weight: torch.Tensor) -> torch.Tensor:
        """See Factored."""
        if self._fixed:
            return Frames(self.dense()).sums(weight)
        distinct, place = self._distinct
        return times_transposed(self.y, weight, distinct)[place].view(*self.index.shape, -1)

    def weight_gradient(self, g: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """See Factored."""
        if self._fixed:
            return Frames(self.dense()).weight_gradient(g, onto)
        distinct, place = self._distinct
        of_distinct = g.new_zeros(len(distinct), g.shape[2]).index_add_(0, place, g.flatten(0, 1))
        return transposed_times(of_distinct, self.y, distinct, onto)


@dataclasses.dataclass(frozen=True)
class Joined:
    """Windows that begin with frames which are there, and go on with factors."""

    before: Frames
    after: Factored

    def __getitem__(self, samples: Any) -> Joined:
        return Joined(self.before[samples], self.after[samples])

    @property
    def shape(self) -> tuple[int, int, int]:
        count, length, size = self.after.shape
        return count, self.before.shape[1] + length, size

    def dense(self) -> torch.Tensor:
        return torch.cat([self.before.dense(), self.after.dense()], dim=1)

    def sums(self, weight: torch.Tensor) -> torch.Tensor:
        """See Factored."""
        return torch.cat([self.before.sums(weight), self.after.sums(weight)], dim=1)

    def weight_gradient(self, g: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """See Factored."""
        before, after = g.split([self.before.shape[1], self.after.shape[1]], dim=1)
        return self.after.weight_gradient(after, self.before.weight_gradient(before, onto))


@dataclasses.dataclass(frozen=True)
class WithMotion:
    """Windows y with their motion beside them, (y_k - y_{k-1}) u with u `[F]`: 2 F numbers a frame."""

    y: Factored | Frames | Chosen | Joined
    unit: torch.Tensor

    def __getitem__(self, samples: Any) -> WithMotion:
        return WithMotion(self.y[samples], self.unit)

    @property
    def shape(self) -> tuple[int, int, int]:
        count, length, size = self.y.shape
        return count, length, 2 * size

    def dense(self) -> torch.Tensor:
        y = self.y.dense()
        return torch.cat([y, torch.nn.functional.pad(torch.diff(y, dim=1) * self.unit, (0, 0, 1, 0))], dim=2)

    def both(self, weight: torch.Tensor) -> torch.Tensor:
        """Weights `[2 O, F]` of y alone, whose sums give those of W `[O, 2 F]`."""
        frames, motion = weight.chunk(2, dim=1)
        return torch.cat([frames, motion * self.unit])

    @staticmethod
    def joined(sums: torch.Tensor) -> torch.Tensor:
        """The sums `[N, T, O]` out of those of y `[N, T, 2 O]`."""
        frames, motion = sums.chunk(2, dim=2)
        frames[:, 1:] += torch.diff(motion, dim=1)
        return frames

    def sums(self, weight: torch.Tensor) -> torch.Tensor:
        """See Factored."""
        return self.joined(self.y.sums(self.both(weight)))

    @staticmethod
    def spread(g: torch.Tensor) -> torch.Tensor:
        """Gradients `[N, T, 2 O]` of the sums of y out of those g `[N, T, O]` of the sums."""
        motion = torch.nn.functional.pad(g[:, 1:], (0, 0, 1, 0))
        motion[:, :-1] -= g[:, 1:]
        return torch.cat([g, motion], dim=2)


Windows = Factored | Frames | Chosen | Joined | WithMotion


def weight_gradient(pairs: Sequence[tuple[Windows, torch.Tensor]], out: torch.Tensor) -> None:
    """Put the sum of g^T x over all (x, g) into out `[O, F]`; where one x has its motion beside it, all have, in one unit."""
    unit, total = None, None
    for x, g in pairs:
        if isinstance(x, WithMotion):
            unit = x.unit
            total = x.y.weight_gradient(x.spread(g), total)
        else:
            total = x.weight_gradient(g, total)
    assert total is not None
    if unit is None:
        out.copy_(total)
    else:
        frames, motion = total.chunk(2)
        torch.cat([frames, motion.mul_(unit)], dim=1, out=out)


def as_windows(x: torch.Tensor | Windows) -> Windows:
    return Frames(x) if isinstance(x, torch.Tensor) else x


def as_tensor(x: torch.Tensor | Windows) -> torch.Tensor:
    return x if isinstance(x, torch.Tensor) else x.dense()
