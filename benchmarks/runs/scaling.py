"""How much faster two processes are than one, each with one thread: training, encoder, generation, by the real commands.

    python -m benchmarks.runs.scaling
    python -m benchmarks.runs.scaling --only=train_video --rounds=5

One and two processes take turns, so that other work on the machine slows both. Times are those that the commands write down
themselves, without their start: seconds per 1000 frames or images of a training tick, and from the beginning of the first
file to the end of the last for generation. A ratio of 2 would be perfect; beside other work, less says little, which is why the
load of the machine stands below the table.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable

import click
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]

CODES = (10, 64)  # num_ws, w_dim of the image generator
SIDE = 64


def make_material(folder: pathlib.Path) -> None:
    """An image generator with random weights, and a data set of four minutes."""
    import torch

    from networks import checkpoints, stylegan2
    from networks.latent_generator import LatentGenerator
    from training.latents.dataset import LatentDataset, LatentDatasetWriter
    from training.temporal_snapshot import describe_dataset, save_snapshot

    torch.manual_seed(0)
    G = stylegan2.Generator(
        z_dim=64, c_dim=0, w_dim=CODES[1], img_resolution=SIDE, img_channels=3, mapping_kwargs={'num_layers': 2},
        synthesis_kwargs={'channel_base': 4096, 'channel_max': 128},
    )  # fmt: skip
    assert int(G.num_ws) == CODES[0]
    checkpoints.save_module_pickle(folder / 'g.pkl', {'G_ema': G.eval().requires_grad_(False)})
    reference = checkpoints.image_generator_reference(str(folder / 'g.pkl'), G)
    random = np.random.RandomState(0)
    directions = random.randn(20, CODES[0] * CODES[1]) / np.arange(1, 21)[:, None]
    time = np.arange(6000)[:, None]
    waves = np.sin(time / random.uniform(4, 40, size=20) + random.uniform(0, 6, size=20)) @ directions
    codes = (waves + 0.02 * random.randn(*waves.shape)).reshape(-1, *CODES).astype(np.float32)
    with LatentDatasetWriter(
        folder / 'd.zip', image_generator=reference, num_ws=CODES[0], w_dim=CODES[1], embedding={}
    ) as writer:
        writer.add_clip('a', codes, fps=25.0, source='a.mp4')
    latent = LatentGenerator(*CODES, num_components=12)
    latent.set_data_basis(torch.from_numpy(codes.mean(axis=0)).flatten(), torch.randn(12, CODES[0] * CODES[1]) / 10)
    with LatentDataset(folder / 'd.zip') as data:
        save_snapshot(
            str(folder / 'network-snapshot-000000.pkl'), G=latent, G_ema=latent, C=latent, image_generator=reference,
            data=describe_dataset(data), training_options={}, progress={},
        )  # fmt: skip


def ticks(out: pathlib.Path) -> float:
    """Seconds per 1000 frames (or images) of a training, the median of its ticks but for the first."""
    (path,) = out.glob('*/stats.jsonl')
    values = [json.loads(line)['Timing/sec_per_kimg']['mean'] for line in path.read_text().splitlines()]
    return statistics.median(values[1:])


def files(out: pathlib.Path) -> float:
    """Seconds per file of a generation."""
    lines = [json.loads(line) for line in (out / 'generation.jsonl').read_text().splitlines()]
    return (max(line['timestamp'] for line in lines) - min(line['timestamp'] - line['seconds'] for line in lines)) / len(lines)


WORK: dict[str, tuple[str, tuple[str, ...], Callable[[pathlib.Path], float]]] = {
    'train_video': (
        'training, a step of 64 windows, seconds per 1000 frames',
        ('--data={in}/d.zip', '--outdir={out}', '--kimg=320', '--tick=32', '--snap=0', '--preview-frames=0'),
        ticks,
    ),
    'train_encoder': (
        f'encoder of {SIDE}x{SIDE} pictures, a step of 16, seconds per 1000 images',
        ('--network={in}/g.pkl', '--outdir={out}', '--kimg=0.192', '--batch=16', '--tick=0.032', '--snap=100',
         '--perceptual=none', '--cbase=2048', '--cmax=64'),
        ticks,
    ),
    'generate_video': (
        f'8 videos of 100 frames of {SIDE}x{SIDE}, seconds a video',
        ('--network={in}/network-snapshot-000000.pkl', '--outdir={out}', '--seeds=0-7', '--frames=100',
         '--burn-in=0'),
        files,
    ),
}  # fmt: skip


def measure(command: str, folder: pathlib.Path, processes: int) -> float:
    """Run a command with so many processes; returns its own measure of its speed."""
    _, words, read = WORK[command]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        arguments = [word.replace('{in}', str(folder)).replace('{out}', out) for word in words]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        line = [sys.executable, str(ROOT / f'{command}.py'), *arguments, '--device=cpu', f'--gpus={processes}']
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return read(pathlib.Path(out))


@click.command()
@click.option('--only', help='Command; may be repeated  [default: all]', type=click.Choice(list(WORK)), multiple=True)
@click.option('--rounds', help='How often each is measured', type=click.IntRange(min=1), default=3, show_default=True)
def main(only: tuple[str, ...], rounds: int) -> None:
    """Measure one process and two."""
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_material(folder)
        click.echo('| work | 1 process | 2 processes | ratio |\n|---|---|---|---|')
        for command in only or WORK:
            seconds: dict[int, list[float]] = {1: [], 2: []}
            for number in range(rounds):
                for processes in (1, 2) if number % 2 == 0 else (2, 1):
                    seconds[processes].append(measure(command, folder, processes))
            one, two = (statistics.median(seconds[processes]) for processes in (1, 2))
            ratios = [a / b for a, b in zip(seconds[1], seconds[2], strict=True)]
            spread = f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
            click.echo(f'| {WORK[command][0]} | {one:.3f} | {two:.3f} | {spread} |')
    click.echo(
        f'\n{rounds} rounds, {os.cpu_count()} cores; load of the machine before {before:.1f}, after {os.getloadavg()[0]:.1f}'
    )


if __name__ == '__main__':
    main()
