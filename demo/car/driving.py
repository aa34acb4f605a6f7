"""How the car moves: it speeds up and brakes, turns and signals turns, and sways on its springs; the camera goes along.

Body motion follows from driving: braking presses the nose down, turning leans the car, the road shakes it, and damped springs of
1.4 Hz answer all three. Wheels turn as fast as the car drives. One seed decides everything, and a longer performance begins like
a shorter one.
"""

import dataclasses

import numpy as np

from demo.car.car_parameters import TABLE
from demo.judge import Event, judge_motion
from demo.motion import FPS, drift, glide

SPRING_HERTZ = 1.4
DAMPING = 0.28  # of the critical one
WHEEL_HERTZ = 0.85  # thirds of a turn in a second, after which a wheel looks the same, at cruising speed
SIGNAL_HERTZ = 1.4
EVENTS = {
    'flash': Event(lambda column: column['indicator'], 0.5, 0.25),
    'braking': Event(lambda column: column['brake_light'], 0.5, 0.25),
}


@dataclasses.dataclass(frozen=True)
class Performance:
    """A drive of one car: rows for the renderer `[T, P]` float32, its speed `[T]` (1 = cruising); `EVENTS` finds what happens."""

    parameters: np.ndarray
    speed: np.ndarray

    def truth(self) -> dict[str, np.ndarray]:
        """Parameters and speed."""
        return {'parameters': self.parameters, 'speed': self.speed}


def wheel_hertz(column: dict[str, np.ndarray], fps: float = FPS) -> np.ndarray:
    """How fast the wheels turn `[T - 1]`, in thirds of a turn a second, from the angle of (wheel_x, wheel_y)."""
    angle = np.arctan2(column['wheel_y'], column['wheel_x'])
    return np.angle(np.exp(1j * np.diff(angle))) * fps / (2 * np.pi)


def judge(tracks: np.ndarray, fps: float = FPS) -> dict[str, float]:
    """Statistics of tracks `[T, P]`: what every world has, and mean and deviation of the wheels' speed over a second."""
    column = {name: tracks[:, index] for name, index in TABLE.index.items()}
    second = max(1, round(fps))
    speed = np.convolve(wheel_hertz(column, fps), np.full(second, 1 / second), mode='valid')
    return {
        **judge_motion(tracks, fps, table=TABLE, events=EVENTS),
        'wheel_hertz': float(speed.mean()),
        'wheel_hertz_deviation': float(speed.std()),
    }


# ----------------------------------------------------------------------------
# Parts of a drive.


def _spring(push: np.ndarray) -> np.ndarray:
    """A damped spring `[T]` pulled towards `push` `[T]`: x'' = w^2 (push - x) - 2 d w x', four steps a frame."""
    omega, step = 2 * np.pi * SPRING_HERTZ, 1 / (4 * FPS)
    x, speed = push[0], 0.0
    out = np.empty_like(push)
    for frame, target in enumerate(push):
        for _ in range(4):
            speed += step * (omega * omega * (target - x) - 2 * DAMPING * omega * speed)
            x += step * speed
        out[frame] = x
    return out


def _brakings(rng: np.random.RandomState, time: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Brake light and braking force `[T]`; the light comes with the pedal, the force a little later."""
    lamp, force = np.zeros_like(time), np.zeros_like(time)
    now = rng.uniform(1.0, 4.0)
    while now < duration:
        seconds, strength = rng.uniform(0.5, 1.3), rng.uniform(0.6, 1.2)
        lamp += glide(time, now, 0.10) - glide(time, now + seconds, 0.16)
        force += strength * (glide(time, now + 0.05, 0.25) - glide(time, now + seconds, 0.30))
        now += seconds + 1.2 + rng.exponential(2.6)
    return lamp, force


def _turns(rng: np.random.RandomState, time: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Turns of the car against the camera, radians, and indicator light, both `[T]`; two turns of three are signalled."""
    azimuth, lamp = np.zeros_like(time), np.zeros_like(time)
    now, place = rng.uniform(1.5, 4.0), 0.0
    while now < duration:
        target = rng.uniform(-0.75, 0.75)
        seconds = 0.9 + 1.1 * abs(target - place)
        if rng.rand() < 0.67:
            begin, flashes = now - 0.9, max(2, round((seconds + 0.9) * SIGNAL_HERTZ))
            for flash in range(flashes):
                at = begin + flash / SIGNAL_HERTZ
                lamp += glide(time, at, 0.10) - glide(time, at + 0.5 / SIGNAL_HERTZ, 0.12)
        azimuth += (target - place) * glide(time, now, seconds)
        place = target
        now += seconds + 1.6 + rng.exponential(2.2)
    return azimuth, lamp


def perform(num_frames: int, *, seed: int, identity: np.ndarray | None = None) -> Performance:
    """A performance of `num_frames` frames at 25 fps.

    identity: parameters `[num_identity]` of the car, None = `TABLE.random_identity(seed)`.
    """
    if num_frames < 1:
        raise ValueError(f'num_frames must be at least 1, got {num_frames}')
    streams = [np.random.RandomState([seed, part]) for part in range(8)]
    time = np.arange(num_frames) / FPS
    duration = num_frames / FPS + 3.0  # turns are signalled before they begin
    brake_light, force = _brakings(streams[0], time, duration)
    turning, indicator = _turns(streams[1], time, duration)
    throttle = 0.45 * drift(streams[2], num_frames, 1.8, 0.30)
    speed, acceleration = np.empty(num_frames), np.empty(num_frames)
    value = 1.0
    for frame in range(num_frames):
        acceleration[frame] = throttle[frame] - 0.55 * force[frame] - 0.50 * (value - 1.15)
        value = max(value + acceleration[frame] / FPS, 0.15)
        speed[frame] = value
    azimuth = turning + 0.16 * drift(streams[3], num_frames, 3.0, 0.45)
    rate = np.diff(azimuth, prepend=azimuth[0]) * FPS
    angle = 2 * np.pi * (streams[4].rand() + np.cumsum(WHEEL_HERTZ * speed) / FPS)
    track = {
        'azimuth': azimuth,
        'elevation': 0.28 + 0.045 * drift(streams[5], num_frames, 4.0, 0.60),
        'shift_x': 0.035 * drift(streams[6], num_frames, 3.5, 0.50),
        'heave': _spring(0.020 * speed * drift(streams[7], num_frames, 0.6, 0.12)),
        'pitch': _spring(0.055 * acceleration),
        'roll': _spring(-0.055 * speed * rate),
        'steer': 0.55 * rate / (0.4 + speed),
        'wheel_x': 0.5 * np.cos(angle),
        'wheel_y': 0.5 * np.sin(angle),
        'indicator': indicator,
        'brake_light': brake_light,
    }
    return Performance(
        TABLE.within_reach(track, TABLE.random_identity(seed) if identity is None else identity), speed.astype(np.float32)
    )
