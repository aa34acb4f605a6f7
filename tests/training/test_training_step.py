"""Whole training steps against plain equations in float64, written from the formulas and with nothing of training/.

The reference below knows the networks only as named weights, and makes every product, gradient, penalty, average and step of
Adam itself, from the equations in docs/choices.md and in the docstrings of networks/. Its random numbers are those that the
trainer drew (`Tape`), because what is compared is what is done with them. What it takes as given: the coordinates of the footage.
"""

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from training import temporal_trainer
from training.batches.whole_codes import WholeCodeChains
from training.kernels import native_code
from training.kernels.critic import critic_gradients
from training.latent_space import fit_latent_space
from training.latents.dataset import LatentDataset
from training.real_windows import Windows
from training.temporal_options import LatentSpaceOptions, Settings
from training.temporal_trainer import TemporalTrainer

Weights = dict[str, torch.Tensor]
WINDOW, LATENT, NOISE, HIDDEN, CELLS = 9, 4, 3, 5, 3
SLOPE = 0.2
pytestmark = pytest.mark.timeout(3000)  # an emergency brake: seconds of the processor, minutes where it is busy
TOTAL_KIMG = 1.5

# ----------------------------------------------------------------------------
# Random numbers.


class Tape:
    """Random numbers of one generator, in the order in which they were drawn."""

    def __init__(self) -> None:
        self.drawn: list[tuple[str, torch.Tensor]] = []

    def next(self, kind: str, *shape: int) -> torch.Tensor:
        """The next numbers; the reference has to want what the trainer wanted."""
        assert self.drawn, f'the trainer drew less than the equations need: {kind} {shape}'
        found, value = self.drawn.pop(0)
        assert (found, tuple(value.shape)) == (kind, shape)
        return value


class Tapes:
    """Notes what torch draws from the generators that trainers own."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.of: dict[int, Tape] = {}
        for kind in ('randn', 'rand', 'randint', 'randperm'):
            patch.setattr(torch, kind, self._noting(kind, getattr(torch, kind)))

    def _noting(self, kind: str, draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def noting(*args: Any, generator: torch.Generator | None = None, **kwargs: Any) -> torch.Tensor:
            value = draw(*args, generator=generator, **kwargs)
            if generator is not None:
                self.of.setdefault(id(generator), Tape()).drawn.append((kind, value.clone()))
            return value

        return noting


# ----------------------------------------------------------------------------
# Networks, as equations.


def leaky(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, SLOPE * x)


def mlp(weights: Weights, name: str, x: torch.Tensor, last: bool) -> torch.Tensor:
    """Affine maps with leaky ReLU after each, but for a `last` one without."""
    numbers = sorted({int(key.split('.')[1]) for key in weights if key.startswith(f'{name}.')})
    for index in numbers:
        x = x @ weights[f'{name}.{index}.weight'].T + weights[f'{name}.{index}.bias']
        if not (last and index == numbers[-1]):
            x = leaky(x)
    return x


def gated(weights: Weights, cell: int, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """r, z = sigmoid(..), n = tanh(W_in x + b_in + r * (W_hn h + b_hn)), h' = (1 - z) n + z h."""
    p = f'P.{cell}.'
    a = (x @ weights[p + 'weight_ih'].T + weights[p + 'bias_ih']).chunk(3, dim=1)
    b = (h @ weights[p + 'weight_hh'].T + weights[p + 'bias_hh']).chunk(3, dim=1)
    r, z = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
    n = torch.tanh(a[2] + r * b[2])
    return (1 - z) * n + z * h


State = list[torch.Tensor]


def begin(weights: Weights, i: torch.Tensor) -> State:
    """(h_{0,0}, .., h_{0,n-2}) := H(i), h_{0,n-1} := i."""
    filled = mlp(weights, 'H', i, last=True)
    return [*filled.split(HIDDEN, dim=1), i]


def roll(weights: Weights, s: torch.Tensor, state: State) -> tuple[torch.Tensor, list[State]]:
    """l [N, t, latent] and the states at all times."""
    states = [state]
    for k in range(s.shape[1]):
        x, new = s[:, k], []
        for cell, h in enumerate(states[-1]):
            x = gated(weights, cell, x, h)
            new.append(x)
        states.append(new)
    return torch.stack([each[-1] for each in states], dim=1), states


def decode(weights: Weights, l: torch.Tensor) -> torch.Tensor:
    """y = A T(l)."""
    return mlp(weights, 'T', l, last=False) @ weights['A.weight'].T + weights['A.bias']


def score(weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """C(x): E on every frame; convolutions over time as sums over their 5 taps, every second frame; one last affine map."""
    a = mlp(weights, 'E', x, last=False)  # [N, t, channels]
    numbers = sorted({int(key.split('.')[1]) for key in weights if key.startswith('TConv.')})
    for index in numbers[:-1]:
        kernel = weights[f'TConv.{index}.weight']  # [out, in, 5]
        padded = torch.nn.functional.pad(a, (0, 0, 2, 2))
        times = range(0, a.shape[1], 2)
        a = leaky(
            torch.stack([sum(padded[:, t + tap] @ kernel[:, :, tap].T for tap in range(5)) for t in times], dim=1)
            + weights[f'TConv.{index}.bias']
        )
    flat = a.transpose(1, 2).flatten(1)
    return (flat @ weights[f'TConv.{numbers[-1]}.weight'].T + weights[f'TConv.{numbers[-1]}.bias'])[:, 0]


# ----------------------------------------------------------------------------
# The step.


@dataclasses.dataclass
class Adam:
    """Kingma and Ba, algorithm 1."""

    betas: tuple[float, float]
    count: int = 0
    mean: Weights = dataclasses.field(default_factory=dict)
    square: Weights = dataclasses.field(default_factory=dict)

    def move(self, weights: Weights, gradients: Weights, rate: float) -> Weights:
        self.count += 1
        moved = {}
        for name, g in gradients.items():
            m = self.mean[name] = self.betas[0] * self.mean.get(name, torch.zeros_like(g)) + (1 - self.betas[0]) * g
            v = self.square[name] = self.betas[1] * self.square.get(name, torch.zeros_like(g)) + (1 - self.betas[1]) * g * g
            m, v = m / (1 - self.betas[0] ** self.count), v / (1 - self.betas[1] ** self.count)
            moved[name] = (weights[name] - rate * m / (v.sqrt() + 1e-8)).detach()
        return moved


@dataclasses.dataclass
class Rank:
    """What one rank has of its own: random numbers and chains."""

    tape: Tape
    memories: State | None = None
    past: torch.Tensor | None = None


class Reference:
    """Weights, Adam and chains; `step` is one training step over all ranks."""

    def __init__(
        self, settings: Settings, clips: list[torch.Tensor], strides: list[int], reversal: float, G: Weights,
        critics: list[Weights], tapes: list[Tape], event_timing: Any = None,
    ) -> None:  # fmt: skip
        self.settings, self.clips, self.strides, self.reversal = settings, clips, strides, reversal
        self.G, self.critics, self.average = G, critics, dict(G)
        self.event_timing = event_timing  # which directions and delays: tests/training/events/test_timing.py
        self.ranks = [Rank(tape) for tape in tapes]
        self.batch = settings.batch // len(tapes)
        self.steps = 0
        betas = (settings.beta1, settings.beta2)
        self.G_adam, self.C_adam = Adam(betas), [Adam(betas) for _ in critics]
        self.frames_of_step = settings.batch * settings.critic_steps * WINDOW
        self.span = (WINDOW - 1) * strides[-1] + 1
        if settings.carry > 0:
            for rank in self.ranks:
                rank.memories, rank.past = self.fresh(rank, settings.chains // len(tapes))

    def fresh(self, rank: Rank, count: int) -> tuple[State, torch.Tensor]:
        """Videos that began burn_in + past frames ago: the memories now, and the frames after the burn-in."""
        state = begin(self.G, rank.tape.next('randn', count, LATENT))
        frames = self.settings.burn_in + self.span - WINDOW
        if frames == 0:
            return state, torch.zeros(count, 0, self.G['A.bias'].shape[0])
        l, states = roll(self.G, rank.tape.next('randn', count, frames, NOISE), state)
        return [h.detach() for h in states[frames]], decode(self.G, l)[:, self.settings.burn_in : frames].detach()

    def distort(self, rank: Rank, y: torch.Tensor) -> torch.Tensor:
        """Each window in units of the deviations, times 1 + c N / sqrt(K), plus c n, back in its own units."""
        c = self.settings.distortion
        if not c:
            return y
        K, footage = y.shape[2], torch.cat(self.clips)
        mean, unit = footage.mean(dim=0), footage.std(dim=0, correction=0)
        N, n = rank.tape.next('randn', len(y), K, K), rank.tape.next('randn', len(y), 1, K)
        windows = zip(y, N, n, strict=True)
        return torch.stack([((x - mean) / unit @ (torch.eye(K) + c * A / K**0.5) + c * b) * unit + mean for x, A, b in windows])

    def views(self, rank: Rank, y: torch.Tensor) -> list[torch.Tensor]:
        """For the spacing n: frames y_e - (t-1) n, .., y_e - n, y_e, and beside them weight * (y_k - y_{k-n}) / unit_n."""
        views = []
        y = self.distort(rank, y)
        for n in self.strides:
            times = [y.shape[1] - 1 - n * back for back in range(WINDOW)][::-1]
            frames = torch.stack([y[:, time] for time in times], dim=1)
            if self.settings.motion_weight > 0:
                squares = torch.cat([(clip[n:] - clip[:-n]) ** 2 for clip in self.clips])
                unit = squares.mean(dim=0).sqrt()
                steps = [(frames[:, k] - frames[:, k - 1]) / unit * self.settings.motion_weight for k in range(1, WINDOW)]
                frames = torch.cat([frames, torch.stack([torch.zeros_like(frames[:, 0]), *steps], dim=1)], dim=2)
            views.append(frames)
        return views

    def draw_chains(self, rank: Rank, count: int) -> torch.Tensor:
        assert rank.memories is not None
        number = len(rank.memories[0])
        return torch.cat([rank.tape.next('randperm', number) for _ in range(math.ceil(count / number))])[:count]

    def generate(self, rank: Rank, count: int) -> tuple[torch.Tensor, list[State], torch.Tensor]:
        carried = 0 if rank.memories is None else round(count * self.settings.carry)
        state = begin(self.G, rank.tape.next('randn', count - carried, LATENT))
        chosen = torch.zeros(0, dtype=torch.long)
        if rank.memories is not None:
            chosen = self.draw_chains(rank, carried)
            state = [torch.cat([new, kept[chosen]]) for new, kept in zip(state, rank.memories, strict=True)]
        l, states = roll(self.G, rank.tape.next('randn', count, WINDOW - 1, NOISE), state)
        y = decode(self.G, l)
        if rank.past is not None and rank.past.shape[1] > 0:
            y = torch.cat([rank.past[chosen], y], dim=1)
        return y, states, chosen

    def move_chains(self, rank: Rank, y: torch.Tensor, states: list[State], chosen: torch.Tensor) -> None:
        """On to a random time of the second half; some begin again."""
        if rank.memories is None or rank.past is None:
            return
        time, fresh = int(rank.tape.next('randint', 1)), len(y) - len(chosen)
        assert WINDOW // 2 <= time < WINDOW
        length = rank.past.shape[1]
        for kept, h in zip(rank.memories, states[time], strict=True):
            kept[chosen] = h[fresh:].detach()
        if length > 0:
            rank.past[chosen] = y[fresh:, time : time + length].detach()
        lucky = chosen[rank.tape.next('rand', len(chosen)) < self.settings.restart]
        if len(lucky) > 0:
            memories, past = self.fresh(rank, len(lucky))
            for kept, h in zip([*rank.memories, rank.past], [*memories, past], strict=True):
                kept[lucky] = h

    def real(self, rank: Rank) -> torch.Tensor:
        """Stretches of the footage, each start equally likely; a share backwards."""
        starts = [clip[begin : begin + self.span] for clip in self.clips for begin in range(len(clip) - self.span + 1)]
        chosen = rank.tape.next('randint', self.batch)
        y = torch.stack([starts[index] for index in chosen])
        if self.reversal > 0:
            backwards = rank.tape.next('rand', self.batch, 1)[:, 0] < self.reversal
            y = torch.stack([each.flip(0) if back else each for each, back in zip(y, backwards, strict=True)])
        return y

    def step(self) -> None:
        settings = self.settings
        shown = self.steps * self.frames_of_step
        left = 1 - shown / (TOTAL_KIMG * 1000)
        factor = 1.0 if settings.decay == 0 else min(1.0, left / settings.decay)
        self.move_critics(settings.critic_lr * factor)
        self.move_generator(settings.generator_lr * factor)
        self.steps += 1
        # Half of what the average holds is older than this many frames, or than a share of the training so far.
        half = min(settings.ema_kimg * 1000, settings.ema_rampup * self.steps * self.frames_of_step)
        keep = 2 ** (-self.frames_of_step / half)
        self.average = {name: keep * old + (1 - keep) * self.G[name] for name, old in self.average.items()}

    def move_critics(self, rate: float) -> None:
        count = self.batch * self.settings.critic_steps
        shown = []
        for rank in self.ranks:
            y, states, chosen = self.generate(rank, count)
            y = y.detach()
            self.move_chains(rank, y, states, chosen)
            order = rank.tape.next('randperm', count)
            shown.append([view[order] for view in self.views(rank, y)])
        for update in range(self.settings.critic_steps):
            batch = slice(update * self.batch, (update + 1) * self.batch)
            per_rank: list[list[Weights]] = []
            for rank, fakes in zip(self.ranks, shown, strict=True):
                reals = self.views(rank, self.real(rank))
                mix = rank.tape.next('rand', self.batch)[:, None, None]
                per_rank.append(
                    [
                        self.critic_gradient(C, real, fake[batch], mix)
                        for C, real, fake in zip(self.critics, reals, fakes, strict=True)
                    ]
                )
            for index, C in enumerate(self.critics):
                mean = {name: sum(rank[index][name] for rank in per_rank) / len(per_rank) for name in C}
                self.critics[index] = self.C_adam[index].move(C, mean, rate)

    def critic_gradient(self, C: Weights, real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor) -> Weights:
        """Of  E[C(fake)] - E[C(real)] + lambda_gp E[(||dC(x)/dx|| - 1)^2]."""
        C = {name: value.detach().requires_grad_(True) for name, value in C.items()}
        x = ((1 - mix) * real + mix * fake).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(score(C, x).sum(), x, create_graph=True)
        penalty = ((slope**2).sum(dim=(1, 2)).sqrt() - 1) ** 2
        loss = score(C, fake).mean() - score(C, real).mean() + self.settings.lambda_gp * penalty.mean()
        gradients = torch.autograd.grad(loss, list(C.values()), allow_unused=True)
        return {name: torch.zeros_like(C[name]) if g is None else g for name, g in zip(C, gradients, strict=True)}

    def move_generator(self, rate: float) -> None:
        settings = self.settings
        self.G = {name: value.detach().requires_grad_(True) for name, value in self.G.items()}
        gradients = []
        for rank in self.ranks:
            y, _, _ = self.generate(rank, self.batch)
            total = sum(n**settings.stride_power for n in self.strides)
            loss = torch.zeros(())
            for C, n, view in zip(self.critics, self.strides, self.views(rank, y), strict=True):
                loss = loss - n**settings.stride_power / total * len(self.strides) * score(C, view).mean()
            if self.event_timing is not None:
                loss = loss + settings.lambda_events * self.event_penalty(y)
            if self.steps % settings.gap_interval == 0:
                count = max(1, self.batch // settings.gap_batch_shrink)
                if settings.lambda_gap > 0:
                    loss = loss + settings.gap_interval * settings.lambda_gap * self.angle_penalty(rank, count)
                wanted = self.wanted()
                if settings.lambda_diversity > 0 and wanted > 0:
                    loss = loss + settings.gap_interval * settings.lambda_diversity * self.diversity_penalty(rank, count, wanted)
            gradients.append(torch.autograd.grad(loss, list(self.G.values())))
        mean = {name: sum(column) / len(gradients) for name, column in zip(self.G, zip(*gradients, strict=True), strict=True)}
        self.G = self.G_adam.move(self.G, mean, rate)

    def event_penalty(self, y: torch.Tensor) -> torch.Tensor:
        """With e_k = tanh(max(0, +-x_k - 1.25)): mean(e_k e_{k-n}) / mean(e of the footage), summed over delays n ruled out."""
        D, weights = self.event_timing.directions, self.event_timing.weights

        def e(frames: torch.Tensor) -> torch.Tensor:
            x = (frames[..., 1:, :] - frames[..., :-1, :]) @ D
            return torch.tanh((torch.cat([x, -x], dim=-1) - 1.25).clamp(min=0))

        rate = torch.cat([e(clip) for clip in self.clips]).mean(dim=0)
        of_windows, total = e(y), torch.zeros(())
        for channel, delay in (weights > 0).nonzero().tolist():
            for back in range(WINDOW):
                now, before = of_windows[:, -1 - back, channel], of_windows[:, -2 - back - delay, channel].detach()
                total = total + (now * before).mean() / WINDOW / rate[channel]
        return total

    def angle_penalty(self, rank: Rank, count: int) -> torch.Tensor:
        """(max(0, pi/4 - phi))^2, tan phi = ||dd/ds|| / ||dd/dfirst||, d = ||l_{t-1} - l_0||; both kinds by their shares."""

        def penalty(first: State, state: State) -> torch.Tensor:
            s = rank.tape.next('randn', count, WINDOW - 1, NOISE).requires_grad_(True)
            l, _ = roll(self.G, s, state)
            d = ((l[:, -1] - l[:, 0]) ** 2).sum(dim=1).sqrt()
            by_s, *by_first = torch.autograd.grad(d.sum(), [s, *first], create_graph=True)
            up = (by_s**2).sum(dim=(1, 2)).sqrt()
            across = sum((g**2).sum(dim=1) for g in by_first).sqrt()
            return ((math.pi / 4 - torch.arctan(up / across)).clamp(min=0) ** 2).mean()

        total = torch.zeros(())
        if self.settings.carry < 1:
            i = rank.tape.next('randn', count, LATENT).requires_grad_(True)
            total = total + (1 - self.settings.carry) * penalty([i], begin(self.G, i))
        if rank.memories is not None:
            chosen = self.draw_chains(rank, count)
            state = [h[chosen].requires_grad_(True) for h in rank.memories]
            total = total + self.settings.carry * penalty(state, state)
        return total

    def wanted(self) -> float:
        """e*^2: a share of what two frames are apart that keep rho of one past, rho being what the footage keeps of a frame."""
        lag = min(self.settings.diversity_windows * WINDOW - 1, max(len(clip) for clip in self.clips) - 1)
        squares = torch.cat([(clip[lag:] - clip[:-lag]) ** 2 for clip in self.clips if len(clip) > lag])
        rho = min(max(1 - float(squares.mean()) / 2, 0), 1)
        return self.settings.diversity * (1 - rho**2)

    def diversity_penalty(self, rank: Rank, count: int, wanted: float) -> torch.Tensor:
        """(max(0, 1 - e / e*))^2, e^2 = mean (y - y')^2 / 2 over the last third of two futures of one memory."""
        if rank.memories is None:
            state = begin(self.G, rank.tape.next('randn', count, LATENT))
        else:
            chosen = self.draw_chains(rank, count)
            state = [h[chosen] for h in rank.memories]
        frames = self.settings.diversity_windows * WINDOW
        s = rank.tape.next('randn', 2 * count, frames - 1, NOISE)
        y, other = (decode(self.G, roll(self.G, noise, state)[0])[:, 2 * frames // 3 :] for noise in s.split(count))
        squares = ((y - other) ** 2).mean(dim=(1, 2)) / 2
        return ((1 - (squares / wanted + 1e-6).sqrt()).clamp(min=0) ** 2).mean()


# ----------------------------------------------------------------------------
# The comparison.


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def weights_of(module: torch.nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def with_events(windows: Windows) -> None:
    """Put other footage there, in which jumps along one direction are 12 frames apart."""
    random = torch.Generator().manual_seed(8)
    y = torch.randn(600, windows.coordinates.shape[1], generator=random, dtype=torch.float64).cumsum(dim=0) * 0.05
    jumps = torch.arange(20, 590, 12) + torch.randint(4, (48,), generator=random)
    for index, frame in enumerate(jumps.tolist()):
        y[frame:, 1] += 1 if index % 2 else -1
    windows.clips, windows.coordinates = [y], y
    windows.starts = torch.arange(len(y) - windows.span + 1)


def make(
    data: Any, settings: Settings, rank: int = 0, num_ranks: int = 1, *, static: bool | None = None,
    kind: torch.dtype = torch.float64, total_kimg: float = TOTAL_KIMG, full: bool = False,
    change: Callable[[Windows], None] | None = None,
) -> TemporalTrainer:  # fmt: skip
    with LatentDataset(str(data)) as dataset:
        space = fit_latent_space(dataset, LatentSpaceOptions(max_components=3, full=full))
        windows = Windows(dataset, space, WINDOW, strides=settings.strides)
    if change is not None:
        change(windows)
    windows.clips = [clip.to(kind) for clip in windows.clips]
    windows.coordinates = windows.coordinates.to(kind)
    steps = [torch.cat([clip[stride:] - clip[:-stride] for clip in windows.clips]) for stride in windows.strides]
    windows.motion_units = [step.square().mean(dim=0).sqrt() for step in steps]
    return TemporalTrainer(
        G_kwargs={'num_ws': 6, 'w_dim': 8, 'latent_dim': LATENT, 'noise_dim': NOISE, 'hidden_dim': HIDDEN, 'num_cells': CELLS,
                  'initial_widths': [6], 'widening_widths': [7, 5]},
        C_kwargs={'narrowing_widths': [7, 6], 'temporal_channels': [5, 4]},
        space=space, windows=windows, settings=settings, total_kimg=total_kimg, seed=3, rank=rank, num_ranks=num_ranks,
        static=static,
    )  # fmt: skip


def assert_same(reference: Reference, trainer: TemporalTrainer) -> None:
    pairs = {'G': (reference.G, trainer.G), 'G_ema': (reference.average, trainer.G_ema)}
    pairs |= {f'C{index}': (C, trainer.critics[index]) for index, C in enumerate(reference.critics)}
    for name, (wanted, module) in pairs.items():
        for key, value in module.named_parameters():
            torch.testing.assert_close(
                value.detach(), wanted[key].detach(), rtol=1e-6, atol=1e-9, msg=lambda text, at=f'{name}.{key}': f'{at}: {text}'
            )
    for optimizer, adams, modules in (
        (trainer.G_optimizer, [reference.G_adam], [trainer.G]),
        (trainer.C_optimizer, reference.C_adam, list(trainer.critics)),
    ):
        for adam, module in zip(adams, modules, strict=True):
            for key, parameter in module.named_parameters():
                state = optimizer.state[parameter]
                assert int(state['step']) == adam.count
                torch.testing.assert_close(state['exp_avg'], adam.mean[key], rtol=1e-5, atol=1e-9)
                torch.testing.assert_close(state['exp_avg_sq'], adam.square[key], rtol=1e-5, atol=1e-12)


BASE = {
    'batch': 8, 'critic_steps': 2, 'gap_interval': 2, 'gap_batch_shrink': 2, 'chains': 24, 'restart': 0.3, 'burn_in': 4,
    'strides': (1, 3), 'ema_kimg': 0.2, 'ema_rampup': 0.7, 'decay': 0.9, 'generator_lr': 0.01, 'critic_lr': 0.02,
    'diversity': 1.0, 'reversal': 0.25, 'longest_memory': 20.0, 'stride_power': 1.0, 'distortion': 0.4, 'motion_weight': 1.0,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    'everything': {},
    'paper': {'carry': 0.0, 'strides': (1,), 'lambda_diversity': 0.0, 'motion_weight': 0.0, 'reversal': 0.0, 'critic_steps': 3,
              'distortion': 0.0, 'gap_interval': 1, 'gap_batch_shrink': 1, 'longest_memory': 0.0},
    'half of the windows carried': {'carry': 0.5, 'strides': (1,), 'gap_interval': 1},
    'fresh futures': {'carry': 0.0, 'strides': (1,), 'gap_interval': 1, 'lambda_gap': 0.0},
    'no gradient penalty': {'lambda_gp': 0.0},
    'no angle penalty': {'lambda_gap': 0.0, 'gap_interval': 1},
    'no diversity penalty': {'lambda_diversity': 0.0, 'gap_interval': 1},
    'other weights': {'lambda_gp': 3.0, 'lambda_gap': 7.0, 'lambda_diversity': 0.5, 'gap_interval': 3, 'motion_weight': 2.5},
    'no motion': {'motion_weight': 0.0, 'reversal': 1.0},
    'nothing distorted': {'distortion': 0.0},
    'critics weigh the same': {'stride_power': 0.0},
    'wide critics weigh much': {'stride_power': 1.5, 'strides': (1, 2, 3)},
    'constant rates, long average': {'decay': 0.0, 'ema_kimg': 300.0, 'ema_rampup': 3.0, 'beta1': 0.3, 'beta2': 0.99},
    'futures of two windows': {'diversity_windows': 2, 'diversity': 0.5, 'gap_interval': 1, 'lambda_gap': 0.0},
    'chains from the start, none again': {'burn_in': 0, 'restart': 0.0, 'strides': (1,), 'critic_steps': 1},
}  # fmt: skip


WHOLE_CODES: dict[str, dict[str, Any]] = {
    'everything': {},
    'one spacing': {'strides': (1,)},
    'paper': CASES['paper'],
    'no motion': CASES['no motion'],
    'chains that never begin again': {'restart': 0.0, 'critic_steps': 3},
}


@pytest.mark.parametrize('compiled', [True, False], ids=['compiled', 'PyTorch'])
@pytest.mark.parametrize('changes', WHOLE_CODES.values(), ids=WHOLE_CODES)
def test_steps_on_whole_codes_are_the_equations(
    tiny_latents: Any, float64: None, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], compiled: bool
) -> None:
    """In the form for thousands of coordinates, which takes windows apart and keeps the past of chains in rings."""
    monkeypatch.setattr(temporal_trainer, 'WIDE', 1)
    monkeypatch.setattr(critic_gradients, 'WIDE', 1)
    if not compiled:
        monkeypatch.setattr(native_code, 'enabled', False)
    trainer = compare(tiny_latents, monkeypatch, {**changes, 'distortion': 0.0}, full=True)
    assert trainer._whole_codes is not None
    assert trainer.chains is None or isinstance(trainer.chains, WholeCodeChains)


@pytest.mark.parametrize('changes', CASES.values(), ids=CASES)
def test_steps_are_the_equations(
    tiny_latents: Any, float64: None, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    compare(tiny_latents, monkeypatch, changes)


def compare(data: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], full: bool = False) -> TemporalTrainer:
    """Steps of a trainer, each as the equations have it."""
    settings = Settings(**{'carry': 1.0, **BASE, **changes})
    tapes = Tapes(monkeypatch)
    trainer = make(data, settings, full=full)
    tape = tapes.of.setdefault(id(trainer.random), Tape())
    reference = Reference(
        settings, trainer.windows.clips, list(trainer.windows.strides), settings.reversal or 0.0, weights_of(trainer.G),
        [weights_of(C) for C in trainer.critics], [tape],
    )  # fmt: skip
    assert len(reference.strides) == len(settings.strides)
    penalised = reference.wanted()
    assert penalised > 0
    for _ in range(3):  # so that the rates fall, penalties come back, and chains have moved on
        trainer.step()
        reference.step()
        assert not tape.drawn, 'the trainer drew more than the equations need'
        assert_same(reference, trainer)
        if trainer.chains is not None:
            torch.testing.assert_close(trainer.chains.past, reference.ranks[0].past)
    return trainer


def test_events_are_kept_apart_as_the_equations_say(tiny_latents: Any, float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator begins with motion that is fast enough to be events; each step has what the critics say, and the penalty."""
    settings = Settings(**{'carry': 1.0, **BASE, 'distortion': 0.0, 'lambda_events': 50.0})
    tapes = Tapes(monkeypatch)
    trainer = make(tiny_latents, settings, change=with_events)
    assert trainer.events is not None
    tape = tapes.of.setdefault(id(trainer.random), Tape())
    reference = Reference(
        settings, trainer.windows.clips, list(trainer.windows.strides), settings.reversal or 0.0, weights_of(trainer.G),
        [weights_of(C) for C in trainer.critics], [tape], trainer.events,
    )  # fmt: skip
    for weight in (trainer.G.A.weight, trainer.G_ema.A.weight, reference.G['A.weight']):
        weight.data.mul_(100)
    reference.average = dict(reference.G)
    with torch.no_grad():
        assert float(reference.event_penalty(trainer._generate(settings.batch)[0])) > 0.01
    tape.drawn.clear()
    for _ in range(3):
        trainer.step()
        reference.step()
        assert not tape.drawn
        assert_same(reference, trainer)


def test_short_trainings_keep_events_apart_with_less_weight(tiny_latents: Any) -> None:
    step = BASE['batch'] * BASE['critic_steps'] * WINDOW / 1000  # kimg
    for steps, given, wanted in ((8000, None, 40), (4000, None, 40), (2000, None, 10), (1000, None, 2.5), (1000, 7.0, 7.0)):
        settings = Settings(**{**BASE, 'carry': 1.0, 'distortion': 0.0, 'lambda_events': given})
        assert math.isclose(make(tiny_latents, settings, total_kimg=steps * step).lambda_events, wanted)


class TwoRanks:
    """Stands for torch.distributed between two threads, one a rank."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.barrier = threading.Barrier(2, timeout=600)
        self.handed: dict[int, torch.Tensor] = {}
        self.own = threading.local()
        patch.setattr(torch.distributed, 'all_reduce', self.all_reduce)
        patch.setattr(torch.distributed, 'all_gather', self.all_gather)

    def exchange(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        self.handed[self.own.rank] = tensor.clone()
        self.barrier.wait()
        values = [self.handed[0], self.handed[1]]
        self.barrier.wait()
        return values

    def all_reduce(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        tensor.copy_(sum(self.exchange(tensor)))

    def all_gather(self, parts: list[torch.Tensor], tensor: torch.Tensor) -> None:
        for part, value in zip(parts, self.exchange(tensor), strict=True):
            part.copy_(value)

    def step(self, trainers: list[TemporalTrainer], count: int = 1) -> None:
        failures: list[BaseException] = []
        kind = torch.get_default_dtype()

        def work(trainer: TemporalTrainer) -> None:
            try:
                torch.set_default_dtype(kind)
                self.own.rank = trainer.rank
                for _ in range(count):
                    trainer.step()
            except BaseException as error:  # noqa: BLE001 - told in the main thread
                failures.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=work, args=(trainer,)) for trainer in trainers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]


OF_RANKS = {
    'everything': {'gap_interval': 1},
    'paper': CASES['paper'],
    'half of the windows carried': CASES['half of the windows carried'],
    'penalties that two cannot share': {'gap_interval': 1, 'gap_batch_shrink': 8},
}


@pytest.mark.parametrize('changes', OF_RANKS.values(), ids=OF_RANKS)
def test_two_ranks_are_one_with_the_whole_batch(
    tiny_latents: Any, float64: None, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Gradients of all penalties among them: the same equations, the same random numbers, the same chains."""
    settings = Settings(**{'carry': 1.0, **BASE, **changes})
    tapes, ranks = Tapes(monkeypatch), TwoRanks(monkeypatch)
    trainers = [make(tiny_latents, settings, rank, 2) for rank in range(2)]
    assert trainers[0].frames_per_step == make(tiny_latents, settings).frames_per_step
    tape, other = (tapes.of.setdefault(id(trainer.random), Tape()) for trainer in trainers)
    reference = Reference(
        settings, trainers[0].windows.clips, list(trainers[0].windows.strides), settings.reversal or 0.0,
        weights_of(trainers[0].G), [weights_of(C) for C in trainers[0].critics], [tape],
    )  # fmt: skip
    for _ in range(2):
        ranks.step(trainers)
        reference.step()
        assert not tape.drawn
        assert torch.equal(trainers[0].random.get_state(), trainers[1].random.get_state())
        for trainer in trainers:
            assert_same(reference, trainer)
    assert other.drawn


def tensors_of(trainer: TemporalTrainer) -> list[torch.Tensor]:
    """All that a step changes."""
    states = [*trainer.G_optimizer.state.values(), *trainer.C_optimizer.state.values()]
    chains = [] if trainer.chains is None else [*trainer.chains.memories, trainer.chains.past]
    modules = (trainer.G, trainer.critics, trainer.G_ema)
    parameters = [parameter.detach() for module in modules for parameter in module.parameters()]
    return [*parameters, *(state[key] for state in states for key in ('exp_avg', 'exp_avg_sq')), *chains]


@pytest.mark.parametrize(('changes', 'static'), [*((changes, False) for changes in OF_RANKS.values()), ({}, True)])
def test_portions_of_one_size_are_the_same_to_the_bit_on_two_ranks(
    tiny_latents: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], static: bool
) -> None:
    """And the same as the whole batch, up to rounding: in float64 that is nearly nothing."""
    settings = Settings(**{'carry': 1.0, **BASE, **changes, 'batch_gpu': 2})
    ranks = TwoRanks(monkeypatch)
    alone = make(tiny_latents, settings, static=static, kind=torch.float32)
    trainers = [make(tiny_latents, settings, rank, 2, static=static, kind=torch.float32) for rank in range(2)]
    ranks.step(trainers, 12)
    for _ in range(12):
        alone.step()
    for trainer in trainers:
        assert all(torch.equal(*pair) for pair in zip(tensors_of(alone), tensors_of(trainer), strict=True))
        assert torch.equal(trainer.random.get_state(), alone.random.get_state())
    torch.set_default_dtype(torch.float64)
    try:
        whole = make(tiny_latents, dataclasses.replace(settings, batch_gpu=None), static=static)
        portions = make(tiny_latents, settings, static=static)
        for _ in range(3):
            whole.step()
            portions.step()
    finally:
        torch.set_default_dtype(torch.float32)
    for pair in zip(tensors_of(whole), tensors_of(portions), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-7, atol=1e-10)


def test_portions_that_ranks_cannot_share(tiny_latents: Any) -> None:
    with pytest.raises(ValueError, match='a batch of 8 cannot be shared evenly by 2 ranks in portions of 8'):
        make(tiny_latents, Settings(**{**BASE, 'batch_gpu': 8}), 0, 2)


@pytest.mark.parametrize(('static', 'kind', 'tolerance'), [(False, torch.float32, 1e-5), (True, torch.float64, 1e-12)])
def test_fifty_steps_on_two_ranks(
    tiny_latents: Any, monkeypatch: pytest.MonkeyPatch, static: bool, kind: torch.dtype, tolerance: float
) -> None:
    """Equal but for what becomes of rounding, at the default rates; with all sizes known beforehand (as on GPUs) and without.

    What rounding alone does to a training is seen on one rank that adds up in another order, its batch in two portions.
    """
    settings = Settings(**{'carry': 1.0, **BASE, 'generator_lr': 3e-3, 'critic_lr': 6e-3})
    portions = dataclasses.replace(settings, batch_gpu=settings.batch // 2)
    ranks = TwoRanks(monkeypatch)
    torch.set_default_dtype(kind)
    try:
        begin, alone, other_order = (
            make(tiny_latents, each, static=static, kind=kind, total_kimg=1e3) for each in (settings, settings, portions)
        )
        trainers = [make(tiny_latents, settings, rank, 2, static=static, kind=kind, total_kimg=1e3) for rank in range(2)]
        ranks.step(trainers, 50)
        for _ in range(50):
            alone.step()
            other_order.step()
    finally:
        torch.set_default_dtype(torch.float32)

    def flat(trainer: TemporalTrainer) -> torch.Tensor:
        modules = (trainer.G, trainer.critics)
        return torch.cat([p.detach().double().flatten() for module in modules for p in module.parameters()])

    way = flat(alone) - flat(begin)
    rounding = float((flat(other_order) - flat(alone)).norm() / way.norm())
    assert 0 < rounding < tolerance
    for trainer in trainers:
        assert float((flat(trainer) - flat(alone)).norm() / way.norm()) < 3 * rounding
        assert torch.equal(trainer.random.get_state(), alone.random.get_state())
