"""From faces in frames to clips of one face: the face is followed, and footage splits where it is lost or unclear."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from training.footage.face_landmarks import area, overlap

SAME_FACE = 0.3  # overlap (intersection over union) with the face of the frame before
COMPARABLE = 0.7  # part of the area, or of the overlap, from which on a second face makes the choice unclear
SECOND_FACE = 0.1  # part of the area from which on a second face counts at all


@dataclasses.dataclass(frozen=True)
class Piece:
    """Frames `first` to `stop - 1` of a recording.

    Attributes:
        reason: Why a clip begins here, or why the frames are left out.
        points: Of the face, `[stop - first, 4, 2]`; None: the frames are left out, or faces were not looked for.
        kept: Whether the frames are a clip.
    """

    first: int
    stop: int
    reason: str
    kept: bool
    points: np.ndarray | None = None


def split_at_cuts(num_frames: int, cuts: Sequence[int], breaks: Mapping[int, str] | None = None) -> list[Piece]:
    """Split a recording into its scenes.

    Args:
        num_frames: Of the recording.
        cuts: First frames of new scenes.
        breaks: First frames of pieces that start over for other reasons (`FootageClip.cuts`), and these reasons.
    """
    reasons = {0: 'beginning', **dict.fromkeys(cuts, 'scene cut'), **(breaks or {})}
    edges = sorted(frame for frame in reasons if frame < num_frames)
    return [Piece(first, stop, reasons[first], True) for first, stop in itertools.pairwise([*edges, num_frames])]


def follow_face(
    scene: Piece, num_faces: np.ndarray, points: np.ndarray, boxes: np.ndarray, *, face: str, bridge: int
) -> list[Piece]:
    """Follow one face through a scene.

    A track begins with the face that `face` chooses, and goes on with the face that overlaps it most in the next
    frame. Where it is lost for up to `bridge` frames, its points are interpolated.

    Args:
        scene: Frames of one scene.
        num_faces, points, boxes: Of all frames of the recording, as in `training.footage.first_look.ROW`.
        face: `largest`, `left` or `right` (as the picture shows them), or `only`: frames with a second face are left out.
        bridge: Longest gap, frames.

    Returns:
        Pieces that cover the scene, in order.
    """
    tracks: list[dict[int, np.ndarray]] = []
    reasons: dict[int, str] = {}
    starts: list[str] = []
    box: np.ndarray | None = None
    last, why = scene.first, scene.reason
    for frame in range(scene.first, scene.stop):
        count = int(num_faces[frame])
        if box is not None and frame - last > bridge + 1:
            box, why = None, 'face found again'
        chosen, reason = _choose(boxes[frame, :count], box, face)
        if chosen is None:
            reasons[frame] = reason
            continue
        if box is None:
            tracks.append({})
            starts.append(why)
        tracks[-1][frame] = points[frame, chosen]
        box, last = boxes[frame, chosen], frame
    return _pieces(scene, tracks, starts, reasons)


def _choose(boxes: np.ndarray, before: np.ndarray | None, face: str) -> tuple[int | None, str]:
    """The index of the face that is meant, or None and the reason."""
    if not len(boxes):
        return None, 'no face'
    areas = np.array([area(box) for box in boxes])
    candidates = np.flatnonzero(areas >= SECOND_FACE * areas.max())
    if face == 'only' and len(candidates) > 1:
        return None, 'two faces'
    if before is not None:
        overlaps = np.array([overlap(before, box) for box in boxes])
        order = np.argsort(-overlaps, kind='stable')
        if overlaps[order[0]] < SAME_FACE:
            return None, 'another face'
        if len(order) > 1 and overlaps[order[1]] > max(COMPARABLE * overlaps[order[0]], SAME_FACE):
            return None, 'two faces, not told apart'
        return int(order[0]), ''
    order = np.argsort(-areas, kind='stable')
    if face in ('left', 'right'):
        centers = boxes[candidates, 0] + boxes[candidates, 2]
        return int(candidates[np.argmin(centers) if face == 'left' else np.argmax(centers)]), ''
    if len(order) > 1 and areas[order[1]] > COMPARABLE * areas[order[0]]:
        return None, 'two faces of like size'
    return int(order[0]), ''


def _pieces(scene: Piece, tracks: list[dict[int, np.ndarray]], starts: list[str], reasons: dict[int, str]) -> list[Piece]:
    pieces: list[Piece] = []
    position = scene.first
    for track, why in zip(tracks, starts, strict=True):
        frames = np.array(sorted(track))
        pieces += _left_out(position, int(frames[0]), reasons)
        wanted = np.arange(frames[0], frames[-1] + 1)
        known = np.stack([track[int(frame)] for frame in frames]).reshape(len(frames), -1)
        filled = np.stack([np.interp(wanted, frames, column) for column in known.T], axis=1).reshape(len(wanted), 4, 2)
        pieces.append(Piece(int(frames[0]), int(frames[-1]) + 1, why, True, filled))
        position = int(frames[-1]) + 1
    return pieces + _left_out(position, scene.stop, reasons)


def _left_out(first: int, stop: int, reasons: dict[int, str]) -> list[Piece]:
    if first >= stop:
        return []
    among = [reasons[frame] for frame in range(first, stop)]
    return [Piece(first, stop, max(dict.fromkeys(among), key=among.count), False)]


def drop_short(pieces: Sequence[Piece], min_frames: int) -> list[Piece]:
    """Leave out clips of fewer than `min_frames` frames; a recording that is one clip is kept whatever its length."""
    if len(pieces) == 1:
        return list(pieces)
    return [
        dataclasses.replace(piece, kept=False, points=None, reason=f'shorter than {min_frames} frames')
        if piece.kept and piece.stop - piece.first < min_frames
        else piece
        for piece in pieces
    ]
