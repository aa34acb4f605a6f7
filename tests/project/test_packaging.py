"""Requirements say the same everywhere, a wheel holds everything, and the documentation's links and examples hold."""

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from packaging.requirements import Requirement

from stylevideogan import layout
from stylevideogan.__main__ import load_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there


@pytest.fixture(scope='module')
def project(root: pathlib.Path) -> dict:
    return tomllib.loads((root / 'pyproject.toml').read_text())


def read_requirements(path: pathlib.Path) -> dict[str, Requirement]:
    lines = [line.split('#')[0].strip() for line in path.read_text().splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith('-')]
    return {requirement.name: requirement for requirement in found}


@pytest.mark.parametrize('name', ['run', 'test'])
def test_requirements_agree(root: pathlib.Path, project: dict, name: str) -> None:
    extras = project['project']['optional-dependencies']
    if name == 'run':
        declared, path = project['project']['dependencies'] + extras['train'], root / 'requirements.txt'
    else:
        declared, path = extras['test'], root / 'requirements-test.txt'
    ranges = {requirement.name: requirement for requirement in map(Requirement, declared)}
    listed = read_requirements(path)
    assert set(listed) == set(ranges)
    for key, requirement in listed.items():
        assert requirement.extras == ranges[key].extras, key
        pins = [spec.version for spec in requirement.specifier if spec.operator == '==']
        if pins:
            assert all(ranges[key].specifier.contains(pin) for pin in pins), key
        else:
            assert requirement.specifier == ranges[key].specifier, key


def test_no_dependency_has_an_upper_bound_and_scoring_is_light(project: dict) -> None:
    extras = project['project']['optional-dependencies']
    for requirement in map(Requirement, project['project']['dependencies'] + extras['train'] + extras['metrics']):
        assert not [spec for spec in requirement.specifier if spec.operator in ('<', '<=', '~=')], requirement
    light = {requirement.name for requirement in map(Requirement, project['project']['dependencies'] + extras['metrics'])}
    assert not light & {'matplotlib', 'tensorboard', 'ninja', 'mediapipe', 'scipy'}
    everything = next(iter(map(Requirement, extras['all'])))
    assert everything.extras == set(extras) - {'all', 'test'}


def documents(root: pathlib.Path) -> list[pathlib.Path]:
    return [*root.glob('*.md'), *(root / 'docs').rglob('*.md'), *(root / 'demo').glob('*.md')]


def test_links_of_the_documentation_lead_somewhere(root: pathlib.Path) -> None:
    broken = []
    for page in documents(root):
        for target in re.findall(r'(?<!!)\[[^\]]*\]\(([^)#\s]+)', page.read_text()):
            if not target.startswith(('http://', 'https://')) and not (page.parent / target).exists():
                broken.append(f'{page.relative_to(root)}: {target}')
    assert broken == []


def test_every_page_is_in_the_index(root: pathlib.Path) -> None:
    index = (root / 'docs' / 'README.md').read_text()
    pages = [page.relative_to(root / 'docs').as_posix() for page in (root / 'docs').rglob('*.md') if page.name != 'README.md']
    assert [page for page in pages if f']({page})' not in index] == []


def options_of(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts
    for part in getattr(command, 'commands', {}).values():
        yield from options_of(part)


def test_options_in_the_documentation_exist(root: pathlib.Path) -> None:
    """Every command line in an indented or fenced block uses options that the command has."""
    wrong = []
    for page in documents(root):
        page_text = page.read_text().replace('\\\n', ' ')
        page_text = re.sub(r'python -m ((?:\w+\.)+\w+)', lambda m: f'python {m[1].replace(".", "/")}.py', page_text)
        for command, arguments in re.findall(r'python (?:\S*/)?(\w+\.py)([^\n`|>]*)', page_text):
            folders = [
                root,
                *(place for room in ('benchmarks', 'demo', 'tests') for place in (root / room, *(root / room).rglob('*/'))),
            ]
            source = next((folder / command for folder in folders if (folder / command).exists()), None)
            if source is None:
                wrong.append(f'{page.relative_to(root)}: {command}')
                continue
            if source.parent == root and source.stem in layout.COMMANDS:
                known = set(options_of(load_command(source.stem)))
            else:  # with the modules beside it, which hold what several share
                known = set(re.findall(r"'(--[a-z-]+)'", ''.join(path.read_text() for path in source.parent.glob('*.py'))))
            wrong += [
                f'{page.relative_to(root)}: {command} {option}'
                for option in re.findall(r'(?<!\S)(--[a-z-]+)', arguments)
                if option not in known | {'--help'}
            ]
    assert wrong == []


def test_notebooks_and_large_files_stay_out(root: pathlib.Path) -> None:
    listing = subprocess.run(['git', 'ls-files', '-z'], cwd=root, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip('not a git checkout')
    sizes = {name: (root / name).stat().st_size for name in listing.stdout.split('\0') if name and (root / name).exists()}
    assert sum(sizes.values()) < 24e6, json.dumps(dict(sorted(sizes.items(), key=lambda item: -item[1])[:5]))
