"""Fixtures for every test."""

import collections
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# A shell that starts the tests in the background makes them ignore Ctrl-C, and their child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, 'SIGHUP'):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup makes them ignore

# The networks of the tests are tiny: threads would wait for each other longer than they work, above all on a busy machine.
os.environ.setdefault('OMP_NUM_THREADS', '1')

MOST_PROCESSES = 8  # of `-n auto`; each takes half a gigabyte, and the longest file as long as all eight together

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--processor-times',
        type=int,
        default=0,
        metavar='N',
        help='show the N tests that take the most processor time, that of their child processes included; other work on the '
        'machine hardly changes it, unlike --durations',
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption('--processor-times'):
        config.pluginmanager.register(ProcessorTimes(config.getoption('--processor-times')))


class ProcessorTimes:
    """Adds up what the tests cost, fixtures with the test that asks for them first; also of tests that ran in other processes."""

    def __init__(self, most: int) -> None:
        self.most, self.seconds, self.before = most, collections.Counter[str](), sum(os.times()[:4])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        report = yield
        now = sum(os.times()[:4])
        report.processor_seconds, self.before = now - self.before, now
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.processor_seconds

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        files = collections.Counter[str]()
        for name, seconds in self.seconds.items():
            files[name.partition('::')[0]] += seconds
        for heading, costs in (('files', files), ('tests', self.seconds)):
            terminalreporter.section(f'{heading} by processor time')
            for name, seconds in costs.most_common(self.most):
                terminalreporter.write_line(f'{seconds:7.1f} s  {name}')
        terminalreporter.write_line(f'{self.seconds.total():7.1f} s  all')


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` means; 0: the tests run in pytest's own, without what others cost to start."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return 0 if cores == 1 else min(cores, MOST_PROCESSES)


def load_compiled_code() -> None:
    from training.kernels import native_code

    folder = pathlib.Path(native_code.__file__).parent
    for path in folder.rglob('*.cpp'):
        native_code.load(path.relative_to(folder).with_suffix('').as_posix())


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """What hands tests out to processes compiles for all of them; each would do it otherwise."""
    if session.config.getoption('numprocesses', default=None) and not hasattr(session.config, 'workerinput'):
        load_compiled_code()


@pytest.fixture(scope='session', autouse=True)
def _compiled_once() -> None:
    """Compiled code is loaded before a test names an empty folder for what is kept, where it would be compiled again."""
    load_compiled_code()


@pytest.fixture(scope='session', autouse=True)
def _short_look_at_models() -> Iterator[None]:
    """A training that ends looks at 100 frames of its model, not at 3000: seconds each time, of which hardly a test speaks."""
    from training import stationarity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stationarity, 'LONGEST_BURN_IN', 50)
        patch.setattr(stationarity, 'REFERENCE_FRAMES', 50)
        yield


@pytest.fixture(scope='session')
def root() -> pathlib.Path:
    """Folder of the checkout."""
    return ROOT


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
    """Folder of independent reference data beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / 'shared'
    if not (folder / 'checkpoints').is_dir():
        pytest.skip('reference data (../shared/checkpoints) is not beside this checkout')
    return folder


@pytest.fixture(scope='session')
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A pickle in NVIDIA's layout with a randomly filled 16x16 StyleGAN2: num_ws 6, w_dim 8."""
    import torch

    from networks import checkpoints, stylegan2

    torch.manual_seed(0)
    G = stylegan2.Generator(
        z_dim=8,
        c_dim=0,
        w_dim=8,
        img_resolution=16,
        img_channels=3,
        mapping_kwargs={'num_layers': 2},
        synthesis_kwargs={'channel_base': 128, 'channel_max': 16},
    )
    path = tmp_path_factory.mktemp('tiny') / 'tiny-generator.pkl'
    checkpoints.save_module_pickle(str(path), {'G_ema': G.eval().requires_grad_(False)})
    return path


@pytest.fixture(scope='session')
def tiny_latents(tiny_generator: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A latent data set for tiny_generator: two clips, 90 and 60 frames at 25 fps, smooth motion in a few directions."""
    import numpy as np

    from networks import checkpoints
    from training.latents.dataset import LatentDatasetWriter

    G = checkpoints.load_generator(str(tiny_generator))
    random = np.random.RandomState(1)
    directions = random.randn(4, 6 * 8) * np.array([1.0, 0.6, 0.4, 0.2])[:, None]
    path = tmp_path_factory.mktemp('latents') / 'subject.zip'
    reference = checkpoints.image_generator_reference(str(tiny_generator), G)
    with LatentDatasetWriter(str(path), image_generator=reference, num_ws=6, w_dim=8, embedding={'method': 'test'}) as writer:
        for name, length in (('first', 90), ('second', 60)):
            time = np.arange(length)[:, None]
            waves = np.sin(time / random.uniform(4, 12, size=4) + random.uniform(0, 6, size=4))
            codes = (waves @ directions + 0.01 * random.randn(length, 48)).reshape(length, 6, 8)
            writer.add_clip(name, codes.astype(np.float32), fps=25.0, source=f'{name}.mp4')
        writer.finish()
    return path


@pytest.fixture
def tiny_snapshot(tiny_generator: pathlib.Path, tiny_latents: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A snapshot of an untrained latent generator for tiny_generator, as a training on tiny_latents writes it."""
    import torch

    from networks import checkpoints
    from networks.latent_generator import LatentGenerator
    from training import temporal_snapshot
    from training.latents.dataset import LatentDataset

    torch.manual_seed(0)
    networks = LatentGenerator(6, 8, num_components=6)
    networks.set_data_basis(torch.randn(48), torch.randn(6, 48))
    path = tmp_path / 'network-snapshot-000001.pkl'
    reference = checkpoints.image_generator_reference(str(tiny_generator), checkpoints.load_generator(str(tiny_generator)))
    with LatentDataset(str(tiny_latents)) as dataset:
        temporal_snapshot.save_snapshot(
            str(path),
            G=networks,
            G_ema=networks,
            C=networks,
            image_generator=reference,
            data=temporal_snapshot.describe_dataset(dataset),
            training_options={},
            progress={},
        )
    return path
