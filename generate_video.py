"""Makes new video of a subject with a trained temporal model, or interpolation videos of an image generator alone."""

import types
from typing import Any

import click

from training.commands import command_line, shared_options
from training.control import option_types
from training.runs.shards import SHARD

INTERRUPTED = 'interrupted; finished files and segments are kept, and the same command makes the others'


# fmt: off
@command_line.command(shares_work=True)
# Main options.
@click.option('--network',       help='Snapshot of train_video.py (of a run folder, its best snapshot by the first metric), '
                                      'or an image generator, which makes interpolation videos',
              type=command_line.WEIGHTS_OR_FOLDER, required=True)
@click.option('--outdir',        help='Where to save the results', metavar='DIR', required=True)
@click.option('--seeds',         help='Seeds, for example 0,1,4-6; each makes one video', metavar='LIST',
              type=command_line.SEEDS, default='0-3')
@click.option('--frames',        help='Length of a video  [default: 250; that of --motion; 120 a keyframe]', metavar='INT',
              type=command_line.POSITIVE_INT)
@click.option('--seconds',       help='Length of a video in seconds', metavar='FLOAT', type=command_line.POSITIVE_FLOAT)
# Another subject.
@click.option('--subject',       help='Another subject with the same motion: a code file, a picture, a recording, a latent data '
                                      'set, or seed:NUMBER; with @FRAME behind it and given again, from one to the next',
              metavar='SUBJECT', multiple=True)
@click.option('--transfer',      help='Method of transfer, see docs/subjects.md', type=click.Choice(option_types.TRANSFERS),
              default=option_types.TRANSFERS[0])
@shared_options.transfer_data
@click.option('--motion',        help='Use the motion of this recording: a code file, or a latent data set with :CLIP',
              metavar='CODES')
@shared_options.encoder
@shared_options.align
# Where it begins, and where it leads.
@click.option('--first-frame',   help='Begin with this code or picture', metavar='FILE')
@click.option('--continue',      'continue_from', metavar='CODES',
              help='Go on behind the last frame of this recording: a code file, a latent data set with :CLIP, or, which goes '
                   'on exactly, a video of this command with its generation.jsonl beside it or a state of play_video.py')
@click.option('--first-frame-seed', help='Begin with the first frame of this seed; --seeds decide the motion', metavar='INT',
              type=click.IntRange(0, command_line.MAX_SEED))
@click.option('--loop',          help='The last frame leads into the first one', is_flag=True)
@click.option('--transition',    help='Change to another seed between frames BEGIN and END; may be repeated',
              metavar='SEED@BEGIN-END', type=option_types.TRANSITION, multiple=True)
# What changes it.
@click.option('--edit',          help='Move along a direction: .npy, .npz or .pt, its strength (or STRENGTH@FRAME,...) and '
                                      'layers; may be repeated', metavar='FILE[:STRENGTH[:LAYERS]]', multiple=True)
@click.option('--motion-scale',  help='Size of the movements about the mean of the subject: a number, or NUMBER@FRAME,...',
              metavar='SCALE', type=option_types.KEYFRAMES, default='1')
@click.option('--trunc',         help='Truncation psi: w = center + psi * (w - center); 1 is none, less brings looks and motion '
                                      'closer to the center; a number, or PSI@FRAME,...',
              metavar='PSI', type=option_types.KEYFRAMES, default='1')
@click.option('--trunc-center',  help='Center of the truncation: the mean code of the footage, or w_avg of the image '
                                      'generator', type=click.Choice(['subject', 'generator']), default='subject')
@click.option('--noise-mode',    help='Noise of the image generator', type=click.Choice(['const', 'random', 'none']),
              default='const')
@click.option('--burn-in',       help='Frames to leave out at the beginning  [default: recorded in the snapshot]', metavar='INT',
              type=command_line.NON_NEGATIVE_INT)
# Time and sound.
@click.option('--fps',           help='Frames per second; the motion keeps its speed  [default: that of the footage]',
              metavar='FLOAT', type=command_line.FPS)
@click.option('--speed',         help='2 is twice as fast, 0.5 slow motion', metavar='FLOAT',
              type=command_line.FloatRange(0.01, 100), default=1)
@click.option('--audio',         help='Sound of the video', metavar='FILE')
@click.option('--react',         help='Let loudness and onsets of the sound drive the size of the movements',
              metavar='motion:STRENGTH', type=option_types.REACTION)
# Files.
@click.option('--format',        'ending', help='Video, or a folder of PNG frames', type=click.Choice(option_types.FORMATS),
              default='mp4')
@click.option('--size',          help='Fit pictures into this size, such as 1080x1920', metavar='WxH', type=command_line.SIZE)
@click.option('--pad',           help='How to fill the rest of --size  [default: blur]', type=click.Choice(option_types.PADS))
@click.option('--grid',          help='Show this many seeds side by side in one video', metavar='WxH',
              type=command_line.SIZE)
@click.option('--crf',           help='Quality of mp4, webm and webp, 0 (lossless, large) to 51 (worst)', metavar='FLOAT',
              type=command_line.FloatRange(0, 51), default=17)
@click.option('--save-codes',    help='Also save the W+ codes, seed*.npz with w [frames, num_ws, w_dim]', is_flag=True)
@click.option('--skip-existing', help='Skip files that exist and were made with the same options', is_flag=True)
# An image generator alone.
@click.option('--stills',        help='One picture for each seed', is_flag=True)
@click.option('--keyframes',     help='Seeds that a video goes through  [default: all]', metavar='INT',
              type=click.IntRange(min=2))
@click.option('--keyframe-frames', help='Frames from one seed to the next  [default: 120]', metavar='INT',
              type=command_line.POSITIVE_INT)
@click.option('--easing',        help='Through the seeds (cubic, the default), straight, or with a stop at each (smooth)',
              type=click.Choice(option_types.EASINGS))
# The image generator of a snapshot.
@shared_options.image_network
@shared_options.force_image_network
@shared_options.trust_pickle
# Performance.
@shared_options.device
@click.option('--gpus',          help='Number of GPUs, or of processes on a CPU; more than one starts torchrun',
              metavar='INT', type=command_line.POSITIVE_INT)
@click.option('--shard',         help='Make only the K-th of N shares of the files, as one of N independent jobs',
              metavar='K/N', type=SHARD)
@click.option('--merge',         help='Make nothing: check that the shares of all jobs are in this folder and in others that are '
                                      'named so, and put their files together in --outdir', metavar='DIR', multiple=True)
@click.option('--precision',     help='Of rendering: auto is fp32 on a CPU and what the checkpoint declares on a GPU; bf16 is '
                                      'faster where the processor has it, and differs by less than a video encoder changes',
              type=click.Choice(['auto', 'fp32', 'bf16']), default='auto')
@click.option('--batch',         help='Frames rendered at a time; another number rounds differently in the last bits',
              metavar='INT', type=command_line.POSITIVE_INT, default=8)
@shared_options.memory
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**options: Any) -> None:
    """Make new video of a subject, of any length.

    The same seed gives the same video: a longer one begins with the frames of a shorter one, and other seeds beside it
    change nothing. Memory does not grow with the length.

    Examples:

    \b
    # Four videos of ten seconds at 25 frames per second.
    python generate_video.py --network=training-runs/00000-alice/network-snapshot-000500.pkl --outdir=out \\
        --seeds=0-3 --frames=250

    \b
    # A minute of PNG frames, closer to the subject's mean.
    python generate_video.py --network=network-snapshot-000500.pkl --outdir=out --seeds=7 --frames=1500 \\
        --format=png --trunc=0.8

    \b
    # Bob, moving as Alice does; then as Alice did in a recording.
    python generate_video.py --network=network-snapshot-000500.pkl --outdir=out --subject=bob.jpg --encoder=encoder.pkl
    python generate_video.py --network=network-snapshot-000500.pkl --outdir=out --subject=bob.jpg --motion=latents.zip:speech

    \b
    # A loop of eight seconds for a phone, with a smile that comes and goes.
    python generate_video.py --network=network-snapshot-000500.pkl --outdir=out --seconds=8 --loop --size=1080x1920 \\
        --edit=smile.npy:0@0,2@100,0@199

    \b
    # Two independent jobs, here or on two machines, and a check that all files are there.
    python generate_video.py --network=network-snapshot-000500.pkl --outdir=out --seeds=0-99 --shard=1/2
    python generate_video.py --network=network-snapshot-000500.pkl --outdir=out --seeds=0-99 --shard=2/2
    python generate_video.py --network=network-snapshot-000500.pkl --outdir=out --seeds=0-99 --merge=out

    \b
    # An image generator alone.
    python generate_video.py --network=ffhq.pkl --outdir=out --seeds=0-5 --loop
    """
    from training.generation.run import generate

    generate(types.SimpleNamespace(**options))
# fmt: on


if __name__ == '__main__':
    main()
