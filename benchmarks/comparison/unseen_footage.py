"""How near are models to footage of the same subject that nobody has shown them?

    python benchmarks/comparison/unseen_footage.py --data=latents.zip --longer=longer.zip --networks=models

`--data` is what the models were trained on, `--longer` a longer recording that begins with it, of the same generator (for the
demo: `python -m demo.run_demo --footage-frames=15000`; the same seed films the same first minutes). What comes after the first
part is unseen. The distances of benchmarks/long_run.py are taken to the training footage, so a copy of it would win there, and a
subject that went on living would lose: its next minutes are as far from the first as that. Rows, each against the seen footage
and against the unseen:

- the unseen footage, and its stretches of the length of the seen one: what the subject itself gets
- the seen footage: what copying gets
- baselines, fitted to the seen footage
- models: windows of 25 frames that begin at frame 1000 of 1024 videos, seeds as in benchmarks/long_run.py.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import click

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

from training.commands import command_line

FIRST_SEED, VIDEOS, START, WINDOW = 80000, 1024, 1000, 25
MAX_WINDOWS = 2048
SAME = 0.1  # of the deviation of the codes: what another rendering and compression of the same footage may differ by


@command_line.command()
@click.option('--data', help='Latent data set that the models were trained on', metavar='ZIP|DIR', required=True)
@click.option('--longer', help='Latent data set of the longer recording', metavar='ZIP|DIR', required=True)
@click.option('--networks', help='Folder of snapshots; may be repeated', metavar='DIR', multiple=True)
@click.option('--baselines', help='Baselines to fit, see benchmarks/long_run.py', metavar='NAME,..', default='ar5,splicing')
@command_line.clear_errors
def main(data: str, longer: str, networks: tuple[str, ...], baselines: str) -> None:
    """Compare models with footage that they were trained on and with footage that they were not, as a Markdown table."""
    import numpy as np
    import torch

    from benchmarks.long_run import BASELINES, fit_baseline
    from metrics.inputs.latent_windows import CodeSpace, generate_windows, window_starts
    from networks.checkpoints import load_snapshot
    from plugins.latent_frechet_distance import LatentFrechetDistance
    from plugins.latent_kernel_distance import LatentKernelDistance
    from training.latents.dataset import LatentDataset

    names = [name for name in baselines.split(',') if name]
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise command_line.UserMistake(f'--baselines: there is no {unknown[0]!r}; there are {", ".join(BASELINES)}')
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with LatentDataset(data) as dataset, LatentDataset(longer) as more:
        seen, whole = np.array(dataset.load_clip(0)), np.array(more.load_clip(0))
        if len(whole) < 2 * len(seen) or np.abs(whole[: len(seen)] - seen).mean() > SAME * seen.std():
            raise command_line.UserMistake(f'{longer} is not a recording that begins with {data} and is twice as long at least')
        fitted = [(name, fit_baseline(name, dataset)) for name in names]
    unseen = whole[len(seen) :]
    sides = [(LatentFrechetDistance([side]), LatentKernelDistance([side])) for side in (seen, unseen)]

    def row(name: str, windows_in: Callable[[CodeSpace], torch.Tensor]) -> None:
        cells = []
        for frechet, kernel in sides:
            windows = windows_in(frechet.space)
            distance, kernel_distance = frechet.compare(windows), kernel.compare(windows)
            cells += [f'{distance["distance"]:.2f}', f'{distance["motion_distance"]:.2f}', f'{kernel_distance["distance"]:.1f}']
        print(f'| {name} | ' + ' | '.join(cells) + ' |', flush=True)

    def cut(footage: np.ndarray) -> Callable[[CodeSpace], torch.Tensor]:
        def windows_in(space: CodeSpace) -> torch.Tensor:
            starts = [start for _, start in window_starts([len(footage)], WINDOW, MAX_WINDOWS)]
            return space.project(footage).unfold(0, WINDOW, 1).transpose(1, 2)[starts]

        return windows_in

    def generate(generator: Any) -> Callable[[CodeSpace], torch.Tensor]:
        seeds = range(FIRST_SEED, FIRST_SEED + VIDEOS)
        return lambda space: next(iter(generate_windows(generator, space, seeds, [(START, WINDOW)])))

    print('| | seen: Frechet distance | motion | kernel distance | unseen: Frechet distance | motion | kernel distance |')
    print('|---|---|---|---|---|---|---|')
    row('unseen footage', cut(unseen))
    for begin in range(0, len(unseen) - len(seen) + 1, len(seen)):
        row(
            f'unseen footage, frames {len(seen) + begin} to {len(seen) + begin + len(seen) - 1}',
            cut(unseen[begin : begin + len(seen)]),
        )
    row('seen footage', cut(seen))
    for name, generator in fitted:
        row(name, generate(generator))
    for folder in networks:
        for path in sorted(pathlib.Path(folder).glob('*.pkl')):
            row(f'{pathlib.Path(folder).name}/{path.stem}', generate(load_snapshot(str(path)).G_ema))


if __name__ == '__main__':
    main()
