"""What lies between two convolutions, in one pass over the maps; without a compiler, and on a GPU, in several."""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from typing import Any

import torch
import torch.nn.functional as F

from torch_utils.ops import bias_act, upfirdn2d
from training.kernels import native_code
from training.kernels.rendering.convolutions import map_layout

NAMES = {torch.float32: 'float', torch.bfloat16: 'bfloat16'}
SAME, TRANSPOSED, PHASES = range(3)
SMALLEST_KEPT = 32 << 20  # bytes of a map; training/commands/memory.py sees to smaller ones


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
            return empty_map(like, shape)
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
            image = empty_map(picture.weight, [samples, colors, height, width])
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
            self._kernels[key] = square.expand(x.shape[1], 1, 4, 4).contiguous(memory_format=map_layout(x))
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


def empty_map(like: torch.Tensor, shape: list[int]) -> torch.Tensor:
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
