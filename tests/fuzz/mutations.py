"""Files that were changed at random, read by the commands that read them: one sentence or harmless, quickly.

    python tests/fuzz/mutations.py                              # 2,000 of each kind, by the functions that read them
    python tests/fuzz/mutations.py --commands                   # By whole commands, which takes five times as long.
    python tests/fuzz/mutations.py --kind=snapshot --seed=7 --mutations=100

Prints for every kind how many files were refused and how many were harmless, the longest sentence and the longest time, and the
seed and the cause of every find. The test suite does the same with a few of each kind, by commands, and with 2,000 data sets,
training states and options of train_video.py, which cost it little (tests/latents/test_corrupt_datasets.py,
tests/training/test_corrupt_files.py).
"""

from __future__ import annotations

import copy
import io
import json
import pathlib
import pickle
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import click

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'fuzz')]

from small_files import SmallFiles  # noqa: E402 - lies there

LONGEST_SENTENCE, LONGEST_SECONDS = 600, 10.0
STRANGE: list[Any] = [
    None, True, -1, 0, 3, 2**31, 2**63, 10**30, -1.5, 1e308, float('nan'), float('inf'), '', 'x', '\x00', 'a' * 5000,
    '\ud800', '\u202e\x1b[2J', '../../etc/passwd', b'\x00\xff', [], {}, [[]], [None], {'a': {}}, [1, 2, 3], ['x' * 5000], (),
    {1: 2},
]  # fmt: skip

# ----------------------------------------------------------------------------
# Changes.


def change_bytes(draw: random.Random, content: bytes) -> bytes:
    """Flip bits, cut, remove, insert, repeat or swap parts."""
    if draw.random() < 0.15:
        return content[: draw.randrange(len(content))]
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place, other, size = draw.randrange(len(data)), draw.randrange(len(data)), draw.choice((1, 4, 16, 64))
        kind = draw.randrange(7)
        if kind <= 1:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            data[place : place + 4] = struct.pack('<I', draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)))
        elif kind == 3 and len(data) > 200:
            del data[place : place + size]
        elif kind == 4:
            data[place:place] = draw.randbytes(size)
        elif kind == 5:
            data[place:place] = data[other : other + size]
        else:
            data[place : place + size], data[other : other + size] = data[other : other + size], data[place : place + size]
    return bytes(data)


def change_zip(draw: random.Random, content: bytes) -> bytes:
    """Swap, double, remove, or rename members of an archive, or set its flags."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    kind = draw.randrange(4)
    a, b = draw.randrange(len(members)), draw.randrange(len(members))
    if kind == 0:
        members[a], members[b] = (members[a][0], members[b][1]), (members[b][0], members[a][1])
    elif kind == 1:
        members.append((members[a][0], members[b][1]))
    elif kind == 2:
        del members[a]
    else:
        members[a] = (draw.choice(('\x00', 'a' * 5000, '../x', '/etc/passwd', members[b][0], 'x')), members[a][1])
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of double names
        with zipfile.ZipFile(buffer, 'w') as archive:
            for name, member in members:
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), member)
    data = bytearray(buffer.getvalue())
    if draw.random() < 0.3:  # encrypted, other methods
        for mark, offset in ((b'PK\x01\x02', 8), (b'PK\x03\x04', 6)):
            place = data.find(mark)
            flags = struct.pack('<HH', draw.choice((0, 1, 8, 2048, 65535)), draw.choice((0, 8, 12, 14, 99)))
            data[place + offset : place + offset + 4] = flags
    return bytes(data)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a nest of dicts and lists."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in items:
        found += spots(member, (*path, key))
    return found


def change_values(draw: random.Random, content: Any) -> Any:
    """Other values, missing ones, and others of another name, anywhere in a nest of dicts and lists; tensors of other sizes."""
    import torch

    content = copy.deepcopy(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = spots(content)
        if not places:
            return content
        path = draw.choice(places)
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        value, kind = parent[path[-1]], draw.random()
        if isinstance(value, torch.Tensor) and kind < 0.6:
            other = draw.choice((torch.zeros(0), torch.zeros(3, 3), value.double() * float('nan'), value.flatten(), value.long()))
            parent[path[-1]] = other
        elif kind < 0.75:
            parent[path[-1]] = copy.deepcopy(draw.choice(STRANGE))
        elif kind < 0.9 or isinstance(parent, list):
            del parent[path[-1]]
        else:
            parent[draw.choice(('\x00', 'a' * 5000, 'format', 'version'))] = value
    return content


def deep_nests(draw: random.Random) -> bytes:
    """A pickle of lists in each other."""
    depth = draw.choice((10, 1000, 100_000))
    return b'\x80\x04' + b']' * depth + b'a' * (depth - 1) + b'.'


# ----------------------------------------------------------------------------
# Files of each kind: what makes a changed one, and what reads it.


class Refused(Exception):
    """The command said no, in this sentence."""


class Workshop:
    """Small files of every kind, made by the program itself, in a folder; `kinds` reads changed ones."""

    def __init__(self, folder: pathlib.Path, *, by_commands: bool = True) -> None:
        import numpy as np
        import PIL.Image
        import torch

        from networks import checkpoints, stylegan2
        from networks.latent_generator import LatentGenerator
        from networks.temporal_critic import TemporalCritic
        from networks.w_encoder import WEncoder

        self.folder, self.by_commands = folder, by_commands
        torch.manual_seed(0)
        G = stylegan2.Generator(
            z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=3, mapping_kwargs={'num_layers': 1},
            synthesis_kwargs={'channel_base': 16, 'channel_max': 4},
        )  # fmt: skip
        self.generator = folder / 'g.pkl'
        checkpoints.save_module_pickle(self.generator, {'G_ema': G.eval().requires_grad_(False)})
        reference = checkpoints.image_generator_reference(str(self.generator), G)
        latent = LatentGenerator(4, 4, num_components=2, latent_dim=2, noise_dim=2, hidden_dim=2, num_cells=2,
                                 initial_widths=(2,), widening_widths=(2,), burn_in=3)  # fmt: skip
        latent.set_data_basis(torch.randn(16), torch.randn(2, 16))
        critic = TemporalCritic(2, num_frames=8, narrowing_widths=(2,), temporal_channels=(2,))
        data = {'path': 'data.zip', 'sha256': 'a' * 64, 'fps': 25.0, 'num_clips': 1, 'num_frames': 90, 'clips': ['a']}
        self.snapshot = {
            'format': 'stylevideogan-snapshot', 'format_version': 1, 'G': latent, 'G_ema': latent, 'C': critic,
            'image_generator': reference, 'data': data, 'training_options': {'data': 'data.zip', 'settings': {'batch': 8}},
            'progress': {'cur_nimg': 1000, 'cur_tick': 1}, 'versions': {'torch': '2'},
        }  # fmt: skip
        encoder = WEncoder(num_ws=int(G.num_ws), w_dim=4, img_resolution=8, channel_base=16, channel_max=4, hidden_features=4)
        self.encoder = {'encoder': encoder.eval(), 'image_generator': reference, 'version': '1', 'training_options': {'a': [1]},
                        'progress': {'cur_nimg': 5}}  # fmt: skip
        self.frames = folder / 'frames'
        self.frames.mkdir()
        for index in range(3):
            PIL.Image.fromarray(np.full([8, 8, 3], 60 * index, np.uint8)).save(self.frames / f'{index}.png')
        self.path = folder / 'network-snapshot-000001.pkl'
        self._write(self.path, self.snapshot)
        self.whole_snapshot = self.path.read_bytes()
        self._write(folder / 'encoder.pkl', self.encoder)
        self.whole_encoder = (folder / 'encoder.pkl').read_bytes()
        self._prepare_records()
        self._prepare_tuning()
        self._prepare_states(encoder)
        self.kinds: dict[str, Callable[[random.Random], None]] = {
            'snapshot': self.try_snapshot, 'encoder': self.try_encoder, 'generation.jsonl': self.try_records,
            'record of a share': self.try_share,
            'state of an encoder': self.try_encoder_state, 'options of an encoder': self.try_encoder_options,
            'state of a video': self.try_video_state, 'state of a tuning': self.try_tuning_state,
        }  # fmt: skip
        small = SmallFiles(folder / 'small', self.generator, change_bytes, change_zip, change_values)
        self.kinds |= small.kinds

    @staticmethod
    def _write(path: pathlib.Path, content: dict[str, Any]) -> None:
        from networks import checkpoints

        checkpoints.save_module_pickle(path, content)

    @staticmethod
    def run(command: str, *arguments: str) -> None:
        """Run a command of this project in this process.

        Raises:
            Refused: It left with 2.
        """
        from click.testing import CliRunner

        from stylevideogan.__main__ import load_command

        result = CliRunner().invoke(load_command(command), arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code != 0:
            lines = [line for line in result.stderr.splitlines() if line.startswith('Error')]
            assert result.exit_code == 2, f'exit code {result.exit_code}: {result.output[-500:]}'
            assert len(lines) == 1, f'{len(lines)} errors: {result.output[-500:]}'
            raise Refused(lines[0].removeprefix('Error: '))

    def changed_pickle(self, draw: random.Random, whole: bytes, content: dict[str, Any], modules: tuple[str, ...]) -> bytes:
        """A changed file of modules and plain values."""
        kind = draw.random()
        if kind < 0.4:
            return change_bytes(draw, whole)
        if kind < 0.45:
            return deep_nests(draw)
        if kind < 0.75:  # plain values
            plain = {key: value for key, value in content.items() if key not in modules}
            changed = {**{key: content[key] for key in modules}, **change_values(draw, plain)}
        else:  # what a module consists of
            changed = dict(content)
            key = draw.choice(modules)
            changed[key] = copy.deepcopy(content[key])
            parts = [part for part in changed[key].modules() if list(part._parameters) or list(part._buffers)]
            part: Any = draw.choice([changed[key], *parts])
            inside = draw.choice(('_init_kwargs', '_parameters', '_buffers'))
            if isinstance(getattr(part, inside, None), dict):
                import torch

                values = {
                    name: value.detach() if isinstance(value, torch.Tensor) else value
                    for name, value in getattr(part, inside).items()
                }
                part.__dict__[inside] = change_values(draw, values)
            if draw.random() < 0.2:
                changed[key] = content[draw.choice(modules)]
        buffer = io.BytesIO()
        pickle.Pickler(buffer, protocol=4).dump(changed)
        return buffer.getvalue()

    def try_snapshot(self, draw: random.Random) -> None:
        self.path.write_bytes(self.changed_pickle(draw, self.whole_snapshot, self.snapshot, ('G', 'G_ema', 'C')))
        if not self.by_commands:
            from networks import checkpoints
            from training.videos.code_sources import ModelSource

            snapshot = checkpoints.load_snapshot(str(self.path))
            ModelSource(snapshot.G_ema, 0).read(2)
            return
        out = self.folder / 'of-snapshot'
        self.run('generate_video', f'--network={self.path}', f'--image-network={self.generator}', f'--outdir={out}', '--seeds=0',
                 '--frames=2', '--format=png', '--device=cpu')  # fmt: skip

    def try_encoder(self, draw: random.Random) -> None:
        path = self.folder / 'encoder.pkl'
        path.write_bytes(self.changed_pickle(draw, self.whole_encoder, self.encoder, ('encoder',)))
        if not self.by_commands:
            import torch

            from networks import checkpoints

            encoder: Any = checkpoints.load_encoder(str(path))
            encoder(torch.zeros(1, 3, 8, 8))
            assert encoder.generator_sha256 is None or isinstance(encoder.generator_sha256, str)
            return
        self.run('embed_video', f'--network={self.generator}', f'--source={self.frames}', f'--dest={self.folder / "e.zip"}',
                 f'--encoder={path}', '--perceptual=none', '--no-report', '--overwrite', '--min-frames=2',
                 '--device=cpu')  # fmt: skip

    def _prepare_records(self) -> None:
        self.out = self.folder / 'out'
        self.path.write_bytes(self.whole_snapshot)
        self.generate = ('generate_video', f'--network={self.path}', f'--outdir={self.out}', '--device=cpu', '--skip-existing')
        self.run(*self.generate, '--seeds=0', '--frames=2', '--save-codes')
        self.whole_records = (self.out / 'generation.jsonl').read_bytes()
        self.video = (self.out / 'seed0000.mp4').read_bytes()

        self.shares = [self.folder / f'share{number}' for number in (1, 2)]
        self.shared = (self.generate[0], self.generate[1], '--seeds=0-2', '--frames=2', '--device=cpu')
        for number, share in enumerate(self.shares, start=1):
            self.run(*self.shared, f'--outdir={share}', f'--shard={number}/2')
        self.whole_shares = [(share / 'generation.jsonl').read_bytes() for share in self.shares]
        self.shared_video = (self.shares[1] / 'seed0001.mp4').read_bytes()

    def changed_lines(self, draw: random.Random, whole: bytes) -> bytes:
        """A record of generated files, changed."""
        kind = draw.random()
        if kind < 0.4:
            return change_bytes(draw, whole)
        if kind < 0.9:
            lines = whole.splitlines()
            number = draw.randrange(len(lines))
            lines[number] = json.dumps(change_values(draw, json.loads(lines[number])), default=str).encode()
            return b'\n'.join(lines)
        depth = draw.choice((10, 1000, 100_000))
        return b'{"file": ' + b'[' * depth + b']' * depth + b'}'

    def try_share(self, draw: random.Random) -> None:
        """Two shares that are merged, the record of one of which, or its only file, has changed."""
        self.path.write_bytes(self.whole_snapshot)
        for share, whole in zip(self.shares, self.whole_shares, strict=True):
            (share / 'generation.jsonl').write_bytes(whole)
        video = self.shared_video if draw.random() < 0.9 else change_bytes(draw, self.shared_video)
        (self.shares[1] / 'seed0001.mp4').write_bytes(video)
        number = draw.randrange(2)
        (self.shares[number] / 'generation.jsonl').write_bytes(
            self.changed_lines(draw, self.whole_shares[number]) + draw.choice((b'', b'\n'))
        )
        merged = self.folder / 'merged'
        shutil.rmtree(merged, ignore_errors=True)
        self.run(*self.shared, f'--outdir={merged}', *(f'--merge={share}' for share in self.shares))
        assert sorted(path.name for path in merged.glob('*.mp4')) == ['seed0000.mp4', 'seed0001.mp4', 'seed0002.mp4']

    def try_records(self, draw: random.Random) -> None:
        self.path.write_bytes(self.whole_snapshot)
        (self.out / 'seed0000.mp4').write_bytes(self.video)
        content = self.changed_lines(draw, self.whole_records)
        (self.out / 'generation.jsonl').write_bytes(content + draw.choice((b'', b'\n')))
        more = ('--seeds=0', '--frames=2', '--save-codes') if draw.random() < 0.5 else ()
        if not more:
            more = ('--seeds=1', '--frames=1', '--stills', f'--continue={self.out / "seed0000.npz"}')
            more = tuple(word for word in more if word != '--stills')
        self.run(*self.generate, *more)

    def _prepare_states(self, encoder: Any) -> None:
        import torch

        from networks.checkpoints import file_sha256, load_snapshot
        from training.control.saved_state import SavedState, write_state
        from training.embedding import encoder_training
        from training.embedding.encoder_options import EncoderTrainingOptions
        from training.videos.code_sources import ModelSource

        optimizer = torch.optim.Adam(encoder.parameters())
        encoder(torch.zeros(1, 3, 8, 8)).sum().backward()
        optimizer.step()
        self.state_content = {
            'format': encoder_training.STATE_FORMAT, 'format_version': 1, 'encoder': dict(encoder.state_dict()),
            'average': dict(encoder.state_dict()), 'optimizer': optimizer.state_dict(), 'cur_nimg': 5000, 'tick': 1,
            'tick_start_nimg': 4000, 'seconds': 3.0, 'rollbacks': 0, 'number': 1, 'kept': [],
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(self.state_content, buffer)
        self.whole_state = buffer.getvalue()
        options = EncoderTrainingOptions(network=str(self.generator), total_kimg=8.0, perceptual='none')
        self.options = {**options.recorded(), 'run_dir': 'x'}
        self.path.write_bytes(self.whole_snapshot)
        source = ModelSource(load_snapshot(str(self.path))['G_ema'], 9)
        codes = source.read(3).numpy()
        path = self.folder / 'state.npz'
        write_state(str(path), SavedState(file_sha256(str(self.path)), 9, 3, source.state()), codes, 25.0)
        self.whole_video_state = path.read_bytes()

    def try_encoder_state(self, draw: random.Random) -> None:
        """As a training that is resumed reads it."""
        import torch

        from networks.errors import InputError
        from training.embedding import encoder_training
        from training.runs import states

        kind = draw.random()
        if kind < 0.4:
            content = change_bytes(draw, self.whole_state)
        elif kind < 0.6:
            content = change_zip(draw, self.whole_state)
        else:
            buffer = io.BytesIO()
            torch.save(change_values(draw, self.state_content), buffer)
            content = buffer.getvalue()
        name = 'training-state.pt' if draw.random() < 0.2 else 'training-state-000005.pt'
        run = self.folder / 'run'
        run.mkdir(exist_ok=True)
        for old in run.iterdir():
            old.unlink()
        (run / name).write_bytes(content)
        (run / 'training_options.json').write_text(json.dumps(self.options))
        encoder_training.finished_encoder(str(run))
        state = encoder_training.load_training_state(str(run / name))
        encoder = copy.deepcopy(self.encoder['encoder'])
        try:
            encoder.load_state_dict(state['encoder'])
            torch.optim.Adam(encoder.parameters()).load_state_dict(state['optimizer'])
        except states.MISFITS as error:  # as EncoderTraining does
            raise InputError(f'{run / name} belongs to an encoder of another shape, or it is damaged') from error
        float(state['seconds'])

    def try_encoder_options(self, draw: random.Random) -> None:
        from training.embedding import encoder_training

        whole = json.dumps(self.options, indent=2).encode()
        changed = change_values(draw, self.options) if draw.random() < 0.6 else None
        content = change_bytes(draw, whole) if changed is None else json.dumps(changed, default=str).encode()
        (self.folder / 'training_options.json').write_bytes(content)
        encoder_training.read_options(str(self.folder))

    def _prepare_tuning(self) -> None:
        import numpy as np
        import torch

        from networks import checkpoints
        from training.tuning.coded_frames import CodedFrames
        from training.tuning.generator_tuning import GeneratorTuning, TuningOptions
        from training.tuning.run import STATE_FILE, _History

        G: Any = checkpoints.load_generator(str(self.generator))
        codes = np.zeros((4, int(G.num_ws), 4), np.float32)
        frames = CodedFrames(codes, np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int), np.arange(4), 1)
        options = TuningOptions(batch=2, locality_batch=2, lambda_lpips=0)
        self.history = lambda: _History(GeneratorTuning(G, frames, codes[:0], None, options), 8)
        history = self.history()
        history.add(history.work.measure(history.work.average, frames))
        history.work.advance()
        (self.folder / 'tuning').mkdir()
        history.save(str(self.folder / 'tuning'))
        self.tuning = self.folder / 'tuning' / STATE_FILE
        self.whole_tuning = self.tuning.read_bytes()
        self.tuning_content = torch.load(self.tuning, weights_only=True)

    def try_tuning_state(self, draw: random.Random) -> None:
        import torch

        kind = draw.random()
        if kind < 0.6:
            self.tuning.write_bytes((change_bytes if kind < 0.4 else change_zip)(draw, self.whole_tuning))
        else:
            torch.save(change_values(draw, self.tuning_content), self.tuning)
        history = self.history()
        history.load(str(self.tuning.parent))
        history.work.average.synthesis.load_state_dict(history.best)

    def try_video_state(self, draw: random.Random) -> None:
        self.path.write_bytes(self.whole_snapshot)
        path = self.folder / 'state.npz'
        change = change_zip if draw.random() < 0.4 else change_bytes
        path.write_bytes(change(draw, self.whole_video_state))
        if not self.by_commands:
            from networks import checkpoints
            from training.control.saved_state import is_saved_state, read_state, source_of
            from training.latents.code_files import read_codes

            if is_saved_state(str(path)):
                source_of(checkpoints.load_snapshot(str(self.path)).G_ema, read_state(str(path)), str(path)).read(1)
            read_codes(str(path), num_ws=4, w_dim=4)
            return
        self.run('generate_video', f'--network={self.path}', f'--outdir={self.folder / "on"}', '--frames=1', '--device=cpu',
                 f'--continue={path}')  # fmt: skip


class Count:
    """What became of the changed files of one kind."""

    def __init__(self) -> None:
        self.refused, self.harmless, self.longest, self.seconds = 0, 0, 0, 0.0

    def add(self, act: Callable[[random.Random], None], seed: int) -> None:
        """Change and read one file.

        Raises:
            AssertionError: It took too long, or the sentence is too long or not printable.
            Exception: Whatever else the reader raised.
        """
        from networks.errors import InputError, readable

        begin = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                act(random.Random(seed))
            self.harmless += 1
        except (InputError, Refused) as error:
            sentence = readable(str(error)) if isinstance(error, InputError) else str(error)  # as the commands show it
            assert len(sentence) <= LONGEST_SENTENCE, f'{len(sentence)} letters: {sentence[:700]}'
            assert sentence.isprintable(), repr(sentence)
            self.longest = max(self.longest, len(sentence))
            self.refused += 1
        self.seconds = max(self.seconds, time.process_time() - begin)
        assert self.seconds < LONGEST_SECONDS, f'{self.seconds:.1f} seconds'


def finds(workshop: Workshop, kind: str, seeds: Iterator[int] | range, count: Count) -> Iterator[tuple[int, BaseException]]:
    """Seeds whose changed file ended in something else than a sentence, and in what."""
    for seed in seeds:
        try:
            count.add(workshop.kinds[kind], seed)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            yield seed, error


@click.command()
@click.option('--kind', 'kinds', help='Kind of file; may be repeated  [default: all]', multiple=True)
@click.option('--mutations', help='Changed files of each kind', type=click.IntRange(min=1), default=2000, show_default=True)
@click.option('--seed', help='Of the first one', type=int, default=0, show_default=True)
@click.option('--commands', 'by_commands', help='Run whole commands', is_flag=True)
def main(kinds: tuple[str, ...], mutations: int, seed: int, by_commands: bool) -> None:
    """Change files at random and read them."""
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(pathlib.Path(folder), by_commands=by_commands)
        for kind in kinds or workshop.kinds:
            count, before = Count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for at, error in finds(workshop, kind, range(seed, seed + mutations), count):
                found += 1
                trace = traceback.extract_tb(error.__traceback__)
                click.echo(f'{kind}, seed {at}: {type(error).__name__}: {str(error)[:300]}', err=True)
                click.echo(
                    '   ' + ' < '.join(f'{pathlib.Path(f.filename).name}:{f.lineno}' for f in reversed(trace[-6:])), err=True
                )
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            click.echo(
                f'{kind}: {mutations} changed, {count.refused} refused, {count.harmless} harmless; longest sentence '
                f'{count.longest} letters, longest time {count.seconds:.2f} s, memory grown by {grown:.0f} MiB'
            )
    sys.exit(found > 0)


if __name__ == '__main__':
    main()
