"""Frames a second of an image generator: rendering as the commands do, the plain definition, and the convolutions alone.

    python benchmarks/rendering.py --networks=stylegan2-256,stylegan2-1024 --batches=1,8
    python benchmarks/rendering.py --networks=stylegan2-1024 --device=cuda --public=PATH/TO/stylegan3

Networks have the channels of NVIDIA's configurations and random weights, which changes nothing about the time. All forms take
turns in one run, so that other work beside hits all of them; ratios can be trusted where absolute numbers cannot. `limit` is
every convolution of the network on its own, with the arguments that the definition calls it with and the faster of both memory
layouts. Products that are 1x1 convolutions (StyleGAN3-r) count among them, as they are and with weights in the convolution's
own order, which is far faster on processors that PyTorch's library of products does not know. With --public, the code of a
checkout of stylegan2-ada-pytorch or stylegan3 renders the same weights in a process of its own. On a processor, times are the
processor's, and the commands' settings of the allocator hold for all forms in this process; the public code runs with the
allocator as it is.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import pathlib
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training.commands.command_line import prepare_process  # noqa: E402

prepare_process()  # before PyTorch

import click  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

Seconds = Callable[[Callable[[], object]], float]  # how long a call takes

# Network of the public code that is told what to do on its standard input: a number of frames, answered by the seconds.
WORKER = """
import pickle, runpy, sys, time
root, folder, weights, device, threads = sys.argv[1:]
sys.path.insert(0, folder)
runpy.run_path(f'{root}/networks/host_compatibility.py')['provide_pkg_resources']()
import torch
torch.set_num_threads(int(threads))
answers = sys.stdout
sys.stdout = sys.stderr  # what the code itself prints
with open(weights, 'rb') as file:
    kind, settings, state, ws, picture = pickle.load(file)
try:
    import importlib
    module = importlib.import_module('training.networks_stylegan3' if kind == 'stylegan3' else 'training.networks_stylegan2')
    options = {**settings, **settings.pop('synthesis_kwargs', {})}
except ImportError:
    from training import networks as module
    options = settings
G = module.Generator(**options).eval().requires_grad_(False).to(device)
own = G.state_dict()
G.load_state_dict({name: state.get(name, own[name]) for name in own})
ws = ws.to(device)
def render(count):
    cpu = device == 'cpu'
    clock = time.process_time if cpu else time.perf_counter
    begin = clock()
    with torch.no_grad():
        images = G.synthesis(ws[:count], noise_mode='const', force_fp32=cpu)
    if not cpu:
        torch.cuda.synchronize()
    return clock() - begin, images
torch.save(render(1)[1].float().cpu(), picture)
print('ready', file=answers, flush=True)
for line in sys.stdin:
    print(render(int(line))[0], file=answers, flush=True)
"""


def make_network(name: str) -> tuple[Any, dict[str, Any]]:
    """A generator with random weights and its constructor arguments: stylegan2-RESOLUTION, stylegan3t-..., stylegan3r-..."""
    from networks import stylegan2, stylegan3

    kind, _, size = name.partition('-')
    resolution = int(size)
    torch.manual_seed(0)
    shape: dict[str, Any] = {'z_dim': 512, 'c_dim': 0, 'w_dim': 512, 'img_resolution': resolution, 'img_channels': 3}
    G: Any
    if kind == 'stylegan2':
        base = 32768 if resolution >= 512 else 16384
        synthesis = {'channel_base': base, 'channel_max': 512, 'num_fp16_res': 4, 'conv_clamp': 256}
        settings = {**shape, 'synthesis_kwargs': synthesis}
        G = stylegan2.Generator(**settings)
    elif kind in ('stylegan3t', 'stylegan3r'):
        settings = dict(shape)
        if kind == 'stylegan3r':
            settings |= {'conv_kernel': 1, 'channel_base': 65536, 'channel_max': 1024, 'use_radial_filters': True}
        G = stylegan3.Generator(**settings)
    else:
        raise click.UsageError(f'--networks: {name!r} is none of stylegan2-RESOLUTION, stylegan3t-..., stylegan3r-...')
    with torch.no_grad():
        for key, parameter in G.named_parameters():
            if key.endswith('noise_strength'):
                parameter.fill_(0.1)
    return G.eval().requires_grad_(False), settings


def recorded_convolutions(render: Callable[[], object]) -> list[Any]:
    """The dense convolutions that a rendering calls, with shapes in the place of tensors."""
    calls: list[Any] = []
    with contextlib.ExitStack() as stack:
        for name in ('conv2d', 'conv_transpose2d'):
            original = getattr(F, name)

            def record(*args: Any, original: Any = original, **kwargs: Any) -> torch.Tensor:
                groups = kwargs.get('groups', args[6] if len(args) > 6 else 1)
                if groups == 1:
                    kept = tuple(tuple(a.shape) if isinstance(a, torch.Tensor) else a for a in args)
                    calls.append((original, kept, kwargs))
                return original(*args, **kwargs)

            setattr(F, name, record)
            setattr(torch.nn.functional, name, record)
            stack.callback(setattr, F, name, original)
        product = torch.Tensor.__matmul__

        def record_product(weight: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
            if maps.ndim == 3 and weight.ndim == 2:  # [O, I] @ [N, I, pixels]
                calls.append((F.conv2d, ((*maps.shape[:2], 1, maps.shape[2]), (*weight.shape, 1, 1)), {}))
            return product(weight, maps)

        torch.Tensor.__matmul__ = record_product  # type: ignore[assignment,method-assign]
        stack.callback(setattr, torch.Tensor, '__matmul__', product)
        render()
    return calls


def limit(calls: list[Any], dtype: torch.dtype, device: torch.device, seconds: Seconds) -> Callable[[], None]:
    """A function that does nothing but these convolutions, each in the faster layout."""
    from training.kernels.rendering.convolutions import Convolution

    chosen = []
    for original, args, kwargs in calls:
        variants = []
        for layout in (torch.contiguous_format, torch.channels_last):
            tensors = [
                torch.randn(a, device=device).to(dtype).contiguous(memory_format=layout) if np.ndim(a) and len(a) == 4 else a
                for a in args
            ]
            function = functools.partial(original, *tensors, **kwargs)
            if dtype == torch.bfloat16 and device.type == 'cpu' and layout is torch.contiguous_format:
                continue  # imitated, and takes minutes
            function()
            variants.append((min(seconds(function) for _ in range(2)), function))
            if device.type == 'cpu' and args[1][2:] == (1, 1) and layout is torch.channels_last:
                packed = functools.partial(Convolution(lambda: tensors[1], padding=0), tensors[0])  # noqa: B023
                packed()
                variants.append((min(seconds(packed) for _ in range(2)), packed))
        chosen.append(min(variants, key=lambda pair: pair[0])[1])

    def run() -> None:
        for function in chosen:
            function()

    return run


@contextlib.contextmanager
def public_worker(
    folder: str, G: Any, settings: dict[str, Any], name: str, ws: torch.Tensor, device: str, threads: int, wanted: torch.Tensor
) -> Iterator[Callable[[int], float]]:
    """Start the public code; yields a function from a number of frames to seconds."""
    with tempfile.TemporaryDirectory() as temporary:
        weights, picture = pathlib.Path(temporary) / 'weights.pkl', pathlib.Path(temporary) / 'picture.pt'
        kind = 'stylegan3' if name.startswith('stylegan3') else 'stylegan2'
        with open(weights, 'wb') as file:
            pickle.dump((kind, settings, {k: v.cpu() for k, v in G.state_dict().items()}, ws.cpu(), str(picture)), file)
        command = [sys.executable, '-c', WORKER, str(ROOT), folder, str(weights), device, str(threads)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            stdin, stdout = process.stdin, process.stdout

            def ask(count: int) -> float:
                print(count, file=stdin, flush=True)
                return float(stdout.readline())

            if stdout.readline() != 'ready\n':
                raise click.ClickException('--public: the code there does not run')
            other = torch.load(picture)
            difference = float((other - wanted).abs().max() / (wanted.max() - wanted.min()))
            print(f'  public code: largest difference {difference:.1e} of the range')
            yield ask
            stdin.close()


def row(label: str, times: list[float], count: int, reference: list[float] | None) -> str:
    """A table's row: frames a second, spread, and the ratio to another form of the same rounds."""
    fps = [count / value for value in times]
    cells = f'| {label} | {statistics.median(fps):.3g} ({min(fps):.3g}..{max(fps):.3g}) |'
    if reference is None:
        return f'{cells} |'
    ratios = [b / a for a, b in zip(times, reference, strict=True)]
    return f'{cells} {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f}) |'


def measure(
    name: str, batches: list[int], precisions: list[str], device: torch.device, threads: int, rounds: int, public: str | None
) -> None:
    """Print the tables of one network."""
    from training.videos.renderer import has_bfloat16, renderer

    G, settings = make_network(name)
    G = G.to(device)
    most = max(batches)
    with torch.no_grad():
        ws = G.mapping(torch.randn(most, 512, generator=torch.Generator().manual_seed(1)).to(device), None)
    cpu = device.type == 'cpu'

    def seconds(function: Callable[[], object]) -> float:
        clock = time.process_time if cpu else time.perf_counter
        begin = clock()
        function()
        if not cpu:
            torch.cuda.synchronize()
        return clock() - begin

    def plain(count: int, full: bool = cpu) -> torch.Tensor:
        with torch.no_grad():
            return G.synthesis(ws[:count], noise_mode='const', force_fp32=full)

    print(f'\n{name}')
    exact = plain(1, True).cpu()
    precisions = [p for p in precisions if p != 'bf16' or has_bfloat16(device)]
    for precision in precisions:
        difference = renderer(G, precision)(ws[:1], 'const').cpu() - exact
        span = float(exact.max() - exact.min())
        ratio = 20 * torch.log10(span / difference.square().mean().sqrt())
        largest = float(difference.abs().max()) / span
        print(f'  {precision}: difference to the definition in float32 at most {largest:.1e} of the range, PSNR {ratio:.1f} dB')
    with contextlib.ExitStack() as stack:
        ask = None
        if public is not None:
            ask = stack.enter_context(public_worker(public, G, settings, name, ws, str(device), threads, plain(1).float().cpu()))
        for count in batches:
            calls = recorded_convolutions(lambda: plain(count))  # noqa: B023
            forms: dict[str, Callable[[], float]] = {}
            if ask is not None:
                forms['public code'] = functools.partial(ask, count)
            forms['plain definition'] = lambda: seconds(lambda: plain(count))  # noqa: B023
            kinds = {'auto': torch.float32 if cpu else torch.float16, 'fp32': torch.float32, 'bf16': torch.bfloat16}
            for precision in precisions:
                dtype = kinds[precision]
                render = renderer(G, precision)
                forms[f'rendering, {precision}'] = functools.partial(seconds, functools.partial(render, ws[:count], 'const'))
                with torch.no_grad():
                    alone = limit(calls, dtype, device, seconds)
                forms[f'limit, {str(dtype).removeprefix("torch.")}'] = functools.partial(seconds, torch.no_grad()(alone))
            times: dict[str, list[float]] = {label: [] for label in forms}
            for index in range(rounds + 1):
                for label, form in forms.items():
                    value = form()
                    if index:
                        times[label].append(value)
            reference = times.get('public code', times['plain definition'])
            compared = 'public code' if ask else 'plain definition'
            print(f'\n| {name}, {count} at a time | frames/s (range) | ratio to {compared} (range) |')
            print('|---|---|---|')
            for label, values in times.items():
                print(row(label, values, count, None if values is reference else reference))
            for precision in precisions:
                bound = times[f'limit, {str(kinds[precision]).removeprefix("torch.")}']
                share = [b / a for a, b in zip(times[f'rendering, {precision}'], bound, strict=True)]
                low, middle, high = (round(100 * part) for part in (min(share), statistics.median(share), max(share)))
                print(f'rendering, {precision}: {middle} % of the limit ({low}..{high})')
            sys.stdout.flush()
            del forms, calls
            gc.collect()


# fmt: off
@click.command(help=__doc__, context_settings={'max_content_width': 120})
@click.option('--networks',   help='stylegan2-RESOLUTION, stylegan3t-RESOLUTION, stylegan3r-RESOLUTION', metavar='A,B,..',
              default='stylegan2-64,stylegan2-256,stylegan2-1024', show_default=True)
@click.option('--batches',    help='Frames at a time', metavar='N,M,..', default='1,8', show_default=True)
@click.option('--precisions', help='Of auto, fp32 and bf16', metavar='A,B,..', default='auto', show_default=True)
@click.option('--device',     help='cpu, cuda, cuda:1, ...', metavar='NAME', default='cpu', show_default=True)
@click.option('--threads',    help='On a processor', metavar='INT', type=click.IntRange(min=1), default=1, show_default=True)
@click.option('--rounds',     help='Turns of every form', metavar='INT', type=click.IntRange(min=2), default=5, show_default=True)
@click.option('--public',     help='Checkout of stylegan2-ada-pytorch or stylegan3', metavar='DIR')
def main(networks: str, batches: str, precisions: str, device: str, threads: int, rounds: int, public: str | None) -> None:
    """See the text above."""
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    place = torch.device(device)
    what = torch.cuda.get_device_name(place) if place.type == 'cuda' else f'{threads} threads, processor time'
    print(f'PyTorch {torch.__version__}, {what}, {rounds} rounds')
    for name in networks.split(','):
        measure(name, [int(part) for part in batches.split(',')], precisions.split(','), place, threads, rounds, public)
        gc.collect()
# fmt: on


if __name__ == '__main__':
    main()
