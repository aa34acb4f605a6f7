"""FVD of sets of videos: which clips, the same number on any number of ranks, the cache, intervals, and what is refused.

The detector here is a small one; tests/feature_networks/test_i3d.py has the real one.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
import textwrap
from typing import ClassVar

import numpy as np
import pytest
import scipy.stats
import torch

import dnnlib
from metrics import discovery, metric_main
from metrics.distances.frechet import frechet_distance, mean_and_covariance
from metrics.distances.frechet_interval import distance_deviation, weighted_moments
from metrics.distances.kernel_distance import kernel_distance
from metrics.features import clip_features as clip_features_module
from metrics.features.clip_features import clip_features
from metrics.inputs.clip_choice import choose_clips
from metrics.inputs.feature_parts import FeatureParts
from metrics.inputs.video_comparison import VideoComparison, VideoOptions
from metrics.metric_utils import MetricOptions
from networks.errors import InputError
from training.commands.destinations import require_folder
from training.videos.recorded_videos import RecordedVideos

DETECTOR_SOURCE = textwrap.dedent('''
    import torch

    class TinyDetector(torch.nn.Module):
        """Mean and motion of each colour: 6 features of a clip."""

        detector_name, num_features, resize_rule, smallest_num_frames = 'i3d', 6, 'none', 3
        description = {'name': 'Tiny', 'weights_sha256': 'f' * 64}
        calls = 0

        def features(self, frames):
            type(self).calls += 1
            frames = frames.double() / 255
            steps = (frames[:, 1:] - frames[:, :-1]).abs()
            return torch.cat([frames.mean(dim=(1, 2, 3)), steps.mean(dim=(1, 2, 3))], dim=1)[:, None].float()
''')
exec(DETECTOR_SOURCE)  # the same text is given to the processes of torchrun


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def detector():
    TinyDetector.calls = 0  # noqa: F821
    return TinyDetector()  # noqa: F821


def random_videos(count: int, num_frames: int, seed: int, step: float = 4) -> np.ndarray:
    """Videos uint8 [N, T, 4, 4, 3]: pictures that wander."""
    random = np.random.RandomState(seed)
    start = random.uniform(60, 190, [count, 1, 4, 4, 3])
    return np.clip(start + np.cumsum(step * random.randn(count, num_frames, 4, 4, 3), axis=1), 0, 255).astype(np.uint8)


def recorded(tmp_path: pathlib.Path, name: str, **more) -> functools.partial[RecordedVideos]:
    return functools.partial(RecordedVideos, **{'path': str(tmp_path / f'{name}.npy'), **more})


def options(tmp_path: pathlib.Path, detector, *, real: dict | None = None, fake: dict | None = None, **more) -> MetricOptions:
    sets = (recorded(tmp_path, 'real', **(real or {})), recorded(tmp_path, 'fake', **(fake or {})))
    comparison = VideoComparison(*sets, VideoOptions(detectors=(detector,), **more))
    return MetricOptions(device='cpu', G_kwargs={'comparison': comparison})


def calculate(metric: str, opts: MetricOptions) -> dnnlib.EasyDict:
    assert discovery.find_metric(metric)
    return metric_main.calc_metric(metric=metric, G_kwargs=opts.G_kwargs, device='cpu', cache=opts.cache).results


# ----------------------------------------------------------------------------
# Clips.


def test_clips_are_those_of_the_rules() -> None:
    one = choose_clips([30, 5, 40, 30], 3, 10, rule='random', seed=1)
    assert [video for video, _ in one.clips] == [0, 2, 3]
    assert one.too_short == [1]
    assert all(0 <= start <= length - 10 for (_, start), length in zip(one.clips, (30, 40, 30), strict=True))
    assert choose_clips([30, 5, 40, 30], 3, 10, rule='random', seed=1) == one
    assert choose_clips([30, 5, 40, 30], 3, 10, rule='random', seed=2).clips != one.clips
    # The clip of a video depends on neither the others nor their number, and the videos are not the first ones by name.
    many = choose_clips([30, 5, 40, 30, *[25] * 96], 10, 10, rule='random', seed=1)
    assert max(video for video, _ in many.clips) > 50
    kept = dict(choose_clips([30, 5, 40, 30, *[25] * 96], 99, 10, rule='random', seed=1).clips)
    assert [kept[video] for video, _ in one.clips] == [start for _, start in one.clips]
    # Every start is as likely as every other.
    starts = [choose_clips([13], 1, 10, rule='random', seed=seed).clips[0][1] for seed in range(400)]
    assert scipy.stats.chisquare(np.bincount(starts, minlength=4)).pvalue > 1e-3
    spread = choose_clips([30, 5, 40], 12, 10, stride=2, rule='auto')
    assert (spread.rule, len(spread.clips), spread.side_by_side, spread.overlap) == ('spread', 12, 3, 4)
    assert spread.clips[0] == (0, 0)
    assert spread.clips[-1] == (2, 21)
    first = choose_clips([30, 5, 40], 2, 10, start=25, rule='first')
    assert first.clips == [(2, 25)]
    assert first.too_short == [0, 1]
    assert choose_clips([None], 3, 10, start=7, endless=True).clips == [(0, 7), (1, 7), (2, 7)]


# ----------------------------------------------------------------------------
# Statistics.


def test_deviation_is_that_of_new_draws() -> None:
    random = np.random.RandomState(0)
    scales = np.array([2, 1, 0.5])
    values = [
        frechet_distance(
            *mean_and_covariance(random.randn(200, 3) * scales), *mean_and_covariance(random.randn(300, 3) * scales + 0.5)
        )
        for _ in range(200)
    ]
    a, b = random.randn(200, 3) * scales, random.randn(300, 3) * scales + 0.5
    deviation = distance_deviation(a, b, resamples=100)
    assert deviation == pytest.approx(np.std(values), rel=0.35)
    assert distance_deviation(a, b, resamples=100) == deviation
    # Rows that come in fours are a quarter of the clips; blocks of neighbours show it.
    fourfold = distance_deviation(np.repeat(a[:50], 4, axis=0), b, block_a=4, resamples=100)
    assert fourfold > 1.5 * distance_deviation(np.repeat(a[:50], 4, axis=0), b, resamples=100)


def test_weighted_moments_are_those_of_repeated_rows() -> None:
    rows = np.random.RandomState(0).randn(5, 3)
    weights = np.array([2, 0, 1, 3, 1])
    repeated = mean_and_covariance(np.repeat(rows, weights, axis=0))
    for found, expected in zip(weighted_moments(rows, weights), repeated, strict=True):
        assert np.allclose(found, expected, rtol=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    random = np.random.RandomState(0)
    values = [kernel_distance(random.randn(10, 4), random.randn(15, 4)) for _ in range(2000)]
    assert abs(np.mean(values)) < 4 * np.std(values) / len(values) ** 0.5
    x, y = random.randn(3, 2), random.randn(2, 2)

    def k(a, b):
        return (a @ b / 2 + 1) ** 3

    by_hand = (
        sum(k(x[i], x[j]) for i in range(3) for j in range(3) if i != j) / 6
        + k(y[0], y[1])
        - 2 * sum(k(a, b) for a in x for b in y) / 6
    )
    assert kernel_distance(x, y) == pytest.approx(by_hand, rel=1e-12)


# ----------------------------------------------------------------------------
# Metrics.


def test_distance_interval_and_protocol(tmp_path: pathlib.Path, detector) -> None:
    real, fake = random_videos(40, 20, 0), random_videos(50, 16, 1, step=8)
    np.save(tmp_path / 'real.npy', real)
    np.save(tmp_path / 'fake.npy', fake)
    opts = options(tmp_path, detector, real_clips='first')
    results = calculate('fvd30_8f', opts)
    pick = [choose_clips([length] * count, 30, 8, rule='first').clips for count, length in ((40, 20), (50, 16))]
    chosen = [videos[[video for video, _ in clips], :8] for videos, clips in zip((real, fake), pick, strict=True)]
    statistics = [mean_and_covariance(detector.features(torch.from_numpy(videos))[:, 0].numpy()) for videos in chosen]
    assert results['fvd30_8f'] == pytest.approx(frechet_distance(*statistics[0], *statistics[1]), rel=1e-6)
    assert results['fvd30_8f_low'] < results['fvd30_8f'] < results['fvd30_8f_high']
    assert 0 < results['fvd30_8f_expected_bias'] < results['fvd30_8f']
    assert (results['fvd30_8f_clips_real'], results['fvd30_8f_dimension'], results['fvd30_8f_frames']) == (30, 6, 8)
    protocol = json.loads(json.dumps(opts.G_kwargs['comparison'].protocol))
    assert protocol['detector']['weights_sha256'] == 'f' * 64
    for name in ('real', 'fake'):
        assert {'sha256', 'clips', 'clip_rule', 'fps', 'resolution', 'path', 'first_frame'} <= set(protocol[name])
    assert {'seed', 'stride', 'frames', 'resize', 'reference', 'batch'} <= set(protocol)
    # A set against itself is at 0, and frames of every other clip are really those that are apart.
    np.save(tmp_path / 'fake.npy', real)
    same = calculate('fvd30_8f', options(tmp_path, detector, real_clips='first'))
    assert same['fvd30_8f'] == pytest.approx(0, abs=1e-6)
    apart = calculate('fvd30_8f_subsample2f_at3', options(tmp_path, detector))
    assert (apart['fvd30_8f_subsample2f_at3_frames'], apart['fvd30_8f_subsample2f_at3_stride']) == (4, 2)


class TinyFrames(torch.nn.Module):
    """Mean colour of every frame: 3 features a frame."""

    detector_name, num_features, resize_rule, smallest_num_frames = 'inception', 3, 'none', 1
    description: ClassVar[dict] = {'name': 'Frames', 'weights_sha256': 'e' * 64}

    def features(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.double().mean(dim=(2, 3)).float()


def test_a_detector_may_lay_out_its_features_as_it_likes(tmp_path: pathlib.Path) -> None:
    """A way to another process or to the disk changes the layout, and the order of later sums would change with it."""

    class Transposed(TinyFrames):
        num_features = 24

        def features(self, frames: torch.Tensor) -> torch.Tensor:
            random = torch.Generator().manual_seed(0)
            return (super().features(frames) @ torch.randn(3, 24, generator=random)).mT.contiguous().mT

    for name, seed in (('real', 0), ('fake', 1)):
        np.save(tmp_path / f'{name}.npy', random_videos(7, 16, seed))
    name = 'frame_fid7_16f'
    alone, kept = (calculate(name, options(tmp_path, Transposed(), bootstrap=2)) for _ in range(2))
    assert kept == alone  # the second time features come from the cache
    whole = tmp_path / 'whole'
    for number in (1, 2):
        calculate(name, options(tmp_path, Transposed(), parts=FeatureParts(str(require_folder(whole)), (number, 2))))
    assert calculate(name, options(tmp_path, Transposed(), bootstrap=2, parts=FeatureParts(str(whole), None))) == alone


def test_frame_distance_is_that_of_all_frames(tmp_path: pathlib.Path) -> None:
    videos = [random_videos(20, 12, seed) for seed in (0, 1)]
    for name, frames in zip(('real', 'fake'), videos, strict=True):
        np.save(tmp_path / f'{name}.npy', frames)
    results = calculate('frame_fid20_5f_at7', options(tmp_path, TinyFrames(), real_clips='first'))
    colours = [frames.astype(np.float64).mean(axis=(2, 3)) for frames in (videos[0][:, :5], videos[1][:, 7:])]
    expected = frechet_distance(*(part for colour in colours for part in mean_and_covariance(colour.reshape(-1, 3))))
    assert results['frame_fid20_5f_at7'] == pytest.approx(expected, rel=1e-6)
    assert results['frame_fid20_5f_at7_kernel_distance'] == pytest.approx(
        kernel_distance(*(colour.mean(axis=1) for colour in colours)), rel=1e-5
    )


def test_the_number_does_not_depend_on_threads(tmp_path: pathlib.Path, detector, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (('real', 0), ('fake', 1)):
        np.save(tmp_path / f'{name}.npy', random_videos(20, 12, seed))
    used = []
    plain = detector.features
    detector.features = lambda frames: used.append(torch.get_num_threads()) or plain(frames)
    found = []
    for threads in (1, 3):
        opts = options(tmp_path, detector)
        opts.cache = False
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found.append(calculate('fvd20_8f', opts))
            assert torch.get_num_threads() == threads  # given back
        finally:
            torch.set_num_threads(before)
    assert found[0] == found[1]
    assert set(used) == {1}


def test_too_few_clips_give_no_bare_number(tmp_path: pathlib.Path, detector, capsys) -> None:
    np.save(tmp_path / 'real.npy', random_videos(6, 12, 0))
    np.save(tmp_path / 'fake.npy', random_videos(20, 12, 1))
    results = calculate('fvd6_8f', options(tmp_path, detector, real_clips='random'))
    assert results['fvd6_8f'] is None
    assert results['fvd6_8f_rank_deficient'] > 0
    assert results['fvd6_8f_expected_bias'] > 0
    assert '6 real and 6 fake samples are too few for 6 dimensions' in capsys.readouterr().err
    spread = calculate('fvd20_8f', options(tmp_path, detector))  # 30 possible clips of 8 frames in 6 videos of 12
    assert spread['fvd20_8f'] is not None
    assert spread['fvd20_8f_clips_real_side_by_side'] == 6
    assert 'the clips overlap' in capsys.readouterr().err
    with pytest.raises(InputError, match=r'fvd20_8f_at6 needs 8 frames of a video after frame 6, and the longest'):
        calculate('fvd20_8f_at6', options(tmp_path, detector))
    with pytest.raises(InputError, match='needs clips of 3 frames or more'):
        calculate('fvd20_2f', options(tmp_path, detector))


def test_sets_that_do_not_fit_together(tmp_path: pathlib.Path, detector, capsys) -> None:
    np.save(tmp_path / 'real.npy', random_videos(20, 12, 0))
    np.save(tmp_path / 'fake.npy', np.repeat(random_videos(20, 12, 1), 2, axis=2))
    opts = options(tmp_path, detector)
    with pytest.raises(InputError, match=r'real videos have 4x4 pixels and the fake ones 4x8, .* resolution=4'):
        calculate('fvd20_8f', opts)
    size = {'resolution': 4}
    assert calculate('fvd20_8f', options(tmp_path, detector, real=size, fake=size))['fvd20_8f'] >= 0
    rates = {'real': {**size, 'fps': 30}, 'fake': {**size, 'fps': 25}}
    with pytest.raises(InputError, match=r'30 frames per second and the fake ones 25, .* fps'):
        calculate('fvd20_8f', options(tmp_path, detector, **rates))
    opts.G_kwargs['comparison'] = VideoComparison(recorded(tmp_path, 'real'))
    with pytest.raises(InputError, match=r'there are no fake ones; give them with fake'):
        calculate('fvd20_8f', opts)
    folder = tmp_path / 'mixed'
    folder.mkdir()
    for index, length in enumerate((12, 5, 12, 12)):
        np.save(folder / f'{index}.npy', random_videos(1, length, index)[0])
    opts = options(tmp_path, detector, fake={'path': str(folder)})
    capsys.readouterr()
    results = calculate('fvd20_8f', opts)
    assert results['fvd20_8f_videos_too_short'] == 1
    assert '1 of 4 fake videos are too short and left out: 1.npy' in capsys.readouterr().err


def test_a_damaged_picture_and_features_that_are_not_finite(tmp_path: pathlib.Path, detector) -> None:
    import PIL.Image

    np.save(tmp_path / 'real.npy', random_videos(12, 8, 0))
    for index, video in enumerate(random_videos(12, 8, 1)):
        folder = tmp_path / 'frames' / f'v{index}'
        folder.mkdir(parents=True)
        for number, frame in enumerate(video):
            PIL.Image.fromarray(frame).save(folder / f'{number}.png')
    (tmp_path / 'frames' / 'v3' / '5.png').write_bytes(b'\x89PNG')
    frames = {'path': str(tmp_path / 'frames')}
    opts = options(tmp_path, detector, fake=frames)
    with pytest.raises(InputError, match=r"5\.png is not an image .*damaged='skip'"):
        calculate('fvd12_8f', opts)
    opts = options(tmp_path, detector, fake=frames, damaged='skip')
    results = calculate('fvd12_8f', opts)
    assert (results['fvd12_8f_videos_damaged'], results['fvd12_8f_clips_fake']) == (1, 11)
    assert list(opts.G_kwargs['comparison'].protocol['damaged']) == ['v3']
    detector.features = lambda frames: torch.full([len(frames), 1, 6], float('nan'))
    opts.cache = False
    with pytest.raises(InputError, match=r'features of real/00000, frames from 0 on, are not finite'):
        calculate('fvd12_8f', opts)


def test_features_are_kept_by_content(tmp_path: pathlib.Path, detector, cache_folder: pathlib.Path) -> None:
    np.save(tmp_path / 'a.npy', random_videos(9, 10, 0))
    choice = choose_clips([10] * 9, 9, 8, rule='random')
    opts = MetricOptions(device='cpu')

    def features(path: str, **more):
        return clip_features(RecordedVideos(tmp_path / path), choice, detector, opts, tag='', **more)

    first = features('a.npy', batch=4)
    assert detector.calls == 3
    os.rename(tmp_path / 'a.npy', tmp_path / 'b.npy')  # the same content in another place
    again = features('b.npy', batch=4)
    assert again.cached
    assert np.array_equal(again.values, first.values)
    assert detector.calls == 3
    assert not features('b.npy', batch=3).cached
    np.save(tmp_path / 'b.npy', random_videos(9, 10, 1))
    assert not features('b.npy', batch=4).cached
    for path in (cache_folder / clip_features_module.CACHE_FOLDER).iterdir():
        content = bytearray(path.read_bytes())
        place = content.index(first.values.dtype.str.encode()) + 200  # behind the header of the array
        content[place] ^= 1
        path.write_bytes(content)
    assert not features('b.npy', batch=4).cached  # damaged, so computed again


def test_shares_of_independent_jobs_come_to_the_number_of_one(
    tmp_path: pathlib.Path, detector, cache_folder: pathlib.Path
) -> None:
    np.save(tmp_path / 'real.npy', random_videos(31, 20, 0))
    np.save(tmp_path / 'fake.npy', random_videos(31, 20, 1))
    whole = calculate('fvd31_8f', options(tmp_path, detector, batch=4))
    detector_calls = detector.calls

    def job(share: tuple[int, int] | None, metric: str = 'fvd31_8f', **more):
        return calculate(metric, options(tmp_path, detector, batch=4, parts=FeatureParts(str(tmp_path), share), **more))

    with pytest.raises(InputError, match='holds no shares of the fvd31_8f real clips'):
        job(None)
    assert job((1, 3)).fvd31_8f is None
    assert job((3, 3)).fvd31_8f is None
    with pytest.raises(InputError, match=r'of 3 shares of the fvd31_8f real clips 1 are missing in .*: 2/3'):
        job(None)
    job((2, 3))
    assert detector.calls == 2 * detector_calls  # no clip was computed by two of them
    job((2, 3))
    assert detector.calls == 2 * detector_calls  # nor is one again, by a job that is started again
    assert job(None) == whole
    assert detector.calls == 2 * detector_calls
    with pytest.raises(InputError, match='no shares'):  # other clips
        job(None, metric='fvd31_9f')
    path = sorted(tmp_path.glob('*-2-of-3.npz'))[0]
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r'2-of-3\.npz is damaged; remove it'):
        job(None)
    job((2, 3))  # a damaged one is made again
    assert job(None) == whole


def test_the_number_does_not_depend_on_the_number_of_ranks(tmp_path: pathlib.Path, root: pathlib.Path) -> None:
    np.save(tmp_path / 'real.npy', random_videos(31, 20, 0))
    np.save(tmp_path / 'fake.npy', random_videos(33, 16, 1, step=6))
    program = DETECTOR_SOURCE + textwrap.dedent("""
        import sys
        import calc_metrics_video
        from metrics.features import detectors
        detectors.MAKERS['i3d'] = lambda path: TinyDetector()
        if __name__ == '__main__':
            calc_metrics_video.main()
    """)
    (tmp_path / 'program.py').write_text(program)
    arguments = [
        str(tmp_path / 'program.py'),
        f'--real={tmp_path / "real.npy"}',
        f'--fake={tmp_path / "fake.npy"}',
        '--metrics=fvd30_8f',
        '--device=cpu',
        '--batch=4',
        '--no-cache',
    ]
    lines = []
    for launcher in ([], ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']):
        done = subprocess.run(
            [sys.executable, *launcher, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'},
        )
        assert done.returncode == 0, done.stderr
        lines.append(json.loads(done.stdout))
    assert [line['num_gpus'] for line in lines] == [1, 2]
    assert lines[0]['results'] == lines[1]['results']
    assert lines[0]['results']['fvd30_8f'] > 0


def test_names_that_follow_the_pattern() -> None:
    known, broken = discovery.discover_metrics()
    assert broken == {}
    assert {
        'fvd2048_16f',
        'fvd2048_25f',
        'fvd2048_25f_at225',
        'fvd2048_128f',
        'fvd2048_128f_subsample8f',
        'frame_fid2048_25f_at225',
    } <= set(known)
    assert discovery.find_metric('fvd500_20f_subsample2f_at1000') == known['fvd2048_16f']
    assert discovery.find_metric('frame_fid100_9f') == known['frame_fid2048_16f']
    for wrong in ('fvd0_16f', 'fvd2048_f', 'fvd2048_16', 'fvd_16f', 'frame_fid10_9f_subsample2f'):
        assert discovery.find_metric(wrong) is None
