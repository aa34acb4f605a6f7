"""Snapshots, which users keep, and training states, which let a training go on as if it had never stopped."""

from __future__ import annotations

import copy
import os
import types
from collections.abc import Mapping
from typing import Any

import torch

from networks import checkpoints
from networks.checkpoints.formats.ours import SNAPSHOT_FORMAT, SNAPSHOT_VERSION, STATE_FORMAT, STATE_VERSION
from training.latents.dataset import LatentDataset
from training.runs.states import on_cpu as on_cpu
from training.runs.states import read_state, write_state
from training.runs.states import training_states as training_states
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


def save_training_state(path: str, state: dict[str, Any], *, keep_every: int = 0) -> None:
    """Write `training-state-*.pt` (tensors and plain values only); older ones beside it go when it is on the disk.

    Args:
        path: Where to; the file is there as a whole or not at all.
        state: What it holds.
        keep_every: Keep also every so many-th state; 0: the newest only.
    """
    write_state(path, {'format': STATE_FORMAT, 'format_version': STATE_VERSION, **state}, keep_every=keep_every)


# What every training state holds, and of which kind.
CONTENT: dict[str, Any] = {
    'trainer': dict, 'ranks': list, 'data_sha256': str, 'tick': int, 'tick_start_frames': int, 'seconds': (int, float),
}  # fmt: skip


def load_training_state(path: str) -> dict[str, Any]:
    """Read a training state; nothing that the file says is executed.

    Raises:
        InputError: Not such a file, or damaged.
    """
    return read_state(path, format_name=STATE_FORMAT, format_version=STATE_VERSION, command='train_video.py', content=CONTENT)


def latest_training_state(run_dir: str) -> str | None:
    """The training state with the highest number in a run folder, or None."""
    return next(iter(training_states(run_dir)), None)
