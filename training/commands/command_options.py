"""Options of a command out of a tree of option groups (training/commands/option_tree.py), and options under headings in --help.

@command_line.command()
@command_options.from_trees(Invocation, TrainingOptions)
def main(**values):
    chosen = command_options.chosen(TrainingOptions, values)   # {'settings.batch': 32}: what the user gave
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

import click

from training.commands import command_line, option_tree
from training.commands.option_tree import MISSING, Group, Leaf, OptionGroup

Function = TypeVar('Function', bound=Callable[..., Any])


def from_trees(*trees: type[OptionGroup], headings: Sequence[str] = ()) -> Callable[[Function], Function]:
    """Decorator of a command's function: one click option for every option of these trees.

    They reach the function by their paths with '__' for the dot ('settings__batch'); `chosen` makes sense of them.

    Args:
        trees: Roots.
        headings: Order of the headings in --help; others follow in the order of their declaration.
    """
    found = [leaf for tree in trees for leaf in option_tree.leaves(tree) if leaf.flag is not None]
    order = [*headings, *dict.fromkeys(leaf.heading for leaf in found if leaf.heading not in headings)]
    found.sort(key=lambda leaf: order.index(leaf.heading))

    def decorate(function: Function) -> Function:
        for leaf in reversed(found):
            function = _click_option(leaf)(function)
        return function

    return decorate


def chosen(tree: type[OptionGroup], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the user gave on the command line, by path; needs the context of the running click command."""
    context = click.get_current_context()
    names = {leaf.path: leaf.path.replace('.', '__') for leaf in option_tree.leaves(tree) if leaf.flag is not None}
    default = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
    return {path: values[name] for path, name in names.items() if context.get_parameter_source(name) not in default}


def describe(leaf: Leaf, value: object) -> str:
    """An option as one would write it: '--batch=32', or 'no --full-codes'."""
    if isinstance(value, bool):
        return str(leaf.flag) if value else f'no {leaf.flag}'
    return f'{leaf.flag}={_text(value)}'


def differences(before: OptionGroup, now: OptionGroup) -> list[str]:
    """Options of `before` that differ from those of `now`, as one would write them."""
    found = []
    for leaf in option_tree.leaves(type(now)):
        value = option_tree.get(before, leaf.path)
        if value != option_tree.get(now, leaf.path):
            found.append(f'{leaf.path}={_text(value)}' if leaf.flag is None else describe(leaf, value))
    return found


def as_begun(now: Group, before: OptionGroup, kept: Collection[str]) -> Group:
    """`now` for going on with a run of an older version: these options, which that did not know, stay as it was without them.

    Args:
        now: What the command line and the defaults of today come to.
        before: Options of the run.
        kept: Paths that the run did not record (`option_tree.unrecorded`), but for those that the command line gives.
    """
    return option_tree.override(now, {path: option_tree.get(before, path) for path in kept})


def _text(value: object) -> str:
    if value is None or value == ():
        return 'none'
    if isinstance(value, tuple):
        return ','.join(map(str, value))
    return f'{value:g}' if isinstance(value, float) else str(value)


def _click_option(leaf: Leaf) -> Callable[[Function], Function]:
    declared = leaf.declared
    _, kind = option_tree.split_optional(leaf.kind)
    names = [leaf.path.replace('.', '__'), *([declared.short] if declared.short else []), str(leaf.flag)]
    facts: dict[str, Any] = {'cls': command_line.GroupedOption, 'heading': leaf.heading, 'help': declared.help}
    default = None if leaf.default is MISSING else leaf.default
    if kind is bool:
        return click.option(*names, is_flag=True, default=default, **facts)
    if declared.default_text is not None:
        facts['show_default'] = False
        facts['help'] = f'{declared.help}  [default: {declared.default_text}]'
    if declared.weights is not None:
        kind_of_path = command_line.WEIGHTS if declared.weights == 'file' else command_line.WEIGHTS_OR_FOLDER
        return click.option(*names, type=kind_of_path, multiple=declared.repeated, default=default, **facts)
    if declared.repeated:
        return click.option(*names, multiple=True, metavar=declared.metavar or 'TEXT', default=default, **facts)
    if default is not None and (declared.parse is not None or kind is float):
        default = _text(default)  # as the user would write it
    facts['metavar'] = declared.metavar or _metavar(kind)
    return click.option(*names, type=_click_type(leaf, kind), default=default, **facts)


def _metavar(kind: Any) -> str | None:
    if typing.get_origin(kind) is Literal:
        return None  # click lists the choices
    if typing.get_origin(kind) is tuple:
        return 'LIST'
    return {int: 'INT', float: 'FLOAT', str: 'TEXT'}[kind]


def _click_type(leaf: Leaf, kind: Any) -> Any:
    declared = leaf.declared
    if declared.parse is not None:
        return command_line.Parsed(leaf.path, declared.parse)
    if typing.get_origin(kind) is Literal:
        return click.Choice(typing.get_args(kind))
    if kind is int:
        return click.IntRange(declared.at_least, declared.at_most)  # type: ignore[arg-type] # bounds of whole numbers are whole
    if kind is float:
        low = declared.at_least if declared.above is None else declared.above
        return command_line.FloatRange(low, declared.at_most, min_open=declared.above is not None)
    return str
