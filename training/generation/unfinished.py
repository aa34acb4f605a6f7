"""Whether a generation goes on with one that was interrupted: a note in the folder for as long as it is not finished."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from networks.checkpoints.durable_files import replacing
from training.commands.work import Work


@contextlib.contextmanager
def unfinished(outdir: str, part: str, work: Work) -> Iterator[bool]:
    """Keep a note of this work in `outdir` until the block ends well; yields whether an earlier run has left the same note.

    A block that ends by an error before its first file is finished leaves no note behind.

    Args:
        outdir: Output folder.
        part: Added to the name of the note, where several jobs share the folder.
        work: What decides the files that are made.
    """
    path = os.path.join(outdir, f'.generation{part}.unfinished')
    goes_on = False
    with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding='utf-8') as file:
        goes_on = work.left(file.read())
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.write(work.note())
    records = os.path.join(outdir, 'generation.jsonl')
    size = _size(records)
    try:
        yield goes_on
    except BaseException:
        if not goes_on and _size(records) == size:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
    with contextlib.suppress(OSError):
        os.unlink(path)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
