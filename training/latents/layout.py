"""What a latent data set is made of: names and versions, headers, members and where they lie. Reader and writer share it."""

import os
import shutil
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

CODE_ENDINGS = ('.npz', '.npy', '.pt', '.pth')  # of codes alone, see code_files.py
FORMAT_NAME = 'stylevideogan-latents'
FORMAT_VERSION = 1
PREPARATION_FOLDER = 'preparation'  # in DEST.partial: what the first look at the footage has found
ENTRY_ENDING = '.entry.json'  # in DEST.partial: what dataset.json will say of a clip that is complete
LARGEST_CODE = 1e4  # in size; codes of real generators stay below some hundreds, and far larger ones spoil every average
HEADER_SIZE = 128  # of our .npy files: fixed, so that the number of frames can be filled in at the end
# Measures of clips whose averages, weighted by frames, stand for the whole data set ("quality" in dataset.json).
QUALITY_MEASURES = ('psnr', 'gain', 'lpips', 'identity', 'deviation', 'jitter', 'pixel_jitter', 'pixel_jitter_original')


def describe_bad_code(code: np.ndarray, *, not_finite: str = 'NaN or infinite') -> str:
    """What is wrong with the first unusable value of a code [num_ws, w_dim], in words."""
    with np.errstate(invalid='ignore'):
        value = float(code[~(np.abs(code) <= LARGEST_CODE)][0])
    if np.isfinite(value):
        return f'{value:.3g}, far beyond what an image generator takes,'
    return not_finite


def npy_header(shape: tuple[int, ...]) -> bytes:
    """A version 1.0 header of `HEADER_SIZE` bytes for little-endian float32 values in C order."""
    text = repr({'descr': '<f4', 'fortran_order': False, 'shape': shape}).encode('latin1')
    length = HEADER_SIZE - 10  # after the magic string, the version and the length itself
    return b'\x93NUMPY\x01\x00' + length.to_bytes(2, 'little') + text.ljust(length - 1) + b'\n'


def store_aligned(archive: zipfile.ZipFile, path: str, name: str) -> None:
    """Store a file in a zip so that its bytes begin at a multiple of 64: arrays can be mapped into memory there."""
    size = os.path.getsize(path)
    large = size >= 1 << 31
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o644 << 16
    info.file_size = size
    # Local header (APPNOTE.TXT 4.3.7): 30 bytes, the name, the extra fields; zip64 sizes take an extra field of 20
    # bytes. Ours has the identifier 0xd935, by which Android's zipalign pads: 4 bytes and the padding.
    assert archive.fp is not None
    end = archive.fp.tell() + 30 + len(name.encode()) + (20 if large else 0) + 4
    padding = -end % 64
    info.extra = b'\x35\xd9' + padding.to_bytes(2, 'little') + bytes(padding)
    with open(path, 'rb') as source, archive.open(info, 'w', force_zip64=large) as target:
        shutil.copyfileobj(source, target, 1 << 20)


def clip_members(clips: Iterable[dict[str, Any]]) -> list[str]:
    """The members of a data set that belong to these clips: codes, and further arrays of their frames."""
    return [file for clip in clips for file in (clip['file'], *clip.get('arrays', {}).values())]


def total_quality(clips: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The measures of a data set: averages over its clips that have them, weighted by their frames."""
    sums: dict[str, list[float]] = {}
    for clip in clips:
        for key in QUALITY_MEASURES:
            if isinstance(clip.get(key), int | float):
                entry = sums.setdefault(key, [0.0, 0.0])
                entry[0] += clip[key] * clip['num_frames']
                entry[1] += clip['num_frames']
    return {key: round(total / weight, 6) for key, (total, weight) in sums.items()}
