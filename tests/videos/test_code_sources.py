"""Sources of codes: a state that was written down in the middle goes on with the same numbers."""

import itertools
import json

import numpy as np
import pytest
import torch

from networks.latent_generator import LatentGenerator
from networks.seeded_noise import SeededNoise
from training.videos.code_sources import ModelSource, RecordedSource, begin_video, chunks


@pytest.fixture(scope='module')
def generator() -> LatentGenerator:
    torch.manual_seed(0)
    return LatentGenerator(4, 8, latent_dim=6, noise_dim=5, hidden_dim=7).eval().requires_grad_(False)


def test_state_of_a_model_goes_on_with_the_same_numbers(generator: LatentGenerator) -> None:
    source = ModelSource(generator, 3, burn_in=2)
    source.read(5)
    state = source.state()
    rest = [source.read(5) for _ in range(3)]
    json.dumps(state['noise'])  # plain values
    other = ModelSource(generator, 99)
    other.restore(state)
    assert all(torch.equal(other.read(5), part) for part in rest)
    with pytest.raises(ValueError, match='of 2 seeds'):
        SeededNoise([1], 6, 5).restore(SeededNoise([1, 2], 6, 5).state())


def test_video_begins_after_its_burn_in(generator: LatentGenerator) -> None:
    noise = SeededNoise([3], 6, 5)
    memories, l = begin_video(generator, noise, burn_in=4)
    fresh = SeededNoise([3], 6, 5)
    i = fresh.first()
    expected, all_memories = generator.rollout(fresh.steps(4), generator.initial_state(i))
    assert torch.allclose(l, expected[:, -1], atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(memories, all_memories[-1], strict=True))


def test_source_begins_where_another_one_stands(generator: LatentGenerator) -> None:
    first = ModelSource(generator, 3)
    first.read(7)
    second = ModelSource(generator, 8, beginning=first.position())
    assert torch.equal(second.read(1), first.read(1))
    assert not torch.equal(second.read(1), first.read(1))  # the noise is that of seed 8


def test_recording_is_read_in_order_and_stands_still_at_its_end() -> None:
    codes = np.random.RandomState(0).randn(10, 4, 8).astype(np.float32)
    source = RecordedSource(codes)
    state = source.state()
    read = torch.cat(list(itertools.islice(chunks(source, 4), 3)))
    assert np.array_equal(read[:10].numpy(), codes)
    assert np.array_equal(read[10:].numpy(), codes[[9, 9]])
    source.restore(state)
    assert np.array_equal(source.read(3).numpy(), codes[:3])
