"""Footage to latent data set: an encoder, optimisation, both, or codes that exist already.

Every clip goes through in chunks of frames, and a chunk is on the disk before the next one begins: memory does not grow
with the footage, and an interrupted run goes on at the chunk where it stopped, with the result of one that was not.
"""

import dataclasses
import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from networks.errors import InputError, option
from networks.image_generator import ImageGenerator
from networks.psp_encoders import ImageEncoder
from training.commands.file_names import unique_names
from training.commands.memory import Budget
from training.commands.progress import progress, report
from training.embedding.clip_review import ClipReview, IdentityMeasure
from training.embedding.encoder_loss import shrink
from training.embedding.inversion import Inversion
from training.embedding.report import EmbeddingReport
from training.footage.clips import FootageClip, fit, open_footage
from training.footage.frame_bank import frames_to_images
from training.footage.preparation import PreparationSettings, describe_preparation, prepare_footage
from training.latents.code_files import CodeClip, holds_codes, open_codes
from training.latents.dataset import LatentDataset, is_latent_dataset
from training.latents.layout import PREPARATION_FOLDER
from training.latents.writer import ClipWriter, LatentDatasetWriter
from training.runs.ranks import Ranks
from training.videos.latent_preview import video_path
from training.videos.output import VideoWriter
from training.videos.synthesis import render_codes

# ----------------------------------------------------------------------------
# Sources.


def open_sources(
    sources: Sequence[str],
    *,
    num_ws: int,
    w_dim: int,
    fps: float | None,
    keep_damaged: bool,
    skip_damaged: bool = False,
    parts: Sequence[tuple[float | None, float | None]] | None = None,
) -> list[FootageClip | CodeClip]:
    """Find the clips of all sources, footage and codes, with unique names.

    Args:
        sources: Paths.
        num_ws, w_dim: What the image generator takes, for codes.
        fps, keep_damaged, skip_damaged: As of `training.footage.clips.open_footage`.
        parts: Start and end of what shall be taken of each source, seconds; None: all.

    Raises:
        InputError: A source cannot be used.
    """
    clips: list[FootageClip | CodeClip] = []
    for source, (start, end) in zip(sources, parts or [(None, None)] * len(sources), strict=True):
        if is_latent_dataset(source):
            raise InputError(f'{source} is a latent data set already; it needs no embedding, train_video.py takes it as --data.')
        if holds_codes(source, num_ws=num_ws, w_dim=w_dim):
            if start is not None or end is not None:
                raise InputError(
                    f'{source} holds codes; {option("start")} and {option("end")} are for footage (latents_tool.py cuts codes).'
                )
            clips += open_codes(source, num_ws=num_ws, w_dim=w_dim, fps=fps)
        else:
            clips += open_footage(source, fps=fps, keep_damaged=keep_damaged, skip_damaged=skip_damaged, start=start, end=end)
    names = unique_names(clip.name for clip in clips)
    return [dataclasses.replace(clip, name=name) for clip, name in zip(clips, names, strict=True)]


def prepare_sources(
    clips: Sequence[FootageClip | CodeClip],
    writer: LatentDatasetWriter,
    settings: PreparationSettings,
    *,
    size: int,
    skip_damaged: bool,
) -> list[FootageClip | CodeClip]:
    """Split and align the footage among the clips, say what is left out, and keep that with the data set.

    Args:
        clips: As of `open_sources`.
        writer: Of the data set; the first look at the frames is kept in its partial folder.
        settings, size, skip_damaged: As of `training.footage.preparation.prepare_footage`.

    Raises:
        InputError: No clip is left, or one cannot be used.
    """
    footage = [clip for clip in clips if isinstance(clip, FootageClip)]
    folder = os.path.join(writer.partial_folder, PREPARATION_FOLDER)
    try:
        prepared, entries = prepare_footage(footage, settings, size=size, folder=folder, skip_damaged=skip_damaged)
    except InputError:
        writer.forget_settings()  # nothing is embedded yet, so that other settings may be tried
        raise
    if not writer.helper:
        for line in describe_preparation(entries):
            report(line)
    writer.set_preparation(entries)
    return [*prepared, *(clip for clip in clips if isinstance(clip, CodeClip))]


def looked_at(
    clips: Sequence[FootageClip | CodeClip], settings: PreparationSettings, *, size: int, skip_damaged: bool, folder: str
) -> list[FootageClip | CodeClip]:
    """As `prepare_sources`, for a data set that is complete: the first look goes into `folder`, and nothing is said."""
    footage = [clip for clip in clips if isinstance(clip, FootageClip)]
    prepared, _ = prepare_footage(footage, settings, size=size, folder=folder, skip_damaged=skip_damaged)
    return [*prepared, *(clip for clip in clips if isinstance(clip, CodeClip))]


def read_chunks(clip: FootageClip, chunk: int, start: int) -> Iterator[list[np.ndarray]]:
    """Yield the frames uint8 `[H, W, 3]` of a clip from frame `start` on, up to `chunk` at a time."""
    frames = clip.frames(start)
    while part := list(itertools.islice(frames, chunk)):
        yield part


@dataclasses.dataclass
class Embedder:
    """Turns frames into codes, chunk by chunk, and looks at the result.

    Attributes:
        image_generator: Image generator.
        inversion: Renders and measures; optimises when `refine`.
        encoder: Gives codes in one pass; None for optimisation alone.
        refine: Whether codes are optimised.
        chunk: Frames at a time.
        measure_every: Quality is measured on every n-th frame, 0: never.
        report: Where the quality report goes; None: there is none.
        identity: Distance of faces for the report, None: not measured.
    """

    image_generator: Any
    inversion: Inversion
    encoder: Any | None
    refine: bool
    chunk: int
    measure_every: int
    report: EmbeddingReport | None = None
    identity: IdentityMeasure | None = None

    def embed_clip(self, clip: FootageClip, index: int, writer: ClipWriter, bar: Any) -> None:
        """Embed the frames of a clip that `writer` does not hold yet.

        A report shows all frames of the clip, so those that are embedded already are rendered again.
        """
        resolution = int(self.image_generator.img_resolution)
        done = writer.num_frames
        with self._open_review(clip, index) as review:
            first, before_start = 0, None
            if self.report is None:
                # One chunk more than is missing: what the encoder gave for its last frame counts for the next.
                first = max(done - self.chunk, 0)
                review.skip(first, writer.read_codes(max(first - 2, 0), min(first, 2)))
            for raw in read_chunks(clip, self.chunk, first):
                frames = np.stack([fit(frame, resolution) for frame in raw])
                images = frames_to_images(frames, int(self.image_generator.img_channels)).to(self.inversion.device)
                targets = shrink(images, self.inversion.resolution)
                position = review.num_frames
                last_done = position < done <= position + self.chunk
                start = self._encode(raw, images, writer, position) if position >= done or (last_done and self.refine) else None
                if position < done:
                    review.add(frames, targets, torch.from_numpy(writer.read_codes(position, len(frames))))
                else:
                    ws = self._fit(targets, start, writer, before_start)
                    writer.append(ws.cpu().numpy(), review.add(frames, targets, ws))
                    bar.update(len(frames))
                before_start = None if start is None else start[-1]
        self._report_clip(clip, index, writer, review)

    def take_over(self, clip: CodeClip, index: int, writer: ClipWriter) -> None:
        """Copie codes that exist, with a report that shows what they render to."""
        codes = clip.load()
        with self._open_review(clip, index) as review, progress(total=len(codes), description=clip.name) as bar:
            for start in range(0, len(codes), self.chunk):
                part = codes[start : start + self.chunk]
                finite = np.isfinite(part).all()  # if not, the writer says where
                writer.append(part, review.add(None, None, torch.from_numpy(part)) if finite else None)
                bar.update(len(part))
        self._report_clip(clip, index, writer, review)

    def _open_review(self, clip: FootageClip | CodeClip, index: int) -> ClipReview:
        video = None if self.report is None else self.report.path(index, clip.name, '.mp4')
        return ClipReview(self.inversion, fps=clip.fps, measure_every=self.measure_every, video=video, identity=self.identity)

    def _report_clip(self, clip: FootageClip | CodeClip, index: int, writer: ClipWriter, review: ClipReview) -> None:
        if self.report is not None:
            self.report.add_clip(index, clip.name, clip.fps, writer.measures_path, *review.shown_frames())

    def _encode(self, raw: Sequence[np.ndarray], images: torch.Tensor, writer: ClipWriter, position: int) -> torch.Tensor | None:
        """The encoder's codes of the frames from `position` on, None without an encoder."""
        if self.encoder is None:
            return None
        with torch.no_grad():
            codes = self.encoder(encoder_input(self.encoder, raw, images)).to(torch.float32)
        finite = torch.isfinite(codes).flatten(1).all(dim=1)
        if not finite.all():
            frame = position + int(finite.int().argmin())
            raise InputError(
                f'The encoder gives codes that are NaN or infinite for clip {writer.name!r}, frame {frame}; its file is '
                'damaged, or its training has failed.'
            )
        return codes

    def _fit(
        self, targets: torch.Tensor, start: torch.Tensor | None, writer: ClipWriter, before_start: torch.Tensor | None
    ) -> torch.Tensor:
        """The codes of the next frames: those of the encoder, or optimised ones."""
        if start is not None and not self.refine:
            return start
        before = torch.from_numpy(writer.last_codes()[0]) if writer.num_frames else None
        return self.inversion.fit_chunk(targets, start, before, before_start)


def encoder_input(encoder: Any, raw: Sequence[np.ndarray], images: torch.Tensor) -> torch.Tensor:
    """What an encoder sees of frames, images `[N, C, H, W]` in [-1, 1].

    Our encoders were trained on frames at the generator's resolution and resize those themselves. Those of pSp and e4e
    were trained on pictures of 256x256 that Pillow had resized by its bilinear filter: they get exactly that, made from
    the frame itself and not from its smaller or larger copy.

    Args:
        encoder: WEncoder or ImageEncoder.
        raw: Frames uint8 `[H, W, 3]` as they came.
        images: The same at the generator's resolution.
    """
    if not isinstance(encoder, ImageEncoder):
        return images
    frames = np.stack([_resize_bilinear(frame, encoder.img_resolution) for frame in raw])
    return frames_to_images(frames, encoder.img_channels).to(images.device)


def _resize_bilinear(frame: np.ndarray, size: int) -> np.ndarray:
    height, width = frame.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    image = PIL.Image.fromarray(frame[top : top + side, left : left + side])
    return np.asarray(image if side == size else image.resize((size, size), PIL.Image.Resampling.BILINEAR))


def embed_all(
    clips: Sequence[FootageClip | CodeClip],
    writer: LatentDatasetWriter,
    embedder: Embedder | None,
    *,
    skip_damaged: bool = False,
    ranks: Ranks | None = None,
) -> None:
    """Embed every clip that the data set does not hold yet.

    Args:
        clips: Footage, or codes to be taken over.
        writer: Of the data set; `LatentDatasetWriter.finish` is left to the caller.
        embedder: For footage, and for a report on codes; may be None when all clips are codes.
        skip_damaged: Leave out clips that cannot be decoded, with a word on each.
        ranks: Processes that share the clips; each has its own writer, those beyond the first as helpers.

    Raises:
        InputError: A clip cannot be used.
    """
    remaining = [(index, clip) for index, clip in enumerate(clips) if not writer.has_clip(clip.name)]
    if not writer.helper and len(remaining) < len(clips):
        report(f'{len(clips) - len(remaining)} of {len(clips)} clips are there already.')
    if embedder is not None and embedder.report is not None and not writer.helper and not writer.resumed:
        embedder.report.remove_old()
    if ranks is not None:
        ranks.barrier()
        with ranks.together():
            _embed_share(ranks.share(remaining), len(clips), writer, embedder, skip_damaged)
    else:
        _embed_share(remaining, len(clips), writer, embedder, skip_damaged)
    if embedder is not None and embedder.report is not None and not writer.helper:
        writer.read_clips()
        embedder.report.write_page(writer.clip_entries)


def _embed_share(
    share: Sequence[tuple[int, FootageClip | CodeClip]],
    num_clips: int,
    writer: LatentDatasetWriter,
    embedder: Embedder | None,
    skip_damaged: bool,
) -> None:
    for index, clip in share:
        if isinstance(clip, CodeClip):
            if embedder is None or embedder.report is None:
                writer.add_clip(clip.name, clip.load(), fps=clip.fps, source=clip.source, index=index)
            else:
                part = writer.open_clip(clip.name, restart=True, index=index)
                embedder.take_over(clip, index, part)
                part.close(fps=clip.fps, source=clip.source)
            report(f'{clip.name}: codes taken over.')
        elif embedder is None:
            raise ValueError('footage needs an embedder')
        elif not _embed_footage(clip, index, writer, embedder, f'clip {index + 1}/{num_clips} {clip.name}', skip_damaged):
            continue
        if embedder is not None and embedder.report is not None and not writer.helper:
            embedder.report.write_page(writer.clip_entries)


def _embed_footage(
    clip: FootageClip, index: int, writer: LatentDatasetWriter, embedder: Embedder, description: str, skip_damaged: bool
) -> bool:
    """Embed one clip; return whether it was, which a damaged one that is to be skipped was not."""
    part = writer.open_clip(clip.name, chunk=embedder.chunk, index=index)
    first, start_time = part.num_frames, time.perf_counter()
    try:
        with progress(total=clip.expected_frames, initial=part.num_frames, description=description) as bar:
            embedder.embed_clip(clip, index, part, bar)
    except InputError as error:
        if not skip_damaged:
            raise
        report(f'Left out: {error}')
        part.discard()
        return False
    averages = part.averages()
    rate = (part.num_frames - first) / (time.perf_counter() - start_time)
    extra: dict[str, Any] = {}
    if clip.quads is not None and clip.source_size is not None:
        extra = {
            'first_frame': clip.first_frame,
            'source_size': list(clip.source_size),
            'arrays': {'quads': np.broadcast_to(clip.quads, (part.num_frames, 4, 2))},
        }
        if clip.thumbnails is not None:
            extra['arrays']['thumbnails'] = clip.thumbnails[: part.num_frames]
    if clip.look is not None:
        extra['look'] = clip.look
    part.close(fps=clip.fps, source=clip.source, **extra)
    quality = ''.join(
        f', {label} {averages[key]:{form}}'
        for key, label, form in (
            ('psnr', 'PSNR', '.2f'),
            ('gain', 'above the average picture by', '.2f'),
            ('lpips', 'LPIPS', '.4f'),
            ('identity', 'identity', '.3f'),
            ('deviation', 'deviation', '.2f'),
            ('jitter', 'jitter', '.3f'),
        )
        if key in averages
    )
    report(f'{clip.name}: {part.num_frames} frames{quality}, {rate:.2f} frames a second')
    return True


def previews(dataset: LatentDataset, folder: str) -> list[str]:
    """Where the video of each clip of a data set goes."""
    return [video_path(dataset, index, folder) for index in range(len(dataset.clips))]


def write_previews(
    clips: Sequence[FootageClip | CodeClip],
    dataset: LatentDataset,
    image_generator: ImageGenerator,
    folder: str,
    *,
    batch: int = 16,
    memory: Budget | None = None,
    since: float = math.inf,
) -> None:
    """Write one video a clip: the original on the left (where there is footage), the rendered codes on the right.

    Args:
        clips: As they were embedded.
        dataset: The finished LatentDataset.
        image_generator: Image generator.
        folder: Where the videos go, `NAME.mp4`.
        batch: Frames rendered at a time.
        memory: See training.videos.synthesis.render_codes.
        since: Videos that are there and not older, in seconds since 1970, stay.
    """
    os.makedirs(folder, exist_ok=True)
    sources = {clip.name: clip for clip in clips}
    for index, (info, path) in enumerate(zip(dataset.clips, previews(dataset, folder), strict=True)):
        if os.path.exists(path) and os.path.getmtime(path) >= since:
            continue
        clip = sources.get(info.name)
        rendered = render_codes(image_generator, dataset.load_clip(index), batch=batch, memory=memory)
        originals: Iterator[np.ndarray | None] = itertools.repeat(None)
        if isinstance(clip, FootageClip):
            originals = (fit(frame, int(image_generator.img_resolution)) for frame in clip.frames())
        with VideoWriter(path, fps=info.fps) as video, progress(total=info.num_frames, description=f'preview {info.name}') as bar:
            for image, original in zip(rendered, originals, strict=False):
                video.write(image if original is None else _beside(original, image))
                bar.update(1)


def _beside(original: np.ndarray, image: np.ndarray) -> np.ndarray:
    return np.concatenate([original, np.broadcast_to(image, original.shape)], axis=1)
