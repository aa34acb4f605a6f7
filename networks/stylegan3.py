"""StyleGAN3 generators ("Alias-Free Generative Adversarial Networks", Karras et al., 2021), translation- and
rotation-equivariant, with the attribute and state-dict names of NVIDIA's pickles.

A feature map is a sampled version of a continuous signal z(x) over the picture, which the unit square carries plus a
margin. Every layer modulates and convolves the samples, raises the sampling rate, applies the leaky ReLU there, removes
what the next rate cannot carry with a low-pass filter, and samples again: Section 3 of the paper; the equation and
section numbers below are the paper's.

This text travels inside the pickles that hold such a generator, so it imports only what NVIDIA's repositories have.
"""

import math
from typing import Any

import numpy as np
import torch

from torch_utils import misc, persistence
from torch_utils.ops import bias_act, upfirdn2d

try:  # Only the stylegan3 repository has the fused form; stylegan2-ada-pytorch has the parts that it is made of.
    from torch_utils.ops import filtered_lrelu as fused_filtered_lrelu
except ImportError:
    fused_filtered_lrelu = None  # type: ignore[assignment]

NOISE_MODES = ('random', 'const', 'none')  # Accepted from callers that also know StyleGAN2; there is no noise here.

# ----------------------------------------------------------------------------
# Filters (Section 3.2 and Appendix C.1, C.2).


def kaiser_window_beta(numtaps: int, width: float, sampling_rate: float) -> float:
    """Shape of the Kaiser window whose low-pass filter of `numtaps` taps has a transition band of `width` Hz.

    Kaiser's formulas: A = 2.285 (n - 1) pi w + 7.95 decibels of attenuation with w in units of the Nyquist rate, and
    beta(A) in three pieces.
    """
    attenuation = 2.285 * (numtaps - 1) * math.pi * (2 * width / sampling_rate) + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    return 0.0


def lowpass_filter(
    numtaps: int, *, cutoff: float, width: float, sampling_rate: float, radial: bool = False
) -> torch.Tensor | None:
    """Kaiser-windowed low-pass filter, of sum 1.

    Args:
        numtaps: Length; 1 means no filter.
        cutoff: Middle of the transition band, in Hz (cycles per width of the picture).
        width: Width of the transition band, in Hz.
        sampling_rate: Samples per width of the picture.
        radial: Rotation-symmetric jinc 2 J1(2 pi fc r) / (2 pi fc r) instead of a separable sinc.

    Returns:
        float32 `[numtaps]`, to be used along both axes, or `[numtaps, numtaps]` if radial; None if there is one tap.
    """
    if numtaps == 1:
        return None
    window = np.kaiser(numtaps, kaiser_window_beta(numtaps, width, sampling_rate))
    position = (np.arange(numtaps) - (numtaps - 1) / 2) / sampling_rate
    if radial:
        phase = 2 * math.pi * cutoff * np.hypot(position[:, np.newaxis], position[np.newaxis, :])
        bessel = torch.special.bessel_j1(torch.from_numpy(phase)).numpy()
        jinc = np.divide(2 * bessel, phase, out=np.ones_like(phase), where=phase > 0)
        taps = jinc * np.outer(window, window)
    else:
        taps = np.sinc(2 * cutoff * position) * window
    return torch.tensor(taps / taps.sum(), dtype=torch.float32)


def filtered_leaky_relu(
    x: torch.Tensor,
    up_filter: torch.Tensor | None,
    down_filter: torch.Tensor | None,
    bias: torch.Tensor,
    *,
    up: int,
    down: int,
    padding: list[int],
    gain: float,
    slope: float,
    clamp: float | None,
) -> torch.Tensor:
    """Bias, then sampling up by `up`, gain * leaky ReLU and clamp, and sampling down by `down` (Section 3.2).

    x is `[N, C, H, W]`; `padding` = (left, right, top, bottom) in samples of the raised rate, negative to crop.
    """
    if x.device.type == 'cpu' and (up == 1 or up_filter is not None):
        form = _filtered_leaky_relu_on_cpu if x.requires_grad else _filtered_leaky_relu_in_bands
        return form(x, up_filter, down_filter, bias, up, down, padding, gain, slope, clamp)
    if fused_filtered_lrelu is not None:
        return fused_filtered_lrelu.filtered_lrelu(
            x=x, fu=up_filter, fd=down_filter, b=bias.to(x.dtype), up=up, down=down, padding=padding,
            gain=gain, slope=slope, clamp=clamp,
        )  # fmt: skip
    x = bias_act.bias_act(x, bias.to(x.dtype))
    x = upfirdn2d.upfirdn2d(x, up_filter, up=up, padding=padding, gain=up**2)
    x = bias_act.bias_act(x, act='lrelu', alpha=slope, gain=gain, clamp=clamp)
    return upfirdn2d.upfirdn2d(x, down_filter, down=down)


BYTES_OF_A_BAND = 16 << 20  # at the raised rate


def _filtered_leaky_relu_in_bands(
    x: torch.Tensor,
    up_filter: torch.Tensor | None,
    down_filter: torch.Tensor | None,
    bias: torch.Tensor,
    up: int,
    down: int,
    padding: list[int],
    gain: float,
    slope: float,
    clamp: float | None,
) -> torch.Tensor:
    """The same for some rows of the result after the other: whole maps at the raised rate would all be fresh memory."""
    left, right, above, below = padding
    up_taps, down_taps = (1 if taps is None else taps.shape[-1] for taps in (up_filter, down_filter))
    height = (x.shape[2] * up + above + below - up_taps + 1 - down_taps) // down + 1
    row = x[:, :, 0].numel() * x.element_size() * up * down  # of the result, at the raised rate
    rows = max(BYTES_OF_A_BAND // max(row, 1), 4 * down_taps // down)
    if rows >= height or up_filter is None or max(above, below) >= up_taps:
        return _filtered_leaky_relu_on_cpu(x, up_filter, down_filter, bias, up, down, padding, gain, slope, clamp)
    bands = []
    for begin in range(0, height, rows):
        # Of the transposed convolution of x without padding, a band takes `count` rows from `first` on.
        first = begin * down + up_taps - 1 - above
        count = (min(rows, height - begin) - 1) * down + down_taps
        low, high = max(-(-(first - up_taps + 1) // up), 0), min((first + count - 1) // up + 1, x.shape[2])
        inside = [left, right, up_taps - 1 - (first - low * up), first + count - (high - 1) * up - up]
        bands.append(
            _filtered_leaky_relu_on_cpu(x[:, :, low:high], up_filter, down_filter, bias, up, down, inside, gain, slope, clamp)
        )
    return torch.cat(bands, dim=2)


def _filtered_leaky_relu_on_cpu(
    x: torch.Tensor,
    up_filter: torch.Tensor | None,
    down_filter: torch.Tensor | None,
    bias: torch.Tensor,
    up: int,
    down: int,
    padding: list[int],
    gain: float,
    slope: float,
    clamp: float | None,
) -> torch.Tensor:
    """The same by depthwise convolutions over all channels, several times as fast as one picture plane at a time.

    With channels last and without gradients a separable filter goes along one axis after the other: two thirds of the time.
    """
    x = x + bias.to(x.dtype)[:, None, None]
    in_place = not x.requires_grad
    by_axis = in_place and x.is_contiguous(memory_format=torch.channels_last)
    if up_filter is not None:
        # Of the transposed convolution of x without padding, this many samples are left out on each side.
        left, top = (up_filter.shape[-1] - 1 - low for low in padding[::2])
        right, bottom = (up_filter.shape[-1] - up - high for high in padding[1::2])
        common = max(min(left, right, top, bottom), 0)
        for kernel, axes in _depthwise_kernels(up_filter, up**2, x, by_axis):
            step, cut = [up if axis else 1 for axis in axes], [common if axis else 0 for axis in axes]
            x = torch.nn.functional.conv_transpose2d(x, kernel, stride=step, padding=cut, groups=x.shape[1])
        padding = [common - left, common - right, common - top, common - bottom]
    if any(padding):
        x = torch.nn.functional.pad(x, padding)
    if slope != 1:
        x = torch.nn.functional.leaky_relu(x, slope, inplace=in_place)
    if clamp is not None:  # gain > 0 goes through the clamp into the filter.
        x = torch.nn.functional.hardtanh(x, -clamp / gain, clamp / gain, inplace=in_place)
    if down_filter is None:
        return x[:, :, ::down, ::down] * gain
    for kernel, axes in _depthwise_kernels(down_filter, gain, x, by_axis):
        step = [down if axis else 1 for axis in axes]
        x = torch.nn.functional.conv2d(x, kernel.flip((2, 3)), stride=step, groups=x.shape[1])
    return x


def _depthwise_kernels(
    taps: torch.Tensor, gain: float, x: torch.Tensor, by_axis: bool
) -> list[tuple[torch.Tensor, tuple[bool, bool]]]:
    """The passes of a filter over the channels of x: kernel, and whether it goes along the height and along the width.

    [n] (separable) or [n, n] is one kernel [C, 1, n, n]; with `by_axis` the former is [C, 1, n, 1] and [C, 1, 1, n].
    """
    if taps.ndim == 1 and by_axis:
        passes = [(taps[:, None] * gain, (True, False)), (taps[None, :], (False, True))]
    else:
        passes = [((torch.outer(taps, taps) if taps.ndim == 1 else taps) * gain, (True, True))]
    return [(kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1), axes) for kernel, axes in passes]


# ----------------------------------------------------------------------------
# Convolution.


def modulated_conv2d(
    x: torch.Tensor, weight: torch.Tensor, styles: torch.Tensor, *, demodulate: bool, padding: int, input_gain: torch.Tensor
) -> torch.Tensor:
    """Convolution whose weights w'_oik = s_i w_oik are different for every picture of the batch, and with `demodulate`
    scaled to w'' = w' / sqrt(sum_ik w'^2 + 1e-8).

    The scales are taken out of the sum: y_o = d_o sum_ik w_oik (g s_i x_i), which is one convolution for the batch.

    Args:
        x: `[N, I, H, W]`.
        weight: `[O, I, k, k]`.
        styles: s, `[N, I]`.
        demodulate: Whether to scale every output to unit expected power.
        padding: Zeros on each side of x.
        input_gain: g, scalar: multiplies x (Section 3.2, "magnitude_ema").

    Returns:
        `[N, O, H + 2 padding - k + 1, W + 2 padding - k + 1]`, of x's type.
    """
    if demodulate:
        # Both are brought to unit root mean square first, so that half precision can carry them; d takes it back.
        weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        styles = styles * styles.square().mean().rsqrt()
    scaled = x * (styles * input_gain).to(x.dtype)[:, :, None, None]
    if weight.shape[2] == 1 and padding == 0:
        y = (weight.flatten(start_dim=1).to(x.dtype) @ scaled.flatten(start_dim=2)).unflatten(2, x.shape[2:])
    else:
        y = torch.nn.functional.conv2d(scaled, weight.to(x.dtype), padding=padding)
    if demodulate:
        power = styles.square() @ weight.square().sum(dim=(2, 3)).t()  # [N, O]
        y = y * (power + 1e-8).rsqrt().to(x.dtype)[:, :, None, None]
    return y


# ----------------------------------------------------------------------------
# Mapping.


@persistence.persistent_class
class FullyConnectedLayer(torch.nn.Module):
    """y = act(x W^T c m + b m), with c = 1 / sqrt(in_features) and the learning rate multiplier m."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = 'linear',  # A name of bias_act.activation_funcs.
        bias: bool = True,
        lr_multiplier: float = 1,
        weight_init: float = 1,  # Standard deviation of W m at the start.
        bias_init: Any = 0,  # Of b m at the start: a number, or one for every output.
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.activation = activation
        weight = torch.randn([out_features, in_features]) * (weight_init / lr_multiplier)
        self.weight = torch.nn.Parameter(weight)
        self.bias: torch.nn.Parameter | None = None
        if bias:
            start = np.asarray(bias_init, dtype=np.float32) / lr_multiplier
            values = torch.full([out_features], float(start)) if start.ndim == 0 else torch.from_numpy(start)
            self.bias = torch.nn.Parameter(values)
        # What is stored is divided by the learning rate multiplier; these take it back.
        self.bias_gain = lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_features] -> [N, out_features]."""
        y = torch.nn.functional.linear(x, (self.weight * self.weight_gain).to(x.dtype))
        bias = None if self.bias is None else (self.bias * self.bias_gain).to(x.dtype)
        return bias_act.bias_act(y, bias, act=self.activation)


def unit_power(x: torch.Tensor) -> torch.Tensor:
    """X / sqrt(mean(x^2) + 1e-8) along the last dimension."""
    return x * (x.square().mean(dim=-1, keepdim=True) + 1e-8).rsqrt()


@persistence.persistent_class
class MappingNetwork(torch.nn.Module):
    """f: z, c -> w, the same for every layer of the synthesis network."""

    w_avg: torch.Tensor  # [w_dim], moving average of w.

    def __init__(
        self,
        z_dim: int,
        c_dim: int,  # 0 = no labels.
        w_dim: int,
        num_ws: int,
        num_layers: int = 2,
        lr_multiplier: float = 0.01,
        w_avg_beta: float = 0.998,  # Decay of the moving average of w.
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.num_layers, self.num_ws = num_layers, num_ws
        self.w_avg_beta = w_avg_beta
        width = z_dim
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
            width += w_dim
        for index in range(num_layers):
            layer = FullyConnectedLayer(width, w_dim, activation='lrelu', lr_multiplier=lr_multiplier)
            self.add_module(f'fc{index}', layer)
            width = w_dim
        self.register_buffer('w_avg', torch.zeros([w_dim]))

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
    ) -> torch.Tensor:
        """Codes w for z.

        Args:
            z: `[N, z_dim]`, standard normal.
            c: `[N, c_dim]` labels; may be None without labels.
            truncation_psi: Share psi of the way from the average code that is kept: w_avg + psi (w - w_avg).
            truncation_cutoff: How many layers are truncated; None = all.
            update_emas: Whether the moving average sees this batch.

        Returns:
            `[N, num_ws, w_dim]`.
        """
        misc.assert_shape(z, [None, self.z_dim])
        w = unit_power(z.to(torch.float32))
        if self.c_dim > 0:
            if c is None:
                raise ValueError(f'this generator needs labels c of shape [N, {self.c_dim}], and got none')
            misc.assert_shape(c, [z.shape[0], self.c_dim])
            w = torch.cat([w, unit_power(self.embed(c.to(torch.float32)))], dim=1)
        for index in range(self.num_layers):
            w = getattr(self, f'fc{index}')(w)
        if update_emas:
            self.w_avg.lerp_(w.detach().mean(dim=0), 1 - self.w_avg_beta)

        ws = w[:, None].expand(-1, self.num_ws, -1)
        if truncation_psi == 1:
            return ws.contiguous()
        truncated = self.w_avg.lerp(ws, truncation_psi)
        if truncation_cutoff is None:
            return truncated
        return torch.cat([truncated[:, :truncation_cutoff], ws[:, truncation_cutoff:]], dim=1)


# ----------------------------------------------------------------------------
# Synthesis.


def width_and_height(size: Any) -> np.ndarray:
    """[2] from one number for both or from two."""
    return np.array(np.broadcast_to(np.asarray(size), [2]))


@persistence.persistent_class
class SynthesisInput(torch.nn.Module):
    """Fourier features sin(2 pi (f . x + phase)) of a picture plane that w moves and turns (Section 3.2, Appendix F).

    `transform`, a 3x3 matrix that a user may set, is the inverse of what is to happen to the picture (with the unit
    square as the picture): a translation by (tx, ty) is asked for with the matrix of (-tx, -ty).
    """

    transform: torch.Tensor  # [3, 3]
    freqs: torch.Tensor  # [C, 2], in Hz.
    phases: torch.Tensor  # [C], in turns.

    def __init__(
        self,
        w_dim: int,
        channels: int,
        size: Any,  # Samples with margins: one number, or (width, height).
        sampling_rate: float,  # Samples per width of the picture.
        bandwidth: float,  # Highest frequency, in Hz.
    ):
        super().__init__()
        self.w_dim, self.channels = w_dim, channels
        self.size = width_and_height(size)
        self.sampling_rate, self.bandwidth = sampling_rate, bandwidth

        # Frequencies are uniform over the disc of radius `bandwidth`.
        angle = torch.rand([channels]) * (2 * math.pi)
        radius = torch.rand([channels]) ** 0.5 * float(bandwidth)
        self.register_buffer('transform', torch.eye(3))
        self.register_buffer('freqs', torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1))
        self.register_buffer('phases', torch.rand([channels]) + (-0.5))
        self.weight = torch.nn.Parameter(torch.randn([channels, channels]))
        # At first every w leaves the picture where it is: cosine 1, sine 0, translation (0, 0).
        self.affine = FullyConnectedLayer(w_dim, 4, weight_init=0, bias_init=[1, 0, 0, 0])

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """[N, w_dim] -> [N, channels, height, width]."""
        mixed = self.features(w) @ (self.weight / math.sqrt(self.channels)).t()
        return mixed.permute(0, 3, 1, 2)

    def features(self, w: torch.Tensor) -> torch.Tensor:
        """The Fourier features before they are mixed, [N, w_dim] -> [N, height, width, channels]."""
        # w gives a rotation (cos, sin) and a translation (tx, ty) of the picture; its inverse moves the plane.
        pose = self.affine(w)
        cos, sin, tx, ty = (pose / pose[:, :2].norm(dim=1, keepdim=True)).unbind(dim=1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).reshape(-1, 3, 3)
        translation = torch.stack([one, zero, -tx, zero, one, -ty, zero, zero, one], dim=1).reshape(-1, 3, 3)
        plane = rotation @ translation @ self.transform  # [N, 3, 3]

        # f . (A x + b) + phase = (f A) . x + (phase + f . b)
        phases = self.phases + (plane[:, :2, 2] @ self.freqs.t())  # [N, C]
        freqs = self.freqs @ plane[:, :2, :2]  # [N, C, 2]

        # What a user transform makes finer than the samples can carry fades out.
        headroom = self.sampling_rate / 2 - self.bandwidth
        amplitudes = (1 - (freqs.norm(dim=2) - self.bandwidth) / headroom).clamp(0, 1)

        width, height = (int(length) for length in self.size)
        xs = self._sample_positions(width, w.device)
        ys = self._sample_positions(height, w.device)
        grid = torch.stack([xs.expand(height, -1), ys[:, None].expand(-1, width)], dim=2)  # [H, W, 2]
        angles = torch.einsum('hwd,ncd->nhwc', grid, freqs) + phases[:, None, None, :]
        return torch.sin(2 * math.pi * angles) * amplitudes[:, None, None, :]

    def _sample_positions(self, count: int, device: torch.device) -> torch.Tensor:
        """Where the samples of one axis lie, with the picture on [-0.5, 0.5]."""
        return (torch.arange(count, device=device, dtype=torch.float32) - (count - 1) / 2) / float(self.sampling_rate)


@persistence.persistent_class
class SynthesisLayer(torch.nn.Module):
    """One layer F_i: modulated convolution, then the leaky ReLU between filters (Section 3.2)."""

    up_filter: torch.Tensor | None
    down_filter: torch.Tensor | None
    magnitude_ema: torch.Tensor  # Scalar: moving average of the mean square of the input.

    def __init__(
        self,
        w_dim: int,
        is_torgb: bool,  # Last layer: no activation, no filters.
        is_critically_sampled: bool,  # Cutoff at the Nyquist rate: never a radial filter.
        use_fp16: bool,  # Half precision on CUDA.
        in_channels: int,
        out_channels: int,
        in_size: Any,  # Samples with margins: one number, or (width, height).
        out_size: Any,
        in_sampling_rate: float,  # s
        out_sampling_rate: float,
        in_cutoff: float,  # f_c
        out_cutoff: float,
        in_half_width: float,  # f_h
        out_half_width: float,
        conv_kernel: int = 3,
        filter_size: int = 6,  # n
        lrelu_upsampling: int = 2,  # m
        use_radial_filters: bool = False,
        conv_clamp: float | None = 256,
        magnitude_ema_beta: float = 0.999,
    ):
        super().__init__()
        self.w_dim = w_dim
        self.is_torgb, self.is_critically_sampled, self.use_fp16 = is_torgb, is_critically_sampled, use_fp16
        self.in_channels, self.out_channels = in_channels, out_channels
        self.in_size, self.out_size = width_and_height(in_size), width_and_height(out_size)
        self.in_sampling_rate, self.out_sampling_rate = in_sampling_rate, out_sampling_rate
        self.in_cutoff, self.out_cutoff = in_cutoff, out_cutoff
        self.in_half_width, self.out_half_width = in_half_width, out_half_width
        self.conv_clamp, self.conv_kernel = conv_clamp, 1 if is_torgb else conv_kernel
        self.magnitude_ema_beta = magnitude_ema_beta

        kernel_shape = [out_channels, in_channels, self.conv_kernel, self.conv_kernel]
        self.weight = torch.nn.Parameter(torch.randn(kernel_shape))
        self.bias = torch.nn.Parameter(torch.zeros([out_channels]))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.register_buffer('magnitude_ema', torch.ones([]))

        # Up to the rate of the nonlinearity, and down from it.
        self.tmp_sampling_rate = max(in_sampling_rate, out_sampling_rate) * (1 if is_torgb else lrelu_upsampling)
        self.up_factor = round(self.tmp_sampling_rate / in_sampling_rate)
        self.up_taps = filter_size * self.up_factor if self.up_factor > 1 and not is_torgb else 1
        self.register_buffer('up_filter', lowpass_filter(
            self.up_taps, cutoff=in_cutoff, width=2 * in_half_width, sampling_rate=self.tmp_sampling_rate,
        ))  # fmt: skip
        self.down_factor = round(self.tmp_sampling_rate / out_sampling_rate)
        self.down_taps = filter_size * self.down_factor if self.down_factor > 1 and not is_torgb else 1
        self.down_radial = bool(use_radial_filters and not is_critically_sampled)
        self.register_buffer('down_filter', lowpass_filter(
            self.down_taps, cutoff=out_cutoff, width=2 * out_half_width, sampling_rate=self.tmp_sampling_rate,
            radial=self.down_radial,
        ))  # fmt: skip

        # Zeros around the raised samples, so that out_size samples come out with the picture in their middle.
        self.padding: list[int] = []
        for in_count, out_count in zip(self.in_size, self.out_size, strict=True):
            needed = (int(out_count) - 1) * self.down_factor + 1 + (self.up_taps - 1) + (self.down_taps - 1)
            total = needed - (int(in_count) + self.conv_kernel - 1) * self.up_factor
            low = (total + self.up_factor) // 2  # Symmetric about the picture, since the raised samples lead by up - 1.
            self.padding += [low, total - low]

    def forward(
        self,
        x: torch.Tensor,
        w: torch.Tensor,
        noise_mode: str = 'random',  # Has no effect.
        force_fp32: bool = False,
        update_emas: bool = False,
    ) -> torch.Tensor:
        """X [N, in_channels, in_height, in_width], w [N, w_dim] -> [N, out_channels, out_height, out_width]."""
        if noise_mode not in NOISE_MODES:
            raise ValueError(f'noise_mode must be one of {NOISE_MODES}, and is {noise_mode!r}')
        in_width, in_height = self.in_size.tolist()
        out_width, out_height = self.out_size.tolist()
        misc.assert_shape(w, [x.shape[0], self.w_dim])
        misc.assert_shape(x, [None, self.in_channels, in_height, in_width])
        if update_emas:
            self.magnitude_ema.lerp_(x.detach().to(torch.float32).square().mean(), 1 - self.magnitude_ema_beta)
        styles = self.affine(w)
        if self.is_torgb:
            styles = styles / math.sqrt(self.in_channels * self.conv_kernel**2)
        half = self.use_fp16 and not force_fp32 and x.device.type == 'cuda'
        x = modulated_conv2d(
            x.to(torch.float16 if half else torch.float32), self.weight, styles,
            demodulate=not self.is_torgb, padding=self.conv_kernel - 1, input_gain=self.magnitude_ema.rsqrt(),
        )  # fmt: skip
        x = filtered_leaky_relu(
            x, self.up_filter, self.down_filter, self.bias, up=self.up_factor, down=self.down_factor,
            padding=self.padding, clamp=self.conv_clamp,
            gain=1 if self.is_torgb else math.sqrt(2), slope=1 if self.is_torgb else 0.2,
        )  # fmt: skip
        misc.assert_shape(x, [w.shape[0], self.out_channels, out_height, out_width])
        return x


@persistence.persistent_class
class SynthesisNetwork(torch.nn.Module):
    """Fourier features and `num_layers` + 1 layers, the last of them to RGB."""

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int = 32768,  # Channels = channel_base / 2 / cutoff, ...
        channel_max: int = 512,  # ... but not more than this.
        num_layers: int = 14,  # N, without Fourier features and RGB.
        num_critical: int = 2,  # Layers at the end with f_c at the Nyquist rate.
        first_cutoff: float = 2,  # f_c,0
        first_stopband: float = 2**2.1,  # f_t,0
        last_stopband_rel: float = 2**0.3,  # f_t,N in units of the last cutoff.
        margin_size: int = 10,  # Samples around the picture.
        output_scale: float = 0.25,
        num_fp16_res: int = 4,  # Half precision for the highest resolutions.
        **layer_kwargs: Any,  # For every SynthesisLayer.
    ):
        super().__init__()
        self.num_layers, self.num_ws = num_layers, num_layers + 2
        self.w_dim, self.img_channels, self.img_resolution = w_dim, img_channels, img_resolution
        self.num_critical, self.num_fp16_res = num_critical, num_fp16_res
        self.output_scale, self.margin_size = output_scale, margin_size

        # Geometric progressions of cutoffs and stopbands, flat over the critical layers ("Flexible layers", Section 3.2).
        progress = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
        last_cutoff = img_resolution / 2
        last_stopband = last_cutoff * last_stopband_rel
        cutoffs = first_cutoff * (last_cutoff / first_cutoff) ** progress
        stopbands = first_stopband * (last_stopband / first_stopband) ** progress
        rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, img_resolution))))
        half_widths = np.maximum(stopbands, rates / 2) - cutoffs
        sizes = rates + 2 * margin_size
        sizes[-2:] = img_resolution
        channels = np.rint(np.minimum(channel_base / 2 / cutoffs, channel_max))
        channels[-1] = img_channels

        self.input = SynthesisInput(
            w_dim=w_dim, channels=int(channels[0]), size=int(sizes[0]),
            sampling_rate=float(rates[0]), bandwidth=float(cutoffs[0]),
        )  # fmt: skip
        self.layer_names: list[str] = []
        for index in range(num_layers + 1):
            before = max(index - 1, 0)
            layer = SynthesisLayer(
                w_dim=w_dim, is_torgb=index == num_layers,
                is_critically_sampled=index >= num_layers - num_critical,
                use_fp16=bool(rates[index] * 2**num_fp16_res > img_resolution),
                in_channels=int(channels[before]), out_channels=int(channels[index]),
                in_size=int(sizes[before]), out_size=int(sizes[index]),
                in_sampling_rate=int(rates[before]), out_sampling_rate=int(rates[index]),
                in_cutoff=float(cutoffs[before]), out_cutoff=float(cutoffs[index]),
                in_half_width=float(half_widths[before]), out_half_width=float(half_widths[index]),
                **layer_kwargs,
            )  # fmt: skip
            name = f'L{index}_{int(sizes[index])}_{int(channels[index])}'
            setattr(self, name, layer)
            self.layer_names.append(name)

    def forward(self, ws: torch.Tensor, **layer_kwargs: Any) -> torch.Tensor:
        """[N, num_ws, w_dim] -> pictures [N, img_channels, img_resolution, img_resolution] float32, about [-1, 1]."""
        misc.assert_shape(ws, [None, self.num_ws, self.w_dim])
        first, *others = ws.to(torch.float32).unbind(dim=1)
        x = self.input(first)
        for name, w in zip(self.layer_names, others, strict=True):
            x = getattr(self, name)(x, w, **layer_kwargs)
        return x.to(torch.float32) * self.output_scale


@persistence.persistent_class
class Generator(torch.nn.Module):
    """Mapping and synthesis. stylegan3-r is conv_kernel 1, doubled channel_base and channel_max, use_radial_filters."""

    def __init__(
        self,
        z_dim: int,
        c_dim: int,  # 0 = no labels.
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        mapping_kwargs: dict[str, Any] | None = None,
        **synthesis_kwargs: Any,  # For SynthesisNetwork.
    ):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_channels, self.img_resolution = img_channels, img_resolution
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        truncation_psi: float = 1,
        truncation_cutoff: int | None = None,
        update_emas: bool = False,
        **synthesis_kwargs: Any,
    ) -> torch.Tensor:
        """Z [N, z_dim], c [N, c_dim] -> pictures [N, img_channels, img_resolution, img_resolution]."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff, update_emas=update_emas)
        return self.synthesis(ws, update_emas=update_emas, **synthesis_kwargs)
