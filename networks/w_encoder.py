"""A compact encoder from images to W+ codes, for any image generator of the StyleGAN family.

A norm-free residual network shrinks the picture to 4x4, one hidden vector summarises it, and every style layer has a
head of its own. The heads answer in whitened coordinates around the generator's average:

    w_l = w_avg_l + B h_l,   l = 0 .. num_ws - 1,

with h_l the answer of head l (unit variance over the generator's own codes) and B a square root of their covariance
(`w_basis`). Nothing couples the samples of a batch: there is no batch normalisation, so a frame has the same code
alone and among others.
"""

import math

import torch

from torch_utils import persistence


def activate(x: torch.Tensor) -> torch.Tensor:
    """Leaky ReLU of slope 0.2, scaled to keep the second moment of a standard normal input near 1."""
    return torch.nn.functional.leaky_relu(x, 0.2) * math.sqrt(2 / (1 + 0.2**2))


@persistence.persistent_class
class DownBlock(torch.nn.Module):
    """Residual block that halves the resolution: `[N, in_channels, H, W]` to `[N, out_channels, H/2, W/2]`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = torch.nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.conv1 = torch.nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.skip = torch.nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(activate(self.conv0(activate(x))))
        # Averaging before the 1x1 convolution is the same as after it, at a quarter of the work.
        return (self.skip(torch.nn.functional.avg_pool2d(x, 2)) + y) * math.sqrt(0.5)


@persistence.persistent_class
class StyleHeads(torch.nn.Module):
    """One small network for each style layer: `[N, in_features]` to `[N, num_ws, out_features]`."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int, num_ws: int) -> None:
        super().__init__()
        self.weight0 = torch.nn.Parameter(torch.randn(num_ws, in_features, hidden_features) / math.sqrt(in_features))
        self.bias0 = torch.nn.Parameter(torch.zeros(num_ws, 1, hidden_features))
        # Small at first: training begins near the generator's average image.
        self.weight1 = torch.nn.Parameter(torch.randn(num_ws, hidden_features, out_features) * 0.01)
        self.bias1 = torch.nn.Parameter(torch.zeros(num_ws, 1, out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unsqueeze(0).expand(self.weight0.shape[0], -1, -1)  # [num_ws, N, in_features]
        x = activate(torch.baddbmm(self.bias0, x, self.weight0))
        return torch.baddbmm(self.bias1, x, self.weight1).transpose(0, 1)


@persistence.persistent_class
class WEncoder(torch.nn.Module):
    """Images to W+ codes.

    Args:
        num_ws: Style layers of the image generator.
        w_dim: Dimension of one style vector.
        img_resolution: Resolution of the image generator.
        img_channels: Colour channels, 3 or 1.
        input_resolution: Power of two that images are resized to, None: `img_resolution`, at most 256.
        channel_base: Channels at resolution r are `min(channel_base // r, channel_max)`.
        channel_max: See `channel_base`.
        hidden_features: Width of the vector that summarises the image.
        head_features: Hidden width of each head.

    Buffers:
        w_avg `[num_ws, w_dim]` and w_basis `[w_dim, w_dim]` as in the module's description; set them with
        `set_code_statistics` before training.
    """

    w_avg: torch.Tensor
    w_basis: torch.Tensor

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int = 3,
        input_resolution: int | None = None,
        channel_base: int = 1536,
        channel_max: int = 256,
        hidden_features: int = 512,
        head_features: int = 128,
    ) -> None:
        super().__init__()
        if input_resolution is None:
            input_resolution = 2 ** min(max(int(math.log2(img_resolution)), 4), 8)
        if input_resolution < 16 or input_resolution & (input_resolution - 1):
            raise ValueError(f'input_resolution is {input_resolution}; it must be a power of two from 16')
        self.num_ws = num_ws
        self.w_dim = w_dim
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.input_resolution = input_resolution
        self.unshuffle = 4 if input_resolution >= 256 else 2

        def channels(resolution: int) -> int:
            return min(channel_base // resolution, channel_max)

        resolution = input_resolution // self.unshuffle
        self.stem = torch.nn.Conv2d(img_channels * self.unshuffle**2, channels(resolution), 3, padding=1)
        self.blocks = torch.nn.ModuleList()
        while resolution > 4:
            self.blocks.append(DownBlock(channels(resolution), channels(resolution // 2)))
            resolution //= 2
        self.hidden = torch.nn.Linear(channels(4) * 16, hidden_features)
        self.hidden_norm = torch.nn.LayerNorm(hidden_features)
        self.heads = StyleHeads(hidden_features, head_features, w_dim, num_ws)
        self.register_buffer('w_avg', torch.zeros(num_ws, w_dim))
        self.register_buffer('w_basis', torch.eye(w_dim))

    @torch.no_grad()
    def set_code_statistics(self, w_avg: torch.Tensor, covariance: torch.Tensor, floor: float = 0.05) -> None:
        """Set average and basis of the answers.

        Args:
            w_avg: `[w_dim]` or `[num_ws, w_dim]`.
            covariance: `[w_dim, w_dim]` of the generator's codes.
            floor: Standard deviations below this fraction of their root mean square are raised to it, so that
                directions in which the generator's own samples hardly vary stay within reach.
        """
        self.w_avg.copy_(w_avg.to(self.w_avg).expand(self.num_ws, self.w_dim))
        variances, axes = torch.linalg.eigh(covariance.double().cpu())
        smallest = floor**2 * variances.clamp(min=0).mean()
        deviations = variances.clamp(min=max(float(smallest), 1e-12)).sqrt()
        self.w_basis.copy_(axes * deviations)

    def resize(self, images: torch.Tensor) -> torch.Tensor:
        """`[N, C, input_resolution, input_resolution]`: averages of whole pixels, or antialiased bilinear."""
        size = self.input_resolution
        height, width = images.shape[2:]
        if (height, width) == (size, size):
            return images
        if height == width and height % size == 0:
            return torch.nn.functional.avg_pool2d(images, height // size)
        return torch.nn.functional.interpolate(images, size=(size, size), mode='bilinear', align_corners=False, antialias=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode images `[N, C, H, W]` in [-1, 1] of any size; return codes `[N, num_ws, w_dim]`."""
        x = self.resize(images.to(torch.float32))
        x = self.stem(torch.nn.functional.pixel_unshuffle(x, self.unshuffle) * 2)
        for block in self.blocks:
            x = block(x)
        x = activate(self.hidden_norm(self.hidden(activate(x).flatten(1))))
        # [N, num_ws, w_dim]: h_l in the columns of the basis, then the average.
        return self.w_avg + self.heads(x) @ self.w_basis.T
