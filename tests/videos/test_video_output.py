"""Videos and frame folders: what is written can be read back; an error leaves nothing half-written."""

import errno
import fractions
import os
import pathlib
import subprocess
from collections.abc import Iterable

import imageio_ffmpeg
import numpy as np
import PIL.Image
import pytest

from networks.errors import InputError
from training.videos.framing import Framing
from training.videos.output import FrameWriter, PngWriter, VideoWriter, as_rgb, image_grid


def smooth_frames(num_frames: int, height: int, width: int) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] that 4:2:0 keeps: slow gradients that move."""
    t, y, x = np.meshgrid(np.arange(num_frames), np.arange(height), np.arange(width), indexing='ij')
    red = 128 + 90 * np.sin(t / 9 + x / 23)
    green = 128 + 90 * np.cos(t / 7 + y / 29)
    blue = 60 + 100 * x / width
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def decode(path: os.PathLike[str]) -> tuple[dict, np.ndarray]:
    """Metadata and frames [T, H, W, 3], read by imageio-ffmpeg's own reader."""
    reader = imageio_ffmpeg.read_frames(os.fspath(path))
    meta = next(reader)
    width, height = meta['size']
    return meta, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def write_all(writer: FrameWriter, frames: Iterable[np.ndarray], then: type[BaseException] | None = None) -> None:
    """Write and close; with `then`, leave the block by that error instead."""
    with writer:
        for frame in frames:
            writer.write(frame)
        if then is not None:
            raise then


@pytest.mark.parametrize(('height', 'width'), [(64, 48), (63, 49), (16, 16)])
def test_video_has_the_frames_the_rate_and_a_front_index(tmp_path: pathlib.Path, height: int, width: int) -> None:
    frames = smooth_frames(40, height, width)
    path = tmp_path / 'seed0000.mp4'
    with VideoWriter(path, fps=12.5, crf=12) as writer:
        for frame in frames:
            writer.write(frame)
            assert not path.exists()
    meta, decoded = decode(path)
    assert (meta['fps'], meta['codec'], meta['pix_fmt'].split('(')[0]) == (12.5, 'h264', 'yuv420p')
    assert 'bt709' in meta['pix_fmt']
    assert decoded.shape == (40, height + height % 2, width + width % 2, 3)
    error = decoded[:, :height, :width].astype(float) - frames
    assert np.sqrt(np.mean(error**2)) < 3  # rounding of the colour space and the codec, no wrong matrix or range
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 2  # the reader rounds down
    data = path.read_bytes()
    assert data.index(b'moov') < data.index(b'mdat')
    assert os.listdir(tmp_path) == ['seed0000.mp4']
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_better_quality_is_a_larger_file_and_ntsc_rates_are_exact(tmp_path: pathlib.Path) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    for crf in (10, 40):
        writer = VideoWriter(tmp_path / f'{crf}.mkv', fps=30000 / 1001, crf=crf, comment='seed 7')
        write_all(writer, noise)
    assert (tmp_path / '10.mkv').stat().st_size > 2 * (tmp_path / '40.mkv').stat().st_size
    assert writer.fps == fractions.Fraction(30000, 1001)
    program = [imageio_ffmpeg.get_ffmpeg_exe(), '-i', os.fspath(tmp_path / '10.mkv')]
    listing = subprocess.run(program, capture_output=True, text=True).stderr
    assert 'seed 7' in listing
    assert '29.97 fps' in listing


def test_an_error_leaves_the_old_video(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'a.mp4'
    path.write_bytes(b'old')
    with pytest.raises(KeyboardInterrupt):
        write_all(VideoWriter(path, fps=25), smooth_frames(5, 32, 32), KeyboardInterrupt)
    assert os.listdir(tmp_path) == ['a.mp4']
    assert path.read_bytes() == b'old'


def test_hostile_frames_and_names(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r'\.mp4'):
        VideoWriter(tmp_path / 'a.avi', fps=25)
    for fps in (0, -1, float('nan'), 1e9):
        with pytest.raises(InputError, match='frames per second'):
            VideoWriter(tmp_path / 'a.mp4', fps=fps)
    with pytest.raises(InputError, match='no frame'):
        write_all(VideoWriter(tmp_path / 'a.mp4', fps=25), [])
    with pytest.raises(ValueError, match='the ones before'):
        write_all(VideoWriter(tmp_path / 'a.mp4', fps=25), [np.zeros([8, width, 3], np.uint8) for width in (8, 10)])
    for shape, dtype in (([8, 8, 3], 'f4'), ([8, 8, 4], 'u1'), ([8], 'u1'), ([0, 8, 3], 'u1')):
        with pytest.raises(ValueError, match='frame'):
            as_rgb(np.zeros(shape, dtype))
    with pytest.raises(FileNotFoundError):
        write_all(VideoWriter(tmp_path / 'absent' / 'a.mp4', fps=25), [np.zeros([8, 8, 3], np.uint8)])
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_as_such(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A limit on the size of files stands for the full disk: no right to mount a small one is needed.
    writer = VideoWriter(tmp_path / 'a.mp4', fps=25, crf=1, preset='ultrafast')
    real = subprocess.Popen

    def limited(arguments: list[str], **kwargs: object) -> subprocess.Popen:
        return real(['/bin/sh', '-c', 'trap "" XFSZ; ulimit -f 16; exec "$@"', 'sh', *arguments], **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, 'Popen', limited)
    noise = np.random.RandomState(0).randint(0, 256, (128, 128, 3), dtype=np.uint8)
    with pytest.raises(OSError, match=r'a\.mp4') as caught:
        write_all(writer, (np.roll(noise, shift * 31, axis=1) for shift in range(200)))
    assert caught.value.errno in (None, errno.ENOSPC)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='this system has no /dev/full')
def test_a_full_device_is_enospc(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = VideoWriter(tmp_path / 'a.mp4', fps=25)
    real = subprocess.Popen

    def to_full_device(arguments: list[str], **kwargs: object) -> subprocess.Popen:
        unseekable = ['frag_keyframe+empty_moov' if argument == '+faststart' else argument for argument in arguments]
        return real([*unseekable[:-1], '/dev/full'], **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, 'Popen', to_full_device)
    with pytest.raises(OSError, match='No space left') as caught:
        write_all(writer, smooth_frames(60, 64, 64))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == 'nt', reason='needs a shell')
@pytest.mark.parametrize('number', [errno.EDQUOT, errno.EROFS, errno.EIO])
def test_what_a_disk_refused_ffmpeg_is_told_with_its_number(
    number: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = VideoWriter(tmp_path / 'a.mp4', fps=25)
    real = subprocess.Popen

    def refused(arguments: list[str], **kwargs: object) -> subprocess.Popen:
        said = f'av_interleaved_write_frame(): {os.strerror(number)}'
        return real(['/bin/sh', '-c', f'echo "{said}" >&2; exit 1'], **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, 'Popen', refused)
    with pytest.raises(OSError, match=r'a\.mp4') as caught:
        write_all(writer, smooth_frames(60, 64, 64))
    assert caught.value.errno == number
    assert os.listdir(tmp_path) == []


def test_frames_are_there_while_the_folder_grows(tmp_path: pathlib.Path) -> None:
    frames = smooth_frames(3, 9, 7)
    folder = tmp_path / 'seed0000'
    for number in (3, 2):  # the second, shorter run replaces the first
        with PngWriter(folder) as writer:
            for index, frame in enumerate(frames[:number]):
                writer.write(frame)
                assert (tmp_path / 'seed0000.partial' / f'frame{index:06d}.png').exists()
        assert sorted(os.listdir(folder)) == [f'frame{index:06d}.png' for index in range(number)]
    assert np.array_equal(np.asarray(PIL.Image.open(folder / 'frame000001.png')), frames[1])
    assert os.listdir(tmp_path) == ['seed0000']
    with pytest.raises(RuntimeError):
        write_all(PngWriter(folder), frames, RuntimeError)
    assert len(os.listdir(folder)) == 2


def test_a_folder_with_other_files_is_never_replaced(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'holiday').mkdir()
    (tmp_path / 'holiday' / 'photo.jpg').write_bytes(b'x')
    with pytest.raises(InputError, match=r'photo\.jpg'):
        PngWriter(tmp_path / 'holiday')
    with pytest.raises(InputError, match='not a folder'):
        PngWriter(tmp_path / 'holiday' / 'photo.jpg')
    with pytest.raises(InputError, match='no frame'):
        write_all(PngWriter(tmp_path / 'empty'), [])
    VideoWriter(tmp_path / 'a.MP4', fps=25)


def test_grid_places_frames_row_by_row() -> None:
    frames = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) + np.zeros([5, 2, 3, 3], np.uint8) + 1
    grid = image_grid(frames, 2)
    assert grid.shape == (6, 6, 3)
    assert grid[::2, ::3, 0].tolist() == [[1, 2], [3, 4], [5, 0]]
    with pytest.raises(ValueError, match='column'):
        image_grid(frames, 0)


@pytest.mark.parametrize(
    ('name', 'codec', 'expected'),
    [('a.webm', None, 'vp9'), ('a.mov', 'prores', 'prores'), ('a.gif', None, 'gif'), ('a.webp', None, 'webp')],
)
def test_other_formats_have_the_frames(tmp_path: pathlib.Path, name: str, codec: str | None, expected: str) -> None:
    frames = smooth_frames(12, 32, 48)
    write_all(VideoWriter(tmp_path / name, fps=20, crf=10, codec=codec), frames)
    if expected == 'webp':  # ffmpeg writes it and cannot read it
        picture = PIL.Image.open(tmp_path / name)
        assert (picture.n_frames, picture.size, picture.info['loop']) == (12, (48, 32), 0)
        decoded = []
        for index in range(12):
            picture.seek(index)
            decoded.append(np.asarray(picture.convert('RGB')))
        assert picture.info['duration'] == 50
    else:
        meta, decoded = decode(tmp_path / name)
        assert meta['codec'].rstrip(',') == expected
        assert meta['fps'] == pytest.approx(20, abs=0.01)
    assert len(decoded) == 12
    assert np.sqrt(np.mean((np.asarray(decoded, float) - frames) ** 2)) < 8  # GIF has 256 colours


def test_sound_goes_along_for_as_long_as_the_pictures(tmp_path: pathlib.Path) -> None:
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    sound = tmp_path / 'beep.wav'
    subprocess.run([ffmpeg, '-loglevel', 'error', '-f', 'lavfi', '-i', 'sine=440:duration=0.5', str(sound)], check=True)
    write_all(VideoWriter(tmp_path / 'a.mp4', fps=10, audio=str(sound)), smooth_frames(20, 32, 32))
    raw = subprocess.run(
        [ffmpeg, '-loglevel', 'error', '-i', str(tmp_path / 'a.mp4'), '-f', 's16le', '-ac', '1', '-ar', '8000', '-'],
        check=True,
        capture_output=True,
    )
    samples = np.frombuffer(raw.stdout, '<i2').astype(float)
    assert len(samples) / 8000 == pytest.approx(2, abs=0.15)
    assert np.abs(samples[:3200]).mean() > 50 * max(np.abs(samples[6000:]).mean(), 1)  # silence behind the beep
    with pytest.raises(InputError, match='have no sound'):
        VideoWriter(tmp_path / 'a.gif', fps=10, audio=str(sound))


def test_frames_are_fitted_and_the_rest_is_filled() -> None:
    frame = np.full((10, 10, 3), [200, 100, 50], np.uint8)
    for pad, fill in (('black', [0, 0, 0]), ('white', [255, 255, 255]), ('edge', [200, 100, 50]), ('blur', [200, 100, 50])):
        framed = Framing(36, 64, pad)(frame)
        assert framed.shape == (64, 36, 3)
        assert np.abs(framed[14:50].astype(int) - [200, 100, 50]).max() <= 1
        assert np.abs(framed[[0, 13, 50, 63]].astype(int) - fill).max() <= 1
