"""Latent generator, temporal critic, their losses, and a training step: known values and properties."""

import math

import numpy as np
import pytest
import torch

from networks.errors import InputError
from networks.latent_generator import GatedRecurrentCell, LatentGenerator
from networks.temporal_critic import TemporalCritic
from training.latent_space import Windows, fit_latent_space
from training.latents.dataset import LatentDataset
from training.temporal_loss import divergence, diversity_penalty, gradient_angle, gradient_angle_penalty, gradient_penalty
from training.temporal_options import LatentSpaceOptions, Settings
from training.temporal_trainer import TemporalTrainer


def make_generator(**kwargs) -> LatentGenerator:
    torch.manual_seed(3)
    arguments = {
        'num_ws': 3,
        'w_dim': 5,
        'latent_dim': 6,
        'noise_dim': 6,
        'hidden_dim': 6,
        'initial_widths': [8],
        'widening_widths': [8, 12],
        **kwargs,
    }
    return LatentGenerator(**arguments).double()


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
    view = windows.critic_view(y, 0.5)
    torch.testing.assert_close(view[..., :K], y)
    assert view[:, 0, K:].abs().max() == 0
    torch.testing.assert_close(view[:, 1:, K:], 0.5 * (y[:, 1:] - y[:, :-1]) / windows.motion_unit)
    clips = [torch.diff(clip, dim=0) / windows.motion_unit for clip in windows.clips]
    torch.testing.assert_close(torch.cat(clips).square().mean(dim=0), torch.ones(K))
    assert windows.critic_view(y, 0.0) is y


def make_trainer(tiny_latents, **settings) -> TemporalTrainer:
    with LatentDataset(str(tiny_latents)) as dataset:
        space = fit_latent_space(dataset)
        windows = Windows(dataset, space, 9)
    return TemporalTrainer(
        G_kwargs={'num_ws': 6, 'w_dim': 8, 'latent_dim': 8, 'noise_dim': 8, 'hidden_dim': 8, 'widening_widths': [16]},
        C_kwargs={'narrowing_widths': [8], 'temporal_channels': [8]},
        space=space,
        windows=windows,
        settings=Settings(**{'batch': 8, 'pool': 2, **settings}),
        total_kimg=100,
        seed=5,
    )


def test_resumed_steps_equal_uninterrupted_ones(tiny_latents, tmp_path):
    straight = make_trainer(tiny_latents)
    for _ in range(7):
        straight.step()
    first = make_trainer(tiny_latents)
    for _ in range(3):
        first.step()
    torch.save(first.state_dict(), tmp_path / 'state.pt')
    state = torch.load(tmp_path / 'state.pt', weights_only=True)
    second = make_trainer(tiny_latents)
    second.load_state_dict(state, state)
    for _ in range(4):
        second.step()
    for name in ('G', 'G_ema', 'C'):
        for a, b in zip(getattr(straight, name).parameters(), getattr(second, name).parameters(), strict=True):
            assert torch.equal(a, b), name


def test_carried_windows_go_on_where_earlier_ones_were(tiny_latents):
    trainer = make_trainer(tiny_latents, carry=0.5, batch=8)
    assert trainer._first_states(8)[-1].shape == (8, 8)
    trainer.step()
    kept = {tuple(row.tolist()) for row in trainer.pool[-1]}
    carried = [tuple(row.tolist()) in kept for row in trainer._first_states(8)[-1]]
    assert carried == [False] * 4 + [True] * 4


def test_two_futures_of_one_moment_part(tiny_latents):
    """A generator that hardly hears its noise, as one in a limit cycle, learns to listen."""

    def apart(weight: float) -> float:
        torch.manual_seed(0)
        trainer = make_trainer(tiny_latents, lambda_diversity=weight, diversity=1.0, gap_interval=1)
        with torch.no_grad():
            trainer.G.cells[0].weight_ih.mul_(0.05)
        for _ in range(30):
            trainer.step()
        state = tuple(torch.cat([h, h]) for h in trainer.pool)
        y, other = trainer.G.coordinates(trainer.G.rollout(torch.randn(len(state[0]), 8, 8), state)[0]).chunk(2)
        return float(diversity_penalty(y, other, 1.0)[1].mean())

    assert apart(30.0) > 3 * apart(0.0)


def test_training_learns_the_spread_of_the_data(tiny_latents):
    """The critic's gradient moves the generator: its windows come nearer to the real ones in mean and variance."""
    trainer = make_trainer(
        tiny_latents,
        batch=32,
        lambda_gap=0.0,
        lambda_diversity=0.0,
        motion_weight=0.0,
        carry=0.0,
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
