"""True parameters of a world: names, ranges, and how a normal latent becomes them.

A subject at one moment is a row of floats: first its identity (what stays), then its motion (what changes from frame to frame).
"""

import dataclasses
import functools

import numpy as np
import torch


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One true parameter: `kind` says how a standard normal number becomes its value.

    uniform: evenly spread over [low, high].        normal: mean (low+high)/2, low and high lie two deviations away.
    rare:    low for most subjects, rising to high for the upper `share` of them.
    """

    name: str
    low: float
    high: float
    kind: str = 'uniform'
    share: float = 0.0


def normalize_latent(z: torch.Tensor) -> torch.Tensor:
    """Put z `[N, P]` on the sphere of radius sqrt(P), as StyleGAN2's mapping does first of all.

    The mapping network cannot know the length of z, so neither may the parameters depend on it.
    """
    return z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


@dataclasses.dataclass(frozen=True)
class ParameterTable:
    """The parameters of one world: `identity` first, then `motion`."""

    identity: tuple[Parameter, ...]
    motion: tuple[Parameter, ...]

    @functools.cached_property
    def all(self) -> tuple[Parameter, ...]:
        """All parameters, in the order of the columns."""
        return self.identity + self.motion

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(parameter.name for parameter in self.all)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Column of each name."""
        return {name: index for index, name in enumerate(self.names)}

    @property
    def num_identity(self) -> int:
        """Number of columns that stay."""
        return len(self.identity)

    def __len__(self) -> int:
        return len(self.all)

    def from_latent(self, z: torch.Tensor) -> torch.Tensor:
        """True parameters `[N, P]` of latents z `[N, P]` ~ N(0, 1), one number of z a parameter.

        With u = Phi(normalised z): uniform = low + (high-low) u; rare = low + (high-low) clip((u - (1-share)) / share, 0, 1);
        normal = mean + z (high-low)/4, softly kept within three deviations.
        """
        z = normalize_latent(z.to(torch.float32))
        u = 0.5 * (1 + torch.erf(z * 0.5**0.5))
        low = z.new_tensor([parameter.low for parameter in self.all])
        high = z.new_tensor([parameter.high for parameter in self.all])
        share = z.new_tensor([parameter.share or 1.0 for parameter in self.all])
        is_normal = torch.tensor([parameter.kind == 'normal' for parameter in self.all], device=z.device)
        spread = ((u - (1 - share)) / share).clamp(0, 1)
        bounded = 3 * torch.tanh(z / 3)
        return torch.where(is_normal, (low + high) / 2 + bounded * (high - low) / 4, low + (high - low) * spread)

    def random_identity(self, seed: int) -> np.ndarray:
        """Identity parameters `[num_identity]` float32 of the subject with this seed."""
        z = np.random.RandomState(seed).randn(1, len(self))
        return self.from_latent(torch.from_numpy(z))[0, : self.num_identity].numpy()

    def neutral(self) -> np.ndarray:
        """Parameters `[P]` float32 of the middle of the world, with everything rare left out."""
        middle = [parameter.low if parameter.kind == 'rare' else (parameter.low + parameter.high) / 2 for parameter in self.all]
        return np.asarray(middle, dtype=np.float32)

    @functools.cached_property
    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation `[P]` of every parameter over the world's own latents, from its definition."""
        means, deviations = [], []
        for parameter in self.all:
            span = parameter.high - parameter.low
            if parameter.kind == 'normal':
                means.append((parameter.low + parameter.high) / 2)
                deviations.append(0.9125 * span / 4)  # of 3 tanh(z / 3), z ~ N(0, 1)
            elif parameter.kind == 'rare':  # 0 with probability 1 - share, else uniform
                mean = parameter.share / 2
                means.append(parameter.low + span * mean)
                deviations.append(span * (parameter.share / 3 - mean**2) ** 0.5)
            else:
                means.append((parameter.low + parameter.high) / 2)
                deviations.append(span / 12**0.5)
        return torch.tensor(means), torch.tensor(deviations)

    def within_reach(self, track: dict[str, np.ndarray], identity: np.ndarray) -> np.ndarray:
        """Rows `[T, P]` float32 of one subject with these tracks of motion (name: `[T]`).

        Softly within what the world covers: half as far again as the generator's own two deviations, never beyond.
        """
        num_frames = len(next(iter(track.values())))
        rows = np.empty((num_frames, len(self)), dtype=np.float32)
        rows[:, : self.num_identity] = identity
        for parameter in self.motion:
            middle, reach = (parameter.low + parameter.high) / 2, (parameter.high - parameter.low) / 2
            values = track[parameter.name]
            if parameter.kind == 'normal':
                values = middle + 1.4 * reach * np.tanh((values - middle) / (1.4 * reach))
            else:
                values = np.clip(values, parameter.low, parameter.high)
            rows[:, self.index[parameter.name]] = values
        return rows
