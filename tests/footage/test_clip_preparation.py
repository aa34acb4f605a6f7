"""Recordings become clips: split, aligned, the same whenever they are read, with a report, across kills and bad input."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import click.testing
import numpy as np
import PIL.Image
import pytest
from test_face_alignment import landmarks
from test_footage import LOSSLESS, cut, ffmpeg, write_video

import align_video
import embed_video
from networks.errors import InputError
from training.footage import first_look as footage_analysis
from training.footage import preparation as clip_preparation
from training.footage.clips import FootageClip, open_footage
from training.footage.face_alignment import FaceAxes, cut_out, square_quad
from training.footage.face_landmarks import Face, points_of_68
from training.footage.preparation import PreparationSettings, describe_preparation, prepare_footage
from training.latents.dataset import LatentDataset

SIZE = 16  # of tiny_generator


def moving_scene(seed: int, count: int, height: int = 64, width: int = 96) -> np.ndarray:
    tile = np.random.RandomState(seed).randint(0, 256, (height // 16, width // 16, 3)).astype(np.uint8)
    tile = tile.repeat(16, axis=0).repeat(16, axis=1)
    return np.stack([np.roll(tile, index, axis=1) for index in range(count)])


@pytest.fixture(scope='module')
def recording(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Scenes of 30, 10 and 40 frames."""
    frames = np.concatenate([moving_scene(0, 30), moving_scene(1, 10), moving_scene(2, 40)])
    return write_video(tmp_path_factory.mktemp('recording') / 'talk.mkv', frames, 25, *LOSSLESS)


@pytest.fixture(scope='module')
def marks(recording: pathlib.Path) -> pathlib.Path:
    """Landmarks of a face that moves through all 80 frames, and is lost in frames 50-52 and 70-79."""
    values = np.stack([landmarks(40 + index / 4, 20, 6, index / 3) for index in range(80)])
    values[50:53], values[70:] = np.nan, np.nan
    np.save(recording.parent / 'talk.npy', values)
    return recording.parent / 'talk.npy'


def prepare(
    source: pathlib.Path, folder: pathlib.Path, *, skip_damaged: bool = False, start: float | None = None, **settings: Any
) -> tuple[list[FootageClip], list[dict[str, Any]]]:
    return prepare_footage(
        open_footage(source, start=start),
        PreparationSettings(**settings),
        size=SIZE,
        folder=str(folder),
        skip_damaged=skip_damaged,
    )


def pieces(entries: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(entry['first_frame'], entry['num_frames'], entry['clip'], entry['reason']) for entry in entries]


# ----------------------------------------------------------------------------
# Splitting


def test_recordings_are_split_at_cuts_and_stay_readable(recording: pathlib.Path, tmp_path: pathlib.Path) -> None:
    clips, entries = prepare(recording, tmp_path)
    assert pieces(entries) == [
        (0, 30, 'talk-000000', 'beginning'),
        (30, 10, None, 'shorter than 25 frames'),
        (40, 40, 'talk-000040', 'scene cut'),
    ]
    whole = list(open_footage(recording)[0].frames())
    assert [(clip.name, clip.first_frame, clip.num_frames, clip.source_size) for clip in clips] == [
        ('talk-000000', 0, 30, (96, 64)),
        ('talk-000040', 40, 40, (96, 64)),
    ]
    for clip, begin in zip(clips, (0, 40), strict=True):
        for first in (0, 17, 39):
            assert clip.num_frames is not None
            np.testing.assert_array_equal(list(clip.frames(first)), whole[begin + first : begin + clip.num_frames])
        np.testing.assert_array_equal(clip.quads, square_quad(64, 96)[np.newaxis])
    assert describe_preparation(entries) == [
        f'{recording}: 2 clips with 70 frames.',
        '  left out: frames 30 to 39 (1.20 s to 1.60 s): shorter than 25 frames',
    ]
    # With another beginning, shorter clips, and none of it.
    clips, _ = prepare(recording, tmp_path / 'part', start=0.8, min_frames=5)
    assert [(clip.name, clip.num_frames) for clip in clips] == [('talk-000020', 10), ('talk-000030', 10), ('talk-000040', 40)]
    np.testing.assert_array_equal(list(clips[1].frames()), whole[30:40])
    # A recording that is called as the piece of another.
    (tmp_path / 'talk-000040.mkv').write_bytes(recording.read_bytes())
    both = open_footage([recording, tmp_path / 'talk-000040.mkv'])
    clips, entries = prepare_footage(both, PreparationSettings(), size=SIZE, folder=str(tmp_path / 'both'))
    assert [clip.name for clip in clips] == [entry['clip'] for entry in entries if entry['clip']]
    assert len({clip.name for clip in clips}) == 4
    (clip,) = prepare(recording, tmp_path / 'ignored', scene_cuts=False)[0]
    assert (clip.name, len(list(clip.frames()))) == ('talk', 80)


def test_what_cannot_be_entered_in_the_middle_is_read_to_the_place(tmp_path: pathlib.Path, recording: pathlib.Path) -> None:
    # One frame is shown for most of a second: a reader that enters in the middle has to begin before it.
    slow = r'setpts=if(lt(N\,30)\,N\,N+22)/(25*TB)'
    ffmpeg('-i', recording, '-vf', slow, '-fps_mode', 'vfr', '-c:v', 'ffv1', tmp_path / 'gap.mkv')
    clips, _ = prepare_footage(
        open_footage(tmp_path / 'gap.mkv', fps=10), PreparationSettings(min_frames=4), size=SIZE, folder=str(tmp_path / 'found')
    )
    whole = list(open_footage(tmp_path / 'gap.mkv', fps=10)[0].frames())
    for clip in clips:
        assert clip.num_frames is not None
        for first in (0, 2, 40):
            wanted = whole[clip.first_frame : clip.first_frame + clip.num_frames][first:]
            np.testing.assert_array_equal(list(clip.frames(first)), wanted)
    assert len(clips) == 3


def test_a_recording_that_changes_is_noticed(recording: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'talk.mkv'
    path.write_bytes(recording.read_bytes())
    clips, _ = prepare(path, tmp_path / 'found')
    write_video(path, moving_scene(9, 80), 25, *LOSSLESS)
    with pytest.raises(InputError, match='has changed since'):
        list(clips[1].frames())


# ----------------------------------------------------------------------------
# Alignment


def test_alignment_by_a_file_of_landmarks(recording: pathlib.Path, marks: pathlib.Path, tmp_path: pathlib.Path) -> None:
    clips, entries = prepare(recording, tmp_path, align='ffhq', landmarks=str(marks), min_frames=5)
    assert pieces(entries) == [
        (0, 30, 'talk-000000', 'beginning'),
        (30, 10, 'talk-000030', 'scene cut'),
        (40, 30, 'talk-000040', 'scene cut'),
        (70, 10, None, 'no face'),
    ]
    points = points_of_68(np.load(marks))
    whole = list(open_footage(recording)[0].frames())
    # Filters do not reach across a split.
    quads = FaceAxes.of_points(points[30:40]).steadied(1, 3).quads()
    np.testing.assert_allclose(clips[1].quads, quads, atol=1e-4)
    np.testing.assert_array_equal(
        list(clips[1].frames(4)),
        [cut_out(frame, quad, SIZE) for frame, quad in zip(whole[34:40], quads[4:].astype(np.float32), strict=True)],
    )
    # The gap of three frames is bridged in a straight line.
    points[50:53] = points[49] + (points[53] - points[49]) * np.arange(1, 4)[:, None, None] / 4
    np.testing.assert_allclose(clips[2].quads, FaceAxes.of_points(points[40:70]).steadied(1, 3).quads(), atol=1e-4)
    assert pieces(prepare(recording, tmp_path, align='ffhq', landmarks=str(marks), bridge=2, min_frames=5)[1])[2:5] == [
        (40, 10, 'talk-000040', 'scene cut'),
        (50, 3, None, 'no face'),
        (53, 17, 'talk-000053', 'face found again'),
    ]
    # One still: FFHQ's own crop.
    PIL.Image.fromarray(whole[3]).save(tmp_path / 'still.png')
    np.save(tmp_path / 'still.npy', np.load(marks)[3:4])
    (clip,) = prepare(tmp_path / 'still.png', tmp_path / 'found', align='ffhq', landmarks=str(tmp_path / 'still.npy'))[0]
    np.testing.assert_array_equal(next(clip.frames()), cut_out(whole[3], FaceAxes.of_points(points[3:4]).quads()[0], SIZE))


class WhiteSquares:
    """Stands for a detector: finds white squares on black."""

    calls = 0

    def __init__(self, model: str | None = None) -> None:
        pass

    def detect(self, frame: np.ndarray) -> list[Face]:
        WhiteSquares.calls += 1
        found = []
        white, position = (frame[:, :, 0] > 128).any(axis=0), 0
        while (left := position + int(np.argmax(white[position:]))) < frame.shape[1] and white[left]:
            right = left + int(np.argmin(np.append(white[left:], False)))
            top = int(np.argmax(frame[:, left, 0] > 128))
            side = right - left
            points = np.array([[left, top], [right, top], [left, top + side], [right, top + side]], np.float32)
            found.append(Face(points, np.array([left, top, right, top + side], np.float32)))
            position = right
        return sorted(found, key=lambda face: float(face.box[0] - face.box[2]))

    def __enter__(self) -> 'WhiteSquares':
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def white_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_preparation, 'FaceDetector', WhiteSquares)
    monkeypatch.setattr(clip_preparation, 'model_sha256', lambda model: 'squares')
    monkeypatch.setattr(clip_preparation, 'require_detector', lambda: None)


def write_squares(folder: pathlib.Path, frames: list[list[tuple[int, int]]]) -> pathlib.Path:
    """Writes frames with squares, (left, side) each."""
    folder.mkdir()
    for index, squares in enumerate(frames):
        image = np.zeros((64, 96, 3), np.uint8)
        for left, side in squares:
            image[20 : 20 + side, left : left + side] = 255
        PIL.Image.fromarray(image).save(folder / f'{index}.png')
    return folder


@pytest.mark.usefixtures('white_squares')
def test_faces_are_followed(tmp_path: pathlib.Path) -> None:
    frames = [[(10 + index // 2, 20)] for index in range(30)]
    for index in range(12, 30):
        frames[index].append((60, 22))
    source = write_squares(tmp_path / 'two', frames)
    clips, entries = prepare(source, tmp_path / 'found', align='ffhq', center_sigma=0.0, axes_sigma=0.0, scene_cuts=False)
    assert pieces(entries) == [(0, 30, 'two', 'beginning')]
    assert clips[0].quads is not None
    np.testing.assert_allclose(
        np.diff(clips[0].quads[:, :, 0].mean(axis=1)), np.diff([10 + index // 2 for index in range(30)]), atol=1e-4
    )
    _, entries = prepare(source, tmp_path / 'found', align='ffhq', face='only', min_frames=5, scene_cuts=False)
    assert pieces(entries) == [(0, 12, 'two-000000', 'beginning'), (12, 18, None, 'two faces')]
    with pytest.raises(InputError, match=r"two faces of like size.* face='left'"):
        prepare(write_squares(tmp_path / 'equal', frames[20:]), tmp_path / 'found2', align='ffhq', scene_cuts=False)
    with pytest.raises(InputError, match=r"no face\. align='center'"):
        prepare(write_squares(tmp_path / 'none', [[]] * 4), tmp_path / 'found3', align='ffhq')


# ----------------------------------------------------------------------------
# Interruptions of the first look


@pytest.mark.usefixtures('white_squares')
def test_the_first_look_goes_on_where_it_stopped(
    recording: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footage_analysis, 'SECONDS_BETWEEN_WRITES', 0.0)
    settings: dict[str, Any] = {'align': 'ffhq', 'face': 'largest', 'min_frames': 1}
    source = write_squares(tmp_path / 'squares', [[(10 + index % 7, 20)] for index in range(40)])
    wanted, _ = prepare(source, tmp_path / 'whole', **settings)
    (rows,) = (tmp_path / 'whole').glob('*.rows')

    detect, calls = WhiteSquares.detect, 0

    def full(self: WhiteSquares, frame: np.ndarray) -> list[Face]:
        nonlocal calls
        calls += 1
        if calls > 23:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return detect(self, frame)

    monkeypatch.setattr(WhiteSquares, 'detect', full)
    with pytest.raises(OSError, match='No space'):
        prepare(source, tmp_path / 'parts', **settings)
    (part,) = (tmp_path / 'parts').glob('*.rows')
    assert part.stat().st_size == 23 * footage_analysis.ROW.itemsize
    with open(part, 'ab') as file:
        file.write(b'half a row')
    monkeypatch.setattr(WhiteSquares, 'detect', detect)
    WhiteSquares.calls = 0
    clips, _ = prepare(source, tmp_path / 'parts', **settings)
    assert WhiteSquares.calls == 17
    assert part.read_bytes() == rows.read_bytes()
    np.testing.assert_array_equal(clips[0].quads, wanted[0].quads)
    # What is there is used, unless the recording is another one.
    prepare(source, tmp_path / 'parts', **settings)
    assert WhiteSquares.calls == 17
    os.utime(source / '3.png', (1, 1))
    prepare(source, tmp_path / 'parts', **settings)
    assert WhiteSquares.calls == 57


def arguments(generator: pathlib.Path, source: pathlib.Path, dest: pathlib.Path, *options: str) -> list[str]:
    return [
        f'--network={generator}',
        f'--source={source}',
        f'--dest={dest}',
        '--device=cpu',
        '--perceptual=none',
        '--steps=2',
        '--first-steps=2',
        '--chunk=16',
        '--no-report',
        *options,
    ]


def run(generator: pathlib.Path, source: pathlib.Path, dest: pathlib.Path, *options: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(embed_video.main, arguments(generator, source, dest, *options))


def test_a_run_killed_in_the_first_look_ends_the_same(
    tiny_generator: pathlib.Path, recording: pathlib.Path, marks: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path
) -> None:
    options = ['--align=ffhq', f'--landmarks={marks}', '--min-frames=5']
    assert run(tiny_generator, recording, tmp_path / 'whole.zip', *options).exit_code == 0
    dest = tmp_path / 'parts.zip'
    program = textwrap.dedent("""
        import os, pathlib, signal, sys
        import embed_video
        from training.footage import first_look
        first_look.SECONDS_BETWEEN_WRITES = 0
        measure = first_look.ChangeMeter.update

        def update(self, frame):
            for rows in pathlib.Path(sys.argv[1]).glob('preparation/*.rows'):
                if rows.stat().st_size > 33 * first_look.ROW.itemsize:
                    os.kill(os.getpid(), signal.SIGKILL)
            return measure(self, frame)

        first_look.ChangeMeter.update = update
        embed_video.main(sys.argv[2:])
    """)
    command = [sys.executable, '-c', program, f'{dest}.partial', *arguments(tiny_generator, recording, dest, *options)]
    assert subprocess.run(command, cwd=root, stderr=subprocess.PIPE).returncode == -signal.SIGKILL
    assert not dest.exists()
    result = run(tiny_generator, recording, dest, *options)
    assert result.exit_code == 0, result.output
    assert 'Going on' in result.output
    with LatentDataset(tmp_path / 'whole.zip') as whole, LatentDataset(dest) as parts:
        assert parts.sha256 == whole.sha256
        assert parts.preparation == whole.preparation
        assert [clip.extra['first_frame'] for clip in parts.clips] == [0, 30, 40]
        for index in range(3):
            np.testing.assert_array_equal(parts.load_quads(index), whole.load_quads(index))
    assert not (tmp_path / 'parts.zip.partial').exists()


# ----------------------------------------------------------------------------
# The data set, and the command


def test_the_data_set_keeps_quads_and_report(
    tiny_generator: pathlib.Path, recording: pathlib.Path, marks: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = ('--align=ffhq', f'--landmarks={marks}', '--preview')
    for dest in (tmp_path / 'data.zip', tmp_path / 'data'):
        result = run(tiny_generator, recording, dest, *options)
        assert result.exit_code == 0, result.output
        assert 'left out: frames 70 to 79 (2.80 s to 3.20 s): no face' in result.output
        with LatentDataset(dest) as data:
            assert [clip.name for clip in data.clips] == ['talk-000000', 'talk-000040']
            assert pieces(data.preparation)[1:] == [
                (30, 10, None, 'shorter than 25 frames'),
                (40, 30, 'talk-000040', 'scene cut'),
                (70, 10, None, 'no face'),
            ]
            assert data.clips[1].extra['source_size'] == [96, 64]
            quads = data.load_quads(1)
            assert quads is not None
            points = points_of_68(np.load(marks))[40:70]
            known = ~np.isnan(points).any(axis=(1, 2))
            axes = FaceAxes.of_points(points[known])
            assert np.abs(quads[known] - axes.quads()).max() < 0.7  # pixels; the filter moves little of so slow a motion
            assert data.embedding['preparation']['align'] == 'ffhq'
    assert sorted(path.name for path in (tmp_path / 'data').iterdir()) == ['clips', 'dataset.json']
    # The centre square, and codes beside footage.
    np.save(tmp_path / 'codes.npy', np.zeros((3, 6, 8), np.float32))
    result = run(tiny_generator, recording, tmp_path / 'center.zip', f'--source={tmp_path / "codes.npy"}', '--end=1')
    assert result.exit_code == 2
    assert '--start and --end are for footage' in result.output
    result = run(tiny_generator, recording, tmp_path / 'center.zip', '--start=0:01', '--end=1.5', '--scene-cuts=ignore')
    assert result.exit_code == 0, result.output
    with LatentDataset(tmp_path / 'center.zip') as data:
        (clip,) = data.clips
        assert (clip.num_frames, clip.extra['first_frame']) == (13, 25)
        np.testing.assert_array_equal(data.load_quads(0), np.broadcast_to(square_quad(64, 96), (13, 4, 2)))


def bad_options(folder: pathlib.Path, recording: pathlib.Path, kind: str) -> list[str]:
    marks = np.load(recording.parent / 'talk.npy')
    match kind:
        case 'other length':
            np.save(folder / 'marks.npy', marks[:79])
            return ['--align=ffhq', f'--landmarks={folder / "marks.npy"}']
        case 'NaN':
            marks[4, 7] = np.nan
            np.save(folder / 'marks.npy', marks)
            return ['--align=ffhq', f'--landmarks={folder / "marks.npy"}']
        case 'no face at all':
            np.save(folder / 'marks.npy', marks * np.nan)
            return ['--align=ffhq', f'--landmarks={folder / "marks.npy"}']
        case 'two recordings':
            return ['--align=ffhq', f'--landmarks={recording.parent / "talk.npy"}', f'--source={recording}']
        case 'empty folder':
            (folder / 'marks').mkdir()
            return ['--align=ffhq', f'--landmarks={folder / "marks"}']
        case 'truncated':
            noise = np.random.RandomState(0).randint(0, 256, (30, 64, 64, 3)).astype(np.uint8)
            bad = write_video(folder / 'bad.mkv', noise, 25, *LOSSLESS)
            cut(bad, 0.5)
            return [f'--source={bad}']
    return kind.split()


@pytest.mark.parametrize(
    ('kind', 'sentence'),
    [
        ('--start=9', 'no frame lies between'),
        ('--start=2 --end=1', 'is empty'),
        ('--start=1:75', 'not a time'),
        ('--end=-1', 'not a time'),
        ('--start=0 --start=1', '2 times for 1 sources'),
        ('--align=none', '96x64 pixels'),
        ('--min-frames=99', '--min-frames'),
        ('--landmarks=x.npy', '--align=ffhq'),
        ('--align=ffhq --landmarks=x.npy', 'x.npy'),
        ('--align=ffhq --face-model=x', '--face-model'),
        ('other length', '79 frames, but'),
        ('NaN', 'frame 4 has landmarks'),
        ('no face at all', 'no face'),
        ('two recordings', 'give a folder'),
        ('empty folder', 'talk.npy'),
        ('truncated', 'damaged or cut off'),
    ],
)
def test_mistakes_are_one_sentence_and_leave_the_way_free(
    tiny_generator: pathlib.Path, recording: pathlib.Path, marks: pathlib.Path, tmp_path: pathlib.Path, kind: str, sentence: str
) -> None:
    result = run(tiny_generator, recording, tmp_path / 'data.zip', *bad_options(tmp_path, marks.parent / 'talk.mkv', kind))
    assert result.exit_code == 2, result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith('Error: ')
    assert sentence in last
    assert not (tmp_path / 'data.zip').exists()
    # Other settings are not refused because of the run that did nothing.
    result = run(tiny_generator, recording, tmp_path / 'data.zip', '--end=0.2')
    assert result.exit_code == 0, result.output


def test_damaged_recordings_are_skipped_with_a_word(recording: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'talk.mkv').write_bytes(recording.read_bytes())
    noise = np.random.RandomState(0).randint(0, 256, (30, 64, 64, 3)).astype(np.uint8)
    cut(write_video(tmp_path / 'set' / 'bad.mkv', noise, 25, *LOSSLESS), 0.5)
    with pytest.raises(InputError, match='damaged or cut off'):
        prepare(tmp_path / 'set', tmp_path / 'found')
    clips, entries = prepare(tmp_path / 'set', tmp_path / 'found', skip_damaged=True)
    assert [clip.name for clip in clips] == ['talk-000000', 'talk-000040']
    assert 'damaged or cut off' in entries[0]['reason']
    assert any('damaged' in line for line in describe_preparation(entries))


# ----------------------------------------------------------------------------
# Aligned recordings for other tools


def test_align_video_writes_what_embedding_sees(recording: pathlib.Path, marks: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def align(dest: pathlib.Path, *options: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(
            align_video.main,
            [f'--source={recording}', f'--dest={dest}', '--align=ffhq', f'--landmarks={marks}', f'--size={SIZE}', *options],
        )

    result = align(tmp_path / 'aligned', '--format=png')
    assert result.exit_code == 0, result.output
    clips, entries = prepare(recording, tmp_path / 'found', align='ffhq', landmarks=str(marks))
    written = open_footage(tmp_path / 'aligned')
    assert [clip.name for clip in written] == [clip.name for clip in clips]
    for mine, theirs in zip(clips, written, strict=True):
        np.testing.assert_array_equal(list(theirs.frames()), list(mine.frames()))
        np.testing.assert_array_equal(np.load(tmp_path / 'aligned' / mine.name / 'quads.npy'), mine.quads)
    assert json.loads((tmp_path / 'aligned' / 'preparation.json').read_text())['pieces'] == entries
    result = align(tmp_path / 'aligned')
    assert result.exit_code == 2
    assert 'already exists' in result.output
    result = align(tmp_path / 'videos')
    assert result.exit_code == 0, result.output
    written = open_footage(tmp_path / 'videos')
    assert [len(list(clip.frames())) for clip in written] == [30, 30]
    (clip,) = prepare_footage([written[0]], PreparationSettings(align='none'), size=SIZE, folder=str(tmp_path / 'none'))[0]
    assert clip.source_size == (SIZE, SIZE)


def frames_that_end() -> Iterator[np.ndarray]:
    yield from ()


def test_no_frames_at_all(tmp_path: pathlib.Path) -> None:
    clip = FootageClip('empty', 25, None, 'empty.mp4', None, lambda first: frames_that_end())
    for cuts in (True, False):
        with pytest.raises(InputError, match='no frames'):
            prepare_footage([clip], PreparationSettings(scene_cuts=cuts), size=8, folder=str(tmp_path))
