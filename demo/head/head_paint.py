"""What is painted on the surface of the head: eyes, brows, mouth, beard, blush, and the palettes.

All positions are head coordinates (x, y) of the surface points, so that everything foreshortens and shifts with the pose.
Colours are linear light, as tuples of three `[N, H, W]` or `[N, 1, 1]` tensors.
"""

import torch

from demo.drawing.colours import Colour, Values, constant, from_srgb, mix, palette, scale
from demo.drawing.surfaces import smoothstep

HAIR = from_srgb('#f3d189', '#c8924e', '#8a5a33', '#4c2f20', '#1f1819')
HAIR_RED = from_srgb('#f6b070', '#d8702f', '#a5401f', '#6b2718', '#35141a')
IRIS = from_srgb('#5b3218', '#7d5a26', '#5d7f3c', '#3f8fae', '#6a86a8')


def hair_colour(p: Values) -> Colour:
    """Hair of each head: darkness along two palettes, natural and red; deeper skin goes with darker hair."""
    redness = ((p['hair_redness'] - 0.55) / 0.45).clamp(0, 1)
    darkness = p['hair_darkness'] + 0.6 * p['skin_depth'] * (1 - p['hair_darkness'])
    return mix(palette(HAIR, darkness), palette(HAIR_RED, darkness), redness)


# ----------------------------------------------------------------------------
# Eyes.


def eye_layout(p: Values) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centre (x of the right-hand eye, y) and unit length of the eyes, `[N, 1, 1]` in head units."""
    return 0.300 * p['eye_spacing'], torch.full_like(p['eye_size'], 0.03), 0.185 * p['eye_size']


def paint_eye(
    albedo: Colour, gloss: torch.Tensor, x: torch.Tensor, y: torch.Tensor, side: int, p: Values, edge: float, skin: Colour
) -> tuple[Colour, torch.Tensor, torch.Tensor]:
    """Paint the eye on `side` (+1 right of the picture, -1 left); returns albedo, highlights `gloss`, opening."""
    ex, ey, unit = eye_layout(p)
    t = (x * side - ex) / unit  # grows outwards; corners at -1 and 1
    h = (y - ey) / unit - p['eye_tilt'] * t
    soft = edge / 0.185
    width2 = (t * t).clamp_(max=1.6)
    arch = 1 - width2
    # Lids: both close on a line below the middle; the upper one travels most of the way. Smiling lifts the lower lid.
    openness = 1 - p['blink']
    smile = p['smile'].clamp(0, 1)
    upper = arch * (-0.26 + openness * (0.98 + 0.10 * p['brow_raise'] + 0.16 * p['gaze_y'].clamp(-1, 1) - 0.10 * smile))
    lower = arch * (-0.30 - openness * (0.36 - 0.20 * smile))
    opening = smoothstep(-soft, soft, torch.minimum(upper - h, h - lower)) * smoothstep(1.04, 0.96, t.abs())
    # Socket, upper lid with its crease, and the lashes.
    socket = torch.exp(-((t * 0.72).square() + ((h - 0.55) * 0.95).square()) * 1.1)
    albedo = mix(albedo, scale(skin, 0.66, 0.50, 0.46), 0.50 * socket)
    crease_at = arch * 0.62 + 0.46
    crease = torch.exp(-((h - crease_at) / (0.10 + soft)).square()) * smoothstep(1.3, 0.5, t.abs())
    albedo = mix(albedo, scale(skin, 0.42, 0.28, 0.24), 0.55 * crease)
    # The ball of the eye: white, shaded at the corners and below the upper lid.
    shade = (1 - 0.30 * width2.clamp(max=1)) * (0.52 + 0.48 * smoothstep(0.02, 0.42, upper - h))
    white = (0.93 * shade, 0.91 * shade, 0.90 * shade)
    albedo = mix(albedo, white, opening)
    gx, gy = side * p['gaze_x'] * 0.34, p['gaze_y'] * 0.26 + 0.06
    radius = ((t - gx).square() + (h - gy).square()).sqrt_()
    disc = smoothstep(0.60 + soft, 0.60 - soft, radius) * opening
    iris = palette(IRIS, p['iris_hue'])
    glow = (0.62 + 0.75 * smoothstep(0.35, -0.65, h - gy)) * (1 - 0.55 * smoothstep(0.44, 0.60, radius))
    glow = glow * (0.55 + 0.45 * smoothstep(0.0, 0.5, upper - h))
    albedo = mix(albedo, (iris[0] * glow, iris[1] * glow, iris[2] * glow), disc)
    albedo = mix(albedo, constant(t, 0.010, 0.007, 0.008), smoothstep(0.30 + soft, 0.30 - soft, radius) * opening)
    lash = torch.exp(-((h - upper - 0.03) / (0.105 + 0.4 * soft)).square()) * smoothstep(1.22, 0.92, t.abs())
    lash = lash * (0.70 + 0.30 * smoothstep(-0.6, 0.9, t))
    albedo = mix(albedo, constant(t, 0.016, 0.009, 0.008), 0.93 * lash)
    lower_lash = torch.exp(-((h - lower + 0.02) / (0.06 + 0.4 * soft)).square()) * smoothstep(1.10, 0.6, t.abs())
    albedo = mix(albedo, scale(skin, 0.35, 0.20, 0.17), 0.45 * lower_lash)
    # Catch lights stay where the lamp is, not where the eye looks.
    lamp = ((t * side - gx * side * 0.75 + 0.20).square() + (h - gy * 0.8 - 0.24).square()).sqrt_()
    gloss = gloss + opening * (0.95 * smoothstep(0.17 + soft, 0.17 - soft, lamp))
    fill = ((t * side - gx * side * 0.75 - 0.24).square() + (h - gy * 0.8 + 0.26).square()).sqrt_()
    return albedo, gloss + opening * 0.22 * smoothstep(0.14 + soft, 0.02, fill), opening


def paint_brow(albedo: Colour, x: torch.Tensor, y: torch.Tensor, side: int, p: Values, hair: Colour) -> Colour:
    """Paint the eyebrow on `side`: an arch that tapers outwards, lifted by brow_raise."""
    ex, ey, unit = eye_layout(p)
    t = (x * side - ex) / unit
    centre = ey + unit * (
        1.52
        + 0.34 * p['brow_raise']
        + 0.16 * (1 - (t - 0.25).square())
        + t * (p['brow_tilt'] - 0.05)
        - 0.12 * p['brow_raise'] * t
    )
    thickness = unit * 0.19 * p['brow_thickness'] * (1 - 0.34 * t.clamp(-1, 1.4))
    mask = torch.exp(-((y - centre) / thickness).square().square_()) * smoothstep(1.28, 0.85, t) * smoothstep(-1.12, -0.75, t)
    return mix(albedo, scale(hair, 0.42, 0.38, 0.38), 0.88 * mask)


# ----------------------------------------------------------------------------
# Mouth and beard.


def mouth_layout(p: Values) -> tuple[torch.Tensor, torch.Tensor]:
    """Height of the closed mouth and its half width, `[N, 1, 1]` in head units."""
    centre = -0.475 * p['face_length'] - 0.015 * p['mouth_open']
    half = 0.215 * p['mouth_size'] * (1 + 0.22 * p['mouth_wide'] + 0.20 * p['smile'].clamp(min=0) * (1 - 0.3 * p['mouth_open']))
    return centre, half


def paint_mouth(
    albedo: Colour, gloss: torch.Tensor, x: torch.Tensor, y: torch.Tensor, p: Values, edge: float, skin: Colour
) -> tuple[Colour, torch.Tensor]:
    """Paint lips, the dark inside, teeth and tongue."""
    centre, half = mouth_layout(p)
    t = x / half
    t2 = (t * t).clamp_(max=1.5)
    arch = (1 - t2).clamp(min=0)
    line = centre + (0.085 * p['smile'] + 0.012) * (t2 - 0.55)
    rounded = (-p['mouth_wide']).clamp(min=0)
    bow = arch.sqrt()  # nearly an ellipse: the open mouth is round at its corners
    top = line + bow * p['mouth_open'] * (0.060 + 0.025 * rounded)
    bottom = line - bow * p['mouth_open'] * (0.185 + 0.030 * rounded - 0.02 * p['mouth_wide'].clamp(min=0))
    full = p['lip_fullness'] * (1 + 0.25 * rounded)
    upper_lip = top + full * (
        0.062 * arch + 0.016 * torch.exp(-((t.abs() - 0.30) / 0.22).square()) - 0.016 * torch.exp(-(t / 0.16).square())
    )
    lower_lip = bottom - full * 0.085 * arch
    soft = edge
    inside_x = smoothstep(1.06, 0.94, t.abs())
    lips = smoothstep(-soft, soft, torch.minimum(upper_lip - y, y - lower_lip)) * inside_x
    tint = from_srgb('#c23b46')[0]
    pale = scale(skin, 0.80, 0.52, 0.50)
    amount = 0.25 + 0.55 * p['lip_colour']
    red = (
        pale[0] + amount * (tint[0] - pale[0]) * 0.75,
        pale[1] + amount * (tint[1] - pale[1]),
        pale[2] + amount * (tint[2] - pale[2]),
    )
    # Light from above: the upper lip lies in shade, the lower one carries a highlight.
    upper_half = smoothstep(-0.012, 0.016, y - line)
    lip_shade = 1.06 - 0.34 * upper_half
    albedo = mix(albedo, (red[0] * lip_shade, red[1] * lip_shade, red[2] * lip_shade), 0.92 * lips)
    gap = smoothstep(-soft * 0.8, soft * 0.8, torch.minimum(top - y, y - bottom)) * inside_x * (p['mouth_open'] * 12).clamp(max=1)
    inside = constant(x, 0.075, 0.012, 0.014)
    albedo = mix(albedo, inside, gap)
    tongue = torch.exp(-((x / (half * 0.62)).square() + ((y - bottom) / 0.075).square()))
    albedo = mix(albedo, constant(x, 0.42, 0.09, 0.09), gap * 0.85 * tongue)
    depth = 0.030 + 0.030 * p['mouth_open'] + 0.015 * p['smile'].clamp(min=0)
    teeth = smoothstep(-soft, soft, y - (top - depth)) * smoothstep(0.92, 0.70, t.abs()) * (1 - 0.45 * rounded)
    albedo = mix(albedo, constant(x, 0.86, 0.82, 0.76), gap * teeth * (0.75 + 0.25 * smoothstep(0.0, 0.03, top - y)))
    closed = (
        torch.exp(-((y - line) / (0.013 + 0.4 * soft)).square())
        * smoothstep(1.16, 0.92, t.abs())
        * (1 - (p['mouth_open'] * 8).clamp(max=1))
    )
    albedo = mix(albedo, scale(red, 0.28, 0.16, 0.17), 0.85 * closed)
    corner = torch.exp(-(((t.abs() - 1.05) * half / 0.045).square() + ((y - line) / 0.04).square()))
    albedo = mix(albedo, scale(skin, 0.55, 0.38, 0.34), 0.45 * corner)
    below = torch.exp(-((x / (0.75 * half)).square() + ((y - lower_lip + 0.05) / 0.040).square()))
    albedo = mix(albedo, scale(skin, 0.70, 0.56, 0.52), 0.38 * below)
    shine = torch.exp(-((x / (0.42 * half)).square() + ((y - bottom + 0.45 * full * 0.085) / 0.020).square()))
    return albedo, gloss + 0.16 * shine * lips


def paint_beard(albedo: Colour, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, p: Values, hair: Colour) -> Colour:
    """Paint a short full beard with moustache; it leaves the lips and the cheeks free."""
    centre, half = mouth_layout(p)
    jawline = -0.20 - 0.30 * torch.exp(-(x / 0.36).square())  # upper edge: high at the ears, low below the cheeks
    full = smoothstep(0.03, -0.07, y - jawline - 0.02 * torch.sin(34 * x + 3 * y))
    moustache = torch.exp(-((y - centre - 0.125) / 0.050).square().square_()) * smoothstep(1.30, 0.95, (x / half).abs())
    chin_gap = torch.exp(
        -(
            (x / (half * 1.02)).square() + ((y - centre + 0.07 * p['mouth_open']) / (0.105 + 0.10 * p['mouth_open'])).square()
        ).square_()
    )
    mask = torch.maximum(full * (1 - 0.9 * chin_gap), moustache) * smoothstep(-0.45, -0.15, z)
    texture = 0.88 + 0.12 * torch.sin(60 * x + 11 * torch.sin(9 * y)) * torch.sin(46 * y)
    dark = scale(hair, 0.62, 0.58, 0.56)
    return mix(albedo, (dark[0] * texture, dark[1] * texture, dark[2] * texture), 0.90 * mask * (p['beard'] * 2.5).clamp(max=1))


def paint_skin(x: torch.Tensor, y: torch.Tensor, p: Values, skin: Colour) -> Colour:
    """Bare skin with blush on cheeks, nose and ears, and the soft shadow below the nose."""
    smile = p['smile'].clamp(0, 1)
    cheek = torch.exp(-(((x.abs() - 0.40) / 0.20).square() + ((y + 0.20 - 0.05 * smile) / 0.16).square()))
    nose = torch.exp(-((x / 0.14).square() + ((y + 0.16) / 0.10).square()))
    ear = smoothstep(0.66, 0.84, x.abs())
    blush = (0.42 + 0.25 * smile) * cheek + 0.34 * nose + 0.35 * ear
    albedo = mix(skin, scale(skin, 1.00, 0.66, 0.62), blush.clamp(max=1))
    below = torch.exp(-((x / (0.13 * p['nose_width'])).square() + ((y + 0.285 + 0.02 * p['nose_size']) / 0.035).square()))
    albedo = mix(albedo, scale(skin, 0.52, 0.34, 0.30), 0.55 * below)
    fold = (
        torch.exp(-(((x.abs() - 0.27 - 0.30 * (-0.25 - y)) / 0.035).square()))
        * smoothstep(-0.20, -0.27, y)
        * smoothstep(-0.52, -0.38, y)
    )
    return mix(albedo, scale(skin, 0.66, 0.50, 0.46), fold * (0.08 + 0.30 * smile))
