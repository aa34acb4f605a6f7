"""The functions of stylevideogan.api beyond what the documentation shows: called again, interrupted, and given what is wrong."""

import pathlib

import numpy as np
import pytest
from tiny_training import TINY_TRAINING

import stylevideogan
from networks.errors import InputError
from stylevideogan import api

OPTIONS = {flag[2:].split('=')[0].replace('-', '_'): flag.split('=')[1] for flag in TINY_TRAINING}


def test_training_again_returns_the_same_run_folder(tiny_latents: pathlib.Path, tmp_path: pathlib.Path) -> None:
    options = {**OPTIONS, 'kimg': 0.3, 'tick': 0.144, 'metrics': 'none'}
    (tmp_path / 'runs' / '00007-somebody-elses').mkdir(parents=True)
    assert stylevideogan.train(str(tiny_latents), str(tmp_path / 'runs'), dry_run=True, **options) == ''
    run = stylevideogan.train(str(tiny_latents), str(tmp_path / 'runs'), **options)
    assert list(pathlib.Path(run).glob('network-snapshot-*.pkl'))
    times = {path: path.stat().st_mtime_ns for path in pathlib.Path(run).glob('*.pkl')}
    assert stylevideogan.train(str(tiny_latents), str(tmp_path / 'runs'), **options) == run
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(run).glob('*.pkl')} == times
    frames = list(stylevideogan.generate(run, num_frames=2, device='cpu'))
    assert [frame.shape for frame in frames] == [(16, 16, 3)] * 2
    for wrong, words in (({'seed': -1}, 'seed=-1'), ({'num_frames': 0}, 'num_frames=0'), ({'batch': 1.5}, 'batch=1.5')):
        with pytest.raises(InputError, match=f'{words}: a whole number of at least'):
            stylevideogan.generate(run, device='cpu', **wrong)


def test_a_signal_is_an_interruption_and_more_gpus_are_for_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import train_video

    with pytest.raises(InputError, match='gpus=2: a function starts no processes; start your script with torchrun'):
        stylevideogan.train('latents.zip', 'runs', gpus=2)
    for code in (129, 130, 143):
        monkeypatch.setattr(train_video.main, 'main', lambda *arguments, code=code, **how: code)
        with pytest.raises(KeyboardInterrupt):
            stylevideogan.train('latents.zip', 'runs')
    monkeypatch.setattr(train_video.main, 'main', lambda *arguments, **how: 'runs/00000-latents')
    assert stylevideogan.train('latents.zip', 'runs') == 'runs/00000-latents'
    assert api._words({'full_codes': True, 'cache': False, 'keep': ['a', 'b'], 'kimg': 3}) == [
        '--full-codes', '--no-cache', '--keep=a', '--keep=b', '--kimg=3',
    ]  # fmt: skip


def test_what_is_wrong_is_one_sentence(tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match='there is no such file'):
        stylevideogan.load_generator(str(tmp_path / 'none.pkl'), device='cpu')
    with pytest.raises(InputError, match="device='nowhere' cannot be used on this machine"):
        stylevideogan.load_generator(str(tiny_generator), device='nowhere')
    G = stylevideogan.load_generator(str(tiny_generator), device='cpu')
    two = np.zeros((2, 4, 16, 16, 3), np.uint8)
    with pytest.raises(InputError, match='embed takes one clip, and these are 2'):
        stylevideogan.embed(two, G, layout='NTHWC', perceptual='none')
    with pytest.raises(InputError, match='No such option'):
        stylevideogan.train('latents.zip', 'runs', nonsense=1)
