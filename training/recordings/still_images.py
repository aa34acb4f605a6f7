"""Image files as frames: upright, in the colours of sRGB, 8 bits, transparent parts on white, animations as several frames."""

import functools
import io
import struct
import warnings
from collections.abc import Iterator
from typing import IO

import numpy as np
import PIL.Image
from PIL import ImageCms

from networks.errors import DamagedVideo
from training.commands import file_names

IMAGE_ENDINGS = (
    '.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.pjpeg', '.pjp', '.webp', '.bmp', '.dib', '.tif', '.tiff', '.ppm', '.pgm',
    '.pbm', '.pnm', '.tga', '.apng', '.avif', '.jp2', '.j2k', '.jpx', '.mpo',
)  # fmt: skip
ANIMATED_ENDINGS = ('.png', '.apng', '.webp', '.tif', '.tiff', '.avif')
HEAD_BYTES = 4096  # enough to see whether a file holds an animation
SHORTEST_SECONDS = 0.011  # browsers take up to 10 ms for "no time given", and show the picture for 100 ms
UNTOLD_SECONDS = 0.1
DEEP_GREY = ('I;16', 'I;16L', 'I;16B', 'I;16N', 'I')
# What Pillow raises for files that are no images, or damaged.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    PIL.Image.DecompressionBombError,
    ImageCms.PyCMSError,
)


def decode_image(file: str | IO[bytes], where: str) -> np.ndarray:
    """Return an image as uint8 `[H, W, 3]`, sRGB and upright; of an animation the first picture.

    Args:
        file: Path, or binary file.
        where: What errors call it.

    Raises:
        DamagedVideo: It is no image that can be decoded.
    """
    try:
        with _opened(file) as image:
            return _as_rgb(image)
    except UNREADABLE as error:
        raise _failure(error, where) from error


def image_notes(file: str | IO[bytes]) -> list[str]:
    """Return what is special about an image, without a subject; nothing for what cannot be opened."""
    notes = []
    try:
        with _opened(file) as image:
            if image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info:
                notes.append('transparent parts of its images are shown on white')
            profile = image.info.get('icc_profile')
            if profile and image.mode in ('RGB', 'RGBA', 'L', 'CMYK') and _transform(profile, image.mode.removesuffix('A')):
                notes.append(f'its images have the colour profile {_profile_name(profile)!r}, and are brought to sRGB')
            if image.mode == 'F':
                notes.append(
                    'its images have floating point values, of which 1 (or 255, or 65535, if there are larger ones) is white'
                )
    except UNREADABLE:
        pass
    return notes


def _profile_name(profile: bytes) -> str:
    return file_names.printable((ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))) or '').strip())[
        :60
    ]


def decode_animation(file: str | IO[bytes], where: str) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the pictures of an animation, or the pages of a document: (time stamp in seconds, uint8 `[H, W, 3]`).

    Raises:
        DamagedVideo: A picture cannot be decoded.
    """
    time = 0.0
    try:
        with _opened(file) as image:
            for number in range(_first(image), getattr(image, 'n_frames', 1)):
                image.seek(number)
                yield time, _as_rgb(image)
                time += _seconds(image)
    except UNREADABLE as error:
        raise _failure(error, where) from error


def animation_times(file: str | IO[bytes], where: str) -> tuple[int, list[float] | None, float]:
    """Return the number of pictures in a file, their time stamps (None where it tells none), and how long the last is shown.

    Raises:
        DamagedVideo: It is no image that can be decoded.
    """
    try:
        with _opened(file) as image:
            count = getattr(image, 'n_frames', 1)
            if count < 2 or image.format in ('TIFF', 'MPO'):
                return (1 if image.format == 'MPO' else _pages(image, count)), None, 0.0
            times, time, shown = [], 0.0, 0.0
            for number in range(_first(image), count):
                image.seek(number)
                if image.format in ('WEBP', 'AVIF'):
                    image.load()  # they tell the duration only then
                shown = _seconds(image)
                times.append(time)
                time += shown
            return len(times), times, shown
    except UNREADABLE as error:
        raise _failure(error, where) from error


def may_be_animated(name: str, head: bytes) -> bool:
    """Tell from the first bytes of a file whether it is worth looking for more than one picture in it.

    Args:
        name: Of the file; its ending counts.
        head: Its first `HEAD_BYTES` bytes.
    """
    if not name.lower().endswith(ANIMATED_ENDINGS):
        return False
    if head.startswith(b'\x89PNG'):
        return b'acTL' in head.split(b'IDAT')[0]
    if head[:4] == b'RIFF' and head[8:12] == b'WEBP':
        return head[12:16] == b'VP8X' and len(head) > 20 and bool(head[20] & 2)
    if head[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        return True  # the list of pages may lie anywhere
    return head[4:8] == b'ftyp' and b'avis' in head[8:32]


# ----------------------------------------------------------------------------------------------------------------------
# Pixels


def _opened(file: str | IO[bytes]) -> PIL.Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)  # large, not wrong
        warnings.simplefilter('ignore', UserWarning)  # blemishes of metadata
        return PIL.Image.open(file)


def _as_rgb(image: PIL.Image.Image) -> np.ndarray:
    image.load()  # before its tags are asked for: some formats turn the picture themselves, others tell tags at their end
    orientation = image.getexif().get(0x0112, 1)
    profile = image.info.get('icc_profile')
    if image.mode in DEEP_GREY or image.mode == 'F':
        image = PIL.Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    elif image.mode in ('P', 'PA', 'RGBA', 'LA', 'La', 'RGBa') or 'transparency' in image.info:
        image, profile = _on_white(image.convert('RGBA'), profile), None
    if profile:
        image = _to_srgb(image, profile)
    if orientation in TURNS:
        image = image.transpose(TURNS[orientation])
    return np.asarray(image.convert('RGB'))


TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT, 3: PIL.Image.Transpose.ROTATE_180, 4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE, 6: PIL.Image.Transpose.ROTATE_270, 7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}  # fmt: skip


def _on_white(image: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    alpha = image.getchannel('A')
    colours = image.convert('RGB')
    if profile:
        colours = _to_srgb(colours, profile)
    if alpha.getextrema() == (255, 255):
        return colours
    return PIL.Image.composite(colours, PIL.Image.new('RGB', image.size, 'white'), alpha)


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Return grey values of more than 8 bits as uint8: 16 bits in full, floating point numbers from 0 to 1 (or to 255, or 65535).

    Pillow would cut them off at 255.
    """
    if mode != 'F':
        largest = 65535 if mode != 'I' or values.max(initial=0) <= 65535 else 2**31 - 1
        if values.min(initial=0) < 0:
            raise ValueError('it has negative values, and where black and white lie is not known')
        return np.rint(values.astype(np.float64) * (255 / largest)).astype(np.uint8)
    if not np.isfinite(values).all():
        raise ValueError('it has values that are no numbers')
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    white = next((limit for limit, most in ((1, 1.5), (255, 255.5), (65535, 65535.5)) if high <= most), None)
    if white is None or low < -0.5 * white:
        raise ValueError(f'its values go from {low:g} to {high:g}, and where black and white lie is not known')
    return np.rint(np.clip(values * (255 / white), 0, 255)).astype(np.uint8)


def _to_srgb(image: PIL.Image.Image, profile: bytes) -> PIL.Image.Image:
    """Convert from the colours of an ICC profile; a profile that is damaged or for other channels is left alone."""
    if image.mode not in ('RGB', 'L', 'CMYK'):
        return image
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if 'srgb' in (ImageCms.getProfileDescription(source) or '').lower():
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile('sRGB'), mode, 'RGB')
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


# ----------------------------------------------------------------------------------------------------------------------
# Animations


def _seconds(image: PIL.Image.Image) -> float:
    seconds = float(image.info.get('duration') or 0) / 1000
    return seconds if seconds >= SHORTEST_SECONDS else UNTOLD_SECONDS


def _first(image: PIL.Image.Image) -> int:
    return 1 if image.info.get('default_image') else 0  # of an APNG: a picture for programs that show no animation


def _pages(image: PIL.Image.Image, count: int) -> int:
    """Return how many pages are frames: all of one size, or else (a thumbnail, a pyramid of sizes) the first alone."""
    size = image.size
    for number in range(1, count):
        image.seek(number)
        if image.size != size:
            return 1
    return count


def _failure(error: Exception, where: str) -> Exception:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return error
    reason = 'no image format is known that begins so' if isinstance(error, PIL.UnidentifiedImageError) else error
    return DamagedVideo(f'{where} is not an image that can be decoded, or it is cut off: {reason}.')
