"""V-JEPA and its attentive pooler out of their authors' own files, vith16.pth.tar and ssv2-probe.pth.tar, for JEDi.

Both are what torch.save writes. The first one holds a whole training, of which the averaged encoder (`target_encoder`) is read
and the rest is stepped over; the second one a classifier of actions, of which the pooler counts. Sizes follow from the shapes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import torch

from networks.checkpoints.detector_weights.containers import Container, fingerprint
from networks.errors import InputError, option
from networks.feature_networks.vjepa import TRAINED_FRAMES, VJEPA, Encoder, Pooler

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}  # width (tiny to giant) -> heads of attention
NOT_POOLER = 'linear.'  # the classes


def is_encoder(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the tensors of V-JEPA's encoder. VideoMAE's have other biases and embed no positions in the file."""
    return {'blocks.0.attn.qkv.bias', 'pos_embed'} <= set(_bare(tensors))


def is_pooler(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the tensors of an attentive pooler."""
    return 'pooler.query_tokens' in tensors


def load(encoder_path: str | None, pooler_path: str | None) -> VJEPA:
    """The network with its weights.

    Args:
        encoder_path: File of V-JEPA's training.
        pooler_path: File of the classifier that was trained on it.

    Raises:
        InputError: A file is missing, or holds something else.
    """
    for path, what, example in (
        (encoder_path, "V-JEPA's weights", 'vith16.pth.tar'), (pooler_path, 'its attentive pooler', 'ssv2-probe.pth.tar')
    ):  # fmt: skip
        if path is None:
            raise InputError(
                f'this metric needs {what}, such as {example}; give it with {option("detector")}, which may be repeated '
                '(docs/measuring/feature_networks.md)'
            )
    assert encoder_path is not None
    assert pooler_path is not None
    sources = Container(encoder_path), Container(pooler_path)
    tensors = _bare(sources[0].state_dict())
    pooled = {
        name.removeprefix('pooler.'): value for name, value in sources[1].state_dict().items() if not name.startswith(NOT_POOLER)
    }
    with torch.device('meta'):  # the huge one takes 2.5 GB: there is one copy of it, not two
        encoder, pooler = _encoder_for(tensors, encoder_path), _pooler_for(pooled, pooler_path)
    _fill(encoder, tensors, encoder_path)
    _fill(pooler, pooled, pooler_path)
    if encoder.pos_embed.shape[2] != pooler.query_tokens.shape[2]:
        raise InputError(
            f'{pooler_path}: its pooler is {pooler.query_tokens.shape[2]} wide, and the network in {encoder_path} '
            f'{encoder.pos_embed.shape[2]}'
        )
    state = {**encoder.state_dict(), **pooler.state_dict()}
    return VJEPA(encoder, pooler, {
        'name': 'vjepa', 'architecture': f'V-JEPA, {len(encoder.blocks)} blocks of width {encoder.pos_embed.shape[2]}',
        'path': os.path.basename(os.path.abspath(encoder_path)), 'pooler': os.path.basename(os.path.abspath(pooler_path)),
        'weights_sha256': fingerprint((tensor.numpy(), tensor.numpy()[:0]) for _, tensor in sorted(state.items())),
        'file_sha256': sources[0].sha256, 'pooler_sha256': sources[1].sha256,
    })  # fmt: skip


def _bare(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the name of the wrapper that V-JEPA's training has around the network."""
    return {name.removeprefix('backbone.'): tensor for name, tensor in tensors.items()}


def _encoder_for(tensors: Mapping[str, torch.Tensor], path: str) -> Encoder:
    if not is_encoder(tensors) or 'patch_embed.proj.weight' not in tensors or 'blocks.0.mlp.fc1.weight' not in tensors:
        raise InputError(f"{path} does not hold V-JEPA under its authors' names")
    projection, positions = tensors['patch_embed.proj.weight'], tensors['pos_embed']
    width = int(projection.shape[0])
    depth = TRAINED_FRAMES // int(projection.shape[2]) if projection.ndim == 5 else 0
    side = math.isqrt(positions.shape[1] // depth) if positions.ndim == 3 and depth else 0
    if width not in HEADS or depth * side * side != positions.shape[1]:
        raise InputError(f'{path}: it is no V-JEPA for clips of {TRAINED_FRAMES} frames, or none of a known width')
    num_blocks = len({name.split('.')[1] for name in tensors if name.startswith('blocks.')})
    hidden = int(tensors['blocks.0.mlp.fc1.weight'].shape[0])
    tubelet = int(projection.shape[2]), int(projection.shape[3])
    return Encoder(width, num_blocks, HEADS[width], hidden, tubelet, (depth, side, side))


def _pooler_for(tensors: Mapping[str, torch.Tensor], path: str) -> Pooler:
    hidden = tensors.get('cross_attention_block.mlp.fc1.weight')
    if hidden is None or hidden.ndim != 2 or int(hidden.shape[1]) not in HEADS:
        raise InputError(f'{path} does not hold an attentive pooler of V-JEPA')
    return Pooler(int(hidden.shape[1]), HEADS[int(hidden.shape[1])], int(hidden.shape[0]))


def _fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: str) -> None:
    """Give a module its weights.

    Raises:
        InputError: A tensor is missing, left over, of another shape, or not finite.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    wrong = sorted(name for name in {*wanted, *tensors} if name not in tensors or wanted.get(name) != tuple(tensors[name].shape))
    if wrong:
        raise InputError(f'{path}: its tensors are not those of V-JEPA, for example {wrong[0]}')
    values = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    for name, tensor in values.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f'{path}: {name} holds numbers that are not finite')
    module.load_state_dict(values, assign=True)
