"""The inputs that fuzzing found worth keeping, and random changes of them: tests/fuzz/fuzz_loader.py says how."""

import os
import subprocess
import sys


def test_replay_runs_no_code_and_raises_nothing_of_its_own(root, tmp_path):
    """In a process of its own: its audit hook, which stops at any sign of code, cannot be taken away again."""
    script = root / 'tests' / 'fuzz' / 'fuzz_loader.py'
    done = subprocess.run(
        [sys.executable, script, 'replay', '--mutations=150'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith('no find\n')
    assert os.listdir(tmp_path) == []


def test_the_guard_sees_code_run(root, tmp_path):
    """What the replay relies on: running a pickle, even one that does nothing, is an event that stops it."""
    code = """
import pathlib, pickle, sys
import fuzz_loader
guard = fuzz_loader.Guard()
for action in (lambda: pickle.loads(b'cbuiltins\\nlist\\n)R.'), lambda: eval('1'), lambda: open('x', 'w'),
               lambda: __import__('wave')):
    try:
        with guard.watching():
            action()
    except fuzz_loader.Find as find:
        print(str(find).split()[0])
"""
    paths = os.pathsep.join([str(root / 'tests' / 'fuzz'), str(root), str(root / 'tests' / 'checkpoints')])
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'PYTHONPATH': paths},
    )
    assert done.stdout.split() == ['pickle.find_class', 'compile', 'open', 'import'], done.stderr
