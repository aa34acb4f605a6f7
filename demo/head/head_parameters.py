"""The true parameters of the talking head: names, meanings, ranges.

A head is a row of `NUM_PARAMETERS` floats in the order of `NAMES`: first the identity (what stays while somebody talks),
then the motion (what changes from frame to frame). Lengths are in head units (1 = about half the height of the skull),
angles in radians, fractions in [0, 1].
"""

from demo.parameters import Parameter, ParameterTable

IDENTITY: tuple[Parameter, ...] = (
    # Face.
    Parameter('skin_depth', 0.0, 1.0),  # 0 = light, 1 = deep
    Parameter('skin_warmth', -1.0, 1.0, 'normal'),  # rosy to golden
    Parameter('face_width', 0.90, 1.08, 'normal'),
    Parameter('face_length', 0.90, 1.10, 'normal'),
    Parameter('jaw_width', 0.84, 1.12, 'normal'),
    Parameter('cheek_fullness', 0.85, 1.12, 'normal'),
    Parameter('chin_size', 0.75, 1.20, 'normal'),
    Parameter('ear_size', 0.80, 1.20, 'normal'),
    # Eyes and brows.
    Parameter('eye_size', 0.86, 1.12, 'normal'),
    Parameter('eye_spacing', 0.94, 1.08, 'normal'),
    Parameter('eye_tilt', -0.12, 0.18, 'normal'),
    Parameter('iris_hue', 0.0, 1.0),  # brown, hazel, green, blue, grey
    Parameter('brow_thickness', 0.65, 1.40, 'normal'),
    Parameter('brow_tilt', -0.14, 0.14, 'normal'),
    # Nose and mouth.
    Parameter('nose_size', 0.80, 1.20, 'normal'),
    Parameter('nose_width', 0.80, 1.25, 'normal'),
    Parameter('lip_fullness', 0.65, 1.35, 'normal'),
    Parameter('lip_colour', 0.0, 1.0),  # skin-like to red
    Parameter('mouth_size', 0.88, 1.12, 'normal'),
    # Hair.
    Parameter('hair_darkness', 0.0, 1.0),  # blond to black
    Parameter('hair_redness', 0.0, 1.0),
    Parameter('hair_volume', 0.0, 1.0),
    Parameter('hair_length', 0.0, 1.0),
    Parameter('hair_fringe', 0.0, 1.0),
    Parameter('hair_parting', -1.0, 1.0, 'normal'),
    Parameter('beard', 0.0, 1.0, 'rare', 0.18),  # from 0.4 on a full one
    Parameter('glasses', 0.0, 1.0, 'rare', 0.22),  # from 0.25 on fully there
    # Surroundings.
    Parameter('cloth_hue', 0.0, 1.0),
    Parameter('cloth_lightness', 0.0, 1.0),
    Parameter('backdrop_hue', 0.0, 1.0),
    Parameter('backdrop_lightness', 0.0, 1.0),
)

MOTION: tuple[Parameter, ...] = (
    Parameter('yaw', -0.40, 0.40, 'normal'),  # > 0: the nose moves to the right of the picture
    Parameter('pitch', -0.20, 0.20, 'normal'),  # > 0: the head looks up
    Parameter('roll', -0.16, 0.16, 'normal'),  # > 0: anticlockwise in the picture
    Parameter('shift_x', -0.11, 0.11, 'normal'),
    Parameter('shift_y', -0.06, 0.06, 'normal'),
    Parameter('gaze_x', -1.0, 1.0, 'normal'),  # > 0: to the right of the picture
    Parameter('gaze_y', -0.8, 0.8, 'normal'),  # > 0: up
    Parameter('blink', 0.0, 1.0, 'rare', 0.30),  # 0 = open, 1 = closed
    Parameter('mouth_open', 0.0, 1.0, 'rare', 0.65),
    Parameter('mouth_wide', -1.0, 1.0, 'normal'),  # < 0: rounded ('oo'), > 0: wide ('ee')
    Parameter('smile', -0.25, 1.05, 'normal'),
    Parameter('brow_raise', -0.7, 1.0, 'normal'),
    Parameter('breath', -1.0, 1.0, 'normal'),  # > 0: shoulders up
)

TABLE = ParameterTable(IDENTITY, MOTION)
NAMES: tuple[str, ...] = TABLE.names
INDEX: dict[str, int] = TABLE.index
NUM_IDENTITY: int = TABLE.num_identity
NUM_PARAMETERS: int = len(TABLE)
