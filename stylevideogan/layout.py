"""How the flat rooms of the repository become one import name in an installed package.

In a checkout, or laid over one of NVIDIA's, the rooms are top-level packages: `from networks import checkpoints`. An
installed package must not put names such as `training` or `torch_utils` beside those of other projects, so there every
room lies in `stylevideogan`, and the imports of its files say so: `from stylevideogan.networks import checkpoints`.

`rewrite` makes one text of the other. The build applies it to every file of the wheel, so what is installed is plain
Python. Three things that are written for the flat layout are rewritten when they run: the files of an editable
installation (`mount`), a user's file of metrics, and the source text in a pickle that the user trusts. `restore` is the
way back: pickles always carry the flat names, so that a file says the same whoever wrote it.

This module needs nothing but the standard library, and every layer may use it.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, ClassVar

PACKAGE = 'stylevideogan'
FOLDERS = ('dnnlib', 'metrics', 'networks', 'plugins', 'torch_utils', 'training')
COMMANDS = (
    'align_video',
    'calc_metrics_video',
    'convert_network',
    'embed_video',
    'generate_video',
    'latents_tool',
    'make_video',
    'paste_video',
    'play_video',
    'report_video',
    'train_encoder',
    'train_video',
    'tune_generator',
)
ROOMS = frozenset(FOLDERS + COMMANDS)
DATA_ENDINGS = ('.cu', '.cpp', '.h', '.typed', '.html', '.css', '.js')  # what is packaged beside Python files

_ROOM = f'(?:{"|".join(sorted(ROOMS))})'
_RESTORED = (
    (re.compile(rf'\bimport {PACKAGE}\.({_ROOM})((?:\.\w+)+); from {PACKAGE} import \1\b'), r'import \1\2'),
    (re.compile(rf'\bimport {PACKAGE}\.({_ROOM}[\w.]*) as\b'), r'import \1 as'),
    (re.compile(rf'\bfrom {PACKAGE} import ({_ROOM})(?=\s*(?:$|;|#))', re.MULTILINE), r'import \1'),
    (re.compile(rf'\bfrom {PACKAGE}\.({_ROOM})\b'), r'from \1'),
)

# ----------------------------------------------------------------------------------------------------------------------
# Texts


def is_packaged(module_name: str) -> bool:
    """Whether the module of this name belongs to an installed package, and not to the flat layout."""
    return module_name.startswith(f'{PACKAGE}.')


def home(module_name: str) -> str:
    """What stands before the names of rooms, seen from a module of one of them: `stylevideogan.` or nothing."""
    return f'{PACKAGE}.' if is_packaged(module_name) else ''


def rewrite(text: str) -> str:
    """Source text with flat imports -> the same with imports from the package; lines keep their numbers.

    Raises:
        SyntaxError: It is not Python.
    """
    lines = text.splitlines(keepends=True)
    statements = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in sorted(statements, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        if isinstance(node, ast.ImportFrom):
            if node.level or not node.module or node.module.split('.')[0] not in ROOMS:
                continue
            line = lines[node.lineno - 1].encode()  # offsets count bytes
            before, statement = line[: node.col_offset].decode(), line[node.col_offset :].decode()
            lines[node.lineno - 1] = before + re.sub(r'^from\s+', f'from {PACKAGE}.', statement, count=1)
        elif any(alias.name.split('.')[0] in ROOMS for alias in node.names):
            first, last = lines[node.lineno - 1].encode(), lines[(node.end_lineno or node.lineno) - 1].encode()
            rest = '\n' * ((node.end_lineno or node.lineno) - node.lineno)
            replaced = '; '.join(part for alias in node.names for part in _import(alias))
            lines[node.lineno - 1 : node.end_lineno] = [
                first[: node.col_offset].decode() + replaced + last[node.end_col_offset :].decode() + rest
            ]
    return ''.join(lines)


def _import(alias: ast.alias) -> Iterator[str]:
    root, _, rest = alias.name.partition('.')
    if root not in ROOMS:
        yield f'import {alias.name}' + (f' as {alias.asname}' if alias.asname else '')
    elif alias.asname:
        yield f'import {PACKAGE}.{alias.name} as {alias.asname}'
    else:
        if rest:
            yield f'import {PACKAGE}.{alias.name}'
        yield f'from {PACKAGE} import {root}'


def restore(text: str) -> str:
    """The flat text that `rewrite` made this of; a flat text stays as it is."""
    for pattern, replacement in _RESTORED:
        text = pattern.sub(replacement, text)
    return text


# ----------------------------------------------------------------------------------------------------------------------
# Files


def packaged_files(root: str) -> Iterator[tuple[str, str]]:
    """What a wheel holds: (file in the checkout, path in the wheel), in alphabetical order of the paths.

    Args:
        root: The checkout.
    """
    found = [(os.path.join(root, f'{name}.py'), f'{PACKAGE}/{name}.py') for name in COMMANDS]
    for room in (PACKAGE, *FOLDERS):
        for folder, subfolders, names in os.walk(os.path.join(root, room)):
            subfolders[:] = [name for name in subfolders if name != '__pycache__']
            place = os.path.relpath(folder, root).replace(os.sep, '/')
            inside = place if room == PACKAGE else f'{PACKAGE}/{place}'
            found += [(os.path.join(folder, name), f'{inside}/{name}') for name in names if name.endswith(('.py', *DATA_ENDINGS))]
    yield from sorted(found, key=lambda pair: pair[1])


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a file that is written for the flat layout as a module of the package."""

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        text = importlib.util.decode_source(data) if isinstance(data, (bytes, bytearray, memoryview)) else data
        return super().source_to_code(rewrite(text), path, _optimize=_optimize)  # type: ignore[call-arg,arg-type,unused-ignore]

    def path_stats(self, path: Any) -> Any:
        raise OSError('compiled files beside the source are those of the flat layout')


class _Finder:
    """Finds the modules of the package in a checkout."""

    def __init__(self, root: str) -> None:
        self.root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not is_packaged(name):
            return None
        parts = name.split('.')[1:]
        place = os.path.join(self.root, *([] if parts[0] in ROOMS else [PACKAGE]), *parts)
        for file, folders in ((os.path.join(place, '__init__.py'), [place]), (f'{place}.py', None)):
            if os.path.isfile(file):
                return importlib.util.spec_from_file_location(
                    name, file, loader=Loader(name, file), submodule_search_locations=folders
                )
        return None


def mount(root: str) -> None:
    """Let the modules of the package be imported out of a checkout: an editable installation does this."""
    if not any(isinstance(finder, _Finder) and finder.root == root for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(root))  # type: ignore[arg-type,unused-ignore]


def start_again(module_name: str, command: str, argv: Sequence[str]) -> list[str]:
    """What Python has to be given, behind its own options, to run this command with these arguments once more.

    Args:
        module_name: `__name__` of a room, which tells whether the package or the flat layout runs.
        command: One of COMMANDS.
        argv: sys.argv.
    """
    by_name = os.path.splitext(os.path.basename(argv[0]))[0] in (PACKAGE, '__main__')  # stylevideogan COMMAND ...
    rest = list(argv[2:] if by_name else argv[1:])
    if is_packaged(module_name):
        return ['-m', f'{PACKAGE}.{command}', *rest]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [os.path.join(root, f'{command}.py') if by_name else argv[0], *rest]


# ----------------------------------------------------------------------------------------------------------------------
# Pickles


class FlatPickler(pickle._Pickler):
    """Writes the flat name of everything that belongs to the package.

    The C pickler insists on importing a name before it writes it, and the flat names cannot be imported here.
    """

    def save_global(self, obj: object, name: str | None = None) -> None:
        module = getattr(obj, '__module__', None) or ''
        if not is_packaged(module):
            super().save_global(obj, name)  # type: ignore[misc]
            return
        self.save(module[len(PACKAGE) + 1 :])  # type: ignore[attr-defined]
        self.save(name or obj.__qualname__)  # type: ignore[attr-defined]
        self.write(pickle.STACK_GLOBAL)  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, type(rewrite): save_global}  # type: ignore[attr-defined,unused-ignore]


class PackageUnpickler(pickle.Unpickler):
    """Finds the package's own objects under the flat names that pickles carry."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name.split('.')[0] in ROOMS:
            try:
                return super().find_class(f'{PACKAGE}.{module_name}', global_name)
            except (ImportError, AttributeError):
                pass  # somebody else's module of such a name
        return super().find_class(module_name, global_name)


class PackagePickle:
    """Stands for the module pickle where somebody else's function takes one."""

    Unpickler = PackageUnpickler

    @staticmethod
    def load(file: Any, **kwargs: Any) -> Any:
        return PackageUnpickler(file, **kwargs).load()
