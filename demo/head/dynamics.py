"""How the talking head moves: random but lifelike, with the truth known for every frame.

Head pose drifts like a damped spring pulled by an Ornstein-Uhlenbeck process, with nods, turns and tilts as events; eyes fixate
and jump (and turn against the head, as eyes do); blinks are events with a refractory time; speech comes in phrases of
syllables that open, widen and round the mouth and lift the brows; breathing moves the shoulders. One seed decides everything,
and a longer performance begins like a shorter one.
"""

import dataclasses

import numpy as np

from demo.head.head_parameters import INDEX, TABLE
from demo.motion import FPS, bump, drift, glide

REFRACTORY_SECONDS = 0.8  # no blink begins sooner after the last one
BLINK_PAUSE_SECONDS = 2.4  # mean further waiting time, exponential: blinks are about three seconds apart

# ----------------------------------------------------------------------------
# The result.


@dataclasses.dataclass(frozen=True)
class Performance:
    """A subject's performance with its truth.

    parameters:    `[T, NUM_PARAMETERS]` float32, a row for the renderer in each frame.
    blink_frames:  `[B]` int, the frame in which each blink begins.
    syllables:     `[S]` float, the time (s) of each syllable's widest opening.
    phrases:       `[P, 2]` float, beginning and end (s) of each stretch of speech.
    fps:           frames a second.
    """

    parameters: np.ndarray
    blink_frames: np.ndarray
    syllables: np.ndarray
    phrases: np.ndarray
    fps: float = FPS

    def truth(self) -> dict[str, np.ndarray]:
        """Everything known about it, by name."""
        return {
            'parameters': self.parameters,
            'blink_frames': self.blink_frames,
            'syllables': self.syllables,
            'phrases': self.phrases,
        }

    def track(self, name: str) -> np.ndarray:
        """Values `[T]` of one parameter."""
        return self.parameters[:, INDEX[name]]


# ----------------------------------------------------------------------------
# The parts of a performance.


def blink_onsets(rng: np.random.RandomState, duration: float) -> list[float]:
    """Times (s) at which blinks begin: refractory time plus an exponential pause; now and then a blink comes double."""
    onsets, now = [], rng.uniform(0.3, 3.0)
    while now < duration:
        onsets.append(now)
        doubled = rng.rand() < 0.06
        pause = rng.exponential(BLINK_PAUSE_SECONDS)
        now += REFRACTORY_SECONDS if doubled else REFRACTORY_SECONDS + pause
    return onsets


def _blinks(
    rng: np.random.RandomState, shapes: np.random.RandomState, time: np.ndarray, duration: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lid closure `[T]` in [0, 1] and first frames of the blinks: two or three frames down, three or four up."""
    closure = np.zeros_like(time)
    frames = []
    for onset in blink_onsets(rng, duration):
        frame = int(np.ceil(onset * FPS - 1e-9))
        down, hold, up = shapes.uniform(0.08, 0.12), shapes.uniform(0.02, 0.06), shapes.uniform(0.12, 0.18)
        depth = shapes.uniform(0.92, 1.0)
        begin = (frame - 1) / FPS
        if frame < len(time):
            frames.append(frame)
        closure = np.maximum(closure, depth * (glide(time, begin, down) - glide(time, begin + down + hold, up)))
    return closure, np.asarray(frames, dtype=np.int64)


def _speech(rng: np.random.RandomState, time: np.ndarray, duration: float) -> dict[str, np.ndarray]:
    """Mouth opening and width, brow emphasis, and the truth of phrases and syllables."""
    opening, width, stress = np.zeros_like(time), np.zeros_like(time), np.zeros_like(time)
    phrases, syllables = [], []
    now = rng.uniform(0.2, 1.5)
    while now < duration:
        end = now + 0.7 + rng.exponential(1.9)
        phrases.append((now, end))
        rate = rng.uniform(3.4, 4.8)
        loudness = rng.uniform(0.7, 1.15)
        at = now + 0.1
        while at < end:
            syllables.append(at)
            height = loudness * rng.uniform(0.25, 0.85)
            opening = np.maximum(opening, height * bump(time, at, 0.11, 0.15))
            width += rng.choice([-0.85, 0.75, 0.1], p=[0.3, 0.35, 0.35]) * rng.uniform(0.6, 1.0) * bump(time, at, 0.16, 0.20)
            if rng.rand() < 0.16:
                stress += rng.uniform(0.5, 1.0) * bump(time, at, 0.22, 0.45)
            at += rng.uniform(0.75, 1.3) / rate
        now = end + 0.35 + rng.exponential(1.0)
    return {
        'opening': opening,
        'width': width,
        'stress': np.clip(stress, 0, 1.2),
        'syllables': np.asarray(syllables),
        'phrases': np.asarray(phrases).reshape(-1, 2),
    }


def _gestures(rng: np.random.RandomState, time: np.ndarray, duration: float) -> dict[str, np.ndarray]:
    """Nods, turns and tilts of the head, radians."""
    yaw, pitch, roll = np.zeros_like(time), np.zeros_like(time), np.zeros_like(time)
    now = rng.uniform(1.0, 4.0)
    while now < duration:
        kind = rng.choice(['nod', 'turn', 'tilt'], p=[0.35, 0.45, 0.20])
        if kind == 'nod':
            beats, rate, size = rng.randint(1, 4), rng.uniform(1.3, 1.9), rng.uniform(0.06, 0.13)
            seconds = beats / rate
            phase = np.clip((time - now) / seconds, 0, 1)
            pitch -= size * np.sin(np.pi * phase) * np.sin(np.pi * beats * phase) ** 2
        else:
            seconds, reach = rng.uniform(0.45, 0.8), rng.uniform(0.7, 2.4)
            held = glide(time, now, seconds) - glide(time, now + seconds + reach, rng.uniform(0.5, 0.9))
            side = rng.choice([-1.0, 1.0])
            if kind == 'turn':
                size = rng.uniform(0.14, 0.34)
                yaw += side * size * held
                pitch += rng.uniform(-0.06, 0.06) * held
                roll -= side * 0.18 * size * held
            else:
                roll += side * rng.uniform(0.06, 0.14) * held
            seconds += reach
        now += seconds + 0.5 + rng.exponential(2.2)
    return {'yaw': yaw, 'pitch': pitch, 'roll': roll}


def _gaze(rng: np.random.RandomState, time: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the eyes want to look, x and y: fixations, mostly at the camera, with jumps of a frame or two."""
    x, y = np.zeros_like(time), np.zeros_like(time)
    now, last_x, last_y = 0.0, 0.0, 0.0
    while now < duration:
        away = rng.rand() < 0.38
        next_x = rng.uniform(-0.85, 0.85) if away else 0.10 * rng.randn()
        next_y = rng.uniform(-0.45, 0.55) if away else 0.08 * rng.randn()
        jump = glide(time, now, 0.05 + 0.03 * np.hypot(next_x - last_x, next_y - last_y))
        x += (next_x - last_x) * jump
        y += (next_y - last_y) * jump
        last_x, last_y = next_x, next_y
        now += (0.25 + rng.exponential(0.55)) if away else (0.5 + rng.exponential(1.1))
    return x, y


# ----------------------------------------------------------------------------
# All together.


def perform(num_frames: int, *, seed: int, identity: np.ndarray | None = None) -> Performance:
    """A performance of `num_frames` frames at 25 fps.

    identity: parameters `[NUM_IDENTITY]` of the subject, None = `TABLE.random_identity(seed)`.
    """
    if num_frames < 1:
        raise ValueError(f'num_frames must be at least 1, got {num_frames}')
    streams = [np.random.RandomState([seed, part]) for part in range(13)]
    time = np.arange(num_frames) / FPS
    duration = num_frames / FPS + 2.0  # events that begin later cannot reach back into the last frame

    gestures = _gestures(streams[0], time, duration)
    speech = _speech(streams[1], time, duration)
    blink, blink_frames = _blinks(streams[2], streams[12], time, duration)
    gaze_x, gaze_y = _gaze(streams[3], time, duration)
    talking = np.clip(speech['opening'] * 2.5, 0, 1)

    track: dict[str, np.ndarray] = {}
    track['yaw'] = 0.13 * drift(streams[4], num_frames, 2.4, 0.20) + gestures['yaw'] + 0.02 * speech['stress']
    track['pitch'] = 0.055 * drift(streams[5], num_frames, 1.8, 0.18) + gestures['pitch'] + 0.035 * speech['stress']
    track['roll'] = 0.045 * drift(streams[6], num_frames, 2.2, 0.20) + gestures['roll']
    track['shift_x'] = 0.045 * drift(streams[7], num_frames, 5.0, 0.50) + 0.04 * gestures['yaw']
    track['shift_y'] = 0.022 * drift(streams[8], num_frames, 4.0, 0.45)
    track['gaze_x'] = gaze_x - 1.3 * track['yaw']
    track['gaze_y'] = gaze_y - 1.0 * track['pitch']
    track['blink'] = blink
    track['mouth_open'] = speech['opening']
    track['mouth_wide'] = speech['width']
    track['smile'] = 0.34 + 0.27 * drift(streams[9], num_frames, 3.0, 0.40) - 0.10 * talking
    track['brow_raise'] = 0.12 + 0.22 * drift(streams[10], num_frames, 2.2, 0.20) + 0.60 * speech['stress']
    period = 3.9 + 0.35 * drift(streams[11], num_frames, 6.0, 1.0)
    track['breath'] = 0.75 * np.sin(2 * np.pi * np.cumsum(1 / (FPS * np.maximum(period, 2.0))))

    rows = TABLE.within_reach(track, TABLE.random_identity(seed) if identity is None else identity)
    return Performance(
        rows,
        blink_frames,
        speech['syllables'][speech['syllables'] < num_frames / FPS],
        speech['phrases'][speech['phrases'][:, 0] < num_frames / FPS],
    )
