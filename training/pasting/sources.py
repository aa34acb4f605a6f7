"""What is pasted into what: the part of a recording that a clip of a data set was made of, and the crops."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal, Protocol

import numpy as np

from networks.checkpoints import file_sha256
from networks.errors import InputError
from training.commands.file_names import printable
from training.commands.memory import Budget
from training.commands.progress import report
from training.footage.clips import FootageClip, open_footage, resized
from training.footage.first_look import SHAPE_TOLERANCE, thumbnail
from training.latents.code_files import CODE_ENDINGS, read_codes
from training.latents.dataset import ClipInfo, LatentDataset, is_latent_dataset

Beyond = Literal['boomerang', 'loop', 'stop']
CHECKED_FRAMES = 8  # at every place where a recording is entered
SAME_FRAME = 0.5  # mean difference of thumbnails, levels: decoders of different versions round differently
SAME_RECORDING = 8.0  # the same for a copy that was encoded again, or is brighter
BACKWARD_BYTES = 256 << 20  # of frames that are held to be shown backward
LARGEST_SKEW = 0.5  # pixels by which a quad may miss to be a parallelogram


# ----------------------------------------------------------------------------
# The recording.


class RecordingPart:
    """The frames of a recording that a clip of a data set was made of, with their quads.

    Args:
        dataset: Latent data set.
        index: Of the clip.
        source: Where the recording lies now; None: where it was when it was embedded.

    Attributes:
        clip: Of the data set.
        path: The recording.
        num_frames: Of the part.
        size: (width, height) of the frames, pixels.
        quads: Corners of the crops in them, float64 `[num_frames, 4, 2]`.
        sound_start: Where the part begins in the file, seconds; None for images, which have no sound.
        identity: Changes when the recording does.

    Raises:
        InputError: The data set keeps no quads, or the recording is not there, or is another one.
    """

    def __init__(self, dataset: LatentDataset, index: int, source: str | None = None) -> None:
        self.clip: ClipInfo = dataset.clips[index]
        arrays = dataset.frame_arrays(index)
        if 'quads' not in arrays or 'source_size' not in self.clip.extra:
            raise InputError(
                f'{dataset.path}: clip {self.clip.name!r} does not tell where its crops lie in the recording (it was made of '
                'codes, or by another program); embed the recording itself with embed_video.py'
            )
        self.num_frames = self.clip.num_frames
        self._first = _whole_number(self.clip.extra.get('first_frame', 0))
        self._thumbnails = _thumbnails(arrays.get('thumbnails'), self.num_frames)
        self.path = self.clip.source if source is None else source
        if not os.path.exists(self.path):
            where = f'{self.path} is not there' if source is None else f'there is no file or folder {self.path!r}'
            raise InputError(f'--source: the recording of clip {self.clip.name!r}: {where}; say by --source where it lies now')
        self._footage = _recording_of(self.clip, open_footage(self.path, fps=self.clip.fps, say=_quiet))
        self.identity = self._footage.identity
        told = self.clip.extra['source_size']
        self.size = self._check_size(told)
        scale = np.array(self.size) / told
        self.quads = _checked_quads(dataset, self.clip, arrays['quads']).astype(np.float64)
        if scale.tolist() != [1, 1]:
            self.quads = (self.quads + 0.5) * scale - 0.5
            report(f'Note: {self.path} is {self.size[0]}x{self.size[1]} pixels, and {told[0]}x{told[1]} were embedded.')
        self._enters = True  # whether frames in the middle are those that a reader from the beginning gets
        self.sound_start = self._sound_start()
        next(self.frames(0))  # a wrong recording is noticed now, not after other work

    def frames(self, first: int = 0) -> Generator[np.ndarray, None, None]:
        """Frames uint8 `[H, W, 3]` of the part from number `first` on.

        Raises:
            InputError: The recording is another one, ends before the part does, or cannot be decoded.
        """
        count = self.num_frames - first
        if count <= 0:
            return
        with contextlib.closing(self._entered(first)) as frames:
            number = 0
            for frame in itertools.islice(frames, count):
                yield resized(frame, self.size)
                number += 1
        if number < count:
            raise InputError(
                f'{self.path} has no frame {self._first + first + number}, and clip {self.clip.name!r} is made of frames '
                f'{self._first} to {self._first + self.num_frames - 1}; it was cut, or it is another recording'
            )

    def walk(self, first: int, beyond: Beyond) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Frames and quads for crop number `first` and those after it; see `place`. 'stop' ends with the part."""
        number = first
        while (at := place(number, self.num_frames, beyond)) is not None:
            index, step = at
            if step > 0:
                run = self.num_frames - index
                for frame in self.frames(index):
                    yield frame, self.quads[index]
                    index += 1
            else:
                run = index  # down to frame 1: frame 0 begins the way forward
                for back, frame in enumerate(self._backward(index)):
                    yield frame, self.quads[index - back]
            number += run

    def _backward(self, last: int) -> Iterator[np.ndarray]:
        """Frames `last`, `last` - 1, ... 1, in blocks that are read forward and held."""
        block = max(BACKWARD_BYTES // (self.size[0] * self.size[1] * 3), 1)
        while last > 0:
            start = max(last - block + 1, 1)
            with contextlib.closing(self.frames(start)) as frames:
                held = list(itertools.islice(frames, last - start + 1))
            while held:
                yield held.pop()
            last = start - 1

    # ----------------------------------------------------------------------------

    def _entered(self, first: int) -> Generator[np.ndarray, None, None]:
        """The recording from frame `first` of the part on; read from its beginning where it cannot be entered there."""
        start = self._first + first
        if self._thumbnails is None:
            yield from self._footage.frames(start)
            return
        wanted = self._thumbnails[first : first + CHECKED_FRAMES].astype(np.float32)
        least, chosen, entered = np.inf, self._footage.frames(start), start
        for entry in dict.fromkeys((start if self._enters else 0, 0)):
            frames = self._footage.frames(entry)
            head = list(itertools.islice(frames, start - entry, start - entry + len(wanted)))
            error = _difference(head, wanted) if head else np.inf
            if error < least - SAME_FRAME:
                chosen.close()
                least, chosen, entered = error, _continued(head, frames), entry
            else:
                frames.close()
            if error <= SAME_FRAME:
                break
        self._enters = self._enters and entered == start
        if SAME_RECORDING < least < np.inf:
            raise InputError(
                f'{self.path} is not the recording that clip {self.clip.name!r} was made of: its frames differ by {least:.0f} of '
                '256 levels; give the right one by --source'
            )
        with contextlib.closing(chosen):
            yield from chosen

    def _check_size(self, told: object) -> tuple[int, int]:
        frame = next(iter(self._footage.frames()), None)
        if frame is None:
            raise InputError(f'{self.path} has no frames')
        if not (isinstance(told, list) and len(told) == 2 and all(isinstance(side, int) and side > 0 for side in told)):
            raise InputError(f'clip {self.clip.name!r} has source_size = {told!r}, which cannot be')
        width, height = frame.shape[1], frame.shape[0]
        if abs(width * told[1] - height * told[0]) > SHAPE_TOLERANCE * height * told[0]:
            raise InputError(
                f'{self.path} has frames of {width}x{height} pixels, but clip {self.clip.name!r} is of {told[0]}x{told[1]}: '
                'it is another recording: give the right one by --source'
            )
        return width, height

    def _sound_start(self) -> float | None:
        if not os.path.isfile(self.path):
            return None
        from training.recordings.video_description import describe_video, has_sound

        return describe_video(self.path).time_of_frame(self._first, self.clip.fps) if has_sound(self.path) else None


def _continued(head: list[np.ndarray], frames: Generator[np.ndarray, None, None]) -> Generator[np.ndarray, None, None]:
    with contextlib.closing(frames):
        yield from head
        yield from frames


def place(number: int, num_frames: int, beyond: Beyond) -> tuple[int, int] | None:
    """The frame of a part of `num_frames` that crop `number` goes into, and the direction of time there, 1 or -1.

    'loop' begins again behind the last frame, 'boomerang' goes back to the first one and forward again, 'stop' (None) ends.
    """
    if number < num_frames:
        return number, 1
    if beyond == 'stop':
        return None
    if beyond == 'loop' or num_frames == 1:
        return number % num_frames, 1
    number %= 2 * num_frames - 2
    return (number, 1) if number < num_frames else (2 * num_frames - 2 - number, -1)


def _recording_of(clip: ClipInfo, found: list[FootageClip]) -> FootageClip:
    """Of several recordings in one source the one that the clip is named after."""
    if len(found) == 1:
        return found[0]
    named = [footage for footage in found if clip.name == footage.name or clip.name.startswith(f'{footage.name}-')]
    if not named:
        raise InputError(
            f'--source: it holds {len(found)} recordings, and none is called as clip {clip.name!r}; give the recording itself'
        )
    return max(named, key=lambda footage: len(footage.name))


def _checked_quads(dataset: LatentDataset, clip: ClipInfo, quads: np.ndarray) -> np.ndarray:
    if quads.shape[1:] != (4, 2):
        raise InputError(
            f'{dataset.path}: the quads of clip {clip.name!r} are {list(quads.shape)} numbers, not [frames, 4, 2]; embed it again'
        )
    across, down = quads[:, 3] - quads[:, 0], quads[:, 1] - quads[:, 0]
    skew = np.abs(quads[:, 0] + quads[:, 2] - quads[:, 1] - quads[:, 3]).max(axis=1)
    area = np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0])
    usable = (area >= 1) & (area < 1e12) & (skew <= LARGEST_SKEW + 1e-3 * np.sqrt(np.abs(area)))  # False for NaN, too
    if not usable.all():
        raise InputError(
            f'{dataset.path}: the quad of frame {int(np.argmin(usable))} of clip {clip.name!r} is no parallelogram with an area; '
            'embed the recording again'
        )
    return quads


def _thumbnails(values: np.ndarray | None, num_frames: int) -> np.ndarray | None:
    """What embed_video.py keeps since version 0.3; data sets of before are taken at their word."""
    return values if values is not None and values.shape == (num_frames, 8, 8) else None


def _difference(frames: list[np.ndarray], wanted: np.ndarray) -> float:
    found = np.stack([thumbnail(frame) for frame in frames]).astype(np.float32)
    return float(np.abs(found - wanted[: len(found)]).mean())


def _whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(f'a clip has first_frame = {value!r}, where a number of frames belongs')
    return value


def _quiet(sentence: str) -> None:
    """Remarks on the recording were made when it was embedded."""


# ----------------------------------------------------------------------------
# Crops.


class Crops(Protocol):
    """Square pictures, one a frame.

    Attributes:
        expected: Their number as far as it is known, for progress.
        identity: Changes when they do.
    """

    expected: int | None
    identity: str

    def frames(self, first: int = 0) -> Iterator[np.ndarray]:
        """Crops uint8 `[S, S, 3]` from number `first` on."""
        ...


class RecordedCrops:
    """A video, or a folder of frames.

    Args:
        source: Where.
        fps: Rate that it is brought to, or that images have.

    Raises:
        InputError: It holds several videos, or none.
    """

    def __init__(self, source: str, fps: float) -> None:
        found = open_footage(source, fps=fps)
        if len(found) > 1:
            raise InputError(
                f'--crops: {printable(source)} holds {len(found)} videos ({found[0].name}, {found[1].name}, ...); give one'
            )
        (self._clip,) = found
        self.expected, self.identity = self._clip.expected_frames, self._clip.identity
        self._source = printable(source)

    def frames(self, first: int = 0) -> Iterator[np.ndarray]:
        """See Crops.

        Raises:
            InputError: A frame cannot be decoded, or is not square.
        """
        for frame in self._clip.frames(first):
            if frame.shape[0] != frame.shape[1]:
                raise InputError(
                    f'--crops: {self._source} has frames of {frame.shape[1]}x{frame.shape[0]} pixels, and crops are square: give '
                    'what generate_video.py makes without --size and --grid'
                )
            yield frame


class RenderedCrops:
    """Codes, rendered.

    Args:
        codes: `[T, num_ws, w_dim]`.
        identity: Changes when the codes do.
        load: Gives the image generator.
        batch: Frames rendered at a time.
        memory: See training.videos.synthesis.render_codes.
    """

    def __init__(
        self, codes: np.ndarray, identity: str, load: Callable[[], Any], batch: int, memory: Budget | None = None
    ) -> None:
        self._codes, self._load, self._batch, self._memory = codes, load, batch, memory
        self.expected: int | None = len(codes)
        self.identity = identity

    def frames(self, first: int = 0) -> Iterator[np.ndarray]:
        """See Crops."""
        from training.videos.output import as_rgb
        from training.videos.synthesis import render_codes

        begin = first - first % self._batch  # a frame has the same bits whatever batch it begins with
        frames = render_codes(self._load(), self._codes[begin:], batch=self._batch, memory=self._memory)
        for frame in itertools.islice(frames, first - begin, None):
            yield as_rgb(frame)


@dataclasses.dataclass
class GeneratorOfCrops:
    """The image generator, loaded when the first crop is rendered.

    Attributes:
        dataset: Refers to it.
        network: Takes its place; None: where the reference of the data set finds it.
        force: Take `network` even though it is another file.
    """

    dataset: LatentDataset
    network: str | None
    force: bool
    trust_pickle: bool
    device: str
    _loaded: Any = None

    @property
    def path(self) -> str:
        """The file."""
        from networks.checkpoints.image_generator_lookup import OptionNames, find_image_generator

        return find_image_generator(
            self.dataset.image_generator, snapshot=self.dataset.path, image_network=self.network, force=self.force,
            options=OptionNames('--network', '--force-network'),
        )  # fmt: skip

    def __call__(self) -> Any:
        """Load it, once."""
        if self._loaded is None:
            from networks import checkpoints
            from training.commands.click_types import choose_device

            sha256 = None if self.force else self.dataset.image_generator.get('sha256')
            self._loaded = checkpoints.load_generator(
                self.path, device=choose_device(self.device), trust_pickle=self.trust_pickle, sha256=sha256
            )
            shape = int(self._loaded.num_ws), int(self._loaded.w_dim)
            if shape != (self.dataset.num_ws, self.dataset.w_dim):
                raise InputError(
                    f'--network: {self.path} takes codes of {shape[0]} x {shape[1]}, and those of {self.dataset.path} are '
                    f'{self.dataset.num_ws} x {self.dataset.w_dim}; give the one that it was embedded for'
                )
        return self._loaded


def open_crops(
    source: str | None, dataset: LatentDataset, index: int, generator: GeneratorOfCrops, batch: int, memory: Budget | None = None
) -> Crops:
    """Crops of any kind.

    Args:
        source: Video, folder of frames, code file; None: the codes of the clip itself.
        dataset, index: The clip.
        generator: Renders codes.
        batch: Frames rendered at a time.
        memory: See training.videos.synthesis.render_codes.

    Raises:
        InputError: They cannot be used.
    """
    clip = dataset.clips[index]
    if source is None:
        return RenderedCrops(dataset.load_clip(index), f'{dataset.sha256} {clip.name} {generator.path}', generator, batch, memory)
    if not os.path.exists(source):
        raise InputError(f'--crops: there is no file or folder {source!r}')
    if is_latent_dataset(source):
        raise InputError(f'--crops: {source} is a latent data set; leave --crops out for the embedded crops, or give a video')
    if os.path.isfile(source) and source.lower().endswith(CODE_ENDINGS):
        codes, fps = read_codes(source, num_ws=dataset.num_ws, w_dim=dataset.w_dim)
        if fps is not None and abs(fps - clip.fps) > 0.005 * clip.fps:
            raise InputError(
                f'--crops: the codes of {source} are for {fps:g} frames per second, and clip {clip.name!r} has {clip.fps:g}; '
                f'give the video that they make, or make them with --fps={clip.fps:g}'
            )
        return RenderedCrops(codes, f'{file_sha256(source)} {generator.path}', generator, batch, memory)
    return RecordedCrops(source, clip.fps)
