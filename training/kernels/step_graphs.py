"""CUDA graphs for a training step: its thousands of small kernels are launched as one, over and over.

A step of the temporal GAN is bound by the launches: each of its operations takes a GPU a few microseconds, and the processor
longer than that to ask for it. Here every phase of a step (the critic's updates, the generator's without and with penalties) is
recorded once as a graph and replayed from then on. What a phase does may therefore depend on tensors, random generators and
settings only, never on a number that has to be fetched from the GPU, and its tensors stay where they are.

A phase runs as plain operations at first, which also prepares all that may not be prepared while recording. When it is recorded,
the graph and the plain operations go through the same step from the same state; unless both end in the same place, and when
anything else fails, one line says so and the plain operations stay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from torch_utils import training_stats

PLAIN_RUNS = 2  # of a phase before it is recorded
TOLERANCE = 0.02  # difference of the two ways, as a share of what the step changed: rounding, which Adam makes larger

Phase = Callable[[], None]


class Graph(Protocol):
    """What is recorded: torch.cuda.CUDAGraph, or something like it."""

    def replay(self) -> None: ...


@dataclasses.dataclass
class _Recorded:
    runs: int = 0
    graph: Graph | None = None
    reports: list[tuple[str, torch.Tensor]] = dataclasses.field(default_factory=list)  # tensors that the graph writes
    kept: list[Any] = dataclasses.field(default_factory=list)  # what the graph reads and nothing else may own


class StepGraphs:
    """The phases of one trainer.

    Args:
        device: A CUDA device; any device for a recorder of one's own.
        random: Source of the random numbers of all phases.
        state: Returns all tensors that a step changes, in groups that are compared as one; their places do not change.
        kept: Returns what a recorded phase reads besides, such as buffers in caches.
        record: Makes a graph of a phase; None: of CUDA.

    Attributes:
        enabled: Whether phases are recorded still.
    """

    def __init__(
        self,
        device: torch.device,
        random: torch.Generator,
        state: Callable[[], dict[str, list[torch.Tensor]]],
        kept: Callable[[], list[Any]] = list,
        record: Callable[[Phase], Graph] | None = None,
    ) -> None:
        self.enabled = True
        self._random, self._state, self._kept = random, state, kept
        # Never the default stream: nodes of autograd that were made there would draw it into the recording.
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None
        self._record = self._record_cuda if record is None else record
        self._phases: dict[str, _Recorded] = {}
        self._reports: list[tuple[str, torch.Tensor]] | None = None

    def reset(self) -> None:
        """Forget all graphs, because tensors have moved; they are recorded again."""
        self._phases.clear()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Around all phases of a step, and what lies between them."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def report(self, name: str, value: torch.Tensor) -> None:
        """training_stats.report for a phase: every replay reports anew."""
        if self._reports is None:
            training_stats.report(name, value)
        else:
            self._reports.append((name, value.detach()))

    def run(self, name: str, phase: Phase) -> None:
        """Run a phase, as its graph where there is one."""
        recorded = self._phases.setdefault(name, _Recorded())
        if recorded.graph is None:
            recorded.runs += 1
            if self.enabled and recorded.runs > PLAIN_RUNS:
                self._record_and_run(name, recorded, phase)
            else:
                phase()
            return
        recorded.graph.replay()
        for statistic, value in recorded.reports:
            training_stats.report(statistic, value)

    def _record_and_run(self, name: str, recorded: _Recorded, phase: Phase) -> None:
        before, random = self._copy(), self._random.get_state()
        try:
            self._reports = []
            try:
                graph = self._record(phase)
                reports = self._reports
            finally:
                self._reports = None
            graph.replay()
            by_graph = self._copy()
            self._restore(before)
            self._random.set_state(random)
            phase()  # the step that counts
            difference = self._difference(before, by_graph)
            if not difference <= TOLERANCE:
                raise RuntimeError(f'the graph of {name!r} ends elsewhere than the plain operations, by {difference:.1%}')
            recorded.graph, recorded.reports, recorded.kept = graph, reports, self._kept()
        except (RuntimeError, AttributeError) as error:
            self.enabled = False
            self._phases.clear()
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            print(f'CUDA graphs are off, the training goes on without: {reason}', file=sys.stderr, flush=True)
            self._restore(before)
            self._renew_generator(random)
            phase()

    def _copy(self) -> dict[str, list[torch.Tensor]]:
        return {name: [x.detach().clone() for x in tensors] for name, tensors in self._state().items()}

    @torch.no_grad()
    def _restore(self, values: dict[str, list[torch.Tensor]]) -> None:
        for name, tensors in self._state().items():
            for x, value in zip(tensors, values[name], strict=True):
                x.copy_(value)

    def _renew_generator(self, random: torch.Tensor) -> None:
        """A recording that broke off leaves the generator in a state that draws nothing more: it gets a new one."""
        if self._random.device.type == 'cuda':
            self._random.graphsafe_set_state(torch.Generator(self._random.device))
        self._random.set_state(random)

    @torch.no_grad()
    def _difference(self, before: dict[str, list[torch.Tensor]], by_graph: dict[str, list[torch.Tensor]]) -> float:
        """Largest, over all groups, of ||graph - plain|| / ||plain - before||; where nothing was changed, nothing may be."""
        shares = [0.0]
        for name, tensors in self._state().items():
            rows = zip(tensors, before[name], by_graph[name], strict=True)
            squares = [
                torch.stack([(now - old).double().square().sum(), (other - now).double().square().sum()])
                for now, old, other in rows
            ]
            changed, apart = torch.stack(squares).sum(dim=0).sqrt().tolist()
            shares.append(0.0 if apart == 0 else apart / changed if changed > 0 and math.isfinite(apart) else math.inf)
        return max(shares)

    def _record_cuda(self, phase: Phase) -> Graph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._random)
        with torch.cuda.graph(graph, stream=self._stream):
            phase()
        return graph
