"""Can the image generator draw this footage? What the measures of an embedding say, and what to do about it.

Three measures tell it. The gain is the PSNR above that of the picture of the average code
(`training.embedding.inversion.Inversion.compare`); what is drawn badly gains little, unless it is far from the average picture,
as wide shots are. The perceptual distance sees colours without a drawing. And an optimisation that is long enough draws nearly
anything, with codes that no picture of the generator has: the deviation of codes (`Inversion.deviations`) says how far it had to
go. docs/footage/embedding.md has the measurements behind the thresholds.
"""

import dataclasses
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
# Of codes that were optimised from the average code beside AlexNet: how far from it those lie that draw what a generator knows.
# More weight of the pixels leads farther; measured with two weights, a power law between.
LARGEST_DEVIATIONS = ((2.0, 1.95), (20.0, 2.8))  # (lambda_pixel, standard deviations of W)
DRAWN_GAIN = 25.0  # dB: this near, what was drawn is drawn, wherever the codes lie (plain colours)
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


@dataclasses.dataclass(frozen=True)
class Limits:
    """Beyond which a clip counts as one that is not drawn.

    Attributes:
        gain: Smallest gain, dB.
        lpips: Largest perceptual distance.
        deviation: Largest deviation of codes, standard deviations of W.
    """

    gain: float = LOW_GAIN
    lpips: float = math.inf
    deviation: float = math.inf


def limits_of(*, encoded: bool, optimised: bool, coarse: bool, lambda_pixel: float | None) -> Limits:
    """What clips are measured against.

    Args:
        encoded, optimised: Whether codes come from an encoder, and whether they were optimised.
        coarse: Whether the perceptual distance sees too little of pictures of this size, see `Inversion.is_coarse`.
        lambda_pixel: Weight of the pixels in an optimisation beside AlexNet; None: there was none, or another distance.
    """
    if not optimised:
        return Limits(LOW_GAIN_OF_ENCODER)
    return Limits(
        LOW_GAIN,
        LARGEST_LPIPS if coarse else math.inf,
        largest_deviation(lambda_pixel) if lambda_pixel and not encoded else math.inf,
    )


def largest_deviation(lambda_pixel: float) -> float:
    """The largest deviation of codes that draw their footage, by the weight of the pixels with which they were optimised."""
    (first, low), (second, high) = LARGEST_DEVIATIONS
    return low * (high / low) ** (math.log(lambda_pixel / first) / math.log(second / first))


def gain_of(measures: Mapping[str, Any]) -> float | None:
    """The gain in dB of a clip or data set as its measures tell it, None where it was not measured."""
    return _number(measures, 'gain')


def _number(measures: Mapping[str, Any], key: str) -> float | None:
    value = measures.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def warnings(clips: Iterable[tuple[str, Mapping[str, Any]]], limits: Limits, *, optimised: bool, aligned: bool) -> list[str]:
    """What a user has to know about clips that the generator cannot draw, one sentence, or none.

    Args:
        clips: Name and measures of each.
        limits: What they are measured against.
        optimised: Whether codes were optimised, and are not those of an encoder alone.
        aligned: Whether faces were aligned.
    """
    known = [(name, gain, _signs(measures, limits)) for name, measures in clips if (gain := gain_of(measures)) is not None]
    low = sorted((gain, name, signs) for name, gain, signs in known if signs or gain < limits.gain)
    if not low:
        return []
    words = [f'{name} {gain:.1f} dB' + (f' ({"; ".join(signs)})' if signs else '') for gain, name, signs in low[:MOST_NAMED]]
    named = ', '.join(words) + (', ...' if len(low) > MOST_NAMED else '')
    count = 'this clip' if len(known) == 1 else f'{len(low)} of {len(known)} clips'
    hints = [] if aligned else [f'{option("align", "ffhq")}, if it draws aligned faces']
    hints += [] if optimised else [option('refine', True)]
    hint = f' What may help: {"; ".join(hints)}.' if hints else ''
    return [
        f'Warning: the image generator cannot draw {count} well. Above the picture of the average code by {named}; usual are '
        f'{USUAL_GAIN}, and a temporal model cannot be better than its codes.{hint}'
    ]


def _signs(measures: Mapping[str, Any], limits: Limits) -> list[str]:
    """What besides a low gain says that a clip is not drawn, in words."""
    lpips, deviation, gain = (_number(measures, key) or 0.0 for key in ('lpips', 'deviation', 'gain'))
    signs = [f'LPIPS {lpips:.3f}; usual are {USUAL_LPIPS}'] if lpips > limits.lpips else []
    if deviation > limits.deviation and gain < DRAWN_GAIN:
        signs.append(f'codes {deviation:.1f} standard deviations from the average; usual are up to {limits.deviation:.1f}')
    return signs


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
