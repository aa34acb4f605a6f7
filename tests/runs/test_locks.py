"""One at a time: what is in use is refused with its owner, and a stale lock stops nobody."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

from networks.errors import InputError
from stylevideogan.__main__ import load_command
from training.runs import locks
from training.runs.locks import InUse, Lock, lock_path, lock_target

HOLD = """
import sys, time
from training.runs.locks import lock_target
with lock_target(sys.argv[1], '--dest'):
    print('locked', flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(root, tmp_path):
    """Another process that holds the lock of tmp_path/d.zip until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path / 'd.zip')], cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'locked\n'
        yield process
        process.kill()


def test_in_use_says_who_and_a_killed_owner_is_no_owner(tmp_path, other):
    target = tmp_path / 'd.zip'
    with pytest.raises(
        InUse, match=rf'--dest: .*d\.zip is in use by -c \(host .+, process {other.pid}, since 20\d\d-.*\)'
    ) as caught:
        lock_target(target, '--dest')
    assert isinstance(caught.value, InputError)
    assert len(str(caught.value)) < 600
    other.kill()
    other.wait()
    assert os.path.exists(lock_path(target))  # the file is left, and stops nobody
    with lock_target(target, '--dest'):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_given_back_leaves_nothing(tmp_path, other):
    other.stdin.close()
    other.wait()
    assert list(tmp_path.iterdir()) == []


def test_without_flock_the_word_in_the_file_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, 'lock_file', lambda file: None)
    path = tmp_path / 'lock'
    with Lock(path, 'this'), pytest.raises(InUse, match=rf'process {os.getpid()}'):
        Lock(path, 'this')
    path.write_text(json.dumps({'host': locks.socket.gethostname(), 'pid': os.getpid(), 'started': 1.0}))
    Lock(path, 'this').release()  # the number of the process was given anew since
    since_boot = locks._started_after_boot(os.getpid())
    path.write_text(
        json.dumps({'host': locks.socket.gethostname(), 'pid': os.getpid(), 'started': 1.0, 'after_boot': since_boot})
    )
    with pytest.raises(InUse):  # the clock was set
        Lock(path, 'this')
    path.write_text('{"host": "elsewhere", "pid": 7, "since": 1e9}')
    with pytest.raises(InUse, match=r'host elsewhere, process 7, since 2001-.*remove '):
        Lock(path, 'this')
    for rubbish in ('', '[]', '{"pid": {}}', 'x\x00'):
        path.write_text(rubbish)
        Lock(path, 'this').release()


def test_a_strange_owner_makes_a_readable_sentence(tmp_path):
    path = tmp_path / 'lock'
    with Lock(path, 'this'):
        path.write_text('{"host": "\\u001b[2J%s", "pid": [1], "since": "soon", "command": {"a": 1}}' % ('h' * 5000))
        with pytest.raises(InUse) as caught:
            Lock(path, 'this')
    assert str(caught.value).isprintable()
    assert len(re.sub(re.escape(str(path)), '', str(caught.value))) < 600


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match='No such file'):
        Lock(pathlib.Path(tmp_path, 'missing', 'lock'), 'this')


@pytest.mark.parametrize(
    ('words', 'lock'),
    [
        (
            'embed_video --network={network} --source={folder}/codes.npz --fps=25 --dest={folder}/d.zip --device=cpu',
            '.d.zip.lock',
        ),
        ('latents_tool merge --data={data} --data={data} --dest={folder}/d.zip', '.d.zip.lock'),
        ('latents_tool smooth --data={data} --dest={folder}/d --sigma=2', '.d.lock'),
        ('align_video --source={folder}/frames --dest={folder}/d --size=8 --align=none --min-frames=1', '.d.lock'),
        ('generate_video --network={snapshot} --outdir={folder}/out --seeds=0 --frames=2 --device=cpu', 'out/.generation.lock'),
        ('play_video --network={snapshot} --outdir={folder}/out --port=0 --device=cpu', 'out/.live.lock'),
        (
            'generate_video --network={snapshot} --outdir={folder}/out --seeds=0 --frames=2 --device=cpu --shard=1/2',
            'out/.generation-1-of-2.lock',
        ),
    ],
)
def test_commands_refuse_what_is_in_use(tmp_path, tiny_generator, tiny_latents, tiny_snapshot, words, lock):
    """The others: tests/runs/test_survival.py and those of report_video.py, paste_video.py, tune_generator.py, make_video.py."""
    np.savez(tmp_path / 'codes.npz', w=np.zeros([40, 6, 8], np.float32))
    for folder in ('frames', 'out'):
        (tmp_path / folder).mkdir()
    PIL.Image.fromarray(np.zeros([8, 8, 3], np.uint8)).save(tmp_path / 'frames' / '0.png')
    places = {'network': tiny_generator, 'data': tiny_latents, 'snapshot': tiny_snapshot, 'folder': tmp_path}
    command, *arguments = words.format(**places).split()
    if command == 'play_video':
        pytest.importorskip('aiohttp')
    with Lock(tmp_path / lock, 'it'):
        before = sorted(path.name for path in tmp_path.rglob('*'))
        result = CliRunner().invoke(load_command(command), arguments)
        assert f'is in use by {os.path.basename(sys.argv[0])}' in result.output
        assert f'process {os.getpid()}' in result.output
        assert result.exit_code == 2
        assert sorted(path.name for path in tmp_path.rglob('*')) == before
