"""The Frechet video distance of this project beside that of a public implementation, on the same clips, in one run.

    git clone https://github.com/JunyaoHu/common_metrics_on_video_quality /tmp/foreign
    python -m benchmarks.metrics.fvd_agreement --foreign=/tmp/foreign --real=footage --fake=other --fps=25

Both networks have the same weights (those of this project, converted), so what differs is the protocol, and each step is
changed on its own: epsilon of the batch normalisation, resizing, the statistics. It also prints the distances between black
and white videos, which are published for the original TensorFlow network. Needs einops and scipy.
"""

import warnings
from typing import Any

import click
import numpy as np
import scipy.linalg
import torch

from benchmarks.metrics.i3d_throughput import load_foreign
from metrics.distances.frechet import frechet_distance, mean_and_covariance
from metrics.inputs.clip_choice import choose_clips
from networks.checkpoints.detector_weights import i3d_weights
from networks.checkpoints.detectors import load_i3d
from networks.feature_networks import i3d
from training.videos.recorded_videos import RecordedVideos

PUBLISHED = {10: 569.771, 15: 133.908, 16: 152.902, 21: 78.251, 22: 82.5375, 30: 151.3925}


def read_clips(path: str, fps: float | None, count: int, num_frames: int) -> torch.Tensor:
    """Clips uint8 [N, T, H, W, 3]."""
    with RecordedVideos(path, fps=fps) as videos:
        choice = choose_clips(videos.num_frames, count, num_frames, rule='auto')
        return torch.from_numpy(np.stack([videos.clip(video, start, num_frames) for video, start in choice.clips]))


def prepare_ours(clips: torch.Tensor) -> torch.Tensor:
    """[N, T, H, W, 3] uint8 -> [N, 3, T, 224, 224] in [-1, 1], as TensorFlow resizes."""
    return i3d.resize_frames(clips.permute(0, 4, 1, 2, 3).float()) / 127.5 - 1


def prepare_theirs(clips: torch.Tensor, functions: Any) -> torch.Tensor:
    """The same by the other program, from floating point in [0, 1]."""
    return functions.preprocess(clips.permute(0, 4, 1, 2, 3).float() / 255)


def features(network: Any, frames: torch.Tensor) -> np.ndarray:
    """[N, 400], one clip at a time."""
    return torch.cat([network(clip[None]) for clip in frames]).numpy()


def by_root(a: np.ndarray, b: np.ndarray) -> float:
    """StyleGAN-V's formula: covariances divided by N, scipy's matrix root of the product."""
    (mean_a, cov_a), (mean_b, cov_b) = (mean_and_covariance(x, ddof=0) for x in (a, b))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        root = scipy.linalg.sqrtm(cov_a @ cov_b)
    return float(np.real(np.square(mean_a - mean_b).sum() + np.trace(cov_a + cov_b - 2 * root)))


# fmt: off
@click.command()
@click.option('--foreign', help='Checkout of JunyaoHu/common_metrics_on_video_quality', metavar='DIR', required=True)
@click.option('--real', help='Videos', metavar='DIR')
@click.option('--fake', help='Other videos of the same size', metavar='DIR')
@click.option('--fps', help='Rate to bring them to', type=float)
@click.option('--clips', help='Clips of each set', default=16, show_default=True)
@click.option('--frames', help='Frames of a clip', default=10, show_default=True)
@click.option('--lengths', help='Lengths of black and white videos', default='10,15,16,21,22,30', show_default=True)
def main(foreign: str, real: str | None, fake: str | None, fps: float | None, clips: int, frames: int, lengths: str) -> None:
    """Compare the Frechet video distance with a public implementation, step by step."""
    detector = load_i3d()
    with torch.no_grad():
        exact, functions = load_foreign(foreign, epsilon=i3d_weights.BATCH_NORM_EPSILON)
        theirs, _ = load_foreign(foreign)
        print('black against white: frames, published, this project, other network with epsilon 1e-3, with its own 1e-5')
        for length in map(int, filter(None, lengths.split(','))):
            pair = torch.stack([torch.full([3, length, 224, 224], value) for value in (-1.0, 1.0)])
            values = [np.square(np.diff(features(network, pair).astype(np.float64), axis=0)).sum()
                      for network in (detector, exact, theirs)]
            print(f'{length:3d} {PUBLISHED.get(length, float("nan")):9.4f} ' + ' '.join(f'{value:9.4f}' for value in values),
                  flush=True)
        if real is None or fake is None:
            return
        sets = [read_clips(path, fps, clips, frames) for path in (real, fake)]
        ours, same, own = ([features(network, prepare(x)) for x in sets] for network, prepare in (
            (detector, prepare_ours), (exact, prepare_ours), (theirs, lambda x: prepare_theirs(x, functions))))
        resized = [features(detector, prepare_theirs(x, functions)) for x in sets]
        epsilon = [features(theirs, prepare_ours(x)) for x in sets]

    def distance(pair: list[np.ndarray]) -> float:
        return frechet_distance(*mean_and_covariance(pair[0]), *mean_and_covariance(pair[1]))

    difference = max(np.abs(a - b).max() for a, b in zip(ours, same, strict=True))
    print(f'{len(sets[0])} and {len(sets[1])} clips of {frames} frames; largest difference of features, same frames and epsilon: '
          f'{difference:.2g} of {np.abs(np.concatenate(ours)).max():.3g}')
    rows = [
        ('this project', distance(ours)), ('other network, epsilon 1e-3, all else as here', distance(same)),
        ('its epsilon 1e-5', distance(epsilon)), ('its resizing (half-pixel centres)', distance(resized)),
        ('its statistics (float32 singular values, N - 1)',
         functions.frechet_distance(*(torch.from_numpy(x.copy()) for x in ours))),
        ("StyleGAN-V's statistics (scipy root, N)", by_root(*ours)),
        ('the other program throughout', functions.frechet_distance(*(torch.from_numpy(x.copy()) for x in own))),
    ]
    for name, value in rows:
        print(f'{name:52s} {value:12.5f}  {value / rows[0][1] - 1:+.2e}')
# fmt: on


if __name__ == '__main__':
    main()
