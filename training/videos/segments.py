"""Long videos in segments, so that one that was killed goes on where it was.

While a video is made, `NAME.partial/` beside it holds the segments that are finished and `progress.json`: the settings, how many
frames there are, and which file has the state of the code sources behind the last of them. A segment is as long as x264 lets
pictures lean on each other anyway, so joining them (without encoding again) makes a video that is hardly larger, the same
whether it was interrupted or not. GIF and WebP cannot be joined: their segments keep every bit of the pixels, and are encoded
when all are there. Where a segment takes minutes, its frames are kept one by one as well.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import PIL.Image
import torch

from networks.checkpoints.durable_files import replacing, sync_folder
from networks.errors import DAMAGED_FILE, InputError
from training.commands.progress import progress
from training.commands.work import Work
from training.videos.output import CONTAINERS, SOUND, VideoWriter

SEGMENT_FRAMES = 250
SLOW_SECONDS = 60.0  # a segment that takes longer has its frames kept
PROGRESS_FILE = 'progress.json'
# Codec of a video -> file of a segment, and the codec in it. Unlike WebM and Matroska, which count milliseconds, these tell the
# length of a segment exactly, so that nothing adds up over the hours.
SEGMENTS = {'h264': ('.mp4', 'h264'), 'vp9': ('.mp4', 'vp9'), 'prores': ('.mov', 'prores')}
LOSSLESS = ('.mkv', 'ffv1')


def segment_length(batch: int) -> int:
    """Frames in a segment: whole batches, because a batch is rendered at once, and another cut would round differently."""
    return math.ceil(SEGMENT_FRAMES / batch) * batch


class SegmentedVideo:
    """A video that is written segment by segment; used like a FrameWriter, but for `state`.

    Args:
        path: The video, with an ending that VideoWriter knows.
        settings: What decides its content (JSON values); a partial video of other settings is begun anew.
        length: Frames in a segment.
        num_frames: Frames of the whole video; 0: as many as come, then `end_segment` is called behind the last one.
        device: Where the tensors of `state` go.
        audio: File whose sound goes along; it is added when the segments are joined.
        audio_part: Where in that file the sound begins, seconds, and how long it is (None: to its end); silence follows.
        batch: Frames of a slow segment are kept one by one, and whole batches of so many stay for the next run; 0: they are not.
        unsaid: What settings of an earlier version mean that do not hold one, see training.commands.work.
        codec: See VideoWriter.
        video_options: Of VideoWriter: fps, crf, comment, ...

    Attributes:
        num_frames_done: Frames of finished segments.
        num_frames_kept: Frames behind them that an interrupted run has left, and that are in the next segment already.
        state: What was handed to `end_segment` after the last of them; None where there is none.
    """

    def __init__(
        self,
        path: str,
        *,
        settings: dict[str, Any],
        length: int,
        num_frames: int,
        device: torch.device | str = 'cpu',
        audio: str | None = None,
        audio_part: tuple[float, float | None] = (0.0, None),
        batch: int = 0,
        unsaid: Mapping[str, Any] | None = None,
        codec: str | None = None,
        **video_options: Any,
    ) -> None:
        self.path, self._folder = path, f'{path}.partial'
        VideoWriter(path, audio=audio, codec=codec, **video_options)  # what is wrong with these is said before the first frame
        self._ending = os.path.splitext(path)[1].lower()
        self._codec = codec or CONTAINERS[self._ending][1]
        self._segment_ending, self._segment_codec = SEGMENTS.get(self._codec, LOSSLESS)
        self._length, self._num_frames, self._options = length, num_frames, video_options
        self._audio, self._audio_part = audio, audio_part
        self._work = Work(settings, unsaid or {}, (length, num_frames))
        self._device = device
        self.state: Any
        left = self._read_progress()
        self.num_frames_done, self.state, self._state_file = left or (0, None, '')
        if left is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.makedirs(self._folder)
            self._write_progress()
        self._in_segment = 0
        self._writer: VideoWriter | None = None
        self._batch, self._is_slow, self._begun = batch, bool(batch), time.monotonic()
        self.num_frames_kept = self._take_kept_frames() if batch else 0

    def _read_progress(self) -> tuple[int, Any, str] | None:
        """Frames, state and its file that an interrupted run of the same settings has left; None: it left none, or damage."""
        try:
            with open(os.path.join(self._folder, PROGRESS_FILE), encoding='utf-8') as file:
                progress = json.load(file)
            if not self._work.left(progress['key']):
                return None
            done, name = progress['num_frames'], os.path.basename(progress['state'])
            if not isinstance(done, int) or not 0 <= done <= (self._num_frames or done):
                return None
            sizes = self._sizes(done)
            if (self._num_frames and done % self._length and done != self._num_frames) or progress.get('sizes', sizes) != sizes:
                return None
            if done == 0:
                return 0, None, ''
            return done, torch.load(os.path.join(self._folder, name), map_location=self._device, weights_only=True), name
        except (OSError, *DAMAGED_FILE):
            return None

    def _write_progress(self) -> None:
        with replacing(os.path.join(self._folder, PROGRESS_FILE)) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            done = self.num_frames_done
            json.dump({'key': self._work.note(), 'num_frames': done, 'state': self._state_file, 'sizes': self._sizes(done)}, file)

    def _sizes(self, done: int) -> list[int]:
        """Bytes of the finished segments, so that one that a disk has lost or cut off is not joined.

        Raises:
            OSError: One is not there.
        """
        return [os.path.getsize(self._segment(start)) for start in range(0, done, self._length)]

    def _segment(self, start: int) -> str:
        return os.path.join(self._folder, f'segment-{start:09d}{self._segment_ending}')

    def _kept_frame(self, index: int) -> str:
        return os.path.join(self._folder, f'frames-{self.num_frames_done:09d}', f'{index:06d}.png')

    def _take_kept_frames(self) -> int:
        """Write what is left of an unfinished segment into it again; returns how many frames these are."""
        frames: list[np.ndarray] = []
        taken = 0
        while os.path.isfile(self._kept_frame(taken + len(frames) + 1)):  # the last one may be cut off
            try:
                with PIL.Image.open(self._kept_frame(taken + len(frames))) as picture:
                    frames.append(np.asarray(picture.convert('RGB')))
            except (OSError, ValueError, SyntaxError):
                break
            if len(frames) == self._batch:
                for frame in frames:
                    self._add(frame)
                taken, frames = taken + len(frames), []
        return taken

    def write(self, frame: np.ndarray) -> None:
        """Add one frame, see VideoWriter.write."""
        if self._is_slow:
            self._keep(frame)
        self._add(frame)

    def _add(self, frame: np.ndarray) -> None:
        if self._writer is None:
            self._writer = VideoWriter(self._segment(self.num_frames_done), codec=self._segment_codec, **self._options)
        self._writer.write(frame)
        self._in_segment += 1

    def _keep(self, frame: np.ndarray) -> None:
        """Keep a frame, until it shows how long a segment takes, and then of slow ones only."""
        if self._in_segment == self.num_frames_kept:
            self._begun = time.monotonic()
        elif self._in_segment == self.num_frames_kept + self._batch and not self.num_frames_kept:
            self._is_slow = (time.monotonic() - self._begun) / self._batch * self._length > SLOW_SECONDS
        path = self._kept_frame(self._in_segment)
        try:
            if self._is_slow:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                PIL.Image.fromarray(frame).save(path, compress_level=1)
        except OSError:  # a full disk; the video itself will say so
            self._is_slow = False
        if not self._is_slow:
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)

    @property
    def segment_is_full(self) -> bool:
        """Whether `end_segment` is due."""
        return self._in_segment == self._length or self.num_frames_done + self._in_segment == self._num_frames

    def end_segment(self, state: Any) -> None:
        """Finish the segment; with `state` (tensors and plain values) the rest can be made later.

        Raises:
            OSError: The disk is full, ...
        """
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        kept = os.path.dirname(self._kept_frame(0))
        self.num_frames_done += self._in_segment
        self._in_segment = self.num_frames_kept = 0
        name = f'state-{self.num_frames_done:09d}.pt'
        with replacing(os.path.join(self._folder, name)) as temporary:
            torch.save(state, temporary)
        before, self._state_file = self._state_file, name
        self._write_progress()
        if before:
            os.unlink(os.path.join(self._folder, before))
        shutil.rmtree(kept, ignore_errors=True)

    def close(self) -> None:
        """Join the segments and put the video in its place.

        Raises:
            InputError: No frame was made.
            OSError: The disk is full, or ffmpeg failed.
        """
        if self.num_frames_done == 0:
            raise InputError(f'no frame was made for {self.path!r}, so there is no video')
        segments = [self._segment(start) for start in range(0, self.num_frames_done, self._length)]
        if self._segment_codec != self._codec:
            self._encode(segments)
        elif len(segments) == 1 and self._audio is None and self._segment_ending == self._ending:
            os.replace(segments[0], self.path)
            sync_folder(os.path.dirname(os.path.abspath(self.path)))
        else:
            self._join(segments)
        shutil.rmtree(self._folder)

    def _encode(self, segments: list[str]) -> None:
        """Make the video of segments that cannot be joined."""
        with VideoWriter(self.path, codec=self._codec, **self._options) as video:
            with progress(total=self.num_frames_done, description=f'Encoding {os.path.basename(self.path)}') as bar:
                for path in segments:
                    for frame in _decoded(path):
                        video.write(frame)
                        bar.update(1)
            if video.num_frames != self.num_frames_done:
                raise OSError(f'{self._folder!r} is damaged; remove it and give the same command again')

    def _join(self, segments: list[str]) -> None:
        import imageio_ffmpeg  # here, because it looks for its binary

        container = CONTAINERS[self._ending][0]
        comment = self._options.get('comment')
        with tempfile.NamedTemporaryFile('w', suffix='.txt', dir=self._folder, encoding='utf-8') as listing:
            listing.writelines(f"file '{os.path.basename(path)}'\n" for path in segments)
            listing.flush()
            arguments = ['-f', 'concat', '-safe', '0', '-i', listing.name]
            if self._audio is not None:  # silence without end behind the sound, and all ends with the pictures
                seconds = self.num_frames_done / float(self._options['fps'])
                start, length = self._audio_part
                arguments += ['-ss', f'{start:.6f}'] if start > 0 else []
                arguments += ['-t', f'{length:.6f}'] if length is not None else []
                arguments += ['-i', self._audio, '-map', '0:v', '-map', '1:a', '-af', 'apad', '-t', f'{seconds:.6f}']
                arguments += SOUND[container]
            arguments += ['-c:v', 'copy']
            arguments += ['-movflags', '+faststart'] if container in ('mp4', 'mov') else []
            arguments += ['-metadata', f'comment={comment}'] if comment else []
            with replacing(self.path) as temporary:
                program = [imageio_ffmpeg.get_ffmpeg_exe(), '-hide_banner', '-loglevel', 'error', '-nostdin', '-y']
                result = subprocess.run(
                    [*program, *arguments, '-f', container, temporary],
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    check=False,
                )
                if result.returncode != 0:
                    words = ' '.join(result.stderr.decode(errors='replace').split())
                    raise OSError(
                        f'ffmpeg could not join the segments of {self.path!r}: {words[-400:] or "it ended early"}; remove '
                        f'{self._folder!r} and give the same command again'
                    )

    def __enter__(self) -> SegmentedVideo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Join the segments; after an error, only what is finished stays, for the next run."""
        if kind is None:
            self.close()
            return
        if self._writer is not None:
            self._writer.abort()
        if self.num_frames_done == 0 and not os.path.exists(self._kept_frame(self._batch)):
            shutil.rmtree(self._folder, ignore_errors=True)


def _decoded(path: str) -> Iterator[np.ndarray]:
    """Frames uint8 [H, W, 3] of a segment, bit for bit."""
    import imageio_ffmpeg  # here, because it looks for its binary

    frames = imageio_ffmpeg.read_frames(path, pix_fmt='rgb24')
    width, height = next(frames)['size']
    for data in frames:
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
