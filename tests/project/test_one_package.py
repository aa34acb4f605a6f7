"""The installed package: one import name that gets along with every `training`, `torch_utils` and `dnnlib` around it."""

import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from tiny_training import TINY_TRAINING

from networks import checkpoints
from networks.latent_generator import LatentGenerator
from stylevideogan import layout

# What NVIDIA's checkouts and PyPI's torch-utils and dnnlib put where Python looks first.
STRANGERS = ('training', 'metrics', 'networks', 'plugins', 'torch_utils', 'dnnlib', 'train_video', 'latents_tool')


def tracked_files(root: pathlib.Path) -> list[str]:
    listing = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'], cwd=root, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip('not a git checkout')
    return [name for name in listing.stdout.splitlines() if (root / name).is_file()]


def build(root: pathlib.Path, folder: pathlib.Path, function: str) -> pathlib.Path:
    """Build a wheel out of a copy, so that no build folder appears in the checkout, and unpack it; returns where."""
    for name in tracked_files(root):
        if not name.startswith(('tests/', 'benchmarks/', 'demo/', 'docs/')):
            (folder / 'copy' / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / 'copy' / name).write_bytes((root / name).read_bytes())
    built = subprocess.run(
        [sys.executable, '-c', f'import setuptools.build_meta as b; print(b.{function}("dist"))'],
        cwd=folder / 'copy',
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next((folder / 'copy' / 'dist').glob('stylevideogan-*.whl'))) as archive:
        archive.extractall(folder / 'site')
    return folder / 'site'


@pytest.fixture(scope='module')
def wheel(root: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build(root, tmp_path_factory.mktemp('wheel'), 'build_wheel')


@pytest.fixture(scope='module')
def editable(root: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build(root, tmp_path_factory.mktemp('editable'), 'build_editable')


@pytest.fixture(params=['wheel', 'editable'])
def site(request: pytest.FixtureRequest) -> pathlib.Path:
    """What an installation puts into site-packages."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope='module')
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder such as stylegan3's: packages of the same names, which end the program when they are imported."""
    folder = tmp_path_factory.mktemp('checkout')
    for name in STRANGERS:
        (folder / name).mkdir()
        (folder / name / '__init__.py').write_text(f'raise SystemExit("the {name} of somebody else was imported")\n')
    return folder


def run(site: pathlib.Path, cwd: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': str(site), 'PYTHONDONTWRITEBYTECODE': '1'}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_rooms_are_all_that_there_are(root: pathlib.Path) -> None:
    names = tracked_files(root)
    ours = {name.split('/')[0] for name in names if name.endswith('.py')} - {'tests', 'benchmarks', 'demo', 'docs', 'setup.py'}
    assert ours == {*layout.FOLDERS, *(f'{command}.py' for command in layout.COMMANDS), layout.PACKAGE}


def test_rewriting_keeps_lines_and_can_be_undone(root: pathlib.Path) -> None:
    changed = 0
    for name in tracked_files(root):
        if name.endswith('.py') and not name.startswith(('tests/', 'stylevideogan/')):
            text = (root / name).read_text(encoding='utf-8')
            packaged = layout.rewrite(text)
            assert packaged.count('\n') == text.count('\n'), name
            assert layout.restore(packaged) == text, name
            assert layout.restore(text) == text, name
            changed += packaged != text
    assert changed > 100


@pytest.mark.parametrize(
    ('flat', 'packaged'),
    [
        ('import dnnlib', 'from stylevideogan import dnnlib'),
        ('import dnnlib.util', 'import stylevideogan.dnnlib.util; from stylevideogan import dnnlib'),
        ('import os, networks.stylegan2 as i', 'import os; import stylevideogan.networks.stylegan2 as i'),
        ('if x: import dnnlib  # ä', 'if x: from stylevideogan import dnnlib  # ä'),
        ("'ä'; from networks import (\n    i3d,\n)\n", "'ä'; from stylevideogan.networks import (\n    i3d,\n)\n"),
        ('from .networks import i3d', 'from .networks import i3d'),
        ('import networksx', 'import networksx'),
        ('s = "import dnnlib"', 's = "import dnnlib"'),
    ],
)
def test_rewriting(flat: str, packaged: str) -> None:
    assert layout.rewrite(flat) == packaged


def test_wheel_holds_every_file_that_runs_under_one_name(root: pathlib.Path, wheel: pathlib.Path) -> None:
    wanted = {
        name if name.startswith('stylevideogan/') else f'stylevideogan/{name}'
        for name in tracked_files(root)
        if name.endswith(('.py', '.cu', '.cpp', '.h', '.typed', '.html', '.css', '.js'))
        and name != 'setup.py'
        and not name.startswith(('tests/', 'benchmarks/', 'demo/', 'docs/'))
    }
    found = {path.relative_to(wheel).as_posix() for path in wheel.rglob('*') if path.is_file()}
    assert wanted <= found
    assert {name.split('/')[0].split('-')[0] for name in found} == {'stylevideogan'}
    assert any(name.endswith('licenses/LICENSE') for name in found)


def test_commands_run_inside_of_a_checkout_with_the_same_names(
    site: pathlib.Path, checkout: pathlib.Path, root: pathlib.Path, tiny_latents: pathlib.Path
) -> None:
    version = run(site, checkout, '-m', 'stylevideogan', '--version')
    assert version.stdout.startswith(f'stylevideogan {layout_version()}'), version.stderr
    info = run(site, checkout, '-m', 'stylevideogan', 'latents-tool', 'info', '--json', str(tiny_latents))
    assert '"num_ws": 6' in info.stdout, info.stderr
    mistake = run(site, checkout, '-m', 'stylevideogan.train_video', '--nonsense')
    assert (mistake.returncode, mistake.stderr.count('\n')) == (2, 1), mistake.stderr
    unknown = run(site, checkout, '-m', 'stylevideogan', 'paint')
    assert unknown.returncode == 2
    assert 'train_video' in unknown.stderr
    metrics = run(site, checkout, '-m', 'stylevideogan', 'calc_metrics_video', '--list-metrics')
    assert 'fvd2048_16f' in metrics.stdout, metrics.stderr
    assert metrics.stderr == ''


def layout_version() -> str:
    from stylevideogan.version import __version__

    return __version__


def test_training_runs_on_two_ranks_and_its_snapshot_opens_everywhere(
    wheel: pathlib.Path, checkout: pathlib.Path, tiny_generator: pathlib.Path, tiny_latents: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The names in the snapshot are the flat ones, with which NVIDIA's own torch_utils can read it."""
    trained = run(
        wheel,
        checkout,
        '-m',
        'stylevideogan',
        'train_video',
        f'--outdir={tmp_path}',
        f'--data={tiny_latents}',
        f'--network={tiny_generator}',
        '--gpus=2',
        *TINY_TRAINING,
        '--kimg=0.2',
        '--tick=0.1',
        '--metrics=none',
        '--carry=0.5',
        '--strides=1',
    )
    assert trained.returncode == 0, trained.stderr
    snapshot = next(tmp_path.rglob('network-snapshot-*.pkl'))
    assert b'stylevideogan.' not in snapshot.read_bytes()
    assert isinstance(checkpoints.load_snapshot(str(snapshot)).G_ema, LatentGenerator)
    with open(snapshot, 'rb') as file:
        assert type(pickle.load(file)['G_ema']).__name__ == 'LatentGenerator'  # runs the text in it, on the flat torch_utils
    program = (
        'from stylevideogan.networks import checkpoints\n'
        f'for trust in (False, True):\n    G = checkpoints.load_snapshot({str(snapshot)!r}, trust_pickle=trust).G_ema\n'
        '    print(type(G).__name__, G.num_ws)\n'
    )
    opened = run(wheel, checkout, '-c', program)
    assert opened.stdout == 'LatentGenerator 6\n' * 2, opened.stderr


def test_pickles_are_those_of_the_flat_layout(site: pathlib.Path, checkout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    program = """
import hashlib, sys, torch
from PACKAGEnetworks import checkpoints
from PACKAGEnetworks.latent_generator import LatentGenerator
torch.manual_seed(0)
G = LatentGenerator(num_ws=2, w_dim=4, latent_dim=8, num_cells=2)
G.eval().requires_grad_(False)
checkpoints.save_module_pickle(sys.argv[1], {'G_ema': G, 'x': [1, {'y': 2.5}]})
import pickletools
ops = pickletools.genops(open(sys.argv[1], 'rb').read())
names = [(op.name, arg) for op, arg, _ in ops if 'BINUNICODE' in op.name or 'INT' in op.name]
print(hashlib.sha256(repr(names).encode()).hexdigest())
"""
    flat = run(
        pathlib.Path(layout.__file__).parent.parent, tmp_path, '-c', program.replace('PACKAGE', ''), str(tmp_path / 'a.pkl')
    )
    packaged = run(site, checkout, '-c', program.replace('PACKAGE', 'stylevideogan.'), str(tmp_path / 'b.pkl'))
    assert flat.returncode == packaged.returncode == 0, flat.stderr + packaged.stderr
    assert flat.stdout == packaged.stdout
    assert b'stylevideogan' not in (tmp_path / 'b.pkl').read_bytes()


def test_names_and_files_written_for_the_flat_layout_work(
    site: pathlib.Path, checkout: pathlib.Path, tmp_path: pathlib.Path, tiny_latents: pathlib.Path
) -> None:
    plugin = tmp_path / 'mine.py'
    plugin.write_text(
        'import dnnlib\nfrom metrics import metric_main\n\n\n@metric_main.register_metric\ndef mine(opts):\n'
        '    return {"mine": len(dnnlib.util.construct_class_by_name(**opts.dataset_kwargs).clips)}\n'
    )
    program = f"""
from stylevideogan.metrics import discovery, metric_main
assert discovery.load_metric_file({str(plugin)!r}) == ['mine']
kwargs = dict(class_name='training.latents.dataset.LatentDataset', path={str(tiny_latents)!r})
print(metric_main.calc_metric('mine', dataset_kwargs=kwargs, device='cpu').results)
import sys
print([name for name in sys.modules if name.split('.')[0] in {STRANGERS!r}])
"""
    done = run(site, checkout, '-c', program)
    assert done.stdout == "{'mine': 2}\n[]\n", done.stderr


def test_an_editable_installation_follows_the_checkout(editable: pathlib.Path, tmp_path: pathlib.Path) -> None:
    found = run(
        editable, tmp_path, '-c', 'import stylevideogan.metrics.distances.frechet as f; print(f.__file__); print(f.__cached__)'
    )
    place = found.stdout.splitlines()[0]
    assert place.endswith('/copy/metrics/distances/frechet.py'), found.stderr
    with open(place, 'a', encoding='utf-8') as file:
        file.write('\nNEW = 1\n')
    again = run(editable, tmp_path, '-c', 'from stylevideogan.metrics.distances import frechet; print(frechet.NEW)')
    assert again.stdout == '1\n', again.stderr


def test_start_again_is_the_same_command() -> None:
    args = ['--gpus=2', '--outdir=x']
    packaged, flat = 'stylevideogan.training.commands.command_line', 'training.commands.command_line'
    wanted = ['-m', 'stylevideogan.train_video', *args]
    assert layout.start_again(packaged, 'train_video', ['/bin/stylevideogan', 'train-video', *args]) == wanted
    assert layout.start_again(packaged, 'train_video', ['/lib/stylevideogan/train_video.py', *args]) == wanted
    assert layout.start_again(flat, 'train_video', ['train_video.py', *args]) == ['train_video.py', *args]
    script = layout.start_again(flat, 'train_video', ['stylevideogan/__main__.py', 'train_video', *args])
    assert os.path.isfile(script[0])
    assert script[1:] == args


def test_version_is_in_snapshots_and_results() -> None:
    from stylevideogan import version
    from training.temporal_snapshot import versions

    assert versions()['stylevideogan'] == version.__version__
    assert versions().get('commit') == version.commit()
    assert torch.__version__ == versions()['torch']
