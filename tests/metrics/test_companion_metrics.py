"""Repetition, drift, motion statistics and diversity: known values, constructed videos, and both ways in."""

import json
import math
import pathlib

import numpy as np
import pytest
import torch

import dnnlib
from metrics import metric_main
from metrics.best_value import best_of
from metrics.discovery import discover_metrics, find_metric
from metrics.distances.bootstrap_interval import bootstrap_interval
from metrics.inputs import picture_inputs
from metrics.inputs.frame_points import LatentPoints, colour_statistics, small_pictures, stretches
from metrics.inputs.video_comparison import VideoComparison
from networks.errors import InputError
from networks.latent_generator import LatentGenerator
from plugins import repetition
from plugins.diversity import Diversity, vendi_score
from plugins.drift import Drift
from plugins.motion_statistics import MotionStatistics, log_spectral_distance, velocity_spectrum
from plugins.repetition import Repetition, find_returns, window_deviations, window_distances

PACES = np.array([60, 40, 20, 10, 5, 5])  # frames, the time constants of the motion below


def motion(num_frames: int, seed: int) -> torch.Tensor:
    """A stationary motion [T, 6]: autoregressions of unit variance, smoothed over five frames."""
    random = np.random.RandomState(seed)
    decay = np.exp(-1 / PACES)
    position, steps = random.randn(6), []
    for noise in random.randn(num_frames + 4, 6):
        position = decay * position + np.sqrt(1 - decay**2) * noise
        steps.append(position)
    return torch.from_numpy(np.stack([np.convolve(column, np.ones(5) / 5, 'valid') for column in np.transpose(steps)], axis=1))


def at(sequence: torch.Tensor, positions: np.ndarray) -> torch.Tensor:
    """The sequence at positions between its frames."""
    before = np.floor(positions).astype(int)
    share = torch.from_numpy(positions - before).double().unsqueeze(1)
    return torch.lerp(sequence[before], sequence[before + 1], share)


# ----------------------------------------------------------------------------
# Repetition


def test_returns_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    y, n = motion(60, 0), 7
    count = len(y) - n + 1
    forwards, backwards = np.empty([count, count]), np.empty([count, count])
    for i in range(count):
        for j in range(count):
            forwards[i, j] = np.sqrt(np.mean([float((y[i + k] - y[j + k]).square().sum()) for k in range(n)]))
            backwards[i, j] = np.sqrt(np.mean([float((y[i + k] - y[j + n - 1 - k]).square().sum()) for k in range(n)]))
    assert np.allclose(window_distances(y, n, range(count)).sqrt(), forwards, atol=1e-6)
    assert np.allclose(window_distances(y, n, range(3, 20), backwards=True).sqrt(), backwards[3:20], atol=1e-6)
    lags = np.arange(count) - np.arange(count)[:, np.newaxis]
    forwards[abs(lags) < n] = backwards[abs(lags) < n] = np.inf
    monkeypatch.setattr(repetition, 'ROWS_AT_ONCE', 11)  # several blocks
    found = find_returns(y, n, tolerance=2.0)
    assert np.allclose(found.forwards, forwards.min(axis=1))
    assert np.allclose(found.backwards, backwards.min(axis=1))
    assert np.allclose(found.earlier, np.where(lags < 0, np.minimum(forwards, backwards), np.inf).min(axis=1))
    shares = [np.mean(np.diagonal(forwards, lag) <= 2.0) for lag in range(count)]
    assert np.allclose(found.lag_shares, shares)
    assert 0 < max(shares) < 1
    deviations = [(window - window.mean(dim=0)).square().sum(dim=1).mean().sqrt() for window in y.unfold(0, n, 1).transpose(1, 2)]
    assert np.allclose(window_deviations(y, n), deviations)


@pytest.fixture(scope='module')
def real() -> Repetition:
    return Repetition([motion(400, 0)], num_frames=1000)


def test_repetition_is_one_for_what_repeats_itself(real: Repetition) -> None:
    y, time = motion(1000, 5), np.arange(1000)
    noise = torch.from_numpy(np.random.RandomState(0).randn(1000, 6))
    for period in (3, 25, 40, 40.37, 99.5, 333.3, 480):
        found = real.measure(at(y, time % period))
        assert found['repetition'] > 0.99, period
        assert found['lag_share'] > 0.99
        if period >= 25:  # a shorter one is found by one of its multiples
            assert found['lag_frames'] % period == pytest.approx(0, abs=1) or found['lag_frames'] % period > period - 1
        assert found['new_frames'] < period + 75
    assert real.measure(at(y, time % 99.5) + 0.1 * noise)['repetition'] > 0.99
    assert real.measure(y[60].expand(1000, -1) + 0.1 * noise)['still'] == 1
    there_and_back = real.measure(at(y, np.abs(499.0 - time)))
    assert there_and_back['repetition'] == there_and_back['backwards'] > 0.9
    assert there_and_back['forwards'] < 0.2
    # Longer than half of the video: 300 of its frames are shown twice, windows across the seams are new.
    assert real.measure(at(y, time % 700.0))['share'] == pytest.approx(2 * (300 - 24) / 976, abs=0.03)
    assert real.measure(at(y, np.minimum(time, 500.0)))['repetition'] == pytest.approx(0.5, abs=0.05)  # freezes half way


def test_repetition_is_zero_for_what_is_like_real_footage_or_wilder(real: Repetition) -> None:
    random = np.random.RandomState(1)
    results = real.compare([motion(1000, seed) for seed in range(10, 16)])
    assert -0.02 < results['low'] <= results['repetition'] <= results['high'] < 0.05
    assert results['new_frames'] > 950
    assert results['videos'] == 6
    for wild in (torch.from_numpy(random.randn(1000, 6)), torch.from_numpy(0.3 * random.randn(1000, 6)).cumsum(0)):
        assert real.measure(wild)['repetition'] <= 0.02


def test_repetition_ranks(real: Repetition) -> None:
    y, time = motion(1000, 7), np.arange(1000)
    wandering = motion(1000, 8)  # a loop that is a little different every time
    loop = at(y, time % 150.0)
    near = [loop + strength * wandering for strength in (0, 0.3, 0.4, 0.6)]
    partly = [torch.cat([loop[:end], y[end:]]) for end in (1000, 600, 350, 0)]
    for videos in (near, partly):
        values = [real.measure(video)['repetition'] for video in videos]
        assert values == sorted(values, reverse=True)
        assert values[0] > 0.99 > 0.9 > values[1] > values[2] > values[3] > -0.01
        assert values[3] < 0.05


def test_repetition_refuses_bare_numbers(real: Repetition) -> None:
    for arguments, words in [
        (([motion(150, 0)], 1000), '6 windows of 25 frames side by side'),
        (([motion(74, 0)] * 5, 1000), '0 windows'),
        (([motion(400, 0)], 99), 'at least 100 frames'),
        (([torch.zeros(400, 6)], 1000), 'stands still or repeats itself'),
        (([at(motion(100, 0), np.arange(400) % 50.0)], 1000), 'stands still or repeats itself'),
    ]:
        with pytest.raises(InputError, match=words):
            Repetition(*arguments)
    with pytest.raises(InputError, match='not finite'):
        real.measure(torch.full([1000, 6], torch.nan))
    assert Repetition([motion(400, 0), motion(60, 0)], 1000).protocol['real_clips_too_short'] == 1


# ----------------------------------------------------------------------------
# Drift


def test_drift_of_known_videos() -> None:
    drift = Drift([motion(2000, seed) for seed in range(8)], 1000)
    same = drift.compare(motion(1000, seed) for seed in range(20, 60))
    assert same['low'] < 1 < same['high']
    assert same['drift'] == pytest.approx(1, abs=0.15)
    assert drift.compare([motion(1, 0).expand(1000, -1)] * 2)['drift'] == 0
    # Pairs of blocks at 40 - lag of each lag from 20 to 39 blocks: the mean square lag is that of a steady slope.
    lags = np.arange(20, 40)
    slope = torch.arange(1000).double().unsqueeze(1) * torch.eye(6, dtype=torch.float64)[:1] * 0.01
    expected = 0.25 * np.sqrt(np.average(lags**2, weights=40 - lags)) / drift.compare([slope])['real_distance']
    assert drift.compare([slope])['drift'] == pytest.approx(expected)
    walk = torch.from_numpy(np.random.RandomState(0).randn(40, 4000, 6)).cumsum(1)
    far = Drift([motion(4000, 0)], 4000).compare(walk)['distance'] / drift.compare(walk[:, :1000])['distance']
    assert far == pytest.approx(2, rel=0.15)  # the root of four times as long
    for arguments, words in [
        (([motion(99, 0)], 1000), 'no real clip has 100 frames'),
        (([torch.zeros(500, 2)], 500), 'no unit'),
        (([motion(500, 0)], 60), 'at least 100'),
    ]:
        with pytest.raises(InputError, match=words):
            Drift(*arguments)


# ----------------------------------------------------------------------------
# Motion


def test_spectrum_has_the_power_of_the_velocity() -> None:
    steps = torch.from_numpy(np.random.RandomState(0).randn(20000, 2))
    power, segments = velocity_spectrum(steps.cumsum(0))
    assert segments == (19999 - 64) // 32 + 1
    assert power.mean() == pytest.approx(2, rel=0.03)  # two coordinates of unit variance
    assert power[4:-1].std() < 0.1  # and white
    wave = torch.sin(2 * torch.pi * 8 / 64 * torch.arange(1000)).double().unsqueeze(1)
    assert velocity_spectrum(wave.cumsum(0))[0].argmax() == 7  # 8 cycles in 64 frames; f begins at 1


def test_motion_of_known_videos() -> None:
    clips = [motion(2000, seed) for seed in range(3)]
    real = MotionStatistics(clips, fps=25, scaled=True)
    assert real.compare(clips)['motion'] == pytest.approx(0, abs=1e-12)
    assert real.compare(clip.flip(0) for clip in clips)['motion'] < 0.2
    twice = real.compare(2 * clip for clip in clips)
    assert twice['motion'] == pytest.approx(20 * math.log10(2), abs=0.01)
    assert twice['speed'] == pytest.approx(2)
    assert twice['acceleration'] == pytest.approx(2)
    assert all(value == pytest.approx(4) for name, value in twice.items() if name.startswith('power_'))
    others = real.compare(motion(1000, seed) for seed in range(10, 20))
    assert others['motion'] < 2 * others['floor'] < 1
    frozen = real.compare([clips[0][:1].expand(500, -1)])
    assert frozen['motion'] == pytest.approx(frozen['constant'])
    assert frozen['constant'] > 20
    assert frozen['still'] == 1 > frozen['real_still']
    shaken = real.compare(clip + 0.2 * torch.from_numpy(np.random.RandomState(0).randn(2000, 6)) for clip in clips)
    assert shaken['power_6_up'] > 3 > shaken['power_0_to_1_hz']
    assert log_spectral_distance(np.full(5, 10.0), np.ones(5)) == pytest.approx(10, abs=1e-3)
    with pytest.raises(InputError, match='more than 64 frames'):
        MotionStatistics([motion(64, 0)], 25, scaled=True)
    with pytest.raises(InputError, match='1 segments'):
        MotionStatistics([motion(80, 0)], 25, scaled=True)


# ----------------------------------------------------------------------------
# Diversity


def test_vendi_score_counts() -> None:
    assert vendi_score(np.ones([7, 7])) == pytest.approx(1)
    assert vendi_score(np.eye(7)) == pytest.approx(7)
    assert vendi_score(np.kron(np.eye(3), np.ones([4, 4]))) == pytest.approx(3)


def test_diversity_of_known_videos() -> None:
    real = Diversity([motion(3000, 0)], num_videos=64)
    same = real.compare([torch.stack([motion(25, seed) for seed in range(64)])])
    assert same['diversity'] == pytest.approx(1, abs=0.1)
    assert same['distance'] == pytest.approx(1, abs=0.15)
    one = motion(25, 0)
    collapsed = real.compare([one.expand(64, -1, -1)])
    assert collapsed['diversity'] == pytest.approx(1 / collapsed['real_vendi'])
    assert collapsed['distance'] == 0
    modes = real.compare([torch.stack([one, motion(25, 1), motion(25, 2), motion(25, 3)]).repeat(16, 1, 1)])
    assert collapsed['vendi'] < modes['vendi'] < 4.01
    # Videos that begin apart and end alike.
    late = real.compare([torch.stack([motion(25, seed) for seed in range(64)]), one.expand(64, -1, -1)])
    assert late['distance_first'] > 0.8 > 0 == late['distance_last']
    with pytest.raises(InputError, match='3 videos'):
        Diversity([motion(3000, 0)], num_videos=3)


# ----------------------------------------------------------------------------
# Points


def test_points_of_pictures() -> None:
    frames = np.zeros([2, 64, 128, 3], np.uint8)
    frames[1] = [10, 20, 30]
    frames[1, :32] += 100
    points = small_pictures(frames)
    expected = np.sqrt(np.mean(np.square([10, 20, 30, 110, 120, 130])))
    assert float((points[1] - points[0]).norm()) == pytest.approx(expected, rel=1e-5)
    assert np.allclose(colour_statistics(points)[1], [60, 70, 80, 50, 50, 50], atol=1e-4)
    with pytest.raises(ValueError, match='uint8'):
        small_pictures(frames.astype(np.float32))


def test_points_of_codes_keep_distances() -> None:
    random = np.random.RandomState(0)
    inside = (motion(600, 0).numpy() @ random.randn(6, 60)).reshape(600, 5, 12).astype(np.float32)
    points = LatentPoints([inside[:400], inside[400:]])
    y = torch.cat(points.real)
    assert float((y[:, None] - y).square().sum(dim=2).sum() / (600 * 599)) == pytest.approx(1, rel=1e-6)
    unit = float(torch.pdist(torch.from_numpy(inside).flatten(1)).square().mean().sqrt())
    for codes, tolerance in ((inside, 0.05), (inside + random.randn(600, 5, 12).astype(np.float32), 0.3)):  # also outside
        flat = torch.from_numpy(codes).flatten(1) / unit
        ratio = torch.pdist(points.project(codes)[::20]) / torch.pdist(flat[::20].double())
        assert float(ratio.min()) > 1 - tolerance
        assert float(ratio.max()) < 1 + tolerance
    for num_components in (0, 8):
        torch.manual_seed(0)
        generator = LatentGenerator(5, 12, num_components=num_components)
        generator.set_data_basis(torch.randn(60), torch.randn(8, 60) if num_components else None)
        l = torch.randn(50, generator.latent_dim)
        with torch.no_grad():
            assert torch.allclose(points.projection_of(generator)(l), points.project(generator.codes(l)), atol=1e-5)


def test_stretches_cover_everything() -> None:
    time = torch.arange(10)
    assert [list(stretch) for stretch in stretches(time, 4)] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert [len(stretch) for stretch in stretches(time, 5)] == [5, 5]
    assert [list(stretch) for stretch in stretches(time, 12)] == [list(time)]


def test_interval_covers_the_mean_and_repeats_itself() -> None:
    inside = 0
    for seed in range(200):
        values = np.random.RandomState(seed).randn(20)
        low, high = bootstrap_interval(values)
        inside += low < 0 < high
        assert (low, high) == bootstrap_interval(values)
    assert 0.85 < inside / 200 < 0.98
    assert all(math.isnan(end) for end in bootstrap_interval(np.array([1.0])))


# ----------------------------------------------------------------------------
# The metrics


class Footage:
    """Stands for a set of videos: patches that move as `motion`, 64 x 64."""

    def __init__(self, seeds: list[int], lengths: list[int | None], fps: float = 25) -> None:
        self.names, self.num_frames, self.fps = [f'video{seed}' for seed in seeds], lengths, fps
        self.seeds, self.sha256 = seeds, json.dumps([seeds, lengths])
        self.streamed = 0

    def __len__(self) -> int:
        return len(self.names)

    def stream(self, index: int, start: int = 0):
        self.streamed += 1
        y = motion(self.num_frames[index] or 5000, self.seeds[index])
        for row in y[start:]:
            patches = (128 + 30 * row[:4]).clip(0, 255).reshape(2, 2).byte().numpy()
            yield patches.repeat(32, axis=0).repeat(32, axis=1)[..., np.newaxis].repeat(3, axis=2)


class Recording:
    """Stands for a latent data set."""

    def __init__(self, num_frames: int) -> None:
        basis = np.random.RandomState(99).randn(6, 40)
        self.clips = [(motion(num_frames, 1).numpy() @ basis).reshape(-1, 4, 10).astype(np.float32)]
        self.num_ws, self.w_dim, self.fps = 4, 10, 25.0

    def load_clip(self, index: int) -> np.ndarray:
        return self.clips[index]

    def close(self) -> None:
        pass


def calculate(metric: str, **options) -> dict[str, float]:
    return dict(metric_main.calc_metric(metric=metric, device='cpu', **options).results)


def test_latent_metrics_through_the_host_interface() -> None:
    found, broken = discover_metrics()
    assert broken == {}
    torch.manual_seed(0)
    generator = LatentGenerator(4, 10, num_components=8)
    generator.set_data_basis(torch.zeros(40), torch.randn(8, 40))
    options = {'G': generator, 'dataset_kwargs': dnnlib.EasyDict(class_name=f'{__name__}.Recording', num_frames=600)}
    for metric in ('repetition_latent_200f', 'drift_latent_200f', 'motion_latent_200f', 'diversity_latent_200f'):
        assert metric in found
        results = calculate(metric, **options)
        assert next(iter(results)) == metric
        assert results[f'{metric}_videos'] == 64
        assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in results.values())
        assert results == calculate(metric, **options)
    for metric in ('repetition_latent_120f', 'drift_latent_120f'):  # made when asked for
        assert pathlib.Path(find_metric(metric)).stem == metric.split('_')[0]
        assert math.isfinite(calculate(metric, **options)[metric])
        assert best_of(metric) == (1 if metric.startswith('drift') else 'lower')
    assert find_metric('repetition_latent_f') is None
    with pytest.raises(InputError, match='repetition_200f, which compares any two sets'):
        calculate('repetition_latent_200f')
    with pytest.raises(InputError, match='6 windows'):
        calculate('repetition_latent_200f', G=generator, dataset_kwargs={**options['dataset_kwargs'], 'num_frames': 150})


def test_picture_metrics_through_the_host_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    discover_metrics()
    monkeypatch.setattr(picture_inputs, '_cache', picture_inputs.PointsCache())
    real, fake = Footage([0, 1, 2], [450, 450, 300]), Footage([10, 11, 12, 13, 14, 15], [300, 250, 120, 300, 200, 210])
    sets = {'G_kwargs': {'comparison': VideoComparison(real, fake)}}
    for metric in ('repetition_200f', 'drift_200f', 'motion_200f', 'diversity_200f'):
        results = calculate(metric, **sets)
        assert next(iter(results)) == metric
        assert results[f'{metric}_videos'] == 5
        assert results[f'{metric}_videos_too_short'] == 1
        rounding = 1e-12
        assert results[f'{metric}_low'] - rounding <= results[metric] <= results[f'{metric}_high'] + rounding
    assert (real.streamed, fake.streamed) == (3, 5)  # decoded once for all four
    assert calculate('repetition_200f', **sets)['repetition_200f'] < 0.1
    three, streamed = Footage([10, 11, 12, 13], [300, 300, 300, 120]), real.streamed
    with pytest.raises(InputError, match='diversity_200f needs 4 videos of 200 frames, and 3 of these 4 have as many'):
        calculate('diversity_200f', G_kwargs={'real_videos': real, 'fake_videos': three})
    assert (real.streamed, three.streamed) == (streamed, 0)  # noticed before anything is decoded
    still = Footage([10] * 6, [300] * 6)
    monkeypatch.setattr(still, 'stream', lambda index, start=0: iter([np.full([64, 64, 3], index, np.uint8)] * 300))
    still.sha256 = 'still'
    for metric, value in {'repetition_200f': 1, 'drift_200f': 0}.items():
        assert calculate(metric, G_kwargs={'comparison': VideoComparison(real, still)})[metric] == pytest.approx(value)
    for changed, words in [
        (None, 'no fake ones'),
        (Footage([1], [300], fps=30), 'have 25 frames'),
        (Footage([1, 2], [100, 199]), 'the longest of these 2 has 199'),
    ]:
        with pytest.raises(InputError, match=words):
            calculate('repetition_200f', G_kwargs={'comparison': VideoComparison(real, changed)})


def measure_as_rank(rank: int, ranks: int, folder: pathlib.Path) -> None:
    """One process of `test_ranks_share_the_work_and_agree`: writes its results and how many videos it looked at."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=ranks)
    fake = Footage([5, 6, 7, 8, 9], [220] * 5)
    results = calculate(
        'repetition_200f',
        num_gpus=ranks,
        rank=rank,
        cache=False,
        G_kwargs={'real_videos': Footage([1, 2, 3], [300] * 3), 'fake_videos': fake},
    )
    (folder / str(rank)).write_text(json.dumps([results, fake.streamed]))
    torch.distributed.destroy_process_group()


def test_ranks_share_the_work_and_agree(tmp_path: pathlib.Path) -> None:
    discover_metrics()
    fake = Footage([5, 6, 7, 8, 9], [220] * 5)
    alone = calculate(
        'repetition_200f', cache=False, G_kwargs={'real_videos': Footage([1, 2, 3], [300] * 3), 'fake_videos': fake}
    )
    context = torch.multiprocessing.get_context('fork')
    processes = [context.Process(target=measure_as_rank, args=(rank, 2, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / str(rank)).read_text()) for rank in range(2))
    assert alone == first[0] == second[0]
    assert (fake.streamed, first[1], second[1]) == (5, 3, 2)
