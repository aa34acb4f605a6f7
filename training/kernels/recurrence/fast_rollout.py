"""The generator's recurrence as one operation with first and second derivatives, in C++ or CUDA, where that can be had.

`rollout(G, s, state)` gives what `G.rollout(s, state)` gives, to rounding: its cells work on blocks of samples that stay in the
cache, or in a GPU's shared memory, through all time steps. Gradients flow to the noise, the first memories and all weights, and
once more through these gradients (for the gradient angle penalty). On other devices, for other cells than G's own, without a
compiler, and on GPUs for more than 6 cells or 32 units, it is `G.rollout` itself.

    phi = <v_s, g_s> + <v_h, g_h>,   (g_s, g_h) the gradients of <g, rollout> for noise and first memories

is the derivative of <g, rollout> along (v_s, v_h). Its own derivatives, which the second backward pass has to find, come from one
forward pass of tangents and one backward pass through values and tangents.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch

from networks.latent_generator import GatedRecurrentCell, LatentGenerator, State
from training.kernels import native_code
from training.kernels.recurrence import gated_recurrence
from training.kernels.recurrence.recurrence_passes import RecurrencePasses, Rolled, Tensors

_LANES = 16  # sizes are padded to a multiple of this; no processor's vectors hold more float32


def rollout(G: LatentGenerator, s: torch.Tensor, state: State) -> tuple[torch.Tensor, Sequence[State]]:
    """All time steps: s [N, t-1, noise_dim] and memories, [N, size] for each cell -> l [N, t, latent_dim] and the t states.

    The states are views that are made when they are asked for.
    """
    form = _form(G, s, state)
    if form is None:
        return G.rollout(s, state)
    return _rollout(form, G, s, state)


class States(Sequence[State]):
    """The memories at each time, out of one tensor [t, cells, N, D]; cell c has sizes[c] of the D numbers."""

    def __init__(self, memories: torch.Tensor, sizes: Sequence[int]) -> None:
        self.memories = memories
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.memories)

    def __getitem__(self, time: Any) -> Any:
        if isinstance(time, slice):
            return [self[each] for each in range(*time.indices(len(self)))]
        return tuple(h[:, :size] for h, size in zip(self.memories[time].unbind(0), self.sizes, strict=True))


def _form(G: LatentGenerator, s: torch.Tensor, state: State) -> RecurrencePasses | None:
    """The fast form for this generator on this device; None where there is none."""
    if type(G) is not LatentGenerator or s.numel() == 0 or len(G.P) == 0 or len(state) != len(G.P):
        return None
    if any(type(cell) is not GatedRecurrentCell or cell._forward_hooks or cell._forward_pre_hooks for cell in G.P):
        return None
    if any(x.dtype != s.dtype for cell in G.P for x in cell.parameters()) or any(h.dtype != s.dtype for h in state):
        return None
    form: RecurrencePasses | None
    if s.device.type == 'cuda':
        if not native_code.enabled or len(G.P) > gated_recurrence.MOST_CELLS or _padded_size(G) > gated_recurrence.SIZE:
            return None
        form = gated_recurrence.recurrence_for(s)
    else:
        library = None if native_code.suffix(s) is None else native_code.load('temporal_kernels')
        form = None if library is None else _NativeForm(library)
    return form if form is not None and _agrees(form, s.dtype, s.device) else None


def _padded_size(G: LatentGenerator) -> int:
    sizes = [G.cells[0].input_size, *(cell.hidden_size for cell in G.cells)]
    unit = gated_recurrence.SIZE if G.A.weight.device.type == 'cuda' else _LANES
    return -(-max(sizes) // unit) * unit


def _rollout(form: RecurrencePasses, G: LatentGenerator, s: torch.Tensor, state: State) -> tuple[torch.Tensor, States]:
    cells = G.cells
    sizes = [cell.hidden_size for cell in cells]
    size = _padded_size(G)
    inputs = (
        _padded(s, size),
        torch.stack([_padded(h, size) for h in state]),
        torch.stack([_padded_matrix(cell.weight_ih, size) for cell in cells]),
        torch.stack([_padded_matrix(cell.weight_hh, size) for cell in cells]),
        torch.stack([_padded_vector(cell.bias_ih, size) for cell in cells]),
        torch.stack([_padded_vector(cell.bias_hh, size) for cell in cells]),
    )
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        l, memories = _Rollout.apply(form, *inputs)
    else:
        l, memories, _ = form.forward([x.contiguous() for x in inputs], False)
    return l[..., : sizes[-1]], States(memories, sizes)


# Units that are padded keep a memory of zero: r = z = 1/2, n = tanh(0), h' = h / 2 = 0.


def _padded(x: torch.Tensor, size: int) -> torch.Tensor:
    return x if x.shape[-1] == size else torch.nn.functional.pad(x, (0, size - x.shape[-1]))


def _padded_matrix(weight: torch.Tensor, size: int) -> torch.Tensor:
    gates = weight.unflatten(0, (3, -1))
    return (
        weight
        if gates.shape[1:] == (size, size)
        else torch.nn.functional.pad(gates, (0, size - gates.shape[2], 0, size - gates.shape[1])).flatten(0, 1)
    )


def _padded_vector(bias: torch.Tensor, size: int) -> torch.Tensor:
    return bias if len(bias) == 3 * size else _padded(bias.unflatten(0, (3, -1)), size).flatten()


class _NativeForm(RecurrencePasses):
    """The passes in C++."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def _call(self, name: str, s: torch.Tensor, cells: int, tensors: Sequence[torch.Tensor | None]) -> None:
        function = getattr(self._library, f'rollout_{name}_{native_code.suffix(s)}')
        addresses = [None if x is None else native_code.pointer(x) for x in (s, *tensors)]
        function(len(s), s.shape[1], cells, s.shape[2], *addresses)

    def forward(self, inputs: Sequence[torch.Tensor], save: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        s, first, weight_ih, weight_hh, bias_ih, bias_hh = inputs
        cells, count, size = first.shape
        memories = s.new_empty(s.shape[1] + 1, cells, count, size)
        memories[0] = first
        saved = s.new_empty(s.shape[1], cells, count, 4 * size) if save else None
        l = s.new_empty(count, s.shape[1] + 1, size)
        self._call('forward', s, cells, [weight_ih, weight_hh, bias_ih, bias_hh, memories, saved, l])
        return l, memories, saved

    def backward(self, rolled: Rolled, weights_wanted: bool) -> tuple[torch.Tensor | None, ...]:
        s, first, weight_ih, weight_hh, *biases = rolled.inputs
        d_noise, d_first = torch.empty_like(s), torch.empty_like(first)
        gradients: list[torch.Tensor | None] = [None] * 4
        if weights_wanted:
            gradients = [torch.zeros_like(x) for x in (weight_ih, weight_hh, *biases)]
        given = [weight_ih, weight_hh, rolled.memories, rolled.saved, rolled.g_l, rolled.g_memories]
        self._call('backward', s, len(first), [*given, d_noise, d_first, *gradients])
        return (d_noise, d_first, *gradients)

    def second(self, rolled: Rolled, v_noise: torch.Tensor, v_first: torch.Tensor) -> Tensors:
        s, first, weight_ih, weight_hh, *biases = rolled.inputs
        t_memories = torch.empty_like(rolled.memories)
        t_memories[0] = v_first
        t_l = s.new_empty(len(s), s.shape[1] + 1, s.shape[2])
        d_noise, d_first = torch.empty_like(s), torch.empty_like(first)
        gradients = [torch.zeros_like(x) for x in (weight_ih, weight_hh, *biases)]
        given = [weight_ih, weight_hh, rolled.memories, rolled.saved, rolled.g_l, rolled.g_memories]
        self._call('second', s, len(first), [*given, v_noise, t_memories, t_l, d_noise, d_first, *gradients])
        return (t_l, t_memories, d_noise, d_first, *gradients)


class _Rollout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: RecurrencePasses, *inputs: torch.Tensor) -> Tensors:  # type: ignore[override]
        ctx.set_materialize_grads(False)
        l, memories, saved = form.forward([x.contiguous() for x in inputs], True)
        ctx.form = form
        ctx.save_for_backward(*inputs, memories, saved)
        return l, memories

    @staticmethod
    def backward(ctx: Any, g_l: torch.Tensor | None, g_memories: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        if g_l is None and g_memories is None:
            return (None,) * 7
        *inputs, memories, saved = ctx.saved_tensors
        weights_wanted = any(ctx.needs_input_grad[3:])
        return None, *_RolloutGradient.apply(ctx.form, weights_wanted, memories.detach(), saved, g_l, g_memories, *inputs)


class _RolloutGradient(torch.autograd.Function):
    """Gradients of noise, first memories, weights and biases, as a function of what `_Rollout` got and its outputs' gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        form: RecurrencePasses,
        weights_wanted: bool,
        memories: torch.Tensor,  # type: ignore[override]
        saved: torch.Tensor,
        g_l: torch.Tensor | None,
        g_memories: torch.Tensor | None,
        *inputs: torch.Tensor,
    ) -> tuple[torch.Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.form = form
        g_l, g_memories = (None if g is None else g.contiguous() for g in (g_l, g_memories))
        ctx.save_for_backward(memories, saved, g_l, g_memories, *inputs)
        return form.backward(Rolled([x.contiguous() for x in inputs], memories, saved, g_l, g_memories), weights_wanted)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,
        v_noise: torch.Tensor | None,
        v_first: torch.Tensor | None,  # type: ignore[override]
        *v_weights: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        memories, saved, g_l, g_memories, *inputs = ctx.saved_tensors
        if any(v is not None for v in v_weights):
            return (None,) * 4 + _second_by_autograd(g_l, g_memories, inputs, (v_noise, v_first, *v_weights))
        inputs = [x.contiguous() for x in inputs]
        v_noise, v_first = (
            torch.zeros_like(x) if v is None else v.contiguous() for v, x in zip((v_noise, v_first), inputs, strict=False)
        )
        t_l, t_memories, *others = ctx.form.second(Rolled(inputs, memories, saved, g_l, g_memories), v_noise, v_first)
        of_g = (None if g_l is None else t_l, None if g_memories is None else t_memories)
        return (None, None, None, None, *of_g, *others)


def _plain(
    s: torch.Tensor,
    first: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor,
    bias_hh: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(l, memories) of `_forward` by PyTorch's operations."""
    size = s.shape[2]
    states = [list(first.unbind(0))]
    for x in s.unbind(1):
        states.append([])
        for cell, h in enumerate(states[-2]):
            from_input = torch.addmm(bias_ih[cell], x, weight_ih[cell].t())
            from_memory = torch.addmm(bias_hh[cell], h, weight_hh[cell].t())
            r, z = torch.sigmoid(from_input[:, : 2 * size] + from_memory[:, : 2 * size]).split(size, dim=1)
            n = torch.tanh(from_input[:, 2 * size :] + r * from_memory[:, 2 * size :])
            x = n + z * (h - n)
            states[-1].append(x)
    memories = torch.stack([torch.stack(state) for state in states])
    return memories[:, -1].transpose(0, 1), memories


def _second_by_autograd(
    g_l: torch.Tensor | None, g_memories: torch.Tensor | None, inputs: Sequence[torch.Tensor], v: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor | None, ...]:
    """Derivatives of sum <v, gradients> for g_l, g_memories and all inputs; the gradients of weights may have a v as well."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_(True) for x in inputs]
        given = [None if g is None else g.detach().requires_grad_(True) for g in (g_l, g_memories)]
        outputs = [(output, g) for output, g in zip(_plain(*inputs), given, strict=True) if g is not None]
        gradients = torch.autograd.grad([output for output, _ in outputs], inputs, [g for _, g in outputs], create_graph=True)
        weighted = [(gradient * each).sum() for gradient, each in zip(gradients, v, strict=True) if each is not None]
        wanted = [x for x in (*given, *inputs) if x is not None]
        found = iter(torch.autograd.grad(torch.stack(weighted).sum(), wanted, allow_unused=True))
    return tuple(None if x is None else next(found) for x in (*given, *inputs))


def _agrees(form: RecurrencePasses, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether values, first and second derivatives are those of PyTorch's operations; a compiler may be wrong."""
    key = type(form), dtype, device
    if key not in _agreed:
        _agreed[key] = _compare(form, dtype, device)
    return _agreed[key]


_agreed: dict[tuple[type, torch.dtype, torch.device], bool] = {}


def _compare(form: RecurrencePasses, dtype: torch.dtype, device: torch.device) -> bool:
    size = gated_recurrence.SIZE if device.type == 'cuda' else _LANES
    random = torch.Generator().manual_seed(0)
    gates = 3 * size
    shapes = [(35, 3, size), (2, 35, size), (2, gates, size), (2, gates, size), (2, gates), (2, gates)]
    with torch.enable_grad():
        drawn = [torch.randn(shape, dtype=dtype, generator=random).mul_(0.5).to(device) for shape in shapes]
        weights = torch.randn(35, 4, size, dtype=dtype, generator=random).to(device)
        inputs = [x.requires_grad_(True) for x in drawn]
        results = []
        for function in (functools.partial(_Rollout.apply, form), _plain):
            l, memories = function(*inputs)
            first_order = torch.autograd.grad((l.square() * weights).sum(), inputs, create_graph=True)
            second_order = torch.autograd.grad(first_order[0].square().sum() + first_order[1].square().sum(), inputs)
            results.append([l, memories, *first_order, *second_order])
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    return all(
        torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.detach().abs().max()))
        for a, b in zip(*results, strict=True)
    )
