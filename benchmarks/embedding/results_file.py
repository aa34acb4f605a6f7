"""Results of a benchmark as lines of JSON that later runs add to, and the table that is made of them."""

import functools
import json
import os
import types
from collections.abc import Callable
from typing import Any

import click

from training.commands import command_line


class Results:
    """One line of JSON for each measurement; a key finds the line again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if os.path.exists(path):
            with open(path, encoding='utf-8') as file:
                self.rows = [json.loads(line) for line in file if line.endswith('\n')]

    def has(self, **key: Any) -> bool:
        """Whether a line has all these values."""
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Add a line."""
        self.rows.append(row)
        with open(self.path, 'a', encoding='utf-8') as file:
            file.write(json.dumps(row) + '\n')
        shown = {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
        command_line.report(json.dumps(shown))


def with_results(
    table: Callable[[Results], str],
) -> Callable[[Callable[[types.SimpleNamespace, Results], None]], Callable[..., None]]:
    """Give a benchmark `--results=FILE` and `--table`, which prints what `table` makes of the file and measures nothing.

    The function that is decorated gets the other options and the results so far.
    """

    def decorate(measure: Callable[[types.SimpleNamespace, Results], None]) -> Callable[..., None]:
        @click.option('--results', help='Lines of JSON', metavar='FILE', required=True)
        @click.option('--table', 'print_table', help='Print the table of what is there', is_flag=True)
        @functools.wraps(measure)
        def main(*, results: str, print_table: bool, **options: Any) -> None:
            rows = Results(results)
            if print_table:
                print(table(rows))
            else:
                measure(types.SimpleNamespace(**options), rows)

        return main

    return decorate
