"""How many threads a training step on a processor takes: measured on the first steps, where nothing but the time depends on it.

Small steps are slower with several threads, the more so where cores have other work, so the number of cores is a bad guess. But
sums that are split among threads round differently, and a training should depend on its seed alone. So there is a choice only
where a step with penalties gives the same weights, bit by bit, with every number; elsewhere it stays at what PyTorch takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence

import torch

SAID_BY_USER = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')
STEPS = 4  # timed with each number
WORTH = 0.9  # of the time, from which on more threads are taken
HOPELESS = 1.5  # times the least time, from which on a number is given up


@dataclasses.dataclass(frozen=True)
class Choice:
    """Threads for a step, and why.

    Attributes:
        threads: The number.
        reason: In words; empty where nothing was to be chosen.
    """

    threads: int
    reason: str = ''


def is_open() -> bool:
    """Whether there is something to choose: several threads, and no word of the user's about them."""
    return torch.get_num_threads() > 1 and not any(os.environ.get(name) for name in SAID_BY_USER)


def choose(step: Callable[[], None], reset: Callable[[], None], result: Callable[[], Sequence[torch.Tensor]]) -> Choice:
    """The number with which a step is fastest on the clock, of 1, 2 and all.

    Args:
        step: Takes one.
        reset: Brings everything back to where it was, so that the same steps come again.
        result: What the steps have changed.
    """
    most = torch.get_num_threads()
    numbers = sorted({1, min(2, most), most})
    outcomes: list[list[torch.Tensor]] = []
    for number in numbers:
        reset()
        with using(number):
            step()
        outcomes.append([tensor.detach().clone() for tensor in result()])
        if any(not torch.equal(*pair) for pair in zip(outcomes[0], outcomes[-1], strict=True)):
            reset()
            return Choice(most, 'the result depends on their number')
    best, seconds = numbers[0], float('inf')
    found = {}
    for number in numbers:
        reset()
        with using(number):
            found[number] = _seconds(step, HOPELESS * seconds)
        if found[number] < (WORTH if number != best else 1) * seconds:
            best, seconds = number, found[number]
    reset()
    times = ', '.join(f'{value * 1e3:.0f} ms with {number}' for number, value in found.items())
    return Choice(best, f'a step takes {times}')


def _seconds(step: Callable[[], None], limit: float) -> float:
    """Of one step, or of the first ones where they are slower than `limit`."""
    begin = time.perf_counter()
    for count in range(1, STEPS + 1):
        step()
        mean = (time.perf_counter() - begin) / count
        if mean * count > limit * STEPS:
            break
    return mean


@contextlib.contextmanager
def using(number: int | None) -> Iterator[None]:
    """In the block PyTorch computes with so many threads; None: as it did."""
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
