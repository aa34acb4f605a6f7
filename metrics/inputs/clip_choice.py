"""Which clips of a set of videos are measured: decided before anything is read, by the seed and by the lengths alone.

A clip is num_frames frames, stride frames apart, so it spans (num_frames - 1) stride + 1 frames. The rules:

first     one clip a video, at a given frame; videos are drawn by the seed if there are more than wanted. For generated videos.
random    one clip a video, at a frame drawn by the seed and the video's place: StyleGAN-V's rule, but for any `N` videos instead
          of the first N by name, and the same in every run.
spread    clips evenly spread over everything that the set holds, so a few long recordings give many clips. They overlap
          where the footage is shorter than N clips side by side.
auto      random if there are N videos that are long enough, else spread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

RULES = ('auto', 'first', 'random', 'spread')


@dataclasses.dataclass(frozen=True)
class ClipChoice:
    """The clips of one set.

    Attributes:
        clips: (video, first frame), ordered by both.
        num_frames, stride: Of every clip.
        rule: 'first', 'random' or 'spread'.
        side_by_side: How many of the clips are free of overlap at most.
        too_short: Indices of the videos that cannot hold a clip.
    """

    clips: list[tuple[int, int]]
    num_frames: int
    stride: int
    rule: str
    side_by_side: int
    too_short: list[int]

    @property
    def overlap(self) -> int:
        """How many neighbouring clips share frames, on the average and rounded up: the length of a block of the bootstrap."""
        return -(-len(self.clips) // max(self.side_by_side, 1))


def clip_span(num_frames: int, stride: int) -> int:
    """Frames from the first to the last one of a clip, both included."""
    return (num_frames - 1) * stride + 1


def choose_clips(
    lengths: Sequence[int | None],
    count: int,
    num_frames: int,
    *,
    stride: int = 1,
    start: int = 0,
    rule: str = 'auto',
    seed: int = 0,
    endless: bool = False,
) -> ClipChoice:
    """Choose up to `count` clips.

    Args:
        lengths: Frames of each video; None: without end.
        count: N.
        num_frames, stride: Of a clip.
        start: First frame, for the rule 'first'; the others take clips from anywhere.
        rule: One of RULES.
        seed: What 'random' draws by, and which videos are taken where there are more than wanted.
        endless: Indices beyond `lengths` give further videos.

    Returns:
        The choice; with no clips if no video is long enough.
    """
    if rule not in RULES:
        raise ValueError(f'{rule!r} is none of {", ".join(RULES)}')
    span = clip_span(num_frames, stride)
    needed = span + (start if rule == 'first' else 0)
    if endless:
        return ClipChoice([(index, start) for index in range(count)], num_frames, stride, 'first', count, [])
    long_enough = [index for index, length in enumerate(lengths) if length is None or length >= needed]
    too_short = [index for index, length in enumerate(lengths) if length is not None and length < needed]
    if rule == 'auto':
        rule = 'random' if len(long_enough) >= count else 'spread'
    if rule == 'spread':
        clips = _spread([length or 0 for length in lengths], span, count)
        side_by_side = min(sum((length or 0) // span for length in lengths), len(clips))
        return ClipChoice(clips, num_frames, stride, rule, side_by_side, too_short)
    if len(long_enough) > count:
        order = np.random.RandomState(seed).permutation(len(long_enough))[:count]
        long_enough = [long_enough[place] for place in sorted(order)]
    clips = [(index, start if rule == 'first' else _draw_start(seed, index, lengths[index], span)) for index in long_enough]
    return ClipChoice(clips, num_frames, stride, rule, len(clips), too_short)


def _draw_start(seed: int, index: int, length: int | None, span: int) -> int:
    """First frame of the clip of one video: depends on nothing but seed, place and length."""
    choices = (span if length is None else length) - span + 1
    return int(np.random.RandomState(np.random.SeedSequence([seed, index]).generate_state(4)).randint(choices))


def _spread(lengths: Sequence[int], span: int, count: int) -> list[tuple[int, int]]:
    """Up to `count` of all possible clips, evenly spread."""
    possible = np.array([max(length - span + 1, 0) for length in lengths], dtype=np.int64)
    ends = np.cumsum(possible)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        return []
    chosen = np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(np.int64))
    videos = np.searchsorted(ends, chosen, side='right')
    return [(int(video), int(place - (ends[video] - possible[video]))) for video, place in zip(videos, chosen, strict=True)]
