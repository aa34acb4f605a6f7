"""The life of a temporal model: data in, ticks, pictures, snapshots, metrics, and going on after an interruption."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import torch

import dnnlib
from networks import checkpoints
from networks.checkpoints.tuned_generators import share_space
from networks.errors import InputError, option
from networks.image_generator import ImageGenerator
from networks.latent_generator import FITTED_AT_THE_END
from torch_utils import training_stats
from training import best_snapshot, temporal_snapshot
from training.commands import option_tree, stop_signals
from training.latent_space import LatentSpace, fit_latent_space
from training.latents.dataset import LatentDataset
from training.real_windows import Windows
from training.runs import saving, step_threads
from training.runs.ranks import Ranks
from training.runs.run_folder import Presence, RunLog
from training.runs.saving_options import SavingOptions
from training.stationarity import LONGEST_BURN_IN, OLD
from training.temporal_options import TrainingOptions
from training.temporal_pictures import TRAJECTORY_SECONDS, Preview, generate_codes, generate_trajectories, plot_trajectories
from training.temporal_trainer import TemporalTrainer

HURRY_SECONDS = 4.0  # for the snapshot of a training that was asked to stop

MetricFunction = Callable[..., dict[str, Any]]


def open_data(
    data: str, image_network: str, device: torch.device, *, trust_pickle: bool, force: bool
) -> tuple[LatentDataset, ImageGenerator, dict[str, Any]]:
    """The latent data set, its image generator and the reference to it, checked against each other.

    Raises:
        InputError: The codes are another generator's.
    """
    dataset = LatentDataset(data)
    image_generator = checkpoints.load_generator(image_network, device=device, trust_pickle=trust_pickle)
    reference = checkpoints.image_generator_reference(image_network, image_generator)
    if (image_generator.num_ws, image_generator.w_dim) != (dataset.num_ws, dataset.w_dim):
        raise InputError(
            f'{data} holds codes of {dataset.num_ws} x {dataset.w_dim}, but {image_network} takes '
            f'{image_generator.num_ws} x {image_generator.w_dim}; give the generator that they were embedded for'
        )
    recorded = dataset.image_generator.get('sha256')
    if recorded and not share_space(dataset.image_generator, reference) and not force:
        raise InputError(
            f'{data} was embedded with another image generator (sha256 {recorded[:12]}...) than {image_network} '
            f'(sha256 {reference["sha256"][:12]}...); give that one, or add {option("force_network", True)} if both share one '
            'W+ space'
        )
    return dataset, image_generator, reference


class TemporalTraining:
    """Everything between the options and the finished run; `run()` is the loop.

    Args:
        run_dir: Run folder, which exists.
        options: All options, with `network` settled; they go into training_options.json and into snapshots.
        device: Where to train.
        rank, num_ranks: Of torch.distributed.
        resume: Training state to go on from, or None.
        saving_options: When states are saved, and what happens when that fails or the training diverges.
        calc_metric: Computes one metric of a snapshot; None where no metrics are wanted.
    """

    def __init__(
        self,
        *,
        run_dir: str,
        options: TrainingOptions,
        device: torch.device,
        rank: int = 0,
        num_ranks: int = 1,
        resume: str | None = None,
        calc_metric: MetricFunction | None = None,
        saving_options: SavingOptions | None = None,
    ) -> None:
        self.run_dir, self.options, self.device = run_dir, options, device
        self.rank, self.num_ranks = rank, num_ranks
        self.calc_metric = calc_metric
        self.saving_options = SavingOptions() if saving_options is None else saving_options
        self.say: Callable[[str], None] = print if rank == 0 else (lambda text: None)
        c = self.options
        self.say('Loading latents...')
        self.dataset, self.image_generator, self.reference = open_data(
            c.data, str(c.network), device, trust_pickle=c.trust_pickle, force=c.force_network
        )
        self.data = temporal_snapshot.describe_dataset(self.dataset)
        self.say(f'Num clips:   {len(self.dataset.clips)}')
        self.say(
            f'Num frames:  {self.data["num_frames"]} ({self.data["num_frames"] / self.dataset.fps:.1f} s at '
            f'{self.dataset.fps:g} fps)'
        )
        self.say(f'Code shape:  [{self.dataset.num_ws}, {self.dataset.w_dim}]')
        self.space: LatentSpace = fit_latent_space(self.dataset, c.latent_space)
        self.windows = Windows(self.dataset, self.space, c.window, device, c.settings.strides)
        spacings = ' and '.join(map(str, self.windows.strides))
        self.say(f'Num windows: {len(self.windows)} of {c.window} frames, at {spacings} frames from each other')
        wanted = self.windows.suited.strides if c.settings.strides is None else c.settings.strides
        if len(self.windows.strides) < len(wanted):
            self.say(f'The footage is too short for other spacings of {",".join(map(str, wanted))}')
        if self.windows.short_clips:
            self.say(f'Left out, shorter than {self.windows.span} frames: {", ".join(self.windows.short_clips)}')
        rates = {clip.fps for clip in self.dataset.clips}
        if len(rates) > 1:
            self.say(
                f'Clips have different rates ({", ".join(f"{r:g}" for r in sorted(rates))} fps); the model learns frames, '
                'so the same motion has several speeds'
            )
        self.say('Constructing networks...')
        shape = {'num_ws': self.dataset.num_ws, 'w_dim': self.dataset.w_dim}
        self.trainer = TemporalTrainer(
            G_kwargs={**shape, **option_tree.to_dict(c.G_kwargs)},
            C_kwargs=option_tree.to_dict(c.C_kwargs),
            space=self.space,
            windows=self.windows,
            settings=c.settings,
            total_kimg=c.total_kimg,
            seed=c.seed,
            rank=rank,
            num_ranks=num_ranks,
            device=device,
        )
        self._compare_random_numbers()
        for name, module in (('G', self.trainer.G), ('C', self.trainer.critics)):
            count = sum(parameter.numel() for parameter in module.parameters())
            self.say(f'{name}: {count:,} parameters')
        self.say(f'Coordinates: {self.space.num_coordinates}, {self.space.explained:.2%} of the variance of the codes')
        self.finished = self.trainer.G_ema  # what snapshots, pictures and metrics show; made anew at every snapshot
        self.tick, self.tick_start_frames, self.seconds_before = 0, 0, 0.0
        self.seconds = 0.0
        self.rollbacks = 0
        self.step_threads: int | None = None  # None: as many as PyTorch takes
        self.has_state = resume is not None
        self.state_is_lost = False  # the disk did not take the last one
        self.misses_snapshot = self.gave_up_look = False
        self.resumed = resume is not None
        if resume is not None:
            self._resume(resume)
        elif c.resume_pkl is not None:
            self._start_from_weights(c.resume_pkl)

    def _compare_random_numbers(self) -> None:
        """Ranks draw the same random numbers, which GPUs of different kinds do not."""
        drawn = torch.randn(10_000, generator=torch.Generator(self.device).manual_seed(0), device=self.device)
        sums = Ranks(self.rank, self.num_ranks, self.device).gather(float(drawn.sum()))
        if len(set(sums)) > 1:
            other = next(rank for rank, value in enumerate(sums) if value != sums[0])
            raise InputError(
                f'rank {other} draws other random numbers than rank 0, as GPUs of different kinds do; use GPUs of one kind'
            )

    def _resume(self, path: str) -> None:
        self.say(f'Resuming from {path}')
        state = temporal_snapshot.load_training_state(path)
        if state['data_sha256'] != self.data['sha256']:
            raise InputError(
                f'{path} was trained on other latents than {self.options.data}; to go on, give the data set that '
                'it was begun with'
            )
        ranks = state['ranks']
        if len(ranks) > 1:
            self.say('The state is of a version whose ranks drew random numbers of their own: the run goes on with other ones')
        try:
            self.trainer.load_state_dict(state['trainer'], self.trainer.merge_rank_states(ranks))
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f'{path} belongs to networks of another shape; resume with the options of its run') from error
        self.tick, self.tick_start_frames = state['tick'], state['tick_start_frames']
        self.seconds_before = state['seconds']
        if isinstance(state.get('threads'), int) and state['threads'] > 0 and step_threads.is_open():
            self.step_threads = min(state['threads'], torch.get_num_threads())

    def _choose_threads(self) -> None:
        """Measure the first steps, which are then taken once more; a resumed run has the number that it began with."""
        if self.step_threads is None and self.device.type == 'cpu' and self.num_ranks == 1 and step_threads.is_open():
            trainer, state = self.trainer, copy.deepcopy(self.trainer.state_dict())
            choice = step_threads.choose(
                trainer.step,
                lambda: trainer.load_state_dict(copy.deepcopy(state), copy.deepcopy(state)),
                lambda: [*trainer.G.parameters(), *trainer.critics.parameters(), *trainer.G_ema.parameters()],
            )
            self.step_threads = choice.threads
            self.say(f'Threads:     {choice.threads} for a step, of {torch.get_num_threads()}: {choice.reason}')

    def _start_from_weights(self, path: str) -> None:
        self.say(f'Starting from the weights of {path}')
        snapshot = checkpoints.load_snapshot(path, trust_pickle=self.options.trust_pickle)
        critics = [f'C_spacing{stride}' if stride != self.windows.strides[0] else 'C' for stride in self.windows.strides]
        modules = {'G': self.trainer.G, 'G_ema': self.trainer.G_ema, **dict(zip(critics, self.trainer.critics, strict=True))}
        for name, module in modules.items():
            try:
                weights = snapshot[name].state_dict()
                kept = {key: value for key, value in weights.items() if not key.startswith(FITTED_AT_THE_END)}
                module.load_state_dict(kept)
            except (RuntimeError, KeyError, AttributeError) as error:
                raise InputError(
                    f'{path} cannot be started from: its {name} has another shape than the one to train; give the options of its '
                    f'run ({option("options", "training_options.json")}), and a data set of the same number of components'
                ) from error

    def run(self) -> bool:
        """Train to the end; returns False when it was interrupted (state and snapshot are saved then, too).

        Raises:
            Stopped: A signal came while pictures or metrics were made, after everything was saved.
            InputError: The training has diverged, or its folder is gone.
            OSError: Nothing can be saved, and that is to end the training (`SavingOptions.on_full`).
        """
        c = self.options
        self._choose_threads()  # before statistics are collected
        log = RunLog(self.run_dir, self.trainer.num_frames_shown / 1000 if self.resumed else None) if self.rank == 0 else None
        collector = training_stats.Collector(regex='.*')
        presence = Presence(self.run_dir) if self.rank == 0 else None
        with stop_signals.held():
            with stop_signals.at_once():
                preview = self._start_pictures(log)
                self._catch_up(preview, log)
            self.say(f'Training for {c.total_kimg:g} kimg (thousands of frames shown to the critic)...')
            clock = saving.Clock(self.saving_options.checkpoint_minutes)
            start = tick_start = time.time()
            maintenance = 0.0
            done = self.trainer.num_frames_shown >= c.total_kimg * 1000
            while not done:
                with step_threads.using(self.step_threads):
                    self.trainer.step()
                shown = self.trainer.num_frames_shown
                stopping, saving_due = self._agree(stop_signals.asked() is not None, clock.is_due())
                done = stopping or shown >= c.total_kimg * 1000
                tick_ends = done or shown >= self.tick_start_frames + c.kimg_per_tick * 1000
                if not (tick_ends or saving_due or self.trainer.num_steps % saving.STEPS_BETWEEN_CHECKS == 0):
                    continue
                now = time.time()
                self.seconds = self.seconds_before + now - start
                self._require_folder(presence)
                if not self.trainer.is_finite():
                    self._diverged()
                    done = False
                    continue
                if not tick_ends:
                    if saving_due:
                        self._save_state(shown)
                        clock.restart()
                    continue

                # End of a tick: a line, then what is due.
                tick_end = now
                self._report_progress(shown, tick_end - tick_start, maintenance)
                # An interrupted tick is not counted: the resumed run ends it, with the same steps as one never stopped.
                if not stopping or shown >= self.tick_start_frames + c.kimg_per_tick * 1000:
                    self.tick, self.tick_start_frames = self.tick + 1, shown
                    collector.update()
                    if log is not None:
                        log.write(collector.as_dict(), shown // 1000)
                if done or self._needs_snapshot(shown):
                    saved = self._save(shown, hurry=stopping)
                    clock.restart()
                    if not stopping and not saved and done:
                        self._miss_last_snapshot(shown)
                    if not stopping and saved:
                        try:
                            with stop_signals.at_once():
                                self._look_at(preview, log, shown)
                        except stop_signals.Stopped:
                            self.say(saving.interrupted(self.state_is_lost))
                            raise
                elif saving_due or (not self.has_state and self.saving_options.checkpoint_minutes > 0):
                    self._save_state(shown)  # the first one soon: a kill before it would lose everything
                    clock.restart()
                tick_start = time.time()
                maintenance = tick_start - tick_end
        if log is not None:
            log.close()
        interrupted = self.trainer.num_frames_shown < c.total_kimg * 1000 or self.misses_snapshot
        self.say(saving.interrupted(self.state_is_lost) if interrupted else 'Done.')
        return not interrupted

    def _require_folder(self, presence: Presence | None) -> None:
        """End all ranks where the run folder is gone; `presence` is None on other ranks than the first."""
        if self._agree(presence is not None and presence.is_gone())[0]:
            with Ranks(self.rank, self.num_ranks, self.device).together():
                if presence is not None:
                    presence.require()

    def _agree(self, *asked: bool) -> list[bool]:
        return Ranks(self.rank, self.num_ranks, self.device).agree(*asked)

    def _diverged(self) -> None:
        """Say what is no longer a number; go back to the last state where that is wanted, or end."""
        step, shown = self.trainer.num_steps, self.trainer.num_frames_shown
        what = saving.first_bad_weight({'G': self.trainer.G, 'C': self.trainer.critics})
        sentence = f'the training has diverged: after step {step} ({shown / 1000:.1f} kimg) {what}'
        states = [temporal_snapshot.latest_training_state(self.run_dir) if self.rank == 0 else None]
        if self.num_ranks > 1:
            torch.distributed.broadcast_object_list(states, src=0, device=self.device)
        back = self.saving_options.on_nan == 'rollback' and states[0] is not None and self.rollbacks < saving.MOST_ROLLBACKS
        if not back or states[0] is None:
            raise saving.diverged(sentence, self.run_dir, f'{option("glr")} and {option("clr")}', self.saving_options.on_nan)
        self.rollbacks += 1
        self._resume(states[0])
        # The same random numbers would lead to the same end.
        self.trainer.random.manual_seed(hash((self.options.seed, 0, step, self.rollbacks)) % 2**63)
        self.say(
            f'Warning: {sentence}; going back to {self.trainer.num_frames_shown / 1000:.1f} kimg, and on from there with other '
            f'random numbers ({self.rollbacks} of at most {saving.MOST_ROLLBACKS} times)'
        )

    def _catch_up(self, preview: Preview | None, log: RunLog | None) -> None:
        """Make what is missing of the snapshot at which an earlier run ended: itself, its pictures, its metrics."""
        shown = self.trainer.num_frames_shown
        if not self.resumed or not self.tick or shown != self.tick_start_frames:
            return  # the state is no end of a tick
        missing = [self._is_missing(shown)]
        if self.num_ranks > 1:
            torch.distributed.broadcast_object_list(missing, src=0, device=self.device)
        snapshot, pictures, metrics = missing[0]
        if snapshot or pictures or metrics:
            self.finished = self.trainer.finished()
        with Ranks(self.rank, self.num_ranks, self.device).together(), saving.tolerating(self.say, 'the snapshot', stop=True):
            if snapshot and self.rank == 0:
                self._save_snapshot(shown)
        if pictures or metrics:
            self._look_at(preview if pictures else None, log, shown, metrics)
        if self.rank == 0:
            with saving.tolerating(self.say, 'which snapshot is the best', stop=False):
                for name in self.options.metrics:
                    if not best_snapshot.is_marked(self.run_dir, name):
                        best_snapshot.mark_best(self.run_dir, name)

    def _is_missing(self, shown: int) -> tuple[bool, bool, list[str]]:
        snapshot = f'network-snapshot-{shown // 1000:06d}.pkl'
        is_missing = not os.path.isfile(self._path(snapshot))
        if self.rank != 0 or (is_missing and not self._needs_snapshot(shown)):
            return False, False, []
        measured = {name: best_snapshot.read_values(self.run_dir, name, all=True) for name in self.options.metrics}
        metrics = [name for name, values in measured.items() if snapshot not in values]
        return is_missing, not os.path.isfile(self._path(f'fakes{shown // 1000:06d}.mp4')), metrics

    def _needs_snapshot(self, shown: int) -> bool:
        """Whether there should be a snapshot at the end of this tick."""
        every = self.options.snapshot_ticks
        return shown >= self.options.total_kimg * 1000 or (every > 0 and self.tick % every == 0)

    def _look_at(self, preview: Preview | None, log: RunLog | None, shown: int, metrics: Sequence[str] | None = None) -> None:
        """Pictures and metrics of the snapshot just saved; a disk that takes them not ends nothing."""
        with saving.tolerating(self.say, 'the pictures', stop=self.saving_options.on_full == 'stop'):
            self._draw(preview, log, shown)
        values = self._measure(shown, self.options.metrics if metrics is None else metrics)
        if log is not None:
            log.write_metrics(values, shown // 1000)

    def _report_progress(self, shown: int, seconds: float, maintenance: float) -> None:
        total = self.options.total_kimg * 1000
        frames = max(shown - self.tick_start_frames, 1)
        left = self.seconds / max(shown, 1) * max(total - shown, 0)
        report = training_stats.report0
        memory = psutil.Process(os.getpid()).memory_info().rss / 2**30
        fields = [
            f'tick {report("Progress/tick", self.tick):<5d}',
            f'kimg {report("Progress/kimg", shown / 1e3):<9.1f}',
            f'time {dnnlib.util.format_time(report("Timing/total_sec", self.seconds)):<12s}',
            f'sec/tick {report("Timing/sec_per_tick", seconds):<7.1f}',
            f'sec/kimg {report("Timing/sec_per_kimg", seconds / frames * 1e3):<7.4f}',
            f'maintenance {report("Timing/maintenance_sec", maintenance):<6.1f}',
            f'cpumem {report("Resources/cpu_mem_gb", memory):<6.2f}',
        ]
        if self.device.type == 'cuda':
            peak, reserved = torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30
            fields += [
                f'gpumem {report("Resources/peak_gpu_mem_gb", peak):<6.2f}',
                f'reserved {report("Resources/peak_gpu_mem_reserved_gb", reserved):<6.2f}',
            ]
            torch.cuda.reset_peak_memory_stats()
        report('Timing/total_hours', self.seconds / 3600)
        report('Timing/total_days', self.seconds / 86400)
        self.say(' '.join(fields) + f' left {dnnlib.util.format_time(left)}')
        sys.stdout.flush()

    def _path(self, name: str) -> str:
        return os.path.join(self.run_dir, name)

    def _start_pictures(self, log: RunLog | None) -> Preview | None:
        """Write reals.mp4 and fakes_init.mp4; None on other ranks, or where no pictures are wanted."""
        settings = self.options.preview
        if log is None or settings.num_frames == 0:
            return None
        self.say('Exporting sample videos...')
        preview = Preview(self.image_generator, fps=self.dataset.fps, num_frames=settings.num_frames, grid=settings.grid)
        if not os.path.exists(self._path('reals.mp4')):
            preview.write(self._path('reals.mp4'), preview.real_clips(self.dataset, self.options.window))
        if not self.resumed:
            codes = generate_codes(self.trainer.G_ema, list(range(preview.num_videos)), preview.num_frames, self.device)
            preview.write(self._path('fakes_init.mp4'), list(codes))
        return preview

    def _draw(self, preview: Preview | None, log: RunLog | None, shown: int) -> None:
        if log is None or preview is None:
            return
        name, step = f'{shown // 1000:06d}', shown // 1000
        G = self.finished
        codes = generate_codes(G, list(range(preview.num_videos)), preview.num_frames, self.device)
        log.picture('fakes', preview.write(self._path(f'fakes{name}.mp4'), list(codes)), step)
        frames = round(TRAJECTORY_SECONDS * self.dataset.fps)
        coordinates = generate_trajectories(G, list(range(4)), frames, self.device).cpu()
        path, title = self._path(f'trajectories{name}.png'), f'{shown / 1000:.0f} kimg'
        try:
            picture = plot_trajectories(path, self.windows.clips, coordinates, self.space, self.dataset.fps, title)
        except ImportError as error:  # hours of training do not end for want of a plot
            self.say(f'Skipping the plot of trajectories: {error}')
            return
        log.picture('trajectories', picture, step)

    def _save(self, shown: int, *, hurry: bool) -> bool:
        """Snapshot and training state, in a hurry the state first; returns whether the snapshot is there.

        The look at the model that a snapshot needs takes seconds, on a slow machine minutes: in a hurry it is given up.
        """
        if hurry:
            self._save_state(shown)
            if self.rank != 0 or self.gave_up_look:
                return False
        try:
            with contextlib.nullcontext() if hurry else stop_signals.at_once():
                self.finished = self.trainer.finished(time.monotonic() + HURRY_SECONDS if hurry else None)
        except TimeoutError:
            held = '' if self.state_is_lost else '; the training state holds everything'
            self.say(f'No snapshot was written, which would take longer than there is time{held}')
            return False
        except stop_signals.Stopped:
            self.gave_up_look = True
            self._save_state(shown)
            return self._agree(False)[0]
        averages = self.trainer.averages
        if 0 < averages.taken < self.trainer.num_steps:
            self.say(f'Videos of the newest weights do not settle; the snapshot has the moving average of step {averages.taken}')
        if averages.wanders:
            self.say(
                f'Warning: videos of this model go on changing after frame {LONGEST_BURN_IN}, by {averages.distance:.0%} of '
                f'their variance until frame {OLD}; a longer training (--kimg) or another --seed may settle'
            )
        if self.finished.burn_in > 0:
            self.say(f'Burn-in: {self.finished.burn_in} frames after a fresh i are left out of videos')
        saved = False
        if self.rank == 0:
            with saving.tolerating(self.say, 'the snapshot', stop=self.saving_options.on_full == 'stop'):
                self._save_snapshot(shown)
                saved = True
        if hurry:
            return saved
        self._save_state(shown)
        return self._agree(saved)[0]

    def _miss_last_snapshot(self, shown: int) -> None:
        """End without the last snapshot, which is what the training was for; the same command makes it.

        Raises:
            InputError: The disk did not take it. Otherwise a signal came, and `run` returns False.
        """
        ranks = Ranks(self.rank, self.num_ranks, self.device)
        self.misses_snapshot = ranks.agree(stop_signals.asked() is not None)[0]
        with ranks.together():
            if self.rank == 0 and not self.misses_snapshot:
                path = self._path(f'network-snapshot-{shown // 1000:06d}.pkl')
                raise InputError(f'{path} could not be written; free some space and give the same command again')

    def _save_snapshot(self, shown: int) -> None:
        progress = {'cur_nimg': shown, 'cur_tick': self.tick, 'steps': self.trainer.num_steps, 'seconds': self.seconds}
        temporal_snapshot.save_snapshot(
            self._path(f'network-snapshot-{shown // 1000:06d}.pkl'),
            G=self.trainer.G,
            G_ema=self.finished,
            C=self.trainer.critics[0],
            far_critics=dict(list(zip(self.windows.strides, self.trainer.critics, strict=True))[1:]),
            image_generator=self.reference,
            data=self.data,
            training_options=option_tree.to_dict(self.options),
            progress=progress,
        )

    def _save_state(self, shown: int) -> None:
        """Training state, which is the same on every rank."""
        self.has_state = True
        if self.rank != 0:
            return
        state = {
            'trainer': self.trainer.state_dict(),
            'ranks': [self.trainer.rank_state()],
            'data_sha256': self.data['sha256'],
            'tick': self.tick,
            'tick_start_frames': self.tick_start_frames,
            'seconds': self.seconds,
            'threads': self.step_threads,
        }
        self.state_is_lost = True
        with saving.tolerating(self.say, 'the training state', stop=self.saving_options.on_full == 'stop'):
            temporal_snapshot.save_training_state(
                self._path(f'training-state-{shown // 1000:06d}.pt'), state, keep_every=self.saving_options.keep_states
            )
            self.state_is_lost = False

    def _measure(self, shown: int, metrics: Sequence[str]) -> dict[str, float]:
        """Run the metrics on the snapshot just saved; every rank takes part."""
        if not metrics or self.calc_metric is None:
            return {}
        self.say('Evaluating metrics...')
        # The results of the last snapshot are what a run is known by; the same command computes what the disk did not take.
        stop = self.saving_options.on_full == 'stop' or shown >= self.options.total_kimg * 1000
        results: dict[str, float] = {}
        for metric in metrics:
            with Ranks(self.rank, self.num_ranks, self.device).together():
                result = self.calc_metric(
                    metric=metric,
                    G=self.finished,
                    image_generator=self.image_generator,
                    description=self.data,
                    run_dir=self.run_dir,
                    snapshot=f'network-snapshot-{shown // 1000:06d}.pkl',
                    rank=self.rank,
                    num_ranks=self.num_ranks,
                    device=self.device,
                    stop=stop,
                )
            results.update(result)
        return results
