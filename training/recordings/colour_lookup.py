"""HDR and wide-gamut video in the colours of SDR (sRGB), as a lookup table for ffmpeg's `lut3d` filter.

ffmpeg's own road, `zscale` and `tonemap`, is right for PQ, but applies the system gamma of HLG (ITU-R BT.2100, table 5) to each
colour by itself instead of to the luminance, which makes skin and saturated colours of phone recordings up to 21 levels wrong.

The picture below the white of SDR (203 cd/m2, ITU-R BT.2408) stays as it is; only what is brighter is compressed.
"""

import functools
import os
import tempfile

import numpy as np

SIZE = 49  # points along each axis of the table
WHITE = 203.0  # cd/m2
PEAK = 1000.0  # cd/m2 that become white: the nominal peak of HLG, and what most PQ is mastered for
KNEE = 0.85  # of white, linear: where compression begins

# Linear RGB of wider primaries -> linear RGB of BT.709 (white point D65 for all of them).
TO_BT709 = {
    'bt2020': ((1.660491, -0.587641, -0.072850), (-0.124551, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    'smpte432': ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}
HDR_CURVES = {'smpte2084', 'arib-std-b67'}


def needs_table(primaries: str, transfer: str) -> bool:
    """Tell whether video with these tags of ffmpeg (`color_primaries`, `color_trc`) is not SDR of BT.709 already."""
    return transfer in HDR_CURVES or primaries in TO_BT709


def srgb_of(codes: np.ndarray, primaries: str, transfer: str) -> np.ndarray:
    """Return what a viewer of SDR shows.

    Args:
        codes: R'G'B' in [0, 1] as the video has it (matrix and range are undone), `[..., 3]`.
        primaries, transfer: Tags of ffmpeg; HDR without primaries is taken for BT.2020.

    Returns:
        sRGB in [0, 1], `[..., 3]`.
    """
    if transfer == 'smpte2084':
        light = _pq(codes) / WHITE
    elif transfer == 'arib-std-b67':
        light = _hlg(codes) / WHITE
    else:
        light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    if transfer in HDR_CURVES and primaries not in TO_BT709:
        primaries = 'bt2020'
    light = light @ np.asarray(TO_BT709[primaries]).T
    if transfer in HDR_CURVES:
        brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
        light = light * (_compressed(brightest) / brightest)
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _pq(codes: np.ndarray) -> np.ndarray:
    """The EOTF of SMPTE ST 2084, cd/m2."""
    power = codes ** (1 / 78.84375)
    return 10000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)


def _hlg(codes: np.ndarray) -> np.ndarray:
    """The EOTF of ITU-R BT.2100 for HLG on a display of 1000 cd/m2, whose system gamma is 1.2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return 1000 * scene * luminance[..., np.newaxis] ** 0.2


def _compressed(light: np.ndarray) -> np.ndarray:
    """Leave light below the knee, and bring the peak to 1 by a curve that goes on from there with slope 1.

    `y = 1 - (1 - k) / (1 + u)` with `u = (x - k) / (1 - k)` has slope 1 at the knee k; it is scaled so that the peak becomes 1.
    """
    room = 1 - KNEE
    reach = (PEAK / WHITE - KNEE) / room
    above = np.maximum(light - KNEE, 0) / room
    return np.where(light <= KNEE, light, KNEE + room * (above / (1 + above)) * (1 + reach) / reach)


@functools.lru_cache(maxsize=16)
def table_file(primaries: str, transfer: str) -> str:
    """Return the path of the table, a .cube file that lies in a temporary folder as long as this process runs."""
    axis = np.linspace(0, 1, SIZE)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing='ij')  # red runs fastest
    colours = srgb_of(np.stack([red, green, blue], axis=-1).reshape(-1, 3), primaries, transfer)
    path = os.path.join(_folder().name, f'{primaries}-{transfer}.cube')
    with open(path, 'w', encoding='ascii') as file:
        file.write(f'LUT_3D_SIZE {SIZE}\n')
        np.savetxt(file, colours, fmt='%.6f')
    return path


@functools.lru_cache(maxsize=1)
def _folder() -> 'tempfile.TemporaryDirectory[str]':
    return tempfile.TemporaryDirectory(prefix='stylevideogan-colours-')
