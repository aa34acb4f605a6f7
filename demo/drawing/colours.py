"""Colours and light.

Colours are linear light, as tuples of three `[N, H, W]` or `[N, 1, 1]` tensors.
"""

from typing import Any

import torch

from demo.drawing.surfaces import smoothstep

Colour = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Values = dict[str, torch.Tensor]

# ----------------------------------------------------------------------------
# Colours.


def from_srgb(*code: str) -> list[tuple[float, float, float]]:
    """Linear light of '#rrggbb' codes."""
    return [tuple((int(text[k : k + 2], 16) / 255) ** 2.2 for k in (1, 3, 5)) for text in code]  # type: ignore[misc,unused-ignore]


SKIN = from_srgb('#ffdfcb', '#f6c6a4', '#dfa276', '#a86b43', '#6d412a')
HUES = from_srgb('#e0574f', '#eb9a3f', '#e6cf5a', '#6db86a', '#3fa9a5', '#4a7fd0', '#7d62c4', '#d0629f')


def palette(stops: list[tuple[float, float, float]], position: torch.Tensor) -> Colour:
    """Colour at `position` in [0, 1] along evenly spaced stops."""
    scaled = position * (len(stops) - 1)
    weights = [(1 - (scaled - k).abs()).clamp(min=0) for k in range(len(stops))]
    red, green, blue = (torch.stack([w * stop[k] for w, stop in zip(weights, stops, strict=True)]).sum(dim=0) for k in range(3))
    return red, green, blue


def mix(first: Colour, second: Colour, amount: torch.Tensor) -> Colour:
    """First + amount (second - first), channel by channel."""
    red, green, blue = (torch.lerp(a.expand_as(amount), b.expand_as(amount), amount) for a, b in zip(first, second, strict=True))
    return red, green, blue


def scale(colour: Colour, red: float, green: float, blue: float) -> Colour:
    """Channels multiplied by constants."""
    return colour[0] * red, colour[1] * green, colour[2] * blue


def constant(like: torch.Tensor, red: float, green: float, blue: float) -> Colour:
    """One colour for all heads."""
    return like.new_full((1, 1, 1), red), like.new_full((1, 1, 1), green), like.new_full((1, 1, 1), blue)


def skin_colour(p: Values) -> Colour:
    """Skin of each head: depth along the palette, warmth from rosy (-1) to golden (+1)."""
    red, green, blue = palette(SKIN, p['skin_depth'])
    return red, green * (1 + 0.06 * p['skin_warmth']), blue * (1 - 0.12 * p['skin_warmth'])


# ----------------------------------------------------------------------------
# Light.


def light(
    albedo: Colour,
    normal: tuple[Any, ...],
    ambient: torch.Tensor,
    *,
    subsurface: float,
    shine: torch.Tensor | float,
    sharpness: float,
) -> Colour:
    """Wrapped diffuse key and fill light, reddened at the terminator (subsurface), a highlight, and a rim light."""
    nx, ny, nz = normal
    key = -0.46 * nx + 0.52 * ny + 0.72 * nz
    wrapped = ((key + 0.42) / 1.42).clamp(min=0)
    diffuse = wrapped * wrapped.sqrt()
    fill = (0.60 * nx - 0.10 * ny + 0.60 * nz).clamp(min=0)
    sky = 0.5 + 0.5 * ny
    bleed = subsurface * wrapped * (1 - wrapped)
    half = (-0.25 * nx + 0.30 * ny + 0.92 * nz).clamp(min=0)
    highlight = half.pow(sharpness) * shine
    rim = (1 - nz).clamp(min=0).pow(3) * (0.35 + 0.65 * smoothstep(-0.2, 0.9, 0.8 * nx + 0.45 * ny))
    red = (
        albedo[0] * ((1.12 * diffuse + bleed + 0.16 * fill + 0.16 * sky + 0.06) * ambient)
        + highlight
        + 0.34 * rim * (0.3 + albedo[0])
    )
    green = (
        albedo[1] * ((1.04 * diffuse + 0.18 * bleed + 0.18 * fill + 0.18 * sky + 0.06) * ambient)
        + 0.95 * highlight
        + 0.32 * rim * (0.3 + albedo[1])
    )
    blue = (
        albedo[2] * ((0.94 * diffuse + 0.10 * bleed + 0.24 * fill + 0.24 * sky + 0.07) * ambient)
        + 0.90 * highlight
        + 0.34 * rim * (0.3 + albedo[2])
    )
    return red, green, blue
