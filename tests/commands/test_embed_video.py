"""embed_video.py as a user runs it: footage in every way to codes, ready codes, mistakes, and a kill in the middle."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import types
from typing import Any

import click.testing
import imageio_ffmpeg
import numpy as np
import PIL.Image
import pytest
import torch

import embed_video
import latents_tool
from networks.checkpoints import load_generator, save_module_pickle
from networks.errors import InputError
from networks.w_encoder import WEncoder
from training.embedding.encoder_loss import peak_signal_to_noise
from training.embedding.inversion import Inversion, InversionOptions, default_weights
from training.latents.code_files import holds_codes
from training.latents.dataset import LatentDataset
from training.videos.synthesis import render_codes

NUM_WS, W_DIM = 6, 8  # of tiny_generator


@pytest.fixture(scope='module')
def G(tiny_generator: pathlib.Path) -> Any:
    return load_generator(str(tiny_generator))


@pytest.fixture(scope='module')
def codes(G: Any) -> np.ndarray:
    """Smooth motion in W+, float32 [20, num_ws, w_dim]."""
    ends = G.mapping(torch.from_numpy(np.random.RandomState(3).randn(3, 8)).float(), None)
    times = torch.linspace(0, 1, 20)[:, None, None]
    ws = torch.lerp(ends[:1], ends[1:2], times)
    ws[:, 2:] += 0.3 * times * (ends[2:, 2:] - ends[:1, 2:])
    return ws.numpy()


@pytest.fixture(scope='module')
def footage(G: Any, codes: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of frames, rendered from the codes at twice the size."""
    folder = tmp_path_factory.mktemp('footage') / 'subject'
    folder.mkdir()
    for index, frame in enumerate(render_codes(G, codes)):
        PIL.Image.fromarray(frame.repeat(2, axis=0).repeat(2, axis=1)).save(folder / f'{index:03d}.png')
    return folder


@pytest.fixture(scope='module')
def encoder(tmp_path_factory: pytest.TempPathFactory, G: Any) -> pathlib.Path:
    """An encoder that answers near the average whatever it sees."""
    torch.manual_seed(0)
    module = WEncoder(num_ws=NUM_WS, w_dim=W_DIM, img_resolution=16, channel_max=16, hidden_features=16)
    module.set_code_statistics(G.mapping.w_avg, torch.eye(W_DIM))
    path = tmp_path_factory.mktemp('encoder') / 'encoder.pkl'
    save_module_pickle(str(path), {'encoder': module.eval().requires_grad_(False)})
    return path


def run(generator: pathlib.Path, source: pathlib.Path | str, dest: pathlib.Path, *options: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(
        embed_video.main,
        [f'--network={generator}', f'--source={source}', f'--dest={dest}', '--device=cpu', '--perceptual=none', *options],
    )


def psnr(G: Any, dest: pathlib.Path, codes: np.ndarray) -> float:
    with LatentDataset(dest) as dataset:
        found = G.synthesis(torch.from_numpy(dataset.load_clip(0)), noise_mode='const')
    return float(peak_signal_to_noise(found, G.synthesis(torch.from_numpy(codes), noise_mode='const')).mean())


# ----------------------------------------------------------------------------
# Ways to embed


def test_optimisation_finds_codes_that_render_the_footage(
    tiny_generator: pathlib.Path, footage: pathlib.Path, G: Any, codes: np.ndarray, tmp_path: pathlib.Path
) -> None:
    options = ('--chunk=20', '--steps=60', '--first-steps=80', '--preview', '--fps=30')
    result = run(tiny_generator, footage, tmp_path / 'data.zip', *options)
    assert result.exit_code == 0, result.output
    assert psnr(G, tmp_path / 'data.zip', codes) > 21  # the average code has 15.6 dB
    with LatentDataset(tmp_path / 'data.zip') as dataset:
        (clip,) = dataset.clips
        assert (clip.name, clip.num_frames, clip.fps, clip.source) == ('subject', 20, 30.0, str(footage))
        assert clip.extra['psnr'] > 21
        assert f'PSNR {clip.extra["psnr"]:.2f}' in result.output
        assert dataset.embedding['method'] == 'optimisation'
        assert dataset.embedding['optimisation']['steps'] == 60
        assert len(dataset.image_generator['sha256']) == 64
    frames = imageio_ffmpeg.read_frames(str(tmp_path / 'data-preview' / 'subject.mp4'))
    meta = next(frames)
    assert (meta['size'], meta['fps'], len(list(frames))) == ((32, 16), 30, 20)


def test_pixels_of_small_pictures_weigh_more_beside_alexnet(
    tiny_generator: pathlib.Path, footage: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def embedded(name: str, *options: str) -> tuple[dict[str, Any], np.ndarray]:
        dest = tmp_path / f'{name}.zip'
        result = run(tiny_generator, footage, dest, '--steps=2', '--first-steps=3', '--no-report', *options)
        assert result.exit_code == 0, result.output
        with LatentDataset(dest) as dataset:
            return dataset.embedding['optimisation'], np.array(dataset.load_clip(0))

    usual, codes = embedded('usual', '--perceptual=alex')
    said, same = embedded('said', '--perceptual=alex', '--lambda-pixel=20', '--smooth=0.3')
    assert (usual['lambda_pixel'], usual['lambda_smooth']) == (20, 0.3)
    assert usual == said
    assert np.array_equal(codes, same)
    less, other = embedded('less', '--perceptual=alex', '--lambda-pixel=2')
    assert (less['lambda_pixel'], less['lambda_smooth']) == (2, 0.3)
    assert not np.array_equal(codes, other)
    without, _ = embedded('without')
    assert (without['lambda_pixel'], without['lambda_smooth']) == (2, 0.1)


def test_weights_depend_on_the_size_of_the_pictures() -> None:
    alex, vgg = (types.SimpleNamespace(network=name) for name in ('alex', 'vgg'))
    assert [default_weights(side, alex)[0] for side in (16, 64, 128, 256)] == [20, 20, 2, 2]  # type: ignore[arg-type]
    assert default_weights(64, vgg) == default_weights(64, None) == (2, 0.1)  # type: ignore[arg-type]


def test_a_preview_that_was_interrupted_is_finished(
    tiny_generator: pathlib.Path, footage: pathlib.Path, codes: np.ndarray, tmp_path: pathlib.Path
) -> None:
    """The data set is complete, one of two videos is there: the same command makes the other, and no other command does."""
    np.savez(tmp_path / 'more.npz', w=codes[:9])
    options = ('--steps=2', '--first-steps=2', f'--source={tmp_path / "more.npz"}', '--fps=30', '--preview')
    assert run(tiny_generator, footage, tmp_path / 'data.zip', *options).exit_code == 0
    data = (tmp_path / 'data.zip').read_bytes()
    videos = {path: path.read_bytes() for path in (tmp_path / 'data-preview').iterdir()}
    assert len(videos) == 2
    first, second = sorted(videos)
    for gone in (first, second):
        gone.unlink()
        stays = second if gone == first else first
        before = stays.stat().st_mtime_ns
        for other in (('--steps=3', *options[1:]), options[:-1]):
            result = run(tiny_generator, footage, tmp_path / 'data.zip', *other)
            assert (result.exit_code, 'already exists' in result.output) == (2, True)
            assert not gone.exists()
        result = run(tiny_generator, footage, tmp_path / 'data.zip', *options)
        assert result.exit_code == 0, result.output
        assert '1 of 2 previews are missing' in result.output
        assert {path: path.read_bytes() for path in (tmp_path / 'data-preview').iterdir()} == videos
        assert stays.stat().st_mtime_ns == before
    assert (tmp_path / 'data.zip').read_bytes() == data
    result = run(tiny_generator, footage, tmp_path / 'data.zip', *options)  # now there is nothing to go on with
    assert (result.exit_code, 'already exists' in result.output) == (2, True)


def test_refinement_improves_the_encoder(
    tiny_generator: pathlib.Path, footage: pathlib.Path, encoder: pathlib.Path, G: Any, codes: np.ndarray, tmp_path: pathlib.Path
) -> None:
    options = (f'--encoder={encoder}', '--steps=30')
    assert run(tiny_generator, footage, tmp_path / 'feed-forward', *options).exit_code == 0
    assert run(tiny_generator, footage, tmp_path / 'refined.zip', *options, '--refine').exit_code == 0
    assert psnr(G, tmp_path / 'refined.zip', codes) > psnr(G, tmp_path / 'feed-forward', codes) + 5
    # In one pass a frame does not depend on its neighbours.
    run(tiny_generator, footage / '004.png', tmp_path / 'one.zip', *options)
    with LatentDataset(tmp_path / 'feed-forward') as many, LatentDataset(tmp_path / 'one.zip') as one:
        np.testing.assert_allclose(many.load_clip(0)[4:5], one.load_clip(0), atol=1e-5)


def test_smoothing_and_early_stop(G: Any) -> None:
    z = torch.from_numpy(np.random.RandomState(5).randn(4, 8)).float()
    targets, start = G.synthesis(G.mapping(z, None), noise_mode='const'), G.mapping.w_avg.repeat(6, 1)

    def fit(**options: Any) -> torch.Tensor:
        return Inversion(G, None, InversionOptions(steps=25, **options)).fit_chunk(targets, None, start)

    free, smooth = fit(lambda_smooth=0.0), fit(lambda_smooth=1.0)
    assert (smooth[1:] - smooth[:-1]).norm() < 0.5 * (free[1:] - free[:-1]).norm()
    # With stop=1 no fall of the loss is enough, so every frame is done at the first look.
    calls: list[int] = []
    inversion = Inversion(G, None, InversionOptions(steps=200, stop=1.0, patience=10))
    assert inversion.inverse_curvature.shape == (NUM_WS, W_DIM, W_DIM)
    synthesize = inversion.synthesize

    def count(ws: torch.Tensor) -> torch.Tensor:
        calls.append(len(ws))
        return synthesize(ws)

    inversion.synthesize = count  # type: ignore[method-assign]
    inversion.fit_chunk(targets, None, start)
    assert calls == [4] * 11


# ----------------------------------------------------------------------------
# Codes that exist


def test_ready_codes_are_taken_over(tiny_generator: pathlib.Path, codes: np.ndarray, tmp_path: pathlib.Path) -> None:
    source = tmp_path / 'source'
    (source / 'projector').mkdir(parents=True)
    np.savez(source / 'clip1.npz', w=codes, fps=30)
    np.save(source / 'clip2.npy', codes[:5].astype(np.float64))
    torch.save(torch.from_numpy(codes[:7]), source / 'clip3.pt')
    for index in range(11):  # one file a frame, as NVIDIA's projector writes them; 10 comes after 9
        np.savez(source / 'projector' / f'frame{index}.npz', w=codes[index : index + 1])
    np.save(tmp_path / 'w.npy', codes[:3, :1])  # W: the same code for all layers
    result = run(tiny_generator, source, tmp_path / 'data.zip', f'--source={tmp_path / "w.npy"}')
    assert result.exit_code == 0, result.output
    assert 'different rates' in result.output
    with LatentDataset(tmp_path / 'data.zip') as dataset:
        clips = {clip.name: (clip.fps, dataset.load_clip(index)) for index, clip in enumerate(dataset.clips)}
        assert dataset.embedding['method'] == 'codes taken over'
    everywhere = np.repeat(codes[:3, :1], NUM_WS, axis=1)
    for name, fps, wanted in (
        ('clip1', 30, codes),
        ('clip2', 25, codes[:5]),
        ('clip3', 25, codes[:7]),
        ('projector', 25, codes[:11]),
        ('w', 25, everywhere),
    ):
        assert clips[name][0] == fps
        np.testing.assert_array_equal(clips[name][1], wanted)
    assert len(clips) == 5
    # Codes beside pictures: which of the two is meant?
    assert holds_codes(str(source))
    PIL.Image.new('RGB', (8, 8)).save(source / 'frame.png')
    with pytest.raises(InputError, match='as well as pictures'):
        holds_codes(str(source))


# ----------------------------------------------------------------------------
# Mistakes


class Harmful:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ('harmed',))


def make_mistake(folder: pathlib.Path, kind: str, codes: np.ndarray) -> pathlib.Path:
    path = folder / kind
    match kind:
        case 'nan.npy':
            broken = codes.copy()
            broken[13, 2, 1] = np.nan
            np.save(path, broken)
        case 'huge.npy':
            broken = codes.copy()
            broken[13, 2, 1] = 10_001
            np.save(path, broken)
        case 'layers.npz':
            np.savez(path, w=np.zeros((4, 18, 512), np.float32))
        case 'names.npz':
            np.savez(path, a=codes, b=codes)
        case 'cut.npz':
            np.savez(path, w=codes)
            path.write_bytes(path.read_bytes()[:-100])
        case 'objects.npy':
            np.save(path, np.array([Harmful()]), allow_pickle=True)
        case 'harmful.pt':
            torch.save({'latents': Harmful()}, path)
        case 'dictionary.pt':
            torch.save({'a': torch.zeros(3), 'b': torch.zeros(3)}, path)
        case 'text.mp4':
            path.write_text('hello' * 100)
        case 'folder':
            path.mkdir()
    return path


@pytest.mark.parametrize(
    ('kind', 'sentence'),
    [
        ('nan.npy', "clip 'nan' has a code that is NaN or infinite in frame 13"),
        ('huge.npy', "clip 'huge' has a code that is 1e+04, far beyond what an image generator takes, in frame 13"),
        ('layers.npz', '[4, 18, 512]'),
        ('names.npz', 'no array "w"'),
        ('cut.npz', 'cut off'),
        ('objects.npy', 'cannot be read'),
        ('harmful.pt', 'cannot be read'),
        ('dictionary.pt', 'no tensor "w"'),
        ('text.mp4', 'not a video'),
        ('absent.mp4', 'no such file'),
        ('folder', 'no frames'),
    ],
)
def test_bad_sources_are_one_sentence(
    tiny_generator: pathlib.Path,
    codes: np.ndarray,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(tiny_generator, make_mistake(tmp_path, kind, codes), tmp_path / 'data.zip')
    assert result.exit_code == 2
    last = result.output.strip().splitlines()[-1]
    assert last.startswith('Error: ')
    assert sentence in last
    assert not (tmp_path / 'data.zip').exists()
    assert not (tmp_path / 'harmed').exists()


def test_bad_networks_and_options_are_one_sentence(
    tiny_generator: pathlib.Path, footage: pathlib.Path, encoder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    whole = tiny_generator.read_bytes()
    (tmp_path / 'cut.pkl').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'text.pkl').write_text('hello')
    other = WEncoder(num_ws=7, w_dim=W_DIM, img_resolution=16, channel_max=16, hidden_features=16)
    save_module_pickle(str(tmp_path / 'other.pkl'), {'encoder': other})
    broken = WEncoder(num_ws=NUM_WS, w_dim=W_DIM, img_resolution=16, channel_max=16, hidden_features=16)
    torch.nn.init.constant_(broken.heads.bias1, np.nan)
    save_module_pickle(str(tmp_path / 'broken.pkl'), {'encoder': broken})
    (tmp_path / 'old.zip').write_text('precious')
    dest = tmp_path / 'data.zip'
    for network, target, options, sentence in (
        (tmp_path / 'cut.pkl', dest, [], 'cut.pkl'),
        (tmp_path / 'text.pkl', dest, [], 'text.pkl'),
        (tmp_path / 'absent.pkl', dest, [], 'no file'),
        (tiny_generator, tmp_path / 'old.zip', [], 'already exists'),
        (tiny_generator, dest, [f'--encoder={tmp_path / "other.pkl"}'], 'another image generator'),
        (tiny_generator, dest, [f'--encoder={tmp_path / "broken.pkl"}'], "NaN or infinite for clip 'subject', frame 0"),
        (tiny_generator, dest, [f'--encoder={tiny_generator}'], 'tiny-generator.pkl'),
        (tiny_generator, dest, ['--refine'], '--refine'),
        (tiny_generator, dest, ['--smooth=inf'], 'finite'),
        (tiny_generator, tmp_path / 'text.pkl' / 'data.zip', [], 'text.pkl'),
    ):
        result = run(network, footage, target, *options)
        assert result.exit_code == 2, (sentence, result.output)
        last = result.output.strip().splitlines()[-1]
        assert last.startswith('Error: ')
        assert sentence in last
    assert not dest.exists()
    assert (tmp_path / 'old.zip').read_text() == 'precious'


def test_damaged_clips_can_be_skipped(
    tiny_generator: pathlib.Path, footage: pathlib.Path, encoder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / 'set'
    for name in ('good', 'half'):
        (folder / name).mkdir(parents=True)
        for index in range(3):
            (folder / name / f'{index}.png').write_bytes((footage / f'{index:03d}.png').read_bytes())
    (folder / 'half' / '2.png').write_bytes(b'no image')
    options = (f'--encoder={encoder}', '--chunk=2')
    assert run(tiny_generator, folder, tmp_path / 'data.zip', *options).exit_code == 2
    result = run(tiny_generator, folder, tmp_path / 'skipped.zip', *options, '--damaged=skip')
    assert result.exit_code == 0, result.output
    assert 'left out' in result.output
    with LatentDataset(tmp_path / 'skipped.zip') as dataset:
        assert [clip.name for clip in dataset.clips] == ['good']


# ----------------------------------------------------------------------------
# Interruptions


# embed_video.py that is killed as soon as four frames of a clip are on the disk.
KILLED = f"""
import os, signal, sys
import embed_video
from training.latents.writer import ClipWriter
append = ClipWriter.append

def until_killed(self, *frames):
    append(self, *frames)
    if os.path.getsize(self._part) >= 128 + 4 * {4 * NUM_WS * W_DIM}:
        os.kill(os.getpid(), signal.SIGKILL)

ClipWriter.append = until_killed
embed_video.main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_and_ends_the_same(
    tiny_generator: pathlib.Path, footage: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path
) -> None:
    options = ['--chunk=4', '--steps=12', '--first-steps=12', '--stop=0']
    assert run(tiny_generator, footage, tmp_path / 'whole.zip', *options).exit_code == 0

    dest = tmp_path / 'parts.zip'
    command = [
        sys.executable,
        '-c',
        KILLED,
        f'--network={tiny_generator}',
        f'--source={footage}',
        f'--dest={dest}',
        '--device=cpu',
        '--perceptual=none',
        *options,
    ]
    environment = {**os.environ, 'OMP_NUM_THREADS': str(torch.get_num_threads())}
    killed = subprocess.run(command, env=environment, cwd=root, stderr=subprocess.PIPE)
    assert killed.returncode == -signal.SIGKILL
    assert not dest.exists()
    with pytest.raises(Exception, match='run the same command again'):
        LatentDataset(dest)
    # As a version would have begun it that knew no --damaged: another one than the default is another run.
    path = tmp_path / 'parts.zip.partial' / 'dataset.json'
    description = json.loads(path.read_text())
    assert description['embedding'].pop('damaged') == 'stop'
    path.write_text(json.dumps(description))
    result = run(tiny_generator, footage, dest, *options, '--damaged=keep')
    assert result.exit_code == 2
    assert 'holds an interrupted run with other settings (damaged: None there, keep now)' in result.output
    result = run(tiny_generator, footage, dest, *options)
    assert result.exit_code == 0, result.output
    assert 'Going on with the interrupted run' in result.output
    with LatentDataset(tmp_path / 'whole.zip') as whole, LatentDataset(dest) as parts_data:
        np.testing.assert_array_equal(parts_data.load_clip(0), whole.load_clip(0))
        assert parts_data.sha256 == whole.sha256
    assert not (tmp_path / 'parts.zip.partial').exists()


def test_shares_join_to_what_one_job_makes(
    tiny_generator: pathlib.Path, encoder: pathlib.Path, footage: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Three recordings in two shares, joined in the wrong order; a share that is missing, doubled or foreign is a sentence."""
    for name, first in (('a', 0), ('b', 5), ('c', 9)):
        (tmp_path / 'source' / name).mkdir(parents=True)
        for frame in sorted(footage.iterdir())[first : first + 8]:
            (tmp_path / 'source' / name / frame.name).write_bytes(frame.read_bytes())
    options = (f'--encoder={encoder}', '--perceptual=none', '--no-report', '--min-frames=2', '--scene-cuts=ignore')

    def embed(dest: str, *more: str) -> pathlib.Path:
        result = run(tiny_generator, tmp_path / 'source', tmp_path / dest, *options, *more)
        assert result.exit_code == 0, result.output
        return tmp_path / dest

    whole, first, second = embed('whole.zip'), embed('1.zip', '--shard=1/2'), embed('2.zip', '--shard=2/2')
    other = embed('3.zip', '--shard=2/3')

    def merge(*data: pathlib.Path, more: tuple[str, ...] = ()) -> click.testing.Result:
        return click.testing.CliRunner().invoke(
            latents_tool.main, ['merge', *(f'--data={path}' for path in data), f'--dest={tmp_path / "joined.zip"}', *more]
        )

    for data, words in (
        ((first, first), 'same share'),
        ((second, other), 'different embeddings'),
        ((first, whole), 'not; join all shares'),
        ((embed('4.zip', '--shard=1/3'), other), '1 are missing: 3/3'),
    ):
        refused = merge(*data)
        assert refused.exit_code == 2, refused.output
        assert words in refused.output
    assert merge(second, first).exit_code == 0
    with LatentDataset(tmp_path / 'joined.zip') as joined, LatentDataset(whole) as one:
        assert joined.sha256 == one.sha256
        assert joined.embedding == one.embedding
        assert [clip.name for clip in joined.clips] == [clip.name for clip in one.clips]
    empty = run(tiny_generator, tmp_path / 'source', tmp_path / '5.zip', *options, '--shard=5/5')
    assert empty.exit_code == 2
    assert 'at most 3 shares' in empty.output
