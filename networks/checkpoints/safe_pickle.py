"""Reads pickles without running anything that they say.

A pickle is a program for a small stack machine. Python's own machine imports the names it meets and calls them. This one
knows a fixed list of names and has, for each of them, a piece of code of our own that makes plain data; no name is ever
imported and no object of the file is ever called. A file that asks for any other name is refused, and the error says
which. Every size is checked against the bytes that are there, so a small file cannot ask for much memory or time.

Opcodes: https://docs.python.org/3/library/pickletools.html and PEP 307, 3154, 574.
"""

import contextlib
import gc
import struct
from collections.abc import Callable, Iterator
from typing import Any

from networks.checkpoints.lazy_data import (
    MAX_DEPTH,
    MAX_NAME,
    Budget,
    ByteSource,
    LazyBytes,
    LazyStorage,
    ObjectNode,
    PersistentNode,
)
from networks.checkpoints.pickle_names import (
    LOAD_FROM_BYTES,
    MAKERS,
    MAX_INLINE_BYTES,
    MODULE_ALIASES,
    PLAIN_NAMES,
    DtypeNode,
    GlobalName,
    PartialArray,
    fill_array,
    is_known,
    usable_key,
)
from networks.errors import InputError

MAX_INTEGER_BYTES = 32
MAX_INLINE_TEXT = 1 << 22  # Longer text stays in the file; embedded source texts have about 10^5 characters.
CHUNK = 1 << 14  # Bytes read at once.

# What a malformed file can raise in the code below. Nothing else is caught.
MALFORMED = (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, struct.error)


class ForbiddenNames(InputError):
    """The file asks for names that are not on the list."""


class Cursor:
    """Reads one range of a file from front to back."""

    def __init__(self, source: ByteSource, position: int = 0, stop: int | None = None, chunk: int = CHUNK) -> None:
        self.source = source
        self.position = position
        self.stop = source.size if stop is None else stop
        self._chunk_size = chunk
        self._chunk = b''
        self._chunk_start = position

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        self._check(count)
        begin = self.position - self._chunk_start
        if begin + count > len(self._chunk):
            self._chunk = self.source.read(self.position, max(count, min(self._chunk_size, self.stop - self.position)))
            self._chunk_start = self.position
            begin = 0
        self.position += count
        piece = self._chunk[begin : begin + count]
        if len(piece) != count:
            raise InputError('it became shorter while it was read')
        return piece

    def skip(self, count: int) -> int:
        """Step over `count` bytes and return where they begin."""
        self._check(count)
        begin = self.position
        self.position += count
        if self.position > self._chunk_start + len(self._chunk):
            self._chunk, self._chunk_start = b'', self.position
        return begin

    def read_line(self) -> str:
        """Up to the next line feed, which is left out."""
        line = bytearray()
        while (byte := self.read(1)) != b'\n':
            line += byte
            if len(line) > MAX_NAME:
                raise InputError(f'it asks for a name of more than {MAX_NAME} characters')
        return line.decode()

    def _check(self, count: int) -> None:
        if count < 0 or self.position + count > self.stop:
            raise InputError('it ends too early: it is truncated or damaged')


# Opcodes that no checkpoint needs, in words for the error.
REFUSED_OPCODES = {
    b'\x82': 'a name from the extension registry',
    b'\x83': 'a name from the extension registry',
    b'\x84': 'a name from the extension registry',
    b'P': 'an external object',
    b'i': 'an old-style instance',
    b'o': 'an old-style instance',
    b'\x97': 'an external buffer',
    b'\x98': 'an external buffer',
    **dict.fromkeys((b'F', b'I', b'L', b'S', b'V', b'g', b'p'), 'values in the format of protocol 0'),
}


def read_pickle(
    cursor: Cursor,
    persistent_load: Callable[[Any], Any] | None = None,  # Resolves references to data outside of the stream.
    also_known: Callable[[str, str], bool] | None = None,  # Further names (module, name) whose objects become nodes.
    read_storage: Callable[[LazyBytes | bytes, Budget], LazyStorage] | None = None,  # Reads torch's streams within the stream.
) -> Any:
    """Read one pickle from where the cursor stands, and leave the cursor behind it.

    Returns:
        Plain containers and values, with the nodes of networks.checkpoints.lazy_data for everything else.

    Raises:
        ForbiddenNames: The stream asks for names that are not on the list. Nothing was run.
        InputError: The stream is not a pickle, is damaged, or is malicious.
    """
    if cursor.read(1) != b'\x80' or not 2 <= cursor.read(1)[0] <= 5:
        raise InputError('it is not a pickle of protocol 2 to 5')
    machine = _Machine(cursor, persistent_load, also_known, read_storage)
    try:
        with _without_cycle_search():
            value = machine.run()
    except MALFORMED as error:
        machine.refuse_forbidden()
        raise InputError(f'it is damaged near byte {cursor.position}') from error
    except ForbiddenNames:
        raise
    except InputError:
        machine.refuse_forbidden()
        raise
    machine.refuse_forbidden()
    return value


@contextlib.contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Python looks for unreachable cycles again and again while containers are made; here none become unreachable."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Machine:
    """The stack machine. Names off the list give inert nodes, so that the error can tell all of them."""

    def __init__(
        self,
        cursor: Cursor,
        persistent_load: Callable[[Any], Any] | None,
        also_known: Callable[[str, str], bool] | None,
        read_storage: Callable[[LazyBytes | bytes, Budget], LazyStorage] | None,
    ) -> None:
        self.cursor = cursor
        self.persistent_load = persistent_load
        self.read_storage = read_storage
        self.also_known = also_known or (lambda module, name: False)
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.forbidden: dict[str, None] = {}
        self.storages: dict[int, LazyStorage] = {}
        self.kept: list[Any] = []  # Owners of the identities in `storages`.

    def run(self) -> Any:
        read, opcodes, step = self.cursor.read, OPCODES, self.cursor.source.budget.step
        while (opcode := read(1)) != b'.':
            action = opcodes.get(opcode)
            if action is None:
                self._refuse_opcode(opcode)
            else:
                action(self)
            step()
        return self.stack.pop()

    def refuse_forbidden(self) -> None:
        if self.forbidden:
            names = list(self.forbidden)
            shown = ', '.join(names[:6]) + (f', and {len(names) - 6} more' if len(names) > 6 else '')
            raise ForbiddenNames(f'it asks for {shown}, which no file of weights needs')

    def _refuse_opcode(self, opcode: bytes) -> None:
        if opcode in REFUSED_OPCODES:
            raise InputError(f'it asks for {REFUSED_OPCODES[opcode]}, which no checkpoint needs')
        raise InputError(f'byte {self.cursor.position - 1} is not part of a pickle: it is no pickle, or damaged')

    # Numbers and text.

    def unpack(self, form: str, size: int) -> Any:
        return struct.unpack(form, self.cursor.read(size))[0]

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_integer(self, size: int) -> None:
        if not 0 <= size <= MAX_INTEGER_BYTES:
            raise InputError(f'it holds a number of {size} bytes')
        self.stack.append(int.from_bytes(self.cursor.read(size), 'little', signed=True))

    def push_text(self, size: int) -> None:
        if size > MAX_INLINE_TEXT:
            self.stack.append(LazyBytes(self.cursor.source, self.cursor.skip(size), size))
        else:
            self.stack.append(self.cursor.read(size).decode())

    def push_bytes(self, size: int) -> None:
        if size > MAX_INLINE_BYTES:
            self.stack.append(LazyBytes(self.cursor.source, self.cursor.skip(size), size))
        else:
            self.stack.append(self.cursor.read(size))

    # Stack, marks, and memo.

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def push_mark(self) -> None:
        if len(self.marks) >= MAX_DEPTH:
            raise InputError('its values are nested without end')
        self.marks.append(self.stack)
        self.stack = []

    def pop_any(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def push_tuple(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) != count:
            raise IndexError(count)
        self.stack[-count:] = [items]

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    # Containers.

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise InputError('it appends to something that is not a list')
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise InputError('it sets items of something that is not a dict')
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[usable_key(key)] = value

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, set):
            raise InputError('it adds to something that is not a set')
        target.update(map(usable_key, items))

    # Names and objects.

    def push_name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise InputError('it asks for a name that is not text')
        if len(module) > MAX_NAME or len(name) > MAX_NAME:
            raise InputError(f'it asks for a name of more than {MAX_NAME} characters')
        module = MODULE_ALIASES.get(module, module)
        if not is_known(module, name) and not self.also_known(module, name):
            self.forbidden.setdefault(f'{module}.{name}'.encode('ascii', 'backslashreplace').decode())
        self.stack.append(GlobalName(module, name))

    def make(self, callee: Any, args: Any) -> None:
        if not isinstance(callee, GlobalName) or not isinstance(args, tuple):
            raise InputError('it calls something that is not a name')
        maker = MAKERS.get((callee.module, callee.name))
        if (callee.module, callee.name) == LOAD_FROM_BYTES:
            self.stack.append(self.load_storage(args[0]))
        elif maker is not None:
            if args and isinstance(args[0], str):  # What the call may copy counts as read again.
                self.cursor.source.budget.charge(len(args[0]))
            elif args and isinstance(args[0], (list, tuple, dict)):
                self.cursor.source.budget.step(len(args[0]))
            self.stack.append(maker(args))
        elif (callee.module, callee.name) in PLAIN_NAMES:
            raise InputError(f'it calls {callee.module}.{callee.name}, which is no way to make a value')
        else:
            self.stack.append(ObjectNode(callee.module, callee.name, args))  # Refused at the end, with all others.

    def make_with_keywords(self) -> None:
        if self.stack.pop():
            raise InputError('it makes an object from keyword arguments, which no checkpoint does')
        self.make(*_swap_pop(self))

    def load_storage(self, data: Any) -> LazyStorage:
        """What torch.storage._load_from_bytes stands for. The real one would run what the inner stream says."""
        if not isinstance(data, (bytes, LazyBytes)):
            raise InputError('it has something else where the data of a tensor should be')
        if self.read_storage is None:
            raise InputError('it holds the data of a tensor within the data of a tensor')
        if id(data) not in self.storages:  # The same bytes are one storage, however often the stream asks for it.
            self.storages[id(data)] = self.read_storage(data, self.cursor.source.budget)
            self.kept.append(data)
        return self.storages[id(data)]

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, PartialArray):
            array = fill_array(state)
            self.stack[-1] = target.array = array
        elif isinstance(target, DtypeNode):
            order = state[1]
            if order not in ('<', '>', '|', '='):
                raise InputError('it holds numpy data of unknown byte order')
            target.dtype = target.dtype.newbyteorder(order)
        elif isinstance(target, ObjectNode) and not isinstance(target, PersistentNode):
            target.raw_state = state
        elif not isinstance(target, dict):  # State of a dict is what torch notes beside a state dict.
            raise InputError('it sets the state of something that has none')

    def push_reference(self) -> None:
        reference = self.stack.pop()
        if self.persistent_load is None:
            raise InputError('it refers to objects outside of the file, which no checkpoint does')
        self.stack.append(self.persistent_load(reference))


def _get(machine: _Machine, index: int) -> None:
    value = machine.memo[index]
    # A filled array takes the place of the one that the memo remembers.
    machine.stack.append(value.array if isinstance(value, PartialArray) and value.array is not None else value)


def _swap_pop(machine: _Machine) -> tuple[Any, Any]:
    last = machine.stack.pop()
    return machine.stack.pop(), last


OPCODES: dict[bytes, Callable[[_Machine], Any]] = {
    b'\x80': lambda m: m.cursor.read(1),  # PROTO
    b'\x95': lambda m: m.cursor.read(8),  # FRAME
    b'N': lambda m: m.stack.append(None),
    b'\x88': lambda m: m.stack.append(True),
    b'\x89': lambda m: m.stack.append(False),
    b'J': lambda m: m.stack.append(m.unpack('<i', 4)),  # BININT
    b'K': lambda m: m.stack.append(m.cursor.read(1)[0]),  # BININT1
    b'M': lambda m: m.stack.append(m.unpack('<H', 2)),  # BININT2
    b'\x8a': lambda m: m.push_integer(m.cursor.read(1)[0]),  # LONG1
    b'\x8b': lambda m: m.push_integer(m.unpack('<i', 4)),  # LONG4
    b'G': lambda m: m.stack.append(m.unpack('>d', 8)),  # BINFLOAT
    b'\x8c': lambda m: m.push_text(m.cursor.read(1)[0]),  # SHORT_BINUNICODE
    b'X': lambda m: m.push_text(m.unpack('<I', 4)),  # BINUNICODE
    b'\x8d': lambda m: m.push_text(m.unpack('<Q', 8)),  # BINUNICODE8
    b'U': lambda m: m.push_text(m.cursor.read(1)[0]),  # SHORT_BINSTRING: text of Python 2, as in the first files of torch
    b'T': lambda m: m.push_text(m.unpack('<i', 4)),  # BINSTRING
    b'C': lambda m: m.push_bytes(m.cursor.read(1)[0]),  # SHORT_BINBYTES
    b'B': lambda m: m.push_bytes(m.unpack('<I', 4)),  # BINBYTES
    b'\x8e': lambda m: m.push_bytes(m.unpack('<Q', 8)),  # BINBYTES8
    b'\x96': lambda m: m.push_bytes(m.unpack('<Q', 8)),  # BYTEARRAY8
    b'0': lambda m: m.pop_any(),  # POP
    b'1': lambda m: m.pop_mark(),  # POP_MARK
    b'2': lambda m: m.stack.append(m.stack[-1]),  # DUP
    b'(': lambda m: m.push_mark(),  # MARK
    b')': lambda m: m.stack.append(()),  # EMPTY_TUPLE
    b'\x85': lambda m: m.push_tuple(1),  # TUPLE1
    b'\x86': lambda m: m.push_tuple(2),  # TUPLE2
    b'\x87': lambda m: m.push_tuple(3),  # TUPLE3
    b't': lambda m: m.push(tuple(m.pop_mark())),  # TUPLE
    b']': lambda m: m.stack.append([]),  # EMPTY_LIST
    b'l': lambda m: m.push(m.pop_mark()),  # LIST
    b'a': lambda m: m.append([m.stack.pop()]),  # APPEND
    b'e': lambda m: m.append(m.pop_mark()),  # APPENDS
    b'}': lambda m: m.stack.append({}),  # EMPTY_DICT
    b's': lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),  # SETITEM
    b'u': lambda m: m.set_items(m.pop_mark()),  # SETITEMS
    b'\x8f': lambda m: m.stack.append(set()),  # EMPTY_SET
    b'\x90': lambda m: m.add_items(m.pop_mark()),  # ADDITEMS
    b'\x91': lambda m: m.push({usable_key(key) for key in m.pop_mark()}),  # FROZENSET
    b'q': lambda m: m.memoize(m.cursor.read(1)[0]),  # BINPUT
    b'r': lambda m: m.memoize(m.unpack('<I', 4)),  # LONG_BINPUT
    b'\x94': lambda m: m.memoize(len(m.memo)),  # MEMOIZE
    b'h': lambda m: _get(m, m.cursor.read(1)[0]),  # BINGET
    b'j': lambda m: _get(m, m.unpack('<I', 4)),  # LONG_BINGET
    b'c': lambda m: m.push_name(m.cursor.read_line(), m.cursor.read_line()),  # GLOBAL
    b'\x93': lambda m: m.push_name(*_swap_pop(m)),  # STACK_GLOBAL
    b'R': lambda m: m.make(*_swap_pop(m)),  # REDUCE
    b'\x81': lambda m: m.make(*_swap_pop(m)),  # NEWOBJ
    b'\x92': lambda m: m.make_with_keywords(),  # NEWOBJ_EX
    b'b': lambda m: m.build(),  # BUILD
    b'Q': lambda m: m.push_reference(),  # BINPERSID
}
