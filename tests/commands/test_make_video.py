"""make_video.py: what it asks of each step, how it goes on, whom it blames, and one run from footage to pasted video."""

import json
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_training import SHORT_LOOK

import make_video
from networks import checkpoints
from networks.w_encoder import WEncoder
from stylevideogan import layout
from training.footage.clips import FootageClip
from training.footage.face_landmarks import Face
from training.making import run, steps
from training.making.first_look import FirstLook, choose_alignment
from training.making.status import Status, in_words, part_done
from training.runs.locks import Lock
from training.videos.output import VideoWriter

FOUND = FirstLook(num_frames=50, seconds_per_picture=0.01, align='center', why='as asked')


def make(*arguments: str) -> Any:
    return CliRunner().invoke(make_video.main, list(arguments), catch_exceptions=False)


@pytest.fixture
def footage(tmp_path: pathlib.Path) -> pathlib.Path:
    with VideoWriter(tmp_path / 'phone.mp4', fps=10) as writer:
        for number in range(60):
            picture = np.full((24, 32, 3), 90 + 40 * np.sin(number / 4), np.uint8)
            picture[8:16, 8 + number % 9 : 16 + number % 9] = 200
            writer.write(picture)
    return tmp_path / 'phone.mp4'


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> list[list[str]]:
    """Every step is played: by default it leaves the files that the next one needs. What was asked for is returned."""
    asked: list[list[str]] = []

    def start_again(module: str, command: str, argv: list[str]) -> list[str]:
        asked.append([command, *argv[2:]])
        words = dict(word.removeprefix('--').split('=', 1) for word in argv[2:] if '=' in word)
        script = 'import os, sys, time\n'
        if command == 'embed_video':
            script += f'print("clip 1/1 phone: 25 of 50 frames (50%), 00:10 gone, 00:10 left")\nopen({words["dest"]!r}, "w")'
        if command == 'train_video':
            script += f'os.makedirs({words["outdir"]!r} + "/00000-latents-gpus1-batch64", exist_ok=True)'
        if (tmp_path / f'{command}.py').exists():  # what a test wants it to do instead
            script = (tmp_path / f'{command}.py').read_text()
        return ['-c', script]

    monkeypatch.setattr(layout, 'start_again', start_again)
    monkeypatch.setattr(run, 'look', lambda options: FOUND)
    return asked


def test_each_step_once_and_only_what_is_missing(
    footage: pathlib.Path,
    played: list[list[str]],
    tmp_path: pathlib.Path,
    tiny_generator: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [f'--source={footage}', f'--network={tiny_generator}', f'--outdir={tmp_path / "out"}', '--start=1', '--device=cpu']
    assert make(*words).exit_code == 0
    assert [command for command, *_ in played] == ['embed_video', 'train_video', 'generate_video']
    assert '--start=1' in played[0]
    assert '--align=center' in played[0]
    assert '--kimg=6400' in played[1]
    assert f'--network={tmp_path / "out" / "training-runs" / "00000-latents-gpus1-batch64"}' in played[2]
    assert all('--device=cpu' in call for call in played)
    played.clear()
    assert make(*words, '--videos=3').exit_code == 0
    assert [command for command, *_ in played] == ['train_video', 'generate_video']  # both leave finished work alone
    assert '--seeds=0-2' in played[1]
    played.clear()
    assert make(*words, '--tune').exit_code == 0
    assert [command for command, *_ in played] == ['tune_generator', 'train_video', 'generate_video']
    played.clear()
    other = make(*words, '--kimg=5')
    assert other.exit_code == 2
    assert 'holds a result of other options (--kimg)' in other.output
    assert played == []
    record = tmp_path / 'out' / run.RECORD  # of an earlier version, which knew no --end
    content = json.loads(record.read_text())
    assert content['options'].pop('end') is None
    record.write_text(json.dumps(content))
    assert 'of other options (--end)' in make(*words).output  # nobody says what results without it were
    monkeypatch.setattr(run, 'UNSAID', {'end': None})
    assert make(*words).exit_code == 0
    assert 'of other options (--end)' in make(*words, '--end=3').output


@pytest.mark.parametrize(
    ('script', 'code', 'sentence'),
    [
        (
            'print("Error: the footage is too short; record more"); sys.exit(2)',
            2,
            'step 2 of 3 (training): the footage is too short',
        ),
        ('raise RuntimeError("a bug")', 2, 'step 2 of 3 (training): it failed, and'),
        ('os.kill(os.getpid(), 9)', 2, 'ended by SIGKILL, perhaps because memory ran out'),
        ('sys.exit(130)', 130, 'the same command goes on where it was'),
    ],
)
def test_the_step_that_fails_is_named(
    script: str, code: int, sentence: str, footage: pathlib.Path, played: list[list[str]], tmp_path: pathlib.Path,
    tiny_generator: pathlib.Path,
) -> None:  # fmt: skip
    (tmp_path / 'train_video.py').write_text(f'import os, sys\n{script}')
    result = make(f'--source={footage}', f'--network={tiny_generator}', f'--outdir={tmp_path / "out"}')
    assert result.exit_code == code
    assert sentence in result.output
    assert [command for command, *_ in played] == ['embed_video', 'train_video']


def test_one_at_a_time(
    footage: pathlib.Path, played: list[list[str]], tmp_path: pathlib.Path, tiny_generator: pathlib.Path
) -> None:
    (tmp_path / 'out').mkdir()
    with Lock(tmp_path / 'out' / '.make.lock', 'it'):
        result = make(f'--source={footage}', f'--network={tiny_generator}', f'--outdir={tmp_path / "out"}')
    assert result.exit_code == 2
    assert f'--outdir: {tmp_path}/out is in use by' in result.output
    assert played == []


def test_mistakes_are_told_before_any_step(footage: pathlib.Path, played: list[list[str]], tiny_generator: pathlib.Path) -> None:
    network = f'--network={tiny_generator}'
    for words, sentence in (
        (['--source=nowhere.mp4', network], 'there is no file or folder'),
        ([f'--source={footage}', '--network=nowhere.pkl'], '--network'),
        ([f'--source={footage}', network, '--encoder=nowhere.pkl'], '--encoder: there is no file'),
        ([f'--source={footage}', network, '--refine'], 'give one by --encoder'),
        ([f'--source={footage}', network, '--start=9', '--end=3'], 'is empty'),
    ):
        result = make(*words)
        assert result.exit_code == 2
        assert sentence in result.output
    assert played == []


def test_a_step_ends_with_the_command(footage: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path) -> None:
    """Ctrl-C reaches a step once, and a kill of the command does not leave it running."""
    step = 'import signal, sys, time\n'
    for name, letter, code in (('SIGTERM', 't', 143), ('SIGINT', 'i', 130)):
        step += f'signal.signal(signal.{name}, lambda *a: (open("ended", "a").write("{letter}"), sys.exit({code})))\n'
    step += 'open("begun", "w")\ntime.sleep(60)'
    program = f"""
import sys
sys.path.insert(0, {str(root)!r})
from stylevideogan import layout
from training.making import steps
layout.start_again = lambda *a: ['-c', {step!r}]
step = steps.Step('training', 'train_video', list, lambda: False, 1)
steps.run_step(step, 0, 1, None, steps.StepLog('log'), 1.0)
"""
    for number, signalled in (('i', signal.SIGINT), ('t', signal.SIGKILL)):
        process = subprocess.Popen([sys.executable, '-c', program], cwd=tmp_path, stderr=subprocess.DEVNULL)
        for _ in range(6000):
            if (tmp_path / 'begun').exists():
                break
            time.sleep(0.1)
        (tmp_path / 'begun').unlink()
        process.send_signal(signalled)
        process.wait(600)
        for _ in range(6000):
            if (tmp_path / 'ended').exists():
                break
            time.sleep(0.1)
        assert (tmp_path / 'ended').read_text() == number
        (tmp_path / 'ended').unlink()


# ----------------------------------------------------------------------------
# Words.


def test_lines_of_steps() -> None:
    assert part_done('clip 2/4 b: 5 of 10 frames (50%), 00:10 gone, 00:10 left', 1) == pytest.approx(0.05 + 0.95 * 1.5 / 4)
    assert part_done('looking at b: 5 of 10 frames (50%), 00:10 gone, 00:10 left', 1) == pytest.approx(0.025)
    assert part_done('Generating: 361 of 6000 frames (6%), 00:10 gone, 02:37 left', 1) == 0.06
    assert part_done('tick 3     kimg 800.0     time 5m 02s  sec/tick 10', 6400) == 0.125
    assert part_done('Error: kimg 3', 1) is None


def test_remaining_time_of_all_steps() -> None:
    now = [0.0]
    status = Status(['a', 'b'], [100.0, 50.0], clock=lambda: now[0])
    status.begin(0)
    assert status.remaining() == 150
    status.update(0.2)  # by an earlier run
    now[0] = 40
    status.update(0.4)  # a fifth in 40 seconds: twice as long as estimated
    assert status.remaining() == pytest.approx(0.6 * 200 + 100)
    now[0] = 160
    status.end()
    status.begin(1)
    assert status.remaining() == pytest.approx(100)
    assert (in_words(4), in_words(200), in_words(4000)) == ('10 s', '3 min', '1 h 10 min')


class Detector:
    """Finds a face where a picture is brighter than black."""

    def detect(self, frame: np.ndarray) -> list[Face]:
        y, x = np.nonzero(frame[..., 0] > 100)
        if not len(x):
            return []
        left, right, top, bottom = x.min(), x.max(), y.min(), y.max()
        third = (right - left) / 3
        points = np.array(
            [[left + third, top], [right - third, top], [left + third, bottom], [right - third, bottom]], np.float32
        )
        return [Face(points, np.array([left, top, right, bottom], np.float32))]


def square(left: int, side: int, size: int = 90) -> np.ndarray:
    picture = np.zeros((size, size, 3), np.uint8)
    picture[left : left + side, left : left + side] = 200
    return picture


@pytest.mark.parametrize(
    ('drawn', 'filmed', 'align'),
    [
        (square(30, 30), square(60, 60, 180), 'center'),  # the same place
        (square(30, 30), square(30, 15), 'ffhq'),  # half as large
        (square(30, 30), square(5, 30), 'ffhq'),  # elsewhere
        (np.zeros((90, 90, 3), np.uint8), square(5, 30), 'center'),  # a generator of something else
        (square(30, 30), np.zeros((90, 90, 3), np.uint8), 'center'),  # nobody there
    ],
)
def test_faces_are_aligned_where_they_have_to_be(drawn: np.ndarray, filmed: np.ndarray, align: str) -> None:
    clip = FootageClip('c', 25.0, None, 'c.mp4', None, lambda first: iter([filmed] * 20))
    assert choose_alignment([clip], [drawn] * 3, Detector())[0] == align


def test_from_footage_to_pasted_video(
    footage: pathlib.Path, tmp_path: pathlib.Path, tiny_generator: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_again = layout.start_again
    monkeypatch.setattr(layout, 'start_again', lambda *words: ['-c', SHORT_LOOK, *start_again(*words)])
    encoder = WEncoder(num_ws=6, w_dim=8, img_resolution=16, channel_max=16, hidden_features=16)
    checkpoints.save_module_pickle(str(tmp_path / 'encoder.pkl'), {'encoder': encoder.eval().requires_grad_(False)})
    words = [
        f'--source={footage}',
        f'--network={tiny_generator}',
        f'--encoder={tmp_path / "encoder.pkl"}',
        '--videos=1',
        '--seconds=3',
    ]
    words += [f'--outdir={tmp_path / "out"}', '--kimg=3.2', '--preset=fast', '--device=cpu', '--paste', '--align=center']
    refused = make(*words)  # this encoder has learned nothing
    assert refused.exit_code == 2
    assert 'step 2 of 4 (training)' in refused.output
    result = make(*words, '--force-data')
    assert result.exit_code == 0, result.output + (tmp_path / 'out' / 'log.txt').read_text()[-2000:]
    out = tmp_path / 'out'
    assert (out / 'videos' / 'seed0000.mp4').is_file()
    assert (out / 'pasted' / 'seed0000.mp4').is_file()
    assert 'Step 4 of 4, pasting' in result.output
    times = json.loads((out / 'make.json').read_text())['seconds']
    assert set(times) == {'embedding', 'training', 'generating', 'pasting'}
    assert steps.longest_clip(str(out / 'latents.zip')) == 'phone'
