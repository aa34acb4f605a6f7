"""Small helpers without a tie to torch: dictionaries with attributes, names to objects, logs, downloads."""

from . import util
from .util import EasyDict, make_cache_dir_path

__all__ = ['EasyDict', 'make_cache_dir_path', 'util']
