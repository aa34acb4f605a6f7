"""Measures what tells footage that a generator draws from other footage, of several kinds: gain, LPIPS, deviation of codes.

    python -m benchmarks.embedding.embedding_gain --network=G.pkl --kind=aligned --data=aligned/ --results=gain.jsonl
    python -m benchmarks.embedding.embedding_gain --network=G.pkl --change=turned --data=aligned/ --results=gain.jsonl
    python -m benchmarks.embedding.embedding_gain --network=G.pkl --kind=patterns --data=patterns/ --results=gain.jsonl
    python -m benchmarks.embedding.embedding_gain --results=gain.jsonl --table

Frames 2, 3 and 4 of every recording are optimised as embed_video.py optimises the beginning of a clip; --codes=DIR takes the
codes of an encoder instead, DIR/NAME.npz with `w`, for frames 5, 15, 25, 35 and 45. --change makes footage that a generator of
aligned faces does not draw from footage that it draws. Every recording adds one line, and what is there is not measured again.
The thresholds of training/embedding/judgement.py come from here.
"""

import os
import types
from typing import Any

import click
import numpy as np

from benchmarks.embedding.results_file import Results, with_results
from training.commands import command_line

OPTIMISED, ENCODED = (2, 3, 4), (5, 15, 25, 35, 45)
CHANGES = ('turned', 'upside down', 'half size', 'moved', 'negative')
MEASURES = (('psnr', 1), ('gain', 1), ('lpips', 3), ('deviation', 2))  # and digits


def changed(frame: np.ndarray, change: str) -> np.ndarray:
    """A square frame, uint8 `[S, S, 3]`, made into one of another kind; what comes into view is mirrored."""
    side = len(frame)
    if change == 'turned':
        return np.rot90(frame)
    if change == 'upside down':
        return frame[::-1]
    if change == 'half size':
        return np.pad(frame, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)), mode='reflect')
    if change == 'moved':
        return np.pad(frame, ((0, 0), (int(0.35 * side), 0), (0, 0)), mode='reflect')[:, :side]
    return 255 - frame


def measure(opts: types.SimpleNamespace, results: Results) -> None:
    """Measure every recording that is not measured yet."""
    import torch

    from networks.checkpoints import load_generator
    from networks.checkpoints.detectors import load_lpips
    from training.embedding.encoder_loss import shrink
    from training.embedding.inversion import Inversion, InversionOptions, default_weights
    from training.footage.clips import fit, open_footage
    from training.footage.frame_bank import frames_to_images

    torch.set_num_threads(1)
    G: Any = load_generator(opts.network)
    lpips = load_lpips('alex')
    pixel, smooth = default_weights(int(G.img_resolution), lpips)
    pixel, smooth = opts.lambda_pixel or pixel, opts.smooth or smooth
    inversion = Inversion(G, lpips, InversionOptions(lambda_pixel=pixel, lambda_smooth=smooth))
    kind = opts.kind or opts.change or 'aligned'
    way = 'of an encoder' if opts.codes else f'optimised, pixels {pixel:g}'
    for clip in open_footage(opts.data):
        if results.has(world=opts.world, kind=kind, clip=clip.name, way=way):
            continue
        wanted = ENCODED if opts.codes else OPTIMISED
        frames = [
            fit(frame if opts.change is None else changed(np.asarray(frame), opts.change), int(G.img_resolution))
            for index, frame in zip(range(wanted[-1] + 1), clip.frames(), strict=False)
            if index in wanted
        ]
        targets = shrink(frames_to_images(np.stack(frames), int(G.img_channels)), inversion.resolution)
        if opts.codes:
            codes = np.load(os.path.join(opts.codes, f'{clip.name}.npz'))['w'][list(wanted)]
            ws = torch.from_numpy(codes.astype(np.float32))
        else:
            ws = inversion.fit_chunk(targets, None, None)
        rows = inversion.measure(ws, targets)
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        means['deviation'] = float(inversion.deviations(ws).mean())
        results.add({'world': opts.world, 'kind': kind, 'clip': clip.name, 'way': way, **means})


def table(results: Results) -> str:
    """Lowest, middle and highest of every kind, in Markdown."""
    lines = [
        '| generator | footage | codes | recordings | PSNR (dB) | gain (dB) | LPIPS | deviation |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for group in dict.fromkeys((row['world'], row['kind'], row['way']) for row in results.rows):
        mine = [row for row in results.rows if (row['world'], row['kind'], row['way']) == group]
        cells = []
        for key, digits in MEASURES:
            values = [row[key] for row in mine]
            cells.append(' / '.join(f'{value:.{digits}f}' for value in (min(values), np.median(values), max(values))))
        lines.append(f'| {" | ".join(group)} | {len(mine)} | {" | ".join(cells)} |')
    return '\n'.join(lines)


# fmt: off
@command_line.command()
@click.option('--network', help='Image generator', metavar='FILE')
@click.option('--data',    help='Footage', metavar='FOOTAGE')
@click.option('--kind',    help='What kind of footage it is  [default: aligned, or the change]', metavar='NAME')
@click.option('--world',   help='Name of the generator in the results', metavar='NAME', default='faces64')
@click.option('--change',  help='Change every frame in this way first', type=click.Choice(CHANGES))
@click.option('--codes',   help="Folder of an encoder's codes, NAME.npz", metavar='DIR')
@click.option('--lambda-pixel', help='Weight of the pixels  [default: as embed_video.py]', metavar='FLOAT',
              type=command_line.POSITIVE_FLOAT)
@click.option('--smooth',  help='Weight of the steps from frame to frame  [default: as embed_video.py]', metavar='FLOAT',
              type=command_line.POSITIVE_FLOAT)
@command_line.clear_errors
@with_results(table)
def main(opts: types.SimpleNamespace, results: Results) -> None:
    """Measure gain, LPIPS and deviation."""
    if not (opts.network and opts.data):
        raise command_line.UserMistake('give --network and --data, or --table')
    measure(opts, results)
# fmt: on


if __name__ == '__main__':
    main()
