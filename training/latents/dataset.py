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
import lzma
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any

import numpy as np

from networks.checkpoints import zip_entries
from networks.errors import InputError, readable
from training.latents.layout import CODE_ENDINGS, FORMAT_NAME, FORMAT_VERSION, LARGEST_CODE, QUALITY_MEASURES, describe_bad_code
from training.latents.writer import LatentDatasetWriter
from training.recordings.source_files import is_image, is_video

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
        self._container = _open_container(self.path)
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

    def _open_array(self, name: str, file: str) -> '_ArrayFile':
        try:
            return _ArrayFile(self._container, file)
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


# What reading of a damaged member may end in: zipfile, zlib and numpy each have their own.
READING_ERRORS = (
    ValueError, EOFError, OSError, OverflowError, NotImplementedError, RuntimeError, KeyError, IndexError, MemoryError,
    struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip

# The same of numpy's reader of headers, which parses them as Python.
HEADER_ERRORS = (SyntaxError, TypeError, KeyError, AttributeError, IndexError, tokenize.TokenError, MemoryError, RecursionError)

# ----------------------------------------------------------------------------
# Containers: where the members of a folder or of a zip lie on the disk.


class _Folder:
    def __init__(self, path: str) -> None:
        self.path = path
        if not os.path.isfile(os.path.join(path, 'dataset.json')):  # unpacked into a folder of its own
            inner = [name for name in sorted(os.listdir(path)) if not name.startswith(('.', '__MACOSX'))]
            inside = [name for name in inner if os.path.isfile(os.path.join(path, name, 'dataset.json'))]
            if len(inside) == 1:
                self.path = os.path.join(path, inside[0])

    def _file(self, name: str) -> str:
        return os.path.join(self.path, *name.split('/'))

    def has(self, name: str) -> bool:
        parts = name.split('/')
        inside = not os.path.isabs(name) and '..' not in parts and '\\' not in name and name.isprintable()
        return inside and os.path.isfile(self._file(name))

    def read(self, name: str) -> bytes:
        with open(self._file(name), 'rb') as file:
            return file.read()

    def size_of(self, name: str) -> int:
        return os.path.getsize(self._file(name))

    def locate(self, name: str) -> tuple[str, int, int, bool]:
        """The file, the first byte and the number of bytes of a member, and whether it is stored plainly."""
        path = self._file(name)
        return path, 0, os.path.getsize(path), True

    def open(self, name: str) -> IO[bytes]:
        return open(self._file(name), 'rb')

    def close(self) -> None:
        pass


class _Zip:
    def __init__(self, path: str) -> None:
        self.path = path
        self.archive = zipfile.ZipFile(path)
        members = {info.filename.replace('\\', '/'): info for info in self.archive.infolist()}  # Windows may write backslashes
        self.members = members
        self.size = os.path.getsize(path)
        if 'dataset.json' not in members:  # packed again together with its folder
            folders = [
                name.removesuffix('dataset.json') for name in members if name.count('/') == 1 and name.endswith('/dataset.json')
            ]
            folders = [folder for folder in folders if not folder.startswith(('.', '__MACOSX'))]
            if len(folders) == 1:
                start = folders[0]
                self.members = {name.removeprefix(start): info for name, info in members.items() if name.startswith(start)}

    def has(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str) -> bytes:
        return self.archive.read(self.members[name])

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(self.members[name])

    def size_of(self, name: str) -> int:
        return self.members[name].file_size

    def locate(self, name: str) -> tuple[str, int, int, bool]:
        """The file, the first byte and the number of bytes of a member, and whether it is stored plainly."""
        info = self.members[name]
        if info.flag_bits & 1:
            raise ValueError('it is encrypted; pack the data set without a password')
        if info.compress_type != zipfile.ZIP_STORED:
            if info.file_size > 100 * info.compress_size + (1 << 20):
                raise ValueError('it unpacks to far more than it holds')
            return self.path, 0, info.file_size, False
        with open(self.path, 'rb') as file:
            file.seek(info.header_offset)
            start = zip_entries.first_byte(file.read(zip_entries.LOCAL_HEADER_BYTES), info.header_offset)
        if start + info.file_size > self.size:
            raise ValueError('the zip is cut off')
        return self.path, start, info.file_size, True

    def close(self) -> None:
        self.archive.close()


def is_latent_dataset(path: str) -> bool:
    """Tell whether a zip or folder is a latent data set, also one that was packed again together with its folder."""
    if not os.path.isdir(path) and not zipfile.is_zipfile(path):
        return False
    try:
        container = _open_container(path)
    except InputError:
        return False
    try:
        return container.has('dataset.json') and FORMAT_NAME.encode() in container.read('dataset.json')[: 1 << 16]
    except (OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False
    finally:
        container.close()


def _open_container(path: str) -> _Folder | _Zip:
    if os.path.isdir(path):
        return _Folder(path)
    if not os.path.exists(path):
        hint = ''
        if os.path.isdir(path + '.partial'):
            hint = f' (an interrupted run left {path}.partial; run the same command again to finish it)'
        raise InputError(f'{path}: there is no such file or folder{hint}.')
    try:
        return _Zip(path)
    except READING_ERRORS as error:
        if is_image(path) or is_video(path):
            raise InputError(f'{path} is footage, not a latent data set; embed_video.py turns it into one.') from error
        if path.lower().endswith(('.pkl', '.pt', '.pth', '.safetensors')):
            raise InputError(
                f'{path} is a file of weights or codes, not a latent data set, which is a zip or a folder.'
            ) from error
        raise InputError(readable(f'{path} is not a zip file, or it was cut off: {error or type(error).__name__}.')) from error


class _ArrayFile:
    """Header of one `.npy` array that lies somewhere in a file (numpy.lib.format describes it)."""

    def __init__(self, container: '_Folder | _Zip', name: str) -> None:
        self.path, start, size, plain = container.locate(name)
        with open(self.path, 'rb') if plain else container.open(name) as file:
            if plain:
                file.seek(start)
            self.shape, self.dtype, fortran_order, header_size = _read_npy_header(file)
        if self.dtype.kind != 'f':
            raise ValueError(f'its values are {self.dtype}, not float32')
        self.offset = start + header_size
        if header_size + math.prod(self.shape) * self.dtype.itemsize > size:
            raise ValueError(f'it is cut off: {size} bytes are too few for the shape {list(self.shape)}')
        self.mappable = plain and self.dtype == np.dtype('<f4') and not fortran_order and self.offset % 4 == 0

    def map(self) -> np.ndarray:
        # Mode c: the caller may write to the array (torch wants that), the file never changes.
        return np.asarray(np.memmap(self.path, dtype='<f4', mode='c', offset=self.offset, shape=self.shape))

    def read(self, indices: range) -> np.ndarray:
        """Some of the entries of the first axis, for arrays that are mappable."""
        size = math.prod(self.shape[1:])
        result = np.empty((len(indices), *self.shape[1:]), np.float32)
        at_once = len(indices) if indices.step == 1 else 1
        with open(self.path, 'rb') as file:
            for place in range(0, len(indices), at_once):
                file.seek(self.offset + indices[place] * size * 4)
                values = np.fromfile(file, '<f4', at_once * size)
                result[place : place + at_once] = values.reshape(at_once, *self.shape[1:])
        return result


def _read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    start = file.tell()
    version = np.lib.format.read_magic(file)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # numpy's on headers of Python 2
        try:
            shape, dtype, fortran_order = _parse_npy_header(file, version)
        except HEADER_ERRORS as error:
            raise ValueError('its header is damaged') from error
    if not all(isinstance(side, int) and not isinstance(side, bool) and side >= 0 for side in shape):
        raise ValueError(f'its shape is {shape!r}')
    return shape, dtype, fortran_order, file.tell() - start


def _parse_npy_header(file: IO[bytes], version: tuple[int, int]) -> tuple[tuple[int, ...], np.dtype, bool]:
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f'its .npy version {version} is not known')
    return shape, dtype, fortran_order
