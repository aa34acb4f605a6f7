"""Largest memory of the process after few and after many clips, for scores of iterators.

    python -m benchmarks.metrics.score_memory --clips=64,1024

Clips of 16 frames come from an iterator, as a generator would make them. The FVD is that of a detector that costs nothing and
gives 400 numbers a clip, as I3D does, so what is seen is the memory of everything around the network. Printed, a line of JSON for
each score and number of clips: `peak_mib`, the largest memory so far, and `frames_mib`, what all frames of both sets take.
"""

import json
import resource
import sys
from collections.abc import Iterator

import click
import numpy as np
import torch

from stylevideogan import scores

MIB = 1 << 20
NUM_FRAMES = 16
DIMENSIONS = 400  # of I3D


class MeanColours(torch.nn.Module):
    """A detector: means of 400 places of a clip."""

    detector_name = 'i3d'
    num_features = DIMENSIONS
    smallest_num_frames = 10
    resize_rule = 'none'
    description = {'name': 'means', 'weights_sha256': ''}  # noqa: RUF012  a constant

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames uint8 [N, T, H, W, 3] -> [N, 1, 400]."""
        values = frames.flatten(1).float()
        return torch.nn.functional.adaptive_avg_pool1d(values[:, None], DIMENSIONS)


def clips(count: int, side: int, seed: int) -> Iterator[np.ndarray]:
    """Random clips uint8 [T, side, side, 3], made when they are asked for."""
    random = np.random.RandomState(seed)
    noise = random.randint(256, size=NUM_FRAMES * side * side * 3).astype(np.uint8)
    for _ in range(count):
        yield np.roll(noise, random.randint(len(noise))).reshape(NUM_FRAMES, side, side, 3)


def peak_mib() -> float:
    """Largest memory of this process so far."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (MIB if sys.platform == 'darwin' else 1024)


@click.command()
@click.option('--clips', 'numbers', help='Clips of each set, in turn', metavar='INT,...', default='64,1024')
@click.option('--side', help='Of the frames', metavar='INT', type=click.IntRange(16), default=256)
@click.option('--scores', 'names', help='Which scores', metavar='A,B,...', default='fvd,psnr')
def main(numbers: str, side: int, names: str) -> None:
    """Print the largest memory after scores of iterators of clips."""
    for count in map(int, numbers.split(',')):
        for name in names.split(','):
            sets = [clips(count, side, seed) for seed in range(2)]
            how = {'detector': [MeanColours()], 'bootstrap': 0} if name == 'fvd' else {}
            getattr(scores, name)(*sets, layout='THWC', device='cpu', **how)
            frames = 2 * count * NUM_FRAMES * side * side * 3
            line = {'score': name, 'clips': count, 'peak_mib': round(peak_mib(), 1), 'frames_mib': round(frames / MIB, 1)}
            print(json.dumps(line), flush=True)


if __name__ == '__main__':
    main()
