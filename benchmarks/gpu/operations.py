"""bias_act, upfirdn2d and filtered_lrelu on a GPU: agreement with their plain forms in float64, and times."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.gpu.timing import copy_speed, milliseconds
from torch_utils.ops import bias_act, conv2d_resample, cuda_plugins, filtered_lrelu, upfirdn2d

# Largest allowed error, relative to the largest number of the plain form in float64.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 2e-6, torch.float16: 1e-2, torch.bfloat16: 6e-2}

Operation = Callable[..., torch.Tensor]


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
