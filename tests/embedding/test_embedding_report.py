"""The quality report: its numbers, pictures and page, and the distance of faces."""

import html.parser
import json
import pathlib
import sys
from typing import Any

import click.testing
import imageio_ffmpeg
import numpy as np
import PIL.Image
import pytest
import torch

import embed_video
from networks.checkpoints import load_generator
from networks.errors import InputError
from training.embedding import face_identity
from training.embedding.clip_review import ClipReview, second_differences
from training.embedding.encoder_loss import peak_signal_to_noise
from training.embedding.inversion import Inversion, InversionOptions
from training.embedding.report import MOST_POINTS, EmbeddingReport, plot_measures
from training.latents.dataset import LatentDataset
from training.latents.frame_measures import FrameMeasures, read_measures
from training.videos.synthesis import render_codes


@pytest.fixture(scope='module')
def G(tiny_generator: pathlib.Path) -> Any:
    return load_generator(str(tiny_generator))


@pytest.fixture(scope='module')
def codes(G: Any) -> np.ndarray:
    ends = G.mapping(torch.from_numpy(np.random.RandomState(3).randn(2, 8)).float(), None)
    return torch.lerp(ends[:1], ends[1:], torch.sin(torch.arange(13) / 2)[:, None, None]).numpy()


def run(*arguments: Any) -> click.testing.Result:
    return click.testing.CliRunner().invoke(embed_video.main, [*map(str, arguments), '--device=cpu', '--perceptual=none'])


class Links(html.parser.HTMLParser):
    """Collects the files that a page shows."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.files += [value for key, value in attrs if key in ('src', 'poster') and value]


def test_report_of_footage(tiny_generator: pathlib.Path, G: Any, codes: np.ndarray, tmp_path: pathlib.Path) -> None:
    originals = np.stack(list(render_codes(G, codes)))
    for name in ('a b', 'a_b'):  # the same name as a file
        (tmp_path / 'set' / name).mkdir(parents=True)
        for index, frame in enumerate(originals):
            PIL.Image.fromarray(frame).save(tmp_path / 'set' / name / f'{index:02d}.png')
    arguments = [
        f'--network={tiny_generator}',
        f'--source={tmp_path / "set"}',
        f'--dest={tmp_path / "data.zip"}',
        '--chunk=5',
        '--measure-every=3',
        '--identity=no',
    ]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / 'data-report'
    report = json.loads((folder / 'report.json').read_text())
    with LatentDataset(tmp_path / 'data.zip') as dataset:
        found = dataset.load_clip(0)
        extra, quality = dataset.clips[0].extra, dataset.quality
    assert report['quality'] == quality
    assert report['num_frames'] == 26
    clip = report['clips'][0]
    # The numbers are those of the codes in the data set.
    inversion = Inversion(G, None, InversionOptions())
    targets = torch.from_numpy(originals).permute(0, 3, 1, 2) / 127.5 - 1
    images = inversion.synthesize(torch.from_numpy(found)).clamp(-1, 1)
    assert extra['psnr'] == pytest.approx(float(peak_signal_to_noise(images, targets)[::3].mean()), abs=1e-3)
    assert extra['deviation'] == pytest.approx(float(inversion.deviations(torch.from_numpy(found)).mean()), abs=1e-4)
    assert extra['jitter'] == pytest.approx(float(second_differences(inversion.whiten(torch.from_numpy(found))).mean()), abs=1e-4)
    second = np.diff(originals.astype(np.float64), 2, axis=0)
    assert clip['pixel_jitter_original'] == pytest.approx(np.sqrt((second**2).mean(axis=(1, 2, 3))).mean(), rel=1e-4)
    rows = list(read_measures(str(folder / clip['measures'])))
    assert [index for index, row in enumerate(rows) if 'psnr' in row] == [0, 3, 6, 9, 12]
    assert [index for index, row in enumerate(rows) if 'pixel_jitter' in row] == list(range(2, 13))
    frames = imageio_ffmpeg.read_frames(str(folder / clip['video']))
    assert (next(frames)['size'], len(list(frames))) == ((32, 16), 13)
    for key in ('plot', 'frames'):
        with PIL.Image.open(folder / clip[key]) as picture:
            assert np.asarray(picture.convert('L')).std() > 5
    page = Links()
    page.feed((folder / 'index.html').read_text())
    assert len(page.files) == 8
    assert all((folder / name).is_file() for name in page.files)
    assert len(list(folder.iterdir())) == 2 * 4 + 2
    # Another data set of this name leaves nothing of the old report.
    (folder / 'notes.txt').write_text('mine')
    arguments[1] = f'--source={tmp_path / "set" / "a b"}'
    assert run(*arguments, '--overwrite').exit_code == 0
    assert len(list(folder.iterdir())) == 4 + 2 + 1


def test_codes_have_a_report_when_asked_for(tiny_generator: pathlib.Path, codes: np.ndarray, tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / 'talk.npz', w=codes, fps=30)
    arguments = [f'--network={tiny_generator}', f'--source={tmp_path / "talk.npz"}', f'--dest={tmp_path / "data.zip"}']
    assert run(*arguments).exit_code == 0
    assert not (tmp_path / 'data-report').exists()
    assert run(*arguments, '--overwrite', '--report').exit_code == 0
    (clip,) = json.loads((tmp_path / 'data-report' / 'report.json').read_text())['clips']
    assert clip['pixel_jitter'] > 0
    assert 'psnr' not in clip
    frames = imageio_ffmpeg.read_frames(str(tmp_path / 'data-report' / clip['video']))
    assert (next(frames)['size'], len(list(frames))) == ((16, 16), 13)
    with LatentDataset(tmp_path / 'data.zip') as dataset:
        np.testing.assert_array_equal(dataset.load_clip(0), codes)
    codes = codes.copy()
    codes[7] = np.inf
    np.savez(tmp_path / 'talk.npz', w=codes, fps=30)
    result = run(*arguments, '--overwrite', '--report')
    assert result.exit_code == 2
    assert 'frame 7' in result.output


def test_memory_of_a_review_does_not_grow(G: Any, codes: np.ndarray, tmp_path: pathlib.Path) -> None:
    """A clip of any length keeps a bounded number of frames, spread over all of it, and the worst."""
    inversion = Inversion(G, None, InversionOptions())
    review = ClipReview(inversion, fps=25, measure_every=1, video=str(tmp_path / 'x.mp4'), identity=None)
    frames = np.full([10, 16, 16, 3], 128, np.uint8)
    with review:
        for start in range(0, 500, 10):
            frames[:] = 255 if start == 250 else 128
            review.add(frames, torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1, torch.from_numpy(codes[:10]))
            assert len(review._even) <= 33
    even, worst = review.shown_frames()
    assert len(even) == 8
    assert even[0].index == 0
    assert even[-1].index > 400
    assert all(250 <= shown.index < 260 for shown in worst)


def test_of_a_long_clip_the_video_shows_the_beginning_and_every_eighth_second(
    G: Any, codes: np.ndarray, tmp_path: pathlib.Path
) -> None:
    """Other frames are rendered where they are measured only; jitter is that of frames in a row, whatever the chunks are."""
    inversion = Inversion(G, None, InversionOptions())
    frames = np.random.default_rng(0).integers(0, 256, [450, 16, 16, 3], dtype=np.uint8)
    targets = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    ws = torch.from_numpy(codes[np.arange(450) % len(codes)])
    found = []
    for chunk in (450, 7):
        path = tmp_path / f'{chunk}.mp4'
        rows: list[dict[str, float]] = []
        with ClipReview(inversion, fps=25, measure_every=10, video=str(path), identity=None) as review:
            for start in range(0, 450, chunk):
                part = slice(start, start + chunk)
                rows += review.add(frames[part], targets[part], ws[part])
        filmed = [index for index in range(450) if index < 250 or 400 <= index < 425]
        assert len(list(imageio_ffmpeg.read_frames(str(path)))) - 1 == len(filmed)
        assert [index for index, row in enumerate(rows) if 'psnr' in row] == list(range(0, 450, 10))
        jitter = [index for index, row in enumerate(rows) if 'pixel_jitter' in row]
        assert jitter == [index for index in filmed if index >= 2 and index not in (400, 401)]
        found.append([rows[index]['pixel_jitter_original'] for index in jitter])
    expected = np.diff(frames.astype(float), n=2, axis=0)[np.array(jitter) - 2]
    np.testing.assert_allclose(found[0], np.sqrt((expected**2).mean(axis=(1, 2, 3))), rtol=1e-5)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    even, _ = review.shown_frames()
    assert [shown.index for shown in even] == sorted({shown.index for shown in even})
    assert max(np.diff([shown.index for shown in even])) < 90


def test_measures_survive_a_cut(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'm.jsonl'
    measures = FrameMeasures(str(path))
    measures.append([{'psnr': 20.0}, {}, {'psnr': 30.0, 'lpips': float('nan')}])
    assert measures.averages() == {'psnr': 25.0}
    path.write_text(path.read_text() + '{"psnr": 4')
    again = FrameMeasures(str(path))
    assert again.num_frames == 3
    again.truncate(2)
    assert again.averages() == {'psnr': 20.0}
    assert len(list(read_measures(str(path)))) == 2
    # A long clip's curve has a bounded number of points, and still its extremes.
    long = FrameMeasures(str(tmp_path / 'long.jsonl'))
    long.append({'psnr': 20.0 + (index == 7777)} for index in range(8 * MOST_POINTS))
    plot_measures(long.path, 25, str(tmp_path / 'long.png'), title='long')
    assert (tmp_path / 'long.png').is_file()
    plot_measures(str(tmp_path / 'none.jsonl'), 25, str(tmp_path / 'none.png'), title='none')
    assert not (tmp_path / 'none.png').exists()


def test_without_matplotlib_a_clip_has_no_plot(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ('matplotlib', 'matplotlib.figure'):
        monkeypatch.setitem(sys.modules, name, None)
    measures = FrameMeasures(str(tmp_path / 'm.jsonl'))
    measures.append([{'psnr': 20.0}] * 3)
    report = EmbeddingReport(str(tmp_path / 'report'), {})
    report.add_clip(0, 'walk', 25, measures.path, [], [])
    assert 'Skipping the plot of the measures: ' in capsys.readouterr().out
    assert [path.name for path in (tmp_path / 'report').iterdir()] == ['00000-walk.jsonl']


def test_without_dlib_it_says_how_to_install_it(
    tiny_generator: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face_identity, '_model_folder', lambda: None)
    monkeypatch.setitem(sys.modules, 'dlib', None)  # it may be there
    with pytest.raises(InputError, match='pip install dlib-bin'):
        face_identity.FaceIdentity()
    PIL.Image.new('RGB', (16, 16)).save(tmp_path / 'x.png')
    files = [f'--network={tiny_generator}', f'--source={tmp_path / "x.png"}', f'--dest={tmp_path / "x.zip"}']
    result = run(*files, '--identity=yes')
    assert result.exit_code == 2
    assert 'pip install dlib-bin' in result.output


@pytest.mark.skipif(not face_identity.is_installed(), reason=f'needs {face_identity.INSTALL}')
def test_faces_of_one_person_are_near(shared: pathlib.Path) -> None:
    from training.footage.clips import open_footage

    frames = {}
    for name in ('lp-d10', 'lp-d3'):
        (clip,) = open_footage(shared / 'footage' / 'aligned128' / f'{name}.mp4')
        frames[name] = [frame for _, frame in zip(range(31), clip.frames(), strict=False)]
    identity = face_identity.FaceIdentity()
    first = frames['lp-d10'][0]
    assert identity(first, first) == 0
    near, far = identity(first, frames['lp-d10'][30]), identity(first, frames['lp-d3'][0])
    assert near is not None
    assert far is not None
    assert near < 0.6 < far
    assert identity(np.full_like(first, 128), first) is None


def test_identity_is_in_the_numbers(G: Any, codes: np.ndarray, tmp_path: pathlib.Path) -> None:
    review = ClipReview(
        Inversion(G, None, InversionOptions()),
        fps=25,
        measure_every=2,
        video=str(tmp_path / 'x.mp4'),
        identity=lambda original, embedded: None if original.mean() > 200 else float(original.mean()),
    )
    frames = np.stack([np.full([16, 16, 3], value, np.uint8) for value in (10, 20, 30, 40, 250)])
    with review:
        rows = review.add(frames, torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1, torch.from_numpy(codes[:5]))
    assert [row.get('identity') for row in rows] == [10, None, 30, None, None]
