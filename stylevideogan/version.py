"""Which version of this project runs, so that every result can say it."""

from __future__ import annotations

import functools
import os
import subprocess

__version__ = '0.2.0'

_ROOM = os.path.dirname(os.path.abspath(__file__))


@functools.cache
def commit() -> str | None:
    """The commit that runs, 12 digits, with `+changes` where files differ from it; None where nobody knows.

    A wheel carries the commit that it was built of. A checkout asks git, and only if git knows this file: laid over
    another project, the commit of that project would be the wrong answer.
    """
    try:
        with open(os.path.join(_ROOM, 'commit.txt'), encoding='ascii') as file:
            return file.read().strip() or None
    except (OSError, ValueError):
        pass
    if _git('ls-files', '--error-unmatch', os.path.basename(__file__)) is None:
        return None
    head = _git('rev-parse', '--short=12', 'HEAD')
    return head and head + ('+changes' if _git('status', '--porcelain', '--untracked-files=no', ':/') else '')


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(['git', *arguments], check=False, cwd=_ROOM, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def describe() -> str:
    """Version and commit in one line: `0.2.0 (commit 0123456789ab)`."""
    return f'{__version__} (commit {commit()})' if commit() else __version__
