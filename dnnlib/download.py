"""Opening of local files and URLs, with a cache of downloads that never holds a broken file.

A download that was cut off goes on from where it was, in the same call and in a later one, if the server says that the content is
still the same. Several processes that want one file fetch it once.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import re
import socket
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: two processes there may fetch the same file twice, and the later one wins
    fcntl = None  # type: ignore[assignment]

_CHUNK_BYTES = 1 << 16  # what a connection that breaks may lose of what has come
_CONNECT_SECONDS = 10
_TIMEOUT_SECONDS = 60  # without a single byte
_LONGEST_PAUSE_SECONDS = 30
_UNKNOWN_HOST_ATTEMPTS = 2  # names that are not known now are hardly known a minute later
_cache_dir: str | None = None

# ----------------------------------------------------------------------------
# Where downloads and computed statistics are kept.


def set_cache_dir(path: str | None) -> None:
    """Use `path` as the root of the cache in this process; None goes back to the default."""
    global _cache_dir  # noqa: PLW0603  the one setting of this module
    _cache_dir = path


def make_cache_dir_path(*paths: str) -> str:
    """Return the path of `paths` below the cache root; nothing is created.

    The root is what `set_cache_dir` was given, else the environment variable `DNNLIB_CACHE_DIR`, else
    `~/.cache/dnnlib`, else (no home) a folder of the system's temporary directory.
    """
    root = _cache_dir or os.environ.get('DNNLIB_CACHE_DIR')
    if not root:
        home = os.path.expanduser('~')
        root = os.path.join(home if os.path.isabs(home) else tempfile.gettempdir(), '.cache', 'dnnlib')
    return os.path.join(root, *paths)


# ----------------------------------------------------------------------------
# URLs.


def is_url(obj: object, allow_file_urls: bool = False) -> bool:
    """Tell whether `obj` is a string that holds an http(s) URL with a host (or, if allowed, a file URL with a path)."""
    if not isinstance(obj, str):
        return False
    try:
        parts = urllib.parse.urlsplit(obj)
    except ValueError:
        return False
    if parts.scheme == 'file':
        return allow_file_urls and bool(parts.path)
    host = parts.hostname or ''
    return parts.scheme in ('http', 'https') and (host == 'localhost' or '.' in host or ':' in host)


def open_url(
    url: str,  # File path, file:// URL or http(s):// URL.
    cache_dir: str | None = None,  # Folder of cached downloads; None = make_cache_dir_path('downloads').
    num_attempts: int = 10,  # Tries before giving up on failures that can pass.
    verbose: bool = True,  # Say on standard error what is downloaded.
    return_filename: bool = False,  # Return the path of a local file instead of an open one.
    cache: bool = True,  # Look into the cache, and keep what was downloaded.
    sha256: str | None = None,  # Hexadecimal digest that the content must have.
) -> Any:
    """Return a binary file open for reading (or the name of a local file) with the content at `url`.

    Downloads are kept as `<md5 of the url>_<safe name>`, written under a temporary name first, so that an interrupted
    download leaves nothing that a later call could take for the file.

    Raises OSError with one sentence when the content cannot be had or has another digest, ValueError for arguments that
    exclude each other.
    """
    if num_attempts < 1:
        raise ValueError(f'open_url: num_attempts is {num_attempts}, it must be at least 1')
    if return_filename and not cache:
        raise ValueError('open_url: return_filename=True needs cache=True, there is no file otherwise')
    url = os.fspath(url)

    if not is_url(url):
        path = urllib.request.url2pathname(urllib.parse.urlsplit(url).path) if url.startswith('file://') else url
        if sha256 is not None:
            _check_digest(path, sha256, origin=path)
        return path if return_filename else open(path, 'rb')

    folder = cache_dir if cache_dir is not None else make_cache_dir_path('downloads')
    key = hashlib.md5(url.encode('utf-8'), usedforsecurity=False).hexdigest()
    if cache:
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), key + '_*'))):
            if path.endswith('.tmp'):
                continue
            if sha256 is None or _file_digest(path) == sha256.lower():
                return path if return_filename else open(path, 'rb')
            os.remove(path)  # an older content of this address

    if verbose:
        print(f'Downloading {url} ...', end='', file=sys.stderr, flush=True)
    if not cache:
        memory = io.BytesIO()
        _download(url, memory, num_attempts, verbose)
        if sha256 is not None and hashlib.sha256(memory.getbuffer()).hexdigest() != sha256.lower():
            raise OSError(f'{url}: the content has another SHA-256 digest than expected')
        if verbose:
            print(' done', file=sys.stderr)
        memory.seek(0)
        return memory

    os.makedirs(folder, exist_ok=True)
    partial = os.path.join(folder, f'{key}.partial')
    with _locked(os.path.join(folder, f'{key}.lock')):
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), key + '_*'))):
            if not path.endswith('.tmp') and (sha256 is None or _file_digest(path) == sha256.lower()):
                return path if return_filename else open(path, 'rb')  # another process was quicker
        try:
            with open(partial, 'ab+') as file:
                name = _download(url, file, num_attempts, verbose, tag_file=f'{partial}.tag')
            if sha256 is not None:
                _check_digest(partial, sha256, origin=url)
            path = os.path.join(folder, f'{key}_{_safe_name(name)}')
            os.chmod(partial, 0o644)
            os.replace(partial, path)
            _remove(f'{partial}.tag')
        except BaseException as error:
            can_go_on = isinstance(error, (_CutOff, KeyboardInterrupt, SystemExit)) and os.path.exists(f'{partial}.tag')
            if not can_go_on:  # nothing tells whether the rest would belong to it
                _remove(partial)
                _remove(f'{partial}.tag')
            raise
    if verbose:
        print(' done', file=sys.stderr)
    return path if return_filename else open(path, 'rb')


# ----------------------------------------------------------------------------
# Parts of open_url.


class _CutOff(OSError):
    """The content could not be had whole; what came may serve a later attempt."""


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold a lock between processes of this machine; the system takes it away from one that dies."""
    while True:
        with open(path, 'ab') as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
                try:
                    is_current = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
                except FileNotFoundError:
                    is_current = False
                if not is_current:
                    continue  # the holder before removed it, and somebody else may have made a new one
            try:
                yield
            finally:
                _remove(path)
            return


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)


def _is_unreachable(error: BaseException) -> bool:
    """Whether a connection was never made: no such host, no network, nobody listening, or no answer in time."""
    from urllib3 import exceptions

    inner = error.args[0] if error.args else None
    reason = getattr(inner, 'reason', inner)
    return isinstance(reason, (exceptions.NewConnectionError, exceptions.ConnectTimeoutError))


def _download(url: str, file: IO[bytes], num_attempts: int, verbose: bool, tag_file: str | None = None) -> str:
    """Write the content at `url` into `file` and return the name that the server or the address gives it.

    What `file` holds already is kept if `tag_file` has the mark (ETag) that the server gives the content now.
    """
    import requests  # here: most programs that use dnnlib never download anything

    reason = ''
    tag = _read_text(tag_file)
    for attempt in range(num_attempts):
        if attempt:
            if verbose:
                print('.', end='', file=sys.stderr, flush=True)
            time.sleep(min(2.0 ** (attempt - 1), _LONGEST_PAUSE_SECONDS))
        start = file.seek(0, os.SEEK_END) if tag else 0
        try:
            # identity: the length that the server announces is then the length of the file
            headers = {'Accept-Encoding': 'identity'}
            if start:
                headers |= {'Range': f'bytes={start}-', 'If-Range': tag}
            with requests.get(url, stream=True, timeout=(_CONNECT_SECONDS, _TIMEOUT_SECONDS), headers=headers) as reply:
                if reply.status_code == 416:  # more is here than there
                    tag = ''
                    raise requests.ConnectionError('the content has changed')
                if 400 <= reply.status_code < 500 and reply.status_code not in (408, 425, 429):
                    raise OSError(f'{url}: the server answers {reply.status_code} {reply.reason}')
                reply.raise_for_status()
                if reply.status_code != 206:
                    start = 0
                file.seek(start)
                file.truncate()
                tag = reply.headers.get('ETag', '')
                tag = '' if tag.startswith('W/') else tag  # a weak mark does not promise the same bytes
                _write_text(tag_file, tag)
                received = 0
                for chunk in reply.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    received += len(chunk)
                announced = reply.headers.get('Content-Length')
                if announced is not None and received != int(announced):
                    raise requests.ConnectionError(f'{received} of {announced} bytes arrived')
                if start + received == 0:
                    raise requests.ConnectionError('the server sent an empty file')
                disposition = re.search(r'filename="?([^";]*)"?', reply.headers.get('Content-Disposition', ''))
                return disposition.group(1) if disposition else urllib.parse.urlsplit(reply.url).path.rsplit('/', 1)[-1]
        except requests.RequestException as error:
            reason = str(error)
            if _is_unknown_host(error):
                if attempt + 1 >= min(_UNKNOWN_HOST_ATTEMPTS, num_attempts):
                    host = urllib.parse.urlsplit(url).hostname
                    raise OSError(f'{url}: the host {host!r} is not known; check the address and the connection') from error
            elif _is_unreachable(error):
                host = urllib.parse.urlsplit(url).netloc
                raise OSError(f'{url}: {host} cannot be reached; check the network, or give a local file') from error
    raise _CutOff(f'{url}: could not be downloaded in {num_attempts} attempts ({reason})')


def _read_text(path: str | None) -> str:
    if path is not None:
        with contextlib.suppress(OSError, ValueError), open(path, encoding='latin-1') as file:
            return file.read()
    return ''


def _write_text(path: str | None, text: str) -> None:
    if path is not None and text:
        with open(path, 'w', encoding='latin-1') as file:
            file.write(text)
    elif path is not None:
        _remove(path)


def _is_unknown_host(error: BaseException | None) -> bool:
    """Whether a name could not be resolved; the cause may lie deep in the errors of several libraries."""
    seen = 0
    while error is not None and seen < 10:
        inner = [argument for argument in error.args if isinstance(argument, BaseException)]
        if isinstance(error, socket.gaierror) or type(error).__name__ == 'NameResolutionError':
            return True
        error = error.__cause__ or error.__context__ or getattr(error, 'reason', None) or next(iter(inner), None)
        seen += 1
    return False


def _safe_name(name: str) -> str:
    return re.sub(r'[^0-9A-Za-z.-]', '_', name)[-128:] or 'download'


def _file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _check_digest(path: str, expected: str, origin: str) -> None:
    digest = _file_digest(path)
    if digest != expected.lower():
        raise OSError(f'{origin}: SHA-256 is {digest}, expected {expected.lower()}: the file is damaged or another one')
