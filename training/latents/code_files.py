"""W+ codes that other tools have made, read as clips.

* `.npz` with `w` `[T, num_ws, w_dim]` (NVIDIA's projector has T = 1) and optionally `fps`,
* `.npy` and `.pt` with one array or tensor of that shape (e4e's `latents.pt`),
* a folder of such files: those with several frames are clips; those with one frame are the frames of one clip, also where
  each lies in a numbered folder of its own, as NVIDIA's projector leaves them.

`[T, 1, w_dim]` is a code of W for all layers. Nothing in these files is run: pickled objects are refused.
"""

import dataclasses
import errno
import functools
import os
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch

from networks.errors import DAMAGED_FILE, InputError
from training.commands import file_names
from training.latents.layout import CODE_ENDINGS as CODE_ENDINGS
from training.recordings.source_files import LeftOut, is_image, is_video, walk
from training.recordings.video_timing import DEFAULT_RATE

PROJECTOR_FILE = 'projected_w.npz'  # of NVIDIA's projector.py, beside a film and two pictures of its work
CODE_KEYS = ('w', 'ws', 'w_plus', 'latents', 'latent', 'codes')  # names of arrays and tensors, first match wins


@dataclasses.dataclass(frozen=True)
class CodeClip:
    """Codes of one recording that exist already."""

    name: str
    fps: float
    source: str
    load: Callable[[], np.ndarray] = dataclasses.field(repr=False)  # float32 [T, num_ws, w_dim]


def holds_codes(source: str, *, num_ws: int | None = None, w_dim: int | None = None) -> bool:
    """Tell whether a source is a file or a folder of codes; other files and folders are footage.

    Args:
        source: Path.
        num_ws, w_dim: What the image generator takes, if that is known: arrays beside pictures are codes only if they fit.

    Raises:
        InputError: A folder holds both codes and pictures, and which of them is meant is not clear; or it is a latent data set.
    """
    if not os.path.isdir(source):
        return source.lower().endswith(CODE_ENDINGS)
    files = [os.path.join(folder, name) for folder, _, names in walk(source, LeftOut()) for name in names]
    codes = [file for file in files if _may_hold_codes(file)]
    pictures = [file for file in files if is_image(file) or is_video(file)]
    if not codes or not pictures:
        return bool(codes)
    if any(os.path.basename(file) == PROJECTOR_FILE for file in codes):
        return True
    fitting = [file for file in codes if _fits(file, num_ws, w_dim)]
    if fitting:
        raise InputError(
            f'{file_names.printable(source)} holds W+ codes ({file_names.printable(os.path.basename(fitting[0]))}'
            f'{" and more" if len(fitting) > 1 else ""}) as well as pictures or videos '
            f'({file_names.printable(os.path.basename(pictures[0]))}); give a folder with one of the two, or the files.'
        )
    return False


def _may_hold_codes(path: str) -> bool:
    name = os.path.basename(path)
    return name.lower().endswith(CODE_ENDINGS) and name != 'quads.npy' and not name.endswith('.quads.npy')


def _fits(path: str, num_ws: int | None, w_dim: int | None) -> bool:
    """Whether a file holds codes of this shape; of an unknown shape, whether it could."""
    if num_ws is None or w_dim is None:
        return path.lower().endswith(('.npz', '.pt', '.pth'))
    try:
        read_codes(path, num_ws=num_ws, w_dim=w_dim)
    except InputError:
        return False
    return True


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

    def clip(name: str, rate: float | None, where: str, files: Sequence[str]) -> CodeClip:
        load = functools.partial(_join, files, num_ws, w_dim)
        return CodeClip(file_names.printable(name), fps or rate or DEFAULT_RATE, file_names.printable(where), load)

    if not os.path.isdir(source):
        _, rate = read_codes(source, num_ws=num_ws, w_dim=w_dim)
        return [clip(file_names.stem(source), rate, source, [source])]
    clips = []
    singles: dict[str, tuple[list[str], float | None]] = {}  # of each folder
    for folder, relative, names in walk(source, LeftOut()):
        projector = any(is_image(name) or is_video(name) for name in names) and PROJECTOR_FILE in names
        for name in [PROJECTOR_FILE] if projector else filter(_may_hold_codes, names):
            file = os.path.join(folder, name)
            codes, rate = read_codes(file, num_ws=num_ws, w_dim=w_dim)
            if len(codes) == 1:
                singles.setdefault(relative, ([], rate))[0].append(file)
            else:
                stem = file_names.stem(name)
                clips.append(clip(f'{relative}/{stem}' if relative else stem, rate, file, [file]))
    for relative, (files, rate) in _joined(singles).items():
        where = os.path.join(source, relative) if relative else source
        clips.append(clip(relative or os.path.basename(os.path.abspath(source)), rate, where, files))
    if not clips:
        raise InputError(f'{source}: this folder holds no codes ({", ".join(CODE_ENDINGS)}).')
    return clips


def _joined(singles: dict[str, tuple[list[str], float | None]]) -> dict[str, tuple[list[str], float | None]]:
    """Join numbered folders with one code each (frame0000, frame0001, ...) into one clip of the folder that they lie in."""
    groups: dict[tuple[str, str], list[str]] = {}
    for relative, (files, _) in singles.items():
        parent, name = os.path.split(relative)
        if len(files) == 1 and relative and re.search(r'\d', name):
            groups.setdefault((parent, re.sub(r'\d+', '#', name)), []).append(relative)
    joined = dict(singles)
    for (parent, _), members in groups.items():
        if len(members) > 1 and parent not in joined:
            files = [joined[member][0][0] for member in members]
            rate = joined[members[0]][1]
            for member in members:
                del joined[member]
            joined[parent] = (files, rate)
    return joined


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
                codes = file[_code_key(path, list(file.files), 'array')]
                fps = _rate(path, file['fps']) if 'fps' in file.files else None
        elif path.lower().endswith('.npy'):
            codes = np.load(path, allow_pickle=False)
        else:
            value = torch.load(path, map_location='cpu', weights_only=True)
            if isinstance(value, dict):
                tensors = [key for key, entry in value.items() if isinstance(entry, torch.Tensor)]
                rate = value.get('fps')
                fps = _rate(path, np.asarray(rate)) if rate is not None else None
                value = value[_code_key(path, tensors, 'tensor')]
            if not isinstance(value, torch.Tensor):
                raise InputError(f'{path} holds a {type(value).__name__} where a tensor of codes [T, L, D] belongs.')
            codes = value.detach().to(torch.float32).numpy()
    except (*DAMAGED_FILE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # these are of what the file says
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'{path} cannot be read as W+ codes, or it is cut off: {reason}') from error
    if codes.dtype == np.uint8 and codes.ndim in (4, 5) and codes.shape[-1] == 3:
        raise InputError(f'{path} holds frames (uint8 {list(codes.shape)}), not W+ codes; write them as a video or as images.')
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


def _code_key(path: str, keys: Sequence[str], what: str) -> str:
    """Return the name of the codes among arrays or tensors: one of the usual ones, or the only one."""
    for key in CODE_KEYS:
        if key in keys:
            return key
    others = [key for key in keys if key != 'fps']
    if len(others) == 1:
        return others[0]
    names = ', '.join(map(str, others[:8])) or 'nothing'
    raise InputError(f'{path} has no {what} "w" (it holds {names}), so it holds no codes.')


def _rate(path: str, value: np.ndarray) -> float:
    """Return a rate that is stored as a number, or as an array of one."""
    numbers = np.asarray(value).reshape(-1)
    if numbers.size != 1 or numbers.dtype.kind not in 'fiu' or not (np.isfinite(numbers[0]) and 0 < numbers[0] <= 1000):
        raise InputError(f'{path}: its "fps" is {str(value)[:40]}, where one number of frames per second belongs.')
    return float(numbers[0])
