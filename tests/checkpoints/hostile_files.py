"""Pickles and archives that try to run code or to exhaust the reader. Each would leave a canary file if it ran.

`programs(canary)` gives the streams by name. They are assembled from opcodes, because no pickler writes such things.
"""

import copyreg
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from networks.checkpoints import torch_archive


class Runs:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., Any], *args: Any, state: Any = None) -> None:
        self.function, self.args, self.state = function, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


class Registered:
    """Known to the extension registry while `programs` runs."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Registered, ()


def text(value: str) -> bytes:
    """Opcodes that push text."""
    raw = value.encode()
    return b'X' + struct.pack('<I', len(raw)) + raw


def data(value: bytes) -> bytes:
    """Opcodes that push bytes."""
    return b'B' + struct.pack('<I', len(value)) + value


def call(module: str, name: str, *args: bytes) -> bytes:
    """Opcodes that call a name with arguments."""
    return text(module) + text(name) + b'\x93(' + b''.join(args) + b'tR'


def stream(*opcodes: bytes) -> bytes:
    """A whole pickle."""
    return b'\x80\x04' + b''.join(opcodes) + b'.'


def generator(state: bytes) -> bytes:
    """Opcodes of a snapshot with a persistent generator of this state."""
    meta = b'}(' + text('type') + text('class') + text('version') + b'K\x06' + text('module_src') + text('')
    meta += text('class_name') + text('Generator') + text('state') + state + b'u'
    return b'}(' + text('G_ema') + call('torch_utils.persistence', '_reconstruct_persistent_obj', meta) + b'u'


def torch_zip(pickled: bytes, *, compression: int = zipfile.ZIP_STORED, storages: dict[str, bytes] | None = None) -> bytes:
    """An archive of torch.save with this data.pkl."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', pickled)
        archive.writestr('archive/byteorder', 'little', zipfile.ZIP_STORED)
        archive.writestr('archive/version', '3\n', zipfile.ZIP_STORED)
        for key, value in (storages or {}).items():
            archive.writestr(f'archive/data/{key}', value)
    return file.getvalue()


def torch_legacy(pickled: bytes) -> bytes:
    """A file of torch.save as before version 1.6, with this object."""
    system = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'short': 2, 'int': 4, 'long': 4}}
    parts = [torch_archive.LEGACY_START, pickle.dumps(torch_archive.LEGACY_PROTOCOL, 2), pickle.dumps(system, 2)]
    return b''.join([*parts, pickled, pickle.dumps([], 2)])


def programs(canary: str) -> dict[str, bytes]:
    """Streams that run code in a pickle reader that is not careful."""
    command = f'touch {canary}'
    system = call('os', 'system', text(command))
    plain = pickle.dumps(Runs(os.system, command))
    source = f'open({canary!r}, "w")'
    found: dict[str, bytes] = {
        'reduce': plain,
        'reduce of protocol 0': pickle.dumps(Runs(os.system, command), 0),
        'reduce of protocol 2': pickle.dumps(Runs(os.system, command), 2),
        'reduce in the generator': stream(generator(b'}(' + text('_parameters') + system + b'u')),
        'reduce in an unused entry': stream(generator(b'}') + b'(' + text('D') + system + b'u'),
        'reduce as key': stream(b'}(' + system + b'Nu'),
        'reduce that is thrown away': stream(system + b'0' + generator(b'}')),
        'eval': stream(call('builtins', 'eval', text(source))),
        'exec': stream(call('builtins', 'exec', text(source))),
        'Python 2 names': stream(call('__builtin__', 'eval', text(source))),
        'getattr chain': stream(
            call('builtins', 'getattr', call('builtins', '__import__', text('os')), text('system')), b'(' + text(command) + b'tR'
        ),
        'attrgetter': stream(
            call('operator', 'attrgetter', text('system')),
            b'(',
            call('builtins', '__import__', text('os')),
            b'tR(' + text(command) + b'tR',
        ),
        'methodcaller': stream(
            call('operator', 'methodcaller', text('system'), text(command)),
            b'(',
            call('builtins', '__import__', text('os')),
            b'tR',
        ),
        'functools.partial': stream(call('functools', 'partial', text('os') + text('system') + b'\x93', text(command)), b')R'),
        'functools.reduce': stream(
            call('functools', 'reduce', text('builtins') + text('eval') + b'\x93', b'](}}e', text(source))
        ),
        'numpy testing': stream(call('numpy.testing._private.utils', 'runstring', text(source), b'}')),
        'numpy load': stream(call('numpy', 'load', text(canary), b'N', b'\x88')),
        'numpy object scalar': stream(call('numpy.core.multiarray', 'scalar', call('numpy', 'dtype', text('O8')), data(plain))),
        'numpy object array': pickle.dumps(np.array([Runs(os.system, command)], dtype=object)),
        'dotted name': stream(call('torch_utils.persistence', 'inspect.os.system', text(command))),
        'dotted name of a layer': stream(call('torch.nn.modules.module', 'inspect.os.system', text(command))),
        'function of torch.nn': stream(call('torch.nn.modules.utils', 'os', text(command)), b'(' + text(command) + b'tR'),
        'name put together at run time': stream(
            text('os') + b'\x94' + text('system') + b'\x94h\x00h\x01\x93' + b'\x94', b'h\x02' + text(command) + b'\x85R'
        ),
        'name that is not text': stream(b'K\x01K\x02\x93(' + text(command) + b'tR'),
        'call of a value': stream(text('os') + b'(' + text(command) + b'tR'),
        'object made of a value': stream(text('os') + b'(' + text(command) + b't\x81'),
        'old-style instance': b'\x80\x02(' + text(command) + b'ios\nsystem\n.',
        'old-style object': b'\x80\x02(cos\nsystem\n' + text(command) + b'o.',
        'keyword arguments': stream(text('os') + text('system') + b'\x93)}(' + text('command') + text(command) + b'u\x92'),
        'state of a dict': stream(call('collections', 'OrderedDict'), b'}(' + text('items') + system + b'ub'),
        'state by __setstate__': stream(text('torch_utils.persistence') + text('Decorator') + b'\x93)\x81', system, b'b'),
        'persistent id of a pickle': stream(text('os.system') + b'Q'),
        'persistent id as text': b'\x80\x02Pos.system\n.',
        'module source': stream(
            generator(b'}').replace(text('module_src') + text(''), text('module_src') + text(source)),
            b'(' + text('G') + system + b'u',
        ),
        'import hook': stream(call('torch_utils.persistence', 'import_hook', text('os') + text('system') + b'\x93')),
        'dnnlib call': stream(call('dnnlib.util', 'call_func_by_name', text(command))),
        'dnnlib name': stream(call('dnnlib.util', 'get_obj_by_name', text('os.system')), b'(' + text(command) + b'tR'),
        'torch.load': stream(call('torch.serialization', 'load', text(canary))),
        'torch.hub': stream(call('torch.hub', 'load', text(canary), text('x'))),
        'storage that is a program': stream(
            generator(
                b'}('
                + text('_parameters')
                + b'}('
                + text('w')
                + call(
                    'torch._utils',
                    '_rebuild_tensor_v2',
                    call('torch.storage', '_load_from_bytes', data(plain)),
                    b'K\x00',
                    b'K\x01\x85',
                    b'K\x01\x85',
                    b'\x89',
                    b'N',
                )
                + b'uu'
            )
        ),
        'storage with a program in it': stream(call('torch.storage', '_load_from_bytes', data(torch_legacy(plain)))),
        'storage with an archive in it': stream(call('torch.storage', '_load_from_bytes', data(torch_zip(plain)))),
        'storage in protocol 2': pickle.dumps(Runs(torch.storage._load_from_bytes, torch_legacy(plain)), 2),
        'storage in a storage': stream(
            call(
                'torch.storage',
                '_load_from_bytes',
                data(torch_legacy(stream(call('torch.storage', '_load_from_bytes', data(plain))))),
            )
        ),
        'archive': torch_zip(plain),
        'archive in protocol 2': torch_zip(pickle.dumps({'g_ema': Runs(os.system, command)}, 2)),
        'archive with a persistent id': torch_zip(stream(b'(' + text('storage') + system + text('0') + text('cpu') + b'K\x01tQ')),
        'archive with a module as storage type': torch_zip(
            stream(b'(' + text('storage') + text('os') + text('system') + b'\x93' + text('0') + text('cpu') + b'K\x01tQ'),
            storages={'0': b'\0\0\0\0'},
        ),
        'older archive': torch_legacy(pickle.dumps({'state_dict': Runs(os.system, command)}, 2)),
        'older archive, in its system': torch_archive.LEGACY_START + pickle.dumps(1001, 2) + plain,
        'our snapshot': pickle.dumps(
            {
                'format': 'stylevideogan-snapshot',
                'format_version': 1,
                'G': None,
                'G_ema': Runs(os.system, command),
                'C': None,
                'image_generator': {},
            }
        ),
        'our encoder': pickle.dumps({'encoder': Runs(exec, source)}),
        'TensorFlow network': stream(text('dnnlib.tflib.network') + text('Network') + b'\x93)\x81', system, b'b'),
        'TensorFlow tuple': stream(system + system + system + b'\x87'),
    }
    copyreg.add_extension(__name__, 'Registered', 0x7F000001)
    try:
        found['extension registry'] = pickle.dumps(Registered(), 4)
    finally:
        copyreg.remove_extension(__name__, 'Registered', 0x7F000001)
    for code, size in ((b'\x82', 1), (b'\x83', 2), (b'\x84', 4)):
        found[f'extension code of {size} bytes'] = stream(code + b'\x01' + b'\0' * (size - 1))
    return found
