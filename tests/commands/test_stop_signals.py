"""Signals end a command in an orderly way, a second one at once; a reader that leaves ends nothing."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

HEAD = """
import sys, time
from training.commands import command_line, stop_signals
@command_line.command()
@command_line.clear_errors(interrupted='stopped')
def main():
"""


def start(root, body: str, *, stdout=subprocess.PIPE, head: str = HEAD) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, '-c', head + textwrap.indent(textwrap.dedent(body), '    ') + '\nmain()\n'],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    if stdout == subprocess.PIPE:
        assert process.stdout is not None
        assert process.stdout.readline() == 'ready\n'
    return process


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_held_signals_wait_for_the_end_of_a_step(root, number):
    process = start(
        root,
        """
        with stop_signals.held():
            print('ready', flush=True)
            steps = 0
            while stop_signals.asked() is None:
                time.sleep(0.3)
                steps += 1
            print('saved', flush=True)
            raise stop_signals.Stopped(stop_signals.asked())
    """,
    )
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    assert (out, err.strip(), process.returncode) == ('saved\n', 'stopped', 128 + number)


def test_inside_of_metrics_a_signal_ends_at_once(root):
    process = start(
        root,
        """
        with stop_signals.held(), stop_signals.at_once():
            print('ready', flush=True)
            time.sleep(60)
    """,
    )
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=600) == ('', '\nstopped\n')
    assert process.returncode == 143


def test_a_second_signal_waits_for_nothing(root):
    process = start(
        root,
        """
        with stop_signals.held():
            print('ready', flush=True)
            time.sleep(60)
    """,
    )
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=600)
    assert process.returncode == 130


def test_a_library_that_looks_at_no_signal_is_ended(root):
    """The main thread waits in libc for a lock that it has itself."""
    process = start(
        root,
        """
        import ctypes
        stop_signals.PATIENCE = 0.5
        lock = ctypes.CDLL(None).pthread_mutex_lock
        mutex = ctypes.create_string_buffer(256)
        lock(mutex)
        print('ready', flush=True)
        lock(mutex)
    """,
    )
    time.sleep(0.5)  # until it is deep in there
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 143
    assert 'stopped in the middle of a long computation (SIGTERM)' in err
    assert err.splitlines()[-1] == 'stopped'  # what the command says when it is interrupted, with how to go on


def test_nohup_stays_nohup(root):
    process = start(
        root,
        """
        import signal
        print('ready', flush=True)
        time.sleep(1)
        print('end')
    """,
        head='import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n' + HEAD,
    )
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=600)
    assert (process.returncode, out) == (0, 'end\n')


def test_a_reader_that_leaves_ends_nothing(root, tmp_path):
    reader, writer = os.pipe()
    process = start(
        root,
        f"""
        print('first', flush=True)
        time.sleep(0.5)
        for _ in range(3):
            print('more' * 10000, flush=True)
        open({str(tmp_path / 'end')!r}, 'w').close()
        print('at exit')
    """,
        stdout=writer,
    )
    os.close(writer)
    with os.fdopen(reader, 'rb') as stream:
        assert stream.readline() == b'first\n'  # in one piece or in two
    _, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, '')
    assert (tmp_path / 'end').exists()


def test_unbuffered_output_is_there_at_once(root, monkeypatch):
    monkeypatch.setenv('PYTHONUNBUFFERED', '1')
    process = start(
        root,
        """
        print('ready')
        time.sleep(20)
    """,
    )
    assert process.poll() is None
    process.kill()
    process.communicate()


def test_a_terminal_that_closes_ends_nothing(root, tmp_path):
    import pty

    controller, terminal = pty.openpty()
    process = start(
        root,
        f"""
        print('first', flush=True)
        time.sleep(0.5)
        for _ in range(3):
            print('more' * 1000, flush=True)
        open({str(tmp_path / 'end')!r}, 'w').close()
    """,
        stdout=terminal,
    )
    os.close(terminal)
    assert b'first' in os.read(controller, 100)
    os.close(controller)
    process.communicate(timeout=600)
    assert process.returncode == 0
    assert (tmp_path / 'end').exists()


def test_a_full_disk_behind_standard_output_is_told(root):
    with open('/dev/full', 'w') as full:
        process = start(
            root,
            """
            print('result', flush=True)
        """,
            stdout=full,
        )
    _, err = process.communicate(timeout=600)
    assert process.returncode == 2
    assert err.startswith('Error: no space is left on the disk')


@pytest.mark.parametrize('closed', ['>&-', '2>&-', '<&- >&- 2>&-'])
def test_streams_that_were_closed_from_the_start_end_nothing(root, tmp_path, closed):
    """What they write goes nowhere, and above all not into the file that is opened next."""
    body = f"""
        print('lost')
        print('lost', file=sys.stderr)
        command_line.report('lost')
        with open({str(tmp_path / 'result')!r}, 'w') as file:
            import os
            os.write(1, b'lost')
            os.write(2, b'lost')
            assert file.fileno() > 2
            file.write('kept')
    """
    program = HEAD + textwrap.indent(textwrap.dedent(body), '    ') + '\nmain()\n'
    shell = ['sh', '-c', f'exec "$@" {closed}', 'sh', sys.executable, '-c', program]
    result = subprocess.run(shell, capture_output=True, text=True, cwd=root, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'result').read_text() == 'kept'
