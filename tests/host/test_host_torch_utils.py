"""torch_utils: misc, persistence and training_stats, on one rank and on two."""

import contextlib
import copy
import inspect
import itertools
import pickle
import pickletools
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import dnnlib
from torch_utils import misc, persistence, training_stats

# ----------------------------------------------------------------------------
# misc.


def test_constants_are_cached():
    a = misc.constant([1, 2.5], device=torch.device('cpu'))
    assert a is misc.constant([1, 2.5])
    assert a.tolist() == [1, 2.5]
    assert a.dtype == torch.float32
    assert misc.constant([1, 2.5], dtype=torch.float64).dtype == torch.float64
    assert misc.constant(3, shape=[2, 3]).tolist() == [[3] * 3] * 2
    assert misc.constant(-0.0) is not misc.constant(0.0)
    with torch.inference_mode():
        made_here = misc.constant(123.0)
    (made_here * torch.ones(1, requires_grad=True)).backward()


def test_assert_shape():
    misc.assert_shape(torch.zeros(2, 3), [None, 3])
    with pytest.raises(AssertionError, match='dimension 1: got 3, expected 4'):
        misc.assert_shape(torch.zeros(2, 3), [2, 4])
    with pytest.raises(AssertionError, match='dimensions'):
        misc.assert_shape(torch.zeros(2, 3), [2])
    with misc.suppress_tracer_warnings():
        traced = torch.jit.trace(lambda x: (misc.assert_shape(x, [2, x.shape[0] + 1]), x)[1], torch.zeros(2, 3))
    assert traced(torch.ones(2, 3)).sum() == 6


def test_infinite_sampler():
    def take(count, **options):
        return list(itertools.islice(iter(misc.InfiniteSampler(range(10), **options)), count))

    assert take(25, shuffle=False) == [*range(10), *range(10), *range(5)]
    stream = take(60)
    assert stream == take(60)
    assert stream != take(60, seed=1)
    assert min(np.bincount(stream, minlength=10)) >= 3
    # what was drawn moves back by less than the window of 5 items: it comes again after 10 - 4 steps at the earliest
    assert all(len(set(stream[index : index + 6])) == 6 for index in range(55))
    parts = [take(20, rank=rank, num_replicas=3) for rank in range(3)]
    assert [index for turn in zip(*parts, strict=True) for index in turn] == stream
    assert take(30, window_size=0)[:10] == take(30, window_size=0)[10:20]
    loader = torch.utils.data.DataLoader(torch.arange(10), sampler=misc.InfiniteSampler(range(10)), batch_size=4)
    assert next(iter(loader)).tolist() == stream[:4]
    with pytest.raises(ValueError, match='rank 2 of 2'):
        misc.InfiniteSampler(range(3), rank=2, num_replicas=2)
    with pytest.raises(ValueError, match='empty'):
        misc.InfiniteSampler([])


def test_copies_parameters_and_buffers():
    source, target = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3, affine=False)
    source.running_mean.fill_(2)
    source.weight.requires_grad_(False)
    misc.copy_params_and_buffers(source, target, require_all=True)
    assert target.running_mean.tolist() == [2] * 3
    assert len(misc.params_and_buffers(source)) == 5
    with pytest.raises(KeyError, match='bias'):
        misc.copy_params_and_buffers(target, source, require_all=True)
    target.running_mean.fill_(5)
    misc.copy_params_and_buffers(target, source)
    assert source.running_mean.tolist() == [5] * 3
    assert not source.weight.requires_grad


def test_module_summary(capsys):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Identity(), torch.nn.BatchNorm1d(4))
    outputs = misc.print_module_summary(net, [torch.zeros(2, 3)])
    assert outputs.shape == (2, 4)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert ['0', '16', '-', '[2,', '4]', 'float32'] in lines
    assert ['2', '8', '9', '[2,', '4]', 'float32'] in lines
    assert not any(line[0] == '1' for line in lines)  # adds nothing
    assert ['Total', '24', '9', '-', '-'] in lines


def test_profiled_function_keeps_its_name():
    @misc.profiled_function
    def add(a: int, b: int = 2) -> int:
        """Sum."""
        return a + b

    assert add(1) == 3
    assert add.__name__ == 'add'
    assert list(inspect.signature(add).parameters) == ['a', 'b']


def test_ddp_sync():
    class Recorder(torch.nn.parallel.DistributedDataParallel):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.syncs = True

        @contextlib.contextmanager
        def no_sync(self):
            self.syncs = False
            yield
            self.syncs = True

    module = Recorder()
    for sync in (True, False):
        with misc.ddp_sync(module, sync):
            assert module.syncs is sync
        assert module.syncs
    with misc.ddp_sync(torch.nn.Identity(), False):
        pass


# ----------------------------------------------------------------------------
# persistence.

SOURCE = '''
import torch
from torch_utils import persistence

@persistence.persistent_class
class Layer(torch.nn.Module):
    """A layer."""
    def __init__(self, size, options={}):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))
        self.register_buffer('count', torch.zeros([]))
        self.options = options

    def forward(self, x):
        return x * self.weight * FACTOR

FACTOR = 2

@persistence.persistent_class
class Net(Layer):
    def __init__(self, size, *more, name='net'):
        super().__init__(size)
        self.layer = Layer(size, {'a': [1, {'b': 2}]})
        self.hook = None
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / 'persistent_test_module.py'
    path.write_text(SOURCE)
    monkeypatch.delitem(sys.modules, 'persistent_test_module', raising=False)
    yield __import__('persistent_test_module')
    sys.modules.pop('persistent_test_module', None)


def test_objects_carry_their_source(module, tmp_path):
    net = module.Net(3, 4, name='x')
    net.weight.data.fill_(5)
    assert persistence.is_persistent(net)
    assert persistence.is_persistent(module.Net)
    assert not persistence.is_persistent(torch.nn.Linear(1, 1))
    assert (net.init_args, net.init_kwargs) == ((3, 4), {'name': 'x'})
    assert (net.layer.init_args, net.layer.init_kwargs) == ((3, {'a': [1, {'b': 2}]}), {})
    assert list(inspect.signature(module.Net).parameters) == ['size', 'more', 'name']
    assert (module.Layer.__name__, module.Layer.__doc__) == ('Layer', 'A layer.')

    data = pickle.dumps({'net': net})
    (tmp_path / 'persistent_test_module.py').write_text('raise RuntimeError("must not be imported")')
    sys.modules.pop('persistent_test_module')
    other = pickle.loads(data)['net']
    assert type(other).__module__.startswith('_imported_module_')
    assert other(torch.ones(3)).tolist() == [10] * 3
    assert (other.init_args, other.init_kwargs) == ((3, 4), {'name': 'x'})
    assert type(other.init_kwargs) is dnnlib.EasyDict
    assert other.layer.options['a'][1] == {'b': 2}
    # one module for one text, so classes stay the same, and what was loaded can be written again
    assert type(pickle.loads(data)['net']) is type(other)
    again = pickle.loads(pickle.dumps(other))
    assert again.state_dict().keys() == net.state_dict().keys()
    copied = copy.deepcopy(other)
    assert (type(copied), type(copied.layer)) == (type(other), type(other.layer))  # isinstance knows it
    assert copied.weight.tolist() == [5] * 3
    with torch.no_grad():
        copied.weight.zero_()
    copied.layer.options['a'][1]['b'] = 7
    assert (other.weight.tolist(), other.layer.options['a'][1]['b']) == ([5] * 3, 2)  # nothing is shared


def test_the_stream_is_what_others_expect(module):
    reduced = module.Layer(2).__reduce__()
    assert reduced[0] is persistence._reconstruct_persistent_obj
    (meta,) = reduced[1]
    assert meta.keys() == {'type', 'version', 'module_src', 'class_name', 'state'}
    assert (meta['type'], meta['version'], meta['class_name'], meta['module_src']) == ('class', 6, 'Layer', SOURCE)
    assert {'_parameters', '_buffers', '_modules', 'training', 'options', '_init_args', '_init_kwargs'} <= meta['state'].keys()
    names = {
        (argument or '')
        for opcode, argument, _ in pickletools.genops(pickle.dumps(module.Net(2), protocol=2))
        if opcode.name == 'GLOBAL'
    }
    assert names == {
        'torch_utils.persistence _reconstruct_persistent_obj',
        'dnnlib.util EasyDict',
        'collections OrderedDict',
        'torch._utils _rebuild_parameter',
        'torch._utils _rebuild_tensor_v2',
        'torch.storage _load_from_bytes',
        '_codecs encode',
        *(name for name in names if name.endswith(' set')),  # protocol 2: bytes and empty sets
    }


def test_import_hooks_repair_old_source(module, monkeypatch):
    data = pickle.dumps(module.Layer(2))
    monkeypatch.setattr(persistence, '_import_hooks', [])

    @persistence.import_hook
    def triple(meta):
        meta.module_src = meta.module_src.replace('FACTOR = 2', 'FACTOR = 3')
        meta.state.note = 'repaired'
        return meta

    layer = pickle.loads(data)
    assert layer(torch.ones(2)).tolist() == [3, 3]
    assert layer.note == 'repaired'
    persistence.import_hook(lambda meta: None)
    with pytest.raises(TypeError, match='returned nothing'):
        pickle.loads(data)


def test_refuses_what_it_cannot_keep(module, monkeypatch):
    layer = module.Layer(2)
    layer.function = lambda: None
    with pytest.raises(pickle.PicklingError, match='Layer: an argument or attribute'):
        pickle.dumps(layer)
    with pytest.raises(pickle.PicklingError, match='Layer: an argument or attribute'):
        module.Layer(2, {'key': lambda: None})

    class Local(module.Layer):
        pass

    with pytest.raises(pickle.PicklingError, match=r'<locals>\.Local: only classes at the top level'):
        pickle.dumps(persistence.persistent_class(Local)(2))
    meta = {'type': 'class', 'version': 7, 'module_src': '', 'class_name': 'X', 'state': {}}
    with pytest.raises(pickle.UnpicklingError, match='version 7'):
        persistence._reconstruct_persistent_obj(meta)
    with pytest.raises(pickle.UnpicklingError, match='does not define the class X'):
        persistence._reconstruct_persistent_obj({**meta, 'version': 6})
    before = set(sys.modules)
    with pytest.raises(ZeroDivisionError):
        persistence._reconstruct_persistent_obj({**meta, 'version': 6, 'module_src': '1 / 0'})
    assert set(sys.modules) == before


def test_constructor_arguments_can_be_left_out(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'persistent_plain_module.py').write_text(
        textwrap.dedent("""
        from torch_utils import persistence
        @persistence.persistent_class
        class Plain:
            _record_init_args = False
            def __init__(self, value):
                self.value = [value, self]
    """)
    )
    plain = pickle.loads(pickle.dumps(__import__('persistent_plain_module').Plain(1)))
    assert vars(plain).keys() == {'value'}
    assert not isinstance(plain, torch.nn.Module)


# ----------------------------------------------------------------------------
# training_stats.


@pytest.fixture
def stats(monkeypatch):
    for name in ('_pending', '_known_names'):
        monkeypatch.setattr(training_stats, name, {})
    return training_stats


def test_moments_are_exact(stats):
    collector, losses = stats.Collector(), stats.Collector('Loss/.*')
    values = np.random.RandomState(0).randn(1000) + 1e8  # sums of squares would lose all digits
    assert stats.report('Loss/a', values[:10]) is not None
    for part in (values[10:400].tolist(), torch.tensor(values[400:999]), values[999]):
        stats.report('Loss/a', part)
    stats.report('Progress/b', torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8))
    stats.report0('Progress/c', 3)
    stats.report('Progress/d', [])
    collector.update()
    losses.update()
    assert collector.num('Loss/a') == 1000
    assert collector['Loss/a'] == pytest.approx(values.mean(), rel=1e-15)
    assert collector.std('Loss/a') == pytest.approx(values.std(), rel=1e-6)
    assert losses.as_dict() == {'Loss/a': collector.as_dict()['Loss/a']}
    assert collector.as_dict()['Progress/b'] == {'num': 4, 'mean': 2.5, 'std': np.std([1, 2, 3, 4])}
    assert (collector.num('Progress/d'), str(collector['Progress/d']), str(collector['unknown'])) == (0, 'nan', 'nan')
    assert losses.names() == ['Loss/a']


def test_intervals(stats):
    keeping, forgetting = stats.Collector(), stats.Collector(keep_previous=False)
    stats.report('a', [1, 3])
    late = stats.Collector()  # does not see what was reported before
    for collector in (keeping, forgetting, late):
        collector.update()
    assert (keeping['a'], forgetting['a'], late.num('a')) == (2, 2, 0)
    keeping.update()
    forgetting.update()
    assert (keeping['a'], forgetting.num('a')) == (2, 0)
    stats.report('a', float('inf'))
    stats.report('b', float('nan'))
    keeping.update()
    assert keeping['a'] == float('inf')
    assert np.isnan(keeping['b'])


RANK_SCRIPT = """
import os, sys, torch
from torch_utils import misc, training_stats
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
training_stats.init_multiprocessing(rank, torch.device('cpu'))
collector = training_stats.Collector()
training_stats.report('both', [1.0, 2.0] if rank == 0 else [6.0])
training_stats.report0('first', 10 + rank)
if rank == 1:
    training_stats.report('second', [4, 8])
collector.update()
expected = {'both': (3, 3.0, (14 / 3) ** 0.5), 'first': (1, 10.0, 0.0), 'second': (2, 6.0, 2.0)}
result = {name: (each.num, each.mean, each.std) for name, each in collector.as_dict().items()}
print(result == expected or result)
torch.manual_seed(0)
net = torch.nn.BatchNorm1d(3)
misc.check_ddp_consistency(net)
net.weight.data.add_(rank)
net.running_mean.fill_(float('nan'))
misc.check_ddp_consistency(net, ignore_regex='.*weight')
try:
    misc.check_ddp_consistency(net)
except AssertionError as error:
    print(str(error) == 'not the same on all ranks: BatchNorm1d.weight')
torch.distributed.destroy_process_group()
"""


def test_two_ranks(root, tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, '-c', RANK_SCRIPT, str(rank), str(tmp_path)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        assert [line for line in output.splitlines() if line] == ['True'] * 2, output
