"""Pickles of NVIDIA's PyTorch repositories: stylegan2-ada-pytorch and stylegan3, and what their scripts convert.

A pickle holds persistent objects (torch_utils.persistence): class name, source text, construction arguments, and state.
The source text is not looked at. Which architecture it is, the names of the weights tell; our own class of it is made
with the file's construction arguments and filled with the file's weights.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from networks import stylegan2, stylegan2_discriminator, stylegan3
from networks.checkpoints.formats.assembly import assemble
from networks.checkpoints.lazy_data import LazyEntries, PersistentNode
from networks.errors import InputError

GENERATOR_KEYS = ('G_ema', 'G')  # The averaged weights first.
POSITIONAL = ('z_dim', 'c_dim', 'w_dim', 'img_resolution', 'img_channels', 'mapping_kwargs', 'synthesis_kwargs')
MOST_UNITS = 1 << 16  # Above every size in an architecture.
MOST_LAYERS = 64
MOST_TAPS = 64  # Of a resampling filter.

# What the stylegan3 repository's StyleGAN2 takes for arguments that are not given.
STYLEGAN3_DEFAULTS = {'num_fp16_res': 4, 'conv_clamp': 256}

# Attributes that say how a layer computes and that scripts change after construction: the file's values count.
SETTINGS = ('conv_clamp', 'use_fp16', 'channels_last', 'fused_modconv_default', 'w_avg_beta', 'magnitude_ema_beta')
GAINS = ('weight_gain', 'bias_gain', 'act_gain')
# Attributes that a fork may have changed and that the weights do not show.
FIXED = ('activation', 'up', 'down', 'architecture', 'kernel_size', 'conv_kernel', 'padding', 'use_radial_filters')


class UnknownArchitecture(InputError):
    """A persistent generator that our classes do not compute: a fork with its own network source."""


# ----------------------------------------------------------------------------
# The interface of every format.


def matches(contents: object) -> bool:
    """Whether this is a snapshot with a generator, or a persistent generator alone."""
    return find_generator(contents) is not None


def build_generator(contents: object) -> torch.nn.Module:
    """networks.stylegan2.Generator or networks.stylegan3.Generator with the weights of `G_ema` (else `G`).

    Raises:
        UnknownArchitecture: The network is no StyleGAN2 or StyleGAN3, or differs from those of NVIDIA's repositories.
        InputError: It is damaged.
    """
    node = find_generator(contents)
    if node is None:
        raise InputError('it holds no generator under G_ema')
    tensors = node.tensors()
    if 'synthesis.input.freqs' in tensors:
        construct: Callable[..., torch.nn.Module] = stylegan3.Generator
        where = 'its StyleGAN3 generator'
    elif 'synthesis.b4.const' in tensors:
        construct, where = stylegan2.Generator, 'its StyleGAN2 generator'
    else:
        raise UnknownArchitecture(f'its {node.class_name} is neither a StyleGAN2 nor a StyleGAN3 generator')

    kwargs = _construction_arguments(node)
    is_flat = construct is stylegan2.Generator and 'synthesis_kwargs' not in kwargs
    defaults = STYLEGAN3_DEFAULTS if is_flat and _is_from_stylegan3(node) else {}
    try:
        module = assemble(lambda: construct(**{**defaults, **kwargs}), tensors, where=where)  # type: ignore[arg-type]
    except InputError as error:
        raise UnknownArchitecture(str(error)) from error
    _take_settings(node, module, where)
    return module


def build_discriminator(contents: object) -> torch.nn.Module | None:
    """networks.stylegan2_discriminator.Discriminator with the weights of `D`, or None if it holds none that fits."""
    node = contents.raw('D') if isinstance(contents, LazyEntries) else None
    if not isinstance(node, PersistentNode) or 'b4' not in node.group('_modules'):
        return None
    args, kwargs = node.constructor_arguments()
    where = 'its discriminator'
    check_arguments([*args, kwargs], f"{where}'s construction arguments")
    defaults = STYLEGAN3_DEFAULTS if _is_from_stylegan3(node) else {}
    try:
        module = assemble(
            lambda: stylegan2_discriminator.Discriminator(*args, **{**defaults, **kwargs}),
            node.tensors(),  # type: ignore[arg-type]
            where=where,
        )
        _take_settings(node, module, where)
    except InputError:
        return None  # A fork's own; the generator is what the file was opened for.
    return module


def find_generator(contents: object) -> PersistentNode | None:
    """The node of the generator, or None."""
    if isinstance(contents, LazyEntries):
        contents = next((node for node in map(contents.raw, GENERATOR_KEYS) if node is not None), None)
    if not isinstance(contents, PersistentNode):
        return None
    modules = contents.group('_modules')
    return contents if 'synthesis' in modules and 'mapping' in modules else None


def _construction_arguments(node: PersistentNode) -> dict[str, Any]:
    """All arguments under their names, none of them larger than any architecture needs."""
    args, kwargs = node.constructor_arguments()
    if len(args) > len(POSITIONAL):
        raise InputError(f'its {node.class_name} was constructed with {len(args)} positional arguments')
    kwargs = {**dict(zip(POSITIONAL, args, strict=False)), **kwargs}
    check_arguments(kwargs, f"its {node.class_name}'s construction arguments")
    return kwargs


def check_arguments(value: object, where: str, name: str = '', depth: int = 0) -> None:
    """InputError unless the arguments are plain values that no constructor can take for a request of endless work."""
    if isinstance(value, dict) and depth < 3 and len(value) <= MOST_TAPS:
        for key, member in value.items():
            check_arguments(member, where, str(key)[:MOST_TAPS], depth + 1)
    elif isinstance(value, (list, tuple)) and depth < 3 and len(value) <= MOST_TAPS:
        for member in value:
            check_arguments(member, where, name, depth + 1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        largest = MOST_LAYERS if name in ('num_layers', 'num_cells', 'kernel_size', 'conv_kernel', 'filter_size') else MOST_UNITS
        if not math.isfinite(value) or not -MOST_UNITS <= value <= largest:
            raise InputError(f'{where} have {name} = {value:.6g}')
    elif not (value is None or isinstance(value, bool) or (isinstance(value, str) and len(value) <= MOST_TAPS)):
        raise InputError(f'{where} have {name} of type {type(value).__name__}, which is not a plain value')


def _is_from_stylegan3(node: PersistentNode) -> bool:
    """Whether the stylegan3 repository wrote this StyleGAN2: its fully connected layers note their sizes."""
    return any(isinstance(child.raw_state, dict) and 'in_features' in child.raw_state for _prefix, child in node.modules())


def _take_settings(node: PersistentNode, module: torch.nn.Module, where: str) -> None:
    """Give every submodule the file's values of the attributes that say how it computes."""
    for prefix, child in node.modules():
        try:
            ours, theirs = module.get_submodule(prefix.rstrip('.')), child.raw_state
        except AttributeError as error:
            raise UnknownArchitecture(f'{where} has a module {prefix.rstrip(".")}, and its architecture has none') from error
        for name in SETTINGS:
            if name in theirs and hasattr(ours, name):
                value = theirs[name]
                if not (value is None or isinstance(value, (bool, int, float)) or value == 'inference_only'):
                    raise InputError(f'{where} has {prefix}{name} of type {type(value).__name__}')
                check_arguments(value, f"{where}'s settings", name)
                setattr(ours, name, value)
        for name in GAINS:
            value = theirs.get(name)
            if hasattr(ours, name) and isinstance(value, (int, float)) and math.isfinite(value):
                setattr(ours, name, float(value))
        for name in FIXED:
            if name in theirs and name in vars(ours) and _plain(theirs[name]) != _plain(vars(ours)[name]):
                raise UnknownArchitecture(
                    f'{where} has {prefix}{name} = {_plain(theirs[name])!r}, and its construction arguments say '
                    f'{_plain(vars(ours)[name])!r}: it was made by a changed architecture'
                )


def _plain(value: object) -> Any:
    """Something of bounded length to compare and show."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return value[:60] if isinstance(value, str) else type(value).__name__
