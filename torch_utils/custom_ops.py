"""Compiling and loading of C++/CUDA extensions, when one is first called for and never at import.

Nothing is compiled twice: the result stays in a folder named after the sources, the flags, the versions and the GPU.
A build that was killed cannot block a later one, because the lock is one that the system takes back from dead processes.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib.util
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

verbosity = 'brief'  # 'none' = silent, 'brief' = one line for each extension, 'full' = all that the compilers say.

_loaded: dict[str, Any] = {}
_failed: dict[str, str] = {}
_WINDOWS_COMPILERS = 'Microsoft Visual Studio/*/*/VC/Tools/MSVC/*/bin/Hostx64/x64'


class PluginError(RuntimeError):
    """An extension cannot be had; the text is one line that says why."""


# ----------------------------------------------------------------------------
# Public functions.


def get_plugin(
    module_name: str,  # Name of the extension module.
    sources: Sequence[str],  # Source files, .cpp and .cu.
    headers: Sequence[str] | None = None,  # Files that the sources include; a change of one means a new build.
    source_dir: str | None = None,  # Folder that the names above are relative to.
    **build_kwargs: Any,  # Of torch.utils.cpp_extension.load, e.g. extra_cuda_cflags.
) -> Any:
    """Return the extension module, compiled if need be. Raises PluginError, at once if the same name failed before."""
    if verbosity not in ('none', 'brief', 'full'):
        raise ValueError(f"custom_ops.verbosity is {verbosity!r}, it must be 'none', 'brief' or 'full'")
    if module_name in _loaded:
        return _loaded[module_name]
    if module_name in _failed:
        raise PluginError(_failed[module_name])
    folder = pathlib.Path(source_dir or '')
    files = [folder / name for name in [*sources, *(headers or ())]]
    talk = verbosity != 'none'
    if talk:
        end = '\n' if verbosity == 'full' else ' '
        print(f'Setting up PyTorch plugin "{module_name}"...', end=end, file=sys.stderr, flush=True)
    try:
        with _environment():
            flags = _cuda_flags() if any(name.endswith('.cu') for name in sources) else []
            _check_tools()
            build_kwargs['extra_cuda_cflags'] = [*build_kwargs.get('extra_cuda_cflags', []), *flags]
            _loaded[module_name] = _build(module_name, files, len(sources), build_kwargs)
    except PluginError as error:
        _failed[module_name] = str(error)
        if talk:
            print('Failed.', file=sys.stderr)
        raise
    if talk:
        print('Done.', file=sys.stderr)
    return _loaded[module_name]


def get_plugin_if_possible(module_name: str, sources: Sequence[str], **kwargs: Any) -> Any:
    """Return the extension module, or None after one line that says why there is none, once in the process."""
    if module_name in _failed:
        return None
    try:
        return get_plugin(module_name, sources, **kwargs)
    except PluginError as error:
        if verbosity != 'none':
            print(f'{module_name}: {error}; going on with the plain PyTorch form.', file=sys.stderr, flush=True)
        return None


# ----------------------------------------------------------------------------
# What a build needs.


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Within this context, PATH leads to the compilers and to the ninja of this Python, as in an activated one."""
    before = os.environ.get('PATH', '')
    extra = [os.path.dirname(sys.executable)]
    if importlib.util.find_spec('ninja') is not None:
        import ninja

        extra.append(ninja.BIN_DIR)
    if os.name == 'nt' and shutil.which('cl') is None:
        roots = [os.environ[name] for name in ('ProgramFiles', 'ProgramFiles(x86)') if name in os.environ]
        extra += sorted(found for root in roots for found in glob.glob(os.path.join(root, _WINDOWS_COMPILERS)))[-1:]
    os.environ['PATH'] = os.pathsep.join([before, *extra])
    try:
        yield
    finally:
        os.environ['PATH'] = before


def _check_tools() -> None:
    if shutil.which('ninja') is None:
        raise PluginError('ninja is missing (pip install ninja)')
    compiler = 'cl' if os.name == 'nt' else os.environ.get('CXX', 'c++').split()[0]
    if shutil.which(compiler) is None:
        hint = 'the C++ tools of Visual Studio' if os.name == 'nt' else 'e.g. the package g++'
        raise PluginError(f'the C++ compiler {compiler!r} is missing (install {hint})')


def _cuda_flags() -> list[str]:
    """Return the flags that make nvcc compile for the visible GPUs; TORCH_CUDA_ARCH_LIST, if set, decides instead."""
    if torch.version.cuda is None:
        raise PluginError('this PyTorch was built without CUDA')
    from torch.utils import cpp_extension  # looks for CUDA when imported

    home = cpp_extension.CUDA_HOME
    nvcc = None if home is None else shutil.which('nvcc', path=os.path.join(home, 'bin'))
    if nvcc is None:
        raise PluginError(f'the CUDA compiler nvcc is missing (install the CUDA {torch.version.cuda} toolkit, set CUDA_HOME)')
    if os.environ.get('TORCH_CUDA_ARCH_LIST'):
        return []
    if not torch.cuda.is_available():
        raise PluginError('no GPU is visible, so what to compile for is unknown (TORCH_CUDA_ARCH_LIST can say)')
    wanted = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
    return _architecture_flags(wanted, _architectures_of(nvcc))


def _architectures_of(nvcc: str) -> set[tuple[int, int]]:
    """Return the compute capabilities that this nvcc compiles for; empty = unknown."""
    done = subprocess.run([nvcc, '--list-gpu-arch'], capture_output=True, text=True, check=False)
    return {(int(number[:-1]), int(number[-1])) for number in re.findall(r'compute_(\d+)\b', done.stdout)}


def _architecture_flags(wanted: set[tuple[int, int]], known: set[tuple[int, int]]) -> list[str]:
    """Return machine code flags, or, for a GPU newer than nvcc, code that the driver translates for it."""
    flags = set()
    for capability in wanted:
        older = [each for each in known if each <= capability]
        if known and not older:
            raise PluginError(
                'this nvcc does not compile for a GPU of compute capability '
                f'{capability[0]}.{capability[1]} (install an older CUDA toolkit)'
            )
        exact = not known or capability in known
        number = '{}{}'.format(*(capability if exact else max(older)))
        flags.add(f'-gencode=arch=compute_{number},code={"sm" if exact else "compute"}_{number}')
    return sorted(flags)


# ----------------------------------------------------------------------------
# The build.


def _build(name: str, files: list[pathlib.Path], num_sources: int, build_kwargs: dict[str, Any]) -> Any:
    from torch.utils import cpp_extension

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'
    digest = hashlib.md5(
        repr(
            [
                torch.__version__,
                torch.version.cuda,
                platform.python_version(),
                os.environ.get('TORCH_CUDA_ARCH_LIST'),
                sorted(build_kwargs.items()),
            ]
        ).encode(),
        usedforsecurity=False,
    )
    for file in files:
        digest.update(file.name.encode() + b'\0' + file.read_bytes() + b'\0')
    root = os.environ.get('TORCH_EXTENSIONS_DIR') or cpp_extension.get_default_build_root()
    safe_gpu = re.sub(r'[^0-9A-Za-z]+', '-', gpu).strip('-').lower()
    folder = pathlib.Path(root) / name / f'{digest.hexdigest()}-{safe_gpu}'
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PluginError(f'the folder for compiled code cannot be made ({error}); TORCH_EXTENSIONS_DIR names another') from error

    with _lock(folder / 'build.lock'):
        (folder / 'lock').unlink(missing_ok=True)  # PyTorch's own, left behind where a build was killed
        for file in files:  # a copy: the folder alone is enough to build again
            if not (folder / file.name).exists() or (folder / file.name).read_bytes() != file.read_bytes():
                shutil.copyfile(file, folder / file.name)
        try:
            return cpp_extension.load(
                name=name,
                build_directory=str(folder),
                verbose=verbosity == 'full',
                sources=[str(folder / file.name) for file in files[:num_sources]],
                **build_kwargs,
            )
        except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
            report = folder / 'error.txt'
            report.write_text(str(error), encoding='utf-8')
            raise PluginError(f'compiling failed ({_first_error(str(error))}; all of it: {report})') from error


def _first_error(text: str) -> str:
    """Return the line that says most, of what compilers write."""
    lines = [' '.join(line.split()) for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r'\berror\b\s*[:C]|fatal|No such file|not found|undefined symbol', line)]
    return ([*telling, *lines] or ['no message'])[0][:200]


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends."""
    with open(path, 'a+b') as file:
        if os.name == 'nt':
            import msvcrt

            while True:
                try:
                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
                    break
                except OSError:
                    time.sleep(0.2)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back
