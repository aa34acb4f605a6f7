"""Distances of pictures for the table of results: windows far into videos of any latent generator, beside the footage.

Clips are CLIP_FRAMES frames in a row. Of each, I3D gives one feature vector (the Frechet video distance, docs/measuring/fvd.md),
and AlexNet, with the weights of LPIPS, one for each of FRAMES_OF_CLIP of its frames: the mean over all places of its last layer,
256 numbers, of frames in their own size. Their Frechet distance is the **frame distance**; it stands in the place of the FID,
whose weights no Python package brings, and its values are not those of an FID.

Features are kept in a folder, so that another reference costs nothing and an interrupted run loses one set of clips at the most.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from metrics.distances.frechet import expected_bias, frechet_distance, mean_and_covariance
from metrics.distances.frechet_of_clips import in_canonical_order
from metrics.distances.kernel_distance import kernel_distance
from metrics.inputs.clip_choice import choose_clips
from metrics.inputs.latent_windows import generate_windows
from metrics.inputs.video_set import VideoSet
from networks.checkpoints.detectors import load_i3d, load_lpips
from networks.checkpoints.durable_files import replacing
from networks.errors import InputError
from training.videos.output import as_rgb
from training.videos.synthesis import render_codes

CLIP_FRAMES = 16
FRAMES_OF_CLIP = 4  # neighbouring frames tell the same
BLOCK_CLIPS = 4  # length of the blocks of the split halves, in clips
RENDERED_AT_ONCE = 8

Features = tuple[np.ndarray, np.ndarray]  # of clips [n, 400], of frames [FRAMES_OF_CLIP n, 256]
Clip = tuple[int, int]  # video, first frame


class Detectors:
    """Both feature networks.

    Raises:
        InputError: Their weights are not there.
    """

    def __init__(self) -> None:
        self.i3d = load_i3d()
        self.alexnet = load_lpips('alex')
        self._last: list[torch.Tensor] = []
        self.alexnet.convolutions[-1].register_forward_hook(lambda _, __, output: self._last.append(output))

    @property
    def description(self) -> dict[str, str]:
        """Digests of the weights."""
        return {
            'i3d_weights_sha256': self.i3d.description['weights_sha256'],
            'alexnet_weights_sha256': self.alexnet.description['weights_sha256'],
        }

    @torch.inference_mode()
    def features(self, clips: Iterable[np.ndarray]) -> Features:
        """Clips uint8 [CLIP_FRAMES, H, W, 3] -> their features, one clip at a time: memory does not grow but for the results."""
        of_clips, of_frames = [], []
        for clip in clips:
            of_clips.append(self.i3d.features(torch.from_numpy(clip[None]))[0, 0].numpy())
            frames = torch.from_numpy(clip[:: CLIP_FRAMES // FRAMES_OF_CLIP].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
            self.alexnet.embed(frames)
            of_frames.append(torch.relu(self._last.pop()).mean(dim=(2, 3)).numpy())
        return np.stack(of_clips), np.concatenate(of_frames)


def real_clips(videos: VideoSet, count: int, half: int | None = None) -> list[Clip]:
    """Up to `count` clips, evenly spread over the footage, or over one half of it (0, 1).

    Halves are blocks of BLOCK_CLIPS clips, dealt out in turn. Clips of short footage overlap; no clip is in two halves.

    Raises:
        InputError: There are fewer than two such clips.
    """
    lengths = [int(length or 0) for length in videos.num_frames]
    pieces = [(video, 0, length) for video, length in enumerate(lengths)]
    if half is not None:
        size = BLOCK_CLIPS * CLIP_FRAMES
        blocks = [(video, begin, min(size, length - begin)) for video, _, length in pieces for begin in range(0, length, size)]
        pieces = blocks[half::2]
    chosen = choose_clips([length for _, _, length in pieces], count, CLIP_FRAMES, rule='spread').clips
    if len(chosen) < 2:
        raise InputError(f'{videos.description.get("path", videos.names[0])} is too short for clips of {CLIP_FRAMES} frames')
    return [(pieces[piece][0], pieces[piece][1] + start) for piece, start in chosen]


def end_clips(videos: VideoSet, count: int, part: float) -> list[Clip]:
    """Up to `count` clips that do not overlap, evenly spread over the last `part` of every video; fewer where it is short."""
    lengths = [round(part * int(length or 0)) for length in videos.num_frames]
    begins = [int(length or 0) - end for length, end in zip(videos.num_frames, lengths, strict=True)]
    free = choose_clips(lengths, count, CLIP_FRAMES, rule='spread').side_by_side
    chosen = choose_clips(lengths, free, CLIP_FRAMES, rule='spread').clips
    return [(video, begins[video] + start) for video, start in chosen]


def read_clips(videos: VideoSet, clips: Sequence[Clip]) -> Iterator[np.ndarray]:
    """Frames of clips that are in order, one pass over each video."""
    for video in dict.fromkeys(video for video, _ in clips):
        yield from videos.clips(video, [start for owner, start in clips if owner == video], CLIP_FRAMES)


class _Codes:
    """W+ codes themselves in the place of a space of features, for generate_windows."""

    @staticmethod
    def projection_of(generator: Any) -> Any:
        return generator.codes


def generated_codes(generator: Any, seeds: Sequence[int], depths: Sequence[int]) -> Iterator[torch.Tensor]:
    """Codes [N, CLIP_FRAMES, num_ws, w_dim] of the windows that begin at each depth, ascending and apart, in one pass."""
    return generate_windows(generator, _Codes(), seeds, [(depth, CLIP_FRAMES) for depth in depths])


def rendered(image_generator: Any, codes: torch.Tensor) -> Iterator[np.ndarray]:
    """Codes [N, CLIP_FRAMES, num_ws, w_dim] -> clips uint8 [CLIP_FRAMES, H, W, 3]."""
    for clip in codes:
        yield np.stack([as_rgb(frame) for frame in render_codes(image_generator, clip, batch=RENDERED_AT_ONCE)])


def compare(real: Features, fake: Features) -> dict[str, float]:
    """All distances of two sets of clips, to six digits.

    `fvd_bias` is what two samples of these sizes of one distribution are expected to get instead of 0, if no clips overlap.
    """
    (real_videos, real_frames), (fake_videos, fake_frames) = real, fake
    statistics = [mean_and_covariance(in_canonical_order(rows)) for rows in (real_videos, fake_videos)]
    frames = [mean_and_covariance(in_canonical_order(rows)) for rows in (real_frames, fake_frames)]
    distances = {
        'fvd': frechet_distance(*statistics[0], *statistics[1]),
        'fvd_bias': expected_bias(statistics[0][1], len(real_videos), len(fake_videos)),
        'clip_kernel_distance': kernel_distance(in_canonical_order(real_videos), in_canonical_order(fake_videos)),
        'frame_distance': frechet_distance(*frames[0], *frames[1]),
    }
    return {name: float(f'{value:.6g}') for name, value in distances.items()}


class FeatureFolder:
    """Features by what decides them."""

    def __init__(self, path: str) -> None:
        self._path = pathlib.Path(path)

    def _file(self, content: dict[str, Any]) -> pathlib.Path:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self._path / f'{digest[:32]}.npz'

    def load(self, content: dict[str, Any]) -> Features | None:
        """Features that were kept under `content` (JSON types), or None."""
        file = self._file(content)
        if not file.exists():
            return None
        with np.load(file, allow_pickle=False) as arrays:
            return arrays['clips'], arrays['frames']

    def save(self, content: dict[str, Any], features: Features) -> None:
        """Keep features; an interruption leaves the file whole or absent."""
        self._path.mkdir(parents=True, exist_ok=True)
        with replacing(str(self._file(content))) as temporary, open(temporary, 'wb') as file:
            np.savez(file, clips=features[0], frames=features[1])
