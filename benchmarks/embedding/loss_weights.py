"""Measures what the weights of pixels and smoothness do to optimised codes, by measures that none of them minimises alone.

    python -m benchmarks.embedding.loss_weights --network=G.pkl --data=recordings/ --weights=2:0.1,20:0.3 --results=weights.jsonl
    python -m benchmarks.embedding.loss_weights --demo=hand --weights=2:0.1,20:0.3 --results=weights.jsonl
    python -m benchmarks.embedding.loss_weights --results=weights.jsonl --table

The first frames (--frames) of every clip are optimised as embed_video.py does without an encoder, with each pair of weights
(--lambda-pixel:--smooth), beside AlexNet. The second form renders performances of a world of the demonstration instead, whose
true parameters are known. A pair and a clip is one line of --results, and what is there is not measured again.

    psnr, alex, vgg     against the recording: PSNR in dB, LPIPS of AlexNet (which is in the loss) and of VGG16 (which is not)
    identity            distance of faces, where dlib is installed and finds some
    truth               --demo: root mean square error of the parameters of motion, read back from the pictures, in deviations
    jitter              second differences of the codes over time, in deviations of W
    pixel_jitter        the same of pixels, as part of the recording's
    seconds             processor time of one thread

--table prints means, and differences of the second pair from the first, paired over clips (t tests, adjusted by Holm).
"""

import time
import types
from collections.abc import Iterator
from typing import Any

import click
import numpy as np

from benchmarks.embedding.results_file import Results, with_results
from training.commands import command_line

CHUNK = 16
FIRST_PERFORMANCE = 100  # seeds of footage that no network was fitted to
# Measures, whether more (1) or less (-1) is better, and digits.
MEASURES = {'psnr': (1, 2), 'identity': (-1, 3), 'alex': (-1, 4), 'vgg': (-1, 4), 'truth': (-1, 3), 'jitter': (-1, 3),
            'pixel_jitter': (0, 2), 'seconds': (-1, 1)}  # fmt: skip
FEWEST_CLIPS = 3  # to say anything about others


def footage(opts: types.SimpleNamespace, resolution: int) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Yield name, frames uint8 `[T, resolution, resolution, 3]` and true parameters `[T, P]` of every clip."""
    if opts.demo:
        from demo.drawing.pictures import to_uint8
        from demo.worlds import find_world

        world = find_world(opts.demo)
        for seed in range(FIRST_PERFORMANCE, FIRST_PERFORMANCE + opts.performances):
            truth = world.perform(opts.frames, seed=seed).truth()['parameters']
            yield f'{opts.demo}-{seed}', to_uint8(world.render(truth, resolution)[0]), truth
        return
    from training.embedding.embedder import read_chunks
    from training.footage.clips import fit, open_footage

    for clip in open_footage(opts.data):
        if opts.clips and clip.name not in opts.clips:
            continue
        frames: list[np.ndarray] = []
        for raw in read_chunks(clip, CHUNK, 0):
            frames += [fit(frame, resolution) for frame in raw]
            if len(frames) >= opts.frames:
                break
        yield clip.name, np.stack(frames[: opts.frames]), None


def measure(opts: types.SimpleNamespace, results: Results) -> None:
    """Measure every pair of weights on every clip that is not measured yet."""
    import torch

    from demo.truth_reader import load_reader
    from demo.worlds import FOLDER, find_world
    from networks.checkpoints import load_generator
    from networks.checkpoints.detectors import load_lpips
    from training.embedding.clip_review import second_differences
    from training.embedding.encoder_loss import peak_signal_to_noise
    from training.embedding.face_identity import FaceIdentity, is_installed
    from training.embedding.inversion import Inversion, InversionOptions
    from training.footage.frame_bank import frames_to_images
    from training.videos.synthesis import images_to_uint8

    torch.set_num_threads(1)
    world = find_world(opts.demo) if opts.demo else None
    G: Any = load_generator(str(FOLDER / world.generator_file) if world else opts.network)
    reader = load_reader(FOLDER / world.reader_file, world.table) if world else None
    face = FaceIdentity() if is_installed() and (world is None or opts.demo == 'head') else None
    judges = {name: load_lpips(name) for name in ('alex', 'vgg')}
    for pixel, smooth in opts.pairs:
        inversion: Inversion | None = None
        for name, frames, truth in footage(opts, int(G.img_resolution)):
            key = {
                'world': opts.world or opts.demo or 'footage',
                'clip': name,
                'pixel': pixel,
                'smooth': smooth,
                'frames': opts.frames,
            }
            if results.has(**key):
                continue
            if inversion is None:
                settings = InversionOptions(lambda_pixel=pixel, lambda_smooth=smooth)
                inversion = Inversion(G, judges['alex'], settings)
                _ = inversion.inverse_curvature  # of the generator, once: does not count
            targets = frames_to_images(frames, int(G.img_channels))
            started = time.process_time()
            parts: list[torch.Tensor] = []
            for chunk in targets.split(CHUNK):
                parts.append(inversion.fit_chunk(chunk, None, parts[-1][-1] if parts else None))
            seconds, codes = time.process_time() - started, torch.cat(parts)
            with torch.no_grad():
                images = torch.cat([inversion.synthesize(part) for part in codes.split(8)]).clamp(-1, 1)
                row: dict[str, Any] = {'psnr': float(peak_signal_to_noise(images, targets).mean())}
                for network, judge in judges.items():
                    pairs = zip(images.split(8), targets.split(8), strict=True)
                    row[network] = float(torch.cat([judge(*pair) for pair in pairs]).mean())
                whitened = inversion.whiten(codes).flatten(1)
                row['jitter'] = float(np.mean(second_differences(whitened).numpy()))
                row['pixel_jitter'] = float(second_differences(images).mean() / second_differences(targets).mean())
            shown = images_to_uint8(images)
            known = [distance for pair in zip(frames, shown, strict=True) if face and (distance := face(*pair)) is not None]
            row |= {'identity': float(np.mean(known))} if known else {}
            if world is not None and reader is not None and truth is not None:
                columns = [world.table.index[parameter.name] for parameter in world.table.motion]
                scale = world.table.statistics[1].numpy()[columns]
                error = (reader.read(shown)[:, columns] - truth[:, columns]) / scale
                row['truth'] = float(np.sqrt(np.square(error).mean()))
            results.add({**key, 'seconds': seconds, **row})


def table(results: Results) -> str:
    """Means of every pair of weights, and differences from the first one, in Markdown."""
    from benchmarks.comparison.significance import holm, p_value, summarize

    groups: dict[tuple[str, int], dict[tuple[float, float], dict[str, dict[str, Any]]]] = {}
    for row in results.rows:
        pairs = groups.setdefault((row['world'], row['frames']), {})
        pairs.setdefault((row['pixel'], row['smooth']), {})[row['clip']] = row
    text = []
    tests = []
    for (world, frames), pairs in groups.items():
        common = sorted(set.intersection(*(set(rows) for rows in pairs.values())))
        shown = [key for key in MEASURES if common and all(key in rows[clip] for rows in pairs.values() for clip in common)]
        lines = [f'{world}, the first {frames} frames of {len(common)} clips', '']
        lines += ['| ' + ' | '.join(['--lambda-pixel', '--smooth', *shown]) + ' |', '|' + '---|' * (len(shown) + 2)]
        for (pixel, smooth), rows in pairs.items():
            means = [f'{np.mean([rows[clip][key] for clip in common]):.{MEASURES[key][1]}f}' for key in shown]
            lines.append('| ' + ' | '.join([f'{pixel:g}', f'{smooth:g}', *means]) + ' |')
        text.append('\n'.join(lines))
        first, *others = pairs
        for other in others if len(common) >= FEWEST_CLIPS else []:
            for key in shown:
                if key != 'seconds':
                    changes = [pairs[other][clip][key] - pairs[first][clip][key] for clip in common]
                    tests.append((world, first, other, key, changes))
    adjusted = holm([p_value(changes, [0.0], fitted=True) for *_, changes in tests])
    lines = ['| world | from | to | measure | difference | interval | better in | p |', '|---|---|---|---|---|---|---|---|']
    for (world, first, other, key, changes), p in zip(tests, adjusted, strict=True):
        (sign, digits), summary = MEASURES[key], summarize(changes)
        interval = '' if summary.interval is None else ' to '.join(f'{value:+.{digits}f}' for value in summary.interval)
        better = f'{sum(sign * change > 0 for change in changes)} of {len(changes)}' if sign else ''
        named = [f'{pixel:g}:{smooth:g}' for pixel, smooth in (first, other)]
        cells = [world, *named, key, f'{summary.mean:+.{digits}f}', interval, better]
        lines.append('| ' + ' | '.join([*cells, '' if p is None else '< 0.001' if p < 0.001 else f'{p:.2g}']) + ' |')
    return '\n\n'.join([*text, *(['\n'.join(lines)] if tests else [])])


# fmt: off
@command_line.command()
@click.option('--network',      help='Image generator', metavar='FILE')
@click.option('--data',         help='Footage', metavar='FOOTAGE')
@click.option('--clips',        help='Only these clips of it', metavar='A,B', type=command_line.NAMES)
@click.option('--demo',         help='Footage and generator of this world of the demonstration',
              type=click.Choice(['head', 'hand', 'car']))
@click.option('--performances', help='--demo: clips', metavar='INT', type=command_line.POSITIVE_INT, default=6)
@click.option('--world',        help='Name of generator and footage in the results', metavar='NAME')
@click.option('--weights',      help='Pairs of --lambda-pixel and --smooth', metavar='P:S,..', type=command_line.NAMES,
              default='2:0.1,20:0.3')
@click.option('--frames',       help='Frames of a clip to optimise', metavar='INT', type=command_line.POSITIVE_INT, default=12)
@command_line.clear_errors
@with_results(table)
def main(opts: types.SimpleNamespace, results: Results) -> None:
    """Measure the weights of the loss of an optimisation."""
    if not (opts.demo or (opts.network and opts.data)):
        raise command_line.UserMistake('give --network and --data, or --demo, or --table')
    try:
        opts.pairs = [(float(pixel), float(smooth)) for pixel, smooth in (pair.split(':') for pair in opts.weights)]
    except ValueError as error:
        raise command_line.UserMistake('--weights: pairs such as 2:0.1,20:0.3 are wanted') from error
    measure(opts, results)
# fmt: on


if __name__ == '__main__':
    main()
