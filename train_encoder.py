"""Train a W+ encoder for an image generator, so that footage becomes codes in one pass."""

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

import click

from training.commands import command_options, option_tree
from training.commands.command_line import UserMistake, absolute, choose_device, clear_errors, command, report, require_folder
from training.commands.file_names import safe_name, stem
from training.commands.memory import Budget, parse_budget
from training.embedding.encoder_options import HEADINGS, EncoderInvocation, EncoderTrainingOptions
from training.runs.run_folder import Log, make_run_dir, next_run_dir

if TYPE_CHECKING:
    import torch


@command()
@command_options.from_trees(EncoderTrainingOptions, EncoderInvocation, headings=HEADINGS)
@clear_errors
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
    # Adapt an encoder to new footage.
    python train_encoder.py --network=faces.pkl --data=new.mp4 --init=encoder-000100.pkl --outdir=training-runs --kimg=10
    """
    from networks.checkpoints import file_sha256  # here, because torch takes seconds that --help need not spend

    given = command_options.chosen(EncoderTrainingOptions, values)
    for path, known in (('network', given), ('outdir', called := command_options.chosen(EncoderInvocation, values))):
        if path not in known:
            raise click.UsageError(f"Missing option '--{path}'.")
    invocation = option_tree.build(EncoderInvocation, called)
    options = option_tree.build(EncoderTrainingOptions, given)
    if options.batch_size < 2 and options.data:
        raise UserMistake('--batch: frames and generated samples need a batch of at least 2')
    _budget(invocation)
    device = choose_device(invocation.device)
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
    _launch(options, invocation, device)


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


def _launch(options: EncoderTrainingOptions, invocation: EncoderInvocation, device: 'torch.device') -> None:
    from training.embedding.encoder_training import find_unfinished_run, train_encoder

    network_stem = safe_name(stem(options.network.split('?')[0]))
    description = f'encoder-{network_stem}{"-frames" if options.data else ""}-batch{options.batch_size}'
    if invocation.desc:
        description += '-' + safe_name(invocation.desc)
    recorded = options.recorded()
    unfinished = None if invocation.fresh else find_unfinished_run(invocation.outdir, recorded)
    run_dir = unfinished or next_run_dir(invocation.outdir, description)
    print('\nTraining options:')
    print(json.dumps(recorded, indent=2))
    print(f'\nOutput directory:    {run_dir}')
    print(f'Device:              {device}\n')
    if invocation.dry_run:
        print('Dry run; exiting.')
        return
    if unfinished is None:
        require_folder(invocation.outdir)
        run_dir = make_run_dir(invocation.outdir, description)
        with open(os.path.join(run_dir, 'training_options.json'), 'w', encoding='utf-8') as file:
            json.dump({**recorded, 'run_dir': run_dir}, file, indent=2)
    with Log(run_dir):
        snapshot = train_encoder(
            options, run_dir=run_dir, device=device, resume=unfinished is not None, memory=_budget(invocation)
        )
    report(f'The encoder is in {snapshot}')


if __name__ == '__main__':
    main()
