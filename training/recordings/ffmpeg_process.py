"""The ffmpeg program that imageio-ffmpeg brings: how it is started, and what its lines say."""

import contextlib
import dataclasses
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO

import imageio_ffmpeg

from networks.errors import InputError

MAX_LINE = 1 << 16
# What decoders of H.264 and HEVC complain about where parts were joined without being encoded again; the pictures are whole.
HARMLESS = (
    r'mmco|co located POCs|short term buffer state|[Mm]issing reference picture|number of reference frames|reorder|'
    r'non-existing|no frame!|[PS]PS id out of range|Could not find ref with POC|SEI|timing|Application provided'
)

# ----------------------------------------------------------------------------------------------------------------------
# The program


def ffmpeg_program() -> str:
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise InputError('No ffmpeg program was found; pip install imageio-ffmpeg brings one.') from error


def input_options(path: str) -> list[str]:
    # A path stays a path, whatever it looks like (concat:..., http://...), and a playlist opens local files only.
    return ['-protocol_whitelist', 'file,crypto,data', '-i', 'file:' + path]


@contextlib.contextmanager
def growing_file() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a temporary file twice: for a process that writes it, and for reading it meanwhile."""
    handle, name = tempfile.mkstemp(prefix='stylevideogan-', suffix='.txt')
    try:
        with os.fdopen(handle, 'wb') as written, open(name, 'rb', buffering=0) as read:
            with contextlib.suppress(OSError):  # a kill leaves nothing behind; Windows removes no file that is open
                os.remove(name)
            yield written, read
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(name)


@contextlib.contextmanager
def started(command: list[str], messages: IO[bytes], folder: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program whose output is read bit by bit; end it when the reader stops earlier."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, bufsize=1 << 20, cwd=folder)
    try:
        yield process
    finally:
        if process.stdout is not None:
            process.stdout.close()
        if process.poll() is None:
            process.kill()
        process.wait()


# ----------------------------------------------------------------------------------------------------------------------
# What it says


@dataclasses.dataclass
class Complaints:
    """What ffmpeg said while a video was decoded.

    Attributes:
        lines: Errors of the decoder after the first picture, and of what reads the file.
        concealed: Pictures that were damaged, and that the decoder filled up with a guess.
        first: The first error, in ffmpeg's words.
        pictures: Pictures that came out.
        interlaced: Pictures that are marked as interlaced.
    """

    lines: int = 0
    concealed: int = 0
    first: str = ''
    pictures: int = 0
    interlaced: int = 0


@dataclasses.dataclass(frozen=True)
class AboutPicture:
    """What ffmpeg says of one picture: its time stamp in seconds, and its size in pixels."""

    time: float
    width: int
    height: int


class Messages:
    """Understands ffmpeg's lines (`-loglevel level+info`): pictures as `showinfo` tells them, errors, concealed pictures."""

    def __init__(self, codec: str, complaints: Complaints | None = None) -> None:
        self.complaints = Complaints() if complaints is None else complaints
        self._codec = codec
        self.pictures: list[AboutPicture] = []
        self.last = ''
        self._unit = 1.0
        self._seen = 0  # pictures
        self._marked = 0  # pictures that the decoder marks as corrupt
        self._spoiled: set[int] = set()  # pictures around which it complains

    def take(self, line: str) -> None:
        """Read one line."""
        if '[Parsed_showinfo_' in line:
            unit = re.search(r'config in time_base: (\d+)/(\d+)', line)
            if unit:
                self._unit = int(unit[1]) / int(unit[2])
            picture = re.search(r'\bn: *\d+ pts: *(-?\d+|NOPTS) .*? s:(\d+)x(\d+) i:(\w)', line)
            if picture:
                self._seen += 1
                time = 0.0 if picture[1] == 'NOPTS' else int(picture[1]) * self._unit
                self.pictures.append(AboutPicture(time, int(picture[2]), int(picture[3])))
                self.complaints.interlaced += picture[4] in 'TB'
        elif 'corrupt decoded frame' in line:
            self._marked += 1
            self.complaints.concealed = max(self._marked, len(self._spoiled))
        elif '[error]' in line or '[fatal]' in line:
            self.last = without_levels(line)
            by_decoder = line.startswith((f'[{self._codec} @', '[lib'))
            if by_decoder and not self._seen:  # before the first picture: the video was cut there without being encoded again
                return
            self.complaints.lines += 1
            self.complaints.first = self.complaints.first or self.last
            if by_decoder and not re.search(HARMLESS, self.last):
                self._spoiled.add(self._seen)
                self.complaints.concealed = max(self._marked, len(self._spoiled))


class LineReader:
    """Reads the lines of a file that another process is writing."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._lines, self._rest = file, list[str](), b''

    def next_line(self) -> str | None:
        """Return the next whole line, None where there is none yet."""
        if not self._lines:
            *lines, self._rest = (self._rest + self._file.read(1 << 20)).split(b'\n')
            self._rest = self._rest[-MAX_LINE:]
            self._lines = [line.decode('utf-8', 'replace') for line in reversed(lines)]
        return self._lines.pop() if self._lines else None


def without_levels(text: str) -> str:
    return re.sub(r'^(?:\[[^\]\n]* @ 0x[0-9a-f]+\] )*\[(?:info|warning|error|fatal|verbose)\] ?', '', text, flags=re.MULTILINE)


def first_complaint(text: str, path: str) -> str:
    """Return the first thing that ffmpeg complains about, without its decorations."""
    for line in text.splitlines():
        line = re.sub(r'^\[[^\]]*\]\s*', '', line.strip())
        if line and not line.startswith(('Error opening input', 'At least one output', 'Input #', 'Stream mapping')):
            return line.replace('file:' + path, 'the file').rstrip('.')
    return 'invalid data' if 'Invalid data' in text or not text else text.splitlines()[-1].rstrip('.')
