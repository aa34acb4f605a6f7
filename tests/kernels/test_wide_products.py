"""Products of wide matrices in C++ against PyTorch's, in float64."""

import pytest
import torch

from training.kernels.critic import wide_products
from training.kernels.critic.wide_products import times, times_transposed, transposed_times

LIBRARY = 'wide_kernels'
pytestmark = pytest.mark.usefixtures('form')


@pytest.mark.parametrize('rows', [1, 7, 200])
@pytest.mark.parametrize('depth', [1, 384, 401])
@pytest.mark.parametrize('columns', [1, 128, 309])
def test_products(rows, depth, columns):
    torch.manual_seed(rows + depth + columns)
    a, b = torch.randn(rows, depth).double(), torch.randn(columns, depth).double()
    expected = a @ b.T
    torch.testing.assert_close(times_transposed(a, b), expected)
    torch.testing.assert_close(times(a, b.T), expected)
    torch.testing.assert_close(transposed_times(a.T, b.T), expected)
    there = torch.randn_like(expected)
    for product in (times_transposed(a, b, onto=there.clone()), transposed_times(a.T, b.T, onto=there.clone())):
        torch.testing.assert_close(product, expected + there)


def test_rows_of_a_larger_tensor():
    torch.manual_seed(0)
    y, index = torch.randn(40, 333).double(), torch.randint(40, (55,))
    b, g = torch.randn(21, 333).double(), torch.randn(55, 21).double()
    torch.testing.assert_close(times_transposed(y, b, index), y[index] @ b.T)
    torch.testing.assert_close(transposed_times(g, y, index), g.T @ y[index])


def test_threads_change_no_number(form, monkeypatch):
    """Who computes which rows is no part of the result; PyTorch's own products are not held to that."""
    if form == 'PyTorch':
        return
    torch.manual_seed(0)
    a, b = torch.randn(600, 1500), torch.randn(128, 1500)
    results = []
    for threads in (1, 2, 5, 40):
        monkeypatch.setattr(wide_products, 'threads_for', lambda products, number=threads: number)
        results.append((times_transposed(a, b), times(a.T, a), transposed_times(a[:, :70], a)))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
