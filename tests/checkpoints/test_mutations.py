"""Files that were changed at random, read by commands: one sentence or harmless. tests/fuzz/mutations.py tries thousands."""

import importlib.util
import pathlib
from typing import Any

import pytest

MUTATIONS = 8
KINDS = (
    'snapshot', 'encoder', 'generation.jsonl', 'record of a share', 'state of an encoder', 'options of an encoder',
    'state of a video', 'state of a tuning', 'codes', 'direction', 'landmarks', 'safetensors', 'statistics of a run',
    'record of make_video', 'unfinished video', 'unfinished data set', 'report of an embedding', 'owner of a lock',
    'options of a tuning', 'share of features',
)  # fmt: skip
# What a run goes on without, where it is damaged.
NEVER_REFUSED = ('statistics of a run', 'unfinished video', 'report of an embedding', 'owner of a lock', 'options of a tuning')
# Changes of these come from this file itself as well.
CHANGED_ANYHOW = ('generation.jsonl', 'record of a share', 'codes', 'direction', 'landmarks', 'safetensors',
                  'share of features', *NEVER_REFUSED, 'record of make_video', 'unfinished data set')  # fmt: skip


@pytest.fixture(scope='module')
def mutations(root: pathlib.Path) -> Any:
    spec = importlib.util.spec_from_file_location('mutations', root / 'tests' / 'fuzz' / 'mutations.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def workshop(mutations: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    workshop = mutations.Workshop(tmp_path_factory.mktemp('mutations'))
    assert sorted(workshop.kinds) == sorted(KINDS)
    return workshop


@pytest.mark.parametrize('kind', KINDS)
def test_changed_files_get_a_sentence_or_are_harmless(mutations: Any, workshop: Any, kind: str) -> None:
    count = mutations.Count()
    for seed, error in mutations.finds(workshop, kind, range(MUTATIONS), count):
        pytest.fail(f'{kind}, seed {seed}: {type(error).__name__}: {error}')
    assert count.refused + count.harmless == MUTATIONS
    assert (count.refused > 0) == (kind not in NEVER_REFUSED)


def test_files_that_were_not_changed_are_taken(mutations: Any, workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, 'changed_pickle', lambda draw, whole, *rest: whole)
    for name in ('change_bytes', 'change_zip', 'change_values'):
        monkeypatch.setattr(mutations, name, lambda draw, content: content)
    for kind in KINDS:
        if kind not in CHANGED_ANYHOW:
            workshop.kinds[kind](mutations.random.Random(0))
