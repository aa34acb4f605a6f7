"""What motion in the worlds is made of: smooth drift, movements from here to there, rounded peaks."""

import numpy as np

FPS = 25.0


def drift(rng: np.random.RandomState, num: int, seconds: float, smooth_seconds: float) -> np.ndarray:
    """Smooth stationary drift `[num]` of about unit variance: an Ornstein-Uhlenbeck process after two equal low-pass filters.

    x' = a x + sqrt(1 - a^2) n with a = exp(-1 / (fps seconds)).
    """
    keep, follow = np.exp(-1 / (FPS * seconds)), 1 - np.exp(-1 / (FPS * smooth_seconds))
    noise = rng.randn(num + 1)
    value = first = second = noise[0]
    out = np.empty(num)
    for frame in range(num):
        value = keep * value + np.sqrt(1 - keep * keep) * noise[frame + 1]
        first += follow * (value - first)
        second += follow * (first - second)
        out[frame] = second
    return out * np.sqrt(1 + smooth_seconds / seconds)


def glide(time: np.ndarray, begin: float, seconds: float) -> np.ndarray:
    """Minimum-jerk movement from 0 to 1: 10 s^3 - 15 s^4 + 6 s^5, s the elapsed fraction."""
    s = np.clip((time - begin) / seconds, 0, 1)
    return s**3 * (10 + s * (6 * s - 15))


def bump(time: np.ndarray, centre: float, rise: float, fall: float) -> np.ndarray:
    """A rounded peak of height 1 that rises and falls over these times (s)."""
    width = np.where(time < centre, rise, fall)
    return np.exp(-(((time - centre) / (0.6 * width)) ** 2))
