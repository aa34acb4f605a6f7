"""Is the head that a model moves alive? Pose, gaze and blinks read back from pictures, far into videos, beside the footage.

    python -m benchmarks.demo_readback --data=latents.zip --networks=models --results=readback.jsonl
    python -m benchmarks.demo_readback --results=readback.jsonl --table

`--data` is the demo's footage, embedded, `--networks` a folder of snapshots that were trained on it (benchmarks/long_run.py
--keep). Each model makes videos of 2000 frames from frame 0 and from frame 10,000 on; they are rendered, read, and judged as
demo/head/head_judge.py does, and so is every stretch of 2000 frames of the embedded footage. Longer footage of the same subject,
if it is given with --longer, says how much such stretches differ. Every snapshot adds one line to --results, and is not read
again.
"""

import json
import pathlib
from typing import Any

import click
import numpy as np
import torch

from demo.head.head_judge import judge
from demo.head.head_world import HEAD
from demo.truth_reader import TruthReader, load_reader
from demo.worlds import FOLDER
from networks.checkpoints import load_generator, load_snapshot
from training.commands import command_line
from training.latents.dataset import LatentDataset
from training.videos.code_sources import ModelSource
from training.videos.synthesis import render_codes

FPS = 25
LENGTH = 2000
DEPTHS = (0, 10000)
SHOWN = (
    'yaw_deviation_degrees',
    'pitch_deviation_degrees',
    'gaze_deviation',
    'head_speed_degrees_per_second',
    'blinks_per_minute',
    'shortest_blink_interval_seconds',
    'syllables_per_second',
    'identity_drift',
)


class Camera:
    """Renders codes of the demo's generator and reads the head's parameters from the pictures."""

    def __init__(self, device: str) -> None:
        self.generator: Any = load_generator(FOLDER / HEAD.generator_file).to(device)
        self.reader: TruthReader = load_reader(FOLDER / HEAD.reader_file, HEAD.table)
        self.device = device

    def judge(self, codes: torch.Tensor) -> dict[str, float]:
        """Statistics of a video of these codes [T, num_ws, w_dim]."""
        frames = np.stack(list(render_codes(self.generator, codes.to(self.device), batch=16)))
        return {name: round(value, 4) for name, value in judge(self.reader.read(frames), FPS).items()}


def stretches(path: str) -> list[torch.Tensor]:
    """Stretches of 2000 frames of a data set, as many as there are without overlap, but at least one of what there is."""
    with LatentDataset(path) as data:
        codes = torch.from_numpy(np.array(data.load_clip(0)))
    return [codes[begin : begin + LENGTH] for begin in range(0, max(len(codes) - LENGTH, 0) + 1, LENGTH)]


def table(path: str) -> str:
    """Medians and ranges of every kind of video, as Markdown."""
    lines = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    rows = ['| | videos | ' + ' | '.join(name.replace('_', ' ') for name in SHOWN) + ' |', '|---' * (len(SHOWN) + 2) + '|']
    for kind in dict.fromkeys(line['kind'] for line in lines):
        chosen = [line['result'] for line in lines if line['kind'] == kind]
        cells = []
        for name in SHOWN:
            values = np.array([result[name] for result in chosen])
            cells.append(f'{np.nanmedian(values):.3g} ({np.nanmin(values):.3g} to {np.nanmax(values):.3g})')
        rows.append(f'| {kind} | {len(chosen)} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(rows)


@command_line.command()
@click.option('--data', help="Latent data set of the demo's footage", metavar='ZIP')
@click.option('--longer', help='Another one, of more footage of the same subject', metavar='ZIP')
@click.option('--networks', help='Folder of snapshots', metavar='DIR')
@click.option('--videos', help='Videos of each snapshot and depth', type=command_line.POSITIVE_INT, default=3)
@click.option('--device', help='Where they are rendered', metavar='NAME', default='cpu')
@click.option('--results', help='Where results are kept, one JSON line a video', metavar='FILE', required=True)
@click.option('--table', 'show', help='Print the table of what is there and leave', is_flag=True)
@command_line.clear_errors
def main(data: str | None, longer: str | None, networks: str | None, videos: int, device: str, results: str, show: bool) -> None:
    """Read pose, gaze and blinks back from generated video and from the footage."""
    path = pathlib.Path(results)
    if not show:
        if data is None or networks is None:
            raise command_line.UserMistake('--data and --networks: which footage, and which snapshots?')
        torch.set_num_threads(1)
        camera = Camera(device)
        known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        done = {(line['kind'], line['of'], line['video']) for line in known}
        jobs: list[tuple[str, str, int, Any]] = []
        for kind, source in (('footage', data), ('longer footage', longer)):
            if source is not None:
                name = pathlib.Path(source).name
                jobs += [(kind, name, number, codes) for number, codes in enumerate(stretches(source))]
        for snapshot in sorted(pathlib.Path(networks).glob('*.pkl')):
            for depth in DEPTHS:
                jobs += [(f'frame {depth}', snapshot.name, number, (snapshot, depth)) for number in range(videos)]
        jobs = [job for job in jobs if job[:3] not in done]
        with path.open('a') as file, command_line.progress(total=len(jobs), description='Videos', unit='video') as bar:
            for kind, of, number, what in jobs:
                codes = what
                if isinstance(what, tuple):
                    G = load_snapshot(what[0])['G_ema']
                    codes = ModelSource(G, number, burn_in=G.burn_in + what[1]).read(LENGTH)
                line = {'kind': kind, 'of': of, 'video': number, 'result': camera.judge(codes)}
                file.write(json.dumps(line) + '\n')
                file.flush()
                bar.update(1)
    command_line.report(table(results))


if __name__ == '__main__':
    main()
