"""Finished parts of a page, so that one that was killed goes on where it was.

They lie in a hidden folder beside the page, one .npz each, under a name that holds a digest of what they were made from, so that
a part of other inputs is not taken. The folder goes when the page is complete.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from networks.checkpoints.durable_files import replacing
from networks.errors import DAMAGED_FILE
from networks.image_generator import ImageGenerator
from training.videos.output import as_rgb
from training.videos.synthesis import render_codes

BATCH = 8  # frames rendered at a time
KEEP_SECONDS = 30.0  # of rendering, after which frames are kept


class KeptParts:
    """The parts of one page.

    Args:
        dest: The page.
        inputs: What decides all parts (JSON values).
    """

    def __init__(self, dest: str, inputs: Any) -> None:
        folder, name = os.path.split(os.path.abspath(dest))
        self.folder = os.path.join(folder, f'.{name}.unfinished')
        self._inputs = inputs

    def _path(self, name: str, inputs: Any) -> str:
        plain = json.dumps([self._inputs, name, inputs], sort_keys=True, default=str)
        return os.path.join(self.folder, f'{name}-{hashlib.sha256(plain.encode()).hexdigest()[:24]}.npz')

    def find(self, name: str, inputs: Any) -> list[np.ndarray] | None:
        """A part that an interrupted run has left; None: it left none, or a damaged one."""
        try:
            with np.load(self._path(name, inputs), allow_pickle=False) as file:
                return [file[f'arr_{index}'] for index in range(len(file.files))]
        except (OSError, *DAMAGED_FILE):
            return None

    def keep(self, name: str, inputs: Any, part: Sequence[np.ndarray]) -> None:
        """Bring a part to the disk; a disk that is full costs no more than that it is made again."""
        with contextlib.suppress(OSError):
            os.makedirs(self.folder, exist_ok=True)
            with replacing(self._path(name, inputs)) as temporary, open(temporary, 'wb') as file:
                np.savez(file, *part)

    def part(self, name: str, inputs: Any, make: Callable[[], Sequence[np.ndarray]]) -> list[np.ndarray]:
        """A part that was kept, or is made and kept.

        Args:
            name: Of the file, within the page.
            inputs: What decides it beside the inputs of all parts (JSON values).
            make: Makes it: arrays of numbers.
        """
        found = self.find(name, inputs)
        if found is None:
            found = list(make())
            self.keep(name, inputs, found)
        return found

    def text(self, name: str, inputs: Any, make: Callable[[], str]) -> str:
        """A part that is text, such as the data address of a picture."""
        return self.part(name, inputs, lambda: [np.frombuffer(make().encode(), np.uint8)])[0].tobytes().decode()

    def frames(
        self, name: str, image_generator: ImageGenerator, codes: torch.Tensor, fit: Callable[[np.ndarray], np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Frames uint8 [H, W, 3] of codes [T, num_ws, w_dim]; where they take long, they are kept a few at a time.

        Args:
            name: Of the files.
            image_generator: Image generator.
            codes: What to render.
            fit: Brings frames [N, H, W, 3] to their size on the page.
        """
        inputs = digest(codes)
        begin = 0
        while (found := self.find(f'{name}-frames-{begin}', inputs)) is not None and len(found[0]):
            yield from found[0]
            begin += len(found[0])
        waiting: list[np.ndarray] = []
        since = time.monotonic()
        for index, frame in enumerate(render_codes(image_generator, codes[begin:], batch=BATCH), start=begin + 1):
            waiting.append(fit(as_rgb(frame)[None])[0])
            yield waiting[-1]
            if index % BATCH == 0 and time.monotonic() - since > KEEP_SECONDS:
                self.keep(f'{name}-frames-{index - len(waiting)}', inputs, [np.stack(waiting)])
                waiting, since = [], time.monotonic()

    def drop(self, name: str) -> None:
        """Remove parts whose names begin so."""
        for path in glob.glob(os.path.join(glob.escape(self.folder), f'{name}*.npz')):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def remove(self) -> None:
        """Remove what was kept: the page is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def digest(values: torch.Tensor | np.ndarray) -> str:
    """SHA-256 of the shape and the numbers of an array."""
    array = np.ascontiguousarray(values.cpu().numpy() if torch.is_tensor(values) else values)
    return hashlib.sha256(f'{array.dtype.str}{array.shape}'.encode() + array.tobytes()).hexdigest()
