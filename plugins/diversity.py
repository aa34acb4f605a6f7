"""Metrics: do videos of different seeds differ from each other as moments of real footage do?

diversity_latent_200f   codes of 64 videos, at their first, middle and last second
diversity_200f          pictures, of any two sets of videos

1: as real footage; near 0: all the same. docs/measuring/companion_metrics.md says how to read it.
Also for 1000 frames.

Diversity: do videos of different seeds differ from each other as moments of real footage do?

Windows of n frames, one of each video at one time, are compared with windows of real footage that lie side by side. The value
is a ratio of Vendi scores (Friedman and Dieng, "The Vendi Score", TMLR 2023), the effective number of different items among m:

    K_ij = exp(-|x_i - x_j|^2 / (2 sigma^2))
    Vendi = exp(-sum_k lambda_k log lambda_k)     lambda_k: the eigenvalues of K / m
    diversity = Vendi_fake / Vendi_real           1 = as real footage, 1 / Vendi_real = all videos are the same

It is m for items that have nothing in common and 1 for equal ones. sigma is half of the median distance of real windows. A Vendi
score depends on m, so both sides are averages over groups of the same size m.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from metrics.distances.bootstrap_interval import bootstrap_interval
from metrics.families import register_lengths
from metrics.inputs.code_inputs import CodeInputs
from metrics.inputs.picture_inputs import PictureInputs
from metrics.metric_utils import MetricOptions
from networks.errors import InputError

MIN_WINDOWS = 8  # of real footage
MIN_VIDEOS = 4
MAX_GROUP = 32
BANDWIDTH = 0.5  # of the median distance of real windows


def vendi_score(kernel: np.ndarray) -> float:
    """Effective number of different items, 1 to m, of a kernel [m, m] with ones on its diagonal."""
    values = np.linalg.eigvalsh(np.asarray(kernel, dtype=np.float64) / len(kernel))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def square_distances(windows: torch.Tensor) -> np.ndarray:
    """Windows [m, n, C] -> mean over frames of the squared distance of each two, [m, m]."""
    flat = windows.double().flatten(1)
    flat = flat - flat.mean(dim=0)
    squares = flat.square().sum(dim=1)
    found = (squares.unsqueeze(1) + squares - 2 * flat @ flat.t()).clamp(min=0) / windows.shape[1]
    return found.fill_diagonal_(0).numpy()


class Diversity:
    """The real side: spread and Vendi score of real windows; then the videos of any number of seeds.

    Args:
        real: Points [T, C] of real clips; clips shorter than a window are left out and counted.
        num_videos: How many videos there will be.
        window: Frames of a window, n.

    Raises:
        InputError: fewer than MIN_WINDOWS real windows side by side or MIN_VIDEOS videos, or real footage that stands still.
    """

    def __init__(self, real: Sequence[torch.Tensor], num_videos: int, window: int = 25) -> None:
        windows = [
            sequence[begin : begin + window] for sequence in real for begin in range(0, len(sequence) - window + 1, window)
        ]
        if len(windows) < MIN_WINDOWS or num_videos < MIN_VIDEOS:
            raise InputError(
                f'diversity compares {num_videos} videos with {len(windows)} real windows of {window} frames side '
                f'by side, and needs {MIN_VIDEOS} videos and {MIN_WINDOWS} windows at least; give more'
            )
        self.window, self.num_videos = window, num_videos
        self.group = min(MAX_GROUP, len(windows) // 2, num_videos // 2)
        squares = square_distances(torch.stack(windows))
        pairs = squares[np.triu_indices(len(windows), 1)]
        self.sigma = BANDWIDTH * float(np.sqrt(np.median(pairs)))
        if not self.sigma > 0:
            raise InputError('most windows of the real footage are the same, so diversity has no unit; give other footage')
        self.real_distance = float(np.sqrt(pairs.mean()))
        self.real_vendi = float(np.mean(self._scores(squares)))
        self.protocol = {
            'videos': num_videos,
            'window_frames': window,
            'group': self.group,
            'real_windows': len(windows),
            'real_clips_too_short': sum(len(sequence) < window for sequence in real),
        }

    def _scores(self, squares: np.ndarray) -> list[float]:
        """Vendi scores of groups of items that lie evenly spread, as many as there are without overlap."""
        kernel = np.exp(-squares / (2 * self.sigma**2))
        count = len(squares) // self.group
        return [
            vendi_score(kernel[np.ix_(chosen, chosen)])
            for chosen in (np.arange(first, first + count * self.group, count) for first in range(count))
        ]

    def compare(self, windows_by_time: Iterable[torch.Tensor]) -> dict[str, float]:
        """Measure videos at one or several times.

        Args:
            windows_by_time: For each time, the windows [num_videos, n, C] of all videos at that time.

        Returns:
            `diversity`, the mean over times, with `low` and `high` of its 95 % interval (bootstrap over groups of videos);
            `vendi` and `real_vendi`; `distance`, the root mean square distance of two videos at the same time, as a ratio to
            that of two real windows; `distance_first` and `distance_last`, the same at the first and the last of the times;
            the protocol.

        Raises:
            InputError: Points that are not finite.
        """
        scores, distances = [], []
        for windows in windows_by_time:
            if not torch.isfinite(windows).all():
                raise InputError(
                    'a video holds numbers that are not finite (NaN or infinity); this snapshot is broken, take an earlier one'
                )
            squares = square_distances(windows)
            scores.append(self._scores(squares))
            distances.append(squares.sum() / (len(squares) * (len(squares) - 1)))
        ratios = np.mean(scores, axis=0) / self.real_vendi  # one number a group: the same videos at all times
        low, high = bootstrap_interval(ratios)
        relative = np.sqrt(np.array(distances)) / self.real_distance
        return {
            'diversity': float(ratios.mean()),
            'low': low,
            'high': high,
            'vendi': float(np.mean(scores)),
            'real_vendi': self.real_vendi,
            'distance': float(np.sqrt(np.mean(distances)) / self.real_distance),
            'distance_first': float(relative[0]),
            'distance_last': float(relative[-1]),
            'times': len(distances),
            **self.protocol,
        }


# ----------------------------------------------------------------------------
# The metrics.

LENGTHS = (200, 1000)
WINDOW = 25


def _windows(videos: Sequence[torch.Tensor], num_frames: int) -> Iterator[torch.Tensor]:
    """Windows [N, 25, C] of all videos at their beginning, in the middle and at the end."""
    for start in (0, (num_frames - WINDOW) // 2, num_frames - WINDOW):
        yield torch.stack([video[start : start + WINDOW] for video in videos])


def _latent(opts: MetricOptions, metric: str, num_frames: int) -> dict[str, float]:
    """Diversity of the codes of different seeds, 1 as real footage."""
    inputs = CodeInputs(opts, metric)
    videos = list(inputs.videos(num_frames))
    real = Diversity(inputs.points.real, len(videos), WINDOW)
    return inputs.results(real.compare(_windows(videos, num_frames)))


def _pictures(opts: MetricOptions, metric: str, num_frames: int) -> dict[str, float]:
    """Diversity of the pictures of different videos, 1 as real footage."""
    inputs = PictureInputs(opts, metric)
    inputs.require(num_frames, MIN_VIDEOS)
    real, videos = inputs.real(num_frames), inputs.videos(num_frames)
    return inputs.results(Diversity(real, len(videos), WINDOW).compare(_windows(videos, num_frames)))


register_lengths('diversity_latent', LENGTHS, _latent, best=1.0)
register_lengths('diversity', LENGTHS, _pictures, best=1.0)
