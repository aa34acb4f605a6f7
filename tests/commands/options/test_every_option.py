"""No option of any command is without a row in the table of its command, and no row without an option."""

import importlib
import pathlib
from collections.abc import Iterator

import click

from stylevideogan import layout
from stylevideogan.__main__ import load_command


def every_option() -> Iterator[tuple[str, str]]:
    """(command, option) of all commands, without those that every command has."""
    for name in layout.COMMANDS:
        command = load_command(name)
        commands = {name: command}
        if isinstance(command, click.Group):
            commands = {f'{name} {word}': sub for word, sub in command.commands.items()}
        for full_name, each in commands.items():
            for parameter in each.params:
                if isinstance(parameter, click.Option) and not {'--help', '--version'} & set(parameter.opts):
                    yield full_name, max(parameter.opts, key=len)


def test_every_option_stands_in_the_table() -> None:
    there = set(every_option())
    assert len(there) > 150
    modules = [importlib.import_module(path.stem) for path in pathlib.Path(__file__).parent.glob('test_options_of_*.py')]
    told = {(row.command, row.option) for module in modules for row in module.TABLE}
    assert sorted(there - told) == [], 'an option without a row'
    assert sorted(told - there) == [], 'a row without an option'
