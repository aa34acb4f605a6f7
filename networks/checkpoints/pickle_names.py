"""The names that a pickle may ask for, and what safe_pickle makes of each instead of importing it.

Everything that a maker is given comes from the file, so anything may be in it. What a maker raises for it, InputError or one of
Python's errors for wrong types and values, becomes the reader's error.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from networks.checkpoints.lazy_data import (
    MAX_DEPTH,
    MAX_NAME,
    LazyArray,
    LazyBytes,
    LazyStorage,
    LazyTensor,
    MemoryBytes,
    ObjectNode,
    PersistentNode,
)
from networks.errors import InputError

MAX_INLINE_BYTES = 64  # Longer byte strings stay in the file.

# ----------------------------------------------------------------------------
# What stands for a name, and for numpy's objects while they are put together.


class GlobalName:
    """A name that the file asked for. It stands for itself and is never looked up."""

    __slots__ = ('module', 'name')

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name


class PartialArray:
    """A numpy array between the opcode that makes it and the one that fills it."""

    __slots__ = ('array',)

    def __init__(self) -> None:
        self.array: LazyArray | None = None


class DtypeNode:
    """A numpy dtype of plain numbers."""

    __slots__ = ('dtype',)

    def __init__(self, code: str) -> None:
        if code not in DTYPE_CODES:
            raise InputError(f'it holds numpy data of type {code[:20]!r}, which is not a plain number')
        self.dtype = np.dtype(code)


# ----------------------------------------------------------------------------
# What is made for a name that is called.

DTYPE_CODES = frozenset(
    {'b1', 'bool', *(f'i{n}' for n in (1, 2, 4, 8)), *(f'u{n}' for n in (1, 2, 4, 8)), *(f'f{n}' for n in (2, 4, 8))}
)

STORAGE_DTYPES = {
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'DoubleStorage': torch.float64,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
    'UntypedStorage': torch.uint8,
}


def _make_dict(args: tuple[Any, ...]) -> dict[Any, Any]:
    if args and isinstance(args[0], (list, tuple)):  # OrderedDict([(key, value), ...])
        return {usable_key(key): value for key, value in args[0]}
    return {}


def _make_set(args: tuple[Any, ...]) -> set[Any]:
    return {usable_key(member) for member in args[0]} if args else set()


def _make_persistent(args: tuple[Any, ...]) -> PersistentNode:
    (meta,) = args
    name, text, state = meta['class_name'], meta.get('module_src', ''), meta['state']
    if meta.get('type', 'class') != 'class' or type(name) is not str or not isinstance(state, dict):
        raise InputError('it holds a persistent object without a class name or state')
    return PersistentNode(name, text if type(text) is str else '', state)


def _make_parameter(args: tuple[Any, ...]) -> LazyTensor:
    if not isinstance(args[0], LazyTensor):
        raise InputError('it holds a parameter that is not a tensor')
    return args[0]


def _make_tensor(args: tuple[Any, ...]) -> LazyTensor:
    storage, offset, shape, stride = args[:4]
    if not isinstance(storage, LazyStorage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise InputError('it holds a tensor without storage or shape')
    return LazyTensor(storage, offset, shape, stride)


def _make_bytes(args: tuple[Any, ...]) -> bytes | LazyBytes:
    text, encoding = args
    if encoding not in ('latin1', 'latin-1'):
        raise InputError('it asks to encode text in a way that no checkpoint needs')
    if isinstance(text, LazyBytes):
        return LazyBytes(text.source, text.offset, text.length, is_text=True)
    return text.encode('latin-1')


def _make_scalar(args: tuple[Any, ...]) -> Any:
    dtype, raw = args
    if not isinstance(raw, bytes) or len(raw) > MAX_INLINE_BYTES:
        raise InputError('it holds a number that is not a few bytes')
    return np.frombuffer(raw, dtype=dtype.dtype, count=1)[0].item()


def _make_array(args: tuple[Any, ...]) -> PartialArray:
    return PartialArray()


def _make_array_from_buffer(args: tuple[Any, ...]) -> LazyArray:
    raw, dtype, shape, order = args  # How protocol 5 writes arrays.
    return fill_array((1, shape, dtype, order == 'F', raw))


def _make_empty_bytes(args: tuple[Any, ...]) -> bytes:
    if args:
        raise InputError('it calls builtins.bytes with arguments')
    return b''


def fill_array(state: Any) -> LazyArray:
    _version, shape, dtype, fortran_order, raw = state
    if not isinstance(dtype, DtypeNode) or not isinstance(shape, tuple):
        raise InputError('it holds a numpy array that is not made of plain numbers')
    return LazyArray(_bytes(raw), dtype.dtype, shape, bool(fortran_order))


def _make_path(args: tuple[Any, ...]) -> str:
    if len(args) > MAX_DEPTH or any(type(part) is not str or len(part) > MAX_NAME for part in args):
        raise InputError('it holds a path that is none')
    return '/'.join(args)


def _keeper(module: str, name: str) -> 'Maker':
    """What keeps a value that no network needs as a node: settings of a training, beside its weights."""
    return lambda args: ObjectNode(module, name, args)


def _bytes(value: object) -> LazyBytes | MemoryBytes:
    if isinstance(value, LazyBytes):
        return value
    if not isinstance(value, bytes):
        raise InputError('it has something else where data should be')
    return MemoryBytes(value)


def usable_key(key: Any) -> Any:
    """Keys whose hashes nobody can make collide."""
    if type(key) in (str, bytes, bool, float, type(None)) or (type(key) is int and abs(key) < 1 << 64):
        return key
    raise InputError(f'it uses a {type(key).__name__} as a key')


Maker = Callable[[tuple[Any, ...]], Any]

MAKERS: dict[tuple[str, str], Maker] = {
    ('torch_utils.persistence', '_reconstruct_persistent_obj'): _make_persistent,
    ('dnnlib.util', 'EasyDict'): _make_dict,
    ('collections', 'OrderedDict'): _make_dict,
    ('collections', 'defaultdict'): lambda args: {},
    ('collections', 'Counter'): lambda args: dict(args[0]) if args else {},
    ('builtins', 'set'): _make_set,
    ('builtins', 'frozenset'): _make_set,
    ('_codecs', 'encode'): _make_bytes,
    ('torch._utils', '_rebuild_tensor_v2'): _make_tensor,
    ('torch._utils', '_rebuild_tensor'): _make_tensor,
    ('torch._utils', '_rebuild_parameter'): _make_parameter,
    ('torch._utils', '_rebuild_parameter_with_state'): _make_parameter,
    ('torch', 'Size'): lambda args: tuple(args[0]),
    ('torch', 'device'): lambda args: ObjectNode('torch', 'device', args),
    ('numpy', 'dtype'): lambda args: DtypeNode(args[0]),
    ('numpy.core.multiarray', 'scalar'): _make_scalar,
    ('numpy.core.multiarray', '_reconstruct'): _make_array,
    ('numpy.core.numeric', '_frombuffer'): _make_array_from_buffer,
    ('builtins', 'bytes'): _make_empty_bytes,  # How protocol 2 writes b''.
    ('argparse', 'Namespace'): lambda args: ObjectNode('argparse', 'Namespace', args),
    **{
        ('pathlib', name): _make_path
        for name in ('Path', 'PurePath', 'PosixPath', 'WindowsPath', 'PurePosixPath', 'PureWindowsPath')
    },
    **{('datetime', name): _keeper('datetime', name) for name in ('date', 'datetime', 'time', 'timedelta', 'timezone')},
    ('decimal', 'Decimal'): _keeper('decimal', 'Decimal'),
    ('fractions', 'Fraction'): _keeper('fractions', 'Fraction'),
    ('uuid', 'UUID'): _keeper('uuid', 'UUID'),
    ('types', 'SimpleNamespace'): _keeper('types', 'SimpleNamespace'),
    ('builtins', 'complex'): _keeper('builtins', 'complex'),
    ('builtins', 'range'): _keeper('builtins', 'range'),
    ('builtins', 'xrange'): _keeper('builtins', 'range'),  # how protocol 2 calls it
    ('builtins', 'slice'): _keeper('builtins', 'slice'),
    # Dictionaries of settings, under the names of packages that trainings use.
    **dict.fromkeys(
        (('easydict', 'EasyDict'), ('munch', 'Munch'), ('addict.addict', 'Dict'), ('yacs.config', 'CfgNode')), _make_dict
    ),
    ('dnnlib.tflib.network', 'Network'): lambda args: ObjectNode('dnnlib.tflib.network', 'Network', args),
}

# Made by the machine itself: the argument is a file within the file.
LOAD_FROM_BYTES = ('torch.storage', '_load_from_bytes')

# Names that appear as values and are never called.
PLAIN_NAMES = frozenset(
    {
        ('numpy', 'ndarray'),
        LOAD_FROM_BYTES,
        *((module, name) for module in ('torch', 'torch.cuda', 'torch.storage') for name in STORAGE_DTYPES),
        *(('torch', name) for name in ('float16', 'float32', 'float64', 'bfloat16', 'int64', 'int32', 'uint8', 'bool')),
        *(('builtins', name) for name in ('int', 'float', 'list', 'dict', 'str')),  # Factories of defaultdict.
    }
)

# Where the same thing is found under several module names: Python 2, numpy 1 and 2, copies of NVIDIA's folders in forks.
MODULE_ALIASES = {
    '__builtin__': 'builtins',
    'numpy._core.multiarray': 'numpy.core.multiarray',
    'numpy._core.numeric': 'numpy.core.numeric',
    'pathlib._local': 'pathlib',
    'src.torch_utils.persistence': 'torch_utils.persistence',
    'src.dnnlib.util': 'dnnlib.util',
    'dnnlib': 'dnnlib.util',
}


def is_known(module: str, name: str) -> bool:
    """Whether a name is on the list. Layers of torch.nn inside of modules become nodes like any other module."""
    is_layer = module.startswith('torch.nn.modules.') and name.isidentifier()
    return is_layer or (module, name) in MAKERS or (module, name) in PLAIN_NAMES
