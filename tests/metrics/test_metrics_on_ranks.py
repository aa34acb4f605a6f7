"""Every kind of metric gives the same numbers, to the last digit, on one process and on two.

About three minutes of processor time, so only with SLOW_TESTS=1.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from metrics import discovery
from networks import checkpoints
from networks.latent_generator import LatentGenerator
from training import temporal_snapshot
from training.latents.dataset import LatentDataset, LatentDatasetWriter

pytestmark = pytest.mark.skipif('SLOW_TESTS' not in os.environ, reason='slow: SLOW_TESTS=1 runs it')

# Networks that nobody has trained, in the place of the published ones, whose weights are gigabytes.
PLUGIN = """
import torch
from metrics import metric_main
from metrics.features import detectors

class Drawn(torch.nn.Module):
    description = {'name': 'Drawn', 'weights_sha256': 'd' * 64}
    num_features, resize_rule = 24, 'none'

    def __init__(self, name):
        super().__init__()
        self.detector_name, self.single = name, name in ('inception', 'dinov2')
        self.smallest_num_frames = 1 if self.single else 3
        random = torch.Generator().manual_seed(len(name))
        self.weight = torch.nn.Parameter(torch.randn(24, 3, 1 if self.single else 3, 5, 5, generator=random), requires_grad=False)

    def features(self, frames):
        x = torch.nn.functional.conv3d(frames.float().movedim(-1, 1) / 255, self.weight).relu()
        return x.mean(dim=(3, 4)).transpose(1, 2) if self.single else x.mean(dim=(2, 3, 4))[:, None]

for name in detectors.MAKERS:
    detectors.MAKERS[name] = lambda *paths, name=name: Drawn(name)

@metric_main.register_metric
def nothing(opts):
    return {'nothing': 0.0}
"""
OF_CODES = (
    'lfd2048_25f', 'lkd1024', 'stationarity_latent', 'drift_latent_120f', 'diversity_latent_120f', 'motion_latent_120f',
    'repetition_latent_200f',
)  # fmt: skip
OF_PICTURES = (
    'fvd7_16f', 'fvd7_32f_subsample2f', 'kvd7_16f', 'frame_fid7_16f', 'fvd_videomae_7_16f', 'kvd_vjepa2_7_16f',
    'jedi_vjepa_7_16f', 'frame_fd_dinov2_7_16f', 'drift_120f', 'diversity_120f', 'motion_120f', 'repetition_200f',
)  # fmt: skip
OF_PAIRS = ('psnr', 'ssim', 'lpips_alex', 'lpips_vgg')


@pytest.fixture(scope='module')
def world(tiny_generator: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """run/ with a snapshot, latents.zip, plugin.py, and two sets of videos."""
    folder = tmp_path_factory.mktemp('world')
    (folder / 'plugin.py').write_text(PLUGIN)
    reference = checkpoints.image_generator_reference(str(tiny_generator), checkpoints.load_generator(str(tiny_generator)))
    random = np.random.RandomState(0)
    with LatentDatasetWriter(str(folder / 'latents.zip'), image_generator=reference, num_ws=6, w_dim=8, embedding={}) as writer:
        for name, length in (('a', 500), ('b', 300), ('c', 260)):
            walk = np.cumsum(random.randn(length, 6, 8), axis=0).astype(np.float32)
            writer.add_clip(name, np.sin(walk / 4), fps=25.0, source=f'{name}.mp4')
        writer.finish()
    torch.manual_seed(1)
    G = LatentGenerator(6, 8, num_components=6)
    G.set_data_basis(torch.zeros(48), torch.randn(6, 48))
    (folder / 'run').mkdir()
    with LatentDataset(str(folder / 'latents.zip')) as data:
        temporal_snapshot.save_snapshot(
            str(folder / 'run' / 'network-snapshot-000007.pkl'), G=G, G_ema=G, C=G, image_generator=reference,
            data=temporal_snapshot.describe_dataset(data), training_options={}, progress={},
        )  # fmt: skip
    for name in ('real', 'fake'):
        frames = np.cumsum(random.randint(-9, 10, (7, 200, 16, 16, 3)), axis=1) + 128
        np.save(folder / f'{name}.npy', np.clip(frames, 0, 255).astype(np.uint8))
        np.save(folder / f'{name}-few.npy', np.clip(frames[:3, :20], 0, 255).astype(np.uint8))
    return folder


def measure(world: pathlib.Path, root: pathlib.Path, gpus: int, *arguments: str) -> dict[str, str]:
    """Metric -> its results as they are printed."""
    words = [
        str(root / 'calc_metrics_video.py'),
        f'--plugin={world / "plugin.py"}',
        '--device=cpu',
        '--no-cache',
        f'--gpus={gpus}',
    ]
    result = subprocess.run([sys.executable, *words, *arguments], cwd=world, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('{')]
    assert all(line['num_gpus'] == gpus for line in lines)
    return {line['metric']: json.dumps(line['results']) for line in lines}


@pytest.mark.parametrize('kind', ['codes', 'pictures of a snapshot', 'pictures', 'pairs'])
def test_two_ranks_print_what_one_prints(world: pathlib.Path, root: pathlib.Path, kind: str) -> None:
    names = {'codes': OF_CODES, 'pairs': OF_PAIRS}.get(kind, OF_PICTURES)
    few = '-few' if kind == 'pairs' else ''
    videos = (f'--real={world / f"real{few}.npy"}', f'--fake={world / f"fake{few}.npy"}', '--pairs=order')
    snapshot = (f'--network={world / "run"}',)
    inputs = {'codes': snapshot, 'pictures of a snapshot': snapshot}.get(kind, videos)
    one, two = (measure(world, root, gpus, f'--metrics={",".join(names)}', *inputs) for gpus in (1, 2))
    assert list(one) == list(names)
    different = {name: (one[name], two.get(name)) for name in one if one[name] != two.get(name)}
    assert different == {}


def test_no_kind_is_left_out() -> None:
    """A new family of metrics has to be named above."""
    known, problems = discovery.discover_metrics()
    assert problems == {}
    assert {pathlib.Path(discovery.find_metric(name) or '').name for name in (*OF_CODES, *OF_PICTURES, *OF_PAIRS)} == {
        pathlib.Path(path).name for path in known.values()
    }
