"""VideoMAE out of its authors' own file, such as vit_g_hybrid_pt_1200e_ssv2_ft.pth, with which CD-FVD is defined.

The network is the one of the package transformers; only the names of the tensors differ, and the biases of query and value lie
beside one matrix for query, key and value. The file is read by our own reader, which runs nothing that it says. Its settings
do not stand in it: they are those of VideoMAE v1 and v2, and follow from the shapes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from networks.checkpoints.detector_weights.containers import Container, fingerprint
from networks.errors import InputError

INSTALL = 'pip install transformers'
NUM_FRAMES, IMAGE_SIZE, EPSILON = 16, 224, 1e-6
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16}  # width (small, base, large, huge, giant) -> heads of attention

# Names of the authors -> names of transformers, within a block and around the blocks.
WITHIN = {
    'attn.q_bias': 'attention.attention.query.bias',
    'attn.v_bias': 'attention.attention.value.bias',
    'attn.proj': 'attention.output.dense',
    'norm1': 'layernorm_before',
    'norm2': 'layernorm_after',
    'mlp.fc1': 'intermediate.dense',
    'mlp.fc2': 'output.dense',
}
AROUND = {'patch_embed.proj': 'videomae.embeddings.patch_embeddings.projection', 'fc_norm': 'fc_norm', 'head': 'classifier'}


def is_videomae(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the tensors of VideoMAE under its authors' names."""
    return 'patch_embed.proj.weight' in tensors and 'blocks.0.attn.qkv.weight' in tensors


def load(path: str) -> tuple[str, torch.nn.Module, dict[str, Any]]:
    """Kind, network with its weights, and what a protocol says of it.

    Args:
        path: File of a network that was tuned to classify actions; one that was only pretrained lacks the last normalisation.

    Raises:
        InputError: The package transformers is not installed, or the file holds something else.
    """
    try:
        import transformers
    except ImportError as error:
        raise InputError(f'{path} needs the package transformers, which is not installed; {INSTALL}') from error
    container = Container(path)
    tensors = container.state_dict()
    if not is_videomae(tensors):
        raise InputError(f"{path} does not hold VideoMAE under its authors' names")
    renamed = _renamed(tensors, path)
    projection = tensors['patch_embed.proj.weight']
    width, layers = int(projection.shape[0]), sum(name.endswith('.attn.qkv.weight') for name in tensors)
    if width not in HEADS:
        raise InputError(f'{path}: its VideoMAE is {width} wide, and known are {", ".join(map(str, HEADS))}')
    config = transformers.VideoMAEConfig(
        image_size=IMAGE_SIZE, patch_size=int(projection.shape[3]), num_frames=NUM_FRAMES, tubelet_size=int(projection.shape[2]),
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=HEADS[width], layer_norm_eps=EPSILON,
        intermediate_size=int(tensors['blocks.0.mlp.fc1.weight'].shape[0]), num_labels=int(renamed['classifier.bias'].shape[0]),
        use_mean_pooling=True,
    )  # fmt: skip
    with torch.device('meta'):  # the weights of the giant are 4 GB: there is one copy of them, not two
        network = transformers.VideoMAEForVideoClassification(config)
    table = type(network)(_without_layers(config)).videomae.embeddings.position_embeddings
    network.videomae.embeddings.position_embeddings = table.clone()  # computed, not learned
    renamed = {_known_name(name, network): tensor for name, tensor in renamed.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    wrong = sorted(name for name in {*wanted, *renamed} if name not in renamed or wanted.get(name) != tuple(renamed[name].shape))
    if wrong:
        raise InputError(f'{path}: its tensors are not those of VideoMAE, for example {wrong[0]}')
    network.load_state_dict(renamed, assign=True)
    digest = fingerprint((tensor.numpy(), tensor.numpy()[:0]) for _, tensor in sorted(renamed.items()))
    return 'videomae', network, {
        'name': 'videomae', 'architecture': 'VideoMAE, names of its authors', 'path': os.path.basename(os.path.abspath(path)),
        'weights_sha256': digest, 'file_sha256': container.sha256, 'transformers': str(transformers.__version__),
    }  # fmt: skip


def _renamed(tensors: Mapping[str, torch.Tensor], path: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.float().contiguous()
        if not torch.isfinite(tensor).all():
            raise InputError(f'{path}: {name} holds numbers that are not finite')
        parts = name.split('.')
        if parts[0] == 'blocks' and len(parts) > 3:
            stem, rest = f'videomae.encoder.layer.{parts[1]}', '.'.join(parts[2:])
            if rest == 'attn.qkv.weight' and tensor.shape[0] % 3 == 0:
                for part, rows in zip(('query', 'key', 'value'), tensor.chunk(3), strict=True):
                    found[f'{stem}.attention.attention.{part}.weight'] = rows.contiguous()
                continue
            old = next((old for old in WITHIN if rest == old or rest.startswith(f'{old}.')), None)
            if old is not None:
                found[f'{stem}.{WITHIN[old]}{rest.removeprefix(old)}'] = tensor
                continue
        else:
            old = next((old for old in AROUND if name.startswith(f'{old}.')), None)
            if old is not None:
                found[AROUND[old] + name.removeprefix(old)] = tensor
                continue
        raise InputError(f'{path}: VideoMAE has no place for {name}')
    for name in ('fc_norm.weight', 'classifier.bias', 'videomae.encoder.layer.0.intermediate.dense.weight'):
        if name not in found:
            raise InputError(f'{path}: its VideoMAE lacks {name}; a network that was tuned to classify actions is needed')
    return found


def _without_layers(config: Any) -> Any:
    small = config.to_dict() | {'num_hidden_layers': 0}
    return type(config).from_dict(small)


def _known_name(name: str, network: torch.nn.Module) -> str:
    """The name in this version of transformers: older ones have q_bias and v_bias."""
    older = name.replace('.query.bias', '.q_bias').replace('.value.bias', '.v_bias')
    return older if older in network.state_dict() else name
