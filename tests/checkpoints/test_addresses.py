"""Addresses of files of weights: paths, URLs, the hub and short names, and what is said when they cannot be had."""

import bz2
import hashlib
import http.server
import pathlib
import sys
import threading
import tracemalloc
import types
from collections.abc import Iterator

import click
import pytest
import torch

from metrics.features.detectors import load_detector
from networks.checkpoints import addresses
from networks.checkpoints.detector_weights.containers import Container
from networks.errors import InputError
from stylevideogan import layout
from stylevideogan.__main__ import load_command
from training.commands.command_line import UserMistake
from training.embedding import face_identity
from training.footage import face_landmarks


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

    module = types.SimpleNamespace(
        hf_hub_download=download,
        snapshot_download=lambda name, **how: f'{name}@{how["revision"]}',
        try_to_load_from_cache=lambda name, file, revision: None,
        get_hf_file_metadata=lambda url, timeout: None,
        hf_hub_url=lambda name, file, revision: f'{name}/{file}@{revision}',
    )
    monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
    return calls


def test_files_and_repositories_of_the_hub(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, {'a/G.pkl': b'1'}, tmp_path)
    assert pathlib.Path(addresses.resolve('hf://me/my.repo/a/G.pkl@v1')).read_bytes() == b'1'
    assert calls == [('me/my.repo', 'a/G.pkl', 'v1')]
    assert addresses.resolve('hf://me/my.repo@main') == 'me/my.repo@main'
    with pytest.raises(InputError, match='cannot be had: 404: no b in me'):
        addresses.resolve('hf://me/my.repo/b')
    asked: list[str] = []

    def unreachable(url: str, timeout: float) -> None:
        asked.append(f'{url} {timeout:g}')
        raise ConnectionError('no route')

    monkeypatch.setattr(sys.modules['huggingface_hub'], 'get_hf_file_metadata', unreachable)
    del calls[:]
    with pytest.raises(InputError, match=r'hf://me/my\.repo/a/G\.pkl cannot be had: no route'):
        addresses.resolve('hf://me/my.repo/a/G.pkl')
    assert (asked, calls) == (['me/my.repo/a/G.pkl@None 10'], [])  # hf_hub_download would try again for half a minute
    monkeypatch.setattr(sys.modules['huggingface_hub'], 'try_to_load_from_cache', lambda name, file, revision: 'kept')
    assert pathlib.Path(addresses.resolve('hf://me/my.repo/a/G.pkl')).read_bytes() == b'1'  # without a hub, too
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


CONTENT = bytes(range(256)) * 2000
PACKED = bz2.compress(CONTENT)
SITES = {
    '/whole/net.dat.bz2': PACKED,
    '/cut-off/net.dat.bz2': PACKED[:-20],
    '/changed/net.dat.bz2': bz2.compress(CONTENT[::-1]),
    '/short/net.dat.bz2': bz2.compress(CONTENT[:-1]),
    '/damaged/net.dat.bz2': PACKED[:40] + bytes(40) + PACKED[80:],
    '/page/net.dat.bz2': b'<html>no such file</html>',
    '/bomb/net.dat.bz2': bz2.compress(bytes(20_000_000)),  # a few bytes
}


@pytest.fixture
def sites(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A server with SITES, and the paths that it was asked for; the cache is `tmp_path`."""
    asked: list[str] = []

    class Sites(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = SITES.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header('Content-Length', str(len(content or b'')))
            self.end_headers()
            self.wfile.write(content or b'')

        def log_message(self, *_arguments: object) -> None:
            pass

    for name in ('HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Sites) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{running.server_port}', asked
        running.shutdown()


def packed(monkeypatch: pytest.MonkeyPatch, site: str, *folders: str) -> None:
    sources = tuple(f'{site}/{folder}/net.dat.bz2' for folder in folders)
    named = addresses.Named(sources, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    monkeypatch.setitem(addresses.NAMES, 'thing', named)


@pytest.mark.parametrize(
    ('folder', 'words'),
    [
        ('absent', '404'),
        ('cut-off', 'it ends too early'),
        ('changed', 'its sha256, unpacked, is'),
        ('short', 'its sha256, unpacked, is'),
        ('damaged', 'no .bz2 file, or is damaged'),
        ('page', 'no .bz2 file, or is damaged'),
        ('bomb', 'more than the 512000 bytes'),
    ],
)
def test_a_packed_file_is_taken_from_the_next_source_where_one_is_wrong(
    sites: tuple[str, list[str]], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, folder: str, words: str
) -> None:
    site, asked = sites
    packed(monkeypatch, site, folder)
    with pytest.raises(InputError, match=f'thing cannot be had: {site}/{folder}/net.dat.bz2.*{words}'):
        addresses.resolve('thing')
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]  # a later call asks again
    packed(monkeypatch, site, folder, 'whole')
    path = pathlib.Path(addresses.resolve('thing'))
    assert path.read_bytes() == CONTENT
    assert path.name.endswith('_net.dat')
    assert asked[-2:] == [f'/{folder}/net.dat.bz2', '/whole/net.dat.bz2']
    packed(monkeypatch, site, 'whole', folder)
    del asked[:]
    assert addresses.resolve('thing') == str(path)
    assert not asked
    path.write_bytes(CONTENT[:-1])  # what was damaged in the cache is made anew
    assert pathlib.Path(addresses.resolve('thing')).read_bytes() == CONTENT


def test_unpacking_takes_no_more_memory_than_a_piece(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'bomb').write_bytes(SITES['/bomb/net.dat.bz2'])
    tracemalloc.start()
    with pytest.raises(InputError, match='more than'):
        addresses._unpack(str(tmp_path / 'bomb'), str(tmp_path / 'out'), 15_000_000)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 * addresses.PIECE_BYTES
    assert (tmp_path / 'out').stat().st_size <= 15_000_000


def test_the_networks_of_dlib_come_from_files_the_package_or_their_names(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, own = tmp_path / 'package', tmp_path / 'own'
    for folder in (package, own):
        folder.mkdir()
        for name in (face_identity.DESCRIPTOR, face_identity.LANDMARKS):
            (folder / name).write_bytes(b'x')
    found = face_identity.find_models
    monkeypatch.setattr(face_identity, '_model_folder', lambda: str(package))
    monkeypatch.setattr(addresses, 'resolve', lambda name: str(tmp_path / name) if name.startswith('dlib') else name)
    assert found() == (str(package / face_identity.DESCRIPTOR), str(package / face_identity.LANDMARKS))
    descriptor = str(own / face_identity.DESCRIPTOR)
    assert found(descriptor) == (descriptor, str(own / face_identity.LANDMARKS))
    (own / face_identity.LANDMARKS).unlink()
    assert found(descriptor) == (descriptor, str(package / face_identity.LANDMARKS))
    monkeypatch.setattr(face_identity, '_model_folder', lambda: None)
    assert found(descriptor) == (descriptor, str(tmp_path / 'dlib-face-landmarks'))
    with pytest.raises(InputError, match="identity_model='dlib-face-descriptor'"):
        found()
    with pytest.raises(InputError, match='identity_model: there is no file'):
        found('nowhere.dat')
    assert [face_identity.is_wanted(*given) for given in (('auto', None), ('auto', 'x'), ('yes', None), ('no', None))] == [
        False, True, True, False,
    ]  # fmt: skip
    with pytest.raises(InputError, match='leave it or'):
        face_identity.is_wanted('no', 'x')


def test_what_is_no_network_of_dlib_is_told_in_one_line(tmp_path: pathlib.Path) -> None:
    def read(path: str) -> None:
        raise RuntimeError('An error occurred\nwhile deserializing')

    (tmp_path / 'net.dat').write_bytes(b'x')
    with pytest.raises(InputError, match=r'net\.dat does not hold the network of dlib .* An error occurred while deserializing$'):
        face_identity._read(read, str(tmp_path / 'net.dat'))
    (tmp_path / 'net.dat').write_bytes(PACKED)
    with pytest.raises(InputError, match='is compressed; unpack it'):
        face_identity._read(read, str(tmp_path / 'net.dat'))


TAKE_WEIGHTS = {
    '--network', '--image-network', '--encoder', '--init', '--detector', '--lpips-weights', '--face-model', '--identity-model',
}  # fmt: skip


def options_of_weights(command: click.Command, name: str) -> Iterator[tuple[str, click.Command, str]]:
    if isinstance(command, click.Group):
        for part in command.commands.values():
            yield from options_of_weights(part, name)
    for option in command.params:
        if TAKE_WEIGHTS & set(option.opts) or (name, option.opts[0]) == ('convert_network', '--source'):
            yield f'{name} {command.name} {option.opts[-1]}', command, option.opts[-1]


EVERYWHERE = {title: rest for name in layout.COMMANDS for title, *rest in options_of_weights(load_command(name), name)}


@pytest.mark.parametrize('title', EVERYWHERE)
def test_every_option_of_weights_takes_addresses(title: str) -> None:
    command, option = EVERYWHERE[title]
    parameter = next(parameter for parameter in command.params if option in parameter.opts)
    assert parameter.type.name in ('FILE|URL', 'FILE|DIR|URL')
    with click.Context(command) as context:
        for good in ('https://example.org/G.pkl', 'hf://me/repository/G.pkl@v1', 'ffhq1024', __file__):
            assert parameter.type.convert(good, parameter, context) == good
        for bad, words in (
            ('nowhere.pkl', 'there is no file'),
            ('hf://me', 'no address'),
            ('https://', 'no host'),
            ('ffhq', 'did you mean ffhq1024'),
        ):
            with pytest.raises(UserMistake, match=f'{option}: .*{words}'):
                parameter.type.convert(bad, parameter, context)


def test_detectors_and_the_face_model_come_from_addresses(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({'conv.weight': torch.ones(2, 3, 1, 1, 1), 'conv.bias': torch.ones(2)}, tmp_path / 'found.pt')
    monkeypatch.setattr(addresses, '_download', lambda address, sha256: str(tmp_path / 'found.pt'))
    container = Container('https://example.org/i3d.pt')
    assert (container.path, container.kind, len(container.state_dict())) == ('https://example.org/i3d.pt', 'state dict', 2)
    with pytest.raises(InputError, match='does not hold the weights of I3D'):
        load_detector('i3d', ['https://example.org/i3d.pt'])
    assert (
        face_landmarks.model_sha256('https://example.org/face.task')
        == hashlib.sha256((tmp_path / 'found.pt').read_bytes()).hexdigest()
    )
    (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
    hub(monkeypatch, {}, tmp_path)
    monkeypatch.setattr(sys.modules['huggingface_hub'], 'snapshot_download', lambda name, **how: str(tmp_path))
    with pytest.raises(InputError, match="describes a 'bert'"):
        load_detector('videomae', ['hf://me/videomae'])


def test_what_is_in_the_table_can_be_an_address() -> None:
    for name, named in addresses.NAMES.items():
        assert named.sources, name
        for source in named.sources:
            addresses.check(source)
        assert named.sha256 is None or len(bytes.fromhex(named.sha256)) == 32
