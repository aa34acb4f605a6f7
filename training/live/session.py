"""From the options of play_video.py to a running stage, and what viewers may ask of it."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import math
import os
import re
import shlex
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from networks.checkpoints.durable_files import replacing
from networks.errors import InputError
from training.best_snapshot import find_snapshot
from training.commands import command_line
from training.control.directions import parse_edit, read_direction
from training.control.saved_state import SavedState, is_saved_state, read_state
from training.control.transfer import Motion, motion_of, subject_shift
from training.generation.pictures import PictureReader
from training.generation.run import load_encoder, load_networks
from training.latents.dataset import LatentDataset
from training.live.motion import EDIT_RANGE, RANGES, LiveMotion, Material
from training.live.stage import Stage
from training.temporal_snapshot import versions
from training.videos.code_sources import ModelSource, default_burn_in

FRAMES_OF_MOTION = 2000  # of the model's own, from which its directions of motion are taken
REMEMBERED_SUBJECTS = 16


@dataclasses.dataclass(frozen=True)
class NamedEdit:
    """A direction that viewers may move along.

    Attributes:
        name: On the page.
        path: File for `--edit` of generate_video.py.
        layers: As `--edit` takes them, '' are all.
        direction: [num_ws, w_dim].
        strength: At the beginning.
        to_write: The file is not there yet.
    """

    name: str
    path: str
    layers: str
    direction: torch.Tensor
    strength: float = 0.0
    to_write: bool = False


class LiveSession:
    """All that a server needs: networks, subjects, edits, and the stage with the video.

    Args:
        options: play_video.py's, as attributes.

    Raises:
        InputError: something that is named in the options cannot be used.
    """

    def __init__(self, options: types.SimpleNamespace) -> None:
        self._options = options
        network, reason = find_snapshot(options.network)
        self._network = network
        self.outdir = command_line.require_folder(options.outdir)
        command_line.report(f'Loading {network}' + (f' ({reason})' if reason else ''))
        device = command_line.choose_device(options.device)
        snapshot, self._image_generator, sha256, self._image_sha256 = load_networks(
            network, options.image_network, force=options.force_image_network, trust_pickle=options.trust_pickle, device=device
        )
        self._generator = snapshot['G_ema']
        self.fps = float(options.fps or snapshot.get('data', {}).get('fps') or 25)
        source_fps = float(snapshot.get('data', {}).get('fps') or 25)
        encoder = load_encoder(options, self._image_generator, device)
        self._reader = PictureReader(self._image_generator, encoder, align=options.align)
        shape = int(self._image_generator.num_ws), int(self._image_generator.w_dim)
        mean = getattr(self._generator, 'w_mean', None)
        if mean is None:
            raise InputError('this snapshot does not know the mean code of its subject, which the live view needs')
        self._burn_in = default_burn_in(self._generator) if options.burn_in is None else options.burn_in
        self._edits = self._read_edits(shape, device)
        material = Material(
            self._generator, sha256, self._burn_in, mean.reshape(shape), self._generator_average(shape),
            tuple(edit.direction for edit in self._edits), source_fps / self.fps,
        )  # fmt: skip
        saved: tuple[SavedState, str] | None = None
        if options.continue_from:
            saved = self._read_saved(options.continue_from, sha256)
        motion = LiveMotion(material, options.seed, saved)
        self._several = self._read_several(shape)
        self._shifts: collections.OrderedDict[str, torch.Tensor] = collections.OrderedDict()
        self._subjects = {str(index): source for index, source in enumerate(options.subject)}
        self._preparing = asyncio.Lock()
        self.stage = Stage(
            motion, self._image_generator, fps=self.fps, quality=options.quality, noise_mode=options.noise_mode,
            outdir=self.outdir, describe=self._describe,
        )  # fmt: skip
        self._begin(motion)

    # ----------------------------------------------------------------------------
    # Parts.

    def _read_edits(self, shape: tuple[int, int], device: torch.device) -> list[NamedEdit]:
        edits = []
        for text in self._options.edit:
            path, strength, layers = parse_edit(text)
            if not strength.is_constant:
                raise InputError(f'--edit: {text} changes between frames; here the page changes it, so give one strength')
            first = strength.values[0] if path != text else 0.0
            if not EDIT_RANGE[0] <= first <= EDIT_RANGE[1]:
                raise InputError(f'--edit: strengths lie between {EDIT_RANGE[0]:g} and {EDIT_RANGE[1]:g} here, not {first:g}')
            direction = read_direction(path, *shape, layers).to(device)
            edits.append(NamedEdit(os.path.splitext(os.path.basename(path))[0], path, layers, direction, first))
        count = self._options.directions
        if count:
            motion = self._own_motion()
            for index, (direction, variance) in enumerate(zip(motion.directions[:count], motion.variances[:count], strict=True)):
                step = (direction * variance.sqrt()).float().reshape(shape).to(device)
                path = os.path.join(self.outdir, f'motion{index:02d}.npy')
                edits.append(NamedEdit(f'own motion {index + 1}', path, '', step, to_write=True))
        return edits

    @functools.cached_property
    def _own_codes(self) -> torch.Tensor:
        """Codes of the model's own, on the CPU, from which its directions of motion are taken."""
        source = ModelSource(self._generator, 0, burn_in=self._burn_in)
        return torch.cat([source.read(100).cpu() for _ in range(FRAMES_OF_MOTION // 100)])

    def _own_motion(self) -> Motion:
        return motion_of(self._own_codes, self._options.directions)

    def _generator_average(self, shape: tuple[int, int]) -> torch.Tensor | None:
        if self._options.trunc_center == 'subject':
            return None
        average = getattr(getattr(self._image_generator, 'mapping', None), 'w_avg', None)
        if average is None:
            raise InputError('this image generator has no average code (mapping.w_avg); use --trunc-center=subject')
        return average.reshape(-1, shape[1]).expand(*shape)

    def _read_saved(self, path: str, sha256: str) -> tuple[SavedState, str]:
        if not is_saved_state(path):
            raise InputError(
                f'--continue: {path!r} is no state that this command has saved; generate_video.py goes on from other codes and '
                'recordings'
            )
        saved = read_state(path)
        if saved.network_sha256 != sha256:
            raise InputError(f'--continue: {path!r} is a state of another snapshot than {self._network!r}; give that one')
        return saved, path

    def _read_several(self, shape: tuple[int, int]) -> list[np.ndarray] | None:
        path = self._options.transfer_data
        if not path:
            return None
        with LatentDataset(path) as data:
            if (data.num_ws, data.w_dim) != shape:
                raise InputError(f'--transfer-data: the codes of {path!r} were made for another image generator')
            return [np.array(data.load_clip(index)) for index in range(len(data.clips))]

    def _begin(self, motion: LiveMotion) -> None:
        """The settings of the options, at once."""
        options = self._options
        motion.set_numbers({'trunc': options.trunc, 'motion_scale': options.motion_scale, 'speed': options.speed})
        for index, edit in enumerate(self._edits):
            motion.set_strength(index, edit.strength)
        for key in self._subjects:  # a picture that cannot be read is said now, not to a viewer
            self._shift(key)
        if self._subjects:
            self.stage.change_subject('0', lambda: motion.set_subject(self._shift('0')))
        motion.settle()

    def _shift(self, key: str) -> torch.Tensor:
        if key not in self._shifts:
            codes = self._reader.read(self._subjects.get(key, key))
            self._shifts[key] = subject_shift(self._options.transfer, self._own_codes, codes, self._several)
            while len(self._shifts) > REMEMBERED_SUBJECTS + len(self._subjects):
                drawn = next(name for name in self._shifts if name not in self._subjects)
                del self._shifts[drawn]
        self._shifts.move_to_end(key)
        return self._shifts[key]

    # ----------------------------------------------------------------------------
    # What a file says of itself.

    def _describe(self, settings: dict[str, Any], name: str) -> dict[str, Any]:
        return {
            'settings': settings,
            'command': self._command(settings, name),
            'network': self._network,
            'image_network_sha256': self._image_sha256,
            'burn_in': self._burn_in,
            'transfer': self._options.transfer,
            'trunc_center': self._options.trunc_center,
            'noise_mode': self._options.noise_mode,
            'versions': versions(),
        }

    def _command(self, settings: dict[str, Any], name: str) -> str:
        """What makes the video that follows a state, as a line for a shell."""
        options = self._options
        words = [
            f'--network={self._network}', f'--continue={os.path.join(self.outdir, name)}',
            f'--outdir={os.path.join(self.outdir, "continued")}', f'--seeds={settings["seed"]}', '--batch=1',
        ]  # fmt: skip
        for key in ('trunc', 'motion_scale', 'speed'):
            if settings[key] != 1:
                words.append(f'--{key.replace("_", "-")}={settings[key]:g}')
        if options.trunc_center != 'subject' and settings['trunc'] != 1:
            words.append(f'--trunc-center={options.trunc_center}')
        if options.fps:
            words.append(f'--fps={options.fps:g}')
        if settings['subject']:
            words.append(f'--subject={self._subjects.get(settings["subject"], settings["subject"])}')
            words.append(f'--transfer={options.transfer}')
            for option, value in (('--transfer-data', options.transfer_data), ('--encoder', options.encoder)):
                words += [f'{option}={value}'] if value else []
            words += ['--align=ffhq'] if options.align == 'ffhq' else []
        for edit, strength in zip(self._edits, settings['edits'], strict=True):
            if strength:
                self._write_direction(edit)
                words.append(f'--edit={edit.path}:{strength:g}' + (f':{edit.layers}' if edit.layers else ''))
        if options.noise_mode != 'const':
            words.append(f'--noise-mode={options.noise_mode}')
        if options.burn_in is not None:
            words.append(f'--burn-in={options.burn_in}')
        if options.image_network:
            words.append(f'--image-network={options.image_network}')
        words += ['--force-image-network'] if options.force_image_network else []
        words += ['--trust-pickle'] if options.trust_pickle else []
        return shlex.join(['python', 'generate_video.py', *words])

    @staticmethod
    def _write_direction(edit: NamedEdit) -> None:
        if edit.to_write:
            with replacing(edit.path) as temporary, open(temporary, 'wb') as file:
                np.save(file, edit.direction.cpu().numpy())

    # ----------------------------------------------------------------------------
    # What viewers may ask for.

    def choices(self) -> dict[str, Any]:
        """What the page offers, plain values; no path is among them."""
        side = int(self._image_generator.img_resolution)
        return {
            'size': side,
            'fps': self.fps,
            'ranges': RANGES,
            'edit_range': EDIT_RANGE,
            'edits': [edit.name for edit in self._edits],
            'subjects': [{'key': key, 'name': _shown(source)} for key, source in self._subjects.items()],
            'begin': {
                **{name: getattr(self._options, name) for name in RANGES},
                'edits': [edit.strength for edit in self._edits],
            },
        }

    async def grant(self, wish: dict[str, Any]) -> dict[str, Any] | None:
        """Carry out a wish between two frames.

        Raises:
            ValueError: there is no such wish, or it names what is not offered.
            InputError, OSError: it could not be carried out.
        """
        stage, motion = self.stage, self.stage.motion
        kind, name = str(wish.get('type')), str(wish.get('name'))
        plain: dict[str, Callable[[], Any]] = {'play': stage.play, 'pause': stage.pause, 'step': stage.step}
        if kind in plain:
            await self._do(plain[kind])
        elif kind == 'set' and name in RANGES:
            values = {name: parse_number(wish.get('value'), name)}
            await self._do(lambda: stage.change(lambda: motion.set_numbers(values), values))
        elif kind == 'edit':
            index, strength = wish.get('index'), parse_number(wish.get('value'), 'the strength of an edit')
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self._edits):
                raise ValueError('there is no such edit')
            what = {f'edit{index}': strength}
            await self._do(lambda: stage.change(lambda: motion.set_strength(index, strength), what))
        elif kind == 'seed':
            seed = parse_seed(wish.get('seed'))
            await self._do(lambda: stage.change(lambda: motion.change_seed(seed), {'seed': seed}))
        elif kind == 'subject':
            await self._change_subject(wish.get('key'))
        elif kind == 'record':
            made = await self._do(lambda: stage.record(wish.get('on') is True))
            return {'type': 'recorded', 'name': made} if made else None
        elif kind == 'save':
            return {'type': 'saved', **await self._do(stage.save)}
        else:
            raise ValueError('this is nothing that can be asked for')
        return None

    async def _do(self, task: Callable[[], Any]) -> Any:
        return await asyncio.wrap_future(self.stage.submit(task))

    async def _change_subject(self, key: Any) -> None:
        motion = self.stage.motion
        if key == '':
            await self._do(lambda: self.stage.change_subject('', lambda: motion.set_subject(None)))
            return
        key = parse_subject_key(key, self._subjects)
        if self._preparing.locked():
            raise ValueError('another subject is being prepared; try again in a moment')
        async with self._preparing:  # beside the video, which goes on meanwhile
            shift = await asyncio.get_running_loop().run_in_executor(None, self._shift, key)
        await self._do(lambda: self.stage.change_subject(key, lambda: motion.set_subject(shift)))


def _shown(source: str) -> str:
    """A subject as the page calls it: without its folder."""
    return source if source.startswith('seed:') else os.path.basename(source.rstrip('/' + os.sep))


def parse_seed(value: object) -> int:
    """A seed out of a wish.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise ValueError('a seed is a whole number from 0 to 4294967295')
    return value


def parse_number(value: object, what: str) -> float:
    """A finite number out of a wish.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f'{what} is a number')
    return float(value)


def parse_subject_key(value: object, keys: Iterable[str]) -> str:
    """The key of a subject out of a wish: one that is offered, or 'seed:NUMBER'.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and (value in set(keys) or re.fullmatch(r'seed:\d{1,9}', value, re.ASCII)):
        return value
    raise ValueError('there is no such subject')
