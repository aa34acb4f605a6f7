"""How long commands take to end after SIGTERM, while they are in what takes longest: metrics, pictures, batches and steps.

    python -m benchmarks.runs.stopping --resolution=1024 --folder=stops
    python -m benchmarks.runs.stopping --resolution=256 --folder=stops256 --only=metric --times=5

The image generator has random weights and NVIDIA's channels, as that of benchmarks/commands/memory.py. A command is awaited until
it has written the words of its row, or has used so many seconds of processor time, then for a random time of up to `--spread`
seconds, and then asked to end. The table says how long that took, with what exit code (143 is that of SIGTERM), and whether the
command that goes on is in its output.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import click
import numpy as np
import psutil

from benchmarks.commands.memory import make_inputs

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGEST_START = 900.0  # seconds until the words are there
SLOW_METRIC = """
import numpy as np
from metrics import metric_main
@metric_main.register_metric
def slow(opts):
    matrix = np.random.RandomState(0).randn(3000, 3000)
    for _ in range(200):
        np.linalg.svd(matrix)  # one call of half a minute, in which Python sees no signal
    return {'slow': 0.0}
"""
EMBED = '--source={in}/frames --min-frames=1 --overwrite'
REPORT = (
    'report_video.py --run={in}/run --data={in}/codes.zip --dest={out}/page.html --videos=16 --depths=0,30 --clips=4 '
    '--clip-seconds=1'
)

# What is run, and the words after which it is in the midst of its work, or the seconds of processor time.
WORK: dict[str, tuple[str, str | float]] = {
    'train_video, in a metric that is deep in a library': (
        'train_video.py --data={in}/codes.zip --outdir={out} --kimg=13 --tick=7 --snap=1 --preview-frames=0 '
        '--plugin={in}/slow.py --metrics=slow', 'Evaluating metrics'),
    'train_video, in its pictures': (
        'train_video.py --data={in}/codes.zip --outdir={out} --kimg=700 --tick=7 --snap=1', 'tick 0'),
    'train_video, between steps': (
        'train_video.py --data={in}/codes.zip --outdir={out} --kimg=700 --tick=7 --snap=0 --preview-frames=0', 'tick 0'),
    'calc_metrics_video, in features of videos': (
        'calc_metrics_video.py {snapshot} --data={in}/coded.zip --metrics=fvd64_5f --real-clips=spread --bootstrap=0 '
        '--no-cache', 'Calculating'),
    'embed_video, in a batch of an encoder': (
        'embed_video.py {network} ' + EMBED + ' --dest={out}/e.zip --encoder={in}/encoder.pkl', 'frames'),
    'embed_video, in its preview': (
        'embed_video.py {network} ' + EMBED + ' --dest={out}/e.zip --encoder={in}/encoder.pkl --preview --no-report', 'preview'),
    'embed_video, in an optimisation': (
        'embed_video.py {network} ' + EMBED + ' --dest={out}/e.zip --no-report', 25.0),
    'train_encoder': ('train_encoder.py {network} --outdir={out} --kimg=10 --batch=4 --tick=0.1', 'Training for'),
    'tune_generator': (
        'tune_generator.py --data={in}/coded.zip --outdir={out} --dest={out}/tuned.pkl --steps=500', 'Tuning for at most'),
    'generate_video': ('generate_video.py {snapshot} --seeds=0-9 --outdir={out}/v --frames=1000', 'Generating'),
    'paste_video, in its frames': ('paste_video.py --data={in}/crops.zip --dest={out}/pasted', 'Pasting'),
    'latents_tool preview': ('latents_tool.py preview --data={in}/coded.zip --outdir={out}/previews', 'of 10 frames'),
    'report_video, in its measures': (REPORT, 'Measuring'),
    'report_video, in its pictures': (REPORT, 'Rendering'),
    'make_video, in the optimisation of its first step': (
        'make_video.py {network} --source={in}/frames --outdir={out}/made --align=center', 'Step 1'),
}  # fmt: skip


def make_more_inputs(place: pathlib.Path) -> None:
    """Crops that paste_video.py puts back, and a run for report_video.py, out of what `make_inputs` has made."""
    from networks import checkpoints
    from training.footage.clips import open_footage
    from training.footage.first_look import thumbnail
    from training.latents.dataset import LatentDataset, LatentDatasetWriter

    (place / 'run').mkdir(exist_ok=True)
    shutil.copyfile(place / 'snapshot.pkl', place / 'run' / 'network-snapshot-000001.pkl')
    (place / 'run' / 'training_options.json').write_text('{}')
    if (place / 'crops.zip').is_file():
        return
    frames = list(open_footage(str(place / 'frames'))[0].frames())
    side = frames[0].shape[0]
    G: Any = checkpoints.load_generator(str(place / 'generator.pkl'))
    reference = checkpoints.image_generator_reference(str(place / 'generator.pkl'), G)
    with (
        LatentDataset(str(place / 'coded.zip')) as coded,
        LatentDatasetWriter(
            str(place / 'crops.zip'), image_generator=reference, num_ws=coded.num_ws, w_dim=coded.w_dim, embedding={}
        ) as writer,
    ):
        low, high = side / 8, side * 7 / 8
        quads = np.tile(np.array([[low, low], [low, high], [high, high], [high, low]]), (len(frames), 1, 1))
        clip = writer.open_clip('clip')
        clip.append(np.array(coded.load_clip(0)))
        arrays = {'quads': quads, 'thumbnails': np.stack([thumbnail(frame) for frame in frames])}
        clip.close(fps=25.0, source=str(place / 'frames'), source_size=[side, side], arrays=arrays)
        writer.finish()


def _is_there(marker: str | float, log: pathlib.Path, pid: int) -> bool:
    if isinstance(marker, str):
        return marker in log.read_text(errors='replace')
    return float(psutil.Process(pid).cpu_times().user) >= marker


def stop(words: list[str], log: pathlib.Path, marker: str | float, delay: float) -> tuple[float, int, str]:
    """Start a command, ask it to end; returns the seconds that it took, its exit code, and what it has written."""
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    with log.open('wb') as output:
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environment)
    end = time.monotonic() + LONGEST_START
    while process.poll() is None and time.monotonic() < end and not _is_there(marker, log, process.pid):
        time.sleep(0.1)
    time.sleep(delay)
    if process.poll() is not None:
        raise click.ClickException(f'{" ".join(words)}: ended by itself with {process.returncode}; see {log}')
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = process.wait()
    return time.monotonic() - begin, code, log.read_text(errors='replace')


@click.command()
@click.option('--resolution', help='Of the image generator', metavar='INT', type=int, default=1024, show_default=True)
@click.option('--folder', help='Where inputs, results and logs go', metavar='DIR', required=True)
@click.option('--only', help='Only commands with this in their name', metavar='TEXT', default='')
@click.option('--times', help='How often each is stopped', type=click.IntRange(min=1), default=3, show_default=True)
@click.option('--spread', help='Longest time after the words, seconds', type=float, default=10.0, show_default=True)
@click.option('--seed', help='Of these times', type=int, default=0, show_default=True)
def main(resolution: int, folder: str, only: str, times: int, spread: float, seed: int) -> None:
    """Print a table of seconds from SIGTERM to the end."""
    place, draw = pathlib.Path(folder).resolve(), random.Random(seed)
    place.mkdir(parents=True, exist_ok=True)
    make_inputs(place, resolution, frames=True)
    make_more_inputs(place)
    (place / 'slow.py').write_text(SLOW_METRIC)
    click.echo(f'| at {resolution}x{resolution} | seconds from SIGTERM to the end | exit codes | goes on |\n|---|---|---|---|')
    for number, (name, (text, marker)) in enumerate(WORK.items()):
        if only not in name:
            continue
        seconds, codes, goes_on = [], set(), []
        for index in range(times):
            out = place / 'out'
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            words = text.replace('{in}', str(place)).replace('{out}', str(out))
            words = words.replace('{network}', f'--network={place}/generator.pkl')
            words = words.replace('{snapshot}', f'--network={place}/snapshot.pkl')
            taken, code, written = stop(words.split(), place / f'log{number:02d}-{index}.txt', marker, draw.uniform(0.0, spread))
            seconds.append(taken)
            codes.add(code)
            goes_on.append(f'\n  python {words.split()[0]} ' in written)
        shown = ', '.join(f'{value:.1f}' for value in seconds)
        told = 'yes' if all(goes_on) else 'no' if not any(goes_on) else 'in part'
        click.echo(f'| {name} | {shown} | {", ".join(map(str, sorted(codes)))} | {told} |')
    click.echo(f'\n{os.cpu_count()} cores; load of the machine at the end {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
    main()
