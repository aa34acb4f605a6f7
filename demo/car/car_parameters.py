"""The true parameters of the car. Lengths are in car units (1 = about half its length), angles in radians."""

from demo.parameters import Parameter, ParameterTable

TABLE = ParameterTable(
    identity=(
        Parameter('paint_hue', 0.0, 1.0),
        Parameter('paint_lightness', 0.0, 1.0),
        Parameter('length', 0.92, 1.06, 'normal'),
        Parameter('cabin_height', 0.28, 0.42, 'normal'),
        Parameter('cabin_place', -0.16, 0.02, 'normal'),  # of its middle; > 0: forward
        Parameter('rear_slope', 0.15, 0.85),  # estate to coupe
        Parameter('wheel_size', 0.19, 0.24, 'normal'),
        Parameter('rim_lightness', 0.35, 1.0),
        Parameter('ground_lightness', 0.0, 1.0),
        Parameter('backdrop_hue', 0.0, 1.0),
        Parameter('backdrop_lightness', 0.0, 1.0),
    ),
    motion=(
        Parameter('azimuth', -1.1, 1.1, 'normal'),  # 0: from the side; > 0: the front turns to the camera
        Parameter('elevation', 0.16, 0.40, 'normal'),  # of the camera
        Parameter('shift_x', -0.10, 0.10, 'normal'),
        Parameter('heave', -0.035, 0.035, 'normal'),  # suspension; > 0: up
        Parameter('pitch', -0.07, 0.07, 'normal'),  # suspension; > 0: nose up
        Parameter('roll', -0.09, 0.09, 'normal'),  # suspension; > 0: leans towards the camera
        Parameter('steer', -0.55, 0.55, 'normal'),  # of the front wheels; > 0: towards the camera
        Parameter('wheel_x', -1.0, 1.0, 'normal'),  # wheels look alike after a third of a turn:
        Parameter('wheel_y', -1.0, 1.0, 'normal'),  # the angle of (wheel_x, wheel_y) is three times theirs
        Parameter('indicator', 0.0, 1.0, 'rare', 0.35),  # 0 = dark, 1 = lit
        Parameter('brake_light', 0.0, 1.0, 'rare', 0.35),
    ),
)
