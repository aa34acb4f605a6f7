"""Names of files: safe, unique, printable, of a length that file systems take, and never a way out of a folder."""

import os
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calc_metrics_video import _similar
from training.commands.command_line import UserMistake, absolute, expand_home, new_result, require_weights
from training.commands.file_names import MAX_BYTES, beside, printable, safe_name, safe_path, unique_names


@pytest.mark.parametrize(
    ('name', 'safe'),
    [
        ('speech', 'speech'), ('take (1)', 'take_1_'), ('ann/1', 'ann_1'), ('ein Gespräch', 'ein_Gespräch'), ('..', '_'),
        ('.hidden', '_hidden'), ('NUL', '_NUL'), ('com1.v2', '_com1.v2'), ('ends.', 'ends'), ('', '_'), ('e\u0301', '\u00e9'),
        ('caf\udce9', 'caf_'),
    ],
)  # fmt: skip
def test_known_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(st.characters(), max_size=400))
def test_any_text_is_a_name_that_can_be_written(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe.encode()) <= MAX_BYTES
    assert safe_name(safe) == safe
    assert not safe.startswith('.')
    assert '/' not in safe
    assert not os.path.isabs(safe_path(name))
    assert not {'', '.', '..'} & set(safe_path(name).split('/'))
    assert printable(name).isprintable()


def test_long_names_are_cut_by_bytes_and_stay_different() -> None:
    names = [safe_name('あ' * 79 + ending) for ending in ('1', '2')]
    assert len(set(names)) == 2
    assert max(len(name.encode()) for name in names) <= MAX_BYTES


def test_names_that_become_equal_are_numbered() -> None:
    assert unique_names(['a', 'b', 'a', 'A', 'a-2']) == ['a', 'b', 'a-2', 'A-3', 'a-2-2']
    assert unique_names(map(safe_name, ['take (1)', 'take [1]'])) == ['take_1_', 'take_1_-2']


def test_what_lies_beside_a_result(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ('latents.zip', 'latents', 'latents/', 'a/faces.v1', 'faces.v1/', 'x.ZIP')
    assert [beside(name, '-report') for name in names] == [
        'latents-report', 'latents-report', 'latents-report', 'a/faces.v1-report', 'faces.v1-report', 'x-report',
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert beside('.', '-report') == f'{tmp_path}-report'


def test_home_is_found_behind_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', '/home/ann')
    given_ = ['--dest=~/x', '--source', '~/y', '--seeds=1~2', '~', '--desc=a~b', '--data=./~']
    assert expand_home(given_) == [
        '--dest=/home/ann/x',
        '--source',
        '/home/ann/y',
        '--seeds=1~2',
        '/home/ann',
        '--desc=a~b',
        '--data=./~',
    ]


def test_results_that_can_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'x').touch()
    assert new_result(f'{tmp_path}/empty/', zipped=True) == f'{tmp_path}/empty'
    assert new_result(f'{tmp_path}/new.v1/', zipped=False) == f'{tmp_path}/new.v1'
    assert new_result(f'{tmp_path}/full', zipped=True, overwrite=True) == f'{tmp_path}/full'
    refused = {
        ('full', True): 'already exists',
        ('e.mp4', True): 'of file',
        ('e.npz', True): 'of file',
        ('e.mkv', False): 'of file',
    }
    for (path, zipped), words in refused.items():
        with pytest.raises(UserMistake, match=words):
            new_result(f'{tmp_path}/{path}', zipped=zipped)


def test_files_of_weights_may_be_addresses(tmp_path: pathlib.Path) -> None:
    require_weights('https://example.org/G.pkl', '--network')
    assert absolute('https://example.org/G.pkl') == 'https://example.org/G.pkl'
    with pytest.raises(UserMistake, match='--network: there is no file'):
        require_weights(str(tmp_path / 'G.pkl'), '--network')


def test_metrics_that_were_meant_perhaps() -> None:
    known = dict.fromkeys(['fvd2048_16f', 'fid2048', 'lfd2048_25f', 'motion_80f'], '')
    assert _similar(['FVD2048_16f'], known).startswith(' (did you mean fvd2048_16f')
    assert _similar(['motoin_80f'], known) == ' (did you mean motion_80f?)'
    assert not _similar(['xyz'], known)
