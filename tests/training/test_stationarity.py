"""Videos far from their beginning: whether they settle, calibration, and the filter over time."""

import dataclasses
import math
import pathlib
import subprocess
import sys

import pytest
import torch
from tiny_temporal_model import make_generator, make_trainer

from networks.latent_generator import FilteredLatentGenerator, LatentGenerator, first_frame
from training import kept_averages, stationarity
from training.kept_averages import KeptAverages
from training.stationarity import calibrate, filter_between, mean_periodogram, observe, wandering


def test_a_video_settles_and_is_calibrated(monkeypatch):
    """Memories that decay slowly from a far beginning: the burn-in is as long as they take, and frames get the data's moments."""
    monkeypatch.setattr(stationarity, 'LONGEST_BURN_IN', 2000)
    monkeypatch.setattr(stationarity, 'REFERENCE_FRAMES', 1000)
    torch.manual_seed(0)
    G = make_generator(num_components=2).float()
    G.set_data_basis(torch.zeros(15), torch.eye(2, 15))
    with torch.no_grad():
        for cell in G.cells:
            size = cell.hidden_size
            cell.bias_ih[size : 2 * size] = 3.0  # about 20 frames
            cell.bias_hh[size : 2 * size] = 0.0
            cell.weight_ih[size : 2 * size] = 0
            cell.weight_hh[size : 2 * size] = 0
        G.H[-1].bias += 4.0  # outside of (-1, 1), where no memory can stay
    run = observe(G)
    assert run.settles
    assert 200 <= run.burn_in < 2000
    assert run.unsettled[0] > 10 * run.unsettled[-10:].max()
    late = max(index for index, distance in enumerate(run.unsettled) if distance > 0.01)
    assert run.burn_in == 2 * 25 * (late + 1)  # twice as long as it takes to come near
    slow = dataclasses.replace(run, means=run.means.roll(40, dims=0), deviations=run.deviations.roll(40, dims=0))
    assert slow.burn_in == 2000  # the longest that there is
    wide = dataclasses.replace(run, means=run.mean.expand_as(run.means), deviations=2 * run.deviations)
    assert not wide.settles
    real = torch.randn(4000, 2) @ torch.tensor(
        [[1.0, 0.6], [0.0, 0.8]]
    )  # correlated, which the frames of G are as well, otherwise
    real = real * run.deviation.float() * 1.5 + torch.tensor([1.0, -3.0])  # within what is corrected
    shape, bias = G.A.weight.clone(), G.A.bias.clone()
    calibrate(G, run, [real])
    after = observe(G, seed=1)
    torch.testing.assert_close(after.mean.float(), real.mean(dim=0), atol=0.1, rtol=0.05)
    torch.testing.assert_close(after.deviation.float(), real.std(dim=0), atol=0, rtol=0.05)
    wanted = torch.corrcoef(real.T)[0, 1]
    assert abs(run.covariance[0, 1] / run.deviation.prod() - wanted) > 0.1  # there is something to correct
    torch.testing.assert_close((after.covariance[0, 1] / after.deviation.prod()).float(), wanted, atol=0.03, rtol=0)

    G.A.weight.data.copy_(shape)
    G.A.bias.data.copy_(bias)
    calibrate(G, dataclasses.replace(run, covariance=None), [real])  # many coordinates: each on its own
    torch.testing.assert_close(G.A.weight / shape, (1.5 * torch.ones(2, 1)).expand_as(shape), atol=0, rtol=0.05)
    after = observe(G, seed=1)
    torch.testing.assert_close(after.mean.float(), real.mean(dim=0), atol=0.1, rtol=0.05)
    torch.testing.assert_close(after.deviation.float(), real.std(dim=0), atol=0, rtol=0.05)


@pytest.mark.parametrize('together', [True, False])
def test_calibration_is_one_affine_map_of_the_coordinates(together):
    """y -> M (y - m) + mean of the footage, whatever the mean m of the frames was; M = diag(2, 0.5) here."""
    G = make_generator(num_components=2)
    G.set_data_basis(torch.zeros(15), torch.eye(2, 15))
    G.A.bias.data.copy_(torch.tensor([0.7, -0.4]))
    l = torch.randn(20, G.latent_dim, dtype=torch.float64)
    y = G.coordinates(l)
    mean, variances = torch.tensor([3.0, -2.0]).double(), torch.tensor([1.0, 4.0]).double()
    covariance = torch.diag(variances) if together else None
    run = stationarity.LongRun(mean.unsqueeze(0), variances.sqrt().unsqueeze(0), mean, variances.sqrt(), covariance)
    real = torch.tensor([[7.0, 4.0], [3.0, 4.0], [7.0, 6.0], [3.0, 6.0]])  # deviations 2 and 1
    calibrate(G, run, [real])
    expected = (y - mean) * torch.tensor([2.0, 0.5]) + torch.tensor([5.0, 5.0])
    torch.testing.assert_close(G.coordinates(l), expected, rtol=1e-6, atol=1e-6)


def test_calibration_moves_frames_no_further_than_it_has_to():
    """Equal covariances: the identity. Commuting ones: the ratio of deviations along each axis. What has stopped stays."""
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]

    def turned(*variances):
        return turn @ torch.diag(torch.tensor(variances, dtype=torch.float64)) @ turn.T

    torch.testing.assert_close(stationarity._map_of_covariances(turned(1, 2, 3), turned(1, 2, 3)), torch.eye(3).double())
    torch.testing.assert_close(stationarity._map_of_covariances(turned(4, 1, 9), turned(1, 4, 9)), turned(0.5, 2, 1))
    torch.testing.assert_close(stationarity._map_of_covariances(turned(1, 1e-9, 1), turned(4, 1, 100)), turned(2, 1, 1))


def filtered_generator(size=5) -> FilteredLatentGenerator:
    """One whose filter is no identity, in float64."""
    torch.manual_seed(3)
    arguments = {'num_components': 2, 'latent_dim': 4, 'noise_dim': 3, 'hidden_dim': 4, 'num_cells': 2, 'widening_widths': [8]}
    G = FilteredLatentGenerator(3, 5, filter_size=size, **arguments).double()
    G.set_data_basis(torch.randn(15), torch.randn(2, 15))
    G.set_filter(torch.randn(size, 2, 2), torch.randn(2))
    return G.requires_grad_(False)


def test_a_filtered_generator_is_the_generator_behind_a_filter():
    """y'_k = b + sum_j F_j y_{k-j} with y_k of the recurrence, y_0 for all time before it; by steps, at once, as codes."""
    torch.manual_seed(0)
    size = 5
    G = filtered_generator(size)
    weights, bias = torch.randn(size, 2, 2).double(), torch.randn(2).double()
    G.set_filter(weights, bias)
    plain = LatentGenerator(
        3, 5, num_components=2, latent_dim=4, noise_dim=3, hidden_dim=4, num_cells=2, widening_widths=[8]
    ).double()
    plain.load_state_dict(G.state_dict(), strict=False)
    i, s = torch.randn(2, 4).double(), torch.randn(2, 11, 3).double()
    y = plain.coordinates(plain.rollout(s, plain.initial_state(i))[0])
    past = torch.cat([y[:, :1].expand(-1, size - 1, -1), y], dim=1)
    expected = bias + sum(torch.einsum('ij,ntj->nti', weights[j], past[:, size - 1 - j : past.shape[1] - j]) for j in range(size))

    l, states = G.rollout(s, G.initial_state(i))
    torch.testing.assert_close(l, expected)
    state, frame = first_frame(G, i)
    stepped = [frame]
    for k, noise in enumerate(s.unbind(1)):
        torch.testing.assert_close(state, states[k])
        state, frame = G.step(noise, state)
        stepped.append(frame)
    torch.testing.assert_close(torch.stack(stepped, dim=1), expected)
    torch.testing.assert_close(G(i, s), plain.decode(expected))
    with pytest.raises(ValueError, match='odd'):
        filtered_generator(4)


@pytest.mark.parametrize('steps', [1, 4, 5, 40])
@pytest.mark.parametrize('filtered', [False, True])
def test_frames_that_pass_by_leave_what_their_steps_leave(steps, filtered):
    """To the last bit: a video begins the same whether its burn-in was seen or not."""
    torch.manual_seed(0)
    G = filtered_generator().float() if filtered else LatentGenerator(3, 5, latent_dim=4, noise_dim=3, hidden_dim=7, num_cells=3)
    i, s = torch.randn(2, 4), torch.randn(2, steps, 3)
    with torch.no_grad():
        state, frame = first_frame(G, i)
        found = G.pass_by(s, state)
        for noise in s.unbind(1):
            state, frame = G.step(noise, state)
    assert torch.equal(found[1], frame)
    assert len(found[0]) == len(state)
    assert all(map(torch.equal, found[0], state))


def test_building_from_a_file_imports_no_compiler():
    """Operations on tensors without data make PyTorch import SymPy, which takes a third of a second."""
    code = (
        'import sys\n'
        'from networks.checkpoints.formats.assembly import NothingAllocated\n'
        'from networks.latent_generator import FilteredLatentGenerator\n'
        'with NothingAllocated():\n'
        '    G = FilteredLatentGenerator(3, 5, filter_size=5, num_components=2)\n'
        'assert G.filter_weight.is_meta\n'
        "assert 'sympy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=pathlib.Path(__file__).parents[2])


def test_an_untouched_filter_shows_the_middle_frame():
    G = FilteredLatentGenerator(3, 5, filter_size=5, num_components=2)
    i, s = torch.randn(2, 32), torch.randn(2, 9, 32)
    l, _ = G.rollout(s, G.initial_state(i))
    y = LatentGenerator.coordinates(G, LatentGenerator.rollout(G, s, G.initial_state(i)[:-1])[0])
    torch.testing.assert_close(l[:, 2:], y[:, :-2])


def colour(noise: torch.Tensor, decay: float) -> torch.Tensor:
    """An autoregression of order 1 along dimension 1, with the variance of the noise."""
    y = [noise[:, 0]]
    for k in range(1, noise.shape[1]):
        y.append(decay * y[-1] + (1 - decay**2) ** 0.5 * noise[:, k])
    return torch.stack(y, dim=1)


def test_the_filter_gives_one_process_the_spectrum_of_another():
    """White noise gets the correlations of an autoregression of two mixed coordinates; equal spectra are left alone."""
    random = torch.Generator().manual_seed(0)

    def noise():
        return torch.randn(400, 200, 2, generator=random, dtype=torch.float64)

    mixing = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    given, wanted = noise(), colour(noise(), 0.5) @ mixing.T
    windows = [tracks.unfold(1, 25, 5).flatten(0, 1).transpose(1, 2) for tracks in (given, wanted)]
    spectra = [mean_periodogram([each], torch.zeros(2)) for each in windows]
    taps = filter_between(*spectra)
    assert taps.shape == (stationarity.FILTER_SIZE, 2, 2)
    torch.testing.assert_close(taps, taps.flip(0).mT, atol=0.01, rtol=0)  # what comes before mirrors what comes after
    seen = noise()
    filtered = sum(seen[:, len(taps) - 1 - j : seen.shape[1] - j] @ taps[j].T for j in range(len(taps)))  # [400, 200 - 32, 2]
    for lag in range(0, 12, 3):
        covariances = [
            torch.einsum('nti,ntj->ij', y[:, lag:], y[:, : y.shape[1] - lag]) / y[:, lag:, 0].numel() for y in (filtered, wanted)
        ]
        torch.testing.assert_close(*covariances, atol=0.09, rtol=0)

    same = filter_between(spectra[0], spectra[0])
    identity = torch.zeros_like(same)
    identity[len(same) // 2] = torch.eye(2)
    torch.testing.assert_close(same, identity, atol=1e-6, rtol=0)


def test_a_mean_periodogram_is_that_of_its_definition():
    y = torch.randn(1500, 25, 2, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.3, -0.2])
    S = mean_periodogram([y[:700], y[700:]], mean)
    k, f = torch.arange(25), 5 / stationarity.FREQUENCIES
    Y = ((y - mean).to(torch.complex128) * torch.exp(-2j * math.pi * f * k.double())[:, None]).sum(dim=1)
    torch.testing.assert_close(S[5], (Y.T @ Y.conj()) / 1500 / 25)
    assert len(S) == stationarity.FREQUENCIES // 2 + 1


def test_finished_videos_move_like_the_footage(tiny_latents, monkeypatch):
    """The snapshot's generator is filtered; its windows have the mean periodogram and the mean frame of the footage."""
    monkeypatch.setattr(stationarity, 'LONGEST_BURN_IN', 100)
    monkeypatch.setattr(stationarity, 'REFERENCE_FRAMES', 500)
    trainer = make_trainer(tiny_latents, carry=1.0, longest_memory=0.0)

    def tracks(G: LatentGenerator, seed: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(seed)
        state = G.initial_state(torch.randn(256, G.latent_dim, generator=random))
        return G.coordinates(G.rollout(torch.randn(256, 400, G.noise_dim, generator=random), state)[0])[:, 200:]

    y = tracks(trainer.G_ema, 8)
    clips = list(1.0 + y[:, 2:] - 0.35 * y[:, :-2])  # slow motion is less of it
    trainer.windows.clips = clips
    filtered = trainer.finished()
    trainer.settings = dataclasses.replace(trainer.settings, unfiltered=True)
    plain = trainer.finished()
    assert (type(filtered).__name__, type(plain).__name__) == ('FilteredLatentGenerator', 'LatentGenerator')
    assert filtered.burn_in >= stationarity.FILTER_SIZE - 1
    mean = torch.cat(clips).mean(dim=0)
    wanted = mean_periodogram([torch.stack(clips).unfold(1, 25, 25).flatten(0, 1).mT], mean)
    left = []
    for G in (plain, filtered):
        seen = mean_periodogram([tracks(G, 9).unfold(1, 25, 25).flatten(0, 1).mT], mean)
        left.append(float((seen / wanted - 1).diagonal(dim1=1, dim2=2).abs().square().mean()))
    assert left[1] < 0.5 * left[0]  # the windows of a slow generator are blurred in frequency


def test_videos_that_drift_for_thousands_of_frames_wander(monkeypatch):
    """One memory on its way from i ~ N(0, 1) to 1 in thousands of frames, m' = z m + 1 - z, z = 1 - 1/5000."""
    monkeypatch.setattr(stationarity, 'LONGEST_BURN_IN', 2000)
    torch.manual_seed(0)
    G = make_generator(num_components=2).float()
    G.set_data_basis(torch.zeros(15), torch.eye(2, 15))
    assert wandering(G) < 0.001
    last, size = G.cells[-1], G.latent_dim
    with torch.no_grad():
        for rows, bias in ((slice(size, 2 * size), math.log(4999)), (slice(2 * size, 3 * size), 20.0)):
            for weights in (last.weight_ih, last.weight_hh):
                weights[rows][0] = 0
            last.bias_hh[rows][0] = 0
            last.bias_ih[rows][0] = bias
    with torch.no_grad():
        G.T = torch.nn.Identity()
        G.A = torch.nn.Linear(size, 2)
        G.A.weight[:], G.A.bias[:] = 0, 0
        G.A.weight[:, 0] = 1.0
    near, far = math.exp(-2500 / 5000), math.exp(-9500 / 5000)  # what is left of i there: deviation, and 1 - mean
    expected = 2 * (near - far) ** 2 / near**2
    assert wandering(G, num_videos=4000) == pytest.approx(expected, rel=0.1)


def test_the_newest_average_that_settles_is_taken(monkeypatch):
    distances = {}
    monkeypatch.setattr(kept_averages, 'wandering', lambda G, deadline: distances[float(G.w_mean[0])])
    G_ema = make_generator()
    averages = KeptAverages(1000)
    for step in range(1, 1001):
        G_ema.w_mean.fill_(step)
        averages.keep(step, G_ema)
    restored = KeptAverages(1000)
    restored.load_state_dict(averages.state_dict())
    for case, taken, wanders in [
        ({1000: 0.001}, 1000, False),
        ({1000: 0.04, 900: 0.003}, 900, False),
        ({1000: 0.04, 900: 0.02, 800: 0.003}, 800, False),
        ({1000: 0.04, 900: 0.02, 800: 0.05, 700: 0.03}, 900, True),
    ]:
        distances.clear()
        distances.update(case)
        for each in (averages, restored):
            G = each.settled(1000, G_ema, make_generator)
            assert (float(G.w_mean[0]), each.taken, each.wanders) == (taken, taken, wanders)
    trial = KeptAverages(499)
    trial.keep(349, G_ema)
    assert trial.settled(499, G_ema, make_generator) is G_ema
    assert not trial.wanders


def test_a_training_goes_back_to_an_average_that_settles(tiny_latents, tmp_path, monkeypatch):
    """What is kept survives a resume, and what is finished is the earlier average, calibrated like any."""
    monkeypatch.setattr(kept_averages, 'SHORTEST', 10)
    monkeypatch.setattr(stationarity, 'LONGEST_BURN_IN', 50)
    monkeypatch.setattr(stationarity, 'REFERENCE_FRAMES', 50)
    first = make_trainer(tiny_latents, carry=1.0)
    first.averages = KeptAverages(10)
    for _ in range(7):
        first.step()
    kept = {name: parameter.clone() for name, parameter in first.G_ema.named_parameters()}
    torch.save(first.state_dict(), tmp_path / 'state.pt')
    state = torch.load(tmp_path / 'state.pt', weights_only=True)
    second = make_trainer(tiny_latents, carry=1.0)
    second.averages = KeptAverages(10)
    second.load_state_dict(state, state)
    second.step()
    monkeypatch.setattr(
        kept_averages, 'wandering', lambda G, deadline: 0.0 if torch.equal(G.cells[0].weight_hh, kept['P.0.weight_hh']) else 0.5
    )
    finished = second.finished()
    assert (second.averages.taken, second.averages.wanders) == (7, False)
    for name, parameter in finished.named_parameters():
        if not name.startswith('A.'):  # calibration is folded into A
            assert torch.equal(parameter, kept[name]), name
