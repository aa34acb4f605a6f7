"""Projection of single images, one at a time, as the StyleGAN2 paper describes it: what embed_video.py is compared with.

T. Karras, S. Laine, M. Aittala, J. Hellsten, J. Lehtinen, T. Aila: Analyzing and Improving the Image Quality of StyleGAN,
appendix D. The code starts at the average of W, the noise maps of the image generator are optimised with it, and 1000 steps of
Adam (betas 0.9 and 0.999) minimise

    LPIPS(G(w + N(0, (0.05 sigma_w t^2)^2), n), x) + 1e5 sum over maps and scales of L_reg(n)

where sigma_w^2 = E |f(z) - w_avg|^2 over 10000 samples, t falls from 1 to 0 over the first 750 steps, and L_reg is the
squared mean of the product of a noise map with itself shifted by one pixel, in x and in y, at every scale down to 8x8
(averages of 2x2 pixels, times 2). The step size rises to 0.1 over the first 50 steps and falls along a cosine over the last
250. After every step noise maps are brought back to mean 0 and variance 1. Images above 256 pixels are compared at 256.

The paper searches in W. A code of its own for every layer (W+) is the variant that others made of it, and far better on footage.
"""

import dataclasses
import math
import time
from typing import Any

import torch

from networks.feature_networks.lpips import LPIPS
from training.embedding.encoder_loss import peak_signal_to_noise, shrink

STEPS = 1000
STEP_SIZE = 0.1
NOISE_STRENGTH = 0.05
NOISE_WEIGHT = 1e5
STATISTICS = 10000


@dataclasses.dataclass
class Projection:
    """Result of one image, and the way to it."""

    code: torch.Tensor  # [num_ws, w_dim]
    curve: list[dict[str, float]]  # step, processor seconds, and the measures then, with and without its own noise maps


def project(
    G: Any,
    lpips: LPIPS,
    target: torch.Tensor,
    *,
    space: str,
    own_noise: bool = True,
    seed: int = 0,
    looks: tuple[int, ...] = (),
    steps: int = STEPS,
) -> Projection:
    """Project one image.

    Args:
        G: StyleGAN2 generator; its noise maps are as before in the end.
        lpips: Perceptual distance.
        target: Image `[C, H, W]` in [-1, 1], at the resolution of comparison (256 at most).
        space: `'w'` or `'w+'`.
        own_noise: Whether noise maps are optimised, as in the paper, or those of the generator stay.
        seed: Of the noise.
        looks: Steps after which the result so far is measured; the time of that does not count.
        steps: 1000 in the paper.
    """
    device = target.device
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(STATISTICS, int(G.z_dim), generator=random)
    with torch.no_grad():
        samples = G.mapping(z.to(device), torch.zeros(STATISTICS, int(G.c_dim), device=device))[:, 0]
        wanted = lpips.embed(target[None])
    average = samples.mean(dim=0)
    deviation = (samples - average).square().sum(dim=1).mean().sqrt()
    layers = noisy_layers(G)
    stored = [layer.noise_const for layer in layers]
    codes = int(G.num_ws) if space == 'w+' else 1
    w = average.repeat(1, codes, 1).requires_grad_()  # [1, 1 or num_ws, w_dim]
    maps = [torch.randn(noise.shape, generator=random).to(device).requires_grad_() for noise in stored] if own_noise else stored
    optimizer = torch.optim.Adam([w, *maps] if own_noise else [w], betas=(0.9, 0.999), lr=0)
    curve, seconds = [], 0.0

    def render(code: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        for layer, values in zip(layers, noise, strict=True):
            layer.noise_const = values
        images = G.synthesis(code.expand(-1, int(G.num_ws), -1), noise_mode='const', force_fp32=True)
        return shrink(images, target.shape[1])

    def look(step: int) -> None:
        with torch.no_grad():
            row = {'step': float(step), 'seconds': seconds}
            for ending, noise in (('_own_noise', [values.detach() for values in maps]), ('', stored)):
                image = render(w, noise).clamp(-1, 1)
                row['psnr' + ending] = float(peak_signal_to_noise(image, target[None]))
                row['lpips' + ending] = float(lpips(image, target[None]))
            curve.append(row)

    try:
        for step in range(steps):
            start = time.process_time()
            t = step / steps
            optimizer.param_groups[0]['lr'] = STEP_SIZE * step_size(t)
            strength = NOISE_STRENGTH * deviation * max(0.0, 1 - t / 0.75) ** 2
            noisy = w + strength * torch.randn(w.shape, generator=random).to(device)
            loss = (lpips.embed(render(noisy, maps)) - wanted).square().sum()
            if own_noise:
                loss = loss + NOISE_WEIGHT * noise_structure(maps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if own_noise:
                normalize(maps)
            seconds += time.process_time() - start
            if step + 1 in looks or step + 1 == steps:
                look(step + 1)
    finally:
        for layer, values in zip(layers, stored, strict=True):
            layer.noise_const = values
    return Projection(w.detach().expand(-1, int(G.num_ws), -1)[0].clone(), curve)


def refine_with_noise(
    G: Any, lpips: LPIPS, target: torch.Tensor, code: torch.Tensor, *, steps: int
) -> tuple[torch.Tensor, float, float]:
    """Go on from a code that was found with the generator's noise maps, moving it and the maps together.

    The loss, the step sizes and what is done to the maps are those of the projection; the code moves by a tenth of them, because
    it is near to where it ends, and is not disturbed.

    Args:
        G: StyleGAN2 generator; its noise maps are as before in the end.
        lpips: Perceptual distance.
        target: Image `[C, H, W]` in [-1, 1], at the resolution of comparison.
        code: W+ code `[num_ws, w_dim]`.
        steps: Evaluations.

    Returns:
        The code `[num_ws, w_dim]`, and LPIPS and PSNR (dB) with the image's own maps.
    """
    layers = noisy_layers(G)
    stored = [layer.noise_const for layer in layers]
    maps = [noise.clone().requires_grad_() for noise in stored]
    w = code[None].clone().requires_grad_()
    optimizer = torch.optim.Adam([{'params': maps}, {'params': [w]}], betas=(0.9, 0.999), lr=0)

    def render() -> torch.Tensor:
        return shrink(G.synthesis(w, noise_mode='const', force_fp32=True), target.shape[1])

    try:
        for layer, values in zip(layers, maps, strict=True):
            layer.noise_const = values
        with torch.no_grad():
            wanted = lpips.embed(target[None])
        for step in range(steps):
            for group, part in zip(optimizer.param_groups, (1.0, 0.1), strict=True):
                group['lr'] = part * STEP_SIZE * step_size(step / steps)
            loss = (lpips.embed(render()) - wanted).square().sum() + NOISE_WEIGHT * noise_structure(maps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            normalize(maps)
        with torch.no_grad():
            image = render().clamp(-1, 1)
            return (w.detach()[0], float(lpips(image, target[None])), float(peak_signal_to_noise(image, target[None])))
    finally:
        for layer, values in zip(layers, stored, strict=True):
            layer.noise_const = values


def noisy_layers(G: Any) -> list[Any]:
    """The layers that have a noise map; a copy's are of another class, which was loaded with it."""
    return [layer for layer in G.modules() if getattr(layer, 'use_noise', False)]


@torch.no_grad()
def normalize(maps: list[torch.Tensor]) -> None:
    """Bring noise maps back to mean 0 and variance 1."""
    for values in maps:
        values -= values.mean()
        values *= values.square().mean().rsqrt()


def step_size(t: float) -> float:
    """The part of the highest step size at the time t in [0, 1)."""
    return min(1.0, t / 0.05) * (1 if t < 0.75 else 0.5 + 0.5 * math.cos(math.pi * (t - 0.75) / 0.25))


def noise_structure(maps: list[torch.Tensor]) -> torch.Tensor:
    """Sum over maps, scales and directions of (mean of n(p) n(p + 1))^2: white noise has 0, anything with structure more."""
    terms = [neighbours(level, axis).square() for noise in maps for level in scales(noise) for axis in (0, 1)]
    return torch.stack(terms).sum()


def scales(noise: torch.Tensor) -> list[torch.Tensor]:
    """The map `[r, r]` and its reductions down to 8x8; sums of four values, halved, keep the variance of white noise."""
    levels = [noise]
    while len(levels[-1]) > 8:
        halves = levels[-1].unflatten(1, (-1, 2)).sum(dim=2)
        levels.append(halves.unflatten(0, (-1, 2)).sum(dim=1) / 2)
    return levels


def neighbours(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Mean product of each value with the next along an axis, around the edge."""
    return torch.mean(values * values.roll(1, dims=axis))
