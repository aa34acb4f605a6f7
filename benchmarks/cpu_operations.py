"""Times of the operations on the CPU, beside the same operations written down the obvious way.

    OMP_NUM_THREADS=1 python benchmarks/cpu_operations.py

Times are the processor's, in milliseconds, the least of several calls: forward pass, and forward and backward pass.
"""

import pathlib
import sys
import time
from collections.abc import Callable

import click
import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d

SHAPES = [(8, 64, 16, 16), (8, 64, 32, 32), (8, 32, 64, 64), (8, 3, 64, 64), (1, 3, 512, 512)]


def obvious_upfirdn2d(x: torch.Tensor, f: torch.Tensor, up: int, down: int, gain: float) -> torch.Tensor:
    """Zeros between the samples, padding, one depthwise convolution."""
    batch, channels, height, width = x.shape
    x = F.pad(x.reshape(batch, channels, height, 1, width, 1), [0, up - 1, 0, 0, 0, up - 1])
    x = F.pad(x.reshape(batch, channels, height * up, width * up), [2, 1, 2, 1] if down == 1 else [1, 1, 1, 1])
    return F.conv2d(x, (f.flip([0, 1]) * gain).expand(channels, 1, -1, -1), stride=down, groups=channels)


def obvious_bias_act(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (F.leaky_relu(x + b.reshape(1, -1, 1, 1), 0.2) * 2**0.5).clamp(-256, 256)


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    """Return the least processor time of a call."""
    function()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return min(times) * 1e3


@click.command(help=__doc__)
@click.option(
    '--repeats',
    help='Calls of which the fastest counts',
    metavar='INT',
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
)
def main(repeats: int) -> None:
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    b = torch.randn(64)
    calls: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]] = {
        'upsample2d': (lambda x: upfirdn2d.upsample2d(x, f), lambda x: obvious_upfirdn2d(x, f, 2, 1, 4)),
        'downsample2d': (lambda x: upfirdn2d.downsample2d(x, f), lambda x: obvious_upfirdn2d(x, f, 1, 2, 1)),
        'filter2d': (lambda x: upfirdn2d.filter2d(x, f), lambda x: obvious_upfirdn2d(x, f, 1, 1, 1)),
        'bias_act lrelu': (
            lambda x: bias_act.bias_act(x, b[: x.shape[1]], act='lrelu', clamp=256),
            lambda x: obvious_bias_act(x, b[: x.shape[1]]),
        ),
    }
    print(f'PyTorch {torch.__version__}, {torch.get_num_threads()} threads; milliseconds')
    print(f'{"":<32s} {"here":>20s} {"obvious way":>20s}')
    print(f'{"":<32s} {"forward  + backward":>20s} {"forward  + backward":>20s}')
    for name, functions in calls.items():
        for shape in SHAPES:
            x = torch.randn(shape, requires_grad=True)
            row = f'{name:<15s} {list(shape)!s:<16s}'
            results = [function(x.detach()) for function in functions]
            torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
            dy = torch.randn_like(results[0])
            for function in functions:
                forward = milliseconds(lambda: function(x.detach()), repeats)  # noqa: B023
                both = milliseconds(lambda: torch.autograd.grad(function(x), x, dy), repeats)  # noqa: B023
                row += f' {forward:9.2f} {both:10.2f}'
            print(row)
    for up, down in ((2, 1), (1, 2)):
        x, w = torch.randn(8, 64, 32, 32, requires_grad=True), torch.randn(64, 64, 3, 3, requires_grad=True)

        def call(x: torch.Tensor, w: torch.Tensor, up: int = up, down: int = down) -> torch.Tensor:
            return conv2d_resample.conv2d_resample(x, w, f, up=up, down=down, padding=1)

        dy = torch.randn_like(call(x, w))
        print(
            f'{f"conv2d_resample [8, 64, 32, 32] up={up} down={down}":<42s} '
            f'{milliseconds(lambda: call(x.detach(), w.detach()), repeats):9.2f} '  # noqa: B023
            f'{milliseconds(lambda: torch.autograd.grad(call(x, w), [x, w], dy), repeats):10.2f}'  # noqa: B023
        )


if __name__ == '__main__':
    main()
