"""The temporal critic C: a sequence of codes in, one score out (StyleVideoGAN, BMVC 2021).

    C(w_0, .., w_{t-1}) := TConv(E(w_0), .., E(w_{t-1}))

E, the same narrowing network for every code on its own, balances the capacity of generator and critic; TConv is a stack
of temporal convolutions over the sequence of embeddings. No layer couples the samples of a batch, so that the gradient
penalty's per-sample gradients are exact.

This file is embedded in snapshots, so it imports nothing but torch and torch_utils.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torch_utils import persistence


@persistence.persistent_class
class TemporalCritic(torch.nn.Module):
    """C of the paper, on whatever the data space is: basis coordinates or standardised codes, flattened over layers.

    Args:
        num_features: size of one time step's input.
        num_frames: window length t.
        narrowing_widths: widths of E; the last is the size of an embedding.
        temporal_channels: channels of the temporal convolutions (kernel 5, stride 2, padding 2 each).
        slope: negative slope of the leaky ReLU.
    """

    def __init__(
        self,
        num_features: int,
        num_frames: int = 25,
        narrowing_widths: Sequence[int] = (64, 32),
        temporal_channels: Sequence[int] = (64, 64, 64),
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.num_frames = num_frames
        layers: list[torch.nn.Module] = []
        channels = num_features
        for width in narrowing_widths:
            layers += [torch.nn.Linear(channels, width), torch.nn.LeakyReLU(slope)]
            channels = width
        self.E = torch.nn.Sequential(*layers)
        layers = []
        length = num_frames
        for width in temporal_channels:
            layers += [torch.nn.Conv1d(channels, width, kernel_size=5, stride=2, padding=2), torch.nn.LeakyReLU(slope)]
            channels = width
            length = (length - 1) // 2 + 1
        self.TConv = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(channels * length, 1))
        for layer in self.modules():
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv1d):
                torch.nn.init.kaiming_normal_(layer.weight, a=slope)
                if layer.bias is not None:
                    torch.nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X [N, num_frames, num_features] -> scores [N]."""
        return self.TConv(self.E(x).transpose(1, 2)).squeeze(1)
