"""Windows of whole codes for the critic, as what they are made of: thousands of numbers a frame that are never written down.

The critic's first layer is linear, and so is all that lies before it: the maps A_j of the generator (x = t A^T + b, with t as
wide as the last layer of T), and the motion beside the frames ([y_k, (y_k - y_{k-1}) u], the first motion zero). Its sums W x and
its gradients g^T x are then products with small matrices,

    W x = t (W A)^T + W b            g^T x = (g^T t) A^T + (sum of g) b^T
    W [y, motion] = [W_1; W_2 u] y, the second half as differences over time

exactly, but for rounding. Real windows have no such factors; for them the second line saves the motion.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch


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
        return self.t @ self.weight.t() + self.bias

    def sums(self, weight: torch.Tensor) -> torch.Tensor:
        """W x of every frame, `[N, T, O]`, for W `[O, F]`."""
        return self.t @ (weight @ self.weight).t() + weight @ self.bias

    def weight_gradient(self, g: torch.Tensor) -> torch.Tensor:
        """g^T x, `[O, F]`, for gradients g `[N, T, O]` of the sums."""
        flat = g.reshape(-1, g.shape[2])
        return torch.addmm(torch.outer(flat.sum(dim=0), self.bias), flat.t() @ self.t.reshape(len(flat), -1), self.weight.t())


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
        return self.x @ weight.t()

    def weight_gradient(self, g: torch.Tensor) -> torch.Tensor:
        """See Factored."""
        return g.reshape(-1, g.shape[2]).t() @ self.x.reshape(-1, self.x.shape[2])


@dataclasses.dataclass(frozen=True)
class WithMotion:
    """Windows y with their motion beside them, (y_k - y_{k-1}) u with u `[F]`: 2 F numbers a frame."""

    y: Factored | Frames
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

    def sums(self, weight: torch.Tensor) -> torch.Tensor:
        """See Factored."""
        frames, motion = self.y.sums(self.both(weight)).chunk(2, dim=2)
        frames[:, 1:] += torch.diff(motion, dim=1)
        return frames

    @staticmethod
    def spread(g: torch.Tensor) -> torch.Tensor:
        """Gradients `[N, T, 2 O]` of the sums of y out of those g `[N, T, O]` of the sums."""
        motion = torch.nn.functional.pad(g[:, 1:], (0, 0, 1, 0))
        motion[:, :-1] -= g[:, 1:]
        return torch.cat([g, motion], dim=2)

    def weight_gradient(self, g: torch.Tensor) -> torch.Tensor:
        """See Factored."""
        frames, motion = self.y.weight_gradient(self.spread(g)).chunk(2)
        return torch.cat([frames, motion * self.unit], dim=1)


Windows = Factored | Frames | WithMotion


def as_windows(x: torch.Tensor | Windows) -> Windows:
    return Frames(x) if isinstance(x, torch.Tensor) else x


def as_tensor(x: torch.Tensor | Windows) -> torch.Tensor:
    return x if isinstance(x, torch.Tensor) else x.dense()
