"""An optimiser whose steps change a weight matrix equally much in all directions (Muon: Jordan et al., 2024).

The momentum of each matrix is replaced by the nearest matrix with orthonormal rows or columns before it is applied. On the
modulated convolutions of the world's generator this needs far fewer steps than Adam for the same error
(`python -m benchmarks.world_optimizers` compares them).
"""

import math
from collections.abc import Iterable
from typing import Any

import torch

QUINTIC = (3.4445, -4.7750, 2.0315)  # x -> a x + b x^3 + c x^5 pushes all singular values in (0, 1] towards 1


def nearly_orthogonal(matrix: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """U V^T of a matrix U S V^T `[m, n]`, roughly (singular values about 0.7 to 1.2), by Newton-Schulz iteration in bfloat16."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.t() if tall else matrix) / (matrix.norm() + 1e-7)
    x = x.to(torch.bfloat16)
    a, b, c = QUINTIC
    for _ in range(rounds):
        gram = x @ x.t()
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.t() if tall else x).to(matrix.dtype)


class OrthogonalMomentum(torch.optim.Optimizer):
    """Steps of root mean square `lr` for every entry of parameters with two or more dimensions (flattened behind the first).

    momentum: decay of the moving average of the gradients; the step looks one gradient ahead (Nesterov).
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {'lr': lr, 'momentum': momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply one update; `closure` is not used."""
        for group in self.param_groups:
            for parameter in group['params']:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state['average'] = torch.zeros_like(parameter)
                average = state['average'].lerp_(parameter.grad, 1 - group['momentum'])
                ahead = parameter.grad.lerp(average, group['momentum']).flatten(1)
                update = nearly_orthogonal(ahead) * math.sqrt(max(ahead.shape))
                parameter.sub_(update.reshape(parameter.shape), alpha=group['lr'])


class PairedOptimizer:
    """OrthogonalMomentum for matrices and kernels, Adam for everything else (biases, constants, layers of few outputs)."""

    def __init__(self, module: torch.nn.Module, *, smallest: int = 8) -> None:
        matrices = [p for p in module.parameters() if p.ndim in (2, 4) and p.shape[0] >= smallest]
        chosen = {id(p) for p in matrices}
        self.matrices = OrthogonalMomentum(matrices, lr=0.0)
        self.others = torch.optim.Adam([p for p in module.parameters() if id(p) not in chosen], lr=0.0, betas=(0.9, 0.99))

    def step(self, lr: float, adam_lr: float) -> None:
        """Apply one update with these step sizes."""
        for optimizer, size in ((self.matrices, lr), (self.others, adam_lr)):
            for group in optimizer.param_groups:
                group['lr'] = float(size)
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.matrices.zero_grad(set_to_none=True)
        self.others.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """State of both."""
        return {'matrices': self.matrices.state_dict(), 'others': self.others.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """State of both, as `state_dict` gave it."""
        self.matrices.load_state_dict(state['matrices'])
        self.others.load_state_dict(state['others'])
