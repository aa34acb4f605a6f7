"""The network of a checkout of stylegan2-ada-pytorch with weights of ours: its pictures, and its frames per second.

    python benchmarks/gpu/public_stylegan2.py CHECKOUT --compile            # its operations, once
    python benchmarks/gpu/public_stylegan2.py CHECKOUT in.pt out.pt 256 1,8

benchmarks/gpu_checks.py calls it in a process of its own, because both programs have a `torch_utils`. Nothing of this project is
imported here.
"""

import statistics
import sys
import time


def main(checkout: str, *rest: str) -> None:
    sys.path[0] = checkout
    import torch
    from training.networks import Generator  # type: ignore[import-not-found, unused-ignore]

    from torch_utils import custom_ops
    from torch_utils.ops import bias_act, upfirdn2d

    custom_ops.verbosity = 'full'
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    wait = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    x = torch.ones(1, 1, 4, 4, device=device)
    bias_act.bias_act(x, act='lrelu')
    upfirdn2d.upfirdn2d(x, upfirdn2d.setup_filter([1, 1], device=device))
    if rest == ('--compile',):
        return
    given, result, resolution, batches = rest
    content = torch.load(given, map_location=device, weights_only=True)
    network = (
        Generator(512, 0, 512, int(resolution), 3, mapping_kwargs={'num_layers': 8}, synthesis_kwargs=content['kwargs'])
        .eval()
        .to(device)
    )
    network.load_state_dict(content['state'])
    ws, rates = content['ws'], {}

    def milliseconds(count: int, force_fp32: bool) -> float:
        times = []
        for _ in range(20):
            wait()
            begin = time.perf_counter()
            network.synthesis(ws[:count], noise_mode='const', force_fp32=force_fp32)
            wait()
            times.append(1000 * (time.perf_counter() - begin))
        return statistics.median(times[5:])

    with torch.no_grad():
        exact = network.synthesis(ws[:4], noise_mode='const', force_fp32=True)
        for count in map(int, batches.split(',')):
            for force in (False, True):
                rates[f'{"fp32" if force else "plain"}, {count} at a time, frames/s'] = 1000 * count / milliseconds(count, force)
    compiled = all(getattr(module, '_plugin', None) is not None for module in (bias_act, upfirdn2d))
    torch.save({'rates': rates, 'fp32': exact, 'compiled': compiled}, result)


if __name__ == '__main__':
    main(*sys.argv[1:])
