"""Paths that a user gives, and checks of them before long work."""

import contextlib
import difflib
import math
import os
import re
import shutil
from collections.abc import Sequence

from networks.checkpoints import addresses
from networks.checkpoints.addresses import is_address
from networks.errors import InputError
from training.commands.mistakes import UserMistake, describe_os_error

# Endings of files that are no folder and no zip.
ENDINGS_OF_VIDEOS = ('.mp4', '.mov', '.m4v', '.mkv', '.avi', '.webm', '.gif')
ENDINGS_OF_FILES = (
    '.png', '.jpg', '.jpeg', '.webp', '.tif', '.tiff', '.npy', '.npz', '.pt', '.pth', '.pkl', '.safetensors', '.json', '.txt',
    '.csv', '.tar', '.gz', '.tgz', '.7z', '.rar',
)  # fmt: skip


def expand_home(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with `~` as the home folder after an equals sign too, where no shell replaces it."""

    def expanded(argument: str) -> str:
        match = re.fullmatch(r'(--[\w-]+=)(~.*)', argument, re.DOTALL)
        if match:
            return match[1] + os.path.expanduser(match[2])
        return os.path.expanduser(argument) if argument.startswith('~') else argument

    return [expanded(argument) for argument in arguments]


def new_result(path: str, *, zipped: bool, option: str = '--dest', overwrite: bool = False) -> str:
    """Return where a folder (or zip) goes, without slashes at its end, after making sure that it can be written.

    An empty folder that was made for it is taken.

    Args:
        path: As the user gave it.
        zipped: Whether the name may end in .zip, and the result is one then.
        option: Name of the option, for errors.
        overwrite: Whether what is there may be replaced.

    Raises:
        UserMistake: It exists, has the ending of another kind of file (a folder: of a video), or its folder cannot be written.
    """
    stripped = path.rstrip('/' + os.sep)
    if os.path.basename(stripped) in ('', '.', '..'):
        stripped = os.path.abspath(path)
    ending = os.path.splitext(stripped)[1].lower()
    if ending in ENDINGS_OF_VIDEOS or (zipped and ending in ENDINGS_OF_FILES):
        kind = 'a .zip or a folder' if zipped else 'a folder'
        raise UserMistake(f'{option}: the result is {kind}, and {path!r} has the ending of another kind of file')
    if os.path.lexists(stripped) and not overwrite and not is_empty_folder(stripped):
        how = ', or replace it by --overwrite' if zipped else ', or remove it'
        raise UserMistake(f'{option}: {path} already exists; choose another name{how}')
    require_folder(os.path.dirname(os.path.abspath(stripped)))
    return stripped


def absolute(path: str) -> str:
    """Return the absolute path of a file; an address stays as it is."""
    return path if is_address(path) else os.path.abspath(path)


def require_weights(path: str, option: str, *, folders: bool = False) -> None:
    """Make sure that a file of weights (or a folder) is there; what an address holds is found out when it is downloaded.

    Raises:
        UserMistake: There is no such file, or the address is none.
    """
    try:
        addresses.check(path)
    except InputError as error:
        raise UserMistake(f'{option}: {error}') from error
    if is_address(path) or os.path.isfile(path) or (folders and os.path.isdir(path)):
        return
    if os.path.isdir(path):
        raise UserMistake(f'{option}: {path!r} is a folder, and a file is needed')
    alike = difflib.get_close_matches(path, addresses.NAMES, n=2, cutoff=0.5)
    meant = f'; did you mean {" or ".join(alike)}, which would be downloaded?' if alike else ''
    raise UserMistake(f'{option}: there is no file{" or folder" if folders else ""} {path!r}{meant}')


def is_empty_folder(path: str | os.PathLike[str]) -> bool:
    """Tell whether this is a folder without anything in it."""
    return os.path.isdir(path) and not os.listdir(path)


# ----------------------------------------------------------------------------
# Checks before long work


def existing_parent(path: str | os.PathLike[str]) -> str:
    """The path itself, or the nearest folder above it that exists."""
    folder = os.path.abspath(path)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return folder


def require_free_space(path: str | os.PathLike[str], num_bytes: float, purpose: str) -> None:
    """Stop before long work rather than at its end when the disk cannot hold the result.

    Args:
        path: File or folder that will be written; it need not exist yet.
        num_bytes: What it will need, bytes; estimate it from below, a wrong refusal is worse than a late one.
        purpose: What for, in words ('4 videos').

    Raises:
        UserMistake: less is free.
    """
    free = shutil.disk_usage(existing_parent(path)).free
    if free < num_bytes:
        raise UserMistake(
            f'{purpose}: about {format_bytes(num_bytes)} are needed, but {format_bytes(free)} are free at '
            f'{os.fspath(path)!r}; free some space or choose another place'
        )


def format_bytes(num_bytes: float) -> str:
    """A number of bytes for a person: 1536 returns '1.5 KiB'."""
    if num_bytes < 1024:
        return f'{num_bytes:.0f} bytes'
    units = ('KiB', 'MiB', 'GiB', 'TiB')
    exponent = min(int(math.log(num_bytes, 1024)), len(units))
    return f'{num_bytes / 1024**exponent:.1f} {units[exponent - 1]}'


_made: list[str] = []  # folders that `require_folder` has made and that are not to stay empty


def remove_empty_folders() -> None:
    """Remove such folders, if nobody has written into them: a mistake that was found later leaves nothing behind."""
    for folder in sorted(_made, key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    _made.clear()


def require_folder(path: str | os.PathLike[str], *, empty: bool = True) -> str:
    """Make the folder and make sure that files can be written into it; returns its path.

    Args:
        path: The folder.
        empty: Whether it may stay behind empty when the command ends with a mistake.

    Raises:
        UserMistake: it is a file, or there is no permission.
    """
    folder = os.fspath(path)
    new = os.path.abspath(folder)
    while not empty and not os.path.exists(new):
        _made.append(new)
        new = os.path.dirname(new)
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:
        raise UserMistake(f'{folder!r} is a file, but a folder is needed; choose another name') from error
    except OSError as error:
        raise UserMistake(describe_os_error(error)) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserMistake(f'no permission to write into {folder!r}; choose another folder')
    return folder
