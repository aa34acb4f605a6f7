"""Scene cuts, found frame by frame while footage is decoded.

Written here because PySceneDetect, the usual library, needs OpenCV and decodes videos by itself, and here the frames
are at hand already. The idea is the same as its adaptive detector's: a cut is a change that stands out from the changes
around it, so that fast motion, where every frame changes much, is none.
"""

import itertools
from collections import deque

import numpy as np
import PIL.Image

SIDE, BINS, REACH = 48, 16, 3
THRESHOLD = 0.05  # least change of a cut; 0.02 is lively talking, 0.3 the change to another scene
RATIO = 4.0  # how far a cut stands out from the changes around it
NEIGHBOURS = 4  # frames before and after that are compared
DUPLICATE = 1e-3  # changes below are repeated frames, as resampling to a higher rate makes them


class ChangeMeter:
    """Measures how much each frame differs from the ones before it.

    The change between two frames is sqrt(d h): d is the mean absolute difference of the pixels of 48x48 versions, h
    half the L1 distance of their colour histograms (averaged over the channels), both in [0, 1]. Motion changes
    pixels, a change of light colours, another scene both.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=REACH)

    def update(self, frame: np.ndarray) -> np.ndarray:
        """Take the next frame and return its changes to the frames 1, 2 and 3 before; 1 where there is none.

        Args:
            frame: uint8 `[H, W, 3]`.

        Returns:
            float32 `[3]`.
        """
        features = _features(frame)
        changes = np.ones(REACH, np.float32)
        for index, other in enumerate(reversed(self._recent)):
            pixels = float(np.abs(features[0] - other[0]).mean())
            colours = float(np.abs(features[1] - other[1]).sum()) / 6
            changes[index] = np.sqrt(pixels * colours)
        self._recent.append(features)
        return changes


def _features(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = max(min(frame.shape[:2]) // (4 * SIDE), 1)  # resizing all pixels of a large frame takes longer than decoding it
    image = PIL.Image.fromarray(np.ascontiguousarray(frame[::step, ::step]))
    small = np.asarray(image.resize((SIDE, SIDE), PIL.Image.Resampling.BOX), dtype=np.float32) / 255
    counts = [
        np.bincount(np.minimum((small[:, :, channel] * BINS).astype(int), BINS - 1).ravel(), minlength=BINS)
        for channel in range(3)
    ]
    return small, np.concatenate(counts) / (SIDE * SIDE)


def find_cuts(changes: np.ndarray) -> list[int]:
    """Find the first frames of new scenes.

    Args:
        changes: Of all frames, `[T, 3]` as of `ChangeMeter.update`.

    Returns:
        Frame numbers in (0, T), rising. A change that is taken back within two frames, such as a flash, is no cut.
        Slow transitions (fades, dissolves) are not found.
    """
    steps = changes[:, 0]
    candidates = []
    for frame in np.flatnonzero(steps[1:] > THRESHOLD) + 1:
        around = np.concatenate([steps[max(frame - NEIGHBOURS, 1) : frame], steps[frame + 1 : frame + 1 + NEIGHBOURS]])
        around = around[around > DUPLICATE]
        usual = float(np.median(around)) if len(around) else 0.0
        if steps[frame] > RATIO * usual:
            candidates.append(int(frame))
    flashes = set()
    for first, second in itertools.pairwise(candidates):
        length = second - first
        if length < REACH and changes[second, length] < THRESHOLD:
            flashes |= {first, second}
    return [frame for frame in candidates if frame not in flashes]
