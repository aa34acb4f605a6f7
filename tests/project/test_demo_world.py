"""The embedded world: lifelike dynamics, a renderer whose parameters do what they say, and networks that agree with it."""

import pathlib
import pickle

import numpy as np
import pytest
import torch

from demo import judge as judging
from demo.drawing.pictures import to_uint8
from demo.fitting.fast_synthesis import fast_synthesis
from demo.fitting.fit_generator import FitSettings, GeneratorFit, Stage, finish_generator
from demo.fitting.fit_readers import ReaderSettings, fit_encoder, fit_truth_reader
from demo.head import head_judge
from demo.head.dynamics import REFRACTORY_SECONDS, perform
from demo.head.head_parameters import INDEX, NUM_IDENTITY, NUM_PARAMETERS, TABLE
from demo.head.head_world import HEAD
from demo.head.talking_head import render
from demo.make_world import write_world
from demo.motion import FPS
from demo.parameters import normalize_latent
from demo.run_demo import average_judgement, check_options, find_run, make_footage, newest_snapshot, read_video
from demo.truth_reader import load_reader
from demo.worlds import FOLDER
from networks.checkpoints import load_encoder, load_generator
from networks.stylegan2 import Generator
from training.commands.command_line import UserMistake

GENERATOR_PSNR = 24.0  # dB, fitted against rendered heads that the fit never saw
ENCODER_PSNR = 24.0  # dB, footage of an unseen subject through encoder and generator


def head(**changes: float) -> np.ndarray:
    """A neutral head with some parameters changed, `[1, NUM_PARAMETERS]`."""
    row = TABLE.neutral()
    for name, value in changes.items():
        row[INDEX[name]] = value
    return row[None]


def picture(**changes: float) -> np.ndarray:
    """Its picture `[H, W, 3]`, values in [0, 1]."""
    return (render(head(**changes))[0].permute(1, 2, 0).numpy() + 1) / 2


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((10 * torch.log10(4 / (first - second).square().mean(dim=[1, 2, 3]))).mean())


# ----------------------------------------------------------------------------
# Parameters and dynamics.


def test_latents_give_the_promised_distribution() -> None:
    z = torch.from_numpy(np.random.RandomState(0).randn(50000, NUM_PARAMETERS))
    parameters = TABLE.from_latent(z)
    mean, deviation = TABLE.statistics
    assert torch.allclose(parameters.mean(dim=0), mean, atol=0.02)
    assert torch.allclose(parameters.std(dim=0), deviation, rtol=0.02)
    assert torch.allclose(TABLE.from_latent(3 * z), TABLE.from_latent(z), atol=1e-5)
    assert torch.allclose(normalize_latent(z).square().mean(dim=1), torch.ones(50000, dtype=z.dtype), atol=1e-5)


def test_the_shipped_pickle_holds_what_scripts_of_nvidia_ask_for() -> None:
    with open(FOLDER / HEAD.generator_file, 'rb') as file:
        data = pickle.load(file)
    assert all(isinstance(data[key], torch.nn.Module) for key in ('G', 'D', 'G_ema'))
    assert data['G_ema'].init_kwargs['img_resolution'] == 128
    assert data['training_set_kwargs'] is None


def test_one_seed_decides_the_performance_and_a_longer_one_begins_alike() -> None:
    short, long, other = perform(300, seed=5), perform(900, seed=5), perform(300, seed=6)
    assert np.array_equal(short.parameters, perform(300, seed=5).parameters)
    assert np.array_equal(short.parameters, long.parameters[:300])
    assert np.array_equal(short.blink_frames, long.blink_frames[long.blink_frames < 300])
    assert np.abs(short.parameters[:, NUM_IDENTITY:] - other.parameters[:, NUM_IDENTITY:]).max() > 0.2
    with pytest.raises(ValueError, match='num_frames'):
        perform(0, seed=1)


def test_blinks_are_events_with_a_refractory_time() -> None:
    pauses = []
    for seed in range(6):
        performance = perform(4500, seed=seed)
        found = head_judge.blink_events(performance.track('blink'))
        assert judging.match_events(found, performance.blink_frames, tolerance=2) == (1.0, 1.0)
        pauses.append(np.diff(performance.blink_frames) / FPS)
        closed = (performance.track('blink') > 0.1).sum() / len(performance.blink_frames)
        assert 4 <= closed <= 9  # frames a blink takes
    waits = np.concatenate(pauses)
    assert waits.min() >= REFRACTORY_SECONDS - 1 / FPS
    assert 2.6 < waits.mean() < 3.7  # about three seconds
    beyond = waits[waits > 1.0] - 1.0
    assert 0.8 < beyond.std() / beyond.mean() < 1.2  # exponential beyond the refractory time: no clockwork


def test_motion_is_smooth_speech_has_pauses_and_identity_stays() -> None:
    performance = perform(3000, seed=3)
    assert np.ptp(performance.parameters[:, :NUM_IDENTITY], axis=0).max() == 0
    yaw = performance.track('yaw')
    assert 4 < np.degrees(yaw.std()) < 14
    assert np.degrees(np.abs(np.diff(yaw)).max()) < 5
    opening = performance.track('mouth_open')
    talking = np.zeros(len(opening), dtype=bool)
    for begin, end in performance.phrases:
        talking[int(begin * FPS) : int(end * FPS) + 1] = True
    assert opening[talking].mean() > 4 * opening[~talking].mean()
    assert 0.3 < talking.mean() < 0.9
    assert 2 < len(performance.syllables) / 120 < 4


# ----------------------------------------------------------------------------
# Renderer.


def test_rendering_is_deterministic_bounded_and_independent_of_the_chunk() -> None:
    rows = perform(5, seed=2).parameters
    images = render(rows, 64, chunk=2)
    assert images.shape == (5, 3, 64, 64)
    assert images.dtype == torch.float32
    assert float(images.min()) >= -1
    assert float(images.max()) <= 1
    assert torch.equal(images, render(rows, 64, chunk=2))
    assert torch.allclose(images, render(rows, 64, chunk=5), atol=1e-4)
    with pytest.raises(ValueError, match='parameters must be'):
        render(rows[:, :-1])


def test_supersampling_changes_edges_only() -> None:
    rows = perform(3, seed=4).parameters
    difference = (render(rows, 64) - render(rows, 64, supersampling=3)).abs()
    assert float(difference.mean()) < 0.02


def test_parameters_move_what_they_name() -> None:
    neutral = picture()
    # Blinking changes the eyes and nothing below the nose.
    change = np.abs(picture(blink=1.0) - neutral).sum(axis=2)
    assert change.max() > 0.5
    assert change[80:].max() < 1e-3
    # An open mouth is dark inside, and the chin goes down; the eyes do not care.
    change = picture(mouth_open=1.0) - neutral
    assert change[75:105, 50:78].min() < -0.3
    assert np.abs(change[:60]).max() < 0.02

    # The nose follows yaw with parallax: the face's features move to the side that the head turns to, the neck hardly does.
    def shift_of(image: np.ndarray, top: int, bottom: int) -> int:
        strip = neutral[top:bottom, 44:84]
        errors = {shift: np.square(image[top:bottom, 44 + shift : 84 + shift] - strip).mean() for shift in range(-20, 21)}
        return min(errors, key=lambda shift: errors[shift])

    for yaw, side in ((0.4, 1), (-0.4, -1)):
        turned = picture(yaw=yaw)
        assert side * shift_of(turned, 55, 92) >= 4
        assert abs(shift_of(turned, 112, 128)) <= 2
    # Gaze moves the pupils alone.
    change = np.abs(picture(gaze_x=0.9) - neutral).sum(axis=2)
    assert change.max() > 0.5
    assert (change > 0.05).mean() < 0.03
    # Identity: glasses bring dark rims, hair length covers the backdrop beside the neck.
    assert (picture(glasses=1.0).sum(axis=2) < 0.9).sum() > (neutral.sum(axis=2) < 0.9).sum() + 80
    assert np.abs(picture(hair_length=1.0) - picture(hair_length=0.0))[100:115, 25:40].mean() > 0.05


# ----------------------------------------------------------------------------
# Judging.


def test_judging_sees_loops_drift_and_freezing() -> None:
    tracks = perform(500, seed=1).parameters
    lively = head_judge.judge(tracks)
    assert lively['closest_return'] > 0.15
    assert lively['identity_drift'] == 0
    assert head_judge.judge(np.tile(tracks[:125], (4, 1)))['closest_return'] < 1e-3
    frozen = np.concatenate([tracks[:250], np.repeat(tracks[250:251], 250, axis=0)])
    assert head_judge.judge(frozen)['speed_last_two_seconds_ratio'] < 0.01
    stranger = perform(500, seed=2).parameters
    morph = np.linspace(0, 1, 500)[:, None]
    assert head_judge.judge(tracks * (1 - morph) + stranger * morph)['identity_drift'] > 0.6
    assert 'blinks_per_minute' in judging.comparison_table({'truth': lively})


# ----------------------------------------------------------------------------
# The fitted networks.


def test_fast_synthesis_is_the_reference_synthesis() -> None:
    torch.manual_seed(0)
    G = Generator(
        z_dim=8, c_dim=0, w_dim=16, img_resolution=32, img_channels=3, synthesis_kwargs={'channel_base': 256, 'channel_max': 16}
    ).eval()
    ws = torch.randn(3, G.num_ws, 16)
    with torch.no_grad():
        expected = G.synthesis(ws, noise_mode='none')
        assert torch.allclose(fast_synthesis(G, ws, dtype=torch.float32), expected, atol=1e-4, rtol=1e-4)
        assert float((fast_synthesis(G, ws) - expected).abs().mean()) < 0.02 * float(expected.abs().mean()) + 0.01


@pytest.fixture(scope='module')
def generator() -> torch.nn.Module:
    return load_generator(FOLDER / HEAD.generator_file)


@pytest.fixture(scope='module')
def footage() -> tuple[np.ndarray, torch.Tensor, np.ndarray]:
    """Parameters, pictures and blinks of 250 frames of a subject that no fit has seen."""
    performance = perform(250, seed=77)
    return performance.parameters, render(performance.parameters), performance.blink_frames


def test_world_is_small_and_opens_in_the_safe_loader(generator: torch.nn.Module) -> None:
    assert sum((FOLDER / name).stat().st_size for name in HEAD.files) < 9_000_000
    assert (generator.z_dim, generator.img_resolution, generator.img_channels) == (NUM_PARAMETERS, 128, 3)


def test_generator_agrees_with_the_renderer_and_truncates(generator: torch.nn.Module) -> None:
    z = torch.from_numpy(np.random.RandomState(123456).randn(48, NUM_PARAMETERS)).to(torch.float32)
    images = generator(z, None, noise_mode='const')
    assert psnr(images, render(TABLE.from_latent(z))) > GENERATOR_PSNR
    middle = generator(z[:2], None, truncation_psi=0, noise_mode='const')
    assert torch.allclose(middle[0], middle[1], atol=1e-5)
    half = generator(z, None, truncation_psi=0.5, noise_mode='const')
    assert float((half - middle[:1]).abs().mean()) < float((images - middle[:1]).abs().mean())


def test_encoder_reconstructs_footage_with_smooth_codes(generator: torch.nn.Module, footage: tuple) -> None:
    _, images, _ = footage
    encoder = load_encoder(FOLDER / HEAD.encoder_file)
    with torch.no_grad():
        codes = torch.cat([encoder(part) for part in images.split(50)])
        again = generator.synthesis(codes[::10], noise_mode='const')
    assert codes.shape == (250, generator.num_ws, generator.w_dim)
    assert psnr(again, images[::10]) > ENCODER_PSNR
    steps = (codes[1:] - codes[:-1]).square().mean().sqrt()
    assert float(steps) < 0.7 * float((codes - codes.mean(dim=0)).square().mean().sqrt())


def test_truth_is_read_back(footage: tuple) -> None:
    parameters, images, blinks = footage
    read = load_reader(FOLDER / HEAD.reader_file, TABLE).read(to_uint8(images))
    for name, least in (('yaw', 0.95), ('pitch', 0.85), ('roll', 0.9), ('blink', 0.9), ('mouth_open', 0.9), ('gaze_x', 0.8)):
        assert np.corrcoef(read[:, INDEX[name]], parameters[:, INDEX[name]])[0, 1] > least, name
    precision, recall = judging.match_events(head_judge.blink_events(read[:, INDEX['blink']]), blinks)
    assert precision >= 0.85
    assert recall >= 0.85
    assert judging.identity_drift(read, FPS, TABLE) < 0.45  # strangers: about 1.4


# ----------------------------------------------------------------------------
# The demonstration.


def test_demonstration_keeps_to_its_options_and_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    check_options(tmp_path / 'options.json', {'subject': 8, 'kimg': 3.0})
    check_options(tmp_path / 'options.json', {'subject': 8, 'kimg': 3.0})
    with pytest.raises(UserMistake, match='other options'):
        check_options(tmp_path / 'options.json', {'subject': 9, 'kimg': 3.0})
    with pytest.raises(UserMistake, match='network-snapshot'):
        newest_snapshot(tmp_path)
    assert find_run(tmp_path) is None


def test_demonstration_compares_equal_lengths() -> None:
    tracks = perform(700, seed=4).parameters
    whole, halves = average_judgement(HEAD, tracks, 700), average_judgement(HEAD, tracks, 350)
    assert whole['syllables_per_second'] == pytest.approx(halves['syllables_per_second'], abs=0.3)
    assert halves['blinks_per_minute'] == pytest.approx(
        np.mean([head_judge.judge(part)['blinks_per_minute'] for part in (tracks[:350], tracks[350:])])
    )


def test_footage_is_a_video_with_its_truth(tmp_path: pathlib.Path) -> None:
    make_footage(HEAD, tmp_path / 'footage.mp4', tmp_path / 'truth.npz', subject=3, frames=20)
    frames, truth = read_video(tmp_path / 'footage.mp4'), np.load(tmp_path / 'truth.npz')
    rendered = to_uint8(render(truth['parameters']))
    assert frames.shape == rendered.shape == (20, 128, 128, 3)
    assert np.abs(frames.astype(float) - rendered).mean() < 4  # 4:2:0 and compression


# ----------------------------------------------------------------------------
# Making the world.

TINY = FitSettings(
    resolution=64, w_dim=16, channel_base=512, channel_max=16, mapping_layers=2,
    pool_capacity=24, pool_first=8, pool_per_step=1.0, stages=(Stage(32, 3, 4, 1e-2, 1e-2), Stage(64, 3, 4, 1e-2, 1e-3)),
)  # fmt: skip


def test_an_interrupted_fit_goes_on_to_the_same_generator(tmp_path: pathlib.Path) -> None:
    whole = GeneratorFit(tmp_path / 'whole', TINY, HEAD)
    assert whole.run()
    assert not GeneratorFit(tmp_path / 'parts', TINY, HEAD).run(seconds=0)
    for _ in range(2):
        part = GeneratorFit(tmp_path / 'parts', TINY, HEAD)
        for _ in range(2):
            part._one_step()
        part.save()
    rest = GeneratorFit(tmp_path / 'parts', TINY, HEAD)
    assert rest.step == 4
    assert rest.run()
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, rest.average.state_dict()[name]), name


def test_a_world_is_made_from_nothing_and_opens_again(tmp_path: pathlib.Path) -> None:
    fit = GeneratorFit(tmp_path / 'work', TINY, HEAD)
    fit.run()
    generator = finish_generator(fit.average)
    settings = ReaderSettings(
        code_steps=2, code_batch=4, picture_steps=2, picture_batch=2, reader_generated=8, reader_steps=2, reader_batch=4
    )
    reader = fit_truth_reader(tmp_path / 'work', generator, fit.pool, settings)
    encoder = fit_encoder(tmp_path / 'work', generator, reader, fit.pool, settings)
    write_world(HEAD, tmp_path, generator, encoder, reader, fit.step)
    G, E = load_generator(tmp_path / HEAD.generator_file), load_encoder(tmp_path / HEAD.encoder_file)
    z = torch.randn(2, NUM_PARAMETERS)
    image = G(z, None, noise_mode='const')
    assert torch.allclose(image, generator(z, None, noise_mode='const'), atol=1e-5)
    assert torch.allclose(E(image), encoder(image), atol=1e-5)
    frames = to_uint8(image)
    assert np.allclose(load_reader(tmp_path / HEAD.reader_file, TABLE).read(frames), reader.read(frames), atol=0.05)
