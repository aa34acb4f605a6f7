"""StyleGAN3's synthesis for rendering on a processor: `networks.stylegan3.SynthesisNetwork` without gradients, and faster.

Equations are those of `networks/stylegan3.py`; what differs is the order of the work:

- Maps lie in channels-last order, and weights are brought into the convolution's own order once, not for every picture. For 1x1
  convolutions (StyleGAN3-r) that is more than twice as fast as PyTorch's products on processors that its mathematical library
  does not know.
- Between two convolutions there is one pass over the maps, in which the map at the raised rate never exists
  (`filtered_activation.cpp`). Without a compiler PyTorch's operations do the same in more passes.
- Channels are filled up with zeros to whole vectors, which convolutions of odd widths gain by.
- One picture goes through the network after the other: several are no faster, and take their memory.

In bfloat16 maps and weights of convolutions are rounded, while styles, filters, sums and pictures stay in float32.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F

from networks import stylegan3
from training.kernels.rendering.between import Scratch
from training.kernels.rendering.convolutions import Convolution
from training.kernels.rendering.fast_stylegan2 import Unsupported, is_parametrized
from training.kernels.rendering.filtered import FilteredActivation

VECTOR = 16  # channels that maps are filled up to


def _whole(channels: int) -> int:
    return -(-channels // VECTOR) * VECTOR


def _filled(x: torch.Tensor, *sizes: int) -> torch.Tensor:
    """X with zeros behind its first dimensions, up to these sizes."""
    pads = [part for size, have in reversed(list(zip(sizes, x.shape, strict=False))) for part in (0, size - have)]
    return F.pad(x, [0, 0] * (x.ndim - len(sizes)) + pads) if any(pads) else x


class _Layer:
    """Weights, styles and demodulation of a layer, and the pass behind it; the last layer, to RGB, has none."""

    def __init__(self, layer: Any, dtype: torch.dtype, scratch: Scratch) -> None:
        # No references to modules, which would keep the whole network alive.
        self.in_channels, self.is_torgb = layer.in_channels, layer.is_torgb
        self.dtype = torch.float32 if self.is_torgb else dtype
        weight = layer.weight.detach().float()
        self.weight = layer.weight.detach()
        self.convolution = Convolution(self._weight, padding=layer.conv_kernel - 1)
        self.input_gain = layer.magnitude_ema.detach().float().rsqrt()
        gain = 1 / math.sqrt(self.in_channels * layer.conv_kernel**2) if self.is_torgb else 1.0
        if type(layer.affine) is not stylegan3.FullyConnectedLayer or layer.affine.activation != 'linear':
            raise Unsupported
        inputs = _whole(self.in_channels)
        self.affine_weight = _filled(layer.affine.weight.detach().float() * (layer.affine.weight_gain * gain), inputs)
        given = layer.affine.bias
        bias = torch.zeros(self.in_channels) if given is None else given.detach().float() * (layer.affine.bias_gain * gain)
        self.affine_bias = _filled(bias, inputs)
        self.bias, self.clamp = layer.bias.detach().float(), layer.conv_clamp
        if self.is_torgb:
            if layer.up_filter is not None or layer.down_filter is not None or layer.conv_kernel != 1 or any(layer.padding):
                raise Unsupported
            return
        normalised = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        outputs = _whole(len(weight))
        self.power = _filled(normalised.square().sum(dim=(2, 3)), outputs, inputs).t().contiguous()  # [I, O]
        if layer.up_filter is None or layer.down_filter is None or layer.down_factor != 2:
            raise Unsupported
        try:
            up, down = (taps.detach().float() for taps in (layer.up_filter, layer.down_filter))
            clamp = None if self.clamp is None else float(self.clamp)
            bias = _filled(self.bias, outputs)
            self.filtered = FilteredActivation(up, down, bias, layer.up_factor, layer.padding, clamp, scratch)
        except ValueError:
            raise Unsupported from None

    def _weight(self) -> torch.Tensor:
        weight = self.weight.float()
        inputs = _whole(self.in_channels)
        if self.is_torgb:
            return _filled(weight, len(weight), inputs)
        weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        return _filled(weight, _whole(len(weight)), inputs).to(self.dtype)

    def styles(self, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Factors of the layer's inputs `[N, I]` and of its outputs `[N, O]`; those of RGB have none."""
        styles = F.linear(w, self.affine_weight, self.affine_bias)
        if self.is_torgb:
            return styles * self.input_gain, None
        styles = styles * (styles.square().sum(dim=1, keepdim=True) / self.in_channels).rsqrt()
        return styles * self.input_gain, (styles.square() @ self.power + 1e-8).rsqrt()

    def picture(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x.float()).add_(self.bias[:, None, None])
        return x if self.clamp is None else x.clamp_(-self.clamp, self.clamp)


class FastSynthesis:
    """Pictures of codes; made once for the weights that the network has then.

    Args:
        synthesis: `networks.stylegan3.SynthesisNetwork`, on a processor.
        dtype: Of maps, float32 or bfloat16.

    Attributes:
        bytes_a_frame: What each further frame of a batch takes, its picture left out.

    Raises:
        Unsupported: It has layers or filters that this file does not know, or lies on a GPU.
    """

    bytes_a_frame = 0

    def __init__(self, synthesis: Any, dtype: torch.dtype) -> None:
        if type(synthesis) is not stylegan3.SynthesisNetwork or is_parametrized(synthesis):
            raise Unsupported
        self.input = synthesis.input  # a module, which does not know the network that it belongs to
        if type(self.input) is not stylegan3.SynthesisInput or self.input.weight.device.type != 'cpu':
            raise Unsupported
        layers = [getattr(synthesis, name) for name in synthesis.layer_names]
        if any(type(layer) is not stylegan3.SynthesisLayer for layer in layers):
            raise Unsupported
        if [layer.is_torgb for layer in layers] != [False] * (len(layers) - 1) + [True]:
            raise Unsupported
        self.num_ws, self.w_dim, self.output_scale, self.dtype = synthesis.num_ws, synthesis.w_dim, synthesis.output_scale, dtype
        self.image_size = [synthesis.img_channels, synthesis.img_resolution, synthesis.img_resolution]
        channels = self.input.channels
        mixing = (self.input.weight.detach().float() / math.sqrt(channels))[:, :, None, None]
        self.mixing = Convolution(functools.partial(_filled, mixing, _whole(channels)))
        scratch = Scratch()  # a map is read by one convolution, and then the next one may be made there
        self.layers = [_Layer(layer, dtype, scratch) for layer in layers]

    @torch.no_grad()  # not inference_mode: its tensors cannot go into networks that learn
    def __call__(self, ws: torch.Tensor, noise_mode: str = 'const', wanted: int | None = None) -> torch.Tensor:
        """Pictures `[N, C, resolution, resolution]`, float32, in channels-last order.

        Args:
            ws: Codes `[N, num_ws, w_dim]`.
            noise_mode: 'const', 'random' or 'none'; there is no noise.
            wanted: Return only the first so many; they are what they would be among all of them.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f'synthesis needs ws of shape [N, {self.num_ws}, {self.w_dim}], got {list(ws.shape)}')
        if noise_mode not in stylegan3.NOISE_MODES:
            raise ValueError(f'noise_mode is one of {", ".join(stylegan3.NOISE_MODES)}, got {noise_mode!r}')
        ws = ws.to(device='cpu', dtype=torch.float32)
        count = len(ws) if wanted is None else min(wanted, len(ws))
        images = torch.empty([count, *self.image_size], memory_format=torch.channels_last)
        for n in range(count):
            images[n] = self._one(ws[n : n + 1])[0]
        return images

    def _one(self, ws: torch.Tensor) -> torch.Tensor:
        first, *others = ws.unbind(dim=1)
        styles = [layer.styles(w) for layer, w in zip(self.layers, others, strict=True)]
        features = self.input.features(first).permute(0, 3, 1, 2)
        x = self.mixing(features) * styles[0][0][:, :, None, None]
        x = x.to(self.dtype)
        for index, layer in enumerate(self.layers[:-1]):
            x = layer.filtered(layer.convolution(x), styles[index][1], styles[index + 1][0])
        return self.layers[-1].picture(x).mul_(self.output_scale)
