"""How the hand moves: gestures that follow each other at random, over a drift of the wrist and of each finger.

Fingers move together, but not at the same moment: little finger or index first. A third of the hands that open wave. One seed
decides everything, and a longer performance begins like a shorter one.
"""

import dataclasses

import numpy as np

from demo.hand.hand_parameters import FINGERS, TABLE
from demo.judge import Event
from demo.motion import FPS, drift, glide

COLUMNS = ('thumb', *FINGERS, 'spread')
POSES = {  # values of the columns, and how often
    'rest': ((0.35, 0.30, 0.38, 0.45, 0.48, 0.35), 0.26),
    'open': ((0.05, 0.02, 0.02, 0.03, 0.05, 0.95), 0.20),
    'fist': ((0.85, 0.97, 0.97, 0.97, 0.97, 0.10), 0.18),
    'point': ((0.75, 0.02, 0.93, 0.96, 0.96, 0.20), 0.16),
    'victory': ((0.85, 0.04, 0.04, 0.93, 0.95, 0.80), 0.08),
    'pinch': ((0.62, 0.52, 0.30, 0.22, 0.15, 0.50), 0.07),
    'thumb out': ((0.03, 0.95, 0.97, 0.97, 0.97, 0.10), 0.05),
}
EVENTS = {
    'fist': Event(lambda column: np.mean([column[finger] for finger in FINGERS], axis=0), 0.75, 0.55),
    'pointing_finger': Event(
        lambda column: np.mean([column[finger] for finger in FINGERS[1:]], axis=0) - column[FINGERS[0]], begin=0.55, end=0.30
    ),
}


@dataclasses.dataclass(frozen=True)
class Performance:
    """Gestures of one hand: rows for the renderer `[T, P]` float32; `EVENTS` finds what happens."""

    parameters: np.ndarray

    def truth(self) -> dict[str, np.ndarray]:
        """The parameters."""
        return {'parameters': self.parameters}


def _gestures(rng: np.random.RandomState, time: np.ndarray, duration: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tracks `[T]` of `COLUMNS`, and how far the hand waves `[T]`."""
    names, shares = list(POSES), np.array([share for _, share in POSES.values()])
    last = np.array(POSES['rest'][0])
    track = {name: np.full_like(time, value) for name, value in zip(COLUMNS, last, strict=True)}
    waving = np.zeros_like(time)
    now, current = rng.uniform(0.3, 1.5), 'rest'
    while now < duration:
        odds = shares * [name != current for name in names]
        current = names[rng.choice(len(names), p=odds / odds.sum())]
        target = np.clip(np.array(POSES[current][0]) + 0.04 * rng.randn(len(COLUMNS)), 0, 1)
        seconds, hold = rng.uniform(0.40, 0.85), 0.35 + rng.exponential(0.9)
        delays = np.sort(rng.uniform(0, 0.14, len(COLUMNS)))[:: rng.choice([-1, 1])]
        for name, begin, difference in zip(COLUMNS, now + delays, target - last, strict=True):
            track[name] += difference * glide(time, begin, seconds)
        if rng.rand() < 0.35 and current == 'open':
            hold += 1.0
            within = glide(time, now + 0.5 * seconds, 0.4) - glide(time, now + seconds + hold - 0.4, 0.4)
            waving += within * np.sin(2 * np.pi * rng.uniform(1.2, 1.8) * (time - now))
        now += seconds + hold
        last = target
    return track, waving


def _turns(rng: np.random.RandomState, time: np.ndarray, duration: float) -> np.ndarray:
    """Turns of the forearm to one side and back, radians `[T]`."""
    yaw = np.zeros_like(time)
    now = rng.uniform(1.0, 4.0)
    while now < duration:
        seconds, hold = rng.uniform(0.5, 0.9), rng.uniform(0.3, 1.8)
        yaw += (
            rng.choice([-1.0, 1.0])
            * rng.uniform(0.18, 0.40)
            * (glide(time, now, seconds) - glide(time, now + seconds + hold, 0.8))
        )
        now += 2 * seconds + hold + rng.exponential(2.5)
    return yaw


def perform(num_frames: int, *, seed: int, identity: np.ndarray | None = None) -> Performance:
    """A performance of `num_frames` frames at 25 fps.

    identity: parameters `[num_identity]` of the hand, None = `TABLE.random_identity(seed)`.
    """
    if num_frames < 1:
        raise ValueError(f'num_frames must be at least 1, got {num_frames}')
    streams = [np.random.RandomState([seed, part]) for part in range(13)]
    time = np.arange(num_frames) / FPS
    duration = num_frames / FPS + 2.0  # gestures that begin later cannot reach back into the last frame
    track, waving = _gestures(streams[0], time, duration)
    together = 0.035 * drift(streams[1], num_frames, 1.5, 0.25)
    for number, name in enumerate(('thumb', *FINGERS)):
        track[name] = track[name] + together + 0.02 * drift(streams[2 + number], num_frames, 1.0, 0.2)
    track['yaw'] = 0.12 * drift(streams[7], num_frames, 2.6, 0.30) + _turns(streams[8], time, duration)
    track['pitch'] = 0.08 * drift(streams[9], num_frames, 2.0, 0.25)
    track['roll'] = 0.09 * drift(streams[10], num_frames, 2.4, 0.25) + 0.16 * waving
    track['shift_x'] = 0.025 * drift(streams[11], num_frames, 3.5, 0.40) - 0.025 * waving
    track['shift_y'] = 0.02 * drift(streams[12], num_frames, 3.0, 0.40)
    return Performance(TABLE.within_reach(track, TABLE.random_identity(seed) if identity is None else identity))
