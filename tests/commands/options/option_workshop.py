"""Where options are tried: every command that was run, and what it did."""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from option_files import Files

from metrics.features import clip_features, detectors
from networks import stylegan2
from stylevideogan.__main__ import load_command
from torch_utils import training_stats
from training.commands import stop_signals
from training.embedding import face_identity
from training.footage import preparation
from training.footage.face_landmarks import Face
from training.kernels.rendering.fast_stylegan2 import FastSynthesis
from training.live import run as live_run
from training.run_page import measures
from training.run_page import run as page_run
from training.tuning import generator_tuning
from training.tuning import run as tuning_run


@dataclasses.dataclass
class Run:
    """What one command did."""

    folder: pathlib.Path
    exit_code: int
    stdout: str
    stderr: str
    rendered: list[int]  # batch sizes of the calls of synthesis networks
    measured: list[int]  # batch sizes of the calls of the detector
    recomputed: int  # calls of blocks whose activations are computed twice
    at_once: list[int | None]  # batches that a detector may measure at a time, from each of its beginnings


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


class Workshop:
    """Runs commands, equal ones once."""

    def __init__(self, folder: pathlib.Path, generator: pathlib.Path, data: pathlib.Path) -> None:
        self.folder = folder
        self.files = Files(folder, generator, data)
        self.done: dict[tuple[str, ...], Run] = {}
        self.started = 0

    def run(self, command: str, *arguments: str, fresh: bool = False) -> Run:
        """Run a command; `{name}` stands for a file, `{out}` for a folder of its own, and `&&` for another run before it.

        A run with the word `!` is stopped by a signal.
        """
        key = (command, *arguments)
        if key in self.done and not fresh:
            return self.done[key]
        self.started += 1
        folder = self.folder / f'run{self.started}'
        folder.mkdir()
        self.files |= {'folder': folder, 'out': folder / 'out'}
        *earlier, last = [[word.format_map(self.files) for word in words] for words in split_at(arguments, '&&')]
        name, *subcommand = command.split()
        main = load_command(name)
        os.environ['DNNLIB_CACHE_DIR'] = str(folder / 'cache')
        for words in earlier:
            with stopped() if '!' in words else contextlib.nullcontext():
                CliRunner().invoke(main, [*subcommand, *(word for word in words if word != '!')], catch_exceptions=False)
        rendered: list[int] = []
        recomputed: list[int] = []
        at_once: list[int | None] = []
        Detector.sizes.clear()
        with (
            noted(stylegan2.SynthesisNetwork, 'forward', rendered),
            noted(FastSynthesis, '__call__', rendered),
            noted(generator_tuning, 'checkpoint', recomputed),
            limits(at_once),
        ):
            result = CliRunner().invoke(main, [*subcommand, *last], catch_exceptions=False)
        found = Run(
            folder, result.exit_code, result.stdout, result.stderr, rendered, list(Detector.sizes), len(recomputed), at_once
        )
        if not fresh:
            self.done[key] = found
        return found


@contextlib.contextmanager
def stopped() -> Iterator[None]:
    """A signal comes: before the first step for those that look for one, in the second tick for the others."""
    update, ticks = training_stats.Collector.update, []

    def one_tick(collector: training_stats.Collector) -> None:
        ticks.append(collector)
        if len(ticks) > 1:
            raise stop_signals.Stopped(signal.SIGTERM)
        update(collector)

    with (
        unittest.mock.patch.object(stop_signals, 'asked', return_value=signal.SIGTERM),
        unittest.mock.patch.object(training_stats.Collector, 'update', one_tick),
    ):
        yield


@contextlib.contextmanager
def noted(owner: Any, name: str, sizes: list[int]) -> Iterator[None]:
    """Note the size of the second argument of every call; a hook would make networks render in their plain form."""
    original = getattr(owner, name)

    def note(*args: Any, **kwargs: Any) -> torch.Tensor:
        sizes.append(len(args[1]) if isinstance(args[1], torch.Tensor) else 0)
        return original(*args, **kwargs)

    with unittest.mock.patch.object(owner, name, note):
        yield


@contextlib.contextmanager
def limits(most: list[int | None]) -> Iterator[None]:
    """Note how many batches may be measured at a time."""
    original = clip_features.in_parallel

    def note(work: Any, tasks: Any, device: Any, limit: int | None = None) -> Any:
        most.append(None if limit is None else min(limit, 2))  # what is free changes
        return original(work, tasks, device, limit)

    with unittest.mock.patch.object(clip_features, 'in_parallel', note):
        yield


class Difference:
    """Stands for the distance of two faces; with a model of one's own twice as large."""

    def __init__(self, model: str | None = None) -> None:
        self.scale = 1 if model is None else 2

    def __call__(self, original: np.ndarray, embedded: np.ndarray) -> float:
        return self.scale * float(np.abs(original.astype(float) - embedded).mean() / 255)


class TwoFaces:
    """Stands for the detector of faces: a large one at the right, a small one at the left; with a model of one's own higher."""

    def __init__(self, model: str | None = None) -> None:
        self.top = 5 if model is None else 4

    def detect(self, frame: np.ndarray) -> list[Face]:
        faces = []
        for left, width in ((11, 9), (2, 6)):
            x, y = left + width * np.array([0.3, 0.7, 0.35, 0.65]), self.top + width * np.array([0.3, 0.3, 0.8, 0.8])
            box = np.array([left, self.top, left + width, self.top + width], np.float32)
            faces.append(Face(np.stack([x, y], axis=1).astype(np.float32), box))
        return faces

    def close(self) -> None:
        pass

    def __enter__(self) -> 'TwoFaces':
        return self

    def __exit__(self, *args: object) -> None:
        pass


def split_at(words: tuple[str, ...], mark: str) -> list[list[str]]:
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


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Parts that are replaced while options are tried: by small ones, and by some that need nobody to look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('DNNLIB_CACHE_DIR', '')
        patch.setitem(detectors.MAKERS, 'i3d', lambda path: Detector())
        patch.setattr(detectors, '_loaded', {})
        patch.setattr(preparation, 'FaceDetector', TwoFaces)
        patch.setattr(preparation, 'require_detector', lambda: None)
        patch.setattr(preparation, 'model_sha256', str)
        patch.setattr(face_identity, 'is_installed', lambda: True)
        for module in (face_identity, tuning_run):
            patch.setattr(module, 'FaceIdentity', Difference)
        patch.setattr(live_run, 'serve', visit)
        patch.setattr(measures, 'MINUTE', 2.0)
        patch.setattr(measures, 'LONG_VIDEOS', 4)
        # No option changes the charts alone, and drawing them takes longer than all else: tests/run_page.
        patch.setattr(page_run, 'draw', lambda *arguments: dict.fromkeys(('depth', 'trajectories', 'autocorrelation'), ''))
        patch.setattr(live_run.webbrowser, 'open', lambda url: print('opened'))
        yield
