"""One step of the temporal GAN, with all the state that it needs to go on.

A step is `critic_steps` updates of the critic, one of the generator, one of its moving average. Three things go beyond the paper
(docs/choices.md). The critic sees the motion between frames on its own (`motion_weight`, Windows.critic_view). And some of the
generated windows may continue earlier ones (`carry`): they begin at a memory that the generator reached at some frame of
an earlier window instead of at a fresh i. The critic then also judges what comes long after the first t frames, which the
paper's training never sees. Gradients stay inside of a window. And two windows that continue the same one have to part
(`lambda_diversity`, temporal_loss.diversity_penalty).
"""

from __future__ import annotations

from typing import Any

import torch

from networks.latent_generator import LatentGenerator, State
from networks.temporal_critic import TemporalCritic
from torch_utils import training_stats
from training.latent_space import LatentSpace, Windows
from training.temporal_loss import divergence, diversity_penalty, gradient_angle_penalty, gradient_penalty
from training.temporal_options import Settings


class TemporalTrainer:
    """Networks, optimisers, pool and random state of one rank.

    Args:
        G_kwargs: Construction arguments of the latent generator, but for num_components.
        C_kwargs: Construction arguments of the critic, but for num_features and num_frames.
        space: Coordinates that both work on.
        windows: Real windows.
        settings: See there; `reversal=None` is what suits the footage.
        total_kimg: Length of the whole training, for the learning rate.
        seed: Decides everything.
        rank, num_ranks: Of `torch.distributed`, when it runs.
        device: Of networks and windows.
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
    ) -> None:
        self.settings = settings
        self.windows = windows
        self.total_kimg = total_kimg
        self.device = torch.device(device)
        self.num_ranks = num_ranks
        self.batch = settings.batch // num_ranks
        self.reversal = windows.default_reversal if settings.reversal is None else settings.reversal
        num_features = space.num_coordinates * (1 if settings.motion_weight == 0 else 2)
        with torch.random.fork_rng(devices=[]):  # the same initial networks on every rank, whatever was drawn before
            torch.manual_seed(seed)
            self.G = LatentGenerator(num_components=0 if space.basis is None else len(space.basis), **G_kwargs)
            self.C = TemporalCritic(num_features=num_features, num_frames=windows.num_frames, **C_kwargs)
            self.G_ema = LatentGenerator(num_components=self.G.num_components, **G_kwargs)
        self.G.set_data_basis(space.mean, space.basis, space.scale)
        self.G_ema.load_state_dict(self.G.state_dict())
        self.G_ema.requires_grad_(False).eval()
        for module in (self.G, self.C, self.G_ema):
            module.to(self.device)
        betas = (settings.beta1, settings.beta2)
        self.G_optimizer = torch.optim.Adam(self.G.parameters(), lr=settings.generator_lr, betas=betas)
        self.C_optimizer = torch.optim.Adam(self.C.parameters(), lr=settings.critic_lr, betas=betas)
        self.random = torch.Generator(self.device).manual_seed(seed * num_ranks + rank)
        self._future_frames = settings.diversity_windows * windows.num_frames
        # How far two futures of one moment have to be apart, squared; 0: the footage never changes so much.
        self._parting = settings.diversity * divergence(windows.squared_step(self._future_frames - 1))
        self.num_steps = 0
        self.pool: State | None = None  # memories [pool * batch, size] for each cell

    # Units. An image in NVIDIA's tick line is a frame here: one that the critic was shown, real ones counted.

    @property
    def frames_per_step(self) -> int:
        return self.batch * self.num_ranks * self.settings.critic_steps * self.windows.num_frames

    @property
    def num_frames_shown(self) -> int:
        return self.num_steps * self.frames_per_step

    # Noise and rollouts.

    def _randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.random, device=self.device)

    def _noise(self, count: int) -> torch.Tensor:
        return self._randn(count, self.windows.num_frames - 1, self.G.noise_dim)

    def _view(self, y: torch.Tensor) -> torch.Tensor:
        return self.windows.critic_view(y, self.settings.motion_weight)

    def _first_states(self, count: int) -> State:
        """Memories for `count` windows: fresh ones from H(i), and a share `carry` from the pool once there is one."""
        num_carried = 0 if self.pool is None else round(count * self.settings.carry)
        state = self.G.initial_state(self._randn(count - num_carried, self.G.latent_dim))
        if num_carried == 0 or self.pool is None:
            return state
        carried = self._carried_states(self.pool, num_carried)
        return tuple(torch.cat([fresh, kept]) for fresh, kept in zip(state, carried, strict=True))

    def _carried_states(self, pool: State, count: int) -> State:
        """Memories of `count` random moments of the pool."""
        chosen = torch.randint(len(pool[0]), (count,), generator=self.random, device=self.device)
        return tuple(kept[chosen] for kept in pool)

    def _keep_states(self, states: list[State]) -> None:
        """Put the memories at one random time of the second half of these windows into the pool.

        A random time, because the critic would otherwise never see a window across the seam of two windows.
        """
        if self.settings.carry == 0:
            return
        length = len(states)
        time = int(torch.randint(length // 2, length, (1,), generator=self.random, device=self.device))
        state = tuple(h.detach() for h in states[time])
        size = self.settings.pool * self.batch
        if self.pool is None:
            self.pool = tuple(h[:size].clone() for h in state)
        elif len(self.pool[0]) < size:
            self.pool = tuple(torch.cat([kept, h])[:size] for kept, h in zip(self.pool, state, strict=True))
        else:
            count = min(len(state[0]), size)
            replaced = torch.randperm(size, generator=self.random, device=self.device)[:count]
            for kept, h in zip(self.pool, state, strict=True):
                kept[replaced] = h[:count]

    # The updates.

    def step(self) -> None:
        """Critic, generator and moving average, once; progress and losses go to training_stats."""
        self._set_learning_rates()
        self._update_critic()
        self._update_generator()
        self.num_steps += 1
        self._update_average()

    def _update_critic(self) -> None:
        settings, batch = self.settings, self.batch
        with torch.no_grad():  # one rollout serves all critic updates, because the generator stays the same
            count = batch * settings.critic_steps
            l, states = self.G.rollout(self._noise(count), self._first_states(count))
            generated = self._view(self.G.coordinates(l))
        self._keep_states(states)
        # Fresh and carried windows lie one after the other; shuffled, every update sees both.
        generated = generated[torch.randperm(count, generator=self.random, device=self.device)]
        for fake in generated.split(batch):
            real = self._view(self.windows.sample(batch, self.random, self.reversal))
            scores_real, scores_fake = self.C(torch.cat([real, fake])).split(batch)
            mix = torch.rand(batch, generator=self.random, device=self.device)
            penalty = gradient_penalty(self.C, real, fake, mix)
            loss = scores_fake.mean() - scores_real.mean() + settings.lambda_gp * penalty.mean()
            self.C_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._step_optimizer(self.C_optimizer, self.C)
            training_stats.report('Loss/scores/real', scores_real)
            training_stats.report('Loss/scores/fake', scores_fake)
            training_stats.report('Loss/C/wasserstein', scores_real.mean() - scores_fake.mean())
            training_stats.report('Loss/C/gradient_penalty', penalty)
            training_stats.report('Loss/C/loss', loss)

    def _update_generator(self) -> None:
        settings = self.settings
        self.C.requires_grad_(False)
        l, _ = self.G.rollout(self._noise(self.batch), self._first_states(self.batch))
        loss = -self.C(self._view(self.G.coordinates(l))).mean()
        training_stats.report('Loss/G/loss', loss)
        if self.num_steps % settings.gap_interval == 0:
            count = max(1, self.batch // settings.gap_batch_shrink)
            if settings.lambda_gap > 0:
                loss = loss + settings.lambda_gap * settings.gap_interval * self._angle_penalty(count)
            if settings.lambda_diversity > 0 and self._parting > 0:
                loss = loss + settings.lambda_diversity * settings.gap_interval * self._diversity_penalty(count)
        self.G_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._step_optimizer(self.G_optimizer, self.G)
        self.C.requires_grad_(True)

    def _angle_penalty(self, count: int) -> torch.Tensor:
        """L_GAP of `count` windows that begin at i, and of as many carried ones that begin at their memories."""

        def measure(name: str, first: State, state: State) -> torch.Tensor:
            s = self._noise(len(state[0])).requires_grad_(True)
            penalty, phi = gradient_angle_penalty(self.G.rollout(s, state)[0], first, s)
            training_stats.report(f'Loss/G/{name}_penalty', penalty)
            training_stats.report(f'Loss/G/{name}', phi)
            return penalty.mean()

        i = self._randn(count, self.G.latent_dim).requires_grad_(True)
        fresh = measure('gradient_angle', (i,), self.G.initial_state(i))
        if self.pool is None:
            return fresh
        memories = tuple(h.requires_grad_(True) for h in self._carried_states(self.pool, count))
        carried = measure('gradient_angle_carried', memories, memories)
        return torch.lerp(fresh, carried, self.settings.carry)  # the shares that the critic sees

    def _diversity_penalty(self, count: int) -> torch.Tensor:
        """L_DIV of `count` moments, of which each goes on in two ways."""
        if self.pool is None:
            state = self.G.initial_state(self._randn(count, self.G.latent_dim))
        else:
            state = self._carried_states(self.pool, count)
        s = self._randn(2 * count, self._future_frames - 1, self.G.noise_dim)
        y, other = self.G.coordinates(self.G.rollout(s, tuple(torch.cat([h, h]) for h in state))[0]).split(count)
        penalty, apart = diversity_penalty(y, other, self._parting)
        training_stats.report('Loss/G/diversity_penalty', penalty)
        training_stats.report('Loss/G/diversity', apart)
        return penalty.mean()

    def _step_optimizer(self, optimizer: torch.optim.Optimizer, module: torch.nn.Module) -> None:
        """Average the gradients over the ranks in one message, then step."""
        if self.num_ranks > 1:
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            torch.distributed.all_reduce(flat)
            flat /= self.num_ranks
            for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))
        optimizer.step()

    def _set_learning_rates(self) -> None:
        left = 1 - self.num_frames_shown / (self.total_kimg * 1000)
        factor = 1.0 if self.settings.decay == 0 else min(1.0, max(left, 0.0) / self.settings.decay)
        for optimizer, rate in ((self.G_optimizer, self.settings.generator_lr), (self.C_optimizer, self.settings.critic_lr)):
            for group in optimizer.param_groups:
                group['lr'] = rate * factor
        training_stats.report0('Progress/learning_rate', self.settings.generator_lr * factor)

    @torch.no_grad()
    def _update_average(self) -> None:
        half_life = min(self.settings.ema_kimg * 1000, self.num_frames_shown * self.settings.ema_rampup)
        beta = 0.5 ** (self.frames_per_step / max(half_life, 1e-8))
        for average, current in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
            average.lerp_(current, 1 - beta)

    def is_finite(self) -> bool:
        """Whether all parameters are numbers still."""
        return all(bool(torch.isfinite(p).all()) for module in (self.G, self.C) for p in module.parameters())

    # Going on later, as if never stopped.

    def state_dict(self) -> dict[str, Any]:
        """Everything of this rank but the construction arguments."""
        return {
            'G': self.G.state_dict(),
            'G_ema': self.G_ema.state_dict(),
            'C': self.C.state_dict(),
            'G_optimizer': self.G_optimizer.state_dict(),
            'C_optimizer': self.C_optimizer.state_dict(),
            'num_steps': self.num_steps,
            **self.rank_state(),
        }

    def rank_state(self) -> dict[str, Any]:
        """The part that differs between ranks."""
        return {'random': self.random.get_state(), 'pool': None if self.pool is None else list(self.pool)}

    def load_state_dict(self, state: dict[str, Any], rank_state: dict[str, Any] | None) -> None:
        """Take over a state_dict(); without a rank's own part (another number of ranks) it starts from its seed."""
        self.G.load_state_dict(state['G'])
        self.G_ema.load_state_dict(state['G_ema'])
        self.C.load_state_dict(state['C'])
        self.G_optimizer.load_state_dict(state['G_optimizer'])
        self.C_optimizer.load_state_dict(state['C_optimizer'])
        self.num_steps = int(state['num_steps'])
        if rank_state is not None:
            self.random.set_state(rank_state['random'].cpu())
            pool = rank_state['pool']
            self.pool = None if pool is None else tuple(h.to(self.device) for h in pool)
