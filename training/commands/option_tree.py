"""Options as a tree of frozen dataclasses: the one place of their defaults, bounds, and help texts.

A field of such a class is declared with `option(...)`, and everything else is read off it: the command's click options
(command_options.py beside this file), the nested dict that a run folder and a snapshot hold (`to_dict`, `from_dict`), presets and
benchmarks (`override`). To add an option, add a field; where files were written before it existed, say with `absent` what
those runs did.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Settings(OptionGroup):
        batch: int = option(64, 'Windows in a batch', at_least=1)                       # --batch=INT
        critic_lr: float = option(6e-3, "Adam's learning rate", flag='--clr', above=0)  # --clr=FLOAT
        burn_in: int = option(8, 'Frames before a window', at_least=0, absent=0)        # added later

    options = Settings(batch=32)       # ValueError: where a value is outside of its bounds
    from_dict(Settings, json.load(file), 'options.json') == options

A path such as 'settings.batch' names a field in the tree. Nothing here imports click or torch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, TypeVar

from networks.errors import InputError

Group = TypeVar('Group', bound='OptionGroup')
MISSING = dataclasses.MISSING  # the default of an option that has to be given
RECORDED = object()  # `absent` of an option that every file mentions
METADATA = 'option'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """What a field says of itself beyond its name, type and default.

    Attributes:
        help: Text for --help.
        flag: Name on the command line; '' derives it from the field's name, None makes it a setting without an option.
        short: One-letter flag, such as '-n'.
        metavar: Stands for the value in --help; '' derives it from the type.
        at_least, above, at_most: Bounds of a number, or of every number of a tuple; `above` is exclusive.
        weights: It names a network, detector or encoder: a file or an address, or ('folder') a folder as well.
        parse: Reads the value from text, for types that text does not say by itself; raises ValueError.
        repeated: The option may be given several times, and the value is a tuple of all.
        default_text: What --help says where the default depends on something else.
        group: Heading in --help; None takes that of the enclosing field.
        absent: The value of runs whose files do not mention the field, because it did not exist; RECORDED: all mention it.
        resumed: What a resumed run does: 'fixed' keeps what the run began with, 'kept' does so unless the command says
            otherwise, 'command' takes the command's value or the default.
        consent: Lets program code run, so it has to be given on the command line and is never read from a file.
    """

    help: str
    flag: str | None = ''
    short: str | None = None
    metavar: str = ''
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    weights: Literal['file', 'folder'] | None = None
    parse: Callable[[str], Any] | None = None
    repeated: bool = False
    default_text: str | None = None
    group: str | None = None
    absent: Any = RECORDED
    resumed: Literal['fixed', 'kept', 'command'] = 'fixed'
    consent: bool = False

    def out_of_bounds(self, number: float) -> str | None:
        """What is wrong with a number, or None."""
        if not math.isfinite(number):
            return f'{number} is not a finite number'
        if self.at_least is not None and number < self.at_least:
            return f'{number} is below {self.at_least}'
        if self.above is not None and number <= self.above:
            return f'{number} is not above {self.above}'
        if self.at_most is not None and number > self.at_most:
            return f'{number} is above {self.at_most}'
        return None


def option(default: Any, help: str, **facts: Any) -> Any:
    """A field of an `OptionGroup`; `default` is its default or MISSING, `facts` are the attributes of `Option`."""
    return dataclasses.field(default=default, metadata={METADATA: Option(help=help, **facts)})


def subgroup(kind: type[OptionGroup], heading: str) -> Any:
    """A field that holds a group of its own, under this heading in --help."""
    return dataclasses.field(default_factory=kind, metadata={METADATA: heading})


class OptionGroup:
    """Base of the dataclasses; values are checked against types and bounds when one is made.

    Raises:
        ValueError: A value is of another type, or out of bounds.
    """

    def __post_init__(self) -> None:
        for name, kind, declared in _fields(type(self)):
            if isinstance(declared, Option):
                value = _checked(getattr(self, name), kind, declared, name)
                object.__setattr__(self, name, value)  # the class is frozen for everybody else

    @classmethod
    def upgrade(cls, values: object) -> Any:
        """Bring what an older version wrote for this group into today's shape."""
        return values


def _fields(cls: type[OptionGroup]) -> tuple[tuple[str, Any, Option | str], ...]:
    """(name, type, declaration) of every field; the declaration of a subgroup is its heading."""
    hints = typing.get_type_hints(cls)
    return tuple((field.name, hints[field.name], field.metadata[METADATA]) for field in dataclasses.fields(cls))  # type: ignore[arg-type]


def _checked(value: Any, kind: Any, declared: Option, name: str) -> Any:
    """`value`, lists as tuples and whole numbers of a float field as floats; ValueError where it does not fit."""
    optional, kind = split_optional(kind)
    if value is None and optional:
        return None
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f'{name}: {value!r} is none of {", ".join(map(str, arguments))}')
        return value
    if origin is tuple:
        variable = arguments[-1] is Ellipsis
        if not isinstance(value, (list, tuple)) or not (variable or len(value) == len(arguments)):
            raise ValueError(f'{name}: {value!r} is not a list of {"" if variable else f"{len(arguments)} "}values')
        return tuple(_checked(entry, arguments[0], declared, name) for entry in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text'}
        raise ValueError(f'{name}: {value!r} is not {words[kind]}')
    if kind in (int, float) and (wrong := declared.out_of_bounds(value)) is not None:
        raise ValueError(f'{name}: {wrong}')
    return value


def split_optional(kind: Any) -> tuple[bool, Any]:
    """Whether a type allows None, and what else it is: `int | None` returns (True, int)."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        others = [argument for argument in typing.get_args(kind) if argument is not type(None)]
        if len(others) == 1:
            return True, others[0]
    return False, kind


# ----------------------------------------------------------------------------
# Paths.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One option in the tree: path 'settings.batch', its type, default (or MISSING), declaration, and heading."""

    path: str
    kind: Any
    default: Any
    declared: Option
    heading: str

    @property
    def flag(self) -> str | None:
        """'--batch', or None for a setting without an option."""
        if self.declared.flag == '':
            return '--' + self.path.rpartition('.')[2].replace('_', '-')
        return self.declared.flag


def leaves(cls: type[OptionGroup], prefix: str = '', heading: str = 'Options') -> Iterator[Leaf]:
    """Every option of a tree in the order of its declaration."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name, kind, declared in _fields(cls):
        if isinstance(declared, str):
            yield from leaves(kind, f'{prefix}{name}.', declared)
        else:
            yield Leaf(
                path=prefix + name, kind=kind, default=defaults[name], declared=declared, heading=declared.group or heading
            )


def get(options: OptionGroup, path: str) -> Any:
    """The value at a path."""
    return functools.reduce(getattr, path.split('.'), options)


def override(options: Group, values: Mapping[str, Any]) -> Group:
    """A copy with the values at some paths replaced: `override(options, {'settings.batch': 32})`.

    Raises:
        ValueError: There is no such option, or the value does not fit.
    """
    known = {leaf.path for leaf in leaves(type(options))}
    for path, value in values.items():
        if path not in known:
            raise ValueError(f'there is no option {path!r}')
        options = _replaced(options, path.split('.'), value)
    return options


def _replaced(options: Any, names: list[str], value: Any) -> Any:
    if len(names) > 1:
        value = _replaced(getattr(options, names[0]), names[1:], value)
    return dataclasses.replace(options, **{names[0]: value})


def build(cls: type[Group], values: Mapping[str, Any]) -> Group:
    """A tree with the values at some paths given and defaults elsewhere.

    Raises:
        ValueError: There is no such option, the value does not fit, or an option without a default is not given.
    """
    required = [leaf.path for leaf in leaves(cls) if leaf.default is MISSING and '.' not in leaf.path]
    missing = [path for path in required if path not in values]
    if missing:
        raise ValueError(f'{missing[0]} is missing')
    options = cls(**{path: values[path] for path in required})
    return override(options, {path: value for path, value in values.items() if path not in required})


# ----------------------------------------------------------------------------
# Files.


def to_dict(options: OptionGroup, without: Collection[str] = (), prefix: str = '') -> dict[str, Any]:
    """The tree as nested dicts of plain values, as JSON holds them: tuples become lists.

    Args:
        options: Root of the tree, or a group in it.
        without: Paths of options that are left out, as an older version left them out.
        prefix: Path of `options` in the tree, with a dot at its end.
    """
    result: dict[str, Any] = {}
    for name, _, declared in _fields(type(options)):
        value = getattr(options, name)
        if isinstance(declared, str):
            result[name] = to_dict(value, without, f'{prefix}{name}.')
        elif prefix + name not in without:
            result[name] = list(value) if isinstance(value, tuple) else value
    return result


def unrecorded(cls: type[OptionGroup], values: Any, prefix: str = '') -> set[str]:
    """Paths of the options that `values`, which `from_dict` reads, do not hold: the version that wrote them did not know them."""
    values = cls.upgrade(values)
    found: set[str] = set()
    for name, kind, declared in _fields(cls):
        if isinstance(declared, str):
            found |= unrecorded(kind, values.get(name, {}), f'{prefix}{name}.')
        elif name not in values:
            found.add(prefix + name)
    return found


def from_dict(cls: type[Group], values: object, source: str, prefix: str = '') -> Group:
    """Read back what `to_dict` or an older version of this program wrote.

    Args:
        cls: Root of the tree.
        values: Nested dicts.
        source: Where they come from, for errors.
        prefix: Path of `cls` in the tree, with a dot at its end.

    Raises:
        InputError: An option is missing or unknown, or a value does not fit.
    """
    values = cls.upgrade(values)
    if not isinstance(values, dict):
        raise InputError(f'{source}: {prefix[:-1] or "the file"} does not hold options; give the training_options.json of a run')
    arguments: dict[str, Any] = {}
    for name, kind, declared in _fields(cls):
        if isinstance(declared, str):
            arguments[name] = from_dict(kind, values.get(name, {}), source, f'{prefix}{name}.')
        elif name in values:
            arguments[name] = values[name]
        elif declared.absent is not RECORDED:
            arguments[name] = declared.absent
        else:
            raise InputError(f'{source}: {prefix}{name} is missing; give the training_options.json of a run as it was written')
    unknown = sorted(set(values) - set(arguments))
    if unknown:
        raise InputError(
            f'{source}: there is no option {prefix}{unknown[0]}; a newer version of this program may have '
            'written the file: update this one'
        )
    try:
        return cls(**arguments)
    except (ValueError, OverflowError) as error:
        raise InputError(f'{source}: {prefix}{error}') from error
