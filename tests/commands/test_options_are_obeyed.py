"""Every option of every command: two values of it, and what of the result has to differ between them.

A row names the part of the result that shows that the option was obeyed, never the place where it is only recorded. An option
without a row fails `test_every_option_stands_in_the_table`. Equal commands run once (`Workshop.run`), so most rows cost one run.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import unittest.mock
import wave
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import click
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner
from tiny_training import TINY_TRAINING

from metrics.features import detectors
from networks import checkpoints, stylegan2
from networks.w_encoder import WEncoder
from stylevideogan import layout
from stylevideogan.__main__ import load_command
from training.control.saved_state import SavedState, write_state
from training.kernels.rendering.fast_stylegan2 import FastSynthesis
from training.latents.dataset import LatentDataset, LatentDatasetWriter
from training.live import run as live_run
from training.run_page import measures
from training.run_page import run as page_run
from training.videos.code_sources import ModelSource
from training.videos.output import VideoWriter
from training.videos.synthesis import render_codes

# ----------------------------------------------------------------------------
# Runs.


@dataclasses.dataclass
class Run:
    """What one command did."""

    folder: pathlib.Path
    exit_code: int
    stdout: str
    stderr: str
    rendered: list[int]  # batch sizes of the calls of synthesis networks
    measured: list[int]  # batch sizes of the calls of the detector
    layers: int  # calls of the layers of synthesis networks


class Detector(torch.nn.Module):
    """Stands for I3D: mean and motion of each colour."""

    detector_name, num_features, resize_rule, smallest_num_frames = 'i3d', 6, 'none', 3
    description: ClassVar[dict[str, str]] = {'name': 'Tiny', 'weights_sha256': 'f' * 64}
    sizes: ClassVar[list[int]] = []

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(frames))
        frames = frames.double() / 255
        steps = (frames[:, 1:] - frames[:, :-1]).abs()
        return torch.cat([frames.mean(dim=(1, 2, 3)), steps.mean(dim=(1, 2, 3))], dim=1)[:, None].float()


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


class Workshop:
    """Files for the commands to work on, and every command that was run."""

    def __init__(self, folder: pathlib.Path, generator: pathlib.Path, data: pathlib.Path) -> None:
        self.folder = folder
        self.done: dict[tuple[str, ...], Run] = {}
        self.started = 0
        self.files: dict[str, Any] = {'generator': generator, 'data': data}
        G: Any = checkpoints.load_generator(str(generator))
        self._generators(G)
        self._data(G)
        self._footage(G)
        self._encoders(G)
        self._pasted(G)
        (folder / 'plugin.py').write_text(PLUGIN)
        self.files['plugin'] = folder / 'plugin.py'
        run = self.run('train_video', *TRAIN, '--kimg=2', '--snap=1', '--tick=1')
        assert run.exit_code == 0, run.stderr
        self.files['run'] = next((run.folder / 'out').iterdir())
        self.files['early'], self.files['snapshot'] = sorted(self.files['run'].glob('network-snapshot-*.pkl'))[-2:]
        shutil.copytree(self.files['run'], folder / 'moved')
        self.files['state'] = next((folder / 'moved').glob('training-state-*.pt'))
        self.files['resumable'] = folder / 'moved'
        source = ModelSource(checkpoints.load_snapshot(str(self.files['snapshot']))['G_ema'], 9)
        last = source.read(5).numpy()
        saved = SavedState(checkpoints.file_sha256(str(self.files['snapshot'])), 9, 5, source.state())
        write_state(str(self.files['live_state']), saved, last, 25.0)
        recorded = json.loads((self.files['run'] / 'training_options.json').read_text())
        (folder / 'recorded.json').write_text(json.dumps({**recorded, 'seed': 5}))
        self.files['recorded'] = folder / 'recorded.json'

    def _save(self, name: str, content: dict[str, Any]) -> None:
        path = self.folder / f'{name}.pkl'
        checkpoints.save_module_pickle(str(path), content)
        self.files[name] = path

    def _generators(self, G: Any) -> None:
        for parameter in G.synthesis.parameters():
            parameter.data.mul_(1.1)
        self._save('other', {'G_ema': G})
        for name, parameter in G.named_parameters():
            if name.endswith('noise_strength'):
                parameter.data.fill_(0.5)  # those of the tiny generator are 0
        self._save('noisy', {'G_ema': G})
        G.synthesis.b16.conv1.activation = 'relu'  # what the safe loader does not know
        self._save('refused', {'G_ema': G})

    def _data(self, G: Any) -> None:
        random = np.random.RandomState(0)
        references = {
            'second': checkpoints.image_generator_reference(str(self.files['generator']), G),
            'foreign': {**checkpoints.image_generator_reference(str(self.files['other']), G), 'sha256': '0' * 64},
            'slow': checkpoints.image_generator_reference(str(self.files['generator']), G),
        }
        for name, reference in references.items():
            path = self.folder / f'{name}.zip'
            with LatentDatasetWriter(
                str(path), image_generator=reference, num_ws=6, w_dim=8, embedding={'method': 'test'}
            ) as writer:
                for index, clip in enumerate(('anna_1', 'anna_2', 'bert_1', 'bert_2')):
                    codes = np.cumsum(0.2 * random.randn(40, 6, 8), axis=0).astype(np.float32)
                    source = f'{"ab"[index // 2 if name != "slow" else index % 2]}.mp4'
                    writer.add_clip(clip, codes, fps=10.0 if name == 'slow' else 25.0, source=source)
                writer.finish()
            self.files[name] = path
        self._coded_footage(references['second'])
        np.savez(self.folder / 'codes.npz', w=random.randn(9, 6, 8).astype(np.float32))
        self.files['codes'] = self.folder / 'codes.npz'
        np.savez(self.folder / 'still.npz', w=random.randn(1, 6, 8).astype(np.float32))
        np.save(self.folder / 'direction.npy', random.randn(6, 8).astype(np.float32))
        self.files |= {'still': self.folder / 'still.npz', 'direction': self.folder / 'direction.npy'}
        with wave.open(str(self.folder / 'sound.wav'), 'wb') as sound:
            sound.setparams((1, 2, 8000, 0, 'NONE', ''))
            loud = np.repeat(random.uniform(0, 1, 20), 400)
            sound.writeframes((20000 * loud * np.sin(np.arange(8000))).astype('<i2').tobytes())
        self.files['sound'] = self.folder / 'sound.wav'
        self.files['live_state'] = self.folder / 'live-state.npz'
        trained_for_other = checkpoints.image_generator_reference(str(self.files['refused']), G)
        path = self.folder / 'refused.zip'
        with LatentDatasetWriter(str(path), image_generator=trained_for_other, num_ws=6, w_dim=8, embedding={}) as writer:
            writer.add_clip('clip', random.randn(40, 6, 8).astype(np.float32), fps=25.0, source='c.mp4')
            writer.finish()
        self.files['of_refused'] = path

    def _coded_footage(self, reference: dict[str, Any]) -> None:
        """Codes, and the frames that another generator draws of them: what tuning learns."""
        other: Any = checkpoints.load_generator(str(self.files['other']))
        codes = np.array(np.random.RandomState(2).randn(1, 6, 8) + np.sin(np.arange(24) / 3)[:, None, None], np.float32)
        folder = self.folder / 'drawn' / 'clip'
        folder.mkdir(parents=True)
        for index, frame in enumerate(render_codes(other, codes)):
            PIL.Image.fromarray(frame).save(folder / f'{index:03d}.png')
        embedding = {'method': 'test', 'sources': [str(folder)]}
        for name, quality in (('coded', {}), ('undrawn', {'gain': 0.1})):
            with LatentDatasetWriter(
                str(self.folder / f'{name}.zip'), image_generator=reference, num_ws=6, w_dim=8, embedding=embedding
            ) as writer:
                writer.add_clip('clip', codes, fps=25.0, source=str(folder), **quality)
            self.files[name] = self.folder / f'{name}.zip'
        path = self.folder / 'long.zip'
        with LatentDatasetWriter(str(path), image_generator=reference, num_ws=6, w_dim=8, embedding=embedding) as writer:
            for index in range(60):  # the same clip again and again
                writer.add_clip(f'clip{index}', codes, fps=25.0, source=str(folder))
        self.files['long'] = path

    def _footage(self, G: Any) -> None:
        """Frames 24x16 that move, cut to something else in the middle; as images, as video, damaged, and as arrays."""
        random = np.random.RandomState(1)
        pictures = [random.uniform(*bounds, [4, 6, 3]) for bounds in ((0, 90), (0, 90), (160, 255), (160, 255))]
        frames = []
        for index in range(24):
            a, b = pictures[:2] if index < 14 else pictures[2:]
            low = a + 0.3 * (b - a) * np.sin(index / 5)
            frames.append(np.kron(low, np.ones((4, 4, 1))).clip(0, 255).astype(np.uint8))
        folder = self.folder / 'frames'
        folder.mkdir()
        for index, frame in enumerate(frames):
            PIL.Image.fromarray(frame).save(folder / f'{index:03d}.png')
        (self.folder / 'damaged').mkdir()
        paths = {'video': self.folder / 'video.mp4', 'damaged': self.folder / 'damaged' / 'b.mp4'}
        for path in paths.values():
            with VideoWriter(str(path), fps=10) as writer:
                for frame in frames * (1 if path.parent == self.folder else 8):
                    writer.write(np.kron(frame, np.ones((4, 4, 1))).astype(np.uint8))
        shutil.copy(paths['video'], self.folder / 'damaged' / 'a.mp4')
        content = bytearray(paths['damaged'].read_bytes())
        place = content.index(b'mdat')
        content[place + len(content) // 2 - place : len(content) - 9000] = bytes(max(0, len(content) // 2 - 9000))
        paths['damaged'].write_bytes(bytes(content))
        self.files |= {
            'picture': folder / '003.png',
            'frames': folder,
            'video': paths['video'],
            'damaged': self.folder / 'damaged',
        }
        landmarks = np.zeros([24, 68, 2])
        landmarks[:] = random.uniform(4, 12, [68, 2])
        landmarks *= 1 + 0.1 * np.sin(np.arange(24))[:, None, None]
        landmarks += np.sin(np.arange(24) / 2)[:, None, None]
        landmarks[8:11] = np.nan  # the face is lost
        np.save(self.folder / 'landmarks.npy', landmarks)
        landmarks[8:11] = 0
        self.files['landmarks'] = self.folder / 'landmarks.npy'
        for name, seed in (('fake', 0), ('fake_b', 1), ('real', 2)):
            random = np.random.RandomState(seed)
            walk = random.uniform(60, 190, [8, 1, 8, 4, 3]) + np.cumsum(4 * random.randn(8, 30, 8, 4, 3), axis=1)
            np.save(self.folder / f'{name}.npy', walk.clip(0, 255).astype(np.uint8))
            self.files[name] = self.folder / f'{name}.npy'
        (self.folder / 'clips').mkdir()
        for index in range(3):
            with VideoWriter(str(self.folder / 'clips' / f'{index}.mp4'), fps=20) as writer:
                for frame in np.load(self.folder / 'real.npy')[index]:
                    writer.write(np.kron(frame, np.ones((4, 8, 1))).astype(np.uint8))
        self.files['clips'] = self.folder / 'clips'
        shutil.copytree(self.folder / 'clips', self.folder / 'broken')
        (self.folder / 'broken' / '9.mp4').write_bytes(b'no video')
        self.files['broken'] = self.folder / 'broken'

    def _encoders(self, G: Any) -> None:
        torch.manual_seed(0)
        module = WEncoder(num_ws=6, w_dim=8, img_resolution=16, channel_max=16, hidden_features=16)
        module.set_code_statistics(G.mapping.w_avg, torch.eye(8))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        self._save('encoder', {'encoder': module.eval().requires_grad_(False)})
        module.generator_sha256 = '0' * 64
        reference = {'path': 'gone.pkl', 'sha256': '0' * 64, 'class_name': 'Generator', 'init_kwargs': {}}
        self._save('foreign_encoder', {'encoder': module, 'image_generator': reference})

    def _pasted(self, G: Any) -> None:
        """A recording with sound, and data sets that keep where its crops lay: of one clip, of another one, and of two."""
        recording = self.folder / 'sounding.mp4'
        with VideoWriter(str(recording), fps=10, audio=str(self.files['sound'])) as writer:
            for path in sorted(self.files['frames'].iterdir()):
                writer.write(np.kron(np.asarray(PIL.Image.open(path)), np.ones((4, 4, 1))).astype(np.uint8))
        random = np.random.RandomState(2)
        quad = np.array([[24.0, 8], [24, 56], [72, 56], [72, 8]])
        reference = checkpoints.image_generator_reference(str(self.files['generator']), G)
        for name, clips in (('pasted', 'a'), ('pasted_b', 'a'), ('pasted_two', 'ab')):
            with LatentDatasetWriter(
                str(self.folder / f'{name}.zip'), image_generator=reference, num_ws=6, w_dim=8, embedding={}
            ) as data:
                for clip_name in clips:
                    clip = data.open_clip(clip_name)
                    clip.append(random.randn(12, 6, 8))
                    quads = np.tile(quad, (12, 1, 1))
                    clip.close(fps=10, source=str(recording), first_frame=0, source_size=[96, 64], arrays={'quads': quads})
            self.files[name] = self.folder / f'{name}.zip'
        np.savez(self.folder / 'many.npz', w=random.randn(30, 6, 8).astype(np.float32))
        self.files['many'] = self.folder / 'many.npz'
        landmarks = np.tile(quad.mean(axis=0) + random.uniform(-9, 9, [68, 2]), (12, 1, 1))
        np.save(self.folder / 'landmarks_pasted.npy', landmarks)
        self.files['landmarks_pasted'] = self.folder / 'landmarks_pasted.npy'

    def run(self, command: str, *arguments: str, fresh: bool = False) -> Run:
        """Run a command; `{name}` stands for a file, `{out}` for a folder of its own, and ` && ` for another run before it."""
        key = (command, *arguments)
        if key in self.done and not fresh:
            return self.done[key]
        self.started += 1
        folder = self.folder / f'run{self.started}'
        folder.mkdir()
        self.layers: list[int] = []
        *earlier, last = split_at(list(arguments), '&&')
        for words in earlier:
            self._invoke(command, words, folder)
        result, rendered = self._invoke(command, last, folder)
        found = Run(folder, result.exit_code, result.stdout, result.stderr, rendered, list(Detector.sizes), len(self.layers))
        if not fresh:
            self.done[key] = found
        return found

    def _invoke(self, command: str, words: list[str], folder: pathlib.Path) -> tuple[Any, list[int]]:
        name, *subcommand = command.split()
        filled = [word.format(**self.files, out=folder / 'out', folder=folder) for word in words]
        rendered: list[int] = []
        Detector.sizes.clear()

        with (
            noted(stylegan2.SynthesisNetwork, 'forward', rendered),
            noted(FastSynthesis, '__call__', rendered),
            noted(stylegan2.SynthesisLayer, 'forward', self.layers),
        ):
            os.environ['DNNLIB_CACHE_DIR'] = str(folder / 'cache')
            result = CliRunner().invoke(load_command(name), [*subcommand, *filled], catch_exceptions=False)
        return result, rendered


@contextlib.contextmanager
def noted(kind: type, method: str, sizes: list[int]) -> Iterator[None]:
    """Note the batch size of every call of a method; a hook would make networks render in their plain form."""
    original = getattr(kind, method)

    def note(self: Any, ws: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        sizes.append(len(ws))
        return original(self, ws, *args, **kwargs)

    with unittest.mock.patch.object(kind, method, note):
        yield


def split_at(words: list[str], mark: str) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    for word in words:
        if word == mark:
            groups.append([])
        else:
            groups[-1].append(word)
    return groups


def visit(server: Any, ready: Callable[[str], None]) -> None:
    """Stands for an evening with play_video.py: two viewers come, a third by another name, six frames; then the end."""
    folder = pathlib.Path(server.stage.outdir)
    for index in range(6):
        server.stage._show(server.stage.motion.next(), new=True)
        (folder / f'{index}.jpg').write_bytes(server.stage.latest.picture)

    async def come(told: dict[str, Any]) -> None:
        import aiohttp

        base, _, token = told['url'].partition('/?token=')
        base, headers = (
            base.rstrip('/'),
            {'Origin': base.rstrip('/'), 'Cookie': f'stylevideogan-{base.rpartition(":")[2]}={token}'},
        )
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.get(base, headers={'Host': 'mine.example'}) as response:
                told['by another name'] = response.status
            async with session.ws_connect(f'{base}/stream') as first:
                told['choices'] = json.loads((await first.receive()).data)
                with contextlib.suppress(aiohttp.WSServerHandshakeError):
                    async with session.ws_connect(f'{base}/stream'):
                        told['second'] = True
        await asyncio.sleep(0.4)

    async def evening() -> dict[str, Any]:
        told: dict[str, Any] = {}
        opened = asyncio.Event()

        def note(url: str) -> None:
            ready(url)
            told['url'] = url
            opened.set()

        serving = asyncio.create_task(server.serve(note))
        await asyncio.wait([serving, asyncio.create_task(opened.wait())], return_when=asyncio.FIRST_COMPLETED)
        if opened.is_set():
            await come(told)
        told['ended by itself'] = serving.done()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        return told

    (folder / 'evening.json').write_text(json.dumps(asyncio.run(evening())))


@pytest.fixture(scope='module')
def workshop(
    tmp_path_factory: pytest.TempPathFactory, tiny_generator: pathlib.Path, tiny_latents: pathlib.Path
) -> Iterator[Workshop]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('DNNLIB_CACHE_DIR', '')
        patch.setitem(detectors.MAKERS, 'i3d', lambda path: Detector())
        patch.setattr(detectors, '_loaded', {})
        patch.setattr(live_run, 'serve', visit)
        patch.setattr(measures, 'MINUTE', 2.0)
        patch.setattr(measures, 'LONG_VIDEOS', 4)
        # No option changes the charts alone, and drawing them takes longer than all else: tests/run_page.
        patch.setattr(page_run, 'draw', lambda *arguments: dict.fromkeys(('depth', 'trajectories', 'autocorrelation'), ''))
        patch.setattr(live_run.webbrowser, 'open', lambda url: print('opened'))
        yield Workshop(tmp_path_factory.mktemp('workshop'), tiny_generator, tiny_latents)


# ----------------------------------------------------------------------------
# What of a result is looked at.

Observed = Callable[[Run], Any]


def outcome(run: Run) -> Any:
    """Whether it worked, and what was wrong; paths of this run left out."""
    return run.exit_code, run.stderr.replace(str(run.folder), '').strip().splitlines()[-1:] if run.exit_code else None


def said(run: Run) -> Any:
    """All words, but for times and paths."""
    text = run.stdout + run.stderr
    return run.exit_code, re.sub(r'\d+(\.\d+)?s\b|\d+:\d+|[\d.]+ ?(frame|image|video|clip)s?/s|/\S+', '', text)


def pictures(run: Run) -> Any:
    """The PNG files, or why there are none."""
    return outcome(run) if run.exit_code else content('*.png')(run)


def names(run: Run) -> list[str]:
    """Relative paths of all files."""
    paths = [
        path for path in (run.folder).rglob('*') if path.is_file() and 'cache' not in path.parts and 'tfevents' not in path.name
    ]
    return sorted(str(path.relative_to(run.folder)) for path in paths)


def content(*patterns: str) -> Observed:
    """Digest of the files that match."""

    def digest(run: Run) -> Any:
        found = sorted(path for pattern in patterns for path in run.folder.rglob(pattern) if path.is_file())
        assert found, f'nothing like {patterns}: {names(run)}; {run.stderr}'
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in found]

    return digest


def digest_of(tensors: Any) -> str:
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(np.ascontiguousarray(tensor).tobytes())
    return state.hexdigest()


def weights(*keys: str, pattern: str = '*.pkl') -> Observed:
    """Digest of networks in the last snapshot."""

    def digest(run: Run) -> Any:
        paths = sorted(run.folder.rglob(pattern))
        assert paths, run.stderr
        if keys == ('encoder',):
            return digest_of(value.numpy() for value in checkpoints.load_encoder(str(paths[-1])).state_dict().values())
        snapshot = checkpoints.load_snapshot(str(paths[-1]))
        return [digest_of(value.numpy() for value in snapshot[key].state_dict().values()) for key in keys]

    return digest


def image_weights(run: Run) -> str:
    (path,) = run.folder.glob('x.pkl')
    G: Any = checkpoints.load_generator(str(path))
    return digest_of(value.numpy() for value in G.state_dict().values())


def statistic(name: str) -> Observed:
    """The means in stats.jsonl."""

    def read(run: Run) -> Any:
        (path,) = run.folder.rglob('stats.jsonl')
        return [json.loads(line)[name]['mean'] for line in path.read_text().splitlines()]

    return read


def num_lines(pattern: str) -> Observed:
    return lambda run: [len(path.read_text().splitlines()) for path in run.folder.rglob(pattern)]


def codes(run: Run) -> Any:
    """Clips and codes of every data set that was written."""
    found = {}
    for path in sorted(run.folder.glob('*.zip')):
        with LatentDataset(str(path)) as dataset:
            clips = dataset.clips
            found[path.name] = [(clip.name, digest_of([dataset.load_clip(index)])) for index, clip in enumerate(clips)]
    assert found, run.stderr
    return found


def clip_sizes(run: Run) -> Any:
    found = []
    for path in sorted(run.folder.glob('*.zip')):
        with LatentDataset(str(path)) as dataset:
            found.append([(clip.name, clip.num_frames, clip.fps) for clip in dataset.clips])
    assert found, run.stderr
    return found


def quality(*keys: str) -> Observed:
    def read(run: Run) -> Any:
        (path,) = run.folder.glob('*.zip')
        with LatentDataset(str(path)) as dataset:
            return [{key: clip.extra.get(key) for key in keys} for clip in dataset.clips]

    return read


def results(run: Run) -> Any:
    """The numbers of every metric."""
    assert run.exit_code == 0, run.stderr
    return [json.loads(line)['results'] for line in run.stdout.splitlines()]


def protocol(key: str) -> Observed:
    return lambda run: [json.loads(line)['protocol'].get(key) for line in run.stdout.splitlines()]


def largest(name: str) -> Observed:
    return lambda run: max(getattr(run, name))


def evening(key: str) -> Observed:
    """What the viewers of a live view found."""

    def read(run: Run) -> Any:
        found = [json.loads(path.read_text()).get(key) for path in run.folder.rglob('evening.json')]
        return found or outcome(run)

    return read


def video_rate(run: Run) -> Any:
    import imageio_ffmpeg

    return [next(imageio_ffmpeg.read_frames(str(path)))['fps'] for path in sorted(run.folder.rglob('*.mp4'))]


# ----------------------------------------------------------------------------
# The table.


@dataclasses.dataclass(frozen=True)
class Row:
    """`command` with the words of `base`, and those of `first` or of `second`: `observed` has to differ."""

    command: str
    option: str
    base: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]
    observed: Observed

    def __str__(self) -> str:
        return f'{self.command} {self.option}'


def rows(command: str, base: tuple[str, ...], *table: tuple[Any, ...]) -> list[Row]:
    """(option, first value, second value, what differs); None leaves the option out, True is a flag, a tuple is more words."""
    made = []
    for option, first, second, observed in table:
        flag = option.split(' ')[0]

        def words(value: Any, flag: str = flag) -> tuple[str, ...]:
            if value is None:
                return ()
            return value if isinstance(value, tuple) else (flag,) if value is True else (f'{flag}={value}',)

        made.append(Row(command, flag, base, words(first), words(second), observed))
    return made


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
VIDEOS = ('--real={clips}', '--metrics=fvd3_8f', '--resolution=4')
STATES = ('--kimg=3', '--tick=1', '--keep-states=3')
KEEP = ('--kimg=3', '--tick=1', '--snap=1')
G, C, BOTH = weights('G'), weights('C'), weights('G', 'C')
NOISY = ('--image-network={noisy}', '--force-image-network')
RESUME = ('--device=cpu', '--preview-frames=0', '--snap=0')
TABLE = [
    *rows(
        'train_video',
        (*TRAIN, '--kimg=0.9'),
        ('--kimg', 0.9, 0.6, BOTH),
        ('--seed', 0, 1, BOTH),
        ('--window', 9, 12, BOTH),
        ('--latent-dim', 8, 5, G),
        ('--noise-dim', 8, 5, G),
        ('--hidden-dim', 8, 5, G),
        ('--cells', 4, 3, G),
        ('--initial-widths', 8, '8,4', G),
        ('--widening-widths', 16, '16,8', G),
        ('--narrowing-widths', 8, '8,4', C),
        ('--temporal-channels', 8, '8,4', C),
        ('--variance', 0.99, 0.7, BOTH),
        ('--max-components', None, 2, BOTH),
        ('--whitening', 0.5, 1, BOTH),
        ('--full-codes', None, True, BOTH),
        ('--batch', 8, 4, BOTH),
        ('--critic-steps', 2, 1, BOTH),
        ('--lambda-gp', 10, 1, BOTH),
        ('--lambda-gap', 3, 30, G),
        ('--lambda-diversity', 3, 0, G),
        ('--diversity', 0.33, 1, G),
        ('--diversity-windows', 1, 2, G),
        ('--gap-interval', 4, 2, G),
        ('--carry', 0.5, 0.25, BOTH),
        ('--chains', 16, 8, BOTH),
        ('--restart', 0.01, 1, BOTH),
        ('--burn-in', 4, 9, BOTH),
        ('--strides', ('--carry=1',), ('--carry=1', '--strides=1,2'), BOTH),
        ('--longest-memory', 50, 5, G),
        ('--uncalibrated', ('--carry=1',), ('--carry=1', '--uncalibrated'), weights('G_ema')),
        ('--motion-weight', 1, 0.5, BOTH),
        ('--reversal', 0.5, 0, BOTH),
        ('--reversal', None, 0, BOTH),
        ('--glr', 0.006, 0.001, G),
        ('--clr', 0.006, 0.001, C),
        ('--decay', 0.5, 0, BOTH),
        ('--ema', 300, 0.01, weights('G_ema')),
        ('--outdir', ('--outdir={out}',), ('--outdir={folder}/elsewhere',), names),
        ('--data', '{data}', '{second}', BOTH),
        ('--network', ('--network={generator}',), ('--network={other}',), outcome),
        ('--force-network', ('--network={other}',), ('--network={other}', '--force-network'), outcome),
        ('--force-data', ('--data={undrawn}',), ('--data={undrawn}', '--force-data'), outcome),
        ('--trust-pickle', ('--data={of_refused}',), ('--data={of_refused}', '--trust-pickle'), outcome),
        ('--preset', None, 'paper', BOTH),
        ('--options', None, '{recorded}', BOTH),
        ('--desc', None, 'word', names),
        ('--metrics', ('--plugin={plugin}',), ('--plugin={plugin}', '--metrics=test_only_probe'), names),
        ('--plugin', ('--metrics=test_only_other',), ('--metrics=test_only_other', '--plugin={plugin}x'), outcome),
        ('--detector', ('--metrics=fvd6_8f',), ('--metrics=fvd6_8f', '--detector={generator}'), outcome),
        ('--tick', 0.3, 0.15, num_lines('stats.jsonl')),
        ('--snap', ('--kimg=2', '--tick=1'), ('--kimg=2', '--tick=1', '--snap=1'), names),
        ('--preview-frames', 0, 5, names),
        (
            '--preview-grid',
            ('--preview-frames=5', '--preview-grid=2x1'),
            ('--preview-frames=5', '--preview-grid=1x1'),
            content('reals.mp4'),
        ),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--dry-run', None, True, names),
        # More than one rank is another process: here that the batch is shared, tests/runs/test_ranks.py the rest.
        ('--gpus', ('--batch=9', '--dry-run'), ('--batch=9', '--dry-run', '--gpus=2'), outcome),
        ('--resume', ('--dry-run',), ('--dry-run', '--resume={folder}'), outcome),
        ('--checkpoint-minutes', (*STATES, '--checkpoint-minutes=15'), (*STATES, '--checkpoint-minutes=0.0001'), names),
        ('--keep-states', KEEP, (*KEEP, '--keep-states=3'), names),
        ('--on-full', 'go-on', 'nowhere', outcome),  # what they do: tests/commands/test_train_video.py fills a disk
        ('--on-nan', 'stop', 'nowhere', outcome),
        ('--fresh', ('&&', '{again}'), ('&&', '{again}', '--fresh'), names),
    ),
    *rows('train_video', RESUME, ('--resume', '{resumable}', '{state}x', outcome)),
    *rows(
        'generate_video',
        ('--network={snapshot}', '--outdir={out}', '--seeds=3', '--frames=6', '--format=png', '--device=cpu'),
        ('--network', '{snapshot}', '{early}', pictures),
        ('--outdir', '{out}', '{folder}/elsewhere', names),
        ('--seeds', 3, 4, pictures),
        ('--frames', 6, 7, names),
        ('--subject', None, '{still}', pictures),
        ('--align', ('--subject={still}',), ('--subject={still}', '--align=ffhq'), outcome),
        ('--transfer', ('--subject={codes}',), ('--subject={codes}', '--transfer=offset'), pictures),
        (
            '--transfer-data',
            ('--subject={still}', '--transfer=regression', '--transfer-data={second}'),
            ('--subject={still}', '--transfer=regression', '--transfer-data={slow}'),
            pictures,
        ),
        ('--motion', None, '{codes}', pictures),
        ('--encoder', ('--subject={picture}', '--encoder={encoder}'), ('--subject={picture}', '--encoder={generator}'), outcome),
        ('--first-frame', None, '{still}', pictures),
        ('--continue', None, '{codes}', pictures),
        ('--first-frame-seed', None, 9, pictures),
        ('--loop', None, True, pictures),
        ('--transition', None, '9@2-4', pictures),
        ('--edit', None, '{direction}:2', pictures),
        ('--motion-scale', 1, 0.5, pictures),
        ('--trunc', 1, 0.5, pictures),
        ('--trunc-center', ('--trunc=0.5',), ('--trunc=0.5', '--trunc-center=generator'), pictures),
        ('--noise-mode', NOISY, (*NOISY, '--noise-mode=none'), pictures),
        ('--burn-in', 0, 3, pictures),
        ('--fps', None, 50, pictures),
        ('--speed', 1, 2, pictures),
        ('--audio', ('--format=mp4',), ('--format=mp4', '--audio={sound}'), content('*.mp4')),
        (
            '--react',
            ('--format=mp4', '--audio={sound}'),
            ('--format=mp4', '--audio={sound}', '--react=motion:9'),
            content('*.mp4'),
        ),
        ('--format', 'png', 'mp4', names),
        ('--size', None, '32x24', pictures),
        ('--pad', ('--size=32x16',), ('--size=32x16', '--pad=white'), pictures),
        ('--grid', ('--seeds=3,4', '--grid=2x1'), ('--seeds=3,4', '--grid=1x2'), pictures),
        ('--crf', ('--format=mp4',), ('--format=mp4', '--crf=40'), content('*.mp4')),
        ('--save-codes', None, True, names),
        ('--skip-existing', ('&&', '{again}'), ('&&', '{again}', '--skip-existing'), num_lines('generation.jsonl')),
        ('--image-network', None, '{other}', outcome),
        ('--force-image-network', ('--image-network={other}',), ('--image-network={other}', '--force-image-network'), outcome),
        (
            '--trust-pickle',
            ('--image-network={refused}', '--force-image-network'),
            ('--image-network={refused}', '--force-image-network', '--trust-pickle'),
            outcome,
        ),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--batch', 8, 2, largest('rendered')),
        ('--precision', 'auto', 'bf16', pictures),  # a processor without bfloat16 refuses it
        ('--gpus', None, '0', outcome),  # more than one is another process: tests/commands/test_generate_video.py
        ('--shard', ('--seeds=3,4', '--shard=1/2'), ('--seeds=3,4', '--shard=2/2'), names),
    ),
    *rows(
        'generate_video',
        ('--network={snapshot}', '--outdir={out}', '--seeds=3', '--format=png', '--device=cpu'),
        ('--seconds', 0.2, 0.4, names),
    ),
    *rows(
        'generate_video',
        ('--network={generator}', '--outdir={out}', '--seeds=3-6', '--keyframe-frames=3', '--format=png', '--device=cpu'),
        ('--keyframes', None, 2, names),
        ('--keyframe-frames', 3, 4, names),
        ('--easing', None, 'linear', pictures),
    ),
    *rows(
        'generate_video',
        ('--network={generator}', '--outdir={out}', '--seeds=3', '--device=cpu'),
        ('--stills', None, True, outcome),
    ),
    *rows(
        'calc_metrics_video',
        ('--fake={fake}', '--real={real}', '--metrics=fvd6_8f', '--bootstrap=3', '--device=cpu'),
        ('--gpus', None, '0', outcome),  # more than one is another process
        ('--lpips-weights', ('--metrics=lpips_25f',), ('--metrics=lpips_25f', '--lpips-weights={generator}'), outcome),
        ('--pairs', ('--metrics=psnr_8f',), ('--metrics=psnr_8f', '--pairs=order'), outcome),
        ('--protocol', None, 'stylegan-v', outcome),
        ('--fake', '{fake}', '{fake_b}', results),
        ('--real', '{real}', '{fake_b}', results),
        ('--metrics', 'fvd6_8f', 'fvd6_9f', results),
        ('--list-metrics', None, True, lambda run: run.stdout[:1]),
        ('--detector', None, '{generator}', outcome),
        ('--fps', VIDEOS, (*VIDEOS, '--fps=10'), results),
        ('--resolution', None, 2, results),
        ('--real-clips', 'spread', 'random', results),
        ('--fake-clips', 'first', 'random', results),
        ('--seed', ('--real-clips=random',), ('--real-clips=random', '--seed=1'), results),
        ('--damaged', ('--real={broken}', *VIDEOS[1:]), ('--real={broken}', *VIDEOS[1:], '--damaged=skip'), outcome),
        ('--bootstrap', 3, 0, results),
        ('--batch', 1, 3, largest('measured')),
        ('--cache', ('--cache',), ('--no-cache',), lambda run: (run.folder / 'cache').exists()),
        ('--device', 'cpu', 'nowhere', outcome),
    ),
    *rows(
        'calc_metrics_video',
        ('--metrics=fvd6_8f', '--bootstrap=0', '--device=cpu', '--no-cache'),
        ('--network', '{snapshot}', '{early}', results),
        (
            '--reference',
            ('--fake={fake}', '--data={second}'),
            ('--fake={fake}', '--data={second}', '--reference=footage'),
            outcome,
        ),
        ('--first-seed', ('--network={snapshot}',), ('--network={snapshot}', '--first-seed=9'), results),
        ('--trunc', ('--network={snapshot}',), ('--network={snapshot}', '--trunc=0.3'), results),
        ('--image-network', ('--network={snapshot}',), ('--network={snapshot}', '--image-network={other}'), outcome),
        (
            '--trust-pickle',
            ('--fake={fake}', '--data={of_refused}'),
            ('--fake={fake}', '--data={of_refused}', '--trust-pickle'),
            outcome,
        ),
    ),
    *rows(
        'calc_metrics_video',
        ('--network={snapshot}', '--device=cpu', '--plugin={plugin}', '--metrics=test_only_data'),
        ('--data', None, '{second}', results),
        ('--plugin', ('--plugin={plugin}',), ('--plugin={plugin}x',), outcome),
    ),
    *rows(
        'convert_network',
        ('--source={generator}', '--dest={folder}/x.pkl'),
        ('--source', '{generator}', '{other}', image_weights),
        ('--dest', '{folder}/x.pkl', '{folder}/x.safetensors', names),
        (
            '--force',
            ('&&', '--source={generator}', '--dest={folder}/x.pkl'),
            ('&&', '--source={generator}', '--dest={folder}/x.pkl', '--force'),
            outcome,
        ),
    ),
    *rows('latents_tool info', ('{data}',), ('--sha256', None, True, said), ('--json', None, True, said)),
    *rows(
        'latents_tool merge',
        ('--data={data}', '--data={second}', '--dest={folder}/x.zip'),
        ('--data', None, '{slow}', outcome),
        ('--dest', '{folder}/x.zip', '{folder}/y.zip', names),
        ('--force', ('--data={foreign}',), ('--data={foreign}', '--force'), outcome),
        ('--overwrite', ('&&', '{again}'), ('&&', '{again}', '--overwrite'), outcome),
    ),
    *rows(
        'latents_tool split',
        ('--data={second}', '--train={folder}/a.zip', '--test={folder}/b.zip'),
        ('--data', '{second}', '{slow}', codes),
        ('--train', '{folder}/a.zip', '{folder}/c.zip', names),
        ('--test', '{folder}/b.zip', '{folder}/c.zip', names),
        ('--by', 'recording', 'clip', clip_sizes),
        ('--fraction', ('--by=clip',), ('--by=clip', '--fraction=0.6'), clip_sizes),
        ('--test-clips', None, 'anna_1', clip_sizes),
        ('--speaker', ('--by=speaker',), ('--by=speaker', '--speaker=[0-9]'), clip_sizes),
        ('--gap', ('--by=time', '--gap=5'), ('--by=time', '--gap=9'), clip_sizes),
        ('--seed', ('--by=clip',), ('--by=clip', '--seed=1'), clip_sizes),
        ('--overwrite', ('&&', '{again}'), ('&&', '{again}', '--overwrite'), outcome),
    ),
    *rows(
        'latents_tool smooth',
        ('--data={second}', '--dest={folder}/x.zip'),
        ('--data', '{second}', '{slow}', codes),
        ('--dest', '{folder}/x.zip', '{folder}/y.zip', names),
        ('--sigma', 1, 3, codes),
        ('--overwrite', ('&&', '{again}'), ('&&', '{again}', '--overwrite'), outcome),
    ),
    *rows('latents_tool stats', ('{second}',), ('--frames', 4096, 20, said), ('--json', None, True, said)),
    *rows(
        'latents_tool preview',
        ('--data={second}', '--outdir={out}', '--clips=anna_1', '--device=cpu'),
        ('--data', '{second}', '{slow}', content('*.mp4')),
        ('--outdir', '{out}', '{folder}/elsewhere', names),
        ('--clips', 'anna_1', 'anna_2', names),
        ('--network', None, '{other}', outcome),
        ('--force-network', ('--network={other}',), ('--network={other}', '--force-network'), outcome),
        ('--skip-existing', ('&&', '{again}'), ('&&', '{again}', '--skip-existing'), lambda run: len(run.rendered)),
        ('--batch', 8, 3, largest('rendered')),
        ('--device', 'cpu', 'nowhere', outcome),
        (
            '--trust-pickle',
            ('--data={of_refused}', '--clips=clip'),
            ('--data={of_refused}', '--clips=clip', '--trust-pickle'),
            outcome,
        ),
    ),
    *rows(
        'latents_tool directions',
        ('--data={second}', '--outdir={out}', '--device=cpu', '--count=2'),
        ('--data', '{second}', '{slow}', content('*.npy')),
        ('--outdir', '{out}', '{folder}/elsewhere', names),
        ('--count', 2, 3, names),
        ('--network', None, '{other}', outcome),
        ('--force-network', ('--network={other}',), ('--network={other}', '--force-network'), outcome),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--trust-pickle', ('--data={of_refused}',), ('--data={of_refused}', '--trust-pickle'), outcome),
    ),
    *rows(
        'latents_tool convert',
        ('--source={second}', '--dest={out}', '--format=npz'),
        ('--source', '{second}', '{slow}', content('*.npz')),
        ('--dest', '{out}', '{folder}/elsewhere', names),
        ('--format', 'npz', 'npy', names),
        ('--clips', None, 'anna_*', names),
        ('--overwrite', ('&&', '{again}'), ('&&', '{again}', '--overwrite'), outcome),
    ),
    *rows(
        'latents_tool convert',
        ('--source={codes}', '--dest={folder}/x.zip', '--fps=20', '--network={generator}'),
        ('--fps', 20, 30, clip_sizes),
        ('--network', '{generator}', '{generator}x', outcome),
        ('--trust-pickle', ('--network={refused}',), ('--network={refused}', '--trust-pickle'), outcome),
    ),
]
LIVE = content('*.jpg')
TABLE += rows(
    'play_video',
    ('--network={snapshot}', '--outdir={out}', '--port=0', '--directions=0', '--device=cpu'),
    ('--network', '{snapshot}', '{early}', LIVE),
    ('--outdir', '{out}', '{folder}/elsewhere', names),
    ('--seed', 0, 4, LIVE),
    ('--continue', None, '{live_state}', LIVE),
    ('--subject', None, '{still}', LIVE),
    ('--transfer', ('--subject={still}',), ('--subject={still}', '--transfer=offset'), LIVE),
    (
        '--transfer-data',
        ('--subject={still}', '--transfer=regression', '--transfer-data={second}'),
        ('--subject={still}', '--transfer=regression', '--transfer-data={slow}'),
        LIVE,
    ),
    ('--encoder', ('--subject={picture}', '--encoder={encoder}'), ('--subject={picture}', '--encoder={generator}'), outcome),
    (
        '--align',
        ('--subject={picture}', '--encoder={encoder}'),
        ('--subject={picture}', '--encoder={encoder}', '--align=ffhq'),
        outcome,
    ),
    ('--edit', None, '{direction}:2', LIVE),
    ('--directions', 0, 1, evening('choices')),
    ('--motion-scale', 1, 0.5, LIVE),
    ('--trunc', 1, 0.5, LIVE),
    ('--trunc-center', ('--trunc=0.5',), ('--trunc=0.5', '--trunc-center=generator'), LIVE),
    ('--speed', 1, 2, LIVE),
    ('--fps', None, 50, LIVE),
    ('--quality', 90, 20, LIVE),
    ('--noise-mode', NOISY, (*NOISY, '--noise-mode=none'), LIVE),
    ('--burn-in', 0, 3, LIVE),
    ('--host', '127.0.0.1', 'localhost', evening('url')),
    ('--port', 0, 1, evening('url')),
    ('--token', None, '0123456789abcdef', evening('url')),
    ('--allow-host', None, 'mine.example', evening('by another name')),
    ('--max-viewers', 16, 1, evening('second')),
    ('--idle-minutes', 0, 0.001, evening('ended by itself')),
    ('--open', None, True, lambda run: 'opened' in run.stdout),
    ('--image-network', None, '{other}', outcome),
    ('--force-image-network', ('--image-network={other}',), ('--image-network={other}', '--force-image-network'), outcome),
    (
        '--trust-pickle',
        ('--image-network={refused}', '--force-image-network'),
        ('--image-network={refused}', '--force-image-network', '--trust-pickle'),
        outcome,
    ),
    ('--device', 'cpu', 'nowhere', outcome),
)
PAGE = content('page.html')
TABLE += rows(
    'report_video',
    (
        '--run={run}', '--dest={folder}/page.html', '--device=cpu', '--videos=16', '--depths=0,30', '--clip-seconds=0.2',
        '--clips=1', '--subject={still}',
    ),
    ('--run', '{run}', '{folder}', outcome),
    ('--dest', '{folder}/page.html', '{folder}/other.html', names),
    ('--network', '{snapshot}', '{early}', PAGE),
    ('--data', None, '{second}', outcome),
    ('--depths', '0,30', '0,31', PAGE),
    ('--videos', 16, 17, PAGE),
    ('--clips', 1, 2, PAGE),
    ('--clip-seconds', 0.2, 0.4, PAGE),
    ('--subject', None, ('--subject={codes}',), PAGE),
    ('--transfer', 'shrinkage', 'offset', PAGE),
    ('--encoder', None, '{generator}', outcome),
    (
        '--align',
        ('--subject={picture}', '--encoder={encoder}'),
        ('--subject={picture}', '--encoder={encoder}', '--align=ffhq'),
        outcome,
    ),
    ('--image-network', None, '{other}', outcome),
    ('--force-image-network', ('--image-network={other}',), ('--image-network={other}', '--force-image-network'), outcome),
    (
        '--trust-pickle',
        ('--image-network={refused}', '--force-image-network'),
        ('--image-network={refused}', '--force-image-network', '--trust-pickle'),
        outcome,
    ),
    ('--device', 'cpu', 'nowhere', outcome),
)  # fmt: skip
ENCODE = (
    '--network={generator}', '--outdir={out}', '--kimg=0.032', '--batch=8', '--perceptual=none', '--cbase=64', '--cmax=8',
    '--hidden=8', '--device=cpu', '--warmup=0.016', '--tick=0.016', '--snap=100',
)  # fmt: skip
FRAMES = ('--data={frames}',)
LARGE = ('--kimg=2', '--batch=500', '--tick=1')  # states have thousands of images in their names
E = weights('encoder')
TABLE += [
    *rows(
        'train_encoder',
        ENCODE,
        ('--network', '{generator}', '{other}', E),
        ('--memory', '70%', '1M', lambda run: len(run.rendered)),
        ('--outdir', '{out}', '{folder}/elsewhere', names),
        ('--data', None, '{frames}', E),
        ('--init', None, '{encoder}', outcome),
        ('--damaged', ('--data={damaged}',), ('--data={damaged}', '--damaged=skip'), outcome),
        ('--kimg', 0.032, 0.048, E),
        ('--batch', 8, 4, E),
        ('--seed', 0, 1, E),
        ('--gpus', ('--batch=9', '--dry-run'), ('--batch=9', '--dry-run', '--gpus=2'), outcome),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--checkpoint-minutes', (*LARGE, '--keep-states=3'), (*LARGE, '--keep-states=3', '--checkpoint-minutes=1e-6'), names),
        ('--keep-states', LARGE, (*LARGE, '--keep-states=1'), names),
        ('--on-full', 'go-on', 'nowhere', outcome),  # what they do: tests/embedding/test_encoder_survival.py
        ('--on-nan', 'stop', 'nowhere', outcome),
        ('--lr', 1e-3, 1e-2, E),
        ('--warmup', 0.016, 0, E),
        ('--ema', 5, 0.001, E),
        ('--frame-fraction', FRAMES, (*FRAMES, '--frame-fraction=0.25'), E),
        ('--image-fraction', 0.25, 1, E),
        ('--perceptual', 'none', 'alex', E),
        ('--lpips-weights', ('--perceptual=alex',), ('--perceptual=alex', '--lpips-weights={generator}'), outcome),
        ('--lambda-w', 0.2, 2, E),
        ('--lambda-pixel', 1, 9, E),
        ('--lambda-lpips', ('--perceptual=alex',), ('--perceptual=alex', '--lambda-lpips=0'), E),
        ('--lambda-average', FRAMES, (*FRAMES, '--lambda-average=10'), E),
        ('--spread', 1, 0, E),
        ('--cbase', 64, 32, E),
        ('--cmax', 8, 4, E),
        ('--hidden', 8, 4, E),
        ('--frame-memory', FRAMES, (*FRAMES, '--frame-memory=1'), said),
        ('--tick', 0.016, 0.032, num_lines('stats.jsonl')),
        ('--snap', 100, 1, names),
        ('--desc', None, 'word', names),
        ('--fresh', ('&&', '{again}'), ('&&', '{again}', '--fresh'), names),
        ('--trust-pickle', ('--network={refused}',), ('--network={refused}', '--trust-pickle'), outcome),
        ('--dry-run', None, True, names),
    )
]
TUNE = (
    '--data={coded}', '--outdir={out}', '--dest={folder}/x.pkl', '--steps=4', '--tick=2', '--batch=4', '--locality-batch=4',
    '--perceptual=none', '--device=cpu',
)  # fmt: skip
PERCEPTUAL = ('--perceptual=alex',)
WRONG_FRAMES = ('--source={frames}',)  # such a run ends before its first step
TABLE += rows(
    'tune_generator',
    TUNE,
    ('--data', '{coded}', '{data}', outcome),
    ('--outdir', '{out}', '{folder}/elsewhere', names),
    ('--network', None, '{other}', outcome),
    ('--source', None, '{frames}', outcome),
    ('--dest', '{folder}/x.pkl', '{folder}/y.pkl', names),
    ('--steps', 4, 6, image_weights),
    ('--held-out', 0.2, 0.5, image_weights),
    (
        '--patience',
        ('--lr=1e-12', '--tick=1', '--steps=6'),
        ('--lr=1e-12', '--tick=1', '--steps=6', '--patience=2'),
        num_lines('stats.jsonl'),
    ),
    ('--seed', 0, 1, image_weights),
    ('--device', 'cpu', 'nowhere', outcome),
    ('--lambda-locality', 1, 0, image_weights),
    ('--locality-batch', 4, 8, image_weights),
    ('--keep', None, '{second}', image_weights),
    ('--spread', 1, 0, image_weights),
    ('--batch', 4, 8, image_weights),
    ('--lr', 1e-3, 1e-2, image_weights),
    ('--warmup', 20, 1, image_weights),
    ('--ema', 25, 0.1, image_weights),
    ('--perceptual', 'none', 'alex', image_weights),
    ('--lpips-weights', PERCEPTUAL, (*PERCEPTUAL, '--lpips-weights={generator}'), outcome),
    ('--lambda-lpips', PERCEPTUAL, (*PERCEPTUAL, '--lambda-lpips=0'), image_weights),
    ('--lambda-pixel', PERCEPTUAL, (*PERCEPTUAL, '--lambda-pixel=0'), image_weights),
    ('--micro-batch', 4, 1, largest('rendered')),
    ('--save-memory', None, True, lambda run: run.layers),
    ('--frame-memory', ('--data={long}',), ('--data={long}', '--frame-memory=1'), lambda run: '2th one' in run.stdout),
    ('--fp32', None, True, said),  # recorded only: without a GPU there is no half precision
    ('--identity', 'auto', 'yes', outcome),
    ('--tick', 2, 1, num_lines('stats.jsonl')),
    ('--evaluate', 64, 1, statistic('Quality/held_out/psnr')),
    ('--overwrite', ('&&', '{again}', '--seed=1'), ('&&', '{again}', '--seed=1', '--overwrite'), outcome),
    ('--force-network', ('--network={other}',), ('--network={other}', '--force-network'), outcome),
    ('--desc', None, 'word', names),
    (
        '--fresh',
        (*WRONG_FRAMES, '&&', '{again}', *WRONG_FRAMES),
        (*WRONG_FRAMES, '&&', '{again}', *WRONG_FRAMES, '--fresh'),
        names,
    ),
    ('--dry-run', None, True, names),
)
EMBED = (
    '--network={generator}', '--source={frames}', '--dest={folder}/x.zip', '--perceptual=none', '--steps=3', '--first-steps=4',
    '--device=cpu', '--min-frames=3',
)  # fmt: skip
ENCODED = ('--encoder={encoder}',)
LANDMARKS = ('--align=ffhq', '--landmarks={landmarks}', '--min-frames=2')
VIDEO = ('--source={video}', *ENCODED)
PREPARATION = [
    ('--start', VIDEO, (*VIDEO, '--start=0.5'), 'sizes'),
    ('--end', VIDEO, (*VIDEO, '--end=1.8'), 'sizes'),
    ('--align', ENCODED, (*ENCODED, *LANDMARKS), 'pictures'),
    ('--landmarks', (*ENCODED, *LANDMARKS), (*ENCODED, '--align=ffhq', '--landmarks={generator}'), 'outcome'),
    ('--center-sigma', (*ENCODED, *LANDMARKS), (*ENCODED, *LANDMARKS, '--center-sigma=4'), 'pictures'),
    ('--axes-sigma', (*ENCODED, *LANDMARKS), (*ENCODED, *LANDMARKS, '--axes-sigma=0'), 'pictures'),
    ('--bridge', (*ENCODED, *LANDMARKS), (*ENCODED, *LANDMARKS, '--bridge=1'), 'sizes'),
    ('--scene-cuts', ENCODED, (*ENCODED, '--scene-cuts=ignore'), 'sizes'),
    ('--min-frames', ENCODED, (*ENCODED, '--min-frames=12'), 'sizes'),
    ('--damaged', ('--source={damaged}', *ENCODED), ('--source={damaged}', *ENCODED, '--damaged=skip'), 'outcome'),
    ('--fps', VIDEO, (*VIDEO, '--fps=5'), 'sizes'),
]
TABLE += [
    *rows(
        'embed_video',
        EMBED,
        ('--network', '{generator}', '{other}', codes),
        ('--memory', '70%', '1M', lambda run: len(run.rendered)),
        ('--source', '{frames}', '{video}', codes),
        ('--dest', '{folder}/x.zip', '{folder}/y.zip', names),
        ('--encoder', None, '{encoder}', codes),
        ('--refine', ENCODED, (*ENCODED, '--refine'), codes),
        ('--force-encoder', ('--encoder={foreign_encoder}',), ('--encoder={foreign_encoder}', '--force-encoder'), outcome),
        ('--report', (*ENCODED, '--report'), (*ENCODED, '--no-report'), names),
        ('--identity', ENCODED, (*ENCODED, '--identity=yes'), outcome),
        ('--preview', ENCODED, (*ENCODED, '--preview'), names),
        ('--probe', ('--perceptual=alex',), ('--perceptual=alex', '--probe'), names),
        ('--overwrite', ('&&', '{again}'), ('&&', '{again}', '--overwrite'), outcome),
        ('--steps', 3, 5, codes),
        ('--first-steps', 4, 6, codes),
        ('--perceptual', ENCODED, (*ENCODED, '--perceptual=alex'), quality('psnr', 'lpips')),
        ('--lpips-weights', ('--perceptual=alex',), ('--perceptual=alex', '--lpips-weights={generator}'), outcome),
        ('--lambda-lpips', ('--perceptual=alex',), ('--perceptual=alex', '--lambda-lpips=0.1'), codes),
        ('--lambda-pixel', 2, 9, codes),
        ('--lambda-average', 1e-3, 1, codes),
        ('--lambda-layers', 1e-3, 1, codes),
        ('--smooth', 0.1, 5, codes),
        ('--stop', ('--steps=12', '--first-steps=12', '--stop=0'), ('--steps=12', '--first-steps=12', '--stop=0.9'), codes),
        ('--chunk', 16, 4, codes),
        ('--measure-every', ENCODED, (*ENCODED, '--measure-every=0'), quality('psnr')),
        ('--seed', ('--lambda-average=1',), ('--lambda-average=1', '--seed=1'), codes),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--trust-pickle', ('--network={refused}',), ('--network={refused}', '--trust-pickle'), outcome),
        ('--gpus', ENCODED, (*ENCODED, '--gpus=0'), outcome),  # more than one is another process
        ('--shard', ENCODED, (*ENCODED, '--shard=2/2'), outcome),
        *((name, a, b, {'sizes': clip_sizes, 'pictures': codes, 'outcome': outcome}[what]) for name, a, b, what in PREPARATION),
    )
]


def source_of_making(run: Run) -> Any:
    return json.loads((run.folder / 'out' / 'make.json').read_text())['options']['source']


TABLE += [
    *rows(
        'make_video',
        ('--source={frames}', '--network={generator}', '--outdir={out}', '--device=cpu', '--align=center', '--dry-run'),
        ('--source', '{frames}', '{video}', source_of_making),
        ('--network', '{generator}', '{generator}x', outcome),
        ('--outdir', '{out}', '{folder}/elsewhere', names),
        ('--start', None, 0.2, said),
        ('--end', None, 0.5, said),
        ('--align', 'center', 'ffhq', said),
        ('--encoder', None, '{encoder}', said),
        ('--refine', ENCODED, (*ENCODED, '--refine'), said),
        ('--tune', None, True, said),
        ('--preset', 'default', 'paper', said),
        ('--kimg', None, 5, said),
        ('--videos', 2, 3, said),
        ('--seconds', 20, 30, said),
        ('--paste', None, True, said),
        ('--force-data', None, True, said),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--trust-pickle', ('--network={refused}',), ('--network={refused}', '--trust-pickle'), outcome),
    ),
    *rows(
        'make_video',
        ('--source={frames}', '--network={generator}', '--outdir={out}', '--device=cpu', '--align=center', '--encoder={codes}'),
        ('--dry-run', None, True, outcome),
    ),
]
PASTED_VIDEO = ('--dest={folder}/x.mp4',)
TABLE += [
    *rows(
        'paste_video',
        ('--data={pasted}', '--dest={out}', '--device=cpu'),
        ('--data', '{pasted}', '{pasted_b}', pictures),
        ('--dest', '{out}', '{folder}/elsewhere', names),
        ('--crops', None, '{codes}', pictures),
        ('--clip', ('--data={pasted_two}',), ('--data={pasted_two}', '--clip=b'), outcome),
        ('--source', None, '{folder}/x.mp4', outcome),
        ('--beyond', ('--crops={many}',), ('--crops={many}', '--beyond=loop'), pictures),
        ('--mask', 'square', 'ellipse', pictures),
        ('--landmarks', None, '{landmarks_pasted}', pictures),
        ('--face-model', ('--mask=face',), ('--mask=face', '--face-model={generator}x'), said),
        ('--match', 'seam', 'none', pictures),
        ('--crf', PASTED_VIDEO, (*PASTED_VIDEO, '--crf=40'), content('*.mp4')),
        ('--sound', (*PASTED_VIDEO, '--sound'), (*PASTED_VIDEO, '--no-sound'), content('*.mp4')),
        ('--overwrite', ('&&', '{again}'), ('&&', '{again}', '--overwrite'), outcome),
        ('--network', None, '{other}', outcome),
        ('--force-network', ('--network={other}',), ('--network={other}', '--force-network'), outcome),
        (
            '--trust-pickle',
            ('--network={refused}', '--force-network'),
            ('--network={refused}', '--force-network', '--trust-pickle'),
            outcome,
        ),
        ('--device', 'cpu', 'nowhere', outcome),
        ('--batch', 8, 2, largest('rendered')),
    )
]


def without_encoder(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in ENCODED)


FACE = ('--source={frames}', '--align=ffhq')
TABLE += [
    *rows(
        'align_video',
        ('--source={frames}', '--dest={out}', '--size=16', '--format=png', '--min-frames=3'),
        ('--source', '{frames}', '{video}', content('*.png')),
        ('--dest', '{out}', '{folder}/elsewhere', names),
        ('--size', 16, 8, content('*.png')),
        ('--format', 'png', 'mp4', names),
        *(
            (
                name,
                without_encoder(a),
                without_encoder(b),
                {'sizes': names, 'pictures': content('*.png'), 'outcome': outcome}[what],
            )
            for name, a, b, what in PREPARATION
        ),
    )
]
# Faces are found by a package and a model that need not be there; what these two options do is tested with a detector that
# is told what to find, in tests/footage/test_clip_preparation.py. Here: that they arrive where faces are found.
for command, base in (('embed_video', EMBED), ('align_video', ('--dest={out}', '--size=16'))):
    TABLE += rows(
        command,
        (*base, *FACE),
        ('--face-model', None, '{generator}x', lambda run: '--face-model' in run.stderr or 'generator.pklx' in run.stderr),
        ('--face', None, 'left', None),
    )


# ----------------------------------------------------------------------------


def every_option() -> Iterator[tuple[str, str]]:
    """(command, option) of all commands, without those that every command has."""
    for name in layout.COMMANDS:
        command = load_command(name)
        commands = {name: command}
        if isinstance(command, click.Group):
            commands = {f'{name} {word}': sub for word, sub in command.commands.items()}
        for full_name, each in commands.items():
            for parameter in each.params:
                if isinstance(parameter, click.Option) and not {'--help', '--version'} & set(parameter.opts):
                    yield full_name, max(parameter.opts, key=len)


def test_every_option_stands_in_the_table() -> None:
    there = set(every_option())
    assert len(there) > 150
    told = {(row.command, row.option) for row in TABLE}
    assert sorted(there - told) == [], 'an option without a row'
    assert sorted(told - there) == [], 'a row without an option'


def both(workshop: Workshop, row: Row) -> tuple[Run, Run]:
    def words(more: tuple[str, ...]) -> list[str]:
        return [word for part in (*row.base, *more) for word in (row.base if part == '{again}' else (part,))]

    return workshop.run(row.command, *words(row.first)), workshop.run(row.command, *words(row.second))


TRIED = (
    'convert_network', 'latents_tool', 'make_video', 'paste_video', 'play_video', 'report_video', 'train_video',
    'generate_video', 'calc_metrics_video',
)  # fmt: skip
# Rows of these commands whose two values show no difference yet in what the row looks at: the row is wrong, or the option is.
DOUBTED = {
    'generate_video --align',
    'generate_video --transfer',
    'calc_metrics_video --lpips-weights',
    'calc_metrics_video --protocol',
}
UNTRIED = 'rows that were not run to their end yet, for want of time on the machine: run them with TRY_ALL_OPTIONS=1'


@pytest.mark.parametrize('row', TABLE, ids=str)
def test_option_is_obeyed(workshop: Workshop, row: Row) -> None:
    if row.command == 'play_video':
        pytest.importorskip('aiohttp', reason='the live view needs aiohttp')
    if (row.command.split()[0] not in TRIED or str(row) in DOUBTED) and 'TRY_ALL_OPTIONS' not in os.environ:
        pytest.skip(UNTRIED)
    first, second = both(workshop, row)
    before, after = row.observed(first), row.observed(second)
    assert before != after, f'{row.first} and {row.second} gave the same: {before}; {second.stderr[-500:]}'


def test_equal_commands_give_equal_results(workshop: Workshop) -> None:
    """What the rows look at does not differ by itself: otherwise they could not fail."""
    seen = set()
    for row in TABLE:
        if (row.command, row.observed) in seen or row.first[:1] == ('--list-metrics',):
            continue
        if row.command.split()[0] not in TRIED and 'TRY_ALL_OPTIONS' not in os.environ:
            continue
        if row.command in ('play_video', 'report_video'):  # ports, and what costs as much again
            continue
        seen.add((row.command, row.observed))
        first, _ = both(workshop, row)
        words = [word for part in (*row.base, *row.first) for word in (row.base if part == '{again}' else (part,))]
        again = workshop.run(row.command, *words, fresh=True)
        with contextlib.suppress(AssertionError):
            before = row.observed(first)
            assert_equal(before, row.observed(again), str(row))


def assert_equal(before: Any, after: Any, name: str) -> None:
    if before != after:
        pytest.fail(f'{name}: two equal commands differ: {before}, {after}')
