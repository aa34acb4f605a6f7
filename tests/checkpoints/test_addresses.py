"""Addresses of files of weights: paths, URLs, the hub and short names, and what is said when they cannot be had."""

import hashlib
import pathlib
import sys
import types

import pytest

from networks.checkpoints import addresses
from networks.errors import InputError


def test_a_file_of_a_short_name_is_the_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert addresses.is_address('ffhq1024')
    (tmp_path / 'ffhq1024').write_bytes(b'x')
    assert not addresses.is_address('ffhq1024')
    assert addresses.resolve('ffhq1024') == 'ffhq1024'
    assert addresses.resolve('a/b.pkl') == 'a/b.pkl'


@pytest.mark.parametrize('text', ['hf://owner', 'hf://owner/', 'hf://owner/repo/file@', 'http://', 'https:///x'])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match='is no address'):
        addresses.resolve(text)


def hub(monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes], folder: pathlib.Path) -> list[tuple]:
    """Stand in for the package huggingface_hub; returns the calls."""
    calls: list[tuple] = []

    def download(name: str, file: str, *, revision: str | None, etag_timeout: float) -> str:
        calls.append((name, file, revision))
        if file not in content:
            raise FileNotFoundError(f'404: no {file}\nin {name}')
        (folder / 'found').write_bytes(content[file])
        return str(folder / 'found')

    module = types.SimpleNamespace(hf_hub_download=download, snapshot_download=lambda name, **how: f'{name}@{how["revision"]}')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
    return calls


def test_files_and_repositories_of_the_hub(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, {'a/G.pkl': b'1'}, tmp_path)
    assert pathlib.Path(addresses.resolve('hf://me/my.repo/a/G.pkl@v1')).read_bytes() == b'1'
    assert calls == [('me/my.repo', 'a/G.pkl', 'v1')]
    assert addresses.resolve('hf://me/my.repo@main') == 'me/my.repo@main'
    with pytest.raises(InputError, match='cannot be had: 404: no b in me'):
        addresses.resolve('hf://me/my.repo/b')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(InputError, match='pip install huggingface_hub'):
        addresses.resolve('hf://me/my.repo/b')


def test_sources_are_tried_until_one_has_the_right_content(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'weights'
    calls = hub(monkeypatch, {'wrong': b'something else', 'right': content}, tmp_path)
    named = addresses.Named(('hf://a/b/absent', 'hf://a/b/wrong', 'hf://a/b/right'), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(addresses.NAMES, 'thing', named)
    assert pathlib.Path(addresses.resolve('thing')).read_bytes() == content
    assert [file for _, file, _ in calls] == ['absent', 'wrong', 'right']
    monkeypatch.setitem(addresses.NAMES, 'thing', addresses.Named(named.sources[:2], named.sha256))
    with pytest.raises(InputError, match='wrong: its sha256 is'):
        addresses.resolve('thing')


def test_what_is_in_the_table_can_be_an_address() -> None:
    for name, named in addresses.NAMES.items():
        assert named.sources, name
        for source in named.sources:
            addresses.check(source)
        assert named.sha256 is None or len(bytes.fromhex(named.sha256)) == 32
