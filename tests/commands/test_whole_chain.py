"""From footage to a page about the training, with generators of other kinds and nothing in sight that knows of faces.

About a minute of processor time, so only with SLOW_TESTS=1.
"""

import os
import pathlib
from typing import Any

import click.testing
import imageio_ffmpeg
import numpy as np
import PIL.Image
import pytest
import torch

from networks import checkpoints
from stylevideogan.__main__ import load_command
from training.latents.dataset import LatentDataset
from training.run_page import measures
from training.videos.synthesis import render_codes

pytestmark = [
    pytest.mark.skipif('SLOW_TESTS' not in os.environ, reason='slow: SLOW_TESTS=1 runs it'),
    pytest.mark.timeout(7200),  # minutes of processor time may take an hour on a busy machine
]
FRAMES = 60
SMALL = (
    '--window=9', '--latent-dim=8', '--noise-dim=8', '--hidden-dim=8', '--initial-widths=8', '--widening-widths=16',
    '--narrowing-widths=8', '--temporal-channels=8', '--batch=8', '--strides=1', '--chains=16', '--burn-in=4',
    '--preview-frames=5', '--preview-grid=1x1', '--snap=1',
)  # fmt: skip


def run(command: str, *arguments: object) -> str:
    words = [str(argument) for argument in arguments]
    result = click.testing.CliRunner().invoke(load_command(command), [*words, '--device=cpu'])
    assert result.exit_code == 0, (command, result.output[-2000:], result.exception)
    return result.output


@pytest.mark.parametrize('name', ['stylegan3-t-32', 'stylegan2-tensorflow-32'])
def test_generators_of_other_kinds_go_through_the_whole_chain(
    name: str, shared: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = shared / 'checkpoints' / f'{name}.pkl'
    G: Any = checkpoints.load_generator(str(network))
    # Footage of a subject: between the looks of three seeds, there and back.
    z = torch.from_numpy(np.stack([np.random.RandomState(seed).randn(G.z_dim) for seed in range(3)]).astype(np.float32))
    corners = G.mapping(z, torch.zeros(3, G.c_dim), truncation_psi=0.5)
    time = torch.arange(FRAMES).view(-1, 1, 1) / 6
    codes = corners[0] + 0.5 * (torch.sin(time) * (corners[1] - corners[0]) + torch.cos(1.7 * time) * (corners[2] - corners[0]))
    footage = np.stack(list(render_codes(G, codes)))
    (tmp_path / 'footage').mkdir()
    for index, frame in enumerate(footage):
        PIL.Image.fromarray(frame.squeeze()).save(tmp_path / 'footage' / f'{index:03d}.png')

    latents = tmp_path / 'latents.zip'
    run('embed_video', f'--network={network}', f'--source={tmp_path}/footage', f'--dest={latents}',
        '--perceptual=none', '--steps=15', '--first-steps=100', '--lambda-average=0')  # fmt: skip
    with LatentDataset(str(latents)) as data:
        assert [clip.num_frames for clip in data.clips] == [FRAMES]
        embedded = np.stack(list(render_codes(G, np.array(data.load_clip(0)))))
    error = np.square(embedded.astype(float) - footage).mean(axis=(1, 2, 3)).mean()
    still = np.square(footage.astype(float) - footage.mean(axis=0)).mean()
    assert error < still  # nearer than the mean picture of the footage, which knows no motion

    run('train_video', f'--outdir={tmp_path}/runs', f'--data={latents}', f'--network={network}', '--kimg=2', '--tick=1', *SMALL)
    run_dir = next((tmp_path / 'runs').iterdir())
    assert list(run_dir.glob('fakes*.mp4'))
    run('generate_video', f'--network={run_dir}', f'--outdir={tmp_path}/out', '--seeds=0', '--frames=12', '--subject=seed:5')
    reader = imageio_ffmpeg.read_frames(str(tmp_path / 'out' / 'seed0000.mp4'))
    assert next(reader)['size'] == (32, 32)
    assert sum(1 for _ in reader) == 12
    assert 'lkd1024' in run('calc_metrics_video', f'--network={run_dir}', '--metrics=lkd1024')
    monkeypatch.setattr(measures, 'MINUTE', 2.0)
    monkeypatch.setattr(measures, 'LONG_VIDEOS', 4)
    run('report_video', f'--run={run_dir}', '--videos=16', '--depths=0,30', '--clip-seconds=0.3', '--clips=1', '--subject=seed:1')
    assert (run_dir / 'report.html').stat().st_size > 50_000
