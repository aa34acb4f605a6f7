"""The project's own files: snapshots of the temporal model, encoders, and converted image generators."""

from collections.abc import Callable
from typing import Any

import torch

import dnnlib
from networks.checkpoints.formats import nvidia_pytorch
from networks.checkpoints.formats.assembly import assemble
from networks.checkpoints.lazy_data import LazyEntries, PersistentNode, materialize
from networks.errors import InputError
from networks.latent_generator import EventLatentGenerator, FilteredLatentGenerator, LatentGenerator
from networks.temporal_critic import TemporalCritic
from networks.w_encoder import WEncoder

SNAPSHOT_FORMAT = 'stylevideogan-snapshot'
SNAPSHOT_VERSION = 3  # 2: G_ema may be a FilteredLatentGenerator; 3: or an EventLatentGenerator, or bounded
STATE_FORMAT = 'stylevideogan-training-state'
STATE_VERSION = 1
SNAPSHOT_KEYS = ('G', 'G_ema', 'C', 'image_generator')
LARGEST_NUMBER, HIGHEST_RATE = 10**15, 1000
# Kinds of what a snapshot says in plain values, as far as it says them.
PLAIN_ENTRIES: dict[str, tuple[type, ...]] = {
    'image_generator': (dict,), 'image_generator.path': (str,), 'image_generator.sha256': (str,),
    'data': (dict,), 'data.path': (str,), 'data.sha256': (str,), 'data.fps': (int, float), 'data.num_clips': (int,),
    'data.num_frames': (int,), 'data.clips': (list,), 'training_options': (dict,), 'progress': (dict,), 'versions': (dict,),
}  # fmt: skip
ENCODER_KEY = 'encoder'

# Classes that our files name. A class comes from this table, never from the text that the file carries.
CLASSES: dict[str, Callable[..., torch.nn.Module]] = {
    'LatentGenerator': LatentGenerator,
    'FilteredLatentGenerator': FilteredLatentGenerator,
    'EventLatentGenerator': EventLatentGenerator,
    'TemporalCritic': TemporalCritic,
    'WEncoder': WEncoder,
}


def is_snapshot(contents: object) -> bool:
    """Whether this is a snapshot of the temporal model."""
    return isinstance(contents, LazyEntries) and contents.raw('format') == SNAPSHOT_FORMAT


def build_snapshot(contents: LazyEntries) -> dnnlib.EasyDict:
    """Everything in a snapshot, with the networks as modules in evaluation mode.

    Raises:
        InputError: It was written by a newer version, lacks entries, or its weights do not fit.
    """
    version = contents.raw('format_version')
    if type(version) is not int or version > SNAPSHOT_VERSION:
        shown = version if type(version) in (int, str) else type(version).__name__
        raise InputError(f'it is a snapshot of format {shown!s:.20}, written by a newer version; update this program')
    missing = [key for key in SNAPSHOT_KEYS if key not in contents]
    if missing:
        raise InputError(f'its snapshot lacks {", ".join(missing)}')
    snapshot = dnnlib.EasyDict()
    for key in contents:
        value = contents.raw(key)
        snapshot[key] = build_module(value) if isinstance(value, PersistentNode) else _easy(materialize(value), {})
    for path, kinds in PLAIN_ENTRIES.items():
        _check_entry(snapshot, path, kinds)
    if not isinstance(snapshot.G_ema, LatentGenerator):
        raise InputError('its snapshot holds something else than a latent generator under G_ema')
    return snapshot


def _check_entry(snapshot: dict[str, Any], path: str, kinds: tuple[type, ...]) -> None:
    """Raise InputError where an entry is there and of another kind, or a rate or number is none."""
    group, _, key = path.rpartition('.')
    holder = snapshot.get(group, {}) if group else snapshot
    if key not in holder:
        return
    value: Any = holder[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f'its {path} is of another kind than it should be ({type(value).__name__:.40})')
    number: Any = value
    if isinstance(number, int | float) and not 0 <= number < LARGEST_NUMBER:
        raise InputError(f'its {path} is out of range')
    if path == 'data.fps' and not 0 < number <= HIGHEST_RATE:
        raise InputError(f'its {path} is {number:.6g}, which is no rate of frames')


def matches(contents: object) -> bool:
    """Whether this is one of our encoders: alone, or under `encoder`."""
    return find_encoder(contents) is not None


def find_encoder(contents: object) -> PersistentNode | None:
    """The node of the encoder, or None."""
    node = contents.raw(ENCODER_KEY) if isinstance(contents, LazyEntries) else contents
    return node if isinstance(node, PersistentNode) and node.class_name == 'WEncoder' else None


def build_encoder(contents: object) -> torch.nn.Module:
    """The encoder in evaluation mode: images [N, C, H, W] in [-1, 1] -> codes [N, num_ws, w_dim]."""
    node = find_encoder(contents)
    if node is None:
        raise InputError('it holds no encoder')
    return build_module(node)


def build_module(node: PersistentNode) -> torch.nn.Module:
    """The module of one of our classes with the construction arguments and weights of the node."""
    construct = CLASSES.get(node.class_name)
    if construct is None:
        raise InputError(f'it holds a {node.class_name[:60]}, which is none of {", ".join(CLASSES)}')
    where = f'its {node.class_name}'
    args, kwargs = node.constructor_arguments()
    nvidia_pytorch.check_arguments([*args, kwargs], f"{where}'s construction arguments")
    return assemble(lambda: construct(*args, **kwargs), node.tensors(), where=where)  # type: ignore[arg-type]


def _easy(value: object, done: dict[int, Any]) -> Any:
    """EasyDict in the place of dict, also within each other; what is shared stays shared."""
    if not isinstance(value, dict):
        return value
    if id(value) not in done:
        done[id(value)] = made = dnnlib.EasyDict()
        for key, member in value.items():
            made[key] = _easy(member, done)
    return done[id(value)]
