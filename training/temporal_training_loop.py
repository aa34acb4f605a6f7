"""The life of a temporal model: data in, ticks, pictures, snapshots, metrics, and going on after an interruption."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch

import dnnlib
from networks import checkpoints
from networks.errors import InputError
from torch_utils import training_stats
from training import option_tree, stop_signals, temporal_snapshot
from training.latent_space import LatentSpace, Windows, fit_latent_space
from training.latents.dataset import LatentDataset
from training.run_folder import RunLog
from training.temporal_options import TrainingOptions
from training.temporal_pictures import TRAJECTORY_SECONDS, Preview, generate_codes, generate_trajectories, plot_trajectories
from training.temporal_trainer import TemporalTrainer

MetricFunction = Callable[..., dict[str, Any]]


class StopRequest:
    """Ctrl-C and SIGTERM ask for a stop at the end of the running step; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: object) -> None:
            stop_signals.handled()
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def agreed(self, device: torch.device, num_ranks: int) -> bool:
        """Whether any rank was asked; all ranks get the same answer."""
        if num_ranks == 1:
            return self.asked
        flag = torch.tensor(float(self.asked), device=device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


def open_data(
    data: str, image_network: str, device: torch.device, *, trust_pickle: bool, force: bool
) -> tuple[LatentDataset, torch.nn.Module, dict[str, Any]]:
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
    if recorded and recorded != reference['sha256'] and not force:
        raise InputError(
            f'{data} was embedded with another image generator (sha256 {recorded[:12]}...) than {image_network} '
            f'(sha256 {reference["sha256"][:12]}...); give that one, or add --force-network if both share one '
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
    ) -> None:
        self.run_dir, self.options, self.device = run_dir, options, device
        self.rank, self.num_ranks = rank, num_ranks
        self.calc_metric = calc_metric
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
        if len(self.windows.strides) < len(c.settings.strides):
            self.say(f'The footage is too short for other spacings of {",".join(map(str, c.settings.strides))}')
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
        for name, module in (('G', self.trainer.G), ('C', self.trainer.critics)):
            count = sum(parameter.numel() for parameter in module.parameters())
            self.say(f'{name}: {count:,} parameters')
        self.say(f'Coordinates: {self.space.num_coordinates}, {self.space.explained:.2%} of the variance of the codes')
        self.finished = self.trainer.G_ema  # what snapshots, pictures and metrics show; made anew at every snapshot
        self.tick, self.tick_start_frames, self.seconds_before = 0, 0, 0.0
        self.resumed = resume is not None
        if resume is not None:
            self._resume(resume)

    def _resume(self, path: str) -> None:
        self.say(f'Resuming from {path}')
        state = temporal_snapshot.load_training_state(path)
        if state['data_sha256'] != self.data['sha256']:
            raise InputError(
                f'{path} was trained on other latents than {self.options.data}; to go on, give the data set that '
                'it was begun with'
            )
        ranks = state['ranks']
        if len(ranks) != self.num_ranks:
            self.say(f'The run had {len(ranks)} ranks and now has {self.num_ranks}: it goes on with other random numbers')
        try:
            self.trainer.load_state_dict(state['trainer'], ranks[self.rank] if len(ranks) == self.num_ranks else None)
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(f'{path} belongs to networks of another shape; resume with the options of its run') from error
        self.tick, self.tick_start_frames = state['tick'], state['tick_start_frames']
        self.seconds_before = state['seconds']

    def run(self) -> bool:
        """Train to the end; returns False when it was interrupted (state and snapshot are saved then, too)."""
        c = self.options
        log = RunLog(self.run_dir, self.trainer.num_frames_shown // 1000 if self.resumed else None) if self.rank == 0 else None
        collector = training_stats.Collector(regex='.*')
        preview = self._start_pictures(log)
        stop = StopRequest()
        self.say(f'Training for {c.total_kimg:g} kimg (thousands of frames shown to the critic)...')
        start = tick_start = time.time()
        maintenance = 0.0
        done = self.trainer.num_frames_shown >= c.total_kimg * 1000
        with stop.listening():
            while not done:
                self.trainer.step()
                shown = self.trainer.num_frames_shown
                stopping = stop.agreed(self.device, self.num_ranks)
                done = stopping or shown >= c.total_kimg * 1000
                if not done and shown < self.tick_start_frames + c.kimg_per_tick * 1000:
                    continue

                # End of a tick: a line, then what is due.
                tick_end = time.time()
                self.seconds = self.seconds_before + tick_end - start
                if not self.trainer.is_finite():
                    raise InputError(
                        f'the training has diverged: at {shown / 1000:.0f} kimg some weights are no longer numbers; '
                        f'what {self.run_dir} holds is from before that. Start anew with lower --glr and --clr'
                    )
                self._report_progress(shown, tick_end - tick_start, maintenance)
                collector.update()
                # An interrupted tick is not counted: the resumed run ends it, with the same steps as one never stopped.
                full_tick = not stopping or shown >= self.tick_start_frames + c.kimg_per_tick * 1000
                if full_tick:
                    self.tick, self.tick_start_frames = self.tick + 1, shown
                metrics: dict[str, float] = {}
                if done or (c.snapshot_ticks and self.tick % c.snapshot_ticks == 0):
                    self._save(shown)
                    if not stopping:
                        self._draw(preview, log, shown)
                        metrics = self._measure(shown)
                if log is not None:
                    log.write(collector.as_dict(), shown // 1000, metrics)
                tick_start = time.time()
                maintenance = tick_start - tick_end
        if log is not None:
            log.close()
        interrupted = self.trainer.num_frames_shown < c.total_kimg * 1000
        self.say('Interrupted; everything is saved.' if interrupted else 'Done.')
        return not interrupted

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
        log.picture(
            'trajectories',
            plot_trajectories(
                self._path(f'trajectories{name}.png'),
                self.windows.clips,
                coordinates,
                self.space,
                self.dataset.fps,
                f'{shown / 1000:.0f} kimg',
            ),
            step,
        )

    def _save(self, shown: int) -> None:
        """Snapshot and training state; every rank's random state goes into the latter."""
        self.finished = self.trainer.finished()
        if self.finished.burn_in > 0:
            self.say(f'Burn-in: {self.finished.burn_in} frames after a fresh i are left out of videos')
        ranks: list[Any] = [self.trainer.rank_state()]
        if self.num_ranks > 1:
            ranks = [None] * self.num_ranks
            torch.distributed.all_gather_object(ranks, temporal_snapshot.on_cpu(self.trainer.rank_state()))
        if self.rank != 0:
            return
        name = f'{shown // 1000:06d}'
        progress = {'cur_nimg': shown, 'cur_tick': self.tick, 'steps': self.trainer.num_steps, 'seconds': self.seconds}
        temporal_snapshot.save_snapshot(
            self._path(f'network-snapshot-{name}.pkl'),
            G=self.trainer.G,
            G_ema=self.finished,
            C=self.trainer.critics[0],
            far_critics=dict(list(zip(self.windows.strides, self.trainer.critics, strict=True))[1:]),
            image_generator=self.reference,
            data=self.data,
            training_options=option_tree.to_dict(self.options),
            progress=progress,
        )
        temporal_snapshot.save_training_state(
            self._path(f'training-state-{name}.pt'),
            {
                'trainer': self.trainer.state_dict(),
                'ranks': ranks,
                'data_sha256': self.data['sha256'],
                'tick': self.tick,
                'tick_start_frames': self.tick_start_frames,
                'seconds': self.seconds,
            },
        )

    def _measure(self, shown: int) -> dict[str, float]:
        """Run the metrics on the snapshot just saved; every rank takes part."""
        if not self.options.metrics or self.calc_metric is None:
            return {}
        self.say('Evaluating metrics...')
        results: dict[str, float] = {}
        for metric in self.options.metrics:
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
            )
            results.update(result)
        return results
