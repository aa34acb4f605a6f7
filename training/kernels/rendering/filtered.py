"""What lies between two convolutions of StyleGAN3 on a processor: one pass over the maps; without a compiler, several."""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import torch

from networks import stylegan3
from training.kernels import native_code
from training.kernels.rendering.between import NAMES, Scratch

TAPS = 6  # of each phase of an upsampling filter, and of each half of a downsampling one
STRIP = 0  # columns of a result that go through together, an even number; 0: as many as suit the processor's cache


class _Filtered(ctypes.Structure):
    """Mirrors `Filtered` of training/kernels/rendering/filtered_activation.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            'source', 'target', 'scale', 'shift', 'next_scale', 'up_taps', 'down_taps', 'column_taps',
        )),
        *((name, ctypes.c_int64) for name in (
            'samples', 'in_height', 'in_width', 'out_height', 'out_width', 'channels', 'up', 'left', 'above', 'strip', 'threads',
        )),
        ('slope', ctypes.c_float), ('limit', ctypes.c_float),
    ]  # fmt: skip


class FilteredActivation:
    """Demodulation and bias, sampling up, sqrt(2) * leaky ReLU and clamp, sampling down, and the next layer's styles.

    Args:
        up_filter: `[6 up]`.
        down_filter: `[12]` along both axes, or `[12, 12]`, symmetric along both.
        shift: Bias `[C]`, float32.
        up: Factor, 2 or 4.
        padding: (left, right, above, below) of `networks.stylegan3.filtered_leaky_relu`.
        clamp: Limit of the activations, None = no limit.
        scratch: Where large results lie, until the next one that is made there.

    Raises:
        ValueError: The filters are others.
    """

    GAIN, SLOPE = math.sqrt(2), 0.2

    def __init__(
        self,
        up_filter: torch.Tensor,
        down_filter: torch.Tensor,
        shift: torch.Tensor,
        up: int,
        padding: list[int],
        clamp: float | None,
        scratch: Scratch | None = None,
    ) -> None:
        self.scratch = scratch or Scratch()
        radial = down_filter.ndim == 2
        sizes_fit = up in (2, 4) and tuple(up_filter.shape) == (TAPS * up,) and set(down_filter.shape) == {2 * TAPS}
        if not sizes_fit or any(radial and not torch.equal(down_filter, down_filter.flip(axis)) for axis in (0, 1)):
            raise ValueError(
                'filters of six taps a phase, up by 2 or 4 and down by 2, symmetric ones where they are not separable'
            )
        self.up_filter, self.down_filter, self.shift = up_filter, down_filter, shift
        self.up, self.padding, self.clamp = up, list(padding), clamp
        self._up_taps = (up_filter.double().flip(0) * up).float().contiguous()
        turned = down_filter.double().flip(list(range(down_filter.ndim)))
        self._down_taps = (turned * self.GAIN).float().contiguous()
        self._column_taps = None if radial else turned.float().contiguous()

    def __call__(self, x: torch.Tensor, scale: torch.Tensor | None, next_scale: torch.Tensor | None) -> torch.Tensor:
        """`[N, C, H, W]` -> `[N, C, height, width]` with (H up + above + below - 6 up - 9) // 2 rows, likewise columns.

        Args:
            x: float32 or bfloat16; channels last is the faster order, and that of the result.
            scale: Of x, `[N, C]` float32; None: 1.
            next_scale: Of the result, the same.
        """
        library = native_code.load('rendering/filtered_activation') if x.device.type == 'cpu' and x.dtype in NAMES else None
        if library is not None and _agrees(library, x.dtype):
            return self._compiled(library, x, scale, next_scale)
        return self._plain(x, scale, next_scale)

    def _compiled(
        self, library: ctypes.CDLL, x: torch.Tensor, scale: torch.Tensor | None, next_scale: torch.Tensor | None
    ) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        samples, channels, height, width = x.shape
        left, right, above, below = self.padding
        sizes = [height * self.up + above + below, width * self.up + left + right]
        out_height, out_width = ((size - TAPS * self.up - 2 * TAPS + 3) // 2 for size in sizes)
        if min(out_height, out_width) < 1:
            raise ValueError(f'maps of {height} x {width} samples are smaller than the filters')
        target = self.scratch.map(x, [samples, channels, out_height, out_width])
        if target.numel() == 0:
            return target
        scale, next_scale = (None if part is None else part.float().contiguous() for part in (scale, next_scale))
        addresses = {
            'source': x, 'target': target, 'scale': scale, 'shift': self.shift, 'next_scale': next_scale,
            'up_taps': self._up_taps, 'down_taps': self._down_taps, 'column_taps': self._column_taps,
        }  # fmt: skip
        filtered = _Filtered(
            **{name: None if tensor is None else tensor.data_ptr() for name, tensor in addresses.items()},
            samples=samples, in_height=height, in_width=width, out_height=out_height, out_width=out_width, channels=channels,
            up=self.up, left=left, above=above, strip=STRIP, threads=torch.get_num_threads(), slope=self.SLOPE,
            limit=math.inf if self.clamp is None else self.clamp / self.GAIN,
        )  # fmt: skip
        getattr(library, f'filtered_activation_{NAMES[x.dtype]}')(ctypes.byref(filtered))
        return target

    def _plain(self, x: torch.Tensor, scale: torch.Tensor | None, next_scale: torch.Tensor | None) -> torch.Tensor:
        x = x if scale is None else x * scale.to(x.dtype)[:, :, None, None]
        x = stylegan3.filtered_leaky_relu(
            x, self.up_filter, self.down_filter, self.shift, up=self.up, down=2, padding=self.padding,
            gain=self.GAIN, slope=self.SLOPE, clamp=self.clamp,
        )  # fmt: skip
        x = x if next_scale is None else x * next_scale.to(x.dtype)[:, :, None, None]
        return x.contiguous(memory_format=torch.channels_last)


@functools.cache
def _agrees(library: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Whether the compiled pass gives what PyTorch's operations give, on a small case of each kind."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    for up, padding, radial in ((2, [9, 8, 9, 8], False), (4, [-2, -9, -5, -6], False), (2, [9, 8, 9, 8], True)):
        down = randn(12, 12) if radial else randn(12)
        down = down + down.flip(0) + (down + down.flip(0)).flip(1) if radial else down
        filtered = FilteredActivation(randn(TAPS * up) / 6, down / 12, randn(37), up, padding, 2.0)
        x = randn(1, 37, 13, 12).to(dtype).to(memory_format=torch.channels_last)
        scale, next_scale = randn(1, 37), randn(1, 37)
        wanted: Any = filtered._plain(x.float(), scale, next_scale)
        found: Any = filtered._compiled(library, x, scale, next_scale).float()
        tolerance = 1e-4 if dtype == torch.float32 else 0.02
        if wanted.shape != found.shape or float((wanted - found).abs().max()) > tolerance * float(wanted.abs().max()):
            return False
    return True
