"""Training of a W+ encoder for one image generator: run folder, loop, snapshots, exact resumption."""

import contextlib
import copy
import json
import math
import os
import pickle
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import psutil
import torch
from tqdm import tqdm

import dnnlib
from networks.checkpoints import image_generator_reference, load_encoder, load_generator, replacing, save_module_pickle
from networks.checkpoints.detectors import load_lpips
from networks.errors import InputError, option
from networks.w_encoder import WEncoder
from stylevideogan import version
from torch_utils import training_stats
from training.commands import option_tree
from training.commands.command_line import progress, report
from training.commands.memory import Budget
from training.embedding.code_sampler import CodeSampler
from training.embedding.encoder_loss import EncoderLoss
from training.embedding.encoder_options import EncoderTrainingOptions
from training.footage.clips import open_footage
from training.footage.frame_bank import FrameBank
from training.runs.run_folder import RunLog, run_numbers
from training.runs.weight_average import decay_of, update_average
from training.videos.output import image_grid
from training.videos.synthesis import images_to_uint8

STATE_FILE = 'training-state.pt'

# ----------------------------------------------------------------------------
# Run folders.


def find_unfinished_run(outdir: str, options: dict[str, Any]) -> str | None:
    """The newest run folder with equal options whose training is not at its end, None if there is none."""
    numbers = run_numbers(outdir)
    for name in sorted(numbers, key=lambda name: numbers[name], reverse=True):
        folder = os.path.join(outdir, name)
        # A folder that is not such a run, or a damaged state, is none to go on with.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError):
            with open(os.path.join(folder, 'training_options.json'), encoding='utf-8') as file:
                before = json.load(file)
            before.pop('run_dir', None)
            wanted = {key: value for key, value in json.loads(json.dumps(options)).items() if key != 'run_dir'}
            if before == wanted and os.path.isfile(os.path.join(folder, STATE_FILE)):
                state = torch.load(os.path.join(folder, STATE_FILE), map_location='cpu', weights_only=True)
                return folder if state['cur_nimg'] < options['total_kimg'] * 1000 else None
    return None


# ----------------------------------------------------------------------------
# The loop.


def train_encoder(
    options: EncoderTrainingOptions,
    *,
    run_dir: str,  # Where the results go, with a training_options.json.
    device: torch.device | str = 'cpu',  # Where to train.
    resume: bool = False,  # Go on in run_dir.
    memory: Budget | None = None,  # Bound of what the gradients of images keep.
) -> str:
    """Train a W+ encoder and return the path of its last snapshot.

    A snapshot `encoder-KIMG.pkl` holds `encoder` (the moving average of the weights, a WEncoder),
    `image_generator` (a reference), `version`, `training_options` and `progress`. All random numbers of a step come from
    (seed, step), so a run that was interrupted and resumed equals one that was not.

    Raises:
        InputError: A file cannot be used, or the training diverged.
    """
    start_time = time.time()
    device = torch.device(device)
    with open(os.path.join(run_dir, 'training_options.json'), encoding='utf-8') as file:
        recorded = json.load(file)

    print('Loading networks...')
    image_generator: Any = load_generator(
        options.network, device=str(device), trust_pickle=options.trust_pickle, sha256=options.network_sha256
    )
    lpips = None if options.perceptual == 'none' else load_lpips(options.perceptual, options.lpips_weights).to(device)
    resolution = min(int(image_generator.img_resolution), 256)
    bank = _load_frames(options.data, resolution, options.max_frame_bytes, options.damaged) if options.data else None
    torch.manual_seed(options.random_seed)
    sampler = CodeSampler(image_generator, seed=options.random_seed, **option_tree.to_dict(options.sampler_kwargs))
    encoder = WEncoder(
        num_ws=int(image_generator.num_ws),
        w_dim=int(image_generator.w_dim),
        img_resolution=int(image_generator.img_resolution),
        img_channels=int(image_generator.img_channels),
        **option_tree.to_dict(options.encoder_kwargs),
    )
    encoder.set_code_statistics(sampler.w_avg, sampler.covariance)
    if options.init is not None:
        _copy_weights(options.init, encoder)
    encoder.to(device)
    average = copy.deepcopy(encoder).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(encoder.parameters(), **option_tree.to_dict(options.optimizer_kwargs))
    loss = EncoderLoss(image_generator, encoder, lpips, memory=memory, **option_tree.to_dict(options.loss_kwargs))
    print(f'Encoder parameters: {sum(parameter.numel() for parameter in encoder.parameters()):,}')

    cur_nimg = 0
    if resume:
        cur_nimg = _load_state(run_dir, encoder, average, optimizer)
        print(f'Resuming at {cur_nimg / 1e3:.3f} kimg.')

    pictures = {'samples': loss.synthesize(sampler.draw(16, _generator(options.random_seed, -1)))}
    if bank is not None:
        pictures['frames'] = bank.evenly(48, int(image_generator.img_channels)).to(device)
    if not resume:
        for name, images in pictures.items():
            _save_grid([images], os.path.join(run_dir, 'reals.png' if name == 'frames' else 'samples.png'))

    num_frames = round(options.batch_size * options.frame_fraction) if bank is not None else 0
    total_nimg = math.ceil(options.total_kimg * 1000)
    collector = training_stats.Collector(regex='.*')
    tick_start_time, tick_start_nimg = time.time(), cur_nimg
    tick = cur_nimg // max(round(options.kimg_per_tick * 1000), 1)
    snapshot = ''
    print(f'Training for {options.total_kimg:g} kimg...\n')
    with (
        RunLog(run_dir, cur_nimg / 1e3 if resume else None) as log,
        progress(
            total=-(-total_nimg // options.batch_size) * options.batch_size,
            initial=cur_nimg,
            description='encoder',
            unit='image',
            every_seconds=30,
        ) as bar,
    ):
        while True:
            done = cur_nimg >= total_nimg
            if not done:
                random_numbers = _generator(options.random_seed, cur_nimg)
                _set_learning_rate(optimizer, options.optimizer_kwargs.lr, cur_nimg, total_nimg, options.warmup_kimg * 1000)
                frames = (
                    bank.draw(num_frames, random_numbers, int(image_generator.img_channels)).to(device)
                    if bank is not None
                    else torch.empty(0, *pictures['samples'].shape[1:], device=device)
                )
                samples = sampler.draw(options.batch_size - num_frames, random_numbers)
                value = loss(samples, frames)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                norm = torch.nn.utils.clip_grad_norm_(encoder.parameters(), max_norm=1.0)
                if not math.isfinite(float(norm)):
                    raise InputError(
                        f'the training diverged at {cur_nimg / 1e3:.3f} kimg (a gradient is not finite); begin again '
                        f'with a smaller {option("lr")}'
                    )
                optimizer.step()
                cur_nimg += options.batch_size
                half_life = min(options.ema_kimg * 1000, max(cur_nimg * 0.1, 1))
                update_average(average, encoder, decay_of(half_life, options.batch_size))
                bar.update(options.batch_size)
                if cur_nimg < min(tick_start_nimg + options.kimg_per_tick * 1000, total_nimg):
                    continue

            if cur_nimg > tick_start_nimg:
                tick += 1
                done = cur_nimg >= total_nimg
                is_snapshot = done or tick % options.snapshot_ticks == 0
                if is_snapshot:
                    for name, images in pictures.items():
                        result = loss.evaluate(average, images)
                        for measure in ('psnr', 'lpips'):
                            if measure in result:
                                training_stats.report(f'Quality/{name}/{measure}', result[measure])
                        file_name = f'recon-{name}-{cur_nimg // 1000:06d}.png'
                        _save_grid([images, result['images']], os.path.join(run_dir, file_name))
                now = time.time()
                training_stats.report('Progress/kimg', cur_nimg / 1e3)
                training_stats.report('Progress/tick', tick)
                training_stats.report('Timing/sec_per_tick', now - tick_start_time)
                training_stats.report('Timing/sec_per_kimg', (now - tick_start_time) / (cur_nimg - tick_start_nimg) * 1e3)
                training_stats.report('Timing/total_sec', now - start_time)
                training_stats.report('Resources/cpu_mem_gb', psutil.Process().memory_info().rss / 2**30)
                collector.update()
                tqdm.write(_tick_line(collector, tick, cur_nimg, now - start_time), file=sys.stdout)  # above the progress
                log.write(collector.as_dict(), cur_nimg // 1000)
                if is_snapshot:
                    snapshot = os.path.join(run_dir, f'encoder-{cur_nimg // 1000:06d}.pkl')
                    save_module_pickle(
                        snapshot,
                        {
                            'encoder': copy.deepcopy(average).cpu(),
                            'image_generator': image_generator_reference(options.network, image_generator),
                            'version': version.describe(),
                            'training_options': recorded,
                            'progress': {'cur_nimg': cur_nimg, 'kimg': cur_nimg / 1e3},
                        },
                    )
                _save_state(run_dir, encoder, average, optimizer, cur_nimg)
                tick_start_time, tick_start_nimg = time.time(), cur_nimg
            if done:
                break
    return snapshot


# ----------------------------------------------------------------------------
# Parts of the loop.


def _load_frames(data: Sequence[str], resolution: int, max_bytes: int, damaged: str) -> FrameBank:
    # What there is to say was said when the options were checked.
    clips = open_footage(data, keep_damaged=damaged == 'keep', skip_damaged=damaged == 'skip', say=lambda sentence: None)
    expected = [clip.expected_frames for clip in clips]
    total = None if any(count is None for count in expected) else sum(count or 0 for count in expected)
    with progress(total=total, description='reading frames') as bar:
        on_damage = report if damaged == 'skip' else None
        bank = FrameBank(clips, resolution, max_bytes=max_bytes, on_frame=bar.update, on_damage=on_damage)
    kept = '' if bank.stride == 1 else f', every {bank.stride}th one kept'
    print(f'Footage: {len(clips)} clips, {bank.num_read} frames{kept}.')
    return bank


def _copy_weights(path: str, encoder: WEncoder) -> None:
    try:
        encoder.load_state_dict(load_encoder(path).state_dict())
    except RuntimeError as error:
        raise InputError(
            f'{path} cannot be started from: its encoder has another size than the one to train (generator, {option("cbase")}, '
            f'{option("cmax")} and {option("hidden")} decide it)'
        ) from error


def _generator(seed: int, step: int) -> torch.Generator:
    """Random numbers of one step: they depend on nothing that happened before."""
    mixed = np.random.SeedSequence([seed, step + 1]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 ^ int(mixed[1]))


def _set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, cur_nimg: int, total_nimg: int, warmup_nimg: float) -> None:
    """Linear warm-up, then half a cosine down to a hundredth."""
    rise = min((cur_nimg + 1) / max(warmup_nimg, 1), 1)
    fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(cur_nimg / total_nimg, 1)))
    for group in optimizer.param_groups:
        group['lr'] = peak * rise * fall


def _tick_line(collector: training_stats.Collector, tick: int, cur_nimg: int, seconds: float) -> str:
    fields = [
        f'tick {tick:<5d}',
        f'kimg {cur_nimg / 1e3:<9.1f}',
        f'time {dnnlib.util.format_time(seconds):<12s}',
        f'sec/tick {collector["Timing/sec_per_tick"]:<7.1f}',
        f'sec/kimg {collector["Timing/sec_per_kimg"]:<7.2f}',
        f'cpumem {collector["Resources/cpu_mem_gb"]:<6.2f}',
        f'loss {collector["Loss/encoder/loss"]:<7.4f}',
    ]
    for name in ('samples', 'frames'):
        if collector.num(f'Quality/{name}/psnr'):
            fields.append(f'psnr({name}) {collector[f"Quality/{name}/psnr"]:<6.2f}')
    return ' '.join(fields).rstrip()


def _save_grid(rows: list[torch.Tensor], path: str) -> None:
    """Save images as a picture; several batches stand below each other, pair by pair, eight columns."""
    frames = [images_to_uint8(images) for images in rows]
    columns = min(8, len(frames[0]))
    lines = [batch[start : start + columns] for start in range(0, len(frames[0]), columns) for batch in frames]
    full = [np.concatenate([line, np.zeros((columns - len(line), *line.shape[1:]), np.uint8)]) for line in lines]
    grid = image_grid(np.concatenate(full), columns)
    PIL.Image.fromarray(grid if grid.shape[2] == 3 else grid[:, :, 0]).save(path)


# ----------------------------------------------------------------------------
# Training state.


def _save_state(
    run_dir: str, encoder: torch.nn.Module, average: torch.nn.Module, optimizer: torch.optim.Optimizer, cur_nimg: int
) -> None:
    state = {
        'encoder': encoder.state_dict(),
        'average': average.state_dict(),
        'optimizer': optimizer.state_dict(),
        'cur_nimg': cur_nimg,
    }
    with replacing(os.path.join(run_dir, STATE_FILE)) as temporary:
        torch.save(state, temporary)


def _load_state(run_dir: str, encoder: torch.nn.Module, average: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    path = os.path.join(run_dir, STATE_FILE)
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
        encoder.load_state_dict(state['encoder'])
        average.load_state_dict(state['average'])
        optimizer.load_state_dict(state['optimizer'])
        return int(state['cur_nimg'])
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise InputError(f'{path} cannot be resumed from, start over with {option("fresh", True)}: {reason}') from error
