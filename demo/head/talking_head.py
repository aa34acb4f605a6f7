"""The renderer: true parameters in, pictures of a talking head out.

A head is a few dozen ellipsoids (skull, jaw, cheeks, chin, nose, ears, hair, neck, shoulders) hit by parallel rays, joined
smoothly, painted in head coordinates (`head_paint.py`) and lit by a warm key light, a cool fill, and a rim light. Everything
is closed-form torch on whole batches: no files, no training, no randomness.
"""

import numpy as np
import torch

from demo.drawing.colours import HUES, Colour, Values, light, mix, palette, scale, skin_colour
from demo.drawing.pictures import cover, draw
from demo.drawing.surfaces import Rays, coverage, ellipsoid, join, normals, rotation_matrix, smoothstep
from demo.head.head_geometry import rays_in_head
from demo.head.head_parameters import TABLE

from . import head_paint as paint

VIEW = 1.27  # half of the picture's height in head units
VIEW_CENTRE = -0.01  # height of the picture's middle
FAR = -1e3

# ----------------------------------------------------------------------------
# Parts.


def _head_surface(rays: Rays, p: Values) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and inside measure of the bald head: skull and jaw with soft swellings, and the nose on top."""
    fw, fl, jaw = p['face_width'], p['face_length'], p['jaw_width']
    smile, drop = p['smile'].clamp(0, 1), 0.115 * p['mouth_open']
    chin, nose, wing = p['chin_size'], p['nose_size'], p['nose_width']
    cheek_y, cheek_size = -0.20 + 0.05 * smile, p['cheek_fullness'] * (1 + 0.10 * smile)
    skull = ellipsoid(rays, (0.0, 0.20, -0.08), (0.755 * fw, 0.80, 0.80))
    lower = ellipsoid(rays, (0.0, -0.30 * fl - 0.5 * drop, 0.06), (0.60 * fw * jaw, 0.56 * fl + 0.3 * drop, 0.60))
    outline = [skull[1], lower[1], ellipsoid(rays, (0.0, -0.68 * fl - drop, 0.30), (0.22 * chin * jaw, 0.17 * chin, 0.22))[1]]
    outline += [ellipsoid(rays, (side * 0.35 * fw, cheek_y, 0.30), (0.28 * cheek_size, 0.26, 0.27))[1] for side in (1, -1)]
    depth = join([skull[0], lower[0]], 0.12)
    x, y, _ = rays.at(depth)
    swelling = torch.zeros_like(depth)
    for centre, size, height in (
        ((0.37 * fw, cheek_y), (0.21, 0.18), 0.105 * cheek_size),
        ((-0.37 * fw, cheek_y), (0.21, 0.18), 0.105 * cheek_size),
        ((0.0, -0.69 * fl - drop), (0.17 * chin, 0.11 * chin), 0.085 * chin),
        ((0.0, -0.46 * fl), (0.24, 0.15), 0.060),
        ((0.0, 0.20), (0.50, 0.11), 0.045),
        ((0.30 * p['eye_spacing'], 0.03), (0.15, 0.10), 0.030),
        ((-0.30 * p['eye_spacing'], 0.03), (0.15, 0.10), 0.030),
    ):
        swelling += height * torch.exp(-(((x - centre[0]) / size[0]).square() + ((y - centre[1]) / size[1]).square()))
    bridge = ellipsoid(rays, (0.0, 0.02, 0.575), (0.075 * wing, 0.30, 0.19))[0]
    tip = ellipsoid(rays, (0.0, -0.155, 0.78), (0.118 * wing, 0.10 * nose, 0.135 * nose))[0]
    wings = [ellipsoid(rays, (side * 0.090 * wing, -0.180, 0.72), (0.080, 0.066 * nose, 0.085))[0] for side in (1, -1)]
    return join([depth + swelling, join([bridge, tip, *wings], 0.050)], 0.050), join(outline, 0.10)


def _ears(rays: Rays, p: Values) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and inside measure of both ears."""
    size = p['ear_size']
    parts = [
        ellipsoid(rays, (side * (0.735 * p['face_width'] + 0.05), -0.06, -0.10), (0.135 * size, 0.205 * size, 0.10))
        for side in (1, -1)
    ]
    return torch.maximum(parts[0][0], parts[1][0]), torch.maximum(parts[0][1], parts[1][1])


def _hair_surface(rays: Rays, p: Values) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and inside measure of the hair, before the hairline is cut out."""
    fw, volume = p['face_width'], p['hair_volume']
    puff = 0.04 + 0.17 * volume
    parting = p['hair_parting']
    depths, insides = [], []
    for centre, radii in (
        ((0.0, 0.26 + 0.3 * puff, -0.14), (0.775 * fw + puff, 0.80 + 0.75 * puff, 0.84)),
        ((0.58 * fw, 0.40, 0.02), (0.25 + 0.6 * puff, 0.44, 0.46)),
        ((-0.58 * fw, 0.40, 0.02), (0.25 + 0.6 * puff, 0.44, 0.46)),
    ):
        depth, inside = ellipsoid(rays, centre, radii)
        depths.append(depth)
        insides.append(inside)
    depth = join(depths, 0.12)
    x, y, _ = rays.at(depth)
    quiff = torch.exp(-(((x - 0.30 * parting) / 0.40).square() + ((y - 0.66 - 0.4 * puff) / 0.24).square()))
    return depth + (0.07 + 0.45 * puff) * quiff, join(insides, 0.10)


def _locks(rays: Rays, p: Values) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and inside measure of long hair: a curtain behind the head and a lock on each side."""
    fw, puff = p['face_width'], 0.04 + 0.17 * p['hair_volume']
    long = ((p['hair_length'] - 0.30) / 0.70).clamp(0, 1)
    reach = 0.25 + 1.00 * long
    size = (long * 5).clamp(max=1)
    depths, insides = [], []
    for centre, radii in (
        ((0.0, 0.25 - 0.62 * reach, -0.42), (0.70 * fw + puff + 0.10 * long, 0.30 + 0.72 * reach, 0.42)),
        ((0.70 * fw + 0.5 * puff, 0.30 - 0.60 * reach, -0.10), ((0.15 + 0.4 * puff) * size + 0.02, 0.20 + 0.62 * reach, 0.30)),
        ((-0.70 * fw - 0.5 * puff, 0.30 - 0.60 * reach, -0.10), ((0.15 + 0.4 * puff) * size + 0.02, 0.20 + 0.62 * reach, 0.30)),
    ):
        depth, inside = ellipsoid(rays, centre, radii)
        depths.append(depth)
        insides.append(inside)
    return join(depths, 0.06), join(insides, 0.08) - (1 - size) * 4


def _hairline(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, p: Values) -> torch.Tensor:
    """How far (head units, roughly) a point of the hair's surface lies on the hair's side of the hairline."""
    fringe, parting = p['hair_fringe'], p['hair_parting']
    swept = x - 0.30 * parting
    wave = 0.020 * torch.sin(17 * x + 2.0 * parting) + 0.012 * torch.sin(31 * x + 1.0)
    height = 0.66 - 0.36 * fringe + (0.14 - 0.20 * fringe) * torch.exp(-(swept / 0.20).square())
    line = height - 1.15 * (x.abs() - 0.36 * p['face_width']).clamp(min=0).square() + wave * (0.4 + fringe)
    above = y - line
    back = -0.10 - z + 0.25 * (y - 0.10).clamp(-0.5, 0)  # behind the ears the hair goes down to the nape
    return torch.maximum(above, torch.minimum(back, y + 0.15 + 0.45 * p['hair_length']))


def _body(u: torch.Tensor, v: torch.Tensor, p: Values) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depth and inside measure of neck and shoulders, and how far the neck's skin is from the collar (> 0: skin)."""
    zero, one = torch.zeros_like(p['yaw']), torch.ones_like(p['yaw'])
    lift = 0.022 * p['breath']
    rays = Rays(u - 0.35 * p['shift_x'], v - 0.35 * p['shift_y'], torch.zeros_like(u), zero, zero, one)
    lean_x = 0.45 * p['shift_x'] - 0.06 * p['roll']
    neck = ellipsoid(rays, (lean_x, -1.02 + 0.3 * lift, -0.18), (0.33 * p['jaw_width'].sqrt(), 0.66, 0.34))
    chest = ellipsoid(rays, (0.0, -1.90 + lift, -0.30), (1.30 * (1 + 0.25 * lift), 0.80 + 0.5 * lift, 0.62))
    trapezius = ellipsoid(rays, (0.0, -1.38 + lift, -0.34), (0.64, 0.34, 0.40))
    depth = join([neck[0], chest[0], trapezius[0]], 0.06)
    inside = join([neck[1], chest[1], trapezius[1]], 0.10)
    collar = rays.y + 1.12 - lift - 0.55 * (rays.x - lean_x).square()
    return depth, inside, collar


# ----------------------------------------------------------------------------
# Surroundings.


def _backdrop(u: torch.Tensor, v: torch.Tensor, p: Values) -> Colour:
    """A softly lit studio wall with a glow behind the head."""
    hue = palette(HUES, p['backdrop_hue'])
    light = 0.14 + 0.66 * p['backdrop_lightness']
    grey = 0.32
    base = tuple((grey * light + (1 - grey) * light * h * 1.35) for h in hue)
    glow = torch.exp(-((u + 0.35).square() + (v - 0.35).square()) / 1.6)
    level = 0.58 + 0.66 * glow
    return base[0] * level, base[1] * level, base[2] * level


# ----------------------------------------------------------------------------
# The picture.


def _render_chunk(p: Values, resolution: int, supersampling: int) -> torch.Tensor:
    """Linear-light pictures and, as fourth channel, the feature map: `[N, 4, resolution, resolution]`."""
    size = resolution * supersampling
    spacing = 2 * VIEW / size
    edge = 0.55 * 2 * VIEW / resolution
    axis = (torch.arange(size, dtype=torch.float32) + 0.5) * spacing - VIEW
    num = p['yaw'].shape[0]
    u = axis[None, None, :].expand(num, size, size)
    v = (VIEW_CENTRE - axis)[None, :, None].expand(num, size, size)

    rotation = rotation_matrix(p['yaw'], p['pitch'], p['roll'])
    rays = rays_in_head(u, v, rotation, (p['shift_x'], p['shift_y']))
    skin, hair = skin_colour(p), paint.hair_colour(p)
    picture = [channel.clone() for channel in _backdrop(u, v, p)]
    nearest = torch.full_like(picture[0], FAR)

    depth, inside = _locks(rays, p)
    colour = _hair_colour(rays, depth, spacing, p, hair, is_cap=False)
    nearest = cover(picture, nearest, colour, depth, coverage(inside, edge, spacing), edge, spacing)

    depth, inside, collar = _body(u, v, p)
    colour = _body_colour(u, v, depth, collar, spacing, edge, p, skin)
    nearest = cover(picture, nearest, colour, depth, coverage(inside, edge, spacing), edge, spacing)

    depth, inside = _ears(rays, p)
    x, y, z = rays.at(depth)
    line = _hairline(x, y, z, p)
    ambient = (1 - 0.42 * smoothstep(-0.16, 0.02, line)) * (0.72 + 0.28 * smoothstep(0.0, 0.12, inside))
    colour = light(paint.paint_skin(x, y, p, skin), normals(depth, spacing), ambient, subsurface=0.45, shine=0.05, sharpness=16)
    nearest = cover(picture, nearest, colour, depth, coverage(inside, edge, spacing), edge, spacing)

    depth, inside = _head_surface(rays, p)
    colour = _face_colour(rays, depth, spacing, edge, p, skin, hair)
    head = coverage(inside, edge, spacing)
    features = _feature_map(rays, depth, p) * head
    nearest = cover(picture, nearest, colour, depth, head, edge, spacing)

    depth, inside = _hair_surface(rays, p)
    x, y, z = rays.at(depth)
    line = _hairline(x, y, z, p)
    colour = _hair_colour(rays, depth, spacing, p, hair, is_cap=True)
    # Where no face lies behind the edge of the hair, the hair goes on a little, so that no gap shows when the head turns.
    shown = torch.maximum(smoothstep(-edge, edge, line), (1 - head) * smoothstep(-0.32, -0.24, line) * smoothstep(0.03, 0.07, y))
    nearest = cover(picture, nearest, colour, depth, coverage(inside, edge, spacing) * shown, edge, spacing)

    _glasses(picture, nearest, rays, p, edge)
    image = torch.stack([*picture, features], dim=1)
    return torch.nn.functional.avg_pool2d(image, supersampling) if supersampling > 1 else image


def _face_colour(rays: Rays, depth: torch.Tensor, spacing: float, edge: float, p: Values, skin: Colour, hair: Colour) -> Colour:
    """The painted, lit face."""
    x, y, z = rays.at(depth)
    bare = paint.paint_skin(x, y, p, skin)
    gloss = torch.zeros_like(x)
    front = smoothstep(-0.05, 0.12, z)
    matte = torch.ones_like(x)  # the eyes bring highlights of their own
    albedo = paint.paint_beard(bare, x, y, z, p, hair)
    for side in (1, -1):
        albedo, gloss, opening = paint.paint_eye(albedo, gloss, x, y, side, p, edge, skin)
        matte = matte - opening
        albedo = paint.paint_brow(albedo, x, y, side, p, hair)
    albedo, gloss = paint.paint_mouth(albedo, gloss, x, y, p, edge, skin)
    albedo = mix(bare, albedo, front)
    ambient = 1 - 0.42 * smoothstep(-0.16, 0.02, _hairline(x, y, z, p))  # the hair shades the forehead below the hairline
    red, green, blue = light(albedo, normals(depth, spacing), ambient, subsurface=0.38, shine=0.085 * matte, sharpness=22)
    gloss = gloss * front
    return red + gloss, green + gloss, blue + gloss


def _feature_map(rays: Rays, depth: torch.Tensor, p: Values) -> torch.Tensor:
    """Where eyes, brows and mouth are, `[N, H, W]` in [0, 1]: small in area, large in meaning."""
    x, y, z = rays.at(depth)
    ex, ey, unit = paint.eye_layout(p)
    centre, half = paint.mouth_layout(p)
    eyes = torch.exp(-(((x.abs() - ex) / (1.05 * unit)).square() + ((y - ey - 0.3 * unit) / (1.15 * unit)).square()).square())
    mouth = torch.exp(
        -(
            (x / (1.25 * half)).square() + ((y - centre + 0.05 * p['mouth_open']) / (0.11 + 0.10 * p['mouth_open'])).square()
        ).square()
    )
    return torch.maximum(eyes, mouth) * smoothstep(-0.05, 0.12, z)


def _body_colour(
    u: torch.Tensor,
    v: torch.Tensor,
    depth: torch.Tensor,
    collar: torch.Tensor,
    spacing: float,
    edge: float,
    p: Values,
    skin: Colour,
) -> Colour:
    """Neck and clothes, lit, with the shadow of the chin."""
    hue = palette(HUES, p['cloth_hue'])
    value = 0.10 + 0.80 * p['cloth_lightness']
    cloth: Colour = tuple(0.30 * value * value + 0.85 * value * h for h in hue)  # type: ignore[assignment]
    albedo = mix(skin, cloth, smoothstep(edge, -edge, collar))
    albedo = mix(albedo, scale(cloth, 0.70, 0.70, 0.73), 0.8 * torch.exp(-((collar + 0.055) / 0.024).square()))
    chin = -0.86 * p['face_length'] - 0.10 * p['mouth_open'] + p['shift_y'] + 0.30 * p['pitch']
    across = (u - 0.7 * p['shift_x'] - 0.45 * p['yaw'] - 0.06) / 0.55
    shadow = 1 - 0.62 * smoothstep(-0.46, 0.05, v - chin) * torch.exp(-across.square())
    return light(albedo, normals(depth, spacing), shadow, subsurface=0.20, shine=0.02, sharpness=16)


def _hair_colour(rays: Rays, depth: torch.Tensor, spacing: float, p: Values, hair: Colour, *, is_cap: bool) -> Colour:
    """Strands along the flow of the hair, with a ring of light around the crown."""
    x, y, z = rays.at(depth)
    if is_cap:
        flow = (x - 0.30 * p['hair_parting']) / (0.55 + 0.75 * (1.15 - y).clamp(0, 1.2))
        ambient = 0.62 + 0.38 * smoothstep(0.0, 0.14, _hairline(x, y, z, p))
    else:
        flow = x / (0.55 + 0.10 * (y + 1).abs())
        ambient = 0.55 + 0.45 * smoothstep(-1.2, 0.2, y)
    strands = 0.5 * torch.sin(26 * flow + 3.0 * y) + 0.5 * torch.sin(47 * flow - 2.0 * y + 1.3)
    nx, ny, nz = normals(depth, spacing)
    ring = torch.exp(-((ny - 0.52 - 0.04 * strands) / 0.17).square()) * (nz + 0.2).clamp(0, 1)
    gleam = (0.10 + 0.10 * p['hair_darkness']) * ring
    tone = 0.86 + 0.15 * strands + 1.6 * gleam
    albedo = (hair[0] * tone + 0.10 * gleam, hair[1] * tone + 0.09 * gleam, hair[2] * tone + 0.08 * gleam)
    return light(albedo, (nx, ny, nz), ambient, subsurface=0.06, shine=0.03, sharpness=18)


def _glasses(picture: list[torch.Tensor], nearest: torch.Tensor, rays: Rays, p: Values, edge: float) -> None:
    """Lay dark-rimmed glasses over the picture, in place: two rims and a bridge in a plane before the eyes, arms to the ears."""
    ex, ey, unit = paint.eye_layout(p)
    front, thick = 0.82, 0.024
    depth = (front - rays.z) / rays.dz
    x, y, _ = rays.at(depth)
    t, h = (x.abs() - ex * 1.05) / (1.36 * unit), (y - ey + 0.04) / (1.22 * unit)
    reach = (t.square().square() + h.square().square() + 1e-9).sqrt().sqrt() - 1
    rim = smoothstep(thick + edge, thick - edge, reach.abs() * 1.3 * unit)
    inner = ex * 1.05 - 1.36 * unit
    bridge = smoothstep(thick + edge, thick - edge, (y - ey - 0.05).abs()) * (x.abs() < inner)
    dark = torch.maximum(rim, bridge)
    glare = smoothstep(0.02, -0.02, reach) * (0.05 + 0.06 * smoothstep(0.10, 0.04, (t - 0.55 * h + 0.35 * x.sign()).abs() - 0.06))
    outer, spread = ex * 1.05 + 1.30 * unit, 0.25
    for side in (1, -1):  # an arm lies in the slanted plane side x = outer + spread (front - z)
        at = (side * (outer + spread * (front - rays.z)) - rays.x) / (rays.dx + side * spread * rays.dz + 1e-4)
        _, arm_y, arm_z = rays.at(at)
        arm = smoothstep(thick + edge, thick - edge, (arm_y - ey - 0.05).abs()) * (arm_z < front) * smoothstep(-0.10, 0.0, arm_z)
        dark = torch.maximum(dark, arm * ((at - nearest) * 30 + 0.5).clamp(0, 1) * (side * rays.dx + spread * rays.dz > 0))
    amount = (p['glasses'] * 4).clamp(max=1)
    for channel, rim_value in zip(picture, (0.020, 0.016, 0.018), strict=True):
        channel += glare * amount * (1 - channel)
        channel += 0.95 * dark * amount * (rim_value - channel)


@torch.no_grad()
def render_with_features(
    parameters: torch.Tensor | np.ndarray, resolution: int = 128, *, supersampling: int = 1, chunk: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures as `render` gives them, and maps `[N, 1, resolution, resolution]` in [0, 1] of where eyes and mouth are."""
    return draw(_render_chunk, TABLE, parameters, resolution, supersampling=supersampling, chunk=chunk)


def render(
    parameters: torch.Tensor | np.ndarray, resolution: int = 128, *, supersampling: int = 1, chunk: int = 8
) -> torch.Tensor:
    """Pictures `[N, 3, resolution, resolution]`, float32 in [-1, 1], RGB, of heads with these true parameters.

    parameters:     `[N, NUM_PARAMETERS]`, columns as in `head_parameters.NAMES`.
    supersampling:  samples a pixel along each axis, on top of the edges' own smoothing.
    chunk:          heads rendered at once (memory and cache, not the result).
    """
    return render_with_features(parameters, resolution, supersampling=supersampling, chunk=chunk)[0]
