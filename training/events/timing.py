"""Events that the footage keeps apart: what a critic of windows hardly tells is counted here.

A blink is a few frames out of hundreds, and that none follows another within a second is a statement about pairs of them. A
critic with a gradient penalty counts blinks and hardly sees when they come (docs/experiments.md). So pairs are counted:

    x_k := D^T (y_k - y_{k-1})                            motion along the directions D in which it has the heaviest tails
    e_k := tanh(max(0, s x_k - h)),   s = 1 and s = -1    events: faster than h deviations; a channel for each direction and s
    L_EVT := sum over channels of  1/m sum_{n in R} E[e_k e_{k-n}],     m := E[e] of the footage

R are the delays that the footage rules out: runs of delays at which no event of it follows another (from the fastest frame of one
to that of the next), where chance would have placed some (at least `EXPECTED` pairs, were events independent), without those
that are within one event, and with `MARGIN` frames after the longest: the frame in which an event is seen to begin lies a frame
or two beside its fastest one, and of the soonest ones generated some would be sooner. So L_EVT is the mean number of earlier
events that an event of a generated video has at such a delay. Seconds of footage rule out nothing.

D are independent components of the motion by fourth moments (FOBI; Cardoso, "Source separation using higher order moments",
ICASSP 1989): with the whitened motion z, the eigenvectors of E[||z||^2 z z^T]. Those whose kurtosis exceeds 9 count (3 is a
Gaussian's), at most four of them.

The gradient reaches the later event of a pair only. What came first is the past, and otherwise fewer events would do as well as
later ones. This penalty is ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

TAILS = 9.0  # kurtosis
MOST_DIRECTIONS = 4
THRESHOLD = 2.0  # deviations, h of events that are looked for in footage
COUNTED = 1.25  # h of events that are counted in L_EVT, lower: half a blink, too slow to be found, would be a way around it
EXPECTED = 7.0  # pairs, of which chance leaves out all once in a thousand times
ABSENT = 0.05  # pairs at a delay, as a share of what chance would have: none but for noise
MARGIN = 2  # frames
WEIGHT, UPDATES = 40.0, 4000  # of L_EVT, and the length of training that it was chosen at


def heavy_tailed_directions(clips: Sequence[torch.Tensor]) -> torch.Tensor:
    """D [K, n], n from 0 to MOST_DIRECTIONS, of footage y [T, K] each: the motion along each column has a variance of 1."""
    motion = torch.cat([torch.diff(clip, dim=0) for clip in clips]).cpu().double()
    motion = motion - motion.mean(dim=0)
    variances, axes = torch.linalg.eigh(motion.T @ motion / len(motion))
    whitening = axes / variances.clamp(min=1e-9 * float(variances[-1]) + 1e-30).sqrt()
    z = motion @ whitening
    fourth = (z * z.square().sum(dim=1, keepdim=True)).T @ z / len(z)
    directions = (whitening @ torch.linalg.eigh(fourth).eigenvectors).flip(1)
    x = motion @ directions
    kurtosis = x.pow(4).mean(dim=0) / x.square().mean(dim=0).square().clamp(min=1e-30)
    return directions[:, kurtosis > TAILS][:, :MOST_DIRECTIONS].to(clips[0])


def events(y: torch.Tensor, directions: torch.Tensor, threshold: float) -> torch.Tensor:
    """Y [..., T, K], and h -> e [..., T - 1, channels], channels twice the number of directions."""
    x = torch.diff(y, dim=-2) @ directions
    return torch.tanh((torch.cat([x, -x], dim=-1) - threshold).clamp(min=0))


def ruled_out(clips: Sequence[torch.Tensor], num_lags: int) -> torch.Tensor:
    """R of one channel: events e [T] of each clip -> which of the delays 1 .. num_lags are ruled out, [num_lags] of bool."""
    out = torch.zeros(num_lags, dtype=torch.bool)
    longest, peaks = 0, []
    for clip in clips:
        e = torch.nn.functional.pad(clip.double(), (1, 1))  # at rest before and after
        edges = torch.diff((e > 0).long()).nonzero().flatten()  # an event begins, ends, the next one begins, ...
        longest = max([longest, *(edges[1::2] - edges[::2]).tolist()])
        peaks.append(e[1:-1] * ((e[1:-1] > e[:-2]) & (e[1:-1] >= e[2:])))
    every = torch.cat(peaks)
    if not every.any():
        return out
    frames = len(every)
    rate, number = every.sum() / frames, every.sum() ** 2 / every.square().sum()  # number: of events, were all of one size
    pairs, expected = torch.zeros(2, num_lags, dtype=torch.float64)
    for lag in range(1, num_lags + 1):
        products = [(clip[lag:] * clip[:-lag]).sum() for clip in peaks if len(clip) > lag]
        possible = sum(len(clip) - lag for clip in peaks if len(clip) > lag)
        expected[lag - 1] = (number / frames) ** 2 * possible
        pairs[lag - 1] = sum(products) / (rate**2 * max(possible, 1))
    first = 0
    while first < num_lags:  # runs of delays without pairs
        last = first
        while last < num_lags and pairs[last] <= ABSENT:
            last += 1
        if expected[first:last].sum() >= EXPECTED:
            out[first:last] = True
        first = last + 1
    if out.any():
        end = int(out.nonzero().max()) + 1
        out[end : end + MARGIN] = True
        out[:longest] = False
    return out


def suited_weight(updates: float) -> float:
    """Weight of L_EVT for a training of so many generator updates: less below 4000, as the square of the length.

    A short training has to learn what events look like while it is told when they may come: of 2000 updates with a weight of 40
    the blinks do not recover, and with 10 they do (docs/experiments.md).
    """
    return WEIGHT * min(1.0, updates / UPDATES) ** 2


class EventTiming:
    """L_EVT.

    Args:
        clips: Footage y, [T, K] each.
        num_frames: Length t of a window.
        past_frames: Frames before a window that `penalty` is given. Delays up to two windows count, as far as they reach.

    Attributes:
        directions: D, [K, n].
        num_lags: Largest delay.
        weights: 1/m for each channel and delay that is ruled out, 0 for others, [channels, num_lags].
    """

    def __init__(self, clips: Sequence[torch.Tensor], num_frames: int, past_frames: int) -> None:
        self.num_frames = num_frames
        self.num_lags = max(0, min(2 * (num_frames - 1), past_frames - 1))
        self.directions = heavy_tailed_directions(clips)
        found = [events(clip, self.directions, THRESHOLD).cpu() for clip in clips]
        means = torch.cat([events(clip, self.directions, COUNTED).cpu() for clip in clips]).mean(dim=0)
        rows = [ruled_out([e[:, channel] for e in found], self.num_lags) / mean for channel, mean in enumerate(means)]
        weights = torch.stack(rows) if rows else torch.zeros(0, self.num_lags)
        self.weights = weights.nan_to_num(0).to(clips[0])  # a channel without events is 0 / 0

    def __bool__(self) -> bool:
        """Whether anything is ruled out."""
        return bool(self.weights.any())

    def penalty(self, y: torch.Tensor) -> torch.Tensor:
        """L_EVT of generated windows with their past, [N, past_frames + t, K]: [N] before the mean."""
        e = events(y[:, -(self.num_frames + self.num_lags + 1) :], self.directions, COUNTED)
        now, past = e[:, -self.num_frames :], e[:, :-1].detach().transpose(1, 2)
        before = torch.nn.functional.conv1d(past, self.weights.flip(1).unsqueeze(1), groups=past.shape[1])
        return (now * before.transpose(1, 2)).mean(dim=1).sum(dim=1)
