"""Decoding of one video file by the ffmpeg program that imageio-ffmpeg brings.

ffmpeg writes each frame as a PPM image into a pipe: every frame carries its own size, so rotation metadata, odd sizes
and non-square pixels need no second guess here. A frame is read when it is asked for, so memory does not grow with the
video.
"""

import contextlib
import dataclasses
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

#----------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class VideoDescription:
    """What the header of a video tells."""

    fps: float                  # frames per second; the average where it varies
    expected_frames: int | None  # duration times fps, None where the header does not tell a duration

def describe_video(path: str) -> VideoDescription:
    """Reads the header of a video file.

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
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
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
    path: str, *, fps: float, expected_frames: int | None = None, keep_damaged: bool = False,
) -> Iterator[np.ndarray]:
    """Decodes a video at a constant rate.

    Args:
        path: The file.
        fps: Frames per second to return; frames are repeated or left out where the video has another rate.
        expected_frames: How many frames there should be. ffmpeg also complains about blemishes that it decodes well,
            for example of streams that were cut without being encoded again; nothing is missing then.
        keep_damaged: Where the video cannot be decoded any further, stop there without an error.

    Yields:
        Frames, uint8 ``[H, W, 3]`` RGB, upright and with square pixels.

    Raises:
        InputError: Nothing can be decoded, or (not with ``keep_damaged``) ffmpeg reports damage and frames are missing.
    """
    rate = exact_rate(fps)
    command = [
        _ffmpeg(), '-nostdin', '-hide_banner', '-loglevel', 'error', *_input_options(path), '-map', '0:V:0', '-an',
        '-vf', f'fps={rate.numerator}/{rate.denominator},'
               'scale=round(iw*sar):ih:flags=bicubic+accurate_rnd+full_chroma_int',
        '-pix_fmt', 'rgb24', '-c:v', 'ppm', '-f', 'image2pipe', 'pipe:1',
    ]
    count = 0
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
    # The duration in a header is rounded, and the last frame may be a little longer or shorter than the others.
    complete = status == 0 and expected_frames is not None and count >= min(expected_frames - 2, expected_frames * 0.99)
    if (status != 0 or text) and not complete and not keep_damaged:
        raise InputError(
            f'{path} is damaged or cut off: after {count} frames ffmpeg says {_reason(text, path)!r}; '
            'repair or cut it, or keep the frames that can be decoded (--damaged=keep).'
        )

def exact_rate(fps: float) -> Fraction:
    """Returns a rate as a fraction; the rounded numbers of television (23.98, 29.97, 59.94) become n * 1000/1001."""
    television = Fraction(round(fps * 1001 / 1000)) * Fraction(1000, 1001)
    if abs(fps - round(fps)) > 1e-3 and abs(fps - television) < 6e-3:
        return television
    return Fraction(fps).limit_denominator(1001)

#----------------------------------------------------------------------------

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
    """Runs a program whose output is read bit by bit; ends it when the reader stops earlier."""
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
    """Reads one binary PPM image, uint8 ``[H, W, 3]``; None where the stream ends."""
    if stream.readline() != b'P6\n':
        return None
    width, height = (int(number) for number in stream.readline().split())
    stream.readline()  # the largest value, always 255 for rgb24
    data = stream.read(width * height * 3)
    if len(data) != width * height * 3:
        return None
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)

def _reason(text: str, path: str) -> str:
    """Returns the first thing that ffmpeg complains about, without its decorations."""
    for line in text.splitlines():
        line = re.sub(r'^\[[^\]]*\]\s*', '', line.strip())
        if line and not line.startswith(('Error opening input', 'At least one output')):
            return line.replace('file:' + path, 'the file').rstrip('.')
    return 'invalid data' if 'Invalid data' in text or not text else text.splitlines()[-1].rstrip('.')

#----------------------------------------------------------------------------
