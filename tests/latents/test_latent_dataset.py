"""Latent data sets: what is written is read again, bad files get one sentence, an interruption breaks nothing."""

import json
import pathlib
import shutil
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from networks.errors import InputError
from training.latents import dataset as latent_dataset
from training.latents import layout
from training.latents.dataset import LatentDataset, LatentDatasetWriter

GENERATOR = {'sha256': 'a' * 64, 'path': 'G.pkl'}


def make_codes(length: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randn(length, 3, 5).astype(np.float32)


def open_writer(path: pathlib.Path, **settings: Any) -> LatentDatasetWriter:
    usual = {'image_generator': GENERATOR, 'num_ws': 3, 'w_dim': 5, 'embedding': {'steps': 1}}
    return LatentDatasetWriter(path, **{**usual, **settings})


@pytest.fixture
def dataset(tmp_path: pathlib.Path) -> pathlib.Path:
    with open_writer(tmp_path / 'data.zip') as writer:
        writer.add_clip('talk: one', make_codes(7, 0), fps=25, source='one.mp4', psnr=30.5)
        writer.add_clip('talk/two', make_codes(4, 1), fps=25, source='two.mp4')
    return tmp_path / 'data.zip'


def test_zip_and_folder_hold_the_same(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(dataset) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / 'folder')
    digests = []
    for path in (dataset, tmp_path / 'folder'):
        with LatentDataset(path) as data:
            assert [(clip.name, clip.num_frames, clip.fps, clip.source) for clip in data.clips] == [
                ('talk: one', 7, 25.0, 'one.mp4'),
                ('talk/two', 4, 25.0, 'two.mp4'),
            ]
            assert data.clips[0].extra == {'psnr': 30.5}
            assert (data.num_ws, data.w_dim, data.fps, data.num_frames, len(data)) == (3, 5, 25.0, 11, 2)
            assert data.image_generator == GENERATOR
            for index in (0, 1):
                np.testing.assert_array_equal(data.load_clip(index), make_codes((7, 4)[index], index))
            digests.append(data.sha256)
    assert digests[0] == digests[1]
    # Members are plain .npy files for everybody else.
    np.testing.assert_array_equal(np.load(tmp_path / 'folder' / 'clips' / '00001-talk_two.npy'), make_codes(4, 1))


def test_clips_are_mapped_and_the_file_stays_as_it_is(dataset: pathlib.Path) -> None:
    before = dataset.read_bytes()
    with LatentDataset(dataset) as data:
        codes = data.load_clip(0)
        assert isinstance(codes.base, np.memmap)
        assert codes.flags.aligned
        codes[:] = 0
        assert data.load_clip(0).any()
    assert codes.sum() == 0  # still there after close
    assert dataset.read_bytes() == before


def test_digest_tells_any_difference(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    digests = {LatentDataset(dataset).sha256}
    for number, (changed, fps, name) in enumerate(((True, 25, 'talk: one'), (False, 30, 'talk: one'), (False, 25, 'other'))):
        codes = make_codes(7, 0)
        if changed:
            codes[6, 2, 4] = np.nextafter(codes[6, 2, 4], 9)
        with open_writer(tmp_path / f'{number}.zip') as writer:
            writer.add_clip(name, codes, fps=fps, source='one.mp4')
            writer.add_clip('talk/two', make_codes(4, 1), fps=25, source='two.mp4')
        digests.add(LatentDataset(tmp_path / f'{number}.zip').sha256)
    assert len(digests) == 4


# ----------------------------------------------------------------------------
# What others may hand us.


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[pathlib.Path], None]:
    def apply(folder: pathlib.Path) -> None:
        description = json.loads((folder / 'dataset.json').read_text())
        change(description)
        (folder / 'dataset.json').write_text(json.dumps(description))

    return apply


def replace_clip(array: np.ndarray, **options: Any) -> Callable[[pathlib.Path], None]:
    return lambda folder: np.save(folder / 'clips' / '00000-talk_one.npy', array, **options)


BAD_FOLDERS: dict[str, tuple[Callable[[pathlib.Path], object], str]] = {
    'no description': (lambda folder: (folder / 'dataset.json').unlink(), 'no dataset.json'),
    'bad JSON': (lambda folder: (folder / 'dataset.json').write_text('{'), 'not valid JSON'),
    'images': (lambda folder: (folder / 'dataset.json').write_text('{"labels": null}'), 'not a latent data set'),
    'newer': (edit(lambda d: d.update(format_version=99)), 'format_version is 99'),
    'empty': (edit(lambda d: d.update(clips=[])), 'empty'),
    'num_ws differs': (edit(lambda d: d.update(num_ws=4)), r'shape \[7, 3, 5\], but dataset.json promises \[7, 4, 5\]'),
    'num_ws absurd': (edit(lambda d: d.update(num_ws='18')), "num_ws = '18'"),
    'frames differ': (edit(lambda d: d['clips'][0].update(num_frames=8)), r'promises \[8, 3, 5\]'),
    'no generator': (edit(lambda d: d.update(image_generator=None)), 'image generator'),
    'twice': (edit(lambda d: d['clips'].append(d['clips'][0])), 'two clips'),
    'outside': (edit(lambda d: d['clips'][0].update(file='../clips/x.npy')), 'missing'),
    'lost': (lambda folder: (folder / 'clips' / '00001-talk_two.npy').unlink(), 'missing'),
    'objects': (replace_clip(np.array([{}] * 7), allow_pickle=True), 'object'),
    'integers': (replace_clip(np.zeros((7, 3, 5), np.int64)), 'int64'),
    'cut off': (
        lambda folder: (folder / 'clips' / '00000-talk_one.npy').write_bytes(
            (folder / 'clips' / '00000-talk_one.npy').read_bytes()[:-1]
        ),
        'cut off',
    ),
    'no array': (lambda folder: (folder / 'clips' / '00000-talk_one.npy').write_bytes(b'x' * 500), 'cannot be read'),
}


@pytest.mark.parametrize('case', BAD_FOLDERS)
def test_bad_data_sets_get_a_sentence(dataset: pathlib.Path, tmp_path: pathlib.Path, case: str) -> None:
    with zipfile.ZipFile(dataset) as archive:
        archive.extractall(tmp_path / 'bad')
    spoil, sentence = BAD_FOLDERS[case]
    spoil(tmp_path / 'bad')
    with pytest.raises(InputError, match=sentence):
        LatentDataset(tmp_path / 'bad')
    # The same inside of a zip.
    shutil.make_archive(str(tmp_path / 'bad'), 'zip', tmp_path / 'bad')
    with pytest.raises(InputError):
        LatentDataset(tmp_path / 'bad.zip')


def test_codes_that_are_not_finite_are_named(tmp_path: pathlib.Path) -> None:
    with open_writer(tmp_path / 'data') as writer:
        writer.add_clip('talk', make_codes(9, 0), fps=25, source='')
    path = tmp_path / 'data' / 'clips' / '00000-talk.npy'
    codes = np.load(path)
    codes[5, 1, 2] = np.nan
    np.save(path, codes)
    with LatentDataset(tmp_path / 'data') as data, pytest.raises(InputError, match=r"clip 'talk' .* frame 5"):
        data.load_clip(0)
    with LatentDataset(tmp_path / 'data') as data:
        assert len(list(data.pieces(0, 2))) == 1  # frames 0, 2, 4, 6, 8
        with pytest.raises(InputError, match=r"clip 'talk' .* frame 5"):
            list(data.pieces(0, 5))


@pytest.mark.parametrize('dtype', ['<f4', '<f8'])  # float64 files are read whole and converted
@pytest.mark.parametrize('step', [1, 2, 3, 20])
def test_pieces_are_the_clip(dataset: pathlib.Path, tmp_path: pathlib.Path, monkeypatch, step: int, dtype: str) -> None:
    with zipfile.ZipFile(dataset) as archive:
        archive.extractall(tmp_path / 'folder')
    for file in (tmp_path / 'folder' / 'clips').iterdir():
        np.save(file, np.load(file).astype(dtype))
    monkeypatch.setattr(latent_dataset, 'CHECKED_AT_ONCE', 2 * 15)  # two frames
    for path in (dataset, tmp_path / 'folder'):
        with LatentDataset(path) as data:
            for index, length in enumerate((7, 4)):
                pieces = list(data.pieces(index, step))
                assert [len(piece) for piece in pieces[:-1]] == [2] * (len(pieces) - 1)
                np.testing.assert_array_equal(np.concatenate(pieces), make_codes(length, index)[::step])


def test_files_that_are_no_zip(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    whole = dataset.read_bytes()
    for name, content in (('cut.zip', whole[:-40]), ('text.zip', b'hello'), ('nothing.zip', b'')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match='not a zip'):
            LatentDataset(tmp_path / name)
    with zipfile.ZipFile(dataset) as archive, zipfile.ZipFile(tmp_path / 'small.zip', 'w', zipfile.ZIP_DEFLATED) as small:
        for name in archive.namelist():
            small.writestr(name, archive.read(name))
    with LatentDataset(tmp_path / 'small.zip') as packed, LatentDataset(dataset) as plain:  # packed again by somebody
        assert packed.sha256 == plain.sha256
    with pytest.raises(InputError, match='no such file'):
        LatentDataset(tmp_path / 'absent.zip')
    np.savez(tmp_path / 'codes.npz', w=np.zeros((3, 6, 8), np.float32))
    with pytest.raises(InputError, match=r'codes alone.*latents_tool\.py convert --source=.*codes\.npz'):
        LatentDataset(tmp_path / 'codes.npz')


# ----------------------------------------------------------------------------
# Interruptions.


def test_an_error_keeps_the_old_file_and_the_next_run_goes_on(dataset: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dataset.read_bytes()
    with pytest.raises(InputError, match='already exists'):
        open_writer(dataset)

    def work() -> LatentDatasetWriter:
        with open_writer(dataset, overwrite=True) as writer:
            if not writer.has_clip('new'):
                writer.add_clip('new', make_codes(3, 2), fps=30, source='')
            return writer

    def full(*_: Any) -> None:
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(layout.shutil, 'copyfileobj', full)
        with pytest.raises(OSError, match='No space'):
            work()
    assert dataset.read_bytes() == before
    assert sorted(path.name for path in dataset.parent.iterdir()) == ['data.zip', 'data.zip.partial']
    assert work().resumed
    assert [path.name for path in dataset.parent.iterdir()] == ['data.zip']
    with LatentDataset(dataset) as data:
        assert [clip.name for clip in data.clips] == ['new']


def test_a_clip_goes_on_after_its_last_whole_chunk(tmp_path: pathlib.Path) -> None:
    codes = make_codes(11, 3)
    writer = open_writer(tmp_path / 'data.zip')
    clip = writer.open_clip('talk', chunk=4)
    clip.append(codes[:4], [{'psnr': 20.0}] * 4)
    clip.append(codes[4:8], [{'psnr': 30.0}] * 4)
    (part,) = (tmp_path / 'data.zip.partial' / 'clips').glob('*.npy.part')
    with open(part, 'ab') as file:
        file.write(b'half a frame')

    del clip, writer  # with their lock, as a kill does
    again = open_writer(tmp_path / 'data.zip')
    assert again.resumed
    clip = again.open_clip('talk', chunk=4)
    assert clip.num_frames == 8
    np.testing.assert_array_equal(clip.last_codes(2), codes[6:8])
    # Codes whose measures did not reach the disk are made again.
    (measures,) = (tmp_path / 'data.zip.partial' / 'clips').glob('*.measures.part')
    measures.write_text(''.join(measures.read_text().splitlines(keepends=True)[:-1]) + '{"psn')
    del clip, again
    clip = open_writer(tmp_path / 'data.zip').open_clip('talk', chunk=4)
    assert clip.num_frames == 4
    clip.append(codes[4:], [{}] * 7)
    clip.close(fps=25, source='')
    clip._writer.finish()
    with LatentDataset(tmp_path / 'data.zip') as data:
        np.testing.assert_array_equal(data.load_clip(0), codes)
        assert data.clips[0].extra == {'psnr': 20.0}


def test_a_partial_run_with_other_settings_is_not_mixed_in(tmp_path: pathlib.Path) -> None:
    open_writer(tmp_path / 'data.zip').add_clip('one', make_codes(3, 0), fps=25, source='')
    for settings in ({'embedding': {'steps': 2}}, {'image_generator': {'sha256': 'b' * 64}}, {'w_dim': 6}):
        with pytest.raises(InputError, match='interrupted run with other settings'):
            open_writer(tmp_path / 'data.zip', **settings)
    # The generator may have moved.
    assert open_writer(tmp_path / 'data.zip', image_generator={**GENERATOR, 'path': 'elsewhere.pkl'}).has_clip('one')


def test_bad_codes_are_refused_when_written(tmp_path: pathlib.Path) -> None:
    writer = open_writer(tmp_path / 'data.zip')
    broken = make_codes(6, 0)
    broken[4] = np.inf
    for codes, fps, sentence in (
        (broken, 25, "clip 'x' .* frame 4"),
        (np.zeros((3, 5)), 25, r'shape \[3, 5\]'),
        (np.zeros((2, 4, 5)), 25, r'\[2, 4, 5\]'),
        (np.zeros((0, 3, 5)), 25, 'no frames'),
        (make_codes(2, 0), float('nan'), 'rate'),
    ):
        with pytest.raises(InputError, match=sentence):
            writer.add_clip('x', codes, fps=fps, source='')
    with pytest.raises(InputError, match='no clip'):
        writer.finish()
    assert not (tmp_path / 'data.zip').exists()
