"""Training states, `training-state-*.pt`: what lets a training go on as if it had never stopped."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from networks.checkpoints import replacing
from networks.errors import DAMAGED_FILE, InputError

DAMAGE = (*DAMAGED_FILE, OSError)
# What loading the parts of a state into networks and optimisers of another shape ends in.
MISFITS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OverflowError)


def on_cpu(value: object) -> Any:
    """A nest of dicts and lists with all of its tensors on the CPU."""
    if isinstance(value, dict):
        return {key: on_cpu(member) for key, member in value.items()}
    if isinstance(value, list):
        return [on_cpu(member) for member in value]
    return value.cpu() if torch.is_tensor(value) else value


def state_path(run_dir: str, shown: int) -> str:
    """Where the state goes that was reached after so many frames or images."""
    return os.path.join(run_dir, f'training-state-{shown // 1000:06d}.pt')


def training_states(run_dir: str) -> list[str]:
    """Paths of the training states in a run folder, the newest first."""
    found = [
        (int(match[1]), entry.path)
        for entry in os.scandir(run_dir or '.')
        if (match := re.fullmatch(r'training-state-(\d+)\.pt', entry.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def write_state(path: str, state: Mapping[str, Any], *, keep_every: int = 0, older: Sequence[str] | None = None) -> None:
    """Write a state (tensors and plain values only); older ones beside it go when it is on the disk.

    Args:
        path: Where to; the file is there as a whole or not at all.
        state: What it holds.
        keep_every: Keep also every so many-th state; 0: the newest only.
        older: Paths of the older ones, the newest first; None: those of `training_states`.
    """
    older = training_states(os.path.dirname(path)) if older is None else older
    older = [entry for entry in older if os.path.abspath(entry) != os.path.abspath(path)]
    number, kept = 0, []
    if older and keep_every:
        with contextlib.suppress(InputError, TypeError, ValueError):
            before = load_plain_archive(older[0], 'a training state')
            number, kept = int(before.get('number', 0)) + 1, [str(name) for name in before.get('kept', [])]
    if keep_every and number % keep_every == 0:
        kept.append(os.path.basename(path))
    with replacing(path) as temporary:
        torch.save({**state, 'number': number, 'kept': kept}, temporary)
    for entry in older:
        if os.path.basename(entry) not in kept:
            with contextlib.suppress(OSError):
                os.unlink(entry)


def read_state(path: str, *, format_name: str, format_version: int, command: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Read a training state; nothing that the file says is executed.

    Args:
        path: The file.
        format_name, format_version: Of this program.
        command: Whose states these are ('train_video.py'), for errors.
        content: What has to be in it -> its kind.

    Raises:
        InputError: Not such a file, or damaged.
    """
    state = load_plain_archive(path, 'a training state')
    if state.get('format') != format_name:
        raise InputError(f'{path} is not a training state of {command}')
    version = state.get('format_version', 0)
    if not isinstance(version, int) or version > format_version:
        raise InputError(f'{path} was written by a newer version of this program; update it')
    wrong = [key for key, kind in content.items() if not isinstance(state.get(key), kind)]
    if wrong:
        raise InputError(f'{path} is damaged: its {wrong[0]} is missing or of another kind; use an earlier one or start anew')
    return state


def load_plain_archive(path: str, what: str) -> dict[str, Any]:
    """A dict of tensors and plain values that torch.save has written; nothing that the file says is executed.

    Args:
        path: The file.
        what: What it should be ('a training state'), for errors.

    Raises:
        InputError: Not such a file, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > 2 * os.path.getsize(path):
                raise InputError(f'{path} is not {what}: it unpacks to far more than it holds')
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f'{path}: there is no such file; give the run folder or its training-state-*.pt') from error
    except DAMAGE as error:
        raise InputError(f'{path} is not {what}, or it was cut off; use an earlier one or start anew') from error
    if not isinstance(content, dict):
        raise InputError(f'{path} is not {what}: it holds a {type(content).__name__}')
    return content


def last_good_state(states: Sequence[str], load: Callable[[str], object]) -> str | None:
    """The first of some states, the newest first, that `load` can read; one that a disk error has damaged is passed over.

    Where none can be read it is the newest, whose error says what is wrong; None where there is none.
    """
    for path in states:
        with contextlib.suppress(InputError):
            load(path)
            return path
    return states[0] if states else None
