"""Every option of the temporal model and its training as one tree (commands/option_tree.py), the only place of defaults.

`TrainingOptions` is what training_options.json and every snapshot hold; its field names are theirs, and do not change.
`Invocation` belongs to one call of train_video.py and is not recorded. What the choices are worth is measured in
docs/choices.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from training.commands.option_tree import MISSING, OptionGroup, option, subgroup
from training.commands.option_values import MAX_SEED, parse_names, parse_size, parse_widths
from training.runs.saving_options import SAVING, SavingOptions

MAIN, OUTPUT, MACHINE = 'Main options', 'Output', 'Machine'
HEADINGS = (MAIN, 'Temporal model', 'Space of the codes', 'Losses', 'Optimisation', OUTPUT, SAVING, MACHINE)
LOSSES = 'Losses'


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorOptions(OptionGroup):
    """Sizes of networks.latent_generator.LatentGenerator."""

    latent_dim: int = option(32, 'Size of i and of l_k, the state that becomes a code', at_least=1)
    noise_dim: int = option(32, 'Size of the noise s_k of one time step', at_least=1)
    hidden_dim: int = option(32, 'Memory of every GRU cell but the last', at_least=1)
    num_cells: int = option(4, 'Number of GRU cells in P', flag='--cells', at_least=2)
    initial_widths: tuple[int, ...] = option(
        (64, 64), 'Hidden widths of H, which fills the memory of the cells', parse=parse_widths, at_least=1
    )
    widening_widths: tuple[int, ...] = option((64, 128), 'Widths of T, which widens l_k', parse=parse_widths, at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticOptions(OptionGroup):
    """Sizes of networks.temporal_critic.TemporalCritic."""

    narrowing_widths: tuple[int, ...] = option((64, 32), 'Widths of E, which narrows every frame', parse=parse_widths, at_least=1)
    temporal_channels: tuple[int, ...] = option(
        (64, 64, 64), 'Channels of TConv, the convolutions over time', parse=parse_widths, at_least=1
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSpaceOptions(OptionGroup):
    """Coordinates of the codes, training.latent_space.fit_latent_space."""

    variance: float = option(0.99, 'Share of the variance that the principal components keep', above=0, at_most=1)
    max_components: int = option(512, 'Maximum number of principal components', at_least=1)
    whitening: float = option(0.5, '1 gives all components the same variance, 0 leaves them as they are', at_least=0, at_most=1)
    full: bool = option(
        False, 'No principal components: the maps A_j are free, and the critic sees all of w', flag='--full-codes'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(OptionGroup):
    """Everything that decides a training step, training.temporal_trainer."""

    batch: int = option(64, 'Windows in a batch, over all GPUs', at_least=1)
    batch_gpu: int | None = option(
        None,
        'Limit windows at a time per GPU; the training is then the same on any number of GPUs, to the last bit',
        at_least=1,
        default_text="the GPU's share of the batch",
        absent=None,
    )
    critic_steps: int | None = option(
        None, 'Critic updates per generator update', at_least=1, default_text='1, and 2 for footage below a minute'
    )
    lambda_gp: float = option(10.0, 'Weight of the gradient penalty', at_least=0, group=LOSSES)
    lambda_gap: float = option(3.0, 'Weight of the gradient angle penalty', at_least=0, group=LOSSES)
    lambda_diversity: float = option(
        3.0, 'Weight of the diversity penalty; 0: none, as in the paper', at_least=0, group=LOSSES, absent=0.0
    )
    diversity: float = option(
        0.33,
        'How far two futures of one moment have to diverge, as a share of what the footage allows',
        at_least=0,
        at_most=1,
        group=LOSSES,
        absent=0.0,
    )
    diversity_windows: int = option(
        1, 'Number of windows after which two futures have to have diverged', at_least=1, group=LOSSES, absent=1
    )
    gap_interval: int = option(
        4,
        'Apply the angle and diversity penalties every N steps, with N times their weight',
        at_least=1,
        metavar='N',
        group=LOSSES,
    )
    gap_batch_shrink: int = option(4, 'Apply them to a batch smaller by this factor', flag=None, at_least=1, absent=4)
    carry: float = option(
        1.0,
        'Share of generated windows that continue an ongoing video (see --chains); 0: none, as in the paper',
        at_least=0,
        at_most=1,
        group=LOSSES,
    )
    chains: int = option(256, 'Number of ongoing videos that training keeps and continues', at_least=1, group=LOSSES, absent=1024)
    restart: float = option(
        0.003,
        'Share of the ongoing videos that start over from a fresh i each time they are continued',
        at_least=0,
        at_most=1,
        group=LOSSES,
        absent=0.01,
    )
    burn_in: int = option(
        100, 'Frames after a start that the critics do not see', at_least=0, metavar='FRAMES', group=LOSSES, absent=0
    )
    strides: tuple[int, ...] | None = option(
        None,
        'Spacings of the frames that the critics see, one critic each; those that the footage is too short for are left out',
        metavar='LIST',
        parse=parse_widths,
        at_least=1,
        group=LOSSES,
        default_text='1,2,4,16, and 1,4,16 for footage below a minute',
        absent=(1,),
    )
    stride_power: float | None = option(
        None,
        "Weigh each critic in the generator's loss by its spacing to this power; 0: all the same",
        at_least=0,
        group=LOSSES,
        default_text='1.25, and 0 for footage below a minute',
        absent=0.0,
    )
    longest_memory: float = option(
        50.0,
        'Memories of the GRU cells begin with time constants of 1 to this many frames; 0: as in torch.nn.GRUCell',
        at_least=0,
        metavar='FRAMES',
        absent=0.0,
    )
    uncalibrated: bool = option(
        False, 'Skip the calibration that gives frames far into a video the mean and covariance of the footage', absent=True
    )
    unfiltered: bool = option(
        False, 'Skip the filter over time that gives finished videos the spectrum of the motion of the footage', absent=True
    )
    unshaped: bool = option(
        False,
        'Leave events, such as blinks, as large as the generator makes them; otherwise those of finished videos get the sizes of '
        "the footage's, behind the filter, where the footage has events that stand apart from its other motion",
        absent=True,
    )
    unbounded: bool = option(
        False,
        'Leave frames of finished videos where they are that lie farther from the mean code than any of the footage; otherwise '
        'they are pulled back to 1.25 times that distance at most, behind the filter',
        absent=True,
    )
    motion_weight: float | None = option(
        None,
        'Weight of the motion between frames in what the critic sees; 0: none, as in the paper',
        at_least=0,
        group=LOSSES,
        default_text='2, and 1 for footage below a minute and with --full-codes',
    )
    reversal: float | None = option(
        None,
        'Share of real windows shown backwards',
        at_least=0,
        at_most=1,
        group=LOSSES,
        default_text='0.5 for footage below a minute, else 0',
    )
    distortion: float | None = option(
        None,
        'Size of the random affine maps through which the critics see real and generated windows alike, as a share of the spread',
        at_least=0,
        group=LOSSES,
        default_text='0.3 for footage below a minute, else 0',
        absent=0.0,
    )
    lambda_events: float | None = option(
        None,
        'Weight of the penalty on events, such as blinks, that follow each other at delays that the footage rules out; '
        '0: none, as in the paper and with --full-codes or --carry below 1',
        at_least=0,
        group=LOSSES,
        default_text='40, and 40 (N / 4000)^2 in trainings of N < 4000 steps',
        absent=0.0,
    )
    generator_lr: float = option(3e-3, 'Learning rate of the generator', flag='--glr', above=0)
    critic_lr: float = option(6e-3, 'Learning rate of the critic', flag='--clr', above=0)
    beta1: float = option(0.5, 'First beta of Adam', flag=None, at_least=0, at_most=1, absent=0.5)
    beta2: float = option(0.9, 'Second beta of Adam', flag=None, at_least=0, at_most=1, absent=0.9)
    decay: float = option(
        0.5, 'Share of the training, at its end, in which the learning rates fall linearly to zero', at_least=0, at_most=1
    )
    ema_kimg: float = option(300.0, "Half-life of the generator's moving average", flag='--ema', metavar='KIMG', above=0)
    ema_rampup: float = option(0.1, 'The half-life is at most this share of the training so far', flag=None, above=0, absent=0.1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreviewOptions(OptionGroup):
    """Sample videos, training.temporal_pictures.Preview."""

    num_frames: int = option(
        100, 'Length of the sample videos; 0: no pictures', flag='--preview-frames', at_least=0, resumed='command'
    )
    grid: tuple[int, int] | None = option(
        None,
        'Sample videos side by side',
        flag='--preview-grid',
        metavar='WxH',
        parse=parse_size,
        at_least=1,
        resumed='command',
        default_text='4x2, fewer if rendering is slow',
    )

    @classmethod
    def upgrade(cls, values: Any) -> Any:
        """Version 0.1 wrote null where no pictures were wanted."""
        return {'num_frames': 0, 'grid': None} if values is None else values


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions(OptionGroup):
    """All that decides what a training makes."""

    data: str = option(
        MISSING, 'Latent data set (embed_video.py makes one)  [required]', metavar='ZIP|DIR', group=MAIN, resumed='kept'
    )
    network: str | None = option(
        None,
        'Image generator that the codes belong to',
        weights='file',
        group=MAIN,
        resumed='kept',
        default_text='where the data set found it',
    )
    num_gpus: int = option(
        1,
        'Number of GPUs, or of processes on a CPU; more than one starts torchrun',
        flag='--gpus',
        at_least=1,
        group=MAIN,
        resumed='command',
    )
    total_kimg: float = option(
        6400.0,
        'Length of the training, thousands of frames shown to the critic',
        flag='--kimg',
        metavar='KIMG',
        above=0,
        group=MAIN,
        resumed='kept',
    )
    resume_pkl: str | None = option(None, 'Snapshot whose weights the training starts from', flag=None, absent=None)
    seed: int = option(0, 'Random seed; trainings on one device are reproducible', at_least=0, at_most=MAX_SEED, group=MAIN)
    window: int = option(25, 'Length t of the windows that the critic sees', metavar='FRAMES', at_least=2, group='Temporal model')
    G_kwargs: GeneratorOptions = subgroup(GeneratorOptions, 'Temporal model')
    C_kwargs: CriticOptions = subgroup(CriticOptions, 'Temporal model')
    latent_space: LatentSpaceOptions = subgroup(LatentSpaceOptions, 'Space of the codes')
    settings: Settings = subgroup(Settings, 'Optimisation')
    kimg_per_tick: float = option(
        200.0, 'Interval between status lines, kimg', flag='--tick', metavar='KIMG', above=0, group=OUTPUT, resumed='kept'
    )
    snapshot_ticks: int = option(
        20,
        'Interval between snapshots (with pictures), ticks; 0: at the end only',
        flag='--snap',
        metavar='TICKS',
        at_least=0,
        group=OUTPUT,
        resumed='kept',
    )
    preview: PreviewOptions = subgroup(PreviewOptions, OUTPUT)
    metrics: tuple[str, ...] = option(
        (),
        'Metrics to compute at every snapshot, or none',
        metavar='NAME,..|none',
        parse=parse_names,
        group=OUTPUT,
        resumed='command',
    )
    plugins: tuple[str, ...] = option(
        (),
        'File with metrics of your own; may be repeated',
        flag='--plugin',
        metavar='FILE',
        repeated=True,
        consent=True,
        group=OUTPUT,
        resumed='command',
    )
    detectors: tuple[str, ...] = option(
        (),
        'Weights of I3D or InceptionV3 for the metrics; may be repeated',
        flag='--detector',
        weights='folder',
        repeated=True,
        group=OUTPUT,
        resumed='command',
    )
    trust_pickle: bool = option(
        False,
        'Run the program code inside the pickles; only for files that you trust',
        consent=True,
        group=MACHINE,
        resumed='command',
    )
    force_network: bool = option(
        False, 'Use --network even though the codes were embedded with another file', group=MACHINE, resumed='command'
    )


# Each preset changes some of the defaults. The paper's own are those of its figures and formulas, and 'paper' leaves out
# everything that goes beyond it; what it leaves open (widths, weights, learning rates) are the defaults.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    'default': {},
    'paper': {
        'window': 25,
        'G_kwargs.latent_dim': 32,
        'G_kwargs.noise_dim': 32,
        'G_kwargs.num_cells': 4,
        'latent_space.full': True,
        'settings.critic_steps': 5,
        'settings.lambda_diversity': 0.0,
        'settings.gap_interval': 1,
        'settings.gap_batch_shrink': 1,
        'settings.carry': 0.0,
        'settings.strides': (1,),
        'settings.stride_power': 0.0,
        'settings.longest_memory': 0.0,
        'settings.uncalibrated': True,
        'settings.unfiltered': True,
        'settings.unshaped': True,
        'settings.unbounded': True,
        'settings.motion_weight': 0.0,
        'settings.reversal': 0.0,
        'settings.distortion': 0.0,
        'settings.lambda_events': 0.0,
    },
    'fast': {
        'total_kimg': 3200.0,
        'kimg_per_tick': 100.0,
        'snapshot_ticks': 8,
        'settings.strides': (1, 4),
        'settings.ema_kimg': 150.0,
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invocation(OptionGroup):
    """One call of train_video.py: where from, where to, and on what."""

    outdir: str | None = option(None, 'Where to save the results  [required without --resume]', metavar='DIR', group=MAIN)
    preset: Literal['default', 'paper', 'fast'] | None = option(
        None, 'Choices to start from: those of the paper, or a quick look; other options change them', group=MAIN
    )
    options: str | None = option(
        None, 'Options to start from: the training_options.json of another run', metavar='JSON', group=MAIN
    )
    resume: str | None = option(
        None,
        'Resume a run: its folder or its training-state-*.pt; or start from the weights of a snapshot',
        metavar='DIR|PT|PKL|URL',
        group=MAIN,
    )
    fresh: bool = option(False, 'Start a new run even if one with the same options is unfinished', group=MAIN)
    desc: str | None = option(None, 'Text to add to the name of the run folder', group=OUTPUT)
    force_data: bool = option(False, 'Train on codes even though they do not draw their footage', group=MACHINE)
    saving: SavingOptions = subgroup(SavingOptions, SAVING)
    device: str = option('auto', 'cpu, cuda, ...; auto: a GPU if there is one', metavar='NAME', group=MACHINE)
    dry_run: bool = option(False, 'Print the options and stop', short='-n', group=MACHINE)
