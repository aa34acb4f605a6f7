"""Widening network and maps in C++ against LatentGenerator.coordinates in float64."""

import pytest
import torch

from networks.latent_generator import LatentGenerator
from training.kernels import native_code
from training.kernels.fast_decoder import coordinates, widened


@pytest.fixture(autouse=True)
def compiled():
    if native_code.load('temporal_kernels') is None:
        pytest.skip('there is no C++ compiler')


@pytest.mark.parametrize(
    'kwargs',
    [
        {'num_components': 16},
        {'latent_dim': 7, 'widening_widths': [5, 33], 'num_components': 3},
        {'widening_widths': [], 'num_components': 2},
        {'widening_widths': [40]},
    ],
)
@pytest.mark.parametrize('shape', [(), (1,), (9, 29), (2, 3, 50)])
def test_values_and_gradients(kwargs, shape):
    torch.manual_seed(2)
    G = LatentGenerator(2, 5, **kwargs).double()
    for parameter in G.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    l = torch.randn(*shape, G.latent_dim).double().requires_grad_(True)
    inputs = [l, *G.T.parameters(), *G.A.parameters()]
    expected, found = G.coordinates(l), coordinates(G, l)
    assert '_Stack' in found.grad_fn.next_functions[0][0].name()
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), inputs), torch.autograd.grad((expected * weights).sum(), inputs)
    )
    with torch.no_grad():
        torch.testing.assert_close(coordinates(G, l), expected.detach())
    only_parameters = torch.autograd.grad(coordinates(G, l.detach()).sum(), inputs[1:])
    torch.testing.assert_close(only_parameters, torch.autograd.grad(G.coordinates(l).sum(), inputs[1:]))


@pytest.mark.parametrize('widths', [[5, 33], [40]])
def test_widened(widths):
    """What the maps see ends with an activation, unlike coordinates."""
    torch.manual_seed(2)
    G = LatentGenerator(2, 5, latent_dim=7, widening_widths=widths).double()
    l = torch.randn(9, 29, 7).double().requires_grad_(True)
    inputs = [l, *G.T.parameters()]
    expected, found = G.T(l), widened(G, l)
    assert '_Stack' in found.grad_fn.next_functions[0][0].name()
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), inputs), torch.autograd.grad((expected * weights).sum(), inputs)
    )
    assert torch.equal(widened(LatentGenerator(2, 5, widening_widths=[]), l.float()[..., :5]), l.float()[..., :5])


@pytest.mark.parametrize('case', ['activation', 'hook', 'no compiler', 'empty'])
def test_falls_back(case, monkeypatch):
    G = LatentGenerator(2, 5, widening_widths=[8])
    l = torch.randn(4, 32)
    if case == 'activation':
        G.T[1] = torch.nn.Tanh()
    elif case == 'hook':
        G.T[0].register_forward_hook(lambda module, arguments, output: 2 * output)
    elif case == 'no compiler':
        monkeypatch.setattr(native_code, 'enabled', False)
    else:
        l = l[:0]
    assert torch.equal(coordinates(G, l), G.coordinates(l))
    assert torch.equal(widened(G, l), G.T(l))
