"""Prepare recordings: split them at scene cuts and lost faces, align the faces, and write the result as video or images."""

import json
import os
import shutil
import types
from typing import Any

import click
import numpy as np

from networks.checkpoints.durable_files import replacing
from networks.errors import DAMAGED_FILE
from training.commands.command_line import FPS, POSITIVE_INT, UserMistake, clear_errors, command, new_result, progress, report
from training.commands.file_names import printable, safe_path, unique_names
from training.footage.preparation_options import parts_of_sources, preparation_options, preparation_settings
from training.runs.locks import lock_target

# In DEST.partial, hidden, so that no clip has such a name.
LOOK_FOLDER, SETTINGS_FILE = '.first-look', '.settings.json'


# fmt: off
@command()

# What to prepare.
@click.option('--source',    help='Video, folder or zip of frames, folder of videos; may be repeated', metavar='FOOTAGE',
              required=True, multiple=True)
@click.option('--dest',      help='Folder to write: a video, or a folder of images, for each clip', metavar='DIR', required=True)
@click.option('--size',      help='Side of the frames, pixels', metavar='INT', type=POSITIVE_INT, default=256)
@click.option('--format',    help='H.264 video, or lossless images', type=click.Choice(['mp4', 'png']), default='mp4')
@click.option('--fps',       help='Videos: resample to this rate; images: assume this rate', metavar='FPS', type=FPS)
@click.option('--damaged',   help='Recordings that cannot be decoded to their end: stop, keep the frames before, or skip them',
              type=click.Choice(['stop', 'keep', 'skip']), default='stop')

# Footage: which part, split where, aligned how.
@preparation_options
@clear_errors
def main(**options: Any) -> None:
    """Split and align recordings as embed_video.py does, and write the clips.

    For training an encoder on aligned frames (train_encoder.py --data=DIR), for other tools, and for looking at what
    embedding will see (embed_video.py --source=DIR --align=none embeds it). Each clip has its quads.npy beside or inside,
    the corners of what was cut out of each frame; preparation.json tells what was left out and why. An interrupted run
    goes on when the same command is given again.

    Examples:

    \b
    # Faces of a folder of recordings, aligned as FFHQ's, for an encoder of a 256x256 generator.
    python align_video.py --source=recordings/ --align=ffhq --size=256 --dest=aligned
    \b
    # A part of one recording as images.
    python align_video.py --source=talk.mp4 --start=1:30 --end=2:00 --align=ffhq --size=1024 --format=png --dest=aligned
    """
    opts = types.SimpleNamespace(**options)
    parts, settings = parts_of_sources(opts), preparation_settings(opts)
    opts.dest = new_result(opts.dest, zipped=False)
    with lock_target(opts.dest, '--dest'):
        new_result(opts.dest, zipped=False)  # nobody has finished it in between
        _run(opts, parts, settings)
# fmt: on


def _run(opts: types.SimpleNamespace, parts: list[tuple[float | None, float | None]], settings: Any) -> None:
    from training.footage.clips import open_footage, with_unique_names
    from training.footage.preparation import describe_preparation, prepare_footage

    sources = [
        clip
        for source, (start, end) in zip(opts.source, parts, strict=True)
        for clip in open_footage(
            source, fps=opts.fps, keep_damaged=opts.damaged == 'keep', skip_damaged=opts.damaged == 'skip', start=start, end=end
        )
    ]
    about = json.loads(
        json.dumps(
            {
                'sources': [printable(os.path.abspath(path)) for path in opts.source],
                'parts': parts,
                'fps': opts.fps,
                'size': opts.size,
                'format': opts.format,
                'damaged': opts.damaged,
                'preparation': settings.description(),
            }
        )
    )
    partial = opts.dest + '.partial'
    clips, pieces = prepare_footage(
        with_unique_names(sources),
        settings,
        size=opts.size,
        folder=os.path.join(partial, LOOK_FOLDER),
        skip_damaged=opts.damaged == 'skip',
    )
    for line in describe_preparation(pieces):
        report(line)
    _continue(partial, about)
    for clip, name in zip(clips, unique_names(safe_path(clip.name) for clip in clips), strict=True):
        _write_clip(clip, os.path.join(partial, *name.split('/')), opts)
    with replacing(os.path.join(partial, 'preparation.json')) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        json.dump({**about, 'pieces': pieces}, file, indent=2)
    os.remove(os.path.join(partial, SETTINGS_FILE))
    shutil.rmtree(os.path.join(partial, LOOK_FOLDER))
    if os.path.isdir(opts.dest):
        os.rmdir(opts.dest)  # the empty folder that was there
    os.rename(partial, opts.dest)
    report(f'{len(clips)} clips with {sum(clip.num_frames or 0 for clip in clips)} frames are in {opts.dest}')


def _continue(partial: str, about: dict[str, Any]) -> None:
    """Make sure that what an interrupted run has left was made with the same settings."""
    path = os.path.join(partial, SETTINGS_FILE)
    os.makedirs(partial, exist_ok=True)
    try:
        with open(path, encoding='utf-8') as file:
            before = json.load(file)
    except (FileNotFoundError, *DAMAGED_FILE):
        before = None
    if before not in (None, about):
        raise UserMistake(
            f'{partial} holds an interrupted run with other settings; remove this folder to start over, or give '
            'the settings of that run to finish it'
        )
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        json.dump(about, file)


def _write_clip(clip: Any, path: str, opts: types.SimpleNamespace) -> None:
    """Write one clip; `quads.npy`, which comes last, says that it is whole."""
    from training.footage.clips import fit
    from training.videos.output import PngWriter, VideoWriter

    quads = os.path.join(path, 'quads.npy') if opts.format == 'png' else path + '.quads.npy'
    if os.path.isfile(quads):
        return
    os.makedirs(os.path.dirname(quads), exist_ok=True)
    writer: Any = VideoWriter(path + '.mp4', fps=clip.fps) if opts.format == 'mp4' else PngWriter(path)
    count = 0
    with writer, progress(total=clip.expected_frames, description=clip.name) as bar:
        for frame in clip.frames():
            writer.write(fit(frame, opts.size))
            count += 1
            bar.update(1)
    with replacing(quads) as temporary, open(temporary, 'wb') as file:
        np.save(file, np.broadcast_to(clip.quads, (count, 4, 2)))


if __name__ == '__main__':
    main()
