"""Measures how far codes get above the picture of the average code, for footage of several kinds.

    python -m benchmarks.embedding.embedding_gain --network=G.pkl --kind=aligned --data=aligned/ --results=gain.jsonl
    python -m benchmarks.embedding.embedding_gain --network=G.pkl --kind=foreign --data=foreign/ --results=gain.jsonl
    python -m benchmarks.embedding.embedding_gain --results=gain.jsonl --table

Frames 2 and 22 of every recording are optimised from the average code, 25 evaluations each; --codes=DIR takes the codes of an
encoder instead, DIR/NAME.npz with `w`, for frames 5, 15, 25, 35 and 45. Every recording adds one line, and what is there is not
measured again. The thresholds of training/embedding/judgement.py come from here.
"""

import os
import types
from typing import Any

import click
import numpy as np

from benchmarks.embedding.results_file import Results, with_results
from training.commands import command_line

EVALUATIONS = 25
OPTIMISED, ENCODED = (2, 22), (5, 15, 25, 35, 45)


def measure(opts: types.SimpleNamespace, results: Results) -> None:
    """Measure every recording that is not measured yet."""
    import torch

    from networks.checkpoints import load_generator
    from networks.checkpoints.detectors import load_lpips
    from training.embedding.encoder_loss import shrink
    from training.embedding.inversion import Inversion, InversionOptions
    from training.footage.clips import fit, open_footage
    from training.footage.frame_bank import frames_to_images

    torch.set_num_threads(1)
    G: Any = load_generator(opts.network)
    inversion = Inversion(G, load_lpips('alex'), InversionOptions())
    for clip in open_footage(opts.data):
        if results.has(kind=opts.kind, clip=clip.name, encoder=bool(opts.codes)):
            continue
        wanted = ENCODED if opts.codes else OPTIMISED
        frames = [
            fit(frame, int(G.img_resolution))
            for index, frame in zip(range(wanted[-1] + 1), clip.frames(), strict=False)
            if index in wanted
        ]
        targets = shrink(frames_to_images(np.stack(frames), int(G.img_channels)), inversion.resolution)
        if opts.codes:
            codes = np.load(os.path.join(opts.codes, f'{clip.name}.npz'))['w'][list(wanted)]
            ws = torch.from_numpy(codes.astype(np.float32))
        else:
            ws = inversion._optimize(targets, inversion.average(len(targets)), None, EVALUATIONS)
        rows = inversion.measure(ws, targets)
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        results.add({'kind': opts.kind, 'clip': clip.name, 'encoder': bool(opts.codes), **means})


def table(results: Results) -> str:
    """Lowest, middle and highest of every kind, in Markdown."""
    lines = ['| footage | codes | recordings | PSNR (dB) | gain (dB) |', '|---|---|---|---|---|']
    for kind, encoder in dict.fromkeys((row['kind'], row['encoder']) for row in results.rows):
        mine = [row for row in results.rows if (row['kind'], row['encoder']) == (kind, encoder)]
        cells = []
        for key in ('psnr', 'gain'):
            values = [row[key] for row in mine]
            cells.append(f'{min(values):.1f} / {np.median(values):.1f} / {max(values):.1f}')
        lines.append(f'| {kind} | {"of an encoder" if encoder else "optimised"} | {len(mine)} | {" | ".join(cells)} |')
    return '\n'.join(lines)


# fmt: off
@command_line.command()
@click.option('--network', help='Image generator', metavar='FILE')
@click.option('--data',    help='Footage', metavar='FOOTAGE')
@click.option('--kind',    help='What kind of footage it is', metavar='NAME', default='aligned')
@click.option('--codes',   help="Folder of an encoder's codes, NAME.npz", metavar='DIR')
@command_line.clear_errors
@with_results(table)
def main(opts: types.SimpleNamespace, results: Results) -> None:
    """Measure the gain over the average picture."""
    if not (opts.network and opts.data):
        raise command_line.UserMistake('give --network and --data, or --table')
    measure(opts, results)
# fmt: on


if __name__ == '__main__':
    main()
