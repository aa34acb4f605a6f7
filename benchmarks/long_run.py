"""Is minute ten as good as second one, and is the temporal GAN worth more than a filter? Ours and the baselines, at five depths.

    python benchmarks/long_run.py --data=latents.zip --models=default,ar2,ar5,splicing,walk --seeds=0-9 --results=long_run.jsonl
    python benchmarks/long_run.py --results=long_run.jsonl --table

A model is a preset of train_video.py (default, paper, fast), a preset with changed options (default;settings.strides=[1]), or a
baseline of benchmarks/comparison/ (ar2, ar5, splicing, walk, mocogan-hd). Every model and seed adds one line to
--results; what is there already is not made again, so an interrupted run goes on. --steps=N trains all models for N generator
updates in the place of their own length.

Measured at frames 0, 225, 1000, 2500 and 10,000 of the videos of 1024 seeds, after the burn-in of a model: latent Frechet
distance of codes and of motion (plugins/latent_frechet_distance.py), kernel distance (plugins/latent_kernel_distance.py),
variance ratios, autocorrelation and kurtosis (plugins/latent_stationarity.py), repetition of 16 videos of 1000 frames
(plugins/repetition.py). Seeds of videos are not those of the trainings. Times are processor seconds of one thread.
"""

import json
import os
import pathlib
import re
import sys
import time
from typing import Any

import click

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from training.commands import command_line, option_tree
from training.temporal_options import PRESETS, TrainingOptions

DEPTHS = (0, 225, 1000, 2500, 10000)
FIRST_SEED = 50000
BASELINES = ('ar2', 'ar5', 'splicing', 'walk')  # fitted: one of each is enough
RESIDUAL = 'mocogan-hd'  # trained
UNSAFE = str.maketrans(';=[], ', '______')  # in names of files


def network_file(folder: str, data: str, model: str, seed: int) -> pathlib.Path:
    """Where a trained model is kept."""
    suffix = '.pt' if model == RESIDUAL else '.pkl'
    return pathlib.Path(folder, f'{pathlib.Path(data).stem}-{model.translate(UNSAFE)}-seed{seed}{suffix}')


def fit_baseline(name: str, data: Any) -> Any:
    """One of BASELINES, fitted to a latent data set."""
    from benchmarks.comparison import baseline_generators
    from training.latent_space import fit_latent_space

    shape = {'num_ws': data.num_ws, 'w_dim': data.w_dim}
    space = fit_latent_space(data)
    clips = [space.encode(data.load_clip(index)) for index in range(len(data.clips))]
    if name == 'splicing':
        return baseline_generators.WindowSplicing(clips, space, **shape)
    if name == 'walk':
        return baseline_generators.GaussianRandomWalk(clips, space, **shape)
    return baseline_generators.LinearAutoregression(clips, space, **shape, order=int(name[2:]))


def train_residual(data: Any, seed: int, steps: int | None, keep: str | None) -> tuple[Any, dict[str, Any]]:
    """Train MoCoGAN-HD's idea, as `build` does."""
    import torch

    from benchmarks.comparison import residual_generator

    started, clock = time.process_time(), time.monotonic()
    generator, steps = residual_generator.train(data, seed=seed, steps=steps)
    cost = cost_of(steps, time.process_time() - started, time.monotonic() - clock, 'cpu')
    if keep is not None:
        os.makedirs(keep, exist_ok=True)
        torch.save(generator.state_dict(), network_file(keep, data.path, RESIDUAL, seed))
    return generator, {**cost, 'burn_in': generator.burn_in, 'coordinates': generator.num_components}


def cost_of(steps: int, seconds: float, elapsed: float, device: str) -> dict[str, Any]:
    """What a training cost."""
    return {
        'steps': steps,
        'seconds': round(seconds, 1),
        'milliseconds_per_step': round(1000 * seconds / steps, 1),
        'device': device,
        'elapsed': round(elapsed, 1),
    }


def build(model: str, data: Any, seed: int, steps: int | None, keep: str | None, device: str) -> tuple[Any, dict[str, Any]]:
    """The latent generator of a model, trained if it has to be and then kept in the folder `keep`, and what it cost."""
    import torch

    from training import temporal_snapshot
    from training.latent_space import fit_latent_space
    from training.real_windows import Windows
    from training.temporal_trainer import TemporalTrainer

    preset, _, changes = model.partition(';')
    shape = {'num_ws': data.num_ws, 'w_dim': data.w_dim}
    if preset in BASELINES:
        return fit_baseline(preset, data), {}
    if preset == RESIDUAL:
        return train_residual(data, seed, steps, keep)
    overrides = {key: json.loads(value) for key, _, value in (part.partition('=') for part in changes.split(';')) if key}
    options = option_tree.override(TrainingOptions(data=data.path), {**PRESETS[preset], **overrides})
    space = fit_latent_space(data, options.latent_space)
    windows = Windows(data, space, options.window, device, options.settings.strides)
    settings = options.settings
    kimg_per_step = settings.batch * (settings.critic_steps or windows.suited.critic_steps) * windows.num_frames / 1000
    total_kimg = options.total_kimg if steps is None else steps * kimg_per_step
    trainer = TemporalTrainer(
        G_kwargs={**shape, **option_tree.to_dict(options.G_kwargs)},
        C_kwargs=option_tree.to_dict(options.C_kwargs),
        space=space,
        windows=windows,
        settings=settings,
        total_kimg=total_kimg,
        seed=seed,
        device=device,
    )
    steps = max(1, round(total_kimg / kimg_per_step))
    started, clock = time.process_time(), time.monotonic()
    with command_line.progress(total=steps, description=f'{model}, seed {seed}', unit='step', every_seconds=60) as bar:
        for _ in range(steps):
            trainer.step()
            bar.update(1)
    seconds = time.process_time() - started
    elapsed = time.monotonic() - clock
    torch.manual_seed(0)
    finished = trainer.finished().cpu()
    if keep is not None:
        os.makedirs(keep, exist_ok=True)
        temporal_snapshot.save_snapshot(
            os.fspath(network_file(keep, data.path, model, seed)),
            G=trainer.G,
            G_ema=finished,
            C=trainer.critics[0],
            image_generator=data.image_generator,
            data=temporal_snapshot.describe_dataset(data),
            training_options=option_tree.to_dict(options),
            progress={'steps': steps, 'seconds': seconds, 'cur_nimg': round(total_kimg * 1000)},
        )
    cost = cost_of(steps, seconds, elapsed, device)
    averages = {'average_of_step': trainer.averages.taken, 'wandering': round(trainer.averages.distance, 4)}
    more = {'burn_in': finished.burn_in, 'strides': windows.strides, 'coordinates': space.num_coordinates}
    return finished, {**cost, **averages, **more}


class Measures:
    """Everything that is fitted to the real side of one data set, once."""

    def __init__(self, data: Any) -> None:
        from metrics.inputs.frame_points import LatentPoints
        from plugins.latent_frechet_distance import LatentFrechetDistance
        from plugins.latent_kernel_distance import LatentKernelDistance
        from plugins.latent_stationarity import Stationarity
        from plugins.repetition import Repetition

        clips = [data.load_clip(index) for index in range(len(data.clips))]
        self.frechet = LatentFrechetDistance(clips)
        self.kernel = LatentKernelDistance(clips)
        self.stationarity = Stationarity(clips, data.fps)
        self.points = LatentPoints(clips)
        self.repetition = Repetition(self.points.real, 1000)

    def projection_of(self, generator: Any) -> Any:
        """A function from l to the coordinates of both, so that one pass over the videos serves them."""
        import torch

        spaces = [space.projection_of(generator) for space in (self.frechet.space, self.stationarity.components)]
        return lambda l: torch.cat([project(l) for project in spaces], dim=1)

    def of(self, generator: Any, num_videos: int) -> dict[str, float]:
        """All measures of one latent generator."""
        import torch

        from metrics.inputs.latent_windows import generate_windows
        from networks.seeded_noise import SeededNoise

        result: dict[str, float] = {}
        ratios: dict[int, list[float]] = {}
        seeds = range(FIRST_SEED, FIRST_SEED + num_videos)
        split = self.frechet.space.num_components + 1
        stretches = generate_windows(generator, self, seeds, [(depth, 25) for depth in DEPTHS])
        for depth, both in zip(DEPTHS, stretches, strict=True):
            windows, ratios[depth] = both[..., :split], self.stationarity.variance_ratios(both[..., split:])
            frechet = self.frechet.compare(windows)
            kernel = self.kernel.compare(windows)
            for key in ('distance', 'motion_distance', 'floor', 'motion_floor', 'constant'):
                if key in frechet:
                    result[f'{key}@{depth}'] = round(frechet[key], 4)
            for key in ('distance', 'null_high', 'codes_distance', 'codes_null_high'):
                if key in kernel:
                    result[f'kernel_{key}@{depth}'] = round(kernel[key], 3)
        dynamics = {**self.stationarity.summarize(ratios), **self.stationarity.watch(generator, first_seed=FIRST_SEED)}
        result |= {key: round(value, 4) for key, value in dynamics.items()}

        def video(seed: int) -> torch.Tensor:
            noise = SeededNoise([seed], generator.latent_dim, generator.noise_dim)
            state = generator.initial_state(noise.first())
            latents = []
            for s in noise.steps(getattr(generator, 'burn_in', 0) + 1000).unbind(1):
                state, l = generator.step(s, state)
                latents.append(l)
            return self.points.project(generator.codes(torch.cat(latents[-1000:])))

        with torch.no_grad():
            repeated = self.repetition.compare(video(seed) for seed in seeds[:16])
        return {**result, 'repetition': round(repeated['repetition'], 4)}


def print_table(path: str) -> None:
    """Markdown tables of medians (and ranges) over seeds, one of each data set."""
    import numpy as np

    with open(path, encoding='utf-8') as file:
        lines = [json.loads(line) for line in file]
    for data in dict.fromkeys(line['data'] for line in lines):
        group = [line for line in lines if line['data'] == data]
        first = group[0]['result']
        real = ', '.join(
            f'{first[f"autocorrelation_{s}s_real"]:.2f}' for s in (1, 3, 10) if f'autocorrelation_{s}s_real' in first
        )
        floor, halves = first.get('floor@0', float('nan')), first.get('kernel_null_high@0', float('nan'))
        print(
            f'\n{data}: floor {floor:.2f}, still picture {first["constant@0"]:.1f}, kernel distance of halves to {halves:.1f}, '
            f'autocorrelation {real}\n'
        )
        columns = [f'distance@{depth}' for depth in DEPTHS]
        columns += ['motion_distance@1000', 'kernel_distance@1000', 'worst ratio of variances', 'repetition']
        columns += [f'autocorrelation_{second}s' for second in (1, 3, 10)]
        spreads = ['worst depth over best: Frechet', 'motion', 'worst seed over median: Frechet', 'motion']
        print('| model | seeds | ' + ' | '.join([*columns, *spreads]) + ' |')
        print('|---' * (len(columns) + len(spreads) + 2) + '|')
        for model in dict.fromkeys(line['model'] for line in group):
            results = [with_ratios(line['result']) for line in group if line['model'] == model]
            cells = []
            for column in columns:
                values = [result[column] for result in results if column in result]
                spread = f' ({min(values):.3g} to {max(values):.3g})' if len(values) > 1 else ''
                cells.append(f'{np.median(values):.3g}{spread}' if values else '')
            by_depth = [
                np.array([[result[f'{measure}@{depth}'] for depth in DEPTHS] for result in results])
                for measure in ('distance', 'motion_distance')
            ]
            medians = [np.median(values, axis=0) for values in by_depth]
            cells += [f'{median.max() / median.min():.2f}' for median in medians]
            cells += [f'{(values / median).max():.2f}' for values, median in zip(by_depth, medians, strict=True)]
            print(f'| {model} | {len(results)} | ' + ' | '.join(cells) + ' |')


def with_ratios(result: dict[str, float]) -> dict[str, float]:
    """Add the worst ratio of variances, and the kurtosis of the speed over that of the footage (median over coordinates)."""
    import math
    import statistics

    ratios = [result[f'kurtosis_{c}'] / result[f'kurtosis_{c}_real'] for c in range(1, int(result['leading_coordinates']) + 1)]
    return {**result, 'worst ratio of variances': math.exp(result['worst']), 'kurtosis': statistics.median(ratios)}


@command_line.command()
@click.option('--data', help='Latent data set; may be repeated', metavar='ZIP|DIR', multiple=True)
@click.option('--models',  help='Presets and baselines; a preset may be followed by ;option=value', metavar='NAME,..',
              default='default,ar2,ar5,splicing,walk')  # fmt: skip
@click.option('--seeds',   help='Seeds of the trainings; baselines need seed 0 only', metavar='LIST',
              type=command_line.SEEDS, default='0-2')  # fmt: skip
@click.option('--steps',   help='Generator updates  [default: those of the preset]', metavar='INT',
              type=command_line.POSITIVE_INT)  # fmt: skip
@click.option('--videos',  help='Videos to measure', metavar='INT', type=command_line.POSITIVE_INT, default=1024)  # fmt: skip
@click.option('--results', help='Where results are kept, one JSON line each', metavar='FILE', required=True)  # fmt: skip
@click.option('--keep',    help='Save the snapshots of trained models here', metavar='DIR')  # fmt: skip
@click.option('--device',  help='Where models are trained', metavar='NAME', default='cpu')  # fmt: skip
@click.option('--table',   help='Print the tables of what is there and leave', is_flag=True)  # fmt: skip
@command_line.clear_errors
def main(
    data: tuple[str, ...],
    device: str,
    models: str,
    seeds: list[int],
    steps: int | None,
    videos: int,
    results: str,
    keep: str | None,
    table: bool,
) -> None:
    """Compare the temporal GAN with baselines, at the beginning of videos and far into them."""
    if table:
        print_table(results)
        return
    if not data:
        raise command_line.UserMistake('--data: which latent data set?')
    names = re.split(r',(?![^\[]*\])', models)  # not at the commas of a list
    known = (*PRESETS, *BASELINES, RESIDUAL)
    unknown = [name for name in names if name.partition(';')[0] not in known]
    if unknown:
        raise command_line.UserMistake(f'--models: there is no {unknown[0]!r}; there are {", ".join(known)}')
    import torch

    from training.latents.dataset import LatentDataset

    torch.set_num_threads(1)
    for path in data:
        with LatentDataset(path) as dataset:
            measures: Measures | None = None
            for seed in seeds:
                for name in names:
                    key = {'data': os.path.basename(path), 'model': name, 'seed': seed, 'steps': steps}
                    if key in finished(results) or (name in BASELINES and seed != 0):
                        continue
                    measures = measures or Measures(dataset)
                    generator, cost = build(name, dataset, seed, steps, keep, device)
                    with torch.no_grad():
                        result = measures.of(generator, videos)
                    with open(results, 'a', encoding='utf-8') as file:
                        file.write(json.dumps({**key, 'cost': cost, 'result': result}) + '\n')
                    command_line.report(f'{name}, seed {seed}: {json.dumps(result)[:200]}...')


def finished(results: str) -> list[dict[str, Any]]:
    """What --results holds already, without the results themselves."""
    if not os.path.exists(results):
        return []
    with open(results, encoding='utf-8') as file:
        return [{key: value for key, value in json.loads(line).items() if key not in ('cost', 'result')} for line in file]


if __name__ == '__main__':
    main()
