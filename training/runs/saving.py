"""When a training saves its state, and what becomes of it when the disk or the numbers fail."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator, Mapping

import torch

from networks.errors import InputError, option
from training.commands import command_line

STEPS_BETWEEN_CHECKS = 10  # of whether all weights are numbers
MOST_ROLLBACKS = 3
DISK_ERRORS = {
    getattr(errno, name)
    for name in ('ENOSPC', 'EDQUOT', 'EIO', 'EROFS', 'EFBIG', 'EACCES', 'EPERM', 'ENOENT', 'ESTALE', 'ETIMEDOUT', 'ENODEV')
    if hasattr(errno, name)
}


class Clock:
    """Tells when the next state is due: `minutes` after the last one; 0: never."""

    def __init__(self, minutes: float) -> None:
        self._seconds = minutes * 60
        self.restart()

    def restart(self) -> None:
        """A state was saved, or it was tried."""
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether a state should be saved now."""
        return self._seconds > 0 and time.monotonic() - self._last >= self._seconds


@contextlib.contextmanager
def tolerating(say: Callable[[str], None], what: str, *, stop: bool) -> Iterator[None]:
    """Go on after the block when a disk cannot take what it writes, with a sentence about it.

    Args:
        say: Says the sentence.
        what: What is written ('the snapshot').
        stop: Raise anyway.

    Raises:
        InputError: What could not be written and why, with `stop`.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError):
            if error.errno not in DISK_ERRORS:
                raise
            reason = command_line.describe_os_error(error)
        else:
            described = command_line.describe_torch_write_error(error)
            if described is None:
                raise
            reason = described
        if stop:
            raise InputError(f'{what} could not be written: {reason}') from error
        say(f'Warning: {what} could not be written, and the training goes on: {reason.split(";")[0]}')


def interrupted(state_is_lost: bool) -> str:
    """What a training says that somebody has stopped; `state_is_lost`: the disk did not take its last state."""
    if state_is_lost:
        return 'Interrupted; the last state could not be written, so the same command goes on from the one before it'
    return 'Interrupted; everything is saved.'


def diverged(sentence: str, run_dir: str, rates: str, on_nan: str) -> InputError:
    """The error with which a training ends that has diverged.

    Args:
        sentence: Where, and what is no number.
        run_dir: Its folder.
        rates: Options that should be lower.
        on_nan: What was to be done ('stop', 'rollback').
    """
    advice = '' if on_nan == 'rollback' else f', or add {option("on_nan", "rollback")}'
    return InputError(f'{sentence}; what {run_dir} holds is from before that. Start over with lower {rates}{advice}')


def first_bad_weight(modules: Mapping[str, torch.nn.Module]) -> str:
    """Name the first weight that is no number: 'the weight C.layers.0.weight[3, 1] is nan'."""
    return _first_bad(modules, lambda parameter: parameter.detach(), 'weight')


def first_bad_gradient(modules: Mapping[str, torch.nn.Module]) -> str:
    """Name the first part of a gradient that is no number: 'the gradient of C.layers.0.weight[3, 1] is inf'."""
    return _first_bad(modules, lambda parameter: parameter.grad, 'gradient of')


def _first_bad(
    modules: Mapping[str, torch.nn.Module], values: Callable[[torch.nn.Parameter], torch.Tensor | None], kind: str
) -> str:
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters():
            value = values(parameter)
            if value is None:
                continue
            bad = ~torch.isfinite(value)
            if bad.any():
                place = bad.nonzero()[0].tolist()
                return f'the {kind} {prefix}.{name}[{", ".join(map(str, place))}] is {value[tuple(place)].item()}'
    return f'a {kind.split()[0]} is not a number'


def is_finite(*modules: torch.nn.Module) -> bool:
    """Whether all parameters are numbers."""
    return all(bool(torch.isfinite(parameter).all()) for module in modules for parameter in module.parameters())
