"""StyleGAN2 discriminator (Karras et al., 2020), in the layout of NVIDIA's PyTorch StyleGAN2.

Class names, constructor arguments, and state-dict keys are NVIDIA's. Trains new image generators, as that of the demo.
Like every file whose text travels inside pickles it stands alone, so it brings its own small set of plain layers, and
keeps to Python 3.7.

Shapes: images [N, img_channels, r, r] about [-1, 1], labels [N, c_dim], result [N, 1] (logits, high = real).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from torch_utils import persistence
from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d

ARCHITECTURES = ('orig', 'skip', 'resnet')

# ----------------------------------------------------------------------------
# Layers with equalised learning rate: N(0, 1) weights, scaled by 1 / sqrt(fan-in) at run time.


class NetworkPart(torch.nn.Module):
    """Tells the type checker that weights and layers are made by name."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class EqualizedLayer(NetworkPart):
    """Weights, bias, and their gains; frozen ones (trainable=False) are buffers, so that no optimiser finds them."""

    def __init__(self, shape: list[int], bias: bool, activation: str, lr_multiplier: float = 1, trainable: bool = True) -> None:
        super().__init__()
        self.activation = activation
        self.weight_gain = lr_multiplier / math.sqrt(torch.Size(shape[1:]).numel())
        self.bias_gain = lr_multiplier
        self.act_gain = float(bias_act.activation_funcs[activation].def_gain)
        for name, value in (('weight', torch.randn(shape) / lr_multiplier), ('bias', torch.zeros(shape[:1]))):
            if name == 'bias' and not bias:
                self.bias = None
            elif trainable:
                self.register_parameter(name, torch.nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def scaled(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The weight and bias to compute with."""
        bias = None if self.bias is None else (self.bias * self.bias_gain).to(dtype)
        return (self.weight * self.weight_gain).to(dtype), bias


@persistence.persistent_class
class FullyConnectedLayer(EqualizedLayer):
    """act(x W^T + b). x [N, in_features] -> [N, out_features]."""

    def __init__(self, in_features: int, out_features: int, activation: str = 'linear', lr_multiplier: float = 1) -> None:
        super().__init__([out_features, in_features], True, activation, lr_multiplier)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.scaled(x.dtype)
        return bias_act.bias_act(torch.nn.functional.linear(x, weight), bias, act=self.activation)


@persistence.persistent_class
class Conv2dLayer(EqualizedLayer):
    """Convolution, bias, activation; down=2 filters and halves r. [N, I, r, r] -> [N, O, r/down, r/down]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        activation: str = 'linear',
        down: int = 1,
        resample_filter: Sequence[int] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__([out_channels, in_channels, kernel_size, kernel_size], bias, activation, trainable=trainable)
        self.down = down
        self.padding = kernel_size // 2
        self.conv_clamp = conv_clamp
        self.register_buffer('resample_filter', upfirdn2d.setup_filter(resample_filter))

    def forward(self, x: torch.Tensor, gain: float = 1) -> torch.Tensor:
        weight, bias = self.scaled(x.dtype)
        x = conv2d_resample.conv2d_resample(x=x, w=weight, f=self.resample_filter, down=self.down, padding=self.padding)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act.bias_act(x, bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


@persistence.persistent_class
class LabelMapping(NetworkPart):
    """Labels [N, c_dim] to the direction [N, cmap_dim] on which the discriminator's features are projected.

    Keys as those of a MappingNetwork without z: `embed`, `fc0` ...
    """

    def __init__(
        self,
        c_dim: int,
        cmap_dim: int,
        num_layers: int = 8,
        embed_features: int | None = None,
        layer_features: int | None = None,
        activation: str = 'lrelu',
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        hidden = layer_features or cmap_dim
        widths = [embed_features or cmap_dim, *[hidden] * (num_layers - 1), cmap_dim]
        self.embed = FullyConnectedLayer(c_dim, widths[0])
        for index in range(num_layers):
            layer = FullyConnectedLayer(widths[index], widths[index + 1], activation, lr_multiplier)
            setattr(self, f'fc{index}', layer)

    def forward(self, c: torch.Tensor) -> torch.Tensor:
        x = self.embed(c.to(torch.float32))
        x = x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for index in range(self.num_layers):
            x = getattr(self, f'fc{index}')(x)
        return x


@persistence.persistent_class
class MinibatchStdLayer(torch.nn.Module):
    """Appends num_channels maps that hold the standard deviation of the features over a group of samples.

    A batch that the group size does not divide is cut into the largest groups that do.
    """

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        num_samples, channels, height, width = x.shape
        largest = min(self.group_size or num_samples, num_samples)
        group = next(size for size in range(largest, 0, -1) if num_samples % size == 0)
        groups = x.reshape(group, num_samples // group, self.num_channels, channels // self.num_channels, height, width)
        deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt()  # [N/group, F, C/F, H, W]
        statistic = deviation.mean(dim=(2, 3, 4)).repeat(group, 1)  # [NF]
        return torch.cat([x, statistic[:, :, None, None].expand(-1, -1, height, width).to(x.dtype)], dim=1)


@persistence.persistent_class
class DiscriminatorBlock(NetworkPart):
    """One resolution: (x [N, I, r, r], img) -> (x [N, O, r/2, r/2], img at half resolution or None)."""

    def __init__(
        self,
        in_channels: int,  # 0 = first block, which reads the image.
        tmp_channels: int,
        out_channels: int,
        resolution: int,
        img_channels: int,
        first_layer_idx: int,
        architecture: str = 'resnet',
        activation: str = 'lrelu',
        resample_filter: Sequence[int] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        freeze_layers: int = 0,  # Layers with a smaller running index are not trained (Freeze-D).
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.resolution = resolution
        self.img_channels = img_channels
        self.architecture = architecture
        self.use_fp16 = use_fp16
        self.channels_last = use_fp16 and fp16_channels_last
        self.register_buffer('resample_filter', upfirdn2d.setup_filter(resample_filter))

        plan: list[tuple[str, int, int, dict[str, Any]]] = []
        conv = {'activation': activation, 'conv_clamp': conv_clamp}
        halving = {'down': 2, 'resample_filter': resample_filter}
        if in_channels == 0 or architecture == 'skip':
            plan.append(('fromrgb', img_channels, tmp_channels, {**conv, 'kernel_size': 1}))
        plan.append(('conv0', tmp_channels, tmp_channels, {**conv, 'kernel_size': 3}))
        plan.append(('conv1', tmp_channels, out_channels, {**conv, **halving, 'kernel_size': 3}))
        if architecture == 'resnet':
            plan.append(('skip', tmp_channels, out_channels, {**halving, 'kernel_size': 1, 'bias': False}))
        for index, (name, channels_in, channels_out, kwargs) in enumerate(plan, first_layer_idx):
            setattr(self, name, Conv2dLayer(channels_in, channels_out, trainable=index >= freeze_layers, **kwargs))
        self.num_layers = len(plan)

    def forward(
        self, x: torch.Tensor | None, img: torch.Tensor | None, force_fp32: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        source = img if x is None else x
        assert source is not None  # Every block gets features, an image, or both.
        half = self.use_fp16 and not force_fp32 and source.device.type == 'cuda'
        layout: dict[str, Any] = {
            'dtype': torch.float16 if half else torch.float32,
            'memory_format': torch.channels_last if half and self.channels_last else torch.contiguous_format,
        }

        if x is not None:
            x = x.to(**layout)
        if self.in_channels == 0 or self.architecture == 'skip':
            assert img is not None
            features = self.fromrgb(img.to(**layout))
            x = features if x is None else x + features
            img = upfirdn2d.downsample2d(img, self.resample_filter) if self.architecture == 'skip' else None

        if self.architecture == 'resnet':
            shortcut = self.skip(x, gain=math.sqrt(0.5))
            return shortcut + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), img
        return self.conv1(self.conv0(x)), img


@persistence.persistent_class
class DiscriminatorEpilogue(NetworkPart):
    """The last block: (x [N, I, 4, 4], img, cmap [N, cmap_dim]) -> logits [N, 1]."""

    def __init__(
        self,
        in_channels: int,
        cmap_dim: int,
        resolution: int,
        img_channels: int,
        architecture: str = 'resnet',
        mbstd_group_size: int | None = 4,
        mbstd_num_channels: int = 1,  # 0 = no minibatch statistic.
        activation: str = 'lrelu',
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.cmap_dim = cmap_dim
        self.architecture = architecture
        self.out = FullyConnectedLayer(in_channels, cmap_dim or 1)
        self.fc = FullyConnectedLayer(resolution**2 * in_channels, in_channels, activation)
        self.conv = Conv2dLayer(mbstd_num_channels + in_channels, in_channels, 3, activation=activation, conv_clamp=conv_clamp)
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels else None
        if architecture == 'skip':
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation=activation)

    def forward(self, x: torch.Tensor, img: torch.Tensor | None, cmap: torch.Tensor | None) -> torch.Tensor:
        x = x.to(dtype=torch.float32, memory_format=torch.contiguous_format)
        if self.architecture == 'skip':
            assert img is not None
            x = x + self.fromrgb(img.to(torch.float32))
        if self.mbstd is not None:
            x = self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if cmap is None:
            return x
        return (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)


@persistence.persistent_class
class Discriminator(NetworkPart):
    """Images and labels to logits: (img [N, img_channels, r, r], c [N, c_dim] or None) -> [N, 1]."""

    def __init__(
        self,
        c_dim: int,
        img_resolution: int,
        img_channels: int,
        architecture: str = 'resnet',  # 'orig', 'skip', 'resnet'.
        channel_base: int = 32768,
        channel_max: int = 512,
        num_fp16_res: int = 0,
        conv_clamp: float | None = None,
        cmap_dim: int | None = None,  # Size of the projected label, None = features at 4x4.
        block_kwargs: dict[str, Any] | None = None,
        mapping_kwargs: dict[str, Any] | None = None,
        epilogue_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if img_resolution < 8 or img_resolution & (img_resolution - 1):
            raise ValueError(f'img_resolution is a power of two and at least 8, got {img_resolution}')
        if architecture not in ARCHITECTURES:
            raise ValueError(f'architecture is one of {", ".join(ARCHITECTURES)}, got {architecture!r}')
        self.img_channels = img_channels
        self.img_resolution = img_resolution
        self.img_resolution_log2 = img_resolution.bit_length() - 1
        self.c_dim = c_dim
        self.block_resolutions = [img_resolution >> halving for halving in range(self.img_resolution_log2 - 2)]
        channels = {r: min(channel_base // r, channel_max) for r in [*self.block_resolutions, 4]}
        cmap_dim = 0 if c_dim == 0 else (channels[4] if cmap_dim is None else cmap_dim)
        half_precision = self.block_resolutions[:num_fp16_res]

        shared = {'img_channels': img_channels, 'architecture': architecture, 'conv_clamp': conv_clamp}
        layer_index = 0
        for resolution in self.block_resolutions:
            block = DiscriminatorBlock(
                0 if resolution == img_resolution else channels[resolution],
                channels[resolution],
                channels[resolution // 2],
                resolution=resolution,
                first_layer_idx=layer_index,
                use_fp16=(resolution in half_precision),
                **{**(block_kwargs or {}), **shared},
            )
            setattr(self, f'b{resolution}', block)
            layer_index += block.num_layers
        if c_dim > 0:
            self.mapping = LabelMapping(c_dim, cmap_dim, **(mapping_kwargs or {}))
        self.b4 = DiscriminatorEpilogue(channels[4], cmap_dim=cmap_dim, resolution=4, **{**(epilogue_kwargs or {}), **shared})

    def forward(
        self, img: torch.Tensor, c: torch.Tensor | None = None, update_emas: bool = False, **block_kwargs: Any
    ) -> torch.Tensor:
        """Keyword arguments: force_fp32=False. update_emas means nothing here; callers of stylegan3 pass it."""
        x = None
        rest: torch.Tensor | None = img
        for resolution in self.block_resolutions:
            x, rest = getattr(self, f'b{resolution}')(x, rest, **block_kwargs)
        cmap = self.mapping(c) if self.c_dim > 0 else None
        return self.b4(x, rest, cmap)


@persistence.persistent_class
class NoDiscriminator(torch.nn.Module):
    """Takes the place of D in pickles whose source has none: NVIDIA's scripts insist on a module there.

    Without weights, so that a training that resumes from such a pickle starts with a discriminator of its own.
    """

    def forward(self, img: torch.Tensor, c: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        raise NotImplementedError('the checkpoint that this pickle was converted from holds no discriminator')
