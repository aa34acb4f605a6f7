"""The exception for what a user got wrong, and what a caller may go on after."""

import contextlib
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator

# What readers of archives, arrays and pickles end in where a file is damaged, but for the system's own errors (OSError).
DAMAGED_FILE = (
    ValueError, TypeError, LookupError, EOFError, RuntimeError, AttributeError, AssertionError, ImportError, ArithmeticError,
    MemoryError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, pickle.UnpicklingError, struct.error, zlib.error,
)  # fmt: skip
MOST_SHOWN = 600  # letters of a sentence about a damaged file


def readable(sentence: str) -> str:
    """A sentence with words of a file in it, as a terminal may show it: printable, and not without end.

    What is too long loses its middle: the beginning says where something is wrong, and the end what to do.
    """
    long = len(sentence) > 20 * MOST_SHOWN
    if long:
        sentence = sentence[: 10 * MOST_SHOWN] + sentence[-10 * MOST_SHOWN :]
    text = ''.join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in sentence)
    half = (MOST_SHOWN - 5) // 2
    return text if len(text) <= MOST_SHOWN else f'{text[:half]} ... {text[-half:]}'


_for_command = False


@contextlib.contextmanager
def naming_options() -> Iterator[None]:
    """As long as this lasts, `option` speaks of options of a command instead of arguments of functions."""
    global _for_command  # noqa: PLW0603 - not a context variable: worker threads raise errors as well, and a process runs one command
    before, _for_command = _for_command, True
    try:
        yield
    finally:
        _for_command = before


def option(name: str, value: str | bool | None = None) -> str:
    """What whoever reads an error calls a setting: `--fake-clips=spread` in a command, `fake_clips='spread'` in Python.

    Args:
        name: Name of the argument.
        value: The value to give, True for a switch; None: only the name.
    """
    if _for_command:
        flag = f'--{name.replace("_", "-")}'
        return flag if value is None or isinstance(value, bool) else f'{flag}={value}'
    if value is None or isinstance(value, bool):
        return name if value is None else f'{name}={value}'
    return f'{name}={value}' if value.replace('.', '', 1).isdecimal() else f'{name}={value!r}'


class InputError(Exception):
    """Something that the user gave cannot be used.

    The text is one clear sentence: what is wrong, where, and what to do. The commands print it and leave with exit
    code 2; library callers can catch it.
    """


class DamagedVideo(InputError):
    """One video of a set cannot be read; the others can."""


class RankLost(InputError):
    """Another rank (training/runs/ranks.py) has died, or cannot be reached any more."""


class AgreedError(InputError):
    """A mistake that all ranks know of, so that one of them is enough to tell it."""
