"""InceptionV3 as the Frechet inception distance needs it: the network of TensorFlow's archive `inception-2015-12-05`.

Szegedy et al., "Rethinking the Inception Architecture" (CVPR 2016); the distance is from Heusel et al. (NIPS 2017), which takes
the 2048 averages of the last layer as features. This network differs from torchvision's: averages leave the padding out, the
last module has a maximum where the others have an average, pixels are (x - 128) / 128, and frames come to 299x299 as TensorFlow
1 resizes. `networks.checkpoints.detectors.load_inception` finds and reads the weights.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from networks.errors import InputError
from networks.feature_networks.i3d import FoldedWeights, resize_frames

INPUT_SIZE = 299
NUM_FEATURES = 2048
FRAMES_AT_ONCE = 32

# A branch is a list of steps: (name, outputs, kernel (height, width), stride, padding), 'average' or 'maximum' (3x3, stride 1),
# 'pool' (maximum 3x3, stride 2), or a tuple of branches side by side.
Step = Any


def _conv(name: str, outputs: int, height: int, width: int | None = None, stride: int = 1, pad: bool = True) -> Step:
    width = height if width is None else width
    padding = ((height - 1) // 2, (width - 1) // 2) if pad else (0, 0)
    return name, outputs, (height, width), stride, padding


def _module_a(pooled: int) -> list[list[Step]]:
    return [
        [_conv('branch1x1', 64, 1)],
        [_conv('branch5x5_1', 48, 1), _conv('branch5x5_2', 64, 5)],
        [_conv('branch3x3dbl_1', 64, 1), _conv('branch3x3dbl_2', 96, 3), _conv('branch3x3dbl_3', 96, 3)],
        ['average', _conv('branch_pool', pooled, 1)],
    ]


def _module_b() -> list[list[Step]]:
    return [
        [_conv('branch3x3', 384, 3, stride=2, pad=False)],
        [_conv('branch3x3dbl_1', 64, 1), _conv('branch3x3dbl_2', 96, 3), _conv('branch3x3dbl_3', 96, 3, stride=2, pad=False)],
        ['pool'],
    ]


def _module_c(width: int) -> list[list[Step]]:
    return [
        [_conv('branch1x1', 192, 1)],
        [_conv('branch7x7_1', width, 1), _conv('branch7x7_2', width, 1, 7), _conv('branch7x7_3', 192, 7, 1)],
        [
            _conv('branch7x7dbl_1', width, 1),
            _conv('branch7x7dbl_2', width, 7, 1),
            _conv('branch7x7dbl_3', width, 1, 7),
            _conv('branch7x7dbl_4', width, 7, 1),
            _conv('branch7x7dbl_5', 192, 1, 7),
        ],
        ['average', _conv('branch_pool', 192, 1)],
    ]


def _module_d() -> list[list[Step]]:
    return [
        [_conv('branch3x3_1', 192, 1), _conv('branch3x3_2', 320, 3, stride=2, pad=False)],
        [
            _conv('branch7x7x3_1', 192, 1),
            _conv('branch7x7x3_2', 192, 1, 7),
            _conv('branch7x7x3_3', 192, 7, 1),
            _conv('branch7x7x3_4', 192, 3, stride=2, pad=False),
        ],
        ['pool'],
    ]


def _module_e(pooling: str) -> list[list[Step]]:
    return [
        [_conv('branch1x1', 320, 1)],
        [_conv('branch3x3_1', 384, 1), ([_conv('branch3x3_2a', 384, 1, 3)], [_conv('branch3x3_2b', 384, 3, 1)])],
        [
            _conv('branch3x3dbl_1', 448, 1),
            _conv('branch3x3dbl_2', 384, 3),
            ([_conv('branch3x3dbl_3a', 384, 1, 3)], [_conv('branch3x3dbl_3b', 384, 3, 1)]),
        ],
        [pooling, _conv('branch_pool', 192, 1)],
    ]


STEM: list[Step] = [
    _conv('Conv2d_1a_3x3', 32, 3, stride=2, pad=False),
    _conv('Conv2d_2a_3x3', 32, 3, pad=False),
    _conv('Conv2d_2b_3x3', 64, 3),
    'pool',
    _conv('Conv2d_3b_1x1', 80, 1),
    _conv('Conv2d_4a_3x3', 192, 3, pad=False),
    'pool',
]
MODULES: tuple[tuple[str, list[list[Step]]], ...] = (
    ('Mixed_5b', _module_a(32)),
    ('Mixed_5c', _module_a(64)),
    ('Mixed_5d', _module_a(64)),
    ('Mixed_6a', _module_b()),
    ('Mixed_6b', _module_c(128)),
    ('Mixed_6c', _module_c(160)),
    ('Mixed_6d', _module_c(160)),
    ('Mixed_6e', _module_c(192)),
    ('Mixed_7a', _module_d()),
    ('Mixed_7b', _module_e('average')),
    ('Mixed_7c', _module_e('maximum')),
)

# ----------------------------------------------------------------------------
# The network.


class InceptionV3(torch.nn.Module):
    """Images to the 2048 features of the Frechet inception distance.

    Args:
        folded: Weight and bias of each convolution by its name, such as `Mixed_6b.branch7x7_2`.
        description: What the protocol of a result says of the weights; JSON types only.

    Attributes:
        num_features: 2048.
        description: As given.

    Raises:
        InputError: The weights are not those of this network.
    """

    def __init__(self, folded: FoldedWeights, description: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.num_features = NUM_FEATURES
        self.description = dict(description or {})
        self._folded = folded
        stem, channels = self._branch('', STEM, 3)
        blocks: list[torch.nn.Module] = [stem]
        for name, branches in MODULES:
            block, channels = self._parallel(f'{name}.', branches, channels)
            blocks.append(block)
        self.blocks = torch.nn.Sequential(*blocks)
        del self._folded
        self.eval().requires_grad_(False)

    def _branch(self, prefix: str, steps: list[Step], channels: int) -> tuple[torch.nn.Module, int]:
        layers: list[torch.nn.Module] = []
        for step in steps:
            if isinstance(step, str):
                layers.append(Pooling(step))
            elif isinstance(step[0], list):
                layer, channels = self._parallel(prefix, list(step), channels)
                layers.append(layer)
            else:
                layers.append(self._convolution(prefix, step, channels))
                channels = step[1]
        return torch.nn.Sequential(*layers), channels

    def _parallel(self, prefix: str, branches: list[list[Step]], channels: int) -> tuple[torch.nn.Module, int]:
        made = [self._branch(prefix, branch, channels) for branch in branches]
        return Parallel([module for module, _ in made]), sum(outputs for _, outputs in made)

    def _convolution(self, prefix: str, step: Step, channels: int) -> torch.nn.Module:
        name, outputs, kernel, stride, padding = step
        weight, bias = self._folded(prefix + name)
        if weight.shape != (outputs, channels, *kernel):
            raise InputError(
                f'the weights of {prefix}{name} have shape {list(weight.shape)}, and InceptionV3 needs '
                f'{[outputs, channels, *kernel]}'
            )
        return Convolution(weight, bias, stride, padding)

    resize_rule = f'each frame to {INPUT_SIZE}x{INPUT_SIZE} as TensorFlow 1 does, bilinear, without regard to its shape'
    smallest_num_frames = 1

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Clips uint8 [N, T, H, W, 3] of any size to features float32 [N, T, 2048], one a frame."""
        pieces = frames.flatten(0, 1).permute(0, 3, 1, 2).split(FRAMES_AT_ONCE)
        return torch.cat([self(piece) for piece in pieces]).unflatten(0, frames.shape[:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features float32 [N, 2048] of images [N, 3, H, W] with values 0 to 255, of any type and size.

        Raises:
            ValueError: Another shape.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f'InceptionV3 needs images [N, 3, H, W], got {list(x.shape)}')
        x = (resize_frames(x.to(torch.float32), INPUT_SIZE) - 128) / 128
        return self.blocks(x).mean(dim=(2, 3))


class Convolution(torch.nn.Module):
    """Convolution and ReLU."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: np.ndarray, bias: np.ndarray, stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.register_buffer('weight', torch.from_numpy(weight).float())
        self.register_buffer('bias', torch.from_numpy(bias).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu_(F.conv2d(x, self.weight, self.bias, self.stride, self.padding))


class Pooling(torch.nn.Module):
    """3x3: 'average' of what is inside of the picture, 'maximum', or 'pool' (maximum, stride 2, no padding)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == 'average':
            return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return F.max_pool2d(x, 3, 1, 1) if self.kind == 'maximum' else F.max_pool2d(x, 3, 2)


class Parallel(torch.nn.Module):
    """Branches of one input, side by side."""

    def __init__(self, branches: list[torch.nn.Module]) -> None:
        super().__init__()
        self.branches = torch.nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)
