"""Sets of videos: equal frames from every container, digests of content, damage, rates and sizes, rendered and generated ones."""

import itertools
import os
import pathlib
import re
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch

from networks import checkpoints
from networks.errors import InputError
from training.latents.dataset import LatentDataset
from training.videos import recorded_videos as video_sets
from training.videos.output import VideoWriter
from training.videos.recorded_videos import DamagedVideo, EmbeddedVideos, GeneratedVideos, RecordedVideos
from training.videos.synthesis import stream_video


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def numbered(num_frames: int, seed: int, height: int = 16, width: int = 24) -> np.ndarray:
    """Frames whose grey value is their number times 5, plus a pattern of the seed."""
    pattern = np.random.RandomState(seed).randint(0, 40, [height, width, 3])
    return (pattern + 5 * np.arange(num_frames)[:, None, None, None]).astype(np.uint8)


def write_frames(folder: pathlib.Path, video: np.ndarray, ending: str = 'png') -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(video):
        PIL.Image.fromarray(frame).save(folder / f'{number}.{ending}')


def write_mp4(path: pathlib.Path, video: np.ndarray, fps: float = 25) -> None:
    with VideoWriter(str(path), fps=fps, crf=0) as writer:
        for frame in video:
            writer.write(frame)


def test_frames_are_the_same_from_every_container(tmp_path: pathlib.Path) -> None:
    videos = np.stack([numbered(12, seed) for seed in (0, 1)])
    for index, video in enumerate(videos):
        write_frames(tmp_path / 'folder' / f'video{index + 9}', video)  # 9 comes before 10
    with zipfile.ZipFile(tmp_path / 'frames.zip', 'w') as archive:
        for path in sorted((tmp_path / 'folder').rglob('*.png')):
            archive.write(path, f'other-name/{path.relative_to(tmp_path / "folder")}')
    np.save(tmp_path / 'all.npy', videos)
    np.savez(tmp_path / 'plain.npz', videos=videos)
    np.savez_compressed(tmp_path / 'packed.npz', videos=videos)
    sets = {name: RecordedVideos(tmp_path / name) for name in ('folder', 'frames.zip', 'all.npy', 'plain.npz', 'packed.npz')}
    for videos_of in sets.values():
        assert len(videos_of) == 2
        assert videos_of.num_frames == [12, 12]
        assert videos_of.resolution == (16, 24)
        assert (videos_of.fps, videos_of.fps_is_known) == (25, False)
        assert np.array_equal(videos_of.clip(1, 2, 4, stride=3), videos[1, 2::3])
        overlapping = list(videos_of.clips(0, [0, 1, 7], 5))
        assert np.array_equal(np.stack(overlapping), np.stack([videos[0, start : start + 5] for start in (0, 1, 7)]))
        assert np.array_equal(np.stack(list(videos_of.stream(0, 10))), videos[0, 10:])
        with pytest.raises(DamagedVideo, match=r'ends before frame 12, and its description promised 12 frames'):
            videos_of.clip(0, 10, 3)
        videos_of.close()
    assert sets['folder'].names == ['video9', 'video10']
    assert sets['folder'].sha256 == sets['frames.zip'].sha256  # the same bytes, under other names
    assert sets['all.npy'].sha256 == sets['plain.npz'].sha256 == sets['packed.npz'].sha256
    np.save(tmp_path / 'all.npy', videos[::-1])
    assert RecordedVideos(tmp_path / 'all.npy').sha256 != sets['plain.npz'].sha256
    assert RecordedVideos(tmp_path / 'folder', resolution=8).clip(0, 0, 3).shape == (3, 8, 8, 3)


def test_video_files_are_counted_and_resampled(tmp_path: pathlib.Path) -> None:
    video = numbered(30, 0, 32, 32)
    (tmp_path / 'set' / 'inner').mkdir(parents=True)
    write_mp4(tmp_path / 'set' / 'a.mp4', video)
    write_mp4(tmp_path / 'set' / 'inner' / 'b.mp4', video[:20])
    videos = RecordedVideos(tmp_path / 'set')
    assert videos.names == ['a.mp4', 'inner/b.mp4']
    assert videos.num_frames == [30, 20]
    assert (videos.fps, videos.fps_is_known) == (25, True)
    levels = videos.clip(0, 4, 5, stride=4).mean(axis=(1, 2, 3))
    assert np.allclose(np.diff(levels), 20, atol=0.5)  # every fourth frame, exactly
    half = RecordedVideos(tmp_path / 'set', fps=12.5)
    assert half.num_frames == [15, 10]
    assert half.sha256 != videos.sha256
    write_mp4(tmp_path / 'set' / 'c.mp4', video, fps=30)
    mixed = RecordedVideos(tmp_path / 'set')
    assert re.search(r'c\.mp4 has 30 frames per second and most others have 25; .* fps=25', mixed.mixed_rates)
    assert [mixed.rate(index) for index in range(3)] == [25, 30, 25]
    assert RecordedVideos(tmp_path / 'set', fps=25).num_frames == [30, 25, 20]
    write_mp4(tmp_path / 'set' / 'c.mp4', numbered(9, 0, 16, 32))
    mixed = RecordedVideos(tmp_path / 'set')
    mixed.clip(0, 0, 2)
    with pytest.raises(InputError, match=r'c\.mp4 has 32x16 pixels, and the first video 32x32; .* resolution=16'):
        mixed.clip(1, 0, 2)


def test_damaged_videos_stop_the_run_or_are_named(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / 'set'
    folder.mkdir()
    write_mp4(folder / 'good.mp4', numbered(30, 0, 32, 32))
    (folder / 'cut.mp4').write_bytes((folder / 'good.mp4').read_bytes()[:-900])
    (folder / 'empty.mp4').write_bytes(b'')
    (folder / 'half.npy').write_bytes(b'\x93NUMPY\x01\x00')
    with pytest.raises(DamagedVideo, match=r"half\.npy is not an array .* remove it, or .* damaged='skip'"):
        RecordedVideos(folder)
    (folder / 'half.npy').unlink()
    with pytest.raises(DamagedVideo, match=r'\(2 videos of .*set are damaged\)'):
        RecordedVideos(folder)
    videos = RecordedVideos(folder, damaged='skip')
    assert videos.names == ['good.mp4']
    assert set(videos.left_out) == {'cut.mp4', 'empty.mp4'}
    assert videos.description['damaged_videos'] == 2
    assert '2 damaged videos are left out: cut.mp4, empty.mp4' in (videos.damage() or '')
    assert videos.sha256 == RecordedVideos(folder, damaged='skip', cache=False).sha256
    (folder / 'good.mp4').unlink()
    with pytest.raises(InputError, match='every one of its 2 videos is damaged'):
        RecordedVideos(folder, damaged='skip')
    # A picture in the middle is only met when it is asked for.
    write_frames(tmp_path / 'frames' / 'v', numbered(5, 0), 'jpg')
    (tmp_path / 'frames' / 'v' / '3.jpg').write_bytes(b'\xff\xd8\xff')
    pictures = RecordedVideos(tmp_path / 'frames')
    pictures.clip(0, 0, 3)
    with pytest.raises(DamagedVideo, match=r'3\.jpg is not an image that can be decoded'):
        pictures.clip(0, 0, 4)


def test_what_is_no_video(tmp_path: pathlib.Path, tiny_latents: pathlib.Path) -> None:
    np.save(tmp_path / 'float.npy', np.zeros([2, 3, 4, 4, 3], np.float32))
    np.save(tmp_path / 'first.npy', np.zeros([2, 9, 3, 4, 4], np.uint8))
    np.save(tmp_path / 'none.npy', np.zeros([0, 3, 4, 4, 3], np.uint8))
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'broken.zip').write_bytes(b'PK\x03\x04')
    for name, words in [
        ('float.npy', 'holds float32 of shape'),
        ('first.npy', 'move the channels to the end'),
        ('none.npy', 'is empty'),
        ('empty', 'nothing to compare'),
        ('absent', 'no such file or folder'),
        ('broken.zip', 'not a zip file, or it was cut off'),
    ]:
        with pytest.raises(InputError, match=words):
            RecordedVideos(tmp_path / name)
    with pytest.raises(InputError, match='is a latent data set, not videos'):
        RecordedVideos(tiny_latents)


def test_what_was_found_is_kept_until_a_file_changes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, cache_folder: pathlib.Path
) -> None:
    write_mp4(tmp_path / 'a.mp4', numbered(12, 0, 32, 32))
    first = RecordedVideos(tmp_path / 'a.mp4').sha256
    assert not list(cache_folder.rglob('*.json'))  # so young a file could still change within one tick of its time stamp
    monkeypatch.setattr(video_sets, 'SETTLED_SECONDS', -1.0)
    assert RecordedVideos(tmp_path / 'a.mp4').sha256 == first
    assert len(list(cache_folder.rglob('*.json'))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(video_sets, '_look_at', lambda recording, **_: pytest.fail('it was looked at again'))
        kept = RecordedVideos(tmp_path / 'a.mp4')
        assert (kept.sha256, kept.num_frames, kept.fps) == (first, [12], 25)
    times = os.stat(tmp_path / 'a.mp4')
    write_mp4(tmp_path / 'a.mp4', numbered(12, 1, 32, 32))
    os.utime(tmp_path / 'a.mp4', ns=(times.st_atime_ns, times.st_mtime_ns))  # cp -p of another file
    assert RecordedVideos(tmp_path / 'a.mp4').sha256 != first
    next(cache_folder.rglob('*.json')).write_text('[[1')
    assert RecordedVideos(tmp_path / 'a.mp4').num_frames == [12]


def test_generated_videos_are_those_of_the_seeds(tiny_snapshot: pathlib.Path) -> None:
    videos = GeneratedVideos(tiny_snapshot, first_seed=3, num_videos=4)
    assert (len(videos), videos.names[1], videos.num_frames[0], videos.fps) == (4, 'seed0004', None, 25)
    assert videos.resolution == (16, 16)
    generator, G = videos._generator, videos._image_generator
    expected = np.stack([frame for frame, _ in itertools.islice(stream_video(generator, G, 4), 30)])
    assert np.array_equal(videos.clip(1, 0, 16), expected[:16])
    assert np.array_equal(videos.clip(1, 11, 5, stride=4), expected[11:28:4])
    assert np.array_equal(np.stack(list(itertools.islice(videos.stream(1, 20), 10))), expected[20:])
    assert np.array_equal(videos.clip(6, 0, 1), GeneratedVideos(tiny_snapshot, first_seed=9).clip(0, 0, 1))  # beyond the length
    # Loaded networks are the same as their files, and everything that changes the frames changes the digest.
    assert GeneratedVideos(generator, G, first_seed=3).sha256 == videos.sha256
    others = [
        GeneratedVideos(generator, G, **{'first_seed': 3, **change}).sha256
        for change in ({'first_seed': 4}, {'trunc': 0.5}, {'resolution': 8}, {'noise_mode': 'none'})
    ]
    assert len({videos.sha256, *others}) == 5
    still = GeneratedVideos(generator, G, trunc=0.0).clip(0, 0, 3)
    assert np.array_equal(still[0], still[2])
    with pytest.raises(InputError, match='without an image generator'):
        GeneratedVideos(generator)


def test_embedded_videos_are_the_rendered_codes(tiny_latents: pathlib.Path, tiny_generator: pathlib.Path) -> None:
    with EmbeddedVideos(tiny_latents) as videos:
        assert (videos.names, videos.num_frames, videos.fps) == (['first', 'second'], [90, 60], 25)
        with LatentDataset(str(tiny_latents)) as dataset, torch.no_grad():
            codes = torch.from_numpy(dataset.load_clip(1)[50:60:3].copy())
            images = checkpoints.load_generator(str(tiny_generator)).synthesis(codes, noise_mode='const', force_fp32=True)
        frames = (images.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()
        assert np.abs(videos.clip(1, 50, 4, stride=3).astype(int) - frames).max() <= 1
        assert len(list(videos.stream(1, 41))) == 19
        assert videos.description['latents_sha256'] != videos.sha256
        assert EmbeddedVideos(tiny_latents, str(tiny_generator)).sha256 == videos.sha256
    assert video_sets.open_video_set(videos) is videos
    again = video_sets.open_video_set({'class_name': 'training.videos.recorded_videos.EmbeddedVideos', 'path': str(tiny_latents)})
    assert again.sha256 == videos.sha256
