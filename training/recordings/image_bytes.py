"""The bytes of one image, in a file or in a zip, read when they are asked for."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable

from networks.errors import DamagedVideo


class ImageBytes:
    """What holds one image, to be read when it is asked for."""

    def head(self, count: int) -> bytes:
        """Return the first bytes."""
        raise NotImplementedError

    def __call__(self) -> bytes:
        raise NotImplementedError


class FileBytes(ImageBytes):
    """An image file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def head(self, count: int) -> bytes:
        with open(self.path, 'rb') as file:
            return file.read(count)

    def __call__(self) -> bytes:
        with open(self.path, 'rb') as file:
            return file.read()


class OpenZip:
    """A zip that stays open once something was read from it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None

    def archive(self) -> zipfile.ZipFile:
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
        return self._archive


class MemberBytes(ImageBytes):
    """An image in a zip."""

    def __init__(self, container: OpenZip, info: zipfile.ZipInfo) -> None:
        self.container, self.info = container, info

    def head(self, count: int) -> bytes:
        with self.container.archive().open(self.info) as file:
            return file.read(count)

    def __call__(self) -> bytes:
        return self.container.archive().read(self.info)


def read_image(read: Callable[[], bytes], where: str) -> bytes:
    try:
        data = read()
    except (zipfile.BadZipFile, RuntimeError, EOFError, NotImplementedError, zlib.error) as error:  # RuntimeError: a password
        raise DamagedVideo(f'{where} cannot be read from the zip: {error}.') from error
    if data.startswith(b'version https://git-lfs'):
        raise DamagedVideo(f'{where} is a pointer of Git LFS, not the image itself; fetch it with "git lfs pull".')
    return data
