"""The noise behind a seed: the same seed is the same video, whatever its length and whatever runs beside it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class SeededNoise:
    """Noise i, s_0, s_1, ... ~ N(0, 1) for each of N seeds, drawn in this order from a random stream of the seed's own.

    So the first k draws of a seed depend neither on how many follow nor on the other seeds.

    Args:
        seeds: N seeds, each 0 to 2^32 - 1, as np.random.RandomState takes them.
        latent_dim: Size of i.
        noise_dim: Size of s_k.
        device: Where the tensors go.
    """

    def __init__(self, seeds: Sequence[int], latent_dim: int, noise_dim: int, device: torch.device | str = 'cpu') -> None:
        self.latent_dim = latent_dim
        self.noise_dim = noise_dim
        self.device = device
        self._streams = [np.random.RandomState(seed) for seed in seeds]
        self._started = False

    def first(self) -> torch.Tensor:
        """I [N, latent_dim] float32; once, before the first `step`."""
        if self._started:
            raise RuntimeError('i is drawn before all other noise, and once')
        self._started = True
        return self._draw(1, self.latent_dim)[:, 0]

    def steps(self, num_steps: int) -> torch.Tensor:
        """The next `num_steps` of s, [N, num_steps, noise_dim] float32."""
        if not self._started:
            raise RuntimeError('i is drawn before all other noise; call first()')
        return self._draw(num_steps, self.noise_dim)

    def state(self) -> dict[str, Any]:
        """Where the random streams stand, in plain values: what comes next, and so what `restore` goes on from."""
        streams = []
        for stream in self._streams:
            name, key, position, has_gauss, cached = stream.get_state(legacy=True)
            streams.append([str(name), [int(word) for word in key], int(position), int(has_gauss), float(cached)])
        return {'started': self._started, 'streams': streams}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        if len(state['streams']) != len(self._streams):
            raise ValueError(f'this state is of {len(state["streams"])} seeds, not {len(self._streams)}')
        self._started = state['started']
        for stream, (name, key, position, has_gauss, cached) in zip(self._streams, state['streams'], strict=True):
            stream.set_state((name, np.asarray(key, np.uint32), position, has_gauss, cached))

    def _draw(self, rows: int, columns: int) -> torch.Tensor:
        values = np.stack([stream.randn(rows, columns) for stream in self._streams])
        return torch.from_numpy(values.astype(np.float32)).to(self.device)
