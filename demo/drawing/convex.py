"""Convex solids seen along parallel rays: where a ray leaves the last of the half-spaces that it is in.

A solid is where a ray is within all its bounds at once: near = the lowest of the upper bounds, far = the highest of the lower
ones, and the ray hits where near > far. The inside measure near - far is the way through the solid.
"""

import torch

from demo.drawing.surfaces import Rays, join

Bounds = tuple[torch.Tensor, torch.Tensor]  # near and far depth along the ray, [N, H, W]
Plane = tuple[torch.Tensor | float, torch.Tensor | float, torch.Tensor | float, torch.Tensor | float]
MISS_SLOPE = 4.0  # how steeply the depth falls where a ray misses, so that another solid wins there
THICK = 0.25  # the inside measure stays within this: planes seen edge-on would make it so steep that outlines leak along them


def polyhedron(rays: Rays, planes: list[Plane], softness: float) -> Bounds:
    """Bounds of the solid a x + b y + c z <= h for all planes (a, b, c, h); `softness` rounds its edges.

    Some plane has to face the camera and some plane has to face away from it.
    """
    uppers, lowers = [], []
    for a, b, c, height in planes:
        toward = a * rays.dx + b * rays.dy + c * rays.dz
        toward = torch.where(toward.abs() < 1e-3, torch.full_like(toward, 1e-3), toward)
        bound = (height - (a * rays.x + b * rays.y + c * rays.z)) / toward
        uppers.append(torch.where(toward > 0, -bound, -1e3))
        lowers.append(torch.where(toward < 0, bound, -1e3))
    return -join(uppers, softness), join(lowers, softness)


def cylinder(rays: Rays, radius: torch.Tensor, half_width: float) -> Bounds:
    """Bounds of a cylinder around the z axis, |z| <= half_width, with slightly rounded rims."""
    a = (rays.dx.square() + rays.dy.square()).clamp(min=1e-3)
    b = rays.x * rays.dx + rays.y * rays.dy
    discriminant = b * b - a * (rays.x.square() + rays.y.square() - radius.square())
    chord = discriminant / (discriminant.abs() + 0.02 * a * radius.square()).sqrt()
    toward = rays.dz.clamp(min=1e-3)  # a camera behind the disc sees it as if from the side
    near = -join([(b - chord) / a, (rays.z - half_width) / toward], 0.01)
    far = join([(-b - chord) / a, (-rays.z - half_width) / toward], 0.01)
    return near, far


def surface(bounds: Bounds) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and inside measure (between -THICK and THICK) of a solid; where rays miss, the depth falls away."""
    near, far = bounds
    inside = near - far
    return near + MISS_SLOPE * inside.clamp(max=0), inside.clamp(-THICK, THICK)
