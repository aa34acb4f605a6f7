"""Opens every kind of checkpoint that the project can use.

    G = load_generator('network-snapshot-025000.pkl')   # StyleGAN2 or StyleGAN3, from any repository
    E = load_encoder('e4e_ffhq_encode.pt')              # e4e, pSp, or train_encoder.py
    S = load_snapshot('network-snapshot-000512.pkl')    # train_video.py

The format is recognised by content, never by file name. Nothing that a file says is run, unless trust_pickle is set.
"""

import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, TypeGuard, cast

import torch

import dnnlib
from networks.checkpoints import safe_pickle, torch_archive, tuned_generators
from networks.checkpoints.digests import sha256_of
from networks.checkpoints.files import MOST_SHOWN, TRUST_HINT, CodeRefused, Source, container, errors_name, opened
from networks.checkpoints.formats import nvidia_pytorch, nvidia_tensorflow, ours, psp, rosinality, safetensors_pair
from networks.checkpoints.lazy_data import ByteSource, LazyEntries
from networks.errors import InputError
from networks.image_generator import ImageGenerator
from stylevideogan import layout

# First match wins. psp before rosinality: its decoder is a rosinality generator.
GENERATOR_FORMATS: tuple[Any, ...] = (nvidia_pytorch, nvidia_tensorflow, psp, rosinality, safetensors_pair)
ENCODER_FORMATS: tuple[Any, ...] = (ours, psp)


# ----------------------------------------------------------------------------
# Loading.


def load_generator(
    source: Source,  # Path, URL, or binary file open for reading.
    *,
    device: str | torch.device = 'cpu',
    trust_pickle: bool = False,  # Run the source text that the file carries.
    sha256: str | None = None,  # Digest that the file must have.
) -> ImageGenerator:
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
                f'as {_reference_path(contents)!r}; give that one'
            )
        if ours.matches(contents):
            raise InputError('it is an encoder, and an image generator is needed here')
        return _build(contents, GENERATOR_FORMATS, 'build_generator', 'image generator (StyleGAN2 or StyleGAN3)')

    module = _load(source, find, lambda value: _find_live(value, nvidia_pytorch.GENERATOR_KEYS), trust_pickle, sha256)
    return cast(ImageGenerator, module.eval().requires_grad_(False).to(device))


def load_discriminator(source: Source) -> torch.nn.Module | None:
    """The discriminator of a pickle of NVIDIA's PyTorch repositories, or None if the file holds none that is known here.

    Raises:
        InputError: The file cannot be had, is damaged, or asks for code.
    """
    return _load(source, nvidia_pytorch.build_discriminator, lambda value: None, False, None)


def load_encoder(
    source: Source, *, device: str | torch.device = 'cpu', trust_pickle: bool = False, sha256: str | None = None
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
    source: Source, *, device: str | torch.device = 'cpu', trust_pickle: bool = False, sha256: str | None = None
) -> dnnlib.EasyDict:
    """A snapshot of train_video.py: the entries under their keys, the networks as modules. Arguments as load_generator().

    Raises:
        InputError: The file cannot be had, is damaged, asks for code, or is no such snapshot.
    """

    def find(contents: Any) -> dnnlib.EasyDict:
        if not ours.is_snapshot(contents):
            raise InputError(f'it is {_what_else(contents)}not a snapshot of train_video.py')
        return ours.build_snapshot(contents)

    def find_live(value: object) -> dnnlib.EasyDict:
        if not _is_live_snapshot(value):
            raise InputError('it is not a snapshot of train_video.py')
        return dnnlib.EasyDict(value)

    return _ready(_load(source, find, find_live, trust_pickle, sha256), device)


def load_snapshot_or_none(
    source: Source, *, device: str | torch.device = 'cpu', trust_pickle: bool = False
) -> dnnlib.EasyDict | None:
    """What load_snapshot() returns; None for an image generator or anything else that can be read.

    Raises:
        InputError: The file cannot be had, or is damaged.
    """

    def find(contents: Any) -> dnnlib.EasyDict | None:
        return ours.build_snapshot(contents) if ours.is_snapshot(contents) else None

    def find_live(value: object) -> dnnlib.EasyDict | None:
        return dnnlib.EasyDict(value) if _is_live_snapshot(value) else None

    try:
        snapshot = _load(source, find, find_live, trust_pickle, None)
    except CodeRefused:  # a pickle of another program's classes; load_generator() says what is missing
        return None
    return None if snapshot is None else _ready(snapshot, device)


def _is_live_snapshot(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and value.get('format') == ours.SNAPSHOT_FORMAT


def _ready(snapshot: dnnlib.EasyDict, device: str | torch.device) -> dnnlib.EasyDict:
    """The snapshot, with its networks on the device, to be used and not trained."""
    for value in snapshot.values():
        if isinstance(value, torch.nn.Module):
            value.eval().requires_grad_(False).to(device)
    return snapshot


def tuning_record(source: Source) -> dict[str, Any] | None:
    """What the file of a generator of tune_generator.py says of its making; None for any other file that can be read.

    Returns:
        `tuned_from`, the reference to the generator that it was made from (networks.checkpoints.image_generator_reference), and
        `tuning`: data set, options, and what it reached.

    Raises:
        InputError: The file cannot be had, or is damaged.
    """
    try:
        record = _load(source, tuned_generators.read_record, lambda value: None, False, None)
    except CodeRefused:  # a pickle of another program's classes
        return None
    return record


def _load(
    source: Source,
    find: Callable[[Any], Any],  # What is wanted, out of inert contents.
    find_live: Callable[[Any], Any],  # The same, out of what running a pickle gave.
    trust_pickle: bool,
    sha256: str | None,
) -> Any:
    with errors_name(source), opened(source) as file:
        if sha256 is not None and sha256_of(file) != sha256.lower():
            raise InputError('its SHA-256 digest is not the expected one: it is damaged, or another file')
        if trust_pickle and (kind := container(ByteSource(file))) in ('pickle', 'zip', 'legacy'):
            return find_live(_run(file, kind))
        try:
            return find(_read(file))
        except safe_pickle.ForbiddenNames as error:
            raise CodeRefused(f'{str(error)[:MOST_SHOWN]}; nothing of it was run.{TRUST_HINT}') from error
        except nvidia_pytorch.UnknownArchitecture as error:
            raise CodeRefused(f'{str(error)[:MOST_SHOWN]}; its own source text was not run.{TRUST_HINT}') from error


def _build(contents: object, formats: tuple[Any, ...], function: str, wanted: str) -> torch.nn.Module:
    for module in formats:
        if module.matches(contents):
            return getattr(module, function)(contents)
    if known := _what_else(contents):
        raise InputError(f'it is {known}not the {wanted} that is needed here')
    keys = ', '.join(str(key)[:30] for key in list(contents)[:8]) if isinstance(contents, LazyEntries) else ''
    holds = f'it holds {keys}, and' if keys else 'it holds'
    raise InputError(f'{holds} no {wanted} that is known here')


def _what_else(contents: Any) -> str:
    """What a file is that was given in the place of another one, 'an encoder, ' for example; '' where that is not known."""
    if ours.is_snapshot(contents):
        return 'a snapshot of the temporal model, '
    if ours.matches(contents):
        return 'an encoder, '
    if any(module.matches(contents) for module in GENERATOR_FORMATS):
        return 'an image generator (StyleGAN2 or StyleGAN3), '
    return ''


def _reference_path(contents: Any) -> str:
    reference = contents.raw('image_generator')
    path = reference.get('path') if isinstance(reference, dict) else None
    return path[:200] if isinstance(path, str) else '(no path recorded)'


def _read(file: BinaryIO) -> Any:
    """The contents without running anything, as the formats take them."""
    source = ByteSource(file)
    kind = container(source)
    if kind == 'safetensors':
        return safetensors_pair.read(source)
    if kind == 'zip':
        contents = torch_archive.read_zip(source)
    elif kind == 'legacy':
        contents = torch_archive.read_legacy(source)
    else:
        contents = torch_archive.read_plain_pickle(source)
    return LazyEntries(contents) if isinstance(contents, dict) else contents


# ----------------------------------------------------------------------------
# Files that are trusted to run code.


def _run(file: BinaryIO, kind: str) -> Any:
    """What the file's own program makes. Only for trust_pickle."""
    opener: Any = layout.PackagePickle if layout.is_packaged(__name__) else pickle
    file.seek(0)
    try:
        if kind == 'pickle':
            return opener.load(file)
        return torch.load(file, map_location='cpu', weights_only=False, pickle_module=opener)
    except Exception as error:  # It is a program of somebody else: it can fail in every way.
        raise InputError(f'running it failed: {type(error).__name__}: {str(error)[:MOST_SHOWN]}') from error


def _find_live(value: object, keys: tuple[str, ...]) -> torch.nn.Module:
    if isinstance(value, dict):
        value = next((value[key] for key in keys if isinstance(value.get(key), torch.nn.Module)), value)
    if isinstance(value, torch.nn.Module):
        return value
    contents = LazyEntries(value) if isinstance(value, dict) else value
    if keys == (ours.ENCODER_KEY,):
        return _build(contents, ENCODER_FORMATS, 'build_encoder', 'encoder')
    return _build(contents, GENERATOR_FORMATS, 'build_generator', 'image generator')
