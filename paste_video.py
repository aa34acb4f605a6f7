"""Pastes generated, edited or embedded crops back into the recording that the codes were made of."""

import types
from typing import Any

import click

from training.commands import command_line, shared_options

INTERRUPTED = 'interrupted; finished segments are kept, and the same command goes on'
MASKS = ('auto', 'face', 'ellipse', 'square')
BEYOND = ('boomerang', 'loop', 'stop')


# fmt: off
@command_line.command()
# What into what.
@click.option('--data',          help='Latent data set of embed_video.py, which records where the crops were cut out',
              metavar='DATA', required=True)
@click.option('--dest',          help='Video to write (.mp4 .mov .mkv), or a folder of lossless PNG frames', metavar='PATH',
              required=True)
@click.option('--crops',         help='What to paste: a video or frames of generate_video.py, or W+ codes (.npz .npy .pt)  '
                                      '[default: the embedded crops themselves]', metavar='FOOTAGE')
@click.option('--clip',          help='Clip of the data set, where it holds several', metavar='NAME')
@click.option('--source',        help='The recording  [default: where it was when it was embedded]', metavar='FOOTAGE')
@click.option('--beyond',        help='When there are more crops than frames: play the recording backward and forward, start '
                                      'it over, or stop', type=click.Choice(BEYOND), default=BEYOND[0])
# How.
@click.option('--mask',          help='Part of the crop to paste; auto: the face where there are landmarks, an ellipse around '
                                      'the head for other aligned faces, otherwise the whole square', type=click.Choice(MASKS),
              default=MASKS[0])
@click.option('--landmarks',     help='68 landmarks of every frame of the recording (.npy, .npz) instead of the detector',
              metavar='FILE')
@click.option('--face-model',    help="Model of the detector, a face_landmarker.task, instead of the package's",
              type=command_line.WEIGHTS)
@click.option('--match',         help='Match the colours along the edge of the mask', type=click.Choice(['seam', 'none']),
              default='seam')
# File.
@click.option('--crf',           help='Quality of the video, 0 (lossless, large) to 51 (worst)', metavar='FLOAT',
              type=command_line.FloatRange(0, 51), default=17)
@click.option('--sound/--no-sound', help="Keep the recording's sound", default=True)
@click.option('--overwrite',     help='Replace DEST if it exists', is_flag=True)
# The image generator, for codes.
@click.option('--network',       help='The image generator, where the reference in the data set does not find it',
              type=command_line.WEIGHTS)
@click.option('--force-network', help='Use --network even though it is another file, such as one fine-tuned in the same W+ space',
              is_flag=True)
@shared_options.trust_pickle
@shared_options.device
@click.option('--batch',         help='Frames rendered at a time; another number rounds differently in the last bits',
              metavar='INT', type=command_line.POSITIVE_INT, default=8)
@shared_options.memory
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**options: Any) -> None:
    """Paste crops back into the recording.

    Crop number n goes into frame number n of the clip, at the place where the data set says that it was cut out. Outside the
    mask the frames stay as they are. An interrupted run continues when the same command is given again.

    Examples:

    \b
    # The recording with the embedded face shows how much the codes preserve.
    python paste_video.py --data=latents.zip --dest=embedded.mp4
    \b
    # New motion in the recorded surroundings.
    python paste_video.py --data=latents.zip --crops=out/seed0000.mp4 --dest=pasted.mp4
    \b
    # An edit of the recording itself, frame by frame.
    python generate_video.py --network=run/ --outdir=out --motion=latents.zip --edit=smile.npy:2 --save-codes
    python paste_video.py --data=latents.zip --crops=out/motion.npz --dest=smiling.mp4
    """
    from training.pasting.run import paste

    paste(types.SimpleNamespace(**options))
# fmt: on


if __name__ == '__main__':
    main()
