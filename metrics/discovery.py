"""Finds metrics: those that the files in plugins/ register, and any file that the user names.

A metric is a function with the decorator `metrics.metric_main.register_metric` (NVIDIA's interface, docs/measuring/metrics.md).
"""

import functools
import hashlib
import importlib
import importlib.util
import os
import sys
import types

from metrics import families, metric_main
from networks.errors import InputError, option
from stylevideogan import layout

PLUGIN_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'plugins')


def _describe(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())}'


def _registered_by(module: types.ModuleType) -> set[str]:
    """Metrics of this module, registered as functions or as a family, even if it was imported long before."""
    functions = {
        name
        for name in metric_main.list_valid_metrics()
        if getattr(getattr(module, name, None), '__module__', None) == module.__name__
    }
    return functions | families.names_of_module(module.__name__)


@functools.cache
def discover_metrics() -> tuple[dict[str, str], dict[str, str]]:
    """Import the files of plugins/; whatever metrics they register are there then.

    Returns:
        Name of each metric -> its file, in alphabetical order; and file -> error, for files that could not be imported.
        One broken file does not take the others away.
    """
    found: dict[str, str] = {}
    broken: dict[str, str] = {}
    for file_name in sorted(os.listdir(PLUGIN_FOLDER)):
        path = os.path.join(PLUGIN_FOLDER, file_name)
        if not file_name.endswith('.py') or file_name.startswith('_'):
            continue
        before = set(metric_main.list_valid_metrics())
        try:
            module = importlib.import_module(f'{layout.home(__name__)}plugins.{file_name[:-3]}')
        except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
            broken[path] = _describe(error)
            continue
        names = (set(metric_main.list_valid_metrics()) - before) | _registered_by(module)
        found.update(dict.fromkeys(names, path))
    return dict(sorted(found.items())), broken


def find_metric(name: str) -> str | None:
    """File of the metric of this name; one that follows the pattern of a family (fvd500_16f) is made. None if there is none."""
    known, _ = discover_metrics()
    if name in known:
        return known[name]
    if families.make_metric(name):
        return families.file_of_metric(name)
    return None


def load_metric_file(path: str) -> list[str]:
    """Import a user's own file.

    Returns:
        Names of the metrics that it registers.

    Raises:
        InputError: it is not there, cannot be imported, registers none, or takes the name of another metric.
    """
    if not os.path.isfile(path):
        raise InputError(f'{option("plugin")}: there is no file {path!r}')
    with open(path, 'rb') as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    module_name = f'metric_plugin_{digest}'  # two files may have the same name
    if module_name in sys.modules:
        return sorted(_registered_by(sys.modules[module_name]))
    loader = layout.Loader(module_name, path) if layout.is_packaged(__name__) and path.endswith('.py') else None
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise InputError(f'{option("plugin")}: {path!r} is not a Python file, its name must end in .py')
    before = set(metric_main.list_valid_metrics())
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise InputError(f'{option("plugin")}: {path!r} cannot be imported ({_describe(error)})') from error
    names = (set(metric_main.list_valid_metrics()) - before) | _registered_by(module)
    taken = sorted(names & before)
    if taken:
        raise InputError(f'{option("plugin")}: {path!r} defines {", ".join(taken)}, which there is already; choose another name')
    if not names:
        raise InputError(
            f'{option("plugin")}: {path!r} registers no metric; metrics.metric_main.register_metric makes one of a function'
        )
    return sorted(names)
