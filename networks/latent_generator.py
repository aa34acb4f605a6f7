"""The latent generator G: noise in, a sequence of W+ codes out (StyleVideoGAN, BMVC 2021).

    (h_{0,0}, .., h_{0,n-2}) := H(i)              h_{0,n-1} := i             i ~ N(0, 1), the first frame
    ((h_{k+1,0}, .., h_{k+1,n-1}), l_{k+1}) := P(s_k, (h_{k,0}, .., h_{k,n-1}))   s_k ~ N(0, 1), one a time step
    l_0 := i;   l_{k+1} is the new memory of the last cell
    w_k := (A_0(T(l_k)), .., A_{L-1}(T(l_k)))

H is an MLP that fills the memory of all cells but the last, P a stack of n = 4 GRU cells that is shared over time, T a
widening MLP that is shared over time, and A_j one affine map for each of the L style layers.

Ours, not the paper's: the maps A_j may be factored through a fixed linear basis of the data (`num_components`). Each
A_j is then still one affine map, A_j(x) = mean_j + (M x + b) basis_j, with M and b shared between layers; training can stay
in the small space of M x + b, which makes it many times cheaper (docs/choices.md says what it costs).

`FilteredLatentGenerator`, ours as well, is such a generator behind a filter over time, which training fits when it ends, and
`EventLatentGenerator` one whose events, such as blinks, have the sizes of the footage's.

This file is embedded in snapshots, so it imports nothing but torch and torch_utils.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from torch_utils import persistence

State = tuple[torch.Tensor, ...]  # one memory [N, size] for each cell
FITTED_AT_THE_END = ('filter_', 'bound_', 'event_', 'sizes_')  # how the weights begin that a training does not begin with
MARGIN = 0.25  # how much farther than the footage a bounded frame may be, as a share of its distance


def build_mlp(in_features: int, widths: Sequence[int], out_features: int | None, slope: float = 0.2) -> torch.nn.Sequential:
    """Stack linear maps with leaky ReLU between them; `out_features` adds a last linear map without activation."""
    layers: list[torch.nn.Module] = []
    for width in widths:
        layers += [torch.nn.Linear(in_features, width), torch.nn.LeakyReLU(slope)]
        in_features = width
    if out_features is not None:
        layers.append(torch.nn.Linear(in_features, out_features))
    for layer in layers:
        if isinstance(layer, torch.nn.Linear):  # He initialisation keeps the variance through the activations
            torch.nn.init.kaiming_normal_(layer.weight, a=slope)
            torch.nn.init.zeros_(layer.bias)
    return torch.nn.Sequential(*layers)


@persistence.persistent_class
class GatedRecurrentCell(torch.nn.Module):
    """One GRU cell out of differentiable operations, because the fused kernels have no double backward.

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))     h' = (1 - z) * n + z * h

    Parameters have the names, order (r, z, n) and initialisation of torch.nn.GRUCell.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        bound = hidden_size**-0.5
        self.weight_ih = torch.nn.Parameter(torch.empty(3 * hidden_size, input_size).uniform_(-bound, bound))
        self.weight_hh = torch.nn.Parameter(torch.empty(3 * hidden_size, hidden_size).uniform_(-bound, bound))
        self.bias_ih = torch.nn.Parameter(torch.empty(3 * hidden_size).uniform_(-bound, bound))
        self.bias_hh = torch.nn.Parameter(torch.empty(3 * hidden_size).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """X [N, input_size], h [N, hidden_size] -> new memory [N, hidden_size]."""
        from_input = torch.addmm(self.bias_ih, x, self.weight_ih.t())
        from_memory = torch.addmm(self.bias_hh, h, self.weight_hh.t())
        return gate(from_input, from_memory, h)


def gate(from_input: torch.Tensor, from_memory: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Combine the two halves of the gates' arguments, [..., 3 * hidden_size] each, with the memory [..., hidden_size]."""
    size = h.shape[-1]
    rz = torch.sigmoid(from_input[..., : 2 * size] + from_memory[..., : 2 * size])
    n = torch.tanh(torch.addcmul(from_input[..., 2 * size :], rz[..., :size], from_memory[..., 2 * size :]))
    return torch.lerp(n, h, rz[..., size:])


@persistence.persistent_class
class LatentGenerator(torch.nn.Module):
    """G of the paper.

    Args:
        num_ws: style layers L of the image generator.
        w_dim: size of one style vector.
        latent_dim: size of i and l_k, which is also the memory of the last cell (paper: 32).
        noise_dim: size of s_k (paper: 32).
        hidden_dim: memory of the other cells.
        num_cells: GRU cells (paper: 4).
        initial_widths: hidden widths of H.
        widening_widths: widths of T.
        num_components: rows of the fixed basis; 0 = none, every A_j is free.
        burn_in: frames that a video leaves out at its beginning unless it is asked for them; 0 is the paper. Nothing in this
            class leaves them out: `initial_state` is i, whatever the burn-in.
    """

    w_mean: torch.Tensor
    w_scale: torch.Tensor
    w_basis: torch.Tensor | None

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        latent_dim: int = 32,
        noise_dim: int = 32,
        hidden_dim: int = 32,
        num_cells: int = 4,
        initial_widths: Sequence[int] = (64, 64),
        widening_widths: Sequence[int] = (64, 128),
        num_components: int = 0,
        burn_in: int = 0,
    ) -> None:
        super().__init__()
        self.num_ws = num_ws
        self.w_dim = w_dim
        self.latent_dim = latent_dim
        self.noise_dim = noise_dim
        self.hidden_dim = hidden_dim
        self.num_cells = num_cells
        self.num_components = num_components
        self.burn_in = burn_in
        self.H = build_mlp(latent_dim, initial_widths, hidden_dim * (num_cells - 1))
        sizes = [hidden_dim] * (num_cells - 1) + [latent_dim]
        self.P = torch.nn.ModuleList(
            GatedRecurrentCell(input_size, size) for input_size, size in zip([noise_dim, *sizes[:-1]], sizes, strict=True)
        )
        self.T = build_mlp(latent_dim, widening_widths, None)
        width = widening_widths[-1] if widening_widths else latent_dim
        self.A = torch.nn.Linear(width, num_components or num_ws * w_dim)  # all A_j in one matrix
        with torch.no_grad():
            self.A.weight.mul_(0.5)
            self.A.bias.zero_()
        # What the maps start from: the data's mean, and either its basis or its overall scale (set_data_basis()).
        self.register_buffer('w_mean', torch.zeros(num_ws * w_dim))
        self.register_buffer('w_scale', torch.ones([]))
        self.register_buffer('w_basis', torch.zeros(num_components, num_ws * w_dim) if num_components else None)

    def set_data_basis(self, mean: torch.Tensor, basis: torch.Tensor | None, scale: float = 1.0) -> None:
        """Place the output where the data is: mean [L * w_dim], basis [num_components, L * w_dim] or None with a scale."""
        self.w_mean.copy_(mean)
        self.w_scale.fill_(scale)
        if self.w_basis is not None:
            if basis is None or basis.shape != self.w_basis.shape:
                raise ValueError(f'the basis must have the shape {tuple(self.w_basis.shape)}')
            self.w_basis.copy_(basis)

    @property
    def cells(self) -> list[GatedRecurrentCell]:
        """The cells of P, bottom to top."""
        return [cell for cell in self.P if isinstance(cell, GatedRecurrentCell)]

    def initial_state(self, i: torch.Tensor) -> State:
        """I [N, latent_dim] ~ N(0, 1) -> memories (h_{0,0}, .., h_{0,n-1}); the last is l_0 = i itself."""
        return (*self.H(i).split(self.hidden_dim, dim=1), i)

    frames_behind = 0  # frames whose coordinates are among the memories, besides the present one

    def latent(self, state: State) -> torch.Tensor:
        """Memories -> l_k [N, latent_dim] of the frame that they stand for; of `initial_state(i)`, l_0 = i."""
        return state[-1]

    def step(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """One time step P: s_k [N, noise_dim] and the memories -> the new memories and l_{k+1} [N, latent_dim]."""
        return self._advance(s, state)

    def _advance(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        memories = []
        x = s
        for cell, h in zip(self.P, state, strict=True):
            x = cell(x, h)
            memories.append(x)
        return tuple(memories), x

    def pass_by(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """The last of step() after step(), to the last bit: s [N, n, noise_dim], n >= 1, nothing between is wanted."""
        memories, ls = self._pass_by(s, state, 1)
        return memories, ls[-1]

    def _pass_by(self, s: torch.Tensor, state: State, wanted: int) -> tuple[State, list[torch.Tensor]]:
        """The memories after all steps, and the last `wanted` l, or all if they are fewer."""
        weights = [(cell.bias_ih, cell.weight_ih.t(), cell.bias_hh, cell.weight_hh.t()) for cell in self.cells]
        memories, ls = list(state), []
        first = s.shape[1] - wanted
        for number, x in enumerate(s.unbind(1)):
            for index, (bias_ih, weight_ih, bias_hh, weight_hh) in enumerate(weights):
                h = memories[index]
                x = memories[index] = gate(torch.addmm(bias_ih, x, weight_ih), torch.addmm(bias_hh, h, weight_hh), h)
            if number >= first:
                ls.append(x)
        return tuple(memories), ls

    def rollout(self, s: torch.Tensor, state: State) -> tuple[torch.Tensor, list[State]]:
        """All time steps at once: s [N, t-1, noise_dim] -> l [N, t, latent_dim] (l_0 first) and the t states.

        The same numbers as step() after step(), to rounding. Where all cells have one size, cell c works on step k while cell c+1
        works on step k-1 (a wave front): one batched product then serves all cells, with a quarter of the operations.
        """
        uniform = {size for cell in self.cells for size in (cell.input_size, cell.hidden_size)}
        if len(uniform) > 1 or s.shape[1] == 0:
            states = [state]
            for noise in s.unbind(1):
                states.append(self._advance(noise, states[-1])[0])
        else:
            states = self._rollout_wave_front(s, state)
        return torch.stack([memories[-1] for memories in states], dim=1), states

    def _rollout_wave_front(self, s: torch.Tensor, state: State) -> list[State]:
        num_cells, num_steps = self.num_cells, s.shape[1]
        weight_ih = torch.stack([cell.weight_ih.t() for cell in self.cells])  # [cells, size, 3 * size]
        weight_hh = torch.stack([cell.weight_hh.t() for cell in self.cells])
        bias_ih = torch.stack([cell.bias_ih for cell in self.cells]).unsqueeze(1)  # [cells, 1, 3 * size]
        bias_hh = torch.stack([cell.bias_hh for cell in self.cells]).unsqueeze(1)
        noise = s.unsqueeze(0).unbind(2)  # t-1 times [1, N, size]; unbind() has a cheap backward, indexing has not
        memories: list[list[torch.Tensor]] = [[h] for h in state]  # [cell][time], each [N, size]
        for wave in range(num_steps + num_cells - 1):
            first, last = max(wave - num_steps + 1, 0), min(wave + 1, num_cells)  # cells at work: step wave - cell
            h = torch.stack([memories[cell][-1] for cell in range(first, last)])  # [cells at work, N, size]
            below = [memories[cell - 1][wave - cell + 1].unsqueeze(0) for cell in range(max(first, 1), last)]
            x = torch.cat([noise[wave], *below] if first == 0 else below)
            from_input = torch.baddbmm(bias_ih[first:last], x, weight_ih[first:last])
            from_memory = torch.baddbmm(bias_hh[first:last], h, weight_hh[first:last])
            for cell, memory in enumerate(gate(from_input, from_memory, h).unbind(0), start=first):
                memories[cell].append(memory)
        return [tuple(column) for column in zip(*memories, strict=True)]

    def coordinates(self, l: torch.Tensor) -> torch.Tensor:
        """L [..., latent_dim] -> what training works on: basis coordinates [..., num_components], or without a basis
        the standardised codes (w - w_mean) / w_scale [..., num_ws * w_dim].
        """
        return self.A(self.T(l))

    def decode(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates [..., C] -> W+ codes [..., num_ws, w_dim]."""
        if self.w_basis is not None:
            flat = self.w_mean + coordinates @ self.w_basis
        else:
            flat = self.w_mean + coordinates * self.w_scale
        return flat.unflatten(-1, (self.num_ws, self.w_dim))

    def codes(self, l: torch.Tensor) -> torch.Tensor:
        """L [..., latent_dim] -> W+ codes (A_0(T(l)), .., A_{L-1}(T(l))) [..., num_ws, w_dim]."""
        return self.decode(self.coordinates(l))

    def forward(self, i: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """I [N, latent_dim], s [N, t-1, noise_dim] -> W+ codes [N, t, num_ws, w_dim]."""
        return self.codes(self.rollout(s, self.initial_state(i))[0])


@persistence.persistent_class
class FilteredLatentGenerator(LatentGenerator):
    """G behind a linear filter over time of its coordinates (ours, not the paper's; training/stationarity.py fits the filter).

        y_k  := coordinates of l_k of G                                    y_k = y_0 for k < 0
        y'_k := b + sum_{j=0..2h} F_j y_{k-j}                              frame k

    so frame k shows what the recurrence did about h steps before; what it has done since helps to say how. One frame now depends
    on several l_k. What a `LatentGenerator` calls l_k is here y'_k: `latent`, `step` and `rollout` give [.., num_components] in
    the place of [.., latent_dim], and `coordinates` gives them back as they are. There is one more memory, [N, (2h + 1) *
    num_components]: y_{k-2h} .. y_k.

    With `bounded` no frame lies far outside of the footage. With r(y) := ||(y - m) B||, which is 1 at the farthest frame of it,

        y'' := y'  where r <= 1,   else  m + (y' - m) (1 + c tanh((r - 1) / c)) / r,   c = 0.25

    stands in the place of y'_k, so r stays below 1 + c; what lies inside is left as it is, and the change is smooth.

    Args:
        filter_size: Number of F_j, 2h + 1; odd.
        bounded: Whether frames are bounded; `set_bound` says by what.
        kwargs: Of `LatentGenerator`; `num_components` has to be there.

    Raises:
        ValueError: filter_size is even or below 1, or there are no components.
    """

    filter_weight: torch.Tensor
    filter_bias: torch.Tensor
    bound_mean: torch.Tensor
    bound_map: torch.Tensor

    def __init__(self, *args: Any, filter_size: int, bounded: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if filter_size < 1 or filter_size % 2 == 0 or self.num_components == 0:
            raise ValueError('a filter has an odd size, and works on components')
        self.filter_size = filter_size
        self.frames_behind = filter_size - 1
        self.register_buffer('filter_weight', torch.zeros(filter_size * self.num_components, self.num_components))
        self.register_buffer('filter_bias', torch.zeros(self.num_components))
        identity = torch.zeros(filter_size, self.num_components, self.num_components)
        identity[filter_size // 2] = torch.eye(self.num_components)
        self.set_filter(identity, self.filter_bias)
        self.bounded = bounded
        if bounded:
            self.register_buffer('bound_mean', torch.zeros(self.num_components))
            self.register_buffer('bound_map', torch.zeros(self.num_components, self.num_components))

    def set_filter(self, weights: torch.Tensor, bias: torch.Tensor) -> None:
        """Take F_0 .. F_2h [2h + 1, K, K] and b [K] for K = num_components."""
        self.filter_weight.copy_(weights.flip(0).transpose(1, 2).flatten(0, 1))  # of (y_{k-2h}, .., y_k)
        self.filter_bias.copy_(bias)

    def set_bound(self, mean: torch.Tensor, distance_map: torch.Tensor) -> None:
        """Take m [K] and B [K, K]; B = 0, as it begins, bounds nothing."""
        self.bound_mean.copy_(mean)
        self.bound_map.copy_(distance_map)

    def _bound(self, y: torch.Tensor) -> torch.Tensor:
        """Y' [..., K] -> y''."""
        if not self.bounded:
            return y
        centred = y - self.bound_mean
        r = (centred @ self.bound_map).square().sum(dim=-1, keepdim=True).sqrt().clamp(min=1)
        return torch.where(r > 1, self.bound_mean + centred * (1 + MARGIN * torch.tanh((r - 1) / MARGIN)) / r, y)

    def initial_state(self, i: torch.Tensor) -> State:
        """I [N, latent_dim] ~ N(0, 1) -> memories; the last one is y_0 for all time before."""
        state = super().initial_state(i)
        return (*state, super().coordinates(i).repeat(1, self.filter_size))

    def latent(self, state: State) -> torch.Tensor:
        """Memories -> y'_k [N, num_components]."""
        return self._bound(self._filtered(state[-1]))

    def _filtered(self, past: torch.Tensor) -> torch.Tensor:
        """Y_{k-2h} .. y_k [N, (2h + 1) * num_components] -> y'_k [N, num_components], not bounded."""
        return torch.addmm(self.filter_bias, past, self.filter_weight)

    def step(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """One time step: s_k [N, noise_dim] and the memories -> the new memories and y'_{k+1} [N, num_components]."""
        state = self._filter_step(s, state)
        return state, self.latent(state)

    def _filter_step(self, s: torch.Tensor, state: State) -> State:
        """The new memories."""
        memories, l = self._advance(s, state[:-1])
        return (*memories, torch.cat([state[-1][:, self.num_components :], super().coordinates(l)], dim=1))

    def pass_by(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """See LatentGenerator; coordinates of the frames that the last one depends on, and of no other."""
        state = self.filter_pass_by(s, state)
        return state, self.latent(state)

    def filter_pass_by(self, s: torch.Tensor, state: State) -> State:
        """The memories after all steps."""
        memories, ls = self._pass_by(s, state[:-1], self.filter_size)
        coordinates = super().coordinates
        past = torch.cat([state[-1], *(coordinates(l) for l in ls)], dim=1)[:, -self.filter_size * self.num_components :]
        return (*memories, past.contiguous())

    def rollout(self, s: torch.Tensor, state: State) -> tuple[torch.Tensor, list[State]]:
        """All time steps at once: s [N, t-1, noise_dim] -> y' [N, t, num_components] (y'_0 first) and the t states."""
        y, states = self.filter_rollout(s, state)
        return self._bound(y), states

    def filter_rollout(self, s: torch.Tensor, state: State) -> tuple[torch.Tensor, list[State]]:
        """The same, not bounded."""
        l, memories = super().rollout(s, state[:-1])
        y = torch.cat([state[-1], super().coordinates(l[:, 1:]).flatten(1)], dim=1)  # [N, (2h + t) * K]
        pasts = y.unfold(1, state[-1].shape[1], self.num_components)  # [N, t, (2h + 1) * K]
        states = [(*h, past) for h, past in zip(memories, pasts.unbind(1), strict=True)]
        return pasts @ self.filter_weight + self.filter_bias, states

    def coordinates(self, l: torch.Tensor) -> torch.Tensor:
        """Y' [..., num_components], as it is."""
        return l


HALF_BASELINE = 16  # frames, half of the window of the median that excursions are measured from
HALF_PEAK = 5  # frames, in which a peak is the largest
MOST_APART = 24  # frames, in which an event may have to be the largest
HALF_EVENT = 10  # frames to which the gain of a peak reaches
HALF_PLATEAU = 7  # frames at which it is whole
NUM_SIZES = 33  # quantiles


@persistence.persistent_class
class EventLatentGenerator(FilteredLatentGenerator):
    """A `FilteredLatentGenerator` whose events have sizes that the footage has (ours, not the paper's; training/events/sizes.py).

    A lid closes or it does not. A generator is a continuous function of its noise, and makes everything in between. For each
    channel, a direction d of the coordinates along which the footage has events, and y' of the filter,

        u_k := d^T y'_k,     e_k := u_k - median(u_{k-16}, .., u_{k+16})             excursions
        p_k := e_k   where it is positive and the largest in k - 5 .. k + 5          peaks
        q_k := Q(p_k)   of events: p_k >= T, and no e is larger in k - R .. k + R
               p_k      of other peaks, where p_k <= B
               S        of other peaks, where p_k > B
        y''_k := y'_k + a e_k sum_j v_j h_j (q_{k+j} / p_{k+j} - 1)                  j = -10 .. 10, h from 1 to 0

    with v_j ~ ((11 - |j|) p_{k+j})^4, whose sum is 1. So every excursion keeps its shape and gets another size: Q maps the sizes
    of generated events to those of the footage (quantiles to quantiles), B and S are the largest and the median peak of the
    footage that is no event, and within R frames there is one event. a is how the coordinates move in an event. Bounded, if at
    all, is y''.

    y''_k needs 50 frames that follow it, so this generator is as many steps behind its filter. There are three more memories:
    y' of the last 51 frames, and, in each channel, e of the last 49 and q / p - 1 and p of the last 21 that are known.

    Args:
        num_channels: Number of directions.
        kwargs: Of `FilteredLatentGenerator`.
    """

    event_directions: torch.Tensor
    event_motions: torch.Tensor
    event_thresholds: torch.Tensor
    event_limits: torch.Tensor
    event_remains: torch.Tensor
    event_distances: torch.Tensor
    sizes_generated: torch.Tensor
    sizes_real: torch.Tensor

    DELAY = HALF_BASELINE + MOST_APART + HALF_EVENT

    def __init__(self, *args: Any, num_channels: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_channels = num_channels
        self.frames_behind = self.filter_size - 1 + 2 * self.DELAY
        self.register_buffer('event_directions', torch.zeros(self.num_components, num_channels))
        self.register_buffer('event_motions', torch.zeros(num_channels, self.num_components))
        self.register_buffer('event_thresholds', torch.full((num_channels,), float('inf')))
        self.register_buffer('event_limits', torch.full((num_channels,), float('inf')))
        self.register_buffer('event_remains', torch.zeros(num_channels))
        self.register_buffer('event_distances', torch.zeros(num_channels))
        self.register_buffer('sizes_generated', torch.arange(NUM_SIZES).float().repeat(num_channels, 1))
        self.register_buffer('sizes_real', torch.arange(NUM_SIZES).float().repeat(num_channels, 1))

    def initial_state(self, i: torch.Tensor) -> State:
        """I [N, latent_dim] ~ N(0, 1) -> memories; the last four as if y_0 had been for all time before."""
        return self.entered(super().initial_state(i))

    def latent(self, state: State) -> torch.Tensor:
        """Memories -> y''_k [N, num_components]."""
        past, excursions, gains = self._unpacked(state)
        plateau = HALF_EVENT - HALF_PLATEAU
        away = torch.arange(-HALF_EVENT, HALF_EVENT + 1, device=past.device).abs()
        h = ((HALF_EVENT - away) / plateau).clamp(max=1).to(past)  # [21]
        changes, sizes = gains.unbind(2)  # [N, channels, 21]
        weights = ((1 - away / (HALF_EVENT + 1)) * sizes).pow(4)
        weights = weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-12)
        gain = (weights * h * changes).sum(dim=2)
        here = excursions[:, :, MOST_APART - HALF_EVENT]  # of the frame that is shown
        return self._bound(past[:, 0] + (gain * here) @ self.event_motions)

    def behind_filter(self) -> FilteredLatentGenerator:
        """The same generator without the sizes of events: y' in the place of y'', and no delay but the filter's."""
        this: Any = self  # with what torch_utils.persistence adds
        kwargs = {key: value for key, value in this.init_kwargs.items() if key != 'num_channels'}
        plain = FilteredLatentGenerator(*this.init_args, **kwargs)
        plain.load_state_dict(self.state_dict(), strict=False)
        return plain.to(self.filter_weight).train(self.training).requires_grad_(self.A.weight.requires_grad)

    def entered(self, state: State) -> State:
        """Memories of `behind_filter` -> those that show the same frame after DELAY steps, whatever their noise."""
        y = self._filtered(state[-1])
        excursions = y.new_zeros(len(y), self.num_channels * (2 * MOST_APART + 1))
        gains = y.new_zeros(len(y), 2 * self.num_channels * (2 * HALF_EVENT + 1))
        return (*state, y.repeat(1, self.DELAY + 1), excursions, gains)

    def _unpacked(self, state: State) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The memories of events: y' [N, 51, K], e [N, channels, 49], changes and sizes of peaks [N, channels, 2, 21]."""
        past, excursions, gains = state[-3:]
        return (
            past.unflatten(1, (self.DELAY + 1, self.num_components)),
            excursions.unflatten(1, (self.num_channels, 2 * MOST_APART + 1)),
            gains.unflatten(1, (self.num_channels, 2, 2 * HALF_EVENT + 1)),
        )

    def _remember(self, y: torch.Tensor, state: State) -> State:
        """The memories of events once y' of one more frame [N, num_components] is known."""
        past, excursions, gains = self._unpacked(state)
        past = torch.cat([past[:, 1:], y.unsqueeze(1)], dim=1)
        u = past[:, -(2 * HALF_BASELINE + 1) :] @ self.event_directions  # [N, 33, channels]
        newest = u[:, HALF_BASELINE] - u.median(dim=1).values
        excursions = torch.cat([excursions[:, :, 1:], newest.unsqueeze(2)], dim=2)
        p = excursions[:, :, MOST_APART]
        around = excursions[:, :, MOST_APART - HALF_PEAK : MOST_APART + HALF_PEAK + 1].amax(dim=2)
        away = torch.arange(-MOST_APART, MOST_APART + 1, device=y.device).abs()
        too_far = away > self.event_distances.unsqueeze(1)  # [channels, 49]
        rival = excursions.masked_fill(too_far, -math.inf).amax(dim=2)
        peak = (p > 0) & (p >= around)
        event = (p >= self.event_thresholds) & (p >= rival)
        q = torch.where(event, self._real_size(p), torch.where(p > self.event_limits, self.event_remains, p))
        change = torch.where(peak, q / p.clamp(min=1e-6) - 1, 0.0)
        newest_gain = torch.stack([change, torch.where(peak, p, 0.0)], dim=2)
        gains = torch.cat([gains[..., 1:], newest_gain.unsqueeze(3)], dim=3)
        return past.flatten(1), excursions.flatten(1), gains.flatten(1)

    def _real_size(self, p: torch.Tensor) -> torch.Tensor:
        """Q: sizes of generated events [N, channels] -> sizes that the footage's events have."""
        last = NUM_SIZES - 2
        index = (
            torch.searchsorted(self.sizes_generated, p.detach().t().contiguous(), right=True).sub(1).clamp(0, last)
        )  # [channels, N]
        low, high = (self.sizes_generated.gather(1, index + more).t() for more in (0, 1))
        real_low, real_high = (self.sizes_real.gather(1, index + more).t() for more in (0, 1))
        share = ((p - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
        return torch.lerp(real_low, real_high, share)

    def step(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """One time step: s_k [N, noise_dim] and the memories -> the new memories and y'' [N, num_components] of a frame."""
        memories = self._filter_step(s, state[:-3])
        state = (*memories, *self._remember(self._filtered(memories[-1]), state))
        return state, self.latent(state)

    def pass_by(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """See LatentGenerator; the frames that the last one depends on are walked through."""
        walked = 2 * self.DELAY + 1
        if s.shape[1] > walked:
            state = (*self.filter_pass_by(s[:, :-walked], state[:-3]), *state[-3:])
            s = s[:, -walked:]
        for noise in s.unbind(1):
            state, y = self.step(noise, state)
        return state, y

    def rollout(self, s: torch.Tensor, state: State) -> tuple[torch.Tensor, list[State]]:
        """All time steps at once: s [N, t-1, noise_dim] -> y'' [N, t, num_components] (y''_0 first) and the t states."""
        y, memories = self.filter_rollout(s, state[:-3])
        states = [state]
        for k in range(1, len(memories)):
            states.append((*memories[k], *self._remember(y[:, k], states[-1])))
        return torch.stack([self.latent(each) for each in states], dim=1), states


def first_frame(G: LatentGenerator, i: torch.Tensor) -> tuple[State, torch.Tensor]:
    """Memories and l of the first frame of videos that begin at i [N, latent_dim]; without a `latent`, G has l_0 = i."""
    state = G.initial_state(i)
    return state, G.latent(state) if hasattr(G, 'latent') else i
