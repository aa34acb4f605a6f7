"""The worlds that the demonstration knows, and what they have in common whatever is drawn."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch

from demo.judge import Event
from demo.parameters import ParameterTable

FOLDER = pathlib.Path(__file__).resolve().parent / 'world'


class Performance(Protocol):
    """What happens in a stretch of footage, with its truth."""

    @property
    def parameters(self) -> np.ndarray:
        """Rows for the renderer `[T, P]` float32."""

    def truth(self) -> dict[str, np.ndarray]:
        """Everything known about it, by name: parameters, and frames of events as `NAME_frames` where they were planned."""


@dataclasses.dataclass(frozen=True)
class World:
    """A world: its parameters, what draws and moves it, where its files are, and what counts in it.

    render:   rows `[N, P]` and resolution to pictures `[N, 3, R, R]` in [-1, 1] and feature maps `[N, 1, R, R]` in [0, 1].
    perform:  number of frames and (as `seed`) number of the subject to a performance at 25 fps.
    subject:  whom the demonstration shows.
    events:   what the reader has to find in footage, by name.
    emphasis: weights of parameters when the readers are fitted; of others, 1 for identity and 3 for motion.
    judge:    statistics of tracks `[T, P]` at a frame rate.
    """

    name: str
    title: str
    table: ParameterTable
    render: Callable[[torch.Tensor | np.ndarray, int], tuple[torch.Tensor, torch.Tensor]]
    perform: Callable[..., Performance]
    resolution: int
    subject: int
    events: Mapping[str, Event]
    emphasis: Mapping[str, float]
    judge: Callable[[np.ndarray, float], dict[str, float]]
    generator_file: str
    encoder_file: str
    reader_file: str
    about_file: str

    @property
    def files(self) -> tuple[str, str, str]:
        """Generator, encoder, reader of true parameters."""
        return self.generator_file, self.encoder_file, self.reader_file


WORLDS = {  # module and name: a world's code is imported when it is asked for, so that cars need no head
    'head': ('demo.head.head_world', 'HEAD'),
    'hand': ('demo.hand.hand_world', 'HAND'),
    'car': ('demo.car.car_world', 'CAR'),
}


def find_world(name: str) -> World:
    """The world of this name, one of `WORLDS`."""
    module, attribute = WORLDS[name]
    world: World = getattr(importlib.import_module(module), attribute)
    return world
