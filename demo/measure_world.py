"""Measures the shipped world: how well its networks agree with the renderer, on heads and performances no fit has seen.

python -m demo.measure_world
"""

import json
from typing import Any

import click
import numpy as np
import torch

from demo.head.dynamics import FPS, perform
from demo.head.head_parameters import INDEX, MOTION, NUM_PARAMETERS, parameters_from_latent
from demo.head.talking_head import render, to_uint8
from demo.judge import blink_events, identity_drift, match_events
from demo.truth_reader import load_reader
from demo.world_files import ENCODER_FILE, FOLDER, GENERATOR_FILE, READER_FILE
from networks.checkpoints import load_encoder, load_generator
from training.commands.command_line import clear_errors, command


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean over pictures `[N, 3, H, W]` in [-1, 1] of 10 log10(4 / mean square difference), dB."""
    error = (first - second).square().mean(dim=[1, 2, 3]).clamp(min=1e-10)
    return float((10 * torch.log10(4 / error)).mean())


# fmt: off
@command()
@click.option('--heads', help='Random heads', metavar='INT', type=click.IntRange(min=1), default=200, show_default=True)
@click.option(
    '--subjects', help='Performances, seeds 100 and up', metavar='INT', type=click.IntRange(min=1), default=8, show_default=True
)
@click.option(
    '--frames', help='Length of each performance', metavar='INT', type=click.IntRange(min=100), default=200, show_default=True
)
@clear_errors
@torch.no_grad()
def main(heads: int, subjects: int, frames: int) -> None:
    """Print one JSON line: PSNR of generator and encoder, and how well the truth is read from real and embedded footage."""
    generator: Any = load_generator(FOLDER / GENERATOR_FILE)
    encoder = load_encoder(FOLDER / ENCODER_FILE)
    reader = load_reader(FOLDER / READER_FILE)
    z = torch.from_numpy(np.random.RandomState(10**6).randn(heads, NUM_PARAMETERS)).to(torch.float32)
    made = torch.cat([generator(part, None, noise_mode='const') for part in z.split(20)])
    figures: dict[str, float] = {'generator_psnr': psnr(made, render(parameters_from_latent(z)))}
    rows = []
    for seed in range(100, 100 + subjects):
        performance = perform(frames, seed=seed)
        pictures = render(performance.parameters)
        codes = torch.cat([encoder(part) for part in pictures.split(50)])
        again = torch.cat([generator.synthesis(part, noise_mode='const') for part in codes.split(25)])
        row = {
            'footage_psnr': psnr(again, pictures),
            'code_step_ratio': float(
                (codes[1:] - codes[:-1]).square().mean().sqrt() / (codes - codes.mean(dim=0)).square().mean().sqrt()
            ),
        }
        for label, images in (('rendered', pictures), ('embedded', again)):
            read = reader.read(to_uint8(images))
            for parameter in MOTION:
                column = INDEX[parameter.name]
                row[f'{label}_{parameter.name}'] = float(np.corrcoef(read[:, column], performance.parameters[:, column])[0, 1])
            precision, recall = match_events(blink_events(read[:, INDEX['blink']]), performance.blink_frames)
            row[f'{label}_blink_precision'], row[f'{label}_blink_recall'] = precision, recall
            row[f'{label}_identity_drift'] = identity_drift(read, FPS)
        rows.append(row)
    figures |= {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
# fmt: on


if __name__ == '__main__':
    main()
