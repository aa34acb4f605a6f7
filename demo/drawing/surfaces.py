"""Surfaces seen along parallel rays: ellipsoids, their smooth union, normals, outlines.

World axes: x to the right of the picture, y up, z towards the camera. Every function works on whole batches: values of a subject
are `[N, 1, 1]`, values of a pixel `[N, H, W]`.
"""

import dataclasses
from typing import Any

import torch

# ----------------------------------------------------------------------------
# Rays.


@dataclasses.dataclass
class Rays:
    """Parallel viewing rays in some frame: origins x, y, z `[N, H, W]`, one direction (to the camera) `[N, 1, 1]` each."""

    x: torch.Tensor
    y: torch.Tensor
    z: torch.Tensor
    dx: torch.Tensor
    dy: torch.Tensor
    dz: torch.Tensor

    def at(self, depth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Points `[N, H, W]` x, y, z at this depth along the rays (depth = world z, larger = nearer to the camera)."""
        return self.x + depth * self.dx, self.y + depth * self.dy, self.z + depth * self.dz


def rotation_matrix(yaw: torch.Tensor, pitch: torch.Tensor, roll: torch.Tensor) -> list[list[torch.Tensor]]:
    """R = R_z(roll) R_y(yaw) R_x(-pitch), head to world, as rows of `[N, 1, 1]` tensors; angles `[N, 1, 1]` in radians."""
    cy, sy = yaw.cos(), yaw.sin()
    cp, sp = pitch.cos(), -pitch.sin()  # a positive pitch lifts the nose
    cr, sr = roll.cos(), roll.sin()
    turned = [[cy, sy * sp, sy * cp], [torch.zeros_like(cy), cp, -sp], [-sy, cy * sp, cy * cp]]
    return [
        [cr * turned[0][k] - sr * turned[1][k] for k in range(3)],
        [sr * turned[0][k] + cr * turned[1][k] for k in range(3)],
        turned[2],
    ]


# ----------------------------------------------------------------------------
# Ellipsoids.


def ellipsoid(rays: Rays, centre: tuple[Any, ...], radii: tuple[Any, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth of the near side of an axis-aligned ellipsoid, and its inside measure, both `[N, H, W]`.

    With q = (o - c) / r and e = d / r: depth = -q.e / e.e + sqrt(I / e.e), I = 1 - q.q + (q.e)^2 / e.e. This inside measure I
    (1 at the middle, 0 on the outline) is > 0 exactly where the ray hits. Instead of sqrt(I), whose slope is infinite on the
    outline, stands I / sqrt(|I| + 0.03): it goes on smoothly where the ray misses, so that joined surfaces show no seams.
    """
    qx, qy, qz = (rays.x - centre[0]) / radii[0], (rays.y - centre[1]) / radii[1], (rays.z - centre[2]) / radii[2]
    ex, ey, ez = rays.dx / radii[0], rays.dy / radii[1], rays.dz / radii[2]
    ee = ex * ex + ey * ey + ez * ez
    qe = qx * ex + qy * ey + qz * ez
    inside = 1 - (qx * qx + qy * qy + qz * qz) + qe * qe / ee
    root = inside * inside.abs().add_(0.03).rsqrt_()
    return (root * ee.rsqrt()).sub_(qe / ee), inside


def join(values: list[torch.Tensor], softness: float) -> torch.Tensor:
    """Smooth maximum k log sum_i exp(v_i / k) of equally shaped tensors; k = `softness` is the size of the fillet."""
    highest = values[0]
    for value in values[1:]:
        highest = torch.maximum(highest, value)
    total = torch.zeros_like(highest)
    for value in values:
        total += (value - highest).div_(softness).exp_()
    return total.log_().mul_(softness).add_(highest)


def normals(depth: torch.Tensor, spacing: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit normals x, y, z `[N, H, W]` in the world of a surface z = depth(x, y) on a grid with this spacing (rows go down)."""
    nx, ny = torch.empty_like(depth), torch.empty_like(depth)
    nx[:, :, 1:-1] = depth[:, :, :-2] - depth[:, :, 2:]
    nx[:, :, 0], nx[:, :, -1] = nx[:, :, 1], nx[:, :, -2]
    ny[:, 1:-1] = depth[:, 2:] - depth[:, :-2]
    ny[:, 0], ny[:, -1] = ny[:, 1], ny[:, -2]
    scale = 2 * spacing
    length = (nx * nx + ny * ny + scale * scale).rsqrt_()
    return nx * length, ny * length, length * scale


def coverage(inside: torch.Tensor, edge: float, spacing: float) -> torch.Tensor:
    """How much of each pixel lies within the outline inside = 0: a ramp `2 edge` wide, from the gradient of the measure."""
    gx, gy = torch.zeros_like(inside), torch.zeros_like(inside)
    gx[:, :, 1:-1] = inside[:, :, 2:] - inside[:, :, :-2]
    gy[:, 1:-1] = inside[:, 2:] - inside[:, :-2]
    steepness = (gx * gx + gy * gy).sqrt_().div_(2 * spacing).clamp_(min=0.1)
    return inside.div(steepness * (2 * edge)).add_(0.5).clamp_(0, 1)


def smoothstep(low: float, high: float, value: torch.Tensor) -> torch.Tensor:
    """Hermite step from 0 at `low` to 1 at `high` (low > high turns it around)."""
    t = (value - low).mul_(1 / (high - low)).clamp_(0, 1)
    return t * t * (3 - 2 * t)
