"""Statistics of a training, reported anywhere, collected over time and over all ranks.

Every reported value enters the moments (n, mean, M2) of its name, with M2 = sum (x - mean)^2, in float64 and on the
device of the value, without waiting for it; many small values are kept as they are until some have come together, because
a training step reports a dozen. Two sets of values a and b join exactly, without the cancellation of sums
of squares [Chan, Golub, LeVeque 1979]:

    n = n_a + n_b,  d = mean_b - mean_a,  mean = mean_a + d n_b / n,  M2 = M2_a + M2_b + d^2 n_a n_b / n
"""

from __future__ import annotations

import itertools
import re
import weakref
from typing import Any

import torch

import dnnlib

_rank = 0
_sync_device: torch.device | None = None  # None = there is one rank only.
_sync_called = False
_pending: dict[str, dict[torch.device, _Values]] = {}  # Name -> device -> what came since the last exchange.
_known_names: dict[str, None] = {}  # Names that any rank has reported, in order.
_collectors: weakref.WeakSet[Collector] = weakref.WeakSet()

# ----------------------------------------------------------------------------
# Reporting.


def init_multiprocessing(rank: int, sync_device: torch.device | str | None) -> None:
    """Tell this process its rank and the device for exchanging statistics (None = it is the only process).

    Call it once, after `torch.distributed.init_process_group` and before the first Collector.
    """
    global _rank, _sync_device  # noqa: PLW0603
    if _sync_called:
        raise RuntimeError('init_multiprocessing: statistics have been collected already')
    _rank = rank
    _sync_device = None if sync_device is None else torch.device(sync_device)


@torch.no_grad()
def report(name: str, value: Any) -> Any:
    """Add all elements of `value` (a number, list, array or tensor) to the statistic `name`; return `value`."""
    counters = _pending.setdefault(name, {})
    # numbers and lists would become float32
    elements = value.detach() if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=torch.float64)
    if elements.numel():
        counters.setdefault(elements.device, _Values()).add(elements)
    return value


class _Values:
    """Moments of what one name got on one device, and what is not yet in them."""

    MOST = 4096  # elements that wait

    def __init__(self) -> None:
        self._moments: torch.Tensor | None = None
        self._waiting: list[torch.Tensor] = []
        self._num_waiting = 0

    def add(self, elements: torch.Tensor) -> None:
        self._waiting.append(elements.flatten().clone())  # whoever reports may write over it
        self._num_waiting += elements.numel()
        if self._num_waiting >= self.MOST or len(self._waiting) >= self.MOST // 16:
            self.moments()

    def moments(self) -> torch.Tensor:
        """Moments [3] of all elements so far."""
        if self._waiting:
            kind = torch.float32 if self._waiting[0].device.type == 'mps' else torch.float64  # MPS devices have no float64
            elements = torch.cat([each.to(kind) for each in self._waiting])
            self._waiting, self._num_waiting = [], 0
            mean = elements.mean()
            moments = torch.stack([torch.full_like(mean, elements.numel()), mean, (elements - mean).square().sum()])
            self._moments = moments if self._moments is None else _join(self._moments, moments)
        assert self._moments is not None
        return self._moments


def report0(name: str, value: Any) -> Any:
    """Like `report`, but only what rank 0 reports counts; return `value`."""
    report(name, value if _rank == 0 else [])
    return value


def _join(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the moments [..., 3] of both sets of values together."""
    n_a, n_b = a[..., 0], b[..., 0]
    n = n_a + n_b
    share = n_b / n.clamp(min=1)
    d = torch.where((n_a > 0) & (n_b > 0), b[..., 1] - a[..., 1], 0.0)
    mean = torch.where(n_a > 0, a[..., 1] + d * share, b[..., 1])
    return torch.stack([n, mean, a[..., 2] + b[..., 2] + d.square() * n_a * share], dim=-1)


# ----------------------------------------------------------------------------
# Collecting.


class Collector:
    """Mean and standard deviation of the statistics with matching names, between one update and the next."""

    def __init__(
        self,
        regex: str = '.*',  # Names to collect; must match in full.
        keep_previous: bool = True,  # Keep the old value of a name that got no new ones; False = forget it.
    ) -> None:
        self._regex = re.compile(regex)
        self._keep_previous = keep_previous
        self._incoming: dict[str, torch.Tensor] = {}  # Moments since the last update.
        self._moments: dict[str, torch.Tensor] = {}  # Moments of the last interval.
        _exchange()  # what was reported before does not count
        _collectors.add(self)

    def names(self) -> list[str]:
        """Return the matching names that this rank has reported, or any rank before the last exchange."""
        return [name for name in _known_names | dict.fromkeys(_pending) if self._regex.fullmatch(name)]

    def update(self) -> None:
        """Exchange statistics between ranks and start a new interval; all ranks must call it together."""
        _exchange()
        self._moments = (self._moments if self._keep_previous else {}) | self._incoming
        self._incoming = {}

    def num(self, name: str) -> int:
        """Return how many values came in, 0 for none."""
        return int(self._get(name)[0])

    def mean(self, name: str) -> float:
        """Return the mean of the values, NaN for none."""
        count, mean, _ = self._get(name)
        return mean if count else float('nan')

    def std(self, name: str) -> float:
        """Return the standard deviation of the values (divided by their number), NaN for none."""
        count, _, squares = self._get(name)
        return (squares / count) ** 0.5 if count else float('nan')

    def as_dict(self) -> dnnlib.EasyDict:
        """Return {name: {num, mean, std}}."""
        columns = {'num': self.num, 'mean': self.mean, 'std': self.std}
        return dnnlib.EasyDict(
            (name, dnnlib.EasyDict((key, value(name)) for key, value in columns.items())) for name in self.names()
        )

    def __getitem__(self, name: str) -> float:
        """The mean: `collector[name]`."""
        return self.mean(name)

    def _get(self, name: str) -> list[float]:
        moments = self._moments.get(name)
        return [0.0, 0.0, 0.0] if moments is None else moments.tolist()

    def _receive(self, name: str, moments: torch.Tensor) -> None:
        if moments[0] > 0 and self._regex.fullmatch(name):
            before = self._incoming.get(name)
            self._incoming[name] = moments if before is None else _join(before, moments)


def _exchange() -> None:
    """Hand what is pending on all ranks to the collectors of all ranks."""
    global _sync_called  # noqa: PLW0603
    _sync_called = True
    names = list(_pending)
    if _sync_device is not None:  # ranks may know different names
        gathered: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, names)
        names = list(dict.fromkeys(itertools.chain.from_iterable(gathered)))
    if not names:
        return
    moments = torch.zeros([len(names), 3], dtype=torch.float64)
    for index, name in enumerate(names):
        for counter in _pending.get(name, {}).values():
            moments[index] = _join(moments[index], counter.moments().to('cpu', torch.float64))
    _pending.clear()
    if _sync_device is not None:
        own = moments.to(_sync_device)
        of_ranks = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(of_ranks, own)
        moments = torch.zeros_like(moments)
        for other in of_ranks:
            moments = _join(moments, other.cpu())
    _known_names.update(dict.fromkeys(names))
    for collector in list(_collectors):
        for name, row in zip(names, moments, strict=True):
            collector._receive(name, row)
