"""Writes snapshots, encoders and generators in NVIDIA's layout, and references to image generators."""

import copy
import inspect
import os
import pickle
from typing import Any

import numpy as np
import torch

import dnnlib
from networks.checkpoints.files import file_sha256, replacing
from networks.checkpoints.formats import ours
from networks.checkpoints.loading import tuning_record
from stylevideogan import layout
from torch_utils import persistence


def image_generator_reference(path: str | os.PathLike[str], G: torch.nn.Module) -> dict[str, Any]:
    """What a file that was made with an image generator says of it: path, sha256, class_name, init_kwargs.

    That of a tuned generator also has `tuned_from`, the same of the generator that it was tuned from.
    """
    record = tuning_record(path)
    return {
        'path': os.fspath(path),
        'sha256': file_sha256(path),
        'class_name': type(G).__name__,
        'init_kwargs': to_plain(getattr(G, 'init_kwargs', {})),
        **({} if record is None else {'tuned_from': record['tuned_from']}),
    }


def save_module_pickle(path: str | os.PathLike[str], data: dict[str, Any]) -> None:
    """Write a pickle in NVIDIA's layout: persistent modules with our source text, and plain values.

    The file appears whole or not at all. Modules are written as they are on the CPU.

    Raises:
        TypeError: A module in `data` is not of a persistent class, so its source would be missing from the file.
    """
    prepared = {}
    for key, value in data.items():
        if isinstance(value, torch.nn.Module):
            for name, module in value.named_modules(prefix=key):
                if not persistence.is_persistent(module) and not type(module).__module__.startswith('torch.nn.'):
                    raise TypeError(f'{name} is a {type(module).__name__}, which is no persistent class')
            if any(tensor.device.type != 'cpu' for tensor in [*value.parameters(), *value.buffers()]):
                value = copy.deepcopy(value).cpu()
            if type(value) in ours.CLASSES.values():
                _record_defaults(value)
            prepared[key] = value
        else:
            prepared[key] = to_plain(value)
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        pickler = layout.FlatPickler if layout.is_packaged(__name__) else pickle.Pickler
        pickler(file, protocol=4).dump(prepared)  # Python 3.7, which stylegan2-ada-pytorch asks for, knows 4.


def _record_defaults(module: Any) -> None:
    """Note also the construction arguments that were left out, so that other defaults do not spoil older files."""
    signature = inspect.signature(type(module).__init__)
    bound = signature.bind(module, *module.init_args, **module.init_kwargs)
    bound.apply_defaults()
    arguments = dict(list(bound.arguments.items())[1:])  # Without self.
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        module._init_args, module._init_kwargs = (), dnnlib.EasyDict(arguments)


def to_plain(value: object) -> Any:
    """The same with numbers of numpy as Python's, EasyDict as dict, and paths as text: readable by every version."""
    if isinstance(value, dict):
        return {to_plain(key): to_plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value)(to_plain(member) for member in value)
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value
