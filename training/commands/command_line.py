"""What every command shares: option types, clear errors, progress, and checks before long work.

Nothing heavy is imported here, so that `--help` and a mistyped option answer at once.
"""

import difflib
import errno
import functools
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any, TypeVar, overload

import click
from tqdm import tqdm

from networks.checkpoints import addresses
from networks.checkpoints.addresses import is_address
from networks.errors import InputError, naming_options, readable
from stylevideogan import layout, version
from training.commands import memory, stop_signals
from training.commands.option_values import MAX_SEED as MAX_SEED
from training.commands.option_values import parse_names, parse_seeds, parse_size
from training.commands.standard_streams import be_patient

if TYPE_CHECKING:
    import torch

Function = TypeVar('Function', bound=Callable[..., Any])

EXIT_MISTAKE = 2  # what click itself uses for a wrong option
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
OUR_PACKAGES = {'dnnlib', 'torch_utils', 'metrics', 'networks', 'plugins', 'training', 'demo', 'stylevideogan'}

INTERRUPTED = 'interrupted; run the same command again to go on'

# GNU OpenMP, which torch uses on Linux, lets a thread that waits for the others spin 300,000 times before it sleeps. When a
# core is busy with something else that is all that happens: one step of a training was seen to take sixty times as long.
SPIN_COUNT = 1000
THREAD_SETTINGS = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'OMP_NUM_THREADS')

# ----------------------------------------------------------------------------
# Errors


class UserMistake(click.ClickException):
    """Something that the user asked for cannot be done; shown as one sentence, exit code 2."""

    exit_code = EXIT_MISTAKE


def describe_os_error(error: OSError) -> str:
    """One sentence for an error of the operating system: what, where, and what to do."""
    where = f' {os.fspath(error.filename)!r}' if isinstance(error.filename, (str, bytes, os.PathLike)) else ''
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f'no space is left on the disk{where and " while writing" + where}; free some and run the command again'
    if error.errno in (errno.EACCES, errno.EPERM):
        return f'no permission for{where or " a file"}; choose another place or change its permissions'
    if error.errno == errno.EROFS:
        return f'the disk is mounted read-only{where and ", so there is no writing to" + where}; choose another place'
    if error.errno == errno.ENOENT:
        return f'no such file or folder:{where or " (unnamed)"}; check the path'
    if error.errno == errno.EISDIR:
        return f'expected a file but found a folder:{where}'
    if error.errno == errno.ENOTDIR:
        return f'a part of this path is a file, not a folder:{where}'
    if error.errno == errno.EMFILE:
        return 'too many open files; raise the limit (ulimit -n) or use fewer workers'
    return ' '.join(str(error).split()) or type(error).__name__


def describe_memory_error(error: BaseException) -> str | None:
    """One sentence when the error means that memory ran out, on the host or on a GPU; else None."""
    if isinstance(error, MemoryError):
        return 'out of memory; use a smaller batch, shorter clips or fewer of them'
    torch_module = sys.modules.get('torch')
    if torch_module is not None and isinstance(error, torch_module.OutOfMemoryError):
        return 'the GPU is out of memory; use a smaller batch, or another device'
    if isinstance(error, RuntimeError) and 'DefaultCPUAllocator' in str(error):
        return 'out of memory; use a smaller batch, shorter clips or fewer of them'
    return None


def describe_torch_write_error(error: BaseException) -> str | None:
    """One sentence when torch.save could not write: it hides the system's error, nearly always a full disk."""
    if isinstance(error, RuntimeError) and 'PytorchStreamWriter failed writing' in str(error):
        return 'a file could not be written to its end, the disk is probably full; free some space and run again'
    return None


def share_cores() -> None:
    """Let threads of torch that wait for each other sleep soon, so that other work beside slows this one down in proportion only.

    Has an effect before the first import of torch, and on the processes started from here; does nothing when one of
    `THREAD_SETTINGS` is set in the environment: then the user has decided. `benchmarks/busy_cores.py` measures it.
    """
    if not any(name in os.environ for name in THREAD_SETTINGS):
        os.environ['GOMP_SPINCOUNT'] = str(SPIN_COUNT)


def prepare_process() -> None:
    """What every command does first: threads share the cores, and freed memory is kept for what comes next."""
    share_cores()
    memory.keep_freed_memory()


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
    return f'\n  python {shlex.join(sys.argv)}' if name.endswith('.py') and not name.startswith('__') else ''


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
        try:
            with stop_signals.handling(), naming_options():
                return function(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort) as stop:
            if os.environ.get('RANK', '0') == '0' and not ('RANK' in os.environ and 'STYLEVIDEOGAN_LAUNCHED' in os.environ):
                report(f'\n{interrupted}{this_command()}')
            raise click.exceptions.Exit(stop.exit_code if isinstance(stop, stop_signals.Stopped) else EXIT_INTERRUPTED) from stop
        except InputError as error:
            raise UserMistake(str(error)) from error
        except OSError as error:
            raise UserMistake(describe_os_error(error)) from error
        except ModuleNotFoundError as error:
            if (error.name or '').split('.')[0] in OUR_PACKAGES:
                raise
            remedy = 'pip install "stylevideogan[all]"' if layout.is_packaged(__name__) else 'pip install -r requirements.txt'
            raise UserMistake(
                f'the Python package {error.name!r} is not installed; {remedy} installs all that is needed'
            ) from error
        except (MemoryError, RuntimeError) as error:
            sentence = describe_memory_error(error) or describe_torch_write_error(error)
            if sentence is None:
                raise
            raise UserMistake(sentence) from error

    return wrapper


class _ClearMain(click.Command):
    """A click command whose own errors are one sentence as well: no usage block, always exit code 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,  # type: ignore[override]
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        prepare_process()
        if standalone_mode:
            be_patient()
        try:
            args = expand_home(sys.argv[1:] if args is None else args)
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            if not standalone_mode:
                return result
        except click.ClickException as error:
            if not standalone_mode:
                raise
            if not speaks_for_itself(error):
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


def command(**kwargs: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """`click.command` with this project's help settings and one-sentence errors."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        return _with_version(click.command(cls=ClearCommand, context_settings=CONTEXT_SETTINGS, **kwargs)(function))

    return decorate


def command_group(**kwargs: Any) -> Callable[[Callable[..., Any]], ClearGroup]:
    """`click.group` likewise; its `.command()` makes the commands in it."""

    def decorate(function: Callable[..., Any]) -> ClearGroup:
        group = click.group(cls=ClearGroup, context_settings=CONTEXT_SETTINGS, no_args_is_help=False, **kwargs)(function)
        return _with_version(group)  # type: ignore[return-value]

    return decorate


# ----------------------------------------------------------------------------
# Option types


class Parsed(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """An option type made from one of the parsers above."""

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


# ----------------------------------------------------------------------------
# Words and progress on standard error


def report(sentence: str) -> None:
    """Say something on standard error, without tearing a progress bar that is being drawn."""
    tqdm.write(sentence, file=sys.stderr)


class _ProgressLines(tqdm):  # type: ignore[type-arg,unused-ignore]
    """Progress for a log file: a whole line each time, none when the work is done before the first one is due."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.fp.write(f'{msg if msg is not None else self}\n')
        self.fp.flush()

    def clear(self, *args: Any, **kwargs: Any) -> None:
        """A written line stays."""

    def close(self) -> None:
        if not self.disable:
            if self.last_print_t >= self.start_t + (self.delay or 0):
                self.display()
            self.delay = math.inf  # tqdm's own closing is made for a bar; it writes nothing before the delay is over
        super().close()


def progress(
    *,
    total: float | None,
    description: str,
    unit: str = 'frame',
    initial: float = 0,
    every_seconds: float = 10.0,
    file: IO[str] | None = None,
) -> 'tqdm[Any]':
    """Show how far a long work is and how long it will still take, on standard error.

    A terminal gets a bar; anything else (a log, a pipe) gets one line every `every_seconds` seconds. Use it as a
    context manager and call `.update(n)` after n units.

    Args:
        total: Number of units, None when it is not known.
        description: What is being done.
        unit: Name of one unit.
        initial: Units that were done by an earlier run.
        every_seconds: Time between two lines where there is no terminal, seconds.
        file: Where to, standard error by default.
    """
    stream = sys.stderr if file is None else file
    if getattr(stream, 'isatty', lambda: False)():  # the host's Logger, which may stand for stderr, has no such method
        return tqdm(total=total, desc=description, unit=unit, initial=initial, file=stream, dynamic_ncols=True)
    if total is None:
        line = '{desc}: {n_fmt} {unit}s in {elapsed}, {rate_fmt}'
    else:
        line = '{desc}: {n_fmt} of {total_fmt} {unit}s ({percentage:.0f}%), {elapsed} gone, {remaining} left'
    return _ProgressLines(
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        file=stream,
        bar_format=line,
        mininterval=every_seconds,
        miniters=1,
        delay=every_seconds,
    )


# ----------------------------------------------------------------------------
# Paths

# Endings of files that are no folder and no zip.
ENDINGS_OF_VIDEOS = ('.mp4', '.mov', '.m4v', '.mkv', '.avi', '.webm', '.gif')
ENDINGS_OF_FILES = (
    '.png', '.jpg', '.jpeg', '.webp', '.tif', '.tiff', '.npy', '.npz', '.pt', '.pth', '.pkl', '.safetensors', '.json', '.txt',
    '.csv', '.tar', '.gz', '.tgz', '.7z', '.rar',
)  # fmt: skip


def expand_home(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command with `~` as the home folder after an equals sign too, where no shell replaces it."""

    def expanded(argument: str) -> str:
        match = re.fullmatch(r'(--[\w-]+=)(~.*)', argument, re.DOTALL)
        if match:
            return match[1] + os.path.expanduser(match[2])
        return os.path.expanduser(argument) if argument.startswith('~') else argument

    return [expanded(argument) for argument in arguments]


def new_result(path: str, *, zipped: bool, option: str = '--dest', overwrite: bool = False) -> str:
    """Return where a folder (or zip) goes, without slashes at its end, after making sure that it can be written.

    An empty folder that was made for it is taken.

    Args:
        path: As the user gave it.
        zipped: Whether the name may end in .zip, and the result is one then.
        option: Name of the option, for errors.
        overwrite: Whether what is there may be replaced.

    Raises:
        UserMistake: It exists, has the ending of another kind of file (a folder: of a video), or its folder cannot be written.
    """
    stripped = path.rstrip('/' + os.sep)
    if os.path.basename(stripped) in ('', '.', '..'):
        stripped = os.path.abspath(path)
    ending = os.path.splitext(stripped)[1].lower()
    if ending in ENDINGS_OF_VIDEOS or (zipped and ending in ENDINGS_OF_FILES):
        kind = 'a .zip or a folder' if zipped else 'a folder'
        raise UserMistake(f'{option}: the result is {kind}, and {path!r} has the ending of another kind of file')
    if os.path.lexists(stripped) and not overwrite and not is_empty_folder(stripped):
        how = ', or replace it by --overwrite' if zipped else ', or remove it'
        raise UserMistake(f'{option}: {path} already exists; choose another name{how}')
    require_folder(os.path.dirname(os.path.abspath(stripped)))
    return stripped


def absolute(path: str) -> str:
    """Return the absolute path of a file; an address stays as it is."""
    return path if is_address(path) else os.path.abspath(path)


def require_weights(path: str, option: str, *, folders: bool = False) -> None:
    """Make sure that a file of weights (or a folder) is there; what an address holds is found out when it is downloaded.

    Raises:
        UserMistake: There is no such file, or the address is none.
    """
    try:
        addresses.check(path)
    except InputError as error:
        raise UserMistake(f'{option}: {error}') from error
    if is_address(path) or os.path.isfile(path) or (folders and os.path.isdir(path)):
        return
    if os.path.isdir(path):
        raise UserMistake(f'{option}: {path!r} is a folder, and a file is needed')
    alike = difflib.get_close_matches(path, addresses.NAMES, n=2, cutoff=0.5)
    meant = f'; did you mean {" or ".join(alike)}, which would be downloaded?' if alike else ''
    raise UserMistake(f'{option}: there is no file{" or folder" if folders else ""} {path!r}{meant}')


def is_empty_folder(path: str | os.PathLike[str]) -> bool:
    """Tell whether this is a folder without anything in it."""
    return os.path.isdir(path) and not os.listdir(path)


# ----------------------------------------------------------------------------
# Checks before long work


def existing_parent(path: str | os.PathLike[str]) -> str:
    """The path itself, or the nearest folder above it that exists."""
    folder = os.path.abspath(path)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return folder


def require_free_space(path: str | os.PathLike[str], num_bytes: float, purpose: str) -> None:
    """Stop before long work rather than at its end when the disk cannot hold the result.

    Args:
        path: File or folder that will be written; it need not exist yet.
        num_bytes: What it will need, bytes; estimate it from below, a wrong refusal is worse than a late one.
        purpose: What for, in words ('4 videos').

    Raises:
        UserMistake: less is free.
    """
    free = shutil.disk_usage(existing_parent(path)).free
    if free < num_bytes:
        raise UserMistake(
            f'{purpose}: about {format_bytes(num_bytes)} are needed, but {format_bytes(free)} are free at '
            f'{os.fspath(path)!r}; free some space or choose another place'
        )


def format_bytes(num_bytes: float) -> str:
    """A number of bytes for a person: 1536 returns '1.5 KiB'."""
    if num_bytes < 1024:
        return f'{num_bytes:.0f} bytes'
    units = ('KiB', 'MiB', 'GiB', 'TiB')
    exponent = min(int(math.log(num_bytes, 1024)), len(units))
    return f'{num_bytes / 1024**exponent:.1f} {units[exponent - 1]}'


def require_folder(path: str | os.PathLike[str]) -> str:
    """Make the folder and make sure that files can be written into it; returns its path.

    Raises:
        UserMistake: it is a file, or there is no permission.
    """
    folder = os.fspath(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:
        raise UserMistake(f'{folder!r} is a file, but a folder is needed; choose another name') from error
    except OSError as error:
        raise UserMistake(describe_os_error(error)) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserMistake(f'no permission to write into {folder!r}; choose another folder')
    return folder
