"""Further kinds of files for mutations.py: what commands read beside networks and data sets, and what they leave behind."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import random
import shutil
import types
from collections.abc import Callable
from typing import Any

import numpy as np

Change = Callable[[random.Random, Any], Any]
OTHER_ARRAYS: list[Any] = [
    np.zeros(0, np.float32), np.zeros((3, 3)), np.float32(np.nan), np.array('x' * 5000), np.zeros((2, 3, 4), np.uint8),
    np.array([1 + 2j]), np.array(['2020-01-01'], 'datetime64[D]'), np.zeros((1, 0, 7)), np.array([b'\xff']), np.ones(3, bool),
    np.zeros(2, [('a', 'f4'), ('b', 'i8')]),
]  # fmt: skip


def change_arrays(draw: random.Random, arrays: dict[str, Any]) -> dict[str, Any]:
    """Other arrays, missing ones, others of another name, other types, numbers that are none."""
    arrays = dict(arrays)
    for _ in range(draw.choice((1, 1, 2))):
        if not arrays:
            break
        name, kind = draw.choice(sorted(arrays)), draw.random()
        value = np.asarray(arrays[name])
        if kind < 0.4:
            arrays[name] = draw.choice(OTHER_ARRAYS)
        elif kind < 0.6:
            numbers = value.dtype.kind in 'fiu'
            arrays[name] = draw.choice((value.ravel(), value[None], value.astype('f2' if numbers else 'O'), value.T))
        elif kind < 0.75 and value.dtype.kind == 'f' and value.size:
            arrays[name] = value.copy()
            arrays[name].flat[draw.randrange(value.size)] = draw.choice((np.nan, np.inf, 1e30, -1e308))
        elif kind < 0.9:
            del arrays[name]
        else:
            arrays[draw.choice(('\x00', 'a' * 300, '../x', 'codes', 'fps', 'state'))] = arrays[name]
    return arrays


def savez(arrays: dict[str, Any]) -> bytes:
    """An .npz file."""
    file = io.BytesIO()
    np.savez(file, **{name.replace('\x00', '0'): value for name, value in arrays.items()})
    return file.getvalue()


def saved_array(array: Any) -> bytes:
    """An .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


class SmallFiles:
    """Small files in a folder, and what reads changed ones.

    Args:
        folder: Where they go.
        generator: An image generator, num_ws 4, w_dim 4.
        change_bytes, change_zip, change_values: Of mutations.py.
    """

    def __init__(
        self, folder: pathlib.Path, generator: pathlib.Path, change_bytes: Change, change_zip: Change, change_values: Change
    ) -> None:
        self.folder, self.generator = folder, generator
        self.folder.mkdir()
        self.change_bytes, self.change_zip, self.change_values = change_bytes, change_zip, change_values
        self.codes = np.random.RandomState(0).randn(6, 4, 4).astype(np.float32)
        self._prepare_pair()
        self._prepare_partial()
        self.kinds: dict[str, Callable[[random.Random], None]] = {
            'codes': self.try_codes, 'direction': self.try_direction, 'landmarks': self.try_landmarks,
            'safetensors': self.try_pair, 'statistics of a run': self.try_statistics, 'record of make_video': self.try_record,
            'unfinished video': self.try_progress, 'unfinished data set': self.try_partial,
            'report of an embedding': self.try_report, 'owner of a lock': self.try_lock,
            'options of a tuning': self.try_tuning_options, 'share of features': self.try_share,
        }  # fmt: skip

    def text(self, draw: random.Random, content: Any) -> bytes:
        """JSON with other values, or changed as bytes, or nested deeply."""
        kind = draw.random()
        if kind < 0.3:
            return bytes(self.change_bytes(draw, json.dumps(content).encode()))
        if kind < 0.35:
            depth = draw.choice((10, 1000, 100_000))
            return b'[' * depth + b']' * depth
        if kind < 0.4:
            return json.dumps(content).encode().replace(b'1', b'1' + b'0' * draw.choice((30, 400, 5000)), 1)
        return json.dumps(self.change_values(draw, {'': content}).get('', 5), default=str).encode()

    def file_of_arrays(self, draw: random.Random, arrays: dict[str, Any]) -> bytes:
        """An .npz file, changed."""
        kind = draw.random()
        if kind < 0.3:
            return bytes(self.change_bytes(draw, savez(arrays)))
        if kind < 0.5:
            return bytes(self.change_zip(draw, savez(arrays)))
        return savez(change_arrays(draw, arrays))

    def array_file(self, draw: random.Random, name: str, arrays: dict[str, Any]) -> str:
        """An .npz, .npy or .pt file of arrays, changed; its path."""
        import torch

        main = next(iter(arrays.values()))
        ending = draw.choice(('.npz', '.npy', '.pt'))
        path = self.folder / (name + ending)
        if ending == '.npz':
            path.write_bytes(self.file_of_arrays(draw, arrays))
        elif ending == '.npy':
            content = saved_array(main if draw.random() < 0.5 else change_arrays(draw, {'': main}).get('', OTHER_ARRAYS[0]))
            path.write_bytes(self.change_bytes(draw, content) if draw.random() < 0.5 else content)
        else:
            values = {key: torch.as_tensor(value) for key, value in arrays.items()}
            file = io.BytesIO()
            torch.save(self.change_values(draw, values) if draw.random() < 0.6 else values, file)
            path.write_bytes((self.change_bytes if draw.random() < 0.5 else self.change_zip)(draw, file.getvalue()))
        return str(path)

    # What users give.

    def try_codes(self, draw: random.Random) -> None:
        from training.latents.code_files import read_codes

        codes, fps = read_codes(self.array_file(draw, 'codes', {'codes': self.codes, 'fps': 25.0}), num_ws=4, w_dim=4)
        assert codes.dtype == np.float32
        assert codes.shape[1:] == (4, 4)
        assert fps is None or 0 < fps < float('inf')

    def try_direction(self, draw: random.Random) -> None:
        from training.control.directions import read_direction

        assert read_direction(self.array_file(draw, 'direction', {'direction': self.codes[0]}), 4, 4, '').shape == (4, 4)

    def try_landmarks(self, draw: random.Random) -> None:
        from training.footage.face_landmarks import load_landmarks

        points = np.random.RandomState(1).rand(3, 68, 2).astype(np.float32)
        path = self.array_file(draw, 'landmarks', {'landmarks': points})
        if not path.endswith('.pt'):
            assert load_landmarks(path).shape[1:] == (68, 2)

    def _prepare_pair(self) -> None:
        from networks import checkpoints
        from networks.checkpoints.formats import safetensors_pair

        generator: Any = checkpoints.load_generator(str(self.generator))
        safetensors_pair.write(str(self.folder / 'whole.safetensors'), str(self.folder / 'whole.json'), generator)
        self.pair = {file.name: file.read_bytes() for file in self.folder.glob('whole*')}

    def try_pair(self, draw: random.Random) -> None:
        from networks import checkpoints

        for name, content in self.pair.items():
            (self.folder / name).write_bytes(content)
        name = draw.choice(sorted(self.pair))
        content = self.pair[name]
        length = int.from_bytes(content[:8], 'little')
        if name.endswith('.safetensors') and draw.random() < 0.6:  # the header, which is JSON
            header = self.change_values(draw, json.loads(content[8 : 8 + length]))
            text = json.dumps(header, default=str).encode()
            content = (
                (len(text) if draw.random() < 0.8 else draw.choice((0, 2**63, 7))).to_bytes(8, 'little')
                + text
                + content[8 + length :]
            )
        else:
            content = self.change_bytes(draw, content)
        (self.folder / name).write_bytes(content)
        checkpoints.load_generator(str(self.folder / 'whole.safetensors'))

    # What runs leave.

    def try_statistics(self, draw: random.Random) -> None:
        """Of a training that goes on, and of a page about it."""
        from training.run_page import charts
        from training.run_page.run import STATISTICS, read_metrics, read_statistics
        from training.runs.run_folder import forget_statistics_after

        entry = {'num': 1, 'mean': 1.5, 'std': 0.1}
        line = {'Progress/kimg': entry, **dict.fromkeys(STATISTICS, entry), 'timestamp': 1.0}
        result = {'results': {'x': 1.0}, 'metric': 'x', 'snapshot_pkl': 'network-snapshot-000001.pkl', 'timestamp': 1.0}
        (self.folder / 'stats.jsonl').write_bytes(b'\n'.join(self.text(draw, line) for _ in range(3)) + b'\n')
        (self.folder / 'metric-x.jsonl').write_bytes(b'\n'.join(self.text(draw, result) for _ in range(3)) + b'\n')
        (self.folder / 'network-snapshot-000001.pkl').write_bytes(b'')
        statistics = read_statistics(str(self.folder))
        if statistics:
            charts.curves('training', statistics, 'x')
        metrics = read_metrics(str(self.folder))
        if metrics:
            charts.curves('metrics', metrics, 'x')
        forget_statistics_after(str(self.folder), 1.0)

    def try_record(self, draw: random.Random) -> None:
        from training.making import run
        from training.making.first_look import FirstLook

        options = types.SimpleNamespace(**dict.fromkeys(run.DECIDING), outdir=str(self.folder))
        found = FirstLook(6, 0.5, 'center', 'as it is')
        content = {'options': dict.fromkeys(run.DECIDING), 'seconds': {'embed': 2.5}, 'found': vars(found)}
        (self.folder / run.RECORD).write_bytes(self.text(draw, content))
        record, before = run._Record(options), run.look
        run.look = lambda options: found
        try:
            again = record.first_look()
        finally:
            run.look = before
        assert again.align in ('ffhq', 'center')
        assert again.num_frames * again.seconds_per_picture >= 0
        record.add_seconds('embed', 1.0)

    def try_progress(self, draw: random.Random) -> None:
        """A video of two segments, of which one is there."""
        import torch

        from training.videos.segments import PROGRESS_FILE, SegmentedVideo

        def open_video() -> SegmentedVideo:
            return SegmentedVideo(str(self.folder / 'v.mp4'), settings={}, length=4, num_frames=8, fps=25.0)

        folder = self.folder / 'v.mp4.partial'
        shutil.rmtree(folder, ignore_errors=True)
        key = open_video()._work.note()
        torch.save({'l': torch.zeros(2)}, folder / 'state-4.pt')
        (folder / 'segment-000000000.mkv').write_bytes(b'')
        (folder / 'segment-000000000.mp4').write_bytes(b'')
        content = {'key': key, 'num_frames': 4, 'state': 'state-4.pt'}
        (folder / PROGRESS_FILE).write_bytes(self.text(draw, content))
        if draw.random() < 0.3:
            (folder / 'state-4.pt').write_bytes(self.change_bytes(draw, (folder / 'state-4.pt').read_bytes()))
        video = open_video()
        assert video.num_frames_done in (0, 4)

    def _writer(self) -> Any:
        from training.latents.dataset import LatentDatasetWriter

        reference = {'path': str(self.generator), 'sha256': 'a' * 64, 'class_name': 'Generator', 'init_kwargs': {}}
        return LatentDatasetWriter(
            str(self.folder / 'd'), image_generator=reference, num_ws=4, w_dim=4, embedding={}, overwrite=True
        )

    def _prepare_partial(self) -> None:
        writer = self._writer()
        writer.add_clip('whole', self.codes, fps=25.0, source='whole.mp4', arrays={'quads': np.zeros((6, 4, 2))})
        clip = writer.open_clip('half')
        clip.append(self.codes[:3])
        writer._unlock()
        self.partial = self.folder / 'whole.partial'
        shutil.copytree(self.folder / 'd.partial', self.partial)

    def try_partial(self, draw: random.Random) -> None:
        """An interrupted embedding that goes on."""
        from training.latents.dataset import LatentDataset

        target = self.folder / 'd.partial'
        for place in (target, self.folder / 'd'):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.partial, target)
        path = draw.choice(sorted(path for path in target.rglob('*') if path.is_file()))
        content = path.read_bytes()
        plain = path.suffix in ('.json', '.jsonl') and draw.random() < 0.7
        path.write_bytes(
            self.text(draw, json.loads(content)) if plain and content.strip() else self.change_bytes(draw, content or b'x')
        )
        writer = self._writer()
        try:
            if not writer.has_clip('half'):
                clip = writer.open_clip('half')
                clip.append(self.codes[clip.num_frames :])
                clip.close(fps=25.0, source='half.mp4')
            writer.finish()
        finally:
            writer._unlock()
        with LatentDataset(str(self.folder / 'd')) as data:
            data.load_clip(0)

    def try_report(self, draw: random.Random) -> None:
        from training.embedding.report import EmbeddingReport, add_tuning

        content = {'clips': [{'name': 'a', 'index': 0, 'video': 'a.mp4', 'plot': 'a.png', 'frames': [1, 2]}], 'head': {}}
        folder = self.folder / 'report'
        folder.mkdir(exist_ok=True)
        (folder / 'report.json').write_bytes(self.text(draw, content))
        EmbeddingReport(str(folder), {}).remove_old() if draw.random() < 0.5 else add_tuning(
            str(folder), {'generator': 'x'}, 'none'
        )

    def try_lock(self, draw: random.Random) -> None:
        from training.runs.locks import InUse, Lock, lock_path

        path = lock_path(self.folder / 'locked')
        content = {'host': 'elsewhere', 'pid': 17, 'started': 1.0, 'after_boot': 2.0, 'since': 3.0, 'command': 'train_video.py'}
        with Lock(path, 'the run'):
            pathlib.Path(path).write_bytes(self.text(draw, content))
            try:
                Lock(path, 'the run').release()
            except InUse as error:
                told = str(error)
            assert 'is in use by' in told

    def try_tuning_options(self, draw: random.Random) -> None:
        from training.tuning.run import OPTIONS_FILE, find_unfinished_run

        run = self.folder / 'tunings' / '00000-x'
        run.mkdir(parents=True, exist_ok=True)
        (run / OPTIONS_FILE).write_bytes(self.text(draw, {'data': 'd', 'steps': 4, 'run_dir': 'x', 'options': {'batch': 1}}))
        with contextlib.redirect_stderr(io.StringIO()) as said:
            find_unfinished_run(str(run.parent), {'data': 'd', 'steps': 4, 'options': {'batch': 1}})
        sentence = said.getvalue().removesuffix('\n')
        assert len(sentence) <= 600, sentence
        assert sentence.isprintable(), sentence

    def try_share(self, draw: random.Random) -> None:
        from metrics.inputs.feature_parts import FeatureParts, _digest

        folder = self.folder / 'parts'
        folder.mkdir(exist_ok=True)
        values = self.codes.reshape(6, 1, 16)
        arrays = {'values': values, 'damaged': np.array('{}'), 'sha256': np.array(_digest(values, '{}'))}
        (folder / 'k-1-of-1.npz').write_bytes(self.file_of_arrays(draw, arrays))
        FeatureParts(str(folder), None).collect('k', 'clips')
