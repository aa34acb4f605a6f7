"""The whole chain on an embedded world, as a user would run it: footage, latents, training, new video, measurement.

    python -m demo.run_demo                   a talking head
    python -m demo.run_demo --world=hand      a hand that gestures
    python -m demo.run_demo --world=car       a car that drives

Everything it runs is a command of this project; each is printed before it runs. Steps that are done are skipped when the
demonstration is started again, and an interrupted training goes on where it was.
"""

import json
import pathlib
import shlex
import subprocess
import sys
import time

import click
import numpy as np
import torch
from PIL import Image

from demo.drawing.pictures import to_uint8
from demo.judge import comparison_table, match_events
from demo.motion import FPS
from demo.truth_reader import TruthReader, load_reader
from demo.worlds import FOLDER, WORLDS, World, find_world
from networks.checkpoints import load_generator
from training.commands.command_line import FloatRange, UserMistake, clear_errors, command, progress, report
from training.footage.clips import open_footage
from training.latents.dataset import LatentDataset
from training.videos.output import VideoWriter, image_grid
from training.videos.synthesis import render_codes

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHUNK = 64  # frames rendered at a time

# ----------------------------------------------------------------------------
# Steps.


def default_folder(world: World) -> pathlib.Path:
    """Where the results of a world's demonstration go."""
    return pathlib.Path('demo-output') if world.name == 'head' else pathlib.Path('demo-output', world.name)


def run(*arguments: object, show: bool = True) -> str:
    """Print and run one command of the project from its folder; returns its standard output, which is also shown if `show`."""
    words = [str(argument) for argument in arguments]
    print(f'\n$ python {shlex.join(words)}', flush=True)
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            if show:
                print(line, end='', flush=True)
            lines.append(line)
        code = process.wait()
    except KeyboardInterrupt:  # the command got the signal too: let it save its state
        process.wait()
        raise
    if code != 0:
        raise UserMistake(f'the command above ended with exit code {code}; what it said stands before this line')
    return ''.join(lines)


def summarize_metrics(lines: str) -> str:
    """The main number of each metric line, with its own scale: what equal videos and a still picture would get."""
    texts = []
    for line in lines.splitlines():
        result = json.loads(line)
        name, values = result['metric'], result['results']
        scale = [
            f'{label} {values[key]:.3f}'
            for label, key in (
                ('floor', f'{name}_floor'),
                ('still picture', f'{name}_constant'),
                ('two halves of the footage', f'{name}_null_high'),
            )
            if key in values
        ]
        texts.append(f'{name}: {values[name]:.3f}' + (f' ({", ".join(scale)})' if scale else ''))
    return '\n'.join(texts)


def check_options(path: pathlib.Path, options: dict[str, float | str]) -> None:
    """Remember the options of a new demonstration, and refuse to mix those of an earlier one."""
    if path.exists() and json.loads(path.read_text()) != options:
        raise UserMistake(
            f'{path.parent} holds a demonstration with other options; remove that folder or choose another --outdir'
        )
    path.write_text(json.dumps(options) + '\n')


def make_footage(world: World, video: pathlib.Path, truth: pathlib.Path, *, subject: int, frames: int) -> None:
    """Render a performance of the subject into an mp4, and keep its true parameters beside it."""
    performance = world.perform(frames, seed=subject)
    with VideoWriter(video, fps=FPS, crf=8) as writer, progress(total=frames, description='rendering footage') as bar:
        for first in range(0, frames, CHUNK):
            for frame in to_uint8(world.render(performance.parameters[first : first + CHUNK], world.resolution)[0]):
                writer.write(frame)
            bar.update(min(CHUNK, frames - first))
    np.savez_compressed(truth, **performance.truth())  # type: ignore[arg-type,unused-ignore]


def find_run(runs: pathlib.Path) -> pathlib.Path | None:
    """The newest run folder that has a training state, or None."""
    states = sorted(runs.glob('*/training-state-*.pt'))
    return states[-1].parent if states else None


def newest_snapshot(run_dir: pathlib.Path) -> pathlib.Path:
    """The last snapshot of a run."""
    snapshots = sorted(run_dir.glob('network-snapshot-*.pkl'))
    if not snapshots:
        raise UserMistake(f'{run_dir} holds no network-snapshot-*.pkl; remove the folder and start again')
    return snapshots[-1]


def read_video(path: pathlib.Path, limit: int | None = None) -> np.ndarray:
    """Frames `[T, H, W, 3]` uint8 of a video."""
    frames = []
    for frame in open_footage(str(path))[0].frames():
        frames.append(frame)
        if limit is not None and len(frames) >= limit:
            break
    return np.stack(frames)


def average_judgement(world: World, tracks: np.ndarray, segment: int) -> dict[str, float]:
    """Statistics of consecutive segments of equal length, averaged, so that videos of different length compare."""
    parts = [world.judge(tracks[first : first + segment], FPS) for first in range(0, len(tracks) - segment + 1, segment)]
    table = np.array([list(part.values()) for part in parts])
    means = [float(np.mean(column[~np.isnan(column)])) if (~np.isnan(column)).any() else float('nan') for column in table.T]
    return dict(zip(parts[0], means, strict=True))


# ----------------------------------------------------------------------------
# Pictures.


def side_by_side(
    real: np.ndarray, embedded: np.ndarray, generated: np.ndarray, picture: pathlib.Path, video: pathlib.Path
) -> None:
    """Write a picture (rows: footage, embedded, generated; half a second between columns) and a video of the three."""
    columns = 10
    step = round(FPS / 2)
    rows = [frames[: columns * step : step] for frames in (real, embedded, generated)]
    columns = min(len(row) for row in rows)
    grid = image_grid(np.concatenate([row[:columns] for row in rows]), columns)
    Image.fromarray(grid).save(picture)
    with VideoWriter(video, fps=FPS, crf=14) as writer:
        for trio in zip(real, embedded, generated, strict=False):
            wide = np.concatenate(trio, axis=1)
            writer.write(wide.repeat(2, axis=0).repeat(2, axis=1))


def compare(
    world: World, out: pathlib.Path, footage: pathlib.Path, latents: pathlib.Path, videos: list[pathlib.Path], frames: int
) -> str:
    """Read the true parameters back from all videos; writes pictures and `comparison.json`, returns the text."""
    truth = np.load(out / 'truth.npz')
    reader: TruthReader = load_reader(FOLDER / world.reader_file, world.table)
    generator = load_generator(FOLDER / world.generator_file)
    with LatentDataset(latents) as data:
        codes = data.load_clip(0)
    real = read_video(footage)
    embedded = np.stack(list(render_codes(generator, torch.from_numpy(np.array(codes[: max(frames, 1000)])), batch=16)))
    made = [read_video(path) for path in videos]
    side_by_side(real, embedded, made[0], out / 'side-by-side.png', out / 'side-by-side.mp4')
    tracks = {
        'truth': truth['parameters'],
        'footage': reader.read(real),
        'embedded': reader.read(embedded),
        **{f'generated {k}': reader.read(video) for k, video in enumerate(made)},
    }
    columns = {name: average_judgement(world, track, frames) for name, track in tracks.items()}
    error = (embedded.astype(np.float32) - real[: len(embedded)]) ** 2
    psnr = float((10 * np.log10(255**2 / error.mean(axis=(1, 2, 3)))).mean())
    figures: dict[str, float] = {}
    sentences: list[str] = []
    for name, event in world.events.items():
        wanted = truth[f'{name}_frames'] if f'{name}_frames' in truth else event.find(tracks['truth'], world.table)
        precision, recall = match_events(event.find(tracks['footage'], world.table), wanted)
        figures |= {f'{name}_precision': precision, f'{name}_recall': recall}
        plural = name.replace('_', ' ') + 's'
        sentences.append(f'The reader finds the {plural} of the footage with precision {precision:.2f} and recall {recall:.2f}.')
    (out / 'comparison.json').write_text(json.dumps({'columns': columns, 'embedded_psnr': psnr, **figures}, indent=2) + '\n')
    return '\n'.join(
        [
            f'Embedded footage agrees with the footage to {psnr:.1f} dB (mean PSNR of {len(embedded)} frames).',
            *sentences,
            f'What was read from the videos ({frames} frames a time; "truth" are the parameters the footage was rendered from):',
            '',
            comparison_table(columns),
        ]
    )


# fmt: off
@command()
@click.option('--world', 'world_name', help='What is shown', type=click.Choice(tuple(WORLDS)), default='head', show_default=True)
@click.option('--outdir', help='Where to save the results  [default: demo-output, or demo-output/WORLD]', metavar='DIR')
@click.option(
    '--subject',
    help='Seed of the head, hand or car and of its performance  [default: one that shows well]',
    metavar='INT',
    type=click.IntRange(min=0),
)
@click.option(
    '--footage-frames', help='Length of the footage', metavar='INT', type=click.IntRange(min=600), default=3500, show_default=True
)
@click.option(
    '--kimg',
    help='Length of the training, thousands of frames',
    metavar='KIMG',
    type=FloatRange(min=0, min_open=True),
    default=6000,
    show_default=True,
)
@click.option(
    '--frames', help='Length of the generated videos', metavar='INT', type=click.IntRange(min=200), default=500, show_default=True
)
@click.option(
    '--videos', help='Number of generated videos', metavar='INT', type=click.IntRange(min=1), default=2, show_default=True
)
@clear_errors
def main(
    world_name: str, outdir: str | None, subject: int | None, footage_frames: int, kimg: float, frames: int, videos: int
) -> None:
    """Show the whole chain on an embedded world: about a quarter of an hour on two CPU cores.

    Remove the output folder to start from the beginning.
    """
    started = time.time()
    world = find_world(world_name)
    subject = world.subject if subject is None else subject
    out = (pathlib.Path(outdir) if outdir else default_folder(world)).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in world.files:
        if not (FOLDER / name).exists():
            raise UserMistake(
                f'{FOLDER / name} is missing; check out the repository again, or make it with: '
                f'python -m demo.make_world --world={world.name}'
            )
    options: dict[str, float | str] = {'subject': subject, 'footage_frames': footage_frames, 'kimg': kimg}
    check_options(out / 'options.json', options if world.name == 'head' else {'world': world.name, **options})
    footage, latents = out / 'footage.mp4', out / 'latents.zip'
    if not (footage.exists() and (out / 'truth.npz').exists()):
        report(f'Rendering {footage_frames} frames of subject {subject}, {footage_frames / FPS:.0f} seconds of footage.')
        make_footage(world, footage, out / 'truth.npz', subject=subject, frames=footage_frames)
    if not latents.exists():
        run(
            'embed_video.py',
            f'--network={FOLDER / world.generator_file}',
            f'--encoder={FOLDER / world.encoder_file}',
            f'--source={footage}',
            f'--dest={latents}',
            '--perceptual=none',
        )
    done = out / 'training-done.json'
    if not done.exists():
        unfinished = find_run(out / 'training-runs')
        resume = [f'--resume={unfinished}'] if unfinished else []
        run(
            'train_video.py',
            f'--outdir={out / "training-runs"}',
            f'--data={latents}',
            f'--network={FOLDER / world.generator_file}',
            f'--kimg={kimg:g}',
            *resume,
        )
        finished = find_run(out / 'training-runs')
        if finished is None:
            raise UserMistake(f'the training left no state in {out / "training-runs"}')
        done.write_text(json.dumps({'snapshot': str(newest_snapshot(finished))}) + '\n')
    snapshot = pathlib.Path(json.loads(done.read_text())['snapshot'])
    video_dir = out / 'videos'
    run(
        'generate_video.py',
        f'--network={snapshot}',
        f'--outdir={video_dir}',
        f'--seeds=0-{videos - 1}',
        f'--frames={frames}',
        '--skip-existing',
    )
    metrics = run('calc_metrics_video.py', f'--network={snapshot}', f'--data={latents}', show=False)
    (out / 'metrics.jsonl').write_text(metrics)
    print(summarize_metrics(metrics), flush=True)
    text = compare(world, out, footage, latents, sorted(video_dir.glob('seed*.mp4')), frames)
    (out / 'comparison.txt').write_text(text + '\n')
    print(f'\n{text}\n')
    print(f'Done in {(time.time() - started) / 60:.1f} minutes. The results:')
    for path, meaning in (
        (video_dir, 'new video of the subject'),
        (out / 'side-by-side.png', 'footage, embedded footage and new video, a row each'),
        (out / 'side-by-side.mp4', 'the same, moving'),
        (footage, 'the footage'),
        (out / 'comparison.txt', 'what was read back from the videos'),
        (out / 'metrics.jsonl', 'the metric, with everything needed to compute it again'),
        (snapshot, 'the trained model'),
    ):
        print(f'  {path}  {meaning}')
# fmt: on


if __name__ == '__main__':
    main()
