"""Pictures in pieces: the size that memory allows, and results that do not depend on it."""

import functools
from typing import Any

import pytest
import torch

from networks import stylegan2
from networks.w_encoder import WEncoder
from training.commands.memory import Budget
from training.embedding import inversion, pieces
from training.embedding.encoder_loss import EncoderLoss
from training.embedding.inversion import Inversion, InversionOptions


@pytest.fixture(scope='module')
def G() -> Any:
    torch.manual_seed(0)
    G = stylegan2.Generator(8, 0, 12, 16, 3, synthesis_kwargs={'channel_base': 256, 'channel_max': 16})
    return G.eval().requires_grad_(False)


def test_kept_bytes_are_counted() -> None:
    a, b = (torch.randn(1000, requires_grad=True) for _ in range(2))
    weight = torch.nn.Parameter(b.detach())
    for x, y, expected in ((a, b, 8000), (a, weight, 4000), (a[:10], a[10:20], 4000)):  # two, one with weights, one twice
        assert pieces.kept_bytes(functools.partial(torch.dot, x, y)) == expected


def test_size_of_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (torch.randn(1 << 18, requires_grad=True) for _ in range(2))

    def one() -> torch.Tensor:  # keeps 2 MiB, needs 4
        return (a * b).sum()

    cpu = torch.device('cpu')
    assert pieces.piece_size(one, cpu, Budget(13 << 20), 64) == 3
    assert pieces.piece_size(one, cpu, Budget(1 << 20), 64) == 1
    assert pieces.piece_size(one, cpu, Budget(1 << 40), 16) == 16
    monkeypatch.setattr(pieces, 'LARGEST_PIECE_ON_CPU', 9 << 20)
    assert pieces.piece_size(one, cpu, Budget(1 << 40), 16) == 2


def test_optimisation_in_pieces(G: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = []
    for most in (64, 2):
        monkeypatch.setattr(inversion, 'MOST_FRAMES_AT_ONCE', most)
        each = Inversion(G, None, InversionOptions(steps=4, first_steps=6))
        assert each.frames_at_once == most
        found.append(each.fit_chunk(targets, None, None))
    assert float((found[0] - found[1]).abs().max()) < 1e-3
    assert float((found[0] - found[0][0]).abs().max()) > 0.01


def test_encoder_loss_in_pieces(G: Any) -> None:
    torch.manual_seed(1)
    encoder = WEncoder(num_ws=int(G.num_ws), w_dim=12, img_resolution=16, img_channels=3, channel_base=64, channel_max=8)
    samples = G.mapping(torch.randn(6, 8), None)
    frames = torch.rand(5, 3, 16, 16) * 2 - 1
    results = []
    for at_once in (64, 1, 3):
        loss = EncoderLoss(G, encoder, None, image_fraction=0.5)
        loss._at_once = at_once
        value = loss(samples, frames)
        results.append([value, *torch.autograd.grad(value, list(encoder.parameters()), allow_unused=True)])
    ws = encoder(torch.cat([loss.synthesize(samples), frames]))
    images = G.synthesis(ws[3:], noise_mode='const')
    wanted = torch.cat([loss.synthesize(samples)[3:], frames])
    whitened = loss.whiten(ws)
    direct = (
        loss.lambda_w * (whitened[:6] - loss.whiten(samples)).square().mean()
        + (images - wanted).square().mean()
        + loss.lambda_average * whitened[6:].square().mean()
    )
    results.append([direct, *torch.autograd.grad(direct, list(encoder.parameters()), allow_unused=True)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
