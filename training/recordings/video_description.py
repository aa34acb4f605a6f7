"""What a video file holds: stream, times of the pictures, and the filters that make them sRGB, upright and progressive."""

import dataclasses
import functools
import os
import re
import subprocess
from collections.abc import Sequence

import numpy as np

from networks.errors import InputError
from training.recordings import colour_lookup
from training.recordings.ffmpeg_process import Messages, ffmpeg_program, first_complaint, input_options, without_levels
from training.recordings.video_timing import Timing, measure_timing

PROBED_PICTURES = 8
NO_TIME = -(1 << 62)  # ffmpeg writes less where there is no time stamp
MOSTLY_TOLD = 0.95  # part of the packets with time stamps, from which on these are trusted
HD_WIDTH, HD_HEIGHT = 1280, 720  # from here on video without colour tags is BT.709, as players take it
END_TOLERANCE = 0.01  # part of the duration that may be missing at the end: headers round


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
    command = [ffmpeg_program(), '-nostdin', '-hide_banner', *input_options(path)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    return re.search(r'^\s*Stream #0:\d+\S*: Audio: ', done.stderr.decode('utf-8', 'replace'), re.MULTILINE) is not None


@functools.lru_cache(maxsize=4096)
def _describe(path: str, size: int, changed: int) -> VideoDescription:
    # Packets of all video streams (not decoded) on standard output, header and first pictures on standard error.
    command = [
        ffmpeg_program(), '-nostdin', '-hide_banner', '-nostats', '-loglevel', 'level+info', *input_options(path),
        '-map', '0:v', '-c', 'copy', '-copyinkf', '-f', 'framecrc', 'pipe:1',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False)
    header = without_levels(done.stderr.decode('utf-8', 'replace'))
    streams = _video_streams(header)
    # The tty demuxer takes any .txt or .nfo file for animated letters.
    if re.search(r'^Input #0, tty,', header, re.MULTILINE) or (not streams and 'Input #0' not in header):
        raise InputError(f'{path} is not a video that ffmpeg can decode: {first_complaint(header, path)}.')
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
        ffmpeg_program(), '-nostdin', '-hide_banner', '-nostats', '-loglevel', 'level+info', *stream.decoder,
        *input_options(path), '-map', f'0:{stream.index}', '-frames:v', str(PROBED_PICTURES), '-fps_mode', 'passthrough',
        '-vf', 'showinfo=checksum=0', '-f', 'null', '-',
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    found, parser = _FirstPictures(), Messages(stream.codec)
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


def _number(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    return float(found[1]) * (1000 if found[2] else 1) if found else 0.0
