"""Data sets that were damaged, by chance or on purpose: a readable sentence or harmless, quickly, and with little memory."""

import io
import json
import pathlib
import random
import resource
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from networks.errors import InputError
from training.latents.dataset import LatentDataset
from training.latents.operations import whole_clips

MUTATIONS = 2000
LONGEST_SENTENCE = 600


def read_all(path: pathlib.Path) -> None:
    """Everything that the commands do with a data set."""
    with LatentDataset(path) as data:
        for index in range(len(data)):
            data.load_clip(index)
            data.frame_arrays(index)
        assert len(data.sha256) == 64
        whole_clips(data)
        json.dumps([data.embedding, data.preparation, data.quality, data.image_generator, [clip.extra for clip in data.clips]])
        f'{data.fps:g} {data.num_frames} {data.quality.get("psnr", 0):.2f} {str(data.image_generator.get("sha256"))[:12]}'


@pytest.fixture(scope='module')
def parts() -> tuple[dict[str, Any], dict[str, bytes]]:
    values = np.random.RandomState(0)
    members, clips = {}, []
    for number, length in enumerate((7, 5)):
        for key, shape in (('', (length, 3, 4)), ('.quads', (length, 4, 2))):
            buffer = io.BytesIO()
            np.save(buffer, values.randn(*shape).astype('<f4'))
            members[f'clips/{number:05d}-c{key}.npy'] = buffer.getvalue()
        clips.append(
            {
                'name': f'clip{number}',
                'file': f'clips/{number:05d}-c.npy',
                'num_frames': length,
                'fps': 25.0,
                'source': 'a.mp4',
                'psnr': 20.0,
                'arrays': {'quads': f'clips/{number:05d}-c.quads.npy'},
            }
        )
    about = {
        'format': 'stylevideogan-latents',
        'format_version': 1,
        'num_ws': 3,
        'w_dim': 4,
        'fps': 25.0,
        'image_generator': {'path': 'g.pkl', 'sha256': 'a' * 64, 'class_name': 'Generator', 'init_kwargs': {}},
        'embedding': {'method': 'test', 'parts': [[None, 1.0]]},
        'preparation': [{'source': 'a.mp4', 'reason': 'beginning'}],
        'num_clips': 2,
        'num_frames': 12,
        'quality': {'psnr': 20.0},
        'clips': clips,
    }
    return about, members


def pack(about: bytes, members: dict[str, bytes], order: list[str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of duplicate names
        with zipfile.ZipFile(buffer, 'w') as archive:
            archive.writestr('dataset.json', about)
            for name in order or list(members):
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), members[name])
    return buffer.getvalue()


STRANGE: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    10**400,
    0.0,
    -1.5,
    1e308,
    float('nan'),
    float('inf'),
    '',
    'x',
    '\x00',
    'a' * 5000,
    '\ud800',
    '\u202e\x1b[2J',
    '../../etc/passwd',
    '/etc/passwd',
    [],
    {},
    [[]],
    [None],
    {'a': {}},
    {'': ''},
    [1, 2, 3],
    ['x' * 5000],
]


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in items:
        found += spots(member, (*path, key))
    return found


def mutate_description(draw: random.Random, about: dict[str, Any]) -> bytes:
    about = json.loads(json.dumps(about))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        path = draw.choice(spots(about))
        parent = about
        try:
            for key in path[:-1]:
                parent = parent[key]
            kind = draw.random()
            if kind < 0.7:
                parent[path[-1]] = draw.choice(STRANGE)
            elif kind < 0.8:
                del parent[path[-1]]
            elif isinstance(parent, list):
                parent.append(parent[path[-1]])
            else:
                parent[draw.choice(['\x00', 'a' * 5000, 'name', 'file', 'arrays'])] = parent[path[-1]]
        except (KeyError, TypeError, IndexError):
            continue  # an earlier one took it away
    return json.dumps(about).encode()


def mutate_bytes(draw: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        place = draw.randrange(len(data))
        kind = draw.random()
        if kind < 0.5:
            data[place] ^= 1 << draw.randrange(8)
        elif kind < 0.7:
            data[place : place + 4] = struct.pack('<I', draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)))
        elif kind < 0.8:
            del data[place : place + draw.randrange(1, 200)]
        elif kind < 0.9:
            data[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 50)))
        else:
            other = draw.randrange(len(data))
            data[place : place + 16], data[other : other + 16] = data[other : other + 16], data[place : place + 16]
        if not data:
            break
    return bytes(data)


def mutate_header(draw: random.Random, content: bytes) -> bytes:
    """Another text in the header of an array."""
    shape = draw.choice(
        (
            '(7, 3, 4)',
            '(-7, 3, 4)',
            '(7, 3)',
            '()',
            '(0, 3, 4)',
            '(9999999999999, 3, 4)',
            '((((1,),),),)',
            '(True, 3, 4)',
            '(7.0, 3, 4)',
            '[7, 3, 4]',
            '(7, 3, 4',
            '7',
            '(' * 400,
            "__import__('os')",
            '(1e9, 3, 4)',
            '(10**10, 3, 4)',
        )
    )
    descr = draw.choice(
        (
            "'<f4'",
            "'>f4'",
            "'<f8'",
            "'<f2'",
            "'|O'",
            "'<i4'",
            "'<f16'",
            "[('a', '<f4')]",
            "'x'",
            "''",
            'None',
            "'<f4" + '0' * 50 + "'",
            "('<f4', (2, 3))",
            "'<U999999999'",
            "{'a': 1}",
        )
    )
    order = draw.choice(('False', 'True', '3', 'None', '[]'))
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text = (
        text.replace(draw.choice([b"'shape'", b'descr', b'{', b'}', b'zzz']), draw.choice([b'', b"'x'", b'\x00', b'\xff', b'\n']))
        if draw.random() < 0.3
        else text
    )
    length = len(text) if draw.random() < 0.8 else draw.choice((0, 5, 65535))
    version = draw.choice((b'\x01\x00', b'\x01\x00', b'\x01\x00', b'\x02\x00', b'\x03\x00', b'\x09\x00'))
    size = struct.pack('<H', length & 0xFFFF) if version == b'\x01\x00' else struct.pack('<I', length)
    return b'\x93NUMPY' + version + size + text + content[128:]


def mutate(draw: random.Random, about: dict[str, Any], members: dict[str, bytes]) -> bytes:
    kind = draw.randrange(7)
    whole = json.dumps(about).encode()
    if kind == 0:
        return mutate_bytes(draw, pack(whole, members))
    if kind == 1:
        content = pack(whole, members)
        return content[: draw.randrange(len(content))]
    if kind == 2:
        return pack(mutate_description(draw, about), members)
    if kind == 3:
        name = draw.choice(list(members))
        return pack(whole, {**members, name: mutate_header(draw, members[name])})
    if kind == 4:  # swapped, missing and doubled members
        names = list(members)
        a, b = draw.sample(names, 2)
        if draw.random() < 0.5:
            return pack(whole, {**members, a: members[b], b: members[a]})
        return pack(whole, members, order=draw.choice([[*names, a], [name for name in names if name != a], [a, a, a]]))
    if kind == 5:  # flags and methods of the zip
        content = bytearray(pack(whole, members))
        for mark, offset in ((b'PK\x01\x02', 8), (b'PK\x03\x04', 6)):
            place = content.find(mark)
            for _ in range(draw.randrange(5)):
                following = content.find(mark, place + 4)
                place = following if following > 0 else place
            content[place + offset : place + offset + 4] = struct.pack(
                '<HH', draw.choice((0, 1, 8, 2048, 65535)), draw.choice((0, 8, 12, 14, 99))
            )
        return bytes(content)
    depth = draw.choice((10, 1000, 100000))
    opening, closing = draw.choice((('[', ']'), ('{"a":', '}')))
    return pack(whole[:-1] + b',"x":' + (opening * depth).encode() + b'1' + (closing * depth).encode() + b'}', members)


def check(act: Callable[[], None], what: str) -> bool:
    """Run one mutation; returns whether it was refused."""
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')  # a warning on the terminal is no sentence
            act()
    except InputError as error:
        sentence = str(error)
        assert len(sentence) <= LONGEST_SENTENCE, f'{what}: {len(sentence)} letters'
        assert sentence.isprintable(), f'{what}: {sentence!r}'
        return True
    finally:
        assert time.process_time() - begin < 10, what
    return False


def test_mutations(tmp_path, parts):
    path = tmp_path / 'd.zip'
    path.write_bytes(pack(json.dumps(parts[0]).encode(), parts[1]))
    read_all(path)
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(MUTATIONS):
        draw = random.Random(seed)
        path.write_bytes(mutate(draw, *parts))
        refused += check(lambda: read_all(path), f'seed {seed}')
    assert refused > MUTATIONS / 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB, for files of some KiB


def test_mutations_of_a_folder(tmp_path, parts):
    folder = tmp_path / 'd'
    (folder / 'clips').mkdir(parents=True)
    for name, content in parts[1].items():
        (folder / name).write_bytes(content)
    for seed in range(400):
        (folder / 'dataset.json').write_bytes(mutate_description(random.Random(seed), parts[0]))
        check(lambda: read_all(folder), f'seed {seed}')


def test_a_small_file_cannot_ask_for_much_memory(tmp_path, parts):
    about, members = parts
    path = tmp_path / 'bomb.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('dataset.json', json.dumps(about)[:-1] + ' ' * (300 << 20) + '}')
        for name, content in members.items():
            archive.writestr(name, content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r'dataset\.json'):
        read_all(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize(
    ('value', 'words'), [(1e30, '1e+30, far beyond'), (-3e38, '-3e+38, far'), (np.inf, 'not a finite'), (5e4, '5e+04')]
)
def test_huge_codes_are_refused_with_their_clip(tmp_path, parts, value, words):
    about, members = parts
    codes = np.load(io.BytesIO(members['clips/00001-c.npy'])).copy()
    codes[3, 1, 2] = value
    buffer = io.BytesIO()
    np.save(buffer, codes)
    path = tmp_path / 'd.zip'
    path.write_bytes(pack(json.dumps(about).encode(), {**members, 'clips/00001-c.npy': buffer.getvalue()}))
    with pytest.raises(InputError, match="clip 'clip1'") as caught:
        read_all(path)
    assert words in str(caught.value)
    assert 'frame 3' in str(caught.value)
