"""Makes the embedded world: fits the image generator, its encoder, and the reader of true parameters, and writes their files.

    python -m demo.make_world --workdir=demo-output/world-work --dest=demo/world

takes about an hour of one CPU core, and two gigabytes of disk for pictures. Interrupted, it goes on where it was.
"""

import dataclasses
import json
import pathlib
import time

import click
import numpy as np
import torch
from PIL import Image

from demo.drawing.pictures import to_uint8
from demo.fitting.fit_generator import FitSettings, GeneratorFit, Stage, finish_generator
from demo.fitting.fit_readers import ReaderSettings, fit_encoder, fit_truth_reader
from demo.measure_world import psnr
from demo.truth_reader import TruthReader, save_reader
from demo.worlds import WORLDS, World, find_world
from networks.checkpoints import file_sha256, image_generator_reference, save_module_pickle
from networks.stylegan2 import Generator
from networks.stylegan2_discriminator import NoDiscriminator
from training.commands.command_line import clear_errors, command

# What decides the fits. The head was fitted with the defaults; the small worlds take about ten minutes of a core each.
CAR_FIT = FitSettings(
    resolution=64,
    w_dim=64,
    channel_base=768,
    channel_max=48,
    stages=(Stage(32, 800, 16, 1.5e-2, 1.5e-2), Stage(64, 2200, 16, 1.5e-2, 1e-4)),
    pool_capacity=3000,
    pool_first=3000,
    ema_steps=100.0,
)
# Fingers that cross each other are harder than anything on the car: more pictures, channels and steps.
HAND_FIT = dataclasses.replace(
    CAR_FIT,
    channel_base=1024,
    channel_max=96,
    stages=(Stage(32, 1500, 16, 1.5e-2, 1.5e-2), Stage(64, 2000, 16, 1.5e-2, 1e-4)),
    pool_capacity=5000,
    pool_first=5000,
)
SMALL_READERS = ReaderSettings(
    code_steps=2000,
    code_batch=32,
    picture_steps=600,
    encoder_shape=(
        ('input_resolution', 64),
        ('channel_base', 512),
        ('channel_max', 64),
        ('hidden_features', 96),
        ('head_features', 32),
    ),
    reader_generated=1500,
    reader_steps=900,
    reader_batch=32,
)
SETTINGS = {'head': (FitSettings(), ReaderSettings()), 'hand': (HAND_FIT, SMALL_READERS), 'car': (CAR_FIT, SMALL_READERS)}


@torch.no_grad()
def comparison_sheet(
    world: World, generator: Generator, encoder: torch.nn.Module | None, path: pathlib.Path, seed: int = 10**6, num: int = 10
) -> dict[str, float]:
    """Write rendered, fitted and re-encoded subjects the fit never saw, a row each; returns the agreement in dB over 200."""
    z = torch.from_numpy(np.random.RandomState(seed).randn(200, len(world.table))).to(torch.float32)
    wanted = world.render(world.table.from_latent(z), generator.img_resolution)[0]
    made = torch.cat([generator(part, None, noise_mode='const') for part in z.split(20)])
    rows, figures = [wanted[:num], made[:num]], {'generator_psnr': psnr(made, wanted)}
    if encoder is not None:
        again = torch.cat([generator.synthesis(encoder(part), noise_mode='const') for part in wanted.split(20)])
        rows.append(again[:num])
        figures['encoder_psnr'] = psnr(again, wanted)
    frames = to_uint8(torch.cat(rows))
    size = frames.shape[1]
    Image.fromarray(frames.reshape(len(rows), num, size, size, 3).swapaxes(1, 2).reshape(len(rows) * size, num * size, 3)).save(
        path
    )
    return figures


# fmt: off
@command()
@click.option(
    '--world',
    'world_name',
    help='What to make',
    type=click.Choice(tuple(WORLDS)),
    default='head',
    show_default=True,
)
@click.option(
    '--workdir',
    help='Where the state of the fits lies, so that they can go on; other worlds than the head have folders in it',
    metavar='DIR',
    default='demo-output/world-work',
    show_default=True,
)
@click.option('--dest', help='Where the files of the world go', metavar='DIR', default='demo/world', show_default=True)
@click.option('--threads', help='CPU threads to use', metavar='INT', type=click.IntRange(min=1), default=1, show_default=True)
@click.option('--preview', help='Write a comparison sheet of the generator as it is now, and leave', is_flag=True)
@clear_errors
def main(world_name: str, workdir: str, dest: str, threads: int, preview: bool) -> None:
    """Make a world's image generator, encoder, and parameter reader, from nothing but its renderer."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    world = find_world(world_name)
    work, out = pathlib.Path(workdir, '' if world.name == 'head' else world.name), pathlib.Path(dest)
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    settings, reader_settings = SETTINGS[world.name]
    fit = GeneratorFit(work, settings, world)
    if preview:
        figures = comparison_sheet(world, finish_generator(fit.average), None, work / 'preview.png')
        print(f'step {fit.step} of {fit.num_steps}:', figures)
        return
    print(f'Fitting the image generator ({fit.num_steps - fit.step} of {fit.num_steps} steps to do)...', flush=True)
    fit.run()
    generator = finish_generator(fit.average)
    reader = fit_truth_reader(work, generator, fit.pool, reader_settings)
    encoder = fit_encoder(work, generator, reader, fit.pool, reader_settings)
    write_world(world, out, generator, encoder, reader, fit.step)
    figures = comparison_sheet(world, generator, encoder, work / 'comparison.png')
    print(json.dumps({**figures, 'seconds': round(time.time() - started)}))
# fmt: on


def write_world(
    world: World, out: pathlib.Path, generator: Generator, encoder: torch.nn.Module, reader: TruthReader, steps: int
) -> None:
    """Write the files of the world: two pickles in NVIDIA's layout, one safetensors file, and a JSON file about them."""
    # NVIDIA's scripts insist on G and D; the fit is paired, not adversarial, so there is no discriminator to keep.
    save_module_pickle(
        out / world.generator_file,
        {'G': generator, 'D': NoDiscriminator(), 'G_ema': generator, 'training_set_kwargs': None, 'augment_pipe': None},
    )
    reference = image_generator_reference(out / world.generator_file, generator)
    reference['path'] = f'demo/world/{world.generator_file}'
    save_module_pickle(
        out / world.encoder_file,
        {'encoder': encoder, 'image_generator': reference, 'training_options': {}, 'progress': {'step': steps}},
    )
    save_reader(out / world.reader_file, reader)
    about = {
        'made_by': 'python -m demo.make_world' + ('' if world.name == 'head' else f' --world={world.name}'),
        'steps': steps,
        'torch': torch.__version__,
        'parameters': list(world.table.names),
        'sha256': {name: file_sha256(out / name) for name in world.files},
    }
    (out / world.about_file).write_text(json.dumps(about, indent=2) + '\n')


if __name__ == '__main__':
    main()
