"""dnnlib: attribute dictionaries, names to objects, logs, times, downloads."""

import concurrent.futures
import copy
import hashlib
import http.server
import os
import pickle
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

import dnnlib
from dnnlib import util


def test_easy_dict():
    d = dnnlib.EasyDict(a=1)
    d.b = {'c': 2}
    d.a += 1
    assert d == {'a': 2, 'b': {'c': 2}}
    assert pickle.loads(pickle.dumps(d)) == copy.deepcopy(d) == d
    assert type(copy.deepcopy(d)) is dnnlib.EasyDict
    del d.a
    with pytest.raises(AttributeError, match='no item'):
        d.a  # noqa: B018
    with pytest.raises(AttributeError):
        del d.a
    assert not hasattr(d, '__wrapped__')


@pytest.mark.parametrize(
    ('seconds', 'long', 'brief'),
    [
        (0.4, '0s', '0s'),
        (59.6, '1m 00s', '1m 00s'),
        (3599, '59m 59s', '59m 59s'),
        (3661, '1h 01m 01s', '1h 01m'),
        (90061, '1d 01h 01m', '1d 01h'),
    ],
)
def test_format_time(seconds, long, brief):
    assert util.format_time(seconds) == long
    assert util.format_time_brief(seconds) == brief


def test_objects_by_name(tmp_path, monkeypatch):
    assert util.get_obj_by_name('os.path.join') is os.path.join
    assert util.get_obj_by_name('np.random.RandomState').__name__ == 'RandomState'
    assert util.call_func_by_name(3, 4, func_name='operator.mul') == 12
    made = util.construct_class_by_name(class_name='dnnlib.util.EasyDict', x=1)
    assert type(made) is dnnlib.EasyDict
    assert util.get_top_level_function_name(util.format_time) == 'dnnlib.util.format_time'
    assert util.get_module_dir_by_obj_name('dnnlib.util.is_url') == os.path.dirname(os.path.abspath(util.__file__))
    assert util.is_pickleable([made])
    assert not util.is_pickleable([lambda: None])
    with pytest.raises(AttributeError):
        util.get_obj_by_name('os.path.nothing')
    with pytest.raises(ImportError, match='no module for the name'):
        util.get_obj_by_name('no_such_module_here.thing')
    with pytest.raises(TypeError, match='cannot be called'):
        util.call_func_by_name(func_name='sys.version')
    # a module that is there, but needs one that is not: the message is about the latter
    (tmp_path / 'module_with_a_need.py').write_text('import something_that_is_missing\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match='something_that_is_missing'):
        util.get_obj_by_name('module_with_a_need.thing')


def test_logger(tmp_path):
    script = """
import sys
from dnnlib.util import Logger
with Logger(sys.argv[1], 'a'):
    print('one')
    print('two', file=sys.stderr)
    sys.stdout.write(b'three\\n')
    print(sys.stdout.isatty(), sys.stdout.encoding.lower())
print('four')
"""
    log = tmp_path / 'log.txt'
    log.write_text('zero\n')
    done = subprocess.run(
        [sys.executable, '-c', script, str(log)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, 'PYTHONIOENCODING': 'utf-8'},
        cwd=os.path.dirname(util.__file__) + '/..',
    )
    assert log.read_text() == 'zero\none\ntwo\nthree\nFalse utf-8\n'
    assert done.stdout == 'one\ntwo\nthree\nFalse utf-8\nfour\n'


def test_lists_and_copies_files(tmp_path):
    for name in ('a.py', 'b/c.py', 'b/c.pyc', '__pycache__/d.py'):
        path = tmp_path / 'tree' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    found = util.list_dir_recursively_with_ignore(str(tmp_path / 'tree'), ['*.pyc', '__pycache__'], True)
    assert sorted(relative for _, relative in found) == [os.path.join('tree', 'a.py'), os.path.join('tree', 'b', 'c.py')]
    util.copy_files_and_create_dirs([(path, str(tmp_path / 'copy' / relative)) for path, relative in found])
    assert (tmp_path / 'copy' / 'tree' / 'b' / 'c.py').read_text() == 'b/c.py'
    with pytest.raises(NotADirectoryError):
        util.list_dir_recursively_with_ignore(str(tmp_path / 'nothing'))


@pytest.mark.parametrize(
    ('text', 'answer'),
    [
        ('https://example.org/a.pkl', True),
        ('http://localhost:80/', True),
        ('model.pkl', False),
        ('C:\\model.pkl', False),
        ('ftp://example.org/a', False),
        ('https://', False),
        ('http://[', False),
        (None, False),
        ('file:///a', False),
    ],
)
def test_is_url(text, answer):
    assert util.is_url(text) is answer
    assert util.is_url('file:///a', allow_file_urls=True)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path))
    assert dnnlib.make_cache_dir_path('x', 'y') == str(tmp_path / 'x' / 'y')
    monkeypatch.delenv('DNNLIB_CACHE_DIR')
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))
    assert dnnlib.make_cache_dir_path() == os.path.join(str(tmp_path), '.cache', 'dnnlib')


class Server(http.server.BaseHTTPRequestHandler):
    """Fails twice, then delivers; cuts `/short` off every time."""

    requests: list[str] = []  # noqa: RUF012

    def do_GET(self):
        Server.requests.append(self.path)
        if self.path == '/absent':
            self.send_error(404)
        elif self.path == '/flaky' and Server.requests.count('/flaky') <= 2:
            self.send_error(503)
        else:
            self.send_response(200)
            self.send_header('Content-Length', '100' if self.path == '/short' else '5')
            self.send_header('Content-Disposition', 'attachment; filename="my model?.pkl"')
            self.end_headers()
            self.wfile.write(b'hello')

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr('dnnlib.download.time.sleep', lambda seconds: None)
    for name in ('HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
    Server.requests = []
    with http.server.ThreadingHTTPServer(('localhost', 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f'http://localhost:{running.server_port}'
        running.shutdown()
        thread.join()


def test_downloads_once_and_whole(server, tmp_path, capsys):
    url = server + '/flaky'
    name = util.open_url(url, cache_dir=str(tmp_path), return_filename=True)
    assert os.path.basename(name) == hashlib.md5(url.encode()).hexdigest() + '_my_model_.pkl'
    with util.open_url(url, cache_dir=str(tmp_path)) as file:
        assert file.read() == b'hello'
    assert len(Server.requests) == 3
    assert capsys.readouterr().out == ''
    assert util.open_url(url, cache=False, verbose=False).read() == b'hello'
    digest = hashlib.sha256(b'hello').hexdigest()
    with util.open_url(url, cache_dir=str(tmp_path), sha256=digest.upper()) as file:
        assert file.read() == b'hello'
    with pytest.raises(OSError, match='SHA-256'):
        util.open_url(url, cache_dir=str(tmp_path), sha256='0' * 64)
    assert os.listdir(tmp_path) == []


def test_a_failed_download_leaves_nothing(server, tmp_path):
    with pytest.raises(OSError, match='404'):
        util.open_url(server + '/absent', cache_dir=str(tmp_path), verbose=False)
    assert len(Server.requests) == 1  # what is not there will not come with patience
    with pytest.raises(OSError, match='in 3 attempts'):
        util.open_url(server + '/short', cache_dir=str(tmp_path), num_attempts=3, verbose=False)
    assert os.listdir(tmp_path) == []


CONTENT = bytes(range(256)) * 4000


class CuttingServer(http.server.BaseHTTPRequestHandler):
    """Cuts every answer off after 400,000 bytes, and gives the rest on request."""

    ranges: list[str] = []  # noqa: RUF012
    tag = '"one"'

    def do_GET(self):
        asked = self.headers.get('Range', '')
        CuttingServer.ranges.append(asked)
        start = int(asked[6:-1]) if asked and self.headers.get('If-Range') == self.tag else 0
        self.send_response(206 if start else 200)
        self.send_header('ETag', self.tag)
        self.send_header('Content-Length', str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + 400_000])

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def cutting_server(monkeypatch):
    monkeypatch.setattr('dnnlib.download.time.sleep', lambda seconds: None)
    CuttingServer.ranges, CuttingServer.tag = [], '"one"'
    with http.server.ThreadingHTTPServer(('localhost', 0), CuttingServer) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f'http://localhost:{running.server_port}/file.bin'
        running.shutdown()
        thread.join()


def test_a_download_goes_on_where_it_was_cut_off(cutting_server, tmp_path):
    with util.open_url(cutting_server, cache_dir=str(tmp_path), verbose=False) as file:
        assert file.read() == CONTENT
    assert CuttingServer.ranges == ['', 'bytes=393216-', 'bytes=786432-']
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize('changed', [False, True])
def test_a_later_call_goes_on_unless_the_content_changed(cutting_server, tmp_path, changed):
    with pytest.raises(OSError, match='in 1 attempts'):
        util.open_url(cutting_server, cache_dir=str(tmp_path), num_attempts=1, verbose=False)
    assert sorted(name.split('.', 1)[1] for name in os.listdir(tmp_path)) == ['partial', 'partial.tag']
    if changed:
        CuttingServer.tag = '"two"'
    with util.open_url(cutting_server, cache_dir=str(tmp_path), verbose=False) as file:
        assert file.read() == CONTENT
    assert CuttingServer.ranges[1] == 'bytes=393216-'
    assert len(CuttingServer.ranges) == (4 if changed else 3)


def test_a_host_that_does_not_answer_ends_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr('dnnlib.download.time.sleep', lambda seconds: pytest.fail('it waits for nothing'))
    with pytest.raises(OSError, match='cannot be reached; check the network'):
        util.open_url('http://localhost:9/x', cache_dir=str(tmp_path), verbose=False)
    assert os.listdir(tmp_path) == []


def test_processes_fetch_a_file_once(cutting_server, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: util.open_url(cutting_server, cache_dir=str(tmp_path), verbose=False).read(), range(4)))
    assert found == [CONTENT] * 4
    assert len(CuttingServer.ranges) == 3


def test_opens_local_files(tmp_path):
    path = tmp_path / 'with space.bin'
    path.write_bytes(b'abc')
    for name in (str(path), path.as_uri()):
        assert util.open_url(name, return_filename=True) == str(path)
        with util.open_url(name) as file:
            assert file.read() == b'abc'
    with pytest.raises(OSError, match='SHA-256'):
        util.open_url(str(path), sha256='0' * 64)
    with pytest.raises(FileNotFoundError):
        util.open_url(str(tmp_path / 'nothing'))


def test_an_unknown_host_is_not_tried_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, pauses = [], []

    def resolve(url: str, **_options: object) -> None:
        calls.append(url)
        try:
            raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')
        except socket.gaierror as cause:
            raise requests.ConnectionError('Max retries exceeded') from cause

    monkeypatch.setattr(requests, 'get', resolve)
    monkeypatch.setattr(time, 'sleep', pauses.append)
    with pytest.raises(OSError, match=r"the host 'nowhere\.invalid' is not known"):
        dnnlib.util.open_url('https://nowhere.invalid/G.pkl', cache=False, verbose=False)
    assert len(calls) == 2
    assert sum(pauses) < 5
