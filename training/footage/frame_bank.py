"""Frames of footage in memory, for training that needs them in random order."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from networks.errors import InputError
from training.footage.clips import FootageClip, fit


def frames_to_images(frames: np.ndarray | torch.Tensor, img_channels: int = 3) -> torch.Tensor:
    """Convert frames uint8 `[N, H, W, 3]` into images float32 `[N, img_channels, H, W]` in [-1, 1].

    One channel is the mean of the three.
    """
    images = torch.as_tensor(frames).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
    return images.mean(dim=1, keepdim=True) if img_channels == 1 else images


class FrameBank:
    """Frames of all clips at one size; of long footage every second, fourth, ... frame, so that memory stays bounded.

    Args:
        clips: Footage.
        resolution: Side of the stored frames (`training.footage.clips.fit`).
        max_bytes: Bound of the memory for frames.
        on_frame: Called after each frame that was read, for progress.
        on_damage: Gets a sentence on each clip that cannot be decoded, which is left out then; None: it is an error.

    Attributes:
        frames: uint8 `[num_frames, resolution, resolution, 3]`.
        stride: Every how many frames one was kept.
        num_read: Frames that the footage has.

    Raises:
        InputError: There is no frame, or a clip cannot be decoded.
    """

    def __init__(
        self,
        clips: Sequence[FootageClip],
        resolution: int,
        *,
        max_bytes: int = 512 << 20,
        on_frame: Callable[[], object] | None = None,
        on_damage: Callable[[str], object] | None = None,
    ) -> None:
        limit = max(max_bytes // (resolution * resolution * 3), 2)
        kept: list[tuple[int, np.ndarray]] = []  # (index of the clip, frame)
        self.stride, self.num_read = 1, 0
        for index, clip in enumerate(clips):
            try:
                for frame in clip.frames():
                    if self.num_read % self.stride == 0:
                        kept.append((index, fit(frame, resolution)))
                        if len(kept) > limit:  # the length of the footage is not known before its end
                            kept = kept[::2]
                            self.stride *= 2
                    self.num_read += 1
                    if on_frame is not None:
                        on_frame()
            except InputError as error:
                if on_damage is None:
                    raise
                on_damage(f'Left out: {error}')
                kept = [entry for entry in kept if entry[0] != index]
        if not kept:
            raise InputError('The footage has no frames.')
        self.frames = np.stack([frame for _, frame in kept])

    def __len__(self) -> int:
        return len(self.frames)

    def draw(self, count: int, generator: torch.Generator, img_channels: int) -> torch.Tensor:
        """Draw frames with replacement; return images `[count, img_channels, resolution, resolution]`, [-1, 1]."""
        indices = torch.randint(len(self.frames), [count], generator=generator).numpy()
        return frames_to_images(self.frames[indices], img_channels)

    def evenly(self, count: int, img_channels: int) -> torch.Tensor:
        """Up to `count` frames at equal distances, as images (see `draw`)."""
        indices = np.unique(np.linspace(0, len(self.frames) - 1, count).round().astype(int))
        return frames_to_images(self.frames[indices], img_channels)
