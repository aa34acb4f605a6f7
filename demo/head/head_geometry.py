"""The frame of the talking head: viewing rays as the head sees them when it turns.

One unit is about half the height of the skull; axes and shapes as in demo/drawing/surfaces.py.
"""

import torch

from demo.drawing.surfaces import Rays

NECK_PIVOT = (0.0, -0.75, -0.20)  # the head turns around the top of the neck, so that turning also moves it


def rays_in_head(
    u: torch.Tensor, v: torch.Tensor, rotation: list[list[torch.Tensor]], shift: tuple[torch.Tensor, torch.Tensor]
) -> Rays:
    """Rays through the world points (u, v, 0) seen from the head: P_head = R^T (P_world - shift - pivot) + pivot."""
    px, py, pz = u - shift[0] - NECK_PIVOT[0], v - shift[1] - NECK_PIVOT[1], -NECK_PIVOT[2]
    origins = [rotation[0][k] * px + rotation[1][k] * py + rotation[2][k] * pz + NECK_PIVOT[k] for k in range(3)]
    return Rays(*origins, *rotation[2])
