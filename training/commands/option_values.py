"""Values of options as text: lists of seeds, sizes, names and widths."""

from __future__ import annotations

import re

MAX_SEED = 2**32 - 1  # np.random.RandomState takes no larger one
MAX_SEEDS = 1_000_000  # a longer list is almost certainly a typo


def parse_seeds(text: str) -> list[int]:
    """Read a list of seeds in NVIDIA's notation: '0,1,4-6' returns [0, 1, 4, 5, 6]; doubled seeds count once.

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    seeds: dict[int, None] = {}
    for part in text.replace(' ', '').split(','):
        match = re.fullmatch(r'(\d+)(?:-(\d+))?', part, re.ASCII)
        if match is None:
            raise ValueError(f'{part!r} is neither a seed nor a range of seeds; write for example 0,1,4-6')
        first = int(match[1])
        last = int(match[2]) if match[2] is not None else first
        if last < first:
            raise ValueError(f'the range {part} ends before it begins')
        if last > MAX_SEED:
            raise ValueError(f'seeds go from 0 to {MAX_SEED}, {last} is too large')
        if last - first + 1 + len(seeds) > MAX_SEEDS:
            raise ValueError(f'that is more than {MAX_SEEDS} seeds')
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def parse_size(text: str) -> tuple[int, int]:
    """Read a size: '4x2' returns (4, 2), width first.

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    match = re.fullmatch(r'\s*(\d{1,9})\s*[xX×]\s*(\d{1,9})\s*', text, re.ASCII)
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise ValueError(f'{text!r} is not a size; write width x height, for example 4x2')
    return int(match[1]), int(match[2])


def parse_names(text: str) -> list[str]:
    """Read a comma-separated list of names: 'a,b' returns ['a', 'b']; 'none' and '' return []."""
    if text.strip().lower() in ('', 'none'):
        return []
    return list(dict.fromkeys(name.strip() for name in text.split(',') if name.strip()))


def parse_widths(text: str) -> list[int]:
    """Read a list of layer widths: '64,128,256' returns [64, 128, 256].

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    if not re.fullmatch(r'[1-9]\d{0,4}(,[1-9]\d{0,4})*', text.replace(' ', ''), re.ASCII):
        raise ValueError(f'{text!r} is not a list of whole numbers above 0; write them with commas, as in 4,16')
    return [int(width) for width in text.split(',')]
