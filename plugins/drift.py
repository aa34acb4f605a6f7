"""Metrics: how far long videos go away from their own beginning, beside how far real footage does.

drift_latent_1000f   whitened codes of 64 videos: who it is, pose and expression on the average over a second
drift_1000f          pictures, of any two sets of videos; drift_1000f_colour: mean and spread of the colours only

1: as real footage; above: goes away; 0: nothing changes. metrics/drift.py has the definition, docs/companion_metrics.md says how
to read it. Also for 200 and 4000 frames.
"""

from typing import Any

from metrics.companion_inputs import CodeInputs, PictureInputs, add_lengths
from metrics.drift import Drift
from metrics.frame_points import colour_statistics

LENGTHS = (200, 1000, 4000)


def _latent(opts: Any, metric: str, num_frames: int) -> dict[str, float]:
    """Drift of codes, 1 as real footage."""
    inputs = CodeInputs(opts, metric)
    real = Drift(inputs.points.real_coordinates, num_frames)
    return inputs.results(real.compare(inputs.coordinates(num_frames)))


def _pictures(opts: Any, metric: str, num_frames: int) -> dict[str, float]:
    """Drift of pictures and colours, 1 as real footage."""
    inputs = PictureInputs(opts, metric)
    real = inputs.real(num_frames)
    videos = inputs.videos(num_frames)
    results = Drift(real, num_frames).compare(videos)
    colour = Drift([colour_statistics(points) for points in real], num_frames)
    found = colour.compare(colour_statistics(points) for points in videos)
    return inputs.results(
        {
            **results,
            'colour': found['drift'],
            'colour_low': found['low'],
            'colour_high': found['high'],
            'colour_distance': found['distance'],
            'colour_real_distance': found['real_distance'],
        }
    )


# Register with metrics.metric_main.register_metric, one a length.
add_lengths(globals(), 'drift_latent', LENGTHS, _latent, best=1.0)
add_lengths(globals(), 'drift', LENGTHS, _pictures, best=1.0)
