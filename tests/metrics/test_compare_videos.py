"""calc_metrics_video.py on videos: any two sets, a snapshot against footage and against its embedding, and mistakes."""

import json
import os
import pathlib

import click.testing
import numpy as np
import pytest
from test_frechet_of_clips import TinyDetector, random_videos

import calc_metrics_video
from metrics.features import detectors
from training.latents.dataset import LatentDataset
from training.videos.recorded_videos import EmbeddedVideos, GeneratedVideos


@pytest.fixture(autouse=True)
def small_detector(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path / 'cache'))
    monkeypatch.setitem(detectors.MAKERS, 'i3d', lambda path: TinyDetector())
    monkeypatch.setattr(detectors, '_loaded', {})


def run(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(calc_metrics_video.main, ['--device=cpu', *map(str, arguments)])


def test_a_snapshot_against_both_references(
    tiny_snapshot: pathlib.Path, tiny_latents: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    result = run(f'--network={tiny_snapshot}', '--metrics=fvd20_8f,fvd12_8f_at16', '--bootstrap=5')
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line['metric'] for line in lines] == ['fvd20_8f', 'fvd12_8f_at16']
    protocol = lines[1]['protocol']
    assert protocol['reference'] == 'embedding'
    assert protocol['real']['sha256'] == EmbeddedVideos(tiny_latents).sha256
    assert protocol['fake']['sha256'] == GeneratedVideos(tiny_snapshot).sha256
    assert (protocol['fake']['kind'], protocol['fake']['first_frame'], protocol['fake']['clips']) == ('generated', 16, 12)
    assert protocol['data_sha256'] == LatentDataset(str(tiny_latents)).sha256
    assert lines[0]['results']['fvd20_8f_low'] <= lines[0]['results']['fvd20_8f']
    np.save(tmp_path / 'footage.npy', np.repeat(np.repeat(random_videos(25, 12, 0), 4, axis=2), 4, axis=3))
    again = json.loads(run(f'--network={tiny_snapshot}', '--metrics=fvd20_8f', f'--real={tmp_path / "footage.npy"}').stdout)
    assert again['protocol']['reference'] == 'footage'
    assert again['results']['fvd20_8f'] != lines[0]['results']['fvd20_8f']
    other_seeds = json.loads(run(f'--network={tiny_snapshot}', '--metrics=fvd20_8f', '--first-seed=20', '--bootstrap=0').stdout)
    assert other_seeds['protocol']['fake']['first_seed'] == 20
    assert other_seeds['results']['fvd20_8f'] != lines[0]['results']['fvd20_8f']
    assert 'fvd20_8f_low' not in other_seeds['results']


def test_latent_data_sets_stand_for_videos(tiny_latents: pathlib.Path) -> None:
    result = run(
        f'--real={tiny_latents}', f'--fake={tiny_latents}', '--metrics=fvd20_8f', '--fake-clips=spread', '--real-clips=spread'
    )
    assert result.exit_code == 0, result.stderr
    line = json.loads(result.stdout)
    assert line['results']['fvd20_8f'] == pytest.approx(0, abs=1e-6)
    assert line['protocol']['real']['kind'] == 'embedding'
    assert line['snapshot_pkl'] is None


def test_mistakes_are_one_sentence(tiny_snapshot: pathlib.Path, tiny_latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / 'a.npy', random_videos(8, 12, 0))
    video = tmp_path / 'a.npy'
    (tmp_path / 'weights.pt').write_bytes(b'<html>')
    os.makedirs(tmp_path / 'empty')
    for arguments, words in [
        ([], "Missing option '--network'"),
        ([f'--real={video}'], "'--fake'"),
        ([f'--fake={video}'], "Missing option '--real'"),
        ([f'--fake={video}', f'--network={tiny_snapshot}'], 'give one of them'),
        ([f'--fake={video}', '--real=absent'], "--real: there is no file or folder 'absent'"),
        ([f'--fake={video}', f'--real={tmp_path / "empty"}', '--metrics=fvd9_9f'], 'nothing to compare'),
        ([f'--fake={video}', f'--real={video}', '--metrics=fvd0_16f'], 'there is no fvd0_16f'),
        ([f'--fake={video}', f'--real={video}', '--metrics=fvd9_64f'], 'fvd9_64f needs 64 frames of a video, and the longest'),
        (
            [f'--fake={video}', f'--real={video}', '--metrics=lfd2048_25f'],
            'give a snapshot with --network and its data with --data',
        ),
        ([f'--fake={video}', f'--real={video}', '--reference=embedding'], 'leave --real out'),
        ([f'--network={tiny_snapshot}', '--reference=footage'], '--reference=footage needs the footage'),
        ([f'--network={tiny_snapshot}', f'--real={video}', '--metrics=fvd8_9f'], '4x4 pixels and the fake ones 16x16'),
        (
            [f'--fake={video}', f'--real={video}', '--metrics=fvd8_9f', f'--detector={tmp_path / "weights.pt"}'],
            'this is a web page: the download did not give the file',
        ),
    ]:
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, ''), arguments
        assert words in result.stderr.strip().splitlines()[-1], result.stderr
    missing = run(f'--fake={video}', f'--real={video}', '--metrics=frame_fid8_9f')
    assert missing.exit_code == 2
    assert 'InceptionV3 weights of the FID are not there' in missing.stderr
