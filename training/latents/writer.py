"""Writing of latent data sets, so that an interruption at any moment leaves the old file or a resumable folder.

While a data set is made, everything lies in the folder `DEST.partial`: clips that are complete, and the frames so
far of the one in work. `finish` builds the zip under a temporary name and renames it, then removes the folder. A
second run with the same settings finds the folder and goes on where the first one stopped.
"""

import contextlib
import copy
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from networks.checkpoints.durable_files import replacing, sync_folder
from networks.errors import DAMAGED_FILE, InputError
from stylevideogan import version
from training.commands.file_names import safe_name
from training.commands.work import differences
from training.latents.frame_measures import FrameMeasures
from training.latents.layout import (
    ENTRY_ENDING,
    FORMAT_NAME,
    FORMAT_VERSION,
    HEADER_SIZE,
    LARGEST_CODE,
    PREPARATION_FOLDER,
    clip_members,
    describe_bad_code,
    npy_header,
    store_aligned,
    total_quality,
)
from training.runs.locks import lock_target

# Settings of an embedding that runs of earlier versions do not record -> what they did. One that is added needs a line here.
UNSAID = {'fps': None, 'damaged': 'stop', 'shard': None, 'identity_model_sha256': None}
CONTENT_KEY = 'content'  # in the dataset.json of a partial folder
FINAL_FILE = 'final.json'  # there: what dataset.json will be


def was_left(path: str | os.PathLike[str], content: Any) -> bool:
    """Whether an interrupted run has left a part of this data set with this `content`, see LatentDatasetWriter."""
    try:
        with open(os.path.join(f'{os.fspath(path).rstrip("/" + os.sep)}.partial', 'dataset.json'), encoding='utf-8') as file:
            return bool(json.load(file).get(CONTENT_KEY) == json.loads(json.dumps(content)))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


class LatentDatasetWriter:
    """Makes a latent data set clip by clip.

    Args:
        path: Where the data set shall be: a zip if the name ends in `.zip`, otherwise a folder.
        image_generator: Reference to the image generator (`networks.checkpoints.image_generator_reference`).
        num_ws, w_dim: Shape of one code.
        embedding: How the codes are made; a run resumes only with equal settings.
        overwrite: Whether a data set that already has this name may be replaced (at the end, in one step).
        helper: Add clips to a data set that another process makes: it has made the partial folder, and finishes.
        content: What else decides the clips (a JSON value that the data set does not keep): a run resumes only with an equal one.

    Usage::

        with LatentDatasetWriter('latents.zip', image_generator=..., num_ws=18, w_dim=512, embedding={}) as writer:
            if not writer.has_clip('speech'):
                writer.add_clip('speech', codes, fps=25, source='speech.mp4')

    Leaving the `with` block normally calls `finish`; leaving it by an exception keeps `DEST.partial`.

    While it is made, the data set is locked (`.NAME.lock` beside it): a second process that wants to make it is refused.

    Raises:
        InputError: `path` exists and may not be replaced, `DEST.partial` belongs to a run with other settings, or another
            process is at work there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        image_generator: dict[str, Any],
        num_ws: int,
        w_dim: int,
        embedding: dict[str, Any],
        overwrite: bool = False,
        helper: bool = False,
        content: Any = None,
    ) -> None:
        self.path = os.fspath(path).rstrip('/' + os.sep) or os.fspath(path)
        self.partial_folder = self.path + '.partial'
        self.helper = helper
        self._lock = None if helper else lock_target(self.path, 'the data set')
        try:
            self._begin(image_generator, num_ws, w_dim, embedding, overwrite, content)
        except BaseException:
            self._unlock()
            raise

    def _begin(
        self, image_generator: dict[str, Any], num_ws: int, w_dim: int, embedding: dict[str, Any], overwrite: bool, content: Any
    ) -> None:
        if os.path.exists(self.path) and not overwrite and not (os.path.isdir(self.path) and not os.listdir(self.path)):
            raise InputError(f'{self.path} already exists; remove it, choose another name, or allow to overwrite it.')
        # Through JSON and back, so that it compares equal to what a resumed run reads from the disk.
        self._description: dict[str, Any] = json.loads(
            json.dumps(
                {
                    'format': FORMAT_NAME,
                    'format_version': FORMAT_VERSION,
                    'version': version.describe(),
                    'image_generator': image_generator,
                    'num_ws': num_ws,
                    'w_dim': w_dim,
                    'fps': None,
                    'embedding': embedding,
                    'num_clips': 0,
                    'num_frames': 0,
                    'quality': {},
                    'clips': [],
                    **({} if content is None else {CONTENT_KEY: content}),
                }
            )
        )
        self.resumed = os.path.isfile(self._file('dataset.json'))
        if self.resumed:
            self._continue()
        elif self.helper:
            raise InputError(f'{self.partial_folder} is not there: the first process has not begun this data set.')
        else:
            os.makedirs(self._file('clips'), exist_ok=True)
            self._save_description()

    # Clips.

    @property
    def clip_names(self) -> list[str]:
        """Names of the clips that are complete, in order."""
        return [clip['name'] for clip in self._description['clips']]

    @property
    def clip_entries(self) -> list[dict[str, Any]]:
        """What `dataset.json` tells of the clips that are complete, in order."""
        return copy.deepcopy(self._description['clips'])

    def has_clip(self, name: str) -> bool:
        """Tell whether a clip of this name is complete already (from this run or from the one that it resumes)."""
        return name in self.clip_names

    def add_clip(self, name: str, codes: np.ndarray, *, fps: float, source: str, index: int | None = None, **extra: Any) -> None:
        """Add a whole clip.

        Args:
            name: Unique name.
            codes: Finite values `[T, num_ws, w_dim]`, stored as float32.
            fps: Frames per second.
            source: Where the recording was.
            index: Its place among all clips of the data set; None: the next one.
            extra: Further JSON values to keep with the clip, for example `psnr`.

        Raises:
            InputError: Wrong shape, no frames, a code that is not finite, or the name exists.
        """
        clip = self.open_clip(name, restart=True, index=index)
        clip.append(codes)
        clip.close(fps=fps, source=source, **extra)

    def open_clip(self, name: str, *, restart: bool = False, chunk: int = 1, index: int | None = None) -> 'ClipWriter':
        """Open a clip for writing in pieces.

        Args:
            name: Unique name.
            restart: Forget what an interrupted run has left of this clip.
            chunk: Keep only a multiple of this many of the frames that an interrupted run has left, so that the rest
                is made from the same chunks as in a run without interruption.
            index: Its place among all clips of the data set; None: the next one.

        Raises:
            InputError: The name exists.
        """
        if self.has_clip(name):
            raise InputError(f'{self.path}: two clips are called {name!r}.')
        return ClipWriter(self, name, restart=restart, chunk=chunk, index=len(self.clip_names) if index is None else index)

    def set_preparation(self, entries: list[dict[str, Any]]) -> None:
        """Keep in `dataset.json` which pieces of the footage are clips, and which were left out and why."""
        if self.helper:
            return
        self._description['preparation'] = json.loads(json.dumps(entries))
        self._save_description()

    def forget_settings(self) -> None:
        """Let the next run have other settings, as long as no frame is embedded."""
        if os.path.isdir(self._file('clips')) and not os.listdir(self._file('clips')):
            os.rmdir(self._file('clips'))
            os.remove(self._file('dataset.json'))
            if not os.listdir(self.partial_folder):
                os.rmdir(self.partial_folder)

    def leave(self) -> None:
        """End without a data set: another run may go on, with other settings as long as no frame is embedded."""
        self.forget_settings()
        self._unlock()

    def finish(self) -> None:
        """Write the data set in one step and remove `DEST.partial`.

        Raises:
            InputError: No clip was added.
        """
        self.read_clips()
        if not self._description['clips']:
            raise InputError(f'{self.path}: no clip was embedded, so there is no data set to write.')
        self._save_description()
        self._save_description(FINAL_FILE)
        if self.path.lower().endswith('.zip'):
            self._write_zip()
        else:
            self._move_folder()

    def __enter__(self) -> 'LatentDatasetWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None and not self.helper and os.path.isdir(self.partial_folder):
                self.finish()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    # The partial folder.

    def _file(self, *names: str) -> str:
        return os.path.join(self.partial_folder, *names)

    def _continue(self) -> None:
        try:
            with open(self._file('dataset.json'), encoding='utf-8') as file:
                before = json.load(file)
            self._take_over(before)
        except InputError:
            raise
        except DAMAGED_FILE as error:
            raise InputError(f'{self.partial_folder}: dataset.json is damaged; remove this folder.') from error

    def _take_over(self, before: dict[str, Any]) -> None:
        """Go on with what an interrupted run says of itself."""
        for key in ('format_version', 'image_generator', 'num_ws', 'w_dim', 'embedding'):
            old, new = before.get(key), self._description[key]
            if key == 'image_generator':  # the same network may have moved
                old, new = (old or {}).get('sha256'), new.get('sha256')
            if key == 'embedding' and isinstance(old, dict) and not differences(old, new, UNSAID):
                self._description[key] = old  # an older version did not record all of it
            elif old != new:
                raise InputError(
                    f'{self.partial_folder} holds an interrupted run with other settings '
                    f'({_difference(key, old, new)}); '
                    'remove this folder to start over, or give the settings of that run to finish it.'
                )
        content = self._description.get(CONTENT_KEY)
        if before.get(CONTENT_KEY, content) != content:
            raise InputError(
                f'{self.partial_folder} holds an interrupted run that took other clips; remove this folder to start over, or '
                'give the options of that run to finish it.'
            )
        self._description['clips'] = [self._checked(entry) for entry in before['clips']]
        self._description['preparation'] = before.get('preparation', [])
        self.read_clips()
        for member in clip_members(self._description['clips']):
            if not os.path.isfile(self._file(*member.split('/'))):
                raise InputError(f'{self.partial_folder}: {member} is missing; remove this folder to start over.')

    def read_clips(self) -> None:
        """Learn of the clips that other processes have added."""
        clips = {clip['file']: clip for clip in self._description['clips']}
        for name in os.listdir(self._file('clips')):
            if name.endswith(ENTRY_ENDING) and f'clips/{name[: -len(ENTRY_ENDING)]}' not in clips:
                try:
                    with open(self._file('clips', name), encoding='utf-8') as file:
                        entry = self._checked(json.load(file))
                except DAMAGED_FILE as error:
                    raise InputError(f'{self._file("clips", name)} is damaged; remove it, and its clip is made again.') from error
                clips[entry['file']] = entry
        self._description['clips'] = [clips[file] for file in sorted(clips)]

    @staticmethod
    def _checked(entry: Any) -> dict[str, Any]:
        """What dataset.json tells of a clip, as an earlier run has left it.

        Raises:
            ValueError: It cannot be.
        """
        if not isinstance(entry, dict) or not isinstance(entry.get('name'), str):
            raise ValueError('no clip')
        for key in ('num_frames', 'fps'):
            value = entry.get(key)
            if isinstance(value, bool) or not isinstance(value, (int, float) if key == 'fps' else int) or not 0 < value < 1e9:
                raise ValueError(key)
        members = [entry.get('file'), *dict(entry.get('arrays', {})).values()]
        if not all(isinstance(member, str) and re.fullmatch(r'clips/[^/\\\0]+\.npy', member) for member in members):
            raise ValueError('members')
        return entry

    def _save_description(self, name: str = 'dataset.json') -> None:
        clips = self._description['clips']
        frames_per_rate: dict[float, int] = {}
        for clip in clips:
            frames_per_rate[clip['fps']] = frames_per_rate.get(clip['fps'], 0) + clip['num_frames']
        self._description.update(
            fps=max(frames_per_rate, key=lambda rate: frames_per_rate[rate], default=None),
            num_clips=len(clips),
            num_frames=sum(clip['num_frames'] for clip in clips),
            quality=total_quality(clips),
        )
        described = {key: value for key, value in self._description.items() if key != CONTENT_KEY or name != FINAL_FILE}
        with replacing(self._file(name)) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            json.dump(described, file, indent=2)
            file.write('\n')

    def _register(self, entry: dict[str, Any]) -> None:
        with (
            replacing(self._file(*entry['file'].split('/')) + ENTRY_ENDING) as temporary,
            open(temporary, 'w', encoding='utf-8') as file,
        ):
            json.dump(entry, file)
        self._description['clips'].append(entry)

    # The end.

    def _write_zip(self) -> None:
        members = [FINAL_FILE, *clip_members(self._description['clips'])]
        old = None
        with replacing(self.path) as temporary:
            with zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED) as archive:
                for name in members:
                    store_aligned(archive, self._file(*name.split('/')), 'dataset.json' if name == FINAL_FILE else name)
            if os.path.isdir(self.path):
                old = self.path + '.old'
                os.rename(self.path, old)
        if old is not None:
            shutil.rmtree(old)
        os.remove(self._file('dataset.json'))  # first, so that a kill leaves nothing that looks like an unfinished run
        shutil.rmtree(self.partial_folder)

    def _move_folder(self) -> None:
        kept = set(clip_members(self._description['clips']))
        for name in os.listdir(self._file('clips')):
            if f'clips/{name}' not in kept:
                os.remove(self._file('clips', name))
        shutil.rmtree(self._file(PREPARATION_FOLDER), ignore_errors=True)
        old = None
        if os.path.exists(self.path):
            old = self.path + '.old'
            os.rename(self.path, old)
        os.rename(self.partial_folder, self.path)
        with contextlib.suppress(OSError):  # until here, an interrupted run can be told from others
            os.replace(os.path.join(self.path, FINAL_FILE), os.path.join(self.path, 'dataset.json'))
        sync_folder(os.path.dirname(self.path))
        if old is not None:
            shutil.rmtree(old) if os.path.isdir(old) else os.remove(old)


class ClipWriter:
    """Writes one clip piece by piece; every piece is on the disk when `append` returns.

    Attributes:
        num_frames: Frames written so far, those of an interrupted run included.
    """

    def __init__(self, writer: LatentDatasetWriter, name: str, *, restart: bool, chunk: int, index: int) -> None:
        self._writer = writer
        self.name = name
        self._shape = (writer._description['num_ws'], writer._description['w_dim'])
        self._frame_size = 4 * self._shape[0] * self._shape[1]
        self._member = f'clips/{index:05d}-{safe_name(name)}.npy'
        self._path = writer._file(*self._member.split('/'))
        self._part = self._path + '.part'
        measures_path = self._path + '.measures.part'
        if not os.path.isfile(self._part) and os.path.isfile(self._path) and os.path.isfile(measures_path):
            os.replace(self._path, self._part)  # a kill came between the clip's last frame and its entry in dataset.json
        if restart or not os.path.isfile(self._part):
            for path in (self._part, measures_path):
                with open(path, 'wb'):
                    pass
        # A kill may have left half a frame, or codes without their measures: keep what is whole in both.
        self._measures = FrameMeasures(measures_path)
        whole = max(os.path.getsize(self._part) - HEADER_SIZE, 0) // self._frame_size
        self.num_frames = min(whole, self._measures.num_frames) // chunk * chunk
        self._measures.truncate(self.num_frames)
        with open(self._part, 'rb+') as file:
            file.write(npy_header((0, *self._shape)))
            file.truncate(HEADER_SIZE + self.num_frames * self._frame_size)

    def last_codes(self, count: int = 1) -> np.ndarray:
        """The last `count` codes so far, float32 `[<= count, num_ws, w_dim]`."""
        return self.read_codes(max(self.num_frames - count, 0), count)

    def read_codes(self, start: int, count: int) -> np.ndarray:
        """Codes so far, float32 `[<= count, num_ws, w_dim]`, from frame `start` on."""
        count = max(min(count, self.num_frames - start), 0)
        with open(self._part, 'rb') as file:
            file.seek(HEADER_SIZE + start * self._frame_size)
            values = np.frombuffer(file.read(count * self._frame_size), dtype='<f4')
        return values.reshape(count, *self._shape).astype(np.float32)

    def append(self, codes: np.ndarray, measures: Iterable[dict[str, float]] | None = None) -> None:
        """Add frames.

        Args:
            codes: Finite values `[n, num_ws, w_dim]`.
            measures: One dictionary of numbers for each frame (for example `psnr`); the clip keeps their averages.

        Raises:
            InputError: Wrong shape, or a code that is not finite or huge.
        """
        codes = np.asarray(codes)
        if codes.ndim != 3 or codes.shape[1:] != self._shape:
            raise InputError(
                f'clip {self.name!r} has codes of the shape {list(codes.shape)}, '
                f'but this image generator takes [frames, {self._shape[0]}, {self._shape[1]}].'
            )
        with np.errstate(invalid='ignore'):
            usable = (np.abs(codes) <= LARGEST_CODE).all(axis=(1, 2))  # False for NaN, too
        if not usable.all():
            place = int(np.argmin(usable))
            raise InputError(
                f'clip {self.name!r} has a code that is {describe_bad_code(codes[place])} in frame {self.num_frames + place}.'
            )
        rows = list(measures) if measures is not None else [{} for _ in range(len(codes))]
        if len(rows) != len(codes):
            raise ValueError(f'{len(rows)} measures for {len(codes)} frames')
        with open(self._part, 'rb+') as file:
            file.seek(HEADER_SIZE + self.num_frames * self._frame_size)
            file.write(np.ascontiguousarray(codes, dtype='<f4').tobytes())
        self._measures.append(rows)
        self.num_frames += len(codes)

    @property
    def measures_path(self) -> str:
        """File with the measures of the frames so far, see `training.latents.frame_measures.FrameMeasures`."""
        return self._measures.path

    def averages(self) -> dict[str, float]:
        """The average of every measure over the frames so far."""
        return self._measures.averages()

    def close(self, *, fps: float, source: str, arrays: Mapping[str, np.ndarray] | None = None, **extra: Any) -> None:
        """Make the clip a part of the data set.

        Args:
            fps: Frames per second.
            source: Where the recording was.
            arrays: Further values of its frames, `[num_frames, ...]` each, stored as float32 beside the codes under these
                names (for example `quads`); `LatentDataset.frame_arrays` returns them.
            extra: Further JSON values to keep with the clip.

        Raises:
            InputError: It has no frames, or `fps` is not a positive number.
        """
        if self.num_frames == 0:
            raise InputError(f'clip {self.name!r} has no frames.')
        if not (np.isfinite(fps) and fps > 0):
            raise InputError(f'clip {self.name!r} has {fps} frames per second; tell its rate.')
        with open(self._part, 'rb+') as file:
            file.write(npy_header((self.num_frames, *self._shape)))
            file.flush()
            os.fsync(file.fileno())
        members = {}
        for key, values in (arrays or {}).items():
            if len(values) != self.num_frames:
                raise ValueError(f'{key} of {len(values)} frames for a clip of {self.num_frames}')
            members[key] = f'{os.path.splitext(self._member)[0]}.{key}.npy'
            with open(self._writer._file(*members[key].split('/')), 'wb') as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values, dtype='<f4'))
                file.flush()
                os.fsync(file.fileno())
        if members:
            extra = {'arrays': members, **extra}
        os.replace(self._part, self._path)
        extra = {**{key: round(value, 6) for key, value in self.averages().items()}, **extra}
        self._writer._register(
            json.loads(
                json.dumps(
                    dict(name=self.name, file=self._member, num_frames=self.num_frames, fps=float(fps), source=source, **extra)
                )
            )
        )
        os.remove(self._measures.path)

    def discard(self) -> None:
        """Forget the frames of this clip."""
        for path in (self._part, self._measures.path):
            if os.path.exists(path):
                os.remove(path)


def _difference(key: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(set(old) | set(new)):
            if old.get(name) != new.get(name):
                return f'{name}: {old.get(name)} there, {new.get(name)} now'
    return f'{key}: {old} there, {new} now'
