"""Latent generator, temporal critic, their losses, and a training step: known values and properties."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_temporal_model import make_generator, make_trainer

from networks.errors import InputError
from networks.latent_generator import GatedRecurrentCell
from networks.temporal_critic import TemporalCritic
from training.batches.video_chains import VideoChains
from training.latent_space import fit_latent_space
from training.latents.dataset import LatentDataset
from training.real_windows import Distortion, Windows, affordable_strides, suited_settings
from training.temporal_loss import divergence, diversity_penalty, gradient_angle, gradient_angle_penalty, gradient_penalty
from training.temporal_options import LatentSpaceOptions
from training.temporal_trainer import critic_weights, prepare_memories


def test_cell_equals_torch_gru_cell():
    cell = GatedRecurrentCell(5, 7).double()
    reference = torch.nn.GRUCell(5, 7).double()
    reference.load_state_dict(cell.state_dict())
    x, h = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    torch.testing.assert_close(cell(x, h), reference(x, h))


def test_stack_equals_torch_gru():
    """Four cells over time are torch.nn.GRU with four layers, whose memories H fills and whose last one begins as i."""
    G = make_generator()
    reference = torch.nn.GRU(6, 6, num_layers=4, batch_first=True).double()
    for index, cell in enumerate(G.P):
        for name in ('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'):
            getattr(reference, f'{name}_l{index}').data.copy_(getattr(cell, name))
    i, s = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 9, 6, dtype=torch.float64)
    state = G.initial_state(i)
    expected, _ = reference(s, torch.stack(state))
    l, states = G.rollout(s, state)
    torch.testing.assert_close(l[:, 1:], expected)
    assert torch.equal(l[:, 0], i)
    assert len(states) == 10


@pytest.mark.parametrize('kwargs', [{}, {'hidden_dim': 4, 'noise_dim': 3}, {'num_components': 2}, {'num_cells': 2}])
def test_streaming_equals_batch(kwargs):
    G = make_generator(**kwargs)
    i, s = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 7, G.noise_dim, dtype=torch.float64)
    together = G(i, s)
    state = G.initial_state(i)
    frames = [G.codes(i)]
    for noise in s.unbind(1):
        state, l = G.step(noise, state)
        frames.append(G.codes(l))
    torch.testing.assert_close(torch.stack(frames, dim=1), together)
    assert together.shape == (3, 8, 3, 5)


def angle_by_finite_differences(G, i, s, step=1e-6):
    """phi of one sample from central differences of d = ||l_{t-1} - l_0||."""

    def distance(i, s):
        l = G.rollout(s[None], G.initial_state(i[None]))[0]
        return float((l[0, -1] - l[0, 0]).norm())

    def gradient(x, evaluate):
        values = []
        for index in range(x.numel()):
            offset = torch.zeros_like(x).view(-1)
            offset[index] = step
            offset = offset.view_as(x)
            values.append((evaluate(x + offset) - evaluate(x - offset)) / (2 * step))
        return np.linalg.norm(values)

    with torch.no_grad():
        return math.atan(gradient(s, lambda x: distance(i, x)) / gradient(i, lambda x: distance(x, s)))


@pytest.mark.parametrize('kwargs', [{}, {'hidden_dim': 4}])
def test_gradient_angle_equals_finite_differences(kwargs):
    G = make_generator(**kwargs)
    i = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    s = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    penalty, phi = gradient_angle_penalty(G.rollout(s, G.initial_state(i))[0], (i,), s)
    expected = [angle_by_finite_differences(G, i[n].detach(), s[n].detach()) for n in range(3)]
    np.testing.assert_allclose(phi.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(penalty.detach().numpy(), np.maximum(0, np.pi / 4 - np.array(expected)) ** 2, rtol=1e-5)


def test_gradient_of_angle_penalty_equals_finite_differences():
    """Double backward through the recurrence, for entries of every parameter that L_GAP reaches; T and A get nothing."""
    G = make_generator()
    i0, s0 = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)

    def loss():
        i, s = i0.clone().requires_grad_(True), s0.clone().requires_grad_(True)
        return gradient_angle_penalty(G.rollout(s, G.initial_state(i))[0], (i,), s)[0].sum()

    value = loss()
    assert value > 0
    value.backward()
    random, step = np.random.RandomState(0), 1e-6
    for name, parameter in G.named_parameters():
        if name.startswith(('T.', 'A.')):
            assert parameter.grad is None
            continue
        for _ in range(2):
            index = tuple(random.randint(size) for size in parameter.shape)
            before = parameter.data[index].item()
            values = []
            for sign in (1, -1):
                parameter.data[index] = before + sign * step
                values.append(loss().item())
            parameter.data[index] = before
            assert parameter.grad[index].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-8)


def test_angle_of_known_motions():
    i, s = torch.randn(4, 2, requires_grad=True), torch.randn(4, 3, 2, requires_grad=True)
    equal = gradient_angle(3 * i[:, 0] + 3 * s[:, 1, 0], (i,), s)
    torch.testing.assert_close(equal, torch.full((4,), math.pi / 4))
    only_first = gradient_angle(i[:, 0] + 0 * s.sum(dim=(1, 2)), (i,), s)  # a loop: the noise changes nothing
    torch.testing.assert_close(only_first, torch.zeros(4))
    only_noise = gradient_angle(s[:, 0, 1] + 0 * i[:, 0], (i,), s)
    torch.testing.assert_close(only_noise, torch.full((4,), math.pi / 2))
    # One norm of the concatenation of all gradients: three equal ones give a factor sqrt(3).
    several = gradient_angle(i[:, 0] + s[:, :, 0].sum(dim=1), (i,), s)
    torch.testing.assert_close(several, torch.full((4,), math.atan(math.sqrt(3))))
    # A window that begins with several memories: one norm of their gradients as well.
    memories = [torch.randn(4, 3, requires_grad=True) for _ in range(4)]
    carried = gradient_angle(sum(h[:, 0] for h in memories) + s[:, 2, 1], memories, s)
    torch.testing.assert_close(carried, torch.full((4,), math.atan(1 / 2)))


def test_an_angle_above_45_degrees_costs_nothing():
    """l goes from 0 to r i + s_0 + s_1 + s_2: phi is 60 degrees for r = 1; 30 for r = 3, the penalty (45 - 30 degrees)^2."""
    i, s = torch.rand(2, 1, requires_grad=True), torch.rand(2, 3, 1, requires_grad=True)
    end = torch.tensor([[1.0], [3.0]]) * i + s.sum(dim=1)
    penalty, phi = gradient_angle_penalty(torch.stack([torch.zeros(2, 1), end], dim=1), (i,), s)
    torch.testing.assert_close(phi, torch.tensor([math.pi / 3, math.pi / 6]))
    torch.testing.assert_close(penalty, torch.tensor([0.0, (math.pi / 12) ** 2]))


def test_angle_without_any_gradient_is_zero_and_harmless():
    i = torch.randn(3, 2, requires_grad=True)
    s = torch.randn(3, 4, 2, requires_grad=True)
    scale = torch.tensor([1.0, 1e-25, 0.0], requires_grad=True)  # alive, below what float32 can square, dead
    phi = gradient_angle(scale * (i[:, 0] + s[:, 0, 0]), (i,), s)
    torch.testing.assert_close(phi, torch.tensor([math.pi / 4, 0.0, 0.0]))
    phi.sum().backward()
    assert torch.isfinite(scale.grad).all()


def test_angle_of_a_window_that_stands_still_is_harmless():
    torch.manual_seed(0)
    s = torch.randn(3, 4, 2, requires_grad=True)
    i = torch.randn(3, 2, requires_grad=True)
    speed = torch.tensor([1.0, 1e-20, 0.0], requires_grad=True)  # of each window: moves, stands but for rounding, stands
    moved = speed[:, None, None] * (i[:, None] + s.square().cumsum(dim=1))
    l = torch.cat([i[:, None], i[:, None] + moved], dim=1)
    penalty, phi = gradient_angle_penalty(l, (i,), s)
    assert phi[0] > 0
    torch.testing.assert_close(penalty[1:], torch.full((2,), (math.pi / 4) ** 2))
    penalty.sum().backward()
    for tensor in (s, i, speed):
        assert torch.isfinite(tensor.grad).all()


def test_gradient_penalty_of_linear_critic():
    weight = torch.randn(6, 4)
    real, fake = torch.randn(5, 6, 4), torch.randn(5, 6, 4)
    penalty = gradient_penalty(lambda x: (x * weight).sum(dim=(1, 2)), real, fake, torch.rand(5))
    torch.testing.assert_close(penalty, ((weight.norm() - 1) ** 2).expand(5))


def test_diversity_penalty_of_what_the_maps_see():
    """Futures before the maps A_j give the penalty and the gradients of futures behind them."""
    torch.manual_seed(0)
    t, other, maps, bias = (torch.randn(shape).double().requires_grad_(True) for shape in ((3, 9, 4), (3, 9, 4), (21, 4), (21,)))
    results = []
    for arguments in ((t @ maps.T + bias, other @ maps.T + bias, 50.0), (t, other, 50.0, False, maps)):
        penalty, apart = diversity_penalty(*arguments)
        results.append([penalty.detach(), apart, *torch.autograd.grad(penalty.sum(), (t, other, maps))])
    assert results[0][0].min() > 0
    torch.testing.assert_close(*results)


def test_diversity_penalty_of_known_futures():
    y = torch.randn(3, 30, 4)
    other = y.clone()
    other[1, 20:] += math.sqrt(0.5)  # e^2 = 0.5 / 2, what is wanted
    other[2, :20] += 100  # the first two thirds do not count
    other[2, 20:] += math.sqrt(0.125)
    other.requires_grad_(True)
    penalty, apart = diversity_penalty(y, other, 0.25)
    torch.testing.assert_close(apart, torch.tensor([0, 0.25, 0.0625]))
    torch.testing.assert_close(penalty, torch.tensor([1, 0, 0.25]), rtol=0, atol=3e-3)
    penalty.sum().backward()
    assert torch.isfinite(other.grad).all()


def test_futures_of_a_random_walk_with_memory_part_as_the_footage_says():
    """AR(1): E||y_{k+n} - y_k||^2 is seen in footage, and tells how far two futures of one present are apart."""
    random = np.random.RandomState(0)
    phi, frames = 0.95, 30
    start = random.standard_normal((20000, 1))
    ends = []
    for _ in range(2):
        y = start
        for _ in range(frames):
            y = phi * y + math.sqrt(1 - phi**2) * random.standard_normal(start.shape)
        ends.append(y)
    step = np.square(ends[0] - start).mean() / 2
    assert divergence(step) == pytest.approx(np.square(ends[0] - ends[1]).mean() / 2, rel=0.03)
    assert divergence(0) == 0
    assert divergence(1.3) == 1  # a swing to the other side is no less than unrelated


def test_critic_does_not_couple_samples():
    """A sample's score and penalty are the same whatever stands beside it in the batch."""
    torch.manual_seed(0)
    C = TemporalCritic(num_features=7, num_frames=25).double()
    x = torch.randn(4, 25, 7, dtype=torch.float64)
    torch.testing.assert_close(C(x)[:1], C(x[:1]))
    fake, mix = torch.randn_like(x), torch.rand(4, dtype=torch.float64)
    together = gradient_penalty(C, x, fake, mix)
    alone = torch.cat([gradient_penalty(C, x[n : n + 1], fake[n : n + 1], mix[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(together, alone)


def test_latent_space(tiny_latents):
    with LatentDataset(str(tiny_latents)) as dataset:
        codes = dataset.load_clip(0)
        flat = np.concatenate([dataset.load_clip(0), dataset.load_clip(1)]).reshape(-1, 48)
        space = fit_latent_space(dataset, LatentSpaceOptions(variance=0.99, whitening=1.0))
        coordinates = torch.cat([space.encode(dataset.load_clip(0)), space.encode(dataset.load_clip(1))])
    # Fully whitened coordinates: zero mean, unit covariance.
    torch.testing.assert_close(
        torch.cov(coordinates.double().T, correction=0), torch.eye(space.num_coordinates).double(), rtol=0, atol=1e-4
    )
    variances = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False) ** 2
    assert space.num_coordinates == int((np.cumsum(variances) / variances.sum() < 0.99).sum()) + 1
    back = (space.mean + space.encode(codes) @ space.basis).reshape(codes.shape)
    assert np.square(back.numpy() - codes).sum() < 0.02 * np.square(flat - flat.mean(axis=0)).sum()


def test_footage_in_pieces_is_the_same_space_and_windows(tiny_latents, monkeypatch):
    with LatentDataset(str(tiny_latents)) as dataset:
        space, codes = fit_latent_space(dataset), dataset.load_clip(0)
        whole = Windows(dataset, space, 25)
        monkeypatch.setattr('training.latents.dataset.CHECKED_AT_ONCE', 7 * 48)
        monkeypatch.setattr('training.real_windows.STEPS_AT_ONCE', 5)
        again = fit_latent_space(dataset)
        pieces = Windows(dataset, space, 25)
    torch.testing.assert_close((again.basis, again.mean), (space.basis, space.mean), rtol=0, atol=0)
    torch.testing.assert_close(pieces.coordinates, whole.coordinates)
    torch.testing.assert_close(pieces.clips[0], space.encode(codes))
    assert pieces.squared_step(24) == pytest.approx(whole.squared_step(24), rel=1e-6)
    assert pieces.clips[0].data_ptr() == pieces.coordinates.data_ptr()


def test_windows_refuse_short_footage(tiny_latents):
    with LatentDataset(str(tiny_latents)) as dataset:
        space = fit_latent_space(dataset)
        assert len(Windows(dataset, space, 25)) == 66 + 36
        left_out = Windows(dataset, space, 70)
        assert left_out.short_clips == ['second']
        sample = left_out.sample(50, torch.Generator().manual_seed(0))
        assert sample.shape == (50, 70, space.num_coordinates)
        backwards = left_out.sample(50, torch.Generator().manual_seed(0), reversal=1.0)
        torch.testing.assert_close(backwards.flip(1), sample)
        clips = [clip.double().numpy() for clip in left_out.clips]  # 'first' alone
        assert left_out.squared_step(3) == pytest.approx(np.square(clips[0][3:] - clips[0][:-3]).mean() / 2, rel=1e-5)
        assert left_out.squared_step(500) == left_out.squared_step(89)
        with pytest.raises(InputError, match=r"'first', has 90 frames, fewer than the window of 91"):
            Windows(dataset, space, 91)


def test_critic_sees_motion_in_its_own_unit(tiny_latents):
    with LatentDataset(str(tiny_latents)) as dataset:
        space = fit_latent_space(dataset)
        windows = Windows(dataset, space, 60)  # the second clip is one window
    K = space.num_coordinates
    y = torch.stack([windows.coordinates[start : start + 60] for start in windows.starts])
    (view,) = windows.views(y, 0.5)
    torch.testing.assert_close(view[..., :K], y)
    assert view[:, 0, K:].abs().max() == 0
    torch.testing.assert_close(view[:, 1:, K:], 0.5 * (y[:, 1:] - y[:, :-1]) / windows.motion_units[0])
    clips = [torch.diff(clip, dim=0) / windows.motion_units[0] for clip in windows.clips]
    torch.testing.assert_close(torch.cat(clips).square().mean(dim=0), torch.ones(K))
    torch.testing.assert_close(windows.views(y, 0.0)[0], y)


def test_critics_see_several_spacings_that_end_together(tiny_latents):
    """Spacing 4 sees frames 0, 4, .. of a span, spacing 1 its last ones; motion has a unit of its own for each."""
    with LatentDataset(str(tiny_latents)) as dataset:
        windows = Windows(dataset, fit_latent_space(dataset), 9, strides=(4, 1))
    assert (windows.strides, windows.span, windows.past_frames) == ([1, 4], 33, 24)
    y = windows.sample(20, torch.Generator().manual_seed(0))
    near, far = windows.views(y, 0.0)
    torch.testing.assert_close(near, y[:, -9:])
    torch.testing.assert_close(far, y[:, ::4])
    _, far = windows.views(torch.cat([torch.zeros_like(y[:, :5]), y], dim=1), 2.0)  # what lies before the span does not count
    K = y.shape[2]
    torch.testing.assert_close(far[:, 1:, K:] * windows.motion_units[1] / 2, y[:, 4::4] - y[:, :-4:4])
    steps = torch.cat([(clip[4:] - clip[:-4]) / windows.motion_units[1] for clip in windows.clips])
    torch.testing.assert_close(steps.square().mean(dim=0), torch.ones(K))


def test_spacings_that_the_footage_is_too_short_for_are_left_out():
    assert affordable_strides([100, 100], 25, (4, 1)) == [1]  # 97 frames fit, but there is one such window and its neighbours
    assert affordable_strides([140], 25, (1, 4)) == [1, 4]
    assert affordable_strides([140, 20], 25, (1, 4)) == [1, 4]  # a clip without any window does not count
    assert affordable_strides([140, 40], 25, (1, 4)) == [1]  # more than a tenth would be lost
    assert affordable_strides([30], 25, (3,)) == [1]


def test_memories_begin_with_spread_time_constants():
    torch.manual_seed(0)
    G = make_generator(hidden_dim=64)
    before = G.H[-1].weight.clone()
    prepare_memories(G, 50.0)
    torch.testing.assert_close(G.H[-1].weight, 0.25 * before)
    cell = G.cells[0]
    biases = cell.bias_ih[64:128] + cell.bias_hh[64:128]
    frames = (1 + biases.exp()).log()  # of the time constant 1 / (1 - z)
    assert frames.min() < 1
    assert frames.max() > math.log(30)
    assert cell.bias_hh[64:128].abs().max() == 0


def test_chains_go_on_where_they_were_and_remember_their_past():
    torch.manual_seed(0)
    G = make_generator(num_components=2)
    G.set_data_basis(torch.zeros(15), torch.eye(2, 15))
    G = G.float()
    chains = VideoChains(G, 6, past_frames=10, burn_in=5, random=torch.Generator().manual_seed(1))
    chosen = torch.tensor([4, 1])
    before = chains.past.clone()
    l, states = G.rollout(torch.randn(2, 7, G.noise_dim), chains.states(chosen))
    y = G.coordinates(l).detach()
    torch.testing.assert_close(chains.with_past(chosen, y), torch.cat([before[chosen], y], dim=1))
    chains.advance(chosen, states[3], y[:, :3])
    torch.testing.assert_close(chains.memories[-1][chosen], l[:, 3])
    torch.testing.assert_close(chains.past[chosen], torch.cat([before[chosen, 3:], y[:, :3]], dim=1))
    others = torch.tensor([0, 2, 3, 5])
    assert torch.equal(chains.past[others], before[others])
    # The next frame of the chain is the one that comes after its past, with no frame twice or left out.
    again, _ = G.rollout(torch.zeros(2, 1, G.noise_dim), chains.states(chosen))
    torch.testing.assert_close(G.coordinates(again[:, 0]), y[:, 3])
    kept = chains.past[others].clone()
    chains.restart(G, chosen)
    assert torch.equal(chains.past[others], kept)
    assert not torch.isclose(chains.past[chosen][:, -3:], y[:, :3]).all(dim=-1).any()
    drawn = chains.draw(6)
    assert sorted(drawn.tolist()) == list(range(6))


def test_distortion_is_an_affine_map_of_each_window():
    """Differences within a window all turn and stretch alike; its size is that of the deviations, on average over windows."""
    footage = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.2]) + 7
    distort = Distortion(footage, 0.3)
    y = torch.stack([footage[begin : begin + 6] for begin in range(400)])
    seen = distort(y, 400, slice(400), torch.Generator().manual_seed(1))
    for before, after in zip(y[:5], seen[:5], strict=True):
        maps, _, rank, _ = torch.linalg.lstsq(torch.diff(before, dim=0), torch.diff(after, dim=0), driver='gelsd')
        assert int(rank) == 3  # five differences, all by one map
        torch.testing.assert_close(torch.diff(before, dim=0) @ maps, torch.diff(after, dim=0), rtol=1e-3, atol=1e-3)
        assert (maps - torch.eye(3)).abs().max() > 0.02
    moved = (seen.mean(dim=1) - y.mean(dim=1)) / distort.deviation
    torch.testing.assert_close(moved.mean(dim=0), torch.zeros(3), atol=0.08, rtol=0)
    assert 0.25 < moved.std(dim=0).min() < moved.std(dim=0).max() < 0.45
    part = distort(y[100:200], 400, slice(100, 200), torch.Generator().manual_seed(1))
    torch.testing.assert_close(part, seen[100:200])  # a rank's share
    assert Distortion(footage, 0)(y, 400, slice(400), None) is y


@pytest.mark.parametrize(('carry', 'static', 'motion_weight'), [(0.0, False, 1.0), (0.5, True, 1.0), (1.0, False, 0.0)])
def test_steps_on_whole_codes_and_on_their_factors_are_equal(tiny_latents, monkeypatch, carry, static, motion_weight):
    results = []
    for wide in (10**6, 8):
        monkeypatch.setattr('training.temporal_trainer.WIDE', wide)
        monkeypatch.setattr('training.kernels.critic.critic_gradients.WIDE', wide)
        trainer = make_trainer(tiny_latents, full=True, static=static, carry=carry, motion_weight=motion_weight)
        assert (trainer._whole_codes is not None) == (wide == 8)
        for module in (trainer.G, trainer.critics):
            for parameter in module.parameters():
                if parameter.ndim == 1:  # biases begin at zero, where a wrong one would not show
                    parameter.data.add_(0.1)
        for optimizer in (trainer.G_optimizer, trainer.C_optimizer):
            optimizer.param_groups[0]['betas'] = (0.0, 0.999)
            optimizer.param_groups[0]['eps'] = 1.0  # the step is about the gradient then, not about its sign
        for _ in range(3):
            trainer.step()
        results.append([*trainer.G.parameters(), *trainer.critics.parameters()])
    for plain, factored in zip(*results, strict=True):
        torch.testing.assert_close(plain, factored, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('wide', [False, True])
def test_resumed_steps_equal_uninterrupted_ones(tiny_latents, tmp_path, monkeypatch, wide):
    strides = (1,)
    if wide:  # whole codes, whose chains keep their past in rings
        strides = (1, 3)
        monkeypatch.setattr('training.temporal_trainer.WIDE', 8)
        monkeypatch.setattr('training.kernels.critic.critic_gradients.WIDE', 8)
    straight = make_trainer(tiny_latents, full=wide, strides=strides)
    for _ in range(7):
        straight.step()
    first = make_trainer(tiny_latents, full=wide, strides=strides)
    for _ in range(3):
        first.step()
    torch.save(first.state_dict(), tmp_path / 'state.pt')
    state = torch.load(tmp_path / 'state.pt', weights_only=True)
    second = make_trainer(tiny_latents, full=wide, strides=strides)
    second.load_state_dict(state, state)
    for _ in range(4):
        second.step()
    for name in ('G', 'G_ema', 'critics'):
        for a, b in zip(getattr(straight, name).parameters(), getattr(second, name).parameters(), strict=True):
            assert torch.equal(a, b), name


@pytest.mark.parametrize('carry', [0.0, 0.5, 1.0])
def test_a_share_of_the_windows_continues_chains(tiny_latents, carry):
    trainer = make_trainer(tiny_latents, carry=carry)
    trainer.step()
    chains = None if trainer.chains is None else {tuple(row.tolist()) for row in trainer.chains.memories[-1]}
    assert (chains is None) == (carry == 0)
    _, states, chosen = trainer._generate(8)
    begun = [tuple(row.tolist()) in (chains or set()) for row in states[0][-1]]
    assert begun == [False] * round(8 * (1 - carry)) + [True] * round(8 * carry)
    assert len(chosen) == round(8 * carry)
    finished = trainer.finished()
    assert finished.burn_in == 0 or carry == 1


def test_states_of_ranks_that_had_chains_of_their_own(tiny_latents):
    """Version 0.2 saved one part a rank."""
    trainer = make_trainer(tiny_latents)
    whole = trainer.rank_state()
    half = trainer.chains.num_chains // 2
    parts = [
        {
            'random': whole['random'],
            'chains': {'memories': [h[rows] for h in whole['chains']['memories']], 'past': whole['chains']['past'][rows]},
        }
        for rows in (slice(0, half), slice(half, None))
    ]
    merged = trainer.merge_rank_states(parts)['chains']
    assert all(torch.equal(a, b) for a, b in zip(merged['memories'], whole['chains']['memories'], strict=True))
    trainer.load_state_dict(trainer.state_dict(), trainer.merge_rank_states(parts))
    assert trainer.merge_rank_states(parts[:1])['chains'] is parts[0]['chains']
    assert trainer.merge_rank_states([*parts, parts[0]])['chains'] is None  # they cannot be these chains: new ones begin


def test_long_views_reach_into_the_past_of_the_chains(tiny_latents):
    trainer = make_trainer(tiny_latents, strides=(1, 3))
    assert len(trainer.critics) == 2
    for _ in range(3):
        trainer.step()
    past = trainer.chains.past.clone()
    y, _, chosen = trainer._generate(4)
    assert torch.equal(y[:, : trainer.windows.past_frames], past[chosen])
    assert y.shape[1] == trainer.windows.span
    for C in trainer.critics:
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in list(C.parameters())[:2])


def test_two_futures_of_one_moment_part(tiny_latents):
    """A generator that hardly hears its noise, as one in a limit cycle, learns to listen."""

    def apart(weight: float) -> float:
        torch.manual_seed(0)
        trainer = make_trainer(tiny_latents, lambda_diversity=weight, diversity=1.0, gap_interval=1)
        with torch.no_grad():
            trainer.G.cells[0].weight_ih.mul_(0.05)
        for _ in range(30):
            trainer.step()
        state = tuple(torch.cat([h, h]) for h in trainer.chains.memories)
        y, other = trainer.G.coordinates(trainer.G.rollout(torch.randn(len(state[0]), 8, 8), state)[0]).chunk(2)
        return float(diversity_penalty(y, other, 1.0)[1].mean())

    assert apart(30.0) > 3 * apart(0.0)


def test_training_learns_the_spread_of_the_data(tiny_latents):
    """The critic's gradient moves the generator: its windows come nearer to the real ones in mean and variance."""
    trainer = make_trainer(
        tiny_latents,
        batch=32,
        critic_steps=2,
        distortion=0.0,
        lambda_gap=0.0,
        lambda_diversity=0.0,
        motion_weight=0.0,
        carry=0.0,
        longest_memory=0.0,
        generator_lr=5e-3,
        critic_lr=5e-3,
        decay=0.0,
    )
    real = trainer.windows.coordinates

    def spread_error() -> float:
        noise = torch.Generator().manual_seed(1)
        i = torch.randn(256, 8, generator=noise)
        l, _ = trainer.G.rollout(torch.randn(256, 8, 8, generator=noise), trainer.G.initial_state(i))
        y = trainer.G.coordinates(l).detach().flatten(0, 1)
        return float(
            ((y.std(dim=0) - real.std(dim=0)) / real.std(dim=0)).abs().mean()
            + ((y.mean(dim=0) - real.mean(dim=0)) / real.std(dim=0)).abs().mean()
        )

    before = spread_error()
    for _ in range(150):
        trainer.step()
    assert spread_error() < 0.6 * before


def test_critics_of_long_footage_are_weighed_by_their_spacing():
    """Known weights, and who gets them: seconds of footage hold too few windows of the large spacings."""
    assert critic_weights([1, 4, 16], 1.0) == pytest.approx([1 / 7, 4 / 7, 16 / 7])
    assert critic_weights([1, 4, 16], 0.0) == [1, 1, 1]
    lengths = {seconds: SimpleNamespace(num_frames=seconds * 30, fps=30.0) for seconds in (59, 61)}
    assert {seconds: suited_settings(dataset).stride_power for seconds, dataset in lengths.items()} == {59: 0.0, 61: 1.25}
