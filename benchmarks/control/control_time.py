"""Time and sound of generated video: what resampling loses, and whether motion follows a beat.

    python -m benchmarks.control.control_time --data=latents.zip --network=network-snapshot-006400.pkl --image-network=G.pkl

**Resampling.** Every second code of a recording is left out and filled in by the cubic curve of --fps, by the straight line
between codes, by the frame before, and by the mean of the neighbours' pixels. What is printed is the PSNR against pictures of the
codes that were left out.

**--react.** A track of clicks, one a second, drives the motion scale of the model's videos. Printed is how far codes are from
their mean while a click is heard (loudness and onset above a half), as a part of that elsewhere, with --react and without.
"""

import pathlib
import tempfile
import wave
from typing import Any

import click
import numpy as np
import torch

from networks.checkpoints import load_generator, load_snapshot
from training.commands import command_line
from training.control.audio import loudness_and_onsets, read_samples
from training.control.resampling import Resampled, resampling_step
from training.generation.plan import Request, VideoPlan
from training.latents.dataset import LatentDataset
from training.videos.code_sources import RecordedSource
from training.videos.synthesis import render_codes

RATE = 48000


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over frames uint8 [T, H, W, C], decibel."""
    squares = np.square(first.astype(np.float32) - second.astype(np.float32)).mean(axis=(1, 2, 3))
    return float((10 * np.log10(255**2 / squares)).mean())


def resampling(codes: torch.Tensor, image_generator: Any) -> dict[str, float]:
    """PSNR of every way to fill in what is missing, dB; codes [2 n + 1, num_ws, w_dim]."""
    kept, missing = codes[::2], codes[1::2]

    def pictures(ws: torch.Tensor) -> np.ndarray:
        return np.stack(list(render_codes(image_generator, ws, batch=8)))

    truth, frames = pictures(missing), pictures(kept)
    cubic = Resampled(RecordedSource(kept.numpy()), resampling_step(1, 2), chunk=8).read(len(codes) - 3)[1::2]
    blended = ((frames[:-1].astype(np.float32) + frames[1:]) / 2).round().astype(np.uint8)
    return {
        'cubic in W+': psnr(pictures(cubic), truth[: len(cubic)]),
        'straight in W+': psnr(pictures((kept[:-1] + kept[1:]) / 2), truth),
        'blended pixels': psnr(blended, truth),
        'held frames': psnr(frames[:-1], truth),
    }


def clicks(path: pathlib.Path, seconds: int) -> None:
    """Write a sound file with one short tone at the beginning of each second but the first."""
    samples = np.zeros(seconds * RATE)
    time = np.arange(1200)
    for second in range(1, seconds):
        samples[second * RATE : second * RATE + len(time)] = np.sin(time * 0.13) * np.exp(-time / 300)
    with wave.open(str(path), 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32000).astype('<i2').tobytes())


def reaction(generator: Any, image_generator: Any, fps: float, videos: int, seconds: int) -> dict[str, float]:
    """Deviation of codes from their mean at clicks, as a part of that elsewhere, with --react and without."""
    with tempfile.TemporaryDirectory() as folder:
        track = pathlib.Path(folder) / 'clicks.wav'
        clicks(track, seconds)
        happening = loudness_and_onsets(read_samples(str(track)), fps)
        found = {}
        for name, strength in (('without', 0.0), ('with', 0.8)):
            request = Request(frames=round(seconds * fps), audio=str(track), react=strength)
            plan = VideoPlan(generator, image_generator, request, fps=fps)
            sizes = []
            for seed in range(videos):
                codes = plan.source(seed=seed).read(request.frames)
                sizes.append((codes - codes.mean(dim=0)).square().mean(dim=(1, 2)).sqrt().numpy())
            size = np.mean(sizes, axis=0)
            loud = happening[: len(size)] > 0.5
            found[name] = float(size[loud].mean() / size[~loud].mean())
    return found


@command_line.command()
@click.option('--data', help="Latent data set of one subject's footage", metavar='ZIP', required=True)
@click.option('--network', help='Snapshot that was trained on it', metavar='PKL', required=True)
@click.option('--image-network', help='Image generator', metavar='PKL', required=True)
@click.option('--frames', help='Frames of the recording', type=command_line.POSITIVE_INT, default=400)
@click.option('--videos', help='Videos that a beat drives', type=command_line.POSITIVE_INT, default=16)
@click.option('--seconds', help='Their length', type=command_line.POSITIVE_INT, default=20)
@command_line.clear_errors
def main(data: str, network: str, image_network: str, frames: int, videos: int, seconds: int) -> None:
    """Measure what resampling loses, and whether motion follows a beat."""
    torch.set_num_threads(1)
    image_generator = load_generator(image_network)
    with LatentDataset(data) as latents:
        codes, fps = torch.from_numpy(np.array(latents.load_clip(0)[: frames // 2 * 2 + 1])), latents.fps
    for name, value in resampling(codes, image_generator).items():
        print(f'{name}: {value:.1f} dB', flush=True)
    for name, value in reaction(load_snapshot(network)['G_ema'], image_generator, fps, videos, seconds).items():
        print(f'{name} --react=motion:0.8: motion at a click {value:.2f} times that elsewhere')


if __name__ == '__main__':
    main()
