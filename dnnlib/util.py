"""Dictionaries with attributes, logs, time formats, objects by name, and files."""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import inspect
import io
import math
import os
import pickle
import shutil
import sys
import types
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy as np

from .download import is_url, make_cache_dir_path, open_url, set_cache_dir

_PACKAGED = __name__.startswith('stylevideogan.')  # in a checkout, or in another program, this layer stands alone
if _PACKAGED:
    from stylevideogan import layout

__all__ = [
    'EasyDict',
    'Logger',
    'ask_yes_no',
    'call_func_by_name',
    'construct_class_by_name',
    'copy_files_and_create_dirs',
    'format_time',
    'format_time_brief',
    'get_dtype_and_ctype',
    'get_module_dir_by_obj_name',
    'get_module_from_obj_name',
    'get_obj_by_name',
    'get_obj_from_module',
    'get_top_level_function_name',
    'is_pickleable',
    'is_top_level_function',
    'is_url',
    'list_dir_recursively_with_ignore',
    'make_cache_dir_path',
    'open_url',
    'set_cache_dir',
    'tuple_product',
]

# ----------------------------------------------------------------------------
# Containers and logs.


class EasyDict(dict[str, Any]):
    """A dict whose items can be read, set and deleted as attributes too: `d.key` is `d['key']`."""

    def __setattr__(self, name: str, value: Any) -> None:
        dict.__setitem__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f'there is no item {name!r}; the items are: {", ".join(map(str, self)) or "none"}')

    def __delattr__(self, name: str) -> None:
        self.__getattr__(name)
        del self[name]


class Logger:
    """Sends everything printed to standard output and error to a file as well, from construction to `close()`."""

    def __init__(self, file_name: str | None = None, file_mode: str = 'w', should_flush: bool = True) -> None:
        self.file: IO[str] | None = None
        if file_name is not None:
            self.file = open(file_name, file_mode, encoding='utf-8')  # noqa: SIM115  closed by close()
        self.should_flush = should_flush
        self.stdout = sys.stdout
        self.stderr = sys.stderr
        sys.stdout = self  # type: ignore[assignment]
        sys.stderr = self  # type: ignore[assignment]

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        # isatty, fileno, encoding, ...: programs ask the stream they print to
        if name == 'stdout':
            raise AttributeError(name)
        return getattr(self.stdout, name)

    def write(self, text: str | bytes) -> int:
        """Write to the console and to the file; bytes are taken as UTF-8."""
        text = text.decode('utf-8', errors='replace') if isinstance(text, bytes) else text
        if text:
            for stream in self._streams():
                stream.write(text)
            if self.should_flush:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Flush the console and the file."""
        for stream in self._streams():
            stream.flush()

    def close(self) -> None:
        """Give the console back and close the file; a second call does nothing."""
        self.flush()
        for name in ('stdout', 'stderr'):
            if getattr(sys, name) is self:  # not where a later Logger has taken it over
                setattr(sys, name, getattr(self, name))
        file, self.file = self.file, None
        if file is not None:
            file.close()

    def _streams(self) -> list[IO[str]]:
        return [self.stdout] if self.file is None else [self.file, self.stdout]


# ----------------------------------------------------------------------------
# Small helpers.


def _time_parts(seconds: float) -> tuple[int, int, int, int]:
    minutes, second = divmod(int(np.rint(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return day, hour, minute, second


def format_time(seconds: float) -> str:
    """Return a length of time as `5s`, `1m 05s`, `1h 01m 05s` or `1d 01h 01m`."""
    day, hour, minute, second = _time_parts(seconds)
    if day:
        return f'{day}d {hour:02}h {minute:02}m'
    if hour:
        return f'{hour}h {minute:02}m {second:02}s'
    return f'{minute}m {second:02}s' if minute else f'{second}s'


def format_time_brief(seconds: float) -> str:
    """Return a length of time in its two largest units: `5s`, `1m 05s`, `1h 01m` or `1d 01h`."""
    day, hour, minute, second = _time_parts(seconds)
    if day:
        return f'{day}d {hour:02}h'
    if hour:
        return f'{hour}h {minute:02}m'
    return f'{minute}m {second:02}s' if minute else f'{second}s'


def ask_yes_no(question: str) -> bool:
    """Ask on the console until the answer is a yes or a no."""
    answers = dict.fromkeys(('y', 'yes', 't', 'true', 'on', '1'), True)
    answers |= dict.fromkeys(('n', 'no', 'f', 'false', 'off', '0'), False)
    while True:
        answer = input(f'{question} [y/n] ').strip().lower()
        if answer in answers:
            return answers[answer]


def is_pickleable(obj: object) -> bool:
    """Tell whether `obj` can be pickled."""
    try:
        pickle.dump(obj, io.BytesIO())
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError):
        return False
    return True


def tuple_product(t: Iterable[Any]) -> Any:
    """Return the product of the elements, 1 for none."""
    return math.prod(t)


def get_dtype_and_ctype(type_obj: Any) -> tuple[np.dtype, Any]:
    """Return the numpy dtype and the ctypes type of a type or of a type's name (`'float32'`, `np.uint8`, ...).

    Raises ValueError for a type that one of the two does not have.
    """
    name = type_obj if isinstance(type_obj, str) else getattr(type_obj, '__name__', str(type_obj))
    name = name.rsplit('.', 1)[-1]
    try:
        dtype = np.dtype(name)
        return dtype, np.ctypeslib.as_ctypes_type(dtype)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f'{type_obj!r} is not a type that both numpy and ctypes know') from error


# ----------------------------------------------------------------------------
# Objects by name.


def get_module_from_obj_name(obj_name: str) -> tuple[types.ModuleType, str]:
    """Return the module that holds the object called `package.module.Outer.inner`, and the object's name in it.

    The longest prefix that is a module and holds the rest wins. Raises ImportError (a module is missing or broken) or
    AttributeError (the module lacks the name).
    """
    aliases = {'np': 'numpy'}
    parts = obj_name.split('.')
    parts[0] = aliases.get(parts[0], parts[0])
    if _PACKAGED and parts[0] in layout.ROOMS:
        with contextlib.suppress(ImportError, AttributeError):  # else somebody else's module of such a name
            return get_module_from_obj_name(f'{layout.PACKAGE}.{obj_name}')
    problem: Exception = ImportError(f'there is no module for the name {obj_name!r}')
    for count in range(len(parts), 0, -1):
        module_name = '.'.join(parts[:count])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            absent = error.name or ''
            if module_name != absent and not module_name.startswith(absent + '.'):
                raise  # the module is there, and something that it needs is not
            if count == 1:
                raise ImportError(f'there is no module for the name {obj_name!r}') from problem
            continue
        local_name = '.'.join(parts[count:])
        try:
            get_obj_from_module(module, local_name)
        except AttributeError as error:
            problem = error
            continue
        return module, local_name
    raise problem


def get_obj_from_module(module: types.ModuleType, obj_name: str) -> Any:
    """Follow the dots of `obj_name` from the module; an empty name is the module itself."""
    obj: Any = module
    for part in filter(None, obj_name.split('.')):
        obj = getattr(obj, part)
    return obj


def get_obj_by_name(name: str) -> Any:
    """Return the object with this fully qualified name. Raises ImportError or AttributeError."""
    module, local_name = get_module_from_obj_name(name)
    return get_obj_from_module(module, local_name)


def call_func_by_name(*args: Any, func_name: str, **kwargs: Any) -> Any:
    """Call the object named `func_name` with the other arguments. Raises ImportError, AttributeError or TypeError."""
    return _named_callable(func_name)(*args, **kwargs)


def _named_callable(name: str) -> Callable[..., Any]:
    found = get_obj_by_name(name)
    if callable(found):
        return found
    raise TypeError(f'{name} is a {type(found).__name__}, it cannot be called')


def construct_class_by_name(*args: Any, class_name: str, **kwargs: Any) -> Any:
    """Construct an object of the class named `class_name` with the other arguments."""
    return _named_callable(class_name)(*args, **kwargs)


def is_top_level_function(obj: object) -> bool:
    """Tell whether `obj` is a callable that its module holds under its own name."""
    module = sys.modules.get(getattr(obj, '__module__', None) or '')
    return callable(obj) and getattr(obj, '__name__', '') in vars(module or types)


def get_top_level_function_name(obj: Callable[..., Any]) -> str:
    """Return `module.name` of a top-level function; functions of the running script count under its file name."""
    if not is_top_level_function(obj):
        raise ValueError(f'{obj!r} is not a top-level function of a module')
    module_name = obj.__module__
    if module_name == '__main__':
        module_name = os.path.splitext(os.path.basename(getattr(sys.modules['__main__'], '__file__', '__main__')))[0]
    return f'{module_name}.{obj.__name__}'


# ----------------------------------------------------------------------------
# Files.


def get_module_dir_by_obj_name(obj_name: str) -> str:
    """Return the folder of the file that defines the named object."""
    module = get_module_from_obj_name(obj_name)[0]
    return os.path.dirname(os.path.abspath(inspect.getfile(module)))


def list_dir_recursively_with_ignore(
    dir_path: str, ignores: list[str] | None = None, add_base_to_relative: bool = False
) -> list[tuple[str, str]]:
    """Return (path, path relative to `dir_path`) of all files below a folder.

    Files and folders with a name that matches a pattern of `ignores` are left out. With `add_base_to_relative` the
    relative paths begin with the name of `dir_path` itself. Raises NotADirectoryError.
    """
    if not os.path.isdir(dir_path):
        raise NotADirectoryError(f'{dir_path} is not a folder')
    base = os.path.basename(os.path.normpath(dir_path)) if add_base_to_relative else ''

    def kept(names: list[str]) -> list[str]:
        return [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in ignores or ())]

    found = []
    for folder, subfolders, files in os.walk(dir_path, topdown=True):
        subfolders[:] = kept(subfolders)
        for name in kept(files):
            path = os.path.join(folder, name)
            found.append((path, os.path.join(base, os.path.relpath(path, dir_path))))
    return found


def copy_files_and_create_dirs(files: Iterable[tuple[str, str]]) -> None:
    """Copy each (source, destination) with its permissions, creating the folders of the destinations."""
    for source, destination in files:
        os.makedirs(os.path.dirname(os.path.abspath(destination)), exist_ok=True)
        shutil.copy(source, destination)
