"""Fits the two networks that look at pictures of the world: the W+ encoder and the reader of true parameters.

Both learn from the pool of rendered heads that the generator was fitted with, so that latents, codes and parameters of every
picture are known, and both also see the generator's own pictures.
"""

import dataclasses
import pathlib
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from demo.fitting.fast_synthesis import fast_synthesis
from demo.fitting.fit_generator import picture_loss
from demo.fitting.orthogonal_momentum import PairedOptimizer
from demo.fitting.picture_pool import PicturePool
from demo.truth_reader import INPUT_RESOLUTION, TruthReader
from demo.worlds import World
from networks.checkpoints.durable_files import replacing
from networks.stylegan2 import Generator
from networks.w_encoder import WEncoder


@dataclasses.dataclass(frozen=True)
class ReaderSettings:
    """Everything that decides the encoder and the reader of parameters."""

    seed: int = 2
    # Encoder: first codes alone, from small pictures, then codes and reconstructed pictures.
    code_steps: int = 5000
    code_batch: int = 64
    picture_steps: int = 1200
    picture_batch: int = 16
    encoder_lr: float = 1e-3
    picture_lr: float = 5e-4
    picture_weight: float = 2.0
    truth_weight: float = 0.15
    feature_weight: float = 6.0
    encoder_shape: tuple[tuple[str, int], ...] = (
        ('input_resolution', 64),
        ('channel_base', 768),
        ('channel_max', 96),
        ('hidden_features', 160),
        ('head_features', 48),
    )
    # Reader of true parameters.
    reader_generated: int = 6000  # pictures by the generator; of rendered ones it sees the whole pool
    reader_steps: int = 4000
    reader_batch: int = 64
    reader_lr: float = 8e-4


def _cosine(lr: float, fraction: float) -> float:
    """Learning rate that warms up over the first fiftieth and then falls to a hundredth along a cosine."""
    return float(lr * min(1.0, 50 * fraction + 0.02) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * fraction))))


class _Loop:
    """Steps of a fit that saves its state beside its progress and goes on from there."""

    def __init__(self, path: pathlib.Path, module: torch.nn.Module, num_steps: int, label: str) -> None:
        self.path, self.module, self.num_steps, self.label = path, module, num_steps, label
        self.optimizer = PairedOptimizer(module)
        self.first_step = 0
        if path.exists():
            state = torch.load(path, weights_only=True)
            module.load_state_dict(state['module'])
            self.optimizer.load_state_dict(state['optimizer'])
            self.first_step = state['step']

    def save(self, step: int) -> None:
        with replacing(self.path) as temporary:
            torch.save({'module': self.module.state_dict(), 'optimizer': self.optimizer.state_dict(), 'step': step}, temporary)

    def steps(self, lr: float) -> Iterator[int]:
        """Step numbers still to do; the caller computes a loss and calls `descend`."""
        saved = reported = time.monotonic()
        self.losses: list[float] = []
        for step in range(self.first_step, self.num_steps):
            self.lr = _cosine(lr, step / self.num_steps)
            yield step
            now = time.monotonic()
            if now - reported > 20 or step + 1 == self.num_steps:
                print(f'{self.label}: step {step + 1}/{self.num_steps}, loss {np.mean(self.losses):.4f}', flush=True)
                self.losses, reported = [], now
            if now - saved > 120 or step + 1 == self.num_steps:
                self.save(step + 1)
                saved = now

    def descend(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step(self.lr, 1.5 * self.lr)
        self.losses.append(float(loss.detach()))


def truth_weights(world: World) -> torch.Tensor:
    """How much each parameter counts `[P]`: identity 1, motion 3, what the world emphasises as much as it says."""
    weight = torch.ones(len(world.table))
    weight[world.table.num_identity :] = 3.0
    for name, value in world.emphasis.items():
        weight[world.table.index[name]] = value
    return weight


@torch.no_grad()
def _small_pictures(generator: Generator, pool: PicturePool, num_generated: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All rendered pictures of the pool and the generator's pictures of its first latents, uint8 `[N, 3, 64, 64]` each."""
    rendered: list[torch.Tensor] = []
    generated: list[torch.Tensor] = []

    def keep(images: torch.Tensor, where: list[torch.Tensor]) -> None:
        small = F.avg_pool2d(images, images.shape[2] // INPUT_RESOLUTION)
        where.append((small * 127.5 + 128).clamp(0, 255).to(torch.uint8))

    for first in range(0, pool.count, 64):
        z, pictures, _ = pool.batch(np.arange(first, min(first + 64, pool.count)))
        keep(pictures, rendered)
        if first < num_generated:
            keep(fast_synthesis(generator, generator.mapping(z, None)), generated)
    return torch.cat(rendered), torch.cat(generated or [torch.empty(0, 3, INPUT_RESOLUTION, INPUT_RESOLUTION)])


# ----------------------------------------------------------------------------
# The encoder.


def build_encoder(generator: Generator, settings: ReaderSettings) -> WEncoder:
    """An encoder whose answers start at the generator's average code, in the basis of its covariance."""
    torch.manual_seed(settings.seed)
    encoder = WEncoder(
        generator.num_ws, generator.w_dim, generator.img_resolution, generator.img_channels, **dict(settings.encoder_shape)
    )
    z = torch.from_numpy(np.random.RandomState(settings.seed).randn(20000, generator.z_dim)).to(torch.float32)
    with torch.no_grad():
        w = generator.mapping(z, None)[:, 0]
    encoder.set_code_statistics(w.mean(dim=0), torch.cov(w.t()))
    return encoder


def fit_encoder(
    folder: pathlib.Path, generator: Generator, reader: TruthReader, pool: PicturePool, settings: ReaderSettings
) -> WEncoder:
    """The encoder of rendered pictures into codes of this generator (state in `folder`/encoder-*.pt).

    Loss: mean square of the whitened difference to the code that the mapping network gives the picture's latent, and in the
    second part also `picture_weight` times the picture loss of the reconstruction and `truth_weight` times the difference
    between the true parameters and those that the reader sees in it: gaze and brows are few pixels, but most of the life.
    """
    encoder = build_encoder(generator, settings)
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    whiten = torch.linalg.inv(encoder.w_basis.double()).float().t()

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        with torch.autocast('cpu', torch.bfloat16):
            return encoder(pictures.contiguous(memory_format=torch.channels_last)).float()

    loop = _Loop(folder / 'encoder-codes.pt', encoder, settings.code_steps, 'encoder, codes')
    if loop.first_step < settings.code_steps:
        rendered, _ = _small_pictures(generator, pool, 0)
        for step in loop.steps(settings.encoder_lr):
            chosen = np.random.RandomState([settings.seed, 0, step]).randint(len(rendered), size=settings.code_batch)
            with torch.no_grad():
                wanted = generator.mapping(torch.from_numpy(pool.latents[chosen]), None)
            codes = encode(rendered[chosen].to(torch.float32) / 127.5 - 1)
            loop.descend(((codes - wanted) @ whiten).square().mean())
    weight = truth_weights(pool.world)
    loop = _Loop(folder / 'encoder-pictures.pt', encoder, settings.picture_steps, 'encoder, codes and pictures')
    for step in loop.steps(settings.picture_lr):
        rng = np.random.RandomState([settings.seed, 1, step])
        z, pictures, features = pool.batch(rng.randint(pool.count, size=settings.picture_batch))
        with torch.no_grad():
            wanted = generator.mapping(z, None)
        codes = encode(pictures)
        made = fast_synthesis(generator, codes)
        loss = ((codes - wanted) @ whiten).square().mean()
        loss = loss + settings.picture_weight * picture_loss(made, pictures, 1 + settings.feature_weight * features, 0.5)
        truth = (pool.world.table.from_latent(z) - reader.mean) / reader.deviation
        seen = F.smooth_l1_loss(reader.standardized(made), truth, reduction='none', beta=0.5)
        loop.descend(loss + settings.truth_weight * (seen * weight).mean())
    encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return encoder.eval().requires_grad_(False)


# ----------------------------------------------------------------------------
# The reader of true parameters.


def fit_truth_reader(folder: pathlib.Path, generator: Generator, pool: PicturePool, settings: ReaderSettings) -> TruthReader:
    """The reader of true parameters (state in `folder`/reader.pt): half rendered, half generated pictures, motion weighted up."""
    torch.manual_seed(settings.seed)
    reader = TruthReader(pool.world.table)
    rendered, generated = _small_pictures(generator, pool, settings.reader_generated)
    wanted_of_all = (pool.world.table.from_latent(torch.from_numpy(pool.latents[: pool.count])) - reader.mean) / reader.deviation
    weight = truth_weights(pool.world)
    loop = _Loop(folder / 'reader.pt', reader, settings.reader_steps, 'reader of true parameters')
    half = settings.reader_batch // 2
    for step in loop.steps(settings.reader_lr):
        rng = np.random.RandomState([settings.seed, 7, step])
        first, second = rng.randint(len(rendered), size=half), rng.randint(len(generated), size=half)
        pictures = torch.cat([rendered[first], generated[second]]).to(torch.float32) / 127.5 - 1
        pictures += 0.02 * torch.from_numpy(rng.standard_normal(pictures.shape)).to(torch.float32)
        wanted = wanted_of_all[np.concatenate([first, second])]
        with torch.autocast('cpu', torch.bfloat16):
            answer = reader.standardized(pictures)
        loop.descend((F.smooth_l1_loss(answer.float(), wanted, reduction='none', beta=0.5) * weight).mean())
    return reader.eval().requires_grad_(False)
