"""The workshop of the options."""

import pathlib
from collections.abc import Iterator

import pytest
from option_workshop import Workshop, stand_ins


@pytest.fixture(scope='session')
def runs_so_far(tmp_path_factory: pytest.TempPathFactory, tiny_generator: pathlib.Path, tiny_latents: pathlib.Path) -> Workshop:
    return Workshop(tmp_path_factory.mktemp('workshop'), tiny_generator, tiny_latents)


@pytest.fixture(scope='module')
def workshop(runs_so_far: Workshop) -> Iterator[Workshop]:
    """The same for all modules; what is replaced for it is in its place only while they run."""
    with stand_ins():
        yield runs_so_far
