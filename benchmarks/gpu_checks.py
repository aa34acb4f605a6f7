"""Checks and timings of everything that only a GPU can show.

    python benchmarks/gpu_checks.py            # agreement of the CUDA forms with the plain ones, then timings
    python benchmarks/gpu_checks.py --device=cuda:1 --no-timings

Each check is one line; the exit code is 1 if one fails. Without a GPU the script says so in one line and leaves with 0.
"""

import itertools
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from torch_utils.ops import bias_act, conv2d_resample, cuda_plugins, filtered_lrelu, upfirdn2d

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
    return max(errors)


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
    fu = filters['12 taps'].to(device)
    yield (
        'filtered_lrelu',
        lambda x, b, impl: filtered_lrelu.filtered_lrelu(
            x, fu, fu, b, up=2, down=2, padding=[11, 10, 10, 11], clamp=1.5, impl=impl
        ),
        [randn(2, 5, 19, 18), randn(5)],
    )


def check_agreement(device: torch.device) -> int:
    """Print one line for each kind of operation and dtype, and for each failure. Returns the number of failures."""
    worst: dict[tuple[str, torch.dtype], float] = {}
    counts: dict[tuple[str, torch.dtype], int] = {}
    failures = 0
    for name, function, inputs in operations(device):
        for dtype, tolerance in TOLERANCES.items():
            error = largest_error(function, inputs, dtype)
            key = name.split()[0], dtype
            worst[key], counts[key] = max(worst.get(key, 0), error), counts.get(key, 0) + 1
            if not error <= tolerance:
                failures += 1
                print(f'FAILED  {name} {dtype}: relative error {error:.2e}, allowed {tolerance:.0e}')
    for (kind, dtype), error in worst.items():
        print(
            f'{kind:<15s} {str(dtype).removeprefix("torch."):<9s} {counts[kind, dtype]:4d} cases, largest relative error of '
            f'value, first and second gradients {error:.1e}'
        )
    return failures


def check_large_tensor(device: torch.device) -> int:
    """Check a tensor with more than 2^31 elements, where there is memory for it. Returns the number of failures."""
    free, _ = torch.cuda.mem_get_info(device)
    if free < 24 << 30:
        print('large tensors: left out, needs 24 GiB of free GPU memory')
        return 0
    x = torch.zeros([1, 1, 46341, 46342], device=device, dtype=torch.float16)
    x[..., -1, -1] = 1
    y = bias_act.bias_act(x, torch.ones(1, device=device, dtype=torch.float16))
    z = upfirdn2d.upfirdn2d(x, torch.ones([1, 1], device=device), gain=3)
    good = y[0, 0, -1, -1] == 2 and y[0, 0, 0, 0] == 1 and z[0, 0, -1, -1] == 3 and z[0, 0, -2].abs().max() == 0
    print(f'large tensors: {"right" if good else "FAILED"} at {x.numel()} elements')
    return int(not good)


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


def print_timings(device: torch.device) -> None:
    """Print the times of forward and backward passes with the CUDA and the plain forms."""
    f = upfirdn2d.setup_filter([1, 3, 3, 1], device=device)
    f12 = upfirdn2d.setup_filter(torch.hann_window(14)[1:-1], device=device)
    w = torch.randn([128, 128, 3, 3], device=device)
    calls: dict[str, Operation] = {
        'bias_act lrelu': lambda x, impl: bias_act.bias_act(x, x[0, :, 0, 0], act='lrelu', clamp=256, impl=impl),
        'bias_act swish': lambda x, impl: bias_act.bias_act(x, x[0, :, 0, 0], act='swish', impl=impl),
        'filter2d': lambda x, impl: upfirdn2d.filter2d(x, f, impl=impl),
        'upsample2d': lambda x, impl: upfirdn2d.upsample2d(x, f, impl=impl),
        'downsample2d': lambda x, impl: upfirdn2d.downsample2d(x, f, impl=impl),
        'upsample2d 12': lambda x, impl: upfirdn2d.upsample2d(x, f12, impl=impl),
    }
    print(f'\n{"[8, 128, 256, 256], milliseconds":<34s} {"CUDA":>18s} {"plain":>18s}')
    print(f'{"":<34s} {"forward   backward":>18s} {"forward   backward":>18s}')
    for (name, call), dtype, layout in itertools.product(
        calls.items(), [torch.float32, torch.float16], [torch.contiguous_format, torch.channels_last]
    ):
        x = torch.randn([8, 128, 256, 256], device=device, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
        row = f'{name:<15s}{str(dtype).removeprefix("torch."):<9s}{"nhwc" if layout is torch.channels_last else "nchw":<10s}'
        for impl in ('cuda', 'ref'):
            y = call(x, impl)
            dy = torch.randn_like(y)
            forward = milliseconds(lambda: call(x.detach(), impl))  # noqa: B023
            backward = milliseconds(lambda: torch.autograd.grad(y, x, dy, retain_graph=True))  # noqa: B023
            row += f'{forward:10.3f} {backward:8.3f}'
        print(row)
    x = torch.randn([8, 128, 128, 128], device=device)
    for up, down in ((1, 1), (2, 1), (1, 2)):
        time = milliseconds(lambda: conv2d_resample.conv2d_resample(x, w, f, up=up, down=down, padding=1))  # noqa: B023
        print(f'conv2d_resample [8, 128, 128, 128] float32 up={up} down={down} {time:8.3f}')


# fmt: off
@click.command(help=__doc__, context_settings={'max_content_width': 120})
@click.option('--device', help='CUDA device', metavar='DEVICE', default='cuda:0', show_default=True)
@click.option('--timings/--no-timings', help='Measure times as well', default=True, show_default=True)
def main(device: str, timings: bool) -> None:
    if not torch.cuda.is_available():
        print('gpu_checks: there is no GPU that PyTorch can use; nothing was checked.')
        return
    gpu = torch.device(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f'{torch.cuda.get_device_name(gpu)}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}')
    one = torch.ones([1, 1, 1, 1], device=gpu)
    for module in (bias_act, upfirdn2d):
        if cuda_plugins.plugin_for(module.__name__.rsplit('.', 1)[-1], one, 'cuda', module._probe) is None:
            print('gpu_checks: FAILED, the CUDA forms are not available here (the line above says why).')
            sys.exit(1)
    failures = check_agreement(gpu) + check_large_tensor(gpu)
    if timings:
        print_timings(gpu)
    print(f'\n{failures} failures' if failures else '\nall right')
    sys.exit(1 if failures else 0)
# fmt: on


if __name__ == '__main__':
    main()
