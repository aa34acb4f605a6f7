"""StyleGAN2 as the TensorFlow repositories define it, in numpy: random variables and the picture that they make.

Independent of the project's own networks, so that a conversion can be checked for every architecture. Written from the
definition: convolutions are correlations of HWIO kernels, up-sampling ones are transposed convolutions with the kernel
turned by 180 degrees and a FIR filter behind them, biases of styles are added to 1.
"""

import numpy as np

FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16  # Of sum 4: the gain of the zero insertion.


class Network:
    """What the safe reader makes of a tflib.Network: a node with nothing but a state."""

    def __init__(self, variables, static_kwargs, components=None):
        self.state = {
            'version': 4, 'name': 'Gs', 'static_kwargs': static_kwargs, 'components': components or {},
            'build_module_src': '# not needed', 'build_func_name': 'G_main', 'variables': list(variables.items()),
        }  # fmt: skip


def random_variables(rng, *, architecture, resolution=8, w_dim=6, layers=2, num_channels=3, labels=0, base=40, most=7):
    """(mapping, synthesis, own) variables by name."""

    def array(*shape):
        return rng.randn(*shape).astype(np.float32)

    mapping = {'LabelEmbed/weight': array(labels, w_dim), 'LabelEmbed/bias': array(w_dim)} if labels else {}
    width = 5 + (w_dim if labels else 0)
    for index in range(layers):
        mapping[f'Dense{index}/weight'], mapping[f'Dense{index}/bias'] = array(width, w_dim) * 100, array(w_dim)
        width = w_dim

    synthesis = {}

    def modulated(name, kernel, inputs, outputs, noise=None):
        synthesis[f'{name}/weight'] = array(kernel, kernel, inputs, outputs)
        synthesis[f'{name}/mod_weight'], synthesis[f'{name}/mod_bias'] = array(w_dim, inputs), array(inputs)
        synthesis[f'{name}/bias'] = array(outputs)
        if noise is not None:
            synthesis[f'{name}/noise_strength'] = np.asarray(rng.randn(), dtype=np.float32)
            synthesis[f'noise{noise[0]}'] = array(1, 1, noise[1], noise[1])

    channels = 0
    for level in range(2, resolution.bit_length()):
        size, block = 1 << level, f'{1 << level}x{1 << level}'
        before, channels = channels, min(base // size, most)
        if level == 2:
            synthesis[f'{block}/Const/const'] = array(1, channels, 4, 4)
            modulated(f'{block}/Conv', 3, channels, channels, (0, 4))
        else:
            modulated(f'{block}/Conv0_up', 3, before, channels, (2 * level - 5, size))
            modulated(f'{block}/Conv1', 3, channels, channels, (2 * level - 4, size))
            if architecture == 'resnet':
                synthesis[f'{block}/Skip/weight'] = array(1, 1, before, channels)
        if architecture == 'skip' or size == resolution:
            modulated(f'{block}/ToRGB', 1, channels, num_channels)
    return mapping, synthesis, {'lod': np.zeros([], np.float32), 'dlatent_avg': array(w_dim)}


def as_pickle_contents(mapping, synthesis, own, static_kwargs):
    """(G, D, Gs) with the given variables in Gs."""
    components = {'mapping': Network(mapping, {}), 'synthesis': Network(synthesis, {})}
    return Network({}, {}), Network({}, {}), Network(own, static_kwargs, components)


def map_latents(mapping, z, labels=None):
    """w [N, w_dim]."""

    def normalized(x):
        return x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-8)

    x = normalized(z)
    if labels is not None:
        weight = mapping['LabelEmbed/weight']
        embedded = labels @ weight / np.sqrt(len(weight)) + mapping['LabelEmbed/bias']
        x = np.concatenate([x, normalized(embedded)], axis=1)
    for index in range(sum(name.startswith('Dense') for name in mapping) // 2):
        weight = mapping[f'Dense{index}/weight']
        x = leaky(x @ weight * (0.01 / np.sqrt(len(weight))) + 0.01 * mapping[f'Dense{index}/bias'])
    return x


def synthesize(synthesis, ws, *, architecture, resolution=8):
    """Picture [num_channels, resolution, resolution] of one code for every layer, ws [num_ws, w_dim]."""
    x = synthesis['4x4/Const/const'][0].astype(np.float64)
    picture = 0.0
    for level in range(2, resolution.bit_length()):
        size, block = 1 << level, f'{1 << level}x{1 << level}'
        if level == 2:
            x = layer(synthesis, f'{block}/Conv', x, ws[0], synthesis['noise0'])
        else:
            before = x
            x = layer(synthesis, f'{block}/Conv0_up', x, ws[2 * level - 5], synthesis[f'noise{2 * level - 5}'], up=True)
            x = layer(synthesis, f'{block}/Conv1', x, ws[2 * level - 4], synthesis[f'noise{2 * level - 4}'])
            if architecture == 'resnet':
                kernel = synthesis[f'{block}/Skip/weight']
                x = (x + up_convolution(before, kernel / np.sqrt(kernel.shape[2]))) / np.sqrt(2)
            if architecture == 'skip':
                picture = up_picture(picture)
        if architecture == 'skip' or size == resolution:
            name = f'{block}/ToRGB'
            kernel = modulated_kernel(synthesis, name, ws[2 * level - 3], demodulate=False)
            picture = picture + correlation(x, kernel) + synthesis[f'{name}/bias'][:, None, None]
    return picture


def layer(synthesis, name, x, w, noise, up=False):
    kernel = modulated_kernel(synthesis, name, w, demodulate=True)
    x = up_convolution(x, kernel) if up else correlation(x, kernel)
    return leaky(x + synthesis[f'{name}/noise_strength'] * noise[0] + synthesis[f'{name}/bias'][:, None, None])


def leaky(x):
    return np.where(x > 0, x, 0.2 * x) * np.sqrt(2)


def modulated_kernel(synthesis, name, w, *, demodulate):
    kernel = synthesis[f'{name}/weight'].astype(np.float64)
    style = w @ synthesis[f'{name}/mod_weight'] / np.sqrt(len(w)) + synthesis[f'{name}/mod_bias'] + 1
    kernel = kernel / np.sqrt(np.prod(kernel.shape[:3])) * style[:, None]
    return kernel / np.sqrt(np.sum(kernel**2, axis=(0, 1, 2)) + 1e-8) if demodulate else kernel


def correlation(x, kernel):
    """Same size; x [I, H, W], kernel [k, k, I, O]."""
    half = len(kernel) // 2
    padded = np.pad(x, [(0, 0), (half, half), (half, half)])
    height, width = x.shape[1:]
    return sum(
        np.einsum('io,ihw->ohw', kernel[row, column], padded[:, row : row + height, column : column + width])
        for row in range(len(kernel))
        for column in range(len(kernel))
    )


def up_convolution(x, kernel):
    """Twice the size: every sample spreads the turned kernel at every second place; then the FIR filter."""
    count, (height, width) = len(kernel), x.shape[1:]
    spread = np.zeros([kernel.shape[3], 2 * height - 2 + count, 2 * width - 2 + count])
    for row in range(count):
        for column in range(count):
            tap = kernel[count - 1 - row, count - 1 - column]
            spread[:, row : row + 2 * height - 1 : 2, column : column + 2 * width - 1 : 2] += np.einsum('io,ihw->ohw', tap, x)
    return fir(spread, 2 * height, count // 2)


def up_picture(x):
    """Twice the size: zeros between the samples, then the FIR filter."""
    spread = np.zeros([len(x), 2 * x.shape[1] - 1, 2 * x.shape[2] - 1])
    spread[:, ::2, ::2] = x
    return fir(spread, 2 * x.shape[1], 0)


def fir(spread, size, lead):
    """The FIR filter around its middle: output pixel 0 begins one tap and `lead` samples before the first two taps' end."""
    padded = np.pad(spread, [(0, 0), (3, 3), (3, 3)])
    whole = sum(
        FIR[row, column] * padded[:, row : row + spread.shape[1] + 3, column : column + spread.shape[2] + 3]
        for row in range(4)
        for column in range(4)
    )
    return whole[:, 1 + lead : 1 + lead + size, 1 + lead : 1 + lead + size]
