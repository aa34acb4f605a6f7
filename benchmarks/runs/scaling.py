"""How much faster two processes are than one, with one thread each: trainings, embedding, generation, metrics, by real commands.

    python -m benchmarks.runs.scaling
    python -m benchmarks.runs.scaling --only=train_video --rounds=5

One and two processes take turns, so that other work on the machine slows both. Times are those that the commands write down
themselves, without their start: seconds per 1000 frames or images of a training tick, from the beginning of the first file to
the end of the last for generation, of the process that has longest to embed, and of a metric with all that it reads. A ratio
of 2 would be perfect; beside other work, less says little, which is why the load of the machine stands below the table.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import click
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]

CODES = (10, 64)  # num_ws, w_dim of the image generator
SIDE = 64
CLIPS, CLIP_FRAMES = 8, 60
COPIES = 8  # of the clips, of which a metric is computed

# A network that nobody has trained, in the place of I3D.
PLUGIN = """
import torch
from metrics import metric_main
from metrics.features import detectors

class Drawn(torch.nn.Module):
    description = {'name': 'Drawn', 'weights_sha256': 'd' * 64}
    detector_name, single, smallest_num_frames, num_features, resize_rule = 'i3d', False, 3, 64, 'none'

    def __init__(self, *paths):
        super().__init__()
        torch.manual_seed(0)
        convolutions = [torch.nn.Conv3d(a, b, 3, stride=c, padding=1) for a, b, c in ((3, 64, 1), (64, 64, 2), (64, 64, 2))]
        self.layers = torch.nn.Sequential(*(part for conv in convolutions for part in (conv, torch.nn.ReLU())))
        self.requires_grad_(False)

    def features(self, frames):
        return self.layers(frames.float().movedim(-1, 1) / 255).mean(dim=(2, 3, 4))[:, None]

detectors.MAKERS['i3d'] = Drawn

@metric_main.register_metric
def drawn_frames(opts):  # a plugin has to have a metric
    return {'drawn_frames': 0.0}
"""


def make_material(folder: pathlib.Path) -> None:
    """An image generator with random weights, and a data set of four minutes."""
    import torch

    from networks import checkpoints, stylegan2
    from networks.latent_generator import LatentGenerator
    from training.latents.dataset import LatentDataset, LatentDatasetWriter
    from training.temporal_snapshot import describe_dataset, save_snapshot
    from training.videos.output import VideoWriter
    from training.videos.synthesis import render_codes

    torch.manual_seed(0)
    G: Any = stylegan2.Generator(
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
    (folder / 'clips').mkdir()
    (folder / 'drawn.py').write_text(PLUGIN)
    frames = np.stack(list(render_codes(G, codes[: CLIPS * CLIP_FRAMES])))
    for name in ('real', 'fake'):
        np.save(folder / f'{name}.npy', np.tile(frames.reshape(CLIPS, CLIP_FRAMES, SIDE, SIDE, 3), (COPIES, 1, 1, 1, 1)))
    for number, clip in enumerate(frames.reshape(CLIPS, CLIP_FRAMES, SIDE, SIDE, 3)):
        with VideoWriter(folder / 'clips' / f'{number}.mp4', fps=25) as video:
            for frame in clip:
                video.write(frame)
    latent = LatentGenerator(*CODES, num_components=12)
    latent.set_data_basis(torch.from_numpy(codes.mean(axis=0)).flatten(), torch.randn(12, CODES[0] * CODES[1]) / 10)
    with LatentDataset(folder / 'd.zip') as data:
        save_snapshot(
            str(folder / 'network-snapshot-000000.pkl'), G=latent, G_ema=latent, C=latent, image_generator=reference,
            data=describe_dataset(data), training_options={}, progress={},
        )  # fmt: skip


def ticks(out: pathlib.Path, processes: int, said: str) -> float:
    """Seconds per 1000 frames (or images) of a training, the median of its ticks but for the first."""
    (path,) = out.glob('*/stats.jsonl')
    values = [json.loads(line)['Timing/sec_per_kimg']['mean'] for line in path.read_text().splitlines()]
    return statistics.median(values[1:])


def files(out: pathlib.Path, processes: int, said: str) -> float:
    """Seconds per file of a generation."""
    lines = [json.loads(line) for line in (out / 'generation.jsonl').read_text().splitlines()]
    return (max(line['timestamp'] for line in lines) - min(line['timestamp'] - line['seconds'] for line in lines)) / len(lines)


def clips(out: pathlib.Path, processes: int, said: str) -> float:
    """Seconds per clip of an embedding: of the process that took longest for its share, over all clips."""
    found = re.findall(r'^(\d+): (\d+) frames.*, ([\d.]+) frames a second$', said, re.MULTILINE)
    assert len(found) == CLIPS, said
    seconds = {int(name): int(count) / float(rate) for name, count, rate in found}
    return max(sum(seconds[number] for number in range(rank, CLIPS, processes)) for rank in range(processes)) / CLIPS


def metric(out: pathlib.Path, processes: int, said: str) -> float:
    """Seconds of a metric."""
    (line,) = [json.loads(line) for line in said.splitlines() if line.startswith('{"results"')]
    return float(line['total_time'])


WORK: dict[str, tuple[str, tuple[str, ...], Callable[[pathlib.Path, int, str], float]]] = {
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
    'embed_video': (
        f'embedding {CLIPS} clips of {CLIP_FRAMES} frames of {SIDE}x{SIDE} by optimisation, 3 steps, seconds a clip',
        ('--network={in}/g.pkl', '--source={in}/clips', '--dest={out}/e.zip', '--perceptual=none', '--no-report', '--steps=3',
         '--first-steps=3', '--min-frames=2'),
        clips,
    ),
    'calc_metrics_video': (
        f'FVD of {COPIES * CLIPS} videos of {SIDE}x{SIDE}, a drawn network of 3 layers for I3D, seconds',
        ('--metrics=fvd64_16f', '--real={in}/real.npy', '--fake={in}/fake.npy', '--plugin={in}/drawn.py', '--no-cache',
         '--bootstrap=0'),
        metric,
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
        return read(pathlib.Path(out), processes, done.stdout + done.stderr)


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
