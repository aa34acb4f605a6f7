"""Checkpoints of pSp and e4e (`.pt`): an encoder, its decoder (rosinality's StyleGAN2), the average code, the options.

`state_dict` has `encoder.*` and `decoder.*`. Which encoder it is, `opts['encoder_type']` says; the encoders of pSp and
e4e into W+ have equal weights and compute different functions.
"""

import argparse
import re
from collections.abc import Mapping
from typing import Any

import torch

from networks import psp_encoders
from networks.checkpoints.formats import rosinality
from networks.checkpoints.formats.assembly import assemble, plain_name, tensor_of
from networks.errors import InputError

ENCODER = "the pSp or e4e checkpoint's encoder"
DECODER = "the pSp or e4e checkpoint's decoder"
CODES = range(10, 19)  # num_ws of image generators of 64 to 1024 pixels.

# Their names for the encoders.
INTO_W = ('BackboneEncoderUsingLastLayerIntoW', 'SingleStyleCodeEncoder')
INTO_W_PLUS = 'BackboneEncoderUsingLastLayerIntoWPlus'

# ----------------------------------------------------------------------------
# The interface of every format.


def matches(contents: Any) -> bool:
    """Whether this is a dict with the weights of an encoder and its decoder, or of either, under their prefixes."""
    names = _all_weights(contents)
    return any(name in names for name in ('encoder.input_layer.0.weight', 'decoder.conv1.conv.weight'))


def build_generator(contents: Any) -> torch.nn.Module:
    """The decoder as networks.stylegan2.Generator, with `latent_avg` as `mapping.w_avg`.

    Raises:
        InputError: There is no decoder, or its weights do not fit each other.
    """
    state = _weights(contents, 'decoder')
    if not state:
        raise InputError('this pSp or e4e checkpoint holds no decoder, so it cannot be used as an image generator')
    return rosinality.generator_from_state(state, contents.get('latent_avg'), where=DECODER)


def build_encoder(contents: Any) -> torch.nn.Module:
    """The encoder as psp_encoders.ImageEncoder, which adds the average code (unless the options say not to).

    Raises:
        InputError: There is no encoder, it is of an unknown kind, or its weights do not fit its kind.
    """
    state = _weights(contents, 'encoder')
    if not state:
        raise InputError('this pSp or e4e checkpoint holds no encoder')
    options = _options(contents)
    num_styles = len({found[1] for found in (re.match(r'styles\.(\d+)\.', name) for name in state) if found})
    in_channels = tensor_of(state, 'input_layer.0.weight', 4, where=ENCODER).shape[1]
    kind = _encoder_kind(state, options)
    average = _latent_avg(contents, options)
    num_ws = num_styles

    if kind is psp_encoders.BackboneEncoderUsingLastLayerIntoW:
        num_ws = _num_ws_of_decoder(contents, options, average)
        encoder = assemble(lambda: kind(in_channels), state, where=ENCODER)
    else:
        if kind is psp_encoders.BackboneEncoderUsingLastLayerIntoWPlus:
            num_ws = tensor_of(state, 'linear.weight', 2, where=ENCODER).shape[0] // psp_encoders.CODE_WIDTH
        if num_ws not in CODES:
            raise InputError(f'{ENCODER} gives {num_ws} codes, and {CODES[0]} to {CODES[-1]} are supported')
        encoder = assemble(lambda: kind(num_ws, in_channels), state, where=ENCODER)

    if average is not None:
        width = psp_encoders.CODE_WIDTH
        if tuple(average.shape) not in {(width,), (1, width), (num_ws, width)}:
            raise InputError(f'{ENCODER} gives {num_ws} codes, and latent_avg has shape {list(average.shape)}')
    assert isinstance(encoder, psp_encoders.Backbone)
    return psp_encoders.ImageEncoder(encoder, num_ws, average).eval().requires_grad_(False)


# ----------------------------------------------------------------------------
# Finding.


def _all_weights(contents: Any) -> Mapping[Any, Any]:
    if not isinstance(contents, Mapping):
        return {}
    inner = contents.get('state_dict')
    weights = inner if isinstance(inner, Mapping) else contents
    if any(isinstance(name, str) and plain_name(name) != name for name in weights):
        return {plain_name(name) if isinstance(name, str) else name: value for name, value in weights.items()}
    return weights


def _weights(contents: Any, part: str) -> dict[str, Any]:
    """The weights under `part.`, without the prefix."""
    weights = _all_weights(contents)
    names = [name for name in weights if isinstance(name, str) and name.startswith(f'{part}.')]
    return {name[len(part) + 1 :]: weights[name] for name in names}


def _options(contents: Mapping[str, Any]) -> Mapping[str, Any]:
    options = contents.get('opts')
    if isinstance(options, argparse.Namespace):
        options = vars(options)
    return options if isinstance(options, Mapping) else {}


def _encoder_kind(state: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    name = options.get('encoder_type')
    if name is not None:
        name = str(name)[:60]
    if 'styles.0.linear.weight' in state:
        if name is None:  # The options that only one of the two has.
            name = 'Encoder4Editing' if 'stylegan_size' in options else 'GradualStyleEncoder'
        kinds = {'GradualStyleEncoder': psp_encoders.GradualStyleEncoder, 'Encoder4Editing': psp_encoders.Encoder4Editing}
        if name in kinds:
            return kinds[name]
    elif 'output_layer_2.3.weight' in state and name in (None, INTO_W_PLUS):
        return psp_encoders.BackboneEncoderUsingLastLayerIntoWPlus
    elif 'linear.weight' in state and name in (None, *INTO_W):
        return psp_encoders.BackboneEncoderUsingLastLayerIntoW
    raise InputError(f'{ENCODER} is of kind {name!r}, with weights that fit no encoder of pSp or e4e')


def _latent_avg(contents: Mapping[str, Any], options: Mapping[str, Any]) -> torch.Tensor | None:
    """The average that is to be added to the encoder's output, or None."""
    average = contents.get('latent_avg')
    if options.get('start_from_latent_avg', average is not None) is False:
        return None
    if average is None:
        if options.get('start_from_latent_avg'):
            raise InputError(f'{ENCODER} starts from the average code (start_from_latent_avg), which is missing')
        return None
    if not isinstance(average, torch.Tensor) or not average.is_floating_point() or average.ndim == 0:
        raise InputError(f'{ENCODER} comes with a latent_avg that is not a tensor of numbers')
    return average


def _num_ws_of_decoder(contents: Mapping[str, Any], options: Mapping[str, Any], average: torch.Tensor | None) -> int:
    """How many codes the decoder takes, for an encoder into W that does not know it."""
    layers = sum(re.fullmatch(r'to_rgbs\.\d+\.bias', name) is not None for name in _weights(contents, 'decoder'))
    if layers:
        return 2 * layers + 2
    if average is not None and average.ndim == 2 and len(average) in CODES:
        return len(average)
    size = options.get('output_size', options.get('stylegan_size', 1024))
    if isinstance(size, int) and size.bit_length() in range(7, 12):
        return 2 * size.bit_length() - 4
    raise InputError(f'{ENCODER} gives codes in W, and output_size {str(size)[:20]} does not say for how many layers')
