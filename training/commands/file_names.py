"""Names of files: safe on every file system, unique in their folder, printable, and beside a result."""

import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable

MAX_BYTES = 100  # of a name, so that endings, numbers and the marks of temporary files fit into the usual 255
RESERVED = {'con', 'prn', 'aux', 'nul', *(f'{name}{digit}' for name in ('com', 'lpt') for digit in range(1, 10))}


def safe_name(name: str, max_bytes: int = MAX_BYTES) -> str:
    """Return a name that every file system takes, with letters and digits of all scripts as they are.

    Other signs become `_`, and so do dots at the beginning, which would hide the file. A name that is too long (in bytes
    of UTF-8, which is what file systems count) is cut, and gets the beginning of its SHA-256 digest.

    Args:
        name: Any text; a slash is a sign like the others.
        max_bytes: Length of the result, at most.
    """
    safe = re.sub(r'[^\w.-]+', '_', unicodedata.normalize('NFC', name)).rstrip('.')
    safe = re.sub(r'^\.+', '_', safe) or '_'
    if safe.split('.')[0].lower() in RESERVED:  # devices of Windows, whatever their ending
        safe = f'_{safe}'
    if len(safe.encode()) > max_bytes:
        digest = hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]
        safe = f'{safe.encode()[: max_bytes - 9].decode("utf-8", "ignore")}-{digest}'
    return safe


def safe_path(name: str) -> str:
    """Return `safe_name` of each part of a name like `speaker/take`, joined by slashes: never a way out of the folder."""
    return '/'.join(safe_name(part) for part in name.split('/') if part) or '_'


def unique_names(names: Iterable[str]) -> list[str]:
    """Number names that occur before already: `a, b, a` gives `a, b, a-2`. Upper and lower case count as equal."""
    result: list[str] = []
    taken: set[str] = set()
    for name in names:
        numbered = itertools.chain([name], (f'{name}-{number}' for number in itertools.count(2)))
        chosen = next(choice for choice in numbered if _key(choice) not in taken)
        taken.add(_key(chosen))
        result.append(chosen)
    return result


def _key(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()


def stem(path: str) -> str:
    """Return the name of a file without folder and ending."""
    return os.path.splitext(os.path.basename(path))[0]


def beside(path: str | os.PathLike[str], ending: str) -> str:
    """Return the name of what lies beside a result: `latents.zip`, `latents` and `latents/` with `-report` give `latents-report`.

    Only `.zip` is an ending here: `faces.v1` gives `faces.v1-report`.
    """
    name = os.fspath(path)
    stripped = name.rstrip('/' + os.sep)
    if os.path.basename(stripped) in ('', '.', '..'):
        stripped = os.path.abspath(name)
    return (stripped[:-4] if stripped.lower().endswith('.zip') else stripped) + ending


def printable(text: str) -> str:
    """Return text that can be shown and stored: bytes of names that are not UTF-8 and control signs become escapes."""
    return ''.join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    code = ord(letter)
    return f'\\x{code - 0xDC00:02x}' if 0xDC80 <= code <= 0xDCFF else repr(letter)[1:-1]
