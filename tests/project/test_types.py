"""How much the annotations say. `any_share.py` beside this file lists what they leave open."""

import pathlib

import any_share
import pytest


@pytest.mark.parametrize(
    ('annotation', 'is_any'),
    [
        ('Any', True),
        ('Any | None', True),
        ('None | typing.Any', True),
        ('Optional[Any]', True),
        ('dict[str, Any]', False),
        ('int', False),
        ('Anyone', False),
    ],
)
def test_what_counts_as_any(annotation: str, is_any: bool) -> None:
    assert any_share.arguments(f'def f(x: {annotation}, y, *z: Any): pass') == [(1, 'x', is_any)]


def test_less_than_one_argument_in_twenty_is_any(root: pathlib.Path) -> None:
    rows = any_share.rows(root)
    assert len(rows) > 3000
    assert sum(row[3] for row in rows) < 0.05 * len(rows)
