"""Makes the embedded world: fits the image generator, its encoder, and the reader of true parameters, and writes their files.

    python -m demo.make_world --workdir=demo-output/world-work --dest=demo/world

takes about an hour of one CPU core, and two gigabytes of disk for pictures. Interrupted, it goes on where it was.
"""

import json
import pathlib
import time

import click
import numpy as np
import torch
from PIL import Image

from demo.fitting.fit_generator import FitSettings, GeneratorFit
from demo.fitting.fit_readers import ReaderSettings, fit_encoder, fit_truth_reader
from demo.head.head_parameters import NAMES, NUM_PARAMETERS, parameters_from_latent
from demo.head.talking_head import render, to_uint8
from demo.measure_world import psnr
from demo.truth_reader import save_reader
from demo.world_files import ENCODER_FILE, GENERATOR_FILE, READER_FILE
from networks.checkpoints import file_sha256, image_generator_reference, save_module_pickle
from networks.stylegan2 import Generator
from networks.stylegan2_discriminator import NoDiscriminator
from training.commands.command_line import clear_errors, command


@torch.no_grad()
def finish_generator(generator: Generator, seed: int = 0, num: int = 20000) -> Generator:
    """Set the average of w from `num` latents and freeze the generator."""
    generator = generator.eval().requires_grad_(False)
    z = torch.from_numpy(np.random.RandomState(seed).randn(num, NUM_PARAMETERS)).to(torch.float32)
    generator.mapping.w_avg.copy_(generator.mapping(z, None)[:, 0].mean(dim=0))
    return generator


@torch.no_grad()
def comparison_sheet(
    generator: Generator, encoder: torch.nn.Module | None, path: pathlib.Path, seed: int = 10**6, num: int = 10
) -> dict[str, float]:
    """Write rendered, fitted and re-encoded heads the fit never saw, a row each; returns the agreement in dB over 200 of them."""
    z = torch.from_numpy(np.random.RandomState(seed).randn(200, NUM_PARAMETERS)).to(torch.float32)
    wanted = render(parameters_from_latent(z), generator.img_resolution)
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
    '--workdir',
    help='Where the state of the fits lies, so that they can go on',
    metavar='DIR',
    default='demo-output/world-work',
    show_default=True,
)
@click.option('--dest', help='Where the files of the world go', metavar='DIR', default='demo/world', show_default=True)
@click.option('--threads', help='CPU threads to use', metavar='INT', type=click.IntRange(min=1), default=1, show_default=True)
@click.option('--preview', help='Write a comparison sheet of the generator as it is now, and leave', is_flag=True)
@clear_errors
def main(workdir: str, dest: str, threads: int, preview: bool) -> None:
    """Make the talking head's image generator, encoder, and parameter reader, from nothing but the renderer."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    work, out = pathlib.Path(workdir), pathlib.Path(dest)
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    settings, reader_settings = FitSettings(), ReaderSettings()
    fit = GeneratorFit(work, settings)
    if preview:
        print(f'step {fit.step} of {fit.num_steps}:', comparison_sheet(finish_generator(fit.average), None, work / 'preview.png'))
        return
    print(f'Fitting the image generator ({fit.num_steps - fit.step} of {fit.num_steps} steps to do)...', flush=True)
    fit.run()
    generator = finish_generator(fit.average)
    reader = fit_truth_reader(work, generator, fit.pool, reader_settings)
    encoder = fit_encoder(work, generator, reader, fit.pool, reader_settings)
    write_world(out, generator, encoder, reader, fit.step)
    figures = comparison_sheet(generator, encoder, work / 'comparison.png')
    print(json.dumps({**figures, 'seconds': round(time.time() - started)}))
# fmt: on


def write_world(out: pathlib.Path, generator: Generator, encoder: torch.nn.Module, reader: torch.nn.Module, steps: int) -> None:
    """Write the files of the world: two pickles in NVIDIA's layout, one safetensors file, and what they are, in `world.json`."""
    # NVIDIA's scripts insist on G and D; the fit is paired, not adversarial, so there is no discriminator to keep.
    save_module_pickle(
        out / GENERATOR_FILE,
        {'G': generator, 'D': NoDiscriminator(), 'G_ema': generator, 'training_set_kwargs': None, 'augment_pipe': None},
    )
    reference = image_generator_reference(out / GENERATOR_FILE, generator)
    reference['path'] = f'demo/world/{GENERATOR_FILE}'
    save_module_pickle(
        out / ENCODER_FILE,
        {'encoder': encoder, 'image_generator': reference, 'training_options': {}, 'progress': {'step': steps}},
    )
    save_reader(out / READER_FILE, reader)  # type: ignore[arg-type]
    about = {
        'made_by': 'python -m demo.make_world',
        'steps': steps,
        'torch': torch.__version__,
        'parameters': list(NAMES),
        'sha256': {name: file_sha256(out / name) for name in (GENERATOR_FILE, ENCODER_FILE, READER_FILE)},
    }
    (out / 'world.json').write_text(json.dumps(about, indent=2) + '\n')


if __name__ == '__main__':
    main()
