"""The world of the car: what the demonstration and the fits need to know of it."""

from demo.car import car_parameters, driving, driving_car
from demo.worlds import World

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
