"""Measures snapshots: every metric prints one JSON line on standard output, everything else goes to standard error."""

import contextlib
import os
import sys
import types
from typing import Any

import click

from networks.errors import InputError
from training import command_line

INTERRUPTED = 'interrupted; results that were printed are complete, the others have to be started again'

# ----------------------------------------------------------------------------------------------------------------------


def find_data(recorded: dict[str, Any], snapshot: str, asked: str | None) -> str:
    """Path of the latent data set: what the user says, or what the snapshot was trained on, checked by its sha256."""
    from training.image_generator_lookup import candidate_paths
    from training.latent_dataset import LatentDataset

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
        raise InputError(f'{os.path.basename(snapshot)} was trained on {name!r}, but {" and ".join(map(repr, others))} '
                         'has another content; give the old one with --data, or this one to measure against it all the '
                         'same')
    raise InputError(f'{os.path.basename(snapshot)} was trained on {name!r}, which is neither there nor beside the '
                     'snapshot; say where it is with --data')


def run_folder(snapshot: str) -> str | None:
    """The training run that a snapshot lies in, if it does."""
    folder = os.path.dirname(os.path.abspath(snapshot))
    return folder if os.path.isfile(os.path.join(folder, 'training_options.json')) else None


def load_plugins(files: tuple[str, ...]) -> dict[str, str]:
    """Name of each metric -> its file; a broken file of plugins/ is told and left out."""
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


# ----------------------------------------------------------------------------------------------------------------------


@command_line.command()
@click.option('--network',      help='Snapshot of train_video.py', metavar='PKL|URL')
@click.option('--metrics',      help='Which metrics; --list-metrics names them', metavar='A,B,...|none',
              type=command_line.NAMES, default='lfd2048_25f,lfd2048_25f_at225')
@click.option('--data',         help='Latent data set to compare with  [default: the one of the training]',
              metavar='ZIP|DIR')
@click.option('--plugin',       'plugins', help='Add the metrics of this file; may be repeated', metavar='FILE',
              multiple=True)
@click.option('--list-metrics', help='Print the names of all metrics and leave', is_flag=True)
@click.option('--trust-pickle', help='Run the program code that the pickle carries; only for files that you trust',
              is_flag=True)
@click.option('--device',       help='cpu, cuda, cuda:1, ...; auto takes a GPU if there is one', metavar='NAME',
              default='auto')
@command_line.clear_errors(interrupted=INTERRUPTED)
def main(**options: Any) -> None:
    """Measure the videos of a snapshot.

    Each result is one line of JSON on standard output, in the form of NVIDIA's calc_metrics.py with the protocol
    beside it. A snapshot in a training run also gets it appended to metric-NAME.jsonl there.

    Examples:

    \b
    # What the snapshot was trained on is found by itself.
    python calc_metrics_video.py --network=training-runs/00000-alice/network-snapshot-000500.pkl

    \b
    # A metric of your own.
    python calc_metrics_video.py --network=network-snapshot-000500.pkl --plugin=blinks.py --metrics=blink_rate
    """
    calculate(types.SimpleNamespace(**options))


def calculate(options: types.SimpleNamespace) -> None:
    """Carry out `main`; `options` has its arguments as attributes."""
    known = load_plugins(options.plugins)
    if options.list_metrics:
        list_metrics(known)
        return
    unknown = [name for name in options.metrics if name not in known]
    if unknown:
        raise command_line.UserMistake(f'--metrics: there is no {", ".join(unknown)}; known are '
                                       f'{", ".join(known) or "none"}, and --plugin adds more')
    if not options.network:
        raise click.UsageError("Missing option '--network'.")
    device = command_line.choose_device(options.device)

    import dnnlib
    from metrics import metric_main
    from networks import checkpoints
    from training.image_generator_lookup import is_address
    from training.latent_dataset import LatentDataset
    from training.temporal_snapshot import versions

    command_line.report(f'Loading {options.network}')
    network = options.network
    snapshot = checkpoints.load_snapshot(network, device=device, trust_pickle=options.trust_pickle)
    generator = snapshot.get('G_ema')
    if generator is None:
        raise InputError(f'{network!r} is no snapshot of train_video.py: it has no latent generator (G_ema)')
    if not options.metrics:
        return
    data = find_data(snapshot.get('data') or {}, network, options.data)
    dataset = LatentDataset(data)
    protocol = {
        'data': data,
        'data_sha256': dataset.sha256,
        'data_clips': len(dataset.clips),
        'data_frames': sum(clip.num_frames for clip in dataset.clips),
        'fps': dataset.fps,
        'network': network,
        'network_sha256': checkpoints.file_sha256(
            dnnlib.util.open_url(network, return_filename=True) if is_address(network) else network),
        'device': str(device),
        'versions': versions(),
    }
    dataset.close()
    command_line.report(f'Data set: {data}, {protocol["data_clips"]} clips, {protocol["data_frames"]} frames')

    for name in options.metrics:
        command_line.report(f'Calculating {name}')
        with contextlib.redirect_stdout(sys.stderr):  # a host's progress would otherwise stand between the results
            result = metric_main.calc_metric(
                metric=name, G=generator, num_gpus=1, rank=0, device=device, progress=progress_monitor(),
                dataset_kwargs=dnnlib.EasyDict(class_name='training.latent_dataset.LatentDataset', path=data))
        definition = {'metric_file': known[name], 'metric_file_sha256': checkpoints.file_sha256(known[name])}
        result = dnnlib.EasyDict(result, protocol={**protocol, **definition})
        metric_main.report_metric(result, run_dir=run_folder(network), snapshot_pkl=network)


def progress_monitor() -> Any:
    from metrics import metric_utils
    return metric_utils.ProgressMonitor(verbose=True)


if __name__ == '__main__':
    main()
