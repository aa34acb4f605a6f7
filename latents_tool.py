"""Looks into latent data sets, joins and divides them, measures and shows what is in them, and converts them."""

import json
import os
import sys
import types
from typing import TYPE_CHECKING, Any

import click

from networks.errors import InputError
from training.commands import shared_options
from training.commands.command_line import (
    NAMES,
    NON_NEGATIVE_INT,
    POSITIVE_INT,
    WEIGHTS,
    FloatRange,
    UserMistake,
    choose_device,
    clear_errors,
    command_group,
    is_empty_folder,
    new_result,
    report,
    require_folder,
)

if TYPE_CHECKING:
    import torch


CODE_FORMATS = ('npz', 'npy', 'pt')


@command_group()
def main() -> None:
    """Latent data sets: what embed_video.py makes and train_video.py learns from.

    Examples:

    \b
    python latents_tool.py info latents.zip
    python latents_tool.py merge --data=monday.zip --data=tuesday.zip --dest=all.zip
    python latents_tool.py split --data=all.zip --train=train.zip --test=test.zip
    python latents_tool.py stats latents.zip
    python latents_tool.py preview --data=latents.zip --outdir=videos
    python latents_tool.py directions --data=latents.zip --outdir=directions
    python latents_tool.py convert --source=latents.zip --dest=codes --format=npz
    """


# fmt: off
@main.command()
@click.argument('paths',           metavar='DATA...', nargs=-1, required=True)
@click.option('--sha256',          help='Also print the digest of all codes, which reads them', is_flag=True)
@click.option('--json', 'as_json', help='One line of JSON for each data set instead of text', is_flag=True)
@clear_errors
def info(paths: tuple[str, ...], sha256: bool, as_json: bool) -> None:
    """Tell what data sets hold: image generator, clips, rates, quality."""
    from training.latents.dataset import LatentDataset
    from training.latents.statistics import describe, description_text

    for path in paths:
        with LatentDataset(path) as dataset:
            content = describe(dataset, digest=sha256)
        print(json.dumps(content) if as_json else description_text(content))
# fmt: on


# fmt: off
@main.command()
@click.option('--data',      help='Data set to join; give at least two', metavar='ZIP|DIR', required=True, multiple=True)
@click.option('--dest',      help='Data set to write: a .zip or a folder', metavar='PATH', required=True)
@click.option('--force',     help='Join them even though image generators or frame rates differ', is_flag=True)
@click.option('--overwrite', help='Replace DEST if it exists', is_flag=True)
@clear_errors
def merge(data: tuple[str, ...], dest: str, force: bool, overwrite: bool) -> None:
    """Join data sets of one image generator.

    Clips of equal names get numbers. Shares of one embedding (embed_video.py --shard) become what a single job would have made;
    all of them have to be there.
    """
    import contextlib

    from training.latents.dataset import LatentDataset
    from training.latents.operations import merge as merge_datasets

    if len(data) < 2:
        raise UserMistake('--data: give at least two data sets to join')
    _check_dest(dest, overwrite, data)
    with contextlib.ExitStack() as stack:
        datasets = [stack.enter_context(LatentDataset(path)) for path in data]
        merge_datasets(datasets, dest, force=force, overwrite=overwrite)
    _report_result(dest)
# fmt: on


# fmt: off
@main.command()
@click.option('--data',      help='Data set to divide', metavar='ZIP|DIR', required=True)
@click.option('--train',     help='Data set to write, the larger part', metavar='PATH', required=True)
@click.option('--test',      help='Data set to write, the other part', metavar='PATH', required=True)
@click.option('--by',
              help='What must not be in both parts: recordings, clips, speakers (see --speaker); or the time within clips',
              type=click.Choice(['recording', 'clip', 'speaker', 'time']), default='recording')
@click.option('--fraction',  help='Share of the frames for --test', metavar='FLOAT',
              type=FloatRange(0, 1, min_open=True, max_open=True), default=0.2)
@click.option('--test-clips', help='Names of the clips for --test instead, * and ? allowed', metavar='A,B,...', type=NAMES)
@click.option('--speaker',   help='Regular expression that finds the speaker in the name of a clip', metavar='REGEX',
              default=r'^[^_-]+')
@click.option('--gap',       help='--by=time: frames left out between the two parts', metavar='INT', type=NON_NEGATIVE_INT,
              default=25)
@click.option('--seed',      help='Random seed for the choice', metavar='INT', type=NON_NEGATIVE_INT, default=0)
@click.option('--overwrite', help='Replace what exists', is_flag=True)
@clear_errors
def split(**options: Any) -> None:
    """Divide a data set into one for training and one for testing."""
    from training.latents.dataset import LatentDataset
    from training.latents.operations import is_written, write_selections

    opts = types.SimpleNamespace(**options)
    if os.path.abspath(opts.train) == os.path.abspath(opts.test):
        raise UserMistake('--train and --test are the same file')
    with LatentDataset(opts.data) as dataset:
        parts = dict(zip((opts.train, opts.test), _divide(dataset, opts), strict=True))
        for path in parts:
            _check_dest(path, opts.overwrite or is_written(path, parts), [opts.data])
        write_selections(parts, image_generator=dataset.image_generator, embedding=dataset.embedding, overwrite=opts.overwrite)
    for path in parts:
        _report_result(path)
# fmt: on


def _divide(dataset: Any, opts: types.SimpleNamespace) -> tuple[list[Any], list[Any]]:
    from training.latents.operations import match_clips, speaker_of, split_by_group, split_by_time, whole_clips

    if opts.test_clips:
        test = match_clips(dataset, opts.test_clips)
        train = [index for index in range(len(dataset.clips)) if index not in test]
        if not train:
            raise UserMistake('--test-clips names every clip, so nothing is left for --train')
        return whole_clips(dataset, train), whole_clips(dataset, test)
    if opts.by == 'time':
        return split_by_time(dataset, opts.fraction, opts.gap)
    group_of = {
        'recording': lambda clip: clip.source or clip.name,
        'clip': lambda clip: clip.name,
        'speaker': speaker_of(opts.speaker),
    }[opts.by]
    return split_by_group(dataset, group_of, opts.fraction, opts.seed)


# fmt: off
@main.command()
@click.option('--data',      help='Data set to filter', metavar='ZIP|DIR', required=True)
@click.option('--dest',      help='Data set to write: a .zip or a folder', metavar='PATH', required=True)
@click.option('--sigma',     help='Standard deviation of the Gaussian filter, frames', metavar='FLOAT',
              type=FloatRange(0.1, 1000), default=1)
@click.option('--overwrite', help='Replace DEST if it exists', is_flag=True)
@clear_errors
def smooth(data: str, dest: str, sigma: float, overwrite: bool) -> None:
    """Low-pass filter codes over time.

    For those of encoders, which judge every frame by itself.
    """
    from training.latents.dataset import LatentDataset
    from training.latents.operations import whole_clips, write_selections

    _check_dest(dest, overwrite, [data])
    with LatentDataset(data) as dataset:
        write_selections({dest: whole_clips(dataset)}, image_generator=dataset.image_generator,
                         embedding={**dataset.embedding, 'filter_sigma': sigma}, overwrite=overwrite, sigma=sigma)
    _report_result(dest)
# fmt: on


# fmt: off
@main.command()
@click.argument('path',            metavar='DATA')
@click.option('--frames',          help='Maximum frames for variance and resemblance, evenly spread', metavar='INT',
              type=POSITIVE_INT, default=4096)
@click.option('--json', 'as_json', help='One line of JSON instead of text', is_flag=True)
@clear_errors
def stats(path: str, frames: int, as_json: bool) -> None:
    """Measure motion, jitter, variance; find clips that resemble.

    The numbers are explained in docs/footage/latents.md.
    """
    from training.latents.dataset import LatentDataset
    from training.latents.statistics import measure, measures_text

    with LatentDataset(path) as dataset:
        content = measure(dataset, max_frames=frames)
    print(json.dumps(content) if as_json else measures_text(content))
# fmt: on


# fmt: off
@main.command()
@click.option('--data',          help='Data set of one subject', metavar='ZIP|DIR', required=True)
@click.option('--outdir',        help='Folder for motion00.npy, ... and motion.png', metavar='DIR', required=True)
@click.option('--count',         help='Number of directions', metavar='INT', type=POSITIVE_INT, default=8)
@click.option('--network',       help='Image generator  [default: the one recorded in the data set]', type=WEIGHTS)
@click.option('--force-network', help='Use --network even though the codes were embedded with another file', is_flag=True)
@shared_options.device
@shared_options.trust_pickle
@clear_errors
def directions(**options: Any) -> None:
    """Find the directions in which a subject moves, for --edit of generate_video.py, and show them."""
    import numpy as np

    from training.control.motion_directions import write_directions
    from training.latents.dataset import LatentDataset

    opts = types.SimpleNamespace(**options)
    device = choose_device(opts.device)
    with LatentDataset(opts.data) as dataset:
        image_generator = _load_generator_of(dataset, opts, device)
        require_folder(opts.outdir)
        stride = max(1, dataset.num_frames // 4096)
        codes = np.concatenate([dataset.load_clip(index)[::stride] for index in range(len(dataset.clips))])
        for path, share in write_directions(codes, image_generator, opts.outdir, opts.count):
            report(f'{path}: {100 * share:.1f} % of the variance')
        report(f'Each of them by -2 to 2 deviations: {os.path.join(opts.outdir, "motion.png")}')
# fmt: on


# fmt: off
@main.command()
@click.option('--data',          help='Data set to show', metavar='ZIP|DIR', required=True)
@click.option('--outdir',        help='Folder for the videos, NAME.mp4', metavar='DIR', required=True)
@click.option('--clips',         help='Only these clips, * and ? allowed', metavar='A,B,...', type=NAMES)
@click.option('--network',       help='Image generator  [default: the one recorded in the data set]', type=WEIGHTS)
@click.option('--force-network', help='Use --network even though the codes were embedded with another file', is_flag=True)
@click.option('--skip-existing', help='Skip videos that exist already', is_flag=True)
@click.option('--batch',         help='Frames rendered at a time', metavar='INT', type=POSITIVE_INT, default=8)
@shared_options.memory
@shared_options.device
@shared_options.trust_pickle
@clear_errors(interrupted='interrupted; finished videos are kept, the same command with --skip-existing makes the others')
def preview(**options: Any) -> None:
    """Render the codes to video."""
    from training.latents.dataset import LatentDataset
    from training.latents.operations import match_clips
    from training.videos.latent_preview import render_clip, video_path

    opts = types.SimpleNamespace(**options)
    device = choose_device(opts.device)
    with LatentDataset(opts.data) as dataset:
        indices = match_clips(dataset, opts.clips or [])
        image_generator = _load_generator_of(dataset, opts, device)
        require_folder(opts.outdir)
        for index in indices:
            path = video_path(dataset, index, opts.outdir)
            if opts.skip_existing and os.path.exists(path):
                continue
            render_clip(image_generator, dataset, index, path, batch=opts.batch, memory=opts.memory)
            report(f'{dataset.clips[index].name}: {path}')
# fmt: on


# fmt: off
@main.command()
@click.option('--source',       help='Data set, or codes of other tools (.npz .npy .pt, or a folder of them)', metavar='PATH',
              required=True)
@click.option('--dest',         help='Data set (.zip or folder), one file of codes, or with --format a folder of such',
              metavar='PATH', required=True)
@click.option('--format', 'code_format', help='Write one file of this kind per clip', type=click.Choice(CODE_FORMATS))
@click.option('--clips',        help='Only these clips, * and ? allowed', metavar='A,B,...', type=NAMES)
@click.option('--network',      help='Codes of other tools: the image generator that they belong to', type=WEIGHTS)
@click.option('--fps',          help='Codes of other tools: their frame rate', metavar='FPS',
              type=FloatRange(0, 1000, min_open=True))
@click.option('--overwrite',    help='Replace what exists', is_flag=True)
@shared_options.trust_pickle
@clear_errors
def convert(**options: Any) -> None:
    """Convert to and from files of other tools, or a zip to a folder.

    .npz holds `w` [T, num_ws, w_dim] and `fps`, .npy the array, .pt a tensor.
    """
    from training.latents.code_files import holds_codes
    from training.latents.dataset import is_latent_dataset

    opts = types.SimpleNamespace(**options)
    if not os.path.exists(opts.source):
        raise UserMistake(f'--source: there is no file or folder {opts.source!r}')
    is_dataset = is_latent_dataset(opts.source) or not holds_codes(opts.source)
    if is_dataset:
        _convert_dataset(opts)
    else:
        _import_codes(opts)
# fmt: on


def _load_generator_of(dataset: Any, opts: types.SimpleNamespace, device: 'torch.device') -> Any:
    """The image generator of a data set, or --network."""
    from networks.checkpoints import load_generator
    from networks.checkpoints.image_generator_lookup import OptionNames, TunedTo, find_image_generator

    network = find_image_generator(
        dataset.image_generator,
        snapshot=opts.data,
        image_network=opts.network,
        force=opts.force_network,
        options=OptionNames('--network', '--force-network'),
        tuned_to=TunedTo(opts.data, lambda: dataset.sha256),
        say=report,
    )
    image_generator: Any = load_generator(network, device=str(device), trust_pickle=opts.trust_pickle)
    if (int(image_generator.num_ws), int(image_generator.w_dim)) != (dataset.num_ws, dataset.w_dim):
        raise InputError(
            f'{network} takes codes [{int(image_generator.num_ws)}, {int(image_generator.w_dim)}], but {opts.data} has '
            f'[{dataset.num_ws}, {dataset.w_dim}]; it is another image generator.'
        )
    return image_generator


def _convert_dataset(opts: types.SimpleNamespace) -> None:
    from training.latents.dataset import LatentDataset
    from training.latents.operations import export_codes, match_clips, whole_clips, write_selections
    from training.videos.latent_preview import clip_files

    if opts.network or opts.fps:
        raise UserMistake('--network and --fps are for codes of other tools, but --source is a data set')
    to_files = opts.code_format or opts.dest.lower().endswith(tuple(f'.{name}' for name in CODE_FORMATS))
    _check_dest(opts.dest, opts.overwrite or bool(opts.code_format), [opts.source], codes=bool(to_files))
    with LatentDataset(opts.source) as dataset:
        indices = match_clips(dataset, opts.clips or [])
        if not to_files:
            write_selections(
                {opts.dest: whole_clips(dataset, indices)},
                image_generator=dataset.image_generator,
                embedding=dataset.embedding,
                overwrite=opts.overwrite,
            )
            _report_result(opts.dest)
            return
        if not opts.code_format and len(indices) > 1:
            raise UserMistake(
                f'{opts.source} has {len(indices)} clips, and {opts.dest} is one file; choose a clip by --clips, '
                'or give --format and a folder'
            )
        paths = [opts.dest] if not opts.code_format else clip_files(dataset, indices, opts.dest, f'.{opts.code_format}')
        for index, path in zip(indices, paths, strict=True):
            require_folder(os.path.dirname(os.path.abspath(path)))
            if os.path.exists(path) and not opts.overwrite:
                raise UserMistake(f'{path} already exists; choose another name, or replace it by --overwrite')
            export_codes(dataset, index, path)
            report(f'{dataset.clips[index].name}: {path}')


def _import_codes(opts: types.SimpleNamespace) -> None:
    from networks.checkpoints import image_generator_reference, load_generator
    from training.latents.code_files import open_codes
    from training.latents.writer import LatentDatasetWriter

    if not opts.network:
        raise UserMistake('--network: codes of other tools need the image generator that they belong to')
    if opts.code_format or opts.clips:
        raise UserMistake('--format and --clips are for data sets, but --source holds codes of other tools')
    _check_dest(opts.dest, opts.overwrite, [opts.source])
    image_generator: Any = load_generator(opts.network, trust_pickle=opts.trust_pickle)
    num_ws, w_dim = int(image_generator.num_ws), int(image_generator.w_dim)
    clips = open_codes(opts.source, num_ws=num_ws, w_dim=w_dim, fps=opts.fps)
    embedding = {'method': 'codes taken over', 'sources': [os.path.abspath(opts.source)]}
    with LatentDatasetWriter(
        opts.dest,
        image_generator=image_generator_reference(opts.network, image_generator),
        num_ws=num_ws,
        w_dim=w_dim,
        embedding=embedding,
        overwrite=opts.overwrite,
    ) as writer:
        for clip in clips:
            if not writer.has_clip(clip.name):
                writer.add_clip(clip.name, clip.load(), fps=clip.fps, source=clip.source)
    _report_result(opts.dest)


def _check_dest(dest: str, overwrite: bool, sources: Any, *, codes: bool = False) -> None:
    """Stop at a result that cannot be written: a data set, or with `codes` files for other tools."""
    if any(os.path.abspath(dest) == os.path.abspath(path) for path in sources):
        raise UserMistake(f'{dest} is read, so it cannot be written at the same time; choose another name')
    if not codes:
        new_result(dest, zipped=True, overwrite=overwrite)
        return
    if os.path.exists(dest) and not overwrite and not is_empty_folder(dest):
        raise UserMistake(f'{dest} already exists; choose another name, or replace it by --overwrite')
    require_folder(os.path.dirname(os.path.abspath(dest)))


def _report_result(path: str) -> None:
    from training.latents.dataset import LatentDataset

    with LatentDataset(path) as dataset:
        report(f'{len(dataset.clips)} clips, {dataset.num_frames} frames at {dataset.fps:g} frames per second are in {path}')


if __name__ == '__main__':
    sys.exit(main())
