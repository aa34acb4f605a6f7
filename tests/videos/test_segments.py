"""Long videos go on at a segment, and are the same as without an interruption; shares of independent jobs."""

import hashlib
import json
import pathlib
import re
import subprocess
import time

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from click.testing import CliRunner
from tiny_training import TINY_TRAINING

import train_video
from generate_video import main
from networks.errors import InputError
from training.commands.work import Work
from training.generation import outputs
from training.generation.unfinished import unfinished
from training.runs.shards import Shard, parse_shard
from training.videos import segments
from training.videos.output import KEY_FILE, VideoWriter
from training.videos.segments import SegmentedVideo, segment_length


class Killed(BaseException):
    """Stands for kill -9."""


def frame(number: int) -> np.ndarray:
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, : number % 48] = 40 + 5 * (number % 40)
    return picture


def make(
    path: pathlib.Path, count: int, *, stop_at: int | None = None, batch: int = 0, fps: float = 25, **settings: object
) -> int:
    """Write frames 0, 1, ...; returns how many were made here. The state is the number of the next frame."""
    made = 0
    with SegmentedVideo(
        str(path), settings=settings, length=10, num_frames=count, batch=batch, fps=fps, crf=10, comment='words'
    ) as video:
        begin = video.state['next'] if video.num_frames_done else 0
        assert begin == video.num_frames_done
        for number in range(begin + video.num_frames_kept, count):
            if number == stop_at:
                raise Killed
            video.write(frame(number))
            made += 1
            if video.segment_is_full:
                video.end_segment({'next': number + 1})
    return made


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_interrupted_video_goes_on_at_its_last_segment(tmp_path):
    assert make(tmp_path / 'whole.mp4', 34, seed=1) == 34
    part = tmp_path / 'part.mp4'
    for stop_at in (5, 17, 31):
        with pytest.raises(Killed):
            make(part, 34, stop_at=stop_at, seed=1)
    assert not part.exists()
    assert make(part, 34, seed=1) == 4
    assert digest(part) == digest(tmp_path / 'whole.mp4')
    assert {path.name for path in tmp_path.iterdir()} == {'whole.mp4', 'part.mp4'}
    with imageio.get_reader(part) as reader:
        frames = list(reader.iter_data())
        assert reader.get_meta_data()['fps'] == 25
    assert len(frames) == 34
    assert max(np.abs(np.asarray(shown, int) - frame(number)).mean() for number, shown in enumerate(frames)) < 6
    with VideoWriter(tmp_path / 'plain.mp4', fps=25, crf=10) as plain:  # hardly larger than in one piece
        for number in range(34):
            plain.write(frame(number))
    assert part.stat().st_size < 2 * (tmp_path / 'plain.mp4').stat().st_size + 4096


@pytest.mark.parametrize('ending', ['webm', 'mkv', 'gif', 'webp'])
def test_every_format_goes_on(tmp_path, ending):
    """GIF and WebP are what they are when they are written in one go; the others count time as if they were."""
    whole, part, plain = (tmp_path / f'{name}.{ending}' for name in ('whole', 'part', 'plain'))
    make(whole, 24, fps=30)
    with pytest.raises(Killed):
        make(part, 24, stop_at=17, fps=30)
    assert make(part, 24, fps=30) == 14
    assert {path.name for path in tmp_path.iterdir()} == {whole.name, part.name}
    with VideoWriter(plain, fps=30, crf=10, comment='words') as video:
        for number in range(24):
            video.write(frame(number))
    if ending in ('gif', 'webp'):
        assert digest(part) == digest(whole) == digest(plain)
        return
    length, times = zip(*(told(path) for path in (whole, part, plain)), strict=True)
    assert length == (24, 24, 24)
    assert times[0] == times[1]
    assert np.abs(np.subtract(times[0], times[2])).max() <= 1  # WebM and Matroska round to milliseconds


def told(path: pathlib.Path) -> tuple[int, list[int]]:
    """Number of frames, and their times in milliseconds."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), '-i', str(path), '-vf', 'showinfo', '-f', 'null', '-']
    words = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr
    times = [round(1000 * float(time)) for time in re.findall(r'pts_time:([\d.]+)', words)]
    return len(times), times


def test_frames_of_a_slow_segment_are_kept_one_by_one(tmp_path, monkeypatch):
    make(tmp_path / 'whole.mp4', 24, batch=2)
    part = tmp_path / 'part.mp4'
    monkeypatch.setattr(segments, 'SLOW_SECONDS', -1)
    for stop_at in (5, 9, 17):
        with pytest.raises(Killed):
            make(part, 24, stop_at=stop_at, batch=2)
    cut = tmp_path / 'part.mp4.partial' / 'frames-000000010' / '000003.png'
    cut.write_bytes(cut.read_bytes()[:100])  # by a power cut
    assert make(part, 24, batch=2) == 12
    assert digest(part) == digest(tmp_path / 'whole.mp4')
    with pytest.raises(Killed):
        make(part, 24, stop_at=8, batch=2)
    monkeypatch.setattr(segments, 'SLOW_SECONDS', 60)
    assert make(part, 24, batch=2) == 18  # not the frames of other settings, and of a fast segment none
    with pytest.raises(Killed):
        make(part, 24, stop_at=8, batch=2)
    assert not (tmp_path / 'part.mp4.partial').exists()
    assert {path.name for path in tmp_path.iterdir()} == {'whole.mp4', 'part.mp4'}


def test_what_a_format_cannot_do_is_said_before_the_first_frame(tmp_path):
    with pytest.raises(InputError, match='at most 50 frames per second'):
        SegmentedVideo(str(tmp_path / 'a.gif'), settings={}, length=10, num_frames=20, fps=60)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('damage', ['settings', 'json', 'state', 'segment', 'empty segment', 'cut segment'])
def test_what_does_not_fit_is_begun_anew(tmp_path, damage):
    path = tmp_path / 'a.mp4'
    with pytest.raises(Killed):
        make(path, 34, stop_at=25, seed=1)
    folder = tmp_path / 'a.mp4.partial'
    if damage == 'json':
        (folder / 'progress.json').write_text('[' * 100000)
    elif damage == 'state':
        next(folder.glob('state*.pt')).write_bytes(b'PK\x03\x04')
    elif damage == 'segment':
        next(folder.glob('segment*')).unlink()
    elif damage in ('empty segment', 'cut segment'):
        segment = sorted(folder.glob('segment*'))[1]
        segment.write_bytes(segment.read_bytes()[: -1 if damage == 'cut segment' else 0])
    assert make(path, 34, seed=2 if damage == 'settings' else 1) == 34


def test_segments_are_whole_batches():
    assert [segment_length(batch) for batch in (1, 8, 250, 300)] == [250, 256, 250, 300]


@pytest.mark.parametrize('text', ['0/8', '9/8', '1/0', '1', 'a/b', '1/8/2', '-1/8', '1/1000000', '\u0661/8'])
def test_wrong_shards(text):
    with pytest.raises(ValueError, match='is not a share of the work'):
        parse_shard(text)


def test_shards_are_a_partition():
    pieces = list(range(23))
    shares = [parse_shard(f'{number}/5').of(pieces) for number in range(1, 6)]
    assert sorted(piece for share in shares for piece in share) == pieces
    assert Shard(2, 5).of(pieces) == [1, 6, 11, 16, 21]


def test_the_note_of_an_unfinished_work(tmp_path):
    def work(content: list[int], error: bool) -> bool:
        with unfinished(str(tmp_path), '', Work({'seeds': content})) as before:
            if error:
                with open(tmp_path / 'generation.jsonl', 'a') as file:  # a finished file
                    file.write('{}')
                raise Killed
        return before

    with pytest.raises(Killed):
        work([1], True)
    with pytest.raises(Killed):
        work([2], True)
    assert work([1], False) is False
    with pytest.raises(Killed):
        work([1], True)
    assert work([1], False) is True
    assert [path.name for path in tmp_path.iterdir()] == ['generation.jsonl']
    with pytest.raises(Killed), unfinished(str(tmp_path), '', Work({'seeds': [1]})):
        raise Killed
    assert [path.name for path in tmp_path.iterdir()] == ['generation.jsonl']  # nothing was finished


def without_react(note: str) -> str:
    """The note of a work (training.commands.work) whose settings had no such option."""
    settings, *parts = json.loads(note.partition('\n')[2])
    assert settings.pop('react') == 0
    return Work(settings, {}, tuple(parts)).note()


def test_generation_goes_on_by_the_same_command(tmp_path, tiny_latents, monkeypatch):
    """Killed in the second video behind its first segment; shards together make what one command makes."""
    options = [f'--outdir={tmp_path / "runs"}', f'--data={tiny_latents}', '--preview-frames=0', '--kimg=1']
    run = CliRunner().invoke(train_video.main, [*TINY_TRAINING, *options])
    assert run.exit_code == 0, run.output
    (folder,) = (tmp_path / 'runs').iterdir()
    monkeypatch.setattr(segments, 'SEGMENT_FRAMES', 16)

    def generate(outdir: str, *options: str):
        arguments = [f'--network={folder}', f'--outdir={tmp_path / outdir}', '--seeds=0-2', '--frames=40', *options]
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    assert generate('whole').exit_code == 0
    real, calls = outputs.render_source, []

    def render(*arguments, **more):
        for place, pair in enumerate(real(*arguments, **more)):
            calls.append(place)
            if len(calls) == 40 + 20:
                end = time.monotonic() + 600
                while partial.exists() and len(list(partial.glob('*.png'))) < 8 and time.monotonic() < end:
                    time.sleep(0.01)  # frames are written beside this
                raise Killed
            yield pair

    partial = tmp_path / 'parts' / 'seed0001.partial'
    with monkeypatch.context() as patch:
        patch.setattr(outputs, 'render_source', render)
        with pytest.raises(Killed):
            generate('parts')
    count = len(calls)
    assert count == 60
    # As an earlier version would have left it, which knew no --react.
    note = tmp_path / 'parts' / '.generation.unfinished'
    progress = tmp_path / 'parts' / 'seed0001.mp4.partial' / 'progress.json'
    note.write_text(without_react(note.read_text()))
    content = json.loads(progress.read_text())
    progress.write_text(json.dumps({**content, 'key': without_react(content['key'])}))
    with monkeypatch.context() as patch:
        calls.clear()
        patch.setattr(outputs, 'render_source', lambda *a, **k: (pair for pair in real(*a, **k) if calls.append(1) is None))
        result = generate('parts')
    assert result.exit_code == 0, result.output
    assert len(calls) == (40 - 16) + 40  # not the first video, and of the second not its first segment
    for name in ('seed0000.mp4', 'seed0001.mp4', 'seed0002.mp4'):
        assert digest(tmp_path / 'parts' / name) == digest(tmp_path / 'whole' / name)
    lines = [json.loads(line)['file'] for line in (tmp_path / 'parts' / 'generation.jsonl').read_text().splitlines()]
    assert lines == ['seed0000.mp4', 'seed0001.mp4', 'seed0002.mp4']
    assert not [path.name for path in (tmp_path / 'parts').iterdir() if path.name.startswith('.')]
    pngs = ('--format=png', '--batch=4', '--save-codes')
    assert generate('whole', *pngs).exit_code == 0
    with monkeypatch.context() as patch:
        calls.clear()
        patch.setattr(outputs, 'render_source', render)
        with pytest.raises(Killed):
            generate('parts', *pngs)
    left = len(list(partial.glob('*.png')))
    assert left >= 8
    for note in (tmp_path / 'parts' / '.generation.unfinished', partial / KEY_FILE):
        note.write_text(without_react(note.read_text()))
    with monkeypatch.context() as patch:
        calls.clear()
        patch.setattr(outputs, 'render_source', lambda *a, **k: (pair for pair in real(*a, **k) if calls.append(1) is None))
        assert generate('parts', *pngs).exit_code == 0
    assert len(calls) == 40 - (left - 1) // 4 * 4 + 40  # whole batches of the second folder are not made again
    for seed in range(3):
        frames = sorted((tmp_path / 'parts' / f'seed{seed:04d}').iterdir())
        assert len(frames) == 40
        for path in [*frames, tmp_path / 'parts' / f'seed{seed:04d}.npz']:
            assert digest(path) == digest(tmp_path / 'whole' / path.relative_to(tmp_path / 'parts'))
    for number in (1, 2):
        assert generate('shards', f'--shard={number}/2', '--skip-existing').exit_code == 0
    for name in ('seed0000.mp4', 'seed0001.mp4', 'seed0002.mp4'):
        assert digest(tmp_path / 'shards' / name) == digest(tmp_path / 'whole' / name)
