"""Directions in W+: read from files of other tools, and found in a subject's own motion."""

from __future__ import annotations

import contextlib
import os
import re

import numpy as np
import torch

from networks.errors import DAMAGED_FILE, InputError
from training.control.keyframes import Keyframes, parse_keyframes
from training.control.option_types import NUMBER

DAMAGED = (*DAMAGED_FILE, OSError)
KEYS = ('direction', 'boundary', 'w', 'delta', 'direction_w', 'arr_0')  # of arrays in .npz and dictionaries in .pt


def parse_edit(text: str) -> tuple[str, Keyframes, str]:
    """Read FILE[:STRENGTH[:LAYERS]]: path, strength (1 if not said; keyframes as '0@0,2@100'), and layers ('' for all).

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    strength = rf'{NUMBER}(?:@\d+)?(?:,{NUMBER}@\d+)*'
    match = re.fullmatch(rf'(.+?):({strength})(?::(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*))?', text, re.ASCII)
    if match is None or os.path.exists(text):
        return text, Keyframes.constant(1.0), ''
    return match[1], parse_keyframes(match[2]), match[3] or ''


def parse_layers(text: str, num_ws: int) -> list[int]:
    """Read '0-3,7': style layers, counted from 0.

    Raises:
        InputError: the image generator has fewer layers.
    """
    layers: set[int] = set()
    for part in text.split(','):
        first, _, last = part.partition('-')
        layers |= set(range(int(first), int(last or first) + 1))
    if not layers or max(layers) >= num_ws:
        raise InputError(f'--edit: layers {text} were asked for, and this image generator has layers 0 to {num_ws - 1}')
    return sorted(layers)


def read_direction(path: str, num_ws: int, w_dim: int, layers: str = '') -> torch.Tensor:
    """A direction [num_ws, w_dim] from .npy, .pt or .npz: [num_ws, w_dim], [1, w_dim] or [w_dim], with or without a leading 1.

    [w_dim] (InterFaceGAN's boundaries, GANSpace's components) goes into all layers alike. Nothing in the file is run.

    Args:
        path: The file.
        num_ws, w_dim: What the image generator takes.
        layers: As `parse_layers` reads them; '' are all.

    Raises:
        InputError: no such file, damaged, or of another shape.
    """
    if not os.path.isfile(path):
        raise InputError(f'--edit: there is no file {path!r}')
    try:
        array = _read_array(path)
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'--edit: {path!r} cannot be read as a direction: {reason[:200]}') from error
    if array.dtype.kind != 'f' or not np.isfinite(array).all():
        raise InputError(f'--edit: {path!r} holds values that are not finite floating point numbers')
    shape = list(array.shape)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2 or array.shape[1] != w_dim or array.shape[0] not in (1, num_ws):
        raise InputError(
            f'--edit: the direction in {path!r} has the shape {shape}, and this image generator takes [{num_ws}, {w_dim}], '
            f'[1, {w_dim}] or [{w_dim}]; it was made for another one'
        )
    direction = torch.from_numpy(np.array(np.broadcast_to(array, (num_ws, w_dim)), dtype=np.float32))
    if layers:
        kept = torch.zeros(num_ws, 1)
        kept[parse_layers(layers, num_ws)] = 1
        direction = direction * kept
    return direction


def _read_array(path: str) -> np.ndarray:
    if path.lower().endswith(('.pt', '.pth')):
        value = torch.load(path, map_location='cpu', weights_only=True)
        if isinstance(value, dict):
            value = _only(value)
        if not isinstance(value, torch.Tensor):
            raise ValueError(f'it holds a {type(value).__name__} where a tensor belongs')
        return value.detach().float().numpy()
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with contextlib.closing(loaded):
        return np.asarray(_only({name: loaded[name] for name in loaded.files}))


def _only(values: dict[str, object]) -> object:
    """The array of a file with several: the one of a known name, or the only one."""
    for key in KEYS:
        if key in values:
            return values[key]
    if len(values) == 1:
        return next(iter(values.values()))
    raise ValueError(f'it holds {", ".join(map(str, list(values)[:6])) or "nothing"}; name the array "direction"')
