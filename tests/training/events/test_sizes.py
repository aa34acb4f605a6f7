"""Sizes of events: the generator that changes them, beside its equations, and what is fitted to footage."""

import math

import pytest
import torch

from networks.latent_generator import EventLatentGenerator, FilteredLatentGenerator, LatentGenerator, first_frame
from training import stationarity
from training.events import sizes
from training.events.sizes import Channel, excursions, find_channels, fit_event_sizes, gap, peak_sizes

SIZES = {'num_components': 3, 'latent_dim': 4, 'noise_dim': 3, 'hidden_dim': 4, 'num_cells': 2, 'widening_widths': [8]}


def generator(**more) -> EventLatentGenerator:
    """With events that are frequent: two channels, one of them with a distance, in float64."""
    torch.manual_seed(5)
    G = EventLatentGenerator(3, 5, filter_size=3, num_channels=2, **SIZES, **more).double()
    G.set_data_basis(torch.randn(15), torch.randn(3, 15))
    G.A.weight.data.mul_(4)
    G.set_filter(torch.randn(3, 3, 3), torch.randn(3))
    G.event_directions.copy_(torch.randn(3, 2))
    G.event_motions.copy_(torch.randn(2, 3))
    G.event_thresholds.copy_(torch.tensor([0.9, 0.7]))
    G.event_limits.copy_(torch.tensor([0.3, 0.5]))
    G.event_remains.copy_(torch.tensor([0.1, 0.2]))
    G.event_distances.copy_(torch.tensor([0, 13]))
    G.sizes_generated.copy_(torch.linspace(0.5, 2.5, 33).repeat(2, 1))
    G.sizes_real.copy_(torch.linspace(1, 2, 33).square().repeat(2, 1))
    return G.requires_grad_(False)


def by_definition(G: EventLatentGenerator, y: torch.Tensor) -> torch.Tensor:
    """Y' [T, K] -> y'' [T + 50, K], frame after frame; y'_0 for all time before."""
    padded = torch.cat([y[:1].expand(200, -1), y])
    shown = padded.clone()
    for channel in range(2):
        u = padded @ G.event_directions[:, channel]
        e = torch.zeros_like(u)
        for k in range(16, len(u) - 16):
            e[k] = u[k] - u[k - 16 : k + 17].median()
        change, size = {}, {}
        for k in range(50, len(u) - 40):
            p = float(e[k])
            if p <= 0 or p < e[k - 5 : k + 6].max():
                continue
            R = int(G.event_distances[channel])
            if p >= G.event_thresholds[channel] and p >= e[k - R : k + R + 1].max():
                share = min(max((p - 0.5) / 2, 0), 1)
                knot = min(int(share * 32), 31)
                low, high = (1 + knot / 32) ** 2, (1 + (knot + 1) / 32) ** 2
                q = low + (share * 32 - knot) * (high - low)
            else:
                q = p if p <= G.event_limits[channel] else float(G.event_remains[channel])
            change[k], size[k] = q / p - 1, p
        for k in range(60, len(u) - 50):
            terms = [
                (h, change[k + j], ((11 - abs(j)) * size[k + j]) ** 4)
                for j in range(-10, 11)
                for h in [min((10 - abs(j)) / 3, 1.0)]
                if k + j in change
            ]
            total = sum(weight for *_, weight in terms)
            gain = sum(weight * h * change for h, change, weight in terms) / total if terms else 0.0
            shown[k] += gain * e[k] * G.event_motions[channel]
    return shown[150:-50]  # the frame that is shown first is 50 frames before y'_0


@pytest.mark.parametrize('bounded', [False, True])
def test_events_get_their_sizes_by_the_equations(bounded):
    G = generator(bounded=bounded)
    if bounded:
        G.set_bound(torch.zeros(3), torch.eye(3) / 2)
    plain = FilteredLatentGenerator(3, 5, filter_size=3, **SIZES).double()
    plain.load_state_dict(G.state_dict(), strict=False)
    i, s = torch.randn(2, 4).double(), 2 * torch.randn(2, 220, 3).double()
    y = plain.rollout(s, plain.initial_state(i))[0].detach()
    expected = torch.stack([by_definition(G, track) for track in y])
    changed = (expected[:, 50:] - y[:, :-50]).abs().amax(dim=2) > 1e-6
    assert 0.2 < changed.double().mean() < 0.95  # there is something to see
    if bounded:
        centred = expected - G.bound_mean
        r = (centred / 2).norm(dim=2, keepdim=True)
        outside = G.bound_mean + centred / r * (1 + 0.25 * torch.tanh((r - 1) / 0.25))
        assert 0.01 < (r > 1).double().mean() < 0.99
        expected = torch.where(r > 1, outside, expected)
    found, states = G.rollout(s, G.initial_state(i))
    torch.testing.assert_close(found, expected)
    state, frame = first_frame(G, i)
    stepped = [frame]
    for k, noise in enumerate(s.unbind(1)):
        assert all(map(torch.allclose, state, states[k]))
        state, frame = G.step(noise, state)
        stepped.append(frame)
    torch.testing.assert_close(torch.stack(stepped, dim=1), expected)
    torch.testing.assert_close(G(i, s), G.decode(expected))
    # What lies further back than `frames_behind` does not count, and what lies there does.
    behind = G.frames_behind
    other = tuple(h.flip(0) for h in states[60][2:])  # memories of the filter and of events, but not of the recurrence
    again = G.rollout(s[:, 60:], (*states[60][:2], *other))[0]
    torch.testing.assert_close(again[:, behind + 1 :], found[:, 60 + behind + 1 :])
    assert (again[:, 55:behind] - found[:, 115 : 60 + behind]).abs().max() > 1e-3


@pytest.mark.parametrize('steps', [1, 30, 101, 102, 180])
def test_frames_that_pass_by_leave_what_their_steps_leave(steps):
    """To the last bit: a video begins the same whether its burn-in was seen or not."""
    G = generator().float()
    i, s = torch.randn(2, 4), torch.randn(2, 130 + steps, 3)
    state, frame = first_frame(G, i)
    for noise in s[:, :130].unbind(1):
        state, frame = G.step(noise, state)
    found = G.pass_by(s[:, 130:], state)
    for noise in s[:, 130:].unbind(1):
        state, frame = G.step(noise, state)
    assert torch.equal(found[1], frame)
    assert all(map(torch.equal, found[0], state))


def test_the_bound_pulls_back_what_is_far_and_nothing_else():
    """y'' = m + (y - m) (1 + c tanh((r - 1) / c)) / r beyond r = 1, of the filtered frames, c = 0.25."""
    arguments = {**SIZES, 'num_components': 2}
    torch.manual_seed(0)
    plain = FilteredLatentGenerator(3, 5, filter_size=3, **arguments).double()
    plain.set_filter(torch.randn(3, 2, 2), torch.randn(2))
    bounded = FilteredLatentGenerator(3, 5, filter_size=3, bounded=True, **arguments).double()
    bounded.load_state_dict(plain.state_dict(), strict=False)
    i, s = torch.randn(2, 4).double(), torch.randn(2, 60, 3).double()
    y = plain.rollout(s, plain.initial_state(i))[0]
    torch.testing.assert_close(bounded.rollout(s, bounded.initial_state(i))[0], y)  # by nothing, so far
    mean, B = torch.tensor([0.2, -0.1]).double(), torch.tensor([[2.0, 0.5], [0.0, 1.0]]).double()
    bounded.set_bound(mean, B)
    found = bounded.rollout(s, bounded.initial_state(i))[0]
    before, after = (((each - mean) @ B).norm(dim=2) for each in (y, found))
    assert 0.1 < (before > 1).double().mean() < 0.9
    inside = before <= 1
    assert torch.equal(found[inside], y[inside])
    torch.testing.assert_close(after[~inside], 1 + 0.25 * torch.tanh((before[~inside] - 1) / 0.25))
    torch.testing.assert_close((found - mean) / after[..., None], (y - mean) / before[..., None])  # along the ray


def footage(*, sizes=(8.0, 10.0), every=60, frames=3000, seed=0) -> torch.Tensor:
    """Three coordinates [T, 3] that wander slowly, and a blink of 7 frames along (0, 0.6, 0.8) in every `every` frames or so."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(frames, 3, generator=random)
    y = torch.nn.functional.avg_pool1d(noise.T, 9, 1, 4, count_include_pad=False).T.clone()
    shape = torch.tensor([0.4, 0.9, 1.0, 0.9, 0.6, 0.3, 0.1])
    for begin in range(30, frames - 30, every):
        begin += int(torch.randint(0, every // 3, (1,), generator=random))
        size = sizes[0] + (sizes[1] - sizes[0]) * float(torch.rand(1, generator=random))
        y[begin : begin + 7] += size * shape[:, None] * torch.tensor([0.0, 0.6, 0.8])
    return y


def test_blinks_are_found_in_footage_and_wandering_is_not():
    (channel,) = find_channels([footage()])
    unit = 1 / torch.linalg.vector_norm(channel.motion)
    torch.testing.assert_close(channel.motion * unit, torch.tensor([0.0, 0.6, 0.8]), atol=0.05, rtol=0)
    assert len(channel.sizes) == 49
    assert math.isclose(channel.rate, 49 / 2958)
    assert 1.15 < float(channel.sizes[-1] / channel.sizes[0]) < 1.5
    assert channel.remains <= channel.limit < 0.5 * float(channel.sizes[0])
    assert channel.distance >= 20  # of two events at least 41 frames apart
    assert find_channels([footage(sizes=(0.0, 0.0))]) == []
    assert find_channels([footage(sizes=(0.0, 10.0))]) == []  # of every size: nothing stands apart
    stays = footage(sizes=(0.0, 0.0))
    for frame in range(30, 2970, 60):
        stays[frame : frame + 14] += torch.tensor([0.0, 5.0, 5.0])
    assert find_channels([stays]) == []  # movements that come back late
    assert find_channels([footage()[:40]]) == []
    assert find_channels([footage(frames=300)]) == []  # four blinks


def test_the_direction_ignores_what_moves_besides():
    """Slow waves of 20 deviations across the blinks: heavy tails of motion see a quarter of one of them, least squares none."""
    y, shaken = footage(), footage()
    waves = 20 * torch.sin(torch.arange(len(y)) * (2 * math.pi / 37))
    shaking = 3 * torch.randn(len(y), generator=torch.Generator().manual_seed(3))
    across = torch.tensor([1.0, 0.5, 0.0])
    (channel,) = find_channels([y + waves[:, None] * across])
    assert abs(float(channel.direction @ across)) * 20 < 0.05
    (channel,) = find_channels([shaken + shaking[:, None] * across])
    motion = channel.motion / channel.motion.norm()
    torch.testing.assert_close(motion, torch.tensor([0.0, 0.6, 0.8]), atol=0.15, rtol=0)
    assert float(channel.direction @ motion) < 0.95 * float(channel.direction.norm())  # which is not where the coordinates go
    assert math.isclose(float(channel.direction @ channel.motion), 1, rel_tol=1e-4)


def test_a_gap_is_one_that_a_heavy_tail_hardly_has():
    """P(x > a) = 1 / a has none; twenty-five of more than twice the size of the others are one."""
    random = torch.Generator().manual_seed(0)
    tails = 1 / torch.rand(60, 500, generator=random)
    assert [gap(each) for each in tails] == [0] * 60
    assert gap(torch.cat([torch.rand(500, generator=random) + 1, torch.full((25,), 4.0)])) == 25
    assert gap(torch.cat([torch.full((25,), 0.9), torch.full((400,), 0.1)])) == 0  # less than ordinary motion
    assert gap(torch.zeros(0)) == 0


def test_excursions_and_peaks():
    u = torch.zeros(100)
    u[40:44] = torch.tensor([1.0, 3.0, 2.0, -1.0])
    u[49] = 2.5
    assert torch.equal(excursions(u + 7), u[16:-16])  # the median is that of the rest
    e = excursions(u)[None]
    assert sorted(peak_sizes(e, 0).tolist()) == [2.5, 3.0]
    assert peak_sizes(e, 8).tolist() == [3.0]


def test_fitted_sizes_are_those_of_the_footage(monkeypatch):
    """Of videos of another seed: as many events a frame, the quantiles of their sizes, nothing between, and none sooner."""
    monkeypatch.setattr(sizes, 'NUM_FRAMES', 600)
    torch.manual_seed(1)
    G = EventLatentGenerator(3, 5, filter_size=3, num_channels=1, burn_in=120, **SIZES)
    identity = torch.zeros(3, 3, 3)
    identity[1] = torch.eye(3)
    G.set_filter(identity, torch.zeros(3))

    def tracks(seed: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(seed)
        state = G.initial_state(torch.randn(96, G.latent_dim, generator=random))
        state = G.pass_by(torch.randn(96, 200, G.noise_dim, generator=random), state)[0]
        return G.rollout(torch.randn(96, 700, G.noise_dim, generator=random), state)[0].detach()

    direction = torch.tensor([1.0, 0.0, 0.0])
    before = peak_sizes(excursions(tracks(7) @ direction), 0)
    typical = float(before.quantile(0.8))
    real = torch.linspace(4, 6, 40) * typical
    channel = Channel(direction, direction.clone(), real, typical, 0.3 * typical, distance=20, rate=1 / 100)
    fit_event_sizes(G, [channel])
    assert typical < float(G.event_thresholds) <= float(real[0])
    e = excursions(tracks(7) @ direction)
    after = peak_sizes(e, 0)
    events = after[after > 2 * typical]
    assert 0.95 < len(events) / e.numel() * 100 < 1.08
    torch.testing.assert_close(
        events.quantile(torch.tensor([0.1, 0.5, 0.9])), real.quantile(torch.tensor([0.1, 0.5, 0.9])), rtol=0.05, atol=0
    )
    assert ((after > 1.3 * typical) & (after < 3.5 * typical)).sum() < 0.2 * len(events)
    large = (e > 2 * typical) & (e >= torch.nn.functional.max_pool1d(e[:, None], 11, 1, 5)[:, 0])
    gaps = torch.cat([track.nonzero().flatten().diff() for track in large])
    assert gaps.min() > 18


@pytest.mark.parametrize(
    ('clips', 'flags', 'kind', 'bounded'),
    [
        (['blinks'], {}, EventLatentGenerator, True),
        (['blinks'], {'shaped': False}, FilteredLatentGenerator, True),
        (['blinks'], {'bounded': False}, EventLatentGenerator, False),
        (['blinks'], {'filtered': False}, LatentGenerator, False),
        (['blinks'], {'calibrated': False}, LatentGenerator, False),
        (['none'], {}, FilteredLatentGenerator, True),
    ],
)
def test_a_finished_generator_has_what_the_footage_and_the_options_say(monkeypatch, clips, flags, kind, bounded):
    """And the farthest frame of the footage lies at r = 1: the lengths of codes are those that count."""
    monkeypatch.setattr(stationarity, 'LONGEST_BURN_IN', 100)
    monkeypatch.setattr(stationarity, 'REFERENCE_FRAMES', 50)
    monkeypatch.setattr(sizes, 'NUM_FRAMES', 200)
    torch.manual_seed(0)
    arguments = {'num_ws': 3, 'w_dim': 5, **SIZES}
    G = LatentGenerator(**arguments)
    basis = torch.randn(3, 15)
    G.set_data_basis(torch.randn(15), basis)
    y = footage() if clips == ['blinks'] else footage(sizes=(0.0, 0.0))
    finished = stationarity.finish(G, arguments, stationarity.observe(G, num_videos=32), [y[:1000], y[1000:]], **flags)
    assert type(finished) is kind
    assert getattr(finished, 'bounded', False) == bounded
    if kind is EventLatentGenerator:
        assert finished.burn_in >= 2 + 2 * finished.DELAY
        assert 0 < float(finished.event_thresholds) < math.inf
    if bounded:
        lengths = torch.linalg.vector_norm((y - y.mean(dim=0)) @ basis, dim=1)
        r = torch.linalg.vector_norm((y - finished.bound_mean) @ finished.bound_map, dim=1)
        torch.testing.assert_close(r, lengths / lengths.max())


def test_the_recurrence_is_left_alone():
    """A generator without events shows what one behind the same filter shows, 50 frames later."""
    torch.manual_seed(0)
    G = EventLatentGenerator(3, 5, filter_size=3, num_channels=1, **SIZES)
    plain = FilteredLatentGenerator(3, 5, filter_size=3, **SIZES)
    plain.load_state_dict(G.state_dict(), strict=False)
    i, s = torch.randn(2, 4), torch.randn(2, 90, 3)
    found, expected = G.rollout(s, G.initial_state(i))[0], plain.rollout(s, plain.initial_state(i))[0]
    torch.testing.assert_close(found[:, 50:], expected[:, :-50])
    assert isinstance(G, LatentGenerator)
