"""The table of options: two values of each, and what of the result has to differ between them.

A row names the part of the result that shows that the option was obeyed, never the place where it is only recorded. An option
without a row fails `test_every_option.py`. Equal commands run once (`Workshop.run`), so most rows cost one run.
"""

import dataclasses
import functools
import hashlib
import json
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from option_workshop import Run, Workshop

from networks import checkpoints
from training.latents.dataset import LatentDataset

# ----------------------------------------------------------------------------
# What of a result is looked at.

Observed = Callable[[Run], Any]


def outcome(run: Run) -> Any:
    """Whether it worked, and what was wrong; paths of this run left out."""
    return run.exit_code, run.stderr.replace(str(run.folder), '').strip().splitlines()[-1:] if run.exit_code else None


def said(run: Run) -> Any:
    """All words, but for times and paths."""
    text = run.stdout + run.stderr
    return run.exit_code, re.sub(r'\d+(\.\d+)?s\b|\d+:\d+|[\d.]+ ?(frame|image|video|clip)s?/s|/\S+', '', text)


def pictures(run: Run) -> Any:
    """The PNG files, or why there are none."""
    return outcome(run) if run.exit_code else content('*.png')(run)


def names(run: Run) -> list[str]:
    """Relative paths of all files."""
    paths = [
        path for path in (run.folder).rglob('*') if path.is_file() and 'cache' not in path.parts and 'tfevents' not in path.name
    ]
    return sorted(str(path.relative_to(run.folder)) for path in paths)


@functools.cache  # equal ones are one
def content(*patterns: str) -> Observed:
    """Digest of the files that match."""

    def digest(run: Run) -> Any:
        found = sorted(path for pattern in patterns for path in run.folder.rglob(pattern) if path.is_file())
        assert found, f'nothing like {patterns}: {names(run)}; {run.stderr}'
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in found]

    return digest


def digest_of(tensors: Any) -> str:
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(np.ascontiguousarray(tensor).tobytes())
    return state.hexdigest()


@functools.cache  # equal ones are one
def weights(*keys: str, pattern: str = '*.pkl') -> Observed:
    """Digest of networks in the last snapshot."""

    def digest(run: Run) -> Any:
        paths = sorted(run.folder.rglob(pattern))
        assert paths, run.stderr
        if keys == ('encoder',):
            return digest_of(value.numpy() for value in checkpoints.load_encoder(str(paths[-1])).state_dict().values())
        snapshot = checkpoints.load_snapshot(str(paths[-1]))
        return [digest_of(value.numpy() for value in snapshot[key].state_dict().values()) for key in keys]

    return digest


def image_weights(run: Run) -> str:
    (path,) = run.folder.glob('x.pkl')
    G: Any = checkpoints.load_generator(str(path))
    return digest_of(value.numpy() for value in G.state_dict().values())


@functools.cache  # equal ones are one
def statistic(name: str) -> Observed:
    """The means in stats.jsonl."""

    def read(run: Run) -> Any:
        (path,) = run.folder.rglob('stats.jsonl')
        return [json.loads(line)[name]['mean'] for line in path.read_text().splitlines()]

    return read


@functools.cache  # equal ones are one
def num_lines(pattern: str) -> Observed:
    return lambda run: [len(path.read_text().splitlines()) for path in run.folder.rglob(pattern)]


def codes(run: Run) -> Any:
    """Clips and codes of every data set that was written."""
    found = {}
    for path in sorted(run.folder.glob('*.zip')):
        with LatentDataset(str(path)) as dataset:
            clips = dataset.clips
            found[path.name] = [(clip.name, digest_of([dataset.load_clip(index)])) for index, clip in enumerate(clips)]
    assert found, run.stderr
    return found


def clip_sizes(run: Run) -> Any:
    found = []
    for path in sorted(run.folder.glob('*.zip')):
        with LatentDataset(str(path)) as dataset:
            found.append([(clip.name, clip.num_frames, clip.fps) for clip in dataset.clips])
    assert found, run.stderr
    return found


@functools.cache  # equal ones are one
def quality(*keys: str) -> Observed:
    def read(run: Run) -> Any:
        (path,) = run.folder.glob('*.zip')
        with LatentDataset(str(path)) as dataset:
            return [{key: clip.extra.get(key) for key in keys} for clip in dataset.clips]

    return read


def results(run: Run) -> Any:
    """The numbers of every metric."""
    assert run.exit_code == 0, run.stderr
    return [json.loads(line)['results'] for line in run.stdout.splitlines()]


@functools.cache  # equal ones are one
def largest(name: str) -> Observed:
    return lambda run: max(getattr(run, name))


@functools.cache
def evening(key: str) -> Observed:
    """What the viewers of a live view found."""

    def read(run: Run) -> Any:
        found = [json.loads(path.read_text()).get(key) for path in run.folder.rglob('evening.json')]
        return found or outcome(run)

    return read


@functools.cache
def address(part: str) -> Observed:
    """A part of the live view's address: `hostname`, `port` or `query`."""
    return lambda run: [getattr(urllib.parse.urlsplit(url), part) for url in evening('url')(run)]


# ----------------------------------------------------------------------------
# Rows.


@dataclasses.dataclass(frozen=True)
class Row:
    """`command` with the words of `base`, and those of `first` or of `second`: `observed` has to differ."""

    command: str
    option: str
    base: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]
    observed: Observed

    def __str__(self) -> str:
        return f'{self.command} {self.option}'


def rows(command: str, base: tuple[str, ...], *table: tuple[Any, ...]) -> list[Row]:
    """(option, first value, second value, what differs); None leaves the option out, True is a flag, a tuple is more words."""
    made = []
    for option, first, second, observed in table:
        flag = option.split(' ')[0]

        def words(value: Any, flag: str = flag) -> tuple[str, ...]:
            if value is None:
                return ()
            return value if isinstance(value, tuple) else (flag,) if value is True else (f'{flag}={value}',)

        made.append(Row(command, flag, base, words(first), words(second), observed))
    return made


def preparation(sizes: Observed, pictures: Observed, *more: str) -> list[tuple[Any, ...]]:
    """Rows of what commands have in common that take footage; `more` are words that all of them need."""
    video, landmarks = (*more, '--source={video}'), (*more, '--align=ffhq', '--landmarks={landmarks}', '--min-frames=2')
    damaged, detected = (*more, '--source={damaged}'), (*more, '--align=ffhq')
    return [
        ('--start', video, (*video, '--start=0.5'), sizes),
        ('--end', video, (*video, '--end=1.8'), sizes),
        ('--align', more, landmarks, pictures),
        ('--landmarks', landmarks, (*more, '--align=ffhq', '--landmarks={generator}'), outcome),
        ('--face', detected, (*detected, '--face=left'), pictures),
        ('--face-model', detected, (*detected, '--face-model={generator}'), pictures),
        ('--center-sigma', landmarks, (*landmarks, '--center-sigma=4'), pictures),
        ('--axes-sigma', landmarks, (*landmarks, '--axes-sigma=0'), pictures),
        ('--bridge', landmarks, (*landmarks, '--bridge=1'), sizes),
        ('--scene-cuts', more, (*more, '--scene-cuts=ignore'), sizes),
        ('--min-frames', more, (*more, '--min-frames=12'), sizes),
        ('--damaged', damaged, (*damaged, '--damaged=skip'), outcome),
        ('--fps', video, (*video, '--fps=5'), sizes),
    ]


# ----------------------------------------------------------------------------
# The tests of a table.


def words(row: Row, more: tuple[str, ...]) -> list[str]:
    """`{again}` stands for the words of `base`."""
    return [word for part in (*row.base, *more) for word in (row.base if part == '{again}' else (part,))]


def obeyed(table: list[Row]) -> tuple[Callable[..., None], Callable[..., None]]:
    """Two tests: every row's results differ, and those of equal commands do not, without which the first could not fail."""

    @pytest.mark.parametrize('row', table, ids=str)
    def test_option_is_obeyed(workshop: Workshop, row: Row) -> None:
        first, second = (workshop.run(row.command, *words(row, more)) for more in (row.first, row.second))
        if row.observed not in (outcome, said, pictures):
            assert (first.exit_code, second.exit_code) == (0, 0), first.stderr + second.stderr
        before, after = row.observed(first), row.observed(second)
        assert before != after, f'{row.first} and {row.second} gave the same: {before}; {second.stderr[-500:]}'

    def test_equal_commands_give_equal_results(workshop: Workshop) -> None:
        by_kind: dict[tuple[str, Observed], Row] = {}
        for row in table:
            if row.observed not in (outcome, names):  # what hardly comes out by chance
                by_kind.setdefault((row.command, row.observed), row)
        for row in by_kind.values():
            first, again = (workshop.run(row.command, *words(row, row.first), fresh=fresh) for fresh in (False, True))
            assert row.observed(first) == row.observed(again), row

    return test_option_is_obeyed, test_equal_commands_give_equal_results
