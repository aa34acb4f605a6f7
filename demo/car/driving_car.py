"""The renderer of the car: true parameters in, pictures out.

Body and cabin are convex polyhedra with rounded edges, wheels are cylinders, lights sit on their corners, all seen along parallel
rays from a camera that goes around the car. Closed-form torch on whole batches: no files, no training, no randomness.
"""

import numpy as np
import torch

from demo.car.car_parameters import TABLE
from demo.drawing.colours import HUES, Colour, Values, constant, light, mix, palette
from demo.drawing.convex import Plane, cylinder, polyhedron, surface
from demo.drawing.pictures import cover, draw
from demo.drawing.surfaces import Rays, coverage, join, normals, smoothstep

VIEW = 1.16  # half of the picture's height in car units
VIEW_CENTRE = 0.30
WIDTH = 0.43  # half of the car's
BELT = 0.52  # where the windows begin
AXLES = 0.60  # distance of the axles from the middle

Matrix = list[list[torch.Tensor]]

# ----------------------------------------------------------------------------
# Frames. Axes of the car: x forward, y up, z to the side that the camera sees.


def _turn(angle: torch.Tensor, first: int, second: int) -> Matrix:
    """Rotation by `angle` that takes axis `first` towards axis `second`."""
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    matrix = [[one if row == column else zero for column in range(3)] for row in range(3)]
    matrix[first][first] = matrix[second][second] = angle.cos()
    matrix[second][first], matrix[first][second] = angle.sin(), -angle.sin()
    return matrix


def _product(a: Matrix, b: Matrix) -> Matrix:
    return [[a[i][0] * b[0][j] + a[i][1] * b[1][j] + a[i][2] * b[2][j] for j in range(3)] for i in range(3)]


def _rays(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, matrix: Matrix) -> Rays:
    """Rays along the camera's z axis through these points, in the frame that `matrix` turns into the camera's."""
    return Rays(*(matrix[0][k] * x + matrix[1][k] * y + matrix[2][k] * z for k in range(3)), *matrix[2])


def _moved(rays: Rays, x: torch.Tensor | float, y: torch.Tensor | float, z: torch.Tensor | float) -> Rays:
    """The same rays around another origin."""
    return Rays(rays.x - x, rays.y - y, rays.z - z, rays.dx, rays.dy, rays.dz)


# ----------------------------------------------------------------------------
# Parts.


def _body_planes(p: Values) -> list[Plane]:
    """The lower body: hood and boot slope, nose and tail are bevelled, corners are cut."""
    long = p['length']
    return [
        (0.0, -1.0, 0.0, -0.15), (0.0, 1.0, 0.0, BELT + 0.02), (0.16, 0.987, 0.0, BELT + 0.04), (-0.06, 0.998, 0.0, BELT + 0.03),
        (1.0, 0.0, 0.0, long), (-1.0, 0.0, 0.0, long), (0.85, -0.53, 0.0, 0.85 * long - 0.10),
        (-0.90, -0.44, 0.0, 0.90 * long - 0.09),
        *((0.0, 0.14, side, WIDTH + 0.05) for side in (1.0, -1.0)),
        *((end * 0.62, 0.0, side * 0.78, 0.62 * long + 0.78 * WIDTH - 0.12) for side in (1.0, -1.0) for end in (1.0, -1.0)),
    ]  # fmt: skip


def _cabin_planes(p: Values) -> list[Plane]:
    """The cabin: roof first, then windscreen, rear window, both sides, and the belt below."""
    place, slope = p['cabin_place'], 0.25 + 0.60 * p['rear_slope']
    return [
        (0.0, 1.0, 0.0, BELT + p['cabin_height']),
        (0.72, 0.694, 0.0, 0.72 * (place + 0.56) + 0.694 * BELT),
        (-(1 - slope * slope).sqrt(), slope, 0.0, (1 - slope * slope).sqrt() * (0.62 - place) + slope * BELT),
        (0.0, 0.32, 1.0, WIDTH - 0.03 + 0.32 * BELT),
        (0.0, 0.32, -1.0, WIDTH - 0.03 + 0.32 * BELT),
        (0.0, -1.0, 0.0, -BELT + 0.10),
    ]


def _glass(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, planes: list[Plane], p: Values) -> torch.Tensor:
    """How much of a point of the cabin is window: away from all edges, not on the roof, and not on the pillar in the middle."""
    ways = torch.stack([height - (a * x + b * y + c * z) for a, b, c, height in planes[:5]])
    second = ways.topk(2, dim=0, largest=False).values[1]
    pillar = smoothstep(0.010, 0.045, (x - p['cabin_place'] + 0.06).abs()) + smoothstep(0.03, 0.08, WIDTH - 0.1 - z.abs())
    window = smoothstep(0.015, 0.060, second) * smoothstep(0.015, 0.05, ways[0]) * smoothstep(0.02, 0.05, y - BELT)
    return window * pillar.clamp(max=1)


def _spot(
    x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, at: tuple[torch.Tensor | float, ...], size: tuple[float, float, float]
) -> torch.Tensor:
    """A rounded patch around a point in space, 1 in its middle."""
    ways = [((value - centre) / reach).square() for value, centre, reach in zip((x, y, z), at, size, strict=True)]
    return torch.exp(-(ways[0] + ways[1] + ways[2]).square())


def _wheel(rays: Rays, p: Values, spacing: float) -> tuple[Colour, torch.Tensor, torch.Tensor]:
    """Colour, depth and inside measure of a wheel around the origin."""
    radius = p['wheel_size']
    depth, inside = surface(cylinder(rays, radius, 0.085))
    x, y, z = rays.at(depth)
    distance = (x * x + y * y + 1e-9).sqrt()
    cosine, sine = x / distance, y / distance
    triple_cosine, triple_sine = cosine * (4 * cosine.square() - 3), sine * (3 - 4 * sine.square())  # of three times the angle
    length = (p['wheel_x'].square() + p['wheel_y'].square() + 1e-6).sqrt()
    spokes = smoothstep(-0.35, 0.35, (triple_cosine * p['wheel_x'] + triple_sine * p['wheel_y']) / length)
    rim = smoothstep(0.80, 0.66, distance / radius) * smoothstep(0.05, 0.07, z)
    hub = smoothstep(0.24, 0.14, distance / radius)
    shade = rim * (0.10 + 0.62 * p['rim_lightness'] * torch.maximum(spokes, hub)) + (1 - rim) * 0.025
    lit = light((shade, shade, shade), normals(depth, spacing), torch.ones_like(shade), subsurface=0.0, shine=0.04, sharpness=20)
    return lit, depth, inside


# ----------------------------------------------------------------------------
# The picture.


def _render_chunk(p: Values, resolution: int, supersampling: int) -> torch.Tensor:
    """Linear-light pictures and, as fourth channel, where wheels and lights are: `[N, 4, resolution, resolution]`."""
    size = resolution * supersampling
    spacing = 2 * VIEW / size
    edge = 0.55 * 2 * VIEW / resolution
    axis = (torch.arange(size, dtype=torch.float32) + 0.5) * spacing - VIEW
    num = p['azimuth'].shape[0]
    u = axis[None, None, :].expand(num, size, size) - p['shift_x']
    v = (VIEW_CENTRE - axis)[None, :, None].expand(num, size, size)
    middle = 0.35  # height around which the camera goes and the body sways
    around = _product(_turn(p['elevation'], 1, 2), _turn(-p['azimuth'], 2, 0))
    chassis = _moved(_rays(u, v - middle, torch.zeros_like(u), around), 0.0, -middle, 0.0)
    sway = _product(_turn(p['pitch'], 0, 1), _turn(p['roll'], 1, 2))
    lifted = _moved(chassis, 0.0, middle + p['heave'], 0.0)
    body = Rays(
        *(sway[0][k] * lifted.x + sway[1][k] * lifted.y + sway[2][k] * lifted.z for k in range(3)),
        *(sway[0][k] * lifted.dx + sway[1][k] * lifted.dy + sway[2][k] * lifted.dz for k in range(3)),
    )
    body = _moved(body, 0.0, -middle, 0.0)

    picture = [channel.clone() for channel in _surroundings(u, v, chassis, p)]
    nearest = torch.full_like(u, -1e3)
    features = torch.zeros_like(u)
    for side in (-1, 1):
        for end in (-1, 1):
            wheel = _moved(chassis, end * AXLES * p['length'], p['wheel_size'], side * (WIDTH - 0.075))
            if end > 0:
                steer = _turn(p['steer'], 0, 2)
                wheel = Rays(
                    *(steer[0][k] * wheel.x + steer[1][k] * wheel.y + steer[2][k] * wheel.z for k in range(3)),
                    *(steer[0][k] * wheel.dx + steer[1][k] * wheel.dy + steer[2][k] * wheel.dz for k in range(3)),
                )
            colour, depth, inside = _wheel(wheel, p, spacing)
            shown = coverage(inside, edge, spacing)
            if side > 0:
                features = torch.maximum(features, shown)
            nearest = cover(picture, nearest, colour, depth, shown, edge, spacing)
    colour, depth, inside, lamps = _coachwork(body, p, spacing)
    shown = coverage(inside, edge, spacing) * (1 - _arches(body, depth, p))
    cover(picture, nearest, colour, depth, shown, edge, spacing)
    _glow(picture, u, v, around, p)
    image = torch.stack([*picture, torch.maximum(features, lamps * shown).clamp(0, 1)], dim=1)
    return torch.nn.functional.avg_pool2d(image, supersampling) if supersampling > 1 else image


def _arches(body: Rays, depth: torch.Tensor, p: Values) -> torch.Tensor:
    """Where the sides are cut out around the wheels, `[N, H, W]` in [0, 1]."""
    x, y, z = body.at(depth)
    reach = p['wheel_size'] * 1.14
    ways = [((x - end * AXLES * p['length']).square() + (y - p['wheel_size']).square() + 1e-9).sqrt() for end in (-1, 1)]
    return smoothstep(0.02, -0.02, torch.minimum(*ways) - reach) * smoothstep(WIDTH - 0.10, WIDTH - 0.05, z)


def _coachwork(body: Rays, p: Values, spacing: float) -> tuple[Colour, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colour, depth and inside measure of body and cabin, and where the lamps are."""
    planes = _cabin_planes(p)
    lower, cabin = surface(polyhedron(body, _body_planes(p), 0.022)), surface(polyhedron(body, planes, 0.022))
    depth, inside = join([lower[0], cabin[0]], 0.012), join([lower[1], cabin[1]], 0.02)
    x, y, z = body.at(depth)
    hue, value = palette(HUES, p['paint_hue']), 0.08 + 0.80 * p['paint_lightness']
    paint: Colour = tuple(0.22 * value * value + 0.90 * value * h for h in hue)  # type: ignore[assignment]
    long = p['length']
    dark = constant(x, 0.02, 0.022, 0.026)
    colour = mix(paint, dark, smoothstep(0.235, 0.195, y))  # sills and bumpers
    door = smoothstep(0.022, 0.008, (x - p['cabin_place'] + 0.04).abs()) * smoothstep(BELT, BELT - 0.03, y)
    colour = mix(colour, dark, 0.45 * door)
    colour = mix(colour, dark, smoothstep(0.93, 0.97, x / long) * _spot(x, y, z, (long, 0.30, 0.0), (0.2, 0.05, 0.22)))
    glass = _glass(x, y, z, planes, p) * smoothstep(-0.02, 0.02, cabin[0] - lower[0])
    nx, ny, nz = normals(depth, spacing)
    sky = 0.10 + 0.30 * (0.5 * ny + 0.5).clamp(0, 1)
    colour = mix(colour, (0.10 * sky, 0.13 * sky, 0.17 * sky), glass)
    red, green, blue = light(colour, (nx, ny, nz), torch.ones_like(x), subsurface=0.0, shine=0.16 + 0.10 * glass, sharpness=26)
    red, green, blue = red + 0.06 * glass * sky, green + 0.08 * glass * sky, blue + 0.11 * glass * sky

    head, tail = (
        _spot(x, y, z, (end * long, height, 0.30), size) + _spot(x, y, z, (end * long, height, -0.30), size)
        for end, height, size in ((1, 0.42, (0.10, 0.062, 0.105)), (-1, 0.44, (0.10, 0.070, 0.105)))
    )
    front, rear = (_spot(x, y, z, (end * (long - 0.08), 0.36, WIDTH - 0.02), (0.085, 0.055, 0.09)) for end in (1, -1))
    amber = front + rear
    lit, brake = p['indicator'], p['brake_light']
    lamps = mix((red, green, blue), constant(x, 0.85, 0.85, 0.80), head)
    lamps = mix(lamps, (0.22 + 1.5 * brake, 0.012 + 0.10 * brake, 0.012 + 0.07 * brake), tail)
    lamps = mix(lamps, (0.30 + 1.5 * lit, 0.11 + 0.75 * lit, 0.01 + 0.06 * lit), amber)
    return lamps, depth, inside, (head + tail + 1.5 * amber).clamp(0, 1)


def _glow(picture: list[torch.Tensor], u: torch.Tensor, v: torch.Tensor, around: Matrix, p: Values) -> None:
    """Add the light that lit lamps shed around them, in place, as far as they face the camera."""
    for end, strength, tint in ((1, p['indicator'], (0.50, 0.24, 0.02)), (-1, p['indicator'], (0.50, 0.24, 0.02)),
                                (-1, p['brake_light'], (0.60, 0.04, 0.03))):  # fmt: skip
        brake = tint[1] < 0.1
        x, y, z = end * (p['length'] - 0.05), 0.40 - 0.35, 0.0 if brake else WIDTH
        at_u = around[0][0] * x + around[0][1] * y + around[0][2] * z
        at_v = around[1][0] * x + around[1][1] * y + around[1][2] * z + 0.35
        facing = around[2][0] * end
        seen = smoothstep(-0.10, 0.45, facing) if brake else smoothstep(-0.75, -0.35, facing)
        halo = strength * seen * torch.exp(-((u - at_u).square() + (v - at_v).square()) / (0.13 if brake else 0.028))
        for channel, amount in zip(picture, tint, strict=True):
            channel += (0.45 if brake else 0.8) * amount * halo


def _surroundings(u: torch.Tensor, v: torch.Tensor, chassis: Rays, p: Values) -> Colour:
    """A studio: a floor that rounds into a wall, and the shadow under the car."""
    hue = palette(HUES, p['backdrop_hue'])
    value = 0.14 + 0.60 * p['backdrop_lightness']
    wall: Colour = tuple(value * (0.38 + 0.80 * h) * (1.05 - 0.25 * v) for h in hue)  # type: ignore[assignment]
    floor = (0.10 + 0.45 * p['ground_lightness']) * (0.85 + 0.25 * torch.exp(-(u.square() + v.square()) / 0.9))
    base = mix((floor, floor, 1.04 * floor), wall, smoothstep(0.25, 0.75, v))
    depth = -chassis.y / chassis.dy.clamp(min=0.05)
    x, _, z = chassis.at(depth)
    shade = 1 - 0.72 * torch.exp(-(((x / (1.04 * p['length'])).square() + (z / 0.50).square()).square()))
    return base[0] * shade, base[1] * shade, base[2] * shade


@torch.no_grad()
def render_with_features(
    parameters: torch.Tensor | np.ndarray, resolution: int = 64, *, supersampling: int = 1, chunk: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures `[N, 3, resolution, resolution]` in [-1, 1] of cars with these parameters `[N, P]`, and maps of wheels and lamps.

    The maps are `[N, 1, resolution, resolution]` in [0, 1]; supersampling and chunk as in demo/head/talking_head.py.
    """
    return draw(_render_chunk, TABLE, parameters, resolution, supersampling=supersampling, chunk=chunk)
