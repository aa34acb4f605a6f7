"""Words and progress on standard error."""

import math
import sys
from typing import IO, Any

from tqdm import tqdm


def report(sentence: str) -> None:
    """Say something on standard error, without tearing a progress bar that is being drawn."""
    tqdm.write(sentence, file=sys.stderr)


class _ProgressLines(tqdm):  # type: ignore[type-arg,unused-ignore]
    """Progress for a log file: a whole line each time, none when the work is done before the first one is due."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.fp.write(f'{msg if msg is not None else self}\n')
        self.fp.flush()

    def clear(self, *args: Any, **kwargs: Any) -> None:
        """A written line stays."""

    def close(self) -> None:
        if not self.disable:
            if self.last_print_t >= self.start_t + (self.delay or 0):
                self.display()
            self.delay = math.inf  # tqdm's own closing is made for a bar; it writes nothing before the delay is over
        super().close()


def progress(
    *,
    total: float | None,
    description: str,
    unit: str = 'frame',
    initial: float = 0,
    every_seconds: float = 10.0,
    file: IO[str] | None = None,
) -> 'tqdm[Any]':
    """Show how far a long work is and how long it will still take, on standard error.

    A terminal gets a bar; anything else (a log, a pipe) gets one line every `every_seconds` seconds. Use it as a
    context manager and call `.update(n)` after n units.

    Args:
        total: Number of units, None when it is not known.
        description: What is being done.
        unit: Name of one unit.
        initial: Units that were done by an earlier run.
        every_seconds: Time between two lines where there is no terminal, seconds.
        file: Where to, standard error by default.
    """
    stream = sys.stderr if file is None else file
    if getattr(stream, 'isatty', lambda: False)():  # the host's Logger, which may stand for stderr, has no such method
        return tqdm(total=total, desc=description, unit=unit, initial=initial, file=stream, dynamic_ncols=True)
    if total is None:
        line = '{desc}: {n_fmt} {unit}s in {elapsed}, {rate_fmt}'
    else:
        line = '{desc}: {n_fmt} of {total_fmt} {unit}s ({percentage:.0f}%), {elapsed} gone, {remaining} left'
    return _ProgressLines(
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        file=stream,
        bar_format=line,
        mininterval=every_seconds,
        miniters=1,
        delay=every_seconds,
    )
