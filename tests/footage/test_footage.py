"""Footage: every kind of recording gives its frames, in order, upright, in constant memory; anything else a sentence."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import imageio_ffmpeg
import numpy as np
import PIL.Image
import psutil
import pytest

from networks.errors import InputError
from training.footage.clips import fit, open_footage
from training.recordings.ffmpeg_input import decode_video
from training.recordings.video_timing import exact_rate

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def ffmpeg(*arguments: str | pathlib.Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), '-nostdin', '-v', 'error', '-y', *map(str, arguments)]
    subprocess.run(command, check=True, timeout=600)


def numbered_frames(count: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Frames whose grey tells their number (4 per frame), uint8 [count, height, width, 3]."""
    return np.repeat((np.arange(count) * 4 + 8).astype(np.uint8), height * width * 3).reshape(count, height, width, 3)


def read_numbers(frames: list[np.ndarray]) -> list[int]:
    return [round((float(frame.mean()) - 8) / 4) for frame in frames]


def write_video(path: pathlib.Path, frames: np.ndarray, fps: float, *options: str) -> pathlib.Path:
    raw = path.with_suffix('.rgb')
    raw.write_bytes(frames.tobytes())
    size = f'{frames.shape[2]}x{frames.shape[1]}'
    ffmpeg('-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', size, '-r', str(fps), '-i', raw, *options, path)
    raw.unlink()
    return path


LOSSLESS = ('-c:v', 'ffv1', '-pix_fmt', 'gbrp')

# ----------------------------------------------------------------------------
# Videos


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('h264.mp4', ('-c:v', 'libx264', '-crf', '4', '-pix_fmt', 'yuv420p')),
        ('ten-bit.mkv', ('-c:v', 'ffv1', '-pix_fmt', 'yuv444p10le')),
        ('old.avi', ('-c:v', 'mpeg4', '-q:v', '1')),
        ('short.gif', ()),
    ],
)
def test_every_frame_of_a_video_in_order(tmp_path: pathlib.Path, name: str, options: tuple[str, ...]) -> None:
    write_video(tmp_path / name, numbered_frames(31), 25, *options)
    (clip,) = open_footage(tmp_path / name)
    frames = list(clip.frames())
    assert (clip.name, clip.fps, clip.num_frames, clip.expected_frames) == (pathlib.Path(name).stem, 25, None, 31)
    assert read_numbers(frames) == list(range(31))
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)


def test_frames_are_upright_with_odd_sizes_and_without_sound(tmp_path: pathlib.Path) -> None:
    frame = np.zeros((1, 45, 63, 3), np.uint8)
    frame[:, :22, :31], frame[:, :22, 31:], frame[:, 22:, :31], frame[:, 22:, 31:] = RED, GREEN, BLUE, WHITE
    write_video(tmp_path / 'plain.mkv', frame.repeat(5, axis=0), 25, *LOSSLESS)
    (clip,) = open_footage(tmp_path / 'plain.mkv')
    np.testing.assert_array_equal(next(clip.frames()), frame[0])
    # A phone that was held upright: metadata say how to turn the picture.
    ffmpeg(
        '-i',
        tmp_path / 'plain.mkv',
        '-f',
        'lavfi',
        '-i',
        'sine=duration=3',
        '-c:v',
        'libx264',
        '-crf',
        '1',
        '-pix_fmt',
        'yuv444p',
        '-c:a',
        'aac',
        tmp_path / 'sound.mp4',
    )
    ffmpeg('-display_rotation', '90', '-i', tmp_path / 'sound.mp4', '-c', 'copy', tmp_path / 'turned.mp4')
    (clip,) = open_footage(tmp_path / 'turned.mp4')
    turned = list(clip.frames())
    assert len(turned) == 5
    assert turned[0].shape == (63, 45, 3)
    assert np.abs(turned[0].astype(int) - np.rot90(frame[0])).mean() < 4


def test_varying_rate_becomes_constant(tmp_path: pathlib.Path) -> None:
    # Frames 0-9 are shown for 1/20 s each, frames 10-19 for 1/10 s.
    write_video(tmp_path / 'constant.mkv', numbered_frames(20), 20, *LOSSLESS)
    ffmpeg(
        '-i',
        tmp_path / 'constant.mkv',
        '-vf',
        r'setpts=if(lt(N\,10)\,N\,2*N-10)/(20*TB)',
        '-fps_mode',
        'vfr',
        *LOSSLESS,
        tmp_path / 'varying.mkv',
    )
    (clip,) = open_footage(tmp_path / 'varying.mkv', fps=20)
    numbers = read_numbers(list(clip.frames()))
    assert numbers[:10] == list(range(10))
    assert numbers[10:28] == [number for number in range(10, 19) for _ in range(2)]


def test_resampling_keeps_the_time(tmp_path: pathlib.Path) -> None:
    write_video(tmp_path / 'fast.mkv', numbered_frames(60), 30, *LOSSLESS)
    (clip,) = open_footage(tmp_path / 'fast.mkv', fps=10)
    numbers = np.array(read_numbers(list(clip.frames())))
    assert (clip.fps, clip.expected_frames, len(numbers)) == (10, 20, 20)
    assert np.abs(numbers - np.arange(20) * 3).max() <= 1
    assert [str(exact_rate(rate)) for rate in (25, 29.97, 23.98, 59.94, 12.5)] == [
        '25',
        '30000/1001',
        '24000/1001',
        '60000/1001',
        '25/2',
    ]


def test_memory_does_not_grow_with_the_video(tmp_path: pathlib.Path, root: pathlib.Path) -> None:
    # 1500 frames are 680 MB; reading the first one starts no decoding of the others.
    ffmpeg(
        '-f',
        'lavfi',
        '-i',
        'testsrc=size=384x384:rate=25',
        '-frames:v',
        '1500',
        '-c:v',
        'libx264',
        '-preset',
        'ultrafast',
        tmp_path / 'long.mp4',
    )
    program = (
        'import os, re, resource, sys\nfrom training.footage.clips import open_footage\n'
        'count = sum(1 for _ in open_footage(sys.argv[1])[0].frames())\n'
        # On Linux ru_maxrss goes on from what the process that started this one had; the high-water mark does not.
        'status = open("/proc/self/status").read() if os.path.exists("/proc/self/status") else ""\n'
        'mark = re.search(r"VmHWM:\\s*(\\d+)", status)\n'
        'peak = int(mark[1]) if mark else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'print(count, peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, str(tmp_path / 'long.mp4')],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    count, *peaks = map(int, done.stdout.split())
    assert count == 1500
    unit = 1 if sys.platform == 'darwin' else 1024
    assert max(peaks) * unit < 350e6


def test_a_reader_that_stops_leaves_no_process(tmp_path: pathlib.Path) -> None:
    write_video(tmp_path / 'talk.mkv', numbered_frames(60, 640, 480), 25, *LOSSLESS)
    frames = open_footage(tmp_path / 'talk.mkv')[0].frames()
    next(frames)
    assert psutil.Process().children()
    frames.close()  # type: ignore[attr-defined]
    assert not psutil.Process().children()


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('b-frames.mp4', ('-c:v', 'libx264', '-bf', '3', '-g', '50', '-pix_fmt', 'yuv420p')),
        ('late.mp4', ('-itsoffset', '0.3', '-c:v', 'libx264', '-pix_fmt', 'yuv420p')),  # the picture begins after the sound
        ('varying.mkv', ('-vf', r'setpts=if(lt(N\,60)\,N\,2*N-60)/(25*TB)', '-fps_mode', 'vfr', '-c:v', 'libx264')),
        ('raw.h264', ('-c:v', 'libx264', '-f', 'h264', '-pix_fmt', 'yuv420p')),  # cannot be entered in the middle
    ],
)
def test_entering_a_video_in_the_middle_gives_the_same_frames(
    tmp_path: pathlib.Path, name: str, options: tuple[str, ...]
) -> None:
    walk = np.cumsum(np.random.RandomState(0).randn(120, 24, 32, 3) * 8, axis=0) + 128
    write_video(tmp_path / 'source.mkv', walk.clip(0, 255).astype(np.uint8), 25, *LOSSLESS)
    late = ('-f', 'lavfi', '-i', 'sine=duration=4', '-map', '0:v', '-map', '1:a') if name == 'late.mp4' else ()
    shift = options[:2] if late else ()
    ffmpeg(*shift, '-i', tmp_path / 'source.mkv', *late, *options[len(shift) :], tmp_path / name)
    for fps in (None, 29.97):
        (clip,) = open_footage(tmp_path / name, fps=fps)
        frames = list(clip.frames())
        for first in (1, 70, len(frames) - 2):
            np.testing.assert_array_equal(list(clip.frames(first)), frames[first:])
        assert list(clip.frames(len(frames) + 100)) == []


def test_parts_of_recordings(tmp_path: pathlib.Path) -> None:
    write_video(tmp_path / 'talk.mkv', numbered_frames(50), 25, *LOSSLESS)
    (tmp_path / 'images').mkdir()
    for index, frame in enumerate(numbered_frames(50)):
        PIL.Image.fromarray(frame).save(tmp_path / 'images' / f'{index}.png')
    for source in (tmp_path / 'talk.mkv', tmp_path / 'images'):
        for start, end, numbers in (
            (0.4, 1, range(10, 25)),
            (None, 0.2, range(5)),
            (1.8, None, range(45, 50)),
            (1.6, 99, range(40, 50)),
            (0.41, 0.45, range(11, 12)),
        ):
            (clip,) = open_footage(source, start=start, end=end)
            assert read_numbers(list(clip.frames())) == list(numbers)
            assert read_numbers(list(clip.frames(2))) == list(numbers)[2:]
            assert (clip.first_frame, clip.expected_frames) == (numbers[0], len(numbers))
        for start, end in ((3, None), (1, 1), (2.5, 9), (0.401, 0.402)):
            with pytest.raises(InputError, match='no frame lies between'):
                open_footage(source, start=start, end=end)
    # The part before the damage can be used.
    cut(write_video(tmp_path / 'cut.mkv', random_frames(40), 25, *LOSSLESS), 0.5)
    assert len(list(open_footage(tmp_path / 'cut.mkv', end=0.4)[0].frames())) == 10


# ----------------------------------------------------------------------------
# Images


def test_folders_and_zips_of_frames(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / 'set'
    for name, count in (('speaker1', 12), ('speaker2', 3)):
        (folder / name).mkdir(parents=True)
        for index, frame in enumerate(numbered_frames(count)):
            PIL.Image.fromarray(frame).save(folder / name / f'frame{index}.png')  # no leading zeros: 10 after 9
    (folder / 'speaker1' / '.hidden.png').write_bytes(b'')
    (folder / 'speaker1' / 'notes.txt').write_text('not a frame')
    shutil.make_archive(str(tmp_path / 'set'), 'zip', folder)
    write_video(folder / 'video.mkv', numbered_frames(4), 30, *LOSSLESS)
    for source, names in ((folder, ['speaker1', 'speaker2', 'video']), (tmp_path / 'set.zip', ['speaker1', 'speaker2'])):
        clips = open_footage(source)
        assert [clip.name for clip in clips] == names
        assert (clips[0].num_frames, clips[0].fps) == (12, 25)
        assert read_numbers(list(clips[0].frames())) == list(range(12))
    (clip,) = open_footage(folder / 'speaker2', fps=50)
    assert (clip.name, clip.num_frames, clip.fps) == ('speaker2', 3, 50)
    # Several sources: names stay unique.
    both = open_footage([folder / 'speaker2', tmp_path / 'set.zip'])
    assert [clip.name for clip in both] == ['speaker2', 'speaker1', 'speaker2-2']


def test_grey_deep_and_transparent_images_become_rgb(tmp_path: pathlib.Path) -> None:
    PIL.Image.new('L', (8, 8), 100).save(tmp_path / '0.png')
    PIL.Image.fromarray(np.full((8, 8), 100 * 257, np.uint16)).save(tmp_path / '1.png')
    PIL.Image.new('RGBA', (8, 8), (0, 0, 0, 155)).save(tmp_path / '2.png')  # on white: 255 * (1 - 155 / 255) = 100
    frames = list(open_footage(tmp_path)[0].frames())
    assert all((frame == 100).all() and frame.shape == (8, 8, 3) for frame in frames)


def test_fit_cuts_the_centre_and_averages() -> None:
    frame = np.random.RandomState(0).randint(0, 256, (6, 12, 3)).astype(np.uint8)
    square = frame[:, 3:9].astype(float)
    np.testing.assert_array_equal(fit(frame, 6), square)
    average = (square[0::2, 0::2] + square[1::2, 0::2] + square[0::2, 1::2] + square[1::2, 1::2]) / 4
    assert np.abs(fit(frame, 3) - average).max() <= 0.5
    # No aliasing: the finest stripes become an even grey at any other size.
    stripes = np.zeros((90, 90, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(fit(stripes, 32)[:, 4:-4].astype(int) - 127).max() < 12
    assert fit(frame, 20).shape == (20, 20, 3)


# ----------------------------------------------------------------------------
# What is no footage


def cut(path: pathlib.Path, part: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def random_frames(count: int, side: int = 64) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, side, side, 3)).astype(np.uint8)


def make_bad(folder: pathlib.Path, kind: str) -> pathlib.Path:
    path = folder / kind
    match kind:
        case 'text.mp4' | 'letters.txt' | 'text.zip':
            path.write_text('hello, this is no recording\n' * 50)
        case 'nothing.mp4':
            path.write_bytes(b'')
        case 'no-index.mp4':
            cut(write_video(path, numbered_frames(30), 25), 0.5)
        case 'cut.mkv':
            cut(write_video(path, random_frames(20), 25, *LOSSLESS), 0.53)
        case 'sound.mp4':
            ffmpeg('-f', 'lavfi', '-i', 'sine=duration=1', path)
        case 'folder':
            path.mkdir()
        case 'empty.zip':
            zipfile.ZipFile(path, 'w').close()
        case 'cut.png':
            PIL.Image.fromarray(random_frames(1)[0]).save(path)
            cut(path, 0.5)
    return path


@pytest.mark.parametrize(
    ('kind', 'sentence'),
    [
        ('text.mp4', 'not a video'),
        ('letters.txt', 'not a video'),
        ('nothing.mp4', 'empty'),
        ('no-index.mp4', 'not a video'),
        ('cut.mkv', r'damaged or cut off: after \d+ frames'),
        ('sound.mp4', 'no video stream'),
        ('folder', 'neither images nor'),
        ('text.zip', 'not a zip'),
        ('empty.zip', 'no images'),
        ('cut.png', 'cut off'),
    ],
)
def test_bad_footage_gets_a_sentence(tmp_path: pathlib.Path, kind: str, sentence: str) -> None:
    path = make_bad(tmp_path, kind)
    with pytest.raises(InputError, match=sentence) as caught:
        [list(clip.frames()) for clip in open_footage(path)]
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_the_whole_part_of_a_damaged_video_can_be_kept(tmp_path: pathlib.Path) -> None:
    (clip,) = open_footage(make_bad(tmp_path, 'cut.mkv'), keep_damaged=True)
    assert 5 <= len(list(clip.frames())) < 20


def test_concealed_damage_stops_unless_it_is_kept(tmp_path: pathlib.Path) -> None:
    # One byte of one frame is wrong: ffv1 notices by its checksum, and all frames are there, one of them spoiled.
    path = write_video(tmp_path / 'blemish.mkv', random_frames(20), 25, '-c:v', 'ffv1', '-slicecrc', '1')
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    (clip,) = open_footage(path, keep_damaged=True)
    assert len(list(clip.frames())) == 20
    assert clip.complaints() == 1
    with pytest.raises(InputError, match=r"1 of 20 pictures \(5\.0 %\) .* complains 1 times, .*damaged='keep'"):
        list(decode_video(str(path), fps=25))


def test_a_stream_that_was_cut_without_being_encoded_again_is_whole(tmp_path: pathlib.Path) -> None:
    # The pictures before the first key frame cannot be decoded, and ffmpeg complains about them.
    ffmpeg(
        '-f', 'lavfi', '-i', 'testsrc2=s=96x64:r=25:d=4', '-c:v', 'libx264', '-g', '50', '-pix_fmt', 'yuv420p', tmp_path / 'a.ts'
    )
    data = (tmp_path / 'a.ts').read_bytes()
    (tmp_path / 'cut.ts').write_bytes(data[188 * (len(data) // 188 // 4) :])
    (clip,) = open_footage(tmp_path / 'cut.ts')
    frames = list(clip.frames())
    assert len(frames) == clip.expected_frames == 50
    whole = list(open_footage(tmp_path / 'a.ts')[0].frames())
    np.testing.assert_array_equal(frames, whole[50:])


@pytest.mark.parametrize('source', ['https://example.org/talk.mp4', 'absent.mp4', 'concat:a.mp4|b.mp4'])
def test_addresses_and_missing_files(source: str) -> None:
    with pytest.raises(InputError):
        open_footage(source)
