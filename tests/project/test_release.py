"""Version, changelog and citation agree, and the files that people look for are there and can be read."""

import pathlib
import re

import pytest

from stylevideogan.version import __version__


def test_version_changelog_and_citation_agree(root: pathlib.Path) -> None:
    headings = re.findall(r'^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$', (root / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert headings[0] == ('Unreleased', '')
    assert headings[1][0] == __version__
    assert headings[1][1] != ''
    assert f'\nversion: {__version__}\n' in (root / 'CITATION.cff').read_text()


@pytest.mark.parametrize('name', [
    'SECURITY.md', 'RELEASE.md', 'CONTRIBUTING.md', '.github/workflows/ci.yml', '.pre-commit-config.yaml',
    '.github/pull_request_template.md', 'stylevideogan/py.typed', 'Dockerfile',
])  # fmt: skip
def test_files_that_people_look_for(root: pathlib.Path, name: str) -> None:
    assert (root / name).is_file()


def test_configuration_of_the_hosts_is_valid(root: pathlib.Path) -> None:
    yaml = pytest.importorskip('yaml', reason='needs PyYAML')
    for path in [*(root / '.github').rglob('*.yml'), root / '.pre-commit-config.yaml', root / 'CITATION.cff']:
        assert yaml.safe_load(path.read_text()), path
    jobs = yaml.safe_load((root / '.github' / 'workflows' / 'ci.yml').read_text())['jobs']
    assert {'ubuntu-latest', 'macos-latest', 'windows-latest'} <= {
        *jobs['test']['strategy']['matrix']['os'], *(entry['os'] for entry in jobs['test']['strategy']['matrix']['include'])
    }  # fmt: skip
