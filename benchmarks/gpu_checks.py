"""Checks and timings of everything that only a GPU can show, in parts that do not depend on each other.

    python benchmarks/gpu_checks.py --out=results                     # every part, each in a process with a time limit
    python benchmarks/gpu_checks.py --out=results --public=FOLDER     # rendering beside a checkout of stylegan2-ada-pytorch
    python benchmarks/gpu_checks.py --parts=operations,recurrence --no-timings

Parts: `operations` (bias_act, upfirdn2d, filtered_lrelu against float64: values, first and second gradients), `recurrence` (the
same of the latent generator's), `training` (CUDA graphs beside plain operations: the same steps, and how fast; beside the
paper's form out of autograd's operations), `rendering` (256 and 1024, random weights), `stylegan3`, `features` (FVD), `speed`
(of operations).
All of them fit into eight minutes. Results go to gpu_checks.json and gpu_checks.log in the folder. The exit code is 1 if a check
fails; without a GPU the script says so in one line and leaves with 0.
"""

import contextlib
import functools
import importlib
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from torch_utils.ops import bias_act, conv2d_resample, cuda_plugins, filtered_lrelu, upfirdn2d  # noqa: E402

# Largest allowed error, relative to the largest number of the plain form in float64.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 2e-6, torch.float16: 1e-2, torch.bfloat16: 6e-2}

Operation = Callable[..., torch.Tensor]

# ----------------------------------------------------------------------------
# Agreement.


def gradients(function: Operation, inputs: list[torch.Tensor], impl: str) -> list[torch.Tensor]:
    """Return the value and the first and second gradients of an operation, for weights that depend on the shapes only."""
    inputs = [x.detach().requires_grad_() for x in inputs]

    def weighted(x: torch.Tensor) -> torch.Tensor:
        # whole numbers from -4 to 4, exact in every dtype, without a period that a filter could cancel
        weights = (torch.arange(x.numel(), device=x.device) * 2654435761 // 65536) % 9 - 4
        return (x * weights.reshape(x.shape).to(x.dtype)).sum()

    y = function(*inputs, impl=impl)
    first = torch.autograd.grad(weighted(y), inputs, create_graph=True)
    total = torch.stack([weighted(grad) for grad in first]).sum()
    second: Any = [None] * len(inputs)
    if total.requires_grad:
        second = torch.autograd.grad(total, inputs, allow_unused=True)
    return [y.detach(), *(x.detach() for x in first), *(x.detach() for x in second if x is not None)]


def largest_error(function: Operation, inputs: list[torch.Tensor], dtype: torch.dtype) -> float:
    """Return the largest relative error of the CUDA form in `dtype`, measured at the plain form in float64."""
    rounded = [x.to(dtype) for x in inputs]
    results = gradients(function, rounded, 'cuda')
    references = gradients(function, [x.double() for x in rounded], 'ref')
    if len(results) != len(references):
        return float('inf')
    errors = [
        ((mine.double() - reference).abs().max() / reference.abs().max().clamp(min=1e-3)).item()
        for mine, reference in zip(results, references, strict=True)
        if reference.numel()
    ]
    return max(errors, default=0.0)


def operations(device: torch.device) -> Iterator[tuple[str, Operation, list[torch.Tensor]]]:
    """Yield name, operation and inputs of every check, odd sizes and layouts included."""
    generator = torch.Generator(device).manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=torch.float64, generator=generator)

    for act, (gain, clamp) in itertools.product(bias_act.activation_funcs, [(None, None), (0.7, 0.9)]):
        for shape in ([3, 5, 7, 9], [4, 8], [2, 3, 33, 65]):
            yield (
                f'bias_act {act} {shape} gain={gain} clamp={clamp}',
                lambda x, b, impl, act=act, gain=gain, clamp=clamp: bias_act.bias_act(
                    x, b, act=act, gain=gain, clamp=clamp, impl=impl
                ),
                [randn(*shape), randn(shape[1])],
            )
    filters = {
        '4x4': torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 2, 3, 1])) / 49,
        '12 taps': torch.hann_window(14)[1:-1] / 6.5,
        '3x5': torch.linspace(0.2, 1.4, 15).reshape(3, 5),
    }
    resamplings: list[dict[str, Any]] = [
        {},
        {'up': 2, 'padding': [2, 1, 2, 1], 'gain': 4},
        {'down': 2, 'padding': 1},
        {'up': 2, 'padding': [-3, 9, 5, 4]},
        {'up': [1, 3], 'down': [2, 1], 'padding': 6, 'flip_filter': True},
        {'up': 2, 'down': 2, 'padding': 6},
    ]
    for (name, f), resampling, shape in itertools.product(
        filters.items(), resamplings, ([2, 3, 17, 14], [1, 2, 75, 130], [3, 8, 16, 16])
    ):
        if f.ndim == 1 and not resampling.get('padding'):
            continue
        for layout in (torch.contiguous_format, torch.channels_last):
            f = f.to(device)
            yield (
                f'upfirdn2d {name} {resampling} {shape} {str(layout).removeprefix("torch.")}',
                lambda x, impl, f=f, resampling=resampling: upfirdn2d.upfirdn2d(x, f, impl=impl, **resampling),
                [randn(*shape).contiguous(memory_format=layout)],
            )
    f = filters['4x4'].to(device)
    crooked = randn(2, 3, 12, 11).transpose(2, 3)[..., ::2]  # neither order of dimensions is dense
    for name, x in {
        'no images': randn(0, 3, 8, 8),
        'with gaps': crooked,
        'expanded': randn(1, 3, 9, 9).expand(4, -1, -1, -1),
    }.items():
        yield f'upfirdn2d {name}', lambda x, impl, f=f: upfirdn2d.upfirdn2d(x, f, up=2, padding=2, impl=impl), [x]
        yield f'bias_act {name}', lambda x, b, impl: bias_act.bias_act(x, b, act='swish', impl=impl), [x, randn(3)]
    fu, radial = filters['12 taps'].to(device), torch.outer(filters['12 taps'], filters['12 taps']).to(device)
    for up, fd, padding in ((2, fu, [11, 10, 10, 11]), (4, fu, [17, 18, 19, 16]), (2, radial, 11), (1, fu, 6)):
        for shape in ([2, 5, 19, 18], [1, 2, 75, 68]):
            yield (
                f'filtered_lrelu up={up} {list(fd.shape)} {shape}',
                lambda x, b, impl, up=up, fd=fd, padding=padding: filtered_lrelu.filtered_lrelu(
                    x, fu, fd, b, up=up, down=2, padding=padding, clamp=1.5, impl=impl
                ),
                [randn(*shape), randn(5 if shape[1] == 5 else 2)],
            )


def check_operations(device: torch.device) -> dict[str, Any]:
    """Largest errors of each kind of operation and dtype, and all failures."""
    one = torch.ones([1, 1, 1, 1], device=device)
    failures: list[str] = []
    rows: dict[str, Any] = {}
    for module in (bias_act, upfirdn2d):
        if cuda_plugins.plugin_for(module.__name__.rsplit('.', 1)[-1], one, 'cuda', module._probe) is None:
            failures.append(f'{module.__name__}: the CUDA form is not available')
    for name, function, inputs in operations(device):
        for dtype, tolerance in TOLERANCES.items():
            error = largest_error(function, inputs, dtype)
            row = rows.setdefault(f'{name.split()[0]} {str(dtype).removeprefix("torch.")}', {'cases': 0, 'largest_error': 0.0})
            row['cases'] += 1
            row['largest_error'] = max(row['largest_error'], error)
            if not error <= tolerance:
                failures.append(f'{name} {dtype}: relative error {error:.2e}, allowed {tolerance:.0e}')
    failures += check_large_tensor(device)
    return {'errors': rows, 'failures': failures}


def check_large_tensor(device: torch.device) -> list[str]:
    """Failures at a tensor with more than 2^31 elements, where there is memory for it."""
    free, _ = torch.cuda.mem_get_info(device)
    if free < 24 << 30:
        print('large tensors: left out, needs 24 GiB of free GPU memory')
        return []
    x = torch.zeros([1, 1, 46341, 46342], device=device, dtype=torch.float16)
    x[..., -1, -1] = 1
    y = bias_act.bias_act(x, torch.ones(1, device=device, dtype=torch.float16))
    z = upfirdn2d.upfirdn2d(x, torch.ones([1, 1], device=device), gain=3)
    good = y[0, 0, -1, -1] == 2 and y[0, 0, 0, 0] == 1 and z[0, 0, -1, -1] == 3 and z[0, 0, -2].abs().max() == 0
    return [] if good else [f'large tensors: wrong at {x.numel()} elements']


def _with_gradients(roll: Callable[[], Any], module: torch.nn.Module) -> None:
    torch.autograd.grad(roll()[0].square().sum(), list(module.parameters()), retain_graph=True)


def check_recurrence(device: torch.device) -> dict[str, Any]:
    """Errors of the recurrence's CUDA form against its equations by autograd in float64, and its speed beside G.rollout."""
    from networks.latent_generator import LatentGenerator
    from training.kernels import fast_rollout, gated_recurrence

    failures: list[str] = []
    rows: dict[str, Any] = {}
    size = gated_recurrence.SIZE
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-4)):
        form = gated_recurrence.recurrence_for(torch.zeros(1, device=device, dtype=dtype))
        if form is None:
            return {'failures': ['the CUDA form of the recurrence is not available']}
        for count, steps, cells in ((1, 1, 1), (3, 24, 4), (65, 24, 4), (301, 7, 4), (40, 5, 6), (16, 200, 4)):
            torch.manual_seed(count)
            gates = 3 * size
            shapes = [(count, steps, size), (cells, count, size), *[(cells, gates, size)] * 2, *[(cells, gates)] * 2]
            drawn = [torch.randn(shape, device=device, dtype=torch.float64).div_(4).to(dtype) for shape in shapes]
            results = []
            for function, kind in (
                (functools.partial(fast_rollout._Rollout.apply, form), dtype),
                (fast_rollout._plain, torch.float64),
            ):
                inputs = [x.to(kind).requires_grad_(True) for x in drawn]
                l, memories = function(*inputs)
                first = torch.autograd.grad(l[:, -1].square().sum() + memories.sum(), inputs, create_graph=True)
                second = torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), inputs)
                results.append([l, memories, *first, *second])
            error = max(
                float((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-6)) for a, b in zip(*results, strict=True)
            )
            rows[f'{count} samples, {steps} steps, {cells} cells, {str(dtype).removeprefix("torch.")}'] = error
            if not error <= tolerance:
                failures.append(f'recurrence {count} x {steps} x {cells} {dtype}: relative error {error:.2e}')
    G = LatentGenerator(18, 512, num_components=56).to(device)
    narrow = LatentGenerator(18, 512, latent_dim=20, noise_dim=16, hidden_dim=24, num_components=56).to(device)
    for each in (G, narrow):
        state = each.initial_state(torch.randn(70, each.latent_dim, device=device))
        s = torch.randn(70, 24, each.noise_dim, device=device)
        with torch.no_grad():
            error = float((fast_rollout.rollout(each, s, state)[0] - each.rollout(s, state)[0]).abs().max())
        if not error < 1e-5:
            failures.append(f'rollout of a generator: {error:.2e} from the plain one')
    times = {}
    for count, steps in ((64, 24), (128, 24), (16, 464), (1024, 100)):
        state = G.initial_state(torch.randn(count, 32, device=device))
        s = torch.randn(count, steps, 32, device=device)
        for name, roll in (('fused', fast_rollout.rollout), ('plain', type(G).rollout)):
            with torch.no_grad():
                times[f'{count} x {steps} {name}, ms'] = milliseconds(functools.partial(roll, G, s, state), 10)  # type: ignore[arg-type]
            if steps == 24:
                times[f'{count} x {steps} {name} with gradients, ms'] = milliseconds(
                    functools.partial(_with_gradients, functools.partial(roll, G, s, state), G.P), 10
                )
    begin = time.perf_counter()
    state = G.initial_state(torch.randn(1024, 32, device=device))
    with torch.no_grad():
        for _ in range(100):
            l, states = fast_rollout.rollout(G, torch.randn(1024, 100, 32, device=device), state)
            state = tuple(h.clone() for h in states[100])
            G.coordinates(l[:, 1:])
    torch.cuda.synchronize()
    times['1024 videos of 10000 frames, coordinates, s'] = time.perf_counter() - begin
    return {'errors': rows, 'times': times, 'failures': failures}


# ----------------------------------------------------------------------------
# Timings.


def milliseconds(function: Callable[[], Any], repeats: int = 30) -> float:
    """Return the median time of a call on the GPU."""
    for _ in range(5):
        function()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        function()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def copy_speed(device: torch.device) -> float:
    """Bytes read and written, in 10^9 a second, of the largest plain copy."""
    source = torch.randn(1 << 29, device=device, dtype=torch.float16)
    copied = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda: copied.copy_(source)) / 1e6


def time_operations(device: torch.device) -> dict[str, Any]:
    """Times of forward and backward passes with the CUDA and the plain forms, and bytes a second of the CUDA forms."""
    f = upfirdn2d.setup_filter([1, 3, 3, 1], device=device)
    f12 = upfirdn2d.setup_filter(torch.hann_window(14)[1:-1], device=device)
    calls: dict[str, Operation] = {
        'bias_act lrelu': lambda x, impl: bias_act.bias_act(x, x[0, :, 0, 0], act='lrelu', clamp=256, impl=impl),
        'bias_act swish': lambda x, impl: bias_act.bias_act(x, x[0, :, 0, 0], act='swish', impl=impl),
        'filter2d': lambda x, impl: upfirdn2d.filter2d(x, f, impl=impl),
        'upsample2d': lambda x, impl: upfirdn2d.upsample2d(x, f, impl=impl),
        'downsample2d': lambda x, impl: upfirdn2d.downsample2d(x, f, impl=impl),
        'upsample2d 12': lambda x, impl: upfirdn2d.upsample2d(x, f12, impl=impl),
        'filtered_lrelu': lambda x, impl: filtered_lrelu.filtered_lrelu(
            x, f12, f12, x[0, :, 0, 0], up=2, down=2, padding=11, clamp=256, impl=impl
        ),
    }
    rows: dict[str, Any] = {}
    rows['copy, GB/s'] = copy_speed(device)
    print(f'{"[8, 128, 256, 256], milliseconds":<34s} {"CUDA":>18s} {"plain":>18s}')
    for (name, call), dtype, layout in itertools.product(
        calls.items(), [torch.float32, torch.float16], [torch.contiguous_format, torch.channels_last]
    ):
        x = torch.randn([8, 128, 256, 256], device=device, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
        label = f'{name}, {str(dtype).removeprefix("torch.")}, {"nhwc" if layout is torch.channels_last else "nchw"}'
        row = {}
        for impl in ('cuda', 'ref'):
            y = call(x, impl)
            dy = torch.randn_like(y)
            row[f'{impl} forward'] = milliseconds(lambda: call(x.detach(), impl), 10)  # noqa: B023
            row[f'{impl} backward'] = milliseconds(lambda: torch.autograd.grad(y, x, dy, retain_graph=True), 10)  # noqa: B023
            if impl == 'cuda':
                row['GB/s'] = (x.nbytes + y.nbytes) / row['cuda forward'] / 1e6
        rows[label] = row
        print(f'{label:<40s}' + ''.join(f'{key}: {value:8.3f}  ' for key, value in row.items()))
    x, w = torch.randn([8, 128, 128, 128], device=device), torch.randn([128, 128, 3, 3], device=device)
    for up, down in ((1, 1), (2, 1), (1, 2)):
        resample = functools.partial(conv2d_resample.conv2d_resample, x, w, f, up=up, down=down, padding=1)
        rows[f'conv2d_resample up={up} down={down}'] = milliseconds(resample, 10)
    return {'times': rows, 'failures': []}


# ----------------------------------------------------------------------------
# Training.


class PaperStep:
    """One training step of the paper out of autograd's operations: free maps A_j, five critic updates, L_GAP on every window."""

    def __init__(self, num_ws: int, w_dim: int, device: torch.device, batch: int = 64, frames: int = 25) -> None:
        from networks.latent_generator import LatentGenerator
        from networks.temporal_critic import TemporalCritic

        torch.manual_seed(0)
        self.batch, self.frames, self.device = batch, frames, device
        self.G = LatentGenerator(num_ws, w_dim).to(device)
        self.C = TemporalCritic(num_ws * w_dim, num_frames=frames).to(device)
        self.optimizers = [torch.optim.Adam(module.parameters(), lr=1e-3, betas=(0.5, 0.9)) for module in (self.G, self.C)]
        self.real = torch.randn(256, frames, num_ws * w_dim, device=device)

    def __call__(self) -> None:
        from training.temporal_loss import gradient_angle_penalty, gradient_penalty

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device=self.device)

        G, C = self.G, self.C
        for _ in range(5):
            with torch.no_grad():
                fake = G.coordinates(G.rollout(draw(self.batch, self.frames - 1, 32), G.initial_state(draw(self.batch, 32)))[0])
            real = self.real[torch.randint(len(self.real), (self.batch,), device=self.device)]
            penalty = gradient_penalty(C, real, fake, torch.rand(self.batch, device=self.device)).mean()
            self.optimizers[1].zero_grad(set_to_none=True)
            (C(fake).mean() - C(real).mean() + 10 * penalty).backward()
            self.optimizers[1].step()
        i, s = draw(self.batch, 32).requires_grad_(True), draw(self.batch, self.frames - 1, 32).requires_grad_(True)
        l = G.rollout(s, G.initial_state(i))[0]
        loss = 3 * gradient_angle_penalty(l, (i,), s)[0].mean() - C(G.coordinates(l)).mean()
        self.optimizers[0].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[0].step()


def make_footage(path: pathlib.Path, num_ws: int, w_dim: int, num_frames: int = 3000) -> None:
    """A latent data set of smooth motion in 60 directions of falling size."""
    from training.latents.dataset import LatentDatasetWriter

    random = np.random.RandomState(0)
    directions = random.randn(60, num_ws * w_dim) / np.arange(1, 61)[:, None]
    moments = np.arange(num_frames)[:, None]
    waves = np.sin(moments / random.uniform(4, 40, size=60) + random.uniform(0, 6, size=60))
    codes = (waves @ directions + 0.01 * random.randn(num_frames, num_ws * w_dim)).reshape(num_frames, num_ws, w_dim)
    reference = {'sha256': '0' * 64, 'num_ws': num_ws, 'w_dim': w_dim}
    with LatentDatasetWriter(str(path), image_generator=reference, num_ws=num_ws, w_dim=w_dim, embedding={}) as writer:
        writer.add_clip('waves', codes.astype(np.float32), fps=25.0, source='waves.mp4')
        writer.finish()


def check_training(device: torch.device) -> dict[str, Any]:
    """Whether CUDA graphs make the steps that plain operations make, over 50 steps, and the times of a step of every form."""
    from torch_utils import training_stats
    from training.latent_space import Windows, fit_latent_space
    from training.latents.dataset import LatentDataset
    from training.temporal_options import PRESETS, LatentSpaceOptions, Settings
    from training.temporal_trainer import TemporalTrainer

    failures: list[str] = []
    times: dict[str, float] = {}
    curves: dict[str, Any] = {}
    ends: dict[str, list[torch.Tensor]] = {}
    paper = {key.split('.')[1]: value for key, value in PRESETS['paper'].items() if key.startswith('settings.')}

    def seconds_per_step(step: Callable[[], None], steps: int) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
        return (time.perf_counter() - begin) / steps

    with tempfile.TemporaryDirectory() as folder:
        for num_ws, w_dim in ((18, 512), (10, 128)):
            shape = f'{num_ws}x{w_dim}'
            path = pathlib.Path(folder) / f'{shape}.zip'
            make_footage(path, num_ws, w_dim)
            dataset = LatentDataset(str(path))
            for setting, changes, full in (('default', {}, False), ('paper', paper, True), ('default, full codes', {}, True)):
                if full and w_dim == 128 and setting == 'paper':
                    continue
                settings = Settings(**changes)
                space = fit_latent_space(dataset, LatentSpaceOptions(full=full))
                for graphs in (False, True):
                    windows = Windows(dataset, space, 25, device, settings.strides)
                    trainer = TemporalTrainer(
                        G_kwargs={'num_ws': num_ws, 'w_dim': w_dim},
                        C_kwargs={},
                        space=space,
                        windows=windows,
                        settings=settings,
                        total_kimg=6400,
                        seed=1,
                        device=device,
                        graphs=graphs,
                    )
                    name = f'{shape} {setting} {"graphs" if graphs else "plain operations"}'
                    collector = training_stats.Collector(regex='Loss/.*')
                    for _ in range(50):
                        trainer.step()
                    collector.update()
                    curves[name] = {key: value.mean for key, value in collector.as_dict().items()}
                    ends[name] = [p.detach().clone() for module in (trainer.G, trainer.critics) for p in module.parameters()]
                    times[f'{name}, ms'] = 1000 * seconds_per_step(trainer.step, 200 if graphs else 24)
                    if trainer.graphs is not None and not trainer.graphs.enabled:
                        failures.append(f'{name}: CUDA graphs were given up (the log says why)')
                    if not trainer.is_finite():
                        failures.append(f'{name}: not finite')
                    print(name, times[f'{name}, ms'])
                one, two = (ends[f'{shape} {setting} {form}'] for form in ('plain operations', 'graphs'))
                apart = torch.stack([(a - b).norm() for a, b in zip(one, two, strict=True)]).norm()
                size = torch.stack([a.norm() for a in one]).norm()
                times[f'{shape} {setting}: weights after 50 steps differ by'] = float(apart / size)
            times[f'{shape} paper, PaperStep, ms'] = 1000 * seconds_per_step(PaperStep(num_ws, w_dim, device), 8)
    return {'times': times, 'losses': curves, 'failures': failures}


# ----------------------------------------------------------------------------
# Rendering and features.


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
                words = [
                    str(ROOT / 'benchmarks/public_stylegan2.py'),
                    public,
                    f'{folder}/in.pt',
                    f'{folder}/out.pt',
                    str(resolution),
                ]
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


# ----------------------------------------------------------------------------
# Running.

# name: (function, seconds that it may take, whether it does nothing but time)
PARTS: dict[str, tuple[Callable[..., dict[str, Any]], float, bool]] = {
    'operations': (check_operations, 150, False),
    'recurrence': (check_recurrence, 75, False),
    'training': (check_training, 120, False),
    'rendering': (time_rendering, 150, True),
    'stylegan3': (time_stylegan3, 60, True),
    'features': (time_features, 40, True),
    'speed': (time_operations, 60, True),
}


def run_part(name: str, device: str, public: str | None, result: str) -> None:
    """Run one part in this process and write what it found."""
    gpu = torch.device(device)
    torch.cuda.set_device(gpu)
    torch.backends.cuda.matmul.allow_tf32 = False
    if name in ('operations', 'recurrence', 'training'):
        torch.backends.cudnn.allow_tf32 = False
    function = PARTS[name][0]
    found = function(gpu, public) if name == 'rendering' else function(gpu)
    pathlib.Path(result).write_text(json.dumps(found, indent=1), encoding='utf-8')


# fmt: off
@click.command(help=__doc__, context_settings={'max_content_width': 120})
@click.option('--device', help='CUDA device', metavar='DEVICE', default='cuda:0', show_default=True)
@click.option('--timings/--no-timings', help='Run the parts that measure times only', default=True, show_default=True)
@click.option('--parts', help='Comma-separated parts', metavar='LIST', default=','.join(PARTS), show_default=True)
@click.option('--public', help='Checkout of stylegan2-ada-pytorch', metavar='DIR', type=click.Path(exists=True, file_okay=False))
@click.option('--out', help='Folder for the results', metavar='DIR', default='.', show_default=True)
@click.option('--seconds', help='Begin no part after this time', metavar='FLOAT', type=float, default=480, show_default=True)
@click.option('--part', hidden=True)
@click.option('--result', hidden=True)
def main(device: str, timings: bool, parts: str, public: str | None, out: str, seconds: float,
         part: str | None, result: str | None) -> None:
    if not torch.cuda.is_available():
        print('gpu_checks: there is no GPU that PyTorch can use; nothing was checked.')
        return
    if part is not None and result is not None:
        run_part(part, device, public, result)
        return
    unknown = set(parts.split(',')) - set(PARTS)
    if unknown:
        raise click.UsageError(f'--parts: there is no {", ".join(sorted(unknown))}; there are {", ".join(PARTS)}')
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    report: dict[str, Any] = {
        'gpu': torch.cuda.get_device_name(device), 'torch': torch.__version__, 'cuda': torch.version.cuda, 'parts': {},
    }
    print(f'{report["gpu"]}, PyTorch {report["torch"]}, CUDA {report["cuda"]}', flush=True)
    public = None if public is None else os.path.abspath(public)
    with open(folder / 'gpu_checks.log', 'w', encoding='utf-8') as log, tempfile.TemporaryDirectory() as scratch:
        building = None
        if public and 'rendering' in parts:  # compiling takes a minute, and no GPU
            words = [sys.executable, str(ROOT / 'benchmarks/public_stylegan2.py'), public, '--compile']
            building = subprocess.Popen(words, stdout=log, stderr=log)
        for name in parts.split(','):
            if PARTS[name][2] and not timings:
                continue
            left = seconds - (time.perf_counter() - begin)
            if left < 15:
                report['parts'][name] = {'failures': [f'{name}: not begun, no time left']}
                continue
            if name == 'rendering' and building is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    building.wait(max(5, min(120, left - 40)))
            found = pathlib.Path(scratch) / f'{name}.json'
            words = [sys.executable, __file__, f'--device={device}', f'--part={name}', f'--result={found}']
            words += [f'--public={public}'] if public else []
            start = time.perf_counter()
            log.write(f'\n==== {name}\n')
            log.flush()
            limit = min(PARTS[name][1], left)
            try:
                code = subprocess.run(words, stdout=log, stderr=log, timeout=limit, check=False).returncode
                ended = f'{name}: ended with {code}, see gpu_checks.log'
            except subprocess.TimeoutExpired:
                ended = f'{name}: not done after {limit:.0f} s'
            row = json.loads(found.read_text()) if found.exists() else {'failures': [ended]}
            row['seconds'] = time.perf_counter() - start
            report['parts'][name] = row
            (folder / 'gpu_checks.json').write_text(json.dumps(report, indent=1), encoding='utf-8')
            print(f'{name}: {row["seconds"]:.0f} s, {len(row["failures"])} failures', flush=True)
            for failure in row['failures'][:20]:
                print(f'FAILED  {failure}', flush=True)
        if building is not None and building.poll() is None:
            building.kill()
    for name, row in report['parts'].items():
        for kind in ('errors', 'times', 'rates'):
            for key, value in row.get(kind, {}).items():
                print(f'{name} | {key} | {value}')
    failures = sum(len(row['failures']) for row in report['parts'].values())
    print(f'\n{failures} failures' if failures else '\nall right')
    sys.exit(1 if failures else 0)
# fmt: on


if __name__ == '__main__':
    main()
