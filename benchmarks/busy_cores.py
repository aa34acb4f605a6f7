"""What waiting threads cost when the cores have other work: one step of a training on the CPU, for several settings of OpenMP.

    python benchmarks/busy_cores.py --data=latents.zip

The settings are tried in turns, each in a process of its own (OpenMP reads them once), beside 0, 1, 2 ... processes that do
nothing but turn. The table gives the median over the rounds.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import time

import click

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training.commands import command_line  # noqa: E402

SETTINGS: dict[str, dict[str, str]] = {
    'as OpenMP has it': {},
    'GOMP_SPINCOUNT=300': {'GOMP_SPINCOUNT': '300'},
    'GOMP_SPINCOUNT=1000 (ours)': {'GOMP_SPINCOUNT': '1000'},
    'GOMP_SPINCOUNT=10000': {'GOMP_SPINCOUNT': '10000'},
    'OMP_WAIT_POLICY=passive': {'OMP_WAIT_POLICY': 'passive'},
    'OMP_NUM_THREADS=1': {'OMP_NUM_THREADS': '1'},
}
TURN = 'while True: pass'


def seconds_per_step(data: str, seconds: float) -> float:
    """Train on `data` with all defaults for `seconds` after a few steps to warm up; returns the seconds of one step."""
    from training.latent_space import fit_latent_space
    from training.latents.dataset import LatentDataset
    from training.real_windows import Windows
    from training.temporal_options import Settings
    from training.temporal_trainer import TemporalTrainer

    with LatentDataset(data) as dataset:
        space = fit_latent_space(dataset)
        windows = Windows(dataset, space, 25, strides=Settings().strides)
        trainer = TemporalTrainer(
            G_kwargs={'num_ws': dataset.num_ws, 'w_dim': dataset.w_dim},
            C_kwargs={},
            space=space,
            windows=windows,
            settings=Settings(),
            total_kimg=1000,
            seed=0,
        )
    for _ in range(4):
        trainer.step()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        trainer.step()
        steps += 1
    return (time.perf_counter() - start) / steps


def measure(data: str, setting: dict[str, str], seconds: float) -> float:
    """`seconds_per_step` in a process with `setting` in its environment and nothing else said about threads."""
    environment = {name: value for name, value in os.environ.items() if name not in command_line.THREAD_SETTINGS}
    words = [sys.executable, __file__, f'--data={data}', f'--seconds={seconds}', '--one']
    done = subprocess.run(words, env={**environment, **setting}, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


# fmt: off
@click.command()
@click.option('--data',    help='Latent data set', metavar='ZIP|DIR', required=True)
@click.option('--busy',    help='Up to so many other processes', metavar='INT', type=click.IntRange(0), default=2,
              show_default=True)
@click.option('--seconds', help='Length of one measurement', metavar='FLOAT', type=float, default=8, show_default=True)
@click.option('--rounds',  help='Measurements of each', metavar='INT', type=click.IntRange(1), default=3, show_default=True)
@click.option('--one',     is_flag=True, hidden=True)
def main(data: str, busy: int, seconds: float, rounds: int, one: bool) -> None:
    """Print milliseconds of one training step for each setting (rows) and number of busy processes beside (columns)."""
    if one:
        print(seconds_per_step(data, seconds))
        return
    table: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for number in range(busy + 1):
        others = [subprocess.Popen([sys.executable, '-c', TURN]) for _ in range(number)]
        try:
            found: dict[str, list[float]] = {name: [] for name in SETTINGS}
            for _ in range(rounds):
                for name, setting in SETTINGS.items():
                    found[name].append(measure(data, setting, seconds))
                    print(f'{number} busy, {name}: {found[name][-1] * 1000:.0f} ms', file=sys.stderr, flush=True)
        finally:
            for other in others:
                other.kill()
        for name in SETTINGS:
            table[name].append(statistics.median(found[name]))
    print(f'Milliseconds of a step, median of {rounds}; {os.cpu_count()} cores.\n')
    print('| | ' + ' | '.join(f'{number} busy' for number in range(busy + 1)) + ' |')
    print('|---|' + '---|' * (busy + 1))
    for name, values in table.items():
        print(f'| {name} | ' + ' | '.join(f'{value * 1000:.0f}' for value in values) + ' |')
# fmt: on


if __name__ == '__main__':
    main()
