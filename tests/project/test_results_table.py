"""The table of results: known values of its statistics, its Markdown, an interrupted measurement; MoCoGAN-HD's idea."""

import json
import math
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any, ClassVar

import click.testing
import numpy as np
import pytest
import torch

from benchmarks import long_run, results_table
from benchmarks.comparison import markdown_tables, picture_measures, residual_generator
from benchmarks.comparison.significance import holm, p_value, summarize
from networks import checkpoints
from networks.errors import InputError
from training.latents.dataset import LatentDataset

# ----------------------------------------------------------------------------
# Statistics


def test_interval_is_students() -> None:
    summary = summarize([1.0, 2.0, 3.0])
    half = 4.30265 / math.sqrt(3)  # t_{0.975, 2} of the printed tables
    assert (summary.count, summary.mean, summary.deviation) == (3, 2.0, 1.0)
    assert summary.interval == pytest.approx((2 - half, 2 + half), abs=1e-4)
    assert summarize([5.0]).interval is None


def test_p_values_are_those_of_two_degrees_of_freedom() -> None:
    def p_of(t: float) -> float:  # closed form for 2 degrees of freedom
        return 1 - abs(t) / math.sqrt(2 + t**2)

    assert p_value([1.0, 2.0, 3.0], [5.0], fitted=True) == pytest.approx(p_of(3 * math.sqrt(3)))
    assert p_value([0.0, 2.0], [4.0, 6.0]) == pytest.approx(p_of(4 / math.sqrt(2)))  # equal variances: Welch's has 2 as well
    # 1, 2, 3 against 2, 4, 6: 50/17 degrees of freedom, between those of 2 and of 3.
    assert p_of(2 / math.sqrt(5 / 3)) > (p_value([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) or 0) > 0.2191
    assert p_value([1.0, 2.0], [3.0]) is None
    assert p_value([0.0, 0.0], [0.0, 0.0]) is None


def test_holm_counts_the_tests_that_there_are() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


# ----------------------------------------------------------------------------
# Tables


def code_line(model: str, seed: int, distance: float, far: float, steps: int | None = None) -> dict[str, Any]:
    result = {'distance@0': distance, 'distance@1000': far, 'kernel_distance@1000': -3.0, 'repetition': 0.1}
    return {'data': 'demo.zip', 'model': model, 'seed': seed, 'steps': steps, 'result': result}


def picture_line(model: str, seed: int, depth: int, fvd: float) -> dict[str, Any]:
    place = {'data': 'demo.zip', 'model': model, 'seed': seed, 'depth': depth, 'reference': 'embedding', 'renderer': 'own'}
    return {**place, 'clips': 64, 'frames': 16, 'result': {'fvd': fvd}}


def test_tables_say_what_the_lines_say() -> None:
    codes = [code_line('default', seed, distance, distance * 1.5) for seed, distance in enumerate((1.0, 2.0, 3.0))]
    codes += [code_line('ar5', 0, 40.0, 40.0), code_line('paper', 0, 1.0, 1234.5), code_line('paper', 1, 1.2, 2345.6)]
    codes += [code_line('default', 1, 99.0, 99.0, steps=10)]  # not the full length: does not count
    pictures = [picture_line('paper', 0, depth, fvd) for depth, fvd in ((0, 42.9), (225, 84.0), (10000, 150.0))]
    pictures += [picture_line('default', 0, depth, 40.0) for depth in (0, 225)]
    rows = markdown_tables.tables(codes, pictures).splitlines()
    default = next(row for row in rows if row.startswith('| **default** | 3 |'))
    assert default.split(' | ')[2] == '2 ± 1 (-0.484 to 4.48)'
    # A kernel distance below 0 is none.
    assert default.split(' | ')[7:] == ['0 ± 0 (0 to 0)', '', '0.1 ± 0 (0.1 to 0.1)', '1.5 ± 0 (1.5 to 1.5) |']
    # Both distances against the fit and against two trainings of the paper, and their drift: elsewhere nothing varies.
    assert any(row.startswith('5 tests') for row in rows)
    fit = next(row for row in rows if row.startswith('| autoregression, order 5 | better'))
    assert fit.split(' | ')[1].startswith('better, p = 0.00')
    assert rows[rows.index('**Not better.** Nowhere is another row significantly better.') + 2] == '### Codes: demo'
    nearer = [code_line('ar5', 0, 0.5, 1.0)] + [code_line('default', seed, 2 + seed / 100, 3.0) for seed in range(3)]
    assert '- demo: autoregression, order 5 in Frechet, 0' in markdown_tables.tables(nearer, []).splitlines()
    ratios = [row for row in rows[rows.index('### Long over short') :] if row.startswith(('| paper |', '| **default** |'))][:2]
    assert ratios[0].split(' | ')[1:] == ['1.00', '', ' |']
    assert ratios[1].split(' | ')[1:] == ['1.96', '', '3.50 |']


def test_the_page_keeps_what_is_around_the_tables() -> None:
    page = f'before\n{markdown_tables.BEGIN}\nold\n{markdown_tables.END}\nafter\n'
    once = markdown_tables.put_between_markers(page, 'new')
    assert once == markdown_tables.put_between_markers(once, 'new')
    assert once.startswith('before\n')
    assert once.endswith('\nafter\n')
    assert 'new' in once
    assert 'old' not in once
    with pytest.raises(InputError, match='once each'):
        markdown_tables.put_between_markers('no markers', 'new')


def test_tuning_is_compared_on_the_same_trainings() -> None:
    def line(data: str, model: str, seed: int, depth: int | None, renderer: str, fvd: float) -> dict[str, Any]:
        place = {'data': data, 'model': model, 'seed': seed, 'depth': depth, 'reference': 'recording', 'renderer': renderer}
        return {**place, 'clips': 24, 'frames': 16, 'result': {'fvd': fvd, 'clip_kernel_distance': -0.5}}

    lines = [line('a.zip', markdown_tables.HALVES, 0, None, 'own', 33.0)]
    lines += [line('a.zip', markdown_tables.EMBEDDING, 0, None, name, fvd) for name, fvd in (('own', 80.0), ('tuned', 40.0))]
    for data, seeds in (('a.zip', range(3)), ('b.zip', range(1))):
        lines += [line(data, 'default', seed, 0, 'own', 100.0) for seed in seeds]
        lines += [line(data, 'default', seed, 0, 'tuned', 50.0 + 5 * seed) for seed in (*seeds, 7)]  # 7: not in both
    rows = markdown_tables.tables([], lines).splitlines()
    assert next(row for row in rows if row.startswith('| b |')) == '| b | 24 |  |  |  | 100 → 50 |  | 1 |'
    found = next(row for row in rows if row.startswith('| a | 24 |')).split(' | ')
    assert found[2:5] == ['33', '80 → 40', '']
    assert found[5].startswith('100 ± 0 (100 to 100) → 55 ± 5 (')
    tests = [row.split(' | ') for row in rows if row.startswith('| a | FVD, ')]
    assert [row[:5] for row in tests] == [['| a', 'FVD, generated, frame 0', '3', '3', '0.55']]
    logs = np.log([0.5, 0.55, 0.6])
    t = float(logs.mean() / logs.std(ddof=1) * math.sqrt(3))
    assert float(tests[0][6].removesuffix(' |')) == pytest.approx(1 - abs(t) / math.sqrt(2 + t**2), rel=0.05)
    assert not any(row.startswith('| a | kernel, ') for row in rows)  # distances below 0 have no ratio
    assert 'None have been measured yet.' in rows  # nothing was compared with an embedding
    assert not any('over recordings' in row for row in rows)  # two are too few
    optimised = {'c-optimised.zip': 40.0, 'd-optimised.zip': 50.0, 'e-optimised.zip': 60.0}
    for data, after in {**optimised, 'c-refined.zip': 90.0, 'c.zip': 200.0}.items():  # c's other codes are no further recording
        lines += [line(data, 'default', 0, 0, name, fvd) for name, fvd in (('own', 100.0), ('tuned', after))]
    rows = markdown_tables.tables([], lines).splitlines()
    begin = next(place for place, row in enumerate(rows) if 'over recordings' in row)
    over = [row.split(' | ')[:5] for row in rows[begin + 4 :]]
    assert over == [  # a.zip counts once, by the mean of its trainings
        ['| codes of an encoder', 'FVD, generated, frame 0', '3', '2', '0.82'],
        ['| codes optimised', 'FVD, generated, frame 0', '3', '3', '0.49'],
    ]


# ----------------------------------------------------------------------------
# Measuring


class CountingDetectors:
    """Features that are cheap: means and spreads of the colours."""

    clips = 0
    description: ClassVar = {'i3d_weights_sha256': 'a', 'alexnet_weights_sha256': 'b'}

    def features(self, clips: Iterable[np.ndarray]) -> picture_measures.Features:
        rows = [np.concatenate([clip.mean(axis=(0, 1, 2)), clip.std(axis=(0, 1, 2))]) for clip in clips]
        type(self).clips += len(rows)
        return np.array(rows, np.float32), np.repeat(np.array(rows, np.float32), 4, axis=0)


def test_an_interrupted_measurement_goes_on(
    tiny_latents: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_measures, 'Detectors', CountingDetectors)
    monkeypatch.setattr(results_table, 'DEPTHS', (0, 20))
    lines = tmp_path / 'pictures.jsonl'
    recording = tmp_path / 'subject.npy'
    np.save(recording, np.random.RandomState(0).randint(0, 255, (1, 120, 16, 16, 3), dtype=np.uint8))

    def run(models: str, *more: str) -> click.testing.Result:
        arguments = [f'--data={tiny_latents}', f'--recording={recording}', f'--models={models}', '--clips=3', '--seeds=0-1']
        arguments += [f'--features={tmp_path / "features"}', f'--pictures={lines}', f'--networks={tmp_path}', *more]
        return click.testing.CliRunner().invoke(results_table.main, arguments)

    first = run('walk')
    assert first.exit_code == 0, first.output
    written = lines.read_text().splitlines()
    # Halves of recording and embedding, the embedding against the recording, two depths against both; a fit has one seed.
    assert len(written) == 2 + 1 + 2 * 2
    assert all(math.isfinite(value) for line in written for value in json.loads(line)['result'].values())
    counted = CountingDetectors.clips
    lines.write_text('\n'.join(written[:-2]) + '\n')
    again = run('walk')
    assert again.exit_code == 0, again.output
    assert CountingDetectors.clips == counted  # the features were kept
    after = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line['result'] for line in after] == [json.loads(line)['result'] for line in written]
    # A model that was trained is found where long_run.py keeps it.
    with LatentDataset(str(tiny_latents)) as data:
        generator, _ = long_run.train_residual(data, 1, 1, str(tmp_path))
        loaded = results_table.load_model('mocogan-hd', 1, data, [str(tmp_path)])
        assert results_table.load_model('mocogan-hd', 0, data, [str(tmp_path)]) is None
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in generator.state_dict().items())
    assert run('mocogan-hd').exit_code == 0
    assert len(lines.read_text().splitlines()) == len(written) + 2 * 2
    part = run('ar2', '--depths=20', '--references=recording')
    assert part.exit_code == 0, part.output
    last = [json.loads(line) for line in lines.read_text().splitlines()[len(written) + 2 * 2 :]]
    assert [(line['depth'], line['reference']) for line in last] == [(20, 'recording')]
    assert "--depths: '7' is none of 0, 20" in run('ar2', '--depths=7').stderr
    refused = run('walk', '--recording=other.mp4')
    assert refused.exit_code == 2
    assert 'other.mp4 has the name of no data set' in refused.stderr


def test_a_tuned_generator_renders_both_sides(
    tiny_generator: pathlib.Path, tiny_latents: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_measures, 'Detectors', CountingDetectors)
    monkeypatch.setattr(results_table, 'DEPTHS', (0,))
    monkeypatch.setattr(results_table, 'HELD_OUT', 0.5)  # the end has room for four clips in the recording, three in the codes
    data, recording = tmp_path / 'subject.zip', tmp_path / 'subject.npy'
    shutil.copy(tiny_latents, data)
    np.save(recording, np.random.RandomState(0).randint(0, 255, (1, 150, 16, 16, 3), dtype=np.uint8))
    arguments = [f'--data={data}', '--models=ar2', '--clips=4', '--seeds=0', f'--features={tmp_path}', '--tuned']
    arguments += ['--recording', str(recording)]

    def run(pictures: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(results_table.main, [*arguments, f'--pictures={tmp_path / pictures}'])

    refused = run('none.jsonl')
    assert refused.exit_code == 2
    assert 'has no tuned generator beside it' in refused.stderr
    G = checkpoints.load_generator(str(tiny_generator))
    reference = checkpoints.image_generator_reference(str(tiny_generator), G)
    with torch.no_grad():
        for parameter in G.synthesis.parameters():
            parameter.mul_(1.3)
    checkpoints.save_module_pickle(str(tmp_path / 'subject-tuned.pkl'), {'G_ema': G, 'tuned_from': reference, 'tuning': {}})
    done = run('pictures.jsonl')
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / 'pictures.jsonl').read_text().splitlines()]
    found = {(line['model'], line['renderer'], line['reference']): line for line in lines}
    # Halves of the recording and of both embeddings; both embeddings against the recording, all of it and its end; one model.
    assert len(lines) == len(found) == 3 + 2 + 2 + 4
    for model in ('ar2', markdown_tables.HALVES):
        own, tuned = found[model, 'own', 'embedding'], found[model, 'tuned', 'embedding']
        assert own['result']['fvd'] != tuned['result']['fvd']
        assert own['inputs']['reference_sha256'] != tuned['inputs']['reference_sha256']
    own, tuned = (found[markdown_tables.EMBEDDING_END, name, 'recording'] for name in ('own', 'tuned'))
    assert (own['clips_real'], own['clips_fake']) == (4, 3)
    assert own['result']['fvd'] != tuned['result']['fvd']
    assert own['result']['fvd'] != found[markdown_tables.EMBEDDING, 'own', 'recording']['result']['fvd']


# ----------------------------------------------------------------------------
# MoCoGAN-HD's idea


def test_residual_generator_walks_from_a_frame_of_the_footage(tiny_latents: pathlib.Path) -> None:
    torch.manual_seed(0)
    with LatentDataset(str(tiny_latents)) as data, torch.no_grad():
        G = residual_generator.make(data)
        i, s = torch.randn(5, G.latent_dim), torch.randn(5, 8, G.noise_dim)
        windows, memories = G.windows(i, s)
        state, frames = G.initial_state(i), []
        frames.append(state[0])
        for noise in s.unbind(1):
            state, l = G.step(noise, state)
            frames.append(l)
        assert torch.allclose(torch.stack(frames, dim=1), windows, atol=1e-6)
        assert memories.shape == (5, 8, residual_generator.HIDDEN)
        assert all((G.starts == first).all(dim=1).any() for first in windows[:, 0])
        assert G.codes(windows).shape == (5, 9, 6, 8)
        other, _ = G.windows(i, torch.randn_like(s))
        assert torch.equal(other[:, 0], windows[:, 0])
        assert not torch.allclose(other[:, -1], windows[:, -1], atol=1e-3)
        # The recurrence does not see where the walk is: moved as a whole, it makes the same steps.
        moved, l = G.step(s[:, 0], (state[0] + 1, *state[1:]))
        assert torch.allclose(l - 1, G.step(s[:, 0], state)[1], atol=1e-5)
        assert torch.equal(moved[1], G.step(s[:, 0], state)[0][1])


def test_training_brings_its_motion_near_to_the_footage(tiny_latents: pathlib.Path) -> None:
    with LatentDataset(str(tiny_latents)) as data:
        untrained = residual_generator.train(data, seed=0, steps=1)[0]
        trained, steps = residual_generator.train(data, seed=0, steps=60)
        again = residual_generator.train(data, seed=0, steps=1)[0]
    assert steps == 60
    assert all(torch.equal(again.state_dict()[name], value) for name, value in untrained.state_dict().items())

    def speed(G: residual_generator.ResidualMotionGenerator) -> float:
        random = torch.Generator().manual_seed(5)
        with torch.no_grad():
            y, _ = G.windows(torch.randn(64, G.latent_dim, generator=random), torch.randn(64, 24, G.noise_dim, generator=random))
        return float(torch.diff(y, dim=1).square().mean().sqrt() / G.step_unit.square().mean().sqrt())

    assert abs(math.log(speed(trained))) < 0.5 * abs(math.log(speed(untrained)))
