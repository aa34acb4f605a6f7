"""The worlds that the demonstration knows, and what they have in common whatever is drawn."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch

from demo.car import car_parameters, driving, driving_car
from demo.hand import articulated_hand, gestures, hand_parameters
from demo.head import dynamics, head_parameters, talking_head
from demo.judge import BLINK, Event, judge, judge_motion
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


HEAD = World(
    name='head',
    title='talking head',
    table=head_parameters.TABLE,
    render=talking_head.render_with_features,
    perform=dynamics.perform,
    resolution=128,
    subject=8,
    events={'blink': BLINK},
    emphasis={'yaw': 6.0, 'blink': 6.0, 'mouth_open': 6.0},
    judge=judge,
    generator_file='talking-head-128.pkl',
    encoder_file='talking-head-128-encoder.pkl',
    reader_file='truth-reader.safetensors',
    about_file='world.json',
)

HAND = World(
    name='hand',
    title='hand',
    table=hand_parameters.TABLE,
    render=articulated_hand.render_with_features,
    perform=gestures.perform,
    resolution=64,
    subject=8,
    events=gestures.EVENTS,
    emphasis=dict.fromkeys(hand_parameters.FINGERS, 6.0),
    judge=functools.partial(judge_motion, table=hand_parameters.TABLE, events=gestures.EVENTS),
    generator_file='hand-64.pkl',
    encoder_file='hand-64-encoder.pkl',
    reader_file='hand-reader.safetensors',
    about_file='hand.json',
)

CAR = World(
    name='car',
    title='car',
    table=car_parameters.TABLE,
    render=driving_car.render_with_features,
    perform=driving.perform,
    resolution=64,
    subject=8,
    events=driving.EVENTS,
    emphasis={'azimuth': 6.0, 'wheel_x': 6.0, 'wheel_y': 6.0, 'indicator': 6.0, 'brake_light': 6.0},
    judge=driving.judge,
    generator_file='car-64.pkl',
    encoder_file='car-64-encoder.pkl',
    reader_file='car-reader.safetensors',
    about_file='car.json',
)

WORLDS: dict[str, World] = {world.name: world for world in (HEAD, HAND, CAR)}
