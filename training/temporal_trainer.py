"""One step of the temporal GAN, with all the state that it needs to go on.

A step is `critic_steps` updates of the critic, one of the generator, one of its moving average. What goes beyond the paper
(docs/choices.md says why, and what it is worth):

- Generated windows continue **chains** (`carry`): `chains` videos that live from step to step, each a state of the memories and
  the last coordinates. The paper's training sees the first t frames after a fresh i and nothing else; a video is what comes long
  after. After every step a share `restart` of the chains that moved starts over from a fresh i, and lives for `burn_in` frames
  before the critic sees it. So the critic judges the frames that a user gets, at every age, and no others.
- There is a critic for each of **several spacings** (`strides`, Windows.views). It sees t frames that far apart; the views of all
  critics end at the same frame. The older frames come from the chain's past, where no gradient goes; the newest lie in the
  present window, and get one. That is one in `stride` of the t frames that a critic sees, so its score is weighted with
  stride^`stride_power`; otherwise the critics of slow motion are hardly heard.
- The memories begin with **time constants** of 1 to `longest_memory` frames (`prepare_memories`), because a gate that forgets
  in two frames has to travel far to become one that remembers for two seconds.
- The critic sees the motion between frames on its own (`motion_weight`), and two windows that continue the same memories have to
  part (`lambda_diversity`, temporal_loss.diversity_penalty).
- Seconds of footage are seen through random affine maps, and generated windows as well (`distortion`, real_windows.Distortion).
- Events such as blinks may not follow each other at delays that the footage rules out (`lambda_events`,
  events/timing.py).

Gradients stay inside of a window.

All ranks keep all chains. What the chains go on from is collected from all ranks, so a step is the same, up to rounding, on any
number of them, and in portions of a fixed size (`batch_gpu`) to the last bit (training/batches/portions.py).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from networks.latent_generator import LatentGenerator, State
from networks.temporal_critic import TemporalCritic
from torch_utils import training_stats
from training.batches.portions import JoinedStates, Portions
from training.batches.video_chains import VideoChains, permutation
from training.batches.whole_codes import Generated, WholeCodeChains, WholeCodes
from training.events.timing import EventTiming, suited_weight
from training.kept_averages import KeptAverages
from training.kernels.critic.critic_gradients import WIDE, critic_gradients, critic_scores, workspaces
from training.kernels.critic.wide_products import gram
from training.kernels.critic.wide_windows import Factored
from training.kernels.critic.wide_windows import Windows as WideWindows
from training.kernels.fast_decoder import coordinates, widened
from training.kernels.recorded_adam import load_state, make_adam, portable_state, set_rate
from training.kernels.recurrence.fast_rollout import rollout
from training.kernels.step_graphs import StepGraphs
from training.latent_space import LatentSpace
from training.real_windows import Distortion, Windows
from training.runs.saving import is_finite
from training.runs.weight_average import decay_of, update_average
from training.stationarity import finish, observe
from training.temporal_loss import divergence, diversity_penalty, first_of_ends, gradient_angle_penalty
from training.temporal_options import Settings

SCALE_OF_H = 0.25  # of the He initialisation of its last layer


def critic_weights(strides: Sequence[int], power: float) -> list[float]:
    """What the score of each critic counts in the generator's loss: stride^power, with a mean of 1.

    The last t frames are generated with a gradient, and a critic sees one in `stride` of them, so the gradient that it sends is
    that much smaller (power 1). A mean of 1 leaves the penalties their share.
    """
    weights = [stride**power for stride in strides]
    return [weight * len(weights) / sum(weights) for weight in weights]


def prepare_memories(G: LatentGenerator, longest: float) -> None:
    """Give the memories of all GRU cells time constants of 1 to `longest` frames, evenly spread in their logarithm.

    H begins small, so that the memories of a fresh video are no larger than those that the gates make. A memory h' = (1 - z) n +
    z h with z = sigmoid(b) lasts about 1 / (1 - z) = 1 + e^b frames, so b ~ U(0, ln longest) (chrono initialisation, Tallec and
    Ollivier, "Can recurrent neural networks warp time?", ICLR 2018, eq. 16).
    """
    with torch.no_grad():
        last = [layer for layer in G.H if isinstance(layer, torch.nn.Linear)][-1]
        last.weight *= SCALE_OF_H
        for cell in G.cells:
            update = slice(cell.hidden_size, 2 * cell.hidden_size)
            cell.bias_ih[update] += torch.rand(cell.hidden_size) * math.log(longest)
            cell.bias_hh[update] = 0


class TemporalTrainer:
    """Networks, optimisers, chains and random state, the same on every rank.

    Args:
        G_kwargs: Construction arguments of the latent generator, but for num_components.
        C_kwargs: Construction arguments of the critic, but for num_features and num_frames.
        space: Coordinates that both work on.
        windows: Real windows, with the spacings that the critic looks at.
        settings: See there; what is None there is what suits the footage (Windows.suited).
        total_kimg: Length of the whole training, for the learning rate.
        seed: Random seed; steps on one device are reproducible.
        rank, num_ranks: Of `torch.distributed`, when it runs; `num_ranks` divides the batch.
        device: Of networks and windows.
        static: Whether a step never fetches a number from the device; None: on GPUs. The random numbers are others.
        graphs: Whether a step on a GPU becomes CUDA graphs (training/kernels/step_graphs.py), where there is one rank.

    Attributes:
        G, G_ema: Latent generator and its moving average.
        critics: The critic of each spacing, the smallest first.
        chains: Videos that generated windows continue; None where `carry` is 0 (the paper).
        num_steps: Steps so far.
        averages: Moving averages of earlier steps, and which one `finished` took.
        events: Keeps events apart, where that is asked for and the footage does.
    """

    def __init__(
        self,
        *,
        G_kwargs: dict[str, Any],
        C_kwargs: dict[str, Any],
        space: LatentSpace,
        windows: Windows,
        settings: Settings,
        total_kimg: float,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        device: torch.device | str = 'cpu',
        static: bool | None = None,
        graphs: bool = True,
    ) -> None:
        self.settings = settings
        self.windows = windows
        self._G_kwargs = G_kwargs
        self.total_kimg = total_kimg
        self.device = torch.device(device)
        if settings.distortion and space.basis is None:
            raise ValueError('whole codes cannot be distorted')
        self.rank, self.num_ranks = rank, num_ranks
        self.batch = settings.batch
        self.random = torch.Generator(self.device).manual_seed(seed)
        self.portions = Portions(settings.batch, settings.batch_gpu, rank, num_ranks, self.random)
        self.reversal = windows.suited.reversal if settings.reversal is None else settings.reversal
        distortion = windows.suited.distortion if settings.distortion is None else settings.distortion
        self._distort = Distortion(windows.coordinates, distortion)
        self.critic_steps = windows.suited.critic_steps if settings.critic_steps is None else settings.critic_steps
        updates = total_kimg * 1000 / self.frames_per_step
        self.lambda_events = suited_weight(updates) if settings.lambda_events is None else settings.lambda_events
        self.events: EventTiming | None = None
        # A beginning has no past, and moments of whole codes cost too much.
        if self.lambda_events > 0 and settings.carry == 1 and space.basis is not None:
            events = EventTiming(windows.clips, windows.num_frames, windows.past_frames)
            self.events = events if events else None
        self.motion_weight = windows.suited.motion_weight if settings.motion_weight is None else settings.motion_weight
        num_features = windows.num_features(self.motion_weight)
        with torch.random.fork_rng(devices=[]):  # the same initial networks on every rank, whatever was drawn before
            torch.manual_seed(seed)
            self.G = LatentGenerator(num_components=0 if space.basis is None else len(space.basis), **G_kwargs)
            self.critics = torch.nn.ModuleList(
                TemporalCritic(num_features=num_features, num_frames=windows.num_frames, **C_kwargs) for _ in windows.strides
            )
            self.G_ema = LatentGenerator(num_components=self.G.num_components, **G_kwargs)
            if settings.longest_memory > 0:
                prepare_memories(self.G, settings.longest_memory)
        self.G.set_data_basis(space.mean, space.basis, space.scale)
        self.G_ema.load_state_dict(self.G.state_dict())
        self.G_ema.requires_grad_(False).eval()
        for module in (self.G, self.critics, self.G_ema):
            module.to(self.device)
        on_gpu = self.device.type == 'cuda'
        self._static = on_gpu if static is None else static
        self._records = on_gpu and graphs and self.portions.number == 1
        self._whole_codes: WholeCodes | None = None
        # Where no number may be fetched from the device, a past is kept as a whole.
        if space.basis is None and num_features >= WIDE and not (self._static and windows.past_frames > 0):
            units = [self.motion_weight / unit for unit in windows.motion_units] if self.motion_weight > 0 else []
            self._whole_codes = WholeCodes(windows.num_frames, windows.strides, units)
        betas = (settings.beta1, settings.beta2)
        self.G_optimizer = make_adam(self.G, settings.generator_lr, betas, self.device, self._records)
        self.C_optimizer = make_adam(self.critics, settings.critic_lr, betas, self.device, self._records)
        self._future_frames = settings.diversity_windows * windows.num_frames
        # How far two futures of one moment have to be apart, squared; 0: the footage never changes so much.
        self._parting = settings.diversity * divergence(windows.squared_step(self._future_frames - 1))
        power = windows.suited.stride_power if settings.stride_power is None else settings.stride_power
        self._critic_weights = critic_weights(windows.strides, power)
        self.num_steps = 0
        self.averages = KeptAverages(updates)
        self.chains: VideoChains | None = None
        if settings.carry > 0:
            kind = VideoChains if self._whole_codes is None else WholeCodeChains
            self.chains = kind(self.G, settings.chains, windows.past_frames, settings.burn_in, self.random, self._static)
        self.graphs: StepGraphs | None = None
        if self._records:
            self.graphs = StepGraphs(self.device, self.random, self._changing, self._buffers)

    # Units. An image in NVIDIA's tick line is a frame here: one that the critic was shown, real ones counted.

    @property
    def frames_per_step(self) -> int:
        """Real frames that the critic is shown in one step, over all ranks; views at other spacings do not count again."""
        return self.batch * self.critic_steps * self.windows.num_frames

    @property
    def num_frames_shown(self) -> int:
        """Frames shown so far."""
        return self.num_steps * self.frames_per_step

    # Noise and rollouts.

    def _randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.random, device=self.device)

    def _noise(self, count: int) -> torch.Tensor:
        return self._randn(count, self.windows.num_frames - 1, self.G.noise_dim)

    def _views(self, y: torch.Tensor | Generated, count: int, part: slice) -> Sequence[torch.Tensor | WideWindows]:
        """What the critics see of the windows y, the rows `part` of `count`."""
        if isinstance(y, Generated):
            assert self._whole_codes is not None
            return self._whole_codes.generated(y)
        return self.windows.views(self._distort(y, count, part, self.random), self.motion_weight)

    def _real_views(self, part: slice) -> Sequence[torch.Tensor | WideWindows]:
        """What the critics see of the rows `part` of real windows, which are drawn for the whole batch."""
        frames = self.windows.sample_frames(self.batch, self.random, self.reversal)[part]
        if self._whole_codes is not None:
            return self._whole_codes.real(self.windows.coordinates, frames)
        return self._views(self.windows.coordinates[frames], self.batch, part)

    def _generate(self, count: int, gather: bool = False) -> tuple[torch.Tensor | Generated, Sequence[State], torch.Tensor]:
        """Roll out `count` windows: a share `carry` continues chains, the others begin at a fresh i and come first.

        Args:
            count: Of all ranks.
            gather: Collect the windows of all ranks.

        Returns:
            Coordinates [count, past_frames + t, K] with the past of the chains before each window, and the t states, both of the
            present portion's rows; with `gather` the first of all rows, the second of this rank's; the chains [count] of all.
        """
        parts = self.portions.parts(count) if gather else [self.portions.part(count)]
        num_carried = 0 if self.chains is None else round(count * self.settings.carry)
        state = self.G.initial_state(self._randn(count - num_carried, self.G.latent_dim))
        chosen = torch.zeros(0, dtype=torch.long, device=self.device)
        if self.chains is not None:
            chosen = self.chains.draw(num_carried)
            state = tuple(torch.cat(pair) for pair in zip(state, self.chains.states(chosen), strict=True))
        noise = self._noise(count)
        rolled = [rollout(self.G, noise[part], tuple(h[part] for h in state)) for part in parts]
        states = rolled[0][1] if len(rolled) == 1 else JoinedStates([each for _, each in rolled])
        part = slice(0, count) if gather else parts[0]
        if self._whole_codes is not None:
            t = torch.cat([widened(self.G, l) for l, _ in rolled])
            window = Factored(self.portions.gather(t) if gather else t, self.G.A.weight, self.G.A.bias)
            before = []
            if isinstance(self.chains, WholeCodeChains) and self.chains.past_frames > 0:
                before = self._whole_codes.before(self.chains, chosen[part])
            return Generated(window, before), states, chosen
        y = torch.cat([coordinates(self.G, l) for l, _ in rolled])
        y = self.portions.gather(y) if gather else y
        if self.chains is not None and self.chains.past_frames > 0:  # then every window has a past (Windows, carry = 1)
            y = self.chains.with_past(chosen[part], y)
        return y, states, chosen

    def _advance_chains(self, y: torch.Tensor | Generated, states: Sequence[State], chosen: torch.Tensor) -> None:
        """Move the chains on to one random time in the second half of their windows, and restart some.

        A random time, because the critic would otherwise never see a window across the seam of two windows.
        """
        if self.chains is None:
            return
        length, fresh = len(states), len(y) - len(chosen)
        if self._static:
            if isinstance(y, Generated):  # no past is kept
                y = y.window.t.new_zeros(()).expand(y.window.shape)
            index = torch.randint(length - length // 2, (1,), generator=self.random, device=self.device)
            late = zip(*(states[k] for k in range(length // 2, length)), strict=True)
            memories, place = tuple(torch.stack(column) for column in late), index
            if self.num_ranks > 1:
                chosen_ones = tuple(h.index_select(0, index).squeeze(0) for h in memories)
                memories, place = tuple(h.unsqueeze(0) for h in self.portions.gather_state(chosen_ones)), torch.zeros_like(index)
            when = torch.cat([place, index + length // 2])
            carried = tuple(h[:, fresh:] for h in memories)
            self.chains.advance_and_restart(self.G, chosen, carried, y[fresh:], when, self.settings.restart)
            return
        time = int(torch.randint(length // 2, length, (1,), generator=self.random, device=self.device))
        past = self.chains.past_frames
        if isinstance(y, Generated):
            frames = y.window[fresh:, : time if past > 0 else 0].dense()
        else:
            frames = y[fresh:, past : past + time]
        self.chains.advance(chosen, tuple(h[fresh:].detach() for h in self.portions.gather_state(states[time])), frames)
        lucky = torch.rand(len(chosen), generator=self.random, device=self.device) < self.settings.restart
        if lucky.any():
            self.chains.restart(self.G, chosen[lucky])

    # The updates.

    def step(self) -> None:
        """Critic, generator and moving average, once; progress and losses go to training_stats."""
        penalties = self.num_steps % self.settings.gap_interval == 0
        with contextlib.nullcontext() if self.graphs is None else self.graphs.step():
            self._set_learning_rates()
            self._run('critic', self._update_critic)
            self._run(f'generator{" with penalties" if penalties else ""}', lambda: self._update_generator(penalties))
            self.num_steps += 1
            self._update_average()

    def _run(self, name: str, phase: Callable[[], None]) -> None:
        if self.graphs is None:
            phase()
        else:
            self.graphs.run(name, phase)

    def _report(self, name: str, value: torch.Tensor) -> None:
        if self.graphs is None:
            training_stats.report(name, value)
        else:
            self.graphs.report(name, value)

    def _update_critic(self) -> None:
        settings, batch = self.settings, self.batch
        with torch.no_grad():  # one rollout serves all critic updates, because the generator stays the same
            count = batch * self.critic_steps
            y, states, chosen = self._generate(count, gather=True)
            self._advance_chains(y, states, chosen)
            # Fresh and carried windows lie one after the other; shuffled, every update sees both.
            order = permutation(count, self.random, self._static)
            generated = self._views(y, count, slice(count))

        def compute(rows: torch.Tensor) -> None:
            part = self.portions.part(batch)
            shown = self._real_views(part)
            mix = torch.rand(batch, generator=self.random, device=self.device)[part]
            for C, stride, real, fakes in zip(self.critics, self.windows.strides, shown, generated, strict=True):
                own = fakes[rows[part]]
                scores_real, scores_fake, penalty = critic_gradients(C, real, own, mix, settings.lambda_gp)
                self._report_critic(stride, scores_real, scores_fake, penalty)

        for rows in order.view(self.critic_steps, batch):
            self.portions.average_gradients(self.critics, functools.partial(compute, rows))
            self.C_optimizer.step()

    def _report_critic(self, stride: int, real: torch.Tensor, fake: torch.Tensor, penalty: torch.Tensor) -> None:
        place = '' if stride == self.windows.strides[0] else f'_spacing{stride}'
        wasserstein = real.mean() - fake.mean()
        self._report(f'Loss/scores{place}/real', real)
        self._report(f'Loss/scores{place}/fake', fake)
        self._report(f'Loss/C{place}/wasserstein', wasserstein)
        self._report(f'Loss/C{place}/gradient_penalty', penalty)
        self._report(f'Loss/C{place}/loss', self.settings.lambda_gp * penalty.mean() - wasserstein)

    def _update_generator(self, penalties: bool) -> None:
        self.portions.average_gradients(self.G, lambda: self._generator_gradient(penalties))
        self.G_optimizer.step()

    def _generator_gradient(self, penalties: bool) -> None:
        settings = self.settings
        y, _, _ = self._generate(self.batch)
        views = self._views(y, self.batch, self.portions.part(self.batch))
        scores = [
            weight * critic_scores(C, view).mean()
            for C, weight, view in zip(self.critics, self._critic_weights, views, strict=True)
        ]
        loss = -torch.stack(scores).sum()
        self._report('Loss/G/loss', loss)
        if self.events is not None:
            assert isinstance(y, torch.Tensor)
            penalty = self.events.penalty(y)
            loss = loss + self.lambda_events * penalty.mean()
            self._report('Loss/G/events_penalty', penalty)
        if penalties:
            count = max(1, self.batch // settings.gap_batch_shrink)
            if settings.lambda_gap > 0:
                loss = loss + settings.lambda_gap * settings.gap_interval * self._angle_penalty(count)
            if settings.lambda_diversity > 0 and self._parting > 0:
                loss = loss + settings.lambda_diversity * settings.gap_interval * self._diversity_penalty(count)
        self.G_optimizer.zero_grad(set_to_none=True)
        loss.backward()

    def _angle_penalty(self, count: int) -> torch.Tensor:
        """L_GAP of `count` windows that begin at i, of as many that continue chains, or of both in the shares of `carry`."""
        part = self.portions.part(count)

        def measure(name: str, first: State, state: State) -> torch.Tensor:
            s = self._noise(count)[part].requires_grad_(True)
            penalty, phi = gradient_angle_penalty(rollout(self.G, s, state)[0], first, s)
            self._report(f'Loss/G/{name}_penalty', penalty)
            self._report(f'Loss/G/{name}', phi)
            return penalty.mean()

        parts = []
        if self.settings.carry < 1:
            i = self._randn(count, self.G.latent_dim)[part].requires_grad_(True)
            parts.append((1 - self.settings.carry) * measure('gradient_angle', (i,), self.G.initial_state(i)))
        if self.chains is not None:
            memories = tuple(h.requires_grad_(True) for h in self.chains.states(self.chains.draw(count)[part]))
            parts.append(self.settings.carry * measure('gradient_angle_carried', memories, memories))
        return torch.stack(parts).sum()

    def _diversity_penalty(self, count: int) -> torch.Tensor:
        """L_DIV of `count` moments, each continued twice."""
        part = self.portions.part(count)
        if self.chains is None:
            state = self.G.initial_state(self._randn(count, self.G.latent_dim)[part])
        else:
            state = self.chains.states(self.chains.draw(count)[part])
        s = self._randn(2 * count, self._future_frames - 1, self.G.noise_dim)
        s = torch.cat([futures[part] for futures in s.split(count)])
        l, _ = rollout(self.G, s, tuple(torch.cat([h, h]) for h in state))
        ends = l[:, first_of_ends(l.shape[1]) :]
        maps = None if self._whole_codes is None else self.G.A.weight
        y, other = (coordinates(self.G, ends) if maps is None else widened(self.G, ends)).chunk(2)
        penalty, apart = diversity_penalty(y, other, self._parting, only_ends=True, maps=maps, gram=gram)
        self._report('Loss/G/diversity_penalty', penalty)
        self._report('Loss/G/diversity', apart)
        return penalty.mean()

    def _set_learning_rates(self) -> None:
        left = 1 - self.num_frames_shown / (self.total_kimg * 1000)
        factor = 1.0 if self.settings.decay == 0 else min(1.0, max(left, 0.0) / self.settings.decay)
        for optimizer, rate in ((self.G_optimizer, self.settings.generator_lr), (self.C_optimizer, self.settings.critic_lr)):
            set_rate(optimizer, rate * factor)
        training_stats.report0('Progress/learning_rate', self.settings.generator_lr * factor)

    def _update_average(self) -> None:
        half_life = min(self.settings.ema_kimg * 1000, self.num_frames_shown * self.settings.ema_rampup)
        update_average(self.G_ema, self.G, decay_of(half_life, self.frames_per_step))
        if self._settles:
            self.averages.keep(self.num_steps, self.G_ema)

    @property
    def _settles(self) -> bool:
        """Whether videos are meant to settle: training has seen old ones and no beginnings."""
        return self.settings.carry == 1

    def _build(self) -> LatentGenerator:
        with torch.random.fork_rng(devices=[]):
            G = LatentGenerator(num_components=self.G.num_components, **self._G_kwargs)
        return G.to(self.device).requires_grad_(False).eval()

    def finished(self, deadline: float | None = None) -> LatentGenerator:
        """A copy of the moving average as a snapshot holds it: calibrated, and with its burn-in (training/stationarity.py).

        It is an earlier moving average where videos of the newest one do not settle (`averages`).
        Where training saw fresh beginnings (`carry` below 1, such as the paper's), a video starts at its beginning, and nothing
        is calibrated. The same on every rank.

        Raises:
            TimeoutError: It is later than `deadline`, a time of `time.monotonic`.
        """
        G, run = self.G_ema, None
        if self._settles:
            G = self.averages.settled(self.num_steps, self.G_ema, self._build, deadline)
            run = observe(G, deadline=deadline)
        sizes = {'num_components': self.G.num_components, **self._G_kwargs}
        return finish(
            G,
            sizes,
            run,
            self.windows.clips,
            calibrated=not self.settings.uncalibrated,
            filtered=not self.settings.unfiltered,
            shaped=not self.settings.unshaped,
            bounded=not self.settings.unbounded,
        )

    def is_finite(self) -> bool:
        """Whether all parameters are numbers still."""
        return is_finite(self.G, self.critics)

    # Going on later, as if never stopped.

    def state_dict(self) -> dict[str, Any]:
        """Everything of this rank but the construction arguments."""
        return {
            'G': self.G.state_dict(),
            'G_ema': self.G_ema.state_dict(),
            'C': [C.state_dict() for C in self.critics],
            'G_optimizer': portable_state(self.G_optimizer),
            'C_optimizer': portable_state(self.C_optimizer),
            'num_steps': self.num_steps,
            'averages': self.averages.state_dict(),
            **self.rank_state(),
        }

    def rank_state(self) -> dict[str, Any]:
        """Random numbers and chains; the same on every rank, but those of version 0.2 had their own."""
        chains = None if self.chains is None else self.chains.state_dict()
        return {'random': self.random.get_state(), 'chains': chains}

    def merge_rank_states(self, ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """One rank_state() of those of all ranks, which had their own in version 0.2: all of their chains."""
        chains: list[Any] = [rank.get('chains') for rank in ranks]
        merged = chains[0]
        if len(chains) > 1 and None not in chains:
            memories = [torch.cat(column) for column in zip(*(each['memories'] for each in chains), strict=True)]
            merged = {'memories': memories, 'past': torch.cat([each['past'] for each in chains])}
            if self.chains is not None and len(merged['past']) != self.chains.num_chains:
                merged = None
        return {**ranks[0], 'chains': merged}

    def load_state_dict(self, state: dict[str, Any], rank_state: dict[str, Any] | None) -> None:
        """Take over a state_dict(); without `rank_state` random numbers start from the seed.

        Chains that the state does not hold, such as that of a run before they existed, begin at fresh i.
        """
        self.G.load_state_dict(state['G'])
        self.G_ema.load_state_dict(state['G_ema'])
        states = state['C'] if isinstance(state['C'], list) else [state['C']]  # one critic, before version 0.2
        for C, weights in zip(self.critics, states, strict=True):
            C.load_state_dict(weights)
        load_state(self.G_optimizer, state['G_optimizer'], self.device, self._records)
        load_state(self.C_optimizer, state['C_optimizer'], self.device, self._records)
        self.num_steps = int(state['num_steps'])
        self.averages.load_state_dict(state.get('averages', []))
        chains = None if rank_state is None else rank_state.get('chains')
        if self.chains is not None:
            if chains is None:
                self.chains.restart(self.G, torch.arange(self.chains.num_chains, device=self.device))
            else:
                self.chains.load_state_dict(chains)
        if rank_state is not None:
            self.random.set_state(rank_state['random'].cpu())
        if self.graphs is not None:
            self.graphs.reset()

    # What CUDA graphs need.

    def _changing(self) -> dict[str, list[torch.Tensor]]:
        """All that a step changes, but for the moving average, which is no part of a phase."""
        changing: dict[str, list[torch.Tensor]] = {'G': [*self.G.parameters()], 'C': [*self.critics.parameters()]}
        for name, optimizer in (('G_optimizer', self.G_optimizer), ('C_optimizer', self.C_optimizer)):
            for key in ('exp_avg', 'exp_avg_sq', 'step'):
                changing[f'{name} {key}'] = [state[key] for state in optimizer.state.values()]
        if self.chains is not None:
            changing['chains'] = [*self.chains.memories, self.chains.past]
        return changing

    def _buffers(self) -> list[Any]:
        """What a phase reads or writes besides."""
        parameters = [*self.G.parameters(), *self.critics.parameters()]
        return [*(p.grad for p in parameters), *(workspaces(C) for C in self.critics)]
