"""Generators of TensorFlow, rosinality and pSp files: published answers, an independent numpy form, and round trips."""

import argparse
from random import Random
from typing import Any

import numpy as np
import pytest
import tensorflow_stylegan2 as tf_form
import torch

from networks import checkpoints, stylegan2
from networks.checkpoints.formats import assembly, nvidia_tensorflow, psp, rosinality
from networks.errors import InputError

BOUND = 1e-5  # Of the range of the answer; ten times smaller than promised.


def tensorflow_generator(contents: Any) -> Any:
    assert nvidia_tensorflow.matches(contents)
    return nvidia_tensorflow.build_generator(contents)


def rosinality_generator(contents: Any) -> Any:
    assert rosinality.matches(contents)
    return rosinality.build_generator(contents)


def relative_error(ours, answer):
    answer = np.asarray(answer)
    return np.abs(ours.numpy() - answer).max() / (answer.max() - answer.min())


# (file, name of the answer, how it comes about)
PUBLISHED = [
    ('stylegan3-t-32.pkl', 'ws', lambda G, a: G.mapping(a['z'], None)),
    ('stylegan3-t-32.pkl', 'ws_psi0.7', lambda G, a: G.mapping(a['z'], None, truncation_psi=0.7)),
    ('stylegan3-t-32.pkl', 'img_wplus', lambda G, a: G.synthesis(a['wplus'], force_fp32=True)),
    ('stylegan3-t-32.pkl', 'img_psi0.7', lambda G, a: G(a['z'], None, truncation_psi=0.7, force_fp32=True)),
    ('stylegan3-r-32.pkl', 'ws', lambda G, a: G.mapping(a['z'], None)),
    ('stylegan3-r-32.pkl', 'ws_psi0.7', lambda G, a: G.mapping(a['z'], None, truncation_psi=0.7)),
    ('stylegan3-r-32.pkl', 'img_wplus', lambda G, a: G.synthesis(a['wplus'], force_fp32=True)),
    ('stylegan3-r-32.pkl', 'img_psi0.7', lambda G, a: G(a['z'], None, truncation_psi=0.7, force_fp32=True)),
    ('stylegan2-tensorflow-32.pkl', 'ws_psi0.7', lambda G, a: G.mapping(a['z'], None, truncation_psi=0.7)),
    ('stylegan2-tensorflow-32.pkl', 'img_wplus_const', lambda G, a: G.synthesis(a['wplus'], noise_mode='const')),
    ('rosinality-train-64.pt', 'w', lambda G, a: G.mapping(a['z'], None)[:, 0]),
    ('rosinality-train-64.pt', 'img_wplus_const', lambda G, a: G.synthesis(a['wplus'], noise_mode='const')),
    ('rosinality-converted-64.pt', 'w', lambda G, a: G.mapping(a['z'], None)[:, 0]),
    ('rosinality-converted-64.pt', 'w_avg', lambda G, a: G.mapping(a['z'], None, truncation_psi=0)[0, 0]),
    ('rosinality-converted-64.pt', 'img_wplus_const', lambda G, a: G.synthesis(a['wplus'], noise_mode='const')),
]


@pytest.mark.parametrize(('file', 'name', 'compute'), PUBLISHED, ids=lambda value: value if isinstance(value, str) else '')
def test_output_is_that_of_the_public_implementation(shared, file, name, compute):
    folder = shared / 'checkpoints'
    answers = np.load(folder / f'{file[: file.rindex(".")]}.golden.npz')
    G = checkpoints.load_generator(folder / file)
    error = relative_error(compute(G, {key: torch.from_numpy(answers[key]) for key in ('z', 'wplus')}), answers[name])
    print(f'{file} {name}: {error:.1e}')
    assert error < BOUND


# ----------------------------------------------------------------------------
# TensorFlow.


@pytest.mark.parametrize(('architecture', 'labels'), [('skip', 0), ('orig', 3), ('resnet', 0), ('skip', 3)])
def test_tensorflow_network_gives_the_picture_of_its_definition(architecture, labels):
    rng = np.random.RandomState(5)
    mapping, synthesis, own = tf_form.random_variables(rng, architecture=architecture, labels=labels)
    options = {'architecture': architecture, 'resolution': 8} if labels else {}  # The arrays show it as well.
    contents = tf_form.as_pickle_contents(mapping, synthesis, own, options)
    G = tensorflow_generator(contents)
    assert (G.z_dim, G.c_dim, G.w_dim, G.num_ws, G.img_resolution, G.img_channels) == (5, labels, 6, 4, 8, 3)

    z, c = rng.randn(2, 5), np.eye(labels)[:2] if labels else None
    w = tf_form.map_latents(mapping, z, c)
    ours = G.mapping(torch.from_numpy(z), None if c is None else torch.from_numpy(c))
    assert relative_error(ours[:, 3], w) < BOUND
    torch.testing.assert_close(G.mapping.w_avg, torch.from_numpy(own['dlatent_avg']))

    ws = rng.randn(2, 4, 6)
    answer = [tf_form.synthesize(synthesis, codes, architecture=architecture) for codes in ws]
    assert relative_error(G.synthesis(torch.from_numpy(ws), noise_mode='const'), answer) < BOUND


def test_tensorflow_network_that_grew_uses_the_last_to_rgb():
    """Progressive files name their ToRGB after the level of detail, and have one at every level."""
    rng = np.random.RandomState(6)
    mapping, synthesis, own = tf_form.random_variables(rng, architecture='orig', resolution=16)
    grown = {name.replace('16x16/ToRGB', 'ToRGB_lod0'): value for name, value in synthesis.items()}
    for name in ('weight', 'bias', 'mod_weight', 'mod_bias'):
        grown[f'ToRGB_lod1/{name}'] = grown[f'ToRGB_lod2/{name}'] = rng.randn(2, 2)
    G = tensorflow_generator(tf_form.as_pickle_contents(mapping, grown, own, {}))
    ws = rng.randn(1, 6, 6)
    answer = tf_form.synthesize(synthesis, ws[0], architecture='orig', resolution=16)
    assert relative_error(G.synthesis(torch.from_numpy(ws), noise_mode='const')[0], answer) < BOUND


def test_tensorflow_options_reach_the_generator():
    mapping, synthesis, own = tf_form.random_variables(np.random.RandomState(7), architecture='skip')
    for name in list(synthesis):
        if 'noise' in name:
            del synthesis[name]
    options = {'mapping_lrmul': 0.1, 'nonlinearity': 'relu', 'conv_clamp': 3, 'resample_kernel': [1, 2, 2, 1]}
    G = tensorflow_generator(tf_form.as_pickle_contents(mapping, synthesis, own, options))
    assert G.mapping.fc0.bias_gain == pytest.approx(0.1)
    layer = G.synthesis.b8.conv1
    assert (layer.activation, layer.conv_clamp, layer.use_noise) == ('relu', 3, False)
    torch.testing.assert_close(G.synthesis.b8.conv0.resample_filter[1] * 36, torch.tensor([2.0, 4, 4, 2]))


def tensorflow_contents(**static_kwargs):
    parts = tf_form.random_variables(np.random.RandomState(8), architecture='skip')
    return (*parts, static_kwargs)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda m, s, o, k: s.pop('8x8/Conv1/bias'), 'no array synthesis/8x8/Conv1/bias of 1 dimensions'),
        (lambda m, s, o, k: s.update({'8x8/Extra/weight': s['8x8/ToRGB/weight']}), 'variable synthesis/8x8/Extra/weight'),
        (lambda m, s, o, k: s.update({'8x8/Conv1/weight': np.zeros([3, 3, 5, 9], np.float32)}), 'channels that are not'),
        (lambda m, s, o, k: s.update({'8x8/Conv1/bias': np.array(['x'])}), 'not an array of numbers'),
        (lambda m, s, o, k: s.pop('4x4/Conv/mod_weight'), 'another network than a StyleGAN2'),
        (lambda m, s, o, k: m.update({'LabelConcat/weight': np.zeros([2, 5], np.float32)}), 'LabelConcat'),
        (lambda m, s, o, k: o.pop('dlatent_avg'), 'no array dlatent_avg'),
        (lambda m, s, o, k: k.update(fancy_option=True), 'fancy_option=True, whose meaning is not known'),
        (lambda m, s, o, k: k.update(normalize_latents=False), 'normalize_latents=False'),
        (lambda m, s, o, k: k.update(nonlinearity='sine'), 'cannot be built'),
        (lambda m, s, o, k: k.update(num_fp16_res=-(10**30)), 'no number of resolutions'),
        (lambda m, s, o, k: k.update(conv_clamp='big'), 'conv_clamp='),
        (lambda m, s, o, k: k.update(resample_kernel='no'), 'resample_kernel'),
    ],
)
def test_tensorflow_network_that_does_not_fit_is_one_sentence(change, message):
    mapping, synthesis, own, static_kwargs = tensorflow_contents()
    change(mapping, synthesis, own, static_kwargs)
    contents = tf_form.as_pickle_contents(mapping, synthesis, own, static_kwargs)
    with pytest.raises(InputError, match=message):
        tensorflow_generator(contents)


def test_tensorflow_network_of_an_old_version_is_refused():
    contents = tf_form.as_pickle_contents(*tensorflow_contents())
    contents[2].state['version'] = 2
    with pytest.raises(InputError, match='version 2'):
        tensorflow_generator(contents)
    contents[2].state['components'] = {}
    contents[2].state['version'] = 4
    with pytest.raises(InputError, match='no mapping network'):
        tensorflow_generator(contents)
    assert not nvidia_tensorflow.matches((1, 2, 3))
    assert not nvidia_tensorflow.matches({'g_ema': {}})


# ----------------------------------------------------------------------------
# rosinality.


def small_generator(seed=0, **changes):
    torch.manual_seed(seed)
    kwargs = {'z_dim': 20, 'c_dim': 0, 'w_dim': 20, 'img_resolution': 32, 'img_channels': 3, **changes}
    kwargs.setdefault('synthesis_kwargs', {'channel_base': 256, 'channel_max': 16})
    G = stylegan2.Generator(**kwargs).eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith(('noise_strength', 'bias')):
            parameter.normal_()
    G.mapping.w_avg.normal_()
    return G


def to_rosinality(G):
    """The state dict that rosinality's code would write for the same function (table of reference names)."""
    state = {}
    ours = G.state_dict()
    for index in range(G.mapping.num_layers):
        for kind in ('weight', 'bias'):
            state[f'style.{index + 1}.{kind}'] = ours[f'mapping.fc{index}.{kind}']
    state['input.input'] = ours['synthesis.b4.const'][None]
    pairs = [('conv1', 'b4.conv1')]
    rgb = [('to_rgb1', 'b4.torgb')]
    for index, resolution in enumerate(G.synthesis.block_resolutions[1:]):
        pairs += [(f'convs.{2 * index}', f'b{resolution}.conv0'), (f'convs.{2 * index + 1}', f'b{resolution}.conv1')]
        rgb.append((f'to_rgbs.{index}', f'b{resolution}.torgb'))
    for index, (theirs, layer) in enumerate(pairs):
        source = f'synthesis.{layer}'
        state[f'{theirs}.conv.weight'] = ours[f'{source}.weight'][None]
        state[f'{theirs}.noise.weight'] = ours[f'{source}.noise_strength'].reshape(1)
        state[f'{theirs}.activate.bias'] = ours[f'{source}.bias']
        state[f'noises.noise_{index}'] = ours[f'{source}.noise_const'][None, None]
        if layer.endswith('conv0'):
            state[f'{theirs}.conv.blur.kernel'] = ours[f'{source}.resample_filter'] * 4
    for theirs, layer in rgb:
        state[f'{theirs}.conv.weight'] = ours[f'synthesis.{layer}.weight'][None]
        state[f'{theirs}.bias'] = ours[f'synthesis.{layer}.bias'].reshape(1, -1, 1, 1)
    for theirs, layer in pairs + rgb:
        for kind in ('weight', 'bias'):
            state[f'{theirs}.conv.modulation.{kind}'] = ours[f'synthesis.{layer}.affine.{kind}']
    return state


def assert_same_pictures(G, other):
    z = torch.randn([2, G.z_dim])
    for options in ({'truncation_psi': 1}, {'truncation_psi': 0.5, 'truncation_cutoff': 3}):
        torch.testing.assert_close(other(z, None, noise_mode='const', **options), G(z, None, noise_mode='const', **options))


@pytest.mark.parametrize(
    ('base', 'latent', 'layers', 'channels'), [(256, 20, 8, 3), (512, 20, 1, 3), (128, 37, 5, 1), (300, 8, 8, 4)]
)
def test_rosinality_state_of_a_generator_comes_back_as_that_generator(base, latent, layers, channels, tmp_path):
    G = small_generator(
        z_dim=latent, w_dim=latent, img_channels=channels, mapping_kwargs={'num_layers': layers},
        synthesis_kwargs={'channel_base': base, 'channel_max': 16},
    )  # fmt: skip
    contents = {'g_ema': to_rosinality(G), 'latent_avg': G.mapping.w_avg, 'args': argparse.Namespace(size=3, path='x')}
    for is_zip in (True, False):
        torch.save(contents, tmp_path / 'checkpoint.anything', _use_new_zipfile_serialization=is_zip)
        assert_same_pictures(G, checkpoints.load_generator(tmp_path / 'checkpoint.anything'))


def test_rosinality_variants():
    G = small_generator()
    state = to_rosinality(G)
    parallel = {f'module.{name}': value for name, value in state.items()}
    assert_same_pictures(G, rosinality_generator({'g_ema': parallel, 'latent_avg': G.mapping.w_avg[None]}))
    assert_same_pictures(G, rosinality_generator({'g': state, 'latent_avg': G.mapping.w_avg}))
    assert_same_pictures(G, rosinality_generator({**state, 'latent_avg': G.mapping.w_avg}))

    # Without an average the mean over fixed z is taken, as its own scripts do; without noise buffers, fixed ones.
    quiet = {name: value for name, value in state.items() if not name.startswith('noises.')}
    first, second = (rosinality_generator({'g_ema': quiet}) for _ in range(2))
    assert_same_pictures(first, second)
    mean = G.mapping(torch.randn([20000, G.z_dim]), None)[:, 0].mean(dim=0)
    assert (first.mapping.w_avg - mean).abs().max() < 0.1


@pytest.mark.parametrize(('multiplier', 'base'), [(1, 16384), (2, 32768)])
def test_channel_multipliers_are_the_published_tables(multiplier, base):
    table = {4: 512, 8: 512, 16: 512, 32: 512} | {64 << k: (256 >> k) * multiplier for k in range(5)}
    assert assembly.fit_channels(table, where='G') == {'channel_base': base, 'channel_max': 512}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('convs.2.activate.bias'), 'no tensor convs.2.activate.bias of 1 dimensions'),
        (lambda s: s.update({'iwt.ll': torch.zeros(2)}), 'no place for, such as iwt.ll'),
        (lambda s: s.update({'convs.3.noise.weight': torch.zeros(2)}), 'convs.3.noise.weight'),
        (lambda s: s.update({'conv1.conv.weight': torch.zeros(1, 16, 15, 3, 3)}), 'shape'),
        (lambda s: s.update({'noises.noise_1': torch.zeros(1, 1, 4, 4)}), 'shape'),
        (lambda s: s.update({'style.2.weight': 'weight'}), 'style.2.weight'),
        (lambda s: s.update({'conv1.activate.bias': torch.zeros(16, dtype=torch.int64)}), 'conv1.activate.bias'),
        (lambda s: [s.pop(name) for name in list(s) if name.startswith('to_rgbs')], '0 to_rgbs'),
    ],
)
def test_rosinality_state_that_does_not_fit_is_one_sentence(change, message):
    state = to_rosinality(small_generator())
    change(state)
    with pytest.raises(InputError, match=message):
        rosinality_generator({'g_ema': state})


# ----------------------------------------------------------------------------
# pSp's and e4e's decoder.


# What a damaged or hostile file may have in the place of a tensor, an array, an option or a name.
JUNK: list[Any] = [
    None, 0, -1, 10**30, 1e308, float('nan'), True, 'x', b'x', [], {}, (), torch.zeros(0), torch.zeros([]),
    torch.zeros([1, 0, 3]), torch.zeros(1).expand(1 << 20), torch.zeros([3], dtype=torch.complex64),
    np.zeros(0), np.zeros([]), np.array(['x']), argparse.Namespace(a=1),
]  # fmt: skip


def damage(table, random):
    """One entry or a few of a dict removed, renamed, or replaced."""
    table = dict(table)
    for _ in range(random.choice([0, 1, 1, 3])):
        if not table:
            break
        key = random.choice(list(table))
        value, kind = table.get(key), random.randrange(5)
        if kind == 0:
            del table[key]
        elif kind == 1:
            table[random.choice([7, None, f'{key}x', str(key).replace('1', '2'), str(key).replace('8', '16')])] = value
        elif kind == 2 and getattr(value, 'dtype', None) in (torch.float32, np.dtype('float32')):
            table[key] = random.choice([value[None], value.reshape(-1), value.reshape(-1)[:0], value + 1j])
        else:
            table[key] = random.choice(JUNK)
    return table


def test_damage_gives_a_generator_or_one_sentence():
    random = Random(3)
    state = to_rosinality(small_generator())
    parts = [tf_form.random_variables(np.random.RandomState(9), architecture=kind, labels=2) for kind in ('skip', 'resnet')]
    built, sentences = 0, []
    for _ in range(120):
        latent_avg = torch.zeros([20])
        mapping, synthesis, own = random.choice(parts)
        options = {'architecture': 'skip', 'mapping_lrmul': 0.01, 'conv_clamp': None, 'resample_kernel': [1, 3, 3, 1]}
        decoder = {f'decoder.{name}': value for name, value in damage(state, random).items()}
        candidates = [
            (rosinality, damage({'g_ema': damage(state, random), 'latent_avg': latent_avg}, random)),
            (psp, damage({'state_dict': decoder, 'opts': {}, 'latent_avg': latent_avg[None]}, random)),
            (nvidia_tensorflow, tf_form.as_pickle_contents(
                damage(mapping, random), damage(synthesis, random), damage(own, random), damage(options, random)
            )),
        ]  # fmt: skip
        for module, contents in candidates:
            if not module.matches(contents):
                continue
            try:
                module.build_generator(contents)
                built += 1
            except InputError as error:
                sentences.append(str(error))
    assert min(len(sentences), built) > 30
    assert all(10 < len(sentence) < 1000 for sentence in sentences)


def test_decoder_of_psp_is_an_image_generator():
    G = small_generator()
    weights = {f'decoder.{name}': value for name, value in to_rosinality(G).items()}
    rows = G.mapping.w_avg.expand(G.num_ws, -1)
    contents = {'state_dict': weights, 'latent_avg': rows, 'opts': {'output_size': 32}}
    assert psp.matches(contents)
    assert not rosinality.matches(contents)
    assert_same_pictures(G, psp.build_generator(contents))
    assert_same_pictures(G, psp.build_generator({**weights, 'latent_avg': rows}))
    with pytest.raises(InputError, match='no encoder'):
        psp.build_encoder(contents)
    with pytest.raises(InputError, match='no decoder'):
        psp.build_generator({'state_dict': {'encoder.input_layer.0.weight': torch.zeros(1)}})
