"""metrics: registry, result lines, statistics of features and their cache."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

import dnnlib
from metrics import metric_main, metric_utils


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(metric_main, '_metrics', {})
    return metric_main


def test_registry_and_report(registry, tmp_path, capsys):
    @registry.register_metric
    def length2048(opts):
        return {'length2048': len(opts.dataset_kwargs.path), 'rank': opts.rank}

    assert registry.list_valid_metrics() == ['length2048']
    assert registry.is_valid_metric('length2048')
    assert not registry.is_valid_metric('fid50k_full')
    result = registry.calc_metric('length2048', dataset_kwargs={'path': 'abc'}, device='cpu')
    assert result.results == {'length2048': 3, 'rank': 0}
    assert (result.metric, result.num_gpus, result.total_time_str) == ('length2048', 1, '0s')
    snapshot = tmp_path / 'network-snapshot-000001.pkl'
    for _ in range(2):
        registry.report_metric(result, run_dir=str(tmp_path), snapshot_pkl=str(snapshot))
    printed = capsys.readouterr().out.splitlines()
    assert (tmp_path / 'metric-length2048.jsonl').read_text().splitlines() == printed
    line = json.loads(printed[0])
    assert line.keys() == {'results', 'metric', 'total_time', 'total_time_str', 'num_gpus', 'snapshot_pkl', 'timestamp'}
    assert line['snapshot_pkl'] == snapshot.name
    registry.report_metric(result)
    assert json.loads(capsys.readouterr().out)['snapshot_pkl'] is None
    with pytest.raises(ValueError, match='known are: length2048'):
        registry.calc_metric('nothing')


def test_feature_stats(tmp_path):
    x = np.random.RandomState(0).randn(50, 4).astype(np.float32) + 3
    stats = metric_utils.FeatureStats(capture_all=True, capture_mean_cov=True, max_items=45)
    for part in np.array_split(x, 7):
        assert not stats.is_full()
        stats.append_torch(torch.tensor(part))
    assert stats.is_full()
    assert stats.num_items == 45
    for loaded in (stats, (stats.save(str(tmp_path / 'a' / 's.pkl')), stats.load(str(tmp_path / 'a' / 's.pkl')))[1]):
        mean, cov = loaded.get_mean_cov()
        np.testing.assert_array_equal(loaded.get_all(), x[:45])
        np.testing.assert_allclose(mean, x[:45].mean(axis=0, dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(cov, np.cov(x[:45].astype(np.float64), rowvar=False, bias=True), atol=1e-12)
    assert os.listdir(tmp_path / 'a') == ['s.pkl']
    with pytest.raises(ValueError, match='5 features after 4'):
        metric_utils.FeatureStats().load(str(tmp_path / 'a' / 's.pkl')).set_num_features(5)
    with pytest.raises(ValueError, match='capture_all'):
        metric_utils.FeatureStats().get_all()
    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps(print))
    with pytest.raises(pickle.UnpicklingError, match='print'):
        metric_utils.FeatureStats.load(str(tmp_path / 'evil.pkl'))


def test_progress(capsys):
    calls = []
    monitor = metric_utils.ProgressMonitor(verbose=True, progress_fn=lambda *position: calls.append(position))
    part = monitor.sub('half', num_items=100, flush_interval=40, rel_lo=0.5, rel_hi=1)
    for items in range(0, 101, 10):
        part.update(items)
    assert calls == [(0, 1000), (500, 1000), (700, 1000), (900, 1000), (1000, 1000)]
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.count('half') == 3


class Pictures(torch.utils.data.Dataset):
    """Grey pictures from a file; picture i has the value i."""

    name = 'pictures'

    def __init__(self, path, count):
        self.values = np.load(path)[:count]

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return torch.full([1, 2, 2], int(self.values[index]), dtype=torch.uint8), self.get_label(index)

    def get_label(self, index):
        return np.eye(2, dtype=np.float32)[index % 2]


class Detector(torch.nn.Module):
    """Feature: mean of each channel."""

    def forward(self, images, factor: int = 1):
        return images.float().mean([2, 3]) * factor


class Generator(torch.nn.Module):
    """Picture of one value, taken from z and the label."""

    z_dim, c_dim = 1, 2

    def forward(self, z, c, level: float = 0.0):
        return (c[:, :1] * 2 - 1 + level).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2) + 0 * z.reshape(-1, 1, 1, 1)


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path / 'cache'))
    np.save(tmp_path / 'data.npy', np.arange(10))
    torch.jit.script(Detector()).save(str(tmp_path / 'detector.pt'))
    return metric_utils.MetricOptions(
        G=Generator(),
        device='cpu',
        dataset_kwargs={'class_name': 'test_host_metrics.Pictures', 'path': str(tmp_path / 'data.npy'), 'count': 10},
    )


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_dataset_statistics_and_their_cache(options, tmp_path):
    def mean(max_items=None, **detector_kwargs):
        stats = metric_utils.compute_feature_stats_for_dataset(
            options,
            str(tmp_path / 'detector.pt'),
            detector_kwargs,
            batch_size=4,
            max_items=max_items,
            data_loader_kwargs={'num_workers': 0},
            capture_mean_cov=True,
        )
        return stats.get_mean_cov()[0].tolist()

    def count():
        return len(os.listdir(tmp_path / 'cache' / 'gan-metrics'))

    assert mean() == [4.5] * 3
    assert mean() == [4.5] * 3
    assert count() == 1
    assert mean(max_items=3) == [1.0] * 3  # one cache entry for both would be a wrong result
    assert mean(factor=2) == [9.0] * 3
    assert count() == 3
    np.save(tmp_path / 'data.npy', np.arange(20, 30))
    os.utime(tmp_path / 'data.npy', ns=(1, 1))
    assert mean() == [24.5] * 3  # other data in the same place
    assert all(name.startswith('pictures-detector-') for name in os.listdir(tmp_path / 'cache' / 'gan-metrics'))


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.parametrize('jit', [False, True])
def test_generator_statistics(options, tmp_path, jit):
    options.G_kwargs.level = 0.5
    stats = metric_utils.compute_feature_stats_for_generator(
        options, str(tmp_path / 'detector.pt'), {}, batch_size=6, batch_gen=3, jit=jit, capture_all=True, max_items=20
    )
    # labels 0 and 1 give -0.5 and 1.5: 127.5 * -0.5 + 128 = 64.25 and more than white
    assert stats.get_all().shape == (20, 3)
    assert set(np.unique(stats.get_all())) == {64.0, 255.0}
    with pytest.raises(ValueError, match='max_items'):
        metric_utils.compute_feature_stats_for_generator(options, '', {})


def test_names_of_detectors():
    name = metric_utils.get_feature_detector_name
    assert name('https://host.org/a/b/inception-2015-12-05.pt?download=1') == 'inception-2015-12-05'
    assert isinstance(metric_utils.MetricOptions(G_kwargs={'a': 1}).G_kwargs, dnnlib.EasyDict)
