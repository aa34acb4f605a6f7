"""The deliberate faults of tests/mutation are faults of today's code."""

import pathlib
import sys


def test_each_fault_changes_one_place(root: pathlib.Path) -> None:
    sys.path.insert(0, str(root / 'tests' / 'mutation'))
    try:
        from faults import FAULTS
    finally:
        sys.path.pop(0)
    wrong = [f'{each.path}: {each.name}' for each in FAULTS if (root / each.path).read_text().count(each.old) != 1]
    assert wrong == []
    assert len({(each.path, each.name) for each in FAULTS}) == len(FAULTS)
