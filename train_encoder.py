"""Train a W+ encoder for an image generator, so that footage becomes codes in one pass."""

import contextlib
import dataclasses
import json
import os
from typing import Any

import click

from networks.checkpoints.durable_files import remove_leftovers, replacing
from training.commands import command_options, option_tree
from training.commands.command_line import UserMistake, absolute, choose_device, clear_errors, command, report, require_folder
from training.commands.file_names import safe_name, stem
from training.commands.memory import Budget, parse_budget
from training.embedding.encoder_options import HEADINGS, EncoderInvocation, EncoderTrainingOptions
from training.runs import claims, ranks
from training.runs.run_folder import Log, make_run_dir, remove_if_empty


@command(shares_work=True)
@command_options.from_trees(EncoderTrainingOptions, EncoderInvocation, headings=HEADINGS)
@clear_errors(interrupted='interrupted; the same command goes on from the last training state')
def main(**values: Any) -> None:
    """Train a W+ encoder for an image generator.

    It learns from samples that the generator makes, whose codes are known, and, with --data, from reconstructing frames of
    footage. Give the same command again to continue an interrupted run.

    Examples:

    \b
    # A generator alone.
    python train_encoder.py --network=ffhq.pkl --outdir=training-runs
    \b
    # With the footage that will be embedded: codes fit it much better.
    python train_encoder.py --network=faces.pkl --data=recordings/ --outdir=training-runs --kimg=100
    \b
    # Two GPUs.
    python train_encoder.py --network=faces.pkl --data=recordings/ --outdir=training-runs --gpus=2
    \b
    # Adapt an encoder to new footage.
    python train_encoder.py --network=faces.pkl --data=new.mp4 --init=encoder-000100.pkl --outdir=training-runs --kimg=10
    """
    from networks.checkpoints import file_sha256  # here, because torch takes seconds that --help need not spend

    given = command_options.chosen(EncoderTrainingOptions, values)
    for path, known in (('network', given), ('outdir', called := command_options.chosen(EncoderInvocation, values))):
        if path not in known:
            raise click.UsageError(f"Missing option '--{path}'.")
    gpus = ranks.settle_number(called.get('gpus'))
    invocation = option_tree.build(EncoderInvocation, {**called, 'gpus': gpus})
    options = option_tree.build(EncoderTrainingOptions, given)
    if options.batch_size < 2 and options.data:
        raise UserMistake('--batch: frames and generated samples need a batch of at least 2')
    if options.batch_size % gpus:
        raise UserMistake(f'--batch={options.batch_size} cannot be shared evenly by --gpus={gpus}; choose a multiple')
    _budget(invocation)
    if gpus == 1:
        choose_device(invocation.device)
    options = dataclasses.replace(
        options,
        network=absolute(options.network),
        network_sha256=file_sha256(options.network),
        data=tuple(os.path.abspath(path) for path in options.data),
        init=absolute(options.init) if options.init else None,
        lpips_weights=absolute(options.lpips_weights) if options.lpips_weights else None,
        max_frame_bytes=invocation.frame_memory << 20,
    )
    _check_inputs(options)
    if not ranks.launched() or os.environ['RANK'] == '0':
        print('\nTraining options:')
        print(json.dumps(options.recorded(), indent=2))
    if invocation.dry_run:
        print('Dry run; exiting.')
        return
    ranks.start_unless_launched(gpus, 'train_encoder')
    run(options, invocation, set(given))


def _budget(invocation: EncoderInvocation) -> Budget:
    try:
        return parse_budget(invocation.memory)
    except ValueError as error:
        raise UserMistake(f'--memory: {error}') from error


def _check_inputs(options: EncoderTrainingOptions) -> None:
    """Find what is wrong with the files before anything is written."""
    from networks.checkpoints import load_encoder
    from networks.checkpoints.detector_weights.lpips_weights import read_weights
    from training.footage.clips import open_footage

    if options.perceptual != 'none':
        read_weights(options.perceptual, options.lpips_weights)
    if options.init:
        load_encoder(options.init)
    if options.data:
        open_footage(options.data, keep_damaged=options.damaged == 'keep', skip_damaged=options.damaged == 'skip')


def _as_begun(options: EncoderTrainingOptions, run_dir: str, chosen: set[str]) -> EncoderTrainingOptions:
    """These options for going on with a run: what an older version did not know, and nobody has chosen, is as it was without."""
    from training.embedding import encoder_training

    before, unrecorded = encoder_training.read_record(run_dir)
    if encoder_training.finished_encoder(run_dir) is not None:
        return options  # one that is finished is none of today's
    return command_options.as_begun(options, before, unrecorded - chosen)


def run(options: EncoderTrainingOptions, invocation: EncoderInvocation, chosen: set[str]) -> None:
    """Train on this rank; `chosen` are the paths of the options that the command line gives."""
    from torch_utils import training_stats
    from training.embedding import encoder_training

    name = (
        f'encoder-{safe_name(stem(options.network.split("?")[0]))}{"-frames" if options.data else ""}-batch{options.batch_size}'
    )
    if invocation.desc:
        name += '-' + safe_name(invocation.desc)
    with ranks.joined(invocation.device) as ours, contextlib.ExitStack() as stack:
        if ours.num_ranks > 1:
            training_stats.init_multiprocessing(ours.rank, ours.device)
        run_dir, state, finished = '', None, None
        with ours.together():
            if ours.is_first and not invocation.fresh:
                claim = claims.claim_run(
                    invocation.outdir,
                    name,
                    lambda folder: command_options.differences(
                        encoder_training.read_options(folder), _as_begun(options, folder, chosen)
                    ),
                    lambda folder: encoder_training.finished_encoder(folder) is not None,
                )
                if claim is not None and claim.lock is not None:
                    stack.enter_context(claim.lock)
                    run_dir, state, wanted = claim.folder, encoder_training.last_good_state(claim.folder), options
                    options = _as_begun(wanted, run_dir, chosen)
                    claims.note_kept(run_dir, command_options.differences(options, wanted))
                elif claim is not None:
                    finished = encoder_training.finished_encoder(claim.folder)
        run_dir, state, finished, options = ours.from_first((run_dir, state, finished, options))
        if finished is not None:
            if ours.is_first:
                report(f'There is a finished run with these options, --fresh trains another one; the encoder is in {finished}')
            return
        with ours.together():
            training = encoder_training.EncoderTraining(
                options, ranks=ours, resume=state, saving_options=invocation.saving, memory=_budget(invocation)
            )
        with ours.together():
            if ours.is_first:  # only now, when all input is validated, something is written
                if run_dir:
                    remove_leftovers(run_dir)
                else:
                    require_folder(invocation.outdir)
                    run_dir = make_run_dir(invocation.outdir, name)
                    stack.callback(remove_if_empty, run_dir)
                    stack.enter_context(claims.lock_run(run_dir))
                    path = os.path.join(run_dir, encoder_training.OPTIONS_FILE)
                    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
                        json.dump({**options.recorded(), 'run_dir': run_dir}, file, indent=2)
                stack.enter_context(Log(run_dir))
                print(f'\nOutput directory:    {run_dir}')
                print(f'Device:              {ours.device}\n')
        training.run_dir = ours.from_first(run_dir)
        snapshot = training.run()
    if ours.is_first:
        report(f'The encoder is in {snapshot}')


if __name__ == '__main__':
    main()
