"""CUDA form of a stack of GRU cells over all time steps: one launch forward, one backward, two for second derivatives.

The passes are what fast_rollout.py differentiates; there, and in networks/latent_generator.py, stands what they mean.
Sums over samples and steps, which the gradients of weights are, are left to one matrix product.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from training.kernels import native_code
from training.kernels.recurrence.recurrence_passes import RecurrencePasses, Rolled, Tensors

SIZE = 32  # units of a cell; smaller ones are padded
MOST_CELLS = 6
_FORWARD, _TANGENT, _BACKWARD, _SECOND = range(4)
_TENSORS = (
    *('noise', 'first', 'weight_ih', 'weight_hh', 'bias_ih', 'bias_hh', 'memories', 'saved', 'l', 't_memories', 'tangents'),
    *('g_l', 'g_memories', 'of_tangents', 'of_values', 'd_noise', 'd_first'),
)


class _Arguments(ctypes.Structure):
    """RecurrenceArguments of gated_recurrence.h."""

    _fields_ = (*((name, ctypes.c_int) for name in ('count', 'steps', 'cells')), *((name, ctypes.c_void_p) for name in _TENSORS))


def recurrence_for(s: torch.Tensor) -> Recurrence | None:
    """Return the CUDA form for tensors such as s; None where there is none."""
    if s.device.type != 'cuda' or s.dtype not in (torch.float32, torch.float64):
        return None
    library = native_code.load_cuda('recurrence/gated_recurrence', torch.cuda.get_device_capability(s.device))
    return None if library is None else Recurrence(library)


def current_stream(x: torch.Tensor) -> int:
    """Address of the CUDA stream that operations on `x` belong to now."""
    return torch.cuda.current_stream(x.device).cuda_stream


class Recurrence(RecurrencePasses):
    """The passes in CUDA, for cells of D = 32 units.

    Args:
        library: Compiled functions.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.gated_recurrence_error_text.restype = ctypes.c_char_p

    def _launch(self, kind: int, sizes: tuple[int, int, int], **tensors: torch.Tensor | None) -> None:
        given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        one = next(iter(given.values()))
        arguments = _Arguments(*sizes, **{name: tensor.data_ptr() for name, tensor in given.items()})
        with torch.cuda.device_of(one):
            code = self._library.gated_recurrence_launch(
                ctypes.byref(arguments), kind, one.element_size(), ctypes.c_void_p(current_stream(one))
            )
        if code != 0:
            raise RuntimeError(f'gated_recurrence: {self._library.gated_recurrence_error_text(code).decode()}')

    def forward(self, inputs: Sequence[torch.Tensor], save: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        s, first, weight_ih, weight_hh, bias_ih, bias_hh = inputs
        (count, steps, size), cells = s.shape, len(first)
        memories, l = s.new_empty(steps + 1, cells, count, size), s.new_empty(count, steps + 1, size)
        saved = s.new_empty(steps, cells, count, 4 * size) if save else None
        tensors = {'noise': s, 'first': first, 'weight_ih': weight_ih, 'weight_hh': weight_hh, 'bias_ih': bias_ih}
        self._launch(_FORWARD, (count, steps, cells), **tensors, bias_hh=bias_hh, memories=memories, saved=saved, l=l)
        return l, memories, saved

    def backward(self, rolled: Rolled, weights_wanted: bool) -> tuple[torch.Tensor | None, ...]:
        s, first = rolled.inputs[:2]
        (count, steps, size), cells = s.shape, len(first)
        of_arguments = s.new_empty(cells, steps, count, 4 * size)
        d_noise, d_first = torch.empty_like(s), torch.empty_like(first)
        tensors = _given(rolled)
        results = {'of_tangents': of_arguments, 'd_noise': d_noise, 'd_first': d_first}
        self._launch(_BACKWARD, (count, steps, cells), **tensors, g_l=rolled.g_l, g_memories=rolled.g_memories, **results)
        if not weights_wanted:
            return d_noise, d_first, None, None, None, None
        return d_noise, d_first, *_of_weights(of_arguments, s, rolled.memories), *_of_biases(of_arguments)

    def second(self, rolled: Rolled, v_noise: torch.Tensor, v_first: torch.Tensor) -> Tensors:
        s, first = rolled.inputs[:2]
        (count, steps, size), cells = s.shape, len(first)
        sizes = count, steps, cells
        t_memories, t_l = torch.empty_like(rolled.memories), s.new_empty(count, steps + 1, size)
        tangents = torch.empty_like(rolled.saved)
        of_tangents, of_values = (s.new_empty(cells, steps, count, 4 * size) for _ in range(2))
        d_noise, d_first = torch.empty_like(s), torch.empty_like(first)
        tensors = _given(rolled)
        tensors |= {'t_memories': t_memories, 'tangents': tangents}
        self._launch(_TANGENT, sizes, **tensors, noise=v_noise, first=v_first, l=t_l)
        results = {'of_tangents': of_tangents, 'of_values': of_values, 'd_noise': d_noise, 'd_first': d_first}
        self._launch(_SECOND, sizes, **tensors, g_l=rolled.g_l, g_memories=rolled.g_memories, **results)
        of_weights = zip(_of_weights(of_values, s, rolled.memories), _of_weights(of_tangents, v_noise, t_memories), strict=True)
        return t_l, t_memories, d_noise, d_first, *(a + b for a, b in of_weights), *_of_biases(of_values)


def _given(rolled: Rolled) -> dict[str, torch.Tensor]:
    _, _, weight_ih, weight_hh, *_ = rolled.inputs
    return {'weight_ih': weight_ih, 'weight_hh': weight_hh, 'memories': rolled.memories, 'saved': rolled.saved}


def _of_weights(of_arguments: torch.Tensor, noise: torch.Tensor, memories: torch.Tensor) -> Tensors:
    """Gradients of both weights from those of the gates' arguments p_r, p_z, W_in x + b_in, W_hn h + b_hn, `[C, K, N, 4 D]`."""
    size = noise.shape[2]
    x = torch.cat([noise.transpose(0, 1).unsqueeze(0), memories[1:, :-1].transpose(0, 1)])
    both = torch.cat([x, memories[:-1].transpose(0, 1)], dim=3).flatten(1, 2)
    products = of_arguments.flatten(1, 2).transpose(1, 2) @ both  # [C, 4 D, 2 D]
    of_hh = torch.cat([products[:, : 2 * size, size:], products[:, 3 * size :, size:]], dim=1)
    return products[:, : 3 * size, :size].contiguous(), of_hh


def _of_biases(of_arguments: torch.Tensor) -> Tensors:
    size = of_arguments.shape[3] // 4
    sums = of_arguments.sum(dim=(1, 2))
    return sums[:, : 3 * size].contiguous(), torch.cat([sums[:, : 2 * size], sums[:, 3 * size :]], dim=1)
