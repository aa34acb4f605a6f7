"""What paste_video.py does once its options are read."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from networks.checkpoints import file_sha256
from networks.checkpoints.durable_files import append_line
from networks.errors import InputError
from training.commands import command_line
from training.commands.file_names import printable
from training.footage.face_landmarks import Face, FaceDetector, load_landmarks, why_no_detector
from training.latents.dataset import LatentDataset
from training.pasting import masks
from training.pasting.blending import Paster, to_crop
from training.pasting.sources import Crops, GeneratorOfCrops, RecordingPart, open_crops
from training.runs.locks import lock_target
from training.videos.output import PngWriter
from training.videos.segments import SegmentedVideo, segment_length

VIDEO_ENDINGS = ('.mp4', '.mov', '.mkv')
LOOKED_AT = 16  # frames of the recording, and as many crops, whose landmarks make a mask
STREAMED = 1000  # frames up to which reading through is quicker than entering at each
RECORD = 'pasting.jsonl'


def paste(options: types.SimpleNamespace) -> None:
    """Carry out paste_video.py; `options` has its arguments as attributes.

    Raises:
        InputError: Something cannot be used.
    """
    dest = _destination(options.dest, options.overwrite)
    with LatentDataset(options.data) as dataset, contextlib.ExitStack() as stack:
        stack.enter_context(lock_target(dest, '--dest'))
        index = _choose_clip(dataset, options.clip)
        part = RecordingPart(dataset, index, options.source)
        generator = GeneratorOfCrops(dataset, options.network, options.force_network, options.trust_pickle, options.device)
        crops = open_crops(options.crops, dataset, index, generator, options.batch, options.memory)
        kind, mask = choose_mask(options, dataset, part, crops)
        _paste_all(options, dest, dataset, part, crops, kind, mask)


def _destination(dest: str, overwrite: bool) -> str:
    stripped = dest.rstrip('/' + os.sep)
    ending = os.path.splitext(stripped)[1].lower()
    if ending not in VIDEO_ENDINGS:
        return command_line.new_result(dest, zipped=False, overwrite=overwrite)
    if os.path.isdir(stripped):
        raise InputError(f'--dest: {dest} is a folder; choose another name for the video')
    if os.path.lexists(stripped) and not overwrite:
        raise InputError(f'--dest: {dest} already exists; choose another name, or replace it by --overwrite')
    command_line.require_folder(os.path.dirname(os.path.abspath(stripped)))
    return stripped


def _choose_clip(dataset: LatentDataset, name: str | None) -> int:
    names = [clip.name for clip in dataset.clips]
    if name is None and len(names) > 1:
        raise InputError(
            f'{dataset.path} holds {len(names)} clips ({", ".join(names[:5])}{", ..." if len(names) > 5 else ""}), and crops go '
            'into one of them; name it by --clip'
        )
    if name is not None and name not in names:
        raise InputError(
            f'--clip: no clip of {dataset.path} is called {name!r}; its clips are {", ".join(names[:5])}'
            f'{", ..." if len(names) > 5 else ""}'
        )
    return names.index(name) if name is not None else 0


# ----------------------------------------------------------------------------
# The mask.


def choose_mask(
    options: types.SimpleNamespace, dataset: LatentDataset, part: RecordingPart, crops: Crops
) -> tuple[str, np.ndarray]:
    """The mask that `--mask` and `--landmarks` ask for, and what it is called."""
    aligned = (dataset.embedding.get('preparation') or {}).get('align') == 'ffhq'
    kind = options.mask
    if options.landmarks and kind not in ('auto', 'face'):
        raise InputError(f'--landmarks: --mask={kind} does not use them; leave one of the two out')
    if kind == 'auto':
        with_landmarks = options.landmarks or (aligned and why_no_detector(options.face_model) is None)
        kind = 'face' if with_landmarks else 'ellipse' if aligned else 'square'
    if kind == 'face':
        support = _face_support(options, part, crops)
        if support is not None:
            return kind, masks.face_mask(support)
        command_line.report('Note: no face is found in the frames that were looked at; the mask is an ellipse.')
        kind = 'ellipse'
    if kind == 'ellipse':
        return kind, masks.ellipse_mask()
    sides = masks.open_sides(part.quads, part.size)
    if all(sides):
        command_line.report('Note: the crops cover the whole picture, so nothing but the sound is left of the recording.')
    return kind, masks.square_mask(sides)


def _face_support(options: types.SimpleNamespace, part: RecordingPart, crops: Crops) -> np.ndarray | None:
    """Support function of the faces in some frames of the recording and in some crops; None where there is no face."""
    found: list[np.ndarray] = []
    if options.landmarks:
        found += _given_faces(options.landmarks, part)
    missing = why_no_detector(options.face_model)
    if missing is not None and not options.landmarks:
        raise InputError(missing)
    if missing is None:
        with FaceDetector(options.face_model) as detector:
            if not options.landmarks:
                for number, frame in _some(part.frames, part.num_frames, 'the recording'):
                    found += _largest_inside([to_crop(face.landmarks, part.quads[number]) for face in _meshes(detector, frame)])
            for _, crop in _some(crops.frames, crops.expected or STREAMED, 'the crops'):
                size = max(len(crop), 256)  # the detector wants more than the 64 pixels of a small generator
                large = np.kron(crop, np.ones((size // len(crop), size // len(crop), 1), np.uint8))
                found += _largest_inside([(face.landmarks + 0.5) / len(large) for face in _meshes(detector, large)])
    if not found:
        return None
    return np.max([masks.support_of(points) for points in found], axis=0)


def _meshes(detector: FaceDetector, frame: np.ndarray) -> list[Any]:
    faces: list[Face] = detector.detect(frame)
    return [face for face in faces if face.landmarks is not None]


def _largest_inside(faces: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Of several faces in parts of the crop the one whose middle is nearest to the crop's, if it lies in it."""
    middles = [np.abs((points.min(axis=0) + points.max(axis=0)) / 2 - 0.5).max() for points in faces]
    return [faces[int(np.argmin(middles))]] if middles and min(middles) < 0.25 else []


def _given_faces(path: str, part: RecordingPart) -> list[np.ndarray]:
    landmarks = load_landmarks(path)
    first = int(part.clip.extra.get('first_frame', 0))
    if len(landmarks) != part.num_frames:
        landmarks = landmarks[first : first + part.num_frames]
    if len(landmarks) != part.num_frames:
        raise InputError(
            f'--landmarks: {path} ends before frame {first + part.num_frames - 1} of the recording, the last one of clip '
            f'{part.clip.name!r}'
        )
    numbers = np.unique(np.linspace(0, part.num_frames - 1, 10 * LOOKED_AT).astype(int))
    known = [number for number in numbers if not np.isnan(landmarks[number]).any()]
    return [to_crop(masks.with_forehead(landmarks[number]), part.quads[number]) for number in known]


def _some(frames: Callable[[int], Iterator[np.ndarray]], count: int, what: str) -> Iterator[tuple[int, np.ndarray]]:
    """`LOOKED_AT` frames, evenly spread, with their numbers."""
    numbers = np.unique(np.linspace(0, max(count - 1, 0), LOOKED_AT).astype(int)).tolist()
    with command_line.progress(total=len(numbers), description=f'Looking for the face in {what}') as bar:
        if count <= STREAMED:
            wanted = set(numbers)
            for number, frame in enumerate(itertools.islice(frames(0), numbers[-1] + 1)):
                if number in wanted:
                    yield number, frame
                    bar.update(1)
            return
        for number in numbers:
            for frame in itertools.islice(frames(number), 1):
                yield number, frame
            bar.update(1)


# ----------------------------------------------------------------------------
# Files.


def _paste_all(
    options: types.SimpleNamespace,
    dest: str,
    dataset: LatentDataset,
    part: RecordingPart,
    crops: Crops,
    kind: str,
    mask: np.ndarray,
) -> None:
    side = float(np.median(np.linalg.norm(part.quads[:, 3] - part.quads[:, 0], axis=1)))
    paster = Paster(mask, side, match=options.match == 'seam')
    settings = {
        'clip': part.clip.name, 'recording': part.identity, 'quads': _digest(part.quads), 'crops': crops.identity,
        'mask': kind, 'mask_values': _digest(mask), 'match': options.match, 'beyond': options.beyond, 'crf': options.crf,
        'batch': options.batch,
    }  # fmt: skip
    started = time.time()
    with contextlib.ExitStack() as stack:
        segments: SegmentedVideo | None = None
        if os.path.splitext(dest)[1].lower() in VIDEO_ENDINGS:
            sound = part.sound_start if options.sound else None
            writer: Any = stack.enter_context(
                SegmentedVideo(
                    dest, settings=settings, length=segment_length(options.batch), num_frames=0, fps=part.clip.fps,
                    crf=options.crf, comment=f'synthetic: pasted into {printable(os.path.basename(part.path))}',
                    audio=part.path if sound is not None else None,
                    audio_part=(sound or 0.0, part.num_frames / part.clip.fps),
                )
            )  # fmt: skip
            segments = writer
        else:
            writer = stack.enter_context(PngWriter(dest))
        done = segments.num_frames_done if segments is not None else 0
        if segments is not None and done:
            command_line.report(f'Going on at frame {done}.')
            paster.restore(segments.state)
        total = crops.expected
        if options.beyond == 'stop' and total is not None:
            total = min(total, part.num_frames)
        bar = stack.enter_context(command_line.progress(total=total, initial=done, description='Pasting'))
        count = done
        for crop, (frame, quad) in zip(crops.frames(done), part.walk(done, options.beyond), strict=False):
            writer.write(paster.paste(frame, crop, quad))
            count += 1
            if segments is not None and segments.segment_is_full:
                segments.end_segment(paster.state())
            bar.update(1)
        if segments is not None:
            segments.end_segment(paster.state())
    try:
        _record(options, dest, dataset, part, settings, count, time.time() - started)
    except OSError as error:
        command_line.report(
            f'Warning: {RECORD} has no line for {dest}, which is whole: {command_line.describe_os_error(error).split(";")[0]}'
        )
    more = ''
    if count > part.num_frames:
        more = f'; from frame {part.num_frames} on the recording is shown again ({options.beyond})'
    elif crops.expected is not None and crops.expected > count:
        more = f'; the other {crops.expected - count} crops have no frame of the recording (--beyond=stop)'
    command_line.report(f'{count} frames are in {dest}{more}')


def _record(
    options: types.SimpleNamespace,
    dest: str,
    dataset: LatentDataset,
    part: RecordingPart,
    settings: dict[str, Any],
    count: int,
    seconds: float,
) -> None:
    from training.temporal_snapshot import versions

    given = {'data': options.data, 'source': part.path, 'crops': options.crops}
    sha256 = {name: file_sha256(path) for name, path in given.items() if path and os.path.isfile(path)}
    line = {
        'file': os.path.basename(dest), 'frames': count, 'fps': part.clip.fps, 'inputs': given, 'sha256': sha256,
        'image_generator_sha256': dataset.image_generator.get('sha256'), **settings, 'seconds': round(seconds, 3),
        'versions': versions(), 'timestamp': time.time(),
    }  # fmt: skip
    append_line(os.path.join(os.path.dirname(os.path.abspath(dest)), RECORD), json.dumps(line))


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
