"""Stills with the colours of a wide display: what their numbers mean in sRGB, from the equations of both spaces."""

import pathlib
import struct

import numpy as np
import PIL.Image

from training.footage.clips import open_footage

# Columns: X, Y, Z of red, green and blue, adapted to D50 (as profiles hold them); both spaces have the curve of sRGB.
DISPLAY_P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def display_p3_profile() -> bytes:
    """An ICC profile of three primaries and one curve, version 2.4."""

    def fixed(*numbers: float) -> bytes:
        return b''.join(struct.pack('>i', round(number * 65536)) for number in numbers)

    curve = b'para' + bytes(4) + struct.pack('>HH', 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    entries = [
        (b'desc', b'desc' + bytes(4) + struct.pack('>I', 5) + b'Wide\0' + bytes(79)),
        (b'cprt', b'text' + bytes(4) + b'none\0'),
        (b'wtpt', b'XYZ ' + bytes(4) + fixed(0.9642, 1, 0.8249)),
        *(
            (name, b'XYZ ' + bytes(4) + fixed(*column))
            for name, column in zip((b'rXYZ', b'gXYZ', b'bXYZ'), DISPLAY_P3.T, strict=True)
        ),
        *((name, curve) for name in (b'rTRC', b'gTRC', b'bTRC')),
    ]
    index, content, begin = b'', b'', 132 + 12 * len(entries)
    for name, value in entries:
        padded = value + bytes(-len(value) % 4)
        index += name + struct.pack('>II', begin + len(content), len(padded))
        content += padded
    header = (
        struct.pack('>I', begin + len(content)) + b'none' + struct.pack('>I', 0x02400000) + b'mntrRGB XYZ ' + bytes(12) + b'acsp'
    )
    header = header.ljust(68, b'\0') + fixed(0.9642, 1, 0.8249)
    return header.ljust(128, b'\0') + struct.pack('>I', len(entries)) + index + content


def in_srgb(colour: tuple[int, int, int]) -> np.ndarray:
    """Display P3 to sRGB, 0 to 255."""
    stored = np.array(colour) / 255
    linear = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.linalg.inv(SRGB) @ DISPLAY_P3 @ linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_colours_of_a_wide_display_are_brought_to_srgb(tmp_path: pathlib.Path) -> None:
    colours = [(200, 60, 60), (60, 180, 80), (128, 128, 128)]
    picture = PIL.Image.fromarray(np.tile(np.array([colours], np.uint8), (16, 4, 1)))
    for index in range(2):
        picture.save(tmp_path / f'{index}.png', icc_profile=display_p3_profile())
    frame = next(iter(open_footage(tmp_path)[0].frames())).astype(float)
    expected = np.array([in_srgb(colour) for colour in colours])
    assert np.abs(expected[0] - colours[0]).max() > 10  # there is something to convert
    np.testing.assert_allclose(frame[8, :3], expected, atol=2)
