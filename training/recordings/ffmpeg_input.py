"""Decoding of one video file by the ffmpeg program that imageio-ffmpeg brings.

ffmpeg gives every picture as it is in the file, with its time stamp and its size, into a pipe; the frames of a constant rate
are chosen here (`training.recordings.video_timing`). So nothing is lost where size, range or format change within a stream, and
pauses are not filled. A picture is read when it is asked for, so memory does not grow with the video.
"""

import contextlib
import dataclasses
import functools
import os
import re
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from typing import IO

import imageio_ffmpeg
import numpy as np

from networks.errors import InputError, option
from training.recordings import colour_lookup
from training.recordings.video_timing import Timing, exact_rate, measure_timing, resample

__all__ = ['Complaints', 'VideoDescription', 'decode_video', 'describe_video', 'exact_rate', 'has_sound']

SEEK_MARGIN = 6  # seconds decoded before the frame that is wanted: more than the longest interval that is no pause
PROBED_PICTURES = 8
NO_TIME = -(1 << 62)  # ffmpeg writes less where there is no time stamp
MOSTLY_TOLD = 0.95  # part of the packets with time stamps, from which on these are trusted
HD_WIDTH, HD_HEIGHT = 1280, 720  # from here on video without colour tags is BT.709, as players take it
END_TOLERANCE = 0.01  # part of the duration that may be missing at the end: headers round
MAX_LINE = 1 << 16
# What decoders of H.264 and HEVC complain about where parts were joined without being encoded again; the pictures are whole.
HARMLESS = (
    r'mmco|co located POCs|short term buffer state|[Mm]issing reference picture|number of reference frames|reorder|'
    r'non-existing|no frame!|[PS]PS id out of range|Could not find ref with POC|SEI|timing|Application provided'
)


@dataclasses.dataclass(frozen=True)
class VideoDescription:
    """What header, time stamps and the first pictures of a video tell.

    Attributes:
        timing: Times of the pictures, and the frame rate.
        stream: Index of the video stream that is taken.
        codec: Its format, in ffmpeg's words.
        decoder: Options for ffmpeg that choose the decoder.
        filters: For ffmpeg: what makes pictures progressive, upright, square in their pixels, and sRGB.
        folder: Where files that `filters` names lie, None: there are none.
        seconds: Duration that the header promises, None where it does not.
        first_time: Time stamp of the first picture that can be decoded, seconds.
        notes: What a user has to know, one sentence each, without a subject.
    """

    timing: Timing
    stream: int
    codec: str
    decoder: tuple[str, ...]
    filters: str
    folder: str | None
    seconds: float | None
    first_time: float
    notes: tuple[str, ...] = ()

    @property
    def fps(self) -> float:
        """Frames per second; the usual rate where it varies."""
        return self.timing.fps

    def time_of_frame(self, frame: int, rate: float) -> float:
        """Seconds from the beginning of the file to the picture that a frame of a constant rate shows."""
        numbers = self.timing.numbers(rate)
        position = int(np.searchsorted(numbers, frame, side='right')) - 1
        return float(self.timing.times[max(position, 0)]) if len(numbers) else 0.0

    @property
    def expected_frames(self) -> int | None:
        """Frames at `fps`, None where that is not known."""
        return self.timing.num_frames(self.fps)


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


# ----------------------------------------------------------------------------------------------------------------------
# What a file holds


def describe_video(path: str) -> VideoDescription:
    """Read header, time stamps and the first pictures of a video file.

    Raises:
        InputError: ffmpeg does not know the format, or the file holds no moving picture.
    """
    if not os.path.isfile(path):
        raise InputError(f'{path}: there is no such file.')
    status = os.stat(path)
    if status.st_size == 0:
        raise InputError(f'{path} is empty (0 bytes).')
    with open(path, 'rb') as file:
        if file.read(23) == b'version https://git-lfs':
            raise InputError(f'{path} is a pointer of Git LFS, not the video itself; fetch it with "git lfs pull".')
    return _describe(path, status.st_size, status.st_mtime_ns)


def has_sound(path: str) -> bool:
    """Whether ffmpeg finds sound in a file."""
    command = [_ffmpeg(), '-nostdin', '-hide_banner', *_input_options(path)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    return re.search(r'^\s*Stream #0:\d+\S*: Audio: ', done.stderr.decode('utf-8', 'replace'), re.MULTILINE) is not None


@functools.lru_cache(maxsize=4096)
def _describe(path: str, size: int, changed: int) -> VideoDescription:
    # Packets of all video streams (not decoded) on standard output, header and first pictures on standard error.
    command = [
        _ffmpeg(), '-nostdin', '-hide_banner', '-nostats', '-loglevel', 'level+info', *_input_options(path),
        '-map', '0:v', '-c', 'copy', '-copyinkf', '-f', 'framecrc', 'pipe:1',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False)
    header = _without_levels(done.stderr.decode('utf-8', 'replace'))
    streams = _video_streams(header)
    # The tty demuxer takes any .txt or .nfo file for animated letters.
    if re.search(r'^Input #0, tty,', header, re.MULTILINE) or (not streams and 'Input #0' not in header):
        raise InputError(f'{path} is not a video that ffmpeg can decode: {_reason(header, path)}.')
    chosen = _chosen_stream(streams)
    if chosen is None:
        raise InputError(f'{path} holds no video stream (perhaps it is sound only).')
    if re.search(r'DOVI configuration record:.*profile: 5', chosen.about):
        raise InputError(
            f"{path} is Dolby Vision of profile 5, whose colours only Dolby's decoders know; export it as SDR or HDR10."
        )
    first = _first_pictures(path, chosen)
    times, tick, last_seconds = _packet_times(done.stdout, streams.index(chosen), first.times)
    rates = [_number(chosen.about, r'([\d.]+)(k?) fps'), _number(chosen.about, r'([\d.]+)(k?) tbr')]
    timing = measure_timing(times, rates, tick, last_seconds)
    duration = re.search(r'Duration: (\d+):(\d+):([\d.]+)', header)
    seconds = int(duration[1]) * 3600 + int(duration[2]) * 60 + float(duration[3]) if duration else 0.0
    filters, folder, notes = _filters(chosen, first)
    own = re.search(r'^\s*DURATION\s*: (\d+):(\d+):([\d.]+)', chosen.about, re.MULTILINE)  # of this track, in Matroska
    promised = int(own[1]) * 3600 + int(own[2]) * 60 + float(own[3]) if own else 0.0
    there = (float(timing.times[-1]) if len(timing.times) else 0.0) + 1 / timing.fps
    if there < promised - max(2 / timing.fps, END_TOLERANCE * promised):
        notes.append(f'its header promises {promised:.1f} s, and {there:.1f} s are there; it may be damaged or cut off')
    if len(streams) > 1 and sum(stream.is_recording for stream in streams) > 1:
        position = streams.index(chosen) + 1
        notes.append(f'it has {len(streams)} video tracks, and track {position} ({chosen.width}x{chosen.height}) is taken')
    return VideoDescription(
        timing,
        chosen.index,
        chosen.codec,
        tuple(chosen.decoder),
        filters,
        folder,
        seconds or None,
        first.times[0] if first.times else 0.0,
        tuple(notes),
    )


@dataclasses.dataclass(frozen=True)
class _Stream:
    index: int
    codec: str
    about: str  # the lines of the header
    width: int
    height: int

    @property
    def decoder(self) -> list[str]:
        """Options for ffmpeg: its own decoders of VP8 and VP9 do not know transparency."""
        if self.codec in ('vp8', 'vp9') and re.search(r'^\s*alpha_mode\s*: 1', self.about, re.MULTILINE | re.IGNORECASE):
            return ['-c:v', 'libvpx-vp9' if self.codec == 'vp9' else 'libvpx']
        return []

    @property
    def is_recording(self) -> bool:
        return not re.search(r'\((?:attached pic|timed thumbnails|still image)\)', self.about.splitlines()[0])


@dataclasses.dataclass
class _FirstPictures:
    times: list[float] = dataclasses.field(default_factory=list)
    format: str = ''
    size: tuple[int, int] = (0, 0)
    interlaced: bool = False
    colours: dict[str, str] = dataclasses.field(default_factory=dict)


def _video_streams(header: str) -> list[_Stream]:
    streams = []
    # Lines of the output repeat the streams of the input.
    inputs = re.split(r'^(?:Stream mapping|Output #0)', header, maxsplit=1, flags=re.MULTILINE)[0]
    for part in re.split(r'^(?=\s*Stream #0:)', inputs, flags=re.MULTILINE):
        found = re.match(r'\s*Stream #0:(\d+)\S*: Video: (\w+)', part)
        if found:
            size = re.search(r', (\d+)x(\d+)', part)
            streams.append(_Stream(int(found[1]), found[2], part.strip(), *((int(size[1]), int(size[2])) if size else (0, 0))))
    return streams


def _chosen_stream(streams: Sequence[_Stream]) -> _Stream | None:
    """Return what players show: the default track; of several the largest, of equal ones the first."""
    real = [stream for stream in streams if stream.is_recording and stream.codec != 'none']
    return max(
        real,
        key=lambda stream: ('(default)' in stream.about.splitlines()[0], stream.width * stream.height, -stream.index),
        default=None,
    )


def _packet_times(text: bytes, position: int, first: Sequence[float]) -> tuple[np.ndarray, float, float]:
    """Return the time stamps of the packets of one stream that are shown, their unit, and how long the last is shown: seconds.

    Args:
        text: What the framecrc muxer writes.
        position: Of the stream among its streams.
        first: Time stamps of the first pictures that can be decoded: before them, the video was cut without being encoded again.
    """
    tick = re.search(rb'^#tb %d: (\d+)/(\d+)' % position, text, re.MULTILINE)
    if tick is None:
        return np.zeros(0), 0.0, 0.0
    unit = int(tick[1]) / int(tick[2])
    start = b'%d,' % position
    fields = [line.split(b',', 4)[1:4] for line in text.splitlines() if line.startswith(start)]
    decoding, shown, lengths = np.asarray(fields, dtype=np.int64).reshape(-1, 3).T
    told = shown > NO_TIME
    begin = first[0] if len(first) else 0.0
    times = shown[told] * unit
    if told.mean() < MOSTLY_TOLD:
        # The order of decoding is complete, and regular; but the second field of a picture may have a packet of its own.
        all_times = np.sort(decoding[decoding > NO_TIME] * unit)
        interval = float(np.median(np.diff(first))) if len(first) > 1 else 0.0
        if not told.any() or abs(_usual(all_times) - interval) < abs(_usual(np.sort(times)) - interval):
            return all_times - all_times.min(initial=0.0) + begin, unit, 0.0
    last = float(lengths[np.argmax(np.where(told, shown, NO_TIME))]) * unit if told.any() else 0.0
    return times[times >= begin - unit / 2], unit, last


def _usual(times: np.ndarray) -> float:
    return float(np.diff(times).mean()) if len(times) > 1 else 0.0


def _first_pictures(path: str, stream: _Stream) -> _FirstPictures:
    """Decode the first pictures: when they come, what they look like."""
    command = [
        _ffmpeg(), '-nostdin', '-hide_banner', '-nostats', '-loglevel', 'level+info', *stream.decoder, *_input_options(path),
        '-map', f'0:{stream.index}', '-frames:v', str(PROBED_PICTURES), '-fps_mode', 'passthrough', '-vf', 'showinfo=checksum=0',
        '-f', 'null', '-',
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    found, parser = _FirstPictures(), _Messages(stream.codec)
    for line in done.stderr.decode('utf-8', 'replace').splitlines():
        parser.take(line)
        colours = re.search(r'color_range:(\S+) color_space:(\S+) color_primaries:(\S+) color_trc:(\S+)', line)
        if colours and not found.colours:
            found.colours = dict(zip(('range', 'matrix', 'primaries', 'transfer'), colours.groups(), strict=True))
        kind = re.search(r'\bfmt:(\S+)', line)
        if kind and not found.format:
            found.format = kind[1]
    for picture in parser.pictures:
        found.times.append(picture.time)
        found.size = found.size if found.size[0] else (picture.width, picture.height)
    found.interlaced = parser.complaints.interlaced > 0
    return found


def _filters(stream: _Stream, first: _FirstPictures) -> tuple[str, str | None, list[str]]:
    """Return the filters for ffmpeg, the folder of a file that they name, and what a user has to know."""
    filters, notes, folder = [], [], None
    if first.interlaced or re.search(r'\b(?:top|bottom)(?: coded)? first', stream.about.splitlines()[0]):
        filters.append('bwdif=mode=send_frame:deint=interlaced')  # touches only pictures that are marked as interlaced
        notes.append('it is interlaced, and is deinterlaced')
    matrix, primaries = first.colours.get('matrix', 'unknown'), first.colours.get('primaries', 'unknown')
    transfer = first.colours.get('transfer', 'unknown')
    scale = 'scale=w=round(iw*sar):h=ih:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp'
    untagged = matrix in ('unknown', 'unspecified', 'reserved')
    width, height = max(first.size[0], stream.width), max(first.size[1], stream.height)
    if colour_lookup.needs_table(primaries, transfer):
        table = colour_lookup.table_file(primaries, transfer)
        folder = os.path.dirname(table)
        if untagged:
            scale += ':in_color_matrix=' + ('bt2020nc' if transfer in colour_lookup.HDR_CURVES else 'bt709')
        filters += [scale, 'format=gbrp12', f'lut3d=file={os.path.basename(table)}:interp=tetrahedral']
        hdr = 'is HDR' if transfer in colour_lookup.HDR_CURVES else 'has a wide gamut'
        notes.append(f'it {hdr} ({primaries}, {transfer}), and is brought to SDR (sRGB)')
    else:
        if untagged and (width >= HD_WIDTH or height >= HD_HEIGHT):
            scale += ':in_color_matrix=bt709'
        filters.append(scale)
        if re.match(r'yuva|gbrap|rgba|bgra|argb|abgr|ya\d|pal8|ayuv|vuya', first.format):
            # Shown on white: 1 - a (1 - c).
            filters += ['format=gbrap', 'negate=components=r+g+b', 'premultiply=inplace=1', 'negate=components=r+g+b']
            if first.format != 'pal8' and stream.codec != 'gif':
                notes.append('it has transparent parts, which are shown on white')
    return ','.join([*filters, 'format=rgb24', 'showinfo=checksum=0']), folder, notes


# ----------------------------------------------------------------------------------------------------------------------
# Decoding


def decode_video(
    path: str, *, fps: float | None = None, first_frame: int = 0, keep_damaged: bool = False, complaints: Complaints | None = None
) -> Iterator[np.ndarray]:
    """Decode a video at a constant rate.

    Args:
        path: The file.
        fps: Frames per second to return; pictures are repeated or left out where the video has another rate. None: its own.
        first_frame: Leave out as many frames; they are skipped, not decoded. Files whose index or time stamps are wrong may
            give other frames then than a reader from the beginning gets.
        keep_damaged: Take pictures that the decoder has filled up with a guess, and where the video cannot be decoded any
            further, stop there without an error.
        complaints: Gets what ffmpeg says.

    Yields:
        Frames, uint8 `[H, W, 3]` sRGB, upright, progressive and with square pixels. Their size changes where that of the
        video does.

    Raises:
        InputError: Nothing can be decoded, or (not with `keep_damaged`) pictures are damaged or missing; this comes at the
            end, and only for a reader from the beginning.
    """
    about = describe_video(path)
    rate = float(exact_rate(about.fps if fps is None else fps))
    told = Complaints() if complaints is None else complaints
    entries = [0]
    if first_frame and about.timing.usable:
        # Whole seconds, which every unit of time stamps can express.
        seconds = int(about.time_of_frame(first_frame, rate)) - SEEK_MARGIN
        entries = [seconds, 0] if seconds > 0 else [0]
    for entry in entries:
        count = 0
        pictures = _pictures(path, about, entry, told)
        with contextlib.closing(pictures):
            for frame in resample(pictures, about.timing, rate, first_frame):
                count += 1
                yield frame
        if count:
            break
    if first_frame == 0:
        _judge(path, about, told, keep_damaged)


def _pictures(
    path: str, about: VideoDescription, entry: int, complaints: Complaints
) -> Generator[tuple[float, np.ndarray], None, None]:
    """Yield time stamp and picture from `entry` seconds after the beginning of the file on."""
    command = [
        _ffmpeg(), '-nostdin', '-hide_banner', '-nostats', '-loglevel', 'level+info',
        *(['-ss', str(entry)] if entry else []), *about.decoder, *_input_options(os.path.abspath(path)),
        '-map', f'0:{about.stream}', '-an', '-fps_mode', 'passthrough', '-noautoscale', '-vf', about.filters,
        '-c:v', 'rawvideo', '-pix_fmt', 'rgb24', '-f', 'rawvideo', 'pipe:1',
    ]  # fmt: skip
    messages = _Messages(about.codec, complaints)
    with _growing_file() as (text, lines), _started(command, text, about.folder) as process:
        stream = process.stdout
        assert stream is not None
        reader = _LineReader(lines)
        # A line about each picture is written before the picture itself.
        while stream.peek(1):  # type: ignore[attr-defined]
            while not messages.pictures:
                line = reader.next_line()
                if line is None:
                    raise InputError(f'{path}: ffmpeg gave a picture without a word about it.')
                messages.take(line)
            about_picture = messages.pictures.pop(0)
            size = about_picture.width * about_picture.height * 3
            data = stream.read(size)
            if len(data) != size:
                break
            complaints.pictures += 1
            pixels = np.frombuffer(data, dtype=np.uint8).reshape(about_picture.height, about_picture.width, 3)
            yield about_picture.time + entry, pixels
        process.wait()
        while (line := reader.next_line()) is not None:
            messages.take(line)
        if process.returncode and not complaints.first:
            complaints.first = messages.last or f'it ended with status {process.returncode}'


def _judge(path: str, about: VideoDescription, complaints: Complaints, keep_damaged: bool) -> None:
    """Stop at damage, once everything is decoded."""
    if complaints.pictures == 0:
        raise InputError(f'{path}: no frame of this video can be decoded: {complaints.first or "invalid data"}.')
    if keep_damaged or not complaints.lines:
        return
    advice = f'repair it, take what can be decoded ({option("damaged", "keep")}), or leave it out ({option("damaged", "skip")})'
    packets = len(about.timing.times)
    if complaints.concealed:
        total = max(packets, complaints.pictures)
        spoiled = min(complaints.concealed + total - complaints.pictures, total)
        raise InputError(
            f'{path} is damaged: {spoiled} of {total} pictures ({100 * spoiled / total:.1f} %) are missing or filled up by the '
            f'decoder, which complains {complaints.lines} times, first {complaints.first!r}; {advice}.'
        )
    # Headers round their duration, and the sound may be longer than the picture.
    end = (float(about.timing.times[-1]) if packets else 0.0) + 1 / about.fps
    is_short = about.seconds is not None and end < about.seconds - max(2 / about.fps, END_TOLERANCE * about.seconds)
    if packets > complaints.pictures or is_short or about.seconds is None:
        raise InputError(
            f'{path} is damaged or cut off: after {complaints.pictures} frames ffmpeg says {complaints.first!r}; {advice}.'
        )


# ----------------------------------------------------------------------------------------------------------------------
# What ffmpeg says


@dataclasses.dataclass(frozen=True)
class _AboutPicture:
    time: float
    width: int
    height: int


class _Messages:
    """Understands ffmpeg's lines (`-loglevel level+info`): pictures as `showinfo` tells them, errors, concealed pictures."""

    def __init__(self, codec: str, complaints: Complaints | None = None) -> None:
        self.complaints = Complaints() if complaints is None else complaints
        self._codec = codec
        self.pictures: list[_AboutPicture] = []
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
                self.pictures.append(_AboutPicture(time, int(picture[2]), int(picture[3])))
                self.complaints.interlaced += picture[4] in 'TB'
        elif 'corrupt decoded frame' in line:
            self._marked += 1
            self.complaints.concealed = max(self._marked, len(self._spoiled))
        elif '[error]' in line or '[fatal]' in line:
            self.last = _without_levels(line)
            by_decoder = line.startswith((f'[{self._codec} @', '[lib'))
            if by_decoder and not self._seen:  # before the first picture: the video was cut there without being encoded again
                return
            self.complaints.lines += 1
            self.complaints.first = self.complaints.first or self.last
            if by_decoder and not re.search(HARMLESS, self.last):
                self._spoiled.add(self._seen)
                self.complaints.concealed = max(self._marked, len(self._spoiled))


class _LineReader:
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


def _without_levels(text: str) -> str:
    return re.sub(r'^(?:\[[^\]\n]* @ 0x[0-9a-f]+\] )*\[(?:info|warning|error|fatal|verbose)\] ?', '', text, flags=re.MULTILINE)


def _number(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    return float(found[1]) * (1000 if found[2] else 1) if found else 0.0


def _reason(text: str, path: str) -> str:
    """Return the first thing that ffmpeg complains about, without its decorations."""
    for line in text.splitlines():
        line = re.sub(r'^\[[^\]]*\]\s*', '', line.strip())
        if line and not line.startswith(('Error opening input', 'At least one output', 'Input #', 'Stream mapping')):
            return line.replace('file:' + path, 'the file').rstrip('.')
    return 'invalid data' if 'Invalid data' in text or not text else text.splitlines()[-1].rstrip('.')


# ----------------------------------------------------------------------------------------------------------------------
# The program


def _ffmpeg() -> str:
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise InputError('No ffmpeg program was found; pip install "imageio[ffmpeg]" brings one.') from error


def _input_options(path: str) -> list[str]:
    # A path stays a path, whatever it looks like (concat:..., http://...), and a playlist opens local files only.
    return ['-protocol_whitelist', 'file,crypto,data', '-i', 'file:' + path]


@contextlib.contextmanager
def _growing_file() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
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
def _started(command: list[str], messages: IO[bytes], folder: str | None) -> Iterator[subprocess.Popen[bytes]]:
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
