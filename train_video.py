"""Trains a temporal GAN on the W+ codes of footage: a latent data set in, a run folder with snapshots out."""

import contextlib
import json
import os
import re
import shlex
import sys
import types
from collections.abc import Iterator
from typing import Any

import click

from networks.errors import InputError
from stylevideogan import layout
from training import command_line

INTERRUPTED = 'interrupted; --resume=RUN_FOLDER goes on from its last training state'


class Widths(click.ParamType):
    """'64,128,256' -> [64, 128, 256]."""

    name = 'list'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if not re.fullmatch(r'[1-9]\d{0,4}(,[1-9]\d{0,4})*', value.replace(' ', ''), re.ASCII):
            self.fail(f'{value!r} is not a list of widths; write for example 64,128,256', param, ctx)
        return [int(width) for width in value.split(',')]


WIDTHS = Widths()
SHARE = command_line.FloatRange(0, 1)


# fmt: off
@command_line.command()
# Main options.
@click.option('--outdir',        help='Where to save the results', metavar='DIR', required=True)
@click.option('--data',          help='Latent data set (embed_video.py makes one)', metavar='ZIP|DIR', required=True)
@click.option('--network',       help='Image generator that the codes belong to  [default: where the data set found it]',
              metavar='PKL|URL')
@click.option('--gpus',          help='Number of GPUs, or of processes on a CPU; more than one starts torchrun',
              metavar='INT', type=command_line.POSITIVE_INT, default=1)
@click.option('--kimg',          help='Length of the training, thousands of frames shown to the critic', metavar='KIMG',
              type=command_line.POSITIVE_FLOAT, default=16000)
@click.option('--resume',        help='Go on with a run: its folder or its training-state-*.pt', metavar='DIR|PT')
# The temporal model.
@click.option('--window',        help='Frames that the critic sees, t', metavar='INT', type=click.IntRange(2), default=25)
@click.option('--latent-dim',    help='Size of i and l_k', metavar='INT', type=command_line.POSITIVE_INT, default=32)
@click.option('--noise-dim',     help='Size of the noise s_k', metavar='INT', type=command_line.POSITIVE_INT, default=32)
@click.option('--hidden-dim',    help='Memory of the GRU cells below the last', metavar='INT',
              type=command_line.POSITIVE_INT, default=32)
@click.option('--cells',         help='GRU cells in P', metavar='INT', type=click.IntRange(2), default=4)
@click.option('--initial-widths', help='Hidden widths of H', metavar='LIST', type=WIDTHS, default='64,64')
@click.option('--widening-widths', help='Widths of T', metavar='LIST', type=WIDTHS, default='64,128,256')
@click.option('--narrowing-widths', help='Widths of E', metavar='LIST', type=WIDTHS, default='64,32')
@click.option('--temporal-channels', help='Channels of TConv', metavar='LIST', type=WIDTHS, default='64,64,64')
# The space of the codes.
@click.option('--variance',      help='Share of the variance that the principal components keep', metavar='FLOAT',
              type=command_line.FloatRange(0, 1, min_open=True), default=0.99)
@click.option('--max-components', help='Not more principal components than this', metavar='INT',
              type=command_line.POSITIVE_INT, default=512)
@click.option('--whitening',     help='1 gives all components the same variance, 0 leaves them as they are',
              metavar='FLOAT', type=SHARE, default=0.5)
@click.option('--full-codes',    help='No principal components: free maps A_j, and a critic that sees all of w',
              is_flag=True)
# Losses and optimisation.
@click.option('--batch',         help='Windows in a batch, over all GPUs', metavar='INT', type=command_line.POSITIVE_INT,
              default=64)
@click.option('--critic-steps',  help='Critic updates for each of the generator', metavar='INT',
              type=command_line.POSITIVE_INT, default=2)
@click.option('--lambda-gp',     help='Weight of the gradient penalty', metavar='FLOAT',
              type=command_line.NON_NEGATIVE_FLOAT, default=10)
@click.option('--lambda-gap',    help='Weight of the gradient angle penalty', metavar='FLOAT',
              type=command_line.NON_NEGATIVE_FLOAT, default=3)
@click.option('--lambda-diversity', help='Weight of the diversity penalty; 0 is the paper', metavar='FLOAT',
              type=command_line.NON_NEGATIVE_FLOAT, default=3)
@click.option('--diversity',     help='How far two futures of one moment have to part, as a share of what the footage allows',
              metavar='FLOAT', type=SHARE, default=0.33)
@click.option('--diversity-windows', help='... after how many windows', metavar='INT', type=command_line.POSITIVE_INT, default=1)
@click.option('--gap-interval',  help='Take these two penalties every so many steps', metavar='INT',
              type=command_line.POSITIVE_INT, default=4)
@click.option('--carry',         help='Share of generated windows that continue earlier ones; 0 is the paper',
              metavar='FLOAT', type=SHARE, default=0.5)
@click.option('--motion-weight', help='How much the critic sees of the motion between frames on its own; 0 is the paper',
              metavar='FLOAT', type=command_line.NON_NEGATIVE_FLOAT, default=1)
@click.option('--reversal',      help='Share of real windows shown backwards  [default: 0.5 for footage below a minute, else 0]',
              metavar='FLOAT', type=SHARE)
@click.option('--glr',           help='Learning rate of the generator', metavar='FLOAT',
              type=command_line.POSITIVE_FLOAT, default=6e-3)
@click.option('--clr',           help='Learning rate of the critic', metavar='FLOAT', type=command_line.POSITIVE_FLOAT,
              default=6e-3)
@click.option('--decay',         help='Share of the training, at its end, in which the learning rates fall to zero',
              metavar='FLOAT', type=SHARE, default=0.5)
@click.option('--ema',           help='Half-life of the moving average', metavar='KIMG',
              type=command_line.POSITIVE_FLOAT, default=300)
# What is written, and when.
@click.option('--desc',          help='Word to add to the name of the run folder', metavar='TEXT')
@click.option('--metrics',       help='Metrics to compute at every snapshot, or none', metavar='NAME,..|none',
              type=command_line.NAMES, default='none')
@click.option('--plugin',        help='File with metrics of your own; can be repeated', metavar='FILE', multiple=True)
@click.option('--detector',      'detectors', help='Weights of I3D or InceptionV3 for the metrics; can be repeated',
              metavar='FILE|URL', multiple=True)
@click.option('--tick',          help='Print progress every so many kimg', metavar='KIMG',
              type=command_line.POSITIVE_FLOAT, default=200)
@click.option('--snap',          help='Snapshot and pictures every so many ticks; 0 at the end only', metavar='TICKS',
              type=command_line.NON_NEGATIVE_INT, default=20)
@click.option('--preview-frames', help='Length of the sample videos; 0 for no pictures', metavar='INT',
              type=command_line.NON_NEGATIVE_INT, default=100)
@click.option('--preview-grid',  help='Sample videos side by side  [default: 4x2, fewer if rendering is slow]',
              metavar='WxH', type=command_line.SIZE)
@click.option('--seed',          help='Decides everything on one device', metavar='INT',
              type=click.IntRange(0, command_line.MAX_SEED), default=0)
@click.option('--device',        help='cpu, cuda, ...; auto takes a GPU if there is one', metavar='NAME', default='auto')
@click.option('--force-network', help='Take --network although the codes were embedded with another file', is_flag=True)
@click.option('--trust-pickle',  help='Run the program code that the pickles carry; only for files that you trust',
              is_flag=True)
@click.option('-n', '--dry-run', help='Print the options and stop', is_flag=True)
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**options: Any) -> None:
    """Train a temporal GAN on the motion of one subject.

    A run folder is made in --outdir; interrupted runs go on with --resume.

    Examples:

    \b
    # Train on embedded footage.
    python train_video.py --outdir=training-runs --data=latents.zip --network=ffhq.pkl

    \b
    # Go on after an interruption.
    python train_video.py --outdir=training-runs --data=latents.zip --resume=training-runs/00000-latents-gpus1-batch64

    \b
    # Eight GPUs, or several machines.
    python train_video.py --outdir=training-runs --data=latents.zip --gpus=8
    torchrun --nnodes=4 --nproc-per-node=8 train_video.py --outdir=training-runs --data=latents.zip --gpus=32
    """
    train(types.SimpleNamespace(**options))
# fmt: on


def construction_arguments(o: types.SimpleNamespace, network: str) -> dict[str, Any]:
    """The options as one nested dict: what training_options.json and every snapshot hold."""
    from networks.checkpoints.image_generator_lookup import local_file

    return {
        'data': os.path.abspath(o.data),
        'network': network,
        'num_gpus': o.gpus,
        'seed': o.seed,
        'window': o.window,
        'total_kimg': o.kimg,
        'kimg_per_tick': o.tick,
        'snapshot_ticks': o.snap,
        'G_kwargs': {
            'latent_dim': o.latent_dim,
            'noise_dim': o.noise_dim,
            'hidden_dim': o.hidden_dim,
            'num_cells': o.cells,
            'initial_widths': o.initial_widths,
            'widening_widths': o.widening_widths,
        },
        'C_kwargs': {'narrowing_widths': o.narrowing_widths, 'temporal_channels': o.temporal_channels},
        'latent_space': {
            'variance': o.variance,
            'max_components': o.max_components,
            'whitening': o.whitening,
            'full': o.full_codes,
        },
        'settings': {
            'batch': o.batch,
            'critic_steps': o.critic_steps,
            'lambda_gp': o.lambda_gp,
            'lambda_gap': o.lambda_gap,
            'lambda_diversity': o.lambda_diversity,
            'diversity': o.diversity,
            'diversity_windows': o.diversity_windows,
            'gap_interval': o.gap_interval,
            'carry': o.carry,
            'motion_weight': o.motion_weight,
            'reversal': o.reversal,
            'generator_lr': o.glr,
            'critic_lr': o.clr,
            'decay': o.decay,
            'ema_kimg': o.ema,
        },
        'preview': {'num_frames': o.preview_frames, 'grid': o.preview_grid} if o.preview_frames else None,
        'metrics': o.metrics,
        'plugins': [os.path.abspath(path) for path in o.plugin],
        'detectors': [os.path.abspath(local_file(source)) for source in o.detectors],
        'trust_pickle': o.trust_pickle,
        'force_network': o.force_network,
    }


def check_options(o: types.SimpleNamespace) -> None:
    """Refuse what cannot be, before anything is loaded."""
    if o.batch % o.gpus:
        raise command_line.UserMistake(f'--batch={o.batch} cannot be shared evenly by --gpus={o.gpus}; choose a multiple')
    if o.desc and not re.fullmatch(r'[\w.+-]+', o.desc):
        raise command_line.UserMistake(f'--desc={o.desc!r} goes into a folder name: letters, digits, and . _ + - only')
    shown = o.batch * o.critic_steps * o.window
    if o.kimg * 1000 < shown:
        raise command_line.UserMistake(f'--kimg={o.kimg:g} is less than one step, which shows {shown} frames; give more')
    if o.carry == 1:
        raise command_line.UserMistake('--carry=1 leaves no window that begins at a fresh i; give less than 1')


def look_at_data(o: types.SimpleNamespace) -> str:
    """Settle what depends on the data set; returns --network, or where the data set found its image generator."""
    from networks.checkpoints.image_generator_lookup import find_image_generator, is_address
    from training.latent_space import default_reversal
    from training.latents.dataset import LatentDataset

    with LatentDataset(o.data) as dataset:
        if o.reversal is None:
            o.reversal = default_reversal(dataset)
        if o.network is None:
            try:
                o.network = find_image_generator(dataset.image_generator, snapshot=o.data)
            except InputError as error:
                raise InputError(str(error).replace('--image-network', '--network')) from error
    if not is_address(o.network):
        if not os.path.isfile(o.network):
            raise InputError(f'--network: there is no file {o.network!r}')
        return os.path.abspath(o.network)
    return o.network


def make_run_dir(outdir: str, name: str) -> str:
    """`outdir/00003-name`, numbered after the highest that is there."""
    command_line.require_folder(outdir)
    numbers = [int(match[0]) for entry in os.listdir(outdir) if (match := re.match(r'\d+', entry))]
    run_dir = os.path.join(outdir, f'{max(numbers, default=-1) + 1:05d}-{name}')
    os.makedirs(run_dir)
    return run_dir


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


def adopt_options(o: types.SimpleNamespace, run_dir: str) -> None:
    """Take over the model, losses and seed of the run that goes on; only its length and output can be changed."""
    path = os.path.join(run_dir, 'training_options.json')
    try:
        with open(path, encoding='utf-8') as file:
            before = json.load(file)
        o.window, o.seed = before['window'], before['seed']
        for group in ('G_kwargs', 'C_kwargs', 'latent_space', 'settings'):
            o.adopted[group] = before[group]
        o.batch, o.critic_steps = before['settings']['batch'], before['settings']['critic_steps']
        context = click.get_current_context(silent=True)
        if context is None or context.get_parameter_source('kimg') == click.core.ParameterSource.DEFAULT:
            o.kimg = before['total_kimg']
        if context is None or context.get_parameter_source('tick') == click.core.ParameterSource.DEFAULT:
            o.tick = before['kimg_per_tick']
        if context is None or context.get_parameter_source('snap') == click.core.ParameterSource.DEFAULT:
            o.snap = before['snapshot_ticks']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} cannot be read, so the run cannot go on; resume needs the run folder as it was') from error


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
def distributed(o: types.SimpleNamespace) -> Iterator[tuple[int, Any]]:
    """Join the ranks that torchrun started; yields (rank, device)."""
    import torch

    from torch_utils import training_stats

    num_ranks = int(os.environ.get('WORLD_SIZE', '1'))
    if num_ranks == 1:
        yield 0, command_line.choose_device(o.device)
        return
    name = o.device
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


class Tee:
    """Standard output goes to the screen and into log.txt."""

    def __init__(self, path: str) -> None:
        self._file = open(path, 'a', encoding='utf-8')  # noqa: SIM115 - open as long as the run
        self._screen = sys.stdout

    def __enter__(self) -> 'Tee':
        sys.stdout = self  # type: ignore[assignment]
        return self

    def __exit__(self, *exception: object) -> None:
        sys.stdout = self._screen
        self._file.close()

    def write(self, text: str) -> int:
        self._file.write(text)
        return self._screen.write(text)

    def flush(self) -> None:
        self._file.flush()
        self._screen.flush()

    def isatty(self) -> bool:
        return self._screen.isatty()


def train(o: types.SimpleNamespace) -> None:
    """Carry out `main`; `o` has its arguments as attributes."""
    o.adopted = {}
    resumed = find_run_to_resume(o.resume) if o.resume else None
    if resumed is not None:
        adopt_options(o, resumed[0])
    check_options(o)
    network = look_at_data(o)
    c = {**construction_arguments(o, network), **o.adopted}
    name = re.sub(r'[^\w.+-]+', '_', os.path.splitext(os.path.basename(os.path.normpath(o.data)))[0])
    name = f'{name}-gpus{o.gpus}-batch{o.batch}' + (f'-{o.desc}' if o.desc else '')
    first = int(os.environ.get('RANK', '0')) == 0
    if first:
        print('Training options:')
        print(json.dumps(c, indent=2))
    if o.dry_run:
        print('Dry run; exiting.')
        return
    launched = 'WORLD_SIZE' in os.environ
    if launched and int(os.environ['WORLD_SIZE']) != o.gpus:
        raise command_line.UserMistake(f'torchrun started {os.environ["WORLD_SIZE"]} processes; say so with --gpus as well')
    if not launched and o.gpus > 1:
        start_torchrun(o.gpus)
    run(o, c, name, resumed)


def run(o: types.SimpleNamespace, c: dict[str, Any], name: str, resumed: tuple[str, str] | None) -> None:
    """Train on this rank."""
    import torch

    from training.temporal_metrics import prepare_metrics
    from training.temporal_training_loop import TemporalTraining

    calc_metric = prepare_metrics(c['metrics'], c['plugins'], c['data'], c['detectors'])
    with distributed(o) as (rank, device), contextlib.ExitStack() as stack:
        if device.type == 'cuda':
            torch.backends.cudnn.benchmark = False  # the fastest algorithm of the moment is not always the same
        training = TemporalTraining(
            run_dir='',
            options=c,
            device=device,
            rank=rank,
            num_ranks=o.gpus,
            resume=resumed[1] if resumed else None,
            calc_metric=calc_metric,
        )
        if rank == 0:  # only now, when nothing that the user gave can be wrong any more, something is written
            training.run_dir = resumed[0] if resumed else make_run_dir(o.outdir, name)
            with open(os.path.join(training.run_dir, 'training_options.json'), 'w', encoding='utf-8') as file:
                json.dump(c, file, indent=2)
            stack.enter_context(Tee(os.path.join(training.run_dir, 'log.txt')))
            print(f'Output folder: {training.run_dir}')
        finished = training.run()
    if not finished:
        raise KeyboardInterrupt


if __name__ == '__main__':
    main()
