"""What is in a latent data set, in numbers: its description, and how its codes move.

With z(t) the codes of a clip, flattened, and s^2 the variance of one value over all frames of the data set,

    step(t) = rms(z(t) - z(t-1)) / s,    jitter(t) = rms(z(t+1) - 2 z(t) + z(t-1)) / s,

rms over the values of a code. Everything is read piece by piece.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from networks.checkpoints.image_generator_lookup import find_image_generator
from networks.errors import InputError
from training.latents.dataset import LatentDataset

FRAMES_AT_ONCE = 256
EXPLAINED = (0.5, 0.9, 0.95, 0.99)  # parts of the variance whose number of components is told
STILL = 0.01  # a step of less than this part of the clip's median step is a frame that stands still
RESEMBLING = 1.0  # frames nearer than this many median steps of their clip are the same moment
COMPONENTS = 64  # in which clips are compared
PROBES = 48  # frames of each clip that are looked for in the others

# ----------------------------------------------------------------------------
# Description.


def describe(dataset: LatentDataset, *, digest: bool = False) -> dict[str, Any]:
    """What `dataset.json` tells, with totals, as JSON values; `digest` adds the sha256 of the content."""
    content: dict[str, Any] = {
        'data': dataset.path,
        'num_clips': len(dataset.clips),
        'num_frames': dataset.num_frames,
        'fps': dataset.fps,
        'seconds': round(sum(clip.num_frames / clip.fps for clip in dataset.clips), 3),
        'num_ws': dataset.num_ws,
        'w_dim': dataset.w_dim,
        'bytes': 4 * dataset.num_frames * dataset.num_ws * dataset.w_dim,
        'image_generator': dataset.image_generator,
        'image_generator_found': _find_generator(dataset),
        'embedding': dataset.embedding,
        'quality': dataset.quality,
        'clips': [
            {'name': clip.name, 'num_frames': clip.num_frames, 'fps': clip.fps, 'source': clip.source, **clip.extra}
            for clip in dataset.clips
        ],
    }
    if digest:
        content['sha256'] = dataset.sha256
    return content


def _find_generator(dataset: LatentDataset) -> str | None:
    try:
        return find_image_generator(dataset.image_generator, snapshot=dataset.path)
    except (InputError, OSError):
        return None


def description_text(content: Mapping[str, Any]) -> str:
    """The description for people."""
    reference = content['image_generator']
    found = content['image_generator_found']
    lines = [
        content['data'],
        f'  {content["num_clips"]} clips, {content["num_frames"]} frames, {_duration(content["seconds"])} '
        f'at {content["fps"]:g} frames per second',
        f'  codes [{content["num_ws"]}, {content["w_dim"]}], {content["bytes"] / 2**20:.1f} MiB',
        f'  image generator {reference.get("path")}, sha256 {reference.get("sha256")}',
        f'    {"found: " + found if found else "not found where it was; train_video.py and preview need --network"}',
        f'  made by: {content["embedding"].get("method", "unknown")}',
    ]
    if content['quality']:
        lines.append('  quality: ' + ', '.join(f'{key} {value:.4g}' for key, value in content['quality'].items()))
    if 'sha256' in content:
        lines.append(f'  content sha256 {content["sha256"]}')
    measures = [
        key
        for key in ('psnr', 'gain', 'lpips', 'identity', 'deviation', 'jitter')
        if any(key in clip for clip in content['clips'])
    ]
    rows = [['clip', 'frames', 'fps', *measures, 'source']]
    for clip in content['clips']:
        rows.append(
            [
                clip['name'],
                str(clip['num_frames']),
                f'{clip["fps"]:g}',
                *(f'{clip[key]:.4g}' if key in clip else '' for key in measures),
                clip['source'],
            ]
        )
    return '\n'.join([*lines, '', *_table(rows)])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f'{minutes:.0f} min {rest:.0f} s' if minutes else f'{rest:.1f} s'


def _table(rows: list[list[str]]) -> list[str]:
    """Lines with aligned columns; the first and the last column stand left, numbers right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        '  '
        + '  '.join(
            text.ljust(width) if column in (0, last) else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


# ----------------------------------------------------------------------------
# Measures.


def measure(dataset: LatentDataset, *, max_frames: int = 4096) -> dict[str, Any]:
    """Measure motion and variance, and find clips that resemble each other.

    Args:
        dataset: Opened data set.
        max_frames: Most frames (evenly spread) from which principal components are computed.

    Returns:
        JSON values: `spread` (s), `components` (number of principal components that explain 50, 90, 95 and 99 % of the
        variance), `clips` with `step` (median), `largest_step`, `jitter` (mean), `still` (part of the frames that
        stand still), `spread` (of the clip, in units of s), and `resembling`: pairs of clips, with the part of the
        first one's frames that the second has, too.
    """
    mean, variance = _moments(dataset)
    spread = float(np.sqrt(variance))
    unit = max(spread, 1e-12)
    sample = _sample(dataset, max_frames) - mean
    values, axes = _principal_components(sample)
    total = max(float(values.sum()), 1e-30)
    explained = np.cumsum(values) / total
    clips = [_measure_clip(dataset, index, unit, mean) for index in range(len(dataset.clips))]
    return {
        'data': dataset.path,
        'num_frames': dataset.num_frames,
        'spread': spread,
        'frames_of_components': len(sample),
        'components': {f'{part:.0%}': int(np.searchsorted(explained, part - 1e-9) + 1) for part in EXPLAINED},
        'clips': clips,
        'resembling': _resembling(dataset, mean, axes[:COMPONENTS]),
    }


def _pieces(dataset: LatentDataset, index: int) -> Iterator[np.ndarray]:
    """Yield codes as float64 `[n, num_ws * w_dim]`."""
    codes = dataset.load_clip(index)
    for start in range(0, len(codes), FRAMES_AT_ONCE):
        yield codes[start : start + FRAMES_AT_ONCE].reshape(-1, dataset.num_ws * dataset.w_dim).astype(np.float64)


def _moments(dataset: LatentDataset) -> tuple[np.ndarray, float]:
    """The mean code `[num_ws * w_dim]` and the variance of one value, averaged over the values."""
    size = dataset.num_ws * dataset.w_dim
    total = np.zeros(size)
    for index in range(len(dataset.clips)):
        for piece in _pieces(dataset, index):
            total += piece.sum(axis=0)
    mean = total / dataset.num_frames
    squares = sum(
        float(np.square(piece - mean).sum()) for index in range(len(dataset.clips)) for piece in _pieces(dataset, index)
    )
    return mean, squares / (dataset.num_frames * size)


def _sample(dataset: LatentDataset, max_frames: int) -> np.ndarray:
    """Up to `max_frames` codes of all clips at equal distances, float64 `[n, num_ws * w_dim]`."""
    chosen = np.unique(np.linspace(0, dataset.num_frames - 1, min(max_frames, dataset.num_frames)).round().astype(int))
    parts, first = [], 0
    for index, clip in enumerate(dataset.clips):
        mine = chosen[(chosen >= first) & (chosen < first + clip.num_frames)] - first
        parts.append(dataset.load_clip(index)[mine].reshape(len(mine), -1).astype(np.float64))
        first += clip.num_frames
    return np.concatenate(parts)


def _principal_components(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances, largest first, and axes `[n, D]` (as many as matter) of centred values `[N, D]`."""
    count, size = centred.shape
    if count < size:  # the smaller of the two products
        variances, left = np.linalg.eigh(centred @ centred.T / count)
        variances, left = variances[::-1].clip(min=0), left[:, ::-1]
        keep = max(int((variances > 1e-12 * max(variances[0], 1e-30)).sum()), 1)
        axes = (left[:, :keep].T @ centred) / np.sqrt(np.maximum(variances[:keep, None] * count, 1e-30))
        return variances, axes
    variances, vectors = np.linalg.eigh(centred.T @ centred / count)
    return variances[::-1].clip(min=0), vectors[:, ::-1].T


def _measure_clip(dataset: LatentDataset, index: int, unit: float, mean: np.ndarray) -> dict[str, Any]:
    clip = dataset.clips[index]
    steps: list[np.ndarray] = []
    jitter, squares = 0.0, 0.0
    before = np.zeros((0, dataset.num_ws * dataset.w_dim))
    for piece in _pieces(dataset, index):
        squares += float(np.square(piece - mean).sum())
        series = np.concatenate([before, piece])
        if len(series) > 1:
            steps.append(np.sqrt(np.square(np.diff(series[max(len(before) - 1, 0) :], axis=0)).mean(axis=1)) / unit)
        if len(series) > 2:
            jitter += float(np.sqrt(np.square(np.diff(series, 2, axis=0)).mean(axis=1)).sum()) / unit
        before = series[-2:]
    lengths = np.concatenate(steps) if steps else np.zeros(1)
    median = float(np.median(lengths))
    return {
        'name': clip.name,
        'num_frames': clip.num_frames,
        'step': median,
        'largest_step': float(lengths.max()),
        'jitter': jitter / max(clip.num_frames - 2, 1),
        'still': float((lengths <= STILL * median).mean()) if steps else 0.0,
        'spread': float(np.sqrt(squares / (clip.num_frames * mean.size))) / unit,
    }


def _resembling(dataset: LatentDataset, mean: np.ndarray, axes: np.ndarray) -> list[dict[str, Any]]:
    """Find clips that hold the same moments: frames of one nearer to the other's than it usually moves in one step."""
    coordinates = [
        np.concatenate([(piece - mean) @ axes.T for piece in _pieces(dataset, index)]) for index in range(len(dataset.clips))
    ]
    pairs = []
    for first, mine in enumerate(coordinates):
        step = float(np.median(np.linalg.norm(np.diff(mine, axis=0), axis=1))) if len(mine) > 1 else 0.0
        probes = mine[np.unique(np.linspace(0, len(mine) - 1, PROBES).round().astype(int))]
        for second, other in enumerate(coordinates):
            if first == second:
                continue
            nearest = np.full(len(probes), np.inf)
            for start in range(0, len(other), 4096):
                part = other[start : start + 4096]
                distances = np.square(probes).sum(1)[:, None] - 2 * probes @ part.T + np.square(part).sum(1)[None]
                nearest = np.minimum(nearest, distances.clip(min=0).min(axis=1))
            shared = float((np.sqrt(nearest) <= RESEMBLING * step + 1e-6 * np.linalg.norm(probes, axis=1)).mean())
            if shared >= 0.05:
                pairs.append({'clip': dataset.clips[first].name, 'other': dataset.clips[second].name, 'shared': shared})
    return sorted(pairs, key=lambda pair: -pair['shared'])


def measures_text(content: Mapping[str, Any]) -> str:
    """The measures for people."""
    rows = [['clip', 'frames', 'step', 'largest', 'jitter', 'still', 'spread', '']]
    for clip in content['clips']:
        rows.append(
            [
                clip['name'],
                str(clip['num_frames']),
                f'{clip["step"]:.3f}',
                f'{clip["largest_step"]:.3f}',
                f'{clip["jitter"]:.3f}',
                f'{clip["still"]:.1%}',
                f'{clip["spread"]:.2f}',
                '',
            ]
        )
    parts = ', '.join(f'{count} for {part}' for part, count in content['components'].items())
    lines = [
        os.fspath(content['data']),
        f'  {content["num_frames"]} frames; one value varies by {content["spread"]:.4g}, the unit of the numbers below',
        f'  principal components of the variance: {parts} (of {content["frames_of_components"]} frames)',
        '',
        *_table(rows),
    ]
    if content['resembling']:
        lines += ['', '  Clips that share moments:']
        lines += [f'    {pair["shared"]:.0%} of {pair["clip"]} is in {pair["other"]}' for pair in content['resembling']]
    return '\n'.join(lines)
