"""Networks of the package transformers out of a folder with `config.json` and weights; every tensor has its place.

`from_pretrained` of transformers leaves tensors that it cannot place at their initial values and says so in a log at best:
version 5 has loaded the q and v biases of published VideoMAE checkpoints as zeros. Here every tensor of the file is looked for in
the network by its content, and what is missing or left over ends the program. No program text of a checkpoint is run: classes
come from the table below, weights from safetensors, or from a PyTorch file by torch's weights-only reader.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from networks.errors import InputError

INSTALL = 'pip install transformers'

# model_type -> kind of TransformerFeatures, class of a classification checkpoint, class of the bare network
CLASSES = {
    'videomae': ('videomae', 'VideoMAEForVideoClassification', 'VideoMAEModel'),
    'vjepa2': ('vjepa2', 'VJEPA2ForVideoClassification', 'VJEPA2Model'),
    'dinov2': ('dinov2', None, 'Dinov2Model'),
}
# Parts of training that features do not need; everything else that is left over is refused.
UNUSED = ('decoder.', 'encoder_to_decoder.', 'mask_token', 'classifier.', 'predictor.', 'vjepa2.predictor.')
RENAMED = {'.attention.q_bias': '.query.bias', '.attention.v_bias': '.value.bias'}  # the file's name -> the module's
MOST_NAMED = 4


def is_transformer(path: str) -> bool:
    """Whether this folder holds one of the networks of CLASSES."""
    return os.path.isdir(path) and _description(path).get('model_type') in CLASSES


def kind_of(path: str) -> str:
    """Which kind of networks.feature_networks.transformer_features a folder holds.

    Raises:
        InputError: None of them.
    """
    model_type = _description(path).get('model_type')
    if model_type not in CLASSES:
        raise InputError(f'{path}: its config.json describes a {model_type!r}, and known here are {", ".join(CLASSES)}')
    return CLASSES[model_type][0]


def load(path: str) -> tuple[str, torch.nn.Module, dict[str, Any]]:
    """Kind, network with its weights, and what a protocol says of it.

    Args:
        path: Folder with config.json and model.safetensors (or pytorch_model.bin, whole or in pieces).

    Raises:
        InputError: The package transformers is not installed, or the folder does not hold such a network, whole.
    """
    try:
        import transformers
    except ImportError as error:
        raise InputError(f'{path} needs the package transformers, which is not installed; {INSTALL}') from error
    description = _description(path)
    kind = kind_of(path)
    _, with_head, bare = CLASSES[description['model_type']]
    tensors = _read_tensors(path)
    whole = with_head is not None and with_head in (description.get('architectures') or [])
    name = with_head if whole else bare
    assert name is not None
    network_class = getattr(transformers, name)
    try:
        network, told = network_class.from_pretrained(
            path, local_files_only=True, output_loading_info=True, dtype=torch.float32, ignore_mismatched_sizes=True
        )
    except Exception as error:  # a package of others with errors of its own
        raise InputError(f'{path}: transformers cannot make a {name} of it: {" ".join(str(error).split())[:300]}') from error
    _check(network, tensors, told, path)
    return kind, network, {
        'name': kind, 'architecture': name, 'path': os.path.basename(os.path.abspath(path)), 'weights_sha256': _digest(tensors),
        'transformers': str(transformers.__version__),
    }  # fmt: skip


def _description(path: str) -> dict[str, Any]:
    try:
        with open(os.path.join(path, 'config.json'), encoding='utf-8') as file:
            content = json.load(file)
    except OSError as error:
        raise InputError(f'{path}: there is no config.json that says what network this is') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}: its config.json is damaged') from error
    return content if isinstance(content, dict) else {}


def _read_tensors(path: str) -> dict[str, torch.Tensor]:
    import safetensors.torch

    names = sorted(os.listdir(path))
    files = [name for name in names if name.endswith('.safetensors')]
    pickles = [name for name in names if name.startswith('pytorch_model') and name.endswith('.bin')]
    if not files and not pickles:
        raise InputError(f'{path}: there is neither a .safetensors file nor a pytorch_model.bin')
    tensors: dict[str, torch.Tensor] = {}
    for name in files or pickles:
        place = os.path.join(path, name)
        try:
            content = safetensors.torch.load_file(place) if files else torch.load(place, map_location='cpu', weights_only=True)
        except Exception as error:  # two readers, each with errors of its own
            raise InputError(f'{place} cannot be read: {str(error)[:200]}') from error
        for key, value in content.items():
            if key in tensors:
                raise InputError(f'{place}: {key} is in another file of the folder as well')
            tensors[key] = value
    return tensors


def _check(network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], told: Mapping[str, Any], path: str) -> None:
    """Make sure that every tensor of the file is in the network, by its content, and that nothing else is.

    Names do not tell: transformers brings those of the file to those of the module in ways that change with its version.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f'{path}: {name} holds numbers that are not finite')
    state = network.state_dict()
    _complain(path, 'differ in shape from its config.json in', [str(entry) for entry in told.get('mismatched_keys') or ()])
    _complain(path, 'lack', [name for name in map(str, told.get('missing_keys') or ()) if not _is_bias_of(name, tensors)])
    arrived = {_content(tensor) for tensor in state.values()}
    lost = [name for name, tensor in tensors.items() if not name.startswith(UNUSED) and _content(tensor) not in arrived]
    for name in list(lost):
        for old, new in RENAMED.items():
            newer = name.replace(old, f'.attention{new}') if name.endswith(old) else ''
            places = [place for place in (newer, newer.split('.', 1)[-1]) if place in state]  # with and without the prefix
            if places and state[places[0]].shape == tensors[name].shape:
                state[places[0]].copy_(tensors[name])
                lost.remove(name)
    _complain(path, 'hold, and the network has no place for,', lost)


def _is_bias_of(name: str, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether a missing tensor is in the file under its older name."""
    return any(
        name.endswith(new)
        and any(known.endswith(name.removesuffix('.attention' + new).split('.', 1)[-1] + old) for known in tensors)
        for old, new in RENAMED.items()
    )


def _complain(path: str, problem: str, names: Sequence[str]) -> None:
    names = [name for name in names if not name.startswith(UNUSED)]
    if names:
        more = f' and {len(names) - MOST_NAMED} more' if len(names) > MOST_NAMED else ''
        raise InputError(f'{path}: its weights {problem} {", ".join(names[:MOST_NAMED])}{more}; they belong to another network')


def _content(tensor: torch.Tensor) -> bytes:
    return hashlib.sha256(f'{list(tensor.shape)}'.encode() + tensor.detach().float().contiguous().numpy().tobytes()).digest()


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f'{name} {list(tensors[name].shape)}\n'.encode())
        digest.update(tensors[name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()
