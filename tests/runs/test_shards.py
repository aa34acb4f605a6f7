"""Independent jobs of generate_video.py: what they have made is what one job makes, and the merge notices whatever is not so."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import click.testing
import pytest
import torch

import generate_video
from networks import checkpoints
from networks.latent_generator import LatentGenerator
from training import temporal_snapshot
from training.runs.locks import Lock

COMMAND = ('--seeds=0-4', '--frames=9', '--save-codes', '--device=cpu')


@pytest.fixture(scope='module')
def snapshot(tiny_generator: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp('run') / 'network-snapshot-000001.pkl'
    torch.manual_seed(1)
    G = LatentGenerator(6, 8, latent_dim=6, noise_dim=5, hidden_dim=7)
    G.set_data_basis(0.5 * torch.randn(6 * 8), None, 1.0)
    reference = checkpoints.image_generator_reference(str(tiny_generator), checkpoints.load_generator(str(tiny_generator)))
    temporal_snapshot.save_snapshot(
        str(path), G=G, G_ema=G, C=G, image_generator=reference, data={'path': 'x.zip', 'sha256': '0' * 64, 'fps': 20.0},
        training_options={}, progress={},
    )  # fmt: skip
    return path


def generate(snapshot: pathlib.Path, outdir: pathlib.Path, *arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(
        generate_video.main, [f'--network={snapshot}', f'--outdir={outdir}', *COMMAND, *arguments]
    )


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file, hidden ones as well, but the record."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name != 'generation.jsonl'
    }


def recorded(folder: pathlib.Path) -> list[str]:
    return [json.loads(line)['file'] for line in (folder / 'generation.jsonl').read_text().splitlines()]


@pytest.fixture(scope='module', params=['mp4', 'png'])
def shares(request: pytest.FixtureRequest, snapshot: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """whole: by one job; 1, 2, 3: shares in folders of their own; nothing in here is changed by a test."""
    folder = tmp_path_factory.mktemp('shares')
    (folder / 'format').write_text(request.param)
    assert generate(snapshot, folder / 'whole', f'--format={request.param}').exit_code == 0
    for number in (1, 2, 3):
        result = generate(snapshot, folder / str(number), f'--format={request.param}', f'--shard={number}/3')
        assert result.exit_code == 0, result.output
    return folder


def merge(snapshot: pathlib.Path, shares: pathlib.Path, outdir: pathlib.Path, *folders: pathlib.Path) -> click.testing.Result:
    return generate(snapshot, outdir, f'--format={(shares / "format").read_text()}', *(f'--merge={folder}' for folder in folders))


def test_shares_are_what_one_job_makes(snapshot: pathlib.Path, shares: pathlib.Path, tmp_path: pathlib.Path) -> None:
    before = contents(shares)
    for _ in range(2):  # the second one finds everything there
        result = merge(snapshot, shares, tmp_path / 'all', *(shares / str(number) for number in (3, 1, 2)))
        assert result.exit_code == 0, result.output
        assert 'All 5 files' in result.stderr
        assert contents(tmp_path / 'all') == contents(shares / 'whole')
        assert recorded(tmp_path / 'all') == recorded(shares / 'whole')
    assert contents(shares) == before  # of the jobs nothing is taken away


def test_shares_in_one_folder_are_checked(snapshot: pathlib.Path, shares: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for number in (1, 2, 3):
        result = generate(snapshot, tmp_path, f'--format={(shares / "format").read_text()}', f'--shard={number}/3')
        assert result.exit_code == 0, result.output
    (tmp_path / '.generation-1-of-7.unfinished').write_text('of a share that was killed, and then divided otherwise')
    lines = (tmp_path / 'generation.jsonl').read_text()
    result = merge(snapshot, shares, tmp_path, tmp_path)
    assert result.exit_code == 0, result.output
    assert contents(tmp_path) == contents(shares / 'whole')
    assert (tmp_path / 'generation.jsonl').read_text() == lines


def test_what_is_missing_is_named_by_its_share(snapshot: pathlib.Path, shares: pathlib.Path, tmp_path: pathlib.Path) -> None:
    ending = '' if (shares / 'format').read_text() == 'png' else '.mp4'
    result = merge(snapshot, shares, tmp_path / 'all', shares / '1', shares / '3')
    assert result.exit_code == 2
    assert f'of 3 shares 1 are not complete: 2/3 (seed0001{ending}, seed0004{ending})' in result.stderr
    assert contents(tmp_path / 'all') == {}  # nothing before all is there
    result = merge(snapshot, shares, tmp_path / 'all', shares / 'whole' / 'none')
    assert (result.exit_code, 'there is no folder' in result.stderr) == (2, True)
    result = merge(snapshot, shares, tmp_path / 'all', tmp_path)
    assert f'5 of 5 files cannot be used: seed0000{ending}, seed0001{ending}' in result.stderr


def test_what_was_cut_off_is_noticed(snapshot: pathlib.Path, shares: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A copy from another machine that did not come to its end, of a video, of frames, and of codes."""
    copied = tmp_path / '2'
    for name in ('video', 'seed0004.npz'):
        shutil.copytree(shares / '2', copied)
        if name == 'video' and (copied / 'seed0001').is_dir():
            name = 'seed0001'
            os.unlink(copied / 'seed0001' / 'frame000008.png')
        else:
            name = 'seed0001.mp4' if name == 'video' else name
            os.truncate(copied / name, (copied / name).stat().st_size - 1)
        result = merge(snapshot, shares, tmp_path / 'all', shares / '1', copied, shares / '3')
        assert result.exit_code == 2
        assert f'{name} is not whole' in result.stderr
        shutil.rmtree(copied)


def test_files_of_another_command_are_refused(snapshot: pathlib.Path, shares: pathlib.Path, tmp_path: pathlib.Path) -> None:
    kind = f'--format={(shares / "format").read_text()}'
    assert generate(snapshot, tmp_path / '2', kind, '--shard=2/3', '--trunc=0.5').exit_code == 0
    result = merge(snapshot, shares, tmp_path / 'all', shares / '1', tmp_path / '2', shares / '3')
    assert result.exit_code == 2
    assert 'made with another trunc' in result.stderr


def test_a_job_at_work_is_refused_and_a_merge_beside_a_share(
    snapshot: pathlib.Path, shares: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / '2'
    shutil.copytree(shares / '2', folder)
    with Lock(folder / '.generation-2-of-3.lock', 'a share'):
        result = merge(snapshot, shares, tmp_path / 'all', shares / '1', folder, shares / '3')
    assert result.exit_code == 2
    assert f'--merge: {folder} is in use by' in result.stderr
    result = merge(
        snapshot, shares, tmp_path / 'all', shares / '1', folder, shares / '3'
    )  # the lock of a dead process stops none
    assert result.exit_code == 0
    result = generate(snapshot, tmp_path / 'all', '--shard=1/3', f'--merge={folder}')
    assert '--shard makes one share, and --merge puts all of them together' in result.stderr


def test_a_merge_made_on_another_device_takes_the_files(
    snapshot: pathlib.Path, shares: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A batch system computes on GPUs, and merges where there is none."""
    folder = tmp_path / '2'
    shutil.copytree(shares / '2', folder)
    record = folder / 'generation.jsonl'
    record.write_text(record.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    result = merge(snapshot, shares, tmp_path / 'all', shares / '1', folder, shares / '3')
    assert result.exit_code == 0, result.output
    assert 'made on cpu and cuda' in result.stderr


def test_a_killed_merge_goes_on(snapshot: pathlib.Path, shares: pathlib.Path, tmp_path: pathlib.Path, root: pathlib.Path) -> None:
    """Killed between the third file and its name."""
    code = """
import os, signal, generate_video
from training.generation import merging
replace, calls = os.replace, []
def killed(*paths):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = killed
generate_video.main()
"""
    arguments = [f'--merge={shares / str(number)}' for number in (1, 2, 3)]
    words = [f'--network={snapshot}', f'--outdir={tmp_path / "all"}', *COMMAND, f'--format={(shares / "format").read_text()}']
    killed = subprocess.run([sys.executable, '-c', code, *words, *arguments], cwd=root, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(contents(tmp_path / 'all')) > 2
    assert contents(tmp_path / 'all').keys() != contents(shares / 'whole').keys()
    result = merge(snapshot, shares, tmp_path / 'all', *(shares / str(number) for number in (1, 2, 3)))
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / 'all') == contents(shares / 'whole')
    assert recorded(tmp_path / 'all') == recorded(shares / 'whole')


def test_stills_are_shared_out(tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def stills(folder: str, *arguments: str) -> click.testing.Result:
        words = [f'--network={tiny_generator}', f'--outdir={tmp_path / folder}', '--stills', '--seeds=0-4', '--device=cpu']
        return click.testing.CliRunner().invoke(generate_video.main, [*words, *arguments])

    assert stills('whole').exit_code == 0
    assert stills('1', '--shard=1/2').exit_code == 0
    assert sorted(contents(tmp_path / '1')) == ['seed0000.png', 'seed0002.png', 'seed0004.png']
    arguments = [f'--merge={tmp_path / "1"}', f'--merge={tmp_path / "2"}']
    (tmp_path / '2').mkdir()
    assert 'of 2 shares 1 are not complete: 2/2 (seed0001.png, seed0003.png)' in stills('all', *arguments).stderr
    assert stills('2', '--shard=2/2').exit_code == 0
    assert stills('all', *arguments).exit_code == 0
    assert contents(tmp_path / 'all') == contents(tmp_path / 'whole')


def test_a_share_without_files_says_so(snapshot: pathlib.Path, tmp_path: pathlib.Path) -> None:
    result = generate(snapshot, tmp_path, '--shard=7/8')
    assert result.exit_code == 0
    assert 'Share 7 of 8 has no files' in result.stderr
