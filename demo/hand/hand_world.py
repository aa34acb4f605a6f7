"""The world of the hand: what the demonstration and the fits need to know of it."""

import functools

from demo.hand import articulated_hand, gestures, hand_parameters
from demo.judge import judge_motion
from demo.worlds import World

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
