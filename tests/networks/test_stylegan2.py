"""networks/stylegan2.py against published outputs, against its definition in float64, and as scripts call it."""

import ast
import inspect
import itertools
import math

import numpy as np
import pytest
import torch

from networks import checkpoints, stylegan2, stylegan2_discriminator
from networks.checkpoints.formats import assembly
from torch_utils.ops import bias_act

SMALL = {'channel_base': 128, 'channel_max': 8}


def small_generator(seed=0, *, c_dim=0, resolution=16, channels=3, mapping_kwargs=None, **synthesis_kwargs):
    """A generator with every parameter away from its initial value."""
    torch.manual_seed(seed)
    G = stylegan2.Generator(
        12,
        c_dim,
        10,
        resolution,
        channels,
        mapping_kwargs={'num_layers': 2, **(mapping_kwargs or {})},
        synthesis_kwargs={**SMALL, **synthesis_kwargs},
    )
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith(('bias', 'noise_strength')):
                parameter.add_(torch.randn_like(parameter) * 0.3)
        G.mapping.w_avg.copy_(torch.randn(10))
    return G.eval()


def codes(G, count=2, seed=1):
    return torch.randn([count, G.num_ws, G.w_dim], generator=torch.Generator().manual_seed(seed))


# ----------------------------------------------------------------------------
# Published outputs.

GOLDEN = [
    (f'{file}.pkl', name)
    for file in ('stylegan2-ada-64', 'stylegan2-ada-cond-32', 'stylegan2-from-stylegan3-32')
    for name in ('ws', 'ws_psi0.7', 'img_wplus_const', 'img_wplus_none', 'img_psi0.7_const')
]


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize(('file', 'name'), GOLDEN)
def test_agrees_with_the_public_implementation(shared, file, name, fused):
    answers = np.load(shared / 'checkpoints' / f'{file[:-4]}.golden.npz')
    G = checkpoints.load_generator(shared / 'checkpoints' / file)
    z, wplus = (torch.from_numpy(answers[key]).float() for key in ('z', 'wplus'))
    c = torch.from_numpy(answers['c']).float() if 'c' in answers else torch.zeros([len(z), 0])
    options = {'force_fp32': True, 'fused_modconv': fused}
    if name.startswith('ws'):
        ours = G.mapping(z, c, truncation_psi=0.7 if name == 'ws_psi0.7' else 1)
    elif name == 'img_psi0.7_const':
        ours = G(z, c, truncation_psi=0.7, noise_mode='const', **options)
    else:
        ours = G.synthesis(wplus, noise_mode=name.rsplit('_', 1)[1], **options)
    error = np.abs(ours.numpy() - answers[name]).max() / np.ptp(answers[name])
    print(f'{file} {name} fused={fused}: {error:.1e}')
    assert error < 1e-5  # 1e-4 is promised.


def test_number_of_parameters_is_the_published_one():
    """30,370,060 for FFHQ at 1024x1024 (config F), as the tables of StyleGAN2 and of later papers round to 30.37 M."""
    with assembly.NothingAllocated():
        G = stylegan2.Generator(512, 0, 512, 1024, 3)
    assert sum(parameter.numel() for parameter in G.parameters()) == 30_370_060
    assert G.num_ws == 18


# ----------------------------------------------------------------------------
# The definition, sample by sample in float64.


def layer_by_definition(layer, x, w, noise):
    """Zero-insertion, filter, modulated and demodulated weights, noise, bias, activation: nothing rearranged."""
    results = []
    f = layer.resample_filter.double()
    f = torch.outer(f, f) if f.ndim == 1 else f
    for sample, code in zip(x.double(), w.double(), strict=True):
        styles = code @ layer.affine.weight.double().t() / math.sqrt(layer.w_dim) + layer.affine.bias.double()
        weight = layer.weight.double() * styles[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if layer.up == 2:
            height, width = sample.shape[1:]
            spread = torch.zeros([sample.shape[0], height * 2, width * 2], dtype=torch.float64)
            spread[:, ::2, ::2] = sample
            low, high = layer.padding + (len(f) + 1) // 2, layer.padding + (len(f) - 2) // 2
            spread = torch.nn.functional.pad(spread, [low, high, low, high])
            sample = torch.nn.functional.conv2d(spread[:, None], f.flip(0, 1)[None, None] * 4)[:, 0]
            y = torch.nn.functional.conv2d(sample[None], weight.flip(2, 3))[0]
        else:
            y = torch.nn.functional.conv2d(sample[None], weight, padding=layer.padding)[0]
        y = y + noise + layer.bias.double()[:, None, None]
        function = bias_act.activation_funcs[layer.activation]
        y = function.func(y, alpha=function.def_alpha) * function.def_gain
        results.append(y if layer.conv_clamp is None else y.clamp(-layer.conv_clamp, layer.conv_clamp))
    return torch.stack(results)


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize(
    ('up', 'filter_taps', 'kernel_size', 'activation', 'clamp'),
    [
        (1, (1, 3, 3, 1), 3, 'lrelu', None),
        (2, (1, 3, 3, 1), 3, 'lrelu', 0.7),
        (2, (1, 2, 1), 3, 'linear', None),
        (2, (1, 2), 3, 'relu', None),
        (2, (1, 4, 6, 4, 1), 3, 'swish', 0.5),
        (2, (1, 3, 3, 1), 1, 'tanh', None),
        (1, (1, 3, 3, 1), 5, 'softplus', None),
        (2, (1, 2, 3, 4, 4, 3, 2, 1), 3, 'elu', None),
    ],
)
def test_layer_is_its_definition(up, filter_taps, kernel_size, activation, clamp, fused):
    torch.manual_seed(3)
    layer = stylegan2.SynthesisLayer(
        5,
        4,
        w_dim=6,
        resolution=8,
        up=up,
        kernel_size=kernel_size,
        activation=activation,
        resample_filter=filter_taps,
        conv_clamp=clamp,
    )
    with torch.no_grad():
        layer.bias.normal_()
        layer.noise_strength.fill_(0.4)
    x, w = torch.randn(3, 5, 8 // up, 8 // up), torch.randn(3, 6)
    answer = layer_by_definition(layer, x, w, noise=layer.noise_const.double() * 0.4)
    ours = layer(x, w, noise_mode='const', fused_modconv=fused)
    assert torch.allclose(ours.double(), answer, atol=2e-5, rtol=1e-5)


def test_gain_scales_before_the_clamp_moves_with_it():
    torch.manual_seed(0)
    layer = stylegan2.SynthesisLayer(4, 4, w_dim=6, resolution=8, conv_clamp=0.5)
    x, w = torch.randn(2, 4, 8, 8), torch.randn(2, 6)
    assert torch.allclose(layer(x, w, noise_mode='none', gain=0.3), layer(x, w, noise_mode='none') * 0.3, atol=1e-6)


def test_half_precision_does_not_overflow():
    """Weights and styles of 10^3 would be 10^6 together, and half precision ends at 65504."""
    torch.manual_seed(0)
    x, weight, styles = torch.randn(2, 8, 6, 6), torch.randn(8, 8, 3, 3) * 1e3, torch.randn(2, 8) * 1e3
    wide, wide_scale = stylegan2.modulated_convolution(x, weight, styles)
    half, half_scale = stylegan2.modulated_convolution(x.half(), weight, styles)
    answer, ours = (y.float() * scale[:, :, None, None] for y, scale in ((wide, wide_scale), (half, half_scale)))
    assert torch.allclose(ours, answer, atol=2e-2)


# ----------------------------------------------------------------------------
# Derivatives.


@pytest.mark.parametrize(('up', 'activation'), [(1, 'lrelu'), (2, 'lrelu'), (2, 'swish')])
def test_first_and_second_derivatives_are_exact(up, activation):
    torch.manual_seed(1)
    layer = stylegan2.SynthesisLayer(3, 2, w_dim=4, resolution=4, up=up, activation=activation).double()
    layer.resample_filter = layer.resample_filter.float()  # Filters stay float32, as setup_filter() makes them.
    x = torch.randn(2, 3, 4 // up, 4 // up, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    weight = layer.weight.detach().clone().requires_grad_()

    def run(x, w, weight):
        return torch.func.functional_call(layer, {'weight': weight}, (x, w), {'noise_mode': 'const'})

    assert torch.autograd.gradcheck(run, (x, w, weight))
    assert torch.autograd.gradgradcheck(run, (x, w, weight))


# ----------------------------------------------------------------------------
# Whole networks.


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('use_noise', [True, False])
@pytest.mark.parametrize('architecture', ['skip', 'orig', 'resnet'])
def test_architectures(architecture, use_noise, channels):
    G = small_generator(architecture=architecture, use_noise=use_noise, channels=channels)
    ws = codes(G)
    image = G.synthesis(ws, noise_mode='const')
    assert image.shape == (2, channels, 16, 16)
    assert torch.allclose(G.synthesis(ws, noise_mode='const', fused_modconv=True), image, atol=1e-5)
    assert torch.allclose(G.synthesis(ws[:1], noise_mode='const'), image[:1], atol=1e-5)  # Samples are independent.
    assert torch.equal(G.synthesis(ws, noise_mode='none'), image) == (not use_noise)

    names = G.state_dict().keys()
    assert ('synthesis.b8.torgb.weight' in names) == (architecture == 'skip')
    assert ('synthesis.b8.skip.weight' in names) == (architecture == 'resnet')
    assert ('synthesis.b8.conv0.noise_const' in names) == use_noise
    assert 'synthesis.b16.torgb.weight' in names
    assert G.num_ws == 6


def test_every_code_acts_from_its_own_layer_on():
    """Code l changes what its layer and all later ones make: the deeper the code, the smaller the change."""
    G = small_generator()
    ws = codes(G, 1)
    image = G.synthesis(ws, noise_mode='const')
    for index in range(G.num_ws):
        changed = ws.clone()
        changed[:, index] += 1
        assert not torch.allclose(G.synthesis(changed, noise_mode='const'), image)


def test_random_noise_differs_for_each_sample_and_call():
    G = small_generator()
    ws = codes(G, 1).repeat(2, 1, 1)
    first, second = G.synthesis(ws), G.synthesis(ws)  # NVIDIA's default is 'random'.
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_mapping_normalises_and_truncates():
    G = small_generator(c_dim=3)
    z, c = torch.randn(4, 12), torch.eye(3)[[0, 1, 2, 0]]
    w = G.mapping(z, c)
    assert w.shape == (4, 6, 10)
    assert torch.allclose(G.mapping(z * 7, c), w, atol=1e-5)
    assert not torch.allclose(G.mapping(z, c.roll(1, dims=0)), w)
    average = G.mapping.w_avg
    assert torch.allclose(G.mapping(z, c, truncation_psi=0.25), average + 0.25 * (w - average), atol=1e-6)
    cut = G.mapping(z, c, truncation_psi=0, truncation_cutoff=2)
    assert torch.allclose(cut[:, :2], average.expand(4, 2, 10))
    assert torch.equal(cut[:, 2:], w[:, 2:])


def test_average_of_w_moves_only_when_it_should():
    G = small_generator()
    z, before = torch.randn(64, 12), G.mapping.w_avg.clone()
    G.mapping(z)  # Evaluation.
    G.train()
    G.mapping(z, skip_w_avg_update=True)  # As stylegan2-ada-pytorch asks for it.
    G(z, update_emas=False)  # As stylegan3 asks for it.
    assert torch.equal(G.mapping.w_avg, before)
    mean = G.mapping(z, skip_w_avg_update=True)[:, 0].mean(dim=0)
    G.mapping(z)
    assert torch.allclose(G.mapping.w_avg, before * 0.995 + mean * 0.005, atol=1e-6)


def test_arguments_may_be_nested_or_flat():
    nested = stylegan2.Generator(4, 0, 4, 8, 3, synthesis_kwargs=SMALL, mapping_kwargs={'num_layers': 1})
    flat = stylegan2.Generator(4, 0, 4, 8, 3, mapping_kwargs={'num_layers': 1}, **SMALL)
    assert {k: v.shape for k, v in nested.state_dict().items()} == {k: v.shape for k, v in flat.state_dict().items()}
    assert nested.init_kwargs.synthesis_kwargs.channel_max == flat.init_kwargs.channel_max == 8
    assert stylegan2.Generator(0, 2, 4, 8, 3, mapping_kwargs={'num_layers': 1})(None, torch.eye(2)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda G: G.synthesis(torch.zeros(1, 5, 10)), r'\[N, 6, 10\], got \[1, 5, 10\]'),
        (lambda G: G.mapping(torch.zeros(1, 3)), r'\[N, 12\], got \[1, 3\]'),
        (lambda G: G.synthesis(torch.zeros(1, 6, 10), noise_mode='loud'), 'random, const, none'),
        (lambda G: stylegan2.Generator(4, 0, 4, 12, 3), 'power of two'),
        (lambda G: stylegan2.Generator(4, 0, 4, 8, 3, architecture='deep'), 'architecture'),
    ],
)
def test_mistakes_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call(small_generator())


@pytest.mark.parametrize('module', [stylegan2, stylegan2_discriminator])
def test_embedded_text_stands_alone_and_reads_in_old_python(module):
    tree = ast.parse(inspect.getsource(module), feature_version=(3, 7))
    imported = {
        alias.name.split('.')[0] if isinstance(node, ast.Import) else str(node.module).split('.')[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert imported <= {'__future__', 'collections', 'math', 'typing', 'torch', 'torch_utils'}


# ----------------------------------------------------------------------------
# Discriminator.


@pytest.mark.parametrize('c_dim', [0, 3])
@pytest.mark.parametrize('architecture', ['skip', 'orig', 'resnet'])
def test_discriminator_is_trainable_twice(architecture, c_dim):
    torch.manual_seed(0)
    D = stylegan2_discriminator.Discriminator(c_dim, 16, 3, architecture=architecture, channel_base=128, channel_max=8)
    images = torch.randn(6, 3, 16, 16, requires_grad=True)  # Groups of 4 do not divide 6.
    logits = D(images, torch.eye(3).repeat(2, 1) if c_dim else None)
    assert logits.shape == (6, 1)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for name, p in D.named_parameters() if 'bias' not in name)


def test_discriminator_has_the_weights_of_the_public_one(shared):
    D = checkpoints.load_discriminator(shared / 'checkpoints' / 'stylegan2-ada-64.pkl')
    assert D(torch.zeros(2, 3, 64, 64)).isfinite().all()


def test_minibatch_deviation_is_its_definition():
    x = torch.randn(8, 6, 3, 3)
    ours = stylegan2_discriminator.MinibatchStdLayer(4, 2)(x)
    assert torch.equal(ours[:, :6], x)
    for index, feature in itertools.product(range(8), range(2)):
        group = x[index % 2 :: 2, feature * 3 : feature * 3 + 3].numpy()  # Samples n, n + N/group, ...
        assert np.allclose(ours[index, 6 + feature], np.sqrt(group.var(axis=0) + 1e-8).mean(), atol=1e-6)


def test_frozen_layers_are_buffers():
    D = stylegan2_discriminator.Discriminator(0, 16, 3, channel_base=64, channel_max=8, block_kwargs={'freeze_layers': 2})
    assert 'b16.conv0.weight' in dict(D.named_buffers())
    assert 'b16.conv1.weight' in dict(D.named_parameters())
