"""Encoders of pSp and e4e: an aligned face in, the W or W+ codes of a StyleGAN2 out.

"Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation" (Richardson et al., 2021; pSp) and "Designing an
Encoder for StyleGAN Image Manipulation" (Tov et al., 2021; e4e). Parameter names are those of their checkpoints. The
backbone is the IR-SE-50 of "ArcFace" (Deng et al., 2019) with the squeeze-and-excitation of Hu et al. (2018).
"""

import math
from typing import cast

import torch

CODE_WIDTH = 512  # w_dim of every published encoder, and the width of the backbone's last stage.
INPUT_SIZE = 256  # Height and width of the pictures that the encoders were trained on.
COARSE_STYLES = 3  # Codes 0..2 read the map of 16x16,
MIDDLE_STYLES = 7  # codes 3..6 that of 32x32, the others that of 64x64.
LEVELS_OF_STYLES = 3

# IR-SE-50: (width, number of units) of its four stages; each stage begins with stride 2.
BACKBONE_STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))
SQUEEZE_REDUCTION = 16

# ----------------------------------------------------------------------------
# Backbone.


class SqueezeExcitation(torch.nn.Module):
    """Channels scaled by sigmoid(W2 relu(W1 mean(x)))."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = torch.nn.Conv2d(channels, channels // SQUEEZE_REDUCTION, kernel_size=1, bias=False)
        self.fc2 = torch.nn.Conv2d(channels // SQUEEZE_REDUCTION, channels, kernel_size=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> the same shape."""
        squeezed = torch.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(squeezed))


class ImprovedResidualUnit(torch.nn.Module):
    """Shortcut plus BN, conv, PReLU, conv with the stride, BN, squeeze-and-excitation (Deng et al., 2019, 3.2.2)."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.shortcut_layer: torch.nn.Module
        if in_channels == channels:
            self.shortcut_layer = torch.nn.MaxPool2d(kernel_size=1, stride=stride)  # Every stride-th pixel.
        else:
            self.shortcut_layer = torch.nn.Sequential(
                torch.nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False), torch.nn.BatchNorm2d(channels)
            )
        self.res_layer = torch.nn.Sequential(
            torch.nn.BatchNorm2d(in_channels),
            torch.nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False),
            torch.nn.PReLU(channels),
            torch.nn.Conv2d(channels, channels, kernel_size=3, stride=stride, padding=1, bias=False),
            torch.nn.BatchNorm2d(channels),
            SqueezeExcitation(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, H, W] -> [N, channels, H / stride, W / stride]."""
        return self.shortcut_layer(x) + self.res_layer(x)


class Backbone(torch.nn.Module):
    """IR-SE-50 without its head: `input_layer` and 24 units in `body`."""

    def __init__(self, in_channels: int):
        super().__init__()
        width = BACKBONE_STAGES[0][0]
        self.input_layer = torch.nn.Sequential(
            torch.nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False),
            torch.nn.BatchNorm2d(width),
            torch.nn.PReLU(width),
        )
        units = []
        for channels, count in BACKBONE_STAGES:
            for index in range(count):
                units.append(ImprovedResidualUnit(width, channels, stride=2 if index == 0 else 1))
                width = channels
        self.body = torch.nn.Sequential(*units)

    def stages(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What the four stages give: widths 64, 128, 256, 512 at 1/2, 1/4, 1/8, 1/16 of the input's size."""
        x = self.input_layer(images)
        units = iter(self.body)
        maps = []
        for _, count in BACKBONE_STAGES:
            for _ in range(count):
                x = next(units)(x)
            maps.append(x)
        return maps


class EqualizedLinear(torch.nn.Module):
    """y = x W^T / sqrt(in_features) + b (equalized learning rate, Karras et al., 2018)."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(out_features, in_features))
        self.bias = torch.nn.Parameter(torch.zeros(out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_features] -> [N, out_features]."""
        return torch.nn.functional.linear(x, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


# ----------------------------------------------------------------------------
# Feature pyramid encoders into W+.


class MapToStyle(torch.nn.Module):
    """A square feature map, halved by convolutions until one pixel is left, to one code ("map2style" of pSp)."""

    def __init__(self, size: int):
        super().__init__()
        layers: list[torch.nn.Module] = []
        for _ in range(int(math.log2(size))):
            layers.append(torch.nn.Conv2d(CODE_WIDTH, CODE_WIDTH, kernel_size=3, stride=2, padding=1))
            layers.append(torch.nn.LeakyReLU(0.01))
        self.convs = torch.nn.Sequential(*layers)
        self.linear = EqualizedLinear(CODE_WIDTH, CODE_WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 512, size, size] -> [N, 512]."""
        return self.linear(self.convs(x).flatten(start_dim=1))


class FeaturePyramidEncoder(Backbone):
    """Three levels of features, each code read from the level of its index.

    Args:
        n_styles: Number of codes: num_ws of the image generator (18 for 1024 pixels).
        in_channels: Channels of the pictures (3; pSp's segmentation and sketch models have others).
    """

    def __init__(self, n_styles: int, in_channels: int = 3):
        super().__init__(in_channels)
        self.n_styles = n_styles
        self.styles = torch.nn.ModuleList(MapToStyle(16 << self.level_of_style(index)) for index in range(n_styles))
        self.latlayer1 = torch.nn.Conv2d(256, CODE_WIDTH, kernel_size=1)
        self.latlayer2 = torch.nn.Conv2d(128, CODE_WIDTH, kernel_size=1)

    @staticmethod
    def level_of_style(index: int) -> int:
        """0 (16x16), 1 (32x32) or 2 (64x64): the map that code `index` is read from."""
        return int(index >= COARSE_STYLES) + int(index >= MIDDLE_STYLES)

    def read_codes(self, images: torch.Tensor) -> torch.Tensor:
        """What the heads say, [N, n_styles, 512], for pictures [N, in_channels, 256, 256] in [-1, 1]."""
        _, fine, middle, coarse = self.stages(images)
        p2 = self._merge(coarse, self.latlayer1(middle))
        p1 = self._merge(p2, self.latlayer2(fine))
        pyramid = (coarse, p2, p1)
        heads = (head(pyramid[self.level_of_style(index)]) for index, head in enumerate(self.styles))
        return torch.stack(list(heads), dim=1)

    @staticmethod
    def _merge(coarse: torch.Tensor, lateral: torch.Tensor) -> torch.Tensor:
        size = lateral.shape[2:]
        return torch.nn.functional.interpolate(coarse, size=size, mode='bilinear', align_corners=True) + lateral


class GradualStyleEncoder(FeaturePyramidEncoder):
    """pSp's encoder into W+: each head gives its code (Richardson et al., 2021, Section 3)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, 256, 256] in [-1, 1] -> codes [N, n_styles, 512], without the average code."""
        return self.read_codes(images)


class Encoder4Editing(FeaturePyramidEncoder):
    """e4e's encoder into W+: w_0 from the first head, and offsets from the others,
    w_i = w_0 + Delta_i (Tov et al., 2021, Section 4.1), all of which are in use after training.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, 256, 256] in [-1, 1] -> codes [N, n_styles, 512], without the average code."""
        heads = self.read_codes(images)
        w0, offsets = heads[:, :1], heads[:, 1:]
        return torch.cat([w0, w0 + offsets], dim=1)


# ----------------------------------------------------------------------------
# Encoders that see only the backbone's last map.


class BackboneEncoderUsingLastLayerIntoW(Backbone):
    """pSp's encoder into W: the pooled last map, and one linear layer."""

    def __init__(self, in_channels: int = 3):
        super().__init__(in_channels)
        self.linear = EqualizedLinear(CODE_WIDTH, CODE_WIDTH)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, 256, 256] in [-1, 1] -> codes [N, 512], without the average code."""
        return self.linear(self.stages(images)[-1].mean(dim=(2, 3)))


class BackboneEncoderUsingLastLayerIntoWPlus(Backbone):
    """pSp's baseline encoder into W+: the last map at 7x7, flattened, through two linear layers."""

    def __init__(self, n_styles: int, in_channels: int = 3):
        super().__init__(in_channels)
        self.n_styles = n_styles
        self.output_layer_2 = torch.nn.Sequential(
            torch.nn.BatchNorm2d(CODE_WIDTH),
            torch.nn.AdaptiveAvgPool2d((7, 7)),
            torch.nn.Flatten(),
            torch.nn.Linear(CODE_WIDTH * 7 * 7, CODE_WIDTH),
        )
        self.linear = EqualizedLinear(CODE_WIDTH, CODE_WIDTH * n_styles)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, 256, 256] in [-1, 1] -> codes [N, n_styles, 512], without the average code."""
        return self.linear(self.output_layer_2(self.stages(images)[-1])).reshape(-1, self.n_styles, CODE_WIDTH)


# ----------------------------------------------------------------------------
# What callers get.


class ImageEncoder(torch.nn.Module):
    """Pictures of any size to W+ codes, with the average code added.

    Args:
        encoder: One of the encoders above.
        num_ws: Number of codes that the image generator takes; a code in W is repeated that often.
        latent_avg: Average code to add, `[w_dim]` or `[num_ws, w_dim]`; None = the encoder's own output.

    Attributes:
        num_ws, w_dim: Shape of the codes.
        img_resolution, img_channels: What pictures are brought to, and what they must have.
    """

    latent_avg: torch.Tensor

    def __init__(self, encoder: Backbone, num_ws: int, latent_avg: torch.Tensor | None = None):
        super().__init__()
        self.encoder = encoder
        self.num_ws = num_ws
        self.w_dim = CODE_WIDTH
        self.img_resolution = INPUT_SIZE
        self.img_channels = cast(torch.nn.Conv2d, encoder.input_layer[0]).in_channels
        average = torch.zeros([CODE_WIDTH]) if latent_avg is None else latent_avg
        self.register_buffer('latent_avg', average.detach().to(torch.float32).expand(num_ws, CODE_WIDTH).clone())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, img_channels, H, W] in [-1, 1] -> codes [N, num_ws, w_dim].

        Other sizes than 256x256 are resized, bilinear with the prefilter of the scale when they shrink.
        """
        images = images.to(self.latent_avg.dtype)
        if images.shape[2:] != (INPUT_SIZE, INPUT_SIZE):
            images = torch.nn.functional.interpolate(
                images, size=(INPUT_SIZE, INPUT_SIZE), mode='bilinear', align_corners=False, antialias=True
            )
        codes = self.encoder(images)
        if codes.ndim == 2:
            codes = codes.unsqueeze(1)
        return codes + self.latent_avg
