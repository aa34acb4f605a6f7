"""Limbs seen along parallel rays: capsules, the union of all balls along a segment, and what joints do to their ends."""

import torch

Point = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def capsule(
    u: torch.Tensor, v: torch.Tensor, begin: Point, end: Point, radius_begin: torch.Tensor, radius_end: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Near depth, inside measure (> 0: hit) and place along the segment in [0, 1] of a capsule, all `[N, H, W]`.

    u, v:          picture coordinates `[N, H, W]` of rays along z.
    begin, end:    ends of the segment, three `[N, 1, 1]` each.
    radius_begin, radius_end: radius of the balls at both ends, `[N, 1, 1]`; linear in between.

    A ray at distance d from the axis leaves a cylinder of radius r above the axis point t0 + h z / (p l), h = sqrt(r^2 - d^2),
    with z, p, l the segment's depth, length in the picture, and length: exact for equal radii, close for slender cones. As for
    ellipsoids (demo/drawing/surfaces.py), I / sqrt(|I| + 0.03) stands for sqrt(I).
    """
    dx, dy, dz = (last - first for first, last in zip(begin, end, strict=True))
    flat = dx * dx + dy * dy + 1e-4
    x, y = u - begin[0], v - begin[1]
    along = (x * dx + y * dy) / flat
    across = (x * dy - y * dx).square() / flat
    mean_radius = (radius_begin + radius_end) / 2
    height = (mean_radius.square() - across).clamp(min=0).sqrt()
    place = (along + height * (dz / (flat * (flat + dz * dz)).sqrt())).clamp(0, 1)
    radius = radius_begin + (radius_end - radius_begin) * place
    ball = 1 - ((x - place * dx).square() + (y - place * dy).square()) / radius.square()
    depth = begin[2] + place * dz + radius * ball / (ball.abs() + 0.03).sqrt()
    nearest = along.clamp(0, 1)
    reach = (radius_begin + (radius_end - radius_begin) * nearest).square()
    inside = 1 - ((x - nearest * dx).square() + (y - nearest * dy).square()) / reach
    return depth, inside, place


def turn(point: Point, rotation: list[list[torch.Tensor]], pivot: Point) -> Point:
    """R (point - pivot) + pivot, R as `rotation_matrix` gives it."""
    x, y, z = (value - centre for value, centre in zip(point, pivot, strict=True))
    turned = [row[0] * x + row[1] * y + row[2] * z for row in rotation]
    return turned[0] + pivot[0], turned[1] + pivot[1], turned[2] + pivot[2]
