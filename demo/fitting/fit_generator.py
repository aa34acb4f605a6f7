"""Fits a StyleGAN2 generator to the world: z is the renderer's latent, and G(z) learns to be the renderer's picture of it.

Because every latent has its picture, fitting is regression, not a game: multi-scale L1 on colours and on differences of
neighbouring pixels, with what is small but matters weighted up. It grows through resolutions, as early StyleGANs did, because the
first half of what there is to learn can be seen in small pictures. Noise stays switched off: the world has none.
"""

import dataclasses
import json
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F

from demo.fitting.fast_synthesis import fast_synthesis
from demo.fitting.orthogonal_momentum import PairedOptimizer
from demo.fitting.picture_pool import PicturePool
from demo.worlds import World
from networks.checkpoints.durable_files import replacing
from networks.stylegan2 import Generator
from training.runs.weight_average import update_average

# ----------------------------------------------------------------------------
# Settings.


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of fitting at one resolution; the step size falls from `lr` to `lr_end` along a cosine."""

    resolution: int
    steps: int
    batch_size: int
    lr: float
    lr_end: float


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """Everything that decides the fitted generator."""

    seed: int = 1
    resolution: int = 128
    w_dim: int = 128
    channel_base: int = 2048
    channel_max: int = 128
    mapping_layers: int = 3
    stages: tuple[Stage, ...] = (
        Stage(32, 1500, 16, 1.5e-2, 1.5e-2),
        Stage(64, 1500, 16, 1.5e-2, 1.2e-2),
        Stage(128, 3000, 16, 1.2e-2, 1e-4),
    )
    pool_capacity: int = 24000
    pool_first: int = 4096  # pictures rendered before the first step
    pool_per_step: float = 2.0  # pictures rendered in each later step
    feature_weight: float = 6.0  # how much more the features count: eyes and mouth, fingers, wheels
    edge_weight: float = 1.0  # of the differences between neighbouring pixels
    ema_steps: float = 400.0  # time constant of the moving average of the weights
    adam_ratio: float = 0.3  # step size of biases and constants, as a part of that of the matrices


def build_generator(settings: FitSettings, world: World) -> Generator:
    """A generator whose noise is off and whose larger resolutions have no say before their stage."""
    torch.manual_seed(settings.seed)
    generator = Generator(
        z_dim=len(world.table),
        c_dim=0,
        w_dim=settings.w_dim,
        img_resolution=settings.resolution,
        img_channels=3,
        mapping_kwargs={'num_layers': settings.mapping_layers, 'lr_multiplier': 1.0},
        synthesis_kwargs={'channel_base': settings.channel_base, 'channel_max': settings.channel_max},
    )
    with torch.no_grad():
        for size in generator.synthesis.block_resolutions[1:]:
            getattr(generator.synthesis, f'b{size}').torgb.weight.zero_()
        for name, buffer in generator.named_buffers():
            if name.endswith('noise_const'):
                buffer.zero_()
    return generator


# ----------------------------------------------------------------------------
# Loss.


def picture_loss(made: torch.Tensor, wanted: torch.Tensor, importance: torch.Tensor, edge_weight: float) -> torch.Tensor:
    """Sum over scales R, R/2, R/4, R/8 of the weighted mean of |d| + edge_weight (|d_x| + |d_y|), d = made - wanted.

    made, wanted: `[N, 3, R, R]`.     importance: `[N, 1, R, R]`, weight of each pixel.
    """
    difference = made - wanted
    total = difference.new_zeros([])
    for scale in range(4):
        if scale > 0:
            difference, importance = F.avg_pool2d(difference, 2), F.avg_pool2d(importance, 2)
        weight = importance / importance.mean()
        total = total + (weight * difference.abs()).mean()
        if scale < 2 and edge_weight > 0:
            along_x = (difference[:, :, :, 1:] - difference[:, :, :, :-1]).abs() * weight[:, :, :, 1:]
            along_y = (difference[:, :, 1:] - difference[:, :, :-1]).abs() * weight[:, :, 1:]
            total = total + edge_weight * (along_x.mean() + along_y.mean())
    return total


# ----------------------------------------------------------------------------
# The fit.


class GeneratorFit:
    """The state of a fit, its steps, and its files in `folder` (`fit.pt`, `progress.jsonl`)."""

    def __init__(self, folder: pathlib.Path, settings: FitSettings, world: World) -> None:
        self.folder = folder
        self.settings = settings
        self.world = world
        self.pool = PicturePool(
            world, folder / 'pool', seed=settings.seed, capacity=settings.pool_capacity, resolution=settings.resolution
        )
        self.generator = build_generator(settings, world).train()
        self.average = build_generator(settings, world).eval().requires_grad_(False)
        self.average.load_state_dict(self.generator.state_dict())
        self.optimizer = PairedOptimizer(self.generator)
        self.step = 0
        if (folder / 'fit.pt').exists():
            state = torch.load(folder / 'fit.pt', weights_only=True)
            self.generator.load_state_dict(state['generator'])
            self.average.load_state_dict(state['average'])
            self.optimizer.load_state_dict(state['optimizer'])
            self.step = state['step']

    @property
    def num_steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.settings.stages)

    def stage_at(self, step: int) -> tuple[Stage, float]:
        """The stage of this step and how far through it the step lies, in [0, 1)."""
        for stage in self.settings.stages:
            if step < stage.steps:
                return stage, step / stage.steps
            step -= stage.steps
        raise ValueError('the fit is over')

    def run(self, *, seconds: float = float('inf'), save_every: float = 120.0) -> bool:
        """Go on until the end or until `seconds` have passed; True when the fit is complete."""
        started = saved = time.monotonic()
        losses: list[float] = []
        while self.step < self.num_steps and time.monotonic() - started < seconds:
            losses.append(self._one_step())
            if len(losses) == 200 or self.step == self.num_steps:
                stage, _ = self.stage_at(self.step - 1)
                line = {
                    'step': self.step,
                    'resolution': stage.resolution,
                    'loss': float(np.mean(losses)),
                    'pool': self.pool.count,
                    'seconds': round(time.monotonic() - started, 1),
                }
                print(json.dumps(line), flush=True)
                with open(self.folder / 'progress.jsonl', 'a', encoding='utf-8') as log:
                    log.write(json.dumps(line) + '\n')
                losses = []
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()
        return self.step >= self.num_steps

    def _one_step(self) -> float:
        settings = self.settings
        stage, fraction = self.stage_at(self.step)
        limit = min(settings.pool_first + int(settings.pool_per_step * self.step), settings.pool_capacity)
        self.pool.grow(limit)
        chosen = np.random.RandomState([settings.seed, self.step]).randint(limit, size=stage.batch_size)
        z, wanted, features = self.pool.batch(chosen)
        importance = 1 + settings.feature_weight * features
        if stage.resolution < settings.resolution:
            factor = settings.resolution // stage.resolution
            wanted, importance = F.avg_pool2d(wanted, factor), F.avg_pool2d(importance, factor)
        lr = stage.lr_end + (stage.lr - stage.lr_end) * 0.5 * (1 + np.cos(np.pi * fraction))
        made = fast_synthesis(self.generator, self.generator.mapping(z, None), stage.resolution)
        loss = picture_loss(made, wanted, importance, settings.edge_weight)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step(lr, settings.adam_ratio * lr)
        self.step += 1
        decay = min(1 - 1 / settings.ema_steps, self.step / (self.step + 10))
        update_average(self.average, self.generator, decay)
        self.average.mapping.w_avg.copy_(self.generator.mapping.w_avg)
        return float(loss.detach())

    def save(self) -> None:
        """Write the whole state; an interruption leaves the previous one."""
        state = {
            'generator': self.generator.state_dict(),
            'average': self.average.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'step': self.step,
        }
        with replacing(self.folder / 'fit.pt') as temporary:
            torch.save(state, temporary)


@torch.no_grad()
def finish_generator(generator: Generator, seed: int = 0, num: int = 20000) -> Generator:
    """Set the average of w from `num` latents and freeze the generator."""
    generator = generator.eval().requires_grad_(False)
    z = torch.from_numpy(np.random.RandomState(seed).randn(num, generator.z_dim)).to(torch.float32)
    generator.mapping.w_avg.copy_(generator.mapping(z, None)[:, 0].mean(dim=0))
    return generator
