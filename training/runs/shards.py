"""Independent jobs that share a list of pieces: `--shard=K/N` is the K-th of N, and knows nothing of the others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import click

Piece = TypeVar('Piece')
MOST_SHARDS = 100_000


@dataclasses.dataclass(frozen=True)
class Shard:
    """The share of one job.

    Attributes:
        number: From 1 to `count`.
        count: How many jobs there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f'{self.number}-of-{self.count}'

    def of(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return every count-th piece, beginning with the number-th."""
        return list(pieces[self.number - 1 :: self.count])


def parse_shard(text: str) -> Shard:
    """Read '3/8'.

    Raises:
        ValueError: one sentence on what is wrong with the text.
    """
    match = re.fullmatch(r'\s*(\d{1,6})\s*/\s*(\d{1,6})\s*', text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= MOST_SHARDS:
        raise ValueError(f'{text!r} is not a share of the work; write for example 1/8 to 8/8 for eight jobs')
    return Shard(int(match[1]), int(match[2]))


class _ShardType(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = 'K/N'

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, Shard):
            return value
        try:
            return parse_shard(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


SHARD = _ShardType()
