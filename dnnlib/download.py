"""Opening of local files and URLs, with a cache of downloads that never holds a broken file."""

from __future__ import annotations

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
from typing import IO, Any

_CHUNK_BYTES = 1 << 20
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


def is_url(obj: Any, allow_file_urls: bool = False) -> bool:
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
    handle, partial = tempfile.mkstemp(prefix=key + '_', suffix='.tmp', dir=folder)
    try:
        with os.fdopen(handle, 'wb') as file:
            name = _download(url, file, num_attempts, verbose)
        if sha256 is not None:
            _check_digest(partial, sha256, origin=url)
        path = os.path.join(folder, f'{key}_{_safe_name(name)}')
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.remove(partial)
        raise
    if verbose:
        print(' done', file=sys.stderr)
    return path if return_filename else open(path, 'rb')


# ----------------------------------------------------------------------------
# Parts of open_url.


def _download(url: str, file: IO[bytes], num_attempts: int, verbose: bool) -> str:
    """Write the content at `url` into `file` and return the name that the server or the address gives it."""
    import requests  # here: most programs that use dnnlib never download anything

    reason = ''
    for attempt in range(num_attempts):
        if attempt:
            if verbose:
                print('.', end='', file=sys.stderr, flush=True)
            time.sleep(min(2.0 ** (attempt - 1), _LONGEST_PAUSE_SECONDS))
        file.seek(0)
        file.truncate()
        try:
            # identity: the length that the server announces is then the length of the file
            headers = {'Accept-Encoding': 'identity'}
            with requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS, headers=headers) as reply:
                if 400 <= reply.status_code < 500 and reply.status_code not in (408, 425, 429):
                    raise OSError(f'{url}: the server answers {reply.status_code} {reply.reason}')
                reply.raise_for_status()
                received = 0
                for chunk in reply.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    received += len(chunk)
                announced = reply.headers.get('Content-Length')
                if announced is not None and received != int(announced):
                    raise requests.ConnectionError(f'{received} of {announced} bytes arrived')
                if received == 0:
                    raise requests.ConnectionError('the server sent an empty file')
                disposition = re.search(r'filename="?([^";]*)"?', reply.headers.get('Content-Disposition', ''))
                return disposition.group(1) if disposition else urllib.parse.urlsplit(reply.url).path.rsplit('/', 1)[-1]
        except requests.RequestException as error:
            reason = str(error)
            if _is_unknown_host(error) and attempt + 1 >= min(_UNKNOWN_HOST_ATTEMPTS, num_attempts):
                host = urllib.parse.urlsplit(url).hostname
                raise OSError(f'{url}: the host {host!r} is not known; check the address and the connection') from error
    raise OSError(f'{url}: could not be downloaded in {num_attempts} attempts ({reason})')


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
