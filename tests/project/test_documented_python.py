"""The Python in docs/python.md and docs/measuring/scores.md runs as it stands."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest


@pytest.mark.parametrize('page', ['python.md', 'measuring/scores.md'])
def test_examples_run_as_they_stand(page: str, root: pathlib.Path, tmp_path: pathlib.Path, tiny_generator: pathlib.Path) -> None:
    blocks = re.findall(r'```python\n(.*?)```', (root / 'docs' / page).read_text(encoding='utf-8'), re.DOTALL)
    assert len(blocks) >= 2
    assert all(block.count('\n') <= 16 for block in blocks), 'an example is ten lines or a few more'
    shutil.copy(tiny_generator, tmp_path / 'G.pkl')
    program = tmp_path / 'example.py'
    program.write_text(
        f'import sys\nsys.path.insert(0, {str(root)!r})\n'
        'from training import stationarity\n'
        'stationarity.LONGEST_BURN_IN = stationarity.REFERENCE_FRAMES = 50\n' + '\n'.join(blocks)  # as in conftest.py
    )
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
