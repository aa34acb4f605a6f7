"""Measures the ways of embedding against each other, and against projection of one frame at a time.

    python -m benchmarks.embedding.embedding_methods --network=G.pkl --encoder=E.pkl --data=recordings/ --results=embedding.jsonl
    python -m benchmarks.embedding.embedding_methods --network=G.pkl --encoder=E.pkl --data=recordings/ \
        --results=embedding.jsonl --compare
    python -m benchmarks.embedding.embedding_methods --results=embedding.jsonl --table

The first command embeds the beginning of every clip (--frames; the encoder alone all of it) in every way. The second takes the
last frame of each such beginning, and puts what refinement and optimisation of whole chunks reach after some time beside what
the projection of benchmarks/embedding/per_frame_projection.py has reached by then, with the same image generator and the same
perceptual distance. Without --encoder the ways that begin with one are left out; --ways names those to measure. --lambda-pixel
is the weight of the pixels beside LPIPS (give its results a --world of their own). Where dlib is installed, the distance of
faces is measured as well. Every measurement adds one line to --results, and what is there is not measured again, so that an
interrupted run goes on. Times are processor seconds of one thread, which other work on the machine disturbs less than the
clock.
"""

import dataclasses
import time
import types
from collections.abc import Iterator
from typing import Any

import click
import numpy as np

from benchmarks.embedding.results_file import Results, with_results
from training.commands import command_line

CHUNK = 16
FEWEST_CLIPS = 3  # to say anything about others
MOST_FACES = 64  # frames, above which identity is not measured
SIGMA = 1.0  # frames, of the filter that smooths the codes of the encoder

# Method: (encoder, optimisation, weight of smoothness or filter). The names stand in the table.
METHODS: dict[str, tuple[bool, bool, bool]] = {
    'encoder': (True, False, False),
    'encoder, filtered over time': (True, False, True),
    'optimisation': (False, True, False),
    'optimisation, smooth': (False, True, True),
    'encoder and refinement': (True, True, False),
    'encoder and refinement, smooth': (True, True, True),
}
EVALUATIONS = (5, 10, 20, 40, 80, 160)  # after which refinement is looked at
LOOKS = (10, 20, 50, 100, 150, 200, 300, 400, 600, 800)  # steps after which the projection is looked at

# Where the projection searches; "fixed": with the noise maps of the image generator, all that codes can have.
SPACES = {'w': 'W', 'w+': 'W+', 'w+-fixed': 'W+, noise maps of the generator'}

# ----------------------------------------------------------------------------
# Measuring.


class Bench:
    """The networks, the clips, and the measures of codes."""

    def __init__(self, opts: types.SimpleNamespace) -> None:
        import torch

        from networks.checkpoints import load_encoder, load_generator
        from networks.checkpoints.detectors import load_lpips
        from training.embedding.face_identity import FaceIdentity, is_installed
        from training.embedding.inversion import Inversion, InversionOptions
        from training.footage.clips import open_footage

        torch.set_num_threads(1)
        self.G: Any = load_generator(opts.network)
        self.encoder: Any = load_encoder(opts.encoder) if opts.encoder else None
        self.lpips = load_lpips(opts.perceptual)
        self.clips = open_footage(opts.data)
        settings = InversionOptions(stop=0, lambda_pixel=opts.lambda_pixel, lambda_smooth=0.1)
        self.inversion = Inversion(self.G, self.lpips, settings)
        self.face = FaceIdentity() if is_installed() else None
        started = time.process_time()
        _ = self.inversion.inverse_curvature
        self.preparation = time.process_time() - started

    def frames(self, clip: Any, count: int | None) -> Iterator[Any]:
        """Yield chunks of images `[<= CHUNK, C, r, r]`."""
        from training.embedding.embedder import read_chunks
        from training.footage.clips import fit
        from training.footage.frame_bank import frames_to_images

        left = count
        for raw in read_chunks(clip, CHUNK, 0):
            raw = raw[:left]
            yield frames_to_images(np.stack([fit(frame, int(self.G.img_resolution)) for frame in raw]), int(self.G.img_channels))
            if left is not None:
                left -= len(raw)
                if left <= 0:
                    return

    def encode(self, images: Any) -> Any:
        """Codes of the encoder."""
        import torch

        with torch.no_grad():
            return self.encoder(images)

    def embed(self, chunks: list[Any], *, encoder: bool, optimise: bool, **settings: Any) -> tuple[Any, float]:
        """Codes `[T, num_ws, w_dim]` of a clip, and the processor time of finding them."""
        import torch

        from training.embedding.encoder_loss import shrink

        self.inversion.options = dataclasses.replace(self.inversion.options, **settings)
        parts: list[Any] = []
        before_start = None
        started = time.process_time()
        for images in chunks:
            start = self.encode(images) if encoder else None
            if optimise:
                before = parts[-1][-1] if parts else None
                parts.append(self.inversion.fit_chunk(shrink(images, self.inversion.resolution), start, before, before_start))
            else:
                parts.append(start)
            before_start = None if start is None else start[-1]
        return torch.cat(parts), time.process_time() - started

    def measure(self, codes: Any, chunks: list[Any]) -> dict[str, float]:
        """Averages over the frames; jitter of codes, and of pixels as parts of the original's."""
        import torch

        from training.embedding.clip_review import ClipReview, second_differences
        from training.embedding.encoder_loss import shrink
        from training.videos.output import as_rgb
        from training.videos.synthesis import images_to_uint8

        review = ClipReview(self.inversion, fps=25, measure_every=1, video=None, identity=None)
        rows: list[dict[str, float]] = []
        pixels: dict[str, list[Any]] = {'own': [], 'original': []}
        last: dict[str, Any] = {}
        identity: list[float | None] = []
        for images, part in zip(chunks, codes.split(CHUNK), strict=True):
            targets = shrink(images, self.inversion.resolution)
            rows += review.add(None, targets, part)
            with torch.no_grad():
                rendered = self.inversion.synthesize(part).clamp(-1, 1)
            if self.face is not None and len(codes) <= MOST_FACES:
                pairs = zip(images_to_uint8(targets), images_to_uint8(rendered), strict=True)
                identity += [self.face(as_rgb(frame), as_rgb(image)) for frame, image in pairs]
            for name, batch in (('own', rendered), ('original', targets)):
                series = torch.cat([last[name], batch]) if name in last else batch
                pixels[name].append(second_differences(series))
                last[name] = series[-2:]
        result = {key: float(np.mean([row[key] for row in rows if key in row])) for key in ('psnr', 'lpips', 'jitter')}
        own, original = (float(torch.cat(pixels[name]).mean()) for name in ('own', 'original'))
        known = [distance for distance in identity if distance is not None]
        return {**result, 'pixel_jitter': own / original, **({'identity': float(np.mean(known))} if known else {})}


def measure_methods(bench: Bench, results: Results, opts: types.SimpleNamespace) -> None:
    """Fill the table of methods."""
    from training.latents.operations import gaussian_filter

    for clip in bench.clips:
        encoded: tuple[Any, float] | None = None
        for name, (encoder, optimise, smooth) in METHODS.items():
            key = {'kind': 'method', 'world': opts.world, 'perceptual': opts.perceptual, 'clip': clip.name, 'method': name}
            if results.has(**key) or (encoder and bench.encoder is None) or (opts.ways and name not in opts.ways):
                continue
            chunks = list(bench.frames(clip, opts.frames if optimise else None))
            if optimise:
                codes, seconds = bench.embed(
                    chunks,
                    encoder=encoder,
                    optimise=True,
                    steps=20,
                    first_steps=100,
                    stop=0.01,
                    lambda_smooth=0.1 if smooth else 0.0,
                )
            else:
                encoded = encoded or bench.embed(chunks, encoder=True, optimise=False)
                codes, seconds = encoded
                if smooth:
                    codes = codes.new_tensor(gaussian_filter(codes.numpy(), SIGMA))
            results.add({**key, 'frames': len(codes), 'seconds': seconds, **bench.measure(codes, chunks)})


def compare(bench: Bench, results: Results, opts: types.SimpleNamespace) -> None:
    """Our chunks against projection of one frame, for the last frame of the second chunk of clips."""
    import torch

    from benchmarks.embedding.per_frame_projection import project
    from training.embedding.encoder_loss import shrink
    from training.embedding.inversion import Inversion, InversionOptions

    key: dict[str, Any] = {'kind': 'compare', 'world': opts.world, 'perceptual': opts.perceptual}
    usual = bench.inversion
    alone = Inversion(bench.G, bench.lpips, InversionOptions(stop=0, lambda_pixel=0, lambda_smooth=0))
    for clip in bench.clips[:: opts.every]:
        images = list(bench.frames(clip, 2 * CHUNK))
        targets = shrink(images[1], usual.resolution)
        for name, encoder, inversion in (
            ('encoder and refinement', True, usual),
            ('optimisation', False, usual),
            ('encoder and refinement, LPIPS alone', True, alone),
        ):
            own = {**key, 'clip': clip.name, 'method': name}
            missing = [steps for steps in EVALUATIONS if not results.has(**own, steps=steps)]
            if not missing or (encoder and bench.encoder is None):
                continue
            bench.inversion = inversion
            first, _ = bench.embed(images[:1], encoder=encoder, optimise=True, steps=20, first_steps=100, stop=0)
            bench.inversion = usual
            for steps in missing:
                inversion.options = dataclasses.replace(inversion.options, steps=steps)
                started = time.process_time()
                start = bench.encode(torch.cat([images[0][-1:], images[1]])) if encoder else None
                codes = inversion.fit_chunk(targets, *((None, first[-1]) if start is None else (start[1:], first[-1], start[0])))
                seconds = (time.process_time() - started) / len(codes)
                results.add({**own, 'steps': steps, 'seconds': seconds, **inversion.measure(codes[-1:], targets[-1:])[0]})
        for space in opts.spaces:
            own = {**key, 'clip': clip.name, 'method': f'one frame at a time, {SPACES[space]}'}
            if not results.has(**own, done=True):
                projection = project(
                    bench.G,
                    bench.lpips,
                    targets[-1],
                    space=space.removesuffix('-fixed'),
                    own_noise=not space.endswith('-fixed'),
                    looks=LOOKS,
                    seed=0,
                )
                for row in projection.curve:
                    steps = int(row.pop('step'))
                    results.add({**own, 'steps': steps, **row, 'done': steps == 1000})


# ----------------------------------------------------------------------------
# Tables.


def method_table(rows: list[dict[str, Any]]) -> str:
    """Markdown; averages over all frames."""
    lines = [
        '| way | frames | PSNR (dB) | LPIPS | identity | jitter of codes | jitter of pixels / original | frames a second |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for name in METHODS:
        mine = [row for row in rows if row['method'] == name]
        if mine:
            frames = sum(row['frames'] for row in mine)
            mean = {
                key: sum(row[key] * row['frames'] for row in mine) / frames for key in ('psnr', 'lpips', 'jitter', 'pixel_jitter')
            }
            rate = frames / sum(row['seconds'] for row in mine)
            faces = [row for row in mine if 'identity' in row]
            distance = f'{np.mean([row["identity"] for row in faces]):.2f}' if len(faces) == len(mine) else ''
            lines.append(
                f'| {name} | {frames} | {mean["psnr"]:.2f} | {mean["lpips"]:.4f} | {distance} | {mean["jitter"]:.3f} '
                f'| {mean["pixel_jitter"]:.2f} | {rate:.1f} |'
            )
    return '\n'.join(lines)


def compare_table(rows: list[dict[str, Any]]) -> str:
    """Markdown; averages over the clips that every method has."""
    methods = list(dict.fromkeys(row['method'] for row in rows))
    done = [{row['clip'] for row in rows if row['method'] == name and row.get('done', True)} for name in methods]
    common = set.intersection(*done)
    lines = [
        f'{len(common)} frames of as many clips.\n',
        '| way | steps | seconds a frame | PSNR (dB) | LPIPS | LPIPS with own noise maps |',
        '|---|---|---|---|---|---|',
    ]
    for name in methods:
        for steps in sorted({row['steps'] for row in rows if row['method'] == name}):
            mine = [row for row in rows if row['method'] == name and row['steps'] == steps and row['clip'] in common]
            if not mine:
                continue
            mean = {key: float(np.mean([row[key] for row in mine])) for key in ('seconds', 'psnr', 'lpips')}
            with_own = [row['lpips_own_noise'] for row in mine if row.get('lpips_own_noise', row['lpips']) != row['lpips']]
            own = f'{np.mean(with_own):.5f}' if with_own else ''
            lines.append(f'| {name} | {steps} | {mean["seconds"]:.2f} | {mean["psnr"]:.2f} | {mean["lpips"]:.5f} | {own} |')
    return '\n'.join(lines)


def setting_table(rows: list[dict[str, Any]]) -> str:
    """Differences of the same frames between worlds or perceptual distances, in Markdown; empty below three clips."""
    from benchmarks.comparison.significance import holm, p_value, summarize

    groups: dict[tuple[str, ...], dict[tuple[str, int], dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row['method'], row['world'], row['perceptual']), {})[row['clip'], row['frames']] = row
    tests = []
    for place, old in enumerate(groups):
        for new in list(groups)[place + 1 :]:
            for key, sign in (('psnr', 1), ('identity', -1)):
                before, after = groups[old], groups[new]
                common = [name for name in before if key in before[name] and key in after.get(name, {})]
                if len(common) >= FEWEST_CLIPS and old[0] == new[0]:
                    tests.append((old, new, key, sign, [after[name][key] - before[name][key] for name in common]))
    adjusted = holm([p_value(changes, [0.0], fitted=True) for *_, changes in tests])
    lines = ['| way | from | to | measure | difference | interval | better in | p |', '|---|---|---|---|---|---|---|---|']
    for (old, new, key, sign, changes), p in zip(tests, adjusted, strict=True):
        summary = summarize(changes)
        interval = '' if summary.interval is None else ' to '.join(f'{value:+.3f}' for value in summary.interval)
        better = f'{sum(sign * change > 0 for change in changes)} of {len(changes)}'
        shown = '' if p is None else '< 0.001' if p < 0.001 else f'{p:.2g}'
        cells = [old[0], ', '.join(old[1:]), ', '.join(new[1:]), key, f'{summary.mean:+.3f}', interval, better, shown]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n' if tests else ''


def tables(results: Results) -> str:
    """A table for each world and perceptual distance, and what is certain about their differences, in Markdown."""
    written = []
    for kind, write in (('method', method_table), ('compare', compare_table)):
        rows = [row for row in results.rows if row['kind'] == kind]
        for world, perceptual in dict.fromkeys((row['world'], row['perceptual']) for row in rows):
            part = [row for row in rows if (row['world'], row['perceptual']) == (world, perceptual)]
            written.append(f'{world}, {perceptual}, {len({row["clip"] for row in part})} clips\n\n{write(part)}\n')
    written.append(setting_table([row for row in results.rows if row['kind'] == 'method']))
    return '\n'.join(written)


# fmt: off
@command_line.command()
@click.option('--network',    help='Image generator', metavar='FILE')
@click.option('--encoder',    help='Its encoder', metavar='FILE')
@click.option('--data',       help='Footage', metavar='FOOTAGE')
@click.option('--world',      help='Name of generator and footage in the results', metavar='NAME', default='faces64')
@click.option('--perceptual', help='Perceptual distance of all sides', type=click.Choice(['alex', 'vgg']), default='alex')
@click.option('--lambda-pixel', help='Weight of the squared error of the pixels', metavar='FLOAT',
              type=command_line.POSITIVE_FLOAT, default=2.0)
@click.option('--ways',       help='Only these rows of the table; may be repeated', metavar='WAY', multiple=True,
              type=click.Choice(list(METHODS)))
@click.option('--frames',     help='Frames of a clip to optimise', metavar='INT', type=command_line.POSITIVE_INT, default=32)
@click.option('--every',      help='--compare: only every n-th clip', metavar='INT', type=command_line.POSITIVE_INT, default=1)
@click.option('--spaces',     help='Any of w, w+, w+-fixed', metavar='A,B', type=command_line.NAMES, default='w+-fixed,w+,w')
@click.option('--compare', 'comparing', help='Compare with projection of one frame at a time', is_flag=True)
@command_line.clear_errors
@with_results(tables)
def main(opts: types.SimpleNamespace, results: Results) -> None:
    """Measure the ways of embedding."""
    unknown = [space for space in opts.spaces if space not in SPACES]
    if unknown:
        raise command_line.UserMistake(f'--spaces: {unknown[0]!r} is none of {", ".join(SPACES)}')
    if not (opts.network and opts.data):
        raise command_line.UserMistake('give --network and --data (and --encoder), or --table')
    bench = Bench(opts)
    command_line.report(f'Curvature of the loss: {bench.preparation:.1f} s')
    (compare if opts.comparing else measure_methods)(bench, results, opts)
# fmt: on


if __name__ == '__main__':
    main()
