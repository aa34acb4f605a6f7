"""The temporal model on a GPU: its recurrence against the equations, a training step as CUDA graphs and as plain operations."""

import functools
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.timing import milliseconds, seconds_per_step


def _with_gradients(roll: Callable[[], Any], module: torch.nn.Module) -> None:
    torch.autograd.grad(roll()[0].square().sum(), list(module.parameters()), retain_graph=True)


def check_recurrence(device: torch.device) -> dict[str, Any]:
    """Errors of the recurrence's CUDA form against its equations by autograd in float64, and its speed beside G.rollout."""
    from networks.latent_generator import LatentGenerator
    from training.kernels.recurrence import fast_rollout, gated_recurrence

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
    from training.latent_space import fit_latent_space
    from training.latents.dataset import LatentDataset
    from training.real_windows import Windows
    from training.temporal_options import PRESETS, LatentSpaceOptions, Settings
    from training.temporal_trainer import TemporalTrainer

    failures: list[str] = []
    times: dict[str, float] = {}
    curves: dict[str, Any] = {}
    ends: dict[str, list[torch.Tensor]] = {}
    paper = {key.split('.')[1]: value for key, value in PRESETS['paper'].items() if key.startswith('settings.')}

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
