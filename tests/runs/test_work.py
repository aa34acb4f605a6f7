"""Unfinished work of an earlier version, which did not know all of today's settings."""

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from training.commands.work import Work, as_begun, completed, differences

UNSAID = {'react': 0.0, 'tuning.ema': 25.0}


def test_what_a_version_did_not_know_stays_as_it_was():
    before = {'seed': 3, 'tuning': {'lr': 0.1}}
    now = {'seed': 3, 'react': 0.5, 'tuning': {'lr': 0.1, 'ema': 99.0}}
    assert as_begun(now, before, UNSAID) == {'seed': 3, 'react': 0.0, 'tuning': {'lr': 0.1, 'ema': 25.0}}
    assert as_begun(now, before, UNSAID, {'tuning.ema'}) == {'seed': 3, 'react': 0.0, 'tuning': {'lr': 0.1, 'ema': 99.0}}
    assert as_begun(now, {'tuning': {'ema': 1.0}}, {}) == now
    assert completed(before, UNSAID) == {'seed': 3, 'react': 0.0, 'tuning': {'lr': 0.1, 'ema': 25.0}}


@pytest.mark.parametrize(
    ('now', 'paths'),
    [
        ({'seed': 3, 'tuning': {'lr': 0.1}}, []),
        ({'seed': 3, 'react': 0.0, 'tuning': {'lr': 0.1, 'ema': 25.0}}, []),
        ({'seed': 3, 'react': 0.5, 'tuning': {'lr': 0.1, 'ema': 25.0}}, ['react']),
        ({'seed': 4, 'tuning': {'lr': 0.2}}, ['seed', 'tuning.lr']),
        ({'seed': 3, 'tuning': {'lr': 0.1}, 'size': None}, ['size']),  # nobody has said what runs without it did
        ({'tuning': {'lr': 0.1}}, ['seed']),
        ({'seed': 3, 'tuning': None}, ['tuning']),
    ],
)
def test_differences_between_versions(now: dict[str, Any], paths: list[str]):
    assert differences({'seed': 3, 'tuning': {'lr': 0.1}}, now, UNSAID) == paths


def test_notes_of_this_version_and_of_earlier_ones():
    work = Work({'seed': 3, 'react': 0.0, 'edit': ('a',)}, UNSAID, (40, 8))
    assert work.left(work.note())
    key = hashlib.sha256(json.dumps([work.settings, 40, 8], sort_keys=True, default=str).encode()).hexdigest()
    assert work.left(key)  # all that earlier versions wrote
    older = Work({'seed': 3, 'edit': ('a',)}, {}, (40, 8))
    assert older.key != work.key
    assert work.left(older.note())
    assert not dataclasses.replace(work, settings={**work.settings, 'react': 0.5}).left(older.note())
    assert not dataclasses.replace(work, parts=(40, 9)).left(older.note())
    assert not dataclasses.replace(work, unsaid={}).left(older.note())


@pytest.mark.parametrize(
    'note', ['', 'x', 'x\n', 'x\n{}', 'x\n[]', 'x\n[1, 40, 8]', 'x\n[[], 40, 8]', 'x\n' + '[' * 100_000, None, 5]
)
def test_damaged_notes_are_of_no_work(note: Any):
    assert not Work({'seed': 3}, UNSAID, (40, 8)).left(note)
