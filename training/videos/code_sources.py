"""Where codes come from, a chunk at a time: a temporal model with its noise, or codes that exist already.

A source is asked for the next codes again and again. Its state is explicit, plain and small, so that a long generation can
be written down in the middle and go on from there with the same numbers:

    source = ModelSource(generator, seed=3)
    first = source.read(8)                  # W+ codes [8, num_ws, w_dim]
    state = source.state()                  # tensors and plain values only
    second = source.read(8)
    source.restore(state)                   # the next read is `second` once more
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch

from networks.latent_generator import EventLatentGenerator, LatentGenerator, State, first_frame
from networks.seeded_noise import SeededNoise


class CodeSource(Protocol):
    """Codes one after the other."""

    def read(self, count: int) -> torch.Tensor:
        """The next codes [count, num_ws, w_dim] float32."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that the next codes depend on: tensors and plain values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        ...


class Noise(Protocol):
    """i and s_0, s_1, ... of N videos, in this order; networks.seeded_noise.SeededNoise is one."""

    def first(self) -> torch.Tensor:
        """The first i [N, latent_dim]; once, before the first `steps`."""
        ...

    def steps(self, num_steps: int) -> torch.Tensor:
        """The next `num_steps` of s, [N, num_steps, noise_dim]."""
        ...

    def state(self) -> dict[str, Any]:
        """Where the noise stands, in plain values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        ...


def chunks(source: CodeSource, chunk: int) -> Iterator[torch.Tensor]:
    """The codes of a source, [chunk, num_ws, w_dim] at a time, without end."""
    return (source.read(chunk) for _ in itertools.count())


# ----------------------------------------------------------------------------
# The temporal model.


def default_burn_in(generator: LatentGenerator) -> int:
    """Frames that videos of this latent generator leave out at their beginning; 0 for one that was never asked."""
    return int(getattr(generator, 'burn_in', 0))


def begin_video(generator: LatentGenerator, noise: Noise, burn_in: int | None = None) -> tuple[State, torch.Tensor]:
    """How every generated video begins: i ~ N(0, 1), H fills the memories, and `burn_in` steps go by unseen.

    Args:
        generator: Latent generator.
        noise: Nothing is drawn from it yet; it gives i, and then s for `burn_in` steps.
        burn_in: Steps before the first frame that is shown; None takes what the generator knows that it needs.

    Returns:
        The memories, and l of the first frame.
    """
    with torch.no_grad():
        state, l = first_frame(generator, noise.first())
        steps = noise.steps(default_burn_in(generator) if burn_in is None else burn_in)
        pass_by = getattr(generator, 'pass_by', None)  # which the classes in trusted pickles of older versions have not
        if pass_by is not None and steps.shape[1] > 0:
            return pass_by(steps, state)  # type: ignore[no-any-return]
        for s in steps.unbind(1):
            state, l = generator.step(s, state)
    return state, l


class ModelSource:
    """The endless code sequence of one seed.

    Seeds run one by one and chunks have one size, so that a frame is the same to the last bit whatever the length of
    the video and whatever other seeds there are.

    Args:
        generator: Latent generator (networks.latent_generator.LatentGenerator, or one with its methods).
        seed: Its noise comes from networks.seeded_noise.
        burn_in: See `begin_video`.
        noise: Takes the place of the seed's, of one video.
        beginning: Memories and l of the first frame, in place of what the noise begins with. Of an `EventLatentGenerator` those
            behind its filter will do, from which the noise takes as many steps as it is behind.
    """

    def __init__(
        self,
        generator: LatentGenerator,
        seed: int,
        *,
        burn_in: int | None = None,
        noise: Noise | None = None,
        beginning: tuple[State, torch.Tensor] | None = None,
    ) -> None:
        self.generator = generator
        device = next(generator.parameters()).device
        self._noise = noise or SeededNoise([seed], generator.latent_dim, generator.noise_dim, device)
        if beginning is None:
            self._memories, self._l = begin_video(generator, self._noise, burn_in)
        else:
            self._noise.first()  # i is not needed, and s follows it
            self._memories, self._l = beginning
            if isinstance(generator, EventLatentGenerator) and len(self._memories) == generator.num_cells + 1:
                with torch.no_grad():
                    ahead = self._noise.steps(generator.DELAY)
                    self._memories, self._l = generator.pass_by(ahead, generator.entered(self._memories))

    def read(self, count: int) -> torch.Tensor:
        """The next codes [count, num_ws, w_dim] on the generator's device."""
        return self.read_with(self._noise.steps(count))

    def read_with(self, steps: torch.Tensor) -> torch.Tensor:
        """The next codes [count, num_ws, w_dim] with s [1, count, noise_dim] of the caller's; the noise stays where it is."""
        latents = []
        with torch.no_grad():
            for s in steps.unbind(1):
                latents.append(self._l)
                self._memories, self._l = self.generator.step(s, self._memories)
            return self.generator.codes(torch.cat(latents))

    def position(self) -> tuple[State, torch.Tensor]:
        """Memories and l of the next frame; another source can begin with them."""
        return self._memories, self._l

    def state(self) -> dict[str, Any]:
        return {'memories': list(self._memories), 'l': self._l, 'noise': self._noise.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self._memories, self._l = tuple(state['memories']), state['l']
        self._noise.restore(state['noise'])


# ----------------------------------------------------------------------------
# Codes that exist.


class RecordedSource:
    """Codes of a recording; after its last frame it stands still.

    Args:
        codes: [T, num_ws, w_dim], in memory or mapped from a file.
        device: Where they go.
    """

    def __init__(self, codes: np.ndarray, device: torch.device | str = 'cpu') -> None:
        self._codes = codes
        self._device = device
        self._position = 0

    def read(self, count: int) -> torch.Tensor:
        """The next codes [count, num_ws, w_dim]."""
        indices = np.minimum(np.arange(self._position, self._position + count), len(self._codes) - 1)
        self._position += count
        return torch.from_numpy(np.ascontiguousarray(self._codes[indices], dtype=np.float32)).to(self._device)

    def state(self) -> dict[str, Any]:
        return {'position': self._position}

    def restore(self, state: dict[str, Any]) -> None:
        self._position = state['position']
