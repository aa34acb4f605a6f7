"""Metrics: the spectrum of the motion beside that of real footage, in decibels; speed, acceleration, frames that stand still.

motion_latent_200f   codes of 64 videos
motion_200f          pictures, of any two sets of videos

0: the same. docs/measuring/companion_metrics.md says how to read it. Also for 1000 frames.

Motion statistics: is it as fast, as smooth and as lively as real footage, frequency by frequency?

The velocity v_k = y_{k+1} - y_k of the points of frames has a power spectrum, estimated by Welch's method (1967): segments of 64
frames, half overlapping, their mean taken off, Hann window, squared magnitudes of the Fourier transform, averaged over segments
and videos and summed over coordinates, P(f) for f = 1 .. 32 cycles in 64 frames. The value is the log-spectral distance

    motion = sqrt( mean over f of (10 log10 ((P_fake(f) + delta) / (P_real(f) + delta)))^2 )        in decibels

with delta = 1e-4 of the mean of P_real, so that a frozen video gets a number (`constant`). 0 is equal; 3 dB is a factor of two in
power. A spectrum does not know the direction of time: video played backwards has the same.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from metrics.distances.bootstrap_interval import bootstrap_interval
from metrics.families import register_lengths
from metrics.inputs.code_inputs import CodeInputs
from metrics.inputs.picture_inputs import PictureInputs
from metrics.metric_utils import MetricOptions
from networks.errors import InputError

SEGMENT = 64
FLOOR = 1e-4  # delta, of the mean power of the real footage
STILL = 0.1  # of the median real speed: slower frames count as standing still
BANDS = ((0.0, 1.0), (1.0, 3.0), (3.0, 6.0), (6.0, float('inf')))  # Hz
MIN_SEGMENTS = 4


def velocity_spectrum(sequence: torch.Tensor, unit: torch.Tensor | float = 1.0) -> tuple[np.ndarray, int]:
    """P(f) of one sequence [T, C], f = 1 .. 32 cycles in 64 frames, and the number of segments; T > 64.

    `unit` [C] or a number divides the coordinates.
    """
    velocity = torch.diff(sequence.double(), dim=0) / unit
    segments = velocity.unfold(0, SEGMENT, SEGMENT // 2)  # [S, C, 64]
    window = torch.hann_window(SEGMENT, periodic=True, dtype=torch.float64)
    spectrum = torch.fft.rfft((segments - segments.mean(dim=2, keepdim=True)) * window, dim=2)
    power = spectrum.abs().square().sum(dim=1) / window.square().sum()  # [S, 33]
    return power.mean(dim=0)[1:].numpy(), len(segments)


def log_spectral_distance(fake: np.ndarray, real: np.ndarray) -> float:
    """The distance of two spectra [F] in decibels, as at the head of this file; `real` sets delta."""
    floor = FLOOR * real.mean()
    return float(np.sqrt(np.square(10 * np.log10((fake + floor) / (real + floor))).mean()))


def speeds(sequence: torch.Tensor, unit: torch.Tensor | float = 1.0, order: int = 1) -> np.ndarray:
    """|y_{k+1} - y_k| of a sequence [T, C] for order 1, the length of the second difference for order 2."""
    return (torch.diff(sequence.double(), n=order, dim=0) / unit).norm(dim=1).numpy()


def rms(values: np.ndarray) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.square(values).mean()))


class MotionStatistics:
    """The real side: spectrum, speed, acceleration; then any number of videos.

    Args:
        real: Points [T, C] of real clips; those of 64 frames or fewer are left out and counted.
        fps: Frames per second, for the bands in Hz.
        scaled: Give every coordinate unit velocity in the real footage, as for codes, where a small component may be the
            mouth; not for pictures, where a point that never moves shows nothing but noise.

    Raises:
        InputError: fewer than MIN_SEGMENTS segments of real footage, or nothing moves in it.
    """

    def __init__(self, real: Sequence[torch.Tensor], fps: float, scaled: bool) -> None:
        usable = [sequence for sequence in real if len(sequence) > SEGMENT]
        steps = torch.cat([torch.diff(sequence.double(), dim=0) for sequence in usable]) if usable else torch.zeros(0, 1)
        if not bool(steps.any()):
            raise InputError(f'the real footage has no motion in clips of more than {SEGMENT} frames; give longer clips')
        largest = float(steps.square().mean(dim=0).max().sqrt())
        self.unit = steps.square().mean(dim=0).sqrt().clamp(min=1e-3 * largest) if scaled else torch.ones(())
        self.fps = fps
        parts = [velocity_spectrum(sequence, self.unit) for sequence in usable]
        self.num_segments = sum(count for _, count in parts)
        if self.num_segments < MIN_SEGMENTS:
            raise InputError(
                f'the real footage has {self.num_segments} segments of {SEGMENT} frames, and a spectrum takes '
                f'{MIN_SEGMENTS} at least; give more or longer clips'
            )
        self.spectrum = np.average([power for power, _ in parts], axis=0, weights=[count for _, count in parts])
        self.speeds = np.concatenate([speeds(sequence, self.unit) for sequence in usable])
        self.acceleration = rms(np.concatenate([speeds(sequence, self.unit, order=2) for sequence in usable]))
        self.still_below = STILL * float(np.median(self.speeds))
        self.floor = self._between_halves(usable)
        self.short = len(real) - len(usable)

    def _between_halves(self, sequences: Sequence[torch.Tensor]) -> float | None:
        """The distance between two halves of the footage, dealt out in blocks of two segments."""
        length = 2 * SEGMENT + 1
        blocks = [sequence[begin : begin + length] for sequence in sequences for begin in range(0, len(sequence), length)]
        spectra = [velocity_spectrum(block, self.unit)[0] for block in blocks if len(block) > SEGMENT]
        if len(spectra) < 2:
            return None
        return log_spectral_distance(np.mean(spectra[0::2], axis=0), np.mean(spectra[1::2], axis=0))

    def compare(self, videos: Iterable[torch.Tensor]) -> dict[str, float]:
        """Measure videos, points [T, C] each, T > 64.

        Returns:
            `motion` in decibels with `low` and `high` of its 95 % interval (bootstrap over videos); `floor`, the distance between
            two halves of the real footage (absent where it is too short), and `constant`, what a frozen video gets; `speed` and
            `acceleration`, ratios of root mean squares; `still` and `real_still`, shares of frames slower than a tenth of the
            median real speed; `power_A_to_B_hz`, ratios of power in bands; the protocol.

        Raises:
            InputError: Points that are not finite.
        """
        spectra, fast, accelerations = [], [], []
        for video in videos:
            if not torch.isfinite(video).all():
                raise InputError(
                    'a video holds numbers that are not finite (NaN or infinity); this snapshot is broken, take an earlier one'
                )
            spectra.append(velocity_spectrum(video, self.unit)[0])
            fast.append(speeds(video, self.unit))
            accelerations.append(speeds(video, self.unit, order=2))
        stacked = np.stack(spectra)
        spectrum = stacked.mean(axis=0)
        low, high = bootstrap_interval(stacked, lambda rows: log_spectral_distance(rows.mean(axis=0), self.spectrum))
        all_speeds = np.concatenate(fast)
        return {
            'motion': log_spectral_distance(spectrum, self.spectrum),
            'low': low,
            'high': high,
            **({} if self.floor is None else {'floor': self.floor}),
            'constant': log_spectral_distance(np.zeros_like(self.spectrum), self.spectrum),
            'speed': rms(all_speeds) / rms(self.speeds),
            'acceleration': rms(np.concatenate(accelerations)) / self.acceleration,
            'still': float((all_speeds < self.still_below).mean()),
            'real_still': float((self.speeds < self.still_below).mean()),
            **self._bands(spectrum),
            'videos': len(spectra),
            'fps': self.fps,
            'segment_frames': SEGMENT,
            'real_segments': self.num_segments,
            'real_clips_too_short': self.short,
        }

    def _bands(self, spectrum: np.ndarray) -> dict[str, float]:
        frequencies = np.arange(1, len(spectrum) + 1) * self.fps / SEGMENT
        found = {}
        for begin, end in BANDS:
            inside = (frequencies > begin) & (frequencies <= end)
            if inside.any():
                upper = 'up' if np.isinf(end) else f'to_{end:g}_hz'
                found[f'power_{begin:g}_{upper}'] = float(spectrum[inside].sum() / max(self.spectrum[inside].sum(), 1e-300))
        return found


# ----------------------------------------------------------------------------
# The metrics.

LENGTHS = (200, 1000)


def _latent(opts: MetricOptions, metric: str, num_frames: int) -> dict[str, float]:
    """Log-spectral distance of the motion of codes, in decibels."""
    inputs = CodeInputs(opts, metric)
    real = MotionStatistics(inputs.points.real_coordinates, inputs.fps, scaled=True)
    return inputs.results(real.compare(inputs.coordinates(num_frames)))


def _pictures(opts: MetricOptions, metric: str, num_frames: int) -> dict[str, float]:
    """Log-spectral distance of the motion of pictures, in decibels."""
    inputs = PictureInputs(opts, metric)
    real = MotionStatistics(inputs.real(num_frames), inputs.fps, scaled=False)
    return inputs.results(real.compare(inputs.videos(num_frames)))


register_lengths('motion_latent', LENGTHS, _latent, best='lower')
register_lengths('motion', LENGTHS, _pictures, best='lower')
