"""What every metric says of faults that are known: real footage, changed in one way at a time.

    python -m benchmarks.metrics.metric_table --footage=../shared/footage/aligned128 --results=metric-table.jsonl
    python -m benchmarks.metrics.metric_table --data=demo-output/latents.zip --results=metric-table.jsonl
    python -m benchmarks.metrics.metric_table --results=metric-table.jsonl --table

--footage measures pictures: videos of 5 seconds at 25 frames per second, one speaker each; --data measures codes. Every number
is one line in --results, and what is there already is not computed again. --table prints the tables of
docs/measuring/metric_guide.md.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
import numpy as np
import torch

from metrics import metric_main
from metrics.discovery import discover_metrics, find_metric
from metrics.inputs.video_comparison import VideoComparison, VideoOptions
from metrics.inputs.video_set import VideoSet
from training.commands import command_line
from training.videos.recorded_videos import RecordedVideos

FPS = 25.0
PICTURE_FRAMES = 125  # of a video; the shortest recordings have 7 seconds
CODE_FRAMES = 250
PICTURE_METRICS = ('repetition_125f', 'drift_125f', 'motion_125f', 'diversity_125f', 'fvd64_16f')
CODE_METRICS = ('lfd2048_25f', 'repetition_latent_250f', 'drift_latent_250f', 'motion_latent_250f', 'diversity_latent_250f')

# ----------------------------------------------------------------------------
# Faults: functions of one video, float [T, ...] -> [T, ...]


def at(video: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The video at times between its frames, by linear interpolation."""
    before = np.minimum(np.floor(positions).astype(int), len(video) - 2)
    share = (positions - before).reshape(-1, *[1] * (video.ndim - 1)).astype(np.float32)
    return video[before] * (1 - share) + video[before + 1] * share


def faults(unit: Any) -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """Name -> fault(video, number of the video); `unit` is a standard deviation of the data, a number or an array."""

    def noise(video: np.ndarray, index: int) -> np.ndarray:
        return np.random.RandomState(index).standard_normal(video.shape).astype(np.float32) * unit

    def time(video: np.ndarray) -> np.ndarray:
        return np.arange(len(video), dtype=np.float64)

    return {
        'as it is': lambda video, index: video,
        'played backwards': lambda video, index: video[::-1],
        'half as fast': lambda video, index: at(video, time(video) / 2),
        'frames in random order': lambda video, index: video[np.random.RandomState(index).permutation(len(video))],
        'frozen at the first frame': lambda video, index: np.repeat(video[:1], len(video), axis=0),
        'freezes half way': lambda video, index: at(video, np.minimum(time(video), len(video) // 2)),
        'loop of 40.4 frames': lambda video, index: at(video, time(video) % 40.4),
        'the same with a little noise': lambda video, index: at(video, time(video) % 40.4) + 0.1 * noise(video, index),
        'forwards and backwards': lambda video, index: at(video, np.abs(len(video) // 2 - time(video))),
        'noise of 0.3 standard deviations added': lambda video, index: video + 0.3 * noise(video, index),
        'noise only': lambda video, index: np.zeros_like(video) + video.mean(axis=0) + noise(video, index),
        'drifts by 2 standard deviations': lambda video, index: (
            video + 2 * unit * np.linspace(0, 1, len(video), dtype=np.float32).reshape(-1, *[1] * (video.ndim - 1))
        ),
    }


# ----------------------------------------------------------------------------
# Pictures


class FramesInMemory(VideoSet):
    """Videos out of arrays uint8 [T, H, W, 3]."""

    def __init__(self, videos: Iterable[np.ndarray], kind: str) -> None:
        self._videos = list(videos)
        self.names = [f'{kind} {index}' for index in range(len(self._videos))]
        self.num_frames, self.fps, self.left_out = [len(video) for video in self._videos], FPS, {}
        self.description = {'kind': kind, 'videos': len(self._videos)}
        digest = hashlib.sha256()
        for video in self._videos:
            digest.update(f'{video.shape}'.encode() + np.ascontiguousarray(video).tobytes())
        self._sha256 = digest.hexdigest()

    @property
    def resolution(self) -> tuple[int, int]:
        return self._videos[0].shape[1], self._videos[0].shape[2]

    @property
    def sha256(self) -> str:
        return self._sha256

    def frames(self, index: int, wanted: Iterable[int]) -> Iterator[np.ndarray]:
        for number in wanted:
            if number >= len(self._videos[index]):
                return
            yield self._videos[index][number]


def picture_rows(footage: str) -> Iterator[tuple[str, VideoSet, VideoSet]]:
    """Name of the row, real set, fake set."""
    recorded = RecordedVideos(footage, fps=FPS)
    clips = [
        np.stack(list(recorded.stream(index)))
        for index, length in enumerate(recorded.num_frames)
        if length is None or length >= PICTURE_FRAMES
    ]
    first = [clip[:PICTURE_FRAMES] for clip in clips]
    long = [clip for clip in clips if len(clip) >= 2 * PICTURE_FRAMES]
    real = FramesInMemory(first, 'footage')
    unit = 50.0  # grey levels: about the standard deviation of these recordings
    for name, fault in faults(unit).items():
        changed = (fault(clip.astype(np.float32), index) for index, clip in enumerate(first))
        yield name, real, FramesInMemory([video.round().clip(0, 255).astype(np.uint8) for video in changed], name)
    yield 'always the same video', real, FramesInMemory([first[0]] * len(first), 'same')
    yield (
        'the same speakers at another time',
        FramesInMemory([clip[:PICTURE_FRAMES] for clip in long], 'earlier'),
        FramesInMemory([clip[-PICTURE_FRAMES:] for clip in long], 'later'),
    )
    yield 'other speakers', FramesInMemory(first[0::2], 'some'), FramesInMemory(first[1::2], 'others')


# ----------------------------------------------------------------------------
# Codes


class CodesInMemory:
    """Stands for a latent data set: clips [T, num_ws, w_dim]."""

    def __init__(self, clips: list[np.ndarray]) -> None:
        self.clips, self.fps = clips, FPS
        self.num_ws, self.w_dim = clips[0].shape[1:]

    def load_clip(self, index: int) -> np.ndarray:
        return self.clips[index]

    def close(self) -> None:
        return


def code_rows(data: str) -> Iterator[tuple[str, list[np.ndarray], list[np.ndarray]]]:
    """Name of the row, real clips, fake videos: the first half of the footage, and changed stretches of the second."""
    from training.latents.dataset import LatentDataset

    with LatentDataset(data) as dataset:
        clips = [np.asarray(dataset.load_clip(index)) for index in range(len(dataset.clips))]
    real = [clip[: len(clip) // 2] for clip in clips]
    videos = [
        clip[begin : begin + CODE_FRAMES]
        for clip in clips
        for begin in range(len(clip) // 2, len(clip) - CODE_FRAMES + 1, CODE_FRAMES)
    ]
    unit = np.concatenate(real).std(axis=0)
    for name, fault in faults(unit).items():
        yield name, real, [np.ascontiguousarray(fault(video, index), dtype=np.float32) for index, video in enumerate(videos)]
    yield 'always the same video', real, [videos[0]] * len(videos)


def measure_codes(metric: str, real: list[np.ndarray], videos: list[np.ndarray]) -> dict[str, float]:
    """The metrics of codes take a generator; here are videos, so their parts are called."""
    from metrics.inputs.frame_points import LatentPoints
    from plugins.diversity import Diversity
    from plugins.drift import Drift
    from plugins.latent_frechet_distance import LatentFrechetDistance
    from plugins.motion_statistics import MotionStatistics
    from plugins.repetition import Repetition

    if metric.startswith('lfd'):
        windows = np.stack([video[begin : begin + 25] for video in videos for begin in range(0, len(video) - 24, 5)])
        found = LatentFrechetDistance(real).compare_codes(windows)
        return {metric: found.pop('distance'), **{f'{metric}_{key}': value for key, value in found.items()}}
    points = LatentPoints(real)
    if metric.startswith(('drift', 'motion')):
        coordinates = [points.space.project(video) for video in videos]
        found = (
            Drift(points.real_coordinates, CODE_FRAMES)
            if metric.startswith('drift')
            else MotionStatistics(points.real_coordinates, FPS, scaled=True)
        ).compare(coordinates)
    else:
        projected = [points.project(video) for video in videos]
        if metric.startswith('repetition'):
            found = Repetition(points.real, CODE_FRAMES).compare(projected)
        else:
            times = (0, (CODE_FRAMES - 25) // 2, CODE_FRAMES - 25)
            found = Diversity(points.real, len(projected)).compare(
                torch.stack([video[time : time + 25] for video in projected]) for time in times
            )
    name, value = next(iter(found.items()))
    return {metric: value, **{f'{metric}_{key}': number for key, number in found.items() if key != name}}


def measure_pictures(metric: str, real: VideoSet, fake: VideoSet, detector: str | None) -> dict[str, Any]:
    options = VideoOptions(real_clips='spread', fake_clips='spread', bootstrap=0, detectors=(detector,) if detector else ())
    result = metric_main.calc_metric(metric=metric, device='cpu', G_kwargs={'comparison': VideoComparison(real, fake, options)})
    return dict(result['results'])


COLUMNS = {
    'pictures': [
        ('FVD, 64 clips', 'fvd64_16f_rank_deficient'),
        ('its kernel distance', 'fvd64_16f_kernel_distance'),
        ('repetition', 'repetition_125f'),
        ('still', 'repetition_125f_still'),
        ('drift', 'drift_125f'),
        ('of colours', 'drift_125f_colour'),
        ('motion, dB', 'motion_125f'),
        ('speed', 'motion_125f_speed'),
        ('diversity', 'diversity_125f'),
    ],
    'codes': [
        ('LFD', 'lfd2048_25f'),
        ('of motion', 'lfd2048_25f_motion_distance'),
        ('repetition', 'repetition_latent_250f'),
        ('still', 'repetition_latent_250f_still'),
        ('drift', 'drift_latent_250f'),
        ('motion, dB', 'motion_latent_250f'),
        ('speed', 'motion_latent_250f_speed'),
        ('diversity', 'diversity_latent_250f'),
    ],
}


def cell(value: float) -> str:
    """Three digits at most; what is below a thousandth is 0."""
    return f'{round(value, 3) + 0.0:.3g}' if abs(value) < 100 else f'{value:.0f}'


def print_tables(path: str) -> None:
    """Markdown tables of what is in the results."""
    with open(path, encoding='utf-8') as file:
        lines = [json.loads(line) for line in file]
    for part, columns in COLUMNS.items():
        rows: dict[str, dict[str, Any]] = {}
        for line in lines:
            if line['part'] == part:
                rows.setdefault(line['row'], {}).update(line['results'])
        if not rows:
            continue
        print(f'\n| {part} | ' + ' | '.join(title for title, _ in columns) + ' |')
        print('|---' * (len(columns) + 1) + '|')
        for row, results in rows.items():
            cells = ['' if results.get(key) is None else cell(results[key]) for _, key in columns]
            print(f'| {row} | ' + ' | '.join(cells) + ' |')


# fmt: off
@command_line.command()
@click.option('--footage',  help='Recordings: pictures are measured', metavar='DIR')
@click.option('--data',     help='Latent data set: codes are measured', metavar='ZIP|DIR')
@click.option('--metrics',  help='Only these', metavar='NAME,..', type=command_line.NAMES, default='none')
@click.option('--detector', help='Weights of I3D, where they are not found', metavar='FILE')
@click.option('--results',  help='Where results are kept, one JSON line each', metavar='FILE', required=True)
@click.option('--table',    help='Print the tables of what is there and leave', is_flag=True)
@command_line.clear_errors
def main(footage: str | None, data: str | None, metrics: list[str], detector: str | None, results: str, table: bool) -> None:
    """Measure known faults with every metric."""
    if table:
        print_tables(results)
        return
    discover_metrics()
    torch.set_num_threads(1)
    done = set()
    if os.path.exists(results):
        with open(results, encoding='utf-8') as file:
            done = {(line['part'], line['row'], line['metric']) for line in map(json.loads, file)}

    def keep(part: str, row: str, metric: str, calculate: Callable[[], dict[str, Any]]) -> None:
        if (part, row, metric) in done or (metrics and metric not in metrics):
            return
        command_line.report(f'{metric}: {row}')
        found = calculate()
        with open(results, 'a', encoding='utf-8') as file:
            file.write(json.dumps({'part': part, 'row': row, 'metric': metric, 'results': found}) + '\n')

    if footage is not None:
        for metric in PICTURE_METRICS:
            if find_metric(metric) is None:
                raise command_line.UserMistake(f'there is no metric {metric}')
        rows = list(picture_rows(footage))
        for metric in PICTURE_METRICS:
            for row, real, fake in rows:
                keep('pictures', row, metric, lambda m=metric, r=real, f=fake: measure_pictures(m, r, f, detector))  # type: ignore[misc]
    if data is not None:
        for row, clips, videos in code_rows(data):
            for metric in CODE_METRICS:
                keep('codes', row, metric, lambda m=metric, r=clips, v=videos: measure_codes(m, r, v))  # type: ignore[misc]
# fmt: on


if __name__ == '__main__':
    main()
