"""What make_video.py does once its options are read."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import time
import types
from typing import Any

from networks.checkpoints.durable_files import replacing
from networks.errors import DAMAGED_FILE, InputError
from training.commands import command_line
from training.commands.file_names import safe_name, stem
from training.commands.work import differences
from training.making.first_look import FirstLook, look
from training.making.status import Status, in_words
from training.making.steps import LATENTS, LOG, PASTED, VIDEOS, StepLog, kimg_of, newest_run, plan, run_step
from training.runs.locks import Lock

RECORD = 'make.json'  # options of the first two steps, what was found before them, and how long each step took
# Options that decide the data set and the model: a folder holds one of each.
# One that is added needs a line in UNSAID: what results of earlier versions, which do not record it, were made with.
DECIDING = ('source', 'network', 'encoder', 'refine', 'align', 'start', 'end', 'preset', 'kimg')
UNSAID: dict[str, Any] = {}


def make(options: types.SimpleNamespace) -> None:
    """Carry out make_video.py; `options` has its arguments as attributes.

    Raises:
        InputError: One sentence; of a step, it says which.
        KeyboardInterrupt: Interrupted; the same command goes on.
    """
    _check(options)
    options.outdir = command_line.require_folder(options.outdir or f'{safe_name(stem(options.source[0]))}-video')
    with Lock(os.path.join(options.outdir, '.make.lock'), f'--outdir: {options.outdir}'):
        record = _Record(options)
        found = record.first_look()
        steps = plan(options, found)
        if options.dry_run:
            for number, step in enumerate(steps):
                command_line.report(f'{number + 1}. {step.command}.py {shlex.join(step.arguments())}')
            return
        command_line.report(f'Alignment: {found.align} ({found.why})')
        status = Status([step.name for step in steps], [0.0 if step.is_done() else step.estimate for step in steps])
        began = time.monotonic()
        try:
            with StepLog(os.path.join(options.outdir, LOG)) as log:
                for number, step in enumerate(steps):
                    if step.is_done():
                        continue
                    begin = time.monotonic()
                    status.begin(number)
                    run_step(step, number, len(steps), status, log, kimg_of(options))
                    status.end()
                    record.add_seconds(step.name, time.monotonic() - begin)
        finally:
            status.close()
    _say_results(options, time.monotonic() - began)


def _check(options: types.SimpleNamespace) -> None:
    for source in options.source:
        if not os.path.exists(source):
            raise InputError(f'--source: there is no file or folder {source!r}')
    if options.refine and not options.encoder:
        raise InputError('--refine improves the codes of an encoder; give one by --encoder, or leave --refine out')
    if options.end is not None and options.end <= (options.start or 0):
        raise InputError(f'--end: the part from {options.start or 0:g} s to {options.end:g} s is empty')


class _Record:
    """make.json in the result folder."""

    def __init__(self, options: types.SimpleNamespace) -> None:
        self._path = os.path.join(options.outdir, RECORD)
        self._options = options
        wanted = json.loads(json.dumps({name: _identity(getattr(options, name)) for name in DECIDING}))
        self._content: dict[str, Any] = {'options': wanted, 'seconds': {}}
        try:
            with open(self._path, encoding='utf-8') as file:
                before = json.load(file)
        except (FileNotFoundError, *DAMAGED_FILE):
            return
        if not (isinstance(before, dict) and all(isinstance(before.get(key), dict) for key in self._content)):
            return  # damaged
        other = differences(before['options'], wanted, UNSAID)
        if other:
            what = f' (--{other[0]})' if other[0] in DECIDING else ', of another version'  # which has more of them
            raise InputError(
                f'--outdir: {options.outdir} holds a result of other options{what}; give the same ones to go on, or '
                'choose another folder'
            )
        self._content = before
        times = before['seconds']
        before['seconds'] = {name: value for name, value in times.items() if _is_number(value)}

    def first_look(self) -> FirstLook:
        """What was found before the first step; by an earlier run if there was one."""
        known = self._content.get('found')
        if known is not None:
            with contextlib.suppress(TypeError):  # damaged
                found = FirstLook(**known)
                if _is_number(found.num_frames) and _is_number(found.seconds_per_picture) and found.align in ('ffhq', 'center'):
                    return dataclasses.replace(found, num_frames=int(found.num_frames), why=str(found.why))
        command_line.report('Looking at the footage and the generator')
        found = look(self._options)
        self._content['found'] = vars(found)
        self._save()
        return found

    def add_seconds(self, name: str, seconds: float) -> None:
        """A step took so long in this run."""
        times = self._content['seconds']
        times[name] = round(times.get(name, 0) + seconds, 1)
        with contextlib.suppress(OSError):  # a full disk: the step is done, and that is what counts
            self._save()

    def _save(self) -> None:
        with replacing(self._path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
            json.dump(self._content, file, indent=2)
            file.write('\n')


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < 1e12


def _identity(value: object) -> Any:
    """A value of an option; a file with its size and time, so that another file under its name is noticed."""
    if isinstance(value, (list, tuple)):
        return [_identity(entry) for entry in value]
    if isinstance(value, str) and os.path.isfile(value):
        status = os.stat(value)
        return [os.path.abspath(value), status.st_size, status.st_mtime_ns]
    return os.path.abspath(value) if isinstance(value, str) and os.path.isdir(value) else value


def _say_results(options: types.SimpleNamespace, seconds: float) -> None:
    out = options.outdir
    lines = [f'Done in {in_words(seconds)}. The results:', f'  {os.path.join(out, VIDEOS)}  new video']
    if options.paste:
        lines.append(f'  {os.path.join(out, PASTED)}  the same in the recording')
    report = os.path.join(out, f'{os.path.splitext(LATENTS)[0]}-report', 'index.html')
    if os.path.isfile(report):
        lines.append(f'  {report}  how well the footage was embedded')
    lines += [f'  {newest_run(out)}  the trained model', 'More video of it, of any length:']
    lines.append(f'  python generate_video.py --network={newest_run(out)} --outdir={out}/more --seeds=0-9 --seconds=60')
    for line in lines:
        command_line.report(line)
