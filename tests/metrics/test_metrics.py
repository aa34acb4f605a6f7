"""The Frechet distance against closed forms, its latent form on motion that is known, and how metrics are found."""

import json
import pathlib
import textwrap

import numpy as np
import pytest
import scipy.linalg
import torch

import dnnlib
from metrics import discovery, families, metric_main, metric_utils
from metrics.best_value import best_of
from metrics.distances.frechet import expected_bias, frechet_distance, mean_and_covariance
from metrics.inputs.latent_windows import CodeSpace, window_starts
from networks.errors import InputError
from networks.latent_generator import LatentGenerator
from networks.seeded_noise import SeededNoise
from plugins.latent_frechet_distance import LatentFrechetDistance, generate_coordinates, latent_frechet_distance


def random_covariance(size: int, rank: int, seed: int) -> np.ndarray:
    factor = np.random.RandomState(seed).randn(size, rank)
    return factor @ factor.T / rank


# ----------------------------------------------------------------------------
# The distance of two Gaussians


def test_frechet_distance_of_gaussians_with_a_closed_form() -> None:
    # One dimension: (m1 - m2)^2 + (s1 - s2)^2.
    assert frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([-2.0]), np.array([[9.0]])) == pytest.approx(
        9 + 1, rel=1e-14
    )
    # Covariances that share their eigenvectors: the sum over axes of the same.
    rotation = np.linalg.qr(np.random.RandomState(0).randn(5, 5))[0]
    a, b = np.array([0, 1, 4, 9, 16.0]), np.array([1, 0, 4, 1, 25.0])
    expected = 5 * 0.25 + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    value = frechet_distance(np.zeros(5), rotation * a @ rotation.T, np.full(5, 0.5), rotation * b @ rotation.T)
    assert value == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_agrees_with_the_matrix_root_and_is_symmetric() -> None:
    a, b = random_covariance(12, 40, 1), random_covariance(12, 40, 2)
    mean = np.random.RandomState(3).randn(12)
    root = scipy.linalg.sqrtm(a @ b).real
    expected = mean @ mean + np.trace(a + b - 2 * root)
    assert frechet_distance(mean, a, np.zeros(12), b) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(np.zeros(12), b, mean, a) == pytest.approx(expected, rel=1e-10)


def test_equal_gaussians_are_at_zero_even_if_singular() -> None:
    for rank in (0, 1, 3, 30):
        covariance = random_covariance(20, rank, rank) if rank else np.zeros([20, 20])
        assert frechet_distance(np.ones(20), covariance, np.ones(20), covariance) == pytest.approx(0, abs=1e-12)
    # Two planes that share no direction: nothing of the one can be carried over to the other.
    first, second = np.diag([1, 2, 0, 0.0]), np.diag([0, 0, 3, 4.0])
    assert frechet_distance(np.zeros(4), first, np.zeros(4), second) == pytest.approx(10, rel=1e-14)


def test_wrong_statistics_are_refused() -> None:
    eye = np.eye(2)
    for arguments, words in [
        ((np.zeros(2), eye, np.zeros(3), np.eye(3)), 'cannot be compared'),
        ((np.zeros(2), np.eye(3), np.zeros(2), eye), 'do not fit'),
        ((np.zeros(2), eye, np.array([0, np.nan]), eye), 'not finite'),
        ((np.zeros(2), np.array([[1, 1], [0, 1.0]]), np.zeros(2), eye), 'not symmetric'),
    ]:
        with pytest.raises(ValueError, match=words):
            frechet_distance(*arguments)
    with pytest.raises(ValueError, match='two samples'):
        mean_and_covariance(np.zeros([1, 4]))
    with pytest.raises(ValueError, match='1 of 3 samples'):
        mean_and_covariance(np.array([[0, 1], [np.inf, 2], [3, 4]]))


def test_statistics_have_both_conventions() -> None:
    features = np.random.RandomState(0).randn(50, 3) @ np.random.RandomState(1).randn(3, 3)
    mean, covariance = mean_and_covariance(features)
    assert np.allclose(covariance, np.cov(features, rowvar=False), rtol=1e-12)
    assert np.allclose(mean, features.mean(axis=0))
    stats = metric_utils.FeatureStats(capture_mean_cov=True)
    stats.append(features)
    assert np.allclose(mean_and_covariance(features, ddof=0)[1], stats.get_mean_cov()[1], rtol=1e-5)


def test_expected_bias_is_that_of_a_simulation() -> None:
    # Known from a simulation with 2048 samples of N(0, I) in 400 dimensions on each side: 40.3.
    assert expected_bias(np.eye(400), 2048, 2048) == pytest.approx(40.3, rel=0.03)
    random = np.random.RandomState(0)
    scales = np.array([3, 1, 0.5, 0.1, 0])
    values = [
        frechet_distance(*mean_and_covariance(random.randn(100, 5) * scales), *mean_and_covariance(random.randn(300, 5) * scales))
        for _ in range(200)
    ]
    assert expected_bias(np.diag(scales**2), 100, 300) == pytest.approx(np.mean(values), rel=0.15)


# ----------------------------------------------------------------------------
# The latent distance


def motion_directions() -> np.ndarray:
    """The directions [6, 96] of the codes that move."""
    return np.random.RandomState(99).randn(6, 96)


def moving_codes(num_frames: int, seed: int, pace: float = 0.2) -> np.ndarray:
    """Codes [T, 6, 16] of a stationary motion: six slow coordinates (an autoregression), and a little noise."""
    random = np.random.RandomState(seed)
    position = random.randn(6)
    steps = []
    for _ in range(num_frames):
        position = (1 - pace) * position + np.sqrt(1 - (1 - pace) ** 2) * random.randn(6)
        steps.append(position)
    codes = np.stack(steps) @ motion_directions() + 0.05 * random.randn(num_frames, 96)
    return codes.reshape(num_frames, 6, 16).astype(np.float32)


def windows_of(codes: np.ndarray, window: int = 25) -> np.ndarray:
    return np.stack([codes[begin : begin + window] for begin in range(0, len(codes) - window + 1, window)])


@pytest.fixture(scope='module')
def real() -> LatentFrechetDistance:
    return LatentFrechetDistance([moving_codes(3000, 0), moving_codes(2000, 1), moving_codes(10, 2)])


def test_protocol_stands_in_the_results(real: LatentFrechetDistance) -> None:
    results = real.compare_codes(windows_of(moving_codes(5000, 3)))
    assert results['windows_real'] == 2048
    assert results['windows_real_side_by_side'] == 200
    assert results['windows_fake'] == 200
    assert results['clips_too_short'] == 1
    assert results['window_frames'] == 25
    assert results['components'] == 6
    assert results['dimension'] == 64
    # Independent windows of the same motion come out at about the bias, far below a video that stands still.
    assert results['distance'] < 2 * results['expected_bias'] < 0.3 * results['constant']
    assert results['floor'] < 0.3 * results['constant']


def test_latent_distance_ranks_known_faults(real: LatentFrechetDistance) -> None:
    codes = moving_codes(5000, 3)
    windows = windows_of(codes)
    spread = codes.std(axis=0)
    inside = motion_directions().reshape(6, 6, 16)
    outside = np.random.RandomState(2).randn(96)
    outside -= np.linalg.pinv(motion_directions()) @ motion_directions() @ outside

    def measure(changed: np.ndarray) -> tuple[float, float]:
        results = real.compare_codes(changed)
        return results['distance'], results['motion_distance']

    same, same_motion = measure(windows)
    frozen, frozen_motion = measure(np.repeat(windows[:, :1], 25, axis=1))
    shuffled_motion = measure(windows[:, np.random.RandomState(0).permutation(25)])[1]
    slower_motion = measure(windows_of(moving_codes(5000, 4, pace=0.05)))[1]
    shifted, shifted_motion = measure(windows + inside[0])
    jitter_motion = measure(windows + 0.5 * spread * np.random.RandomState(1).randn(*windows.shape))[1]
    constant = real.views['motion_'].constant
    assert frozen > 3 * same
    assert shifted > 3 * same
    assert frozen_motion == pytest.approx(constant, rel=0.01)  # no motion at all, whatever the picture
    assert same_motion < slower_motion < frozen_motion
    assert min(shuffled_motion, jitter_motion) > 3 * same_motion
    assert shifted_motion == pytest.approx(same_motion, rel=0.05)  # it moves as it should
    # What leaves the space of the real codes shows in the tail only.
    assert measure(windows + outside.reshape(6, 16))[0] > 10 * same


def test_latent_distance_refuses_bare_numbers(real: LatentFrechetDistance) -> None:
    few = windows_of(moving_codes(1000, 5))
    with pytest.raises(InputError, match='40 generated windows are too few for 64 dimensions; make at least 66'):
        real.compare_codes(few)
    with pytest.raises(InputError, match='holds 7 windows of 25 frames side by side'):
        LatentFrechetDistance([moving_codes(199, 0)])
    with pytest.raises(InputError, match='needs at least 65'):
        latent_frechet_distance([moving_codes(1000, 0)], few, dimension=64)
    short = LatentFrechetDistance([moving_codes(500, 0)])
    assert short.protocol['dimension'] == 19  # one less than the windows that lie side by side
    broken = few.copy()
    broken[3, 7, 0, 0] = np.nan
    with pytest.raises(InputError, match='1 of 40 generated windows'):
        short.compare_codes(broken)
    with pytest.raises(InputError, match='not finite'):
        LatentFrechetDistance([np.full([500, 2, 4], np.nan, np.float32)])
    with pytest.raises(InputError, match=r'all frames .* are the same'):
        LatentFrechetDistance([np.ones([500, 2, 4], np.float32)])


def test_windows_are_spread_over_all_clips() -> None:
    assert window_starts([3, 2, 5], 3, 100) == [(0, 0), (2, 0), (2, 1), (2, 2)]
    chosen = window_starts([1000, 10, 2000], 25, 50)
    assert len(chosen) == 50
    assert chosen[0] == (0, 0)
    assert chosen[-1] == (2, 1975)
    assert {clip for clip, _ in chosen} == {0, 2}
    assert window_starts([3], 25, 10) == []


@pytest.mark.parametrize('num_components', [0, 12])
def test_generated_windows_are_those_of_the_seeds(num_components: int) -> None:
    torch.manual_seed(0)
    generator = LatentGenerator(6, 16, num_components=num_components).eval()
    basis = torch.randn(num_components, 96) if num_components else None
    generator.set_data_basis(torch.randn(96), basis, 0.7)
    space = CodeSpace([moving_codes(300, 0)])
    coordinates = generate_coordinates(generator, space, [3, 11, 5], start=4, window=6)
    assert coordinates.shape == (3, 6, space.num_components + 1)
    for row, seed in enumerate([3, 11, 5]):
        noise = SeededNoise([seed], generator.latent_dim, generator.noise_dim)
        with torch.no_grad():
            codes = generator(noise.first(), noise.steps(9))
        assert torch.allclose(coordinates[row], space.project(codes[0, 4:]), rtol=1e-3, atol=1e-3)


def test_coordinates_are_white_and_the_tail_has_unit_length() -> None:
    codes = moving_codes(2000, 0)
    coordinates = CodeSpace([codes[:700], codes[700:]]).project(codes).double().numpy()
    assert np.allclose(np.cov(coordinates[:, :-1], rowvar=False), np.eye(6), atol=1e-5)
    assert np.allclose(coordinates[:, :-1].mean(axis=0), 0, atol=1e-5)
    assert np.sqrt(np.mean(coordinates[:, -1] ** 2)) == pytest.approx(1, rel=1e-5)


# ----------------------------------------------------------------------------
# How metrics are found


class Recording:
    """Stands for a latent data set: what the metrics use of training.latents.dataset.LatentDataset."""

    def __init__(self, path: str) -> None:
        self.clips = [moving_codes(600, int(path))]
        self.num_ws, self.w_dim = 6, 16

    def load_clip(self, index: int) -> np.ndarray:
        return self.clips[index]

    def close(self) -> None:
        pass


def test_registered_metrics_run_through_the_host_interface(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    found, broken = discovery.discover_metrics()
    assert broken == {}
    assert {'lfd2048_25f', 'lfd2048_25f_at225'} <= set(found)
    assert pathlib.Path(found['lfd2048_25f']).name == 'latent_frechet_distance.py'
    torch.manual_seed(0)
    generator = LatentGenerator(6, 16, num_components=8)
    options = {
        'G': generator,
        'device': torch.device('cpu'),
        'dataset_kwargs': dnnlib.EasyDict(class_name=f'{__name__}.Recording', path='0'),
    }
    first = metric_main.calc_metric(metric='lfd2048_25f', **options)
    assert first.results['lfd2048_25f_windows_fake'] == 2048
    assert first.results['lfd2048_25f_dimension'] == 23
    assert 0 < first.results['lfd2048_25f'] < 100
    assert generator.training  # the caller's generator is left alone
    assert all(parameter.requires_grad for parameter in generator.parameters())
    assert metric_main.calc_metric(metric='lfd2048_25f', **options).results == first.results
    metric_main.report_metric(first, run_dir=str(tmp_path), snapshot_pkl=str(tmp_path / 'network-snapshot-000001.pkl'))
    line = json.loads(capsys.readouterr().out)
    assert line['results'] == first.results
    assert line['snapshot_pkl'] == 'network-snapshot-000001.pkl'
    assert json.loads((tmp_path / 'metric-lfd2048_25f.jsonl').read_text()) == line


def test_a_family_is_found_by_its_pattern(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'family.py'
    path.write_text(
        textwrap.dedent("""
        from metrics.families import register_family

        def make(match):
            return lambda opts: {match[0]: int(match[1])}

        register_family(r'test_only_count(\\d+)', make, ['test_only_count7'], best=lambda match: float(match[1]))
    """)
    )
    assert discovery.load_metric_file(str(path)) == ['test_only_count7']
    assert not metric_main.is_valid_metric('test_only_count12')
    assert discovery.find_metric('test_only_count12') == str(path)
    assert metric_main.calc_metric(metric='test_only_count12', G=None).results == {'test_only_count12': 12}
    assert best_of('test_only_count12') == 12
    assert discovery.find_metric('test_only_counts') is None
    with pytest.raises(ValueError, match='test_only_x does not follow the pattern'):
        families.register_family('test_only_y', lambda match: lambda opts: {}, ['test_only_x'])


def test_a_file_of_the_users_own(tmp_path: pathlib.Path) -> None:
    good = tmp_path / 'blinks.py'
    good.write_text(
        textwrap.dedent("""
        from metrics import metric_main

        @metric_main.register_metric
        def test_only_blink_rate(opts):
            return {'test_only_blink_rate': 0.25}
    """)
    )
    assert discovery.load_metric_file(str(good)) == ['test_only_blink_rate']
    assert discovery.load_metric_file(str(good)) == ['test_only_blink_rate']  # named twice
    assert metric_main.calc_metric(metric='test_only_blink_rate', G=None).results == {'test_only_blink_rate': 0.25}
    for text, words in [
        ('raise OSError("no weights")', 'cannot be imported .OSError: no weights'),
        ('def f(:', 'SyntaxError'),
        ('x = 1', 'registers no metric'),
        (good.read_text().replace('test_only_blink_rate', 'lfd2048_25f'), 'lfd2048_25f, which there is already'),
    ]:
        before = dict(metric_main._metrics)
        bad = tmp_path / 'bad.py'
        bad.write_text(text)
        with pytest.raises(InputError, match=words):
            discovery.load_metric_file(str(bad))
        metric_main._metrics.update(before)
    with pytest.raises(InputError, match='there is no file'):
        discovery.load_metric_file(str(tmp_path / 'absent.py'))


def test_one_broken_plugin_takes_no_other_away(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'wrong.py').write_text('register_metric = undefined_name')
    (tmp_path / 'other.py').write_text('no_metric = 1')
    monkeypatch.setattr(discovery, 'PLUGIN_FOLDER', str(tmp_path))
    monkeypatch.setattr('plugins.__path__', [str(tmp_path)])
    found, broken = discovery.discover_metrics.__wrapped__()
    assert found == {}
    assert list(broken) == [str(tmp_path / 'wrong.py')]
    assert 'NameError' in broken[str(tmp_path / 'wrong.py')]
