"""Which part of a crop is pasted: a soft mask over the crop, the same for all frames of a clip.

A mask is float32 `[SIZE, SIZE]` over the square of the crop, 1 where the crop is taken, 0 where the recording stays. It does not
change over time: faces are aligned, so one mask holds for all of them, and an edge that follows every movement would flicker.

A face is described by its support function h: the hull of its landmarks is the set of all x with x . u <= h(u) for every
direction u. The largest h over several frames gives a hull around all of them, and min over u of h(u) - x . u is the distance of
x from its edge, positive inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIZE = 256  # of a mask, samples along a side
DIRECTIONS = 96  # of the support function
# All lengths in parts of the side of the crop.
FEATHER = 0.10  # width of the soft edge
MARGIN = 0.015  # that a face mask reaches beyond the landmarks before its edge begins
BORDER = 0.04  # width of the soft edge along the crop's own, which no mask reaches
ELLIPSE_CENTER = (0.5, 0.52)
ELLIPSE_AXES = (0.43, 0.47)  # half axes where the mask has vanished: head and hair of an FFHQ crop
FOREHEAD = 0.8  # of the distance from the brows to the nose: that much above the brows 68 landmarks end too early


def ellipse_mask() -> np.ndarray:
    """An upright ellipse around the head of an FFHQ crop."""
    x, y = _grid()
    radius = np.hypot((x - ELLIPSE_CENTER[0]) / ELLIPSE_AXES[0], (y - ELLIPSE_CENTER[1]) / ELLIPSE_AXES[1])
    return _soft((1 - radius) * ELLIPSE_AXES[0] / FEATHER)


def square_mask(open_sides: Sequence[bool] = (False, False, False, False)) -> np.ndarray:
    """The whole crop with soft sides.

    Args:
        open_sides: Left, top, right and lower side: there is nothing of the recording beyond it, so it needs no soft edge.
    """
    return _sides(open_sides, FEATHER)


def face_mask(support: np.ndarray) -> np.ndarray:
    """The hull of faces, see `support_of`."""
    x, y = _grid()
    distance = np.full((SIZE, SIZE), np.inf)
    for reach, (ux, uy) in zip(support, _directions(), strict=True):
        np.minimum(distance, reach - (x * ux + y * uy), out=distance)
    return _soft((distance + MARGIN + FEATHER) / FEATHER) * _sides((False,) * 4, BORDER)


def support_of(points: np.ndarray) -> np.ndarray:
    """Support function of points `[..., 2]` in parts of the side of the crop: float64 `[DIRECTIONS]`."""
    return (points.reshape(-1, 2).astype(np.float64) @ _directions().T).max(axis=0)


def with_forehead(landmarks: np.ndarray) -> np.ndarray:
    """68 landmarks `[..., 68, 2]` of iBUG 300-W, which end at the brows, with the brows once more where hair begins."""
    brows = landmarks[..., 17:27, :]
    up = brows.mean(axis=-2, keepdims=True) - landmarks[..., 33:34, :]
    return np.concatenate([landmarks, brows + FOREHEAD * up], axis=-2)


def open_sides(quads: np.ndarray, size: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """Which sides of the crops `[T, 4, 2]` lie on or beyond the edge of the frame (width, height) all the time."""
    width, height = size
    x, y = quads[..., 0], quads[..., 1]
    tolerance = 0.51  # the edge of the frame is at -0.5
    return (
        bool((x[:, :2] <= tolerance - 0.5).all()),
        bool((y[:, (0, 3)] <= tolerance - 0.5).all()),
        bool((x[:, 2:] >= width - 0.5 - tolerance).all()),
        bool((y[:, 1:3] >= height - 0.5 - tolerance).all()),
    )


def _sides(open_sides: Sequence[bool], width: float) -> np.ndarray:
    x, y = _grid()
    mask = np.ones((SIZE, SIZE), np.float32)
    for is_open, distance in zip(open_sides, (x, y, 1 - x, 1 - y), strict=True):
        if not is_open:
            mask *= _soft((distance - 1 / SIZE) / width)  # exactly 0 in the outermost samples
    return mask


def _grid() -> tuple[np.ndarray, np.ndarray]:
    centers = (np.arange(SIZE) + 0.5) / SIZE
    x, y = np.meshgrid(centers, centers)
    return x, y


def _directions() -> np.ndarray:
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _soft(ramp: np.ndarray) -> np.ndarray:
    """0 up to 0, 1 from 1 on, 3 t^2 - 2 t^3 between: its slope vanishes at both ends, so no edge is seen there."""
    t = np.clip(ramp, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
