"""What a video is made of: options and networks in, one stream of codes for each seed out.

    plan = VideoPlan(generator, image_generator, Request(subject=('bob.npz',), motion_scale='0.5'), fps=25)
    source = plan.source(seed=3)        # training.videos.code_sources.CodeSource: read, state, restore
    codes = source.read(8)              # W+ codes [8, num_ws, w_dim]

The order of things: the model or the recording; what fades behind a given first frame; another rate or speed;
motion scale; another subject; edits; truncation. Keyframes count frames of the finished video.
"""

from __future__ import annotations

import dataclasses
import fractions
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from networks.checkpoints import file_sha256
from networks.errors import DAMAGED_FILE, InputError
from networks.image_generator import ImageGenerator
from training.commands.option_values import MAX_SEED
from training.commands.progress import report
from training.control.audio import MotionEnvelope
from training.control.continuation import Continuation, explain
from training.control.directions import parse_edit, read_direction
from training.control.keyframes import Keyframes, parse_keyframes
from training.control.loop import Bridge, LoopSource, find_bridge
from training.control.operators import CodeOperator, Edit, Mixture, MotionScale, Pipeline, Truncation
from training.control.option_types import TRANSFERS, parse_transition
from training.control.resampling import Resampled, resampling_step
from training.control.saved_state import SavedState, is_saved_state, read_state, source_of
from training.control.transfer import SubjectTransfer, subject_shift
from training.generation.pictures import PictureReader, is_picture, read_clip, split_clip
from training.latents.code_files import CODE_ENDINGS, read_codes
from training.latents.dataset import LatentDataset, is_latent_dataset
from training.videos.code_sources import CodeSource, ModelSource, RecordedSource, default_burn_in

MOST_FRAMES = 10**9  # that a line of generation.jsonl may tell of
FRAMES_OF_MOTION = 2000  # of the model's own, from which its directions of motion are taken


@dataclasses.dataclass(frozen=True)
class Request:
    """What shall be in a video, in plain values; all of it is written into generation.jsonl."""

    frames: int = 250
    fps: float | None = None  # None: that of the source
    speed: float = 1.0
    burn_in: int | None = None  # None: what the snapshot knows
    trunc: str = '1'
    trunc_center: str = 'subject'
    motion_scale: str = '1'
    subject: tuple[str, ...] = ()
    transfer: str = TRANSFERS[0]
    transfer_data: str | None = None
    motion: str | None = None
    first_frame: str | None = None
    continue_from: str | None = None
    loop: bool = False
    transition: tuple[str, ...] = ()
    first_frame_seed: int | None = None
    edit: tuple[str, ...] = ()
    audio: str | None = None
    react: float = 0.0

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            InputError: one sentence.
        """
        beginnings = [name for name, value in (
            ('--motion', self.motion), ('--first-frame', self.first_frame), ('--continue', self.continue_from),
            ('--loop', self.loop), ('--first-frame-seed', self.first_frame_seed is not None),
        ) if value]  # fmt: skip
        if len(beginnings) > 1:
            raise InputError(f'{" and ".join(beginnings)} cannot go together, because each says where the video begins')
        if self.transition and (self.loop or self.motion):
            raise InputError(
                f'--transition goes from one seed to another, so it cannot go with {"--loop" if self.loop else "--motion"}'
            )
        if not self.subject and (self.transfer_data or self.transfer != TRANSFERS[0]):
            raise InputError('--transfer and --transfer-data say how another subject is met; name it with --subject')
        if self.transfer_data and self.transfer != 'regression':
            raise InputError('--transfer-data is what --transfer=regression learns from; add that, or leave it out')
        if self.react and not self.audio:
            raise InputError('--react lets sound drive the motion; give the sound with --audio')
        if self.react and self.loop:
            raise InputError('--react follows a sound that does not repeat, so it cannot go with --loop')
        if self.first_frame or (self.continue_from and not is_saved_state(self.continue_from)):
            self.check_first_frame()

    def check_first_frame(self) -> None:
        """Refuse what would change a frame to begin with that is given.

        Raises:
            InputError: one sentence.
        """
        for name, text in (('--trunc', self.trunc), ('--motion-scale', self.motion_scale)):
            if parse_keyframes(text).at(0, 1)[0] != 1:
                raise InputError(
                    f'{name} would change the frame that {"--first-frame" if self.first_frame else "--continue"} begins '
                    f'with; let it begin with 1, as in {name}=1@0,0.7@50'
                )


def parse_subject(text: str) -> tuple[str, float | None]:
    """Divide SUBJECT@FRAME; without a frame the subject is there all the time."""
    match = re.fullmatch(r'(.+)@(\d{1,12})', text, re.ASCII)
    if match is None or os.path.exists(text):
        return text, None
    return match[1], float(match[2])


class VideoPlan:
    """Everything that the videos of one command share: shifts, directions, what was fitted.

    Args:
        generator: Latent generator; may be None with `request.motion`.
        image_generator: Image generator.
        request: What is wanted.
        fps: Frames per second of the latent generator's videos.
        reader: Embeds pictures; None: codes only, and pictures by optimisation.
        chunk: Frames that are made at a time.
        network_sha256: Of the snapshot; a video whose line in generation.jsonl has it is gone on with exactly.

    Attributes:
        fps: Of the finished videos.
        burn_in: Frames that are left out at the beginning.
        step: Frames of the source for one of the video.
        recording: Codes [T, num_ws, w_dim] of `request.motion`, or None.
        longest: Frames of video that the recording is enough for, or None.
        notes: What was found, for generation.jsonl: errors of fits, sha256 of the files that were used.

    Raises:
        InputError: something named in the request cannot be used.
    """

    def __init__(
        self,
        generator: Any,
        image_generator: ImageGenerator,
        request: Request,
        *,
        fps: float,
        reader: PictureReader | None = None,
        chunk: int = 8,
        network_sha256: str = '',
    ) -> None:
        request.check()
        self.generator, self.image_generator, self.request = generator, image_generator, request
        self.burn_in = default_burn_in(generator) if request.burn_in is None else request.burn_in
        self.num_ws, self.w_dim = int(image_generator.num_ws), int(image_generator.w_dim)
        self.notes: dict[str, Any] = {}
        self._reader = reader or PictureReader(image_generator)
        self._chunk = chunk
        self._network_sha256 = network_sha256
        self._device = next(image_generator.parameters()).device
        self.recording: np.ndarray | None = None
        if request.motion:
            self.recording, fps = self._read_recording(request.motion)
        self.source_fps = fps
        self.fps = float(request.fps or fps)
        self.step = resampling_step(fps, self.fps, request.speed)
        self._center = self._mean_code()
        self._envelope = MotionEnvelope(request.audio, self.fps, request.react) if request.audio and request.react else None
        self.longest: int | None = None
        if self.recording is not None:
            self.longest = longest = int((len(self.recording) - 1) / self.step) + 1
            if request.frames > longest:
                raise InputError(
                    f'--motion: {request.motion!r} has {len(self.recording)} frames, enough for {longest} frames of video at '
                    f'this rate and speed, and {request.frames} were asked for; choose --frames={longest} or less'
                )
        self._shift = self._subject_transfer()
        self._after = self._operators()
        self._saved: SavedState | None = None
        self._continuation, self._exact = self._beginning()
        self._bridges: dict[int, Bridge] = {}

    # ----------------------------------------------------------------------------
    # Parts.

    def _note_file(self, name: str, path: str) -> None:
        if os.path.isfile(path):
            self.notes.setdefault('inputs', {})[name] = {'path': path, 'sha256': file_sha256(path)}

    def _read_recording(self, source: str) -> tuple[np.ndarray, float]:
        path, clip = split_clip(source)
        if not os.path.exists(path):
            raise InputError(f'--motion: there is no file or folder {path!r}; give a latent data set or a code file')
        self._note_file('motion', path)
        if is_latent_dataset(path):
            codes, fps = read_clip(path, clip, self.num_ws, self.w_dim, '--motion')
        elif path.lower().endswith(CODE_ENDINGS):
            codes, rate = read_codes(path, num_ws=self.num_ws, w_dim=self.w_dim)
            fps = rate or 25.0
        else:
            raise InputError(f'--motion: {path!r} holds no codes; embed it first with embed_video.py')
        if len(codes) < 2:
            raise InputError(f'--motion: {source!r} is a single frame, so it has no motion')
        return codes, fps

    def _mean_code(self) -> torch.Tensor | None:
        """Mean code [num_ws, w_dim] of the subject that moves."""
        if self.recording is not None:
            return torch.from_numpy(self.recording.mean(axis=0, dtype=np.float64).astype(np.float32)).to(self._device)
        mean = getattr(self.generator, 'w_mean', None)
        return None if mean is None else mean.reshape(self.num_ws, self.w_dim)

    def _motion_codes(self) -> torch.Tensor | np.ndarray:
        """Codes from which the directions of motion are taken: the recording, or the model's own."""
        if self.recording is not None:
            return self.recording
        source = ModelSource(self.generator, 0, burn_in=self.burn_in)
        return torch.cat([source.read(100).cpu() for _ in range(FRAMES_OF_MOTION // 100)])

    def _subject_transfer(self) -> SubjectTransfer | None:
        request = self.request
        if not request.subject:
            return None
        parsed = [parse_subject(text) for text in request.subject]
        if len(parsed) > 1 and any(frame is None for _, frame in parsed):
            raise InputError('--subject: several subjects need a frame each, as in --subject=bob.npz@0 --subject=eve.npz@100')
        frames = [frame or 0.0 for _, frame in parsed]
        if frames != sorted(set(frames)):
            raise InputError('--subject: the frames of several subjects have to rise')
        several = None
        if request.transfer_data:
            self._note_file('transfer_data', request.transfer_data)
            with LatentDataset(request.transfer_data) as data:
                if (data.num_ws, data.w_dim) != (self.num_ws, self.w_dim):
                    raise InputError(
                        f'--transfer-data: the codes of {request.transfer_data!r} were made for another image generator'
                    )
                several = [np.array(data.load_clip(index)) for index in range(len(data.clips))]
        motion = self._motion_codes()
        shifts = []
        for index, (source, _) in enumerate(parsed):
            codes = self._reader.read(source)
            self._note_file(f'subject{index}', split_clip(source)[0])
            shifts.append(subject_shift(request.transfer, motion, codes, several).to(self._device))
        return SubjectTransfer(tuple(shifts), tuple(frames))

    def _operators(self) -> list[CodeOperator]:
        """What works on the codes of the finished video, in order."""
        operators: list[CodeOperator] = []
        request = self.request
        scale = parse_keyframes(request.motion_scale)
        if scale.plain() != 1 or self._envelope is not None:
            if self._center is None:
                raise InputError('--motion-scale needs the mean code of the subject, which this snapshot does not know')
            operators.append(MotionScale(self._center, scale, self._envelope))
        if self._shift is not None:
            operators.append(self._shift)
        for index, text in enumerate(request.edit):
            path, strength, layers = parse_edit(text)
            direction = read_direction(path, self.num_ws, self.w_dim, layers)
            self._note_file(f'edit{index}', path)
            operators.append(Edit(direction.to(self._device), strength))
        psi = parse_keyframes(request.trunc)
        if psi.plain() != 1:
            operators.append(Truncation(self._truncation_center(), psi))
        return operators

    def _truncation_center(self) -> torch.Tensor:
        if self.request.trunc_center == 'subject':
            if self._center is None:
                raise InputError('this snapshot does not know the mean code of its subject; use --trunc-center=generator')
            return self._center if self._shift is None else self._center + self._shift.shifts[0]
        average = getattr(getattr(self.image_generator, 'mapping', None), 'w_avg', None)
        if average is None:
            raise InputError('this image generator has no average code (mapping.w_avg); use --trunc-center=subject')
        return average.reshape(-1, self.w_dim).expand(self.num_ws, self.w_dim)

    # ----------------------------------------------------------------------------
    # Where the video begins.

    def _beginning(self) -> tuple[Continuation | None, tuple[int, int] | None]:
        """A fit of the frames to begin with, or (seed, frames) of a video of the model's own."""
        request = self.request
        source = request.first_frame or request.continue_from
        if not source:
            return None, None
        option = '--first-frame' if request.first_frame else '--continue'
        if request.continue_from and (own := self._own_video(source)) is not None:
            report(f'{source} is seed {own[0]} of this snapshot, {own[1]} frames long: going on exactly')
            self.notes['continues'] = {'seed': own[0], 'frame': own[1]}
            return None, own
        if request.continue_from and is_saved_state(source):
            saved = read_state(source)
            self._note_file('continue', source)
            if saved.network_sha256 == self._network_sha256:
                report(f'{source} is seed {saved.seed} of this snapshot before frame {saved.frame}: going on exactly')
                self.notes['continues'] = {'seed': saved.seed, 'frame': saved.frame}
                source_of(self.generator, saved, source)  # before anything is written: the file fits
                self._saved = saved
                return None, None
            request.check_first_frame()
        path, clip = split_clip(source)
        if request.continue_from and is_latent_dataset(path):
            codes = read_clip(path, clip, self.num_ws, self.w_dim, option)[0]
        else:
            codes = self._reader.read(source, option)
        if request.continue_from and (len(codes) == 1 or is_picture(path)):
            raise InputError(f'--continue: {source!r} is a single frame, too short to continue from; use --first-frame={source}')
        self._note_file(option.strip('-'), path)
        given = torch.from_numpy(np.ascontiguousarray(codes[:1] if request.first_frame else codes)).to(self._device)
        if self._shift is not None:
            given = given - self._shift.shifts[0]
        found = explain(self.generator, given, burn_in=self.burn_in)
        self.notes['beginning_error'] = round(found.error, 4)
        report(
            f'{option}: the model explains {source} up to {found.error:.3f} deviations of its codes; '
            f'the rest fades over {found.fade} frames'
        )
        return found, None

    def _own_video(self, source: str) -> tuple[int, int] | None:
        """(seed, number of frames seen by then) of a plain video of this snapshot, as generation.jsonl beside it tells."""
        folder, name = os.path.split(source)
        stem = os.path.splitext(name)[0]
        line = None
        try:
            with open(os.path.join(folder, 'generation.jsonl'), encoding='utf-8') as file:
                for text in file:
                    entry = json.loads(text)
                    if os.path.splitext(entry['file'])[0] == stem:
                        line = entry
            return None if line is None else self._plain_video(line)
        except (*DAMAGED_FILE, OSError):  # the codes are fitted
            return None

    def _plain_video(self, line: dict[str, Any]) -> tuple[int, int] | None:
        """(seed, number of frames) of a plain video of this snapshot with this line; None for other videos."""
        if line.get('network_sha256') != self._network_sha256 or len(line.get('seeds') or []) != 1:
            return None
        defaults = {**dataclasses.asdict(Request()), 'trunc': 1.0, 'motion_scale': 1.0}
        free = ('frames', 'fps', 'burn_in', 'trunc_center', 'transfer', 'audio')  # do not change the codes of a plain video
        for key, value in defaults.items():
            if key not in free and line.get(key, value) not in (value, list(value) if isinstance(value, tuple) else value):
                return None
        if float(line.get('fps') or 0) != float(self.source_fps):
            return None
        seed, frames = int(line['seeds'][0]), int(line['frames']) + int(line.get('burn_in') or 0)
        return (seed, frames) if 0 <= seed <= MAX_SEED and 0 <= frames <= MOST_FRAMES else None

    # ----------------------------------------------------------------------------
    # The stream.

    def bridge(self, seed: int) -> Bridge:
        """How the loop of this seed closes; searched once."""
        if seed not in self._bridges:
            self._bridges[seed] = find_bridge(self.generator, seed, self._loop_period(), burn_in=self.burn_in)
        return self._bridges[seed]

    def _loop_period(self) -> int:
        """Whole frames of the model in one turn of the loop."""
        return max(1, round(self.request.frames * self.step))

    def _model_source(self, seed: int) -> CodeSource:
        request, generator = self.request, self.generator
        if request.loop:
            return LoopSource(generator, self.bridge(seed), self._loop_period())
        if self._saved is not None:
            return source_of(generator, self._saved, str(request.continue_from))
        if self._exact is not None:
            return ModelSource(generator, self._exact[0], burn_in=self._exact[1])
        if self._continuation is not None:
            model = ModelSource(generator, seed, beginning=self._continuation.beginning)
            source = Pipeline(model, [self._continuation.operator()])
            if request.continue_from:
                source.read(1)  # the last known frame
            return source
        if request.first_frame_seed is not None:
            first = ModelSource(generator, request.first_frame_seed, burn_in=self.burn_in)
            return ModelSource(generator, seed, beginning=first.position())
        return ModelSource(generator, seed, burn_in=self.burn_in)

    def source(self, seed: int) -> CodeSource:
        """The codes of the video of one seed, from its first frame on."""
        step = self.step
        if self.recording is not None:
            source: CodeSource = RecordedSource(self.recording, self._device)
        else:
            source = self._model_source(seed)
            for text in self.request.transition:
                other, begin, end = parse_transition(text)
                assert self._center is not None
                second = ModelSource(self.generator, other, burn_in=self.burn_in)
                source = Mixture(
                    source, second, self._center, round(begin * step), max(round(end * step), round(begin * step) + 1)
                )
        if self.request.loop:
            period = self._loop_period()
            step = fractions.Fraction(period, self.request.frames)
            if step != 1:
                # A turn of the loop goes by unseen, but for its last frame: the cubic looks one frame back.
                for begin in range(0, period - 1, self._chunk):
                    source.read(min(self._chunk, period - 1 - begin))
                source = Resampled(source, step, chunk=self._chunk, leads=True)
        elif step != 1:
            source = Resampled(source, step, chunk=self._chunk)
        return Pipeline(source, self._after)


def plain_keyframes(text: str) -> float | str:
    """Keyframes as they are recorded: a number where they are one."""
    keyframes: Keyframes = parse_keyframes(text)
    return keyframes.plain()


def check_keyframes(options: Sequence[tuple[str, str, float, float]]) -> None:
    """Refuse values outside of a range; (option, keyframes, lowest, highest).

    Raises:
        InputError: one sentence that names the option.
    """
    for option, text, low, high in options:
        if any(not low <= value <= high for value in parse_keyframes(text).values):
            raise InputError(f'{option}: {text} leaves the range from {low:g} to {high:g}')
