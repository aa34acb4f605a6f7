"""What report_video.py does once its options are read: find, measure, render, and write one page."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from networks.checkpoints import file_sha256, replacing
from networks.checkpoints.image_generator_lookup import local_file
from networks.errors import InputError
from training.best_snapshot import find_snapshot
from training.commands import command_line
from training.generation.pictures import PictureReader
from training.generation.run import load_encoder, load_networks
from training.latents.dataset import LatentDataset
from training.run_page import charts, pictures
from training.run_page.kept import KeptParts, digest
from training.run_page.measures import Measures, measure
from training.runs.locks import lock_target
from training.temporal_snapshot import versions

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')
STATISTICS = (
    'Loss/C/wasserstein', 'Loss/C/gradient_penalty', 'Loss/G/gradient_angle', 'Loss/G/diversity', 'Loss/G/loss',
    'Timing/sec_per_kimg', 'Progress/learning_rate',
)  # fmt: skip
LARGEST_DRAWN = 1e30
MOST_POINTS = 400  # of a curve; more cannot be seen
COPIES = 0.5  # as near to the footage as that, in units of its own distance to itself, is a copy
CALM, RESTLESS = 0.8, 1.25  # of the footage's speed
FAR = 5.0  # in distances of two halves of the footage


def write_report(options: types.SimpleNamespace) -> None:
    """Carry out report_video.py; `options` has its arguments as attributes.

    Raises:
        InputError: the run has no snapshot, or its data or image generator are not there.
    """
    run_dir = options.run.rstrip('/' + os.sep)
    if not os.path.isdir(run_dir):
        raise InputError(f'--run: there is no folder {run_dir!r}; give the run folder of a training')
    dest = options.dest or os.path.join(run_dir, 'report.html')
    if not dest.lower().endswith(('.html', '.htm')):
        raise InputError(f'--dest: the result is a page, and {dest!r} does not end in .html')
    if not os.path.isdir(os.path.dirname(os.path.abspath(dest))):
        raise InputError(f'--dest: there is no folder {os.path.dirname(dest)!r}')
    network, reason = find_snapshot(options.network or run_dir)
    with lock_target(dest, '--dest'):
        _write_page(options, run_dir, dest, network, reason)


def _write_page(options: types.SimpleNamespace, run_dir: str, dest: str, network: str, reason: str) -> None:
    command_line.report(f'Loading {network}' + (f' ({reason})' if reason else ''))
    device = command_line.choose_device(options.device)
    snapshot, image_generator, sha256, image_sha256 = load_networks(
        network, options.image_network, force=options.force_image_network, trust_pickle=options.trust_pickle, device=device
    )
    described = snapshot.get('data') or {}
    clips, names, fps, data_sha256 = read_footage(options.data or described.get('path'), described, image_generator)
    kept = KeptParts(dest, [sha256, image_sha256, data_sha256, device.type, versions()])
    if os.path.isdir(kept.folder):
        command_line.report('Going on with what an interrupted command has left')
    subjects = read_subjects(options, image_generator, device, kept)
    generator = snapshot['G_ema'].eval().requires_grad_(False)
    found = measure(
        generator.cpu(), clips, fps, options.depths, videos=options.videos,
        advance=lambda what: command_line.report(f'Measuring {what}'),
        keep=lambda name, make: [
            torch.from_numpy(values)
            for values in kept.part(name, list(options.depths), lambda: [tensor.numpy() for tensor in make()])
        ],
    )  # fmt: skip
    generator.to(device)
    page = {
        'name': os.path.basename(os.path.abspath(run_dir)),
        'snapshot': os.path.basename(network),
        'reason': reason,
        'measures': found,
        'verdicts': verdicts(found),
        'clock': lambda frame: charts.clock(frame, fps),
        'fps': fps,
        'footage': {'clips': len(clips), 'seconds': sum(map(len, clips)) / fps, 'names': [shown(name) for name in names]},
        'charts': draw(found, run_dir),
        'options': table_of_options(snapshot.get('training_options') or {}),
        'hashes': {'snapshot': sha256, 'latent data set': data_sha256, 'image generator': image_sha256},
        'versions': {**(snapshot.get('versions') or {}), **{f'{name} (this page)': value for name, value in versions().items()}},
        'burn_in': getattr(generator, 'burn_in', 0),
        'commands': commands(os.path.basename(os.path.abspath(run_dir)), os.path.basename(network), found),
        'subjects': [shown(source) for source in options.subject],
        'transfer': options.transfer,
        **render(options, image_generator, generator, clips, subjects, found, fps, kept),
    }
    with replacing(dest) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.write(compose(page))
    kept.remove()
    command_line.report(f'Wrote {dest} ({command_line.format_bytes(os.path.getsize(dest))})')


def read_subjects(options: types.SimpleNamespace, image_generator: Any, device: Any, kept: KeptParts) -> list[np.ndarray]:
    """Codes [N, num_ws, w_dim] of each of --subject; what is embedded, which may take minutes, is kept."""
    readers: list[PictureReader] = []

    def read(source: str) -> list[np.ndarray]:
        if not readers:
            readers.append(PictureReader(image_generator, load_encoder(options, image_generator, device), align=options.align))
        return [readers[0].read(source)]

    encoder = file_sha256(local_file(options.encoder)) if options.encoder else None
    codes = []
    for index, source in enumerate(options.subject):
        if os.path.isfile(source):
            codes += kept.part(f'subject-{index}', [file_sha256(source), encoder, options.align], functools.partial(read, source))
        else:
            codes += read(source)
    return codes


def read_footage(
    path: str | None, described: dict[str, Any], image_generator: Any
) -> tuple[list[np.ndarray], list[str], float, str]:
    """Codes of each clip, their names, their rate, and the data set's sha256.

    Raises:
        InputError: it is not there, or not the one that the snapshot was trained on.
    """
    if not path or not os.path.exists(path):
        was = f' ({os.path.basename(path)})' if path else ''
        raise InputError(f'the latent data set of this run{was} is not where it was; say with --data where it is')
    with LatentDataset(path) as data:
        if (data.num_ws, data.w_dim) != (int(image_generator.num_ws), int(image_generator.w_dim)):
            raise InputError(f'--data: {path!r} has codes of another image generator than this run')
        if described.get('sha256') not in (None, data.sha256):
            raise InputError(f'--data: {path!r} is not the data set that this run was trained on; its content is another one')
        clips = [np.array(data.load_clip(index)) for index in range(len(data.clips))]
        return clips, [clip.name for clip in data.clips], float(data.fps), data.sha256


def render(
    options: types.SimpleNamespace, image_generator: Any, generator: Any, clips: list[np.ndarray], subjects: list[np.ndarray],
    found: Measures, fps: float, kept: KeptParts,
) -> dict[str, Any]:  # fmt: skip
    """Everything on the page that is rendered."""
    count, length = options.clips, max(2, round(options.clip_seconds * fps))
    length = min(length, max(map(len, clips)))
    depths = [0, found.depths[-1].frame] if found.depths[-1].frame else [0]
    rows = [('footage, embedded', pictures.real_stretches(clips, count, length))]
    for depth in depths:
        where = f'generated, from {charts.clock(depth, fps)} on'
        rows.append((where, [pictures.codes_at(generator, seed, depth, length) for seed in range(count)]))
    with command_line.progress(total=len(rows) * count * length, description='Rendering') as bar:
        videos = []
        for index, (name, row) in enumerate(rows):
            make = functools.partial(pictures.clip, image_generator, row, fps, bar.update, kept, f'row-{index}')
            videos.append((name, kept.text(f'clip-{index}', [digest(codes) for codes in row], make)))
            kept.drop(f'row-{index}-')
    command_line.report('Rendering pictures')
    side = min(int(image_generator.img_resolution), pictures.LARGEST_SIDE)
    return {
        'videos': videos,
        'video_size': (side * count, side),
        'pairs': pictures.pairs(image_generator, generator, clips, found.nearness.pairs, kept),
        'transfer_rows': pictures.transfer_rows(image_generator, generator, subjects, options.transfer, fps, kept)
        if subjects
        else None,
    }


# ----------------------------------------------------------------------------
# Words.


def verdicts(found: Measures) -> list[tuple[str, str, str]]:
    """(question, answer, good | fair | bad) of what a person wants to know first."""
    slowest, quickest = (choose(found.depths, key=lambda depth: depth.speed) for choose in (min, max))
    if slowest.speed < CALM:
        alive = f'It moves {slowest.speed:.2f} times as much as the footage at {charts.clock(slowest.frame, found.fps)}'
        kind = 'bad' if slowest.speed < CALM / 2 else 'fair'
    elif quickest.speed > RESTLESS:
        alive = f'It moves {quickest.speed:.2f} times as much as the footage at {charts.clock(quickest.frame, found.fps)}'
        kind = 'bad' if quickest.speed > 2 * RESTLESS else 'fair'
    else:
        alive = f'Everywhere: it moves {slowest.speed:.2f} to {quickest.speed:.2f} times as much as the footage'
        kind = 'good'
    far, far_kind = _distance_in_words(found)
    copies, copies_kind = _nearness_in_words(found)
    return [
        ('Is it alive?', f'{alive}.', kind),
        ('How far from real?', f'{far}.', far_kind),
        ('Is it copying?', f'{copies}.', copies_kind),
    ]


def _distance_in_words(found: Measures) -> tuple[str, str]:
    best, worst = (choose(found.depths, key=lambda depth: depth.motion_distance) for choose in (min, max))
    floor, where = found.floor[0], charts.clock(worst.frame, found.fps)
    if math.isnan(floor) or floor <= 0:
        value = f'A kernel distance of {worst.motion_distance:.2f} at {where}, where it is largest'
        return f'{value}; the footage is too short to say how far its own halves are apart', 'fair'
    if worst.motion_distance <= floor:
        return 'Its motion is as near to the footage, at every depth, as two halves of the footage are to each other', 'good'
    ratios = [depth.motion_distance / floor for depth in (worst, best)]
    kind = 'fair' if ratios[0] < FAR else 'bad'
    if ratios[0] < 1.2 * ratios[1]:
        text = f'Its motion is {ratios[1]:.1f} to {ratios[0]:.1f} times as far from the footage as two halves of the footage'
        return f'{text} from each other, at every depth', kind
    text = f'Its motion is {ratios[0]:.1f} times as far from the footage as two halves of the footage from each other at {where}'
    return f'{text}, where it is furthest, and {ratios[1]:.1f} times at {charts.clock(best.frame, found.fps)}', kind


def _nearness_in_words(found: Measures) -> tuple[str, str]:
    ratio = found.nearness.ratio
    if math.isnan(ratio):
        return 'The footage is too short to say', 'fair'
    says, kind = ('It copies', 'bad') if ratio < COPIES else ('No', 'good')
    text = f'{says}: a generated second is {ratio:.2f} times as far from the nearest second of the footage'
    return f'{text} as other moments of the footage are', kind


def shown(text: str) -> str:
    """A path without its folders; other words stay."""
    bare = text.rstrip('/\\')
    return re.split(r'[/\\]', bare)[-1] if re.search(r'[/\\]', bare) and '://' not in text else text


def table_of_options(options: dict[str, Any], prefix: str = '') -> list[tuple[str, str]]:
    """(path, value) of every option, without folders of the disk."""
    rows: list[tuple[str, str]] = []
    for name, value in options.items():
        if isinstance(value, dict):
            rows += table_of_options(value, f'{prefix}{name}.')
        elif isinstance(value, (list, tuple)):
            rows.append((prefix + name, ', '.join(shown(str(each)) for each in value) or 'none'))
        else:
            rows.append((prefix + name, shown(str(value)) if value is not None else 'none'))
    return rows


def commands(run: str, snapshot: str, found: Measures) -> list[tuple[str, str]]:
    """(what for, command) to go on with, from the folder that holds the run."""
    return [
        ('Watch it, and change it while it runs', f'python play_video.py --network={run}/{snapshot} --open'),
        ('Four videos of a minute', f'python generate_video.py --network={run}/{snapshot} --outdir=out --seeds=0-3 --seconds=60'),
        (
            'The same as its beginning here, far into the video',
            f'python generate_video.py --network={run}/{snapshot} --outdir=out --seeds=0-2 '
            f'--frames={found.depths[-1].frame + 250}',
        ),
        ('Measure it', f'python calc_metrics_video.py --network={run}/{snapshot}'),
        ('Train it longer', f'python train_video.py --resume={run} --kimg=12800'),
    ]


# ----------------------------------------------------------------------------
# Curves and page.


def draw(found: Measures, run_dir: str) -> dict[str, str]:
    """All charts, by name."""
    drawn = {
        'depth': charts.by_depth(found),
        'autocorrelation': charts.autocorrelations(found),
        'trajectories': charts.trajectories(found),
    }
    statistics = read_statistics(run_dir)
    if statistics:
        drawn['training'] = charts.curves('training', statistics, 'Statistics of the training over its length')
    metrics = read_metrics(run_dir)
    if metrics:
        drawn['metrics'] = charts.curves('metrics', metrics, 'Metrics of the snapshots over the training')
    return drawn


def _lines(path: str) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError), open(path, encoding='utf-8', errors='replace') as file:
        for text in file:
            with contextlib.suppress(ValueError, RecursionError):  # half-written by a power cut
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line


def _can_be_drawn(*values: float) -> bool:
    """Whether these are numbers that an axis can show; a damaged file may hold others."""
    return all(abs(value) < LARGEST_DRAWN for value in values)


def read_statistics(run_dir: str) -> dict[str, list[tuple[float, float]]]:
    """(kimg, mean) of the statistics that say how a training goes, from stats.jsonl."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in _lines(os.path.join(run_dir, 'stats.jsonl')):
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            kimg = float(line['Progress/kimg']['mean'])
            for name in STATISTICS:
                if name in line and _can_be_drawn(kimg, value := float(line[name]['mean'])):
                    found.setdefault(name, []).append((kimg, value))
    return {name: points[:: -(-len(points) // MOST_POINTS)] for name, points in found.items() if len(points) > 1}


def read_metrics(run_dir: str) -> dict[str, list[tuple[float, float]]]:
    """(kimg, value) of the metrics of a run's snapshots, from metric-NAME.jsonl; the later result of a snapshot counts."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name in sorted(os.listdir(run_dir)):
        if not (match := re.fullmatch(r'metric-(.+)\.jsonl', name)):
            continue
        values: dict[float, float] = {}
        for line in _lines(os.path.join(run_dir, name)):
            with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                kimg = re.fullmatch(r'network-snapshot-(\d+)\.pkl', os.path.basename(line['snapshot_pkl']))
                value = float(line['results'][match[1]])
                if kimg and _can_be_drawn(float(kimg[1]), value):
                    values[float(kimg[1])] = value
        if values:
            found[match[1]] = sorted(values.items())
    return found


def compose(page: dict[str, Any]) -> str:
    """The page out of its parts; whatever is no chart is escaped."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    with open(TEMPLATE, encoding='utf-8') as file:
        template = environment.from_string(file.read())
    drawn = {name: markupsafe.Markup(chart) for name, chart in page['charts'].items()}
    return template.render(**{**page, 'charts': drawn})
