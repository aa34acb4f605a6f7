"""Sound that drives motion: how loud it is, and where something sets in, one value a frame."""

from __future__ import annotations

import subprocess

import numpy as np

from networks.errors import InputError

RATE = 16_000  # samples a second; onsets and loudness need no more
DECAY_SECONDS = 0.15  # an onset fades to a third in this time
SMOOTH_SECONDS = 0.1


def read_samples(path: str) -> np.ndarray:
    """The sound of a file, all channels together: float32 [N] in [-1, 1] at `RATE`.

    Raises:
        InputError: the file has no sound, or cannot be decoded.
    """
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), '-hide_banner', '-loglevel', 'error', '-nostdin', '-i', path, '-vn', '-ac', '1',
               '-ar', str(RATE), '-f', 'f32le', '-']  # fmt: skip
    result = subprocess.run(command, capture_output=True, check=False)
    samples = np.frombuffer(result.stdout[: len(result.stdout) // 4 * 4], '<f4')
    if result.returncode or not len(samples):
        words = ' '.join(result.stderr.decode(errors='replace').split())[-200:]
        raise InputError(f'{path!r} has no sound that can be read{": " + words if words else ""}')
    return samples


def loudness_and_onsets(samples: np.ndarray, fps: float) -> np.ndarray:
    """How much happens in the sound at each frame, float64 [T] in [0, 1].

    The mean of two curves, each divided by its 95th percentile and cut at 1: loudness (root mean square of the frame, smoothed),
    and onsets (the rise of the loudness in decibels from one frame to the next, fading with `DECAY_SECONDS`).
    """
    bounds = np.minimum((np.arange(int(len(samples) / RATE * fps) + 2) * RATE / fps).round().astype(np.int64), len(samples))
    total = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    counts = np.maximum(np.diff(bounds), 1)
    level = np.sqrt(np.diff(total[bounds]) / counts)
    smooth = np.exp(-1 / (SMOOTH_SECONDS * fps))
    loud, value = np.empty_like(level), 0.0
    for frame, now in enumerate(level):
        value = smooth * value + (1 - smooth) * now
        loud[frame] = value
    floor = max(level.max() * 1e-2, 1e-6)  # 40 dB below the loudest is silence
    rise = np.maximum(np.diff(20 * np.log10(np.maximum(level, floor)), prepend=20 * np.log10(floor)), 0)
    keep = np.exp(-1 / (DECAY_SECONDS * fps))
    onsets, value = np.empty_like(rise), 0.0
    for frame, now in enumerate(rise):
        value = max(now, keep * value)
        onsets[frame] = value
    return (_to_unit(loud) + _to_unit(onsets)) / 2


def _to_unit(curve: np.ndarray) -> np.ndarray:
    reference = np.percentile(curve, 95) or curve.max()
    return np.clip(curve / reference, 0, 1) if reference > 0 else np.zeros_like(curve)


class MotionEnvelope:
    """Factor of the motion scale at each frame: 1 + strength (2 e - 1), never below 0; e from `loudness_and_onsets`.

    With strength 0.8 motion is a fifth of its size in silence, and 1.8 times as large at the loudest.

    Args:
        path: Sound, or a video with sound.
        fps: Frames per second of the video that is made.
        strength: 0 is no effect.

    After the end of the sound e is 0.
    """

    def __init__(self, path: str, fps: float, strength: float) -> None:
        self.values = loudness_and_onsets(read_samples(path), fps)
        self.strength = strength

    def __call__(self, first: int, count: int) -> np.ndarray:
        frames = first + np.arange(count)
        inside = frames < len(self.values)
        happening = np.where(inside, self.values[np.minimum(frames, len(self.values) - 1)], 0.0)
        return np.maximum(1 + self.strength * (2 * happening - 1), 0)
