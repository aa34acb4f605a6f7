"""Directions of a subject's own motion, as files and pictures: what `--edit` can turn up or down."""

from __future__ import annotations

import os

import numpy as np
import PIL.Image

from networks.checkpoints import replacing
from networks.image_generator import ImageGenerator
from training.control.transfer import motion_of
from training.videos.output import as_rgb, image_grid
from training.videos.synthesis import render_codes

DEVIATIONS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def write_directions(codes: np.ndarray, image_generator: ImageGenerator, folder: str, count: int) -> list[tuple[str, float]]:
    """Write the first principal directions of codes [T, num_ws, w_dim], scaled to one deviation of the motion.

    `motion00.npy` [num_ws, w_dim] goes into `--edit`, where a strength of 1 is one deviation; `motion.png` has a row for each,
    the mean code moved by -2, -1, 0, 1 and 2 deviations.

    Args:
        codes: Of one subject.
        image_generator: Image generator.
        folder: Exists.
        count: At most so many.

    Returns:
        File and share of the variance of each direction.

    Raises:
        InputError: there is no motion.
    """
    motion = motion_of(codes, count)
    shape = codes.shape[1:]
    mean = motion.mean.float().reshape(shape).numpy()
    results, rows = [], []
    for index, (direction, variance) in enumerate(zip(motion.directions, motion.variances, strict=True)):
        step = (direction * variance.sqrt()).float().reshape(shape).numpy()
        path = os.path.join(folder, f'motion{index:02d}.npy')
        with replacing(path) as temporary, open(temporary, 'wb') as file:
            np.save(file, step)
        results.append((path, float(variance) / motion.total))
        moved = np.stack([mean + deviations * step for deviations in DEVIATIONS])
        rows += [as_rgb(frame) for frame in render_codes(image_generator, moved, batch=len(DEVIATIONS))]
    with replacing(os.path.join(folder, 'motion.png')) as temporary:
        PIL.Image.fromarray(image_grid(np.stack(rows), len(DEVIATIONS))).save(temporary, format='PNG')
    return results
