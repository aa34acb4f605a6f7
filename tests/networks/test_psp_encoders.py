"""Encoders of pSp and e4e against the codes of the public implementations, and what surrounds them."""

import argparse
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from networks import psp_encoders
from networks.checkpoints.formats import psp
from networks.checkpoints.formats.assembly import NothingAllocated
from networks.errors import InputError

KINDS: dict[str, tuple[str, type]] = {
    'psp': ('GradualStyleEncoder', psp_encoders.GradualStyleEncoder),
    'e4e': ('Encoder4Editing', psp_encoders.Encoder4Editing),
}


def weight_of_rule(name, shape):
    """The weights that the reference data prescribe for a name."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith('num_batches_tracked'):
        return torch.tensor(0)
    if name.endswith('running_var'):
        values = 0.5 + random.rand(*shape)
    elif len(shape) >= 2:
        values = random.randn(*shape) / np.sqrt(np.prod(shape[1:]))
    elif name.endswith('weight'):
        values = 0.5 + 0.5 * random.rand(*shape)
    else:
        values = 0.1 * random.randn(*shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@pytest.fixture(scope='module')
def answers(shared):
    return {kind: dict(np.load(shared / 'checkpoints' / f'{kind}-encoder-1024.golden.npz')) for kind in KINDS}


@pytest.fixture(scope='module')
def weights(answers):
    """State dict with the prefix of a checkpoint; both encoders have the same names and shapes."""
    shapes = dict(zip(answers['psp']['keys'], answers['psp']['shapes'], strict=True))
    assert shapes == dict(zip(answers['e4e']['keys'], answers['e4e']['shapes'], strict=True))
    return {
        str(name): weight_of_rule(str(name).removeprefix('encoder.'), [int(size) for size in shape.split('x') if size])
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize('kind', KINDS)
def test_codes_are_those_of_the_public_implementation(answers, weights, kind):
    name, module_class = KINDS[kind]
    answer = answers[kind]
    average = torch.from_numpy(answer['latent_avg'])
    options = {'encoder_type': name, 'start_from_latent_avg': True, 'output_size': 1024}
    contents = {'state_dict': weights, 'latent_avg': average, 'opts': options}
    assert psp.matches(contents)
    encoder: Any = psp.build_encoder(contents)
    assert type(encoder.encoder) is module_class
    assert (encoder.num_ws, encoder.w_dim, encoder.img_resolution, encoder.img_channels) == (18, 512, 256, 3)

    images = torch.from_numpy((np.random.RandomState(3).rand(2, 3, 256, 256) * 2 - 1).astype(np.float32))
    expected = answer['codes'] + answer['latent_avg']
    error = np.abs(encoder(images).numpy() - expected).max() / (answer['codes'].max() - answer['codes'].min())
    print(f'{kind}: {error:.1e}')
    assert error < 1e-5


@pytest.mark.parametrize('num_styles', [10, 14, 16])
def test_fewer_styles_are_the_first_names(answers, num_styles):
    with NothingAllocated():
        expected = psp_encoders.GradualStyleEncoder(18).state_dict()
        fewer = psp_encoders.Encoder4Editing(num_styles).state_dict()
    assert set(expected) == {name.removeprefix('encoder.') for name in answers['psp']['keys']}
    beyond = tuple(f'styles.{index}.' for index in range(num_styles, 18))
    assert {name: value.shape for name, value in expected.items() if not name.startswith(beyond)} == {
        name: value.shape for name, value in fewer.items()
    }


def small_backbone(monkeypatch):
    """One unit a stage and 64 channels at the end: same code, a hundredth of the weights."""
    monkeypatch.setattr(psp_encoders, 'BACKBONE_STAGES', ((16, 1), (128, 1), (256, 1), (64, 2)))
    monkeypatch.setattr(psp_encoders, 'CODE_WIDTH', 64)


def small_checkpoint(encoder, **entries):
    torch.manual_seed(4)
    for name, value in encoder.state_dict().items():
        if 'num_batches' not in name:
            value.copy_(torch.rand_like(value) if value.ndim < 2 else torch.randn_like(value) * value[0].numel() ** -0.5)
    state = {f'encoder.{name}': value for name, value in encoder.state_dict().items()}
    return {'state_dict': state, **entries}


def test_each_encoder_has_its_own_function_of_the_same_heads(monkeypatch):
    small_backbone(monkeypatch)
    contents = small_checkpoint(psp_encoders.GradualStyleEncoder(12))
    images = torch.rand([1, 3, 256, 256]) * 2 - 1
    options = {'GradualStyleEncoder': {'output_size': 128}, 'Encoder4Editing': {'stylegan_size': 128}}
    codes = {}
    for name, own in options.items():
        built = [psp.build_encoder({**contents, 'opts': opts}) for opts in ({'encoder_type': name}, own)]
        assert {type(module.encoder).__name__ for module in built} == {name}  # By its name, or by its options.
        codes[name] = built[0](images)
    heads = codes['GradualStyleEncoder']
    torch.testing.assert_close(codes['Encoder4Editing'][:, 0], heads[:, 0])
    torch.testing.assert_close(codes['Encoder4Editing'][:, 1:], heads[:, 1:] + heads[:, :1])


def test_average_is_added_where_the_options_say(monkeypatch):
    small_backbone(monkeypatch)
    contents = small_checkpoint(psp_encoders.GradualStyleEncoder(10))
    images = torch.rand([1, 3, 256, 256]) * 2 - 1
    average = torch.randn([10, 64])

    def codes(opts, latent_avg):
        return psp.build_encoder({**contents, 'opts': opts, 'latent_avg': latent_avg})(images)

    bare = codes({}, None)
    torch.testing.assert_close(codes({}, average), bare + average)
    torch.testing.assert_close(codes(argparse.Namespace(start_from_latent_avg=True), average[0]), bare + average[0])
    torch.testing.assert_close(codes({'start_from_latent_avg': False}, average), bare)
    with pytest.raises(InputError, match='which is missing'):
        codes({'start_from_latent_avg': True}, None)
    with pytest.raises(InputError, match=r'gives 10 codes, and latent_avg has shape \[9, 64\]'):
        codes({}, average[:9])


def test_encoders_of_the_last_map(monkeypatch):
    small_backbone(monkeypatch)
    images = torch.rand([2, 3, 256, 256]) * 2 - 1

    encoder = psp_encoders.BackboneEncoderUsingLastLayerIntoW().eval()
    contents = small_checkpoint(encoder, latent_avg=torch.randn([14, 64]), opts={'learn_in_w': True})
    last = encoder.stages(images)[-1]
    assert last.shape == (2, 64, 16, 16)
    w = last.flatten(2).mean(dim=2) @ encoder.linear.weight.t() / 8 + encoder.linear.bias
    codes = psp.build_encoder(contents)(images)
    torch.testing.assert_close(codes, w[:, None] + contents['latent_avg'], atol=1e-5, rtol=1e-5)
    for opts, num_ws in (({'output_size': 256}, 14), ({'stylegan_size': 64}, 10), ({}, 18)):
        assert psp.build_encoder({**contents, 'latent_avg': None, 'opts': opts})(images).shape == (2, num_ws, 64)

    into_plus = psp_encoders.BackboneEncoderUsingLastLayerIntoWPlus(n_styles=12).eval()
    plus: Any = psp.build_encoder(small_checkpoint(into_plus))
    assert type(plus.encoder) is psp_encoders.BackboneEncoderUsingLastLayerIntoWPlus
    normalise, pool, _, linear = into_plus.output_layer_2
    pooled = pool(normalise(into_plus.stages(images)[-1])).reshape(2, -1)
    code = linear(pooled) @ into_plus.linear.weight.t() / 8 + into_plus.linear.bias
    torch.testing.assert_close(plus(images), code.reshape(2, 12, 64), atol=1e-5, rtol=1e-5)


def test_pictures_of_other_sizes_and_channels(monkeypatch):
    small_backbone(monkeypatch)
    encoder: Any = psp.build_encoder(small_checkpoint(psp_encoders.GradualStyleEncoder(10, in_channels=1)))
    assert encoder.img_channels == 1
    small = torch.rand([1, 1, 8, 8]) * 2 - 1
    images = small.repeat_interleave(64, dim=2).repeat_interleave(64, dim=3)  # Blocks of 64 pixels, of 512x512.
    halved = torch.nn.functional.avg_pool2d(images, 2)
    difference = (encoder(images) - encoder(halved)).abs().max() / encoder(halved).abs().max()
    assert 0 < difference < 0.1  # A bilinear prefilter touches only the pixels beside the borders of the blocks.


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s, o: s.pop('encoder.body.0.res_layer.0.weight'), r'missing, such as body\.0\.res_layer\.0\.weight'),
        (lambda s, o: s.update({'encoder.styles.3.linear.bias': torch.zeros(9)}), r'linear\.bias of shape \[9\]'),
        (lambda s, o: s.update({'encoder.styles.10.linear.bias': torch.zeros(64)}), 'missing'),
        (lambda s, o: s.update({'encoder.input_layer.0.weight': torch.zeros(3)}), 'of 4 dimensions'),
        (lambda s, o: o.update(encoder_type='BackboneEncoderUsingLastLayerIntoW'), 'fit no encoder'),
        (lambda s, o: o.update(encoder_type={}), 'fit no encoder'),
        (lambda s, o: s.update({'encoder.latlayer1.bias': [1.0]}), r'something else than a tensor under latlayer1\.bias'),
        (lambda s, o: s.update({'encoder.latlayer1.bias': torch.zeros(64, dtype=torch.int32)}), 'of type torch.int32'),
        (lambda s, o: o.update(encoder_type='ResNetBackboneEncoder'), "kind 'ResNetBackboneEncoder'"),
        (lambda s, o: [s.pop(name) for name in list(s)], 'holds no encoder'),
    ],
)
def test_encoder_that_does_not_fit_is_one_sentence(monkeypatch, change, message):
    small_backbone(monkeypatch)
    contents = small_checkpoint(psp_encoders.GradualStyleEncoder(10), opts={})
    change(contents['state_dict'], contents['opts'])
    with pytest.raises(InputError, match=message):
        psp.build_encoder(contents)
