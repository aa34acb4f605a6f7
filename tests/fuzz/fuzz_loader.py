"""Coverage-guided fuzzing of the checkpoint readers, and replay of what it found.

    python -m venv fuzzing && fuzzing/bin/pip install atheris -r requirements.txt
    fuzzing/bin/python tests/fuzz/fuzz_loader.py run --seconds=1800 --work=fuzz-work
    fuzzing/bin/python tests/fuzz/fuzz_loader.py keep --work=fuzz-work      # Adds what is new to corpus.zip.
    python tests/fuzz/fuzz_loader.py replay                                 # Without atheris; a test runs this.

Every input goes through load_generator, load_encoder, and load_snapshot. They may return something or raise InputError.
Anything else is a find, as is any event by which Python announces that code runs, a process starts, or a file is written.
"""

import contextlib
import faulthandler  # noqa: F401  # atheris imports it when it is interrupted, which the guard would take for a find.
import hashlib
import io
import os
import pathlib
import pickle
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import click

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORPUS = HERE / 'corpus.zip'
MAX_LENGTH = 1 << 14
WATCHED = ('networks.checkpoints',)

# https://docs.python.org/3/library/audit_events.html. pickle.find_class: Python's own reader was used.
FORBIDDEN_EVENTS = frozenset(
    {
        'compile',
        'ctypes.dlopen',
        'exec',
        'ftplib.connect',
        'import',
        'marshal.loads',
        'os.exec',
        'os.fork',
        'os.forkpty',
        'os.link',
        'os.mkdir',
        'os.posix_spawn',
        'os.putenv',
        'os.remove',
        'os.rename',
        'os.rmdir',
        'os.spawn',
        'os.symlink',
        'os.system',
        'os.truncate',
        'pickle.find_class',
        'pty.spawn',
        'shutil.copyfile',
        'shutil.move',
        'shutil.rmtree',
        'socket.__new__',
        'socket.connect',
        'subprocess.Popen',
        'urllib.Request',
        'webbrowser.open',
        'code.__new__',
    }
)


class Find(BaseException):
    """Code ran. Not an Exception, so that no handler on the way hides it."""


class Guard:
    """Audit hook that is armed only while a reader works."""

    def __init__(self) -> None:
        self.armed = False
        sys.addaudithook(self.check)

    def check(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        writes = event == 'open' and isinstance(args[1], str) and any(letter in args[1] for letter in 'wax+')
        if event in FORBIDDEN_EVENTS or writes:
            self.armed = False
            raise Find(f'{event} {args!r}')

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.armed = True
        try:
            yield
        finally:
            self.armed = False


def make_target() -> Any:
    """The function that takes one input. Imports the readers, so instrumentation has to be in place before."""
    from networks import checkpoints
    from networks.errors import InputError

    guard = Guard()

    def read(data: bytes, watch: bool = True) -> int:
        """How many of the three readers accept the input."""
        accepted = 0
        for load in (checkpoints.load_generator, checkpoints.load_encoder, checkpoints.load_snapshot):
            with guard.watching() if watch else contextlib.nullcontext():
                try:
                    load(io.BytesIO(data))
                    accepted += 1
                except InputError:
                    pass
        return accepted

    for seed in make_seeds().values():  # What Python imports late, it imports now.
        read(seed, watch=False)
    return read


# ----------------------------------------------------------------------------
# Inputs.


def make_seeds() -> dict[str, bytes]:
    """One small file of every kind that can be made here, and the hostile ones."""
    import hostile_files
    import torch

    from networks import latent_generator, stylegan2, stylegan3, temporal_critic, w_encoder
    from networks.checkpoints.formats import safetensors_pair

    torch.manual_seed(0)
    small: dict[str, Any] = {'channel_base': 16, 'channel_max': 2}
    generators = {
        'ada': stylegan2.Generator(2, 0, 2, 8, 1, mapping_kwargs={'num_layers': 1}, synthesis_kwargs=small),
        'resnet': stylegan2.Generator(2, 1, 2, 8, 3, mapping_kwargs={'num_layers': 1}, architecture='resnet', **small),
        'stylegan3': stylegan3.Generator(2, 0, 2, 8, 1, num_layers=3, num_critical=1, margin_size=2, **small),
    }
    snapshot = {
        'format': 'stylevideogan-snapshot',
        'format_version': 1,
        'image_generator': {'path': 'x', 'sha256': 'y'},
        'G': None,
        'C': temporal_critic.TemporalCritic(2, num_frames=8, narrowing_widths=(2,), temporal_channels=(2,)),
        'G_ema': latent_generator.LatentGenerator(
            4, 2, latent_dim=2, noise_dim=2, hidden_dim=2, num_cells=1, initial_widths=(2,), widening_widths=(2,)
        ),
    }
    encoder = {'encoder': w_encoder.WEncoder(4, 2, 16, channel_base=32, hidden_features=2, head_features=2)}

    seeds = {f'hostile {name}': raw for name, raw in hostile_files.programs('canary').items()}
    snapshots = {name: {'G_ema': G} for name, G in generators.items()}
    for name, data in {**snapshots, 'snapshot': snapshot, 'encoder': encoder}.items():
        for protocol in (2, 4):
            seeds[f'{name} {protocol}'] = _without_source_text(data, protocol)
    weights = {
        'g_ema': {
            'style.1.weight': torch.ones(2, 2),
            'conv1.conv.weight': torch.ones(1, 2, 2, 3, 3),
            'to_rgb1.conv.weight': torch.ones(1, 3, 2, 1, 1),
        },
        'latent_avg': torch.zeros(2),
    }
    for newer in (True, False):
        file = io.BytesIO()
        torch.save(weights, file, _use_new_zipfile_serialization=newer)
        seeds[f'rosinality {newer}'] = file.getvalue()
    from safetensors.torch import save as save_safetensors

    state = {name: value.clone() for name, value in generators['ada'].state_dict().items()}
    import json

    seeds['safetensors'] = save_safetensors(state, {'image_generator': json.dumps(safetensors_pair.describe(generators['ada']))})
    return seeds


def _without_source_text(data: Any, protocol: int) -> bytes:
    """A pickle whose persistent objects carry no text: the readers never look at it, and it is most of the bytes."""
    kinds = {
        type(module)
        for value in data.values()
        if hasattr(value, 'modules')
        for module in value.modules()
        if hasattr(type(module), '_orig_module_src')
    }
    texts = {kind: kind._orig_module_src for kind in kinds}
    try:
        for kind in kinds:
            kind._orig_module_src = ''
        return pickle.dumps(data, protocol)
    finally:
        for kind, text in texts.items():
            kind._orig_module_src = text


def read_corpus() -> dict[str, bytes]:
    """What earlier runs found worth keeping."""
    if not CORPUS.exists():
        return {}
    with zipfile.ZipFile(CORPUS) as archive:
        return {name: archive.read(name) for name in sorted(archive.namelist())}


def mutate(choose: random.Random, inputs: list[bytes]) -> bytes:
    """A random change: bytes, a cut, a copy, or a splice of two inputs."""
    data = bytearray(choose.choice(inputs))
    for _ in range(choose.randint(1, 4)):
        at, length = choose.randrange(len(data) + 1), choose.choice([1, 1, 2, 4, 8, 64])
        kind = choose.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([choose.choice([0, 1, 0x28, 0x2E, 0x52, 0x62, 0x7F, 0x80, 0xFF, choose.randrange(256)])])
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length] * choose.choice([1, 2, 50])
        elif kind == 3:
            data[at : at + length] = choose.randbytes(length)
        else:
            other = choose.choice(inputs)
            begin = choose.randrange(len(other) + 1)
            data[at:] = other[begin : begin + MAX_LENGTH]
    return bytes(data[: 4 * MAX_LENGTH])


# ----------------------------------------------------------------------------
# Commands.


@click.group()
def main() -> None:
    """Fuzz the readers of checkpoints."""
    sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'checkpoints')]


@main.command()
@click.option(
    '--mutations', help='Random changes of the inputs to try as well', type=click.IntRange(min=0), default=1500, show_default=True
)
@click.option('--seed', help='Random seed of the changes', type=int, default=0, show_default=True)
def replay(mutations: int, seed: int) -> None:
    """Read the kept corpus, the seeds, and random changes of both."""
    read = make_target()
    inputs = [*make_seeds().values(), *read_corpus().values()]
    choose = random.Random(seed)
    accepted = 0
    for index in range(len(inputs) + mutations):
        data = inputs[index] if index < len(inputs) else mutate(choose, inputs)
        try:
            accepted += read(data)
        except BaseException:
            path = pathlib.Path(f'find-{hashlib.sha256(data).hexdigest()[:12]}')
            path.write_bytes(data)
            click.echo(f'{path} holds the input of this:', err=True)
            raise
    click.echo(f'{len(inputs)} inputs and {mutations} changes read; {accepted} readings accepted, no find')


@main.command()
@click.option('--seconds', help='How long to run', type=click.IntRange(min=1), default=1800, show_default=True)
@click.option('--work', help='Folder of the growing corpus and of finds', metavar='DIR', required=True)
def run(seconds: int, work: str) -> None:
    """Run atheris. Finds are written to the work folder as crash-*, timeout-*, oom-*."""
    import atheris

    folder = pathlib.Path(work).resolve()
    (folder / 'corpus').mkdir(parents=True, exist_ok=True)
    for data in [*make_seeds_apart(), *read_corpus().values()]:
        (folder / 'corpus' / hashlib.sha1(data).hexdigest()).write_bytes(data)
    with atheris.instrument_imports(include=list(WATCHED)):
        read = make_target()
    (folder / 'words').write_text(''.join(f'"{word}"\n' for word in _words()))

    def test_one_input(data: bytes) -> None:
        read(data)

    atheris.Setup(
        [
            sys.argv[0],
            f'-max_total_time={seconds}',
            f'-max_len={MAX_LENGTH}',
            '-timeout=30',
            '-rss_limit_mb=3000',
            f'-dict={folder / "words"}',
            f'-artifact_prefix={folder}/',
            '-print_final_stats=1',
            str(folder / 'corpus'),
        ],
        test_one_input,
        enable_python_coverage=True,
    )
    atheris.Fuzz()


def make_seeds_apart() -> list[bytes]:
    """The seeds, made by another process: here the readers must not be imported before they are instrumented."""
    code = 'import fuzz_loader as f, pickle, sys; sys.stdout.buffer.write(pickle.dumps(list(f.make_seeds().values())))'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(HERE), str(ROOT), str(ROOT / 'tests' / 'checkpoints')])}
    done = subprocess.run([sys.executable, '-c', code], env=environment, stdout=subprocess.PIPE, check=True)
    return pickle.loads(done.stdout)


def _words() -> list[str]:
    """Names that the readers know: nobody finds them by changing bytes."""
    from networks.checkpoints import pickle_names

    words = {part for pair in [*pickle_names.MAKERS, *pickle_names.PLAIN_NAMES] for part in pair}
    words |= {
        'G_ema',
        'G',
        'D',
        'state_dict',
        'g_ema',
        'encoder',
        'format',
        'stylevideogan-snapshot',
        '_parameters',
        '_buffers',
        '_modules',
        '_init_args',
        '_init_kwargs',
        'mapping_kwargs',
        'synthesis_kwargs',
        'variables',
        'static_kwargs',
        'storage',
        'cpu',
        'data.pkl',
        'latin1',
    }
    return sorted(words)


@main.command()
@click.option('--work', help='Folder of a run', metavar='DIR', required=True)
@click.option('--most', help='Inputs to keep at the most', type=click.IntRange(min=1), default=1500, show_default=True)
def keep(work: str, most: int) -> None:
    """Put the smallest inputs of a run, without the seeds, into corpus.zip."""
    known = {hashlib.sha1(data).hexdigest() for data in make_seeds().values()}
    found = {hashlib.sha1(data).hexdigest(): data for data in read_corpus().values()}
    for path in (pathlib.Path(work) / 'corpus').iterdir():
        found[path.name] = path.read_bytes()
    chosen = sorted((name for name in found if name not in known), key=lambda name: (len(found[name]), name))[:most]
    with zipfile.ZipFile(CORPUS, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(chosen):
            archive.writestr(zipfile.ZipInfo(name), found[name], zipfile.ZIP_DEFLATED)
    click.echo(f'{len(chosen)} inputs in {CORPUS}, {CORPUS.stat().st_size} bytes')


if __name__ == '__main__':
    main()
