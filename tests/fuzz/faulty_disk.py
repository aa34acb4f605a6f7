"""A disk that fails at one write: every long command says so in a sentence or goes on, and then comes to the same result.

    python tests/fuzz/faulty_disk.py                             # every write of every command: full, broken, short, read-only
    python tests/fuzz/faulty_disk.py --command=train_video --every=5
    python tests/fuzz/faulty_disk.py --places                    # the first write of every place that writes, with three faults
    python tests/fuzz/faulty_disk.py --places --all-kinds        # the same with every fault

Needs Linux and a C compiler: faulty_disk.c is preloaded into this process, so that writes of torch fail as well as those of
Python. Writes of ffmpeg, another process, are not reached.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import click

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = {
    'full': (errno.ENOSPC, False),
    'broken': (errno.EIO, False),
    'full from then on': (errno.ENOSPC, True),
    'read-only from then on': (errno.EROFS, True),
    'short': (-1, False),
}


LINES = 3  # of this project, from the innermost out, that tell one place from another


def build(folder: str) -> str:
    """Compile the shim."""
    path = os.path.join(folder, 'faulty_disk.so')
    source = pathlib.Path(__file__).with_suffix('.c')
    subprocess.run(['cc', '-shared', '-fPIC', '-O1', '-o', path, str(source), '-ldl'], check=True)
    return path


class Disk:
    """The shim in this process."""

    def __init__(self) -> None:
        self.shim = ctypes.CDLL(os.environ['LD_PRELOAD'])
        self.shim.faulty_disk_count.restype = ctypes.c_long

    def arm(self, folder: pathlib.Path, number: int, kind: str | None = None) -> None:
        """Let the write of this number below the folder fail; -1: only count."""
        error, stays = KINDS[kind] if kind else (0, False)
        self.shim.faulty_disk_arm(os.fsencode(folder), ctypes.c_long(number), error, int(stays))

    def count(self) -> int:
        """Writes since it was armed."""
        return int(self.shim.faulty_disk_count())

    @contextlib.contextmanager
    def places(self) -> Iterator[dict[tuple[Any, ...], list[int]]]:
        """Numbers of the writes in the block, by call, name of the file, and the lines of this project that lead there."""
        found: dict[tuple[Any, ...], list[int]] = {}

        def told(number: int, call: bytes, path: bytes) -> None:
            lines, frame = [], sys._getframe(1)
            while frame is not None:
                if frame.f_code.co_filename.startswith(str(ROOT)) and not os.path.samefile(frame.f_code.co_filename, __file__):
                    lines.append((frame.f_code.co_filename, frame.f_lineno))
                frame = frame.f_back  # type: ignore[assignment]
            name = re.sub(r'\d+', '0', re.sub(r'\.[a-z0-9_]{8}\.tmp$', '.tmp', os.path.basename(os.fsdecode(path))))
            found.setdefault((call, name, *lines[:LINES]), []).append(number)

        function = ctypes.CFUNCTYPE(None, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p)(told)
        self.shim.faulty_disk_tell(function)
        try:
            yield found
        finally:
            self.shim.faulty_disk_tell(None)


def where(places: dict[tuple[Any, ...], list[int]], number: int) -> str:
    """What a write is, in words."""
    call, name, *lines = next(place for place, numbers in places.items() if number in numbers)
    return f'{call.decode()} {name}: ' + ' < '.join(f'{os.path.basename(path)}:{line}' for path, line in lines[:3])


def faults_of_places(places: dict[tuple[Any, ...], list[int]], all_kinds: bool = False) -> dict[str, list[int]]:
    """Kind -> writes: the first of each place fails once, from then on, and is short.

    Full and broken disks take turns, and so do read-only and full ones that stay so, unless all kinds are wanted.
    """
    faults: dict[str, list[int]] = {kind: [] for kind in KINDS}
    turns = ('full', 'broken'), ('read-only from then on', 'full from then on')
    for index, ((call, *_), numbers) in enumerate(places.items()):
        for turn in turns:
            for kind in turn if all_kinds else (turn[index % 2],):
                faults[kind].append(numbers[0])
        if b'write' in call:
            faults['short'].append(numbers[0])
    return faults


PICTURES = ('fakes', 'recon', 'reals', 'samples', 'trajectories')  # of trainings, which a full disk may cost
# Commands of which a second call, when the first one has come to its end, is refused or makes nothing.
DONE_ONCE = ('embed_video', 'tune_generator', 'convert_network', 'latents_tool', 'align_video', 'paste_video',
             'calc_metrics_video')  # fmt: skip


class World:
    """Small files for the commands, and the commands."""

    def __init__(self, folder: pathlib.Path) -> None:
        import numpy as np
        import PIL.Image
        import torch

        from networks import checkpoints, stylegan2
        from networks.latent_generator import LatentGenerator
        from networks.w_encoder import WEncoder
        from training import stationarity
        from training.latents.dataset import LatentDataset, LatentDatasetWriter
        from training.run_page import measures, pictures
        from training.temporal_snapshot import describe_dataset, save_snapshot

        # These write nothing, and take a minute.
        stationarity.LONGEST_BURN_IN = stationarity.REFERENCE_FRAMES = 50
        measures.MINUTE, measures.LONG_VIDEOS, measures.NEAREST_REAL, pictures.FRAMES_OF_MOTION = 2.0, 4, 100, 200
        self.folder = folder
        torch.manual_seed(0)
        torch.set_num_threads(1)
        G = stylegan2.Generator(
            z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=3, mapping_kwargs={'num_layers': 1},
            synthesis_kwargs={'channel_base': 16, 'channel_max': 4},
        )  # fmt: skip
        network, encoder, data, frames = (folder / name for name in ('g.pkl', 'e.pkl', 'd.zip', 'frames'))
        checkpoints.save_module_pickle(network, {'G_ema': G.eval().requires_grad_(False)})
        reference = checkpoints.image_generator_reference(str(network), G)
        module = WEncoder(num_ws=int(G.num_ws), w_dim=4, img_resolution=8, channel_base=16, channel_max=4, hidden_features=4)
        checkpoints.save_module_pickle(encoder, {'encoder': module.eval(), 'image_generator': reference})
        with LatentDatasetWriter(str(data), image_generator=reference, num_ws=int(G.num_ws), w_dim=4, embedding={}) as writer:
            walk = np.cumsum(np.random.RandomState(0).randn(120, int(G.num_ws), 4), axis=0).astype(np.float32)
            writer.add_clip('a', np.sin(walk), fps=25.0, source='a.mp4')
            writer.finish()
        frames.mkdir()
        for index in range(8):
            PIL.Image.fromarray(np.full([8, 8, 3], 30 * index, np.uint8)).save(frames / f'{index}.png')
        tiny = ('--window=9', '--latent-dim=8', '--noise-dim=8', '--hidden-dim=8', '--initial-widths=8', '--widening-widths=16',
                '--narrowing-widths=8', '--temporal-channels=8', '--batch=8', '--device=cpu', '--carry=0',
                '--strides=1')  # fmt: skip
        training = (f'--data={data}', '--outdir={out}', *tiny, '--kimg=0.6', '--tick=0.28', '--snap=1')
        self.commands: dict[str, tuple[str, ...]] = {
            'train_video': (*training, '--preview-frames=0'),
            'train_video with pictures': (*training, '--preview-frames=2', '--metrics=drift_latent_200f', '--keep-states=2'),
            'train_encoder': (f'--network={network}', '--outdir={out}', '--kimg=0.016', '--batch=4', '--tick=0.008', '--snap=1',
                              '--perceptual=none', '--cbase=16', '--cmax=4', '--hidden=4', '--device=cpu'),
            'embed_video': (f'--network={network}', f'--source={frames}', '--dest={out}/x.zip', f'--encoder={encoder}',
                            '--chunk=4', '--perceptual=none', '--min-frames=2', '--device=cpu'),
            'embed_video optimised': (f'--network={network}', f'--source={frames}', '--dest={out}/x', '--steps=2', '--chunk=4',
                                      '--first-steps=2', '--perceptual=none', '--min-frames=2', '--device=cpu', '--preview'),
        }  # fmt: skip
        snapshot = folder / 'network-snapshot-000001.pkl'
        latent = LatentGenerator(int(G.num_ws), 4, num_components=4, burn_in=2)
        latent.set_data_basis(torch.randn(int(G.num_ws) * 4), torch.randn(4, int(G.num_ws) * 4))
        with LatentDataset(str(data)) as dataset:
            save_snapshot(
                str(snapshot), G=latent, G_ema=latent, C=latent, image_generator=reference, data=describe_dataset(dataset),
                training_options={}, progress={},
            )  # fmt: skip
        for ending in ('png', 'mp4', 'gif'):
            self.commands[f'generate_video {ending}'] = (
                f'--network={snapshot}', '--outdir={out}', '--seeds=0-1', '--frames=4',
                '--save-codes', f'--format={ending}', '--skip-existing', '--device=cpu',
            )  # fmt: skip
        self._add_tools(G, reference, snapshot, data, network, frames)
        self._add_making(network)

    def _add_tools(
        self, G: Any, reference: dict[str, Any], snapshot: pathlib.Path, data: pathlib.Path, network: pathlib.Path,
        frames: pathlib.Path,
    ) -> None:  # fmt: skip
        """The commands that make one thing and are done."""
        import numpy as np
        import PIL.Image

        from training.footage.clips import open_footage
        from training.footage.first_look import thumbnail
        from training.latents.dataset import LatentDatasetWriter
        from training.videos.output import VideoWriter
        from training.videos.synthesis import render_codes

        num_ws = int(G.num_ws)
        drawn, footage, recording = (self.folder / name for name in ('drawn.zip', 'drawn', 'talk.mp4'))
        footage.mkdir()
        codes = np.random.RandomState(2).randn(16, num_ws, 4).astype(np.float32)
        for index, frame in enumerate(render_codes(G, codes)):
            PIL.Image.fromarray(frame).save(footage / f'{index:02d}.png')
        with LatentDatasetWriter(drawn, image_generator=reference, num_ws=num_ws, w_dim=4, embedding={}) as writer:
            writer.add_clip('clip', codes, fps=25.0, source=str(footage))
        blocks = np.random.RandomState(3).randint(30, 220, (6, 8, 3))
        with VideoWriter(recording, fps=25) as video:
            for index in range(12):
                video.write(np.roll(np.kron(blocks, np.ones((8, 8, 1))), index, axis=1).astype(np.uint8))
        pasted = self.folder / 'pasted.zip'
        with LatentDatasetWriter(pasted, image_generator=reference, num_ws=num_ws, w_dim=4, embedding={}) as writer:
            clip = writer.open_clip('talk')
            clip.append(codes[:12])
            quads = np.tile(np.array([[20.0, 8.0], [16.0, 36.0], [44.0, 40.0], [48.0, 12.0]]), (12, 1, 1))
            pictures = np.stack([thumbnail(frame) for frame in open_footage(recording)[0].frames()])
            clip.close(fps=25.0, source=str(recording), source_size=[64, 48], arrays={'quads': quads, 'thumbnails': pictures})
        run = self.folder / 'run'
        run.mkdir()
        shutil.copy(snapshot, run)
        (run / 'training_options.json').write_text('{}')
        self.commands |= {
            'tune_generator': (f'--data={drawn}', '--outdir={out}', '--dest={out}/tuned.pkl', '--perceptual=none', '--batch=2',
                               '--locality-batch=2', '--steps=4', '--tick=2', '--evaluate=4', '--identity=no', '--device=cpu'),
            'convert_network pkl': (f'--source={network}', '--dest={out}/c.pkl'),
            'convert_network safetensors': (f'--source={network}', '--dest={out}/c.safetensors'),
            'latents_tool merge': ('merge', f'--data={data}', f'--data={drawn}', '--dest={out}/m.zip'),
            'latents_tool split': ('split', f'--data={data}', '--train={out}/a.zip', '--test={out}/b', '--by=time'),
            'latents_tool smooth': ('smooth', f'--data={data}', '--dest={out}/s', '--sigma=2'),
            'latents_tool convert': ('convert', f'--source={data}', '--dest={out}/codes', '--format=npy'),
            'latents_tool directions': ('directions', f'--data={data}', '--outdir={out}', '--count=2'),
            'align_video png': (f'--source={frames}', '--dest={out}/aligned', '--format=png', '--size=8', '--align=none',
                                '--min-frames=2'),
            'align_video mp4': (f'--source={frames}', '--dest={out}/aligned', '--size=8', '--align=none', '--min-frames=2'),
            'paste_video png': (f'--data={pasted}', '--dest={out}/frames', '--device=cpu'),
            'paste_video mp4': (f'--data={pasted}', '--dest={out}/p.mp4', '--device=cpu'),
            'calc_metrics_video': ('--network={out}/run', f'--data={data}', '--metrics=drift_latent_200f', '--no-cache',
                                   '--device=cpu'),
            'report_video': ('--run={out}/run', f'--data={data}', '--videos=16', '--depths=0', '--clips=1', '--clip-seconds=0.2',
                             '--device=cpu'),
        }  # fmt: skip

    def _add_making(self, network: pathlib.Path) -> None:
        """make_video.py with steps that are played, because their own writes are tried by themselves."""
        from stylevideogan import layout

        def play(module: str, command: str, argv: list[str]) -> list[str]:
            words = dict(word.removeprefix('--').split('=', 1) for word in argv[2:] if '=' in word)
            made = {
                'embed_video': 'shutil.copy(DATA, {dest!r})',
                'train_video': 'os.makedirs({outdir!r} + "/00000-latents-gpus1-batch64", exist_ok=True)',
                'generate_video': 'os.makedirs({outdir!r}, exist_ok=True); open({outdir!r} + "/seed0000.mp4", "w").write("x")',
            }
            setting = f'import os, shutil; DATA = {str(self.folder / "d.zip")!r}; print("Note: made", flush=True)'
            return ['-c', f'{setting}; {made[command].format(**words)}']

        layout.start_again = play
        self.commands['make_video'] = (f'--source={self.folder / "talk.mp4"}', f'--network={network}', '--outdir={out}/made',
                                       '--align=center', '--device=cpu')  # fmt: skip

    def empty(self, command: str) -> pathlib.Path:
        """The folder that a command writes into, as it is before."""
        out = self.folder / 'out'
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if any(word.startswith(('--run={out}', '--network={out}')) for word in self.commands[command]):
            shutil.copytree(self.folder / 'run', out / 'run')
        return out

    def run(self, command: str, out: pathlib.Path) -> tuple[int, str]:
        """Exit code, and what a command has said."""
        from click.testing import CliRunner

        from stylevideogan.__main__ import load_command

        out.mkdir(exist_ok=True)
        arguments = [word.replace('{out}', str(out)) for word in self.commands[command]]
        result = CliRunner().invoke(load_command(command.split()[0]), arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    def result(self, out: pathlib.Path) -> Any:
        """What a command has made, but for times and what it says about itself."""
        from networks import checkpoints
        from training.latents.dataset import LatentDataset

        found: dict[str, str] = {}
        for path in sorted(out.rglob('*')):
            name, digest = str(path.relative_to(out)), hashlib.sha256()
            if path.name.startswith('network-snapshot-'):
                for value in checkpoints.load_snapshot(str(path))['G_ema'].state_dict().values():
                    digest.update(value.numpy().tobytes())
            elif path.name.startswith('encoder-') and path.suffix == '.pkl':
                for value in checkpoints.load_encoder(str(path)).state_dict().values():
                    digest.update(value.numpy().tobytes())
            elif path.suffix == '.zip' or (path / 'dataset.json').is_file():
                with LatentDataset(str(path)) as dataset:
                    digest.update(dataset.sha256.encode())
            elif path.suffix in ('.pkl', '.safetensors') and path.parent == out:
                for value in checkpoints.load_generator(str(path)).state_dict().values():
                    digest.update(value.numpy().tobytes())
            elif path.suffix == '.json':
                json.loads(path.read_bytes())  # readable, but times stand in it
            elif path.name.startswith('metric-') and path.parent.name.startswith('00000-'):
                digest.update(path.read_bytes()[-1:])  # a training may lose a snapshot, and its line with it
            elif path.name in ('report.html', 'generation.jsonl') or path.name.startswith('metric-'):
                digest.update(f'{len(path.read_bytes().splitlines())} lines'.encode() if path.suffix == '.jsonl' else b'')
            elif path.is_file() and path.suffix in ('.png', '.mp4', '.npz', '.npy') and not path.name.startswith(PICTURES):
                digest.update(path.read_bytes())
            elif path.is_file() and path.name.startswith('.'):
                found[f'left behind: {path.suffix}'] = ''
                continue
            else:
                continue
            found[name] = digest.hexdigest()
        return found


def check(world: World, disk: Disk, command: str, number: int, kind: str, wanted: Any) -> str | None:
    """What is wrong with a command on a disk that fails at this write, or nothing."""
    out = world.empty(command)
    disk.arm(out, number, kind)
    try:
        code, said = world.run(command, out)
    except BaseException as error:  # noqa: BLE001 - this is what is looked for
        where = ' < '.join(
            f'{pathlib.Path(f.filename).name}:{f.lineno}' for f in reversed(traceback.extract_tb(error.__traceback__)[-6:])
        )
        return f'{type(error).__name__}: {str(error)[:200]} ({where})'
    finally:
        disk.arm(out, -1)
    errors = [line for line in said.splitlines() if line.startswith('Error')]
    if code not in (0, 2) or len(errors) != (code == 2) or 'Traceback' in said:
        return f'exit code {code}: {said[-400:]}'
    if code == 0 and kind == 'short' and world.result(out) != wanted:
        return 'a short write changed the result'
    if code == 0 and command.startswith(DONE_ONCE):
        return None if world.result(out) == wanted else 'another result'
    code, said = world.run(command, out)
    if code != 0:
        return f'the same command on a good disk: exit code {code}: {said[-400:]}'
    found = world.result(out)
    if found != wanted:
        return f'another result: {sorted(set(found.items()) ^ set(wanted.items()))[:4]}'
    return None


@click.command()
@click.option('--command', 'commands', help='Command; may be repeated  [default: all]', multiple=True)
@click.option('--kind', 'kinds', help='Kind of fault; may be repeated', type=click.Choice(list(KINDS)), multiple=True)
@click.option('--every', help='Try only every N-th write', type=click.IntRange(min=1), default=1, show_default=True)
@click.option('--places', help='Try the first write of each place in the program that writes', is_flag=True)
@click.option('--all-kinds', help='With --places: each place with every kind of fault', is_flag=True)
def main(commands: tuple[str, ...], kinds: tuple[str, ...], every: int, places: bool, all_kinds: bool) -> None:
    """Let writes fail."""
    if 'faulty_disk' not in os.environ.get('LD_PRELOAD', ''):
        os.environ['LD_PRELOAD'] = build(tempfile.mkdtemp())
        os.execv(sys.executable, [sys.executable, *sys.argv])
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, os.path.dirname(os.environ['LD_PRELOAD']), ignore_errors=True)
        world, disk, wrong = World(pathlib.Path(folder)), Disk(), 0
        tell: Callable[[str], None] = click.echo
        for command in commands or world.commands:
            out = world.empty(command)
            disk.arm(out, -1)
            with disk.places() as found:
                code, said = world.run(command, out)
            assert code == 0, said
            count, wanted = disk.count(), world.result(out)
            assert wanted, command
            if places:
                tell(f'{command}: {count} writes at {len(found)} places')
            faults = faults_of_places(found, all_kinds) if places else {kind: list(range(count)) for kind in KINDS}
            for kind in kinds or KINDS:
                tried = faults[kind][::every]
                for number in tried:
                    problem = check(world, disk, command, number, kind, wanted)
                    if problem is not None:
                        wrong += 1
                        tell(f'{command}, write {number} of {count} ({where(found, number)}), {kind}: {problem}')
                tell(f'{command}: {len(tried)} of {count} writes, {kind}: done')
    sys.exit(wrong > 0)


if __name__ == '__main__':
    main()
