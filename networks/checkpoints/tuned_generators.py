"""Image generators that tune_generator.py has made: what their files say, whose W+ space they share, where they lie.

A tuned generator draws the codes of one data set as they were recorded. Its mapping network and the meaning of its codes are
those of the generator that it was tuned from, so everything that was made with the one goes with the other. Its pickle holds,
beside NVIDIA's entries, `tuned_from` (a reference, which may itself say what that was tuned from) and `tuning`; a safetensors
file has the same in its header. `latents-tuned.pkl` beside `latents.zip` is the generator that was tuned to this data set.
"""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from networks.checkpoints.formats.safetensors_pair import RECORD_KEY, SafetensorsContents
from networks.checkpoints.lazy_data import LazyEntries, materialize

ENDINGS = ('.pkl', '.safetensors')
MOST_GENERATIONS = 16  # a generator that was tuned from one that was tuned ...
MOST_VALUES = 10_000  # in the record of one file

# ----------------------------------------------------------------------------
# What files say.


def read_record(contents: Any) -> dict[str, Any] | None:
    """`tuned_from` and `tuning` of the contents of a file (see `networks.checkpoints.tuning_record`), None where it has none."""
    if isinstance(contents, SafetensorsContents):
        try:
            found = json.loads(contents.metadata.get(RECORD_KEY, 'null'))
        except (ValueError, TypeError, RecursionError):
            return None
        found = found if isinstance(found, dict) else {}
    elif isinstance(contents, LazyEntries):
        found = {key: contents.raw(key) for key in ('tuned_from', 'tuning')}
    else:
        return None
    if not isinstance(found.get('tuned_from'), dict) or not is_plain(found):
        return None
    found = materialize(found)
    tuning = found.get('tuning')
    return {'tuned_from': found['tuned_from'], 'tuning': tuning if isinstance(tuning, dict) else {}}


def is_plain(value: Any) -> bool:
    """Whether a nest of containers holds numbers and text alone, and not too many."""
    pending, seen = [(value, 0)], 0
    while pending:
        item, depth = pending.pop()
        seen += 1
        if seen > MOST_VALUES or depth > 2 * MOST_GENERATIONS:
            return False
        if isinstance(item, dict):
            pending += [(member, depth + 1) for pair in item.items() for member in pair]
        elif isinstance(item, (list, tuple)):
            pending += [(member, depth + 1) for member in item]
        elif not (item is None or isinstance(item, (str, int, float))):
            return False
    return True


def ancestors(reference: Mapping[str, Any]) -> Iterator[str]:
    """The sha256 of a generator, of the one that it was tuned from, and so on, as far as its reference tells."""
    for _ in range(MOST_GENERATIONS):
        digest = reference.get('sha256')
        if isinstance(digest, str):
            yield digest
        following = reference.get('tuned_from')
        if not isinstance(following, Mapping):
            return
        reference = following


def share_space(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether codes of one generator are codes of the other: it is the same, or both were tuned from the same."""
    return not set(ancestors(first)).isdisjoint(ancestors(second))


# ----------------------------------------------------------------------------
# Where they lie.


def tuned_path(data: str | os.PathLike[str], ending: str = '.pkl') -> str:
    """Where the generator tuned to a data set lies: `latents-tuned.pkl` beside `latents.zip` or the folder `latents`."""
    stem, extension = os.path.splitext(os.fspath(data).rstrip('/' + os.sep))
    return f'{stem if extension.lower() == ".zip" else stem + extension}-tuned{ending}'
