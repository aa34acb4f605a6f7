"""Measures a shipped world: how well its networks agree with the renderer, on subjects and performances no fit has seen.

python -m demo.measure_world --world=head
"""

import json
from typing import Any

import click
import numpy as np
import torch

from demo.drawing.pictures import to_uint8
from demo.judge import identity_drift, match_events
from demo.motion import FPS
from demo.truth_reader import load_reader
from demo.worlds import FOLDER, WORLDS, find_world
from networks.checkpoints import load_encoder, load_generator
from training.commands.command_line import clear_errors, command


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean over pictures `[N, 3, H, W]` in [-1, 1] of 10 log10(4 / mean square difference), dB."""
    error = (first - second).square().mean(dim=[1, 2, 3]).clamp(min=1e-10)
    return float((10 * torch.log10(4 / error)).mean())


# fmt: off
@command()
@click.option('--world', 'world_name', help='Which world', type=click.Choice(tuple(WORLDS)), default='head', show_default=True)
@click.option(
    '--heads', help='Random heads, hands or cars', metavar='INT', type=click.IntRange(min=1), default=200, show_default=True
)
@click.option(
    '--subjects', help='Performances, seeds 100 and up', metavar='INT', type=click.IntRange(min=1), default=8, show_default=True
)
@click.option(
    '--frames', help='Length of each performance', metavar='INT', type=click.IntRange(min=100), default=200, show_default=True
)
@clear_errors
@torch.no_grad()
def main(world_name: str, heads: int, subjects: int, frames: int) -> None:
    """Print one JSON line: PSNR of generator and encoder, and how well the truth is read from real and embedded footage."""
    world = find_world(world_name)
    table = world.table
    generator: Any = load_generator(FOLDER / world.generator_file)
    encoder = load_encoder(FOLDER / world.encoder_file)
    reader = load_reader(FOLDER / world.reader_file, table)
    z = torch.from_numpy(np.random.RandomState(10**6).randn(heads, len(table))).to(torch.float32)
    made = torch.cat([generator(part, None, noise_mode='const') for part in z.split(20)])
    figures: dict[str, float] = {'generator_psnr': psnr(made, world.render(table.from_latent(z), world.resolution)[0])}
    rows = []
    events: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}  # frames of found and true ones, performances in a row
    for seed in range(100, 100 + subjects):
        truth = world.perform(frames, seed=seed).truth()
        pictures = world.render(truth['parameters'], world.resolution)[0]
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
            for parameter in table.motion:
                column = table.index[parameter.name]
                wanted = truth['parameters'][:, column]
                moves = wanted.std() > 0
                row[f'{label}_{parameter.name}'] = float(np.corrcoef(read[:, column], wanted)[0, 1]) if moves else np.nan
            for name, event in world.events.items():
                found, true = events.setdefault(f'{label}_{name}', ([], []))
                offset = (seed - 100) * (frames + 1000)  # nothing matches across performances
                found.append(event.find(read, table) + offset)
                true.append(truth.get(f'{name}_frames', event.find(truth['parameters'], table)) + offset)
            row[f'{label}_identity_drift'] = identity_drift(read, FPS, table)
        rows.append(row)
    figures |= {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}  # some performances lack some motion
    for name, (found, true) in events.items():
        figures[f'{name}_precision'], figures[f'{name}_recall'] = match_events(np.concatenate(found), np.concatenate(true))
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
# fmt: on


if __name__ == '__main__':
    main()
