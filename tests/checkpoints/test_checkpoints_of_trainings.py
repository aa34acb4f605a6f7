"""Checkpoints as trainings leave them: wrapped names, settings beside the weights; and files of another kind."""

import argparse
import datetime
import decimal
import pathlib
import types
import uuid
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch

from networks.checkpoints import load_encoder, load_generator, load_snapshot, save_module_pickle, torch_archive
from networks.checkpoints.formats.assembly import plain_name
from networks.checkpoints.lazy_data import ByteSource
from networks.errors import InputError


def test_names_of_wrappers() -> None:
    for name in ('style.1.weight', 'module.style.1.weight', '_orig_mod.style.1.weight', 'module._orig_mod.style.1.weight',
                 '_orig_mod.module.style.1.weight', 'style._orig_mod.1.weight'):  # fmt: skip
        assert plain_name(name) == 'style.1.weight'


def test_settings_beside_weights_are_kept_and_not_made(tmp_path: pathlib.Path) -> None:
    settings = {
        'path': pathlib.PurePosixPath('data'), 'windows': pathlib.PureWindowsPath('C:/data'), 'here': pathlib.Path('runs'),
        'when': datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc), 'day': datetime.date(2024, 1, 1),
        'long': datetime.timedelta(1), 'price': decimal.Decimal('1.5'), 'run': uuid.UUID(int=7), 'range': range(3),
        'more': types.SimpleNamespace(a=1), 'args': argparse.Namespace(out=pathlib.Path('x')),
    }  # fmt: skip
    torch.save({'weights': torch.arange(3.0), 'settings': settings}, tmp_path / 'a.pt')
    with open(tmp_path / 'a.pt', 'rb') as file:
        contents = torch_archive.read_zip(ByteSource(file))
        assert contents['settings']['path'] == 'data'
        assert 'not made' in repr(contents['settings']['when'])


def test_files_of_another_kind_are_named(tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r'it is an image generator .*, not a snapshot of train_video\.py'):
        load_snapshot(str(tiny_generator))
    with pytest.raises(InputError, match=r'it is an image generator .*, not the encoder'):
        load_encoder(str(tiny_generator))
    PIL.Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    np.save(tmp_path / 'a.npy', np.zeros(3))
    np.savez(tmp_path / 'a.npz', w=np.zeros(3))
    (tmp_path / 'a.mp4').write_bytes(b'\0\0\0\x20ftypisom' + bytes(100))
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('dataset.json', '{}')
        archive.writestr('clips/0.npy', b'')
    for name, words in (
        ('a.png', 'an image'),
        ('a.npy', 'array of numpy'),
        ('a.npz', r'W\+ codes'),
        ('a.mp4', 'a video'),
        ('a.zip', 'data set'),
    ):
        with pytest.raises(InputError, match=words):
            load_generator(str(tmp_path / name))
    save_module_pickle(tmp_path / 'empty.pkl', {'what': 1})
    with pytest.raises(InputError, match='it holds what, and no image generator'):
        load_generator(str(tmp_path / 'empty.pkl'))
