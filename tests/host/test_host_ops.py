"""Operations against naive loops and explicit formulas in float64, and their first and second gradients."""

import itertools

import numpy as np
import pytest
import torch

from torch_utils.ops import bias_act, conv2d_gradfix, conv2d_resample, filtered_lrelu, fma, grid_sample_gradfix, upfirdn2d

# ----------------------------------------------------------------------------
# upfirdn2d.


def naive_upfirdn2d(x, f, up, down, padding, flip_filter, gain):
    """Definition, one output pixel at a time: x [H, W], f [h, w], up = (x, y), padding = (x0, x1, y0, y1)."""
    height, width = x.shape
    x0, x1, y0, y1 = padding
    image = {}
    for i, j in itertools.product(range(height), range(width)):
        image[i * up[1] + y0, j * up[0] + x0] = x[i, j]
    padded_height, padded_width = height * up[1] + y0 + y1, width * up[0] + x0 + x1
    taps = [(k, l, gain * (f if flip_filter else f[::-1, ::-1])[k, l]) for k, l in np.ndindex(*f.shape)]
    out = np.zeros([(padded_height - f.shape[0]) // down[1] + 1, (padded_width - f.shape[1]) // down[0] + 1])
    for i, j in np.ndindex(*out.shape):
        for k, l, weight in taps:
            out[i, j] += weight * image.get((i * down[1] + k, j * down[0] + l), 0.0)
    return out


CASES = [
    {},
    {'up': 2, 'padding': [2, 1, 2, 1], 'gain': 4},
    {'down': 2, 'padding': 1},
    {'up': (2, 1), 'down': (1, 3), 'padding': [3, 2], 'flip_filter': True},
    {'up': 3, 'down': 2, 'padding': [-1, 4, 2, -2], 'gain': 0.5},
    {'up': (1, 2), 'padding': [0, 5, 3, 0]},
    {'up': 2, 'down': 2, 'padding': [2, 2, 1, 3]},
    {'up': 4, 'padding': [5, 6, 6, 5], 'flip_filter': True},
    {'down': 4, 'padding': 4},
]


@pytest.mark.parametrize('taps', [(1,), (4,), (9,), (4, 4), (3, 5)], ids=str)
@pytest.mark.parametrize('case', CASES, ids=lambda case: ' '.join(f'{k}={v}' for k, v in case.items()) or 'plain')
def test_upfirdn2d_is_its_definition(case, taps):
    random = np.random.RandomState(1)
    x = random.randn(2, 1, 7, 9)
    f = random.randn(*taps).astype(np.float32)
    f2d = f.astype(np.float64) if f.ndim == 2 else np.outer(f.astype(np.float64), f)
    up, down = (upfirdn2d._parse_scaling(case.get(key, 1)) for key in ('up', 'down'))
    padding = case.get('padding', 0)
    padding = [padding] * 4 if isinstance(padding, int) else padding
    padding = [padding[0], padding[0], padding[1], padding[1]] if len(padding) == 2 else padding
    height, width = 7 * up[1] + padding[2] + padding[3], 9 * up[0] + padding[0] + padding[1]
    if height < f2d.shape[0] or width < f2d.shape[1]:
        with pytest.raises(ValueError, match='smaller than the filter'):
            upfirdn2d.upfirdn2d(torch.tensor(x), torch.tensor(f), **case)
        return
    expected = [
        [naive_upfirdn2d(plane, f2d, up, down, padding, case.get('flip_filter', False), case.get('gain', 1)) for plane in image]
        for image in x
    ]
    result = upfirdn2d.upfirdn2d(torch.tensor(x), torch.tensor(f), **case)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


def second_order(function, *inputs):
    """Check first and second gradients against finite differences in float64, along random directions."""
    inputs = [item.double().requires_grad_() if isinstance(item, torch.Tensor) else item for item in inputs]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize('taps', [(3,), (4, 4), (2, 5)], ids=str)
@pytest.mark.parametrize('case', CASES[1:], ids=lambda case: ' '.join(f'{k}={v}' for k, v in case.items()))
def test_upfirdn2d_gradients(case, taps):
    torch.manual_seed(2)
    f = torch.rand(*taps)
    second_order(lambda x: upfirdn2d.upfirdn2d(x, f, **case), torch.randn(1, 1, 3, 4))
    if 'down' in case:  # a filter that is learned
        second_order(lambda f: upfirdn2d.upfirdn2d(torch.ones(1, 1, 3, 4).double(), f, **case), f)


def test_both_plain_forms_of_upfirdn2d_agree():
    torch.manual_seed(3)
    x = torch.randn(2, 3, 11, 6)
    for case, taps in itertools.product(CASES, [(4,), (3, 4)]):
        arguments = upfirdn2d._Resampling(
            upfirdn2d._parse_scaling(case.get('up', 1)),
            upfirdn2d._parse_scaling(case.get('down', 1)),
            upfirdn2d._parse_padding(case.get('padding', 0)),
            case.get('flip_filter', False),
            case.get('gain', 1),
        )
        f = torch.randn(*taps)
        direct = upfirdn2d._insert_zeros_and_filter(x, f, arguments)
        torch.testing.assert_close(upfirdn2d._transpose_and_filter(x, f, arguments), direct)


def test_upfirdn2d_of_no_images():
    for f in (torch.ones(4, 4), torch.ones(9)):
        x = torch.zeros(0, 3, 8, 9, requires_grad=True)
        y = upfirdn2d.upfirdn2d(x, f, up=[2, 1], down=[1, 2], padding=[4, 3, 5, 2])
        assert y.shape == upfirdn2d.upfirdn2d(torch.zeros(1, 3, 8, 9), f, up=[2, 1], down=[1, 2], padding=[4, 3, 5, 2])[:0].shape
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape


def test_resampling_keeps_constants_and_sizes():
    x = torch.full([1, 2, 8, 12], 3.0)
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    assert f.shape == (4, 4)
    assert f.sum() == 1
    for result, size in [
        (upfirdn2d.upsample2d(x, f), (16, 24)),
        (upfirdn2d.downsample2d(x, f), (4, 6)),
        (upfirdn2d.filter2d(x, f), (8, 12)),
        (upfirdn2d.upsample2d(x, torch.ones(4) / 4, up=[1, 4]), (32, 12)),
    ]:
        assert result.shape[2:] == size
        torch.testing.assert_close(result[:, :, 3:-3, 3:-3], torch.full_like(result[:, :, 3:-3, 3:-3], 3))


def test_setup_filter():
    assert upfirdn2d.setup_filter(None).tolist() == [[1.0]]
    assert upfirdn2d.setup_filter(np.ones(8)).shape == (8,)
    assert upfirdn2d.setup_filter(np.ones(7)).shape == (7, 7)
    assert upfirdn2d.setup_filter([1, 2], separable=True, gain=4).tolist() == pytest.approx([2 / 3, 4 / 3])
    flipped = upfirdn2d.setup_filter([[1, 2], [3, 4]], normalize=False, flip_filter=True, gain=2)
    assert flipped.tolist() == [[8, 6], [4, 2]]
    with pytest.raises(ValueError, match='shape'):
        upfirdn2d.setup_filter(np.ones([1, 2, 3]))


@pytest.mark.parametrize('arguments', [{'up': 0}, {'up': [1, 2, 3]}, {'padding': [1, 2, 3]}, {'impl': 'gpu'}])
def test_upfirdn2d_refuses_wrong_arguments(arguments):
    with pytest.raises(ValueError, match='upfirdn2d'):
        upfirdn2d.upfirdn2d(torch.ones(1, 1, 4, 4), None, **arguments)


# ----------------------------------------------------------------------------
# bias_act.

FORMULAS = {
    'linear': lambda x, a: x,
    'relu': lambda x, a: np.maximum(x, 0),
    'lrelu': lambda x, a: np.where(x > 0, x, a * x),
    'tanh': lambda x, a: np.tanh(x),
    'sigmoid': lambda x, a: 1 / (1 + np.exp(-x)),
    'elu': lambda x, a: np.where(x > 0, x, np.exp(x) - 1),
    'selu': lambda x, a: 1.0507009873554804935 * np.where(x > 0, x, 1.6732632423543772848 * (np.exp(x) - 1)),
    'softplus': lambda x, a: np.log(1 + np.exp(x)),
    'swish': lambda x, a: x / (1 + np.exp(-x)),
}


BIAS_ACT_OPTIONS = [{}, {'gain': 0.7, 'clamp': 0.9}, {'gain': -2.0}, {'clamp': 0.5, 'dim': 2, 'alpha': 0.4}]


@pytest.mark.parametrize('options', BIAS_ACT_OPTIONS, ids=str)
@pytest.mark.parametrize('act', FORMULAS)
def test_bias_act(act, options):
    random = np.random.RandomState(4)
    x, b = random.randn(3, 4, 5) * 2, random.randn(5 if options.get('dim') == 2 else 4)
    spec = bias_act.activation_funcs[act]
    expected = FORMULAS[act](x + (b if options.get('dim') == 2 else b[:, None]), options.get('alpha', spec.def_alpha))
    expected = expected * options.get('gain', spec.def_gain)
    expected = np.clip(expected, -options['clamp'], options['clamp']) if 'clamp' in options else expected
    function = lambda x, b: bias_act.bias_act(x, b, act=act, **options)  # noqa: E731
    np.testing.assert_allclose(function(torch.tensor(x), torch.tensor(b)).numpy(), expected, atol=1e-12)
    second_order(function, torch.tensor(x), torch.tensor(b))
    half = bias_act.bias_act(torch.tensor(x).half(), torch.tensor(b).half(), act=act, **options)
    assert half.dtype == torch.float16
    np.testing.assert_allclose(half.float().numpy(), expected, atol=0.02)


def test_bias_act_leaves_its_input_alone():
    x = torch.randn(2, 3)
    before = x.clone()
    for act in bias_act.activation_funcs:
        result = bias_act.bias_act(x, act=act, gain=1)
        result.add_(1)
        assert torch.equal(x, before), act
    assert {spec.cuda_idx for spec in bias_act.activation_funcs.values()} == set(range(1, 10))
    with pytest.raises(ValueError, match='does not fit'):
        bias_act.bias_act(x, torch.ones(2))


# ----------------------------------------------------------------------------
# conv2d_resample.


def explicit_conv2d_resample(x, w, f, up, down, padding, groups, flip_weight, flip_filter):
    """Upsample, convolve the whole image, downsample, each with an upfirdn2d or conv2d of its own."""
    taps = f.shape[-1] if f is not None else 1
    # all padding goes to the first step; the margins of both filters are counted there
    before = (taps + up - 1) // 2 * (up > 1) + (taps - down + 1) // 2 * (down > 1)
    after = (taps - up) // 2 * (up > 1) + (taps - down) // 2 * (down > 1)
    sides = [padding + before, padding + after] * 2
    x = upfirdn2d.upfirdn2d(x, f if up > 1 else None, up=up, padding=sides, gain=up**2, flip_filter=flip_filter)
    x = torch.nn.functional.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=groups)
    return upfirdn2d.upfirdn2d(x, f if down > 1 else None, down=down, flip_filter=flip_filter)


@pytest.mark.parametrize('kernel', [1, 2, 3, 5])
@pytest.mark.parametrize(('up', 'down'), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (4, 1)])
def test_conv2d_resample(kernel, up, down):
    torch.manual_seed(5)
    asymmetric = torch.rand(4, 4)
    for f, groups, flip_weight, flip_filter in itertools.product(
        [None, asymmetric, torch.rand(5, 5)], [1, 2], [False, True], [False, True]
    ):
        x = torch.randn(2, 4, 6, 5).double()
        w = torch.randn(6, 4 // groups, kernel, kernel).double()
        options = {
            'up': up,
            'down': down,
            'padding': kernel // 2,
            'groups': groups,
            'flip_weight': flip_weight,
            'flip_filter': flip_filter,
        }
        expected = explicit_conv2d_resample(x, w, f, **options)
        torch.testing.assert_close(conv2d_resample.conv2d_resample(x, w, f, **options), expected)


def test_conv2d_resample_gradients():
    torch.manual_seed(6)
    f = torch.rand(3, 3)
    for up, down in [(2, 1), (1, 2)]:
        second_order(
            lambda x, w: conv2d_resample.conv2d_resample(x, w, f, up=up, down=down, padding=[1, 0, 2, 1], flip_weight=False),  # noqa: B023
            torch.randn(1, 2, 3, 4),
            torch.randn(2, 2, 3, 3),
        )


# ----------------------------------------------------------------------------
# The small ones.


def test_fma():
    torch.manual_seed(7)
    a, b, c = torch.randn(2, 3, 4), torch.randn(3, 1), torch.randn(2, 1, 4)
    torch.testing.assert_close(fma.fma(a, b, c), a * b + c)
    second_order(fma.fma, a, b, c)


def test_weight_gradients_can_be_turned_off():
    x, w = torch.randn(1, 2, 5, 5, requires_grad=True), torch.randn(3, 2, 3, 3, requires_grad=True)
    y = conv2d_gradfix.conv2d(x, w, padding=1).sum()
    with conv2d_gradfix.no_weight_gradients():
        y.backward(retain_graph=True)
    assert w.grad is None
    assert x.grad is not None
    y.backward()
    torch.testing.assert_close(w.grad, torch.autograd.grad(torch.nn.functional.conv2d(x, w, padding=1).sum(), w)[0])
    second_order(lambda x, w: conv2d_gradfix.conv_transpose2d(x, w, stride=2), torch.randn(1, 2, 3, 3), w[:, :, :2].detach()[:2])


def test_grid_sample():
    torch.manual_seed(8)
    image, grid = torch.randn(1, 2, 4, 5), torch.rand(1, 3, 3, 2) * 2.4 - 1.2
    expected = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    torch.testing.assert_close(grid_sample_gradfix.grid_sample(image, grid), expected)
    second_order(lambda image: grid_sample_gradfix.grid_sample(image, grid.double()), image)
    assert torch.autograd.gradcheck(grid_sample_gradfix.grid_sample, [image.double(), grid.double().requires_grad_()])


def test_filtered_lrelu():
    torch.manual_seed(9)
    x, b = torch.randn(2, 3, 6, 6), torch.randn(3)
    fu, fd = torch.rand(8), torch.rand(6, 6)
    result = filtered_lrelu.filtered_lrelu(x, fu, fd, b, up=2, down=2, padding=[7, 6, 5, 8], gain=1.3, slope=0.1, clamp=0.8)
    for n, c in np.ndindex(2, 3):
        fu2d = np.outer(fu.double(), fu.double())
        high = naive_upfirdn2d((x[n, c] + b[c]).double().numpy(), fu2d, (2, 2), (1, 1), [7, 6, 5, 8], False, 4)
        high = np.clip(np.where(high > 0, high, 0.1 * high) * 1.3, -0.8, 0.8)
        expected = naive_upfirdn2d(high, fd.double().numpy(), (1, 1), (2, 2), [0] * 4, False, 1)
        np.testing.assert_allclose(result[n, c].numpy(), expected, atol=2e-5)


def test_results_can_be_changed_in_place():
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    for function in (
        lambda x: upfirdn2d.upsample2d(x, f),
        lambda x: upfirdn2d.downsample2d(x, f),
        lambda x: upfirdn2d.filter2d(x, None),
        lambda x: conv2d_resample.conv2d_resample(x, torch.ones(1, 2, 3, 3), f, up=2, padding=1),
        lambda x: bias_act.bias_act(x, gain=0.7, clamp=0.5),
        lambda x: bias_act.bias_act(x, torch.ones(2)),
        lambda x: fma.fma(x, x, x),
        lambda x: grid_sample_gradfix.grid_sample(x, torch.zeros(1, 2, 2, 2)),
    ):
        x = torch.randn(1, 2, 4, 4, requires_grad=True)
        (expected,) = torch.autograd.grad((function(x) + 1).square().sum(), x)
        (result,) = torch.autograd.grad(function(x).add_(1).square().sum(), x)
        assert torch.equal(result, expected)
