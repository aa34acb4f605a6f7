"""Scores of iterators keep no frames: memory does not grow with the number of clips."""

import json
import pathlib
import subprocess
import sys


def test_memory_does_not_grow_with_the_clips(root: pathlib.Path) -> None:
    command = [sys.executable, '-m', 'benchmarks.metrics.score_memory', '--clips=8,150', '--side=128', '--scores=fvd,psnr']
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    peaks = [line['peak_mib'] for line in lines]
    assert lines[-1]['frames_mib'] > 200
    assert peaks[-1] - peaks[1] < 40, lines
