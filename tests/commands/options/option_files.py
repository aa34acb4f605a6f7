"""Files for the commands to work on, each made when a command first asks for it."""

import json
import pathlib
import shutil
import wave
from collections.abc import Callable
from typing import Any, ClassVar

import click.testing
import numpy as np
import PIL.Image
import torch
from tiny_training import TINY_TRAINING

import train_video
from networks import checkpoints
from networks.w_encoder import WEncoder
from training.control.saved_state import SavedState, write_state
from training.latents.dataset import LatentDatasetWriter
from training.videos.code_sources import ModelSource
from training.videos.output import VideoWriter
from training.videos.synthesis import render_codes

TRAIN = (
    '--outdir={out}',
    '--data={data}',
    *TINY_TRAINING,
    '--preview-frames=0',
    '--snap=0',
    '--carry=0.5',  # a run of carry=1 also looks at long videos, at every snapshot
    '--chains=16',
    '--burn-in=4',
    '--strides=1',
)
PLUGIN = """
from metrics import metric_main

@metric_main.register_metric
def test_only_probe(opts):
    return {'test_only_probe': float(opts.G.w_mean.sum())}

@metric_main.register_metric
def test_only_data(opts):
    import numpy as np
    from training.latents.dataset import LatentDataset
    with LatentDataset(opts.dataset_kwargs.path) as dataset:
        return {'test_only_data': float(np.abs(dataset.load_clip(0)).sum())}
"""
Maker = Callable[['Files'], None]
QUAD = np.array([[24.0, 8], [24, 56], [72, 56], [72, 8]])  # where crops of `sounding.mp4` lay


class Files(dict[str, pathlib.Path]):
    """The files by name; `{name}` in the words of a command stands for one."""

    makers: ClassVar[dict[str, Maker]] = {}

    def __init__(self, folder: pathlib.Path, generator: pathlib.Path, data: pathlib.Path) -> None:
        super().__init__(generator=generator, data=data)
        self.folder = folder

    def __missing__(self, name: str) -> pathlib.Path:
        self.makers[name](self)
        return self[name]

    def generator(self, name: str = 'generator') -> Any:
        return checkpoints.load_generator(str(self[name]), trust_pickle=True)

    def reference(self, name: str = 'generator') -> dict[str, Any]:
        return checkpoints.image_generator_reference(str(self[name]), self.generator())

    def save(self, name: str, content: dict[str, Any]) -> None:
        path = self.folder / f'{name}.pkl'
        checkpoints.save_module_pickle(str(path), content)
        self[name] = path

    def write_codes(self, name: str, reference: dict[str, Any], embedding: dict[str, Any] | None = None) -> LatentDatasetWriter:
        self[name] = self.folder / f'{name}.zip'
        return LatentDatasetWriter(
            str(self[name]), image_generator=reference, num_ws=6, w_dim=8, embedding=embedding or {'method': 'test'}
        )


def makes(*names: str) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        Files.makers.update(dict.fromkeys(names, maker))
        return maker

    return register


# ----------------------------------------------------------------------------
# Generators, encoders, and a training.


@makes('other', 'noisy', 'refused')
def make_generators(files: Files) -> None:
    G = files.generator()
    for parameter in G.synthesis.parameters():
        parameter.data.mul_(1.1)
    files.save('other', {'G_ema': G})
    for name, parameter in G.named_parameters():
        if name.endswith('noise_strength'):
            parameter.data.fill_(0.5)  # those of the tiny generator are 0
    files.save('noisy', {'G_ema': G})
    G.synthesis.b16.conv1.activation = 'relu'  # what the safe loader does not know
    files.save('refused', {'G_ema': G})


@makes('encoder', 'foreign_encoder')
def make_encoders(files: Files) -> None:
    torch.manual_seed(0)
    module = WEncoder(num_ws=6, w_dim=8, img_resolution=16, channel_max=16, hidden_features=16)
    module.set_code_statistics(files.generator().mapping.w_avg, torch.eye(8))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    files.save('encoder', {'encoder': module.eval().requires_grad_(False)})
    module.generator_sha256 = '0' * 64
    reference = {'path': 'gone.pkl', 'sha256': '0' * 64, 'class_name': 'Generator', 'init_kwargs': {}}
    files.save('foreign_encoder', {'encoder': module, 'image_generator': reference})


@makes('run', 'early', 'snapshot', 'state', 'resumable', 'live_state', 'recorded')
def make_run(files: Files) -> None:
    words = [word.format_map({**files, 'out': files.folder / 'runs'}) for word in TRAIN]
    done = click.testing.CliRunner().invoke(
        train_video.main, [*words, '--kimg=2', '--snap=1', '--tick=1'], catch_exceptions=False
    )
    assert done.exit_code == 0, done.stderr
    files['run'] = next((files.folder / 'runs').iterdir())
    files['early'], files['snapshot'] = sorted(files['run'].glob('network-snapshot-*.pkl'))[-2:]
    files['resumable'] = shutil.copytree(files['run'], files.folder / 'moved')
    files['state'] = next(files['resumable'].glob('training-state-*.pt'))
    source = ModelSource(checkpoints.load_snapshot(str(files['snapshot']))['G_ema'], 9)
    last = source.read(5).numpy()
    files['live_state'] = files.folder / 'live-state.npz'
    saved = SavedState(checkpoints.file_sha256(str(files['snapshot'])), 9, 5, source.state())
    write_state(str(files['live_state']), saved, last, 25.0)
    files['recorded'] = files.folder / 'recorded.json'
    recorded = json.loads((files['run'] / 'training_options.json').read_text())
    files['recorded'].write_text(json.dumps({**recorded, 'seed': 5}))


@makes('plugin')
def make_plugin(files: Files) -> None:
    files['plugin'] = files.folder / 'plugin.py'
    files['plugin'].write_text(PLUGIN)


# ----------------------------------------------------------------------------
# Codes.


@makes('second', 'foreign', 'slow')
def make_data(files: Files) -> None:
    random = np.random.RandomState(0)
    references = {
        'second': files.reference(),
        'foreign': {**files.reference('other'), 'sha256': '0' * 64},
        'slow': files.reference(),
    }
    for name, reference in references.items():
        with files.write_codes(name, reference) as writer:
            for index, clip in enumerate(('anna_1', 'anna_2', 'bert_1', 'bert_2')):
                codes = np.cumsum(0.2 * random.randn(40, 6, 8), axis=0).astype(np.float32)
                source = f'{"ab"[index // 2 if name != "slow" else index % 2]}.mp4'
                writer.add_clip(clip, codes, fps=10.0 if name == 'slow' else 25.0, source=source)
            writer.finish()


@makes('eventful')
def make_data_with_events(files: Files) -> None:
    random = np.random.RandomState(6)
    codes = np.cumsum(0.02 * random.randn(2800, 6, 8), axis=0)
    for frame in range(20, 2790, 12):  # each is small beside the whole way, so that an untrained model makes as large ones
        codes[frame + random.randint(4) :, 1, 2] += 1
    with files.write_codes('eventful', files.reference()) as writer:
        writer.add_clip('clip', codes.astype(np.float32), fps=25.0, source='c.mp4')
        writer.finish()


@makes('blinking')
def make_data_with_blinks(files: Files) -> None:
    random = np.random.RandomState(6)
    codes = np.cumsum(0.02 * random.randn(2800, 6, 8), axis=0)
    for frame in range(40, 2760, 45):
        begin = frame + random.randint(12)
        codes[begin : begin + 5, 1, 2] += [0.5, 1, 1, 0.6, 0.2]
    with files.write_codes('blinking', files.reference()) as writer:
        writer.add_clip('clip', codes.astype(np.float32), fps=25.0, source='c.mp4')
        writer.finish()


@makes('of_refused')
def make_data_of_a_refused_generator(files: Files) -> None:
    with files.write_codes('of_refused', files.reference('refused')) as writer:
        writer.add_clip('clip', np.random.RandomState(0).randn(40, 6, 8).astype(np.float32), fps=25.0, source='c.mp4')
        writer.finish()


@makes('codes', 'still', 'many', 'direction')
def make_code_files(files: Files) -> None:
    random = np.random.RandomState(3)
    for name, count in (('codes', 9), ('still', 1), ('many', 30)):
        files[name] = files.folder / f'{name}.npz'
        np.savez(files[name], w=random.randn(count, 6, 8).astype(np.float32))
    files['direction'] = files.folder / 'direction.npy'
    np.save(files['direction'], random.randn(6, 8).astype(np.float32))


@makes('coded', 'undrawn', 'long')
def make_coded_footage(files: Files) -> None:
    """Codes, and frames that are brighter than what the generator draws of them: what tuning learns in a step."""
    codes = np.array(np.random.RandomState(2).randn(1, 6, 8) + np.sin(np.arange(24) / 3)[:, None, None], np.float32)
    folder = files.folder / 'drawn' / 'clip'
    folder.mkdir(parents=True)
    for index, frame in enumerate(render_codes(files.generator(), codes)):
        PIL.Image.fromarray((0.8 * frame + 40).astype(np.uint8)).save(folder / f'{index:03d}.png')
    embedding = {'method': 'test', 'sources': [str(folder)]}
    for name, quality in (('coded', {}), ('undrawn', {'gain': 0.1})):
        with files.write_codes(name, files.reference(), embedding) as writer:
            writer.add_clip('clip', codes, fps=25.0, source=str(folder), **quality)
    with files.write_codes('long', files.reference(), embedding) as writer:
        for index in range(60):  # the same clip again and again
            writer.add_clip(f'clip{index}', codes, fps=25.0, source=str(folder))


# ----------------------------------------------------------------------------
# Recordings.


@makes('sound')
def make_sound(files: Files) -> None:
    files['sound'] = files.folder / 'sound.wav'
    with wave.open(str(files['sound']), 'wb') as sound:
        sound.setparams((1, 2, 8000, 0, 'NONE', ''))
        loud = np.repeat(np.random.RandomState(4).uniform(0, 1, 20), 400)
        sound.writeframes((20000 * loud * np.sin(np.arange(8000))).astype('<i2').tobytes())


@makes('frames', 'picture', 'video', 'damaged')
def make_footage(files: Files) -> None:
    """Frames 24x16 that move, cut to something else in the middle; as images, as video, and damaged."""
    random = np.random.RandomState(1)
    pictures = [random.uniform(*bounds, [4, 6, 3]) for bounds in ((0, 90), (0, 90), (160, 255), (160, 255))]
    frames = []
    for index in range(24):
        a, b = pictures[:2] if index < 14 else pictures[2:]
        low = a + 0.3 * (b - a) * np.sin(index / 5)
        frames.append(np.kron(low, np.ones((4, 4, 1))).clip(0, 255).astype(np.uint8))
    folder = files.folder / 'frames'
    folder.mkdir()
    for index, frame in enumerate(frames):
        PIL.Image.fromarray(frame).save(folder / f'{index:03d}.png')
    files |= {
        'frames': folder,
        'picture': folder / '003.png',
        'video': files.folder / 'video.mp4',
        'damaged': files.folder / 'damaged',
    }
    files['damaged'].mkdir()
    damaged = files['damaged'] / 'b.mp4'
    for path in (files['video'], damaged):
        with VideoWriter(str(path), fps=10) as writer:
            for frame in frames * (8 if path == damaged else 1):
                writer.write(np.kron(frame, np.ones((4, 4, 1))).astype(np.uint8))
    shutil.copy(files['video'], files['damaged'] / 'a.mp4')
    content = bytearray(damaged.read_bytes())
    place = content.index(b'mdat')
    content[place + len(content) // 2 - place : len(content) - 9000] = bytes(max(0, len(content) // 2 - 9000))
    damaged.write_bytes(bytes(content))


@makes('landmarks')
def make_landmarks(files: Files) -> None:
    """Of a face that moves, and is lost for three frames."""
    landmarks = np.zeros([24, 68, 2])
    landmarks[:] = np.random.RandomState(5).uniform(4, 12, [68, 2])
    landmarks *= 1 + 0.1 * np.sin(np.arange(24))[:, None, None]
    landmarks += np.sin(np.arange(24) / 2)[:, None, None]
    landmarks[8:11] = 0
    files['landmarks'] = files.folder / 'landmarks.npy'
    np.save(files['landmarks'], landmarks)


@makes('fake', 'fake_b', 'real')
def make_arrays(files: Files) -> None:
    """Eight videos of 30 frames each."""
    for name, seed in (('fake', 0), ('fake_b', 1), ('real', 2)):
        random = np.random.RandomState(seed)
        walk = random.uniform(60, 190, [8, 1, 8, 4, 3]) + np.cumsum(4 * random.randn(8, 30, 8, 4, 3), axis=1)
        files[name] = files.folder / f'{name}.npy'
        np.save(files[name], walk.clip(0, 255).astype(np.uint8))


@makes('clips', 'broken')
def make_videos(files: Files) -> None:
    files['clips'] = files.folder / 'clips'
    files['clips'].mkdir()
    for index, video in enumerate(np.load(files['real'])[:3]):
        with VideoWriter(str(files['clips'] / f'{index}.mp4'), fps=20) as writer:
            for frame in video:
                writer.write(np.kron(frame, np.ones((4, 8, 1))).astype(np.uint8))
    files['broken'] = shutil.copytree(files['clips'], files.folder / 'broken')
    (files['broken'] / '9.mp4').write_bytes(b'no video')


@makes('pasted', 'pasted_b', 'pasted_two')
def make_pasted(files: Files) -> None:
    """Data sets that keep where their crops lay in a recording with sound: of one clip, of another one, and of two."""
    recording = files.folder / 'sounding.mp4'
    with VideoWriter(str(recording), fps=10, audio=str(files['sound'])) as writer:
        for path in sorted(files['frames'].iterdir()):
            writer.write(np.kron(np.asarray(PIL.Image.open(path)), np.ones((4, 4, 1))).astype(np.uint8))
    random = np.random.RandomState(2)
    for name, clips in (('pasted', 'a'), ('pasted_b', 'a'), ('pasted_two', 'ab')):
        with files.write_codes(name, files.reference()) as data:
            for clip_name in clips:
                clip = data.open_clip(clip_name)
                clip.append(random.randn(12, 6, 8))
                arrays = {'quads': np.tile(QUAD, (12, 1, 1))}
                clip.close(fps=10, source=str(recording), first_frame=0, source_size=[96, 64], arrays=arrays)


@makes('landmarks_pasted')
def make_landmarks_of_crops(files: Files) -> None:
    landmarks = np.tile(QUAD.mean(axis=0) + np.random.RandomState(6).uniform(-9, 9, [68, 2]), (12, 1, 1))
    files['landmarks_pasted'] = files.folder / 'landmarks_pasted.npy'
    np.save(files['landmarks_pasted'], landmarks)
