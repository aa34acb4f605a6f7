"""What lies in a folder or zip, as people have them: links, hidden and system folders, names of other systems, foreign files.

Every file is either named, or counted among those that are left out, with the reason.
"""

import collections
import dataclasses
import itertools
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence

from networks.errors import InputError
from training.commands.file_names import printable
from training.recordings.still_images import IMAGE_ENDINGS

VIDEO_ENDINGS = (
    '.mp4', '.m4v', '.mp4v', '.mov', '.qt', '.mkv', '.mk3d', '.webm', '.avi', '.divx', '.mpg', '.mpeg', '.mpe', '.mpv', '.m1v',
    '.m2v', '.m2p', '.mp2v', '.ts', '.mts', '.m2ts', '.m2t', '.tp', '.trp', '.mod', '.tod', '.wmv', '.asf', '.flv', '.f4v',
    '.ogv', '.ogm', '.3gp', '.3g2', '.3gpp', '.gif', '.h264', '.264', '.avc', '.h265', '.265', '.hevc', '.obu', '.ivf', '.y4m',
    '.mxf', '.vob', '.evo', '.dv', '.dif', '.rm', '.rmvb', '.mjpg', '.mjpeg', '.mjp2', '.mj2', '.nut', '.amv', '.wtv', '.dvr-ms',
    '.insv', '.lrv', '.360', '.gifv', '.av1',
)  # fmt: skip
SYSTEM_FOLDERS = {
    '__macosx', '@eadir', '$recycle.bin', 'system volume information', 'lost+found', '#recycle', '#snapshot', '__pycache__',
}  # fmt: skip
SYSTEM_FILES = {'thumbs.db', 'desktop.ini', 'ehthumbs.db', 'icon\r'}
NO_DECODER = {
    **dict.fromkeys(('.heic', '.heif', '.hif'), 'photos of phones; convert them to .jpg or .png'),
    **dict.fromkeys(('.cr2', '.cr3', '.nef', '.arw', '.dng', '.raf', '.orf', '.rw2'), 'raw photos; develop them first'),
    **dict.fromkeys(('.exr', '.hdr', '.dpx', '.psd', '.jxl', '.svg'), 'no decoder; convert them to .png'),
    **dict.fromkeys(('.zip', '.tar', '.tgz', '.gz', '.7z', '.rar', '.bz2', '.xz'), 'archives; unpack them'),
}
MOST_KINDS = 6  # in one sentence
MIN_NUMBERED = 8  # files whose numbers are looked at
MOST_STEPS = 0.6  # part of the steps from number to number that are equal


@dataclasses.dataclass
class LeftOut:
    """Files that are not taken, counted by ending and reason."""

    counts: 'collections.Counter[tuple[str, str]]' = dataclasses.field(default_factory=collections.Counter)

    def add(self, name: str, reason: str = '', count: int = 1) -> None:
        """Count a file by its ending, or a folder by its name and a slash."""
        ending = os.path.basename(name) + '/' if name.endswith('/') else os.path.splitext(name)[1].lower()
        self.counts[(printable(ending)[:20] or 'no ending', reason)] += count

    def sentence(self, source: str) -> str | None:
        """Return one line that says what was left out, None if nothing was."""
        if not self.counts:
            return None
        kinds = self.counts.most_common()
        shown = [f'{count} {ending}' + (f' ({reason})' if reason else '') for (ending, reason), count in kinds[:MOST_KINDS]]
        rest = sum(count for _, count in kinds[MOST_KINDS:])
        shown += [f'{rest} of other kinds'] if rest else []
        total = sum(self.counts.values())
        return f'{printable(source)}: {total} file{"s" if total > 1 else ""} left out: {", ".join(shown)}'


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or belongs to an operating system, a NAS or an editor."""
    return name.startswith('.') or name.lower() in SYSTEM_FOLDERS or name.lower() in SYSTEM_FILES


def walk(path: str, left_out: LeftOut) -> list[tuple[str, str, list[str]]]:
    """Return every visible folder below a path, itself included: (path, relative path with slashes, names of files).

    Symbolic links to folders are followed, but a folder is visited once: a link to a folder that is read anyway, such as one
    to a parent, is left out. Names are sorted naturally.
    """
    root = os.path.realpath(path)
    visited = {root}
    found: list[tuple[str, str, list[str]]] = []

    def visit(folder: str, relative: str) -> None:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: natural_key(entry.name))
        except PermissionError:
            left_out.add(f'{folder}/', 'no permission')
            return
        files: list[str] = []
        folders: list[os.DirEntry[str]] = []
        links: list[os.DirEntry[str]] = []
        for entry in entries:
            if is_hidden(entry.name):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that leads to itself
                left_out.add(entry.name, 'links that lead nowhere')
                continue
            if is_folder:
                (links if entry.is_symlink() else folders).append(entry)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                left_out.add(entry.name, 'links to files that are not there')
            elif entry.is_symlink() and _is_read_anyway(root, entry.path) and is_video(entry.name):
                left_out.add(entry.name, 'links to files that are read anyway')
            else:
                files.append(entry.name)
        found.append((folder, relative, files))
        for entry in [*folders, *links]:
            target = os.path.realpath(entry.path)
            if target in visited or (entry.is_symlink() and _is_read_anyway(root, entry.path)):
                left_out.add(f'{entry.name}/', 'a link to a folder that is read anyway')
                continue
            visited.add(target)
            visit(entry.path, f'{relative}/{entry.name}' if relative else entry.name)

    visit(path, '')
    return found


def _is_read_anyway(root: str, link: str) -> bool:
    """Whether a link leads to something below the root (or to the root or a parent of it) that is visited at its own place."""
    target = os.path.realpath(link)
    if root == target or root.startswith(target.rstrip(os.sep) + os.sep):
        return True
    if not target.startswith(root.rstrip(os.sep) + os.sep):
        return False
    return not any(is_hidden(part) for part in os.path.relpath(target, root).split(os.sep))


def zip_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the visible files of a zip by their names, with slashes where Windows wrote backslashes."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():  # of equal names the last one counts: the zip was updated
        name = info.filename.replace('\\', '/')
        parts = [part for part in name.split('/') if part not in ('', '.')]
        if parts and not name.endswith('/') and not any(is_hidden(part) for part in parts if part != '..'):
            members['/'.join(parts)] = info
    return members


def open_zip(path: str) -> zipfile.ZipFile:
    """Open a zip.

    Raises:
        InputError: It is none, or it was cut off.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(f'{path} is not a zip file, or it was cut off: {error}.') from error


def is_image(name: str) -> bool:
    """Tell by the ending whether a file is an image."""
    return name.lower().endswith(IMAGE_ENDINGS)


def is_video(name: str) -> bool:
    """Tell by the ending whether a file is a video."""
    return name.lower().endswith(VIDEO_ENDINGS)


def why_left_out(name: str) -> str:
    """Return why a file of a known ending is not taken, '' for others."""
    return NO_DECODER.get(os.path.splitext(name)[1].lower(), '')


# ----------------------------------------------------------------------------------------------------------------------
# Numbers in names


def natural_key(name: str) -> tuple[list[tuple[int, int, str, str]], str]:
    """Return what names are sorted by, so that numbers in them count as numbers: frame2 before frame10."""
    key = []
    for index, part in enumerate(re.split(r'(\d+)', name)):
        if index % 2:  # decimal digits of any script; their number is compared by its length first, so that none is too long
            digits = ''.join(str(int(digit)) for digit in part).lstrip('0')
            key.append((0, len(digits), digits, ''))
        elif part:
            key.append((1, 0, '', part))
    return key, name


def natural_sort(names: Iterable[str]) -> list[str]:
    """Sort names so that numbers in them count as numbers."""
    return sorted(names, key=natural_key)


@dataclasses.dataclass(frozen=True)
class Gap:
    """Numbers that are missing in a sequence of file names.

    Attributes:
        position: Index of the first file after the gap.
        first, last: Missing numbers.
        missing: How many.
    """

    position: int
    first: int
    last: int
    missing: int


def number_gaps(names: Sequence[str]) -> list[Gap]:
    """Find gaps in the numbers of frames, in names that are sorted naturally.

    The number is the last one of each name that differs between them; most steps from name to name have to be equal, or
    the numbers are none of frames.
    """
    split = [re.split(r'(\d+)', os.path.basename(name)) for name in names]
    if len(split) < MIN_NUMBERED or any(len(parts) != len(split[0]) for parts in split):
        return []
    varying = [place for place in range(1, len(split[0]), 2) if len({parts[place] for parts in split}) > 1]
    if not varying or any(parts[: varying[-1]] != split[0][: varying[-1]] for parts in split):
        return []
    numbers = [int(parts[varying[-1]][-18:]) for parts in split]
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    step, count = collections.Counter(steps).most_common(1)[0]
    if step < 1 or count < MOST_STEPS * len(steps):
        return []
    return [
        Gap(position, before + step, after - step, (after - before) // step - 1)
        for position, (before, after) in enumerate(itertools.pairwise(numbers), start=1)
        if after - before > step
    ]


def same_frames(names: Iterable[str]) -> Mapping[str, str]:
    """Find images that are there twice in different formats (0001.png, 0001.jpg): name -> name of the one to take."""
    by_stem: dict[str, list[str]] = collections.defaultdict(list)
    names = list(names)
    for name in names:
        by_stem[os.path.splitext(name)[0]].append(name)
    doubled = [group for group in by_stem.values() if len(group) > 1]
    if len(doubled) < 0.5 * len(by_stem):
        return {}
    lossless = ('.png', '.tif', '.tiff', '.bmp')
    result: dict[str, str] = {}
    for group in doubled:
        best = min(group, key=lambda name: (not name.lower().endswith(lossless), group.index(name)))
        result.update((name, best) for name in group if name != best)
    return result
