"""InceptionV3 against a plain form of the same network, from both kinds of weight file, and wrong files."""

import re
import warnings

import pytest
import torch
import torch.nn.functional as F

from networks.checkpoints.detector_weights import inception_weights
from networks.checkpoints.detectors import load_inception
from networks.errors import InputError
from networks.feature_networks import inception

# What pytorch-fid's file has: name of the convolution -> (outputs, inputs, height, width).
SHAPES = {
    'Conv2d_1a_3x3': (32, 3, 3, 3),
    'Conv2d_2a_3x3': (32, 32, 3, 3),
    'Conv2d_2b_3x3': (64, 32, 3, 3),
    'Conv2d_3b_1x1': (80, 64, 1, 1),
    'Conv2d_4a_3x3': (192, 80, 3, 3),
}
for _name, _inputs, _pooled in (('Mixed_5b', 192, 32), ('Mixed_5c', 256, 64), ('Mixed_5d', 288, 64)):
    SHAPES |= {
        f'{_name}.branch1x1': (64, _inputs, 1, 1),
        f'{_name}.branch5x5_1': (48, _inputs, 1, 1),
        f'{_name}.branch5x5_2': (64, 48, 5, 5),
        f'{_name}.branch3x3dbl_1': (64, _inputs, 1, 1),
        f'{_name}.branch3x3dbl_2': (96, 64, 3, 3),
        f'{_name}.branch3x3dbl_3': (96, 96, 3, 3),
        f'{_name}.branch_pool': (_pooled, _inputs, 1, 1),
    }
SHAPES |= {
    'Mixed_6a.branch3x3': (384, 288, 3, 3),
    'Mixed_6a.branch3x3dbl_1': (64, 288, 1, 1),
    'Mixed_6a.branch3x3dbl_2': (96, 64, 3, 3),
    'Mixed_6a.branch3x3dbl_3': (96, 96, 3, 3),
}
for _name, _width in (('Mixed_6b', 128), ('Mixed_6c', 160), ('Mixed_6d', 160), ('Mixed_6e', 192)):
    SHAPES |= {
        f'{_name}.branch1x1': (192, 768, 1, 1),
        f'{_name}.branch7x7_1': (_width, 768, 1, 1),
        f'{_name}.branch7x7_2': (_width, _width, 1, 7),
        f'{_name}.branch7x7_3': (192, _width, 7, 1),
        f'{_name}.branch7x7dbl_1': (_width, 768, 1, 1),
        f'{_name}.branch7x7dbl_2': (_width, _width, 7, 1),
        f'{_name}.branch7x7dbl_3': (_width, _width, 1, 7),
        f'{_name}.branch7x7dbl_4': (_width, _width, 7, 1),
        f'{_name}.branch7x7dbl_5': (192, _width, 1, 7),
        f'{_name}.branch_pool': (192, 768, 1, 1),
    }
SHAPES |= {
    'Mixed_7a.branch3x3_1': (192, 768, 1, 1),
    'Mixed_7a.branch3x3_2': (320, 192, 3, 3),
    'Mixed_7a.branch7x7x3_1': (192, 768, 1, 1),
    'Mixed_7a.branch7x7x3_2': (192, 192, 1, 7),
    'Mixed_7a.branch7x7x3_3': (192, 192, 7, 1),
    'Mixed_7a.branch7x7x3_4': (192, 192, 3, 3),
}
for _name, _inputs in (('Mixed_7b', 1280), ('Mixed_7c', 2048)):
    SHAPES |= {
        f'{_name}.branch1x1': (320, _inputs, 1, 1),
        f'{_name}.branch3x3_1': (384, _inputs, 1, 1),
        f'{_name}.branch3x3_2a': (384, 384, 1, 3),
        f'{_name}.branch3x3_2b': (384, 384, 3, 1),
        f'{_name}.branch3x3dbl_1': (448, _inputs, 1, 1),
        f'{_name}.branch3x3dbl_2': (384, 448, 3, 3),
        f'{_name}.branch3x3dbl_3a': (384, 384, 1, 3),
        f'{_name}.branch3x3dbl_3b': (384, 384, 3, 1),
        f'{_name}.branch_pool': (192, _inputs, 1, 1),
    }


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'detectors'


@pytest.fixture(scope='module')
def state():
    """Randomly filled weights under the names of pytorch-fid's file."""
    torch.manual_seed(3)
    state = {}
    for name, shape in SHAPES.items():
        outputs = shape[0]
        state[f'{name}.conv.weight'] = torch.randn(shape) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        state |= {
            f'{name}.bn.weight': torch.ones(outputs),
            f'{name}.bn.bias': 0.1 * torch.randn(outputs),
            f'{name}.bn.running_mean': 0.1 * torch.randn(outputs),
            f'{name}.bn.running_var': torch.rand(outputs) + 0.5,
            f'{name}.bn.num_batches_tracked': torch.tensor(7),
        }
    return state | {'fc.weight': torch.randn(1008, 2048), 'fc.bias': torch.randn(1008)}


def plain_forward(state, x):
    """The network step by step, with batch normalisation of its own, as the papers and TensorFlow's graph have it."""

    def conv(name, x, stride=1, padding=0):
        y = F.conv2d(x, state[f'{name}.conv.weight'], stride=stride, padding=padding)
        values = (state[f'{name}.bn.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias'))
        return F.relu(F.batch_norm(y, *values, eps=1e-3))

    def average(x):
        inside = F.avg_pool2d(torch.ones_like(x), 3, 1, 1, divisor_override=1)
        return F.avg_pool2d(x, 3, 1, 1, divisor_override=1) / inside

    rows = torch.arange(299) * (x.shape[2] / 299)
    low, share = rows.floor().long(), (rows - rows.floor()).float()
    high = (low + 1).clamp(max=x.shape[2] - 1)
    x = x[:, :, low] * (1 - share)[:, None] + x[:, :, high] * share[:, None]
    x = x[..., low] * (1 - share) + x[..., high] * share
    x = (x - 128) / 128
    x = conv('Conv2d_2b_3x3', conv('Conv2d_2a_3x3', conv('Conv2d_1a_3x3', x, 2)), padding=1)
    x = F.max_pool2d(conv('Conv2d_4a_3x3', conv('Conv2d_3b_1x1', F.max_pool2d(x, 3, 2))), 3, 2)
    for m in ('Mixed_5b', 'Mixed_5c', 'Mixed_5d'):
        deep = conv(f'{m}.branch3x3dbl_2', conv(f'{m}.branch3x3dbl_1', x), padding=1)
        x = torch.cat(
            [
                conv(f'{m}.branch1x1', x),
                conv(f'{m}.branch5x5_2', conv(f'{m}.branch5x5_1', x), padding=2),
                conv(f'{m}.branch3x3dbl_3', deep, padding=1),
                conv(f'{m}.branch_pool', average(x)),
            ],
            1,
        )
    deep = conv('Mixed_6a.branch3x3dbl_2', conv('Mixed_6a.branch3x3dbl_1', x), padding=1)
    x = torch.cat([conv('Mixed_6a.branch3x3', x, 2), conv('Mixed_6a.branch3x3dbl_3', deep, 2), F.max_pool2d(x, 3, 2)], 1)
    for m in ('Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e'):
        y = conv(f'{m}.branch7x7_3', conv(f'{m}.branch7x7_2', conv(f'{m}.branch7x7_1', x), padding=(0, 3)), padding=(3, 0))
        deep = conv(f'{m}.branch7x7dbl_1', x)
        for step, padding in enumerate([(3, 0), (0, 3), (3, 0), (0, 3)], start=2):
            deep = conv(f'{m}.branch7x7dbl_{step}', deep, padding=padding)
        x = torch.cat([conv(f'{m}.branch1x1', x), y, deep, conv(f'{m}.branch_pool', average(x))], 1)
    m = 'Mixed_7a'
    deep = conv(f'{m}.branch7x7x3_3', conv(f'{m}.branch7x7x3_2', conv(f'{m}.branch7x7x3_1', x), padding=(0, 3)), padding=(3, 0))
    x = torch.cat(
        [conv(f'{m}.branch3x3_2', conv(f'{m}.branch3x3_1', x), 2), conv(f'{m}.branch7x7x3_4', deep, 2), F.max_pool2d(x, 3, 2)], 1
    )
    for m in ('Mixed_7b', 'Mixed_7c'):
        wide = conv(f'{m}.branch3x3_1', x)
        deep = conv(f'{m}.branch3x3dbl_2', conv(f'{m}.branch3x3dbl_1', x), padding=1)
        pooled = average(x) if m == 'Mixed_7b' else F.max_pool2d(x, 3, 1, 1)
        x = torch.cat(
            [
                conv(f'{m}.branch1x1', x),
                conv(f'{m}.branch3x3_2a', wide, padding=(0, 1)),
                conv(f'{m}.branch3x3_2b', wide, padding=(1, 0)),
                conv(f'{m}.branch3x3dbl_3a', deep, padding=(0, 1)),
                conv(f'{m}.branch3x3dbl_3b', deep, padding=(1, 0)),
                conv(f'{m}.branch_pool', pooled),
            ],
            1,
        )
    return x.mean(dim=(2, 3))


class Tree(torch.nn.Module):
    """Modules by dotted names; only its weights are read."""

    def __init__(self, names):
        super().__init__()
        children: dict = {}
        for name, module in names.items():
            head, _, rest = name.partition('.')
            if rest:
                children.setdefault(head, {})[rest] = module
            else:
                self.add_module(head, module)
        for head, members in children.items():
            self.add_module(head, Tree(members))

    def forward(self, x):
        return x


def graph_names():
    """Names of pytorch-fid -> those of the TorchScript archive, whose last two modules are flat and all others nested."""
    stem = {theirs: f'layers.{name}' for name, theirs in inception_weights.GRAPH_STEM.items()}
    for number, (module, _) in enumerate(inception.MODULES):
        kind = inception_weights.GRAPH_MODULES[number]
        for name, branch in inception_weights.GRAPH_BRANCHES[kind].items():
            nested = name if kind == 'e' else re.sub(r'^(tower(?:_\d)?)_conv', r'\1.conv', name)
            stem[f'{module}.{branch}'] = f'layers.mixed{f"_{number}" if number else ""}.{nested}'
    return stem


def test_both_kinds_of_file_give_the_plain_network(state, tmp_path, cache_folder):
    cache_folder.mkdir(parents=True)
    path = cache_folder / 'pt_inception-2015-12-05-6726825d.pth'
    torch.save(state, path)
    detector = load_inception()
    images = torch.randint(0, 256, [2, 3, 47, 47], dtype=torch.uint8)
    features = detector(images)
    expected = plain_forward(state, images.float())
    assert features.shape == (2, 2048)
    torch.testing.assert_close(features, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-3)

    units = {}
    for theirs, name in graph_names().items():
        outputs, inputs, height, width = SHAPES[theirs]
        unit = Tree({'conv': torch.nn.Conv2d(inputs, outputs, (height, width), bias=False), 'bn': torch.nn.BatchNorm2d(outputs)})
        unit.load_state_dict(
            {key.removeprefix(f'{theirs}.'): value for key, value in state.items() if key.startswith(f'{theirs}.')}
        )
        units[name] = unit
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.script(Tree({**units, 'output': torch.nn.Linear(2048, 1008)})).save(str(tmp_path / 'script.pt'))
    other = load_inception(tmp_path / 'script.pt')
    assert other.description['container'] == 'TorchScript'
    assert other.description['weights_sha256'] == detector.description['weights_sha256']
    assert not detector.description['published']
    with pytest.raises(ValueError, match='InceptionV3 needs images'):
        detector(images[:, :1])


def test_files_that_are_not_the_weights(state, tmp_path):
    with pytest.raises(InputError, match=r'put inception-2015-12-05.pt or .* or name such a file with detector'):
        load_inception()
    changed = dict(state)
    del changed['Mixed_6b.branch7x7_2.conv.weight']
    torch.save(changed, tmp_path / 'missing')
    with pytest.raises(InputError, match=r'there is no array Mixed_6b.branch7x7_2.conv.weight'):
        load_inception(tmp_path / 'missing')
    changed = state | {'Conv2d_1a_3x3.conv.weight': torch.zeros(32, 1, 3, 3)}
    torch.save(changed, tmp_path / 'shape')
    with pytest.raises(InputError, match=r'Conv2d_1a_3x3 have shape \[32, 1, 3, 3\], and InceptionV3 needs \[32, 3, 3, 3\]'):
        load_inception(tmp_path / 'shape')
    torch.save({'weight': torch.zeros(3)}, tmp_path / 'other')
    with pytest.raises(InputError, match='with convolutions of images'):
        load_inception(tmp_path / 'other')
