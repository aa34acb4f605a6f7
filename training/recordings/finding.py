"""What a file, folder or zip holds: every recording in it, and what is left out."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
import zipfile
from collections.abc import Sequence

from networks.errors import DamagedVideo, InputError, option
from training.commands import file_names
from training.recordings import source_files, still_images
from training.recordings.array_files import ARRAY_ENDINGS, find_in_array
from training.recordings.image_bytes import FileBytes, ImageBytes, MemberBytes, OpenZip, read_image
from training.recordings.recording import AnimatedImage, ImageSequence, Recording, VideoFile
from training.recordings.source_files import LeftOut, natural_key, natural_sort


@dataclasses.dataclass
class Found:
    """What a source holds.

    Attributes:
        recordings: Sorted by name, so that numbers count as numbers.
        broken: Name -> reason of recordings that cannot be opened.
        left_out: Files that are none.
    """

    recordings: list[Recording] = dataclasses.field(default_factory=list)
    broken: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: LeftOut = dataclasses.field(default_factory=LeftOut)


def find_recordings(path: str, fps: float | None = None, *, arrays: bool = False, keep_damaged: bool = False) -> Found:
    """Find the recordings of a file, folder or zip.

    A folder with images is one recording, a folder of such folders (or a zip of them) one each; video files, animations and
    arrays are found at any depth. Hidden and system folders are left alone, and links are followed, to every folder once.

    Args:
        path: What the user gave.
        fps: Rate that videos and animations are resampled to, None: their own.
        arrays: Whether `.npy` and `.npz` files of `[N, T, H, W, 3]` or `[T, H, W, 3]` are videos; else they are left out.
        keep_damaged: As of `Recording`.

    Raises:
        InputError: Nothing of this kind is there.
    """
    if fps is not None and not (math.isfinite(fps) and 0 < fps <= 1000):
        raise InputError(f'{fps} frames per second is not a rate; give a number above 0 and up to 1000.')
    if re.match(r'^[a-z][a-z0-9+.-]+://', path, re.IGNORECASE):
        raise InputError(f'{path} is an address; download the recording first and give the file.')
    if not os.path.exists(path):
        if os.path.islink(path):
            raise InputError(f'{path} is a link to {os.readlink(path)!r}, which is not there.')
        raise InputError(f'{path}: there is no such file or folder.')
    found = _Finder(fps, arrays).find(path)
    for recording in found.recordings:
        recording.keep_damaged = keep_damaged
    return found


class _Finder:
    def __init__(self, fps: float | None, arrays: bool) -> None:
        self.fps, self.arrays = fps, arrays
        self.found = Found()

    def find(self, path: str) -> Found:
        if os.path.isdir(path):
            self._folder(path)
            what = f'neither images nor videos{" nor arrays (.npy, .npz)" if self.arrays else ""} are in this folder'
        else:
            self._file(path, file_names.stem(path))
            what = 'no images are in this zip'
        found = self.found
        if not found.recordings and not found.broken:
            left_out = found.left_out.sentence(path)
            raise InputError(
                f'{file_names.printable(path)}: {what}, so there {"is nothing to compare" if self.arrays else "are no frames"}'
                f'{" (" + left_out.split(": ", 1)[1] + ")" if left_out else ""}.'
            )
        found.recordings.sort(key=lambda recording: natural_key(recording.name))
        return found

    def _folder(self, path: str) -> None:
        for folder, relative, names in source_files.walk(path, self.found.left_out):
            videos = [name for name in names if source_files.is_video(name)]
            covers = {file_names.stem(name) for name in videos}
            images = []
            for name in names:
                if source_files.is_image(name):
                    if file_names.stem(name) in covers:
                        self.found.left_out.add(name, 'the cover of a video')
                    else:
                        images.append(name)
                elif name not in videos and not self._is_array(name) and not _is_ours(name):
                    self.found.left_out.add(name, source_files.why_left_out(name))
            name = relative or os.path.basename(os.path.abspath(path))
            self._images(
                name, folder, [(os.path.join(folder, image), FileBytes(os.path.join(folder, image))) for image in images]
            )
            for file in names:
                if file in videos:
                    self._file(os.path.join(folder, file), *self._names(relative, file))
                elif self._is_array(file) and not _is_ours(file):
                    try:
                        self._file(os.path.join(folder, file), *self._names(relative, file))
                    except InputError:
                        self.found.left_out.add(file, 'no videos, which are uint8 [N, T, H, W, 3] or [T, H, W, 3]')

    def _is_array(self, name: str) -> bool:
        return self.arrays and name.lower().endswith(ARRAY_ENDINGS)

    def _names(self, relative: str, file: str) -> tuple[str, str]:
        """Name of a file below a folder without its ending, and with it."""
        name = f'{relative}/{file}' if relative else file
        return os.path.splitext(name)[0], name

    def _file(self, path: str, inner: str, name: str | None = None) -> None:
        name = name or inner
        ending = os.path.splitext(path)[1].lower()
        if ending == '.zip' or (not source_files.is_video(path) and ending not in ARRAY_ENDINGS and zipfile.is_zipfile(path)):
            self._zip(path)
        elif source_files.is_image(path):
            self._images(inner, path, [(path, FileBytes(path))], file_name=name)
        elif self._is_array(path):
            try:
                self.found.recordings += find_in_array(path, name)
            except DamagedVideo as error:
                self.found.broken[file_names.printable(name)] = str(error)
        elif source_files.why_left_out(path):
            raise InputError(f'{file_names.printable(path)} cannot be read: {source_files.why_left_out(path)}.')
        else:
            video = VideoFile(inner, path, self.fps)
            video.file_name = file_names.printable(name)
            self.found.recordings.append(video)

    def _zip(self, path: str) -> None:
        with source_files.open_zip(path) as archive:
            members = source_files.zip_members(archive)
        if any(os.path.basename(name) == 'dataset.json' for name in members) and any(name.endswith('.npy') for name in members):
            raise InputError(
                f'{path} is a latent data set, not videos; '
                + (
                    f'{option("reference", "embedding")} compares with what it renders to.'
                    if self.arrays
                    else 'it needs no embedding.'
                )
            )
        folders: dict[str, list[str]] = {}
        others = []
        for name in natural_sort(members):
            if source_files.is_image(name):
                folders.setdefault(os.path.dirname(name), []).append(name)
            elif source_files.is_video(name) or self._is_array(name):
                others.append(name)
            else:
                self.found.left_out.add(name, source_files.why_left_out(name))
        if others and not folders:
            raise InputError(
                f'{path}: this zip holds {"video files or arrays" if self.arrays else "videos"}; unpack it and give the folder.'
            )
        for name in others:
            self.found.left_out.add(name, 'in a zip; unpack it')
        container = OpenZip(path)
        for folder in natural_sort(folders):
            images = [(f'{path}/{name}', MemberBytes(container, members[name])) for name in folders[folder]]
            self._images(folder or file_names.stem(path), f'{path}/{folder}' if folder else path, images, files=[path])

    def _images(
        self,
        name: str,
        source: str,
        images: Sequence[tuple[str, ImageBytes]],
        *,
        files: Sequence[str] | None = None,
        file_name: str | None = None,
    ) -> None:
        """Add a sequence of images, and the animations among them."""
        doubles = source_files.same_frames([where for where, _ in images])
        stills = []
        for where, read in images:
            if where in doubles:
                kept = os.path.splitext(doubles[where])[1]
                self.found.left_out.add(where, f'the same frames as {kept}')
                continue
            animation = self._animation(name, where, read, files, alone=len(images) == 1)
            if animation is not None:
                self.found.recordings.append(animation)
            else:
                stills.append((where, read))
        if stills:
            sequence = ImageSequence(name, source, files or [where for where, _ in stills], stills)
            sequence.file_name = file_names.printable(file_name or name)
            self.found.recordings.append(sequence)

    def _animation(
        self, name: str, where: str, read: ImageBytes, files: Sequence[str] | None, *, alone: bool
    ) -> AnimatedImage | None:
        if not where.lower().endswith(still_images.ANIMATED_ENDINGS):
            return None
        try:
            if not still_images.may_be_animated(where, read_image(lambda: read.head(still_images.HEAD_BYTES), where)):
                return None
            count, times, last = still_images.animation_times(io.BytesIO(read_image(read, where)), where)
        except DamagedVideo:
            return None  # it is met again when the frame is read
        if count < 2:
            return None
        stem = file_names.stem(where)
        inner = stem if alone else f'{name}/{stem}'
        return AnimatedImage(
            inner, where, files[0] if files else where, read, count=count, times=times, last_seconds=last, fps=self.fps
        )


def _is_ours(name: str) -> bool:
    """Whether align_video.py has written this file beside its clips."""
    return name == 'quads.npy' or name.endswith('.quads.npy') or name == 'preparation.json'
