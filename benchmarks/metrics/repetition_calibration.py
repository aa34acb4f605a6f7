"""What the repetition says of videos whose repetition is known, made of real codes.

    python -m benchmarks.metrics.repetition_calibration --data=demo-output/latents.zip

Prints the tables of docs/measuring/companion_metrics.md. The tolerance comes from a part of the footage, the videos of 1000
frames are made of the rest of it, so needed is a clip of 2000 frames at least.
"""

from collections.abc import Iterator

import click
import numpy as np
import torch

from metrics.inputs.frame_points import LatentPoints
from plugins.repetition import Repetition
from training.commands import command_line
from training.latents.dataset import LatentDataset

NUM_FRAMES = 1000


def at(sequence: torch.Tensor, positions: np.ndarray) -> torch.Tensor:
    """The sequence [T, C] at times between its frames, by linear interpolation."""
    before = np.minimum(np.floor(positions).astype(int), len(sequence) - 2)
    return torch.lerp(sequence[before], sequence[before + 1], torch.from_numpy(positions - before).unsqueeze(1))


def constructed(y: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and points [1000, C] of videos made of the real points `y`, at least 1001 of them."""
    time = np.arange(float(NUM_FRAMES))
    generator = torch.Generator().manual_seed(0)
    spread = y.std(dim=0)

    def noise() -> torch.Tensor:
        return spread * torch.randn(NUM_FRAMES, y.shape[1], generator=generator, dtype=torch.float64)

    yield 'stands still', y[60].expand(NUM_FRAMES, -1)
    yield 'stands still, noise of 0.1 standard deviations', y[60] + 0.1 * noise()
    for period in (10.0, 40.37, 99.5, 350.0):
        yield f'loop of {period:g} frames', at(y, time % period)
    for strength in (0.1, 0.2, 0.3):
        yield f'loop of 99.5 frames, noise of {strength:g}', at(y, time % 99.5) + strength * noise()
    yield 'to and fro, 200 frames each way', at(y, np.abs(time % 400 - 200))
    yield 'there and back once', at(y, np.abs(NUM_FRAMES / 2 - time))
    yield 'loop of 700 frames', at(y, time % 700)
    yield 'stands still from the middle on', at(y, np.minimum(time, NUM_FRAMES / 2))
    yield 'real', y[:NUM_FRAMES]
    yield (
        'random walk',
        torch.diff(y, dim=0).std(dim=0)
        * torch.randn(NUM_FRAMES, y.shape[1], generator=generator, dtype=torch.float64).cumsum(dim=0),
    )
    yield 'noise', y.mean(dim=0) + noise()


@command_line.command()
@click.option('--data', help='Latent data set', metavar='ZIP|DIR', required=True)
@command_line.clear_errors
def main(data: str) -> None:
    """Measure videos of known repetition."""
    torch.set_num_threads(1)
    with LatentDataset(data) as dataset:
        clip = max((np.asarray(dataset.load_clip(index)) for index in range(len(dataset.clips))), key=len)
    if len(clip) < 2 * NUM_FRAMES + 1:
        raise command_line.UserMistake(f'the longest clip of {data} has {len(clip)} frames, and {2 * NUM_FRAMES + 1} are needed')
    points = LatentPoints([clip[: -NUM_FRAMES - 1]])
    real = Repetition(points.real, NUM_FRAMES)
    print(f'tolerance {real.tolerance:.3f} of the distance of two random frames, real share {real.real_share:.3f}\n')
    keys = ('repetition', 'forwards', 'backwards', 'still', 'new_frames', 'lag_frames', 'lag_share')
    print('| video of 1000 frames | ' + ' | '.join(key.replace('_', ' ') for key in keys) + ' |')
    print('|---' * (len(keys) + 1) + '|')
    for name, video in constructed(points.project(clip[-NUM_FRAMES - 1 :])):
        found = real.measure(video)
        cells = (f'{found[key]:.0f}' if key.endswith('frames') else f'{found[key]:.2f}' for key in keys)
        print(f'| {name} | ' + ' | '.join(cells) + ' |', flush=True)

    print('\n| real footage for the tolerance | real videos of 1000 frames: mean | lowest to highest |\n|---|---|---|')
    for length in (200, 400, 800, 1600):
        values = []
        for begin in range(0, len(clip) - length - NUM_FRAMES + 1, 500):
            points = LatentPoints([clip[begin : begin + length]])
            rest = np.concatenate([clip[begin + length :], clip[:begin]])  # the seam between the two is one window of many
            videos = points.project(rest[:NUM_FRAMES])
            values.append(Repetition(points.real, NUM_FRAMES).measure(videos)['repetition'])
        print(f'| {length} frames | {np.mean(values):.3f} | {min(values):.3f} to {max(values):.3f} |', flush=True)


if __name__ == '__main__':
    main()
