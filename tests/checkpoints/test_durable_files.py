"""Files appear whole or not at all, and what killed runs leave is cleaned up."""

import errno
import hashlib
import io
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from networks.checkpoints import digests, durable_files, files
from networks.checkpoints.durable_files import append_line, remove_leftovers, replacing


def names(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_whole_and_synced_before_its_name(tmp_path, monkeypatch):
    target, events = tmp_path / 'state.pt', []
    target.write_text('old')
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (events.append(os.readlink(f'/proc/self/fd/{handle}')), real_fsync(handle)))
    monkeypatch.setattr(os, 'replace', lambda a, b: (events.append('rename'), real_replace(a, b)))
    with replacing(target) as temporary:
        pathlib.Path(temporary).write_text('new')
        assert target.read_text() == 'old'
    assert target.read_text() == 'new'
    assert target.stat().st_mode & 0o777 == 0o666 & ~durable_files_umask()
    assert [event if event in ('rename', str(tmp_path)) else 'file' for event in events] == ['file', 'rename', str(tmp_path)]
    assert names(tmp_path) == {'state.pt'}


def durable_files_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_half(target: pathlib.Path, error: BaseException) -> None:
    with replacing(target) as temporary:
        pathlib.Path(temporary).write_text('half')
        raise error


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'full'), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_alone(tmp_path, error):
    target = tmp_path / 'a.json'
    target.write_text('old')
    with pytest.raises(type(error)):
        write_half(target, error)
    assert (names(tmp_path), target.read_text()) == ({'a.json'}, 'old')


def test_leftovers_of_killed_runs_go_and_those_of_living_ones_stay(tmp_path, root):
    program = textwrap.dedent("""
        import sys, time
        from networks.checkpoints.durable_files import replacing
        with replacing(sys.argv[1]) as temporary:
            print(temporary, flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen(
        [sys.executable, '-c', program, str(tmp_path / 'b.pt')], cwd=root, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        temporary = pathlib.Path(process.stdout.readline().strip())
        (tmp_path / '.b.pt.lock').write_text('no temporary file')
        assert remove_leftovers(tmp_path) == []  # at work
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert temporary.exists()
    with replacing(tmp_path / 'other.pt') as other:
        pathlib.Path(other).write_text('x')
    assert temporary.exists()  # of another file
    with replacing(tmp_path / 'b.pt') as mine:
        pathlib.Path(mine).write_text('x')
    assert names(tmp_path) == {'b.pt', 'other.pt', '.b.pt.lock'}


def test_where_there_are_no_locks_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(durable_files, 'lock_file', lambda file: None)
    new, old = tmp_path / '.a.abcdefgh.tmp', tmp_path / '.a.abcdefgi.partial'
    new.touch()
    old.touch()
    os.utime(old, (1, 1))
    assert remove_leftovers(tmp_path) == [str(old)]


def test_a_torn_line_swallows_nothing(tmp_path):
    path = tmp_path / 'lines.jsonl'
    append_line(path, '{"a": 1}')
    with open(path, 'a') as file:
        file.write('{"half')
    append_line(path, '{"b": 2}')
    assert path.read_text().split('\n') == ['{"a": 1}', '{"half', '{"b": 2}', '']


@pytest.mark.parametrize('after', [0, 5])
def test_a_full_disk_leaves_the_lines_before(tmp_path, monkeypatch, after):
    path = tmp_path / 'lines.jsonl'
    append_line(path, 'first')
    real = os.write

    def write(handle: int, data: memoryview) -> int:
        if after and len(data) == len('second line') + 1:
            return real(handle, data[:after])  # a short write, and then no space at all
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'write', write)
    with pytest.raises(OSError, match='No space'):
        append_line(path, 'second line')
    monkeypatch.undo()
    assert path.read_text() == 'first\n'


def _append(path: str, letter: str) -> None:
    for _ in range(200):
        append_line(path, letter * 3000)


def test_lines_of_several_processes_do_not_mix(tmp_path, monkeypatch):
    path = str(tmp_path / 'lines.jsonl')
    context = multiprocessing.get_context('fork')
    monkeypatch.setattr(os, 'fsync', lambda handle: None)  # 600 of them take long on a slow disk
    processes = [context.Process(target=_append, args=(path, letter)) for letter in 'abc']
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    lines = pathlib.Path(path).read_text().splitlines()
    assert len(lines) == 600
    assert {len(line) for line in lines} == {3000}
    assert all(len(set(line)) == 1 for line in lines)


def test_a_digest_is_taken_once_and_anew_when_the_file_changes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, taken = tmp_path / 'file', []
    path.write_bytes(b'one')
    original = digests.sha256_of
    monkeypatch.setattr(digests, 'sha256_of', lambda file: (taken.append(1), original(file))[1])

    def ask(times: int) -> None:
        for _ in range(times):
            assert files.file_sha256(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()

    ask(2)
    assert len(taken) == 2  # so new that it may be written to within the tick of a clock
    old = path.stat().st_mtime_ns - 10_000_000_000
    os.utime(path, ns=(old, old))
    ask(2)
    assert len(taken) == 3
    path.write_bytes(b'two')
    os.utime(path, ns=(old, old))  # ctime tells
    ask(1)
    assert len(taken) == 4
    assert files.file_sha256(io.BytesIO(b'three')) == hashlib.sha256(b'three').hexdigest()
