"""StyleGAN2 image generator.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020 ("the paper" below).

The classes carry the names, constructor arguments, attributes, and state-dict keys of NVIDIA's PyTorch StyleGAN2, so
that weights move between the two without renaming and scripts written for `G_ema` run unchanged. `Generator` takes the
synthesis arguments nested (`synthesis_kwargs={...}`, stylegan2-ada-pytorch) or flat (`channel_base=...`, stylegan3).

This text is embedded in the pickles that the project writes. It therefore imports nothing but torch and names of
`torch_utils` that stylegan2-ada-pytorch and stylegan3 also have, and keeps to Python 3.7.

Shapes: N samples, O/I output/input channels, k kernel size, r resolution, L = num_ws.
Images are NCHW float32, about [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from torch_utils import persistence
from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d

DEMODULATION_EPSILON = 1e-8
NOISE_MODES = ('random', 'const', 'none')

# Activations with act(a * x) = a * act(x) for a > 0: a gain may as well come before them, which saves memory traffic.
HOMOGENEOUS_SLOPES = {'linear': 1.0, 'relu': 0.0, 'lrelu': 0.2}

# ----------------------------------------------------------------------------
# The mathematics, free of modules.


def unit_second_moment(x: torch.Tensor) -> torch.Tensor:
    """Scale each row of x [N, features] so that the mean of its squares is one."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def layer_channels(resolution: int, channel_base: int, channel_max: int) -> int:
    """Number of feature maps at `resolution`: min(channel_base / resolution, channel_max)."""
    return min(channel_base // resolution, channel_max)


def demodulation(weight: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
    """Factors [N, O] that give every output map of the modulated convolution unit expected variance.

    Equation 3 of the paper, d_no = 1 / sqrt(sum_ik (s_ni w_oik)^2 + eps), with the sum over the kernel taken first: it
    does not depend on the sample, so a batch costs a small matrix product and no copies of the weights.
    """
    power = weight.square().sum(dim=(2, 3))  # [OI]
    return (styles.square() @ power.t() + DEMODULATION_EPSILON).rsqrt()  # [NO]


def modulated_convolution(
    x: torch.Tensor,  # Feature maps [N, I, r, r].
    weight: torch.Tensor,  # Convolution weights [O, I, k, k], float32.
    styles: torch.Tensor,  # Factor of each input map [N, I], float32.
    resample_filter: torch.Tensor | None = None,  # FIR filter of the upsampling, from upfirdn2d.setup_filter().
    up: int = 1,  # Upsampling factor.
    demodulate: bool = True,
    fused_modconv: bool = False,  # Modulate the weights of each sample (grouped convolution), not its activations.
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Convolve x with weights modulated by the styles (Equations 1 and 3).

    Returns (y [N, O, r*up, r*up], scale [N, O] or None). The demodulated result is y * scale; the factor is handed
    back so that the caller can merge it with its next multiplication. Where the weights were modulated it is None.
    """
    num_samples, in_channels = styles.shape
    kernel_size = weight.shape[2]

    # Half precision overflows easily. Demodulation cancels any factor on weights and styles, so make them small.
    if demodulate and x.dtype == torch.float16:
        weight = weight / (weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(in_channels * kernel_size**2))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    scale = demodulation(weight, styles) if demodulate else None

    # Upsampling layers apply their kernel as a true convolution (flip_weight=False), the others as a correlation.
    geometry: dict[str, Any] = {'f': resample_filter, 'up': up, 'padding': kernel_size // 2, 'flip_weight': up == 1}
    if not fused_modconv:
        x = x * styles.to(x.dtype)[:, :, None, None]
        return conv2d_resample.conv2d_resample(x=x, w=weight.to(x.dtype), **geometry), scale

    weights = weight[None] * styles[:, None, :, None, None]  # [NOIkk]
    if scale is not None:
        weights = weights * scale[:, :, None, None, None]
    merged = x.reshape(1, num_samples * in_channels, *x.shape[2:])
    weights = weights.flatten(0, 1).to(x.dtype)  # [(NO)Ikk]
    merged = conv2d_resample.conv2d_resample(x=merged, w=weights, groups=num_samples, **geometry)
    return merged.reshape(num_samples, weight.shape[0], *merged.shape[2:]), None


def scale_shift_activate(
    x: torch.Tensor,  # Feature maps [N, O, r, r].
    scale: torch.Tensor | None,  # Demodulation factors [N, O].
    noise: torch.Tensor | None,  # Noise image, broadcasts to x.
    bias: torch.Tensor,  # [O].
    activation: str,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """clamp(gain * act(x * scale + noise + bias)), in as few passes over memory as the device allows."""
    slope = HOMOGENEOUS_SLOPES.get(activation)
    if x.device.type != 'cpu' or slope is None:  # A custom operation exists, or the gain has to stay outside.
        if scale is not None:
            x = x * scale.to(x.dtype)[:, :, None, None]
        if noise is not None:
            x = x + noise.to(x.dtype)
        return bias_act.bias_act(x, bias.to(x.dtype), act=activation, gain=gain, clamp=clamp)

    shift = (bias * gain).to(x.dtype)[None, :, None, None]
    if noise is not None and noise.shape[0] == 1:
        shift, noise = shift + (noise * gain).to(x.dtype), None
    if scale is None:
        x = x * gain + shift if gain != 1 else x + shift
    else:
        x = torch.addcmul(shift, x, (scale * gain).to(x.dtype)[:, :, None, None])
    if noise is not None:
        x = x + (noise * gain).to(x.dtype)
    if slope != 1:
        x = F.leaky_relu(x, slope) if slope else F.relu(x)
    return x if clamp is None else x.clamp(-clamp, clamp)


# ----------------------------------------------------------------------------
# Layers.


class DescribedModule(torch.nn.Module):
    """A module that keeps its settings as attributes and shows them when printed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.__dict__.update(settings)
        self._shown_settings = tuple(settings)

    if TYPE_CHECKING:  # Settings, buffers, and submodules that are made by name.

        def __getattr__(self, name: str) -> Any: ...

    def extra_repr(self) -> str:
        return ', '.join(f'{name}={getattr(self, name)}' for name in self._shown_settings)


def parameter_like(shape: list[int], channels_last: bool = False, divisor: float = 1) -> torch.nn.Parameter:
    """Weights N(0, 1) / divisor, laid out as the convolution wants them."""
    weight = torch.randn(shape) / divisor
    return torch.nn.Parameter(weight.contiguous(memory_format=torch.channels_last) if channels_last else weight)


@persistence.persistent_class
class FullyConnectedLayer(DescribedModule):
    """act(x W^T + b) with equalised learning rate. x [N, in_features] -> [N, out_features].

    The stored weights are N(0, 1) / lr_multiplier and are multiplied by lr_multiplier / sqrt(in_features) at run time.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: str = 'linear',  # A name of bias_act.activation_funcs.
        lr_multiplier: float = 1,
        bias_init: float = 0,
    ) -> None:
        super().__init__(activation=activation, out_features=out_features, in_features=in_features)
        self.bias_gain = lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        start = torch.full([out_features], float(bias_init))
        self.bias = torch.nn.Parameter(start) if bias else None
        self.weight = parameter_like([out_features, in_features], divisor=lr_multiplier)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = None if self.bias is None else (self.bias * self.bias_gain).to(x.dtype)
        if self.activation == 'linear':
            return F.linear(x, weight, bias)
        return bias_act.bias_act(F.linear(x, weight), bias, act=self.activation)


@persistence.persistent_class
class Conv2dLayer(DescribedModule):
    """The shortcut of the resnet architecture: an upsampling convolution with bias and activation, and no modulation.

    x [N, in_channels, r, r] -> [N, out_channels, r * up, r * up].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        up: int = 1,
        bias: bool = True,
        activation: str = 'linear',
        resample_filter: Sequence[int] = (1, 3, 3, 1),
        conv_clamp: float | None = None,  # Clamp the output to +-X, None = do not.
        channels_last: bool = False,
    ) -> None:
        super().__init__(out_channels=out_channels, in_channels=in_channels, up=up, activation=activation, conv_clamp=conv_clamp)
        self.padding = kernel_size // 2
        self.act_gain = float(bias_act.activation_funcs[activation].def_gain)
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.weight = parameter_like([out_channels, in_channels, kernel_size, kernel_size], channels_last)
        self.bias = torch.nn.Parameter(torch.zeros([out_channels])) if bias else None
        self.register_buffer('resample_filter', upfirdn2d.setup_filter(resample_filter))

    def forward(self, x: torch.Tensor, gain: float = 1) -> torch.Tensor:
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        x = conv2d_resample.conv2d_resample(
            x=x, w=weight, up=self.up, padding=self.padding, f=self.resample_filter, flip_weight=(self.up == 1)
        )
        return bias_act.bias_act(x, bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


@persistence.persistent_class
class MappingNetwork(DescribedModule):
    """Latents and labels to intermediate latents: (z [N, z_dim], c [N, c_dim]) -> [N, num_ws, w_dim].

    `w_avg` follows the mean of w while training. Without num_ws the result is [N, w_dim]; without w_avg_beta there is
    no average and no truncation.
    """

    def __init__(
        self,
        z_dim: int,  # 0 = no latent.
        c_dim: int,  # 0 = no label.
        w_dim: int,
        num_ws: int | None,
        num_layers: int = 8,
        embed_features: int | None = None,  # Size of the label embedding, None = w_dim.
        layer_features: int | None = None,  # Size of the hidden layers, None = w_dim.
        activation: str = 'lrelu',
        lr_multiplier: float = 0.01,
        w_avg_beta: float | None = 0.995,  # Decay of the moving average of w.
    ) -> None:
        super().__init__(num_ws=num_ws, num_layers=num_layers, w_dim=w_dim, c_dim=c_dim, z_dim=z_dim, w_avg_beta=w_avg_beta)
        self.has_average = num_ws is not None and w_avg_beta is not None
        if self.has_average:
            self.register_buffer('w_avg', torch.zeros([w_dim]))

        embed_features = (w_dim if embed_features is None else embed_features) if c_dim > 0 else 0
        hidden_features = w_dim if layer_features is None else layer_features
        widths = [z_dim + embed_features, *[hidden_features] * (num_layers - 1), w_dim]
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        for index in range(num_layers):
            layer = FullyConnectedLayer(widths[index], widths[index + 1], lr_multiplier=lr_multiplier, activation=activation)
            setattr(self, f'fc{index}', layer)

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1,  # 1 = no truncation, 0 = the average w.
        truncation_cutoff: int | None = None,  # Truncate only the first so many layers, None = all.
        skip_w_avg_update: bool = False,  # stylegan2-ada-pytorch: do not move the average although training.
        update_emas: bool | None = None,  # stylegan3: move the average, whether training or not.
    ) -> torch.Tensor:
        w = torch.cat(self._inputs(z, c), dim=1)
        for index in range(self.num_layers):
            w = getattr(self, f'fc{index}')(w)

        moves = (self.training and not skip_w_avg_update) if update_emas is None else update_emas
        if moves and self.has_average:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))

        if self.num_ws is not None:
            w = w[:, None].expand(-1, self.num_ws, -1).contiguous()  # [NLw]
        if truncation_psi == 1:
            return w
        if not self.has_average:
            raise ValueError('truncation needs the average of w, and this mapping network was built without one')
        truncated = self.w_avg.lerp(w, truncation_psi)
        if truncation_cutoff is None:
            return truncated
        return torch.cat([truncated[:, :truncation_cutoff], w[:, truncation_cutoff:]], dim=1)

    def _inputs(self, z: torch.Tensor | None, c: torch.Tensor | None) -> list[torch.Tensor]:
        """The parts of the input vector, each normalised on its own."""
        parts = []
        for name, value, size in (('latents z', z, self.z_dim), ('labels c', c, self.c_dim)):
            if size == 0:
                continue
            if value is None or value.ndim != 2 or value.shape[1] != size:
                shape = None if value is None else list(value.shape)
                raise ValueError(f'the mapping network needs {name} of shape [N, {size}], got {shape}')
            value = value.to(torch.float32)
            parts.append(unit_second_moment(value if name == 'latents z' else self.embed(value)))
        return parts


class ModulatedLayer(DescribedModule):
    """What the two kinds of modulated convolution have in common: weights, bias, and the map from w to the styles."""

    def _make_weights(self, channels: tuple[int, int], w_dim: int, kernel_size: int, channels_last: bool) -> None:
        num_inputs, num_outputs = channels
        self.weight = parameter_like([num_outputs, num_inputs, kernel_size, kernel_size], channels_last)
        self.bias = torch.nn.Parameter(torch.zeros([num_outputs]))
        self.affine = FullyConnectedLayer(w_dim, num_inputs, bias_init=1)


@persistence.persistent_class
class SynthesisLayer(ModulatedLayer):
    """Modulated convolution, noise, bias, activation. (x [N, I, r/up, r/up], w [N, w_dim]) -> [N, O, r, r]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        resolution: int,  # Resolution of the output.
        w_dim: int,
        kernel_size: int = 3,
        up: int = 1,
        use_noise: bool = True,
        activation: str = 'lrelu',
        resample_filter: Sequence[int] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            resolution=resolution,
            up=up,
            activation=activation,
            w_dim=w_dim,
            conv_clamp=conv_clamp,
            use_noise=use_noise,
        )
        self.act_gain = float(bias_act.activation_funcs[activation].def_gain)
        self.padding = kernel_size // 2
        self._make_weights((in_channels, out_channels), w_dim, kernel_size, channels_last)
        if use_noise:
            self.noise_strength = torch.nn.Parameter(torch.tensor(0.0))
            self.register_buffer('noise_const', torch.randn([resolution, resolution]))
        self.register_buffer('resample_filter', upfirdn2d.setup_filter(resample_filter))

    def forward(
        self, x: torch.Tensor, w: torch.Tensor, gain: float = 1, noise_mode: str = 'random', fused_modconv: bool = False
    ) -> torch.Tensor:
        if noise_mode not in NOISE_MODES:
            raise ValueError(f'noise_mode is one of {", ".join(NOISE_MODES)}, got {noise_mode!r}')
        noise = None
        if self.use_noise and noise_mode == 'const':
            noise = self.noise_const[None, None] * self.noise_strength
        elif self.use_noise and noise_mode == 'random':
            shape = [x.shape[0], 1, self.resolution, self.resolution]
            noise = torch.randn(shape, device=x.device) * self.noise_strength

        y, scale = modulated_convolution(
            x, self.weight, self.affine(w), self.resample_filter, up=self.up, fused_modconv=fused_modconv
        )
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return scale_shift_activate(y, scale, noise, self.bias, self.activation, self.act_gain * gain, clamp)


@persistence.persistent_class
class ToRGBLayer(ModulatedLayer):
    """Modulated convolution to the image's channels, not demodulated. ([N, I, r, r], [N, w_dim]) -> [N, O, r, r]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        kernel_size: int = 1,
        conv_clamp: float | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__(in_channels=in_channels, out_channels=out_channels, w_dim=w_dim, conv_clamp=conv_clamp)
        self._make_weights((in_channels, out_channels), w_dim, kernel_size, channels_last)
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: torch.Tensor, w: torch.Tensor, fused_modconv: bool = False) -> torch.Tensor:
        styles = self.affine(w) * self.weight_gain
        y, _ = modulated_convolution(x, self.weight, styles, demodulate=False, fused_modconv=fused_modconv)
        return scale_shift_activate(y, None, None, self.bias, 'linear', 1, self.conv_clamp)


# ----------------------------------------------------------------------------
# Networks.


@persistence.persistent_class
class SynthesisBlock(DescribedModule):
    """All layers of one resolution. (x, img, ws [N, num_conv + num_torgb, w_dim]) -> (x [N, O, r, r], img or None).

    in_channels = 0 is the first block, which starts from a learned constant. The architectures are those of the paper's
    Figure 7: 'orig' has one ToRGB at the end, 'skip' adds the ToRGB of every resolution, 'resnet' has shortcuts.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        img_channels: int,
        is_last: bool,
        architecture: str = 'skip',  # 'orig', 'skip', 'resnet'.
        resample_filter: Sequence[int] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
        use_fp16: bool = False,
        fp16_channels_last: bool = False,
        fused_modconv_default: bool | str = False,  # True, False, 'inference_only'; forward() can override it.
        **layer_kwargs: Any,  # Arguments of SynthesisLayer.
    ) -> None:
        super().__init__(
            resolution=resolution,
            architecture=architecture,
            in_channels=in_channels,
            img_channels=img_channels,
            w_dim=w_dim,
            is_last=is_last,
            use_fp16=use_fp16,
            channels_last=use_fp16 and fp16_channels_last,
        )
        if architecture not in ('orig', 'skip', 'resnet'):
            raise ValueError(f"architecture is one of 'orig', 'skip', 'resnet', got {architecture!r}")
        self.fused_modconv_default = fused_modconv_default
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = 1 if is_last or architecture == 'skip' else 0
        self.register_buffer('resample_filter', upfirdn2d.setup_filter(resample_filter))

        shared: dict[str, Any] = {'w_dim': w_dim, 'conv_clamp': conv_clamp, 'channels_last': self.channels_last}
        conv: dict[str, Any] = {**shared, 'resolution': resolution, **layer_kwargs}
        if in_channels == 0:
            self.const = torch.nn.Parameter(torch.randn([out_channels, resolution, resolution]))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, resample_filter=resample_filter, **conv)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **conv)
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, **shared)
        if in_channels != 0 and architecture == 'resnet':
            self.skip = Conv2dLayer(
                in_channels,
                out_channels,
                up=2,
                kernel_size=1,
                resample_filter=resample_filter,
                bias=False,
                channels_last=self.channels_last,
            )

    def forward(
        self,
        x: torch.Tensor | None,
        img: torch.Tensor | None,
        ws: torch.Tensor,
        force_fp32: bool = False,
        fused_modconv: bool | None = None,  # None = fused_modconv_default.
        update_emas: bool = False,  # Has no meaning here; callers of the stylegan3 repository pass it.
        **layer_kwargs: Any,  # noise_mode of SynthesisLayer.forward().
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        num_used = self.num_conv + self.num_torgb
        if ws.ndim != 3 or ws.shape[1] < num_used or ws.shape[2] != self.w_dim:
            wanted = f'[N, {num_used}, {self.w_dim}]'
            raise ValueError(f'block {self.resolution} needs ws of shape {wanted}, got {list(ws.shape)}')
        codes = list(ws.unbind(dim=1))
        half = self.use_fp16 and not force_fp32 and ws.device.type == 'cuda'  # CPUs are slower in half precision.
        if fused_modconv is None:
            inference_only = self.fused_modconv_default == 'inference_only'
            fused_modconv = (not self.training) if inference_only else bool(self.fused_modconv_default)
        layer_kwargs['fused_modconv'] = fused_modconv

        if self.in_channels == 0:
            x = self.const[None].expand(ws.shape[0], -1, -1, -1)
        assert x is not None  # Only the first block may be called without feature maps.
        x = x.to(
            dtype=torch.float16 if half else torch.float32,
            memory_format=torch.channels_last if half and self.channels_last else torch.contiguous_format,
        )

        if self.in_channels == 0:
            x = self.conv1(x, codes[0], **layer_kwargs)
        elif self.architecture == 'resnet':
            shortcut = self.skip(x, gain=math.sqrt(0.5))
            x = self.conv0(x, codes[0], **layer_kwargs)
            x = shortcut + self.conv1(x, codes[1], gain=math.sqrt(0.5), **layer_kwargs)
        else:
            x = self.conv1(self.conv0(x, codes[0], **layer_kwargs), codes[1], **layer_kwargs)

        if img is not None:
            img = upfirdn2d.upsample2d(img, self.resample_filter)
        if self.num_torgb:
            rgb = self.torgb(x, codes[self.num_conv], fused_modconv=fused_modconv).to(torch.float32)
            rgb = rgb.contiguous(memory_format=torch.contiguous_format)
            img = rgb if img is None else img + rgb
        return x, img


@persistence.persistent_class
class SynthesisNetwork(DescribedModule):
    """Intermediate latents to images: ws [N, num_ws, w_dim] -> [N, img_channels, img_resolution, img_resolution]."""

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,  # Number of feature maps times resolution.
        channel_max: int = 512,
        num_fp16_res: int = 0,  # Run the highest so many resolutions in half precision (on a GPU).
        **block_kwargs: Any,  # Arguments of SynthesisBlock.
    ) -> None:
        if img_resolution < 4 or img_resolution & (img_resolution - 1):
            raise ValueError(f'img_resolution is a power of two and at least 4, got {img_resolution}')
        super().__init__(img_channels=img_channels, img_resolution=img_resolution, w_dim=w_dim, num_fp16_res=num_fp16_res)
        self.img_resolution_log2 = img_resolution.bit_length() - 1
        self.block_resolutions = [4 << doubling for doubling in range(self.img_resolution_log2 - 1)]
        half_precision = [r for r in self.block_resolutions[-num_fp16_res:] if r > 4] if num_fp16_res > 0 else []

        self.num_ws = 0
        in_channels = 0
        for resolution in self.block_resolutions:
            out_channels = layer_channels(resolution, channel_base, channel_max)
            block = SynthesisBlock(
                in_channels,
                out_channels,
                w_dim=w_dim,
                resolution=resolution,
                img_channels=img_channels,
                is_last=(resolution == img_resolution),
                use_fp16=(resolution in half_precision),
                **block_kwargs,
            )
            setattr(self, f'b{resolution}', block)
            in_channels = out_channels
            self.num_ws += block.num_conv
        self.num_ws += 1  # The last ToRGB. Every other ToRGB shares its code with the first layer of the next block.

    def forward(self, ws: torch.Tensor, **block_kwargs: Any) -> torch.Tensor:
        """Keyword arguments: noise_mode='random'|'const'|'none', force_fp32=False, fused_modconv=None."""
        if ws.ndim != 3 or ws.shape[1] != self.num_ws or ws.shape[2] != self.w_dim:
            raise ValueError(f'synthesis needs ws of shape [N, {self.num_ws}, {self.w_dim}], got {list(ws.shape)}')
        ws = ws.to(torch.float32)
        x = img = None
        first = 0
        for resolution in self.block_resolutions:
            block = getattr(self, f'b{resolution}')
            x, img = block(x, img, ws[:, first : first + block.num_conv + block.num_torgb], **block_kwargs)
            first += block.num_conv
        assert img is not None  # The last block always has a ToRGB.
        return img


@persistence.persistent_class
class Generator(DescribedModule):
    """Mapping and synthesis: (z [N, z_dim], c [N, c_dim]) -> images [N, img_channels, img_resolution, img_resolution].

    Synthesis arguments come nested in synthesis_kwargs or flat as further keywords.
    """

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict[str, Any] | None = None,  # Arguments of MappingNetwork.
        synthesis_kwargs: dict[str, Any] | None = None,  # Arguments of SynthesisNetwork.
        **flat_synthesis_kwargs: Any,
    ) -> None:
        super().__init__(img_channels=img_channels, img_resolution=img_resolution, z_dim=z_dim, c_dim=c_dim, w_dim=w_dim)
        self.synthesis = SynthesisNetwork(
            w_dim, img_resolution, img_channels, **{**(synthesis_kwargs or {}), **flat_synthesis_kwargs}
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(
        self,
        z: torch.Tensor | None,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        skip_w_avg_update: bool = False,
        update_emas: bool | None = None,
        **synthesis_kwargs: Any,  # Arguments of SynthesisNetwork.forward().
    ) -> torch.Tensor:
        ws = self.mapping(
            z,
            c,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            skip_w_avg_update=skip_w_avg_update,
            update_emas=update_emas,
        )
        return self.synthesis(ws, **synthesis_kwargs)
