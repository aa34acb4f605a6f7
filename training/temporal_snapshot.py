"""Snapshots, which users keep, and training states, which let a training go on as if it had never stopped."""

from __future__ import annotations

import copy
import glob
import os
import pickle
import platform
import re
import types
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from networks import checkpoints
from networks.checkpoints.formats.ours import SNAPSHOT_FORMAT, SNAPSHOT_VERSION, STATE_FORMAT, STATE_VERSION
from networks.errors import InputError
from stylevideogan import version
from training.latents.dataset import LatentDataset


def versions() -> dict[str, str]:
    """What a result was made with: this project with its commit where that is known, Python, and packages."""
    own = {'stylevideogan': version.__version__, **({'commit': commit} if (commit := version.commit()) else {})}
    return {**own, 'python': platform.python_version(), 'torch': str(torch.__version__), 'numpy': np.__version__}


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


def on_cpu(value: Any) -> Any:
    """A nest of dicts and lists with all of its tensors on the CPU."""
    if isinstance(value, dict):
        return {key: on_cpu(member) for key, member in value.items()}
    if isinstance(value, list):
        return [on_cpu(member) for member in value]
    return value.cpu() if torch.is_tensor(value) else value


def save_training_state(path: str, state: dict[str, Any]) -> None:
    """Write `training-state-*.pt` (tensors and plain values only) and remove older ones beside it; never half a file."""
    with checkpoints.replacing(path) as temporary:
        torch.save({'format': STATE_FORMAT, 'format_version': STATE_VERSION, **state}, temporary)
    for older in glob.glob(os.path.join(glob.escape(os.path.dirname(path)), 'training-state-*.pt')):
        if os.path.abspath(older) != os.path.abspath(path):
            os.unlink(older)


def load_training_state(path: str) -> dict[str, Any]:
    """Read a training state; nothing that the file says is executed.

    Raises:
        InputError: Not such a file, or cut off.
    """
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f'{path}: there is no such file; give the run folder or its training-state-*.pt') from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError, OSError) as error:
        raise InputError(f'{path} is not a training state, or it was cut off; use an earlier one or start anew') from error
    if not isinstance(state, dict) or state.get('format') != STATE_FORMAT:
        raise InputError(f'{path} is not a training state of train_video.py')
    if state.get('format_version', 0) > STATE_VERSION:
        raise InputError(f'{path} was written by a newer version of this program; update it')
    return state


def latest_training_state(run_dir: str) -> str | None:
    """The training state with the highest number in a run folder, or None."""
    found = [
        (int(match[1]), entry.path)
        for entry in os.scandir(run_dir)
        if (match := re.fullmatch(r'training-state-(\d+)\.pt', entry.name))
    ]
    return max(found)[1] if found else None
