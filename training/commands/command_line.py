"""How commands are made, and how their mistakes are told; with the types of options, progress and checks that they share.

Nothing heavy is imported here, so that `--help` and a mistyped option answer at once.
"""

import atexit
import contextlib
import functools
import importlib.metadata
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import click

from networks.errors import InputError, naming_options, readable
from stylevideogan import layout, version
from training.commands import memory, stop_signals
from training.commands.click_types import (
    FPS,
    MEMORY,
    NAMES,
    NON_NEGATIVE_FLOAT,
    NON_NEGATIVE_INT,
    POSITIVE_FLOAT,
    POSITIVE_INT,
    SEEDS,
    SIZE,
    WEIGHTS,
    WEIGHTS_OR_FOLDER,
    FloatRange,
    Parsed,
    choose_device,
)
from training.commands.destinations import (
    absolute,
    expand_home,
    format_bytes,
    is_empty_folder,
    new_result,
    remove_empty_folders,
    require_folder,
    require_free_space,
    require_weights,
)
from training.commands.mistakes import (
    EXIT_MISTAKE,
    UserMistake,
    describe_memory_error,
    describe_os_error,
    describe_torch_write_error,
)
from training.commands.option_values import MAX_SEED
from training.commands.progress import progress, report
from training.commands.standard_streams import be_patient

__all__ = [
    'CONTEXT_SETTINGS', 'EXIT_INTERRUPTED', 'EXIT_MISTAKE', 'FPS', 'INTERRUPTED', 'MAX_SEED', 'MEMORY', 'NAMES',
    'NON_NEGATIVE_FLOAT', 'NON_NEGATIVE_INT', 'POSITIVE_FLOAT', 'POSITIVE_INT', 'SEEDS', 'SIZE', 'WEIGHTS',
    'WEIGHTS_OR_FOLDER', 'ClearCommand', 'ClearGroup', 'FloatRange', 'GroupedOption', 'Parsed', 'UserMistake', 'absolute',
    'choose_device', 'clear_errors', 'command', 'command_group', 'describe_os_error', 'describe_torch_write_error',
    'expand_home', 'format_bytes', 'is_empty_folder', 'new_result', 'prepare_process', 'progress', 'report', 'require_folder',
    'require_free_space', 'require_weights', 'share_cores', 'speaks_for_itself', 'this_command', 'under',
]  # fmt: skip

Function = TypeVar('Function', bound=Callable[..., Any])

OLDEST_TORCH = (2, 4)  # as pyproject.toml has it; packages that are laid over others are not installed by pip, which would say so
SILENT_SECONDS = 10.0  # at most, in which another rank tells what was wrong
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
NEEDED = {
    'PIL',
    'imageio_ffmpeg',
    'matplotlib',
    'numpy',
    'psutil',
    'requests',
    'safetensors',
    'tensorboard',
    'torch',
    'tqdm',
}  # what requirements.txt installs, by the names of import
OUR_PACKAGES = {'dnnlib', 'torch_utils', 'metrics', 'networks', 'plugins', 'training', 'demo', 'stylevideogan'}

INTERRUPTED = 'interrupted; run the same command again to go on'

# GNU OpenMP, which torch uses on Linux, lets a thread that waits for the others spin 300,000 times before it sleeps. When a
# core is busy with something else that is all that happens: one step of a training was seen to take sixty times as long.
SPIN_COUNT = 1000
THREAD_SETTINGS = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'OMP_NUM_THREADS')

LAUNCHER_SETTINGS = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')

# ----------------------------------------------------------------------------
# Errors


def share_cores() -> None:
    """Let threads of torch that wait for each other sleep soon, so that other work beside slows this one down in proportion only.

    Has an effect before the first import of torch, and on the processes started from here; does nothing when one of
    `THREAD_SETTINGS` is set in the environment: then the user has decided. `benchmarks/busy_cores.py` measures it.
    """
    if not any(name in os.environ for name in THREAD_SETTINGS):
        os.environ['GOMP_SPINCOUNT'] = str(SPIN_COUNT)


def prepare_process() -> None:
    """What every command does first: threads share the cores, freed memory is kept for what comes next, ranks are brief."""
    share_cores()
    memory.keep_freed_memory()
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        # A rank that loses another one says so in a sentence; torch prints addresses of its own code before that.
        os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'ERROR')


def forget_other_launchers() -> None:
    """Take RANK and WORLD_SIZE out of the environment where they are not of torchrun, which sets all of `LAUNCHER_SETTINGS`.

    Env files and other programs leave them behind; a command would wait for processes that nobody has started, or do nothing.
    """
    found = {name: os.environ.get(name, '') for name in LAUNCHER_SETTINGS}
    if not found['RANK'] and not found['WORLD_SIZE']:
        return
    numbers = [found[name] for name in ('RANK', 'WORLD_SIZE', 'MASTER_PORT')]
    are_numbers = all(re.fullmatch(r'\d{1,9}', number, re.ASCII) for number in numbers)
    if found['MASTER_ADDR'] and are_numbers and int(found['RANK']) < int(found['WORLD_SIZE']):
        return
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        os.environ.pop(name, None)
    if found['WORLD_SIZE'] not in ('', '1'):
        given = ', '.join(f'{name}={value[:20]}' for name, value in found.items() if value)
        report(f'Note: {readable(given)} in the environment is no start by torchrun, so this is one process')


def require_torch() -> None:
    """Raise UserMistake where torch is too old, as in the environments of the checkouts that this may be laid over."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # which another sentence tells
        found = importlib.metadata.version('torch')
        number = re.match(r'(\d+)\.(\d+)', found)
        if number is not None and (int(number[1]), int(number[2])) < OLDEST_TORCH:
            raise UserMistake(f'torch {found} is too old: {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or later is needed')


def speaks_for_itself(error: BaseException) -> bool:
    """Whether this process of several (training/runs/ranks.py) is to tell its error: not what another one tells as well.

    Before the ranks have joined, all of one machine run into the same mistakes; afterwards, what they have agreed on is of the
    kind AgreedError, and anything else is their own.
    """
    if os.environ.get('RANK', '0') == '0':
        return True
    ranks = sys.modules.get('training.runs.ranks')
    if ranks is None or not ranks.have_joined():
        return os.environ.get('LOCAL_RANK', '0') == '0'
    return not isinstance(error.__cause__, ranks.AgreedError)


def this_command() -> str:
    """The command line of this process as a further line, to be given again; nothing where it is no command of ours."""
    name = os.path.basename(sys.argv[0])
    if not name.endswith('.py') or name.startswith('__'):
        return ''
    module = getattr(sys.modules['__main__'], '__spec__', None)  # of `python -m demo.run_demo`, whose path alone would not do
    return '\n  python ' + shlex.join(['-m', module.name, *sys.argv[1:]] if module is not None else sys.argv)


@overload
def clear_errors(function: Function, *, interrupted: str = INTERRUPTED) -> Function: ...


@overload
def clear_errors(function: None = None, *, interrupted: str = INTERRUPTED) -> Callable[[Function], Function]: ...


def clear_errors(function: Function | None = None, *, interrupted: str = INTERRUPTED) -> Any:
    """Decorator of a command's function: what a user got wrong becomes one sentence and exit code 2.

    Covers `InputError`, errors of the operating system (full disk, no permission, ...), packages that are not installed,
    and memory that ran out.
    Ctrl-C says `interrupted` with the command that goes on and leaves with 130, SIGTERM likewise with 143 and SIGHUP with 129.
    Anything else is a bug of this project and keeps its traceback. Used plain (`@clear_errors`) or with a sentence
    (`@clear_errors(interrupted='...')`).
    """
    if function is None:
        return functools.partial(clear_errors, interrupted=interrupted)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        def last_words() -> str:
            speaks = os.environ.get('RANK', '0') == '0' and not ('RANK' in os.environ and 'STYLEVIDEOGAN_LAUNCHED' in os.environ)
            return f'{interrupted}{this_command()}' if speaks else ''

        try:
            with stop_signals.handling(last_words), naming_options():
                return function(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort) as stop:
            if words := last_words():
                report(f'\n{words}')
            raise click.exceptions.Exit(stop.exit_code if isinstance(stop, stop_signals.Stopped) else EXIT_INTERRUPTED) from stop
        except InputError as error:
            raise UserMistake(str(error)) from error
        except OSError as error:
            raise UserMistake(describe_os_error(error)) from error
        except ModuleNotFoundError as error:
            name = (error.name or '').split('.')[0]
            if name in OUR_PACKAGES:
                raise
            if name not in NEEDED:  # of a checkout that this is laid over
                raise UserMistake(f'the Python package {name!r} is not installed; pip install {name} brings it') from error
            remedy = 'pip install "stylevideogan[all]"' if layout.is_packaged(__name__) else 'pip install -r requirements.txt'
            raise UserMistake(f'the Python package {name!r} is not installed; {remedy} installs all that is needed') from error
        except (MemoryError, RuntimeError) as error:
            sentence = describe_memory_error(error) or describe_torch_write_error(error)
            if sentence is None:
                raise
            raise UserMistake(sentence) from error

    return wrapper


_started: list[float] = []  # when each command of this process began


def started() -> float:
    """When the present command began, in seconds since 1970; now, where none did."""
    return _started[-1] if _started else time.time()


class _ClearMain(click.Command):
    """A click command whose own errors are one sentence as well: no usage block, always exit code 2.

    Attributes:
        shares_work: Whether processes that torchrun starts share its work; if not, the first of them does all.
    """

    shares_work = False

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,  # type: ignore[override]
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        prepare_process()
        _started.append(time.time())
        if standalone_mode:
            memory.collect_after_imports()
            atexit.register(memory.leave_objects_to_the_system)
            be_patient()
            forget_other_launchers()
            if not self.shares_work and os.environ.get('WORLD_SIZE', '1') not in ('', '1'):
                if os.environ.get('RANK', '0') not in ('', '0'):
                    sys.exit(0)
                name = prog_name or os.path.basename(sys.argv[0])
                report(f'Note: {name} is for one process, so the first of {os.environ["WORLD_SIZE"]} does all')
        try:
            require_torch()
            args = expand_home(sys.argv[1:] if args is None else args)
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            if not standalone_mode:
                return result
        except click.ClickException as error:
            if not standalone_mode:
                raise
            remove_empty_folders()
            if not speaks_for_itself(error):
                if 'TORCHELASTIC_RUN_ID' in os.environ:  # torchrun ends all ranks with the first, and one of them speaks for all
                    time.sleep(SILENT_SECONDS)
                sys.exit(EXIT_MISTAKE)
            program = prog_name or os.path.basename(sys.argv[0])
            hint = f' (see: {program} --help)' if isinstance(error, click.UsageError) else ''
            report(f'Error: {readable(" ".join(error.format_message().split()))}{hint}')
            sys.exit(EXIT_MISTAKE)
        except click.Abort:
            if not standalone_mode:
                raise
            report(INTERRUPTED)
            sys.exit(EXIT_INTERRUPTED)
        # Outside of standalone mode click hands an exit code back as the result.
        sys.exit(result if isinstance(result, int) else 0)


class GroupedOption(click.Option):
    """An option that stands under a heading in --help."""

    def __init__(self, *args: Any, heading: str = 'Options', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


def under(heading: str, *options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Decorator of a command: `@under('Output', click.option(...), ...)` puts these options under a heading in --help."""

    def decorate(function: Function) -> Function:
        before = len(getattr(function, '__click_params__', []))
        for option in reversed(options):
            function = option(function)
        for parameter in function.__click_params__[before:]:  # type: ignore[attr-defined] # click keeps them there
            parameter.heading = heading
        return function

    return decorate


class ClearCommand(_ClearMain):
    """One command, see `command`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(parameter, 'heading', 'Options'), []).append(record)
        own = sections.pop('Options', [])  # --help, and whatever has no heading
        for heading, records in [*sections.items(), ('Other options' if sections else 'Options', own)]:
            with formatter.section(heading):
                formatter.write_dl(records)


class ClearGroup(_ClearMain, click.Group):
    """Several commands under one name, see `command_group`."""

    command_class = ClearCommand


CONTEXT_SETTINGS: dict[str, Any] = {'max_content_width': 120, 'help_option_names': ['-h', '--help'], 'show_default': True}


def _with_version(command: click.Command) -> click.Command:
    """The command with an option --version, behind all others."""

    def show(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            click.echo(f'stylevideogan {version.describe()}')
            context.exit()

    command.params.append(
        click.Option(
            ['--version'],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=show,
            show_default=False,
            help='Show the version and exit',
        )
    )
    return command


def command(*, shares_work: bool = False, **kwargs: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """`click.command` with this project's help settings and one-sentence errors; `shares_work` as of `ClearCommand`."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        made = click.command(cls=ClearCommand, context_settings=CONTEXT_SETTINGS, **kwargs)(function)
        made.shares_work = shares_work
        return _with_version(made)

    return decorate


def command_group(**kwargs: Any) -> Callable[[Callable[..., Any]], ClearGroup]:
    """`click.group` likewise; its `.command()` makes the commands in it."""

    def decorate(function: Callable[..., Any]) -> ClearGroup:
        group = click.group(cls=ClearGroup, context_settings=CONTEXT_SETTINGS, no_args_is_help=False, **kwargs)(function)
        return _with_version(group)  # type: ignore[return-value]

    return decorate
