"""Can the image generator draw this footage? What the measures of an embedding say, and what to do about it.

The measure is the gain, the PSNR above that of the picture of the average code
(`training.embedding.inversion.Inversion.compare`). docs/footage/embedding.md has the measurements behind the thresholds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import PIL.Image

from networks.errors import option
from training.footage.face_alignment import FaceAxes
from training.footage.face_landmarks import Face

LOW_GAIN, LOW_GAIN_OF_ENCODER = 8.0, 6.0  # dB, below which there is a warning: of optimised codes, and of an encoder's alone
# Of codes optimised beside AlexNet for small pictures, whose pixels weigh more: colours alone then gain much, and its own
# distance, no longer all that is minimised, tells what was drawn.
LARGEST_LPIPS, USUAL_LPIPS = 0.045, '0.01 to 0.04'
REFUSED_GAIN = 3.0  # dB, below which codes are not trained on, unless told
USUAL_GAIN = '9 to 16 dB'  # of footage that a generator can draw
MOST_NAMED = 4  # clips in one sentence

# The squares of faces, as parts of that of the face in the average picture, beyond which they are not aligned as it is.
LARGEST_SCALE = 1.25
LARGEST_OFFSET = 0.12
DETECTION_SIDE = 256  # pixels of a picture in which a face is looked for, at least


class Detector(Protocol):
    """As training.footage.face_landmarks.FaceDetector."""

    def detect(self, frame: np.ndarray) -> list[Face]:
        """Faces of a frame uint8 `[H, W, 3]`, the largest first."""


def gain_of(measures: Mapping[str, Any]) -> float | None:
    """The gain in dB of a clip or data set as its measures tell it, None where it was not measured."""
    gain = measures.get('gain')
    return float(gain) if isinstance(gain, (int, float)) and not isinstance(gain, bool) else None


def _lpips_of(measures: Mapping[str, Any]) -> float:
    lpips = measures.get('lpips')
    return float(lpips) if isinstance(lpips, (int, float)) and not isinstance(lpips, bool) else 0.0


def warnings(
    clips: Iterable[tuple[str, Mapping[str, Any]]], *, optimised: bool, aligned: bool, largest_lpips: float = math.inf
) -> list[str]:
    """What a user has to know about clips that the generator cannot draw, one sentence, or none.

    Args:
        clips: Name and measures of each.
        optimised: Whether codes were optimised, and are not those of an encoder alone.
        aligned: Whether faces were aligned.
        largest_lpips: The largest perceptual distance of a clip that is drawn, where that is known.
    """
    least = LOW_GAIN if optimised else LOW_GAIN_OF_ENCODER
    known = [(name, gain, _lpips_of(measures)) for name, measures in clips if (gain := gain_of(measures)) is not None]
    low = sorted((gain, name, lpips) for name, gain, lpips in known if gain < least or lpips > largest_lpips)
    if not low:
        return []
    words = [
        f'{name} {gain:.1f} dB' + (f' (LPIPS {lpips:.3f}; usual are {USUAL_LPIPS})' if lpips > largest_lpips else '')
        for gain, name, lpips in low[:MOST_NAMED]
    ]
    named = ', '.join(words) + (', ...' if len(low) > MOST_NAMED else '')
    count = 'this clip' if len(known) == 1 else f'{len(low)} of {len(known)} clips'
    hints = [] if aligned else [f'{option("align", "ffhq")}, if it draws aligned faces']
    hints += [] if optimised else [option('refine', True)]
    hint = f' What may help: {"; ".join(hints)}.' if hints else ''
    return [
        f'Warning: the image generator cannot draw {count} well. Above the picture of the average code by {named}; usual are '
        f'{USUAL_GAIN}, and a temporal model cannot be better than its codes.{hint}'
    ]


def refusal(path: str, quality: Mapping[str, Any]) -> str | None:
    """Why a data set is not trained on, None where it may be."""
    gain = gain_of(quality)
    if gain is None or gain >= REFUSED_GAIN:
        return None
    return (
        f'{path}: its codes do not draw its footage (above the picture of the average code by {gain:.1f} dB; usual are '
        f'{USUAL_GAIN}), and a model of them would not either; embed footage that this generator can draw (faces: '
        f'{option("align", "ffhq")}), or add {option("force_data", True)}'
    )


# ----------------------------------------------------------------------------
# Faces that are not where the generator draws them.


def misplaced_faces(average_picture: np.ndarray, frames: Sequence[np.ndarray], detector: Detector) -> str | None:
    """Say how faces in frames lie otherwise than the face that the generator draws.

    Args:
        average_picture: Picture of the average code, uint8 `[H, W, 3]`.
        frames: Square frames as they are embedded, uint8 `[S, S, 3]`.
        detector: Finds faces.

    Returns:
        '2.1 times as large as', for example; None where the average picture shows no face, no frame does, or they lie alike.
    """
    own = _face_square(average_picture, detector)
    if own is None:
        return None
    found = [square for frame in frames if (square := _face_square(frame, detector)) is not None]
    if not found:
        return None
    center, side = own
    offsets = np.median([np.linalg.norm(other - center) / side for other, _ in found])
    scale = float(np.median([other / side for _, other in found]))
    if max(scale, 1 / scale) > LARGEST_SCALE:
        return f'{scale:.1f} times as large as'
    return f'{100 * offsets:.0f} % of its size away from' if offsets > LARGEST_OFFSET else None


def _face_square(picture: np.ndarray, detector: Detector) -> tuple[np.ndarray, float] | None:
    """Centre and side of the FFHQ square of the largest face, in parts of the picture's side."""
    side = picture.shape[0]
    if side < DETECTION_SIDE:
        enlarged = PIL.Image.fromarray(picture).resize((DETECTION_SIDE, DETECTION_SIDE), PIL.Image.Resampling.BICUBIC)
        picture, side = np.asarray(enlarged), DETECTION_SIDE
    faces = detector.detect(np.ascontiguousarray(picture))
    if not faces:
        return None
    axes = FaceAxes.of_points(faces[0].points[np.newaxis])
    return axes.center[0] / side, float(2 * np.linalg.norm(axes.x[0]) / side)
