"""Data sets and videos have the same bytes from one process and from two, started by torchrun or by --gpus."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from training.videos.output import VideoWriter

pytestmark = pytest.mark.skipif('SLOW_TESTS' not in os.environ, reason='slow: SLOW_TESTS=1 runs it')

TORCHRUN = ('-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '--')
LAUNCHERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'one': ((), ()),
    'two': ((), ('--gpus=2',)),
    'torchrun': (TORCHRUN, ()),
}


def results(folder: pathlib.Path) -> dict[str, str]:
    """Name -> digest of every file; of records, what stands in them but for times."""
    found = {}
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            content = path.read_bytes()
            if path.name == 'generation.jsonl':
                lines = [json.loads(line) for line in content.splitlines()]
                content = json.dumps(
                    sorted(
                        ({key: line[key] for key in line if key not in ('seconds', 'timestamp', 'time')} for line in lines),
                        key=lambda line: str(line['file']),
                    )
                ).encode()
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


@pytest.mark.parametrize('work', ['videos', 'frames', 'embedding'])
def test_bytes_do_not_depend_on_the_number_of_ranks(
    root: pathlib.Path, tmp_path: pathlib.Path, tiny_generator: pathlib.Path, tiny_snapshot: pathlib.Path, work: str
) -> None:
    (tmp_path / 'footage').mkdir()
    for number in range(3):
        with VideoWriter(tmp_path / 'footage' / f'{number}.mp4', fps=25) as video:
            for frame in np.random.RandomState(number).randint(0, 255, (7 + number, 16, 16, 3)):
                video.write(frame.astype(np.uint8))
    generate = (f'--network={tiny_snapshot}', '--seeds=0-2', '--frames=30', '--save-codes')
    command, *options = {
        'videos': ('generate_video.py', *generate, '--outdir=OUT'),
        'frames': ('generate_video.py', *generate, '--outdir=OUT', '--format=png'),
        'embedding': ('embed_video.py', f'--network={tiny_generator}', f'--source={tmp_path / "footage"}', '--dest=OUT/d',
                      '--steps=3', '--first-steps=3', '--perceptual=none', '--min-frames=2', '--no-report', '--preview'),
    }[work]  # fmt: skip
    found = {}
    for name, (launcher, more) in LAUNCHERS.items():
        out = tmp_path / name
        out.mkdir()
        words = [*launcher, str(root / command), *(word.replace('OUT', str(out)) for word in options), '--device=cpu', *more]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found[name] = results(out)
    assert len(found['one']) > 3
    assert found['two'] == found['one']
    assert found['torchrun'] == found['one']
