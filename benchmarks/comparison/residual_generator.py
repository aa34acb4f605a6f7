"""MoCoGAN-HD's idea as a baseline (Tian et al., "A Good Image Generator Is What You Need for High-Resolution Video Synthesis",
ICLR 2021), written anew: an LSTM walks through W along principal components.

    (h_0, c_0) = LSTM_first(y_0)                      y_0: the first code, given
    (h_t, c_t) = LSTM(e_t, (h_{t-1}, c_{t-1}))        e_t ~ N(0, 1)
    w_t = w_{t-1} + lambda sum_k V_k h_{t,k}          V_k: principal directions

Kept: the first code is given, and the recurrence never sees where the walk has gone; a code is the last one and a residual along
principal directions; training sees windows that begin at the first code; the noise has to be found again in the memories (their
mutual information loss, the cosine of e_t and a guess of it from h_t).

What differs: V and y_0 are of the footage (theirs are of random codes of the image generator, because their generator has to
serve every subject); the residual is a linear map of a memory of 64 numbers, in units of the footage's own steps, so lambda is
learned; the critic is this project's, with its gradient penalty, and sees windows of codes and of their differences instead of
pictures, so their critics of pictures and their contrastive loss have no place. Critic, real windows, optimisers, learning rates,
batch, moving average and length of the training are those of the default of train_video.py: only the generator differs, and
what the default does to stay alive (chains, larger spacings, memories, calibration) is absent.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from benchmarks.comparison.baseline_generators import Baseline, State, moment
from networks.latent_generator import build_mlp
from networks.temporal_critic import TemporalCritic
from training.commands import command_line
from training.kernels.critic.critic_gradients import critic_gradients, critic_scores
from training.latent_space import LatentSpace, fit_latent_space
from training.latents.dataset import LatentDataset
from training.real_windows import Windows
from training.runs.weight_average import decay_of, update_average
from training.temporal_options import TrainingOptions

HIDDEN = 64  # with noise of 32: as many weights in the recurrence as the four cells of ours
NOISE = 32
LAMBDA_GUESS = 1.0
MOTION_WEIGHT = 1.0  # in what the critic sees


class ResidualMotionGenerator(Baseline):
    """The generator above.

    Args:
        clips: Coordinates of real clips, each [T, K]; videos begin at one of their frames.
        space: Latent space with a basis.
        num_ws, w_dim: Of the image generator.
    """

    def __init__(self, clips: Sequence[torch.Tensor], space: LatentSpace, num_ws: int, w_dim: int) -> None:
        super().__init__(clips, space, num_ws, w_dim)
        K, self.noise_dim = self.num_components, NOISE
        self.starts = torch.cat(self.clips)
        steps = torch.cat([torch.diff(clip, dim=0) for clip in self.clips])
        self.step_unit = steps.square().mean(dim=0).sqrt().clamp(min=1e-6)
        self.first = torch.nn.LSTMCell(K, HIDDEN)
        self.recurrence = torch.nn.LSTMCell(NOISE, HIDDEN)
        self.residual = torch.nn.Linear(HIDDEN, K)
        self.guess = build_mlp(HIDDEN, (HIDDEN,), NOISE)

    def initial_state(self, i: torch.Tensor) -> State:
        """I [N, K] -> coordinates at a moment of the footage [N, K], and the memories h, c [N, 64] that begin there."""
        y = self.starts[moment(i, len(self.starts))]
        return (y, *self.first(y))

    def step(self, s: torch.Tensor, state: State) -> tuple[State, torch.Tensor]:
        """One frame: s [N, 32] and (y, h, c) -> the same one later, and l = y [N, K]."""
        y, *memories = state
        h, c = self.recurrence(s, tuple(memories))
        y = y + self.step_unit * self.residual(h)
        return (y, h, c), y

    def windows(self, i: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """I [N, K], s [N, t-1, 32] -> coordinates of windows from the first code on [N, t, K], and the memories [N, t-1, 64]."""
        state = self.initial_state(i)
        frames, memories = [state[0]], []
        for noise in s.unbind(1):
            state, y = self.step(noise, state)
            frames.append(y)
            memories.append(state[1])
        return torch.stack(frames, dim=1), torch.stack(memories, dim=1)


def make(data: LatentDataset) -> ResidualMotionGenerator:
    """An untrained generator for a latent data set."""
    space = fit_latent_space(data)
    clips = [space.encode(data.load_clip(index)) for index in range(len(data.clips))]
    return ResidualMotionGenerator(clips, space, num_ws=data.num_ws, w_dim=data.w_dim)


def train(data: LatentDataset, *, seed: int, steps: int | None = None) -> tuple[ResidualMotionGenerator, int]:
    """Train one by WGAN-GP on the windows of spacing 1 that train_video.py's default sees.

    Args:
        data: Latent data set.
        seed: Of networks and noise.
        steps: Generator updates; None: as many frames as the default shows, 4000 (2000 for footage below a minute).

    Returns:
        The moving average of its weights, and the number of steps.
    """
    options = TrainingOptions(data=data.path)
    settings = options.settings
    windows = Windows(data, fit_latent_space(data), options.window)
    critic_steps, reversal = windows.suited.critic_steps, windows.suited.reversal
    frames_per_step = settings.batch * critic_steps * windows.num_frames
    steps = max(1, round(options.total_kimg * 1000 / frames_per_step)) if steps is None else steps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = make(data)
        C = TemporalCritic(num_features=windows.num_features(MOTION_WEIGHT), num_frames=windows.num_frames)
    average = copy.deepcopy(G).requires_grad_(False).eval()
    betas = (settings.beta1, settings.beta2)
    G_parameters = [parameter for parameter in G.parameters() if parameter.requires_grad]
    G_optimizer = torch.optim.Adam(G_parameters, lr=settings.generator_lr, betas=betas)
    C_optimizer = torch.optim.Adam(C.parameters(), lr=settings.critic_lr, betas=betas)
    random = torch.Generator().manual_seed(seed)

    def generate(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        i = torch.randn(count, G.latent_dim, generator=random)
        s = torch.randn(count, windows.num_frames - 1, NOISE, generator=random)
        return (*G.windows(i, s), s)

    with command_line.progress(total=steps, description=f'mocogan-hd, seed {seed}', unit='step', every_seconds=60) as bar:
        for step in range(steps):
            factor = min(1.0, (1 - step / steps) / settings.decay)
            for optimizer, rate in ((G_optimizer, settings.generator_lr), (C_optimizer, settings.critic_lr)):
                optimizer.param_groups[0]['lr'] = rate * factor
            with torch.no_grad():
                (fake,) = windows.views(generate(settings.batch * critic_steps)[0], MOTION_WEIGHT)
            for part in fake.split(settings.batch):
                (real,) = windows.views(windows.sample(settings.batch, random, reversal), MOTION_WEIGHT)
                critic_gradients(C, real, part, torch.rand(len(part), generator=random), settings.lambda_gp)
                C_optimizer.step()
            y, memories, s = generate(settings.batch)
            (view,) = windows.views(y, MOTION_WEIGHT)
            found = torch.nn.functional.cosine_similarity(G.guess(memories), s, dim=2)
            loss = -critic_scores(C, view).mean() - LAMBDA_GUESS * found.mean()
            G_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            G_optimizer.step()
            shown = (step + 1) * frames_per_step
            half_life = min(settings.ema_kimg * 1000, shown * settings.ema_rampup)
            update_average(average, G, decay_of(half_life, frames_per_step))
            bar.update(1)
    return average, steps
