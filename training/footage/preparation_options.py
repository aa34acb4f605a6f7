"""Options of the commands that take recordings: which part of them, how they are split, and how faces are aligned."""

import re
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from training.commands.click_types import NON_NEGATIVE_FLOAT, NON_NEGATIVE_INT, POSITIVE_INT, WEIGHTS
from training.commands.mistakes import UserMistake

if TYPE_CHECKING:
    from training.footage.preparation import PreparationSettings

Function = TypeVar('Function', bound=Callable[..., Any])


class _Time(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A point of time: '90', '90.5', '1:30' and '0:01:30.5' give seconds."""

    name = 'time'

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r'(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)', value.strip(), re.ASCII)
        if match is None or (match[2] and float(match[3]) >= 60) or (match[1] and int(match[2]) >= 60):
            self.fail(f'{value!r} is not a time; write seconds (90.5), m:ss (1:30) or h:mm:ss (0:01:30)', param, ctx)
        return 3600.0 * int(match[1] or 0) + 60.0 * int(match[2] or 0) + float(match[3])


TIME = _Time()
# fmt: off
OPTIONS = (
    click.option('--start',        help='Start at this time; given once for all sources, or once for each', metavar='TIME',
                 type=TIME, multiple=True),
    click.option('--end',          help='End at this time; likewise', metavar='TIME', type=TIME, multiple=True),
    click.option('--align',        help='Crop faces as in FFHQ, crop the centre square, or take frames that are aligned already',
                 type=click.Choice(['ffhq', 'center', 'none']), default='center'),
    click.option('--face',         help='Which of several faces to follow; only: leave out frames with a second face',
                 type=click.Choice(['largest', 'left', 'right', 'only']), default='largest'),
    click.option('--landmarks',
                 help='68 landmarks per frame (.npy, .npz) in place of the detector; for several recordings a '
                      'folder with NAME.npy',
                 metavar='PATH'),
    click.option('--face-model',   help="Model of the detector, a face_landmarker.task, instead of the package's",
                 type=WEIGHTS),
    click.option('--center-sigma', help='Smoothing of the position of the face over time, frames; 0: none', metavar='FRAMES',
                 type=NON_NEGATIVE_FLOAT, default=1),
    click.option('--axes-sigma',   help='Smoothing of its size and rotation, likewise', metavar='FRAMES', type=NON_NEGATIVE_FLOAT,
                 default=3),
    click.option('--bridge',       help='Longest gap without a face that does not end a clip', metavar='FRAMES',
                 type=NON_NEGATIVE_INT, default=5),
    click.option('--scene-cuts',   help='Start a new clip at scene cuts, or ignore them',
                 type=click.Choice(['split', 'ignore']), default='split'),
    click.option('--min-frames',   help='Leave out pieces of a split recording that are shorter', metavar='FRAMES',
                 type=POSITIVE_INT, default=25),
)
# fmt: on


def preparation_options(function: Function) -> Function:
    """Decorator of a command: adds the options above."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def preparation_settings(opts: types.SimpleNamespace) -> 'PreparationSettings':
    """What the options say.

    Raises:
        UserMistake: Options that have no effect together.
    """
    from training.footage.preparation import PreparationSettings  # here, because arrays and images take time that --help need not

    if opts.landmarks and opts.align != 'ffhq':
        raise UserMistake(f'--landmarks: --align={opts.align} does not use them; give --align=ffhq')
    return PreparationSettings(
        align=opts.align,
        face=opts.face,
        center_sigma=float(opts.center_sigma),
        axes_sigma=float(opts.axes_sigma),
        bridge=opts.bridge,
        scene_cuts=opts.scene_cuts == 'split',
        min_frames=opts.min_frames,
        landmarks=opts.landmarks,
        face_model=opts.face_model,
    )


def parts_of_sources(opts: types.SimpleNamespace) -> list[tuple[float | None, float | None]]:
    """(start, end) in seconds for every source.

    Raises:
        UserMistake: More or fewer times than sources, or an end that is not after its start.
    """
    columns = [_each(values, name, len(opts.source)) for name, values in (('--start', opts.start), ('--end', opts.end))]
    parts = list(zip(*columns, strict=True))
    for start, end in parts:
        if end is not None and end <= (start or 0):
            raise UserMistake(
                f'--end: the part from {start or 0:g} s to {end:g} s is empty; --end is counted from the beginning '
                'of the recording, too'
            )
    return parts


def _each(values: Sequence[float | None], name: str, count: int) -> list[float | None]:
    if not values:
        return [None] * count
    if len(values) not in (1, count):
        raise UserMistake(f'{name} is given {len(values)} times for {count} sources; give it once for all, or once for each')
    return [*values] * (count if len(values) == 1 else 1)
