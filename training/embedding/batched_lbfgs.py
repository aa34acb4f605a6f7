"""Limited-memory BFGS for many functions at once, one for each frame, that are coupled by a known quadratic term.

Minimises  sum_t f_t(h_t) + sum_{s,t} A_st h_s . h_t / 2 + sum_t b_t . h_t  over the rows of h `[N, D]`. Every frame has
its own history, step size and end, while all frames that are still at work are evaluated together. For the step of a frame the
others count as fixed (Jacobi's iteration), which makes its function an ordinary one; the coupling is weak beside f.

The two-loop recursion is that of J. Nocedal: Updating quasi-Newton matrices with limited storage (Mathematics of Computation
35, 1980). Its first guess of the inverse Hessian is a given matrix, which is worth more than the history: see
`training.embedding.code_curvature`. A step that does not lower the loss of its frame is not taken, and tried again at a
third of its length.
"""

import dataclasses
from collections.abc import Callable

import torch

FIRST_GAIN = 0.5  # how much of its first step a frame dares


@dataclasses.dataclass(frozen=True)
class Coupling:
    """The quadratic term: `matrix` A `[N, N]`, symmetric, and `linear` b `[N, D]`."""

    matrix: torch.Tensor
    linear: torch.Tensor

    def pull(self, h: torch.Tensor) -> torch.Tensor:
        """Its gradient, A h + b, `[N, D]`."""
        return self.matrix @ h + self.linear


# Values `[n]` and gradients `[n, D]` of f_t for the rows `[n, D]` of the frames with the indices `[n]`.
Function = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def minimize(
    function: Function,
    start: torch.Tensor,
    *,
    inverse_hessian: Callable[[torch.Tensor], torch.Tensor],
    steps: int,
    coupling: Coupling | None = None,
    memory: int = 8,
    stop: float = 0,
    patience: int = 5,
) -> torch.Tensor:
    """Find the minimum near `start`.

    Args:
        function: f, see above.
        start: h `[N, D]` to start from.
        inverse_hessian: Multiplies rows `[n, D]` by the first guess of the inverse Hessian, symmetric and positive.
        steps: Most evaluations of each frame.
        coupling: The quadratic term; None: there is none.
        memory: Steps that are remembered.
        stop: A frame is done when its loss falls by less than this part in `patience` evaluations; 0: never.
        patience: See `stop`.

    Returns:
        h `[N, D]`.
    """
    h = start.clone()
    num, width = h.shape
    active = torch.arange(num, device=h.device)
    history = _History(num, width, memory, h)
    scale = h.new_ones(num)
    loss, grad = function(h, active)
    known = loss.clone()
    diagonal = h.new_zeros(num) if coupling is None else coupling.matrix.diagonal()
    for step in range(1, steps):
        pull = torch.zeros_like(h) if coupling is None else coupling.pull(h)
        # As a function of h_t alone, with the others fixed: f_t(h_t + d) + pull_t . d + A_tt |d|^2 / 2.
        total = (grad + pull)[active]
        direction = -history.multiply(total, active, inverse_hessian)
        uphill = (direction * total).sum(dim=1) >= 0
        direction = torch.where(uphill[:, None], -inverse_hessian(total), direction) * scale[active, None]
        new_loss, new_grad = function(h[active] + direction, active)
        change = (pull[active] * direction).sum(dim=1) + 0.5 * diagonal[active] * direction.square().sum(dim=1)
        better = new_loss + change < loss[active]
        taken = torch.where(better[:, None], direction, 0)
        bend = torch.where(better[:, None], new_grad - grad[active] + diagonal[active, None] * direction, 0)
        history.push(active, taken, bend, inverse_hessian)
        h[active] += taken
        loss[active] = torch.where(better, new_loss, loss[active])
        grad[active] = torch.where(better[:, None], new_grad, grad[active])
        scale[active] = torch.where(better, torch.ones_like(change), scale[active] / 3)
        if stop and step % patience == 0:
            going = loss[active] < known[active] * (1 - stop)
            known[active] = loss[active]
            active = active[going]
            if not len(active):
                break
    return h


class _History:
    """The last steps s = h' - h and bends v = g' - g of every frame; a pair that cannot be used has rho = 0."""

    def __init__(self, num: int, width: int, memory: int, like: torch.Tensor) -> None:
        self.steps = like.new_zeros(memory, num, width)
        self.bends = like.new_zeros(memory, num, width)
        self.rho = like.new_zeros(memory, num)  # 1 / (s . v)
        self.gain = like.new_full([num], FIRST_GAIN)  # of the first guess
        self.pushed = 0

    def push(
        self,
        active: torch.Tensor,
        step: torch.Tensor,
        bend: torch.Tensor,
        inverse_hessian: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        """Remember one more pair `[n, D]` of the active frames and forget the oldest."""
        slot = self.pushed % len(self.rho)
        product = (step * bend).sum(dim=1)
        # Curvature must be positive, and not by rounding only.
        usable = product > 1e-8 * step.norm(dim=1) * bend.norm(dim=1)
        self.rho[slot] = 0
        self.rho[slot, active] = torch.where(usable, 1 / product.clamp(min=torch.finfo(product.dtype).tiny), 0)
        self.steps[slot, active], self.bends[slot, active] = step, bend
        # The first guess times the factor that makes it right along the newest bend.
        guess = (bend * inverse_hessian(bend)).sum(dim=1)
        self.gain[active] = torch.where(usable, product / guess.clamp(min=torch.finfo(guess.dtype).tiny), self.gain[active])
        self.pushed += 1

    def multiply(
        self, vector: torch.Tensor, active: torch.Tensor, inverse_hessian: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """The inverse Hessian times `vector` `[n, D]`, by the two loops over the pairs, newest first and back."""
        count = len(self.rho)
        slots = [(self.pushed - 1 - age) % count for age in range(min(self.pushed, count))]
        weights = []
        for slot in slots:
            weight = self.rho[slot, active] * (self.steps[slot, active] * vector).sum(dim=1)
            vector = vector - weight[:, None] * self.bends[slot, active]
            weights.append(weight)
        vector = self.gain[active, None] * inverse_hessian(vector)
        for slot, weight in zip(reversed(slots), reversed(weights), strict=True):
            back = self.rho[slot, active] * (self.bends[slot, active] * vector).sum(dim=1)
            vector = vector + (weight - back)[:, None] * self.steps[slot, active]
        return vector
