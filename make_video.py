"""Footage to new video in one command: embeds, trains and generates with defaults, in one folder."""

import types
from typing import Any

import click

from training.commands import command_line, shared_options
from training.footage.preparation_options import TIME

INTERRUPTED = 'interrupted; the same command goes on where it was'


# fmt: off
@command_line.command()
# From what.
@click.option('--source',       help='Video, folder or zip of frames, folder of videos; may be repeated', metavar='FOOTAGE',
              required=True, multiple=True)
@click.option('--network',      help='Image generator: pickle or checkpoint', type=command_line.WEIGHTS,
              required=True)
@click.option('--outdir',       help='Folder for all results  [default: NAME-video, after the first source]', metavar='DIR')
@click.option('--start',        help='Start at this time in each source', metavar='TIME', type=TIME)
@click.option('--end',          help='Stop at this time in each source', metavar='TIME', type=TIME)
@click.option('--align',        help='Crop faces as in FFHQ, or take the centre square; auto looks at what the generator draws',
              type=click.Choice(['auto', 'ffhq', 'center', 'none']), default='auto')
@click.option('--encoder',      help='Encoder of train_encoder.py, or a pSp or e4e checkpoint; without one every frame is '
                                     'optimised, which takes longer', type=command_line.WEIGHTS)
@click.option('--refine',       help="Also optimise the encoder's codes", is_flag=True)
@click.option('--tune',         help='Also tune the generator to the recording: closer to the subject, but takes longer',
              is_flag=True)
# How long.
@click.option('--preset',       help='Preset of training options', type=click.Choice(['default', 'paper', 'fast']),
              default='default')
@click.option('--kimg',         help='Length of the training, thousands of frames  [default: that of the preset]', metavar='KIMG',
              type=command_line.POSITIVE_FLOAT)
@click.option('--videos',       help='Number of videos', metavar='INT', type=command_line.POSITIVE_INT, default=2)
@click.option('--seconds',      help='Length of each video, seconds', metavar='FLOAT', type=command_line.POSITIVE_FLOAT,
              default=20)
@click.option('--paste',        help='Also paste the videos back into the recording', is_flag=True)
# Machine.
@shared_options.device
@click.option('--force-data',   help='Train even though the codes do not reproduce their footage', is_flag=True)
@shared_options.trust_pickle
@click.option('-n', '--dry-run', help='Show what would be done, and exit', is_flag=True)
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**options: Any) -> None:
    """Make new video of the subject in a recording.

    The steps are the commands embed_video.py, tune_generator.py (with --tune), train_video.py, generate_video.py and
    paste_video.py (with --paste), and log.txt in the result folder has their full output. An interrupted run continues when
    the same command is given again; with another --videos, --seconds, --tune or --paste it makes what is missing.

    Examples:

    \b
    python make_video.py --source=phone.mp4 --network=G.pkl
    \b
    # With an encoder, a minute of footage, and the result in its surroundings.
    python make_video.py --source=phone.mp4 --network=ffhq.pkl --encoder=e4e_ffhq.pt --end=60 --paste
    """
    from training.making.run import make

    make(types.SimpleNamespace(**options))
# fmt: on


if __name__ == '__main__':
    main()
