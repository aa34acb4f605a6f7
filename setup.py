"""How the wheel is built: the flat rooms become one package, see stylevideogan/layout.py. All else is in pyproject.toml."""

import importlib.util
import os
from typing import Any, ClassVar

import setuptools
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = os.path.dirname(os.path.abspath(__file__))


def _load(name: str) -> Any:
    """A module of the package by its file: the package itself may not be importable while it is built."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(ROOT, 'stylevideogan', f'{name}.py'))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layout, version = _load('layout'), _load('version')

# The only module of an editable installation: everything is read from the checkout whenever it is imported.
EDITABLE = '''\
"""StyleVideoGAN, installed for editing: everything is read from the checkout."""

import importlib.util as _util

_root = {root!r}
_spec = _util.spec_from_file_location('stylevideogan.layout', _root + '/stylevideogan/layout.py')
layout = _util.module_from_spec(_spec)
_spec.loader.exec_module(layout)
layout.mount(_root)
import sys as _sys
_sys.modules['stylevideogan.layout'] = layout
with open(_root + '/stylevideogan/__init__.py', encoding='utf-8') as _file:
    exec(compile(layout.rewrite(_file.read()), _file.name, 'exec'))
'''


class BuildPackage(build_py):  # type: ignore[misc,unused-ignore]  # setuptools has no types everywhere
    """Write the files of the package with their imports rewritten."""

    editable = False

    def run(self) -> None:
        if self.editable:
            self._write(f'{layout.PACKAGE}/__init__.py', EDITABLE.format(root=ROOT.replace(os.sep, '/')))
            return
        for source, place in layout.packaged_files(ROOT):
            if not source.endswith('.py'):
                self.mkpath(os.path.dirname(os.path.join(self.build_lib, place)))
                self.copy_file(source, os.path.join(self.build_lib, place))
                continue
            with open(source, encoding='utf-8') as file:
                self._write(place, layout.rewrite(file.read()))
        self._write(f'{layout.PACKAGE}/commit.txt', version.commit() or '')

    def _write(self, place: str, text: str) -> None:
        path = os.path.join(self.build_lib, place)
        self.mkpath(os.path.dirname(path))
        with open(path, 'w', encoding='utf-8', newline='\n') as file:
            file.write(text)

    def get_source_files(self) -> list[str]:
        return [os.path.relpath(source, ROOT) for source, _ in layout.packaged_files(ROOT)]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [os.path.join(self.build_lib, place) for _, place in layout.packaged_files(ROOT)]


class SourceArchive(sdist):  # type: ignore[misc,unused-ignore]  # setuptools has no types everywhere
    """Note the commit, which the files of the archive do not tell."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        with open(os.path.join(base_dir, layout.PACKAGE, 'commit.txt'), 'w', encoding='ascii') as file:
            file.write(version.commit() or '')


class EditableWheel(setuptools.Command):  # type: ignore[misc,unused-ignore]  # setuptools has no types everywhere
    """Build a wheel that leads to this checkout."""

    user_options: ClassVar[list[tuple[str, str | None, str]]] = [
        ('dist-dir=', 'd', 'folder of the wheel'),
        ('dist-info-dir=', 'I', 'ready metadata, not needed'),
        ('mode=', None, 'not used'),
    ]

    def initialize_options(self) -> None:
        self.dist_dir = self.dist_info_dir = self.mode = None

    def finalize_options(self) -> None:
        pass

    def run(self) -> None:
        self.distribution.get_command_obj('build_py').editable = True  # type: ignore[union-attr,unused-ignore]
        self.reinitialize_command('bdist_wheel').dist_dir = self.dist_dir  # type: ignore[union-attr,unused-ignore]
        self.run_command('bdist_wheel')


setuptools.setup(cmdclass={'build_py': BuildPackage, 'sdist': SourceArchive, 'editable_wheel': EditableWheel})
