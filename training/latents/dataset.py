"""Reading of latent data sets: W+ codes of footage, one clip a file, in one uncompressed zip or folder.

Layout, the same in a zip and in a folder::

    dataset.json                 what the codes are, see below
    clips/00000-NAME.npy         float32 [num_frames, num_ws, w_dim], one file a clip
    clips/00000-NAME.KEY.npy     float32 [num_frames, ...], further values of its frames, if any ("arrays" of the clip)

`dataset.json` holds `format`, `format_version`, `version` (of this project, with the commit),
`image_generator` (`sha256`, `path`, `class_name`, `init_kwargs` of the network that renders the codes),
`num_ws`, `w_dim`, `fps`, `embedding` (how the codes were made), `preparation` (which pieces of the footage
are clips) and `clips`, a list of `{name, file, num_frames, fps, source, ...}`; further keys are kept as they
are.

Clips are mapped into memory, not read: opening a data set costs its headers, whatever the length of the footage.
The writer is in `training.latents.writer`.
"""

import dataclasses
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from networks.errors import InputError, readable
from training.latents.containers import READING_ERRORS, ArrayFile, is_latent_dataset, open_container
from training.latents.layout import CODE_ENDINGS, FORMAT_NAME, FORMAT_VERSION, LARGEST_CODE, QUALITY_MEASURES, describe_bad_code
from training.latents.writer import LatentDatasetWriter

__all__ = ['ClipInfo', 'LatentDataset', 'LatentDatasetWriter', 'is_latent_dataset']

LONGEST_NAME = 1000  # letters of the name of a clip
LARGEST_DESCRIPTION = 1 << 28  # bytes of dataset.json, unpacked; a million clips need less
CHECKED_AT_ONCE = 1 << 22  # values whose finiteness is checked in one go, 16 MiB


@dataclasses.dataclass(frozen=True)
class ClipInfo:
    """One clip of a latent data set, as `dataset.json` tells it."""

    name: str  # unique within the data set
    num_frames: int
    fps: float  # frames per second
    source: str  # where the recording was
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)  # anything else, for example psnr and lpips


class LatentDataset:
    """W+ codes of footage, opened for reading.

    Args:
        path: An uncompressed zip or a folder in the layout above.

    Attributes:
        path: As given.
        image_generator: Reference to the image generator that renders the codes: `sha256`, `path` and more.
        num_ws, w_dim: Shape of one code.
        fps: Frames per second of the clips; where clips differ, the rate that most frames have.
        clips: List of `ClipInfo`.
        embedding: How the codes were made.
        preparation: Which pieces of the footage are clips, and which were left out and why
            (`training.footage.preparation.prepare_footage`); empty where nothing is known.
        quality: Averages of the clips' measures over all frames (`psnr`, `lpips`, ...), as far as they are known.

    Raises:
        InputError: It is not such a data set, it is empty, or its arrays disagree with `dataset.json`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if self.path.lower().endswith(CODE_ENDINGS) and os.path.isfile(self.path):
            raise self._fail(
                'these are codes alone, and no latent data set; make one of them: python latents_tool.py convert '
                f'--source={self.path} --network=G.pkl --fps=25 --dest=latents.zip'
            )
        self._container = open_container(self.path)
        self._sha256: str | None = None
        try:
            description = self._read_description()
            self.image_generator: dict[str, Any] = description['image_generator']
            self.num_ws: int = description['num_ws']
            self.w_dim: int = description['w_dim']
            self.embedding: dict[str, Any] = description.get('embedding') or {}
            self.preparation: list[dict[str, Any]] = description.get('preparation') or []
            self.quality: dict[str, Any] = description.get('quality') or {}
            self.clips: list[ClipInfo] = []
            self._names: set[str] = set()
            self._files: list[str] = []
            for index, entry in enumerate(description['clips']):
                self._add_clip(index, entry)
        except BaseException:
            self._container.close()
            raise
        frames_per_rate: dict[float, int] = {}
        for clip in self.clips:
            frames_per_rate[clip.fps] = frames_per_rate.get(clip.fps, 0) + clip.num_frames
        self.fps: float = max(frames_per_rate, key=lambda rate: frames_per_rate[rate])

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def num_frames(self) -> int:
        """Frames of all clips together."""
        return sum(clip.num_frames for clip in self.clips)

    @property
    def sha256(self) -> str:
        """Digest of the content: generator, clip names, rates and every code. Zip and folder give the same."""
        if self._sha256 is None:
            digest = hashlib.sha256()
            head = [self.image_generator.get('sha256'), self.num_ws, self.w_dim]
            digest.update(json.dumps(head).encode())
            for index, clip in enumerate(self.clips):
                digest.update(json.dumps([clip.name, clip.num_frames, float(clip.fps)]).encode())
                codes = self._map_clip(index)
                for start in range(0, clip.num_frames, 1024):
                    digest.update(np.ascontiguousarray(codes[start : start + 1024], dtype='<f4').tobytes())
            self._sha256 = digest.hexdigest()
        return self._sha256

    def load_clip(self, index: int) -> np.ndarray:
        """The codes of one clip, float32 `[num_frames, num_ws, w_dim]`.

        The array is mapped copy-on-write where the file allows it: pages are read when they are used, and writing to
        the array changes only the caller's copy. Every call checks that all codes are finite, and none is larger than
        `LARGEST_CODE`.

        Raises:
            InputError: A code is NaN, infinite or huge; the sentence names the clip and the frame.
        """
        codes = self._map_clip(index)
        for start in range(0, len(codes), self._frames_at_once):
            self._check_codes(index, codes[start : start + self._frames_at_once], start, 1)
        return codes

    def pieces(self, index: int, step: int = 1) -> Iterator[np.ndarray]:
        """Every `step`-th frame of one clip from the first on, in order, in pieces `[n, num_ws, w_dim]` of 16 MiB at most.

        What `load_clip` maps stays in the memory of the process while it is in use; here only one piece does.

        Raises:
            InputError: See `load_clip`; only the frames that are read are looked at.
        """
        name, file = self.clips[index].name, self._files[index]
        array = self._open_array(name, file)
        codes = None if array.mappable else self._map_file(name, file)
        frames = range(0, self.clips[index].num_frames, step)
        for first in range(0, len(frames), self._frames_at_once):
            chosen = frames[first : first + self._frames_at_once]
            piece = array.read(chosen) if codes is None else codes[chosen.start : chosen.stop : step]
            self._check_codes(index, piece, chosen.start, step)
            yield piece

    @property
    def _frames_at_once(self) -> int:
        return max(CHECKED_AT_ONCE // (self.num_ws * self.w_dim), 1)

    def _check_codes(self, index: int, codes: np.ndarray, start: int, step: int) -> None:
        with np.errstate(invalid='ignore'):
            usable = (np.abs(codes) <= LARGEST_CODE).all(axis=(1, 2))  # False for NaN, too
        if not usable.all():
            place = int(np.argmin(usable))
            what = describe_bad_code(codes[place], not_finite='not a finite number')
            raise self._fail(
                f'clip {self.clips[index].name!r} has a code that is {what} in frame {start + step * place}; '
                'embed this clip again.'
            )

    def frame_arrays(self, index: int) -> dict[str, np.ndarray]:
        """Further values of the frames of a clip by name, float32 `[num_frames, ...]` each.

        `quads` `[num_frames, 4, 2]` are the corners of the aligned face in the recording (upper left, lower left, lower
        right, upper right; pixels), where the footage was aligned.

        Raises:
            InputError: Such a file is missing or damaged.
        """
        clip, arrays = self.clips[index], {}
        for key, file in clip.extra.get('arrays', {}).items():
            if not self._container.has(file):
                raise self._fail(f'{file}, the {key} of clip {clip.name!r}, is missing.')
            values = self._map_file(clip.name, file)
            if len(values) != clip.num_frames:
                raise self._fail(f'{file} has {len(values)} frames, but clip {clip.name!r} has {clip.num_frames}.')
            arrays[key] = values
        return arrays

    def load_quads(self, index: int) -> np.ndarray | None:
        """The corners of what was cut out of each frame of a clip, float32 `[num_frames, 4, 2]`, or None.

        Upper left, lower left, lower right and upper right of the picture that was embedded, in pixels of the upright
        recording, whose (width, height) is `clips[index].extra['source_size']`; the centre of its first pixel is (0, 0).
        The first frame of the clip is frame `extra['first_frame']` of the recording at the clip's rate.

        Raises:
            InputError: The file is missing or damaged.
        """
        return self.frame_arrays(index).get('quads')

    def close(self) -> None:
        """Close the files; arrays that were returned stay valid."""
        self._container.close()

    def __enter__(self) -> 'LatentDataset':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Reading of dataset.json.

    def _fail(self, what: str) -> InputError:
        return InputError(readable(f'{self.path}: {what}'))

    def _read_description(self) -> dict[str, Any]:
        if not self._container.has('dataset.json'):
            raise self._fail('no dataset.json inside, so this is not a latent data set; embed_video.py makes one.')
        try:
            description = json.loads(self._read_small('dataset.json'))
        except (ValueError, UnicodeDecodeError) as error:
            raise self._fail(f'dataset.json is not valid JSON ({error}).') from error
        except RecursionError as error:
            raise self._fail('dataset.json is nested too deeply.') from error
        if not isinstance(description, dict) or description.get('format') != FORMAT_NAME:
            raise self._fail(
                f'dataset.json does not say "format": "{FORMAT_NAME}", so this is not a latent data set '
                '(a data set of images is not one; embed_video.py turns footage into one).'
            )
        version = description.get('format_version')
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT_VERSION:
            raise self._fail(f'format_version is {version!r}, this program reads up to {FORMAT_VERSION}; update it.')
        for key in ('num_ws', 'w_dim'):
            value = description.get(key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise self._fail(f'dataset.json gives {key} = {value!r}, where a positive integer belongs.')
        if not isinstance(description.get('image_generator'), dict):
            raise self._fail('dataset.json does not tell the image generator of its codes ("image_generator").')
        for key in ('path', 'sha256', 'class_name'):
            if not isinstance(description['image_generator'].get(key), str | None):
                raise self._fail(f'dataset.json has another thing than text as {key} of its image generator.')
        for key, kind in (('embedding', dict), ('preparation', list), ('quality', dict)):
            if not isinstance(description.get(key), kind | None):
                raise self._fail(f'dataset.json has {key} = {description[key]!r}, which cannot be.')
        self._check_measures(description.get('quality') or {}, 'quality')
        if not all(isinstance(entry, dict) for entry in description.get('preparation') or []):
            raise self._fail('dataset.json has a list "preparation" with other things than objects.')
        if not isinstance(description.get('clips'), list):
            raise self._fail('dataset.json has no list "clips".')
        if not description['clips']:
            raise self._fail('the data set is empty: "clips" in dataset.json lists no clip.')
        return description

    def _check_measures(self, values: dict[str, Any], where: str) -> None:
        for key in QUALITY_MEASURES:
            value = values.get(key, 0.0)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e300:
                raise self._fail(f'{where} has {key} = {value!r}, where a number belongs.')

    def _read_small(self, name: str) -> bytes:
        try:
            if self._container.size_of(name) > LARGEST_DESCRIPTION:
                raise self._fail(f'{name} is larger than {LARGEST_DESCRIPTION >> 20} MiB, which cannot be.')
            return self._container.read(name)
        except READING_ERRORS as error:
            raise self._fail(f'{name} cannot be read: {error or type(error).__name__}.') from error

    def _add_clip(self, index: int, entry: Any) -> None:
        if not isinstance(entry, dict):
            raise self._fail(f'clip {index} of dataset.json is not an object.')
        known: dict[str, Any] = {}
        for key, kind in (('name', str), ('file', str), ('num_frames', int), ('fps', (int, float))):
            value = entry.get(key)
            if not isinstance(value, kind) or isinstance(value, bool):  # type: ignore[arg-type]
                raise self._fail(f'clip {index} of dataset.json has {key} = {value!r}, which cannot be.')
            known[key] = value
        name, file, num_frames = known['name'], known['file'], known['num_frames']
        fps = float(known['fps']) if abs(known['fps']) < 1e9 else math.inf
        if num_frames < 1:
            raise self._fail(f'clip {name!r} has no frames.')
        if not (math.isfinite(fps) and fps > 0):
            raise self._fail(f'clip {name!r} has {fps} frames per second, which cannot be.')
        if name in self._names:
            raise self._fail(f'two clips are called {name!r}.')
        self._names.add(name)
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise self._fail(
                f'clip {index} has a name that cannot be shown or is longer than {LONGEST_NAME} letters: {name[:60]!r}.'
            )
        if not self._container.has(file):
            raise self._fail(f'{file}, the codes of clip {name!r}, is missing.')
        array = self._open_array(name, file)
        expected = (num_frames, self.num_ws, self.w_dim)
        if array.shape != expected:
            raise self._fail(
                f'{file} has the shape {list(array.shape)}, but dataset.json promises {list(expected)} '
                '[frames, num_ws, w_dim] for it.'
            )
        extra = {key: value for key, value in entry.items() if key not in (*known, 'source')}
        self._check_measures(extra, f'clip {name!r}')
        arrays = extra.get('arrays', {})
        if not isinstance(arrays, dict) or not all(isinstance(member, str) for member in arrays.values()):
            raise self._fail(f'clip {name!r} has arrays = {arrays!r}, which cannot be.')
        if isinstance(entry.get('source', ''), (dict, list)):
            raise self._fail(f'clip {name!r} has another thing than text as its source.')
        self.clips.append(ClipInfo(name, num_frames, fps, str(entry.get('source', '')), extra))
        self._files.append(file)

    def _open_array(self, name: str, file: str) -> 'ArrayFile':
        try:
            return ArrayFile(self._container, file)
        except READING_ERRORS as error:
            raise self._fail(f'{file}, the codes of clip {name!r}, cannot be read: {error or type(error).__name__}.') from error

    def _map_clip(self, index: int) -> np.ndarray:
        return self._map_file(self.clips[index].name, self._files[index])

    def _map_file(self, name: str, file: str) -> np.ndarray:
        array = self._open_array(name, file)
        if array.mappable:
            return array.map()
        try:
            codes = np.load(io.BytesIO(self._container.read(file)), allow_pickle=False)
        except READING_ERRORS as error:
            raise self._fail(f'{file} cannot be read: {error or type(error).__name__}.') from error
        with np.errstate(over='ignore', invalid='ignore'):
            return np.ascontiguousarray(codes, dtype=np.float32)
