"""How far several steps are together, and how long all of them will still take.

Before a step has begun, its time is estimated from what one picture of the image generator costs on this machine; while it runs,
from the part of it that is done; and the estimates of later steps are scaled as earlier ones turned out.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from training.commands import command_line

EVERY_SECONDS = 15.0  # between two lines where there is no terminal
KNOWN_PART = 0.03  # of a step, from which on its own pace counts
LOOKING = 0.05  # of an embedding, part for the first look
LARGEST_SCALE = 20.0  # of estimates, by how earlier steps turned out

# Lines of the commands: training.commands.command_line.progress, and the ticks of a training.
_PROGRESS = re.compile(r'^(?P<what>.+): \S+ of \S+ \w+s \((?P<percent>\d+)%\), \S+ gone, \S+ left$')
_TICK = re.compile(r'^tick \d+ +kimg (?P<kimg>[\d.]+) ')


def part_done(line: str, total_kimg: float) -> float | None:
    """How much of a step is done, 0 to 1, where one of its lines says so; else None."""
    if (found := _PROGRESS.match(line)) is not None:
        part = int(found['percent']) / 100
        if found['what'].startswith('looking at '):  # every recording is looked at before the first clip is embedded
            return LOOKING * part
        if (clip := re.match(r'clip (\d+)/(\d+) ', found['what'])) is not None:
            return LOOKING + (1 - LOOKING) * (int(clip[1]) - 1 + part) / int(clip[2])
        return part
    if (found := _TICK.match(line)) is not None:
        return min(float(found['kimg']) / total_kimg, 1.0)
    return None


class Status:
    """Words on all steps.

    Args:
        names: What each step does.
        estimates: Seconds that each may take.
        clock: Seconds, for tests.
    """

    def __init__(self, names: Sequence[str], estimates: Sequence[float], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._names, self._estimates, self._clock = names, list(estimates), clock
        self._step, self._part, self._begin = 0, 0.0, clock()
        self._first_part = 0.0  # done by an earlier run
        self._scale = 1.0
        self._said = -EVERY_SECONDS
        self._bar = tqdm(total=None, bar_format='{desc}', file=sys.stderr) if sys.stderr.isatty() else None

    def begin(self, step: int) -> None:
        """A step begins; those before it are done."""
        self._step, self._part, self._begin, self._first_part = step, 0.0, self._clock(), -1.0
        self._say(always=True)

    def update(self, part: float) -> None:
        """So much of the step is done."""
        if self._first_part < 0:  # what the first line says may be the work of an earlier run
            self._first_part, self._begin = part, self._clock()
        self._part = max(self._part, part)
        self._say()

    def end(self) -> None:
        """The step is done."""
        if self._estimates[self._step] > 0:
            done = 1 - max(self._first_part, 0.0)
            if done > KNOWN_PART:
                seconds = (self._clock() - self._begin) / done
                self._scale = min(max(seconds / self._estimates[self._step], 1 / LARGEST_SCALE), LARGEST_SCALE)
        self._part = 1.0

    def remaining(self) -> float:
        """Seconds that all steps will still take, about."""
        own = self._estimates[self._step] * self._scale * (1 - self._part)
        done = self._part - max(self._first_part, 0.0)
        scale = self._scale
        if done > KNOWN_PART:
            pace = (self._clock() - self._begin) / done
            own = pace * (1 - self._part)
            if self._estimates[self._step] > 0:
                scale = min(max(pace / self._estimates[self._step], 1 / LARGEST_SCALE), LARGEST_SCALE)
        return own + scale * sum(self._estimates[self._step + 1 :])

    def close(self) -> None:
        """Take the words off a terminal."""
        if self._bar is not None:
            self._bar.close()

    def _say(self, *, always: bool = False) -> None:
        now = self._clock()
        if not always and self._bar is None and now - self._said < EVERY_SECONDS:
            return
        self._said = now
        text = (
            f'Step {self._step + 1} of {len(self._names)}, {self._names[self._step]}: {100 * self._part:.0f} %; '
            f'about {in_words(self.remaining())} left for all steps'
        )
        if self._bar is not None:
            self._bar.set_description_str(text)
        else:
            command_line.report(text)


def in_words(seconds: float) -> str:
    """A time for a person: 4000 returns '1 h 10 min'."""
    if seconds < 90:
        return f'{max(round(seconds / 10), 1) * 10} s'
    minutes = round(seconds / 60) if seconds < 1800 else round(seconds / 600) * 10
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min' if minutes % 60 else f'{minutes // 60} h'
