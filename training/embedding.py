"""Footage to latent data set: an encoder, optimisation, both, or codes that exist already.

Every clip goes through in chunks of frames, and a chunk is on the disk before the next one begins: memory does not grow
with the footage, and an interrupted run goes on at the chunk where it stopped, with the result of one that was not.
"""

import dataclasses
import itertools
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from networks.errors import InputError
from training.code_files import CodeClip, holds_codes, open_codes
from training.command_line import progress, report
from training.encoder_loss import shrink
from training.footage import FootageClip, fit, open_footage
from training.frame_bank import frames_to_images
from training.inversion import Inversion
from training.latent_dataset_writer import ClipWriter, LatentDatasetWriter
from training.video_output import VideoWriter
from training.video_synthesis import render_codes

#----------------------------------------------------------------------------
# Sources.

def open_sources(
    sources: Sequence[str], *, num_ws: int, w_dim: int, fps: float | None, keep_damaged: bool,
) -> list[FootageClip | CodeClip]:
    """Finds the clips of all sources, footage and codes, with unique names.

    Raises:
        InputError: A source cannot be used.
    """
    clips: list[FootageClip | CodeClip] = []
    for source in sources:
        if holds_codes(source):
            clips += open_codes(source, num_ws=num_ws, w_dim=w_dim, fps=fps)
        else:
            clips += open_footage(source, fps=fps, keep_damaged=keep_damaged)
    taken: set[str] = set()
    for index, clip in enumerate(clips):
        name, number = clip.name, 2
        while name in taken:
            name, number = f'{clip.name}-{number}', number + 1
        taken.add(name)
        clips[index] = dataclasses.replace(clip, name=name)
    return clips

def read_chunks(clip: FootageClip, resolution: int, chunk: int, start: int) -> Iterator[np.ndarray]:
    """Yields frames uint8 ``[<= chunk, resolution, resolution, 3]`` of a clip from frame ``start`` on."""
    frames = itertools.islice(clip.frames(), start, None)
    while part := [fit(frame, resolution) for frame in itertools.islice(frames, chunk)]:
        yield np.stack(part)

#----------------------------------------------------------------------------

@dataclasses.dataclass
class Embedder:
    """Turns chunks of frames into codes.

    Attributes:
        G: Image generator.
        inversion: Renders and measures; optimises when ``refine``.
        encoder: Gives codes in one pass; None for optimisation alone.
        refine: Whether codes are optimised.
        chunk: Frames at a time.
        measure_every: Quality is measured on every n-th frame, 0: never.
    """

    G: Any
    inversion: Inversion
    encoder: Any | None
    refine: bool
    chunk: int
    measure_every: int

    def embed_clip(self, clip: FootageClip, writer: ClipWriter, bar: Any) -> None:
        """Embeds the frames of one clip that ``writer`` does not hold yet."""
        resolution = int(self.G.img_resolution)
        for frames in read_chunks(clip, resolution, self.chunk, writer.num_frames):
            images = frames_to_images(frames, int(self.G.img_channels)).to(self.inversion.device)
            targets = shrink(images, self.inversion.resolution)
            ws = self._embed_chunk(images, targets, writer)
            rows = self._measure(ws, targets, writer.num_frames)
            for row, jitter in zip(rows, self._jitter(ws, writer), strict=True):
                row.update(jitter)
            writer.append(ws.cpu().numpy(), rows)
            bar.update(len(frames))

    def _embed_chunk(self, images: torch.Tensor, targets: torch.Tensor, writer: ClipWriter) -> torch.Tensor:
        start = None
        if self.encoder is not None:
            with torch.no_grad():
                start = self.encoder(images).to(torch.float32)
            if not torch.isfinite(start).all():
                frame = writer.num_frames + int(torch.isfinite(start).all(dim=2).all(dim=1).int().argmin())
                raise InputError(f'The encoder gives codes that are NaN or infinite for clip {writer.name!r}, frame {frame}.')
            if not self.refine:
                return start
        previous = torch.from_numpy(writer.last_codes()[0]) if writer.num_frames else None
        return self.inversion.fit_chunk(targets, start, previous)

    def _measure(self, ws: torch.Tensor, targets: torch.Tensor, first: int) -> list[dict[str, float]]:
        rows: list[dict[str, float]] = [{} for _ in range(len(ws))]
        if self.measure_every:
            chosen = [index for index in range(len(ws)) if (first + index) % self.measure_every == 0]
            if chosen:
                for index, row in zip(chosen, self.inversion.measure(ws[chosen], targets[chosen]), strict=True):
                    rows[index] = row
        return rows

    def _jitter(self, ws: torch.Tensor, writer: ClipWriter) -> list[dict[str, float]]:
        """Second difference of each code over time, root mean square, standard deviations of W; not for the first two."""
        before = torch.from_numpy(writer.last_codes(2)).to(ws.device)
        h = self.inversion.whiten(torch.cat([before, ws]))
        if len(h) < 3:
            return [{} for _ in range(len(ws))]
        values = (h[2:] - 2 * h[1:-1] + h[:-2]).square().mean(dim=(1, 2)).sqrt()
        rows = [{'jitter': float(value)} for value in values]
        return [{} for _ in range(len(ws) - len(rows))] + rows

#----------------------------------------------------------------------------

def embed_all(
    clips: Sequence[FootageClip | CodeClip], writer: LatentDatasetWriter, embedder: Embedder | None, *,
    skip_damaged: bool = False,
) -> None:
    """Embeds every clip that the data set does not hold yet.

    Args:
        clips: Footage, or codes to be taken over.
        writer: Of the data set; :meth:`LatentDatasetWriter.finish` is left to the caller.
        embedder: For footage; may be None when all clips are codes.
        skip_damaged: Leave out clips that cannot be decoded, with a word on each.

    Raises:
        InputError: A clip cannot be used.
    """
    remaining = [clip for clip in clips if not writer.has_clip(clip.name)]
    if len(remaining) < len(clips):
        report(f'{len(clips) - len(remaining)} of {len(clips)} clips are there already.')
    for number, clip in enumerate(remaining, start=len(clips) - len(remaining) + 1):
        if isinstance(clip, CodeClip):
            writer.add_clip(clip.name, clip.load(), fps=clip.fps, source=clip.source)
            report(f'{clip.name}: codes taken over.')
            continue
        if embedder is None:
            raise ValueError('footage needs an embedder')
        part = writer.open_clip(clip.name, chunk=embedder.chunk)
        first, start_time = part.num_frames, time.perf_counter()
        try:
            with progress(
                total=clip.expected_frames, initial=part.num_frames, description=f'clip {number}/{len(clips)} {clip.name}',
            ) as bar:
                embedder.embed_clip(clip, part, bar)
        except InputError as error:
            if not skip_damaged:
                raise
            report(f'Left out: {error}')
            part.discard()
            continue
        averages = part.averages()
        rate = (part.num_frames - first) / (time.perf_counter() - start_time)
        part.close(fps=clip.fps, source=clip.source)
        quality = ''.join(f', {label} {averages[key]:{form}}' for key, label, form in (
            ('psnr', 'PSNR', '.2f'), ('lpips', 'LPIPS', '.4f'), ('jitter', 'jitter', '.3f')) if key in averages)
        report(f'{clip.name}: {part.num_frames} frames{quality}, {rate:.2f} frames a second')

#----------------------------------------------------------------------------

def write_previews(
    clips: Sequence[FootageClip | CodeClip], dataset: Any, G: Any, folder: str, *, batch: int = 16,
) -> None:
    """Writes one video a clip: the original on the left (where there is footage), the rendered codes on the right.

    Args:
        clips: As they were embedded.
        dataset: The finished LatentDataset.
        G: Image generator.
        folder: Where the videos go, ``NAME.mp4``.
        batch: Frames rendered at a time.
    """
    os.makedirs(folder, exist_ok=True)
    sources = {clip.name: clip for clip in clips}
    for index, info in enumerate(dataset.clips):
        clip = sources.get(info.name)
        rendered = render_codes(G, dataset.load_clip(index), batch=batch)
        originals: Iterator[np.ndarray | None] = itertools.repeat(None)
        if isinstance(clip, FootageClip):
            originals = (fit(frame, int(G.img_resolution)) for frame in clip.frames())
        path = os.path.join(folder, re.sub(r'[^\w.-]+', '_', info.name) + '.mp4')
        with VideoWriter(path, fps=info.fps) as video, progress(
            total=info.num_frames, description=f'preview {info.name}',
        ) as bar:
            for image, original in zip(rendered, originals, strict=False):
                video.write(image if original is None else _beside(original, image))
                bar.update(1)

def _beside(original: np.ndarray, image: np.ndarray) -> np.ndarray:
    return np.concatenate([original, np.broadcast_to(image, original.shape)], axis=1)

#----------------------------------------------------------------------------
