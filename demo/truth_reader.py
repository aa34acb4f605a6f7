"""Reads the true parameters back from pictures of the world, so that footage and generated video can be judged alike.

A small convolutional network, fitted to rendered pictures and to the fitted generator's pictures of the same heads. What it
answers for a rendered picture can be compared with the truth; what it answers for a generated one is a measurement.
"""

import itertools
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save

from demo.parameters import ParameterTable
from networks.checkpoints import replacing
from networks.errors import InputError

INPUT_RESOLUTION = 64


class TruthReader(torch.nn.Module):
    """Pictures `[N, 3, R, R]` in [-1, 1], R a multiple of 64, to true parameters `[N, P]` in their own units."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, table: ParameterTable) -> None:
        super().__init__()
        self.table = table
        widths = [3, 16, 32, 64, 96]
        self.down = torch.nn.ModuleList(torch.nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.same = torch.nn.ModuleList(torch.nn.Conv2d(width, width, 3, padding=1) for width in widths[1:])
        self.hidden = torch.nn.Linear(widths[-1] * 16, 96)
        self.out = torch.nn.Linear(96, len(table))
        mean, deviation = table.statistics
        self.register_buffer('mean', mean, persistent=False)
        self.register_buffer('deviation', deviation, persistent=False)

    def standardized(self, pictures: torch.Tensor) -> torch.Tensor:
        """Parameters `[N, P]` in standard deviations from the world's mean."""
        size = pictures.shape[2]
        if size % INPUT_RESOLUTION or pictures.shape[3] != size:
            raise ValueError(
                f'pictures must be square with a multiple of {INPUT_RESOLUTION} pixels, got {list(pictures.shape[2:])}'
            )
        x = F.avg_pool2d(pictures, size // INPUT_RESOLUTION) if size > INPUT_RESOLUTION else pictures
        for down, same in zip(self.down, self.same, strict=True):
            x = F.leaky_relu(down(x), 0.1)
            x = x + F.leaky_relu(same(x), 0.1)
        return self.out(F.leaky_relu(self.hidden(x.flatten(1)), 0.1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.standardized(pictures) * self.deviation + self.mean

    @torch.no_grad()
    def read(self, frames: np.ndarray, batch: int = 64) -> np.ndarray:
        """Parameters `[T, P]` float32 of frames `[T, H, W, 3]` uint8."""
        parts = []
        for first in range(0, len(frames), batch):
            pictures = torch.from_numpy(frames[first : first + batch]).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
            parts.append(self(pictures).numpy())
        return np.concatenate(parts) if parts else np.zeros((0, len(self.table)), np.float32)


# ----------------------------------------------------------------------------
# Files.


def save_reader(path: pathlib.Path, reader: TruthReader) -> None:
    """Write the weights in half precision; the names of the parameters go along and are checked when reading."""
    weights = {name: value.to(torch.float16).contiguous() for name, value in reader.state_dict().items()}
    with replacing(path) as temporary:
        pathlib.Path(temporary).write_bytes(save(weights, metadata={'names': ' '.join(reader.table.names)}))


def load_reader(path: pathlib.Path, table: ParameterTable) -> TruthReader:
    """Read weights that `save_reader` wrote for a world with these parameters.

    Raises:
        InputError: The file was made for another table of parameters.
    """
    with safe_open(path, framework='pt') as file:
        names = (file.metadata() or {}).get('names', '').split()
    if names != list(table.names):
        raise InputError(f'{path} reads other parameters than this version has; make it anew with: python -m demo.make_world')
    reader = TruthReader(table)
    reader.load_state_dict({name: value.to(torch.float32) for name, value in load_file(path).items()})
    return reader.eval().requires_grad_(False)
