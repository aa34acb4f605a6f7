"""One training step of the temporal GAN by the number of threads: how long it takes, and whether the result is the same.

    python benchmarks/commands/training_threads.py --codes=10x128 --components=16 --threads=1,2

The fast form of `training_step.py` takes a step with each number of threads in turns, from equal beginnings, within one
process. Time on the clock says what is gained where cores are free, processor time what is lost where they are not; ratios to
one thread count, as other work changes the figures. The last column compares all weights after the steps with those of one
thread.
"""

import pathlib
import statistics
import sys
import time

import click

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from training.commands.command_line import prepare_process  # noqa: E402

prepare_process()  # as every command does, before PyTorch is imported

import torch  # noqa: E402

from benchmarks.training_step import INTERVAL, Step  # noqa: E402


def weights(step: Step) -> torch.Tensor:
    """All weights of both networks in a row."""
    return torch.cat([parameter.detach().flatten() for module in (step.G, step.C) for parameter in module.parameters()])


# fmt: off
@click.command()
@click.option('--codes',      help='Style layers and size of a style vector', metavar='LxD', default='10x128', show_default=True)
@click.option('--components', help='Coordinates of the space; 0: whole codes', metavar='INT', default=16, show_default=True)
@click.option('--threads',    help='Numbers of threads', metavar='LIST', default='1,2', show_default=True)
@click.option('--rounds',     help='Steps with each', metavar='INT', type=click.IntRange(1), default=12, show_default=True)
def main(codes: str, components: int, threads: str, rounds: int) -> None:
    """Print medians for each number of threads."""
    layers, size = map(int, codes.split('x'))
    numbers = [int(word) for word in threads.split(',')]
    steps = [Step((layers, size), components, fast=True) for _ in numbers]
    clock: list[list[float]] = [[] for _ in numbers]
    processor: list[list[float]] = [[] for _ in numbers]
    for number in range(rounds + 1):
        for place, step in enumerate(steps):
            torch.set_num_threads(numbers[place])
            begin = time.perf_counter(), time.process_time()
            step.run(number, penalties=number % INTERVAL == 0)
            clock[place].append(time.perf_counter() - begin[0])
            processor[place].append(time.process_time() - begin[1])
    print(f'PyTorch {torch.__version__}; medians of {rounds} steps; {codes}, {components or "all"} coordinates')
    print(f'{"threads":>8}{"clock ms":>10}{"ratio":>7}{"processor ms":>14}{"ratio":>7}  weights after the steps')
    base = weights(steps[0])
    times = [(statistics.median(a[1:]) * 1e3, statistics.median(b[1:]) * 1e3) for a, b in zip(clock, processor, strict=True)]
    for count, (wall, busy), step in zip(numbers, times, steps, strict=True):
        distance = float((weights(step) - base).abs().max())
        same = 'equal in every bit' if distance == 0 else f'{distance:.1g} apart at most'
        print(f'{count:>8}{wall:>10.1f}{wall / times[0][0]:>7.2f}{busy:>14.1f}{busy / times[0][1]:>7.2f}  {same}')


if __name__ == '__main__':
    main()
