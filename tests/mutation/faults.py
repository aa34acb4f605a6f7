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
        ('rates never fall', "group['lr'] = rate * factor", "group['lr'] = rate"),
        ('average before the step is counted', 'self.num_steps += 1\n        self._update_average()', 'self._update_average()\n        self.num_steps += 1'),
        ('average keeps the new share', 'list(self.G.parameters()), 1 - beta)', 'list(self.G.parameters()), beta)'),
        ('average without ramp', 'half_life = min(self.settings.ema_kimg * 1000, self.num_frames_shown * self.settings.ema_rampup)', 'half_life = self.settings.ema_kimg * 1000'),
        ('average has e for 2', 'beta = 0.5 **', 'beta = 0.36788 **'),
        ('ranks are summed, not averaged', '            flat /= self.num_ranks\n', ''),
        ('only the first rank counts', '            torch.distributed.all_reduce(flat)\n', '            flat *= self.num_ranks\n'),
        ('batch is not shared by ranks', 'self.batch = settings.batch // num_ranks', 'self.batch = settings.batch'),
        ('ranks draw the same numbers', 'manual_seed(seed * num_ranks + rank)', 'manual_seed(seed)'),
        ('frames of one rank', 'return self.batch * self.num_ranks * self.settings.critic_steps', 'return self.batch * self.settings.critic_steps'),
        ('critic updates not counted', 'self.num_ranks * self.settings.critic_steps * self.windows', 'self.num_ranks * self.windows'),
        ('G climbs down', 'loss = -torch.stack(scores).sum()', 'loss = torch.stack(scores).sum()'),
        ('critics averaged, not summed', 'loss = -torch.stack(scores).sum()', 'loss = -torch.stack(scores).mean()'),
        ('angle penalty subtracted', 'loss = loss + settings.lambda_gap *', 'loss = loss - settings.lambda_gap *'),
        ('angle penalty without its interval', 'settings.lambda_gap * settings.gap_interval * self', 'settings.lambda_gap * self'),
        ('diversity penalty subtracted', 'loss = loss + settings.lambda_diversity *', 'loss = loss - settings.lambda_diversity *'),
        ('diversity penalty without its interval', 'settings.lambda_diversity * settings.gap_interval * self', 'settings.lambda_diversity * self'),
        ('diversity has the other weight', 'loss + settings.lambda_diversity *', 'loss + settings.lambda_gap *'),
        ('penalties one step late', 'if self.num_steps % settings.gap_interval == 0:', 'if self.num_steps % settings.gap_interval == 1:'),
        ('penalties in every step', 'if self.num_steps % settings.gap_interval == 0:', 'if True:'),
        ('penalties on the whole batch', 'count = max(1, self.batch // settings.gap_batch_shrink)', 'count = self.batch'),
        ('shares of the angle penalty exchanged', 'penalties.append((1 - self.settings.carry) *', 'penalties.append(self.settings.carry *'),
        ('carried angle penalty without its share', 'penalties.append(self.settings.carry * measure', 'penalties.append(measure'),
        ('gradient penalty without its weight', 'mix, settings.lambda_gp\n', 'mix, 10.0\n'),
        ('every update sees the first windows', 'fakes[begin : begin + batch], mix', 'fakes[:batch], mix'),
        ('reversal dropped', 'self.windows.sample(batch, self.random, self.reversal)', 'self.windows.sample(batch, self.random)'),
        ('windows are not shuffled', 'generated = [view[order] for view in self._views(y)]', 'generated = self._views(y)'),
        ('carry dropped', 'else round(count * self.settings.carry)', 'else round(count * 0.5)'),
        ('chains move in the first half', 'torch.randint(length // 2, length, (1,)', 'torch.randint(1, length // 2, (1,)'),
        ('chains never begin again', 'generator=self.random, device=self.device) < self.settings.restart', 'generator=self.random, device=self.device) < 0'),
        ('motion weight dropped', 'return self.windows.views(y, self.settings.motion_weight)', 'return self.windows.views(y, min(self.settings.motion_weight, 1))'),
        ('betas exchanged', "'betas': (settings.beta1, settings.beta2)", "'betas': (settings.beta2, settings.beta1)"),
        ('futures of one window', 'self._future_frames = settings.diversity_windows * windows.num_frames', 'self._future_frames = windows.num_frames'),
        ('diversity dropped', 'self._parting = settings.diversity * divergence', 'self._parting = divergence'),
    ),
    *of(
        'training/temporal_loss.py',
        STEP,
        ('angle of 60 degrees', 'return (math.pi / 4 - phi).clamp(min=0).square(), phi.detach()', 'return (math.pi / 3 - phi).clamp(min=0).square(), phi.detach()'),
        ('angle penalty without a clamp', '(math.pi / 4 - phi).clamp(min=0).square()', '(math.pi / 4 - phi).square()'),
        ('angle upside down', 'torch.atan2(norm_s, norm_first)', 'torch.atan2(norm_first, norm_s)'),
        ('futures compared from the middle on', 'slice(2 * y.shape[1] // 3, None)', 'slice(y.shape[1] // 2, None)'),
        ('unrelated frames are K apart', '.square().mean(dim=(1, 2)) / 2\n', '.square().mean(dim=(1, 2))\n'),
        ('divergence without its square', 'return 1 - rho**2', 'return 1 - rho'),
    ),
    *of(
        'training/latent_space.py',
        STEP,
        ('motion in the unit of the first spacing', '(motion_weight / unit)', '(motion_weight / self.motion_units[0])'),
        ('views end a frame early', 'frames = y[:, y.shape[1] - 1 - (self.num_frames - 1) * stride :: stride]', 'frames = y[:, y.shape[1] - 1 - (self.num_frames - 1) * stride - (stride > 1) :: stride][:, : self.num_frames]'),
        ('backwards by one frame too many', 'torch.where(backwards, self.span - 1 - offsets, offsets)', 'torch.where(backwards, offsets, self.span - 1 - offsets)'),
    ),
    *of(
        'training/video_chains.py',
        STEP,
        ('burn-in is shown', 'G.coordinates(l[:, self.burn_in : frames])', 'G.coordinates(l[:, : self.past_frames])'),
        ('past of the wrong end', 'self.with_past(chosen, y)[:, -self.past_frames :]', 'self.with_past(chosen, y)[:, : self.past_frames]'),
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
