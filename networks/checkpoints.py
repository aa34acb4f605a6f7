"""Opens every kind of checkpoint that the project can use, and writes its own. The only module that knows files.

    G = load_generator('network-snapshot-025000.pkl')   # StyleGAN2 or StyleGAN3, from any repository
    E = load_encoder('e4e_ffhq_encode.pt')              # e4e, pSp, or train_encoder.py
    S = load_snapshot('network-snapshot-000512.pkl')    # train_video.py

What a file is, its content tells, never its name. Nothing that a file says is run, unless trust_pickle is set.
"""

import contextlib
import copy
import hashlib
import inspect
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import torch

import dnnlib
from networks import safe_pickle, torch_archive
from networks.checkpoint_formats import nvidia_pytorch, nvidia_tensorflow, ours, psp, rosinality, safetensors_pair
from networks.errors import InputError
from networks.lazy_data import ByteSource, LazyEntries
from torch_utils import persistence

TRUST_HINT = (
    ' If you know who made it and trust them, the option --trust-pickle (trust_pickle=True) runs the source text that it '
    'carries, with all that it may do to your computer')
MOST_SHOWN = 600    # Characters of an error that come from a file.

# First match wins. psp before rosinality: its decoder is a rosinality generator.
GENERATOR_FORMATS: tuple[Any, ...] = (nvidia_pytorch, nvidia_tensorflow, psp, rosinality, safetensors_pair)
ENCODER_FORMATS: tuple[Any, ...] = (ours, psp)


class CodeRefused(InputError):
    """Only by running what the file carries could it be opened. The text ends with TRUST_HINT."""

#----------------------------------------------------------------------------
# Loading.

def load_generator(
    source: Any,                    # Path, URL, or binary file open for reading.
    *,
    device: str | torch.device = 'cpu',
    trust_pickle: bool = False,     # Run the source text that the file carries.
    sha256: str | None = None,      # Digest that the file must have.
) -> torch.nn.Module:
    """The image generator of a checkpoint, in evaluation mode and without gradients for its weights.

    Returns:
        A module with `z_dim c_dim w_dim num_ws img_resolution img_channels init_kwargs mapping synthesis`, called as
        those of NVIDIA's repositories: `G.mapping(z, c, truncation_psi=, truncation_cutoff=)` -> [N, num_ws, w_dim],
        `G.synthesis(ws, noise_mode=, force_fp32=)` -> [N, img_channels, img_resolution, img_resolution] about [-1, 1].

    Raises:
        InputError: The file cannot be had, is damaged, asks for code, or holds no image generator.
    """
    def find(contents: Any) -> torch.nn.Module:
        if ours.is_snapshot(contents):
            raise InputError(
                'it is a snapshot of the temporal model, and the image generator is another file, which it names '
                f'as {_reference_path(contents)!r}; give that one')
        if ours.matches(contents):
            raise InputError('it is an encoder, and an image generator is needed here')
        return _build(contents, GENERATOR_FORMATS, 'build_generator', 'image generator (StyleGAN2 or StyleGAN3)')

    module = _load(source, find, lambda value: _find_live(value, nvidia_pytorch.GENERATOR_KEYS), trust_pickle, sha256)
    return module.eval().requires_grad_(False).to(device)


def load_discriminator(source: Any) -> torch.nn.Module | None:
    """The discriminator of a pickle of NVIDIA's PyTorch repositories, or None if the file holds none that is known here.

    Raises:
        InputError: The file cannot be had, is damaged, or asks for code.
    """
    return _load(source, nvidia_pytorch.build_discriminator, lambda value: None, False, None)


def load_encoder(
    source: Any, *, device: str | torch.device = 'cpu', trust_pickle: bool = False, sha256: str | None = None
) -> torch.nn.Module:
    """The encoder of a checkpoint of train_encoder.py, pSp, or e4e, in evaluation mode. Arguments as load_generator().

    Returns:
        A module that maps images [N, C, H, W] in [-1, 1] to codes [N, num_ws, w_dim], the average code included. Its
        attribute generator_sha256 tells the file of the image generator it was trained for, None where that is not known.

    Raises:
        InputError: The file cannot be had, is damaged, asks for code, or holds no encoder.
    """
    def find(contents: Any) -> torch.nn.Module:
        encoder: Any = _build(contents, ENCODER_FORMATS, 'build_encoder', 'encoder (train_encoder.py, pSp, or e4e)')
        reference = contents.raw('image_generator') if ours.matches(contents) and 'image_generator' in contents else None
        digest = reference.get('sha256') if isinstance(reference, dict) else None
        encoder.generator_sha256 = digest if isinstance(digest, str) else None
        return encoder

    module: Any = _load(source, find, lambda value: _find_live(value, (ours.ENCODER_KEY,)), trust_pickle, sha256)
    return module.eval().requires_grad_(False).to(device)


def load_snapshot(
    source: Any, *, device: str | torch.device = 'cpu', trust_pickle: bool = False, sha256: str | None = None
) -> dnnlib.EasyDict:
    """A snapshot of train_video.py: the entries under their keys, the networks as modules. Arguments as load_generator().

    Raises:
        InputError: The file cannot be had, is damaged, asks for code, or is no such snapshot.
    """
    def find(contents: Any) -> dnnlib.EasyDict:
        if not ours.is_snapshot(contents):
            raise InputError('it is not a snapshot of train_video.py')
        return ours.build_snapshot(contents)

    def find_live(value: Any) -> dnnlib.EasyDict:
        if not isinstance(value, dict) or value.get('format') != ours.SNAPSHOT_FORMAT:
            raise InputError('it is not a snapshot of train_video.py')
        return dnnlib.EasyDict(value)

    snapshot = _load(source, find, find_live, trust_pickle, sha256)
    for value in snapshot.values():
        if isinstance(value, torch.nn.Module):
            value.eval().requires_grad_(False).to(device)
    return snapshot


def _load(
    source: Any,
    find: Callable[[Any], Any],         # What is wanted, out of inert contents.
    find_live: Callable[[Any], Any],    # The same, out of what running a pickle gave.
    trust_pickle: bool,
    sha256: str | None,
) -> Any:
    with _errors_name(source), _open(source) as file:
        if sha256 is not None and _digest(file) != sha256.lower():
            raise InputError('its SHA-256 digest is not the expected one: it is damaged, or another file')
        if trust_pickle and (kind := _kind(ByteSource(file))) in ('pickle', 'zip', 'legacy'):
            return find_live(_run(file, kind))
        try:
            return find(_read(file))
        except safe_pickle.ForbiddenNames as error:
            raise CodeRefused(f'{str(error)[:MOST_SHOWN]}; nothing of it was run.{TRUST_HINT}') from error
        except nvidia_pytorch.UnknownArchitecture as error:
            raise CodeRefused(f'{str(error)[:MOST_SHOWN]}; its own source text was not run.{TRUST_HINT}') from error


def _build(contents: Any, formats: tuple[Any, ...], function: str, wanted: str) -> torch.nn.Module:
    for module in formats:
        if module.matches(contents):
            return getattr(module, function)(contents)
    keys = ', '.join(str(key)[:30] for key in list(contents)[:8]) if isinstance(contents, LazyEntries) else ''
    holds = f'it holds {keys}, and' if keys else 'it holds'
    raise InputError(f'{holds} no {wanted} that is known here')


def _reference_path(contents: Any) -> str:
    reference = contents.raw('image_generator')
    path = reference.get('path') if isinstance(reference, dict) else None
    return path[:200] if isinstance(path, str) else '(no path recorded)'

#----------------------------------------------------------------------------
# Files.

def file_sha256(path: Any) -> str:
    """Hexadecimal SHA-256 digest of a file, or of what is behind a URL."""
    with _errors_name(path), _open(path) as file:
        return _digest(file)


@contextlib.contextmanager
def _open(source: Any) -> Iterator[BinaryIO]:
    if hasattr(source, 'seek') and hasattr(source, 'read'):
        source.seek(0)
        yield source
        return
    path = os.fspath(source)
    if dnnlib.util.is_url(path):
        path = dnnlib.util.open_url(path, return_filename=True)
    with open(path, 'rb') as file:
        yield file


@contextlib.contextmanager
def _errors_name(source: Any) -> Iterator[None]:
    """Begin every error with the file's name, and keep what the file says from writing to the terminal."""
    name = 'the open file' if hasattr(source, 'read') else os.fspath(source)
    try:
        yield
    except InputError as error:
        text = str(error) if isinstance(error, CodeRefused) else str(error)[:MOST_SHOWN]
        text = ''.join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
        raise type(error)(f'{name}: {text}') from error
    except RecursionError as error:
        raise InputError(f'{name}: its values are nested without end') from error
    except FileNotFoundError as error:
        raise InputError(f'{name}: there is no such file') from error
    except IsADirectoryError as error:
        raise InputError(f'{name}: this is a folder, and a file is needed') from error
    except OSError as error:
        raise InputError(f'{name}: {error.strerror or error}') from error


def _digest(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, 'sha256').hexdigest() if hasattr(hashlib, 'file_digest') else _digest_slowly(file)


def _digest_slowly(file: BinaryIO) -> str:
    digest = hashlib.sha256()   # Python 3.10.
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _kind(source: ByteSource) -> str:
    """Which reader the content is for."""
    start = source.read(0, 64)
    if start.startswith(torch_archive.ZIP_START):
        return 'zip'
    if start.startswith(torch_archive.LEGACY_START):
        return 'legacy'
    if len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5:
        return 'pickle'
    if safetensors_pair.is_safetensors(start, source.size):
        return 'safetensors'
    if not start:
        raise InputError('the file is empty')
    if start.startswith(b'version https://git-lfs'):
        raise InputError('this is a pointer of Git LFS, not the file itself; fetch it with "git lfs pull"')
    if start.lstrip()[:1] == b'<':
        raise InputError('this is a web page: the download did not give the file')
    if start.lstrip()[:1] == b'{':
        raise InputError('this is JSON text; if it describes a .safetensors file, give that file')
    raise InputError('this is no checkpoint: neither a pickle, nor a file of torch.save, nor safetensors')


def _read(file: BinaryIO) -> Any:
    """The contents without running anything, as the formats take them."""
    source = ByteSource(file)
    kind = _kind(source)
    if kind == 'safetensors':
        return safetensors_pair.read(source)
    if kind == 'zip':
        contents = torch_archive.read_zip(source)
    elif kind == 'legacy':
        contents = torch_archive.read_legacy(source)
    else:
        contents = safe_pickle.read_pickle(safe_pickle.Cursor(source))
    return LazyEntries(contents) if isinstance(contents, dict) else contents

#----------------------------------------------------------------------------
# Files that are trusted to run code.

def _run(file: BinaryIO, kind: str) -> Any:
    """What the file's own program makes. Only for trust_pickle."""
    file.seek(0)
    try:
        if kind == 'pickle':
            return pickle.load(file)
        return torch.load(file, map_location='cpu', weights_only=False)
    except Exception as error:  # It is a program of somebody else: it can fail in every way.
        raise InputError(f'running it failed: {type(error).__name__}: {str(error)[:MOST_SHOWN]}') from error


def _find_live(value: Any, keys: tuple[str, ...]) -> torch.nn.Module:
    if isinstance(value, dict):
        value = next((value[key] for key in keys if isinstance(value.get(key), torch.nn.Module)), value)
    if isinstance(value, torch.nn.Module):
        return value
    contents = LazyEntries(value) if isinstance(value, dict) else value
    if keys == (ours.ENCODER_KEY,):
        return _build(contents, ENCODER_FORMATS, 'build_encoder', 'encoder')
    return _build(contents, GENERATOR_FORMATS, 'build_generator', 'image generator')

#----------------------------------------------------------------------------
# Writing.

def image_generator_reference(path: Any, G: torch.nn.Module) -> dict[str, Any]:
    """What a file that was made with an image generator says of it: path, sha256, class_name, init_kwargs."""
    return {
        'path': os.fspath(path), 'sha256': file_sha256(path), 'class_name': type(G).__name__,
        'init_kwargs': to_plain(getattr(G, 'init_kwargs', {})),
    }


def save_module_pickle(path: Any, data: dict[str, Any]) -> None:
    """Write a pickle in NVIDIA's layout: persistent modules with our source text, and plain values.

    The file appears whole or not at all. Modules are written as they are on the CPU.

    Raises:
        TypeError: A module in `data` is not of a persistent class, so its source would be missing from the file.
    """
    prepared = {}
    for key, value in data.items():
        if isinstance(value, torch.nn.Module):
            for name, module in value.named_modules(prefix=key):
                if not persistence.is_persistent(module) and not type(module).__module__.startswith('torch.nn.'):
                    raise TypeError(f'{name} is a {type(module).__name__}, which is no persistent class')
            if any(tensor.device.type != 'cpu' for tensor in [*value.parameters(), *value.buffers()]):
                value = copy.deepcopy(value).cpu()
            if type(value) in ours.CLASSES.values():
                _record_defaults(value)
            prepared[key] = value
        else:
            prepared[key] = to_plain(value)
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        pickle.dump(prepared, file, protocol=4)     # Python 3.7, which stylegan2-ada-pytorch asks for, knows 4.


def _record_defaults(module: Any) -> None:
    """Note also the construction arguments that were left out, so that other defaults do not spoil older files."""
    signature = inspect.signature(type(module).__init__)
    bound = signature.bind(module, *module.init_args, **module.init_kwargs)
    bound.apply_defaults()
    arguments = dict(list(bound.arguments.items())[1:])     # Without self.
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        module._init_args, module._init_kwargs = (), dnnlib.EasyDict(arguments)


@contextlib.contextmanager
def replacing(path: Any) -> Iterator[str]:
    """A temporary name beside `path`, moved there at the end; after an error `path` is as before."""
    path = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=f'.{os.path.basename(path)}.', suffix='.tmp', dir=folder)
    os.close(handle)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def to_plain(value: Any) -> Any:
    """The same with numbers of numpy as Python's, EasyDict as dict, and paths as text: readable by every version."""
    if isinstance(value, dict):
        return {to_plain(key): to_plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value)(to_plain(member) for member in value)
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value

#----------------------------------------------------------------------------
