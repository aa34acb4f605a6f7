"""The hand and the car: solids against brute force, renderers whose parameters do what they say, motion, and the networks."""

import functools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from demo.car import driving
from demo.car.car_world import CAR
from demo.drawing.capsules import capsule
from demo.drawing.convex import cylinder, polyhedron, surface
from demo.drawing.pictures import to_uint8
from demo.drawing.surfaces import Rays, rotation_matrix
from demo.hand.hand_world import HAND
from demo.judge import identity_drift
from demo.motion import FPS
from demo.run_demo import make_footage
from demo.truth_reader import load_reader
from demo.worlds import FOLDER, World, find_world
from networks.checkpoints import file_sha256, load_encoder, load_generator
from training.latents.dataset import LatentDataset

GENERATOR_PSNR = {'hand': 25.0, 'car': 28.0}  # dB, fitted against rendered subjects that the fit never saw
ENCODER_PSNR = {'hand': 22.0, 'car': 25.0}  # dB, footage of an unseen subject through encoder and generator
READ_BACK = {  # correlation of what is read from rendered footage with the truth, at least
    'hand': {'index': 0.85, 'middle': 0.85, 'ring': 0.8, 'little': 0.8, 'yaw': 0.8, 'roll': 0.85},
    'car': {'azimuth': 0.9, 'elevation': 0.8, 'wheel_x': 0.85, 'wheel_y': 0.85, 'heave': 0.8},
}
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


# ----------------------------------------------------------------------------
# The fitted networks.


@WORLDS
def test_files_are_small_and_are_those_that_were_made(world: World) -> None:
    about = json.loads((FOLDER / world.about_file).read_text())
    assert about['parameters'] == list(world.table.names)
    assert set(about['sha256']) == set(world.files)
    for name, digest in about['sha256'].items():
        assert (FOLDER / name).stat().st_size < 2_500_000, name
        assert file_sha256(FOLDER / name) == digest, name


@WORLDS
def test_generator_agrees_with_the_renderer(world: World) -> None:
    G = load_generator(FOLDER / world.generator_file)
    assert (G.z_dim, G.img_resolution, G.img_channels) == (len(world.table), 64, 3)
    z = torch.from_numpy(np.random.RandomState(123456).randn(64, G.z_dim)).to(torch.float32)
    with torch.no_grad():
        made, middle = G(z, None, noise_mode='const'), G(z[:2], None, truncation_psi=0, noise_mode='const')
    assert psnr(made, world.render(world.table.from_latent(z), 64)[0]) > GENERATOR_PSNR[world.name]
    assert torch.allclose(middle[0], middle[1], atol=1e-5)


@functools.cache
def footage(name: str) -> tuple[np.ndarray, torch.Tensor]:
    """Parameters and pictures of 300 frames of a subject that no fit has seen."""
    world = find_world(name)
    rows = world.perform(300, seed=77).parameters
    return rows, world.render(rows, 64)[0]


@WORLDS
def test_encoder_reconstructs_footage_with_smooth_codes(world: World) -> None:
    G, encoder = load_generator(FOLDER / world.generator_file), load_encoder(FOLDER / world.encoder_file)
    _, pictures = footage(world.name)
    with torch.no_grad():
        codes = encoder(pictures)
        again = G.synthesis(codes[::10], noise_mode='const')
    assert codes.shape == (300, G.num_ws, G.w_dim)
    assert psnr(again, pictures[::10]) > ENCODER_PSNR[world.name]
    steps = (codes[1:] - codes[:-1]).square().mean().sqrt()
    assert float(steps) < 0.5 * float((codes - codes.mean(dim=0)).square().mean().sqrt())


@WORLDS
def test_truth_is_read_back(world: World) -> None:
    rows, pictures = footage(world.name)
    read = load_reader(FOLDER / world.reader_file, world.table).read(to_uint8(pictures))
    for name, least in READ_BACK[world.name].items():
        column = world.table.index[name]
        assert np.corrcoef(read[:, column], rows[:, column])[0, 1] > least, name
    assert identity_drift(read, FPS, world.table) < 0.45  # strangers: about 1.4


# ----------------------------------------------------------------------------
# Domains.


def run_program(*arguments: str) -> list[str]:
    return subprocess.run([sys.executable, '-c', *arguments], capture_output=True, text=True, check=True).stdout.split()


def test_hands_and_cars_need_no_head() -> None:
    modules = ('demo.run_demo', 'demo.make_world', 'demo.measure_world', 'demo.measure_depths', 'demo.fitting.fit_readers')
    loaded = run_program(
        f'import sys, {", ".join(modules)}\nfrom demo.worlds import find_world\n'
        "find_world('hand'), find_world('car')\nprint(*sys.modules)"
    )
    assert {'demo.car.driving_car', 'demo.hand.articulated_hand'} <= set(loaded)
    assert [name for name in loaded if name.startswith('demo.head')] == []


# Of the modules about faces, an embedding of anything else asks whether detectors are there (none is: the program hides them),
# and uses what belongs to every recording: scenes, and the square of a frame.
NO_DETECTOR = {'is_wanted', 'is_installed', 'FaceDetector.__init__', '_find_model', 'require_detector'}
EVERY_RECORDING = {'split_at_cuts', 'drop_short', 'square_quad'}
FACE_CODE_THAT_RUNS = """
import inspect, os, sys, threading
for name in ('mediapipe', 'dlib', 'face_recognition_models'):
    sys.modules[name] = None
called = set()
def note(frame, event, _):
    code = frame.f_code
    if event == 'call' and code.co_flags & inspect.CO_NEWLOCALS and os.path.basename(code.co_filename).startswith('face_'):
        owner = frame.f_locals.get('self')
        called.add(code.co_name if owner is None else f'{type(owner).__name__}.{code.co_name}')
threading.setprofile(note)
sys.setprofile(note)
import embed_video
embed_video.main(sys.argv[1:], standalone_mode=False)
print('functions:', *(name for name in called if not name.startswith('<')))  # but for comprehensions
from training.footage.face_alignment import FaceAxes
try:
    FaceAxes(None, None, None).quads()
except TypeError:
    pass
print('noticed:', *called)
"""


def test_footage_of_a_car_is_embedded_without_a_line_of_face_code(tmp_path: pathlib.Path) -> None:
    make_footage(CAR, tmp_path / 'car.mp4', tmp_path / 'truth.npz', subject=3, frames=30)
    printed = run_program(
        FACE_CODE_THAT_RUNS,
        f'--network={FOLDER / CAR.generator_file}',
        f'--encoder={FOLDER / CAR.encoder_file}',
        f'--source={tmp_path / "car.mp4"}',
        f'--dest={tmp_path / "car.zip"}',
        '--perceptual=none',
    )
    first, last = printed.index('functions:'), printed.index('noticed:')
    assert set(printed[first + 1 : last]) - NO_DETECTOR <= EVERY_RECORDING
    assert 'FaceAxes.quads' in printed[last:]
    with LatentDataset(str(tmp_path / 'car.zip')) as data:
        assert [clip.num_frames for clip in data.clips] == [30]
