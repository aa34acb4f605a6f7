"""From layers of linear light to finished pictures."""

from collections.abc import Callable

import numpy as np
import torch

from demo.drawing.colours import Colour, Values
from demo.drawing.surfaces import coverage
from demo.parameters import ParameterTable


def cover(
    picture: list[torch.Tensor],
    nearest: torch.Tensor,
    colour: Colour,
    depth: torch.Tensor,
    alpha: torch.Tensor,
    edge: float,
    spacing: float,
) -> torch.Tensor:
    """Lay one layer over the picture (in place) where it is nearer to the camera; returns the new nearest depth."""
    alpha = alpha * coverage((depth - nearest).clamp_(-0.3, 0.3), edge, spacing)  # smooth where two surfaces cut each other
    for channel, paint_over in zip(picture, colour, strict=True):
        channel += alpha * (paint_over - channel)
    return torch.where(alpha > 0.5, depth, nearest)


def tone(image: torch.Tensor) -> torch.Tensor:
    """Linear light to display values in [0, 1]: a soft shoulder for the highlights, then gamma 2.2."""
    image = image.clamp(min=0)
    image = image * (1 + 0.16 * image) / (1 + 0.42 * image) * 1.18
    return image.clamp(0, 1).pow(1 / 2.2)


@torch.no_grad()
def draw(
    render_chunk: Callable[[Values, int, int], torch.Tensor],
    table: ParameterTable,
    parameters: torch.Tensor | np.ndarray,
    resolution: int,
    *,
    supersampling: int = 1,
    chunk: int = 8,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures `[N, 3, R, R]` in [-1, 1] and feature maps `[N, 1, R, R]` in [0, 1] of subjects with these parameters `[N, P]`.

    render_chunk:   gives linear light and feature map `[N, 4, R, R]` of parameters by name, resolution, supersampling.
    supersampling:  samples a pixel along each axis, on top of the edges' own smoothing.
    chunk:          subjects rendered at once (memory and cache, not the result).
    """
    rows = torch.as_tensor(parameters, dtype=torch.float32)
    if rows.ndim != 2 or rows.shape[1] != len(table):
        raise ValueError(f'parameters must be [N, {len(table)}], got {list(rows.shape)}')
    out = rows.new_empty([rows.shape[0], 4, resolution, resolution])
    for first in range(0, rows.shape[0], chunk):
        part = rows[first : first + chunk]
        p = {name: part[:, k, None, None] for k, name in enumerate(table.names)}
        out[first : first + chunk] = render_chunk(p, resolution, supersampling)
    return tone(out[:, :3]) * 2 - 1, out[:, 3:]


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Frames `[N, H, W, 3]` uint8 of pictures `[N, 3, H, W]` in [-1, 1]."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
