"""Which rows of a batch are computed where: ranks, and portions of a fixed size.

Of several ranks, all draw the same random numbers, those of the whole batch; each computes its rows of the batch. Where the batch
is computed in portions of a fixed size (`batch_gpu`), each portion takes the part that a rank has otherwise, and gradients are
added up in the order of the portions: then a step is the same to the last bit on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from networks.latent_generator import State
from training.runs.gradients import sum_gradients


class Portions:
    """The rows of this rank.

    Args:
        batch: Of all ranks.
        batch_gpu: Rows of a portion; None: those of a rank.
        rank, num_ranks: Of `torch.distributed`, when it runs.
        random: Where the numbers of the whole batch are drawn from.

    Attributes:
        own: Portions of this rank.
        number: How many there are, on all ranks.

    Raises:
        ValueError: The batch cannot be shared evenly.
    """

    def __init__(self, batch: int, batch_gpu: int | None, rank: int, num_ranks: int, random: torch.Generator) -> None:
        if batch % num_ranks:
            raise ValueError(f'a batch of {batch} cannot be shared evenly by {num_ranks} ranks')
        self.num_ranks, self.number = num_ranks, num_ranks
        if batch_gpu is not None:
            if batch % (batch_gpu * num_ranks):
                raise ValueError(f'a batch of {batch} cannot be shared evenly by {num_ranks} ranks in portions of {batch_gpu}')
            self.number = batch // batch_gpu
        each = self.number // num_ranks
        self.own = range(rank * each, (rank + 1) * each)
        self._present = self.own[0]
        self._random = random

    def part(self, count: int, portion: int | None = None) -> slice:
        """The rows of a portion, by default the present one, of `count` rows.

        Where they cannot be shared evenly, each portion computes them all.
        """
        if count % self.number:
            return slice(0, count)
        own = count // self.number
        portion = self._present if portion is None else portion
        return slice(portion * own, (portion + 1) * own)

    def parts(self, count: int) -> list[slice]:
        """The rows of all portions of this rank."""
        return [self.part(count, portion) for portion in self.own]

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all ranks, without a gradient."""
        if self.num_ranks == 1:
            return rows
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(self.num_ranks)]
        torch.distributed.all_gather(parts, rows.detach().contiguous())
        return torch.cat(parts)

    def gather_state(self, state: State) -> State:
        """The memories of all ranks, in one message."""
        if self.num_ranks == 1:
            return state
        return self.gather(torch.cat(state, dim=1)).split([h.shape[1] for h in state], dim=1)

    def average_gradients(self, module: torch.nn.Module, compute: Callable[[], None]) -> None:
        """Leave in the module the mean of the gradients that `compute` leaves there for each portion, over all ranks."""
        if self.number == self.num_ranks:
            compute()
            sum_gradients(module.parameters(), self.num_ranks, divisor=self.num_ranks)
            return
        drawn = self._random.get_state()
        rows = []
        for portion in self.own:
            self._present = portion
            self._random.set_state(drawn)  # every portion draws the numbers of the whole batch, as every rank does
            compute()
            rows.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
        # In one order, however many ranks there are: sums of sums would round differently.
        mean = self.gather(torch.stack(rows)).sum(dim=0) / self.number
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        for gradient, value in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(value.view_as(gradient))


class JoinedStates(Sequence[State]):
    """The states of several portions, as of one rollout of all their rows."""

    def __init__(self, portions: Sequence[Sequence[State]]) -> None:
        self._portions = portions

    def __len__(self) -> int:
        return len(self._portions[0])

    def __getitem__(self, time: Any) -> Any:
        return tuple(torch.cat(column) for column in zip(*(states[time] for states in self._portions), strict=True))
