"""Metrics: the spectrum of the motion beside that of real footage, in decibels; speed, acceleration, frames that stand still.

motion_latent_200f   codes of 64 videos
motion_200f          pictures, of any two sets of videos

0: the same. metrics/motion_statistics.py has the definition, docs/companion_metrics.md says how to read it. Also for 1000 frames.
"""

from typing import Any

from metrics.companion_inputs import CodeInputs, PictureInputs, add_lengths
from metrics.motion_statistics import MotionStatistics

LENGTHS = (200, 1000)


def _latent(opts: Any, metric: str, num_frames: int) -> dict[str, float]:
    """Log-spectral distance of the motion of codes, in decibels."""
    inputs = CodeInputs(opts, metric)
    real = MotionStatistics(inputs.points.real_coordinates, inputs.fps, scaled=True)
    return inputs.results(real.compare(inputs.coordinates(num_frames)))


def _pictures(opts: Any, metric: str, num_frames: int) -> dict[str, float]:
    """Log-spectral distance of the motion of pictures, in decibels."""
    inputs = PictureInputs(opts, metric)
    real = MotionStatistics(inputs.real(num_frames), inputs.fps, scaled=False)
    return inputs.results(real.compare(inputs.videos(num_frames)))


# Register with metrics.metric_main.register_metric, one a length.
add_lengths(globals(), 'motion_latent', LENGTHS, _latent, best='lower')
add_lengths(globals(), 'motion', LENGTHS, _pictures, best='lower')
