"""Is what takes ten seconds and more in the videos? Autocorrelation and spectrum below 0.2 Hz of footage and of models.

    python benchmarks/slow_motion.py --data=latents.zip --networks=models

`--networks` is a folder of snapshots that were trained on the data set (benchmarks/long_run.py --keep). Of the coordinates of
plugins/latent_stationarity.py, together: autocorrelation after 1, 3 and 10 seconds; of the leading ones, the shares of the
variance at frequencies below 0.05, 0.1 and 0.2 Hz (Welch's periodogram: stretches of 60 seconds, Hann window, half overlapping;
shorter where footage is). Models: 64 videos of 3000 frames, from frame 1000 on, of seeds that no other measure uses.
"""

import pathlib
import sys

import click

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from training.commands import command_line

FIRST_SEED, VIDEOS, START, FRAMES = 70000, 64, 1000, 3000
SECONDS = (1, 3, 10)
LIMITS = (0.05, 0.1, 0.2)  # Hz
STRETCH = 60.0  # seconds


@command_line.command()
@click.option('--data',     help='Latent data set', metavar='ZIP|DIR', required=True)  # fmt: skip
@click.option('--networks', help='Folder of snapshots', metavar='DIR', required=True)  # fmt: skip
@command_line.clear_errors
def main(data: str, networks: str) -> None:
    """Compare slow motion of footage and models, as a Markdown table."""
    import torch

    from metrics.inputs.latent_windows import generate_windows
    from networks.checkpoints import load_snapshot
    from plugins.latent_stationarity import Stationarity, autocorrelation
    from training.latents.dataset import LatentDataset

    with LatentDataset(data) as dataset:
        fps = dataset.fps
        clips = [dataset.load_clip(index) for index in range(len(dataset.clips))]
    real = Stationarity(clips, fps)
    longest = max((real.components.project(clip) for clip in clips), key=len)[None]
    size = min(round(STRETCH * fps), longest.shape[1])

    def shares(tracks: torch.Tensor) -> list[float]:
        """Share of the variance below each of LIMITS; tracks [N, T, C]."""
        centred = (tracks - tracks.mean(dim=(0, 1))).double()
        stretches = centred.unfold(1, size, max(size // 2, 1)) * torch.hann_window(size, periodic=False, dtype=torch.float64)
        power = torch.fft.rfft(stretches, dim=-1).abs().square().mean(dim=(0, 1)).sum(dim=0)
        frequency = torch.fft.rfftfreq(size, 1 / fps)
        return [float(power[frequency < limit].sum() / power.sum()) for limit in LIMITS]

    def row(name: str, tracks: torch.Tensor) -> None:
        correlations = [autocorrelation(tracks.double(), round(second * fps)) for second in SECONDS]
        print(
            f'| {name} | ' + ' | '.join(f'{value:.2f}' for value in [*correlations, *shares(tracks[..., : real.leading])]) + ' |'
        )

    print('| | ' + ' | '.join([f'after {second} s' for second in SECONDS] + [f'below {limit} Hz' for limit in LIMITS]) + ' |')
    print('|---' * (1 + len(SECONDS) + len(LIMITS)) + '|')
    row('footage', longest)
    for path in sorted(pathlib.Path(networks).glob('*.pkl')):
        generator = load_snapshot(str(path)).G_ema
        with torch.no_grad():
            (tracks,) = generate_windows(generator, real.components, range(FIRST_SEED, FIRST_SEED + VIDEOS), [(START, FRAMES)])
        row(path.stem, tracks)


if __name__ == '__main__':
    main()
