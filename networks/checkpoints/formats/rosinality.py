"""StyleGAN2 checkpoints of rosinality's repository (`.pt`): training checkpoints and converted ones.

Their generator computes the same function as NVIDIA's, with the same memory layout of every kernel, under other names.
Everything about the architecture is read from the names and shapes of the weights; `args` is not needed.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch

from networks import stylegan2
from networks.checkpoints.formats.assembly import (
    MOST_BLOCKS,
    MOST_LATENTS,
    MOST_LAYERS,
    assemble,
    fit_channels,
    plain_name,
    tensor_of,
)
from networks.errors import InputError
from torch_utils.ops import upfirdn2d

RESAMPLE_FILTER = (1, 3, 3, 1)
NUM_AVERAGED = 4096  # Codes behind an average that the file does not hold (as many as the repository's own default).
MARKS = ('style.1.weight', 'conv1.conv.weight', 'to_rgb1.conv.weight')  # Names that only this format has.
WHERE = "the rosinality checkpoint's generator"

# ----------------------------------------------------------------------------
# The interface of every format.


def matches(contents: Any) -> bool:
    """Whether this is what a rosinality file holds: a dict with the state of a generator, or that state alone."""
    return _find_state(contents) is not None


def build_generator(contents: Any) -> torch.nn.Module:
    """The generator of the averaged weights (`g_ema`; `g` if there is no other), with `latent_avg` as `mapping.w_avg`.

    Raises:
        InputError: Weights are missing, or do not fit each other.
    """
    state = _find_state(contents)
    if state is None:
        raise InputError('this is not a rosinality checkpoint: it holds no g_ema with style and convs weights')
    return generator_from_state(state, contents.get('latent_avg'), where=WHERE)


def generator_from_state(state: Mapping[str, Any], latent_avg: Any, *, where: str) -> torch.nn.Module:
    """networks.stylegan2.Generator with the weights of a rosinality `Generator` (also the decoder of pSp and e4e).

    Args:
        state: State dict under rosinality's names.
        latent_avg: Average code, `[w_dim]` or equal rows of it, or None: then w_avg is the mean over 4096 fixed z.
        where: What `state` is, for errors.
    """
    kwargs, converted = _convert(state, where)
    average = _average_code(latent_avg, kwargs['w_dim'])
    converted['mapping.w_avg'] = torch.zeros([kwargs['w_dim']]) if average is None else average
    module = assemble(lambda: stylegan2.Generator(**kwargs), converted, where=where)
    if average is None:
        mapping = cast(stylegan2.MappingNetwork, module.mapping)
        mapping.w_avg.copy_(_mean_code(mapping))
    return module


# ----------------------------------------------------------------------------
# Finding.


def _find_state(contents: Any) -> Mapping[str, Any] | None:
    if not isinstance(contents, Mapping):
        return None
    for key in ('g_ema', 'g', None):  # One at a time: what is not asked for is not read from the file.
        candidate = contents if key is None else contents.get(key)
        if isinstance(candidate, Mapping):
            state = {plain_name(name): value for name, value in candidate.items() if isinstance(name, str)}
            if all(mark in state for mark in MARKS):
                return state
    return None


def _average_code(latent_avg: Any, w_dim: int) -> torch.Tensor | None:
    """[w_dim], from [w_dim] or from equal rows; None if there is no such tensor."""
    if not isinstance(latent_avg, torch.Tensor) or latent_avg.ndim not in (1, 2) or latent_avg.shape[-1] != w_dim:
        return None
    rows = latent_avg.reshape(-1, w_dim)
    if len(rows) == 0 or not torch.equal(rows, rows[:1].expand_as(rows)):
        return None
    return rows[0].clone()


def _mean_code(mapping: stylegan2.MappingNetwork) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn([NUM_AVERAGED // 8, mapping.z_dim], generator=generator) for _ in range(8)]
    with torch.no_grad():
        means = [mapping(z, None, skip_w_avg_update=True)[:, 0].mean(dim=0) for z in batches]
    return torch.stack(means).mean(dim=0)


# ----------------------------------------------------------------------------
# Names (left: ours; right: theirs).


def _convert(state: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Construction arguments of our generator and its state, except mapping.w_avg."""
    num_layers = 0
    while f'style.{num_layers + 1}.weight' in state and num_layers < MOST_LAYERS:
        num_layers += 1
    num_upsampled = sum(re.fullmatch(r'to_rgbs\.\d+\.conv\.weight', name) is not None for name in state)
    if not 1 <= num_upsampled <= MOST_BLOCKS:
        raise InputError(f'{where} has {num_upsampled} to_rgbs, and 1 to {MOST_BLOCKS} make a generator')

    # Which of their convolutions is which of ours, and its resolution, in the order of the noise buffers.
    layers = [('b4.conv1', 'conv1', 4)]
    to_rgb = [('b4.torgb', 'to_rgb1', 4)]
    for index in range(num_upsampled):
        resolution = 8 << index
        layers.append((f'b{resolution}.conv0', f'convs.{2 * index}', resolution))
        layers.append((f'b{resolution}.conv1', f'convs.{2 * index + 1}', resolution))
        to_rgb.append((f'b{resolution}.torgb', f'to_rgbs.{index}', resolution))

    taken: set[str] = set()

    def take(name: str, ndim: int, units: int = 0) -> torch.Tensor:
        taken.add(name)
        return tensor_of(state, name, ndim, units=units, where=where)

    converted: dict[str, torch.Tensor] = {}
    for index in range(num_layers):
        converted[f'mapping.fc{index}.weight'] = take(f'style.{index + 1}.weight', 2)
        converted[f'mapping.fc{index}.bias'] = take(f'style.{index + 1}.bias', 1)
    converted['synthesis.b4.const'] = take('input.input', 4, units=1)

    default_filter = upfirdn2d.setup_filter(RESAMPLE_FILTER)
    noise_generator = torch.Generator().manual_seed(0)
    for index, (ours, theirs, resolution) in enumerate(layers):
        prefix = f'synthesis.{ours}'
        converted[f'{prefix}.weight'] = take(f'{theirs}.conv.weight', 5, units=1)
        converted[f'{prefix}.affine.weight'] = take(f'{theirs}.conv.modulation.weight', 2)
        converted[f'{prefix}.affine.bias'] = take(f'{theirs}.conv.modulation.bias', 1)
        converted[f'{prefix}.bias'] = take(f'{theirs}.activate.bias', 1)
        converted[f'{prefix}.noise_strength'] = take(f'{theirs}.noise.weight', 1, units=1)
        converted[f'{prefix}.resample_filter'] = default_filter
        if f'{theirs}.conv.blur.kernel' in state:  # Of sum 4, the gain of the zero insertion.
            converted[f'{prefix}.resample_filter'] = take(f'{theirs}.conv.blur.kernel', 2) / 4
        if f'noises.noise_{index}' in state:
            converted[f'{prefix}.noise_const'] = take(f'noises.noise_{index}', 4, units=2)
        else:  # The oldest checkpoints have none, and drew them anew for every picture.
            converted[f'{prefix}.noise_const'] = torch.randn([resolution, resolution], generator=noise_generator)
    for ours, theirs, resolution in to_rgb:
        prefix = f'synthesis.{ours}'
        converted[f'{prefix}.weight'] = take(f'{theirs}.conv.weight', 5, units=1)
        converted[f'{prefix}.affine.weight'] = take(f'{theirs}.conv.modulation.weight', 2)
        converted[f'{prefix}.affine.bias'] = take(f'{theirs}.conv.modulation.bias', 1)
        converted[f'{prefix}.bias'] = take(f'{theirs}.bias', 4, units=1).reshape(-1)
        converted[f'synthesis.b{resolution}.resample_filter'] = default_filter
        if f'{theirs}.upsample.kernel' in state:
            converted[f'synthesis.b{resolution}.resample_filter'] = take(f'{theirs}.upsample.kernel', 2) / 4

    unknown = [name for name in state if name not in taken and isinstance(state[name], torch.Tensor)]
    if state.get('latent_avg') is not None:  # Beside the weights where a file is nothing but a state dict.
        unknown = [name for name in unknown if name != 'latent_avg']
    if unknown:
        raise InputError(f'{where} has weights that a StyleGAN2 generator has no place for, such as {unknown[0]}')

    w_dim = converted['synthesis.b4.conv1.affine.weight'].shape[1]
    z_dim = converted['mapping.fc0.weight'].shape[1] if num_layers else w_dim
    if max(z_dim, w_dim) > MOST_LATENTS:
        raise InputError(f'{where} has codes of {max(z_dim, w_dim)} values, and up to {MOST_LATENTS} are supported')
    channels = {resolution: converted[f'synthesis.{ours}.weight'].shape[0] for ours, _, resolution in layers}
    kwargs: dict[str, Any] = {
        'z_dim': z_dim,
        'c_dim': 0,
        'w_dim': w_dim,
        'img_resolution': 4 << num_upsampled,
        'img_channels': converted['synthesis.b4.torgb.weight'].shape[0],
        'mapping_kwargs': {'num_layers': num_layers},
        'synthesis_kwargs': fit_channels(channels, where=where),
    }
    return kwargs, converted
