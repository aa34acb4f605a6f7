"""align_video.py as a process: names that collide or are long, folders that are there, and its own output as input."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import align_video
from training.footage.clips import open_footage
from training.footage.preparation import PreparationSettings, prepare_footage
from training.runs.locks import lock_target
from training.videos.recorded_videos import RecordedVideos


def write_images(folder: pathlib.Path, seed: int, count: int = 3) -> None:
    folder.mkdir(parents=True)
    picture = np.random.RandomState(seed).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    for number in range(count):
        PIL.Image.fromarray(np.roll(picture, number, axis=1)).save(folder / f'{number}.png')


def align(root: pathlib.Path, folder: pathlib.Path, *arguments: str) -> str:
    command = [sys.executable, str(root / 'align_video.py'), *arguments, '--size=16', '--min-frames=1']
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize('cuts', ['split', 'ignore'])
def test_every_recording_gets_its_own_files(root: pathlib.Path, tmp_path: pathlib.Path, cuts: str) -> None:
    names = ['take (1)', 'take [1]', 'あ' * 79, '..odd', 'preparation']
    for seed, name in enumerate(names):
        write_images(tmp_path / 'set' / name.lstrip('.'), seed)
    (tmp_path / 'out').mkdir()  # an empty folder is taken
    align(root, tmp_path, '--source=set', '--dest=out/', '--format=png', f'--scene-cuts={cuts}', '--align=none')
    assert len(list((tmp_path / 'out').rglob('quads.npy'))) == 5
    pictures = {path.read_bytes() for path in (tmp_path / 'out').rglob('frame*.png')}
    assert len(pictures) == 15
    assert not list(tmp_path.glob('*.partial'))


@pytest.mark.parametrize('kind', ['mp4', 'png'])
def test_its_output_is_footage_again(root: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    write_images(tmp_path / 'frames', 0, 6)
    align(root, tmp_path, '--source=frames', '--dest=aligned', f'--format={kind}')
    videos = RecordedVideos(tmp_path / 'aligned', cache=False)
    assert (videos.num_frames, videos.left_out) == ([6], {})
    said: list[str] = []
    clips = open_footage(tmp_path / 'aligned', say=said.append)
    assert not said
    (clip,), _ = prepare_footage(clips, PreparationSettings(align='none', min_frames=1), size=16, folder=str(tmp_path / 'look'))
    assert clip.num_frames == 6


def test_one_at_a_time(tmp_path: pathlib.Path) -> None:
    write_images(tmp_path / 'frames', 0)
    words = [f'--source={tmp_path / "frames"}', f'--dest={tmp_path / "out"}', '--size=16', '--min-frames=1', '--align=none']
    with lock_target(tmp_path / 'out', '--dest'):
        result = CliRunner().invoke(align_video.main, words)
    assert result.exit_code == 2
    assert f'(host {socket.gethostname()}, process {os.getpid()}, since ' in result.output
    assert not (tmp_path / 'out.partial').exists()
