"""Files of checkpoints: how they are opened, what their errors are called by, their digest and their container."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import BinaryIO, cast

from networks.checkpoints import addresses, digests, torch_archive
from networks.checkpoints.durable_files import replacing as replacing
from networks.checkpoints.formats import safetensors_pair
from networks.checkpoints.lazy_data import ByteSource
from networks.errors import InputError

TRUST_HINT = (
    ' If you know who made it and trust them, the option --trust-pickle (trust_pickle=True) runs the source text that it '
    'carries, with all that it may do to your computer'
)
MOST_SHOWN = 600  # Characters of an error that come from a file.

# What people give by mistake: in words, and how it begins.
OTHER_KINDS = (
    ('an image', rb'\x89PNG|\xff\xd8\xff|GIF8|BM|II\*\0|MM\0\*|RIFF....WEBP'),
    ('a video', rb'....ftyp|\x1aE\xdf\xa3|RIFF....AVI |FLV|OggS|\0\0\x01\xba|\x47.{187}\x47'),
    ("an array of numpy's (.npy)", rb'\x93NUMPY'),
    ('an HDF5 file', rb'\x89HDF'),
    ('a compressed archive, which has to be unpacked', rb'\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ'),
)


Source = str | os.PathLike[str] | BinaryIO  # a path, an address, or an open file


class CodeRefused(InputError):
    """Only by running what the file carries could it be opened. The text ends with TRUST_HINT."""


def file_sha256(path: Source) -> str:
    """Hexadecimal SHA-256 digest of a file, or of what is behind a URL; taken once in a process, unless the file changes."""
    with errors_name(path), opened(path) as file:
        return digests.sha256_of_unchanged(file)


@contextlib.contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """A path, an address, or an open file, from its beginning."""
    if hasattr(source, 'seek') and hasattr(source, 'read'):
        source.seek(0)
        yield cast(BinaryIO, source)
        return
    path = os.fspath(source)
    if isinstance(path, str):
        path = addresses.resolve(path)
    with open(path, 'rb') as file:
        yield file


@contextlib.contextmanager
def errors_name(source: Source) -> Iterator[None]:
    """Begin every error with the file's name, and keep what the file says from writing to the terminal."""
    name = 'the open file' if hasattr(source, 'read') else os.fspath(source)
    try:
        yield
    except InputError as error:
        text = str(error) if isinstance(error, CodeRefused) else str(error)[:MOST_SHOWN]
        text = ''.join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
        raise type(error)(f'{name}: {text}') from error
    except RecursionError as error:
        raise InputError(f'{name}: its values are nested too deeply') from error
    except FileNotFoundError as error:
        raise InputError(f'{name}: there is no such file') from error
    except IsADirectoryError as error:
        raise InputError(f'{name}: this is a folder, and a file is needed') from error
    except OSError as error:
        raise InputError(f'{name}: {error.strerror or error}') from error


def container(source: ByteSource) -> str:
    """Which reader the content is for: pickle, zip, legacy, or safetensors."""
    start = source.read(0, 64)
    if start.startswith(torch_archive.ZIP_START):
        return 'zip'
    if start.startswith(torch_archive.LEGACY_START):
        return 'legacy'
    if len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5:
        return 'pickle'
    if safetensors_pair.is_safetensors(start, source.size):
        return 'safetensors'
    if not start:
        raise InputError('the file is empty')
    if start.startswith(b'version https://git-lfs'):
        raise InputError('this is a pointer of Git LFS, not the file itself; fetch it with "git lfs pull"')
    if start.lstrip()[:1] == b'<':
        raise InputError('this is a web page: the download did not give the file')
    if start.lstrip()[:1] == b'{':
        raise InputError('this is JSON text; if it describes a .safetensors file, give that file')
    for kind, pattern in OTHER_KINDS:
        if re.match(pattern, start, re.DOTALL):
            raise InputError(f'this is {kind}, and a file of weights is needed here')
    raise InputError('this is no checkpoint: neither a pickle, nor a file of torch.save, nor safetensors')
