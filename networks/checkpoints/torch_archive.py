"""Reads what torch.save writes, in both of its forms, without torch.load: nothing in the file is run.

The newer form is a zip archive with the pickle `<name>/data.pkl` and one uncompressed entry `<name>/data/<key>` for each
storage. The older form (before torch 1.6, and for storages inside NVIDIA's pickles still) is a sequence of pickles: magic
number, protocol, system, the object, the keys of the storages; then for each key the number of elements and the elements.
TorchScript archives are zip archives of the newer form with a program beside the data; their tensors can be had without it.
"""

import io
import struct
from collections.abc import Callable
from typing import Any

import torch

from networks.checkpoints import zip_entries
from networks.checkpoints.lazy_data import (
    MAX_DEPTH,
    MAX_MODULES,
    Budget,
    ByteSource,
    LazyBytes,
    LazyStorage,
    LazyTensor,
    ObjectNode,
)
from networks.checkpoints.pickle_names import STORAGE_DTYPES, GlobalName
from networks.checkpoints.safe_pickle import MALFORMED, Cursor, read_pickle
from networks.errors import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b'\x80\x02\x8a\x0a' + LEGACY_MAGIC.to_bytes(10, 'little') + b'.'
LEGACY_PROTOCOL = 1001
ZIP_START = zip_entries.LOCAL_HEADER_START
MAX_ENTRIES = 200_000
MAX_DIRECTORY_BYTES = 1 << 24

# ----------------------------------------------------------------------------
# The older form.


def read_legacy(source: ByteSource, start: int = 0, stop: int | None = None, *, chunk: int = 1 << 14) -> Any:
    """The object in the given range of the file, with its tensors still there.

    Raises:
        InputError: The range does not hold such an object, or is damaged.
    """
    cursor = Cursor(source, start, stop, chunk)
    storages: dict[str, LazyStorage] = {}

    def find_storage(reference: Any) -> LazyStorage:
        key, dtype, numel = _storage_reference(reference)
        if len(reference) > 5 and reference[5] is not None:
            raise InputError('it holds a storage that is part of another storage, as torch wrote before version 0.4')
        if key not in storages:
            storages[key] = LazyStorage(dtype, numel)
        return storages[key]

    try:
        if read_pickle(cursor) != LEGACY_MAGIC or read_pickle(cursor) != LEGACY_PROTOCOL:
            raise InputError('it is not what torch.save writes')
        if not read_pickle(cursor)['little_endian']:
            raise InputError('its numbers are big-endian')
        value = read_pickle(cursor, find_storage)
        for key in read_pickle(cursor):
            storage = storages[key]
            (numel,) = struct.unpack('<q', cursor.read(8))
            if numel != storage.numel:
                raise InputError(f'it declares {storage.numel} elements for a storage of {numel}')
            length = numel * storage.dtype.itemsize
            storage.data = LazyBytes(source, cursor.skip(length), length)
    except MALFORMED as error:
        raise InputError(f'it is damaged near byte {cursor.position}') from error
    return value


def read_plain_pickle(source: ByteSource) -> Any:
    """The object in a pickle that no torch.save made; its tensors, streams of the older form within it, are still there.

    Raises:
        InputError: As of `read_pickle`.
    """
    return read_pickle(Cursor(source), read_storage=_read_inner_storage)


def _read_inner_storage(data: LazyBytes | bytes, budget: Budget) -> LazyStorage:
    """The storage inside an argument of torch.storage._load_from_bytes."""
    if isinstance(data, LazyBytes) and not data.is_text:
        value = read_legacy(data.source, data.offset, data.offset + data.length, chunk=1024)
    else:
        raw = data.load().tobytes() if isinstance(data, LazyBytes) else data
        value = read_legacy(ByteSource(io.BytesIO(raw), budget))
    if not isinstance(value, LazyStorage):
        raise InputError('it has something else where the data of a tensor should be')
    return value


def _storage_reference(reference: Any) -> tuple[str, torch.dtype, int]:
    """Key, type, and number of elements out of ('storage', type, key, device, number, ...)."""
    kind, storage_type, key, _device, numel = reference[:5]
    if kind != 'storage' or not isinstance(storage_type, GlobalName) or type(key) is not str or type(numel) is not int:
        raise InputError('it refers to something else than the data of a tensor')
    return key, STORAGE_DTYPES[storage_type.name], numel


# ----------------------------------------------------------------------------
# The newer form.


def read_zip(source: ByteSource) -> Any:
    """The object in a zip archive of torch.save, with its tensors still in the file.

    Raises:
        InputError: The archive is damaged, compressed, or not one of torch.save.
    """
    try:
        entries = _list_entries(source)
        prefix = _find_prefix(entries)
        if f'{prefix}constants.pkl' in entries:
            raise InputError('it is a TorchScript archive, which holds a program; save the state dict instead')
        return _read_entry(source, entries, prefix)
    except MALFORMED as error:
        raise InputError('its zip directory is damaged') from error


def is_script(source: ByteSource) -> bool:
    """Whether a zip archive is one of TorchScript (torch.jit.save).

    Raises:
        InputError: The archive is damaged, or not one of torch.
    """
    try:
        entries = _list_entries(source)
        return f'{_find_prefix(entries)}constants.pkl' in entries
    except MALFORMED as error:
        raise InputError('its zip directory is damaged') from error


def read_script(source: ByteSource) -> dict[str, LazyTensor]:
    """The tensors of a TorchScript archive under their state-dict names, in the order of the module's attributes.

    The archive's program is never read: only the module tree in `data.pkl`, where every module of the program is a node
    with its attributes.

    Raises:
        InputError: The archive is damaged, or not one of TorchScript.
    """
    try:
        entries = _list_entries(source)
        root = _read_entry(source, entries, _find_prefix(entries), _is_script_name)
    except MALFORMED as error:
        raise InputError('its zip directory is damaged') from error
    if not isinstance(root, ObjectNode):
        raise InputError('it is a TorchScript archive without a module')
    found: dict[str, LazyTensor] = {}
    _collect_tensors(root, '', found, [0], 0)
    return found


def _is_script_name(module: str, name: str) -> bool:
    # Classes of the archive's own program, and what TorchScript wraps lists of numbers in.
    return module == '__torch__' or module.startswith('__torch__.') or module == 'torch.jit._pickle'


def _collect_tensors(node: ObjectNode, prefix: str, found: dict[str, LazyTensor], visited: list[int], depth: int) -> None:
    visited[0] += 1
    if depth > MAX_DEPTH or visited[0] > MAX_MODULES:
        raise InputError('its modules are nested too deeply')
    state = node.raw_state if isinstance(node.raw_state, dict) else {}
    for name, member in state.items():
        if isinstance(member, LazyTensor):
            found[f'{prefix}{name}'] = member
        elif isinstance(member, ObjectNode):
            _collect_tensors(member, f'{prefix}{name}.', found, visited, depth + 1)


def _find_prefix(entries: dict[str, tuple[int, int, int, int]]) -> str:
    pickles = [name for name in entries if name == 'data.pkl' or name.endswith('/data.pkl')]
    if len(pickles) != 1:
        names = [name.rsplit('/', 1)[-1].lower() for name in entries]
        if 'dataset.json' in names and any(name.endswith('.npy') for name in names):
            raise InputError('it is a latent data set, and a file of weights is needed here')
        if any(name.endswith(('.png', '.jpg', '.jpeg', '.webp')) for name in names):
            raise InputError('it is a zip of images, and a file of weights is needed here')
        if names and all(name.endswith('.npy') for name in names):
            raise InputError('it holds arrays of numpy (.npz), perhaps W+ codes, and a file of weights is needed here')
        raise InputError('it is a zip archive, but not one that torch.save writes')
    return pickles[0][: -len('data.pkl')]


def _read_entry(
    source: ByteSource,
    entries: dict[str, tuple[int, int, int, int]],
    prefix: str,
    also_known: Callable[[str, str], bool] | None = None,
) -> Any:
    """What data.pkl holds."""
    byteorder = entries.get(f'{prefix}byteorder')
    if byteorder is not None and source.read(*_locate(source, byteorder)) != b'little':
        raise InputError('its numbers are big-endian')

    storages: dict[str, LazyStorage] = {}

    def find_storage(reference: Any) -> LazyStorage:
        key, dtype, numel = _storage_reference(reference)
        if key not in storages:
            offset, length = _locate(source, entries[f'{prefix}data/{key}'])
            if length != numel * dtype.itemsize:
                raise InputError(f'it declares {numel} elements for a storage of {length} bytes')
            storages[key] = LazyStorage(dtype, numel, LazyBytes(source, offset, length))
        return storages[key]

    begin, size = _locate(source, entries[f'{prefix}data.pkl'])
    return read_pickle(Cursor(source, begin, begin + size), find_storage, also_known)


def _list_entries(source: ByteSource) -> dict[str, tuple[int, int, int, int]]:
    """(method, compressed size, size, offset of the local header) of each entry.

    https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.12 to 4.3.16. The module zipfile would read
    a hostile directory into memory whatever its size.
    """
    tail_start = max(source.size - 22 - 0xFFFF, 0)
    tail = source.read(tail_start, source.size - tail_start)
    end = tail.rfind(b'PK\x05\x06')
    if end < 0:
        raise InputError('it is a zip archive without its end: it is truncated')
    count, size, offset = struct.unpack('<HII', tail[end + 10 : end + 20])
    locator = tail[end - 20 : end] if end >= 20 else b''
    if locator[:4] == b'PK\x06\x07':
        wide = source.read(struct.unpack('<Q', locator[8:16])[0], 56)
        count, size, offset = struct.unpack('<QQQ', wide[32:56])
    if count > MAX_ENTRIES or size > MAX_DIRECTORY_BYTES or offset + size > source.size:
        raise InputError(f'its zip directory declares {count} entries in {size} bytes')

    directory = source.read(offset, size)
    entries: dict[str, tuple[int, int, int, int]] = {}
    position = 0
    for _ in range(count):
        fields = struct.unpack('<4s6H3I5H2I', directory[position : position + 46])
        signature, method, packed, plain, header = fields[0], fields[4], fields[8], fields[9], fields[16]
        name_length, extra_length, comment_length = fields[10:13]
        if signature != b'PK\x01\x02':
            raise ValueError(signature)
        name_end = position + 46 + name_length
        name = directory[position + 46 : name_end].decode('utf-8')
        packed, plain, header = _wide_sizes(directory[name_end : name_end + extra_length], plain, packed, header)
        entries[name] = (method, packed, plain, header)
        position = name_end + extra_length + comment_length
    return entries


def _wide_sizes(extra: bytes, plain: int, packed: int, header: int) -> tuple[int, int, int]:
    """Packed size, plain size, and header offset, from the zip64 field where the short field is full."""
    wide: list[int] = []
    while len(extra) >= 4:
        tag, length = struct.unpack('<HH', extra[:4])
        if tag == 1:
            wide = list(struct.unpack(f'<{length // 8}Q', extra[4 : 4 + length // 8 * 8]))
        extra = extra[4 + length :]
    values = [wide.pop(0) if value == 0xFFFFFFFF else value for value in (plain, packed, header)]
    return values[1], values[0], values[2]


def _locate(source: ByteSource, entry: tuple[int, int, int, int]) -> tuple[int, int]:
    """Offset and length of an entry's bytes."""
    method, packed, plain, header = entry
    if method != 0 or packed != plain:
        raise InputError('it is a compressed zip archive, and torch.save never compresses: unpack and save it again')
    try:
        offset = zip_entries.first_byte(source.read(header, zip_entries.LOCAL_HEADER_BYTES), header)
    except ValueError:
        offset = source.size
    if offset + plain > source.size:
        raise InputError('an entry of its zip archive lies outside of the file: it is truncated or damaged')
    return offset, plain
