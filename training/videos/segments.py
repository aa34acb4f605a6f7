"""Long videos in segments, so that one that was killed goes on where it was.

While a video is made, `NAME.partial/` beside it holds the segments that are finished and `progress.json`: the settings, how many
frames there are, and which file has the state of the code sources behind the last of them. A segment is as long as x264 lets
pictures lean on each other anyway, so joining them (without encoding again) makes a video that is hardly larger, the same
whether it was interrupted or not.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import shutil
import subprocess
import tempfile
from types import TracebackType
from typing import Any

import numpy as np
import torch

from networks.checkpoints.durable_files import replacing
from networks.errors import InputError
from training.videos.output import VideoWriter

SEGMENT_FRAMES = 250
PROGRESS_FILE = 'progress.json'


def segment_length(batch: int) -> int:
    """Frames in a segment: whole batches, because a batch is rendered at once, and another cut would round differently."""
    return math.ceil(SEGMENT_FRAMES / batch) * batch


class SegmentedVideo:
    """A video that is written segment by segment; used like a FrameWriter, but for `state`.

    Args:
        path: The video; ends in .mp4, .mov or .mkv.
        settings: What decides its content (JSON values); a partial video of other settings is begun anew.
        length: Frames in a segment.
        num_frames: Frames of the whole video; 0: as many as come, then `end_segment` is called behind the last one.
        device: Where the tensors of `state` go.
        audio: File whose sound goes along; it is added when the segments are joined.
        audio_part: Where in that file the sound begins, seconds, and how long it is (None: to its end); silence follows.
        video_options: Of VideoWriter: fps, crf, comment, ...

    Attributes:
        num_frames_done: Frames of finished segments.
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
        **video_options: Any,
    ) -> None:
        self.path, self._folder = path, f'{path}.partial'
        self._length, self._num_frames, self._options = length, num_frames, video_options
        self._audio, self._audio_part = audio, audio_part
        plain = json.dumps([settings, length, num_frames], sort_keys=True, default=str)
        self._key = hashlib.sha256(plain.encode()).hexdigest()
        self._device = device
        self.num_frames_done, self.state, state_file = self._read_progress()
        if self.num_frames_done == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.makedirs(self._folder)
        self._state_file: str | None = state_file
        self._in_segment = 0
        self._writer: VideoWriter | None = None

    def _read_progress(self) -> tuple[int, Any, str | None]:
        try:
            with open(os.path.join(self._folder, PROGRESS_FILE), encoding='utf-8') as file:
                progress = json.load(file)
            if progress['key'] != self._key:
                return 0, None, None
            done, name = int(progress['num_frames']), os.path.basename(progress['state'])
            if not all(os.path.isfile(self._segment(start)) for start in range(0, done, self._length)):
                return 0, None, None
            state = torch.load(os.path.join(self._folder, name), map_location=self._device, weights_only=True)
            return done, state, name
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, RecursionError, pickle.UnpicklingError):
            return 0, None, None  # nothing to go on from, or damaged: begun anew

    def _segment(self, start: int) -> str:
        ending = os.path.splitext(self.path)[1]
        return os.path.join(self._folder, f'segment-{start:09d}{ending}')

    def write(self, frame: np.ndarray) -> None:
        """Add one frame, see VideoWriter.write."""
        if self._writer is None:
            self._writer = VideoWriter(self._segment(self.num_frames_done), **self._options)
        self._writer.write(frame)
        self._in_segment += 1

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
        self.num_frames_done += self._in_segment
        self._in_segment = 0
        name = f'state-{self.num_frames_done:09d}.pt'
        with replacing(os.path.join(self._folder, name)) as temporary:
            torch.save(state, temporary)
        with replacing(os.path.join(self._folder, PROGRESS_FILE)) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            json.dump({'key': self._key, 'num_frames': self.num_frames_done, 'state': name}, file)
        if self._state_file is not None:
            os.unlink(os.path.join(self._folder, self._state_file))
        self._state_file = name

    def close(self) -> None:
        """Join the segments and put the video in its place.

        Raises:
            InputError: No frame was made.
            OSError: The disk is full, or ffmpeg failed.
        """
        if self.num_frames_done == 0:
            raise InputError(f'no frame was made for {self.path!r}, so there is no video')
        segments = [self._segment(start) for start in range(0, self.num_frames_done, self._length)]
        if len(segments) == 1 and self._audio is None:
            os.replace(segments[0], self.path)
        else:
            self._join(segments)
        shutil.rmtree(self._folder)

    def _join(self, segments: list[str]) -> None:
        import imageio_ffmpeg  # here, because it looks for its binary

        ending = os.path.splitext(self.path)[1].lower()
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
                arguments += ['-c:a', 'aac', '-b:a', '192k']
            arguments += ['-c:v', 'copy']
            arguments += ['-movflags', '+faststart'] if ending in ('.mp4', '.mov') else []
            arguments += ['-metadata', f'comment={comment}'] if comment else []
            with replacing(self.path) as temporary:
                container = {'.mp4': 'mp4', '.mov': 'mov', '.mkv': 'matroska'}[ending]
                program = [imageio_ffmpeg.get_ffmpeg_exe(), '-hide_banner', '-loglevel', 'error', '-nostdin', '-y']
                result = subprocess.run(
                    [*program, *arguments, '-f', container, temporary],
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    check=False,
                )
                if result.returncode != 0:
                    words = ' '.join(result.stderr.decode(errors='replace').split())
                    raise OSError(f'ffmpeg could not join the segments of {self.path!r}: {words[-400:] or "it ended early"}')

    def __enter__(self) -> SegmentedVideo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Join the segments; after an error, only what is finished stays, for the next run."""
        if kind is None:
            self.close()
            return
        if self._writer is not None:
            self._writer.abort()
        if self.num_frames_done == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
