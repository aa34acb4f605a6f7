"""Frames into files: videos, folders of PNG, grids. Every writer streams, and leaves a whole file or none."""

import contextlib
import errno
import fractions
import os
import shutil
import subprocess
import tempfile
from types import TracebackType

import numpy as np
import PIL.Image

from networks.checkpoints.durable_files import replacing, temporary_beside
from networks.errors import InputError, option
from training.commands.work import Work

# File name ending -> ffmpeg's name of the format, and the codec that goes into it unless another one is asked for.
CONTAINERS = {
    '.mp4': ('mp4', 'h264'),
    '.mov': ('mov', 'h264'),
    '.mkv': ('matroska', 'h264'),
    '.webm': ('webm', 'vp9'),
    '.gif': ('gif', 'gif'),
    '.webp': ('webp', 'webp'),
}
CODECS = ('h264', 'vp9', 'gif', 'webp', 'prores', 'ffv1')
# Codecs that go into other files than those that are called after them.
OTHER_CODECS = {('prores', '.mov'), ('vp9', '.mp4'), ('ffv1', '.mkv')}
SOUND = {
    'mp4': ['-c:a', 'aac', '-b:a', '192k'],
    'mov': ['-c:a', 'aac', '-b:a', '192k'],
    'matroska': ['-c:a', 'aac', '-b:a', '192k'],
    'webm': ['-c:a', 'libopus', '-b:a', '128k'],
}
BT709 = ['-colorspace', 'bt709', '-color_primaries', 'bt709', '-color_trc', 'bt709', '-color_range', 'tv']
GIF_CLOCK = 100  # a GIF counts time in hundredths of a second, and browsers play what is quicker than 50 frames a second slowly

# ----------------------------------------------------------------------------
# Frames


def as_rgb(frame: np.ndarray) -> np.ndarray:
    """A frame uint8 [H, W], [H, W, 1] or [H, W, 3] as a contiguous [H, W, 3]; grey is repeated.

    Raises:
        ValueError: another shape or type.
    """
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or 0 in frame.shape:
        raise ValueError(f'a frame is uint8 [H, W, 3], not {frame.dtype} {list(frame.shape)}')
    if frame.ndim == 2:
        frame = frame[:, :, np.newaxis]
    if frame.shape[2] == 1:
        frame = np.repeat(frame, 3, axis=2)
    if frame.shape[2] != 3:
        raise ValueError(f'a frame has 1 or 3 channels, not {frame.shape[2]}')
    return np.ascontiguousarray(frame)


def image_grid(frames: np.ndarray, columns: int) -> np.ndarray:
    """Lay frames [N, H, W, C] out in rows of `columns`, first row first; empty cells are black (0).

    Returns:
        [rows * H, columns * W, C] of the same type, rows = ceil(N / columns).

    Raises:
        ValueError: not four dimensions, or no column.
    """
    if frames.ndim != 4 or columns < 1:
        raise ValueError(f'need frames [N, H, W, C] and at least one column, not {list(frames.shape)} and {columns}')
    num_frames, height, width, channels = frames.shape
    rows = -(-num_frames // columns)
    cells = np.zeros((rows * columns, height, width, channels), dtype=frames.dtype)
    cells[:num_frames] = frames
    by_row = cells.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return by_row.reshape(rows * height, columns * width, channels)


# ----------------------------------------------------------------------------
# Writers


class FrameWriter:
    """What the writers share: `write` frames, then `close`; or `abort`, after which there is no trace.

    As a context manager it closes at the end of the block and aborts when the block is left by an error or Ctrl-C. The
    result stands at `path` only after `close`; what stood there before stays until then.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.num_frames = 0

    def write(self, frame: np.ndarray) -> None:
        """Add one frame uint8 [H, W, 3] RGB (or grey, [H, W] or [H, W, 1]); all frames have the same size."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish the result and put it in its place."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop what was written; does nothing after `close`."""
        raise NotImplementedError

    def __enter__(self) -> 'FrameWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            try:
                self.close()
            except BaseException:
                self.abort()
                raise
        else:
            self.abort()


class VideoWriter(FrameWriter):
    """Video as H.264 (4:2:0), VP9, ProRes 422 HQ, animated GIF or WebP, written while the frames come.

    The encoder is the ffmpeg that comes with imageio-ffmpeg. An mp4 or mov has its index at the front, so that browsers and
    phones play it from the first byte on. Where colours are stored with fewer samples than pixels (all but GIF), a side of odd
    length gets one more line of the same pixels. Colours are converted and marked as BT.709; FFV1 keeps RGB. GIF has
    a palette for each frame.

    Args:
        path: Ends in .mp4, .mov, .mkv, .webm, .gif or .webp; its folder exists.
        fps: Frames per second; at most 50 for GIF.
        crf: Constant rate factor as x264 counts, 0 (lossless) to 51 (worst); 17 looks like the source. VP9 and WebP get what
            looks alike, ProRes and GIF have no such setting.
        preset: x264's trade of time for size, 'ultrafast' to 'veryslow'.
        comment: Goes into the file's metadata.
        codec: One of `CODECS`; None: what belongs to the ending. 'prores' goes into .mov, 'vp9' into .mp4 as well, and 'ffv1',
            which keeps every bit of the pixels, into .mkv.
        audio: File whose sound goes along, cut or filled up with silence to the length of the video; not for GIF and WebP.

    Raises:
        InputError: unknown ending, a codec or sound that does not go into it, or (from `close`) no frame was written.
        OSError: the disk is full, there is no permission, or ffmpeg failed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float,
        crf: float = 17,
        preset: str = 'medium',
        comment: str = '',
        codec: str | None = None,
        audio: str | None = None,
    ) -> None:
        super().__init__(path)
        ending = os.path.splitext(self.path)[1].lower()
        if ending not in CONTAINERS:
            raise InputError(f'{self.path!r} ends in none of {", ".join(CONTAINERS)}, so its video format is not known')
        if not 0 < fps <= 1000:
            raise InputError(f'{fps} frames per second cannot be written, choose a rate above 0 and up to 1000')
        self.fps = fractions.Fraction(fps).limit_denominator(100_000)  # finds 30000/1001 behind 29.97002997
        self._format, usual = CONTAINERS[ending]
        self._codec = codec or usual
        if self._codec != usual and (self._codec, ending) not in OTHER_CODECS:
            raise InputError(f'{self.path!r}: {self._codec} does not go into {ending} files')
        if self._codec == 'gif' and fps > GIF_CLOCK / 2:
            raise InputError(
                f'a GIF shows at most {GIF_CLOCK // 2} frames per second, not {fps:g}; choose a smaller {option("fps")}'
            )
        if audio is not None and self._format not in SOUND:
            raise InputError(f'{self.path!r}: {ending} files have no sound; choose mp4, webm or prores')
        self._crf, self._preset = crf, preset
        self._comment = comment
        self._audio = audio
        self._shape: tuple[int, ...] | None = None
        self._encoder: _Encoder | None = None

    def write(self, frame: np.ndarray) -> None:
        frame = as_rgb(frame)
        height, width = frame.shape[:2]
        odd_height, odd_width = (0, 0) if self._codec in ('gif', 'ffv1') else (height % 2, width % 2)
        if self._encoder is None:
            self._shape = frame.shape
            arguments = self._arguments(height + odd_height, width + odd_width)
            self._encoder = _Encoder(self.path, arguments, sound_follows=self._audio is not None)
        elif frame.shape != self._shape:
            raise ValueError(f'frame {self.num_frames} is {frame.shape}, the ones before are {self._shape}')
        if odd_height or odd_width:
            frame = np.pad(frame, ((0, odd_height), (0, odd_width), (0, 0)), mode='edge')
        self._encoder.send(frame)
        self.num_frames += 1

    def _arguments(self, height: int, width: int) -> list[str]:
        """Arguments of ffmpeg between the program and the name of the result."""
        pictures = ['-f', 'rawvideo', '-pixel_format', 'rgb24', '-video_size', f'{width}x{height}', '-framerate', str(self.fps)]
        arguments = [*pictures, '-i', 'pipe:0', '-an', *self._encoding()]
        arguments += ['-movflags', '+faststart'] if self._format in ('mp4', 'mov') else []
        arguments += ['-metadata', f'comment={self._comment}'] if self._comment else []
        return [*arguments, '-f', self._format]

    def _encoding(self) -> list[str]:
        crf = self._crf
        to_bt709 = 'scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+bicubic'
        if self._codec == 'gif':
            # One palette for the whole video would need all frames in memory first.
            palettes = 'split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=sierra2_4a'
            return ['-filter_complex', palettes, '-loop', '0']
        if self._codec == 'webp':
            quality = min(max(100 - 2 * (crf - 7), 0), 100)  # crf 17 -> 80
            lossless = ['-lossless', '1'] if crf == 0 else ['-quality', f'{quality:g}']
            return ['-c:v', 'libwebp_anim', *lossless, '-loop', '0']
        if self._codec == 'ffv1':
            return ['-c:v', 'ffv1', '-pix_fmt', 'bgr0']
        if self._codec == 'vp9':
            rate = ['-lossless', '1'] if crf == 0 else ['-crf', f'{min(round(crf * 63 / 51), 63)}', '-b:v', '0']
            encoding = ['-c:v', 'libvpx-vp9', *rate, '-row-mt', '1', '-cpu-used', '2', '-pix_fmt', 'yuv420p']
        elif self._codec == 'prores':
            encoding = ['-c:v', 'prores_ks', '-profile:v', 'hq', '-vendor', 'apl0', '-pix_fmt', 'yuv422p10le']
        else:
            encoding = ['-c:v', 'libx264', '-crf', f'{crf:g}', '-preset', self._preset, '-pix_fmt', 'yuv420p']
        return [*encoding, '-vf', to_bt709, *BT709]

    def _add_sound(self) -> list[str]:
        """Arguments of a second ffmpeg: sound, with silence without end behind it, cut to the length of the pictures."""
        length = ['-t', f'{float(self.num_frames / self.fps):.6f}']
        sound = [
            '-i',
            str(self._audio),
            '-map',
            '0:v',
            '-map',
            '1:a',
            '-c:v',
            'copy',
            '-af',
            'apad',
            *SOUND[self._format],
            *length,
        ]
        index_first = ['-movflags', '+faststart'] if self._format in ('mp4', 'mov') else []
        return [*sound, *index_first, '-f', self._format]

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.finish(self._add_sound() if self._audio else None)
            self._encoder = None
        elif not self.num_frames:
            raise InputError(f'no frame was made for {self.path!r}, so there is no video')

    def abort(self) -> None:
        if self._encoder is not None:
            self._encoder.kill()
            self._encoder = None


class _Encoder:
    """One running ffmpeg that writes beside `path` and moves the result there at the end."""

    def __init__(self, path: str, arguments: list[str], sound_follows: bool) -> None:
        import imageio_ffmpeg  # here, because it looks for its binary

        self.path = path
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.program = [imageio_ffmpeg.get_ffmpeg_exe(), '-hide_banner', '-loglevel', 'error', '-y']
        with contextlib.ExitStack() as place:
            self.result = place.enter_context(replacing(path))
            self.pictures = place.enter_context(temporary_beside(path)) if sound_follows else self.result
            # In a session of its own, because Ctrl-C goes to the whole process group and would end it under our hands.
            self.process = subprocess.Popen(
                [*self.program, *arguments, self.pictures],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self.complaints,
                start_new_session=True,
            )
            self.place = place.pop_all()  # closing it puts the result in its place
        assert self.process.stdin is not None
        self.stdin = self.process.stdin

    def send(self, frame: np.ndarray) -> None:
        try:
            self.stdin.write(frame.data)
        except BrokenPipeError:
            self.process.wait()
            raise self._failure() from None

    def finish(self, then: list[str] | None = None) -> None:
        """End the video and put it in its place; `then` are the arguments of a second ffmpeg that reads it first."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        if self.process.wait() != 0:
            error = self._failure()
            self.kill()
            raise error
        if then is not None:
            self._pass_through(then)
        self.place.close()
        self.complaints.close()

    def _pass_through(self, arguments: list[str]) -> None:
        command = [*self.program, '-i', self.pictures, *arguments, self.result]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=self.complaints, check=False, start_new_session=True)
        if result.returncode:
            error = self._failure()
            self.kill()
            raise error

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self.stdin.close()
        self.complaints.close()
        given_up = InterruptedError(f'{self.path!r} was not finished')
        self.place.__exit__(InterruptedError, given_up, None)

    def _failure(self) -> OSError:
        """What ffmpeg said when it failed, as the error that it stands for."""
        self.complaints.seek(0)
        words = self.complaints.read().decode(errors='replace')
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            if os.strerror(number) in words:
                return OSError(number, os.strerror(number), self.path)
        return OSError(f'ffmpeg could not write {self.path!r}: {" ".join(words.split())[-400:] or "it ended early"}')


KEY_FILE = '.made-with'  # in a folder of frames that is not finished: digest of what decides them


class PngWriter(FrameWriter):
    """A folder of frame000000.png, frame000001.png, ...; lossless.

    The folder is called `<folder>.partial` while it grows: the first frame is there before the last is made.

    Args:
        path: The folder. One that exists is replaced at `close`, and must hold nothing but such frames.
        compress_level: zlib's, 0 (none) to 9; 1 takes a third of the time of 6 and some percent more space.
        work: What decides the frames. Those that an interrupted run of the same work has left stay, and
            `num_frames` says how many: the next one that is written follows them. None: it begins anew.
        batch: Only whole batches of so many frames stay.

    Raises:
        InputError: the folder holds other files, or (from `close`) no frame was written.
        OSError: the disk is full, or there is no permission.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, compress_level: int = 1, work: Work | None = None, batch: int = 1
    ) -> None:
        super().__init__(path)
        self._refuse_foreign(self.path)
        self._partial = f'{self.path}.partial'
        self._compress_level = compress_level
        self._shape: tuple[int, ...] | None = None
        self._work = work
        if work is not None:
            self.num_frames = self._left(work, batch)
        self._started, self._done = self.num_frames > 0, False

    def _left(self, work: Work, batch: int) -> int:
        """How many frames of an earlier run can stay; the others are removed."""
        try:
            with open(os.path.join(self._partial, KEY_FILE), encoding='utf-8') as file:
                if not work.left(file.read()):
                    return 0
        except (OSError, UnicodeDecodeError):
            return 0
        names = set(os.listdir(self._partial))
        count = 0
        while f'frame{count:06d}.png' in names:
            count += 1
        count = max(count - 1, 0) // batch * batch  # the last one may be cut off
        for name in names - {KEY_FILE, *(f'frame{index:06d}.png' for index in range(count))}:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._partial, name))
        return count

    @staticmethod
    def _refuse_foreign(folder: str) -> None:
        """Never delete what is not ours."""
        if not os.path.lexists(folder):
            return
        if not os.path.isdir(folder) or os.path.islink(folder):
            raise InputError(f'{folder!r} is not a folder, so frames cannot replace it; choose another place')
        for name in os.listdir(folder):
            if not (name.startswith('frame') and name.endswith('.png')) and name != KEY_FILE:
                raise InputError(f'{folder!r} holds {name!r} besides frames, so it is kept; choose another place')

    def write(self, frame: np.ndarray) -> None:
        frame = as_rgb(frame)
        if self._shape is None:
            self._shape = frame.shape
            if self.num_frames == 0:
                self._refuse_foreign(self._partial)
                shutil.rmtree(self._partial, ignore_errors=True)  # of a run that was killed
                os.makedirs(self._partial)
                if self._work is not None:
                    with open(os.path.join(self._partial, KEY_FILE), 'w', encoding='utf-8') as file:
                        file.write(self._work.note())
            self._started = True
        elif frame.shape != self._shape:
            raise ValueError(f'frame {self.num_frames} is {frame.shape}, the ones before are {self._shape}')
        name = os.path.join(self._partial, f'frame{self.num_frames:06d}.png')
        PIL.Image.fromarray(frame).save(name, compress_level=self._compress_level)
        self.num_frames += 1

    def close(self) -> None:
        if self._done:
            return
        if not self._started:
            raise InputError(f'no frame was made for {self.path!r}')
        if self._work is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._partial, KEY_FILE))
        if os.path.isdir(self.path):
            shutil.rmtree(self.path)
        os.replace(self._partial, self.path)
        self._done = True

    def abort(self) -> None:
        if self._started and not self._done and (self._work is None or self.num_frames == 0):
            shutil.rmtree(self._partial, ignore_errors=True)
        self._done = True
