"""The steps from footage to new video, each a command of its own that goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from networks.errors import InputError
from stylevideogan import layout
from training.commands import command_line, stop_signals
from training.making.first_look import FirstLook
from training.making.status import Status, part_done
from training.runs.claims import run_folders
from training.temporal_options import PRESETS, TrainingOptions

LATENTS, RUNS, VIDEOS, PASTED, LOG = 'latents.zip', 'training-runs', 'videos', 'pasted', 'log.txt'
TUNED, TUNING_RUNS = 'latents-tuned.pkl', 'tuning-runs'  # beside the data set, where the other commands find it
SAID = ('Note:', 'Warning:')  # lines of a step that its user has to see
STOP_SECONDS = 60.0  # that a step has to save its state when it is interrupted
# Time of the steps in that of one picture of the image generator, a frame; measured on the demo.
PICTURES_PER_OPTIMISED_FRAME = 100
PICTURES_PER_ENCODED_FRAME = 3
PICTURES_PER_PASTED_FRAME = 3
PICTURES_OF_TUNING = 50_000  # 1000 steps of 16, forward and backward; it mostly stops before
# A training whose maker was killed would run on, unseen: the kernel ends it (PR_SET_PDEATHSIG, SIGTERM), and it saves its state.
END_WITH_PARENT = (
    'import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])'
)
SECONDS_PER_KIMG = 0.06  # training does not depend on the image generator
SECONDS_AROUND_TRAINING = 20  # compiling, fitting the space, finding the burn-in
SECONDS_TO_START = 8  # every command loads its libraries and networks


@dataclasses.dataclass
class Step:
    """One command.

    Attributes:
        name: What it does, for messages.
        command: Of layout.COMMANDS.
        arguments: Made when it begins: they may depend on earlier steps.
        is_done: Whether it is finished already.
        estimate: Seconds that it may take.
    """

    name: str
    command: str
    arguments: Callable[[], list[str]]
    is_done: Callable[[], bool]
    estimate: float


def plan(options: types.SimpleNamespace, found: FirstLook) -> list[Step]:
    """The steps of these options."""
    out = options.outdir
    latents, videos, pasted = (os.path.join(out, name) for name in (LATENTS, VIDEOS, PASTED))
    shared = [f'--device={options.device}', *(['--trust-pickle'] if options.trust_pickle else [])]
    network = command_line.absolute(options.network)
    cost = found.seconds_per_picture
    frames = round(options.seconds * 30)

    def embed() -> list[str]:
        words = [f'--network={network}', f'--dest={latents}', f'--align={found.align}', *shared]
        words += [f'--source={source}' for source in options.source]
        words += [f'--{name}={value:g}' for name, value in (('start', options.start), ('end', options.end)) if value is not None]
        words += [f'--encoder={options.encoder}'] if options.encoder else []
        return words + (['--refine'] if options.refine else [])

    def train() -> list[str]:
        words = [f'--data={latents}', f'--outdir={os.path.join(out, RUNS)}', f'--network={network}', f'--preset={options.preset}']
        words += ['--force-data'] if options.force_data else []
        return [*words, f'--kimg={kimg_of(options):g}', *shared]

    def generate() -> list[str]:
        run = os.path.join(out, RUNS, 'RUN') if options.dry_run else newest_run(out)
        words = [f'--network={run}', f'--outdir={videos}', f'--seeds=0-{options.videos - 1}', '--skip-existing']
        return [*words, f'--seconds={options.seconds:g}', *shared]

    per_frame = PICTURES_PER_OPTIMISED_FRAME if options.refine or not options.encoder else PICTURES_PER_ENCODED_FRAME
    steps = [
        Step(
            'embedding',
            'embed_video',
            embed,
            lambda: os.path.exists(latents),
            SECONDS_TO_START + per_frame * cost * max(found.num_frames, 1),
        ),
        # A training that is finished says so itself within seconds, and one that is not goes on.
        Step(
            'training',
            'train_video',
            train,
            lambda: False,
            SECONDS_TO_START + SECONDS_AROUND_TRAINING + SECONDS_PER_KIMG * kimg_of(options),
        ),
        Step('generating', 'generate_video', generate, lambda: False, SECONDS_TO_START + cost * frames * options.videos),
    ]
    if options.tune:
        tuned = os.path.join(out, TUNED)

        def tune() -> list[str]:
            return [f'--data={latents}', f'--outdir={os.path.join(out, TUNING_RUNS)}', f'--network={network}', shared[0]]

        estimate = SECONDS_TO_START + PICTURES_OF_TUNING * cost
        steps.insert(1, Step('tuning', 'tune_generator', tune, lambda: os.path.isfile(tuned), estimate))
    if options.paste:
        for seed in range(options.videos):
            crops, dest = os.path.join(videos, f'seed{seed:04d}.mp4'), os.path.join(pasted, f'seed{seed:04d}.mp4')

            def paste(crops: str = crops, dest: str = dest) -> list[str]:
                clip = 'NAME' if options.dry_run else longest_clip(latents)
                words = [f'--data={latents}', f'--crops={crops}', f'--dest={dest}', f'--clip={clip}']
                return [*words, '--overwrite', *shared]

            def is_done(crops: str = crops, dest: str = dest) -> bool:
                return os.path.isfile(dest) and os.path.getmtime(dest) >= os.path.getmtime(crops)

            steps.append(
                Step('pasting', 'paste_video', paste, is_done, SECONDS_TO_START + PICTURES_PER_PASTED_FRAME * cost * frames)
            )
    return steps


def kimg_of(options: types.SimpleNamespace) -> float:
    """Length of the training."""
    default = next(field.default for field in dataclasses.fields(TrainingOptions) if field.name == 'total_kimg')
    return float(options.kimg or PRESETS[options.preset].get('total_kimg', default))


def newest_run(outdir: str) -> str:
    """The run folder of the training.

    Raises:
        InputError: There is none.
    """
    folder = os.path.join(outdir, RUNS)
    names = {name.split('-', 1)[1] for name in (os.listdir(folder) if os.path.isdir(folder) else []) if '-' in name}
    for name in names:
        for path in run_folders(folder, name):
            return path
    raise InputError(f'{folder} holds no run of train_video.py; remove {outdir} and run the command again')


def longest_clip(latents: str) -> str:
    """Name of the clip with most frames."""
    from training.latents.dataset import LatentDataset

    with LatentDataset(latents) as dataset:
        return max(dataset.clips, key=lambda clip: clip.num_frames).name


# ----------------------------------------------------------------------------
# Running.


class StepLog:
    """All that the steps say, at the end of a file; a full disk leaves a gap in it, and stops no step.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = open(path, 'a', encoding='utf-8')  # noqa: SIM115 - open as long as the steps

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def write(self, text: str) -> None:
        """Add text."""
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Bring what was added into the file."""
        with contextlib.suppress(OSError):
            self._file.flush()


def run_step(step: Step, number: int, count: int, status: Status, log: StepLog, total_kimg: float) -> None:
    """Run one step to its end.

    Raises:
        InputError: It failed; the sentence names the step.
        KeyboardInterrupt: It was interrupted; its state is saved.
    """
    where = f'step {number + 1} of {count} ({step.name})'
    words = layout.start_again(__name__, step.command, [layout.PACKAGE, step.command, *step.arguments()])
    log.write(f'\n$ {" ".join(words)}\n')
    log.flush()
    error = ''
    with _started(words) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.rstrip('\n')
            log.write(line + '\n')
            part = part_done(line, total_kimg)
            if part is not None:
                status.update(part)
            elif line.startswith('Error: '):
                error = line.removeprefix('Error: ')
            elif line.startswith(SAID):
                command_line.report(line)
            else:
                continue
            log.flush()
        code = process.wait()
    log.flush()
    if code in (command_line.EXIT_INTERRUPTED, *(128 + number for number in stop_signals.SIGNALS)):
        raise KeyboardInterrupt
    if code < 0:
        raise InputError(f'{where}: its process was ended by {signal.Signals(-code).name}, perhaps because memory ran out')
    if code:
        raise InputError(f'{where}: {error or f"it failed, and {log.path} says how"}')


def _environment() -> dict[str, str]:
    """That of a step: one process, also where torchrun has started this command."""
    ours = {name: value for name, value in os.environ.items() if name not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')}
    return {**ours, 'PYTHONUNBUFFERED': '1'}


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Any:
    """A command of ours whose words can be read; it is interrupted with this process, once, and gets time to save its state."""
    # In a session of its own: Ctrl-C would reach it twice otherwise, and the second signal ends a command at once.
    process = subprocess.Popen(
        [sys.executable, '-c', END_WITH_PARENT, *command] if sys.platform == 'linux' else [sys.executable, *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace',
        env=_environment(), start_new_session=True,
        creationflags=getattr(subprocess, 'CREATE_NEW_PROCESS_GROUP', 0),
    )  # fmt: skip
    try:
        yield process
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(getattr(signal, 'CTRL_BREAK_EVENT', signal.SIGINT))  # Windows has no other for a process
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
