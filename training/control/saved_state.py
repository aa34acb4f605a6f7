"""States of a temporal model, saved while it runs, and going on from them with the same numbers.

A state is a `.npz` that is two things at once. `w` float32 `[T, num_ws, w_dim]` and `fps` are the last codes that were shown, so
whatever reads code files reads it: for another snapshot, `--continue` fits its own memories to them. The other arrays are the
memories of the model, l of the next frame and where its noise stands (`state`, JSON): with the snapshot whose sha256 the state
names, `--continue` goes on exactly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import zipfile
from typing import Any

import numpy as np
import torch

from networks.checkpoints.durable_files import replacing
from networks.errors import DAMAGED_FILE, InputError
from networks.latent_generator import LatentGenerator
from training.videos.code_sources import ModelSource

FORMAT = 1
DAMAGED = (*DAMAGED_FILE, OSError)


@dataclasses.dataclass(frozen=True)
class SavedState:
    """Where a video stands.

    Attributes:
        network_sha256: Of the snapshot file whose latent generator made it.
        seed: The seed that runs.
        frame: Number of the next frame of this seed, counted from the first one behind the burn-in.
        source: State of the `ModelSource` before that frame.
        about: Anything else that is good to know: plain values.
    """

    network_sha256: str
    seed: int
    frame: int
    source: dict[str, Any]
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


def write_state(path: str, state: SavedState, codes: np.ndarray, fps: float) -> None:
    """Write a state, whole or not at all.

    Args:
        path: Ends in .npz.
        state: What goes on.
        codes: The last codes that were shown, float32 [T, num_ws, w_dim], T at least 1.
        fps: Their rate.
    """
    plain = {
        'format': FORMAT, 'network_sha256': state.network_sha256, 'seed': state.seed, 'frame': state.frame, 'about': state.about,
        'noise': state.source['noise'],
    }  # fmt: skip
    arrays: dict[str, Any] = {f'memory{index}': _array(memory) for index, memory in enumerate(state.source['memories'])}
    arrays |= {'l': _array(state.source['l']), 'state': np.asarray(json.dumps(plain))}
    arrays |= {'w': np.ascontiguousarray(codes, np.float32), 'fps': np.asarray(fps, np.float64)}
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        np.savez(file, **arrays)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def is_saved_state(path: str) -> bool:
    """Whether a file is a state, and not only a file of codes."""
    with contextlib.suppress(*DAMAGED):
        if path.lower().endswith('.npz') and os.path.isfile(path):
            with zipfile.ZipFile(path) as archive:
                return {'state.npy', 'l.npy'} <= set(archive.namelist())
    return False


def read_state(path: str) -> SavedState:
    """Read what `write_state` wrote; nothing in the file is run.

    Raises:
        InputError: it is damaged, or a newer version of this program wrote it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            plain = json.loads(str(file['state'][()]))
            memories = [torch.from_numpy(file[f'memory{index}']) for index in range(sum('memory' in name for name in file.files))]
            l = torch.from_numpy(file['l'])
        version = int(plain['format'])
        state = SavedState(
            str(plain['network_sha256']), int(plain['seed']), int(plain['frame']),
            {'memories': memories, 'l': l, 'noise': plain['noise']}, dict(plain['about']),
        )  # fmt: skip
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'{path!r} cannot be read as a saved state, or it is cut off: {reason[:200]}') from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in [*memories, l]):
        raise InputError(f'{path!r} holds values that are not finite numbers, so no video can go on from it')
    if version > FORMAT:
        raise InputError(f'{path!r} was written by a newer version of this program (format {version}); update this one')
    return state


def source_of(generator: LatentGenerator, state: SavedState, path: str) -> ModelSource:
    """The codes that follow a state.

    Args:
        generator: Latent generator of the snapshot that the state names.
        state: From `read_state`.
        path: Where the state came from, for errors.

    Raises:
        InputError: the file says that it is of this latent generator, and does not fit it.
    """
    device = next(generator.parameters()).device
    try:
        source = ModelSource(generator, state.seed, burn_in=0)
    except ValueError as error:
        raise InputError(f'{path!r}: its seed cannot be gone on with ({error}); the file was changed') from error
    own = source.state()
    shapes = [[memory.shape for memory in (*each['memories'], each['l'])] for each in (own, state.source)]
    if shapes[0] != shapes[1]:
        raise InputError(f'{path!r} does not fit the latent generator of its own snapshot; the file was changed')
    moved = {**state.source, 'memories': [memory.to(device) for memory in state.source['memories']]}
    try:
        source.restore({**moved, 'l': state.source['l'].to(device)})
    except DAMAGED as error:
        raise InputError(f'{path!r}: its noise cannot be gone on with ({error}); the file was changed') from error
    return source
