"""Measures what tuning of the image generator changes: frames that it has not seen, other pictures, other people, edits.

    python -m benchmarks.embedding.tuning --data=latents.zip --results=tuning.jsonl --pictures=tuning
    python -m benchmarks.embedding.tuning --results=tuning.jsonl --table
    python -m benchmarks.embedding.tuning --results=tuning.jsonl --memory=1024

Every clip of the data set is a subject of its own, and the other clips are the other people. The last fifth of the clip is
held out from everything: the tuning learns from the rest, and stops by the last eighth of that. For each weight of locality (0:
plain pivotal tuning) and for the generator as it was one line is added to --results, and what is there is not measured again.

What a line says, each a mean over frames:

    psnr, lpips                held-out frames against the recording; worst_psnr the worst of them
    jitter, jitter_original    second differences of pixels over the held-out frames, of 255, and of the recording
    identity                   distance of faces, where dlib is installed
    z_psnr, z_lpips            pictures of random z, after against before
    people_psnr, people_lpips  the other people's frames against their recordings
    people_moved_lpips         the pictures of the other people's codes, after against before
    transfer_moved_lpips       the same of the other people moving as the subject does (generate_video.py --transfer=orthogonal)
    edit_error                 part by which the effect of an edit changes: |D' - D| / |D|, D = G(w + e) - G(w) before, D' after,
                               e one deviation of another person's codes along the first principal direction, on that person
    seconds                    processor time of one thread, steps those that were taken

--refine=160,1000 also optimises the code of frame 31 of the clip for LPIPS alone and says in lines of their own how near each
generator comes to it after so many evaluations, and after as many more in which noise maps of the frame's own are fitted with
the code as by the usual projector, which no video that is rendered from codes can have. benchmarks.embedding.embedding_methods
--compare has the same without tuning. Beyond the first of its numbers the search begins anew from where it was. --project takes
the same frame through the usual projector in W+, with the noise maps of the generator as it was.

The third form takes a step of a StyleGAN2 of that resolution (config F, random weights) on one frame and one other code, and says
how much memory that takes: on a GPU what PyTorch has allocated, otherwise what the process holds.

Pictures, rows from above: held-out.png and people.png recording, before, and each weight of locality; z.png without recording.
"""

import os
import time
import types
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import click
import numpy as np

from benchmarks.embedding.results_file import Results, with_results
from training.commands import command_line

if TYPE_CHECKING:
    import torch

    from networks.image_generator import ImageGenerator
    from training.tuning.coded_frames import CodedFrames
    from training.tuning.generator_tuning import GeneratorTuning

PROJECTOR = 'before, projector'
HELD_OUT, STOPPING = 0.2, 0.125
NUM_CODES = 24
COLUMNS = 6
MEASURES = ('psnr', 'worst_psnr', 'lpips', 'jitter', 'jitter_original', 'identity', 'z_psnr', 'z_lpips', 'people_psnr',
            'people_lpips', 'people_moved_lpips', 'transfer_moved_lpips', 'edit_error', 'steps', 'seconds')  # fmt: skip

FEWEST_CLIPS = 3  # to say anything about others
# Measures whose differences are tested: 1 (-1) where more (less) of it is better, and whether there is any before tuning.
COMPARED = {
    'psnr': (1, True),
    'worst_psnr': (1, True),
    'lpips': (-1, True),
    'identity': (-1, True),
    'jitter': (0, True),
    'people_lpips': (-1, True),
    'z_lpips': (-1, False),
    'people_moved_lpips': (-1, False),
    'transfer_moved_lpips': (-1, False),
    'edit_error': (-1, False),
}


class Bench:
    """The networks, the frames of all clips, and the measures of a generator."""

    def __init__(self, opts: types.SimpleNamespace) -> None:
        import torch

        from networks.checkpoints import load_generator
        from networks.checkpoints.detectors import load_lpips
        from networks.checkpoints.image_generator_lookup import find_image_generator
        from training.embedding.face_identity import FaceIdentity, is_installed
        from training.latents.dataset import LatentDataset
        from training.tuning.coded_frames import read_coded_frames

        torch.set_num_threads(1)
        self.lpips = load_lpips(opts.perceptual)
        self.face = FaceIdentity() if is_installed() else None
        with LatentDataset(opts.data) as dataset:
            network = opts.network or find_image_generator(dataset.image_generator, snapshot=opts.data)
            G = load_generator(network)
            self.G = G
            self.names = [clip.name for clip in dataset.clips]
            with command_line.progress(total=dataset.num_frames, description='reading frames') as bar:
                coded = read_coded_frames(dataset, int(G.img_resolution), sources=opts.source, on_frame=bar.update)
        self.clips = [coded.chosen(coded.clips == index) for index in range(len(self.names))]
        random = torch.Generator().manual_seed(1)
        labels = torch.eye(G.c_dim)[torch.randint(G.c_dim, [NUM_CODES], generator=random)] if G.c_dim else None
        self.z_codes = G.mapping(torch.randn([NUM_CODES, G.z_dim], generator=random), labels)

    def split(self, index: int) -> 'tuple[CodedFrames, CodedFrames]':
        """Frames of a clip to learn from, and those held out."""
        clip = self.clips[index]
        count = round(HELD_OUT * len(clip))
        return clip.chosen(np.arange(len(clip) - count)), clip.chosen(np.arange(len(clip) - count, len(clip)))

    def people(self, index: int) -> 'CodedFrames | None':
        """Some frames of every other clip."""
        from training.tuning.coded_frames import CodedFrames
        from training.tuning.run import evenly

        others = [
            evenly(clip, max(NUM_CODES // max(len(self.clips) - 1, 1), 2))
            for place, clip in enumerate(self.clips)
            if place != index
        ]
        if not others:
            return None
        codes, frames, clips, numbers = (
            np.concatenate([getattr(other, name) for other in others]) for name in ('codes', 'frames', 'clips', 'numbers')
        )
        return CodedFrames(codes, frames, clips, numbers, 1)

    def measure(self, work: 'GeneratorTuning', generator: 'ImageGenerator', index: int) -> dict[str, float]:
        """All measures of a generator, tuned to clip `index` or not."""
        import torch

        from training.control.transfer import subject_shift
        from training.embedding.clip_review import second_differences
        from training.tuning.run import evenly
        from training.videos.output import as_rgb
        from training.videos.synthesis import images_to_uint8

        learned, tested = self.split(index)
        found = work.measure(generator, evenly(tested, 48))
        row = {'psnr': found['psnr'].mean(), 'worst_psnr': found['psnr'].min(), 'lpips': found['lpips'].mean()}
        run = tested.chosen(np.arange(min(len(tested), 48)))
        with torch.no_grad():
            images = torch.cat([work.render(generator, part) for part in torch.from_numpy(run.codes).split(8)]).clamp(-1, 1)
        row['jitter'] = float(second_differences(images).mean()) * 127.5
        row['jitter_original'] = float(second_differences(work.targets_of(run)).mean()) * 127.5
        if self.face is not None:
            pairs = list(zip(run.frames, images_to_uint8(images), strict=True))[::6]
            distances = [self.face(frame, as_rgb(image)) for frame, image in pairs]
            known = [distance for distance in distances if distance is not None]
            row |= {'identity': np.mean(known)} if known else {}
        row |= {f'z_{key}': value.mean() for key, value in work.change(generator, self.z_codes).items()}
        people = self.people(index)
        if people is not None:
            found = work.measure(generator, people)
            row |= {'people_psnr': found['psnr'].mean(), 'people_lpips': found['lpips'].mean()}
            row['people_moved_lpips'] = work.change(generator, torch.from_numpy(people.codes))['lpips'].mean()
            motion = learned.codes[:: max(len(learned) // 256, 1)]
            shifts = [subject_shift('orthogonal', motion, code[None]) for code in people.codes[:: max(len(people) // 8, 1)]]
            moved = torch.stack([torch.from_numpy(motion[place % len(motion)]) + shift for place, shift in enumerate(shifts)])
            row['transfer_moved_lpips'] = work.change(generator, moved)['lpips'].mean()
            row['edit_error'] = self._edit_error(work, generator, people)
        return {key: float(value) for key, value in row.items()}

    def refine(self, generator: 'ImageGenerator', index: int, evaluations: Sequence[int]) -> Iterator[dict[str, Any]]:
        """How near the code of frame 31 of a clip comes, optimised for LPIPS alone, after numbers of evaluations, ascending."""
        import torch

        from benchmarks.embedding.per_frame_projection import noisy_layers, refine_with_noise
        from training.embedding.inversion import Inversion, InversionOptions

        clip, targets = self._frame(index)
        inversion = Inversion(generator, self.lpips, InversionOptions(lambda_pixel=0, lambda_average=0, lambda_layers=0, stop=0))
        codes, done, seconds = torch.from_numpy(clip.codes), 0, 0.0
        _ = inversion.inverse_curvature  # of the generator, once: does not count
        for number in evaluations:
            started = time.process_time()
            codes = inversion._optimize(targets, codes, None, number - done)
            done, seconds = number, seconds + time.process_time() - started
            found = inversion.measure(codes, targets)[0]
            row = {'evaluations': number, 'lpips': found['lpips'], 'psnr': found['psnr'], 'seconds': seconds}
            if noisy_layers(generator):
                _, lpips, psnr = refine_with_noise(generator, self.lpips, targets[0], codes[0], steps=number)
                row |= {'own_noise_lpips': lpips, 'own_noise_psnr': psnr}
            yield row

    def project(self, index: int) -> dict[str, Any]:
        """The usual projector on that frame, in W+ with the generator's noise maps."""
        from benchmarks.embedding.per_frame_projection import STEPS, project

        projection = project(self.G, self.lpips, self._frame(index)[1][0], space='w+', own_noise=False, seed=0)
        last = projection.curve[-1]
        return {'evaluations': STEPS, **{key: last[key] for key in ('lpips', 'psnr', 'seconds')}}

    def _frame(self, index: int) -> 'tuple[CodedFrames, torch.Tensor]':
        """Frame 31 of a clip, or its last, as what it is and as image `[1, C, H, W]`."""
        from training.footage.frame_bank import frames_to_images

        clip = self.clips[index].chosen(np.array([min(31, len(self.clips[index]) - 1)]))
        return clip, frames_to_images(clip.frames, int(self.G.img_channels))

    def _edit_error(self, work: 'GeneratorTuning', generator: 'ImageGenerator', people: 'CodedFrames') -> float:
        import torch

        from training.control.transfer import motion_of

        errors = []
        for clip in np.unique(people.clips)[:8]:
            codes = self.clips[clip].codes
            motion = motion_of(codes[:: max(len(codes) // 256, 1)])
            edit = (motion.directions[0] * motion.variances[0].sqrt()).reshape(codes.shape[1:]).float()
            base = torch.from_numpy(codes[:1].copy())
            with torch.no_grad():
                effects = [work.render(one, base + edit) - work.render(one, base) for one in (work.before, generator)]
            errors.append(float((effects[1] - effects[0]).norm() / effects[0].norm().clamp(min=1e-6)))
        return float(np.mean(errors))


def measure_clip(bench: Bench, results: Results, opts: types.SimpleNamespace, index: int) -> None:
    """Tune to one clip in every way that is not measured yet."""
    from training.tuning.coded_frames import held_out
    from training.tuning.generator_tuning import GeneratorTuning, TuningOptions

    name = bench.names[index]

    def key(weight: float | None) -> dict[str, Any]:
        return {'world': opts.world, 'clip': name, 'locality': weight}

    def is_missing(weight: float | None) -> bool:
        return not results.has(kind='tuning', **key(weight)) or not is_refined(weight)

    def is_refined(weight: float | None) -> bool:
        return all(results.has(kind='refinement', **key(weight), evaluations=number) for number in opts.refine)

    def add_all(weight: float | None, generator: 'ImageGenerator', **cost: float) -> None:
        if not results.has(kind='tuning', **key(weight)):
            results.add({'kind': 'tuning', **key(weight), **cost, **bench.measure(work, generator, index)})
        if not is_refined(weight):
            for row in bench.refine(generator, index, opts.refine):
                results.add({'kind': 'refinement', **key(weight), **row})

    if opts.project and not results.has(world=opts.world, clip=name, locality=PROJECTOR):
        results.add({'kind': 'refinement', 'world': opts.world, 'clip': name, 'locality': PROJECTOR, **bench.project(index)})
    missing = [weight for weight in [None, *opts.localities] if is_missing(weight)]
    if not missing:
        return
    learned, _ = bench.split(index)
    mask = held_out(learned, STOPPING)
    stopping = learned.chosen(mask)
    generators: dict[float, ImageGenerator] = {}
    for weight in opts.localities:
        if weight not in missing and None not in missing:
            continue
        settings = TuningOptions(
            batch=opts.batch,
            locality_batch=opts.batch,
            lambda_locality=weight,
            lr=opts.lr,
            **({} if opts.lambda_pixel is None else {'lambda_pixel': opts.lambda_pixel}),
        )
        kept = np.zeros((0, *learned.codes.shape[1:]), np.float32)
        work = GeneratorTuning(bench.G, learned.chosen(~mask), kept, bench.lpips, settings, micro_batch=16)
        if None in missing:
            add_all(None, bench.G, steps=0)
            missing.remove(None)
        if weight not in missing:
            continue
        started, best, best_state, since = time.process_time(), np.inf, None, 0
        with command_line.progress(total=opts.steps, description=f'{name}, locality {weight:g}', unit='step') as bar:
            while work.step < opts.steps and since < opts.patience:
                work.advance()
                bar.update(1)
                if work.step % opts.tick == 0:
                    distance = work.measure(
                        work.average, stopping.chosen(np.arange(0, len(stopping), max(len(stopping) // 24, 1)))
                    )
                    value = distance['distance'].mean()
                    since = since + 1 if value > 0.998 * best else 0
                    if value < best:
                        best, best_state = (
                            value,
                            {key: tensor.clone() for key, tensor in work.average.synthesis.state_dict().items()},
                        )
        seconds = time.process_time() - started
        if best_state is not None:
            work.average.synthesis.load_state_dict(best_state)
        add_all(weight, work.average, steps=work.step, seconds=seconds)
        generators[weight] = work.average
    if opts.pictures and generators:
        save_pictures(bench, work, generators, index, os.path.join(opts.pictures, name))


def save_pictures(
    bench: Bench, work: 'GeneratorTuning', generators: dict[float, 'ImageGenerator'], index: int, folder: str
) -> None:
    """Write held-out.png, people.png and z.png of one clip."""
    import PIL.Image
    import torch

    from training.tuning.run import evenly
    from training.videos.output import image_grid
    from training.videos.synthesis import images_to_uint8

    os.makedirs(folder, exist_ok=True)
    tested = evenly(bench.split(index)[1], COLUMNS)
    people = bench.people(index)
    sets = {'held-out': (torch.from_numpy(tested.codes), tested.frames), 'z': (bench.z_codes[:COLUMNS], None)}
    if people is not None:
        some = evenly(people, COLUMNS)
        sets['people'] = torch.from_numpy(some.codes), some.frames
    for name, (codes, frames) in sets.items():
        with torch.no_grad():
            rows = [images_to_uint8(work.render(one, codes)) for one in (bench.G, *generators.values())]
        rows = rows if frames is None else [np.asarray(frames)[..., : rows[0].shape[-1]], *rows]
        grid = image_grid(np.concatenate(rows), len(rows[0]))
        PIL.Image.fromarray(grid if grid.shape[2] == 3 else grid[:, :, 0]).save(os.path.join(folder, f'{name}.png'))


def measure_memory(results: Results, resolution: int, device_name: str, perceptual: str) -> None:
    """Peak memory of a step at a resolution, one picture at a time, with and without --save-memory."""
    import resource

    import torch

    from networks.checkpoints.detectors import load_lpips
    from networks.stylegan2 import Generator
    from training.tuning.coded_frames import CodedFrames
    from training.tuning.generator_tuning import GeneratorTuning, TuningOptions

    device = command_line.choose_device(device_name)
    torch.manual_seed(0)
    synthesis = {'num_fp16_res': 4, 'conv_clamp': 256}
    G = Generator(512, 0, 512, resolution, 3, synthesis_kwargs=synthesis).eval().requires_grad_(False).to(device)
    frames = CodedFrames(
        torch.randn(2, int(G.num_ws), 512).numpy(),
        np.zeros((2, resolution, resolution, 3), np.uint8),
        np.zeros(2, int),
        np.arange(2),
        1,
    )
    kept = np.zeros((0, int(G.num_ws), 512), np.float32)
    lpips = load_lpips(perceptual).to(device)
    for save_memory in (True, False):  # what a process has held is never less
        if results.has(memory=resolution, device=device.type, save_memory=save_memory):
            continue
        settings = TuningOptions(batch=1, locality_batch=1)
        work = GeneratorTuning(cast('ImageGenerator', G), frames, kept, lpips, settings, micro_batch=1, save_memory=save_memory)
        work.advance()  # the optimiser makes its averages
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        work.advance()
        seconds = time.perf_counter() - started
        unit = 2**10 if os.uname().sysname == 'Linux' else 1
        peak = (
            torch.cuda.max_memory_allocated()
            if device.type == 'cuda'
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        )
        results.add(
            {'memory': resolution, 'device': device.type, 'save_memory': save_memory, 'GiB': peak / 2**30, 'seconds': seconds}
        )
        del work


def generator_name(weight: float | str | None) -> str:
    """Of a weight of locality."""
    return (
        weight if isinstance(weight, str) else 'before' if weight is None else 'plain' if weight == 0 else f'locality {weight:g}'
    )


def table(results: Results) -> str:
    """Means over the clips that every generator of a world was measured on, in Markdown."""
    text = []
    for kind, by, measures in (
        ('tuning', (), MEASURES),
        ('refinement', ('evaluations',), ('lpips', 'own_noise_lpips', 'psnr', 'own_noise_psnr', 'seconds')),
    ):
        rows = [row for row in results.rows if row.get('kind') == kind]
        if not rows:
            continue
        keys = [key for key in measures if any(key in row for row in rows)]
        lines = ['| ' + ' | '.join(['world', 'generator', *by, 'clips', *keys]) + ' |', '|' + '---|' * (len(keys) + len(by) + 3)]
        groups: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault((row['world'], row['locality'], *(row[name] for name in by)), {})[row['clip']] = row
        for (world, weight, *numbers), mine in groups.items():
            common = set.intersection(*(set(other) for place, other in groups.items() if place[0] == world))
            cells = []
            for key in keys:
                values = [row[key] for clip, row in mine.items() if clip in common and key in row]
                digits = 5 if kind == 'refinement' and 'lpips' in key else 4 if 'lpips' in key else 0 if key == 'steps' else 2
                cells.append(f'{np.mean(values):.{digits}f}' if values else '')
            shown = [world, generator_name(weight), *map(str, numbers), str(len(common)), *cells]
            lines.append('| ' + ' | '.join(shown) + ' |')
        text.append('\n'.join(lines))
    differences = difference_table([row for row in results.rows if row.get('kind') == 'tuning'])
    return '\n\n'.join([*text, *([differences] if differences else [])])


def difference_table(rows: Sequence[dict[str, Any]]) -> str:
    """What tuning changes, and what locality changes about that, paired over clips, in Markdown; empty below three clips."""
    from benchmarks.comparison.significance import holm, p_value, summarize

    found: dict[tuple[str, float | None], dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row['world'], row['locality']), {})[row['clip']] = row
    lines = []
    for world in dict.fromkeys(world for world, _ in found):
        weights = [weight for place, weight in found if place == world]
        pairs: list[tuple[float | None, float]] = [(None, weight) for weight in weights if weight is not None and None in weights]
        pairs += [(0.0, weight) for weight in weights if weight and 0.0 in weights]
        tests = []
        for old, new in pairs:
            before, after = found[world, old], found[world, new]
            for key, (sign, from_before) in COMPARED.items():
                clips = [clip for clip in before if key in before[clip] and key in after.get(clip, {})]
                if len(clips) >= FEWEST_CLIPS and (old is not None or from_before):
                    tests.append((old, new, key, sign, [after[clip][key] - before[clip][key] for clip in clips]))
        adjusted = holm([p_value(changes, [0.0], fitted=True) for *_, changes in tests])
        for (old, new, key, sign, changes), p in zip(tests, adjusted, strict=True):
            summary = summarize(changes)
            digits = 4 if 'lpips' in key or key == 'identity' else 2
            interval = '' if summary.interval is None else ' to '.join(f'{value:+.{digits}f}' for value in summary.interval)
            better = f'{sum(sign * change > 0 for change in changes)} of {len(changes)}' if sign else f'{len(changes)} clips'
            shown = '' if p is None else '< 0.001' if p < 0.001 else f'{p:.2g}'
            cells = [
                world,
                f'{generator_name(old)} → {generator_name(new)}',
                key,
                f'{summary.mean:+.{digits}f}',
                interval,
                better,
            ]
            lines.append('| ' + ' | '.join([*cells, shown]) + ' |')
    head = ['| world | generators | measure | difference | interval | better in | p |', '|---|---|---|---|---|---|---|']
    return '\n'.join([*head, *lines]) if lines else ''


# fmt: off
@command_line.command()
@click.option('--data',       help='Latent data set, each clip another subject', metavar='PATH')
@click.option('--network',    help='Image generator; by default that of the data set', metavar='FILE')
@click.option('--source',     help='Where the recordings are; may be repeated', metavar='FOOTAGE', multiple=True)
@click.option('--world',      help='Name of generator and footage in the results', metavar='NAME', default='faces64')
@click.option('--clips',      help='Only these clips', metavar='A,B', type=command_line.NAMES)
@click.option('--localities', help='Weights of locality to try', metavar='A,B', type=command_line.NAMES, default='0,1')
@click.option('--perceptual', help='Perceptual distance', type=click.Choice(['alex', 'vgg']), default='alex')
@click.option('--steps',      help='Most steps', metavar='INT', type=command_line.POSITIVE_INT, default=400)
@click.option('--tick',       help='Steps between two looks', metavar='INT', type=command_line.POSITIVE_INT, default=25)
@click.option('--patience',   help='Looks without a gain until it stops', metavar='INT', type=command_line.POSITIVE_INT,
              default=4)
@click.option('--batch',      help='Frames, and other codes, in a step', metavar='INT', type=command_line.POSITIVE_INT, default=8)
@click.option('--lr',         help='Learning rate', metavar='FLOAT', type=command_line.POSITIVE_FLOAT, default=1e-3)
@click.option('--lambda-pixel', help='Weight of the pixels  [default: as tune_generator.py]', metavar='FLOAT',
              type=command_line.POSITIVE_FLOAT)
@click.option('--refine',     help='Also optimise the code of one frame with each generator, in so many evaluations',
              metavar='N,..', type=command_line.SEEDS)
@click.option('--project',    help='Also project that frame from the average code', is_flag=True)
@click.option('--pictures',   help='Folder for pictures', metavar='DIR')
@click.option('--memory',     help='Measure the memory of a step at this resolution instead', metavar='INT',
              type=command_line.POSITIVE_INT)
@click.option('--device',     help='--memory: cpu, cuda, ...', metavar='NAME', default='auto')
@command_line.clear_errors
@with_results(table)
def main(opts: types.SimpleNamespace, results: Results) -> None:
    """Measure what tuning of the image generator changes."""
    if opts.memory:
        measure_memory(results, opts.memory, opts.device, opts.perceptual)
        return
    if not opts.data:
        raise command_line.UserMistake('give --data, or --table')
    opts.localities = [float(weight) for weight in opts.localities]
    opts.refine = sorted(int(number) for number in opts.refine or [])
    bench = Bench(opts)
    unknown = [name for name in opts.clips or [] if name not in bench.names]
    if unknown:
        raise command_line.UserMistake(f'--clips: there is no clip {unknown[0]!r} in {opts.data}')
    for index, name in enumerate(bench.names):
        if not opts.clips or name in opts.clips:
            measure_clip(bench, results, opts, index)
# fmt: on


if __name__ == '__main__':
    main()
