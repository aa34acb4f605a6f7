"""Benchmarks of embedding and tuning: means and tests over the same clips, noise of a stated size, noise maps as they were."""

import copy
import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.embedding import embedding_methods, identity_scale, loss_weights
from benchmarks.embedding.per_frame_projection import noisy_layers, refine_with_noise
from benchmarks.embedding.results_file import Results
from benchmarks.embedding.tuning import table
from networks import checkpoints


class Pixels:
    """Squared error in the place of LPIPS."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) / images[0].numel() ** 0.5

    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (self.embed(images) - self.embed(targets)).square().sum(dim=1)


def test_own_noise_maps_bring_a_frame_nearer_and_do_not_stay(tiny_generator: pathlib.Path) -> None:
    G = copy.deepcopy(checkpoints.load_generator(str(tiny_generator)))  # its layers are of another class
    layers = noisy_layers(G)
    assert layers
    for layer in layers:
        layer.noise_strength.data.fill_(0.3)
    before = [layer.noise_const.clone() for layer in layers]
    random = torch.Generator().manual_seed(0)
    code = G.mapping(torch.randn([1, G.z_dim], generator=random), torch.zeros([1, G.c_dim]))[0]
    with torch.no_grad():
        for layer in layers:
            layer.noise_const.add_(torch.randn(layer.noise_const.shape, generator=random))
        target = G.synthesis(code[None], noise_mode='const')[0].clamp(-1, 1)
        for layer, values in zip(layers, before, strict=True):
            layer.noise_const.copy_(values)
        started = float(Pixels()(G.synthesis(code[None], noise_mode='const').clamp(-1, 1), target[None]))
    found, distance, psnr = refine_with_noise(G, Pixels(), target, code, steps=40)  # type: ignore[arg-type]
    assert found.shape == code.shape
    assert 0 < distance < 0.95 * started
    assert psnr > 0
    assert all(torch.equal(layer.noise_const, values) for layer, values in zip(layers, before, strict=True))


def test_the_table_compares_generators_on_the_clips_that_all_have(tmp_path: pathlib.Path) -> None:
    results = Results(str(tmp_path / 'tuning.jsonl'))
    for clip, locality, psnr in (('a', None, 20.0), ('b', None, 30.0), ('a', 0.0, 22.0)):
        results.add({'kind': 'tuning', 'world': 'w', 'clip': clip, 'locality': locality, 'psnr': psnr})
    for evaluations in (10, 20):
        results.add({'kind': 'refinement', 'world': 'w', 'clip': 'a', 'locality': None, 'evaluations': evaluations, 'lpips': 0.1})
    rows = table(results).splitlines()
    assert '| w | before | 1 | 20.00 |' in rows
    assert '| w | plain | 1 | 22.00 |' in rows
    assert '| w | before | 20 | 1 | 0.10000 |' in rows
    assert not any('→' in row for row in rows)  # one clip says nothing about others


def test_the_table_says_what_is_certain_about_the_same_clips(tmp_path: pathlib.Path) -> None:
    results = Results(str(tmp_path / 'tuning.jsonl'))
    for clip, before, plain, local in (('a', 20.0, 20.9, 21.0), ('b', 30.0, 29.9, 31.0), ('c', 25.0, 25.7, 27.5)):
        for locality, psnr, moved in ((None, before, 0.0), (0.0, plain, 0.3), (1.0, local, 0.1 + before / 1000)):
            row = {'psnr': psnr, 'z_lpips': moved, 'steps': 5}
            results.add({'kind': 'tuning', 'world': 'w', 'clip': clip, 'locality': locality, **row})
    results.add({'kind': 'tuning', 'world': 'w', 'clip': 'd', 'locality': None, 'psnr': 99.0})
    rows = [row.removesuffix(' |').split(' | ')[1:] for row in table(results).splitlines() if '→' in row]
    assert [row[:3] + row[4:5] for row in rows] == [
        ['before → plain', 'psnr', '+0.50', '2 of 3'],
        ['before → locality 1', 'psnr', '+1.50', '3 of 3'],
        ['plain → locality 1', 'psnr', '+1.00', '3 of 3'],
        ['plain → locality 1', 'z_lpips', '-0.1750', '3 of 3'],
    ]
    gains = np.array([1.0, 1.0, 2.5])
    t = float(gains.mean() / gains.std(ddof=1) * 3**0.5)
    p = 1 - t / (2 + t * t) ** 0.5  # Student's t with two degrees of freedom
    assert float(rows[1][5]) == pytest.approx(min(1, 3 * p), rel=0.05)  # the second smallest of four
    half = 4.3027 * gains.std(ddof=1) / 3**0.5
    assert rows[1][3] == f'{gains.mean() - half:+.2f} to {gains.mean() + half:+.2f}'


def test_the_scale_of_identity_compares_the_frames_that_it_says() -> None:
    frame = np.full((40, 40, 3), 128, np.uint8)
    for decibel, grain in ((27, 1), (33, 1), (27, 4)):
        changed = identity_scale.noisy(frame, decibel, grain, np.random.RandomState(0))
        error = np.square((changed.astype(float) - frame) / 255).mean()
        assert -10 * np.log10(error) == pytest.approx(decibel, abs=0.7)
        assert (changed[:grain, :grain] == changed[0, 0]).all()

    def face(original: np.ndarray, other: np.ndarray) -> float | None:
        return None if original[0, 0, 0] == 39 else float(other[0, 0, 0]) - float(original[0, 0, 0])

    frames = np.arange(50, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    found = identity_scale.measure(face, frames, 5.0, [frames[49], frames[48]], 10)  # type: ignore[arg-type]
    assert found['next'] == 1
    assert found['second'] == 5
    assert found['others'] == 8.5  # of frame 40, the first of the last fifth
    assert found['half'] == 0


def test_settings_of_an_embedding_are_compared_on_the_same_frames(tmp_path: pathlib.Path) -> None:
    results = Results(str(tmp_path / 'embedding.jsonl'))
    for world, psnr, identity in (('w', (20.0, 21.0, 22.0), 0.5), ('w/pixels', (21.0, 23.0, 22.5), 0.4)):
        for clip, value in zip('abc', psnr, strict=True):
            row: dict[str, Any] = {'frames': 8, 'seconds': 4.0, 'psnr': value, 'lpips': 0.1, 'jitter': 0.1, 'pixel_jitter': 1.0}
            row |= {'identity': identity + value / 1000, 'clip': clip, 'method': 'optimisation'}
            results.add({'kind': 'method', 'world': world, 'perceptual': 'alex', **row})
    results.add(results.rows[0] | {'frames': 16, 'world': 'w/more'})
    rows = embedding_methods.tables(results).splitlines()
    assert '| optimisation | 24 | 21.00 | 0.1000 | 0.52 | 0.100 | 1.00 | 2.0 |' in rows
    found = [row.split(' | ') for row in rows if row.startswith('| optimisation | w,')]
    assert [row[1:5] + row[6:7] for row in found] == [
        ['w, alex', 'w/pixels, alex', 'psnr', '+1.167', '3 of 3'],
        ['w, alex', 'w/pixels, alex', 'identity', '-0.099', '3 of 3'],
    ]
    changes = np.array([1.0, 2.0, 0.5])
    t = float(changes.mean() / changes.std(ddof=1) * 3**0.5)
    assert float(found[0][7].removesuffix(' |')) == pytest.approx(1 - t / (2 + t * t) ** 0.5, rel=0.05)


def test_weights_of_a_loss_are_compared_on_the_clips_that_all_have(tmp_path: pathlib.Path) -> None:
    results = Results(str(tmp_path / 'weights.jsonl'))
    for pixel, smooth, psnr in ((2.0, 0.1, (20.0, 21.0, 22.0)), (20.0, 0.3, (21.0, 23.0, 21.5))):
        for clip, value in zip('abc', psnr, strict=True):
            row = {'world': 'w', 'clip': clip, 'pixel': pixel, 'smooth': smooth, 'frames': 8, 'psnr': value, 'alex': value / 1000}
            results.add(row | {'seconds': 4.0} | ({'identity': 0.5} if clip != 'a' else {}))
    results.add(results.rows[0] | {'clip': 'd', 'psnr': 99.0})
    rows = [row.strip('| ').split(' | ') for row in loss_weights.table(results).splitlines()]
    assert ['--lambda-pixel', '--smooth', 'psnr', 'alex', 'seconds'] in rows  # identity is not known of all
    assert ['2', '0.1', '21.00', '0.0210', '4.0'] in rows
    assert ['20', '0.3', '21.83', '0.0218', '4.0'] in rows
    found = [row for row in rows if row[0] == 'w' and len(row) == 8]
    assert [row[1:5] + row[6:7] for row in found] == [
        ['2:0.1', '20:0.3', 'psnr', '+0.83', '2 of 3'],
        ['2:0.1', '20:0.3', 'alex', '+0.0008', '1 of 3'],
    ]
    changes = np.array([1.0, 2.0, -0.5])
    t = float(changes.mean() / changes.std(ddof=1) * 3**0.5)
    assert float(found[0][7]) == pytest.approx(2 * (1 - t / (2 + t * t) ** 0.5), rel=0.05)
