"""Trains a temporal GAN on the W+ codes of footage: a latent data set in, a run folder with snapshots out."""

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import click

from networks.errors import InputError
from stylevideogan import layout
from training import command_line, command_options, option_tree
from training.file_names import safe_name, stem
from training.run_folder import Log, make_run_dir
from training.temporal_options import HEADINGS, PRESETS, Invocation, TrainingOptions

INTERRUPTED = 'interrupted; --resume=RUN_FOLDER goes on from its last training state'


@command_line.command()
@command_options.from_trees(Invocation, TrainingOptions, headings=HEADINGS)
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**values: Any) -> None:
    """Train a temporal GAN on the motion of one subject.

    A run folder is made in --outdir; interrupted runs go on with --resume. What the command line says comes before
    --preset or --options, and these come before the defaults.

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
    train(invocation, command_options.chosen(TrainingOptions, values))


OPTIONS_FILE = 'training_options.json'


def read_options(path: str) -> TrainingOptions:
    """The options that a run recorded.

    Raises:
        InputError: It is no such file.
    """
    try:
        with open(path, encoding='utf-8') as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f'{path} cannot be read; give the {OPTIONS_FILE} of a run as it was written') from error
    return option_tree.from_dict(TrainingOptions, values, path)


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
    settings = options.settings
    if settings.batch % options.num_gpus:
        raise command_line.UserMistake(
            f'--batch={settings.batch} cannot be shared evenly by --gpus={options.num_gpus}; choose a multiple'
        )
    if invocation.desc and not re.fullmatch(r'[\w.+-]+', invocation.desc):
        raise command_line.UserMistake(f'--desc={invocation.desc!r} goes into a folder name: letters, digits, and . _ + - only')
    shown = settings.batch * settings.critic_steps * options.window
    if options.total_kimg * 1000 < shown:
        raise command_line.UserMistake(
            f'--kimg={options.total_kimg:g} is less than one step, which shows {shown} frames; give more'
        )
    if settings.carry < 1 and max(settings.strides) > 1:
        raise command_line.UserMistake(
            f'--strides={",".join(map(str, settings.strides))} looks back on what came before a window, and with --carry='
            f'{settings.carry:g} some windows are beginnings; add --strides=1'
        )


def look_at_data(options: TrainingOptions, *, given_network: bool) -> TrainingOptions:
    """Settle what depends on the data set and on where files are: absolute paths, the image generator, `reversal`.

    Args:
        options: What was chosen.
        given_network: Whether the command line names the image generator; a recorded one may have moved since.
    """
    from networks.checkpoints.image_generator_lookup import OptionNames, find_image_generator, is_address, local_file
    from training.latent_space import default_reversal
    from training.latents.dataset import LatentDataset

    network, reversal = options.network, options.settings.reversal
    if network is not None and not given_network and not is_address(network) and not os.path.isfile(network):
        network = None  # where another run had it; the data set knows more places
    with LatentDataset(options.data) as dataset:
        if reversal is None:
            reversal = default_reversal(dataset)
        if network is None:
            network = find_image_generator(dataset.image_generator, snapshot=options.data, options=OptionNames('--network'))
    if not is_address(network):
        if not os.path.isfile(network):
            raise InputError(f'--network: there is no file {network!r}')
        network = os.path.abspath(network)
    return option_tree.override(
        options,
        {
            'data': os.path.abspath(options.data),
            'network': network,
            'settings.reversal': reversal,
            'plugins': [os.path.abspath(path) for path in options.plugins],
            'detectors': [os.path.abspath(local_file(source)) for source in options.detectors],
        },
    )


def find_run_to_resume(resume: str) -> tuple[str, str]:
    """The run folder and its latest training state."""
    from training.temporal_snapshot import latest_training_state

    if os.path.isdir(resume):
        state = latest_training_state(resume)
        if state is None:
            raise InputError(f'{resume} holds no training-state-*.pt, so there is nothing to go on from; start anew')
        return resume, state
    if not os.path.isfile(resume):
        raise InputError(f'--resume: there is no run folder or file {resume!r}')
    return os.path.dirname(os.path.abspath(resume)), resume


def start_torchrun(num_ranks: int) -> None:
    """Replace this process by torchrun with `num_ranks` ranks of the same command on this machine."""
    arguments = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        f'--nproc-per-node={num_ranks}',
        *layout.start_again(command_line.__name__, 'train_video', sys.argv),
    ]
    command_line.report(f'Starting {shlex.join(arguments[1:])}')
    os.execv(sys.executable, arguments)


@contextlib.contextmanager
def distributed(device_name: str) -> Iterator[tuple[int, Any]]:
    """Join the ranks that torchrun started; yields (rank, device)."""
    import torch

    from torch_utils import training_stats

    num_ranks = int(os.environ.get('WORLD_SIZE', '1'))
    if num_ranks == 1:
        yield 0, command_line.choose_device(device_name)
        return
    name = device_name
    if name in ('auto', 'cuda'):
        name = f'cuda:{os.environ.get("LOCAL_RANK", "0")}' if torch.cuda.is_available() else 'cpu'
    device = command_line.choose_device(name)
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    torch.distributed.init_process_group('nccl' if device.type == 'cuda' else 'gloo')
    rank = torch.distributed.get_rank()
    training_stats.init_multiprocessing(rank, device)
    try:
        yield rank, device
    finally:
        torch.distributed.destroy_process_group()


def train(invocation: Invocation, given: dict[str, Any]) -> None:
    """Carry out `main`; `given` are the training options of the command line, by path."""
    resumed = find_run_to_resume(invocation.resume) if invocation.resume else None
    if resumed is not None:
        options = options_of_resumed_run(resumed[0], invocation, given)
    else:
        options = options_of_new_run(invocation, given)
    check_options(invocation, options)
    options = look_at_data(options, given_network='network' in given)
    if int(os.environ.get('RANK', '0')) == 0:
        print('Training options:')
        print(json.dumps(option_tree.to_dict(options), indent=2))
    if invocation.dry_run:
        print('Dry run; exiting.')
        return
    launched = 'WORLD_SIZE' in os.environ
    if launched and int(os.environ['WORLD_SIZE']) != options.num_gpus:
        raise command_line.UserMistake(f'torchrun started {os.environ["WORLD_SIZE"]} processes; say so with --gpus as well')
    if not launched and options.num_gpus > 1:
        start_torchrun(options.num_gpus)
    run(invocation, options, resumed)


def run_name(options: TrainingOptions, desc: str | None) -> str:
    """What the run folder is called after its number."""
    return f'{safe_name(stem(options.data))}-gpus{options.num_gpus}-batch{options.settings.batch}' + (f'-{desc}' if desc else '')


def run(invocation: Invocation, options: TrainingOptions, resumed: tuple[str, str] | None) -> None:
    """Train on this rank."""
    import torch

    from training.temporal_metrics import prepare_metrics
    from training.temporal_training_loop import TemporalTraining

    calc_metric = prepare_metrics(options.metrics, options.plugins, options.data, options.detectors)
    with distributed(invocation.device) as (rank, device), contextlib.ExitStack() as stack:
        if device.type == 'cuda':
            torch.backends.cudnn.benchmark = False  # the fastest algorithm of the moment is not always the same
        training = TemporalTraining(
            run_dir='',
            options=options,
            device=device,
            rank=rank,
            num_ranks=options.num_gpus,
            resume=resumed[1] if resumed else None,
            calc_metric=calc_metric,
        )
        if rank == 0:  # only now, when all input is validated, something is written
            if resumed:
                training.run_dir = resumed[0]
            else:
                command_line.require_folder(str(invocation.outdir))
                training.run_dir = make_run_dir(str(invocation.outdir), run_name(options, invocation.desc))
            with open(os.path.join(training.run_dir, OPTIONS_FILE), 'w', encoding='utf-8') as file:
                json.dump(option_tree.to_dict(options), file, indent=2)
            stack.enter_context(Log(training.run_dir))
            print(f'Output folder: {training.run_dir}')
        finished = training.run()
    if not finished:
        raise KeyboardInterrupt


if __name__ == '__main__':
    main()
