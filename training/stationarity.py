"""Videos far from their beginning: how long a fresh one takes to forget it, and what its frames are like from then on.

The generator is a Markov chain on its memories. A video that begins at i ~ N(0, 1) is not yet what it becomes: the memories that
H(i) and i itself fill have another distribution than those that the recurrence makes, and slow units take hundreds of frames to
forget them. From some frame on the distribution of frames no longer changes. That frame is the **burn-in** of a model; generation
leaves out what comes before it, unless it is asked for.

Averages of training move the weights, and so the distribution that the frames end up with, by a little that nothing in the
training corrects. `calibrate` does: an affine map of the coordinates, folded into the last affine maps A_j, gives the frames far
into videos the mean and the covariance of the footage, as the paper's A_j could have learned to.

Videos of a few trainings do not settle: they wander off over thousands of frames. `wandering` sees that, and
training/kept_averages.py takes an earlier moving average then.

`calibrate` can do the same for what lies between frames, by a filter (networks.latent_generator.FilteredLatentGenerator). Means
over all windows of `PERIOD` frames of their periodogram,

    S(f) = E[Y(f) Y(f)^H] / PERIOD,      Y(f) = sum_k (y_k - m) exp(-2 pi i f k),

say how much of every motion there is at every frequency, and how coordinates move together. With S of the footage and S' of
generated windows, the filter of time with the response

    H(f) = S'(f)^(-1/2) (S'(f)^(1/2) S(f) S'(f)^(1/2))^(1/2) S'(f)^(-1/2)

gives generated videos the spectrum of the footage and, of all linear filters that do, it changes them least: at every frequency
it is the optimal transport between two Gaussians. It adds what a linear autoregression knows of the footage, and leaves to the
generator what that cannot know.

Both stretch what is rare as well: of seconds of footage one frame in a hundred lies farther from the mean code than any real one,
up to three times as far, where an image generator draws no face. `bound_to` pulls such frames back.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from networks.latent_generator import EventLatentGenerator, FilteredLatentGenerator, LatentGenerator
from training.events.sizes import find_channels, fit_event_sizes
from training.kernels.recurrence.fast_rollout import rollout

NUM_VIDEOS = 512
LONGEST_BURN_IN = 2000  # frames; a model that takes longer is told so
REFERENCE_FRAMES = 1000  # frames after that, which say what the distribution ends up as
OLD = 10000  # frames until which `wandering` follows videos
NUM_OLD_VIDEOS = 256
STRETCH = 1000  # frames that it takes together
BLOCK = 25  # frames that are looked at together
EVERY = 5  # frame of them
PERIOD = BLOCK  # frames of a periodogram
FREQUENCIES = 64  # from 0 to twice the highest, in all
FILTER_SIZE = 33  # frames, half of them before and half after the one in the middle
MOST_FILTERED = 64  # coordinates; a filter of more is slow and has more numbers than footage can tell
WINDOWS_AT_ONCE = 1024
LARGEST_CORRECTION = 3.0  # factor by which a deviation is corrected at most
MOST_COORDINATES = 512  # whose covariance is taken; of more (whole codes), the variances
STOPPED = 1e-6  # of the largest variance; what moves less is left alone
SETTLED = 0.01  # squared distance to the end, as a share of the variance; less than a third of it is the noise of the measurement
MARGIN = 2  # what decays to SETTLED in n frames is down to its square in twice as many


@dataclasses.dataclass(frozen=True)
class LongRun:
    """Moments of the coordinates of generated frames, by age.

    Attributes:
        means, deviations: Of the blocks of `BLOCK` frames up to LONGEST_BURN_IN, [blocks, K].
        mean, deviation: Of the frames after that, [K].
        covariance: Of the same frames, [K, K]; None where there are more than MOST_COORDINATES.
        spectrum: Of the same frames, see `mean_periodogram`; None where there are more than MOST_FILTERED.
    """

    means: torch.Tensor
    deviations: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor
    covariance: torch.Tensor | None
    spectrum: torch.Tensor | None = None

    @property
    def unsettled(self) -> torch.Tensor:
        """Squared distance of every block to the end, [blocks]:  sum_c (m_c - m*_c)^2 + (s_c - s*_c)^2  over  sum_c s*_c^2."""
        squares = (self.means - self.mean).square() + (self.deviations - self.deviation).square()
        return squares.sum(dim=1) / self.deviation.square().sum().clamp(min=1e-12)

    @property
    def burn_in(self) -> int:
        """MARGIN times the frames after which no block is further than SETTLED from the end, LONGEST_BURN_IN at most."""
        late = (self.unsettled > SETTLED).nonzero()
        return 0 if len(late) == 0 else min(MARGIN * int(late[-1] + 1) * BLOCK, LONGEST_BURN_IN)

    @property
    def settles(self) -> bool:
        """Whether the burn-in was seen to end."""
        return bool(self.unsettled[-1] <= SETTLED)


@torch.no_grad()
def observe(G: LatentGenerator, *, seed: int = 0, num_videos: int = NUM_VIDEOS, deadline: float | None = None) -> LongRun:
    """Let `num_videos` videos run from fresh i for LONGEST_BURN_IN + REFERENCE_FRAMES frames, and take their moments.

    Memory does not grow with the frames. The same seed gives the same numbers on one device.

    Raises:
        TimeoutError: It is later than `deadline`, a time of `time.monotonic`.
    """
    device = next(G.parameters()).device
    random = torch.Generator(device).manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, device=device)

    state = G.initial_state(noise(num_videos, G.latent_dim))
    blocks, products, windows = [], [], []
    first, last = LONGEST_BURN_IN // BLOCK, (LONGEST_BURN_IN + REFERENCE_FRAMES) // BLOCK
    for block in range(last):
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        l, states = rollout(G, noise(num_videos, BLOCK, G.noise_dim), state)
        state = tuple(h.clone() for h in states[BLOCK])
        late = block >= first
        window = G.coordinates(l[:, :BLOCK] if late else l[:, :BLOCK:EVERY])
        y = (window[:, ::EVERY] if late else window).flatten(0, 1).double()
        blocks.append((y.mean(dim=0), y.square().mean(dim=0)))
        if late and y.shape[1] <= MOST_COORDINATES:
            products.append(y.T @ y / len(y))
        if late and y.shape[1] <= MOST_FILTERED:
            windows.append(window)
    means, squares = (torch.stack(column) for column in zip(*blocks, strict=True))

    def deviation(mean: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
        return (square - mean.square()).clamp(min=0).sqrt()

    mean, square = means[first:].mean(dim=0), squares[first:].mean(dim=0)
    covariance = torch.stack(products).mean(dim=0) - torch.outer(mean, mean) if products else None
    spectrum = mean_periodogram(windows, mean) if windows else None
    return LongRun(means[:first], deviation(means[:first], squares[:first]), mean, deviation(mean, square), covariance, spectrum)


@torch.no_grad()
def wandering(G: LatentGenerator, *, seed: int = 0, num_videos: int = NUM_OLD_VIDEOS, deadline: float | None = None) -> float:
    """How far the frames of old videos are from those just after the longest burn-in, as a share of the variance.

    The largest of `LongRun.unsettled`'s squared distances between the frames from LONGEST_BURN_IN to LONGEST_BURN_IN + STRETCH
    and those of every later stretch up to frame OLD; more than SETTLED means that videos do not stay as they are. The same seed
    gives the same number on one device.

    Raises:
        TimeoutError: It is later than `deadline`, a time of `time.monotonic`.
    """
    device = next(G.parameters()).device
    random = torch.Generator(device).manual_seed(seed)
    state = G.initial_state(torch.randn(num_videos, G.latent_dim, generator=random, device=device))
    means, squares = [], []
    for _ in range(OLD // BLOCK):
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        l, states = rollout(G, torch.randn(num_videos, BLOCK, G.noise_dim, generator=random, device=device), state)
        state = tuple(h.clone() for h in states[BLOCK])
        y = G.coordinates(l[:, :BLOCK:EVERY]).flatten(0, 1).double()
        means.append(y.mean(dim=0))
        squares.append(y.square().mean(dim=0))
    size = STRETCH // BLOCK
    mean, square = (torch.stack(column).unflatten(0, (-1, size)).mean(dim=1) for column in (means, squares))
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    first = LONGEST_BURN_IN // STRETCH
    run = LongRun(mean[first + 1 :], deviation[first + 1 :], mean[first], deviation[first], None)
    return float(run.unsettled.max())


def mean_periodogram(windows: Iterable[torch.Tensor], mean: torch.Tensor) -> torch.Tensor:
    """S(f) of windows [N, PERIOD, K] with this mean [K], 0 to half a cycle a frame: [FREQUENCIES / 2 + 1, K, K] complex128."""
    total, count = torch.zeros([]), 0
    for group in windows:
        for part in group.split(WINDOWS_AT_ONCE):
            y = torch.fft.rfft(part.double() - mean, n=FREQUENCIES, dim=1).transpose(0, 1)  # [frequencies, N, K]
            total = total + y.mT @ y.conj()
            count += len(part)
    return total / (PERIOD * count)


def finish(
    G: LatentGenerator,
    sizes: Mapping[str, Any],
    run: LongRun | None,
    clips: Sequence[torch.Tensor],
    *,
    calibrated: bool = True,
    filtered: bool = True,
    shaped: bool = True,
    bounded: bool = True,
) -> LatentGenerator:
    """A copy of G as users get it: with its burn-in, calibrated, and behind a filter where one can be fitted.

    Args:
        G: Latent generator of a training.
        sizes: Constructor arguments of G.
        run: What was observed of it; None: a video starts at its beginning, and nothing is calibrated.
        clips: Coordinates of the real clips, each [T, K].
        calibrated: Whether to calibrate.
        filtered: Whether to filter as well.
        shaped: Whether to give events the sizes of the footage's, where it has any; only behind a filter.
        bounded: Whether to pull frames back that lie far outside of the footage; only behind a filter.
    """
    device = next(G.parameters()).device
    burn_in = 0 if run is None else run.burn_in
    enough = run is not None and run.spectrum is not None and any(len(clip) >= PERIOD for clip in clips)
    channels = find_channels(clips) if shaped else []
    finished: LatentGenerator
    with torch.random.fork_rng(devices=[]):
        if calibrated and filtered and enough and G.num_components > 0:
            filtering = {'filter_size': FILTER_SIZE, 'bounded': bounded, **sizes}
            if channels:
                burn_in = max(burn_in, FILTER_SIZE - 1 + 2 * EventLatentGenerator.DELAY)
                finished = EventLatentGenerator(num_channels=len(channels), burn_in=burn_in, **filtering)
            else:
                finished = FilteredLatentGenerator(burn_in=max(burn_in, FILTER_SIZE - 1), **filtering)
        else:
            finished = LatentGenerator(burn_in=burn_in, **sizes)
    finished.load_state_dict(G.state_dict(), strict=False)  # all but the filter
    finished.to(device)
    if run is not None and calibrated:
        calibrate(finished, run, clips)
        if isinstance(finished, FilteredLatentGenerator) and bounded:
            bound_to(finished, clips)
        if isinstance(finished, EventLatentGenerator):
            fit_event_sizes(finished, channels)
    return finished.requires_grad_(False).eval()


@torch.no_grad()
def calibrate(G: LatentGenerator, run: LongRun, clips: Sequence[torch.Tensor]) -> None:
    """Give the frames of G far into videos the mean and the covariance of the real frames; a filter, if it has one, is fitted.

    Of more than MOST_COORDINATES coordinates, such as whole codes, the mean and the variance of each.

    Args:
        G: Latent generator; its maps A_j change, and the filter of a `FilteredLatentGenerator`.
        run: What was observed of it, without the filter.
        clips: Coordinates of the real clips, each [T, K].
    """
    real = torch.cat(list(clips)).double()
    mean = real.mean(dim=0)
    wanted = real - mean
    weight, bias = G.A.weight.double(), G.A.bias.double()
    if run.covariance is None:
        scale = wanted.square().mean(dim=0).sqrt() / run.deviation.clamp(min=1e-6)
        scale = torch.where((scale > 1 / LARGEST_CORRECTION) & (scale < LARGEST_CORRECTION), scale, 1.0)
        weight, bias = weight * scale.unsqueeze(1), (bias - run.mean) * scale
    else:
        change = _map_of_covariances(run.covariance, wanted.T @ wanted / len(wanted))
        weight, bias = change @ weight, change @ (bias - run.mean)
        if isinstance(G, FilteredLatentGenerator) and run.spectrum is not None:
            complex_change = change.to(run.spectrum.dtype)
            taps = filter_between(complex_change @ run.spectrum @ complex_change.T, _spectrum_of_clips(clips, mean))
            G.set_filter(taps, mean - taps.sum(dim=0) @ mean)
    G.A.weight.copy_(weight.to(G.A.weight.dtype))
    G.A.bias.copy_((bias + mean).to(G.A.bias.dtype))


@torch.no_grad()
def bound_to(G: FilteredLatentGenerator, clips: Sequence[torch.Tensor]) -> None:
    """Measure how far the frames of the real clips, each [T, K], lie from their mean code at most; frames of G stay near that."""
    assert G.w_basis is not None
    real = torch.cat(list(clips)).double()
    mean = real.mean(dim=0)
    basis = G.w_basis.double()
    values, axes = torch.linalg.eigh(basis @ basis.T)
    to_codes = axes * values.clamp(min=0).sqrt()  # keeps lengths: ||y to_codes|| = ||y basis||
    farthest = torch.linalg.vector_norm((real - mean) @ to_codes, dim=1).max()
    if farthest > 0:
        G.set_bound(mean, to_codes / farthest)


def _spectrum_of_clips(clips: Sequence[torch.Tensor], mean: torch.Tensor) -> torch.Tensor:
    return mean_periodogram((clip.unfold(0, PERIOD, 1).transpose(1, 2) for clip in clips if len(clip) >= PERIOD), mean)


def filter_between(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The filter that turns one spectrum into the other, both as of `mean_periodogram`: weights [FILTER_SIZE, K, K].

    The one in the middle is that of the present. As it ends after half a second or so, what it leaves of the covariance of frames
    is not quite that of `wanted`, which one more map of covariances corrects.
    """
    response = torch.stack([_map_of_covariances(*both) for both in zip(given, wanted, strict=True)])
    taps = torch.fft.irfft(response, n=FREQUENCIES, dim=0).roll(FILTER_SIZE // 2, dims=0)[:FILTER_SIZE]
    response = torch.fft.rfft(taps, n=FREQUENCIES, dim=0)
    left = _map_of_covariances(*(_covariance_of(spectrum) for spectrum in (response @ given @ response.mH, wanted)))
    return left @ taps


def _covariance_of(spectrum: torch.Tensor) -> torch.Tensor:
    """Covariance [K, K] of the frames that have this spectrum."""
    return torch.fft.irfft(spectrum, n=FREQUENCIES, dim=0)[0]


def _map_of_covariances(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The symmetric (Hermitian) M with M S M = R for S = `given`, R = `wanted`, all [K, K], that moves frames least.

    M = S^(-1/2) (S^(1/2) R S^(1/2))^(1/2) S^(-1/2), the optimal transport between two Gaussians (Olkin and Pukelsheim, "The
    distance between two random vectors with given dispersion matrices", 1982). What has all but stopped, and what would be
    stretched or shrunk more than LARGEST_CORRECTION times, stays as it is: to stretch it would blow up noise.
    """
    variances, directions = torch.linalg.eigh(given)
    moves = variances > STOPPED * variances[-1].clamp(min=1e-12)
    directions, root = directions[:, moves], variances[moves].sqrt()
    inner = root.unsqueeze(1) * (directions.mH @ wanted @ directions) * root
    squares, turns = torch.linalg.eigh(inner)
    change = (turns * squares.clamp(min=0).sqrt()) @ turns.mH / root.unsqueeze(1) / root
    factors, axes = torch.linalg.eigh(change)
    factors = torch.where((factors > 1 / LARGEST_CORRECTION) & (factors < LARGEST_CORRECTION), factors, 1.0)
    axes = directions @ axes
    return torch.eye(len(given), dtype=given.dtype, device=given.device) + (axes * (factors - 1)) @ axes.mH
