"""What a checkpoint file says, held as inert data: byte ranges, tensors that are not read yet, and objects that are not made.

The readers (safe_pickle, torch_archive) turn a file into plain Python containers with the node classes below in the
places of everything else. A node names what the file asked for and does nothing. The bytes of tensors stay in the file
until `load` is called, so entries that nobody needs cost neither time nor memory.
"""

import argparse
import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import torch

from networks.errors import InputError

MAX_DEPTH = 100  # Containers within containers; NVIDIA's deepest module tree needs about 20.
MAX_VALUES = 2_000_000  # Steps of reading one file; a snapshot of a 1024x1024 network takes about 50 thousand.
MAX_MODULES = 10_000
MAX_DIMENSIONS = 16
MAX_NAME = 256  # Characters of the name of a module, class, or weight.
MAX_EXPANDED = 1 << 16  # Elements of a tensor that repeats the elements of a smaller storage.
SLACK_BYTES = 1 << 20  # What small values may need beyond the size of the file.

# ----------------------------------------------------------------------------
# Bytes.


class Budget:
    """What reading one file may cost in all: bytes of data, and steps of the stack machine."""

    def __init__(self, size: int) -> None:
        self._bytes_left = 2 * size + SLACK_BYTES  # Twice: protocol 2 writes bytes as text, which has to be converted.
        self._steps_left = MAX_VALUES

    def charge(self, length: int) -> None:
        """Count bytes that are about to be allocated for data of the file (negative: that were freed)."""
        self._bytes_left -= length
        if self._bytes_left < 0:
            raise InputError('it declares more data than it has bytes: the same bytes are used many times over')

    def step(self, count: int = 1) -> None:
        """Count steps that are about to be taken."""
        self._steps_left -= count
        if self._steps_left < 0:
            raise InputError(f'it takes more than {MAX_VALUES} steps to read')


class ByteSource:
    """Random access to the bytes of an open file."""

    def __init__(self, file: BinaryIO, budget: Budget | None = None) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self.budget = budget or Budget(self.size)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset` on (fewer at the end of the file)."""
        self._file.seek(offset)
        return self._file.read(length)

    def load(self, offset: int, length: int) -> np.ndarray:
        """Exactly `length` bytes from `offset` on, as a writable uint8 array that owns its memory."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise InputError(f'it ends before the {length} bytes of data that it declares at byte {offset}')
        self.budget.charge(length)
        data = np.empty(length, dtype=np.uint8)
        self._file.seek(offset)
        target = data.data
        while target:
            count = self._file.readinto(target)  # type: ignore[attr-defined]  # Every binary file has it.
            if not count:
                raise InputError('it became shorter while it was read')
            target = target[count:]
        return data


class LazyBytes:
    """A byte string in the file."""

    __slots__ = ('is_text', 'length', 'offset', 'source')

    def __init__(self, source: ByteSource, offset: int, length: int, is_text: bool = False) -> None:
        self.source = source
        self.offset = offset
        self.length = length
        self.is_text = is_text  # UTF-8 for characters 0 to 255: how pickle protocols before 3 write bytes.

    def load(self) -> np.ndarray:
        """uint8 array [length]; shorter for text."""
        data = self.source.load(self.offset, self.length)
        if not self.is_text:
            return data
        try:
            raw = data.tobytes().decode('utf-8').encode('latin-1')
        except UnicodeError as error:
            raise InputError('its text does not encode bytes') from error
        self.source.budget.charge(len(raw) - self.length)
        return np.frombuffer(bytearray(raw), dtype=np.uint8)


class MemoryBytes:
    """A short byte string that is in memory already, with the interface of LazyBytes."""

    __slots__ = ('_data', 'length')

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def load(self) -> np.ndarray:
        return np.frombuffer(bytearray(self._data), dtype=np.uint8)


# ----------------------------------------------------------------------------
# Tensors and arrays.


class LazyStorage:
    """One-dimensional typed memory of tensors; read once, shared by all views of it."""

    __slots__ = ('_loaded', 'data', 'dtype', 'numel')

    def __init__(self, dtype: torch.dtype, numel: int, data: LazyBytes | None = None) -> None:
        if not _is_size(numel):
            raise InputError(f'it declares a storage of {numel} elements')
        self.dtype = dtype
        self.numel = numel
        self.data = data
        self._loaded: torch.Tensor | None = None

    def load(self) -> torch.Tensor:
        if self._loaded is None:
            if self.data is None:
                raise InputError('it declares a storage and has no data for it')
            raw = torch.from_numpy(self.data.load())
            self._loaded = raw.view(self.dtype) if len(raw) else torch.empty(0, dtype=self.dtype)
        return self._loaded


class LazyTensor:
    """A strided view of a storage: shape and dtype are known, the values are still in the file."""

    __slots__ = ('offset', 'shape', 'storage', 'stride')

    def __init__(self, storage: LazyStorage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        fits = len(shape) == len(stride) <= MAX_DIMENSIONS
        if not fits or not all(_is_size(number) for number in (offset, *shape, *stride)):
            raise InputError('it declares a tensor of impossible shape, stride, or offset')
        count = math.prod(shape)
        last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        if (count > 0 and last >= storage.numel) or count > max(storage.numel, MAX_EXPANDED):
            raise InputError(f'it declares a tensor of shape {list(shape)} over {storage.numel} elements of data')
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.stride = stride

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    def load(self) -> torch.Tensor:
        return self.storage.load().as_strided(self.shape, self.stride, self.offset)

    detach = load  # For code that takes tensors of either kind.


class LazyArray:
    """A numpy array of numbers whose values are still in the file."""

    __slots__ = ('data', 'dtype', 'fortran_order', 'shape')

    def __init__(self, data: LazyBytes | MemoryBytes, dtype: np.dtype, shape: tuple[int, ...], fortran_order: bool) -> None:
        if len(shape) > MAX_DIMENSIONS or any(not _is_size(size) for size in shape):
            raise InputError('it declares an array of impossible shape')
        if math.prod(shape) * dtype.itemsize > data.length:
            raise InputError(f'it declares an array of shape {list(shape)} over {data.length} bytes of data')
        self.data = data
        self.dtype = dtype
        self.shape = shape
        self.fortran_order = fortran_order

    def load(self) -> np.ndarray:
        count = math.prod(self.shape)
        raw = self.data.load()
        if raw.nbytes != count * self.dtype.itemsize:
            raise InputError(f'it declares an array of shape {list(self.shape)} over {raw.nbytes} bytes of data')
        flat = np.frombuffer(raw, dtype=self.dtype) if count else np.empty(0, self.dtype)
        return flat.reshape(self.shape, order='F' if self.fortran_order else 'C')


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < 1 << 48


# ----------------------------------------------------------------------------
# Objects.


class ObjectNode:
    """An object that the file asks for and that was not made: the class by name, and its state.

    Attributes: `module` and `name` of the class, `args` of the constructor, `raw_state` as read (None without state).
    `state` is the same with every tensor and array in it loaded.
    """

    __slots__ = ('_state', 'args', 'module', 'name', 'raw_state')

    def __init__(self, module: str, name: str, args: tuple[Any, ...] = (), raw_state: Any = None) -> None:
        self.module = module
        self.name = name
        self.args = args
        self.raw_state = raw_state
        self._state: Any = None

    @property
    def state(self) -> Any:
        if self._state is None:
            self._state = materialize(self.raw_state)
        return self._state

    def group(self, name: str) -> dict[str, Any]:
        """The members `_parameters`, `_buffers`, or `_modules` of a torch.nn.Module."""
        members = self.raw_state.get(name, {}) if isinstance(self.raw_state, dict) else None
        if not isinstance(members, dict) or len(members) > MAX_MODULES:
            raise InputError(f'its {self.name} is not a module with {name}')
        if any(type(key) is not str or len(key) > MAX_NAME for key in members):
            raise InputError(f'the members of its {self.name} have no usable names')
        return members

    def __repr__(self) -> str:
        return f'<{self.module}.{self.name}, not made>'


class PersistentNode(ObjectNode):
    """A pickled object of a persistent class (torch_utils.persistence): name, source text, state. The text was not run."""

    __slots__ = ('module_src',)

    def __init__(self, class_name: str, module_src: str, raw_state: dict[Any, Any]) -> None:
        super().__init__('torch_utils.persistence', class_name, (), raw_state)
        self.module_src = module_src

    @property
    def class_name(self) -> str:
        return self.name

    def constructor_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`_init_args` and `_init_kwargs` as plain Python values."""
        args = materialize(self.raw_state.get('_init_args', ()))
        kwargs = materialize(self.raw_state.get('_init_kwargs', {}))
        if not isinstance(args, (tuple, list)) or not isinstance(kwargs, dict) or any(type(k) is not str for k in kwargs):
            raise InputError(f'{self.name} carries no usable construction arguments')
        return tuple(args), kwargs

    def tensors(self) -> dict[str, LazyTensor]:
        """Every parameter and buffer of the module under its state-dict name; nothing is loaded yet."""
        found: dict[str, LazyTensor] = {}
        visited = 0
        for prefix, node in self.modules():
            for group in ('_parameters', '_buffers'):
                members = node.group(group)
                visited += len(members)
                if visited > MAX_VALUES:
                    raise InputError(f'its {self.name} has weights without end')
                for name, member in members.items():
                    if isinstance(member, LazyTensor):
                        found[prefix + name] = member
                    elif member is not None:
                        raise InputError(f'{prefix}{name} of its {self.name} is not a tensor')
        return found

    def modules(self) -> Iterator[tuple[str, ObjectNode]]:
        """This module and all below it, each with the prefix of its names ('', 'mapping.', 'mapping.fc0.', ...)."""
        pending: list[tuple[str, ObjectNode, int]] = [('', self, 0)]
        for prefix, node, depth in pending:  # Grows while it is walked.
            if depth > MAX_DEPTH or len(pending) > MAX_MODULES:
                raise InputError(f'the modules of its {self.name} are nested too deeply')
            yield prefix, node
            for name, member in node.group('_modules').items():
                if isinstance(member, ObjectNode):
                    pending.append((f'{prefix}{name}.', member, depth + 1))
                elif member is not None:
                    raise InputError(f'{prefix}{name} of its {self.name} is not a module')


class LazyEntries(Mapping[Any, Any]):
    """A dict of a file whose values, also those of dicts in it, are loaded when they are asked for."""

    def __init__(self, raw: dict[Any, Any], done: dict[int, Any] | None = None) -> None:
        self._raw = raw
        self._done: dict[int, Any] = {} if done is None else done  # What one part of the file became, for all others.

    def __getitem__(self, key: object) -> Any:
        value = self._raw[key]
        return LazyEntries(value, self._done) if isinstance(value, dict) else _materialize(value, self._done, 0)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def raw(self, key: object) -> Any:
        """The value as read, or None."""
        return self._raw.get(key)


def materialize(value: object) -> Any:
    """The same containers with every tensor and array loaded, and argparse.Namespace for its nodes.

    Raises:
        InputError: Containers are nested too deeply, or the file ends early.
    """
    return _materialize(value, {}, 0)


def _materialize(value: object, done: dict[int, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InputError('its values are nested too deeply')
    if isinstance(value, (LazyTensor, LazyArray, LazyBytes, MemoryBytes)):
        if id(value) not in done:
            done[id(value)] = value.load()
        loaded = done[id(value)]
        return loaded.tobytes() if isinstance(value, (LazyBytes, MemoryBytes)) else loaded
    if isinstance(value, ObjectNode) and (value.module, value.name) == ('argparse', 'Namespace'):
        members = _materialize(value.raw_state or {}, done, depth + 1)
        if not isinstance(members, dict):
            raise InputError('its argparse.Namespace has no usable members')
        return argparse.Namespace(**{str(name): member for name, member in members.items()})
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, tuple):
        # A tuple can hold itself only by way of a list or dict, and those are remembered before their members are made.
        done[id(value)] = made = tuple(_materialize(member, done, depth + 1) for member in value)
        return made
    if isinstance(value, list):
        copy: list[Any] = []
        done[id(value)] = copy
        copy.extend(_materialize(member, done, depth + 1) for member in value)
        return copy
    table: dict[Any, Any] = {}
    done[id(value)] = table
    for key, member in value.items():
        table[key] = _materialize(member, done, depth + 1)
    return table
