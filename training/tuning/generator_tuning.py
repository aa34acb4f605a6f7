"""Pivotal tuning of an image generator on embedded footage, with everything else held where it was.

Codes w_t of the footage stay, the weights theta of the synthesis network move (Roich et al. 2021, arXiv 2106.05744). Each step
lowers

    mean_t D(G_theta(w_t), x_t) + lambda_locality mean_k D(G_theta(v_k), G_theta0(v_k))

for a batch of frames x_t and of other codes v_k, whose pictures theta0, the generator as it was, gives. The first term alone
also changes the pictures of codes that no frame has, and a temporal model, an edit or another subject needs exactly those. v_k
are random codes of W and around it (`training.embedding.code_sampler`), points on the way from the footage to them, and
codes of other subjects where there are some. The distance of two pictures is

    D(y, x) = lambda_pixel mean |y - x|^2 + lambda_lpips LPIPS(y, x)

with pixels at full resolution, and LPIPS at 256 pixels at most, above that also of one piece of 256 x 256 in full resolution. The
result is a moving average of the weights, the one with the smallest D on held-out frames.
"""

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from networks.errors import InputError, option
from networks.feature_networks.lpips import LPIPS, is_coarse
from networks.image_generator import ImageGenerator
from training.commands import stop_signals
from training.commands.memory import Budget, how_many
from training.embedding.code_sampler import CodeSampler
from training.embedding.encoder_loss import LARGEST_LOSS_RESOLUTION, peak_signal_to_noise, shrink
from training.embedding.pieces import LARGEST_PIECE_ON_CPU
from training.footage.frame_bank import frames_to_images
from training.runs.weight_average import decay_of, update_average
from training.runs.working_memory import peak_bytes
from training.tuning.coded_frames import CodedFrames

WAY_SHARE = 0.5  # of the other codes that lie on the way from the footage to another code
MOST_AT_ONCE = 4  # pictures; more are no faster
PIXEL_WEIGHT, PIXEL_WEIGHT_OF_SMALL = 2.0, 10.0
MOST_BAD_STEPS = 20  # in a row whose gradients are no numbers, until half precision has found its scale


@dataclasses.dataclass(frozen=True)
class TuningOptions:
    """What decides the result of a tuning."""

    batch: int = 8  # frames in a step
    locality_batch: int = 8  # other codes in a step
    lr: float = 1e-3  # of Adam
    warmup: int = 20  # steps until the learning rate is reached
    ema: float = 25.0  # half-life of the moving average of the weights, steps
    lambda_lpips: float = 1.0
    lambda_pixel: float | None = None  # None: `default_pixel_weight`
    lambda_locality: float = 1.0
    spread: float = 1.0  # of the random codes beyond W, see CodeSampler
    fp32: bool = False  # single precision everywhere, on a GPU too
    seed: int = 0


def default_pixel_weight(resolution: int, lpips: LPIPS | None) -> float:
    """`lambda_pixel` beside a perceptual distance, for pictures of this many pixels a side (docs/footage/tuning.md)."""
    return PIXEL_WEIGHT_OF_SMALL if is_coarse(resolution, lpips) else PIXEL_WEIGHT


class PictureDistance:
    """D of the module's description, for images `[N, C, H, W]` around [-1, 1].

    Args:
        lpips: Perceptual distance, None for pixels only.
        lambda_lpips, lambda_pixel: Weights.
        resolution: Side of the images.
    """

    def __init__(self, lpips: LPIPS | None, lambda_lpips: float, lambda_pixel: float, resolution: int) -> None:
        self.lpips = lpips if lambda_lpips > 0 else None
        self.lambda_lpips, self.lambda_pixel, self.resolution = lambda_lpips, lambda_pixel, resolution

    def draw_place(self, random: torch.Generator) -> tuple[int, int]:
        """Where the piece in full resolution lies: its top and left."""
        free = max(self.resolution - LARGEST_LOSS_RESOLUTION, 0)
        top, left = torch.randint(free + 1, [2], generator=random).tolist()
        return top, left

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, place: tuple[int, int] = (0, 0)) -> torch.Tensor:
        """D of each pair, `[N]`."""
        distances = self.lambda_pixel * (images - targets).square().mean(dim=(1, 2, 3))
        if self.lpips is None:
            return distances
        pairs = [(shrink(images, LARGEST_LOSS_RESOLUTION), shrink(targets, LARGEST_LOSS_RESOLUTION))]
        if self.resolution > LARGEST_LOSS_RESOLUTION:
            rows, columns = (slice(start, start + LARGEST_LOSS_RESOLUTION) for start in place)
            pairs.append((images[:, :, rows, columns], targets[:, :, rows, columns]))
        for image, target in pairs:
            with torch.no_grad():
                wanted = self.lpips.embed(target)
            distances = distances + self.lambda_lpips / len(pairs) * (self.lpips.embed(image) - wanted).square().sum(dim=1)
        return distances


class OtherCodes:
    """Draws the codes v_k whose pictures are to stay.

    Args:
        image_generator: The generator as it was.
        footage: Codes of the footage, `[N, num_ws, w_dim]`.
        kept: Codes of other subjects, `[M, num_ws, w_dim]`; M may be 0.
        spread, seed: As of `CodeSampler`.
    """

    def __init__(
        self, image_generator: ImageGenerator, footage: torch.Tensor, kept: torch.Tensor, *, spread: float, seed: int
    ) -> None:
        self.sampler = CodeSampler(image_generator, spread=spread, seed=seed)
        self.footage, self.kept = footage, kept

    def draw(self, count: int, random: torch.Generator) -> torch.Tensor:
        """Codes `[count, num_ws, w_dim]`: random ones, half of them of other subjects where there are some, half on the way."""
        codes = self.sampler.draw(count, random)
        if len(self.kept):
            chosen = torch.randint(len(self.kept), [count], generator=random)
            is_kept = torch.rand([count, 1, 1], generator=random) < 0.5
            codes = torch.where(is_kept.to(codes.device), self.kept[chosen].to(codes), codes)
        start = self.footage[torch.randint(len(self.footage), [count], generator=random)].to(codes)
        is_on_way = torch.rand([count, 1, 1], generator=random) < WAY_SHARE
        part = torch.rand([count, 1, 1], generator=random)
        return torch.where(is_on_way.to(codes.device), torch.lerp(start, codes, part.to(codes)), codes)


class GeneratorTuning:
    """The state of a tuning, and its steps.

    Args:
        image_generator: The generator as it is; it is not changed.
        frames: Frames to learn, with their codes.
        kept: Codes of other subjects to keep, `[M, num_ws, w_dim]`.
        lpips: Perceptual distance, None for pixels only.
        options: Settings.
        micro_batch: Pictures at a time, which memory has to hold; the result depends on it in the last digits.
        save_memory: Compute the activations of each block a second time instead of keeping them.

    Attributes:
        step: Steps so far.
        average: The moving average of the generator, in evaluation mode.
    """

    def __init__(
        self,
        image_generator: ImageGenerator,
        frames: CodedFrames,
        kept: np.ndarray,
        lpips: LPIPS | None,
        options: TuningOptions,
        *,
        micro_batch: int = MOST_AT_ONCE,
        save_memory: bool = False,
    ) -> None:
        resolution = int(image_generator.img_resolution)
        pixel_weight = default_pixel_weight(resolution, lpips) if options.lambda_pixel is None else options.lambda_pixel
        options = dataclasses.replace(options, lambda_pixel=pixel_weight)
        self.before, self.frames, self.options = image_generator, frames, options
        self.micro_batch, self.save_memory = micro_batch, save_memory
        self.device = next(image_generator.parameters()).device
        self.channels = int(image_generator.img_channels)
        self.half = self.device.type == 'cuda' and not options.fp32
        self.distance = PictureDistance(lpips, options.lambda_lpips, pixel_weight, resolution)
        codes = torch.from_numpy(frames.codes)
        self.others = OtherCodes(image_generator, codes, torch.from_numpy(kept), spread=options.spread, seed=options.seed)
        self.generator = copy.deepcopy(image_generator).eval().requires_grad_(False)
        self.average = copy.deepcopy(self.generator)
        self.parameters = [parameter.requires_grad_(True) for parameter in self.generator.synthesis.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=options.lr, betas=(0.9, 0.99))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half, init_scale=2.0**14)
        self.step, self._bad_steps = 0, 0

    def render(self, generator: ImageGenerator, ws: torch.Tensor) -> torch.Tensor:
        """Images float32 `[N, C, H, W]` of codes, with constant noise."""
        return generator.synthesis(ws.to(self.device), noise_mode='const', force_fp32=not self.half).to(torch.float32)

    def targets_of(self, coded: CodedFrames) -> torch.Tensor:
        """Frames as images `[N, C, H, W]` in [-1, 1]."""
        return frames_to_images(coded.frames, self.channels).to(self.device)

    def pictures_at_once(self, memory: Budget) -> int:
        """How many pictures with gradients fit into memory, at most `MOST_AT_ONCE`; one is measured."""
        one = self.frames.chosen(np.arange(1))

        def backward() -> None:
            self._backward(torch.from_numpy(one.codes), self.targets_of(one), (0, 0), 1 / self.options.batch)

        taken = peak_bytes(backward, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        budget = memory.on(self.device)
        return how_many(taken, budget if self.device.type != 'cpu' else min(budget, LARGEST_PIECE_ON_CPU), MOST_AT_ONCE)

    def advance(self) -> dict[str, float]:
        """Take a step; returns `footage` and `locality`, the two terms of the loss.

        Raises:
            InputError: The weights diverge.
            training.commands.stop_signals.Stopped: A signal came before anything has changed.
        """
        options, random = self.options, _random_numbers(self.options.seed, self.step)
        chosen = torch.randint(len(self.frames), [options.batch], generator=random).numpy()
        place = self.distance.draw_place(random)
        for group in self.optimizer.param_groups:
            group['lr'] = options.lr * min((self.step + 1) / max(options.warmup, 1), 1)
        self.optimizer.zero_grad(set_to_none=True)
        total = {'footage': 0.0, 'locality': 0.0}
        with stop_signals.at_once():  # a step at 1024x1024 may last longer than a cluster waits, and nothing has changed yet
            for part in np.array_split(chosen, -(-len(chosen) // self.micro_batch)):
                taken = self.frames.chosen(part)
                total['footage'] += self._backward(
                    torch.from_numpy(taken.codes), self.targets_of(taken), place, 1 / options.batch
                )
            if options.lambda_locality > 0 and options.locality_batch > 0:
                weight = options.lambda_locality / options.locality_batch
                for codes in self.others.draw(options.locality_batch, random).split(self.micro_batch):
                    with torch.no_grad():
                        targets = self.render(self.before, codes)
                    total['locality'] += self._backward(codes, targets, place, weight) / options.lambda_locality
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, max_norm=math.inf))
        self._check(norm, sum(total.values()))
        self.scaler.step(self.optimizer)  # half precision: left out where a gradient is no number
        self.scaler.update()
        self.step += 1
        half_life = min(options.ema, max(self.step * 0.1, 1))
        update_average(self.average.synthesis, self.generator.synthesis, decay_of(half_life, 1))
        return total

    def _backward(self, codes: torch.Tensor, targets: torch.Tensor, place: tuple[int, int], weight: float) -> float:
        with _recomputing(self.generator.synthesis, self.save_memory):
            images = self.render(self.generator, codes)
            value = weight * self.distance(images, targets, place).sum()
            self.scaler.scale(value).backward()
        return float(value.detach())

    def _check(self, norm: float, loss: float) -> None:
        self._bad_steps = 0 if math.isfinite(norm) else self._bad_steps + 1
        if not math.isfinite(loss) or self._bad_steps > (MOST_BAD_STEPS if self.half else 0):
            hint = f', or {option("fp32", True)}' if self.half else ''
            raise InputError(
                f'the tuning diverged at step {self.step} (a gradient is not finite); begin again with a smaller '
                f'{option("lr")}{hint}'
            )

    @torch.no_grad()
    def measure(self, generator: ImageGenerator, coded: CodedFrames) -> dict[str, np.ndarray]:
        """`distance` (D), `psnr` (dB) and, with a perceptual distance, `lpips` of every frame, `[N]` each.

        PSNR and LPIPS are taken at 256 pixels at most, as everywhere in the project.
        """
        found: dict[str, list[torch.Tensor]] = {'distance': [], 'psnr': []}
        center = (self.distance.resolution - LARGEST_LOSS_RESOLUTION) // 2
        place = (max(center, 0), max(center, 0))
        for start in range(0, len(coded), self.micro_batch):
            taken = coded.chosen(np.arange(start, min(start + self.micro_batch, len(coded))))
            images = self.render(generator, torch.from_numpy(taken.codes)).clamp(-1, 1)
            targets = self.targets_of(taken)
            found['distance'].append(self.distance(images, targets, place))
            small = shrink(images, LARGEST_LOSS_RESOLUTION), shrink(targets, LARGEST_LOSS_RESOLUTION)
            found['psnr'].append(peak_signal_to_noise(*small))
            if self.distance.lpips is not None:
                found.setdefault('lpips', []).append(self.distance.lpips(*small))
        return {key: torch.cat(values).cpu().numpy() for key, values in found.items()}

    @torch.no_grad()
    def change(self, generator: ImageGenerator, codes: torch.Tensor) -> dict[str, np.ndarray]:
        """How far the pictures of codes `[N, num_ws, w_dim]` are from what they were: `psnr` (dB) and `lpips`, `[N]` each."""
        found: dict[str, list[torch.Tensor]] = {'psnr': []}
        for part in codes.split(self.micro_batch):
            pair = [shrink(self.render(one, part), LARGEST_LOSS_RESOLUTION).clamp(-1, 1) for one in (generator, self.before)]
            found['psnr'].append(peak_signal_to_noise(*pair))
            if self.distance.lpips is not None:
                found.setdefault('lpips', []).append(self.distance.lpips(*pair))
        return {key: torch.cat(values).cpu().numpy() for key, values in found.items()}

    def state(self) -> dict[str, Any]:
        """Everything that a further step depends on: tensors and plain values."""
        return {
            'generator': self.generator.synthesis.state_dict(),
            'average': self.average.synthesis.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'scaler': self.scaler.state_dict(),
            'step': self.step,
            'micro_batch': self.micro_batch,
            'bad_steps': self._bad_steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.generator.synthesis.load_state_dict(state['generator'])
        self.average.synthesis.load_state_dict(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        if state['scaler']:
            self.scaler.load_state_dict(state['scaler'])
        self.step, self._bad_steps = int(state['step']), int(state['bad_steps'])
        self.micro_batch = int(state.get('micro_batch', MOST_AT_ONCE))


def _random_numbers(seed: int, step: int) -> torch.Generator:
    """Random numbers of one step: they depend on nothing that happened before."""
    mixed = np.random.SeedSequence([seed, step + 1]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 ^ int(mixed[1]))


@contextlib.contextmanager
def _recomputing(synthesis: torch.nn.Module, wanted: bool) -> Iterator[None]:
    """In the block, activations inside of the blocks of a synthesis network are not kept for the gradient but computed again."""
    blocks: list[Any] = list(synthesis.children()) if wanted else []
    try:
        for block in blocks:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        yield
    finally:
        for block in blocks:
            del block.forward
