"""Image generators and feature networks on a GPU: frames and clips a second, and what lower precision costs."""

import contextlib
import functools
import importlib
import itertools
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.timing import milliseconds

PUBLIC = pathlib.Path(__file__).with_name('public_stylegan2.py')
SIZES = ((256, (1, 8, 32)), (1024, (1, 4, 8)))  # resolutions, and how many pictures at a time


def time_rendering(device: torch.device, public: str | None) -> dict[str, Any]:
    """Frames per second of networks with random weights, one by one and in batches, beside the public network."""
    from networks.stylegan2 import Generator

    fast: Any = None
    with contextlib.suppress(ImportError):
        fast = importlib.import_module('training.videos.renderer')
    failures: list[str] = []
    rows: dict[str, Any] = {}
    for resolution, batches in SIZES:
        torch.manual_seed(0)
        kwargs = {'channel_base': 16384 if resolution == 256 else 32768, 'channel_max': 512, 'num_fp16_res': 4, 'conv_clamp': 256}
        G = Generator(512, 0, 512, resolution, 3, mapping_kwargs={'num_layers': 8}, synthesis_kwargs=kwargs).eval().to(device)
        with torch.no_grad():
            for name, parameter in G.named_parameters():
                if name.endswith('noise_strength'):
                    parameter.fill_(0.1)
        ws = torch.randn(max(batches), G.num_ws, 512, device=device)
        forms: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            'plain': functools.partial(G.synthesis, noise_mode='const'),
            'plain fp32': functools.partial(G.synthesis, noise_mode='const', force_fp32=True),
        }
        for precision in ('auto', 'fp32', 'bf16') if fast is not None else ():
            forms[f'renderer {precision}'] = functools.partial(fast.renderer(G, precision), noise_mode='const')
        with torch.no_grad():
            reference = G.synthesis(ws[:4], noise_mode='const', force_fp32=True)
            for name, form in forms.items():
                try:
                    error = float((form(ws[:4]) - reference).abs().max() / (reference.max() - reference.min()))
                    rows[f'{resolution} {name}: largest error of the range'] = error
                    if not error < (1e-3 if 'fp32' in name else 0.2):
                        failures.append(f'rendering {resolution} {name}: {error:.1e} of the range from fp32')
                    for batch in batches:
                        rate = 1000 * batch / milliseconds(functools.partial(form, ws[:batch]), 15)
                        rows[f'{resolution} {name}, {batch} at a time, frames/s'] = rate
                        print(f'{resolution} {name}, {batch} at a time: {rate:.1f} frames/s', flush=True)
                except (RuntimeError, ValueError) as error:
                    failures.append(f'rendering {resolution} {name}: {error}')
        if public:
            with tempfile.TemporaryDirectory() as folder:
                torch.save({'state': G.state_dict(), 'ws': ws.cpu(), 'kwargs': kwargs}, f'{folder}/in.pt')
                words = [str(PUBLIC), public, f'{folder}/in.pt', f'{folder}/out.pt', str(resolution)]
                words = [sys.executable, *words, ','.join(map(str, batches))]
                code: int | str
                try:
                    code = subprocess.run(words, timeout=60, check=False).returncode
                except subprocess.TimeoutExpired:
                    code = 'a timeout'
                if code != 0:
                    rows[f'{resolution} public'] = f'ended with {code}, see the log'
                    continue
                theirs = torch.load(f'{folder}/out.pt', map_location=device, weights_only=True)
            rows |= {f'{resolution} public {key}': value for key, value in theirs['rates'].items()}
            rows[f'{resolution} public, its own operations'] = theirs['compiled']
            difference = (theirs['fp32'] - reference).abs().max() / (reference.max() - reference.min())
            rows[f'{resolution} public: largest difference of the range, fp32'] = float(difference)
    return {'rates': rows, 'failures': failures}


def time_stylegan3(device: torch.device) -> dict[str, Any]:
    """Frames per second of StyleGAN3 with random weights, with filtered_lrelu as one kernel and composed of three."""
    from networks.stylegan3 import Generator
    from torch_utils.ops import filtered_lrelu_cuda

    failures: list[str] = []
    rows: dict[str, Any] = {}
    forms, kinds = filtered_lrelu_cuda.FORMS, {'t': {}, 'r': {'conv_kernel': 1, 'use_radial_filters': True}}
    for resolution, (kind, changes) in itertools.product((256, 1024), kinds.items()):
        torch.manual_seed(0)
        wide = 2 if kind == 'r' else 1
        sizes = {'channel_base': wide * (16384 if resolution == 256 else 32768), 'channel_max': wide * 512}
        G = Generator(512, 0, 512, resolution, 3, mapping_kwargs={'num_layers': 2}, **sizes, **changes).eval().to(device)
        ws = torch.randn(4, G.num_ws, 512, device=device)
        pictures = {}
        for name, chosen in (('one kernel', forms), ('composed', ())):
            filtered_lrelu_cuda.FORMS = chosen
            with torch.no_grad():
                pictures[name] = G.synthesis(ws[:2], force_fp32=True)
                for count in (1, 4):
                    rate = 1000 * count / milliseconds(functools.partial(G.synthesis, ws[:count]), 10)
                    rows[f'stylegan3-{kind} {resolution} {name}, {count} at a time, frames/s'] = rate
        filtered_lrelu_cuda.FORMS = forms
        one, composed = pictures.values()
        error = float((one - composed).abs().max() / (composed.max() - composed.min()))
        rows[f'stylegan3-{kind} {resolution}: largest difference of the range, fp32'] = error
        if not error < 1e-3:
            failures.append(f'stylegan3-{kind} {resolution}: one kernel lies {error:.1e} of the range from three')
    return {'rates': rows, 'failures': failures}


def time_features(device: torch.device) -> dict[str, Any]:
    """Clips of 16 frames a second through I3D with random weights, and how far fp16 lies from fp32."""
    from networks.feature_networks import i3d

    random = np.random.default_rng(0)
    shapes = dict(i3d.convolutions())

    def folded(name: str) -> tuple[np.ndarray, np.ndarray]:
        shape = shapes[name]
        weight = random.standard_normal(shape, dtype=np.float32) / np.sqrt(np.prod(shape[1:]) / 2, dtype=np.float32)
        return weight.astype(np.float32), np.zeros(shape[0], np.float32)

    network = i3d.I3D(folded).to(device)
    rows: dict[str, Any] = {}
    clips = torch.randint(0, 256, (32, 16, 128, 128, 3), device=device, dtype=torch.uint8)
    with torch.no_grad():
        for tf32 in (False, True):
            torch.backends.cudnn.allow_tf32 = tf32
            for batch in (1, 8, 32):
                rate = 1000 * batch / milliseconds(functools.partial(network.features, clips[:batch]), 10)
                rows[f'{batch} clips at a time, {"tf32" if tf32 else "fp32"}, clips/s'] = rate
        exact = network.double().features(clips[:2])
        network.float()
        for tf32 in (False, True):
            torch.backends.cudnn.allow_tf32 = tf32
            rows[f'largest relative error, {"tf32" if tf32 else "fp32"}'] = float(
                (network.features(clips[:2]) - exact).abs().max() / exact.abs().max()
            )
    return {'rates': rows, 'failures': []}
