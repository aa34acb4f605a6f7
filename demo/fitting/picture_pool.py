"""A growing pool of rendered pictures on disk, so that fitting may show each picture several times.

Which pictures the pool holds and which of them a step sees depend on seeds and step numbers alone: an interrupted fit that
goes on with the files it left behind sees what an uninterrupted one would have seen.
"""

import pathlib

import numpy as np
import torch

from demo.worlds import World


class PicturePool:
    """Latents z `[capacity, P]` float32 and uint8 pictures with feature maps `[capacity, 4, R, R]`, in two files.

    folder:   where the files lie; made if missing.       capacity: largest number of pictures.
    seed:     decides every latent.                        resolution: R.
    """

    def __init__(self, world: World, folder: pathlib.Path, *, seed: int, capacity: int, resolution: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.world = world
        self.capacity = capacity
        self.resolution = resolution
        self.latents = np.random.RandomState(seed).randn(capacity, len(world.table)).astype(np.float32)
        path = folder / f'pictures-{seed}-{capacity}-{resolution}.u8'
        shape = (capacity, 4, resolution, resolution)
        size = int(np.prod(shape, dtype=np.int64))
        exists = path.exists() and path.stat().st_size == size
        self._pictures = np.memmap(path, np.uint8, 'r+' if exists else 'w+', shape=shape)
        self._count_path = path.with_suffix('.count')
        self.count = int(self._count_path.read_text()) if exists and self._count_path.exists() else 0

    def grow(self, count: int) -> None:
        """Render pictures until the pool has `count` of them (at most its capacity)."""
        count = min(count, self.capacity)
        while self.count < count:
            stop = min(self.count + 64, count)
            latents = torch.from_numpy(self.latents[self.count : stop])
            pictures, features = self.world.render(self.world.table.from_latent(latents), self.resolution)
            both = torch.cat([pictures * 127.5 + 127.5, features * 255], dim=1)
            self._pictures[self.count : stop] = (both + 0.5).clamp(0, 255).to(torch.uint8).numpy()
            self._pictures.flush()
            self.count = stop
            self._count_path.write_text(str(stop))

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Z `[N, P]`, pictures `[N, 3, R, R]` in [-1, 1], feature maps `[N, 1, R, R]` in [0, 1]."""
        both = torch.from_numpy(self._pictures[indices]).to(torch.float32)
        return torch.from_numpy(self.latents[indices]), both[:, :3] / 127.5 - 1, both[:, 3:] / 255
