"""paste_video.py on real files: nothing changes outside of the mask, sound, interruptions, and what a user may get wrong."""

import json
import pathlib
import subprocess
import wave
from collections.abc import Callable
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from click.testing import CliRunner

import embed_video
import paste_video
from networks import checkpoints
from training.footage.clips import open_footage
from training.footage.first_look import thumbnail
from training.latents.dataset import LatentDatasetWriter
from training.pasting import blending, masks
from training.pasting.blending import Paster
from training.runs.locks import lock_target
from training.videos import segments
from training.videos.output import VideoWriter

FRAMES, FPS = 20, 10.0
QUAD = np.array([[20.0, 8.0], [16.0, 36.0], [44.0, 40.0], [48.0, 12.0]])


def picture(number: int, seed: int = 0) -> np.ndarray:
    blocks = np.random.RandomState(seed).randint(30, 220, (6, 8, 3))
    return np.roll(np.kron(blocks, np.ones((8, 8, 1))), number, axis=1).astype(np.uint8)


def write_recording(path: pathlib.Path, seed: int = 0, frames: int = FRAMES, **options: Any) -> pathlib.Path:
    with VideoWriter(path, fps=FPS, **options) as writer:
        for number in range(frames):
            writer.write(picture(number, seed))
    return path


def write_data(
    path: pathlib.Path, generator: pathlib.Path, source: pathlib.Path, clips: tuple[str, ...] = ('talk',)
) -> pathlib.Path:
    G = checkpoints.load_generator(str(generator))
    reference = checkpoints.image_generator_reference(str(generator), G)
    frames = list(open_footage(source)[0].frames())
    with LatentDatasetWriter(path, image_generator=reference, num_ws=6, w_dim=8, embedding={'method': 'test'}) as writer:
        for seed, name in enumerate(clips):
            clip = writer.open_clip(name)
            clip.append(np.random.RandomState(seed).randn(FRAMES - 2, 6, 8))
            quads = QUAD + 2 * np.sin(np.arange(FRAMES - 2) / 3)[:, None, None]
            arrays = {'quads': quads, 'thumbnails': np.stack([thumbnail(frame) for frame in frames[2:]])}
            clip.close(fps=FPS, source=str(source), first_frame=2, source_size=[64, 48], arrays=arrays)
    return path


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory, tiny_generator: pathlib.Path) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp('paste')
    with wave.open(str(folder / 'sound.wav'), 'wb') as sound:
        sound.setparams((1, 2, 8000, 0, 'NONE', ''))
        sound.writeframes((9000 * np.sin(np.arange(16000) / 3)).astype('<i2').tobytes())
    recording = write_recording(folder / 'talk.mp4', audio=str(folder / 'sound.wav'))
    codes = np.random.RandomState(7).randn(45, 6, 8).astype(np.float32)
    np.savez(folder / 'codes.npz', w=codes)
    return {
        'folder': folder,
        'recording': recording,
        'data': write_data(folder / 'data.zip', tiny_generator, recording),
        'codes': folder / 'codes.npz',
        'generator': tiny_generator,
    }


def paste(files: dict[str, pathlib.Path], *arguments: str) -> Any:
    words = [argument.format(**files) for argument in arguments]
    return CliRunner().invoke(paste_video.main, ['--data={data}'.format(**files), '--device=cpu', *words], catch_exceptions=False)


def frames_of(path: pathlib.Path) -> list[np.ndarray]:
    return list(open_footage(path, say=lambda sentence: None)[0].frames())


def test_outside_of_the_mask_every_bit_stays(files: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    result = paste(files, f'--dest={tmp_path / "out"}')
    assert result.exit_code == 0, result.output
    pasted, recorded = frames_of(tmp_path / 'out'), frames_of(files['recording'])[2:]
    assert len(pasted) == FRAMES - 2
    for number, (after, before) in enumerate(zip(pasted, recorded, strict=True)):
        mask = Paster(masks.square_mask(), 29).drawn_mask((64, 48), QUAD + 2 * np.sin(number / 3))
        assert np.array_equal(after[mask == 0], before[mask == 0])
        assert not np.array_equal(after[mask > 0.9], before[mask > 0.9])
    line = json.loads((tmp_path / 'pasting.jsonl').read_text())
    assert line['frames'] == FRAMES - 2
    assert line['sha256']['data'] == checkpoints.file_sha256(files['data'])
    again = paste(files, f'--dest={tmp_path / "out"}')
    assert again.exit_code == 2
    assert 'already exists' in again.output


def loudness(path: pathlib.Path) -> np.ndarray:
    """Of every tenth of a second."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-i', str(path)]
    command = [*ffmpeg, '-ac', '1', '-ar', '8000', '-f', 's16le', '-']
    samples = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, '<i2')
    return np.abs(samples[: len(samples) // 800 * 800].reshape(-1, 800).astype(float)).mean(axis=1)


def test_sound_goes_along_for_as_long_as_the_recording_runs(files: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    long = tmp_path / 'long.mp4'
    result = paste(files, '--crops={codes}', f'--dest={long}')
    assert result.exit_code == 0, result.output
    assert 'shown again (boomerang)' in result.output
    assert len(frames_of(long)) == 45
    loud = loudness(long)
    assert (loud[1:17] > 2000).all()
    assert (loud[19:44] < 100).all()
    assert paste(files, '--crops={codes}', f'--dest={tmp_path / "mute.mp4"}', '--no-sound', '--beyond=stop').exit_code == 0
    assert len(frames_of(tmp_path / 'mute.mp4')) == FRAMES - 2
    with pytest.raises(subprocess.CalledProcessError):
        loudness(tmp_path / 'mute.mp4')


def test_one_at_a_time(files: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    with lock_target(tmp_path / 'a.mp4', '--dest'):
        result = paste(files, f'--dest={tmp_path / "a.mp4"}')
    assert result.exit_code == 2
    assert f'--dest: {tmp_path}/a.mp4 is in use by' in result.output


def test_an_interrupted_run_goes_on(
    files: dict[str, pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, 'SEGMENT_FRAMES', 8)
    command = ('--crops={codes}', '--no-sound', f'--dest={tmp_path / "a.mp4"}')
    assert paste(files, *command).exit_code == 0
    whole = (tmp_path / 'a.mp4').read_bytes()
    (tmp_path / 'a.mp4').unlink()
    done = []
    original = blending.Paster.paste

    def interrupted(self: Paster, *arguments: Any) -> np.ndarray:
        done.append(1)
        if len(done) == 29:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(blending.Paster, 'paste', interrupted)
    assert paste(files, *command).exit_code == 130
    assert not (tmp_path / 'a.mp4').exists()
    result = paste(files, *command)
    assert 'Going on at frame 24' in result.output
    assert len(done) == 29 + 45 - 24
    assert (tmp_path / 'a.mp4').read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.mp4', 'pasting.jsonl']


def test_a_full_disk_is_one_sentence(
    files: dict[str, pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: VideoWriter, frame: np.ndarray) -> None:
        raise OSError(28, 'No space left on device', self.path)

    monkeypatch.setattr(VideoWriter, 'write', full)
    result = paste(files, f'--dest={tmp_path / "a.mp4"}')
    assert result.exit_code == 2
    assert result.output.count('Error: ') == 1
    assert 'no space is left' in result.output
    assert list(tmp_path.iterdir()) == []


def wrong_quads(files: dict[str, pathlib.Path], folder: pathlib.Path, how: Callable[[np.ndarray], Any]) -> str:
    G = checkpoints.load_generator(str(files['generator']))
    reference = checkpoints.image_generator_reference(str(files['generator']), G)
    quads = np.tile(QUAD, (5, 1, 1))
    how(quads)
    with LatentDatasetWriter(folder / 'q.zip', image_generator=reference, num_ws=6, w_dim=8, embedding={}) as writer:
        clip = writer.open_clip('talk')
        clip.append(np.zeros((5, 6, 8)))
        clip.close(fps=FPS, source=str(files['recording']), first_frame=0, source_size=[64, 48], arrays={'quads': quads})
    return f'--data={folder / "q.zip"}'


MISTAKES: dict[str, tuple[Callable[[dict[str, pathlib.Path], pathlib.Path], list[str]], str]] = {
    'no quads': (
        lambda files, folder: [f'--data={codes_only(files, folder)}'],
        'does not tell where its crops lie in the recording',
    ),
    'another recording': (
        lambda files, folder: [f'--source={write_recording(folder / "b.mp4", seed=5)}'],
        'is not the recording that clip',
    ),
    'another shape': (lambda files, folder: [f'--source={square(folder)}'], 'it is another recording'),
    'cut off': (
        lambda files, folder: [f'--source={write_recording(folder / "b.mp4", frames=12)}', f'--dest={folder / "out.mp4"}'],
        'has no frame 12',
    ),
    'no recording': (lambda files, folder: ['--source=nowhere.mp4'], 'say by --source where it lies now'),
    'no crops': (lambda files, folder: ['--crops=nowhere.mp4'], '--crops: there is no file or folder'),
    'several clips': (
        lambda files, folder: [f'--data={write_data(folder / "two.zip", files["generator"], files["recording"], ("a", "b"))}'],
        'name it by --clip',
    ),
    'no such clip': (lambda files, folder: ['--clip=nobody'], 'its clips are talk'),
    'crops not square': (lambda files, folder: [f'--crops={files["recording"]}'], 'crops are square'),
    'several crops': (
        lambda files, folder: [f'--crops={write_recording(folder / "b.mp4").parent}', f'--source={two(folder)}'],
        'holds 2 videos',
    ),
    'crops that are data': (lambda files, folder: [f'--crops={files["data"]}'], 'is a latent data set'),
    'codes of another generator': (lambda files, folder: [f'--crops={other_codes(folder)}'], 'made for another one'),
    'a flat quad': (lambda files, folder: [wrong_quads(files, folder, lambda quads: quads[3].fill(7))], 'the quad of frame 3'),
    'a quad of nothing': (
        lambda files, folder: [wrong_quads(files, folder, lambda quads: quads[2].fill(np.nan))],
        'the quad of frame 2',
    ),
    'landmarks without a face': (lambda files, folder: ['--mask=square', '--landmarks=x.npy'], 'does not use them'),
    'no folder': (lambda files, folder: [f'--dest={files["recording"]}/x.mp4'], 'is a file'),
}


def codes_only(files: dict[str, pathlib.Path], folder: pathlib.Path) -> pathlib.Path:
    with LatentDatasetWriter(folder / 'c.zip', image_generator={'sha256': None}, num_ws=6, w_dim=8, embedding={}) as writer:
        writer.add_clip('talk', np.zeros((5, 6, 8), np.float32), fps=25, source='talk.npz')
    return folder / 'c.zip'


def other_codes(folder: pathlib.Path) -> pathlib.Path:
    np.savez(folder / 'other.npz', w=np.zeros((5, 4, 8), np.float32))
    return folder / 'other.npz'


def square(folder: pathlib.Path) -> pathlib.Path:
    with VideoWriter(folder / 'square.mp4', fps=FPS) as writer:
        writer.write(picture(0)[:, :48])
    return folder / 'square.mp4'


def two(folder: pathlib.Path) -> pathlib.Path:
    write_recording(folder / 'c.mp4')
    return folder / 'b.mp4'


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_sentence(files: dict[str, pathlib.Path], tmp_path: pathlib.Path, mistake: str) -> None:
    words, sentence = MISTAKES[mistake]
    inputs = tmp_path / 'inputs'
    inputs.mkdir()
    result = paste(files, f'--dest={tmp_path / "out.mp4"}', *words(files, inputs))
    assert result.exit_code == 2, result.output
    assert result.output.count('Error: ') == 1
    assert sentence in result.output
    assert [path.name for path in tmp_path.iterdir()] == ['inputs']


def test_embedded_footage_of_varying_rate_comes_back(tmp_path: pathlib.Path, tiny_generator: pathlib.Path) -> None:
    """From a phone's recording, with time stamps that jitter, through embed_video.py and back."""
    write_recording(tmp_path / 'steady.mkv', frames=40)
    jitter = "setpts='(N/10+0.02*mod(N,3))/TB'"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-i', str(tmp_path / 'steady.mkv')]
    subprocess.run([*ffmpeg, '-vf', jitter, '-fps_mode', 'vfr', str(tmp_path / 'phone.mp4')], check=True)
    words = [f'--network={tiny_generator}', f'--source={tmp_path / "phone.mp4"}', f'--dest={tmp_path / "l.zip"}', '--start=1']
    words += ['--perceptual=none', '--steps=1', '--first-steps=1', '--device=cpu', '--no-report', '--measure-every=0']
    assert CliRunner().invoke(embed_video.main, words, catch_exceptions=False).exit_code == 0
    words = [f'--data={tmp_path / "l.zip"}', f'--dest={tmp_path / "out"}', '--device=cpu']
    result = CliRunner().invoke(paste_video.main, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (clip,) = open_footage(tmp_path / 'phone.mp4', start=1, say=lambda sentence: None)
    pasted, recorded = frames_of(tmp_path / 'out'), list(clip.frames())
    assert len(pasted) == len(recorded) > 20
    for after, before in zip(pasted, recorded, strict=True):  # the square in the middle is 48 of 64 pixels wide
        assert np.array_equal(after[:, :8], before[:, :8])
        assert np.array_equal(after[:, 56:], before[:, 56:])
        assert not np.array_equal(after[:, 16:48], before[:, 16:48])
    write_recording(tmp_path / 'other.mp4', seed=3, frames=40)
    result = CliRunner().invoke(paste_video.main, [*words[:1], f'--dest={tmp_path / "no"}', f'--source={tmp_path / "other.mp4"}'])
    assert 'is not the recording that clip' in result.output
