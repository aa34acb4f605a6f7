"""Pictures at another size: fitted into a frame of any shape, and what is left over is filled."""

from __future__ import annotations

import dataclasses

import numpy as np
import PIL.Image
import PIL.ImageFilter


@dataclasses.dataclass(frozen=True)
class Framing:
    """Fit frames into width x height: scaled as a whole (Lanczos), centred, and the rest filled.

    Attributes:
        width, height: Of the result, pixels.
        pad: 'blur' (the picture itself, cut to fill the frame, and blurred), 'black', 'white', or 'edge' (its outermost pixels).
    """

    width: int
    height: int
    pad: str = 'blur'

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Frame uint8 [H, W, 3] -> [height, width, 3]."""
        factor = min(self.width / frame.shape[1], self.height / frame.shape[0])
        size = max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor))
        picture = PIL.Image.fromarray(frame)
        scaled = np.asarray(picture if size == picture.size else picture.resize(size, PIL.Image.Resampling.LANCZOS))
        left, top = (self.width - size[0]) // 2, (self.height - size[1]) // 2
        right, bottom = self.width - size[0] - left, self.height - size[1] - top
        if left == top == right == bottom == 0:
            return scaled
        if self.pad == 'edge':
            return np.pad(scaled, ((top, bottom), (left, right), (0, 0)), mode='edge')
        if self.pad == 'blur':
            result = self._blurred(picture)
        else:
            result = np.full((self.height, self.width, 3), 255 if self.pad == 'white' else 0, np.uint8)
        result[top : top + size[1], left : left + size[0]] = scaled
        return result

    def _blurred(self, picture: PIL.Image.Image) -> np.ndarray:
        """The middle of the picture in the shape of the frame, blurred; at a sixteenth of the size, which blurring hides."""
        small = max(2, self.width // 16), max(2, self.height // 16)
        factor = max(small[0] / picture.width, small[1] / picture.height)
        half = small[0] / factor / 2, small[1] / factor / 2
        middle = picture.width / 2, picture.height / 2
        box = (middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1])
        background = picture.resize(small, PIL.Image.Resampling.BOX, box=box).filter(PIL.ImageFilter.GaussianBlur(2))
        return np.array(background.resize((self.width, self.height), PIL.Image.Resampling.BICUBIC))
