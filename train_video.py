"""Trains a temporal GAN on the W+ codes of footage: a latent data set in, a run folder with snapshots out."""

import contextlib
import dataclasses
import json
import os
import re
import signal
from collections.abc import Collection
from typing import Any

import click

from networks.checkpoints.addresses import is_address
from networks.checkpoints.durable_files import remove_leftovers, replacing
from networks.errors import InputError
from training.commands import command_line, command_options, option_tree, stop_signals
from training.commands.file_names import safe_name, stem
from training.runs import claims, ranks
from training.runs.locks import Lock
from training.runs.run_folder import Log, make_run_dir, remove_if_empty
from training.temporal_options import HEADINGS, PRESETS, Invocation, TrainingOptions

INTERRUPTED = 'interrupted; the same command goes on from the last training state'


@command_line.command(shares_work=True)
@command_options.from_trees(Invocation, TrainingOptions, headings=HEADINGS)
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**values: Any) -> str | None:
    """Train a temporal GAN on the motion of one subject.

    A run folder is made in --outdir, and the same command given again goes on with a run that was interrupted. What the
    command line says comes before --preset or --options, and these come before the defaults.

    Examples:

    \b
    # Train on embedded footage.
    python train_video.py --outdir=training-runs --data=latents.zip --network=ffhq.pkl

    \b
    # As in the paper, on the same footage.
    python train_video.py --outdir=training-runs --data=latents.zip --preset=paper

    \b
    # Go on after an interruption.
    python train_video.py --resume=training-runs/00000-latents-gpus1-batch64

    \b
    # The options of another run, and a longer window.
    python train_video.py --outdir=training-runs --options=training-runs/00000-latents-gpus1-batch64/training_options.json \\
        --window=50

    \b
    # Eight GPUs, or several machines.
    python train_video.py --outdir=training-runs --data=latents.zip --gpus=8
    torchrun --nnodes=4 --nproc-per-node=8 train_video.py --outdir=training-runs --data=latents.zip --gpus=32
    """
    invocation = option_tree.build(Invocation, command_options.chosen(Invocation, values))
    return train(invocation, command_options.chosen(TrainingOptions, values))  # for who calls it from Python


OPTIONS_FILE = 'training_options.json'


def read_options(path: str) -> TrainingOptions:
    """The options that a run recorded.

    Raises:
        InputError: It is no such file.
    """
    return read_record(path)[0]


def read_record(path: str) -> tuple[TrainingOptions, set[str]]:
    """As `read_options`, with the paths of those options that an older version did not know."""
    try:
        with open(path, encoding='utf-8') as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f'{path} cannot be read; give the {OPTIONS_FILE} of a run as it was written') from error
    return option_tree.from_dict(TrainingOptions, values, path), option_tree.unrecorded(TrainingOptions, values)


def chosen_options(invocation: Invocation, given: dict[str, Any]) -> set[str]:
    """Paths of the options that the command line, --preset or --options decides."""
    chosen = set(given)
    if invocation.options is not None:
        chosen |= {leaf.path for leaf in option_tree.leaves(TrainingOptions)} - read_record(invocation.options)[1]
    elif invocation.preset is not None:
        chosen |= set(PRESETS[invocation.preset])
    return chosen


def options_of_new_run(invocation: Invocation, given: dict[str, Any]) -> TrainingOptions:
    """Defaults, then --preset or --options, then what the command line says."""
    values: dict[str, Any] = {}
    if invocation.outdir is None:
        raise click.UsageError("Missing option '--outdir'.")
    if invocation.preset is not None and invocation.options is not None:
        raise command_line.UserMistake('--preset and --options are both a set of options to start from; give one of them')
    if invocation.options is not None:
        recorded = read_options(invocation.options)
        refused = []
        for leaf in option_tree.leaves(TrainingOptions):
            value = option_tree.get(recorded, leaf.path)
            if not leaf.declared.consent:
                values[leaf.path] = value
            elif value != leaf.default and leaf.path not in given:
                refused.append(str(leaf.flag))
        if refused:
            command_line.report(
                f'{invocation.options}: {", ".join(refused)} would run program code, so it is not taken from a '
                'file; say it on the command line if you trust that code'
            )
    elif invocation.preset is not None:
        values.update(PRESETS[invocation.preset])
    values.update(given)
    if 'data' not in values:
        raise click.UsageError("Missing option '--data'.")
    return option_tree.build(TrainingOptions, values)


def options_of_resumed_run(run_dir: str, invocation: Invocation, given: dict[str, Any]) -> TrainingOptions:
    """Those that the run began with, but for the ones that may change; names what of the command is ignored."""
    try:
        recorded = read_options(os.path.join(run_dir, OPTIONS_FILE))
    except InputError as error:
        raise InputError(f'{error}; a run can only go on from its run folder') from error
    wanted = {**PRESETS[invocation.preset or 'default'], **given}
    if invocation.options is not None:
        other = read_options(invocation.options)
        wanted = {**{leaf.path: option_tree.get(other, leaf.path) for leaf in option_tree.leaves(TrainingOptions)}, **given}
    values, ignored = {}, []
    for leaf in option_tree.leaves(TrainingOptions):
        before = option_tree.get(recorded, leaf.path)
        if leaf.declared.resumed == 'fixed':
            values[leaf.path] = before
            if leaf.path in wanted and leaf.flag is not None:
                now = option_tree.get(option_tree.override(recorded, {leaf.path: wanted[leaf.path]}), leaf.path)
                if now is not None and now != before:
                    ignored.append((command_options.describe(leaf, now), command_options.describe(leaf, before)))
        elif leaf.path in given:
            values[leaf.path] = given[leaf.path]
        elif leaf.declared.resumed == 'kept':
            values[leaf.path] = before
    if ignored:
        command_line.report(
            'The run goes on with the model, losses and seed that it began with; ignored: '
            + ', '.join(f'{now} (the run has {before})' for now, before in ignored)
        )
    return option_tree.build(TrainingOptions, values)


def check_options(invocation: Invocation, options: TrainingOptions) -> None:
    """Refuse what cannot be, before anything is loaded."""
    from training.real_windows import SUITED_TO_LONG_FOOTAGE

    settings = options.settings
    if settings.batch % options.num_gpus:
        raise command_line.UserMistake(
            f'--batch={settings.batch} cannot be shared evenly by --gpus={options.num_gpus}; choose a multiple'
        )
    if settings.batch_gpu is not None and settings.batch % (settings.batch_gpu * options.num_gpus):
        raise command_line.UserMistake(
            f'--batch={settings.batch} cannot be shared by --gpus={options.num_gpus} in portions of '
            f'--batch-gpu={settings.batch_gpu}; choose a multiple of their product'
        )
    if invocation.desc and not re.fullmatch(r'[\w.+-]+', invocation.desc):
        raise command_line.UserMistake(f'--desc={invocation.desc!r} goes into a folder name: letters, digits, and . _ + - only')
    if settings.distortion and options.latent_space.full:
        raise command_line.UserMistake('--distortion needs principal components; leave out it or --full-codes')
    strides = SUITED_TO_LONG_FOOTAGE.strides if settings.strides is None else settings.strides
    if settings.carry < 1 and max(strides) > 1:
        raise command_line.UserMistake(
            f'--strides={",".join(map(str, strides))} looks back on what came before a window, and with --carry='
            f'{settings.carry:g} some windows are beginnings; add --strides=1'
        )


def look_at_data(options: TrainingOptions, *, given_network: bool, force_data: bool = False) -> TrainingOptions:
    """Settle what depends on the data set and on where files are: absolute paths, the image generator, some settings.

    Args:
        options: What was chosen.
        given_network: Whether the command line names the image generator; a recorded one may have moved since.
        force_data: Take codes that do not draw their footage, too.

    Raises:
        InputError: A file is not there, or the codes do not draw their footage.
        UserMistake: --kimg is less than one step.
    """
    from networks.checkpoints.image_generator_lookup import OptionNames, find_image_generator, local_file
    from training.embedding import judgement
    from training.latents.dataset import LatentDataset
    from training.real_windows import suited_settings

    network = options.network
    if network is not None and not given_network and not is_address(network) and not os.path.isfile(network):
        network = None  # where another run had it; the data set knows more places
    with LatentDataset(options.data) as dataset:
        refused = None if force_data else judgement.refusal(options.data, dataset.quality)
        if refused is not None:
            raise InputError(refused)
        suited = dataclasses.asdict(suited_settings(dataset, components=not options.latent_space.full))
        if network is None:
            network = find_image_generator(dataset.image_generator, snapshot=options.data, options=OptionNames('--network'))
    if not is_address(network):
        if not os.path.isfile(network):
            raise InputError(f'--network: there is no file {network!r}')
        network = os.path.abspath(network)
    settled = option_tree.override(
        options,
        {
            'data': os.path.abspath(options.data),
            'network': network,
            **{f'settings.{name}': value for name, value in suited.items() if getattr(options.settings, name) is None},
            'plugins': [os.path.abspath(path) for path in options.plugins],
            'detectors': [os.path.abspath(local_file(source)) for source in options.detectors],
        },
    )
    shown = settled.settings.batch * (settled.settings.critic_steps or 1) * settled.window
    if settled.total_kimg * 1000 < shown:
        raise command_line.UserMistake(
            f'--kimg={settled.total_kimg:g} is less than one step, which shows {shown} frames; give more'
        )
    return settled


def find_run_to_resume(resume: str) -> tuple[str, str | None]:
    """The run folder and its latest training state; None where the run ended before its first one."""
    from training.temporal_snapshot import latest_training_state

    if os.path.isdir(resume):
        if not os.path.isfile(os.path.join(resume, OPTIONS_FILE)):
            raise InputError(f'--resume: {resume} is no run folder of train_video.py, because it holds no {OPTIONS_FILE}')
        return resume, latest_training_state(resume)
    if not os.path.isfile(resume):
        raise InputError(f'--resume: there is no run folder or file {resume!r}')
    return os.path.dirname(os.path.abspath(resume)), resume


def train(invocation: Invocation, given: dict[str, Any]) -> str | None:
    """Carry out `main`; `given` are the training options of the command line, by path. The run folder, None of a dry run."""
    resumed: tuple[str, str | None] | None = None
    if invocation.resume and (invocation.resume.lower().endswith('.pkl') or is_address(invocation.resume)):
        command_line.require_weights(invocation.resume, '--resume')
        given = {**given, 'resume_pkl': command_line.absolute(invocation.resume)}
    elif invocation.resume:
        resumed = find_run_to_resume(invocation.resume)
    if ranks.launched():
        given = {**given, 'num_gpus': ranks.settle_number(given.get('num_gpus'))}
    if resumed is not None:
        options = options_of_resumed_run(resumed[0], invocation, given)
    else:
        options = options_of_new_run(invocation, given)
    check_options(invocation, options)
    options = look_at_data(options, given_network='network' in given, force_data=invocation.force_data or resumed is not None)
    if int(os.environ.get('RANK', '0')) == 0:
        print('Training options:')
        print(json.dumps(option_tree.to_dict(options), indent=2))
    if invocation.dry_run:
        print('Dry run; exiting.')
        return None
    ranks.start_unless_launched(options.num_gpus, 'train_video')
    return run(invocation, options, resumed, chosen_options(invocation, given))


def run_name(options: TrainingOptions, desc: str | None) -> str:
    """What the run folder is called after its number."""
    return f'{safe_name(stem(options.data))}-gpus{options.num_gpus}-batch{options.settings.batch}' + (f'-{desc}' if desc else '')


def claim_unfinished_run(
    outdir: str, name: str, options: TrainingOptions, chosen: set[str]
) -> tuple[str, str | None, Lock | None] | None:
    """The newest run in `outdir` with these options that nobody works on, and its lock.

    Args:
        outdir: Folder of run folders.
        name: As of `run_name`.
        options: What is wanted.
        chosen: Paths of those that the user has chosen; others may be missing in the record of a run.

    Returns:
        Its folder, its latest training state (None where it ended before the first one) and the lock of the folder; no lock where
        the run has come to its end; None where there is no such run.
    """
    from training import unfinished_runs  # here, because torch takes seconds that --help need not spend

    def recorded(folder: str) -> TrainingOptions:
        return read_options(os.path.join(folder, OPTIONS_FILE))

    def is_finished(folder: str) -> bool:
        return unfinished_runs.is_finished(folder, recorded(folder).total_kimg, recorded(folder).metrics)

    def others(folder: str) -> list[str]:
        before, unrecorded = read_record(os.path.join(folder, OPTIONS_FILE))
        kept = set() if is_finished(folder) else unrecorded - chosen  # one that is finished is none of today's
        return command_options.differences(before, command_options.as_begun(options, before, kept))

    claim = claims.claim_run(outdir, name, others, is_finished)
    if claim is None:
        return None
    return claim.folder, unfinished_runs.last_good_state(claim.folder) if claim.lock else None, claim.lock


def run(invocation: Invocation, options: TrainingOptions, resumed: tuple[str, str | None] | None, chosen: set[str]) -> str:
    """Train on this rank, and return the run folder; `chosen` as of `claim_unfinished_run`."""
    import torch

    from torch_utils import training_stats
    from training.temporal_metrics import prepare_metrics
    from training.temporal_training_loop import TemporalTraining

    calc_metric = prepare_metrics(options.metrics, options.plugins, options.data, options.detectors)
    name, finished_run = run_name(options, invocation.desc), ''
    unrecorded: set[str] = set()
    with ranks.joined(invocation.device) as ours, contextlib.ExitStack() as stack:
        if ours.device.type == 'cuda':
            torch.backends.cudnn.benchmark = False  # the fastest algorithm of the moment is not always the same
        if ours.num_ranks > 1:
            training_stats.init_multiprocessing(ours.rank, ours.device)
        with ours.together():
            if ours.is_first and resumed is not None:
                stack.enter_context(claims.wait_for_run(resumed[0]))
                fixed = {leaf.path for leaf in option_tree.leaves(TrainingOptions) if leaf.declared.resumed == 'fixed'}
                unrecorded = read_record(os.path.join(resumed[0], OPTIONS_FILE))[1] & fixed
            elif ours.is_first and not invocation.fresh:
                claimed = claim_unfinished_run(str(invocation.outdir), name, options, chosen)
                if claimed is not None and claimed[2] is not None:
                    stack.enter_context(claimed[2])
                    resumed, wanted = claimed[:2], options
                    before, unrecorded = read_record(os.path.join(claimed[0], OPTIONS_FILE))
                    unrecorded -= chosen
                    options = command_options.as_begun(wanted, before, unrecorded)
                    claims.note_kept(claimed[0], command_options.differences(options, wanted))
                elif claimed is not None:
                    finished_run = claimed[0]
                    command_line.report(f'{finished_run} has these options and is finished; --fresh trains another one')
        resumed, finished_run, options = ours.from_first((resumed, finished_run, options))
        if finished_run:
            return finished_run
        with ours.together():
            training = TemporalTraining(
                run_dir='',
                options=options,
                device=ours.device,
                rank=ours.rank,
                num_ranks=ours.num_ranks,
                resume=resumed[1] if resumed else None,
                calc_metric=calc_metric,
                saving_options=invocation.saving,
            )
        with ours.together():
            if ours.is_first:  # only now, when all input is validated, something is written
                if resumed is not None:
                    training.run_dir = resumed[0]
                    remove_leftovers(training.run_dir)
                else:
                    command_line.require_folder(str(invocation.outdir))
                    training.run_dir = make_run_dir(str(invocation.outdir), name)
                    stack.callback(remove_if_empty, training.run_dir)
                    stack.enter_context(claims.lock_run(training.run_dir))
                write_options(training.run_dir, options, unrecorded)
                stack.enter_context(Log(training.run_dir))
                print(f'Output folder: {training.run_dir}')
        folder = ours.from_first(training.run_dir)
        finished = training.run()
    if not finished:
        raise stop_signals.Stopped(stop_signals.asked() or signal.SIGTERM)
    return folder


def write_options(run_dir: str, options: TrainingOptions, unrecorded: Collection[str] = ()) -> None:
    """Record the options of a run, but for those that its version did not know, unless the file says the same already."""
    path, text = os.path.join(run_dir, OPTIONS_FILE), json.dumps(option_tree.to_dict(options, unrecorded), indent=2)
    with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding='utf-8') as file:
        if file.read() == text:
            return
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.write(text)


if __name__ == '__main__':
    main()
