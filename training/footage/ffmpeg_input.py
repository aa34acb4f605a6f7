"""Decoding of one video file by the ffmpeg program that imageio-ffmpeg brings.

ffmpeg writes each frame as a PPM image into a pipe: every frame carries its own size, so rotation metadata, odd sizes
and non-square pixels need no second guess here. A frame is read when it is asked for, so memory does not grow with the
video.
"""

import contextlib
import dataclasses
import functools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from typing import IO

import imageio_ffmpeg
import numpy as np

from networks.errors import InputError

SEEK_MARGIN = 2.0  # seconds decoded before the frame that is wanted


@dataclasses.dataclass(frozen=True)
class VideoDescription:
    """What the header of a video tells."""

    fps: float  # frames per second; the average where it varies
    expected_frames: int | None  # duration times fps, None where the header does not tell a duration


def describe_video(path: str) -> VideoDescription:
    """Read the header of a video file.

    Raises:
        InputError: ffmpeg does not know the format, or the file holds no moving picture.
    """
    if not os.path.isfile(path):
        raise InputError(f'{path}: there is no such file.')
    if os.path.getsize(path) == 0:
        raise InputError(f'{path} is empty (0 bytes).')
    # Without an output ffmpeg only describes the input, and leaves with an error; what it says is on standard error.
    done = subprocess.run(
        [_ffmpeg(), '-nostdin', '-hide_banner', *_input_options(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    text = done.stderr.decode('utf-8', 'replace')
    # The tty demuxer takes any .txt or .nfo file for animated letters.
    stream = re.search(r'^\s*Stream #\S+.*?: Video: (\w+)(.*)$', text, re.MULTILINE)
    if re.search(r'^Input #0, tty,', text, re.MULTILINE) or (stream is None and 'Input #0' not in text):
        raise InputError(f'{path} is not a video that ffmpeg can decode: {_reason(text, path)}.')
    if stream is None:
        raise InputError(f'{path} holds no video stream (perhaps it is sound only).')
    rate = re.search(r'([\d.]+)(k?) fps', stream[2]) or re.search(r'([\d.]+)(k?) tbr', stream[2])
    fps = float(rate[1]) * (1000 if rate[2] else 1) if rate else 0.0
    if not 0 < fps <= 1000:
        fps = 25.0  # a stream without timing, such as raw H.264 in some containers: ffmpeg's own default
    fps = float(exact_rate(fps))
    duration = re.search(r'Duration: (\d+):(\d+):([\d.]+)', text)
    seconds = int(duration[1]) * 3600 + int(duration[2]) * 60 + float(duration[3]) if duration else 0.0
    return VideoDescription(fps, max(round(seconds * fps), 1) if seconds > 0 else None)


def decode_video(
    path: str, *, fps: float, first_frame: int = 0, expected_frames: int | None = None, keep_damaged: bool = False
) -> Iterator[np.ndarray]:
    """Decode a video at a constant rate.

    Args:
        path: The file.
        fps: Frames per second to return; frames are repeated or left out where the video has another rate.
        first_frame: Leave out as many frames; they are skipped, not decoded. Files whose index or time stamps are wrong may
            give other frames then than a reader from the beginning gets.
        expected_frames: How many frames the whole video should have. ffmpeg also complains about blemishes that it decodes well,
            for example of streams that were cut without being encoded again; nothing is missing then.
        keep_damaged: Where the video cannot be decoded any further, stop there without an error.

    Yields:
        Frames, uint8 `[H, W, 3]` RGB, upright and with square pixels.

    Raises:
        InputError: Nothing can be decoded, or (not with `keep_damaged`) ffmpeg reports damage and frames are missing.
    """
    rate = exact_rate(fps)
    if first_frame:
        # Where a file cannot be entered in the middle (raw streams), all of it is decoded up to the frame.
        time = float((first_frame + _first_on_grid(path, rate)) / rate)
        entries = [max(time - SEEK_MARGIN, 0), 0.0] if time > SEEK_MARGIN else [0.0]
    else:
        entries = [0.0]
    for entry in entries:
        number = first_frame
        for frame in _decode_from(path, rate, entry, first_frame, expected_frames, keep_damaged):
            number += 1
            yield frame
        if number > first_frame:
            return


def _decode_from(
    path: str, rate: Fraction, entry: float, first_frame: int, expected_frames: int | None, keep_damaged: bool
) -> Iterator[np.ndarray]:
    """Decode the frames from `first_frame` on, entering the file `entry` seconds after its beginning."""
    # The fps filter counts its grid from time 0 of the file wherever reading begins, and so gives the frames of a reader
    # from the beginning. The last filter makes time stamps regular, or ffmpeg would fill gaps at the beginning.
    grid, seek = f'fps={rate.numerator}/{rate.denominator}', list[str]()
    if entry:
        seek = ['-ss', f'{entry:.6f}', '-copyts', '-start_at_zero']
        grid += f':start_time=0,trim=start_pts={first_frame + _first_on_grid(path, rate)}'
    elif first_frame:
        grid += f',trim=start_frame={first_frame}'
    command = [
        _ffmpeg(),
        '-nostdin',
        '-hide_banner',
        '-loglevel',
        'error',
        *seek,
        *_input_options(path),
        '-map',
        '0:V:0',
        '-an',
        '-vf',
        f'{grid},setpts=N,scale=round(iw*sar):ih:flags=bicubic+accurate_rnd+full_chroma_int',
        '-pix_fmt',
        'rgb24',
        '-c:v',
        'ppm',
        '-f',
        'image2pipe',
        'pipe:1',
    ]
    count = first_frame
    with tempfile.TemporaryFile() as messages, _started(command, messages) as process:
        assert process.stdout is not None
        while (frame := _read_ppm(process.stdout)) is not None:
            count += 1
            yield frame
        status = process.wait()
        messages.seek(0)
        text = messages.read().decode('utf-8', 'replace').strip()
    if count == 0:
        raise InputError(f'{path}: no frame of this video can be decoded: {_reason(text, path)}.')
    if count == first_frame:
        return
    # The duration in a header is rounded, and the last frame may be a little longer or shorter than the others.
    complete = status == 0 and expected_frames is not None and count >= min(expected_frames - 2, expected_frames * 0.99)
    if (status != 0 or text) and not complete and not keep_damaged:
        raise InputError(
            f'{path} is damaged or cut off: after {count} frames ffmpeg says {_reason(text, path)!r}; '
            'repair or cut it, or keep the frames that can be decoded (--damaged=keep).'
        )


def exact_rate(fps: float) -> Fraction:
    """A rate as a fraction; the rounded numbers of television (23.98, 29.97, 59.94) become n * 1000/1001."""
    television = Fraction(round(fps * 1001 / 1000)) * Fraction(1000, 1001)
    if abs(fps - round(fps)) > 1e-3 and abs(fps - television) < 6e-3:
        return television
    return Fraction(fps).limit_denominator(1001)


@functools.lru_cache(maxsize=256)
def _first_on_grid(path: str, rate: Fraction) -> int:
    """The number of the first frame when frames are counted from the beginning of the file.

    A picture that begins after the sound has another number than 0; readers from the beginning start with it all the same.
    """
    done = subprocess.run(
        [
            _ffmpeg(),
            '-nostdin',
            '-hide_banner',
            '-copyts',
            '-start_at_zero',
            *_input_options(path),
            '-map',
            '0:V:0',
            '-frames:v',
            '1',
            '-vf',
            'showinfo',
            '-f',
            'null',
            '-',
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    time = re.search(r'\bpts_time:(-?[\d.]+)', done.stderr.decode('utf-8', 'replace'))
    return round(Fraction(time[1]) * rate) if time else 0


def _ffmpeg() -> str:
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise InputError('No ffmpeg program was found; pip install "imageio[ffmpeg]" brings one.') from error


def _input_options(path: str) -> list[str]:
    # A path stays a path, whatever it looks like (concat:..., http://...), and a playlist opens local files only.
    return ['-protocol_whitelist', 'file,crypto,data', '-i', 'file:' + path]


@contextlib.contextmanager
def _started(command: list[str], messages: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program whose output is read bit by bit; end it when the reader stops earlier."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, bufsize=1 << 20)
    try:
        yield process
    finally:
        if process.stdout is not None:
            process.stdout.close()
        if process.poll() is None:
            process.kill()
        process.wait()


def _read_ppm(stream: IO[bytes]) -> np.ndarray | None:
    """Read one binary PPM image, uint8 `[H, W, 3]`; None where the stream ends."""
    if stream.readline() != b'P6\n':
        return None
    width, height = (int(number) for number in stream.readline().split())
    stream.readline()  # the largest value, always 255 for rgb24
    data = stream.read(width * height * 3)
    if len(data) != width * height * 3:
        return None
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)


def _reason(text: str, path: str) -> str:
    """The first thing that ffmpeg complains about, without its decorations."""
    for line in text.splitlines():
        line = re.sub(r'^\[[^\]]*\]\s*', '', line.strip())
        if line and not line.startswith(('Error opening input', 'At least one output')):
            return line.replace('file:' + path, 'the file').rstrip('.')
    return 'invalid data' if 'Invalid data' in text or not text else text.splitlines()[-1].rstrip('.')
