"""The hand and the car: solids against brute force, renderers whose parameters do what they say, motion, and the networks."""

import functools

import numpy as np
import pytest
import torch

from demo.car import driving
from demo.drawing.capsules import capsule
from demo.drawing.convex import cylinder, polyhedron, surface
from demo.drawing.surfaces import Rays, rotation_matrix
from demo.motion import FPS
from demo.worlds import CAR, HAND, World

WORLDS = pytest.mark.parametrize('world', [HAND, CAR], ids=lambda world: world.name)


def row(world: World, **changes: float) -> np.ndarray:
    """A neutral subject with some parameters changed, `[1, P]`."""
    values = world.table.neutral()
    for name, value in changes.items():
        values[world.table.index[name]] = value
    return values[None]


def picture(world: World, **changes: float) -> np.ndarray:
    """Its picture `[64, 64, 3]`, values in [0, 1]."""
    return (world.render(row(world, **changes), 64)[0][0].permute(1, 2, 0).numpy() + 1) / 2


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((10 * torch.log10(4 / (first - second).square().mean(dim=[1, 2, 3]))).mean())


# ----------------------------------------------------------------------------
# Solids.


def grid(size: int = 41) -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.linspace(-1, 1, size)
    return axis[None, None, :].expand(1, size, size), axis.flip(0)[None, :, None].expand(1, size, size)


@pytest.mark.parametrize('end', [(0.6, 0.3, 0.0), (0.3, -0.5, 0.5), (0.05, 0.1, 0.8), (-0.2, 0.3, -0.6)])
def test_a_capsule_is_the_union_of_its_balls(end: tuple[float, float, float]) -> None:
    u, v = grid()
    begin, radius = (-0.1, -0.1, 0.1), 0.3
    points = [tuple(torch.full((1, 1, 1), value) for value in point) for point in (begin, end)]
    size = torch.full((1, 1, 1), radius)
    depth, inside, place = capsule(u, v, *points, size, size)
    t = torch.linspace(0, 1, 500)[:, None, None]
    centre = [first + t * (last - first) for first, last in zip(begin, end, strict=True)]
    square = radius**2 - (u - centre[0]) ** 2 - (v - centre[1]) ** 2
    balls = torch.where(square > 0, centre[2] + square.clamp(min=0).sqrt(), -1e3)
    wanted, nearest = balls.max(dim=0)
    hit = wanted > -1e2
    assert (hit == (inside[0] > 0)).float().mean() > 0.99
    solid = inside[0] > 0.35
    assert torch.allclose(depth[0][solid], wanted[solid], atol=0.05 * radius)
    assert float((place[0] - nearest / 499)[solid].abs().max()) < 0.03


def test_polyhedron_and_cylinder_are_where_their_points_are() -> None:
    u, v = grid()
    matrix = rotation_matrix(*(torch.full((1, 1, 1), angle) for angle in (0.6, 0.3, 0.2)))
    rays = Rays(*(matrix[0][k] * u + matrix[1][k] * v for k in range(3)), *matrix[2])
    steps = torch.linspace(-1.5, 1.5, 600)[:, None, None]
    x, y, z = (origin + steps * direction for origin, direction in ((rays.x, rays.dx), (rays.y, rays.dy), (rays.z, rays.dz)))
    box = [
        (1.0, 0.0, 0.0, 0.5),
        (-1.0, 0.0, 0.0, 0.5),
        (0.0, 1.0, 0.0, 0.3),
        (0.0, -1.0, 0.0, 0.3),
        (0.0, 0.0, 1.0, 0.4),
        (0.0, 0.0, -1.0, 0.4),
    ]
    for bounds, member in (
        (polyhedron(rays, box, 1e-3), (x.abs() < 0.5) & (y.abs() < 0.3) & (z.abs() < 0.4)),
        (cylinder(rays, torch.full((1, 1, 1), 0.5), 0.2), (x * x + y * y < 0.25) & (z.abs() < 0.2)),
    ):
        depth, inside = surface(bounds)
        wanted = torch.where(member, steps, -1e3).amax(dim=0)
        assert ((wanted > -1e2) == (inside[0] > 0)).float().mean() > 0.98
        thick = inside[0] > 0.15
        assert thick.any()
        assert float((depth[0] - wanted)[thick].abs().max()) < 0.06


# ----------------------------------------------------------------------------
# Renderers.


@WORLDS
def test_rendering_is_deterministic_bounded_and_each_parameter_shows(world: World) -> None:
    rows = world.table.from_latent(torch.from_numpy(np.random.RandomState(0).randn(5, len(world.table))))
    images, features = world.render(rows, 32)
    assert images.shape == (5, 3, 32, 32)
    assert features.shape == (5, 1, 32, 32)
    assert torch.isfinite(images).all()
    assert float(images.abs().max()) <= 1
    assert 0 <= float(features.min()) < 0.01 < 0.5 < float(features.max()) <= 1
    assert torch.equal(images[2:3], world.render(rows[2:3], 32)[0])
    # Views in which everything can be seen: a car from behind and the side, an open hand.
    seen = {'azimuth': -0.4, 'wheel_x': 0.3, 'wheel_y': 0.3}
    base = seen if world is CAR else dict.fromkeys(('index', 'middle', 'ring', 'little', 'thumb'), 0.1)
    neutral = picture(world, **base)
    for parameter in world.table.all:
        assert np.abs(picture(world, **{**base, parameter.name: parameter.high}) - neutral).max() > 0.02, parameter.name


def test_fingers_bend_alone_and_the_hand_turns_with_the_wrist() -> None:
    straight = dict.fromkeys(('index', 'middle', 'ring', 'little', 'thumb'), 0.0)
    opened = picture(HAND, **straight)
    curled = np.abs(picture(HAND, **{**straight, 'index': 1.0}) - opened).sum(axis=2) > 0.1
    assert curled[:, :30].sum() > 60  # the index is the finger on the left
    assert curled[:, 34:].sum() == 0
    fist = picture(HAND, **dict.fromkeys(straight, 1.0))
    background = opened[2, 2]
    skin = [(np.abs(image - background).sum(axis=2) > 0.35)[:44] for image in (opened, fist)]
    assert skin[1].sum() < 0.7 * skin[0].sum()

    def middle_of_fingers(**changes: float) -> float:
        weights = HAND.render(row(HAND, **changes), 64)[1][0, 0].numpy().sum(axis=0)
        return float((weights * np.arange(64)).sum() / weights.sum())

    assert middle_of_fingers(roll=0.35) < middle_of_fingers() - 3 < middle_of_fingers(roll=-0.35) - 6


def test_lamps_light_where_they_are_and_wheels_turn() -> None:
    red = {}
    for azimuth in (-0.8, 0.0, 0.8):
        dark = picture(CAR, azimuth=azimuth)
        flash = picture(CAR, azimuth=azimuth, indicator=1.0) - dark
        assert flash[:, :, 0].max() > 0.25
        assert flash[:, :, 0].sum() > 3 * max(flash[:, :, 2].sum(), 0)  # amber
        assert np.abs(flash[:20]).max() < 0.02
        red[azimuth] = float((picture(CAR, azimuth=azimuth, brake_light=1.0) - dark)[:, :, 0].sum())
    assert red[-0.8] > 2 * red[0.0] > 3 * red[0.8] > 0  # the lamps wrap around the corners, but shine backwards
    turn = [picture(CAR, wheel_x=0.6 * np.cos(angle), wheel_y=0.6 * np.sin(angle)) for angle in (0, np.pi / 2, np.pi, 2 * np.pi)]
    assert np.allclose(turn[0], turn[3], atol=1e-4)
    changed = np.abs(turn[2] - turn[0]).sum(axis=2) > 0.2
    assert changed.sum() > 40
    assert not changed[:30].any()


# ----------------------------------------------------------------------------
# Motion.


@functools.cache
def motion(name: str) -> np.ndarray:
    return {'hand': HAND, 'car': CAR}[name].perform(4000, seed=5).parameters


@WORLDS
def test_one_seed_decides_motion_that_is_smooth_and_never_comes_back(world: World) -> None:
    rows, table = motion(world.name), world.table
    assert np.array_equal(world.perform(300, seed=5).parameters, rows[:300])
    moving = rows[:, table.num_identity :]
    assert np.ptp(rows[:, : table.num_identity], axis=0).max() == 0
    assert np.abs(world.perform(300, seed=6).parameters[:, table.num_identity :] - moving[:300]).max() > 0.2
    for parameter, track in zip(table.motion, moving.T, strict=True):
        span = parameter.high - parameter.low
        assert parameter.low - 0.2 * span <= track.min()
        assert track.max() <= parameter.high + 0.2 * span
        assert track.std() > 0.03 * span, parameter.name
        assert np.abs(np.diff(track)).max() < (0.9 if parameter.kind == 'rare' else 0.55) * span, parameter.name
    statistics = world.judge(rows[:1000], FPS)
    assert statistics['closest_return'] > 0.05
    assert world.judge(np.tile(rows[:200], (5, 1)), FPS)['closest_return'] < 1e-3
    for name, event in world.events.items():
        found = event.find(rows, table)
        assert 10 < len(found) < 200, name
        assert (np.diff(found) > 5).all()
    with pytest.raises(ValueError, match='num_frames'):
        world.perform(0, seed=1)


def test_fingers_go_together_and_the_car_answers_its_driver() -> None:
    column = {name: motion('hand')[:, index] for name, index in HAND.table.index.items()}
    assert np.corrcoef(column['ring'], column['little'])[0, 1] > 0.8
    drive = CAR.perform(4000, seed=5)
    column = {name: drive.parameters[:, index] for name, index in CAR.table.index.items()}
    braking = column['brake_light'] > 0.5
    later = np.roll(braking, 8)[8:]
    assert column['pitch'][8:][later].mean() < column['pitch'][8:][~later].mean() - 0.008  # the nose goes down
    turned = driving.wheel_hertz(column)
    assert np.corrcoef(turned, drive.speed[1:])[0, 1] > 0.99
    assert turned.mean() == pytest.approx(driving.WHEEL_HERTZ * drive.speed[1:].mean(), rel=0.01)
    assert np.corrcoef(column['steer'][1:], np.diff(column['azimuth']))[0, 1] > 0.7
