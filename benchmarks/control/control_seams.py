"""Seams of continued and looped videos, in steps of codes: is the step over the seam larger than the others?

    python -m benchmarks.control.control_seams --data=latents.zip --network=network-snapshot-001500.pkl --outdir=out

Continuations start behind frames of a recording (`recorded`), behind frames of videos of the model whose seed is not told
(`own`), and with single frames of the recording (`first frame`). A usual step is one of the 100 frames that follow the seam (from
the second on). Loops of several lengths are closed from several seeds; their usual steps are those of 1000 frames of the same
seed without a loop. One JSON line for each is written when it is done, and a run that was interrupted goes on.
"""

import json
import pathlib
from typing import Any

import click
import numpy as np
import torch

from networks.checkpoints import load_snapshot
from networks.errors import InputError
from training.commands import command_line
from training.control.continuation import WINDOW, explain
from training.control.loop import LoopSource, find_bridge
from training.control.operators import Pipeline
from training.latents.dataset import LatentDataset
from training.videos.code_sources import ModelSource

LENGTHS = (90, 100, 200, 500, 1000, 2000)
BURN_IN = 50


def step_sizes(codes: torch.Tensor) -> np.ndarray:
    """Root mean square of each step of codes [T, num_ws, w_dim], [T - 1]."""
    return codes.diff(dim=0).square().mean(dim=(1, 2)).sqrt().numpy()


def continuation(generator: Any, kind: str, index: int, recorded: torch.Tensor) -> dict[str, Any]:
    draws = np.random.RandomState([index, 7])
    if kind == 'own':
        burn_in = BURN_IN + generator.frames_behind + int(draws.randint(200))
        codes = ModelSource(generator, 100_000 + index, burn_in=burn_in).read(WINDOW)
    else:
        end = int(draws.randint(WINDOW, len(recorded) - 1))
        codes = recorded[end - (WINDOW if kind == 'recorded' else 1) : end]
    found = explain(generator, codes, burn_in=BURN_IN)
    source = Pipeline(ModelSource(generator, index, beginning=found.beginning), [found.operator()])
    steps = step_sizes(source.read(102))  # the first frame is the last known one
    return {'kind': kind, 'index': index, 'error': found.error, 'fade': found.fade, 'seam': float(steps[0]),
            'usual': float(np.sqrt(np.mean(steps[1:] ** 2))), 'p99': float(np.percentile(steps[1:], 99))}  # fmt: skip


def loop(generator: Any, num_frames: int, seed: int) -> dict[str, Any]:
    line = {'kind': f'loop of {num_frames}', 'index': seed}
    try:
        bridge = find_bridge(generator, seed, num_frames, burn_in=BURN_IN)
    except InputError as error:
        return {**line, 'refused': str(error)}
    steps = step_sizes(LoopSource(generator, bridge, num_frames).read(num_frames + 1))
    inside = steps[-len(bridge.noise) :]
    usual = step_sizes(ModelSource(generator, seed, burn_in=BURN_IN).read(1000))
    return {
        **line, 'seam': float(steps[-1]), 'usual': float(np.sqrt(np.mean(usual**2))), 'p99': float(np.percentile(usual, 99)),
        'bridge': float(np.sqrt(np.mean(inside**2))), 'bridge_largest': float(inside.max()), 'largest': float(usual.max()),
        'noise_rms': bridge.noise_rms, 'rest': float(bridge.rest.square().mean().sqrt()),
    }  # fmt: skip


@command_line.command()
@click.option('--data', help='Latent data set that the snapshot was trained on', required=True)
@click.option('--network', help='Snapshot', required=True)
@click.option('--outdir', help='Where lines go', required=True)
@click.option('--starts', help='Continuations of each kind', type=command_line.POSITIVE_INT, default=34)
@click.option('--seeds', help='Seeds for each length of loop', type=command_line.POSITIVE_INT, default=5)
@command_line.clear_errors
def main(data: str, network: str, outdir: str, starts: int, seeds: int) -> None:
    """Measure the seams of continuations and loops."""
    torch.set_num_threads(1)
    path = pathlib.Path(command_line.require_folder(outdir)) / 'seams.jsonl'
    generator = load_snapshot(network)['G_ema']
    with LatentDataset(data) as latents:
        recorded = torch.from_numpy(np.array(latents.load_clip(0)))
    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    done = {(line['kind'], line['index']) for line in lines}
    jobs = [(f'loop of {length}', seed, length) for seed in range(seeds) for length in LENGTHS]
    jobs += [(kind, index, 0) for index in range(starts) for kind in ('recorded', 'own', 'first frame')]
    with path.open('a') as file, command_line.progress(total=len(jobs), description='Seams', unit='seam') as bar:
        for kind, index, length in jobs:
            if (kind, index) not in done:
                line = loop(generator, length, index) if length else continuation(generator, kind, index, recorded)
                file.write(json.dumps(line) + '\n')
                file.flush()
                lines.append(line)
            bar.update(1)
    print(table(lines))


def table(lines: list[dict[str, Any]]) -> str:
    """Averages of each kind; quotients are of a seam (or bridge) and the usual steps of the same video."""
    rows = ['| kind | number | seam / usual step (rms) | seams above the 99th percentile | bridge / usual | error of the fit |',
            '|---|---|---|---|---|---|']  # fmt: skip
    for kind in dict.fromkeys(line['kind'] for line in lines):
        chosen = [line for line in lines if line['kind'] == kind]
        closed = [line for line in chosen if 'seam' in line]
        if not closed:
            rows.append(f'| {kind} | 0 of {len(chosen)} closed | | | | |')
            continue
        quotient = np.sqrt(np.mean([(line['seam'] / line['usual']) ** 2 for line in closed]))
        above = sum(line['seam'] > line['p99'] for line in closed)
        bridge = [line['bridge'] / line['usual'] for line in closed if 'bridge' in line]
        error = [line['error'] for line in closed if 'error' in line]
        cells = [kind, f'{len(closed)} of {len(chosen)}', f'{quotient:.2f}', f'{above}',
                 f'{np.mean(bridge):.2f}' if bridge else '', f'{np.mean(error):.3f}' if error else '']  # fmt: skip
        rows.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(rows)


if __name__ == '__main__':
    main()
