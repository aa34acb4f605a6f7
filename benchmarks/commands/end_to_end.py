"""A finished video file, from the command to its end: generate_video.py beside gen_video.py of a checkout of stylegan3.

    python benchmarks/commands/end_to_end.py --public=PATH/TO/stylegan3 --sizes=256,1024 --frames=48,8 --rounds=3

Both interpolate between the same two seeds of one image generator, StyleGAN2 with NVIDIA's channels and random weights, and
write as many frames to mp4. With `--public` its own network class makes the pickle that both load, as anyone's training would.
They take turns, each in a process of its own on `--threads` threads. The public script runs on the processor and in float32 by
being told so from outside: what it names 'cuda' is the processor, and its networks get force_fp32. It renders one frame more, to
warm up.
Processor time has that of ffmpeg in it. `renderer alone` is what as many frames take without command, codes and file. What a
command takes once and what it takes for a frame show in two lengths: --sizes=256,256 --frames=48,144. Bytecode is kept, as in an
installation.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import click

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

PUBLIC = """
import functools, os, runpy, sys
root, folder, words = sys.argv[1], sys.argv[2], sys.argv[3:]
os.chdir(folder)
sys.path.insert(0, folder)
runpy.run_path(f'{root}/networks/host_compatibility.py')['provide_pkg_resources']()
import torch
import gen_video, legacy

class OnProcessor:
    def __getattr__(self, name):
        return getattr(torch, name)
    def device(self, name):
        return torch.device('cpu')

load = legacy.load_network_pkl
def load_exact(*args, **kwargs):
    found = load(*args, **kwargs)
    G = found['G_ema']
    G.synthesis.forward = functools.partial(G.synthesis.forward, force_fp32=True)
    return found

gen_video.torch, legacy.load_network_pkl = OnProcessor(), load_exact
gen_video.gen_interp_video = functools.partial(gen_video.gen_interp_video, device=torch.device('cpu'))
gen_video.generate_images(words)
"""
MAKE_PUBLIC = """
import pickle, runpy, sys
root, folder, size, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
sys.path.insert(0, folder)
runpy.run_path(f'{root}/networks/host_compatibility.py')['provide_pkg_resources']()
import torch
from training import networks_stylegan2
torch.manual_seed(0)
channels = {'channel_base': 32768 if size >= 512 else 16384, 'channel_max': 512, 'conv_clamp': 256, 'num_fp16_res': 4}
G = networks_stylegan2.Generator(512, 0, 512, size, 3, **channels).eval().requires_grad_(False)
with open(path, 'wb') as file:
    pickle.dump({'G': G, 'D': G, 'G_ema': G, 'training_set_kwargs': {}, 'augment_pipe': None}, file)
"""
MAKE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from networks import checkpoints, stylegan2
size = int(sys.argv[2])
torch.manual_seed(0)
channels = {'channel_base': 32768 if size >= 512 else 16384, 'channel_max': 512, 'conv_clamp': 256, 'num_fp16_res': 4}
G = stylegan2.Generator(512, 0, 512, size, 3, synthesis_kwargs=channels).eval().requires_grad_(False)
checkpoints.save_module_pickle(sys.argv[3], {'G': G, 'D': None, 'G_ema': G, 'training_set_kwargs': {}, 'augment_pipe': None})
"""
ALONE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from training.commands.command_line import prepare_process
prepare_process()
import torch
from networks import checkpoints
from training.videos.synthesis import render_codes
G = checkpoints.load_generator(sys.argv[2])
ws = G.mapping(torch.randn(int(sys.argv[3]), 512), None)
list(render_codes(G, ws[:1], batch=8))
begin = time.process_time(), time.time()
for _ in render_codes(G, ws, batch=8):
    pass
print(time.process_time() - begin[0], time.time() - begin[1])
"""


def run(words: list[str], threads: int) -> tuple[float, float]:
    """Processor and clock seconds of a process with all that it starts."""
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    environment.pop('PYTHONDONTWRITEBYTECODE', None)
    begin = time.time()
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(said.decode(errors='replace')[-2000:])
    return usage.ru_utime + usage.ru_stime, time.time() - begin


def alone(weights: pathlib.Path, count: int, threads: int) -> tuple[float, float]:
    """Processor and clock seconds of rendering in a process that has loaded everything."""
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    words = [sys.executable, '-c', ALONE, str(ROOT), str(weights), str(count)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    processor, clock = map(float, done.stdout.split())
    return processor, clock


# fmt: off
@click.command()
@click.option('--public',  help='Checkout of stylegan3; without it ours alone', metavar='DIR')
@click.option('--sizes',   help='Resolutions', metavar='LIST', default='256,1024', show_default=True)
@click.option('--frames',  help='Frames at each of them', metavar='LIST', default='48,8', show_default=True)
@click.option('--threads', help='Threads', metavar='INT', type=click.IntRange(1), default=1, show_default=True)
@click.option('--rounds',  help='Videos of each', metavar='INT', type=click.IntRange(1), default=3, show_default=True)
def main(public: str | None, sizes: str, frames: str, threads: int, rounds: int) -> None:
    """Print medians and ratios."""
    print(f'load average {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores, {threads} threads')
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for size, count in zip(map(int, sizes.split(',')), map(int, frames.split(',')), strict=True):
            weights = folder / f'{size}.pkl'
            if public is None:
                run(['-c', MAKE, str(ROOT), str(size), str(weights)], threads)
            else:
                run(['-c', MAKE_PUBLIC, str(ROOT), os.path.abspath(public), str(size), str(weights)], threads)
            found: dict[str, list[tuple[float, float]]] = {}
            for index in range(rounds):
                words = [f'--network={weights}', '--seeds=0-1']
                ours = [*words, f'--outdir={folder / f"{size}-{index}"}', f'--keyframe-frames={count // 2}', '--loop']
                found.setdefault('ours', []).append(run([str(ROOT / 'generate_video.py'), *ours, '--device=cpu'], threads))
                if public is not None:
                    theirs = [os.path.abspath(public), *words, f'--w-frames={count // 2}']
                    theirs.append(f'--output={folder / f"{size}-{index}.mp4"}')
                    found.setdefault('public', []).append(run(['-c', PUBLIC, str(ROOT), *theirs], threads))
                found.setdefault('renderer alone', []).append(alone(weights, count, threads))
            for name, values in found.items():
                processor, clock = (sorted(column) for column in zip(*values, strict=True))
                ratio = statistics.median(processor) / statistics.median(value for value, _ in found['ours'])
                entry = {'size': size, 'frames': count // 2 * 2, 'what': name, 'to_ours': round(ratio, 2)}
                entry |= {'processor': [round(value, 2) for value in processor], 'clock': [round(value, 1) for value in clock]}
                print(json.dumps(entry), flush=True)
# fmt: on


if __name__ == '__main__':
    main()
