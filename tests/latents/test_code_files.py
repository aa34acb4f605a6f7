"""Codes and data sets as other tools and file managers leave them."""

import pathlib
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch

from networks.errors import InputError
from training.embedding.embedder import open_sources
from training.latents.code_files import holds_codes, open_codes, read_codes
from training.latents.dataset import LatentDataset, LatentDatasetWriter, is_latent_dataset

SHAPE = {'num_ws': 4, 'w_dim': 8}


def codes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randn(count, 4, 8).astype(np.float32)


def test_hidden_files_are_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / '.ipynb_checkpoints').mkdir()
    np.save(tmp_path / 'a.npy', codes(5))
    np.save(tmp_path / '.ipynb_checkpoints' / 'a-checkpoint.npy', codes(5))
    (tmp_path / '._a.npy').write_bytes(b'\x00\x05\x16\x07')
    (tmp_path / 'loop').symlink_to('.')
    assert holds_codes(str(tmp_path), **SHAPE)
    assert [(clip.name, len(clip.load())) for clip in open_codes(str(tmp_path), **SHAPE)] == [('a', 5)]


def test_what_a_projector_leaves_is_codes(tmp_path: pathlib.Path) -> None:
    for number in range(12):
        folder = tmp_path / f'frame{number}'
        folder.mkdir()
        np.savez(folder / 'projected_w.npz', w=codes(1, number))
        PIL.Image.new('RGB', (8, 8)).save(folder / 'proj.png')
        (folder / 'proj.mp4').write_bytes(b'a film of the optimisation')
    (clip,) = open_sources([str(tmp_path)], **SHAPE, fps=None, keep_damaged=False)
    np.testing.assert_array_equal(clip.load(), np.concatenate([codes(1, number) for number in range(12)]))


def test_codes_beside_pictures_are_asked_about_and_other_arrays_are_not(tmp_path: pathlib.Path) -> None:
    PIL.Image.new('RGB', (8, 8)).save(tmp_path / '0.png')
    np.save(tmp_path / 'landmarks.npy', np.zeros((9, 68, 2), np.float32))
    np.save(tmp_path / 'quads.npy', np.zeros((9, 4, 2), np.float32))
    assert not holds_codes(str(tmp_path), **SHAPE)
    np.save(tmp_path / 'w.npy', codes(3))
    with pytest.raises(InputError, match=r'holds W\+ codes \(w\.npy\) as well as pictures'):
        holds_codes(str(tmp_path), **SHAPE)


@pytest.mark.parametrize('fps', [np.float64(30), np.array([30.0]), np.array([[30]]), 30])
def test_rates_in_every_form(tmp_path: pathlib.Path, fps: object) -> None:
    np.savez(tmp_path / 'a.npz', w=codes(3), fps=fps)
    assert read_codes(str(tmp_path / 'a.npz'), **SHAPE)[1] == 30
    for wrong in ([25, 30], 'fast', np.nan, 0):
        np.savez(tmp_path / 'b.npz', w=codes(3), fps=wrong)
        with pytest.raises(InputError, match='"fps"'):
            read_codes(str(tmp_path / 'b.npz'), **SHAPE)


def test_names_of_other_tools(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / 'a.npz', codes(3))
    torch.save({'latent': torch.from_numpy(codes(3)), 'noise': torch.zeros(2)}, tmp_path / 'b.pt')
    for name in ('a.npz', 'b.pt'):
        np.testing.assert_array_equal(read_codes(str(tmp_path / name), **SHAPE)[0], codes(3))
    np.save(tmp_path / 'frames.npy', np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r'holds frames \(uint8 .* not W\+ codes'):
        read_codes(str(tmp_path / 'frames.npy'), **SHAPE)


def test_a_data_set_that_was_packed_again_opens(tmp_path: pathlib.Path) -> None:
    reference = {'path': 'G.pkl', 'sha256': '0' * 64}
    with LatentDatasetWriter(tmp_path / 'l.zip', image_generator=reference, **SHAPE, embedding={}) as writer:
        writer.add_clip('talk', codes(9), fps=25, source='talk.mp4')
    with LatentDataset(tmp_path / 'l.zip') as dataset:
        wanted = dataset.sha256
    original = zipfile.ZipFile(tmp_path / 'l.zip')
    for name, prefix, separator in (('flat', '', '/'), ('nested', 'l/', '/'), ('windows', 'l\\', '\\')):
        with zipfile.ZipFile(tmp_path / f'{name}.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
            for member in original.namelist():
                info = zipfile.ZipInfo('x')
                info.filename = prefix + member.replace('/', separator)
                archive.writestr(info, original.read(member), zipfile.ZIP_DEFLATED)
                archive.writestr(f'__MACOSX/l/._{member.replace("/", "_")}', b'junk')
        assert is_latent_dataset(str(tmp_path / f'{name}.zip'))
        with LatentDataset(tmp_path / f'{name}.zip') as dataset:
            assert dataset.sha256 == wanted
            np.testing.assert_array_equal(dataset.load_clip(0), codes(9))
    original.extractall(tmp_path / 'folder' / 'l')
    (tmp_path / 'folder' / '.DS_Store').touch()
    with LatentDataset(tmp_path / 'folder') as dataset:
        assert dataset.sha256 == wanted
    with pytest.raises(InputError, match='is a latent data set already'):
        open_sources([str(tmp_path / 'folder')], **SHAPE, fps=None, keep_damaged=False)


@pytest.mark.parametrize(
    ('name', 'words'), [('talk.mp4', 'is footage'), ('G.pkl', 'is a file of weights'), ('a.bin', 'not a zip file')]
)
def test_what_is_no_data_set_is_named(tmp_path: pathlib.Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b'something else')
    with pytest.raises(InputError, match=words):
        LatentDataset(tmp_path / name)
