"""Metrics: how much of a long video shows what the same video shows at another time; freezing, looping, going back and forth.

repetition_latent_1000f   codes of 64 videos (16 of them where they are longer than 1000 frames)
repetition_1000f          pictures, of any two sets of videos

0: as often as real footage, 1: every moment is shown twice. metrics/repetition.py has the definition, docs/companion_metrics.md
says how to read it. Also for 200 and 4000 frames.
"""

from typing import Any

from metrics.companion_inputs import CodeInputs, PictureInputs, add_lengths
from metrics.repetition import Repetition

LENGTHS = (200, 1000, 4000)


def _latent(opts: Any, metric: str, num_frames: int) -> dict[str, float]:
    """Repetition of codes, 0 as real footage to 1."""
    inputs = CodeInputs(opts, metric)
    real = Repetition(inputs.points.real, num_frames)
    return inputs.results(real.compare(inputs.videos(num_frames)))


def _pictures(opts: Any, metric: str, num_frames: int) -> dict[str, float]:
    """Repetition of pictures, 0 as real footage to 1."""
    inputs = PictureInputs(opts, metric)
    real = Repetition(inputs.real(num_frames), num_frames)
    return inputs.results(real.compare(inputs.videos(num_frames)))


# Register with metrics.metric_main.register_metric, one a length.
add_lengths(globals(), 'repetition_latent', LENGTHS, _latent, best='lower')
add_lengths(globals(), 'repetition', LENGTHS, _pictures, best='lower')
