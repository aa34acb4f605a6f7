"""Make deliberate faults, one at a time, in a copy of the tree, and count how many of them the tests notice."""

import argparse
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from faults import FAULTS, Fault

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WANTED = 0.95
SECONDS = 1800  # an emergency brake: a fault that makes the tests wait for ever counts as noticed


def copy_tree(target: pathlib.Path) -> None:
    """Copy what git knows of the tree, and what is new in it."""
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z'], cwd=ROOT, check=True, capture_output=True
    ).stdout
    for name in filter(None, listed.decode().split('\0')):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def changed(fault: Fault, text: str) -> str:
    """The text with the fault in it."""
    if text.count(fault.old) != 1:
        sys.exit(f'{fault.name}: {fault.path} has {text.count(fault.old)} times, not once:\n{fault.old}')
    return text.replace(fault.old, fault.new)


def tests_pass(tree: pathlib.Path, tests: tuple[str, ...], log: pathlib.Path) -> bool:
    """Run tests in a process that begins where this one is: torch and pytest are imported already, the project is not."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with log.open('w') as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(tree)
            sys.path[0] = str(tree)
            sys.dont_write_bytecode = True
            import pytest

            code = int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '-o', f'timeout={SECONDS}', *tests]))
        finally:
            os._exit(code)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.2)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def main() -> None:
    """Try the faults; exit code 1 where too few are noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', action='append', help='faults whose name or file has this word; may be repeated')
    parser.add_argument('--keep-going', action='store_true', help='skip the run of unchanged code')
    arguments = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    for module in ('torch', 'numpy', 'click', 'pytest', 'PIL.Image', 'scipy.linalg', 'hypothesis'):
        with contextlib.suppress(ImportError):
            __import__(module)
    wanted = arguments.only or ['']
    chosen = [fault for fault in FAULTS if any(word in fault.name or word in fault.path for word in wanted)]
    for fault in chosen:
        changed(fault, (ROOT / fault.path).read_text(encoding='utf-8'))
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        tree, log = pathlib.Path(folder) / 'tree', pathlib.Path(folder) / 'log'
        copy_tree(tree)
        if not arguments.keep_going:
            for tests in dict.fromkeys(fault.tests for fault in chosen):
                if not tests_pass(tree, tests, log):
                    sys.exit(f'the tests fail without any fault: {" ".join(tests)}\n{log.read_text()[-2000:]}')
        for number, fault in enumerate(chosen, start=1):
            path = tree / fault.path
            text = path.read_text(encoding='utf-8')
            path.write_text(changed(fault, text), encoding='utf-8')
            noticed = not tests_pass(tree, fault.tests, log)
            path.write_text(text, encoding='utf-8')
            if not noticed:
                missed.append(fault)
            print(f'{number:3d} of {len(chosen)}  {"noticed" if noticed else "MISSED "}  {fault.name}', flush=True)
    share = 1 - len(missed) / max(len(chosen), 1)
    print(f'{len(chosen) - len(missed)} of {len(chosen)} faults were noticed ({share:.1%})')
    sys.exit(0 if share > WANTED else 1)


if __name__ == '__main__':
    main()
