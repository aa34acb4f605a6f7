"""Events that footage keeps apart: found in footage made to have them, and counted pair by pair."""

import math
import random

import pytest
import torch

from training.events.timing import COUNTED, EventTiming, events, heavy_tailed_directions, ruled_out, suited_weight


def onsets(number: int, shortest: int, spread: int, seed: int) -> list[int]:
    """Frames of events of which each follows `shortest` to `shortest + spread` frames after the last."""
    draw, frames = random.Random(seed), [30]
    for _ in range(number - 1):
        frames.append(frames[-1] + shortest + draw.randrange(spread + 1))
    return frames


def footage(frames: list[int], seed: int = 0, length: int | None = None) -> torch.Tensor:
    """Five coordinates of slow motion, with jumps along one direction at these frames, up and down by turns."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(length or frames[-1] + 30, 5, generator=generator).cumsum(dim=0) * 0.1
    for index, frame in enumerate(frames):
        y[frame:] += torch.tensor([0.0, 3.0, 0.0, -1.5, 0.0]) * (1 if index % 2 else -1)
    return y


def test_directions_are_those_of_the_jumps():
    pure = footage(onsets(60, 20, 40, seed=1))
    mix = torch.randn(5, 5, generator=torch.Generator().manual_seed(2))
    mix[[0, 2]] *= 10  # slow motion is by far the largest
    y = pure @ mix
    directions = heavy_tailed_directions([y[:900], y[900:]])
    assert directions.shape == (5, 1)
    motion = torch.diff(y, dim=0) @ directions
    assert math.isclose(float(motion.std()), 1, rel_tol=0.05)
    agreement = torch.corrcoef(torch.stack([motion[:, 0], torch.diff(pure[:, 1])]))[0, 1]
    assert abs(float(agreement)) > 0.99
    slow = torch.randn(2000, 5, generator=torch.Generator().manual_seed(3)).cumsum(dim=0)
    assert heavy_tailed_directions([slow]).shape == (5, 0)
    assert heavy_tailed_directions([torch.zeros(50, 5)]).shape == (5, 0)  # a still picture


def track(frames: list[int], length: int) -> torch.Tensor:
    """Events of two frames."""
    e = torch.zeros(length)
    for frame in frames:
        e[frame : frame + 2] = torch.tensor([0.9, 0.4])
    return e


@pytest.mark.parametrize('clips', [1, 3])
def test_delays_that_no_event_has_are_ruled_out(clips: int) -> None:
    tracks = [track(frames := onsets(90 // clips, 20, 60, seed), frames[-1] + 60) for seed in range(clips)]
    out = ruled_out(tracks, 48)
    # Delays up to 2 are within an event; none follows another sooner than after 20, and two frames are the margin.
    assert out.nonzero().flatten().add(1).tolist() == list(range(3, 22))


def test_what_comes_now_and_then_is_not_ruled_out():
    frames = onsets(90, 20, 60, seed=0)
    doubles = sorted([*frames, *(frame + 11 for frame in frames[::9])])
    out = ruled_out([track(doubles, frames[-1] + 60)], 48)
    # After a double one the next comes sooner as well, but not within the nine frames that such a pair is short of 20.
    assert not out[10]
    assert out[2:8].all()


def test_chance_rules_out_nothing():
    draw = random.Random(0)
    for count in (90, 12):  # as many as above, by chance, and too few to tell whatever they do
        frames = sorted(draw.sample(range(0, 5000, 2), count))
        assert not ruled_out([track(frames, 5002)], 48).any()
    few = onsets(12, 20, 60, seed=0)
    assert not ruled_out([track(few, few[-1] + 60)], 48).any()
    assert not ruled_out([torch.zeros(500)], 48).any()
    assert not ruled_out([torch.zeros(5), torch.zeros(0)], 48).any()  # shorter than all delays


def test_the_penalty_counts_pairs_and_blames_the_later_event():
    frames = onsets(90, 10, 30, seed=4)
    clip = footage(frames).double()
    timing = EventTiming([clip], num_frames=25, past_frames=60)
    assert timing
    assert timing.num_lags == 48
    assert timing.weights.shape == (2, 48)
    rate = events(clip, timing.directions, COUNTED).mean(dim=0)
    # Jumps go up and down by turns, and those of one direction are kept apart.
    lags = [row.nonzero().flatten().add(1).tolist() for row in timing.weights]
    shortest = [min(b - a for a, b in zip(frames[turn::2], frames[turn + 2 :: 2], strict=False)) for turn in (0, 1)]
    assert sorted(lags) == sorted(list(range(2, delay + 2)) for delay in shortest)
    near = [40, 52, 63, 66, 69, 75]  # closer than any of the footage, some before the window, which begins at frame 60
    y = torch.stack([footage(near, seed, length=85) for seed in range(3)]).double().requires_grad_(True)
    e = events(y, timing.directions, COUNTED)  # e[k] is the motion from frame k to k + 1
    pairs = torch.zeros(3, dtype=torch.float64)
    for window in range(3):
        for channel in range(2):
            for k in range(59, 84):
                for lag in lags[channel]:
                    pairs[window] += timing.weights[channel, lag - 1] * e[window, k, channel] * e[window, k - lag, channel] / 25
    penalty = timing.penalty(y)
    torch.testing.assert_close(penalty, pairs)
    assert penalty.min() > 1
    torch.testing.assert_close(timing.weights[:, 9], 1 / rate)
    (gradient,) = torch.autograd.grad(penalty.sum(), y)
    assert not gradient[:, :59].any()
    assert gradient[:, 68:70].abs().amax(dim=(1, 2)).min() > 0
    apart = torch.stack([footage([10, 35, 70], seed, length=85) for seed in range(3)]).double()
    assert timing.penalty(apart).max() < 0.05


def test_nothing_to_keep_apart():
    slow = torch.randn(2000, 5, generator=torch.Generator().manual_seed(5)).cumsum(dim=0)
    assert not EventTiming([slow], 25, 60)
    many = footage(onsets(90, 20, 40, seed=4))
    assert not EventTiming([many], 25, 0)  # no past
    assert not EventTiming([many], 25, 1)
    assert not EventTiming([many[:200]], 25, 60)  # seconds
    assert EventTiming([many], 25, 60)


def test_a_short_training_has_less_weight():
    assert suited_weight(4000) == suited_weight(64000) > 0
    for updates in (1, 1000, 2000, 3750):  # as the square of the length
        assert math.isclose(suited_weight(updates), suited_weight(4000) * (updates / 4000) ** 2)
