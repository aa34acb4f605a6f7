"""Compares optimisers on the fit of the embedded world's generator: same pictures, same steps, 32x32 pixels.

python -m benchmarks.world_optimizers --steps=300
"""

import json
import pathlib
import tempfile
import time

import click
import numpy as np
import torch
import torch.nn.functional as F

from demo.fitting.fast_synthesis import fast_synthesis
from demo.fitting.fit_generator import FitSettings, build_generator, picture_loss
from demo.fitting.orthogonal_momentum import PairedOptimizer
from demo.fitting.picture_pool import PicturePool
from demo.head.head_world import HEAD
from training.commands.command_line import clear_errors, command

RESOLUTION = 32


# fmt: off
@command()
@click.option('--steps', help='Steps of each trial', metavar='INT', type=click.IntRange(min=20), default=300, show_default=True)
@click.option('--pictures', help='Rendered heads; 400 more are held out', metavar='INT', type=click.IntRange(100), default=4000)
@clear_errors
def main(steps: int, pictures: int) -> None:
    """Print one JSON line for each optimiser: PSNR on held-out heads, and the time the steps took."""
    settings = FitSettings()
    with tempfile.TemporaryDirectory() as folder:
        pool = PicturePool(HEAD, pathlib.Path(folder), seed=1, capacity=pictures + 400, resolution=RESOLUTION)
        pool.grow(pictures + 400)
        z, images, features = pool.batch(np.arange(pool.count))
    importance = 1 + settings.feature_weight * features
    for name, lr in (('adam', 0.004), ('adam', 0.01), ('orthogonal momentum', 0.01), ('orthogonal momentum', 0.03)):
        generator = build_generator(settings, HEAD).train()
        adam = torch.optim.Adam(generator.parameters(), lr=lr, betas=(0.9, 0.99))
        paired = PairedOptimizer(generator)
        started = time.process_time()
        for step in range(steps):
            chosen = np.random.RandomState([1, step]).randint(pictures, size=16)
            scale = min(1.0, (step + 1) / 20, (steps - step) / (0.4 * steps))
            made = fast_synthesis(generator, generator.mapping(z[chosen], None), RESOLUTION)
            loss = picture_loss(made, images[chosen], importance[chosen], settings.edge_weight)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            if name == 'adam':
                adam.param_groups[0]['lr'] = lr * scale
                adam.step()
            else:
                paired.step(lr * scale, settings.adam_ratio * lr * scale)
        seconds = time.process_time() - started
        with torch.no_grad():
            held_out = torch.arange(pictures, pictures + 400)
            codes = generator.mapping(z[held_out], None)
            made = torch.cat([fast_synthesis(generator, part, RESOLUTION) for part in codes.split(100)])
        error = F.mse_loss(made, images[held_out], reduction='none').mean(dim=[1, 2, 3])
        psnr = float((10 * torch.log10(4 / error)).mean())
        print(json.dumps({'optimizer': name, 'lr': lr, 'steps': steps, 'psnr': round(psnr, 2), 'cpu_seconds': round(seconds, 1)}))
# fmt: on


if __name__ == '__main__':
    main()
