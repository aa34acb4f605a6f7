"""Times of calls on a GPU."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def milliseconds(function: Callable[[], Any], repeats: int = 30) -> float:
    """Return the median time of a call on the GPU."""
    for _ in range(5):
        function()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def copy_speed(device: torch.device) -> float:
    """Bytes read and written, in 10^9 a second, of the largest plain copy."""
    source = torch.randn(1 << 29, device=device, dtype=torch.float16)
    copied = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda: copied.copy_(source)) / 1e6


def seconds_per_step(step: Callable[[], None], steps: int) -> float:
    """Return the mean time of a step on the GPU, seconds."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / steps
