"""StyleGAN2's synthesis for rendering: the function of `networks.stylegan2.SynthesisNetwork`, without gradients and faster.

Equations are those of `networks/stylegan2.py`; what differs is the order of the work:

- Maps lie in channels-last order, which the convolutions of processors and of GPUs in half precision want, and weights are
  brought into the convolution's own order once, not for every picture.
- Between two convolutions there is one pass over the maps (`synthesis_kernels.cpp`): the upsampling filter along
  one axis after the other, demodulation, noise, bias, activation, clamp, the next layer's styles, also those of the next block,
  and ToRGB with the upsampled picture. Without a compiler, and on a GPU, PyTorch's operations do the same in more passes.
- Layers of few pixels see the whole batch, so that their large weights are read once; those of many pixels see one picture after
  the other, so that memory hardly grows with the batch.
- In bfloat16 on a processor the upsampling convolution is one convolution with four times as many outputs, the filter in its
  weights: matrix units are so fast that four times the multiplications cost less than another pass.

Half precision is that of the checkpoint on a GPU; on a processor bfloat16 holds maps and weights of convolutions, while styles,
sums and pictures stay in float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from networks import stylegan2
from training.kernels.rendering.between import PHASES, SAME, TRANSPOSED, Between, Picture, Scratch
from training.kernels.rendering.convolutions import Convolution, map_layout, upsampling_kernels

LARGEST_SHARED_RESOLUTION = 64  # of layers that see the whole batch on a processor


class Unsupported(Exception):
    """The network is not one that this file knows; the plain form renders it."""


class _Modulated:
    """A modulated 3x3 layer: weights, styles, demodulation, and the pass behind it."""

    def __init__(
        self, layer: Any, dtype: torch.dtype, taps: torch.Tensor, phases: bool, gain: float, scratches: tuple[Scratch, Scratch]
    ) -> None:
        # No references to modules, which would keep the whole network alive.
        self.weight, self.up, self.dtype = layer.weight.detach(), layer.up == 2, dtype
        slope = stylegan2.HOMOGENEOUS_SLOPES.get(layer.activation)
        if slope is None or layer.up not in (1, 2) or tuple(layer.weight.shape[2:]) != (3, 3):
            raise Unsupported
        self.gain = layer.act_gain * gain
        weight = layer.weight.detach().float()
        self.norm: torch.Tensor | None = None
        if dtype == torch.float16:  # weights and styles are made small, and the demodulation takes it back
            self.norm = weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(weight[0].numel())
            weight = weight / self.norm
        self.power = weight.square().sum(dim=(2, 3)).t().contiguous()  # [I, O]
        self.phases = self.up and phases
        self.convolution = Convolution(functools.partial(self._weight, taps), transposed=self.up and not phases)
        clamp = None if layer.conv_clamp is None else float(layer.conv_clamp) * gain
        kind = SAME if not self.up else PHASES if phases else TRANSPOSED
        self.between = Between(
            kind, taps, (layer.bias.detach().float() * self.gain).contiguous(), slope, clamp, scratches[self.up]
        )
        strength = float(layer.noise_strength) if layer.use_noise else 0.0
        self.strength = strength * self.gain
        self.has_noise = bool(layer.use_noise)
        self.noise: torch.Tensor | None = None
        if strength:
            self.noise = (layer.noise_const.detach().float() * self.strength)[None].contiguous()
        self.affine_weight, self.affine_bias = _affine(layer.affine)

    def _weight(self, taps: torch.Tensor) -> torch.Tensor:
        weight = self.weight.float()
        if self.norm is not None:
            weight = weight / self.norm
        return (upsampling_kernels(weight, taps) if self.phases else weight).to(self.dtype)

    def styles(self, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Styles `[N, I]`, and the factors of the result with the activation's gain `[N, O]`."""
        styles = F.linear(w, self.affine_weight, self.affine_bias)
        if self.norm is not None:
            styles = styles / styles.abs().amax(dim=1, keepdim=True)
        factors = torch.addmm(_epsilon(styles.device), styles.square(), self.power).rsqrt_()
        return styles, factors.mul_(self.gain) if self.gain != 1 else factors


@functools.cache
def _epsilon(device: torch.device) -> torch.Tensor:
    return torch.tensor(stylegan2.DEMODULATION_EPSILON, device=device)


def _affine(layer: Any, gain: float = 1) -> tuple[torch.Tensor, torch.Tensor | None]:
    if type(layer) is not stylegan2.FullyConnectedLayer or layer.activation != 'linear':
        raise Unsupported
    bias = None if layer.bias is None else layer.bias.detach().float() * (layer.bias_gain * gain)
    return layer.weight.detach().float() * (layer.weight_gain * gain), bias


class _ToRGB:
    def __init__(self, layer: Any) -> None:
        if type(layer) is not stylegan2.ToRGBLayer or tuple(layer.weight.shape[2:]) != (1, 1) or layer.weight.shape[0] > 4:
            raise Unsupported
        self.weight = layer.weight.detach().float()[None, :, :, 0, 0]  # [1, K, C]
        self.shift = layer.bias.detach().float().contiguous()
        self.clamp = None if layer.conv_clamp is None else float(layer.conv_clamp)
        self.affine_weight, self.affine_bias = _affine(layer.affine, layer.weight_gain)

    def picture(self, w: torch.Tensor, before: torch.Tensor | None) -> Picture:
        styles = F.linear(w, self.affine_weight, self.affine_bias)
        return Picture((self.weight * styles[:, None]).contiguous(), self.shift, self.clamp, before)


class _Block:
    def __init__(
        self, block: Any, dtype: torch.dtype, taps: torch.Tensor, phases: bool, scratches: tuple[Scratch, Scratch]
    ) -> None:
        if type(block) is not stylegan2.SynthesisBlock or block.architecture not in ('orig', 'skip', 'resnet'):
            raise Unsupported
        self.resolution, self.dtype, self.num_conv, self.num_torgb = block.resolution, dtype, block.num_conv, block.num_torgb
        self.shortcut = block.skip if block.architecture == 'resnet' and block.in_channels else None
        gain = math.sqrt(0.5) if self.shortcut is not None else 1.0
        layers = [block.conv1] if block.in_channels == 0 else [block.conv0, block.conv1]
        if any(type(layer) is not stylegan2.SynthesisLayer for layer in layers):
            raise Unsupported
        gains = [1.0] * (len(layers) - 1) + [gain]
        self.layers = [_Modulated(layer, dtype, taps, phases, gain, scratches) for layer, gain in zip(layers, gains, strict=True)]
        self.const = block.const.detach() if block.in_channels == 0 else None
        self.torgb = _ToRGB(block.torgb) if block.num_torgb else None


class FastSynthesis:
    """Pictures of codes; made once for the weights that the network has then.

    Args:
        synthesis: `networks.stylegan2.SynthesisNetwork`.
        dtype: Of maps on a processor, float32 or bfloat16. On a GPU, float32, bfloat16, or float16: that is for the blocks that
            the checkpoint declares half precision for.

    Attributes:
        bytes_a_frame: What each further frame of a batch takes on a processor, its picture left out.

    Raises:
        Unsupported: It has layers, filters or activations that this file does not know.
    """

    def __init__(self, synthesis: Any, dtype: torch.dtype) -> None:
        if type(synthesis) is not stylegan2.SynthesisNetwork or is_parametrized(synthesis):
            raise Unsupported
        self.num_ws, self.w_dim = synthesis.num_ws, synthesis.w_dim
        self.image_size = [synthesis.img_channels, synthesis.img_resolution, synthesis.img_resolution]
        blocks = [getattr(synthesis, f'b{resolution}') for resolution in synthesis.block_resolutions]
        self.device = blocks[0].const.device
        self.on_cpu = self.device.type == 'cpu'
        taps = _separable_taps(blocks)
        phases = self.on_cpu and dtype == torch.bfloat16
        self.blocks, scratches = [], (Scratch(), Scratch())  # of upsampling layers the latter, which take turns with the others
        for block in blocks:
            here = torch.float32 if dtype == torch.float16 and not block.use_fp16 else dtype
            self.blocks.append(_Block(block, here, taps, phases, scratches))
        # Whether a block gets its map with the styles of its first layer. Shortcuts want it without.
        self.entered = [
            before is not None and before.shortcut is None and block.shortcut is None
            for before, block in zip([None, *self.blocks], self.blocks, strict=False)
        ]
        shared = [block for block in self.blocks if block.resolution <= LARGEST_SHARED_RESOLUTION]
        maps = [layer.power.shape[1] * block.resolution**2 * block.dtype.itemsize for block in shared for layer in block.layers]
        self.bytes_a_frame = 3 * max(maps, default=0)  # the map before a layer, the one behind it, and what is between

    @torch.no_grad()  # not inference_mode: its tensors cannot go into networks that learn
    def __call__(self, ws: torch.Tensor, noise_mode: str = 'const', wanted: int | None = None) -> torch.Tensor:
        """Pictures `[N, C, resolution, resolution]`, float32, in channels-last order.

        Args:
            ws: Codes `[N, num_ws, w_dim]`.
            noise_mode: 'const', 'random' or 'none'.
            wanted: Return only the first so many; they are what they would be among all of them.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f'synthesis needs ws of shape [N, {self.num_ws}, {self.w_dim}], got {list(ws.shape)}')
        if noise_mode not in stylegan2.NOISE_MODES:
            raise ValueError(f'noise_mode is one of {", ".join(stylegan2.NOISE_MODES)}, got {noise_mode!r}')
        ws = ws.to(device=self.device, dtype=torch.float32)
        noises = [self._noise(layer, block.resolution, len(ws), noise_mode) for block in self.blocks for layer in block.layers]
        shared = sum(not self.on_cpu or block.resolution <= LARGEST_SHARED_RESOLUTION for block in self.blocks)
        state = self._run(0, shared, ws, noises, None, None, None)
        if shared == len(self.blocks):
            assert state[1] is not None
            return state[1][:wanted]
        count = len(ws) if wanted is None else wanted
        images = torch.empty([count, *self.image_size], device=self.device, memory_format=torch.channels_last)
        for n in range(count):
            one = slice(n, n + 1)
            x, image = (None if part is None else part[one] for part in state)
            own = [noise if noise is None or len(noise) == 1 else noise[one] for noise in noises]
            finished = self._run(shared, len(self.blocks), ws[one], own, x, image, images[one])[1]
            assert finished is not None
            if finished.data_ptr() != images[one].data_ptr():
                images[one] = finished
        return images

    def _noise(self, layer: _Modulated, resolution: int, count: int, noise_mode: str) -> torch.Tensor | None:
        """Drawn as the plain form draws, layer after layer."""
        if not layer.has_noise or noise_mode == 'none':
            return None
        if noise_mode == 'const':
            return layer.noise
        return torch.randn([count, 1, resolution, resolution], device=self.device)[:, 0] * layer.strength

    def _styles(self, block: int, ws: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """`_Modulated.styles` of the layers of a block."""
        first = sum(before.num_conv for before in self.blocks[:block])
        return [layer.styles(ws[:, first + index]) for index, layer in enumerate(self.blocks[block].layers)]

    def _run(
        self, begin: int, end: int, ws: torch.Tensor, noises: list[torch.Tensor | None],
        x: torch.Tensor | None, image: torch.Tensor | None, into: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        """Blocks in a row; maps go from one to the next with the styles of the next one, where `entered` says so.

        Args:
            begin, end: Which blocks.
            into: Where the picture of the last block may be written.
        """
        first = sum(block.num_conv for block in self.blocks[:begin])
        styles = self._styles(begin, ws)
        for number, block in enumerate(self.blocks[begin:end], begin):
            shortcut = None
            if block.const is not None:
                x = block.const[None].expand(len(ws), -1, -1, -1)
            assert x is not None
            x = x.to(block.dtype)
            x = x.contiguous(memory_format=map_layout(x))
            if block.shortcut is not None:
                shortcut = block.shortcut(x, gain=math.sqrt(0.5))
            if not self.entered[number]:
                x = x * styles[0][0].to(x.dtype)[:, :, None, None]
            last = number + 1 == len(self.blocks)
            of_next = [] if last else self._styles(number + 1, ws)
            picture = None
            if block.torgb is not None:
                picture = block.torgb.picture(ws[:, first + block.num_conv], image)
                picture.into = into if last else None
            for index, layer in enumerate(block.layers):
                ends = index + 1 == len(block.layers)
                following: torch.Tensor | None = None
                if not ends:
                    following = styles[index + 1][0]
                elif not last and self.entered[number + 1]:
                    following = of_next[0][0]
                own_picture = picture if ends and shortcut is None else None
                keep = not (ends and last) or shortcut is not None
                assert x is not None
                x, made = layer.between.behind(
                    layer.convolution, x, styles[index][1], noises[first + index], following, own_picture, keep
                )
                image = made if own_picture is not None else image
            if shortcut is not None:
                assert x is not None
                x = x + shortcut
                if picture is not None:
                    _, image = _identity(x.shape[1], x.device)(x, None, None, None, picture, False)
            first, styles = first + block.num_conv, of_next
        return x, image


@functools.cache
def _identity(channels: int, device: torch.device) -> Between:
    """Nothing but ToRGB."""
    return Between(SAME, torch.tensor([0.25, 0.75, 0.75, 0.25]), torch.zeros(channels, device=device), 1.0, None)


def _separable_taps(blocks: Sequence[Any]) -> torch.Tensor:
    """The filter that all upsampling layers share, along one axis, turned and with its gain, `[4]`.

    Raises:
        Unsupported: They differ, or it is no product of four taps with themselves.
    """
    filters = []
    for block in blocks:
        filters += [block.resample_filter, *([block.conv0.resample_filter] if block.in_channels else [])]
    if not filters:
        return torch.tensor([0.25, 0.75, 0.75, 0.25])
    square = filters[0].detach().double().cpu()
    if any(f.shape != (4, 4) or not torch.equal(f.detach().double().cpu(), square) for f in filters):
        raise Unsupported
    taps = square.sum(dim=0)
    total = float(taps.sum())
    if total <= 0 or not torch.allclose(torch.outer(taps, taps) / total, square, rtol=0, atol=1e-7 * float(square.abs().max())):
        raise Unsupported
    return (taps / math.sqrt(total)).flip(0).float() * 2


def is_parametrized(synthesis: torch.nn.Module) -> bool:
    return any(torch.nn.utils.parametrize.is_parametrized(module) for module in synthesis.modules())
