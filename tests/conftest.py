"""Fixtures for every test."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope='session')
def root() -> pathlib.Path:
    """Folder of the checkout."""
    return ROOT


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
    """Folder of independent reference data beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / 'shared'
    if not (folder / 'checkpoints').is_dir():
        pytest.skip('reference data (../shared/checkpoints) is not beside this checkout')
    return folder
