"""The tables of docs/results.md out of lines of measurements: results_table.py has the command."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.comparison.significance import Summary, holm, p_value, summarize
from benchmarks.long_run import BASELINES, RESIDUAL
from benchmarks.long_run import DEPTHS as CODE_DEPTHS
from networks.errors import InputError

DEFAULT = 'default'
NAMES = {
    DEFAULT: '**default**',
    'paper': 'paper',
    'paper;settings.lambda_gap=0': 'paper without L_GAP',
    RESIDUAL: "MoCoGAN-HD's idea",
    'ar2': 'autoregression, order 2',
    'ar5': 'autoregression, order 5',
    'splicing': 'splicing',
    'walk': 'random walk',
}
MODELS = tuple(NAMES)
HALVES, EMBEDDING = 'halves of the footage', 'embedding'  # floors of the pictures
EMBEDDING_END = 'embedding, end of the footage'  # what tuning has not learned from
# What ends the name of a data set whose codes were optimised, beside one of an encoder's.
OPTIMISED = {'-optimised': 'codes optimised', '-refined': 'codes optimised with less weight of the pixels'}
OWN, TUNED = 'own', 'tuned'  # which image generator renders
PICTURE_DEPTHS = (0, 225, 1000, 10000)
SIGNIFICANT = 0.05
SHOWN_INTERVAL = 3  # trainings
BEGIN, END = '<!-- tables by benchmarks/results_table.py: begin -->', '<!-- tables: end -->'
# Table 1 of the paper, FVD to the W+ embedding, long over short: with L_GAP 84.0 / 42.9, without 178.4 / 33.2.
PAPER_RATIO, PAPER_RATIO_WITHOUT = 84.0 / 42.9, 178.4 / 33.2

Line = dict[str, Any]
Result = Mapping[str, float]
Trainings = dict[int, Result]  # by seed


@dataclasses.dataclass(frozen=True)
class Column:
    """One number of a training; lower is better."""

    title: str
    value: Callable[[Result], float | None]


def read_lines(path: str) -> list[Line]:
    """JSON lines of a file, none where there is no file.

    Raises:
        InputError: A line is no JSON.
    """
    if not os.path.exists(path):
        return []
    lines = []
    with open(path, encoding='utf-8') as file:
        for number, text in enumerate(file, start=1):
            try:
                lines.append(json.loads(text))
            except ValueError as error:
                raise InputError(f'{path}: line {number} is no JSON; remove it, and it is measured again') from error
    return lines


def put_between_markers(page: str, text: str) -> str:
    """The page with `text` in the place of what is between BEGIN and END.

    Raises:
        InputError: The page has not both, once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise InputError(f'the page has to have {BEGIN!r} and then {END!r}, once each')
    return page[: page.index(BEGIN) + len(BEGIN)] + '\n\n' + text.strip('\n') + '\n\n' + page[page.index(END) :]


def number(value: float) -> str:
    """Three digits, without an exponent below a million."""
    if abs(value) >= 1e6:  # of what explodes
        return f'{value:.0e}'.replace('e+0', 'e').replace('e+', 'e')
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def cell(summary: Summary) -> str:
    """`mean ± deviation (interval)`, as far as there are trainings; of two the interval is too wide to say anything."""
    if summary.deviation is None or summary.interval is None:
        return number(summary.mean)
    text = f'{number(summary.mean)} ± {number(summary.deviation)}'
    low, high = summary.interval
    return text if summary.count < SHOWN_INTERVAL else f'{text} ({number(low)} to {number(high)})'


def row(*cells: str) -> str:
    """One line of a Markdown table."""
    return '| ' + ' | '.join(cells) + ' |'


def heading(*titles: str) -> list[str]:
    """The first two lines of one."""
    return [row(*titles), '|---' * len(titles) + '|']


# ----------------------------------------------------------------------------
# Numbers of a training.


def _of(key: str) -> Callable[[Result], float | None]:
    return lambda result: result.get(key)


def _at_least_zero(key: str) -> Callable[[Result], float | None]:
    # An unbiased estimate of a distance of 0 is as often below 0 as above: no difference is in that.
    return lambda result: max(result[key], 0.0) if key in result else None


def _drift(result: Result) -> float | None:
    distances = [result[f'distance@{depth}'] for depth in CODE_DEPTHS if f'distance@{depth}' in result]
    return max(distances) / min(distances) if distances else None


CODE_COLUMNS = (
    *(Column(f'Frechet, {depth:,}', _of(f'distance@{depth}')) for depth in PICTURE_DEPTHS),
    Column('motion, 1,000', _of('motion_distance@1000')),
    Column('kernel of motion, 1,000', _at_least_zero('kernel_distance@1000')),
    Column('kernel of codes, 1,000', _at_least_zero('kernel_codes_distance@1000')),
    Column('repetition', _at_least_zero('repetition')),
    Column('drift', _drift),
)


def _picture_key(name: str, reference: str, depth: int | None) -> str:
    return f'{name} {reference} {depth}'


def _picture_column(title: str, name: str, reference: str, depth: int) -> Column:
    key = _picture_key(name, reference, depth)
    return Column(title, _at_least_zero(key) if 'kernel' in name else _of(key))


PICTURE_COLUMNS = (
    *(_picture_column(f'FVD, {depth:,}', 'fvd', 'embedding', depth) for depth in PICTURE_DEPTHS),
    *(_picture_column(f'kernel, {depth:,}', 'clip_kernel_distance', 'embedding', depth) for depth in (0, 10000)),
    *(_picture_column(f'frames, {depth:,}', 'frame_distance', 'embedding', depth) for depth in (0, 10000)),
    *(_picture_column(f'FVD to recording, {depth:,}', 'fvd', 'recording', depth) for depth in (0, 10000)),
    *(_picture_column(f'frames to recording, {depth:,}', 'frame_distance', 'recording', depth) for depth in (0, 10000)),
)


# ----------------------------------------------------------------------------
# Groups.


def code_groups(lines: Sequence[Line]) -> dict[str, dict[str, Trainings]]:
    """Data set -> model -> trainings, of lines of long_run.py with the full number of steps; the last line of a seed counts."""
    groups: dict[str, dict[str, Trainings]] = {}
    for line in lines:
        if line['steps'] is None and line['model'] in NAMES:
            groups.setdefault(line['data'], {}).setdefault(line['model'], {})[line['seed']] = line['result']
    return {data: models for data, models in groups.items() if DEFAULT in models}


def picture_groups(lines: Sequence[Line]) -> dict[tuple[str, str, int, int], dict[str, Trainings]]:
    """(data set, renderer, clips, frames) -> model or floor -> trainings, with all depths and references of one in one result."""
    groups: dict[tuple[str, str, int, int], dict[str, dict[int, dict[str, float]]]] = {}
    for line in lines:
        place = line['data'], line['renderer'], line['clips'], line['frames']
        result = groups.setdefault(place, {}).setdefault(line['model'], {}).setdefault(line['seed'], {})
        result |= {_picture_key(name, line['reference'], line['depth']): value for name, value in line['result'].items()}
    return {place: {model: dict(of.items()) for model, of in models.items()} for place, models in groups.items()}


def values_of(trainings: Trainings, column: Column) -> list[float]:
    """What the trainings have of a column, in the order of the seeds."""
    found = (column.value(trainings[seed]) for seed in sorted(trainings))
    return [value for value in found if value is not None]


@dataclasses.dataclass
class Test:
    """The default against another model in one column."""

    group: Any
    model: str
    column: Column
    better: bool  # the default
    p: float | None  # adjusted, once all tests are known; None: cannot be tested

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < SIGNIFICANT

    @property
    def cell(self) -> str:
        if self.p is None:
            return ''
        p = 'p < 0.001' if self.p < 0.001 else f'p = {self.p:.2g}'
        if not self.significant:
            return p
        return f'better, {p}' if self.better else f'**worse**, {p}'


def all_tests(groups: Mapping[Any, Mapping[str, Trainings]], columns: Sequence[Column]) -> list[Test]:
    """The default against every other model in every column of every group, adjusted for their number together."""
    tests = []
    for group, models in groups.items():
        for model in MODELS:
            if model == DEFAULT or model not in models or DEFAULT not in models:
                continue
            for column in columns:
                ours, theirs = (values_of(models[name], column) for name in (DEFAULT, model))
                p = p_value(ours, theirs, fitted=model in BASELINES)
                better = bool(ours and theirs) and sum(ours) / len(ours) < sum(theirs) / len(theirs)
                tests.append(Test(group, model, column, better, p))
    for test, p in zip(tests, holm([test.p for test in tests]), strict=True):
        test.p = p
    return tests


# ----------------------------------------------------------------------------
# Tables.


def value_table(models: Mapping[str, Trainings], columns: Sequence[Column], floors: Sequence[str] = ()) -> list[str]:
    """Mean, deviation and interval of all models."""
    rows = heading('model', 'trainings', *(column.title for column in columns))
    for model in (*MODELS, *floors):
        if model not in models:
            continue
        cells = [values_of(models[model], column) for column in columns]
        count = 'fit' if model in BASELINES else '' if model in floors else str(len(models[model]))
        rows.append(row(NAMES.get(model, model), count, *(cell(summarize(values)) if values else '' for values in cells)))
    return rows


def test_table(tests: Sequence[Test], columns: Sequence[Column]) -> list[str]:
    """Adjusted p of the tests of one group."""
    rows = heading('default against', *(column.title for column in columns))
    for model in dict.fromkeys(test.model for test in tests):
        cells = {test.column.title: test.cell for test in tests if test.model == model}
        rows.append(row(NAMES[model], *(cells[column.title] for column in columns)))
    return rows


def summary_table(tests: Sequence[Test], columns: Sequence[Column]) -> list[str]:
    """In how many groups the default is better and worse, of those that could be tested."""
    rows = heading('default against', *(column.title for column in columns))
    for model in dict.fromkeys(test.model for test in tests):
        cells = []
        for column in columns:
            known = [test for test in tests if (test.model, test.column.title) == (model, column.title) and test.p is not None]
            sure = [test.better for test in known if test.significant]
            worse = len(sure) - sum(sure)
            cells.append(f'{sum(sure)} of {len(known)}' + (f', **worse in {worse}**' if worse else '') if known else '')
        rows.append(row(NAMES[model], *cells))
    return rows


def worse_list(tests: Sequence[Test], name: Callable[[Any], str]) -> list[str]:
    """Where another model is significantly better than the default."""
    rows = []
    for group in dict.fromkeys(test.group for test in tests):
        worse = [test for test in tests if test.group == group and test.significant and not test.better]
        of_models = {model: [test.column.title for test in worse if test.model == model] for model in MODELS}
        parts = [f'{NAMES[model]} in {"; ".join(titles)}' for model, titles in of_models.items() if titles]
        if parts:
            rows.append(f'- {name(group)}: ' + ' | '.join(parts))
    if not rows:
        return ['**Not better.** Nowhere is another row significantly better.']
    return ['**Not better.** These are significantly better than the default:', '', *rows]


def ratio_table(groups: Mapping[tuple[str, str, int, int], Mapping[str, Trainings]]) -> list[str]:
    """FVD to the embedding far into videos over that at the beginning, of means over trainings, as in the paper's table."""
    far = PICTURE_DEPTHS[1:]
    places = list(groups)
    rows = heading('model', *(f'{place_name(place)}: {depth:,} over 0' for place in places for depth in far))
    for model in MODELS:
        if not any(model in models for models in groups.values()):
            continue
        cells = []
        for place in places:
            by_depth = {
                depth: values_of(groups[place].get(model, {}), _picture_column('', 'fvd', 'embedding', depth))
                for depth in PICTURE_DEPTHS
            }
            means = {depth: summarize(values).mean for depth, values in by_depth.items() if values}
            cells += [f'{means[depth] / means[0]:.2f}' if depth in means and 0 in means else '' for depth in far]
        rows.append(row(NAMES[model], *cells))
    return rows


def place_name(place: tuple[str, str, int, int]) -> str:
    """Data set and renderer of a group of pictures."""
    name = os.path.splitext(place[0])[0]
    return name if place[1] == OWN else f'{name}, {place[1]} generator'


def code_section(lines: Sequence[Line]) -> list[str]:
    """Tables of distances of codes."""
    groups = code_groups(lines)
    if not groups:
        return []
    tests = all_tests(groups, CODE_COLUMNS)
    text = ['## Codes']
    if any(test.p is not None for test in tests):
        text += ['', f'{_counted(tests)} The default is significantly better in:', '', *summary_table(tests, CODE_COLUMNS)]
        text += ['', *worse_list(tests, lambda data: os.path.splitext(data)[0])]
    for data, models in groups.items():
        result = next(iter(models[DEFAULT].values()))
        floor = ', '.join(
            f'{name} {number(result[key])}'
            for name, key in (
                ('halves of the footage', 'floor@0'),
                ('a still picture', 'constant@0'),
                ('kernel distance of the motion of halves up to', 'kernel_null_high@0'),
                ('of their codes up to', 'kernel_codes_null_high@0'),
            )
            if key in result
        )
        text += ['', f'### Codes: {os.path.splitext(data)[0]}', '', f'For comparison: {floor}.', '']
        text += value_table(models, CODE_COLUMNS)
        own = [test for test in tests if test.group == data]
        if any(test.p is not None for test in own):
            text += ['', *test_table(own, CODE_COLUMNS)]
    return text


def picture_section(lines: Sequence[Line]) -> list[str]:
    """Tables of distances of pictures."""
    groups = {place: models for place, models in picture_groups(lines).items() if _beside_embedding(models)}
    if not groups:
        return ['## Pictures', '', 'None have been measured yet.']
    tests = all_tests(groups, PICTURE_COLUMNS)
    text = ['## Pictures', '', '### Long over short', '']
    text += [
        f'FVD to the W+ embedding far into videos over that at the beginning. In the paper\'s table "long" over "short" is '
        f'{PAPER_RATIO:.1f} with its penalty and {PAPER_RATIO_WITHOUT:.1f} without.',
        '',
        *ratio_table(groups),
    ]
    if any(test.p is not None for test in tests):
        text += ['', f'{_counted(tests)} The default is significantly better in:']
        text += ['', *summary_table(tests, PICTURE_COLUMNS), '', *worse_list(tests, place_name)]
    for place, models in groups.items():
        _, _, clips, frames = place
        text += ['', f'### Pictures: {place_name(place)}', '', f'{clips} clips of {frames} frames on each side.', '']
        text += value_table({**models, **floors_of(models)}, PICTURE_COLUMNS, (HALVES, EMBEDDING))
        own = [test for test in tests if test.group == place]
        if any(test.p is not None for test in own):
            text += ['', *test_table(own, PICTURE_COLUMNS)]
    return text


def _beside_embedding(models: Mapping[str, Trainings]) -> bool:
    """Whether the default was compared with the embedding; others are in the section on tuning only."""
    key = _picture_key('fvd', 'embedding', 0)
    return any(key in result for result in models.get(DEFAULT, {}).values())


def floors_of(models: Mapping[str, Trainings]) -> dict[str, Trainings]:
    """The rows of the floors with their one number at every depth: footage has no depth."""
    found: dict[str, Trainings] = {}
    for floor in (HALVES, EMBEDDING):
        if floor in models:
            result: dict[str, float] = {}
            for key, value in next(iter(models[floor].values())).items():
                result |= {key.replace('None', str(depth)): value for depth in PICTURE_DEPTHS}
            found[floor] = {0: result}
    return found


# ----------------------------------------------------------------------------
# Tuning.

TUNING_MEASURES = {'fvd': 'FVD', 'frame_distance': 'frames', 'clip_kernel_distance': 'kernel'}
TUNING_ROWS: tuple[tuple[str, str, int | None], ...] = (
    ('embedding', EMBEDDING, None),
    ('its end', EMBEDDING_END, None),
    ('generated, frame 0', DEFAULT, 0),
    ('generated, frame 1,000', DEFAULT, 1000),
)


@dataclasses.dataclass
class TunedPair:
    """One number to the recording before and after tuning, of the same codes: a value for each training."""

    data: str
    title: str  # of TUNING_ROWS
    measure: str
    before: list[float]
    after: list[float]

    @property
    def log_ratios(self) -> list[float]:
        """Logarithms of after over before; none where a kernel distance is not above 0."""
        if min(*self.before, *self.after) <= 0:
            return []
        return [math.log(after / before) for before, after in zip(self.before, self.after, strict=True)]

    @property
    def cells(self) -> str:
        return f'{cell(summarize(self.before))} → {cell(summarize(self.after))}'


def tuned_pairs(lines: Sequence[Line]) -> list[TunedPair]:
    """Everything that was compared with the recording by both generators, of trainings that both have."""
    groups = picture_groups(lines)
    pairs = []
    for (data, renderer, clips, frames), after in groups.items():
        before = groups.get((data, OWN, clips, frames), {})
        if renderer != TUNED:
            continue
        for measure in TUNING_MEASURES:
            for title, model, depth in TUNING_ROWS:
                key = _picture_key(measure, 'recording', depth)
                sides = [
                    {seed: result[key] for seed, result in side.get(model, {}).items() if key in result}
                    for side in (before, after)
                ]
                seeds = sorted(sides[0].keys() & sides[1].keys())
                if seeds:
                    pairs.append(TunedPair(data, title, measure, *([side[seed] for seed in seeds] for side in sides)))
    return pairs


def tuning_section(lines: Sequence[Line]) -> list[str]:
    """Distances to the recording before and after tune_generator.py, and what is certain about them."""
    pairs = tuned_pairs(lines)
    if not pairs:
        return []
    groups = picture_groups(lines)
    titles = [title for title, _, _ in TUNING_ROWS]
    text = ['### Before and after tuning', '', 'Distances to the recording, generator of the data set → tuned generator.']
    data_sets = list(dict.fromkeys(pair.data for pair in pairs))
    for measure, name in TUNING_MEASURES.items():
        text += ['', *heading(name, 'clips', 'halves of the recording', *titles, 'trainings')]
        for data in data_sets:
            mine = {pair.title: pair for pair in pairs if (pair.data, pair.measure) == (data, measure)}
            place = next(place for place in groups if place[:2] == (data, TUNED))
            halves = groups.get((data, OWN, *place[2:]), {}).get(HALVES, {})
            floor = values_of(halves, Column('', _of(_picture_key(measure, 'recording', None))))
            count = max((len(pair.before) for title, pair in mine.items() if title.startswith('generated')), default=0)
            cells = [mine[title].cells if title in mine else '' for title in titles]
            text.append(row(os.path.splitext(data)[0], str(place[2]), number(floor[0]) if floor else '', *cells, str(count)))
    alone = [pair for pair in pairs if len(pair.log_ratios) >= SHOWN_INTERVAL]
    rows = [(os.path.splitext(pair.data)[0], pair, pair.log_ratios) for pair in alone]
    text += _ratio_table('Tuned over before, geometric mean over trainings', 'trainings', rows)
    groups_of_data: dict[tuple[str, int, str, str], list[TunedPair]] = {}
    for pair in pairs:
        clips = next(place[2] for place in groups if place[:2] == (pair.data, TUNED))
        ends = (kind for end, kind in OPTIMISED.items() if os.path.splitext(pair.data)[0].endswith(end))
        kind = next(ends, 'codes of an encoder')
        groups_of_data.setdefault((kind, clips, pair.measure, pair.title), []).append(pair)
    rows = []
    for (name, *_), together in groups_of_data.items():
        ratios = [sum(pair.log_ratios) / len(pair.log_ratios) for pair in together if pair.log_ratios]
        if len(ratios) >= SHOWN_INTERVAL:
            rows.append((name, together[0], ratios))
    title = 'Tuned over before, geometric mean over recordings, each with the mean of its trainings'
    return text + _ratio_table(title, 'recordings', rows)


def _ratio_table(title: str, count: str, rows: Sequence[tuple[str, TunedPair, list[float]]]) -> list[str]:
    """(data, what was measured, logarithms of ratios) as a table with paired t tests."""
    if not rows:
        return []
    text = ['', f'{title} (paired t tests of the logarithms, adjusted by Holm):', '']
    text += heading('data', 'distance', count, 'smaller in', 'ratio', 'interval', 'p')
    adjusted = holm([p_value(ratios, [0.0], fitted=True) for *_, ratios in rows])
    for (data, pair, ratios), p in zip(rows, adjusted, strict=True):
        summary = summarize(ratios)
        interval = '' if summary.interval is None else ' to '.join(f'{math.exp(value):.2f}' for value in summary.interval)
        smaller = sum(ratio < 0 for ratio in ratios)
        shown = '' if p is None else '< 0.001' if p < 0.001 else f'{p:.2g}'
        distance = f'{TUNING_MEASURES[pair.measure]}, {pair.title}'
        text.append(row(data, distance, str(summary.count), str(smaller), f'{math.exp(summary.mean):.2f}', interval, shown))
    return text


def _counted(tests: Sequence[Test]) -> str:
    count = sum(test.p is not None for test in tests)
    return f'{count} tests, p values adjusted for all of them together (Holm); significant: below {SIGNIFICANT}.'


def tables(codes: Sequence[Line], pictures: Sequence[Line]) -> str:
    """Everything between the markers of docs/results.md."""
    sections = (code_section(codes), picture_section(pictures), tuning_section(pictures))
    return '\n\n'.join('\n'.join(section) for section in sections if section)
