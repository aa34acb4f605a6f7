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
from training.kernels.rendering.convolutions import Convolution, map_layout

NAMES = {torch.float32: 'float', torch.bfloat16: 'bfloat16'}
SAME, TRANSPOSED, PHASES = range(3)
SMALLEST_KEPT = 32 << 20  # bytes of a map; training/commands/memory.py sees to smaller ones
STRIP_BYTES, MOST_STRIP_BYTES = 4 << 20, 32 << 20  # of a result that is larger than those: for each thread, and of a strip


class _Layer(ctypes.Structure):
    """Mirrors `Layer` of training/kernels/rendering/synthesis_kernels.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            'source', 'target', 'scale', 'shift', 'noise', 'next_scale', 'color_weight', 'color_shift', 'before', 'picture',
        )),
        *((name, ctypes.c_int64) for name in (
            'samples', 'height', 'width', 'channels', 'colors', 'noise_samples', 'kind', 'threads',
            'begin', 'end', 'source_begin',
        )),
        ('taps', ctypes.c_float * 4), ('slope', ctypes.c_float), ('clamp', ctypes.c_float), ('color_clamp', ctypes.c_float),
    ]  # fmt: skip


class Scratch(threading.local):
    """Memory for the largest maps of one network and thread, used again for every layer and picture.

    What the C library does not keep would come from the system, cleared, each time. One map lies in it at a time, so layers that
    read each other's maps take two of it in turns.
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

    Attributes:
        into: Where the picture may be written, `[N, K, H, W]` in channels-last order; None: to memory of its own.
    """

    def __init__(self, weight: torch.Tensor, shift: torch.Tensor, clamp: float | None, before: torch.Tensor | None) -> None:
        self.weight, self.shift, self.clamp, self.before = weight, shift, clamp, before
        self.into: torch.Tensor | None = None


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
        scratch: Where large maps lie, not those that it reads.
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
        library = self._library(x)
        if library is None:
            return self._plain(x, scale, noise, next_scale, picture, keep)
        return self._compiled(library, x, scale, noise, next_scale, picture, keep)

    def behind(
        self, convolution: Convolution, x: torch.Tensor, scale: torch.Tensor | None, noise: torch.Tensor | None,
        next_scale: torch.Tensor | None, picture: Picture | None, keep: bool = True,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        """The same behind a convolution of x.

        A large map of one picture is made a strip at a time: so the result of a convolution is never that large that its memory
        comes from the system, cleared, and it is still in the cache when it is read.
        """
        library = self._library(x)
        height, width = (side * (1 if self.kind == SAME else 2) for side in x.shape[2:])
        row = width * len(self.shift) * x.element_size()
        if library is None or len(x) > 1 or height * row <= SMALLEST_KEPT:
            return self(convolution(x), scale, noise, next_scale, picture, keep)
        rows = max(min(STRIP_BYTES * torch.get_num_threads(), MOST_STRIP_BYTES) // row // 2 * 2, 2)
        return self._in_strips(library, convolution, x, [height, width], rows, scale, noise, next_scale, picture, keep)

    @staticmethod
    def _library(x: torch.Tensor) -> ctypes.CDLL | None:
        library = native_code.load('rendering/synthesis_kernels') if x.device.type == 'cpu' and x.dtype in NAMES else None
        return library if library is not None and _agrees(library, x.dtype) else None

    def _compiled(
        self, library: ctypes.CDLL, x: torch.Tensor, scale: torch.Tensor | None, noise: torch.Tensor | None,
        next_scale: torch.Tensor | None, picture: Picture | None, keep: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        x = x.contiguous(memory_format=torch.channels_last)
        height, width = x.shape[2:]
        if self.kind == TRANSPOSED:
            height, width = height - 1, width - 1
        elif self.kind == PHASES:
            height, width = 2 * height, 2 * width
        shape = [len(x), len(self.shift), height, width]
        target = None
        if keep:
            target = x if self.kind == SAME else self.scratch.map(x, shape)
        layer, image = self._layer(shape, target, scale, noise, next_scale, picture)
        self._make(library, layer, x, 0, 0, len(x) * height)
        return target, image

    def _in_strips(
        self, library: ctypes.CDLL, convolution: Convolution | _Known, x: torch.Tensor, size: list[int], rows: int,
        scale: torch.Tensor | None, noise: torch.Tensor | None, next_scale: torch.Tensor | None, picture: Picture | None,
        keep: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        shape, part = [1, len(self.shift), *size], 2 if self.kind == PHASES else 1
        target = self.scratch.map(x, shape) if keep else None
        layer, image = self._layer(shape, target, scale, noise, next_scale, picture)
        for begin in range(0, size[0], rows):
            end = min(begin + rows, size[0])
            strip, first = convolution.strip(x, begin // part, end // part)
            self._make(library, layer, strip.contiguous(memory_format=torch.channels_last), first, begin, end)
        return target, image

    def _layer(
        self, shape: list[int], target: torch.Tensor | None, scale: torch.Tensor | None, noise: torch.Tensor | None,
        next_scale: torch.Tensor | None, picture: Picture | None,
    ) -> tuple[_Layer, torch.Tensor | None]:  # fmt: skip
        """What to do, but for the source, and the picture that it will fill."""
        samples, channels, height, width = shape
        layer = _Layer(
            samples=samples, height=height, width=width, channels=channels, kind=self.kind, threads=torch.get_num_threads(),
            taps=self._taps, slope=self.slope, clamp=-1 if self.clamp is None else self.clamp,
            target=_address(target), scale=_address(scale), shift=self.shift.data_ptr(),
            noise=_address(noise), noise_samples=0 if noise is None else len(noise), next_scale=_address(next_scale),
        )  # fmt: skip
        if picture is None:
            return layer, None
        colors = picture.weight.shape[1]
        image = empty_map(picture.weight, [samples, colors, height, width]) if picture.into is None else picture.into
        layer.colors, layer.picture = colors, image.data_ptr()
        layer.color_weight, layer.color_shift = picture.weight.data_ptr(), picture.shift.data_ptr()
        layer.color_clamp = -1 if picture.clamp is None else picture.clamp
        layer.before = _address(picture.before)
        return layer, image

    @staticmethod
    def _make(library: ctypes.CDLL, layer: _Layer, source: torch.Tensor, first: int, begin: int, end: int) -> None:
        """Make rows begin to end out of a source that begins with row `first` of its map."""
        layer.source, layer.source_begin, layer.begin, layer.end = source.data_ptr(), first, begin, end
        getattr(library, f'between_convolutions_{NAMES[source.dtype]}')(ctypes.byref(layer))

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
        picture.weight, picture.before = picture.weight[:1], before[:1]
        scale, noise, next_scale = (a[:1] for a in arguments[:3])
        strips: Any = between._in_strips(library, _Known(kind), x[:1], [4, 6], 2, scale, noise, next_scale, picture, True)
        if not all(torch.equal(a[:1], b) for a, b in zip(found, strips, strict=True)):
            return False
    return True


class _Known:
    """In the place of a convolution: its result is given."""

    def __init__(self, kind: int) -> None:
        self.first = 1 if kind == TRANSPOSED else 0  # a strip has rows before those that are asked for

    def strip(self, x: torch.Tensor, begin: int, end: int) -> tuple[torch.Tensor, int]:
        begin = max(begin - self.first, 0)
        return x[:, :, begin : end + 2 * self.first].contiguous(memory_format=torch.channels_last), begin
