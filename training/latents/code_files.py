"""W+ codes that other tools have made, read as clips.

* `.npz` with `w` `[T, num_ws, w_dim]` (NVIDIA's projector has T = 1) and optionally `fps`,
* `.npy` and `.pt` with one array or tensor of that shape (e4e's `latents.pt`),
* a folder of such files: those with several frames are clips; those with one frame are the frames of one clip.

`[T, 1, w_dim]` is a code of W for all layers. Nothing in these files is run: pickled objects are refused.
"""

import dataclasses
import functools
import os
import pickle
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
import torch

from networks.errors import InputError
from training.footage.clips import DEFAULT_FPS, IMAGE_ENDINGS, VIDEO_ENDINGS, natural_sort

CODE_ENDINGS = ('.npz', '.npy', '.pt', '.pth')


@dataclasses.dataclass(frozen=True)
class CodeClip:
    """Codes of one recording that exist already."""

    name: str
    fps: float
    source: str
    load: Callable[[], np.ndarray] = dataclasses.field(repr=False)  # float32 [T, num_ws, w_dim]


def holds_codes(source: str) -> bool:
    """Tell whether a source is a file or a folder of codes; a folder with frames or videos is footage."""
    if not os.path.isdir(source):
        return source.lower().endswith(CODE_ENDINGS)
    names = [name.lower() for _, _, files in os.walk(source) for name in files]
    return any(name.endswith(CODE_ENDINGS) for name in names) and not any(
        name.endswith(IMAGE_ENDINGS + VIDEO_ENDINGS) for name in names
    )


def open_codes(source: str, *, num_ws: int, w_dim: int, fps: float | None = None) -> list[CodeClip]:
    """Find the clips of a file or folder of codes.

    Args:
        source: As in the module's description.
        num_ws, w_dim: What the image generator takes.
        fps: Rate of the codes; None: what the file says, 25 if it does not.

    Raises:
        InputError: Not such a file, or its codes are for another generator.
    """
    if not os.path.exists(source):
        raise InputError(f'{source}: there is no such file or folder.')

    def load(files: Sequence[str]) -> Callable[[], np.ndarray]:
        return functools.partial(_join, files, num_ws, w_dim)

    if not os.path.isdir(source):
        _, rate = read_codes(source, num_ws=num_ws, w_dim=w_dim)
        stem = os.path.splitext(os.path.basename(source))[0]
        return [CodeClip(stem, fps or rate or DEFAULT_FPS, source, load([source]))]
    clips = []
    for folder, subfolders, names in os.walk(source):
        subfolders.sort()
        files = [os.path.join(folder, name) for name in natural_sort(names) if name.lower().endswith(CODE_ENDINGS)]
        relative = os.path.relpath(folder, source).replace(os.sep, '/')
        singles, rate = [], None
        for file in files:
            codes, rate = read_codes(file, num_ws=num_ws, w_dim=w_dim)
            if len(codes) == 1:
                singles.append(file)
            else:
                stem = os.path.splitext(os.path.basename(file))[0]
                name = stem if relative == '.' else f'{relative}/{stem}'
                clips.append(CodeClip(name, fps or rate or DEFAULT_FPS, file, load([file])))
        if singles:
            name = os.path.basename(os.path.abspath(source)) if relative == '.' else relative
            clips.append(CodeClip(name, fps or rate or DEFAULT_FPS, folder, load(singles)))
    if not clips:
        raise InputError(f'{source}: this folder holds no codes ({", ".join(CODE_ENDINGS)}).')
    return clips


def _join(files: Sequence[str], num_ws: int, w_dim: int) -> np.ndarray:
    return np.concatenate([read_codes(file, num_ws=num_ws, w_dim=w_dim)[0] for file in files])


def read_codes(path: str, *, num_ws: int, w_dim: int) -> tuple[np.ndarray, float | None]:
    """Read one file of codes; return float32 `[T, num_ws, w_dim]` and the rate if the file tells it.

    Raises:
        InputError: Damaged, not codes, or codes for another generator.
    """
    fps = None
    try:
        if path.lower().endswith('.npz'):
            with np.load(path, allow_pickle=False) as file:
                if 'w' not in file.files:
                    names = ', '.join(file.files) or 'nothing'
                    raise InputError(f'{path} has no array "w" (it holds {names}), so it holds no codes.')
                codes = file['w']
                fps = float(file['fps']) if 'fps' in file.files else None
        elif path.lower().endswith('.npy'):
            codes = np.load(path, allow_pickle=False)
        else:
            tensor = torch.load(path, map_location='cpu', weights_only=True)
            if not isinstance(tensor, torch.Tensor):
                raise InputError(f'{path} holds a {type(tensor).__name__} where a tensor of codes [T, L, D] belongs.')
            codes = tensor.detach().to(torch.float32).numpy()
    except (ValueError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'{path} cannot be read as W+ codes, or it is cut off: {reason}') from error
    if codes.dtype.kind != 'f':
        raise InputError(f'{path}: its values are {codes.dtype}, but codes are floating point numbers.')
    if codes.shape == (num_ws, w_dim):  # one frame, without the dimension of time
        codes = codes[np.newaxis]
    if codes.ndim == 3 and codes.shape[1] == 1 and codes.shape[2] == w_dim:
        codes = np.repeat(codes, num_ws, axis=1)
    if codes.ndim != 3 or codes.shape[1:] != (num_ws, w_dim):
        raise InputError(
            f'{path}: its codes have the shape {list(codes.shape)}, but this image generator takes '
            f'[frames, {num_ws}, {w_dim}]; they were made for another one.'
        )
    if len(codes) == 0:
        raise InputError(f'{path} has no frames.')
    return np.ascontiguousarray(codes, dtype=np.float32), fps
