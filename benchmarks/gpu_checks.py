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
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import click
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gpu.operations import check_operations, time_operations  # noqa: E402
from benchmarks.gpu.rendering import PUBLIC, time_features, time_rendering, time_stylegan3  # noqa: E402
from benchmarks.gpu.temporal_model import check_recurrence, check_training  # noqa: E402

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
            words = [sys.executable, str(PUBLIC), public, '--compile']
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
