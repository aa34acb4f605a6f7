"""StyleGAN2's synthesis for fitting on a CPU: the same function of the same weights, several times faster forwards and backwards.

Maps are kept in channels-last order and bfloat16 (pictures and styles stay float32), and the upsampling convolution (zeros in
between, 3x3 kernel, [1,3,3,1] filter) is computed as what it is: four ordinary 3x3 convolutions of the small map, one for
each of the four phases of the large one, with kernels that depend linearly on the original kernel.
"""

import functools

import torch
import torch.nn.functional as F

from networks.stylegan2 import Generator, SynthesisLayer, modulated_convolution
from torch_utils.ops import upfirdn2d


@functools.cache
def _phase_basis() -> torch.Tensor:
    """B `[9, 4, 9]`: kernels of the four phases = original kernel @ B, read off the reference's response to single taps."""
    basis = torch.zeros(9, 4, 9)
    resample = upfirdn2d.setup_filter([1, 3, 3, 1])
    for tap in range(9):
        weight = torch.zeros(9)
        weight[tap] = 1
        for position in range(9):  # which pixel of the 3x3 neighbourhood is lit
            x = torch.zeros(9)
            x[position] = 1
            middle = F.pad(x.reshape(1, 1, 3, 3), [3, 3, 3, 3])
            y, _ = modulated_convolution(middle, weight.reshape(1, 1, 3, 3), torch.ones(1, 1), resample, up=2, demodulate=False)
            basis[tap, :, position] = y[0, 0, 8:10, 8:10].flatten()
    return basis


def _upsampling_kernels(weight: torch.Tensor) -> torch.Tensor:
    """Kernels `[4 O, I, 3, 3]`, phases outermost, of the 3x3 weight `[O, I, 3, 3]`."""
    out_channels, in_channels = weight.shape[:2]
    kernels = torch.tensordot(weight.flatten(2), _phase_basis().to(weight), dims=1)  # [O, I, 4, 9]
    return kernels.permute(2, 0, 1, 3).reshape(4 * out_channels, in_channels, 3, 3)


def _layer(layer: SynthesisLayer, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """One modulated 3x3 layer without noise: lrelu(demodulated convolution + bias) * sqrt(2)."""
    styles = layer.affine(w)
    x = x * styles.to(x.dtype)[:, :, None, None]
    factors = (styles.square() @ layer.weight.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt()
    if layer.up == 2:
        kernels = _upsampling_kernels(layer.weight).to(x.dtype).contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, kernels, padding=1)
        num, _, height, width = y.shape
        y = y.permute(0, 2, 3, 1).reshape(num, height, width, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(num, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)
    else:
        y = F.conv2d(x, layer.weight.to(x.dtype).contiguous(memory_format=torch.channels_last), padding=1)
    # lrelu(a x) = a lrelu(x) for a > 0, so the gain is applied to the small factors.
    y = torch.addcmul((layer.bias * 2**0.5).to(y.dtype)[None, :, None, None], y, (factors * 2**0.5).to(y.dtype)[:, :, None, None])
    return F.leaky_relu(y, 0.2)


def _upsample_picture(image: torch.Tensor) -> torch.Tensor:
    """[1,3,3,1] upsampling of a picture: bilinear interpolation with zeros around."""
    return F.interpolate(F.pad(image, [1, 1, 1, 1]), scale_factor=2, mode='bilinear', align_corners=False)[:, :, 2:-2, 2:-2]


def fast_synthesis(
    generator: Generator, ws: torch.Tensor, resolution: int | None = None, dtype: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    """Pictures `[N, C, resolution, resolution]` float32 of codes ws `[N, num_ws, w_dim]`, noise left out.

    resolution: stop at this block (None = the generator's own resolution). Needs the skip architecture and lrelu.
    """
    image, x, index = None, None, 0
    for size in generator.synthesis.block_resolutions:
        block = getattr(generator.synthesis, f'b{size}')
        if x is None:
            x = block.const.to(dtype)[None].expand(ws.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        else:
            x = _layer(block.conv0, x, ws[:, index])
            index += 1
        x = _layer(block.conv1, x, ws[:, index])
        index += 1
        torgb = block.torgb
        styles = torgb.affine(ws[:, index]) * torgb.weight_gain
        weights = (torgb.weight[None, :, :, 0, 0] * styles[:, None]).to(dtype)  # [N, C, I]
        rgb = (weights @ x.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)).float().unflatten(2, [size, size])
        rgb = rgb + torgb.bias[None, :, None, None]
        image = rgb if image is None else _upsample_picture(image) + rgb
        if size == resolution:
            break
    assert image is not None
    return image
