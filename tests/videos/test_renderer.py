"""The fast forms of image generators against the plain ones: architectures, formats, noise, layouts and changes of weights."""

import gc
import types
import weakref

import numpy as np
import pytest
import torch

from networks import checkpoints, stylegan2, stylegan3
from training.commands import memory
from training.kernels import native_code
from training.kernels.rendering import between, convolutions, fast_stylegan2, fast_stylegan3
from training.runs import working_memory
from training.videos import renderer
from training.videos.renderer import check_precision
from training.videos.synthesis import render_codes


def generator(resolution=16, seed=0, channels=3, **synthesis_kwargs):
    """A generator of odd widths with every parameter away from its initial value."""
    torch.manual_seed(seed)
    G = stylegan2.Generator(
        8, 0, 12, resolution, channels, synthesis_kwargs={'channel_base': 37 * 16, 'channel_max': 21, **synthesis_kwargs}
    )
    for name, parameter in G.named_parameters():
        if name.endswith(('bias', 'noise_strength')):
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return G.eval().requires_grad_(False)


def codes(G, count=3):
    return torch.randn(count, G.num_ws, G.w_dim, generator=torch.Generator().manual_seed(1))


def both(G, ws, noise_mode, precision='auto'):
    torch.manual_seed(3)
    plain = G.synthesis(ws, noise_mode=noise_mode, force_fp32=True)
    torch.manual_seed(3)
    return plain, renderer.renderer(G, precision)(ws, noise_mode)


def error(plain, fast):
    return float((plain - fast).abs().max() / (plain.max() - plain.min()))


@pytest.fixture(params=['compiled', 'plain passes'])
def passes(request, monkeypatch):
    """With the compiled pass between convolutions, and without."""
    if request.param == 'plain passes':
        monkeypatch.setattr(native_code, 'enabled', False)
    elif native_code.load('rendering/synthesis_kernels') is None or native_code.load('rendering/filtered_activation') is None:
        pytest.skip('there is no C++ compiler')


@pytest.mark.parametrize('noise_mode', ['const', 'random', 'none'])
@pytest.mark.parametrize('options', [
    {}, {'architecture': 'orig', 'channels': 1}, {'architecture': 'resnet', 'conv_clamp': 0.6},
    {'conv_clamp': 0.6, 'channels': 4},
    {'activation': 'relu', 'use_noise': False}, {'activation': 'linear', 'resample_filter': [1, 4, 2, 3]}, {'resolution': 4},
])  # fmt: skip
def test_equals_the_plain_form(passes, options, noise_mode):
    G = generator(**options)
    assert isinstance(renderer.renderer(G), fast_stylegan2.FastSynthesis)
    plain, fast = both(G, codes(G), noise_mode)
    assert fast.dtype == torch.float32
    assert error(plain, fast) < 1e-5


def test_large_maps_one_picture_at_a_time(passes, monkeypatch):
    monkeypatch.setattr(fast_stylegan2, 'LARGEST_SHARED_RESOLUTION', 8)
    monkeypatch.setattr(between, 'SMALLEST_KEPT', 1000)  # memory that is used again
    G = generator(32)
    for noise_mode in ('const', 'random'):
        plain, fast = both(G, codes(G), noise_mode)
        assert error(plain, fast) < 1e-5
    again = renderer.renderer(G)(codes(G), 'const', 2)
    assert torch.equal(again, renderer.renderer(G)(codes(G), 'const')[:2])
    two_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert error(plain, both(G, codes(G), 'random')[1]) < 1e-5
    finally:
        torch.set_num_threads(two_threads)


@pytest.mark.parametrize('options', [{}, {'architecture': 'orig'}, {'architecture': 'resnet', 'use_noise': False}])
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_strips_of_a_map_are_the_map(monkeypatch, options, precision):
    G = generator(32, **options)
    ws = codes(G, 2)
    whole = renderer.renderer(G, precision)(ws, 'const')
    monkeypatch.setattr(fast_stylegan2, 'LARGEST_SHARED_RESOLUTION', 8)
    monkeypatch.setattr(between, 'SMALLEST_KEPT', 1000)
    for strip_bytes in (
        3000,
        14000,
    ):  # of a thread: with one, two rows of the last map, and six, which leave two for the last strip
        monkeypatch.setattr(between, 'STRIP_BYTES', strip_bytes if precision == 'fp32' else strip_bytes // 2)
        assert error(whole, renderer.renderer(G, precision)(ws, 'const')) < (1e-5 if precision == 'fp32' else 0.01)


@pytest.mark.parametrize(
    'file',
    ['stylegan2-ada-64.pkl', 'rosinality-train-64.pt', 'stylegan2-tensorflow-32.pkl', 'stylegan3-t-32.pkl', 'stylegan3-r-32.pkl'],
)
def test_every_format(shared, file):
    path = shared / 'checkpoints' / file
    G = checkpoints.load_generator(path)
    plain, fast = both(G, codes(G), 'const')
    assert error(plain, fast) < 1e-4
    form = fast_stylegan3 if 'stylegan3' in file else fast_stylegan2
    assert isinstance(renderer.renderer(G), form.FastSynthesis)


def generator3(radial=False, **synthesis_kwargs):
    """A StyleGAN3 generator of odd widths that raises the rate by 2 and by 4, with parameters away from their initial values."""
    torch.manual_seed(0)
    kind = {'conv_kernel': 1, 'use_radial_filters': True} if radial else {}
    options = {'channel_base': 600, 'channel_max': 37, 'num_layers': 5, 'margin_size': 6, **kind, **synthesis_kwargs}
    G = stylegan3.Generator(8, 0, 12, 32, 3, **options)
    for name, parameter in G.named_parameters():
        if name.endswith('bias') or 'input.affine' in name:
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
    for name, buffer in G.named_buffers():
        if name.endswith('magnitude_ema'):
            buffer.fill_(0.7)
    return G.eval().requires_grad_(False)


@pytest.mark.parametrize('options', [
    {}, {'radial': True}, {'conv_clamp': 0.4}, {'conv_clamp': None, 'radial': True}, {'num_critical': 0, 'output_scale': 0.5},
])  # fmt: skip
def test_stylegan3_equals_the_plain_form(passes, options, monkeypatch):
    monkeypatch.setattr(between, 'SMALLEST_KEPT', 1000)  # memory that is used again
    G = generator3(**options)
    render = renderer.renderer(G)
    assert isinstance(render, fast_stylegan3.FastSynthesis)
    assert {layer.filtered.up for layer in render.layers[:-1]} == {2, 4}
    ws = codes(G)
    plain, fast = both(G, ws, 'const')
    assert fast.dtype == torch.float32
    assert error(plain, fast) < 1e-5
    assert torch.equal(render(ws, 'random', 2), fast[:2])
    assert torch.equal(render(ws[:0], 'none'), fast[:0])
    with pytest.raises(ValueError, match='ws of shape'):
        render(ws[:, 1:], 'const')
    with pytest.raises(ValueError, match='noise_mode'):
        render(ws, 'loud')
    G.synthesis.input.transform.copy_(torch.tensor([[0.8, 0.6, 0.1], [-0.6, 0.8, -0.2], [0, 0, 1]]))
    getattr(G.synthesis, G.synthesis.layer_names[1]).weight.mul_(-1)
    moved, again = both(G, ws, 'const')
    assert error(moved, plain) > 0.05
    assert error(moved, again) < 1e-5


@pytest.mark.parametrize('change', ['filter size', 'asymmetric', 'class', 'hook'])
def test_unknown_stylegan3_renders_itself(change):
    G = generator3(radial=change == 'asymmetric', **({'filter_size': 4} if change == 'filter size' else {}))
    layer = getattr(G.synthesis, G.synthesis.layer_names[0])

    def louder(self, *args, **kwargs):
        return 2 * stylegan3.SynthesisLayer.forward(self, *args, **kwargs)

    if change == 'asymmetric':
        layer.down_filter[0, 1] += 0.1
    elif change == 'class':
        layer.__class__ = type('Louder', (stylegan3.SynthesisLayer,), {'forward': louder})
    elif change == 'hook':
        layer.register_forward_hook(lambda module, arguments, output: output * 2)
    assert not isinstance(renderer.renderer(G), fast_stylegan3.FastSynthesis)
    assert torch.equal(*both(G, codes(G, 1), 'const'))


def test_stylegan3_in_bfloat16(passes):
    G = generator3()
    plain, fast = both(G, codes(G), 'const', 'bf16')
    assert 1e-5 < error(plain, fast) < 0.05


@pytest.mark.parametrize('passes_of', [True, False])
def test_bfloat16(monkeypatch, passes_of):
    monkeypatch.setattr(native_code, 'enabled', passes_of)
    G = generator(32, conv_clamp=256)
    plain, fast = both(G, codes(G), 'const', 'bf16')
    assert fast.dtype == torch.float32
    assert 1e-5 < error(plain, fast) < 0.05
    assert float((plain - fast).square().mean().sqrt() / (plain.max() - plain.min())) < 0.005  # 46 dB


def test_upsampling_kernels_are_the_definition():
    """Against zeros in between, the transposed convolution's kernel and the filter, in float64."""
    generator = torch.Generator().manual_seed(0)
    x, weight, taps = (torch.randn(shape, generator=generator).double() for shape in ([1, 2, 5, 5], [3, 2, 3, 3], [4]))
    t = torch.nn.functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    square = torch.outer(taps, taps)
    wanted = torch.nn.functional.conv2d(t, square.expand(3, 1, 4, 4), padding=1, groups=3)
    phases = torch.nn.functional.conv2d(x, convolutions.upsampling_kernels(weight, taps), padding=1)
    for row in range(2):
        for column in range(2):
            part = phases[:, 3 * (2 * row + column) :][:, :3]
            torch.testing.assert_close(part, wanted[:, :, row::2, column::2])


def test_changed_weights_are_seen():
    G = generator()
    ws = codes(G)
    before = renderer.renderer(G)(ws, 'const')
    assert renderer.renderer(G) is renderer.renderer(G)
    G.synthesis.b8.conv1.weight.mul_(-1)
    plain, fast = both(G, ws, 'const')
    assert error(plain, fast) < 1e-5
    assert error(plain, before) > 1e-2
    G.synthesis.b16.torgb.bias = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    plain, fast = both(G, ws, 'const')
    assert error(plain, fast) < 1e-5


@pytest.mark.parametrize('change', ['class', 'hook', 'activation', 'filter', 'other module'])
def test_unknown_networks_render_themselves(change):
    options = {'activation': {'activation': 'swish'}, 'filter': {'resample_filter': [1, 2, 1]}}
    G = generator(**options.get(change, {}))
    if change == 'class':

        class Louder(stylegan2.ToRGBLayer):
            def forward(self, *args, **kwargs):
                return 2 * super().forward(*args, **kwargs)

        G.synthesis.b8.torgb.__class__ = Louder
    elif change == 'hook':
        G.synthesis.b8.conv0.register_forward_hook(lambda module, arguments, output: output * 2)
    elif change == 'other module':
        inner = G.synthesis

        class Inverted(torch.nn.Module):
            def forward(self, ws, noise_mode, force_fp32):
                return -inner(ws, noise_mode=noise_mode, force_fp32=force_fp32)

        G.synthesis = Inverted()
    plain, fast = both(G, codes(G), 'const')
    assert error(plain, fast) < 1e-6  # rounding depends on the size of a batch
    assert torch.equal(*both(G, codes(G, 1), 'const'))


def test_parts():
    """Halves until they fit, and that is remembered; new noise keeps a batch whole."""
    sizes = []

    def render(ws, noise_mode, wanted=None):
        sizes.append(len(ws))
        if len(ws) > 2 and noise_mode != 'random':
            raise torch.OutOfMemoryError
        return 2 * ws[:wanted]

    parts, ws = renderer.InParts(render), torch.arange(7.0)[:, None, None]
    assert torch.equal(parts(ws, 'const'), 2 * ws)
    assert sizes == [7, 4, 2, 2, 2, 1]
    del sizes[:]
    assert torch.equal(parts(ws, 'const', 3), 2 * ws[:3])
    assert sizes == [2, 2]  # as in a whole batch
    assert torch.equal(parts(ws, 'random', 3), 2 * ws[:3])
    assert sizes[2:] == [7]
    with pytest.raises(torch.OutOfMemoryError):
        renderer.InParts(lambda ws, noise_mode, wanted=None: (_ for _ in ()).throw(torch.OutOfMemoryError))(ws, 'none')


def test_networks_are_let_go():
    G = generator()
    renderer.renderer(G)(codes(G), 'const')
    reference = weakref.ref(G.synthesis)
    del G
    gc.collect()
    assert reference() is None


def test_wrong_codes_are_refused():
    G = generator()
    with pytest.raises(ValueError, match='ws of shape'):
        renderer.renderer(G)(torch.zeros(1, G.num_ws + 1, G.w_dim), 'const')
    with pytest.raises(ValueError, match='noise_mode'):
        renderer.renderer(G)(codes(G), 'loud')


def test_frames_of_a_last_batch_are_not_rendered_for_nothing(monkeypatch):
    G = generator()
    ws = codes(G, 5)
    wanted = []
    original = fast_stylegan2.FastSynthesis.__call__

    def watch(self, ws, noise_mode, count=None):
        wanted.append((len(ws), count))
        return original(self, ws, noise_mode, count)

    monkeypatch.setattr(fast_stylegan2.FastSynthesis, '__call__', watch)
    frames = list(render_codes(G, ws, batch=4))
    assert wanted == [(4, 4), (4, 1)]
    assert np.array_equal(frames[4], next(render_codes(G, ws[4:], batch=4)))


def test_imitated_bfloat16_is_refused(monkeypatch):
    monkeypatch.setattr(renderer, '_instructions', lambda: {'avx2'})
    check_precision('auto', torch.device('cpu'))
    with pytest.raises(Exception, match='no instructions for bfloat16'):
        check_precision('bf16', torch.device('cpu'))


def test_frames_at_a_time_are_those_that_memory_has_room_for(monkeypatch):
    """What is free at the first batch decides for all; a batch in parts has the frames of a whole one, but for rounding."""
    G = generator(32)
    ws = codes(G, 8)
    whole = np.stack(list(render_codes(G, ws, batch=8)))
    free = [4 << 20]
    monkeypatch.setattr(memory, 'free_memory', lambda device: free[0])
    one = int(0.5 * free[0] / 3)  # three fit into half
    renderer.renderer(G).bytes_a_frame = one - renderer.BYTES_A_VALUE * 3 * 32 * 32
    sizes = []
    original = fast_stylegan2.FastSynthesis.__call__

    def watch(self, ws, noise_mode, count=None):
        sizes.append(len(ws))
        return original(self, ws, noise_mode, count)

    monkeypatch.setattr(fast_stylegan2.FastSynthesis, '__call__', watch)
    half = memory.Budget(share=0.5)
    parts = np.stack(list(render_codes(G, ws, batch=8, memory=half)))
    free[0] = 1 << 20
    again = np.stack(list(render_codes(G, ws[:7], batch=8, memory=half)))
    assert sizes == [3, 3, 2, 3, 3, 2]
    assert np.array_equal(again, parts[:7])
    assert np.abs(parts.astype(int) - whole).max() <= 1
    del sizes[:]
    assert list(render_codes(G, ws, batch=8, memory=half, noise_mode='random'))
    assert sizes == [8]


def test_frames_at_a_time_on_a_gpu_are_measured(monkeypatch):
    """With a stand-in for the device's statistics: a frame takes 100 MiB and its picture; four fit into what is asked for."""
    G, ws = generator(16), codes(generator(16), 8)
    seen = []

    def measured(function, device):
        seen.append(len(function()))
        return 100 << 20

    monkeypatch.setattr(renderer, 'peak_bytes', measured)
    monkeypatch.setattr(G, 'parameters', lambda: iter([types.SimpleNamespace(device=torch.device('cuda'))]), raising=False)
    monkeypatch.setattr(renderer, 'renderer', lambda *arguments: lambda ws, noise_mode: ws)
    assert renderer.frames_at_once(G, ws, 'auto', memory.Budget(450 << 20)) == 4
    assert renderer.frames_at_once(G, ws, 'auto', memory.Budget(450 << 20)) == 4
    assert seen == [1]


def test_peak_of_a_computation():
    """Known sums: a chain of maps keeps two at a time; with a gradient every map of the way, and those on the way back."""
    cpu, x = torch.device('cpu'), torch.zeros(1000, 250)  # a million bytes

    def chain():
        y = x + 1
        for _ in range(5):
            y = y * 2
        return y.view(-1)

    assert working_memory.peak_bytes(chain, cpu) == 2_000_000
    parameter = torch.ones([], requires_grad=True)
    assert working_memory.peak_bytes(lambda: x.clone().mul_(3).sum(), cpu) == 1_000_004
    with_gradient = working_memory.peak_bytes(lambda: ((x * parameter).exp().exp().sum()).backward(), cpu)
    assert 3_000_000 <= with_gradient <= 5_000_100
