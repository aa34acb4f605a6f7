"""LPIPS v0.1, the learned perceptual distance between images (Zhang et al., CVPR 2018, arXiv:1801.03924).

With y_l the activations of layer l of VGG16 or AlexNet, scaled to unit length in each place, and w_l >= 0 learned,

    d(x, x0) = sum_l 1/(H_l W_l) sum_hw || sqrt(w_l) * (y_l[hw] - y0_l[hw]) ||^2      (equation 1)

(v0.1 weights the squares by w_l, not by its square) so the distance is the squared distance of two vectors, and a
target's vector needs to be computed only once.

`networks.checkpoints.detectors.load_lpips` finds and reads the weights.
"""

import math
from typing import Any

import numpy as np
import torch

# Convolutions up to each layer that is compared: (channels, kernel size, stride); 'pool' before a convolution.
VGG16_LAYERS: list[list[Any]] = [
    [(64, 3, 1), (64, 3, 1)],
    ['pool', (128, 3, 1), (128, 3, 1)],
    ['pool', (256, 3, 1), (256, 3, 1), (256, 3, 1)],
    ['pool', (512, 3, 1), (512, 3, 1), (512, 3, 1)],
    ['pool', (512, 3, 1), (512, 3, 1), (512, 3, 1)],
]
ALEXNET_LAYERS: list[list[Any]] = [[(64, 11, 4)], ['pool', (192, 5, 1)], ['pool', (384, 3, 1)], [(256, 3, 1)], [(256, 3, 1)]]
# (weight [O, I, k, k], bias [O]) of each convolution, weights [C] of each compared layer.
Weights = tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray]]

# Layers, pooling window (the stride is 2), smallest side of an image, name in the package.
NETWORKS = {'vgg': (VGG16_LAYERS, 2, 16, 'vgg16'), 'alex': (ALEXNET_LAYERS, 3, 32, 'alexnet')}

SMALL_RESOLUTION = 64


class LPIPS(torch.nn.Module):
    """Perceptual distance of images.

    Args:
        network: `'vgg'` (VGG16) or `'alex'` (AlexNet, several times faster).
        weights: Those of this network.
    """

    shift: torch.Tensor
    scale: torch.Tensor
    description: dict[str, Any]  # what a protocol says of the weights, where they came from a file

    def __init__(self, network: str, weights: Weights) -> None:
        super().__init__()
        self.network = network
        layers, self.pool_size, self.smallest_side, _ = NETWORKS[network]
        arrays, linear = weights
        self.layers = layers
        self.convolutions = torch.nn.ModuleList()
        in_channels = 3
        for channels, size, stride in (item for layer in layers for item in layer if item != 'pool'):
            padding = 2 if size > 3 else 1
            convolution = torch.nn.Conv2d(in_channels, channels, size, stride, padding)
            weight, bias = arrays[len(self.convolutions)]
            with torch.no_grad():
                convolution.weight.copy_(torch.from_numpy(weight))
                convolution.bias.copy_(torch.from_numpy(bias))  # type: ignore[union-attr]
            self.convolutions.append(convolution)
            in_channels = channels
        for index, weight in enumerate(linear):
            self.register_buffer(f'root{index}', torch.from_numpy(np.sqrt(weight)).reshape(1, -1, 1, 1))
        self.register_buffer('shift', torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1))
        self.register_buffer('scale', torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Vectors `[N, D]` whose squared distances are the perceptual distances.

        Args:
            images: `[N, 3, H, W]` (or 1 channel, repeated) in [-1, 1]; H, W from 16 (VGG16) or 32 (AlexNet).
        """
        if images.shape[1] == 1:
            images = images.repeat(1, 3, 1, 1)
        if min(images.shape[2:]) < self.smallest_side:
            factor = math.ceil(self.smallest_side / min(images.shape[2:]))
            images = torch.nn.functional.interpolate(images, scale_factor=factor, mode='nearest')
        x = (images - self.shift) / self.scale
        vectors = []
        convolutions = iter(self.convolutions)
        for index, layer in enumerate(self.layers):
            for item in layer:
                if item == 'pool':
                    x = torch.nn.functional.max_pool2d(x, self.pool_size, 2)
                else:
                    x = torch.nn.functional.relu_(next(convolutions)(x))
            # The tiny term inside keeps the gradient finite where all activations are zero; 1e-10 as in v0.1.
            length = (x.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()
            y = x / (length + 1e-10) * getattr(self, f'root{index}')
            vectors.append(y.flatten(1) / math.sqrt(x.shape[2] * x.shape[3]))
        return torch.cat(vectors, dim=1)

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The distances `[N]` of two batches of images (see `embed`)."""
        return (self.embed(images) - self.embed(targets)).square().sum(dim=1)


def is_coarse(resolution: int, lpips: LPIPS | None) -> bool:
    """Whether a distance sees too little of eyes and mouths in pictures of this many pixels a side to be left to itself.

    The first layer of AlexNet looks at every fourth pixel (stride 4).
    """
    return lpips is not None and lpips.network == 'alex' and resolution <= SMALL_RESOLUTION


def convolution_shapes(layers: list[list[Any]]) -> list[tuple[int, ...]]:
    """Shape [O, I, k, k] of each convolution, from front to back."""
    shapes: list[tuple[int, ...]] = []
    in_channels = 3
    for channels, size, _ in (item for layer in layers for item in layer if item != 'pool'):
        shapes.append((channels, in_channels, size, size))
        in_channels = channels
    return shapes
