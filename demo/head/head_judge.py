"""Judges video of the head: blinks, speech, where it turns and looks, beside what can be said of every world."""

import numpy as np

from demo.head.head_parameters import INDEX, TABLE
from demo.judge import Event, closest_return, count_peaks, identity_drift, onsets

BLINK = Event(lambda column: column['blink'], 0.5, 0.25)


def blink_events(closure: np.ndarray) -> np.ndarray:
    """Frames `[B]` at which blinks begin in a track `[T]` of lid closure."""
    return onsets(closure, BLINK.begin, BLINK.end)


def judge(tracks: np.ndarray, fps: float = 25.0) -> dict[str, float]:
    """All statistics of a video's tracks `[T, P]`."""
    seconds = len(tracks) / fps
    column = {name: tracks[:, index] for name, index in INDEX.items()}
    blinks = blink_events(column['blink'])
    pauses = np.diff(blinks) / fps
    speed = {name: np.abs(np.diff(column[name])) * fps for name in ('yaw', 'pitch', 'roll')}
    head_speed = np.degrees(np.sqrt(speed['yaw'] ** 2 + speed['pitch'] ** 2 + speed['roll'] ** 2))
    last = head_speed[-max(1, round(2 * fps)) :]
    return {
        'blinks_per_minute': 60 * len(blinks) / seconds,
        'blink_interval_seconds': float(pauses.mean()) if len(pauses) else float('nan'),
        'shortest_blink_interval_seconds': float(pauses.min()) if len(pauses) else float('nan'),
        'eyes_closed_fraction': float((column['blink'] > 0.5).mean()),
        'syllables_per_second': count_peaks(column['mouth_open'], 0.15, 0.12) / seconds,
        'mouth_open_mean': float(column['mouth_open'].mean()),
        'yaw_deviation_degrees': float(np.degrees(column['yaw'].std())),
        'pitch_deviation_degrees': float(np.degrees(column['pitch'].std())),
        'head_speed_degrees_per_second': float(head_speed.mean()),
        'gaze_deviation': float(np.hypot(column['gaze_x'].std(), column['gaze_y'].std())),
        'smile_deviation': float(column['smile'].std()),
        'identity_drift': identity_drift(tracks, fps, TABLE),
        'speed_last_two_seconds_ratio': float(last.mean() / max(head_speed.mean(), 1e-9)),
        'closest_return': closest_return(tracks, fps, TABLE),
    }
