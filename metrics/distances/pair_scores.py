"""How near a frame is to the frame that it should be: the two classical measures, by equation.

Peak signal-to-noise ratio of frames x, y with levels 0 to 255, over all pixels and colours together:

    PSNR = 10 log10(255^2 / mean((x - y)^2))                         decibel; infinite for equal frames

Structural similarity (Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13, 2004), equation 13, with
their window: Gaussian, standard deviation 1.5, 11 x 11; local means m, variances v and covariance c,

    SSIM = mean of (2 m_x m_y + C1) (2 c + C2) / ((m_x^2 + m_y^2 + C1) (v_x + v_y + C2))     C1 = (0.01 255)^2, C2 = (0.03 255)^2

over the places where the whole window lies inside, and over the colours, each by itself. That is what scikit-image gives with
gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1, data_range=255.
"""

from __future__ import annotations

import numpy as np

from networks.errors import InputError

WHITE = 255.0
WINDOW, DEVIATION = 11, 1.5
STRIP = 32  # rows of windows at a time, which fit into the cache of a processor
C1, C2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2


def psnr(frame: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibel of two frames [H, W, C] with levels 0 to 255; infinite for equal ones."""
    error = float(np.square(np.asarray(frame, np.float64) - np.asarray(target, np.float64)).mean())
    return float('inf') if error == 0 else 10 * float(np.log10(WHITE**2 / error))


def _window() -> np.ndarray:
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * DEVIATION**2))
    return weights / weights.sum()


def _blur(levels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means [H - 10, W - 10, C] over the windows that lie inside."""
    height, width = levels.shape[0] - WINDOW + 1, levels.shape[1] - WINDOW + 1
    rows = weights[0] * levels[:height]
    for place in range(1, WINDOW):
        rows += weights[place] * levels[place : place + height]
    means = weights[0] * rows[:, :width]
    for place in range(1, WINDOW):
        means += weights[place] * rows[:, place : place + width]
    return means


def _similarities(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The similarity of each window that lies inside, [H - 10, W - 10, C]."""
    mean_x, mean_y = _blur(x, weights), _blur(y, weights)
    variance_x, variance_y = _blur(x * x, weights) - mean_x**2, _blur(y * y, weights) - mean_y**2
    covariance = _blur(x * y, weights) - mean_x * mean_y
    similarities = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    similarities /= (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    return similarities


def ssim(frame: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity, 1 for equal frames, of two frames [H, W, C] with levels 0 to 255.

    Raises:
        InputError: A side is shorter than the window of 11 pixels.
    """
    x, y = np.asarray(frame, np.float64), np.asarray(target, np.float64)
    if min(x.shape[:2]) < WINDOW:
        raise InputError(f'SSIM looks at windows of {WINDOW}x{WINDOW} pixels, and the frames have {x.shape[1]}x{x.shape[0]}')
    weights = _window()
    parts = []
    for top in range(0, len(x) - WINDOW + 1, STRIP):
        rows = slice(top, top + STRIP + WINDOW - 1)
        parts.append(_similarities(x[rows], y[rows], weights))
    return float(np.concatenate(parts).mean())
