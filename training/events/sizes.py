"""How large events are: those of finished videos get the sizes that the footage's have.

A lid closes or it does not: in the demo's footage excursions of the lids (networks.latent_generator.EventLatentGenerator says
what is measured) are below 0.5 or above 7.4, and nothing lies between. A generator is a continuous function of its noise, so a
third of its blinks did, and a critic with a gradient penalty hardly minds (docs/experiments.md). What the footage lacks can be
told without knowing what the event is. Along directions in which motion has heavy tails, with x_(n) the n-th largest peak of the
footage, and 1 deviation of the motion for all that is less,

    max over n of  n ln(x_(n) / x_(n+1))  >=  `APART`

finds a gap: under a tail of index 1 (P(x > a) ~ 1/a, heavier than any that was met) each has the probability e^-APART (Renyi's
representation of order statistics). Peaks above the gap are events, if nearly all of them are over within ten frames: a look to
the side that stays there is none. `fit_event_sizes` then looks at videos of the finished model: as many a minute of its largest
peaks are events as the footage has, within the gap, and get the footage's sizes; others above the gap's lower end become as
small as ordinary ones. Where delays are ruled out (training/events/timing.py), of two peaks nearer than that the larger one is
the event. Footage without a gap, such as seconds of it, leaves everything as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from networks.latent_generator import (
    HALF_BASELINE,
    HALF_EVENT,
    HALF_PEAK,
    MOST_APART,
    NUM_SIZES,
    EventLatentGenerator,
    FilteredLatentGenerator,
)  # fmt: skip
from training.events.timing import heavy_tailed_directions, ruled_out

OVER = 0.9  # of events are back at less than half of their size HALF_EVENT frames before and after
APART = 14.0  # once in a million, because there are hundreds of n, and some directions
REFINEMENTS = 2
RIDGE = 1e-6
ORDINARY = 1.0  # deviations of the motion: smaller peaks are not told from each other
NUM_VIDEOS, NUM_FRAMES = 128, 1500  # of the model, which are looked at


@dataclasses.dataclass(frozen=True)
class Channel:
    """A direction in which the footage has events.

    Attributes:
        direction: d [K].
        motion: a [K], how the coordinates move when u moves by 1.
        sizes: Of the events of the footage, in order, [n].
        limit: B, of the largest peak below the gap.
        remains: S, of the median one below the gap.
        distance: R, frames.
        rate: Events per frame.
    """

    direction: torch.Tensor
    motion: torch.Tensor
    sizes: torch.Tensor
    limit: float
    remains: float
    distance: int
    rate: float


def excursions(u: torch.Tensor) -> torch.Tensor:
    """U [..., T] -> e [..., T - 32], without HALF_BASELINE frames at both ends."""
    return u[..., HALF_BASELINE:-HALF_BASELINE] - u.unfold(-1, 2 * HALF_BASELINE + 1, 1).median(dim=-1).values


def peak_sizes(e: torch.Tensor, distance: int) -> torch.Tensor:
    """Positive ones of e [N, T] that are the largest within max(HALF_PEAK, distance) frames; these at both ends are left out."""
    half = max(HALF_PEAK, distance)
    p = e[:, half:-half]
    return p[(p > 0) & (p >= e.unfold(1, 2 * half + 1, 1).amax(dim=2))]


def are_over(tracks: Sequence[torch.Tensor], size: float) -> bool:
    """Whether peaks of e [T] of at least this size come and go within HALF_EVENT frames."""
    over: list[bool] = []
    for e in tracks:
        for k in ((e >= size) & (e >= torch.nn.functional.max_pool1d(e[None], 2 * HALF_PEAK + 1, 1, HALF_PEAK)[0])).nonzero():
            here = int(k)
            if HALF_EVENT <= here < len(e) - HALF_EVENT:
                over.append(float(torch.maximum(e[here - HALF_EVENT], e[here + HALF_EVENT])) < float(e[here]) / 2)
    return sum(over) >= OVER * len(over)


def gap(sizes: torch.Tensor) -> int:
    """Number of the largest of `sizes` [n] that stand apart from the others; 0 if there is no gap."""
    largest = (
        torch.cat([sizes.double().clamp(min=ORDINARY), sizes.new_full((1,), ORDINARY).double()]).sort(descending=True).values
    )
    gaps = (largest[:-1] / largest[1:]).log() * torch.arange(1, len(largest), device=largest.device)
    return int(gaps.argmax()) + 1 if len(gaps) > 0 and float(gaps.max()) >= APART else 0


def find_channels(clips: Sequence[torch.Tensor]) -> list[Channel]:
    """Those of footage y, [T, K] each."""
    clips = [clip.cpu() for clip in clips if len(clip) > 2 * (HALF_BASELINE + HALF_PEAK)]
    if not clips:
        return []
    channels = []
    moved = torch.cat([_all_excursions(clip) for clip in clips])  # [frames, K]
    for column in heavy_tailed_directions(clips).double().unbind(1):
        for direction in (column, -column):
            for _ in range(1 + REFINEMENTS):
                tracks = [excursions(clip.double() @ direction) for clip in clips]
                sizes = torch.cat([peak_sizes(e[None], 0) for e in tracks]).sort(descending=True).values
                number = gap(sizes)
                if number == 0:
                    break
                others = sizes[number:] if number < len(sizes) else sizes.new_zeros(1)
                limit, last = float(others[0]), direction
                events = torch.cat([e * (e > limit) for e in tracks])
                direction = _least_squares(moved, events)
            if number == 0 or not are_over(tracks, float(sizes[number - 1])):
                continue
            motion = moved.T @ events / events.square().sum()
            lags = ruled_out([(e * (e > limit)).float() for e in tracks], MOST_APART).nonzero().flatten() + 1
            channels.append(
                Channel(
                    direction=last.float(),
                    motion=(motion / (last @ motion)).float(),
                    sizes=sizes[:number].flip(0).float(),
                    limit=limit,
                    remains=float(others.median()),
                    distance=int(lags.max()) if len(lags) > 0 else 0,
                    rate=number / sum(len(e) - 2 * HALF_PEAK for e in tracks),
                )
            )
    return channels


def _all_excursions(clip: torch.Tensor) -> torch.Tensor:
    """Y [T, K] -> the excursions of every coordinate, [T - 32, K]."""
    return excursions(clip.double().T.contiguous()).T


def _least_squares(moved: torch.Tensor, events: torch.Tensor) -> torch.Tensor:
    """D [K] that says best what the events are [frames], 0 outside of them, out of the excursions of coordinates [frames, K].

    Directions of heavy tails separate what is independent; of anything that moves besides, this one says less.
    """
    gram = moved.T @ moved
    return torch.linalg.solve(gram + RIDGE * gram.trace() / len(gram) * torch.eye(len(gram)).to(gram), moved.T @ events)


@torch.no_grad()
def fit_event_sizes(G: EventLatentGenerator, channels: Sequence[Channel], *, seed: int = 0) -> None:
    """Set the channels of G, and map the sizes of its events to the footage's, by videos of `NUM_VIDEOS` seeds after the burn-in.

    Args:
        G: Finished but for this: calibrated, and with its filter.
        channels: As many as G has.
        seed: The same one gives the same numbers on one device.
    """
    device = G.filter_weight.device
    random = torch.Generator(device).manual_seed(seed)
    state = FilteredLatentGenerator.initial_state(G, torch.randn(NUM_VIDEOS, G.latent_dim, generator=random, device=device))
    state = G.filter_pass_by(torch.randn(NUM_VIDEOS, max(G.burn_in, 1), G.noise_dim, generator=random, device=device), state)
    noise = torch.randn(NUM_VIDEOS, NUM_FRAMES - 1, G.noise_dim, generator=random, device=device)
    y = G.filter_rollout(noise, state)[0]
    quantiles = torch.linspace(0, 1, NUM_SIZES, device=device)
    for index, channel in enumerate(channels):
        e = excursions(y @ channel.direction.to(device))
        sizes = peak_sizes(e, channel.distance).sort(descending=True).values
        real = channel.sizes.to(device)
        G.event_directions[:, index] = channel.direction
        G.event_motions[index] = channel.motion
        G.event_limits[index] = channel.limit
        G.event_remains[index] = channel.remains
        G.event_distances[index] = channel.distance
        wanted = round(channel.rate * len(e) * (e.shape[1] - 2 * max(HALF_PEAK, channel.distance)))
        threshold = float(sizes[min(wanted, len(sizes)) - 1]) if wanted > 0 and len(sizes) > 0 else float(real[0])
        threshold = min(max(threshold, channel.limit), float(real[0]))
        G.event_thresholds[index] = threshold
        found = sizes[sizes >= threshold]
        G.sizes_real[index] = torch.quantile(real, quantiles)
        G.sizes_generated[index] = torch.quantile(found, quantiles) if len(found) > 0 else G.sizes_real[index]
