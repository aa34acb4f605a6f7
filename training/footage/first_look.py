"""One look at every frame of a recording before it is cut into clips: changes of the picture, its size, faces, a checksum.

What is found takes 290 bytes a frame, and lies on the disk a little later: a run that was killed goes on where it
stopped. What one frame gives does not depend on where reading began, so the result is that of a run without interruption.
"""

import dataclasses
import itertools
import json
import os
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image

from networks.checkpoints.durable_files import replacing
from networks.errors import DAMAGED_FILE, InputError
from training.commands.file_names import safe_name
from training.commands.progress import progress
from training.footage.clips import FootageClip
from training.footage.face_landmarks import MAX_FACES, FaceDetector
from training.footage.scene_cuts import REACH, ChangeMeter

THUMBNAIL = 8  # samples along a side
ROW = np.dtype(
    [
        ('checksum', '<u4'),
        ('size', '<u4', (2,)),  # (width, height), pixels
        ('changes', '<f4', (REACH,)),  # of training.footage.scene_cuts.ChangeMeter
        ('num_faces', '<u4'),
        ('points', '<f4', (MAX_FACES, 4, 2)),  # of training.footage.face_landmarks.Face, the largest first
        ('boxes', '<f4', (MAX_FACES, 4)),
        ('thumbnail', 'u1', (THUMBNAIL, THUMBNAIL)),  # of `thumbnail`
    ]
)
VERSION = 3
SECONDS_BETWEEN_WRITES = 2.0
SHAPE_TOLERANCE = 0.02  # relative difference of the proportions from which on a picture has another shape
RARE = 0.1  # part of the frames below which a size does not count


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What was found in a recording.

    Attributes:
        rows: One a frame, of type `ROW`.
        complaints: How often the decoder has complained.
    """

    rows: np.ndarray
    complaints: int = 0

    def changes_of_shape(self) -> dict[int, str]:
        """Return the frames from which on the picture has other proportions, with a sentence on each."""
        found = {}
        sizes = self.rows['size'].astype(int)
        for frame in np.flatnonzero((sizes[1:] != sizes[:-1]).any(axis=1)) + 1:
            before, after = sizes[frame - 1], sizes[frame]
            if abs(before[0] * after[1] - after[0] * before[1]) > SHAPE_TOLERANCE * before[0] * after[1]:
                found[int(frame)] = f'the picture changes from {before[0]}x{before[1]} to {after[0]}x{after[1]} pixels'
        return found

    def size_of(self, frame: int) -> tuple[int, int]:
        """Return the (width, height) that the frames around one are brought to, as far as their shape is the same.

        It is the largest one that is not rare among them.
        """
        edges = [0, *self.changes_of_shape(), len(self.rows)]
        last = next(edge for edge in edges[1:] if edge > frame or edge == len(self.rows))
        first = max(edge for edge in edges if edge <= frame)
        sizes, counts = np.unique(self.rows['size'][first:last], axis=0, return_counts=True)
        usual = sizes[counts >= RARE * counts.sum()]
        width, height = max((usual if len(usual) else sizes).tolist(), key=lambda size: size[0] * size[1])
        return width, height

    def look(self, first: int, stop: int) -> dict[str, Any]:
        """Return what a person should know of these frames.

        Returns:
            `copies_in_a_row` (of one frame, the most), `changed_share` (part of the frames that differ from the one before),
            `decoder_complaints` (of the whole recording).
        """
        checksums = self.rows['checksum'][first:stop]
        changed = np.flatnonzero(checksums[1:] != checksums[:-1])
        edges = np.concatenate([[-1], changed, [len(checksums) - 1]])
        return {
            'copies_in_a_row': int(np.diff(edges).max(initial=1)) - 1,
            'changed_share': round(len(changed) / max(len(checksums) - 1, 1), 4) if len(checksums) > 1 else 1.0,
            'decoder_complaints': self.complaints,
        }


def analyse(
    clip: FootageClip, index: int, folder: str, *, detector: Callable[[], FaceDetector] | None, model: str | None
) -> Analysis:
    """Look at all frames of a recording, or go on with what an interrupted run has left.

    Args:
        clip: As `training.footage.clips.open_footage` gives it.
        index: Of the recording among the sources.
        folder: Where the result is kept.
        detector: Gives the detector of faces when it is needed; None: no faces are looked for.
        model: Identity of the detector, None without one.

    Raises:
        InputError: A frame cannot be decoded.
    """
    os.makedirs(folder, exist_ok=True)
    stem = os.path.join(folder, f'{index:05d}-{safe_name(clip.name)}')
    store = _Store(stem, {'version': VERSION, 'source': clip.identity, 'detector': model})
    while not store.complete:
        try:
            _look_at_frames(clip, store, detector)
        except _OtherFramesError:
            store.restart()  # the recording cannot be entered in the middle, or is not what it was
    return Analysis(store.read(), store.complaints)


def checksum(frame: np.ndarray) -> int:
    """A number that two different frames hardly share; large frames are looked at in part."""
    step = max(min(frame.shape[:2]) // 256, 1)
    return zlib.crc32(frame[::step, ::step].tobytes())


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """A frame uint8 `[H, W, 3]` at 8x8 grey pixels, uint8: enough to tell whether a recording is the one that was embedded."""
    grey = PIL.Image.fromarray(frame).convert('L')
    return np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), PIL.Image.Resampling.BOX))


class _OtherFramesError(Exception):
    """Frames that were read again are not those of the interrupted run."""


class _Store:
    """Rows of one recording on the disk: `STEM.rows` holds them, `STEM.json` tells whose they are and if all are there."""

    def __init__(self, stem: str, identity: dict[str, Any]) -> None:
        self._rows, self._about, self._identity = stem + '.rows', stem + '.json', identity
        self.complaints = 0
        self.complete = False
        about = self._read_about()
        if about is None or about.get('identity') != identity or not os.path.isfile(self._rows):
            self.restart()
        else:
            self.complaints = int(about.get('complaints') or 0)
            self.complete = about.get('num_frames') is not None
            # A kill may have left a part of a row.
            self.num_rows = os.path.getsize(self._rows) // ROW.itemsize
            os.truncate(self._rows, self.num_rows * ROW.itemsize)
            if self.complete and about['num_frames'] != self.num_rows:
                self.restart()

    def restart(self) -> None:
        self.complete, self.num_rows, self.complaints = False, 0, 0
        with open(self._rows, 'wb'):
            pass
        self._write_about(None)

    def read(self) -> np.ndarray:
        return np.fromfile(self._rows, dtype=ROW)

    def append(self, rows: np.ndarray) -> None:
        with open(self._rows, 'rb+') as file:
            file.seek(self.num_rows * ROW.itemsize)
            file.write(rows.tobytes())
        self.num_rows += len(rows)

    def finish(self, complaints: int) -> None:
        self.complaints += complaints
        with open(self._rows, 'rb+') as file:
            os.fsync(file.fileno())
        self._write_about(self.num_rows)
        self.complete = True

    def _read_about(self) -> dict[str, Any] | None:
        try:
            with open(self._about, encoding='utf-8') as file:
                about = json.load(file)
        except (FileNotFoundError, *DAMAGED_FILE):
            return None
        return about if isinstance(about, dict) else None

    def _write_about(self, num_frames: int | None) -> None:
        with replacing(self._about) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            json.dump({'identity': self._identity, 'complaints': self.complaints, 'num_frames': num_frames}, file)


def _look_at_frames(clip: FootageClip, store: _Store, detector: Callable[[], FaceDetector] | None) -> None:
    before = store.read()
    begin = max(store.num_rows - REACH, 0)
    meter, pending, written = ChangeMeter(), [], time.monotonic()
    with progress(total=clip.expected_frames, initial=store.num_rows, description=f'looking at {clip.name}') as bar:
        for number, frame in zip(itertools.count(begin), clip.frames(begin), strict=False):
            changes = meter.update(frame)
            if number < len(before):
                if before[number]['checksum'] != checksum(frame):
                    raise _OtherFramesError
                continue
            row = np.zeros((), ROW)
            row['checksum'], row['changes'] = checksum(frame), changes
            for place, face in enumerate(detector().detect(frame) if detector else []):
                row['num_faces'] = place + 1
                row['points'][place], row['boxes'][place] = face.points, face.box
            row['size'] = frame.shape[1], frame.shape[0]
            row['thumbnail'] = thumbnail(frame)
            pending.append(row)
            if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                store.append(np.stack(pending))
                pending, written = [], time.monotonic()
            bar.update(1)
    if pending:
        store.append(np.stack(pending))
    if store.num_rows == 0:
        raise InputError(f'{clip.source} has no frames.')
    store.finish(clip.complaints())
