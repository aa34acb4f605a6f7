"""The renderer of the hand: true parameters in, pictures out.

Forearm, palm and fifteen phalanges are capsules seen along parallel rays. Fingers bend at three joints towards the camera, the
hand turns around the wrist. Closed-form torch on whole batches: no files, no training, no randomness.
"""

import numpy as np
import torch

from demo.drawing.capsules import Point, capsule, turn
from demo.drawing.colours import HUES, Colour, Values, constant, light, mix, palette, skin_colour
from demo.drawing.pictures import cover, draw
from demo.drawing.surfaces import coverage, join, normals, rotation_matrix, smoothstep
from demo.hand.hand_parameters import FINGERS, TABLE

VIEW = 1.36  # half of the picture's height in hand units
VIEW_CENTRE = -0.06
WRIST = -0.82  # height of the wrist, around which the hand turns
KNUCKLES = {'index': (-0.355, 0.10), 'middle': (-0.12, 0.17), 'ring': (0.12, 0.13), 'little': (0.34, 0.00)}
LENGTHS = {'index': 0.94, 'middle': 1.04, 'ring': 0.96, 'little': 0.76}  # of a finger
PHALANGES = (0.46, 0.30, 0.24)  # parts of a finger's length
BENDS = (1.35, 1.75, 1.15)  # what each joint bends when the finger is curled in
SIDEWAYS = {'index': -1.0, 'middle': -0.30, 'ring': 0.38, 'little': 1.1}  # where fingers go when they spread

# ----------------------------------------------------------------------------
# The skeleton.


def _finger(p: Values, name: str) -> list[Point]:
    """Four joints of a finger, from the knuckle to the tip, before the hand turns."""
    x, y = KNUCKLES[name]
    flexion = p[name]
    side = SIDEWAYS[name] * (0.05 + 0.24 * p['spread'] * (1 - 0.7 * flexion))
    joint: Point = (x * p['palm_width'], torch.full_like(flexion, y), torch.zeros_like(flexion))
    joints, angle = [joint], torch.zeros_like(flexion)
    for part, bend in zip(PHALANGES, BENDS, strict=True):
        angle = angle + bend * flexion
        length = part * LENGTHS[name] * p['finger_length']
        straight = length * angle.cos()
        joint = (joint[0] + side.sin() * straight, joint[1] + side.cos() * straight, joint[2] + length * angle.sin())
        joints.append(joint)
    return joints


def _thumb(p: Values) -> list[Point]:
    """Four joints of the thumb; it swings across the palm and bends."""
    flexion = p['thumb']
    joint: Point = (-0.24 * p['palm_width'], torch.full_like(flexion, -0.58), torch.full_like(flexion, 0.10))
    joints = [joint]
    for part, azimuth, swing, lift in ((0.36, 0.95, 0.75, 0.30), (0.30, 0.75, 1.50, 0.20), (0.25, 0.60, 2.00, 0.05)):
        length = part * p['finger_length']
        angle, rise = azimuth - swing * flexion, lift + 0.35 * flexion
        joint = (
            joint[0] - length * angle.sin() * rise.cos(),
            joint[1] + length * angle.cos() * rise.cos(),
            joint[2] + length * rise.sin(),
        )
        joints.append(joint)
    return joints


# ----------------------------------------------------------------------------
# The picture.


def _render_chunk(p: Values, resolution: int, supersampling: int) -> torch.Tensor:
    """Linear-light pictures and, as fourth channel, where the fingers are: `[N, 4, resolution, resolution]`."""
    size = resolution * supersampling
    spacing = 2 * VIEW / size
    edge = 0.55 * 2 * VIEW / resolution
    axis = (torch.arange(size, dtype=torch.float32) + 0.5) * spacing - VIEW
    num = p['yaw'].shape[0]
    u = axis[None, None, :].expand(num, size, size) - p['shift_x']
    v = (VIEW_CENTRE - axis)[None, :, None].expand(num, size, size) - p['shift_y']
    zero = torch.zeros_like(p['yaw'])
    pivot: Point = (zero, zero + WRIST, zero)
    rotation = rotation_matrix(p['yaw'], -p['pitch'], p['roll'])
    wide, thick = p['palm_width'], p['finger_thickness']

    depths, insides, fingers, knuckle_shades, bands = [], [], [], [], []

    def limb(begin: Point, end: Point, first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        depth, inside, place = capsule(u, v, turn(begin, rotation, pivot), turn(end, rotation, pivot), first, last)
        depths.append(depth)
        insides.append(inside)
        return depth, place

    for name in FINGERS:  # the palm, a ray of it below each finger
        x, y = KNUCKLES[name]
        limb((0.62 * x * wide, zero + WRIST + 0.06, zero), (x * wide, zero + y - 0.04, zero), 0.17 * wide, 0.158 * wide)
    for name, joints in (('thumb', _thumb(p)), *((name, _finger(p, name)) for name in FINGERS)):
        widths = (0.150, 0.122, 0.108, 0.086) if name == 'thumb' else (0.130, 0.118, 0.106, 0.088)
        scale = thick * (0.88 if name == 'little' else 1.0)
        for part in range(3):
            depth, place = limb(joints[part], joints[part + 1], widths[part] * scale, widths[part + 1] * scale)
            fingers.append(depth)
            knuckle_shades.append(0.30 * torch.exp(-(place / 0.16).square()) if part > 0 else torch.zeros_like(place))
            bands.append(torch.exp(-((place - 0.42) / 0.16).square().square()) if (name, part) == ('ring', 0) else None)

    # Skin: one surface, with creases at the joints and blood in the fingertips; what is nearer to the camera gets more light.
    depth, inside = join(depths, 0.022), join(insides, 0.05)
    nearest_finger = torch.stack(fingers).max(dim=0)
    on_finger = coverage((nearest_finger.values - depth + 0.05).clamp(-0.3, 0.3), edge, spacing)
    crease = torch.stack(knuckle_shades).gather(0, nearest_finger.indices[None])[0] * on_finger
    tip = (nearest_finger.indices % 3 == 2) * on_finger
    red, green, blue = skin_colour(p)
    skin: Colour = (red * (1 - 0.6 * crease), green * (1 - crease - 0.10 * tip), blue * (1 - crease - 0.10 * tip))
    for number, band in enumerate(bands):
        if band is not None:
            worn = band * on_finger * (nearest_finger.indices == number) * (4 * p['gold_ring']).clamp(max=1)
            skin = mix(skin, constant(u, 0.86, 0.55, 0.12), worn)
    ambient = 0.58 + 0.42 * smoothstep(-0.25, 0.42, depth)
    lit = light(skin, normals(depth, spacing), ambient, subsurface=0.40, shine=0.05, sharpness=18)

    picture = [channel.clone() for channel in _backdrop(u, v, p)]
    nearest = torch.full_like(u, -1e3)
    forearm = capsule(u, v, (0.5 * p['roll'] + zero, zero - 2.4, zero), (zero, zero + WRIST, zero), zero + 0.34, 0.235 * wide)
    colour = light(skin_colour(p), normals(forearm[0], spacing), zero + 0.72, subsurface=0.40, shine=0.03, sharpness=18)
    nearest = cover(picture, nearest, colour, forearm[0], coverage(forearm[1], edge, spacing), edge, spacing)
    outline = coverage(inside, edge, spacing)
    nearest = cover(picture, nearest, lit, depth, outline, edge, spacing)
    lean = 0.5 * p['roll'] + zero
    sleeve = capsule(u, v, (lean, zero - 2.6, zero), (0.18 * lean, zero + WRIST - 0.28, zero), zero + 0.46, 0.33 * wide)
    hue, value = palette(HUES, p['sleeve_hue']), 0.10 + 0.80 * p['sleeve_lightness']
    cloth: Colour = tuple(0.30 * value * value + 0.85 * value * h for h in hue)  # type: ignore[assignment]
    colour = light(cloth, normals(sleeve[0], spacing), zero + 1.0, subsurface=0.10, shine=0.02, sharpness=16)
    cover(picture, nearest, colour, sleeve[0] + 0.3, coverage(sleeve[1], edge, spacing), edge, spacing)
    image = torch.stack([*picture, on_finger * outline], dim=1)
    return torch.nn.functional.avg_pool2d(image, supersampling) if supersampling > 1 else image


def _backdrop(u: torch.Tensor, v: torch.Tensor, p: Values) -> Colour:
    """A plain wall, lighter towards the upper left."""
    hue = palette(HUES, p['backdrop_hue'])
    value = 0.12 + 0.62 * p['backdrop_lightness']
    level = value * (0.75 + 0.45 * torch.exp(-((u + 0.6).square() + (v - 0.7).square()) / 2.4))
    return level * (0.42 + 0.75 * hue[0]), level * (0.42 + 0.75 * hue[1]), level * (0.42 + 0.75 * hue[2])


@torch.no_grad()
def render_with_features(
    parameters: torch.Tensor | np.ndarray, resolution: int = 64, *, supersampling: int = 1, chunk: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures `[N, 3, resolution, resolution]` in [-1, 1] of hands with these parameters `[N, P]`, and maps of the fingers.

    The maps are `[N, 1, resolution, resolution]` in [0, 1]; supersampling and chunk as in demo/head/talking_head.py.
    """
    return draw(_render_chunk, TABLE, parameters, resolution, supersampling=supersampling, chunk=chunk)
