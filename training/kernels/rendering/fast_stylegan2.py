"""StyleGAN2's synthesis for rendering: the function of `networks.stylegan2.SynthesisNetwork`, without gradients and faster.

Equations are those of `networks/stylegan2.py`; what differs is the order of the work:

- Maps lie in channels-last order, which the convolutions of processors and of GPUs in half precision want, and weights are
  brought into the convolution's own order once, not for every picture.
- Between two convolutions there is one pass over the maps (`synthesis_kernels.cpp`): the upsampling filter along
  one axis after the other, demodulation, noise, bias, activation, clamp, the next layer's styles, and ToRGB with the upsampled
  picture. Without a compiler, and on a GPU, PyTorch's operations do the same in more passes.
- Layers of few pixels see the whole batch, so that their large weights are read once; those of many pixels see one picture after
  the other, so that memory hardly grows with the batch.
- In bfloat16 on a processor the upsampling convolution is one convolution with four times as many outputs, the filter in its
  weights: matrix units are so fast that four times the multiplications cost less than another pass.

Half precision is that of the checkpoint on a GPU; on a processor bfloat16 holds maps and weights of convolutions, while styles,
sums and pictures stay in float32.
"""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from networks import stylegan2
from torch_utils.ops import bias_act, upfirdn2d
from training.kernels import native_code

LARGEST_SHARED_RESOLUTION = 64  # of layers that see the whole batch on a processor
NAMES = {torch.float32: 'float', torch.bfloat16: 'bfloat16'}
SAME, TRANSPOSED, PHASES = range(3)
SMALLEST_KEPT = 32 << 20  # bytes of a map; training/commands/memory.py sees to smaller ones


class Unsupported(Exception):
    """The network is not one that this file knows; the plain form renders it."""


# ----------------------------------------------------------------------------
# Convolutions.


class Convolution:
    """A convolution with fixed weights, zeros around, of maps `[N, I, H, W]` in channels-last order.

    Args:
        make_weight: Returns them, `[O, I, k, k]` as for a correlation, in the type of the maps.
        transposed: The transposed convolution with stride 2 instead, without padding: `[N, O, 2 H + 1, 2 W + 1]` for k = 3.
    """

    def __init__(self, make_weight: Callable[[], torch.Tensor], *, transposed: bool = False) -> None:
        self.make_weight, self.transposed = make_weight, transposed
        self._ready: dict[Any, torch.Tensor] = {}  # the weights in their final order, for maps of one size

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        packs = x.device.type == 'cpu' and _packs_weights()
        key = tuple(x.shape) if packs else ()
        if key not in self._ready:
            weight = self.make_weight()
            weight = weight.transpose(0, 1) if self.transposed else weight
            weight = weight.contiguous(memory_format=_layout(x))
            self._ready = {key: _pack(weight, key, self.transposed) if packs else weight}
        weight = self._ready[key]
        if self.transposed:
            return _transposed_packed(x, weight) if packs else F.conv_transpose2d(x, weight, stride=2)
        return _packed(x, weight) if packs else F.conv2d(x, weight, padding=weight.shape[2] // 2)


# PyTorch's compiler keeps the weights of frozen networks in oneDNN's own order; these are the operations that it calls for that.
def _pack(weight: torch.Tensor, size: tuple[int, ...], transposed: bool) -> torch.Tensor:
    ops = torch.ops.mkldnn
    if transposed:
        return ops._reorder_convolution_transpose_weight(weight, [0, 0], [0, 0], [2, 2], [1, 1], 1, list(size))
    return ops._reorder_convolution_weight(weight, [weight.shape[2] // 2] * 2, [1, 1], [1, 1], 1, list(size))


def _packed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    padding = [weight.shape[2] // 2] * 2
    return torch.ops.mkldnn._convolution_pointwise(x, weight, None, padding, [1, 1], [1, 1], 1, 'none', [], '')


def _transposed_packed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    stride, none = [2, 2], [0, 0]
    return torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, None, none, none, stride, [1, 1], 1, 'none', [], '')


@functools.cache
def _packs_weights() -> bool:
    """Whether this version of PyTorch has the operations above, and they do what they are taken for."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator) for shape in ([1, 16, 6, 6], [24, 16, 3, 3]))
    x, turned = x.to(memory_format=torch.channels_last), weight.transpose(0, 1).contiguous()
    try:
        pairs = [
            (_packed(x, _pack(weight, tuple(x.shape), False)), F.conv2d(x, weight, padding=1)),
            (_transposed_packed(x, _pack(turned, tuple(x.shape), True)), F.conv_transpose2d(x, turned, stride=2)),
        ]
        return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in pairs)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _layout(x: torch.Tensor) -> torch.memory_format:
    """Channels last; but for full precision on a GPU, where its convolutions are faster one plane after the other."""
    return torch.contiguous_format if x.device.type == 'cuda' and x.dtype == torch.float32 else torch.channels_last


def upsampling_kernels(weight: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Kernels of the four phases of an upsampling convolution, `[4 O, I, 3, 3]`, phases (row, column) outermost.

    The transposed convolution gives t_j = sum_m w_m x_(j-m)/2, the filter y_o = sum_k taps_k t_(o+k-1); together, along each
    axis, y_o = sum_i g_(o-2i) x_i with g_p = sum_k taps_k w_(p+k-1), of which an even o meets g_2, g_0, g_-2 and an odd one
    g_3, g_1, g_-1.

    Args:
        weight: `[O, I, 3, 3]` of the transposed convolution.
        taps: `[4]`, the filter along one axis.
    """
    mix = torch.zeros(2, 3, 3, dtype=torch.float64)  # [phase, place in the kernel, tap of w]
    for phase in range(2):
        for place in range(3):
            p = phase + 2 - 2 * place
            for k in range(4):
                if 0 <= p + k - 1 <= 2:
                    mix[phase, place, p + k - 1] += float(taps[k])
    kernels = torch.einsum('oimn,ypm,xqn->yxoipq', weight.double(), mix.to(weight.device), mix.to(weight.device))
    return kernels.flatten(0, 2).to(weight.dtype)


# ----------------------------------------------------------------------------
# Between convolutions.


class _Layer(ctypes.Structure):
    """Mirrors `Layer` of training/kernels/rendering/synthesis_kernels.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            'source', 'target', 'scale', 'shift', 'noise', 'next_scale', 'color_weight', 'color_shift', 'before', 'picture',
        )),
        *((name, ctypes.c_int64) for name in (
            'samples', 'height', 'width', 'channels', 'colors', 'noise_samples', 'kind', 'threads',
        )),
        ('taps', ctypes.c_float * 4), ('slope', ctypes.c_float), ('clamp', ctypes.c_float), ('color_clamp', ctypes.c_float),
    ]  # fmt: skip


class Scratch(threading.local):
    """Memory for the largest maps of one network and thread, used again for every layer and picture.

    What the C library does not keep would come from the system, cleared, each time. One map is in use at a time: that between an
    upsampling layer's filter and the next convolution.
    """

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None

    def map(self, like: torch.Tensor, shape: list[int]) -> torch.Tensor:
        """An uninitialised map of this shape `[N, C, H, W]` in channels-last order."""
        samples, channels, height, width = shape
        count = math.prod(shape)
        if count * like.element_size() <= SMALLEST_KEPT:
            return _empty(like, shape)
        if self._memory is None or self._memory.dtype != like.dtype or self._memory.numel() < count:
            self._memory = None
            self._memory = like.new_empty(count)
        return self._memory[:count].view(samples, height, width, channels).permute(0, 3, 1, 2)


class Picture:
    """ToRGB of one block.

    Args:
        weight: `[N, K, C]`, modulated.
        shift: `[K]`.
        clamp: Limit of what is added to the picture, None = no limit.
        before: Picture of half the size, `[N, K, H/2, W/2]` in channels-last order; None in the first block.
    """

    def __init__(self, weight: torch.Tensor, shift: torch.Tensor, clamp: float | None, before: torch.Tensor | None) -> None:
        self.weight, self.shift, self.clamp, self.before = weight, shift, clamp, before


class Between:
    """One pass from a convolution's result to the next one's maps, and to the picture.

    y = clamp(lrelu(filtered x * scale + noise + shift)); the map is y * next_scale and the picture sum_c weight_c y_c + its shift
    + the upsampled picture before. Gains of the activation are in scale, noise and shift.

    Args:
        kind: SAME: x is `[N, C, H, W]`; TRANSPOSED: `[N, C, H + 1, W + 1]`, to be filtered; PHASES: `[N, 4 C, H/2, W/2]`.
        taps: Filter along one axis `[4]`, turned, with its gain.
        shift: `[C]`.
        slope: For negative values, 0 to 1.
        clamp: Limit, None = no limit.
        scratch: Where maps lie that are as large as the result and not the result's own.
    """

    def __init__(
        self,
        kind: int,
        taps: torch.Tensor,
        shift: torch.Tensor,
        slope: float,
        clamp: float | None,
        scratch: Scratch | None = None,
    ) -> None:
        self.scratch = scratch or Scratch()
        self.kind, self.taps, self.shift, self.slope, self.clamp = kind, taps, shift, slope, clamp
        self._taps = (ctypes.c_float * 4)(*taps.tolist())
        self._kernels: dict[Any, torch.Tensor] = {}

    def __call__(
        self,
        x: torch.Tensor,
        scale: torch.Tensor | None,  # [N, C], float32
        noise: torch.Tensor | None,  # [1 or N, H, W], float32
        next_scale: torch.Tensor | None,  # [N, C], float32
        picture: Picture | None,
        keep: bool = True,  # Whether the map is wanted.
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The map and the picture; x may be overwritten."""
        library = native_code.load('rendering/synthesis_kernels') if x.device.type == 'cpu' and x.dtype in NAMES else None
        if library is not None and _agrees(library, x.dtype):
            return self._compiled(library, x, scale, noise, next_scale, picture, keep)
        return self._plain(x, scale, noise, next_scale, picture, keep)

    def _compiled(
        self, library: ctypes.CDLL, x: torch.Tensor, scale: torch.Tensor | None, noise: torch.Tensor | None,
        next_scale: torch.Tensor | None, picture: Picture | None, keep: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        x = x.contiguous(memory_format=torch.channels_last)
        samples, channels, height, width = x.shape
        if self.kind == TRANSPOSED:
            height, width = height - 1, width - 1
        elif self.kind == PHASES:
            channels, height, width = channels // 4, 2 * height, 2 * width
        target = None
        if keep:
            target = x if self.kind == SAME else self.scratch.map(x, [samples, channels, height, width])
        image, colors = None, 0
        layer = _Layer(
            samples=samples, height=height, width=width, channels=channels, kind=self.kind, threads=torch.get_num_threads(),
            taps=self._taps, slope=self.slope, clamp=-1 if self.clamp is None else self.clamp,
            source=x.data_ptr(), target=_address(target), scale=_address(scale), shift=self.shift.data_ptr(),
            noise=_address(noise), noise_samples=0 if noise is None else len(noise), next_scale=_address(next_scale),
        )  # fmt: skip
        if picture is not None:
            colors = picture.weight.shape[1]
            image = _empty(picture.weight, [samples, colors, height, width])
            layer.colors, layer.picture = colors, image.data_ptr()
            layer.color_weight, layer.color_shift = picture.weight.data_ptr(), picture.shift.data_ptr()
            layer.color_clamp = -1 if picture.clamp is None else picture.clamp
            layer.before = _address(picture.before)
        getattr(library, f'between_convolutions_{NAMES[x.dtype]}')(ctypes.byref(layer))
        return target, image

    def _plain(
        self, x: torch.Tensor, scale: torch.Tensor | None, noise: torch.Tensor | None,
        next_scale: torch.Tensor | None, picture: Picture | None, keep: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        if self.kind == TRANSPOSED:
            if x.device.type == 'cuda':  # has an operation for it
                x = upfirdn2d.upfirdn2d(x, self._filter(x.device), padding=1)
            else:
                x = F.conv2d(x, self._kernel(x), padding=1, groups=x.shape[1])
        elif self.kind == PHASES:
            samples, channels, height, width = x.shape
            x = x.reshape(samples, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
            x = x.reshape(samples, channels // 4, 2 * height, 2 * width).contiguous(memory_format=torch.channels_last)
        shift = self.shift.to(x.dtype)[None, :, None, None]
        if noise is not None:
            shift = shift + noise.to(x.dtype)[:, None]
        x = x + shift if scale is None else torch.addcmul(shift, x, scale.to(x.dtype)[:, :, None, None])
        if x.device.type == 'cuda':  # has an operation for both
            x = bias_act.bias_act(x, act='lrelu', alpha=self.slope, gain=1, clamp=self.clamp)
        else:
            x = F.leaky_relu_(x, self.slope) if self.slope != 1 else x
            x = x if self.clamp is None else x.clamp_(-self.clamp, self.clamp)
        image = None
        if picture is not None:
            weight = picture.weight.to(x.dtype)
            if x.is_contiguous():
                image = (weight @ x.flatten(2)).unflatten(2, x.shape[2:]).float()
            else:
                rows = x.permute(0, 2, 3, 1).flatten(1, 2) @ weight.transpose(1, 2)
                image = rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2).float()
            image = image + picture.shift[None, :, None, None]
            if picture.clamp is not None:
                image = image.clamp_(-picture.clamp, picture.clamp)
            if picture.before is not None:
                image = image + self._upsample(picture.before)
        if not keep:
            return None, image
        return x if next_scale is None else x * next_scale.to(x.dtype)[:, :, None, None], image

    def _kernel(self, x: torch.Tensor) -> torch.Tensor:
        """The filter for each channel of x."""
        key = (x.shape[1], x.dtype)
        if key not in self._kernels:
            square = torch.outer(self.taps, self.taps).to(x)
            self._kernels[key] = square.expand(x.shape[1], 1, 4, 4).contiguous(memory_format=_layout(x))
        return self._kernels[key]

    def _filter(self, device: torch.device) -> torch.Tensor:
        """The filter as upfirdn2d takes it."""
        if device not in self._kernels:
            self._kernels[device] = torch.outer(self.taps, self.taps).flip([0, 1]).to(device)
        return self._kernels[device]

    def _upsample(self, image: torch.Tensor) -> torch.Tensor:
        """[N, K, H, W] -> [N, K, 2 H, 2 W] with the same filter."""
        count = image.shape[1]
        kernel = self._filter(image.device).expand(count, 1, 4, 4)
        return F.conv_transpose2d(image, kernel, stride=2, padding=1, groups=count)


def _empty(like: torch.Tensor, shape: list[int]) -> torch.Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@functools.cache
def _agrees(library: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Whether the compiled pass gives what PyTorch's operations give, on a small case of each kind."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    taps = torch.tensor([0.2, 0.8, 0.7, 0.3])
    for kind, shape in ((SAME, (2, 37, 4, 6)), (TRANSPOSED, (2, 37, 5, 7)), (PHASES, (2, 148, 2, 3))):
        between = Between(kind, taps, randn(37), 0.2, 2.0)
        before = randn(2, 3, 2, 3).to(memory_format=torch.channels_last)
        picture = Picture(randn(2, 3, 37), randn(3), 9.0, before)
        x = randn(*shape).to(dtype).to(memory_format=torch.channels_last)
        arguments = randn(2, 37), randn(2, 4, 6), randn(2, 37), picture
        wanted: Any = between._plain(x.float(), *arguments, True)
        found: Any = between._compiled(library, x.clone(), *arguments, True)
        tolerance = 1e-4 if dtype == torch.float32 else 0.05
        for a, b in zip(wanted, found, strict=True):
            if not torch.allclose(a.float(), b.float(), rtol=tolerance, atol=tolerance):
                return False
    return True


# ----------------------------------------------------------------------------
# The network.


class _Modulated:
    """A modulated 3x3 layer: weights, styles, demodulation, and the pass behind it."""

    def __init__(self, layer: Any, dtype: torch.dtype, taps: torch.Tensor, phases: bool, gain: float, scratch: Scratch) -> None:
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
        self.between = Between(kind, taps, (layer.bias.detach().float() * self.gain).contiguous(), slope, clamp, scratch)
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
    def __init__(self, block: Any, dtype: torch.dtype, taps: torch.Tensor, phases: bool, scratch: Scratch) -> None:
        if type(block) is not stylegan2.SynthesisBlock or block.architecture not in ('orig', 'skip', 'resnet'):
            raise Unsupported
        self.resolution, self.dtype, self.num_conv, self.num_torgb = block.resolution, dtype, block.num_conv, block.num_torgb
        self.shortcut = block.skip if block.architecture == 'resnet' and block.in_channels else None
        gain = math.sqrt(0.5) if self.shortcut is not None else 1.0
        layers = [block.conv1] if block.in_channels == 0 else [block.conv0, block.conv1]
        if any(type(layer) is not stylegan2.SynthesisLayer for layer in layers):
            raise Unsupported
        gains = [1.0] * (len(layers) - 1) + [gain]
        self.layers = [_Modulated(layer, dtype, taps, phases, gain, scratch) for layer, gain in zip(layers, gains, strict=True)]
        self.const = block.const.detach() if block.in_channels == 0 else None
        self.torgb = _ToRGB(block.torgb) if block.num_torgb else None


class FastSynthesis:
    """Pictures of codes; made once for the weights that the network has then.

    Args:
        synthesis: `networks.stylegan2.SynthesisNetwork`.
        dtype: Of maps on a processor, float32 or bfloat16. On a GPU, float32, bfloat16, or float16: that is for the blocks that
            the checkpoint declares half precision for.

    Raises:
        Unsupported: It has layers, filters or activations that this file does not know.
    """

    def __init__(self, synthesis: Any, dtype: torch.dtype) -> None:
        if type(synthesis) is not stylegan2.SynthesisNetwork or _is_parametrized(synthesis):
            raise Unsupported
        self.num_ws, self.w_dim = synthesis.num_ws, synthesis.w_dim
        self.image_size = [synthesis.img_channels, synthesis.img_resolution, synthesis.img_resolution]
        blocks = [getattr(synthesis, f'b{resolution}') for resolution in synthesis.block_resolutions]
        self.device = blocks[0].const.device
        self.on_cpu = self.device.type == 'cpu'
        taps = _separable_taps(blocks)
        phases = self.on_cpu and dtype == torch.bfloat16
        self.blocks, scratch = [], Scratch()
        for block in blocks:
            here = torch.float32 if dtype == torch.float16 and not block.use_fp16 else dtype
            self.blocks.append(_Block(block, here, taps, phases, scratch))

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
        shared = [block for block in self.blocks if not self.on_cpu or block.resolution <= LARGEST_SHARED_RESOLUTION]
        state = self._run(shared, 0, ws, noises, None, None)
        rest = self.blocks[len(shared) :]
        if not rest:
            assert state[1] is not None
            return state[1][:wanted]
        first = sum(block.num_conv for block in shared)
        count = len(ws) if wanted is None else wanted
        images = torch.empty([count, *self.image_size], device=self.device, memory_format=torch.channels_last)
        for n in range(count):
            one = slice(n, n + 1)
            x, image = (None if part is None else part[one] for part in state)
            own = [noise if noise is None or len(noise) == 1 else noise[one] for noise in noises]
            finished = self._run(rest, first, ws[one], own, x, image)[1]
            assert finished is not None
            images[one] = finished
        return images

    def _noise(self, layer: _Modulated, resolution: int, count: int, noise_mode: str) -> torch.Tensor | None:
        """Drawn as the plain form draws, layer after layer."""
        if not layer.has_noise or noise_mode == 'none':
            return None
        if noise_mode == 'const':
            return layer.noise
        return torch.randn([count, 1, resolution, resolution], device=self.device)[:, 0] * layer.strength

    def _run(
        self, blocks: list[_Block], first: int, ws: torch.Tensor, noises: list[torch.Tensor | None],
        x: torch.Tensor | None, image: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        """Blocks in a row; the maps between blocks are not modulated yet."""
        for block in blocks:
            shortcut = None
            if block.const is not None:
                x = block.const[None].expand(len(ws), -1, -1, -1)
            assert x is not None
            x = x.to(block.dtype)
            x = x.contiguous(memory_format=_layout(x))
            if block.shortcut is not None:
                shortcut = block.shortcut(x, gain=math.sqrt(0.5))
            styles = [layer.styles(ws[:, first + index]) for index, layer in enumerate(block.layers)]
            x = x * styles[0][0].to(x.dtype)[:, :, None, None]
            picture = None
            if block.torgb is not None:
                picture = block.torgb.picture(ws[:, first + block.num_conv], image)
            last = block is self.blocks[-1]
            for index, layer in enumerate(block.layers):
                ends = index + 1 == len(block.layers)
                following = None if ends else styles[index + 1][0]
                own_picture = picture if ends and shortcut is None else None
                keep = not (ends and last) or shortcut is not None
                assert x is not None
                x, made = layer.between(
                    layer.convolution(x), styles[index][1], noises[first + index], following, own_picture, keep
                )
                image = made if own_picture is not None else image
            if shortcut is not None:
                assert x is not None
                x = x + shortcut
                if picture is not None:
                    _, image = _identity(x.shape[1], x.device)(x, None, None, None, picture, False)
            first += block.num_conv
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


def _is_parametrized(synthesis: torch.nn.Module) -> bool:
    return any(torch.nn.utils.parametrize.is_parametrized(module) for module in synthesis.modules())
