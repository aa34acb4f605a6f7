"""Loops close and continuations have no seam, with a small latent generator whose memories move."""

import json
import pathlib

import numpy as np
import pytest
import torch

from networks.errors import InputError
from networks.latent_generator import EventLatentGenerator, FilteredLatentGenerator, LatentGenerator
from training.control import continuation, loop
from training.control.audio import RATE, MotionEnvelope, loudness_and_onsets
from training.control.operators import Pipeline
from training.videos.code_sources import ModelSource


@pytest.fixture(scope='module', params=['plain', 'filtered', 'events'])
def generator(request: pytest.FixtureRequest) -> LatentGenerator:
    torch.manual_seed(0)
    sizes = {'latent_dim': 6, 'noise_dim': 5, 'hidden_dim': 6}
    if request.param == 'plain':
        return LatentGenerator(3, 4, **sizes).eval().requires_grad_(False)
    G: FilteredLatentGenerator
    if request.param == 'filtered':
        G = FilteredLatentGenerator(3, 4, num_components=12, filter_size=9, **sizes)
    else:
        G = EventLatentGenerator(3, 4, num_components=12, filter_size=9, num_channels=1, bounded=True, **sizes)
        direction = torch.nn.functional.normalize(torch.randn(12), dim=0)
        G.event_directions[:, 0] = direction
        G.event_motions[0] = direction
        G.event_thresholds[0] = 0.0
        G.event_limits[0] = 1.0
        G.event_distances[0] = 9
        G.sizes_real.copy_(1.2 * G.sizes_generated)
        G.set_bound(torch.zeros(12), torch.eye(12) / 2)
    G.set_data_basis(torch.zeros(12), torch.eye(12))
    spread = torch.randn(9, 12, 12) * 0.02
    spread[4] += torch.eye(12)
    G.set_filter(spread, torch.zeros(12))
    return G.eval().requires_grad_(False)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, 'CANDIDATES', 60)
    monkeypatch.setattr(loop, 'VARIANTS', 3)
    monkeypatch.setattr(loop, 'BRIDGES', (20,))
    monkeypatch.setattr(loop, 'ITERATIONS', 20)
    monkeypatch.setattr(continuation, 'ITERATIONS', 40)


def test_loop_closes_with_ordinary_steps(generator: LatentGenerator, quick: None) -> None:
    num_frames = 60 + generator.frames_behind // 2
    bridge = loop.find_bridge(generator, 3, num_frames)
    source = loop.LoopSource(generator, bridge, num_frames)
    codes = torch.cat([source.read(7) for _ in range(3 * num_frames // 7)])
    assert torch.allclose(codes[num_frames : 2 * num_frames], codes[:num_frames], atol=1e-6)
    steps = codes.diff(dim=0).square().mean(dim=(1, 2)).sqrt()
    usual = ModelSource(generator, 3, burn_in=50).read(500).diff(dim=0).square().mean(dim=(1, 2)).sqrt()
    assert steps[num_frames - 1] <= usual.max() * 1.25
    assert steps.max() <= usual.max() * 1.25
    other = loop.LoopSource(generator, bridge, num_frames)
    other.restore(json_round(source.state()))
    assert torch.equal(other.read(9), source.read(9))


def json_round(state: dict) -> dict:
    """The state as a file would hold it."""

    def plain(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return {'tensor': value.tolist()}
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    def back(value: object) -> object:
        if isinstance(value, dict):
            return torch.tensor(value['tensor']) if set(value) == {'tensor'} else {key: back(item) for key, item in value.items()}
        return [back(item) for item in value] if isinstance(value, list) else value

    return back(json.loads(json.dumps(plain(state))))  # type: ignore[return-value]


def test_loop_that_is_too_short_is_refused(generator: LatentGenerator) -> None:
    with pytest.raises(InputError, match=f'at least {16 + generator.frames_behind // 2} frames'):
        loop.find_bridge(generator, 0, 10)


def test_continuation_of_own_codes_explains_them(generator: LatentGenerator, quick: None) -> None:
    codes = ModelSource(generator, 1234, burn_in=30 + generator.frames_behind).read(30)
    found = continuation.explain(generator, codes, burn_in=30)
    assert found.error < 0.35  # unrelated frames have about 1.4
    source = Pipeline(ModelSource(generator, 5, beginning=found.beginning), [found.operator()])
    after = source.read(60)
    assert torch.allclose(after[0], codes[-1], atol=1e-5)  # the last known frame itself
    steps = codes.diff(dim=0).square().mean(dim=(1, 2)).sqrt()
    assert float((after[1] - codes[-1]).square().mean().sqrt()) <= 2 * float(steps.max())


def test_first_frame_is_met_exactly_and_left_slowly(generator: LatentGenerator, quick: None) -> None:
    picture = ModelSource(generator, 77, burn_in=30).read(1) + 0.3 * torch.randn(1, 3, 4)
    found = continuation.explain(generator, picture, burn_in=30)
    read = Pipeline(ModelSource(generator, 5, beginning=found.beginning), [found.operator()]).read(found.fade + 5)
    assert torch.allclose(read[0], picture[0], atol=1e-5)
    alone = ModelSource(generator, 5, beginning=found.beginning).read(found.fade + 5)
    assert torch.equal(read[found.fade :], alone[found.fade :])
    with pytest.raises(InputError, match='too short to continue'):
        continuation.explain(generator, picture.expand(2, -1, -1))


def test_clicks_are_onsets(tmp_path: pathlib.Path) -> None:
    samples = np.zeros(4 * RATE, np.float32)
    beats = [0.5, 1.3, 2.1, 2.9]
    for beat in beats:
        start = int(beat * RATE)
        samples[start : start + 400] = np.sin(np.arange(400) * 0.8) * np.exp(-np.arange(400) / 80)
    happening = loudness_and_onsets(samples, 25)
    found = [frame for frame in range(1, 99) if happening[frame] > 0.5 and happening[frame] > happening[frame - 1] + 0.3]
    assert np.abs(np.array(found) / 25 - beats).max() <= 1 / 25
    assert happening[:11].max() == 0
    envelope = MotionEnvelope.__new__(MotionEnvelope)
    envelope.values, envelope.strength = happening, 0.8
    assert envelope(0, 3) == pytest.approx([0.2] * 3)
    assert envelope(10_000, 2) == pytest.approx([0.2] * 2)
