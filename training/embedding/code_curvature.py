"""How strongly a change of the codes changes the image: the average curvature of the loss of inversion.

The loss of a frame is a sum of squares, |r(h)|^2 with r the differences of the pixels and of LPIPS's vectors, so near a good
code its Hessian is 2 J^T J with J = dr/dh (Gauss and Newton). It differs by orders of magnitude between directions:
that, not the shape of W, is what makes gradient descent slow. For random vectors n of unit normal numbers,

    E_n[(J^T n)(J^T n)^T] = J^T J,

so gradients of n . r give its average over codes and directions, one style layer after the other (the blocks of the
diagonal; what lies beside them is left to the optimiser's own memory).
"""

import math
from collections.abc import Callable

import torch

from training.embedding.pieces import pieces

DAMPING = 0.1  # of the average curvature is added, because few samples see few directions
SPREAD = 0.5  # standard deviations of the codes at which the curvature is taken
SAMPLES = 256
BATCH = 16


def inverse_curvature(
    residuals: Callable[[torch.Tensor], list[torch.Tensor]],
    num_ws: int,
    w_dim: int,
    *,
    device: torch.device,
    floor: float = 0,
    seed: int = 0,
    at_once: int | None = None,
) -> torch.Tensor:
    """Estimate the inverse Hessian of a loss |r(h)|^2, block by block.

    Args:
        residuals: Parts `[N, ...]` of r for h `[N, num_ws, w_dim]`.
        num_ws, w_dim: Shape of a code.
        device: Where it is computed.
        floor: Curvature of the loss's other terms, the same in every direction.
        seed: Of the codes and of n; equal seeds give equal results.
        at_once: Codes whose residuals are in memory together, None = all; changes nothing but rounding.

    Returns:
        Symmetric positive matrices `[num_ws, w_dim, w_dim]`.
    """
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros(num_ws, w_dim, w_dim, dtype=torch.float64, device=device)
    for _ in range(SAMPLES // BATCH):
        h = (SPREAD * torch.randn(BATCH, num_ws, w_dim, generator=random)).to(device).requires_grad_()
        normal: list[torch.Tensor] = []
        for piece in pieces(BATCH, at_once or BATCH):
            parts = residuals(h[piece])
            normal = normal or [torch.randn(BATCH, *part.shape[1:], generator=random) for part in parts]
            value = sum((part * n[piece].to(device)).sum() for part, n in zip(parts, normal, strict=True))
            assert isinstance(value, torch.Tensor)
            gradient = torch.autograd.grad(value, h)[0][piece].double()
            total += torch.einsum('nld,nle->lde', gradient, gradient)
    hessian = 2 * total / (SAMPLES // BATCH * BATCH)
    mean = float(hessian.diagonal(dim1=1, dim2=2).mean())
    damping = max(DAMPING * mean + floor, 1e-12)
    if not math.isfinite(damping):
        raise FloatingPointError('the image generator or the perceptual distance gives gradients that are not finite')
    hessian += damping * torch.eye(w_dim, dtype=torch.float64, device=device)
    return torch.linalg.inv(hessian).float()
