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
