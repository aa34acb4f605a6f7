"""The page of a run: its numbers are right where they are known, and it is one file that needs and tells nothing else."""

import base64
import json
import math
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import xml.etree.ElementTree
from typing import Any

import click.testing
import numpy as np
import pytest
import torch

import report_video
from networks import checkpoints
from networks.latent_generator import LatentGenerator
from training import temporal_snapshot
from training.latents.dataset import LatentDataset, LatentDatasetWriter
from training.run_page import kept as kept_parts
from training.run_page import measures, pictures
from training.run_page.kept import KeptParts
from training.run_page.measures import FIRST_SEED, WINDOW, nearest_moments
from training.runs.locks import lock_target

NAME = 'a <b>&"run"'  # folders and clips are called what people like


@pytest.fixture(scope='module')
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny_generator: pathlib.Path) -> pathlib.Path:
    """A run folder with a snapshot, statistics and a metric, and its data set beside it."""
    folder = tmp_path_factory.mktemp('runs')
    reference = checkpoints.image_generator_reference(str(tiny_generator), checkpoints.load_generator(str(tiny_generator)))
    codes = np.cumsum(np.random.RandomState(0).randn(300, 6, 8).astype(np.float32) * 0.1, axis=0)
    with LatentDatasetWriter(str(folder / 'data.zip'), image_generator=reference, num_ws=6, w_dim=8, embedding={}) as writer:
        writer.add_clip('one', codes, fps=25.0, source='a.mp4')
        writer.finish()
    with LatentDataset(str(folder / 'data.zip')) as data:
        described = temporal_snapshot.describe_dataset(data)
    torch.manual_seed(1)
    G = LatentGenerator(6, 8, latent_dim=6, noise_dim=5, hidden_dim=7, burn_in=3)
    G.set_data_basis(torch.from_numpy(codes.mean(axis=0)).flatten(), None, 0.5)
    run = folder / NAME
    run.mkdir()
    temporal_snapshot.save_snapshot(
        str(run / 'network-snapshot-000002.pkl'), G=G, G_ema=G, C=G, image_generator=reference, data=described, progress={},
        training_options={'data': str(folder / 'data.zip'), 'settings': {'batch': 8, 'strides': [1, 4]}, 'seed': 77},
    )  # fmt: skip
    (run / 'stats.jsonl').write_text(
        ''.join(json.dumps({'Progress/kimg': {'mean': k}, 'Loss/C/wasserstein': {'mean': 1 / (1 + k)}}) + '\n' for k in range(4))
        + '{"Progress/kimg": {"me'  # a power cut
    )
    (run / 'metric-lkd1024.jsonl').write_text(
        json.dumps({'snapshot_pkl': 'network-snapshot-000002.pkl', 'results': {'lkd1024': 3.0}}) + '\n'
    )
    return run


SMALL = ('--videos=16', '--depths=0,60', '--clip-seconds=0.4', '--subject=seed:1', '--device=cpu')


def report(run: pathlib.Path, *arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(report_video.main, [f'--run={run}', *SMALL, *arguments])


@pytest.fixture(scope='module')
def page(run_dir: pathlib.Path) -> str:
    result = report(run_dir)
    assert result.exit_code == 0, result.output
    return (run_dir / 'report.html').read_text(encoding='utf-8')


def test_the_page_needs_and_tells_nothing_else(page: str, run_dir: pathlib.Path, tiny_generator: pathlib.Path) -> None:
    for folder in (run_dir.parent, tiny_generator.parent, pathlib.Path.home(), pathlib.Path.cwd()):
        assert str(folder) not in page
    loaded = re.findall(r'(?:src|href|poster|srcset)="([^"]*)"', page)
    assert len(loaded) > 5
    assert all(address.startswith(('data:', '#')) for address in loaded)
    assert '<script' not in page
    assert '@import' not in page
    assert '<b>&' not in page  # its own name
    assert 'a &lt;b&gt;&amp;' in page


def test_what_stands_on_the_page(page: str, run_dir: pathlib.Path) -> None:
    videos = re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)
    assert len(videos) == 3  # footage, and generated at two depths
    assert all(base64.b64decode(video)[4:8] == b'ftyp' for video in videos)
    drawn = re.findall(r'<svg.*?</svg>', page, re.DOTALL)
    assert len(drawn) == 5
    for chart in drawn:
        xml.etree.ElementTree.fromstring(chart.replace('<svg ', '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)', page)) <= set(ids)
    plain = re.sub(r'<[^>]+>', ' ', page)
    for word in ('settings.strides', '1, 4', '77', checkpoints.file_sha256(str(run_dir / 'network-snapshot-000002.pkl'))):
        assert word in plain
    questions = ['Does it look right?', 'Is it alive?', 'How far from real?', 'Is it copying?', 'Training options']
    places = [page.index(question) for question in questions]
    assert places == sorted(places)  # what a person wants to know first stands first


def test_a_run_without_statistics_has_a_page(
    run_dir: pathlib.Path, page: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot alone in a folder, and the data set given by hand."""
    monkeypatch.setattr(measures, 'MINUTE', 2.0)  # seconds
    (tmp_path / 'network-snapshot-000002.pkl').write_bytes((run_dir / 'network-snapshot-000002.pkl').read_bytes())
    result = report(tmp_path, f'--data={run_dir.parent}/data.zip', f'--dest={tmp_path}/page.html')
    assert result.exit_code == 0, result.output
    assert (tmp_path / 'page.html').read_text(encoding='utf-8').count('<svg') == 3


def test_a_copy_is_called_one() -> None:
    random = np.random.RandomState(0)
    real = [torch.from_numpy(np.cumsum(random.randn(length, 4), axis=0)) for length in (600, 400)]
    places = [(0, 100), (1, 250), (0, 555), (1, 3)]
    copies = torch.stack([real[clip][begin : begin + WINDOW] for clip, begin in places])
    found = nearest_moments(copies, real, 25.0, 1000)
    assert found.ratio < 1e-6
    assert found.nearer_than_real == 1
    half = WINDOW // 2
    expected = {(FIRST_SEED + k, 1000 + half, clip, begin + half) for k, (clip, begin) in enumerate(places)}
    assert {(pair.seed, pair.frame, pair.clip, pair.real_frame) for pair in found.pairs} == expected


def test_new_motion_is_as_far_as_real_motion_from_itself() -> None:
    """White noise: every window is as far from all others, wherever it comes from."""
    random = np.random.RandomState(1)
    real = [torch.from_numpy(random.randn(1500, 6))]
    found = nearest_moments(torch.from_numpy(random.randn(200, WINDOW, 6)), real, 25.0, 0)
    assert 0.95 < found.ratio < 1.05
    assert found.nearer_than_real < 0.08


def test_numbers_of_a_model_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that repeats footage of white noise, at twice its size: speed 2, variance 4, at every depth."""

    class Loud(torch.nn.Module):
        latent_dim, noise_dim, burn_in, num_components = 5, 5, 0, 0

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def initial_state(self, i: torch.Tensor) -> Any:
            return (i,)

        def step(self, s: torch.Tensor, state: Any) -> Any:
            return (s,), s

        def codes(self, l: torch.Tensor) -> torch.Tensor:
            return 2 * l.unsqueeze(-2)

    monkeypatch.setattr(measures, 'MINUTE', 4.0)
    monkeypatch.setattr(measures, 'LONG_VIDEOS', 32)
    footage = [np.random.RandomState(2).randn(2000, 1, 5).astype(np.float32)]
    found = measures.measure(Loud(), footage, 25.0, [0, 100], videos=256)
    assert [depth.frame for depth in found.depths] == [0, 100]
    for depth in found.depths:
        assert abs(depth.speed - 2) < 0.1
        assert np.allclose(depth.variances, 4, atol=0.5)
        assert depth.motion_distance > 3 * found.floor[0]
    assert all(np.abs(curve[np.isfinite(curve)]).max() < 0.15 for curve in found.autocorrelations.values())


KILLED = """
import os, signal, sys, report_video
from training.run_page import pictures
clip, calls = pictures.clip, []
def killed(*arguments):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.{signal})
    return clip(*arguments)
pictures.clip = killed
sys.argv[0] = 'report_video.py'
report_video.main()
"""


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_page_goes_on(
    number: signal.Signals, run_dir: pathlib.Path, page: str, tmp_path: pathlib.Path, root: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Killed within its second row of clips: neither the measures nor the first row are made again, and the page is the same."""
    dest = tmp_path / 'page.html'
    code = KILLED.format(signal=number.name)
    words = [sys.executable, '-c', code, f'--run={run_dir}', *SMALL, f'--dest={dest}']
    killed = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert killed.returncode == (-9 if number == signal.SIGKILL else 143), killed.stderr
    if number == signal.SIGTERM:
        assert f'python report_video.py --run={shlex.quote(str(run_dir))[1:-1]}' in killed.stderr.replace("'", '')
    assert not dest.exists()

    def made_again(*arguments: Any) -> Any:
        raise AssertionError('the measures were there')

    rows: list[str] = []
    clip = pictures.clip
    monkeypatch.setattr(measures, 'generate_windows', made_again)
    monkeypatch.setattr(pictures, 'clip', lambda *arguments: rows.append(arguments[-1]) or clip(*arguments))
    result = report(run_dir, f'--dest={dest}')
    assert result.exit_code == 0, result.output
    assert rows == ['row-1', 'row-2']
    assert dest.read_text(encoding='utf-8') == page
    assert [path.name for path in tmp_path.iterdir()] == ['page.html']  # nothing hidden is left


def test_other_options_take_only_what_they_share(run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    kept = KeptParts(str(tmp_path / 'page.html'), ['a snapshot'])
    made: list[int] = []

    def make() -> list[np.ndarray]:
        made.append(1)
        return [np.arange(3), np.zeros((0, 2))]

    for inputs, count in (([0, 60], 1), ([0, 60], 1), ([0, 90], 2)):
        found = kept.part('videos', inputs, make)
        assert len(made) == count
        assert [values.tolist() for values in found] == [[0, 1, 2], []]
    KeptParts(str(tmp_path / 'page.html'), ['another snapshot']).part('videos', [0, 60], make)
    assert len(made) == 3
    for path in pathlib.Path(kept.folder).iterdir():
        path.write_bytes(path.read_bytes()[:-30])  # a power cut
    assert kept.part('videos', [0, 60], make)[0].tolist() == [0, 1, 2]
    assert len(made) == 4


def test_frames_that_take_long_are_kept(
    tiny_generator: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    G: Any = checkpoints.load_generator(str(tiny_generator))
    codes = torch.randn(21, 6, 8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(kept_parts, 'KEEP_SECONDS', math.inf)
    whole = list(KeptParts(str(tmp_path / 'a.html'), 0).frames('row', G, codes, lambda frames: frames))
    assert len(whole) == 21
    assert not (tmp_path / '.a.html.unfinished').exists()  # quick ones are not
    monkeypatch.setattr(kept_parts, 'KEEP_SECONDS', 0)
    kept = KeptParts(str(tmp_path / 'b.html'), 0)
    for _ in zip(range(18), kept.frames('row', G, codes, lambda frames: frames), strict=False):
        pass
    rendered: list[int] = []
    render = kept_parts.render_codes
    monkeypatch.setattr(kept_parts, 'render_codes', lambda G, ws, batch: rendered.append(len(ws)) or render(G, ws, batch=batch))
    again = list(kept.frames('row', G, codes, lambda frames: frames))
    assert rendered == [5]
    assert np.array_equal(np.stack(again), np.stack(whole))
    kept.drop('row')
    assert list(pathlib.Path(kept.folder).iterdir()) == []


def test_a_disk_that_keeps_nothing_costs_nothing_else(run_dir: pathlib.Path, page: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / '.page.html.unfinished').write_text('a file where the folder would be')
    result = report(run_dir, f'--dest={tmp_path}/page.html')
    assert result.exit_code == 0, result.output
    assert (tmp_path / 'page.html').read_text(encoding='utf-8') == page


def test_one_page_at_a_time(run_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with lock_target(tmp_path / 'page.html', '--dest'):
        result = report(run_dir, f'--dest={tmp_path}/page.html')
    assert result.exit_code == 2
    assert f'--dest: {tmp_path}/page.html is in use by' in result.output


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--run={folder}/none'], 'there is no folder'),
        (['--run={folder}'], 'holds no network-snapshot'),
        (['--dest=x.pdf'], 'does not end in .html'),
        (['--dest={folder}/none/x.html'], 'there is no folder'),
        (['--depths=0,10'], 'less than 25 frames apart'),
        (['--depths=10,0'], 'does not rise'),
        (['--data={folder}/none.zip'], 'is not where it was'),
        (['--data={other}'], 'not the data set that this run was trained on'),
        (['--subject=none.jpg'], "there is no file or folder 'none.jpg'"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], sentence: str, run_dir: pathlib.Path, tiny_latents: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    filled = [word.format(folder=tmp_path, other=tiny_latents) for word in arguments]
    result = report(run_dir, *filled)
    assert result.exit_code == 2, result.output
    assert result.output.count('Error:') == 1
    assert sentence in result.output
    assert list(tmp_path.iterdir()) == []
