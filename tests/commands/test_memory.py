"""How much memory there is, how much may be used, and that glibc keeps what is freed."""

import os
import pathlib
import platform
import subprocess
import sys
import types

import pytest

from training.commands import memory
from training.commands.memory import Budget, how_many, parse_budget


def test_amounts() -> None:
    assert parse_budget('8G') == Budget(8 << 30)
    assert parse_budget('1.5 GiB') == Budget(3 << 29)
    assert parse_budget('900mb') == Budget(900 << 20)
    assert parse_budget('1048576') == Budget(1 << 20)
    assert parse_budget('25%') == Budget(share=0.25)
    for wrong in ('', '8', '0%', '101%', '-1G', '8X', 'G', '1e9', 'nan', '8G%'):
        with pytest.raises(ValueError, match='no amount of memory'):
            parse_budget(wrong)


def test_how_many_fit() -> None:
    assert how_many(3 << 30, 8 << 30, 16) == 2
    assert how_many(3 << 30, 1 << 30, 16) == 1  # the least there is
    assert how_many(1 << 20, 8 << 30, 16) == 16
    assert how_many(0, 0, 4) == 1


def test_share_is_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, 'psutil', types.SimpleNamespace(virtual_memory=lambda: types.SimpleNamespace(available=10 << 30))
    )
    monkeypatch.setattr(memory, '_control_group_room', list)
    assert Budget(share=0.5).on('cpu') == 5 << 30
    assert Budget(3 << 30).on('cpu') == 3 << 30
    monkeypatch.setattr(memory, '_control_group_room', lambda: [4 << 30, 6 << 30])
    assert memory.free_memory() == 4 << 30


def test_control_groups(tmp_path: pathlib.Path) -> None:
    """Version 2: the tightest of a group and those above it; version 1; groups without a limit, and no groups at all."""

    def write(group: str, **files: str) -> None:
        folder = tmp_path / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace('_', '.', 1)).write_text(text)

    listing = tmp_path / 'listing'
    listing.write_text('0::/jobs/mine\n')
    write('', memory_max='max\n', memory_current='5\n')
    write('jobs', memory_max='1000\n', memory_current='900\n', memory_stat='anon 600\ninactive_file 250\n')
    write('jobs/mine', memory_max='2000\n', memory_current='100\n', memory_stat='broken\n')
    assert memory._control_group_room(str(tmp_path), str(listing)) == [350, 1900]
    write('jobs', memory_current='5000\n')
    assert memory._control_group_room(str(tmp_path), str(listing)) == [0, 1900]
    listing.write_text('5:cpu,memory:/old\n4:pids:/old\n')
    write('memory/old', memory_limit_in_bytes='700\n', memory_usage_in_bytes='300\n', memory_stat='total_inactive_file 50\n')
    write('memory', memory_limit_in_bytes=str(2**63 - 4096), memory_usage_in_bytes='1\n')
    assert memory._control_group_room(str(tmp_path), str(listing)) == [450]
    assert memory._control_group_room(str(tmp_path), str(tmp_path / 'none')) == []


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='this system has no glibc')
@pytest.mark.parametrize('kept', [True, False])
def test_freed_memory_is_kept(root: pathlib.Path, kept: bool) -> None:
    """Blocks of 30 MiB again and again: the pages come from the kernel once, or every time; PyTorch is told of huge pages."""
    program = (
        'import ctypes, resource, sys\n'
        'from training.commands.memory import keep_freed_memory\n'
        f'assert not {kept} or keep_freed_memory()\n'
        'import os\n'
        f'assert (os.environ.get("THP_MEM_ALLOC_ENABLE") == "1") == {kept}\n'
        'c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p; c.malloc.argtypes = [ctypes.c_size_t]\n'
        'c.free.argtypes = [ctypes.c_void_p]\n'
        'def use():\n'
        '    p = c.malloc(30 << 20); ctypes.memset(p, 1, 30 << 20); c.free(p)\n'
        'use(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
        'for _ in range(4): use()\n'
        'print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n'
    )
    # A command that another test has run in this process has set it for its children.
    environment = {name: value for name, value in os.environ.items() if name != 'THP_MEM_ALLOC_ENABLE'}
    result = subprocess.run(
        [sys.executable, '-c', program], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert (int(result.stdout) < 1000) == kept, result.stdout


def test_the_garbage_collector_rests_during_imports_and_at_the_end(root: pathlib.Path) -> None:
    """It begins with the 200,000th object and works as before then; of what there is at the end it sees nothing."""
    program = (
        'import atexit, gc, sys\n'
        'usual = gc.get_threshold()\n'
        'atexit.register(lambda: print("left", gc.get_freeze_count() > 100_000, gc.get_count()[2]))\n'
        'from training.commands import command_line\n'
        '@command_line.command()\n'
        'def main():\n'
        '    print("begins late", gc.get_threshold()[0] >= 200_000, gc.get_threshold()[1:] == usual[1:])\n'
        '    main.kept = [[] for _ in range(201_000)]\n'
        '    print("as before", gc.get_threshold() == usual, gc.isenabled(), gc.callbacks)\n'
        'main([])\n'
    )
    result = subprocess.run([sys.executable, '-c', program], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ['begins late True True', 'as before True True []', 'left True 0'], result.stderr


def test_the_user_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '131072')
    assert not memory.keep_freed_memory()
