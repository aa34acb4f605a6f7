"""Option types, clear errors, exit codes and progress that every command shares."""

import errno
import io
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
import types

import click
import pytest
from click.testing import CliRunner

from networks.errors import InputError
from training.commands import command_line, option_values


@pytest.mark.parametrize(
    ('text', 'seeds'),
    [
        ('0', [0]),
        ('0,1,4-6', [0, 1, 4, 5, 6]),
        ('7-7', [7]),
        ('3, 1 ,2', [3, 1, 2]),
        ('1,0-2,1', [1, 0, 2]),
        ('4294967295', [2**32 - 1]),
    ],
)
def test_seeds_are_read(text: str, seeds: list[int]) -> None:
    assert option_values.parse_seeds(text) == seeds


@pytest.mark.parametrize('text', ['', 'a', '1,', '5-2', '-3', '1.5', '4294967296', '0-99999999', '1--2', '²'])
def test_wrong_seeds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'seed|range'):
        option_values.parse_seeds(text)


def test_sizes_and_names() -> None:
    assert option_values.parse_size('4x2') == (4, 2)
    assert option_values.parse_size(' 10 X 3 ') == (10, 3)
    for text in ('4', '0x2', '4x', 'x', '4x2x1', '-1x2'):
        with pytest.raises(ValueError, match='width x height'):
            option_values.parse_size(text)
    assert option_values.parse_names('a,b,a') == ['a', 'b']
    assert option_values.parse_names('none') == option_values.parse_names('') == []


@command_line.command()
@click.option(
    '--how',
    default='fine',
    type=click.Choice(
        [
            'input',
            'full',
            'broken',
            'large',
            'quota',
            'denied',
            'missing',
            'memory',
            'torch',
            'torch at the end',
            'torch at the beginning',
            'package',
            'host',
            'stop',
            'bug',
            'fine',
        ]
    ),
)
@click.option('--seeds', type=command_line.SEEDS, default='0-2')
@click.option('--fps', type=command_line.FPS, default=25)
@command_line.clear_errors
def _sample(how: str, seeds: list[int], fps: float) -> None:
    """A command that fails as asked."""
    errors: dict[str, BaseException] = {
        'input': InputError('clip 3 has 10 frames, the window needs 25; use longer clips'),
        'full': OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'out/a.mp4'),
        'quota': OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), 'out/a.mp4'),
        'denied': PermissionError(errno.EACCES, os.strerror(errno.EACCES), '/root/a'),
        'missing': FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), 'no.pkl'),
        'memory': MemoryError(),
        'torch': RuntimeError('[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file'),
        'large': OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
        'broken': OSError(errno.EIO, os.strerror(errno.EIO), 'out/a.mp4'),
        'torch at the beginning': RuntimeError(
            '[enforce fail at inline_container.cc:747] . open file failed with strerror: Read-only file system'
        ),
        'torch at the end': RuntimeError('[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0'),
        'package': ModuleNotFoundError("No module named 'imageio_ffmpeg'", name='imageio_ffmpeg'),
        'host': ModuleNotFoundError("No module named 'scipy'", name='scipy.linalg'),
        'stop': KeyboardInterrupt(),
        'bug': RuntimeError('an inner error'),
    }
    if how in errors:
        raise errors[how]
    click.echo(f'{seeds} {fps}')


@pytest.mark.parametrize(
    ('how', 'words'),
    [
        ('input', 'clip 3 has 10 frames'),
        ('full', "no space is left on the disk while writing 'out/a.mp4'"),
        ('quota', "your quota of the disk is used up, while writing 'out/a.mp4'"),
        ('denied', "no permission for '/root/a'"),
        ('missing', "'no.pkl'"),
        ('memory', 'out of memory'),
        ('torch', 'the disk is probably full'),
        ('torch at the beginning', 'could not be opened for writing: read-only file system'),
        ('torch at the end', 'the disk is probably full'),
        ('large', 'would become larger than is allowed here'),
        ('broken', "the disk reports an error at 'out/a.mp4'"),
        ('package', "'imageio_ffmpeg' is not installed; pip install -r requirements.txt"),
        ('host', "'scipy' is not installed; pip install scipy brings it"),  # a checkout's own files need it
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(how: str, words: str) -> None:
    result = CliRunner().invoke(_sample, ['--how', how])
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.startswith('Error: ')
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ''


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--how', 'x'], '--how'),
        (['--seeds', '3-1'], 'ends before it begins'),
        (['--fps', '0'], '--fps'),
        (['--fps', 'nan'], '--fps'),
        (['--sedes', '1'], '--sedes'),
        (['more'], 'more'),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(_sample, arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_bug_keeps_its_traceback_and_ctrl_c_leaves_with_130() -> None:
    assert isinstance(CliRunner().invoke(_sample, ['--how', 'bug']).exception, RuntimeError)
    result = CliRunner().invoke(_sample, ['--how', 'stop'])
    assert result.exit_code == 130
    assert 'run the same command again' in result.stderr
    fine = CliRunner().invoke(_sample, [])
    assert (fine.exit_code, fine.stdout) == (0, '[0, 1, 2] 25.0\n')


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_run_the_cleanup(number: signal.Signals, code: int, root: os.PathLike[str]) -> None:
    program = textwrap.dedent("""
        import time
        from training.commands import command_line
        @command_line.command()
        @command_line.clear_errors(interrupted='stopped')
        def main():
            try:
                print('ready', flush=True)
                time.sleep(30)
            finally:
                print('cleaned', flush=True)
        main()
    """)
    with subprocess.Popen(
        [sys.executable, '-c', program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'ready\n'
        process.send_signal(number)
        out, err = process.communicate(timeout=600)
    assert (process.returncode, out, err.strip()) == (code, 'cleaned\n', 'stopped')


def test_progress_without_a_terminal_is_whole_lines_with_the_time_left() -> None:
    log = io.StringIO()
    with command_line.progress(total=10, description='Rendering', every_seconds=0.01, file=log) as bar:
        for _ in range(10):
            time.sleep(0.015)
            bar.update(1)
    lines = log.getvalue().splitlines()
    assert len(lines) >= 3
    assert all(line.startswith('Rendering: ') and 'left' in line and '\r' not in line for line in lines)
    assert lines[-1].startswith('Rendering: 10 of 10 frames (100%)')

    log = io.StringIO()
    with command_line.progress(total=10, description='Rendering', file=log) as bar:
        bar.update(10)
    assert log.getvalue() == ''  # done before the first line is due


def test_progress_goes_through_a_stream_that_can_only_write() -> None:
    class Plain:  # such as the Logger of NVIDIA's dnnlib, which replaces sys.stderr
        text = ''

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    log = Plain()
    with command_line.progress(total=2, description='Rendering', every_seconds=0, file=log) as bar:  # type: ignore[arg-type]
        bar.update(2)
    assert log.text.endswith('Rendering: 2 of 2 frames (100%), 00:00 gone, 00:00 left\n')


def test_checks_before_long_work(tmp_path: os.PathLike[str]) -> None:
    target = os.path.join(tmp_path, 'a', 'b', 'c.mp4')
    command_line.require_free_space(target, 1, 'one byte')
    with pytest.raises(command_line.UserMistake, match=r'4 videos: about 1024.0 TiB are needed, but .* are free at .*c.mp4'):
        command_line.require_free_space(target, 2**50, '4 videos')
    file = os.path.join(tmp_path, 'file')
    with open(file, 'w'):
        pass
    with pytest.raises(command_line.UserMistake, match='is a file'):
        command_line.require_folder(file)
    with pytest.raises(command_line.UserMistake, match='a part of this path is a file'):
        command_line.require_folder(os.path.join(file, 'below'))
    assert command_line.format_bytes(1536) == '1.5 KiB'
    assert command_line.format_bytes(3) == '3 bytes'


def test_an_absent_device_is_a_mistake() -> None:
    assert command_line.choose_device('cpu').type == 'cpu'
    assert command_line.choose_device('auto').type in ('cpu', 'cuda')
    for name in ('cuda:97', 'nonsense'):
        with pytest.raises(command_line.UserMistake, match='--device=cpu'):
            command_line.choose_device(name)


@pytest.mark.parametrize(('own', 'wanted'), [({}, '1000'), ({'GOMP_SPINCOUNT': '7'}, '7'), ({'OMP_NUM_THREADS': '1'}, None)])
def test_waiting_threads_leave_the_cores_unless_the_user_decided(
    own: dict[str, str], wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in command_line.THREAD_SETTINGS:
        monkeypatch.setenv(name, '')  # so that it is put back afterwards
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(_sample, []).exit_code == 0
    assert os.environ.get('GOMP_SPINCOUNT') == wanted


def test_torchrun_starts_a_command_for_one_process_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    @command_line.command()
    def alone() -> None:
        done.append('alone')

    @command_line.command(shares_work=True)
    def shared() -> None:
        done.append('shared')

    for name, value in {'WORLD_SIZE': '2', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': '29500'}.items():
        monkeypatch.setenv(name, value)
    for rank in ('0', '1'):
        monkeypatch.setenv('RANK', rank)
        for command in (alone, shared):
            result = CliRunner().invoke(command, [])
            assert result.exit_code == 0
            assert ('is for one process, so the first of 2 does all' in result.output) == (command is alone and rank == '0')
    assert done == ['alone', 'shared', 'shared']


@pytest.mark.parametrize(
    ('left', 'noted'),
    [
        ({'WORLD_SIZE': ''}, False),
        ({'RANK': ''}, False),
        ({'RANK': '0', 'WORLD_SIZE': '1'}, False),
        ({'WORLD_SIZE': '2'}, True),
        ({'RANK': '1', 'WORLD_SIZE': '2'}, True),  # a command for one process would end here without a word
        ({'RANK': '1', 'WORLD_SIZE': '2', 'MASTER_ADDR': '', 'MASTER_PORT': '29500'}, True),
        ({'RANK': '2', 'WORLD_SIZE': '2', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': '29500'}, True),
        ({'RANK': 'x', 'WORLD_SIZE': 'y' * 5000, 'MASTER_ADDR': 'localhost', 'MASTER_PORT': 'z'}, True),
    ],
)
def test_what_another_launcher_has_left_is_no_start(left: dict[str, str], noted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str | None, ...]] = []

    @command_line.command()
    def alone() -> None:
        seen.append(tuple(os.environ.get(name) for name in ('RANK', 'WORLD_SIZE')))

    for name, value in left.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(alone, [])
    assert result.exit_code == 0
    assert all(not value for value in seen[0])
    assert len(seen) == 1
    assert ('is no start by torchrun, so this is one process' in result.output) == noted
    assert len(result.output) < 200


def test_a_rank_with_nothing_to_say_lets_the_first_one_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun ends all ranks as soon as one has ended, also the one that was about to say what is wrong."""

    @command_line.command(shares_work=True)
    @command_line.clear_errors
    def wrong() -> None:
        raise InputError('clip 3 is damaged')

    waited: list[float] = []
    monkeypatch.setattr(command_line.time, 'sleep', waited.append)
    for name, value in {
        'TORCHELASTIC_RUN_ID': 'x', 'WORLD_SIZE': '2', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': '29500',
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for rank in ('0', '1'):
        monkeypatch.setenv('RANK', rank)
        monkeypatch.setenv('LOCAL_RANK', rank)
        result = CliRunner().invoke(wrong, [])
        assert result.exit_code == 2
        assert ('clip 3 is damaged' in result.output) == (rank == '0') == (not waited)


def test_help_needs_neither_torch_nor_time_to_import_it(root: pathlib.Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from stylevideogan.__main__ import usage; print(usage())"
    done = subprocess.run([sys.executable, '-c', program], cwd=root, capture_output=True, text=True)
    assert 'train_video' in done.stdout, done.stderr


def test_the_command_to_give_again_also_works_for_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.SimpleNamespace(__spec__=types.SimpleNamespace(name='demo.run_demo'))
    monkeypatch.setitem(sys.modules, '__main__', main)
    monkeypatch.setattr(sys, 'argv', ['/checkout/demo/run_demo.py', '--outdir=my demo'])
    assert command_line.this_command() == "\n  python -m demo.run_demo '--outdir=my demo'"
    main.__spec__ = None
    monkeypatch.setattr(sys, 'argv', ['train_video.py', '--kimg=1'])
    assert command_line.this_command() == '\n  python train_video.py --kimg=1'
    monkeypatch.setattr(sys, 'argv', ['/somewhere/pytest/__main__.py'])
    assert command_line.this_command() == ''
