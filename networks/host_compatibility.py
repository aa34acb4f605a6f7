"""Lets the host layer of an unmodified stylegan3 checkout be imported in today's environments.

Its torch_utils/ops compare versions with `pkg_resources`, which setuptools no longer has. Over that host, and only where
the module is missing, a stand-in with the one function that they call takes its place. Our own host layer needs nothing.
"""

import importlib.util
import os
import sys
import types


def provide_pkg_resources() -> bool:
    """Put the stand-in in place if the host needs it; returns whether it did."""
    if 'pkg_resources' in sys.modules or importlib.util.find_spec('pkg_resources') is not None:
        return False
    installed = __name__.startswith('stylevideogan.')  # then the host layer is always our own
    host = None if installed else importlib.util.find_spec('torch_utils')
    for folder in (host.submodule_search_locations or []) if host is not None else []:
        path = os.path.join(folder, 'ops', 'conv2d_gradfix.py')
        if os.path.isfile(path):
            with open(path, encoding='utf-8', errors='replace') as file:
                if 'pkg_resources' in file.read():
                    break
    else:
        return False

    from torch.torch_version import TorchVersion  # compares as versions do

    module = types.ModuleType('pkg_resources', 'Stand-in for the host layer: parse_version only.')
    module.parse_version = TorchVersion  # type: ignore[attr-defined]
    sys.modules['pkg_resources'] = module
    return True
