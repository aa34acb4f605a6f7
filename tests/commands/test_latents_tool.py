"""latents_tool.py as a user runs it: what it tells, joins, divides, shows and converts, and what it refuses."""

import errno
import json
import os
import pathlib
import re
import zipfile
from typing import Any

import click.testing
import imageio_ffmpeg
import numpy as np
import pytest
import torch

import latents_tool
from training.latents import writer
from training.latents.dataset import LatentDataset, LatentDatasetWriter
from training.latents.operations import gaussian_filter
from training.latents.statistics import measure

NUM_WS, W_DIM = 6, 8  # of tiny_generator


def run(*arguments: Any) -> click.testing.Result:
    return click.testing.CliRunner().invoke(latents_tool.main, [str(argument) for argument in arguments])


def sentence_of(result: click.testing.Result) -> str:
    assert result.exit_code == 2, result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith('Error: ')
    return last


def walk(length: int, seed: int, step: float = 0.1) -> np.ndarray:
    """Codes that wander, float32 [length, num_ws, w_dim]."""
    return (step * np.random.RandomState(seed).randn(length, NUM_WS, W_DIM)).cumsum(axis=0).astype(np.float32)


def make(
    path: pathlib.Path, clips: dict[str, np.ndarray], *, reference: dict | None = None, fps: float = 25, **extra: Any
) -> pathlib.Path:
    reference = reference or {'sha256': 'a' * 64, 'path': 'gone.pkl'}
    num_ws, w_dim = next(iter(clips.values())).shape[1:]
    with LatentDatasetWriter(path, image_generator=reference, num_ws=num_ws, w_dim=w_dim, embedding={'method': 'test'}) as writer:
        for name, codes in clips.items():
            clip = writer.open_clip(name)
            clip.append(codes)
            quads = np.arange(len(codes) * 8, dtype=np.float32).reshape(-1, 4, 2)
            clip.close(
                fps=fps,
                source=f'{name.split(".")[0]}.mp4',
                arrays={'quads': quads},
                psnr=20.0 + len(codes),
                deviation=1.25,
                **extra,
            )
    return path


@pytest.fixture
def data(tmp_path: pathlib.Path) -> pathlib.Path:
    return make(
        tmp_path / 'data.zip',
        {'ann.1': walk(30, 0), 'ann.2': walk(20, 1), 'bob.1': walk(50, 2), 'eve.1': walk(10, 3)},
        note='kept',
    )


def clips_of(path: pathlib.Path) -> dict[str, np.ndarray]:
    with LatentDataset(path) as dataset:
        return {clip.name: dataset.load_clip(index) for index, clip in enumerate(dataset.clips)}


# ----------------------------------------------------------------------------
# Looking


def test_mistakes_in_the_command_itself_are_one_sentence() -> None:
    for arguments, words in ((['bogus'], 'No such command'), ([], 'Missing command'), (['merge', '--dest=x.zip'], "'--data'")):
        assert words in sentence_of(run(*arguments))


def test_info_and_stats_tell_what_is_there(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    result = run('info', data)
    assert result.exit_code == 0, result.output
    for words in ('4 clips, 110 frames', 'codes [6, 8]', 'a' * 64, 'not found', 'quality: psnr', 'bob.1'):
        assert words in result.output
    assert re.search(r'clip +frames +fps +psnr +deviation +source\n +ann.1 +30 +25 +50 +1.25 +ann.mp4', result.output)
    content = json.loads(run('info', data, '--json', '--sha256').output)
    with LatentDataset(data) as dataset:
        assert content['sha256'] == dataset.sha256
    assert content['clips'][2]['num_frames'] == 50
    # Averages over frames: (30 * 50 + 20 * 40 + 50 * 70 + 10 * 30) / 110.
    assert content['quality']['psnr'] == pytest.approx(6100 / 110)

    result = run('stats', data)
    assert result.exit_code == 0, result.output
    assert 'principal components' in result.output
    assert 'share moments' not in result.output
    assert json.loads(run('stats', data, '--json').output)['num_frames'] == 110


def test_stats_of_known_motion(tmp_path: pathlib.Path) -> None:
    # A straight line has equal steps and no jitter; every value varies alike, along one direction.
    line = np.linspace(-1, 1, 21, dtype=np.float32)[:, None, None] * np.ones((1, NUM_WS, W_DIM), np.float32)
    still = np.concatenate([line[:10], line[9:10].repeat(11, axis=0)])
    zigzag = np.array([(-1.0) ** t for t in range(21)], np.float32)[:, None, None] * line[-1:]
    with LatentDataset(make(tmp_path / 'x.zip', {'line': line, 'still': still, 'zigzag': zigzag})) as dataset:
        found = measure(dataset)
    spread = np.concatenate([line, still, zigzag])[:, 0, 0].std()
    assert found['spread'] == pytest.approx(spread)
    assert found['components'] == {'50%': 1, '90%': 1, '95%': 1, '99%': 1}
    clips = {clip['name']: clip for clip in found['clips']}
    assert clips['line']['step'] == pytest.approx(0.1 / spread, rel=1e-5)
    assert clips['line']['jitter'] == pytest.approx(0, abs=1e-5)
    assert clips['still']['still'] == pytest.approx(11 / 20)
    assert clips['zigzag']['jitter'] == pytest.approx(4 / spread)
    shared = {(pair['clip'], pair['other']): pair['shared'] for pair in found['resembling']}
    assert shared['still', 'line'] == 1  # a part of the line
    assert ('line', 'still') in shared


def test_preview_renders_the_codes(tiny_latents: pathlib.Path, tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    result = run('preview', f'--data={tiny_latents}', f'--outdir={tmp_path / "videos"}', '--clips=sec*', '--device=cpu')
    assert result.exit_code == 0, result.output
    (video,) = (tmp_path / 'videos').iterdir()
    frames = imageio_ffmpeg.read_frames(str(video))
    meta = next(frames)
    assert (video.name, meta['size'], len(list(frames))) == ('second.mp4', (16, 16), 60)
    # The generator of another data set is refused by its content.
    other = make(tmp_path / 'other.zip', {'a': walk(3, 0)}, reference={'sha256': 'b' * 64, 'path': str(tiny_generator)})
    options = ['preview', f'--data={other}', f'--outdir={tmp_path / "other"}', f'--network={tiny_generator}']
    assert '--force-network' in sentence_of(run(*options))
    assert run(*options, '--force-network', '--device=cpu').exit_code == 0
    assert 'no clip is called' in sentence_of(run(*options, '--clips=x'))


# ----------------------------------------------------------------------------
# Joining and dividing


def test_merge_keeps_everything(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    second = make(tmp_path / 'second', {'bob.1': walk(7, 9), 'zoe': walk(5, 8)})
    result = run('merge', f'--data={data}', f'--data={second}', f'--dest={tmp_path / "all.zip"}')
    assert result.exit_code == 0, result.output
    merged = clips_of(tmp_path / 'all.zip')
    assert list(merged) == ['ann.1', 'ann.2', 'bob.1', 'eve.1', 'bob.1-2', 'zoe']
    np.testing.assert_array_equal(merged['bob.1-2'], walk(7, 9))
    with LatentDataset(tmp_path / 'all.zip') as dataset:
        assert dataset.clips[0].extra['note'] == 'kept'
        assert dataset.clips[0].extra['psnr'] == 50
        assert dataset.frame_arrays(4)['quads'].tolist() == np.arange(56.0).reshape(7, 4, 2).tolist()
        assert dataset.embedding == {'method': 'test'}


def test_merge_refuses_what_does_not_go_together(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = make(tmp_path / 'other.zip', {'x': walk(3, 0)}, reference={'sha256': 'c' * 64, 'path': 'ffhq.pkl'})
    faster = make(tmp_path / 'faster.zip', {'x': walk(3, 0)}, fps=30)
    wider = make(tmp_path / 'wider.zip', {'x': np.zeros((3, 6, 9), np.float32)})
    dest = tmp_path / 'all.zip'
    for second, words, force in (
        (other, 'another image generator', True),
        (faster, 'different rates', True),
        (wider, '[6, 9]', False),
    ):
        options = ['merge', f'--data={data}', f'--data={second}', f'--dest={dest}']
        assert words in sentence_of(run(*options))
        assert not dest.exists()
        assert (run(*options, '--force').exit_code == 0) == force
        dest.unlink(missing_ok=True)
    assert 'at least two' in sentence_of(run('merge', f'--data={data}', f'--dest={dest}'))
    assert 'cannot be written' in sentence_of(run('merge', f'--data={data}', f'--data={other}', f'--dest={data}', '--overwrite'))
    cut = tmp_path / 'cut.zip'
    cut.write_bytes(data.read_bytes()[:2000])
    assert 'cut.zip' in sentence_of(run('merge', f'--data={data}', f'--data={cut}', f'--dest={dest}'))
    assert 'already exists' in sentence_of(run('merge', f'--data={data}', f'--data={other}', f'--dest={cut}'))


def split(data: pathlib.Path, *options: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    folder = data.parent / 'parts'
    paths = [folder / 'train.zip', folder / 'test.zip']
    result = run('split', f'--data={data}', f'--train={paths[0]}', f'--test={paths[1]}', '--overwrite', *options)
    assert result.exit_code == 0, result.output
    return clips_of(paths[0]), clips_of(paths[1])


def test_split_by_recording_speaker_and_name(data: pathlib.Path) -> None:
    for seed in range(4):
        for options in (['--by=recording'], ['--by=speaker', '--speaker=^(.*)[.]']):
            train, test = split(data, f'--seed={seed}', '--fraction=0.4', *options)
            assert {*train, *test} == {'ann.1', 'ann.2', 'bob.1', 'eve.1'}
            assert not {name.split('.')[0] for name in train} & {name.split('.')[0] for name in test}
            assert train
            assert test
    train, test = split(data, '--test-clips=ann*')
    assert (list(train), list(test)) == (['bob.1', 'eve.1'], ['ann.1', 'ann.2'])
    result = run('split', f'--data={data}', '--train=a.zip', '--test=b.zip', '--by=speaker', '--speaker=^[.]')
    assert 'divided' in sentence_of(result) or 'finds no speaker' in sentence_of(result)
    assert 'not a regular expression' in sentence_of(
        run('split', f'--data={data}', '--train=a.zip', '--test=b.zip', '--by=speaker', '--speaker=(')
    )


def test_split_by_time(data: pathlib.Path) -> None:
    whole = clips_of(data)
    train, test = split(data, '--by=time', '--fraction=0.25', '--gap=10')
    assert {name: (len(train[name]), len(test.get(name, ()))) for name in train} == {
        'ann.1': (15, 5),
        'ann.2': (8, 2),
        'bob.1': (30, 10),
        'eve.1': (10, 0),
    }
    np.testing.assert_array_equal(test['bob.1'], whole['bob.1'][40:])
    with LatentDataset(data.parent / 'parts' / 'test.zip') as dataset:
        assert 'psnr' not in dataset.clips[0].extra  # that of the whole clip
        assert dataset.clips[0].extra['note'] == 'kept'
        assert dataset.frame_arrays(0)['quads'][0, 0, 0] == 25 * 8


# ----------------------------------------------------------------------------
# Converting


def test_an_interrupted_split_goes_on_and_takes_nothing_of_another(
    data: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ('split', f'--data={data}', f'--train={tmp_path / "a.zip"}', f'--test={tmp_path / "b.zip"}', '--by=time', '--gap=2')
    real: Any = writer.store_aligned

    def store(archive: zipfile.ZipFile, path: str, name: str) -> None:
        if 'b.zip.partial' in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        real(archive, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(writer, 'store_aligned', store)
        result = run(*words, '--fraction=0.2')
    assert result.exit_code == 2
    assert 'no space is left' in result.output
    assert (tmp_path / 'a.zip').exists()
    for other in ('--fraction=0.4', '--test-clips=ann.*'):
        result = run(*words, other)
        assert result.exit_code == 2
        assert 'already exists' in result.output
    os.rename(tmp_path / 'a.zip', tmp_path / 'c.zip')
    result = run(*words, '--fraction=0.4')
    assert result.exit_code == 2
    assert 'an interrupted run that took other clips' in result.output
    os.rename(tmp_path / 'c.zip', tmp_path / 'a.zip')
    result = run(*words, '--fraction=0.2')
    assert result.exit_code == 0, result.output
    assert {name: len(codes) for name, codes in clips_of(tmp_path / 'b.zip').items()}['bob.1'] == 10
    assert {path.name for path in tmp_path.iterdir()} == {'data.zip', 'a.zip', 'b.zip'}
    with zipfile.ZipFile(tmp_path / 'b.zip') as archive:
        assert 'content' not in json.loads(archive.read('dataset.json'))


def test_convert_there_and_back(tiny_latents: pathlib.Path, tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    whole = clips_of(tiny_latents)
    for ending in ('npz', 'npy', 'pt'):
        result = run('convert', f'--source={tiny_latents}', f'--dest={tmp_path / ending}', f'--format={ending}')
        assert result.exit_code == 0, result.output
        result = run('convert', f'--source={tmp_path / ending}', f'--dest={tmp_path / ending}.zip', f'--network={tiny_generator}')
        assert result.exit_code == 0, result.output
        again = clips_of(tmp_path / f'{ending}.zip')
        assert list(again) == ['first', 'second']
        for name, codes in whole.items():
            np.testing.assert_array_equal(again[name], codes)
    assert torch.load(tmp_path / 'pt' / 'first.pt', weights_only=True).shape == (90, 6, 8)
    assert np.load(tmp_path / 'npz' / 'second.npz')['fps'] == 25
    assert run('convert', f'--source={tiny_latents}', f'--dest={tmp_path / "one.npz"}', '--clips=second').exit_code == 0
    assert np.load(tmp_path / 'one.npz')['w'].shape == (60, 6, 8)
    # A zip into a folder and back is the same data set.
    assert run('convert', f'--source={tiny_latents}', f'--dest={tmp_path / "folder"}').exit_code == 0
    assert run('convert', f'--source={tmp_path / "folder"}', f'--dest={tmp_path / "again.zip"}').exit_code == 0
    assert (tmp_path / 'again.zip').read_bytes() == tiny_latents.read_bytes()


def test_convert_refuses(tiny_latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / 'x.npy', walk(3, 0))
    for options, words in (
        ([f'--source={tiny_latents}', '--dest=x.npz'], 'is one file'),
        (['--source=absent.zip', '--dest=x.zip'], 'no file or folder'),
        ([f'--source={tmp_path / "x.npy"}', '--dest=x.zip'], '--network'),
        ([f'--source={tiny_latents}', f'--dest={tmp_path / "x.npy"}', '--clips=first'], 'already exists'),
        ([f'--source={tiny_latents}', '--dest=x.zip', '--fps=30'], 'for codes of other tools'),
    ):
        assert words in sentence_of(run('convert', *options))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['x.npy']


def test_gaussian_filter_is_the_convolution() -> None:
    codes = walk(3000, 4)
    found = gaussian_filter(codes, 1.5)
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 1.5) ** 2)
    padded = np.pad(codes[:, 2, 3].astype(np.float64), 6, mode='edge')
    np.testing.assert_allclose(found[:, 2, 3], np.convolve(padded, kernel / kernel.sum(), mode='valid'), atol=1e-5)


def test_smooth_filters_every_clip(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    result = run('smooth', f'--data={data}', f'--dest={tmp_path / "smooth.zip"}', '--sigma=2')
    assert result.exit_code == 0, result.output
    filtered = clips_of(tmp_path / 'smooth.zip')
    for name, codes in clips_of(data).items():
        np.testing.assert_array_equal(filtered[name], gaussian_filter(codes, 2))
    with LatentDataset(tmp_path / 'smooth.zip') as dataset:
        assert dataset.embedding == {'method': 'test', 'filter_sigma': 2}
        assert 'psnr' not in dataset.clips[0].extra
        assert dataset.frame_arrays(3)['quads'].shape == (10, 4, 2)
