"""Looks far into the videos of a finished demonstration: pictures and motion at frames 0, 1000 and 5000, beside the footage.

    python -m demo.run_demo --world=hand
    python -m demo.measure_depths --world=hand

Writes `depths.jpg` (rows: footage, embedded, new video at each depth), `moving.webp` (footage, embedded, new, side by side)
and `depths.json` into the folder of the demonstration, and prints how far each parameter of motion moves, beside what it moves
in the footage.
"""

import json
import pathlib

import click
import numpy as np
import torch
from PIL import Image

from demo.judge import comparison_table
from demo.motion import FPS
from demo.run_demo import average_judgement, default_folder, read_video
from demo.truth_reader import load_reader
from demo.worlds import FOLDER, WORLDS, find_world
from networks.checkpoints import load_generator, load_snapshot
from training.commands.command_line import UserMistake, clear_errors, command
from training.latents.dataset import LatentDataset
from training.videos.code_sources import ModelSource
from training.videos.output import image_grid
from training.videos.synthesis import render_codes

DEPTHS = (0, 1000, 5000)
COLUMNS = 12  # pictures a row, half a second apart


def write_moving(path: pathlib.Path, videos: list[np.ndarray]) -> None:
    """Four seconds of videos side by side as an animation, every second frame."""
    columns = zip(*(video[: round(4 * FPS)] for video in videos), strict=True)
    pictures = [Image.fromarray(np.concatenate(column, axis=1)) for column in columns][::2]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(2000 / FPS), loop=0, quality=60)


# fmt: off
@command()
@click.option('--world', 'world_name', help='Which world', type=click.Choice(tuple(WORLDS)), default='head', show_default=True)
@click.option('--outdir', help='Folder of the demonstration  [default: where run_demo puts it]', metavar='DIR')
@click.option(
    '--frames', help='Length of each stretch', metavar='INT', type=click.IntRange(min=200), default=1000, show_default=True
)
@click.option(
    '--videos', help='Videos at each depth', metavar='INT', type=click.IntRange(min=1), default=2, show_default=True
)
@clear_errors
def main(world_name: str, outdir: str | None, frames: int, videos: int) -> None:
    """Show and measure a demonstration's new video at frames 0, 1000 and 5000."""
    world = find_world(world_name)
    out = pathlib.Path(outdir) if outdir else default_folder(world)
    done = out / 'training-done.json'
    if not done.exists():
        raise UserMistake(f'{done} does not exist; run first: python -m demo.run_demo --world={world.name}')
    model = load_snapshot(json.loads(done.read_text())['snapshot'])['G_ema']
    generator = load_generator(FOLDER / world.generator_file)
    reader = load_reader(FOLDER / world.reader_file, world.table)

    def render(codes: torch.Tensor) -> np.ndarray:
        return np.stack(list(render_codes(generator, codes, batch=16)))

    with LatentDataset(out / 'latents.zip') as data:
        embedded = render(torch.from_numpy(np.array(data.load_clip(0))))
    real = read_video(out / 'footage.mp4')
    shown = [real, embedded]
    columns = {
        name: average_judgement(world, tracks, frames)
        for name, tracks in (
            ('truth', np.load(out / 'truth.npz')['parameters']),
            ('footage', reader.read(real)),
            ('embedded', reader.read(embedded)),
        )
    }
    for depth in DEPTHS:
        parts = []
        for seed in range(videos):
            made = render(ModelSource(model, seed, burn_in=model.burn_in + depth).read(frames))
            if seed == 0:
                shown.append(made)
            parts.append(world.judge(reader.read(made), FPS))
        columns[f'frame {depth}'] = {name: float(np.nanmean([part[name] for part in parts])) for name in parts[0]}
    step = round(FPS / 2)
    grid = image_grid(np.concatenate([video[: COLUMNS * step : step] for video in shown]), COLUMNS)
    Image.fromarray(grid).save(out / 'depths.jpg', quality=82)
    write_moving(out / 'moving.webp', shown[:3])
    (out / 'depths.json').write_text(json.dumps(columns, indent=2) + '\n')
    print(comparison_table(columns))
    moving = [name for name in columns['truth'] if name.endswith('_deviation') or '_deviation_' in name]
    for depth in DEPTHS:
        ratios = [columns[f'frame {depth}'][name] / columns['embedded'][name] for name in moving]
        print(f'frame {depth}: deviations are {min(ratios):.2f} to {max(ratios):.2f} of the embedded footage\'s, '
              f'median {np.median(ratios):.2f}')
# fmt: on


if __name__ == '__main__':
    main()
