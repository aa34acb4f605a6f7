"""StyleGAN3: filters from independent formulas, geometry by symmetry, the fast CPU form against the plain one."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch

from networks import stylegan3
from networks.checkpoints.formats.assembly import NothingAllocated, assemble
from networks.errors import InputError
from torch_utils.ops import bias_act, upfirdn2d

SMALL: dict[str, Any] = {'z_dim': 16, 'c_dim': 0, 'w_dim': 16, 'img_resolution': 32, 'img_channels': 3}
SMALL_T: dict[str, Any] = {**SMALL, 'channel_base': 512, 'channel_max': 24, 'num_layers': 6}
SMALL_R: dict[str, Any] = {**SMALL_T, 'conv_kernel': 1, 'use_radial_filters': True}


def small_generator(**changes: Any) -> Any:
    torch.manual_seed(1)
    return stylegan3.Generator(**{**SMALL_T, **changes}).eval().requires_grad_(False)


@pytest.mark.parametrize(('numtaps', 'cutoff', 'width', 'rate'), [(12, 2.0, 12.0, 32), (24, 5.7, 9.1, 128), (6, 10, 3, 64)])
def test_separable_filter_is_the_kaiser_filter_of_scipy(numtaps, cutoff, width, rate):
    expected = scipy.signal.firwin(numtaps, cutoff, width=width, fs=rate)
    taps = stylegan3.lowpass_filter(numtaps, cutoff=cutoff, width=width, sampling_rate=rate)
    assert taps is not None
    np.testing.assert_allclose(taps.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize('numtaps', [12, 13])
def test_radial_filter_is_the_windowed_jinc(numtaps):
    cutoff, width, rate = 4.3, 8.0, 32
    taps = stylegan3.lowpass_filter(numtaps, cutoff=cutoff, width=width, sampling_rate=rate, radial=True)
    assert taps is not None
    axis = (np.arange(numtaps) - (numtaps - 1) / 2) / rate
    radius = np.maximum(np.hypot(axis[:, None], axis), 1e-9)
    window = np.kaiser(numtaps, scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(numtaps, 2 * width / rate)))
    expected = scipy.special.j1(2 * math.pi * cutoff * radius) / radius * np.outer(window, window)
    np.testing.assert_allclose(taps.numpy(), expected / expected.sum(), atol=1e-7)
    assert torch.equal(taps, taps.t())


def test_one_tap_is_no_filter():
    assert stylegan3.lowpass_filter(1, cutoff=1, width=1, sampling_rate=8) is None


# What NVIDIA's own code names its layers: 'L{index}_{size}_{channels}'.
PUBLISHED: dict[str, tuple[dict[str, Any], str]] = {
    't-256': (
        {'img_resolution': 256, 'channel_base': 16384},
        '36_512 36_512 36_512 52_512 52_512 84_512 84_512 148_362 148_256 148_181 276_128 276_91 276_64 256_64 256_3',
    ),
    't-1024': (
        {'img_resolution': 1024},
        '36_512 36_512 52_512 52_512 84_512 148_512 148_512 276_323 276_203 532_128 1044_81 1044_51 1044_32 1024_32 1024_3',
    ),
    'r-512': (
        {'img_resolution': 512, 'channel_base': 65536, 'channel_max': 1024, 'conv_kernel': 1, 'use_radial_filters': True},
        '36_1024 36_1024 52_1024 52_1024 84_1024 84_1024 148_1024 148_967 276_645 276_431 532_287 532_192 532_128 512_128 512_3',
    ),
}


@pytest.mark.parametrize('config', PUBLISHED)
def test_layers_have_the_sizes_and_names_of_the_published_configurations(config):
    kwargs, names = PUBLISHED[config]
    with NothingAllocated():
        synthesis = stylegan3.Generator(**{**SMALL, **kwargs}).synthesis
    assert synthesis.layer_names == [f'L{index}_{name}' for index, name in enumerate(names.split())]
    assert synthesis.num_ws == 16


@pytest.mark.parametrize('radial', [False, True])
@pytest.mark.parametrize(('up', 'down', 'padding'), [(2, 2, [9, 8, 9, 8]), (4, 2, [5, -3, 6, -4]), (1, 1, [0, 0, -1, 2])])
def test_cpu_form_equals_upfirdn_and_activation_with_gradients(up, down, padding, radial, monkeypatch):
    torch.manual_seed(0)
    up_filter = stylegan3.lowpass_filter(6 * up if up > 1 else 1, cutoff=2, width=8, sampling_rate=32)
    down_filter = stylegan3.lowpass_filter(6 * down if down > 1 else 1, cutoff=2, width=8, sampling_rate=32, radial=radial)
    x = torch.randn([2, 3, 18, 15], dtype=torch.float64, requires_grad=True)
    bias = torch.randn([3], dtype=torch.float64, requires_grad=True)
    options = {'up': up, 'down': down, 'padding': padding, 'gain': math.sqrt(2), 'slope': 0.2, 'clamp': 0.7}
    fast = stylegan3.filtered_leaky_relu(x, up_filter, down_filter, bias, **options)

    y = bias_act.bias_act(x, bias)
    y = upfirdn2d.upfirdn2d(y, up_filter, up=up, padding=padding, gain=up**2)
    y = bias_act.bias_act(y, act='lrelu', alpha=0.2, gain=math.sqrt(2), clamp=0.7)
    plain = upfirdn2d.upfirdn2d(y, down_filter, down=down)
    torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-6)
    # Without gradients some rows come after the others, and with channels last a separable filter goes along the axes in turn.
    whole = stylegan3._filtered_leaky_relu_on_cpu
    calls: list[int] = []
    monkeypatch.setattr(stylegan3, '_filtered_leaky_relu_on_cpu', lambda *args: calls.append(1) or whole(*args))
    tall = torch.cat([x.detach()] * 4, dim=2)
    expected = stylegan3.filtered_leaky_relu(tall.requires_grad_(), up_filter, down_filter, bias.detach(), **options).detach()
    for band, layout in ((1, torch.channels_last), (1, torch.contiguous_format), (1 << 30, torch.channels_last)):
        monkeypatch.setattr(stylegan3, 'BYTES_OF_A_BAND', band)
        calls.clear()
        y = stylegan3.filtered_leaky_relu(
            tall.detach().contiguous(memory_format=layout), up_filter, down_filter, bias.detach(), **options
        )
        assert (len(calls) > 1) == (band == 1 and up > 1)
        torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-6)
    direction = torch.randn_like(plain)
    grads = [torch.autograd.grad((z * direction).sum(), [x, bias], retain_graph=True) for z in (fast, plain)]
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-6)


def test_quarter_turn_of_the_input_turns_the_picture_of_stylegan3_r():
    """Filters, paddings and sampling positions are all symmetric about the picture's middle: exact to rounding."""
    G = small_generator(**SMALL_R)
    ws = G.mapping(torch.randn([2, 16]))
    still = G.synthesis(ws)
    G.synthesis.input.transform.copy_(torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
    turned = G.synthesis(ws)
    scale = still.max() - still.min()
    errors = [((torch.rot90(still, quarter, (2, 3)) - turned).abs().max() / scale).item() for quarter in (1, -1)]
    assert min(errors) < 1e-5
    assert max(errors) > 1e-2


def test_translation_of_the_input_moves_the_picture():
    """Whole pixels of the lowest sampling rate move every map by whole samples; only the borders know the difference."""
    G = small_generator()
    ws = G.mapping(torch.randn([1, 16]))
    still = G.synthesis(ws)
    G.synthesis.input.transform[0, 2] = -4 / 32  # The inverse: the picture moves 4 pixels to the right.
    moved = G.synthesis(ws)
    inner = slice(12, 20)
    error = (moved[:, :, inner, 16:24] - still[:, :, inner, 12:20]).abs().max() / (still.max() - still.min())
    assert error < 0.02
    assert (moved - still).abs().max() / (still.max() - still.min()) > 0.1


def test_frequencies_are_uniform_over_the_disc_of_the_bandwidth():
    torch.manual_seed(2)
    freqs = stylegan3.SynthesisInput(w_dim=4, channels=4000, size=36, sampling_rate=16, bandwidth=3).freqs
    share = (freqs.norm(dim=1) / 3) ** 2  # Uniform in area.
    assert share.max() <= 1
    assert abs(share.mean() - 0.5) < 0.02
    assert abs((share < 0.25).float().mean() - 0.25) < 0.03
    assert freqs.mean(dim=0).abs().max() < 0.1


def test_calls_behave_as_scripts_expect():
    G = small_generator(c_dim=4)
    z, c = torch.randn([3, 16]), torch.eye(4)[:3]
    ws = G.mapping(z, c)
    assert ws.shape == (3, G.num_ws, 16)
    assert G.num_ws == 8
    torch.testing.assert_close(G(z, c, noise_mode='const', force_fp32=True), G.synthesis(ws))
    assert not torch.equal(G.mapping(z, c[[1, 2, 0]]), ws)

    G.mapping.w_avg.copy_(torch.arange(16.0))
    cut = G.mapping(z, c, truncation_psi=0.25, truncation_cutoff=3)
    torch.testing.assert_close(cut[:, :3], torch.arange(16.0) + 0.25 * (ws[:, :3] - torch.arange(16.0)))
    torch.testing.assert_close(cut[:, 3:], ws[:, 3:])

    before = copy.deepcopy(G.state_dict())
    G(z, c, update_emas=True)
    changed = {name.split('.')[-1] for name, value in G.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {'w_avg', 'magnitude_ema'}
    with pytest.raises(ValueError, match='needs labels'):
        G.mapping(z)
    with pytest.raises(ValueError, match='noise_mode'):
        G.synthesis(ws, noise_mode='loud')


def test_every_channel_of_the_input_is_modulated_by_its_own_code():
    """Each picture of a batch equals the picture alone: nothing leaks from one code to another."""
    G = small_generator()
    ws = torch.randn([3, G.num_ws, 16])
    together = G.synthesis(ws)
    alone = torch.cat([G.synthesis(w[None]) for w in ws])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_assembly_needs_no_initial_weights_and_says_what_does_not_fit():
    G = small_generator()
    state = G.state_dict()
    kwargs = dict(G.init_kwargs)
    copied: Any = assemble(lambda: stylegan3.Generator(**kwargs), state, where='the generator')
    ws = torch.randn([1, G.num_ws, 16])
    torch.testing.assert_close(copied.synthesis(ws), G.synthesis(ws), atol=0, rtol=0)
    with pytest.raises(InputError, match=r'1 missing, such as synthesis\.input\.freqs'):
        assemble(lambda: stylegan3.Generator(**kwargs), {k: v for k, v in state.items() if 'freqs' not in k}, where='G')
    with pytest.raises(InputError, match=r'mapping.w_avg of shape \[17\]'):
        assemble(lambda: stylegan3.Generator(**kwargs), {**state, 'mapping.w_avg': torch.zeros(17)}, where='G')
    with pytest.raises(InputError, match='cannot be built'):
        assemble(lambda: stylegan3.Generator(**kwargs, no_such_option=1), state, where='G')
