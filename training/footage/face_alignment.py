"""FFHQ's face alignment: from eyes and mouth to an oriented square, steadied over time, and from the square to an image.

The square of one face, with the centres of the eyes l and r, the corners of the mouth p and q, and `rot90` turning
a vector by a quarter (rot90 (a, b) = (-b, a), from the x axis to the y axis, which points down)::

    e = r - l                           m = (p + q) / 2 - (l + r) / 2
    x = s * (e - rot90 m) / |e - rot90 m|          s = max(2 |e|, 1.8 |m|)
    y = rot90 x                         c = (l + r) / 2 + 0.1 m
    corners: c - x - y, c - x + y, c + x + y, c + x - y

(T. Karras, S. Laine, T. Aila: A Style-Based Generator Architecture for Generative Adversarial Networks, appendix C.)
Over time c, x and y of a clip go through Gaussian filters of their own: the centre follows the head closely, size and
rotation more slowly, so that the picture does not pulse with every opening of the mouth.

Coordinates are pixels of the upright frame; the centre of its first pixel is (0, 0), as detectors count.
"""

import dataclasses

import numpy as np
import PIL.Image

SUPERSAMPLING = 4  # samples along each side of a pixel of the result: FFHQ draws at 4096 and reduces to 1024


@dataclasses.dataclass(frozen=True)
class FaceAxes:
    """Squares of the faces of T frames.

    Attributes:
        center: c, float64 `[T, 2]`.
        x, y: From the centre to the middle of the right and of the lower side, float64 `[T, 2]`.
    """

    center: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of_points(cls, points: np.ndarray) -> 'FaceAxes':
        """Compute the squares of faces.

        Args:
            points: `[T, 4, 2]`, (x, y) of the left eye's centre, the right eye's centre, the mouth's left corner and
                its right corner; left and right as the picture shows them.
        """
        left_eye, right_eye, left_corner, right_corner = np.moveaxis(np.asarray(points, dtype=np.float64), 1, 0)
        between = (left_eye + right_eye) / 2
        e, m = right_eye - left_eye, (left_corner + right_corner) / 2 - between
        direction = e - _rot90(m)
        scale = np.maximum(2 * _length(e), 1.8 * _length(m))
        x = direction * (scale / np.maximum(_length(direction), 1e-12))
        return cls(center=between + 0.1 * m, x=x, y=_rot90(x))

    def steadied(self, center_sigma: float, axes_sigma: float) -> 'FaceAxes':
        """Filter the squares over time; standard deviations in frames, 0 leaves as it is."""
        return FaceAxes(
            gaussian_filter(self.center, center_sigma), gaussian_filter(self.x, axes_sigma), gaussian_filter(self.y, axes_sigma)
        )

    def quads(self) -> np.ndarray:
        """The corners, `[T, 4, 2]`: upper left, lower left, lower right, upper right of the picture to be."""
        corners = [self.center + i * self.x + j * self.y for i, j in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
        return np.stack(corners, axis=1)


def gaussian_filter(values: np.ndarray, sigma: float) -> np.ndarray:
    """Filter along the first axis by a Gaussian, cut off at 4 sigma; the ends are mirrored, edge samples included.

    Args:
        values: `[T, ...]`.
        sigma: Standard deviation, samples; 0: no filter.
    """
    if sigma <= 0:
        return np.asarray(values, dtype=np.float64)
    kernel = _gaussian_kernel(sigma)
    radius = len(kernel) // 2
    padding = [(radius, radius)] + [(0, 0)] * (np.ndim(values) - 1)
    padded = np.pad(np.asarray(values, dtype=np.float64), padding, mode='symmetric')
    return sum(weight * padded[i : i + len(values)] for i, weight in enumerate(kernel))  # type: ignore[return-value,unused-ignore]


def square_quad(height: int, width: int) -> np.ndarray:
    """The corners of the centre square of a frame, float64 `[4, 2]`."""
    side = min(height, width)
    left, top = (width - side) // 2 - 0.5, (height - side) // 2 - 0.5
    return np.array([[left, top], [left, top + side], [left + side, top + side], [left + side, top]])


def cut_out(frame: np.ndarray, quad: np.ndarray, size: int) -> np.ndarray:
    """Cut a quadrilateral out of a frame as FFHQ's images were cut.

    A frame that is far too large is reduced first (Lanczos), so that sampling does not alias. Where the quadrilateral
    reaches beyond the frame, this is continued by reflection, blurred and faded to its median colour toward the
    outside. Sampling is bilinear at four times the size, which is then reduced by Lanczos. With `size=1024` the
    pixels are those of FFHQ.

    Args:
        frame: uint8 `[H, W, 3]`.
        quad: Corners `[4, 2]` as of `FaceAxes.quads`.
        size: Side of the result, pixels.

    Returns:
        uint8 `[size, size, 3]`.
    """
    image = PIL.Image.fromarray(np.ascontiguousarray(frame))
    corners = np.array(quad, dtype=np.float64)
    # The mean of the upper and the lower side: filters of their own for x and y leave it a parallelogram.
    side = float(_length(corners[3] - corners[0] + corners[2] - corners[1])) / 2
    factor = int(side / size / 2)
    if factor > 1:
        image = image.resize([round(length / factor) for length in image.size], PIL.Image.Resampling.LANCZOS)
        corners /= factor
        side /= factor
    border = max(round(0.1 * side), 3)
    lowest, highest = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int)
    # A quadrilateral outside of the frame altogether (a file of landmarks can ask for it) leaves one pixel of it.
    limit = np.array(image.size)
    first = np.clip(lowest - border, 0, limit - 1)
    last = np.clip(highest + border, first + 1, limit)
    image = image.crop((*first, *last))
    missing_before = np.maximum(border - (lowest - first), 0)
    missing_after = np.maximum(highest - first + border - np.array(image.size), 0)
    corners -= first
    if max(missing_before.max(), missing_after.max()) > border - 4:
        least = max(round(0.3 * side), 1)
        before, after = np.maximum(missing_before, least), np.maximum(missing_after, least)
        image = PIL.Image.fromarray(_continued(np.asarray(image), before, after, blur=max(0.02 * side, 0.01)))
        corners += before
    drawn = size * SUPERSAMPLING
    # Pillow counts from the corner of the first pixel, not from its centre.
    places = tuple((corners + 0.5).ravel())
    image = image.transform((drawn, drawn), PIL.Image.Transform.QUAD, places, PIL.Image.Resampling.BILINEAR)
    return np.asarray(image.resize((size, size), PIL.Image.Resampling.LANCZOS))


def _continued(pixels: np.ndarray, before: np.ndarray, after: np.ndarray, blur: float) -> np.ndarray:
    """Continue an image beyond its edges: uint8 `[H, W, 3]`, pixels (x, y) to add before and after, sigma of the blur."""
    plain = np.pad(pixels.astype(np.float32), ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode='reflect')
    # 1 at the outer edge, 0 where the frame begins, negative inside of it.
    slopes = []
    for length, low, high in zip(plain.shape[1::-1], before, after, strict=True):
        position = np.arange(length, dtype=np.float32)
        slopes.append(1 - np.minimum(position / np.float32(low), position[::-1] / np.float32(high)))
    outside = np.maximum(slopes[0][np.newaxis, :], slopes[1][:, np.newaxis])[:, :, np.newaxis]
    blurred = _blurred(_blurred(plain, blur).swapaxes(0, 1), blur).swapaxes(0, 1)
    mixed = plain + (blurred - plain) * np.clip(3 * outside + 1, 0, 1)
    mixed += (np.median(mixed, axis=(0, 1)) - mixed) * np.clip(outside, 0, 1)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of float32 `[H, W, C]` along the first axis; the edges are mirrored.

    As products with a band matrix, a block of rows at a time: several times faster than Fourier transforms or sums.
    """
    kernel = _gaussian_kernel(sigma).astype(np.float32)
    radius, length = len(kernel) // 2, len(image)
    rows = np.pad(image, ((radius, radius), (0, 0), (0, 0)), mode='symmetric').reshape(length + 2 * radius, -1)
    block = max(len(kernel), 16)
    band = np.zeros((block, block + 2 * radius), np.float32)
    for row in range(block):
        band[row, row : row + len(kernel)] = kernel
    result = np.empty((length, rows.shape[1]), np.float32)
    for start in range(0, length, block):
        count = min(block, length - start)
        result[start : start + count] = band[:count, : count + 2 * radius] @ rows[start : start + count + 2 * radius]
    return result.reshape(image.shape)


def _gaussian_kernel(sigma: float) -> np.ndarray:
    offsets = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def _rot90(vectors: np.ndarray) -> np.ndarray:
    return np.stack([-vectors[..., 1], vectors[..., 0]], axis=-1)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(vectors, axis=-1, keepdims=vectors.ndim > 1))
