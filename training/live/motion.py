"""Codes of an endless video whose settings change while it runs, one code at a time.

The order of things is that of training.generation.plan: the model, its speed, the size of the motion, another subject, edits,
truncation. At rest the operators are the same ones with the same numbers, so what was seen here can be made again there to the
last bit. After a change, numbers go to their new values in a straight line over `RAMP` frames, and another seed takes over within
`TRANSITION` frames, with weights whose squares add up to 1 (training.control.operators.Mixture says why).
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from training.control.keyframes import Keyframes
from training.control.operators import CodeOperator, Edit, MotionScale, Truncation
from training.control.resampling import between
from training.control.saved_state import SavedState, source_of
from training.control.transfer import SubjectTransfer
from training.videos.code_sources import ModelSource

RAMP = 8  # frames from one setting to the next
TRANSITION = 25  # frames from one seed to the next
REMEMBERED = 50  # codes that a saved state shows
RANGES = {'trunc': (0.0, 1.5), 'motion_scale': (0.0, 2.0), 'speed': (0.1, 3.0)}  # what may be asked for
EDIT_RANGE = (-5.0, 5.0)


@dataclasses.dataclass(frozen=True)
class Material:
    """What does not change while a video runs.

    Attributes:
        generator: Latent generator.
        network_sha256: Of its snapshot file.
        burn_in: Frames that a seed leaves out at its beginning.
        center: Mean code [num_ws, w_dim] of the subject that moves.
        truncation_center: What truncation pulls towards, [num_ws, w_dim]; None: the subject that is seen.
        directions: [num_ws, w_dim] of each edit.
        step: Frames of the model for one that is shown, at a speed of 1.
    """

    generator: Any
    network_sha256: str
    burn_in: int
    center: torch.Tensor
    truncation_center: torch.Tensor | None
    directions: tuple[torch.Tensor, ...]
    step: float = 1.0


class _Track:
    """The model's own frames of one seed, with the four around the moment that is shown: a cubic curve goes through them."""

    def __init__(self, source: ModelSource, seed: int, frame: int) -> None:
        self.source, self.seed = source, seed
        self.frame = frame  # number of the second code, between which and the third the moment lies
        self.phase = 0.0  # how far the moment is from the second code, below 1
        self._before: list[dict[str, Any]] = []
        self._codes: list[torch.Tensor] = []
        for _ in range(3):
            self._read()
        first, second = self._codes[:2]
        self._codes.insert(0, 2 * first - second)  # as if the first step had been made twice
        self._before.insert(0, self._before[0])

    def _read(self) -> None:
        self._before.append(self.source.state())
        self._codes.append(self.source.read(1)[0])

    def advance(self, step: float) -> None:
        """Go on by `step` frames of the model."""
        whole = math.floor(self.phase + step)
        self.phase = self.phase + step - whole
        if step == round(step) and self.phase:  # slow motion is over: the model's own frames again, the nearest first
            whole += round(self.phase)
            self.phase = 0.0
        for _ in range(whole):
            self._read()
            del self._codes[0], self._before[0]
        self.frame += whole

    def code(self) -> torch.Tensor:
        """The code [num_ws, w_dim] of this moment."""
        return between(list(self._codes), self.phase)

    def state_before(self, following: int) -> dict[str, Any]:
        """State of the source before the frame `frame + following`; 0 or 1."""
        return self._before[1 + following]


class _Ramp:
    """A number, or a tensor, on its straight way to the last one that was asked for."""

    def __init__(self, value: Any) -> None:
        self.value = self.target = value
        self._left = 0

    def go_to(self, target: Any) -> None:
        self.target, self._left = target, RAMP

    def advance(self) -> None:
        if self._left > 1:
            self.value = self.value + (self.target - self.value) / self._left
            self._left -= 1
        else:
            self.settle()

    def settle(self) -> None:
        self.value, self._left = self.target, 0


class LiveMotion:
    """One endless video that obeys.

    Args:
        material: What does not change.
        seed: What it begins with.
        saved: Or the state that it goes on from, and where that came from.

    Attributes:
        seed: Of the video that is seen, or that is taking over.
    """

    def __init__(self, material: Material, seed: int, saved: tuple[SavedState, str] | None = None) -> None:
        self.material = material
        self._numbers = {name: _Ramp(1.0) for name in RANGES}
        self._strengths = [_Ramp(0.0) for _ in material.directions]
        self._shift = _Ramp(torch.zeros_like(material.center))
        self._remembered: collections.deque[np.ndarray] = collections.deque(maxlen=REMEMBERED)
        self._leaving: _Track | None = None
        self._gone_over = 0  # frames since the transition began
        self._started = False
        if saved is None:
            self._track = self._begin(seed)
        else:
            self._track = _Track(source_of(material.generator, *saved), saved[0].seed, saved[0].frame)

    def _begin(self, seed: int) -> _Track:
        return _Track(ModelSource(self.material.generator, seed, burn_in=self.material.burn_in), seed, 0)

    # ----------------------------------------------------------------------------
    # Changes.

    @property
    def seed(self) -> int:
        return self._track.seed

    @property
    def frame(self) -> int:
        """Number of the model's frame that is shown, counted from the first of its seed behind the burn-in."""
        return self._track.frame

    def change_seed(self, seed: int) -> None:
        """Go over to the video of another seed, from its first frame on."""
        if self._started:
            self._leaving, self._gone_over = self._track, 0
        self._track = self._begin(seed)

    def set_numbers(self, values: Mapping[str, float]) -> None:
        """Ask for other values of `trunc`, `motion_scale` and `speed`; within `RANGES`, or ValueError."""
        for name, value in values.items():
            low, high = RANGES[name]
            if not low <= value <= high:
                raise ValueError(f'{name} lies between {low:g} and {high:g}')
        for name, value in values.items():
            self._numbers[name].go_to(float(value))

    def set_strength(self, index: int, strength: float) -> None:
        """Ask for another strength of an edit."""
        low, high = EDIT_RANGE
        if not low <= strength <= high:
            raise ValueError(f'the strength of an edit lies between {low:g} and {high:g}')
        self._strengths[index].go_to(float(strength))

    def set_subject(self, shift: torch.Tensor | None) -> None:
        """Ask for another subject, by what is added to the codes, [num_ws, w_dim]; None is the model's own."""
        self._shift.go_to(torch.zeros_like(self.material.center) if shift is None else shift.to(self.material.center))

    def settle(self) -> None:
        """End all that is under way: what was asked for holds at once."""
        for ramp in (*self._numbers.values(), *self._strengths, self._shift):
            ramp.settle()
        self._leaving = None

    def wanted(self) -> dict[str, Any]:
        """The settings that were asked for, plain values."""
        return {**{name: ramp.target for name, ramp in self._numbers.items()}, 'edits': [ramp.target for ramp in self._strengths]}

    # ----------------------------------------------------------------------------
    # Codes.

    def next(self) -> torch.Tensor:
        """The next code [1, num_ws, w_dim], after all operators."""
        for ramp in (*self._numbers.values(), *self._strengths, self._shift):
            ramp.advance()
        if self._started:
            step = self.material.step * self._numbers['speed'].value
            self._track.advance(step)
            if self._leaving is not None:
                self._leaving.advance(step)
                self._gone_over += 1
                if self._gone_over >= TRANSITION:
                    self._leaving = None
        self._started = True
        code = self.again()
        self._remembered.append(code[0].float().cpu().numpy())
        return code

    def again(self) -> torch.Tensor:
        """The code of the moment that is shown, under the settings of now."""
        codes = self._raw()[None]
        for operator in self._operators():
            codes = operator(codes, 0)
        return codes

    def _raw(self) -> torch.Tensor:
        code = self._track.code()
        if self._leaving is None:
            return code
        angle = (1 - math.cos(math.pi * self._gone_over / TRANSITION)) / 2 * math.pi / 2
        center = self.material.center
        return center + math.cos(angle) * (self._leaving.code() - center) + math.sin(angle) * (code - center)

    def _operators(self) -> list[CodeOperator]:
        material = self.material
        operators: list[CodeOperator] = []
        scale, psi = self._numbers['motion_scale'].value, self._numbers['trunc'].value
        if scale != 1:
            operators.append(MotionScale(material.center, Keyframes.constant(scale)))
        shift = self._shift.value
        if bool(shift.any()):
            operators.append(SubjectTransfer((shift,)))
        for direction, ramp in zip(material.directions, self._strengths, strict=True):
            if ramp.value:
                operators.append(Edit(direction, Keyframes.constant(ramp.value)))
        if psi != 1:
            center = material.center + shift if material.truncation_center is None else material.truncation_center
            operators.append(Truncation(center, Keyframes.constant(psi)))
        return operators

    # ----------------------------------------------------------------------------
    # States.

    def saved(self, about: Mapping[str, Any]) -> tuple[SavedState, np.ndarray]:
        """The state before the next frame of the model, and the last codes [T, num_ws, w_dim] that were shown.

        The state is exact; settings that are on their way, and a seed that is leaving, are taken to be where they go.
        """
        following = 1 if self._started else 0
        state = SavedState(
            self.material.network_sha256,
            self._track.seed,
            self._track.frame + following,
            self._track.state_before(following),
            dict(about),
        )
        return state, np.stack(self._remembered or [self.again()[0].float().cpu().numpy()])
