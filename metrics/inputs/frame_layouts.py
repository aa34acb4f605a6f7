"""Frames in arrays and tensors, in whatever order of axes and range of values their maker uses, said by name.

A layout names each axis by a letter: N video (or image), T time, H height, W width, C colour. `NTHWC` is a batch of videos with
the colours last, `TCHW` one video as torchvision reads it, `NCHW` a batch of images. Nothing is guessed: an array [16, 3, 64, 64]
may be a video or a batch of images, and a wrong guess would give a number that looks like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from networks.errors import InputError

LAYOUTS = ('NTHWC', 'NTCHW', 'NCTHW', 'THWC', 'TCHW', 'CTHW', 'NHWC', 'NCHW', 'HWC', 'CHW', 'NTHW', 'THW', 'NHW', 'HW')
TOLERANCE = 1e-4  # of the width of the range: rounding beyond its ends is clipped, more is an error

ValueRange = tuple[float, float]

# ----------------------------------------------------------------------------------------------------------------------


def as_array(values: Any) -> np.ndarray:
    """An array or a tensor on any device as an array; half precision and bfloat16 become float32, without loss.

    Raises:
        InputError: It is none.
    """
    try:
        if hasattr(values, 'detach'):
            values = values.detach()
            halved = values.is_floating_point() and values.element_size() < 4
            values = (values.float() if halved else values).cpu().numpy()
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise InputError(f'a {type(values).__name__} cannot be read as an array of frames: {reason}') from error


def split_videos(
    values: Any, layout: str | None, value_range: ValueRange | None = None, *, images: bool = False
) -> list[np.ndarray]:
    """The videos of an array, a tensor, or a sequence of them.

    Args:
        values: Array or tensor, or a sequence of these, each of the same layout; sizes may then differ.
        layout: One of LAYOUTS.
        value_range: What black and white are in floating point: (0, 1), (-1, 1), ...; uint8 always goes from 0 to 255.
        images: Every image is a video of one frame. Without it a layout must have the letter T.

    Returns:
        Views [T, H, W, C] of the arrays, C = 1 or 3, not yet converted: `as_bytes` and `as_grey_levels` do that.

    Raises:
        InputError: No layout is named or it does not fit, the type or the range does not.
    """
    if isinstance(values, (list, tuple)):
        if not values:
            raise InputError('there are no videos: the sequence is empty')
        return [video for item in values for video in split_videos(item, layout, value_range, images=images)]
    array = as_array(values)
    if array.ndim < 2 or array.dtype.kind in 'OUSVM':
        raise InputError(
            f'a {type(values).__name__} is neither a video nor an image; give an array, a tensor, a path, or several of these'
        )
    fitting = [known for known in LAYOUTS if len(known) == array.ndim and (images or 'T' in known)]
    if layout is None:
        raise InputError(
            f'an array of shape {list(array.shape)} can be read in several ways; name its axes with layout=, '
            f'for example {" or ".join(fitting[:3]) or LAYOUTS[0]} (N video, T time, H height, W width, C colour)'
        )
    if layout not in LAYOUTS or (not images and 'T' not in layout):
        usable = [known for known in LAYOUTS if images or 'T' in known]
        raise InputError(f'layout={layout!r} is not known here; there are {", ".join(usable)}')
    if len(layout) != array.ndim:
        raise InputError(f'layout={layout!r} names {len(layout)} axes, and the array has {array.ndim}: {list(array.shape)}')
    check_type(array, value_range)
    order = [layout.index(axis) for axis in 'NTHWC' if axis in layout]
    array = array.transpose(order)
    for place, axis in enumerate('NTHWC'):
        if axis not in layout:
            array = np.expand_dims(array, place)
    if array.shape[4] not in (1, 3):
        raise InputError(
            f'layout={layout!r} says that the array of shape {list(np.shape(values))} has {array.shape[4]} colours, '
            'and 1 or 3 are expected; is another layout meant?'
        )
    if 0 in array.shape:
        raise InputError(f'the array of shape {list(np.shape(values))} is empty')
    if images and 'T' not in layout:
        return list(array.reshape(-1, 1, *array.shape[2:]))
    return list(array)


def check_type(array: np.ndarray, value_range: ValueRange | None) -> None:
    """Check that type and range belong together.

    Raises:
        InputError: They do not.
    """
    if array.dtype == np.uint8:
        return
    if array.dtype.kind != 'f':
        raise InputError(f'frames are uint8 or floating point, and these are {array.dtype}; convert them')
    if value_range is None:
        raise InputError('frames in floating point need value_range=, the values of black and white: (0, 1), (-1, 1) or (0, 255)')
    try:
        low, high = (float(end) for end in value_range)
    except (TypeError, ValueError) as error:
        raise InputError(f'value_range={value_range!r} is no range; give the values of black and white: (0, 1)') from error
    if not (low < high and np.isfinite(low) and np.isfinite(high)):
        raise InputError(f'value_range={value_range!r} is empty or without end; give black first: (0, 1)')


def as_grey_levels(frames: np.ndarray, value_range: ValueRange | None) -> np.ndarray:
    """Frames as floating point with black = 0 and white = 255, float64; nothing is rounded.

    Raises:
        InputError: Values are outside of the range, or not finite.
    """
    if frames.dtype == np.uint8:
        return frames.astype(np.float64)
    assert value_range is not None
    low, high = value_range
    low, high = float(low), float(high)
    levels = (frames.astype(np.float64) - low) * (255 / (high - low))
    slack = 255 * TOLERANCE
    if not (levels.min() >= -slack and levels.max() <= 255 + slack):  # also for NaN
        raise InputError(
            f'frames have values from {float(frames.min()):g} to {float(frames.max()):g}, and value_range says '
            f'{low:g} to {high:g}; give the range that they have, or clip them first'
        )
    return levels.clip(0, 255)


def as_bytes(frames: np.ndarray, value_range: ValueRange | None) -> np.ndarray:
    """Frames uint8 [..., 3], floating point rounded to the nearest level, as a file would hold them; grey is repeated."""
    levels = frames if frames.dtype == np.uint8 else np.rint(as_grey_levels(frames, value_range)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:-1], 3)))


def is_stream(values: Any) -> bool:
    """Whether these are videos that come one after the other, and not something that can be looked at twice."""
    is_whole = isinstance(values, (str, bytes, Sequence, Mapping)) or hasattr(values, 'shape')
    return isinstance(values, Iterable) and not is_whole
