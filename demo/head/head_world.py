"""The world of the talking head: what the demonstration and the fits need to know of it."""

from demo.head import dynamics, head_parameters, talking_head
from demo.head.head_judge import BLINK, judge
from demo.worlds import World

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
