"""Finding W+ codes of frames by optimisation, many frames at a time.

Codes are searched for in whitened coordinates h, w_l = w_avg + B h_l (B a square root of the covariance of W), where one
step means the same in every direction. For all frames t of a chunk at once,

    sum_t  lambda_lpips LPIPS(G(w_t), x_t) + lambda_pixel mean |G(w_t) - x_t|^2
         + lambda_average mean |h_t|^2 + lambda_layers mean |h_t - mean_l h_t|^2 + lambda_smooth mean |h_t - h_{t-1}|^2

is minimised by `training.embedding.batched_lbfgs`, with mean_l the average over the style layers (a code in W has equal
layers) and h_{-1} the last frame of the chunk before it, if any. The quadratic terms pull weakly; what makes a step a good
one is `training.embedding.code_curvature`. Frames whose loss no longer falls leave the batch.
"""

import dataclasses
import functools
import math

import torch

from networks.feature_networks.lpips import LPIPS, is_coarse
from networks.image_generator import ImageGenerator
from training.commands.memory import Budget
from training.embedding.batched_lbfgs import Coupling, minimize
from training.embedding.code_curvature import inverse_curvature
from training.embedding.code_sampler import CodeSampler
from training.embedding.encoder_loss import LARGEST_LOSS_RESOLUTION, peak_signal_to_noise, shrink
from training.embedding.pieces import piece_size, pieces
from training.videos.renderer import renderer

MOST_FRAMES_AT_ONCE = 64
# Weights of pixels and smoothness where none are given: beside AlexNet, pixels of small pictures weigh more, and a larger loss
# wants more smoothness (docs/footage/embedding.md, "Pixels beside AlexNet").
USUAL_WEIGHTS, WEIGHTS_OF_SMALL = (2.0, 0.1), (20.0, 0.3)


@dataclasses.dataclass(frozen=True)
class InversionOptions:
    """Settings of the optimisation; they decide its result."""

    steps: int = 20  # most evaluations of a frame
    first_steps: int = 100  # of the first frame of a clip, which starts from far away, before it joins its chunk
    lambda_lpips: float = 1.0
    lambda_pixel: float | None = None  # None: see `default_weights`
    lambda_average: float = 1e-3  # toward the average code
    lambda_layers: float = 1e-3  # toward W
    lambda_smooth: float | None = None  # over time; None: see `default_weights`
    stop: float = 0.01  # a frame stops when its loss falls by less than this part in `patience` evaluations
    patience: int = 5
    seed: int = 0  # of the samples that B and the curvature come from


def default_weights(resolution: int, lpips: LPIPS | None) -> tuple[float, float]:
    """`lambda_pixel` and `lambda_smooth` beside a perceptual distance, for pictures of this many pixels a side."""
    return WEIGHTS_OF_SMALL if is_coarse(resolution, lpips) else USUAL_WEIGHTS


class Inversion:
    """Optimises W+ codes of frames for one image generator.

    Args:
        image_generator: Image generator, frozen.
        lpips: Perceptual distance, None for pixels only.
        options: Settings.
        memory: Bound of what gradients keep; frames go through in pieces that fit, which changes nothing but rounding.
    """

    def __init__(
        self, image_generator: ImageGenerator, lpips: LPIPS | None, options: InversionOptions, memory: Budget | None = None
    ) -> None:
        self.image_generator, self.lpips = image_generator, lpips
        self.resolution = min(int(image_generator.img_resolution), LARGEST_LOSS_RESOLUTION)
        self.options = options
        self.num_ws, self.w_dim = int(image_generator.num_ws), int(image_generator.w_dim)
        self.device = next(image_generator.parameters()).device
        self._memory = memory or Budget()
        sampler = CodeSampler(image_generator, seed=options.seed)
        variances, axes = torch.linalg.eigh(sampler.covariance.double())
        # Directions in which W is flat stay reachable: codes of footage lie outside of W.
        floor = 0.05**2 * float(variances.clamp(min=0).mean())
        deviations = variances.clamp(min=max(floor, 1e-12)).sqrt()
        self.w_avg = sampler.w_avg.to(self.device)
        self.basis = (axes * deviations).float().to(self.device)  # B
        self._inverse = (axes / deviations).T.float().to(self.device)  # B^-1

    @property
    def is_coarse(self) -> bool:
        """Whether the perceptual distance sees too little of pictures of this size to be left to itself."""
        return is_coarse(self.resolution, self.lpips)

    @property
    def weights(self) -> tuple[float, float]:
        """`lambda_pixel` and `lambda_smooth`: as the options say, or the default of this generator and distance."""
        pixel, smooth = default_weights(self.resolution, self.lpips)
        given = self.options
        return (
            pixel if given.lambda_pixel is None else given.lambda_pixel,
            smooth if given.lambda_smooth is None else given.lambda_smooth,
        )

    @property
    def settled_options(self) -> InversionOptions:
        """The options, with numbers in the place of defaults."""
        pixel, smooth = self.weights
        return dataclasses.replace(self.options, lambda_pixel=pixel, lambda_smooth=smooth)

    def average(self, count: int = 1) -> torch.Tensor:
        """`count` times the average code, `[count, num_ws, w_dim]`."""
        return self.w_avg.expand(count, self.num_ws, self.w_dim).clone()

    def whiten(self, ws: torch.Tensor) -> torch.Tensor:
        """H of codes w, both `[N, num_ws, w_dim]`."""
        return (ws.to(self.device) - self.w_avg) @ self._inverse.T

    def deviations(self, ws: torch.Tensor) -> torch.Tensor:
        """How far codes `[N, num_ws, w_dim]` lie from the average code, `[N]`: the root mean square of h, 1 for random z."""
        return self.whiten(ws).square().mean(dim=(1, 2)).sqrt()

    def render(self, ws: torch.Tensor) -> torch.Tensor:
        """Render codes at the generator's resolution, images `[N, C, H, W]` around [-1, 1]."""
        ws = ws.to(self.device)
        if not (torch.is_grad_enabled() and ws.requires_grad):
            return renderer(self.image_generator, 'fp32')(ws, 'const')
        return self.image_generator.synthesis(ws, noise_mode='const', force_fp32=True).to(torch.float32)

    def synthesize(self, ws: torch.Tensor) -> torch.Tensor:
        """Render codes at the resolution of the comparison, `[N, C, resolution, resolution]`."""
        return shrink(self.render(ws), self.resolution)

    @functools.cached_property
    def frames_at_once(self) -> int:
        """How many frames go through networks together."""
        code = self.average()
        target = torch.zeros_like(self.synthesize(code))
        wanted = None if self.lpips is None else self.lpips.embed(target)

        def one() -> torch.Tensor:
            return self._losses(self.whiten(code).requires_grad_(), target, wanted)

        with torch.enable_grad():
            return piece_size(one, self.device, self._memory, MOST_FRAMES_AT_ONCE)

    @functools.cached_property
    def inverse_curvature(self) -> torch.Tensor:
        """First guess of the inverse Hessian of a frame's loss, `[num_ws, w_dim, w_dim]`, from codes near the average."""
        options, (pixel, smooth) = self.options, self.weights

        def residuals(h: torch.Tensor) -> list[torch.Tensor]:
            images = self.synthesize(self.w_avg + h @ self.basis.T)
            parts = [math.sqrt(pixel / images[0].numel()) * images]
            if self.lpips is not None and options.lambda_lpips > 0:
                parts.append(math.sqrt(options.lambda_lpips) * self.lpips.embed(images))
            return parts

        size = self.num_ws * self.w_dim
        floor = 2 * (options.lambda_average + options.lambda_layers + 2 * smooth) / size
        return inverse_curvature(
            residuals, self.num_ws, self.w_dim, device=self.device, floor=floor, seed=options.seed, at_once=self.frames_at_once
        )

    def fit_chunk(
        self,
        targets: torch.Tensor,
        start: torch.Tensor | None,
        before: torch.Tensor | None,
        before_start: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Find the codes of a chunk of frames.

        An encoder errs alike for neighbouring frames. So what was found to be missing in the answer for the frame before, or
        in that for the first frame of a clip, is added to all its answers, where that lowers the loss.

        Args:
            targets: Images `[N, C, resolution, resolution]` in [-1, 1].
            start: Codes to start from, `[N, num_ws, w_dim]` (of an encoder); None: from the frame before.
            before: Code of the frame before the chunk, `[num_ws, w_dim]`; None at the beginning of a clip.
            before_start: What the encoder gave for that frame; None: not known.

        Returns:
            Codes `[N, num_ws, w_dim]`.
        """
        options = self.options
        if start is not None:
            start = start.to(self.device)
        if before is None:
            first_start = self.average() if start is None else start[:1]
            before_start = first_start[0]
            before_first = self._optimize(targets[:1], first_start, None, options.first_steps)[0]
        else:
            before_first = before.to(self.device)
        if start is None:
            start = before_first.expand(len(targets), -1, -1)
        elif before_start is not None:
            start = self._better(targets, start, start + (before_first - before_start.to(self.device)))
        return self._optimize(targets, start, before, options.steps)

    @torch.no_grad()
    def _better(self, targets: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """For each frame that of two codes that has the lower loss."""
        better = []
        for part in pieces(len(targets), self.frames_at_once):
            wanted = None if self.lpips is None else self.lpips.embed(targets[part])
            losses = [self._losses(self.whiten(codes[part]), targets[part], wanted) for codes in (first, second)]
            better.append(losses[1] < losses[0])
        return torch.where(torch.cat(better)[:, None, None], second, first)

    def _optimize(self, targets: torch.Tensor, start: torch.Tensor, before: torch.Tensor | None, steps: int) -> torch.Tensor:
        options, shape = self.options, start.shape
        wanted = None
        if self.lpips is not None:
            with torch.no_grad():
                wanted = torch.cat([self.lpips.embed(targets[part]) for part in pieces(len(targets), self.frames_at_once)])

        def function(h: torch.Tensor, active: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            losses: list[torch.Tensor] = []
            gradients: list[torch.Tensor] = []
            for piece in pieces(len(h), self.frames_at_once):
                part, frames = h[piece].detach().requires_grad_(), active[piece]
                values = self._losses(part.reshape(-1, *shape[1:]), targets[frames], None if wanted is None else wanted[frames])
                gradients += torch.autograd.grad(values.sum(), part)
                losses.append(values.detach())
            return torch.cat(losses), torch.cat(gradients)

        def inverse_hessian(rows: torch.Tensor) -> torch.Tensor:
            return torch.einsum('nld,lde->nle', rows.reshape(-1, *shape[1:]), self.inverse_curvature).flatten(1)

        h = self.whiten(start).flatten(1)
        coupling = smoothness(len(h), None if before is None else self.whiten(before).flatten(), self.weights[1] / h.shape[1])
        h = minimize(
            function,
            h,
            inverse_hessian=inverse_hessian,
            steps=steps,
            coupling=coupling,
            stop=options.stop,
            patience=options.patience,
        )
        return self.w_avg + h.reshape(shape) @ self.basis.T

    def _losses(self, h: torch.Tensor, targets: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
        """The loss of each frame but for smoothness, `[N]`."""
        options = self.options
        images = self.synthesize(self.w_avg + h @ self.basis.T)
        losses = self.weights[0] * (images - targets).square().mean(dim=(1, 2, 3))
        if self.lpips is not None and wanted is not None and options.lambda_lpips > 0:
            losses = losses + options.lambda_lpips * (self.lpips.embed(images) - wanted).square().sum(dim=1)
        losses = losses + options.lambda_average * h.square().mean(dim=(1, 2))
        return losses + options.lambda_layers * (h - h.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2))

    @functools.cached_property
    def average_picture(self) -> torch.Tensor:
        """What the average code draws, `[1, C, resolution, resolution]` in [-1, 1]."""
        with torch.no_grad():
            return self.synthesize(self.average()).clamp(-1, 1)

    @torch.no_grad()
    def compare(self, images: torch.Tensor, targets: torch.Tensor) -> list[dict[str, float]]:
        """`psnr` and `gain` (dB) and, with a perceptual distance, `lpips` of each pair of images in [-1, 1].

        The gain is the PSNR above that of the picture of the average code, `average_picture`. Near 0, the image says nothing
        about its target.
        """
        average = self.average_picture.expand_as(targets)
        plain = peak_signal_to_noise(average, targets)
        rows = [
            {'psnr': float(value), 'gain': float(value - before)}
            for value, before in zip(peak_signal_to_noise(images, targets), plain, strict=True)
        ]
        if self.lpips is not None:
            for row, value in zip(rows, self.lpips(images, targets), strict=True):
                row['lpips'] = float(value)
        return rows

    def measure(self, ws: torch.Tensor, targets: torch.Tensor) -> list[dict[str, float]]:
        """The measures of `compare` of codes `[N, num_ws, w_dim]`."""
        with torch.no_grad():
            return [
                row
                for part in pieces(len(ws), self.frames_at_once)
                for row in self.compare(self.synthesize(ws[part]).clamp(-1, 1), targets[part])
            ]


def smoothness(num_frames: int, before: torch.Tensor | None, weight: float) -> Coupling | None:
    """Weight * sum_t |h_t - h_{t-1}|^2 as the coupling of the frames of a chunk.

    Args:
        num_frames: Of the chunk, N.
        before: h of the frame before it, `[D]`; None at the beginning of a clip, whose first frame has no such term.
        weight: Of the term; 0: None is returned.
    """
    if weight == 0 or (num_frames == 1 and before is None):
        return None
    known = int(before is not None)
    differences = torch.diff(torch.eye(known + num_frames), dim=0)
    matrix = 2 * weight * differences.T @ differences
    if before is None:
        return Coupling(matrix, torch.zeros(num_frames, 1))
    matrix = matrix.to(before)
    return Coupling(matrix[1:, 1:], matrix[1:, :1] * before)
