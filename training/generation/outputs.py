"""Files that a generation leaves: names, the record of what was made, and the writing itself, frame by frame."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from networks.checkpoints.durable_files import append_line
from networks.errors import InputError
from networks.image_generator import ImageGenerator
from training.commands import command_line
from training.commands.memory import Budget
from training.commands.work import Work

if TYPE_CHECKING:
    import numpy as np

    from training.videos.code_sources import CodeSource
    from training.videos.segments import SegmentedVideo

ENDINGS = {'mp4': '.mp4', 'webm': '.webm', 'gif': '.gif', 'webp': '.webp', 'prores': '.mov', 'png': ''}
WITH_SOUND = ('mp4', 'webm', 'prores')
WAITING_BYTES = 64 << 20  # of frames that are rendered and not written yet
WITH_CRF = ('mp4', 'webm', 'webp')


@dataclasses.dataclass(frozen=True)
class Output:
    """One file or folder to make."""

    name: str
    seeds: tuple[int, ...]
    columns: int  # of the grid; 1 for a single video


def plan_outputs(seeds: list[int], grid: tuple[int, int] | None, ending: str) -> list[Output]:
    """What to make: a video for every seed, or grids of width x height seeds each.

    Raises:
        InputError: the seeds do not fill the grids.
    """
    if grid is None:
        return [Output(f'seed{seed:04d}{ending}', (seed,), 1) for seed in seeds]
    cells = grid[0] * grid[1]
    if len(seeds) % cells:
        raise InputError(
            f'--grid={grid[0]}x{grid[1]} shows {cells} seeds at a time, and --seeds names {len(seeds)}; '
            f'give a multiple of {cells}'
        )
    groups = [tuple(seeds[begin : begin + cells]) for begin in range(0, len(seeds), cells)]
    return [Output(f'grid-seed{group[0]:04d}-{group[-1]:04d}{ending}', group, grid[0]) for group in groups]


def codes_names(output: Output) -> list[str]:
    """Files of the codes of an output, one a seed."""
    return [f'seed{seed:04d}.npz' for seed in output.seeds]


class Records:
    """`generation.jsonl`: one line for every finished file, with all that is needed to make it again."""

    def __init__(self, outdir: str) -> None:
        self.outdir = outdir
        self.path = os.path.join(outdir, 'generation.jsonl')

    def add(self, output: Output, settings: Mapping[str, Any], **more: Any) -> None:
        """Write the line of a finished file; `settings` decide its content, `more` is good to know."""
        line = {'file': output.name, 'seeds': output.seeds, **settings, **more}
        append_line(self.path, json.dumps(line))

    def last(self) -> dict[str, dict[str, Any]]:
        """The last line of each file, by its name."""
        found: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(FileNotFoundError), open(self.path, encoding='utf-8', errors='replace') as file:
            for text in file:
                with contextlib.suppress(ValueError, RecursionError):  # a line that a power cut left half-written
                    line = json.loads(text)
                    if isinstance(line, dict) and isinstance(line.get('file'), str):
                        found[line['file']] = line
        return found

    @staticmethod
    def differences(line: dict[str, Any], output: Output, settings: dict[str, Any], unsaid: dict[str, Any]) -> list[str]:
        """Names of the settings that a line has otherwise; `unsaid` is what lines that do not name a setting mean by that."""
        wanted = json.loads(json.dumps({'seeds': output.seeds, **settings}))
        before = {**json.loads(json.dumps(unsaid)), **line}
        return [key for key, value in wanted.items() if key not in before or before[key] != value]

    def missing(
        self,
        outputs: Sequence[Output],
        settings: dict[str, Any],
        names: Callable[[Output], Sequence[str]],
        unsaid: dict[str, Any],
    ) -> list[Output]:
        """Those of some outputs whose last file was not made by these settings, or of which one of the files `names` is gone."""
        lines = self.last()
        return [
            output for output in outputs
            if output.name not in lines
            or self.differences(lines[output.name], output, settings, unsaid)
            or not all(os.path.exists(os.path.join(self.outdir, name)) for name in [output.name, *names(output)])
        ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rendering:
    """How codes become files.

    Attributes:
        ending: Key of `ENDINGS`.
        fps: Frames per second.
        crf: Of the formats in `WITH_CRF`.
        batch: Frames rendered at a time.
        noise_mode: Of the image generator.
        size, pad: See training.videos.framing.Framing; None keeps the size.
        audio: Sound that goes along.
        precision: Of the image generator, see training.videos.renderer.
        memory: See training.videos.synthesis.render_codes; decides last bits at most.
    """

    ending: str
    fps: float
    crf: float
    batch: int
    noise_mode: str
    size: tuple[int, int] | None = None
    pad: str = 'blur'
    audio: str | None = None
    precision: str = 'auto'
    memory: Budget | None = None


def render_source(
    image_generator: ImageGenerator, source: CodeSource, seed: int, rendering: Rendering, first: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames uint8 [H, W, C] and codes [num_ws, w_dim] of a source, without end; `first` batches were read from it before."""
    from training.videos.synthesis import render_codes

    for index in itertools.count(first):
        codes = source.read(rendering.batch)
        frames = render_codes(
            image_generator, codes, batch=rendering.batch, noise_mode=rendering.noise_mode, noise_seed=[seed, index],
            precision=rendering.precision, memory=rendering.memory,
        )  # fmt: skip
        yield from zip(frames, codes.cpu().numpy(), strict=True)


def write_output(
    path: str,
    image_generator: ImageGenerator,
    sources: Sequence[CodeSource],
    output: Output,
    num_frames: int,
    rendering: Rendering,
    *,
    comment: str,
    codes_paths: Sequence[str] = (),
    bar: Any = None,
    work: Work | None = None,
) -> None:
    """Render one file, frame by frame; an error leaves none, but for finished segments of a long video and whole batches of
    frames, which the next run finds.

    Args:
        path: The file or folder.
        image_generator: Image generator.
        sources: Codes of each cell of the grid.
        output: Which seeds, how many columns.
        num_frames: Length.
        rendering: How.
        comment: Into the video's metadata.
        codes_paths: Where the codes of each cell go, if anywhere.
        bar: Progress, one a frame and cell.
        work: All that decides the content: what an interrupted run of the same work has left is used.
    """
    import numpy as np

    from training.latents.codes_output import CodesWriter
    from training.videos.background import Background
    from training.videos.framing import Framing
    from training.videos.output import PngWriter, VideoWriter, as_rgb, image_grid
    from training.videos.segments import SegmentedVideo, segment_length

    framing = Framing(*rendering.size, rendering.pad) if rendering.size else None
    length = segment_length(rendering.batch)
    segments: SegmentedVideo | None = None
    done, states = 0, None
    settings = None if work is None else {**work.settings, 'seeds': output.seeds, 'columns': output.columns}
    unsaid = {} if work is None else work.unsaid
    video: dict[str, Any] = {
        'fps': rendering.fps, 'crf': rendering.crf, 'comment': comment, 'audio': rendering.audio,
        'codec': 'prores' if rendering.ending == 'prores' else None,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        if rendering.ending == 'png':
            batch = rendering.batch
            frames_of = None if settings is None else Work(settings, unsaid, (num_frames, batch))
            writer: Any = stack.enter_context(PngWriter(path, work=frames_of, batch=batch))
            done = writer.num_frames
        elif settings is not None:
            writer = segments = stack.enter_context(
                SegmentedVideo(
                    path, settings=settings, length=length, num_frames=num_frames, batch=rendering.batch, unsaid=unsaid,
                    device=next(image_generator.parameters()).device, **video,
                )
            )  # fmt: skip
        else:
            writer = stack.enter_context(VideoWriter(path, **video))
        shape = (num_frames, int(image_generator.num_ws), int(image_generator.w_dim))
        codes_writers = [stack.enter_context(CodesWriter(name, shape, fps=rendering.fps)) for name in codes_paths]
        begin = 0
        if segments is not None:
            done, states = segments.num_frames_done + segments.num_frames_kept, segments.state
            begin = segments.num_frames_done if states is not None and not codes_writers else 0
        if done:
            if begin:
                for source, state in zip(sources, states or (), strict=True):
                    source.restore(state)
            _read_again(sources, begin, done, rendering.batch, codes_writers)
            if bar is not None:
                bar.update(done * len(sources))
        streams = [
            render_source(image_generator, source, seed, rendering, done // rendering.batch)
            for source, seed in zip(sources, output.seeds, strict=False)
        ]

        def write(frames: list[np.ndarray]) -> None:
            frames = [as_rgb(frame) for frame in frames]
            picture = frames[0] if len(frames) == 1 else image_grid(np.stack(frames), output.columns)
            writer.write(picture if framing is None else framing(picture))

        side = int(image_generator.img_resolution)
        room = max(2, WAITING_BYTES // (3 * side * side * len(sources)))
        encoding = stack.enter_context(Background(write, min(room, 4 * rendering.batch)))
        columns = itertools.islice(zip(*streams, strict=True), num_frames - done)
        for position, column in enumerate(columns, start=done + 1):
            encoding.put([frame for frame, _ in column])
            for codes_writer, (_, code) in zip(codes_writers, column, strict=False):
                codes_writer.write(code)
            if segments is not None and (position % length == 0 or position == num_frames):
                encoding.flush()
                segments.end_segment([source.state() for source in sources])
            if bar is not None:
                bar.update(len(column))


def _read_again(sources: Sequence[CodeSource], begin: int, done: int, batch: int, codes_writers: Sequence[Any]) -> None:
    """Bring the sources to where finished frames end, which takes milliseconds a minute; files of codes get what they make.

    Args:
        sources: In front of frame `begin`.
        begin, done: Frames whose codes are read.
        batch: Frames that they read at a time.
        codes_writers: One for each source, or none.
    """
    for place in range(begin, done, batch):
        for index, source in enumerate(sources):
            codes = source.read(batch)
            if codes_writers:
                for code in codes.cpu().numpy()[: done - place]:
                    codes_writers[index].write(code)


def write_still(path: str, frame: np.ndarray) -> None:
    """Write a picture as PNG, whole or not at all."""
    import PIL.Image

    from networks.checkpoints import replacing

    with replacing(path) as temporary:
        PIL.Image.fromarray(frame).save(temporary, format='PNG')


def check_space(
    outdir: str, count: int, num_frames: int, rendering: Rendering, image_generator: ImageGenerator, save_codes: bool
) -> None:
    """Refuse what surely does not fit: codes have a known size, and a frame of an image never compresses to nothing."""
    per_frame: float = int(image_generator.num_ws) * int(image_generator.w_dim) * 4 if save_codes else 0
    # A lower bound from real footage: PNG keeps at least a quarter of the bytes, H.264 about a thousandth.
    width, height = rendering.size or (int(image_generator.img_resolution), int(image_generator.img_resolution))
    per_frame += width * height * 3 * (0.25 if rendering.ending == 'png' else 0.001)
    command_line.require_free_space(outdir, count * num_frames * per_frame, '1 video' if count == 1 else f'{count} videos')
