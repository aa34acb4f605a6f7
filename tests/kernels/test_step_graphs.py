"""Steps whose sizes are known beforehand, and their recording; a graph that runs the phase again stands in for CUDA's."""

import math
from typing import Any

import pytest
import torch

from torch_utils import training_stats
from training.batches.video_chains import likely_maximum
from training.kernels.step_graphs import PLAIN_RUNS, StepGraphs
from training.latent_space import fit_latent_space
from training.latents.dataset import LatentDataset
from training.real_windows import Windows
from training.temporal_options import Settings
from training.temporal_trainer import TemporalTrainer


def make_trainer(tiny_latents: Any, **settings: Any) -> Any:
    with LatentDataset(str(tiny_latents)) as dataset:
        windows = Windows(dataset, space := fit_latent_space(dataset), 9, strides=(1, 3))
    return TemporalTrainer(
        G_kwargs={'num_ws': 6, 'w_dim': 8, 'latent_dim': 8, 'noise_dim': 8, 'hidden_dim': 8, 'widening_widths': [16]},
        C_kwargs={'narrowing_widths': [8], 'temporal_channels': [8]},
        space=space,
        windows=windows,
        settings=Settings(**{'batch': 8, 'chains': 16, 'strides': (1, 3), 'burn_in': 4, 'gap_interval': 2, **settings}),
        total_kimg=100,
        seed=5,
        static=True,
    )


class Recording:
    """Replays a phase `times` times."""

    made = 0

    def __init__(self, phase, times=1):
        Recording.made += 1
        self.replay = lambda: [phase() for _ in range(times)]


def record(trainer, make=Recording):
    trainer.graphs = StepGraphs(trainer.device, trainer.random, trainer._changing, trainer._buffers, make)
    return trainer


def weights(trainer: Any) -> list[torch.Tensor]:
    return [*trainer.G.parameters(), *trainer.G_ema.parameters(), *trainer.critics.parameters(), *trainer.chains.memories]


def test_recorded_steps_are_plain_steps(tiny_latents, monkeypatch):
    results, reported = [], []
    monkeypatch.setattr(Recording, 'made', 0)
    for make in (None, Recording):
        trainer = make_trainer(tiny_latents, restart=0.2)
        if make is not None:
            record(trainer, make)
        collector = training_stats.Collector()
        for _ in range(2 * PLAIN_RUNS + 5):
            trainer.step()
        collector.update()
        results.append([*weights(trainer), trainer.random.get_state()])
        reported.append({name: (row.num, row.mean) for name, row in collector.as_dict().items()})
    assert Recording.made == 3  # critic, generator without and with penalties
    assert trainer.graphs.enabled
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    # What a recording reports belongs to no step; the copy here runs once more where it is compared, CUDA's does not report.
    name = 'Loss/C/wasserstein'
    assert reported[1][name][0] >= reported[0][name][0] > 0
    trainer.load_state_dict(trainer.state_dict(), trainer.rank_state())
    assert not trainer.graphs._phases  # tensors have moved


def test_a_recording_that_reports_does_so_in_every_replay(tiny_latents):
    class Reporting:
        def __init__(self, phase: Any) -> None:
            graphs.report('Test/recorded', torch.tensor([3.0]))
            self.replay = lambda: None

    trainer = make_trainer(tiny_latents)
    graphs: StepGraphs = StepGraphs(trainer.device, trainer.random, dict, record=Reporting)
    collector = training_stats.Collector('Test/recorded')
    for _ in range(PLAIN_RUNS + 4):
        graphs.run('phase', lambda: graphs.report('Test/plain', torch.tensor([1.0])))
    collector.update()
    assert collector.num('Test/recorded') == 3  # none while it is recorded, none where it is compared
    assert collector.mean('Test/recorded') == 3


@pytest.mark.parametrize('fault', ['twice', 'refused'])
def test_a_recording_that_does_something_else_is_left_alone(tiny_latents, fault, capsys):
    def refuse(phase):
        phase()
        raise RuntimeError('operation not permitted when stream is capturing\nmore')

    results = []
    for make in (None, refuse if fault == 'refused' else lambda phase: Recording(phase, times=2)):
        trainer = make_trainer(tiny_latents)
        if make is not None:
            record(trainer, make)
        for _ in range(5):
            trainer.step()
        results.append([*weights(trainer), trainer.random.get_state()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not trainer.graphs.enabled
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith('CUDA graphs are off, the training goes on without: ')
    assert ('ends elsewhere' in told[0]) if fault == 'twice' else told[0].endswith('capturing')


def test_chains_with_known_sizes_move_as_the_others(tiny_latents):
    trainer = make_trainer(tiny_latents)
    chains, G = trainer.chains, trainer.G
    assert chains is not None
    assert chains.past_frames == 16
    with torch.no_grad():
        chosen = chains.draw(6)
        assert len(set(chosen.tolist())) == 6
        l, states = G.rollout(torch.randn(6, 8, 8), chains.states(chosen))
        y = chains.with_past(chosen, G.coordinates(l))
    before = chains.state_dict()
    before = {'memories': [h.clone() for h in before['memories']], 'past': before['past'].clone()}
    late = tuple(torch.stack(column) for column in zip(*states[4:], strict=True))
    chains.advance_and_restart(G, chosen, late, y, torch.tensor([2, 6]), 0.0)
    moved = [*(h.clone() for h in chains.memories), chains.past.clone()]
    chains.load_state_dict(before)
    chains.advance(chosen, states[6], y[:, 16:22])
    for mine, theirs in zip(moved, [*chains.memories, chains.past], strict=True):
        assert torch.equal(mine, theirs)
    # All of them start over: what is drawn first is who, then the videos.
    random = trainer.random.get_state()
    chains.advance_and_restart(G, chosen, late, y, torch.tensor([2, 6]), 1.0)
    trainer.random.set_state(random)
    torch.rand(6, generator=trainer.random)
    memories, past = chains._fresh(G, 6)
    for kept, fresh in zip([*chains.memories, chains.past], [*memories, past], strict=True):
        assert torch.equal(kept[chosen], fresh)


@pytest.mark.parametrize('static', [True, False])
def test_a_step_moves_chains_to_one_time_of_the_second_half(tiny_latents, static):
    times = set()
    trainer = make_trainer(tiny_latents, restart=0.0)
    trainer._static, trainer.chains._static = static, static
    for _ in range(40):
        with torch.no_grad():
            y, states, chosen = trainer._generate(8)
            before = trainer.chains.memories[0].clone()
            trainer._advance_chains(y, states, chosen)
        (time,) = (k for k in range(9) if torch.equal(trainer.chains.memories[0][chosen], states[k][0]))
        assert torch.equal(trainer.chains.past[chosen], y[:, time : time + 16])
        others = [index for index in range(16) if index not in chosen]
        assert torch.equal(trainer.chains.memories[0][others], before[others])
        times.add(time)
    assert times == {4, 5, 6, 7, 8}


def test_number_of_fresh_videos():
    assert likely_maximum(128, 0.0) == 0
    assert likely_maximum(5, 1.0) == 5
    most = likely_maximum(128, 0.01)
    tail = sum(math.comb(128, k) * 0.01**k * 0.99 ** (128 - k) for k in range(most + 1, 129))
    assert tail <= 1e-6 < tail + math.comb(128, most) * 0.01**most * 0.99 ** (128 - most)


def test_saved_optimisers_belong_to_no_device(tiny_latents):
    trainer = make_trainer(tiny_latents)
    trainer.step()
    group = trainer.C_optimizer.param_groups[0]
    group['lr'], group['capturable'] = torch.tensor(group['lr']), True  # as on a GPU
    saved = trainer.state_dict()['C_optimizer']['param_groups'][0]
    assert type(saved['lr']) is float
    assert saved['capturable'] is False
    trainer.num_steps = int(75_000 / trainer.frames_per_step)  # of 100_000 frames, the last half of which it falls
    trainer._set_learning_rates()
    assert float(group['lr']) == pytest.approx(0.5 * trainer.settings.critic_lr, rel=0.01)
    assert isinstance(group['lr'], torch.Tensor)
    trainer.load_state_dict(trainer.state_dict(), trainer.rank_state())
    assert trainer.C_optimizer.param_groups[0]['capturable'] is False
