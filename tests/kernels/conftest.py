"""Fixtures for the tests of inner loops."""

import pytest

from training.kernels import native_code


@pytest.fixture(params=['compiled', 'PyTorch'])
def form(request, monkeypatch):
    """Run the test with the compiled library that its file names as LIBRARY, and with PyTorch's operations."""
    if request.param == 'PyTorch':
        monkeypatch.setattr(native_code, 'enabled', False)
    elif native_code.load(request.module.LIBRARY) is None:
        pytest.skip('there is no C++ compiler')
    return request.param
