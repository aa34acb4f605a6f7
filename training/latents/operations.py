"""Data sets of latents out of others: joined, divided, converted. Codes are copied piece by piece, never held as a whole."""

import contextlib
import dataclasses
import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from networks.checkpoints.durable_files import replacing
from networks.checkpoints.tuned_generators import share_space
from networks.errors import InputError, option
from training.commands.progress import progress, report
from training.latents.codes_output import CodesWriter
from training.latents.dataset import ClipInfo, LatentDataset
from training.latents.layout import QUALITY_MEASURES
from training.latents.writer import LatentDatasetWriter, was_left
from training.runs.shards import MOST_SHARDS

FRAMES_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class Selection:
    """Frames `start` to `stop - 1` of one clip, and what they will be called."""

    dataset: LatentDataset
    index: int
    name: str
    start: int
    stop: int

    @property
    def info(self) -> ClipInfo:
        """The whole clip."""
        return self.dataset.clips[self.index]


def whole_clips(dataset: LatentDataset, indices: Iterable[int] | None = None) -> list[Selection]:
    """Select clips from their first to their last frame; None: all."""
    chosen = range(len(dataset.clips)) if indices is None else indices
    return [Selection(dataset, index, dataset.clips[index].name, 0, dataset.clips[index].num_frames) for index in chosen]


def match_clips(dataset: LatentDataset, patterns: Sequence[str]) -> list[int]:
    """The indices of the clips whose name fits one of the patterns (`*` and `?`); all for no pattern.

    Raises:
        InputError: A pattern fits no clip.
    """
    if not patterns:
        return list(range(len(dataset.clips)))
    names = [clip.name for clip in dataset.clips]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            shown = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
            raise InputError(f'{dataset.path}: no clip is called {pattern!r}; its clips are {shown}.')
    return [index for index, name in enumerate(names) if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def write_selections(
    parts: Mapping[str, Sequence[Selection]],
    *,
    image_generator: dict[str, Any],
    embedding: dict[str, Any],
    overwrite: bool = False,
    sigma: float | None = None,
) -> None:
    """Write data sets from parts of others, all of them or none; an interrupted call goes on with those that are not there yet.

    Measures of a whole clip (PSNR, jitter, ...) are not those of a part or of filtered codes, and are left out there; whatever
    else `dataset.json` says of a clip comes along, arrays that belong to its frames included.

    Args:
        parts: A .zip or a folder -> what it shall hold, with unique names.
        image_generator, embedding: For `dataset.json`.
        overwrite: Whether what exists may be replaced.
        sigma: Of a filter over time, frames (`gaussian_filter`); None: codes stay as they are.
    """
    content = _content(parts, sigma)
    with contextlib.ExitStack() as stack:
        writers = {}
        for dest in reversed(
            [dest for dest in parts if not is_written(dest, parts, sigma)]
        ):  # what is entered last is finished first
            first = parts[dest][0].dataset
            writers[dest] = stack.enter_context(
                LatentDatasetWriter(
                    dest, image_generator=image_generator, num_ws=first.num_ws, w_dim=first.w_dim, embedding=embedding,
                    overwrite=overwrite, content=content,
                )
            )  # fmt: skip
        for dest, writer in reversed(writers.items()):
            total = sum(part.stop - part.start for part in parts[dest])
            with progress(total=total, description=os.path.basename(dest)) as bar:
                for part in parts[dest]:
                    if not writer.has_clip(part.name):
                        _copy(part, writer, sigma)
                    bar.update(part.stop - part.start)


def is_written(dest: str, parts: Mapping[str, Sequence[Selection]], sigma: float | None = None) -> bool:
    """Whether an interrupted call of `write_selections` has finished this data set: it is there, and another one is left."""
    content = _content(parts, sigma)
    return os.path.exists(dest) and any(was_left(other, content) for other in parts if other != dest)


def _content(parts: Mapping[str, Sequence[Selection]], sigma: float | None) -> list[Any]:
    """What decides which clips go where."""
    chosen = [
        [
            os.path.abspath(dest),
            [[os.path.abspath(part.dataset.path), part.index, part.name, part.start, part.stop] for part in some],
        ]
        for dest, some in parts.items()
    ]
    return [chosen, sigma]


def _copy(part: Selection, writer: LatentDatasetWriter, sigma: float | None = None) -> None:
    codes = part.dataset.load_clip(part.index)
    if sigma is not None:
        codes = gaussian_filter(codes, sigma)
    clip = writer.open_clip(part.name, restart=True)
    for start in range(part.start, part.stop, FRAMES_AT_ONCE):
        clip.append(codes[start : min(start + FRAMES_AT_ONCE, part.stop)])
    whole = part.stop - part.start == part.info.num_frames and sigma is None
    arrays = part.dataset.frame_arrays(part.index)
    extra = {key: value for key, value in part.info.extra.items() if key != 'arrays' and (whole or key not in QUALITY_MEASURES)}
    if isinstance(extra.get('first_frame'), int):
        extra['first_frame'] += part.start
    clip.close(
        fps=part.info.fps,
        source=part.info.source,
        arrays={key: values[part.start : part.stop] for key, values in arrays.items()},
        **extra,
    )


# ----------------------------------------------------------------------------
# Joining.


def merge(datasets: Sequence[LatentDataset], dest: str, *, force: bool = False, overwrite: bool = False) -> None:
    """Join data sets; clips of equal names get numbers.

    Args:
        datasets: At least one.
        dest: A .zip, or a folder.
        force: Allow different image generators (their spaces must be the same) and frame rates.
        overwrite: Whether `dest` may be replaced.

    Raises:
        InputError: The data sets do not go together.
    """
    first = datasets[0]
    for other in datasets[1:]:
        if (other.num_ws, other.w_dim) != (first.num_ws, first.w_dim):
            raise InputError(
                f'{other.path} has codes [{other.num_ws}, {other.w_dim}], {first.path} has '
                f'[{first.num_ws}, {first.w_dim}]; they belong to different image generators and cannot be joined.'
            )
        if not force and not _same_space(other.image_generator, first.image_generator):
            raise InputError(
                f'{other.path} was made with another image generator ({_generator(other)}) than {first.path} '
                f'({_generator(first)}); if both have the same W+ space, join them with {option("force", True)}.'
            )
    rates = sorted({clip.fps for dataset in datasets for clip in dataset.clips})
    if len(rates) > 1 and not force:
        raise InputError(
            f'The clips have different rates ({", ".join(f"{rate:g}" for rate in rates)} frames per second), and a temporal '
            f'model wants one; embed them with one {option("fps")}, or join them anyway with {option("force", True)}.'
        )
    selections: list[Selection] = []
    taken: set[str] = set()
    order = _order_of_shards(datasets, force)
    parts = [part for dataset in datasets for part in whole_clips(dataset)]
    if order is not None:
        parts.sort(key=lambda part: order.get(part.info.source, len(order)))
    for part in parts:
        name, number = part.name, 2
        while name in taken:
            name, number = f'{part.name}-{number}', number + 1
        taken.add(name)
        selections.append(dataclasses.replace(part, name=name))
    embeddings = [dataset.embedding for dataset in datasets]
    if order is not None:  # what a single job would have written
        embeddings = [{key: value for key, value in entry.items() if key != 'shard'} for entry in embeddings]
    embedding = (
        embeddings[0]
        if all(entry == embeddings[0] for entry in embeddings)
        else {'method': 'merged', 'parts': [{'data': dataset.path, **dataset.embedding} for dataset in datasets]}
    )
    write_selections({dest: selections}, image_generator=first.image_generator, embedding=embedding, overwrite=overwrite)


def _same_space(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.get('sha256') == second.get('sha256') or share_space(first, second)


def _order_of_shards(datasets: Sequence[LatentDataset], force: bool) -> dict[str, int] | None:
    """Places of the recordings that several jobs have shared out (`embed_video.py --shard`); None: not all are shares.

    Raises:
        InputError: Shares of different jobs, one twice, or one that is missing.
    """
    found = [dataset.embedding.get('shard') for dataset in datasets]
    shards: list[dict[str, Any]] = [shard for shard in found if isinstance(shard, dict)]
    if force or len(shards) < len(datasets):
        if shards and not force:
            whole, part = (next(data.path for data, shard in zip(datasets, found, strict=True) if isinstance(shard, dict) == kind)
                           for kind in (False, True))  # fmt: skip
            raise InputError(
                f'{part} is a share of a larger embedding and {whole} is not; join all shares first, or add --force.'
            )
        return None
    numbers: dict[int, str] = {}
    for dataset, shard in zip(datasets, shards, strict=True):
        if (shard.get('count'), shard.get('recordings')) != (shards[0].get('count'), shards[0].get('recordings')):
            raise InputError(
                f'{dataset.path} and {datasets[0].path} are shares of different embeddings; join shares of the same recordings, '
                'or add --force.'
            )
        number = shard.get('number', 0)
        if not isinstance(number, int) or number in numbers:
            raise InputError(
                f'{dataset.path} and {numbers.get(number, "another")} are the same share of the work; give each one once.'
            )
        numbers[number] = dataset.path
    count = shards[0].get('count')
    missing = sorted(set(range(1, count + 1)) - set(numbers)) if isinstance(count, int) and 0 < count <= MOST_SHARDS else []
    if missing:
        shown = ', '.join(f'{number}/{count}' for number in missing[:5]) + (', ...' if len(missing) > 5 else '')
        raise InputError(
            f'Of {count} shares {len(missing)} are missing: {shown}; embed them with --shard, or add {option("force", True)}.'
        )
    recordings = shards[0].get('recordings')
    return {source: place for place, source in reversed(list(enumerate(recordings if isinstance(recordings, list) else [])))}


def _generator(dataset: LatentDataset) -> str:
    reference = dataset.image_generator
    return f'{reference.get("path") or "unknown"}, sha256 {str(reference.get("sha256"))[:12]}...'


# ----------------------------------------------------------------------------
# Dividing.


def split_by_group(
    dataset: LatentDataset, group_of: Callable[[ClipInfo], str], test_fraction: float, seed: int
) -> tuple[list[Selection], list[Selection]]:
    """Divide clips so that no group is in both parts.

    Groups go to the test part in random order, each if that brings its length nearer to `test_fraction` of the frames.

    Args:
        dataset: What is divided.
        group_of: Group of a clip, for example its recording or its speaker.
        test_fraction: Part of the frames for the second data set.
        seed: Of the order.

    Returns:
        The selections of the two parts.

    Raises:
        InputError: There is but one group.
    """
    groups: dict[str, list[int]] = {}
    for index, clip in enumerate(dataset.clips):
        groups.setdefault(group_of(clip), []).append(index)
    if len(groups) < 2:
        (only,) = groups
        raise InputError(f'{dataset.path}: all clips belong together ({only!r}), so nothing can be divided; divide by time.')
    lengths = {name: sum(dataset.clips[index].num_frames for index in indices) for name, indices in groups.items()}
    order = sorted(groups)
    np.random.RandomState(seed).shuffle(order)
    wanted, length = test_fraction * dataset.num_frames, 0
    chosen: set[str] = set()
    for name in order:
        if len(chosen) < len(groups) - 1 and abs(length + lengths[name] - wanted) < abs(length - wanted):
            chosen.add(name)
            length += lengths[name]
    if not chosen:  # every group is more than twice as long as wanted: the shortest is nearest
        chosen.add(min(order, key=lambda name: lengths[name]))
    test = [index for index, clip in enumerate(dataset.clips) if group_of(clip) in chosen]
    train = [index for index in range(len(dataset.clips)) if index not in set(test)]
    return whole_clips(dataset, train), whole_clips(dataset, test)


def speaker_of(pattern: str) -> Callable[[ClipInfo], str]:
    """A function that finds the speaker in the name of a clip.

    Args:
        pattern: Regular expression; its first group, or what it matches, is the speaker.

    Raises:
        InputError: Not a regular expression. The function: it does not match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f'{pattern!r} is not a regular expression: {error}.') from error

    def find(clip: ClipInfo) -> str:
        match = expression.search(clip.name)
        if match is None:
            raise InputError(f'The expression {pattern!r} finds no speaker in the name {clip.name!r}.')
        return (match.group(1) or '') if expression.groups else match.group()

    return find


def split_by_time(dataset: LatentDataset, test_fraction: float, gap: int) -> tuple[list[Selection], list[Selection]]:
    """Give the last part of every clip to the second data set.

    Args:
        dataset: What is divided.
        test_fraction: Part of each clip's frames for the second data set.
        gap: Frames between the two parts that neither gets, because neighbours resemble each other.

    Raises:
        InputError: Every clip is too short.
    """
    train, test = [], []
    for part in whole_clips(dataset):
        length = round((part.stop - gap) * test_fraction)
        end = part.stop - length - gap
        if length < 1 or end < 1:
            report(f'{part.name}: {part.stop} frames are too few to be divided; all are in the first part.')
            train.append(part)
            continue
        train.append(dataclasses.replace(part, stop=end))
        test.append(dataclasses.replace(part, start=part.stop - length))
    if not test:
        raise InputError(f'{dataset.path}: every clip is too short to be divided by time.')
    return train, test


# ----------------------------------------------------------------------------
# Smoothing.


def gaussian_filter(codes: np.ndarray, sigma: float) -> np.ndarray:
    """Low-pass filters codes over time.

    Args:
        codes: `[T, ...]`; before its beginning and after its end the first and the last code go on.
        sigma: Standard deviation of the Gaussian kernel, frames; it is cut off at four of them.

    Returns:
        float32 array of the same shape.
    """
    radius = max(int(4 * sigma + 0.5), 1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    result = np.empty(codes.shape, np.float32)
    for start in range(0, len(codes), FRAMES_AT_ONCE):
        stop = min(start + FRAMES_AT_ONCE, len(codes))
        part = codes[np.arange(start - radius, stop + radius).clip(0, len(codes) - 1)].astype(np.float64)
        result[start:stop] = sum(weight * part[shift : shift + stop - start] for shift, weight in enumerate(kernel))
    return result


# ----------------------------------------------------------------------------
# Other tools' files.


def export_codes(dataset: LatentDataset, index: int, path: str) -> None:
    """Write the codes of one clip for other tools, by the ending of the name.

    `.npz`: `w` float32 `[T, num_ws, w_dim]` (the key of NVIDIA's projector) and `fps`; `.npy`: the array;
    `.pt`: a tensor, as e4e writes it.

    Raises:
        InputError: Another ending.
    """
    codes, ending = dataset.load_clip(index), os.path.splitext(path)[1].lower()
    if ending == '.npz':
        with CodesWriter(path, codes.shape, fps=dataset.clips[index].fps) as writer:
            for code in codes:
                writer.write(code)
        return
    if ending not in ('.npy', '.pt'):
        raise InputError(f'{path}: codes are written to .npz, .npy or .pt.')
    with replacing(path) as temporary:
        if ending == '.npy':
            with open(temporary, 'wb') as file:
                np.lib.format.write_array(file, codes)
        else:
            torch.save(torch.from_numpy(codes), temporary)
