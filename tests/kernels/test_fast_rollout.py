"""The generator's recurrence in C++ against LatentGenerator.rollout in float64: values, first and second derivatives."""

import pytest
import torch

from networks.latent_generator import LatentGenerator
from training.kernels import native_code
from training.kernels.recurrence import fast_rollout
from training.kernels.recurrence.fast_rollout import rollout
from training.temporal_loss import gradient_angle_penalty

SIZES = [
    {},
    {'latent_dim': 7, 'noise_dim': 5, 'hidden_dim': 9},
    {'latent_dim': 33, 'num_cells': 2},
    {'num_cells': 3, 'hidden_dim': 17, 'noise_dim': 40},
]


@pytest.fixture(autouse=True)
def compiled():
    if native_code.load('temporal_kernels') is None:
        pytest.skip('there is no C++ compiler')


def make(kwargs, count: int, steps: int) -> tuple[LatentGenerator, torch.Tensor, torch.Tensor]:
    torch.manual_seed(8)
    G = LatentGenerator(2, 5, num_components=3, **kwargs).double()
    for parameter in G.P.parameters():  # beyond where the gates are linear
        parameter.data.mul_(4)
    s = torch.randn(count, steps, G.noise_dim).double().requires_grad_(True)
    return G, s, torch.randn(count, G.latent_dim).double().requires_grad_(True)


def both(G, s, i, measure):
    """`measure` of the plain and of the compiled rollout."""
    results = []
    for form in (G.rollout, lambda s, state: rollout(G, s, state)):
        results.append(measure(*form(s, G.initial_state(i))))
    return results


@pytest.mark.parametrize('kwargs', SIZES)
@pytest.mark.parametrize(('count', 'steps'), [(1, 1), (5, 4), (67, 6)])
def test_values_and_gradients(kwargs, count, steps):
    G, s, i = make(kwargs, count, steps)
    weights = torch.randn(count, steps + 1, G.latent_dim).double()
    inputs = [s, i, *G.H.parameters(), *G.P.parameters()]

    def measure(l, states):
        value = (l.sin() * weights).sum() + sum(h.square().sum() for h in states[steps // 2]) + states[-1][0].sum()
        return [l, *states[-1], *states[0], *torch.autograd.grad(value, inputs, allow_unused=True)]

    plain, fast = both(G, s, i, measure)
    assert fast[0].grad_fn.name() != plain[0].grad_fn.name()
    for a, b in zip(fast, plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)
    with torch.no_grad():
        l, states = rollout(G, s, G.initial_state(i))
    torch.testing.assert_close(l, plain[0])
    assert len(states) == steps + 1
    assert not l.requires_grad


@pytest.mark.parametrize('kwargs', SIZES)
def test_second_derivatives(kwargs):
    """The gradient angle penalty, and another function of gradients and values whose own second derivatives matter."""
    G, s, i = make(kwargs, 35, 5)
    wanted = [s, i, *G.H.parameters(), *G.P.parameters()]

    def measure(l, states):
        penalty, _ = gradient_angle_penalty(l, (i,), s)
        found = list(torch.autograd.grad(penalty.sum(), wanted, retain_graph=True, allow_unused=True))
        first = torch.autograd.grad(l.sin().sum() + states[2][0].square().sum(), (s, i), create_graph=True)
        value = (first[0].square().sum() + first[1].sin().sum()) * l.cos().sum()
        return found + list(torch.autograd.grad(value, wanted, allow_unused=True))

    plain, fast = both(G, s, i, measure)
    for a, b in zip(fast, plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * (1 + float(b.abs().max())))


def test_gradients_of_weight_gradients():
    """Nobody needs them in training, but an operation must not be silently wrong."""
    G, s, i = make({'latent_dim': 4, 'noise_dim': 4, 'hidden_dim': 4}, 3, 3)
    weights = list(G.P.parameters())

    def measure(l, states):
        first = torch.autograd.grad(l.sin().sum(), [s, *weights], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), [s, i, *weights])

    plain, fast = both(G, s, i, measure)
    torch.testing.assert_close(fast, plain)


def test_saturated_gates_stay_finite():
    G, s, i = make({}, 4, 3)
    for dtype in (torch.float32, torch.float64):
        G.to(dtype)
        for size in (1e2, 1e5):
            l, _ = rollout(G, s.detach().to(dtype) * size, G.initial_state(i.detach().to(dtype)))
            expected, _ = G.rollout(s.detach().to(dtype) * size, G.initial_state(i.detach().to(dtype)))
            torch.testing.assert_close(l, expected, rtol=1e-3, atol=1e-3)


def test_single_precision_is_as_exact_as_the_plain_form():
    G, s, i = make({}, 64, 24)
    exact = G.rollout(s, G.initial_state(i))[0]
    G, s, i = G.float(), s.float(), i.float()
    plain, fast = both(G, s, i, lambda l, states: float((l - exact).detach().abs().max()))
    assert fast < 2 * plain + 1e-6


class OtherGenerator(LatentGenerator):
    def step(self, s, state):
        memories, x = super().step(s, state)
        return memories, 2 * x


@pytest.mark.parametrize('case', ['subclass', 'no steps', 'hook', 'no compiler'])
def test_falls_back(case, monkeypatch):
    G, s, i = make({}, 3, 4)
    if case == 'subclass':
        G.__class__ = OtherGenerator
    elif case == 'no steps':
        s = s[:, :0]
    elif case == 'hook':
        G.P[0].register_forward_hook(lambda module, arguments, output: output)
    else:
        monkeypatch.setattr(native_code, 'enabled', False)
    l, states = rollout(G, s, G.initial_state(i))
    assert not isinstance(states, fast_rollout.States)
    assert torch.equal(l, G.rollout(s, G.initial_state(i))[0])
