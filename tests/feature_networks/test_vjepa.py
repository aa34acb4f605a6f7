"""V-JEPA with its attentive pooler: against its authors' own program on the same weights; files in their form; JEDi of videos."""

import json
import pathlib
import zlib
from typing import Any

import click.testing
import numpy as np
import pytest
import torch

import calc_metrics_video
from metrics.features.detectors import detector_of, load_detector
from networks.checkpoints.detector_weights import vjepa_weights
from networks.errors import InputError
from networks.feature_networks.vjepa import Encoder, Pooler

# What the package vjepa 0.1.2 computes for the weights of `filled`: every 40th feature of the last clip. Its network was made
# with embed_dim=192, depth=2, num_heads=3, mlp_ratio=2, img_size=32, num_frames=16, the ImageNet values taken off before.
PUBLISHED = {
    (1, 16, 32, 32, 3): [-0.05368, -0.13362, -0.27631, 0.4917, -0.10437],
    (2, 6, 48, 40, 3): [0.22035, 0.13912, -0.72718, 0.64079, -0.00451],
}


def filled(module: torch.nn.Module, prefix: str = '') -> dict[str, torch.Tensor]:
    """Weights that depend on their names alone."""
    found = {}
    for name, tensor in module.state_dict().items():
        random = np.random.RandomState(zlib.crc32(f'{prefix}{name}'.encode()))
        values = 0.05 * random.randn(*tensor.shape).astype(np.float32)
        found[f'{prefix}{name}'] = torch.from_numpy(values) + (1 if 'norm' in name and name.endswith('weight') else 0)
    return found


@pytest.fixture
def files(tmp_path: pathlib.Path) -> list[str]:
    """Both files as V-JEPA's authors write them, with what is not needed beside it."""
    encoder = filled(Encoder(192, 2, 3, 384, (2, 16), (8, 2, 2)))
    pooler = filled(Pooler(192, 3, 384), 'pooler.') | {'linear.weight': torch.ones(5, 192), 'linear.bias': torch.ones(5)}
    training = {
        name: {f'module.backbone.{key}': tensor + shift for key, tensor in encoder.items()}
        for name, shift in (('encoder', 1.0), ('target_encoder', 0.0))
    }
    torch.save({**training, 'predictor': {}, 'opt': {'state': {}}, 'epoch': 300, 'loss': 0.5}, tmp_path / 'vith16.pth.tar')
    probe = {f'module.{key}': tensor for key, tensor in pooler.items()}
    torch.save({'classifier': probe, 'opt': {}, 'epoch': 20}, tmp_path / 'ssv2-probe.pth.tar')
    return [str(tmp_path / 'ssv2-probe.pth.tar'), str(tmp_path / 'vith16.pth.tar')]


@pytest.mark.parametrize('shape', PUBLISHED)
def test_features_are_those_of_the_authors_program(shape: tuple[int, ...], files: list[str]) -> None:
    assert [detector_of(path) for path in files] == ['vjepa-pooler', 'vjepa']
    detector = load_detector('vjepa', files)
    frames = torch.from_numpy(np.random.RandomState(0).randint(256, size=shape).astype(np.uint8))
    features = detector.features(frames)
    assert features.shape == (shape[0], 1, detector.num_features)
    np.testing.assert_allclose(features[-1, 0, ::40], PUBLISHED[shape], atol=2e-5)


def test_files_that_do_not_fit_are_refused(files: list[str], tmp_path: pathlib.Path) -> None:
    pooler, encoder = files
    with pytest.raises(InputError, match='needs its attentive pooler, such as ssv2-probe'):
        load_detector('vjepa', [encoder])
    with pytest.raises(InputError, match="needs V-JEPA's weights, such as vith16"):
        load_detector('vjepa', [pooler])
    wide = filled(Pooler(384, 6, 64), 'pooler.')
    for change, message in (
        (lambda some: some.pop('norm.bias'), 'for example norm.bias'),
        (lambda some: some.update({'blocks.2.norm1.bias': torch.ones(192)}), 'for example blocks.2'),
        (lambda some: some.update({'norm.bias': torch.full((192,), np.nan)}), 'norm.bias holds numbers that are not finite'),
        (lambda some: some.update({'pos_embed': torch.ones(1, 33, 192)}), 'no V-JEPA for clips of 16 frames'),
    ):
        wrong = filled(Encoder(192, 2, 3, 384, (2, 16), (8, 2, 2)))
        change(wrong)
        torch.save({'target_encoder': wrong}, tmp_path / 'wrong.pth.tar')
        with pytest.raises(InputError, match=message):
            vjepa_weights.load(str(tmp_path / 'wrong.pth.tar'), pooler)
    torch.save({'classifier': wide}, tmp_path / 'wide.pth.tar')
    with pytest.raises(InputError, match='its pooler is 384 wide'):
        vjepa_weights.load(encoder, str(tmp_path / 'wide.pth.tar'))


def test_jedi_of_two_sets_of_videos(files: list[str], tmp_path: pathlib.Path) -> None:
    random = np.random.RandomState(0)
    clips: dict[str, Any] = {}
    for name in ('real', 'fake'):
        (tmp_path / name).mkdir()
        clips[name] = random.randint(256, size=(3, 16, 32, 32, 3)).astype(np.uint8)
        for number, clip in enumerate(clips[name]):
            np.save(tmp_path / name / f'{number}.npy', clip)
    words = [f'--detector={path}' for path in files] + [f'--{name}={tmp_path / name}' for name in clips]
    done = click.testing.CliRunner().invoke(
        calc_metrics_video.main, ['--metrics=jedi_vjepa_5000_16f', '--device=cpu', '--fps=25', '--no-cache', *words]
    )
    assert done.exit_code == 0, done.stderr
    line = json.loads(done.stdout)
    detector = load_detector('vjepa', files)
    a, b = (detector.features(torch.from_numpy(some))[:, 0].double().numpy() for some in clips.values())
    means = [np.mean([(x @ y / 192) ** 2 for x in first for y in second]) for first, second in ((a, a), (b, b), (a, b))]
    assert line['results']['jedi_vjepa_5000_16f'] == pytest.approx(100 * (means[0] + means[1] - 2 * means[2]), rel=1e-6)
    assert line['protocol']['detector']['pooler'] == 'ssv2-probe.pth.tar'
