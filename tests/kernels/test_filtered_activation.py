"""What lies between StyleGAN3's convolutions, in C++ and in PyTorch's operations, against the definition in float64."""

import ctypes
import math
import platform
import shutil
import subprocess

import pytest
import torch

from torch_utils.ops import filtered_lrelu
from training.kernels import native_code
from training.kernels.rendering import filtered

LIBRARY = 'rendering/filtered_activation'
pytestmark = pytest.mark.usefixtures('form')


@pytest.fixture
def form(form):
    if form == 'compiled':  # otherwise the tests would hold for PyTorch's operations twice
        assert all(filtered._agrees(native_code.load(LIBRARY), dtype) for dtype in (torch.float32, torch.bfloat16))
    return form


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def case(up=2, padding=(9, 8, 9, 8), radial=False, clamp=1.5, channels=37, size=(14, 13), samples=2):
    """A pass with filters of no symmetry but what radial ones need, its inputs, and the result by definition."""
    torch.manual_seed(0)
    up_filter, down_filter = randn(6 * up) / 4, (randn(12, 12) if radial else randn(12)) / 4
    if radial:
        down_filter = down_filter + down_filter.flip(0)
        down_filter = (down_filter + down_filter.flip(1)) / 4
    shift, scale, next_scale = randn(channels), randn(samples, channels), randn(samples, channels)
    x = randn(samples, channels, *size)
    expected = filtered_lrelu.filtered_lrelu(
        x * scale[:, :, None, None], up_filter, down_filter, shift, up=up, down=2, padding=list(padding), clamp=clamp, impl='ref'
    )
    float32 = [part.float() for part in (up_filter, down_filter, shift)]
    made = filtered.FilteredActivation(*float32, up, list(padding), clamp)
    return made, x.float(), scale.float(), next_scale.float(), expected * next_scale[:, :, None, None]


def check(found, expected, tolerance=2e-6):
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize('radial', [False, True])
@pytest.mark.parametrize(('up', 'padding'), [
    (2, (9, 8, 9, 8)), (2, (8, 9, 8, 9)), (2, (7, 12, 10, 0)), (2, (-3, 5, 11, 10)),
    (4, (-6, -9, -6, -9)), (4, (-2, -5, 3, 0)), (4, (1, 2, -3, -4)), (4, (23, 24, -5, 25)), (4, (0, 0, 0, 0)),
])  # fmt: skip
def test_equals_the_definition(up, padding, radial):
    made, x, scale, next_scale, expected = case(up, padding, radial)
    check(made(x, scale, next_scale), expected)


@pytest.mark.parametrize('radial', [False, True])
@pytest.mark.parametrize('channels', [1, 15, 16, 64, 131])
def test_every_number_of_channels(channels, radial):
    made, x, scale, next_scale, expected = case(channels=channels, radial=radial, samples=1)
    check(made(x.contiguous(memory_format=torch.channels_last), scale, next_scale), expected)


@pytest.mark.parametrize('up', [2, 4])
@pytest.mark.parametrize('radial', [False, True])
@pytest.mark.parametrize('strip', [2, 6, 10])
def test_strips_and_threads_change_no_number(monkeypatch, up, radial, strip):
    made, x, scale, next_scale, expected = case(up, radial=radial, size=(12, 19))
    whole = made(x, scale, next_scale)
    check(whole, expected)
    threads = torch.get_num_threads()
    monkeypatch.setattr(filtered, 'STRIP', strip)
    try:
        torch.set_num_threads(3)
        again = made(x, scale, next_scale)
    finally:
        torch.set_num_threads(threads)
    if native_code.enabled:
        assert torch.equal(again, whole)


def test_part_of_a_larger_map_without_scales_and_clamp():
    made, x, _, _, _ = case(clamp=None)
    wide = torch.cat([x, x], dim=3)[:, :, :, 3:16:1]
    ones = torch.ones(2, 37)
    check(made(wide, None, None), made(wide.clone(), ones, ones).double())


def test_clamped_to_its_limit():
    made, x, scale, _, _ = case(clamp=1e-3)
    made.down_filter.fill_(1 / 12)
    again = filtered.FilteredActivation(made.up_filter, made.down_filter, made.shift, 2, made.padding, 1e-3)
    result = again(x * 1000, scale, None)
    assert float(result.abs().max()) <= 1.0001e-3


def test_nothing_to_do():
    made, x, scale, next_scale, _ = case()
    if native_code.enabled:
        assert made(x[:0], scale[:0], next_scale[:0]).shape == (0, 37, 12, 11)
    with pytest.raises((ValueError, RuntimeError)):
        made(x[:, :, :2, :2], scale, next_scale)


def test_bfloat16():
    made, x, scale, next_scale, expected = case(clamp=256)
    rounded = x.bfloat16().float()
    found, wanted = made(x.bfloat16(), scale, next_scale), made(rounded, scale, next_scale)
    assert found.dtype == torch.bfloat16
    if native_code.enabled:  # sums and filters are in float32: only the result is rounded
        torch.testing.assert_close(found.float(), wanted, rtol=2**-8, atol=1e-6)
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


@pytest.mark.parametrize('filters', [(12, (12,), 3), (10, (12,), 2), (12, (11,), 2), (12, (12, 11), 2), (12, (12, 12), 2)])
def test_other_filters_are_refused(filters):
    up_taps, down_shape, up = filters
    with pytest.raises(ValueError, match='filters of six taps'):
        filtered.FilteredActivation(torch.randn(up_taps), torch.randn(down_shape), torch.zeros(3), up, [0, 0, 0, 0], None)


@pytest.mark.skipif(platform.machine() != 'x86_64' or not shutil.which('g++'), reason='compiles for this instruction set')
@pytest.mark.parametrize('flags', [[], ['-mavx'], ['-mavx2', '-mfma']], ids=['SSE2', 'AVX', 'AVX2'])
def test_other_instruction_sets_agree(tmp_path, flags, form):
    if not native_code.enabled:
        pytest.skip('nothing is compiled')
    known = native_code._processor()
    if not all(flag.removeprefix('-m') in known for flag in flags):
        pytest.skip('this processor does not have it')
    path = tmp_path / 'library.so'
    source = native_code._FOLDER / f'{LIBRARY}.cpp'
    subprocess.run(['g++', *native_code._FLAGS, '-O1', *flags, '-o', str(path), str(source)], check=True, capture_output=True)
    library = ctypes.CDLL(str(path))
    for radial in (False, True):
        made, x, scale, next_scale, expected = case(4, (-2, -5, 3, 0), radial)
        check(made._compiled(library, x, scale, next_scale), expected)
    assert math.isfinite(float(expected.abs().max()))
