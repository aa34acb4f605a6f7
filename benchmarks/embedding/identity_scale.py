"""What the distance of faces (training/embedding/face_identity.py) is between frames that show one person, at a generator's size.

    python -m benchmarks.embedding.identity_scale --data=recordings/ --resolution=64 --results=identity.jsonl
    python -m benchmarks.embedding.identity_scale --results=identity.jsonl --table

Tuning and embedding are judged by this distance, and it is meant for faces of 150 pixels. Each recording adds a line with the
mean over frames of its last fifth, cut and resized as embed_video.py does:

    next, second          the frame after it, and that one second later
    noise33, noise27      the frame itself with white noise of 33 and 27 dB, which is what an embedding has
    stains27              with noise of 27 dB whose grain is four pixels
    three_quarters, half  the frame itself after a copy of that size
    others                frames of the other recordings, as many as --others, where their faces are compared in its place
"""

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import PIL.Image

from benchmarks.embedding.results_file import Results, with_results
from training.commands import command_line

if TYPE_CHECKING:
    from training.embedding.face_identity import FaceIdentity

HELD_OUT = 0.2
MEASURES = ('next', 'second', 'noise33', 'noise27', 'stains27', 'three_quarters', 'half', 'others')


def noisy(frame: np.ndarray, decibel: float, grain: int, random: np.random.RandomState) -> np.ndarray:
    """A frame uint8 `[H, W, 3]` with Gaussian noise of that PSNR, each value of it `grain` pixels wide."""
    height, width, channels = frame.shape
    noise = random.randn(-(-height // grain), -(-width // grain), channels)
    noise = noise.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]
    return np.clip(frame + noise * 255 * 10 ** (-decibel / 20), 0, 255).round().astype(np.uint8)


def smaller(frame: np.ndarray, part: float) -> np.ndarray:
    """A frame after a copy of `part` of its size."""
    height, width = frame.shape[:2]
    copy = PIL.Image.fromarray(frame).resize((round(width * part), round(height * part)), PIL.Image.Resampling.LANCZOS)
    return np.asarray(copy.resize((width, height), PIL.Image.Resampling.BICUBIC))


def measure(face: 'FaceIdentity', frames: np.ndarray, fps: float, others: list[np.ndarray], count: int) -> dict[str, float]:
    """Means over at most `count` frames of the end; what no face was found for is left out."""
    random = np.random.RandomState(0)
    second = round(fps)
    places = np.unique(np.linspace(round(len(frames) * (1 - HELD_OUT)), len(frames) - 1 - second, count).round().astype(int))
    changes: dict[str, Callable[[int], np.ndarray]] = {
        'next': lambda place: frames[place + 1],
        'second': lambda place: frames[place + second],
        'noise33': lambda place: noisy(frames[place], 33, 1, random),
        'noise27': lambda place: noisy(frames[place], 27, 1, random),
        'stains27': lambda place: noisy(frames[place], 27, 4, random),
        'three_quarters': lambda place: smaller(frames[place], 0.75),
        'half': lambda place: smaller(frames[place], 0.5),
    }
    found: dict[str, list[float | None]] = {
        name: [face(frames[place], change(place)) for place in places] for name, change in changes.items()
    }
    found['others'] = [face(frames[places[0]], other) for other in others]
    known = {name: [value for value in values if value is not None] for name, values in found.items()}
    return {name: float(np.mean(values)) for name, values in known.items() if values}


def table(results: Results) -> str:
    """Mean and range over the recordings, in Markdown."""
    lines = ['| compared with | recordings | mean | lowest | highest |', '|---|---|---|---|---|']
    for name in MEASURES:
        values = [row[name] for row in results.rows if name in row]
        if values:
            lines.append(f'| {name} | {len(values)} | {np.mean(values):.2f} | {min(values):.2f} | {max(values):.2f} |')
    return '\n'.join(lines)


# fmt: off
@command_line.command()
@click.option('--data',       help='Footage of faces', metavar='FOOTAGE')
@click.option('--resolution', help='Size of the frames', metavar='INT', type=command_line.POSITIVE_INT, default=64)
@click.option('--frames',     help='Frames of a recording', metavar='INT', type=command_line.POSITIVE_INT, default=12)
@click.option('--others',     help='Other recordings to compare with', metavar='INT', type=command_line.POSITIVE_INT, default=4)
@command_line.clear_errors
@with_results(table)
def main(opts: types.SimpleNamespace, results: Results) -> None:
    """Measure what the distance of faces is where a person does not change."""
    from training.embedding.face_identity import FaceIdentity
    from training.footage.clips import fit, open_footage

    if not opts.data:
        raise command_line.UserMistake('give --data, or --table')
    face, clips = FaceIdentity(), open_footage(opts.data)
    frames: list[Any] = [np.stack([fit(frame, opts.resolution) for frame in clip.frames()]) for clip in clips]
    for index, clip in enumerate(clips):
        key = {'clip': clip.name, 'resolution': opts.resolution}
        if not results.has(**key):
            others = [frames[(index + step) % len(frames)][0] for step in range(1, min(opts.others + 1, len(frames)))]
            results.add({**key, **measure(face, frames[index], clip.fps, others, opts.frames)})
# fmt: on


if __name__ == '__main__':
    main()
