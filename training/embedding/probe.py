"""Which way of embedding for this generator, footage and machine? Each is tried on some frames, and timed."""

import dataclasses
import itertools
import time
from collections.abc import Sequence

import numpy as np
import torch

from training.commands.progress import progress
from training.embedding.clip_review import second_differences
from training.embedding.embedder import Embedder, encoder_input
from training.embedding.encoder_loss import shrink
from training.footage.clips import FootageClip, fit
from training.footage.frame_bank import frames_to_images

NUM_FRAMES = 16  # in a row, after those that get the first code of the clip
LONGEST_HOURS = 2.0  # that the recommended way may take
AS_GOOD = 1.1  # times the best distance that counts as equal


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of embedding, as it was measured.

    Attributes:
        name: For people.
        options: What embed_video.py takes for it.
        seconds: For a frame within a clip.
        psnr, gain: dB, see `training.embedding.inversion.Inversion.compare`.
        lpips: None without a perceptual distance.
        jitter: Of the codes, standard deviations of W.
    """

    name: str
    options: str
    seconds: float
    psnr: float
    gain: float
    lpips: float | None
    jitter: float


def measure_ways(clip: FootageClip, embedder: Embedder, *, num_frames: int = NUM_FRAMES) -> list[Way]:
    """Try every way that there is on the frames in the middle of a clip.

    Args:
        clip: Prepared footage.
        embedder: With the encoder, if there is one, and the settings of the optimisation.
        num_frames: So many frames are timed; as many before them are embedded first, because the first frame of a clip takes
            longer.
    """
    inversion, resolution = embedder.inversion, int(embedder.image_generator.img_resolution)
    length = clip.num_frames or clip.expected_frames or 2 * num_frames
    start = max((length - 2 * num_frames) // 2, 0)
    raw = list(itertools.islice(clip.frames(start), 2 * num_frames)) or list(itertools.islice(clip.frames(), 2 * num_frames))
    before = len(raw) // 2
    images = frames_to_images(np.stack([fit(frame, resolution) for frame in raw]), int(embedder.image_generator.img_channels))
    images = images.to(inversion.device)
    targets = shrink(images, inversion.resolution)
    ways = [('optimisation', '', False, True)]
    if embedder.encoder is not None:
        ways = [('encoder', '--encoder', True, False), ('encoder and refinement', '--encoder --refine', True, True), *ways]
    found = []
    with progress(total=len(ways), description='trying ways', unit='way', every_seconds=30) as bar:
        for name, options, encoded, optimised in ways:
            timed = slice(before, len(raw))
            began = time.perf_counter()
            codes = _encode(embedder, raw[timed], images[timed]) if encoded else None
            seconds = time.perf_counter() - began
            if optimised:
                first = _encode(embedder, raw[:before], images[:before]) if encoded and before else None
                last = inversion.fit_chunk(targets[:before], first, None)[-1] if before else None
                began = time.perf_counter()
                codes = inversion.fit_chunk(targets[timed], codes, last, None if first is None else first[-1])
                seconds += time.perf_counter() - began
            assert codes is not None
            rows = inversion.measure(codes, targets[timed])
            means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            jitter = second_differences(inversion.whiten(codes))
            found.append(
                Way(
                    name,
                    options,
                    seconds / len(rows),
                    means['psnr'],
                    means['gain'],
                    means.get('lpips'),
                    float(jitter.mean()) if len(jitter) else 0.0,
                )
            )
            bar.update(1)
    return found


@torch.no_grad()
def _encode(embedder: Embedder, raw: Sequence[np.ndarray], images: torch.Tensor) -> torch.Tensor:
    assert embedder.encoder is not None
    return embedder.encoder(encoder_input(embedder.encoder, raw, images)).to(torch.float32)


def recommend(ways: Sequence[Way], num_frames: int, *, longest_hours: float = LONGEST_HOURS) -> Way:
    """The way with the nearest pictures of those that are done in time; the quickest of those that are about as near.

    Args:
        ways: As of `measure_ways`.
        num_frames: Of all the footage.
        longest_hours: What the whole may take; if every way takes longer, the quickest is recommended.
    """
    in_time = [way for way in ways if way.seconds * num_frames <= longest_hours * 3600]
    if not in_time:
        return min(ways, key=lambda way: way.seconds)
    best = min(_distance(way) for way in in_time)
    return min((way for way in in_time if _distance(way) <= AS_GOOD * best), key=lambda way: way.seconds)


def _distance(way: Way) -> float:
    return 10 ** (-way.psnr / 10) if way.lpips is None else way.lpips


def describe(ways: Sequence[Way], num_frames: int | None) -> list[str]:
    """The table and the recommendation, for people."""
    lines = [f'{"way":24s}{"s a frame":>11s}{"all":>11s}{"PSNR":>8s}{"gain":>8s}{"LPIPS":>9s}{"jitter":>9s}']
    for way in ways:
        total = '' if num_frames is None else duration(way.seconds * num_frames)
        lpips = '' if way.lpips is None else f'{way.lpips:.4f}'
        lines.append(f'{way.name:24s}{way.seconds:11.3f}{total:>11s}{way.psnr:8.2f}{way.gain:8.2f}{lpips:>9s}{way.jitter:9.3f}')
    chosen = recommend(ways, num_frames or 0)
    how = f' ({chosen.options})' if chosen.options else ' (no --encoder)' if len(ways) > 1 else ''
    lines.append(f'Recommended: {chosen.name}{how}, the nearest pictures in at most {LONGEST_HOURS:g} hours.')
    if len(ways) == 1:
        lines.append('An encoder (train_encoder.py) embeds far more frames a second and is where refinement starts best.')
    return lines


def duration(seconds: float) -> str:
    """`12 s`, `3.4 min`, `2.1 h`."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.1f} min' if seconds < 6000 else f'{seconds / 3600:.1f} h'
