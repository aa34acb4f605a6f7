"""The optimiser of codes against known answers, and what inversion makes of it."""

import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from networks.checkpoints import load_generator
from training.embedding import code_curvature
from training.embedding.batched_lbfgs import Coupling, minimize
from training.embedding.inversion import Inversion, InversionOptions, smoothness


@pytest.fixture(scope='module')
def G(tiny_generator: pathlib.Path) -> Any:
    return load_generator(str(tiny_generator))


def quadratic(hessians: torch.Tensor, centres: torch.Tensor) -> Any:
    """f_t(h) = (h - c_t)^T H_t (h - c_t) / 2."""

    def function(h: torch.Tensor, active: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        away = h - centres[active]
        pull = torch.einsum('nde,ne->nd', hessians[active], away)
        return 0.5 * (away * pull).sum(dim=1), pull

    return function


def random_problem(num: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    roots = torch.randn(num, size, size, generator=random, dtype=torch.float64)
    return roots @ roots.mT + 0.5 * torch.eye(size), torch.randn(num, size, generator=random, dtype=torch.float64)


def test_coupled_quadratics_have_the_solution_of_the_linear_equations() -> None:
    num, size, weight = 5, 6, 0.3
    hessians, centres = random_problem(num, size)
    before = torch.ones(size, dtype=torch.float64)
    coupling = smoothness(num, before, weight)
    assert coupling is not None
    found = minimize(
        quadratic(hessians, centres),
        torch.zeros(num, size, dtype=torch.float64),
        inverse_hessian=lambda rows: rows,
        steps=300,
        coupling=coupling,
    )
    # The gradient of sum f_t + weight (|h_0 - before|^2 + sum |h_t - h_{t-1}|^2) is zero.
    gradient = torch.einsum('nde,ne->nd', hessians, found - centres)
    chain = torch.cat([before[None], found])
    steps = 2 * weight * chain.diff(dim=0)
    gradient += steps
    gradient[:-1] -= steps[1:]
    assert gradient.abs().max() < 1e-5


def test_the_right_curvature_needs_few_steps_and_no_step_goes_up() -> None:
    hessians, centres = random_problem(3, 20)
    function, start = quadratic(hessians, centres), torch.zeros(3, 20, dtype=torch.float64)
    everyone = torch.arange(3)
    first, _ = function(start, everyone)

    def solve(rows: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(hessians[: len(rows)], rows)

    near = function(minimize(function, start, inverse_hessian=solve, steps=5), everyone)[0]
    far = function(minimize(function, start, inverse_hessian=lambda rows: rows, steps=5), everyone)[0]
    assert (near < 1e-3 * first).all()
    assert (near < far).all()
    assert (far <= first).all()

    def cliff(h: torch.Tensor, active: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, gradient = function(h, active)
        return torch.where(h.norm(dim=1) > 0.01, value + 1e6, value), gradient

    found = minimize(cliff, start, inverse_hessian=lambda rows: rows, steps=30)
    assert (found.norm(dim=1) <= 0.01).all()
    assert (cliff(found, everyone)[0] < first).all()


def test_frames_leave_when_they_are_done() -> None:
    hessians, centres = random_problem(4, 3)
    centres[2] = 0  # done before it begins
    seen: list[list[int]] = []
    function = quadratic(hessians, centres)

    def watched(h: torch.Tensor, active: torch.Tensor) -> Any:
        seen.append(active.tolist())
        return function(h, active)

    start = torch.zeros(4, 3, dtype=torch.float64)
    minimize(watched, start, inverse_hessian=lambda rows: 0.05 * rows, steps=12, stop=0.01, patience=3)
    assert seen[:4] == [[0, 1, 2, 3]] * 4
    assert all(2 not in frames for frames in seen[4:])
    assert len(seen) > 4


def test_smoothness_is_its_formula() -> None:
    random = torch.Generator().manual_seed(1)
    h, before = torch.randn(4, 3, generator=random), torch.randn(3, generator=random)

    def value(coupling: Coupling) -> torch.Tensor:
        return 0.5 * (coupling.matrix * (h @ h.T)).sum() + (coupling.linear * h).sum()

    free, held = smoothness(4, None, 0.7), smoothness(4, before, 0.7)
    assert free is not None
    assert held is not None
    inner = 0.7 * h.diff(dim=0).square().sum()
    torch.testing.assert_close(value(free), inner)
    # But for the constant |before|^2.
    torch.testing.assert_close(value(held), inner + 0.7 * ((h[0] - before).square().sum() - before.square().sum()))
    assert smoothness(1, None, 0.7) is None
    assert smoothness(4, before, 0) is None


def test_curvature_of_linear_residuals_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_curvature, 'SAMPLES', 16384)
    monkeypatch.setattr(code_curvature, 'BATCH', 4096)
    matrix = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(2))

    def residuals(h: torch.Tensor) -> list[torch.Tensor]:
        values = torch.einsum('rld,nld->nr', matrix, h)
        return [values[:, :4], values[:, 4:]]

    found = torch.linalg.inv(code_curvature.inverse_curvature(residuals, 2, 3, device=torch.device('cpu'), floor=0.5))
    exact = 2 * torch.einsum('rld,rle->lde', matrix, matrix)
    exact = exact + (0.5 + code_curvature.DAMPING * exact.diagonal(dim1=1, dim2=2).mean()) * torch.eye(3)
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0.5)


def test_correction_of_the_frame_before_helps(G: Any) -> None:
    """An encoder that errs alike in every frame: what the first frame found is a better start for the others."""
    inversion = Inversion(G, None, InversionOptions(steps=1, first_steps=120, stop=0, lambda_smooth=0))
    ends = G.mapping(torch.from_numpy(np.random.RandomState(4).randn(2, 8)).float(), None)
    true = torch.lerp(ends[:1], ends[1:], 0.2 * torch.linspace(0, 1, 6)[:, None, None])
    targets = inversion.synthesize(true)
    wrong = true + 0.3 * torch.from_numpy(np.random.RandomState(5).randn(1, 6, 8)).float()

    def error(ws: torch.Tensor) -> float:
        return float((inversion.synthesize(ws) - targets).square().mean())

    assert error(inversion.fit_chunk(targets, wrong, None)) < 0.3 * error(wrong)
    # With a frame before it is its correction that counts; a wrong one is not taken over.
    corrected = inversion.fit_chunk(targets[1:], wrong[1:], true[0], wrong[0])
    assert error(torch.cat([true[:1], corrected])) < 1e-6
    misled = inversion.fit_chunk(targets[1:], true[1:], true[0] + 5, true[0])
    assert error(torch.cat([true[:1], misled])) < 1e-6
