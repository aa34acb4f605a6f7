"""Snapshots, which users keep, and training states, which let a training go on as if it had never stopped."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import re
import struct
import types
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import torch

from networks import checkpoints
from networks.checkpoints.formats.ours import SNAPSHOT_FORMAT, SNAPSHOT_VERSION, STATE_FORMAT, STATE_VERSION
from networks.errors import InputError
from training.latents.dataset import LatentDataset
from training.runs.versions import versions as versions


def describe_dataset(dataset: LatentDataset) -> dict[str, Any]:
    """What a snapshot says of its latent data set."""
    return {
        'path': os.path.abspath(dataset.path),
        'sha256': dataset.sha256,
        'fps': dataset.fps,
        'num_clips': len(dataset.clips),
        'num_frames': sum(clip.num_frames for clip in dataset.clips),
        'clips': [clip.name for clip in dataset.clips],
    }


def save_snapshot(
    path: str,
    *,
    G: torch.nn.Module,
    G_ema: torch.nn.Module,
    C: torch.nn.Module,
    far_critics: Mapping[int, torch.nn.Module] = types.MappingProxyType({}),
    image_generator: dict[str, Any],
    data: dict[str, Any],
    training_options: dict[str, Any],
    progress: dict[str, Any],
) -> None:
    """Write `network-snapshot-*.pkl`: the networks and where they come from, never a copy of the image generator.

    C is the critic of neighbouring frames; `far_critics` are those of larger spacings, under C_spacing4 and so on.
    """

    def frozen(module: torch.nn.Module) -> torch.nn.Module:
        return copy.deepcopy(module).eval().requires_grad_(False).cpu()

    checkpoints.save_module_pickle(
        path,
        {
            'format': SNAPSHOT_FORMAT,
            'format_version': SNAPSHOT_VERSION,
            'G': frozen(G),
            'G_ema': frozen(G_ema),
            'C': frozen(C),
            **{f'C_spacing{stride}': frozen(critic) for stride, critic in far_critics.items()},
            'image_generator': image_generator,
            'data': data,
            'training_options': training_options,
            'progress': progress,
            'versions': versions(),
        },
    )


def on_cpu(value: object) -> Any:
    """A nest of dicts and lists with all of its tensors on the CPU."""
    if isinstance(value, dict):
        return {key: on_cpu(member) for key, member in value.items()}
    if isinstance(value, list):
        return [on_cpu(member) for member in value]
    return value.cpu() if torch.is_tensor(value) else value


def save_training_state(path: str, state: dict[str, Any], *, keep_every: int = 0) -> None:
    """Write `training-state-*.pt` (tensors and plain values only); older ones beside it go when it is on the disk.

    Args:
        path: Where to; the file is there as a whole or not at all.
        state: What it holds.
        keep_every: Keep also every so many-th state; 0: the newest only.
    """
    older = [entry for entry in training_states(os.path.dirname(path)) if os.path.abspath(entry) != os.path.abspath(path)]
    number, kept = 0, []
    if older and keep_every:
        with contextlib.suppress(InputError):
            before = load_training_state(older[0])
            number, kept = int(before.get('number', 0)) + 1, [str(name) for name in before.get('kept', [])]
    if keep_every and number % keep_every == 0:
        kept.append(os.path.basename(path))
    with checkpoints.replacing(path) as temporary:
        content = {'format': STATE_FORMAT, 'format_version': STATE_VERSION, **state, 'number': number, 'kept': kept}
        torch.save(content, temporary)
    for entry in older:
        if os.path.basename(entry) not in kept:
            with contextlib.suppress(OSError):
                os.unlink(entry)


def training_states(run_dir: str) -> list[str]:
    """Paths of the training states in a run folder, the newest first."""
    found = [
        (int(match[1]), entry.path)
        for entry in os.scandir(run_dir or '.')
        if (match := re.fullmatch(r'training-state-(\d+)\.pt', entry.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


# What every training state holds, and of which kind.
CONTENT: dict[str, Any] = {
    'trainer': dict, 'ranks': list, 'data_sha256': str, 'tick': int, 'tick_start_frames': int, 'seconds': (int, float),
}  # fmt: skip
# torch.load ends in any of these where a file is damaged.
DAMAGE = (
    pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError, LookupError, OSError, TypeError,
    AttributeError, AssertionError, ImportError, ArithmeticError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


def load_training_state(path: str) -> dict[str, Any]:
    """Read a training state; nothing that the file says is executed.

    Raises:
        InputError: Not such a file, or damaged.
    """
    state = load_plain_archive(path, 'a training state')
    if state.get('format') != STATE_FORMAT:
        raise InputError(f'{path} is not a training state of train_video.py')
    version = state.get('format_version', 0)
    if not isinstance(version, int) or version > STATE_VERSION:
        raise InputError(f'{path} was written by a newer version of this program; update it')
    wrong = [key for key, kind in CONTENT.items() if not isinstance(state.get(key), kind)]
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


def latest_training_state(run_dir: str) -> str | None:
    """The training state with the highest number in a run folder, or None."""
    return next(iter(training_states(run_dir)), None)
