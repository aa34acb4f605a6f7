"""Frames of an endless video at their rate, in a thread of its own, for as long as somebody looks.

Everything that changes the video is a task that this thread carries out between two frames, so nothing is locked while a frame is
made. Each frame is rendered and compressed once, however many look. Nobody looking, or a pause, stops the thread: it waits, and
costs nothing.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import io
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import PIL.Image

from networks.checkpoints.durable_files import append_line
from networks.errors import InputError
from networks.image_generator import ImageGenerator
from training.commands.mistakes import describe_os_error
from training.control.saved_state import write_state
from training.live.motion import LiveMotion
from training.videos.output import VideoWriter, as_rgb
from training.videos.synthesis import render_codes

LOG_FILE = 'live.jsonl'
LONGEST_RECORDING = 3600.0  # seconds; a forgotten one ends by itself
STATUS_SECONDS = 0.5
RATE_SECONDS = 2.0  # over which frames per second are counted
LATE = 0.25  # seconds; who is later than that does not try to catch up


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame as viewers get it.

    Attributes:
        number: Counts frames since the server started.
        picture: A JPEG file.
    """

    number: int
    picture: bytes


@dataclasses.dataclass
class Listeners:
    """Who is told what; called in the thread of the stage, so they hand on and return at once."""

    frame: Callable[[Frame], None] = lambda frame: None
    status: Callable[[dict[str, Any]], None] = lambda status: None


@dataclasses.dataclass
class _Recording:
    name: str
    writer: VideoWriter
    first: dict[str, Any]
    changes: list[dict[str, Any]]


class Stage:
    """The running video.

    Args:
        motion: Where its codes come from.
        image_generator: Image generator.
        fps: Rate at which frames are shown and recorded.
        quality: Of JPEG, 1 to 95.
        noise_mode: Of the image generator, 'const' or 'none'.
        outdir: Folder of recordings and states; it exists.
        describe: All that belongs into a file's line in `live.jsonl` and into a state: called with the settings that hold; its
            'command' is what makes more video from a state.
    """

    def __init__(
        self,
        motion: LiveMotion,
        image_generator: ImageGenerator,
        *,
        fps: float,
        quality: int,
        noise_mode: str,
        outdir: str,
        describe: Callable[[dict[str, Any], str], dict[str, Any]],
    ) -> None:
        self.motion, self.fps, self.outdir = motion, fps, outdir
        self.listeners = Listeners()
        self.latest: Frame | None = None
        self.files: dict[str, str] = {}  # name that a viewer may ask for -> path
        self._image_generator, self._quality, self._noise_mode = image_generator, quality, noise_mode
        self._describe = describe
        self._condition = threading.Condition()
        self._tasks: collections.deque[tuple[Callable[[], Any], concurrent.futures.Future[Any]]] = collections.deque()
        self._looking = 0
        self._running = True
        self._closing = False
        self._changed = False  # a paused picture has to be made again
        self._times: collections.deque[float] = collections.deque(maxlen=max(8, int(RATE_SECONDS * fps * 2)))
        self._told = 0.0
        self._recording: _Recording | None = None
        self._subject = ''
        self._problem = ''
        self._number = 0

    # ----------------------------------------------------------------------------
    # Called from other threads.

    def look(self, count: int) -> None:
        """Say how many viewers look at the moment."""
        with self._condition:
            self._looking = count
            self._condition.notify()

    def submit(self, task: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """Carry out a method of this class between two frames; the future has its result, ValueError, InputError or OSError."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._condition:
            if self._closing:
                future.set_exception(InputError('the live view is closing'))
            else:
                self._tasks.append((task, future))
                self._condition.notify()
        return future

    def close(self) -> None:
        """End `run`; a recording is finished first."""
        with self._condition:
            self._closing = True
            self._condition.notify()

    # ----------------------------------------------------------------------------
    # Tasks.

    def play(self) -> None:
        """Go on after a pause."""
        self._running = True

    def pause(self) -> None:
        """Stand still, with what was under way at its end: a state that is saved now is exact."""
        self._changed = self._changed or self._running
        self._running = False

    def step(self) -> None:
        """Stand still, one frame further."""
        self._running = False
        self.motion.settle()
        self._show(self.motion.next(), new=True)

    def change(self, task: Callable[[], None], what: Mapping[str, Any]) -> None:
        """Carry out a change of the motion; `what` names it for the line of a recording."""
        task()
        self._changed = True
        if self._recording is not None:
            changes, now = self._recording.changes, {'frame': self._recording.writer.num_frames, **what}
            if changes and changes[-1].keys() == now.keys() and changes[-1]['frame'] == now['frame']:
                changes.pop()
            changes.append(now)

    def change_subject(self, name: str, task: Callable[[], None]) -> None:
        """Carry out a change of the subject, which is called `name` from now on."""
        self.change(task, {'subject': name})
        self._subject = name

    def record(self, on: bool) -> str | None:
        """Begin or end a recording; returns the name of one that ended, if it holds a frame."""
        self._problem = ''
        if on and self._recording is None:
            name = self._new_name('live', '.mp4')
            self._recording = _Recording(name, VideoWriter(os.path.join(self.outdir, name), fps=self.fps), self._settings(), [])
        elif not on and self._recording is not None:
            return self._end_recording()
        return None

    def save(self) -> dict[str, Any]:
        """Write the state of the video; returns its name and the command that goes on from it."""
        name = self._new_name('state', '.npz')
        about = self._write_state(name)
        self._log({'file': name, 'kind': 'state', **about})
        return {'name': name, 'command': about['command']}

    # ----------------------------------------------------------------------------
    # The thread.

    def run(self) -> None:
        """Work until `close`."""
        due = time.monotonic()
        try:
            while True:
                with self._condition:
                    if not (self._tasks or self._closing):
                        self._condition.wait(max(0.0, due - time.monotonic()) if self._running and self._looking else None)
                    if self._closing:
                        return
                    tasks = list(self._tasks)
                    self._tasks.clear()
                    looking = self._looking > 0
                for task, future in tasks:
                    self._carry_out(task, future)
                if tasks:
                    self._after_tasks()
                now = time.monotonic()
                if looking and ((self._running and now >= due) or self.latest is None):
                    self._show(self.motion.next(), new=True)
                    due = (now if now - due > LATE else due) + 1 / self.fps
        finally:
            with self._condition:
                self._closing = True
                for _, future in self._tasks:
                    future.set_exception(InputError('the live view is closing'))
                self._tasks.clear()
            if self._recording is not None:
                self._end_recording()

    @staticmethod
    def _carry_out(task: Callable[[], Any], future: concurrent.futures.Future[Any]) -> None:
        try:
            future.set_result(task())
        except (ValueError, OSError, InputError) as error:
            future.set_exception(error)

    def _after_tasks(self) -> None:
        if self._changed and not self._running:
            self.motion.settle()  # whoever stands still wants to see what it comes to
            if self._looking:
                first = self.latest is None  # a pause that came before the first frame: this is it, and the next step goes beyond
                self._show(self.motion.next() if first else self.motion.again(), new=first)
        self._changed = False
        self._tell()

    def _show(self, code: Any, *, new: bool) -> None:
        frame = as_rgb(next(render_codes(self._image_generator, code, batch=1, noise_mode=self._noise_mode)))
        if new:
            self._record(frame)
            self._times.append(time.monotonic())
        file = io.BytesIO()
        # Colours at full resolution: at the sizes of these pictures half of it would show at the lips.
        PIL.Image.fromarray(frame).save(file, format='JPEG', quality=self._quality, subsampling=0)
        self._number += 1
        self.latest = Frame(self._number, file.getvalue())
        self.listeners.frame(self.latest)
        if time.monotonic() - self._told > STATUS_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        self.listeners.status(self.status())

    def status(self) -> dict[str, Any]:
        """What the page shows beside the picture, plain values."""
        recording = self._recording
        return {
            **self._settings(),
            'frame': self.motion.frame,
            'running': self._running,
            'fps': round(self.rate(), 1),
            'recording': None if recording is None else round(recording.writer.num_frames / self.fps, 1),
            'files': sorted(self.files),
            'problem': self._problem,
        }

    def rate(self) -> float:
        """Frames per second of the last moments; 0 while nothing moves."""
        now = time.monotonic()
        times = [moment for moment in list(self._times) if moment > now - RATE_SECONDS]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 2 and times[-1] > times[0] else 0.0

    def _settings(self) -> dict[str, Any]:
        return {'seed': self.motion.seed, 'subject': self._subject, **self.motion.wanted()}

    # ----------------------------------------------------------------------------
    # Files.

    def _new_name(self, kind: str, ending: str) -> str:
        there = set(os.listdir(self.outdir))
        number = 1
        while {f'{kind}-{number:04d}{ending}', f'{kind}-{number:04d}.npz'} & there:
            number += 1
        return f'{kind}-{number:04d}{ending}'

    def _write_state(self, name: str) -> dict[str, Any]:
        about = self._describe(self._settings(), name)
        state, codes = self.motion.saved(about)
        path = os.path.join(self.outdir, name)
        write_state(path, state, codes, self.fps)
        self.files[name] = path
        return {'seed': state.seed, 'frame': state.frame, **about}

    def _log(self, line: dict[str, Any]) -> None:
        append_line(os.path.join(self.outdir, LOG_FILE), json.dumps(line))

    def _record(self, frame: np.ndarray) -> None:
        if self._recording is None:
            return
        try:
            self._recording.writer.write(frame)
            if self._recording.writer.num_frames >= LONGEST_RECORDING * self.fps:
                self._end_recording()
        except OSError as error:  # a full disk ends the recording, not the view
            if self._recording is not None:
                self._recording.writer.abort()
                self._recording = None
            self._problem = f'the recording ended: {describe_os_error(error)}'

    def _end_recording(self) -> str | None:
        assert self._recording is not None
        recording, self._recording = self._recording, None
        if recording.writer.num_frames == 0:
            recording.writer.abort()
            return None
        with recording.writer:  # an error leaves no file
            pass
        self.files[recording.name] = os.path.join(self.outdir, recording.name)
        about = self._write_state(f'{os.path.splitext(recording.name)[0]}.npz')
        self._log(
            {
                'file': recording.name, 'kind': 'recording', 'frames': recording.writer.num_frames, 'fps': self.fps,
                'began_with': recording.first, 'changes': recording.changes, **about,
            }
        )  # fmt: skip
        return recording.name
