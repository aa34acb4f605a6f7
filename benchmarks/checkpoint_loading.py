"""Time and peak memory of opening a checkpoint, beside pickle.load of the same tensors.

    python benchmarks/checkpoint_loading.py

Writes a StyleGAN2 of 1024x1024 (config F), alone and as a training snapshot with G, D, and G_ema, and opens it in fresh
processes. Seconds are of the processor (user and system), so that other work on the machine does not count. Peak memory
is that of the process (VmHWM) above what the imports take; the file is in the page cache for every reader. `reading`
copies the file's bytes into memory and does nothing else.
"""

import copy
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import click

ROOT = pathlib.Path(__file__).resolve().parent.parent

IMPORTS = f"""
import json, os, pickle, sys, time
sys.path.insert(0, {str(ROOT)!r})
import torch
from networks import checkpoints

def peak():
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM'))

def measure(action):
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')     # Forget the peak of the imports.
    before, begin = peak(), time.process_time()
    kept = action()
    print(json.dumps(dict(seconds=time.process_time() - begin, peak=peak() - before)))
"""

READERS = {
    'reading': 'open(sys.argv[1], "rb").read()',
    'pickle.load of the same tensors': 'pickle.load(open(sys.argv[2], "rb"))',
    'pickle.load with torch_utils (runs the file)': 'pickle.load(open(sys.argv[1], "rb"))',
    'load_generator': 'checkpoints.load_generator(sys.argv[1])',
}


def write_files(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, pathlib.Path]]:
    """For each kind: the pickle in NVIDIA's layout, and one of its tensors alone."""
    import pickle

    sys.path.insert(0, str(ROOT))
    from networks import checkpoints, stylegan2, stylegan2_discriminator

    G = stylegan2.Generator(512, 0, 512, 1024, 3).eval().requires_grad_(False)
    D = stylegan2_discriminator.Discriminator(0, 1024, 3).eval().requires_grad_(False)
    files = {}
    for kind, modules in (('G_ema alone', {'G_ema': G}), ('G, D, and G_ema', {'G': copy.deepcopy(G), 'D': D, 'G_ema': G})):
        stem = folder / str(len(modules))
        checkpoints.save_module_pickle(f'{stem}.pkl', {**modules, 'training_set_kwargs': None, 'augment_pipe': None})
        with open(f'{stem}-tensors.pkl', 'wb') as file:
            pickle.dump({key: dict(module.state_dict()) for key, module in modules.items()}, file, protocol=4)
        files[kind] = (pathlib.Path(f'{stem}.pkl'), pathlib.Path(f'{stem}-tensors.pkl'))
    return files


@click.command()
@click.option(
    '--repeat', help='Runs of each reader; the fastest counts', type=click.IntRange(min=1), default=3, show_default=True
)
def main(repeat: int) -> None:
    """Measure how long checkpoints take to open, and how much memory."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(pathlib.Path(folder))
        for kind, (path, tensors) in files.items():
            size = os.path.getsize(path)
            click.echo(f'\n{kind}: {size / 1e6:.0f} MB')
            click.echo(f'{"":46s} {"seconds":>8s} {"peak MB":>8s} {"x file":>7s}')
            for name, expression in READERS.items():
                results = []
                for _ in range(repeat):
                    code = f'{IMPORTS}\nmeasure(lambda: {expression})'
                    command = [sys.executable, '-c', code, str(path), str(tensors)]
                    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                    results.append(json.loads(done.stdout))
                seconds, peak = min(r['seconds'] for r in results), max(r['peak'] for r in results)
                click.echo(f'{name:46s} {seconds:8.2f} {peak / 1e6:8.0f} {peak / size:7.2f}')


if __name__ == '__main__':
    main()
