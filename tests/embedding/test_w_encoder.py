"""The W+ encoder: frames do not influence each other, its file opens everywhere, training learns and resumes exactly."""

import json
import pathlib
import pickle
from typing import Any

import click.testing
import numpy as np
import pytest
import torch

import train_encoder
from networks.checkpoints import load_encoder, load_generator, save_module_pickle
from networks.w_encoder import WEncoder
from training.embedding import encoder_training
from training.embedding.code_sampler import CodeSampler
from training.footage.clips import FootageClip
from training.footage.frame_bank import FrameBank, frames_to_images


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(train_encoder.main, list(arguments))


@pytest.fixture
def encoder() -> WEncoder:
    torch.manual_seed(0)
    return WEncoder(num_ws=6, w_dim=8, img_resolution=32, channel_max=32).eval().requires_grad_(False)


def test_a_frame_has_the_same_code_alone_and_among_others(encoder: WEncoder) -> None:
    images = torch.rand(5, 3, 32, 32) * 2 - 1
    together = encoder.train()(images)
    assert together.shape == (5, 6, 8)
    assert torch.equal(together, encoder.eval()(images))
    torch.testing.assert_close(torch.cat([encoder(image[None]) for image in images]), together, atol=1e-5, rtol=1e-5)


def test_images_of_any_size(encoder: WEncoder) -> None:
    small = torch.rand(1, 3, 32, 32) * 2 - 1
    large = small.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(encoder(large), encoder(small), atol=1e-5, rtol=1e-5)
    assert encoder(torch.rand(1, 3, 57, 91)).shape == (1, 6, 8)
    assert WEncoder(num_ws=3, w_dim=4, img_resolution=1024, img_channels=1).input_resolution == 256


def test_answers_are_in_whitened_coordinates(encoder: WEncoder) -> None:
    random = np.random.RandomState(0)
    root = torch.from_numpy(random.randn(8, 8)).float()
    covariance, w_avg = root @ root.T, torch.from_numpy(random.randn(8)).float()
    encoder.set_code_statistics(w_avg, covariance, floor=0)
    torch.testing.assert_close(encoder.w_basis @ encoder.w_basis.T, covariance, atol=1e-3, rtol=1e-3)
    torch.nn.init.zeros_(encoder.heads.weight1)
    assert torch.equal(encoder(torch.rand(2, 3, 32, 32)), w_avg.expand(2, 6, 8))
    # Directions without variance stay within reach.
    encoder.set_code_statistics(w_avg, torch.diag(torch.tensor([4.0] * 7 + [0.0])), floor=0.05)
    assert torch.linalg.svdvals(encoder.w_basis).min() > 0.05


def test_file_opens_in_the_safe_loader_and_by_pickle(encoder: WEncoder, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / 'encoder.pkl')
    save_module_pickle(path, {'encoder': encoder})
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_encoder(path)(images), encoder(images))
    with open(path, 'rb') as file:
        assert torch.equal(pickle.load(file)['encoder'](images), encoder(images))


def test_random_codes_are_reproducible_and_reach_beyond_w(tiny_generator: pathlib.Path) -> None:
    G = load_generator(str(tiny_generator))
    sampler = CodeSampler(G, num_statistics=4096)
    first, again, other = (sampler.draw(300, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == (300, 6, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    layers_differ = (first != first[:, :1]).flatten(1).any(dim=1)
    assert 0.4 < layers_differ.float().mean() < 0.95
    plain = CodeSampler(G, truncation=0, interpolation=0, mixing=0, shuffling=0, spreading=0)
    codes = plain.draw(4000, torch.Generator().manual_seed(3))
    assert torch.equal(codes, codes[:, :1].expand_as(codes))
    torch.testing.assert_close(torch.cov(codes[:, 0].T), sampler.covariance, atol=0.1, rtol=0.1)


def test_frames_of_long_footage_are_thinned_out_evenly() -> None:
    frames = [np.full((4, 4, 3), index, np.uint8) for index in range(100)]
    clip = FootageClip('clip', 25.0, None, 'source', None, lambda first: iter(frames[first:]))
    bank = FrameBank([clip, clip], 4, max_bytes=30 * 4 * 4 * 3)
    assert (bank.stride, bank.num_read, len(bank)) == (8, 200, 25)
    assert bank.frames[:, 0, 0, 0].tolist() == [index % 100 for index in range(0, 200, 8)]
    assert frames_to_images(np.array([[[[0, 255, 51]]]], np.uint8)).flatten().tolist() == pytest.approx([-1, 1, -0.6])


def final_weights(outdir: pathlib.Path) -> dict[str, torch.Tensor]:
    (run_dir,) = outdir.iterdir()
    return load_encoder(str(sorted(run_dir.glob('encoder-*.pkl'))[-1])).state_dict()


def test_training_learns(tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    G: Any = load_generator(str(tiny_generator))
    frames = tmp_path / 'frames'
    frames.mkdir()
    with torch.no_grad():
        images = G.synthesis(G.mapping(torch.randn(12, 8), None), noise_mode='const')
    for index, image in enumerate(images):
        encoder_training._save_grid([image[None]], str(frames / f'{index}.png'))
    options = [
        f'--network={tiny_generator}',
        f'--data={frames}',
        '--kimg=0.96',
        '--batch=16',
        '--tick=0.24',
        '--snap=1',
        '--warmup=0.1',
        '--ema=0.1',
        '--perceptual=none',
        '--cmax=32',
        '--hidden=64',
        '--device=cpu',
        '--lr=0.003',
    ]
    result = run(*options, f'--outdir={tmp_path / "whole"}')
    assert result.exit_code == 0, result.output
    (run_dir,) = (tmp_path / 'whole').iterdir()
    assert run_dir.name == '00000-encoder-tiny-generator-frames-batch16'
    names = {path.name for path in run_dir.iterdir()}
    assert {
        'training_options.json',
        'log.txt',
        'stats.jsonl',
        'reals.png',
        'samples.png',
        'recon-frames-000000.png',
        'encoder-000000.pkl',
        'training-state-000000.pt',
    } <= names
    lines = [json.loads(line) for line in (run_dir / 'stats.jsonl').read_text().splitlines()]
    assert [round(line['Progress/kimg']['mean'], 3) for line in lines] == [0.24, 0.48, 0.72, 0.96]
    assert lines[-1]['Loss/encoder/w']['mean'] < 0.9 * lines[0]['Loss/encoder/w']['mean']
    assert lines[-1]['Quality/frames/psnr']['mean'] > lines[0]['Quality/frames/psnr']['mean']
    assert 'tick 4' in (run_dir / 'log.txt').read_text()

    whole = final_weights(tmp_path / 'whole')
    # A new run may start from these weights.
    again = run(
        *options[:2],
        *options[5:],
        '--kimg=0.02',
        '--lr=1e-9',
        '--batch=4',
        '--tick=0.02',
        f'--init={sorted(run_dir.glob("encoder-*.pkl"))[-1]}',
        f'--outdir={tmp_path / "started"}',
    )
    assert again.exit_code == 0, again.output
    started = final_weights(tmp_path / 'started')
    torch.testing.assert_close(started['stem.weight'], whole['stem.weight'], atol=1e-6, rtol=0)


def test_dry_run_and_mistakes_write_nothing(tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    outdir = tmp_path / 'runs'
    result = run(f'--network={tiny_generator}', f'--outdir={outdir}', '--perceptual=none', '--dry-run')
    assert result.exit_code == 0
    assert '"batch_size": 32' in result.output
    (tmp_path / 'text.pkl').write_text('hello')
    (tmp_path / 'video.mp4').write_text('hello')
    for arguments, sentence in (
        ([f'--network={tmp_path / "absent.pkl"}'], 'no file'),
        ([f'--network={tiny_generator}', f'--data={tmp_path / "video.mp4"}'], 'not a video'),
        ([f'--network={tiny_generator}', f'--lpips-weights={tmp_path / "absent"}'], '--lpips-weights: there is no file'),
        ([f'--network={tiny_generator}', '--kimg=nan'], 'finite'),
    ):
        result = run(*arguments, f'--outdir={outdir}')
        assert result.exit_code == 2
        assert sentence in result.output
        assert len(result.output.strip().splitlines()) == 1
    assert not outdir.exists()
