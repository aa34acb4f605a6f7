"""Windows of whole codes: of what a critic sees of them, and what chains keep, only that much is written down.

A generated window of the largest spacing is hundreds of frames of thousands of numbers. Its newest frames are factors
(training/kernels/critic/wide_windows.py); of the past of its chain a critic sees one frame in `stride`: only these are copied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from networks.latent_generator import LatentGenerator, State
from training.batches.video_chains import VideoChains
from training.kernels.critic.wide_windows import Chosen, Factored, Frames, Joined, Windows, WithMotion


@dataclasses.dataclass(frozen=True)
class Generated:
    """Generated windows and what lies before them, for the critic of each spacing.

    Attributes:
        window: The newest t frames [N, t, F].
        before: For each spacing the earlier frames that its critic sees [N, frames, F]; none for all where chains keep no past.
    """

    window: Factored
    before: Sequence[torch.Tensor]

    def __len__(self) -> int:
        return len(self.window)


class WholeCodes:
    """Which frames of a window the critics see.

    Args:
        num_frames: t.
        strides: Spacings, smallest first.
        units: For each spacing what motion is multiplied with [F]; none where the critics see no motion.
    """

    def __init__(self, num_frames: int, strides: Sequence[int], units: Sequence[torch.Tensor]) -> None:
        self.num_frames, self.strides, self.units = num_frames, strides, units
        self.span = (num_frames - 1) * strides[-1] + 1

    def times(self, stride: int) -> range:
        """Frames of the longest view that this one shows."""
        return range(self.span - 1 - (self.num_frames - 1) * stride, self.span, stride)

    def before(self, chains: WholeCodeChains, chosen: torch.Tensor) -> list[torch.Tensor]:
        """Copies of what each critic sees of the past of these chains [N]."""
        past = range(self.span - self.num_frames)
        return [chains.frames(chosen, [time for time in self.times(stride) if time in past]) for stride in self.strides]

    def real(self, coordinates: torch.Tensor, frames: torch.Tensor) -> list[Windows]:
        """What the critics see of the footage [all frames, F], of which `frames` [N, span] are rows."""
        return self._with_motion([Chosen(coordinates, frames[:, self.times(stride)]) for stride in self.strides])

    def generated(self, y: Generated) -> list[Windows]:
        """What the critics see of generated windows."""
        views: list[Factored | Frames | Chosen | Joined] = []
        first = self.span - self.num_frames  # frame at which the window begins
        for index, stride in enumerate(self.strides):
            times = [time - first for time in self.times(stride) if time >= first]
            inside = y.window if len(times) == self.num_frames else dataclasses.replace(y.window, t=y.window.t[:, times])
            before = y.before[index] if y.before else None
            views.append(inside if before is None or before.shape[1] == 0 else Joined(Frames(before), inside))
        return self._with_motion(views)

    def _with_motion(self, views: Sequence[Factored | Frames | Chosen | Joined]) -> list[Windows]:
        return [WithMotion(*pair) for pair in zip(views, self.units, strict=True)] if self.units else list(views)


class WholeCodeChains(VideoChains):
    """Chains whose past is a ring: new frames take the place of the oldest, and no other is moved."""

    _ring: torch.Tensor
    _oldest: torch.Tensor

    @property  # type: ignore[override]
    def past(self) -> torch.Tensor:
        """See VideoChains; a copy."""
        return self.frames(torch.arange(self.num_chains, device=self._ring.device), range(self.past_frames))

    @past.setter
    def past(self, past: torch.Tensor) -> None:
        self._ring, self._oldest = past, torch.zeros(len(past), dtype=torch.long, device=past.device)

    def frames(self, chosen: torch.Tensor, times: Sequence[int]) -> torch.Tensor:
        """Frames of the past of these chains [N, times, F]; 0 is the oldest."""
        places = self._oldest[chosen].unsqueeze(1) + torch.tensor(list(times), dtype=torch.long, device=self._ring.device)
        return self._ring[chosen.unsqueeze(1), places % max(self.past_frames, 1)]

    def advance(self, chosen: torch.Tensor, state: State, y: torch.Tensor) -> None:
        """See VideoChains."""
        for kept, h in zip(self.memories, state, strict=True):
            kept[chosen] = h
        if self.past_frames == 0:
            return
        y = y[:, -self.past_frames :]
        oldest = self._oldest[chosen]
        places = oldest.unsqueeze(1) + torch.arange(y.shape[1], device=oldest.device)
        self._ring[chosen.unsqueeze(1), places % self.past_frames] = y
        self._oldest[chosen] = (oldest + y.shape[1]) % self.past_frames

    def restart(self, G: LatentGenerator, chosen: torch.Tensor) -> None:
        """See VideoChains."""
        memories, past = self._fresh(G, len(chosen))
        for kept, h in zip(self.memories, memories, strict=True):
            kept[chosen] = h
        self._ring[chosen] = past
        self._oldest[chosen] = 0
