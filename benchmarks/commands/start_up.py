"""Where the time of generate_video.py goes from its start to its first frame, and what --help of every command takes.

    python benchmarks/commands/start_up.py --network=network-snapshot-000500.pkl --roots=.,../before

A process for each measurement; several checkouts take turns. Seconds of processor time, all threads together, medians: on a
busy machine the clock says nothing. Stages: `interpreter` until the first line runs; `options`, the module of the command;
`PyTorch`, its import; `modules`, the project's others; `networks`, loading both; `plan`, until frames are wanted; `first frame`,
making the network's fast form and rendering; `file`, what is left, without ffmpeg's own time.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import click

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COMMANDS = ('align_video', 'calc_metrics_video', 'convert_network', 'embed_video', 'generate_video', 'latents_tool', 'make_video',
            'paste_video', 'play_video', 'report_video', 'train_encoder', 'train_video', 'tune_generator')  # fmt: skip
STAGES = ('interpreter', 'options', 'PyTorch', 'modules', 'networks', 'plan', 'first frame', 'file')

# What a process does: marks when the command passes from stage to stage, by functions of the package that it goes through.
PROGRAM = """
import sys, time
marks = [('interpreter', time.process_time())]
sys.path.insert(0, ROOT)
def mark(name):
    if name not in dict(marks):
        marks.append((name, time.process_time()))
import generate_video
mark('options')
import torch
mark('PyTorch')
from training.generation import plan, run
from training.videos import renderer, synthesis
mark('modules')
def after(module, function, name, before=None):
    original = getattr(module, function)
    def marked(*args, **kwargs):
        if before:
            mark(before)
        result = original(*args, **kwargs)
        mark(name)
        return result
    setattr(module, function, marked)
after(synthesis, 'images_to_uint8', 'first frame')
after(synthesis, '_render_batch', 'rendering', 'plan')
after(run, 'load_networks', 'networks')
generate_video.main(WORDS, standalone_mode=False)
mark('file')
import json
print(json.dumps([mark for mark in marks if mark[0] != 'rendering']))
"""


def stages(root: pathlib.Path, network: str) -> dict[str, float]:
    """Seconds of processor time of each stage, in one process."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f'--network={network}', f'--outdir={folder}', '--seeds=0', '--frames=1', '--batch=1']
        program = f'ROOT, WORDS = {str(root)!r}, {words!r}\n{PROGRAM}'
        done = subprocess.run([sys.executable, '-c', program], cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    marks = json.loads(done.stdout.splitlines()[-1])
    return {name: here - before for (name, here), before in zip(marks, [0.0, *(value for _, value in marks)], strict=False)}


def help_seconds(root: pathlib.Path, command: str) -> float:
    """Seconds of processor time of --help."""
    program = (
        'import resource, subprocess, sys\n'
        f'subprocess.run([sys.executable, {command + ".py"!r}, "--help"], check=True, stdout=subprocess.DEVNULL)\n'
        'usage = resource.getrusage(resource.RUSAGE_CHILDREN); print(usage.ru_utime + usage.ru_stime)\n'
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


# fmt: off
@click.command()
@click.option('--network', help='Snapshot of train_video.py', metavar='FILE', required=True)
@click.option('--roots',   help='Checkouts to measure', metavar='A,B', default=str(ROOT))
@click.option('--rounds',  help='Processes for each', metavar='INT', type=click.IntRange(1), default=3, show_default=True)
@click.option('--help-of', help='Commands whose --help is measured, or none', metavar='A,B', default=','.join(COMMANDS))
def main(network: str, roots: str, rounds: int, help_of: str) -> None:
    """Print medians in seconds."""
    places = [pathlib.Path(root).resolve() for root in roots.split(',')]
    found: list[list[dict[str, float]]] = [[] for _ in places]
    helps: list[dict[str, list[float]]] = [{} for _ in places]
    commands = [] if help_of == 'none' else help_of.split(',')
    for _ in range(rounds):
        for index, place in enumerate(places):
            found[index].append(stages(place, str(pathlib.Path(network).resolve())))
            for command in commands:
                helps[index].setdefault(command, []).append(help_seconds(place, command))

    def row(name: str, values: list[Any]) -> str:
        cells = [f'{statistics.median(value):.2f} ({min(value):.2f}..{max(value):.2f})' for value in values]
        return ' | '.join([f'| {name}', *cells]) + ' |'

    print(' | '.join(['| stage', *(place.name for place in places)]) + ' |')
    print('|---|' + '---|' * len(places))
    for stage in STAGES:
        print(row(stage, [[each.get(stage, 0.0) for each in runs] for runs in found]))
    print(row('together', [[sum(each.values()) for each in runs] for runs in found]))
    for command in commands:
        print(row(f'{command}.py --help', [values[command] for values in helps]))
# fmt: on


if __name__ == '__main__':
    main()
