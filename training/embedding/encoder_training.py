"""The life of a W+ encoder of one image generator: run folder, ticks, snapshots, going on as if it had never stopped."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
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
from training.commands import option_tree, stop_signals
from training.commands.memory import Budget
from training.commands.progress import progress, report
from training.embedding.code_sampler import CodeSampler
from training.embedding.encoder_loss import EncoderLoss
from training.embedding.encoder_options import EncoderTrainingOptions
from training.footage.clips import open_footage
from training.footage.frame_bank import FrameBank
from training.runs import saving, states
from training.runs.gradients import sum_gradients
from training.runs.ranks import Ranks
from training.runs.run_folder import Presence, RunLog
from training.runs.saving_options import SavingOptions
from training.runs.weight_average import decay_of, update_average
from training.videos.output import image_grid
from training.videos.synthesis import images_to_uint8

OPTIONS_FILE = 'training_options.json'
STATE_FORMAT, STATE_VERSION = 'stylevideogan-encoder-training-state', 1
OLD_STATE_FILE = 'training-state.pt'  # the only state of runs before version 0.3, without a format
# What every state holds, and of which kind.
CONTENT: dict[str, Any] = {
    'encoder': dict, 'average': dict, 'optimizer': dict, 'cur_nimg': int, 'tick': int, 'tick_start_nimg': int,
    'seconds': (int, float), 'rollbacks': int,
}  # fmt: skip

# ----------------------------------------------------------------------------
# Run folders.


def read_options(run_dir: str) -> EncoderTrainingOptions:
    """The options that a run was begun with.

    Raises:
        InputError: The folder is none of such a run.
    """
    return read_record(run_dir)[0]


def read_record(run_dir: str) -> tuple[EncoderTrainingOptions, set[str]]:
    """As `read_options`, with the paths of those options that an older version did not know."""
    path = os.path.join(run_dir, OPTIONS_FILE)
    try:
        with open(path, encoding='utf-8') as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f'{path} cannot be read; give the {OPTIONS_FILE} of a run as it was written') from error
    if isinstance(values, dict):
        values.pop('run_dir', None)
    options = option_tree.from_dict(EncoderTrainingOptions, values, path)
    return options, option_tree.unrecorded(EncoderTrainingOptions, values)


def training_states(run_dir: str) -> list[str]:
    """Paths of the training states in a run folder, the newest first."""
    old = os.path.join(run_dir, OLD_STATE_FILE)
    return states.training_states(run_dir) + ([old] if os.path.isfile(old) else [])


def load_training_state(path: str) -> dict[str, Any]:
    """Read a training state; nothing that the file says is executed.

    Raises:
        InputError: Not such a file, or damaged.
    """
    if os.path.basename(path) != OLD_STATE_FILE:
        return states.read_state(
            path, format_name=STATE_FORMAT, format_version=STATE_VERSION, command='train_encoder.py', content=CONTENT
        )
    state = states.load_plain_archive(path, 'a training state')
    shown = state.get('cur_nimg')
    if not isinstance(shown, int) or not all(isinstance(state.get(key), dict) for key in ('encoder', 'average', 'optimizer')):
        raise InputError(f'{path} is not a training state of train_encoder.py, or it is damaged')
    return {**state, 'tick': -1, 'tick_start_nimg': shown, 'seconds': 0.0, 'rollbacks': 0}


def last_good_state(run_dir: str) -> str | None:
    """The newest training state that can be read."""
    return states.last_good_state(training_states(run_dir), load_training_state)


def snapshot_path(run_dir: str, shown: int) -> str:
    """Where the encoder after so many images is."""
    return os.path.join(run_dir, f'encoder-{shown // 1000:06d}.pkl')


def finished_encoder(run_dir: str) -> str | None:
    """Path of the last encoder of a run that has come to its end; None where it has not."""
    found = training_states(run_dir)
    with contextlib.suppress(InputError):
        shown = load_training_state(found[0])['tick_start_nimg'] if found else -1
        if shown >= read_options(run_dir).total_kimg * 1000 and os.path.isfile(snapshot_path(run_dir, shown)):
            return snapshot_path(run_dir, shown)
    return None


# ----------------------------------------------------------------------------
# The loop.


class EncoderTraining:
    """Training of a W+ encoder; `run()` is the loop.

    A snapshot `encoder-KIMG.pkl` holds `encoder` (the moving average of the weights, a WEncoder),
    `image_generator` (a reference), `version`, `training_options` and `progress`. All random numbers of a step come from
    (seed, step) and are those of the whole batch, of which every rank computes its rows: a run that was interrupted and resumed
    equals one that was not, and one on several ranks equals one on a single rank up to rounding.

    Args:
        options: All options.
        ranks: Of this process.
        run_dir: Where the results go; may be set later, before `run()`.
        resume: Training state to go on from, or None.
        saving_options: When states are saved, and what happens when that fails or the training diverges.
        memory: Bound of what the gradients of images keep.

    Raises:
        InputError: A file cannot be used.
    """

    def __init__(
        self,
        options: EncoderTrainingOptions,
        *,
        ranks: Ranks,
        run_dir: str = '',
        resume: str | None = None,
        saving_options: SavingOptions | None = None,
        memory: Budget | None = None,
    ) -> None:
        self.options, self.ranks, self.run_dir, self.device = options, ranks, run_dir, ranks.device
        self.saving_options = SavingOptions() if saving_options is None else saving_options
        self.say: Callable[[str], None] = print if ranks.is_first else _say_nothing
        self.say('Loading networks...')
        self.image_generator: Any = load_generator(
            options.network, device=str(self.device), trust_pickle=options.trust_pickle, sha256=options.network_sha256
        )
        G = self.image_generator
        lpips = None if options.perceptual == 'none' else load_lpips(options.perceptual, options.lpips_weights).to(self.device)
        self.bank = _load_frames(options, min(int(G.img_resolution), 256), ranks.is_first) if options.data else None
        torch.manual_seed(options.random_seed)
        self.sampler = CodeSampler(G, seed=options.random_seed, **option_tree.to_dict(options.sampler_kwargs))
        encoder = WEncoder(
            num_ws=int(G.num_ws),
            w_dim=int(G.w_dim),
            img_resolution=int(G.img_resolution),
            img_channels=int(G.img_channels),
            **option_tree.to_dict(options.encoder_kwargs),
        )
        encoder.set_code_statistics(self.sampler.w_avg, self.sampler.covariance)
        if options.init is not None:
            _copy_weights(options.init, encoder)
        self.encoder = encoder.to(self.device)
        self.average = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(encoder.parameters(), **option_tree.to_dict(options.optimizer_kwargs))
        self.loss = EncoderLoss(
            G,
            encoder,
            lpips,
            memory=memory,
            rank=ranks.rank,
            num_ranks=ranks.num_ranks,
            **option_tree.to_dict(options.loss_kwargs),
        )
        self.say(f'Encoder parameters: {sum(parameter.numel() for parameter in encoder.parameters()):,}')
        self.pictures = {'samples': self.loss.synthesize(self.sampler.draw(16, _generator(options.random_seed, -1)))}
        if self.bank is not None:
            self.pictures['frames'] = self.bank.evenly(48, int(G.img_channels)).to(self.device)
        self.cur_nimg, self.tick, self.tick_start_nimg = 0, 0, 0
        self.seconds_before, self.rollbacks = 0.0, 0
        self.state_is_lost = False  # the disk did not take the last one
        self.resumed = resume is not None
        if resume is not None:
            self._load_state(resume)
            self.say(f'Resuming at {self.cur_nimg / 1e3:.3f} kimg.')

    @property
    def total_nimg(self) -> int:
        """Images of the whole training."""
        return math.ceil(self.options.total_kimg * 1000)

    def run(self) -> str:
        """Train to the end and return the path of the last snapshot.

        Raises:
            Stopped: A signal came; everything is saved.
            InputError: The training has diverged, its folder is gone, or the disk does not take the encoder.
        """
        self.say(f'Training for {self.options.total_kimg:g} kimg...\n')
        start_time = time.time()
        collector = training_stats.Collector(regex='.*')
        clock = saving.Clock(self.saving_options.checkpoint_minutes)
        presence = Presence(self.run_dir) if self.ranks.is_first else None
        with stop_signals.held(), contextlib.ExitStack() as stack:
            log, bar = None, None
            if self.ranks.is_first:
                log = stack.enter_context(RunLog(self.run_dir, self.cur_nimg / 1e3 if self.resumed else None))
                bar = stack.enter_context(self._progress())
                with stop_signals.at_once(), self._tolerating('the pictures'):
                    self._show_material()
            while self.tick_start_nimg < self.total_nimg:
                tick_time, tick_nimg = time.time(), self.cur_nimg
                while self.cur_nimg < self._tick_end():
                    before = self.cur_nimg
                    stopping = self._step()
                    if bar is not None:
                        bar.update(self.cur_nimg - before)
                    gone = presence is not None and presence.is_gone()
                    stopping, due, gone = self.ranks.agree(stopping, clock.is_due(), gone)
                    if gone:
                        with self.ranks.together():
                            if presence is not None:
                                presence.require()
                    self.seconds = self.seconds_before + time.time() - start_time
                    if stopping:
                        self._save_state()
                        self.say(saving.interrupted(self.state_is_lost))
                        raise stop_signals.Stopped(stop_signals.asked() or signal.SIGTERM)
                    if due and self.cur_nimg < self._tick_end():
                        self._save_state()
                        clock.restart()
                self.seconds = self.seconds_before + time.time() - start_time
                self._end_tick(log, collector, (time.time() - tick_time, self.cur_nimg - tick_nimg))
                clock.restart()
        path = snapshot_path(self.run_dir, self.cur_nimg)
        if self.ranks.is_first and not os.path.isfile(path):  # the disk was full when it was due
            with self._tolerating('the encoder'):
                self._save_snapshot()
        if self.ranks.is_first and not os.path.isfile(path):
            raise InputError(f'{path} could not be written; free some space and give the same command again')
        return path

    def _tick_end(self) -> float:
        return min(self.tick_start_nimg + self.options.kimg_per_tick * 1000, self.total_nimg)

    def _progress(self) -> tqdm[Any]:
        batch = self.options.batch_size
        total = -(-self.total_nimg // batch) * batch
        return progress(total=total, initial=self.cur_nimg, description='encoder', unit='image', every_seconds=30)

    def _tolerating(self, what: str) -> contextlib.AbstractContextManager[None]:
        return saving.tolerating(self.say, what, stop=self.saving_options.on_full == 'stop')

    def _step(self) -> bool:
        """Take one step; returns True where a signal came instead, and nothing has changed."""
        c, G = self.options, self.image_generator
        self._set_learning_rate()
        interrupted = False
        try:
            with stop_signals.at_once():  # a step at 1024x1024 may last longer than a cluster waits
                random_numbers = _generator(c.random_seed, self.cur_nimg, self.rollbacks)
                num_frames = round(c.batch_size * c.frame_fraction) if self.bank is not None else 0
                frames = (
                    self.bank.draw(num_frames, random_numbers, int(G.img_channels)).to(self.device)
                    if self.bank is not None
                    else torch.empty(0, *self.pictures['samples'].shape[1:], device=self.device)
                )
                samples = self.sampler.draw(c.batch_size - num_frames, random_numbers)
                value = self.loss(samples, frames)
                self.optimizer.zero_grad(set_to_none=True)
                value.backward()
        except stop_signals.Stopped:
            interrupted = True
            self.optimizer.zero_grad(set_to_none=True)
            if self.ranks.num_ranks > 1:  # the others wait for the gradients of this one
                for parameter in self.encoder.parameters():
                    parameter.grad = torch.zeros_like(parameter)
        if sum_gradients(self.encoder.parameters(), self.ranks.num_ranks, flag=interrupted):
            return True
        norm = torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), max_norm=1.0)
        if not math.isfinite(float(norm)):
            self._diverged(saving.first_bad_gradient({'encoder': self.encoder}))
            return False
        self.optimizer.step()
        self.cur_nimg += c.batch_size
        half_life = min(c.ema_kimg * 1000, max(self.cur_nimg * 0.1, 1))
        update_average(self.average, self.encoder, decay_of(half_life, c.batch_size))
        return stop_signals.asked() is not None

    def _set_learning_rate(self) -> None:
        """Linear warm-up, then half a cosine down to a hundredth."""
        rise = min((self.cur_nimg + 1) / max(self.options.warmup_kimg * 1000, 1), 1)
        fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(self.cur_nimg / self.total_nimg, 1)))
        for group in self.optimizer.param_groups:
            group['lr'] = self.options.optimizer_kwargs.lr * rise * fall

    def _diverged(self, what: str) -> None:
        """Go back to the last state where that is wanted, or end."""
        step = self.cur_nimg // self.options.batch_size
        sentence = f'the training has diverged: at step {step} ({self.cur_nimg / 1e3:.3f} kimg) {what}'
        state = self.ranks.from_first(last_good_state(self.run_dir) if self.ranks.is_first else None)
        back = self.saving_options.on_nan == 'rollback' and self.rollbacks < saving.MOST_ROLLBACKS
        if not back or state is None:
            raise saving.diverged(sentence, self.run_dir, str(option('lr')), self.saving_options.on_nan)
        rollbacks = self.rollbacks + 1
        self._load_state(state)
        self.rollbacks = rollbacks  # the same random numbers would lead to the same end
        self.say(
            f'Warning: {sentence}; going back to {self.cur_nimg / 1e3:.3f} kimg, and on from there with other random numbers '
            f'({rollbacks} of at most {saving.MOST_ROLLBACKS} times)'
        )

    # End of a tick.

    def _end_tick(self, log: RunLog | None, collector: training_stats.Collector, took: tuple[float, int]) -> None:
        """Statistics and a state; where one is due, also a snapshot and its pictures.

        Args:
            log: None on other ranks than the first.
            collector: Of the statistics.
            took: Seconds and images of this tick, as far as this process has trained it.
        """
        if not saving.is_finite(self.encoder):
            self._diverged(saving.first_bad_weight({'encoder': self.encoder}))
            return
        number = self.tick + 1
        if self.cur_nimg >= self.total_nimg or number % self.options.snapshot_ticks == 0:
            with self.ranks.together():
                if self.ranks.is_first:
                    self._save_last_or_tolerate()
            self._save_state()  # the tick is not counted yet: what a kill takes from the pictures is made again
            if self.ranks.is_first:
                with stop_signals.at_once(), self._tolerating('the pictures'):
                    self._show_reconstructions()
            self.ranks.barrier()
        seconds, images = took
        training_stats.report0('Progress/kimg', self.cur_nimg / 1e3)
        training_stats.report0('Progress/tick', number)
        training_stats.report0('Timing/sec_per_tick', seconds)
        training_stats.report0('Timing/sec_per_kimg', seconds / max(images, 1) * 1e3)
        training_stats.report0('Timing/total_sec', self.seconds)
        training_stats.report0('Resources/cpu_mem_gb', psutil.Process().memory_info().rss / 2**30)
        collector.update()
        if log is not None:
            tqdm.write(_tick_line(collector, number, self.cur_nimg, self.seconds), file=sys.stdout)  # above the progress
            log.write(collector.as_dict(), self.cur_nimg // 1000)
        self.tick, self.tick_start_nimg = number, self.cur_nimg
        self._save_state()

    def _save_last_or_tolerate(self) -> None:
        """Write the snapshot; a disk that does not take it ends a training only with the last one, which is what it is for."""
        written = False
        with self._tolerating('the encoder'):
            self._save_snapshot()
            written = True
        if not written and self.cur_nimg >= self.total_nimg:
            self._save_state()
            path = snapshot_path(self.run_dir, self.cur_nimg)
            raise InputError(f'{path} could not be written; free some space and give the same command again')

    def _show_material(self) -> None:
        for name, images in self.pictures.items():
            path = os.path.join(self.run_dir, 'reals.png' if name == 'frames' else 'samples.png')
            if not os.path.isfile(path):
                _save_grid([images], path)

    def _show_reconstructions(self) -> None:
        for name, images in self.pictures.items():
            result = self.loss.evaluate(self.average, images)
            for measure in ('psnr', 'lpips'):
                if measure in result:
                    training_stats.report(f'Quality/{name}/{measure}', result[measure])
            _save_grid([images, result['images']], os.path.join(self.run_dir, f'recon-{name}-{self.cur_nimg // 1000:06d}.png'))

    def _save_snapshot(self) -> None:
        save_module_pickle(
            snapshot_path(self.run_dir, self.cur_nimg),
            {
                'encoder': copy.deepcopy(self.average).cpu(),
                'image_generator': image_generator_reference(self.options.network, self.image_generator),
                'version': version.describe(),
                'training_options': {**self.options.recorded(), 'run_dir': self.run_dir},
                'progress': {'cur_nimg': self.cur_nimg, 'kimg': self.cur_nimg / 1e3},
            },
        )

    # Going on later.

    def _save_state(self) -> None:
        if not self.ranks.is_first:
            return
        state = {
            'format': STATE_FORMAT,
            'format_version': STATE_VERSION,
            'encoder': self.encoder.state_dict(),
            'average': self.average.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'cur_nimg': self.cur_nimg,
            'tick': self.tick,
            'tick_start_nimg': self.tick_start_nimg,
            'seconds': self.seconds,
            'rollbacks': self.rollbacks,
        }
        self.state_is_lost = True
        with self._tolerating('the training state'):
            states.write_state(
                states.state_path(self.run_dir, self.cur_nimg),
                state,
                keep_every=self.saving_options.keep_states,
                older=training_states(self.run_dir),
            )
            self.state_is_lost = False

    def _load_state(self, path: str) -> None:
        state = load_training_state(path)
        try:
            self.encoder.load_state_dict(state['encoder'])
            self.average.load_state_dict(state['average'])
            self.optimizer.load_state_dict(state['optimizer'])
        except states.MISFITS as error:
            raise InputError(
                f'{path} belongs to an encoder of another shape, or it is damaged; start over with {option("fresh", True)}'
            ) from error
        self.cur_nimg, self.tick_start_nimg = state['cur_nimg'], state['tick_start_nimg']
        old = self.cur_nimg // max(round(self.options.kimg_per_tick * 1000), 1)
        self.tick = state['tick'] if state['tick'] >= 0 else old
        self.seconds_before = self.seconds = float(state['seconds'])
        self.rollbacks = state['rollbacks']


def _say_nothing(text: str) -> None:
    """What ranks other than the first say."""


# ----------------------------------------------------------------------------
# Parts of the loop.


def _load_frames(options: EncoderTrainingOptions, resolution: int, says: bool) -> FrameBank:
    keep, skip = options.damaged == 'keep', options.damaged == 'skip'
    # What there is to say was said when the options were checked.
    clips = open_footage(options.data, keep_damaged=keep, skip_damaged=skip, say=_say_nothing)
    expected = [clip.expected_frames for clip in clips]
    total = None if any(count is None for count in expected) else sum(count or 0 for count in expected)
    on_damage = (report if says else _say_nothing) if skip else None
    with contextlib.ExitStack() as stack:
        on_frame = stack.enter_context(progress(total=total, description='reading frames')).update if says else None
        bank = FrameBank(clips, resolution, max_bytes=options.max_frame_bytes, on_frame=on_frame, on_damage=on_damage)
    kept = '' if bank.stride == 1 else f', every {bank.stride}th one kept'
    if says:
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


def _generator(seed: int, step: int, rollbacks: int = 0) -> torch.Generator:
    """Random numbers of one step: they depend on nothing that happened before, but for how often it was gone back."""
    mixed = np.random.SeedSequence([seed, step + 1, *([rollbacks] if rollbacks else [])]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 ^ int(mixed[1]))


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
    with replacing(path) as temporary:
        PIL.Image.fromarray(grid if grid.shape[2] == 3 else grid[:, :, 0]).save(temporary, format='PNG')
