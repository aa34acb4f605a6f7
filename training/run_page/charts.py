"""Curves for the page of a run, as SVG that goes into it: text stays text, and nothing is loaded from elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from training.run_page.measures import Measures

REAL, MADE, THIRD = '#1b1b1b', '#c8511b', '#2b6cb0'
COLOURS = ('#c8511b', '#2b6cb0', '#2f855a', '#8250a8', '#b7791f', '#4a5568')


def clock(frame: int, fps: float) -> str:
    """The time of a frame, as people read it: '0 s', '9 s', '1:40'."""
    seconds = round(frame / fps)
    return f'{seconds} s' if seconds < 60 else f'{seconds // 60}:{seconds % 60:02d}'


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # here: matplotlib takes a second, and --help needs none
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasSVG(figure)
    return figure


def _svg(figure: Any, name: str, words: str) -> str:
    """The figure as an element of a page; `words` say what is in it to those who cannot see it."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': name}):
        figure.savefig(file, format='svg', metadata={'Date': None, 'Creator': None})
    text = file.getvalue()
    text = text[text.index('<svg') :]
    # Names of parts are those of the page as a whole, where several charts stand.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(xlink:href="#|href="#|url\(#)', rf'\1{name}-', text)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img" aria-label="{}">', text, count=1)
    escaped = words.replace('&', '&amp;').replace('"', '&quot;').replace('<', '&lt;')
    return text.replace('aria-label="{}"', f'aria-label="{escaped}"', 1)


def _tidy(axis: Any) -> None:
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(alpha=0.25)


def by_depth(measures: Measures) -> str:
    """Distance, speed and variances at each depth."""
    figure = _figure(9, 3)
    axes = figure.subplots(1, 3)
    places = np.arange(len(measures.depths))
    labels = [clock(depth.frame, measures.fps) for depth in measures.depths]
    axes[0].plot(places, [depth.motion_distance for depth in measures.depths], 'o-', color=MADE, label='motion')
    axes[0].plot(places, [depth.codes_distance for depth in measures.depths], 's-', color=THIRD, label='looks')
    axes[0].axhline(measures.floor[0], color=MADE, linestyle='--', linewidth=1)
    axes[0].axhline(measures.floor[1], color=THIRD, linestyle='--', linewidth=1)
    axes[0].set_ylim(bottom=0)
    axes[0].set_title('distance to the footage', fontsize=10)
    axes[0].legend(fontsize=8, frameon=False)
    axes[1].plot(places, [depth.speed for depth in measures.depths], 'o-', color=MADE)
    axes[1].set_title('speed, footage = 1', fontsize=10)
    for c in range(min(3, len(measures.depths[0].variances))):
        values = [depth.variances[c] for depth in measures.depths]
        axes[2].plot(places, values, 'o-', color=COLOURS[c], label=f'component {c + 1}')
    axes[2].set_title('variance, footage = 1', fontsize=10)
    axes[2].legend(fontsize=8, frameon=False)
    for axis in axes[1:]:
        axis.axhline(1, color=REAL, linestyle='--', linewidth=1)
        axis.set_ylim(0, max(2, axis.get_ylim()[1]))
    for axis in axes:
        axis.set_xticks(places, labels)
        axis.set_xlabel('into the video')
        _tidy(axis)
    return _svg(
        figure, 'depth', 'Distance to the footage, speed and variances by depth into the video; the table below has the numbers'
    )


def autocorrelations(measures: Measures) -> str:
    """Autocorrelation over time, of the footage and of videos at two depths."""
    figure = _figure(6, 2.8)
    axis = figure.subplots()
    for (name, values), colour in zip(measures.autocorrelations.items(), (REAL, MADE, THIRD), strict=True):
        axis.plot(measures.lags, values, color=colour, label=name, linewidth=2 if name == 'footage' else 1.5)
    axis.axhline(0, color='#888888', linewidth=0.8)
    axis.set_xlabel('seconds between two frames')
    axis.set_ylabel('autocorrelation')
    axis.legend(fontsize=8, frameon=False)
    _tidy(axis)
    return _svg(
        figure, 'autocorrelation', 'Autocorrelation of the codes over ten seconds, of the footage and of videos at two depths'
    )


def trajectories(measures: Measures) -> str:
    """A minute of the leading components, footage on the left."""
    figure = _figure(9, 4.2)
    count = measures.real_tracks[0].shape[1]
    axes = figure.subplots(count, 2, sharex=True, sharey='row', squeeze=False)
    for column, (title, tracks) in enumerate((('footage', measures.real_tracks), ('generated', measures.tracks))):
        axes[0][column].set_title(title, fontsize=10)
        axes[-1][column].set_xlabel('seconds')
        for row in range(count):
            for track, colour in zip(tracks, COLOURS, strict=False):
                axes[row][column].plot(np.arange(len(track)) / measures.fps, track[:, row], color=colour, linewidth=0.9)
            if column == 0:
                axes[row][column].set_ylabel(f'component {row + 1}', fontsize=8)
            _tidy(axes[row][column])
    return _svg(figure, 'trajectories', 'The leading components over a minute, of the footage and of three generated videos')


def curves(name: str, values: Mapping[str, Sequence[tuple[float, float]]], words: str) -> str:
    """Curves of (kimg, value), each in a panel of its own, `columns` in a row."""
    columns = 4  # also where there are fewer: a lone one is as small as its neighbours would be
    rows = -(-len(values) // columns)
    figure = _figure(2.6 * columns, 2.1 * rows)
    panels: Iterator[Any] = iter(figure.subplots(rows, columns, squeeze=False).ravel())
    for title, points in values.items():
        axis = next(panels)
        axis.plot(*zip(*points, strict=True), 'o-' if len(points) < 30 else '-', color=THIRD, markersize=3, linewidth=1.2)
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_xlabel('kimg', fontsize=7)
        _tidy(axis)
    for axis in panels:
        axis.set_axis_off()
    return _svg(figure, name, words)
