"""Numbers that belong to frames (PSNR, LPIPS, ...), on the disk as they are made: one JSON object a line, one line a frame.

Only sums stay in memory, so that hours of footage need no more of it than seconds. A kill leaves whole lines and at most
one that is cut off, which is dropped when the file is opened again.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from networks.checkpoints.durable_files import replacing


class FrameMeasures:
    """The measures of one clip's frames, in a file.

    Args:
        path: The file; it need not exist.

    Attributes:
        num_frames: Frames so far, those that the file held before included.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.num_frames = 0
        self._sums: dict[str, list[float]] = {}  # name -> [sum, number of frames that have it]
        for row in read_measures(path):
            self._count(row)

    def append(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Add one row of finite numbers for each further frame; they are in the file when this returns."""
        kept = [{key: float(value) for key, value in row.items() if np.isfinite(value)} for row in rows]
        with open(self.path, 'a', encoding='utf-8') as file:
            file.writelines(json.dumps(row) + '\n' for row in kept)
        for row in kept:
            self._count(row)

    def averages(self) -> dict[str, float]:
        """The average of every measure over the frames that have it."""
        return {key: total / count for key, (total, count) in self._sums.items()}

    def truncate(self, num_frames: int) -> None:
        """Forget all but the first frames, and what a kill has cut off."""
        self.num_frames, self._sums = 0, {}
        with replacing(self.path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            for row in read_measures(self.path):
                if self.num_frames == num_frames:
                    break
                file.write(json.dumps(row) + '\n')
                self._count(row)

    def _count(self, row: Mapping[str, float]) -> None:
        self.num_frames += 1
        for key, value in row.items():
            entry = self._sums.setdefault(key, [0.0, 0])
            entry[0] += value
            entry[1] += 1


def read_measures(path: str) -> Iterator[dict[str, float]]:
    """Yield the rows of a file in order, up to the first that is cut off or damaged; none where there is no file."""
    if not os.path.isfile(path):
        return
    with open(path, encoding='utf-8', errors='replace') as file:
        for line in file:
            if not line.endswith('\n'):
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                return
            if not isinstance(row, dict) or not all(_is_finite(value) for value in row.values()):
                return
            yield row


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e300
