"""The critic's scores, penalties and gradients without autograd, against autograd in float64."""

import pytest
import torch

from networks.temporal_critic import TemporalCritic
from training.kernels import native_code
from training.kernels.critic.critic_gradients import critic_gradients, critic_scores, critic_scores_and_input_gradient
from training.kernels.critic.wide_windows import Chosen, Factored, Frames, WithMotion
from training.temporal_loss import gradient_penalty

LIBRARY = 'temporal_kernels'
pytestmark = pytest.mark.usefixtures('form')


CRITICS = [
    {'num_features': 1030, 'num_frames': 9},
    {'num_features': 1024, 'num_frames': 3, 'narrowing_widths': [6], 'temporal_channels': []},
    {'num_features': 1024, 'num_frames': 4, 'narrowing_widths': [7, 5], 'temporal_channels': []},
    {'num_features': 32},
    {'num_features': 7, 'num_frames': 24},
    {'num_features': 5, 'num_frames': 1},
    {'num_features': 5, 'num_frames': 2, 'narrowing_widths': []},
    {'num_features': 5, 'num_frames': 10, 'temporal_channels': []},
    {'num_features': 9, 'num_frames': 33, 'narrowing_widths': [11], 'temporal_channels': [3, 5], 'slope': 0.0},
    {'num_features': 9, 'num_frames': 6, 'narrowing_widths': [], 'temporal_channels': []},
]


def make_critic(kind: type = TemporalCritic, **kwargs) -> TemporalCritic:
    torch.manual_seed(5)
    C = kind(**kwargs).double()
    for parameter in C.parameters():  # biases begin at zero, where a wrong one would not show
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return C


def windows(C: TemporalCritic, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (count, C.num_frames, C.num_features)
    return torch.randn(shape).double(), torch.randn(shape).double(), torch.rand(count).double()


def by_definition(C, real, fake, mix, lambda_gp):
    """Scores, penalty and parameters' gradients of the loss as temporal_loss defines it."""
    scores_real, scores_fake = C(real), C(fake)
    penalty = gradient_penalty(C, real, fake, mix)
    loss = scores_fake.mean() - scores_real.mean() + lambda_gp * penalty.mean()
    gradients = torch.autograd.grad(loss, list(C.parameters()), allow_unused=True)
    return (scores_real, scores_fake, penalty), gradients


@pytest.mark.parametrize('kwargs', CRITICS)
@pytest.mark.parametrize('count', [1, 6])
def test_update_equals_autograd(kwargs, count):
    C = make_critic(**kwargs)
    for lambda_gp in (10.0, 0.5):  # twice: the second finds buffers and gradients of the first
        real, fake, mix = windows(C, count)
        expected, gradients = by_definition(C, real, fake, mix, lambda_gp)
        found = critic_gradients(C, real, fake, mix, lambda_gp)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close([p.grad for p in C.parameters()], list(gradients))


@pytest.mark.parametrize('kwargs', CRITICS)
def test_input_gradient_equals_autograd(kwargs):
    C = make_critic(**kwargs)
    x = windows(C, 3)[0].requires_grad_(True)
    weight = torch.tensor([1.0, -2.0, 0.5]).double()
    (gradient,) = torch.autograd.grad(C(x).sum(), x)
    scores, found = critic_scores_and_input_gradient(C, x)
    torch.testing.assert_close((scores, found), (C(x), gradient))
    (weighted,) = torch.autograd.grad((weight * critic_scores(C, x)).sum(), x)
    torch.testing.assert_close(weighted, gradient * weight.view(-1, 1, 1))


@pytest.mark.parametrize('motion', [False, True])
@pytest.mark.parametrize('num_features', [1030, 12])  # the form that knows factors, and those that get whole windows
def test_windows_as_their_factors(num_features, motion):
    """Critic and generator: what factors give is what the windows they stand for give."""
    C = make_critic(num_features=num_features, num_frames=9)
    size, unit = num_features // (2 if motion else 1), None
    t, A, b = (torch.randn(shape).double().requires_grad_(True) for shape in ((6, 9, 5), (size, 5), (size,)))
    fake, real = Factored(t, A, b), Frames(torch.randn(6, 9, size).double())
    if motion:
        unit = torch.rand(size).double()
        fake, real = WithMotion(fake, unit), WithMotion(real, unit)
        y = real.y.x
        assert torch.equal(real.dense()[:, 3], torch.cat([y[:, 3], (y[:, 3] - y[:, 2]) * unit], dim=1))
        assert real.dense()[:, 0, size:].abs().max() == 0
    torch.testing.assert_close((fake.y if motion else fake).dense(), t @ A.T + b)
    mix = torch.rand(6).double()
    expected, gradients = by_definition(C, real.dense(), fake.dense().detach(), mix, 10.0)
    torch.testing.assert_close(critic_gradients(C, real, fake, mix, 10.0), expected)
    torch.testing.assert_close([p.grad for p in C.parameters()], list(gradients))
    weight = torch.randn(6).double()
    wanted = torch.autograd.grad((C(fake.dense()) * weight).sum(), (t, A, b))
    scores = critic_scores(C, fake)
    torch.testing.assert_close(scores, C(fake.dense()))
    torch.testing.assert_close(torch.autograd.grad((scores * weight).sum(), (t, A, b)), wanted)
    picked = fake[torch.tensor([4, 1])]
    assert picked.shape == (2, 9, num_features)
    torch.testing.assert_close(picked.dense(), fake.dense()[[4, 1]])


@pytest.mark.parametrize('motion', [False, True])
def test_windows_that_share_frames(motion):
    """Frames of footage, which several windows show and of which one goes backwards, are what copies of them are."""
    C = make_critic(num_features=1030, num_frames=9)
    y = torch.randn(31, 515 if motion else 1030).double()
    index = torch.arange(9) + torch.tensor([0, 3, 3, 20, 22, 7]).unsqueeze(1)
    index[4] = index[4].flip(0)
    chosen, fake = Chosen(y, index), Frames(torch.randn(6, 9, y.shape[1]).double())
    real = chosen
    if motion:
        unit = torch.rand(515).double()
        real, fake = WithMotion(chosen, unit), WithMotion(fake, unit)
    assert real.shape == (6, 9, 1030)
    assert torch.equal(chosen[2:4].dense(), y[index[2:4]])
    weight, g = torch.randn(4, y.shape[1]).double(), torch.randn(6, 9, 4).double()
    torch.testing.assert_close(chosen.sums(weight), y[index] @ weight.T)
    torch.testing.assert_close(chosen.weight_gradient(g), torch.einsum('nto,ntf->of', g, y[index]))
    torch.testing.assert_close(chosen.weight_gradient(g, torch.ones(4, y.shape[1]).double()) - 1, chosen.weight_gradient(g))
    mix = torch.rand(6).double()
    expected, gradients = by_definition(C, real.dense(), fake.dense(), mix, 10.0)
    torch.testing.assert_close(critic_gradients(C, real, fake, mix, 10.0), expected)
    torch.testing.assert_close([p.grad for p in C.parameters()], list(gradients))


def test_gradient_that_vanishes_has_a_penalty_and_no_direction():
    C = make_critic(num_features=4, num_frames=6)
    torch.nn.init.zeros_(C.TConv[-1].weight)
    real, fake, mix = windows(C, 2)
    _, _, penalty = critic_gradients(C, real, fake, mix, 10.0)
    assert penalty.tolist() == [1, 1]
    assert all(torch.isfinite(p.grad).all() for p in C.parameters())


class Doubled(TemporalCritic):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def hooked() -> TemporalCritic:
    C = make_critic(num_features=4, num_frames=6)
    C.E[0].register_forward_hook(lambda module, arguments, output: output * 2)
    return C


def other_activation() -> TemporalCritic:
    C = make_critic(num_features=4, num_frames=6)
    C.E[1] = torch.nn.Softplus()
    return C


def other_convolution() -> TemporalCritic:
    C = make_critic(num_features=4, num_frames=6)
    C.TConv[0] = torch.nn.Conv1d(32, 64, 5, stride=2, padding=2, padding_mode='circular').double()
    return C


@pytest.mark.parametrize(
    'make', [lambda: make_critic(Doubled, num_features=4, num_frames=6), hooked, other_activation, other_convolution]
)
def test_altered_critics_go_through_autograd(make):
    C = make()
    real, fake, mix = windows(C, 3)
    expected, gradients = by_definition(C, real, fake, mix, 10.0)
    torch.testing.assert_close(critic_gradients(C, real, fake, mix, 10.0), expected)
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in C.parameters()]
    torch.testing.assert_close(
        found, [torch.zeros_like(p) if g is None else g for p, g in zip(C.parameters(), gradients, strict=True)]
    )
    x = real.clone().requires_grad_(True)
    torch.testing.assert_close(critic_scores_and_input_gradient(C, real)[1], torch.autograd.grad(C(x).sum(), x)[0])


def test_new_parameters_are_taken_over():
    """Buffers belong to a critic's layers; a layer that is exchanged later must not be forgotten."""
    C = make_critic(num_features=4, num_frames=6)
    real, fake, mix = windows(C, 3)
    critic_gradients(C, real, fake, mix, 10.0)
    C.E[0] = torch.nn.Linear(4, 64).double()
    C.TConv[0].weight.data = torch.randn_like(C.TConv[0].weight)
    expected, gradients = by_definition(C, real, fake, mix, 10.0)
    torch.testing.assert_close(critic_gradients(C, real, fake, mix, 10.0), expected)
    torch.testing.assert_close([p.grad for p in C.parameters()], list(gradients))


def test_compiled_form_is_the_one_in_use(form):
    """Single precision rounds differently in both forms, which shows that there are two."""
    C = make_critic(num_features=16).float()
    real, fake, mix = (x.float() for x in windows(C, 9))
    expected = by_definition(C, real, fake, mix, 10.0)[0]
    found = critic_gradients(C, real, fake, mix, 10.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_code, 'enabled', False)
        plain = critic_gradients(C, real, fake, mix, 10.0)
    assert all(map(torch.equal, found, plain)) == (form == 'PyTorch')


def test_without_a_compiler_the_plain_form_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv('CXX', str(tmp_path / 'no-such-compiler'))
    assert native_code._load.__wrapped__('temporal_kernels') is None
    broken = tmp_path / 'compiler'
    broken.write_text('#!/bin/sh\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv('CXX', str(broken))
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path / 'cache'))
    assert native_code._load.__wrapped__('temporal_kernels') is None
    assert not list(tmp_path.glob('cache/**/*.so'))


def test_cuda_code_is_compiled_once_by_the_nvcc_of_cuda_home(monkeypatch, tmp_path, capsys):
    """A compiler that copies an existing library stands in for nvcc."""
    monkeypatch.setattr(native_code, 'enabled', True)
    library = native_code.load('temporal_kernels')
    if library is None:
        pytest.skip('there is no C++ compiler')
    capsys.readouterr()
    nvcc = tmp_path / 'home' / 'bin' / 'nvcc'
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo 13.0 && exit\necho "$@" >> {tmp_path}/calls\n'
        f'while [ "$1" != -o ]; do shift; done\ncp {library._name} "$2"\n'
    )
    nvcc.chmod(0o755)
    monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('DNNLIB_CACHE_DIR', str(tmp_path / 'cache'))
    for _ in range(2):
        assert native_code._load_cuda.__wrapped__('recurrence/gated_recurrence', (9, 0)) is not None
    calls = (tmp_path / 'calls').read_text().splitlines()
    assert len(calls) == 1
    assert '-gencode=arch=compute_90,code=sm_90' in calls[0]
    assert calls[0].endswith('gated_recurrence.cu')
    assert capsys.readouterr().err.count('Compiling gated_recurrence.cu, once on this machine') == 1
    nvcc.write_text('#!/bin/sh\nexit 1\n')
    assert native_code._load_cuda.__wrapped__('recurrence/gated_recurrence', (9, 0)) is None
