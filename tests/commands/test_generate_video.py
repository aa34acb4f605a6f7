"""generate_video.py: the same seed is the same video, streamed; the right image generator or none; nothing half-written."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import click.testing
import imageio_ffmpeg
import numpy as np
import PIL.Image
import pytest
import torch

import generate_video
from networks import checkpoints
from networks.checkpoints.image_generator_lookup import OptionNames, find_image_generator
from networks.errors import InputError
from networks.latent_generator import LatentGenerator
from networks.seeded_noise import SeededNoise
from networks.stylegan2 import Generator
from training import temporal_snapshot
from training.latents.codes_output import CodesWriter
from training.videos.synthesis import images_to_uint8, render_codes, stream_codes, stream_video, truncate_codes


@pytest.fixture(scope='module')
def image_generator() -> Generator:
    torch.manual_seed(0)
    G = Generator(
        z_dim=8,
        c_dim=0,
        w_dim=8,
        img_resolution=16,
        img_channels=3,
        mapping_kwargs={'num_layers': 2},
        synthesis_kwargs={'channel_base': 128, 'channel_max': 8},
    )
    for name, parameter in G.named_parameters():
        if name.endswith('noise_strength'):
            torch.nn.init.constant_(parameter, 0.3)
    return G.eval().requires_grad_(False)


@pytest.fixture(scope='module')
def latent_generator(image_generator: Generator) -> LatentGenerator:
    torch.manual_seed(1)
    generator = LatentGenerator(image_generator.num_ws, 8, latent_dim=6, noise_dim=5, hidden_dim=7)
    generator.set_data_basis(0.5 * torch.randn(image_generator.num_ws * 8), None, 1.0)
    return generator.eval().requires_grad_(False)


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory, image_generator: Generator, latent_generator: LatentGenerator) -> pathlib.Path:
    """A folder with G.pkl and run/network-snapshot-000001.pkl, which refers to it."""
    folder = tmp_path_factory.mktemp('home')
    network = str(folder / 'G.pkl')
    checkpoints.save_module_pickle(network, {'G_ema': image_generator})
    (folder / 'run').mkdir()
    temporal_snapshot.save_snapshot(
        str(folder / 'run' / 'network-snapshot-000001.pkl'),
        G=latent_generator,
        G_ema=latent_generator,
        C=latent_generator,
        image_generator=checkpoints.image_generator_reference(network, image_generator),
        data={'path': str(folder / 'latents.zip'), 'sha256': '0' * 64, 'fps': 20.0},
        training_options={},
        progress={},
    )
    return folder


def run(home: pathlib.Path, outdir: pathlib.Path, *arguments: str) -> click.testing.Result:
    snapshot = home / 'run' / 'network-snapshot-000001.pkl'
    return click.testing.CliRunner().invoke(
        generate_video.main, [f'--network={snapshot}', f'--outdir={outdir}', '--device=cpu', *arguments]
    )


def read_frames(folder: pathlib.Path) -> np.ndarray:
    return np.stack([np.asarray(PIL.Image.open(folder / name)) for name in sorted(os.listdir(folder))])


# ----------------------------------------------------------------------------
# Noise, codes, frames


def test_noise_is_the_random_stream_of_the_seed() -> None:
    noise = SeededNoise([7, 3], 4, 5)
    i, s = noise.first(), torch.cat([noise.steps(2), noise.steps(1)], dim=1)
    assert (i.shape, s.shape) == ((2, 4), (2, 3, 5))
    for row, seed in enumerate([7, 3]):
        numbers = np.random.RandomState(seed).randn(4 + 15).astype(np.float32)
        assert np.array_equal(i[row].numpy(), numbers[:4])
        assert np.array_equal(s[row].numpy().ravel(), numbers[4:])
    with pytest.raises(RuntimeError, match='i is drawn before'):
        SeededNoise([0], 4, 5).steps(1)


def test_streamed_codes_are_those_of_one_pass(latent_generator: LatentGenerator) -> None:
    noise = SeededNoise([5], 6, 5)
    expected = latent_generator(noise.first(), noise.steps(19))[0]
    stream = stream_codes(latent_generator, 5, chunk=4)
    assert torch.allclose(torch.cat(list(itertools.islice(stream, 5))), expected, atol=1e-6)
    late = next(stream_codes(latent_generator, 5, chunk=4, burn_in=9))
    assert torch.allclose(late, expected[9:13], atol=1e-6)


def test_frames_are_the_generators_images(image_generator: Generator) -> None:
    ws = torch.randn(5, image_generator.num_ws, 8)
    frames = np.stack(list(render_codes(image_generator, ws, batch=3)))
    expected = images_to_uint8(image_generator.synthesis(ws, noise_mode='const', force_fp32=True))
    assert frames.shape == (5, 16, 16, 3)
    assert np.abs(frames.astype(int) - expected).max() <= 1
    assert not np.array_equal(frames, np.stack(list(render_codes(image_generator, ws, noise_mode='none'))))
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).reshape(1, 1, 1, 5)
    assert images_to_uint8(values).ravel().tolist() == [0, 0, 128, 255, 255]


def test_truncation_is_the_documented_formula() -> None:
    ws, center = torch.randn(3, 4, 8), torch.randn(4, 8)
    assert truncate_codes(ws, center, 1.0) is ws
    for psi in (0.0, 0.7, -0.5, 1.3):
        assert torch.allclose(truncate_codes(ws, center, psi), center + psi * (ws - center), atol=1e-6)


@pytest.mark.parametrize('noise_mode', ['const', 'random'])
def test_a_seed_is_one_video_to_the_last_bit(
    image_generator: Generator, latent_generator: LatentGenerator, noise_mode: str
) -> None:
    def video(seed: int, length: int) -> np.ndarray:
        stream = stream_video(latent_generator, image_generator, seed, batch=4, noise_mode=noise_mode)
        return np.stack([frame for frame, _ in itertools.islice(stream, length)])

    torch.manual_seed(123)
    long = video(3, 30)
    for length in (1, 4, 5, 23):
        torch.manual_seed(length)
        assert np.array_equal(video(3, length), long[:length])
    assert not np.array_equal(video(4, 5), long[:5])


# ----------------------------------------------------------------------------
# The command


def test_command_writes_videos_frames_codes_and_records(
    home: pathlib.Path, tmp_path: pathlib.Path, latent_generator: LatentGenerator
) -> None:
    result = run(home, tmp_path, '--seeds=2,5', '--frames=11', '--save-codes')
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ''
    assert sorted(os.listdir(tmp_path)) == ['generation.jsonl', 'seed0002.mp4', 'seed0002.npz', 'seed0005.mp4', 'seed0005.npz']
    reader = imageio_ffmpeg.read_frames(str(tmp_path / 'seed0002.mp4'))
    meta = next(reader)
    assert (meta['fps'], meta['size'], len(list(reader))) == (20.0, (16, 16), 11)  # the rate is that of the footage
    noise = SeededNoise([5], 6, 5)
    expected = latent_generator(noise.first(), noise.steps(10))[0].numpy()
    with np.load(tmp_path / 'seed0005.npz') as codes:
        assert codes['fps'] == 20
        assert codes['w'].dtype == np.float32
        assert np.allclose(codes['w'], expected, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / 'generation.jsonl').read_text().splitlines()]
    assert [line['file'] for line in lines] == ['seed0002.mp4', 'seed0005.mp4']
    assert lines[0]['seeds'] == [2]
    assert lines[0]['image_network_sha256'] == checkpoints.file_sha256(str(home / 'G.pkl'))
    assert {'stylevideogan', 'python', 'torch', 'numpy'} <= set(lines[0]['versions'])


def test_command_frames_do_not_depend_on_length_or_company(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run(home, tmp_path / 'a', '--seeds=0-3', '--frames=13', '--format=png').exit_code == 0
    assert run(home, tmp_path / 'b', '--seeds=2', '--frames=6', '--format=png').exit_code == 0
    assert sorted(os.listdir(tmp_path / 'b')) == ['generation.jsonl', 'seed0002']
    assert os.listdir(tmp_path / 'b' / 'seed0002')[0].startswith('frame00000')
    long, short = read_frames(tmp_path / 'a' / 'seed0002'), read_frames(tmp_path / 'b' / 'seed0002')
    assert (len(long), len(short)) == (13, 6)
    assert np.array_equal(long[:6], short)
    result = run(home, tmp_path / 'c', '--seeds=0-3', '--frames=3', '--format=png', '--grid=2x2')
    assert result.exit_code == 0, result.stderr
    grid = read_frames(tmp_path / 'c' / 'grid-seed0000-0003')
    assert grid.shape == (3, 32, 32, 3)
    assert np.array_equal(grid[:, 16:, :16], long[:3])  # seed 2 is the first of the second row


def test_command_truncates_towards_what_was_asked(
    home: pathlib.Path, tmp_path: pathlib.Path, image_generator: Generator, latent_generator: LatentGenerator
) -> None:
    centers = {
        'subject': latent_generator.w_mean.reshape(-1, 8).numpy(),
        'generator': np.broadcast_to(image_generator.mapping.w_avg.numpy(), (image_generator.num_ws, 8)),
    }
    for kind, center in centers.items():
        result = run(home, tmp_path / kind, '--seeds=0', '--frames=3', '--save-codes', '--trunc=0', f'--trunc-center={kind}')
        assert result.exit_code == 0, result.stderr
        with np.load(tmp_path / kind / 'seed0000.npz') as codes:
            assert np.allclose(codes['w'], center, atol=1e-6)


def test_first_frame_is_there_before_the_last_is_made(home: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path) -> None:
    command = [
        sys.executable,
        str(root / 'generate_video.py'),
        f'--network={home}/run/network-snapshot-000001.pkl',
        f'--outdir={tmp_path}',
        '--seeds=0',
        '--frames=100000000',
        '--format=png',
        '--device=cpu',
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.time() + 600
        while not (tmp_path / 'seed0000.partial' / 'frame000000.png').exists():
            assert process.poll() is None, process.stderr
            assert time.time() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=600)
    assert process.returncode == 130
    assert 'interrupted' in words
    assert 'Traceback' not in words
    assert os.listdir(tmp_path) in ([], ['seed0000.partial'])  # whole batches stay for the same command again


def test_rerun_skips_only_what_is_the_same(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run(home, tmp_path, '--seeds=0', '--frames=4').exit_code == 0
    made = os.stat(tmp_path / 'seed0000.mp4').st_mtime_ns
    result = run(home, tmp_path, '--seeds=0-1', '--frames=4', '--skip-existing')
    assert result.exit_code == 0
    assert f'1 of 2 files are there already in {tmp_path}; to be made: seed0001' in result.stderr
    assert os.stat(tmp_path / 'seed0000.mp4').st_mtime_ns == made
    assert (tmp_path / 'seed0001.mp4').exists()
    result = run(home, tmp_path, '--seeds=0-1', '--frames=4', '--skip-existing')
    assert 'Everything is there' in result.stderr
    assert run(home, tmp_path, '--seeds=0', '--frames=5', '--skip-existing').exit_code == 0  # another length is another video
    assert os.stat(tmp_path / 'seed0000.mp4').st_mtime_ns != made


# ----------------------------------------------------------------------------
# The image generator, and what goes wrong


def test_image_generator_is_looked_for_and_checked(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    sha256 = checkpoints.file_sha256(str(home / 'G.pkl'))
    snapshot = str(home / 'run' / 'network-snapshot-000001.pkl')
    assert find_image_generator({'path': str(home / 'G.pkl'), 'sha256': sha256}, snapshot=snapshot) == str(home / 'G.pkl')
    moved = find_image_generator({'path': '/elsewhere/G.pkl', 'sha256': sha256}, snapshot=snapshot)
    assert os.path.samefile(moved, home / 'G.pkl')  # one folder above the snapshot
    windows = find_image_generator({'path': 'C:\\models\\G.pkl', 'sha256': sha256}, snapshot=snapshot)
    assert os.path.samefile(windows, home / 'G.pkl')
    other = tmp_path / 'G.pkl'
    other.write_bytes(b'another file')
    reference = {'path': '/elsewhere/G.pkl', 'sha256': sha256}
    names = OptionNames('--image-network', '--force-image-network')
    lonely = str(tmp_path / 'network-snapshot-000001.pkl')
    with pytest.raises(InputError, match=r'is another file; give the right one with --image-network'):
        find_image_generator(reference, snapshot=lonely, options=names)
    with pytest.raises(InputError, match=r'is another file; give the right one$'):
        find_image_generator(reference, snapshot=lonely)
    with pytest.raises(InputError, match='--force-image-network'):
        find_image_generator(reference, snapshot=snapshot, image_network=str(other), options=names)
    assert find_image_generator(reference, snapshot=snapshot, image_network=str(other), force=True) == str(other)
    other.unlink()
    with pytest.raises(InputError, match=r'neither there nor beside the snapshot.*--image-network'):
        find_image_generator(reference, snapshot=lonely, options=names)
    with pytest.raises(InputError, match='there is no file'):
        find_image_generator(reference, snapshot=snapshot, image_network=str(other), options=names)


def test_wrong_files_are_one_sentence(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    noise = tmp_path / 'noise.pkl'
    noise.write_bytes(np.random.RandomState(0).bytes(1000))
    cut = tmp_path / 'cut.pkl'
    cut.write_bytes((home / 'run' / 'network-snapshot-000001.pkl').read_bytes()[:5000])
    runner = click.testing.CliRunner()
    for network in (noise, cut, tmp_path / 'absent.pkl', tmp_path):
        out = tmp_path / 'out'
        result = runner.invoke(generate_video.main, [f'--network={network}', f'--outdir={out}', '--device=cpu'])
        assert result.exit_code == 2, (network, result.stderr)
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith('Error: ')
        assert os.path.basename(network) in last
        assert not out.exists()
    other = shutil.copy(home / 'G.pkl', tmp_path / 'other.pkl')
    with open(other, 'ab') as file:
        file.write(b'x')
    result = run(home, tmp_path / 'out', f'--image-network={other}')
    assert result.exit_code == 2
    assert 'is another file' in result.stderr


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--frames=0'], '--frames'),
        (['--seeds=x'], 'neither a seed'),
        (['--grid=2x2', '--seeds=0-4'], 'multiple of 4'),
        (['--force-image-network'], '--image-network'),
        (['--device=cuda:9'], '--device'),
        (['--crf=99'], '--crf'),
        (['--trunc=nan'], '--trunc'),
        (['--batch=0'], '--batch'),
    ],
)
def test_wrong_options_are_one_sentence(home: pathlib.Path, tmp_path: pathlib.Path, arguments: list[str], words: str) -> None:
    snapshot = home / 'run' / 'network-snapshot-000001.pkl'
    result = click.testing.CliRunner().invoke(generate_video.main, [f'--network={snapshot}', f'--outdir={tmp_path}', *arguments])
    assert result.exit_code == 2
    assert words in result.stderr.strip().splitlines()[-1]


def test_codes_of_a_broken_run_leave_nothing(tmp_path: pathlib.Path) -> None:
    def write(number: int) -> None:
        with CodesWriter(tmp_path / 'a.npz', (3, 2, 4), fps=25) as writer:
            for _ in range(number):
                writer.write(np.ones([2, 4]))

    with pytest.raises(ValueError, match='2 of 3 codes'):
        write(2)
    with pytest.raises(ValueError, match='does not fit'):
        write(4)
    assert os.listdir(tmp_path) == []
    write(3)
    with np.load(tmp_path / 'a.npz') as file:
        assert np.array_equal(file['w'], np.ones([3, 2, 4]))


# ----------------------------------------------------------------------------
# Control.


def codes_of(folder: pathlib.Path, name: str = 'seed0000.npz') -> np.ndarray:
    with np.load(folder / name) as file:
        return file['w']


def made(home: pathlib.Path, out: pathlib.Path, *arguments: str) -> np.ndarray:
    result = run(home, out, '--seeds=0', '--save-codes', *arguments)
    assert result.exit_code == 0, result.stderr
    return codes_of(out)


def test_command_moves_another_subject(home: pathlib.Path, tmp_path: pathlib.Path, image_generator: Generator) -> None:
    plain = made(home, tmp_path / 'plain', '--frames=9')
    subject = np.random.RandomState(0).randn(1, image_generator.num_ws, 8).astype(np.float32)
    np.savez(tmp_path / 'bob.npz', w=subject)
    moved = made(home, tmp_path / 'moved', '--frames=9', f'--subject={tmp_path}/bob.npz', '--transfer=offset')
    difference = moved - plain
    assert np.allclose(difference, difference[:1], atol=1e-5)  # one shift for all frames
    line = json.loads((tmp_path / 'moved' / 'generation.jsonl').read_text())
    assert (line['subject'], line['transfer']) == ([f'{tmp_path}/bob.npz'], 'offset')
    assert line['inputs']['subject0']['sha256'] == checkpoints.file_sha256(str(tmp_path / 'bob.npz'))
    result = run(home, tmp_path / 'again', '--subject=seed:3', f'--motion={tmp_path}/plain/seed0000.npz', '--save-codes')
    assert result.exit_code == 0, result.stderr
    again = codes_of(tmp_path / 'again', 'motion.npz')
    assert again.shape == plain.shape  # as long as the recording
    assert np.allclose(np.diff(again, axis=0), np.diff(plain, axis=0), atol=1e-5)


def test_command_goes_on_exactly_behind_its_own_video(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    long = made(home, tmp_path / 'long', '--frames=20')
    made(home, tmp_path / 'short', '--frames=12')
    rest = made(home, tmp_path / 'rest', '--frames=8', f'--continue={tmp_path}/short/seed0000.npz')
    assert np.allclose(rest, long[12:], atol=1e-6)


def test_command_edits_scales_and_resamples(
    home: pathlib.Path, tmp_path: pathlib.Path, latent_generator: LatentGenerator
) -> None:
    plain = made(home, tmp_path / 'plain', '--frames=9')
    np.save(tmp_path / 'smile.npy', np.ones(8, np.float32))
    edited = made(home, tmp_path / 'edited', '--frames=9', f'--edit={tmp_path}/smile.npy:0@0,8@8:1')
    expected = plain.copy()
    expected[:, 1] += np.arange(9)[:, None]
    assert np.allclose(edited, expected, atol=1e-5)
    center = latent_generator.w_mean.reshape(-1, 8).numpy()
    calm = made(home, tmp_path / 'calm', '--frames=9', '--motion-scale=1@0,0@8')
    assert np.allclose(calm, center + np.linspace(1, 0, 9)[:, None, None] * (plain - center), atol=1e-5)
    double = made(home, tmp_path / 'double', '--fps=40', '--frames=17', '--format=gif')
    assert np.allclose(double[::2], plain, atol=1e-5)
    fast = made(home, tmp_path / 'fast', '--speed=2', '--frames=5', '--format=png', '--size=20x36')
    assert np.allclose(fast, plain[::2], atol=1e-5)
    assert read_frames(tmp_path / 'fast' / 'seed0000').shape == (5, 36, 20, 3)


def test_command_interpolates_an_image_generator(home: pathlib.Path, tmp_path: pathlib.Path, image_generator: Generator) -> None:
    def command(*arguments: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(
            generate_video.main, [f'--network={home}/G.pkl', f'--outdir={tmp_path}', '--device=cpu', *arguments]
        )

    result = command('--seeds=0-2', '--keyframe-frames=5', '--loop', '--format=png', '--save-codes')
    assert result.exit_code == 0, result.stderr
    codes = codes_of(tmp_path, 'interpolation-seed0000-0002-0.npz')
    z = np.concatenate([np.random.RandomState(seed).randn(1, 8) for seed in range(3)]).astype(np.float32)
    assert codes.shape[0] == 15
    assert np.allclose(codes[::5], image_generator.mapping(torch.from_numpy(z), None).numpy(), atol=1e-5)
    assert command('--seeds=4', '--stills').exit_code == 0
    assert np.asarray(PIL.Image.open(tmp_path / 'seed0004.png')).shape == (16, 16, 3)
    for arguments, words in ((['--seeds=1'], 'at least two'), (['--seeds=0-1', '--subject=seed:1'], 'no snapshot'),
                             (['--seeds=0-2', '--grid=2x1'], 'name 4')):  # fmt: skip
        result = command(*arguments)
        assert result.exit_code == 2
        assert words in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--loop', '--continue=x.npz'], 'cannot go together'),
        (['--transfer=offset'], 'name it with --subject'),
        (['--subject=absent.png'], 'no file'),
        (['--subject=seed:1', '--transfer=regression'], 'at least three'),
        (['--first-frame=x.npz', '--trunc=0.5'], 'let it begin with 1'),
        (['--frames=5', '--loop'], 'shorter than the model can close'),
        (['--transition=7@9-3'], 'SEED@BEGIN-END'),
        (['--react=motion:1'], '--audio'),
        (['--frames=5', '--seconds=1'], 'one of them'),
        (['--pad=black'], '--size'),
        (['--stills'], 'image generator alone'),
        (['--motion=absent.npz'], 'no file'),
        (['--motion-scale=1,2'], 'at which frame'),
        (['--format=gif', '--fps=60'], 'at most 50'),
    ],
)
def test_contradictions_are_one_sentence(home: pathlib.Path, tmp_path: pathlib.Path, arguments: list[str], words: str) -> None:
    result = run(home, tmp_path / 'new' / 'folder', '--seeds=0', *arguments)
    assert result.exit_code == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith('Error: ')
    assert words in last
    assert os.listdir(tmp_path) == []
