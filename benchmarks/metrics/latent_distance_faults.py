"""What the latent Frechet distances say of faults that are known: the footage itself, changed in one way at a time.

    python -m benchmarks.metrics.latent_distance_faults --data=demo-output/latents.zip

Prints a table in Markdown, the one in docs/measuring/metric_guide.md.
"""

from collections.abc import Iterator

import click
import numpy as np

from plugins.latent_frechet_distance import LatentFrechetDistance
from training.commands import command_line
from training.latents.dataset import LatentDataset

WINDOW = 25


def windows_of(clips: list[np.ndarray], stride: int = 5) -> np.ndarray:
    """Windows [N, 25, num_ws, w_dim] of all clips."""
    return np.stack([clip[begin : begin + WINDOW] for clip in clips for begin in range(0, len(clip) - WINDOW + 1, stride)])


def faults(clips: list[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Name of each fault, and the windows that have it."""
    random = np.random.RandomState(0)
    frames = np.concatenate(clips)
    mean, spread = frames.mean(axis=0), frames.std(axis=0)
    windows = windows_of(clips)
    yield 'the footage itself', windows
    yield 'played backwards', windows[:, ::-1]
    yield (
        'half as fast',
        windows_of([np.stack([clip[:-1], (clip[:-1] + clip[1:]) / 2], axis=1).reshape(-1, *clip.shape[1:]) for clip in clips]),
    )
    yield 'twice as fast', windows_of([clip[start::2] for clip in clips for start in (0, 1)])
    yield 'frozen at its first frame', np.repeat(windows[:, :1], WINDOW, axis=1)
    yield 'frames in random order', windows[:, random.permutation(WINDOW)]
    yield 'less varied (truncation 0.7)', mean + 0.7 * (windows - mean)
    yield 'always the same tenth of the footage', windows[: max(len(windows) // 10, 70)]
    yield 'jitter of 0.1 standard deviations', windows + 0.1 * spread * random.randn(*windows.shape)
    yield 'another subject (offset of 1 standard deviation)', windows + spread * np.sign(random.randn(*spread.shape))


@command_line.command()
@click.option('--data', help='Latent data set', metavar='ZIP|DIR', required=True)
@command_line.clear_errors
def main(data: str) -> None:
    """Print a table of the distances for known faults."""
    dataset = LatentDataset(data)
    clips = [np.asarray(dataset.load_clip(index)) for index in range(len(dataset.clips))]
    real = LatentFrechetDistance(clips, window=WINDOW)
    print(f'{sum(map(len, clips))} frames, C = {real.protocol["components"]}, d = {real.protocol["dimension"]}\n')
    print('| generated windows | distance | motion distance |')
    print('|---|---|---|')
    for name, windows in faults(clips):
        results = real.compare_codes(np.ascontiguousarray(windows, dtype=np.float32))
        print(f'| {name} | {results["distance"]:.2f} | {results["motion_distance"]:.2f} |', flush=True)
    for key, name in (('floor', 'two halves of the footage (the floor)'), ('constant', 'standing still at the mean code')):
        print(f'| {name} | {results.get(key, float("nan")):.2f} | {results.get("motion_" + key, float("nan")):.2f} |')
    dataset.close()


if __name__ == '__main__':
    main()
