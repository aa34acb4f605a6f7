"""StyleGAN2 pickles of NVIDIA's TensorFlow repositories (stylegan2 and stylegan2-ada), read without TensorFlow.

Such a file is a tuple (G, D, Gs) of `dnnlib.tflib.network.Network`; Gs holds the averaged weights. The safe reader
gives each as a plain node whose state has `version`, `static_kwargs`, `variables` (pairs of a name and an array) and
`components` (further networks). Sizes are read from the arrays, and only what no array shows from `static_kwargs`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from networks import stylegan2
from networks.checkpoints.formats.assembly import MOST_BLOCKS, MOST_LAYERS, assemble, fit_channels
from networks.errors import InputError
from torch_utils.ops import upfirdn2d

WHERE = 'the TensorFlow StyleGAN2 generator'
OLDEST_VERSION = 4  # Of tflib.Network; earlier files are progressive GANs.
MOST_TAPS = 64  # Of a resampling filter.
MOST_GAIN = 1e6  # Learning rate multiplier, clamp.

# Options that do not change what a trained network computes here: how it was trained or run, and what callers of
# G.mapping() and G.synthesis() pass as arguments.
WITHOUT_EFFECT = {
    'components', 'conditioning', 'dlatent_avg_beta', 'dlatent_broadcast', 'fused_modconv', 'is_template_graph',
    'is_training', 'is_validation', 'mapping_func', 'randomize_noise', 'return_dlatents', 'structure',
    'style_mixing_prob', 'synthesis_func', 'truncation_cutoff', 'truncation_cutoff_val', 'truncation_psi',
    'truncation_psi_val', 'w_avg_beta',
}  # fmt: skip

# Options that the arrays themselves show.
SHOWN_BY_ARRAYS = {
    'dlatent_size', 'fmap_base', 'fmap_decay', 'fmap_max', 'fmap_min', 'label_fmaps', 'label_size', 'latent_size',
    'mapping_fmaps', 'mapping_layers', 'num_channels', 'resolution', 'use_noise',
}  # fmt: skip

# Options with one value that our generator has built in.
FIXED = {'normalize_latents': True, 'dtype': 'float32', 'use_wscale': True}

# Options that only static_kwargs show: (theirs, ours, where ours goes, default of the repositories).
READ = (
    ('mapping_lrmul', 'lr_multiplier', 'mapping_kwargs', 0.01),
    ('mapping_nonlinearity', 'activation', 'mapping_kwargs', 'lrelu'),
    ('nonlinearity', 'activation', 'synthesis_kwargs', 'lrelu'),
    ('conv_clamp', 'conv_clamp', 'synthesis_kwargs', None),
    ('num_fp16_res', 'num_fp16_res', 'synthesis_kwargs', 0),
    ('resample_kernel', 'resample_filter', 'synthesis_kwargs', [1, 3, 3, 1]),
    ('architecture', 'architecture', 'synthesis_kwargs', None),
)

# ----------------------------------------------------------------------------
# The interface of every format.


def matches(contents: object) -> bool:
    """Whether this is a tuple of TensorFlow networks, or one of them."""
    return _averaged_network(contents) is not None


def build_generator(contents: object) -> torch.nn.Module:
    """networks.stylegan2.Generator with the weights of the averaged network.

    Raises:
        InputError: The network is no StyleGAN2 generator, asks for something that this one cannot do, or is damaged.
    """
    network = _averaged_network(contents)
    if network is None:
        raise InputError('this is not a pickle of TensorFlow StyleGAN networks')
    version = network.get('version')
    if not isinstance(version, int) or version < OLDEST_VERSION:
        raise InputError(f'{WHERE} is of version {version}, and version {OLDEST_VERSION} or later is supported')
    arrays = _arrays(network)
    if 'synthesis/4x4/Conv/mod_weight' not in arrays:
        raise InputError(f'{WHERE} has no modulated convolution 4x4/Conv: this is another network than a StyleGAN2')
    options = _options(network)
    kwargs = _construction_arguments(arrays, options)
    return assemble(lambda: stylegan2.Generator(**kwargs), _state(arrays, kwargs), where=WHERE)


# ----------------------------------------------------------------------------
# Reading the nodes.


def _averaged_network(contents: object) -> Mapping[str, Any] | None:
    if isinstance(contents, (tuple, list)) and len(contents) == 3:
        contents = contents[2]
    return _network_state(contents)


def _network_state(node: Any) -> Mapping[str, Any] | None:
    state = getattr(node, 'state', None)
    if not isinstance(state, Mapping) or not isinstance(state.get('variables'), (list, tuple)):
        return None
    return state if isinstance(state.get('static_kwargs'), Mapping) else None


def _components(network: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    components = network.get('components')
    known = components if isinstance(components, Mapping) else {}
    parts: dict[str, Mapping[str, Any]] = {}
    for name in ('mapping', 'synthesis'):
        part = _network_state(known.get(name))
        if part is None:
            raise InputError(f'{WHERE} has no {name} network')
        parts[f'{name}/'] = part
    return parts


def _arrays(network: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All variables; those of a component under its name."""
    arrays: dict[str, np.ndarray] = {}
    for prefix, part in {'': network, **_components(network)}.items():
        for variable in part['variables']:
            if not isinstance(variable, (tuple, list)) or len(variable) != 2 or not isinstance(variable[0], str):
                raise InputError(f'{WHERE} has a variable that is not a name with an array')
            name, value = variable
            if not isinstance(value, (np.ndarray, np.floating, float)) or np.asarray(value).dtype.kind != 'f':
                raise InputError(f'{WHERE} has a variable {name} that is not an array of numbers')
            arrays[prefix + name] = np.asarray(value)

    # A network that grew has one ToRGB for each level of detail; lod 0 is that of the full resolution.
    blocks = [re.match(r'synthesis/(\d{1,6})x\d+/', name) for name in arrays]
    most = max([int(block[1]) for block in blocks if block], default=4)
    for name in list(arrays):
        found = re.fullmatch(r'synthesis/ToRGB_lod(\d)/(\w+)', name)
        if found:
            array = arrays.pop(name)
            if found[1] == '0':
                arrays[f'synthesis/{most}x{most}/ToRGB/{found[2]}'] = array
    return arrays


def _options(network: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the network and of its parts, checked: InputError for one with an unknown effect."""
    options: dict[str, Any] = {}
    for part in (*_components(network).values(), network):
        options.update(part['static_kwargs'])
    known = WITHOUT_EFFECT | SHOWN_BY_ARRAYS | FIXED.keys() | {row[0] for row in READ}
    for name, value in options.items():
        if name not in known:
            raise InputError(f'{WHERE} was made with the option {name}={value!r:.60}, whose meaning is not known here')
        if name in FIXED and value != FIXED[name]:
            raise InputError(f'{WHERE} was made with {name}={value!r:.60}; only {FIXED[name]} is supported')
    return options


# ----------------------------------------------------------------------------
# Translating.


def _shape(arrays: Mapping[str, np.ndarray], name: str, ndim: int) -> tuple[int, ...]:
    if name not in arrays or arrays[name].ndim != ndim:
        raise InputError(f'{WHERE} has no array {name} of {ndim} dimensions')
    return arrays[name].shape


def _construction_arguments(arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> dict[str, Any]:
    num_layers = 0
    while f'mapping/Dense{num_layers}/weight' in arrays and num_layers < MOST_LAYERS:
        num_layers += 1
    channels = {4: _shape(arrays, 'synthesis/4x4/Conv/weight', 4)[3]}
    while f'synthesis/{2 * max(channels)}x{2 * max(channels)}/Conv1/weight' in arrays and len(channels) <= MOST_BLOCKS:
        resolution = 2 * max(channels)
        channels[resolution] = _shape(arrays, f'synthesis/{resolution}x{resolution}/Conv1/weight', 4)[3]
    resolution = max(channels)
    w_dim = _shape(arrays, 'synthesis/4x4/Conv/mod_weight', 2)[0]
    kwargs: dict[str, Any] = {
        'z_dim': w_dim,
        'c_dim': 0,
        'w_dim': w_dim,
        'img_resolution': resolution,
        'img_channels': _shape(arrays, f'synthesis/{resolution}x{resolution}/ToRGB/weight', 4)[3],
        'mapping_kwargs': {'num_layers': num_layers},
        'synthesis_kwargs': fit_channels(channels, where=WHERE),
    }
    for theirs, ours, group, default in READ:
        value = options.get(theirs)
        kwargs[group][ours] = default if value is None else value
    for group, name in (('mapping_kwargs', 'lr_multiplier'), ('synthesis_kwargs', 'conv_clamp')):
        value = kwargs[group][name]
        if value is not None and (not isinstance(value, (int, float)) or not 0 < value < MOST_GAIN):
            raise InputError(f'{WHERE} was made with {name}={value!r:.60}, which is no positive number')
    half = kwargs['synthesis_kwargs']['num_fp16_res']
    if not isinstance(half, int) or not 0 <= half <= MOST_BLOCKS:
        raise InputError(f'{WHERE} was made with num_fp16_res={half!r:.60}, which is no number of resolutions')
    if kwargs['synthesis_kwargs']['architecture'] is None:
        has_rgb = 'synthesis/4x4/ToRGB/weight' in arrays or resolution == 4
        has_shortcut = any(name.endswith('/Skip/weight') for name in arrays)
        kwargs['synthesis_kwargs']['architecture'] = 'resnet' if has_shortcut else 'skip' if has_rgb else 'orig'
    kwargs['synthesis_kwargs']['use_noise'] = 'synthesis/4x4/Conv/noise_strength' in arrays

    if num_layers:
        first_width, layer_features = _shape(arrays, 'mapping/Dense0/weight', 2)
        kwargs['z_dim'] = first_width
        if num_layers > 1 and layer_features != w_dim:
            kwargs['mapping_kwargs']['layer_features'] = layer_features
        if 'mapping/LabelEmbed/weight' in arrays:
            kwargs['c_dim'], embed_features = _shape(arrays, 'mapping/LabelEmbed/weight', 2)
            kwargs['z_dim'] -= embed_features
            if embed_features != w_dim:
                kwargs['mapping_kwargs']['embed_features'] = embed_features
    if 'mapping/LabelConcat/weight' in arrays:
        raise InputError(
            f'{WHERE} takes labels in the way of the first TensorFlow repository (LabelConcat), which normalises z and '
            'the label together; no generator in PyTorch does that, and it is not supported'
        )
    return kwargs


def _resample_filter(taps: Any) -> torch.Tensor:
    is_list = isinstance(taps, (list, tuple)) and 0 < len(taps) <= MOST_TAPS
    if not is_list or not all(isinstance(tap, (int, float)) and abs(tap) < math.inf for tap in taps) or not sum(taps):
        raise InputError(f'{WHERE} was made with resample_kernel={taps!r:.60}, which is no filter')
    return upfirdn2d.setup_filter(list(taps))


def _state(arrays: Mapping[str, np.ndarray], kwargs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """State of our generator from theirs."""
    mapping_kwargs, synthesis_kwargs = kwargs['mapping_kwargs'], kwargs['synthesis_kwargs']
    architecture = synthesis_kwargs['architecture']
    resample_filter = _resample_filter(synthesis_kwargs['resample_filter'])
    unused = set(arrays) - {'lod'}
    state: dict[str, torch.Tensor] = {}

    def take(name: str, ndim: int, units: int = 0) -> torch.Tensor:
        """The array without its first `units` dimensions, which have size 1."""
        shape = _shape(arrays, name, ndim)
        if any(size != 1 for size in shape[:units]):
            raise InputError(f'{WHERE} has {name} of shape {list(shape)}, whose first {units} must be 1')
        unused.discard(name)
        return torch.from_numpy(np.array(arrays[name], dtype=np.float32).reshape(shape[units:]))

    def kernel(name: str) -> torch.Tensor:
        return take(f'{name}/weight', 4).permute(3, 2, 0, 1)  # [k, k, I, O] -> [O, I, k, k]

    def modulated(ours: str, theirs: str) -> None:
        state[f'{ours}.weight'] = kernel(theirs)
        state[f'{ours}.bias'] = take(f'{theirs}/bias', 1)
        state[f'{ours}.affine.weight'] = take(f'{theirs}/mod_weight', 2).t()
        state[f'{ours}.affine.bias'] = take(f'{theirs}/mod_bias', 1) + 1

    def convolution(ours: str, theirs: str, noise: int) -> None:
        modulated(ours, theirs)
        state[f'{ours}.resample_filter'] = resample_filter
        if synthesis_kwargs['use_noise']:
            state[f'{ours}.noise_strength'] = take(f'{theirs}/noise_strength', 0)
            state[f'{ours}.noise_const'] = take(f'synthesis/noise{noise}', 4, units=2)

    dense = [(f'fc{index}', f'Dense{index}') for index in range(mapping_kwargs['num_layers'])]
    dense += [('embed', 'LabelEmbed')] if kwargs['c_dim'] else []
    for ours, theirs in dense:
        state[f'mapping.{ours}.weight'] = take(f'mapping/{theirs}/weight', 2).t()
        state[f'mapping.{ours}.bias'] = take(f'mapping/{theirs}/bias', 1)
    state['mapping.w_avg'] = take('dlatent_avg', 1)

    for level in range(2, kwargs['img_resolution'].bit_length()):
        resolution = 1 << level
        ours, theirs = f'synthesis.b{resolution}', f'synthesis/{resolution}x{resolution}'
        state[f'{ours}.resample_filter'] = resample_filter
        if level == 2:
            state[f'{ours}.const'] = take(f'{theirs}/Const/const', 4, units=1)
            convolution(f'{ours}.conv1', f'{theirs}/Conv', noise=0)
        else:
            convolution(f'{ours}.conv0', f'{theirs}/Conv0_up', noise=2 * level - 5)
            state[f'{ours}.conv0.weight'] = state[f'{ours}.conv0.weight'].flip((2, 3))  # Theirs is a transposed one.
            convolution(f'{ours}.conv1', f'{theirs}/Conv1', noise=2 * level - 4)
            if architecture == 'resnet':
                state[f'{ours}.skip.weight'] = kernel(f'{theirs}/Skip').flip((2, 3))
                state[f'{ours}.skip.resample_filter'] = resample_filter
        if architecture == 'skip' or resolution == kwargs['img_resolution']:
            modulated(f'{ours}.torgb', f'{theirs}/ToRGB')
    if unused:
        raise InputError(f'{WHERE} has the variable {min(unused)}, which a StyleGAN2 generator has no place for')
    return state
