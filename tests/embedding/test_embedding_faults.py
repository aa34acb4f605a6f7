"""embed_video.py when things go wrong: kills at many moments, a full disk, encoders and weights that do not fit."""

import errno
import io
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
from typing import Any

import click.testing
import numpy as np
import PIL.Image
import pytest
import torch

import embed_video
from networks import checkpoints, psp_encoders, stylegan2
from networks.w_encoder import WEncoder
from training.latents import writer as latent_dataset_writer
from training.latents.dataset import LatentDataset
from training.videos.output import VideoWriter

NUM_WS, W_DIM = 6, 8  # of tiny_generator


def run(generator: pathlib.Path, source: pathlib.Path, dest: pathlib.Path, *options: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(
        embed_video.main,
        [f'--network={generator}', f'--source={source}', f'--dest={dest}', '--device=cpu', '--perceptual=none', *options],
    )


def sentence_of(result: click.testing.Result) -> str:
    assert result.exit_code == 2, result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith('Error: ')
    return last


@pytest.fixture(scope='module')
def encoder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    torch.manual_seed(0)
    module = WEncoder(num_ws=NUM_WS, w_dim=W_DIM, img_resolution=16, channel_max=16, hidden_features=16)
    path = tmp_path_factory.mktemp('encoder') / 'encoder.pkl'
    checkpoints.save_module_pickle(str(path), {'encoder': module.eval().requires_grad_(False)})
    return path


@pytest.fixture(scope='module')
def recordings(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two clips of moving stripes, 16x16."""
    folder = tmp_path_factory.mktemp('recordings')
    for name, length in (('one', 22), ('two', 9)):
        (folder / name).mkdir()
        for t in range(length):
            wave = np.sin(np.arange(16) / 3 + t / 4)[:, None] + np.cos(np.arange(16) / 2 - t / 5)[None]
            frame = np.repeat((wave * 60 + 128).astype(np.uint8)[:, :, None], 3, axis=2)
            PIL.Image.fromarray(frame).save(folder / name / f'{t:03d}.png')
    return folder


# ----------------------------------------------------------------------------
# Interruptions


def test_killed_again_and_again_ends_with_the_same_bytes(
    tiny_generator: pathlib.Path, encoder: pathlib.Path, recordings: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path
) -> None:
    options = ['--chunk=4', '--steps=8', '--first-steps=8', '--stop=0', '--refine', f'--encoder={encoder}', '--measure-every=1']
    assert run(tiny_generator, recordings, tmp_path / 'whole.zip', *options).exit_code == 0
    dest, partial = tmp_path / 'parts.zip', tmp_path / 'parts.zip.partial'
    command = [
        sys.executable,
        str(root / 'embed_video.py'),
        f'--network={tiny_generator}',
        f'--source={recordings}',
        f'--dest={dest}',
        '--device=cpu',
        '--perceptual=none',
        *options,
    ]
    environment = {**os.environ, 'OMP_NUM_THREADS': str(torch.get_num_threads())}

    def frames_of(clip: str) -> int:
        parts = list(partial.glob(f'clips/*-{clip}.npy.part'))
        return (parts[0].stat().st_size - 128) // (4 * NUM_WS * W_DIM) if parts else -1

    def finished_first_clip() -> bool:
        return (partial / 'clips' / '00000-one.npy').exists()

    moments = {
        'before anything': partial.exists,
        'within the first clip': lambda: frames_of('one') >= 8,
        'between the clips': finished_first_clip,
        'within the second clip': lambda: frames_of('two') >= 4,
    }
    seen = []
    for name, reached in moments.items():
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 600
            while process.poll() is None and time.monotonic() < deadline:
                if reached():
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.0005)
            process.wait()
        if process.returncode == -signal.SIGKILL:
            seen.append(name)
            assert not dest.exists()
    assert len(seen) >= 3
    result = run(tiny_generator, recordings, dest, *options)
    assert result.exit_code == 0, result.output
    assert 'Going on with the interrupted run' in result.output
    assert dest.read_bytes() == (tmp_path / 'whole.zip').read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['parts-report', 'parts.zip', 'whole-report', 'whole.zip']
    pages = [json.loads((tmp_path / name / 'report.json').read_text()) for name in ('parts-report', 'whole-report')]
    assert pages[0]['clips'] == pages[1]['clips']
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ('parts-report', 'whole-report')]
    assert names[0] == names[1]  # nothing half-made is left


@pytest.mark.parametrize('stop_after', [1, 6])
def test_without_a_report_an_interruption_changes_nothing_either(
    tiny_generator: pathlib.Path,
    encoder: pathlib.Path,
    recordings: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
) -> None:
    options = [
        '--chunk=4',
        '--steps=6',
        '--first-steps=6',
        '--stop=0',
        '--refine',
        f'--encoder={encoder}',
        '--no-report',
        '--measure-every=2',
    ]
    assert run(tiny_generator, recordings, tmp_path / 'whole.zip', *options).exit_code == 0
    append, calls = latent_dataset_writer.ClipWriter.append, []

    def interrupted(*arguments: Any) -> None:
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(append(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(latent_dataset_writer.ClipWriter, 'append', interrupted)
        result = run(tiny_generator, recordings, tmp_path / 'parts.zip', *options)
    assert result.exit_code == 130
    assert 'run the same command again' in result.output
    assert run(tiny_generator, recordings, tmp_path / 'parts.zip', *options).exit_code == 0
    assert (tmp_path / 'parts.zip').read_bytes() == (tmp_path / 'whole.zip').read_bytes()


def test_a_kill_between_the_last_frame_and_the_entry_costs_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference: dict[str, Any] = {'image_generator': {'sha256': 'a' * 64}, 'num_ws': 1, 'w_dim': 2, 'embedding': {}}
    codes = np.random.RandomState(0).randn(9, 1, 2).astype(np.float32)
    clip = latent_dataset_writer.LatentDatasetWriter(tmp_path / 'x.zip', **reference).open_clip('talk', chunk=4)
    clip.append(codes, [{'psnr': float(value)} for value in range(9)])
    with monkeypatch.context() as patch:
        patch.setattr(latent_dataset_writer.LatentDatasetWriter, '_register', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            clip.close(fps=25, source='')
    del clip  # with the lock of its data set, as a kill does
    clip = latent_dataset_writer.LatentDatasetWriter(tmp_path / 'x.zip', **reference).open_clip('talk', chunk=4)
    assert clip.num_frames == 8
    assert clip.averages() == {'psnr': 3.5}
    np.testing.assert_array_equal(clip.read_codes(2, 100), codes[2:8])


def test_disk_full_at_frame_ten_thousand(
    tiny_generator: pathlib.Path, encoder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shades = np.random.RandomState(0).randint(0, 256, [8, 16, 16, 3], dtype=np.uint8)
    with VideoWriter(tmp_path / 'long.mp4', fps=50, preset='ultrafast', crf=40) as video:
        for t in range(10_240):
            video.write(shades[t // 40 % 8])
    options = (f'--encoder={encoder}', '--chunk=512', '--measure-every=0', '--no-report', '--scene-cuts=ignore')
    dest, limit = tmp_path / 'data.zip', 128 + 10_000 * 4 * NUM_WS * W_DIM

    class SmallDisk(io.FileIO):
        """Takes bytes up to a limit, as a disk does that gets full: the last write is cut off."""

        def write(self, data: Any) -> int:
            room = limit - self.tell()
            if len(data) > room:
                super().write(data[:room])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.name))
            return super().write(data)

    def open_on_small_disk(path: Any, mode: str = 'r', **kwargs: Any) -> Any:
        if str(path).endswith('.npy.part') and mode == 'rb+':
            return SmallDisk(path, mode)
        return open(path, mode, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(latent_dataset_writer, 'open', open_on_small_disk, raising=False)
        sentence = sentence_of(run(tiny_generator, tmp_path / 'long.mp4', dest, *options))
    assert 'no space is left on the disk' in sentence
    assert '00000-long.npy.part' in sentence
    assert not dest.exists()
    part = tmp_path / 'data.zip.partial' / 'clips' / '00000-long.npy.part'
    assert part.stat().st_size == limit
    before = part.read_bytes()[128 : 128 + 9_728 * 4 * NUM_WS * W_DIM]  # 19 chunks

    result = run(tiny_generator, tmp_path / 'long.mp4', dest, *options)
    assert result.exit_code == 0, result.output
    assert run(tiny_generator, tmp_path / 'long.mp4', tmp_path / 'whole.zip', *options).exit_code == 0
    assert dest.read_bytes() == (tmp_path / 'whole.zip').read_bytes()
    with LatentDataset(dest) as dataset:
        codes = dataset.load_clip(0)
        assert len(codes) == 10_240
        assert codes[:9_728].tobytes() == before


# ----------------------------------------------------------------------------
# Encoders of pSp and e4e


@pytest.fixture
def wide_generator(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A generator of 64x64 pixels with codes [10, 64], and small encoders of pSp and e4e for such codes."""
    monkeypatch.setattr(psp_encoders, 'BACKBONE_STAGES', ((16, 1), (128, 1), (256, 1), (64, 2)))
    monkeypatch.setattr(psp_encoders, 'CODE_WIDTH', 64)
    torch.manual_seed(1)
    G = stylegan2.Generator(
        z_dim=8,
        c_dim=0,
        w_dim=64,
        img_resolution=64,
        img_channels=3,
        mapping_kwargs={'num_layers': 1},
        synthesis_kwargs={'channel_base': 256, 'channel_max': 8},
    )
    checkpoints.save_module_pickle(str(tmp_path / 'wide.pkl'), {'G_ema': G.eval().requires_grad_(False)})
    return tmp_path / 'wide.pkl'


def save_psp(path: pathlib.Path, num_styles: int, **opts: Any) -> pathlib.Path:
    torch.manual_seed(4)
    encoder = psp_encoders.GradualStyleEncoder(num_styles, in_channels=opts.get('input_nc', 3))
    for name, value in encoder.state_dict().items():
        if 'num_batches' not in name:
            value.copy_(torch.rand_like(value) if value.ndim < 2 else torch.randn_like(value) * value[0].numel() ** -0.5)
    torch.save(
        {
            'state_dict': {f'encoder.{name}': value for name, value in encoder.state_dict().items()},
            'latent_avg': torch.linspace(-1, 1, num_styles * 64).reshape(num_styles, 64),
            'opts': {'encoder_type': 'GradualStyleEncoder', 'start_from_latent_avg': True, **opts},
        },
        path,
    )
    return path


def test_psp_sees_the_frame_as_it_was_trained_to(wide_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    frame = np.random.RandomState(2).randint(0, 256, [90, 120, 3], dtype=np.uint8)
    (tmp_path / 'talk').mkdir()
    PIL.Image.fromarray(frame).save(tmp_path / 'talk' / '0.png')
    path = save_psp(tmp_path / 'psp.pt', 10)
    result = run(wide_generator, tmp_path / 'talk', tmp_path / 'data.zip', f'--encoder={path}')
    assert result.exit_code == 0, result.output
    # The recipe of these projects: Pillow's bilinear resize, [0, 255] to [-1, 1], the encoder, the average code on top.
    square = PIL.Image.fromarray(frame[:, 15:105]).resize((256, 256), PIL.Image.Resampling.BILINEAR)
    image = torch.from_numpy((np.asarray(square).transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5).float()
    plain: Any = checkpoints.load_encoder(str(path))
    with torch.no_grad():
        expected = plain.encoder(image) + torch.linspace(-1, 1, 10 * 64).reshape(10, 64)
    with LatentDataset(tmp_path / 'data.zip') as dataset:
        np.testing.assert_allclose(dataset.load_clip(0), expected.numpy(), atol=1e-4)


def test_encoders_that_do_not_fit(wide_generator: pathlib.Path, recordings: pathlib.Path, tmp_path: pathlib.Path) -> None:
    dest = tmp_path / 'data.zip'
    for number in (12, 18):
        path = save_psp(tmp_path / f'{number}.pt', number)
        sentence = sentence_of(run(wide_generator, recordings, dest, f'--encoder={path}'))
        assert f'gives codes [{number}, 64]' in sentence
        assert 'takes [10, 64]' in sentence
    path = save_psp(tmp_path / 'labels.pt', 10, input_nc=19)
    assert '19 channels' in sentence_of(run(wide_generator, recordings, dest, f'--encoder={path}'))
    broken = torch.load(save_psp(tmp_path / '10.pt', 10), weights_only=True)
    broken['state_dict']['encoder.styles.2.linear.bias'][3] = float('nan')
    torch.save(broken, tmp_path / 'nan.pt')
    sentence = sentence_of(run(wide_generator, recordings, dest, f'--encoder={tmp_path / "nan.pt"}'))
    assert "NaN or infinite for clip 'one', frame 0" in sentence
    assert not dest.exists()


def test_an_encoder_of_another_file_is_taken_only_by_force(
    tiny_generator: pathlib.Path, encoder: pathlib.Path, recordings: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    module = checkpoints.load_encoder(str(encoder))
    for name, sha256 in (('right', checkpoints.file_sha256(str(tiny_generator))), ('wrong', 'b' * 64)):
        contents = {'encoder': module, 'image_generator': {'path': 'elsewhere.pkl', 'sha256': sha256}}
        checkpoints.save_module_pickle(str(tmp_path / f'{name}.pkl'), contents)
    options = ('--no-report', '--measure-every=0')
    assert run(tiny_generator, recordings, tmp_path / 'a.zip', f'--encoder={tmp_path / "right.pkl"}', *options).exit_code == 0
    sentence = sentence_of(run(tiny_generator, recordings, tmp_path / 'b.zip', f'--encoder={tmp_path / "wrong.pkl"}', *options))
    assert 'another image generator' in sentence
    assert '--force-encoder' in sentence
    assert not (tmp_path / 'b.zip').exists()
    options = (*options, f'--encoder={tmp_path / "wrong.pkl"}', '--force-encoder')
    assert run(tiny_generator, recordings, tmp_path / 'b.zip', *options).exit_code == 0


def test_lpips_weights_that_do_not_fit(tiny_generator: pathlib.Path, recordings: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'text.ckpt').write_text('hello')
    (tmp_path / 'other.ckpt').write_bytes(pickle.dumps({'AlexNet_0': {}}))
    torch.save({'weight': torch.zeros(3)}, tmp_path / 'state.pth')
    for name, words in (
        ('text.ckpt', 'does not hold'),
        ('other.ckpt', 'does not hold'),
        ('state.pth', 'does not hold'),
        ('absent.ckpt', 'there is no file'),
    ):
        result = run(tiny_generator, recordings, tmp_path / 'data.zip', '--perceptual=alex', f'--lpips-weights={tmp_path / name}')
        sentence = sentence_of(result)
        assert words in sentence
        assert name in sentence
    assert not (tmp_path / 'data.zip').exists()
    assert not (tmp_path / 'data.zip.partial').exists()
