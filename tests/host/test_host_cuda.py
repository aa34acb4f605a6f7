"""The CUDA forms without a GPU: their sources compile, and the same arithmetic run by the CPU gives the same numbers.

The functions that the kernels consist of are plain C++. Here a loop over all threads stands in for the GPU, below the
very bindings, argument lists and autograd functions that a GPU is used through. benchmarks/gpu_checks.py does the rest.
"""

import contextlib
import ctypes
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
import torch

from torch_utils import custom_ops
from torch_utils.ops import bias_act, bias_act_cuda, cuda_plugins, filtered_lrelu, filtered_lrelu_cuda, upfirdn2d, upfirdn2d_cuda
from training.kernels import native_code
from training.kernels.recurrence import fast_rollout, gated_recurrence

FOLDER = os.path.dirname(bias_act.__file__)
TRAINING = os.path.dirname(gated_recurrence.__file__)

# ----------------------------------------------------------------------------
# Compiling for GPUs.


@pytest.mark.parametrize('architecture', ['sm_75', 'sm_90'])
@pytest.mark.parametrize('operation', ['bias_act', 'upfirdn2d', 'filtered_lrelu', 'gated_recurrence'])
def test_compiles_to_machine_code(operation, architecture, tmp_path):
    nvcc = shutil.which('nvcc')
    if nvcc is None:
        pytest.skip('there is no nvcc on this machine')
    known = subprocess.run([nvcc, '--list-gpu-code'], capture_output=True, text=True).stdout
    if architecture not in known:
        pytest.skip(f'this nvcc does not know {architecture}')
    binary = tmp_path / 'code.cubin'
    done = subprocess.run(
        [
            nvcc,
            '-std=c++17',
            f'-arch={architecture}',
            '-cubin',
            '-Werror',
            'all-warnings',
            '-o',
            str(binary),
            os.path.join(TRAINING if operation == 'gated_recurrence' else FOLDER, f'{operation}.cu'),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert binary.read_bytes()[:4] == b'\x7fELF'


# ----------------------------------------------------------------------------
# Running on the CPU.

EMULATION = {
    'bias_act': """
        #include "bias_act_math.h"
        static long long packed;
        extern "C" long long packs_so_far() { return packed; }
        template <class E> static void run(const BiasActArguments& p, bool packs) {
            const BiasAct<E> f(p);
            packs = packs && bias_act_has_packs<E>(p);
            packed += packs;
            for (unsigned i = 0; i < p.count; i += packs ? unsigned(Pack<E>::SIZE) : 1)
                if (packs) bias_act_pack<E, unsigned>(p, f, i);
                else bias_act_element<E, unsigned>(p, f, i);
        }
        extern "C" int bias_act_launch(const BiasActArguments* p, int type, void* stream) {
            if (type == ELEMENT_FLOAT32) run<float>(*p, stream != 0);
            else if (type == ELEMENT_FLOAT64) run<double>(*p, stream != 0);
            else return 1;
            return 0;
        }
        extern "C" const char* bias_act_error_text(int) { return "refused"; }
    """,
    'upfirdn2d': """
        #include "upfirdn2d_math.h"
        static bool tiles;
        static long long packed;
        extern "C" long long packs_so_far() { return packed; }
        template <class E, int UP, int DOWN> static bool run_tiles(const Upfirdn2dArguments& p) {
            if (p.up_x != UP || p.up_y != UP || p.down_x != DOWN || p.down_y != DOWN) return false;
            if (p.filter_width != 4 || p.filter_height != 4) return false;
            static Upfirdn2dTile<E, UP, DOWN, 4> tile;
            for (int n = 0; n < p.batch; ++n) for (int c = 0; c < p.channels; ++c)
                for (int row = 0; row < p.out_height; row += tile.HEIGHT)
                    for (int column = 0; column < p.out_width; column += tile.WIDTH) {
                        for (int thread = 0; thread < 256; ++thread) tile.load(p, column, row, c, n, thread, 256);
                        for (int thread = 0; thread < 256; ++thread) tile.compute(p, column, row, c, n, thread, 256);
                    }
            return true;
        }
        template <class E> static void run(const Upfirdn2dArguments& p) {
            if (tiles && (run_tiles<E, 1, 1>(p) || run_tiles<E, 2, 1>(p) || run_tiles<E, 1, 2>(p))) return;
            const bool packs = tiles && upfirdn2d_has_packs<E>(p);
            packed += packs;
            const unsigned count = p.batch * p.channels / (packs ? Pack<E>::SIZE : 1) * p.out_width * p.out_height;
            for (unsigned i = 0; i < count; ++i)
                if (packs) upfirdn2d_pack<E, unsigned>(p, i);
                else upfirdn2d_element<E, unsigned>(p, i);
        }
        extern "C" int upfirdn2d_launch(const Upfirdn2dArguments* p, int type, void* stream) {
            tiles = stream != 0;
            if (type == ELEMENT_FLOAT32) run<float>(*p);
            else if (type == ELEMENT_FLOAT64) run<double>(*p);
            else return 1;
            return 0;
        }
        extern "C" const char* upfirdn2d_error_text(int) { return "refused"; }
    """,
    'filtered_lrelu': """
        #include <vector>
        #include "filtered_lrelu_math.h"
        template <int UP, int Z_UP, int DOWN> static void run(const FilteredLreluArguments& p, int side) {
            const int across = (p.y.width + side - 1) / side, down = (p.y.height + side - 1) / side;
            std::vector<double> shared(FilteredLreluTiles(p, side).total(), 0.0 / 0.0);
            for (int plane = 0; plane < p.batch * p.channels; ++plane)
                for (int tile = 0; tile < across * down; ++tile)
                    for (int stage = 0; stage < 8; ++stage)
                        for (int thread = 0; thread < FILTERED_LRELU_COLUMNS * FILTERED_LRELU_ROWS; ++thread)
                            FilteredLreluStages<double>(p, side, shared.data(), tile, plane, thread).run<UP, Z_UP, DOWN>(stage);
        }
        extern "C" int filtered_lrelu_launch(const FilteredLreluArguments* p, int type, void* stream) {
            const int side = stream ? 8 : 24;
            if (type != ELEMENT_FLOAT64) return 1;
            if (p->up == 2 && p->z_up == 2 && p->down == 2) run<2, 2, 2>(*p, side);
            else if (p->up == 4 && p->z_up == 4 && p->down == 2) run<4, 4, 2>(*p, side);
            else if (p->up == 4 && p->z_up == 2 && p->down == 4) run<4, 2, 4>(*p, side);
            else return 1;
            return 0;
        }
        extern "C" const char* filtered_lrelu_error_text(int) { return "refused"; }
    """,
}


@pytest.fixture(scope='module')
def emulated(tmp_path_factory):
    """The extension modules, with the CPU in the place of the GPU."""
    compiler = shutil.which(os.environ.get('CXX', 'c++').split()[0])
    headers = sysconfig.get_paths()['include']
    if compiler is None or not os.path.exists(os.path.join(headers, 'Python.h')) or os.name == 'nt':
        pytest.skip('there is no C++ compiler, or no Python.h, on this machine')
    folder = tmp_path_factory.mktemp('emulation')
    modules = {}
    for operation, source in EMULATION.items():
        (folder / f'{operation}_emulation.cpp').write_text(source)
        library = folder / f'{operation}_plugin.so'
        link = ['-undefined', 'dynamic_lookup'] if sys.platform == 'darwin' else []
        subprocess.run(
            [
                compiler,
                '-std=c++17',
                '-O1',
                '-shared',
                '-fPIC',
                '-Wall',
                '-Werror',
                f'-I{headers}',
                f'-I{FOLDER}',
                *link,
                '-o',
                str(library),
                os.path.join(FOLDER, f'{operation}.cpp'),
                str(folder / f'{operation}_emulation.cpp'),
            ],
            check=True,
        )
        spec = importlib.util.spec_from_file_location(f'{operation}_plugin', library)
        modules[operation] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[operation])
    return modules


@pytest.fixture
def use_plugins(emulated, monkeypatch):
    """Let impl='cuda' use the emulated modules for CPU tensors; call with True for the kernels with tiles and packs."""

    def switch(tiles=False):
        monkeypatch.setattr(
            cuda_plugins, 'plugin_for', lambda operation, x, impl, probe: emulated[operation] if impl == 'cuda' else None
        )
        for module in (bias_act_cuda, upfirdn2d_cuda, filtered_lrelu_cuda):
            monkeypatch.setattr(module, 'current_stream', lambda x: int(tiles))
        monkeypatch.setattr(torch.cuda, 'device', contextlib.nullcontext)

    return switch


def agree(function, *tensors):
    """Values, first and second gradients of impl='cuda' and impl='ref', in float64."""
    results = []
    for impl in ('cuda', 'ref'):
        inputs = [tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in tensors]
        y = function(*inputs, impl=impl)
        torch.manual_seed(0)
        first = torch.autograd.grad((y * torch.randn(y.shape).double()).sum(), inputs, create_graph=True)
        weighted = sum((grad * torch.randn(grad.shape).double()).sum() for grad in first)
        second = torch.autograd.grad(weighted, inputs, allow_unused=True) if weighted.requires_grad else [None] * len(inputs)
        results.append(
            [
                y.detach(),
                *(grad.detach() for grad in first),
                *(torch.zeros_like(x) if grad is None else grad for x, grad in zip(inputs, second, strict=True)),
            ]
        )
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-10)
    return results[0][0]


def layouts(x):
    yield x
    yield x.contiguous(memory_format=torch.channels_last)
    yield torch.stack([x, x], dim=-1)[..., 0].expand(x.shape)  # with gaps


def packs_of(module):
    """Launches of an emulated module that went by packs."""
    library = ctypes.CDLL(module.__file__)
    library.packs_so_far.restype = ctypes.c_longlong
    return library.packs_so_far()


@pytest.mark.parametrize('act', bias_act.activation_funcs)
def test_bias_act(act, use_plugins):
    use_plugins()
    torch.manual_seed(1)
    x, b = torch.randn(2, 3, 4, 5).double() * 2, torch.randn(3).double()
    for options in ({}, {'gain': -0.7, 'clamp': 0.9}, {'alpha': 0.4, 'gain': 2.5, 'clamp': 1.1}):
        for each in layouts(x):
            agree(lambda x, b, impl: bias_act.bias_act(x, b, act=act, impl=impl, **options), each, b)  # noqa: B023
        agree(lambda x, impl: bias_act.bias_act(x, act=act, impl=impl, **options), x)  # noqa: B023
        agree(
            lambda x, b, impl: bias_act.bias_act(x, b, dim=3, act=act, impl=impl, **options),  # noqa: B023
            x,
            torch.randn(5).double(),
        )
    large = torch.tensor([-1e4, -90.0, 90.0, 1e4])
    torch.testing.assert_close(bias_act.bias_act(large, act=act), bias_act.bias_act(large, act=act, impl='ref'))


@pytest.mark.parametrize('act', ['lrelu', 'swish', 'elu'])
def test_bias_act_by_packs(act, emulated, use_plugins):
    """Channels last and planar with and without packs that end at the end of the tensor, and what does not go by packs."""
    use_plugins(True)
    torch.manual_seed(1)
    options = {'act': act, 'gain': 1.5, 'clamp': 1.1}
    shapes = {(2, 4, 3, 5): (False, True), (2, 4, 2, 5): (True, True), (1, 3, 4, 5): (True, False), (1, 3, 3, 5): (False, False)}
    for shape, packs in shapes.items():
        x, b = torch.randn(shape).double() * 2, torch.randn(shape[1]).double()
        for each, expected in zip((x, x.contiguous(memory_format=torch.channels_last)), packs, strict=True):
            agree(lambda x, b, impl: bias_act.bias_act(x, b, impl=impl, **options), each, b)
            before = packs_of(emulated['bias_act'])
            bias_act.bias_act(each, b, impl='cuda', **options)
            assert packs_of(emulated['bias_act']) - before == expected, shape
    before = packs_of(emulated['bias_act'])
    agree(lambda x, impl: bias_act.bias_act(x, impl=impl, **options), torch.randn(1, 1, 3, 5).double())  # the last pack is half
    assert packs_of(emulated['bias_act']) > before


def test_upfirdn2d_by_packs(emulated, use_plugins):
    use_plugins(True)
    torch.manual_seed(2)
    x = torch.randn(2, 4, 14, 13).double().contiguous(memory_format=torch.channels_last)
    before = packs_of(emulated['upfirdn2d'])
    for resampling, taps in itertools.product(RESAMPLINGS, [(4, 4), (12,), (3, 5)]):
        f = torch.randn(*taps)
        agree(lambda x, impl: upfirdn2d.upfirdn2d(x, f, impl=impl, **resampling), x)  # noqa: B023
    assert packs_of(emulated['upfirdn2d']) - before > 3 * len(RESAMPLINGS)
    before = packs_of(emulated['upfirdn2d'])
    agree(lambda x, impl: upfirdn2d.upfirdn2d(x, torch.randn(3, 5).fill_(0.2), impl=impl), x[:, :3])
    assert packs_of(emulated['upfirdn2d']) == before


RESAMPLINGS = [
    {},
    {'up': 2, 'padding': [2, 1, 2, 1], 'gain': 4},
    {'down': 2, 'padding': 1},
    {'padding': [3, -1, 0, 2], 'flip_filter': True},
    {'up': 2, 'padding': [-3, 4, 5, 0]},
    {'down': 2, 'padding': [3, 2, 2, 5], 'gain': 0.3},
    {'up': (3, 2), 'down': (2, 5), 'padding': 6},
]


@pytest.mark.parametrize('tiles', [False, True])
def test_upfirdn2d(tiles, use_plugins):
    use_plugins(tiles)
    torch.manual_seed(2)
    x = torch.randn(2, 3, 5, 6).double()
    for resampling, taps in itertools.product(RESAMPLINGS, [(4, 4), (5,), (3, 5)]):
        f = torch.randn(*taps)
        for each in layouts(x):
            agree(lambda x, impl: upfirdn2d.upfirdn2d(x, f, impl=impl, **resampling), each)  # noqa: B023
    for up, down in [(1, 1), (2, 1), (1, 2)]:  # more than one tile each way
        agree(
            lambda x, impl: upfirdn2d.upfirdn2d(x, torch.rand(4, 4).fill_(0.3), up, down, 3, impl=impl),  # noqa: B023
            torch.randn(1, 2, 75, 70).double(),
        )


def test_results_keep_the_layout(use_plugins):
    use_plugins()
    x = torch.randn(2, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    assert upfirdn2d.upsample2d(x, torch.ones(4, 4)).is_contiguous(memory_format=torch.channels_last)
    assert bias_act.bias_act(x, act='lrelu').is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match='upfirdn2d: refused'):
        upfirdn2d.upsample2d(x.half(), torch.ones(4, 4))
    with pytest.raises(RuntimeError, match='bias_act: refused'):
        bias_act.bias_act(x.half())


def test_a_plugin_that_does_not_run_is_left_alone(emulated, use_plugins, monkeypatch, capsys):
    use_plugins()
    monkeypatch.setattr(cuda_plugins, '_works_on', {})
    for module, probe in ((bias_act, bias_act._probe), (upfirdn2d, upfirdn2d._probe)):
        operation = module.__name__.rsplit('.', 1)[-1]
        assert cuda_plugins._works(operation, emulated[operation], torch.device('cpu'), probe)
    assert capsys.readouterr().err == ''
    monkeypatch.setattr(cuda_plugins, '_works_on', {})
    for _ in range(2):
        assert not cuda_plugins._works(
            'bias_act', None, torch.device('cpu'), lambda plugin, x: bias_act._probe(emulated['bias_act'], x.half())
        )
    assert capsys.readouterr().err.count('does not run on cpu (bias_act: refused); going on') == 1


@pytest.mark.parametrize('tiles', [False, True])
def test_filtered_lrelu(tiles, use_plugins, monkeypatch):
    use_plugins(tiles)
    launches = []
    launch = filtered_lrelu_cuda._launch
    monkeypatch.setattr(filtered_lrelu_cuda, '_launch', lambda *x, **y: (launches.append(1), launch(*x, **y))[1])
    torch.manual_seed(3)
    filters = torch.rand(8), torch.rand(6, 6), torch.rand(12), torch.rand(5)
    for up, fu, fd, options in (
        (2, filters[0], filters[1], {'padding': [7, 6, 5, 8], 'gain': 1.3, 'slope': 0.1, 'clamp': 0.8}),
        (2, filters[2], filters[2], {'padding': [-1, 14, 11, 10], 'flip_filter': True}),
        (4, filters[2], filters[3], {'padding': [9, 10, 3, 16], 'clamp': 2.0}),
        (2, filters[1], filters[0], {'padding': 8}),
        (1, None, filters[3], {'padding': 3}),  # composed of the others
    ):
        x, b = torch.randn(2, 2, 9, 8).double(), torch.randn(2).double()
        fu, fd = (f / f.sum() if f is not None else f for f in (fu, fd))
        for each in layouts(x):
            agree(
                lambda x, b, impl: filtered_lrelu.filtered_lrelu(x, fu, fd, b, up=up, down=2, impl=impl, **options),  # noqa: B023
                each,
                b,
            )
        agree(lambda x, impl: filtered_lrelu.filtered_lrelu(x, fu, fd, up=up, down=2, impl=impl, **options), x)  # noqa: B023
    assert len(launches) == 4 * 4 * 3


RECURRENCE = """
        #include <vector>
        #include "gated_recurrence_math.h"
        template <class Pass> static void each(const RecurrenceArguments& p, int samples, bool forward) {
            static Pass shared;
            const int threads = Pass::threads(p), waves = p.steps + p.cells - 1;
            for (int block = 0; block * samples < p.count; ++block) {
                std::vector<typename Pass::Thread> own(threads);
                for (int t = 0; t < threads; ++t) shared.begin(p, block, t, own[t]);
                for (int wave = 0; wave < waves; ++wave) {
                    for (int stage = 0; stage < 2; ++stage)
                        for (int t = threads - 1; t >= 0; --t) {
                            if ((stage == 0) == forward) shared.products(p, block, wave, t, own[t]);
                            else shared.units(p, block, wave, t, own[t]);
                        }
                }
                for (int t = 0; t < threads; ++t) shared.end(p, block, t);
            }
        }
        template <class T, int SAMPLES> static int run(const RecurrenceArguments& p, int pass) {
            if (pass == PASS_FORWARD) each<RecurrenceForward<T, SAMPLES, false>>(p, SAMPLES, true);
            else if (pass == PASS_TANGENT) each<RecurrenceForward<T, SAMPLES, true>>(p, SAMPLES, true);
            else if (pass == PASS_BACKWARD) each<RecurrenceBackward<T, SAMPLES, false>>(p, SAMPLES, false);
            else each<RecurrenceBackward<T, SAMPLES, true>>(p, SAMPLES, false);
            return 0;
        }
        extern "C" int gated_recurrence_launch(const RecurrenceArguments* p, int pass, int bytes, void* stream) {
            if (bytes != 8) return 1;
            return stream ? run<double, 2>(*p, pass) : run<double, 1>(*p, pass);
        }
        extern "C" const char* gated_recurrence_error_text(int) { return "refused"; }
    """


@pytest.fixture(scope='module')
def recurrence(tmp_path_factory):
    """The recurrence with the CPU in the place of the GPU; its stream says how many samples a block takes."""
    compiler = native_code._compiler()
    if compiler is None:
        pytest.skip('there is no C++ compiler on this machine')
    folder = tmp_path_factory.mktemp('recurrence')
    (folder / 'emulation.cpp').write_text(RECURRENCE)
    library = folder / 'emulation.so'
    flags = ['-std=c++17', '-O1', '-shared', '-fPIC', '-Wall', '-Werror', f'-I{TRAINING}']
    subprocess.run([*compiler, *flags, '-o', str(library), str(folder / 'emulation.cpp')], check=True)
    return gated_recurrence.Recurrence(ctypes.CDLL(str(library)))


@pytest.mark.parametrize('pairs', [False, True])
@pytest.mark.parametrize('cells', [1, 2, 4])
def test_gated_recurrence(pairs, cells, recurrence, monkeypatch):
    """Values, first and second derivatives, against the equations by autograd; an odd number of samples."""
    monkeypatch.setattr(gated_recurrence, 'current_stream', lambda x: int(pairs))
    torch.manual_seed(cells)
    size, count = gated_recurrence.SIZE, 3
    gates = 3 * size
    shapes = [(count, 5, size), (cells, count, size), *[(cells, gates, size)] * 2, *[(cells, gates)] * 2]
    inputs = [(torch.randn(shape) * 0.5).double().requires_grad_(True) for shape in shapes]
    weights = torch.randn(count, 6, size).double(), torch.randn(6, cells, count, size).double()
    results = []
    for function in (lambda *x: fast_rollout._Rollout.apply(recurrence, *x), fast_rollout._plain):
        found = []
        for looks_at in ([0], [1], [0, 1]):  # outputs that the loss knows
            outputs = function(*inputs)
            loss = torch.stack([(outputs[index].square() * weights[index]).sum() for index in looks_at]).sum()
            first = torch.autograd.grad(loss, inputs, create_graph=True)
            second = torch.autograd.grad(first[0].square().sum() + (first[1] * 0.7).square().sum(), inputs)
            found += [*outputs, *first, *second]
        results.append(found)
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
    with pytest.raises(RuntimeError, match='gated_recurrence: refused'):
        recurrence.forward([x.detach().float() for x in inputs], False)


# ----------------------------------------------------------------------------
# Getting the extension modules.

MODULE = """
#include <Python.h>
#include "answer.h"
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "answer_plugin", nullptr, -1, nullptr};
#define JOINED(a, b) a##b
#define INITIALIZER(name) JOINED(PyInit_, name)
PyMODINIT_FUNC INITIALIZER(TORCH_EXTENSION_NAME)() {
    PyObject* module = PyModule_Create(&definition);
    PyModule_AddIntConstant(module, "answer", ANSWER);
    return module;
}
"""


@pytest.fixture
def plugin_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path / 'built'))
    monkeypatch.setattr(custom_ops, '_loaded', {})
    monkeypatch.setattr(custom_ops, '_failed', {})
    (tmp_path / 'answer.cpp').write_text(MODULE)
    (tmp_path / 'answer.h').write_text('#define ANSWER 42\n')
    return tmp_path


def get(folder, sources=('answer.cpp',)):
    return custom_ops.get_plugin('answer_plugin', list(sources), headers=['answer.h'], source_dir=str(folder))


def test_builds_an_extension_in_spite_of_a_stale_lock(plugin_folder, capsys):
    if shutil.which(os.environ.get('CXX', 'c++').split()[0]) is None or importlib.util.find_spec('ninja') is None:
        pytest.skip('there is no C++ compiler, or no ninja, on this machine')
    custom_ops._failed['answer_plugin'] = 'ninja is missing'
    with pytest.raises(custom_ops.PluginError, match='ninja is missing'):
        get(plugin_folder)
    custom_ops._failed.clear()
    (plugin_folder / 'answer.cpp').write_text(MODULE.replace('#include "answer.h"', '#include "answer.h"\n#include "no.h"'))
    with pytest.raises(custom_ops.PluginError, match=r'compiling failed \(.*no\.h') as caught:
        get(plugin_folder)
    assert '\n' not in str(caught.value)
    assert custom_ops.get_plugin_if_possible('answer_plugin', ['answer.cpp']) is None
    (built,) = (plugin_folder / 'built' / 'answer_plugin').iterdir()
    assert 'no.h' in (built / 'error.txt').read_text()

    custom_ops._failed.clear()
    (plugin_folder / 'answer.cpp').write_text(MODULE)
    (built / 'lock').touch()  # as of a build that was killed
    for folder in (plugin_folder / 'built' / 'answer_plugin').iterdir():
        (folder / 'lock').touch()
    assert get(plugin_folder).answer == 42
    assert get(plugin_folder) is get(plugin_folder)
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.count('Setting up PyTorch plugin "answer_plugin"... Done.\n') == 1


def test_says_what_is_missing(plugin_folder, monkeypatch, capsys):
    monkeypatch.setattr(torch.version, 'cuda', None)
    assert custom_ops.get_plugin_if_possible('answer_plugin', ['answer.cpp', 'answer.cu']) is None
    assert custom_ops.get_plugin_if_possible('answer_plugin', ['answer.cpp', 'answer.cu']) is None
    assert capsys.readouterr().err.splitlines()[1:] == [
        'answer_plugin: this PyTorch was built without CUDA; going on with the plain PyTorch form.'
    ]
    for variable, text in (('PATH', 'ninja is missing'), ('CXX', "the C\\+\\+ compiler 'no-such-compiler' is missing")):
        custom_ops._failed.clear()
        with monkeypatch.context() as context:
            context.setenv(variable, 'no-such-compiler')
            if variable == 'PATH':
                context.setattr(custom_ops, '_environment', contextlib.nullcontext)
            elif shutil.which('ninja', path=os.path.dirname(sys.executable)) is None and shutil.which('ninja') is None:
                continue
            with pytest.raises(custom_ops.PluginError, match=text):
                get(plugin_folder)
    monkeypatch.setattr(custom_ops, 'verbosity', 'loud')
    with pytest.raises(ValueError, match='loud'):
        get(plugin_folder)


def test_chooses_what_to_compile_for():
    known = {(7, 5), (8, 0), (9, 0), (12, 0)}
    flags = custom_ops._architecture_flags
    assert flags({(9, 0), (7, 5)}, known) == ['-gencode=arch=compute_75,code=sm_75', '-gencode=arch=compute_90,code=sm_90']
    assert flags({(12, 1)}, known) == ['-gencode=arch=compute_120,code=compute_120']  # a GPU newer than nvcc
    assert flags({(8, 6)}, set()) == ['-gencode=arch=compute_86,code=sm_86']
    with pytest.raises(custom_ops.PluginError, match=r'capability 6\.1'):
        flags({(6, 1)}, known)


def test_a_cpu_tensor_never_asks_for_a_compiler(monkeypatch):
    monkeypatch.setattr(custom_ops, 'get_plugin_if_possible', lambda *_, **__: pytest.fail('looked for a compiler'))
    assert bias_act.bias_act(torch.ones(1, 2), torch.ones(2), impl='cuda').tolist() == [[2, 2]]
    with pytest.raises(ValueError, match='impl'):
        bias_act.bias_act(torch.ones(1), impl='gpu')
