"""Clips and pictures for the page of a run, as data that stands in the page itself."""

from __future__ import annotations

import base64
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from training.control.transfer import subject_shift
from training.run_page.kept import KeptParts
from training.run_page.measures import FIRST_SEED, Pair
from training.videos.code_sources import ModelSource, default_burn_in
from training.videos.output import VideoWriter, image_grid

LARGEST_SIDE = 256  # of a picture in a row; a page of 1024 x 1024 pictures would be hundreds of megabytes
GAP = 4  # pixels between the cells of a grid
MOMENTS = 8  # of a transfer row
FRAMES_OF_MOTION = 2000


def _small(frames: np.ndarray, side: int = LARGEST_SIDE) -> np.ndarray:
    """Frames [N, H, W, 3], no side longer than `side`."""
    height, width = frames.shape[1:3]
    if max(height, width) <= side:
        return frames
    size = max(1, round(width * side / max(height, width))), max(1, round(height * side / max(height, width)))
    return np.stack([np.asarray(PIL.Image.fromarray(frame).resize(size, PIL.Image.Resampling.LANCZOS)) for frame in frames])


def _render(image_generator: Any, codes: torch.Tensor, kept: KeptParts, name: str) -> np.ndarray:
    return np.stack(list(kept.frames(name, image_generator, codes, _small)))


def picture(frames: np.ndarray, columns: int) -> str:
    """Frames [N, H, W, 3] in rows of `columns`, as a data address of a JPEG."""
    padded = np.pad(frames, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    file = io.BytesIO()
    grid = image_grid(padded, columns)[:-GAP, :-GAP]
    PIL.Image.fromarray(grid).save(file, format='JPEG', quality=88)
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'


def clip(
    image_generator: Any, clips: Sequence[torch.Tensor], fps: float, advance: Callable[[int], object], kept: KeptParts, name: str
) -> str:
    """Clips of codes [T, num_ws, w_dim] side by side, as a data address of an mp4.

    Args:
        image_generator: Image generator.
        clips: Codes.
        fps: Frames per second.
        advance: Told of every step how many pictures it had.
        kept: Where frames are kept that take long.
        name: Of these frames there.
    """
    streams = [kept.frames(f'{name}-{column}', image_generator, codes, _small) for column, codes in enumerate(clips)]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'clip.mp4')
        with VideoWriter(path, fps=fps, crf=20) as writer:
            for frames in zip(*streams, strict=True):
                writer.write(image_grid(np.stack(frames), len(frames)))
                advance(len(frames))
        with open(path, 'rb') as file:
            return f'data:video/mp4;base64,{base64.b64encode(file.read()).decode()}'


def codes_at(generator: Any, seed: int, frame: int, count: int) -> torch.Tensor:
    """Codes [count, num_ws, w_dim] of a seed from `frame` on, counted from the end of the burn-in."""
    return ModelSource(generator, seed, burn_in=default_burn_in(generator) + frame).read(count)


def real_stretches(clips: Sequence[np.ndarray], count: int, length: int) -> list[torch.Tensor]:
    """`count` stretches of the footage, evenly spread, of one length: `length`, or what the longest clip has."""
    length = min(length, max(len(codes) for codes in clips))
    places = [(index, begin) for index, codes in enumerate(clips) for begin in range(len(codes) - length + 1)]
    chosen = np.linspace(0, len(places) - 1, count).round().astype(int)
    return [torch.from_numpy(clips[places[k][0]][places[k][1] : places[k][1] + length].copy()) for k in chosen]


def pairs(image_generator: Any, generator: Any, clips: Sequence[np.ndarray], found: Sequence[Pair], kept: KeptParts) -> str:
    """Generated moments above, the nearest moments of the footage below."""
    made = [codes_at(generator, pair.seed, pair.frame, 1) for pair in found]
    real = [torch.from_numpy(clips[pair.clip][pair.real_frame : pair.real_frame + 1].copy()) for pair in found]
    return picture(_render(image_generator, torch.cat([*made, *real]), kept, 'pairs'), len(found))


def transfer_rows(
    image_generator: Any, generator: Any, subjects: Sequence[np.ndarray], method: str, fps: float, kept: KeptParts
) -> str:
    """The same motion by the trained subject and by others, one below the other; a second between two pictures.

    Args:
        image_generator: Image generator.
        generator: Latent generator.
        subjects: Codes [N, num_ws, w_dim] of each other subject.
        method: See training.control.transfer.
        fps: Frames per second.
        kept: Where pictures are kept that take long.
    """
    source = ModelSource(generator, FIRST_SEED)
    motion = torch.cat([source.read(100) for _ in range(FRAMES_OF_MOTION // 100)])
    moments = motion[:: max(1, round(fps))][:MOMENTS]
    rows = [moments, *(moments + subject_shift(method, motion, codes).to(moments) for codes in subjects)]
    return picture(_render(image_generator, torch.cat(rows), kept, 'transfer'), len(moments))
