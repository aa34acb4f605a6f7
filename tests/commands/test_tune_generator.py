"""Pivotal tuning: held-out frames gain, other pictures stay, interruptions cost nothing, and every command finds the result."""

import errno
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
from typing import Any

import click.testing
import numpy as np
import PIL.Image
import pytest
import torch

import generate_video
import tune_generator
from networks import checkpoints
from networks.checkpoints import load_generator, tuning_record
from networks.checkpoints.image_generator_lookup import TunedTo, find_image_generator
from networks.checkpoints.tuned_generators import ancestors, share_space, tuned_path
from networks.errors import InputError
from networks.latent_generator import LatentGenerator
from training.commands.memory import Budget
from training.embedding.report import EmbeddingReport
from training.latents.dataset import LatentDataset, LatentDatasetWriter
from training.runs.locks import lock_target
from training.runs.working_memory import peak_bytes
from training.temporal_snapshot import describe_dataset, save_snapshot
from training.temporal_training_loop import open_data
from training.tuning import generator_tuning
from training.tuning import run as tuning_run
from training.tuning.coded_frames import CodedFrames, held_out, read_coded_frames
from training.videos.output import VideoWriter
from training.videos.rendered_videos import EmbeddedVideos, GeneratedVideos, module_sha256
from training.videos.synthesis import images_to_uint8, render_codes

QUICK = ('--perceptual=none', '--batch=4', '--locality-batch=4', '--tick=10', '--evaluate=16', '--device=cpu', '--lr=0.006')


def run(*arguments: object, command: Any = tune_generator.main) -> click.testing.Result:
    return click.testing.CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope='module')
def subject(tiny_generator: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with latents.zip and footage/, whose frames another generator drew: what tuning has to find, and cannot know."""
    folder = tmp_path_factory.mktemp('subject')
    G: Any = load_generator(str(tiny_generator))
    reference = checkpoints.image_generator_reference(str(tiny_generator), G)
    random = np.random.RandomState(3)
    directions = 0.5 * random.randn(3, 48)
    waves = np.sin(np.arange(60)[:, None] / np.array([3.0, 5.0, 8.0]))
    codes = (G.mapping.w_avg.numpy().repeat(6).reshape(8, 6).T + (waves @ directions).reshape(60, 6, 8)).astype(np.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in G.synthesis.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter) * parameter.std(unbiased=False))
    frames = folder / 'footage' / 'clip'
    frames.mkdir(parents=True)
    for index, frame in enumerate(render_codes(G, codes)):
        PIL.Image.fromarray(frame).save(frames / f'{index:03d}.png')
    embedding = {'sources': [str(frames)], 'fps': 25.0, 'method': 'test'}
    with LatentDatasetWriter(folder / 'latents.zip', image_generator=reference, num_ws=6, w_dim=8, embedding=embedding) as writer:
        writer.add_clip('clip', codes, fps=25.0, source=str(frames))
    return folder


STEPS = ('--steps=20', '--save-memory', '--micro-batch=3', '--tick=5')


def tuned(folder: pathlib.Path, dest: pathlib.Path, *more: object) -> dict[str, Any]:
    result = run(f'--data={folder / "latents.zip"}', f'--outdir={dest / "runs"}', f'--dest={dest / "tuned.pkl"}', *QUICK, *more)
    assert result.exit_code == 0, result.output
    record = sorted((dest / 'runs').glob('*/tuning.json'))[-1]
    return json.loads(record.read_text())


@pytest.fixture(scope='module')
def whole(subject: pathlib.Path) -> pathlib.Path:
    """The same folder, with latents-tuned.pkl of a run without interruption, and a report of the data set that it shows up in."""
    (subject / 'latents-report').mkdir()
    EmbeddingReport(str(subject / 'latents-report'), {'dataset': 'latents.zip'}).write_page([])
    result = run(f'--data={subject / "latents.zip"}', f'--outdir={subject / "runs"}', *QUICK, *STEPS)
    assert result.exit_code == 0, result.output
    assert 'Held-out frames: PSNR' in result.output
    return subject


def test_at_equal_quality_locality_leaves_other_pictures_nearer_to_what_they_were(
    subject: pathlib.Path, tiny_generator: pathlib.Path
) -> None:
    G: Any = load_generator(str(tiny_generator))
    with LatentDataset(subject / 'latents.zip') as dataset:
        coded = read_coded_frames(dataset, 16)
    mask = held_out(coded, 0.2)
    learned, tested = coded.chosen(~mask), coded.chosen(mask)
    assert tested.numbers.tolist() == list(range(48, 60))
    changes = {}
    for weight in (0.0, 1.0):
        options = generator_tuning.TuningOptions(batch=4, locality_batch=4, lr=0.006, lambda_lpips=0, lambda_locality=weight)
        work = generator_tuning.GeneratorTuning(G, learned, np.zeros((0, 6, 8), np.float32), None, options)
        wanted = work.measure(G, tested)['psnr'].mean() + 1.5
        while work.measure(work.average, tested)['psnr'].mean() < wanted:
            for _ in range(4):
                work.advance()
            assert work.step < 120, 'held-out frames do not gain'
        others = G.mapping(torch.randn(32, 8, generator=torch.Generator().manual_seed(7)), None)
        changes[weight] = float(work.change(work.average, others)['psnr'].mean())
    assert changes[1.0] > changes[0.0] + 1


def test_the_files_open_everywhere_and_say_what_they_were_tuned_from(
    whole: pathlib.Path, tiny_generator: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = whole / 'latents-tuned.pkl'
    before, after = load_generator(str(tiny_generator)), load_generator(str(path))
    for name, value in before.mapping.state_dict().items():
        assert torch.equal(after.mapping.state_dict()[name], value), name
    assert not torch.equal(after.synthesis.b16.conv1.weight, before.synthesis.b16.conv1.weight)
    pair = load_generator(str(whole / 'latents-tuned.safetensors'))
    assert all(torch.equal(pair.state_dict()[name], value) for name, value in after.state_dict().items())
    with open(path, 'rb') as file:
        contents = pickle.load(file)
    assert {'G', 'D', 'G_ema', 'training_set_kwargs', 'augment_pipe', 'tuned_from', 'tuning'} == set(contents)
    digest = checkpoints.file_sha256(str(tiny_generator))
    with LatentDataset(whole / 'latents.zip') as dataset:
        data_sha256, reference = dataset.sha256, dataset.image_generator
    for name in ('latents-tuned.pkl', 'latents-tuned.safetensors'):
        record = tuning_record(str(whole / name))
        assert record is not None
        assert record['tuned_from']['sha256'] == digest
        assert record['tuning']['data_sha256'] == data_sha256
    assert json.loads((whole / 'latents-tuned.json').read_text())['tuned_from']['sha256'] == digest
    own = checkpoints.image_generator_reference(str(path), after)
    assert own['sha256'] != digest
    assert own['tuned_from']['sha256'] == digest
    assert share_space(own, reference)
    assert not share_space(own, {'sha256': '0' * 64})
    assert tuning_record(str(tiny_generator)) is None
    # A generator that is tuned once more knows both, and so do the codes of the first.
    again = tuned(whole, tmp_path, '--steps=2', f'--network={path}')
    assert again['data_sha256'] == data_sha256
    twice = tuning_record(str(tmp_path / 'tuned.pkl'))
    assert twice is not None
    assert list(ancestors(twice['tuned_from'])) == [own['sha256'], digest]
    # The report of the data set shows what has changed.
    report = json.loads((whole / 'latents-report' / 'report.json').read_text())
    assert report['tuning']['data_sha256'] == data_sha256
    page = (whole / 'latents-report' / 'index.html').read_text()
    assert 'held-out frames' in page
    assert all((whole / 'latents-report' / name).is_file() for name in re.findall(r'src="([^"]*)"', page))


def test_an_interrupted_run_ends_as_one_that_was_not(
    whole: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = (json.loads(path.read_text()) for path in (whole / 'runs').glob('*/tuning.json'))

    command = (
        f'--data={whole / "latents.zip"}', f'--outdir={tmp_path / "runs"}', f'--dest={tmp_path / "tuned.pkl"}', *QUICK, *STEPS
    )  # fmt: skip
    for name, step in (('_backward', 12), ('measure', 15)):  # within a step, and in the look at the held-out frames
        real: Any = getattr(generator_tuning.GeneratorTuning, name)

        def interrupted(work: Any, *arguments: Any, real: Any = real, step: int = step) -> Any:
            if work.step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(work, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(generator_tuning.GeneratorTuning, name, interrupted)
            result = run(*command)
        assert result.exit_code == 128 + signal.SIGTERM
        assert 'run the same command again' in result.output
        assert not (tmp_path / 'tuned.pkl').exists()
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert 'Resuming at step 15.' in result.output
    found = json.loads(next((tmp_path / 'runs').glob('*/tuning.json')).read_text())
    assert found['quality'] == expected['quality']
    assert (found['step'], found['steps_taken']) == (expected['step'], expected['steps_taken'])
    files = (whole / 'latents-tuned.pkl', tmp_path / 'tuned.pkl')
    weights = [load_generator(str(file)).state_dict() for file in files]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    lines = [json.loads(line) for line in next((tmp_path / 'runs').glob('*/stats.jsonl')).read_text().splitlines()]
    assert [line['Progress/step']['mean'] for line in lines] == [5, 10, 15, 20]


def test_settings_that_a_run_did_not_know_stay_and_others_that_differ_are_named(
    subject: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is stripped of two settings, as an earlier version would have left it."""
    command = (
        f'--data={subject / "latents.zip"}', f'--outdir={tmp_path / "runs"}', f'--dest={tmp_path / "x.pkl"}', *QUICK, '--steps=6'
    )  # fmt: skip
    real: Any = generator_tuning.GeneratorTuning.advance
    ema = []

    def advance(work: Any) -> Any:
        ema.append(work.options.ema)
        if work.step == 2 and len(ema) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(work)

    monkeypatch.setattr(generator_tuning.GeneratorTuning, 'advance', advance)
    assert run(*command).exit_code == 128 + signal.SIGTERM
    assert set(ema) == {25.0}  # today's default
    (folder,) = (tmp_path / 'runs').iterdir()
    path = folder / 'training_options.json'
    options = json.loads(path.read_text())
    del options['tuning']['ema'], options['patience']
    path.write_text(json.dumps(options))
    monkeypatch.setattr(tuning_run, 'UNSAID', {**tuning_run.UNSAID, 'tuning.ema': 7.0, 'patience': 8})

    for other in ('--ema=20', '--lr=0.5', '--held-out=0.3'):  # what the user chooses is another run
        result = run(*command, other, '--dry-run')
        assert result.exit_code == 0
        named = {'--ema=20': '--ema=none', '--lr=0.5': '--lr=0.006', '--held-out=0.3': '--held-out=0.2'}[other]
        assert f'{folder} is unfinished and was begun with other options ({named}); this command begins another' in result.output
        assert str(tmp_path / 'runs' / '00001-') in result.output
    damaged = {**options, 'perceptual': 'a' * 5000 + '\x1b', 'steps': [7] * 1000, '\x00': 3, 'a' * 5000: 4}
    path.write_text(json.dumps(damaged))
    result = run(*command, '--dry-run')
    (note,) = (line for line in result.output.splitlines() if line.startswith('Note'))
    assert 'was begun with other options (--' in note
    assert len(note) <= 600
    assert note.isprintable()
    path.write_text(json.dumps(options))
    ema.clear()
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert f'an older version of this program began {folder}, which goes on as it was: --ema=7.0; --fresh' in result.output
    assert set(ema) == {7.0}
    assert list((tmp_path / 'runs').iterdir()) == [folder]
    assert json.loads((folder / 'tuning.json').read_text())['options']['ema'] == 7.0


def test_a_tuning_whose_folder_is_gone_ends(
    subject: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Any = generator_tuning.GeneratorTuning.advance
    steps = []

    def advance(work: Any) -> Any:
        steps.append(work.step)
        if work.step == 2:
            shutil.rmtree(tmp_path / 'runs')
        return real(work)

    monkeypatch.setattr(generator_tuning.GeneratorTuning, 'advance', advance)
    result = run(
        f'--data={subject / "latents.zip"}', f'--outdir={tmp_path / "runs"}', f'--dest={tmp_path / "x.pkl"}', *QUICK, '--steps=6'
    )
    assert result.exit_code == 2
    assert 'was deleted or moved away, so nothing of this run can be saved' in result.output
    assert steps == [0, 1, 2]
    assert list(tmp_path.iterdir()) == []


def test_settings_of_runs_of_earlier_versions_are_accounted_for(subject: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Who adds a setting has to say in UNSAID what runs without it did."""
    result = run(f'--data={subject / "latents.zip"}', f'--outdir={tmp_path}', *QUICK, '--dry-run', '--overwrite')
    options = json.loads(result.output.partition('Tuning options:')[2].partition('\n\n')[0])
    first = {
        'data', 'data_sha256', 'network', 'network_sha256', 'dest', 'source', 'keep', 'steps', 'tick', 'patience',
        'held_out_part', 'num_evaluated', 'perceptual', 'lpips_weights', 'frame_memory', 'identity', 'micro_batch', 'save_memory',
        'force_network', *(f'tuning.{name}' for name in (
            'batch', 'locality_batch', 'lr', 'warmup', 'ema', 'lambda_lpips', 'lambda_pixel', 'lambda_locality', 'spread', 'fp32',
            'seed',
        )),
    }  # fmt: skip
    found = {*options, *(f'tuning.{name}' for name in options['tuning'])} - {'tuning'}
    assert first <= found <= first | set(tuning_run.UNSAID)


def test_a_disk_that_does_not_take_the_last_state_costs_no_result(
    subject: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Any = torch.save

    def full(state: Any, *arguments: Any, **more: Any) -> None:
        if isinstance(state, dict) and 'best_step' in state:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(state, *arguments, **more)

    monkeypatch.setattr(torch, 'save', full)
    result = run(
        f'--data={subject / "latents.zip"}', f'--outdir={tmp_path / "runs"}', f'--dest={tmp_path / "x.pkl"}', *QUICK, '--steps=4'
    )
    assert result.exit_code == 0, result.output
    assert 'the state of the tuning could not be written' in result.output
    assert tuning_record(str(tmp_path / 'x.pkl')) is not None
    assert not list((tmp_path / 'runs').glob('*/tuning-state.pt*'))


def test_pixels_of_small_pictures_weigh_more_beside_alexnet(subject: pathlib.Path, tmp_path: pathlib.Path) -> None:
    usual, said, without = (
        tuned(subject, tmp_path / name, '--steps=1', *options)
        for name, options in (
            ('usual', ('--perceptual=alex',)),
            ('said', ('--perceptual=alex', '--lambda-pixel=10')),
            ('without', ()),
        )
    )
    assert usual['options']['lambda_pixel'] == 10
    assert usual['quality'] == said['quality']
    assert without['options']['lambda_pixel'] == 2


def test_it_ends_when_held_out_frames_stop_gaining(subject: pathlib.Path, tmp_path: pathlib.Path) -> None:
    # Nothing is learned at this rate, so the first ticks decide.
    record = tuned(subject, tmp_path, '--steps=1000', '--lr=1e-9', '--patience=3', '--tick=2')
    assert record['ended_by'] == 'held-out frames'
    assert record['steps_taken'] == 6


def test_commands_find_the_tuned_generator(whole: pathlib.Path, tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data, beside = whole / 'latents.zip', whole / 'latents-tuned.pkl'
    assert str(beside) == tuned_path(str(data)) == tuned_path(str(whole / 'latents'))
    digests = [checkpoints.file_sha256(str(path)) for path in (beside, tiny_generator)]
    # Codes of the generator before are accepted by a training with the tuned one, which says what it was tuned from.
    dataset, G, reference = open_data(str(data), str(beside), torch.device('cpu'), trust_pickle=False, force=False)
    assert [reference['sha256'], reference['tuned_from']['sha256']] == digests
    torch.manual_seed(0)
    generator = LatentGenerator(6, 8, latent_dim=6, noise_dim=5, hidden_dim=7).eval()
    generator.set_data_basis(torch.from_numpy(dataset.load_clip(0)[0].flatten()), None, 1.0)
    snapshot = tmp_path / 'network-snapshot-000001.pkl'
    save_snapshot(
        str(snapshot), G=generator, G_ema=generator, C=generator, image_generator=dataset.image_generator,
        data=describe_dataset(dataset), training_options={}, progress={},
    )  # fmt: skip
    used = []
    for more in ((), (f'--image-network={tiny_generator}',)):
        out = tmp_path / f'videos{len(used)}'
        arguments = (f'--network={snapshot}', f'--outdir={out}', '--seeds=0', '--frames=4', '--device=cpu', *more)
        result = run(*arguments, command=generate_video.main)
        assert result.exit_code == 0, result.output
        assert (f'{beside} was tuned to latents.zip and is used' in result.output) is not bool(more)
        used.append(json.loads((out / 'generation.jsonl').read_text().splitlines()[-1])['image_network_sha256'])
    assert used == digests
    # What metrics compare is drawn by the same one.
    for videos in (EmbeddedVideos(data), GeneratedVideos(snapshot)):
        assert videos.description['image_generator_weights_sha256'] == module_sha256(G)
    # Codes that were embedded anew are others: the tuned generator is left alone, with a word on it.
    said: list[str] = []
    with dataset:
        found = find_image_generator(
            dataset.image_generator, snapshot=str(data), tuned_to=TunedTo(str(data), lambda: '1' * 64), say=said.append
        )
    assert found == dataset.image_generator['path']
    assert 'tuned to other codes' in said[0]


def test_one_at_a_time(subject: pathlib.Path, tmp_path: pathlib.Path) -> None:
    dest = tmp_path / 'tuned.pkl'
    with lock_target(dest, '--dest'):
        result = run(f'--data={subject / "latents.zip"}', f'--outdir={tmp_path / "runs"}', f'--dest={dest}', *QUICK, '--steps=2')
    assert result.exit_code == 2
    assert f'--dest: {dest} is in use by' in result.output
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == []


def test_mistakes_are_one_sentence(subject: pathlib.Path, tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data = subject / 'latents.zip'
    base = (f'--outdir={tmp_path / "runs"}', f'--dest={tmp_path / "tuned.pkl"}', *QUICK, '--steps=2')
    (tmp_path / 'there.pkl').write_bytes(b'')
    G: Any = load_generator(str(tiny_generator))
    G.synthesis.b16.conv1.weight.mul_(2)
    checkpoints.save_module_pickle(tmp_path / 'other.pkl', {'G_ema': G})
    for folder, count in (('noise', 60), ('short', 20), ('long', 90)):
        (tmp_path / folder).mkdir()
        pictures = np.random.RandomState(0).randint(256, size=(count, 16, 16, 3)).astype(np.uint8)
        for index, picture in enumerate(pictures):
            PIL.Image.fromarray(picture).save(tmp_path / folder / f'{index:03d}.png')
    cases = [
        ((f'--data={tmp_path / "none.zip"}',), 'there is no such file'),
        ((f'--data={data}', '--dest=tuned.safetensors'), 'does not end in .pkl'),
        ((f'--data={data}', f'--dest={tmp_path / "there.pkl"}'), 'already exists'),
        ((f'--data={data}', f'--network={tmp_path / "other.pkl"}'), 'another image generator'),
        ((f'--data={data}', f'--source={tmp_path / "noise"}'), 'no better than the average code'),
        ((f'--data={data}', f'--source={tmp_path / "short"}'), '60 codes, but only 20 frames'),
        ((f'--data={data}', f'--source={tmp_path / "long"}'), 'both must be of the same frames'),
        ((f'--data={data}', f'--keep={tmp_path / "none.zip"}'), 'there is no such file'),
        ((f'--data={data}', '--lambda-pixel=0'), '--lambda-pixel and --lambda-lpips'),
    ]
    for arguments, sentence in cases:
        result = run(*base, *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert sentence in result.output, (arguments, result.output)
        assert 'Traceback' not in result.output
        assert not list((tmp_path / 'runs').glob('*')), arguments
    assert not (tmp_path / 'tuned.pkl').exists()


def test_frames_are_read_again_as_they_were_embedded(tiny_generator: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Pieces of a video, cut out by quads or from the centre, come from where the data set says that they were."""
    from training.footage.clips import fit, open_footage
    from training.footage.face_alignment import cut_out, square_quad

    G: Any = load_generator(str(tiny_generator))
    path = tmp_path / 'walk.mp4'
    random = np.random.RandomState(0)
    with VideoWriter(str(path), fps=10) as writer:
        for _ in range(30):
            writer.write(np.kron(random.randint(256, size=(6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8))
    (recording,) = open_footage(str(path))
    frames = list(recording.frames())
    quads = {'left': np.array([[4, 6], [4, 30], [28, 30], [28, 6]], np.float32), 'center': square_quad(48, 64)}
    with LatentDatasetWriter(
        tmp_path / 'latents.zip',
        image_generator=checkpoints.image_generator_reference(str(tiny_generator), G),
        num_ws=6,
        w_dim=8,
        embedding={'sources': [str(path)], 'fps': None},
    ) as dataset:
        for name, first in (('left', 7), ('center', 20)):
            dataset.add_clip(
                name, np.zeros((10, 6, 8), np.float32), fps=10, source=str(path), first_frame=first, source_size=[64, 48],
                arrays={'quads': np.broadcast_to(quads[name], (10, 4, 2))},
            )  # fmt: skip
    with LatentDataset(tmp_path / 'latents.zip') as opened:
        coded = read_coded_frames(opened, 16)
        thinned = read_coded_frames(opened, 16, max_bytes=10 * 16 * 16 * 3)
    names = [clip.name for clip in opened.clips]
    for index, name in enumerate(names):
        found = coded.chosen(coded.clips == index)
        first = {'left': 7, 'center': 20}[name]
        expected = [cut_out(frame, quads[name], 16) if name == 'left' else fit(frame, 16) for frame in frames[first : first + 10]]
        assert np.array_equal(found.frames, np.stack(expected))
    assert thinned.stride == 2
    assert np.array_equal(thinned.frames, coded.frames[coded.numbers % 2 == 0])
    mask = held_out(coded, 0.2)
    assert np.array_equal(coded.numbers[mask], [8, 9, 8, 9])
    path.unlink()
    with LatentDataset(tmp_path / 'latents.zip') as opened, pytest.raises(InputError, match='source'):
        read_coded_frames(opened, 16)


@pytest.mark.parametrize('name', ['stylegan3-t-32.pkl', 'stylegan2-ada-cond-32.pkl'])
def test_other_architectures_learn_with_and_without_saving_memory(shared: pathlib.Path, name: str) -> None:
    G: Any = load_generator(str(shared / 'checkpoints' / name))
    codes = G.mapping(torch.randn(6, G.z_dim), torch.eye(G.c_dim)[:1].expand(6, -1) if G.c_dim else None)
    codes += 0.1 * torch.randn_like(codes)
    with torch.no_grad():
        frames = images_to_uint8(G.synthesis(codes, noise_mode='const', force_fp32=True) * 0.7)
    coded = CodedFrames(codes.numpy(), np.broadcast_to(frames, (*frames.shape[:3], 3)), np.zeros(6, int), np.arange(6), 1)
    options = generator_tuning.TuningOptions(batch=3, locality_batch=2, lambda_lpips=0)
    kept = np.zeros((0, *coded.codes.shape[1:]), np.float32)

    def bytes_of_one(work: generator_tuning.GeneratorTuning) -> int:
        one = coded.chosen(np.arange(1))
        return peak_bytes(lambda: work._backward(torch.from_numpy(one.codes), work.targets_of(one), (0, 0), 1), work.device)

    losses, peaks = [], []
    for save_memory in (False, True):
        work = generator_tuning.GeneratorTuning(G, coded, kept, None, options, micro_batch=2, save_memory=save_memory)
        one = bytes_of_one(work)
        work.optimizer.zero_grad(set_to_none=True)
        assert [work.pictures_at_once(Budget(int(one * times))) for times in (0.5, 2.5, 99)] == [1, 2, 4]
        peaks.append(one)
        losses.append([work.advance()['footage'] for _ in range(2)])
        assert work.measure(work.generator, coded)['psnr'].mean() > work.measure(G, coded)['psnr'].mean()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert peaks[1] < peaks[0]
    assert tuning_run.evenly(coded, 3).numbers.tolist() == [0, 2, 5]
