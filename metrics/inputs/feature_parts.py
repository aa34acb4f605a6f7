"""Features of clips that independent jobs compute, each a share, and that one collects.

Jobs know nothing of each other: each writes what it has computed into a folder that all of them see, in a file whose name says of
which clips, by which detector and in which way the features are. Whoever collects them, with the same options, looks for these
names; another data set, other weights or another number of clips are other names.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from typing import Any

import numpy as np

from networks.checkpoints.durable_files import replacing
from networks.errors import DAMAGED_FILE, InputError, option

MOST_NAMED = 10


class FeatureParts:
    """A folder of shares.

    Args:
        folder: Where they are.
        share: (number from 1, count): the share of this job; None: it collects those of all jobs.

    Attributes:
        done: Names of the shares that this job has written, or had written before.
    """

    def __init__(self, folder: str, share: tuple[int, int] | None) -> None:
        self.folder, self.share = folder, share
        self.done: list[str] = []

    def bounds(self, count: int) -> tuple[int, int]:
        """Which of `count` pieces of work are this job's: from, to."""
        assert self.share is not None
        number, shares = self.share
        return count * (number - 1) // shares, count * number // shares

    def written(self, key: str) -> bool:
        """Whether this job has written its share of these clips already, maybe before it was interrupted."""
        assert self.share is not None
        path = self._path(key, *self.share)
        if os.path.isfile(path):
            try:
                self._read(path)
            except InputError:
                return False
            self.done.append(path)
            return True
        return False

    def write(self, key: str, values: np.ndarray, damaged: dict[str, str]) -> None:
        """Write the share of this job, whole or not at all.

        Args:
            key: What identifies the clips, the detector and how they are computed.
            values: Features float32 [n, F, D].
            damaged: Name of each video that could not be read -> why.
        """
        assert self.share is not None
        path, text = self._path(key, *self.share), json.dumps(damaged)
        with replacing(path) as temporary, open(temporary, 'wb') as file:
            np.savez(file, values=values, damaged=np.array(text), sha256=np.array(_digest(values, text)))
        self.done.append(path)

    def collect(self, key: str, what: str) -> tuple[np.ndarray, dict[str, str]]:
        """Features and damaged videos of all shares, in the order of the clips.

        Args:
            key: As in `write`.
            what: Names the clips for errors ('fvd2048_16f real clips').

        Raises:
            InputError: Some are missing or damaged.
        """
        found: dict[int, dict[int, str]] = {}  # count -> number -> path
        for path in glob.glob(os.path.join(glob.escape(self.folder), f'{key}-*.npz')):
            match = re.fullmatch(r'(\d{1,6})-of-(\d{1,6})\.npz', os.path.basename(path)[len(key) + 1 :])
            if match:
                found.setdefault(int(match[2]), {})[int(match[1])] = path
        if not found:
            raise InputError(
                f'{self.folder} holds no shares of the {what}; compute them with {option("shard", "1/N")}, '
                f'{option("shard", "2/N")}, ... and the same other options, version of torch and kind of device'
            )
        count = max(found, key=lambda number: len(found[number]) / number)
        missing = [number for number in range(1, count + 1) if number not in found[count]]
        if missing:
            shown = ', '.join(f'{number}/{count}' for number in missing[:MOST_NAMED]) + (
                ', ...' if len(missing) > MOST_NAMED else ''
            )
            raise InputError(
                f'of {count} shares of the {what} {len(missing)} are missing in {self.folder}: {shown}; compute them with '
                f'{option("shard")}'
            )
        parts = [self._read(found[count][number]) for number in range(1, count + 1)]
        return np.concatenate([values for values, _ in parts]), {name: why for _, names in parts for name, why in names.items()}

    def _path(self, key: str, number: int, count: int) -> str:
        return os.path.join(self.folder, f'{key}-{number}-of-{count}.npz')

    @staticmethod
    def _read(path: str) -> tuple[np.ndarray, dict[str, str]]:
        try:
            with np.load(path, allow_pickle=False) as content:
                values, text, digest = content['values'], str(content['damaged']), str(content['sha256'])
            damaged: Any = json.loads(text)
            if values.dtype == np.float32 and values.ndim == 3 and digest == _digest(values, text) and isinstance(damaged, dict):
                return values, damaged
        except (*DAMAGED_FILE, OSError) as error:
            raise InputError(f'{path} is damaged; remove it and compute this share again') from error
        raise InputError(f'{path} is damaged; remove it and compute this share again')


def _digest(values: np.ndarray, text: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes() + text.encode()).hexdigest()
