"""Types of options: what a user types becomes a value, or one sentence that says what is wrong with it."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from training.commands import memory
from training.commands.destinations import require_weights
from training.commands.mistakes import UserMistake
from training.commands.option_values import parse_names, parse_seeds, parse_size

if TYPE_CHECKING:
    import torch


class Parsed(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """An option type made from a parser that raises ValueError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self.parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value  # a default that is parsed already
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Weights(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A network, detector or encoder: whatever networks.checkpoints.addresses takes. It is fetched when it is opened.

    Args:
        folders: Whether it may be a folder, such as a run's or that of a network in several files.
    """

    def __init__(self, folders: bool = False) -> None:
        self.name = 'FILE|DIR|URL' if folders else 'FILE|URL'
        self.folders = folders

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        require_weights(value, max(param.opts, key=len) if param is not None else 'the network', folders=self.folders)
        return value


WEIGHTS, WEIGHTS_OR_FOLDER = Weights(), Weights(folders=True)
SEEDS = Parsed('seeds', parse_seeds)  # '0,1,4-6' -> list[int]
SIZE = Parsed('WxH', parse_size)  # '4x2' -> (width, height)
MEMORY = Parsed('SIZE', memory.parse_budget)  # '8G', '50%' -> memory.Budget
NAMES = Parsed('a,b,c', parse_names)  # 'a,b' -> list[str], 'none' -> []


class FloatRange(click.FloatRange):
    """click's range of numbers, without nan and infinity, which compare as if they lay inside of some ranges."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f'{value} is not a finite number', param, ctx)
        return number


POSITIVE_INT = click.IntRange(min=1)
NON_NEGATIVE_INT = click.IntRange(min=0)
POSITIVE_FLOAT = FloatRange(min=0, min_open=True)
NON_NEGATIVE_FLOAT = FloatRange(min=0)
FPS = FloatRange(min=0, min_open=True, max=1000)


def choose_device(name: str = 'auto') -> 'torch.device':
    """The torch device of this name; 'auto' is the first GPU when there is one, else the CPU.

    Raises:
        UserMistake: no such device on this machine.
    """
    import torch  # here, because it takes seconds that --help need not spend

    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch reports a missing back end with either of the two
        reason = ' '.join(str(error).split())[:200]
        raise UserMistake(f'--device: {name!r} cannot be used on this machine ({reason}); try --device=cpu') from error
    return device
