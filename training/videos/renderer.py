"""How an image generator renders: by the fast form of its network where there is one, and how many frames at a time."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

import torch

from networks.errors import InputError
from networks.image_generator import ImageGenerator
from training.commands.memory import Budget, how_many
from training.kernels.rendering import fast_stylegan2
from training.runs.working_memory import peak_bytes

enabled = True  # False: the plain form everywhere
PRECISIONS = ('auto', 'fp32', 'bf16')


class Render(Protocol):
    """Renders codes `[N, num_ws, w_dim]`; the noise mode is 'const', 'random' or 'none'.

    Returns pictures `[N, C, H, W]` float32 about [-1, 1]: all, or the first `wanted`, which are what they would be among all.
    """

    def __call__(self, ws: torch.Tensor, noise_mode: str, wanted: int | None = None) -> torch.Tensor: ...


# Fast forms by the synthesis network that they were made of, and by precision; they hold its tensors, but not the network itself.
_known: weakref.WeakKeyDictionary[torch.nn.Module, dict[str, tuple[Any, Render | None]]] = weakref.WeakKeyDictionary()
# Frames at a time by the network, and by what else decides it: what is free changes during a video, and rounding should not.
_chosen: weakref.WeakKeyDictionary[torch.nn.Module, dict[Any, int]] = weakref.WeakKeyDictionary()
BYTES_A_VALUE = 9  # of a picture: float32, the same again while it is rounded, and uint8


def renderer(image_generator: ImageGenerator, precision: str = 'auto') -> Render:
    """How to render codes without gradients.

    Networks of `networks/stylegan2.py`, also tuned ones, and, on a processor, of `networks/stylegan3.py` have a fast form that
    is equal to rounding (1e-5 of the range of a picture); it is made again when weights have changed, but for changes behind
    autograd's back, through `.data`. Any other module, and one with hooks, renders itself.

    Args:
        image_generator: Image generator, with `synthesis(ws, noise_mode=, force_fp32=)`.
        precision: 'auto': float32 on a processor, and half precision where the checkpoint declares it on a GPU; 'fp32'; or
            'bf16': bfloat16 for the maps of all layers, where there is a fast form. See `check_precision`.

    Returns:
        See `Render`.
    """
    synthesis = image_generator.synthesis
    if not enabled or not isinstance(synthesis, torch.nn.Module):
        return _plain(image_generator, precision)
    kept, state = _known.setdefault(synthesis, {}), _state(synthesis)
    if precision not in kept or kept[precision][0] != state:
        kept.pop(precision, None)  # its memory goes before the new one needs some
        kept[precision] = (state, None if state[0] else _fast(synthesis, precision))
    return kept[precision][1] or _plain(image_generator, precision)


def frames_at_once(
    image_generator: ImageGenerator, ws: torch.Tensor, precision: str = 'auto', memory: Budget | None = None
) -> int:
    """How many frames of a batch go through the network at a time; chosen once for each network and size of a batch.

    On a GPU what one frame takes is measured by rendering one. On a processor the large maps of a batch are made one frame
    after the other, so that little grows with it; that is calculated.

    Args:
        image_generator: Image generator.
        ws: The codes of a batch `[N, num_ws, w_dim]`.
        precision: As of `renderer`.
        memory: What may be used; None: the usual share of what is free.
    """
    synthesis, memory = image_generator.synthesis, memory or Budget()
    if len(ws) <= 1 or not isinstance(synthesis, torch.nn.Module):
        return len(ws)
    kept = _chosen.setdefault(synthesis, {})
    device = next(image_generator.parameters()).device
    key = (len(ws), precision, memory, device)
    if key not in kept:
        budget, render = memory.on(device), renderer(image_generator, precision)
        one = BYTES_A_VALUE * int(image_generator.img_channels) * int(image_generator.img_resolution) ** 2
        if device.type == 'cuda':
            one += peak_bytes(lambda: render(ws[:1], 'const'), device)
        else:
            one += int(getattr(render, 'bytes_a_frame', 0))
        kept[key] = how_many(one, budget, len(ws))
    return kept[key]


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that the device only imitates.

    Raises:
        InputError: One sentence.
    """
    if precision == 'bf16' and not has_bfloat16(device):
        raise InputError(
            '--precision=bf16: this processor has no instructions for bfloat16, and imitating them is slower than fp32; '
            'leave the option out'
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16, and does not only imitate it."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        return supported and not _instructions().isdisjoint({'avx512_bf16', 'amx_bf16', 'bf16'})
    except (AttributeError, RuntimeError):
        return False


def _instructions() -> set[str]:
    try:
        with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
            return {word for line in file if line.startswith(('flags', 'Features')) for word in line.split(':', 1)[1].split()}
    except OSError:
        return set()


def _state(synthesis: torch.nn.Module) -> tuple[Any, ...]:
    """Whether hooks want to see the network at work, and what changes when a weight is written to or replaced."""
    tensors = [*synthesis.parameters(), *synthesis.buffers()]
    watched = any(getattr(torch.nn.modules.module, f'_global_forward{name}hooks') for name in ('_', '_pre_'))
    watched = watched or any(m._forward_hooks or m._forward_pre_hooks for m in synthesis.modules())
    return (watched, *((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors))


def _fast(synthesis: torch.nn.Module, precision: str) -> Render | None:
    first = next(synthesis.parameters(), None)
    if first is None:
        return None
    device = first.device
    dtype = torch.bfloat16 if precision == 'bf16' else torch.float32
    if precision == 'auto' and device.type == 'cuda':
        dtype = torch.float16
    fast: Render
    try:
        fast = fast_stylegan2.FastSynthesis(synthesis, dtype)
    except (fast_stylegan2.Unsupported, AttributeError):
        from training.kernels.rendering import fast_stylegan3  # most networks start without it

        try:
            fast = fast_stylegan3.FastSynthesis(synthesis, dtype)
        except (fast_stylegan2.Unsupported, AttributeError):
            return None
    return InParts(_Graphs(fast, device)) if device.type == 'cuda' else fast


class _Graphs:
    """Replays a rendering's kernels on a GPU as one CUDA graph: starting hundreds of them takes longer than running them.

    A graph belongs to a number of codes and a noise mode; new noise for every picture is rendered without one.
    """

    def __init__(self, fast: Render, device: torch.device) -> None:
        self._fast, self._device = fast, device
        self._graphs: dict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}

    def __call__(self, ws: torch.Tensor, noise_mode: str, wanted: int | None = None) -> torch.Tensor:
        if noise_mode == 'random':
            return self._fast(ws, noise_mode, wanted)
        key = (tuple(ws.shape), noise_mode)
        if key not in self._graphs:
            self._graphs.clear()  # each holds the memory of its maps
            self._graphs[key] = self._capture(ws, noise_mode)
        graph, inputs, outputs = self._graphs[key]
        with torch.no_grad():
            inputs.copy_(ws)
            graph.replay()
            return outputs[:wanted].clone()

    def _capture(self, ws: torch.Tensor, noise_mode: str) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            inputs = torch.empty_like(ws, dtype=torch.float32, device=self._device).copy_(ws)
            with torch.cuda.device(inputs.device):
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    for _ in range(2):  # compiles and chooses what is compiled and chosen at the first use
                        self._fast(inputs, noise_mode)
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    outputs = self._fast(inputs, noise_mode)
            return graph, inputs, outputs


class InParts:
    """Renders a batch in parts, and in smaller ones when a GPU has no memory for them.

    New noise for every picture ('random') is drawn for a batch at once, so such a batch stays whole.

    Args:
        render: For a part.
        size: Codes in a part; None: all, until memory runs out.
    """

    def __init__(self, render: Render, size: int | None = None) -> None:
        self._render, self._size = render, size

    def __call__(self, ws: torch.Tensor, noise_mode: str, wanted: int | None = None) -> torch.Tensor:
        if noise_mode == 'random':
            return self._render(ws, noise_mode, wanted)
        count = len(ws) if wanted is None else wanted
        while True:
            size = max(min(self._size or len(ws), len(ws)), 1)
            try:  # parts are those of the whole batch, because rounding depends on the size of a part
                parts = [self._render(ws[begin : begin + size], noise_mode) for begin in range(0, max(count, 1), size)]
                return (parts[0] if len(parts) == 1 else torch.cat(parts))[:count]
            except torch.OutOfMemoryError:
                if size <= 1:
                    raise
                self._size = (size + 1) // 2
                torch.cuda.empty_cache()


def _plain(image_generator: ImageGenerator, precision: str) -> Render:
    def render(ws: torch.Tensor, noise_mode: str, wanted: int | None = None) -> torch.Tensor:
        device = next(image_generator.parameters()).device
        exact = precision == 'fp32' or device.type == 'cpu'  # half precision as the checkpoint has it is no gain on a processor
        with torch.no_grad():
            return image_generator.synthesis(ws.to(device), noise_mode=noise_mode, force_fp32=exact)[:wanted]

    # On a processor several at a time are no faster (StyleGAN3 at 256x256: slower by a tenth), and take their memory.
    return InParts(render, 1 if next(image_generator.parameters()).device.type == 'cpu' else None)
