"""Judges video of a world by its true parameters: events, motion, identity drift, freezing and loops.

Everything works on tracks `[T, P]`, whether they are the truth of a performance or what the `TruthReader` saw.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from demo.parameters import ParameterTable

WINDOW_SECONDS = 1.0  # length of the windows that are searched for loops
APART_SECONDS = 3.0  # how far apart two windows are that count as a return

# ----------------------------------------------------------------------------
# Events.


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that begins now and then: a measure of the columns of tracks rises above `begin`, and fell below `end` before."""

    measure: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    begin: float
    end: float

    def find(self, tracks: np.ndarray, table: ParameterTable) -> np.ndarray:
        """Frames `[E]` at which it begins in tracks `[T, P]`."""
        return onsets(self.measure({name: tracks[:, index] for name, index in table.index.items()}), self.begin, self.end)


def onsets(track: np.ndarray, begin: float, end: float) -> np.ndarray:
    """Frames at which a track `[T]` rises above `begin`, having fallen below `end` before (or beginning there)."""
    events, is_over = [], True
    for frame, value in enumerate(track):
        if is_over and value > begin:
            events.append(frame)
            is_over = False
        elif value < end:
            is_over = True
    return np.asarray(events, dtype=np.int64)


def match_events(found: np.ndarray, true: np.ndarray, tolerance: int = 4) -> tuple[float, float]:
    """Precision and recall of found events against true ones, each matched at most once within `tolerance` frames."""
    left = list(true)
    hits = 0
    for event in found:
        near = [other for other in left if abs(int(other) - int(event)) <= tolerance]
        if near:
            left.remove(min(near, key=lambda other: abs(int(other) - int(event))))
            hits += 1
    return hits / max(len(found), 1), hits / max(len(true), 1)


def count_peaks(track: np.ndarray, height: float, rise: float) -> int:
    """Number of maxima above `height` that stand out by at least `rise` from the lowest point since the last one."""
    count, lowest, highest, climbing = 0, np.inf, -np.inf, True
    for value in track:
        if climbing:
            highest, lowest = max(highest, value), min(lowest, value)
            if value < highest - rise:
                count += highest > height and highest > lowest
                climbing, lowest = False, value
        else:
            lowest = min(lowest, value)
            if value > lowest + rise:
                climbing, highest = True, value
    return int(count)


# ----------------------------------------------------------------------------
# Statistics.


def closest_return(tracks: np.ndarray, fps: float, table: ParameterTable) -> float:
    """Smallest distance between two one-second windows of motion at least `APART_SECONDS` apart; about 0 for a loop.

    Motion is measured in the world's standard deviations; the distance is the root mean square over window and parameters.
    NaN when the video is too short.
    """
    _, deviation = table.statistics
    motion = tracks[:, table.num_identity :] / deviation.numpy()[table.num_identity :]
    length, apart = round(WINDOW_SECONDS * fps), round(APART_SECONDS * fps)
    starts = np.arange(0, len(motion) - length + 1, 2)
    windows = np.stack([motion[k : k + length].reshape(-1) for k in starts]) if len(starts) else np.zeros((0, 1))
    square = np.square(windows).sum(axis=1)
    best = np.inf
    for first in range(len(starts)):
        later = np.flatnonzero(starts >= starts[first] + apart)
        if len(later):
            distance = square[first] + square[later] - 2 * windows[later] @ windows[first]
            best = min(best, float(distance.min()))
    return float(np.sqrt(max(best, 0) / windows.shape[1])) if np.isfinite(best) else float('nan')


def identity_drift(tracks: np.ndarray, fps: float, table: ParameterTable) -> float:
    """Root mean square change of the identity parameters from the first to the last two seconds, in the world's deviations.

    About 1.4 between two strangers, 0 for one subject.
    """
    _, deviation = table.statistics
    identity = tracks[:, : table.num_identity] / deviation.numpy()[: table.num_identity]
    num = max(1, min(round(2 * fps), len(tracks) // 2))
    return float(np.sqrt(np.mean(np.square(identity[-num:].mean(axis=0) - identity[:num].mean(axis=0)))))


def judge_motion(
    tracks: np.ndarray, fps: float = 25.0, *, table: ParameterTable, events: Mapping[str, Event]
) -> dict[str, float]:
    """What can be said of any world's tracks `[T, P]`: deviation and speed of each parameter of motion, events, drift, returns.

    Deviations are in the parameter's own unit, the speed in the world's deviations a second (mean over the parameters).
    """
    _, deviation = table.statistics
    motion = tracks[:, table.num_identity :]
    speed = (np.abs(np.diff(motion, axis=0)) / deviation.numpy()[table.num_identity :]).mean(axis=1) * fps
    last = speed[-max(1, round(2 * fps)) :]
    return {
        **{f'{name}_per_minute': 60 * len(event.find(tracks, table)) * fps / len(tracks) for name, event in events.items()},
        **{f'{parameter.name}_deviation': float(motion[:, k].std()) for k, parameter in enumerate(table.motion)},
        'speed': float(speed.mean()),
        'identity_drift': identity_drift(tracks, fps, table),
        'speed_last_two_seconds_ratio': float(last.mean() / max(speed.mean(), 1e-9)),
        'closest_return': closest_return(tracks, fps, table),
    }


def comparison_table(columns: dict[str, dict[str, float]]) -> str:
    """Statistics of several videos side by side, as text."""
    names = list(next(iter(columns.values())))
    width = max(len(name) for name in names)
    heads = [max(len(title), 9) for title in columns]
    lines = [' ' * width + '  ' + '  '.join(title.rjust(size) for title, size in zip(columns, heads, strict=True))]
    for name in names:
        cells = [f'{values[name]:.3f}'.rjust(size) for values, size in zip(columns.values(), heads, strict=True)]
        lines.append(name.ljust(width) + '  ' + '  '.join(cells))
    return '\n'.join(lines)
