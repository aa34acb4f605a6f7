"""One training step of the temporal GAN on one thread: out of autograd's operations, and out of the blocks made for it.

    python benchmarks/training_step.py --codes=10x128 --components=16
    python benchmarks/training_step.py --codes=10x128 --components=0 --beside=16

Both forms do the same: a rollout without gradient for the critic's windows, two updates of the critic with gradient penalty, one
of the generator, and every fourth step its angle and diversity penalties. The plain form is written from the definitions in
`networks/` and `training/temporal_loss.py`; the fast one calls `critic_gradients.py`, `fast_rollout.py` and `fast_decoder.py`
of `training/kernels/`. They take turns within one process. Windows are stretches of a random walk: what they hold does not change
the time, but with whole codes it counts how often they overlap, so that `--frames` is the length of the footage. With `--beside`
the fast form of another number of coordinates takes the place of the plain one. The allocator has the commands' settings.
"""

import functools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training.commands.command_line import prepare_process  # noqa: E402

prepare_process()  # as every command does, before PyTorch is imported

import torch  # noqa: E402

from networks.latent_generator import LatentGenerator, State  # noqa: E402
from networks.temporal_critic import TemporalCritic  # noqa: E402
from training.kernels import native_code  # noqa: E402
from training.kernels.critic.critic_gradients import WIDE, critic_gradients, critic_scores  # noqa: E402
from training.kernels.critic.wide_windows import Chosen, Factored, WithMotion  # noqa: E402
from training.kernels.fast_decoder import coordinates, widened  # noqa: E402
from training.kernels.recurrence.fast_rollout import rollout  # noqa: E402
from training.temporal_loss import diversity_penalty, first_of_ends, gradient_angle_penalty, gradient_penalty  # noqa: E402

BATCH, FRAMES, CRITIC_STEPS, PENALTY_BATCH, INTERVAL = 64, 25, 2, 16, 4
LAMBDA_GP, LAMBDA_PENALTIES = 10.0, 12.0


class Step:
    """Networks, optimisers and random state of one form; both begin alike and draw alike.

    Args:
        codes: Style layers and size of a style vector.
        components: Coordinates of the space; 0 = all numbers of a code.
        fast: Which form.
        footage: Frames of it.
    """

    def __init__(self, codes: tuple[int, int], components: int, fast: bool, footage: int = 1500) -> None:
        torch.manual_seed(0)
        self.fast = fast
        self.G = LatentGenerator(*codes, num_components=components)
        self.size = components or codes[0] * codes[1]
        self.C = TemporalCritic(2 * self.size, num_frames=FRAMES)
        self.average = LatentGenerator(*codes, num_components=components).requires_grad_(False)
        self.C_optimizer, self.G_optimizer = (
            torch.optim.Adam(module.parameters(), lr=1e-3, betas=(0.5, 0.9), fused=fast) for module in (self.C, self.G)
        )
        self.unit = torch.full((self.size,), 3.0)
        self.real = torch.randn(footage, self.size).cumsum(dim=0) / footage**0.5

    def rollout(self, count: int, state: State | None = None, s: torch.Tensor | None = None) -> torch.Tensor:
        s = torch.randn(count, FRAMES - 1, self.G.noise_dim) if s is None else s
        state = self.G.initial_state(torch.randn(count, self.G.latent_dim)) if state is None else state
        return rollout(self.G, s, state)[0] if self.fast else self.G.rollout(s, state)[0]

    def coordinates(self, l: torch.Tensor) -> torch.Tensor:
        return coordinates(self.G, l) if self.fast else self.G.coordinates(l)

    def view(self, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([y, torch.nn.functional.pad(torch.diff(y, dim=1) * 3, (0, 0, 1, 0))], dim=2)

    def generated(self, count: int) -> Any:
        """Windows for the critic."""
        l = self.rollout(count)
        if not (self.fast and self.C.num_features >= WIDE):
            return self.view(self.coordinates(l))
        return WithMotion(Factored(widened(self.G, l), self.G.A.weight, self.G.A.bias), self.unit)

    def real_windows(self) -> Any:
        frames = torch.randint(len(self.real) - FRAMES + 1, (BATCH, 1)) + torch.arange(FRAMES)
        if self.fast and self.C.num_features >= WIDE:
            return WithMotion(Chosen(self.real, frames), self.unit)
        return self.view(self.real[frames])

    def update_critic(self) -> None:
        with torch.no_grad():
            generated = self.generated(CRITIC_STEPS * BATCH)
        for begin in range(0, CRITIC_STEPS * BATCH, BATCH):
            fake, real = generated[begin : begin + BATCH], self.real_windows()
            mix = torch.rand(BATCH)
            if self.fast:
                critic_gradients(self.C, real, fake, mix, LAMBDA_GP)
            else:
                scores_real, scores_fake = self.C(torch.cat([real, fake])).split(BATCH)
                penalty = gradient_penalty(self.C, real, fake, mix)
                loss = scores_fake.mean() - scores_real.mean() + LAMBDA_GP * penalty.mean()
                self.C_optimizer.zero_grad(set_to_none=True)
                loss.backward()
            self.C_optimizer.step()

    def update_generator(self, penalties: bool) -> None:
        self.C.requires_grad_(self.fast)  # the closed form does not ask
        x = self.generated(BATCH)
        loss = -(critic_scores(self.C, x) if self.fast else self.C(x)).mean()
        if penalties:
            for _ in range(2):  # fresh windows and carried ones
                i = torch.randn(PENALTY_BATCH, self.G.latent_dim).requires_grad_(True)
                s = torch.randn(PENALTY_BATCH, FRAMES - 1, self.G.noise_dim).requires_grad_(True)
                l = self.rollout(PENALTY_BATCH, self.G.initial_state(i), s)
                loss = loss + LAMBDA_PENALTIES / 2 * gradient_angle_penalty(l, (i,), s)[0].mean()
            state = self.G.initial_state(torch.randn(PENALTY_BATCH, self.G.latent_dim))
            twice = tuple(torch.cat([h, h]) for h in state)
            l = self.rollout(2 * PENALTY_BATCH, twice)
            l = l[:, first_of_ends(FRAMES) :] if self.fast else l
            maps = self.G.A.weight if self.fast and self.C.num_features >= WIDE else None
            y, other = (self.coordinates(l) if maps is None else widened(self.G, l)).split(PENALTY_BATCH)
            loss = loss + LAMBDA_PENALTIES * diversity_penalty(y, other, 1.0, only_ends=self.fast, maps=maps)[0].mean()
        self.G_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.G_optimizer.step()
        self.C.requires_grad_(True)

    @torch.no_grad()
    def update_average(self) -> None:
        if self.fast:
            torch._foreach_lerp_(list(self.average.parameters()), list(self.G.parameters()), 0.01)
        else:
            for average, current in zip(self.average.parameters(), self.G.parameters(), strict=True):
                average.lerp_(current, 0.01)

    def run(self, number: int, penalties: bool) -> None:
        torch.manual_seed(number)
        self.update_critic()
        self.update_generator(penalties)
        self.update_average()


def interleaved(forms: Sequence[Callable[[int], None]], rounds: int) -> list[list[float]]:
    """Milliseconds of processor time of each form, one after the other in every round; the first round is not counted."""
    times: list[list[float]] = [[] for _ in forms]
    for number in range(rounds + 1):
        for form, values in zip(forms, times, strict=True):
            start = time.process_time_ns()
            form(number)
            if number:
                values.append((time.process_time_ns() - start) / 1e6)
    return times


@click.command()
@click.option('--codes', help='Layers x numbers of a code', metavar='LxW', default='10x128', show_default=True)
@click.option('--components', help='Coordinates, 0 = the whole codes', type=click.IntRange(0), default=16, show_default=True)
@click.option('--beside', help='Other number of coordinates', metavar='INT', type=click.IntRange(0))
@click.option('--frames', help='Frames of footage', type=click.IntRange(2 * FRAMES), default=1500, show_default=True)
@click.option('--rounds', help='Steps of each form', metavar='INT', type=click.IntRange(3), default=24, show_default=True)
def main(codes: str, components: int, beside: int | None, frames: int, rounds: int) -> None:
    """Print processor time of a step (median, smallest to largest) in both forms, and how far apart they end."""
    torch.set_num_threads(1)
    num_ws, w_dim = map(int, codes.split('x'))
    first = Step((num_ws, w_dim), components if beside is None else beside, beside is not None, frames)
    forms = [first, Step((num_ws, w_dim), components, True, frames)]
    compiled = native_code.load('temporal_kernels') is not None
    print(f'{codes}, {components or "all"} coordinates, batch {BATCH}, {FRAMES} frames, {CRITIC_STEPS} critic steps, one thread,')
    print(f'torch {torch.__version__}, compiled blocks: {"yes" if compiled else "no"}, {rounds} rounds, processor time in ms\n')
    names = ('plain', 'fast') if beside is None else (f'fast, {beside or "all"} coordinates', 'fast')
    print(f'| step | {names[0]} | {names[1]} | {"plain to fast" if beside is None else "fast to the other"} |')
    print('|---|---|---|---|')
    medians: list[tuple[float, ...]] = []

    def ratio(other: float, fast: float) -> float:
        return other / fast if beside is None else fast / other

    for penalties in (False, True):
        steps = [functools.partial(form.run, penalties=penalties) for form in forms]
        times = interleaved(steps, rounds)
        medians.append(tuple(map(statistics.median, times)))
        cells = [f'{statistics.median(each):.1f} ({min(each):.1f}..{max(each):.1f})' for each in times]
        print(f'| {"with" if penalties else "without"} penalties | {cells[0]} | {cells[1]} | {ratio(*medians[-1]):.2f} |')
    plain, fast = (((INTERVAL - 1) * without + with_) / INTERVAL for without, with_ in zip(*medians, strict=True))
    print(f'| mean, every {INTERVAL}th with penalties | {plain:.1f} | {fast:.1f} | {ratio(plain, fast):.2f} |')
    if beside is not None:
        return
    apart = max(
        float((a - b).detach().abs().max()) for a, b in zip(forms[0].G.parameters(), forms[1].G.parameters(), strict=True)
    )
    print(f'\nLargest difference of a parameter of G after {2 * (rounds + 1)} steps of each: {apart:.1e}')


if __name__ == '__main__':
    main()
