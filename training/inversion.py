"""Finding W+ codes of frames by optimisation, many frames at a time.

Codes are searched for in whitened coordinates h, w_l = w_avg + B h_l (B a square root of the covariance of W), where one
step means the same in every direction. For all frames t of a chunk at once, Adam minimises

    sum_t  lambda_lpips LPIPS(G(w_t), x_t) + lambda_pixel mean |G(w_t) - x_t|^2
         + lambda_average mean |h_t|^2 + lambda_layers mean |h_t - mean_l h_t|^2 + lambda_smooth mean |h_t - h_{t-1}|^2,

with mean_l the average over the style layers (a code in W has equal layers) and h_{-1} the last frame of the chunk
before it, if any. Frames whose loss no longer falls leave the batch.
"""

import dataclasses
import math
from typing import Any

import torch

from networks.lpips import LPIPS
from training.code_sampler import CodeSampler
from training.encoder_loss import LARGEST_LOSS_RESOLUTION, peak_signal_to_noise, shrink

#----------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class InversionOptions:
    """Settings of the optimisation; they decide its result."""

    steps: int = 50               # most steps for a frame
    first_steps: int = 300        # for the first frame of a clip, which has no frame before it to start from
    lr: float = 0.1               # highest step size, standard deviations of W
    lambda_lpips: float = 1.0
    lambda_pixel: float = 2.0
    lambda_average: float = 1e-3  # toward the average code
    lambda_layers: float = 1e-3   # toward W
    lambda_smooth: float = 0.1    # over time
    stop: float = 0.01            # a frame stops when its loss falls by less than this part in `patience` steps
    patience: int = 20
    seed: int = 0                 # of the samples that B comes from

#----------------------------------------------------------------------------

class Inversion:
    """Optimises W+ codes of frames for one image generator.

    Args:
        G: Image generator, frozen.
        lpips: Perceptual distance, None for pixels only.
        options: Settings.
    """

    def __init__(self, G: Any, lpips: LPIPS | None, options: InversionOptions) -> None:
        self.G, self.lpips, self.options = G, lpips, options
        self.num_ws, self.w_dim = int(G.num_ws), int(G.w_dim)
        self.device = next(G.parameters()).device
        self.resolution = min(int(G.img_resolution), LARGEST_LOSS_RESOLUTION)
        sampler = CodeSampler(G, seed=options.seed)
        variances, axes = torch.linalg.eigh(sampler.covariance.double())
        # Directions in which W is flat stay reachable: codes of footage lie outside of W.
        floor = 0.05 ** 2 * float(variances.clamp(min=0).mean())
        deviations = variances.clamp(min=max(floor, 1e-12)).sqrt()
        self.w_avg = sampler.w_avg.to(self.device)
        self.basis = (axes * deviations).float().to(self.device)                 # B
        self._inverse = (axes / deviations).T.float().to(self.device)            # B^-1

    def average(self, count: int = 1) -> torch.Tensor:
        """Returns ``count`` times the average code, ``[count, num_ws, w_dim]``."""
        return self.w_avg.expand(count, self.num_ws, self.w_dim).clone()

    def whiten(self, ws: torch.Tensor) -> torch.Tensor:
        """Returns h of codes w, both ``[N, num_ws, w_dim]``."""
        return (ws.to(self.device) - self.w_avg) @ self._inverse.T

    def render(self, ws: torch.Tensor) -> torch.Tensor:
        """Renders codes at the generator's resolution, images ``[N, C, H, W]`` around [-1, 1]."""
        return self.G.synthesis(ws.to(self.device), noise_mode='const', force_fp32=True).to(torch.float32)

    def synthesize(self, ws: torch.Tensor) -> torch.Tensor:
        """Renders codes at the resolution of the comparison, ``[N, C, resolution, resolution]``."""
        return shrink(self.render(ws), self.resolution)

    def fit_chunk(
        self, targets: torch.Tensor, start: torch.Tensor | None, previous: torch.Tensor | None,
    ) -> torch.Tensor:
        """Finds the codes of a chunk of frames.

        Args:
            targets: Images ``[N, C, resolution, resolution]`` in [-1, 1].
            start: Codes to start from, ``[N, num_ws, w_dim]`` (of an encoder); None: from the frame before.
            previous: Code of the frame before the chunk, ``[num_ws, w_dim]``; None at the beginning of a clip.

        Returns:
            Codes ``[N, num_ws, w_dim]``.
        """
        options = self.options
        if start is None:
            if previous is None:
                first = self._optimize(targets[:1], self.average(), None, options.first_steps)
                start = first.expand(len(targets), -1, -1)
            else:
                start = previous.expand(len(targets), -1, -1)
        return self._optimize(targets, start, previous, options.steps)

    def _optimize(
        self, targets: torch.Tensor, start: torch.Tensor, previous: torch.Tensor | None, steps: int,
    ) -> torch.Tensor:
        options = self.options
        h = self.whiten(start).clone().requires_grad_()
        before = None if previous is None else self.whiten(previous)
        with torch.no_grad():
            wanted = None if self.lpips is None else self.lpips.embed(targets)
        optimizer = torch.optim.Adam([h], lr=options.lr, betas=(0.9, 0.99))
        active = torch.arange(len(h), device=self.device)
        last = torch.zeros(len(h), device=self.device)
        for step in range(steps):
            optimizer.param_groups[0]['lr'] = options.lr * _ramp(step / steps)
            losses = self._losses(h, active, targets, wanted, before)
            optimizer.zero_grad(set_to_none=False)
            losses.sum().backward()
            if step == 0:
                last = losses.detach().clone()
            with torch.no_grad():
                kept = h.detach().clone()
                optimizer.step()
                idle = torch.ones(len(h), dtype=torch.bool, device=self.device)
                idle[active] = False
                h[idle] = kept[idle]  # Adam's momentum would carry them on
                if (step + 1) % options.patience == 0:
                    going = losses < last[active] * (1 - options.stop)
                    last[active] = losses
                    active = active[going]
                    if not len(active):
                        break
        return self.w_avg + h.detach() @ self.basis.T

    def _losses(
        self, h: torch.Tensor, active: torch.Tensor, targets: torch.Tensor, wanted: torch.Tensor | None,
        before: torch.Tensor | None,
    ) -> torch.Tensor:
        """Returns the loss of each active frame, ``[len(active)]``."""
        options = self.options
        mine = h[active]
        images = self.synthesize(self.w_avg + mine @ self.basis.T)
        losses = options.lambda_pixel * (images - targets[active]).square().mean(dim=(1, 2, 3))
        if self.lpips is not None and wanted is not None and options.lambda_lpips > 0:
            losses = losses + options.lambda_lpips * (self.lpips.embed(images) - wanted[active]).square().sum(dim=1)
        losses = losses + options.lambda_average * mine.square().mean(dim=(1, 2))
        losses = losses + options.lambda_layers * (mine - mine.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2))
        if options.lambda_smooth > 0:
            chain = h if before is None else torch.cat([before[None], h])
            steps = (chain[1:] - chain[:-1]).square().mean(dim=(1, 2))
            if before is None:
                steps = torch.cat([steps.new_zeros(1), steps])
            losses = losses + options.lambda_smooth * steps[active]
        return losses

    @torch.no_grad()
    def compare(self, images: torch.Tensor, targets: torch.Tensor) -> list[dict[str, float]]:
        """Returns ``psnr`` (dB) and, with a perceptual distance, ``lpips`` of each pair of images in [-1, 1]."""
        rows = [{'psnr': float(value)} for value in peak_signal_to_noise(images, targets)]
        if self.lpips is not None:
            for row, value in zip(rows, self.lpips(images, targets), strict=True):
                row['lpips'] = float(value)
        return rows

    def measure(self, ws: torch.Tensor, targets: torch.Tensor) -> list[dict[str, float]]:
        """Returns the measures of :meth:`compare` of codes ``[N, num_ws, w_dim]``."""
        with torch.no_grad():
            return self.compare(self.synthesize(ws).clamp(-1, 1), targets)

def _ramp(t: float) -> float:
    """Step size over the time t in [0, 1]: linear rise over the first 5 %, half a cosine down over the last half."""
    rise = min((t + 0.01) / 0.05, 1)
    fall = 1 if t < 0.5 else 0.5 + 0.5 * math.cos(math.pi * (t - 0.5) * 2)
    return rise * fall

#----------------------------------------------------------------------------
