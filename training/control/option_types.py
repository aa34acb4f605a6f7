"""Types and choices of generate_video.py's options; nothing heavy is imported here, so that `--help` answers at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?'
TRANSFERS = ('shrinkage', 'layers', 'orthogonal', 'offset', 'regression')  # the first is the default
FORMATS = ('mp4', 'webm', 'gif', 'webp', 'prores', 'png')
PADS = ('blur', 'black', 'white', 'edge')
EASINGS = ('cubic', 'linear', 'smooth')


def parse_keyframe_pairs(text: str) -> list[tuple[float, float]]:
    """Read '0.7' or '1@0,0.5@100': (frame, value) of each keyframe.

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    parts = text.replace(' ', '').split(',')
    pairs = []
    for part in parts:
        match = re.fullmatch(rf'({NUMBER})(?:@(\d{{1,12}}))?', part, re.ASCII)
        if match is None:
            raise ValueError(f'{part!r} is neither a number nor VALUE@FRAME; write for example 0.7, or 1@0,0.5@100')
        if match[2] is None and len(parts) > 1:
            raise ValueError(f'{part!r} does not say at which frame; write {part}@FRAME')
        if abs(value := float(match[1])) > 1e6:
            raise ValueError(f'{part!r} is too large')
        pairs.append((float(match[2] or 0), value))
    frames = [frame for frame, _ in pairs]
    if frames != sorted(set(frames)):
        raise ValueError(f'the frames of {text!r} do not rise; name each frame once, in order')
    return pairs


def parse_transition(text: str) -> tuple[int, int, int]:
    """Read SEED@BEGIN-END: from frame BEGIN to frame END the video goes over to this seed.

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    match = re.fullmatch(r'(\d{1,10})@(\d{1,12})-(\d{1,12})', text, re.ASCII)
    if match is None or int(match[3]) <= int(match[2]) or int(match[1]) > 2**32 - 1:
        raise ValueError(f'{text!r} is no transition; write SEED@BEGIN-END, for example 7@100-150')
    return int(match[1]), int(match[2]), int(match[3])


def parse_reaction(text: str) -> float:
    """Read 'motion:0.8': the strength.

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    match = re.fullmatch(rf'motion:({NUMBER})', text, re.ASCII)
    if match is None or not 0 < float(match[1]) <= 10:
        raise ValueError(f'{text!r} is no reaction; write motion:STRENGTH with a strength up to 10, for example motion:0.8')
    return float(match[1])


class _Checked(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Text that a parser understands; the text itself is the value, and `keep` takes what the parser returns."""

    def __init__(self, name: str, parse: Callable[[str], Any], keep: bool = False) -> None:
        self.name, self._parse, self._keep = name, parse, keep

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            parsed = self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return parsed if self._keep else value.replace(' ', '')


KEYFRAMES = _Checked('keyframes', parse_keyframe_pairs)  # '1@0,0.5@100' -> the same
TRANSITION = _Checked('transition', parse_transition)  # '7@100-150' -> the same
REACTION = _Checked('reaction', parse_reaction, keep=True)  # 'motion:0.8' -> 0.8
