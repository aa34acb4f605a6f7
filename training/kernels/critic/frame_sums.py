"""A critic's wide first layer on windows of frames and their motion, in C++ (frame_sums.h), where that can be had.

The motion makes the layer a filter of two taps over time, whose taps are matrices of weights: for three frames in a row it takes
four products in the place of six. Frames that several windows show are one row, and windows of factors t A^T + b are the same
filter over t, with the weights W A.
"""

from __future__ import annotations

import ctypes
import functools
import weakref

import torch

from training.kernels import native_code
from training.kernels.critic.wide_products import threads_for, wide_kernels
from training.kernels.critic.wide_windows import Chosen, Factored, Frames, Joined, Windows, WithMotion

FIRST, ENTERED, LEFT = -1, -2, -3  # in the place of the frame before, see frame_sums.h


def first_layer(weight: torch.Tensor, *windows: Windows) -> FirstLayer | None:
    """The compiled form of this first layer `[O, features]` for such windows; None where it cannot be had."""
    name = native_code.suffix(weight)
    library = None if name is None else wide_kernels(weight.dtype)
    if library is None or not _agrees(library, weight.dtype):
        return None
    units = [x.unit if isinstance(x, WithMotion) else None for x in windows]
    if any(unit is not units[0] for unit in units) or any(each.dtype != weight.dtype for x in windows for each in _numbers(x)):
        return None
    return FirstLayer(library, weight, units[0])


def factors_of(x: Windows) -> Factored | None:
    """The part of windows that is made of factors."""
    y = x.y if isinstance(x, WithMotion) else x
    y = y.after if isinstance(y, Joined) else y
    return y if isinstance(y, Factored) else None


def _numbers(x: Windows) -> list[torch.Tensor]:
    y = x.y if isinstance(x, WithMotion) else x
    if isinstance(y, Joined):
        return [*_numbers(y.before), *_numbers(y.after)]
    if isinstance(y, Factored):
        return [y.t, y.weight, y.bias]
    return [y.y if isinstance(y, Chosen) else y.x]


class _Plan:
    """Which products give which sums: output i is the frame `frames[i]` with its motion from `before[i]` on, see frame_sums.h."""

    def __init__(self, library: ctypes.CDLL, frames: torch.Tensor, before: torch.Tensor) -> None:
        frames, before = frames.long().contiguous(), before.long().contiguous()
        library.frame_plan_create.restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p(
            library.frame_plan_create(frames.numel(), native_code.pointer(frames), native_code.pointer(before))
        )
        self.outputs, self.rows = frames.numel(), library.frame_plan_rows(self.handle)
        weakref.finalize(self, library.frame_plan_destroy, self.handle)


@functools.lru_cache(maxsize=16)
def _plan_of_windows(library: ctypes.CDLL, count: int, length: int, motion: bool, begin: int, left: bool) -> _Plan:
    """Plan for windows with frames of their own `[count, length]`; with `left` the last ones again, as the next frame wants."""
    frames = torch.arange(count * length).view(count, length)
    before = _before(frames, motion, begin)
    if not left:
        return _Plan(library, frames, before)
    return _Plan(library, torch.cat([frames.flatten(), frames[:, -1]]), torch.cat([before.flatten(), torch.full((count,), LEFT)]))


def _before(frames: torch.Tensor, motion: bool, begin: int) -> torch.Tensor:
    before = torch.full_like(frames, begin)
    if motion:
        before[:, 1:] = frames[:, :-1]
    return before


class FirstLayer:
    """Sums and gradients of a first layer `[O, F]`, or with motion `[O, 2 F]`, without its bias.

    Args:
        library: The compiled file.
        weight: W.
        unit: What motion is multiplied with `[F]`; None where there is none.
    """

    def __init__(self, library: ctypes.CDLL, weight: torch.Tensor, unit: torch.Tensor | None) -> None:
        self.library, self.name = library, native_code.suffix(weight)
        self.weight, self.unit = weight.detach().contiguous(), None if unit is None else unit.contiguous()
        self.outputs, self.motion = len(weight), unit is not None
        self.halves = 2 if self.motion else 1
        self._plans: dict[int, tuple[Chosen, _Plan]] = {}  # with what they are for, so that nothing else gets its identity

    # What the weights make of each other and of the maps.

    def products(self, maps: Factored | None, gram: bool) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """W W^T `[O, O]`, and [W_1, V] A `[O, 2, R]` and [W_1, V] b `[O, 2]` of maps, as far as they are wanted."""
        new = self.weight.new_empty
        of_gram = new(self.outputs, self.outputs) if gram else None
        inner = common = weight = bias = None
        if maps is not None:
            weight, bias = maps.weight.detach().contiguous(), maps.bias.detach().contiguous()
            inner, common = new(self.outputs, self.halves, weight.shape[1]), new(self.outputs, self.halves)
        rank = 0 if weight is None else weight.shape[1]
        size = self.weight.shape[1] // self.halves
        self._call(
            'weight_products',
            self.outputs,
            ctypes.c_int64(size),
            int(self.motion),
            self.weight,
            self.unit,
            of_gram,
            rank,
            weight,
            bias,
            inner,
            common,
            threads_for(self.weight.numel() * (rank + self.outputs)),
        )
        return of_gram, inner, common

    # Sums.

    def sums(self, x: Windows, inner: torch.Tensor | None, common: torch.Tensor | None) -> torch.Tensor:
        """W x of every frame `[N, T, O]`; inner and common are `products` of the maps of x, if it has any."""
        y = x.y if isinstance(x, WithMotion) else x
        count, length, _ = x.shape
        if isinstance(y, Chosen):
            return self._sums(self._plan_of(y), y.y).view(count, length, -1)
        if isinstance(y, Frames):
            return self._sums(self._own(count, length), y.x).view(count, length, -1)
        after = factors_of(x)
        assert after is not None
        assert inner is not None
        own = self._own(len(after), after.shape[1], entered=isinstance(y, Joined))
        found = self._through(inner, own, after.t, common).view(*after.shape[:2], -1)
        if not isinstance(y, Joined):
            return found
        earlier = y.before.shape[1]
        before = self._sums(self._own(count, earlier, left=self.motion), y.before.x)
        if self.motion:
            found[:, 0] -= before[count * earlier :]
        return torch.cat([before[: count * earlier].view(count, earlier, -1), found], dim=1)

    def _sums(self, plan: _Plan, frames: torch.Tensor) -> torch.Tensor:
        return self._frame_sums(plan, self.weight, self.unit, frames.flatten(0, -2), None)

    def _through(self, inner: torch.Tensor, plan: _Plan, t: torch.Tensor, common: torch.Tensor | None) -> torch.Tensor:
        return self._frame_sums(plan, inner, None, t.detach().flatten(0, -2), common)

    def _frame_sums(
        self, plan: _Plan, weight: torch.Tensor, unit: torch.Tensor | None, frames: torch.Tensor, common: torch.Tensor | None
    ) -> torch.Tensor:
        frames = frames.contiguous()
        size = frames.shape[1]
        out = frames.new_empty(plan.outputs, self.outputs)
        threads = threads_for(plan.rows * size * self.outputs)
        self._call(
            'frame_sums',
            plan.handle,
            self.outputs,
            ctypes.c_int64(size),
            int(self.motion),
            weight,
            unit,
            frames,
            common,
            out,
            threads,
        )
        return out

    # Gradients.

    def gradient(
        self, real: Windows, of_real: torch.Tensor, fake: Windows, of_fake: torch.Tensor, outer: torch.Tensor, out: torch.Tensor
    ) -> None:
        """Put  g_real^T real + g_fake^T fake + outer W  into `out`; g [N, T, O] are gradients of the sums."""
        further: list[torch.Tensor | None] = [outer, self.weight]
        y = fake.y if isinstance(fake, WithMotion) else fake
        after = factors_of(fake)
        if after is not None:
            of_after = of_fake[:, of_fake.shape[1] - after.shape[1] :]
            inner, common = self.of_factors(after.t, of_after, isinstance(y, Joined))
            further += [inner, after.weight.detach().contiguous(), common, after.bias.detach().contiguous()]
        self._dense_gradient(real, of_real, further, out, add=False)
        if isinstance(y, Joined):
            earlier = y.before.shape[1]
            g = of_fake[:, :earlier].flatten(0, 1)
            if self.motion:
                g = torch.cat([g, -of_fake[:, earlier]])
            plan = self._own(len(of_fake), earlier, left=self.motion)
            self._frame_gradient(plan, self.unit, y.before.x, g, [], out, add=True)
        elif after is None:
            self._dense_gradient(fake, of_fake, [], out, add=True)

    def _dense_gradient(
        self, x: Windows, g: torch.Tensor, further: list[torch.Tensor | None], out: torch.Tensor, add: bool
    ) -> None:
        y = x.y if isinstance(x, WithMotion) else x
        assert isinstance(y, Chosen | Frames)
        plan = self._plan_of(y) if isinstance(y, Chosen) else self._own(*y.shape[:2])
        self._frame_gradient(plan, self.unit, y.y if isinstance(y, Chosen) else y.x, g, further, out, add)

    def of_factors(self, t: torch.Tensor, g: torch.Tensor, entered: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients `[O, 2, R]` and `[O, 2]` for `products` out of those g `[N, T, O]` of the sums of windows of t."""
        plan, g = self._own(len(t), t.shape[1], entered=entered), g.contiguous()
        inner, common = g.new_empty(self.outputs, self.halves, t.shape[-1]), g.new_empty(self.outputs, self.halves)
        self._frame_gradient(plan, None, t.detach(), g, [], inner, add=False)
        self._call('common_gradient', plan.handle, self.outputs, int(self.motion), g, common)
        return inner, common

    def back_to_factors(
        self, g: torch.Tensor, t: torch.Tensor, inner: torch.Tensor, entered: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of t `[N, T, R]`, A `[F, R]` and b `[F]` for those g `[N, T, O]` of the sums of windows t A^T + b."""
        of_inner, of_common = self.of_factors(t, g, entered)
        g, size, rank = g.contiguous(), self.weight.shape[1] // self.halves, t.shape[-1]
        of_t, of_maps, of_bias = torch.empty_like(t), g.new_empty(size, rank), g.new_empty(size)
        motion, threads = int(self.motion), threads_for(self.weight.numel() * rank)
        self._call('back_to_factors', *t.shape[:2], self.outputs, motion, int(entered), g, inner, rank, of_t, threads)
        back = (self.weight, self.unit, of_inner, of_common, rank, of_maps, of_bias, threads)
        self._call('back_to_maps', self.outputs, ctypes.c_int64(size), motion, *back)
        return of_t, of_maps, of_bias

    def _frame_gradient(
        self,
        plan: _Plan,
        unit: torch.Tensor | None,
        frames: torch.Tensor,
        g: torch.Tensor,
        further: list[torch.Tensor | None],
        out: torch.Tensor,
        add: bool,
    ) -> None:
        frames, g = frames.flatten(0, -2).contiguous(), g.contiguous()
        size = frames.shape[1]
        further = [*further, *[None] * (6 - len(further))]
        rank = 0 if further[3] is None else further[3].shape[1]
        assert out.is_contiguous()
        self._call(
            'frame_gradient',
            plan.handle,
            self.outputs,
            ctypes.c_int64(size),
            int(self.motion),
            unit,
            frames,
            g,
            *further,
            rank,
            out,
            int(add),
            threads_for(plan.rows * size * self.outputs),
        )

    # Plans.

    def _own(self, count: int, length: int, entered: bool = False, left: bool = False) -> _Plan:
        begin = ENTERED if entered and self.motion else FIRST
        return _plan_of_windows(self.library, count, length, self.motion, begin, left)

    def _plan_of(self, y: Chosen) -> _Plan:
        if id(y) not in self._plans:
            self._plans[id(y)] = (y, _Plan(self.library, y.index, _before(y.index, self.motion, FIRST)))
        return self._plans[id(y)][1]

    def _call(self, function: str, *arguments: object) -> None:
        getattr(self.library, f'{function}_{self.name}')(
            *[native_code.pointer(each) if isinstance(each, torch.Tensor) else each for each in arguments]
        )


@functools.cache
def _agrees(library: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Whether this is what PyTorch's operations find, on small windows of all kinds; a compiler may be wrong."""
    random = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=dtype)

    unit, index = randn(403), torch.arange(8) + torch.tensor([0, 2, 2, 9, 11]).unsqueeze(1)
    real: Windows
    fake: Windows
    after = Factored(randn(5, 6, 21), randn(403, 21), randn(403))
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    for motion in (True, False):
        chosen, joined = Chosen(randn(19, 403), index), Joined(Frames(randn(5, 2, 403)), after)
        real, fake = (WithMotion(chosen, unit), WithMotion(joined, unit)) if motion else (chosen, joined)
        weight, outer, g, h = randn(19, 806 if motion else 403), randn(19, 19), randn(5, 8, 19), randn(5, 8, 19)
        layer = FirstLayer(library, weight, unit if motion else None)
        gram, inner, common = layer.products(after, gram=True)
        gradient = torch.empty_like(weight)
        layer.gradient(real, g, fake, h, outer, gradient)
        found = [gram, layer.sums(real, None, None), layer.sums(fake, inner, common), gradient]
        x, y = real.dense(), fake.dense()
        wanted = [weight @ weight.t(), x @ weight.t(), y @ weight.t()]
        wanted.append(g.flatten(0, 1).t() @ x.flatten(0, 1) + h.flatten(0, 1).t() @ y.flatten(0, 1) + outer @ weight)
        for a, b in zip(found, wanted, strict=True):
            if a is None or not torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max())):
                return False
    return True
