"""Codes of a data set beside the frames that they were embedded from, for what learns from both.

The data set says where each clip was: the recording, its rate, the first frame, the corners of what was cut out. So the frames
are read again as they were embedded, without looking for faces a second time.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from networks.errors import InputError, option
from training.commands.file_names import printable, stem
from training.footage.clips import FootageClip, fit, open_footage, resized
from training.footage.face_alignment import cut_out, square_quad
from training.latents.dataset import ClipInfo, LatentDataset


@dataclasses.dataclass(frozen=True)
class CodedFrames:
    """Some frames of a data set with their codes.

    Attributes:
        codes: float32 `[N, num_ws, w_dim]`.
        frames: uint8 `[N, resolution, resolution, 3]`.
        clips: int64 `[N]`, which clip each is of.
        numbers: int64 `[N]`, which frame of it.
        stride: Every how many frames of a clip one was taken.
    """

    codes: np.ndarray
    frames: np.ndarray
    clips: np.ndarray
    numbers: np.ndarray
    stride: int

    def __len__(self) -> int:
        return len(self.codes)

    def chosen(self, mask: np.ndarray) -> 'CodedFrames':
        """Those where a bool `[N]` (or an array of indices) says so."""
        return CodedFrames(self.codes[mask], self.frames[mask], self.clips[mask], self.numbers[mask], self.stride)

    def sha256(self) -> str:
        """Digest of the frames."""
        digest = hashlib.sha256(str(self.frames.shape).encode())
        for frame in self.frames:
            digest.update(np.ascontiguousarray(frame).tobytes())
        return digest.hexdigest()


def read_coded_frames(
    dataset: LatentDataset,
    resolution: int,
    *,
    sources: Sequence[str] = (),
    max_bytes: int = 1 << 31,
    on_frame: Callable[[], object] | None = None,
) -> CodedFrames:
    """Read the frames of all clips of a data set again.

    Args:
        dataset: The data set.
        resolution: Side of the frames, pixels.
        sources: Where the recordings are, if they are no longer where they were, or if the data set does not know them.
        max_bytes: Bound of the memory for frames; of longer footage every second, third, ... frame is taken.
        on_frame: Called after each frame that was read, for progress.

    Raises:
        InputError: A recording is not there, is another one, or cannot be decoded.
    """
    stride = max(-(-dataset.num_frames * resolution * resolution * 3 // max(max_bytes, 1)), 1)
    recordings = _Recordings(dataset, sources)
    codes, frames, clips, numbers = [], [], [], []
    for index, clip in enumerate(dataset.clips):
        kept = dataset.load_clip(index)[::stride]
        count = 0
        for number, frame in enumerate(recordings.frames(index, resolution)):
            count += 1
            if number % stride == 0:
                frames.append(frame)
            if on_frame is not None:
                on_frame()
        if count < clip.num_frames:
            raise InputError(
                f'{dataset.path}: clip {clip.name!r} has {clip.num_frames} codes, but only {count} frames of it are left in '
                f'{recordings.source(index)}; give the recording that was embedded with {option("source")}'
            )
        codes.append(kept)
        clips.append(np.full(len(kept), index))
        numbers.append(np.arange(clip.num_frames)[::stride])
    return CodedFrames(np.concatenate(codes), np.stack(frames), np.concatenate(clips), np.concatenate(numbers), stride)


class _Recordings:
    """Finds the recording of each clip, and gives the frames of the clip."""

    def __init__(self, dataset: LatentDataset, sources: Sequence[str]) -> None:
        self._dataset, self._given = dataset, bool(sources)
        self._sources = list(sources) or self._recorded_sources()
        self._opened: dict[float | None, list[FootageClip]] = {}
        rate = dataset.embedding.get('fps')
        self._rate = float(rate) if isinstance(rate, (int, float)) and not isinstance(rate, bool) else None
        self._clips = [self._find(clip) for clip in dataset.clips]

    def source(self, index: int) -> str:
        return self._clips[index].source

    def _recorded_sources(self) -> list[str]:
        """Where the data set says that its recordings were."""
        parts = self._dataset.embedding.get('parts')  # of data sets that were joined
        notes = [self._dataset.embedding, *(part for part in parts if isinstance(part, dict))] if isinstance(parts, list) else []
        listed = [note.get('sources') for note in notes or [self._dataset.embedding]]
        paths = [path for paths in listed if isinstance(paths, list) for path in paths if isinstance(path, str)]
        paths = list(dict.fromkeys(paths or [clip.source for clip in self._dataset.clips]))
        missing = [path for path in paths if not os.path.exists(path)]
        if missing:
            raise InputError(
                f'{self._dataset.path} was made from {missing[0]!r}, which is not there; say where the recordings are '
                f'with {option("source")}'
            )
        return paths

    def _open(self, rate: float | None) -> list[FootageClip]:
        if rate not in self._opened:
            try:
                self._opened[rate] = open_footage(
                    self._sources, fps=rate, keep_damaged=True, skip_damaged=True, say=lambda sentence: None
                )
            except InputError as error:
                if self._given:
                    raise
                raise InputError(
                    f'{self._dataset.path} does not say which footage its codes are of; give the recordings with '
                    f'{option("source")}'
                ) from error
        return self._opened[rate]

    def _find(self, clip: ClipInfo) -> FootageClip:
        found = self._match(clip, self._open(self._rate))
        if abs(found.fps - clip.fps) > 1e-3 * clip.fps and 'first_frame' in clip.extra:
            found = self._match(clip, self._open(clip.fps))
        return found

    def _match(self, clip: ClipInfo, opened: Sequence[FootageClip]) -> FootageClip:
        """The recording of a clip: the same path, else the same file name, else the name of the clip."""
        piece = clip.name.rsplit('-', 1)[0]  # of a recording that was split: NAME-FIRSTFRAME
        rules: list[Callable[[FootageClip], bool]] = [
            lambda found: found.source in (clip.source, printable(clip.source)),
            lambda found: os.path.basename(found.source) == os.path.basename(clip.source.replace('\\', '/')),
            lambda found: clip.name in (found.name, stem(found.source)),
            lambda found: 'first_frame' in clip.extra and piece in (found.name, stem(found.source)),
        ]
        for rule in rules:
            matching = [found for found in opened if rule(found)]
            if len(matching) == 1:
                return matching[0]
            if matching:
                raise InputError(
                    f'{self._dataset.path}: several recordings may be that of clip {clip.name!r}: '
                    f'{matching[0].source} and {matching[1].source}; give only the right one with {option("source")}'
                )
        if len(opened) == len(self._dataset.clips) == 1:
            return opened[0]
        names = ', '.join(found.name for found in opened[:4])
        raise InputError(
            f'{self._dataset.path}: no recording is called as clip {clip.name!r} (there are {names}); give its recording '
            f'with {option("source")}'
        )

    def frames(self, index: int, resolution: int) -> Iterator[np.ndarray]:
        """Yield the frames of a clip, uint8 `[resolution, resolution, 3]`, as far as the recording has them."""
        clip, recording = self._dataset.clips[index], self._clips[index]
        size, quads = _size_of(clip.extra.get('source_size')), self._dataset.load_quads(index)
        if quads is not None and size is not None and np.allclose(quads, square_quad(size[1], size[0]), atol=1e-3):
            quads = None  # the centre square, whose pixels are those of the frame
        first = clip.extra.get('first_frame')
        if not isinstance(first, int) or first < 0:  # codes of another tool are of a whole recording
            first, length = 0, recording.num_frames or recording.expected_frames
            if length is not None and length > clip.num_frames + 2:  # a container may promise a frame or two too many
                raise InputError(
                    f'{self._dataset.path}: clip {clip.name!r} has {clip.num_frames} codes, but {recording.source} has '
                    f'{length} frames; both must be of the same frames'
                )
        with contextlib.closing(recording.frames(first)) as stream:
            for number, frame in enumerate(itertools.islice(stream, clip.num_frames)):
                if size is not None:
                    frame = resized(frame, size)
                yield fit(frame if quads is None else cut_out(frame, quads[number], resolution), resolution)


def _size_of(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) and 0 < side < 1 << 15 for side in value):
        return value[0], value[1]
    return None


def held_out(coded: CodedFrames, part: float) -> np.ndarray:
    """Mask `[N]` of the frames that are not learned from: the last part of every clip that has at least five.

    Args:
        coded: The frames.
        part: How much of each clip, [0, 1).
    """
    mask = np.zeros(len(coded), bool)
    for clip in np.unique(coded.clips):
        places = np.flatnonzero(coded.clips == clip)
        count = round(part * len(places)) if len(places) >= 5 else 0
        if part > 0 and len(places) >= 5:
            count = max(count, 1)
        mask[places[len(places) - count :]] = True
    return mask
