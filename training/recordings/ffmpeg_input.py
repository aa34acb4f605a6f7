"""Decoding of one video file by ffmpeg.

ffmpeg gives every picture as it is in the file, with its time stamp and its size, into a pipe; the frames of a constant rate
are chosen here (`training.recordings.video_timing`). So nothing is lost where size, range or format change within a stream, and
pauses are not filled. A picture is read when it is asked for, so memory does not grow with the video.
"""

import contextlib
import os
from collections.abc import Generator, Iterator

import numpy as np

from networks.errors import InputError, option
from training.recordings.ffmpeg_process import (
    Complaints,
    LineReader,
    Messages,
    ffmpeg_program,
    growing_file,
    input_options,
    started,
)
from training.recordings.video_description import END_TOLERANCE, VideoDescription, describe_video
from training.recordings.video_timing import exact_rate, resample

SEEK_MARGIN = 6  # seconds decoded before the frame that is wanted: more than the longest interval that is no pause


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
        ffmpeg_program(), '-nostdin', '-hide_banner', '-nostats', '-loglevel', 'level+info',
        *(['-ss', str(entry)] if entry else []), *about.decoder, *input_options(os.path.abspath(path)),
        '-map', f'0:{about.stream}', '-an', '-fps_mode', 'passthrough', '-noautoscale', '-vf', about.filters,
        '-c:v', 'rawvideo', '-pix_fmt', 'rgb24', '-f', 'rawvideo', 'pipe:1',
    ]  # fmt: skip
    messages = Messages(about.codec, complaints)
    with growing_file() as (text, lines), started(command, text, about.folder) as process:
        stream = process.stdout
        assert stream is not None
        reader = LineReader(lines)
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
