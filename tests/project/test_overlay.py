"""The plugin's files can be laid over stylegan2-ada-pytorch and stylegan3, and use only what both of these have.

The lists are facts about the two repositories: their file names, and the public names of the modules that both share.
"""

import ast
import collections
import functools
import io
import pathlib
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator

import pytest

from stylevideogan import layout

# Python files of either repository; a file of ours of the same name would be left out when ours are laid over theirs.
THEIR_FILES = {
    'avg_spectra.py',
    'calc_metrics.py',
    'dataset_tool.py',
    'gen_images.py',
    'gen_video.py',
    'generate.py',
    'legacy.py',
    'projector.py',
    'style_mixing.py',
    'train.py',
    'visualizer.py',
    'dnnlib/__init__.py',
    'dnnlib/util.py',
    'metrics/__init__.py',
    'metrics/equivariance.py',
    'metrics/frechet_inception_distance.py',
    'metrics/inception_score.py',
    'metrics/kernel_inception_distance.py',
    'metrics/metric_main.py',
    'metrics/metric_utils.py',
    'metrics/perceptual_path_length.py',
    'metrics/precision_recall.py',
    'torch_utils/__init__.py',
    'torch_utils/custom_ops.py',
    'torch_utils/misc.py',
    'torch_utils/persistence.py',
    'torch_utils/training_stats.py',
    'torch_utils/ops/__init__.py',
    'torch_utils/ops/bias_act.py',
    'torch_utils/ops/conv2d_gradfix.py',
    'torch_utils/ops/conv2d_resample.py',
    'torch_utils/ops/filtered_lrelu.py',
    'torch_utils/ops/fma.py',
    'torch_utils/ops/grid_sample_gradfix.py',
    'torch_utils/ops/upfirdn2d.py',
    'training/__init__.py',
    'training/augment.py',
    'training/dataset.py',
    'training/loss.py',
    'training/networks.py',
    'training/networks_stylegan2.py',
    'training/networks_stylegan3.py',
    'training/training_loop.py',
}
THEIR_FOLDERS = {'gui_utils', 'viz'}

# Public names of the modules that both repositories have.
HOST_NAMES = {
    'dnnlib': {'EasyDict', 'make_cache_dir_path', 'util'},
    'dnnlib.util': {
        'EasyDict',
        'Logger',
        'ask_yes_no',
        'call_func_by_name',
        'construct_class_by_name',
        'copy_files_and_create_dirs',
        'format_time',
        'get_dtype_and_ctype',
        'get_module_dir_by_obj_name',
        'get_module_from_obj_name',
        'get_obj_by_name',
        'get_obj_from_module',
        'get_top_level_function_name',
        'is_pickleable',
        'is_top_level_function',
        'is_url',
        'list_dir_recursively_with_ignore',
        'make_cache_dir_path',
        'open_url',
        'set_cache_dir',
        'strtobool',
        'tuple_product',
    },
    'torch_utils': {'custom_ops', 'misc', 'ops', 'persistence', 'training_stats'},
    'torch_utils.custom_ops': {'get_plugin', 'verbosity'},
    'torch_utils.misc': {
        'InfiniteSampler',
        'assert_shape',
        'check_ddp_consistency',
        'constant',
        'copy_params_and_buffers',
        'ddp_sync',
        'named_params_and_buffers',
        'params_and_buffers',
        'print_module_summary',
        'profiled_function',
        'suppress_tracer_warnings',
    },
    'torch_utils.persistence': {'import_hook', 'is_persistent', 'persistent_class', '_reconstruct_persistent_obj'},
    'torch_utils.training_stats': {'Collector', 'init_multiprocessing', 'report', 'report0'},
    'torch_utils.ops': {
        'bias_act',
        'conv2d_gradfix',
        'conv2d_resample',
        'fma',
        'grid_sample_gradfix',
        'upfirdn2d',
        'filtered_lrelu',  # stylegan3 only; over stylegan2-ada-pytorch ours fills the gap
    },
    'torch_utils.ops.bias_act': {'activation_funcs', 'bias_act'},
    'torch_utils.ops.conv2d_gradfix': {
        'conv2d',
        'conv_transpose2d',
        'enabled',
        'no_weight_gradients',
        'weight_gradients_disabled',
    },
    'torch_utils.ops.conv2d_resample': {'conv2d_resample'},
    'torch_utils.ops.filtered_lrelu': {'filtered_lrelu'},
    'torch_utils.ops.fma': {'fma'},
    'torch_utils.ops.grid_sample_gradfix': {'enabled', 'grid_sample'},
    'torch_utils.ops.upfirdn2d': {'downsample2d', 'filter2d', 'setup_filter', 'upfirdn2d', 'upsample2d'},
    'metrics.metric_main': {'calc_metric', 'is_valid_metric', 'list_valid_metrics', 'register_metric', 'report_metric'},
    'metrics.metric_utils': {
        'FeatureStats',
        'MetricOptions',
        'ProgressMonitor',
        'compute_feature_stats_for_dataset',
        'compute_feature_stats_for_generator',
        'get_feature_detector',
        'get_feature_detector_name',
    },
}

# Files of ours that only serve our own host layer; over another host they lie there unused.
OUR_HOST_HELPERS = {'dnnlib/download.py', 'metrics/feature_stats.py'}


def tracked_files(root: pathlib.Path) -> list[str]:
    listing = subprocess.run(['git', 'ls-files', '*.py'], cwd=root, capture_output=True, text=True)
    if listing.returncode == 0 and listing.stdout:
        return [name for name in listing.stdout.splitlines() if (root / name).exists()]
    return [path.relative_to(root).as_posix() for path in root.rglob('*.py') if '.venv' not in path.parts]


def plugin_files(root: pathlib.Path) -> list[str]:
    """What is laid over a host: everything but its own layer, the tests, and what only serves development."""
    return [
        name
        for name in tracked_files(root)
        if name not in THEIR_FILES | OUR_HOST_HELPERS and not name.startswith(('tests/', 'benchmarks/', 'demo/', 'torch_utils/'))
    ]


def host_uses(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a file takes from the host: imports, and attributes of imported modules."""
    tree = ast.parse(source)
    known: dict[str, str] = {}  # local name -> module
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split('.')[0] in ('dnnlib', 'torch_utils') or alias.name in HOST_NAMES:
                    known[alias.asname or alias.name.split('.')[0]] = alias.name if alias.asname else alias.name.split('.')[0]
                    if '.' in alias.name:
                        yield tuple(alias.name.rsplit('.', 1))  # type: ignore[misc]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f'{node.module}.{alias.name}'
                if node.module in HOST_NAMES or node.module.split('.')[0] in ('dnnlib', 'torch_utils'):
                    yield node.module, alias.name
                if full in HOST_NAMES:
                    known[alias.asname or alias.name] = full
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = _dotted(node.value, known)
            if module in HOST_NAMES:
                yield module, node.attr


def _dotted(node: ast.expr, known: dict[str, str]) -> str:
    """The host module that an expression names, such as dnnlib.util; '' if it names none."""
    if isinstance(node, ast.Name):
        return known.get(node.id, '')
    if isinstance(node, ast.Attribute):
        inside = _dotted(node.value, known)
        return f'{inside}.{node.attr}' if inside else ''
    return ''


def test_no_file_has_the_name_of_one_of_theirs(root: pathlib.Path) -> None:
    host = {name for name in THEIR_FILES if name.startswith(('dnnlib/', 'torch_utils/'))}
    host |= {'metrics/__init__.py', 'metrics/metric_main.py', 'metrics/metric_utils.py', 'training/__init__.py'}
    files = tracked_files(root)
    assert len(files) > 30
    collisions = [name for name in files if name in THEIR_FILES - host or name.split('/')[0] in THEIR_FOLDERS]
    assert collisions == []
    for name in ('metrics/__init__.py', 'training/__init__.py'):  # theirs stay, so ours may hold nothing
        body = ast.parse((root / name).read_text()).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), name


def test_the_command_of_the_readme_lays_over_what_runs_and_nothing_else(root: pathlib.Path) -> None:
    command = re.search(r'git archive HEAD (.*?)\| tar', (root / 'README.md').read_text().replace('\\\n', ' '), re.DOTALL)
    assert command is not None
    done = subprocess.run(['git', 'archive', 'HEAD', *shlex.split(command[1])], cwd=root, capture_output=True)
    if done.returncode != 0:
        pytest.skip('not a git checkout')
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        laid = {entry.name for entry in archive if entry.isfile()}
    tracked = set(
        subprocess.run(
            ['git', 'ls-tree', '-r', '--name-only', 'HEAD'], cwd=root, capture_output=True, text=True
        ).stdout.splitlines()
    )
    runs = {pathlib.Path(source).relative_to(root).as_posix() for source, _ in layout.packaged_files(str(root))} & tracked
    assert runs <= laid, 'commit first: the archive is that of HEAD'
    assert laid - runs == {'requirements.txt', 'requirements-weights.txt'}


def test_only_host_names_that_both_have(root: pathlib.Path) -> None:
    wrong = []
    num_uses = 0
    for name in plugin_files(root):
        for module, attribute in host_uses((root / name).read_text()):
            num_uses += 1
            if module in HOST_NAMES:
                if attribute not in HOST_NAMES[module] and f'{module}.{attribute}' not in HOST_NAMES:
                    wrong.append(f'{name}: {module}.{attribute}')
            elif module.split('.')[0] in ('dnnlib', 'torch_utils'):
                wrong.append(f'{name}: {module}')
    assert num_uses > 50
    assert wrong == []


@pytest.mark.parametrize(
    ('source', 'uses'),
    [
        ('import dnnlib\ndnnlib.util.format_time_brief(3)', [('dnnlib', 'util'), ('dnnlib.util', 'format_time_brief')]),
        ('from torch_utils import misc as m\nm.nan_to_num(x)', [('torch_utils', 'misc'), ('torch_utils.misc', 'nan_to_num')]),
        ('from metrics import metric_main\nmetric_main._metric_dict', [('metrics.metric_main', '_metric_dict')]),
        ('from torch_utils.ops.fma import fma', [('torch_utils.ops.fma', 'fma')]),
        ('import metrics.metric_utils', [('metrics', 'metric_utils')]),
        ('import numpy\nnumpy.util.x', []),
    ],
)
def test_uses_are_found(source: str, uses: list[tuple[str, str]]) -> None:
    assert sorted(host_uses(source)) == sorted(uses)


def test_layers_import_downwards_only(root: pathlib.Path) -> None:
    below = {'dnnlib': set(), 'torch_utils': {'dnnlib'}, 'networks': {'torch_utils', 'dnnlib'}}
    below['metrics'] = {'networks', *below['networks']}
    below['plugins'] = {'metrics', *below['metrics']}
    below['training'] = {'plugins', *below['plugins']}
    below['stylevideogan'] = {'training', *below['training']}
    rooms = {*below, 'demo', 'tests', 'benchmarks'}
    commands = {name[:-3] for name in tracked_files(root) if '/' not in name}
    wrong = []
    for name in tracked_files(root):
        room = name.split('/')[0]
        if room not in below:
            continue
        for node in ast.walk(ast.parse((root / name).read_text())):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom) and node.module and not node.level
                else []
            )
            if modules == ['stylevideogan'] and {alias.name for alias in node.names} <= {'layout', 'version'}:
                continue  # the two need nothing, and every layer may use them
            for module in modules:
                top = module.split('.')[0]
                if top in commands or (top in rooms and top != room and top not in below[room]):
                    wrong.append(f'{name}: {module}')
    assert wrong == []


# Rooms in the order of CONTRIBUTING.md's table, lowest first; each imports from those before it.
ROOMS = {
    'metrics': ['metrics', 'metrics.inputs', 'metrics.features', 'metrics.distances'],
    'training': [
        'training.commands',
        'training.runs',
        'training.kernels',
        'training.kernels.critic',
        'training.kernels.recurrence',
        'training.kernels.rendering',
        'training.recordings',
        'training.footage',
        'training.latents',
        'training.videos',
        'training.embedding',
        'training.tuning',
        'training.control',
        'training.batches',
        'training.events',
        'training',
        'training.pasting',
        'training.generation',
        'training.live',
        'training.run_page',
        'training.making',
    ],
}
NEEDS_NOTHING = {'training.temporal_loss'}


@pytest.mark.parametrize('top', sorted(ROOMS))
def test_rooms_import_downwards_only(root: pathlib.Path, top: str) -> None:
    graph = imports(root)
    assert not any(graph[module] for module in NEEDS_NOTHING)
    place = {room: number for number, room in enumerate(ROOMS[top])}
    modules = [name[:-3].removesuffix('/__init__').replace('/', '.') for name in tracked_files(root)]
    room = {module: module if module in place else module.rpartition('.')[0] for module in modules if module.split('.')[0] == top}
    unknown = {name for module, name in room.items() if name not in place and module != top}
    assert not unknown, 'a new room needs a line in the table of CONTRIBUTING.md and its place in ROOMS'
    wrong = [
        f'{module} imports {other}'
        for module in room
        for other in graph[module]
        if other in room and other not in NEEDS_NOTHING and place[room[other]] > place[room[module]]
    ]
    assert wrong == []


def test_no_room_is_a_hall(root: pathlib.Path) -> None:
    files = collections.Counter(name.rpartition('/')[0] for name in tracked_files(root))
    of_a_kind = {'torch_utils/ops', 'tests/commands/options'}  # the host's names; one file a command
    assert {room: number for room, number in files.items() if number > 15 and room and room not in of_a_kind} == {}


@functools.cache
def imports(root: pathlib.Path) -> dict[str, set[str]]:
    """Module -> modules of the project that it imports, anywhere in the file."""
    modules = {name[:-3].removesuffix('/__init__').replace('/', '.'): name for name in tracked_files(root)}
    found: dict[str, set[str]] = {}
    for module, name in modules.items():
        found[module] = set()
        for node in ast.walk(ast.parse((root / name).read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                members = [f'{node.module}.{alias.name}' for alias in node.names]
                names = [member if member in modules else node.module for member in members]
            else:
                continue
            found[module] |= {other for other in names if other in modules and other != module}
    return found


def test_imports_have_no_circle(root: pathlib.Path) -> None:
    graph = dict(imports(root))
    # The names of a package that its __init__ hands on from its own files are no circle of files.
    for package in {name for name in graph if (root / name.replace('.', '/') / '__init__.py').exists()}:
        graph[package] = {other for other in graph[package] if not other.startswith(f'{package}.')}
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        assert module not in path, ' -> '.join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(graph[module]):
                walk(other, [*path, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])


def test_networks_know_no_files(root: pathlib.Path) -> None:
    """What opens files of weights is networks/checkpoints; the other files of networks/ do not even import it."""
    for module, others in imports(root).items():
        if module.startswith('networks.') and not module.startswith('networks.checkpoints'):
            assert not [other for other in others if other.startswith('networks.checkpoints')], module
            place = root / module.replace('.', '/')
            source = (place / '__init__.py' if place.is_dir() else place.with_suffix('.py')).read_text()
            if module != 'networks.host_compatibility':  # looks at the source of the host
                assert 'open(' not in source, module


def test_embedded_sources_stand_alone(root: pathlib.Path) -> None:
    """Files of persistent classes travel inside of pickles, so they may import only what every reader has."""
    embedded = [
        name
        for name in tracked_files(root)
        if name.startswith('networks/') and '@persistence.persistent_class' in (root / name).read_text()
    ]
    assert {'networks/latent_generator.py', 'networks/stylegan2.py'} <= set(embedded)
    for name in embedded:
        for node in ast.walk(ast.parse((root / name).read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [module] if module else []
            assert not [m for m in modules if m.split('.')[0] in ('networks', 'training', 'metrics', 'plugins', 'dnnlib')], name


def test_a_host_that_needs_pkg_resources_gets_it(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """stylegan3's operations compare versions with a module that today's setuptools lacks."""
    ops = tmp_path / 'torch_utils' / 'ops'
    ops.mkdir(parents=True)
    (ops / 'conv2d_gradfix.py').write_text(
        'from pkg_resources import parse_version\nnew = parse_version("2.13.0+cpu") >= parse_version("1.11.0a")\n'
    )
    (tmp_path / 'networks').symlink_to(root / 'networks')
    program = (
        'import sys; sys.modules.pop("pkg_resources", None)\n'
        'class Missing:\n'
        '    def find_spec(self, name, *rest):\n'
        '        if name == "pkg_resources": raise ModuleNotFoundError(name)\n'
        'import importlib.util as u; real = u.find_spec\n'
        'u.find_spec = lambda name, *rest: None if name == "pkg_resources" else real(name, *rest)\n'
        'sys.meta_path.insert(0, Missing())\n'
        'import networks\n'
        'print("pkg_resources" in sys.modules)\n'
        'from torch_utils.ops import conv2d_gradfix; print(conv2d_gradfix.new)\n'
    )
    over = subprocess.run([sys.executable, '-c', program], cwd=tmp_path, capture_output=True, text=True)
    assert over.stdout == 'True\nTrue\n', over.stderr
    alone = subprocess.run(
        [sys.executable, '-c', program.rsplit('from torch_utils', 1)[0]], cwd=root, capture_output=True, text=True
    )
    assert alone.stdout == 'False\n', alone.stderr  # our own host layer does without


@pytest.mark.parametrize('command', layout.COMMANDS)
def test_an_old_python_or_torch_is_told_in_one_sentence(command: str, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As in an environment that was made for their checkout, by Python 3.8 with torch 1.9."""
    ast.parse((root / f'{command}.py').read_text(encoding='utf-8'), feature_version=(3, 8))
    ast.parse((root / 'training' / 'commands' / 'command_line.py').read_text(encoding='utf-8'), feature_version=(3, 8))
    program = 'import runpy, sys; {}; runpy.run_path(sys.argv[1], run_name="__main__")'
    (tmp_path / 'torch-1.9.1.dist-info').mkdir()
    (tmp_path / 'torch-1.9.1.dist-info' / 'METADATA').write_text('Metadata-Version: 2.1\nName: torch\nVersion: 1.9.1+cu111\n')
    for change, words in (
        ('sys.version_info = (3, 8, 20)', 'Python 3.8 is too old; 3.10 or later is needed'),
        (f'sys.path[:0] = [{str(root)!r}, {str(tmp_path)!r}]', r'torch 1.9.1+cu111 is too old: 2.4 or later is needed'),
    ):
        done = subprocess.run(
            [sys.executable, '-c', program.format(change), str(root / f'{command}.py')], cwd=root, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
        assert words in done.stderr
