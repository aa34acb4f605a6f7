"""Operations against naive loops and explicit formulas in float64, and their first and second gradients."""

import itertools

import numpy as np
import pytest
import torch

from torch_utils.ops import bias_act, conv2d_gradfix, conv2d_resample, fma, grid_sample_gradfix, upfirdn2d

#----------------------------------------------------------------------------
# upfirdn2d.


def naive_upfirdn2d(x, f, up, down, padding, flip_filter, gain):
    """Definition, one output pixel at a time: x [H, W], f [h, w], up = (x, y), padding = (x0, x1, y0, y1)."""
    height, width = x.shape
    x0, x1, y0, y1 = padding
    image = {}
    for i, j in itertools.product(range(height), range(width)):
        image[i * up[1] + y0, j * up[0] + x0] = x[i, j]
    padded_height, padded_width = height * up[1] + y0 + y1, width * up[0] + x0 + x1
    taps = f if flip_filter else f[::-1, ::-1]
    out = np.zeros([(padded_height - f.shape[0]) // down[1] + 1, (padded_width - f.shape[1]) // down[0] + 1])
    for i, j in np.ndindex(*out.shape):
        for k, l in np.ndindex(*f.shape):
            out[i, j] += gain * taps[k, l] * image.get((i * down[1] + k, j * down[0] + l), 0.0)
    return out


CASES = [
    dict(),
    dict(up=2, padding=[2, 1, 2, 1], gain=4),
    dict(down=2, padding=1),
    dict(up=(2, 1), down=(1, 3), padding=[3, 2], flip_filter=True),
    dict(up=3, down=2, padding=[-1, 4, 2, -2], gain=0.5),
    dict(up=(1, 2), padding=[0, 5, 3, 0]),
    dict(up=2, down=2, padding=[2, 2, 1, 3]),
    dict(up=4, padding=[5, 6, 6, 5], flip_filter=True),
    dict(down=4, padding=4),
]


@pytest.mark.parametrize('taps', [(1,), (4,), (9,), (1, 1), (4, 4), (3, 5), (2, 1)], ids=str)
@pytest.mark.parametrize('case', CASES, ids=lambda case: ' '.join(f'{k}={v}' for k, v in case.items()) or 'plain')
def test_upfirdn2d_is_its_definition(case, taps):
    random = np.random.RandomState(1)
    x = random.randn(2, 3, 7, 9)
    f = random.randn(*taps).astype(np.float32)
    f2d = f.astype(np.float64) if f.ndim == 2 else np.outer(f.astype(np.float64), f)
    up, down = (case.get(key, 1) if isinstance(case.get(key, 1), tuple) else (case.get(key, 1),) * 2 for key in ('up', 'down'))
    padding = case.get('padding', 0)
    padding = [padding] * 4 if isinstance(padding, int) else padding
    padding = [padding[0], padding[0], padding[1], padding[1]] if len(padding) == 2 else padding
    if min(7 * up[1] + padding[2] + padding[3] - f2d.shape[0], 9 * up[0] + padding[0] + padding[1] - f2d.shape[1]) < 0:
        with pytest.raises(ValueError, match='smaller than the filter'):
            upfirdn2d.upfirdn2d(torch.tensor(x), torch.tensor(f), **case)
        return
    expected = [[naive_upfirdn2d(plane, f2d, up, down, padding, case.get('flip_filter', False), case.get('gain', 1))
                 for plane in image] for image in x]
    result = upfirdn2d.upfirdn2d(torch.tensor(x), torch.tensor(f), **case)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


def second_order(function, *inputs):
    """Check first and second gradients against finite differences in float64."""
    inputs = [item.double().requires_grad_() if isinstance(item, torch.Tensor) else item for item in inputs]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize('taps', [(3,), (4, 4), (2, 5)], ids=str)
@pytest.mark.parametrize('case', CASES[1:], ids=lambda case: ' '.join(f'{k}={v}' for k, v in case.items()))
def test_upfirdn2d_gradients(case, taps):
    torch.manual_seed(2)
    f = torch.rand(*taps)
    second_order(lambda x: upfirdn2d.upfirdn2d(x, f, **case), torch.randn(1, 2, 4, 5))
    if 'down' in case:  # a filter that is learned
        second_order(lambda f: upfirdn2d.upfirdn2d(torch.ones(1, 1, 4, 5).double(), f, **case), f)


def test_both_plain_forms_of_upfirdn2d_agree():
    torch.manual_seed(3)
    x = torch.randn(2, 3, 11, 6)
    for case, taps in itertools.product(CASES, [(4,), (3, 4)]):
        arguments = upfirdn2d._Resampling(
            upfirdn2d._parse_scaling(case.get('up', 1)), upfirdn2d._parse_scaling(case.get('down', 1)),
            upfirdn2d._parse_padding(case.get('padding', 0)), case.get('flip_filter', False), case.get('gain', 1))
        f = torch.randn(*taps)
        direct = upfirdn2d._insert_zeros_and_filter(x, f, arguments)
        torch.testing.assert_close(upfirdn2d._transpose_and_filter(x, f, arguments), direct)


def test_resampling_keeps_constants_and_sizes():
    x = torch.full([1, 2, 8, 12], 3.0)
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    assert f.shape == (4, 4)
    assert f.sum() == 1
    for result, size in [(upfirdn2d.upsample2d(x, f), (16, 24)), (upfirdn2d.downsample2d(x, f), (4, 6)),
                         (upfirdn2d.filter2d(x, f), (8, 12)), (upfirdn2d.upsample2d(x, torch.ones(4) / 4, up=[1, 4]), (32, 12))]:
        assert result.shape[2:] == size
        torch.testing.assert_close(result[:, :, 3:-3, 3:-3], torch.full_like(result[:, :, 3:-3, 3:-3], 3))


def test_setup_filter():
    assert upfirdn2d.setup_filter(None).tolist() == [[1.0]]
    assert upfirdn2d.setup_filter(np.ones(8)).shape == (8,)
    assert upfirdn2d.setup_filter(np.ones(7)).shape == (7, 7)
    assert upfirdn2d.setup_filter([1, 2], separable=True, gain=4).tolist() == pytest.approx([2 / 3, 4 / 3])
    assert upfirdn2d.setup_filter([[1, 2], [3, 4]], normalize=False, flip_filter=True, gain=2).tolist() == [[8, 6], [4, 2]]
    with pytest.raises(ValueError, match='shape'):
        upfirdn2d.setup_filter(np.ones([1, 2, 3]))


@pytest.mark.parametrize('arguments', [dict(up=0), dict(up=[1, 2, 3]), dict(padding=[1, 2, 3]), dict(impl='gpu')])
def test_upfirdn2d_refuses_wrong_arguments(arguments):
    with pytest.raises(ValueError, match='upfirdn2d'):
        upfirdn2d.upfirdn2d(torch.ones(1, 1, 4, 4), None, **arguments)


#----------------------------------------------------------------------------
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


@pytest.mark.parametrize('options', [dict(), dict(gain=0.7, clamp=0.9), dict(gain=-2.0), dict(clamp=0.5, dim=2, alpha=0.4)], ids=str)
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
