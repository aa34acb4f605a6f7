"""Does anything grow while a long training or a long video goes on? Memory, handles and files over a shortened one, as slopes.

    python benchmarks/flatness.py --steps=4000 --frames=4000

Trains a tiny model with train_video.py's own loop, with a tick every ten steps (62 by default), then makes one long video, and
looks at the process again and again. A slope is that of a straight line through the second half of what was seen, so that what is
taken once (kernels, buffers, imports) does not count; beside it stands what that comes to over 200,000 steps or 100,000 frames.
"""

import os
import pathlib
import sys
import tempfile
from typing import Any

import click
import numpy as np
import psutil

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

STEPS_OF_RUN, FRAMES_OF_VIDEO = 200_000, 100_000
STEPS_PER_TICK = 10


class Watch:
    """What a process holds, noted from time to time."""

    def __init__(self, folder: str) -> None:
        self.folder, self.process = folder, psutil.Process()
        self.rows: list[tuple[float, ...]] = []

    def look(self, position: int) -> None:
        """Note memory, handles, threads, and the size of logs."""
        sizes = {'log': 0, 'curves': 0}
        for path in pathlib.Path(self.folder).rglob('*'):
            kind = 'curves' if 'tfevents' in path.name else 'log' if path.suffix in ('.jsonl', '.txt') else None
            if kind:
                sizes[kind] += path.stat().st_size
        rss = self.process.memory_info().rss
        self.rows.append(
            (
                position,
                rss / 2**20,
                self.process.num_fds(),
                self.process.num_threads(),
                sizes['log'] / 1024,
                sizes['curves'] / 1024,
            )
        )

    def report(self, unit: str, whole: int) -> None:
        """Print the slopes."""
        values = np.array(self.rows[len(self.rows) // 2 :], np.float64)
        names = ('memory, MiB', 'handles', 'threads', 'log.txt and stats.jsonl, KiB', 'TensorBoard, KiB')
        click.echo(f'| {unit}: {int(values[0, 0])} to {int(values[-1, 0])} | at the end | for 1000 more | for {whole} |')
        click.echo('|---|---|---|---|')
        for index, name in enumerate(names, start=1):
            slope = float(np.polyfit(values[:, 0], values[:, index], 1)[0])
            click.echo(f'| {name} | {values[-1, index]:.1f} | {1000 * slope:+.3f} | {whole * slope:+.1f} |')


def make_data(folder: str) -> str:
    """A tiny image generator and a data set of its codes."""
    import torch

    from networks import checkpoints, stylegan2
    from training.latents.dataset import LatentDatasetWriter

    torch.manual_seed(0)
    G = stylegan2.Generator(
        z_dim=4, c_dim=0, w_dim=4, img_resolution=8, img_channels=3, mapping_kwargs={'num_layers': 1},
        synthesis_kwargs={'channel_base': 16, 'channel_max': 4},
    )  # fmt: skip
    network, data = os.path.join(folder, 'g.pkl'), os.path.join(folder, 'd.zip')
    checkpoints.save_module_pickle(network, {'G_ema': G.eval().requires_grad_(False)})
    reference = checkpoints.image_generator_reference(network, G)
    with LatentDatasetWriter(data, image_generator=reference, num_ws=int(G.num_ws), w_dim=4, embedding={}) as writer:
        walk = np.cumsum(np.random.RandomState(0).randn(200, int(G.num_ws), 4), axis=0).astype(np.float32)
        writer.add_clip('a', np.sin(walk), fps=25.0, source='a.mp4')
        writer.finish()
    return data


@click.command()
@click.option('--steps', help='Of the training', type=click.IntRange(min=100), default=4000, show_default=True)
@click.option('--frames', help='Of the video', type=click.IntRange(min=500), default=4000, show_default=True)
def main(steps: int, frames: int) -> None:
    """Look for what grows."""
    from click.testing import CliRunner

    from stylevideogan.__main__ import load_command
    from training.temporal_trainer import TemporalTrainer
    from training.videos.output import VideoWriter

    tiny = ('--window=9', '--latent-dim=8', '--noise-dim=8', '--hidden-dim=8', '--initial-widths=8', '--widening-widths=16',
            '--narrowing-widths=8', '--temporal-channels=8', '--batch=8', '--device=cpu', '--preview-frames=0')  # fmt: skip
    kimg_per_step = 8 * 2 * 9 / 1000
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(folder)
        runs, out = os.path.join(folder, 'runs'), os.path.join(folder, 'out')
        watch = Watch(runs)
        real: Any = TemporalTrainer.step

        def step(self: TemporalTrainer) -> None:
            real(self)
            if self.num_steps % max(steps // 100, 1) == 0:
                watch.look(self.num_steps)

        TemporalTrainer.step = step  # type: ignore[method-assign]
        arguments = [f'--data={data}', f'--outdir={runs}', *tiny, f'--kimg={steps * kimg_per_step:.3f}', '--snap=100']
        result = CliRunner().invoke(load_command('train_video'), [*arguments, f'--tick={STEPS_PER_TICK * kimg_per_step:.3f}'])
        assert result.exit_code == 0, result.output
        watch.report('steps', STEPS_OF_RUN)

        video = Watch(out)
        write: Any = VideoWriter.write
        written = [0]

        def noting(self: VideoWriter, frame: np.ndarray) -> None:
            write(self, frame)
            written[0] += 1
            if written[0] % max(frames // 100, 1) == 0:
                video.look(written[0])

        VideoWriter.write = noting  # type: ignore[method-assign]
        (run,) = pathlib.Path(runs).iterdir()
        arguments = [f'--network={sorted(run.glob("network-snapshot-*.pkl"))[-1]}', f'--outdir={out}', '--seeds=0']
        result = CliRunner().invoke(load_command('generate_video'), [*arguments, f'--frames={frames}', '--device=cpu'])
        assert result.exit_code == 0, result.output
        click.echo('')
        video.report('frames', FRAMES_OF_VIDEO)


if __name__ == '__main__':
    main()
