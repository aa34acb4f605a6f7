"""What every image generator offers: NVIDIA's StyleGAN2 and StyleGAN3, and what other files are turned into."""

from __future__ import annotations

import torch


class ImageGenerator(torch.nn.Module):
    """A type for annotations: what this project uses of an image generator. No generator inherits it.

    Attributes:
        z_dim, c_dim: Lengths of latents z and of labels (0: none).
        w_dim, num_ws: W+ codes are `[N, num_ws, w_dim]`.
        img_resolution, img_channels: Images are `[N, img_channels, img_resolution, img_resolution]`, about -1 to 1.
        mapping: `mapping(z, c)` makes codes, and `mapping.w_avg` `[w_dim]` is their average.
        synthesis: `synthesis(codes, noise_mode='const')` makes images.
    """

    z_dim: int
    c_dim: int
    w_dim: int
    num_ws: int
    img_resolution: int
    img_channels: int
    mapping: torch.nn.Module
    synthesis: torch.nn.Module
