"""The readers that run nothing: hostile files, damaged files, malicious files, and equality with Python's own reader."""

import argparse
import collections
import io
import pickle
import random
import struct
import subprocess
import sys
import time
import zipfile

import hostile_files as hostile
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dnnlib
from networks import checkpoints, stylegan2
from networks.checkpoints import loading, torch_archive
from networks.checkpoints.lazy_data import ByteSource, LazyEntries, materialize
from networks.errors import InputError

LOADERS = (checkpoints.load_generator, checkpoints.load_encoder, checkpoints.load_snapshot)
NAMES = sorted(hostile.programs(''))


def read(raw):
    return materialize(torch_archive.read_plain_pickle(ByteSource(io.BytesIO(raw))))


@pytest.fixture(scope='module')
def small_pickle():
    """A snapshot in NVIDIA's layout."""
    torch.manual_seed(0)
    G = stylegan2.Generator(4, 0, 4, 8, 3, mapping_kwargs={'num_layers': 1}, synthesis_kwargs={'channel_max': 4})
    file = io.BytesIO()
    pickle.dump({'G': None, 'G_ema': G.eval(), 'training_set_kwargs': dnnlib.EasyDict(path='x')}, file, protocol=4)
    return file.getvalue()


# ----------------------------------------------------------------------------
# Code.


@pytest.mark.parametrize('name', NAMES)
def test_program_is_refused_and_not_run(name, tmp_path):
    canary = tmp_path / 'canary'
    path = tmp_path / 'file.pkl'
    path.write_bytes(hostile.programs(str(canary))[name])
    for load in LOADERS:
        with pytest.raises(InputError, match=r'file\.pkl: '):
            load(path)
        assert not canary.exists()


def test_the_same_programs_run_in_a_careless_reader(tmp_path, root):
    """The corpus is live ammunition: Python's own reader leaves canaries."""
    for index, name in enumerate(NAMES):
        (tmp_path / f'{index}.pkl').write_bytes(hostile.programs(str(tmp_path / f'{index}.canary'))[name])
    code = f"""
import contextlib, pickle, sys, torch
for index in range({len(NAMES)}):
    path = f'{{sys.argv[1]}}/{{index}}.pkl'
    with contextlib.suppress(BaseException), open(path, 'rb') as file:
        pickle.load(file)
    with contextlib.suppress(BaseException):
        torch.load(path, weights_only=False)
"""
    subprocess.run([sys.executable, '-c', code, tmp_path], cwd=root, capture_output=True, timeout=600)
    live = {name for index, name in enumerate(NAMES) if (tmp_path / f'{index}.canary').exists()}
    print(f'{len(live)} of {len(NAMES)} ran; not: {sorted(set(NAMES) - live)}')
    assert len(live) >= 25
    assert live >= {
        'reduce',
        'eval',
        'functools.partial',
        'getattr chain',
        'reduce in the generator',
        'dotted name',
        'storage that is a program',
        'storage with a program in it',
        'old-style instance',
        'archive',
    }


def test_refusal_names_what_the_file_asks_for_and_the_option(tmp_path):
    path = tmp_path / 'fork.pkl'
    path.write_bytes(hostile.stream(hostile.call('my_fork.networks', 'Thing'), hostile.call('os', 'system'), b'0'))
    with pytest.raises(InputError) as caught:
        checkpoints.load_generator(path)
    message = str(caught.value)
    assert 'my_fork.networks.Thing, os.system' in message
    assert 'nothing of it was run' in message
    assert '--trust-pickle' in message


def test_names_cannot_write_to_the_terminal(tmp_path):
    path = tmp_path / 'ansi.pkl'
    path.write_bytes(hostile.stream(hostile.call('os\x1b[2J', 'sys\ntem')))
    with pytest.raises(InputError) as caught:
        checkpoints.load_generator(path)
    assert str(caught.value).isprintable()


# ----------------------------------------------------------------------------
# Malicious files. None of them may take longer than reading a real one, whatever they declare.


def nested(opcodes, count):
    return hostile.stream(b'N' + opcodes * count)


def doubling(levels):
    """[[...], [...]] where both members are the same list: 2^levels leaves when written out."""
    body = b']\x94' + b''.join(b'](h' + bytes([level]) + b'h' + bytes([level]) + b'e\x94' for level in range(levels))
    return hostile.stream(b'}(' + hostile.text('G_ema') + body + b'u')


def tensor(shape, stride, numel=4):
    """A rosinality state with one tensor of that shape over `numel` elements."""

    def number(value):
        return b'\x8a\x08' + struct.pack('<q', value)

    storage = b'(' + hostile.text('storage') + hostile.text('torch') + hostile.text('FloatStorage') + b'\x93'
    storage += hostile.text('0') + hostile.text('cpu') + number(numel) + b'tQ'
    sizes, steps = (b'(' + b''.join(map(number, values)) + b't' for values in (shape, stride))
    made = hostile.call('torch._utils', '_rebuild_tensor_v2', storage, b'K\x00', sizes, steps, b'\x89', b'N')
    names = ('style.1.weight', 'conv1.conv.weight', 'to_rgb1.conv.weight')
    state = b'}(' + b''.join(hostile.text(name) + made for name in names) + b'u'
    return hostile.torch_zip(hostile.stream(b'}(' + hostile.text('g_ema') + state + b'u'), storages={'0': bytes(16)})


HURTING = {
    'empty': b'',
    'only a protocol': b'\x80\x04',
    'no value': b'\x80\x04.',
    'stack underflow': hostile.stream(b'aaaa'),
    'mark underflow': hostile.stream(b'tttt'),
    'unknown memo': hostile.stream(b'j\xff\xff\xff\xff'),
    'huge memo index': hostile.stream(b'Nr\xff\xff\xff\xff'),
    'bytes that are not there': hostile.stream(b'\x8e' + struct.pack('<Q', 1 << 62)),
    'text that is not there': hostile.stream(b'\x8d' + struct.pack('<Q', 1 << 62)),
    'negative size': hostile.stream(b'\x8b' + struct.pack('<i', -5)),
    'number of many digits': hostile.stream(b'\x8b' + struct.pack('<i', 1 << 20) + bytes(1 << 20)),
    'frame that is not there': b'\x80\x04\x95' + struct.pack('<Q', 1 << 62),
    'endless name': b'\x80\x02c' + b'a' * 1_000_000,
    'nested tuples': nested(b'\x85', 200_000),
    'nested lists': hostile.stream(b']\x94' * 100_000 + b'a' * 99_999),
    'nested dicts': hostile.stream((b'}' + hostile.text('G_ema')) * 100_000 + b'N' + b's' * 100_000),
    'nested marks': hostile.stream(b'(' * 1_000_000),
    'list in itself': hostile.stream(b'}(' + hostile.text('G_ema') + b']\x94h\x00au'),
    'dict in itself, in a snapshot': hostile.stream(
        b'}('
        + hostile.text('format')
        + hostile.text('stylevideogan-snapshot')
        + hostile.text('format_version')
        + b'K\x01'
        + b''.join(hostile.text(key) + b'N' for key in ('G', 'G_ema', 'C'))
        + hostile.text('image_generator')
        + b'}\x94('
        + hostile.text('x')
        + b'h\x00uu'
    ),
    'doubling lists': doubling(200),
    'modules without end': hostile.stream(
        hostile.generator(
            b'}\x94('
            + hostile.text('_modules')
            + b'}('
            + hostile.text('synthesis')
            + hostile.call(
                'torch_utils.persistence',
                '_reconstruct_persistent_obj',
                b'}(' + hostile.text('class_name') + hostile.text('A') + hostile.text('state') + b'h\x00u',
            )
            + hostile.text('mapping')
            + b'Nuu'
        )
    ),
    'many values': hostile.stream(b'N0' * 1_100_000),
    'key that is a list': hostile.stream(b'}(]Nu'),
    'key that is a huge number': hostile.stream(b'}(\x8a\x20' + b'\xff' * 31 + b'\x01' + b'Nu'),
    'text that is encoded again and again': hostile.stream(
        hostile.text('a' * 500_000)
        + b'\x94'
        + (hostile.text('_codecs') + hostile.text('encode') + b'\x93\x94')
        + (b'h\x01h\x00' + hostile.text('latin1') + b'\x86R') * 50_000
    ),
    'path of the same text': hostile.stream(
        hostile.text('a' * 200)
        + b'\x940'
        + hostile.text('pathlib')
        + hostile.text('PosixPath')
        + b'\x93('
        + b'h\x00' * 100_000
        + b'tR'
    ),
    'list that becomes a dict again and again': hostile.stream(
        b']('
        + b'NN\x86' * 100_000
        + b'e\x94'
        + hostile.text('collections')
        + hostile.text('OrderedDict')
        + b'\x93\x94'
        + b'h\x01h\x00\x85R' * 100_000
    ),
    'shape that is checked again and again': hostile.stream(
        b'('
        + b'K\x01' * 100_000
        + b't\x94'
        + hostile.text('torch')
        + hostile.text('Size')
        + b'\x93\x94'
        + b'h\x01h\x00\x85R' * 100_000
    ),
    'doubling dicts in a snapshot': hostile.stream(
        b'}('
        + hostile.text('format')
        + hostile.text('stylevideogan-snapshot')
        + hostile.text('format_version')
        + b'K\x01'
        + b''.join(hostile.text(key) + b'N' for key in ('G', 'G_ema', 'C'))
        + hostile.text('image_generator')
        + b'}\x94'
        + b''.join(b'}(K\x00h' + bytes([k]) + b'K\x01h' + bytes([k]) + b'u\x94' for k in range(90))
        + b'u'
    ),
    'weights without end': hostile.stream(
        b'}\x94('
        + b''.join(hostile.text(str(k)) + b'N' for k in range(9_000))
        + b'u0'
        + hostile.generator(
            b'}\x94('
            + hostile.text('_parameters')
            + b'h\x00'
            + hostile.text('_modules')
            + b'}('
            + b''.join(
                hostile.text(f'm{k}')
                + hostile.call(
                    'torch_utils.persistence',
                    '_reconstruct_persistent_obj',
                    b'}(' + hostile.text('class_name') + hostile.text('A') + hostile.text('state') + b'h\x01u',
                )
                for k in range(200)
            )
            + hostile.text('synthesis')
            + b'N'
            + hostile.text('mapping')
            + b'Nuu'
        )
    ),
    'tensor larger than its storage': tensor((1 << 40,), (1,)),
    'tensor that repeats one number': tensor((1 << 20, 1 << 20), (0, 0)),
    'tensor of negative size': tensor((-1, 4), (1, 1)),
    'tensor of endless stride': tensor((2, 2), (1 << 62, 1)),
    'storage larger than the archive': tensor((1 << 40,), (1,), numel=1 << 40),
    'compressed archive': hostile.torch_zip(hostile.stream(b'N' * 10_000_000), compression=zipfile.ZIP_DEFLATED),
    'archive of nothing': hostile.torch_zip(b''),
    'archive without end': hostile.torch_zip(hostile.stream(b'N'))[:-10],
    'archive of another kind': b'PK\x03\x04' + bytes(100),
    'safetensors header that is not there': struct.pack('<Q', 1 << 40) + b'{"a"',
    'safetensors header that nests': struct.pack('<Q', 100_000) + b'{"a":' + b'[' * 99_995,
    'safetensors tensor that is not there': struct.pack('<Q', 64)
    + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(64),
    'web page': b'<!DOCTYPE html><html>',
    'Git LFS pointer': b'version https://git-lfs.github.com/spec/v1\noid sha256:0',
    'JSON': b'{"class_name": "stylegan2.Generator"}',
    'text': b'hello',
    'picture': b'\x89PNG\r\n\x1a\n' + bytes(100),
}


@pytest.mark.parametrize('name', HURTING)
def test_file_made_to_hurt_is_refused_in_bounded_time(name, tmp_path):
    path = tmp_path / 'file.pkl'
    path.write_bytes(HURTING[name])
    begin = time.process_time()
    for load in LOADERS if len(HURTING[name]) < 10_000 else LOADERS[:1]:
        with pytest.raises(InputError) as caught:
            load(path)
        assert len(str(caught.value)) < 1000
    # A limit, not a timing: without bounds these would run for minutes, or for ever.
    assert time.process_time() - begin < 60


def test_same_bytes_cannot_be_multiplied():
    """Entries of a zip directory that all point to one entry's bytes: megabytes that unfold to terabytes."""
    block = bytes(1 << 20)
    raw = bytearray(hostile.torch_zip(b'', storages={'0': block}))
    source = ByteSource(io.BytesIO(bytes(raw)))
    entry = torch_archive._list_entries(source)['archive/data/0']
    offset, length = torch_archive._locate(source, entry)
    for _ in range(3):  # Twice, and what small values may need beyond the file's size.
        source.load(offset, length)
    with pytest.raises(InputError, match='many times over'):
        source.load(offset, length)


@pytest.mark.parametrize(
    'change',
    [
        {'img_resolution': 1 << 30},
        {'img_resolution': 1 << 15},
        {'w_dim': 1 << 40},
        {'z_dim': -1},
        {'img_channels': 1e9},
        {'mapping_kwargs': {'num_layers': 10**9}},
        {'channel_base': float('nan')},
        {'resample_filter': [1] * 10_000},
        {'synthesis_kwargs': {'channel_base': 1 << 15, 'channel_max': 1 << 15}},
        {'z_dim': 5},
        {'img_resolution': 16},
        {'unknown_argument': 1},
        {'kernel_size': 10**6},
        {'architecture': 'a' * 10_000},
        {'mapping_kwargs': []},
    ],
)
def test_arguments_that_do_not_fit_the_weights_are_refused_before_memory_is_taken(small_pickle, change, monkeypatch):
    contents = torch_archive.read_plain_pickle(ByteSource(io.BytesIO(small_pickle)))
    contents['G_ema'].raw_state['_init_kwargs'].update(change)
    contents['G_ema'].raw_state['_init_args'] = ()
    contents['G_ema'].raw_state['_init_kwargs'] = {
        'z_dim': 4,
        'c_dim': 0,
        'w_dim': 4,
        'img_resolution': 8,
        'img_channels': 3,
        'mapping_kwargs': {'num_layers': 1},
        'synthesis_kwargs': {'channel_max': 4},
        **change,
    }
    monkeypatch.setattr(loading, '_read', lambda file: LazyEntries(contents))
    with pytest.raises(InputError):
        checkpoints.load_generator(io.BytesIO(small_pickle))


# ----------------------------------------------------------------------------
# Damage.


def test_truncated_anywhere_is_refused(small_pickle):
    for length in [*range(200), *range(200, len(small_pickle), 397)]:
        with pytest.raises(InputError):
            checkpoints.load_generator(io.BytesIO(small_pickle[:length]))


def test_changed_bytes_give_a_generator_or_an_error(small_pickle):
    """Whatever is overwritten: the loader's own error or a module, nothing else."""
    choose = random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(small_pickle)
        for _ in range(choose.randint(1, 8)):
            damaged[choose.randrange(len(damaged))] = choose.choice([0, 1, 0x2E, 0x52, 0x7F, 0x80, 0xFF, choose.randrange(256)])
        try:
            assert isinstance(checkpoints.load_generator(io.BytesIO(damaged)), torch.nn.Module)
        except InputError:
            refused += 1
    assert 25 < refused < 200


# ----------------------------------------------------------------------------
# Equality with Python's own reader on what checkpoints hold.

KEYS = st.one_of(st.text(max_size=5), st.integers(-(2**62), 2**62), st.booleans(), st.none(), st.binary(max_size=5))
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**200), 2**200),
        st.floats(allow_nan=False),
        st.text(max_size=300),
        st.binary(max_size=600),
        st.sets(KEYS, max_size=4),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.tuples(inner, inner),
        st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None)
@given(value=VALUES, protocol=st.integers(2, 5))
def test_plain_values_come_back_equal(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize(
    'value',
    [
        np.float64(2.5),
        np.float32(0.1),
        np.int64(-3),
        np.bool_(True),
        np.arange(12, dtype=np.int16).reshape(3, 4),
        np.asfortranarray(np.random.RandomState(0).randn(40, 5)),
        np.zeros([0, 3], np.float32),
        np.arange(4, dtype='>f4'),
        np.random.RandomState(1).randn(7, 11).astype(np.float16),
    ],
    ids=lambda value: f'{type(value).__name__}-{value.dtype}-{value.shape}',
)
def test_numpy_values_come_back_equal(value, protocol):
    raw = pickle.dumps({'x': [value, value]}, protocol)
    for text in (raw, raw.replace(b'numpy._core', b'numpy.core') if protocol < 4 else raw):  # numpy 2 and numpy 1.
        first, second = read(text)['x']
        assert np.array_equal(first, value)
        assert np.array_equal(second, value)
        assert np.asarray(first).shape == value.shape


TENSORS = {
    'plain': torch.arange(12.0).reshape(3, 4),
    'scalar': torch.tensor(2.5),
    'empty': torch.zeros(0, 3),
    'transposed': torch.arange(12.0).reshape(3, 4).t(),
    'part': torch.arange(12.0)[5:9],
    'expanded': torch.ones(1).expand(3, 4),
    'channels last': torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    **{
        name: torch.ones(3).to(getattr(torch, name))
        for name in ('float16', 'bfloat16', 'float64', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool')
    },
}


@pytest.mark.parametrize('name', TENSORS)
@pytest.mark.parametrize('form', ['pickle 2', 'pickle 4', 'archive', 'older archive'])
def test_tensors_come_back_equal(name, form):
    value = {'t': TENSORS[name], 'p': torch.nn.Parameter(TENSORS['plain'], requires_grad=False), 'view': TENSORS[name]}
    file = io.BytesIO()
    if form.startswith('pickle'):
        pickle.dump(value, file, protocol=int(form[-1]))
        ours = read(file.getvalue())
    else:
        torch.save(value, file, _use_new_zipfile_serialization=(form == 'archive'))
        reader = torch_archive.read_zip if form == 'archive' else torch_archive.read_legacy
        ours = materialize(reader(ByteSource(io.BytesIO(file.getvalue()))))
    assert torch.equal(ours['t'], value['t'])
    assert ours['t'].dtype == value['t'].dtype
    assert ours['t'].stride() == value['t'].stride()
    assert torch.equal(ours['p'], TENSORS['plain'])
    assert ours['view'] is ours['t']


def test_objects_of_the_field_come_back():
    namespace = argparse.Namespace(size=256, path='x')
    value = {
        'args': namespace,
        'o': collections.OrderedDict(a=1),
        'e': dnnlib.EasyDict(b=2),
        'd': collections.defaultdict(list, c=[1]),
        's': torch.Size([1, 2]),
    }
    for protocol in (2, 4):
        ours = read(pickle.dumps(value, protocol))
        assert ours == {'args': namespace, 'o': {'a': 1}, 'e': {'b': 2}, 'd': {'c': [1]}, 's': (1, 2)}
