"""Footage as it comes to clips that a generator can draw: split at cuts and lost faces, aligned, with a report.

Every recording is looked at once (`training.footage.first_look`); what is kept of it is read again when it is asked for.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from networks.checkpoints.digests import sha256_of_file
from networks.errors import InputError, option
from training.footage.clips import FootageClip, resized
from training.footage.face_alignment import FaceAxes, cut_out, square_quad
from training.footage.face_landmarks import FaceDetector, load_landmarks, model_sha256, points_of_68, require_detector
from training.footage.face_tracks import Piece, drop_short, follow_face, split_at_cuts
from training.footage.first_look import Analysis, analyse, checksum
from training.footage.scene_cuts import find_cuts

MANY_COPIES = 0.1  # part of the frames from which on copies are worth a word
CHECKED_FRAMES = 8  # at the beginning of a clip that is entered in the middle of a recording


@dataclasses.dataclass(frozen=True)
class PreparationSettings:
    """How footage becomes clips.

    Attributes:
        align: `ffhq`: faces are aligned as FFHQ's; `center`: the centre square; `none`: frames are square already.
        face: Which face of several, see `training.footage.face_tracks.follow_face`.
        center_sigma, axes_sigma: Filters of the alignment over time, frames (`training.footage.face_alignment.FaceAxes`).
        bridge: So many frames without the face are bridged.
        scene_cuts: Whether recordings are split at scene cuts.
        min_frames: Shorter pieces of a recording that was split are left out.
        landmarks: File of landmarks (`training.footage.face_landmarks.load_landmarks`), or a folder with one file a
            recording, `NAME.npy` or `NAME.npz`; None: a detector finds them.
        face_model: File of the detector's model; None: the one that is installed.
    """

    align: str = 'center'
    face: str = 'largest'
    center_sigma: float = 1.0
    axes_sigma: float = 3.0
    bridge: int = 5
    scene_cuts: bool = True
    min_frames: int = 25
    landmarks: str | None = None
    face_model: str | None = None

    def description(self) -> dict[str, Any]:
        """What decides about the result, for `dataset.json`: files by their digest.

        Raises:
            InputError: A file that is named does not exist, or the detector or its model is not installed.
        """
        values = dataclasses.asdict(self)
        if self.align != 'ffhq':
            for key in ('face', 'center_sigma', 'axes_sigma', 'bridge', 'landmarks', 'face_model'):
                del values[key]
        elif self.landmarks is not None:
            values['face_model'] = None
            values['landmarks'] = {os.path.basename(path): sha256_of_file(path) for path in _landmark_files(self.landmarks)}
        else:
            if self.face_model is None:
                require_detector()  # first: of two that are missing, it is the one to name
            values['face_model'] = model_sha256(self.face_model)
            require_detector()
        return values


def prepare_footage(
    clips: Sequence[FootageClip], settings: PreparationSettings, *, size: int, folder: str, skip_damaged: bool = False
) -> tuple[list[FootageClip], list[dict[str, Any]]]:
    """Split and align recordings.

    Args:
        clips: Recordings as `training.footage.clips.open_footage` gives them.
        settings: See there.
        size: Side of aligned faces, pixels; other frames keep their size.
        folder: Where results of the first look are kept, so that an interrupted run goes on from there.
        skip_damaged: Leave out recordings that cannot be decoded.

    Returns:
        The clips (with `quads`, `first_frame` and `source_size`), and the report: for every piece of every
        recording `source`, `first_frame`, `num_frames`, `fps`, `clip` (its name, None: left out) and `reason`.

    Raises:
        InputError: A recording cannot be used, or nothing is left.
    """
    prepared: list[FootageClip] = []
    entries: list[dict[str, Any]] = []
    taken = {clip.name for clip in clips}
    with _Detection(settings) as detection:
        landmarks = _match_landmarks(clips, settings)
        for index, clip in enumerate(clips):
            try:
                pieces, analysis = _split(clip, index, settings, detection, landmarks.get(clip.name), folder)
            except InputError as error:
                if not skip_damaged:
                    raise
                entries.append(_entry(clip, 0, None, None, str(error)))
                continue
            alone = len(pieces) == 1
            for piece in pieces:
                name = clip.name
                while not alone and name in taken:  # a recording may be called as another one's piece
                    name = f'{name}-{clip.first_frame + piece.first:06d}'
                taken.add(name)
                entry = _entry(clip, piece.first, piece.stop - piece.first, name if piece.kept else None, piece.reason)
                entries.append({**entry, 'look': analysis.look(piece.first, piece.stop)})
                if piece.kept:
                    prepared.append(_prepared_clip(clip, name, piece, analysis, settings, size))
    if not prepared:
        reasons = sorted({entry['reason'] for entry in entries})
        raise InputError(f'No clip is left of the footage: {"; ".join(reasons)}.{_advice(reasons)}')
    return prepared, entries


def describe_preparation(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Say what became of every recording that was split, shortened or looks odd, one sentence a piece that was left out."""
    lines = []
    for source, group in itertools.groupby(entries, key=lambda entry: entry['source']):
        pieces = list(group)
        lines += _odd_look(source, pieces)
        kept = [piece for piece in pieces if piece['clip'] is not None]
        if len(pieces) == 1 and kept:
            continue
        frames = sum(piece['num_frames'] or 0 for piece in kept)
        lines.append(f'{source}: {len(kept)} clip{"" if len(kept) == 1 else "s"} with {frames} frames.')
        for piece in pieces:
            if piece['clip'] is None and piece['num_frames'] is not None:
                first, last = piece['first_frame'], piece['first_frame'] + piece['num_frames'] - 1
                lines.append(
                    f'  left out: frames {first} to {last} ({first / piece["fps"]:.2f} s to '
                    f'{(last + 1) / piece["fps"]:.2f} s): {piece["reason"]}'
                )
            elif piece['clip'] is None:
                lines.append(f'  left out: {piece["reason"]}')
    return lines


def _odd_look(source: str, pieces: Sequence[dict[str, Any]]) -> list[str]:
    """Say that a decoder complained, and that many frames are copies of the one before."""
    looks = [piece['look'] for piece in pieces if 'look' in piece]
    if not looks:
        return []
    lines = []
    complaints = looks[0]['decoder_complaints']
    if complaints:
        lines.append(f'Note: {source}: its decoder complained {complaints} times; look at the result.')
    frames = sum(piece['num_frames'] for piece in pieces if 'look' in piece)
    copies = sum(round((1 - piece['look']['changed_share']) * piece['num_frames']) for piece in pieces if 'look' in piece)
    if copies > MANY_COPIES * frames:
        longest = max(look['copies_in_a_row'] for look in looks)
        lines.append(
            f'Note: {source}: {100 * copies / frames:.0f} % of its frames are copies of the one before, up to {longest} in a row.'
        )
    return lines


# ----------------------------------------------------------------------------
# Splitting.


class _Detection(contextlib.ExitStack):
    """Loads the detector when the first frame needs it: a run whose frames are all known needs none."""

    def __init__(self, settings: PreparationSettings) -> None:
        super().__init__()
        self.wanted = settings.align == 'ffhq' and settings.landmarks is None
        self._model = settings.face_model
        self.model_sha256 = model_sha256(self._model) if self.wanted else None
        self._detector: FaceDetector | None = None

    def detector(self) -> FaceDetector:
        if self._detector is None:
            self._detector = self.enter_context(FaceDetector(self._model))
        return self._detector


def _split(
    clip: FootageClip, index: int, settings: PreparationSettings, detection: _Detection, landmarks: str | None, folder: str
) -> tuple[list[Piece], Analysis]:
    analysis = analyse(
        clip, index, folder, detector=detection.detector if detection.wanted else None, model=detection.model_sha256
    )
    rows = analysis.rows
    breaks = {**analysis.changes_of_shape(), **clip.cuts} if settings.scene_cuts else analysis.changes_of_shape()
    scenes = split_at_cuts(len(rows), find_cuts(rows['changes']) if settings.scene_cuts else [], breaks)
    for scene in scenes:
        _check_shape(clip, analysis.size_of(scene.first), settings)
    if settings.align != 'ffhq':
        return drop_short(scenes, settings.min_frames), analysis
    num_faces, points, boxes = rows['num_faces'], rows['points'].copy(), rows['boxes'].copy()
    if landmarks is not None:
        num_faces, points, boxes = _faces_of_file(landmarks, clip, len(rows))
    pieces = []
    for scene in scenes:
        # Faces were found in frames as they came; where their size changes, they are brought to one.
        part, size = slice(scene.first, scene.stop), np.asarray(analysis.size_of(scene.first))
        scale = (size / rows['size'][part])[:, np.newaxis]
        points[part] *= scale[:, np.newaxis]
        boxes[part] *= np.concatenate([scale, scale], axis=-1)
        pieces += follow_face(scene, num_faces, points, boxes, face=settings.face, bridge=settings.bridge)
    return drop_short(pieces, settings.min_frames), analysis


def _check_shape(clip: FootageClip, size: tuple[int, int], settings: PreparationSettings) -> None:
    if settings.align == 'none' and size[0] != size[1]:
        raise InputError(
            f'{clip.source} has frames of {size[0]}x{size[1]} pixels; {option("align", "none")} takes frames '
            f'that are square and aligned '
            f'already, {option("align", "center")} cuts out the centre square.'
        )


def _faces_of_file(path: str, clip: FootageClip, num_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    landmarks = load_landmarks(path)
    if len(landmarks) != num_frames:
        raise InputError(
            f'{path} has landmarks of {len(landmarks)} frames, but {clip.source} has {num_frames} at {clip.fps:g} frames per '
            f'second between {option("start")} and {option("end")}; they must be of the same frames.'
        )
    found = ~np.isnan(landmarks).any(axis=(1, 2))
    known = np.where(found[:, np.newaxis, np.newaxis], landmarks, 0)
    boxes = np.concatenate([known.min(axis=1), known.max(axis=1)], axis=1)
    return found.astype(int), points_of_68(known)[:, np.newaxis], boxes[:, np.newaxis]


def _landmark_files(path: str) -> list[str]:
    if not os.path.isdir(path):
        if not os.path.isfile(path):
            raise InputError(f'{option("landmarks")}: there is no file or folder {path!r}.')
        return [path]
    files = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sorted(file for file in files if file.endswith(('.npy', '.npz')))


def _match_landmarks(clips: Sequence[FootageClip], settings: PreparationSettings) -> dict[str, str]:
    """The file of landmarks of each recording by its name."""
    path = settings.landmarks
    if path is None or settings.align != 'ffhq':
        return {}
    if not os.path.isdir(path):
        if len(clips) != 1:
            raise InputError(
                f'{option("landmarks")}: {path} is one file, but the sources hold {len(clips)} recordings; give '
                f'a folder with a file '
                f'for each, named as the recording ({clips[0].name}.npy and so on).'
            )
        return {clips[0].name: path}
    found = {}
    for clip in clips:
        names = [os.path.join(path, clip.name + ending) for ending in ('.npy', '.npz')]
        existing = [name for name in names if os.path.isfile(name)]
        if not existing:
            raise InputError(
                f'{option("landmarks")}: neither {names[0]} nor {os.path.basename(names[1])} exists, for {clip.source}.'
            )
        found[clip.name] = existing[0]
    return found


def _entry(clip: FootageClip, first: int, count: int | None, name: str | None, reason: str) -> dict[str, Any]:
    return {
        'source': clip.source,
        'first_frame': clip.first_frame + first,
        'num_frames': count,
        'fps': clip.fps,
        'clip': name,
        'reason': reason,
    }


def _advice(reasons: Sequence[str]) -> str:
    if any(reason.startswith('two faces') for reason in reasons):
        return f' Choose one of two faces with {option("face", "left")} or {option("face", "right")}.'
    if reasons == ['no face']:
        return f' {option("align", "center")} takes frames without looking for faces.'
    if any(reason.startswith('shorter') for reason in reasons):
        return f' {option("min_frames")} keeps shorter ones.'
    return ''


# ----------------------------------------------------------------------------
# Clips.


def _prepared_clip(
    clip: FootageClip, name: str, piece: Piece, analysis: Analysis, settings: PreparationSettings, size: int
) -> FootageClip:
    source_size = analysis.size_of(piece.first)
    width, height = source_size
    count = piece.stop - piece.first
    if piece.points is not None:
        axes = FaceAxes.of_points(piece.points).steadied(settings.center_sigma, settings.axes_sigma)
        quads = axes.quads().astype(np.float32)
    else:
        quads = square_quad(height, width).astype(np.float32)[np.newaxis]
    checks = analysis.rows['checksum'][piece.first : piece.stop].copy()
    return dataclasses.replace(
        clip,
        name=name,
        num_frames=count,
        expected_frames=count,
        first_frame=clip.first_frame + piece.first,
        source_size=source_size,
        quads=quads,
        look=analysis.look(piece.first, piece.stop),
        thumbnails=analysis.rows['thumbnail'][piece.first : piece.stop].copy(),
        open_frames=functools.partial(
            _piece_frames, clip, piece.first, checks, source_size, quads if piece.points is not None else None, size
        ),
        identity=f'{clip.identity} {piece.first} {count}',
    )


def _piece_frames(
    clip: FootageClip,
    start: int,
    checks: np.ndarray,
    source_size: tuple[int, int],
    quads: np.ndarray | None,
    size: int,
    first: int,
) -> Iterator[np.ndarray]:
    """Yield frames `first` and up of the piece that begins with frame `start` of a recording."""
    with contextlib.closing(_verified(clip, start, checks, first)) as frames:
        for number, frame in enumerate(frames, start=first):
            frame = resized(frame, source_size)
            yield frame if quads is None else cut_out(frame, quads[number], size)


def _verified(clip: FootageClip, start: int, checks: np.ndarray, first: int) -> Generator[np.ndarray, None, None]:
    """Yield frames that are those of the first look; videos that cannot be entered in the middle are read to the place."""
    if first >= len(checks):
        return
    wanted = checks[first : first + CHECKED_FRAMES]
    for entry in dict.fromkeys((start + first, 0)):
        frames = itertools.islice(clip.frames(entry), start + first - entry, start + len(checks) - entry)
        head = list(itertools.islice(frames, len(wanted)))
        if len(head) == len(wanted) and all(checksum(frame) == check for frame, check in zip(head, wanted, strict=True)):
            yield from head
            count = len(head)
            for frame in frames:
                count += 1
                yield frame
            if count < len(checks) - first:
                raise InputError(f'{clip.source} ends after {start + first + count} frames, but more were there before.')
            return
    raise InputError(f'{clip.source} has changed since its frames were looked at; run the command again.')
