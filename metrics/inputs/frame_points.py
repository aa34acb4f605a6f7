"""A point for every frame, so that a video becomes a sequence y_0 .. y_{T-1} [T, C] in which distances mean something.

Codes: a linear map of w - mean to a few dozen coordinates, in which distances are those of the codes: the principal components of
the real codes that hold 99 % of their variance, not whitened, and for all that lies outside of them 32 random directions (Johnson
and Lindenstrauss 1984), always the same ones, in which distances are kept to about an eighth.

Pictures: the frame averaged over a grid of 32 x 32 cells, so that |y - y'| is the root mean square difference of two such small
pictures, in grey levels of 0 to 255. That is fixed, needs no network and no download, and is the same for everybody. It sees
pose, mouth, light, colour and background, and is blind to texture and fine noise, which repetition, drift and motion are not
about (the frame FID and FVD see them).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from metrics.inputs.latent_windows import CODES_AT_ONCE, CodeSpace
from networks.errors import InputError
from networks.latent_generator import LatentGenerator

GRID = 32  # cells a side
OUTSIDE = 32  # random directions for what the components do not hold
FRAMES_AT_ONCE = 64


class LatentPoints:
    """Points of codes, fitted to real clips, each float32 [T, num_ws, w_dim].

    The unit is the root mean square distance of two random real frames.

    Attributes:
        space: metrics.inputs.latent_windows.CodeSpace, the whitened coordinates.
        real: The real clips as points, each [T, C + 32] float64.
        real_coordinates: The same in the whitened coordinates of `space`, float32 [T, C + 1].

    Raises:
        InputError: As CodeSpace.
    """

    def __init__(self, clips: Sequence[np.ndarray]) -> None:
        self.space = CodeSpace(clips)
        self.real_coordinates = [self.space.project(clips[index]) for index in range(len(clips))]
        inside = self.space.directions.double()  # [F, C]
        random = torch.from_numpy(np.random.RandomState(0).standard_normal((len(inside), OUTSIDE)))
        outside = (random - inside @ (inside.t() @ random)) / OUTSIDE**0.5
        self._map = torch.cat([inside, outside], dim=1)  # [F, C + 32]
        points = torch.cat([self.project(clips[index]) for index in range(len(clips))])
        self._map /= (2 * points.var(dim=0).sum()).sqrt()
        self.real = [self.project(clips[index]) for index in range(len(clips))]

    def project(self, codes: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Codes [T, num_ws, w_dim], an array or a tensor -> points [T, C + 32] float64 on the codes' device."""
        codes = torch.as_tensor(codes)
        parts = [
            (part.flatten(1).double() - self.space.mean.to(codes.device).double()) @ self._map.to(codes.device)
            for part in codes.split(CODES_AT_ONCE)
        ]
        return torch.cat(parts)

    def projection_of(self, generator: LatentGenerator) -> Any:
        """A function l [N, latent_dim] -> points [N, C + 32] of the codes that a latent generator makes of l.

        As CodeSpace.projection_of: codes that are affine in few coordinates are never written out.
        """
        size = getattr(generator, 'num_components', 0)
        if not size or not hasattr(generator, 'decode'):
            return lambda l: torch.cat([self.project(generator.codes(part)) for part in l.split(CODES_AT_ONCE)])
        device = next(generator.parameters()).device
        origin = generator.decode(torch.zeros(1, size, device=device)).flatten(1).double()  # [1, F]
        axes = generator.decode(torch.eye(size, device=device)).flatten(1).double() - origin  # [K, F]
        linear = self._map.to(device)
        matrix, offset = axes @ linear, (origin - self.space.mean.to(device).double()) @ linear
        return lambda l: generator.coordinates(l).double() @ matrix + offset


def small_pictures(frames: np.ndarray) -> torch.Tensor:
    """Frames uint8 [T, H, W, 3] -> points [T, 3 * 32 * 32] float32; see the head of this file."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f'need frames uint8 [T, H, W, 3], not {frames.dtype} {list(frames.shape)}')
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.adaptive_avg_pool2d(images, GRID)
    return small.flatten(1) / (3 * GRID * GRID) ** 0.5


def stream_points(video_set: Any, index: int, num_frames: int) -> torch.Tensor:
    """Points [T, 3 * 32 * 32] of the first `num_frames` frames of one video, or of as many as it has.

    Args:
        video_set: A set of videos (docs/measuring/metrics.md): `stream(index)` yields frames uint8 [H, W, 3].
        index: Which video.
        num_frames: T at most.
    """
    parts = [small_pictures(np.stack(batch)) for batch in _batches(video_set.stream(index), num_frames)]
    if not parts:
        raise InputError(f'{video_set.names[index]} has no frames')
    return torch.cat(parts)


def _batches(frames: Iterator[np.ndarray], num_frames: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for position, frame in enumerate(frames):
        if position >= num_frames:
            break
        batch.append(frame)
        if len(batch) == FRAMES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def colour_statistics(points: torch.Tensor) -> torch.Tensor:
    """Points of pictures [T, 3 * 32 * 32] -> mean and standard deviation of each colour over the picture, grey levels [T, 6]."""
    channels = points.unflatten(1, (3, GRID * GRID)).double() * (3 * GRID * GRID) ** 0.5
    return torch.cat([channels.mean(dim=2), channels.std(dim=2, unbiased=False)], dim=1)


def stretches(sequence: torch.Tensor, num_frames: int) -> list[torch.Tensor]:
    """Cut a sequence [T, C] into as few stretches of `num_frames` frames as cover it, evenly; a shorter one stays whole."""
    count = -(-len(sequence) // num_frames)
    starts = np.linspace(0, max(len(sequence) - num_frames, 0), count).round().astype(int)
    return [sequence[start : start + num_frames] for start in starts]
