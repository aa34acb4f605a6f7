"""calc_metrics_video.py: one JSON line a result on standard output; the data set of the training; plugins; mistakes."""

import json
import os
import pathlib
import subprocess
import sys

import click.testing
import numpy as np
import pytest
import torch

import calc_metrics_video
from networks.latent_generator import LatentGenerator
from training import temporal_snapshot
from training.latents.dataset import LatentDataset, LatentDatasetWriter

REFERENCE = {'path': 'G.pkl', 'sha256': 'a' * 64, 'class_name': 'Generator', 'init_kwargs': {}}


def write_data(path: pathlib.Path, seed: int, num_frames: int = 700, num_ws: int = 4) -> None:
    random = np.random.RandomState(seed)
    with LatentDatasetWriter(
        str(path), image_generator=REFERENCE, num_ws=num_ws, w_dim=8, embedding={'method': 'test'}
    ) as writer:
        walk = np.cumsum(random.randn(num_frames, 3), axis=0) @ random.randn(3, num_ws * 8)
        codes = (0.02 * walk + 0.1 * random.randn(num_frames, num_ws * 8)).reshape(num_frames, num_ws, 8).astype(np.float32)
        writer.add_clip('walk', codes, fps=25, source='walk.mp4')
        writer.finish()


@pytest.fixture
def run_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """A training run with a snapshot, trained on latents.zip beside it."""
    write_data(tmp_path / 'latents.zip', 0)
    folder = tmp_path / '00000-run'
    folder.mkdir()
    (folder / 'training_options.json').write_text('{}')
    torch.manual_seed(0)
    networks = LatentGenerator(4, 8, num_components=6)
    networks.set_data_basis(torch.zeros(32), torch.randn(6, 32))
    dataset = LatentDataset(str(tmp_path / 'latents.zip'))
    temporal_snapshot.save_snapshot(
        str(folder / 'network-snapshot-000007.pkl'),
        G=networks,
        G_ema=networks,
        C=networks,
        image_generator=REFERENCE,
        data=temporal_snapshot.describe_dataset(dataset),
        training_options={},
        progress={},
    )
    dataset.close()
    return folder


def calculate(run_dir: pathlib.Path, *arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(
        calc_metrics_video.main, [f'--network={run_dir / "network-snapshot-000007.pkl"}', '--device=cpu', *arguments]
    )


def test_every_result_is_one_json_line(run_dir: pathlib.Path, root: pathlib.Path) -> None:
    command = [
        sys.executable,
        str(root / 'calc_metrics_video.py'),
        '--device=cpu',
        f'--network={run_dir / "network-snapshot-000007.pkl"}',
        '--metrics=lfd2048_25f,lfd2048_25f_at225',
    ]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert [line['metric'] for line in lines] == ['lfd2048_25f', 'lfd2048_25f_at225']
    for line in lines:
        name = line['metric']
        assert {'results', 'metric', 'total_time', 'total_time_str', 'num_gpus', 'snapshot_pkl', 'timestamp'} <= set(line)
        assert line['snapshot_pkl'] == 'network-snapshot-000007.pkl'
        assert line['results'][name] > 0
        assert line['results'][f'{name}_windows_fake'] == 2048
        assert line['results'][f'{name}_dimension'] == 27
        assert line['results'][f'{name}_start_frame'] == (225 if name.endswith('at225') else 0)
        assert line['protocol']['data_frames'] == 700
        assert line['protocol']['metric_file'].endswith('latent_frechet_distance.py')
        assert len(line['protocol']['network_sha256']) == len(line['protocol']['data_sha256']) == 64
        kept = (run_dir / f'metric-{name}.jsonl').read_text().splitlines()
        assert [json.loads(text) for text in kept] == [line]
    assert 'Calculating' in process.stderr
    # The folder of the run means its snapshot.
    process = subprocess.run([*command[:3], f'--network={run_dir}', '--metrics=lfd2048_25f'], capture_output=True, text=True)
    assert json.loads(process.stdout)['results'] == lines[0]['results'], process.stderr
    assert 'Of this run, network-snapshot-000007.pkl: ' in process.stderr


def test_data_is_that_of_the_training_or_what_is_said(
    run_dir: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / 'latents.zip'
    write_data(tmp_path / 'other.zip', 1)
    result = calculate(run_dir, '--metrics=lfd2048_25f', '--data=other.zip')
    assert json.loads(result.stdout)['protocol']['data'] == 'other.zip'
    os.replace(tmp_path / 'other.zip', data)  # the same name, another content
    result = calculate(run_dir, '--metrics=lfd2048_25f')
    assert result.exit_code == 2
    assert 'has another content' in result.stderr
    data.unlink()
    result = calculate(run_dir, '--metrics=lfd2048_25f')
    assert result.exit_code == 2
    assert 'say where it is with --data' in result.stderr
    write_data(tmp_path / 'wide.zip', 0, num_ws=5)
    assert '5 x 8' in calculate(run_dir, '--data=wide.zip').stderr
    write_data(tmp_path / 'short.zip', 0, num_frames=120)
    result = calculate(run_dir, '--data=short.zip')
    assert (result.exit_code, result.stdout) == (2, '')
    assert '4 windows of 25 frames' in result.stderr


def test_plugins_lists_and_mistakes(run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    plugin = tmp_path / 'spread.py'
    plugin.write_text(
        'from metrics import metric_main\n'
        '@metric_main.register_metric\n'
        'def test_only_spread(opts):\n'
        '    print("a word that must not stand between the results")\n'
        '    return {"test_only_spread": float(opts.G.w_mean.std())}\n'
    )
    result = calculate(run_dir, f'--plugin={plugin}', '--metrics=test_only_spread')
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)['results'] == {'test_only_spread': 0.0}
    listing = calculate(run_dir, '--list-metrics')
    assert {'lfd2048_25f', 'lfd2048_25f_at225'} <= {line.split('\t')[0] for line in listing.stdout.splitlines()}
    assert calculate(run_dir, '--metrics=none').stdout == ''
    for arguments, words in [
        (['--metrics=fdv'], 'there is no fdv; known are '),
        (['--plugin=absent.py'], 'no file'),
        (['--data=absent.zip'], 'absent.zip'),
    ]:
        result = calculate(run_dir, *arguments)
        assert (result.exit_code, result.stdout) == (2, '')
        assert words in result.stderr.strip().splitlines()[-1]
    result = click.testing.CliRunner().invoke(calc_metrics_video.main, [])
    assert result.exit_code == 2
    assert '--network' in result.stderr


def test_the_example_of_the_documentation_runs(run_dir: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path) -> None:
    example = (root / 'docs' / 'measuring' / 'metrics.md').read_text().split('```python\n')[1].split('```')[0]
    (tmp_path / 'pace.py').write_text(example)
    result = calculate(run_dir, f'--plugin={tmp_path / "pace.py"}', '--metrics=pace64')
    assert result.exit_code == 0, result.stderr
    results = json.loads(result.stdout)['results']
    assert results['pace64_videos'] == 64
    assert results['pace64'] > 0
