"""Writes a page about a training run: does it look right, is it alive, how far from real, does it copy."""

import types
from typing import Any

import click

from training.commands import command_line, shared_options
from training.control import option_types

INTERRUPTED = 'interrupted; finished parts are kept for the same command, and an older page is as it was'


def _parse_depths(text: str) -> list[int]:
    try:
        depths = [int(part) for part in text.replace(' ', '').split(',')]
    except ValueError:
        raise ValueError(f'{text!r} is no list of frame numbers; write for example 0,225,1000') from None
    if depths != sorted(set(depths)) or depths[0] < 0 or depths[-1] > 1_000_000:
        raise ValueError(f'{text!r} does not rise from 0 or more to at most 1000000')
    return depths


# fmt: off
@command_line.command()
@click.option('--run',           help='Run folder of train_video.py', metavar='DIR', required=True)
@click.option('--dest',          help='Page to write  [default: report.html in the run folder]', metavar='HTML')
@click.option('--network',       help='Snapshot of the run  [default: the best by its first metric, or the last]',
              type=command_line.WEIGHTS)
@click.option('--data',          help='Latent data set, if it has moved', metavar='DATA')
@click.option('--depths',        help='Frame numbers at which videos are measured', metavar='LIST',
              type=command_line.Parsed('depths', _parse_depths), default='0,225,1000,2500', show_default=True)
@click.option('--videos',        help='Number of videos to measure; below 1000, variances are uncertain by more than 10 %',
              metavar='INT', type=click.IntRange(16, 65536), default=1024)
@click.option('--clips',         help='Number of clips side by side', metavar='INT', type=click.IntRange(1, 8), default=3)
@click.option('--clip-seconds',  help='Length of the clips, seconds', metavar='FLOAT', type=command_line.FloatRange(0.1, 60),
              default=6)
@click.option('--subject',       help='Another subject to show with the same motion, as in generate_video.py; may be repeated',
              metavar='SUBJECT', multiple=True, default=('seed:1', 'seed:2'), show_default=True)
@click.option('--transfer',      help='Method of transfer, see docs/subjects.md', type=click.Choice(option_types.TRANSFERS[:4]),
              default=option_types.TRANSFERS[0])
@shared_options.encoder
@shared_options.align
@shared_options.image_network
@shared_options.force_image_network
@shared_options.trust_pickle
@shared_options.device
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**options: Any) -> None:
    """Write a page about a training run: one HTML file that opens from disk, without a network.

    The most important answers come first: real and generated clips side by side, whether the motion stays alive, how far it is
    from real footage at each depth, and whether it copies; then trajectories, other subjects, curves, options, hashes, and
    commands for what to do next. The page names no folder of this machine.

    Example:

    \b
    python report_video.py --run=training-runs/00000-alice
    """
    from training.run_page.run import write_report

    write_report(types.SimpleNamespace(**options))
# fmt: on


if __name__ == '__main__':
    main()
