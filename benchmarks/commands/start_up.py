"""Where the time of generate_video.py goes from its start to its first frame, and what --help of every command takes.

    python benchmarks/commands/start_up.py --network=network-snapshot-000500.pkl --roots=.,../before

A process for each measurement; several checkouts take turns. Seconds of processor time, all threads together, medians: on a
busy machine the clock says nothing. Stages: `interpreter` until the first line runs; `options`, the module of the command;
`PyTorch`, its import; `modules`, the project's others; `networks`, loading both; `plan`, until frames are wanted; `first frame`,
making the network's fast form and rendering; `file`, what is left, without ffmpeg's own time; `end`, of the
interpreter. `--whole` takes no marks, for checkouts whose modules have other names. Bytecode is kept, as it is after
the first start of an installation, also where PYTHONDONTWRITEBYTECODE says otherwise; the first round, which makes it, does not
count.
"""

import json
import os
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
STAGES = ('interpreter', 'options', 'PyTorch', 'modules', 'networks', 'plan', 'first frame', 'file', 'end')

# As a user's: bytecode stays.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != 'PYTHONDONTWRITEBYTECODE'}

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
from training.commands import memory
getattr(memory, 'collect_after_imports', int)()  # as the command itself does, which comes later here
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
try:
    generate_video.main(WORDS, prog_name='generate_video.py')
except SystemExit as ended:
    assert not ended.code
mark('file')
import json, resource
encoder = resource.getrusage(resource.RUSAGE_CHILDREN)
marks = [mark for mark in marks if mark[0] != 'rendering']
print(json.dumps([marks, encoder.ru_utime + encoder.ru_stime]))
sys.exit(0)
"""


def stages(root: pathlib.Path, network: str) -> dict[str, float]:
    """Seconds of processor time of each stage, in one process."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f'--network={network}', f'--outdir={folder}', '--seeds=0', '--frames=1', '--batch=1']
        program = f'ROOT, WORDS = {str(root)!r}, {words!r}\n{PROGRAM}'
        with tempfile.TemporaryFile('w+') as said:
            process = subprocess.Popen([sys.executable, '-c', program], cwd=root, env=ENVIRONMENT, stdout=said)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise click.ClickException(f'generate_video.py of {root} ended with {process.returncode}')
            said.seek(0)
            marks, encoder = json.loads(said.read().splitlines()[-1])
    marks.append(('end', usage.ru_utime + usage.ru_stime - encoder))
    return {name: here - before for (name, here), before in zip(marks, [0.0, *(value for _, value in marks)], strict=False)}


def whole(root: pathlib.Path, network: str) -> dict[str, float]:
    """Seconds of processor time of the command from its start to its end, that of the encoder included."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f'--network={network}', f'--outdir={folder}/new', '--seeds=0', '--frames=1', '--batch=1', '--device=cpu']
        process = subprocess.Popen(
            [sys.executable, 'generate_video.py', *words],
            cwd=root,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f'generate_video.py of {root} ended with {process.returncode}')
    return {'file': usage.ru_utime + usage.ru_stime}


def help_seconds(root: pathlib.Path, command: str) -> float:
    """Seconds of processor time of --help."""
    program = (
        'import resource, subprocess, sys\n'
        f'subprocess.run([sys.executable, {command + ".py"!r}, "--help"], check=True, stdout=subprocess.DEVNULL)\n'
        'usage = resource.getrusage(resource.RUSAGE_CHILDREN); print(usage.ru_utime + usage.ru_stime)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=root, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


# fmt: off
@click.command()
@click.option('--network', help='Snapshot of train_video.py', metavar='FILE', required=True)
@click.option('--roots',   help='Checkouts to measure', metavar='A,B', default=str(ROOT))
@click.option('--rounds',  help='Processes for each', metavar='INT', type=click.IntRange(1), default=3, show_default=True)
@click.option('--whole',   'whole_only', help='Without stages', is_flag=True)
@click.option('--help-of', help='Commands whose --help is measured, or none', metavar='A,B', default=','.join(COMMANDS))
def main(network: str, roots: str, rounds: int, whole_only: bool, help_of: str) -> None:
    """Print medians in seconds."""
    places = [pathlib.Path(root).resolve() for root in roots.split(',')]
    found: list[list[dict[str, float]]] = [[] for _ in places]
    helps: list[dict[str, list[float]]] = [{} for _ in places]
    commands = [] if help_of == 'none' else help_of.split(',')
    for number in range(rounds + 1):
        for index, place in enumerate(places):
            found[index].append((whole if whole_only else stages)(place, str(pathlib.Path(network).resolve())))
            for command in commands if number else []:
                helps[index].setdefault(command, []).append(help_seconds(place, command))
    found = [runs[1:] for runs in found]

    def row(name: str, values: list[Any]) -> str:
        cells = [f'{statistics.median(value):.2f} ({min(value):.2f}..{max(value):.2f})' for value in values]
        return ' | '.join([f'| {name}', *cells]) + ' |'

    print(' | '.join(['| stage', *(place.name for place in places)]) + ' |')
    print('|---|' + '---|' * len(places))
    for stage in () if whole_only else STAGES:
        print(row(stage, [[each.get(stage, 0.0) for each in runs] for runs in found]))
        if stage == 'first frame':
            until = STAGES[: STAGES.index(stage) + 1]
            print(row('until here', [[sum(each.get(name, 0.0) for name in until) for each in runs] for runs in found]))
    print(row('together', [[sum(each.values()) for each in runs] for runs in found]))
    for command in commands:
        print(row(f'{command}.py --help', [values[command] for values in helps]))
# fmt: on


if __name__ == '__main__':
    main()
