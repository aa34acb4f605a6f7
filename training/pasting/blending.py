"""One crop into one frame: drawn where its quad says, colours matched along the edge of the mask, blended.

    out = frame + m * (crop + c - frame)

in the frame's pixels, m the mask and c a smooth correction of the colours. Where m is 0 the frame keeps every bit. c carries the
difference of frame and crop along the edge of the mask, where it would be seen, into the inside: with b = 4 m (1 - m) the edge,
d = frame - crop, med its median along the edge, and G a Gaussian of `REACH`::

    r = b / (1 + |d - med|^2 / TOLERANCE^2)          another hairline or collar is no matter of colours
    v = mean of |d - med|^2 / TOLERANCE^2            with the weights r: how little the edge agrees with itself
    c = (G * (r d) + FAR avg) / (G * r + FAR) / (1 + v^2)          avg: mean of d with the weights r

So c carries a difference of light, and is left out where frame and crop show different things along most of the edge, as with
another person's face before another backdrop. Over time c follows by an exponential filter, so that it does not flicker.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import torch

GRID = 64  # samples along a side of the crop on which colours are compared
REACH = 0.1  # of the Gaussian, in parts of the side of the crop
FAR = 0.02  # weight of the mean difference, which is all that counts far away from the edge
TOLERANCE = 30.0  # levels
FOLLOW = 0.2  # weight of a new frame in the filter over time

_BICUBIC, _BILINEAR = PIL.Image.Resampling.BICUBIC, PIL.Image.Resampling.BILINEAR
_AFFINE = PIL.Image.Transform.AFFINE


class Paster:
    """Pastes the crops of a clip into its frames, one after the other.

    Args:
        mask: Of `training.pasting.masks`.
        side: Usual side of the quads, pixels of the frame; larger crops are reduced to it first.
        match: Match the colours.
    """

    def __init__(self, mask: np.ndarray, side: float, *, match: bool = True) -> None:
        self._mask = PIL.Image.fromarray(mask.astype(np.float32))
        self._side, self._match = side, match
        small = _image(np.asarray(self._mask)).resize((GRID, GRID), PIL.Image.Resampling.BOX)
        inside = np.asarray(small)
        self._edge = (4 * inside * (1 - inside))[..., np.newaxis]
        offsets = np.arange(GRID) - np.arange(GRID)[:, np.newaxis]
        kernel = np.exp(-0.5 * (offsets / (REACH * GRID)) ** 2)
        self._blur = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
        self._colours: np.ndarray | None = None

    def paste(self, frame: np.ndarray, crop: np.ndarray, quad: np.ndarray) -> np.ndarray:
        """Paste one crop.

        Args:
            frame: uint8 `[H, W, 3]`; it is not changed.
            crop: uint8 `[S, S, 3]`.
            quad: Its corners in the frame `[4, 2]`, see `training.latents.dataset.LatentDataset.load_quads`.

        Returns:
            uint8 `[H, W, 3]`.
        """
        height, width = frame.shape[:2]
        low = np.maximum(np.floor(quad.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(quad.max(axis=0)).astype(int) + 1, (width, height))
        if (high <= low).any():  # outside of the frame altogether
            return frame
        crop = self._reduced(crop)
        if self._match:
            crop = self._corrected(frame, crop, quad)
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        to_unit = _to_unit(quad, low)
        drawn = PIL.Image.fromarray(crop).transform(size, _AFFINE, _scaled(to_unit, len(crop)), _BICUBIC)
        mask = self._mask.transform(size, _AFFINE, _scaled(to_unit, self._mask.width), _BILINEAR)
        m = np.asarray(mask)[..., np.newaxis]
        region = frame[low[1] : high[1], low[0] : high[0]]
        mixed = region + m * (np.asarray(drawn).astype(np.float32) - region)
        result = frame.copy()
        result[low[1] : high[1], low[0] : high[0]] = np.rint(mixed).clip(0, 255).astype(np.uint8)
        return result

    def drawn_mask(self, size: tuple[int, int], quad: np.ndarray) -> np.ndarray:
        """The mask in the pixels of a frame (width, height), float32 `[H, W]`."""
        to_unit = _to_unit(quad, np.zeros(2))
        return np.asarray(self._mask.transform(size, _AFFINE, _scaled(to_unit, self._mask.width), _BILINEAR))

    def _reduced(self, crop: np.ndarray) -> np.ndarray:
        """A crop that is clearly larger than what it is drawn into, at that size: drawing alone would leave pixels out."""
        side = max(round(self._side), 1)
        if len(crop) <= 1.25 * side:
            return crop
        return np.asarray(PIL.Image.fromarray(crop).resize((side, side), PIL.Image.Resampling.LANCZOS))

    def _corrected(self, frame: np.ndarray, crop: np.ndarray, quad: np.ndarray) -> np.ndarray:
        there, known = _sampled(frame, quad)
        here = np.asarray(PIL.Image.fromarray(crop).resize((GRID, GRID), PIL.Image.Resampling.BOX)).astype(np.float32)
        found = self._correction(there - here, self._edge * known)
        if found is not None:
            before = found if self._colours is None else self._colours
            self._colours = before + FOLLOW * (found - before)
        if self._colours is None:
            return crop
        channels = [_image(self._colours[..., c]).resize(crop.shape[1::-1], _BICUBIC) for c in range(3)]
        corrected = crop + np.stack([np.asarray(channel) for channel in channels], axis=-1)
        return np.rint(corrected).clip(0, 255).astype(np.uint8)

    def _correction(self, difference: np.ndarray, edge: np.ndarray) -> np.ndarray | None:
        """The correction c of one frame, float32 `[GRID, GRID, 3]`; None where the frame shows nothing of the edge."""
        among = edge[..., 0] > 0.1
        if among.sum() < 8:
            return None
        distance = np.square(difference - np.median(difference[among], axis=0)).sum(axis=-1, keepdims=True)
        weights = edge / (1 + distance / TOLERANCE**2)
        total = weights.sum()
        average = (weights * difference).sum(axis=(0, 1)) / total
        spread = float((weights * distance).sum() / total) / TOLERANCE**2
        found = (self._blurred(weights * difference) + FAR * average) / (self._blurred(weights) + FAR)
        return found / (1 + spread**2)

    def _blurred(self, values: np.ndarray) -> np.ndarray:
        return np.einsum('yi,xj,ijc->yxc', self._blur, self._blur, values, optimize=True)

    def state(self) -> dict[str, Any]:
        """What the next frames depend on, for `restore`."""
        return {'colours': None if self._colours is None else torch.from_numpy(self._colours)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._colours = None if state['colours'] is None else state['colours'].cpu().numpy()


# ----------------------------------------------------------------------------
# Geometry. A map is [2, 3]: from pixels of a part of the frame, counted from its corner, to parts of the side of the crop.


def to_crop(points: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """Points `[..., 2]` of the frame (the centre of its first pixel is (0, 0)) in parts of the side of the crop."""
    map_ = _to_unit(quad, np.zeros(2))
    return (points + 0.5) @ map_[:, :2].T + map_[:, 2]


def _to_unit(quad: np.ndarray, corner: np.ndarray) -> np.ndarray:
    quad = np.asarray(quad, np.float64)
    turn = np.linalg.inv(np.stack([quad[3] - quad[0], quad[1] - quad[0]], axis=1))
    shift = turn @ (corner - 0.5 - quad[0])
    return np.concatenate([turn, shift[:, np.newaxis]], axis=1)


def _scaled(to_unit: np.ndarray, size: int) -> tuple[float, ...]:
    return tuple((size * to_unit).ravel().tolist())


def _sampled(frame: np.ndarray, quad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a frame shows in a quad, float32 `[GRID, GRID, 3]`, and where that lies within the frame, `[GRID, GRID, 1]`."""
    height, width = frame.shape[:2]
    low = np.maximum(np.floor(quad.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(quad.max(axis=0)).astype(int) + 1, (width, height))
    part = PIL.Image.fromarray(np.ascontiguousarray(frame[low[1] : high[1], low[0] : high[0]]))
    factor = max(int(np.linalg.norm(quad[3] - quad[0]) / GRID), 1)
    part = part.reduce(factor) if factor > 1 else part
    across, down = (quad[3] - quad[0]) / GRID, (quad[1] - quad[0]) / GRID
    first = quad[0] + 0.5 - low
    coefficients = tuple((np.stack([across, down, first], axis=1) / factor).ravel().tolist())
    colours = part.transform((GRID, GRID), _AFFINE, coefficients, _BILINEAR)
    known = PIL.Image.new('L', part.size, 1).transform((GRID, GRID), _AFFINE, coefficients, PIL.Image.Resampling.NEAREST)
    return np.asarray(colours).astype(np.float32), np.asarray(known)[..., np.newaxis].astype(np.float32)


def _image(values: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
