"""I3D, the video network behind the Frechet video distance: Inception-v1 inflated to three dimensions.

Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017), trained on Kinetics-400; the distance is from
Unterthiner et al., "Towards Accurate Generative Models of Video" (2018), which takes the 400 logits as features. The
weights are those of `deepmind/i3d-kinetics-400/1`; `networks.checkpoints.detectors.load_i3d` finds and reads them.

Batch normalisation is folded into the convolutions, and convolutions that read the same input are done as one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from networks.errors import InputError

# Weight [O, I, ...] and bias [O] of the convolution of that name, with batch normalisation folded in.
FoldedWeights = Callable[[str], tuple[np.ndarray, np.ndarray]]

NUM_CLASSES = 400
INPUT_SIZE = 224  # Height and width of the frames that it was trained on.
SMALLEST_NUM_FRAMES = 9  # Three halvings must leave the two frames of the last pooling.

# Names of DeepMind's code: of the last convolution, and of those of an Inception module, branch by branch.
LOGITS = 'Logits/Conv3d_0c_1x1'
BRANCHES = (
    'Branch_0/Conv3d_0a_1x1',
    'Branch_1/Conv3d_0a_1x1',
    'Branch_1/Conv3d_0b_3x3',
    'Branch_2/Conv3d_0a_1x1',
    'Branch_2/Conv3d_0b_3x3',
    'Branch_3/Conv3d_0b_1x1',
)

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

# ----------------------------------------------------------------------------
# The network.


class I3D(torch.nn.Module):
    """Videos to the 400 logits of Kinetics, averaged over time: the features of the Frechet video distance.

    Args:
        folded: Weight and bias of each convolution by its name (see `convolutions`).
        description: What the protocol of a result says of the weights; JSON types only.

    Attributes:
        num_features: 400.
        description: As given.

    Raises:
        InputError: The weights are not those of an I3D for 400 classes.
    """

    def __init__(self, folded: FoldedWeights, description: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.num_features = NUM_CLASSES
        self.description = dict(description or {})
        self._build(folded)
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

    resize_rule = f'each frame to {INPUT_SIZE}x{INPUT_SIZE} as TensorFlow 1 does, bilinear, without regard to its shape'
    smallest_num_frames = SMALLEST_NUM_FRAMES

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        """Clips uint8 `[N, T, H, W, 3]` of any size to features float32 `[N, 1, 400]`, as metrics need them."""
        return self(frames.permute(0, 4, 1, 2, 3), rescale=True, resize=True)[:, None]

    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = True) -> torch.Tensor:
        """Features of videos; called as StyleGAN-V's `i3d_torchscript.pt`.

        Args:
            x: `[N, 3, T, H, W]`, T from 9. In [-1, 1], or in 0..255 (of any type) with `rescale`; of 224x224, or of
                any size with `resize`.
            rescale: Bring 0..255 to [-1, 1].
            resize: Bring the frames to 224x224 as `resize_frames` does.
            return_features: Logits; False: the probabilities of the classes.

        Returns:
            float32 `[N, 400]`.

        Raises:
            ValueError: The shape is none of these.
        """
        if x.ndim != 5 or x.shape[1] != 3 or x.shape[2] < SMALLEST_NUM_FRAMES:
            raise ValueError(f'I3D needs videos [N, 3, T >= {SMALLEST_NUM_FRAMES}, H, W], got {list(x.shape)}')
        x = x.to(self.logits.weight.dtype)  # float64 after .double(): slower, without the rounding
        if resize and x.device.type == 'cpu':  # with channels innermost, as frames come and as the network wants them below
            x = resize_frames(x.permute(0, 2, 3, 4, 1), dims=(2, 3)).permute(0, 4, 1, 2, 3)
        elif resize:
            x = resize_frames(x)
        if x.shape[3:] != (INPUT_SIZE, INPUT_SIZE):
            raise ValueError(f'I3D needs frames of {INPUT_SIZE}x{INPUT_SIZE}, got {list(x.shape)}; resize=True resizes')
        if rescale:
            x = (x / 127.5).sub_(1)  # So that 0 and 255 are -1 and 1 exactly.
        if x.device.type == 'cpu':
            # Channels last: the maxima of the poolings are then ten times as fast, and all layers keep the order.
            x = x.contiguous(memory_format=torch.channels_last_3d)
        x = self.blocks(x)
        # Averages of 2 frames and all places, one step apart; then the mean over time of what the last layer, which is
        # linear, makes of them. So the mean may come first: frames inside count twice, the first and the last once.
        x = x.mean(dim=(3, 4))
        x = (x[:, :, :-1] + x[:, :, 1:]).mean(dim=2) / 2
        logits = self.logits(x[:, :, None, None, None]).flatten(start_dim=1)
        return logits if return_features else logits.softmax(dim=1)


def convolutions() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and kernel shape [O, I, t, h, w] of every convolution, from front to back, in a module branch by branch."""
    channels = 3
    for layer in LAYERS:
        if len(layer) == 4:
            name, outputs, (time, space), _ = layer
            yield name, (outputs, channels, time, space, space)
            channels = outputs
        elif isinstance(layer[0], str):
            name, outputs = layer
            inputs = (channels, channels, outputs[1], channels, outputs[3], channels)
            for branch, count, width, size in zip(BRANCHES, outputs, inputs, (1, 1, 3, 1, 3, 1), strict=True):
                yield f'{name}/{branch}', (count, width, size, size, size)
            channels = sum(outputs[index] for index in (0, 2, 4, 5))
    yield LOGITS, (NUM_CLASSES, channels, 1, 1, 1)


def resize_frames(x: torch.Tensor, size: int = INPUT_SIZE, dims: tuple[int, int] = (-2, -1)) -> torch.Tensor:
    """Frames `[..., H, W]`, or with height and width in other `dims`, to `[..., size, size]` as TensorFlow 1 resizes: bilinear,
    output pixel i at i * H / size, without a prefilter. It is what the original Frechet video distance does, and shifts the
    picture by half a pixel.
    """
    for dim in dims:
        length = x.shape[dim]
        if length == size:
            continue
        position = torch.arange(size, device=x.device, dtype=torch.float32) * (length / size)
        lower = position.floor().clamp(max=length - 1)
        share = (position - lower).to(x.dtype).view(-1, *[1] * (x.ndim - 1 - dim % x.ndim))
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
        y = convolve(x, self.weight, self.bias, (self.stride[0], self.stride[1], self.stride[1]), padding)
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


def convolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: tuple[int, int, int], padding: tuple[int, int, int]
) -> torch.Tensor:
    """torch.nn.functional.conv3d.

    On a CPU it is always oneDNN's: with one thread and small batches torch would take a slower one of its own.
    """
    if x.device.type == 'cpu' and torch.backends.mkldnn.is_available() and x.dtype == torch.float32:
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride, padding)


def same_padding(x: torch.Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[torch.Tensor, tuple[int, int, int]]:
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
