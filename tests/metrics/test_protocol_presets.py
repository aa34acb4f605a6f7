"""--protocol: every preset names metrics and options that exist, reaches what measures, and leaves what the user says alone."""

import types
from typing import Any

import click.testing
import pytest

import calc_metrics_video
from metrics.discovery import find_metric
from metrics.protocol_presets import PRESETS

PARAMETERS = {parameter.name: parameter for parameter in calc_metrics_video.main.params}
OTHER = {'real_clips': 'spread', 'fake_clips': 'spread', 'resolution': 64, 'detectors': ('i3d',)}  # than any preset's


def what_is_measured(monkeypatch: pytest.MonkeyPatch, *words: str) -> types.SimpleNamespace:
    """Options as they are when measuring begins."""
    seen: list[Any] = []
    monkeypatch.setattr(calc_metrics_video, 'measure', lambda options, *others: seen.append(options))
    done = click.testing.CliRunner().invoke(calc_metrics_video.main, ['--real=.', '--fake=.', '--device=cpu', *words])
    assert done.exit_code == 0, done.output
    for sentence in PRESETS[words[0].partition('=')[2]].differences:
        assert f'differs: {sentence}' in done.stderr
    return seen[0]


@pytest.mark.parametrize('name', PRESETS)
def test_presets_are_obeyed_and_the_user_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS[name]
    assert [metric for metric in preset.metrics if not find_metric(metric)] == []
    options = what_is_measured(monkeypatch, f'--protocol={name}')
    assert tuple(options.metrics) == preset.metrics
    for option, value in preset.options.items():
        parameter = PARAMETERS[option]
        assert getattr(options, option) == value
        for one in value if parameter.multiple else (value,):
            assert parameter.type.convert(one, parameter, click.Context(calc_metrics_video.main)) == one  # a value that it takes
        other = OTHER[option]
        said = f'{parameter.opts[0]}={other[0] if parameter.multiple else other}'
        assert getattr(what_is_measured(monkeypatch, f'--protocol={name}', said), option) == other
    assert what_is_measured(monkeypatch, f'--protocol={name}', '--metrics=psnr').metrics == ['psnr']


def test_presets_differ_from_each_other_and_from_nothing() -> None:
    kinds = [(preset.metrics, sorted(preset.options.items()), preset.differences) for preset in PRESETS.values()]
    assert all(kinds.count(kind) == 1 for kind in kinds)
