"""What is known before the first step: how much footage there is, what a picture costs here, and whether faces need alignment."""

from __future__ import annotations

import dataclasses
import itertools
import time
import types
from typing import Any

import numpy as np

from training.commands import command_line
from training.footage.clips import FootageClip, fit, open_footage
from training.footage.face_alignment import FaceAxes
from training.footage.face_landmarks import FaceDetector, why_no_detector

LOOKED_AT = 6  # frames of the footage, and pictures of the generator
# Faces of the footage count as aligned where their squares differ from those of the generator's faces, in the median, by less:
LARGEST_SCALE = 1.1  # ratio of their sides
LARGEST_OFFSET = 0.06  # distance of their centres, in parts of the side; a generator that draws them here and there allows more
SPREAD = 2.0  # of its own distances
FEWEST_PIXELS = 256  # in which a face is looked for


@dataclasses.dataclass(frozen=True)
class FirstLook:
    """What was found.

    Attributes:
        num_frames: Of the footage, about.
        seconds_per_picture: Of the image generator.
        align: 'ffhq' or 'center'.
        why: Why so, a part of a sentence.
    """

    num_frames: int
    seconds_per_picture: float
    align: str
    why: str


def look(options: types.SimpleNamespace) -> FirstLook:
    """Look at footage and generator.

    Raises:
        InputError: One of them cannot be opened.
    """
    import torch

    from networks import checkpoints
    from training.videos.output import as_rgb
    from training.videos.renderer import renderer
    from training.videos.synthesis import images_to_uint8

    clips = [
        clip for source in options.source
        for clip in open_footage(source, start=options.start, end=options.end, say=lambda sentence: None)
    ]  # fmt: skip
    device = command_line.choose_device(options.device)
    G: Any = checkpoints.load_generator(options.network, device=device, trust_pickle=options.trust_pickle)
    with torch.no_grad():
        z = torch.randn([LOOKED_AT - 1, G.z_dim], generator=torch.Generator().manual_seed(0)).to(device)
        labels = torch.zeros([LOOKED_AT - 1, G.c_dim], device=device) if getattr(G, 'c_dim', 0) else None
        ws = G.mapping(z, labels, truncation_psi=0.7)
        ws = torch.cat([ws.mean(dim=0, keepdim=True), ws])
        render = renderer(G)
        render(ws, 'const')  # compiles, fills caches
        begin = time.perf_counter()
        pictures = [as_rgb(picture) for picture in images_to_uint8(render(ws, 'const'))]
        seconds = (time.perf_counter() - begin) / LOOKED_AT
    align, why = (options.align, 'as asked') if options.align != 'auto' else choose_alignment(clips, pictures)
    return FirstLook(sum(clip.expected_frames or 0 for clip in clips), seconds, align, why)


def choose_alignment(
    clips: list[FootageClip], pictures: list[np.ndarray], detector: FaceDetector | None = None
) -> tuple[str, str]:
    """Whether faces of the footage have to be aligned for a generator that draws these pictures; 'ffhq' or 'center', and why.

    Args:
        clips: Footage.
        pictures: Of the generator, uint8 `[S, S, 3]`.
        detector: As training.footage.face_landmarks.FaceDetector; None: what is installed.
    """
    if detector is None:
        missing = why_no_detector()
        if missing is not None:
            return 'center', 'no face detector is installed, so the centre square is taken; --align=ffhq aligns faces'
        with FaceDetector() as opened:
            return choose_alignment(clips, pictures, opened)
    drawn = [square for picture in pictures if (square := _face_square(picture, detector)) is not None]
    if len(drawn) < len(pictures) / 2:
        return 'center', 'the generator draws no faces'
    center, side = np.median([c for c, _ in drawn], axis=0), float(np.median([s for _, s in drawn]))
    found = []
    for clip in clips[:LOOKED_AT]:
        frames = itertools.islice(clip.frames(), 0, 10 * LOOKED_AT, 10 if len(clips) == 1 else 10 * LOOKED_AT)
        found += [square for frame in frames if (square := _face_square(fit(frame, min(frame.shape[:2])), detector)) is not None]
    if not found:
        return 'center', 'no face is found at the beginning of the footage'
    spread = max(float(np.linalg.norm(c - center)) / side for c, _ in drawn)
    offset = float(np.median([np.linalg.norm(c - center) / side for c, _ in found]))
    scale = float(np.median([s / side for _, s in found]))
    if offset <= max(LARGEST_OFFSET, SPREAD * spread) and max(scale, 1 / scale) <= LARGEST_SCALE:
        return 'center', 'faces lie where the generator draws them'
    return 'ffhq', 'the generator draws aligned faces, and those of the footage lie elsewhere'


def _face_square(picture: np.ndarray, detector: FaceDetector) -> tuple[np.ndarray, float] | None:
    """Centre and side of the FFHQ square of the largest face, in parts of the picture's side."""
    repeat = max(-(-FEWEST_PIXELS // len(picture)), 1)
    picture = np.repeat(np.repeat(picture, repeat, axis=0), repeat, axis=1)
    faces = detector.detect(np.ascontiguousarray(picture))
    if not faces:
        return None
    axes = FaceAxes.of_points(faces[0].points[np.newaxis])
    return axes.center[0] / len(picture), float(2 * np.linalg.norm(axes.x[0]) / len(picture))
