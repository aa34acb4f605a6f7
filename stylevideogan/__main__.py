"""`stylevideogan COMMAND` and `python -m stylevideogan COMMAND`: the commands of the repository, installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

import training
from stylevideogan import layout, version
from training.commands import command_line

PROGRAM = 'stylevideogan'


def load_command(name: str) -> click.Command:
    """The command of that name: what the script NAME.py of the repository runs."""
    command = importlib.import_module(f'{layout.home(training.__name__)}{name}').main
    assert isinstance(command, click.Command)
    return command


def usage() -> str:
    """The commands, one a line, with the first sentence of their help."""
    lines = [
        f'Usage: {PROGRAM} COMMAND [OPTIONS]',
        '',
        'StyleVideoGAN: footage to W+ codes to a temporal GAN to endless video.',
        '',
        'Commands:',
    ]
    for name in layout.COMMANDS:
        lines.append(f'  {name:<20}{load_command(name).get_short_help_str(limit=90)}')
    return '\n'.join([*lines, '', f'`{PROGRAM} COMMAND --help` explains each. Hyphens may stand for underscores.'])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names with the others."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ('-h', '--help'):
        click.echo(usage())
        return
    if given[0] == '--version':
        click.echo(f'{PROGRAM} {version.describe()}')
        return
    name = given[0].replace('-', '_').removesuffix('.py')
    if name not in layout.COMMANDS:
        command_line.report(
            f'Error: there is no command {given[0]!r}; the commands are {", ".join(layout.COMMANDS)} (see: {PROGRAM} --help)'
        )
        sys.exit(command_line.EXIT_MISTAKE)
    load_command(name).main(given[1:], prog_name=f'{PROGRAM} {name}')


if __name__ == '__main__':
    main()
