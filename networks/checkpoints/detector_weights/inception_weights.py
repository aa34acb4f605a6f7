"""Weights of InceptionV3, from TensorFlow's archive `inception-2015-12-05`.

They come from `inception-2015-12-05.pt` (TorchScript, the files of NVIDIA's repositories) or from a state dict (pytorch-fid,
torch-fidelity); no program in such a file is run.
"""

import os
import re

import numpy as np

from networks.checkpoints.detector_weights.containers import Container, cache_folder, find_in_cache, find_units
from networks.errors import InputError, option
from networks.feature_networks.i3d import FoldedWeights
from networks.feature_networks.inception import MODULES

CACHED_NAMES = ('inception-2015-12-05.pt', 'pt_inception-2015-12-05-6726825d.pth', 'weights-inception-2015-12-05-6726825d.pth')
BATCH_NORM_EPSILON = 1e-3


def find_weights(path: str | os.PathLike[str] | None = None) -> str:
    """The file to take: the one that is given, or one in the cache folder.

    Raises:
        InputError: There is none; the sentence says where to put one.
    """
    found = find_in_cache(CACHED_NAMES) if path is None else os.fspath(path)
    if found is None:
        raise InputError(
            f'the InceptionV3 weights of the FID are not there, and no Python package brings them; put '
            f'{" or ".join(CACHED_NAMES[:2])} into {cache_folder()}, or name such a file with {option("detector")}'
        )
    return found


def read_weights(container: Container) -> FoldedWeights:
    """The weights of an InceptionV3, by the names of torchvision and pytorch-fid.

    Args:
        container: State dict, or TorchScript archive.

    Raises:
        InputError: The file holds something else. The function that is returned raises it for a name that the file has no
            weights for.
    """
    units = find_units(container.state_dict(), 4)
    if not units:
        raise InputError('it is neither a state dict nor a TorchScript archive with convolutions of images')
    if any(name.startswith('layers.') for name in units):
        units = {_from_graph_name(name): unit for name, unit in units.items()}

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        unit = units.get(name)
        if unit is None:
            raise InputError(f'there is no array {name}.conv.weight in it')
        return unit.fold(BATCH_NORM_EPSILON)

    return read


# Names of TensorFlow's graph, which the TorchScript archive keeps: conv, conv_1, ..., mixed, mixed_1, ..., and in a module
# tower, tower_1, tower_2 from branch to branch.
GRAPH_STEM = {
    'conv': 'Conv2d_1a_3x3',
    'conv_1': 'Conv2d_2a_3x3',
    'conv_2': 'Conv2d_2b_3x3',
    'conv_3': 'Conv2d_3b_1x1',
    'conv_4': 'Conv2d_4a_3x3',
}
GRAPH_BRANCHES = {
    'a': {
        'conv': 'branch1x1',
        'tower_conv': 'branch5x5_1',
        'tower_conv_1': 'branch5x5_2',
        'tower_1_conv': 'branch3x3dbl_1',
        'tower_1_conv_1': 'branch3x3dbl_2',
        'tower_1_conv_2': 'branch3x3dbl_3',
        'tower_2_conv': 'branch_pool',
    },
    'b': {
        'conv': 'branch3x3',
        'tower_conv': 'branch3x3dbl_1',
        'tower_conv_1': 'branch3x3dbl_2',
        'tower_conv_2': 'branch3x3dbl_3',
    },
    'c': {
        'conv': 'branch1x1',
        'tower_conv': 'branch7x7_1',
        'tower_conv_1': 'branch7x7_2',
        'tower_conv_2': 'branch7x7_3',
        'tower_1_conv': 'branch7x7dbl_1',
        'tower_1_conv_1': 'branch7x7dbl_2',
        'tower_1_conv_2': 'branch7x7dbl_3',
        'tower_1_conv_3': 'branch7x7dbl_4',
        'tower_1_conv_4': 'branch7x7dbl_5',
        'tower_2_conv': 'branch_pool',
    },
    'd': {
        'tower_conv': 'branch3x3_1',
        'tower_conv_1': 'branch3x3_2',
        'tower_1_conv': 'branch7x7x3_1',
        'tower_1_conv_1': 'branch7x7x3_2',
        'tower_1_conv_2': 'branch7x7x3_3',
        'tower_1_conv_3': 'branch7x7x3_4',
    },
    'e': {
        'conv': 'branch1x1',
        'tower_conv': 'branch3x3_1',
        'tower_mixed_conv': 'branch3x3_2a',
        'tower_mixed_conv_1': 'branch3x3_2b',
        'tower_1_conv': 'branch3x3dbl_1',
        'tower_1_conv_1': 'branch3x3dbl_2',
        'tower_1_mixed_conv': 'branch3x3dbl_3a',
        'tower_1_mixed_conv_1': 'branch3x3dbl_3b',
        'tower_2_conv': 'branch_pool',
    },
}
GRAPH_MODULES = 'aaabccccdee'


def _from_graph_name(name: str) -> str:
    """layers.mixed_4.tower_1.conv_2 -> Mixed_6b.branch7x7dbl_3; other names stay."""
    match = re.fullmatch(r'layers\.mixed(?:_(\d+))?\.(.+?)(?:\.conv)?', name)
    if match is None:
        return GRAPH_STEM.get(name.removeprefix('layers.'), name)
    number = int(match[1] or 0)
    if number >= len(MODULES):
        return name
    branches = GRAPH_BRANCHES[GRAPH_MODULES[number]]
    full = name.split('.', 2)[2].replace('.', '_')
    branch = branches.get(full) or branches.get(match[2].replace('.', '_'))
    return f'{MODULES[number][0]}.{branch}' if branch else name
