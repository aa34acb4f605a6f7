"""The tree of options: files of earlier versions, bounds, precedence, and that no default stands twice."""

import copy
import dataclasses
import inspect
import json
import re

import pytest
from click.testing import CliRunner

from networks.errors import InputError
from networks.latent_generator import LatentGenerator
from networks.temporal_critic import TemporalCritic
from train_video import main
from training.commands import option_tree
from training.temporal_options import PRESETS, CriticOptions, GeneratorOptions, Invocation, Settings, TrainingOptions

# What `train_video.py --glr=1e-3 --preview-frames=0` of commit 14ddbf6 wrote, but for its two paths.
WRITTEN_BY_14DDBF6 = """
{"data": "/d/s.zip", "network": "/d/g.pkl", "num_gpus": 1, "seed": 0, "window": 25, "total_kimg": 16000.0,
 "kimg_per_tick": 200.0, "snapshot_ticks": 20,
 "G_kwargs": {"latent_dim": 32, "noise_dim": 32, "hidden_dim": 32, "num_cells": 4, "initial_widths": [64, 64],
              "widening_widths": [64, 128, 256]},
 "C_kwargs": {"narrowing_widths": [64, 32], "temporal_channels": [64, 64, 64]},
 "latent_space": {"variance": 0.99, "max_components": 512, "whitening": 0.5, "full": false},
 "settings": {"batch": 64, "critic_steps": 2, "lambda_gp": 10.0, "lambda_gap": 3.0, "lambda_diversity": 3.0, "diversity": 0.33,
              "diversity_windows": 1, "gap_interval": 4, "carry": 0.5, "motion_weight": 1.0, "reversal": 0.5,
              "generator_lr": 0.001, "critic_lr": 0.006, "decay": 0.5, "ema_kimg": 300.0},
 "preview": null, "metrics": [], "plugins": [], "detectors": [], "trust_pickle": false, "force_network": false}
"""
# What that version did where it had no option.
THEN = {
    'gap_batch_shrink': 4,
    'beta1': 0.5,
    'beta2': 0.9,
    'ema_rampup': 0.1,
    'chains': 1024,
    'restart': 0.01,
    'burn_in': 0,
    'strides': (1,),
    'stride_power': 0.0,
    'longest_memory': 0.0,
    'uncalibrated': True,
    'unfiltered': True,
    'unshaped': True,
    'unbounded': True,
    'distortion': 0.0,
}


def old_options() -> dict:
    return json.loads(WRITTEN_BY_14DDBF6)


def test_files_of_an_earlier_version_mean_what_they_meant():
    old = old_options()
    options = option_tree.from_dict(TrainingOptions, old, 'old.json')
    for path in ('G_kwargs', 'C_kwargs', 'latent_space', 'settings'):
        new = option_tree.to_dict(getattr(options, path))
        for name, value in old[path].items():
            assert new[name] == value, f'{path}.{name}'
    assert {name: getattr(options.settings, name) for name in THEN} == THEN
    assert options.preview.num_frames == 0
    # Everything that came later is without effect in an old run: it has to say what that is, or the file is not readable.
    later = set(option_tree.to_dict(options.settings)) - set(old['settings']) - set(THEN)
    assert all(not getattr(options.settings, name) for name in later), later
    before_the_diversity_penalty = {name: value for name, value in old['settings'].items() if 'diversity' not in name}
    assert option_tree.from_dict(Settings, before_the_diversity_penalty, 'older.json').lambda_diversity == 0


def test_what_is_written_is_read_back():
    options = option_tree.override(
        TrainingOptions(data='a.zip'),
        {
            'settings.batch': 3,
            'G_kwargs.initial_widths': [5],
            'preview.grid': (3, 2),
            'metrics': ('a', 'b'),
            'latent_space.full': True,
        },
    )
    written = json.loads(json.dumps(option_tree.to_dict(options)))
    assert written['settings']['batch'] == 3
    assert option_tree.from_dict(TrainingOptions, written, 'new.json') == options
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.settings.batch = 4


@pytest.mark.parametrize(
    ('path', 'value', 'message'),
    [
        ('settings.batch', 0, 'settings.batch: 0 is below 1'),
        ('settings.batch', 2.5, 'settings.batch: 2.5 is not a whole number'),
        ('settings.batch', True, 'settings.batch: True is not a whole number'),
        ('settings.carry', 1.5, 'settings.carry: 1.5 is above 1'),
        ('settings.carry', float('nan'), 'settings.carry: nan is not a finite number'),
        ('settings.generator_lr', 0, 'settings.generator_lr: 0.0 is not above 0'),
        ('settings.generator_lr', None, 'settings.generator_lr: None is not a number'),
        ('settings.generator_lr', '1', "settings.generator_lr: '1' is not a number"),
        ('G_kwargs.initial_widths', [4, -1], 'G_kwargs.initial_widths: -1 is below 1'),
        ('G_kwargs.initial_widths', 4, 'G_kwargs.initial_widths: 4 is not a list'),
        ('preview', {'num_frames': 5, 'grid': [1, 2, 3]}, 'preview.grid: .* is not a list of 2 values'),
        ('latent_space.full', 1, 'latent_space.full: 1 is not true or false'),
        ('settings', [], 'settings does not hold options'),
        ('settings.of_tomorrow', 1, 'there is no option settings.of_tomorrow; a newer version'),
        ('seed', 2**32, 'seed: 4294967296 is above 4294967295'),
    ],
)
def test_what_does_not_fit_is_named(path, value, message):
    values = old_options()
    *groups, name = path.split('.')
    place = values
    for group in groups:
        place = place[group]
    place[name] = value
    with pytest.raises(InputError, match=f'^some.json: {message}'):
        option_tree.from_dict(TrainingOptions, values, 'some.json')


def test_a_missing_option_is_named():
    values = old_options()
    del values['settings']['batch']
    with pytest.raises(InputError, match=r'some.json: settings.batch is missing'):
        option_tree.from_dict(TrainingOptions, values, 'some.json')
    with pytest.raises(ValueError, match=r"there is no option 'settings\.bach'"):
        option_tree.override(TrainingOptions(data=''), {'settings.bach': 1})


@pytest.mark.parametrize(('group', 'network'), [(GeneratorOptions, LatentGenerator), (CriticOptions, TemporalCritic)])
def test_defaults_of_networks_are_those_of_the_options(group, network):
    """Constructors keep their defaults for the files that hold these classes; they are the same ones."""
    parameters = inspect.signature(network.__init__).parameters
    for leaf in option_tree.leaves(group):
        assert leaf.default == parameters[leaf.path].default, leaf.path


def test_every_option_says_what_it_is_and_every_preset_is_possible():
    found = [*option_tree.leaves(TrainingOptions), *option_tree.leaves(Invocation)]
    flags = [leaf.flag for leaf in found if leaf.flag]
    assert len(set(flags)) == len(flags)
    assert all(leaf.declared.help for leaf in found)
    for name, values in PRESETS.items():
        changed = option_tree.override(TrainingOptions(data=''), values)
        for path, value in values.items():
            assert option_tree.get(changed, path) == value, f'{name}: {path}'
    assert set(PRESETS) == set(re.findall(r"'(\w+)'", str(Invocation.__annotations__['preset'])))


# ----------------------------------------------------------------------------
# Precedence, as a user meets it.


def invoke(*arguments: str):
    return CliRunner().invoke(main, ['--device=cpu', *arguments])


def dry_run(*arguments: str) -> dict:
    result = invoke('--dry-run', *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout[result.stdout.index('{') : result.stdout.rindex('}') + 1])


def changed_paths(before: dict, after: dict, prefix: str = '') -> dict:
    result = {}
    for name, value in after.items():
        if isinstance(value, dict):
            result.update(changed_paths(before[name], value, f'{prefix}{name}.'))
        elif before[name] != value:
            result[prefix + name] = value
    return result


def test_command_line_before_preset_before_defaults(tiny_latents, tmp_path):
    new = [f'--outdir={tmp_path}', f'--data={tiny_latents}']
    default = dry_run(*new)
    assert dry_run(*new, '--preset=default') == default
    wanted = {**PRESETS['paper'], 'settings.lambda_diversity': 2.0, 'settings.reversal': 0.5, 'settings.carry': 0.25}
    paper = dry_run(*new, '--preset=paper', '--lambda-diversity=2', '--reversal=0.5', '--carry=0.25')
    options = option_tree.from_dict(TrainingOptions, paper, '')
    assert {path: option_tree.get(options, path) for path in wanted} == wanted
    assert set(changed_paths(default, paper)) <= set(wanted)
    assert option_tree.from_dict(TrainingOptions, default, '').settings.critic_steps == 2  # what suits seconds of footage


def test_options_of_another_run(tiny_latents, tmp_path):
    values = {**old_options(), 'data': str(tiny_latents), 'network': '/nowhere/g.pkl', 'trust_pickle': True, 'plugins': ['/p.py']}
    values['settings'] = {**values['settings'], 'batch': 32, 'reversal': 0.125}
    path = tmp_path / 'training_options.json'
    path.write_text(json.dumps(values))
    result = invoke('--dry-run', f'--outdir={tmp_path}', f'--options={path}', '--window=9')
    assert '--plugin, --trust-pickle would run program code, so it is not taken from a file' in result.stderr
    got = dry_run(f'--outdir={tmp_path}', f'--options={path}', '--window=9')
    assert (got['window'], got['settings']['batch'], got['settings']['reversal']) == (9, 32, 0.125)
    assert (got['trust_pickle'], got['plugins']) == (False, [])
    assert got['network'].endswith('tiny-generator.pkl')  # no longer where that run had it; the data set knows
    for arguments, message in [
        ([f'--options={path}', '--preset=fast', f'--outdir={tmp_path}'], 'give one of them'),
        ([f'--options={tmp_path / "none.json"}', f'--outdir={tmp_path}'], r'none.json cannot be read'),
        ([f'--outdir={tmp_path}'], r"Missing option '--data'"),
        ([f'--options={path}'], r"Missing option '--outdir'"),
    ]:
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert re.search(message, result.stderr), result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_resumed_run_names_what_it_ignores(tiny_latents, tmp_path):
    small = ['--window=9', '--latent-dim=8', '--hidden-dim=8', '--noise-dim=8', '--batch=8', '--preview-frames=0', '--kimg=0.2']
    result = invoke(f'--outdir={tmp_path}', f'--data={tiny_latents}', *small)
    assert result.exit_code == 0, result.output
    (run_dir,) = tmp_path.iterdir()
    begun = json.loads((run_dir / 'training_options.json').read_text())
    alone = dry_run(f'--resume={run_dir}')
    assert changed_paths(begun, alone) == {'preview.num_frames': 100}
    changed = ['--batch=64', '--window=9', '--glr=1e-3', '--seed=7', '--reversal=0', '--kimg=3', '--tick=2']
    result = invoke('--dry-run', f'--resume={run_dir}', *changed)
    (sentence,) = [line for line in result.stderr.splitlines() if 'ignored' in line]
    assert sentence.endswith(
        'ignored: --seed=7 (the run has --seed=0), --batch=64 (the run has --batch=8), '
        '--reversal=0 (the run has --reversal=0.5), --glr=0.001 (the run has --glr=0.003)'
    )
    got = dry_run(f'--resume={run_dir}', *changed)
    assert changed_paths(begun, got) == {'total_kimg': 3.0, 'kimg_per_tick': 2.0, 'preview.num_frames': 100}
    result = invoke('--dry-run', f'--resume={run_dir}', '--preset=paper')
    assert '--full-codes (the run has no --full-codes)' in result.stderr
    old = copy.deepcopy(begun)
    del old['settings']['chains'], old['settings']['ema_rampup']
    (run_dir / 'training_options.json').write_text(json.dumps(old))
    # Of an option that a file does not mention the run has what was so before it existed, not today's default.
    assert changed_paths(begun, dry_run(f'--resume={run_dir}', '--preview-frames=0')) == {'settings.chains': 1024}
    (run_dir / 'training_options.json').write_text('{}')
    result = invoke(f'--resume={run_dir}')
    assert result.exit_code == 2
    assert 'window is missing' in result.stderr or 'data is missing' in result.stderr


def test_help_shows_headings():
    text = CliRunner().invoke(main, ['--help']).output
    headings = re.findall(r'^(\w[\w ]*):$', text, re.MULTILINE)
    assert headings[:4] == ['Main options', 'Temporal model', 'Space of the codes', 'Losses']
    losses = text[text.index('\nLosses:') : text.index('\nOptimisation:')]
    assert '--lambda-gap FLOAT' in losses
    assert '[default: 3; x>=0]' in losses
    assert '[default: 64,64]' in text
