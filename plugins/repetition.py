"""Metrics: how much of a long video shows what the same video shows at another time; freezing, looping, going back and forth.

repetition_latent_1000f   codes of 64 videos (16 of them where they are longer than 1000 frames)
repetition_1000f          pictures, of any two sets of videos

0: as often as real footage, 1: every moment is shown twice. docs/measuring/companion_metrics.md says how to read it.
Also for 200 and 4000 frames.

Repetition: which share of a video shows what the same video shows at another time as well.

Yushchenko, Araslanov and Roth ("Markov Decision Process for Video Generation", ICCV Workshops 2019) name two ways in which
generated video goes wrong beyond the length that was trained: freezing (the last frame stays) and looping (a subsequence comes
again and again). Both are recurrences, and are measured here by recurrence analysis (Eckmann, Kamphorst and Ruelle 1987; Marwan
et al., "Recurrence plots for the analysis of complex systems", Physics Reports 438, 2007), of windows in the place of states.

A video is a sequence y_0 .. y_{T-1} of points, one a frame: a code, or a small picture. A window is n neighbouring frames, and

    D(i, j)^2 = 1/n sum_k |y_{i+k} - y_{j+k}|^2            how far window j is from window i          k = 0 .. n-1
    B(i, j)^2 = 1/n sum_k |y_{i+k} - y_{j+n-1-k}|^2        and window j played backwards
    r_i = min over |i - j| >= n of min(D(i, j), B(i, j))   the closest return: as near as the video comes to its window i
                                                           again, at any lag without overlap

The share of windows that return within the tolerance e is S = mean of 1[r_i <= e]. Real footage returns, too: people hold still
and go back to where they were. So e comes from real footage: half of its median closest return, or less where more than a
tenth of the real windows return within that. The real share S_real at this tolerance is subtracted, on a scale up to 1:

    repetition = (S - S_real) / (1 - S_real)        0 = returns as often as real footage does, 1 = every moment is shown twice

It is 1 for a video that stands still, for a loop of any period up to half of the video, whole number of frames or not, with or
without noise below the tolerance, and for one that goes forwards and backwards. A loop of a longer period P shows 2 (T - P) of
its T frames twice, and gets that share. It can be a little below 0: a video that never comes back where real footage does.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from metrics.distances.bootstrap_interval import bootstrap_interval
from metrics.families import register_lengths
from metrics.inputs.code_inputs import CodeInputs
from metrics.inputs.frame_points import stretches
from metrics.inputs.picture_inputs import PictureInputs
from metrics.metric_utils import MetricOptions
from networks.errors import InputError

ROWS_AT_ONCE = 1024  # windows compared with all others at a time: memory grows with T, not with T^2
TOLERANCE = 0.5  # of the median closest return of real footage
MAX_REAL_SHARE = 0.1  # of the real windows may return within the tolerance
MIN_SEPARATE_WINDOWS = 8  # real windows side by side; below, neither tolerance nor share mean anything

# ----------------------------------------------------------------------------
# Distances of windows


def _sum_along_diagonals(matrix: torch.Tensor, window: int) -> torch.Tensor:
    """Matrix [R, S] -> [R - window + 1, S - window + 1]: sums of `window` entries down each diagonal, by doubling."""
    rows, columns = matrix.shape[0] - window + 1, matrix.shape[1] - window + 1
    total: torch.Tensor | None = None
    offset, length, power = 0, 1, matrix  # power[i, j] = sum of `length` entries from (i, j) on
    while True:
        if window & length:
            part = power[offset : offset + rows, offset : offset + columns]
            total = part.clone() if total is None else total.add_(part)
            offset += length
        if offset == window:
            assert total is not None
            return total
        power = power[:-length, :-length] + power[length:, length:]
        length *= 2


def window_distances(sequence: torch.Tensor, window: int, rows: range, backwards: bool = False) -> torch.Tensor:
    """Squared distances between windows of one sequence.

    Args:
        sequence: Points [T, C] float64.
        window: Frames of a window, n.
        rows: First frames of the windows i.
        backwards: Play the windows j backwards.

    Returns:
        D(i, j)^2, or B(i, j)^2, [len(rows), T - n + 1].
    """
    part = sequence[rows.start : rows.stop + window - 1]
    other = sequence.flip(0) if backwards else sequence
    squares = (part.square().sum(dim=1).unsqueeze(1) + other.square().sum(dim=1) - 2 * part @ other.t()).clamp_(min=0)
    sums = _sum_along_diagonals(squares, window) / window
    return sums.flip(1) if backwards else sums


def window_deviations(sequence: torch.Tensor, window: int) -> torch.Tensor:
    """How much every window [T - n + 1] moves: root mean square distance of its frames from their mean; `sequence` is [T, C]."""
    centred = sequence.double() - sequence.double().mean(dim=0)

    def means(values: torch.Tensor) -> torch.Tensor:
        sums = torch.nn.functional.pad(values.cumsum(dim=0), (0, 0, 1, 0))
        return (sums[window:] - sums[:-window]) / window

    squares = means(centred.square().sum(dim=1, keepdim=True)).squeeze(1)
    return (squares - means(centred).square().sum(dim=1)).clamp(min=0).sqrt()


@dataclasses.dataclass(frozen=True)
class Returns:
    """The closest returns of the N = T - n + 1 windows of one video; infinite where a window has no candidate.

    Attributes:
        forwards: min over |i - j| >= n of D(i, j), [N].
        backwards: The same of B(i, j), [N].
        earlier: The smaller of both over earlier windows only, j <= i - n, [N].
        lag_shares: Share of the windows i with D(i, i + lag) <= tolerance, for each lag, [N].
        lag_squares: Mean of D(i, i + lag)^2 for each lag, [N]; both are zero for lags below n.
    """

    forwards: np.ndarray
    backwards: np.ndarray
    earlier: np.ndarray
    lag_shares: np.ndarray
    lag_squares: np.ndarray

    @property
    def closest(self) -> np.ndarray:
        """r_i, [N]."""
        return np.minimum(self.forwards, self.backwards)

    def most_common_lag(self, window: int) -> tuple[int, float]:
        """The lag, up to half of the video, at which most windows return, and their share: a period, if it is near 1.

        A loop returns at all multiples of its period, and nearly so one frame earlier and later: taken is the first lag that
        has nine tenths of the greatest share, and then the closest one within a window from there.
        """
        shares = self.lag_shares[: len(self.lag_shares) // 2 + 1]
        first = int(np.argmax(shares >= 0.9 * shares.max()))
        if shares[first] == 0:
            return 0, 0.0
        lag = first + int(np.argmin(self.lag_squares[first : min(first + window, len(shares))]))
        return lag, float(shares[lag])


def find_returns(sequence: torch.Tensor, window: int, tolerance: float = 0.0) -> Returns:
    """Compare all windows of a sequence [T, C] with each other; T >= 2 n.

    Time and memory: T^2 (C + 2 log2 n) operations, and ROWS_AT_ONCE * T numbers.
    """
    count = len(sequence) - window + 1
    if count <= window:
        raise ValueError(f'{len(sequence)} frames have no two windows of {window} frames that do not overlap')
    sequence = sequence.double()
    sequence = sequence - sequence.mean(dim=0)  # distances stay, and cancel less
    counts, sums = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    closest: dict[str, list[torch.Tensor]] = {'forwards': [], 'backwards': [], 'earlier': []}
    columns = torch.arange(count)
    for begin in range(0, count, ROWS_AT_ONCE):
        rows = range(begin, min(begin + ROWS_AT_ONCE, count))
        lags = columns - torch.arange(rows.start, rows.stop).unsqueeze(1)
        overlapping = lags.abs() < window
        earlier = torch.full([len(rows)], torch.inf, dtype=torch.float64)
        for name, reverse in (('forwards', False), ('backwards', True)):
            squares = window_distances(sequence, window, rows, reverse).masked_fill_(overlapping, torch.inf)
            closest[name].append(squares.amin(dim=1))
            if not reverse:
                later = lags >= window
                counts += torch.bincount(lags[later & (squares <= tolerance**2)], minlength=count)
                sums += torch.bincount(lags[later], weights=squares[later], minlength=count)
            earlier = torch.minimum(earlier, squares.masked_fill_(lags > 0, torch.inf).amin(dim=1))
        closest['earlier'].append(earlier)
    arrays = {name: torch.cat(parts).sqrt().numpy() for name, parts in closest.items()}
    pairs = torch.arange(count, 0, -1)
    return Returns(**arrays, lag_shares=(counts / pairs).numpy(), lag_squares=(sums / pairs).numpy())


# ----------------------------------------------------------------------------
# The share


class Repetition:
    """The real side of the repetition: tolerance and share of returns of real footage; then any number of videos.

    Args:
        real: Sequences [T, C] of real footage, in the space of the videos to come. Clips of fewer than 3 n frames are left
            out and counted; longer ones than `num_frames` are cut, because chances to return grow with the length.
        num_frames: Length of the videos to come.
        window: Frames of a window, n.

    Attributes:
        tolerance: e, in the unit of the points.
        real_share: S_real.

    Raises:
        InputError: fewer than MIN_SEPARATE_WINDOWS real windows side by side, or footage in which nothing moves.
    """

    def __init__(self, real: Sequence[torch.Tensor], num_frames: int, window: int = 25) -> None:
        if num_frames < 4 * window:
            raise InputError(
                f'repetition in {num_frames} frames cannot be measured with windows of {window}: a video needs at '
                f'least {4 * window} frames'
            )
        long_enough = [sequence for sequence in real if len(sequence) >= 3 * window]
        usable = [stretch for sequence in long_enough for stretch in stretches(sequence, num_frames)]
        separate = sum(len(sequence) // window for sequence in long_enough)
        if separate < MIN_SEPARATE_WINDOWS:
            raise InputError(
                f'the real footage has {separate} windows of {window} frames side by side in clips of at least '
                f'{3 * window} frames, and repetition is measured against {MIN_SEPARATE_WINDOWS} at least; give '
                'more or longer clips'
            )
        closest = np.concatenate([find_returns(stretch, window).closest for stretch in usable])
        self.window, self.num_frames = window, num_frames
        self.tolerance = float(min(TOLERANCE * np.median(closest), np.quantile(closest, MAX_REAL_SHARE)))
        self.real_share = float((closest <= self.tolerance).mean())
        points = torch.cat(list(real)).double()
        self.spread = float((2 * points.var(dim=0).sum()).sqrt())
        # Frames that are the same but for rounding, all over the footage, leave no scale to measure by.
        if not self.tolerance > 1e-6 * self.spread or self.real_share > 2 * MAX_REAL_SHARE:
            raise InputError(
                'the real footage stands still or repeats itself exactly, so it does not say how often real '
                'video returns; give other footage'
            )
        self.protocol = {
            'window_frames': window,
            'real_windows': len(closest),
            'real_windows_side_by_side': separate,
            'real_clips_too_short': sum(len(sequence) < 3 * window for sequence in real),
            'real_longest_frames': max(map(len, usable)),
        }

    def measure(self, sequence: torch.Tensor) -> dict[str, float]:
        """One video [T, C]: its `repetition`, and what belongs to it (see `compare`).

        Raises:
            InputError: Points that are not finite.
        """
        if not torch.isfinite(sequence).all():
            raise InputError(
                'a video holds numbers that are not finite (NaN or infinity); this snapshot is broken, take an earlier one'
            )
        returns = find_returns(sequence, self.window, self.tolerance)
        share = float((returns.closest <= self.tolerance).mean())
        lag, lag_share = returns.most_common_lag(self.window)
        still = window_deviations(sequence, self.window)
        return {
            'repetition': (share - self.real_share) / (1 - self.real_share),
            'share': share,
            'forwards': float((returns.forwards <= self.tolerance).mean()),
            'backwards': float((returns.backwards <= self.tolerance).mean()),
            'still': float((still <= self.tolerance / 2).double().mean()),
            'new_frames': float((returns.earlier > self.tolerance).sum() + self.window - 1),
            'lag_frames': lag,
            'lag_share': lag_share,
        }

    def compare(self, videos: Iterable[torch.Tensor]) -> dict[str, float]:
        """Measure videos, sequences [T, C] each.

        Returns:
            `repetition`, the mean over videos, with `low` and `high` of its 95 % interval (bootstrap over videos); then
            means over videos of `share` S; of `forwards` and `backwards`, the shares that return as they were and played
            backwards; of `still`, the share of windows that stay within the tolerance of one picture; of `new_frames`, how
            many frames show something for the first time. `lag_frames` is the lag at which most windows return, up to half
            of the video, and `lag_share` how many return there (of the video that is the median in this): a period, if it
            is near 1. Then `real_share`, `tolerance`, the same in units of the distance of two random real frames
            (`tolerance_relative`), and the protocol.
        """
        results = [self.measure(video) for video in videos]
        values = np.array([result['repetition'] for result in results])
        low, high = bootstrap_interval(values)
        middle = sorted(results, key=lambda result: result['lag_share'])[len(results) // 2]
        means = {
            name: float(np.mean([result[name] for result in results]))
            for name in ('share', 'forwards', 'backwards', 'still', 'new_frames')
        }
        return {
            'repetition': float(values.mean()),
            'low': low,
            'high': high,
            **means,
            'lag_frames': middle['lag_frames'],
            'lag_share': middle['lag_share'],
            'real_share': self.real_share,
            'tolerance': self.tolerance,
            'tolerance_relative': self.tolerance / self.spread,
            'videos': len(results),
            'frames': self.num_frames,
            **self.protocol,
        }


# ----------------------------------------------------------------------------
# The metrics.

LENGTHS = (200, 1000, 4000)


def _latent(opts: MetricOptions, metric: str, num_frames: int) -> dict[str, float]:
    """Repetition of codes, 0 as real footage to 1."""
    inputs = CodeInputs(opts, metric)
    real = Repetition(inputs.points.real, num_frames)
    return inputs.results(real.compare(inputs.videos(num_frames)))


def _pictures(opts: MetricOptions, metric: str, num_frames: int) -> dict[str, float]:
    """Repetition of pictures, 0 as real footage to 1."""
    inputs = PictureInputs(opts, metric)
    real = Repetition(inputs.real(num_frames), num_frames)
    return inputs.results(real.compare(inputs.videos(num_frames)))


register_lengths('repetition_latent', LENGTHS, _latent, best='lower')
register_lengths('repetition', LENGTHS, _pictures, best='lower')
