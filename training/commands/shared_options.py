"""Options that several commands have, so that they are called, explained and read alike everywhere."""

import click

from training.commands.click_types import MEMORY, WEIGHTS

# ----------------------------------------------------------------------------
# Machine and files

DEVICE_HELP = 'cpu, cuda, cuda:1, ...; auto: the first GPU, or the CPU where there is none'
TRUST_HELP = 'Run the program code inside the pickles; only for files that you trust'

device = click.option('--device', help=DEVICE_HELP, metavar='NAME', default='auto')
trust_pickle = click.option('--trust-pickle', help=TRUST_HELP, is_flag=True)
memory = click.option(
    '--memory',
    help='Maximum memory for what is rendered at a time, such as 8G, or 50% of what is free; changes nothing but the last bits',
    metavar='SIZE',
    type=MEMORY,
    default='70%',
)

# ----------------------------------------------------------------------------
# The image generator of a snapshot, which the snapshot names

image_network = click.option(
    '--image-network', help='The image generator, where the reference in the snapshot does not find it', type=WEIGHTS
)
force_image_network = click.option(
    '--force-image-network',
    help='Use --image-network even though it is another file, such as one fine-tuned in the same W+ space',
    is_flag=True,
)

# ----------------------------------------------------------------------------
# Another subject

encoder = click.option('--encoder', help='Encoder for pictures and recordings; without one a picture is optimised', type=WEIGHTS)
align = click.option(
    '--align',
    help='Pictures that are embedded: find and crop the face as in FFHQ, or take the centre square',
    type=click.Choice(['center', 'ffhq']),
    default='center',
)
transfer_data = click.option(
    '--transfer-data',
    help='Latent data set with one clip for each of several subjects, for --transfer=regression',
    metavar='DATA',
)
