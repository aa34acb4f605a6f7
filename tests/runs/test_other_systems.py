"""What Windows lacks is not used: functions of POSIX, locks, and the moving or removing of files that are open."""

import pathlib
import subprocess
import sys

from tiny_training import TINY_TRAINING

# A process that has as little as one on Windows has. Moving or removing a file that this process has open fails there.
WINDOWS = """
import os, signal, stat, sys
import imageio_ffmpeg, multiprocessing, PIL.Image, psutil, requests, subprocess, torch.distributed  # which may use them

for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):
    sys.modules[name] = None
for name in ('fork', 'pread', 'pwrite', 'getuid', 'geteuid', 'killpg', 'setsid'):
    delattr(os, name)
for name in ('SIGHUP', 'SIGUSR1', 'SIGALRM', 'SIGCHLD'):
    delattr(signal, name)


def forbid(name):
    real = getattr(os, name)

    def guarded(path, *rest, **how):
        there = os.path.abspath(path)
        for handle in os.listdir('/proc/self/fd'):
            try:
                found = os.readlink(f'/proc/self/fd/{handle}')
            except OSError:
                continue
            if found == there and os.path.isfile(found):
                raise PermissionError(13, f'os.{name} of a file that is open', there)
        return real(path, *rest, **how)

    setattr(os, name, guarded)


for name in ('replace', 'rename', 'remove', 'unlink'):
    forbid(name)
real_sync = os.fsync


def sync(handle):
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        raise PermissionError(13, 'a folder')
    real_sync(handle)


os.fsync = sync
"""

PIECES = (
    WINDOWS
    + """
import importlib
from networks.checkpoints import durable_files
from training.runs import locks
from stylevideogan import layout
for command in layout.COMMANDS:
    importlib.import_module(command)
os.chdir(sys.argv[1])
for _ in range(2):
    with locks.Lock('a.lock', 'a'):
        try:
            locks.Lock('a.lock', 'a')
        except locks.InUse as error:
            assert 'in use by' in str(error), error
        else:
            raise SystemExit('two have one lock')
    assert not os.path.exists('a.lock')
    with durable_files.replacing('b.json') as temporary, open(temporary, 'w') as file:
        file.write('x')
durable_files.append_line('c.jsonl', '1')
with open('c.jsonl', 'a') as file:
    file.write('torn')
durable_files.append_line('c.jsonl', '2')
assert open('c.jsonl').read() == '1\\ntorn\\n2\\n'
assert sorted(os.listdir('.')) == ['b.json', 'c.jsonl']
"""
)

COMMAND = WINDOWS + 'import runpy\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name="__main__")\n'


def run(root: pathlib.Path, program: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', program, *map(str, arguments)], cwd=root, capture_output=True, text=True)


def test_locks_and_durable_files_need_nothing_of_posix(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = run(root, PIECES, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_training_and_its_videos_need_nothing_of_posix(
    root: pathlib.Path, tmp_path: pathlib.Path, tiny_generator: pathlib.Path, tiny_latents: pathlib.Path
) -> None:
    trained = run(
        root, COMMAND, 'train_video.py', f'--outdir={tmp_path / "runs"}', f'--data={tiny_latents}', f'--network={tiny_generator}',
        '--kimg=0.3', '--tick=0.1', '--metrics=none', *TINY_TRAINING,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    made = run(
        root, COMMAND, 'generate_video.py', f'--network={next((tmp_path / "runs").iterdir())}', f'--outdir={tmp_path / "out"}',
        '--seeds=0', '--frames=5', '--device=cpu',
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert (tmp_path / 'out' / 'seed0000.mp4').stat().st_size > 0
