"""Compiling of C++ and CUDA files without PyTorch's headers, once for a machine, and loading of them as C functions.

`torch_utils.custom_ops` builds extensions that know tensors; their headers alone take most of a minute to compile. What
needs nothing but pointers to numbers is compiled here, in seconds, by whatever C++ compiler there is. Where there is none, or no
place to write to, load() returns None, and the caller goes on with the plain form, which gives the same results.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import torch

import dnnlib
from networks.checkpoints.durable_files import replacing

enabled = True  # False: the plain forms everywhere

_FLAGS = ['-O3', '-std=c++17', '-fPIC', '-shared', '-pthread', '-fno-math-errno']
_PROCESSOR_FLAGS: tuple[list[str], ...] = (['-march=native'], ['-mcpu=native'], [])  # the first that this compiler knows
_TIMEOUT = 900  # seconds; it takes 15 where nothing else runs
_FOLDER = pathlib.Path(__file__).resolve().parent


def load(name: str) -> ctypes.CDLL | None:
    """Return the library made of `training/kernels/<name>.cpp`, compiled if this machine has not yet; None if that cannot be."""
    return _load(name) if enabled else None


def load_cuda(name: str, capability: tuple[int, int]) -> ctypes.CDLL | None:
    """The same of `<name>.cu`, for GPUs of this compute capability, with the nvcc of CUDA_HOME or of the path."""
    return _load_cuda(name, capability) if enabled else None


@functools.cache
def _load(name: str) -> ctypes.CDLL | None:
    compiler = _compiler()
    if compiler is None:
        return None
    commands = [[*compiler, *_FLAGS, *flags] for flags in _PROCESSOR_FLAGS]
    return _library(_FOLDER / f'{name}.cpp', sorted(_FOLDER.rglob('*.h')), commands, f'{_processor()}')


@functools.cache
def _load_cuda(name: str, capability: tuple[int, int]) -> ctypes.CDLL | None:
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    places = [*([os.path.join(home, 'bin')] if home else []), *os.get_exec_path(), '/usr/local/cuda/bin']
    nvcc = shutil.which('nvcc', path=os.pathsep.join(places))
    if nvcc is None or os.name == 'nt':
        return None
    number = '{}{}'.format(*capability)
    command = [nvcc, '-O3', '-std=c++17', '-shared', '-Xcompiler', '-fPIC', '--allow-unsupported-compiler']
    command.append(f'-gencode=arch=compute_{number},code=sm_{number}')
    return _library(_FOLDER / f'{name}.cu', sorted(_FOLDER.glob(f'{name}*.h')), [command], '')


def _library(
    source: pathlib.Path, headers: Sequence[pathlib.Path], commands: Sequence[Sequence[str]], machine: str
) -> ctypes.CDLL | None:
    """What the first command that works makes of the source."""
    try:
        version = subprocess.run([commands[0][0], '--version'], capture_output=True, timeout=_TIMEOUT, check=True).stdout
        code = [file.read_bytes() for file in (source, *headers)]
        digest = hashlib.sha256(repr([code, version, commands, machine]).encode()).hexdigest()[:24]
        path = pathlib.Path(dnnlib.make_cache_dir_path('native', f'{source.stem}-{digest}.so'))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            print(f'Compiling {source.name}, once on this machine (seconds to a minute)...', file=sys.stderr, flush=True)
            _compile(commands, source, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def _compiler() -> list[str] | None:
    if os.name == 'nt':  # the sources use the vectors of GCC and Clang
        return None
    words = os.environ.get('CXX', '').split()
    candidates = [words] if words else [['c++'], ['g++'], ['clang++']]
    return next((each for each in candidates if shutil.which(each[0])), None)


def _processor() -> str:
    """What decides the code that `native` means; folders may be shared between machines."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        lines = []
    telling = ('vendor_id', 'cpu family', 'model', 'stepping', 'flags', 'Features', 'CPU part')
    return repr([platform.machine(), platform.processor(), sorted({line for line in lines if line.startswith(telling)})])


def _compile(commands: Sequence[Sequence[str]], source: pathlib.Path, path: pathlib.Path) -> None:
    """Compile the library beside its place; it appears there whole, so that several processes may do this together."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = pathlib.Path(folder) / path.name
        for command in commands:
            full = [*command, '-o', str(made), str(source)]
            if subprocess.run(full, capture_output=True, timeout=_TIMEOUT, check=False).returncode == 0:
                with replacing(path) as temporary:
                    shutil.copyfile(made, temporary)
                return
    raise subprocess.SubprocessError(f'{source.name} does not compile')


def suffix(x: torch.Tensor) -> str | None:
    """End of the names of the functions for numbers such as those of x; None if there are none for them."""
    return {torch.float32: 'float', torch.float64: 'double'}.get(x.dtype) if x.device.type == 'cpu' else None


def pointers(tensors: Sequence[torch.Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """Addresses of contiguous tensors."""
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    """Address of a contiguous tensor."""
    return ctypes.c_void_p(tensor.data_ptr())
