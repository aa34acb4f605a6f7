"""Measures the choices that the paper leaves open: trains one variant after another and compares their distances.

    python benchmarks/temporal_choices.py --data=latents.zip --variants=all --seeds=0-2 --steps=4000 --results=choices.jsonl
    python benchmarks/temporal_choices.py --results=choices.jsonl --table

Every training adds one line to --results; what is there already is not trained again, so that an interrupted search goes on.
Distances: plugins/latent_frechet_distance.py, codes and motion, at the beginning and from frame 225 on. Repetition:
metrics/repetition.py, of 16 videos of 1000 frames. Times are processor seconds of one thread, which other work on the machine
disturbs less than the clock.
"""

import json
import os
import pathlib
import sys
import time
from typing import Any

import click

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from training import command_line, option_tree
from training.temporal_options import PRESETS, TrainingOptions

# Each variant changes some of train_video.py's defaults; the keys are paths in training_options.json.
VARIANTS: dict[str, dict[str, Any]] = {
    'default': {},
    'preset paper': dict(PRESETS['paper']),
    'preset fast': dict(PRESETS['fast']),
    'no motion view (paper)': {'settings.motion_weight': 0.0},
    'no angle penalty': {'settings.lambda_gap': 0.0},
    'no diversity penalty (paper)': {'settings.lambda_diversity': 0.0},
    'neither penalty': {'settings.lambda_gap': 0.0, 'settings.lambda_diversity': 0.0},
    'futures of 2 windows': {'settings.diversity_windows': 2},
    'no carried windows (paper)': {'settings.carry': 0.0},
    'never backwards (paper)': {'settings.reversal': 0.0},
    'angle penalty 10': {'settings.lambda_gap': 10.0},
    'full codes (paper)': {'latent_space.full': True},
    'whitening 0': {'latent_space.whitening': 0.0},
    'whitening 1': {'latent_space.whitening': 1.0},
    'critic steps 4': {'settings.critic_steps': 4},
    'wide critic': {'C_kwargs.narrowing_widths': [128, 64, 32], 'C_kwargs.temporal_channels': [64, 128, 128]},
    'learning rates 3e-3': {'settings.generator_lr': 3e-3, 'settings.critic_lr': 3e-3},
    'carry 0.75': {'settings.carry': 0.75},
    'hidden 64': {'G_kwargs.hidden_dim': 64},
    'batch 32': {'settings.batch': 32},
    'lambda_gp 1': {'settings.lambda_gp': 1.0},
    'variance 0.95': {'latent_space.variance': 0.95},
    'variance 0.999': {'latent_space.variance': 0.999},
}


def train_and_measure(data: str, overrides: dict[str, Any], seed: int, steps: int) -> dict[str, Any]:
    """Train one variant for `steps` steps; returns its distances and its cost."""
    import torch

    from metrics.frame_points import LatentPoints
    from metrics.repetition import Repetition
    from plugins.latent_frechet_distance import LatentFrechetDistance
    from training.latent_space import Windows, fit_latent_space
    from training.latents.dataset import LatentDataset
    from training.temporal_pictures import generate_codes
    from training.temporal_trainer import TemporalTrainer

    torch.set_num_threads(1)
    options = option_tree.override(TrainingOptions(data=data), overrides)
    with LatentDataset(data) as dataset:
        space = fit_latent_space(dataset, options.latent_space)
        windows = Windows(dataset, space, options.window)
        clips = [dataset.load_clip(index) for index in range(len(dataset.clips))]
        shape = {'num_ws': dataset.num_ws, 'w_dim': dataset.w_dim}
    settings = options.settings
    total_kimg = steps * settings.batch * settings.critic_steps * windows.num_frames / 1000
    trainer = TemporalTrainer(
        G_kwargs={**shape, **option_tree.to_dict(options.G_kwargs)},
        C_kwargs=option_tree.to_dict(options.C_kwargs),
        space=space,
        windows=windows,
        settings=settings,
        total_kimg=total_kimg,
        seed=seed,
    )
    start = time.process_time()
    with command_line.progress(total=steps, description='Training', unit='step', every_seconds=60) as bar:
        for _ in range(steps):
            trainer.step()
            bar.update(1)
    seconds = time.process_time() - start
    metric = LatentFrechetDistance(clips)
    result = {
        'coordinates': space.num_coordinates,
        'seconds': round(seconds, 1),
        'milliseconds_per_step': round(1000 * seconds / steps, 1),
    }
    for start_frame in (0, 225):
        measured = metric.compare_generator(trainer.G_ema, num_videos=2048, start=start_frame, first_seed=10000)
        for key in ('distance', 'motion_distance', 'floor', 'motion_floor', 'constant', 'motion_constant'):
            result[f'{key}@{start_frame}'] = round(measured[key], 4)
    result['recurrence'] = round(recurrence(trainer.G_ema, space), 4)
    points = LatentPoints(clips)
    videos = (points.project(generate_codes(trainer.G_ema, [seed], 1000, torch.device('cpu'))[0]) for seed in range(16))
    repeated = Repetition(points.real, 1000).compare(videos)
    result.update(repetition=round(repeated['repetition'], 4), new_frames=round(repeated['new_frames'], 1))
    return result


def recurrence(generator: Any, space: Any, num_videos: int = 64, begin: int = 150, end: int = 450) -> float:
    """How exactly videos repeat themselves, frames `begin` to `end`: 0 = they loop (or stand still), about 1 = not at all.

    The smallest over lags of 10 to 150 frames of E ||y_k - y_{k+lag}||^2, over E ||y_j - y_k||^2 of all pairs, of one video;
    the median over videos.
    """
    import torch

    from training.temporal_pictures import generate_codes

    codes = generate_codes(generator, list(range(num_videos)), end, torch.device('cpu'))[:, begin:]
    values = []
    for video in codes:
        y = space.encode(video.numpy()).double()
        spread = 2 * y.var(dim=0).sum()
        lags = [(y[lag:] - y[:-lag]).square().sum(dim=1).mean() for lag in range(10, 151)]
        values.append(float(min(lags) / spread.clamp(min=1e-9)))
    return sorted(values)[len(values) // 2]


def print_table(path: str) -> None:
    """A Markdown table of medians (and ranges) over seeds."""
    import numpy as np

    with open(path, encoding='utf-8') as file:
        lines = [json.loads(line) for line in file]
    names = [
        'distance@0',
        'distance@225',
        'motion_distance@0',
        'motion_distance@225',
        'recurrence',
        'repetition',
        'milliseconds_per_step',
    ]
    columns = [name for name in names if all(name in line['result'] for line in lines)]
    for data, steps in dict.fromkeys((line['data'], line['steps']) for line in lines):
        group = [line for line in lines if (line['data'], line['steps']) == (data, steps)]
        reference = group[0]['result']
        print(
            f'\n{data}, {steps} steps (floor {reference["floor@0"]:.3g}, motion floor {reference["motion_floor@0"]:.3g}, '
            f'standing still {reference["constant@0"]:.3g}, motion {reference["motion_constant@0"]:.3g})\n'
        )
        print('| variant | seeds | ' + ' | '.join(columns) + ' |')
        print('|---' * (len(columns) + 2) + '|')
        for variant in dict.fromkeys(line['variant'] for line in group):
            results = [line['result'] for line in group if line['variant'] == variant]
            cells = []
            for column in columns:
                values = [result[column] for result in results]
                spread = f' ({min(values):.3g} to {max(values):.3g})' if len(values) > 1 else ''
                cells.append(f'{np.median(values):.3g}{spread}')
            print(f'| {variant} | {len(results)} | ' + ' | '.join(cells) + ' |')


def read_changes(text: str) -> dict[str, Any]:
    """'settings.batch=32;G_kwargs.hidden_dim=64' as a dict of overrides; values are JSON."""
    return {key: json.loads(value) for key, _, value in (part.partition('=') for part in text.split(';')) if key}


# fmt: off
@command_line.command()
@click.option('--data',     help='Latent data set', metavar='ZIP|DIR')
@click.option('--variants', help='Names, or all', metavar='NAME,..|all', type=command_line.NAMES, default='all')
@click.option('--set',      'extra', help='One more variant: path=value;... (paths in training_options.json, JSON values)',
              metavar='TEXT', multiple=True)
@click.option('--base',     help='What all variants have in common, as with --set', metavar='TEXT', default='')
@click.option('--seeds',    help='Seeds of the trainings', metavar='LIST', type=command_line.SEEDS, default='0-2')
@click.option('--steps',    help='Generator updates', metavar='INT', type=command_line.POSITIVE_INT, default=4000)
@click.option('--results',  help='Where results are kept, one JSON line each', metavar='FILE', required=True)
@click.option('--table',    help='Print the table of what is there and leave', is_flag=True)
@command_line.clear_errors
def main(data: str | None, variants: list[str], extra: tuple[str, ...], base: str, seeds: list[int], steps: int,
         results: str, table: bool) -> None:
    """Compare choices of the temporal model."""
    if table:
        print_table(results)
        return
    if data is None:
        raise command_line.UserMistake('--data: which latent data set?')
    chosen = {} if extra else dict(VARIANTS) if variants == ['all'] else {name: VARIANTS[name] for name in variants}
    for text in extra:
        chosen[text] = read_changes(text)
    done = set()
    if os.path.exists(results):
        with open(results, encoding='utf-8') as file:
            done = {(line['data'], line['variant'], line['seed'], line['steps']) for line in map(json.loads, file)}
    name = os.path.basename(data)
    for seed in seeds:
        for variant, overrides in chosen.items():
            if (name, variant, seed, steps) in done:
                continue
            command_line.report(f'{variant}, seed {seed}')
            result = train_and_measure(data, {**read_changes(base), **overrides}, seed, steps)
            with open(results, 'a', encoding='utf-8') as file:
                file.write(json.dumps({'data': name, 'variant': variant, 'seed': seed, 'steps': steps, 'overrides': overrides,
                                       'result': result}) + '\n')
            command_line.report(json.dumps(result))
# fmt: on


if __name__ == '__main__':
    main()
