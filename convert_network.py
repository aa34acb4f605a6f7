"""Converts image generators: any checkpoint in, a pickle that NVIDIA's scripts open or a safetensors file out."""

import os
from typing import Any

import click

from networks.errors import InputError
from training.commands import command_line

PICKLE, SAFETENSORS = '.pkl', '.safetensors'


def check_dest(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The ending of --dest says what to write."""
    if os.path.splitext(value)[1] not in (PICKLE, SAFETENSORS):
        raise click.BadParameter(f'{value!r} ends neither in {PICKLE} nor in {SAFETENSORS}')
    if not os.path.isdir(os.path.dirname(os.path.abspath(value))):
        raise click.BadParameter(f'there is no folder for {value!r}')
    return value


# fmt: off
@command_line.command()
@click.option('--source', help='Checkpoint to read', type=command_line.WEIGHTS, required=True)
@click.option('--dest',   help='File to write: NAME.pkl or NAME.safetensors', metavar='PATH', required=True,
              callback=check_dest)
@click.option('--force',  help='Overwrite --dest if it exists', is_flag=True)
@command_line.clear_errors(interrupted='interrupted; nothing was written')
def main(source: str, dest: str, force: bool) -> None:
    """Convert an image generator.

    The source is whatever the other commands take for --network: pickles of stylegan2-ada-pytorch, stylegan3, and
    StyleGAN2 for TensorFlow, .pt files of rosinality, pSp, and e4e, and .safetensors written by this command. Nothing
    that the file says is run.

    NAME.pkl has NVIDIA's layout (G, D, G_ema, ...) and carries this project's own network source. NVIDIA's scripts open
    it with their own torch_utils and dnnlib. NAME.safetensors holds the weights, NAME.json what they are of.

    \b
    Examples:
      # A rosinality checkpoint for the scripts of stylegan2-ada-pytorch.
      python convert_network.py --source=stylegan2-ffhq-config-f.pt --dest=ffhq.pkl
    \b
      # Weights that can carry no code.
      python convert_network.py --source=network-snapshot-025000.pkl --dest=cars.safetensors
    """
    if os.path.exists(dest) and not force:
        raise command_line.UserMistake(f'{dest} exists; choose another name, or add --force to overwrite it')
    convert(source, dest)
    command_line.report(f'Wrote {dest}')
# fmt: on


def convert(source: str, dest: str) -> None:
    """Read the image generator of `source` and write it to `dest`, whole or not at all.

    Raises:
        InputError: The source cannot be read.
    """
    from networks import checkpoints, stylegan2_discriminator  # Here: torch takes seconds, and --help needs none.
    from networks.checkpoints.formats import safetensors_pair

    try:
        generator = checkpoints.load_generator(source)
    except checkpoints.CodeRefused as error:
        reason = str(error).removesuffix(checkpoints.TRUST_HINT)
        raise InputError(f'{reason} What only its own source text can compute cannot be converted.') from error
    resolution, channels = generator.img_resolution, generator.img_channels
    command_line.report(
        f'{source}: {type(generator).__module__}.{type(generator).__name__}, '
        f'{resolution}x{resolution}, {channels} channels, {generator.num_ws} codes of {generator.w_dim}'
    )
    if dest.endswith(SAFETENSORS):
        with checkpoints.replacing(dest) as temporary, checkpoints.replacing(f'{os.path.splitext(dest)[0]}.json') as description:
            safetensors_pair.write(temporary, description, generator)
        return
    discriminator = checkpoints.load_discriminator(source) or stylegan2_discriminator.NoDiscriminator()
    snapshot: dict[str, Any] = {
        'G': generator,
        'D': discriminator,
        'G_ema': generator,
        'training_set_kwargs': None,
        'augment_pipe': None,
    }
    checkpoints.save_module_pickle(dest, snapshot)


if __name__ == '__main__':
    main()
