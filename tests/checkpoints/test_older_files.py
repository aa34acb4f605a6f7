"""Files written by commit 14ddbf6 open, and mean what they meant.

`written_by_14ddbf6.zip` holds a tiny image generator (8x8), a latent data set of two clips, an encoder, a run folder with
snapshot and training state, and what that commit's own code computed with them (`expected.npz`).
"""

import json
import pathlib
import pickle
import zipfile

import click.testing
import numpy as np
import pytest
import torch

import generate_video
import train_video
from networks import checkpoints
from training.latents.dataset import LatentDataset


@pytest.fixture
def older(root: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    with zipfile.ZipFile(root / 'tests' / 'checkpoints' / 'written_by_14ddbf6.zip') as archive:
        archive.extractall(tmp_path)
    return tmp_path


def close(computed: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(computed.detach(), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


def test_networks_compute_the_same(older: pathlib.Path) -> None:
    expected = dict(np.load(older / 'expected.npz').items())
    given = {name: torch.from_numpy(value) for name, value in expected.items()}
    image_generator = checkpoints.load_generator(older / 'generator.pkl')
    close(image_generator.synthesis(given['ws'], noise_mode='const'), expected['synthesis'])
    close(checkpoints.load_encoder(older / 'encoder.pkl')(given['images']), expected['encoded'])
    snapshot = checkpoints.load_snapshot(older / 'run' / 'network-snapshot-000000.pkl')
    close(snapshot['G_ema'](given['i'], given['s']), expected['codes'])
    assert snapshot['image_generator']['sha256'] == checkpoints.file_sha256(older / 'generator.pkl')


def test_the_files_carry_source_that_pickle_runs(older: pathlib.Path) -> None:
    """As NVIDIA's scripts open them: the classes are those that the file brings, and they compute the same."""
    expected = np.load(older / 'expected.npz')
    with open(older / 'generator.pkl', 'rb') as file:
        image_generator = pickle.load(file)['G_ema']
    close(image_generator.synthesis(torch.from_numpy(expected['ws']), noise_mode='const'), expected['synthesis'])


def test_the_data_set_holds_the_same_codes(older: pathlib.Path) -> None:
    with LatentDataset(older / 'latents.zip') as dataset:
        assert [(clip.name, clip.num_frames, clip.fps) for clip in dataset.clips] == [('first', 40, 25.0), ('second', 30, 25.0)]
        assert dataset.image_generator['sha256'] == checkpoints.file_sha256(older / 'generator.pkl')
        assert np.array_equal(dataset.load_clip(0), np.load(older / 'expected.npz')['first'])


def test_commands_take_the_files(older: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(older)  # the recorded path of the image generator is not there, and the file beside the run is
    run = click.testing.CliRunner().invoke
    snapshot = 'run/network-snapshot-000000.pkl'
    result = run(
        generate_video.main, [f'--network={snapshot}', '--outdir=out', '--seeds=0', '--frames=3', '--format=png', '--device=cpu']
    )
    assert result.exit_code == 0, result.output
    assert len(list((older / 'out').rglob('*.png'))) == 3


def test_a_run_goes_on(older: pathlib.Path) -> None:
    options = json.loads((older / 'run' / 'training_options.json').read_text())
    options.update(data=str(older / 'latents.zip'), network=str(older / 'generator.pkl'), total_kimg=0.4)
    (older / 'run' / 'training_options.json').write_text(json.dumps(options))
    arguments = [f'--outdir={older / "runs"}', f'--data={older / "latents.zip"}', f'--resume={older / "run"}']
    result = click.testing.CliRunner().invoke(train_video.main, [*arguments, '--kimg=0.4', '--device=cpu'])
    assert result.exit_code == 0, result.output
    ticks = [json.loads(line)['Progress/kimg']['mean'] for line in (older / 'run' / 'stats.jsonl').read_text().splitlines()]
    assert ticks[-1] >= 0.39
