"""Pickling of classes together with the source text that defines them.

An object of a class decorated with `persistent_class` is pickled as

    _reconstruct_persistent_obj(dict(type='class', version=6, module_src=..., class_name=..., state=...))

where `module_src` is the text of the module that defines the class. Whoever unpickles it needs `torch_utils` and
`dnnlib` on the import path, but not that module: its text is run. Therefore unpickle files of people you trust only;
`networks.checkpoints` reads the same files without running anything.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import io
import linecache
import pickle
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

import dnnlib

_PACKAGED = __name__.startswith('stylevideogan.')  # in a checkout, or in another program, this layer stands alone
if _PACKAGED:
    from stylevideogan import layout

_version = 6  # of the dictionary above
_import_hooks: list[Callable[[Any], Any]] = []
_source_of_module: dict[str, str] = {}  # name of a module made here -> its text
_module_of_source: dict[bytes, types.ModuleType] = {}  # SHA-256 of a text -> the module made from it
_decorated: set[type] = set()

Class = TypeVar('Class', bound=type)

# ----------------------------------------------------------------------------
# Decorator.


def persistent_class(orig_class: Class) -> Class:
    """Class decorator: objects are pickled with the source of the class, and remember how they were constructed.

    `init_args` and `init_kwargs` of an object are copies of the arguments of its constructor; a class that sets
    `_record_init_args = False` goes without them. Raises OSError if the source of the class's module cannot be had.
    """
    if is_persistent(orig_class):
        return orig_class
    module_name = orig_class.__module__
    module_src = _source_of_module.get(module_name)
    if module_src is None:
        module_src = inspect.getsource(sys.modules[module_name])
        module_src = layout.restore(module_src) if _PACKAGED else module_src

    class Persistent(orig_class):  # type: ignore[misc, valid-type]
        """Replaced below by the text of the original class."""

        _orig_module_src = module_src
        _orig_class_name = orig_class.__name__

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            record = getattr(self, '_record_init_args', True)
            recorded = (copy.deepcopy(args), _easy(copy.deepcopy(kwargs))) if record else None
            super().__init__(*args, **kwargs)
            if recorded is not None:  # after the constructors of the bases: the outermost class is the one to construct
                self._init_args, self._init_kwargs = recorded
                _check_pickleable(self, recorded)

        @property
        def init_args(self) -> tuple[Any, ...]:
            return copy.deepcopy(self._init_args)

        @property
        def init_kwargs(self) -> dnnlib.EasyDict:
            return _easy(copy.deepcopy(self._init_kwargs))

        def __reduce__(self) -> tuple[Any, ...]:
            if '.' in orig_class.__qualname__:
                raise pickle.PicklingError(
                    f'{orig_class.__qualname__}: only classes at the top level of a module can be found again in its source text'
                )
            state = _state(self)
            _check_pickleable(self, state)
            return _reconstruct_persistent_obj, (_meta(self, state),)

        if '__deepcopy__' not in dir(orig_class):

            def __deepcopy__(self, memo: dict[int, Any]) -> Any:
                # By __reduce__ it would be of a second class, made from the source text, which isinstance does not know.
                copied = memo[id(self)] = type(self).__new__(type(self))
                return _set_state(copied, copy.deepcopy(_state(self), memo))

    functools.update_wrapper(vars(Persistent)['__init__'], inspect.getattr_static(orig_class, '__init__'))
    for attribute in ('__name__', '__qualname__', '__module__', '__doc__'):
        setattr(Persistent, attribute, getattr(orig_class, attribute))
    _decorated.add(Persistent)
    return Persistent  # type: ignore[return-value]


def is_persistent(obj: object) -> bool:
    """Tell whether `obj` is a class decorated with `persistent_class`, or an object of one."""
    return (obj if isinstance(obj, type) else type(obj)) in _decorated


def import_hook(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Register a function that every later unpickling calls with the dictionary above, and return it.

    The hook gets and returns an `EasyDict` with the items type, version, module_src, class_name and state; it can so
    repair or replace old source text before it runs. Hooks run in the order of their registration.
    """
    if not callable(hook):
        raise TypeError(f'import_hook: {hook!r} cannot be called')
    _import_hooks.append(hook)
    return hook


# ----------------------------------------------------------------------------
# Writing.


def _easy(obj: Any) -> Any:
    """Return the same nested tuples, lists and dicts with EasyDict in the place of dict."""
    if isinstance(obj, dict):
        return dnnlib.EasyDict((key, _easy(value)) for key, value in obj.items())
    return type(obj)(map(_easy, obj)) if type(obj) in (list, tuple) else obj


def _state(obj: Any) -> dict[str, Any]:
    get_state = getattr(obj, '__getstate__', None)  # objects have none before Python 3.11
    state = obj.__dict__ if get_state is None else get_state()
    if state is not None and not isinstance(state, dict):
        raise pickle.PicklingError(f'{type(obj).__name__}: the state of a persistent object must be a dict')
    return dict(state or {})


def _meta(obj: Any, state: dict[str, Any]) -> dict[str, Any]:
    return {
        'type': 'class',
        'version': _version,
        'module_src': obj._orig_module_src,
        'class_name': obj._orig_class_name,
        'state': state,
    }


class _DryRun(pickle.Pickler):
    """Pickles everything but the bulk: tensors and arrays, and persistent objects, which are checked on their own."""

    def persistent_id(self, obj: object) -> str | None:
        bulky = isinstance(obj, (torch.Tensor, torch.Size, torch.device, torch.dtype, torch.nn.Parameter))
        plain_array = isinstance(obj, np.ndarray) and not obj.dtype.hasobject
        return 'known' if bulky or plain_array or is_persistent(obj) else None


def _check_pickleable(owner: object, content: object) -> None:
    try:
        _DryRun(io.BytesIO(), protocol=pickle.HIGHEST_PROTOCOL).dump(content)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise pickle.PicklingError(
            f'{type(owner).__name__}: an argument or attribute of it cannot be pickled ({error})'
        ) from error


# ----------------------------------------------------------------------------
# Reading.


def _reconstruct_persistent_obj(meta: Any) -> Any:
    """Return the object that `meta` describes; pickle streams name this function."""
    described = dnnlib.EasyDict(meta, state=dnnlib.EasyDict(meta['state']))
    meta = functools.reduce(_apply_hook, _import_hooks, described)
    if meta.type != 'class' or meta.version != _version:
        raise pickle.UnpicklingError(
            f'this pickle holds a persistent {meta.type} of version {meta.version}, known is class, {_version}'
        )
    module = _module_from_source(meta.module_src)
    if meta.class_name not in vars(module):
        raise pickle.UnpicklingError(f'the source text in the pickle does not define the class {meta.class_name}')
    cls = persistent_class(vars(module)[meta.class_name])
    return _set_state(cls.__new__(cls), meta.state)


def _set_state(obj: Any, state: dict[str, Any]) -> Any:
    """Give an object that was just made its state, and return it."""
    set_state = getattr(obj, '__setstate__', None)
    if set_state is None:
        vars(obj).update(state)
    else:
        set_state(state)
    return obj


def _apply_hook(meta: Any, hook: Callable[[Any], Any]) -> Any:
    result = hook(meta)
    if result is None:
        raise TypeError(f'{hook!r}, given to persistence.import_hook, returned nothing; it must return the dictionary')
    return result


def _module_from_source(source: str) -> types.ModuleType:
    """Return a module made by running the text, the same one for the same text."""
    key = hashlib.sha256(source.encode('utf-8')).digest()
    module = _module_of_source.get(key)
    if module is None:
        name = f'_imported_module_{uuid.uuid4().hex}'
        module = types.ModuleType(name)
        file_name = f'<source in a pickle, sha256 {key.hex()[:12]}>'
        linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)  # for tracebacks
        sys.modules[name] = module
        _source_of_module[name] = source
        try:
            text = layout.rewrite(source) if _PACKAGED else source
            exec(compile(text, file_name, 'exec'), vars(module))
        except BaseException:
            del sys.modules[name], _source_of_module[name]
            raise
        _module_of_source[key] = module
    return module
