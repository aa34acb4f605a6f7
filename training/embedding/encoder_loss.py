"""What a W+ encoder is trained to do: return known codes, and codes that reconstruct the image."""

from typing import Any

import torch

from networks.feature_networks.lpips import LPIPS
from networks.image_generator import ImageGenerator
from torch_utils import training_stats
from training.commands.memory import Budget
from training.embedding.pieces import piece_size, pieces
from training.videos.renderer import renderer

MOST_IMAGES_AT_ONCE = 64
LARGEST_LOSS_RESOLUTION = 256  # pixels and LPIPS are compared at this size at most, as pSp and e4e do


def shrink(images: torch.Tensor, resolution: int) -> torch.Tensor:
    """Average images `[N, C, H, W]` down to `resolution`; smaller ones stay as they are."""
    if images.shape[2] <= resolution:
        return images
    if images.shape[2] % resolution == 0:
        return torch.nn.functional.avg_pool2d(images, images.shape[2] // resolution)
    return torch.nn.functional.interpolate(
        images, size=(resolution, resolution), mode='bilinear', align_corners=False, antialias=True
    )


def peak_signal_to_noise(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The PSNR `[N]` in dB of images in [-1, 1] (clamped to it): 10 log10(2^2 / mean squared error)."""
    error = (images.clamp(-1, 1) - targets.clamp(-1, 1)).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / error.clamp(min=1e-10))


class EncoderLoss:
    """Loss of a batch whose first part are the generator's own samples and whose second part are frames.

        L = lambda_w mean |h(w_hat) - h(w)|^2                              (own samples)
          + lambda_pixel mean |G(w_hat) - x|^2 + lambda_lpips LPIPS(G(w_hat), x)    (frames, some own samples)
          + lambda_average mean |h(w_hat)|^2                               (frames)

    with h(w) = B^-1 (w - w_avg) the whitened code (see networks/w_encoder.py). Own samples are compared as images only
    in part, because their codes teach as much at a third of the time.

    Args:
        image_generator: Image generator, frozen.
        encoder: WEncoder; its buffers define h.
        lpips: Perceptual distance, None for none.
        lambda_w, lambda_pixel, lambda_lpips, lambda_average: Weights as above.
        image_fraction: Part of the own samples that is compared as images too.
        memory: Bound of what the gradients of images keep; they go through in pieces that fit, which changes only rounding.
        rank, num_ranks: A loss is called with the whole batch; of several ranks, each computes every num_ranks-th row of it.
    """

    def __init__(
        self,
        image_generator: ImageGenerator,
        encoder: Any,
        lpips: LPIPS | None,
        *,
        lambda_w: float = 0.2,
        lambda_pixel: float = 1.0,
        lambda_lpips: float = 1.0,
        lambda_average: float = 1e-3,
        image_fraction: float = 0.25,
        memory: Budget | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.image_generator, self.encoder, self.lpips = image_generator, encoder, lpips
        self.lambda_w, self.lambda_pixel = lambda_w, lambda_pixel
        self.lambda_lpips, self.lambda_average = lambda_lpips, lambda_average
        self.image_fraction = image_fraction
        self.memory = memory or Budget()
        self.rank, self.num_ranks = rank, num_ranks
        self._at_once: int | None = None
        self.resolution = min(int(image_generator.img_resolution), LARGEST_LOSS_RESOLUTION)
        self._unmix = torch.linalg.inv(encoder.w_basis.double()).to(torch.float32)

    def whiten(self, ws: torch.Tensor) -> torch.Tensor:
        """H(w), `[N, num_ws, w_dim]`."""
        return (ws - self.encoder.w_avg) @ self._unmix.T

    def synthesize(self, ws: torch.Tensor) -> torch.Tensor:
        """Render codes with constant noise, at the resolution of the comparison."""
        if not (torch.is_grad_enabled() and ws.requires_grad):
            return shrink(renderer(self.image_generator)(ws, 'const'), self.resolution)
        images = self.image_generator.synthesis(ws, noise_mode='const', force_fp32=ws.device.type == 'cpu')
        return shrink(images.to(torch.float32), self.resolution)

    def __call__(self, samples: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """This rank's part of the loss of a batch, a scalar to differentiate; reports what it consists of.

        The parts of all ranks add up to the loss, and their gradients to its gradient.

        Args:
            samples: Codes of the own samples `[N, num_ws, w_dim]`.
            frames: Images `[M, C, resolution, resolution]` in [-1, 1], M may be 0; N + M is at least the number of ranks.
        """
        # Of the whole batch: own samples, of which those from `first` on are compared as images too, and frames behind them.
        total, total_frames = len(samples), len(frames)
        first = total - round(total * self.image_fraction)
        own = torch.arange(self.rank, total + total_frames, self.num_ranks)
        of_frames = own[own >= total] - total
        count, compared_from = int((own < total).sum()), int((own < first).sum())
        samples, frames = samples[own[:count].to(samples.device)], frames[of_frames.to(frames.device)]
        with torch.no_grad():
            targets = torch.cat([self.synthesize(samples), frames]) if count else frames
        ws = self.encoder(targets)
        loss_w = (self.whiten(ws[:count]) - self.whiten(samples)).square().mean(dim=(1, 2))
        training_stats.report('Loss/encoder/w', loss_w)
        loss = self.lambda_w * (loss_w.sum() / total) if total else ws.new_zeros([])

        if compared_from < len(targets):
            total_images = total - first + total_frames
            loss = loss + self._image_loss(ws[compared_from:], targets[compared_from:], count - compared_from, total_images)
        if total_frames:
            loss_average = self.whiten(ws[count:]).square().mean(dim=(1, 2))
            training_stats.report('Loss/encoder/average', loss_average)
            loss = loss + self.lambda_average * (loss_average.sum() / total_frames)
        training_stats.report('Loss/encoder/loss', loss * self.num_ranks)
        return loss

    def _image_loss(self, ws: torch.Tensor, targets: torch.Tensor, num_samples: int, total: int) -> torch.Tensor:
        """The loss of the images of codes, of `total` on all ranks; the first `num_samples` are the generator's own.

        With a gradient, images are rendered and taken back to their codes piece by piece, so that the maps of one piece alone are
        in memory; the result is a scalar whose gradient is the one that was found.
        """
        wants_gradient = torch.is_grad_enabled() and ws.requires_grad
        codes = ws.detach().requires_grad_() if wants_gradient else ws
        parts: list[torch.Tensor] = []
        gradients: list[torch.Tensor] = []
        for piece in pieces(len(codes), self._images_at_once(codes[:1], targets[:1])):
            code = codes[piece]
            losses = self._image_losses(code, targets[piece])
            if wants_gradient:
                gradients += torch.autograd.grad(self._weighted(losses).sum() / total, code)
            parts.append(losses.detach())
        losses = torch.cat(parts, dim=1)
        for name, values in zip(('pixel', 'lpips'), losses, strict=False):
            training_stats.report(f'Loss/encoder/{name}_samples', values[:num_samples])
            training_stats.report(f'Loss/encoder/{name}_frames', values[num_samples:])
        value = self._weighted(losses).sum() / total
        if not wants_gradient:
            return value
        return value + ((ws - ws.detach()) * torch.cat(gradients)).sum()

    def _image_losses(self, ws: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Squared error of the pixels and, with one, perceptual distance of each image, `[1 or 2, N]`."""
        images = self.synthesize(ws)
        losses = [(images - targets).square().mean(dim=(1, 2, 3))]
        if self.lpips is not None and self.lambda_lpips > 0:
            with torch.no_grad():
                wanted = self.lpips.embed(targets)
            losses.append((self.lpips.embed(images) - wanted).square().sum(dim=1))
        return torch.stack(losses)

    def _weighted(self, losses: torch.Tensor) -> torch.Tensor:
        weights = (self.lambda_pixel, self.lambda_lpips)
        return torch.stack([weight * each for weight, each in zip(weights, losses, strict=False)]).sum(dim=0)

    def _images_at_once(self, code: torch.Tensor, target: torch.Tensor) -> int:
        """How many images with a gradient, measured at the first."""
        if self._at_once is None and code.requires_grad:
            code = code.detach().requires_grad_()
            self._at_once = piece_size(lambda: self._image_losses(code, target), code.device, self.memory, MOST_IMAGES_AT_ONCE)
        return self._at_once or MOST_IMAGES_AT_ONCE

    @torch.no_grad()
    def evaluate(self, encoder: torch.nn.Module, targets: torch.Tensor, batch: int = 16) -> dict[str, torch.Tensor]:
        """`images` (reconstructions), `psnr` and, with a perceptual distance, `lpips` of images."""
        parts: dict[str, list[torch.Tensor]] = {'images': [], 'psnr': []}
        for target in targets.split(batch):
            image = self.synthesize(encoder(target))
            parts['images'].append(image)
            parts['psnr'].append(peak_signal_to_noise(image, target))
            if self.lpips is not None:
                parts.setdefault('lpips', []).append(self.lpips(image.clamp(-1, 1), target))
        return {key: torch.cat(values) for key, values in parts.items()}
