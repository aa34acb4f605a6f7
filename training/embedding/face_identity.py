"""How far an embedding has changed who a person is: the distance of face descriptors.

The descriptor is dlib's face recognition ResNet (D. E. King; 128 numbers, made so that faces of one person are nearer than
0.6 and those of different people farther apart; 99.4 % right on Labeled Faces in the Wild). dlib comes as a wheel,
its networks (public domain, CC0) in a package of their own, of which only the files are used, or from their author's site.
"""

import importlib.util
import os
from typing import Any

import numpy as np
import PIL.Image

from networks.checkpoints import addresses
from networks.errors import InputError, option

INSTALL_DLIB = 'pip install dlib-bin'
INSTALL_NETWORKS = 'pip install --no-deps face_recognition_models==0.3.0'
INSTALL = f'{INSTALL_DLIB} && {INSTALL_NETWORKS}'
LANDMARKS, DESCRIPTOR = 'shape_predictor_5_face_landmarks.dat', 'dlib_face_recognition_resnet_model_v1.dat'
NAMED_LANDMARKS, NAMED_DESCRIPTOR = 'dlib-face-landmarks', 'dlib-face-descriptor'  # in networks.checkpoints.addresses
SMALLEST_SIDE, LARGEST_SIDE = 256, 512  # of the frame in which the face is looked for: the detector knows faces from 80 pixels
CHIP_SIDE, CHIP_PADDING = 150, 0.25  # of the face that the descriptor sees, as it was trained


def is_installed() -> bool:
    """Tell whether dlib and its networks are there."""
    return importlib.util.find_spec('dlib') is not None and _model_folder() is not None


def is_wanted(choice: str, model: str | None) -> bool:
    """Whether to measure, by the options --identity (auto, yes, no) and --identity-model.

    Raises:
        InputError: They contradict each other.
    """
    if choice == 'no' and model is not None:
        raise InputError(f'{option("identity_model")} is for measuring identity; leave it or {option("identity", "no")} out')
    return choice == 'yes' or model is not None or (choice == 'auto' and is_installed())


def _model_folder() -> str | None:
    specification = importlib.util.find_spec('face_recognition_models')
    if specification is None or not specification.submodule_search_locations:
        return None
    folder = os.path.join(specification.submodule_search_locations[0], 'models')
    return folder if all(os.path.isfile(os.path.join(folder, name)) for name in (LANDMARKS, DESCRIPTOR)) else None


def find_models(model: str | None = None) -> tuple[str, str]:
    """Files of the descriptor and of the five landmarks that its crop needs.

    Args:
        model: File or address of the descriptor; the landmarks are then those beside it, those of the package, or come from
            their short name, in this order. None: both of the package.

    Raises:
        InputError: They are not there; the sentence says how to get them.
    """
    folder = _model_folder()
    if model is None:
        if folder is None:
            raise InputError(
                f'the networks of dlib that measure the identity of faces are not installed; {INSTALL_NETWORKS}, or let them be '
                f'downloaded by {option("identity_model", NAMED_DESCRIPTOR)}'
            )
        return os.path.join(folder, DESCRIPTOR), os.path.join(folder, LANDMARKS)
    descriptor = addresses.resolve(model)
    if not os.path.isfile(descriptor):
        raise InputError(f'{option("identity_model")}: there is no file {model!r}')
    for beside in (os.path.dirname(os.path.abspath(descriptor)), folder):
        if beside is not None and os.path.isfile(os.path.join(beside, LANDMARKS)):
            return descriptor, os.path.join(beside, LANDMARKS)
    return descriptor, addresses.resolve(NAMED_LANDMARKS)


class FaceIdentity:
    """Compares the faces of two frames, see `training.embedding.clip_review.IdentityMeasure`.

    The face is found in the original; the embedded frame has the same geometry, so the same piece of it is compared, also
    where it shows no face any more.

    Args:
        model: The descriptor, as `find_models` takes it.

    Raises:
        InputError: dlib or its networks are not installed, or damaged.
    """

    def __init__(self, model: str | None = None) -> None:
        if importlib.util.find_spec('dlib') is None:
            install = INSTALL if model is None and _model_folder() is None else INSTALL_DLIB
            raise InputError(f'the identity of faces cannot be measured, because dlib is not installed; {install}')
        descriptor, landmarks = find_models(model)
        import dlib

        self._dlib: Any = dlib
        self._find = dlib.get_frontal_face_detector()
        self._landmarks = _read(dlib.shape_predictor, landmarks)
        self._descriptor = _read(dlib.face_recognition_model_v1, descriptor)

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


def _read(network: Any, path: str) -> Any:
    """A network of dlib, out of its file."""
    with open(path, 'rb') as file:
        if file.read(3) == b'BZh':
            raise InputError(f'{path} is compressed; unpack it with bunzip2')
    try:
        return network(path)
    except (RuntimeError, MemoryError) as error:
        reason = ' '.join(str(error).split())
        raise InputError(f'{path} does not hold the network of dlib that is needed here: {reason}') from error


def _resize(frame: np.ndarray, side: int) -> np.ndarray:
    height, width = frame.shape[:2]
    if min(height, width) == side:
        return np.ascontiguousarray(frame)
    size = (round(width * side / min(height, width)), round(height * side / min(height, width)))
    filters = PIL.Image.Resampling
    return np.asarray(PIL.Image.fromarray(frame).resize(size, filters.BICUBIC if min(height, width) < side else filters.LANCZOS))
