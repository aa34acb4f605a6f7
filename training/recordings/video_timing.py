"""When the pictures of a recording were taken, and which of them stand for the frames of a constant rate.

Headers of video files are often wrong about it: browsers write none, phones write an average, and a recording that was
paused does not tell. So the time stamps of all pictures decide.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np

DEFAULT_RATE = 25.0  # of what tells no times
MAX_RATE = 1000.0
GAP_SECONDS = 1.0  # longer than this, and than five times the usual interval, is a pause
GAP_INTERVALS = 5.0
COMMON_RATES = (5.0, 10.0, 12.0, 12.5, 15.0, 20.0, 23.976, 24.0, 25.0, 29.97, 30.0, 48.0, 50.0, 59.94, 60.0, 90.0, 120.0)
ROUNDING = 0.01  # of a frame: time stamps are rounded, and halves have to go one way
WORTH_A_WORD = 0.01  # part of the pictures that are lost

Picture = TypeVar('Picture')


def exact_rate(fps: float) -> Fraction:
    """Return a rate as a fraction; the rounded numbers of television (23.98, 29.97, 59.94) become n * 1000/1001."""
    television = Fraction(round(fps * 1001 / 1000)) * Fraction(1000, 1001)
    if abs(fps - round(fps)) > 1e-3 and abs(fps - television) < 6e-3:
        return television
    return Fraction(fps).limit_denominator(1001)


@dataclasses.dataclass(frozen=True)
class Pause:
    """A stretch in which nothing was recorded.

    Attributes:
        end: Time stamp of the first picture after it, seconds.
        removed: Seconds that are taken out, so that one usual interval is left.
    """

    end: float
    removed: float


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of the pictures of one recording.

    Attributes:
        times: Time stamps in seconds, ascending, float64 `[T]`; empty: unknown.
        fps: Frames per second that the recording has; where it varies, the usual rate.
        pauses: Where nothing was recorded.
        usable: Whether time stamps tell anything; if not, pictures are counted.
        last_seconds: How long the last picture is shown, 0: unknown.
    """

    times: np.ndarray
    fps: float
    pauses: tuple[Pause, ...] = ()
    usable: bool = True
    last_seconds: float = 0.0

    def number(self, time: float, rate: float) -> int:
        """Return the frame of a constant rate that a picture of this time stamp begins."""
        origin = float(self.times[0]) if len(self.times) else 0.0
        removed = sum(pause.removed for pause in self.pauses if time >= pause.end - 1e-6)
        return int(np.floor((time - origin - removed) * rate + 0.5 + ROUNDING))

    def numbers(self, rate: float) -> np.ndarray:
        """Return `number` of all pictures, int `[T]`."""
        if not self.usable:
            return np.floor(np.arange(len(self.times)) * (rate / self.fps) + 0.5 + ROUNDING).astype(int)
        removed = np.zeros(len(self.times))
        for pause in self.pauses:
            removed[self.times >= pause.end - 1e-6] += pause.removed
        origin = self.times[0] if len(self.times) else 0.0
        return np.floor((self.times - origin - removed) * rate + 0.5 + ROUNDING).astype(int)

    def num_frames(self, rate: float) -> int | None:
        """Return how many frames of a constant rate the recording has, None where that is not known."""
        if not len(self.times):
            return None
        return max(self.end(float(self.times[-1]), len(self.times), rate), 1)

    def end(self, last: float, count: int, rate: float) -> int:
        """Return the number of frames of a constant rate after `count` pictures.

        The last picture is shown as long as the file tells; a hold as long as a pause counts as one interval.

        Args:
            last: Time stamp of the last picture, seconds.
            count: Pictures so far.
            rate: Frames per second.
        """
        if not self.usable:
            return int(np.floor(count * (rate / self.fps) + 0.5 + ROUNDING))
        known = 0 < self.last_seconds <= GAP_SECONDS
        return self.number(last + (self.last_seconds if known else 1 / self.fps), rate)

    def cuts(self, rate: float) -> dict[int, str]:
        """Return the frames of a constant rate before which a pause lies, with a sentence on each."""
        return {self.number(pause.end, rate): f'a pause of {pause.removed:.1f} s in the time stamps' for pause in self.pauses}

    def lost(self, rate: float) -> int:
        """Return how many pictures are left out when there are only so many frames per second."""
        numbers = self.numbers(rate)
        return int((np.diff(numbers) <= 0).sum())

    def notes(self, fps: float | None) -> list[str]:
        """Return what a user has to know: pauses, and pictures that the usual rate loses.

        Args:
            fps: Rate that was asked for, None: that of the recording.
        """
        found = []
        if self.pauses:
            total = sum(pause.removed for pause in self.pauses)
            count = len(self.pauses)
            found.append(
                f'{count} pause{"s" if count > 1 else ""} in the time stamps ({total:.1f} s in all) are not filled; '
                'clips end there'
            )
        if not self.usable:
            found.append(f'its time stamps cannot be used, so its pictures are taken at {self.fps:g} frames per second')
        elif fps is None and self.lost(self.fps) > max(WORTH_A_WORD * len(self.times), 1):
            best = self.rate_without_loss()
            found.append(
                f'its rate varies, and at {self.fps:g} frames per second {self.lost(self.fps)} of {len(self.times)} '
                f'pictures are left out; a rate of {best:g} keeps {"all" if self.lost(best) == 0 else "more of them"}'
            )
        return found

    def rate_without_loss(self) -> float:
        """Return the lowest usual rate that keeps all pictures, 240 at most."""
        rates = [rate for rate in (*COMMON_RATES, 144.0, 240.0) if rate > self.fps]
        return next((rate for rate in rates if self.lost(rate) == 0), max(rates, default=self.fps))


def measure_timing(
    times: Sequence[float] | np.ndarray, told: Sequence[float] = (), tick: float = 0.0, last_seconds: float = 0.0
) -> Timing:
    """Find rate and pauses from time stamps.

    Args:
        times: Of all pictures, seconds, in any order.
        told: Rates that the header tells, best first; one that agrees with the time stamps is taken as it stands.
        tick: Unit of the time stamps, seconds.
        last_seconds: How long the last picture is shown, 0: unknown.
    """
    stamps = np.sort(np.asarray(times, dtype=np.float64))
    told = [rate for rate in told if 0 < rate <= MAX_RATE]
    intervals = np.diff(stamps)
    moving = intervals[intervals > tick / 2]
    if len(moving) < max(0.5 * len(intervals), 1):  # one picture, or time stamps that stand still
        rate = float(exact_rate(told[0])) if told else DEFAULT_RATE
        return (
            Timing(stamps, rate, last_seconds=last_seconds)
            if len(stamps) < 2
            else Timing(np.arange(len(stamps)) / rate, rate, usable=False)
        )
    usual = float(np.median(moving))
    limit = max(GAP_SECONDS, GAP_INTERVALS * usual)
    pauses = tuple(
        Pause(float(stamps[index + 1]), float(intervals[index]) - usual) for index in np.flatnonzero(intervals > limit)
    )
    return Timing(stamps, _rate(moving[moving <= limit], usual, told, tick), pauses, last_seconds=last_seconds)


def _rate(intervals: np.ndarray, usual: float, told: Sequence[float], tick: float) -> float:
    """Return frames per second: of the usual interval where most are so long, the average otherwise."""
    near = intervals[np.abs(intervals - usual) <= max(1.5 * tick, 0.1 * usual)]
    steady = len(near) >= 0.6 * len(intervals)
    kept = near if steady else intervals
    rate = 1 / float(kept.mean())
    precision = 2 * tick / float(kept.sum()) + 1e-4
    exact = [known for known in told if abs(known - rate) <= precision * rate]
    alike = [known for known in (*told, *COMMON_RATES) if abs(known - rate) <= (0.005 if steady else 0.02) * rate]
    if exact or alike:
        return float(exact_rate(exact[0] if exact else min(alike, key=lambda known: abs(known - rate))))
    return float(exact_rate(round(min(rate, MAX_RATE), 2)))


def resample(pictures: Iterable[tuple[float, Picture]], timing: Timing, rate: float, first: int = 0) -> Iterator[Picture]:
    """Yield the frames of a constant rate: each is the latest picture that had begun by then.

    Args:
        pictures: (time stamp in seconds, picture), in order.
        timing: Of the recording.
        rate: Frames per second.
        first: Number of the first frame to yield.
    """
    held: Picture | None = None
    begins, count, time = 0, 0, 0.0
    for time, picture in pictures:
        number = timing.number(time, rate) if timing.usable else timing.end(time, count, rate)
        count += 1
        number = max(number, begins)
        if held is not None:
            for _ in range(max(begins, first), number):
                yield held
        held, begins = picture, number
    if held is not None:
        end = timing.end(time, count, rate)
        for _ in range(max(begins, first), max(end, 1)):
            yield held
