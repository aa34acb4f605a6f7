"""What metrics of codes are computed of: `opts.G`, a latent generator, against `opts.dataset_kwargs`, a latent data set."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

import dnnlib
from metrics.families import named
from metrics.inputs.frame_points import LatentPoints
from metrics.inputs.latent_windows import generate_coordinates
from metrics.metric_utils import MetricOptions
from networks.errors import InputError, option

GENERATED_CODES = 64  # videos of a latent generator, seeds from 0 on,
GENERATED_CODES_LONG = 16  # or this many where they are longer than LONG
LONG = 1000


class DatasetClips(Sequence[np.ndarray]):
    """The clips of a latent data set, loaded when asked for."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.clips)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset.load_clip(index)


@contextlib.contextmanager
def open_codes(opts: MetricOptions, what: str, *, instead: str) -> Iterator[Any]:
    """The latent data set of a metric of codes, while it is open; it fits to the latent generator.

    Args:
        opts: MetricOptions: G and dataset_kwargs.
        what: What the metric does with both, for the error.
        instead: A metric that needs neither.

    Raises:
        InputError: There is no latent generator or data set, or they do not belong together.
    """
    if opts.G is None or not opts.dataset_kwargs:
        raise InputError(
            f'{what}, and here are none; give a snapshot with {option("network")} and its data with '
            f'{option("data")}, or take {instead}, which '
            'compares any two sets of videos'
        )
    dataset = dnnlib.util.construct_class_by_name(**opts.dataset_kwargs)
    try:
        if (dataset.num_ws, dataset.w_dim) != (opts.G.num_ws, opts.G.w_dim):
            raise InputError(
                f'the data set has codes of {dataset.num_ws} x {dataset.w_dim}, and the snapshot makes '
                f'{opts.G.num_ws} x {opts.G.w_dim}; measure against the data that it was trained on'
            )
        yield dataset
    finally:
        dataset.close()


class CodeInputs:
    """Real clips and generated videos as points, or in whitened coordinates.

    Attributes:
        points: LatentPoints, fitted to the data set.
        fps: Of the data set.

    Raises:
        InputError: There is no latent generator or data set, or they do not belong together.
    """

    def __init__(self, opts: MetricOptions, metric: str) -> None:
        what = f'{metric} measures the codes of a latent generator'
        with open_codes(opts, what, instead=metric.replace('_latent', '')) as dataset:
            self.points = LatentPoints(DatasetClips(dataset))
            self.fps = float(getattr(dataset, 'fps', 25))
        self.metric = metric
        self._generator = copy.deepcopy(opts.G).eval().requires_grad_(False).to(opts.device)
        self._progress = opts.progress.sub(tag=f'{metric} videos')

    def coordinates(self, num_frames: int) -> Iterator[torch.Tensor]:
        """Whitened coordinates [T, C + 1] of videos of the first seeds."""
        return self._generate(self.points.space, num_frames)

    def videos(self, num_frames: int) -> Iterator[torch.Tensor]:
        """Points [T, C + 32] of videos of the first seeds."""
        return self._generate(self.points, num_frames)

    def results(self, results: dict[str, float]) -> dict[str, float]:
        """Named results, with what all of these metrics say of their inputs."""
        return named(self.metric, {**results, 'first_seed': 0, 'real_clips': len(self.points.real)})

    def _generate(self, space: Any, num_frames: int) -> Iterator[torch.Tensor]:
        count = GENERATED_CODES if num_frames <= LONG else GENERATED_CODES_LONG
        self._progress.num_items = count
        for index, video in enumerate(generate_coordinates(self._generator, space, range(count), 0, num_frames)):
            yield video
            self._progress.update(index + 1)
