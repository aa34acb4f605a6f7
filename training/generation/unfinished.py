"""Whether a generation goes on with one that was interrupted: a note in the folder for as long as it is not finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from networks.checkpoints.durable_files import replacing


@contextlib.contextmanager
def unfinished(outdir: str, part: str, work: Any) -> Iterator[bool]:
    """Keep a note of this work in `outdir` until the block ends well; yields whether an earlier run has left the same note.

    A block that ends by an error before its first file is finished leaves no note behind.

    Args:
        outdir: Output folder.
        part: Added to the name of the note, where several jobs share the folder.
        work: What decides the files that are made (JSON values).
    """
    path = os.path.join(outdir, f'.generation{part}.unfinished')
    key = hashlib.sha256(json.dumps(work, sort_keys=True, default=str).encode()).hexdigest()
    before = ''
    with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding='utf-8') as file:
        before = file.read(100)
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.write(key)
    records = os.path.join(outdir, 'generation.jsonl')
    size = _size(records)
    try:
        yield before == key
    except BaseException:
        if before != key and _size(records) == size:
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
