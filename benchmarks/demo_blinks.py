"""Does a model know that blinks keep apart? Times between blinks of many minutes of the demo, and what its critic says to them.

    python -m benchmarks.demo_blinks --data=latents.zip --networks=models

`--data` is the demo's footage, embedded, `--networks` a folder of snapshots that were trained on it (benchmarks/long_run.py
--keep). Lid closure is read from codes: a quadratic function of the coordinates of a frame, fitted (ridge) to the true closure of
the footage, of which the last part is held out to say how well it reads. Of every model 64 videos of 3000 frames, from frame 2000
after the burn-in on; a blink is what demo/head/head_judge.py calls one. `sooner` is the share of blinks that follow another one
sooner than any does in the footage; a half blink is a local maximum of the closure between a quarter and three quarters, which no
footage has.

The second table asks the critic of neighbouring frames: how its score changes where a blink, the mean one of the footage, is
added to real windows without any, and by how much again where a second one follows after 8, 12 or 15 frames, which no footage
has. A critic that knew would fall further for the second.

The third needs no truth: it counts the excursions of the lids from where they mostly are by size (training/events/sizes.py), 24
videos of each model.
"""

import itertools
import math
import pathlib
import sys
from typing import Any

import click
import numpy as np
import torch

from demo.head.head_judge import blink_events
from demo.head.head_parameters import INDEX
from demo.worlds import find_world
from metrics.inputs.latent_windows import generate_windows
from networks.checkpoints import load_snapshot
from plugins.latent_frechet_distance import LatentFrechetDistance
from training.commands import command_line
from training.events.sizes import excursions, find_channels, peak_sizes
from training.latent_space import fit_latent_space
from training.latents.dataset import LatentDataset
from training.real_windows import Windows

FIRST_SEED, VIDEOS, START, FRAMES = 90000, 64, 2000, 3000
HELD_OUT = 1000  # frames, for the agreement of the reading
RIDGE = 1.0
FPS = 25
WINDOW = 25
BEFORE, AFTER = 3, 7  # frames around the onset that a blink takes
SECOND = (8, 12, 15)  # frames after the first
HALF = (0.25, 0.75)  # closure
SIZES = [0, 0.5, 1, 2, 4, 6, 8, 10, math.inf]  # of excursions, deviations of the motion


def features(y: torch.Tensor) -> torch.Tensor:
    """Coordinates [N, K] -> 1, y_i and y_i y_j, [N, 1 + K + K (K + 1) / 2]."""
    row, column = torch.triu_indices(y.shape[1], y.shape[1])
    return torch.cat([torch.ones(len(y), 1, dtype=y.dtype), y, y[:, row] * y[:, column]], dim=1)


class LidReader:
    """Lid closure of codes, by a fit to footage whose truth is known.

    Args:
        codes: Codes of the footage [T, num_ws, w_dim].
        closure: True closure [T] in [0, 1].
    """

    def __init__(self, codes: torch.Tensor, closure: np.ndarray) -> None:
        self.space = LatentFrechetDistance([codes.numpy()]).space
        y = self.space.project(codes).double()
        self.unit = y.std(dim=0)
        x, t = features(y / self.unit), torch.from_numpy(closure).double()
        self.agreement = float(np.corrcoef(x[-HELD_OUT:] @ self._fit(x[:-HELD_OUT], t[:-HELD_OUT]), t[-HELD_OUT:])[0, 1])
        self._weights = self._fit(x, t)

    @staticmethod
    def _fit(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype), x.T @ t)

    def read(self, points: torch.Tensor) -> np.ndarray:
        """Points of `space` [.., K] -> closure [..]."""
        flat = features(points.flatten(0, -2).double() / self.unit) @ self._weights
        return flat.unflatten(0, points.shape[:-1]).numpy()


def half_blinks(track: np.ndarray) -> int:
    """Number of local maxima of a track [T] within HALF."""
    inner = track[1:-1]
    return int(((inner > track[:-2]) & (inner >= track[2:]) & (inner > HALF[0]) & (inner < HALF[1])).sum())


def row(name: str, tracks: np.ndarray, shortest: int) -> str:
    """One row of the table: tracks of closure [N, T]; shortest: frames between blinks of the footage at least."""
    onsets = [blink_events(track) for track in tracks]
    gaps = np.concatenate([np.diff(events) for events in onsets])
    minute = 60 * FPS
    minutes = [track[first : first + minute] for track in tracks for first in range(0, len(track) - minute + 1, minute)]
    soonest = np.median([np.diff(blink_events(track)).min(initial=minute) for track in minutes])
    rate = minute * sum(len(events) for events in onsets) / tracks.size
    half = minute * sum(half_blinks(track) for track in tracks) / tracks.size
    shares = ' | '.join(f'{np.mean(gaps < limit):.1%}' for limit in (shortest, shortest * 0.8, shortest * 1.3))
    return f'| {name} | {rate:.1f} | {half:.1f} | {shares} | {soonest / FPS:.2f} |'


def answers(snapshot: Any, windows: Windows, onsets: np.ndarray, motion_weight: float) -> list[float]:
    """Change of the critic's score for one blink, and for a second one after SECOND frames."""
    y = windows.clips[0]
    length = BEFORE + AFTER
    blink = torch.zeros(length, y.shape[1])
    inside = [onset for onset in onsets if onset >= BEFORE and onset + AFTER <= len(y)]
    for onset in inside:
        shown = y[onset - BEFORE : onset + AFTER]
        open_lid = torch.lerp(shown[0], shown[-1], torch.linspace(0, 1, length).unsqueeze(1))
        blink += (shown - open_lid) / len(inside)
    near = np.array([np.abs(onsets - (first + WINDOW / 2)).min() for first in range(len(y) - WINDOW)])
    without = torch.stack([y[first : first + WINDOW] for first in np.flatnonzero(near > WINDOW / 2 + length)])

    def score(places: tuple[int, ...]) -> float:
        shown = without.clone()
        for place in places:
            shown[:, place : place + length] += blink[: WINDOW - place]
        return float(snapshot['C'](windows.views(shown, motion_weight)[0]).mean())

    none, one = score(()), score((0,))
    return [one - none, *(score((0, second)) - one for second in SECOND)]


@command_line.command()
@click.option('--data', help="Latent data set of the demo's footage", metavar='ZIP', required=True)
@click.option('--networks', help='Folder of snapshots', metavar='DIR', required=True)
@command_line.clear_errors
def main(data: str, networks: str) -> None:
    """Read blinks of footage and models from codes, as Markdown tables."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    world = find_world('head')
    with LatentDataset(data) as dataset:
        codes = torch.from_numpy(np.array(dataset.load_clip(0))).float()
        space = fit_latent_space(dataset)
        windows = Windows(dataset, space, WINDOW, strides=(1,))
    closure = world.perform(len(codes), seed=world.subject).parameters[:, INDEX['blink']]
    reader = LidReader(codes, closure)
    onsets = blink_events(closure)
    shortest = int(np.diff(onsets).min())
    print(f'Held out, the closure that is read agrees with the true one to a correlation of {reader.agreement:.3f}.\n')
    columns = ['blinks a minute', 'half ones', f'sooner ({shortest} frames)', 'by a fifth', 'before 1.3 times that']
    columns.append('soonest of a minute, s')
    print('| | ' + ' | '.join(columns) + ' |')
    print('|---' * (1 + len(columns)) + '|')
    print(row('footage, truth', closure[None], shortest))
    print(row('footage, read', reader.read(reader.space.project(codes))[None], shortest))
    scores = []
    for path in sorted(pathlib.Path(networks).glob('*.pkl')):
        snapshot = load_snapshot(path)
        G = snapshot['G_ema']
        points = torch.cat(list(generate_windows(G, reader.space, range(FIRST_SEED, FIRST_SEED + VIDEOS), [(START, FRAMES)])))
        print(row(path.stem, reader.read(points), shortest))
        sys.stdout.flush()
        settings = snapshot['training_options']['settings']
        weight = settings['motion_weight']
        changes = answers(snapshot, windows, onsets, windows.suited.motion_weight if weight is None else weight)
        scores.append(f'| {path.stem} | ' + ' | '.join(f'{change:+.2f}' for change in changes) + ' |')
    print("\n| critic's score | a blink | " + ' | '.join(f'a second one {second} frames after' for second in SECOND) + ' |')
    print('|---' * (2 + len(SECOND)) + '|')
    print('\n'.join(scores))
    print('\n' + excursions_table(codes, space, networks))


def excursions_table(codes: torch.Tensor, space: Any, networks: str) -> str:
    """How many peaks of the lids' excursions a minute have which size, in the footage and in 24 videos of each model."""
    clip = space.encode(codes.numpy())
    (channel,) = find_channels([clip])
    names = [f'{low} to {high}' for low, high in itertools.pairwise(SIZES[:-1])]
    lines = [f'| excursions a minute by size | {" | ".join(names)} | above {SIZES[-2]} |', '|---' * (len(SIZES)) + '|']

    def line(name: str, tracks: torch.Tensor) -> None:
        e = excursions(tracks.double() @ channel.direction.double())
        counts = np.histogram(peak_sizes(e, 0).numpy(), SIZES)[0] * (60 * FPS / e.numel())
        lines.append(f'| {name} | ' + ' | '.join(f'{count:.1f}' for count in counts) + ' |')

    line('footage', clip[None])
    for path in sorted(pathlib.Path(networks).glob('*.pkl')):
        G = load_snapshot(path)['G_ema']
        seeds = range(FIRST_SEED, FIRST_SEED + 24)
        line(path.stem, torch.cat(list(generate_windows(G, Coordinates(), seeds, [(START, FRAMES)]))))
    return '\n'.join(lines)


class Coordinates:
    """What training works on, as a space for generate_windows."""

    def projection_of(self, generator: Any) -> Any:
        """A function l [N, latent_dim] -> coordinates [N, K]."""
        return generator.coordinates


if __name__ == '__main__':
    main()
