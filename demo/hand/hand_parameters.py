"""The true parameters of the hand. Lengths are in hand units (1 = about the length of the palm), angles in radians."""

from demo.parameters import Parameter, ParameterTable

FINGERS = ('index', 'middle', 'ring', 'little')

TABLE = ParameterTable(
    identity=(
        Parameter('skin_depth', 0.0, 1.0),  # 0 = light, 1 = deep
        Parameter('skin_warmth', -1.0, 1.0, 'normal'),  # rosy to golden
        Parameter('palm_width', 0.92, 1.08, 'normal'),
        Parameter('finger_length', 0.93, 1.06, 'normal'),
        Parameter('finger_thickness', 0.92, 1.10, 'normal'),
        Parameter('gold_ring', 0.0, 1.0, 'rare', 0.4),  # from 0.25 on fully there
        Parameter('sleeve_hue', 0.0, 1.0),
        Parameter('sleeve_lightness', 0.0, 1.0),
        Parameter('backdrop_hue', 0.0, 1.0),
        Parameter('backdrop_lightness', 0.0, 1.0),
    ),
    motion=(
        Parameter('yaw', -0.40, 0.40, 'normal'),  # around the forearm; > 0: the palm turns to the right of the picture
        Parameter('pitch', -0.22, 0.22, 'normal'),  # > 0: the fingers lean away from the camera
        Parameter('roll', -0.28, 0.28, 'normal'),  # > 0: anticlockwise in the picture
        Parameter('shift_x', -0.06, 0.06, 'normal'),
        Parameter('shift_y', -0.05, 0.05, 'normal'),
        Parameter('thumb', 0.0, 1.0),  # 0 = away from the palm, 1 = across it
        *(Parameter(finger, 0.0, 1.0) for finger in FINGERS),  # 0 = straight, 1 = curled in
        Parameter('spread', 0.0, 1.0),  # of the fingers
    ),
)
