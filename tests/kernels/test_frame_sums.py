"""A wide first layer on frames and their motion: fewer products, the same numbers."""

import pytest
import torch
from test_critic_gradients import by_definition, make_critic

from training.kernels.critic import frame_sums
from training.kernels.critic.critic_gradients import critic_gradients, critic_scores
from training.kernels.critic.frame_sums import FIRST, FirstLayer, _before, _Plan, first_layer
from training.kernels.critic.wide_products import wide_kernels
from training.kernels.critic.wide_windows import Chosen, Factored, Frames, Joined, WithMotion

LIBRARY = 'wide_kernels'


@pytest.fixture
def library():
    found = wide_kernels(torch.float64)
    return found if found is not None else pytest.skip('there is no C++ compiler')


@pytest.mark.parametrize('motion', [False, True])
@pytest.mark.parametrize('earlier', [1, 2, 7])
def test_windows_that_begin_with_frames_of_the_past(form, motion, earlier):
    """Critic and generator, whose newest frames are factors and whose oldest are there."""
    C = make_critic(num_features=1030, num_frames=9)
    size = 515 if motion else 1030
    t, A, b = (torch.randn(shape).double().requires_grad_(True) for shape in ((5, 9 - earlier, 6), (size, 6), (size,)))
    fake = Joined(Frames(torch.randn(5, earlier, size).double()), Factored(t, A, b))
    index = torch.arange(9) * 2 + torch.tensor([0, 4, 1, 2, 7]).unsqueeze(1)
    index[3] = index[3].flip(0)
    real = Chosen(torch.randn(24, size).double(), index)
    if motion:
        unit = torch.rand(size).double()
        fake, real = WithMotion(fake, unit), WithMotion(real, unit)
    mix, weight = torch.rand(5).double(), torch.randn(5).double()
    expected, gradients = by_definition(C, real.dense(), fake.dense().detach(), mix, 10.0)
    torch.testing.assert_close(critic_gradients(C, real, fake, mix, 10.0), expected)
    torch.testing.assert_close([p.grad for p in C.parameters()], list(gradients))
    wanted = torch.autograd.grad((C(fake.dense()) * weight).sum(), (t, A, b))
    scores = critic_scores(C, fake)
    torch.testing.assert_close(scores, C(fake.dense()))
    torch.testing.assert_close(torch.autograd.grad((scores * weight).sum(), (t, A, b)), wanted)


def test_three_frames_take_four_products(library):
    """What the saving is: six without it, and two for the frame with which a window begins, which has no motion, one."""
    for steps, products in ((0, 0), (1, 2), (2, 3), (3, 4), (4, 6), (24, 32)):
        frames = torch.arange(steps + 1).expand(4, -1)  # four windows that show the same
        for index in (frames, frames.flip(1), 3 * frames):
            assert _Plan(library, index, _before(index, True, FIRST)).rows == 1 + products
    there_and_back = torch.tensor([[0, 1, 2, 3, 2, 1, 0]])
    assert _Plan(library, there_and_back, _before(there_and_back, True, FIRST)).rows == 1 + 4 + 4
    stands_still = torch.tensor([[5, 5, 5]])
    assert _Plan(library, stands_still, _before(stands_still, True, FIRST)).rows == 1 + 2


@pytest.mark.parametrize('size', [3, 400, 1100])
@pytest.mark.parametrize('outputs', [1, 19, 64])
def test_sizes_of_all_kinds(library, size, outputs):
    torch.manual_seed(size + outputs)
    index = torch.randint(30, (6, 1)) + torch.arange(11)
    unit, weight = torch.rand(size).double(), torch.randn(outputs, 2 * size).double()
    x = WithMotion(Chosen(torch.randn(40, size).double(), index), unit)
    y = WithMotion(Factored(torch.randn(4, 5, 9).double(), torch.randn(size, 9).double(), torch.randn(size).double()), unit)
    layer = first_layer(weight, x, y)
    assert layer is not None
    gram, inner, common = layer.products(y.y, gram=True)
    torch.testing.assert_close(gram, weight @ weight.t())
    torch.testing.assert_close(layer.sums(x, None, None), x.dense() @ weight.t())
    torch.testing.assert_close(layer.sums(y, inner, common), y.dense() @ weight.t())
    g, h, outer = (torch.randn(shape).double() for shape in ((6, 11, outputs), (4, 5, outputs), (outputs, outputs)))
    found = torch.full_like(weight, torch.nan)
    layer.gradient(x, g, y, h, outer, found)
    wanted = torch.einsum('nto,ntf->of', g, x.dense()) + torch.einsum('nto,ntf->of', h, y.dense()) + outer @ weight
    torch.testing.assert_close(found, wanted)


def test_threads_change_no_number(library, monkeypatch):
    torch.manual_seed(0)
    index = torch.randint(200, (30, 1)) + torch.arange(25)
    y, unit, weight = torch.randn(225, 700), torch.rand(700), torch.randn(64, 1400)
    maps = Factored(torch.randn(30, 25, 50), torch.randn(700, 50), torch.randn(700))
    g, outer = torch.randn(30, 25, 64), torch.randn(64, 64)
    results = []
    for threads in (1, 2, 5, 40):
        monkeypatch.setattr(frame_sums, 'threads_for', lambda products, number=threads: number)
        layer = FirstLayer(wide_kernels(torch.float32), weight, unit)
        real, fake = WithMotion(Chosen(y, index), unit), WithMotion(maps, unit)
        gram, inner, common = layer.products(maps, gram=True)
        gradient = torch.empty_like(weight)
        layer.gradient(real, g, fake, g, outer, gradient)
        sums = layer.sums(fake, inner, common)
        results.append(
            (gram, inner, common, layer.sums(real, None, None), sums, gradient, *layer.back_to_factors(g, maps.t, inner, False))
        )
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
