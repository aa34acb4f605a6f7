"""What the measures of long videos see, on cases that are constructed to differ in one thing."""

import math

import numpy as np
import pytest
import torch

from metrics.distances.window_kernel_distance import RealWindows, window_kernel_distance
from metrics.inputs.latent_windows import generate_windows
from plugins.latent_stationarity import Stationarity, autocorrelation, kurtosis_of_speed

FRAMES = 6000


def blinking(seed: int, frames: int = FRAMES) -> torch.Tensor:
    """Two coordinates [frames, 2]: an AR(1) walk, and a signal that rests and blinks now and then."""
    random = np.random.RandomState(seed)
    walk = np.zeros(frames)
    for k in range(1, frames):
        walk[k] = 0.98 * walk[k - 1] + 0.2 * random.standard_normal()
    blink, shape = np.zeros(frames), np.array([0.5, 1.0, 1.0, 0.6, 0.2])
    place = 20
    while place < frames - 10:
        blink[place : place + 5] = shape
        place += 30 + random.randint(60)
    return torch.tensor(np.stack([walk, blink + 0.02 * random.standard_normal(frames)], axis=1), dtype=torch.float32)


def phase_randomised(track: torch.Tensor, seed: int) -> torch.Tensor:
    """The same spectrum of every coordinate and the same cross-spectrum, and nothing else: a linear filter of noise."""
    spectrum = torch.fft.rfft(track, dim=0)
    phases = torch.rand(len(spectrum), 1, generator=torch.Generator().manual_seed(seed)) * 2 * math.pi
    return torch.fft.irfft(spectrum * torch.exp(1j * phases), n=len(track), dim=0)


def windows_of(track: torch.Tensor, length: int = 9, count: int = 300) -> torch.Tensor:
    starts = np.linspace(0, len(track) - length, count).round().astype(int)
    return torch.stack([track[start : start + length] for start in starts])


@pytest.fixture(scope='module')
def real() -> RealWindows:
    return RealWindows([torch.diff(blinking(0), dim=0)], 8)


def motion(track: torch.Tensor) -> torch.Tensor:
    return torch.diff(windows_of(track), dim=1)


def test_kernel_distance_of_the_same_subject_is_within_its_null(real):
    result = window_kernel_distance(real, motion(blinking(1)))
    assert abs(result['distance']) < 2
    assert result['null_high'] < 3
    assert result['low'] <= result['distance'] <= result['high']


@pytest.mark.parametrize(
    'change',
    [
        lambda track: phase_randomised(track, 0),  # same means and covariances at all lags: no Frechet distance can see it
        lambda track: torch.nn.functional.interpolate(track.T[None], scale_factor=2, mode='linear')[0].T,  # half speed
        lambda track: track * torch.tensor([1.0, 0.0]),  # a coordinate stands still
    ],
)
def test_kernel_distance_sees_what_is_wrong(real, change):
    result = window_kernel_distance(real, motion(change(blinking(1))))
    assert result['distance'] > 10 * result['null_high']
    assert result['low'] > result['null_high']


def test_kernel_distance_equals_the_formula():
    """One coordinate, all windows of different blocks: the U-statistic written out in loops."""
    random = np.random.RandomState(0)
    track = torch.tensor(random.standard_normal((60, 1)), dtype=torch.float32)
    real = RealWindows([track], 3, gap=5, block=10)
    fake = torch.tensor(random.standard_normal((7, 3, 1)), dtype=torch.float32) + 1
    x = [track[begin : begin + 3, 0].double().numpy() for begin in range(58)]
    y = [window[:, 0].double().numpy() for window in fake]
    squares = [np.square(x[i] - x[j]).sum() for i in range(58) for j in range(58) if abs(i - j) >= 5]
    median = sorted(squares)[(len(squares) - 1) // 2]

    def kernel(a, b):
        square = np.square(a - b).sum()
        return 0.5 * (math.exp(-square / (0.2 * median)) + math.exp(-square / (2 * median)))

    within = np.mean([kernel(x[i], x[j]) for i in range(58) for j in range(58) if abs(i - j) >= 5])
    inside = np.mean([kernel(y[i], y[j]) for i in range(7) for j in range(7) if i != j])
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert window_kernel_distance(real, fake)['distance'] == pytest.approx(1000 * (within + inside - 2 * between), rel=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match='no two windows'):
        RealWindows([torch.zeros(20, 1)], 8)
    with pytest.raises(ValueError, match='need at least two windows'):
        window_kernel_distance(RealWindows([torch.randn(200, 2)], 8), torch.zeros(5, 8, 3))


def test_autocorrelation_and_kurtosis_of_known_processes():
    random = torch.Generator().manual_seed(0)
    y = torch.zeros(200, 600, 1)
    for k in range(1, 600):
        y[:, k] = 0.9 * y[:, k - 1] + torch.randn(200, 1, generator=random)
    assert autocorrelation(y[:, 100:], 5) == pytest.approx(0.9**5, abs=0.02)
    walk = torch.randn(20000, 1, generator=random).cumsum(dim=0)
    assert float(kurtosis_of_speed([walk])) == pytest.approx(3, abs=0.15)
    laplace = torch.from_numpy(np.random.RandomState(0).laplace(size=(40000, 1))).cumsum(dim=0)
    assert float(kurtosis_of_speed([laplace])) == pytest.approx(6, abs=0.5)


class Fading:
    """A latent generator whose first coordinate is a still position, and dies away from frame 500 on."""

    latent_dim = noise_dim = 2
    num_components = 0
    burn_in = 3

    def parameters(self):
        return iter([torch.zeros(1)])

    def initial_state(self, i):
        return (torch.zeros(len(i), 1), i)

    def step(self, s, state):
        time, l = state
        alive = (time < 500 + self.burn_in).float()
        l = torch.cat([l[:, :1] * (alive + 0.98 * (1 - alive)), 0.7 * s[:, 1:]], dim=1)
        return (time + 1, l), l

    def codes(self, l):
        return l.unsqueeze(1)


def test_stationarity_names_the_depth_where_a_coordinate_dies():
    clips = [(np.random.RandomState(0).standard_normal((3000, 1, 2)) * (1, 0.7)).astype(np.float32)]
    measured = Stationarity(clips, fps=25.0).compare_generator(Fading(), depths=(0, 225, 700))
    ratios = {(depth, c): measured[f'variance_at{depth}_{c}'] for depth in (0, 225, 700) for c in (1, 2)}
    dead = [place for place, ratio in ratios.items() if ratio < 0.05]
    assert [depth for depth, _ in dead] == [700]
    assert all(0.85 < ratio < 1.15 for place, ratio in ratios.items() if place not in dead)
    assert measured['worst'] == pytest.approx(abs(math.log(ratios[dead[0]])))


def test_stretches_of_one_pass_are_those_of_the_video(tiny_generator):
    """Frames counted from the end of the burn-in; the same whether asked together or alone."""

    class Counting(Fading):
        def initial_state(self, i):
            return (torch.zeros(len(i), 2),)

        def step(self, s, state):
            return (state[0] + 1,), state[0] + 1

    class Space:
        def projection_of(self, generator):
            return lambda l: l

    first, second = generate_windows(Counting(), Space(), [0, 1], [(2, 3), (300, 6)], every=3)
    assert first[0, :, 0].tolist() == [5.0]
    assert second[1, :, 0].tolist() == [303.0, 306.0]
    with pytest.raises(ValueError, match='in order'):
        list(generate_windows(Counting(), Space(), [0], [(10, 5), (12, 3)]))
