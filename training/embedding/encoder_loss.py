"""What a W+ encoder is trained to do: return known codes, and codes that reconstruct the image."""

from typing import Any

import torch

from networks.image_generator import ImageGenerator
from networks.lpips import LPIPS
from torch_utils import training_stats

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
    ) -> None:
        self.image_generator, self.encoder, self.lpips = image_generator, encoder, lpips
        self.lambda_w, self.lambda_pixel = lambda_w, lambda_pixel
        self.lambda_lpips, self.lambda_average = lambda_lpips, lambda_average
        self.image_fraction = image_fraction
        self.resolution = min(int(image_generator.img_resolution), LARGEST_LOSS_RESOLUTION)
        self._unmix = torch.linalg.inv(encoder.w_basis.double()).to(torch.float32)

    def whiten(self, ws: torch.Tensor) -> torch.Tensor:
        """H(w), `[N, num_ws, w_dim]`."""
        return (ws - self.encoder.w_avg) @ self._unmix.T

    def synthesize(self, ws: torch.Tensor) -> torch.Tensor:
        """Render codes with constant noise, at the resolution of the comparison."""
        images = self.image_generator.synthesis(ws, noise_mode='const', force_fp32=ws.device.type == 'cpu')
        return shrink(images.to(torch.float32), self.resolution)

    def __call__(self, samples: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar to differentiate, and reports its parts.

        Args:
            samples: Codes of the own samples `[N, num_ws, w_dim]`.
            frames: Images `[M, C, resolution, resolution]` in [-1, 1], M may be 0.
        """
        count = len(samples)
        first = count - round(count * self.image_fraction)  # from here on images are compared
        with torch.no_grad():
            targets = torch.cat([self.synthesize(samples), frames])
        ws = self.encoder(targets)
        loss_w = (self.whiten(ws[:count]) - self.whiten(samples)).square().mean(dim=(1, 2))
        training_stats.report('Loss/encoder/w', loss_w)
        loss = self.lambda_w * loss_w.mean() if count else ws.new_zeros([])

        if first < len(targets):
            images, targets = self.synthesize(ws[first:]), targets[first:]
            loss_pixel = (images - targets).square().mean(dim=(1, 2, 3))
            training_stats.report('Loss/encoder/pixel_samples', loss_pixel[: count - first])
            training_stats.report('Loss/encoder/pixel_frames', loss_pixel[count - first :])
            loss = loss + self.lambda_pixel * loss_pixel.mean()
            if self.lpips is not None and self.lambda_lpips > 0:
                with torch.no_grad():
                    wanted = self.lpips.embed(targets)
                loss_lpips = (self.lpips.embed(images) - wanted).square().sum(dim=1)
                training_stats.report('Loss/encoder/lpips_samples', loss_lpips[: count - first])
                training_stats.report('Loss/encoder/lpips_frames', loss_lpips[count - first :])
                loss = loss + self.lambda_lpips * loss_lpips.mean()
        if len(frames):
            loss_average = self.whiten(ws[count:]).square().mean(dim=(1, 2))
            training_stats.report('Loss/encoder/average', loss_average)
            loss = loss + self.lambda_average * loss_average.mean()
        return training_stats.report('Loss/encoder/loss', loss)

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
