"""The quality report of an embedding, a folder beside the data set: what a person looks at before training.

For clip number i: `i-NAME.mp4` (original | embedded), `i-NAME.png` (measures over time), `i-NAME-frames.png` (frames at
equal distances and the worst ones) and `i-NAME.jsonl` (measures of every frame). `report.json` has the numbers of all clips,
`index.html` shows everything in a browser.
"""

import html
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from networks.checkpoints.durable_files import replacing
from networks.errors import DAMAGED_FILE
from training.commands.file_names import safe_name
from training.embedding.clip_review import ShownFrame
from training.latents.frame_measures import read_measures
from training.latents.layout import total_quality

# Measure: (name for people, unit, digits, what is good).
MEASURES: dict[str, tuple[str, str, int, str]] = {
    'psnr': ('PSNR', 'dB', 2, 'higher is better'),
    'gain': ('gain', 'dB', 2, 'PSNR above that of the picture of the average code; near 0, the codes say nothing'),
    'lpips': ('LPIPS', '', 4, 'lower is better'),
    'identity': ('identity distance', '', 3, 'lower is better; below 0.6 is the same person'),
    'deviation': (
        'deviation of codes',
        'std of W',
        2,
        'distance from the average code; lower is nearer to what the generator has learned',
    ),
    'jitter': ('jitter of codes', 'std of W', 3, 'lower is smoother'),
    'pixel_jitter': ('jitter of pixels', 'of 255', 2, "as near to the original's as can be"),
    'pixel_jitter_original': ('jitter of pixels, original', 'of 255', 2, ''),
}
PLOTS = (('psnr',), ('lpips',), ('identity',), ('deviation',), ('jitter',), ('pixel_jitter', 'pixel_jitter_original'))
TUNING_PICTURES = {'held-out.png': 'tuned-frames.png', 'others.png': 'tuned-others.png'}  # of a run folder, in the report
FILES = {'video': '.mp4', 'plot': '.png', 'frames': '-frames.png', 'measures': '.jsonl'}  # of each clip
MOST_POINTS = 1200  # of a curve; longer clips are averaged, with the range as a shade
PICTURE_SIDE = 160  # pixels of a frame in the page's pictures


class EmbeddingReport:
    """Writes the report clip by clip.

    Args:
        folder: Where it goes; it is made when the first clip comes.
        head: What the report says first: data set, image generator, how the codes were made (JSON values).
    """

    def __init__(self, folder: str, head: Mapping[str, Any]) -> None:
        self.folder, self.head = folder, dict(head)

    def path(self, index: int, name: str, ending: str) -> str:
        """The path of one of a clip's files, for example with the ending `.mp4`."""
        os.makedirs(self.folder, exist_ok=True)
        return os.path.join(self.folder, f'{index:05d}-{safe_name(name)}{ending}')

    def remove_old(self) -> None:
        """Remove the files of the report that is there, if any."""
        try:
            with open(os.path.join(self.folder, 'report.json'), encoding='utf-8') as file:
                entries = json.load(file)['clips']
            names = [os.path.basename(entry[key]) for entry in entries for key in FILES if key in entry]
            names += TUNING_PICTURES.values()
        except (FileNotFoundError, *DAMAGED_FILE):
            return  # none, or not ours
        for name in [*names, 'report.json', 'index.html']:
            if os.path.isfile(path := os.path.join(self.folder, name)):
                os.remove(path)

    def add_clip(
        self, index: int, name: str, fps: float, measures: str, even: Sequence[ShownFrame], worst: Sequence[ShownFrame]
    ) -> None:
        """Write pictures and measures of one clip; its video is there already.

        Args:
            index, name, fps: Of the clip.
            measures: File with the measures of its frames (`training.latents.frame_measures.FrameMeasures`).
            even, worst: Frames to show, see `training.embedding.clip_review.ClipReview.shown_frames`.
        """
        with open(measures, 'rb') as source, open(self.path(index, name, '.jsonl'), 'wb') as target:
            while part := source.read(1 << 20):
                target.write(part)
        try:
            plot_measures(measures, fps, self.path(index, name, '.png'), title=name)
        except ImportError as error:  # hours of embedding do not end for want of a plot
            print(f'Skipping the plot of the measures: {error}')
        save_frames(even, worst, self.path(index, name, '-frames.png'))

    def write_page(self, clips: Sequence[Mapping[str, Any]]) -> None:
        """Write `report.json` and `index.html`.

        Args:
            clips: Entries of `dataset.json` of all clips so far.
        """
        os.makedirs(self.folder, exist_ok=True)
        entries = []
        for clip in clips:
            index = int(os.path.basename(clip['file']).split('-')[0])  # clips that were left out have numbers, too
            files = {key: os.path.basename(self.path(index, clip['name'], ending)) for key, ending in FILES.items()}
            there = {key: file for key, file in files.items() if os.path.isfile(os.path.join(self.folder, file))}
            entries.append({**{key: value for key, value in clip.items() if key != 'file'}, **there})
        content = {
            **self.head,
            'num_clips': len(clips),
            'num_frames': sum(clip['num_frames'] for clip in clips),
            'quality': total_quality(dict(clip) for clip in clips),
            'clips': entries,
        }
        _replace_text(os.path.join(self.folder, 'report.json'), json.dumps(content, indent=2) + '\n')
        _replace_text(os.path.join(self.folder, 'index.html'), _page(content))


def add_tuning(folder: str, record: Mapping[str, Any], run_dir: str) -> bool:
    """Show in the report of a data set what tuning the generator to it has changed.

    Args:
        folder: Of the report.
        record: As training.tuning.run.tune_generator returns it, with `generator`, its file.
        run_dir: Has the pictures before and after.

    Returns:
        Whether there is such a report.
    """
    path = os.path.join(folder, 'report.json')
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        content['tuning'] = {**record, 'generator': os.path.basename(record['generator'])}
        page = _page(content)
    except (FileNotFoundError, *DAMAGED_FILE):
        return False  # none, or not ours
    for source, name in TUNING_PICTURES.items():
        shutil.copyfile(os.path.join(run_dir, source), os.path.join(folder, name))
    _replace_text(path, json.dumps(content, indent=2) + '\n')
    _replace_text(os.path.join(folder, 'index.html'), page)
    return True


def _replace_text(path: str, text: str) -> None:
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.write(text)


# ----------------------------------------------------------------------------
# Pictures.


def plot_measures(measures: str, fps: float, path: str, *, title: str) -> None:
    """Draw the measures of a clip over time into a PNG; nothing where there are none."""
    columns: dict[str, list[float]] = {}
    count = 0
    for row in read_measures(measures):
        for key in MEASURES:
            columns.setdefault(key, []).append(row.get(key, float('nan')))
        count += 1
    plots = [keys for keys in PLOTS if any(np.isfinite(columns.get(key, [])).any() for key in keys)]
    if not plots:
        return
    from matplotlib.figure import Figure  # here: it takes a second, and without a report nobody needs it

    figure = Figure(figsize=(9, 0.6 + 1.5 * len(plots)), layout='constrained')
    axes = figure.subplots(len(plots), 1, sharex=True, squeeze=False)[:, 0]
    for axis, keys in zip(axes, plots, strict=True):
        for key in keys:
            name, unit, _, _ = MEASURES[key]
            values = np.asarray(columns[key], dtype=np.float32)
            known = np.isfinite(values)
            if known.any():
                label = 'original' if key.endswith('original') else 'embedded'
                _draw_curve(axis, np.flatnonzero(known) / fps, values[known], label)
        name, unit, _, _ = MEASURES[keys[0]]
        axis.set_ylabel(f'{name}\n({unit})' if unit else name, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.margins(x=0.01)
        if len(keys) > 1:
            axis.legend(fontsize=8, loc='upper right')
    axes[0].set_title(f'{title}, {count} frames', fontsize=9)
    axes[-1].set_xlabel('time (s)', fontsize=8)
    figure.savefig(path, dpi=100)


def _draw_curve(axis: Any, times: np.ndarray, values: np.ndarray, label: str) -> None:
    color = 'tab:gray' if label == 'original' else 'tab:blue'
    if len(values) > MOST_POINTS:
        edges = np.linspace(0, len(values), MOST_POINTS + 1).astype(int)
        low, high = np.minimum.reduceat(values, edges[:-1]), np.maximum.reduceat(values, edges[:-1])
        sizes = np.diff(edges)
        times = np.add.reduceat(times, edges[:-1]) / sizes
        values = np.add.reduceat(values.astype(np.float64), edges[:-1]) / sizes
        axis.fill_between(times, low, high, color=color, alpha=0.25, linewidth=0)
    axis.plot(times, values, color=color, linewidth=1, label=label, marker='.' if len(values) < 40 else None)


def save_frames(even: Sequence[ShownFrame], worst: Sequence[ShownFrame], path: str) -> None:
    """Save a picture: frames at equal distances, then the worst, each original above what its code renders to."""
    from PIL import ImageDraw

    rows = [(label, shown) for label, shown in (('', even), ('worst: ', worst)) if shown]
    if not rows:
        return
    side, text = PICTURE_SIDE, 14
    parts = 1 if rows[0][1][0].original is None else 2
    columns = max(len(shown) for _, shown in rows)
    picture = PIL.Image.new('RGB', (columns * (side + 4), len(rows) * (parts * side + text + 6)), 'white')
    draw = ImageDraw.Draw(picture)
    for row, (label, shown) in enumerate(rows):
        top = row * (parts * side + text + 6)
        for column, frame in enumerate(shown):
            left = column * (side + 4)
            numbers = ' '.join(f'{frame.row[key]:.{MEASURES[key][2]}f}' for key in ('psnr', 'lpips') if key in frame.row)
            draw.text((left + 2, top), f'{label}frame {frame.index}  {numbers}', fill='black')
            for part, pixels in enumerate(image for image in (frame.original, frame.embedded) if image is not None):
                image = PIL.Image.fromarray(pixels)
                smooth = PIL.Image.Resampling.LANCZOS if image.width >= side else PIL.Image.Resampling.BICUBIC
                picture.paste(image.resize((side, side), smooth), (left, top + text + part * side))
    picture.save(path)


# ----------------------------------------------------------------------------
# The page.

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: 0.25em 0.8em; border-bottom: 1px solid #ddd; }
td { text-align: right; } td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; } video { width: 640px; max-width: 100%; image-rendering: auto; display: block; margin: 0.5em 0; }
dt { font-weight: 600; } dd { margin: 0 0 0.4em 1.5em; } h2 { margin-top: 2em; } .note { color: #666; }
"""


def _page(content: Mapping[str, Any]) -> str:
    keys = [key for key in MEASURES if any(key in clip for clip in content['clips'])]
    head = ''.join(
        f'<dt>{html.escape(key.replace("_", " "))}</dt><dd>{html.escape(_words(value))}</dd>'
        for key, value in content.items()
        if key not in ('clips', 'quality', 'tuning') and _words(value)
    )
    titles = ''.join(f'<th title="{html.escape(MEASURES[key][3])}">{_title(key)}</th>' for key in keys)
    lines = [
        f'<tr><td><a href="#clip{index}">{html.escape(clip["name"])}</a></td><td>{clip["num_frames"]}</td>'
        f'{_cells(clip, keys)}</tr>'
        for index, clip in enumerate(content['clips'])
    ]
    total = (
        f'<tr><th>all</th><td><b>{content["num_frames"]}</b></td>{_cells(content["quality"], keys)}</tr>'
        if len(content['clips']) > 1
        else ''
    )
    notes = ' '.join(f'{_title(key)}: {html.escape(MEASURES[key][3])}.' for key in keys if MEASURES[key][3])
    sections = ''.join(_section(index, clip) for index, clip in enumerate(content['clips']))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Embedding report</title><style>{STYLE}</style>'
        f'</head><body>\n<h1>Embedding report</h1>\n<dl>{head}</dl>\n<table><tr><th>clip</th><th>frames</th>{titles}</tr>\n'
        + '\n'.join(lines)
        + f'\n{total}</table>\n<p class="note">{notes}</p>\n{_tuning_section(content.get("tuning"))}{sections}</body></html>\n'
    )


def _title(key: str) -> str:
    name, unit, _, _ = MEASURES[key]
    return html.escape(f'{name} ({unit})' if unit else name)


def _cells(values: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ''.join(f'<td>{values[key]:.{MEASURES[key][2]}f}</td>' if key in values else '<td></td>' for key in keys)


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{key.replace("_", " ")} {_words(entry)}' for key, entry in value.items() if _words(entry))
    if isinstance(value, list | tuple):
        return ', '.join(filter(None, map(_words, value)))
    return '' if value is None else str(value)


def _tuning_section(tuning: Mapping[str, Any] | None) -> str:
    """What the tuned generator draws, before and after; nothing where there is none."""
    if tuning is None:
        return ''
    lines = []
    for part, words in (('held_out', 'held-out frames'), ('learned', 'learned frames')):
        before, after = (tuning['quality'][when].get(part) or {} for when in ('before', 'after'))
        for key in MEASURES:
            if key in before and key in after and key != 'pixel_jitter_original':
                numbers = ''.join(f'<td>{values[key]:.{MEASURES[key][2]}f}</td>' for values in (before, after))
                lines.append(f'<tr><td>{_title(key)}, {words}</td>{numbers}</tr>')
    change = tuning['change']['random']
    moved = ', '.join(f'{_title(key)} {change[key]:.{MEASURES[key][2]}f}' for key in ('psnr', 'lpips') if key in change)
    pictures = ''.join(
        f'<p class="note">{words}</p>\n<p><img src="{name}" alt="{words}" loading="lazy"></p>\n'
        for name, words in (
            ('tuned-frames.png', 'recording, before and after, in rows'),
            ('tuned-others.png', 'other codes, before above after'),
        )
    )
    return (
        f'<h2 id="tuning">Tuned generator</h2>\n<p>{html.escape(str(tuning["generator"]))}, '
        f'step {tuning["step"]}. Pictures of other codes, after against before: {moved}.</p>\n'
        '<table><tr><th>measure</th><th>before</th><th>after</th></tr>\n' + '\n'.join(lines) + f'</table>\n{pictures}'
    )


def _section(index: int, clip: Mapping[str, Any]) -> str:
    text = f'<h2 id="clip{index}">{html.escape(clip["name"])}</h2>\n'
    where = html.escape(str(clip.get('source', '')))
    text += f'<p class="note">{where}, {clip["num_frames"]} frames at {clip["fps"]:g} per second</p>\n'
    look = clip.get('look')
    if isinstance(look, Mapping):
        text += (
            f'<p class="note">{100 * look["changed_share"]:.1f} % of the frames differ from the one before; at most '
            f'{look["copies_in_a_row"]} copies in a row; the decoder complained {look["decoder_complaints"]} times.</p>\n'
        )
    if 'video' in clip:
        text += f'<video controls loop muted preload="none" poster="{clip.get("frames", "")}" src="{clip["video"]}"></video>\n'
        text += '<p class="note">Left the original, right what the code renders to.</p>\n'
    for key, words in (('frames', 'frames, original above embedded'), ('plot', 'measures over time')):
        if key in clip:
            text += f'<p><img src="{clip[key]}" alt="{words}" loading="lazy"></p>\n'
    return text
