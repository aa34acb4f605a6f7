"""Shows endless video of a trained temporal model in the browser, to be changed while it runs."""

import types
from typing import Any

import click

from training.commands import command_line, shared_options
from training.control import option_types

PORT = 8765


# fmt: off
@command_line.command()
# Main options.
@click.option('--network',       help='Snapshot of train_video.py (of a run folder, its best snapshot by the first metric)',
              type=command_line.WEIGHTS_OR_FOLDER, required=True)
@click.option('--outdir',        help='Where recordings and saved states go', metavar='DIR', default='live', show_default=True)
@click.option('--seed',          help='Seed of the first video', metavar='INT',
              type=click.IntRange(0, command_line.MAX_SEED), default=0)
@click.option('--continue',      'continue_from', metavar='STATE',
              help='Continue from a state saved on the page, with exactly the frames that would have followed')
# What it begins with; all of it can be changed on the page.
@click.option('--subject',       help='Another subject with the same motion: a code file, a picture, a recording, a latent data '
                                      'set, or seed:NUMBER; given again, the page offers several',
              metavar='SUBJECT', multiple=True)
@click.option('--transfer',      help='Method of transfer, see docs/subjects.md', type=click.Choice(option_types.TRANSFERS),
              default=option_types.TRANSFERS[0])
@shared_options.transfer_data
@shared_options.encoder
@shared_options.align
@click.option('--edit',          help='Direction to offer on the page: .npy, .npz or .pt, its initial strength (0 by default), '
                                      'and layers; may be repeated', metavar='FILE[:STRENGTH[:LAYERS]]', multiple=True)
@click.option('--directions',    help="Also offer this many directions of the subject's own motion", metavar='INT',
              type=click.IntRange(0, 16), default=3)
@click.option('--motion-scale',  help='Size of the movements about the mean of the subject', metavar='SCALE',
              type=command_line.FloatRange(0, 2), default=1)
@click.option('--trunc',         help='Truncation psi; 1 is none', metavar='PSI', type=command_line.FloatRange(0, 1.5), default=1)
@click.option('--trunc-center',  help='Center of the truncation: the mean code of the footage, or w_avg of the image '
                                      'generator', type=click.Choice(['subject', 'generator']), default='subject')
@click.option('--speed',         help='2 is twice as fast, 0.5 slow motion', metavar='FLOAT',
              type=command_line.FloatRange(0.1, 3), default=1)
# Pictures.
@click.option('--fps',           help='Frames per second; the motion keeps its speed  [default: that of the footage]',
              metavar='FLOAT', type=command_line.FloatRange(1, 120))
@click.option('--quality',       help='JPEG quality of the pictures sent to the browser; recordings are not made from these',
              metavar='INT', type=click.IntRange(1, 95), default=90)
@click.option('--noise-mode',    help='Noise of the image generator', type=click.Choice(['const', 'none']), default='const')
@click.option('--burn-in',       help='Frames to leave out at the beginning  [default: recorded in the snapshot]', metavar='INT',
              type=command_line.NON_NEGATIVE_INT)
# Who may look.
@click.option('--host',          help='Address to listen on; unless only this machine can connect, viewers need a token',
              metavar='NAME', default='127.0.0.1', show_default=True)
@click.option('--port',          help='Port to listen on; 0 takes a free one', metavar='INT', type=click.IntRange(0, 65535),
              default=PORT)
@click.option('--token',         metavar='TEXT',
              help='Token that viewers need  [default: none for this machine alone, otherwise a new one each time]')
@click.option('--allow-host',    help='Additional host name under which viewers reach this server; may be repeated',
              metavar='NAME', multiple=True)
@click.option('--max-viewers',   help='Maximum number of pages open at a time', metavar='INT', type=command_line.POSITIVE_INT,
              default=16)
@click.option('--idle-minutes',  help='Exit after this many minutes without viewers; 0: never', metavar='FLOAT',
              type=command_line.NON_NEGATIVE_FLOAT, default=0)
@click.option('--open',          'open_page', help='Open the page in the browser', is_flag=True)
# The image generator of a snapshot, and the rest.
@shared_options.image_network
@shared_options.force_image_network
@shared_options.trust_pickle
@shared_options.device
@command_line.clear_errors
def main(**options: Any) -> None:
    """Watch endless video in the browser, and change it while it runs.

    The page has controls for seed, truncation, size and speed of the motion, subject and edits, and can pause and step. It
    records mp4 and saves states, which generate_video.py --continue picks up. Only this machine can connect unless --host says
    otherwise. Ctrl-C ends it.

    Examples:

    \b
    python play_video.py --network=training-runs/00000-alice --open

    \b
    # Bob and Eve to choose from, and a smile; on the local network, with a token in the address that is printed.
    python play_video.py --network=network-snapshot-000500.pkl --subject=bob.jpg --subject=eve.npz --edit=smile.npy \\
        --host=0.0.0.0
    """
    from training.live.run import play

    play(types.SimpleNamespace(**options))
# fmt: on


if __name__ == '__main__':
    main()
