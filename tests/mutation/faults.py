"""The faults: each a small change of the source, and the tests that have to notice it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fault:
    """`old`, which stands once in the file, becomes `new`."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


STEP = ('tests/training/test_training_step.py',)
GRAPHS = ('tests/kernels/test_step_graphs.py',)
SETTLING = (
    'tests/training/test_stationarity.py::test_a_video_settles_and_is_calibrated',
    'tests/training/test_stationarity.py::test_calibration_is_one_affine_map_of_the_coordinates',
    'tests/training/test_stationarity.py::test_calibration_moves_frames_no_further_than_it_has_to',
)


def row(command: str, option: str) -> tuple[str]:
    """The test that this option is obeyed."""
    return (f'tests/commands/options/test_options_of_{command}.py::test_option_is_obeyed[{command} {option}]',)


def of(path: str, tests: tuple[str, ...], *changes: tuple[str, str, str]) -> list[Fault]:
    return [Fault(name, path, old, new, tests) for name, old, new in changes]


FAULTS = [
    *of(
        'training/temporal_trainer.py',
        STEP,
        ('rates are those after the step', 'left = 1 - self.num_frames_shown', 'left = 1 - (self.num_frames_shown + self.frames_per_step)'),
        ('rates fall without a bound above', 'min(1.0, max(left, 0.0) / self.settings.decay)', 'max(left, 0.0) / self.settings.decay'),
        ('rates of G and C exchanged', '((self.G_optimizer, self.settings.generator_lr), (self.C_optimizer, self.settings.critic_lr))',
         '((self.C_optimizer, self.settings.generator_lr), (self.G_optimizer, self.settings.critic_lr))'),
        ('rates never fall', 'set_rate(optimizer, rate * factor)', 'set_rate(optimizer, rate)'),
        ('average before the step is counted', 'self.num_steps += 1\n            self._update_average()', 'self._update_average()\n            self.num_steps += 1'),
        ('average without ramp', 'half_life = min(self.settings.ema_kimg * 1000, self.num_frames_shown * self.settings.ema_rampup)', 'half_life = self.settings.ema_kimg * 1000'),
        ('average counts frames of one rank', 'decay_of(half_life, self.frames_per_step)', 'decay_of(half_life, self.batch * self.windows.num_frames)'),
        ('ranks draw other numbers', 'torch.Generator(self.device).manual_seed(seed)', 'torch.Generator(self.device).manual_seed(seed + rank)'),
        ('frames of the critic counted once', 'return self.batch * self.critic_steps * self.windows.num_frames', 'return self.batch * self.windows.num_frames'),
        ('frames counted once a rank', 'return self.batch * self.critic_steps * self', 'return self.batch // self.num_ranks * self.critic_steps * self'),
        ('G climbs down', 'loss = -torch.stack(scores).sum()', 'loss = torch.stack(scores).sum()'),
        ('critics averaged, not summed', 'loss = -torch.stack(scores).sum()', 'loss = -torch.stack(scores).mean()'),
        ('angle penalty subtracted', 'loss = loss + settings.lambda_gap *', 'loss = loss - settings.lambda_gap *'),
        ('angle penalty without its interval', 'settings.lambda_gap * settings.gap_interval * self', 'settings.lambda_gap * self'),
        ('diversity penalty subtracted', 'loss = loss + settings.lambda_diversity *', 'loss = loss - settings.lambda_diversity *'),
        ('diversity penalty without its interval', 'settings.lambda_diversity * settings.gap_interval * self', 'settings.lambda_diversity * self'),
        ('diversity has the other weight', 'loss + settings.lambda_diversity *', 'loss + settings.lambda_gap *'),
        ('events subtracted', 'loss = loss + self.lambda_events *', 'loss = loss - self.lambda_events *'),
        ('events without their weight', 'self.lambda_events * penalty.mean()', 'penalty.mean()'),
        ('events of beginnings', 'self.lambda_events > 0 and settings.carry == 1', 'self.lambda_events > 0 and settings.carry == 2'),
        ('penalties one step late', 'penalties = self.num_steps % self.settings.gap_interval == 0', 'penalties = self.num_steps % self.settings.gap_interval == 1'),
        ('penalties in every step', 'penalties = self.num_steps % self.settings.gap_interval == 0', 'penalties = True'),
        ('penalties on the whole batch', 'count = max(1, self.batch // settings.gap_batch_shrink)', 'count = self.batch'),
        ('shares of the angle penalty exchanged', 'parts.append((1 - self.settings.carry) *', 'parts.append(self.settings.carry *'),
        ('carried angle penalty without its share', 'parts.append(self.settings.carry * measure', 'parts.append(measure'),
        ('gradient penalty without its weight', 'own, mix, settings.lambda_gp)', 'own, mix, 10.0)'),
        ('every update sees the first windows', 'own = fakes[rows[part]]', 'own = fakes[part]'),
        ('reversal dropped', 'self.windows.sample_frames(self.batch, self.random, self.reversal)', 'self.windows.sample_frames(self.batch, self.random)'),
        ('windows are not shuffled', 'order = permutation(count, self.random, self._static)', 'order = permutation(count, self.random, self._static).sort().values'),
        ('carry dropped', 'else round(count * self.settings.carry)', 'else round(count * 0.5)'),
        ('chains are not moved', 'self.chains.advance(chosen, tuple(h[fresh:].detach() for h in self.portions.gather_state(states[time])), frames)', 'pass'),
        ('chains move to the end of their windows', 'self.portions.gather_state(states[time])), frames)', 'self.portions.gather_state(states[-1])), frames)'),
        ('chains take the states of fresh windows', 'tuple(h[fresh:].detach() for h in self.portions.gather', 'tuple(h[: len(chosen)].detach() for h in self.portions.gather'),
        ('chains keep what was shown before', 'y[fresh:, past : past + time]', 'y[fresh:, past : past + time - 1]'),
        ('others than chosen begin again', 'self.chains.restart(self.G, chosen[lucky])', 'self.chains.restart(self.G, chosen[: int(lucky.sum())])'),
        ('all chains begin again', 'self.chains.restart(self.G, chosen[lucky])', 'self.chains.restart(self.G, chosen)'),
        ('fewer chains for two ranks', 'kind(self.G, settings.chains, windows', 'kind(self.G, settings.chains // num_ranks, windows'),
        ('real windows are not shared', 'self.random, self.reversal)[part]', 'self.random, self.reversal)[: part.stop - part.start]'),
        ('past of whole codes forgotten', ': time if past > 0 else 0].dense()', ': 1].dense()'),
        ('places on the lines are not shared', 'generator=self.random, device=self.device)[part]\n            for C', 'generator=self.random, device=self.device)[: part.stop - part.start]\n            for C'),
        ('angles of other chains', 'self.chains.states(self.chains.draw(count)[part]))\n            parts', 'self.chains.states(self.chains.draw(count)[: part.stop - part.start]))\n            parts'),
        ('futures of one rank', 'torch.cat([futures[part] for futures in s.split(count)])', 's[: 2 * (part.stop - part.start)]'),
        ('chains move in the first half', 'torch.randint(length // 2, length, (1,)', 'torch.randint(1, length // 2, (1,)'),
        ('chains never begin again', 'generator=self.random, device=self.device) < self.settings.restart', 'generator=self.random, device=self.device) < 0'),
        ('motion weight dropped', 'self.random), self.motion_weight)', 'self.random), min(self.motion_weight, 1))'),
        ('critics of all spacings weigh the same', 'weight * critic_scores(', 'critic_scores('),
        ('weights in proportion to the spacings', 'weights = [stride**power for', 'weights = [stride for'),
        ('weights of critics add up to one', 'weight * len(weights) / sum(weights)', 'weight / sum(weights)'),
        ('betas exchanged', 'betas = (settings.beta1, settings.beta2)', 'betas = (settings.beta2, settings.beta1)'),
        ('futures of one window', 'self._future_frames = settings.diversity_windows * windows.num_frames', 'self._future_frames = windows.num_frames'),
        ('diversity dropped', 'self._parting = settings.diversity * divergence', 'self._parting = divergence'),
    ),
    *of(
        'training/temporal_loss.py',
        ('tests/training/test_temporal_gan.py::test_an_angle_above_45_degrees_costs_nothing',),
        ('angle penalty without a clamp', '(math.pi / 4 - phi).clamp(min=0).square()', '(math.pi / 4 - phi).square()'),
    ),
    *of(
        'training/temporal_loss.py',
        STEP,
        ('angle of 60 degrees', 'return (math.pi / 4 - phi).clamp(min=0).square(), phi.detach()', 'return (math.pi / 3 - phi).clamp(min=0).square(), phi.detach()'),
        ('angle upside down', 'torch.atan2(norm_s, norm_first)', 'torch.atan2(norm_first, norm_s)'),
        ('futures compared from the middle on', 'return 2 * num_frames // 3', 'return num_frames // 2'),
        ('unrelated frames are K apart', '.square().mean(dim=(1, 2)) / 2\n', '.square().mean(dim=(1, 2))\n'),
        ('divergence without its square', 'return 1 - rho**2', 'return 1 - rho'),
    ),
    *of(
        'training/real_windows.py',
        STEP,
        ('motion in the unit of the first spacing', '(motion_weight / unit)', '(motion_weight / self.motion_units[0])'),
        ('views end a frame early', 'frames = y[:, y.shape[1] - 1 - (self.num_frames - 1) * stride :: stride]', 'frames = y[:, y.shape[1] - 1 - (self.num_frames - 1) * stride - (stride > 1) :: stride][:, : self.num_frames]'),
        ('backwards by one frame too many', 'torch.where(backwards, self.span - 1 - offsets, offsets)', 'torch.where(backwards, offsets, self.span - 1 - offsets)'),
    ),
    *of(
        'training/batches/portions.py',
        STEP,
        ('all ranks take the first rows', 'return slice(portion * own, (portion + 1) * own)', 'return slice(0, own)'),
        ('windows of this rank alone', 'torch.distributed.all_gather(parts, rows.detach().contiguous())', 'parts = [rows.detach()] * self.num_ranks'),
    ),
    *of(
        'training/batches/whole_codes.py',
        STEP,
        ('views of whole codes end a frame early', 'range(self.span - 1 - (self.num_frames - 1) * stride, self.span, stride)', 'range(self.span - 1 - (self.num_frames - 1) * stride - (stride > 1), self.span - (stride > 1), stride)'),
        ('the ring stands still', 'self._oldest[chosen] = (oldest + y.shape[1]) % self.past_frames', 'pass'),
        ('the ring forgets that videos began again', '        self._ring[chosen] = past\n        self._oldest[chosen] = 0\n', '        self._oldest[chosen] = 0\n'),
    ),
    *of(
        'training/batches/video_chains.py',
        STEP,
        ('burn-in is shown', 'G.coordinates(l[:, self.burn_in : frames])', 'G.coordinates(l[:, : self.past_frames])'),
        ('no burn-in', 'frames = self.burn_in + self.past_frames', 'frames = self.past_frames'),
        ('fresh chains begin a frame early', 'tuple(h.clone() for h in states[frames])', 'tuple(h.clone() for h in states[frames - 1])'),
        ('fresh chains keep their memories', '        for kept, h in zip(self.memories, memories, strict=True):\n            kept[chosen] = h\n        self.past[chosen] = past\n\n    def advance_and', '        self.past[chosen] = past\n\n    def advance_and'),
        ('fresh chains keep their past', '            kept[chosen] = h\n        self.past[chosen] = past\n\n    def advance_and', '            kept[chosen] = h\n\n    def advance_and'),
        ('every chain twice', 'rounds = -(-count // self.num_chains)', 'rounds = 2'),
        ('past of the wrong end', 'self.with_past(chosen, y)[:, -self.past_frames :]', 'self.with_past(chosen, y)[:, : self.past_frames]'),
    ),
    *of(
        'training/batches/video_chains.py',
        GRAPHS,
        ('recorded chains begin again after all', 'memories = [torch.where(lucky, new[number], h)', 'memories = [torch.where(lucky, h, new[number])'),
        ('recorded chains keep an old past', 'first + torch.arange(self.past_frames', 'first - 1 + torch.arange(self.past_frames'),
        ('too few fresh videos', 'while within < 1 - 1e-6 and', 'while within < 1 - 1e-3 and'),
    ),
    *of(
        'training/temporal_trainer.py',
        GRAPHS,
        ('recorded chains move to an earlier time', 'when = torch.cat([place, index + length // 2])', 'when = torch.cat([place, index])'),
        ('recorded chains are ahead of their past', 'when = torch.cat([place, index + length // 2])', 'when = torch.cat([place, index + length // 2 - 1])'),
    ),
    *of('training/kernels/recorded_adam.py', GRAPHS, ('recorded learning rates stay', "group['lr'].fill_(rate)", 'pass')),
    *of(
        'training/temporal_trainer.py',
        row('train_video', '--longest-memory'),
        ('memories begin short', '                prepare_memories(self.G, settings.longest_memory)', '                prepare_memories(self.G, 1.0)'),
    ),
    *of(
        'training/tuning/generator_tuning.py',
        row('tune_generator', '--warmup'),
        ('warm-up of tuning dropped', 'max(options.warmup, 1), 1)', '1, 1)'),
    ),
    *of(
        'training/tuning/generator_tuning.py',
        row('tune_generator', '--ema'),
        ('average of tuning dropped', 'half_life = min(options.ema, ', 'half_life = min(25.0, '),
    ),
    *of(
        'training/tuning/generator_tuning.py',
        row('tune_generator', '--save-memory'),
        ('saving of memory dropped', '_recomputing(self.generator.synthesis, self.save_memory)', '_recomputing(self.generator.synthesis, False)'),
    ),
    *of(
        'training/runs/gradients.py',
        STEP,
        ('ranks are summed, not averaged', '        flat /= divisor\n', '        pass\n'),
        ('only the first rank counts', '    torch.distributed.all_reduce(flat)\n', '    flat *= num_ranks\n'),
    ),
    *of(
        'training/runs/weight_average.py',
        STEP,
        ('average has e for 2', 'return 0.5 **', 'return 0.36788 **'),
        ('average keeps the new share', 'list(module.parameters()), 1 - decay)', 'list(module.parameters()), decay)'),
    ),
    *of(
        'training/stationarity.py',
        SETTLING,
        ('burn-in is not doubled', 'MARGIN = 2', 'MARGIN = 1'),
        ('burn-in of the first block that settles', 'late[-1] + 1', 'late[0] + 1'),
        ('burn-in without a bound', 'min(MARGIN * int(late[-1] + 1) * BLOCK, LONGEST_BURN_IN)', 'MARGIN * int(late[-1] + 1)'),
        ('deviations do not count', '(self.means - self.mean).square() + (self.deviations - self.deviation).square()', '(self.means - self.mean).square()'),
        ('calibrated to the spread of the start', 'torch.stack(products)', 'torch.stack(products[:1]) / 2'),
        ('filter of the other direction', 'filter_between(complex_change @ run.spectrum @ complex_change.T, _spectrum_of_clips(clips, mean))', 'filter_between(_spectrum_of_clips(clips, mean), complex_change @ run.spectrum @ complex_change.T)'),
        ('filter moves the mean', 'G.set_filter(taps, mean - taps.sum(dim=0) @ mean)', 'G.set_filter(taps, mean)'),
        ('filter loses the covariance', 'return left @ taps', 'return 0.7 * taps'),
        ('calibrated mean is that of before', 'change @ (bias - run.mean)', 'change @ bias'),
        ('bias is not stretched', 'change @ weight, change @ (bias - run.mean)', 'change @ weight, bias - run.mean'),
        ('bias of many coordinates is not stretched', '(bias - run.mean) * scale', 'bias - run.mean'),
        ('map of covariances without its root', 'squares.clamp(min=0).sqrt()', 'squares.clamp(min=0)'),
        ('calibrated without a bound', 'torch.where((factors > 1 / LARGEST_CORRECTION) & (factors < LARGEST_CORRECTION), factors, 1.0)', 'factors'),
    ),
    *of(
        'training/kernels/rendering/filtered_activation.cpp',
        ('tests/kernels/test_filtered_activation.py',),
        ('phase of the other neighbour', 'return (PHASE - j + UP) % UP;', 'return (PHASE + j) % UP;'),
        ('window is not moved on', 'window[k + (j > PHASE)] * taps', 'window[k] * taps'),
        ('a row too late', 'm.kept_row(v, 4 * group - 10 + k + ROWS)', 'm.kept_row(v, 4 * group - 9 + k + ROWS)'),
        ('strips begin where the first does', 'first = begin * 2 / UP - floor_div(f.left, UP)', 'first = -floor_div(f.left, UP)'),
        ('second half of the fold is not mirrored', 'window[j] + window[DOWN - 1 - j]', 'window[j] + window[TAPS + j]'),
        ('bias beyond the border', 'row[v][x].v = V{};\n                    for (int64_t x = inside ? to', 'row[v][x].v = shift[v];\n                    for (int64_t x = inside ? to'),
        ('clamped at one side', 'smaller(larger(v, V{} - limit), V{} + limit)', 'smaller(v, V{} + limit)'),
    ),
    *of(
        'training/kernels/rendering/fast_stylegan3.py',
        ('tests/videos/test_renderer.py',),
        ('styles of the layer before', 'styles[index + 1][0])', 'styles[index][0])'),
        ('no gain of inputs', "return styles * self.input_gain, (styles", "return styles, (styles"),
        ('RGB without its clamp', 'return x if self.clamp is None else', 'return x if True else'),
    ),
    *of(
        'training/events/sizes.py',
        ('tests/training/events/test_sizes.py',),
        ('a tail has a gap', 'APART = 14.0', 'APART = 5.0'),
        ('what stays is an event', 'OVER = 0.9', 'OVER = 0.0'),
        ('gap below the noise', 'sizes.double().clamp(min=ORDINARY)', 'sizes.double()'),
        ('motion is not measured', 'motion=(motion / (last @ motion)).float()', 'motion=last.float()'),
        ('rate of half of the frames', 'rate=number / sum(', 'rate=2 * number / sum('),
        ('largest events only', 'threshold = min(max(threshold, channel.limit), float(real[0]))', 'threshold = float(real[0])'),
        ('direction of the heaviest tails', 'REFINEMENTS = 2', 'REFINEMENTS = 0'),
        ('sizes in the wrong order', 'sizes=sizes[:number].flip(0).float()', 'sizes=sizes[:number].float()'),
        ('rivals do not count', 'sizes = peak_sizes(e, channel.distance)', 'sizes = peak_sizes(e, 0)'),
    ),
    *of(
        'networks/latent_generator.py',
        ('tests/training/events/test_sizes.py',),
        ('bounded inside', 'clamp(min=1)', 'clamp(min=1.2)'),
        ('bounded by another margin', '(1 + MARGIN * torch.tanh((r - 1) / MARGIN)) / r', '1 / r'),
        ('a frame late', 'past[:, 0] + (gain * here)', 'past[:, 1] + (gain * here)'),
        ('excursion of another frame', 'MOST_APART - HALF_EVENT]  # of', 'MOST_APART - HALF_EVENT + 1]  # of'),
        ('gain is not whole on the plateau', '/ plateau).clamp(max=1)', '/ plateau).clamp(max=0.9)'),
        ('farther events do not rival', 'too_far = away > self', 'too_far = away > 0 * self'),
        ('events from anywhere', '(p >= self.event_thresholds) & ', ''),
        ('what is no event stays large', 'torch.where(p > self.event_limits, self.event_remains, p)', 'p'),
        ('every frame is a peak', '(p > 0) & (p >= around)', '(p > 0)'),
        ('too few frames are walked', 'walked = 2 * self.DELAY + 1', 'walked = self.DELAY'),
        ('steps of sizes', 'torch.lerp(real_low, real_high, share)', 'real_low'),
    ),
    *of(
        'training/events/timing.py',
        ('tests/training/events/test_timing.py',),
        ('both events of a pair are blamed', 'e[:, :-1].detach()', 'e[:, :-1]'),
        ('delays the other way round', 'self.weights.flip(1)', 'self.weights'),
        ('chance rules out delays', 'EXPECTED = 7.0', 'EXPECTED = 0.07'),
        ('directions are not whitened', 'motion @ whitening', 'motion @ axes'),
        ('Gaussian directions count', 'TAILS = 9.0', 'TAILS = 2.0'),
        ('a slow movement is an event', 'THRESHOLD = 2.0', 'THRESHOLD = 0.2'),
        ('half an event does not count', '+ 1) :], self.directions, COUNTED)', '+ 1) :], self.directions, THRESHOLD)'),
        ('a short training has the weight of a long one', 'min(1.0, updates / UPDATES) ** 2', '1.0'),
        ('no margin', 'MARGIN = 2', 'MARGIN = 0'),
        ('an event follows itself', 'out[:longest] = False', 'out[:0] = False'),
        ('every frame of an event counts', '((e[1:-1] > e[:-2]) & (e[1:-1] >= e[2:]))', '(e[1:-1] > 0)'),
    ),
    *of(
        'train_video.py',
        ('tests/training/test_temporal_options.py',),
        ('command line comes last', "    values.update(given)\n    if 'data'", "    values = {**given, **values}\n    if 'data'"),
        ('preset dropped', '        values.update(PRESETS[invocation.preset])\n', '        pass\n'),
        ('consent is read from files', 'if not leaf.declared.consent:', 'if True:'),
        ('resumed run takes new settings', 'values[leaf.path] = before\n            if leaf.path in wanted', 'values[leaf.path] = wanted.get(leaf.path, before)\n            if leaf.path in wanted'),
        ('what is ignored is not named', '    if ignored:\n', '    if False:\n'),
    ),
]  # fmt: skip
