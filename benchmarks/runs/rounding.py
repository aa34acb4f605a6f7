"""What the number of processes, and rounding alone, do to a training: weights after some steps on one process and on two.

    python -m benchmarks.runs.rounding --data=latents.zip --folder=rounding

Four trainings by train_video.py, each process with one thread: on one process and on two, each with its batch at once and in two
portions (`--batch-gpu`). On one process, portions change nothing but the order of sums: they tell what rounding alone does. The
distance of two trainings is that of all weights of generator and critics, as a share of the way that they have gone.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import click
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
WINDOW, BATCH = 25, 64  # the defaults, of which the frames of a step are made


def train(inputs: list[str], folder: pathlib.Path, steps: int, gpus: int, *, portions: bool) -> torch.Tensor:
    """All weights of generator and critics after these steps, [N] in float64."""
    outdir = folder / f'{steps}-steps-on-{gpus}-{"portions" if portions else "whole"}'
    words = [
        'train_video.py', *inputs, f'--outdir={outdir}', f'--gpus={gpus}', '--device=cpu', '--preview-frames=0',
        f'--kimg={steps * BATCH * WINDOW / 1000}', '--critic-steps=1', '--decay=0',
        *([f'--batch-gpu={BATCH // 2}'] if portions else []),
    ]  # fmt: skip
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    (state,) = outdir.glob('*/training-state*.pt')
    trainer = torch.load(state, weights_only=True, map_location='cpu')['trainer']
    assert trainer['num_steps'] == steps
    return torch.cat([tensor.double().flatten() for weights in (trainer['G'], *trainer['C']) for tensor in weights.values()])


@click.command()
@click.option('--data', help='Latent data set', metavar='ZIP', required=True)
@click.option('--network', help='Its image generator, where it is not where it was', metavar='PKL')
@click.option('--folder', help='Where the trainings go', metavar='DIR', required=True)
@click.option('--steps', help='Length of each', type=click.IntRange(min=2), default=50, show_default=True)
def main(data: str, network: str | None, folder: str, steps: int) -> None:
    """Print a table of distances."""
    place = pathlib.Path(folder).resolve()
    inputs = [f'--data={os.path.abspath(data)}', *([f'--network={os.path.abspath(network)}'] if network else [])]
    begin = train(inputs, place, 1, 1, portions=False)
    whole, portions = ([train(inputs, place, steps, gpus, portions=each) for gpus in (1, 2)] for each in (False, True))
    way = (whole[0] - begin).norm()
    pairs = {
        'one process and two': (whole[0], whole[1]),
        'one process, two orders of sums': (whole[0], portions[0]),
        'one process and two, --batch-gpu': (portions[0], portions[1]),
    }
    click.echo(f'| after {steps} steps | distance |\n|---|---|')
    for name, (a, b) in pairs.items():
        click.echo(f'| {name} | {float((a - b).norm() / way):.1e} |')


if __name__ == '__main__':
    main()
