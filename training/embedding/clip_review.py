"""Looking at one embedded clip beside its original, frame by frame: measures, a video, and a few frames to remember.

Everything streams: chunks go in, in order, and memory does not grow with the clip.
"""

import dataclasses
import glob
import heapq
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

import numpy as np
import torch

from training.embedding.encoder_loss import shrink
from training.embedding.inversion import Inversion
from training.videos.output import VideoWriter, as_rgb
from training.videos.synthesis import images_to_uint8

NUM_EVEN = 8  # frames at equal distances that a report shows
NUM_WORST = 4  # frames with the largest error that a report shows
# Of a long clip a report's video shows the beginning and every eighth run of frames behind it, because rendering the others would
# take as long as the embedding by an encoder itself, or longer.
BEGINNING, RUN, SHOWN_RUN = 250, 25, 8


def is_in_video(index: int) -> bool:
    """Whether a report's video shows the frame of a clip with this index."""
    return index < BEGINNING or index // RUN % SHOWN_RUN == 0


class IdentityMeasure(Protocol):
    """A face recognition network: how far the identities of two faces are apart."""

    def __call__(self, original: np.ndarray, embedded: np.ndarray) -> float | None:
        """Distance of the faces in two frames uint8 `[H, W, 3]` of one geometry; None where no face is found."""


@dataclasses.dataclass
class ShownFrame:
    """A frame that a report shows: its index, the original (None for codes alone), what the code renders to, its row."""

    index: int
    original: np.ndarray | None
    embedded: np.ndarray
    row: dict[str, float]


class ClipReview:
    """Renders the codes of one clip and compares them with its frames.

    The rows of measures hold

    * `psnr` and `gain` (dB), `lpips`: of every `measure_every`-th frame, see `Inversion.compare`;
    * `identity`: distance of the faces, of the same frames, where there is a measure of it and it finds a face;
    * `deviation`: how far the code lies from the average code, see `Inversion.deviations`;
    * `jitter`: root mean square of w_{t+1} - 2 w_t + w_{t-1} in standard deviations of W, from the third frame on;
    * `pixel_jitter`, `pixel_jitter_original`: the same of the pixels, grey levels of 255 (at most 256 pixels wide), from the
      third frame of a run in the video on.

    The video shows all of a clip of 10 seconds at 25 frames a second, and an eighth of what follows (`is_in_video`). Only the
    frames that are measured or in the video are rendered. Without a video the jitter of pixels is not measured.

    Args:
        inversion: Of the image generator.
        fps: Frames per second of the clip.
        measure_every: Every n-th frame is measured, 0: none.
        video: Where the video original | embedded goes; None: nowhere.
        identity: Distance of faces; None: not measured.

    Use as a context manager: an exception leaves no video.
    """

    def __init__(
        self, inversion: Inversion, *, fps: float, measure_every: int, video: str | None, identity: IdentityMeasure | None
    ) -> None:
        self.inversion, self.measure_every, self.identity = inversion, measure_every, identity
        self.num_frames = 0
        self._codes = torch.zeros(0, inversion.num_ws, inversion.w_dim)
        self._last: dict[str, torch.Tensor] = {}  # the two frames before in the video, of the original and of the embedded clip
        self._last_filmed = -1
        self._even: list[ShownFrame] = []
        self._stride = 1
        self._worst: list[tuple[float, int, ShownFrame]] = []  # a heap, the best of them first
        self._video = None
        if video is not None:
            for stale in glob.glob(os.path.join(glob.escape(os.path.dirname(video)), f'.{os.path.basename(video)}.*.partial')):
                os.remove(stale)  # of a run that was killed
            self._video = VideoWriter(video, fps=fps)

    def skip(self, num_frames: int, last: np.ndarray) -> None:
        """Begin after the first frames of the clip, without a look at them; `last` are the codes of up to two of them."""
        self.num_frames, self._codes = num_frames, torch.from_numpy(last)

    def add(self, frames: np.ndarray | None, targets: torch.Tensor | None, ws: torch.Tensor) -> list[dict[str, float]]:
        """Take the next frames of the clip.

        Args:
            frames: uint8 `[n, resolution, resolution, 3]`; None where there are codes alone.
            targets: The same as images `[n, C, r, r]` in [-1, 1], r as `Inversion` compares them.
            ws: Codes `[n, num_ws, w_dim]`.

        Returns:
            One row of measures for each frame.
        """
        rows: list[dict[str, float]] = [{} for _ in range(len(ws))]
        for row, value in zip(rows, self.inversion.deviations(ws).tolist(), strict=True):
            row['deviation'] = value
        self._measure_code_jitter(ws, rows)
        measured = (
            []
            if targets is None or not self.measure_every
            else [index for index in range(len(ws)) if (self.num_frames + index) % self.measure_every == 0]
        )
        filmed = [] if self._video is None else [index for index in range(len(ws)) if is_in_video(self.num_frames + index)]
        rendered = sorted({*measured, *filmed})
        if rendered:
            with torch.no_grad():
                images = self.inversion.render(ws[rendered])
            small = shrink(images, self.inversion.resolution).clamp(-1, 1)
            if measured and targets is not None:
                chosen = [rendered.index(index) for index in measured]
                for index, row in zip(measured, self.inversion.compare(small[chosen], targets[measured]), strict=True):
                    rows[index].update(row)
            if self._video is not None:
                series = {'pixel_jitter': small[[rendered.index(index) for index in filmed]]}
                if targets is not None:
                    series['pixel_jitter_original'] = targets[filmed]
                self._measure_pixel_jitter(series, rows, filmed)
                self._show(frames, rendered, images, rows, measured)
        self.num_frames += len(ws)
        return rows

    def shown_frames(self) -> tuple[list[ShownFrame], list[ShownFrame]]:
        """Frames at equal distances, and those with the largest error, worst first."""
        places = np.array([entry.index for entry in self._even])
        wanted = np.linspace(0, max(places, default=0), NUM_EVEN)
        chosen = {int(np.abs(places - place).argmin()) for place in wanted} if self._even else set()
        worst = [item[2] for item in sorted(self._worst, key=lambda item: (-item[0], item[1]))]
        return [self._even[index] for index in sorted(chosen)], worst

    def close(self) -> None:
        """Put the video in its place."""
        if self._video is not None:
            self._video.close()

    def __enter__(self) -> 'ClipReview':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._video is not None:
            self._video.__exit__(kind, error, trace)

    # Parts of add().

    def _measure_code_jitter(self, ws: torch.Tensor, rows: Sequence[dict[str, float]]) -> None:
        codes = torch.cat([self._codes, ws.cpu()])
        values = second_differences(self.inversion.whiten(codes))
        for row, value in zip(rows[len(rows) - len(values) :], values.tolist(), strict=True):
            row['jitter'] = value
        self._codes = codes[-2:]

    def _measure_pixel_jitter(
        self, series: dict[str, torch.Tensor], rows: Sequence[dict[str, float]], filmed: Sequence[int]
    ) -> None:
        """Jitter of the frames in the video; `series` has the pictures of embedded and of original ones."""
        for place, index in enumerate(filmed):
            if self._last_filmed + 1 != self.num_frames + index:
                self._last.clear()  # another run
            self._last_filmed = self.num_frames + index
            for name, pictures in series.items():
                picture = pictures[place : place + 1]
                last = torch.cat([self._last[name], picture]) if name in self._last else picture
                for value in (second_differences(last) * 127.5).tolist():
                    rows[index][name] = value
                self._last[name] = last[-2:].clone()

    def _show(
        self,
        frames: np.ndarray | None,
        rendered: Sequence[int],
        images: torch.Tensor,
        rows: Sequence[dict[str, float]],
        measured: Sequence[int],
    ) -> None:
        assert self._video is not None
        for index, picture in zip(rendered, images_to_uint8(images), strict=True):
            picture = as_rgb(picture)
            original = None if frames is None else frames[index]
            if index in measured and original is not None and self.identity is not None:
                distance = self.identity(original, picture)
                if distance is not None:
                    rows[index]['identity'] = distance
            if is_in_video(self.num_frames + index):
                self._video.write(picture if original is None else np.concatenate([original, picture], axis=1))
            self._remember(ShownFrame(self.num_frames + index, original, picture, rows[index]))

    def _remember(self, shown: ShownFrame) -> None:
        if not self._even or shown.index // self._stride != self._even[-1].index // self._stride:
            self._even.append(shown)
            while len(self._even) > 4 * NUM_EVEN:  # the length of the clip is not known before its end
                self._stride *= 2
                first_of = {entry.index // self._stride: entry for entry in reversed(self._even)}
                self._even = [first_of[part] for part in sorted(first_of)]
        error = shown.row.get('lpips', -shown.row['psnr'] if 'psnr' in shown.row else None)
        if error is not None:
            heapq.heappush(self._worst, (error, -shown.index, shown))
            if len(self._worst) > NUM_WORST:
                heapq.heappop(self._worst)


def second_differences(series: torch.Tensor) -> torch.Tensor:
    """Root mean square of x_{t+1} - 2 x_t + x_{t-1} of `[T, ...]`, a value for each frame from the third on."""
    if len(series) < 3:
        return series.new_zeros(0)
    return (series[2:] - 2 * series[1:-1] + series[:-2]).square().flatten(1).mean(dim=1).sqrt()
